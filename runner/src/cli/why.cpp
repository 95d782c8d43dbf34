#include "cli/why.h"

#include <algorithm>
#include <array>

#include "cli/display_text.h"
#include "cli/job_text.h"
#include "cli/waterfall.h"

namespace waymark::cli {
namespace {

constexpr int kFarthest = 8;  // from one task to the next that it waits for

std::string named(const TaskInfo& task) { return "task " + task.id + " " + task_label(task); }

std::string limit_text(const Limit& limit) {
  std::string whose;
  if (!limit.task.empty()) whose += " of " + printable(limit.task);
  if (!limit.key.empty()) whose += limit.key == "*" ? " for each key" : " with the key " + printable(limit.key);
  if (limit.max_running > 0) return std::to_string(limit.max_running) + " running" + whose;
  return std::to_string(limit.rate) + " starts in " + human_duration(limit.per) + whose;
}

// What stands behind the task's name.
std::string phrase(Store& store, const TaskWait& wait, int steps) {
  const TaskInfo& task = wait.task;
  const Timestamp now = wall_clock();
  const auto follow = [&](const std::string& what) {
    std::string text = what;
    const auto next = steps < kFarthest ? store.wait_of(wait.next) : std::nullopt;
    if (next) text += (wait.open == 1 ? ": " : ", the first is ") + named(next->task) + ", which " + phrase(store, *next, steps + 1);
    return text;
  };
  switch (task.state) {
    case TaskState::waiting: return follow("waits for " + count(wait.open, "task"));
    case TaskState::computed:
      if (wait.open > 0) return follow("is done itself and waits for " + count(wait.open, "subtask"));
      return "is done itself; something below it failed or was skipped";
    case TaskState::running: {
      std::string who = "a runner that is gone";
      for (const WorkerInfo& worker : store.workers()) {
        if (worker.runner != wait.runner) continue;
        who = printable(worker.name) + " (process " + std::to_string(worker.process_id) + " on " + printable(worker.host) + ")";
        if (worker.lease.count() < 0) who += ", which gave no sign of life for too long";
      }
      return "runs for " + duration_text(task.started_at, {}, now) + ", attempt " + std::to_string(task.attempts) + ", on " + who;
    }
    case TaskState::ready: {
      if (wait.paused) {
        return "is ready, but cluster " + printable(task.cluster) + " is paused: waymark clusters resume " + printable(task.cluster);
      }
      if (wait.takers == 0) {
        return "is ready, but no living runner of cluster " + printable(task.cluster) + " can run " + printable(task.name) +
               " " + task.version;
      }
      if (!wait.limits.empty()) return "is ready, but there is a limit: " + limit_text(wait.limits[0]);
      const std::string runners = count(wait.takers, "runner") + " can take it";
      if (wait.ahead == 0) return "is ready and the next: " + runners;
      return "is ready; " + count(wait.ahead, "other") + (wait.ahead == 1 ? " comes" : " come") + " first, " + runners;
    }
    case TaskState::scheduled: {
      std::string text = wait.due.count() > 0 ? "is to start in " + human_duration(wait.due) : "is to start now";
      if (task.failures > 0) text += ", after failure " + std::to_string(task.failures) + " (" + error_text(task.error_type, task.error) + ")";
      if (wait.paused) return text + ", but cluster " + printable(task.cluster) + " is paused";
      if (wait.takers == 0) text += ", but no living runner can run it";
      return text;
    }
    case TaskState::completed: return "is completed, " + ago(task.ended_at, now);
    case TaskState::failed:
    case TaskState::failed_optional:
      return "has failed after " + count(task.attempts, "attempt") + ": " + error_text(task.error_type, task.error);
    case TaskState::skipped: return "was skipped: something else failed before it started, or its job was canceled";
    case TaskState::canceled: return "was canceled";
  }
  return {};
}

}  // namespace

std::string why_task(Store& store, const TaskWait& wait) { return named(wait.task) + " " + phrase(store, wait, 0); }

std::string why_job(Client& client, const Job& job) {
  const Timestamp now = wall_clock();
  const std::string subject = "job " + job.id + " " + printable(job.name) + " ";
  const std::string took = duration_text(job.started_at, job.finished_at, now);
  switch (job.state) {
    case JobState::completed: return subject + "is completed, " + ago(job.finished_at, now) + ": " + count(job.tasks, "task") + " in " + took;
    case JobState::failed:
      return subject + "has failed, " + ago(job.finished_at, now) + ": task " + job.failed_task + ": " + error_text(job.error_type, job.error);
    case JobState::canceled: return subject + "was canceled, " + ago(job.finished_at, now);
    default: break;
  }
  const std::vector<TaskInfo> tasks = client.jobs().tasks(job.id);
  std::array<std::uint64_t, 10> states{};
  const TaskInfo* first = nullptr;  // what can change soonest: the longest running, else a ready one, else the next that is due
  const auto rank = [](const TaskInfo& task) {
    switch (task.state) {
      case TaskState::running: return 0;
      case TaskState::ready: return 1;
      case TaskState::scheduled: return 2;
      case TaskState::waiting: return 3;
      default: return 4;
    }
  };
  for (const TaskInfo& task : tasks) {
    ++states[static_cast<std::size_t>(task.state)];
    if (rank(task) == 4) continue;
    const auto sooner = [&] {
      if (!first || rank(task) != rank(*first)) return !first || rank(task) < rank(*first);
      if (task.state == TaskState::running) return task.started_at < first->started_at;
      return task.state == TaskState::scheduled && task.due_at < first->due_at;
    };
    if (sooner()) first = &task;
  }
  std::string text = subject + (first && first->state == TaskState::running ? "is running: " : "waits: ");
  const auto number = [&](TaskState state) { return states[static_cast<std::size_t>(state)]; };
  std::string counts;
  for (const auto& [state, words] : {std::pair{TaskState::running, "running"}, std::pair{TaskState::ready, "ready"},
                                     std::pair{TaskState::scheduled, "for later"}, std::pair{TaskState::waiting, "waiting for others"}}) {
    if (number(state) > 0) counts += (counts.empty() ? "" : ", ") + std::to_string(number(state)) + " " + words;
  }
  text += count(job.tasks, "task") + (counts.empty() ? "" : ", " + counts);
  const auto wait = first ? client.store().wait_of(first->id) : std::nullopt;
  if (wait) text += "; " + why_task(client.store(), *wait);
  return text;
}

}  // namespace waymark::cli
