#include <spdlog/spdlog.h>

#include "sdk/recorded.h"

#include "support/holds.h"

namespace waymark {
namespace {

using nlohmann::json;
using testing::Recorded;

TEST(LoggerTest, ARecordCarriesTheCurrentSpan) {
  HOLDS("LG-09", "PB-10");
  Recorded recorded;
  SpanContext context;
  {
    auto span = recorded.tracer().span("s");
    context = span.context();
    recorded.logger().info("inside", {{"tile", 7}, {"scene", "S2A"}});
  }
  recorded.logger().warning("outside");
  auto logs = recorded.logs();
  const json& inside = logs.at("inside");
  EXPECT_EQ(inside["traceId"], context.trace_id.hex());
  EXPECT_EQ(inside["spanId"], context.span_id.hex());
  EXPECT_EQ(inside["flags"], 3);
  EXPECT_EQ(inside["severityNumber"], 9);
  EXPECT_EQ(inside["severityText"], "info");
  EXPECT_EQ(Recorded::attributes(inside), json({{"tile", "7"}, {"scene", "S2A"}}));
  EXPECT_TRUE(inside.contains("timeUnixNano"));
  EXPECT_TRUE(inside.contains("observedTimeUnixNano"));
  EXPECT_FALSE(logs.at("outside").contains("traceId"));
}

TEST(LoggerTest, SeveritiesHaveOpenTelemetrysNumbers) {
  HOLDS("SEV-01", "SEV-02");
  Recorded recorded;
  const Logger logger = recorded.logger();
  logger.log(Severity::trace, "trace");
  logger.debug("debug");
  logger.info("info");
  logger.warning("warning");
  logger.error("error");
  logger.critical("critical");
  const std::map<std::string, int> expected{{"trace", 1}, {"debug", 5}, {"info", 9}, {"warning", 13}, {"error", 17}, {"critical", 21}};
  for (const auto& [text, record] : recorded.logs()) EXPECT_EQ(record["severityNumber"], expected.at(text)) << text;
  EXPECT_EQ(recorded.logs().size(), expected.size());
}

TEST(LoggerTest, BoundAttributesComeFirstAndTheCallsWin) {
  Recorded recorded;
  const Logger bound = recorded.logger().bind({{"task", 1}, {"job", "j"}}).bind({{"task", 2}, {"attempt", 3}});
  bound.info("x", {{"job", "mine"}, {"k", true}, {"k", false}});
  EXPECT_EQ(Recorded::attributes(recorded.logs().at("x")),
            json({{"task", "2"}, {"attempt", "3"}, {"job", "mine"}, {"k", false}}));
}

TEST(LoggerTest, TheLimitCountsBoundAttributesAndTheCalls) {
  Config config;
  config.log_limits.attribute_count = 3;
  Recorded recorded(config);
  const Logger bound = recorded.logger().bind({{"task", 1}, {"job", "j"}});
  bound.info("full", {{"k", 1}});
  bound.info("too many", {{"k", 1}, {"l", 2}});
  EXPECT_EQ(Recorded::attributes(recorded.logs().at("full")), json({{"task", "1"}, {"job", "j"}, {"k", "1"}}));
  EXPECT_FALSE(recorded.logs().at("full").contains("droppedAttributesCount"));
  EXPECT_EQ(Recorded::attributes(recorded.logs().at("too many")), json({{"task", "1"}, {"job", "j"}, {"k", "1"}}));
  EXPECT_EQ(recorded.logs().at("too many")["droppedAttributesCount"], 1);
}

TEST(LoggerTest, NothingOverridesAPinnedAttribute) {
  Config config;
  config.logs_as_span_events = true;
  Recorded recorded(config);
  {
    auto span = recorded.tracer().span("s");
    recorded.logger().bind({{"k", 1}}).pin({{"task_id", "t"}, {"k", 2}}).bind({{"task_id", "no"}, {"b", 1}}).info(
        "x", {{"task_id", "mine"}, {"b", 2}});
  }
  const json expected({{"k", "2"}, {"task_id", "t"}, {"b", "2"}});
  EXPECT_EQ(Recorded::attributes(recorded.logs().at("x")), expected);
  json event = expected;
  event["body"] = "x";
  event["level"] = "info";
  EXPECT_EQ(Recorded::attributes(recorded.spans().at("s")["events"][0]), event);
}

TEST(LoggerTest, LevelFiltersBeforeAnythingIsBuilt) {
  HOLDS("LG-31", "SEV-09");
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  for (DestinationConfig& d : config.destinations) d.minimum_severity = Severity::warning;
  Telemetry telemetry(config);
  const Logger logger = telemetry.logger("l");
  EXPECT_FALSE(logger.enabled(Severity::info));
  EXPECT_TRUE(logger.enabled(Severity::warning));
  EXPECT_TRUE(logger.enabled(Severity::unspecified)) << "LG-13: unspecified passes";
  logger.info("no");
  logger.error("yes");
  ASSERT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
  ASSERT_EQ(memory.logs().size(), 1u);
  EXPECT_EQ(telemetry.stats().log_records, 1u);
}

TEST(LoggerTest, ExceptionsBecomeAttributesAndTheCallersWin) {
  HOLDS("LG-07", "SEV-08");
  Recorded recorded;
  recorded.logger().exception("failed", std::invalid_argument("bad tile"), {{"exception.type", "mine"}});
  recorded.logger().exception("odd", std::make_exception_ptr(1.5));
  auto logs = recorded.logs();
  EXPECT_EQ(Recorded::attributes(logs.at("failed")), json({{"exception.type", "mine"}, {"exception.message", "bad tile"}}));
  EXPECT_EQ(logs.at("failed")["severityNumber"], 17);
  EXPECT_EQ(Recorded::attributes(logs.at("odd")), json({{"exception.type", "double"}}));
}

TEST(LoggerTest, ABodyMayBeAnyValueAndHasNoLimits) {
  HOLDS("LG-14", "PB-24");
  Config config;
  config.log_limits.attribute_value_length = 2;
  config.log_limits.attribute_count = 1;
  Recorded recorded(config);
  LogRecord record;
  record.body = "long text";
  record.event_name = "tile.read";
  const std::vector<Attribute> attributes{{"a", "cut"}, {"b", 1}};
  record.attributes = attributes;
  recorded.logger().emit(record);
  const json log = recorded.logs().at("long text");
  EXPECT_EQ(Recorded::attributes(log), json({{"a", "cu"}}));
  EXPECT_EQ(log["droppedAttributesCount"], 1);
  EXPECT_EQ(log["eventName"], "tile.read") << "PB-24";
  EXPECT_FALSE(log.contains("severityNumber"));
}

TEST(LoggerTest, FormatsNothingSoNoMessageCanKillATask) {
  Recorded recorded;
  recorded.logger().info("arg mismatch %d %s {} %n", {{"%d", "%n"}});
  EXPECT_EQ(recorded.logs().size(), 1u);
}

TEST(LoggerTest, RecordsAreCopiedToTheSpanOnlyWhenAskedFor) {
  HOLDS("LG-22");
  Config config;
  config.logs_as_span_events = true;
  Recorded with(config);
  {
    auto span = with.tracer().span("s");
    with.logger().warning("look", {{"tile", 1}, {"body", "mine"}});
    with.logger().bind({{"task", 7}, {"tile", 0}}).exception("failed", std::runtime_error("why"), {{"tile", 2}});
  }
  const json events = with.spans().at("s")["events"];
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(Recorded::attributes(events[1]), json({{"task", "7"},
                                                   {"exception.type", "std::runtime_error"},
                                                   {"exception.message", "why"},
                                                   {"tile", "2"},
                                                   {"body", "failed"},
                                                   {"level", "error"}}));
  EXPECT_EQ(events[0]["name"], "log.message");
  EXPECT_EQ(Recorded::attributes(events[0]), json({{"tile", "1"}, {"body", "look"}, {"level", "warning"}}));

  Recorded without;
  {
    auto span = without.tracer().span("s");
    without.logger().warning("look");
  }
  EXPECT_FALSE(without.spans().at("s").contains("events"));
}

TEST(LoggerTest, LogsInASpanThatIsNotSampledKeepItsIdsAndSayFlagsZero) {
  Config config;
  config.sampler = {SamplerKind::always_off};
  Recorded recorded(config);
  SpanContext context;
  {
    auto span = recorded.tracer().span("s");
    context = span.context();
    recorded.logger().info("x");
  }
  const json log = recorded.logs().at("x");
  EXPECT_EQ(log["traceId"], context.trace_id.hex());
  EXPECT_EQ(log["spanId"], context.span_id.hex());
  EXPECT_EQ(log.value("flags", 0) & 1, 0);
}

TEST(LoggerTest, VeryLongMessagesArriveOrAreCounted) {
  Recorded recorded;
  const std::string fits(200'000, 'm');
  recorded.logger().info(fits);
  recorded.logger().info(std::string(300'000, 'm'));
  EXPECT_EQ(recorded.logs().size(), 1u);
  for (const DestinationStats& d : recorded.telemetry().stats().destinations) {
    if (d.signal != Signal::logs) continue;
    EXPECT_EQ(d.counts.offered, 2u);
    EXPECT_EQ(d.counts.delivered, 1u);
    EXPECT_EQ(d.counts.dropped, 1u);
  }
}

}  // namespace
}  // namespace waymark
