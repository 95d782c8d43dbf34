// The smaller examples, as a user runs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "runner/processes/program.h"
#include "runner/temporary_directory.h"
#include "support/command.h"
#include "support/http_server.h"
#include "waymark/reader.h"
#include "waymark/store.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace waymark {
namespace {

using ::testing::HasSubstr;
using testing::CommandResult;
using testing::HttpReply;
using testing::HttpServer;

void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

nlohmann::json report(const std::string& directory) {
  std::ifstream file(directory + "/report.json");
  return nlohmann::json::parse(file);
}

std::size_t count_spans(const std::string& directory, const std::string& name) {
  const ReadTelemetry telemetry = read_json_file(directory + "/traces.jsonl");
  return static_cast<std::size_t>(
      std::ranges::count_if(telemetry.spans, [&](const ReadSpan& span) { return span.name == name; }));
}

TEST(DownloadTest, TriesAgainWhatABusyServerRefuses) {
  const testing::TemporaryDirectory directory;
  HttpServer server;
  server.script({{.status = 503, .close = true}, {.status = 200, .body = "1 2 3 4", .close = true}});
  const CommandResult result =
      testing::run_command({WAYMARK_DOWNLOAD, server.url("/rain.txt"), "--out", directory.path()});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("job completed, 1 failed attempts"));
  EXPECT_EQ(report(directory.path())[server.url("/rain.txt")],
            (nlohmann::json{{"count", 4}, {"least", 1.0}, {"most", 4.0}, {"mean", 2.5}}));
  EXPECT_EQ(count_spans(directory.path(), "task/Download"), 2u);
}

TEST(DownloadTest, LeavesOutWhatIsNotThereAndReportsTheRest) {
  const testing::TemporaryDirectory directory;
  write(directory.path() + "/a.txt", "10 20");
  const std::string there = "file://" + directory.path() + "/a.txt", missing = "file://" + directory.path() + "/b.txt";
  const CommandResult result =
      testing::run_command({WAYMARK_DOWNLOAD, there, missing, "--out", directory.path() + "/out"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("left out: " + missing));
  EXPECT_EQ(report(directory.path() + "/out")[there]["mean"], 15.0);
  EXPECT_TRUE(report(directory.path() + "/out")[missing].is_null());
  EXPECT_EQ(count_spans(directory.path() + "/out", "task/Download"), 2u) << "what is not there is not tried again";
}

TEST(DownloadTest, RunsItsTasksInOtherProcessesWhereAskedTo) {
  const testing::TemporaryDirectory directory;
  write(directory.path() + "/a.txt", "10 20");
  const std::string url = "file://" + directory.path() + "/a.txt", out = directory.path() + "/out";
  const CommandResult result = testing::run_command({WAYMARK_DOWNLOAD, url, "--out", out, "--isolate"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(report(out)[url]["mean"], 15.0);
  std::size_t isolated = 0;
  for (const ReadSpan& span : read_json_file(out + "/traces.jsonl").spans) {
    if (!span.name.starts_with("task/")) continue;
    ++isolated;
    EXPECT_NE(find(span.attributes, "workflow.worker.pid"), nullptr) << span.name;
  }
  EXPECT_EQ(isolated, 4u);
  EXPECT_EQ(count_spans(out, "submit/download"), 1u);
  EXPECT_EQ(count_spans(out, "job/download"), 1u);
}

TEST(DownloadTest, SaysHowItIsUsed) {
  EXPECT_EQ(testing::run_command({WAYMARK_DOWNLOAD}).exit_code, 2);
  EXPECT_EQ(testing::run_command({WAYMARK_DOWNLOAD, "--what"}).exit_code, 2);
}

TEST(WordCountTest, CountsEveryWordOnceHoweverTheTextIsCut) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/text";
  std::string text;
  for (int i = 0; i < 500; ++i) text += "Tile by tile, the mosaic grows; the END.\n";
  write(path, text);
  const CommandResult whole = testing::run_command({WAYMARK_WORD_COUNT, path, "1"});
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  EXPECT_EQ(whole.output, "1000 the\n1000 tile\n500 by\n500 end\n500 grows\n500 mosaic\n");
  for (const char* parts : {"2", "7", "333"}) {
    EXPECT_EQ(testing::run_command({WAYMARK_WORD_COUNT, path, parts}).output, whole.output) << parts << " parts";
  }
}

TEST(WordCountTest, SaysWhatIsWrong) {
  EXPECT_EQ(testing::run_command({WAYMARK_WORD_COUNT}).exit_code, 2);
  const CommandResult missing = testing::run_command({WAYMARK_WORD_COUNT, "/nowhere"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.output, HasSubstr("/nowhere: could not be read"));
}

TEST(HourlyTest, TilesASceneThatIsInItsDirectoryAndEndsForASignal) {
  const testing::TemporaryDirectory directory;
  setenv("XDG_STATE_HOME", (directory.path() + "/state").c_str(), 1);
  const std::string scenes = directory.path() + "/scenes", scene = scenes + "/a.tif";
  std::filesystem::create_directory(scenes);
  write(scene, "tile by tile");
  std::filesystem::last_write_time(scene, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  testing::MemoryDestination memory;
  Telemetry telemetry(testing::memory_config(memory));
  Client client({.name = "test", .telemetry = &telemetry});   // on the store that is everybody's
  testing::Program program(WAYMARK_HOURLY, {scenes});
  unsetenv("XDG_STATE_HOME");

  std::mutex mutex;
  std::condition_variable told;
  bool changed = false;
  const auto watch = client.store().watch([&] {
    const std::scoped_lock lock(mutex);
    changed = true;
    told.notify_one();
  });
  JobPage page = client.jobs().query();
  for (std::unique_lock lock(mutex); page.jobs.empty(); page = client.jobs().query()) {
    ASSERT_TRUE(told.wait_for(lock, std::chrono::minutes(1), [&] { return changed; })) << "no job came";
    changed = false;
  }
  const Job job = client.jobs().wait(page.jobs[0].id, std::chrono::minutes(1));
  EXPECT_EQ(job.state, JobState::completed);
  EXPECT_EQ(client.jobs().tasks(job.id).at(0).display, "scene " + scene);
  EXPECT_EQ(client.automations().list().size(), 2u);
  program.kill(SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
}

TEST(HourlyTest, SaysHowItIsUsed) {
  EXPECT_EQ(testing::run_command({WAYMARK_HOURLY}).exit_code, 2);
  const CommandResult missing = testing::run_command({WAYMARK_HOURLY, "/nowhere"}, "XDG_STATE_HOME=/dev/null/x");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.output, HasSubstr("hourly: "));
}

TEST(WorkflowTestTest, ItsTestsPassAndSeeADifferentTrace) {
  const CommandResult result = testing::run_command({WAYMARK_WORKFLOW_TEST});
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

}  // namespace
}  // namespace waymark
