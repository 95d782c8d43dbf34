// The process-wide Telemetry starts once, so every test runs in a process of its own.
#include "waymark/configure.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "sdk/process.h"
#include "support/holds.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark {
namespace {

using namespace waymark::testing;

class ConfigureTest : public InAProcess {};

TEST_F(ConfigureTest, TwoCallsRecordSpansAndLogsOfOneService) {
  IN_A_PROCESS({
    configure_otel_tracing({.service = "runner", .endpoint = file("traces.jsonl")});
    configure_otel_logging({.service = "runner", .endpoint = file("logs.jsonl")});
    {
      auto span = tracer("test").span("work", {{"bands", 4}});
      logger("test").info("done", {{"index", 1}});
    }
    require(force_flush(), "everything is delivered");
    require(stats().spans == 1 && stats().log_records == 1, "one of each is counted");
    require(shutdown(), "nothing is left");
  });
  const auto spans = read("traces.jsonl").spans;
  const auto logs = read("logs.jsonl").logs;
  ASSERT_EQ(spans.size(), 1u);
  ASSERT_EQ(logs.size(), 1u);
  EXPECT_EQ(spans[0].name, "work");
  EXPECT_EQ(logs[0].span_id, spans[0].context.span_id);
  EXPECT_EQ(find_string(spans[0].resource, "service.name"), "runner");
  EXPECT_EQ(find_string(logs[0].resource, "service.instance.id"),
            find_string(spans[0].resource, "service.instance.id"));
}

TEST_F(ConfigureTest, TheEnvironmentAloneIsEnough) {
  setenv("OTEL_SERVICE_NAME", "from-environment", 1);
  setenv("OTEL_TRACES_ENDPOINT", file("traces.jsonl").c_str(), 1);
  IN_A_PROCESS({
    configure_otel_tracing();
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  unsetenv("OTEL_SERVICE_NAME");
  unsetenv("OTEL_TRACES_ENDPOINT");
  const auto spans = read("traces.jsonl").spans;
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(find_string(spans[0].resource, "service.name"), "from-environment");
}

TEST_F(ConfigureTest, AnErrorChangesNothing) {
  IN_A_PROCESS({
    const auto nothing = [] { configure_otel_tracing(); };
    const auto malformed = [] { configure_otel_tracing({.service = "a", .endpoint = "localhost"}); };
    require(code_of(nothing, "OTEL_TRACES_ENDPOINT") == ErrorCode::missing_endpoint, "missing");
    require(code_of(malformed) == ErrorCode::invalid_endpoint, "invalid");
    require(!tracer("test").enabled(), "nothing records yet");
    configure_otel_tracing({.service = "b", .endpoint = file("traces.jsonl")});  // "a" was never the service
    require(tracer("test").enabled(), "it records now");
  });
}

TEST_F(ConfigureTest, ALaterCallMayNotContradictTheFirst) {
  IN_A_PROCESS({
    configure_otel_logging({.service = "a", .endpoint = file("logs.jsonl")});
    const std::string endpoint = file("traces.jsonl");
    const auto code = [&](TracingOptions options, const char* named) {
      options.endpoint = endpoint;
      return code_of([&] { configure_otel_tracing(options); }, named);
    };
    require(code({.service = "b"}, "'a'") == ErrorCode::conflicting_resource, "service");
    require(code({.state_directory = "/elsewhere"}, "/elsewhere") == ErrorCode::state_directory, "state directory");
    require(code({.sampler = Sampler{SamplerKind::always_off}}, "sampler") == ErrorCode::invalid_argument, "sampler");
    require(code({.recorder = RecorderConfig::Place::state}, "recorder") == ErrorCode::invalid_argument, "recorder");
    require(stats().destinations.size() == 1, "nothing was added");
    configure_otel_tracing({.service = "a", .endpoint = endpoint});
    configure_otel_tracing({.endpoint = endpoint});
    require(stats().destinations.size() == 2, "the second call with the same endpoint replaces");
  });
}

TEST_F(ConfigureTest, ALaterCallsAttributesBelongToItsDestination) {
  IN_A_PROCESS({
    configure_otel_tracing({.service = "a", .endpoint = file("first.jsonl")});
    configure_otel_tracing({.service = {{"service.name", "a"}, {"stream", "x"}}, .endpoint = file("second.jsonl")});
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  const auto first = read("first.jsonl").spans;
  const auto second = read("second.jsonl").spans;
  ASSERT_EQ(first.size(), 1u);
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(find_string(first[0].resource, "stream"), "");
  EXPECT_EQ(find_string(second[0].resource, "stream"), "x");
}

// Surprise 3 of Tilebox's: disabled by a variable, the next call fails.
TEST_F(ConfigureTest, DisabledItConfiguresValidatesAndRecordsNothing) {
  HOLDS("CP-09");
  setenv("OTEL_SDK_DISABLED", "true", 1);
  IN_A_PROCESS({
    configure_otel_tracing({.service = "a"});  // without an endpoint: it is switched off, so none is missing
    const auto malformed = [] { configure_otel_tracing({.endpoint = "localhost"}); };
    require(code_of(malformed) == ErrorCode::invalid_endpoint, "it still validates");
    configure_otel_logging({.service = "a", .endpoint = file("logs.jsonl")});
    {
      auto span = tracer("test").span("work");
      logger("test").info("done");
      Headers headers;
      TraceContext context;
      context.span = *from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
      inject(context, headers);
      require(headers.count("traceparent") == 1, "propagation goes on");
    }
    require(force_flush() && stats().spans == 0 && shutdown(), "nothing was recorded");
  });
  unsetenv("OTEL_SDK_DISABLED");
  EXPECT_FALSE(std::filesystem::exists(directory_ / "logs.jsonl"));
}

// Surprise 2 of Tilebox's: a malformed interval breaks what does not use it.
TEST_F(ConfigureTest, AMalformedIntervalMattersOnlyWhereItIsUsed) {
  setenv("OTEL_EXPORT_INTERVAL", "5000", 1);
  IN_A_PROCESS({
    configure_console_logging({.to_stderr = true, .service = "a"});
    configure_otel_tracing({.endpoint = file("traces.jsonl"), .export_interval = std::chrono::seconds(1)});
    require(code_of([&] { configure_otel_logging({.endpoint = file("logs.jsonl")}); }, "OTEL_EXPORT_INTERVAL") ==
                ErrorCode::invalid_duration,
            "told where it is used");
  });
  unsetenv("OTEL_EXPORT_INTERVAL");
}

// Surprise 5 of Tilebox's: configured twice, everything is sent twice.
TEST_F(ConfigureTest, ConfiguredTwiceEverythingIsSentOnce) {
  IN_A_PROCESS({
    for (int i = 0; i < 2; ++i) configure_otel_tracing({.service = "a", .endpoint = file("traces.jsonl")});
    { auto span = tracer("test").span("work"); }
    require(shutdown(), "nothing is left");
  });
  EXPECT_EQ(read("traces.jsonl").spans.size(), 1u);
}

TEST_F(ConfigureTest, WhatIsWrongWithTheEnvironmentIsToldOnceToTheErrorHandler) {
  setenv("OTEL_BSP_SCHEDULE_DELAY", "soon", 1);
  setenv("OTEL_PROPAGATORS", "jaeger", 1);
  IN_A_PROCESS({
    std::vector<std::string> said;
    set_error_handler([&](DiagnosticLevel level, std::string_view message) {
      if (level == DiagnosticLevel::warning) said.emplace_back(message);
    });
    for (int i = 0; i < 2; ++i) configure_otel_tracing({.service = "a", .endpoint = file("traces.jsonl")});
    require(said.size() == 2, "two warnings");
    require(said[0].find("OTEL_BSP_SCHEDULE_DELAY: 'soon'") != std::string::npos, "the delay");
    require(said[1].find("OTEL_PROPAGATORS: 'jaeger'") != std::string::npos, "the propagators");
    set_error_handler({});
  });
  unsetenv("OTEL_BSP_SCHEDULE_DELAY");
  unsetenv("OTEL_PROPAGATORS");
}

TEST_F(ConfigureTest, BeforeAnyConfigurationNothingRecordsAndEveryCallIsSafe) {
  IN_A_PROCESS({
    { auto span = tracer("test").span("work"); }
    logger("test").info("done");
    require(force_flush() && stats().spans == 0 && stats().destinations.empty(), "nothing is there");
    require(shutdown(), "nothing is left");
  });
}

}  // namespace
}  // namespace waymark
