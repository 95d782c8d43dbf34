// What is to be done and who does it, as tables and as JSON: parts of `waymark tasks`, `runners`, `clusters` and `top`.
//
// Hides: their columns.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>
#include <vector>

#include "cli/job_text.h"
#include "waymark/store.h"

namespace waymark::cli {

[[nodiscard]] std::string draw_activity(const std::vector<TaskActivity>& tasks, std::chrono::nanoseconds period, bool color, int width);
[[nodiscard]] std::string draw_workers(const std::vector<WorkerInfo>& workers, Timestamp now, bool color, int width);
[[nodiscard]] Json activity_json(const Activity& activity, std::chrono::nanoseconds period);
[[nodiscard]] Json workers_json(const std::vector<WorkerInfo>& workers);

}  // namespace waymark::cli
