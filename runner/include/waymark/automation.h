// Jobs that submit themselves: at times (cron), and for files that appear in a directory.
//
//   client.automations().cron("hourly mosaic", "0 * * * *", Mosaic{.day = "{time}"}, {.time_zone = "Europe/Vienna"});
//   client.automations().watch_directory("new scenes", "/data/in", "*.tif", ProcessScene{.path = "{path}"});
//
// They lie in the store, and every runner of their cluster that serves (run_forever) executes them; run_all() does what
// is due when it begins. Whatever a runner dies of, a tick submits one job over all runners, and a file one job for good.
// In the texts of the task's input {name} stands for the automation's name, {time} for the tick (UTC, RFC 3339), {path}
// and {file} for the file's path and name.
//
// Hides: schedules and time zones, watching, who of the runners it is.
// Threads: any.
// Failure: Error(invalid_argument) for a schedule, a pattern or a name that can't be one, Error(not_found) for an unknown
//   automation, time zone or directory, Error(store).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waymark/job.h"
#include "waymark/task.h"

namespace waymark {

enum class AutomationKind : std::uint8_t { cron, directory };

// What becomes of ticks at which no runner was there, and which are more than a minute old.
enum class MissedRuns : std::uint8_t {
  skip,  // nothing
  one,   // one job, for the last of them
  all,   // a job for each of them, at most the last 100
};

struct CronOptions {
  std::string time_zone = "UTC";  // a name of the system's tz database
  MissedRuns missed = MissedRuns::one;
  std::string cluster = {};       // default: the client's
  std::uint32_t max_retries = 0;  // of the job's root task
  std::int32_t priority = 0;      // higher first
};

struct WatchOptions {
  std::string cluster = {};       // default: the client's
  std::uint32_t max_retries = 0;  // of the job's root task
  std::int32_t priority = 0;      // higher first
};

struct Automation {
  std::string name;  // 1 to 256 bytes; of the jobs, too
  AutomationKind kind = AutomationKind::cron;
  std::string schedule;   // of cron
  std::string time_zone;  // of cron
  MissedRuns missed = MissedRuns::one;
  std::string directory;  // absolute
  std::string pattern;    // of files' names, as in a shell
  TaskName task;
  std::string input;      // a template; JSON
  std::string cluster;
  std::uint32_t max_retries = 0;
  std::int32_t priority = 0;
  bool paused = false;
  Timestamp created_at;
  Timestamp looked_at;      // of cron: ticks until then are done with
  Timestamp last_fired_at;  // 0: it never has
  Timestamp next_at;        // of cron: its next tick; 0: none
  std::string last_job;     // its id
  std::uint64_t jobs = 0;   // submitted so far
  std::uint64_t revision = 0;  // the store's own: raised by each change, and each tick
};

class Automations {
 public:
  // In place of the one with the same name: it stays paused where that was, and ticks that are done with stay so where
  // the schedule is the same.
  template <class T>
  void cron(std::string_view name, std::string_view schedule, const T& task, const CronOptions& options = {}) {
    cron(name, schedule, task_name<T>(), task_input(task), options);
  }
  void cron(std::string_view name, std::string_view schedule, const TaskName& task, std::string input,
            const CronOptions& options = {});

  // Files in the directory itself whose names match. A file is finished when it was closed after writing or moved there,
  // or was not changed for two seconds. It counts once by its path, whoever writes it again.
  template <class T>
  void watch_directory(std::string_view name, const std::string& directory, std::string_view pattern, const T& task,
                       const WatchOptions& options = {}) {
    watch_directory(name, directory, pattern, task_name<T>(), task_input(task), options);
  }
  void watch_directory(std::string_view name, const std::string& directory, std::string_view pattern,
                       const TaskName& task, std::string input, const WatchOptions& options = {});

  [[nodiscard]] std::vector<Automation> list();  // by name
  [[nodiscard]] Automation find(std::string_view name);
  void pause(std::string_view name);
  void resume(std::string_view name);  // ticks that came meanwhile were not missed; files were
  void remove(std::string_view name);  // with what it knows of files
  // Now: a job beside its ticks, or one for each file that has none yet. Also where it is paused.
  std::vector<Job> run(std::string_view name);

 private:
  friend class Client;
  struct Shared;
  explicit Automations(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  std::shared_ptr<Shared> shared_;
};

}  // namespace waymark
