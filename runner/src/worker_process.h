// A process that executes tasks for a runner: the same program, started anew.
//
// A task thread of the runner owns one worker process. The worker runs the program's main() with the same arguments up to
// the same client.runner(...) call, which does not return there: it serves until the runner ends it or is gone. Only the
// runner claims, renews leases and reports results; the worker has its own telemetry, which survives it, and records the
// attempt's span. Steps, display names and the job cache it writes to the store itself, as the runner's worker there.
//
// Hides: how a program is started anew and told what it is, the channel, both of its ends, who waits for whom.
// Threads: a WorkerProcess belongs to the thread that started it, except for conclude() and kill(): any. None of these
//   waits for the worker.
// Failure: isolate() throws Error(invalid_argument) or Error(io) where tasks can't be isolated, start() Error(io) where
//   the program does not come to its runner. Whatever a worker does is an Outcome.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "waymark/store.h"
#include "worker_frames.h"

namespace waymark::detail {

struct LoopOptions;

// How this process was started, and which of its runners it is about.
struct WorkerProgram {
  std::vector<std::string> arguments;
  std::uint64_t runner = 0;
};

// Called by each isolated runner's making. In a worker of this runner it serves, and never returns.
[[nodiscard]] WorkerProgram isolate(const LoopOptions& options, bool store_in_memory);
// Whether this process is a worker at all.
[[nodiscard]] bool worker() noexcept;
// It is, and on its way to its runner: it changes nothing in the store.
[[nodiscard]] bool starting_worker() noexcept;

class WorkerProcess {
 public:
  // Waits until it is ready. Null where `stop` was requested first.
  [[nodiscard]] static std::shared_ptr<WorkerProcess> start(const WorkerProgram& program, const WorkerStart& start,
                                                            const std::stop_token& stop);
  explicit WorkerProcess(int channel);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  [[nodiscard]] bool alive();
  [[nodiscard]] pid_t id() const noexcept { return process_; }

  struct Outcome {
    std::optional<Finish> finish;
    std::string died;  // where there is none: "worker process 1234 died of SIGSEGV"
  };
  // Until the task is executed, or the worker gone. `timed_out` is why `stop` is requested.
  [[nodiscard]] Outcome run(WorkerId worker, const ClaimedTask& task, const std::stop_token& stop,
                            const std::atomic<bool>& timed_out,
                            const std::function<void(const ProgressReport&)>& progress);
  void conclude(const WorkerConclude& what);
  // If it is executing this attempt, or is about to.
  void kill(std::int64_t task, std::uint32_t attempt);
  // Lets it deliver what it has recorded for so long, and waits for its end.
  void end(std::chrono::nanoseconds flush);

 private:
  using Clock = std::chrono::steady_clock;
  void spawn(const WorkerProgram& program, int its_end);
  void post(const FromRunner& message);
  void send_pending();
  bool receive(std::optional<Clock::time_point> until);
  std::string reap(const std::string& problem);
  void wake() noexcept;

  pid_t process_ = -1;
  const int channel_;
  int wake_ = -1;
  FrameReader reader_;

  std::mutex mutex_;
  std::string pending_;  // not yet taken by the channel
  std::size_t sent_ = 0;  // of it
  using AttemptId = std::pair<std::int64_t, std::uint32_t>;
  std::optional<AttemptId> running_;
  std::optional<AttemptId> doomed_;
  bool gone_ = false;
};

}  // namespace waymark::detail
