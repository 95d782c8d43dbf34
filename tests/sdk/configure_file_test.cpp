// configure_from_file() against the real Telemetry: a process each.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "sdk/process.h"
#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark {
namespace {

using namespace waymark::testing;

class ConfigureFromFileTest : public InAProcess {
 protected:
  [[nodiscard]] std::string path(const std::string& name) const { return (directory_ / name).string(); }
  [[nodiscard]] std::string write(const std::string& text) const {
    std::ofstream(directory_ / "waymark.yaml") << text;
    return path("waymark.yaml");
  }
  [[nodiscard]] std::string archive() const {
    return "destinations.archive: {output: file, traces_path: '" + path("traces.jsonl") + "', logs_path: '" +
           path("logs.jsonl") + "'}\n";
  }
};

TEST_F(ConfigureFromFileTest, AFileConfiguresEverything) {
  IN_A_PROCESS({
    configure_from_file(write("service: from-file\nresource.team: tiles\n" + archive()));
    {
      auto span = tracer("test").span("work");
      logger("test").info("done");
    }
    require(shutdown(), "nothing is left");
  });
  const auto spans = read("traces.jsonl").spans;
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(find_string(spans[0].resource, "service.name"), "from-file");
  EXPECT_EQ(find_string(spans[0].resource, "team"), "tiles");
  EXPECT_EQ(read("logs.jsonl").logs.size(), 1u);
}

TEST_F(ConfigureFromFileTest, TheVariableNamesTheFile) {
  setenv("WAYMARK_CONFIG", write(archive()).c_str(), 1);
  IN_A_PROCESS({
    configure_from_file();
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  unsetenv("WAYMARK_CONFIG");
  EXPECT_EQ(read("traces.jsonl").spans.size(), 1u);
}

TEST_F(ConfigureFromFileTest, AnErrorChangesNothing) {
  IN_A_PROCESS({
    const auto wrong = [&] { configure_from_file(write("service: a\nservce: b\n" + archive())); };
    require(code_of(wrong, "servce") == ErrorCode::invalid_config, "it is refused");
    require(!tracer("test").enabled(), "nothing records yet");
    configure_from_file(write("service: c\n" + archive()));
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  EXPECT_EQ(find_string(read("traces.jsonl").spans.at(0).resource, "service.name"), "c");
}

TEST_F(ConfigureFromFileTest, AfterOtherCallsItAddsItsDestinations) {
  IN_A_PROCESS({
    configure_otel_tracing({.service = "runner", .endpoint = file("first.jsonl")});
    const auto other = [&] { configure_from_file(write("service: another\n" + archive())); };
    require(code_of(other, "another") == ErrorCode::conflicting_resource, "another service is refused");
    const auto late = [&] { configure_from_file(write("journal.max_bytes: 64MiB\n" + archive())); };
    require(code_of(late, "journal") == ErrorCode::invalid_config, "it is too late for a journal");
    configure_from_file(write("service: runner\njournal.max_bytes: 256MiB\nresource.team: tiles\n" + archive()));
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  EXPECT_EQ(read("first.jsonl").spans.size(), 1u);
  const auto spans = read("traces.jsonl").spans;
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(find_string(spans[0].resource, "team"), "tiles");
}

TEST_F(ConfigureFromFileTest, WhereOneDestinationCantBeHadNoneIsAdded) {
  IN_A_PROCESS({
    configure_otel_tracing({.service = "runner", .endpoint = file("first.jsonl")});
    const auto broken = [&] {
      configure_from_file(write("service: runner\npropagators: [b3]\n" + archive() +
                                "destinations.broken: {output: file, path: '" + directory_.string() + "'}\n"));
    };
    require(code_of(broken, "can't be opened for appending") == ErrorCode::io, "its file is a directory");
    require(stats().destinations.size() == 1, "the file's other destination is not there");
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  EXPECT_FALSE(std::filesystem::exists(path("traces.jsonl")) && !read("traces.jsonl").spans.empty());
}

TEST_F(ConfigureFromFileTest, FilesThatCantBeReadAreToldWithAllElseThatIsWrong) {
  IN_A_PROCESS({
    const auto broken = [&] {
      configure_from_file(write("service: runner\ndestinations:\n  a:\n    endpoint: https://127.0.0.1:1\n    headers_file: " + path("none") +
                                "\n    tls.ca_file: " + path("none") + "\n    lossy: maybe\n"));
    };
    for (const char* place : {":5:19: destinations.a.headers_file: ", ":6:18: destinations.a.tls.ca_file: ", ":7:12: destinations.a.lossy: "}) {
      require(code_of(broken, place) == ErrorCode::invalid_config, place);
    }
  });
}

TEST_F(ConfigureFromFileTest, ACallAfterItReplacesADestinationOfTheSameName) {
  IN_A_PROCESS({
    configure_from_file(write("service: runner\n" + archive()));
    configure_otel_tracing({.service = "runner", .endpoint = file("other.jsonl"), .name = "archive"});
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  EXPECT_EQ(read("other.jsonl").spans.size(), 1u);
}

}  // namespace
}  // namespace waymark
