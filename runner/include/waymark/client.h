// The door to workflows: submit jobs, watch them, make runners.
//
// Hides: the store and its whereabouts.
// Threads: Client and Jobs may be used by any thread; a Client outlives its runners.
// Failure: Error(store) where the store can't be used, Error(not_found) for an unknown job,
//   Error(invalid_argument) for two tasks of one name and version in one runner.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/job.h"
#include "waymark/runner.h"
#include "waymark/task.h"
#include "waymark/telemetry.h"

namespace waymark {

class Store;

struct ClientOptions {
  std::string name = {};   // of this program among the runners; default: the telemetry's service name
  // A path, or sqlite:PATH. Default: $XDG_STATE_HOME/waymark/store.db, else ~/.local/state/waymark/store.db.
  std::string store = {};
  std::string cluster = "default";   // where its jobs go, and where its runners take work from
  Telemetry* telemetry = nullptr;    // default: the process's; must outlive the client
};

struct JobOptions {
  std::uint32_t max_retries = 0;  // of the job's root task
  std::int32_t priority = 0;      // higher first
};

class Jobs {
 public:
  // Writes the job to the store and returns. Its trace is a new one, linked to the caller's span.
  template <class T>
  Job submit(std::string_view name, const T& task, const JobOptions& options = {}) {
    return submit(name, task_name<T>(), task_input(task), options);
  }
  // Submits, and waits until the job is finished: somebody has to run it meanwhile. Part of the caller's trace.
  template <class T>
  Job run(std::string_view name, const T& task, const JobOptions& options = {}) {
    return run(name, task_name<T>(), task_input(task), options);
  }
  // By name, for tasks of another program; the input is JSON.
  Job submit(std::string_view name, const TaskName& task, std::string input, const JobOptions& options = {});
  Job run(std::string_view name, const TaskName& task, std::string input, const JobOptions& options = {});

  [[nodiscard]] Job find(std::string_view id);
  // As it is when it is finished, or when the time is up: see Job::finished().
  Job wait(std::string_view id, std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max());
  // All tasks of a job, in the order in which they were submitted.
  [[nodiscard]] std::vector<TaskInfo> tasks(std::string_view id);

 private:
  friend class Client;
  struct Shared;
  explicit Jobs(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  Job submit(std::string_view name, const TaskName& task, std::string input, const JobOptions& options, bool waits);
  std::shared_ptr<Shared> shared_;
};

class Client {
 public:
  explicit Client(const ClientOptions& options = {});
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] Jobs& jobs() noexcept { return jobs_; }

  template <Task... Tasks>
  [[nodiscard]] Runner runner(const RunnerOptions& options = {}) {
    return make_runner({task_type<Tasks>()...}, options);
  }
  [[nodiscard]] Runner make_runner(std::vector<TaskType> tasks, const RunnerOptions& options = {});

  [[nodiscard]] Store& store() noexcept;

 private:
  Jobs jobs_;
};

}  // namespace waymark
