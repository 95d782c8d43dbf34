// Where jobs and tasks are kept, and the only thing that runners, submitters and commands share.
//
// A store is a state machine over tasks. Every call is one atomic step; the time is the store's own, and callers on
// other machines need no clock in agreement with it. Work is claimed in batches. What a worker says about a task holds
// only while that worker holds that attempt (the fence): after a lost lease it is refused.
//
//   scheduled --due--> ready --claim--> running --finish--> computed --last subtask done--> completed
//   waiting --last dependency done--> ready                    running --failed, tries left--> scheduled
//   running --failed for good--> failed: its job is stopped    (failed_optional: its optional subtree is)
//   stopped: what has not started is skipped, what runs is asked to stop: canceled; retry() makes all of them ready
//
// Hides: the engine, its schema, its transactions, how one process learns that another has written.
// Threads: any thread may call anything.
// Failure: Error(store). A call that threw has changed nothing, and may be repeated: a finish that had been applied is
//   accepted again.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/automation.h"
#include "waymark/config.h"
#include "waymark/job.h"
#include "waymark/propagation.h"
#include "waymark/task.h"

namespace waymark {

// Why a job was submitted, where an automation did it.
struct JobTrigger {
  std::string type = {};  // cron, directory, or manual; empty: none
  std::string name = {};  // the automation's
  Timestamp time = {};    // the tick, or when the file was found
  std::string path = {};  // the file's
};

// What never changes about a job.
struct JobRecord {
  std::int64_t number = 0;  // the store's own
  std::string id;
  std::string name;
  SpanContext span;         // of its job/ span: trace, flags and tracestate of everything in it
  Baggage baggage;
  JobTrigger trigger = {};
};

// What few tasks have, and those that do share.
struct TaskSettings {
  bool optional = false;
  std::optional<RetryConfig> backoff = {};
  std::chrono::nanoseconds timeout{0};  // 0: none
  std::chrono::nanoseconds delay{0};    // from when it is written, by the store's clock
  Timestamp not_before = {};            // of that clock, too
  std::string limit_key = {};
  std::string cluster = {};             // empty: its parent's, or the job's
  std::string display = {};
};

struct NewTask {
  TaskName name;
  std::string input;
  std::int32_t priority = 0;
  std::uint32_t max_retries = 0;
  // Among tasks that are submitted together: the group it is a member of, and those that it waits for. A group is a
  // set of tasks with the same dependents.
  static constexpr std::uint32_t kNoGroup = UINT32_MAX;
  std::uint32_t group = kNoGroup;
  std::vector<std::uint32_t> after = {};
  std::uint32_t dependencies = 0;  // tasks in those groups, in all
  std::shared_ptr<const TaskSettings> settings = {};  // none: all as by default
};

// Tasks submitted together; groups are numbered from 0.
struct NewTasks {
  std::vector<NewTask> tasks;
  std::vector<std::uint32_t> group_sizes;
};

struct NewJob {
  std::string id;
  std::string name;
  std::string cluster = "default";
  SpanContext span;       // its job/ span to be
  SpanId parent;          // of that span, where the submitter waits within a span
  SpanContext submitter;  // the submit/ span, for a link
  Baggage baggage;
  Timestamp not_before;   // its span starts no earlier
  std::string key = {};   // at most one job of this key is kept; empty: none
  NewTasks roots;
  JobTrigger trigger = {};
};

struct NewWorker {
  std::string runner;     // random; the same after a lost lease
  std::string name;
  std::string host;
  std::uint64_t process_id = 0;
  std::string cluster = "default";
  std::vector<TaskName> tasks;
  std::chrono::nanoseconds lease = std::chrono::seconds(30);
};
using WorkerId = std::int64_t;

// One attempt at a task, now the worker's. Its span may start at `not_before` (when its parent span did), not earlier.
struct ClaimedTask {
  std::int64_t task = 0;
  std::int64_t parent = 0;          // 0: a root
  std::shared_ptr<const JobRecord> job;
  std::uint32_t type = 0;           // index into NewWorker::tasks
  std::string input;
  std::uint32_t attempt = 0;        // from 1
  std::uint32_t failures = 0;
  std::uint32_t lost = 0;
  std::uint32_t max_retries = 0;
  SpanId span;                      // this attempt's
  SpanId parent_span;
  SpanId previous_attempt;          // invalid for the first
  SpanId last_dependency;           // the span of the dependency that finished last
  std::uint32_t dependencies = 0;
  Timestamp not_before;
  std::chrono::nanoseconds dependency_wait{0};
  std::chrono::nanoseconds queue_wait{0};
  std::chrono::nanoseconds timeout{0};     // 0: none
  std::optional<RetryConfig> backoff = {}; // its own
};

enum class TaskResult : std::uint8_t {
  computed,
  failed,
  released,  // given back: as if it had never been claimed
};

struct Finish {
  std::int64_t task = 0;
  std::uint32_t attempt = 0;
  TaskResult result = TaskResult::computed;
  bool started = true;               // false: released before anybody began
  Timestamp end;                     // of the attempt's span
  NewTasks subtasks;                 // computed
  std::string error_type;            // failed
  std::string error;
  std::optional<std::chrono::nanoseconds> retry_after = {};  // failed; none: for good
};

struct ProgressReport {
  std::int64_t task = 0;
  std::uint32_t attempt = 0;
  std::string label;
  std::uint64_t done = 0;   // of this attempt, so far
  std::uint64_t total = 0;
};

// A span around what several processes did, closed by the step that reported it. It stays in the store's outbox until
// it was said to be recorded.
struct EnclosingSpan {
  std::int64_t id = 0;      // in the outbox
  std::shared_ptr<const JobRecord> job;
  std::int64_t task = 0;    // 0: the job/ span; else the subtasks/ span of this task
  TaskName name;            // the task's
  SpanId span;
  SpanId parent;
  Timestamp start;
  Timestamp end;
  TaskState outcome = TaskState::completed;  // completed, failed or canceled
  std::string error_type;
  std::string error;
  SpanContext submitter;    // of a job/ span
  SpanId first = {};        // of a job/ span: the first one, where the job was retried
  std::uint64_t tasks = 0;  // of a job/ span: in the job; of a subtasks/ span: direct subtasks
};

struct Exchange {
  WorkerId worker = 0;
  std::span<const Finish> finishes = {};
  std::span<const ProgressReport> progress = {};
  std::span<const std::int64_t> recorded = {};  // outbox ids that are safe now
  std::size_t want = 0;                         // tasks to claim, at most
};

struct Exchanged {
  bool lease_lost = false;              // this worker is none any more: nothing was accepted, nothing claimed
  std::vector<bool> accepted;           // one for each finish; false: the worker does not hold that attempt any more
  std::vector<ClaimedTask> claimed;
  std::vector<EnclosingSpan> closed;
  std::vector<std::int64_t> stopping;   // tasks of this worker whose job is being stopped
  std::optional<std::chrono::nanoseconds> due;  // until the next scheduled task is ready, or a rate limit allows one
};

// An attempt that was lost with its process, as its telemetry tells.
struct LostAttempt {
  std::int64_t task = 0;
  Timestamp end;            // of its interrupted span
  bool charged = true;      // it may be what ended the process
};

// Finished jobs that may go: 0 keeps all.
struct Retention {
  std::chrono::nanoseconds age{0};  // finished longer ago than this
  std::uint64_t jobs = 0;           // more than so many finished ones, the oldest first
};

struct Pruned {
  std::vector<std::string> jobs;  // ids of those of which nothing is left
  bool more = false;              // there is more to remove
};

struct Released {
  std::uint64_t tasks = 0;   // went back
  std::uint64_t failed = 0;  // were lost too often
  std::vector<EnclosingSpan> spans;  // closed, or left over by workers that are gone
};

// How many tasks of one type and cluster are in one state.
struct TaskCount {
  TaskState state = TaskState::ready;
  std::string cluster;
  TaskName name;
  std::uint64_t tasks = 0;
};

// What an automation does at a tick, or about a file.
struct AutomationStep {
  std::string_view name;
  std::uint64_t revision = 0;      // as it was read: it has not changed since
  std::optional<Timestamp> tick = {};  // of cron: ticks until here are done with
  std::string_view path = {};      // of a directory: this file
  bool also_paused = false;
  const NewJob* job = nullptr;     // none: there is nothing to submit
};

// Who takes tasks, for those who look.
struct WorkerInfo {
  struct Running {
    std::string job;       // its id
    std::string job_name;
    TaskInfo task;
  };
  std::string runner;
  std::string name;
  std::string host;
  std::uint64_t process_id = 0;
  std::string cluster;
  std::vector<TaskName> tasks;        // that it can run
  Timestamp joined_at;
  std::chrono::nanoseconds lease{0};  // what is left of it; less than 0: it gave no sign of life for too long
  std::vector<Running> running;
};

// What one task is waiting for.
struct TaskWait {
  std::string job;                 // its id
  TaskInfo task;
  std::uint64_t open = 0;          // tasks that it waits for: dependencies, or its own subtasks once it has computed
  std::string next;                // the first of them
  bool paused = false;             // of a ready one: its cluster is
  std::vector<Limit> limits = {};  // of a ready one: those that let none like it start now
  std::uint64_t takers = 0;        // of a ready or scheduled one: living workers that can run it
  std::uint64_t ahead = 0;         // of a ready one: others of its cluster that come first
  std::string runner;              // of a running one
  std::chrono::nanoseconds due{0}; // of a scheduled one: until it is ready
};

// What is to be done, and what was done lately. Durations are 0 where nothing was measured.
struct TaskActivity {
  std::string cluster;
  std::string name;                     // in all versions
  std::uint64_t waiting = 0;            // now
  std::uint64_t scheduled = 0;
  std::uint64_t ready = 0;
  std::uint64_t running = 0;
  std::uint64_t computed = 0;           // in the period
  std::uint64_t failed = 0;             // attempts, those that were lost included
  std::chrono::nanoseconds wait_p50{0}; // from ready to started, of what started in the period
  std::chrono::nanoseconds wait_p99{0};
  std::chrono::nanoseconds run_p50{0};  // of what was computed in it
  std::chrono::nanoseconds run_p99{0};
};
struct Activity {
  Timestamp now;                        // by the store's clock
  std::uint64_t open_jobs = 0;
  std::vector<TaskActivity> tasks;      // by cluster and name
};

class Store {
 public:
  virtual ~Store() = default;

  // The job that was there before, where one has the same key.
  virtual Job submit(const NewJob& job) = 0;
  [[nodiscard]] virtual std::optional<Job> find(std::string_view id) = 0;
  [[nodiscard]] virtual JobPage query(const JobFilter& filter) = 0;
  [[nodiscard]] virtual std::vector<TaskInfo> tasks(std::string_view id) = 0;
  // Nothing of it starts any more; what runs is asked to stop. No effect on a job that is finished or stopping, or none.
  virtual void cancel(std::string_view id) = 0;
  // Failed, canceled and skipped tasks of a failed or canceled job are to run again: how many. Those that failed within
  // an optional subtree, and whatever was computed, stay as they are.
  virtual std::uint64_t retry(std::string_view id) = 0;

  virtual void pause(std::string_view cluster, bool paused) = 0;
  [[nodiscard]] virtual std::vector<Cluster> clusters() = 0;
  // In place of the one with the same task and key; one that limits nothing is removed.
  virtual void limit(const Limit& limit) = 0;
  [[nodiscard]] virtual std::vector<Limit> limits() = 0;

  [[nodiscard]] virtual WorkerId join(const NewWorker& worker) = 0;
  // The lease's new end by the store's clock; nothing if it was lost.
  [[nodiscard]] virtual std::optional<Timestamp> renew(WorkerId worker) = 0;
  // What it still holds goes back.
  virtual void leave(WorkerId worker) = 0;

  // Results first, then claims: what the results made ready can be among them.
  [[nodiscard]] virtual Exchanged exchange(const Exchange& exchange) = 0;

  // By the clock that everything here goes by.
  [[nodiscard]] virtual Timestamp time() = 0;

  [[nodiscard]] virtual std::vector<Automation> automations() = 0;  // by name
  // In place of the one of this name. What automations have done so far is the store's to say; see Automations::cron().
  virtual void keep(const Automation& automation) = 0;
  // False: there is none of this name.
  virtual bool pause_automation(std::string_view name, bool paused) = 0;
  virtual bool remove_automation(std::string_view name) = 0;
  // Of these files, those that the automation has not submitted a job for.
  [[nodiscard]] virtual std::vector<std::string> new_files(std::string_view name, std::span<const std::string> paths) = 0;
  // The job and the word that the tick or the file is done with are one step. False: somebody else took it.
  virtual bool advance(const AutomationStep& step) = 0;

  // The results of a task's steps. Kept at once; false where the worker does not hold that attempt (any more).
  [[nodiscard]] virtual std::optional<std::string> find_step(std::int64_t task, std::string_view name) = 0;
  [[nodiscard]] virtual bool keep_step(WorkerId worker, std::int64_t task, std::uint32_t attempt, std::string_view name,
                                       std::string_view result) = 0;
  // A running task's name for people; not where the worker does not hold that attempt.
  virtual void display(WorkerId worker, std::int64_t task, std::uint32_t attempt, std::string_view text) = 0;

  // Bytes by path and key within a job.
  [[nodiscard]] virtual std::optional<std::string> cached(std::int64_t job, std::string_view path,
                                                          std::string_view key) = 0;
  // None: it is removed.
  virtual void cache(std::int64_t job, std::string_view path, std::string_view key,
                     std::optional<std::string_view> bytes) = 0;
  [[nodiscard]] virtual std::vector<std::string> cached_keys(std::int64_t job, std::string_view path) = 0;

  // Removes about so many rows of finished jobs whose time is up. A job is gone for everybody from the first of them.
  [[nodiscard]] virtual Pruned prune(const Retention& retention, std::size_t rows) = 0;

  // Takes the tasks of workers whose lease has ended, each charged with the loss, unless that of `by` has, too; and the outbox
  // of workers that are gone.
  [[nodiscard]] virtual Released sweep(WorkerId by, std::uint32_t max_lost) = 0;
  // The same for a runner that is known to be dead; only the attempts named as charged are.
  [[nodiscard]] virtual Released release(WorkerId by, std::string_view runner, std::span<const LostAttempt> lost,
                                         std::uint32_t max_lost) = 0;

  // The tasks that are not over, counted: waiting, ready, running, scheduled. It holds up nobody who writes.
  [[nodiscard]] virtual std::vector<TaskCount> counts() = 0;

  // Whether nothing is left that this worker could still get to do, by what is in the store now.
  [[nodiscard]] virtual bool idle(WorkerId worker) = 0;

  // Those with a lease, also one that has ended until somebody takes their tasks.
  [[nodiscard]] virtual std::vector<WorkerInfo> workers() = 0;
  // Nothing where there is no such task.
  [[nodiscard]] virtual std::optional<TaskWait> wait_of(std::string_view task) = 0;
  // Reads every task of the jobs that are open, or were in the period.
  [[nodiscard]] virtual Activity activity(std::chrono::nanoseconds period) = 0;
  // Gives back the room that removed jobs have left: how many bytes. Others wait meanwhile.
  virtual std::uint64_t vacuum() = 0;

  // Calls `changed` from any thread when others may have made work or finished a job, until what it returned is gone.
  // Now and then for nothing. `changed` is quick, and calls nothing of the store.
  [[nodiscard]] virtual std::shared_ptr<void> watch(std::function<void()> changed) = 0;

  // Until what it returned is gone, calls wait for other programs no longer than half a second: this one is to end. It
  // lasts no longer than the store.
  [[nodiscard]] virtual std::shared_ptr<void> hurry() = 0;
};

// See ClientOptions::store. `clock` is an embedded store's time; none: the system's.
[[nodiscard]] std::shared_ptr<Store> open_store(const std::string& where, std::function<Timestamp()> clock = {});

// What lies at such a place, without opening it as a store: open_store() makes what is not there, and brings an older one
// up to date.
struct StoreVersion {
  std::string place;
  int found = 0;  // 0: there is no store
  int known = 0;  // to this program: a newer one can't be opened
};
// Error(store) where something else is there, or what is there can't be read.
[[nodiscard]] StoreVersion store_version(const std::string& where);

struct StoreCheck {
  StoreVersion version;
  std::uint64_t bytes = 0;
  std::uint64_t unused_bytes = 0;     // of them: vacuum() gives them back
  std::uint64_t jobs = 0;
  std::uint64_t tasks = 0;
  std::vector<std::string> problems;  // what is damaged, or contradicts itself; none: it is sound
};
// Reads all of a store of this program's version, of another version only what the engine knows. Changes nothing.
[[nodiscard]] StoreCheck check_store(const std::string& where);

}  // namespace waymark
