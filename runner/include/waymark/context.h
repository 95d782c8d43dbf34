// What a running task is given: logs, spans, subtasks, progress, and word of when to stop.
//
// Hides: the attempt behind it; what becomes of subtasks before the task has computed (nothing).
// Threads: a Context belongs to the thread that executes the task. Its logger, tracer, stop token and Progress may be
//   used by threads that the task starts; such a thread makes current_context() current to record inside the task.
// Failure: submitting throws Error(invalid_argument) for a dependency that is none of this task's subtasks; steps, the
//   cache and display() throw Error(store).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "waymark/job_cache.h"
#include "waymark/log.h"
#include "waymark/subtasks.h"
#include "waymark/task.h"
#include "waymark/trace.h"

namespace waymark {

class Context;

namespace detail {
class Attempt;
struct ProgressLabel;
// For tests: the time of this attempt is over now, and its stop token is asked. How long it was; 0: it has no timeout.
std::chrono::nanoseconds run_out_of_time(Context& context);
}  // namespace detail

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
    return submit(task_name<T>(), task_inputs(tasks), options);
  }
  // By name, for tasks of another program; inputs are JSON.
  FutureTasks submit(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options = {});

  [[nodiscard]] Progress progress(std::string_view label = {});

  // Runs `work` once for this task, whatever becomes of the attempt: its result (JSON) is in the store when step()
  // returns, and a later attempt is given it instead. Names are unique within the task. Throws Error(store) where it
  // can't be kept, Error(closed) where this attempt is not the task's any more.
  template <class Work>
  auto step(std::string_view name, Work&& work) -> std::invoke_result_t<Work&> {
    using Result = std::invoke_result_t<Work&>;
    if (const auto kept = kept_step(name)) {
      if constexpr (std::is_void_v<Result>) {
        return;
      } else {
        return nlohmann::json::parse(*kept).template get<Result>();
      }
    }
    const auto span = step_span(name);
    if constexpr (std::is_void_v<Result>) {
      work();
      keep_step(name, "null");
    } else {
      Result result = work();
      keep_step(name, nlohmann::json(result).dump());
      return result;
    }
  }

  // Bytes that the tasks of this job share.
  [[nodiscard]] JobCache job_cache() const;

  // What people see instead of the task's name, from now on. At most 1,024 bytes are kept.
  void display(std::string_view text);

  [[nodiscard]] std::uint32_t attempt() const noexcept;  // 1 for the first
  [[nodiscard]] const JobRef& job() const noexcept;
  [[nodiscard]] const std::string& task_id() const noexcept;
  // Asked to stop when the runner stops, when the job has failed or was canceled, when the task's timeout is over, and
  // when the lease was lost (the result will be refused).
  [[nodiscard]] std::stop_token stop_token() const noexcept;

 private:
  [[nodiscard]] std::optional<std::string> kept_step(std::string_view name);
  void keep_step(std::string_view name, std::string_view result);
  [[nodiscard]] Span step_span(std::string_view name) const;
  friend std::chrono::nanoseconds detail::run_out_of_time(Context& context);
  detail::Attempt* attempt_;
};

}  // namespace waymark
