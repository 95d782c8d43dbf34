// The examples of docs/metrics.md.
#include <gtest/gtest.h>

#include <deque>
#include <iterator>
#include <string>

#include "docs/recorded.h"

namespace waymark::docs {
namespace {

[[maybe_unused]] void start() {
  waymark::configure_otel_metrics({.service = "sentinel-2-runner", .endpoint = "http://localhost:4318"});
}

TEST(MetricsPage, InstrumentsOfEveryKind) {
  testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.destinations.push_back(memory.destination(Signal::metrics));
  Telemetry telemetry(std::move(config));
  const std::deque<std::string> waiting(3);

  const waymark::Meter meter = telemetry.meter("ingest", "1.0");
  const auto scenes = meter.counter("scenes.read", {.unit = "{scene}", .description = "Scenes read"});
  const auto sizes = meter.histogram<std::int64_t>("scene.size", {.unit = "By", .boundaries = {1e6, 1e8, 1e9}});
  const auto time = meter.histogram("scene.read.duration", {.unit = "s"});
  const auto open = meter.up_down_counter("scenes.open");
  const auto cloud = meter.gauge("cloud.cover", {.unit = "1"});

  scenes.add(1, {{"satellite", "S2A"}, {"level", 2}});
  sizes.record(734'003'200, {{"satellite", "S2A"}});
  time.record(0.25);
  open.add(1);
  open.add(-1);
  cloud.record(0.4);

  const auto s2a = scenes.bind({{"satellite", "S2A"}});
  for (int i = 0; i < 1000; ++i) s2a.add(1);

  const auto queue = meter.observable_gauge<std::int64_t>("queue.length");
  const waymark::CallbackRegistration registration = queue.add_callback(
      [&](const waymark::Observer<std::int64_t>& observer) { observer.observe(std::ssize(waiting), {{"queue", "scenes"}}); });

  ASSERT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
  const auto metrics = memory.metrics();
  ASSERT_EQ(metrics.size(), 6u);
  EXPECT_EQ(metrics[0].points.size(), 2u);
  EXPECT_EQ(std::get<std::int64_t>(metrics[5].points.at(0).value), 3);
}

TEST(MetricsPage, ViewsInCode) {
  waymark::MetricsOptions options;
  options.views.push_back({.select = {.name = "scene.read.duration"},
                           .attribute_keys = {{"satellite"}},
                           .aggregation = waymark::Aggregation::explicit_histogram,
                           .boundaries = {0.1, 1, 10}});
  options.views.push_back({.select = {.name = "process.*"}, .aggregation = waymark::Aggregation::drop});
  EXPECT_EQ(options.views.size(), 2u);
}

}  // namespace
}  // namespace waymark::docs
