// on_record, from the call to the bytes: keep, drop, redact.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "sdk/process.h"
#include "sdk/recorded.h"

namespace waymark {
namespace {

using testing::contents;
using testing::InAProcess;
using testing::Recorded;
using testing::require;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

Config with_hook(OnRecord hook) {
  Config config;
  config.on_record = std::move(hook);
  return config;
}

Verdict drop_what_is_noise(RecordEditor& record) {
  const bool span = record.signal() == Signal::traces;
  const bool noise = span ? record.span()->name == "noise" : to_text(record.log()->body) == "noise";
  return noise ? Verdict::drop : Verdict::keep;
}

// For each destination of this signal: counted and balanced.
void expect_counts(const Telemetry& telemetry, Signal signal, std::size_t destinations, Counts expected) {
  std::size_t found = 0;
  for (const DestinationStats& d : telemetry.stats().destinations) {
    if (d.signal != signal) continue;
    ++found;
    EXPECT_EQ(d.counts.offered, expected.offered) << d.name;
    EXPECT_EQ(d.counts.delivered, expected.delivered) << d.name;
    EXPECT_EQ(d.counts.filtered, expected.filtered) << d.name;
    EXPECT_EQ(d.counts.rejected + d.counts.dropped + d.counts.pending, 0u) << d.name;
  }
  EXPECT_EQ(found, destinations);
}

TEST(HookTest, WhatItKeepsIsSentAsItWasRecorded) {
  std::vector<std::string> seen;  // by the collector's thread, before the flush returns
  Recorded recorded(with_hook([&](RecordEditor& record) {
    seen.push_back(record.signal() == Signal::traces ? record.span()->name : to_text(record.log()->body));
    seen.push_back(record.scope().name);
    return Verdict::keep;
  }));
  Recorded plain;
  for (Recorded* one : {&recorded, &plain}) {
    auto span = one->tracer().span("work", {{"bands", 4}, {"list", Value::array({1, "two"})}});
    span.event("opened", {{"path", "B04"}}).status(StatusCode::error, "half");
    one->logger().info("done", {{"index", 1}});
  }
  auto with = recorded.spans().at("work");
  auto without = plain.spans().at("work");
  for (auto* span : {&with, &without}) {
    for (const char* own : {"traceId", "spanId", "startTimeUnixNano", "endTimeUnixNano"}) span->erase(own);
    span->at("events").at(0).erase("timeUnixNano");
  }
  EXPECT_EQ(with, without);
  EXPECT_EQ(recorded.logs().at("done").at("attributes"), plain.logs().at("done").at("attributes"));
  EXPECT_THAT(seen, ::testing::UnorderedElementsAre("work", "test", "done", "test"));
}

TEST(HookTest, WhatItDropsIsFilteredAtEveryDestinationOfThatSignal) {
  testing::MemoryDestination second;
  Recorded recorded(with_hook(drop_what_is_noise));
  recorded.telemetry().add(second.destination(Signal::traces, "second"));
  for (const char* name : {"noise", "work", "noise"}) {
    { auto span = recorded.tracer().span(name); }
  }
  for (const char* text : {"noise", "done"}) recorded.logger().info(text);
  const auto spans = recorded.spans();
  const auto logs = recorded.logs();
  EXPECT_EQ(spans.size(), 1u);
  EXPECT_TRUE(spans.contains("work"));
  EXPECT_EQ(logs.size(), 1u);
  EXPECT_TRUE(logs.contains("done"));
  ASSERT_EQ(second.spans().size(), 1u);
  EXPECT_EQ(second.spans()[0].name, "work");
  expect_counts(recorded.telemetry(), Signal::traces, 2, {.offered = 3, .delivered = 1, .filtered = 2});
  expect_counts(recorded.telemetry(), Signal::logs, 1, {.offered = 2, .delivered = 1, .filtered = 1});
}

TEST(HookTest, WhatItRedactsIsNotOnTheWire) {
  Recorded recorded(with_hook([](RecordEditor& record) {
    record.remove_attribute("token");
    record.set_attribute("user", AnyValue{std::string("somebody")});
    record.set_attribute("checked", AnyValue{true});
    if (record.signal() == Signal::traces) {
      record.set_name("GET /scenes/{id}");
    } else {
      record.set_body(AnyValue{std::string("signed in")});
    }
    return Verdict::keep;
  }));
  {
    auto span = recorded.tracer().span("GET /scenes/17", {{"token", "q7-secret"}, {"user", "q7-anna"}, {"bands", 4}});
    recorded.logger().info("q7-anna signed in", {{"user", "q7-anna"}, {"token", "q7-secret"}, {"index", 1}});
  }
  const auto span = recorded.spans().at("GET /scenes/{id}");
  const auto log = recorded.logs().at("signed in");
  EXPECT_EQ(Recorded::attributes(span), nlohmann::json({{"user", "somebody"}, {"bands", "4"}, {"checked", true}}));
  EXPECT_EQ(Recorded::attributes(log), nlohmann::json({{"user", "somebody"}, {"index", "1"}, {"checked", true}}));
  EXPECT_EQ(log.at("spanId"), span.at("spanId"));
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    for (const std::string& request : recorded.memory().requests(signal)) {
      EXPECT_EQ(request.find("q7-"), std::string::npos);
    }
  }
  expect_counts(recorded.telemetry(), Signal::traces, 1, {.offered = 1, .delivered = 1});
}

TEST(HookTest, ARecordWhoseHookThrowsIsDroppedAndToldOf) {
  std::mutex mutex;
  std::vector<std::string> said;
  Config config = with_hook([](RecordEditor& record) -> Verdict {
    if (record.span()->name == "odd") throw std::runtime_error("no such tenant");
    if (record.span()->name == "stranger") throw 7;
    return Verdict::keep;
  });
  config.error_handler = [&](DiagnosticLevel level, std::string_view message) {
    const std::lock_guard lock(mutex);
    if (level == DiagnosticLevel::error) said.emplace_back(message);
  };
  Recorded recorded(config);
  for (const char* name : {"odd", "work", "stranger"}) {
    { auto span = recorded.tracer().span(name); }
  }
  const auto spans = recorded.spans();
  EXPECT_EQ(spans.size(), 1u);
  EXPECT_TRUE(spans.contains("work"));
  expect_counts(recorded.telemetry(), Signal::traces, 1, {.offered = 3, .delivered = 1, .filtered = 2});
  const std::lock_guard lock(mutex);
  EXPECT_THAT(said, Contains(AllOf(HasSubstr("on_record"), HasSubstr("no such tenant"), HasSubstr("dropped"))));
}

class ConfiguredHookTest : public InAProcess {};

TEST_F(ConfiguredHookTest, AnExitWithinItEndsTheProcess) {
  EXPECT_EXIT(
      {
        configure_otel_tracing({.service = "hooked", .endpoint = "http://127.0.0.1:9", .on_record = [](RecordEditor&) -> Verdict {
          std::exit(3);
        }});
        { auto span = tracer("t").span("one"); }
        for (;;) pause();
      },
      ::testing::ExitedWithCode(3), "");
}

TEST_F(ConfiguredHookTest, NothingThatItRemovesReachesAFileOnThisMachine) {
  IN_A_PROCESS({
    const OnRecord redact = [](RecordEditor& record) {
      record.remove_attribute("token");
      return drop_what_is_noise(record);
    };
    configure_otel_tracing({.service = "a", .endpoint = file("traces.jsonl"), .on_record = redact});
    configure_otel_logging({.service = "a", .endpoint = file("logs.jsonl")});
    for (const char* name : {"noise", "work"}) {
      auto span = tracer("test").span(name, {{"token", "q7-secret"}});
      logger("test").info(name, {{"token", "q7-secret"}});
    }
    require(force_flush(), "everything is settled");
    for (const DestinationStats& d : stats().destinations) {
      const Counts& c = d.counts;
      require(c.offered == 2 && c.delivered == 1 && c.filtered == 1, "one is kept, one is filtered");
    }
    require(shutdown(), "nothing is left");
  });
  const auto spans = read("traces.jsonl").spans;
  const auto logs = read("logs.jsonl").logs;
  ASSERT_EQ(spans.size(), 1u);
  ASSERT_EQ(logs.size(), 1u);
  EXPECT_EQ(spans[0].name, "work");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_)) {
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(contents(entry.path()).find("q7-secret"), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace waymark
