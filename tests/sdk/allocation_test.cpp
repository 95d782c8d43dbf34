// Recording takes nothing from the heap once a thread is warm.
#include <gtest/gtest.h>

#include "sdk/recorded.h"
#include "support/allocations.h"

namespace waymark {
namespace {

using testing::allocations;
using testing::Recorded;

constexpr int kWarm = 100;
constexpr int kCounted = 1000;

// What `record` allocates in kCounted calls, after kWarm that may.
template <class F>
std::uint64_t allocated_by(F record) {
  for (int i = 0; i < kWarm; ++i) record(i);
  const std::uint64_t before = allocations;
  for (int i = 0; i < kCounted; ++i) record(i);
  return allocations - before;
}

TEST(AllocationTest, TheCountCounts) {
  const auto allocated = allocated_by([](int i) {
    int* made = new int(i);
    asm volatile("" : : "r"(made) : "memory");  // or the compiler leaves both out
    delete made;
  });
  EXPECT_EQ(allocated, static_cast<std::uint64_t>(kCounted));
}

TEST(AllocationTest, ASpanWithFiveAttributesAllocatesNothing) {
  Recorded recorded;
  const Tracer tracer = recorded.tracer();
  const auto allocated = allocated_by([&](int i) {
    auto span = tracer.span("read_bands", {{"bands", 4}, {"index", i}});
    span.set("scene", "S2A_MSIL2A_20261121T101531").set("cloudy", i % 2 == 0).set("share", 0.25);
  });
  EXPECT_EQ(allocated, 0u);
  EXPECT_EQ(recorded.telemetry().stats().spans, static_cast<std::uint64_t>(kWarm + kCounted));
}

TEST(AllocationTest, ASpanWithinASpanAllocatesNothing) {
  Recorded recorded;
  const Tracer tracer = recorded.tracer();
  const auto allocated = allocated_by([&](int i) {
    auto outer = tracer.span("tile");
    auto inner = tracer.span(
        "read_bands", {{"bands", 4}, {"index", i}, {"scene", "S2A"}, {"cloudy", true}, {"share", 0.25}});
    inner.event("opened", {{"path", "B04.jp2"}}).status(StatusCode::error, "half of it is missing");
  });
  EXPECT_EQ(allocated, 0u);
}

TEST(AllocationTest, ALogRecordWithThreeAttributesAllocatesNothing) {
  Recorded recorded;
  const Logger logger = recorded.logger();
  const auto allocated = allocated_by([&](int i) {
    logger.info("tile read", {{"index", i}, {"scene", "S2A_MSIL2A_20261121T101531"}, {"share", 0.25}});
  });
  EXPECT_EQ(allocated, 0u);
  EXPECT_EQ(recorded.telemetry().stats().log_records, static_cast<std::uint64_t>(kWarm + kCounted));
}

TEST(AllocationTest, AMeasurementAllocatesNothingAfterTheFirstSightOfItsAttributes) {
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.destinations.push_back(memory.destination(Signal::metrics));
  Telemetry telemetry(std::move(config));
  const Meter meter = telemetry.meter("test");
  const auto counter = meter.counter("c");
  const auto bound = counter.bind({{"scene", "S2A"}});
  const auto sizes = meter.histogram("h", {.unit = "By"});
  const auto time = meter.histogram("d", {.unit = "s"});
  const auto gauge = meter.gauge("g");
  auto span = telemetry.tracer("test").span("so that there are exemplars");
  const auto allocated = allocated_by([&](int i) {
    counter.add(1, {{"index", i % 10}, {"scene", "S2A_MSIL2A_20261121T101531"}, {"share", 0.25}});
    bound.add(1);
    sizes.record(i, {{"index", i % 10}, {"scene", "S2A_MSIL2A_20261121T101531"}, {"share", 0.25}});
    time.record(i / 7.0, {{"index", i % 10}, {"scene", "S2A_MSIL2A_20261121T101531"}, {"share", 0.25}});
    gauge.record(i, {{"index", i % 10}});
  });
  EXPECT_EQ(allocated, 0u);
}

}  // namespace
}  // namespace waymark
