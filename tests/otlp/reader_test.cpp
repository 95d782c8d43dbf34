#include "otlp/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <protozero/pbf_writer.hpp>
#include <random>
#include <string>

#include "otlp/json.h"
#include "otlp/writer.h"
#include "support/holds.h"
#include "waymark/reader.h"

namespace waymark {
namespace {

using ::testing::HasSubstr;

template <class F>
std::string corrupt(F&& read) {
  try {
    read();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

std::string request_of(const std::string& body, const std::string& resource = {}, const std::string& scope = {}) {
  std::string out;
  protozero::pbf_writer request(out);
  protozero::pbf_writer group(request, 1);
  {
    protozero::pbf_writer records(group, 2);
    records.add_message(2, body);
    if (!scope.empty()) records.add_message(1, scope);
    records.add_string(3, "https://scope.example/1");
  }
  if (!resource.empty()) group.add_message(1, resource);
  return out;
}

std::string span_body() {
  std::string out;
  protozero::pbf_writer span(out);
  span.add_bytes(1, std::string(16, '\x11'));
  span.add_bytes(2, std::string(8, '\x22'));
  span.add_string(5, "read_bands");
  span.add_enum(6, 2);
  otlp::append_attribute(out, 0x4a, "bands", AnyValue{std::int64_t{4}});
  otlp::append_attribute(out, 0x4a, "scene", AnyValue{std::string("S2A")});
  std::string status;
  protozero::pbf_writer(status).add_enum(3, 2);
  span.add_message(15, status);
  return out;
}

std::string nested(int depth) {
  std::string any = "\x18\x01";
  for (int i = 1; i < depth; ++i) {
    std::string array;
    protozero::pbf_writer(array).add_message(1, any);
    any.clear();
    protozero::pbf_writer(any).add_message(5, array);
  }
  return any;
}

TEST(ReaderTest, FindsScopeAndResourceBehindTheRecords) {
  std::string resource;
  otlp::append_attribute(resource, 0x0a, "service.name", AnyValue{std::string("demo")});
  std::string scope;
  protozero::pbf_writer(scope).add_string(1, "tiles");
  const ReadTelemetry telemetry = read_request(Signal::traces, request_of(span_body(), resource, scope));
  ASSERT_EQ(telemetry.spans.size(), 1u);
  EXPECT_EQ(telemetry.spans[0].name, "read_bands");
  EXPECT_EQ(telemetry.spans[0].kind, SpanKind::server);
  EXPECT_EQ(telemetry.spans[0].status, StatusCode::error);
  EXPECT_EQ(telemetry.spans[0].scope.name, "tiles");
  EXPECT_EQ(telemetry.spans[0].scope.schema_url, "https://scope.example/1");
  EXPECT_EQ(find_string(telemetry.spans[0].resource, "service.name"), "demo");
}

TEST(ReaderTest, ReadsNothingFromNothing) {
  EXPECT_TRUE(read_request(Signal::traces, {}).spans.empty());
  EXPECT_TRUE(read_request(Signal::logs, {}).logs.empty());
  EXPECT_TRUE(read_request(Signal::metrics, {}).metrics.empty());
  EXPECT_EQ(request_to_json(Signal::logs, {}), "{}");
}

TEST(ReaderTest, PackedNumbersAreReadOneByOneToo) {
  HOLDS("PB-04");
  std::string counts;
  protozero::pbf_writer point(counts);
  point.add_fixed64(6, 3);
  const std::vector<std::uint64_t> packed{4, 5};
  point.add_packed_fixed64(6, packed.begin(), packed.end());
  std::string data;
  protozero::pbf_writer(data).add_message(1, counts);
  std::string metric;
  protozero::pbf_writer(metric).add_message(9, data);
  EXPECT_EQ(otlp::read_metric(metric).points.at(0).counts, (std::vector<std::uint64_t>{3, 4, 5}));
  std::string torn("\x32\x09", 2);  // bucket_counts of nine bytes
  torn += std::string(9, '\x01');
  std::string bad;
  protozero::pbf_writer(bad).add_message(1, torn);
  metric.clear();
  protozero::pbf_writer(metric).add_message(9, bad);
  EXPECT_THROW((void)otlp::read_metric(metric), Error);
}

TEST(ReaderTest, KeepsTheTraceStateAndTheLowFlagsOnly) {
  HOLDS("PB-10");
  std::string body = span_body();
  protozero::pbf_writer span(body);
  span.add_string(3, "vendor=1");
  span.add_fixed32(16, 0xfffffd01u);
  std::string link;
  protozero::pbf_writer(link).add_fixed32(6, 0x303u);
  span.add_message(13, link);
  const ReadSpan read = otlp::read_span(body);
  EXPECT_EQ(read.context.trace_state.header(), "vendor=1");
  EXPECT_EQ(read.context.flags, 1);
  EXPECT_FALSE(read.parent_remote);  // bit 9 is clear
  EXPECT_EQ(read.links.at(0).context.flags, 3);
  EXPECT_TRUE(read.links.at(0).context.remote);
}

TEST(ReaderTest, TakesUnknownEnumsForTheNearestThatItKnows) {
  std::string span;
  protozero::pbf_writer writer(span);
  writer.add_enum(6, 77);
  writer.add_message(15, std::string("\x18\x63", 2));
  EXPECT_EQ(otlp::read_span(span).kind, SpanKind::internal);
  EXPECT_EQ(otlp::read_span(span).status, StatusCode::unset);
  EXPECT_EQ(otlp::read_log(std::string("\x10\x63", 2)).severity, 0);
}

TEST(ReaderTest, SkipsUnknownFieldsOfEveryWireType) {
  HOLDS("PB-07");
  std::string body = span_body();
  protozero::pbf_writer span(body);
  span.add_uint64(999, 1);
  span.add_fixed64(999, 1);
  span.add_fixed32(999, 1);
  span.add_bytes(999, "anything");
  EXPECT_EQ(otlp::read_span(body).name, "read_bands");
  EXPECT_EQ(request_to_json(Signal::traces, request_of(body)), request_to_json(Signal::traces, request_of(span_body())));
}

TEST(ReaderTest, RefusesGroups) {
  HOLDS("PB-07");
  EXPECT_THAT(corrupt([] { (void)otlp::read_span("\x0b\x0c"); }), HasSubstr("the wire type is unknown"));
}

TEST(ReaderTest, RefusesAWrongWireTypeAndSaysWhere) {
  const std::string body("\x2a\x01n\x38\x05", 5);  // a name, then field 7 as a varint
  EXPECT_EQ(corrupt([&] { (void)otlp::read_span(body); }),
            "these bytes are not OTLP: Span, field 7, byte 3: expected eight bytes, found a varint");
  EXPECT_THAT(corrupt([&] { (void)request_to_json(Signal::traces, request_of(body)); }), HasSubstr("Span, field 7"));
}

TEST(ReaderTest, RefusesIdsOfAnotherLength) {
  const std::string body("\x0a\x03" "abc", 5);
  EXPECT_THAT(corrupt([&] { (void)otlp::read_span(body); }), HasSubstr("a trace id has 16 bytes"));
  EXPECT_THAT(corrupt([&] { (void)request_to_json(Signal::traces, request_of(body)); }), HasSubstr("16 bytes"));
  EXPECT_FALSE(otlp::read_span(std::string("\x0a\x00\x22\x00", 4)).context.trace_id.valid());
}

TEST(ReaderTest, RefusesLengthsBeyondTheEnd) {
  for (const std::string& bytes : {std::string("\x0a"), std::string("\x0a\x05" "a"), std::string("\x39\x01"),
                                  std::string("\x85\x01\x01"), std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
                                  std::string("\x0a\x85\x80\x80\x80\x10" "abcde"), std::string(11, '\xff')}) {
    EXPECT_NE(corrupt([&] { (void)otlp::read_span(bytes); }), "");
  }
}

TEST(ReaderTest, RefusesFieldNumbersThatDoNotExist) {
  EXPECT_THAT(corrupt([] { (void)otlp::read_span(std::string("\0\0", 2)); }), HasSubstr("no field has this number"));
  EXPECT_THAT(corrupt([] { (void)otlp::read_span("\x80\x80\x80\x80\x10\x01"); }), HasSubstr("no field has this number"));
}

TEST(ReaderTest, BoundsNesting) {
  HOLDS("JS-21");
  EXPECT_NO_THROW((void)otlp::read_any(nested(otlp::kMaxNesting)));
  EXPECT_THAT(corrupt([] { (void)otlp::read_any(nested(otlp::kMaxNesting + 1)); }), HasSubstr("too deep"));
  EXPECT_THAT(corrupt([] { (void)otlp::read_any(nested(5'000)); }), HasSubstr("too deep"));

  const auto request = [](int depth) {
    std::string attribute;
    protozero::pbf_writer(attribute).add_message(2, nested(depth));
    std::string body;
    protozero::pbf_writer(body).add_message(9, attribute);
    return request_of(body);
  };
  EXPECT_NO_THROW((void)request_to_json(Signal::traces, request(otlp::kMaxNesting)));
  EXPECT_THAT(corrupt([&] { (void)request_to_json(Signal::traces, request(otlp::kMaxNesting + 1)); }), HasSubstr("too deep"));
}

TEST(ReaderTest, RefusesAResourceThatWouldBeCopiedTooOften) {
  std::string resource;
  otlp::append_attribute(resource, 0x0a, "k", AnyValue{std::string(1024 * 1024, 'x')});
  std::string out;
  protozero::pbf_writer request(out);
  {
    protozero::pbf_writer group(request, 1);
    group.add_message(1, resource);
    protozero::pbf_writer records(group, 2);
    for (int i = 0; i < 300; ++i) records.add_message(2, std::string());
  }
  EXPECT_THAT(corrupt([&] { (void)read_request(Signal::traces, out); }), HasSubstr("too large for so many records"));
}

TEST(ReaderTest, SingleFieldsAreReadWithoutTheRest) {
  const std::string span = span_body();
  EXPECT_EQ(otlp::span_name(span), "read_bands");
  EXPECT_EQ(otlp::span_status(span), StatusCode::error);
  std::string seen;
  EXPECT_TRUE(otlp::for_each_attribute(Signal::traces, span, [&](std::string_view key, std::string_view any) {
    seen += std::string(key) + "=" + to_text(otlp::read_any(any)) + ";";
  }));
  EXPECT_EQ(seen, "bands=4;scene=S2A;");
  EXPECT_EQ(otlp::log_severity(std::string("\x10\x09\x10\x11", 4)), 17);  // the last one counts
}

TEST(ReaderTest, SingleFieldsOfDamagedRecordsAreAbsent) {
  EXPECT_EQ(otlp::span_name("\x2a\x09" "abc"), "");
  EXPECT_EQ(otlp::span_status("\x7a\x01\xff"), StatusCode::unset);
  EXPECT_EQ(otlp::log_severity("\x12\x01" "a"), 0);
  EXPECT_FALSE(otlp::for_each_attribute(Signal::logs, "\x32\x09", [](auto, auto) {}));
}

// Truncated, flipped and random bytes: whatever happens is an Error(corrupt) or a value.
TEST(ReaderTest, SurvivesAnyBytes) {
  std::string resource;
  otlp::append_attribute(resource, 0x0a, "m", AnyValue{AnyMap{{"a", {AnyArray{{1.5}, {}, {true}}}}}});
  const std::string good = request_of(span_body(), resource);
  std::mt19937 random(7);
  const auto survive = [](const std::string& bytes) {
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      try {
        const ReadTelemetry direct = read_request(signal, bytes);
        ReadTelemetry back;
        otlp::read_json_line(request_to_json(signal, bytes), "line", back);
        EXPECT_EQ(back.spans.size(), direct.spans.size());
        EXPECT_EQ(back.logs.size(), direct.logs.size());
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::corrupt) << error.what();
      }
      (void)otlp::span_name(bytes);
      (void)otlp::span_status(bytes);
      (void)otlp::log_severity(bytes);
      (void)otlp::for_each_attribute(signal, bytes, [](std::string_view, std::string_view any) { (void)otlp::read_any(any); });
    }
  };
  for (std::size_t i = 0; i < good.size(); ++i) survive(good.substr(0, i));
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    for (unsigned flips = random() % 4 + 1; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    survive(bytes);
  }
  for (int i = 0; i < 5'000; ++i) {
    std::string bytes(random() % 40, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    survive(bytes);
  }
}

TEST(ValueTextTest, IsWhatPeopleWrite) {
  HOLDS("SV-50");
  EXPECT_EQ(to_text({}), "");
  EXPECT_EQ(to_text({std::string("as it is \"")}), "as it is \"");
  EXPECT_EQ(to_text({true}), "true");
  EXPECT_EQ(to_text({std::int64_t{-5}}), "-5");
  EXPECT_EQ(to_text({0.1}), "0.1");
  EXPECT_EQ(to_text({std::numeric_limits<double>::infinity()}), "Infinity");
  EXPECT_EQ(to_text({std::vector<std::byte>{std::byte{1}}}), "AQ==");
  EXPECT_EQ(to_text({AnyArray{{std::int64_t{1}}, {}, {std::string("a\"")}, {std::numeric_limits<double>::quiet_NaN()}}}),
            R"([1,null,"a\"","NaN"])");
  EXPECT_EQ(to_text({AnyMap{{"k", {AnyArray{}}}, {"l", {AnyMap{}}}, {"m", {false}}}}), R"({"k":[],"l":{},"m":false})");
}

TEST(FindTest, GivesTheFirstValueOfAKey) {
  const AnyMap map = {{"a", {std::int64_t{1}}}, {"b", {std::string("x")}}, {"b", {std::string("y")}}};
  ASSERT_NE(find(map, "a"), nullptr);
  EXPECT_EQ(find(map, "c"), nullptr);
  EXPECT_EQ(find_string(map, "b"), "x");
  EXPECT_EQ(find_string(map, "a"), "");
}

}  // namespace
}  // namespace waymark
