// Submit here, run there, and kill.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "runner/processes/program.h"
#include "runner/processes/scene.h"
#include "runner/temporary_directory.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::expect_enclosing;

class ProcessesTest : public ::testing::Test {
 protected:
  ProcessesTest()
      : telemetry_(testing::memory_config(memory_)),
        client_({.name = "submitter", .store = directory_.path() + "/store.db", .telemetry = &telemetry_}) {}

  std::unique_ptr<testing::Program> worker(const std::string& behaviour, std::chrono::milliseconds lease, bool state = true) {
    const std::string traces = directory_.path() + "/" + std::to_string(workers_++) + ".jsonl";
    return std::make_unique<testing::Program>(
        RUNNER_WORKER, std::vector<std::string>{directory_.path() + "/store.db", state ? directory_.path() + "/state" : "",
                                                traces, std::to_string(lease.count()), behaviour});
  }

  // What all processes delivered, each span once.
  std::vector<ReadSpan> spans() {
    EXPECT_TRUE(telemetry_.force_flush(10s));
    return testing::delivered_spans(directory_.path(), memory_.spans());
  }

  testing::TemporaryDirectory directory_;
  testing::MemoryDestination memory_;
  Telemetry telemetry_;
  Client client_;
  int workers_ = 0;
};

TEST_F(ProcessesTest, ASignalEndsARunnerInGoodOrderAlsoWhereATaskDoesNotMind) {
  const Job job = client_.jobs().submit("scene", testing::Scene{1});
  auto stubborn = worker("stubborn", 60min);
  ASSERT_EQ(stubborn->line(), "start 0 1");
  stubborn->kill(SIGTERM);
  EXPECT_EQ(stubborn->line(), "bye");
  EXPECT_EQ(stubborn->wait(), 128 + SIGTERM);
  const auto tasks = client_.jobs().tasks(job.id);
  ASSERT_THAT(tasks, SizeIs(3));
  EXPECT_EQ(tasks[1].state, TaskState::ready) << "it was given back";
  EXPECT_EQ(tasks[1].failures, 0u);
  EXPECT_EQ(tasks[1].lost, 0u);
  auto other = worker("compute", 60min);
  EXPECT_EQ(other->line(), "start 0 2");
  EXPECT_EQ(other->line(), "done 0");
  EXPECT_EQ(other->line(), "bye");
  EXPECT_EQ(other->wait(), 0);
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  std::vector<ReadSpan> all = spans();
  // What the task itself had open went on until the process ended.
  EXPECT_EQ(std::erase_if(all, [](const ReadSpan& s) { return find(s.attributes, "workflow.interrupted") != nullptr; }), 1u);
  expect_enclosing(all);
  int released = 0;
  for (const ReadSpan& span : all) {
    const AnyValue* outcome = find(span.attributes, "workflow.outcome");
    released += outcome && to_text(*outcome) == "released";
  }
  EXPECT_EQ(released, 1) << "also the span of the task that still ran";
}

TEST_F(ProcessesTest, AKilledRunnersTaskIsFinishedByTheOtherInOneTrace) {
  const Job job = client_.jobs().submit("scene", testing::Scene{2});
  // A lease so long that only the recovery of its telemetry can tell that it is dead.
  auto doomed = worker("hang", 60min);
  ASSERT_EQ(doomed->line(), "start 0 1");
  auto other = worker("compute", 60min);
  ASSERT_EQ(other->line(), "start 1 1");
  ASSERT_EQ(other->line(), "done 1");
  doomed->kill();
  EXPECT_EQ(doomed->wait(), -SIGKILL);
  EXPECT_EQ(other->line(), "start 0 2");
  EXPECT_EQ(other->line(), "done 0");
  EXPECT_EQ(other->line(), "bye");
  EXPECT_EQ(other->wait(), 0);

  const Job found = client_.jobs().wait(job.id, 0s);
  EXPECT_EQ(found.state, JobState::completed);
  const auto tasks = client_.jobs().tasks(job.id);
  ASSERT_THAT(tasks, SizeIs(4));
  EXPECT_EQ(tasks[1].attempts, 2u);
  EXPECT_EQ(tasks[1].lost, 1u);
  EXPECT_EQ(tasks[2].attempts, 1u);

  EXPECT_EQ(testing::span_tree(spans()),
            "submit/scene\n"
            "job/scene -> submit/scene\n"
            "  task/Scene\n"
            "  subtasks/Scene\n"
            "    task/Tile [error]\n"
            "      read_bands [error]\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Tile -> task/Tile\n"
            "      read_bands\n"
            "    task/Mosaic -> task/Tile\n");
  expect_enclosing(spans());
  for (const ReadSpan& span : spans()) {
    if (span.name != "task/Tile" || span.status != StatusCode::error) continue;
    const AnyValue* interrupted = find(span.attributes, "workflow.interrupted");
    ASSERT_NE(interrupted, nullptr);
    EXPECT_EQ(to_text(*interrupted), "true");
    EXPECT_EQ(find_string(span.attributes, "workflow.job.id"), job.id);
  }
}

TEST_F(ProcessesTest, WithoutAStateDirectoryTheLeaseTells) {
  const Job job = client_.jobs().submit("scene", testing::Scene{1});
  auto doomed = worker("hang", 500ms, false);
  ASSERT_EQ(doomed->line(), "start 0 1");
  auto other = worker("compute", 500ms, false);
  doomed->kill();
  EXPECT_EQ(other->line(), "start 0 2");
  EXPECT_EQ(other->line(), "done 0");
  EXPECT_EQ(other->line(), "bye");
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_EQ(client_.jobs().tasks(job.id)[1].lost, 1u);
}

TEST_F(ProcessesTest, ATaskThatKillsEveryRunnerFailsAfterTheThird) {
  const Job job = client_.jobs().submit("poison", testing::Scene{1});
  for (int i = 1; i <= 3; ++i) {
    auto victim = worker("die", 60min);
    EXPECT_EQ(victim->line(), "start 0 " + std::to_string(i));
    EXPECT_EQ(victim->line(), "");
    EXPECT_EQ(victim->wait(), -SIGKILL);
  }
  auto last = worker("die", 60min);
  EXPECT_EQ(last->line(), "bye");
  EXPECT_EQ(last->wait(), 0);
  const Job found = client_.jobs().find(job.id);
  EXPECT_EQ(found.state, JobState::failed);
  EXPECT_EQ(found.error_type, "runner_lost");
  EXPECT_EQ(testing::span_tree(spans()),
            "submit/poison\n"
            "job/poison [error] -> submit/poison\n"
            "  task/Scene\n"
            "  subtasks/Scene [error]\n"
            "    task/Tile [error]\n"
            "      read_bands [error]\n"
            "    task/Tile [error] -> task/Tile\n"
            "      read_bands [error]\n"
            "    task/Tile [error] -> task/Tile\n"
            "      read_bands [error]\n");
  expect_enclosing(spans());
}

TEST_F(ProcessesTest, WhereTheCrashIsKnownOnlyTheTaskThatCrashedIsCharged) {
  // A sanitizer must leave the crash to the runner.
  setenv("ASAN_OPTIONS", "handle_segv=0", 1);
  setenv("TSAN_OPTIONS", "handle_segv=0", 1);
  const Job poison = client_.jobs().submit("poison", testing::Scene{1});
  const Job innocent = client_.jobs().submit("innocent", testing::Scene{1});
  for (int i = 1; i <= 3; ++i) {
    auto victim = worker("crash", 60min);
    // In either order: both run at once.
    EXPECT_EQ(victim->line(), "start 0 " + std::to_string(i));
    EXPECT_EQ(victim->line(), "start 0 " + std::to_string(i));
    EXPECT_EQ(victim->line(), "");
    EXPECT_EQ(victim->wait(), -SIGSEGV);
  }
  auto last = worker("compute", 60min);
  EXPECT_EQ(last->line(), "start 0 4");
  EXPECT_EQ(last->line(), "done 0");
  EXPECT_EQ(last->line(), "bye");
  EXPECT_EQ(last->wait(), 0);

  const Job failed = client_.jobs().find(poison.id);
  EXPECT_EQ(failed.state, JobState::failed);
  EXPECT_EQ(failed.error_type, "runner_lost");
  EXPECT_EQ(client_.jobs().tasks(poison.id)[1].lost, 3u);
  EXPECT_EQ(client_.jobs().find(innocent.id).state, JobState::completed);
  EXPECT_EQ(client_.jobs().tasks(innocent.id)[1].lost, 0u);
  EXPECT_EQ(client_.jobs().tasks(innocent.id)[1].attempts, 4u);

  std::size_t told = 0;
  for (const ReadSpan& span : spans()) {
    for (const ReadEvent& event : span.events) {
      if (event.name != "exception") continue;
      ++told;
      EXPECT_EQ(span.name, "read_bands");
      EXPECT_EQ(find_string(event.attributes, "exception.message"), "SIGSEGV: address not mapped at 0x8");
    }
  }
  EXPECT_EQ(told, 3u);
}

}  // namespace
}  // namespace waymark
