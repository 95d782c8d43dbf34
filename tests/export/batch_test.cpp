#include "export/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "export/fake_journal.h"
#include "otlp/json.h"
#include "support/allocations.h"
#include "support/holds.h"
#include "support/official.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

using testing::FakeSource;
using testing::log_bytes;
using testing::span_bytes;
using ::testing::ElementsAre;
using namespace std::string_literals;

std::string text(const Batch& batch) {
  std::string request;
  for (const auto piece : batch.pieces()) request += piece;
  return request;
}

std::string scope_bytes(std::string_view name) { return "\x0a"s + static_cast<char>(name.size()) + std::string(name); }

std::string resource_bytes(const AnyMap& attributes) {
  std::string out;
  for (const auto& [key, value] : attributes) otlp::append_attribute(out, 0x0a, key, value);
  return out;
}

std::vector<std::string> names(const ReadTelemetry& read) {
  std::vector<std::string> found;
  for (const auto& span : read.spans) found.push_back(span.scope.name + "/" + span.name);
  return found;
}

class BatchTest : public ::testing::Test {
 protected:
  BatchTest() {
    source.set_resource(resource_bytes({{"service.name", {std::string("tests")}}, {"n", {std::int64_t{-3}}}}));
    source.set_scope(0, {scope_bytes("zero"), ""});
    source.set_scope(1, {scope_bytes("one"), "https://example.org/schema"});
    cursor = source.cursor("d", Signal::traces, true);
    logs = source.cursor("d", Signal::logs, true);
    envelope = std::make_unique<Envelope>(source, AnyMap{});
  }

  FakeSource source;
  std::unique_ptr<journal::Cursor> cursor;
  std::unique_ptr<journal::Cursor> logs;
  std::unique_ptr<Envelope> envelope;
  Batch batch;
};

TEST_F(BatchTest, PutsRecordsUnderTheirResourceAndScopes) {
  HOLDS("HC-03", "PB-15", "PB-16");
  source.append(Signal::traces, span_bytes("a"), 0);
  source.append(Signal::traces, span_bytes("b"), 1);
  source.append(Signal::traces, span_bytes("c"), 0);
  batch.cut(*cursor, *envelope, {});
  const std::string request = text(batch);
  EXPECT_EQ(request.size(), batch.bytes());
  EXPECT_EQ(batch.records(), 3u);
  EXPECT_TRUE(batch.at_end());
  const ReadTelemetry read = read_request(Signal::traces, request);
  EXPECT_THAT(names(read), ElementsAre("zero/a", "zero/c", "one/b"));
  EXPECT_EQ(find_string(read.spans[0].resource, "service.name"), "tests");
  EXPECT_EQ(read.spans[2].scope.schema_url, "https://example.org/schema");
  using nlohmann::json;
  EXPECT_EQ(json::parse(request_to_json(Signal::traces, request)), json::parse(testing::official_json(Signal::traces, request)));
}

TEST_F(BatchTest, LogsStandUnderTheSameNumbers) {
  source.append(Signal::logs, log_bytes("hello"), 1);
  source.append(Signal::traces, span_bytes("not a log"), 1);
  batch.cut(*logs, *envelope, {});
  const std::string request = text(batch);
  EXPECT_EQ(request.size(), batch.bytes());
  EXPECT_EQ(to_text(read_request(Signal::logs, request).logs.at(0).body), "hello");
  using nlohmann::json;
  EXPECT_EQ(json::parse(request_to_json(Signal::logs, request)), json::parse(testing::official_json(Signal::logs, request)));
}

TEST_F(BatchTest, NothingWaitingIsAnEmptyBatch) {
  HOLDS("HC-31");
  source.append(Signal::logs, log_bytes("of another signal"));
  batch.cut(*cursor, *envelope, {});
  EXPECT_EQ(batch.records(), 0u);
  EXPECT_TRUE(batch.pieces().empty());
  EXPECT_TRUE(batch.at_end());
  EXPECT_EQ(batch.position(), 1u);
}

TEST_F(BatchTest, IsNeverLargerThanAllowedAndNeverSmallerThanPossible) {
  for (int i = 0; i < 300; ++i) {
    source.append(Signal::traces, span_bytes(std::string(static_cast<std::size_t>(i) * 7 % 400, 'x')), static_cast<std::uint16_t>(i % 3));
  }
  for (std::size_t limit = 1024; limit < 1024 + 160; ++limit) {
    batch.cut(*cursor, *envelope, {.max_bytes = limit});
    cursor->abandon();
    ASSERT_EQ(text(batch).size(), batch.bytes());
    ASSERT_LE(batch.bytes(), limit);
    ASSERT_FALSE(batch.at_end());
    const auto taken = batch.records();
    Batch one_more;
    one_more.cut(*cursor, *envelope, {.max_bytes = 1 << 20, .max_records = taken + 1});
    cursor->abandon();
    ASSERT_GT(one_more.bytes(), limit);
  }
}

TEST_F(BatchTest, AllRecordsArriveOnceInOrderAcrossBatches) {
  std::vector<std::string> expected;
  for (int i = 0; i < 500; ++i) {
    expected.push_back(std::to_string(i));
    source.append(Signal::traces, span_bytes(expected.back()));
  }
  std::vector<std::string> arrived;
  do {
    batch.cut(*cursor, *envelope, {.max_bytes = 1024, .max_records = 17});
    EXPECT_LE(batch.records(), 17u);
    for (const auto& span : read_request(Signal::traces, text(batch)).spans) arrived.push_back(span.name);
    cursor->acknowledge(batch.position(), {});
  } while (!batch.at_end());
  EXPECT_EQ(arrived, expected);
}

TEST_F(BatchTest, ARecordLargerThanTheLimitIsDroppedAlone) {
  source.append(Signal::traces, span_bytes("before"));
  source.append(Signal::traces, span_bytes(std::string(2000, 'x')));
  source.append(Signal::traces, span_bytes(std::string(2000, 'y')));
  source.append(Signal::traces, span_bytes("behind"));
  batch.cut(*cursor, *envelope, {.max_bytes = 1024});
  EXPECT_THAT(names(read_request(Signal::traces, text(batch))), ElementsAre("zero/before"));
  EXPECT_FALSE(batch.at_end());
  cursor->acknowledge(batch.position(), {});
  batch.cut(*cursor, *envelope, {.max_bytes = 1024});
  EXPECT_EQ(batch.oversized(), 2u);
  EXPECT_THAT(names(read_request(Signal::traces, text(batch))), ElementsAre("zero/behind"));
  EXPECT_TRUE(batch.at_end());
}

TEST_F(BatchTest, FiltersLogsBySeverity) {
  HOLDS("SEV-09");
  for (const int severity : {1, 12, 13, 17, 0}) source.append(Signal::logs, log_bytes(std::to_string(severity), severity));
  batch.cut(*logs, *envelope, {.minimum_severity = Severity::warning});
  std::vector<std::string> passed;
  for (const auto& log : read_request(Signal::logs, text(batch)).logs) passed.push_back(to_text(log.body));
  EXPECT_THAT(passed, ElementsAre("13", "17", "0")) << "an unspecified severity passes";
  EXPECT_EQ(batch.filtered(), 2u);
  EXPECT_EQ(batch.taken_records(), 5u);
}

TEST_F(BatchTest, ADestinationsAttributesReplaceTheResources) {
  Envelope with(source, {{"service.name", {std::string("other")}}, {"s2.stream", {std::string("tiles")}}});
  source.append(Signal::traces, span_bytes("a"));
  batch.cut(*cursor, with, {});
  const auto read = read_request(Signal::traces, text(batch));
  const AnyMap expected{{"n", {std::int64_t{-3}}}, {"service.name", {std::string("other")}}, {"s2.stream", {std::string("tiles")}}};
  EXPECT_EQ(read.spans.at(0).resource, expected);
  EXPECT_EQ(text(batch).size(), batch.bytes());
}

TEST_F(BatchTest, ADamagedResourceIsPassedOn) {
  source.set_resource("\xff\xff");
  Envelope with(source, {{"k", {std::int64_t{1}}}});
  source.append(Signal::traces, span_bytes("a"));
  batch.cut(*cursor, with, {});
  EXPECT_EQ(batch.records(), 1u);
}

TEST_F(BatchTest, ABatchLikeTheLastOneAllocatesNothing) {
  const auto fill = [&] {
    for (int i = 0; i < 100; ++i) source.append(Signal::traces, span_bytes("name"), static_cast<std::uint16_t>(i % 2));
  };
  for (int i = 0; i < 3; ++i) {
    fill();
    batch.cut(*cursor, *envelope, {});
    cursor->acknowledge(batch.position(), {});
  }
  fill();
  const auto before = testing::allocations;
  batch.cut(*cursor, *envelope, {});
  EXPECT_EQ(testing::allocations, before);
  EXPECT_EQ(batch.records(), 100u);
}

class JsonBatchTest : public BatchTest {
 protected:
  JsonBatchTest() { envelope = std::make_unique<Envelope>(source, AnyMap{}, Encoding::json); }

  // What the same cut is in protobuf.
  std::string protobuf(journal::Cursor& from, Signal signal, std::uint64_t records) {
    from.abandon();
    Envelope other(source, {});
    Batch same;
    same.cut(from, other, {.max_bytes = 1 << 24, .max_records = records});
    return request_to_json(signal, text(same));
  }
};

TEST_F(JsonBatchTest, IsTheSameRequestAsTheProtobufOne) {
  HOLDS("JS-01", "JS-03", "JS-04", "JS-06", "JS-16");
  source.append(Signal::traces, span_bytes("a"), 0);
  source.append(Signal::traces, span_bytes("b \" \x01 \xff"), 1);
  source.append(Signal::traces, span_bytes("c"), 0);
  source.append(Signal::traces, span_bytes("no scope"), 2);
  source.append(Signal::logs, log_bytes("hello"), 1);
  source.append(Signal::logs, log_bytes("again"), 0);
  batch.cut(*cursor, *envelope, {});
  EXPECT_EQ(text(batch), protobuf(*cursor, Signal::traces, batch.records()));
  EXPECT_EQ(text(batch).size(), batch.bytes());
  EXPECT_EQ(batch.records(), 4u);
  batch.cut(*logs, *envelope, {});
  EXPECT_EQ(text(batch), protobuf(*logs, Signal::logs, batch.records()));
  EXPECT_EQ(text(batch).size(), batch.bytes());
  EXPECT_NO_THROW(testing::official_json_of_json(Signal::logs, text(batch)));
}

TEST_F(JsonBatchTest, IsLimitedByItsBytesInJson) {
  HOLDS("HC-08");
  for (int i = 0; i < 300; ++i) {
    source.append(Signal::traces, span_bytes(std::string(static_cast<std::size_t>(i) * 7 % 400, 'x')), static_cast<std::uint16_t>(i % 3));
  }
  for (std::size_t limit = 1024; limit < 1024 + 400; limit += 3) {
    batch.cut(*cursor, *envelope, {.max_bytes = limit});
    cursor->abandon();
    ASSERT_EQ(text(batch).size(), batch.bytes());
    ASSERT_LE(batch.bytes(), limit);
    ASSERT_TRUE(nlohmann::json::accept(text(batch)));
    Batch one_more;
    one_more.cut(*cursor, *envelope, {.max_bytes = 1 << 20, .max_records = batch.records() + 1});
    cursor->abandon();
    ASSERT_GT(one_more.bytes(), limit);
  }
}

TEST_F(JsonBatchTest, ARecordThatIsTooLargeOnlyInJsonIsDroppedAlone) {
  HOLDS("HC-09");
  const std::string grows(600, '\x01');  // six characters each in JSON
  source.append(Signal::traces, span_bytes("before"));
  source.append(Signal::traces, span_bytes(grows));
  source.append(Signal::traces, span_bytes("behind"));
  std::vector<std::string> arrived;
  std::uint64_t oversized = 0;
  do {
    batch.cut(*cursor, *envelope, {.max_bytes = 1500});
    oversized += batch.oversized();
    ReadTelemetry read;
    otlp::read_json_line(text(batch), "batch", read);
    for (const auto& span : read.spans) arrived.push_back(span.name);
    cursor->acknowledge(batch.position(), {});
  } while (!batch.at_end());
  EXPECT_THAT(arrived, ElementsAre("before", "behind"));
  EXPECT_EQ(oversized, 1u);
}

TEST_F(JsonBatchTest, ARecordThatCannotBeReadIsDroppedAlone) {
  source.append(Signal::traces, span_bytes("before"));
  source.append(Signal::traces, "\x0a\x7f");
  source.append(Signal::traces, span_bytes("behind"));
  batch.cut(*cursor, *envelope, {});
  EXPECT_EQ(batch.records(), 2u);
  EXPECT_EQ(batch.unreadable(), 1u);
  EXPECT_EQ(batch.taken_records(), 3u);
  EXPECT_TRUE(nlohmann::json::accept(text(batch)));
  EXPECT_EQ(text(batch).size(), batch.bytes());
}

TEST_F(JsonBatchTest, ADamagedResourceOrScopeIsLeftOut) {
  source.set_resource("\xff\xff");
  source.set_scope(0, {"\xff", ""});
  Envelope with(source, {}, Encoding::json);
  source.append(Signal::traces, span_bytes("a"), 0);
  batch.cut(*cursor, with, {});
  ReadTelemetry read;
  otlp::read_json_line(text(batch), "batch", read);
  EXPECT_EQ(read.spans.at(0).name, "a");
  EXPECT_EQ(text(batch).size(), batch.bytes());
}

TEST_F(JsonBatchTest, ABatchLikeTheLastOneAllocatesNothing) {
  const auto fill = [&] {
    for (int i = 0; i < 100; ++i) source.append(Signal::traces, span_bytes("name"), static_cast<std::uint16_t>(i % 2));
  };
  for (int i = 0; i < 3; ++i) {
    fill();
    batch.cut(*cursor, *envelope, {});
    cursor->acknowledge(batch.position(), {});
  }
  fill();
  const auto before = testing::allocations;
  batch.cut(*cursor, *envelope, {});
  EXPECT_EQ(testing::allocations, before);
  EXPECT_EQ(batch.records(), 100u);
}

}  // namespace
}  // namespace waymark::delivery
