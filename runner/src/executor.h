// One attempt at one task: what Context stands on while it runs, and what is left of it for the store afterwards.
//
// Hides: how progress is gathered, what an exception turns into, whose word counts where a thread hangs.
// Threads: an Attempt is executed by one thread; its stop source and progress may be used by others. Where that thread
//   does not come back, the runner's loop abandons it: the attempt is what the loop says then, whatever it does.
// Failure: whatever the task throws becomes a failed Finish.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "instrumentation.h"
#include "job_cache.h"
#include "task_batch.h"
#include "waymark/config.h"
#include "waymark/context.h"
#include "waymark/store.h"

namespace waymark::detail {

class ProgressBoard;
class WorkerProcess;

struct ProgressLabel {
  std::shared_ptr<ProgressBoard> board;
  std::int64_t task = 0;
  std::uint32_t attempt = 0;
  std::string label;
  std::atomic<std::uint64_t> done{0};
  std::atomic<std::uint64_t> total{0};
  std::atomic<bool> listed{false};  // on the board's list of changes
};

// What has changed since the runner last looked. Outlives the runner where a task's thread still holds a Progress.
class ProgressBoard {
 public:
  // `changed` is called when the list was empty; nothing calls it after close().
  explicit ProgressBoard(std::function<void()> changed) : changed_(std::move(changed)) {}
  void close();
  void list(const std::shared_ptr<ProgressLabel>& label);
  [[nodiscard]] std::vector<ProgressReport> take();

 private:
  std::mutex mutex_;
  std::function<void()> changed_;
  std::vector<std::shared_ptr<ProgressLabel>> changes_;
};

[[nodiscard]] Timestamp system_time();

// What the attempts of one runner stand on.
struct AttemptGround {
  std::shared_ptr<Store> store;
  Instrumentation instrumentation;
  RetryConfig backoff;
  std::string cache_directory;  // empty: job caches are in the store
  bool cache_spans = false;
  std::function<Timestamp()> now;
  std::vector<TaskType> types;
  bool in_worker = false;  // of a process that a runner has started: that one counts
};

class Attempt {
 public:
  Attempt(ClaimedTask task, std::shared_ptr<const AttemptGround> ground, WorkerId worker,
          std::shared_ptr<ProgressBoard> board);

  // Runs the task on the calling thread, or has it run by a worker process, which then has its span. That stays open, for
  // what the store will say.
  void execute(const std::shared_ptr<WorkerProcess>& process = {});
  // Of the whole attempt, that is from execute()'s start; 0: none.
  [[nodiscard]] std::chrono::nanoseconds timeout() const noexcept { return task_.timeout; }
  // Its time is up: if it stops now, it has failed by that. To be followed by a stop request.
  void time_out() noexcept { timed_out_ = true; }
  [[nodiscard]] bool timed_out() const noexcept { return timed_out_; }
  // Its thread is given up: it has failed by its timeout, or else is given back. False where it has not yet begun.
  // Under the runner's lock, as is abandoned().
  bool abandon(bool for_timeout);
  // Where a worker process executes it, that is killed instead, and the thread comes back. False: there is none.
  bool kill_process(bool for_timeout);
  [[nodiscard]] bool killed() const noexcept { return killed_ != Kill::none; }
  // Of a worker process whose runner is gone: says so in the span, which stays open.
  void orphan() noexcept;
  [[nodiscard]] bool abandoned() const noexcept { return abandoned_.has_value(); }
  [[nodiscard]] std::stop_source stop_source() const noexcept { return stop_; }

  [[nodiscard]] const ClaimedTask& task() const noexcept { return task_; }
  [[nodiscard]] Finish& finish() noexcept { return abandoned_ ? *abandoned_ : finish_; }
  // Said and asked under the runner's lock: its lease ended at `deadline`, while it ran.
  void lose_lease(Timestamp deadline) noexcept { lease_lost_ = deadline; }
  [[nodiscard]] std::optional<Timestamp> lease_lost() const noexcept { return lease_lost_; }
  // Gives it back unstarted.
  void release();
  // Ends its span. `accepted`: by the store; else it ended when its lease did, at `deadline`.
  void conclude(bool accepted, Timestamp deadline);

  // For Context.
  FutureTasks submit(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options);
  [[nodiscard]] const Logger& logger();
  [[nodiscard]] const Tracer& tracer() const noexcept { return ground_->instrumentation.task_tracer(); }
  [[nodiscard]] const Tracer& runner_tracer() const noexcept { return ground_->instrumentation.runner_tracer(); }
  [[nodiscard]] std::optional<std::string> kept_step(std::string_view name);
  void keep_step(std::string_view name, std::string_view result);
  void display(std::string_view text);
  [[nodiscard]] std::shared_ptr<const CacheShelf> cache();
  [[nodiscard]] std::shared_ptr<ProgressLabel> progress(std::string_view label);
  [[nodiscard]] const Context::JobRef& job() const noexcept { return job_; }
  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

 private:
  [[nodiscard]] Timestamp now() const { return ground_->now(); }
  void execute_here();
  void execute_in(WorkerProcess& process);
  void count(const ProgressReport& report);
  void fail(const std::exception_ptr& exception, bool for_good);
  void fail_by_timeout(Finish& finish) const;
  void tell_of_stop(const std::exception_ptr& exception);
  [[nodiscard]] std::optional<std::chrono::nanoseconds> wait_before_next() const;

  ClaimedTask task_;
  std::shared_ptr<const AttemptGround> ground_;
  const TaskType* type_;
  WorkerId worker_;
  std::shared_ptr<ProgressBoard> board_;
  Context::JobRef job_;
  std::string id_;
  std::stop_source stop_;
  std::optional<Timestamp> lease_lost_;
  DetachedSpan span_;
  Timestamp start_;
  std::optional<Logger> logger_;
  Finish finish_;
  std::size_t submitted_ = 0;
  std::map<std::string, std::shared_ptr<ProgressLabel>, std::less<>> progress_;
  std::optional<TaskBatch> subtasks_;
  std::shared_ptr<const CacheShelf> cache_;
  std::atomic<bool> begun_{false};  // its span is there
  std::atomic<bool> timed_out_{false};
  std::optional<Finish> abandoned_;
  std::shared_ptr<WorkerProcess> process_;
  enum class Kill : std::uint8_t { none, for_timeout, to_stop };
  std::atomic<Kill> killed_{Kill::none};
};

}  // namespace waymark::detail
