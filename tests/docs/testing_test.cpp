// The examples of docs/testing.md.
#include <gtest/gtest.h>

#include <waymark/testing.h>
#include <waymark/waymark.h>

namespace {

void process_tile(const waymark::Tracer& tracer) {
  auto tile = tracer.span("process_tile");
  auto bands = tracer.span("read_bands");
}

TEST(TilesTest, ReadsTheBandsOfATile) {
  waymark::testing::MemoryDestination memory;
  waymark::Telemetry telemetry(waymark::testing::memory_config(memory));

  process_tile(telemetry.tracer("tiles"));

  telemetry.force_flush(std::chrono::seconds(5));
  EXPECT_EQ(waymark::testing::span_tree(memory.spans()),
            "process_tile\n"
            "  read_bands\n");
}

TEST(TilesTest, TakesAsLongAsTheClockSays) {
  waymark::testing::MemoryDestination memory;
  waymark::testing::ManualClock clock;
  waymark::Config config = waymark::testing::memory_config(memory);
  config.clock = clock.function();
  waymark::Telemetry telemetry(config);

  {
    auto span = telemetry.tracer("tiles").span("read_bands");
    clock.advance(std::chrono::milliseconds(20));
  }

  telemetry.force_flush(std::chrono::seconds(5));
  const waymark::ReadSpan span = memory.spans().at(0);
  EXPECT_EQ(span.end - span.start, std::chrono::milliseconds(20));
}

}  // namespace
