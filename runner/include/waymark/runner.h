// Runs tasks: claims them from the store, executes them on its threads, writes back what became of them.
//
// Hides: the loop, leases and their renewal, batching of claims and results, the telemetry of tasks.
// Threads: a Runner's methods are called by one thread at a time, which becomes the loop. Task threads are its own.
//   Several runners may share a store: in one process, and in several.
// Failure: Error(store) when the store stays unusable for longer than the lease. What a task throws fails its attempt
//   only.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "waymark/config.h"

namespace waymark {

struct RunnerOptions {
  std::uint32_t concurrency = 0;  // task threads; 0: as many as the machine has cores
  // How long after a runner's last sign of life its tasks run again elsewhere, [50 ms, 1 day]. It gives one every third
  // of that.
  std::chrono::nanoseconds lease = std::chrono::seconds(30);
  // Before a failed attempt is repeated.
  RetryConfig backoff = {.initial = std::chrono::seconds(1), .maximum = std::chrono::minutes(5), .multiplier = 2.0};
  // A task with which this many runners were lost fails with error.type=runner_lost.
  std::uint32_t max_lost = 3;
};

namespace detail {
class RunnerLoop;
}

class Runner {
 public:
  explicit Runner(std::shared_ptr<detail::RunnerLoop> loop);

  // Returns when no task in the store that this runner can run is left unfinished, also those that wait for others, for
  // their next attempt, or run elsewhere.
  void run_all();
  // Until stop is requested: running tasks are then asked to stop and waited for.
  void run_forever(std::stop_token stop = {});

  // In every attempt's span as workflow.runner.id.
  [[nodiscard]] const std::string& id() const noexcept;

 private:
  std::shared_ptr<detail::RunnerLoop> loop_;
};

}  // namespace waymark
