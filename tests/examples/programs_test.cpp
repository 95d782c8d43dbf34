// The smaller examples, as a user runs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "runner/temporary_directory.h"
#include "support/command.h"
#include "support/http_server.h"
#include "waymark/reader.h"

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

TEST(WorkflowTestTest, ItsTestsPassAndSeeADifferentTrace) {
  const CommandResult result = testing::run_command({WAYMARK_WORKFLOW_TEST});
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

}  // namespace
}  // namespace waymark
