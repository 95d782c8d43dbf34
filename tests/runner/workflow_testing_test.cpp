// The kit that users test their workflows with.
#include "waymark/workflow_testing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "runner/temporary_directory.h"
#include "runner/workflow.h"
#include "waymark/error.h"

namespace waymark {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::Workbench;

TEST(WorkbenchTest, RunsAWorkflowAndShowsItsTrace) {
  Workbench bench;
  const Job job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1", 2});
  EXPECT_EQ(job.state, JobState::completed);
  EXPECT_EQ(bench.trace(),
            "job/scene -> submit/scene\n"
            "  task/ProcessScene\n"
            "  subtasks/ProcessScene\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Mosaic -> task/Tile\n"
            "submit/scene\n");
  EXPECT_THAT(bench.logs(), SizeIs(3));
  expect_enclosing(bench.spans(), 2);
}

TEST(WorkbenchTest, FailsTheAttemptsThatFit) {
  Workbench bench;
  bench.fail<Tile>({.attempt = 1, .where = [](const Tile& tile) { return tile.index == 1; }}, "no such band");
  const Job job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1", 2});
  EXPECT_EQ(job.state, JobState::completed);
  const auto tasks = bench.jobs().tasks(job.id);
  EXPECT_EQ(tasks.at(1).attempts, 1u);
  EXPECT_EQ(tasks.at(2).attempts, 2u);
  EXPECT_EQ(bench.trace(),
            "job/scene -> submit/scene\n"
            "  task/ProcessScene\n"
            "  subtasks/ProcessScene\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Tile [error]\n"
            "    task/Tile -> task/Tile\n"
            "      read_bands\n"
            "    task/Mosaic -> task/Tile\n"
            "submit/scene\n");
  expect_enclosing(bench.spans(), 2);
}

TEST(WorkbenchTest, FailsAJobWhoseTaskFailsEachTime) {
  Workbench bench;
  bench.fail<Tile>({.attempt = 0}, "no such band");
  const Job job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1", 1});
  EXPECT_EQ(job.state, JobState::failed);
  EXPECT_EQ(job.error, "no such band");
  EXPECT_EQ(bench.jobs().tasks(job.id).at(1).attempts, 4u);
}

TEST(WorkbenchTest, DelaysAndBackoffsPassOnItsClockOnly) {
  Workbench bench;
  bench.fail<Empty>({.attempt = 0});
  const Timestamp start = bench.clock().now();
  const Job job = bench.run<Empty>("late", Empty{}, {.max_retries = 3,
                                                  .backoff = RetryConfig{.initial = 1h, .maximum = 24h, .jitter = 0},
                                                  .delay = 24h * 10});
  EXPECT_EQ(job.state, JobState::failed);
  EXPECT_EQ(bench.clock().now() - start, 24h * 10 + 1h + 2h + 4h + 4ms) << "four attempts of a millisecond each";
  EXPECT_EQ(job.finished_at, bench.clock().now());
}

TEST(WorkbenchTest, AnAttemptThatIsTooSlowFailsByItsTimeout) {
  Workbench bench;
  bench.time_out<Empty>();
  const Timestamp start = bench.clock().now();
  const Job job = bench.run<Empty>("slow", Empty{}, {.max_retries = 1, .timeout = 10min});
  EXPECT_EQ(job.state, JobState::completed);
  EXPECT_GE(bench.clock().now() - start, 10min);
  const auto tasks = bench.jobs().tasks(job.id);
  EXPECT_EQ(tasks.at(0).attempts, 2u);
  EXPECT_EQ(tasks.at(0).failures, 1u);
  const auto spans = bench.spans();
  const auto attempt = std::ranges::find_if(spans, [](const ReadSpan& s) { return s.name == "task/Empty"; });
  ASSERT_NE(attempt, spans.end());
  EXPECT_EQ(find_string(attempt->attributes, "error.type"), "timeout");
  EXPECT_EQ(attempt->end - attempt->start, 10min + 1ms);
}

TEST(WorkbenchTest, ATaskWithoutATimeoutIsNeverTooSlow) {
  Workbench bench;
  bench.time_out<Empty>();
  const Job job = bench.run<Empty>("slow", Empty{}, {.max_retries = 1});
  EXPECT_EQ(job.state, JobState::failed);
  EXPECT_THAT(job.error, HasSubstr("task Empty has no timeout"));
}

TEST(WorkbenchTest, WhatALostRunnerDidIsRefusedAndDoneAgain) {
  Workbench bench;
  bench.lose_runner<Tile>();
  const Job job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1", 1});
  EXPECT_EQ(job.state, JobState::completed);
  const auto tasks = bench.jobs().tasks(job.id);
  EXPECT_EQ(tasks.at(1).attempts, 2u);
  EXPECT_EQ(tasks.at(1).lost, 1u);
  EXPECT_EQ(tasks.at(1).failures, 0u);
  const auto all = bench.spans();
  const auto lost = std::ranges::find_if(
      all, [](const ReadSpan& s) { return find(s.attributes, "workflow.lease_lost") != nullptr; });
  ASSERT_NE(lost, all.end());
  EXPECT_EQ(lost->name, "task/Tile");
  EXPECT_EQ(bench.trace(),
            "job/scene -> submit/scene\n"
            "  task/ProcessScene\n"
            "  subtasks/ProcessScene\n"
            "    task/Tile [error]\n"
            "      read_bands\n"
            "    task/Tile -> task/Tile\n"
            "      read_bands\n"
            "    task/Mosaic -> task/Tile\n"
            "submit/scene\n");
}

TEST(WorkbenchTest, ATaskThatLosesEveryRunnerFails) {
  Workbench bench;
  bench.lose_runner<Tile>({.attempt = 0});
  const Job job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1", 1});
  EXPECT_EQ(job.state, JobState::failed);
  EXPECT_EQ(job.error_type, "runner_lost");
  EXPECT_EQ(bench.jobs().tasks(job.id).at(1).lost, 3u);
  // Also the spans that were closed while nobody ran.
  EXPECT_THAT(bench.trace(), HasSubstr("job/scene [error]"));
  EXPECT_THAT(bench.trace(), HasSubstr("subtasks/ProcessScene [error]"));
}

TEST(WorkbenchTest, TheSameWorkflowGivesTheSameTraceEachTime) {
  const auto times = [] {
    Workbench bench;
    bench.fail<Tile>();
    (void)bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1", 8});
    std::vector<std::string> all;
    for (const ReadSpan& span : bench.spans()) {
      all.push_back(span.name + " " + std::to_string(span.start.time_since_epoch().count()) + " " +
                    std::to_string(span.end.time_since_epoch().count()));
    }
    std::sort(all.begin(), all.end());
    return all;
  };
  const auto first = times();
  EXPECT_THAT(first, SizeIs(1 + 1 + 2 + 2 * 8 + 8 + 1));
  EXPECT_EQ(times(), first);
}

TEST(WorkbenchTest, TwoBenchesHaveNothingInCommon) {
  Workbench one, other;
  const Job job = one.run<Empty>("mine", Empty{});
  EXPECT_THAT(other.jobs().query().jobs, IsEmpty());
  EXPECT_THAT(other.spans(), IsEmpty());
  EXPECT_THAT(one.jobs().query().jobs, SizeIs(1));
  EXPECT_EQ(job.state, JobState::completed);
}

class GoldenTest : public ::testing::Test {
 protected:
  ~GoldenTest() override { unsetenv("WAYMARK_UPDATE_GOLDEN"); }
  static std::string read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  testing::TemporaryDirectory directory_;
  std::string path_ = directory_.path() + "/traces/scene.txt";
};

TEST_F(GoldenTest, WritesTheFileWhereItIsAskedToAndComparesElse) {
  setenv("WAYMARK_UPDATE_GOLDEN", "1", 1);
  EXPECT_EQ(testing::golden_difference(path_, "a\nb\n"), "");
  EXPECT_EQ(read(path_), "a\nb\n");
  unsetenv("WAYMARK_UPDATE_GOLDEN");
  EXPECT_EQ(testing::golden_difference(path_, "a\nb\n"), "");
  EXPECT_NE(testing::golden_difference(path_, "a\nb"), "");
  EXPECT_EQ(read(path_), "a\nb\n");
}

TEST_F(GoldenTest, ShowsTheLinesThatDiffer) {
  setenv("WAYMARK_UPDATE_GOLDEN", "1", 1);
  (void)testing::golden_difference(path_, "a\nb\nc\nd\n");
  setenv("WAYMARK_UPDATE_GOLDEN", "0", 1);
  EXPECT_EQ(testing::golden_difference(path_, "a\nx\nd\n"),
            path_ + ", from line 2 (WAYMARK_UPDATE_GOLDEN=1 writes it anew):\n- b\n- c\n+ x\n");
}

TEST_F(GoldenTest, AFileThatIsNotThereHasNoLines) {
  EXPECT_THAT(testing::golden_difference(path_, "a\n"), HasSubstr("\n+ a\n"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(GoldenTest, SaysWhyAFileCannotBeRead) {
  std::ofstream(directory_.path() + "/traces") << "a file where a directory should be";
  try {
    (void)testing::golden_difference(path_, "a\n");
    FAIL() << "it was read";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::io);
    EXPECT_THAT(e.what(), HasSubstr("golden file " + path_));
  }
}

}  // namespace
}  // namespace waymark
