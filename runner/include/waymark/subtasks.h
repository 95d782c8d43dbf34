// Tasks that are submitted together: by a running task, or as the roots of a job.
//
//   waymark::TaskSet roots;
//   auto scenes = roots.add(std::vector<Scene>{{"S2A_1"}, {"S2A_2"}}, {.max_retries = 3});
//   roots.add(Mosaic{}, {.depends_on = scenes});
//   client.jobs().submit("mosaic", std::move(roots));
//
// Hides: how dependencies become groups of tasks with the same dependents.
// Threads: one thread at a time.
// Failure: Error(invalid_argument) for a dependency that is not in the same set, and for options out of range.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waymark/config.h"
#include "waymark/task.h"
#include "waymark/trace.h"

namespace waymark {

namespace detail {
class TaskBatch;
}

// Tasks of one set: one, or several. Good for as long as the set, or the execution, that made it.
class FutureTasks {
 public:
  struct Range {
    std::uint32_t first;
    std::uint32_t last;  // one past
    friend bool operator==(const Range&, const Range&) = default;
  };

  FutureTasks() = default;
  FutureTasks(std::initializer_list<FutureTasks> sets);
  FutureTasks(const std::vector<FutureTasks>& sets);

  // Adds those of another set.
  FutureTasks& add(const FutureTasks& other);
  [[nodiscard]] std::size_t size() const noexcept;
  [[nodiscard]] bool empty() const noexcept { return ranges_.empty(); }
  // The n-th of them, in the order in which they were submitted.
  [[nodiscard]] FutureTasks operator[](std::size_t n) const;

 private:
  friend class detail::TaskBatch;
  std::uint64_t owner_ = 0;     // the batch; 0: empty
  std::vector<Range> ranges_;   // sorted, apart
};
using FutureTask = FutureTasks;

struct SubtaskOptions {
  FutureTasks depends_on = {};    // of this same task or set: waits for their whole subtrees
  std::uint32_t max_retries = 0;  // attempts that may fail before the task does
  std::int32_t priority = 0;      // higher first
  // When it or something below it fails for good, the rest of its subtree is skipped, and the job goes on.
  bool optional = false;
  std::optional<RetryConfig> backoff = {};  // before a failed attempt is repeated; default: the runner's
  // An attempt that runs longer is asked to stop; RunnerOptions::timeout_grace later it has failed. 0: none.
  std::chrono::nanoseconds timeout{0};
  std::chrono::nanoseconds delay{0};  // it starts no earlier than so long after it was submitted
  Timestamp not_before = {};  // nor than this, by the store's clock
  std::string limit_key = {};  // see Limit
  std::string cluster = {};    // where it runs; default: where its parent does, or the client's
  std::string display = {};    // a name for people
};

// The roots of a job.
class TaskSet {
 public:
  TaskSet();
  ~TaskSet();
  TaskSet(TaskSet&&) noexcept;
  TaskSet& operator=(TaskSet&&) noexcept;

  template <class T>
  FutureTask add(const T& task, const SubtaskOptions& options = {}) {
    return add(task_name<T>(), {task_input(task)}, options);
  }
  template <class T>
  FutureTasks add(const std::vector<T>& tasks, const SubtaskOptions& options = {}) {
    return add(task_name<T>(), task_inputs(tasks), options);
  }
  // By name, for tasks of another program; inputs are JSON.
  FutureTasks add(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options = {});
  [[nodiscard]] std::size_t size() const noexcept;

 private:
  friend class Jobs;
  std::unique_ptr<detail::TaskBatch> batch_;
};

}  // namespace waymark
