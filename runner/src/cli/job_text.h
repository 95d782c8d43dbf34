// Jobs and tasks in words, colours and JSON.
//
// Hides: which state has which colour, and the names of JSON's members.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cli/table.h"
#include "waymark/job.h"

namespace waymark::cli {

using Json = nlohmann::ordered_json;

[[nodiscard]] std::string_view state_color(JobState state);
[[nodiscard]] std::string_view state_color(TaskState state);
[[nodiscard]] Cell state_cell(JobState state);
[[nodiscard]] Cell state_cell(TaskState state);
// For people's words; an Error where there is no such state lists those that there are.
[[nodiscard]] JobState job_state(const std::string& name);
[[nodiscard]] TaskState task_state(const std::string& name);

// The name for people where it has one: `Tile`, `Tile "scene S2A_1"`.
[[nodiscard]] std::string task_label(const TaskInfo& task);
// "no luck", with its type before it; empty where there is none.
[[nodiscard]] std::string error_text(std::string_view type, std::string_view what);
// What of it has passed until it ended, or until `now`; empty where it has not started.
[[nodiscard]] std::string duration_text(Timestamp start, Timestamp end, Timestamp now);
// "3m02s ago"
[[nodiscard]] std::string ago(Timestamp then, Timestamp now);
// "2026-01-31 12:00:00.123", UTC
[[nodiscard]] std::string utc(Timestamp time);
[[nodiscard]] std::string count(std::uint64_t number, std::string_view noun);  // "3 tasks"

// Times are nanoseconds since 1970; null where there is nothing.
[[nodiscard]] Json job_json(const Job& job);
[[nodiscard]] Json task_json(const TaskInfo& task);
[[nodiscard]] Json time_json(Timestamp time);
[[nodiscard]] Json text_json(const std::string& text);
// On several lines, or on one.
[[nodiscard]] std::string write_json(const Json& json, bool one_line = false);

[[nodiscard]] Timestamp wall_clock();

}  // namespace waymark::cli
