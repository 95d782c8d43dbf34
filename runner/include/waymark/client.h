// The door to workflows: submit jobs, watch them, make runners.
//
// Hides: the store and its whereabouts.
// Threads: Client and Jobs may be used by any thread; a Client outlives its runners.
// Failure: Error(store) where the store can't be used, Error(not_found) for an unknown job,
//   Error(invalid_argument) for two tasks of one name and version in one runner.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/automation.h"
#include "waymark/job.h"
#include "waymark/reader.h"
#include "waymark/runner.h"
#include "waymark/subtasks.h"
#include "waymark/task.h"
#include "waymark/telemetry.h"

namespace waymark {

class Store;

// Whose time a client goes by. Tests give it another than the machine's: see workflow_testing.h.
struct TimeSource {
  std::function<Timestamp()> now = {};  // of attempts, and of an embedded store; none: the system's
  // Called by a runner that has nothing to do for so long. None: it waits.
  std::function<void(std::chrono::nanoseconds)> pass = {};
};

struct ClientOptions {
  std::string name = {};   // of this program among the runners; default: the telemetry's service name
  // A path, or sqlite:PATH. Default: $XDG_STATE_HOME/waymark/store.db, else ~/.local/state/waymark/store.db.
  // memory: is one that is gone with the client; all that open memory:NAME in this process have the same one.
  std::string store = {};
  std::string cluster = "default";   // where its jobs go, and where its runners take work from
  Telemetry* telemetry = nullptr;    // default: the process's; must outlive the client
  // Where job caches lie, the same for all runners; it is made. Empty: in the store.
  std::string cache_directory = {};
  bool cache_spans = false;          // a span for each operation of a job cache
  TimeSource time = {};
};

struct JobOptions {
  std::uint32_t max_retries = 0;  // of the job's root task
  std::int32_t priority = 0;      // higher first
  std::string cluster = {};       // default: the client's
  // Of the work, not of the attempt to submit it: where the store still has a job with this key, finished or not,
  // nothing is submitted, and that job returned.
  std::string key = {};
  // The rest is of the root task, as in SubtaskOptions.
  std::optional<RetryConfig> backoff = {};
  std::chrono::nanoseconds timeout{0};
  std::chrono::nanoseconds delay{0};
  Timestamp not_before = {};
  std::string limit_key = {};
  std::string display = {};
};

class Jobs {
 public:
  // Writes the job to the store and returns. Its trace is a new one, linked to the caller's span.
  template <class T>
  Job submit(std::string_view name, const T& task, const JobOptions& options = {}) {
    return submit(name, task_name<T>(), task_input(task), options);
  }
  // Several roots. They have options of their own: with others than cluster and key, Error(invalid_argument).
  Job submit(std::string_view name, TaskSet roots, const JobOptions& options = {});
  // Several of one kind, which all have these options.
  template <class T>
  Job submit(std::string_view name, const std::vector<T>& roots, const JobOptions& options = {}) {
    return submit(name, root_set(task_name<T>(), task_inputs(roots), options), options, false);
  }
  // Submits, and waits until the job is finished: somebody has to run it meanwhile. Part of the caller's trace.
  template <class T>
  Job run(std::string_view name, const T& task, const JobOptions& options = {}) {
    return run(name, task_name<T>(), task_input(task), options);
  }
  Job run(std::string_view name, TaskSet roots, const JobOptions& options = {});
  // By name, for tasks of another program; the input is JSON.
  Job submit(std::string_view name, const TaskName& task, std::string input, const JobOptions& options = {});
  Job run(std::string_view name, const TaskName& task, std::string input, const JobOptions& options = {});

  [[nodiscard]] Job find(std::string_view id);
  // As it is when it is finished, or when the time is up: see Job::finished().
  Job wait(std::string_view id, std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max());
  // Newest first, a page at a time. Error(invalid_argument) for a cursor that query() did not give.
  [[nodiscard]] JobPage query(const JobFilter& filter = {});
  // Nothing of it starts any more, and running tasks are asked to stop, within a second: it is canceled when the last of
  // them has ended. As it is then. A finished job stays as it is.
  Job cancel(std::string_view id);
  // Failed, canceled and skipped tasks of a failed or canceled job run again; what was computed is kept. How many tasks:
  // 0 for a job that is neither.
  std::uint64_t retry(std::string_view id);
  // All tasks of a job, in the order in which they were submitted.
  [[nodiscard]] std::vector<TaskInfo> tasks(std::string_view id);

  // What was recorded of a job by the processes of this machine that share a state directory, living and dead ones, as
  // far as it is still kept; by time. Default: the telemetry's own directory, whose records are flushed first for a
  // quarter of a second at most. What other living processes recorded in the last moments may be missing, and spans that
  // are open are. Error(not_found) where there is no state directory.
  [[nodiscard]] std::vector<ReadLog> query_logs(std::string_view id, const std::string& state_directory = {});
  [[nodiscard]] std::vector<ReadSpan> query_spans(std::string_view id, const std::string& state_directory = {});

 private:
  friend class Client;
  struct Shared;
  explicit Jobs(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  static TaskSet root_set(const TaskName& task, std::vector<std::string> inputs, const JobOptions& options);
  Job submit(std::string_view name, TaskSet roots, const JobOptions& options, bool waits);
  std::shared_ptr<Shared> shared_;
};

class Client {
 public:
  explicit Client(const ClientOptions& options = {});
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] Jobs& jobs() noexcept { return jobs_; }
  [[nodiscard]] Automations& automations() noexcept { return automations_; }

  template <Task... Tasks>
  [[nodiscard]] Runner runner(const RunnerOptions& options = {}) {
    return make_runner({task_type<Tasks>()...}, options);
  }
  [[nodiscard]] Runner make_runner(std::vector<TaskType> tasks, const RunnerOptions& options = {});

  // A paused cluster hands out no tasks, to no runner; those that run go on.
  void pause(std::string_view cluster);
  void resume(std::string_view cluster);
  [[nodiscard]] std::vector<Cluster> clusters();
  // Sets a limit, in place of the one with the same task and key; one that limits nothing is removed.
  void limit(const Limit& limit);
  [[nodiscard]] std::vector<Limit> limits();

  [[nodiscard]] Store& store() noexcept;

 private:
  Jobs jobs_;
  Automations automations_;
};

}  // namespace waymark
