// Our reader and our JSON against the official protobuf classes: random requests that these have written, and the edges.
#include "support/official.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <protozero/pbf_writer.hpp>
#include <sstream>
#include <string>

#include "base/clock.h"
#include "otlp/json.h"
#include "otlp/reader.h"
#include "otlp/writer.h"
#include "support/holds.h"

namespace waymark {
namespace {

using Json = nlohmann::json;
using testing::official_json;
using testing::official_random;

constexpr unsigned kRequests = 300;

// What the reader should make of official JSON, by other means than the reader's.
namespace expected {

std::string text(const Json& json, const char* key) { return json.value(key, std::string()); }
std::uint32_t number(const Json& json, const char* key) { return json.value(key, std::uint32_t{0}); }
Timestamp time(const Json& json, const char* key) {
  return Timestamp(std::chrono::nanoseconds(std::stoll(json.value(key, std::string("0")))));
}
template <class Id>
Id id(const Json& json, const char* key) {
  return Id::from_hex(text(json, key)).value_or(Id{});
}

std::vector<std::byte> base64(const std::string& text) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<std::byte> bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = (bits << 6 | static_cast<std::uint32_t>(alphabet.find(c))) & 0xffffff;
    if ((count += 6) >= 8) bytes.push_back(static_cast<std::byte>(bits >> (count -= 8)));
  }
  return bytes;
}

AnyMap attributes(const Json& json, const char* key);

AnyValue any(const Json& json) {
  if (json.contains("stringValue")) return {json["stringValue"].get<std::string>()};
  if (json.contains("boolValue")) return {json["boolValue"].get<bool>()};
  if (json.contains("intValue")) return {static_cast<std::int64_t>(std::stoll(json["intValue"].get<std::string>()))};
  if (json.contains("bytesValue")) return {base64(json["bytesValue"])};
  if (json.contains("kvlistValue")) return {attributes(json["kvlistValue"], "values")};
  if (json.contains("doubleValue")) {
    const Json& value = json["doubleValue"];
    return {value.is_string() ? std::stod(value.get<std::string>()) : value.get<double>()};
  }
  if (json.contains("arrayValue")) {
    AnyArray array;
    for (const Json& v : json["arrayValue"].value("values", Json::array())) array.push_back(any(v));
    return {array};
  }
  return {};
}

AnyMap attributes(const Json& json, const char* key) {
  AnyMap map;
  for (const Json& entry : json.value(key, Json::array())) {
    map.emplace_back(text(entry, "key"), any(entry.value("value", Json::object())));
  }
  return map;
}

bool remote(const Json& json) { return (number(json, "flags") & 0x300) == 0x300; }

SpanContext context(const Json& json) {
  SpanContext context;
  context.trace_id = id<TraceId>(json, "traceId");
  context.span_id = id<SpanId>(json, "spanId");
  context.flags = static_cast<std::uint8_t>(number(json, "flags"));
  context.trace_state = TraceState::parse(text(json, "traceState"));
  return context;
}

ReadSpan span(const Json& json) {
  ReadSpan span;
  span.context = context(json);
  span.parent = id<SpanId>(json, "parentSpanId");
  span.parent_remote = remote(json);
  span.name = text(json, "name");
  span.kind = number(json, "kind") == 0 ? SpanKind::internal : static_cast<SpanKind>(number(json, "kind"));
  span.start = time(json, "startTimeUnixNano");
  span.end = time(json, "endTimeUnixNano");
  span.attributes = attributes(json, "attributes");
  for (const Json& e : json.value("events", Json::array())) {
    span.events.push_back({time(e, "timeUnixNano"), text(e, "name"), attributes(e, "attributes"),
                           number(e, "droppedAttributesCount")});
  }
  for (const Json& l : json.value("links", Json::array())) {
    span.links.push_back({context(l), attributes(l, "attributes"), number(l, "droppedAttributesCount")});
    span.links.back().context.remote = remote(l);
  }
  const Json status = json.value("status", Json::object());
  span.status = static_cast<StatusCode>(number(status, "code"));
  span.status_message = text(status, "message");
  span.dropped_attributes = number(json, "droppedAttributesCount");
  span.dropped_events = number(json, "droppedEventsCount");
  span.dropped_links = number(json, "droppedLinksCount");
  return span;
}

ReadLog log(const Json& json) {
  ReadLog log;
  log.time = time(json, "timeUnixNano");
  log.observed = time(json, "observedTimeUnixNano");
  log.severity = static_cast<std::uint8_t>(number(json, "severityNumber"));
  log.severity_text = text(json, "severityText");
  log.body = any(json.value("body", Json::object()));
  log.attributes = attributes(json, "attributes");
  log.trace_id = id<TraceId>(json, "traceId");
  log.span_id = id<SpanId>(json, "spanId");
  log.flags = static_cast<std::uint8_t>(number(json, "flags"));
  log.event_name = text(json, "eventName");
  log.dropped_attributes = number(json, "droppedAttributesCount");
  return log;
}

ReadTelemetry request(const Json& json) {
  ReadTelemetry telemetry;
  const auto each = [&](const char* resources, const char* scopes, const char* records, auto&& add) {
    for (const Json& resource : json.value(resources, Json::array())) {
      for (const Json& scope : resource.value(scopes, Json::array())) {
        const Json inner = scope.value("scope", Json::object());
        for (const Json& record : scope.value(records, Json::array())) {
          auto& added = add(record);
          added.scope = {text(inner, "name"), text(inner, "version"), attributes(inner, "attributes"),
                         text(scope, "schemaUrl")};
          added.resource = attributes(resource.value("resource", Json::object()), "attributes");
        }
      }
    }
  };
  each("resourceSpans", "scopeSpans", "spans",
       [&](const Json& j) -> ReadSpan& { return telemetry.spans.emplace_back(span(j)); });
  each("resourceLogs", "scopeLogs", "logRecords",
       [&](const Json& j) -> ReadLog& { return telemetry.logs.emplace_back(log(j)); });
  return telemetry;
}

}  // namespace expected

// Everything that a reader gives out, as text: NaN equals itself, and a failure can be read.
class Description {
 public:
  explicit Description(const ReadTelemetry& telemetry) {
    for (const ReadSpan& s : telemetry.spans) {
      out_ << "span " << s.name << '\n';
      context(s.context);
      out_ << " parent " << s.parent.hex() << s.parent_remote << " kind " << static_cast<int>(s.kind) << ' ' << ns(s.start)
           << ' ' << ns(s.end) << " status " << static_cast<int>(s.status) << s.status_message << " dropped "
           << s.dropped_attributes << ' ' << s.dropped_events << ' ' << s.dropped_links << '\n';
      map(s.attributes);
      for (const ReadEvent& e : s.events) {
        out_ << " event " << e.name << ns(e.time) << ' ' << e.dropped_attributes << '\n';
        map(e.attributes);
      }
      for (const ReadLink& l : s.links) {
        out_ << " link " << l.dropped_attributes;
        context(l.context);
        map(l.attributes);
      }
      surroundings(s.scope, s.resource);
    }
    for (const ReadLog& l : telemetry.logs) {
      out_ << "log " << ns(l.time) << ' ' << ns(l.observed) << ' ' << int{l.severity} << l.severity_text << ' '
           << l.trace_id.hex() << ' ' << l.span_id.hex() << ' ' << int{l.flags} << ' ' << l.event_name << ' '
           << l.dropped_attributes << "\n body ";
      any(l.body);
      map(l.attributes);
      surroundings(l.scope, l.resource);
    }
  }
  [[nodiscard]] std::string text() const { return out_.str(); }

 private:
  static std::int64_t ns(Timestamp t) { return t.time_since_epoch().count(); }
  void context(const SpanContext& c) {
    out_ << ' ' << c.trace_id.hex() << ' ' << c.span_id.hex() << ' ' << int{c.flags} << c.remote << ' '
         << c.trace_state.header() << '\n';
  }
  void any(const AnyValue& v) { out_ << v.value.index() << ':' << to_text(v) << '\n'; }
  void map(const AnyMap& m) {
    for (const auto& [key, v] : m) {
      out_ << "  " << key << '=';
      any(v);
    }
  }
  void surroundings(const ReadScope& scope, const AnyMap& resource) {
    out_ << " scope " << scope.name << '|' << scope.version << '|' << scope.schema_url << '\n';
    map(scope.attributes);
    out_ << " resource\n";
    map(resource);
  }
  std::ostringstream out_;
};

std::string description(const ReadTelemetry& telemetry) { return Description(telemetry).text(); }

std::string attribute(const AnyValue& value) {
  std::string out;
  otlp::append_attribute(out, 0x4a, "k", value);
  return out;
}

std::string span_request(const std::string& body) {
  std::string out;
  protozero::pbf_writer request(out);
  protozero::pbf_writer resource_spans(request, 1);
  protozero::pbf_writer scope_spans(resource_spans, 2);
  scope_spans.add_message(2, body);
  return out;
}

class OfficialRandomTest : public ::testing::TestWithParam<Signal> {};

TEST_P(OfficialRandomTest, JsonSaysWhatTheOfficialJsonSays) {
  HOLDS("JS-01", "JS-03", "JS-12", "JS-16");
  for (const std::string& request : official_random(GetParam(), 1, kRequests)) {
    ASSERT_EQ(Json::parse(request_to_json(GetParam(), request)), Json::parse(official_json(GetParam(), request)));
  }
}

TEST_P(OfficialRandomTest, ReaderReadsWhatTheOfficialJsonSays) {
  HOLDS("TR-41");
  for (const std::string& request : official_random(GetParam(), 2, kRequests)) {
    const Json json = Json::parse(official_json(GetParam(), request));
    ASSERT_EQ(description(read_request(GetParam(), request)), description(expected::request(json)));
  }
}

TEST_P(OfficialRandomTest, OfficialJsonAndOursReadBackAsTheBytesDo) {
  HOLDS("JS-12");
  for (const std::string& request : official_random(GetParam(), 3, kRequests)) {
    const std::string direct = description(read_request(GetParam(), request));
    ReadTelemetry ours;
    otlp::read_json_line(request_to_json(GetParam(), request), "ours", ours);
    ASSERT_EQ(description(ours), direct);
    ReadTelemetry official;
    otlp::read_json_line(official_json(GetParam(), request), "official", official);
    ASSERT_EQ(description(official), direct);
  }
}

INSTANTIATE_TEST_SUITE_P(Signals, OfficialRandomTest, ::testing::Values(Signal::traces, Signal::logs),
                         [](const auto& signal) { return signal.param == Signal::traces ? "Traces" : "Logs"; });

// Metrics: our JSON against theirs, and what is read from the bytes against what is read from either JSON.
TEST(OfficialMetricsTest, JsonSaysWhatTheOfficialJsonSays) {
  HOLDS("JS-01", "JS-15", "PB-03", "PB-04");
  for (const std::string& request : official_random(Signal::metrics, 1, kRequests)) {
    ASSERT_EQ(Json::parse(request_to_json(Signal::metrics, request)), Json::parse(official_json(Signal::metrics, request)));
  }
}

std::string text(const ReadTelemetry& telemetry) {
  std::ostringstream out;
  const auto map = [&](const AnyMap& attributes) {
    for (const auto& [key, value] : attributes) out << ' ' << key << '=' << value.value.index() << ':' << to_text(value);
  };
  const auto number = [&](const std::variant<std::int64_t, double>& value) {
    if (const auto* whole = std::get_if<std::int64_t>(&value)) out << " int " << *whole;
    else out << " double " << to_text(AnyValue{std::get<double>(value)});
  };
  for (const ReadMetric& metric : telemetry.metrics) {
    out << metric.name << '|' << metric.description << '|' << metric.unit << '|' << static_cast<int>(metric.kind) << metric.delta
        << metric.monotonic << metric.scope.name << '\n';
    map(metric.resource);
    for (const ReadPoint& p : metric.points) {
      out << "  " << to_ns(p.start) << ' ' << to_ns(p.time) << ' ' << p.count << ' ' << p.scale << ' ' << p.zero_count << ' '
          << p.positive_offset << ' ' << p.negative_offset;
      number(p.value);
      map(p.attributes);
      for (const auto* optional : {&p.sum, &p.minimum, &p.maximum}) out << ' ' << (*optional ? to_text(AnyValue{**optional}) : "-");
      for (const double bound : p.bounds) out << " b" << to_text(AnyValue{bound});
      for (const auto* counts : {&p.counts, &p.positive, &p.negative}) {
        out << " [";
        for (const std::uint64_t n : *counts) out << n << ',';
      }
      for (const ReadExemplar& e : p.exemplars) {
        out << "\n    " << to_ns(e.time) << ' ' << e.trace_id.hex() << ' ' << e.span_id.hex();
        number(e.value);
        map(e.filtered_attributes);
      }
      out << '\n';
    }
  }
  return out.str();
}

TEST(OfficialMetricsTest, OfficialJsonAndOursReadBackAsTheBytesDo) {
  HOLDS("JS-15", "PB-03", "PB-04");
  for (const std::string& request : official_random(Signal::metrics, 3, kRequests)) {
    const std::string direct = text(read_request(Signal::metrics, request));
    ReadTelemetry ours;
    otlp::read_json_line(request_to_json(Signal::metrics, request), "ours", ours);
    ASSERT_EQ(text(ours), direct);
    ReadTelemetry official;
    otlp::read_json_line(official_json(Signal::metrics, request), "official", official);
    ASSERT_EQ(text(official), direct);
  }
}

class OfficialValueTest : public ::testing::Test {
 protected:
  // The value written by our writer, read by the official classes, and by us.
  static Json official(const AnyValue& value) {
    const std::string request = span_request(attribute(value));
    const Json json = Json::parse(official_json(Signal::traces, request));
    EXPECT_EQ(Json::parse(request_to_json(Signal::traces, request)), json);
    ReadTelemetry telemetry = read_request(Signal::traces, request);
    EXPECT_EQ(telemetry.spans.at(0).attributes.at(0).second, value);
    return json["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"][0]["value"];
  }
};

TEST_F(OfficialValueTest, EveryKindArrives) {
  EXPECT_EQ(official({std::string("text")}), Json::parse(R"({"stringValue":"text"})"));
  EXPECT_EQ(official({true}), Json::parse(R"({"boolValue":true})"));
  EXPECT_EQ(official({std::int64_t{7}}), Json::parse(R"({"intValue":"7"})"));
  EXPECT_EQ(official({1.5}), Json::parse(R"({"doubleValue":1.5})"));
  EXPECT_EQ(official({std::vector<std::byte>{std::byte{0xff}, std::byte{0}}}), Json::parse(R"({"bytesValue":"/wA="})"));
  EXPECT_EQ(official({AnyArray{{std::int64_t{1}}, {}, {std::string("x")}}}),
            Json::parse(R"({"arrayValue":{"values":[{"intValue":"1"},{},{"stringValue":"x"}]}})"));
  EXPECT_EQ(official({AnyMap{{"a", {false}}, {"b", {AnyMap{}}}}}),
            Json::parse(R"({"kvlistValue":{"values":[{"key":"a","value":{"boolValue":false}},
                                                     {"key":"b","value":{"kvlistValue":{}}}]}})"));
}

TEST_F(OfficialValueTest, DefaultsAreKeptWhereAValueIsSet) {
  HOLDS("JS-13", "JS-14");
  EXPECT_EQ(official({std::string()}), Json::parse(R"({"stringValue":""})"));
  EXPECT_EQ(official({false}), Json::parse(R"({"boolValue":false})"));
  EXPECT_EQ(official({std::int64_t{0}}), Json::parse(R"({"intValue":"0"})"));
  EXPECT_EQ(official({0.0}), Json::parse(R"({"doubleValue":0.0})"));
  EXPECT_EQ(official({std::vector<std::byte>{}}), Json::parse(R"({"bytesValue":""})"));
  EXPECT_EQ(official({AnyArray{}}), Json::parse(R"({"arrayValue":{}})"));
  EXPECT_EQ(official({AnyMap{}}), Json::parse(R"({"kvlistValue":{}})"));
  EXPECT_EQ(official({}), Json::object());
}

TEST_F(OfficialValueTest, IntegersAreExactToTheLastDigit) {
  HOLDS("JS-06");
  for (const std::int64_t i : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::min(),
                               std::numeric_limits<std::int64_t>::max(), (std::int64_t{1} << 53) + 1}) {
    EXPECT_EQ(official({i}), (Json{{"intValue", std::to_string(i)}}));
  }
}

TEST_F(OfficialValueTest, TextKeepsEveryCharacter) {
  for (const std::string& text : {std::string("衛星 🛰️ Grüße"), std::string("\0\x01\x1f\x7f", 4), std::string("\"\\/\b\f\n\r\t"),
                                 std::string("\xE2\x80\xA8\xEF\xBB\xBF\xEF\xBF\xBF\xF4\x8F\xBF\xBF")}) {
    EXPECT_EQ(official({text}), (Json{{"stringValue", text}}));
  }
}

TEST_F(OfficialValueTest, LargeTextsAndManyElementsArrive) {
  const std::string text(3 * 1024 * 1024, 'x');
  EXPECT_EQ(official({text}), (Json{{"stringValue", text}}));
  AnyArray many(20'000, AnyValue{std::int64_t{-3}});
  EXPECT_EQ(official({many})["arrayValue"]["values"].size(), many.size());
}

TEST(OfficialTest, TimesAreExactUpToTheLastNanosecondOfTheWire) {
  std::string body;
  protozero::pbf_writer span(body);
  span.add_fixed64(7, std::numeric_limits<std::uint64_t>::max());
  span.add_fixed64(8, 1'800'000'000'123'456'789u);
  const std::string request = span_request(body);
  EXPECT_EQ(Json::parse(request_to_json(Signal::traces, request)), Json::parse(official_json(Signal::traces, request)));
  EXPECT_NE(request_to_json(Signal::traces, request).find("\"18446744073709551615\""), std::string::npos);
}

TEST(OfficialTest, MessagesInPartsAreMergedAsTheOfficialClassesMergeThem) {
  HOLDS("PB-05");
  std::string body;
  protozero::pbf_writer span(body);
  span.add_string(5, "first");
  span.add_message(15, std::string("\x12\x01x", 3));       // status: message "x"
  span.add_message(9, std::string("\x0a\x01k", 3));        // attributes, interleaved with events
  span.add_message(11, std::string("\x12\x01" "e", 3));
  span.add_message(9, std::string("\x12\x02\x18\x05\x0a\x01j", 7));
  span.add_message(15, std::string("\x18\x02", 2));        // status: code error
  span.add_string(5, "second");
  // An array, then text, then two parts of an array: only the last two are its value.
  span.add_message(9, std::string("\x12\x0f\x2a\x02\x0a\x00\x0a\x01s\x2a\x02\x0a\x00\x2a\x02\x0a\x00", 17));
  const std::string request = span_request(body);
  const Json official = Json::parse(official_json(Signal::traces, request));
  EXPECT_EQ(Json::parse(request_to_json(Signal::traces, request)), official);
  EXPECT_EQ(description(read_request(Signal::traces, request)), description(expected::request(official)));
  EXPECT_EQ(read_request(Signal::traces, request).spans.at(0).name, "second");
}

TEST(OfficialTest, RefusesWhatIsNoRequest) {
  try {
    (void)official_json(Signal::traces, "\x0a\x05");
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("the official classes refuse these bytes"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace waymark
