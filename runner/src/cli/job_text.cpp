#include "cli/job_text.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "cli/command.h"
#include "cli/display_text.h"
#include "cli/waterfall.h"

namespace waymark::cli {
namespace {

template <class State>
State state_of(const std::string& name, std::string_view (*name_of)(State) noexcept) {
  std::string all;
  for (std::uint8_t n = 0;; ++n) {
    const std::string_view known = name_of(static_cast<State>(n));
    if (known.empty()) break;
    if (known == name) return static_cast<State>(n);
    all += (all.empty() ? "" : ", ") + std::string(known);
  }
  throw WrongUse("--state: '" + printable(name) + "' is none; expected one of " + all);
}

}  // namespace

std::string_view state_color(JobState state) {
  switch (state) {
    case JobState::submitted: return "33";
    case JobState::running: return "36";
    case JobState::completed: return "32";
    case JobState::failed: return "1;31";
    case JobState::canceled: return "35";
  }
  return {};
}

std::string_view state_color(TaskState state) {
  switch (state) {
    case TaskState::waiting: return "2";
    case TaskState::ready:
    case TaskState::scheduled: return "33";
    case TaskState::running: return "36";
    case TaskState::computed:
    case TaskState::completed: return "32";
    case TaskState::failed: return "1;31";
    case TaskState::failed_optional: return "31";
    case TaskState::skipped: return "2";
    case TaskState::canceled: return "35";
  }
  return {};
}

Cell state_cell(JobState state) { return {std::string(job_state_name(state)), state_color(state)}; }
Cell state_cell(TaskState state) { return {std::string(task_state_name(state)), state_color(state)}; }
JobState job_state(const std::string& name) { return state_of<JobState>(name, job_state_name); }
TaskState task_state(const std::string& name) { return state_of<TaskState>(name, task_state_name); }

std::string task_label(const TaskInfo& task) {
  return printable(task.name) + (task.display.empty() ? "" : " \"" + printable(task.display) + "\"");
}

std::string error_text(std::string_view type, std::string_view what) {
  if (type.empty()) return printable(what);
  return printable(type) + (what.empty() ? "" : ": " + printable(what));
}

std::string duration_text(Timestamp start, Timestamp end, Timestamp now) {
  if (start == Timestamp{}) return {};
  return human_duration(std::max((end < start ? now : end) - start, Timestamp::duration::zero()));
}

std::string ago(Timestamp then, Timestamp now) {
  if (then == Timestamp{}) return {};
  return human_duration(std::max(now - then, Timestamp::duration::zero())) + " ago";
}

std::string utc(Timestamp time) {
  const auto ns = time.time_since_epoch().count();
  const std::time_t seconds = ns / 1'000'000'000 - (ns % 1'000'000'000 < 0 ? 1 : 0);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 32> day{};
  std::strftime(day.data(), day.size(), "%F %T", &parts);
  std::array<char, 8> rest{};
  const auto ms = static_cast<unsigned>((ns - seconds * 1'000'000'000) / 1'000'000) % 1000U;
  std::snprintf(rest.data(), rest.size(), ".%03u", ms);
  return std::string(day.data()) + rest.data();
}

std::string count(std::uint64_t number, std::string_view noun) {
  return std::to_string(number) + " " + std::string(noun) + (number == 1 ? "" : "s");
}

Json time_json(Timestamp time) { return time == Timestamp{} ? Json() : Json(time.time_since_epoch().count()); }
Json text_json(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json job_json(const Job& job) {
  Json progress = Json::array();
  for (const ProgressCount& p : job.progress) {
    progress.push_back({{"label", p.label}, {"done", p.done}, {"total", p.total}});
  }
  return {{"id", job.id},
          {"name", job.name},
          {"state", job_state_name(job.state)},
          {"cluster", job.cluster},
          {"submitted_ns", time_json(job.submitted_at)},
          {"started_ns", time_json(job.started_at)},
          {"finished_ns", time_json(job.finished_at)},
          {"tasks", job.tasks},
          {"tasks_done", job.tasks_done},
          {"progress", std::move(progress)},
          {"retries", job.retries},
          {"key", text_json(job.key)},
          {"trace_id", job.trace_id.hex()},
          {"error_type", text_json(job.error_type)},
          {"error", text_json(job.error)},
          {"failed_task", text_json(job.failed_task)}};
}

Json task_json(const TaskInfo& task) {
  return {{"id", task.id},
          {"parent", text_json(task.parent)},
          {"name", task.name},
          {"version", task.version},
          {"display", text_json(task.display)},
          {"state", task_state_name(task.state)},
          {"cluster", task.cluster},
          {"attempts", task.attempts},
          {"failures", task.failures},
          {"lost", task.lost},
          {"priority", task.priority},
          {"optional", task.optional},
          {"limit_key", text_json(task.limit_key)},
          {"group", text_json(task.group)},
          {"after", task.after},
          {"started_ns", time_json(task.started_at)},
          {"ended_ns", time_json(task.ended_at)},
          {"due_ns", time_json(task.due_at)},
          {"error_type", text_json(task.error_type)},
          {"error", text_json(task.error)}};
}

std::string write_json(const Json& json, bool one_line) {
  return json.dump(one_line ? -1 : 2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Timestamp wall_clock() {
  return std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
}

}  // namespace waymark::cli
