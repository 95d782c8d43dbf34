// What a runner counts and times, as metrics. Names and units are the table in instrumentation.h.
//
// Hides: which attributes go where, and that those of a task's type are resolved once.
// Threads: any.
// Failure: none; recording does not fail. What is in the store is not told where the store can't be asked.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/metric.h"
#include "waymark/store.h"
#include "waymark/telemetry.h"

namespace waymark {

enum class AttemptOutcome;

class RunnerMetrics {
 public:
  RunnerMetrics(Telemetry& telemetry, const std::string& cluster);

  // The types of task that begin() and end() will be asked of; before the first of them.
  void know(const std::vector<TaskName>& names);
  // Tells at every collection what is in the store, what is executed, and how long threads have waited until now.
  void watch(std::shared_ptr<Store> store);
  void unwatch() noexcept;

  // An attempt begins, has come to its end, and was told of by the store.
  void begin(const TaskName& name, std::size_t input_bytes, std::chrono::nanoseconds queue_wait) const;
  void executed() const { --now_->executing; }
  void end(const TaskName& name, AttemptOutcome outcome, std::chrono::nanoseconds duration) const;

  void job_ended(const EnclosingSpan& job) const;
  // A task thread waits for a task, and waits no longer.
  void idle_begins() const;
  void idle_ends() const;
  enum class Lease { renewed, lost, unreachable };
  void lease(Lease what) const;
  void released(const Released& what) const;
  // Calls, and times a call of the store, whether it throws or not.
  template <class Call>
  auto timed(std::string_view operation, Call&& call) const {
    const Timer timer{*this, operation, std::chrono::steady_clock::now()};
    return call();
  }

 private:
  struct Timer {
    const RunnerMetrics& metrics;
    std::string_view operation;
    std::chrono::steady_clock::time_point begin;
    ~Timer() { metrics.store_called(operation, std::chrono::steady_clock::now() - begin); }
  };
  void store_called(std::string_view operation, std::chrono::nanoseconds duration) const;

  // Of one type of task.
  struct OfTask {
    BoundAdder<std::int64_t> executed;
    BoundAdder<std::int64_t> computed;
    BoundAdder<std::int64_t> failed;
    BoundAdder<std::int64_t> retried;
    BoundRecorder<std::int64_t> input_size;
    BoundRecorder<double> queue_wait;
    std::vector<BoundRecorder<double>> duration;  // by outcome
  };
  [[nodiscard]] const OfTask* of(const TaskName& name) const;
  // Tells the time that threads have waited since it was told last.
  void tell_idle(int change) const;

  std::string cluster_;
  Meter meter_;
  BoundAdder<double> idle_;
  Histogram<double> job_duration_;
  Histogram<double> store_duration_;
  Counter<std::int64_t> leases_;
  Counter<std::int64_t> recovered_;
  std::map<std::pair<std::string, std::string>, OfTask> tasks_;
  // Apart, so that the whole can be moved until it is watched.
  struct Now {
    std::atomic<std::int64_t> executing{0};
    std::mutex mutex;  // guards what follows
    int waiting = 0;   // task threads
    std::chrono::steady_clock::time_point idle_told = std::chrono::steady_clock::now();
  };
  std::unique_ptr<Now> now_ = std::make_unique<Now>();
  // Last: their callbacks look at the rest.
  CallbackRegistration stored_;
  CallbackRegistration active_;
};

}  // namespace waymark
