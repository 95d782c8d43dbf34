// What a running task is given: logs, spans, subtasks, progress, and word of when to stop.
//
// Hides: the attempt behind it; what becomes of subtasks before the task has computed (nothing).
// Threads: a Context belongs to the thread that executes the task. Its logger, tracer, stop token and Progress may be
//   used by threads that the task starts; such a thread makes current_context() current to record inside the task.
// Failure: submitting throws Error(invalid_argument) for a dependency that is none of this task's subtasks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waymark/log.h"
#include "waymark/task.h"
#include "waymark/trace.h"

namespace waymark {

namespace detail {
class Attempt;
struct ProgressLabel;
}  // namespace detail

// Subtasks that were submitted by this execution: one, or a set. Good for as long as the execution that made it.
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
  friend class Context;
  friend class detail::Attempt;
  std::uint64_t owner_ = 0;     // the execution; 0: empty
  std::vector<Range> ranges_;   // sorted, apart
};
using FutureTask = FutureTasks;

struct SubtaskOptions {
  FutureTasks depends_on = {};    // subtasks of this same task: waits for their whole subtrees
  std::uint32_t max_retries = 0;  // attempts that may fail before the task does
  std::int32_t priority = 0;      // higher first
};

// A named count that whoever looks at the job sees while the task runs. Calls are cheap; what they add up to is written
// several times a second at most.
class Progress {
 public:
  void add(std::uint64_t total) const;  // so much more to do
  void done(std::uint64_t count = 1) const;  // so much more of it done

 private:
  friend class Context;
  explicit Progress(std::shared_ptr<detail::ProgressLabel> label) : label_(std::move(label)) {}
  std::shared_ptr<detail::ProgressLabel> label_;
};

class Context {
 public:
  struct JobRef {
    std::string id;
    std::string name;
  };

  explicit Context(detail::Attempt& attempt) : attempt_(&attempt) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Adds task and job ids to every record.
  [[nodiscard]] const Logger& logger();
  [[nodiscard]] const Tracer& tracer() const;

  // Subtasks are written together with this execution's success, and are runnable from then on: an attempt that fails
  // leaves none.
  template <class T>
  FutureTask submit_subtask(const T& task, const SubtaskOptions& options = {}) {
    return submit(task_name<T>(), {task_input(task)}, options);
  }
  template <class T>
  FutureTasks submit_subtasks(const std::vector<T>& tasks, const SubtaskOptions& options = {}) {
    std::vector<std::string> inputs;
    inputs.reserve(tasks.size());
    for (const T& task : tasks) inputs.push_back(task_input(task));
    return submit(task_name<T>(), std::move(inputs), options);
  }
  // By name, for tasks of another program; inputs are JSON.
  FutureTasks submit(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options = {});

  [[nodiscard]] Progress progress(std::string_view label = {});

  [[nodiscard]] std::uint32_t attempt() const noexcept;  // 1 for the first
  [[nodiscard]] const JobRef& job() const noexcept;
  [[nodiscard]] const std::string& task_id() const noexcept;
  // Asked to stop when the runner stops, when the job is stopped, and when the lease was lost (the result will be
  // refused).
  [[nodiscard]] std::stop_token stop_token() const noexcept;

 private:
  detail::Attempt* attempt_;
};

}  // namespace waymark
