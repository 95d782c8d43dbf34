#include "base/headers_file.h"

#include <strings.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/file.h"
#include "base/header_rules.h"
#include "waymark/error.h"

namespace waymark {
namespace {

constexpr std::size_t kMostBytes = 64 * 1024;

[[noreturn]] void unreadable(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::io, "headers_file " + path + ": can't be read (" + why + "); name a readable file of `Name: value` lines");
}

bool same_name(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view kBlank = " \t\r";
  const auto begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

HeaderList parse(const std::string& path, std::string_view text) {
  HeaderList headers;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.empty() || line.front() == '#') continue;
    const auto colon = line.find(':');
    const std::string_view name = trimmed(line.substr(0, colon));
    const std::string_view value = colon == std::string_view::npos ? std::string_view() : trimmed(line.substr(colon + 1));
    if (colon == std::string_view::npos || !is_header_name(name) || !is_header_value(value)) {
      // What is wrong may be a piece of the secret itself, so nothing of the line is repeated.
      throw Error(ErrorCode::invalid_header, "headers_file " + path + ", line " + std::to_string(number) +
                                                 ": expected `Name: value`, where the name is an HTTP token and the value has no "
                                                 "control characters");
    }
    headers.emplace_back(name, value);
  }
  return headers;
}

}  // namespace

HeadersFile::HeadersFile(std::string path) : path_(std::move(path)) { reload(); }

HeadersFile::Stamp HeadersFile::stamp_of(const struct stat& status) noexcept {
  return {.modified = status.st_mtim, .size = status.st_size, .inode = status.st_ino};
}

bool HeadersFile::touched() const noexcept {
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) return false;  // between two versions, perhaps
  const Stamp now = stamp_of(status);
  return now.inode != stamp_.inode || now.size != stamp_.size || now.modified.tv_sec != stamp_.modified.tv_sec ||
         now.modified.tv_nsec != stamp_.modified.tv_nsec;
}

bool HeadersFile::reload() {
  // Before anything can fail: a version that can't be read need not be tried twice. One that comes after this glance is
  // another one, and is noticed.
  struct stat seen {};
  if (::stat(path_.c_str(), &seen) == 0) stamp_ = stamp_of(seen);
  const auto text = read_named_file(path_, kMostBytes);
  if (!text) unreadable(path_, errno == EFBIG ? "it is larger than 64 KiB" : errno_text(errno));
  HeaderList read = parse(path_, *text);
  if (read == headers_) return false;
  headers_ = std::move(read);
  return true;
}

HeaderList merged(HeaderList own, const HeaderList& file) {
  for (const auto& [name, value] : file) {
    std::erase_if(own, [&, n = std::string_view(name)](const auto& header) { return same_name(header.first, n); });
  }
  own.insert(own.end(), file.begin(), file.end());
  return own;
}

const std::string* find_header(const HeaderList& headers, std::string_view name) noexcept {
  for (const auto& [key, value] : headers) {
    if (same_name(key, name)) return &value;
  }
  return nullptr;
}

}  // namespace waymark
