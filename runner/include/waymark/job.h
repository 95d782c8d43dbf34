// Jobs as they stand in the store.
//
// Hides: nothing; it is data, as of the moment it was read.
// Threads: values.
// Failure: none.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/trace.h"

namespace waymark {

enum class JobState : std::uint8_t {
  submitted,  // no task of it has started
  running,    // also while a failed job's last tasks are still being stopped
  completed,
  failed,
  canceled,
};
[[nodiscard]] std::string_view job_state_name(JobState state) noexcept;

enum class TaskState : std::uint8_t {
  waiting,          // for siblings it depends on
  ready,
  running,
  computed,         // done itself, its subtasks are not
  completed,        // with its whole subtree
  failed,
  failed_optional,  // within an optional subtree: the job goes on
  skipped,          // because something else failed, or the job was canceled
  canceled,
  scheduled,        // for later: the next attempt, or a delay
};
[[nodiscard]] std::string_view task_state_name(TaskState state) noexcept;

// A named count that tasks report while they run, summed over the job's tasks. Of a task only the last attempt counts.
struct ProgressCount {
  std::string label;
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  friend bool operator==(const ProgressCount&, const ProgressCount&) = default;
};

struct Job {
  std::string id;  // a UUID
  std::string name;
  JobState state = JobState::submitted;
  Timestamp submitted_at;
  Timestamp started_at;   // of its first task; 0: none has
  Timestamp finished_at;  // 0: it has not
  TraceId trace_id;
  std::string error_type;   // of the task that failed the job
  std::string error;
  std::string failed_task;  // its id
  std::string cluster;
  std::string key;               // of an idempotent submit
  std::uint32_t retries = 0;     // by Jobs::retry()
  std::uint64_t tasks = 0;       // so far: tasks submit more
  std::uint64_t tasks_done = 0;  // of them: computed, failed or skipped for good
  std::vector<ProgressCount> progress;

  [[nodiscard]] bool finished() const noexcept { return finished_at != Timestamp{}; }
};

// Which jobs: those that fit every word given here.
struct JobFilter {
  std::vector<JobState> states = {};  // any of them; empty: all
  std::string id = {};                // its first characters
  std::string name = {};              // a part of it; small and capital letters of ASCII are the same
  std::string cluster = {};
  Timestamp submitted_after = {};   // at that time or later
  Timestamp submitted_before = {};  // before it
  std::size_t limit = 100;            // of one page, 1 to 10,000
  std::string cursor = {};            // JobPage::next of the page before
};

// Newest first.
struct JobPage {
  std::vector<Job> jobs;
  std::string next;  // the cursor of the next page; empty: this is the last one
};

// A place where tasks wait, and its runners take them from. A paused one hands out none.
struct Cluster {
  std::string name;
  bool paused = false;
};

// At most so many tasks at a time, and at most so many starts in each period, over all runners of the store. A task that
// several limits fit keeps to all of them.
struct Limit {
  std::string task = {};  // the tasks of this name; empty: of any
  std::string key = {};   // tasks submitted with this limit_key; empty: all; "*": those of each key by themselves
  std::uint32_t max_running = 0;  // 0: any number
  std::uint32_t rate = 0;         // starts in `per`; 0: any number
  std::chrono::nanoseconds per = std::chrono::seconds(1);
  friend bool operator==(const Limit&, const Limit&) = default;
};

// One task of a job, for those who look.
struct TaskInfo {
  std::string id;
  std::string parent;  // empty for a root
  std::string name;
  std::string version;
  TaskState state = TaskState::waiting;
  std::uint32_t attempts = 0;  // started so far
  std::uint32_t failures = 0;  // of them: failed
  std::uint32_t lost = 0;      // of them: lost with their runner and charged to this task
  std::string error_type;
  std::string error;
  Timestamp started_at;  // of its last attempt
  Timestamp ended_at;    // 0: has not
  Timestamp due_at;      // of a scheduled one: when it is ready
  std::string display;
  std::string cluster;
  std::string limit_key;
  std::int32_t priority = 0;
  bool optional = false;
  // Tasks of one group are those that the same others wait for; `after`: the groups that this one waits for.
  std::string group;
  std::vector<std::string> after;
};

}  // namespace waymark
