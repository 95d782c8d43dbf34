// One attempt at one task: what Context stands on while it runs, and what is left of it for the store afterwards.
//
// Hides: how subtasks and their dependencies become groups, how progress is gathered, what an exception turns into.
// Threads: an Attempt is executed by one thread; its stop source and progress may be used by others.
// Failure: whatever the task throws becomes a failed Finish.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "instrumentation.h"
#include "waymark/config.h"
#include "waymark/context.h"
#include "waymark/store.h"

namespace waymark::detail {

class ProgressBoard;

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

class Attempt {
 public:
  Attempt(ClaimedTask task, const TaskType& type, const Instrumentation& instrumentation, const RetryConfig& backoff,
          std::shared_ptr<ProgressBoard> board);

  // Runs the task on the calling thread. Its span stays open, for what the store will say.
  void execute();
  [[nodiscard]] std::stop_source stop_source() const noexcept { return stop_; }

  [[nodiscard]] const ClaimedTask& task() const noexcept { return task_; }
  [[nodiscard]] Finish& finish() noexcept { return finish_; }
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
  [[nodiscard]] const Tracer& tracer() const noexcept { return instrumentation_->task_tracer(); }
  [[nodiscard]] std::shared_ptr<ProgressLabel> progress(std::string_view label);
  [[nodiscard]] const Context::JobRef& job() const noexcept { return job_; }
  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

 private:
  [[nodiscard]] NewTasks take_subtasks();
  void fail(const std::exception_ptr& exception, bool for_good);

  ClaimedTask task_;
  const TaskType* type_;
  const Instrumentation* instrumentation_;
  const RetryConfig* backoff_;
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

  std::uint64_t owner_ = 0;  // of the futures it hands out
  std::vector<NewTask> subtasks_;
  std::vector<std::vector<FutureTasks::Range>> dependencies_;                 // each set once
  std::map<std::vector<std::pair<std::uint32_t, std::uint32_t>>, std::uint32_t> dependency_index_;
  std::vector<std::uint32_t> dependency_of_;                                  // for each subtask; kNone: on nothing
};

}  // namespace waymark::detail
