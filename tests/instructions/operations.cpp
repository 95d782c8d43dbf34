// Runs one operation of the recording side many times, for callgrind: tests/instructions/check.py counts the instructions
// between entering and leaving operation_...().
//
// Usage: operations NAME COUNT | --list
// The clock is a manual one, so that the count does not depend on what the machine keeps time by. The destination discards.
// WAYMARK_PLANTED_RISE in the environment makes every operation dearer, to see the check fail.
#include <spdlog/logger.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "waymark/spdlog_sink.h"
#include "waymark/waymark.h"

namespace {

struct Instruments {
  explicit Instruments(waymark::Telemetry& telemetry)
      : tracer(telemetry.tracer("instructions")),
        logger(telemetry.logger("instructions")),
        counter(telemetry.meter("instructions").counter("c")),
        bound(counter.bind({{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", 1}})),
        histogram(telemetry.meter("instructions").histogram("h", {.unit = "s"})),
        spdlogger("instructions", waymark::spdlog_sink(telemetry)) {}
  waymark::Tracer tracer;
  waymark::Tracer off;
  waymark::Logger logger;
  waymark::Counter<std::int64_t> counter;
  waymark::BoundAdder<std::int64_t> bound;
  waymark::Histogram<double> histogram;
  spdlog::logger spdlogger;
  std::string scene = "S2A_MSIL1C_20260101T100031_N0500_R02";
};

[[gnu::noinline]] void planted_rise() {
  for (int i = 0; i < 100; ++i) asm volatile("");
}
const bool planted = std::getenv("WAYMARK_PLANTED_RISE") != nullptr;

void read_bands(const waymark::Tracer& tracer, const Instruments& to, std::int64_t i) {
  auto span = tracer.span("read_bands", {{"scene", to.scene}, {"band", "B02_10m_jp2_"}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
  if (planted) planted_rise();
}

}  // namespace

// Named for callgrind, which counts from their first instruction to their last.
extern "C" {
[[gnu::noinline]] void operation_span_5attr(Instruments& to, std::int64_t i) { read_bands(to.tracer, to, i); }
[[gnu::noinline]] void operation_span_0attr(Instruments& to, std::int64_t) {
  auto span = to.tracer.span("read_bands");
  if (planted) planted_rise();
}
[[gnu::noinline]] void operation_span_set(Instruments& to, std::int64_t i) {
  auto span = to.tracer.span("read_bands");
  span.set("index", i).set("scene", to.scene);
  if (planted) planted_rise();
}
[[gnu::noinline]] void operation_span_event(Instruments& to, std::int64_t i) {
  auto span = to.tracer.span("read_bands");
  span.event("tile read", {{"index", i}});
  if (planted) planted_rise();
}
[[gnu::noinline]] void operation_span_disabled(Instruments& to, std::int64_t i) { read_bands(to.off, to, i); }
[[gnu::noinline]] void operation_log_3attr(Instruments& to, std::int64_t i) {
  to.logger.info("tile read", {{"scene", to.scene}, {"band", "B02_10m_jp2_"}, {"index", i}});
  if (planted) planted_rise();
}
[[gnu::noinline]] void operation_log_spdlog(Instruments& to, std::int64_t i) {
  to.spdlogger.info("tile {} read", i);
  if (planted) planted_rise();
}
[[gnu::noinline]] void operation_counter_3attr(Instruments& to, std::int64_t i) {
  to.counter.add(1, {{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", i & 3}});
  if (planted) planted_rise();
}
[[gnu::noinline]] void operation_counter_bound(Instruments& to, std::int64_t) {
  to.bound.add(1);
  if (planted) planted_rise();
}
[[gnu::noinline]] void operation_histogram_3attr(Instruments& to, std::int64_t i) {
  to.histogram.record(0.001 * static_cast<double>(i & 1023),
                      {{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", i & 3}});
  if (planted) planted_rise();
}
}

namespace {

const std::vector<std::pair<const char*, void (*)(Instruments&, std::int64_t)>> operations = {
    {"span_5attr", operation_span_5attr},       {"span_0attr", operation_span_0attr},
    {"span_set", operation_span_set},           {"span_event", operation_span_event},
    {"span_disabled", operation_span_disabled}, {"log_3attr", operation_log_3attr},
    {"log_spdlog", operation_log_spdlog},       {"counter_3attr", operation_counter_3attr},
    {"counter_bound", operation_counter_bound}, {"histogram_3attr", operation_histogram_3attr},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const auto& [name, operation] : operations) std::printf("%s\n", name);
    return 0;
  }
  waymark::Config config;
  config.resource = "instructions";
  config.clock = [now = waymark::Timestamp(std::chrono::hours(24 * 365 * 56))]() mutable { return now += std::chrono::nanoseconds(100); };
  for (const waymark::Signal signal : {waymark::Signal::traces, waymark::Signal::logs, waymark::Signal::metrics}) {
    waymark::DestinationConfig discard;
    discard.name = "discard";
    discard.signal = signal;
    discard.output = waymark::Output::callback;
    discard.deliver = [](waymark::Signal, std::string_view) { return waymark::DeliveryResult{}; };
    config.destinations.push_back(discard);
  }
  waymark::Telemetry telemetry(config);
  Instruments to(telemetry);
  for (const auto& [name, operation] : operations) {
    if (argc != 3 || std::strcmp(argv[1], name) != 0) continue;
    const int count = std::atoi(argv[2]);
    for (int i = 0; i < count; ++i) operation(to, i);
    return 0;
  }
  std::fprintf(stderr, "operations: expected the name of an operation (--list tells them) and how often\n");
  return 2;
}
