// Tasks on their way into the store: those that one execution submits, or the roots of a job.
//
// Hides: how sets of dependencies become groups, and how a job is named.
// Threads: one at a time.
// Failure: Error(invalid_argument) for a dependency of another batch, and for options out of range.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waymark/store.h"
#include "waymark/subtasks.h"

namespace waymark::detail {

class TaskBatch {
 public:
  TaskBatch();
  FutureTasks add(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options);
  [[nodiscard]] std::size_t size() const noexcept { return tasks_.size(); }
  // All of them, once.
  [[nodiscard]] NewTasks take();

 private:
  std::uint64_t owner_ = 0;  // of the futures it hands out
  std::vector<NewTask> tasks_;
  std::vector<std::vector<FutureTasks::Range>> dependencies_;  // each set once
  std::map<std::vector<std::pair<std::uint32_t, std::uint32_t>>, std::uint32_t> dependency_index_;
  std::vector<std::uint32_t> dependency_of_;  // for each task; kNone: on nothing
};

// A UUID of version 7: it begins with the time, so that ids sort as jobs were submitted.
[[nodiscard]] std::string new_job_id();
// No longer than a hundred years: that is for ever, and can be added to any time.
[[nodiscard]] constexpr std::chrono::nanoseconds bounded(std::chrono::nanoseconds time) noexcept {
  return std::min<std::chrono::nanoseconds>(time, std::chrono::hours(24 * 36525));
}
[[nodiscard]] constexpr RetryConfig bounded(RetryConfig backoff) noexcept {
  backoff.initial = bounded(backoff.initial);
  backoff.maximum = bounded(backoff.maximum);
  return backoff;
}
// Error(invalid_argument) that begins with `where`.
void check_backoff(const RetryConfig& backoff, const std::string& where);
// The same, of all settings of a task.
void check_settings(const TaskSettings& settings, const std::string& where);
// A display name as it is kept: at most 1,024 bytes of UTF-8.
[[nodiscard]] std::string cut_display(std::string_view text);

}  // namespace waymark::detail
