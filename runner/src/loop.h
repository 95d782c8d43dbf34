// The runner's loop: claims tasks for its threads, and commits what became of them.
//
// One thread, the caller's, talks to the store about tasks. While one commit is under way, results gather for the next:
// that is the batching, and it needs no timer. Beside it a thread renews the lease and looks after the dead, and task
// threads execute.
//
//   task threads --finished--> loop --exchange--> store
//                <--queue-----      <--claims----
//
// Hides: threads, prefetching, waiting, what happens when a lease or a store is lost.
// Threads: run() by one thread at a time; recovered() by any.
// Failure: run() throws Error(store) when the store stays unusable for longer than the lease.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "automations.h"
#include "executor.h"
#include "instrumentation.h"
#include "waymark/client.h"
#include "waymark/runner.h"
#include "waymark/store.h"
#include "waymark/task.h"
#include "worker_process.h"

namespace waymark::detail {

struct LoopOptions {
  std::shared_ptr<Store> store;
  Telemetry* telemetry = nullptr;
  std::string name;
  std::string cluster;
  std::vector<TaskType> tasks;
  RunnerOptions runner;
  std::string cache_directory;
  bool cache_spans = false;
  TimeSource time;
  std::optional<WorkerProgram> workers = {};  // that execute its tasks; none: its threads do
};

// Threads that hang in a task keep it alive.
class RunnerLoop : public std::enable_shared_from_this<RunnerLoop> {
 public:
  explicit RunnerLoop(LoopOptions options);
  RunnerLoop(const RunnerLoop&) = delete;
  RunnerLoop& operator=(const RunnerLoop&) = delete;

  // Until stop is requested or, if so asked, until nothing is left to do. From the request on, tasks have `grace`.
  void run(const std::stop_token& stop, bool until_idle, std::optional<std::chrono::nanoseconds> grace = {});
  StopReason run_forever(const RunOptions& options);
  [[nodiscard]] std::size_t hanging() const noexcept { return *hanging_; }
  // Nobody will run it again.
  void close() noexcept { ground_->instrumentation.metrics().unwatch(); }
  // A dead process was found, and these attempts were open in it.
  void recovered(const std::vector<LostRunner>& lost);
  [[nodiscard]] const std::string& id() const noexcept { return id_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Active {
    std::shared_ptr<Attempt> attempt;
    std::uint32_t thread = 0;
  };

  void join_store();
  void start_threads();
  void stop_threads() noexcept;
  void start_thread();
  // True where the thread was given up meanwhile, and has come back.
  [[nodiscard]] bool execute_tasks(std::uint32_t number);
  bool ready(std::shared_ptr<WorkerProcess>& process, const Attempt& attempt);
  void watch_time(std::unique_lock<std::mutex>& lock);
  bool abandon(Attempt* attempt, bool for_timeout);
  void abandon_all();
  void prune();
  void keep_lease();
  bool step(std::unique_lock<std::mutex>& lock, bool stopping);
  void wait(std::unique_lock<std::mutex>& lock, bool stopping);
  bool pass_time(std::unique_lock<std::mutex>& lock);
  void begin_end(std::unique_lock<std::mutex>& lock);
  template <class Call>
  auto patiently(Call call);
  void lose_lease(std::unique_lock<std::mutex>& lock, std::vector<std::shared_ptr<Attempt>> finished);
  void release_dead(std::unique_lock<std::mutex>& lock);
  void record(const std::vector<EnclosingSpan>& spans);
  [[nodiscard]] std::size_t room() const noexcept;
  void give_back_queue();
  void changed();
  [[nodiscard]] bool anything_new() const noexcept {
    return changed_ || lease_lost_ || !finished_.empty() || !recorded_.empty() || !lost_.empty();
  }
  void stop_all(std::unique_lock<std::mutex>& lock);
  void stop_some(std::unique_lock<std::mutex>& lock, const std::vector<std::int64_t>& tasks);

  LoopOptions options_;
  std::shared_ptr<void> telemetry_;  // for threads that hang: what they record with
  std::string id_;
  std::shared_ptr<AttemptGround> ground_;
  const Instrumentation& instrumentation_;

  std::mutex mutex_;
  std::condition_variable wake_loop_;
  std::condition_variable wake_tasks_;
  std::condition_variable wake_lease_;
  WorkerId worker_ = 0;
  Timestamp deadline_;  // of the lease, by the store's clock
  Clock::time_point renewed_;  // when that was last said
  bool running_threads_ = false;
  bool loop_waits_ = false;
  bool lease_lost_ = false;
  bool changed_ = false;  // somebody else did something
  bool more_ = false;  // the last claim got all it wanted
  bool progress_changed_ = false;
  std::exception_ptr no_workers_;  // why no worker process can be started: the run ends
  std::deque<std::shared_ptr<Attempt>> queue_;  // claimed, not started
  std::unordered_map<Attempt*, Active> active_;  // executing
  std::multimap<Clock::time_point, Attempt*> timers_;  // of those with a timeout: when to look at them
  std::deque<std::shared_ptr<Attempt>> finished_;  // executed or given back, not committed
  std::vector<std::int64_t> recorded_;  // outbox rows that may go
  std::vector<LostRunner> lost_;
  std::optional<Clock::time_point> due_;  // when the store's next scheduled task is
  std::chrono::nanoseconds due_in_{0};  // and how long that was when the store said so
  Clock::time_point last_start_;  // of a queued task
  Clock::time_point last_progress_;
  double seconds_per_task_ = 1;  // moving average; decides how much to prefetch
  std::shared_ptr<ProgressBoard> board_;
  std::map<std::uint32_t, std::thread> threads_;  // for tasks
  std::uint32_t last_thread_ = 0;
  std::thread lease_thread_;
  std::vector<std::string> unused_caches_;  // of jobs that were removed; the lease thread's
  std::optional<AutomationThread> automations_;
  std::stop_token stop_;                        // of the run under way, as is
  std::optional<std::chrono::nanoseconds> grace_;
  bool ending_ = false;                         // tasks were asked to stop
  std::optional<Clock::time_point> give_up_;  // tasks that were asked to stop
  // Falls when a thread has let go of the loop and of all that it recorded with: they may be destroyed from then on.
  std::shared_ptr<std::atomic<std::size_t>> hanging_ = std::make_shared<std::atomic<std::size_t>>(0);
};

}  // namespace waymark::detail
