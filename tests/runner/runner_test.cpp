#include "waymark/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "instrumentation.h"
#include "runner/temporary_directory.h"
#include "runner/workflow.h"
#include "waymark/store.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace waymark {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

// ------ the trace

TEST_F(RunnerTest, TracesAJobAsATree) {
  const Job submitted = client_.jobs().submit("scene S2A_1", ProcessScene{"S2A_1", 3});
  runner(quick(1)).run_all();
  const Job job = client_.jobs().find(submitted.id);
  EXPECT_EQ(job.state, JobState::completed);
  EXPECT_EQ(job.tasks, 5u);
  EXPECT_EQ(testing::span_tree(spans()),
            "submit/scene S2A_1\n"
            "job/scene S2A_1 -> submit/scene S2A_1\n"
            "  task/ProcessScene\n"
            "  subtasks/ProcessScene\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Mosaic -> task/Tile\n");
  expect_enclosing(spans(), 2);
}

TEST_F(RunnerTest, SaysInAnAttemptsSpanWhatItIs) {
  const Job job = client_.jobs().submit("scene", ProcessScene{"S", 2});
  Runner r = runner();
  r.run_all();
  const auto attempts = spans_named("task/Mosaic");
  ASSERT_THAT(attempts, SizeIs(1));
  const ReadSpan& span = attempts[0];
  const auto tasks = client_.jobs().tasks(job.id);
  EXPECT_EQ(text(span.attributes, "task_id"), tasks[3].id);
  EXPECT_EQ(text(span.attributes, "identifier.name"), "Mosaic");
  EXPECT_EQ(text(span.attributes, "identifier.version"), "v0.0");
  EXPECT_EQ(text(span.attributes, "workflow.job.id"), job.id);
  EXPECT_EQ(text(span.attributes, "workflow.job.name"), "scene");
  EXPECT_EQ(text(span.attributes, "workflow.task.parent_id"), tasks[0].id);
  EXPECT_EQ(text(span.attributes, "workflow.attempt"), "1");
  EXPECT_EQ(text(span.attributes, "workflow.max_attempts"), "1");
  EXPECT_EQ(text(span.attributes, "workflow.dependencies"), "2");
  EXPECT_EQ(text(span.attributes, "workflow.cluster"), "default");
  EXPECT_EQ(text(span.attributes, "workflow.runner.id"), r.id());
  EXPECT_EQ(text(span.attributes, "workflow.runner.name"), "test-runner");
  EXPECT_EQ(text(span.attributes, "workflow.outcome"), "computed");
  EXPECT_EQ(text(span.attributes, "workflow.input.size"), std::to_string(std::string(R"({"scene_id":"S"})").size()));
  EXPECT_THAT(text(span.attributes, "workflow.input.hash"), SizeIs(16));
  EXPECT_NE(attribute(span, "workflow.queue_wait_ms"), nullptr);
  EXPECT_NE(attribute(span, "workflow.dependency_wait_ms"), nullptr);
  EXPECT_EQ(attribute(span, "error.type"), nullptr);
  EXPECT_EQ(text(spans_named("job/scene").at(0).attributes, "workflow.outcome"), "completed");
  EXPECT_EQ(text(spans_named("job/scene").at(0).attributes, "workflow.job.tasks"), "4");
  EXPECT_EQ(spans_named("submit/scene").at(0).kind, SpanKind::producer);
  EXPECT_EQ(span.kind, SpanKind::internal);
}

TEST_F(RunnerTest, PutsARunJobIntoTheCallersTrace) {
  std::jthread beside([&](std::stop_token stop) { runner().run_forever(stop); });
  {
    auto span = telemetry_.tracer("caller").span("nightly");
    const Job job = client_.jobs().run("scene", Empty{});
    EXPECT_EQ(job.state, JobState::completed);
    EXPECT_EQ(job.trace_id, span.context().trace_id);
  }
  beside.request_stop();
  beside.join();
  EXPECT_EQ(testing::span_tree(spans()),
            "nightly\n"
            "  submit/scene\n"
            "  job/scene -> submit/scene\n"
            "    task/Empty\n");
  expect_enclosing(spans(), 1);
}

TEST_F(RunnerTest, LinksASubmittedJobToTheCallersTrace) {
  std::string caller;
  {
    auto span = telemetry_.tracer("caller").span("request");
    caller = span.context().trace_id.hex();
    EXPECT_NE(client_.jobs().submit("scene", Empty{}).trace_id.hex(), caller);
  }
  runner().run_all();
  EXPECT_EQ(testing::span_tree(spans()),
            "request\n"
            "  submit/scene\n"
            "job/scene -> submit/scene\n"
            "  task/Empty\n");
  EXPECT_EQ(spans_named("job/scene").at(0).links.at(0).context.trace_id.hex(), caller);
}

TEST_F(RunnerTest, LinksAnAttemptToTheOneBefore) {
  const Job job = client_.jobs().submit("flaky", scripted([](Context& context) {
                                          if (context.attempt() < 3) throw Unlucky("not yet");
                                        }),
                                        {.max_retries = 2});
  runner().run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_EQ(testing::span_tree(spans()),
            "submit/flaky\n"
            "job/flaky -> submit/flaky\n"
            "  task/Scripted [error]\n"
            "  task/Scripted [error] -> task/Scripted\n"
            "  task/Scripted -> task/Scripted\n");
  const auto attempts = spans_named("task/Scripted");
  EXPECT_EQ(attempts[1].links.at(0).context.span_id, attempts[0].context.span_id);
  EXPECT_EQ(attempts[2].links.at(0).context.span_id, attempts[1].context.span_id);
  EXPECT_EQ(text(attempts[0].attributes, "workflow.outcome"), "retried");
  EXPECT_EQ(text(attempts[0].attributes, "workflow.max_attempts"), "3");
  EXPECT_EQ(text(attempts[2].attributes, "workflow.attempt"), "3");
  const auto tasks = client_.jobs().tasks(job.id);
  EXPECT_EQ(tasks[0].attempts, 3u);
  EXPECT_EQ(tasks[0].failures, 2u);
  expect_enclosing(spans(), 2);
}

TEST_F(RunnerTest, LinksADependantToTheSubtreeItWaitedFor) {
  const auto leaf = scripted([](Context&) {});
  const auto parent = scripted([leaf](Context& context) { context.submit_subtask(leaf); });
  client_.jobs().submit("job", scripted([=](Context& context) {
                          context.submit_subtask(Empty{}, {.depends_on = context.submit_subtask(parent)});
                        }));
  runner().run_all();
  const auto dependants = spans_named("task/Empty");
  ASSERT_THAT(dependants, SizeIs(1));
  const auto subtrees = spans_named("subtasks/Scripted");
  ASSERT_THAT(subtrees, SizeIs(2));
  EXPECT_EQ(dependants[0].links.at(0).context.span_id, subtrees[1].context.span_id);
  EXPECT_GE(dependants[0].start, subtrees[1].end);
  expect_enclosing(spans(), 2);
}

TEST_F(RunnerTest, RecordsWhatATaskThrew) {
  const Job job = client_.jobs().submit("bad", scripted([](Context&) { throw Unlucky("no luck today"); }));
  runner().run_all();
  const Job found = client_.jobs().find(job.id);
  EXPECT_EQ(found.state, JobState::failed);
  EXPECT_THAT(found.error_type, HasSubstr("Unlucky"));
  EXPECT_EQ(found.error, "no luck today");
  EXPECT_EQ(found.failed_task, client_.jobs().tasks(job.id)[0].id);

  const ReadSpan span = spans_named("task/Scripted").at(0);
  EXPECT_EQ(span.status, StatusCode::error);
  EXPECT_EQ(span.status_message, "no luck today");
  EXPECT_THAT(text(span.attributes, "error.type"), HasSubstr("Unlucky"));
  EXPECT_EQ(text(span.attributes, "workflow.outcome"), "failed");
  ASSERT_THAT(span.events, SizeIs(1));
  EXPECT_EQ(span.events[0].name, "exception");
  EXPECT_THAT(text(span.events[0].attributes, "exception.type"), HasSubstr("Unlucky"));
  EXPECT_EQ(text(span.events[0].attributes, "exception.message"), "no luck today");
  const ReadSpan root = spans_named("job/bad").at(0);
  EXPECT_EQ(root.status, StatusCode::error);
  EXPECT_EQ(text(root.attributes, "workflow.outcome"), "failed");
  EXPECT_THAT(text(root.attributes, "error.type"), HasSubstr("Unlucky"));

  const auto records = logs();
  const auto record = std::find_if(records.begin(), records.end(),
                                   [](const ReadLog& r) { return to_text(r.body) == "task Scripted failed"; });
  ASSERT_NE(record, records.end());
  EXPECT_EQ(record->severity, static_cast<std::uint8_t>(Severity::error));
  EXPECT_EQ(record->span_id, span.context.span_id);
  EXPECT_EQ(record->trace_id, span.context.trace_id);
  EXPECT_EQ(text(record->attributes, "workflow.job.id"), job.id);
  EXPECT_EQ(text(record->attributes, "task_id"), found.failed_task);
  EXPECT_EQ(text(record->attributes, "exception.message"), "no luck today");
}

TEST_F(RunnerTest, PutsIdsIntoEveryLogRecordOfATask) {
  const Job job = client_.jobs().submit("scene", scripted([](Context& context) {
                                          context.logger().info("outside");
                                          auto span = context.tracer().span("inner");
                                          context.logger().warning("inside", {{"task_id", "mine"}});
                                        }));
  runner().run_all();
  std::map<std::string, ReadLog> records;
  for (const ReadLog& record : logs()) records[to_text(record.body)] = record;
  EXPECT_EQ(records["outside"].span_id, spans_named("task/Scripted").at(0).context.span_id);
  EXPECT_EQ(records["inside"].span_id, spans_named("inner").at(0).context.span_id);
  for (const auto& [body, record] : records) {
    EXPECT_EQ(text(record.attributes, "workflow.job.id"), job.id) << body;
    EXPECT_EQ(text(record.attributes, "workflow.job.name"), "scene") << body;
    EXPECT_EQ(text(record.attributes, "workflow.attempt"), "1") << body;
  }
  EXPECT_EQ(text(records["outside"].attributes, "task_id"), client_.jobs().tasks(job.id)[0].id);
  EXPECT_EQ(text(records["inside"].attributes, "task_id"), client_.jobs().tasks(job.id)[0].id) << "nobody overrides it";
}

TEST_F(RunnerTest, MakesTheAttemptTheCurrentSpanOfItsThread) {
  client_.jobs().submit("job", scripted([](Context&) {
                          current_span().set("mine", 7);
                          current_span().event("seen");
                        }));
  runner().run_all();
  const ReadSpan span = spans_named("task/Scripted").at(0);
  EXPECT_EQ(text(span.attributes, "mine"), "7");
  EXPECT_THAT(span.events, SizeIs(1));
}

TEST_F(RunnerTest, CarriesBaggageAndTraceStateToTasks) {
  std::string tenant;
  const auto task = scripted([&](Context&) { tenant = current_context().baggage.get("tenant").value_or("none"); });
  {
    TraceContext caller;
    caller.baggage = Baggage().set("tenant", "seven");
    const ContextScope scope(caller);
    client_.jobs().submit("job", task);
  }
  runner().run_all();
  EXPECT_EQ(tenant, "seven");
}

TEST_F(RunnerTest, AClientsNameLeavesTheResourceAlone) {
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory, "my-service");
  config.resource.set("deployment.environment.name", AnyValue{std::string("test")});
  Telemetry telemetry(std::move(config));
  ClientOptions o = options();
  o.telemetry = &telemetry;
  o.name = "another name";
  Client client(o);
  client.jobs().submit("scene", ProcessScene{"S", 2});
  client.runner<ProcessScene, Tile, Mosaic>().run_all();
  ASSERT_TRUE(telemetry.force_flush(std::chrono::seconds(30)));
  ASSERT_FALSE(memory.spans().empty());
  for (const ReadSpan& span : memory.spans()) {
    EXPECT_EQ(find_string(span.resource, "service.name"), "my-service");
    EXPECT_EQ(find_string(span.resource, "deployment.environment.name"), "test");
  }
  for (const ReadLog& record : memory.logs()) EXPECT_EQ(find_string(record.resource, "service.name"), "my-service");
}

TEST_F(RunnerTest, RecordsNothingOfAJobThatIsNotSampled) {
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.sampler = {.kind = SamplerKind::always_off};
  Telemetry off(std::move(config));
  ClientOptions o = options();
  o.telemetry = &off;
  Client submitter(o);
  const Job job = submitter.jobs().submit("scene", ProcessScene{"S", 2});
  runner().run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_THAT(spans(), IsEmpty());
  const auto records = logs();
  ASSERT_THAT(records, SizeIs(3));
  EXPECT_EQ(records[0].trace_id, job.trace_id);
  EXPECT_EQ(records[0].flags & SpanContext::kSampled, 0);
}

TEST_F(RunnerTest, GivesATraceToJobsOfAProgramThatHasNone) {
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.disabled = true;
  Telemetry disabled(std::move(config));
  ClientOptions o = options();
  o.telemetry = &disabled;
  Client submitter(o);
  const Job job = submitter.jobs().submit("scene", Empty{});
  EXPECT_TRUE(job.trace_id.valid());
  runner().run_all();
  EXPECT_EQ(testing::span_tree(spans()), "job/scene\n  task/Empty\n");
}

TEST_F(RunnerTest, RunsWithoutAnyTelemetry) {
  Config config = testing::memory_config(memory_);
  config.disabled = true;
  Telemetry disabled(std::move(config));
  ClientOptions o = options();
  o.telemetry = &disabled;
  Client silent(o);
  TraceId seen;
  const Job job = silent.jobs().submit("job", scripted([&](Context& context) {
                                         context.logger().info("unheard");
                                         auto span = context.tracer().span("unseen");
                                         seen = current_context().span.trace_id;
                                         context.submit_subtask(Empty{});
                                       }));
  silent.runner<Scripted, Empty>(quick()).run_all();
  EXPECT_EQ(silent.jobs().find(job.id).state, JobState::completed);
}

// Any shape of job, with failures, retries and dependencies: every parent is there and encloses its children.
TEST_F(RunnerTest, EnclosesEveryChildInItsParentWhateverTheJobsShape) {
  constexpr int kJobs = 30;
  std::mt19937 random(20261121);
  std::size_t attempts = 0;
  std::vector<std::string> ids;
  std::function<Scripted(int)> make = [&](int depth) -> Scripted {
    const int children = depth >= 3 ? 0 : static_cast<int>(random() % 4);
    const auto failures = random() % 4 == 0 ? random() % 3 : 0;
    std::vector<std::pair<Scripted, std::vector<std::size_t>>> plan;
    for (int i = 0; i < children; ++i) {
      std::vector<std::size_t> after;
      for (std::size_t j = 0; j < plan.size(); ++j) {
        if (random() % 2) after.push_back(j);
      }
      plan.emplace_back(make(depth + 1), std::move(after));
    }
    return scripted([=](Context& context) {
      auto span = context.tracer().span("work");
      std::vector<FutureTask> futures;
      for (const auto& [task, after] : plan) {
        FutureTasks depends_on;
        for (const std::size_t j : after) depends_on.add(futures[j]);
        futures.push_back(context.submit_subtask(task, {.depends_on = depends_on, .max_retries = 2}));
      }
      if (context.attempt() <= failures) throw Unlucky("again");
    });
  };
  for (int i = 0; i < kJobs; ++i) {
    ids.push_back(client_.jobs().submit("job", make(0), {.max_retries = 1}).id);
  }
  {
    // Two runners with a store object each, as two processes have.
    Client other(options());
    std::thread beside([&] { other.runner<Scripted>(quick()).run_all(); });
    runner().run_all();
    beside.join();
  }
  std::size_t computed = 0;
  for (const std::string& id : ids) {
    EXPECT_TRUE(client_.jobs().find(id).finished());
    for (const TaskInfo& task : client_.jobs().tasks(id)) {
      attempts += task.attempts;
      computed += task.state == TaskState::computed || task.state == TaskState::completed;
    }
  }
  EXPECT_EQ(spans_named("task/Scripted").size(), attempts);
  EXPECT_GT(computed, 50u);
  expect_enclosing(spans(), 2 * kJobs);
  std::cout << "enclosing: jobs=" << kJobs << " attempts=" << attempts << " spans=" << spans().size() << "\n";
}

// ------ semantics

TEST_F(RunnerTest, RunsADependantAfterWholeSubtrees) {
  std::mutex mutex;
  std::vector<std::string> order;
  const auto note = [&](std::string what) {
    const std::scoped_lock lock(mutex);
    order.push_back(std::move(what));
  };
  const auto leaf = scripted([&](Context&) { note("leaf"); });
  const auto branch = scripted([&, leaf](Context& context) {
    note("branch");
    context.submit_subtasks(std::vector<Scripted>(3, leaf));
  });
  const auto last = scripted([&](Context&) { note("last"); });
  client_.jobs().submit("job", scripted([&](Context& context) {
                          const FutureTask one = context.submit_subtask(branch);
                          const FutureTask two = context.submit_subtask(leaf);
                          context.submit_subtask(last, {.depends_on = {one, two}});
                        }));
  runner(quick(3)).run_all();
  ASSERT_THAT(order, SizeIs(6));
  EXPECT_EQ(order.back(), "last");
}

TEST_F(RunnerTest, LeavesNoSubtasksOfAFailedAttempt) {
  std::atomic<int> children{0};
  const auto child = scripted([&](Context&) { ++children; });
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          context.submit_subtasks(std::vector<Scripted>(5, child));
                                          if (context.attempt() == 1) throw Unlucky("after submitting");
                                        }),
                                        {.max_retries = 1});
  runner().run_all();
  EXPECT_EQ(children, 5);
  EXPECT_THAT(client_.jobs().tasks(job.id), SizeIs(6));
}

TEST_F(RunnerTest, RefusesDependenciesOnAnotherTasksSubtasks) {
  FutureTask foreign;
  client_.jobs().submit("one", scripted([&](Context& context) { foreign = context.submit_subtask(Empty{}); }));
  runner().run_all();
  const Job job = client_.jobs().submit(
      "two", scripted([&](Context& context) { context.submit_subtask(Empty{}, {.depends_on = foreign}); }));
  runner().run_all();
  const Job found = client_.jobs().find(job.id);
  EXPECT_EQ(found.state, JobState::failed);
  EXPECT_EQ(found.error_type, "waymark::Error");
  EXPECT_THAT(found.error, HasSubstr("another execution"));
}

TEST_F(RunnerTest, SkipsWhatIsLeftOfAFailedJobAndStopsWhatRuns) {
  std::binary_semaphore runs(0);
  const auto endless = scripted([&](Context& context) {
    std::mutex mutex;
    std::condition_variable_any stopped;
    std::unique_lock lock(mutex);
    runs.release();
    stopped.wait(lock, context.stop_token(), [] { return false; });
    throw Stopped();
  });
  const auto failing = scripted([&](Context&) {
    runs.acquire();
    throw Unlucky("bad tile");
  });
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          const auto one = context.submit_subtask(endless);
                                          const auto two = context.submit_subtask(failing);
                                          context.submit_subtask(Empty{}, {.depends_on = {one, two}});
                                        }));
  runner(quick(2)).run_all();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::failed);
  std::vector<TaskState> states;
  for (const TaskInfo& task : client_.jobs().tasks(job.id)) states.push_back(task.state);
  EXPECT_THAT(states, ElementsAre(TaskState::computed, TaskState::canceled, TaskState::failed, TaskState::skipped));
  expect_enclosing(spans(), 2);
  EXPECT_EQ(spans_named("subtasks/Scripted").at(0).status, StatusCode::error);
}

TEST_F(RunnerTest, DoesNotRetryWhatIsNotRetryable) {
  std::atomic<int> attempts{0};
  const Job job = client_.jobs().submit("job", scripted([&](Context&) {
                                          ++attempts;
                                          throw NonRetryable("the scene does not exist");
                                        }),
                                        {.max_retries = 5});
  runner().run_all();
  EXPECT_EQ(attempts, 1);
  EXPECT_EQ(client_.jobs().find(job.id).error_type, "waymark::NonRetryable");
}

TEST_F(RunnerTest, FailsATaskWhoseInputDoesNotFit) {
  const Job job = client_.jobs().submit("job", task_name<Tile>(), R"({"scene_id": 7})");
  runner().run_all();
  const Job found = client_.jobs().find(job.id);
  EXPECT_EQ(found.state, JobState::failed);
  EXPECT_THAT(found.error, HasSubstr("the input of task Tile does not fit its type"));
}

TEST_F(RunnerTest, SurvivesWhateverATaskThrows) {
  const Job job = client_.jobs().submit("job", scripted([](Context&) { throw 7; }));
  runner().run_all();
  EXPECT_EQ(client_.jobs().find(job.id).error_type, "int");
}

TEST_F(RunnerTest, ShowsProgressWhileATaskRuns) {
  std::binary_semaphore seen(0);
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          const Progress tiles = context.progress("tiles");
                                          tiles.add(4);
                                          tiles.done();
                                          context.progress("tiles").done(2);
                                          seen.acquire();
                                        }));
  std::thread run([&] { runner().run_all(); });
  std::mutex mutex;
  std::condition_variable told;
  bool changed = true;
  const auto watch = client_.store().watch([&] {
    const std::scoped_lock lock(mutex);
    changed = true;
    told.notify_all();
  });
  for (;;) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(told.wait_for(lock, 20s, [&] { return changed; }));
    changed = false;
    lock.unlock();
    const auto progress = client_.jobs().find(job.id).progress;
    if (progress == std::vector<ProgressCount>{{"tiles", 3, 4}}) break;
  }
  seen.release();
  run.join();
}

TEST_F(RunnerTest, TakesNothingMoreOnceAskedToStop) {
  std::stop_source stop;
  std::atomic<int> started{0};
  const auto waits = scripted([&](Context& context) {
    ++started;
    stop.request_stop();
    std::mutex mutex;
    std::condition_variable_any asked;
    std::unique_lock lock(mutex);
    asked.wait(lock, context.stop_token(), [] { return false; });
    if (context.attempt() == 1) throw Stopped();
  });
  const Job job = client_.jobs().submit("one", waits);
  client_.jobs().submit("two", waits);
  runner(quick(1)).run_forever(stop.get_token());
  EXPECT_EQ(started, 1);
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::running);
  const auto tasks = client_.jobs().tasks(job.id);
  EXPECT_EQ(tasks[0].state, TaskState::ready);
  EXPECT_EQ(tasks[0].failures, 0u);
  EXPECT_EQ(text(spans_named("task/Scripted").at(0).attributes, "workflow.outcome"), "released");
}

TEST_F(RunnerTest, WaitsForAJobAsLongAsItIsTold) {
  const Job job = client_.jobs().submit("job", Empty{});
  EXPECT_FALSE(client_.jobs().wait(job.id, 1ms).finished());
  std::thread run([&] { runner().run_all(); });
  EXPECT_TRUE(client_.jobs().wait(job.id).finished());
  run.join();
  try {
    (void)client_.jobs().find("no-such-job");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::not_found);
  }
}

TEST_F(RunnerTest, RunsALayeredJobOfAllToAllDependencies) {
  std::array<std::atomic<int>, 10> done{};
  std::atomic<int> early{0};
  std::vector<Scripted> units;
  for (std::size_t layer = 0; layer < done.size(); ++layer) {
    units.push_back(scripted([&, layer](Context&) {
      if (layer > 0 && done[layer - 1] < 40) ++early;
      ++done[layer];
    }));
  }
  const Job job = client_.jobs().submit("layers", scripted([&](Context& context) {
                                          FutureTasks before;
                                          for (const Scripted& unit : units) {
                                            before = context.submit_subtasks(std::vector<Scripted>(40, unit),
                                                                             {.depends_on = before});
                                          }
                                        }));
  runner(quick(4)).run_all();
  for (const auto& layer : done) EXPECT_EQ(layer, 40);
  EXPECT_EQ(early, 0) << "none before all of the layer before it";
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
}

// ------ leases

TEST_F(RunnerTest, TellsATaskThatItsLeaseWasLostAndRefusesItsResult) {
  std::atomic<int> executions{0};
  std::atomic<bool> was_told{false};
  std::binary_semaphore runs(0);
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          if (++executions > 1) return;
                                          std::mutex mutex;
                                          std::condition_variable_any stopped;
                                          std::unique_lock lock(mutex);
                                          runs.release();
                                          stopped.wait(lock, context.stop_token(), [] { return false; });
                                          was_told = true;
                                          context.submit_subtask(Empty{});
                                        }));
  RunnerOptions o = quick(2);
  o.lease = 300ms;
  Runner r = runner(o);
  std::thread run([&] { r.run_all(); });
  runs.acquire();
  // As if another had found this runner dead.
  const auto store = open_store(options().store);
  const auto tasks = client_.jobs().tasks(job.id);
  const std::vector<LostAttempt> lost = {
      {.task = std::stoll(tasks[0].id), .end = tasks[0].started_at, .charged = true}};
  const WorkerId by = store->join({.runner = "other", .name = {}, .host = {}, .tasks = {}});
  EXPECT_EQ(store->release(by, r.id(), lost, 3).tasks, 1u);
  run.join();
  EXPECT_TRUE(was_told);
  EXPECT_EQ(executions, 2);
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_THAT(client_.jobs().tasks(job.id), SizeIs(1)) << "what the lost attempt had submitted is not there";
  const auto attempts = spans_named("task/Scripted");
  ASSERT_THAT(attempts, SizeIs(2));
  EXPECT_EQ(text(attempts[0].attributes, "workflow.lease_lost"), "true");
  EXPECT_EQ(attempts[0].status, StatusCode::error);
  EXPECT_EQ(text(attempts[1].attributes, "workflow.attempt"), "2");
  EXPECT_EQ(text(attempts[1].attributes, "workflow.lost_attempts"), "1");
}

Recovered found_dead(std::vector<InterruptedSpan> spans) {
  Recovered recovered;
  recovered.interrupted = std::move(spans);
  return recovered;
}

InterruptedSpan open_attempt(const std::string& runner, int task, std::uint64_t thread, int started, bool crashed) {
  InterruptedSpan span;
  span.name = "task/T";
  span.attributes = {{"task_id", AnyValue{std::to_string(task)}},
                     {"workflow.attempt", AnyValue{std::int64_t{1}}},
                     {"workflow.runner.id", AnyValue{runner}}};
  span.start = Timestamp(std::chrono::seconds(started));
  span.end = Timestamp(std::chrono::seconds(99));
  span.thread_id = thread;
  span.crashed_here = crashed;
  return span;
}

TEST(LostRunnersTest, ChargesEverythingThatRanWhereNobodyKnowsWhatCrashed) {
  const auto lost = lost_runners(found_dead({open_attempt("a", 1, 10, 1, false), open_attempt("a", 2, 11, 2, false)}));
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_EQ(lost[0].runner, "a");
  ASSERT_THAT(lost[0].attempts, SizeIs(2));
  EXPECT_TRUE(lost[0].attempts[0].charged);
  EXPECT_TRUE(lost[0].attempts[1].charged);
  EXPECT_EQ(lost[0].attempts[1].task, 2);
  EXPECT_EQ(lost[0].attempts[1].end, Timestamp(99s));
}

TEST(LostRunnersTest, ChargesOnlyWhatTheCrashedThreadExecutedLast) {
  const auto lost = lost_runners(found_dead({open_attempt("a", 1, 10, 1, true), open_attempt("a", 2, 11, 2, false),
                                             open_attempt("a", 3, 10, 3, true), open_attempt("b", 4, 12, 9, false)}));
  ASSERT_THAT(lost, SizeIs(2));
  std::map<std::int64_t, bool> charged;
  for (const auto& l : lost) {
    for (const auto& a : l.attempts) charged[a.task] = a.charged;
  }
  EXPECT_EQ(charged, (std::map<std::int64_t, bool>{{1, false}, {2, false}, {3, true}, {4, false}}));
}

TEST(LostRunnersTest, IgnoresSpansThatAreNoAttempts) {
  InterruptedSpan users = open_attempt("a", 1, 10, 1, false);
  users.name = "read_bands";
  InterruptedSpan strange = open_attempt("a", 1, 10, 1, false);
  strange.attributes[0].second = AnyValue{std::string("not a number")};
  EXPECT_THAT(lost_runners(found_dead({users, strange, {}})), IsEmpty());
}

// ------ names, options

struct Named {
  static constexpr TaskIdentifier identifier{"acme.Named", "v1.2"};
  void execute(Context&) {}
};
struct NamedByFunction {
  static TaskIdentifier identifier() { return {"acme.Function"}; }
  void execute(Context&) {}
};
template <class T>
struct Of {
  void execute(Context&) {}
};
struct BadVersion {
  static constexpr TaskIdentifier identifier{"acme.Bad", "1.2"};
  void execute(Context&) {}
};

TEST(TaskNameTest, IsTheTypesOwnOrWhatItsAuthorSays) {
  struct Local {
    void execute(Context&) {}
  };
  EXPECT_EQ(task_name<Tile>(), (TaskName{"Tile", "v0.0"}));
  EXPECT_EQ(task_name<Local>(), (TaskName{"Local", "v0.0"}));
  EXPECT_EQ(task_name<Named>(), (TaskName{"acme.Named", "v1.2"}));
  EXPECT_EQ(task_name<NamedByFunction>(), (TaskName{"acme.Function", "v0.0"}));
  EXPECT_EQ(task_name<Of<std::vector<int>>>().name.substr(0, 3), "Of<");
}

TEST(TaskNameTest, RefusesWhatIsNoVersionOrNoName) {
  EXPECT_THROW((void)task_name<BadVersion>(), Error);
  for (const char* version : {"", "v", "v1", "v1.", "v.1", "v1.2.3", "v-1.0", "1.0", "v1.x", "v1234567.0"}) {
    EXPECT_THROW((void)detail::checked_name({"name", version}), Error) << version;
  }
  EXPECT_THROW((void)detail::checked_name({""}), Error);
  EXPECT_THROW((void)detail::checked_name({std::string(257, 'n')}), Error);
  EXPECT_EQ(detail::checked_name({std::string(256, 'n'), "v12.34"}).version, "v12.34");
}

TEST(TaskInputTest, IsJsonOrNothing) {
  EXPECT_EQ(task_input(Tile{"S", 3}), R"({"index":3,"scene_id":"S"})");
  EXPECT_EQ(task_input(Empty{}), "");
  try {
    (void)task_input(Tile{"\xff", 3});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(e.what(), HasSubstr("the input of task Tile"));
  }
}

TEST_F(RunnerTest, RefusesTwoTasksOfOneName) {
  try {
    (void)client_.runner<Tile, Empty, Tile>();
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("two tasks are named Tile v0.0"));
  }
}

TEST_F(RunnerTest, RefusesOptionsOutOfRange) {
  EXPECT_THROW((void)runner({.lease = 1ms}), Error);
  EXPECT_THROW((void)runner({.lease = 25h}), Error);
  EXPECT_THROW((void)runner({.max_lost = 0}), Error);
  EXPECT_THROW((void)runner({.backoff = {.initial = 2s, .maximum = 1s, .multiplier = 2}}), Error);
  EXPECT_THROW((void)runner({.backoff = {.initial = 1s, .maximum = 2s, .multiplier = 0.5}}), Error);
}

TEST(FutureTasksTest, MergesAndCounts) {
  EXPECT_TRUE(FutureTasks().empty());
  EXPECT_EQ(FutureTasks().size(), 0u);
  EXPECT_THROW((void)FutureTasks()[0], Error);
}

// ------ throughput: printed, not asserted

struct Burst {
  int tasks = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Burst, tasks)
  void execute(Context& context) { context.submit_subtasks(std::vector<Empty>(static_cast<std::size_t>(tasks))); }
};

TEST_F(RunnerTest, KeepsUpWithEmptyTasks) {
  constexpr int kTasks = 20'000;
  const Job job = client_.jobs().submit("burst", Burst{kTasks});
  const auto start = std::chrono::steady_clock::now();
  client_.runner<Burst, Empty>(quick()).run_all();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  std::cout << "empty tasks: " << static_cast<int>(kTasks / seconds) << " a second\n";
}

}  // namespace
}  // namespace waymark
