// What a measurement costs its caller (design section 7).
//
// Usage: bench_measurements [--list] [ROW...]   Attributes are two strings and an integer. A histogram is a duration's, with exemplars on and no span
// current. A run whose totals are not what was added prints no figure and fails.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <thread>

#include "row.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::Clock;
using waymark::bench::clock_read_ns;
using waymark::bench::Failed;
using waymark::bench::ns_between;
using waymark::bench::Row;

constexpr int kRepetitions = 10;
constexpr int kCalls = 2'000'000;

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

// `threads` threads call work(i) at the same time; the row is the mean of what a call cost each of them.
template <class Work>
Row row(const char* name, double limit, int threads, Work&& make) {
  Row row{name, limit};
  waymark::testing::MemoryDestination memory;
  waymark::Config config;
  config.resource = "bench";
  config.destinations.push_back(memory.destination(waymark::Signal::metrics));
  waymark::Telemetry telemetry(config);
  const auto work = make(telemetry.meter("bench"));
  for (int r = 0; r < kRepetitions; ++r) {
    const double read = clock_read_ns();
    std::atomic<int> ready{0};
    std::vector<double> ns(static_cast<std::size_t>(threads));
    const auto run = [&](std::size_t t) {
      work(0);  // the first sight of the attributes
      ++ready;
      while (ready < threads) {
      }
      const auto begin = Clock::now();
      for (int i = 1; i < kCalls; ++i) work(i);
      ns[t] = ns_between(begin, Clock::now()) / (kCalls - 1);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(run, static_cast<std::size_t>(t));
    run(0);
    for (std::thread& thread : others) thread.join();
    double all = 0;
    for (const double each : ns) all += each;
    row.values.push_back(all / threads);
    row.clock_read_ns.push_back(read);
  }
  const std::uint64_t expected = std::uint64_t{kRepetitions} * kCalls * static_cast<std::uint64_t>(threads);
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
