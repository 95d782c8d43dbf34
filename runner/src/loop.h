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
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "executor.h"
#include "instrumentation.h"
#include "waymark/runner.h"
#include "waymark/store.h"
#include "waymark/task.h"

namespace waymark::detail {

struct LoopOptions {
  std::shared_ptr<Store> store;
  Telemetry* telemetry = nullptr;
  std::string name;
  std::string cluster;
  std::vector<TaskType> tasks;
  RunnerOptions runner;
};

class RunnerLoop {
 public:
  explicit RunnerLoop(LoopOptions options);
  RunnerLoop(const RunnerLoop&) = delete;
  RunnerLoop& operator=(const RunnerLoop&) = delete;

  // Until stop is requested or, if so asked, until nothing is left to do.
  void run(const std::stop_token& stop, bool until_idle);
  // A dead process was found, and these attempts were open in it.
  void recovered(const std::vector<LostRunner>& lost);
  [[nodiscard]] const std::string& id() const noexcept { return id_; }

 private:
  using Clock = std::chrono::steady_clock;

  void join_store();
  void start_threads();
  void stop_threads() noexcept;
  void execute_tasks(std::uint32_t number);
  void keep_lease();
  bool step(std::unique_lock<std::mutex>& lock, bool stopping);
  void wait(std::unique_lock<std::mutex>& lock, bool stopping);
  template <class Call>
  auto patiently(Call call);
  void lose_lease(std::unique_lock<std::mutex>& lock, std::vector<std::unique_ptr<Attempt>> finished);
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
  std::string id_;
  Instrumentation instrumentation_;

  std::mutex mutex_;
  std::condition_variable wake_loop_;
  std::condition_variable wake_tasks_;
  std::condition_variable wake_lease_;
  WorkerId worker_ = 0;
  Timestamp deadline_;  // of the lease, by the store's clock
  bool running_threads_ = false;
  bool loop_waits_ = false;
  bool lease_lost_ = false;
  bool changed_ = false;  // somebody else did something
  bool more_ = false;  // the last claim got all it wanted
  bool progress_changed_ = false;
  std::deque<std::unique_ptr<Attempt>> queue_;  // claimed, not started
  std::unordered_set<Attempt*> active_;  // executing
  std::vector<std::unique_ptr<Attempt>> finished_;  // executed or given back, not committed
  std::vector<std::int64_t> recorded_;  // outbox rows that may go
  std::vector<LostRunner> lost_;
  std::optional<Clock::time_point> due_;  // when the store's next scheduled task is
  Clock::time_point last_start_;  // of a queued task
  Clock::time_point last_progress_;
  double seconds_per_task_ = 1;  // moving average; decides how much to prefetch
  std::shared_ptr<ProgressBoard> board_;
  std::vector<std::thread> threads_;
};

}  // namespace waymark::detail
