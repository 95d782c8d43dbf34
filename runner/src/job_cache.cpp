#include "job_cache.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "instrumentation.h"
#include "waymark/error.h"

namespace waymark {
namespace {

void check_name(std::string_view name, const char* what) {
  constexpr std::size_t kLongest = 200;
  if (!name.empty() && name.size() <= kLongest && name.find('/') == std::string_view::npos &&
      name.find('\0') == std::string_view::npos) {
    return;
  }
  throw Error(ErrorCode::invalid_argument,
              "job cache: a " + std::string(what) + " of " + std::to_string(name.size()) +
                  " bytes can't be used: expected 1 to 200 bytes without '/' and NUL; nest with group()");
}

}  // namespace

std::string JobCache::get(std::string_view key) const {
  auto bytes = find(key);
  if (!bytes) {
    throw Error(ErrorCode::not_found, "job cache: no key \"" + std::string(key) + "\" in " +
                                          (path_.empty() ? "job " : "group \"" + path_ + "\" of job ") +
                                          shelf_->job().id);
  }
  return std::move(*bytes);
}

std::optional<std::string> JobCache::find(std::string_view key) const {
  check_name(key, "key");
  return shelf_->find(path_, key);
}

void JobCache::set(std::string_view key, std::string_view bytes) const {
  check_name(key, "key");
  shelf_->set(path_, key, bytes);
}

void JobCache::remove(std::string_view key) const {
  check_name(key, "key");
  shelf_->remove(path_, key);
}

std::vector<std::string> JobCache::keys() const { return shelf_->keys(path_); }

JobCache JobCache::group(std::string_view name) const {
  check_name(name, "group's name");
  return {shelf_, path_.empty() ? std::string(name) : path_ + "/" + std::string(name)};
}

namespace detail {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& what, const std::string& path, int error) {
  throw Error(ErrorCode::io, "job cache: could not " + what + " " + path + ": " + std::strerror(error) +
                                 ": check ClientOptions::cache_directory, its permissions, and the room on its disk");
}

}  // namespace

CacheShelf::CacheShelf(std::shared_ptr<Store> store, std::shared_ptr<const JobRecord> job, std::string directory,
                       std::optional<Tracer> tracer)
    : store_(std::move(store)), job_(std::move(job)), directory_(std::move(directory)), tracer_(std::move(tracer)) {}

std::string CacheShelf::directory_of(const std::string& path) const {
  std::string directory = directory_ + "/" + job_->id;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    directory += "/g_" + path.substr(at, end - at);
    at = end + 1;
  }
  return directory;
}

DetachedSpan CacheShelf::span(std::string_view operation, const std::string& path, std::string_view key) const {
  if (!tracer_) return {};
  return tracer_->start_span(std::string(names::kCache) + std::string(operation),
                       {{names::kCacheKey, path.empty() ? std::string(key) : path + "/" + std::string(key)}});
}

std::optional<std::string> CacheShelf::find(const std::string& path, std::string_view key) const {
  DetachedSpan recorded = span("get", path, key);
  std::optional<std::string> bytes;
  if (directory_.empty()) {
    bytes = store_->cached(job_->number, path, key);
  } else {
    const std::string name = directory_of(path) + "/k_" + std::string(key);
    errno = 0;
    std::ifstream file(name, std::ios::binary);
    if (file) {
      bytes.emplace(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      if (file.bad()) fail("read", name, errno);
    } else if (errno != ENOENT && errno != ENOTDIR) {
      fail("open", name, errno);
    }
  }
  recorded.set({{names::kCacheHit, bytes.has_value()}, {names::kCacheSize, bytes ? bytes->size() : 0}});
  return bytes;
}

void CacheShelf::set(const std::string& path, std::string_view key, std::string_view bytes) const {
  DetachedSpan recorded = span("set", path, key);
  recorded.set(names::kCacheSize, bytes.size());
  if (directory_.empty()) return store_->cache(job_->number, path, key, bytes);
  const std::string directory = directory_of(path);
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) fail("make the directory", directory, error.value());
  const std::string name = directory + "/k_" + std::string(key);
  const std::string fresh = directory + "/t_" + SpanId::random().hex();  // another's write is not met
  errno = 0;
  std::ofstream file(fresh, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  const int failed = file ? 0 : errno;
  if (file) fs::rename(fresh, name, error);
  if (failed || error) {
    std::error_code ignored;
    fs::remove(fresh, ignored);
    fail("write", name, failed ? failed : error.value());
  }
}

void CacheShelf::remove(const std::string& path, std::string_view key) const {
  const DetachedSpan recorded = span("remove", path, key);
  if (directory_.empty()) return store_->cache(job_->number, path, key, std::nullopt);
  const std::string name = directory_of(path) + "/k_" + std::string(key);
  std::error_code error;
  fs::remove(name, error);
  if (error && error != std::errc::not_a_directory) fail("remove", name, error.value());
}

std::vector<std::string> CacheShelf::keys(const std::string& path) const {
  if (directory_.empty()) return store_->cached_keys(job_->number, path);
  std::vector<std::string> keys;
  const std::string directory = directory_of(path);
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("k_")) keys.push_back(name.substr(2));
  }
  if (error && error != std::errc::no_such_file_or_directory) fail("list", directory, error.value());
  std::sort(keys.begin(), keys.end());
  return keys;
}

bool remove_cache(const std::string& directory, const std::string& job, std::chrono::steady_clock::time_point until) {
  const fs::path root = directory + "/" + job;
  std::error_code error;
  // Files first; the directories are few.
  for (fs::recursive_directory_iterator entry(root, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;  // a file that stays takes room, no more
    if (entry->is_directory(ignored) && !entry->is_symlink(ignored)) continue;
    fs::remove(entry->path(), ignored);
    if (std::chrono::steady_clock::now() >= until) return false;
  }
  fs::remove_all(root, error);
  return true;
}

}  // namespace detail
}  // namespace waymark
