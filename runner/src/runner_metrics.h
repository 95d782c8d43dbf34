// What a runner counts and times, as metrics. Names and units are the table in instrumentation.h.
//
// Hides: which attributes go where, and that those of a task's type are resolved once.
// Threads: any.
// Failure: none; recording does not fail. What is in the store is not told where the store can't be asked.
#pragma once

#include <chrono>
#include <map>
#include <memory>
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
  // Tells at every collection what is in the store.
  void watch(std::shared_ptr<Store> store);
  void unwatch() noexcept { queue_.remove(); }

  // An attempt begins, has come to its end, and was told of by the store.
  void begin(const TaskName& name, std::size_t input_bytes, std::chrono::nanoseconds queue_wait) const;
  void executed() const { active_.add(-1); }
  void end(const TaskName& name, AttemptOutcome outcome, std::chrono::nanoseconds duration) const;

  void job_ended(const EnclosingSpan& job) const;
  void idle(std::chrono::nanoseconds time) const;
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

  std::string cluster_;
  Meter meter_;
  BoundAdder<std::int64_t> active_;
  BoundAdder<double> idle_;
  Histogram<double> job_duration_;
  Histogram<double> store_duration_;
  Counter<std::int64_t> leases_;
  Counter<std::int64_t> recovered_;
  std::map<std::pair<std::string, std::string>, OfTask> tasks_;
  CallbackRegistration queue_;
};

}  // namespace waymark
