// The state directory that the configure calls choose: where it can't be had, who may read it, what never stands in it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "sdk/process.h"
#include "support/http_server.h"
#include "waymark/configure.h"

namespace waymark {
namespace {

using namespace waymark::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

class StateDirectoryTest : public InAProcess {
 protected:
  // The state directory, this process's part of it, and its part of the tmpfs, with all that lies in them.
  [[nodiscard]] std::vector<std::filesystem::path> everything() const {
    std::vector<std::filesystem::path> roots = {directory_ / "state"};
    std::ifstream identity(telemetry().directory() + "/identity");
    for (std::string line; std::getline(identity, line);) {
      if (line.starts_with("memory=")) roots.emplace_back(line.substr(7));
    }
    require(roots.size() == 2, "the identity names the recorder's place");
    std::vector<std::filesystem::path> found;
    for (const auto& root : roots) {
      found.push_back(root);
      for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) found.push_back(entry.path());
    }
    return found;
  }
};

TEST_F(StateDirectoryTest, WhereAFileIsInItsPlaceTelemetryWorksInMemoryAndSaysSoOnce) {
  const std::string taken = directory_ / "taken";
  std::ofstream(taken) << "of somebody else";
  IN_A_PROCESS_THAT_SAYS(AllOf(Says(taken, 1), HasSubstr("telemetry stays in memory")), {
    for (int i = 0; i < 2; ++i) {
      configure_otel_tracing({.service = "a", .endpoint = file("traces.jsonl"), .state_directory = taken});
      configure_otel_logging({.service = "a", .endpoint = file("logs.jsonl"), .state_directory = taken});
    }
    require(telemetry().directory().empty(), "there is none");
    {
      auto span = tracer("test").span("work");
      logger("test").info("done");
    }
    require(shutdown(), "nothing is left");
  });
  EXPECT_EQ(read("traces.jsonl").spans.size(), 1u);
  EXPECT_EQ(read("logs.jsonl").logs.size(), 1u);
  EXPECT_EQ(contents(taken), "of somebody else");
}

TEST_F(StateDirectoryTest, NobodyElseMayReadIt) {
  IN_A_PROCESS({
    ::umask(0);
    configure_otel_tracing({.service = "a", .endpoint = file("traces.jsonl")});
    auto open = tracer("test").span("open");
    { auto span = tracer("test").span("work"); }
    require(force_flush(), "everything is delivered");
    std::size_t files = 0;
    for (const auto& path : everything()) {
      struct stat status {};
      require(::lstat(path.c_str(), &status) == 0, "it can be looked at");
      const bool directory = S_ISDIR(status.st_mode);
      files += directory ? 0 : 1;
      if ((status.st_mode & 07777) == (directory ? 0700u : 0600u)) continue;
      std::fprintf(stderr, "%s has the mode %o\n", path.c_str(), status.st_mode & 07777u);
      std::_Exit(1);
    }
    require(files >= 3, "lock, identity and recorder at least");
  });
}

TEST_F(StateDirectoryTest, SecretsStandInNoFileAndInNoMessage) {
  IN_A_PROCESS({
    // The user's part of a URL is sent in base64, as "user:q7-password".
    const std::vector<std::string> secrets = {"q7-token", "q7-query", "q7-password", "dXNlcjpxNy1wYXNzd29yZA=="};
    std::mutex mutex;
    std::string said;
    set_error_handler([&](DiagnosticLevel, std::string_view message) {
      const std::lock_guard lock(mutex);
      said.append(message).append("\n");
    });
    setenv("OTEL_LOG_LEVEL", "debug", 1);
    const auto quoting = [](int status, const std::string& sent) {  // a backend that says what it was sent
      return HttpReply{.status = status,
                       .headers = {{"Content-Type", "application/json"}},
                       .body = R"({"message":"no access with )" + sent + "\"}"};
    };
    HttpServer traces;
    traces.script({quoting(503, "Bearer q7-token")});
    HttpServer logs;
    logs.script({quoting(400, "Basic dXNlcjpxNy1wYXNzd29yZA==")});
    const std::string authority = logs.url("").substr(std::string("http://").size());
    configure_otel_tracing({.service = "a",
                            .endpoint = traces.url("/?key=q7-query"),
                            .headers = {{"Authorization", "Bearer q7-token"}}});
    configure_otel_logging({.service = "a", .endpoint = "http://user:q7-password@" + authority});
    const auto expect_none = [&](const std::vector<std::filesystem::path>& paths) {
      std::string text;
      for (const auto& path : paths) {
        if (std::filesystem::is_regular_file(path)) text += contents(path);
      }
      for (const DestinationStats& d : stats().destinations) text += d.name + d.last_error;
      const std::lock_guard lock(mutex);
      text += said;
      for (const std::string& secret : secrets) require(times(text, secret) == 0, secret.c_str());
    };
    {
      auto open = tracer("test").span("open");
      { auto span = tracer("test").span("work"); }
      logger("test").info("done");
      require(!force_flush(std::chrono::seconds(30)), "both are settled, and one was refused");
      expect_none(everything());
    }
    require(shutdown(), "nothing is left");
    require(traces.requests().size() == 3 && logs.requests().size() == 1, "the one is sent again, the other refused");
    require(*traces.requests()[0].header("Authorization") == "Bearer " + secrets[0], "the backend got the one secret");
    require(traces.requests()[0].target.find(secrets[1]) != std::string::npos, "and the other");
    require(*logs.requests()[0].header("Authorization") == "Basic " + secrets[3], "and the third");
    require(times(said, "no access with") == 2, "both refusals were told");
    std::vector<std::filesystem::path> kept;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_ / "state")) kept.push_back(entry);
    expect_none(kept);
    set_error_handler({});
  });
}

}  // namespace
}  // namespace waymark
