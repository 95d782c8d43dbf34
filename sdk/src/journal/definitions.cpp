#include "journal/definitions.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "journal/checksum.h"

namespace waymark::journal {
namespace {

struct EntryHeader {
  std::uint32_t kind;  // kResource or kScope
  std::uint32_t id;
  std::uint32_t bytes;
  std::uint32_t schema_bytes;  // of `bytes`, at the end
  std::uint64_t checksum;      // of the bytes
};
constexpr std::uint32_t kResource = 0;
constexpr std::uint32_t kScope = 1;
constexpr std::size_t kGreatestFile = 64 << 20;

}  // namespace

std::string Definitions::load(const std::string& path) {
  const std::scoped_lock lock(file_mutex_, mutex_);
  const auto bytes = read_file(path, kGreatestFile);
  if (!bytes) return errno == ENOENT ? "" : path + ": cannot be read: " + errno_text(errno);
  std::size_t offset = 0;
  std::string problem;
  while (offset < bytes->size()) {
    EntryHeader header{};
    const bool whole = bytes->size() - offset >= sizeof header;
    if (whole) std::memcpy(&header, bytes->data() + offset, sizeof header);
    const std::size_t begin = offset + sizeof header;
    if (!whole || header.bytes > bytes->size() - begin || header.schema_bytes > header.bytes || header.id >= UINT16_MAX ||
        header.kind > kScope || header.checksum != checksum(bytes->data() + begin, header.bytes)) {
      problem = path + ": the entry at byte " + std::to_string(offset) + " is damaged";
      break;
    }
    const std::string_view text(bytes->data() + begin, header.bytes);
    if (header.kind == kResource) {
      resource_ = text;
    } else {
      if (scopes_.size() <= header.id) scopes_.resize(header.id + 1);
      const std::size_t encoded = header.bytes - header.schema_bytes;
      scopes_[header.id] = {std::string(text.substr(0, encoded)), std::string(text.substr(encoded))};
    }
    offset = begin + header.bytes;
  }
  bytes_ = offset;
  return problem;
}

void Definitions::write_to(const std::string& path) {
  const std::scoped_lock lock(file_mutex_);
  path_ = path;
  file_ = File::open(path, O_RDWR | O_CREAT);
}

std::string Definitions::resource() const {
  const std::scoped_lock lock(mutex_);
  return resource_;
}

Scope Definitions::scope(std::uint16_t id) const {
  const std::scoped_lock lock(mutex_);
  return id < scopes_.size() ? scopes_[id] : Scope{};
}

bool Definitions::append(std::uint32_t kind, std::uint32_t id, const std::string& bytes, std::size_t schema_bytes) {
  if (path_.empty()) return true;
  const EntryHeader header{kind, id, static_cast<std::uint32_t>(bytes.size()), static_cast<std::uint32_t>(schema_bytes),
                           checksum(bytes.data(), bytes.size())};
  const iovec pieces[2] = {{const_cast<EntryHeader*>(&header), sizeof header},
                           {const_cast<char*>(bytes.data()), bytes.size()}};
  // One that is missing in between would give the next one's place to it.
  if (!file_.valid() || !complete() || !file_.write_at(bytes_, pieces, 2)) {
    behind_.store(true, std::memory_order_release);
    return false;
  }
  bytes_ += sizeof header + bytes.size();
  dirty_ = true;
  return true;
}

bool Definitions::set_resource(std::string encoded) {
  const std::scoped_lock lock(file_mutex_);
  const bool written = append(kResource, 0, encoded, 0);
  const std::scoped_lock known(mutex_);
  resource_ = std::move(encoded);
  return written;
}

Definitions::Added Definitions::add(const Scope& scope) {
  const std::scoped_lock lock(file_mutex_);
  Added added;
  {
    const std::scoped_lock known(mutex_);
    for (std::size_t i = 0; i < scopes_.size(); ++i) {
      if (scopes_[i].encoded == scope.encoded && scopes_[i].schema_url == scope.schema_url) {
        added.id = static_cast<std::uint16_t>(i);
        return added;
      }
    }
    if (scopes_.size() >= UINT16_MAX) {
      added.id = UINT16_MAX - 1;
      return added;
    }
    added.id = static_cast<std::uint16_t>(scopes_.size());
  }
  // Nobody else adds one meanwhile.
  if (!append(kScope, added.id, scope.encoded + scope.schema_url, scope.schema_url.size())) added.error = errno;
  const std::scoped_lock known(mutex_);
  scopes_.push_back(scope);
  return added;
}

bool Definitions::rewrite() {
  const std::scoped_lock lock(file_mutex_);
  if (path_.empty()) return true;
  const std::string scratch = path_ + ".new";
  File fresh = File::open(scratch, O_RDWR | O_CREAT | O_TRUNC);
  if (!fresh.valid()) return false;
  std::swap(file_, fresh);
  const std::uint64_t before = std::exchange(bytes_, 0);
  behind_.store(false, std::memory_order_relaxed);
  std::string resource;
  std::vector<Scope> scopes;
  {
    const std::scoped_lock known(mutex_);
    resource = resource_;
    scopes = scopes_;
  }
  bool good = append(kResource, 0, resource, 0);
  for (std::size_t i = 0; good && i < scopes.size(); ++i) {
    good = append(kScope, static_cast<std::uint32_t>(i), scopes[i].encoded + scopes[i].schema_url, scopes[i].schema_url.size());
  }
  if (good && ::rename(scratch.c_str(), path_.c_str()) == 0) return true;
  const int error = errno;
  ::unlink(scratch.c_str());
  std::swap(file_, fresh);
  bytes_ = before;
  behind_.store(true, std::memory_order_release);
  errno = error;
  return false;
}

bool Definitions::sync() {
  const std::scoped_lock lock(file_mutex_);
  if (!dirty_) return true;
  dirty_ = !(file_.sync_data() && sync_directory(path_.substr(0, path_.rfind('/'))));
  return !dirty_;
}

}  // namespace waymark::journal
