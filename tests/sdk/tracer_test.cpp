#include <cmath>
#include <set>
#include <thread>

#include "sdk/recorded.h"

#include "support/holds.h"

namespace waymark {
namespace {

using nlohmann::json;
using testing::Recorded;

TEST(TracerTest, EveryKindOfValueArrivesAsTheOfficialClassesReadIt) {
  HOLDS("TR-43", "TR-44", "TR-45", "TR-46", "PB-23");
  Recorded recorded;
  const std::vector<std::int64_t> numbers{1, -2, INT64_MIN};
  const std::vector<double> doubles{0.5, -0.0};
  const std::vector<std::string> texts{"a", "", "ü"};
  const std::vector<std::byte> bytes{std::byte{0}, std::byte{0xff}};
  {
    auto span = recorded.tracer().span("all", {{"text", "x"}, {"empty", ""}, {"yes", true}, {"no", false}, {"zero", 0}});
    span.set("negative", -5).set("largest", INT64_MAX).set("above", UINT64_MAX).set("double", 2.5).set("bytes", bytes);
    span.set("numbers", numbers).set("doubles", doubles).set("texts", texts);
    span.set("mixed", Value::array({1, "two", nullptr, Value::array({true})}));
    span.set("map", Value::map({{"k", 1}, {"k", 2}, {"inner", Value::map({{"deep", "er"}})}}));
    span.set("nothing", nullptr);
  }
  const json a = Recorded::attributes(recorded.spans().at("all"));
  EXPECT_EQ(a["text"], "x");
  EXPECT_EQ(a["empty"], "");
  EXPECT_EQ(a["yes"], true);
  EXPECT_EQ(a["no"], false);
  EXPECT_EQ(a["zero"], "0");
  EXPECT_EQ(a["negative"], "-5");
  EXPECT_EQ(a["largest"], "9223372036854775807");
  EXPECT_EQ(a["above"], "18446744073709551615");  // text: no int64 holds it
  EXPECT_EQ(a["double"], 2.5);
  EXPECT_EQ(a["bytes"], "AP8=");
  EXPECT_EQ(a["numbers"]["values"][2]["intValue"], "-9223372036854775808");
  EXPECT_EQ(a["doubles"]["values"][0]["doubleValue"], 0.5);
  EXPECT_EQ(a["texts"]["values"][2]["stringValue"], "ü");
  EXPECT_EQ(a["mixed"]["values"].size(), 4u);
  EXPECT_TRUE(a["mixed"]["values"][2].empty()) << "TR-45: empty elements keep their place";
  EXPECT_EQ(a["map"]["values"].size(), 2u) << "TR-46: the last value of a key counts";
  EXPECT_EQ(a["map"]["values"][0]["value"]["intValue"], "2");
  EXPECT_TRUE(a.contains("nothing"));
}

TEST(TracerTest, TextThatIsNotUtf8IsMended) {
  HOLDS("PB-18");
  Recorded recorded;
  {
    auto span = recorded.tracer().span("bad\xff name", {{"k\xc3", "v\xe2\x28"}});
    span.event("e\xfe", {{"x\x80", "y\x80"}});
    span.status(StatusCode::error, "s\xff");
  }
  const json span = recorded.spans().begin()->second;
  EXPECT_EQ(span["name"], "bad\uFFFD name");
  EXPECT_EQ(Recorded::attributes(span)["k\uFFFD"], "v\uFFFD(");
  EXPECT_EQ(span["events"][0]["name"], "e\uFFFD");
  EXPECT_EQ(span["status"]["message"], "s\uFFFD");
}

TEST(TracerTest, SpansNestByScopeAndKeepTheirIds) {
  HOLDS("TR-21", "TR-11", "PB-08");
  Recorded recorded;
  SpanContext outer_context;
  {
    auto outer = recorded.tracer().span("outer");
    outer_context = outer.context();
    EXPECT_EQ(current_span().context(), outer.context());
    {
      auto inner = recorded.tracer().span("inner");
      EXPECT_EQ(inner.context().trace_id, outer.context().trace_id);
      EXPECT_EQ(current_span().context(), inner.context());
    }
    EXPECT_EQ(current_span().context(), outer.context());
  }
  EXPECT_FALSE(current_span().context().valid());
  auto spans = recorded.spans();
  EXPECT_EQ(spans.at("inner")["parentSpanId"], outer_context.span_id.hex());
  EXPECT_FALSE(spans.at("outer").contains("parentSpanId"));
  EXPECT_EQ(spans.at("outer")["kind"], 1);
  // PB-08: has_is_remote set, sampled and random; TR-57.
  EXPECT_EQ(spans.at("outer")["flags"], 0x103);
}

TEST(TracerTest, OptionsSetKindParentIdsTimesAndLinks) {
  HOLDS("TR-23", "TR-20", "PB-08", "PB-09", "TR-37");
  Recorded recorded;
  TraceContext remote;
  remote.span = *from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1");
  SpanOptions options;
  options.kind = SpanKind::producer;
  options.parent = remote;
  options.span_id = *SpanId::from_hex("1111111111111111");
  options.start = Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'001));
  const std::vector<Attribute> why{{"why", "because"}};
  options.links = {{remote.span, why}};
  {
    auto span = recorded.tracer().span("explicit", {}, options);
    span.end(Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'005)));
    span.set("late", 1);  // TR-37: ignored after the end
  }
  const json span = recorded.spans().at("explicit");
  EXPECT_EQ(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(span["parentSpanId"], "00f067aa0ba902b7");
  EXPECT_EQ(span["spanId"], "1111111111111111");
  EXPECT_EQ(span["traceState"], "a=1");
  EXPECT_EQ(span["kind"], 4);
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000000000001");
  EXPECT_EQ(span["endTimeUnixNano"], "1700000000000000005");
  EXPECT_EQ(span["flags"], 0x301) << "a remote parent; random as the parent said";
  EXPECT_EQ(span["links"][0]["spanId"], "00f067aa0ba902b7");
  EXPECT_EQ(span["links"][0]["flags"], 0x301);
  EXPECT_EQ(Recorded::attributes(span["links"][0])["why"], "because");
  EXPECT_FALSE(span.contains("attributes"));
}

TEST(TracerTest, StatusOrdersOkAboveErrorAboveUnset) {
  HOLDS("TR-33", "TR-32", "PB-12");
  Recorded recorded;
  const auto status_after = [&](std::initializer_list<StatusCode> codes) {
    static int n = 0;
    const std::string name = "s" + std::to_string(n++);
    {
      auto span = recorded.tracer().span(name);
      for (const StatusCode code : codes) span.status(code, "text");
    }
    return recorded.spans().at(name).value("status", json::object());
  };
  EXPECT_TRUE(status_after({}).empty());
  EXPECT_TRUE(status_after({StatusCode::unset}).empty());
  EXPECT_EQ(status_after({StatusCode::ok}), json({{"code", 1}})) << "TR-32: a description is for errors";
  EXPECT_EQ(status_after({StatusCode::error}), json({{"code", 2}, {"message", "text"}}));
  EXPECT_EQ(status_after({StatusCode::error, StatusCode::unset}), json({{"code", 2}, {"message", "text"}}));
  EXPECT_EQ(status_after({StatusCode::error, StatusCode::ok}), json({{"code", 1}}));
  EXPECT_EQ(status_after({StatusCode::ok, StatusCode::error}), json({{"code", 1}}));
}

TEST(TracerTest, ExceptionsBecomeEventsAndTheCallersAttributesWin) {
  HOLDS("TR-38");
  Recorded recorded;
  {
    auto span = recorded.tracer().span("e");
    span.record_exception(std::out_of_range("no such tile"), {{"exception.message", "mine"}, {"tile", 7}});
    span.record_exception(std::make_exception_ptr(42));
  }
  const json events = recorded.spans().at("e")["events"];
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["name"], "exception");
  const json first = Recorded::attributes(events[0]);
  EXPECT_EQ(first["exception.type"], "std::out_of_range");
  EXPECT_EQ(first["exception.message"], "mine");
  EXPECT_EQ(first["tile"], "7");
  EXPECT_EQ(Recorded::attributes(events[1])["exception.type"], "int");
}

TEST(TracerTest, AScopeLeftByAnExceptionEndsItsSpanWithAnError) {
  Recorded recorded;
  try {
    auto span = recorded.tracer().span("thrown");
    throw std::runtime_error("x");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(recorded.spans().at("thrown")["status"]["code"], 2);
}

TEST(TracerTest, ARepeatedKeyKeepsItsLastValueAndDoesNotCount) {
  HOLDS("TR-28", "TR-50", "PB-17");
  Config config;
  config.span_limits.attribute_count = 3;
  Recorded recorded(config);
  {
    auto span = recorded.tracer().span("r", {{"a", 1}, {"b", 2}, {"c", 3}});
    span.set("a", 10).set("d", 4).set("b", "twenty").set("a", 100).set("", 1);
  }
  const json span = recorded.spans().at("r");
  EXPECT_EQ(Recorded::attributes(span), json({{"a", "100"}, {"b", "twenty"}, {"c", "3"}}));
  EXPECT_EQ(span["droppedAttributesCount"], 2) << "d is above the limit, an empty key is none";
}

TEST(TracerTest, LimitsCutAndCount) {
  HOLDS("TR-53", "TR-49", "TR-51", "PB-17");
  Config config;
  config.span_limits.attribute_value_length = 3;
  config.span_limits.attribute_value_depth = 2;
  config.span_limits.event_count = 1;
  config.span_limits.link_count = 1;
  config.span_limits.event_attribute_count = 1;
  config.span_limits.link_attribute_count = 1;
  Recorded recorded(config);
  SpanContext other;
  other.trace_id = TraceId::random();
  other.span_id = SpanId::random();
  {
    auto span = recorded.tracer().span("cut", {{"text", "äöüß"}, {"short", "ab"}});
    span.set("bytes", std::vector<std::byte>(5)).set("deep", Value::array({Value::array({Value::array({1})}), "abcdef"}));
    span.event("one", {{"a", 1}, {"b", 2}}).event("two");
    span.link(other, {{"a", 1}, {"b", 2}}).link(other);
  }
  const json span = recorded.spans().at("cut");
  const json a = Recorded::attributes(span);
  EXPECT_EQ(a["text"], "äöü") << "TR-49: characters, not bytes";
  EXPECT_EQ(a["short"], "ab");
  EXPECT_EQ(a["bytes"], "AAAA");
  EXPECT_TRUE(a["deep"]["values"][0]["arrayValue"]["values"][0].empty()) << "TR-51";
  EXPECT_EQ(a["deep"]["values"][1]["stringValue"], "abc");
  EXPECT_EQ(span["events"].size(), 1u);
  EXPECT_EQ(span["events"][0]["droppedAttributesCount"], 1);
  EXPECT_EQ(span["droppedEventsCount"], 1);
  EXPECT_EQ(span["links"].size(), 1u);
  EXPECT_EQ(span["links"][0]["droppedAttributesCount"], 1);
  EXPECT_EQ(span["droppedLinksCount"], 1);
}

TEST(TracerTest, LargeAttributesAndManyEventsGoAcrossBlocks) {
  Recorded recorded;
  const std::string large(100'000, 'x');
  {
    auto span = recorded.tracer().span("large", {{"before", 1}});
    span.set("large", large);
    for (int i = 0; i < 100; ++i) span.event("event " + std::to_string(i), {{"payload", std::string(100, 'e')}});
    span.update_name("renamed");
    span.set("after", 2);
  }
  const json span = recorded.spans().at("renamed");
  const json a = Recorded::attributes(span);
  EXPECT_EQ(a["large"], large);
  EXPECT_EQ(a["before"], "1");
  EXPECT_EQ(a["after"], "2");
  ASSERT_EQ(span["events"].size(), 100u);
  EXPECT_EQ(span["events"][99]["name"], "event 99");
}

TEST(TracerTest, ARecordStopsGrowingAt256KibAndCountsWhatWasRefused) {
  Recorded recorded;
  {
    auto span = recorded.tracer().span("full");
    for (int i = 0; i < 5; ++i) span.set("k" + std::to_string(i), std::string(60'000, 'x'));
  }
  const json span = recorded.spans().at("full");
  EXPECT_EQ(Recorded::attributes(span).size(), 4u);
  EXPECT_EQ(span["droppedAttributesCount"], 1);
}

TEST(TracerTest, TheSameKeySetAHundredThousandTimesStaysOneAttribute) {
  Recorded recorded;
  {
    auto span = recorded.tracer().span("progress", {{"first", "stays"}});
    for (int i = 0; i < 100'000; ++i) span.set("done", i);
  }
  const json span = recorded.spans().at("progress");
  EXPECT_EQ(Recorded::attributes(span), json({{"first", "stays"}, {"done", "99999"}}));
  EXPECT_FALSE(span.contains("droppedAttributesCount"));
}

TEST(TracerTest, SamplersDecideAsTheSpecificationSays) {
  HOLDS("TR-68", "TR-22");
  const auto recorded_with = [](Sampler sampler, std::optional<bool> parent_sampled) {
    Config config;
    config.sampler = sampler;
    Recorded recorded(config);
    SpanOptions options;
    if (parent_sampled) {
      TraceContext parent;
      parent.span.trace_id = TraceId::random();
      parent.span.span_id = SpanId::random();
      parent.span.flags = *parent_sampled ? 1 : 0;
      options.parent = parent;
    }
    bool sampled = false;
    {
      auto span = recorded.tracer().span("s", {}, options);
      EXPECT_TRUE(span.context().valid()) << "TR-22: ids even when dropped";
      EXPECT_EQ(current_span().context(), span.context()) << "a span that is not sampled is current all the same";
      sampled = span.recording();
      EXPECT_EQ(span.context().sampled(), sampled);
    }
    EXPECT_EQ(recorded.spans().size(), sampled ? 1u : 0u);
    return sampled;
  };
  using K = SamplerKind;
  EXPECT_TRUE(recorded_with({K::always_on}, false));
  EXPECT_FALSE(recorded_with({K::always_off}, true));
  EXPECT_TRUE(recorded_with({K::parentbased_always_on}, std::nullopt));
  EXPECT_TRUE(recorded_with({K::parentbased_always_on}, true));
  EXPECT_FALSE(recorded_with({K::parentbased_always_on}, false));
  EXPECT_FALSE(recorded_with({K::parentbased_always_off}, std::nullopt));
  EXPECT_TRUE(recorded_with({K::parentbased_always_off}, true));
  EXPECT_TRUE(recorded_with({K::parentbased_traceidratio, 0.0}, true));
  EXPECT_FALSE(recorded_with({K::parentbased_traceidratio, 0.0}, std::nullopt));
  EXPECT_TRUE(recorded_with({K::traceidratio, 1.0}, false));
}

TEST(TracerTest, AHigherRatioSamplesAllThatALowerOneDoes) {
  HOLDS("TR-65", "TR-67");
  const auto sampled = [](double ratio, const TraceId& id) {
    Config config;
    config.sampler = {SamplerKind::traceidratio, ratio};
    static std::map<double, std::unique_ptr<Recorded>> telemetries;
    auto& recorded = telemetries[ratio];
    if (!recorded) recorded = std::make_unique<Recorded>(config);
    SpanOptions options;
    options.root = true;
    options.trace_id = id;
    return recorded->tracer().span("s", {}, options).recording();
  };
  int low = 0;
  int high = 0;
  for (int i = 0; i < 10'000; ++i) {
    const TraceId id = TraceId::random();
    const bool in_low = sampled(0.1, id);
    const bool in_high = sampled(0.5, id);
    EXPECT_TRUE(!in_low || in_high);
    low += in_low ? 1 : 0;
    high += in_high ? 1 : 0;
  }
  EXPECT_NEAR(low, 1000, 150);
  EXPECT_NEAR(high, 5000, 300);
}

TEST(TracerTest, DescribesItsSampler) {
  HOLDS("TR-64");
  EXPECT_EQ((Sampler{SamplerKind::traceidratio, 0.0001}).description(), "TraceIdRatioBased{0.000100}");
  EXPECT_EQ((Sampler{SamplerKind::always_on}).description(), "AlwaysOnSampler");
  EXPECT_EQ((Sampler{SamplerKind::parentbased_traceidratio, 0.5}).description(),
            "ParentBased{root:TraceIdRatioBased{0.500000},remoteParentSampled:AlwaysOnSampler,"
            "remoteParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler,"
            "localParentNotSampled:AlwaysOffSampler}");
}

TEST(TracerTest, ADetachedSpanMovesBetweenThreadsAndIsNotCurrent) {
  HOLDS("TR-19");
  Recorded recorded;
  DetachedSpan span = recorded.tracer().start_span("moved", {{"made", "here"}});
  EXPECT_FALSE(current_span().context().valid());
  const SpanContext context = span.context();
  std::thread([&recorded, moved = std::move(span)]() mutable {
    const ContextScope scope(moved.trace_context());
    EXPECT_EQ(current_span().context(), moved.context());
    auto child = recorded.tracer().span("child");
    moved.set("set", "there");
  }).join();
  auto spans = recorded.spans();
  EXPECT_EQ(Recorded::attributes(spans.at("moved")), json({{"made", "here"}, {"set", "there"}}));
  EXPECT_EQ(spans.at("child")["parentSpanId"], context.span_id.hex());
}

TEST(TracerTest, SeveralThreadsChangeOneDetachedSpan) {
  HOLDS("TR-40");
  Recorded recorded;
  {
    DetachedSpan span = recorded.tracer().start_span("shared");
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&span, t] {
        for (int i = 0; i < 20; ++i) span.set("t" + std::to_string(t) + "." + std::to_string(i), i);
      });
    }
    for (std::thread& t : threads) t.join();
  }
  EXPECT_EQ(Recorded::attributes(recorded.spans().at("shared")).size(), 80u);
}

TEST(TracerTest, MoreThreadsThanLanesLoseNothing) {
  HOLDS("TR-75");
  Config config;
  config.recorder.max_bytes = 4 << 20;
  Recorded recorded(config);
  constexpr int kThreads = 24;
  constexpr int kSpans = 50;
  std::vector<std::thread> threads;
  const Tracer tracer = recorded.tracer();
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&tracer, t] {
      for (int i = 0; i < kSpans; ++i) {
        auto outer = tracer.span("t" + std::to_string(t) + "." + std::to_string(i));
        auto inner = tracer.span("inner of t" + std::to_string(t) + "." + std::to_string(i));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(recorded.spans().size(), 2u * kThreads * kSpans);
}

TEST(TracerTest, DeepNestingTakesBlocksFromThePool) {
  Recorded recorded;
  const Tracer tracer = recorded.tracer();
  const std::function<void(int)> nest = [&](int depth) {
    auto span = tracer.span("depth " + std::to_string(depth), {{"depth", depth}});
    if (depth < 40) nest(depth + 1);
    span.set("after", true);
  };
  nest(1);
  auto spans = recorded.spans();
  ASSERT_EQ(spans.size(), 40u);
  EXPECT_EQ(spans.at("depth 40")["parentSpanId"], spans.at("depth 39")["spanId"]);
}

TEST(TracerTest, TimesDoNotRunBackwardsWithinASpan) {
  testing::ManualClock clock;
  Config config;
  config.clock = clock.function();
  Recorded recorded(config);
  {
    auto span = recorded.tracer().span("back");
    clock.advance(std::chrono::seconds(-10));
  }
  const json span = recorded.spans().at("back");
  EXPECT_EQ(span["startTimeUnixNano"], span["endTimeUnixNano"]);
}

TEST(TracerTest, ABoundedContextReachesAThreadOfTheUsersOwn) {
  HOLDS("TC-12", "TR-11");
  Recorded recorded;
  Headers headers;
  SpanContext outer;
  {
    auto span = recorded.tracer().span("outer");
    outer = span.context();
    TraceContext context = current_context();
    context.baggage = context.baggage.set("scene", "S2A");
    std::thread([&] {
      const ContextScope scope(context);
      auto inner = recorded.tracer().span("inner");
      inject(current_context(), headers);
    }).join();
  }
  auto spans = recorded.spans();
  EXPECT_EQ(spans.at("inner")["parentSpanId"], outer.span_id.hex());
  EXPECT_EQ(headers.at("traceparent"),
            "00-" + outer.trace_id.hex() + "-" + spans.at("inner")["spanId"].get<std::string>() + "-03");
  EXPECT_EQ(headers.at("baggage"), "scene=S2A");
}

TEST(TracerTest, ScopesCarryNameVersionSchemaAndAttributes) {
  HOLDS("TR-02", "TR-08", "PB-15", "PB-16");
  Recorded recorded;
  { auto span = recorded.telemetry().tracer("lib", "1.2.3", "https://example.org/schema", {{"a", 1}}).span("in lib"); }
  { auto span = recorded.telemetry().tracer("lib", "1.2.4").span("in newer lib"); }
  ASSERT_TRUE(recorded.telemetry().force_flush(std::chrono::seconds(60)));
  std::set<std::string> scopes;
  for (const std::string& request : recorded.memory().requests(Signal::traces)) {
    const json decoded = json::parse(testing::official_json(Signal::traces, request));
    for (const auto& resource : decoded["resourceSpans"]) {
      EXPECT_EQ(Recorded::attributes(resource["resource"])["service.name"], "test");
      for (const auto& scope : resource["scopeSpans"]) scopes.insert(scope["scope"].dump() + scope.value("schemaUrl", ""));
    }
  }
  EXPECT_EQ(scopes, (std::set<std::string>{
                        R"({"attributes":[{"key":"a","value":{"intValue":"1"}}],"name":"lib","version":"1.2.3"})"
                        "https://example.org/schema",
                        R"({"name":"lib","version":"1.2.4"})"}));
}

TEST(TracerTest, ATracerOfATelemetryThatIsShutDownRecordsNothing) {
  HOLDS("TR-05");
  Recorded recorded;
  const Tracer tracer = recorded.tracer();
  EXPECT_TRUE(tracer.enabled());
  EXPECT_TRUE(recorded.telemetry().shutdown(std::chrono::seconds(60)));
  EXPECT_FALSE(tracer.enabled());
  auto span = tracer.span("late");
  EXPECT_FALSE(span.recording());
  EXPECT_FALSE(span.context().valid());
}

TEST(TracerTest, ASwitchedOffTracerLetsAContextThrough) {
  HOLDS("TR-13");
  Config config = testing::memory_config(testing::MemoryDestination());
  config.disabled = true;
  Telemetry off(config);
  SpanOptions options;
  options.parent = extract(Headers{{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {"baggage", "k=v"}});
  {
    auto span = off.tracer("t").span("s", {}, options);
    EXPECT_FALSE(span.recording());
    EXPECT_EQ(span.context(), options.parent->span) << "no new ids";
    EXPECT_EQ(current_span().context(), options.parent->span);
    auto inner = off.tracer("t").span("inner");
    EXPECT_EQ(inner.context(), options.parent->span);
    Headers headers;
    inject(current_context(), headers);
    EXPECT_EQ(headers.at("traceparent"), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    EXPECT_EQ(headers.at("baggage"), "k=v");
  }
  EXPECT_FALSE(current_span().context().valid());
  const DetachedSpan detached = off.tracer("t").start_span("d", {}, options);
  EXPECT_EQ(detached.context(), options.parent->span);
}

TEST(TracerTest, WhatWasDroppedIsSaidOnce) {
  HOLDS("TR-54");
  std::vector<std::string> said;
  Config config;
  config.span_limits.attribute_count = 1;
  config.error_handler = [&said](DiagnosticLevel, std::string_view message) { said.emplace_back(message); };
  Recorded recorded(config);
  for (int i = 0; i < 3; ++i) auto span = recorded.tracer().span("s", {{"a", 1}, {"b", 2}});
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].find("limit"), std::string::npos);
}

TEST(TracerTest, AContextOutlivesTheEndAndASecondEndChangesNothing) {
  HOLDS("TR-26", "TR-27", "TR-37");
  Recorded recorded;
  SpanContext context;
  {
    auto span = recorded.tracer().span("s");
    context = span.context();
    span.end(Timestamp(std::chrono::nanoseconds(INT64_C(2'000'000'000'000'000'000))));
    span.end(Timestamp(std::chrono::nanoseconds(INT64_C(2'100'000'000'000'000'000))));
    span.event("late").status(StatusCode::error).update_name("late");
    span.record_exception(std::runtime_error("late"));
    EXPECT_EQ(span.context(), context);
    EXPECT_FALSE(span.recording());
  }
  const json span = recorded.spans().at("s");
  EXPECT_EQ(span["endTimeUnixNano"], "2000000000000000000") << "TR-37";
  EXPECT_FALSE(span.contains("events"));
  EXPECT_FALSE(span.contains("status"));
}

TEST(TracerTest, EventsKeepTheirOrderAndTheirTimes) {
  HOLDS("TR-29");
  Recorded recorded;
  {
    auto span = recorded.tracer().span("s");
    span.event("far future", {}, Timestamp(std::chrono::nanoseconds(INT64_C(4'000'000'000'000'000'000))));
    span.event("long ago", {}, Timestamp(std::chrono::nanoseconds(1)));
    span.event("now");
  }
  const json events = recorded.spans().at("s")["events"];
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0]["timeUnixNano"], "4000000000000000000");
  EXPECT_EQ(events[1]["timeUnixNano"], "1");
  EXPECT_EQ(events[2]["name"], "now");
}

TEST(TracerTest, EventsOfEverySizeArriveWholeAlsoWhereABlockEnds) {
  constexpr int kEvents = 120;
  Recorded recorded;
  {
    auto span = recorded.tracer().span("s");
    for (int i = 0; i < kEvents; ++i) {
      span.event("e" + std::to_string(i), {{"text", std::string(static_cast<std::size_t>(i), 'x')}, {"number", i}, {"half", i / 2.0}});
    }
  }
  const json events = recorded.spans().at("s")["events"];
  ASSERT_EQ(events.size(), static_cast<std::size_t>(kEvents));
  for (int i = 0; i < kEvents; ++i) {
    EXPECT_EQ(events[static_cast<std::size_t>(i)]["name"], "e" + std::to_string(i));
    EXPECT_EQ(Recorded::attributes(events[static_cast<std::size_t>(i)]),
              json({{"text", std::string(static_cast<std::size_t>(i), 'x')}, {"number", std::to_string(i)}, {"half", i / 2.0}}));
  }
}

TEST(TracerTest, LimitsOfEventsHoldForShortOnes) {
  HOLDS("TR-53");
  Config config;
  config.span_limits.event_count = 2;
  config.span_limits.event_attribute_count = 1;
  Recorded recorded(config);
  {
    auto span = recorded.tracer().span("s");
    span.event("one", {{"a", 1}, {"b", 2}}).event("two", {{"a", 1}}).event("three");
  }
  const json span = recorded.spans().at("s");
  ASSERT_EQ(span["events"].size(), 2u);
  EXPECT_EQ(span["events"][0]["attributes"].size(), 1u);
  EXPECT_EQ(span["events"][0]["droppedAttributesCount"], 1);
  EXPECT_FALSE(span["events"][1].contains("droppedAttributesCount"));
  EXPECT_EQ(span["droppedEventsCount"], 1);
}

TEST(TracerTest, ALinkToNowhereStaysWhereItSaysSomething) {
  HOLDS("TR-31");
  Recorded recorded;
  {
    auto span = recorded.tracer().span("s");
    span.link({}).link({}, {{"why", "kept"}});
  }
  const json links = recorded.spans().at("s")["links"];
  ASSERT_EQ(links.size(), 1u);
  EXPECT_EQ(links[0]["traceId"], std::string(32, '0'));
}

TEST(TracerTest, ARootForgetsWhatIsCurrent) {
  HOLDS("TC-19", "TR-20");
  Recorded recorded;
  const ContextScope scope(TraceContext{*from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1"), {}});
  SpanOptions options;
  options.root = true;
  { auto span = recorded.tracer().span("root", {}, options); }
  const json span = recorded.spans().at("root");
  EXPECT_FALSE(span.contains("parentSpanId"));
  EXPECT_FALSE(span.contains("traceState"));
  EXPECT_NE(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

TEST(TracerTest, ScopesLeftOutOfOrderLeaveTheThreadUsable) {
  HOLDS("TR-12");
  Recorded recorded;
  const TraceContext context{recorded.tracer().new_root("x"), {}};
  {
    const ContextScope outer(context);
    { auto span = recorded.tracer().span("in"); }
    EXPECT_EQ(current_context().span, context.span);
  }
  EXPECT_FALSE(current_context().span.valid());
}

TEST(TracerTest, AResourceHasNoAttributeLimit) {
  HOLDS("TR-55");
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  for (int i = 0; i < 200; ++i) config.resource.set("k" + std::to_string(i), AnyValue{std::string(1000, 'v')});
  config.span_limits.attribute_count = 1;
  config.span_limits.attribute_value_length = 1;
  Telemetry telemetry(config);
  { auto span = telemetry.tracer("t").span("s"); }
  ASSERT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
  ASSERT_EQ(memory.spans().size(), 1u);
  EXPECT_EQ(testing::Recorded::attributes(json::parse(testing::official_json(
                Signal::traces, memory.requests(Signal::traces).at(0)))["resourceSpans"][0]["resource"])["k199"],
            std::string(1000, 'v'));
}

TEST(TracerTest, ANewRootIsSampledByTheSampler) {
  Config config;
  config.sampler = {SamplerKind::always_off};
  Recorded off(config);
  Recorded on;
  EXPECT_FALSE(off.tracer().new_root("job").sampled());
  EXPECT_TRUE(off.tracer().new_root("job").valid());
  EXPECT_TRUE(on.tracer().new_root("job").sampled());
}

}  // namespace
}  // namespace waymark
