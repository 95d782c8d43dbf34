// A job's tasks as the tree in which they were submitted.
//
// Hides: how many alike become one row, and what stands in which column.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>
#include <vector>

#include "waymark/job.h"

namespace waymark::cli {

struct TaskTreeOptions {
  int width = 100;     // of a line
  bool color = false;
  bool all = false;    // a row for each, also where many are alike
  Timestamp now = {};  // what runs has run until then
};

[[nodiscard]] std::string draw_task_tree(const std::vector<TaskInfo>& tasks, const TaskTreeOptions& options);

}  // namespace waymark::cli
