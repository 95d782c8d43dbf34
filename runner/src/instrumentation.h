// Everything that the runner records about itself: the spans of design and documentation, their names and attributes.
//
// Hides: which attribute goes where. The names are this table, and stand nowhere else.
// Threads: any.
// Failure: none; recording does not fail.
#pragma once

#include <chrono>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "runner_metrics.h"
#include "waymark/client.h"
#include "waymark/log.h"
#include "waymark/store.h"
#include "waymark/trace.h"

namespace waymark {

namespace names {
// Scopes.
inline constexpr std::string_view kRunnerScope = "waymark.runner";  // the runner's own spans and records
inline constexpr std::string_view kTaskScope = "waymark.tasks";     // what Context gives to tasks
// Spans: prefix, then the job's or the task's name.
inline constexpr std::string_view kSubmit = "submit/";      // PRODUCER; in the submitter's trace
inline constexpr std::string_view kJob = "job/";            // submitted .. finished; root of the job's trace
inline constexpr std::string_view kTask = "task/";          // one attempt
inline constexpr std::string_view kSubtasks = "subtasks/";  // from a task's end until its whole subtree is done
inline constexpr std::string_view kStep = "step/";          // a step's work, within its attempt
inline constexpr std::string_view kCache = "cache/";        // get, set, remove; see ClientOptions::cache_spans
// As in Tilebox.
inline constexpr std::string_view kTaskId = "task_id";
inline constexpr std::string_view kIdentifierName = "identifier.name";
inline constexpr std::string_view kIdentifierVersion = "identifier.version";
// Of the job.
inline constexpr std::string_view kJobId = "workflow.job.id";
inline constexpr std::string_view kJobName = "workflow.job.name";
inline constexpr std::string_view kJobTasks = "workflow.job.tasks";          // in the whole job
// Of submit/ and job/, where an automation submitted it.
inline constexpr std::string_view kTriggerType = "workflow.trigger.type";    // cron, directory, manual
inline constexpr std::string_view kTriggerName = "workflow.trigger.name";    // the automation's
inline constexpr std::string_view kTriggerTime = "workflow.trigger.time";    // the tick's, or when the file was found
inline constexpr std::string_view kTriggerPath = "workflow.trigger.path";    // the file's
// Of an attempt.
inline constexpr std::string_view kParentTask = "workflow.task.parent_id";
inline constexpr std::string_view kAttempt = "workflow.attempt";             // 1 for the first
inline constexpr std::string_view kMaxAttempts = "workflow.max_attempts";
inline constexpr std::string_view kLostAttempts = "workflow.lost_attempts";  // earlier ones, charged to this task
inline constexpr std::string_view kQueueWait = "workflow.queue_wait_ms";     // ready .. claimed
inline constexpr std::string_view kDependencyWait = "workflow.dependency_wait_ms";  // submitted .. ready
inline constexpr std::string_view kDependencies = "workflow.dependencies";   // how many; a link goes to the last
inline constexpr std::string_view kCluster = "workflow.cluster";
inline constexpr std::string_view kRunnerId = "workflow.runner.id";          // random, of one Runner
inline constexpr std::string_view kRunnerName = "workflow.runner.name";
inline constexpr std::string_view kWorkerProcess = "workflow.worker.pid";     // where tasks are isolated: the process's id
inline constexpr std::string_view kRunnerLost = "workflow.runner_lost";      // true: its runner died while this worker had it
inline constexpr std::string_view kInputSize = "workflow.input.size";        // bytes
inline constexpr std::string_view kInputHash = "workflow.input.hash";        // FNV-1a, 64 bits
inline constexpr std::string_view kSubtaskCount = "workflow.subtasks";       // submitted by this task
inline constexpr std::string_view kLeaseLost = "workflow.lease_lost";        // true: its result was refused
// Of attempts: computed, retried, failed, released, lease_lost. Of jobs and subtrees: completed, failed, canceled.
inline constexpr std::string_view kOutcome = "workflow.outcome";
inline constexpr std::string_view kErrorType = "error.type";
// Of cache/.
inline constexpr std::string_view kCacheKey = "workflow.cache.key";          // with its groups
inline constexpr std::string_view kCacheHit = "workflow.cache.hit";
inline constexpr std::string_view kCacheSize = "workflow.cache.size";        // bytes

// Metrics, in the runner's scope. Attributes are few: the type of task (as in Tilebox: task_identifier, task_version), the
// cluster, and `state`, which is what the description says.
struct Metric {
  std::string_view name;
  std::string_view unit;
  std::string_view attributes;  // the keys of each of its points
  std::string_view description;
};
inline constexpr std::string_view kTaskIdentifier = "task_identifier";
inline constexpr std::string_view kTaskVersion = "task_version";
inline constexpr std::string_view kState = "state";
inline constexpr std::string_view kStoreOperation = "workflow.store.operation";
// As in Tilebox's Go client.
inline constexpr Metric kTasksExecuted{"task.executed.count", "1", "task_identifier task_version workflow.cluster",
                                       "Attempts begun"};
inline constexpr Metric kTasksComputed{"task.computed.count", "1", "task_identifier task_version workflow.cluster",
                                       "Attempts that computed their task"};
inline constexpr Metric kTasksFailed{"task.failed.count", "1", "task_identifier task_version workflow.cluster",
                                     "Attempts that failed, tried again or not"};
inline constexpr Metric kTaskInputSize{"task.input.size", "By", "task_identifier task_version workflow.cluster",
                                       "Size of an attempt's input"};
inline constexpr Metric kTaskDuration{"task.execution.duration", "s", "task_identifier task_version workflow.cluster state",
                                      "How long an attempt took, by what became of it"};
// Our own.
inline constexpr Metric kTasksRetried{"workflow.task.retried.count", "1", "task_identifier task_version workflow.cluster",
                                      "Attempts that failed and are tried again"};
inline constexpr Metric kTaskQueueWait{"workflow.task.queue_wait.duration", "s", "task_identifier task_version workflow.cluster",
                                       "From ready to claimed"};
inline constexpr Metric kTasksActive{"workflow.task.active", "{task}", "workflow.cluster",
                                     "Tasks that this runner executes now"};
inline constexpr Metric kTasksStored{"workflow.task.count", "{task}", "task_identifier task_version workflow.cluster state",
                                     "Tasks in the store that are not over: ready, running, waiting (for others) or scheduled"};
inline constexpr Metric kTasksRecovered{"workflow.task.recovered.count", "1", "workflow.cluster state",
                                        "Tasks taken from runners that are gone: run again, or failed for being lost too often"};
inline constexpr Metric kJobDuration{"workflow.job.duration", "s", "workflow.cluster state",
                                     "From a job's submission to its end, by its outcome"};
inline constexpr Metric kLeaseCount{"workflow.lease.renewal.count", "1", "workflow.cluster state",
                                    "Renewals of the lease: renewed, lost, or unreachable"};
inline constexpr Metric kIdleTime{"workflow.runner.idle.time", "s", "workflow.cluster",
                                  "Time that task threads have waited for tasks, summed"};
inline constexpr Metric kStoreDuration{"workflow.store.operation.duration", "s", "workflow.store.operation",
                                       "Calls of the store, by operation"};
}  // namespace names

// Which automation submitted a job, and why.
void set_trigger(DetachedSpan& span, const JobTrigger& trigger);
// UTC, as in RFC 3339, to the second: 2026-01-31T06:00:00Z.
[[nodiscard]] std::string time_text(Timestamp time);

// What the store said about an attempt's end.
enum class AttemptOutcome { computed, retried, failed, released, lease_lost };

class Instrumentation {
 public:
  Instrumentation(Telemetry& telemetry, std::string runner_id, std::string runner_name, std::string cluster);

  // The attempt's span, with everything that is known before it runs. `in_worker`: in a process that a runner has started.
  [[nodiscard]] DetachedSpan start_attempt(const ClaimedTask& task, const TaskName& name, Timestamp start, bool in_worker) const;
  void end_attempt(DetachedSpan& span, AttemptOutcome outcome, std::string_view error_type, std::size_t subtasks,
                   Timestamp end) const;
  // A span that is over, whoever asks, with the same id and content.
  void record(const EnclosingSpan& span) const;

  // Loggers and a tracer for what happens within a task; records carry its ids.
  [[nodiscard]] Logger runner_logger(const ClaimedTask& task) const;
  [[nodiscard]] Logger task_logger(const ClaimedTask& task, const TaskName& name) const;
  [[nodiscard]] const Tracer& task_tracer() const noexcept { return task_tracer_; }
  [[nodiscard]] const Tracer& runner_tracer() const noexcept { return runner_tracer_; }
  [[nodiscard]] const Logger& logger() const noexcept { return runner_logger_; }
  [[nodiscard]] const RunnerMetrics& metrics() const noexcept { return metrics_; }
  [[nodiscard]] RunnerMetrics& metrics() noexcept { return metrics_; }

 private:
  std::string runner_id_;
  std::string runner_name_;
  std::string cluster_;
  Tracer runner_tracer_;
  Tracer task_tracer_;
  Logger runner_logger_;
  Logger task_logger_;
  RunnerMetrics metrics_;
};

// The attempts that a dead process had open, by the runner they belonged to, if that is dead, too: a worker process that
// dies takes no runner with it, and one whose runner dies says so in its spans. Where a thread's crash ended the process,
// the attempt it executed is charged and no other; else each of them may be guilty.
struct LostRunner {
  std::string runner;
  std::vector<LostAttempt> attempts;
};
[[nodiscard]] std::vector<LostRunner> lost_runners(const Recovered& recovered);

// The type of the exception, as people write it, and what it says.
struct ExceptionText {
  std::string type;
  std::string message;
};
[[nodiscard]] ExceptionText describe(const std::exception_ptr& exception);

}  // namespace waymark
