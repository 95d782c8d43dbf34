// Bytes by key, shared by the tasks of one job and gone with it.
//
//   context.job_cache().group("bands").set("B04", bytes);
//
// Groups nest. A key is written whole or not at all; the last writer's bytes stay.
//
// Hides: where they lie: in the store, or in a directory (ClientOptions::cache_directory).
// Threads: values; any thread may use any copy, for as long as the task runs.
// Failure: Error(not_found) for a key that is not there, Error(invalid_argument) for one that can't be (1 to 200 bytes,
//   no '/' and no NUL), Error(store) or Error(io) where the cache can't be reached.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace waymark {

namespace detail {
class CacheShelf;
}

class JobCache {
 public:
  [[nodiscard]] std::string get(std::string_view key) const;
  [[nodiscard]] std::optional<std::string> find(std::string_view key) const;  // none: it is not there
  void set(std::string_view key, std::string_view bytes) const;
  void remove(std::string_view key) const;  // nothing happens where it is not there
  // Of this group alone, sorted.
  [[nodiscard]] std::vector<std::string> keys() const;
  [[nodiscard]] JobCache group(std::string_view name) const;

 private:
  friend class Context;
  JobCache(std::shared_ptr<const detail::CacheShelf> shelf, std::string path)
      : shelf_(std::move(shelf)), path_(std::move(path)) {}
  std::shared_ptr<const detail::CacheShelf> shelf_;
  std::string path_;  // names of groups, joined with '/'
};

}  // namespace waymark
