// The `waymark` command as a person runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/command.h"

namespace waymark {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;
using waymark::testing::CommandResult;

constexpr const char* kTraceId = "4bf92f3577b34da6a3ce929d0e0e4736";

class CommandTest : public ::testing::Test {
 protected:
  CommandTest() {
    std::string pattern = ::testing::TempDir() + "command_XXXXXX";
    directory = mkdtemp(pattern.data());
  }
  ~CommandTest() override { std::filesystem::remove_all(directory); }

  static CommandResult waymark(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), WAYMARK_COMMAND);
    return waymark::testing::run_command(arguments, "env -u OTEL_TRACES_ENDPOINT -u OTEL_LOGS_ENDPOINT COLUMNS=80");
  }
  static void expect_refusal(const std::vector<std::string>& arguments, const std::string& what) {
    const CommandResult result = waymark(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_THAT(result.output, StartsWith("waymark: "));
    EXPECT_THAT(result.output, HasSubstr(what));
    EXPECT_EQ(std::ranges::count(result.output, '\n'), 1) << result.output;
  }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(directory / name) << text;
    return (directory / name).string();
  }
  // Two spans of one trace, as a file export writes them.
  std::string traces() const {
    const std::string id = kTraceId;
    return write("traces.jsonl",
                 R"({"resourceSpans":[{"scopeSpans":[{"spans":[)"
                 R"({"traceId":")" + id + R"(","spanId":"00f067aa0ba902b7","name":"job/earth","kind":1,)"
                 R"("startTimeUnixNano":"1800000000000000000","endTimeUnixNano":"1800000002000000000",)"
                 R"("attributes":[{"key":"workflow.job.id","value":{"stringValue":"0197aaaa"}}]},)"
                 R"({"traceId":")" + id + R"(","spanId":"00f067aa0ba902b8","parentSpanId":"00f067aa0ba902b7","name":"task/Tile",)"
                 R"("kind":1,"startTimeUnixNano":"1800000000000000000","endTimeUnixNano":"1800000001000000000"}]}]}]})"
                 "\n");
  }

  std::filesystem::path directory;
};

TEST_F(CommandTest, SaysItsVersion) {
  const CommandResult result = waymark({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, MatchesRegex("waymark [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(CommandTest, ExplainsEachCommand) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--help"}, {"trace", "--help"}, {"recover", "--help"}}) {
    const CommandResult result = waymark(arguments);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.output, HasSubstr("--help"));
  }
}

TEST_F(CommandTest, RefusesWhatItDoesNotKnowInOneLine) {
  expect_refusal({}, "subcommand");
  expect_refusal({"tracee"}, "tracee");
  expect_refusal({"trace"}, "path");
  expect_refusal({"trace", traces(), "--wide"}, "--wide");
  expect_refusal({"trace", traces(), "--width", "seven"}, "--width");
  expect_refusal({"recover"}, "directory");
}

TEST_F(CommandTest, RefusesWhatIsNotThereInOneLine) {
  expect_refusal({"trace", "/nowhere/traces.jsonl"}, "/nowhere/traces.jsonl: no such file or directory");
  expect_refusal({"trace", traces(), "/nowhere/logs.jsonl"}, "/nowhere/logs.jsonl: no such file or directory");
  expect_refusal({"trace", traces(), "--job", "0199"}, "no trace there belongs to job 0199");
  expect_refusal({"recover", "/nowhere/state"}, "/nowhere/state: no such directory");
  expect_refusal({"recover", directory.string()}, "OTEL_TRACES_ENDPOINT");
  expect_refusal({"recover", directory.string(), "--endpoint", "localhost"}, "localhost");
  expect_refusal({"recover", directory.string(), "--endpoint", "http://localhost:1", "--logs-file", "x"}, "--logs-file");
}

TEST_F(CommandTest, DrawsAFile) {
  const CommandResult result = waymark({"trace", traces()});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, StartsWith(std::string("trace ") + kTraceId + "  job/earth\n"));
  EXPECT_THAT(result.output, HasSubstr("└─task/Tile"));
  EXPECT_THAT(result.output, Not(HasSubstr("\x1b")));
}

TEST_F(CommandTest, DrawsOneJob) {
  EXPECT_EQ(waymark({"trace", traces(), "--job", "0197"}).exit_code, 0);
}

TEST_F(CommandTest, SaysWhereAFileIsDamaged) {
  const CommandResult result = waymark({"trace", write("bad.jsonl", "{\"resourceSpans\":[]}\n{nonsense}\n")});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("bad.jsonl:2"));
}

TEST_F(CommandTest, SaysThatAFileHoldsNoSpans) {
  const CommandResult result = waymark({"trace", write("empty.jsonl", "")});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("no spans"));
}

}  // namespace
}  // namespace waymark
