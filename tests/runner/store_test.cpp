// What every store does. Written against store.h only: another engine is another line at the bottom.
#include "waymark/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runner/engines.h"
#include "runner/temporary_directory.h"
#include "store/database.h"
#include "store/schema.h"
#include "store/sqlite.h"
#include "store/wake.h"
#include "waymark/error.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

const TaskName kRoot{"Root", "v0.0"};
const TaskName kChild{"Child", "v0.0"};

using testing::Engine;
using testing::TestClock;

class StoreTest : public ::testing::TestWithParam<Engine> {
 protected:
  StoreTest() : store_(open()) {}

  std::shared_ptr<Store> open() {
    return GetParam().open(directory_.path(), [this] { return clock_.now(); });
  }

  NewJob job(std::string name, std::uint32_t max_retries = 0) {
    NewJob j;
    j.id = "00000000-0000-7000-8000-" + std::to_string(100000000000 + ++jobs_);
    j.name = std::move(name);
    j.span.trace_id = TraceId::random();
    j.span.span_id = SpanId::random();
    j.span.flags = SpanContext::kSampled;
    NewTask root;
    root.name = kRoot;
    root.input = "{}";
    root.max_retries = max_retries;
    j.roots.tasks.push_back(root);
    return j;
  }

  static NewTask child(std::uint32_t group = NewTask::kNoGroup, std::vector<std::uint32_t> after = {},
                       std::uint32_t max_retries = 0) {
    NewTask task;
    task.name = kChild;
    task.group = group;
    task.dependencies = static_cast<std::uint32_t>(after.size());
    task.after = std::move(after);
    task.max_retries = max_retries;
    return task;
  }

  WorkerId join(Store& store, std::string runner = "runner", std::vector<TaskName> tasks = {kRoot, kChild}) {
    return store.join({.runner = std::move(runner),
                       .name = "test",
                       .host = "host",
                       .process_id = 1,
                       .tasks = std::move(tasks),
                       .lease = 10s});
  }

  Finish computed(const ClaimedTask& task, NewTasks subtasks = {}) {
    Finish f;
    f.task = task.task;
    f.attempt = task.attempt;
    f.end = clock_.now();
    f.subtasks = std::move(subtasks);
    return f;
  }

  Finish failed(const ClaimedTask& task, std::optional<std::chrono::nanoseconds> retry_after = {}) {
    Finish f;
    f.task = task.task;
    f.attempt = task.attempt;
    f.result = TaskResult::failed;
    f.end = clock_.now();
    f.error_type = "std::runtime_error";
    f.error = "no luck";
    f.retry_after = retry_after;
    return f;
  }

  Exchanged claim(WorkerId worker, std::size_t want = 100) {
    return store_->exchange({.worker = worker, .want = want});
  }
  Exchanged send(WorkerId worker, const std::vector<Finish>& finishes, std::size_t want = 100) {
    return store_->exchange({.worker = worker, .finishes = finishes, .want = want});
  }
  ClaimedTask claim_one(WorkerId worker) {
    Exchanged e = claim(worker, 1);
    EXPECT_THAT(e.claimed, SizeIs(1));
    return e.claimed.empty() ? ClaimedTask{} : std::move(e.claimed[0]);
  }
  TaskState state_of(const Job& j, std::int64_t task) {
    for (const TaskInfo& t : store_->tasks(j.id)) {
      if (t.id == std::to_string(task)) return t.state;
    }
    ADD_FAILURE() << "no task " << task;
    return TaskState::waiting;
  }
  JobState state_of(const Job& j) { return store_->find(j.id).value().state; }

  testing::TemporaryDirectory directory_;
  TestClock clock_;
  std::shared_ptr<Store> store_;
  int jobs_ = 0;
};

TEST_P(StoreTest, FindsWhatWasSubmitted) {
  NewJob j = job("scene");
  j.span.trace_state = TraceState::parse("a=b");
  const Job submitted = store_->submit(j);
  const Job found = store_->find(j.id).value();
  EXPECT_EQ(found.id, j.id);
  EXPECT_EQ(found.name, "scene");
  EXPECT_EQ(found.state, JobState::submitted);
  EXPECT_EQ(found.submitted_at, clock_.now());
  EXPECT_EQ(found.trace_id, j.span.trace_id);
  EXPECT_EQ(found.tasks, 1u);
  EXPECT_FALSE(found.finished());
  EXPECT_EQ(store_->find("nowhere"), std::nullopt);
}

TEST_P(StoreTest, HandsOutATaskOnceAndFinishesItsJob) {
  NewJob j = job("scene");
  j.span.trace_state = TraceState::parse("a=b");
  j.baggage = Baggage().set("tenant", "seven");
  const Job submitted = store_->submit(j);
  const WorkerId one = join(*store_), two = join(*store_);
  const ClaimedTask task = claim_one(one);
  EXPECT_THAT(claim(two).claimed, IsEmpty());
  EXPECT_EQ(task.attempt, 1u);
  EXPECT_EQ(task.parent, 0);
  EXPECT_EQ(task.parent_span, j.span.span_id);
  EXPECT_FALSE(task.previous_attempt.valid());
  EXPECT_TRUE(task.span.valid());
  EXPECT_EQ(task.input, "{}");
  EXPECT_EQ(task.job->name, "scene");
  EXPECT_EQ(task.job->span.trace_id, j.span.trace_id);
  EXPECT_EQ(task.job->span.trace_state.header(), "a=b");
  EXPECT_EQ(task.job->baggage.get("tenant"), "seven");
  EXPECT_EQ(state_of(submitted), JobState::running);
  clock_.advance(1s);
  const Exchanged e = send(one, {computed(task)});
  EXPECT_THAT(e.accepted, ElementsAre(true));
  ASSERT_THAT(e.closed, SizeIs(1));
  EXPECT_EQ(e.closed[0].task, 0);
  EXPECT_EQ(e.closed[0].span, j.span.span_id);
  EXPECT_EQ(e.closed[0].start, submitted.submitted_at);
  EXPECT_EQ(e.closed[0].end, clock_.now());
  EXPECT_EQ(e.closed[0].outcome, TaskState::completed);
  EXPECT_EQ(state_of(submitted), JobState::completed);
  EXPECT_TRUE(store_->find(j.id)->finished());
}

TEST_P(StoreTest, RefusesAFinishFromWhoeverDoesNotHoldTheAttempt) {
  store_->submit(job("scene"));
  const WorkerId one = join(*store_), two = join(*store_);
  const ClaimedTask task = claim_one(one);
  EXPECT_THAT(send(two, {computed(task)}).accepted, ElementsAre(false));
  Finish stale = computed(task);
  stale.attempt = 2;
  EXPECT_THAT(send(one, {stale}).accepted, ElementsAre(false));
  EXPECT_THAT(send(one, {computed(task)}).accepted, ElementsAre(true));
  EXPECT_THAT(send(one, {computed(task)}).accepted, ElementsAre(false));
}

// Results that come together are written together; what lies among them is not touched.
TEST_P(StoreTest, FinishesAndClaimsAmongNeighboursOnlyWhatIsMeant) {
  NewJob j = job("scene");
  j.roots.tasks.assign(9, j.roots.tasks[0]);
  for (const std::size_t first : {0, 2, 4, 8}) j.roots.tasks[first].priority = 1;
  const Job submitted = store_->submit(j);
  const WorkerId worker = join(*store_);
  const Exchanged high = claim(worker, 4);
  ASSERT_THAT(high.claimed, SizeIs(4));
  const std::int64_t first = high.claimed[0].task;
  const auto states = [&] {
    std::string text;
    for (const TaskInfo& task : store_->tasks(submitted.id)) text += std::to_string(static_cast<int>(task.state));
    return text;
  };
  EXPECT_EQ(high.claimed[3].task, first + 8);
  EXPECT_EQ(states(), "212121112");
  std::vector<Finish> ends = {computed(high.claimed[3]), computed(high.claimed[0]), computed(high.claimed[2])};
  ends[1].end += 5ns;
  ends[2].end += 7ns;
  EXPECT_THAT(send(worker, ends, 0).accepted, ElementsAre(true, true, true));
  EXPECT_EQ(states(), "412141114");
  EXPECT_EQ(store_->tasks(submitted.id)[0].ended_at, ends[1].end);
  EXPECT_EQ(store_->tasks(submitted.id)[4].ended_at, ends[2].end);
  EXPECT_EQ(store_->tasks(submitted.id)[2].ended_at, Timestamp{});
  EXPECT_EQ(store_->find(submitted.id)->tasks_done, 3u);
}

TEST_P(StoreTest, CountsAResultOnceThatIsToldTwiceAmongOthers) {
  NewJob j = job("scene");
  j.roots.tasks.assign(3, j.roots.tasks[0]);
  const Job submitted = store_->submit(j);
  const WorkerId worker = join(*store_);
  const Exchanged all = claim(worker);
  ASSERT_THAT(all.claimed, SizeIs(3));
  const Finish one = computed(all.claimed[0]), two = computed(all.claimed[1]);
  EXPECT_THAT(send(worker, {one, two, one}).accepted, ElementsAre(true, true, true));
  EXPECT_EQ(store_->find(submitted.id)->tasks_done, 2u);
  EXPECT_EQ(state_of(submitted), JobState::running);
  EXPECT_THAT(send(worker, {computed(all.claimed[2])}).closed, SizeIs(1));
  EXPECT_EQ(state_of(submitted), JobState::completed);
}

TEST_P(StoreTest, WritesSubtasksWithTheirParentsSuccessOnly) {
  const Job j = store_->submit(job("scene", 1));
  const WorkerId worker = join(*store_);
  const ClaimedTask first = claim_one(worker);
  Finish f = failed(first, 0ns);
  f.subtasks.tasks.push_back(child());
  EXPECT_THAT(send(worker, {f}, 0).accepted, ElementsAre(true));
  EXPECT_THAT(store_->tasks(j.id), SizeIs(1));
  const ClaimedTask second = claim_one(worker);
  EXPECT_EQ(second.attempt, 2u);
  EXPECT_EQ(second.failures, 1u);
  EXPECT_EQ(second.previous_attempt, first.span);
  clock_.advance(1s);
  const Timestamp end = clock_.now();
  const Exchanged e = send(worker, {computed(second, {{child(), child()}, {}})});
  ASSERT_THAT(e.claimed, SizeIs(2));
  EXPECT_THAT(e.closed, IsEmpty());
  EXPECT_EQ(e.claimed[0].parent, second.task);
  EXPECT_EQ(e.claimed[0].not_before, end);
  EXPECT_EQ(e.claimed[0].parent_span, e.claimed[1].parent_span);
  EXPECT_NE(e.claimed[0].parent_span, second.span);
  EXPECT_EQ(state_of(j, second.task), TaskState::computed);

  clock_.advance(1s);
  const Exchanged one = send(worker, {computed(e.claimed[1])});
  EXPECT_THAT(one.closed, IsEmpty());
  clock_.advance(1s);
  const Exchanged other = send(worker, {computed(e.claimed[0])});
  ASSERT_THAT(other.closed, SizeIs(2));
  EXPECT_EQ(other.closed[0].task, second.task);
  EXPECT_EQ(other.closed[0].span, e.claimed[0].parent_span);
  EXPECT_EQ(other.closed[0].parent, second.parent_span);
  EXPECT_EQ(other.closed[0].start, end);
  EXPECT_EQ(other.closed[0].end, clock_.now());
  EXPECT_EQ(other.closed[0].tasks, 2u);
  EXPECT_EQ(other.closed[1].task, 0);
  EXPECT_EQ(other.closed[1].tasks, 3u);
  EXPECT_EQ(state_of(j, second.task), TaskState::completed);
  EXPECT_EQ(state_of(j), JobState::completed);
  EXPECT_EQ(store_->find(j.id)->tasks_done, 3u);
}

TEST_P(StoreTest, HoldsADependantUntilWholeSubtreesAreDone) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  // Two members of group 0, and one that waits for both.
  const Exchanged e = send(worker, {computed(root, {{child(0), child(0), child(NewTask::kNoGroup, {0})}, {2}})});
  ASSERT_THAT(e.claimed, SizeIs(2));
  EXPECT_THAT(send(worker, {computed(e.claimed[0])}).claimed, IsEmpty());
  clock_.advance(1s);
  // The second has a subtask of its own: the dependant waits for that, too.
  const Exchanged grandchild = send(worker, {computed(e.claimed[1], {{child()}, {}})});
  ASSERT_THAT(grandchild.claimed, SizeIs(1));
  EXPECT_FALSE(store_->idle(worker));
  clock_.advance(1s);
  const Exchanged dependant = send(worker, {computed(grandchild.claimed[0])});
  ASSERT_THAT(dependant.claimed, SizeIs(1));
  EXPECT_EQ(dependant.claimed[0].parent, root.task);
  EXPECT_EQ(dependant.claimed[0].last_dependency, grandchild.claimed[0].parent_span)
      << "the subtasks/ span, as it has one";
  EXPECT_EQ(dependant.claimed[0].dependency_wait, 2s);
  EXPECT_EQ(dependant.claimed[0].queue_wait, 0s);
  EXPECT_THAT(dependant.closed, SizeIs(1));
  EXPECT_THAT(send(worker, {computed(dependant.claimed[0])}).closed, SizeIs(2));
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, NamesTheDependencyThatEndedLast) {
  store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  // Groups 0 and 1 of one member each; the third task waits for both.
  const Exchanged e = send(worker, {computed(root, {{child(0), child(1), child(NewTask::kNoGroup, {0, 1})}, {1, 1}})});
  ASSERT_THAT(e.claimed, SizeIs(2));
  clock_.advance(1s);
  Finish early = computed(e.claimed[1]);
  clock_.advance(1s);
  const Finish late = computed(e.claimed[0]);
  // Reported the other way round, in two batches.
  EXPECT_THAT(send(worker, {late}).claimed, IsEmpty());
  const Exchanged last = send(worker, {early});
  ASSERT_THAT(last.claimed, SizeIs(1));
  EXPECT_EQ(last.claimed[0].last_dependency, e.claimed[0].span);
  EXPECT_EQ(last.claimed[0].dependencies, 2u);
}

TEST_P(StoreTest, WaitsBeforeTheNextAttempt) {
  const Job j = store_->submit(job("scene", 3));
  const WorkerId worker = join(*store_);
  const ClaimedTask task = claim_one(worker);
  const Exchanged e = send(worker, {failed(task, 5s)});
  EXPECT_THAT(e.claimed, IsEmpty());
  EXPECT_EQ(e.due, 5s);
  EXPECT_EQ(state_of(j, task.task), TaskState::scheduled);
  EXPECT_FALSE(store_->idle(worker));
  clock_.advance(4s);
  EXPECT_EQ(claim(worker).due, 1s);
  clock_.advance(1s);
  EXPECT_EQ(claim_one(worker).attempt, 2u);
  EXPECT_THAT(store_->tasks(j.id)[0].error, "no luck");
}

TEST_P(StoreTest, FailsTheJobAndSkipsTheRest) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged e =
      send(worker, {computed(root, {{child(0), child(), child(), child(NewTask::kNoGroup, {0})}, {1}})}, 2);
  ASSERT_THAT(e.claimed, SizeIs(2));
  clock_.advance(1s);
  // One fails for good while another runs: the third, ready, and the fourth, waiting, never start.
  const Exchanged after = send(worker, {failed(e.claimed[0])});
  EXPECT_THAT(after.claimed, IsEmpty());
  EXPECT_THAT(after.closed, IsEmpty());
  EXPECT_THAT(after.stopping, ElementsAre(e.claimed[1].task));
  EXPECT_EQ(state_of(j), JobState::running) << "until the last of its tasks has ended";
  clock_.advance(1s);
  // What that one still wanted to submit never starts, either.
  const Exchanged last = send(worker, {computed(e.claimed[1], {{child()}, {}})});
  ASSERT_THAT(last.closed, SizeIs(2));
  EXPECT_EQ(last.closed[0].outcome, TaskState::failed);
  EXPECT_EQ(last.closed[1].outcome, TaskState::failed);
  EXPECT_EQ(last.closed[1].error_type, "std::runtime_error");
  EXPECT_EQ(last.closed[1].end, clock_.now());
  const Job found = store_->find(j.id).value();
  EXPECT_EQ(found.state, JobState::failed);
  EXPECT_EQ(found.error, "no luck");
  EXPECT_EQ(found.failed_task, std::to_string(e.claimed[0].task));
  EXPECT_EQ(found.tasks, 6u);
  EXPECT_EQ(found.tasks_done, 6u);
  std::vector<TaskState> states;
  for (const TaskInfo& t : store_->tasks(j.id)) states.push_back(t.state);
  EXPECT_THAT(states, ElementsAre(TaskState::computed, TaskState::failed, TaskState::computed, TaskState::skipped,
                                  TaskState::skipped, TaskState::skipped));
  EXPECT_TRUE(store_->idle(worker));
}

TEST_P(StoreTest, ClosesEverySubtreeOfAFailedJobOnce) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged e = send(worker, {computed(root, {{child(), child()}, {}})});
  // The first computes and has children that nobody claims; the second fails.
  send(worker, {computed(e.claimed[0], {{child(), child()}, {}})}, 0);
  const Exchanged after = send(worker, {failed(e.claimed[1])});
  ASSERT_THAT(after.closed, SizeIs(3));
  EXPECT_EQ(after.closed[0].task, e.claimed[0].task);
  EXPECT_EQ(after.closed[0].outcome, TaskState::canceled);
  EXPECT_EQ(after.closed[1].task, root.task);
  EXPECT_EQ(after.closed[1].outcome, TaskState::failed);
  EXPECT_EQ(after.closed[2].task, 0);
  EXPECT_EQ(state_of(j), JobState::failed);
}

TEST_P(StoreTest, DoesNotRetryInAFailedJob) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged e = send(worker, {computed(root, {{child(), child(NewTask::kNoGroup, {}, 5)}, {}})});
  send(worker, {failed(e.claimed[0])});
  EXPECT_EQ(state_of(j), JobState::running);
  const Exchanged last = send(worker, {failed(e.claimed[1], 1s)});
  EXPECT_EQ(last.due, std::nullopt);
  EXPECT_EQ(state_of(j), JobState::failed);
}

TEST_P(StoreTest, GivesBackWhatARunnerDidNotStart) {
  store_->submit(job("scene"));
  const WorkerId worker = join(*store_), other = join(*store_);
  const ClaimedTask task = claim_one(worker);
  Finish back = computed(task);
  back.result = TaskResult::released;
  back.started = false;
  EXPECT_THAT(send(worker, {back}, 0).accepted, ElementsAre(true));
  const ClaimedTask again = claim_one(other);
  EXPECT_EQ(again.attempt, 1u);
  EXPECT_FALSE(again.previous_attempt.valid());
  store_->leave(other);
  EXPECT_EQ(claim_one(worker).attempt, 1u);
}

TEST_P(StoreTest, CountsAnAttemptThatWasStoppedButNotAsAFailure) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask task = claim_one(worker);
  Finish back = computed(task);
  back.result = TaskResult::released;
  EXPECT_THAT(send(worker, {back}, 0).accepted, ElementsAre(true));
  const ClaimedTask again = claim_one(worker);
  EXPECT_EQ(again.attempt, 2u);
  EXPECT_EQ(again.failures, 0u);
  EXPECT_EQ(again.previous_attempt, task.span);
}

TEST_P(StoreTest, KeepsALeaseWhileItIsRenewed) {
  store_->submit(job("scene"));
  const WorkerId worker = join(*store_), other = join(*store_);
  const ClaimedTask task = claim_one(worker);
  clock_.advance(9s);
  EXPECT_EQ(store_->renew(worker), clock_.now() + 10s);
  EXPECT_EQ(store_->renew(other), clock_.now() + 10s);
  clock_.advance(9s);
  EXPECT_EQ(store_->sweep(other, 3).tasks, 0u);
  EXPECT_THAT(send(worker, {computed(task)}).accepted, ElementsAre(true));
}

TEST_P(StoreTest, TakesTheTasksOfARunnerWhoseLeaseEnded) {
  const Job j = store_->submit(job("scene"));
  const WorkerId dead = join(*store_, "dead"), alive = join(*store_, "alive");
  const ClaimedTask lost = claim_one(dead);
  const Timestamp deadline = clock_.now() + 10s;
  clock_.advance(5s);
  ASSERT_TRUE(store_->renew(alive));
  clock_.advance(6s);
  EXPECT_EQ(store_->sweep(dead, 3).tasks, 0u) << "whoever sweeps lives";
  const Released released = store_->sweep(alive, 3);
  EXPECT_EQ(released.tasks, 1u);
  EXPECT_EQ(store_->renew(dead), std::nullopt);
  const ClaimedTask again = claim_one(alive);
  EXPECT_EQ(again.attempt, 2u);
  EXPECT_EQ(again.lost, 1u);
  EXPECT_EQ(again.failures, 0u);
  EXPECT_EQ(again.previous_attempt, lost.span);
  const Exchanged zombie = send(dead, {computed(lost, {{child()}, {}})});
  EXPECT_TRUE(zombie.lease_lost);
  EXPECT_THAT(zombie.accepted, ElementsAre(false));
  EXPECT_THAT(zombie.claimed, IsEmpty());
  // Its end was before the lost attempt's, by a clock that runs backwards: the job still encloses both.
  Finish f = computed(again);
  f.end = deadline - 5s;
  const Exchanged e = send(alive, {f});
  ASSERT_THAT(e.closed, SizeIs(1));
  EXPECT_GE(e.closed[0].end, f.end);
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, TakesTheTasksOfTheDeadAlsoWhereTheClockWasSetBack) {
  store_->submit(job("scene"));
  const WorkerId dead = join(*store_, "dead");
  const ClaimedTask task = claim_one(dead);
  clock_.advance(-1h);
  const WorkerId worker = join(*store_, "alive");
  EXPECT_EQ(store_->sweep(worker, 3).tasks, 0u) << "it may live";
  clock_.advance(9s);
  EXPECT_EQ(store_->sweep(worker, 3).tasks, 0u);
  ASSERT_TRUE(store_->renew(worker));
  clock_.advance(2s);
  EXPECT_EQ(store_->sweep(worker, 3).tasks, 1u) << "a lease after the clock was set back";
  EXPECT_EQ(claim_one(worker).task, task.task);
}

TEST_P(StoreTest, FailsATaskThatWasLostTooOften) {
  const Job j = store_->submit(job("scene", 5));
  const WorkerId alive = join(*store_, "alive", {});
  for (int i = 1; i <= 3; ++i) {
    const WorkerId worker = join(*store_, "dead");
    EXPECT_EQ(claim_one(worker).attempt, static_cast<std::uint32_t>(i));
    clock_.advance(9s);
    ASSERT_TRUE(store_->renew(alive));
    clock_.advance(2s);
    const Released released = store_->sweep(alive, 3);
    EXPECT_EQ(released.failed, i == 3 ? 1u : 0u);
    EXPECT_THAT(released.spans, SizeIs(i == 3 ? 1 : 0));
  }
  const Job found = store_->find(j.id).value();
  EXPECT_EQ(found.state, JobState::failed);
  EXPECT_EQ(found.error_type, "runner_lost");
  EXPECT_THAT(found.error, HasSubstr("3 times"));
  const auto tasks = store_->tasks(j.id);
  EXPECT_EQ(tasks[0].state, TaskState::failed);
  EXPECT_EQ(tasks[0].lost, 3u);
  EXPECT_EQ(tasks[0].failures, 0u);
}

TEST_P(StoreTest, ReleasesADeadRunnerAtOnceAndChargesTheGuiltyOnly) {
  const Job j = store_->submit(job("scene"));
  const WorkerId dead = join(*store_, "dead"), alive = join(*store_, "alive");
  const ClaimedTask root = claim_one(dead);
  const Exchanged e = send(dead, {computed(root, {{child(), child(), child()}, {}})});
  ASSERT_THAT(e.claimed, SizeIs(3));
  clock_.advance(1s);
  // The first had crashed it, the second ran beside it, the third had not started.
  const std::vector<LostAttempt> lost = {{e.claimed[0].task, clock_.now(), true},
                                         {e.claimed[1].task, clock_.now(), false}};
  EXPECT_EQ(store_->release(alive, "dead", lost, 3).tasks, 3u);
  EXPECT_EQ(store_->release(alive, "dead", lost, 3).tasks, 0u);
  const Exchanged again = claim(alive);
  ASSERT_THAT(again.claimed, SizeIs(3));
  EXPECT_EQ(again.claimed[0].lost, 1u);
  EXPECT_EQ(again.claimed[0].attempt, 2u);
  EXPECT_EQ(again.claimed[1].lost, 0u);
  EXPECT_EQ(again.claimed[1].attempt, 2u);
  EXPECT_EQ(again.claimed[1].previous_attempt, e.claimed[1].span);
  EXPECT_EQ(again.claimed[2].lost, 0u);
  EXPECT_EQ(again.claimed[2].attempt, 1u);
  EXPECT_FALSE(again.claimed[2].previous_attempt.valid());
}

TEST_P(StoreTest, KeepsEnclosingSpansUntilTheyAreRecorded) {
  store_->submit(job("scene"));
  const WorkerId dead = join(*store_, "dead"), alive = join(*store_, "alive");
  const Exchanged e = send(dead, {computed(claim_one(dead))});
  ASSERT_THAT(e.closed, SizeIs(1));
  EXPECT_THAT(store_->sweep(alive, 3).spans, IsEmpty()) << "it is still going to record it";
  clock_.advance(5s);
  ASSERT_TRUE(store_->renew(alive));
  clock_.advance(6s);
  const Released released = store_->sweep(alive, 3);
  ASSERT_THAT(released.spans, SizeIs(1));
  EXPECT_EQ(released.spans[0].id, e.closed[0].id);
  EXPECT_EQ(released.spans[0].span, e.closed[0].span);
  EXPECT_EQ(released.spans[0].end, e.closed[0].end);
  const std::vector<std::int64_t> recorded = {released.spans[0].id};
  EXPECT_FALSE(store_->exchange({.worker = alive, .recorded = recorded}).lease_lost);
  store_->leave(alive);
  EXPECT_THAT(store_->sweep(join(*store_), 3).spans, IsEmpty());
}

TEST_P(StoreTest, LeavesNoSpanWhereTheJobIsNotSampled) {
  NewJob j = job("scene");
  j.span.flags = 0;
  store_->submit(j);
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  EXPECT_FALSE(root.job->span.sampled());
  EXPECT_THAT(send(worker, {computed(root)}).closed, IsEmpty());
}

TEST_P(StoreTest, GivesTasksToRunnersThatKnowThem) {
  NewJob j = job("scene");
  j.roots.tasks[0].name = {"Root", "v1.2"};
  const Job submitted = store_->submit(j);
  EXPECT_THAT(claim(join(*store_, "a", {{"Other", "v1.2"}})).claimed, IsEmpty());
  EXPECT_THAT(claim(join(*store_, "b", {{"Root", "v1.1"}})).claimed, IsEmpty());
  EXPECT_THAT(claim(join(*store_, "c", {{"Root", "v2.2"}})).claimed, IsEmpty());
  const Exchanged e = claim(join(*store_, "d", {{"Root", "v1.9"}, {"Root", "v1.3"}}));
  ASSERT_THAT(e.claimed, SizeIs(1));
  EXPECT_EQ(e.claimed[0].type, 1u) << "the nearest version that fits";
}

TEST_P(StoreTest, GivesTheHigherPriorityFirstAndThenTheOlder) {
  std::vector<std::string> names;
  for (const int priority : {0, 5, 0, -1, 5}) {
    NewJob j = job(std::to_string(names.size()));
    j.roots.tasks[0].priority = priority;
    j.roots.tasks[0].name = names.size() % 2 ? kChild : kRoot;
    names.push_back(j.name);
    store_->submit(j);
  }
  std::vector<std::string> order;
  for (const ClaimedTask& task : claim(join(*store_)).claimed) order.push_back(task.job->name);
  EXPECT_THAT(order, ElementsAre("1", "4", "0", "2", "3"));
}

TEST_P(StoreTest, ForgetsTheProgressOfAnAttemptThatWasGivenBack) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  Finish back = computed(claim_one(worker));
  back.result = TaskResult::released;
  const std::vector<ProgressReport> progress = {
      {.task = back.task, .attempt = back.attempt, .label = "tiles", .done = 3, .total = 5}};
  (void)store_->exchange({.worker = worker, .progress = progress});
  EXPECT_THAT(store_->find(j.id)->progress, SizeIs(1));
  send(worker, {back}, 0);
  EXPECT_THAT(store_->find(j.id)->progress, IsEmpty());
}

TEST_P(StoreTest, SumsProgressOverTasksAndForgetsFailedAttempts) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const Exchanged e = send(worker, {computed(claim_one(worker), {{child(), child(NewTask::kNoGroup, {}, 1)}, {}})});
  const std::vector<ProgressReport> reports = {{e.claimed[0].task, 1, "tiles", 2, 4},
                                               {e.claimed[1].task, 1, "tiles", 1, 3},
                                               {e.claimed[1].task, 1, "", 1, 1},
                                               {e.claimed[1].task, 9, "old", 1, 1}};
  (void)store_->exchange({.worker = worker, .progress = reports});
  EXPECT_THAT(store_->find(j.id)->progress, ElementsAre(ProgressCount{"", 1, 1}, ProgressCount{"tiles", 3, 7}));
  send(worker, {failed(e.claimed[1], 1s)});
  EXPECT_THAT(store_->find(j.id)->progress, ElementsAre(ProgressCount{"tiles", 2, 4}));
}

TEST_P(StoreTest, IsIdleWhenNothingThatCanRunIsLeft) {
  const WorkerId worker = join(*store_, "mine", {kRoot, kChild});
  EXPECT_TRUE(store_->idle(worker));
  store_->submit(job("scene"));
  EXPECT_FALSE(store_->idle(worker));
  const ClaimedTask root = claim_one(worker);
  EXPECT_FALSE(store_->idle(worker)) << "it runs";
  NewTasks subtasks{{child(0), child(NewTask::kNoGroup, {0})}, {1}};
  subtasks.tasks[0].name = {"Foreign", "v0.0"};
  send(worker, {computed(root, subtasks)});
  EXPECT_TRUE(store_->idle(worker)) << "what its task waits for is nobody's";
  const WorkerId other = join(*store_, "other", {{"Foreign", "v0.0"}});
  EXPECT_FALSE(store_->idle(worker)) << "somebody will run it";
  const ClaimedTask foreign = claim_one(other);
  EXPECT_FALSE(store_->idle(worker)) << "somebody runs it";
  send(other, {computed(foreign)});
  EXPECT_FALSE(store_->idle(worker)) << "it is ready";
}

TEST_P(StoreTest, IsTheSameForWhoeverElseOpensIt) {
  const Job j = store_->submit(job("scene"));
  const auto other = open();
  EXPECT_EQ(other->find(j.id)->name, "scene");
  const WorkerId worker = join(*other);
  Exchanged e = other->exchange({.worker = worker, .want = 1});
  ASSERT_THAT(e.claimed, SizeIs(1));
  EXPECT_THAT(claim(join(*store_)).claimed, IsEmpty());
  const std::vector<Finish> finishes = {computed(e.claimed[0])};
  EXPECT_THAT(other->exchange({.worker = worker, .finishes = finishes}).accepted, ElementsAre(true));
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, TellsWatchersHereAndElsewhere) {
  std::mutex mutex;
  std::condition_variable told;
  int here = 0, elsewhere = 0;
  const auto count = [&](int& counter) {
    return [&] {
      const std::scoped_lock lock(mutex);
      ++counter;
      told.notify_all();
    };
  };
  const auto other = open();
  auto one = store_->watch(count(here));
  auto two = other->watch(count(elsewhere));
  store_->submit(job("scene"));
  std::unique_lock lock(mutex);
  EXPECT_TRUE(told.wait_for(lock, 10s, [&] { return here > 0 && elsewhere > 0; }));
  lock.unlock();
  one.reset();
  two.reset();
}

TEST_P(StoreTest, KeepsItsCountsUnderManyThreads) {
  constexpr int kThreads = 4, kJobs = 50, kChildren = 6;
  std::atomic<int> done{0};
  std::vector<Job> jobs;
  for (int i = 0; i < kJobs; ++i) jobs.push_back(store_->submit(job("job", 1)));
  std::vector<std::thread> threads;
  std::mutex spans_mutex;
  std::map<std::string, int> spans;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t, store = t % 2 ? open() : store_] {
      const WorkerId worker =
          store->join({.runner = std::to_string(t), .name = {}, .host = {}, .tasks = {kRoot, kChild}});
      std::vector<Finish> finishes;
      while (done < kJobs * (2 * kChildren + 1) || !finishes.empty()) {
        Exchanged e = store->exchange({.worker = worker, .finishes = finishes, .want = 5});
        done += static_cast<int>(std::count(e.accepted.begin(), e.accepted.end(), true));
        for (const EnclosingSpan& span : e.closed) {
          const std::scoped_lock lock(spans_mutex);
          ++spans[span.span.hex()];
        }
        finishes.clear();
        for (const ClaimedTask& task : e.claimed) {
          if (task.type == 1) {
            finishes.push_back(computed(task));
            continue;
          }
          NewTasks children;
          children.group_sizes = {kChildren};
          for (int i = 0; i < kChildren; ++i) children.tasks.push_back(child(0));
          for (int i = 0; i < kChildren; ++i) children.tasks.push_back(child(NewTask::kNoGroup, {0}));
          finishes.push_back(computed(task, std::move(children)));
        }
      }
      store->leave(worker);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(done, kJobs * (2 * kChildren + 1));
  EXPECT_EQ(spans.size(), 2u * kJobs);
  for (const auto& [id, times] : spans) EXPECT_EQ(times, 1) << id;
  for (const Job& j : jobs) EXPECT_EQ(state_of(j), JobState::completed);
}

// ------ stopping and retrying jobs

TEST_P(StoreTest, CancelsAJobAtOnceWhereNothingRuns) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  store_->cancel(j.id);
  const Job found = store_->find(j.id).value();
  EXPECT_EQ(found.state, JobState::canceled);
  EXPECT_TRUE(found.finished());
  EXPECT_EQ(found.tasks_done, 1u);
  EXPECT_THAT(claim(worker).claimed, IsEmpty());
  const Released left = store_->sweep(worker, 3);
  ASSERT_THAT(left.spans, SizeIs(1)) << "a runner records its span";
  EXPECT_EQ(left.spans[0].outcome, TaskState::canceled);
  store_->cancel(j.id);
  store_->cancel("nowhere");
  EXPECT_EQ(store_->find(j.id)->finished_at, found.finished_at);
}

TEST_P(StoreTest, CancelsARunningJobWhenItsTasksHaveStopped) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged e = send(worker, {computed(root, {{child(), child()}, {}})}, 1);
  ASSERT_THAT(e.claimed, SizeIs(1));
  store_->cancel(j.id);
  EXPECT_EQ(state_of(j), JobState::running);
  EXPECT_THAT(claim(worker).stopping, ElementsAre(e.claimed[0].task));
  Finish stopped = computed(e.claimed[0]);
  stopped.result = TaskResult::released;
  EXPECT_THAT(send(worker, {stopped}).closed, SizeIs(2));
  EXPECT_EQ(state_of(j), JobState::canceled);
  EXPECT_EQ(state_of(j, e.claimed[0].task), TaskState::canceled);
}

TEST_P(StoreTest, CallsAJobCompletedThatWasDoneBeforeItCouldBeStopped) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  store_->cancel(j.id);
  send(worker, {computed(root)});
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, RetriesWhatFailedAndKeepsWhatWasComputed) {
  const NewJob submitted = job("scene");
  const Job j = store_->submit(submitted);
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  // Two members of a group, and one that waits for both.
  const Exchanged e = send(worker, {computed(root, {{child(0), child(0), child(NewTask::kNoGroup, {0})}, {2}})});
  ASSERT_THAT(e.claimed, SizeIs(2));
  clock_.advance(1s);
  const Exchanged failed_job = send(worker, {computed(e.claimed[0]), failed(e.claimed[1])});
  EXPECT_THAT(failed_job.closed, SizeIs(2));
  EXPECT_EQ(state_of(j), JobState::failed);
  clock_.advance(1h);
  const Timestamp retried_at = clock_.now();
  EXPECT_EQ(store_->retry(j.id), 2u);
  EXPECT_EQ(store_->retry(j.id), 0u) << "it is under way";
  Job again = store_->find(j.id).value();
  EXPECT_EQ(again.state, JobState::running);
  EXPECT_FALSE(again.finished());
  EXPECT_EQ(again.error, "");
  EXPECT_EQ(again.failed_task, "");
  EXPECT_EQ(again.retries, 1u);
  EXPECT_EQ(again.tasks_done, 2u);
  const ClaimedTask second = claim_one(worker);
  EXPECT_EQ(second.task, e.claimed[1].task);
  EXPECT_EQ(second.attempt, 2u);
  EXPECT_EQ(second.failures, 0u);
  EXPECT_EQ(second.previous_attempt, e.claimed[1].span);
  EXPECT_EQ(second.not_before, retried_at);
  EXPECT_NE(second.parent_span, e.claimed[1].parent_span) << "the old subtasks/ span is over";
  clock_.advance(1s);
  const Exchanged last = send(worker, {computed(second)});
  ASSERT_THAT(last.claimed, SizeIs(1)) << "what was skipped, once all it waits for is done";
  EXPECT_EQ(last.claimed[0].parent_span, second.parent_span);
  const Exchanged end = send(worker, {computed(last.claimed[0])});
  ASSERT_THAT(end.closed, SizeIs(2));
  EXPECT_EQ(end.closed[0].span, second.parent_span);
  EXPECT_EQ(end.closed[0].start, retried_at);
  EXPECT_EQ(end.closed[0].outcome, TaskState::completed);
  EXPECT_EQ(end.closed[1].task, 0);
  EXPECT_NE(end.closed[1].span, submitted.span.span_id);
  EXPECT_EQ(end.closed[0].parent, end.closed[1].span);
  EXPECT_EQ(end.closed[1].first, submitted.span.span_id);
  EXPECT_EQ(end.closed[1].start, retried_at);
  EXPECT_FALSE(end.closed[1].parent.valid());
  again = store_->find(j.id).value();
  EXPECT_EQ(again.state, JobState::completed);
  EXPECT_EQ(again.tasks_done, 4u);
  EXPECT_EQ(store_->retry(j.id), 0u);
  EXPECT_EQ(store_->retry("nowhere"), 0u);
}

TEST_P(StoreTest, RunsSubtasksThatAStoppedJobHadNotStarted) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  store_->cancel(j.id);
  send(worker, {computed(root, {{child(0), child(NewTask::kNoGroup, {0})}, {1}})});
  EXPECT_EQ(state_of(j), JobState::canceled);
  EXPECT_EQ(store_->find(j.id)->tasks_done, 3u);
  EXPECT_EQ(store_->retry(j.id), 2u);
  const ClaimedTask first = claim_one(worker);
  EXPECT_THAT(claim(worker).claimed, IsEmpty());
  const Exchanged e = send(worker, {computed(first)});
  ASSERT_THAT(e.claimed, SizeIs(1));
  EXPECT_THAT(send(worker, {computed(e.claimed[0])}).closed, SizeIs(2));
  EXPECT_EQ(state_of(j), JobState::completed);
  EXPECT_EQ(state_of(j, root.task), TaskState::completed);
}

TEST_P(StoreTest, ARetryStartsNothingBeforeItsTime) {
  NewJob later = job("later");
  later.roots.tasks[0].settings = std::make_shared<const TaskSettings>(TaskSettings{.not_before = clock_.now() + 1h});
  const Job j = store_->submit(later);
  const WorkerId worker = join(*store_);
  store_->cancel(j.id);
  EXPECT_EQ(store_->retry(j.id), 1u);
  const Exchanged early = claim(worker);
  EXPECT_THAT(early.claimed, IsEmpty());
  EXPECT_EQ(early.due, 1h);
  EXPECT_EQ(store_->tasks(j.id)[0].state, TaskState::scheduled);
  clock_.advance(1h);
  const ClaimedTask root = claim_one(worker);
  // Of two subtasks one fails; the other was to start later, and so it does.
  NewTask delayed = child(NewTask::kNoGroup, {0});
  delayed.settings = std::make_shared<const TaskSettings>(TaskSettings{.delay = 5h});
  ASSERT_TRUE(store_->renew(worker));
  const Exchanged e = send(worker, {computed(root, {{child(0), delayed, child()}, {1}})});
  ASSERT_THAT(e.claimed, SizeIs(2));
  send(worker, {computed(e.claimed[0]), failed(e.claimed[1])});
  EXPECT_EQ(state_of(j), JobState::failed);
  EXPECT_EQ(store_->retry(j.id), 2u);
  EXPECT_EQ(claim_one(worker).task, e.claimed[1].task);
  EXPECT_EQ(claim(worker).due, 5h);
  EXPECT_THAT(claim(worker).claimed, IsEmpty());
}

TEST_P(StoreTest, ARetryForgetsTheWaitBeforeTheNextAttempt) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  send(worker, {failed(claim_one(worker), 1h)}, 0);
  store_->cancel(j.id);
  EXPECT_EQ(store_->retry(j.id), 1u);
  EXPECT_EQ(claim_one(worker).attempt, 2u);
}

TEST_P(StoreTest, AJobThatWasRetriedBeforeItEverRanHasItsStart) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  store_->cancel(j.id);
  EXPECT_EQ(store_->retry(j.id), 1u);
  EXPECT_EQ(state_of(j), JobState::submitted) << "nothing of it has started";
  clock_.advance(1s);
  const Timestamp started = clock_.now();
  const ClaimedTask root = claim_one(worker);
  EXPECT_EQ(state_of(j), JobState::running);
  EXPECT_EQ(store_->find(j.id)->started_at, started);
  send(worker, {failed(root)});
  EXPECT_EQ(store_->retry(j.id), 1u);
  EXPECT_EQ(state_of(j), JobState::running);
  clock_.advance(1s);
  (void)claim_one(worker);
  EXPECT_EQ(store_->find(j.id)->started_at, started);
}

TEST_P(StoreTest, CountsNoAttemptThatNobodyBeganWhereItsJobIsStopped) {
  const NewJob submitted = job("scene");
  const Job j = store_->submit(submitted);
  const WorkerId worker = join(*store_, "one"), other = join(*store_, "two");
  const ClaimedTask root = claim_one(worker);
  const Exchanged mine = send(worker, {computed(root, {{child(), child(), child()}, {}})}, 1);
  ASSERT_THAT(mine.claimed, SizeIs(1));
  const ClaimedTask others = claim_one(other);
  const ClaimedTask left = claim_one(other);
  store_->cancel(j.id);
  Finish back = computed(mine.claimed[0]);
  back.result = TaskResult::released;
  back.started = false;
  EXPECT_THAT(send(worker, {back}, 0).accepted, ElementsAre(true));
  // A runner that died before it began with them.
  (void)store_->release(worker, "two", {}, 3);
  EXPECT_EQ(state_of(j), JobState::canceled);
  for (const std::int64_t id : {mine.claimed[0].task, others.task, left.task}) {
    for (const TaskInfo& task : store_->tasks(j.id)) {
      if (task.id != std::to_string(id)) continue;
      EXPECT_EQ(task.state, TaskState::canceled);
      EXPECT_EQ(task.attempts, 0u);
      EXPECT_EQ(task.started_at, Timestamp{});
      EXPECT_EQ(task.ended_at, Timestamp{});
    }
  }
  EXPECT_EQ(store_->retry(j.id), 3u);
  for (const ClaimedTask& task : claim(worker).claimed) {
    EXPECT_EQ(task.attempt, 1u);
    EXPECT_FALSE(task.previous_attempt.valid()) << "there is no such span";
  }
}

TEST_P(StoreTest, RecordsAJobOfNoTasks) {
  NewJob none = job("none");
  none.roots.tasks.clear();
  const Job j = store_->submit(none);
  EXPECT_EQ(j.state, JobState::completed);
  EXPECT_EQ(state_of(j), JobState::completed);
  const Released left = store_->sweep(join(*store_), 3);
  ASSERT_THAT(left.spans, SizeIs(1)) << "a runner records its span";
  EXPECT_EQ(left.spans[0].span, none.span.span_id);
  EXPECT_EQ(left.spans[0].outcome, TaskState::completed);
}

// ------ optional subtrees

NewTask optional(NewTask task) {
  task.settings = std::make_shared<const TaskSettings>(TaskSettings{.optional = true});
  return task;
}

TEST_P(StoreTest, GoesOnWithoutAnOptionalTask) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged e = send(worker, {computed(root, {{optional(child(0)), child(NewTask::kNoGroup, {0})}, {1}})});
  ASSERT_THAT(e.claimed, SizeIs(1));
  const Exchanged after = send(worker, {failed(e.claimed[0])});
  EXPECT_EQ(state_of(j, e.claimed[0].task), TaskState::failed_optional);
  ASSERT_THAT(after.claimed, SizeIs(1)) << "what waits for it runs";
  const Exchanged end = send(worker, {computed(after.claimed[0])});
  ASSERT_THAT(end.closed, SizeIs(2));
  EXPECT_EQ(end.closed[0].outcome, TaskState::completed);
  EXPECT_EQ(state_of(j), JobState::completed);
  EXPECT_EQ(state_of(j, root.task), TaskState::completed);
}

TEST_P(StoreTest, SkipsTheRestOfAnOptionalSubtreeOnly) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged e = send(worker, {computed(root, {{optional(child(0)), child(NewTask::kNoGroup, {0})}, {1}})});
  // Below the optional one: one that fails, one that runs, one that waits for both, one nobody has claimed yet.
  const Exchanged below = send(
      worker,
      {computed(e.claimed[0], {{child(0), child(0), child(NewTask::kNoGroup, {0}), optional(child())}, {2}})}, 2);
  ASSERT_THAT(below.claimed, SizeIs(2));
  clock_.advance(1s);
  const Exchanged after = send(worker, {failed(below.claimed[0])});
  EXPECT_THAT(after.claimed, IsEmpty());
  EXPECT_EQ(state_of(j), JobState::running);
  // The other's retry and subtasks are not: the subtree is lost.
  clock_.advance(1s);
  const Exchanged late = send(worker, {computed(below.claimed[1], {{child()}, {}})});
  ASSERT_THAT(late.closed, SizeIs(1));
  EXPECT_EQ(late.closed[0].task, e.claimed[0].task);
  EXPECT_EQ(late.closed[0].outcome, TaskState::failed);
  ASSERT_THAT(late.claimed, SizeIs(1));
  EXPECT_THAT(send(worker, {computed(late.claimed[0])}).closed, SizeIs(2));
  std::vector<TaskState> states;
  for (const TaskInfo& t : store_->tasks(j.id)) states.push_back(t.state);
  EXPECT_THAT(states, ElementsAre(TaskState::completed, TaskState::computed, TaskState::completed,
                                  TaskState::failed_optional, TaskState::computed, TaskState::skipped,
                                  TaskState::skipped, TaskState::skipped));
  const Job found = store_->find(j.id).value();
  EXPECT_EQ(found.state, JobState::completed);
  EXPECT_EQ(found.tasks, 8u);
  EXPECT_EQ(found.tasks_done, 8u);
}

TEST_P(StoreTest, KeepsAFailureWithinTheNearestOptionalSubtree) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged outer = send(worker, {computed(root, {{optional(child())}, {}})});
  const Exchanged inner = send(worker, {computed(outer.claimed[0], {{optional(child()), child()}, {}})});
  ASSERT_THAT(inner.claimed, SizeIs(2));
  const Exchanged leaf = send(worker, {computed(inner.claimed[0], {{child(NewTask::kNoGroup, {}, 3)}, {}})});
  ASSERT_THAT(leaf.claimed, SizeIs(1));
  send(worker, {failed(leaf.claimed[0])});
  EXPECT_EQ(state_of(j, leaf.claimed[0].task), TaskState::failed_optional);
  EXPECT_EQ(state_of(j, inner.claimed[1].task), TaskState::running) << "it is of the outer one";
  send(worker, {computed(inner.claimed[1])});
  EXPECT_EQ(state_of(j, outer.claimed[0].task), TaskState::completed);
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, AnAttemptThatCouldBeTriedAgainIsCanceledWithItsJobAndRunsWithItsRetry) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const Exchanged e = send(worker, {computed(claim_one(worker), {{optional(child(NewTask::kNoGroup, {}, 3))}, {}})});
  ASSERT_THAT(e.claimed, SizeIs(1));
  store_->cancel(j.id);
  (void)send(worker, {failed(e.claimed[0], 1s)});
  EXPECT_EQ(state_of(j, e.claimed[0].task), TaskState::canceled) << "the optional subtree is not lost";
  EXPECT_EQ(store_->tasks(j.id).at(1).failures, 1u);
  EXPECT_EQ(store_->tasks(j.id).at(1).error, "no luck");
  EXPECT_EQ(state_of(j), JobState::canceled);
  EXPECT_EQ(store_->retry(j.id), 1u);
  const ClaimedTask again = claim_one(worker);
  EXPECT_EQ(again.attempt, 2u);
  (void)send(worker, {computed(again)});
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, LeavesLostOptionalSubtreesAloneWhenAJobIsRetried) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  const Exchanged e = send(worker, {computed(root, {{optional(child()), child()}, {}})});
  const Exchanged below = send(worker, {computed(e.claimed[0], {{child(), child()}, {}})}, 1);
  send(worker, {failed(below.claimed[0]), failed(e.claimed[1])}, 0);
  EXPECT_EQ(state_of(j), JobState::failed);
  EXPECT_EQ(store_->retry(j.id), 1u);
  EXPECT_EQ(claim_one(worker).task, e.claimed[1].task);
  EXPECT_THAT(claim(worker).claimed, IsEmpty());
}

TEST_P(StoreTest, FailsAnOptionalTaskThatWasLostTooOften) {
  const Job j = store_->submit(job("scene"));
  const WorkerId alive = join(*store_, "alive", {});
  const WorkerId dead = join(*store_, "dead");
  const ClaimedTask root = claim_one(dead);
  ASSERT_THAT(send(dead, {computed(root, {{optional(child())}, {}})}).claimed, SizeIs(1));
  clock_.advance(9s);
  ASSERT_TRUE(store_->renew(alive));
  clock_.advance(2s);
  EXPECT_EQ(store_->sweep(alive, 1).failed, 1u);
  EXPECT_EQ(state_of(j), JobState::completed);
}

// ------ when tasks may start

TEST_P(StoreTest, StartsDelayedTasksWhenTheyAreDue) {
  NewJob delayed = job("delayed");
  delayed.roots.tasks[0].settings = std::make_shared<const TaskSettings>(TaskSettings{.delay = 5s});
  const Job j = store_->submit(delayed);
  NewJob later = job("later");
  later.roots.tasks[0].settings =
      std::make_shared<const TaskSettings>(TaskSettings{.not_before = clock_.now() + 7s});
  store_->submit(later);
  const WorkerId worker = join(*store_);
  const Exchanged e = claim(worker);
  EXPECT_THAT(e.claimed, IsEmpty());
  EXPECT_EQ(e.due, 5s);
  EXPECT_FALSE(store_->idle(worker));
  EXPECT_EQ(store_->tasks(j.id)[0].state, TaskState::scheduled);
  EXPECT_EQ(store_->tasks(j.id)[0].due_at, clock_.now() + 5s);
  clock_.advance(5s);
  EXPECT_EQ(claim_one(worker).job->name, "delayed");
  clock_.advance(2s);
  EXPECT_EQ(claim_one(worker).job->name, "later");
}

TEST_P(StoreTest, HoldsADelayedDependantUntilBothAreOver) {
  store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const ClaimedTask root = claim_one(worker);
  NewTask delayed = child(NewTask::kNoGroup, {0});
  delayed.settings = std::make_shared<const TaskSettings>(TaskSettings{.delay = 5s});
  const Exchanged e = send(worker, {computed(root, {{child(0), delayed}, {1}})});
  clock_.advance(1s);
  const Exchanged after = send(worker, {computed(e.claimed[0])});
  EXPECT_THAT(after.claimed, IsEmpty());
  EXPECT_EQ(after.due, 4s);
  clock_.advance(4s);
  EXPECT_THAT(claim(worker).claimed, SizeIs(1));
}

TEST_P(StoreTest, HandsOutNothingOfAPausedCluster) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  store_->pause("default", true);
  EXPECT_THAT(claim(worker).claimed, IsEmpty());
  EXPECT_FALSE(store_->idle(worker)) << "it may be resumed";
  ASSERT_THAT(store_->clusters(), SizeIs(1));
  EXPECT_TRUE(store_->clusters()[0].paused);
  store_->pause("default", false);
  const ClaimedTask root = claim_one(worker);
  store_->pause("default", true);
  EXPECT_THAT(send(worker, {computed(root)}).accepted, ElementsAre(true)) << "what runs goes on";
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, RunsATaskInTheClusterThatItNames) {
  store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const WorkerId other = store_->join({.runner = "other", .name = {}, .host = {}, .cluster = "gpu", .tasks = {kChild}});
  NewTask there = child(0);
  there.settings = std::make_shared<const TaskSettings>(TaskSettings{.cluster = "gpu"});
  const Exchanged e = send(worker, {computed(claim_one(worker), {{there, child(NewTask::kNoGroup, {0})}, {1}})});
  EXPECT_THAT(e.claimed, IsEmpty());
  const Exchanged gpu = claim(other);
  ASSERT_THAT(gpu.claimed, SizeIs(1));
  EXPECT_THAT(send(other, {computed(gpu.claimed[0])}).claimed, IsEmpty());
  EXPECT_THAT(claim(worker).claimed, SizeIs(1)) << "dependencies cross clusters";
}

TEST_P(StoreTest, LimitsHowManyTasksOfANameRunOverAllRunners) {
  store_->limit({.task = "Root", .max_running = 3});
  for (int i = 0; i < 5; ++i) store_->submit(job("scene"));
  const auto other = open();
  const WorkerId one = join(*store_), two = join(*other);
  const Exchanged e = claim(one, 2);
  ASSERT_THAT(e.claimed, SizeIs(2));
  EXPECT_THAT(other->exchange({.worker = two, .want = 10}).claimed, SizeIs(1));
  EXPECT_THAT(claim(one).claimed, IsEmpty());
  EXPECT_FALSE(store_->idle(one));
  EXPECT_THAT(send(one, {computed(e.claimed[0])}).claimed, SizeIs(1)) << "the place of the one that ended";
  store_->limit({.task = "Root"});
  EXPECT_THAT(store_->limits(), IsEmpty());
  EXPECT_THAT(other->exchange({.worker = two, .want = 10}).claimed, SizeIs(1)) << "the limit is gone for everybody";
}

TEST_P(StoreTest, LimitsTheTasksOfEachKeyByThemselves) {
  store_->limit({.key = "*", .max_running = 1});
  store_->limit({.key = "b", .max_running = 2});
  const auto keyed = [&](std::string key, int priority) {
    NewJob j = job(key);
    j.roots.tasks[0].priority = priority;
    j.roots.tasks[0].settings = std::make_shared<const TaskSettings>(TaskSettings{.limit_key = std::move(key)});
    store_->submit(j);
  };
  for (const char* key : {"a", "a", "b", "b", "c"}) keyed(key, key[0] == 'c' ? 5 : 0);
  store_->submit(job("free"));
  const WorkerId worker = join(*store_);
  const Exchanged e = claim(worker);
  std::vector<std::string> names;
  for (const ClaimedTask& task : e.claimed) names.push_back(task.job->name);
  EXPECT_THAT(names, ElementsAre("c", "a", "b", "free")) << "all limits that fit a task hold";
  EXPECT_THAT(claim(worker).claimed, IsEmpty());
  const Exchanged next = send(worker, {computed(e.claimed[1])});
  ASSERT_THAT(next.claimed, SizeIs(1));
  EXPECT_EQ(next.claimed[0].job->name, "a");
}

TEST_P(StoreTest, TakesKeysInTurnWhereThereAreVeryMany) {
  store_->limit({.key = "*", .max_running = 1});
  NewJob many = job("many");
  many.roots.tasks.clear();
  for (int i = 0; i < 1000; ++i) {
    NewTask task;
    task.name = kRoot;
    task.settings = std::make_shared<const TaskSettings>(TaskSettings{.limit_key = "key" + std::to_string(i / 2)});
    many.roots.tasks.push_back(std::move(task));
  }
  const Job j = store_->submit(many);
  const WorkerId worker = join(*store_);
  std::vector<Finish> finishes;
  std::size_t done = 0;
  for (int round = 0; round < 10'000 && done < 1000; ++round) {
    const Exchanged e = send(worker, finishes, 7);
    done += finishes.size();
    finishes.clear();
    for (const ClaimedTask& task : e.claimed) finishes.push_back(computed(task));
  }
  EXPECT_EQ(done, 1000u);
  EXPECT_EQ(state_of(j), JobState::completed);
}

TEST_P(StoreTest, LimitsHowManyTasksStartInAPeriod) {
  store_->limit({.task = "Root", .rate = 2, .per = 10s});
  for (int i = 0; i < 5; ++i) store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  const Exchanged e = claim(worker);
  EXPECT_THAT(e.claimed, SizeIs(2));
  ASSERT_TRUE(e.due);
  EXPECT_NEAR(static_cast<double>(e.due->count()), 5e9, 1e3) << "two in ten seconds: one in five";
  clock_.advance(4s);
  EXPECT_THAT(claim(worker).claimed, IsEmpty());
  clock_.advance(2s);
  ASSERT_TRUE(store_->renew(worker));
  EXPECT_THAT(claim(worker).claimed, SizeIs(1));
  clock_.advance(100s);
  const WorkerId fresh = join(*store_);
  EXPECT_THAT(claim(fresh).claimed, SizeIs(2)) << "what was not used is not saved beyond one period";
}

TEST_P(StoreTest, ARateGoesOnWhenTheClockWasSetBack) {
  store_->limit({.task = "Root", .rate = 1, .per = 10s});
  for (int i = 0; i < 3; ++i) store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  (void)claim_one(worker);
  clock_.advance(-1h);
  const Exchanged held = claim(worker);
  EXPECT_THAT(held.claimed, IsEmpty());
  ASSERT_TRUE(held.due);
  EXPECT_LE(*held.due, 11s);
  clock_.advance(11s);
  EXPECT_THAT(claim(worker).claimed, SizeIs(1)) << "not only when the clock has caught up";
}

TEST_P(StoreTest, WaitsWhereEveryOneOfVeryManyKeysIsAtItsLimit) {
  store_->limit({.key = "*", .rate = 1, .per = 1min});
  NewJob many = job("many");
  many.roots.tasks.clear();
  for (int i = 0; i < 1200; ++i) {
    NewTask task;
    task.name = kRoot;
    task.settings = std::make_shared<const TaskSettings>(TaskSettings{.limit_key = "key" + std::to_string(i / 2)});
    many.roots.tasks.push_back(std::move(task));
  }
  store_->submit(many);
  const auto other = open();
  const WorkerId worker = join(*store_), others = join(*other);
  std::size_t claimed = 0;
  Exchanged last;
  for (int look = 0; look < 20; ++look) {
    last = claim(worker, 1000);
    claimed += last.claimed.size();
    if (look == 0) clock_.advance(5s);  // so that the first keys are free again first
  }
  EXPECT_EQ(claimed, 600u);
  EXPECT_THAT(last.claimed, IsEmpty());
  ASSERT_TRUE(last.due);
  EXPECT_GT(*last.due, 50s) << "until a key is free";
  EXPECT_LE(*last.due, 55s + 1us);
  // One more key: others have changed something, so all are looked at again.
  NewJob more = job("more");
  more.roots.tasks[0].settings = std::make_shared<const TaskSettings>(TaskSettings{.limit_key = "key3a"});
  other->submit(more);
  std::size_t found = 0;
  for (int look = 0; look < 20 && found == 0; ++look) found = claim(worker, 1000).claimed.size();
  EXPECT_EQ(found, 1u);
  clock_.advance(55s);
  ASSERT_TRUE(store_->renew(worker));
  for (int look = 0; look < 20; ++look) found += claim(worker, 1000).claimed.size();
  EXPECT_GT(found, 200u) << "those that are free again";
  (void)others;
}

TEST_P(StoreTest, RefusesALimitWithoutAPeriod) {
  EXPECT_THROW(store_->limit({.task = "Root", .rate = 2, .per = 0s}), Error);
}

// ------ what a task brings along

TEST_P(StoreTest, CarriesATasksSettingsToItsRunner) {
  const RetryConfig backoff{.initial = 3s, .maximum = 4s, .multiplier = 1.5, .jitter = 0.25};
  NewJob j = job("scene");
  j.roots.tasks[0].settings = std::make_shared<const TaskSettings>(
      TaskSettings{.optional = false, .backoff = backoff, .timeout = 7s, .display = "the scene of today"});
  const Job submitted = store_->submit(j);
  store_->submit(job("plain"));
  const WorkerId worker = join(*store_);
  const Exchanged e = claim(worker);
  ASSERT_THAT(e.claimed, SizeIs(2));
  EXPECT_EQ(e.claimed[0].timeout, 7s);
  ASSERT_TRUE(e.claimed[0].backoff);
  EXPECT_EQ(e.claimed[0].backoff->initial, 3s);
  EXPECT_EQ(e.claimed[0].backoff->maximum, 4s);
  EXPECT_EQ(e.claimed[0].backoff->multiplier, 1.5);
  EXPECT_EQ(e.claimed[0].backoff->jitter, 0.25);
  EXPECT_EQ(e.claimed[1].timeout, 0s);
  EXPECT_FALSE(e.claimed[1].backoff);
  EXPECT_EQ(store_->tasks(submitted.id)[0].display, "the scene of today");
  store_->display(worker, e.claimed[0].task, 1, "half done");
  store_->display(worker, e.claimed[0].task, 9, "of another attempt");
  EXPECT_EQ(store_->tasks(submitted.id)[0].display, "half done");
}

TEST_P(StoreTest, SubmitsAKeyOnce) {
  NewJob one = job("one"), two = job("two"), other = job("other");
  one.key = two.key = "today";
  other.key = "tomorrow";
  EXPECT_EQ(store_->submit(one).id, one.id);
  EXPECT_EQ(store_->submit(two).id, one.id);
  EXPECT_EQ(store_->submit(other).id, other.id);
  const WorkerId worker = join(*store_);
  const Exchanged e = claim(worker);
  ASSERT_THAT(e.claimed, SizeIs(2));
  send(worker, {computed(e.claimed[0])});
  const Job same = store_->submit(two);
  EXPECT_EQ(same.id, one.id) << "also when it is finished";
  EXPECT_EQ(same.state, JobState::completed);
  EXPECT_EQ(same.key, "today");
  EXPECT_EQ(store_->find(two.id), std::nullopt);
}

TEST_P(StoreTest, KeepsStepsForLaterAttempts) {
  store_->submit(job("scene", 3));
  const WorkerId worker = join(*store_);
  const ClaimedTask first = claim_one(worker);
  EXPECT_EQ(store_->find_step(first.task, "download"), std::nullopt);
  EXPECT_TRUE(store_->keep_step(worker, first.task, first.attempt, "download", "[1,2]"));
  EXPECT_FALSE(store_->keep_step(worker, first.task, 2, "unpack", "7"));
  EXPECT_FALSE(store_->keep_step(join(*store_), first.task, first.attempt, "unpack", "7"));
  send(worker, {failed(first, 0ns)});
  EXPECT_FALSE(store_->keep_step(worker, first.task, first.attempt, "unpack", "7")) << "that attempt is over";
  EXPECT_EQ(store_->find_step(first.task, "download"), "[1,2]");
  EXPECT_EQ(store_->find_step(first.task, "unpack"), std::nullopt);
}

TEST_P(StoreTest, KeepsBytesByPathAndKeyWithinAJob) {
  store_->submit(job("one"));
  store_->submit(job("two"));
  const Exchanged e = claim(join(*store_));
  const std::int64_t one = e.claimed[0].job->number, two = e.claimed[1].job->number;
  const std::string bytes("\0a\xff\0", 4);
  store_->cache(one, "", "key", bytes);
  store_->cache(one, "a/b", "key", "other");
  store_->cache(one, "a/b", "another", "");
  EXPECT_EQ(store_->cached(one, "", "key"), bytes);
  EXPECT_EQ(store_->cached(one, "a/b", "key"), "other");
  EXPECT_EQ(store_->cached(one, "a/b", "another"), "");
  EXPECT_EQ(store_->cached(one, "a", "key"), std::nullopt);
  EXPECT_EQ(store_->cached(two, "", "key"), std::nullopt);
  EXPECT_THAT(store_->cached_keys(one, "a/b"), ElementsAre("another", "key"));
  store_->cache(one, "a/b", "key", "new");
  EXPECT_EQ(store_->cached(one, "a/b", "key"), "new");
  store_->cache(one, "a/b", "key", std::nullopt);
  EXPECT_THAT(store_->cached_keys(one, "a/b"), ElementsAre("another"));
}

// ------ many jobs

TEST_P(StoreTest, ListsJobsNewestFirstInPages) {
  std::vector<std::string> ids;
  for (int i = 0; i < 7; ++i) {
    if (i % 2) clock_.advance(1s);  // some at the same instant
    ids.push_back(store_->submit(job("job")).id);
  }
  std::reverse(ids.begin(), ids.end());
  std::vector<std::string> found;
  JobFilter filter{.limit = 3};
  std::vector<std::size_t> sizes;
  do {
    const JobPage page = store_->query(filter);
    sizes.push_back(page.jobs.size());
    for (const Job& j : page.jobs) found.push_back(j.id);
    filter.cursor = page.next;
    store_->submit(job("newer"));  // what comes meanwhile moves nothing
  } while (!filter.cursor.empty());
  EXPECT_EQ(found, ids);
  EXPECT_THAT(sizes, ElementsAre(3, 3, 1));
}

TEST_P(StoreTest, ListsTheJobsThatFitEveryWord) {
  const Timestamp start = clock_.now();
  store_->submit(job("Scene S2A"));
  clock_.advance(1s);
  NewJob elsewhere = job("scene s2b");
  elsewhere.cluster = "gpu";
  store_->submit(elsewhere);
  clock_.advance(1s);
  const Job done = store_->submit(job("mosaic"));
  store_->cancel(done.id);
  const auto names = [&](const JobFilter& filter) {
    std::vector<std::string> list;
    for (const Job& j : store_->query(filter).jobs) list.push_back(j.name);
    return list;
  };
  EXPECT_THAT(names({}), ElementsAre("mosaic", "scene s2b", "Scene S2A"));
  EXPECT_THAT(names({.name = "SCENE"}), ElementsAre("scene s2b", "Scene S2A"));
  EXPECT_THAT(names({.states = {JobState::canceled, JobState::failed}}), ElementsAre("mosaic"));
  EXPECT_THAT(names({.cluster = "gpu"}), ElementsAre("scene s2b"));
  EXPECT_THAT(names({.cluster = "nowhere"}), IsEmpty());
  EXPECT_THAT(names({.submitted_after = start + 1s, .submitted_before = start + 2s}), ElementsAre("scene s2b"));
  EXPECT_THAT(names({.name = "scene", .cluster = "default"}), ElementsAre("Scene S2A"));
  EXPECT_EQ(store_->query({}).jobs[1].cluster, "gpu");
}

TEST_P(StoreTest, RefusesAPageThatIsNone) {
  for (const char* cursor : {"x", "1", "1.", ".1", "1.2.3", "1.2 "}) {
    EXPECT_THROW((void)store_->query({.cursor = cursor}), Error) << cursor;
  }
  EXPECT_THROW((void)store_->query({.limit = 0}), Error);
  EXPECT_THROW((void)store_->query({.limit = 10'001}), Error);
}

TEST_P(StoreTest, RemovesOldFinishedJobsInSmallSteps) {
  const WorkerId worker = join(*store_, "runner");
  const auto run = [&](const Job& j) {
    const ClaimedTask root = claim_one(worker);
    NewTasks children{{}, {5}};
    for (int i = 0; i < 5; ++i) children.tasks.push_back(child(0));
    children.tasks.push_back(child(NewTask::kNoGroup, {0}));
    store_->cache(root.job->number, "", "key", "value");
    EXPECT_TRUE(store_->keep_step(worker, root.task, 1, "step", "1"));
    std::vector<Finish> finishes = {computed(root, children)};
    std::vector<std::int64_t> recorded;
    while (!finishes.empty() || !recorded.empty()) {
      const Exchanged e =
          store_->exchange({.worker = worker, .finishes = finishes, .recorded = recorded, .want = 10});
      finishes.clear();
      recorded.clear();
      for (const ClaimedTask& task : e.claimed) finishes.push_back(computed(task));
      for (const EnclosingSpan& span : e.closed) recorded.push_back(span.id);
    }
    EXPECT_EQ(state_of(j), JobState::completed);
  };
  NewJob keyed = job("old");
  keyed.key = "key";
  const Job old = store_->submit(keyed);
  run(old);
  clock_.advance(5s);
  ASSERT_TRUE(store_->renew(worker));
  const Job recent = store_->submit(job("recent"));
  run(recent);
  const Job open = store_->submit(job("open"));
  clock_.advance(5s);
  ASSERT_TRUE(store_->renew(worker));
  EXPECT_THAT(store_->prune({}, 100).jobs, IsEmpty());
  EXPECT_THAT(store_->prune({.age = 11s}, 100).jobs, IsEmpty());
  std::vector<std::string> removed;
  int steps = 0;
  for (bool more = true; more && steps < 100; ++steps) {
    const Pruned pruned = store_->prune({.age = 7s}, 3);
    EXPECT_EQ(store_->find(old.id), std::nullopt) << "from the first step on";
    removed.insert(removed.end(), pruned.jobs.begin(), pruned.jobs.end());
    more = pruned.more;
  }
  EXPECT_GT(steps, 2);
  EXPECT_THAT(removed, ElementsAre(old.id));
  EXPECT_THAT(store_->tasks(old.id), IsEmpty());
  EXPECT_THAT(store_->tasks(recent.id), SizeIs(7));
  EXPECT_NE(store_->submit(keyed).id, "") << "its key is free again";
  removed = store_->prune({.jobs = 1}, 1000).jobs;
  EXPECT_THAT(removed, IsEmpty()) << "one finished job may stay";
  EXPECT_EQ(state_of(open), JobState::submitted);
}

// ------ for those who look

TEST_P(StoreTest, FindsJobsByTheBeginningOfTheirIds) {
  const Job first = store_->submit(job("one"));
  const Job second = store_->submit(job("two"));
  EXPECT_THAT(store_->query({.id = second.id}).jobs, SizeIs(1));
  EXPECT_THAT(store_->query({.id = first.id.substr(0, 9)}).jobs, SizeIs(2));
  EXPECT_THAT(store_->query({.id = "1"}).jobs, IsEmpty());
  EXPECT_THAT(store_->query({.id = "%"}).jobs, IsEmpty()) << "no pattern";
}

TEST_P(StoreTest, TellsWhichGroupsATaskWaitsFor) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  send(worker, {computed(claim_one(worker), {{child(0), child(0), child(1), child(NewTask::kNoGroup, {0, 1})}, {2, 1}})}, 0);
  const std::vector<TaskInfo> tasks = store_->tasks(j.id);
  ASSERT_THAT(tasks, SizeIs(5));
  EXPECT_EQ(tasks[0].group, "");
  EXPECT_EQ(tasks[1].group, tasks[2].group);
  EXPECT_NE(tasks[1].group, tasks[3].group);
  EXPECT_THAT(tasks[1].after, IsEmpty());
  EXPECT_THAT(tasks[4].after, UnorderedElementsAre(tasks[1].group, tasks[3].group));
}

TEST_P(StoreTest, ListsItsWorkersAndWhatTheyDo) {
  const Job j = store_->submit(job("scene"));
  const WorkerId worker = join(*store_, "a");
  join(*store_, "b", {kChild});
  const ClaimedTask root = claim_one(worker);
  clock_.advance(4s);
  std::vector<WorkerInfo> workers = store_->workers();
  ASSERT_THAT(workers, SizeIs(2));
  EXPECT_EQ(workers[0].runner, "a");
  EXPECT_EQ(workers[0].name, "test");
  EXPECT_EQ(workers[0].host, "host");
  EXPECT_EQ(workers[0].process_id, 1u);
  EXPECT_EQ(workers[0].cluster, "default");
  EXPECT_THAT(workers[0].tasks, UnorderedElementsAre(kRoot, kChild));
  EXPECT_EQ(workers[0].lease, 6s);
  ASSERT_THAT(workers[0].running, SizeIs(1));
  EXPECT_EQ(workers[0].running[0].job, j.id);
  EXPECT_EQ(workers[0].running[0].job_name, "scene");
  EXPECT_EQ(workers[0].running[0].task.id, std::to_string(root.task));
  EXPECT_THAT(workers[1].running, IsEmpty());
  clock_.advance(7s);
  EXPECT_EQ(store_->workers()[1].lease, -1s) << "over, and nobody has taken its tasks";
  store_->leave(worker);
  EXPECT_THAT(store_->workers(), SizeIs(1));
}

TEST_P(StoreTest, SaysWhatATaskWaitsFor) {
  const auto wait = [&](std::int64_t task) { return store_->wait_of(std::to_string(task)).value(); };
  const Job j = store_->submit(job("scene", 1));
  const std::int64_t root = std::stoll(store_->tasks(j.id)[0].id);
  EXPECT_EQ(wait(root).job, j.id);
  EXPECT_EQ(wait(root).takers, 0u);
  const WorkerId worker = join(*store_);
  join(*store_, "old", {{"Root", "v1.0"}});
  EXPECT_EQ(wait(root).takers, 1u) << "another major version does not take it";
  EXPECT_FALSE(wait(root).paused);
  store_->pause("default", true);
  EXPECT_TRUE(wait(root).paused);
  store_->pause("default", false);

  const ClaimedTask attempt = claim_one(worker);
  EXPECT_EQ(wait(root).runner, "runner");
  send(worker, {failed(attempt, 3s)}, 0);
  EXPECT_EQ(wait(root).task.state, TaskState::scheduled);
  EXPECT_EQ(wait(root).due, 3s);
  clock_.advance(3s);
  send(worker, {computed(claim_one(worker), {{child(0), child(0), child(NewTask::kNoGroup, {0})}, {2}})}, 0);
  EXPECT_EQ(wait(root).open, 3u) << "its subtasks";
  const std::string first = store_->tasks(j.id)[1].id;
  EXPECT_EQ(wait(root).next, first);
  EXPECT_EQ(wait(root + 3).open, 2u);
  EXPECT_EQ(wait(root + 3).next, first);
  EXPECT_EQ(wait(root + 2).ahead, 1u);

  const Limit one{.task = "Child", .max_running = 1};
  store_->limit(one);
  EXPECT_THAT(wait(root + 2).limits, IsEmpty());
  const ClaimedTask running = claim_one(worker);
  EXPECT_THAT(wait(root + 2).limits, ElementsAre(one));
  send(worker, {computed(running)}, 0);
  EXPECT_EQ(wait(root + 3).open, 1u);
  EXPECT_FALSE(store_->wait_of("999"));
  EXPECT_FALSE(store_->wait_of("scene"));
}

TEST_P(StoreTest, CountsWhatIsToBeDoneAndWhatWasDoneLately) {
  store_->submit(job("scene", 1));
  const WorkerId worker = join(*store_);
  clock_.advance(2s);
  const ClaimedTask first = claim_one(worker);
  clock_.advance(1s);
  send(worker, {failed(first, 0s)}, 0);
  const ClaimedTask second = claim_one(worker);
  clock_.advance(3s);
  send(worker, {computed(second, {{child(0), child(0), child(NewTask::kNoGroup, {0})}, {2}})}, 1);
  Activity activity = store_->activity(60s);
  EXPECT_EQ(activity.now, clock_.now());
  EXPECT_EQ(activity.open_jobs, 1u);
  ASSERT_THAT(activity.tasks, SizeIs(2));
  const TaskActivity children = activity.tasks[0], root = activity.tasks[1];
  EXPECT_EQ(children.name, "Child");
  EXPECT_EQ(children.cluster, "default");
  EXPECT_EQ(children.waiting, 1u);
  EXPECT_EQ(children.ready, 1u);
  EXPECT_EQ(children.running, 1u);
  EXPECT_EQ(root.name, "Root");
  EXPECT_EQ(root.computed, 1u);
  EXPECT_EQ(root.failed, 1u);
  EXPECT_EQ(root.run_p50, 3s);
  EXPECT_EQ(root.wait_p99, 0s) << "of its last attempt";
  clock_.advance(60s);
  activity = store_->activity(30s);
  ASSERT_THAT(activity.tasks, SizeIs(1)) << "nothing of the root is new, and none is left";
  EXPECT_EQ(activity.tasks[0].running, 1u);
}

TEST_P(StoreTest, GivesBackTheRoomOfRemovedJobs) {
  for (int i = 0; i < 2; ++i) {
    NewJob big = job("big");
    big.roots.tasks[0].input = "\"" + std::string(1 << 20, 'x') + "\"";
    store_->submit(big);
  }
  store_->submit(job("last"));
  const WorkerId worker = join(*store_);
  const Exchanged e = claim(worker);
  std::vector<std::int64_t> recorded;
  for (const ClaimedTask& task : e.claimed) {
    for (const EnclosingSpan& span : send(worker, {computed(task)}, 0).closed) recorded.push_back(span.id);
  }
  (void)store_->exchange({.worker = worker, .recorded = recorded});
  clock_.advance(5s);
  EXPECT_THAT(store_->prune({.age = 1s}, 1000).jobs, SizeIs(2));
  EXPECT_GT(check_store(GetParam().place(directory_.path())).unused_bytes, 2u << 20);
  EXPECT_GT(store_->vacuum(), 2u << 20);
  EXPECT_LT(check_store(GetParam().place(directory_.path())).unused_bytes, 1u << 20);
  EXPECT_THAT(store_->query({}).jobs, SizeIs(1));
}

TEST_P(StoreTest, IsLookedAtWithoutBeingMade) {
  const testing::TemporaryDirectory empty;
  const StoreVersion none = store_version(GetParam().place(empty.path()));
  EXPECT_EQ(none.found, 0);
  EXPECT_TRUE(std::filesystem::is_empty(empty.path()));
  EXPECT_EQ(check_store(GetParam().place(empty.path())).version.found, 0);
  const StoreVersion own = store_version(GetParam().place(directory_.path()));
  EXPECT_EQ(own.found, own.known);
  EXPECT_GT(own.found, 0);
}

TEST_P(StoreTest, IsSoundInTheMiddleOfAJob) {
  store_->submit(job("scene"));
  const WorkerId worker = join(*store_);
  send(worker, {computed(claim_one(worker), {{child(0), child(0), child(NewTask::kNoGroup, {0})}, {2}})}, 1);
  const StoreCheck check = check_store(GetParam().place(directory_.path()));
  EXPECT_THAT(check.problems, IsEmpty());
  EXPECT_EQ(check.jobs, 1u);
  EXPECT_EQ(check.tasks, 4u);
  EXPECT_GT(check.bytes, 0u);
}

INSTANTIATE_TEST_SUITE_P(Engines, StoreTest, ::testing::ValuesIn(testing::engines()),
                         [](const auto& engine) { return engine.param.name; });

// ------ what is SQLite's alone

std::string plan(const std::string& path, const char* statement) {
  store::Database database(path);
  store::Statement s(database, std::string("EXPLAIN QUERY PLAN ") + statement);
  std::string text;
  for (s.bind(1, 1, 1); s.step();) text += std::string(s.text(3)) + "\n";
  return text;
}

TEST(SqliteStoreTest, ClaimsAlongOneIndexAlsoAfterAnalyze) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/store.db";
  const auto store = store::open_sqlite({.path = path, .clock = {}});
  NewJob job;
  job.id = "a";
  job.name = "many";
  job.span.trace_id = TraceId::random();
  job.span.span_id = SpanId::random();
  for (int i = 0; i < 2000; ++i) {
    job.roots.tasks.push_back({.name = {"T" + std::to_string(i % 7), "v0.0"}, .input = {}, .priority = i % 3});
  }
  store->submit(job);
  store::Database(path).execute("ANALYZE");
  const std::string text = plan(path, store::claim_statement());
  EXPECT_THAT(text, HasSubstr("USING COVERING INDEX task_ready (state=? AND cluster=? AND kind=? AND limit_key=?)"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("TEMP B-TREE")));
}

TEST(SqliteStoreTest, RefusesAFileOfANewerProgram) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/store.db";
  (void)store::open_sqlite({.path = path, .clock = {}});
  store::Database(path).execute("INSERT INTO schema_version VALUES (99, 0)");
  try {
    (void)store::open_sqlite({.path = path, .clock = {}});
    FAIL() << "opened";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::store);
    EXPECT_THAT(e.what(), HasSubstr("version 99"));
    EXPECT_THAT(e.what(), HasSubstr(path));
  }
}

TEST(SqliteStoreTest, FindsWhatNoStepCanLeaveBehind) {
  const auto problems = [](const char* damage) {
    const testing::TemporaryDirectory directory;
    const std::string path = directory.path() + "/store.db";
    const auto store = store::open_sqlite({.path = path, .clock = {}});
    NewJob job;
    job.id = "a";
    job.name = "scene";
    job.roots.tasks.push_back({.name = kRoot, .input = "{}", .group = 0});
    job.roots.tasks.push_back({.name = kChild, .input = "{}", .after = {0}, .dependencies = 1});
    job.roots.group_sizes = {1};
    store->submit(job);
    store::Database(path).execute(damage);
    return check_store(path).problems;
  };
  EXPECT_THAT(problems(""), IsEmpty());
  EXPECT_THAT(problems("UPDATE job SET tasks = 3"), ElementsAre("job a: another number of tasks than it says"));
  EXPECT_THAT(problems("UPDATE job SET finished_at = 5, state = 2"), ElementsAre("job a: finished, with tasks that are not"));
  EXPECT_THAT(problems("UPDATE task SET state = 4 WHERE id = 1"),
              ElementsAre("job a: not finished, with nothing left that could run"));
  EXPECT_THAT(problems("UPDATE task SET job = 7; UPDATE job SET tasks = 0, finished_at = 5"),
              ElementsAre("task 1: in no job", "task 2: in no job"));
  EXPECT_THAT(problems("UPDATE task SET parent = 9 WHERE id = 2"), ElementsAre("task 2: its parent is not there"));
  EXPECT_THAT(problems("UPDATE task SET state = 2, worker = 9 WHERE id = 1"),
              ElementsAre("task 1: running, and its runner is not there"));
  EXPECT_THAT(problems("UPDATE task SET deps_left = 2 WHERE id = 2"),
              ElementsAre("task 2: waits for another number of groups than are open"));
}

TEST(SqliteStoreTest, TakesNoOtherProgramsDatabaseForAStore) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/photos.db";
  store::Database(path).execute("CREATE TABLE photo(id INTEGER)");
  for (const auto& look : {+[](const std::string& p) { (void)store_version(p); },
                           +[](const std::string& p) { (void)check_store(p); }}) {
    try {
      look(path);
      FAIL() << "taken";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::store);
      EXPECT_THAT(e.what(), HasSubstr("another program's database"));
    }
  }
}

// A file as version 0.1 wrote it: a job whose root has computed, with two subtasks to go.
TEST(SqliteStoreTest, BringsAnOlderFileUpToDateAndGoesOnWithItsJobs) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/store.db";
  {
    store::Database old(path);
    old.execute(store::kSchema1);
    old.execute(
        "INSERT INTO schema_version VALUES (1, 0);"
        "INSERT INTO cluster(name) VALUES ('default');"
        "INSERT INTO kind(name, major, minor) VALUES ('Root', 0, 0), ('Child', 0, 0);"
        "INSERT INTO job(uid, name, state, open_roots, tasks, tasks_done, submitted_at, started_at, traceparent) VALUES "
        "('old', 'scene', 1, 1, 3, 1, 5, 6, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');"
        "INSERT INTO task(job, depth, cluster, kind, state, open_children, attempt, input, parent_span, subtasks_span, "
        "created_at, ended_at) VALUES (1, 0, 1, 1, 3, 2, 1, '{}', 1, 2, 5, 6);"
        "INSERT INTO task(job, parent, depth, cluster, kind, state, input, parent_span, created_at, ready_at) VALUES "
        "(1, 1, 1, 1, 2, 1, '{}', 2, 6, 6), (1, 1, 1, 1, 2, 1, '{}', 2, 6, 6);");
  }
  const auto store = store::open_sqlite({.path = path, .clock = {}});
  EXPECT_EQ(store->find("old")->cluster, "default");
  const WorkerId worker = store->join({.runner = "a", .name = {}, .host = {}, .tasks = {kRoot, kChild}});
  const Exchanged e = store->exchange({.worker = worker, .want = 5});
  ASSERT_THAT(e.claimed, SizeIs(2));
  std::vector<Finish> finishes(2);
  for (std::size_t i = 0; i < 2; ++i) {
    finishes[i].task = e.claimed[i].task;
    finishes[i].attempt = 1;
  }
  EXPECT_THAT(store->exchange({.worker = worker, .finishes = finishes}).closed, SizeIs(2));
  EXPECT_EQ(store->find("old")->state, JobState::completed);
  store::Database database(path);
  store::Statement version(database, "SELECT max(version), count(*) FROM schema_version");
  ASSERT_TRUE(version.step());
  EXPECT_EQ(version.integer(0), store::kSchemaVersion);
  EXPECT_EQ(version.integer(1), store::kSchemaVersion);
  version.reset();
  // Opening it again changes nothing, and a new file has the same tables.
  const std::string fresh = directory.path() + "/fresh.db";
  (void)store::open_sqlite({.path = path, .clock = {}});
  (void)store::open_sqlite({.path = fresh, .clock = {}});
  const auto schema = [](const std::string& file) {
    store::Database db(file);
    store::Statement s(db, "SELECT sql FROM sqlite_master ORDER BY name");
    std::string all;
    while (s.step()) all += std::string(s.text(0)) + "\n";
    return all;
  };
  EXPECT_EQ(schema(path), schema(fresh));
}

TEST(SqliteStoreTest, SaysWhatIsWrongWithAFile) {
  const testing::TemporaryDirectory directory;
  const std::string damaged = directory.path() + "/damaged.db";
  std::ofstream(damaged) << std::string(4096, 'x');
  for (const std::string& path : {damaged, directory.path() + "/nowhere/store.db", directory.path()}) {
    try {
      (void)store::open_sqlite({.path = path, .clock = {}});
      FAIL() << "opened " << path;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::store);
      EXPECT_THAT(e.what(), HasSubstr(path));
      EXPECT_THAT(e.what(), HasSubstr(": "));
    }
  }
}

TEST(OpenStoreTest, SaysThatPostgresIsNotInThisVersionAndKeepsItsPasswordToItself) {
  for (const char* url :
       {"postgresql://me:secret@host/db", "postgres://me:secret@host/db", "mysql://me:secret@host/db"}) {
    try {
      (void)open_store(url);
      FAIL() << "opened " << url;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::store);
      EXPECT_THAT(e.what(), ::testing::Not(HasSubstr("secret")));
      EXPECT_THAT(e.what(), HasSubstr("sqlite:PATH"));
    }
  }
}

TEST(OpenStoreTest, TakesAPathWithOrWithoutItsKind) {
  const testing::TemporaryDirectory directory;
  (void)open_store("sqlite:" + directory.path() + "/a.db");
  (void)open_store(directory.path() + "/b.db");
  EXPECT_TRUE(std::filesystem::exists(directory.path() + "/a.db"));
  EXPECT_TRUE(std::filesystem::exists(directory.path() + "/b.db"));
}

TEST(WakeTest, PutsSocketsOfLongPathsIntoAShortDirectory) {
  EXPECT_EQ(store::Wake::socket_directory("/a/store.db"), "/a/store.db.wake");
  const std::string file = "/" + std::string(200, 'd') + "/store.db";
  const std::string shorter = store::Wake::socket_directory(file);
  EXPECT_LE(shorter.size() + 17, 107u);
  EXPECT_EQ(shorter, store::Wake::socket_directory(file));
  EXPECT_NE(shorter, store::Wake::socket_directory(file + "2"));
}

TEST(WakeTest, RemovesSocketsOfTheDead) {
  const testing::TemporaryDirectory directory;
  const std::string file = directory.path() + "/store.db";
  {
    store::Wake listening(file, [] { return 0; });
    const auto watch = listening.watch([] {});
    std::ofstream(file + ".wake/0123456789abcdef") << "";
    listening.notify();
    EXPECT_FALSE(std::filesystem::exists(file + ".wake/0123456789abcdef"));
  }
  EXPECT_FALSE(std::filesystem::exists(file + ".wake")) << "nothing is left of it";
}

}  // namespace
}  // namespace waymark
