// What a measurement costs its caller (design section 7).
//
// Usage: bench_measurements [--list] [ROW...]   Attributes are two strings and an integer. A histogram is a duration's, with exemplars on and no span
// current. A run whose totals are not what was added prints no figure and fails.
#include <cstdint>

#include "micro.h"
#include "row.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::Failed;
using waymark::bench::micro;
using waymark::bench::Row;

// The sum or count of all that was collected last.
std::uint64_t collected(waymark::Telemetry& telemetry, waymark::testing::MemoryDestination& memory) {
  telemetry.force_flush(std::chrono::seconds(60));
  std::uint64_t all = 0;
  for (const waymark::ReadMetric& metric : memory.metrics()) {
    for (const waymark::ReadPoint& point : metric.points) {
      all += metric.kind == waymark::ReadMetric::Kind::sum ? static_cast<std::uint64_t>(std::get<std::int64_t>(point.value)) : point.count;
    }
  }
  return all;
}

// What a call costs each of `threads` threads that make it at the same time.
template <class Make>
Row row(const char* name, double limit, int threads, Make&& make) {
  Row row{name, limit};
  waymark::testing::MemoryDestination memory;
  waymark::Config config;
  config.resource = "bench";
  config.destinations.push_back(memory.destination(waymark::Signal::metrics));
  waymark::Telemetry telemetry(config);
  const auto work = make(telemetry.meter("bench"));
  const std::uint64_t expected = micro(row, threads, work);
  const std::uint64_t found = collected(telemetry, memory);
  if (found != expected) throw Failed(std::to_string(found) + " were collected of " + std::to_string(expected));
  row.remark = "all counted";
  return row;
}

auto counter(const waymark::Meter& meter) {
  return [c = meter.counter("c")](std::int64_t i) {
    c.add(1, {{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", i & 3}});
  };
}

}  // namespace

int main(int argc, char** argv) {
  using waymark::Meter;
  const auto bound = [](const Meter& meter) {
    return [b = meter.counter("c").bind({{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", 1}})](
               std::int64_t) { b.add(1); };
  };
  const auto histogram = [](const Meter& meter) {
    return [h = meter.histogram("h", {.unit = "s"})](std::int64_t i) {
      h.record(0.001 * static_cast<double>(i & 1023),
               {{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", i & 3}});
    };
  };
  return waymark::bench::run(argc, argv, {
      {{"counter.3attr"}, [&] { return std::vector{row("counter.3attr", 2, 1, counter)}; }},
      {{"counter.3attr.2threads"}, [&] { return std::vector{row("counter.3attr.2threads", 3, 2, counter)}; }},
      {{"counter.bound"}, [&] { return std::vector{row("counter.bound", 0.4, 1, bound)}; }},
      {{"histogram.3attr"}, [&] { return std::vector{row("histogram.3attr", 2, 1, histogram)}; }},
  });
}
