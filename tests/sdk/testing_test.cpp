#include "waymark/testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace waymark::testing {
namespace {

SpanId id(std::uint8_t n) {
  SpanId span;
  span.bytes[7] = n;
  return span;
}

ReadSpan span(std::string name, std::uint8_t n, std::uint8_t parent, int start, std::uint8_t trace = 1) {
  ReadSpan span;
  span.name = std::move(name);
  span.context.trace_id.bytes[15] = trace;
  span.context.span_id = id(n);
  if (parent != 0) span.parent = id(parent);
  span.start = Timestamp(std::chrono::seconds(start));
  return span;
}

TEST(SpanTreeTest, IndentsChildrenByStartThenName) {
  std::vector<ReadSpan> spans = {span("job", 1, 0, 0), span("late", 2, 1, 9), span("b", 3, 1, 5), span("a", 4, 1, 5),
                                 span("inner", 5, 3, 6)};
  const std::string expected =
      "job\n"
      "  a\n"
      "  b\n"
      "    inner\n"
      "  late\n";
  std::mt19937 random(3);
  for (int i = 0; i < 50; ++i) {
    std::shuffle(spans.begin(), spans.end(), random);
    EXPECT_EQ(span_tree(spans), expected);
  }
}

TEST(SpanTreeTest, OrdersEqualSiblingsByWhatIsBelowThem) {
  const std::vector<ReadSpan> one = {span("job", 1, 0, 0), span("tile", 2, 1, 1), span("tile", 3, 1, 1), span("x", 4, 3, 2)};
  const std::vector<ReadSpan> other = {span("job", 9, 0, 0), span("tile", 8, 9, 1), span("tile", 7, 9, 1), span("x", 6, 8, 2)};
  EXPECT_EQ(span_tree(one), "job\n  tile\n  tile\n    x\n");
  EXPECT_EQ(span_tree(other), span_tree(one));
}

TEST(SpanTreeTest, MarksErrorsAndLinks) {
  std::vector<ReadSpan> spans = {span("first", 1, 0, 0), span("second", 2, 0, 1)};
  spans[0].status = StatusCode::error;
  spans[1].links.push_back({spans[0].context, {}, 0});
  spans[1].links.push_back({span("elsewhere", 9, 0, 0).context, {}, 0});
  EXPECT_EQ(span_tree(spans), "first [error]\nsecond -> first -> ?\n");
}

TEST(SpanTreeTest, PutsOrphansAtTheMargin) {
  EXPECT_EQ(span_tree({span("orphan", 1, 77, 0), span("child", 2, 1, 1), span("root", 3, 0, 5)}),
            "root\n? orphan\n  child\n");
}

TEST(SpanTreeTest, LooksForParentsInTheSameTraceOnly) {
  EXPECT_EQ(span_tree({span("root", 1, 0, 0, 1), span("stray", 2, 1, 1, 2)}), "root\n? stray\n");
}

TEST(SpanTreeTest, ShowsASpanOnceThatWasDeliveredTwice) {
  EXPECT_EQ(span_tree({span("root", 1, 0, 0), span("child", 2, 1, 1), span("root", 1, 0, 0), span("child", 2, 1, 1)}),
            "root\n  child\n");
}

TEST(SpanTreeTest, EndsWhereSpansAreTheirOwnAncestors) {
  EXPECT_EQ(span_tree({span("a", 1, 2, 0), span("b", 2, 1, 1), span("self", 3, 3, 2)}), "? a\n  b\n? self\n");
}

TEST(SpanTreeTest, IsEmptyForNoSpans) { EXPECT_EQ(span_tree({}), ""); }

TEST(ManualClockTest, MovesWhenTold) {
  ManualClock clock(Timestamp(std::chrono::seconds(5)));
  const std::function<Timestamp()> now = clock.function();
  EXPECT_EQ(now(), Timestamp(std::chrono::seconds(5)));
  clock.advance(std::chrono::milliseconds(1));
  EXPECT_EQ(now(), Timestamp(std::chrono::seconds(5) + std::chrono::milliseconds(1)));
  EXPECT_EQ(clock.now(), now());
}

TEST(MemoryDestinationTest, KeepsWhatATelemetryRecords) {
  const MemoryDestination memory;
  ManualClock clock;
  Config config = memory_config(memory, "tiles");
  config.clock = clock.function();
  Telemetry telemetry(config);
  {
    const auto outer = telemetry.tracer("t").span("outer", {{"bands", 4}});
    const auto inner = telemetry.tracer("t").span("inner");
    telemetry.logger("l").info("tile read", {{"index", 1}});
  }
  ASSERT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
  EXPECT_EQ(span_tree(memory.spans()), "outer\n  inner\n");
  ASSERT_EQ(memory.logs().size(), 1u);
  EXPECT_EQ(memory.logs()[0].body, AnyValue{std::string("tile read")});
  EXPECT_EQ(find_string(memory.logs()[0].resource, "service.name"), "tiles");
  EXPECT_EQ(memory.logs()[0].scope.name, "l");
  EXPECT_FALSE(memory.requests(Signal::traces).empty());

  MemoryDestination cleared = memory;  // shares what is kept
  cleared.clear();
  EXPECT_TRUE(memory.spans().empty());
  EXPECT_TRUE(memory.logs().empty());
}

}  // namespace
}  // namespace waymark::testing
