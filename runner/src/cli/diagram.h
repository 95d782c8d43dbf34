// A job's tasks and what they wait for, as a picture: Mermaid for documents, SVG for everything else.
//
// Hides: how tasks that are alike become one box, and where boxes stand.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>
#include <vector>

#include "waymark/job.h"

namespace waymark::cli {

// `all`: a box for each task; else one for those of a name with the same parents and dependencies.
[[nodiscard]] std::string mermaid(const std::vector<TaskInfo>& tasks, bool all);
[[nodiscard]] std::string svg(const Job& job, const std::vector<TaskInfo>& tasks, bool all);

}  // namespace waymark::cli
