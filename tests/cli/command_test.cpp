// The `waymark` command as a person runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/command.h"
#include "support/http_server.h"
#include "support/official.h"
#include "waymark/telemetry.h"

namespace waymark {
namespace {

using ::testing::Contains;
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
       {std::vector<std::string>{"--help"}, {"trace", "--help"}, {"recover", "--help"}, {"config", "--help"},
        {"config", "check", "--help"}, {"status", "--help"}, {"purge", "--help"}}) {
    const CommandResult result = waymark(arguments);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.output, HasSubstr("--help"));
  }
}

TEST_F(CommandTest, RefusesWhatItDoesNotKnowInOneLine) {
  expect_refusal({}, "a command is missing: one of trace, recover, config, status, purge, jobs,");
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

// A process that records and is killed: one span and one record finished, one span open.
void record_and_die(const std::string& state_directory) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Config config;
    config.resource = Resource("doomed");
    config.state_directory = state_directory;
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      DestinationConfig nowhere;
      nowhere.name = "nowhere";
      nowhere.signal = signal;
      nowhere.output = Output::callback;
      nowhere.deliver = [](Signal, std::string_view) { return DeliveryResult{.outcome = Outcome::retry}; };
      config.destinations.push_back(nowhere);
    }
    Telemetry telemetry(config);
    const Tracer tracer = telemetry.tracer("test");
    { const auto done = tracer.span("done", {{"number", 1}}); }
    auto open = tracer.span("open", {{"number", 2}});
    telemetry.logger("test").info("still here", {{"number", 3}});
    open.event("last words");
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
}

TEST_F(CommandTest, RecoversWhatAKilledProcessLeft) {
  const std::string state = (directory / "state").string();
  record_and_die(state);
  const std::string traces = (directory / "saved.jsonl").string();
  const std::string logs = (directory / "saved-logs.jsonl").string();
  const CommandResult result = waymark({"recover", state, "--traces-file", traces, "--logs-file", logs});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("(doomed): 1 finished span, 1 log record, 1 interrupted span\n"));
  EXPECT_THAT(result.output, HasSubstr("  open, "));
  EXPECT_THAT(result.output, HasSubstr("traces for nowhere: 2 delivered, 0 rejected, 0 dropped, 0 still to be sent"));
  EXPECT_THAT(result.output, HasSubstr("logs for nowhere: 1 delivered, 0 rejected, 0 dropped, 0 still to be sent"));

  const CommandResult picture = waymark({"trace", traces, logs});
  EXPECT_EQ(picture.exit_code, 0);
  EXPECT_THAT(picture.output, HasSubstr("↯"));
  EXPECT_THAT(picture.output, HasSubstr("event last words"));

  EXPECT_EQ(waymark({"trace", state}).exit_code, 0);
}

TEST_F(CommandTest, RecoversToAnEndpoint) {
  const std::string state = (directory / "state").string();
  record_and_die(state);
  const testing::HttpServer server;
  const CommandResult result = waymark({"recover", state, "--endpoint", server.url("")});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("traces for nowhere: 2 delivered, 0 rejected, 0 dropped, 0 still to be sent"));
  EXPECT_THAT(result.output, HasSubstr("logs for nowhere: 1 delivered, 0 rejected, 0 dropped, 0 still to be sent"));

  std::map<std::string, nlohmann::json> spans;
  std::vector<nlohmann::json> logs;
  for (const testing::HttpRequest& request : server.requests()) {
    const Signal signal = request.target == "/v1/traces" ? Signal::traces : Signal::logs;
    const auto json = nlohmann::json::parse(testing::official_json(signal, request.body));
    if (signal == Signal::traces) {
      for (const auto& scope : json.at("resourceSpans").at(0).at("scopeSpans")) {
        for (const auto& span : scope.at("spans")) EXPECT_TRUE(spans.emplace(span.at("name"), span).second) << span;
      }
    } else {
      EXPECT_EQ(request.target, "/v1/logs");
      for (const auto& scope : json.at("resourceLogs").at(0).at("scopeLogs")) {
        for (const auto& log : scope.at("logRecords")) logs.push_back(log);
      }
    }
  }
  const auto interrupted = nlohmann::json::parse(R"({"key":"workflow.interrupted","value":{"boolValue":true}})");
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_THAT(spans["done"].at("attributes"), Not(Contains(interrupted)));
  EXPECT_THAT(spans["open"].at("attributes"), Contains(interrupted));
  EXPECT_EQ(spans["open"].at("events").at(0).at("name"), "last words");
  ASSERT_EQ(logs.size(), 1u);
  EXPECT_EQ(logs[0].at("body").at("stringValue"), "still here");
  EXPECT_EQ(logs[0].at("spanId"), spans["open"].at("spanId"));
}

TEST_F(CommandTest, LeavesWhatItHasNoDestinationFor) {
  const std::string state = (directory / "state").string();
  record_and_die(state);
  const std::string traces = (directory / "saved.jsonl").string();
  const std::string logs = (directory / "saved-logs.jsonl").string();
  const CommandResult first = waymark({"recover", state, "--traces-file", traces});
  EXPECT_EQ(first.exit_code, 1) << first.output;
  EXPECT_THAT(first.output, HasSubstr("logs for nowhere: 0 delivered, 0 rejected, 0 dropped, 1 still to be sent"));
  EXPECT_THAT(first.output, HasSubstr("what is left stays in " + state));

  const CommandResult wrong = waymark({"recover", state, "--logs-file", logs, "--destination", "elsewhere"});
  EXPECT_EQ(wrong.exit_code, 2) << wrong.output;
  EXPECT_THAT(wrong.output, HasSubstr("name one with --destination: nowhere"));

  const CommandResult second = waymark({"recover", state, "--logs-file", logs});
  EXPECT_EQ(second.exit_code, 0) << second.output;
  EXPECT_EQ(waymark({"trace", traces, logs}).exit_code, 0);
}

TEST_F(CommandTest, SaysThatAFileHoldsNoSpans) {
  const CommandResult result = waymark({"trace", write("empty.jsonl", "")});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("no spans"));
}

}  // namespace
}  // namespace waymark
