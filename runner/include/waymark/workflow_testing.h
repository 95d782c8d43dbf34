// For tests of workflows: a store in memory, a clock that runs ahead instead of waiting, failures on request, and
// traces to compare with a file.
//
//   waymark::testing::Workbench bench;
//   bench.fail<Tile>({.attempt = 1});
//   const waymark::Job job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1"});
//   EXPECT_EQ(job.state, waymark::JobState::completed);
//   EXPECT_EQ(bench.golden("traces/scene.txt"), "");
//
// Tasks run one at a time, in the order of their priority and submission, and each takes a millisecond of the bench's
// time; waits before the next attempt have no jitter. So the same workflow gives the same trace, each time.
//
// Hides: the store, the telemetry, the runner.
// Threads: one thread at a time; tasks run on another.
// Failure: as Client's. golden() throws Error(io) for a file that can't be read or written.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/client.h"
#include "waymark/context.h"
#include "waymark/testing.h"

namespace waymark::testing {

// Which executions of a task: these attempts of all tasks of that type, or of those whose input fits.
template <class T>
struct Which {
  std::uint32_t attempt = 1;                 // 0: all of them
  std::function<bool(const T&)> where = {};  // none: all
};

struct WorkbenchOptions {
  // But for `concurrency`.
  RunnerOptions runner = {.backoff = {.initial = std::chrono::seconds(1),
                                      .maximum = std::chrono::minutes(5),
                                      .multiplier = 2.0,
                                      .jitter = 0}};
  std::string cache_directory = {};  // as in ClientOptions
  bool cache_spans = false;
};

class Workbench {
 public:
  explicit Workbench(const WorkbenchOptions& options = {});
  ~Workbench();
  Workbench(const Workbench&) = delete;
  Workbench& operator=(const Workbench&) = delete;

  [[nodiscard]] Client& client() noexcept;
  [[nodiscard]] Jobs& jobs() noexcept { return client().jobs(); }
  [[nodiscard]] ManualClock& clock() noexcept;

  // Such an attempt throws std::runtime_error(message) instead of doing its work.
  template <class T>
  void fail(Which<T> which = {}, std::string message = "injected failure") {
    inject(task_name<T>(), which.attempt, matcher(std::move(which)), Fault::fail, std::move(message));
  }
  // Such an attempt is still at it when its timeout is over, and then stops. A task without a timeout fails for good.
  template <class T>
  void time_out(Which<T> which = {}) {
    inject(task_name<T>(), which.attempt, matcher(std::move(which)), Fault::time_out, {});
  }
  // The runner is taken for dead while such an attempt runs: its lease ends, the attempt does its work to the end, and
  // its result is refused.
  template <class T>
  void lose_runner(Which<T> which = {}) {
    inject(task_name<T>(), which.attempt, matcher(std::move(which)), Fault::lose_runner, {});
  }

  // Runs these tasks until nothing is left to do. What is due later is done, too: the clock goes there.
  template <Task... Tasks>
  void run_all() {
    run_all({task_type<Tasks>()...});
  }
  void run_all(std::vector<TaskType> tasks);
  // Submits one, runs all, and tells what became of it. `First` and the rest are the tasks that there are.
  template <Task... Tasks, class T>
  Job run(std::string_view name, const T& task, const JobOptions& options = {}) {
    const Job job = jobs().submit(name, task, options);
    run_all<Tasks...>();
    return jobs().find(job.id);
  }

  // What was recorded so far.
  [[nodiscard]] std::vector<ReadSpan> spans();
  [[nodiscard]] std::vector<ReadLog> logs();
  // All spans as text: see span_tree().
  [[nodiscard]] std::string trace();
  // What differs between the trace and what the file says; empty: nothing. See golden_difference().
  [[nodiscard]] std::string golden(const std::string& path);

 private:
  enum class Fault : std::uint8_t { fail, time_out, lose_runner };
  using Matches = std::function<bool(std::string_view input)>;
  template <class T>
  static Matches matcher(Which<T> which) {
    if (!which.where) return [](std::string_view) { return true; };
    return [where = std::move(which.where)](std::string_view input) {
      if constexpr (std::is_empty_v<T>) {
        return where(T{});
      } else {
        return where(nlohmann::json::parse(input).template get<T>());
      }
    };
  }
  void inject(const TaskName& task, std::uint32_t attempt, Matches matches, Fault fault, std::string message);

  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Compares a text with a file: empty where they are the same, else the lines that differ, "-" those of the file and "+"
// those of the text. With WAYMARK_UPDATE_GOLDEN=1 in the environment the file is written instead. A file that is not
// there is one without lines. Throws Error(io).
[[nodiscard]] std::string golden_difference(const std::string& path, std::string_view text);

}  // namespace waymark::testing
