// Tasks in worker processes, and what they do to these.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "runner/processes/act.h"
#include "runner/processes/program.h"
#include "runner/temporary_directory.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using testing::Act;
using testing::expect_enclosing;

class IsolationTest : public ::testing::Test {
 protected:
  IsolationTest()
      : telemetry_(testing::memory_config(memory_)),
        client_({.name = "submitter", .store = directory_.path() + "/store.db", .telemetry = &telemetry_}) {
    // A sanitizer must leave the crash to the program.
    setenv("ASAN_OPTIONS", "handle_segv=0", 1);
    setenv("TSAN_OPTIONS", "handle_segv=0", 1);
  }

  std::unique_ptr<testing::Program> start(const std::string& mode) {
    const std::string traces = directory_.path() + "/" + std::to_string(programs_++) + ".jsonl";
    return std::make_unique<testing::Program>(
        RUNNER_ISOLATED,
        std::vector<std::string>{directory_.path() + "/store.db", directory_.path() + "/state", traces, mode});
  }
  Job submit(const std::string& what, const JobOptions& options = {}, const std::string& with = {}) {
    return client_.jobs().submit(what, Act{what, with}, options);
  }

  // What all processes have delivered; what a dead one has left is taken over now, if nobody has.
  std::vector<ReadSpan> spans() {
    Config config;
    config.resource = Resource("isolated");
    config.state_directory = directory_.path() + "/state";
    DestinationConfig file;
    file.name = "file";
    file.signal = Signal::traces;
    file.output = Output::file;
    file.path = directory_.path() + "/left.jsonl";
    config.destinations.push_back(file);
    Telemetry last(std::move(config));
    last.recover();
    EXPECT_TRUE(last.force_flush(10s));
    EXPECT_TRUE(telemetry_.force_flush(10s));
    return testing::delivered_spans(directory_.path(), memory_.spans());
  }
  static std::vector<ReadSpan> interrupted(std::vector<ReadSpan> spans) {
    std::erase_if(spans, [](const ReadSpan& s) {
      return !s.name.starts_with("task/") || find(s.attributes, "workflow.interrupted") == nullptr;
    });
    return spans;
  }
  static std::string text(const ReadSpan& span, std::string_view key) {
    const AnyValue* value = find(span.attributes, key);
    return value ? to_text(*value) : "(none)";
  }

  testing::TemporaryDirectory directory_;
  testing::MemoryDestination memory_;
  Telemetry telemetry_;
  Client client_;
  int programs_ = 0;
};

// The process's id in "start PROCESS ATTEMPT".
std::string process_of(const std::string& line) {
  const auto space = line.find(' ');
  return line.substr(space + 1, line.rfind(' ') - space - 1);
}

TEST_F(IsolationTest, ASegmentationFaultFailsOneAttemptAndNotTheRunner) {
  const Job job = submit("crash", {.max_retries = 1});
  auto program = start("serve");
  const std::string first = program->line("start");
  const std::string second = program->line("start");
  EXPECT_THAT(first, ::testing::EndsWith(" 1"));
  EXPECT_THAT(second, ::testing::EndsWith(" 2"));
  EXPECT_NE(process_of(first), process_of(second)) << "a new worker takes its place";
  EXPECT_NE(process_of(first), std::to_string(program->id()));
  EXPECT_EQ(client_.jobs().wait(job.id, 60s).state, JobState::completed);
  EXPECT_EQ(program->line("recovered task"), "recovered task/Act") << "while the runner lives";
  program->kill(SIGTERM);
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(program->wait(), 128 + SIGTERM);

  const auto tasks = client_.jobs().tasks(job.id);
  ASSERT_THAT(tasks, SizeIs(1));
  EXPECT_EQ(tasks[0].attempts, 2u);
  EXPECT_EQ(tasks[0].failures, 1u);
  EXPECT_EQ(tasks[0].lost, 0u);
  const std::vector<ReadSpan> all = spans();
  EXPECT_EQ(testing::span_tree(all),
            "submit/crash\n"
            "job/crash -> submit/crash\n"
            "  task/Act [error]\n"
            "    act [error]\n"
            "  task/Act -> task/Act\n"
            "    act\n");
  expect_enclosing(all);
  const auto dead = interrupted(all);
  ASSERT_THAT(dead, SizeIs(1));
  EXPECT_EQ(text(dead[0], "workflow.job.id"), job.id);
  EXPECT_EQ(text(dead[0], "workflow.attempt"), "1");
  EXPECT_EQ(text(dead[0], "workflow.worker.pid"), process_of(first));
  std::string said;
  for (const ReadSpan& span : all) {
    for (const ReadEvent& event : span.events) said += find_string(event.attributes, "exception.message");
  }
  EXPECT_EQ(said, "SIGSEGV: address not mapped at 0x8");
}

TEST_F(IsolationTest, AWorkerThatDiesForGoodFailsTheJobWithItsSignal) {
  const Job job = submit("exit", {.max_retries = 1});
  auto program = start("all");
  const std::string first = program->line("start");
  const std::string second = program->line("start");
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(program->wait(), 0);
  const Job failed = client_.jobs().find(job.id);
  EXPECT_EQ(failed.state, JobState::failed);
  EXPECT_EQ(failed.error_type, "worker_lost");
  EXPECT_EQ(failed.error, "worker process " + process_of(second) + " ended with exit code 7");
}

TEST_F(IsolationTest, SubtasksProgressStepsCacheAndNamesAreAsInTheRunnersProcess) {
  const Job job = submit("scene", {.max_retries = 1}, "S2A");
  auto program = start("all");
  const std::string first = program->line("start");
  EXPECT_EQ(program->line("made"), "made S2A in " + process_of(first)) << "the step was done once";
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(program->wait(), 0);
  const Job done = client_.jobs().find(job.id);
  EXPECT_EQ(done.state, JobState::completed);
  ASSERT_THAT(done.progress, SizeIs(1));
  EXPECT_EQ(done.progress[0].label, "tiles");
  EXPECT_EQ(done.progress[0].done, 3u);
  EXPECT_EQ(done.progress[0].total, 4u);
  const auto tasks = client_.jobs().tasks(job.id);
  ASSERT_THAT(tasks, SizeIs(4));
  EXPECT_EQ(tasks[0].display, "scene S2A");
  EXPECT_EQ(tasks[0].attempts, 2u);
  EXPECT_EQ(tasks[0].failures, 1u);
  EXPECT_EQ(tasks[3].display, "the mosaic");
  const std::vector<ReadSpan> all = spans();
  EXPECT_THAT(interrupted(all), SizeIs(0));
  expect_enclosing(all);
  EXPECT_EQ(testing::span_tree(all),
            "submit/scene\n"
            "job/scene -> submit/scene\n"
            "  task/Act [error]\n"
            "    act [error]\n"
            "      step/download\n"
            "  task/Act -> task/Act\n"
            "    act\n"
            "  subtasks/Act\n"
            "    task/Act\n"
            "      act\n"
            "    task/Act\n"
            "      act\n"
            "    task/Act -> task/Act\n"
            "      act\n");
}

TEST_F(IsolationTest, AWorkerIsUsedForManyTasks) {
  auto program = start("serve");
  std::string process;
  for (int i = 0; i < 5; ++i) {
    const Job job = submit("compute");
    const std::string line = program->line("start");
    if (i == 0) process = process_of(line);
    EXPECT_EQ(process_of(line), process);
    EXPECT_EQ(client_.jobs().wait(job.id, 60s).state, JobState::completed);
  }
}

TEST_F(IsolationTest, ACancelReachesATaskInItsWorker) {
  auto program = start("serve");
  const Job job = submit("wait");
  ASSERT_THAT(program->line("start"), HasSubstr("start"));
  client_.jobs().cancel(job.id);
  EXPECT_EQ(program->line("stopped"), "stopped");
  EXPECT_EQ(client_.jobs().wait(job.id, 60s).state, JobState::canceled);
}

TEST_F(IsolationTest, ATimeoutKillsAWorkerThatHangsAndTheThreadGoesOn) {
  const Job job = submit("hang", {.timeout = 20ms});
  auto program = start("serve");
  const std::string first = program->line("start");
  const Job failed = client_.jobs().wait(job.id, 60s);
  EXPECT_EQ(failed.state, JobState::failed);
  EXPECT_EQ(failed.error_type, "timeout");
  EXPECT_THAT(failed.error, AllOf(HasSubstr("0.02 s"), HasSubstr("worker process " + process_of(first) + " died of SIGKILL")));
  const Job next = submit("compute");
  EXPECT_NE(process_of(program->line("start")), process_of(first));
  EXPECT_EQ(client_.jobs().wait(next.id, 60s).state, JobState::completed);
}

TEST_F(IsolationTest, ATimeoutThatTheTaskHeedsSparesItsWorker) {
  auto program = start("serve");
  const Job job = submit("wait", {.timeout = 20ms});
  const std::string first = program->line("start");
  const Job failed = client_.jobs().wait(job.id, 60s);
  EXPECT_EQ(failed.error_type, "timeout");
  EXPECT_EQ(failed.error, "it ran longer than its timeout of 0.02 s");
  const Job next = submit("compute");
  EXPECT_EQ(process_of(program->line("start")), process_of(first));
}

TEST_F(IsolationTest, WhenTheRunnerIsKilledItsWorkersEndAndAnotherRunnerDoesTheirTasks) {
  const Job job = submit("hang");
  auto doomed = start("serve");
  ASSERT_THAT(doomed->line("start"), ::testing::EndsWith(" 1"));
  auto other = start("serve");
  const Job ready = submit("compute");
  ASSERT_THAT(other->line("start"), ::testing::EndsWith(" 1"));
  doomed->kill();
  EXPECT_EQ(doomed->line("bye"), "") << "its workers have closed the pipe, too";
  EXPECT_THAT(other->line("start"), ::testing::EndsWith(" 2"));
  EXPECT_EQ(client_.jobs().wait(job.id, 60s).state, JobState::completed);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].lost, 1u);
  other->kill(SIGTERM);
  EXPECT_EQ(other->line("bye"), "bye");
  const auto dead = interrupted(spans());
  ASSERT_THAT(dead, SizeIs(1));
  EXPECT_EQ(text(dead[0], "workflow.runner_lost"), "true");
}

TEST_F(IsolationTest, ADeadWorkersRunnerKeepsItsOtherTasks) {
  // Another runner finds what the dead worker has left, and must not take the worker's runner for dead.
  auto other = start("elsewhere");
  auto program = start("blind");
  const Job job = submit("wait");
  ASSERT_THAT(program->line("start"), ::testing::EndsWith(" 1"));
  const Job crash = submit("crash");
  EXPECT_EQ(client_.jobs().wait(crash.id, 60s).state, JobState::failed);
  EXPECT_EQ(other->line("recovered task"), "recovered task/Act");
  const Job after = submit("compute", {.cluster = "elsewhere"});
  EXPECT_EQ(client_.jobs().wait(after.id, 60s).state, JobState::completed);
  const auto tasks = client_.jobs().tasks(job.id);
  EXPECT_EQ(tasks[0].state, TaskState::running);
  EXPECT_EQ(tasks[0].attempts, 1u);
  EXPECT_EQ(tasks[0].lost, 0u);
  client_.jobs().cancel(job.id);
  EXPECT_EQ(program->line("stopped"), "stopped");
}

TEST_F(IsolationTest, BytesThatAreNoFrameFailTheAttemptAndReplaceTheWorker) {
  const Job job = submit("garbage", {.max_retries = 1});
  auto program = start("all");
  const std::string first = program->line("start");
  const std::string second = program->line("start");
  EXPECT_NE(process_of(first), process_of(second));
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].failures, 1u);
  EXPECT_THAT(client_.jobs().tasks(job.id)[0].error, AllOf(HasSubstr(process_of(first)), HasSubstr("no frame")));
}

TEST_F(IsolationTest, ExceptionsOfAnyTypeTravel) {
  const Job named = submit("throw", {}, "tile 7");
  const Job number = submit("throw a number");
  const Job never = submit("give up", {.max_retries = 5});
  auto program = start("all");
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_THAT(client_.jobs().find(named.id).error_type, HasSubstr("Unlucky"));
  EXPECT_EQ(client_.jobs().find(named.id).error, "no luck with tile 7");
  EXPECT_EQ(client_.jobs().find(number.id).error_type, "int");
  EXPECT_EQ(client_.jobs().find(never.id).error_type, "waymark::NonRetryable");
  EXPECT_EQ(client_.jobs().tasks(never.id)[0].attempts, 1u);
}

TEST_F(IsolationTest, AHugeInputTravelsBothWays) {
  const std::size_t size = 1 << 20;  // more than a channel holds
  const Job job = submit("pass on", {}, std::string(size, 'x'));
  auto program = start("all");
  EXPECT_EQ(program->line("size"), "size " + std::to_string(size));
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
}

TEST_F(IsolationTest, ASignalToAllEndsARunnerInGoodOrder) {
  const Job job = submit("wait");
  auto program = start("serve");
  const std::string first = program->line("start");
  ::kill(std::stoi(process_of(first)), SIGTERM);  // as a supervisor tells every process of a service
  ::kill(std::stoi(process_of(first)), SIGINT);
  program->kill(SIGTERM);
  EXPECT_EQ(program->line("stopped"), "stopped");
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(program->wait(), 128 + SIGTERM);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].state, TaskState::ready) << "it was given back";
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].failures, 0u);
  EXPECT_THAT(interrupted(spans()), SizeIs(0));
}

TEST_F(IsolationTest, ATaskThatDoesNotStopIsKilledAndGivenBack) {
  const Job job = submit("hang");
  auto program = start("serve");
  ASSERT_THAT(program->line("start"), HasSubstr("start"));
  program->kill(SIGTERM);
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(program->wait(), 128 + SIGTERM);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].state, TaskState::ready);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].failures, 0u);
}

TEST_F(IsolationTest, AProgramWhoseWorkersGoAstrayEndsAndGivesItsTasksBack) {
  const Job job = submit("compute");
  auto program = start("astray");
  const std::string error = program->line("error");
  EXPECT_THAT(error, AllOf(HasSubstr("ended with exit code 9"), HasSubstr("has to come to the same client.runner")));
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(program->wait(), 1);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].state, TaskState::ready);
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].failures, 0u);
}

TEST_F(IsolationTest, WhatAProgramSubmitsBeforeItsRunnerIsSubmittedOnce) {
  auto program = start("submit");
  EXPECT_EQ(program->line("bye"), "bye");
  EXPECT_EQ(program->wait(), 0);
  const JobPage page = client_.jobs().query();
  ASSERT_THAT(page.jobs, SizeIs(1));
  EXPECT_EQ(page.jobs[0].state, JobState::completed);
}

TEST(IsolationRefusalTest, RefusesAStoreInMemory) {
  testing::MemoryDestination memory;
  Telemetry telemetry(testing::memory_config(memory));
  Client client({.name = "test", .store = "memory:", .telemetry = &telemetry});
  try {
    (void)client.runner<Act>({.isolation = Isolation::process});
    ADD_FAILURE() << "it was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(e.what(), HasSubstr("RunnerOptions::isolation"));
  }
}

}  // namespace
}  // namespace waymark
