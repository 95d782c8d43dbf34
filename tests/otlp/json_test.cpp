#include "otlp/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <protozero/pbf_writer.hpp>

#include "otlp/walk.h"
#include "otlp/writer.h"
#include "support/holds.h"
#include "waymark/error.h"

namespace waymark {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

ReadTelemetry read(std::string_view line) {
  ReadTelemetry telemetry;
  otlp::read_json_line(line, "file:1", telemetry);
  return telemetry;
}

std::string span_line(const std::string& span) {
  return R"({"resourceSpans":[{"scopeSpans":[{"spans":[)" + span + "]}]}]}";
}
ReadSpan read_span(const std::string& span) { return read(span_line(span)).spans.at(0); }
AnyValue read_value(const std::string& value) {
  return read_span(R"({"attributes":[{"key":"k","value":)" + value + "}]}").attributes.at(0).second;
}

std::string refusal(const std::string& line) {
  try {
    (void)read(line);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown for " << line;
  return {};
}

std::string written_value(const std::string& any) {
  std::string attribute;
  protozero::pbf_writer(attribute).add_message(2, any);
  std::string span;
  protozero::pbf_writer(span).add_message(9, attribute);
  std::string scope;
  protozero::pbf_writer(scope).add_message(2, span);
  std::string resource;
  protozero::pbf_writer(resource).add_message(2, scope);
  std::string request;
  protozero::pbf_writer(request).add_message(1, resource);
  const std::string json = request_to_json(Signal::traces, request);
  const std::string before = R"({"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"value":)";
  EXPECT_THAT(json, StartsWith(before));
  return json.substr(before.size(), json.size() - before.size() - std::string("}]}]}]}]}").size());
}
std::string written(const AnyValue& value) {
  std::string any;
  otlp::append_any(any, value);
  return written_value(any);
}

TEST(JsonTest, WritesOneSpanAsTheSpecificationShowsIt) {
  HOLDS("JS-01", "JS-03", "JS-04", "JS-08", "JS-17");
  std::string span;
  protozero::pbf_writer writer(span);
  writer.add_bytes(1, std::string("\x5b\x8e\xff\xf7\x98\x03\x81\x03\xd2\x69\xb6\x33\x81\x3f\xc6\x0c", 16));
  writer.add_bytes(2, std::string("\xee\xe1\x9b\x7e\xc3\xc1\xb1\x74", 8));
  writer.add_bytes(4, "");
  writer.add_string(5, "I'm a server span");
  writer.add_enum(6, 2);
  writer.add_fixed64(7, 1'544'712'660'000'000'000u);
  otlp::append_attribute(span, 0x4a, "my.span.attr", AnyValue{std::string("some value")});
  writer.add_fixed32(16, 0x101);
  std::string scope;
  protozero::pbf_writer(scope).add_message(2, span);
  std::string resource;
  protozero::pbf_writer(resource).add_message(2, scope);
  std::string request;
  protozero::pbf_writer(request).add_message(1, resource);
  EXPECT_EQ(request_to_json(Signal::traces, request),
            R"({"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",)"
            R"("spanId":"eee19b7ec3c1b174","name":"I'm a server span","kind":2,"startTimeUnixNano":"1544712660000000000",)"
            R"("attributes":[{"key":"my.span.attr","value":{"stringValue":"some value"}}],"flags":257}]}]}]})");
}

TEST(JsonTest, WritesDoublesThatJsonHasNoNumberForAsStrings) {
  HOLDS("JS-09");
  EXPECT_EQ(written({std::numeric_limits<double>::quiet_NaN()}), R"({"doubleValue":"NaN"})");
  EXPECT_EQ(written({-std::numeric_limits<double>::infinity()}), R"({"doubleValue":"-Infinity"})");
  EXPECT_EQ(written({0.1}), R"({"doubleValue":0.1})");
  EXPECT_EQ(written({1e300}), R"({"doubleValue":1e+300})");
  EXPECT_EQ(written({4.0}), R"({"doubleValue":4})");
  EXPECT_EQ(written({-0.0}), R"({"doubleValue":-0.0})");
}

TEST(JsonTest, WritesPaddedBase64) {
  HOLDS("JS-10");
  const auto bytes = [](std::size_t n) { return AnyValue{std::vector<std::byte>(n, std::byte{0xfb})}; };
  EXPECT_EQ(written(bytes(0)), R"({"bytesValue":""})");
  EXPECT_EQ(written(bytes(1)), R"({"bytesValue":"+w=="})");
  EXPECT_EQ(written(bytes(2)), R"({"bytesValue":"+/s="})");
  EXPECT_EQ(written(bytes(3)), R"({"bytesValue":"+/v7"})");
}

TEST(JsonTest, ReplacesEachByteThatIsNotUtf8) {
  HOLDS("JS-18");
  const std::string json = written_value(std::string("\x0a\x06" "a\xff\xc3(\xed\xa0", 8));
  EXPECT_EQ(json, "{\"stringValue\":\"a\uFFFD\uFFFD(\uFFFD\uFFFD\"}");
  EXPECT_TRUE(nlohmann::json::accept(json));
}

TEST(JsonTest, EscapesWhatWouldBreakALine) {
  EXPECT_EQ(written({std::string("\"\\\n\r\t\x01\x1f/")}), R"({"stringValue":"\"\\\n\r\t\u0001\u001f/"})");
}

TEST(JsonTest, LeavesOutProfilesFields) {
  HOLDS("PB-22");
  EXPECT_EQ(written_value(std::string("\x40\x07", 2)), "{}");
}

TEST(JsonReaderTest, TakesIntegersAsNumbersAndAsStrings) {
  HOLDS("JS-07", "JS-08");
  EXPECT_EQ(read_value(R"({"intValue":"-9223372036854775808"})"), AnyValue{std::numeric_limits<std::int64_t>::min()});
  EXPECT_EQ(read_value(R"({"intValue":9223372036854775807})"), AnyValue{std::numeric_limits<std::int64_t>::max()});
  EXPECT_EQ(read_value(R"({"intValue":-7})"), AnyValue{std::int64_t{-7}});
  EXPECT_EQ(read_value(R"({"intValue":7.0})"), AnyValue{std::int64_t{7}});
  EXPECT_EQ(read_span(R"({"startTimeUnixNano":1800000000000000001})").start.time_since_epoch().count(),
            1'800'000'000'000'000'001);
  EXPECT_EQ(read_span(R"({"droppedAttributesCount":"3","kind":"3"})").dropped_attributes, 3u);
  EXPECT_EQ(read_span(R"({"droppedAttributesCount":"3","kind":"3"})").kind, SpanKind::client);
}

TEST(JsonReaderTest, RefusesIntegersOutOfRange) {
  for (const char* value : {R"({"intValue":"9223372036854775808"})", R"({"intValue":9223372036854775808})",
                            R"({"intValue":1e30})", R"({"intValue":1.5})", R"({"intValue":" 1"})", R"({"intValue":""})",
                            R"({"intValue":true})", R"({"intValue":[]})"}) {
    EXPECT_THAT(refusal(span_line(std::string(R"({"attributes":[{"key":"k","value":)") + value + "}]}")),
                HasSubstr("spans[0].attributes[0].value.intValue: expected an integer of 64 bits"));
  }
  EXPECT_THAT(refusal(span_line(R"({"flags":-1})")), HasSubstr("expected an integer of 32 bits, 0 or more"));
  EXPECT_THAT(refusal(span_line(R"({"startTimeUnixNano":-1})")), HasSubstr("expected an integer of 64 bits, 0 or more"));
  EXPECT_THAT(refusal(span_line(R"({"kind":"SPAN_KIND_SERVER"})")), HasSubstr("spans[0].kind: expected an integer"));
}

TEST(JsonReaderTest, TakesHexInAnyCase) {
  HOLDS("JS-02");
  const ReadSpan span = read_span(R"({"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174",
                                     "parentSpanId":""})");
  EXPECT_EQ(span.context.trace_id.hex(), "5b8efff798038103d269b633813fc60c");
  EXPECT_EQ(span.context.span_id.hex(), "eee19b7ec3c1b174");
  EXPECT_FALSE(span.parent.valid());
}

TEST(JsonReaderTest, RefusesIdsOfAnotherLengthOrAlphabet) {
  EXPECT_EQ(refusal(span_line(R"({"traceId":"5b8e"})")),
            "file:1: resourceSpans[0].scopeSpans[0].spans[0].traceId: expected 32 hex digits or an empty string");
  EXPECT_THAT(refusal(span_line(R"({"spanId":"eee19b7ec3c1b17g"})")), HasSubstr("16 hex digits"));
  EXPECT_THAT(refusal(span_line(R"({"spanId":"+1+1+1+1+1+1+1+1"})")), HasSubstr("16 hex digits"));
}

TEST(JsonReaderTest, TakesNullAsAbsent) {
  HOLDS("JS-11");
  const ReadSpan span = read_span(R"({"name":"n","attributes":null,"traceId":null,"status":null,"kind":null})");
  EXPECT_EQ(span.name, "n");
  EXPECT_TRUE(span.attributes.empty());
  EXPECT_EQ(read_value(R"({"stringValue":null})"), AnyValue{});
}

TEST(JsonReaderTest, IgnoresUnknownKeysAtEveryLevel) {
  HOLDS("JS-05", "JS-04");
  const ReadTelemetry telemetry = read(
      R"({"x":1,"resourceSpans":[{"x":{"y":[1,[2]]},"resource":{"x":null,"attributes":[]},"scopeSpans":[{"x":[],)"
      R"("scope":{"x":"s","name":"sc"},"spans":[{"trace_id":5,"name":"n","attributes":[{"x":{},"key":"k",)"
      R"("value":{"x":1,"boolValue":true}}],"status":{"x":1,"code":2}}]}]}]})");
  ASSERT_EQ(telemetry.spans.size(), 1u);
  EXPECT_EQ(telemetry.spans[0].scope.name, "sc");
  EXPECT_EQ(telemetry.spans[0].status, StatusCode::error);
  EXPECT_EQ(telemetry.spans[0].attributes, (AnyMap{{"k", {true}}}));
}

TEST(JsonReaderTest, TakesEveryFormOfADouble) {
  HOLDS("JS-09");
  EXPECT_EQ(read_value(R"({"doubleValue":1})"), AnyValue{1.0});
  EXPECT_EQ(read_value(R"({"doubleValue":"2.5"})"), AnyValue{2.5});
  EXPECT_EQ(read_value(R"({"doubleValue":"-Infinity"})"), AnyValue{-std::numeric_limits<double>::infinity()});
  EXPECT_EQ(to_text(read_value(R"({"doubleValue":"NaN"})")), "NaN");
  EXPECT_THAT(refusal(span_line(R"({"attributes":[{"value":{"doubleValue":"nan"}}]})")), HasSubstr("doubleValue: expected"));
}

TEST(JsonReaderTest, TakesBothAlphabetsOfBase64) {
  HOLDS("JS-10");
  const AnyValue expected{std::vector<std::byte>{std::byte{0xfb}, std::byte{0xff}}};
  for (const char* text : {"+/8=", "-_8=", "+/8", "-_8"}) {
    EXPECT_EQ(read_value(std::string(R"({"bytesValue":")") + text + "\"}"), expected);
  }
  for (const char* text : {"a", "a*==", "ab===", "=ab="}) {
    EXPECT_THAT(refusal(span_line(std::string(R"({"attributes":[{"value":{"bytesValue":")") + text + "\"}}]}")),
                HasSubstr("expected base64"));
  }
}

TEST(JsonReaderTest, BoundsNesting) {
  HOLDS("JS-21");
  const auto nested = [](int depth) {
    std::string opening;
    std::string closing;
    for (int i = 1; i < depth; ++i) {
      opening += R"({"arrayValue":{"values":[)";
      closing += "]}}";
    }
    return span_line(R"({"attributes":[{"value":)" + opening + R"({"intValue":1})" + closing + "}]}");
  };
  EXPECT_NO_THROW((void)read(nested(otlp::kMaxNesting)));
  EXPECT_THAT(refusal(nested(otlp::kMaxNesting + 1)), HasSubstr("fewer arrays and maps"));
  EXPECT_NE(refusal(nested(20'000)), "");
  EXPECT_NO_THROW((void)read(R"({"unknown":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}"));
}

TEST(JsonReaderTest, RefusesOtherShapes) {
  EXPECT_EQ(refusal("[1]"), "file:1: expected an object");
  EXPECT_EQ(refusal(R"({"resourceSpans":{}})"), "file:1: resourceSpans: expected an array");
  EXPECT_EQ(refusal(R"({"resourceSpans":[null]})"), "file:1: resourceSpans[0]: expected an object");
  EXPECT_THAT(refusal(span_line(R"({"name":5})")), HasSubstr("name: expected a string"));
  EXPECT_THAT(refusal(R"({"resourceSpans":)"), StartsWith("file:1: not JSON from byte "));
  EXPECT_THAT(refusal("{\"a\":\"\xff\"}"), StartsWith("file:1: not JSON from byte "));
}

class JsonFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "waymark-json-XXXXXX";
    const int file = mkstemp(pattern.data());
    ASSERT_GE(file, 0);
    close(file);
    path_ = pattern;
  }
  void TearDown() override { unlink(path_.c_str()); }
  ReadTelemetry read(const std::string& content) const {
    std::ofstream(path_, std::ios::binary) << content;
    return read_json_file(path_);
  }
  std::string path_;
  const std::string span_ = span_line(R"({"name":"s"})");
  const std::string log_ = R"({"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"l"}}]}]}]})";
};

TEST_F(JsonFileTest, HoldsSpansAndLogsInAnyOrder) {
  const ReadTelemetry telemetry = read(span_ + "\n" + log_ + "\r\n\n  \n" + span_ + "\n" + R"({"resourceMetrics":[]})" + "\n");
  EXPECT_EQ(telemetry.spans.size(), 2u);
  ASSERT_EQ(telemetry.logs.size(), 1u);
  EXPECT_EQ(to_text(telemetry.logs[0].body), "l");
}

TEST_F(JsonFileTest, MayBeEmpty) { EXPECT_TRUE(read("").spans.empty()); }

TEST_F(JsonFileTest, LeavesOutATornLastLine) {
  for (std::size_t i = 1; i < span_.size(); ++i) EXPECT_EQ(read(span_ + "\n" + span_.substr(0, i)).spans.size(), 1u);
  EXPECT_EQ(read(span_ + "\n" + span_).spans.size(), 2u);  // whole, only its line end is missing
}

TEST_F(JsonFileTest, NamesFileAndLineOfAnError) {
  try {
    (void)read(span_ + "\n" + span_line(R"({"name":1})") + "\n" + span_);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
    EXPECT_EQ(error.what(), path_ + ":2: resourceSpans[0].scopeSpans[0].spans[0].name: expected a string");
  }
  EXPECT_THROW((void)read(span_.substr(0, 9) + "\n" + span_ + "\n"), Error);
}

TEST_F(JsonFileTest, SaysWhatIsWrongWithThePath) {
  try {
    (void)read_json_file(path_ + "-missing");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
  }
  try {
    (void)read_json_file(::testing::TempDir());
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
  }
}

}  // namespace
}  // namespace waymark
