// What a job can be asked for: cancel, retry, options of its tasks, steps, the job cache, an end in good order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <latch>
#include <mutex>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "executor.h"
#include "job_cache.h"
#include "runner/workflow.h"
#include "signals.h"

namespace waymark {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class JobsTest : public RunnerTest {
 protected:
  // Until the store says so, told by whoever changes it.
  void wait_until(const std::function<bool()>& is_so) {
    std::mutex mutex;
    std::condition_variable told;
    bool changed = true;
    const auto watch = client_.store().watch([&] {
      const std::scoped_lock lock(mutex);
      changed = true;
      told.notify_one();
    });
    const auto limit = std::chrono::steady_clock::now() + 60s;
    while (!is_so()) {
      std::unique_lock lock(mutex);
      ASSERT_TRUE(told.wait_until(lock, limit, [&] { return changed; })) << "nothing happened";
      changed = false;
    }
  }
  std::vector<TaskState> states(const std::string& job) {
    std::vector<TaskState> all;
    for (const TaskInfo& task : client_.jobs().tasks(job)) all.push_back(task.state);
    return all;
  }
};

void wait_for_stop(Context& context) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait(lock, context.stop_token(), [] { return false; });
}

// ------ cancel and retry

TEST_F(JobsTest, CancelReachesARunningTaskThroughItsStopToken) {
  std::binary_semaphore runs(0), canceled(0);
  const auto endless = scripted([&](Context& context) {
    runs.release();
    wait_for_stop(context);
    canceled.acquire();
    throw Stopped();
  });
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          const auto one = context.submit_subtask(endless);
                                          context.submit_subtask(Empty{}, {.depends_on = one});
                                        }));
  std::thread run([&] { runner().run_all(); });
  runs.acquire();
  // From another process, as far as the store can tell.
  Client other(options());
  EXPECT_EQ(other.jobs().cancel(job.id).state, JobState::running);
  canceled.release();
  run.join();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::canceled);
  EXPECT_THAT(states(job.id), ElementsAre(TaskState::computed, TaskState::canceled, TaskState::skipped));
  EXPECT_THROW((void)other.jobs().cancel("nowhere"), Error);
  expect_enclosing(spans(), 2);
}

TEST_F(JobsTest, RetryKeepsWhatWasComputedAndAddsASecondRootToTheTrace) {
  std::atomic<int> computed{0};
  std::atomic<bool> lucky{false};
  const auto good = scripted([&](Context&) { ++computed; });
  const auto bad = scripted([&](Context&) {
    if (!lucky) throw Unlucky("not today");
  });
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          ++computed;
                                          const auto first = context.submit_subtask(good);
                                          const auto second = context.submit_subtask(bad, {.depends_on = first});
                                          context.submit_subtask(good, {.depends_on = second});
                                        }));
  runner(quick(1)).run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::failed);
  EXPECT_EQ(computed, 2);
  lucky = true;
  EXPECT_EQ(client_.jobs().retry(job.id), 2u);
  EXPECT_EQ(client_.jobs().retry(job.id), 0u);
  runner(quick(1)).run_all();
  const Job done = client_.jobs().find(job.id);
  EXPECT_EQ(done.state, JobState::completed);
  EXPECT_EQ(done.trace_id, job.trace_id);
  EXPECT_EQ(computed, 3);
  EXPECT_EQ(testing::span_tree(spans()),
            "submit/job\n"
            "job/job [error] -> submit/job\n"
            "  task/Scripted\n"
            "  subtasks/Scripted [error]\n"
            "    task/Scripted\n"
            "    task/Scripted [error] -> task/Scripted\n"
            "job/job -> submit/job -> job/job\n"
            "  subtasks/Scripted\n"
            "    task/Scripted -> task/Scripted -> task/Scripted\n"
            "    task/Scripted -> task/Scripted\n");
  expect_enclosing(spans(), 3);
  const auto roots = spans_named("job/job");
  ASSERT_THAT(roots, SizeIs(2));
  EXPECT_EQ(roots[0].context.trace_id, roots[1].context.trace_id);
  EXPECT_THROW((void)client_.jobs().retry("nowhere"), Error);
}

TEST_F(JobsTest, RetryRunsACanceledJobToItsEnd) {
  std::binary_semaphore runs(0);
  std::atomic<bool> canceled{false};
  const auto once = scripted([&](Context& context) {
    if (canceled) return;
    runs.release();
    wait_for_stop(context);
    throw Stopped();
  });
  const Job job = client_.jobs().submit("job", once);
  std::thread run([&] { runner().run_all(); });
  runs.acquire();
  canceled = true;
  client_.jobs().cancel(job.id);
  run.join();
  EXPECT_EQ(client_.jobs().retry(job.id), 1u);
  runner().run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
}

// ------ roots and options

TEST_F(JobsTest, SubmitsSeveralRootsThatDependOnEachOther) {
  std::mutex mutex;
  std::vector<std::string> order;
  const auto note = [&](std::string what) {
    return scripted([&, what](Context&) {
      const std::scoped_lock lock(mutex);
      order.push_back(what);
    });
  };
  TaskSet roots;
  const auto scenes = roots.add(std::vector<Scripted>(3, note("scene")), {.max_retries = 1});
  const auto mosaic = roots.add(note("mosaic"), {.depends_on = scenes});
  roots.add(note("upload"), {.depends_on = mosaic, .display = "to the archive"});
  EXPECT_EQ(roots.size(), 5u);
  const Job job = client_.jobs().submit("roots", std::move(roots));
  EXPECT_EQ(job.tasks, 5u);
  runner(quick(3)).run_all();
  EXPECT_THAT(order, ElementsAre("scene", "scene", "scene", "mosaic", "upload"));
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_EQ(client_.jobs().tasks(job.id).back().display, "to the archive");
  expect_enclosing(spans(), 2);
  const Job three = client_.jobs().submit("three", std::vector<Empty>(3), {.priority = 7});
  EXPECT_THAT(client_.jobs().tasks(three.id), SizeIs(3));
  EXPECT_EQ(client_.jobs().tasks(three.id)[2].priority, 7);
}

TEST_F(JobsTest, RefusesADependencyOnAnotherSet) {
  TaskSet one, two;
  const auto foreign = one.add(Empty{});
  EXPECT_THROW((void)two.add(Empty{}, {.depends_on = foreign}), Error);
}

TEST_F(JobsTest, RefusesTaskOptionsOutOfRange) {
  TaskSet set;
  EXPECT_THROW((void)client_.jobs().submit("job", TaskSet(), {.max_retries = 1}), Error) << "of which root?";
  EXPECT_THROW((void)set.add(Empty{}, {.backoff = RetryConfig{.initial = 2s, .maximum = 1s}}), Error);
  EXPECT_THROW((void)set.add(Empty{}, {.timeout = -1s}), Error);
  EXPECT_THROW((void)set.add(Empty{}, {.delay = -1s}), Error);
  EXPECT_THROW((void)set.add(Empty{}, {.limit_key = "*"}), Error);
  EXPECT_THROW((void)set.add(Empty{}, {.limit_key = std::string(257, 'k')}), Error);
  EXPECT_THROW((void)runner({.timeout_grace = -1s}), Error);
  EXPECT_THROW((void)runner({.keep_jobs_for = -1s}), Error);
  EXPECT_THROW((void)runner().run_forever({.grace = -1s}), Error);
}

TEST_F(JobsTest, GoesOnWithoutAnOptionalSubtree) {
  std::atomic<int> after{0};
  const auto failing = scripted([](Context&) { throw Unlucky("a bad tile"); });
  const auto branch = scripted([&](Context& context) {
    const auto bad = context.submit_subtask(failing);
    context.submit_subtask(Empty{}, {.depends_on = bad});
  });
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          const auto maybe = context.submit_subtask(branch, {.optional = true});
                                          context.submit_subtask(scripted([&](Context&) { ++after; }),
                                                                 {.depends_on = maybe});
                                        }));
  runner().run_all();
  EXPECT_EQ(after, 1);
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_THAT(states(job.id),
              ElementsAre(TaskState::completed, TaskState::computed, TaskState::completed, TaskState::failed_optional,
                          TaskState::skipped));
  expect_enclosing(spans(), 2);
}

TEST_F(JobsTest, WaitsBetweenAttemptsAsTheTaskSaysAndNotAsTheRunnerDoes) {
  const Job job = client_.jobs().submit(
      "job", scripted([&](Context& context) {
        if (context.attempt() < 3) throw Unlucky("again");
      }),
      {.max_retries = 2, .backoff = RetryConfig{.initial = 2ms, .maximum = 2ms, .multiplier = 1, .jitter = 0}});
  runner({.concurrency = 1, .backoff = {.initial = 24h, .maximum = 24h}}).run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].failures, 2u);
}

TEST_F(JobsTest, WaitsForADelayedJobAndRunsIt) {
  const Job job = client_.jobs().submit("job", Empty{}, {.delay = 100ms});
  const TaskInfo task = client_.jobs().tasks(job.id).at(0);
  EXPECT_EQ(task.state, TaskState::scheduled);
  EXPECT_EQ(task.due_at, job.submitted_at + 100ms);
  runner().run_all();
  const Job done = client_.jobs().find(job.id);
  EXPECT_EQ(done.state, JobState::completed);
  EXPECT_GE(done.started_at, task.due_at) << "by the store's own clock";
}

TEST_F(JobsTest, ReturnsTheJobThatHasTheKeyAlready) {
  const Job one = client_.jobs().submit("job", Empty{}, {.key = "2026-01-01"});
  const Job two = client_.jobs().submit("job", Empty{}, {.key = "2026-01-01"});
  EXPECT_EQ(one.id, two.id);
  EXPECT_THAT(client_.jobs().query().jobs, SizeIs(1));
}

TEST_F(JobsTest, HoldsALimitOverSeveralRunners) {
  client_.limit({.key = "archive", .max_running = 1});
  std::atomic<int> now{0}, most{0}, done{0};
  const auto download = scripted([&](Context&) {
    const int running = ++now;
    int seen = most;
    while (running > seen && !most.compare_exchange_weak(seen, running)) {
    }
    ++done;
    --now;
  });
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          context.submit_subtasks(std::vector<Scripted>(40, download),
                                                                  {.limit_key = "archive"});
                                        }));
  Client other(options());
  std::thread beside([&] { other.runner<Scripted>(quick(3)).run_all(); });
  runner(quick(3)).run_all();
  beside.join();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_EQ(done, 40);
  EXPECT_EQ(most, 1);
}

TEST_F(JobsTest, HoldsARateAndGoesOnByItself) {
  client_.limit({.task = "Scripted", .rate = 5, .per = 100ms});
  std::atomic<int> done{0};
  const Job job = client_.jobs().submit("job", std::vector<Scripted>(12, scripted([&](Context&) { ++done; })));
  runner().run_all();
  EXPECT_EQ(done, 12);
  // Five at once, and the others as the rate allows.
  Timestamp first = Timestamp::max(), last = Timestamp::min();
  for (const TaskInfo& task : client_.jobs().tasks(job.id)) {
    first = std::min(first, task.started_at);
    last = std::max(last, task.started_at);
  }
  EXPECT_GE(last - first, 139ms) << "12 starts of which 5 are free, at 20 ms each";
}

TEST_F(JobsTest, TakesDurationsThatNeverEndForWhatTheyAre) {
  constexpr auto kForever = std::chrono::nanoseconds::max();
  const Job later = client_.jobs().submit("later", Empty{}, {.delay = kForever});
  EXPECT_EQ(states(later.id)[0], TaskState::scheduled);
  client_.jobs().cancel(later.id);
  std::atomic<bool> asked{false};
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          std::condition_variable_any stopped;
                                          std::mutex mutex;
                                          std::unique_lock lock(mutex);
                                          asked = stopped.wait_for(lock, context.stop_token(), 50ms,
                                                                   [&] { return context.stop_token().stop_requested(); });
                                        }),
                                        {.timeout = kForever});
  RunnerOptions o = quick();
  o.timeout_grace = kForever;
  runner(o).run_all();
  EXPECT_FALSE(asked);
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  const Job again = client_.jobs().submit(
      "again", scripted([](Context&) { throw Unlucky("once"); }),
      {.max_retries = 1, .backoff = RetryConfig{.initial = kForever, .maximum = kForever, .jitter = 0}});
  std::stop_source stop;
  Runner r = runner();
  std::thread run([&] { r.run_forever({.stop = stop.get_token(), .grace = kForever}); });
  wait_until([&] { return client_.jobs().tasks(again.id)[0].failures > 0; });
  stop.request_stop();
  run.join();
  EXPECT_EQ(states(again.id)[0], TaskState::scheduled);
  EXPECT_GT(client_.jobs().tasks(again.id)[0].due_at, detail::system_time() + 24h * 365);
}

TEST_F(JobsTest, TakesNothingFromAPausedClusterUntilItIsResumed) {
  client_.pause("default");
  std::promise<void> ran;
  const Job job = client_.jobs().submit("job", scripted([&](Context&) { ran.set_value(); }));
  std::stop_source stop;
  Runner r = runner();
  std::thread run([&] { r.run_forever(stop.get_token()); });
  const Job free = client_.jobs().submit("elsewhere", Empty{}, {.cluster = "other"});
  Client other([&] {
    ClientOptions o = options();
    o.cluster = "other";
    return o;
  }());
  other.runner<Empty>(quick()).run_all();
  EXPECT_TRUE(other.jobs().find(free.id).finished());
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::submitted);
  client_.resume("default");
  ran.get_future().get();
  stop.request_stop();
  run.join();
}

TEST_F(JobsTest, ShowsPeopleTheNameThatATaskGivesItself) {
  const Job job = client_.jobs().submit("job", scripted([](Context& context) {
                                          context.display(std::string(1023, 'x') + "\u00e9");
                                        }),
                                        {.display = "waiting"});
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].display, "waiting");
  runner().run_all();
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].display, std::string(1023, 'x')) << "cut before the character";
}

TEST_F(JobsTest, RunsAHundredThousandSubtasksOfOneTask) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr int kTasks = 5'000;
#else
  constexpr int kTasks = 100'000;
#endif
  const Job job = client_.jobs().submit("wide", scripted([&](Context& context) {
                                          const auto all = context.submit_subtasks(std::vector<Empty>(kTasks));
                                          context.submit_subtask(Empty{}, {.depends_on = all});
                                        }));
  runner().run_all();
  const Job done = client_.jobs().find(job.id);
  EXPECT_EQ(done.state, JobState::completed);
  EXPECT_EQ(done.tasks, kTasks + 2u);
  EXPECT_EQ(done.tasks_done, kTasks + 2u);
}

// ------ timeouts

TEST_F(JobsTest, AsksATaskToStopWhenItsTimeoutIsOverAndTriesAgain) {
  std::atomic<int> attempts{0};
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          ++attempts;
                                          if (context.attempt() > 1) return;
                                          wait_for_stop(context);
                                          throw Stopped();
                                        }),
                                        {.max_retries = 1, .timeout = 50ms});
  Runner r = runner();
  r.run_all();
  EXPECT_EQ(attempts, 2);
  EXPECT_EQ(r.hanging_threads(), 0u);
  const TaskInfo task = client_.jobs().tasks(job.id)[0];
  EXPECT_EQ(task.state, TaskState::completed);
  EXPECT_EQ(task.failures, 1u);
  const auto spans = spans_named("task/Scripted");
  ASSERT_THAT(spans, SizeIs(2));
  EXPECT_EQ(text(spans[0].attributes, "error.type"), "timeout");
  EXPECT_EQ(text(spans[0].attributes, "workflow.outcome"), "retried");
  EXPECT_EQ(spans[0].status, StatusCode::error);
}

TEST_F(JobsTest, KeepsTheResultOfATaskThatEndsWithinTheGrace) {
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) { wait_for_stop(context); }),
                                        {.timeout = 20ms});
  runner().run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
}

TEST_F(JobsTest, GivesUpTheThreadOfATaskThatHangsAndGoesOn) {
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  std::atomic<int> other{0};
  const auto hanging = scripted([&, released](Context&) { released.wait(); });
  const Job job = client_.jobs().submit("hangs", hanging, {.timeout = 30ms});
  const Job after = client_.jobs().submit("after", scripted([&](Context&) { ++other; }));
  RunnerOptions options = quick(1);
  options.timeout_grace = 30ms;
  Runner r = runner(options);
  r.run_all();
  EXPECT_EQ(r.hanging_threads(), 1u);
  EXPECT_EQ(other, 1) << "another thread has taken its place";
  EXPECT_EQ(client_.jobs().find(after.id).state, JobState::completed);
  const Job failed = client_.jobs().find(job.id);
  EXPECT_EQ(failed.state, JobState::failed);
  EXPECT_EQ(failed.error_type, "timeout");
  EXPECT_THAT(failed.error, HasSubstr("0.03 s"));
  const auto spans = spans_named("task/Scripted");
  ASSERT_THAT(spans, SizeIs(2)) << "the hanging attempt's span has ended, too";
  EXPECT_EQ(text(spans[0].attributes, "error.type"), "timeout");
  expect_enclosing(this->spans(), 4);
  release.set_value();
  while (r.hanging_threads() > 0) std::this_thread::yield();
}

// ------ steps

TEST_F(JobsTest, FindsAStepsResultInALaterAttempt) {
  std::atomic<int> downloads{0}, unpacked{0};
  std::vector<int> seen;
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          seen = context.step("download", [&] {
                                            ++downloads;
                                            return std::vector<int>{1, 2, 3};
                                          });
                                          context.step("unpack", [&] { ++unpacked; });
                                          if (context.attempt() == 1) throw Unlucky("after the steps");
                                        }),
                                        {.max_retries = 1});
  runner().run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_EQ(downloads, 1);
  EXPECT_EQ(unpacked, 1);
  EXPECT_THAT(seen, ElementsAre(1, 2, 3));
  EXPECT_THAT(spans_named("step/download"), SizeIs(1));
}

TEST_F(JobsTest, KeepsAStepBeforeTheTaskEnds) {
  std::string task;
  std::optional<std::string> kept;
  client_.jobs().submit("job", scripted([&](Context& context) {
                          EXPECT_THROW(context.step("fails", []() -> int { throw Unlucky("no"); }), Unlucky);
                          context.step("download", [] { return 7; });
                          kept = Client(options()).store().find_step(std::stoll(context.task_id()), "download");
                          EXPECT_EQ(client_.store().find_step(std::stoll(context.task_id()), "fails"), std::nullopt);
                        }));
  runner().run_all();
  EXPECT_EQ(kept, "7");
}

// ------ the job cache

void use_cache(const JobCache& cache) {
  const std::string bytes("\0\xff bytes", 8);
  cache.set("key", bytes);
  EXPECT_EQ(cache.get("key"), bytes);
  const JobCache bands = cache.group("bands").group("raw");
  EXPECT_EQ(bands.find("key"), std::nullopt);
  bands.set("B04", "four");
  bands.set("B03", "");
  bands.set("B04", "4");
  EXPECT_THAT(bands.keys(), ElementsAre("B03", "B04"));
  EXPECT_THAT(cache.group("bands").keys(), IsEmpty());
  EXPECT_THAT(cache.keys(), ElementsAre("key"));
  EXPECT_EQ(bands.get("B04"), "4");
  EXPECT_EQ(bands.get("B03"), "");
  bands.set("raw", "a key may be named as a group");
  bands.remove("B03");
  bands.remove("B03");
  EXPECT_THAT(bands.keys(), ElementsAre("B04", "raw"));
  cache.set("..", "dots are a name as any");
  EXPECT_EQ(cache.get(".."), "dots are a name as any");
  try {
    (void)bands.get("B99");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::not_found);
    EXPECT_THAT(e.what(), HasSubstr("\"B99\" in group \"bands/raw\""));
  }
  for (const std::string& key : {std::string(), std::string("a/b"), std::string("a\0b", 3), std::string(201, 'k')}) {
    EXPECT_THROW(cache.set(key, "x"), Error);
    EXPECT_THROW((void)cache.group(key), Error);
  }
}

TEST_F(JobsTest, CachesBytesInTheStore) {
  const auto use = scripted([](Context& context) { use_cache(context.job_cache()); });
  const auto again = scripted([](Context& context) { EXPECT_EQ(context.job_cache().get("key").size(), 8u); });
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          const auto first = context.submit_subtask(use);
                                          context.submit_subtask(again, {.depends_on = first});
                                        }));
  runner().run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed) << client_.jobs().find(job.id).error;
  const Job other = client_.jobs().submit("other", scripted([](Context& context) {
                                            EXPECT_THAT(context.job_cache().keys(), IsEmpty());
                                          }));
  runner().run_all();
  EXPECT_THAT(spans(), Not(Contains(::testing::Field(&ReadSpan::name, HasSubstr("cache/")))));
}

TEST_F(JobsTest, CachesBytesInADirectoryAndRecordsItWhereAsked) {
  ClientOptions o = options();
  o.cache_directory = directory_.path() + "/cache";
  o.cache_spans = true;
  Client client(o);
  const Job job = client.jobs().submit("job", scripted([](Context& context) { use_cache(context.job_cache()); }));
  client.runner<Scripted>(quick()).run_all();
  EXPECT_EQ(client.jobs().find(job.id).state, JobState::completed) << client.jobs().find(job.id).error;
  EXPECT_TRUE(std::filesystem::exists(o.cache_directory + "/" + job.id + "/g_bands/g_raw/k_B04"));
  const auto found = spans_named("cache/get");
  ASSERT_THAT(found, Not(IsEmpty()));
  EXPECT_EQ(text(found[1].attributes, "workflow.cache.key"), "bands/raw/key");
  EXPECT_EQ(text(found[1].attributes, "workflow.cache.hit"), "false");
  EXPECT_EQ(text(found[0].attributes, "workflow.cache.size"), "8");
  EXPECT_THAT(spans_named("cache/set"), SizeIs(6));
}

// ------ upkeep

TEST(JobCacheTest, IsRemovedInSmallParts) {
  const testing::TemporaryDirectory directory;
  std::filesystem::create_directories(directory.path() + "/job/group");
  for (int i = 0; i < 5; ++i) std::ofstream(directory.path() + "/job/group/key" + std::to_string(i)) << "bytes";
  int parts = 1;
  for (; !detail::remove_cache(directory.path(), "job", {}) && parts < 100; ++parts) {
  }
  EXPECT_GT(parts, 5) << "time was over each time, and each time something went";
  EXPECT_LT(parts, 100);
  EXPECT_FALSE(std::filesystem::exists(directory.path() + "/job"));
  EXPECT_TRUE(detail::remove_cache(directory.path(), "none", {}));
}

TEST_F(JobsTest, RemovesFinishedJobsByItself) {
  ClientOptions o = options();
  o.cache_directory = directory_.path() + "/cache";
  Client client(o);
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(client.jobs().submit("job", scripted([](Context& context) { context.job_cache().set("k", "v"); })).id);
  }
  client.runner<Scripted>(quick()).run_all();
  RunnerOptions keep = quick();
  keep.keep_jobs = 2;
  keep.lease = 200ms;
  std::stop_source stop;
  Runner r = client.runner<Scripted>(keep);
  std::thread run([&] { r.run_forever(stop.get_token()); });
  wait_until([&] { return client.jobs().query().jobs.size() == 2; });
  stop.request_stop();
  run.join();
  EXPECT_THROW((void)client.jobs().find(ids[0]), Error);
  EXPECT_TRUE(client.jobs().find(ids[3]).finished());
  EXPECT_FALSE(std::filesystem::exists(o.cache_directory + "/" + ids[0]));
  EXPECT_TRUE(std::filesystem::exists(o.cache_directory + "/" + ids[3]));
}

// ------ the end

TEST_F(JobsTest, GivesBackWhatDoesNotStopWithinTheGrace) {
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  std::latch runs(2);
  const auto stubborn = scripted([&, released](Context&) {
    runs.count_down();
    released.wait();
  });
  const auto obedient = scripted([&](Context& context) {
    runs.count_down();
    wait_for_stop(context);
  });
  const Job one = client_.jobs().submit("stubborn", stubborn);
  const Job two = client_.jobs().submit("obedient", obedient);
  const Job three = client_.jobs().submit("late", Empty{});
  std::stop_source stop;
  Runner r = runner(quick(2));
  std::thread run([&] { EXPECT_EQ(r.run_forever({.stop = stop.get_token(), .grace = 50ms}), StopReason::requested); });
  runs.wait();
  stop.request_stop();
  run.join();
  EXPECT_EQ(r.hanging_threads(), 1u);
  EXPECT_EQ(client_.jobs().tasks(one.id)[0].state, TaskState::ready);
  EXPECT_EQ(client_.jobs().tasks(one.id)[0].failures, 0u);
  EXPECT_EQ(client_.jobs().find(two.id).state, JobState::completed);
  EXPECT_EQ(client_.jobs().tasks(three.id)[0].state, TaskState::ready);
  release.set_value();
  while (r.hanging_threads() > 0) std::this_thread::yield();
}

TEST_F(JobsTest, GivesBackWhatATaskThrowsBecauseItWasAskedToStop) {
  std::latch runs(1);
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          runs.count_down();
                                          wait_for_stop(context);
                                          throw Unlucky("the transfer was interrupted");
                                        }));
  std::stop_source stop;
  Runner r = runner();
  std::thread run([&] { r.run_forever(stop.get_token()); });
  runs.wait();
  stop.request_stop();
  run.join();
  EXPECT_THAT(states(job.id), ElementsAre(TaskState::ready));
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].failures, 0u);
  EXPECT_THAT(logs(), Contains(::testing::Field(
                          &ReadLog::body,
                          ::testing::ResultOf([](const AnyValue& body) { return to_text(body); },
                                              HasSubstr("was asked to stop, and threw: the transfer was interrupted")))));
}

TEST_F(JobsTest, ACanceledJobLosesNoOptionalSubtreeByWhatItsTasksThrowThen) {
  std::latch runs(1);
  std::atomic<int> executions{0};
  const auto optional = scripted([&](Context& context) {
    if (++executions > 1) return;
    runs.count_down();
    wait_for_stop(context);
    throw Unlucky("interrupted");
  });
  const Job job = client_.jobs().submit(
      "job", scripted([&](Context& context) { context.submit_subtask(optional, {.optional = true}); }));
  std::thread run([&] { runner().run_all(); });
  runs.wait();
  client_.jobs().cancel(job.id);
  run.join();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::canceled);
  EXPECT_EQ(client_.jobs().retry(job.id), 1u);
  runner().run_all();
  EXPECT_EQ(executions, 2);
  EXPECT_THAT(states(job.id), ElementsAre(TaskState::completed, TaskState::completed));
}

TEST_F(JobsTest, StopsForASignalWhenAsked) {
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    const Job job = client_.jobs().submit("job", scripted([&, signal](Context& context) {
                                            if (context.attempt() == 1) {
                                              kill(getpid(), signal);
                                              wait_for_stop(context);
                                              throw Stopped();
                                            }
                                          }));
    const StopReason reason = runner().run_forever({.handle_signals = true});
    EXPECT_EQ(reason, signal == SIGINT ? StopReason::interrupted : StopReason::terminated);
    EXPECT_EQ(exit_code(reason), 128 + signal);
    EXPECT_EQ(client_.jobs().tasks(job.id)[0].state, TaskState::ready);
    EXPECT_THAT(memory_.spans(), Contains(::testing::Field(&ReadSpan::name, "task/Scripted"))) << "flushed";
    struct sigaction after {};
    sigaction(signal, nullptr, &after);
    EXPECT_EQ(after.sa_handler, before.sa_handler) << "as it was";
    runner().run_all();
  }
  EXPECT_EQ(exit_code(StopReason::requested), 0);
}

TEST(SignalWatchTest, TellsEverybodyOnceAndLeavesTheSecondSignalAlone) {
  std::promise<int> one, two;
  {
    const detail::SignalWatch a([&](int signal) { one.set_value(signal); });
    const detail::SignalWatch b([&](int signal) { two.set_value(signal); });
    kill(getpid(), SIGTERM);
    EXPECT_EQ(one.get_future().get(), SIGTERM);
    EXPECT_EQ(two.get_future().get(), SIGTERM);
    struct sigaction now {};
    sigaction(SIGTERM, nullptr, &now);
    EXPECT_EQ(now.sa_handler, SIG_DFL);
  }
  const detail::SignalWatch again([](int) {});  // and it can be wanted anew
  struct sigaction now {};
  sigaction(SIGTERM, nullptr, &now);
  EXPECT_NE(now.sa_handler, SIG_DFL);
}

}  // namespace
}  // namespace waymark
