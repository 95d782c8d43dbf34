// Requirements on the two encodings that no other room's tests show.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "sdk/recorded.h"
#include "support/holds.h"
#include "support/http_server.h"
#include "support/official.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
using testing::MemoryDestination;

// One field of a message: its number, its wire type, and its bytes where it has a length. A reader of its own, so that
// ours is not judged by itself.
struct Field {
  std::uint32_t number = 0;
  std::uint32_t type = 0;
  std::string_view bytes;
  std::uint64_t value = 0;
};

std::vector<Field> fields(std::string_view message) {
  std::size_t at = 0;
  const auto byte = [&] { return static_cast<unsigned char>(message.at(at++)); };
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const unsigned char b = byte();
      value |= static_cast<std::uint64_t>(b & 0x7f) << shift;
      if (b < 0x80) return value;
    }
  };
  std::vector<Field> found;
  while (at < message.size()) {
    const std::uint64_t tag = varint();
    Field field{static_cast<std::uint32_t>(tag >> 3), static_cast<std::uint32_t>(tag & 7), {}, 0};
    if (field.type == 0) {
      field.value = varint();
    } else if (field.type == 2) {
      const std::uint64_t size = varint();
      field.bytes = message.substr(at, size);
      at += size;
    } else {
      const std::size_t size = field.type == 1 ? 8 : 4;
      for (std::size_t i = 0; i < size; ++i) field.value |= static_cast<std::uint64_t>(byte()) << (8 * i);
    }
    found.push_back(field);
  }
  return found;
}

std::string_view child(std::string_view message, std::uint32_t number) {
  for (const Field& field : fields(message)) {
    if (field.number == number) return field.bytes;
  }
  ADD_FAILURE() << "no field " << number;
  return {};
}

std::string only_request(const MemoryDestination& memory, Signal signal) {
  const auto requests = memory.requests(signal);
  EXPECT_EQ(requests.size(), 1u);
  return requests.empty() ? std::string() : requests[0];
}

TEST(EncodingTest, ZeroesAreWrittenWhereTheyAreValuesAndNowhereElse) {
  HOLDS("PB-06", "JS-13");
  MemoryDestination memory;
  Telemetry telemetry(testing::memory_config(memory));
  { auto span = telemetry.tracer("t").span("s", {{"zero", 0}, {"no", false}, {"text", ""}, {"double", 0.0}}); }
  ASSERT_TRUE(telemetry.force_flush(20s));
  const std::string request = only_request(memory, Signal::traces);
  const std::string_view span = child(child(child(request, 1), 2), 2);
  std::vector<std::uint32_t> values;  // the member of AnyValue that each attribute has
  for (const Field& field : fields(span)) {
    if (field.number == 9) {
      const auto value = fields(child(field.bytes, 2));
      ASSERT_EQ(value.size(), 1u);
      values.push_back(value[0].number);
    } else if (field.type == 2) {
      EXPECT_FALSE(field.bytes.empty()) << "field " << field.number;
    } else {
      EXPECT_NE(field.value, 0u) << "field " << field.number;
    }
  }
  EXPECT_EQ(values, (std::vector<std::uint32_t>{3, 2, 1, 4}));
}

TEST(EncodingTest, NumbersHaveTheirWireTypes) {
  HOLDS("PB-02", "PB-01");
  MemoryDestination memory;
  Telemetry telemetry(testing::memory_config(memory));
  {
    auto span = telemetry.tracer("t").span("s");
    span.event("e").link(span.context());
    telemetry.logger("t").info("l");
  }
  ASSERT_TRUE(telemetry.force_flush(20s));
  const std::string traces = only_request(memory, Signal::traces);
  const std::string logs = only_request(memory, Signal::logs);
  const auto type_of = [](std::string_view message, std::uint32_t number) {
    for (const Field& field : fields(message)) {
      if (field.number == number) return static_cast<int>(field.type);
    }
    return -1;
  };
  const std::string_view span = child(child(child(traces, 1), 2), 2);
  EXPECT_EQ(child(span, 1).size(), 16u);
  EXPECT_EQ(child(span, 2).size(), 8u);
  EXPECT_EQ(type_of(span, 4), -1) << "a root has no parent";
  for (const std::uint32_t time : {7, 8}) EXPECT_EQ(type_of(span, time), 1);
  EXPECT_EQ(type_of(span, 16), 5);
  EXPECT_EQ(type_of(child(span, 11), 1), 1);
  EXPECT_EQ(type_of(child(span, 13), 6), 5);
  const std::string_view log = child(child(child(logs, 1), 2), 2);
  for (const std::uint32_t time : {1, 11}) EXPECT_EQ(type_of(log, time), 1);
  EXPECT_EQ(type_of(log, 8), 5);
  EXPECT_EQ(child(log, 9).size(), 16u);
  EXPECT_EQ(child(log, 10).size(), 8u);
}

TEST(EncodingTest, EntitiesOfAResourceAreSkipped) {
  HOLDS("PB-25");
  MemoryDestination memory;
  Telemetry telemetry(testing::memory_config(memory));
  { auto span = telemetry.tracer("t").span("s"); }
  ASSERT_TRUE(telemetry.force_flush(20s));
  const std::string request = only_request(memory, Signal::traces);
  // The same resource once more, with one entity: entity_refs = 3 { type = 2: "service" }.
  const std::string entity = std::string("\x1a\x09\x12\x07") + "service";
  std::string group(child(request, 1));
  group += std::string("\x0a") + static_cast<char>(entity.size()) + entity;
  ASSERT_LT(group.size(), 0x4000u);
  std::string with("\x0a");
  with += static_cast<char>(0x80 | (group.size() & 0x7f));
  with += static_cast<char>(group.size() >> 7);
  with += group;
  const ReadTelemetry read = read_request(Signal::traces, with);
  ASSERT_EQ(read.spans.size(), 1u);
  EXPECT_EQ(find_string(read.spans[0].resource, "service.name"), "test");
}

TEST(EncodingTest, RepeatedAndMisplacedJsonKeysAreNoDanger) {
  HOLDS("JS-22");
  const std::string path = ::testing::TempDir() + "waymark-conformance-keys.json";
  std::ofstream(path) << R"({"resourceSpans":[{"scopeSpans":[{"spans":[{"status":{"code":1},"name":"a","name":"b",)"
                         R"("status":{"code":2},"@type":{"x":[{"@type":"y"}]},"kind":2,"kind":3}],"scope":{"name":"n"}}],)"
                         R"("resource":{"attributes":[{"value":{"intValue":"1"},"key":"k"}]}}]})"
                      << "\n";
  const ReadTelemetry read = read_json_file(path);
  ASSERT_EQ(read.spans.size(), 1u);
  EXPECT_EQ(read.spans[0].name, "b");
  EXPECT_EQ(read.spans[0].scope.name, "n") << "keys come in any order";
  EXPECT_EQ(read.spans[0].resource, (AnyMap{{"k", {std::int64_t{1}}}}));
  std::remove(path.c_str());
}

TEST(EncodingTest, JsonGoesOutAsJson) {
  HOLDS("HC-04", "HC-05");
  testing::HttpServer server;
  Config config;
  config.resource = Resource("test");
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    DestinationConfig destination;
    destination.name = "json";
    destination.signal = signal;
    destination.protocol = Protocol::http_json;
    destination.url = server.url("/v1/") + std::string(signal_name(signal));
    config.destinations.push_back(destination);
  }
  Telemetry telemetry(config);
  { auto span = telemetry.tracer("t").span("a span"); }
  telemetry.logger("t").info("a record");
  ASSERT_TRUE(telemetry.force_flush(20s));
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 2u);
  for (const testing::HttpRequest& request : requests) {
    const Signal signal = request.target == "/v1/traces" ? Signal::traces : Signal::logs;
    EXPECT_EQ(request.target, "/v1/" + std::string(signal_name(signal)));
    ASSERT_NE(request.header("Content-Type"), nullptr);
    EXPECT_EQ(*request.header("Content-Type"), "application/json");
    const std::string official = testing::official_json_of_json(signal, request.body);
    EXPECT_EQ(nlohmann::json::parse(request.body), nlohmann::json::parse(official));
    EXPECT_NE(official.find(signal == Signal::traces ? "a span" : "a record"), std::string::npos);
  }
}

std::string text_of(const std::string& path) {
  std::ifstream file(std::string(WAYMARK_SOURCE_DIR "/") + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(DocumentedTest, ArraysAndMapsCostMore) {
  HOLDS("TR-47");
  EXPECT_NE(text_of("sdk/include/waymark/attribute.h").find("Arrays and maps cost more than the others"), std::string::npos);
}

TEST(DocumentedTest, TheConstantsOfRetriesAreThoseOfTheCode) {
  HOLDS("RT-24");
  const RetryConfig retry;
  EXPECT_EQ(retry.initial, 500ms);
  EXPECT_EQ(retry.maximum, 30s);
  EXPECT_EQ(retry.multiplier, 2.0);
  const std::string page = text_of("docs/configuration.md");
  EXPECT_NE(page.find("| `initial` | duration | above 0 | 500 ms |"), std::string::npos);
  EXPECT_NE(page.find("| `maximum` | duration | at least `initial` | 30 s |"), std::string::npos);
  EXPECT_NE(page.find("| `multiplier` | number | at least 1 | 2 |"), std::string::npos);
}

}  // namespace
}  // namespace waymark
