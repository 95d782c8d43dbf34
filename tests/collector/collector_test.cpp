// What the Collector accepted is what was recorded: over each protocol, with and without gzip and TLS, across its death,
// and for the trace of a whole job. The Collector's file is read by the official protobuf classes.
#include "collector/collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "runner/temporary_directory.h"
#include "support/holds.h"
#include "support/official.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::Collector;
using ::testing::HasSubstr;
using ::testing::Not;

// One record with all that stands around it, for comparison. The Collector writes `status`, `body` and rows of buckets
// also where there is none.
using Records = std::multiset<std::string>;

void add_records(const json& request, Records& records) {
  for (const auto& [resources, scopes, list] :
       {std::tuple("resourceSpans", "scopeSpans", "spans"), std::tuple("resourceLogs", "scopeLogs", "logRecords"),
        std::tuple("resourceMetrics", "scopeMetrics", "metrics")}) {
    for (const json& resource : request.value(resources, json::array())) {
      for (const json& scope : resource.value(scopes, json::array())) {
        for (json record : scope.value(list, json::array())) {
          for (const char* key : {"status", "body"}) {
            if (record.contains(key) && record[key].empty()) record.erase(key);
          }
          if (record.contains("exponentialHistogram")) {
            for (json& point : record["exponentialHistogram"]["dataPoints"]) {
              for (const char* key : {"positive", "negative"}) {
                if (point.contains(key) && point[key].empty()) point.erase(key);
              }
            }
          }
          records.insert(json{{"resource", resource.value("resource", json::object())},
                              {"resourceSchemaUrl", resource.value("schemaUrl", "")},
                              {"scope", scope.value("scope", json::object())},
                              {"schemaUrl", scope.value("schemaUrl", "")},
                              {"record", record}}
                             .dump());
        }
      }
    }
  }
}

Signal signal_of(const std::string& line) {
  return line.find("\"resourceMetrics\"") != std::string::npos ? Signal::metrics
         : line.find("\"resourceLogs\"") != std::string::npos  ? Signal::logs
                                                                : Signal::traces;
}

class CollectorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    const auto found = Collector::program(why);
    if (!found) GTEST_SKIP() << why;
    program_ = *found;
  }
  std::unique_ptr<Collector> collector(const Collector::Settings& settings = {}) const {
    return std::make_unique<Collector>(program_, directory_.path(), settings);
  }
  // The lines of a Collector's file as the official classes write them. One that a SIGKILL tore was not acknowledged.
  static std::vector<json> accepted(const std::string& file) {
    std::vector<json> requests;
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
      if (lines.eof() && !json::accept(line)) break;
      requests.push_back(json::parse(testing::official_json_of_json(signal_of(line), line)));
    }
    return requests;
  }
  static Records records_in(const std::string& file) {
    Records records;
    for (const json& request : accepted(file)) add_records(request, records);
    return records;
  }
  static Records recorded(const testing::MemoryDestination& memory) {
    Records records;
    for (const Signal signal : {Signal::traces, Signal::logs, Signal::metrics}) {
      for (const std::string& request : memory.requests(signal)) {
        add_records(json::parse(testing::official_json(signal, request)), records);
      }
    }
    return records;
  }
  // The records of the file with this name (spans) or event name (logs), without what stands around them.
  static json record(const std::string& file, const std::string& name) {
    for (const std::string& text : records_in(file)) {
      const json record = json::parse(text)["record"];
      if (record.value("name", record.value("eventName", "")) == name) return record;
    }
    ADD_FAILURE() << name << " did not arrive";
    return {};
  }

  std::string program_;
  testing::TemporaryDirectory directory_;
};

struct Way {
  Protocol protocol;
  bool gzip;
  bool tls;
};

std::string protocol_name(Protocol protocol) {
  return protocol == Protocol::grpc ? "Grpc" : protocol == Protocol::http_json ? "Json" : "Protobuf";
}
std::string way_name(const ::testing::TestParamInfo<Way>& info) {
  return protocol_name(info.param.protocol) + (info.param.gzip ? "Gzip" : "Plain") +
         (info.param.tls ? "Tls" : "Clear");
}

class CollectorWayTest : public CollectorTest, public ::testing::WithParamInterface<Way> {
 protected:
  void SetUp() override {
    CollectorTest::SetUp();
    if (!IsSkipped()) collector_ = collector({.tls = GetParam().tls});
  }
  // Everything goes to the Collector and into memory.
  Config config(const testing::MemoryDestination& memory) const {
    Config config = testing::memory_config(memory, "grüße");
    config.resource.set("list", AnyValue{AnyArray{{std::int64_t{-1}}, {true}}});
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      DestinationConfig destination = collector_->destination(GetParam().protocol, signal);
      destination.gzip = GetParam().gzip;
      config.destinations.push_back(destination);
    }
    return config;
  }
  void expect_all_arrived(Telemetry& telemetry, const testing::MemoryDestination& memory) const {
    ASSERT_TRUE(telemetry.force_flush(30s));
    const Records sent = recorded(memory);
    ASSERT_FALSE(sent.empty());
    const Records arrived = records_in(collector_->file());
    for (const std::string& record : sent) EXPECT_TRUE(arrived.contains(record)) << "not there as it was sent: " << record;
    for (const std::string& record : arrived) EXPECT_TRUE(sent.contains(record)) << "was not sent like this: " << record;
    ASSERT_EQ(arrived.size(), sent.size());
    for (const DestinationStats& d : telemetry.stats().destinations) EXPECT_EQ(d.counts.delivered, d.counts.offered) << d.name;
  }

  std::unique_ptr<Collector> collector_;
};

const std::vector<std::byte> kBytes{std::byte{0}, std::byte{0xff}, std::byte{'\n'}};

TEST_P(CollectorWayTest, EveryFieldOfASpanArrives) {
  HOLDS("PB-01", "PB-02", "PB-09", "PB-17", "PB-23", "TR-44", "TR-45");
  testing::MemoryDestination memory;
  Config changed = config(memory);
  changed.span_limits.attribute_count = 12;
  changed.span_limits.event_count = 2;
  changed.span_limits.link_count = 1;
  changed.span_limits.event_attribute_count = 1;
  changed.span_limits.link_attribute_count = 1;
  Telemetry telemetry(changed);
  const Tracer tracer = telemetry.tracer("scope ü", "1.2", "https://example.org/scope", {{"scoped", -1}});
  SpanOptions options;
  options.kind = SpanKind::consumer;
  options.parent = TraceContext{*from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1,b=2"), {}};
  options.span_id = *SpanId::from_hex("1111111111111111");
  options.start = Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'001));
  SpanContext linked = *from_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "c=3");
  {
    auto span = tracer.span("everything 衛星 🛰️\n", {{"text", "ä\"\\\t"}, {"empty", ""}, {"no", false}, {"zero", 0}}, options);
    span.set("least", INT64_MIN).set("nan", std::numeric_limits<double>::quiet_NaN());
    span.set("infinity", -std::numeric_limits<double>::infinity()).set("tenth", 0.1).set("bytes", kBytes);
    span.set("nothing", nullptr).set("array", Value::array({-1, nullptr, "x", Value::array({}), Value::map({})}));
    span.set("map", Value::map({{"inner", Value::map({{"bytes", kBytes}, {"deep", Value::array({0.5})}})}}));
    span.set("one too many", 1);
    span.event("first", {{"band", 4}, {"dropped", 1}}, Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'002)));
    span.event("second", {}, Timestamp(std::chrono::nanoseconds(1))).event("third");
    span.link(linked, {{"why", "a remote one"}, {"dropped", 1}}).link(linked);
    span.status(StatusCode::error, "no such tile");
    span.end(Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'009)));
  }
  for (const SpanKind kind : {SpanKind::internal, SpanKind::server, SpanKind::client, SpanKind::producer}) {
    SpanOptions of_kind;
    of_kind.kind = kind;
    auto span = tracer.span("kind " + std::to_string(static_cast<int>(kind)), {}, of_kind);
    if (kind == SpanKind::server) span.status(StatusCode::ok);
  }
  ASSERT_NO_FATAL_FAILURE(expect_all_arrived(telemetry, memory));

  EXPECT_EQ(record(collector_->file(), "everything 衛星 🛰️\n"), json::parse(R"({
    "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "1111111111111111", "parentSpanId": "00f067aa0ba902b7",
    "traceState": "a=1,b=2", "flags": 769, "name": "everything 衛星 🛰️\n", "kind": 5,
    "startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": "1700000000000000009",
    "attributes": [
      {"key": "text", "value": {"stringValue": "ä\"\\\t"}},
      {"key": "empty", "value": {"stringValue": ""}},
      {"key": "no", "value": {"boolValue": false}},
      {"key": "zero", "value": {"intValue": "0"}},
      {"key": "least", "value": {"intValue": "-9223372036854775808"}},
      {"key": "nan", "value": {"doubleValue": "NaN"}},
      {"key": "infinity", "value": {"doubleValue": "-Infinity"}},
      {"key": "tenth", "value": {"doubleValue": 0.1}},
      {"key": "bytes", "value": {"bytesValue": "AP8K"}},
      {"key": "nothing", "value": {}},
      {"key": "array", "value": {"arrayValue": {"values": [{"intValue": "-1"}, {}, {"stringValue": "x"},
        {"arrayValue": {}}, {"kvlistValue": {}}]}}},
      {"key": "map", "value": {"kvlistValue": {"values": [{"key": "inner", "value": {"kvlistValue": {"values": [
        {"key": "bytes", "value": {"bytesValue": "AP8K"}},
        {"key": "deep", "value": {"arrayValue": {"values": [{"doubleValue": 0.5}]}}}]}}}]}}}],
    "droppedAttributesCount": 1,
    "events": [
      {"name": "first", "timeUnixNano": "1700000000000000002", "droppedAttributesCount": 1,
       "attributes": [{"key": "band", "value": {"intValue": "4"}}]},
      {"name": "second", "timeUnixNano": "1"}],
    "droppedEventsCount": 1,
    "links": [{"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "traceState": "c=3",
               "flags": 768, "droppedAttributesCount": 1,
               "attributes": [{"key": "why", "value": {"stringValue": "a remote one"}}]}],
    "droppedLinksCount": 1,
    "status": {"code": 2, "message": "no such tile"}})"));
  EXPECT_EQ(record(collector_->file(), "kind 2")["status"], json({{"code", 1}}));
  for (int kind = 1; kind <= 4; ++kind) {
    EXPECT_EQ(record(collector_->file(), "kind " + std::to_string(kind))["kind"], kind);
  }
  const json around = json::parse(*records_in(collector_->file()).begin());
  EXPECT_EQ(around["scope"], json::parse(R"({"name": "scope ü", "version": "1.2",
                                             "attributes": [{"key": "scoped", "value": {"intValue": "-1"}}]})"));
  EXPECT_EQ(around["schemaUrl"], "https://example.org/scope");
  EXPECT_EQ(around["resource"], json::parse(R"({"attributes": [
    {"key": "service.name", "value": {"stringValue": "grüße"}},
    {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "-1"}, {"boolValue": true}]}}}]})"));
}

TEST_P(CollectorWayTest, EveryFieldOfALogRecordArrives) {
  HOLDS("PB-01", "PB-02", "PB-24", "PB-23");
  testing::MemoryDestination memory;
  Config changed = config(memory);
  changed.log_limits.attribute_count = 1;
  const testing::ManualClock clock(Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'005)));
  changed.clock = clock.function();
  Telemetry telemetry(changed);
  const Logger logger = telemetry.logger("log scope", "2", "https://example.org/scope", {{"scoped", true}});
  const SpanContext context = *from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  const std::vector<Attribute> attributes{{"nested", Value::map({{"bytes", kBytes}})}, {"dropped", 1}};
  LogRecord whole;
  whole.time = Timestamp(std::chrono::nanoseconds(1'700'000'000'000'000'001));
  whole.severity = Severity::warning;
  whole.severity_text = "Warnung";
  whole.body = "衛星 🛰️\n";
  whole.attributes = attributes;
  whole.event_name = "tile.read";
  whole.context = &context;
  logger.emit(whole);

  const Value array = Value::array({-1, nullptr, "x"});
  const std::vector<std::pair<std::string, Value>> bodies{
      {"text", ""},   {"none", {}},     {"yes", true}, {"int", INT64_MIN}, {"double", std::numeric_limits<double>::infinity()},
      {"bytes", kBytes}, {"array", array}, {"map", Value::map({{"k", Value::map({{"l", 0}})}})}};
  for (const auto& [name, body] : bodies) {
    LogRecord record;
    record.event_name = name;
    record.body = body;
    logger.emit(record);
  }
  for (const Severity severity : {Severity::trace, Severity::debug, Severity::info, Severity::error, Severity::critical}) {
    LogRecord record;
    const std::string name = "severity " + std::to_string(static_cast<int>(severity));
    record.event_name = name;
    record.severity = severity;
    logger.emit(record);
  }
  ASSERT_NO_FATAL_FAILURE(expect_all_arrived(telemetry, memory));

  const std::string file = collector_->file();
  EXPECT_EQ(record(file, "tile.read"), json::parse(R"({
    "timeUnixNano": "1700000000000000001", "observedTimeUnixNano": "1700000000000000005",
    "severityNumber": 13, "severityText": "Warnung", "body": {"stringValue": "衛星 🛰️\n"}, "eventName": "tile.read",
    "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "flags": 1,
    "attributes": [{"key": "nested", "value": {"kvlistValue": {"values": [
      {"key": "bytes", "value": {"bytesValue": "AP8K"}}]}}}],
    "droppedAttributesCount": 1})"));
  const auto body = [&](const char* name) { return record(file, name).value("body", json::object()); };
  EXPECT_EQ(body("text"), json::parse(R"({"stringValue": ""})"));
  EXPECT_EQ(body("none"), json::object());
  EXPECT_EQ(body("yes"), json::parse(R"({"boolValue": true})"));
  EXPECT_EQ(body("int"), json::parse(R"({"intValue": "-9223372036854775808"})"));
  EXPECT_EQ(body("double"), json::parse(R"({"doubleValue": "Infinity"})"));
  EXPECT_EQ(body("bytes"), json::parse(R"({"bytesValue": "AP8K"})"));
  EXPECT_EQ(body("array"), json::parse(R"({"arrayValue": {"values": [{"intValue": "-1"}, {}, {"stringValue": "x"}]}})"));
  EXPECT_EQ(body("map"), json::parse(R"({"kvlistValue": {"values": [{"key": "k", "value": {"kvlistValue": {"values": [
    {"key": "l", "value": {"intValue": "0"}}]}}}]}})"));
  for (const int severity : {1, 5, 9, 17, 21}) {
    EXPECT_EQ(record(file, "severity " + std::to_string(severity))["severityNumber"], severity);
  }
  EXPECT_FALSE(record(file, "none").contains("traceId"));
}

// Every kind of instrument, aggregation and temporality, exemplars and overflow.
TEST_P(CollectorWayTest, EveryAggregationArrives) {
  HOLDS("MT-33", "MT-43", "MT-69", "PB-03", "PB-04", "PB-13");
  for (const Temporality temporality : {Temporality::cumulative, Temporality::delta}) {
    testing::MemoryDestination memory;
    Config changed = config(memory);
    changed.metrics.temporality = temporality;
    changed.metrics.cardinality_limit = 3;
    changed.metrics.views.push_back(View{.select = {.name = "levels"}, .aggregation = Aggregation::exponential_histogram});
    changed.destinations.push_back(memory.destination(Signal::metrics));
    DestinationConfig destination = collector_->destination(GetParam().protocol, Signal::metrics);
    destination.gzip = GetParam().gzip;
    changed.destinations.push_back(destination);
    Telemetry telemetry(changed);
    const Records before = records_in(collector_->file());
    const Meter meter = telemetry.meter("m", "2", "https://schema.example/1");
    const auto span = telemetry.tracer("t").span("work");
    for (int i = 0; i < 5; ++i) {
      meter.counter("whole", {.unit = "{x}", .description = "grüße"}).add(i, {{"i", i}, {"text", "ß"}});
      meter.counter<double>("real").add(0.1 * i);
      meter.up_down_counter("level").add(-i);
      meter.up_down_counter<double>("levels").add(i - 2.5);
      meter.gauge("gauge").record(i);
      meter.histogram<std::int64_t>("sizes", {.unit = "By"}).record(i * 100, {{"i", i % 2}});
      meter.histogram("time", {.unit = "s"}).record(0.01 * i * i);
    }
    meter.observable_counter("seen", {}, [](const Observer<std::int64_t>& o) { o.observe(12); });
    meter.observable_up_down_counter<double>("depth", {}, [](const Observer<double>& o) { o.observe(-0.5); });
    meter.observable_gauge<std::int64_t>("floor", {}, [](const Observer<std::int64_t>& o) { o.observe(-2); });
    ASSERT_TRUE(telemetry.force_flush(30s));
    const Records sent = recorded(memory);
    ASSERT_EQ(sent.size(), 10u);
    const Records arrived = records_in(collector_->file());
    for (const std::string& record : sent) EXPECT_TRUE(arrived.contains(record)) << "not there as it was sent: " << record;
    EXPECT_EQ(arrived.size(), before.size() + sent.size());
  }
}

TEST_P(CollectorWayTest, ManyRequestsArriveInOrder) {
  testing::MemoryDestination memory;
  Config changed = config(memory);
  for (DestinationConfig& destination : changed.destinations) destination.batch.max_records = 64;
  Telemetry telemetry(changed);
  std::vector<std::string> expected;
  for (int i = 0; i < 640; ++i) {
    expected.push_back("span " + std::to_string(i));
    auto span = telemetry.tracer("t").span(expected.back(), {{"payload", std::string(static_cast<std::size_t>(i) % 200, 'p')}});
  }
  ASSERT_TRUE(telemetry.force_flush(30s));
  std::vector<std::string> arrived;
  for (const json& request : accepted(collector_->file())) {
    for (const json& span : request["resourceSpans"][0]["scopeSpans"][0]["spans"]) arrived.push_back(span["name"]);
  }
  EXPECT_EQ(arrived, expected);
}

INSTANTIATE_TEST_SUITE_P(
    Ways, CollectorWayTest,
    ::testing::Values(Way{Protocol::http_protobuf, false, false}, Way{Protocol::http_protobuf, true, false},
                      Way{Protocol::http_protobuf, false, true}, Way{Protocol::http_protobuf, true, true},
                      Way{Protocol::http_json, false, false}, Way{Protocol::http_json, true, false},
                      Way{Protocol::http_json, false, true}, Way{Protocol::http_json, true, true},
                      Way{Protocol::grpc, false, false}, Way{Protocol::grpc, true, false}, Way{Protocol::grpc, false, true},
                      Way{Protocol::grpc, true, true}),
    way_name);

class CollectorProtocolTest : public CollectorTest, public ::testing::WithParamInterface<Protocol> {};

TEST_P(CollectorProtocolTest, NothingIsLostOverItsDeath) {
  HOLDS("RT-08", "RT-09");
  auto first = collector();
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.destinations = {first->destination(GetParam(), Signal::traces)};
  config.destinations[0].lossy = false;
  config.destinations[0].batch.max_records = 10;
  config.destinations[0].batch.interval = 1ms;
  Telemetry telemetry(config);
  auto record = [&, n = 0](int count) mutable {
    for (const int end = n + count; n < end; ++n) auto span = telemetry.tracer("t").span(std::to_string(n));
  };
  record(300);
  ASSERT_TRUE(telemetry.force_flush(30s));
  record(300);  // the destination is at work on these
  first->kill();
  record(300);
  EXPECT_FALSE(telemetry.force_flush(10ms));
  const auto second = collector({.grpc_port = first->grpc_port(), .http_port = first->http_port(), .file = "second.json"});
  record(300);
  ASSERT_TRUE(telemetry.force_flush(60s));

  std::vector<int> arrived;  // without what arrived again, since its acknowledgement died with the first
  std::set<int> seen;
  for (const std::string& file : {first->file(), second->file()}) {
    const std::vector<json> requests = accepted(file);
    EXPECT_FALSE(requests.empty()) << file;
    for (const json& request : requests) {
      for (const json& span : request["resourceSpans"][0]["scopeSpans"][0]["spans"]) {
        const int number = std::stoi(span["name"].get<std::string>());
        if (seen.insert(number).second) arrived.push_back(number);
      }
    }
  }
  EXPECT_EQ(arrived.size(), 1200u);
  EXPECT_TRUE(std::ranges::is_sorted(arrived));
}

TEST_P(CollectorProtocolTest, AWrongTokenKeepsTheRecordsUntilThereIsARightOne) {
  const auto guarded = collector({.token = "right-token"});
  std::vector<std::string> said;
  std::mutex mutex;
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.error_handler = [&](DiagnosticLevel, std::string_view message) {
    const std::lock_guard lock(mutex);
    said.emplace_back(message);
  };
  config.destinations = {guarded->destination(GetParam(), Signal::traces)};
  config.destinations[0].headers = {{"Authorization", "Bearer wrong-token"}};
  Telemetry telemetry(config);
  { auto span = telemetry.tracer("t").span("kept"); }
  EXPECT_FALSE(telemetry.force_flush(300ms));
  EXPECT_EQ(telemetry.stats().destinations.at(0).counts.pending, 1u);
  EXPECT_TRUE(accepted(guarded->file()).empty());

  config.destinations[0].headers = {{"Authorization", "Bearer right-token"}};
  telemetry.add(config.destinations[0]);
  EXPECT_TRUE(telemetry.force_flush(30s));
  EXPECT_EQ(record(guarded->file(), "kept")["kind"], 1);
  const std::lock_guard lock(mutex);
  EXPECT_FALSE(said.empty());
  for (const std::string& message : said) EXPECT_THAT(message, Not(HasSubstr("-token")));
}

INSTANTIATE_TEST_SUITE_P(Protocols, CollectorProtocolTest,
                         ::testing::Values(Protocol::http_protobuf, Protocol::http_json, Protocol::grpc),
                         [](const auto& protocol) { return protocol_name(protocol.param); });

struct Tile {
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, index)

  void execute(Context& context) {
    auto span = context.tracer().span("read_bands", {{"bands", 4}});
    context.logger().info("tile read", {{"index", index}});
  }
};

struct Mosaic {
  void execute(Context& context) { context.logger().info("mosaic done"); }
};

struct ProcessScene {
  int tiles = 3;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ProcessScene, tiles)

  void execute(Context& context) {
    std::vector<Tile> work;
    for (int i = 0; i < tiles; ++i) work.push_back({i});
    context.submit_subtask(Mosaic{}, {.depends_on = context.submit_subtasks(work)});
  }
};

TEST_F(CollectorTest, AJobArrivesAsOneTree) {
  const auto there = collector();
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.destinations = {there->destination(Protocol::http_protobuf, Signal::traces),
                         there->destination(Protocol::grpc, Signal::logs)};
  Telemetry telemetry(config);
  Client client({.name = "runner", .store = directory_.path() + "/store.db", .telemetry = &telemetry});
  client.jobs().submit("scene", ProcessScene{});
  client.runner<ProcessScene, Tile, Mosaic>({.concurrency = 1}).run_all();
  ASSERT_TRUE(telemetry.force_flush(30s));

  const ReadTelemetry arrived = read_json_file(there->file());
  EXPECT_EQ(testing::span_tree(arrived.spans),
            "submit/scene\n"
            "job/scene -> submit/scene\n"
            "  task/ProcessScene\n"
            "  subtasks/ProcessScene\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Tile\n"
            "      read_bands\n"
            "    task/Mosaic -> task/Tile\n");
  std::set<std::pair<TraceId, SpanId>> spans;
  for (const ReadSpan& span : arrived.spans) spans.emplace(span.context.trace_id, span.context.span_id);
  std::multiset<std::string> said;
  for (const ReadLog& log : arrived.logs) {
    if (log.scope.name == "waymark.runner") continue;  // what a runner says of itself belongs to no task
    said.insert(to_text(log.body));
    EXPECT_TRUE(spans.contains({log.trace_id, log.span_id})) << to_text(log.body);
  }
  EXPECT_EQ(said, (std::multiset<std::string>{"mosaic done", "tile read", "tile read", "tile read"}));
}

}  // namespace
}  // namespace waymark
