// Runs tasks: claims them from the store, executes them on its threads, writes back what became of them.
//
// Hides: the loop, leases and their renewal, batching of claims and results, the telemetry of tasks.
// Threads: a Runner's methods are called by one thread at a time, which becomes the loop. Task threads are its own.
//   Several runners may share a store: in one process, and in several.
// Failure: Error(store) when the store stays unusable for longer than the lease. What a task throws fails its attempt
//   only.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "waymark/config.h"

namespace waymark {

// Where tasks run.
enum class Isolation : std::uint8_t {
  none,     // in this process, on the runner's threads
  process,  // each in a worker process, which executes one at a time: a crash fails the attempt, and nothing else
};

struct RunnerOptions {
  std::uint32_t concurrency = 0;  // task threads; 0: as many as the machine has cores
  // How long after a runner's last sign of life its tasks run again elsewhere, [50 ms, 1 day]. It gives one every third
  // of that.
  std::chrono::nanoseconds lease = std::chrono::seconds(30);
  // Before a failed attempt is repeated.
  RetryConfig backoff = {.initial = std::chrono::seconds(1), .maximum = std::chrono::minutes(5), .multiplier = 2.0};
  // A task with which this many runners were lost fails with error.type=runner_lost.
  std::uint32_t max_lost = 3;
  // An attempt that has been asked to stop when its timeout was over, and still runs after so long, has failed. Its
  // thread is given up, and another takes its place; a worker process is killed.
  std::chrono::nanoseconds timeout_grace = std::chrono::seconds(5);
  // Finished jobs older than this, and those beyond so many, are removed, in small steps beside the work. 0: kept.
  std::chrono::nanoseconds keep_jobs_for = std::chrono::hours(24 * 30);
  std::uint64_t keep_jobs = 100'000;
  // With process, there is a worker process for each task thread, from its first task on: this program, started anew with
  // the same arguments. It runs main() up to the same client.runner<...>() call, which does not return there; until then
  // it submits nothing and runs nothing (see in_worker_process()). Error(invalid_argument) for a store in memory,
  // Error(io) where /proc can't be read.
  Isolation isolation = Isolation::none;
  // A task's result is a commit of its own. Else results that are there when a commit begins share it, none waits for
  // more, and short tasks are several times as fast.
  bool commit_each = false;
};

struct RunOptions {
  std::stop_token stop = {};
  // SIGINT and SIGTERM ask to stop; a second one acts as if Waymark were not there.
  bool handle_signals = false;
  // How long running tasks may go on once they were asked to stop; then they are given back, and their threads given up.
  // Default: 3 s after a signal, so that with the last telemetry all ends in less than the 10 s that container engines
  // give; else for as long as they need.
  std::optional<std::chrono::nanoseconds> grace = {};
};

// Why run_forever() has returned.
enum class StopReason : std::uint8_t { requested, interrupted, terminated };  // stop token, SIGINT, SIGTERM
// What a program that ends for this should return: 0, 130, 143.
[[nodiscard]] int exit_code(StopReason reason) noexcept;

namespace detail {
class RunnerLoop;
}

// This process was started by a runner that isolates its tasks, and main() is what it will not return from. For programs
// that do things before they make their runner which are to be done once.
[[nodiscard]] bool in_worker_process() noexcept;

class Runner {
 public:
  explicit Runner(std::shared_ptr<detail::RunnerLoop> loop);

  // Returns when no task in the store that this runner can run is left unfinished, also those that wait for others, for
  // their next attempt, or run elsewhere.
  void run_all();
  // Until stop is requested: no new tasks are taken, running ones are asked to stop and waited for, what was not started
  // goes back. After a signal telemetry is flushed, too.
  StopReason run_forever(const RunOptions& options = {});
  StopReason run_forever(std::stop_token stop);

  // Threads that are hanging in tasks that were given up.
  [[nodiscard]] std::size_t hanging_threads() const noexcept;

  // In every attempt's span as workflow.runner.id.
  [[nodiscard]] const std::string& id() const noexcept;

 private:
  std::shared_ptr<detail::RunnerLoop> loop_;
};

}  // namespace waymark
