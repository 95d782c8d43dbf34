// Where a job's cache lies, and what its operations record.
//
// Hides: the directory's layout (JOB/g_GROUP/g_GROUP/k_KEY), and that a file appears whole.
// Threads: any.
// Failure: Error(store) or Error(io); see waymark/job_cache.h.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/job_cache.h"
#include "waymark/store.h"
#include "waymark/trace.h"

namespace waymark::detail {

class CacheShelf {
 public:
  // Without a directory in the store; without a tracer nothing is recorded.
  CacheShelf(std::shared_ptr<Store> store, std::shared_ptr<const JobRecord> job, std::string directory,
             std::optional<Tracer> tracer);

  [[nodiscard]] std::optional<std::string> find(const std::string& path, std::string_view key) const;
  void set(const std::string& path, std::string_view key, std::string_view bytes) const;
  void remove(const std::string& path, std::string_view key) const;
  [[nodiscard]] std::vector<std::string> keys(const std::string& path) const;
  [[nodiscard]] const JobRecord& job() const noexcept { return *job_; }

 private:
  [[nodiscard]] std::string directory_of(const std::string& path) const;
  [[nodiscard]] DetachedSpan span(std::string_view operation, const std::string& path, std::string_view key) const;
  std::shared_ptr<Store> store_;
  std::shared_ptr<const JobRecord> job_;
  std::string directory_;
  std::optional<Tracer> tracer_;
};

// Removes what a job that is gone has left in such a directory, for about so long. True: nothing is left that could be
// removed.
bool remove_cache(const std::string& directory, const std::string& job, std::chrono::steady_clock::time_point until);

}  // namespace waymark::detail
