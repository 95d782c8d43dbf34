// Random steps on a store and on a model of it that fits on a page: after each, both say the same about every task and
// every job. The model knows tasks by their order, which is the store's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "runner/engines.h"
#include "runner/temporary_directory.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
using testing::Engine;
using testing::TestClock;

struct ModelTask {
  int job = 0;
  int parent = -1;
  std::set<int> after = {};  // siblings
  bool optional = false;
  std::uint32_t max_retries = 0;
  int priority = 0;
  TaskState state = TaskState::ready;
  std::uint32_t attempt = 0;
  std::uint32_t failures = 0;
  std::uint32_t lost = 0;
  bool lost_for_good = false;  // skipped, or stopped, by an optional failure
  bool cut = false;            // an optional one: it or something below failed
  Timestamp due = {};          // it starts no earlier
  int worker = -1;
};

struct ModelJob {
  std::string id;
  JobState state = JobState::submitted;
  bool failing = false;
  bool canceling = false;
  bool started = false;
};

// The rules, as docs/runner.md has them, without a thought for what they cost.
class Model {
 public:
  std::vector<ModelTask> tasks;
  std::vector<ModelJob> jobs;
  bool paused = false;

  static bool waits_or_ready(const ModelTask& t) {
    return t.state == TaskState::waiting || t.state == TaskState::ready || t.state == TaskState::scheduled;
  }
  std::vector<int> children(int task) const {
    std::vector<int> all;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      if (tasks[i].parent == task) all.push_back(static_cast<int>(i));
    }
    return all;
  }
  // Nothing below it, or it, can still happen.
  bool closed(int task) const {
    const ModelTask& t = at(task);
    if (waits_or_ready(t) || t.state == TaskState::running) return false;
    for (const int child : children(task)) {
      if (!closed(child)) return false;
    }
    return true;
  }
  // Everything that had to be done below it, and it, was.
  bool whole(int task) const {
    const ModelTask& t = at(task);
    if (t.state != TaskState::computed && t.state != TaskState::completed) return false;
    for (const int child : children(task)) {
      if (!at(child).cut && !whole(child)) return false;
    }
    return true;
  }
  int boundary(int task) const {
    for (; task >= 0; task = at(task).parent) {
      if (at(task).optional) return task;
    }
    return -1;
  }
  bool stopping(int task) const {
    const ModelJob& job = jobs[static_cast<std::size_t>(at(task).job)];
    return job.failing || job.canceling || is_cut(task);
  }
  bool is_cut(int task) const {
    for (; task >= 0; task = at(task).parent) {
      if (at(task).cut) return true;
    }
    return false;
  }
  const ModelTask& at(int task) const { return tasks[static_cast<std::size_t>(task)]; }
  ModelTask& at(int task) { return tasks[static_cast<std::size_t>(task)]; }

  void fail(int task) {
    const int b = boundary(task);
    at(task).state = b >= 0 ? TaskState::failed_optional : TaskState::failed;
    if (b < 0) {
      stop(at(task).job, true);
      return;
    }
    std::vector<bool> open;  // before anything is skipped
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      open.push_back(!waits_or_ready(tasks[i]) && !closed(static_cast<int>(i)));
    }
    at(b).cut = true;
    lose_below(b, open);
  }
  void lose_below(int task, const std::vector<bool>& open_below) {
    for (const int child : children(task)) {
      ModelTask& t = at(child);
      if (waits_or_ready(t)) t.state = TaskState::skipped;
      if (t.state == TaskState::skipped || t.state == TaskState::canceled) t.lost_for_good = true;
      if (t.optional && open_below[static_cast<std::size_t>(child)]) t.cut = true;
      lose_below(child, open_below);
    }
  }
  void stop(int job, bool failed) {
    ModelJob& j = jobs[static_cast<std::size_t>(job)];
    if (j.failing || j.canceling) return;
    (failed ? j.failing : j.canceling) = true;
    for (ModelTask& t : tasks) {
      if (t.job == job && waits_or_ready(t)) t.state = TaskState::skipped;
    }
  }
  void stopped(int task) {
    at(task).state = TaskState::canceled;
    at(task).lost_for_good = is_cut(task);
  }
  // What follows by itself.
  void settle(Timestamp now) {
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      ModelTask& t = tasks[i];
      if (t.state == TaskState::waiting &&
          std::all_of(t.after.begin(), t.after.end(), [&](int d) { return closed(d) && (whole(d) || at(d).cut); })) {
        t.state = t.due > now ? TaskState::scheduled : TaskState::ready;
      }
    }
    for (std::size_t i = tasks.size(); i-- > 0;) {
      const int task = static_cast<int>(i);
      if (tasks[i].state == TaskState::computed && closed(task) && whole(task)) tasks[i].state = TaskState::completed;
    }
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      ModelJob& job = jobs[j];
      if (job.state == JobState::completed || job.state == JobState::failed || job.state == JobState::canceled) continue;
      bool open = false, broken = false;
      for (const ModelTask& t : tasks) {
        if (t.job != static_cast<int>(j)) continue;
        open |= waits_or_ready(t) || t.state == TaskState::running;
        broken |= !t.lost_for_good && (t.state == TaskState::failed || t.state == TaskState::skipped ||
                                       t.state == TaskState::canceled);
      }
      if (open) continue;
      job.state = job.failing            ? JobState::failed
                  : job.canceling && broken ? JobState::canceled
                                            : JobState::completed;
    }
  }
  std::uint64_t retry(int number, Timestamp now) {
    ModelJob& job = jobs[static_cast<std::size_t>(number)];
    if (job.state != JobState::failed && job.state != JobState::canceled) return 0;
    std::uint64_t again = 0;
    for (ModelTask& t : tasks) {
      if (t.job != number || t.lost_for_good) continue;
      if (t.state != TaskState::failed && t.state != TaskState::skipped && t.state != TaskState::canceled) continue;
      t.state = TaskState::waiting;
      if (t.failures > 0 || t.due <= now) t.due = {};
      t.failures = t.lost = 0;
      ++again;
    }
    job.state = job.started ? JobState::running : JobState::submitted;
    job.failing = job.canceling = false;
    return again;
  }
};

// What the two say of a job, side by side.
std::string described(const Model& model, int job, const std::vector<TaskInfo>& tasks) {
  std::string text;
  for (const TaskInfo& task : tasks) {
    const ModelTask& t = model.at(static_cast<int>(std::stoll(task.id)) - 1);
    if (t.job != job) continue;
    text += task.id + " below " + task.parent + (t.optional ? " optional" : "") + (t.cut ? " cut" : "") + " after";
    for (const int after : t.after) text += " " + std::to_string(after + 1);
    text += ": store " + std::string(task_state_name(task.state)) + ", model " +
            std::string(task_state_name(t.state)) + (t.lost_for_good ? " for good" : "") + "\n";
  }
  return text;
}

class StoreModelTest : public ::testing::TestWithParam<Engine> {};

TEST_P(StoreModelTest, DoesWhatTheModelDoesWhateverTheOrder) {
  constexpr int kSeeds = 30;
  constexpr int kSteps = 250;
  const TaskName kind{"Task", "v0.0"};
  std::map<std::string, int> taken;  // steps, to see that none is missing
  for (int seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const testing::TemporaryDirectory directory;
    TestClock clock;
    const auto store = GetParam().open(directory.path(), [&] { return clock.now(); });
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    const auto chance = [&](int percent) { return static_cast<int>(random() % 100) < percent; };
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    constexpr std::uint32_t kMaxLost = 2;

    Model model;
    struct ModelWorker {
      WorkerId id;
      Timestamp lease;
    };
    std::vector<ModelWorker> workers;
    const auto join = [&] {
      workers.push_back({store->join({.runner = "r" + std::to_string(workers.size()),
                                      .name = {},
                                      .host = {},
                                      .tasks = {kind},
                                      .lease = 10s}),
                         clock.now() + 10s});
    };
    join();
    join();

    // The same tasks for both. A group is what one later task waits for.
    const auto make = [&](int job, int parent, std::size_t n) {
      NewTasks batch;
      const int first = static_cast<int>(model.tasks.size());
      std::vector<int> group_of(n, -1);
      for (std::size_t i = 0; i < n; ++i) {
        NewTask task;
        task.name = kind;
        task.max_retries = static_cast<std::uint32_t>(below(2));
        task.priority = static_cast<int>(below(3));
        ModelTask m{.job = job, .parent = parent, .max_retries = task.max_retries, .priority = task.priority};
        TaskSettings settings;
        m.optional = settings.optional = chance(25);
        if (chance(20)) {
          settings.delay = std::chrono::seconds(1 + below(4));
          if (chance(50)) settings.not_before = clock.now() + std::chrono::seconds(below(20));
          m.due = std::max(clock.now() + settings.delay, settings.not_before);
          m.state = TaskState::scheduled;
        }
        if (m.optional || m.due != Timestamp{}) task.settings = std::make_shared<const TaskSettings>(settings);
        // On one or more earlier tasks, and those that are in a group with them already.
        for (int sets = i > 0 && chance(35) ? 1 + static_cast<int>(below(3)) : 0; sets > 0; --sets) {
          const std::size_t on = below(i);
          if (group_of[on] < 0) {
            group_of[on] = static_cast<int>(batch.group_sizes.size());
            batch.group_sizes.push_back(0);
            for (std::size_t k = on; k <= on + 1 && k < i; ++k) {
              if (k != on && group_of[k] >= 0) continue;
              group_of[k] = group_of[on];
              batch.tasks[k].group = static_cast<std::uint32_t>(group_of[on]);
              ++batch.group_sizes.back();
            }
          }
          for (std::size_t k = 0; k < i; ++k) {
            if (group_of[k] == group_of[on]) m.after.insert(first + static_cast<int>(k));
          }
          const auto group = static_cast<std::uint32_t>(group_of[on]);
          if (std::find(task.after.begin(), task.after.end(), group) == task.after.end()) task.after.push_back(group);
          task.dependencies = static_cast<std::uint32_t>(m.after.size());
          m.state = TaskState::waiting;
        }
        batch.tasks.push_back(std::move(task));
        model.tasks.push_back(std::move(m));
      }
      return batch;
    };
    const auto number = [](const std::string& id) { return static_cast<int>(std::stoll(id)) - 1; };

    for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      const std::size_t what = below(100);
      const std::size_t w = below(workers.size());
      std::vector<int> running;
      for (std::size_t i = 0; i < model.tasks.size(); ++i) {
        if (model.tasks[i].state == TaskState::running && model.tasks[i].worker == static_cast<int>(w)) {
          running.push_back(static_cast<int>(i));
        }
      }
      if (what < 8) {
        ++taken["submit"];
        NewJob job;
        job.id = "job" + std::to_string(model.jobs.size());
        job.name = job.id;
        job.span.trace_id = TraceId::random();
        job.span.span_id = SpanId::random();
        model.jobs.push_back({.id = job.id});
        job.roots = make(static_cast<int>(model.jobs.size()) - 1, -1, 1 + below(3));
        store->submit(job);
      } else if (what < 35) {
        ++taken["claim"];
        const std::size_t want = 1 + below(3);
        const Exchanged e = store->exchange({.worker = workers[w].id, .want = want});
        for (ModelTask& t : model.tasks) {
          if (t.state == TaskState::scheduled && t.due <= clock.now()) t.state = TaskState::ready;
        }
        std::vector<int> ready;
        for (std::size_t i = 0; i < model.tasks.size() && !model.paused; ++i) {
          if (model.tasks[i].state == TaskState::ready) ready.push_back(static_cast<int>(i));
        }
        std::stable_sort(ready.begin(), ready.end(),
                         [&](int a, int b) { return model.at(a).priority > model.at(b).priority; });
        ready.resize(std::min(ready.size(), want));
        std::vector<int> claimed;
        for (const ClaimedTask& task : e.claimed) claimed.push_back(static_cast<int>(task.task) - 1);
        ASSERT_EQ(claimed, ready);
        for (std::size_t i = 0; i < claimed.size(); ++i) {
          ModelTask& t = model.at(claimed[i]);
          t.state = TaskState::running;
          t.worker = static_cast<int>(w);
          EXPECT_EQ(e.claimed[i].attempt, ++t.attempt);
          EXPECT_EQ(e.claimed[i].failures, t.failures);
          ModelJob& job = model.jobs[static_cast<std::size_t>(t.job)];
          if (job.state == JobState::submitted) job.state = JobState::running;
          job.started = true;
        }
      } else if (what < 75) {
        if (running.empty()) continue;
        const int task = running[below(running.size())];
        ModelTask& t = model.at(task);
        Finish f;
        f.task = task + 1;
        f.attempt = t.attempt;
        f.end = clock.now();
        const bool stopping = model.stopping(task);
        if (what < 60) {
          ++taken["compute"];
          const std::size_t children = chance(50) && model.tasks.size() < 300 ? 1 + below(4) : 0;
          const int first = static_cast<int>(model.tasks.size());
          const bool lost = model.is_cut(task);
          const int job = t.job;
          f.subtasks = make(job, task, children);
          model.at(task).state = children ? TaskState::computed : TaskState::completed;
          for (std::size_t i = 0; i < children && stopping; ++i) {
            model.at(first + static_cast<int>(i)).state = TaskState::skipped;
            model.at(first + static_cast<int>(i)).lost_for_good = lost;
          }
        } else if (what < 70) {
          ++taken["fail"];
          f.result = TaskResult::failed;
          f.error_type = "E";
          if (t.failures < t.max_retries) f.retry_after = chance(50) ? 0s : 3s;
          ++t.failures;
          if (f.retry_after && !stopping) {
            t.state = TaskState::scheduled;
            t.due = clock.now() + *f.retry_after;
          } else if (f.retry_after) {
            model.stopped(task);
          } else {
            model.fail(task);
          }
        } else {
          ++taken["release"];
          f.result = TaskResult::released;
          f.started = chance(50);
          t.attempt -= f.started ? 0 : 1;
          if (stopping) {
            model.stopped(task);
          } else {
            t.state = TaskState::ready;
          }
        }
        const std::vector<Finish> finishes = {f};
        EXPECT_THAT(store->exchange({.worker = workers[w].id, .finishes = finishes}).accepted,
                    ::testing::ElementsAre(true));
        EXPECT_THAT(store->exchange({.worker = workers[1 - w].id, .finishes = finishes}).accepted,
                    ::testing::ElementsAre(false))
            << "the other worker's word";
      } else if (what < 78) {
        if (model.jobs.empty()) continue;
        ++taken["cancel"];
        const std::size_t job = below(model.jobs.size());
        store->cancel(model.jobs[job].id);
        const JobState state = model.jobs[job].state;
        if (state == JobState::submitted || state == JobState::running) model.stop(static_cast<int>(job), false);
      } else if (what < 86) {
        if (model.jobs.empty()) continue;
        ++taken["retry"];
        const std::size_t job = below(model.jobs.size());
        EXPECT_EQ(store->retry(model.jobs[job].id), model.retry(static_cast<int>(job), clock.now()));
      } else if (what < 89) {
        ++taken["pause"];
        model.paused = !model.paused && chance(30);
        store->pause("default", model.paused);
      } else if (what < 96) {
        ++taken["wait"];
        clock.advance(1s);
        if (chance(80)) {
          for (ModelWorker& worker : workers) {
            ASSERT_TRUE(store->renew(worker.id));
            worker.lease = clock.now() + 10s;
          }
        }
      } else {
        // One of them dies, and the other takes what it had.
        ++taken["die"];
        clock.advance(11s);
        ASSERT_TRUE(store->renew(workers[1 - w].id));
        workers[1 - w].lease = clock.now() + 10s;
        (void)store->sweep(workers[1 - w].id, kMaxLost);
        for (const int task : running) {
          ModelTask& t = model.at(task);
          const bool too_often = ++t.lost >= kMaxLost;
          if (too_often) {
            model.fail(task);
          } else if (model.stopping(task)) {
            model.stopped(task);
          } else {
            t.state = TaskState::ready;
          }
        }
        EXPECT_FALSE(store->renew(workers[w].id));
        workers[w] = {store->join({.runner = "again", .name = {}, .host = {}, .tasks = {kind}, .lease = 10s}),
                      clock.now() + 10s};
      }
      model.settle(clock.now());

      for (std::size_t j = 0; j < model.jobs.size(); ++j) {
        const ModelJob& expected = model.jobs[j];
        const Job job = store->find(expected.id).value();
        ASSERT_EQ(job.state, expected.state) << expected.id;
        std::uint64_t done = 0, all = 0;
        for (const ModelTask& t : model.tasks) {
          if (t.job != static_cast<int>(j)) continue;
          ++all;
          done += !Model::waits_or_ready(t) && t.state != TaskState::running;
        }
        ASSERT_EQ(job.tasks, all) << expected.id;
        ASSERT_EQ(job.tasks_done, done) << expected.id;
        for (const TaskInfo& task : store->tasks(expected.id)) {
          const ModelTask& t = model.at(number(task.id));
          ASSERT_EQ(task_state_name(task.state), task_state_name(t.state))
              << expected.id << " task " << task.id << "\n"
              << described(model, static_cast<int>(j), store->tasks(expected.id));
          ASSERT_EQ(task.attempts, t.attempt) << task.id;
          ASSERT_EQ(task.failures, t.failures) << task.id;
          ASSERT_EQ(task.lost, t.lost) << task.id;
        }
      }
    }
    ASSERT_THAT(check_store(GetParam().place(directory.path())).problems, ::testing::IsEmpty());
    if (::testing::Test::HasFailure()) return;
  }
  for (const auto& [step, times] : taken) std::cout << step << "=" << times << " ";
  std::cout << "\n";
  EXPECT_EQ(taken.size(), 10u);
}

INSTANTIATE_TEST_SUITE_P(Engines, StoreModelTest, ::testing::ValuesIn(testing::engines()),
                         [](const auto& engine) { return engine.param.name; });

}  // namespace
}  // namespace waymark
