// `waymark config check`, `waymark status` and `waymark purge` as a person runs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/command.h"
#include "waymark/reader.h"
#include "waymark/telemetry.h"

namespace waymark {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using waymark::testing::CommandResult;
namespace fs = std::filesystem;

class StateCommandTest : public ::testing::Test {
 protected:
  StateCommandTest() {
    std::string pattern = ::testing::TempDir() + "state_XXXXXX";
    directory = mkdtemp(pattern.data());
    state = (directory / "state").string();
  }
  ~StateCommandTest() override { fs::remove_all(directory); }

  static CommandResult waymark(std::vector<std::string> arguments, const std::string& more = {}) {
    arguments.insert(arguments.begin(), WAYMARK_COMMAND);
    return waymark::testing::run_command(arguments, "env -u WAYMARK_CONFIG -u OTEL_SERVICE_NAME HOME=/home/u " + more);
  }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(directory / name) << text;
    return (directory / name).string();
  }
  // One destination that takes what `accept` lets it, and says why it does not.
  [[nodiscard]] Config config(std::function<bool()> accept) const {
    Config config;
    config.resource = Resource("tiles");
    config.state_directory = state;
    config.recover_siblings = false;
    config.diagnostics = DiagnosticLevel::none;
    DestinationConfig d;
    d.name = "backend";
    d.output = Output::callback;
    d.batch.interval = std::chrono::milliseconds(1);
    d.retry.initial = d.retry.maximum = std::chrono::hours(1);
    d.deliver = [accept](Signal, std::string_view) {
      return accept() ? DeliveryResult{} : DeliveryResult{.outcome = Outcome::retry, .message = "the backend is away"};
    };
    config.destinations.push_back(std::move(d));
    return config;
  }
  // A process that records three spans, delivers none of them, and is killed.
  void record_and_die() const {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      Telemetry telemetry(config([fd = ready[1]] {
        (void)!::write(fd, "x", 1);
        return false;
      }));
      const Tracer tracer = telemetry.tracer("t");
      for (int i = 0; i < 3; ++i) (void)tracer.span("lost");
      for (;;) pause();
    }
    char refused = 0;
    ASSERT_EQ(::read(ready[0], &refused, 1), 1);
    // The error is written after the answer: when it is there, the destination waits.
    while (found().empty() || found()[0].destinations.empty() || found()[0].destinations[0].last_error.empty()) {
    }
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ::close(ready[0]);
    ::close(ready[1]);
  }
  [[nodiscard]] std::vector<StateProcess> found() const {
    return fs::exists(state) ? read_state_status(state).processes : std::vector<StateProcess>();
  }

  fs::path directory;
  std::string state;
};

// ---- config check

TEST_F(StateCommandTest, ConfigCheckPrintsTheConfigurationWithoutItsSecrets) {
  const std::string file = write("w.yaml", "service: tiles\ntracer.otel:\n  type: open-telemetry\n  transport: http\n"
                                           "  endpoint: https://user:hunter2@h/otlp?key=hunter2\n"
                                           "  headers: ['X-Token: hunter2', 'X-Other: ${SECRET}']\n");
  const CommandResult result = waymark({"config", "check", file}, "SECRET=hunter3");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("\"service.name\": tiles\n"), HasSubstr("X-Token: \"***\"\n"),
                                   HasSubstr("X-Other: \"***\"\n"), HasSubstr("Authorization: \"***\"\n"),
                                   HasSubstr("traces_endpoint: \"https://h/otlp/v1/traces?***\"\n"),
                                   HasSubstr("directory: /home/u/.local/state/waymark/tiles\n"),
                                   Not(HasSubstr("hunter")), Not(HasSubstr("user"))));
  const CommandResult json = waymark({"config", "check", "--json", file}, "SECRET=hunter3");
  EXPECT_THAT(json.output, Not(HasSubstr("hunter")));
  EXPECT_EQ(nlohmann::json::parse(json.output).at("destinations").at("otel traces").at("timeout"), "10s");
}

TEST_F(StateCommandTest, ConfigCheckShowsWhatWasGivenAndNotWhatIsThisProcesssOwn) {
  const std::string file = write("w.yaml", "resource: {zone: a, host.arch: mine}\npropagators: [b3, tracecontext]\n");
  const auto check = [&](const std::string& variables) {
    return nlohmann::json::parse(waymark({"config", "check", "--json", file}, variables).output);
  };
  const auto alone = check("");
  EXPECT_EQ(alone.at("resource"), (nlohmann::json{{"zone", "a"}, {"host.arch", "mine"}}))
      << "no process.pid, no service.instance.id, no unknown_service:waymark";
  EXPECT_EQ(alone.at("propagators"), (nlohmann::json{"b3", "tracecontext"}));
  const auto more = check("OTEL_PROPAGATORS=baggage OTEL_RESOURCE_ATTRIBUTES=service.instance.id=1,zone=b OTEL_SERVICE_NAME=tiles");
  EXPECT_EQ(more.at("resource"), (nlohmann::json{{"zone", "b"}, {"host.arch", "mine"}, {"service.instance.id", "1"}, {"service.name", "tiles"}}));
  EXPECT_EQ(more.at("propagators"), (nlohmann::json{"baggage"}));
  const std::string nothing = write("empty.yaml", "");
  const auto defaults = nlohmann::json::parse(waymark({"config", "check", "--json", nothing}).output);
  EXPECT_FALSE(defaults.contains("resource"));
  EXPECT_FALSE(defaults.at("state").contains("directory")) << "it would be this command's own";
  EXPECT_EQ(more.at("state").at("directory"), "/home/u/.local/state/waymark/tiles");
  EXPECT_EQ(defaults.at("propagators"), (nlohmann::json{"tracecontext", "baggage"}));
  EXPECT_EQ(nlohmann::json::parse(waymark({"config", "check", "--json", nothing}, "OTEL_PROPAGATORS=none").output).at("propagators"),
            nlohmann::json{"none"});
}

TEST_F(StateCommandTest, WhatConfigCheckPrintsIsAConfigurationThatSaysTheSame) {
  const std::string file = write("w.yaml", "service: {name: 'a b', version: '1.10'}\nresource: {\"x$y\": '${no}', n: 1, t: [a, 'true']}\n"
                                           "sampler: {kind: traceidratio, ratio: 0.25}\n"
                                           "journal: {block_timeout: 0, fsync: interval}\n"
                                           "destinations:\n  \"http://h:4318\": {endpoint: 'http://h:4318', retry.give_up_age: 90m}\n"
                                           "  f: {output: file, path: '-', signals: logs}\n  c: {output: console, color: true}\n"
                                           "exporters.otlphttp/x: {traces_endpoint: 'http://h/t', logs_endpoint: 'http://h/'}\n");
  const CommandResult first = waymark({"config", "check", file}, "no=yes");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  const CommandResult second = waymark({"config", "check", write("again.yaml", first.output)});
  EXPECT_EQ(second.exit_code, 0);
  EXPECT_EQ(second.output, first.output);
}

TEST_F(StateCommandTest, ConfigCheckSaysEveryPlaceThatIsWrong) {
  const std::string file = write("w.yaml", "servce: x\njournal: {fsync: sometimes}\n");
  const CommandResult result = waymark({"config", "check", file});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.output, file + ":1:1: servce: is no key that Waymark knows; did you mean 'service'?\n" + file +
                               ":2:18: journal.fsync: 'sometimes' is not known; expected one of never, interval, every_batch\n");
  EXPECT_EQ(waymark({"config", "check", (directory / "gone").string()}).exit_code, 2);
  EXPECT_THAT(waymark({"config", "check"}).output, HasSubstr("WAYMARK_CONFIG"));
  EXPECT_EQ(waymark({"config", "check"}, "WAYMARK_CONFIG=" + write("ok.yaml", "service: x\n")).exit_code, 0);
  EXPECT_EQ(waymark({"config"}).exit_code, 2);
}

TEST_F(StateCommandTest, ConfigCheckReadsTheFilesThatAreNamed) {
  const auto check = [&](const std::string& more) {
    return waymark({"config", "check", write("w.yaml", "destinations.d: {endpoint: 'https://h', signals: logs, " + more + "}\n")});
  };
  const CommandResult headers = check("headers_file: /nowhere/headers");
  EXPECT_EQ(headers.exit_code, 2);
  EXPECT_THAT(headers.output, HasSubstr("w.yaml:1:70: destinations.d.headers_file: '/nowhere/headers': can't be read"));
  const CommandResult tls = check("tls: {ca_file: /nowhere/ca.pem}");
  EXPECT_EQ(tls.exit_code, 2);
  EXPECT_THAT(tls.output, HasSubstr("w.yaml:1:71: destinations.d.tls.ca_file: '/nowhere/ca.pem' can't be read"));
  EXPECT_EQ(check("enabled: false, preset: s2, headers_file: /nowhere/headers, tls: {ca_file: /nowhere/ca.pem}").exit_code, 0);
}

// ---- status

TEST_F(StateCommandTest, StatusShowsALivingProcessAndDisturbsItNot) {
  Telemetry telemetry(config([] { return true; }));
  const Tracer tracer = telemetry.tracer("t");
  for (int i = 0; i < 4; ++i) (void)tracer.span("s");
  ASSERT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
  const CommandResult text = waymark({"status", state});
  EXPECT_EQ(text.exit_code, 0) << text.output;
  EXPECT_THAT(text.output, AllOf(StartsWith("process " + std::to_string(getpid()) + " (tiles): alive, started "),
                                 HasSubstr("1 process, 1 alive: 0 records pending (0 B), 4 delivered")));
  EXPECT_THAT(text.output, Not(HasSubstr("\x1b"))) << "colors are for terminals";
  const auto json = nlohmann::json::parse(waymark({"status", "--json", state}).output);
  const auto& process = json.at("processes").at(0);
  EXPECT_EQ(process.at("condition"), "alive");
  EXPECT_EQ(process.at("process_id"), getpid());
  EXPECT_GT(process.at("recorder_bytes"), 0);
  const auto& counts = process.at("destinations").at(0).at("counts");
  EXPECT_EQ(counts.at("offered"), 4);
  EXPECT_EQ(counts.at("delivered"), 4);
  EXPECT_EQ(counts.at("pending"), 0);
  EXPECT_TRUE(process.at("destinations").at(0).at("last_error").is_null());
  // It goes on as before.
  (void)tracer.span("s");
  EXPECT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
  EXPECT_EQ(telemetry.stats().destinations.at(0).counts.delivered, 5u);
  EXPECT_EQ(found()[0].condition, StateProcess::Condition::alive) << "nor does a look from inside take its lock";
}

TEST_F(StateCommandTest, StatusShowsWhatADeadProcessCouldNotDeliverAndWhy) {
  record_and_die();
  const auto processes = found();
  ASSERT_THAT(processes, SizeIs(1));
  EXPECT_EQ(processes[0].condition, StateProcess::Condition::dead);
  EXPECT_TRUE(processes[0].unread);
  ASSERT_THAT(processes[0].destinations, SizeIs(1));
  const StateDestination& d = processes[0].destinations[0];
  EXPECT_EQ(d.name, "backend");
  EXPECT_EQ(d.counts.offered, d.counts.pending);
  EXPECT_GE(d.counts.pending, 1u);
  EXPECT_GT(d.pending_bytes, 0u);
  EXPECT_GT(d.oldest_pending, Timestamp{});
  EXPECT_THAT(d.last_error, HasSubstr("the backend is away"));
  const CommandResult text = waymark({"status", state});
  EXPECT_THAT(text.output, AllOf(HasSubstr("(tiles): gone, started"), HasSubstr("still to be recovered"),
                                 HasSubstr("last error of backend (traces), "), HasSubstr("the backend is away")));
}

TEST_F(StateCommandTest, StatusOfNobodyAndOfNothing) {
  fs::create_directory(state);
  EXPECT_EQ(waymark({"status", state}).output, "nobody has recorded into " + state + "\n");
  EXPECT_EQ(waymark({"status", (directory / "gone").string()}).exit_code, 2);
  // What is not ours is not looked at.
  fs::create_directory(state + "/notes");
  fs::create_directory_symlink(directory, state + "/0123456789abcdef0123456789abcdef");
  EXPECT_THAT(found(), SizeIs(0));
}

// ---- purge

TEST_F(StateCommandTest, PurgeAsksBeforeItRemovesWhatWasNeverDelivered) {
  record_and_die();
  const CommandResult asked = waymark({"purge", state});
  EXPECT_EQ(asked.exit_code, 1);
  EXPECT_THAT(asked.output, AllOf(HasSubstr("1 dead process has records that were never delivered; nothing was removed"),
                                  HasSubstr("--yes")));
  EXPECT_THAT(found(), SizeIs(1));
  const CommandResult dry = waymark({"purge", "--dry-run", state});
  EXPECT_EQ(dry.exit_code, 0);
  EXPECT_THAT(dry.output, StartsWith("would remove "));
  EXPECT_THAT(found(), SizeIs(1));
  const CommandResult young = waymark({"purge", "--yes", "--older-than", "1h", state});
  EXPECT_EQ(young.exit_code, 0) << young.output;
  EXPECT_THAT(young.output, HasSubstr("it is not that old"));
  EXPECT_THAT(found(), SizeIs(1));
  const CommandResult done = waymark({"purge", "--yes", state});
  EXPECT_EQ(done.exit_code, 0) << done.output;
  EXPECT_THAT(done.output, AllOf(StartsWith("removed "), HasSubstr("never delivered"), HasSubstr("removed 1 process, ")));
  EXPECT_THAT(found(), SizeIs(0));
}

TEST_F(StateCommandTest, PurgeLooksOnlyAtWhatItIsTold) {
  record_and_die();
  const std::string shown = found().front().directory;
  record_and_die();
  PurgeOptions options;
  options.pending = true;
  options.only = {shown};
  const Purged purged = purge_state_directory(state, options);
  ASSERT_THAT(purged.removed, SizeIs(1));
  EXPECT_EQ(purged.removed[0].directory, shown);
  EXPECT_THAT(purged.kept, SizeIs(0));
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_NE(found()[0].directory, shown);
}

TEST_F(StateCommandTest, PurgeByAgeGoesByTheRecordersStampToo) {
  record_and_die();
  const std::string name = found().front().directory;
  const auto age = [](const fs::path& files) {
    for (const auto& file : fs::directory_iterator(files)) {
      fs::last_write_time(file.path(), fs::file_time_type::clock::now() - std::chrono::hours(48));
    }
  };
  age(state + "/" + name);
  age("/dev/shm/waymark-" + std::to_string(geteuid()) + "/" + name);
  PurgeOptions options;
  options.pending = true;
  options.older_than = std::chrono::hours(1);
  const Purged purged = purge_state_directory(state, options);
  EXPECT_THAT(purged.removed, SizeIs(0)) << "what is stored into mapped memory moves no file's time";
  ASSERT_THAT(purged.kept, SizeIs(1));
  EXPECT_THAT(purged.kept[0].why, HasSubstr("not that old"));
}

TEST_F(StateCommandTest, PurgeKeepsTheLivingAndWhatIsNotOurs) {
  {
    Telemetry gone(config([] { return true; }));
    (void)gone.tracer("t").span("s");
    EXPECT_TRUE(gone.shutdown(std::chrono::seconds(60)));
  }
  Telemetry alive(config([] { return true; }));
  std::ofstream(state + "/store.db") << "x";
  fs::create_directory(state + "/notes");
  const std::string elsewhere = (directory / "elsewhere").string();
  fs::create_directory(elsewhere);
  std::ofstream(elsewhere + "/precious") << "x";
  fs::create_directory_symlink(elsewhere, state + "/0123456789abcdef0123456789abcdef");
  const CommandResult result = waymark({"purge", state});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("its process is alive"), HasSubstr("it is a link, which is not followed"),
                                   HasSubstr("removed 1 process, ")));
  EXPECT_TRUE(fs::exists(state + "/store.db"));
  EXPECT_TRUE(fs::exists(state + "/notes"));
  EXPECT_TRUE(fs::exists(elsewhere + "/precious"));
  EXPECT_TRUE(fs::exists(alive.directory()));
  ASSERT_THAT(found(), SizeIs(1));
  (void)alive.tracer("t").span("s");
  EXPECT_TRUE(alive.force_flush(std::chrono::seconds(60)));
  EXPECT_EQ(waymark({"purge", "--older-than", "soon", state}).exit_code, 2);
}

}  // namespace
}  // namespace waymark
