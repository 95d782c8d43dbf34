#include "chaos/judge.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <set>
#include <string_view>
#include <utility>

#include "chaos/node.h"

namespace waymark::chaos {
namespace {

std::int64_t number(std::string_view text) {
  std::int64_t n = 0;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

std::int64_t integer(const ReadSpan& span, std::string_view key) {
  const AnyValue* value = find(span.attributes, key);
  return value ? number(to_text(*value)) : 0;
}

bool is_computed(TaskState state) { return state == TaskState::computed || state == TaskState::completed; }

}  // namespace

void Judge::deviates(std::uint64_t& count, const std::string& what) {
  constexpr unsigned kMost = 20;
  ++count;
  if (++said_ <= kMost) std::fprintf(stderr, "chaostest: %s\n", what.c_str());
}

void Judge::judge(Client& client, const Submitted& jobs, const std::vector<Entry>& account,
                  const std::vector<ReadSpan>& spans) {
  for (std::size_t at = 0; at < account.size(); ++at) {
    const Entry& entry = account[at];
    const std::pair key{entry.task, entry.attempt};
    if (entry.kind == Entry::began) {
      began_at_.emplace(entry.task, at);
    } else {
      computed_at_.emplace(key, at);
    }
    const std::string name = "attempt " + std::to_string(entry.attempt) + " of task " + std::to_string(entry.task);
    if (entry.kind == Entry::began) {
      ++verdict_->executions;
      if (++began_[key] == 2) deviates(verdict_->double_done, name + " was executed twice");
    } else if (!computed_.emplace(key, entry.node).second) {
      deviates(verdict_->double_done, name + " was computed twice");
    }
  }

  // A span may arrive twice, but then it is the same.
  std::map<SpanId, const ReadSpan*> once;
  for (const ReadSpan& span : spans) once.emplace(span.context.span_id, &span);
  for (const auto& [id, span] : once) {
    const std::int64_t task = number(find_string(span->attributes, "task_id"));
    if (span->name.starts_with("task/")) {
      const auto attempt = static_cast<std::uint64_t>(integer(*span, "workflow.attempt"));
      if (!attempt_spans_.emplace(std::pair{task, attempt}, id).second) {
        deviates(verdict_->double_done,
                 "attempt " + std::to_string(attempt) + " of task " + std::to_string(task) + " has two spans");
      }
      if (find_string(span->attributes, "workflow.outcome") == "computed" && ++commits_[task] == 2) {
        deviates(verdict_->double_done, "task " + std::to_string(task) + " was accepted twice");
      }
    } else if (span->name.starts_with("subtasks/")) {
      ++subtree_spans_[task];
    } else if (span->name.starts_with("job/")) {
      ++job_spans_[std::string(find_string(span->attributes, "workflow.job.id"))];
    }
  }
  for (const auto& [key, times] : began_) {
    if (attempt_spans_.contains(key)) continue;
    deviates(verdict_->spans_missing, "attempt " + std::to_string(key.second) + " of task " +
                                          std::to_string(key.first) + " began, and has no span");
  }
  for (const auto& [id, seed] : jobs) judge_job(client, id, seed);
}

void Judge::judge_job(Client& client, const std::string& id, std::uint64_t seed) {
  ++verdict_->jobs;
  const Job job = client.jobs().find(id);
  if (!job.finished()) return;  // it was counted as hanging
  if (job.state != JobState::completed) {
    deviates(verdict_->lost, "job " + id + " is " + std::string(job_state_name(job.state)) + ": " + job.error);
  }
  // One, and another each time it was retried: then also for the subtrees that were open again.
  const std::uint32_t openings = 1 + job.retries;
  if (job_spans_[id] != openings) {
    deviates(verdict_->spans_missing, "job " + id + " has " + std::to_string(job_spans_[id]) + " job/ spans, not " +
                                          std::to_string(openings));
  }

  std::map<std::string, Expected> expected;
  expect(root_node(seed), true, expected);
  const std::vector<TaskInfo> tasks = client.jobs().tasks(id);
  verdict_->tasks += tasks.size();
  if (job.tasks != tasks.size() || job.tasks_done != tasks.size()) {
    deviates(verdict_->lost, "job " + id + " counts " + std::to_string(job.tasks_done) + " of " +
                                 std::to_string(job.tasks) + " tasks done, and has " + std::to_string(tasks.size()));
  }
  std::set<std::string> parents_of_run;  // with a subtask that was not skipped
  std::set<std::string> seen;
  for (const TaskInfo& task : tasks) {
    if (task.state != TaskState::skipped && !task.parent.empty()) parents_of_run.insert(task.parent);
    if (!seen.insert(task.display).second) {
      deviates(verdict_->double_done, "job " + id + " has two tasks " + task.display);
    }
  }
  for (const TaskInfo& task : tasks) {
    const std::string name = "task " + task.id + " (" + task.display + " of job " + id + ")";
    const auto node = expected.find(task.display);
    if (node == expected.end()) {
      deviates(verdict_->double_done, name + " was never submitted");
      continue;
    }
    const std::int64_t n = number(task.id);
    if (!is_computed(task.state)) {
      const bool over = task.state == TaskState::failed_optional || task.state == TaskState::skipped;
      if (node->second.computed || (!over && task.state != TaskState::canceled)) {
        deviates(verdict_->lost, name + " is " + std::string(task_state_name(task.state)));
      }
      if (commits_.contains(n)) deviates(verdict_->lost, name + ": its result was accepted, and is not there");
      continue;
    }
    // What counts is the attempt that holds the fence, and no other: the last one.
    const auto done = computed_.find({n, task.attempts});
    if (done == computed_.end() || done->second != node->second.seed) {
      deviates(verdict_->lost, name + ": attempt " + std::to_string(task.attempts) +
                                   " counts as computed, and did not do its work");
    }
    const std::uint32_t subtrees = subtree_spans_.contains(n) ? subtree_spans_.at(n) : 0;
    if (subtrees > openings || (subtrees == 0 && parents_of_run.contains(task.id))) {
      deviates(verdict_->spans_missing, name + " has " + std::to_string(subtrees) + " subtasks/ spans");
    }
  }
  for (const auto& [path, node] : expected) {
    if (node.computed && !seen.contains(path)) deviates(verdict_->lost, "job " + id + " has no task " + path);
  }
  judge_order(id, expected, tasks);
}

// The account is in the order in which things happened: what counts of a subtree was computed before anything that
// depends on it began.
void Judge::judge_order(const std::string& id, const std::map<std::string, Expected>& expected,
                        const std::vector<TaskInfo>& tasks) {
  std::map<std::string, std::size_t> last;  // by path: of the whole subtree
  for (const TaskInfo& task : tasks) {
    if (!is_computed(task.state)) continue;
    const auto done = computed_at_.find({number(task.id), task.attempts});
    if (done == computed_at_.end()) continue;
    for (std::string path = task.display;; path.resize(path.rfind('.'))) {
      last[path] = std::max(last[path], done->second);
      if (path.find('.') == std::string::npos) break;
    }
  }
  for (const TaskInfo& task : tasks) {
    const auto began = began_at_.find(number(task.id));
    const auto node = expected.find(task.display);
    if (began == began_at_.end() || node == expected.end()) continue;
    for (const std::string& path : node->second.after) {
      if (!last.contains(path) || last.at(path) < began->second) continue;
      deviates(verdict_->lost, "task " + task.id + " (" + task.display + " of job " + id + ") began before " + path +
                                   " was done, on which it depends");
    }
  }
}

}  // namespace waymark::chaos
