#include "cli/task_tree.h"

#include <algorithm>
#include <unordered_map>

#include "cli/display_text.h"
#include "cli/job_text.h"
#include "cli/table.h"
#include "cli/waterfall.h"

namespace waymark::cli {
namespace {

constexpr std::size_t kAlike = 8;  // siblings that become one row

using Children = std::unordered_map<std::string, std::vector<const TaskInfo*>>;

bool alike(const TaskInfo& a, const TaskInfo& b) {
  return a.name == b.name && a.version == b.version && a.state == b.state && a.error_type == b.error_type && a.error == b.error;
}

class Tree {
 public:
  Tree(const std::vector<TaskInfo>& tasks, const TaskTreeOptions& options) : options_(options) {
    for (const TaskInfo& task : tasks) children_[task.parent].push_back(&task);
  }

  std::string draw() {
    below("", "", true);
    return draw_table({{"task"}, {"id", true}, {"state"}, {"attempts", true}, {"time", true}, {""}}, rows_, options_.color,
                      0, options_.width);
  }

 private:
  bool leaf(const TaskInfo& task) const { return !children_.contains(task.id); }

  void below(const std::string& parent, const std::string& prefix, bool roots) {
    const auto found = children_.find(parent);
    if (found == children_.end()) return;
    const auto& siblings = found->second;
    for (std::size_t i = 0; i < siblings.size();) {
      const TaskInfo& task = *siblings[i];
      std::size_t end = i + 1;
      if (!options_.all && leaf(task)) {
        while (end < siblings.size() && leaf(*siblings[end]) && alike(task, *siblings[end])) ++end;
        if (end - i < kAlike) end = i + 1;
      }
      const bool last = end == siblings.size();
      row(siblings, i, end, roots ? prefix : prefix + (last ? "└─" : "├─"));
      if (end == i + 1) below(task.id, roots ? prefix : prefix + (last ? "  " : "│ "), false);
      i = end;
    }
  }

  void row(const std::vector<const TaskInfo*>& siblings, std::size_t from, std::size_t to, const std::string& prefix) {
    const TaskInfo& first = *siblings[from];
    const std::size_t size = to - from;
    std::uint64_t attempts = 0;
    auto shortest = Timestamp::duration::max(), longest = Timestamp::duration::min();
    for (std::size_t i = from; i < to; ++i) {
      const TaskInfo& task = *siblings[i];
      attempts += task.attempts;
      if (task.started_at == Timestamp{}) continue;
      const auto took = std::max((task.ended_at < task.started_at ? options_.now : task.ended_at) - task.started_at,
                                 Timestamp::duration::zero());
      shortest = std::min(shortest, took);
      longest = std::max(longest, took);
    }
    std::string time;
    if (shortest <= longest) time = human_duration(longest);
    if (size > 1 && shortest < longest) time = human_duration(shortest) + " to " + time;
    std::string note = error_text(first.error_type, first.error);
    if (first.state == TaskState::scheduled) {
      note = "in " + human_duration(std::max(first.due_at - options_.now, Timestamp::duration::zero())) +
             (note.empty() ? "" : ", after " + note);
    }
    if (first.optional) note = "optional" + (note.empty() ? "" : "; " + note);
    if (first.lost > 0) note = "lost with its runner: " + std::to_string(first.lost) + (note.empty() ? "" : "; " + note);
    const bool failed = first.state == TaskState::failed || first.state == TaskState::failed_optional;
    rows_.push_back({{prefix + (size > 1 ? printable(first.name) + " ×" + std::to_string(size) : task_label(first))},
                     {size > 1 ? "" : first.id},
                     state_cell(first.state),
                     {attempts > 0 ? std::to_string(attempts) : ""},
                     {time},
                     {note, failed ? "31" : "33"}});
  }

  const TaskTreeOptions& options_;
  Children children_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace

std::string draw_task_tree(const std::vector<TaskInfo>& tasks, const TaskTreeOptions& options) {
  return Tree(tasks, options).draw();
}

}  // namespace waymark::cli
