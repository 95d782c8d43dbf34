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

#include "runner/temporary_directory.h"
#include "store/database.h"
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

class TestClock {
 public:
  void advance(std::chrono::nanoseconds by) { now_ += by.count(); }
  [[nodiscard]] Timestamp now() const { return Timestamp(std::chrono::nanoseconds(now_.load())); }

 private:
  std::atomic<std::int64_t> now_{1'800'000'000'000'000'000};
};

// One engine: how to open the store at a place, again and again.
struct Engine {
  const char* name;
  std::function<std::shared_ptr<Store>(const std::string& directory, std::function<Timestamp()> clock)> open;
};

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
  // What that one still wanted to submit is not written.
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
  EXPECT_EQ(found.tasks, 5u);
  EXPECT_EQ(found.tasks_done, 5u);
  std::vector<TaskState> states;
  for (const TaskInfo& t : store_->tasks(j.id)) states.push_back(t.state);
  EXPECT_THAT(states, ElementsAre(TaskState::computed, TaskState::failed, TaskState::completed, TaskState::skipped,
                                  TaskState::skipped));
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

INSTANTIATE_TEST_SUITE_P(Sqlite, StoreTest,
                         ::testing::Values(Engine{"Sqlite",
                                                  [](const std::string& directory, std::function<Timestamp()> clock) {
                                                    return store::open_sqlite(
                                                        {.path = directory + "/store.db", .clock = std::move(clock)});
                                                  }}),
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
  EXPECT_THAT(text, HasSubstr("USING COVERING INDEX task_ready (state=? AND cluster=? AND kind=?)"));
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
