// Requirements on traces that no other room's tests show.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <future>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sdk/recorded.h"
#include "support/holds.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::Recorded;

constexpr auto kParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(SpanContextTest, IsRemoteWhereItWasExtractedAndNotInASpanBelowIt) {
  HOLDS("TR-16");
  EXPECT_FALSE(SpanContext{}.valid());
  Recorded recorded;
  const TraceContext extracted = extract(Headers{{"traceparent", kParent}});
  EXPECT_TRUE(extracted.span.valid());
  EXPECT_TRUE(extracted.span.remote);
  const ContextScope scope(extracted);
  const auto span = recorded.tracer().span("child");
  EXPECT_TRUE(span.context().valid());
  EXPECT_FALSE(span.context().remote);
}

TEST(SpanContextTest, MadeCurrentByItselfItRecordsNothingAndGivesItsIds) {
  HOLDS("TR-18");
  Recorded recorded;
  const TraceContext extracted = extract(Headers{{"traceparent", kParent}, {"tracestate", "a=1"}});
  {
    const ContextScope scope(extracted);
    SpanHandle span = current_span();
    EXPECT_EQ(span.context(), extracted.span);
    EXPECT_FALSE(span.recording());
    span.set("k", 1).event("e").status(StatusCode::error).update_name("n").link(extracted.span);
    span.record_exception(std::runtime_error("x"));
    EXPECT_EQ(span.context(), extracted.span);
  }
  EXPECT_TRUE(recorded.spans().empty());
}

TEST(SpanTest, AnEmptyTracerNameIsANameToo) {
  HOLDS("TR-03");
  std::vector<std::string> said;
  Config config;
  config.error_handler = [&said](DiagnosticLevel, std::string_view message) { said.emplace_back(message); };
  Recorded recorded(config);
  { auto span = recorded.telemetry().tracer("").span("s"); }
  ASSERT_TRUE(recorded.telemetry().force_flush(20s));
  ASSERT_EQ(recorded.memory().spans().size(), 1u);
  EXPECT_EQ(recorded.memory().spans()[0].scope.name, "");
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].find("without a name"), std::string::npos);
}

TEST(SpanTest, TracersSeeADestinationThatIsAddedLater) {
  HOLDS("TR-04", "TR-07");
  Recorded recorded;
  const Tracer tracer = recorded.tracer();
  testing::MemoryDestination later;
  recorded.telemetry().add(later.destination(Signal::traces, "later"));
  { auto span = tracer.span("s"); }
  ASSERT_TRUE(recorded.telemetry().force_flush(20s));
  EXPECT_EQ(later.spans().size(), 1u);
  EXPECT_EQ(recorded.memory().spans().size(), 1u) << "one flush is for all destinations";
}

TEST(SpanTest, TimesAreThoseOfTheCalls) {
  HOLDS("TR-25", "TR-29");
  testing::ManualClock clock(Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'001)));
  Config config;
  config.clock = clock.function();
  Recorded recorded(config);
  {
    auto span = recorded.tracer().span("s");
    clock.advance(5ns);
    span.event("e");
    clock.advance(7ns);
  }
  clock.advance(1s);
  const json span = recorded.spans().at("s");
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000000000001");
  EXPECT_EQ(span["events"][0]["timeUnixNano"], "1700000000000000006");
  EXPECT_EQ(span["endTimeUnixNano"], "1700000000000000013");
}

TEST(SpanTest, LinksKeepTheirOrderFromTheStartOn) {
  HOLDS("TR-30");
  Recorded recorded;
  std::vector<SpanContext> targets(4);
  for (SpanContext& target : targets) {
    target.trace_id = TraceId::random();
    target.span_id = SpanId::random();
  }
  SpanOptions options;
  options.links = {{targets[0], {}}, {targets[1], {}}};
  { recorded.tracer().span("s", {}, options).link(targets[2]).link(targets[3]); }
  const json links = recorded.spans().at("s")["links"];
  ASSERT_EQ(links.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(links[i]["spanId"], targets[i].span_id.hex());
}

TEST(SpanTest, ANewNameDoesNotAskTheSamplerAgain) {
  HOLDS("TR-34");
  Config config;
  config.sampler = {SamplerKind::always_off};
  Recorded recorded(config);
  SpanOptions options;
  options.sampled = true;
  {
    auto span = recorded.tracer().span("before", {}, options);
    span.update_name("after");
    EXPECT_TRUE(span.recording());
    EXPECT_TRUE(span.context().sampled());
  }
  const auto spans = recorded.spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_TRUE(spans.contains("after"));
}

TEST(SpanTest, AnEndedSpanIsStillCurrentAndAParent) {
  HOLDS("TR-35");
  Recorded recorded;
  SpanContext parent;
  {
    auto outer = recorded.tracer().span("outer");
    parent = outer.context();
    auto open = recorded.tracer().span("open");
    outer.end(Timestamp(std::chrono::nanoseconds(1'900'000'000'000'000'000)));
    EXPECT_TRUE(open.recording()) << "its children are not ended with it";
    open.set("after", "the parent's end");
    EXPECT_EQ(current_span().context(), open.context());
    SpanOptions below;
    below.parent = outer.trace_context();
    auto child = recorded.tracer().span("child", {}, below);
  }
  {
    auto ended = recorded.tracer().span("ended");
    ended.end();
    EXPECT_EQ(current_span().context(), ended.context()) << "ending does not make it less current";
  }
  const auto spans = recorded.spans();
  EXPECT_EQ(spans.at("outer")["endTimeUnixNano"], "1900000000000000000");
  EXPECT_EQ(Recorded::attributes(spans.at("open"))["after"], "the parent's end");
  EXPECT_EQ(spans.at("child")["parentSpanId"], parent.span_id.hex());
}

// Its destination takes nothing until it is let go.
TEST(SpanTest, EndingOneWaitsForNoDestination) {
  HOLDS("TR-36");
  std::promise<void> let_go;
  const std::shared_future<void> gone = let_go.get_future().share();
  Config config;
  config.resource = Resource("test");
  DestinationConfig stalled;
  stalled.name = "stalled";
  stalled.output = Output::callback;
  stalled.batch.max_records = 1;
  std::promise<void> called;
  stalled.deliver = [&, first = true](Signal, std::string_view) mutable {
    if (first) called.set_value();
    first = false;
    gone.wait();
    return DeliveryResult{};
  };
  config.destinations = {stalled};
  Telemetry telemetry(config);
  const Tracer tracer = telemetry.tracer("t");
  { auto span = tracer.span("taken"); }
  called.get_future().wait();
  for (int i = 0; i < 1000; ++i) auto span = tracer.span("s");
  EXPECT_EQ(telemetry.stats().spans, 1001u);
  EXPECT_EQ(telemetry.stats().destinations.at(0).counts.delivered, 0u);
  let_go.set_value();
  EXPECT_TRUE(telemetry.force_flush(20s));
}

TEST(SpanTest, IdsAreRandom) {
  HOLDS("TC-09", "TR-57");
  Recorded recorded;
  constexpr int kIds = 4096;
  std::set<std::string> traces;
  std::set<std::string> spans;
  std::array<std::array<int, 256>, 7> seen{};  // how often each value stood in each of the last seven bytes
  for (int i = 0; i < kIds; ++i) {
    // Both ways to a root have to be: the span itself, and ids for one that is written later.
    const SpanContext root = i % 2 == 0 ? recorded.tracer().span("r").context() : recorded.tracer().new_root("r");
    EXPECT_EQ(root.flags & SpanContext::kRandom, SpanContext::kRandom);
    traces.insert(root.trace_id.hex());
    spans.insert(root.span_id.hex());
    for (std::size_t b = 0; b < 7; ++b) ++seen[b][root.trace_id.bytes[9 + b]];
  }
  EXPECT_EQ(traces.size(), static_cast<std::size_t>(kIds));
  EXPECT_EQ(spans.size(), static_cast<std::size_t>(kIds));
  for (std::size_t b = 0; b < 7; ++b) {
    double chi_square = 0;
    for (const int count : seen[b]) chi_square += std::pow(count - kIds / 256.0, 2) / (kIds / 256.0);
    EXPECT_LT(chi_square, 420) << "byte " << 9 + b << "; 255 degrees of freedom: beyond this once in 10^10 runs";
  }
  Headers headers;
  inject(recorded.tracer().span("r").trace_context(), headers);
  EXPECT_EQ(headers.at("traceparent").substr(52), "-03");
}

TEST(SpanTest, KindsHaveTheNumbersOfTheWire) {
  HOLDS("PB-11", "TR-23");
  Recorded recorded;
  const std::map<std::string, std::pair<SpanKind, int>> kinds{{"internal", {SpanKind::internal, 1}},
                                                             {"server", {SpanKind::server, 2}},
                                                             {"client", {SpanKind::client, 3}},
                                                             {"producer", {SpanKind::producer, 4}},
                                                             {"consumer", {SpanKind::consumer, 5}}};
  for (const auto& [name, kind] : kinds) {
    SpanOptions options;
    options.kind = kind.first;
    auto span = recorded.tracer().span(name, {}, options);
  }
  { auto span = recorded.tracer().span("by default"); }
  const auto spans = recorded.spans();
  for (const auto& [name, kind] : kinds) EXPECT_EQ(spans.at(name)["kind"], kind.second) << name;
  EXPECT_EQ(spans.at("by default")["kind"], 1);
}

TEST(SpanTest, KeysAreUniqueWhereverAttributesStand) {
  HOLDS("PB-14", "TR-46");
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.resource.set("k", AnyValue{std::int64_t{1}}).set("k", AnyValue{std::int64_t{2}});
  Telemetry telemetry(config);
  SpanContext linked;
  linked.trace_id = TraceId::random();
  linked.span_id = SpanId::random();
  {
    auto span = telemetry.tracer("t", "1", "", {{"k", 1}, {"k", 2}}).span("s", {{"k", 1}, {"k", 2}});
    span.event("e", {{"k", 1}, {"k", 2}}).link(linked, {{"k", 1}, {"k", 2}});
    span.set("map", Value::map({{"k", 1}, {"k", 2}}));
  }
  telemetry.logger("t").info("l", {{"k", 1}, {"k", 2}});
  ASSERT_TRUE(telemetry.force_flush(20s));
  const auto last_only = [](const json& attributes, const char* where) {
    int found = 0;
    for (const json& attribute : attributes) {
      if (attribute["key"] != "k") continue;
      ++found;
      EXPECT_EQ(attribute["value"]["intValue"], "2") << where;
    }
    EXPECT_EQ(found, 1) << where;
  };
  const json spans = json::parse(testing::official_json(Signal::traces, memory.requests(Signal::traces).at(0)));
  const json& resource = spans["resourceSpans"][0];
  const json& scope = resource["scopeSpans"][0];
  const json& span = scope["spans"][0];
  last_only(resource["resource"]["attributes"], "resource");
  last_only(scope["scope"]["attributes"], "scope");
  last_only(span["attributes"], "span");
  last_only(span["events"][0]["attributes"], "event");
  last_only(span["links"][0]["attributes"], "link");
  last_only(span["attributes"].back()["value"]["kvlistValue"]["values"], "map");
  const json logs = json::parse(testing::official_json(Signal::logs, memory.requests(Signal::logs).at(0)));
  last_only(logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"], "log record");
}

TEST(SpanTest, BaggageIsNotTelemetry) {
  HOLDS("BG-12");
  Recorded recorded;
  {
    const ContextScope scope(extract(Headers{{"traceparent", kParent}, {"baggage", "user=ada"}}));
    EXPECT_EQ(current_context().baggage.get("user"), "ada");
    auto span = recorded.tracer().span("s");
    recorded.logger().info("l");
  }
  EXPECT_FALSE(recorded.spans().at("s").contains("attributes"));
  EXPECT_FALSE(recorded.logs().at("l").contains("attributes"));
}

TEST(InjectTest, EveryHeaderIsPrintableAscii) {
  HOLDS("CP-03");
  TraceContext context{*from_traceparent(kParent, "a=1"), Baggage().set("name", "grüße \r\n\x01\"", "p=1").set("ü", "x")};
  std::set<std::string> names;
  inject(context, [&](std::string_view name, std::string_view value) {
    names.emplace(name);
    for (const char c : name) EXPECT_TRUE((c >= 'a' && c <= 'z') || c == '-') << name;
    for (const char c : value) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << name;
  });
  EXPECT_EQ(names, (std::set<std::string>{"baggage", "traceparent", "tracestate"}));
}

}  // namespace
}  // namespace waymark
