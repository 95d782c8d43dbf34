// Waymark, doing the work of tests/bench/peers/README.md: everything is delivered (`lossy = false`), the state directory is
// in the working directory.
//
// Usage: peer_waymark URL WORK COUNT RATE   WORK: spans spans.grpc spans.json counter log leave recover. `leave` says
// "recorded" with the spans still in its journal, and is killed then; `recover` records nothing, and delivers what that left
// in the same working directory. A run whose accounts do not add up, or with a record that was not delivered, fails.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "peers/work.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::Work;

[[noreturn]] void fail(const waymark::Counts& c) {
  std::fprintf(stderr, "peer_waymark: %llu offered, %llu delivered, %llu rejected, %llu dropped, %llu filtered, %llu pending\n",
               static_cast<unsigned long long>(c.offered), static_cast<unsigned long long>(c.delivered),
               static_cast<unsigned long long>(c.rejected), static_cast<unsigned long long>(c.dropped),
               static_cast<unsigned long long>(c.filtered), static_cast<unsigned long long>(c.pending));
  std::_Exit(1);
}

waymark::Config config(const Work& work, waymark::Signal signal) {
  waymark::Config config;
  config.resource = "bench";
  config.state_directory = (std::filesystem::current_path() / "state").string();
  config.recover_siblings = work.name == "recover";
  config.diagnostics = waymark::DiagnosticLevel::error;
  waymark::DestinationConfig sink;
  sink.name = "sink";
  sink.signal = signal;
  sink.url = work.url;
  sink.lossy = false;
  if (work.name == "spans.json") sink.protocol = waymark::Protocol::http_json;
  if (work.name == "spans.grpc") {
    sink.protocol = waymark::Protocol::grpc;
    sink.url = work.url.substr(0, work.url.rfind("/v1/"));
  }
  if (work.name == "leave" || work.name == "recover") config.journal.max_bytes = std::size_t{4} << 30;
  config.destinations.push_back(std::move(sink));
  return config;
}

void spans(const Work& work) {
  waymark::Telemetry telemetry(config(work, waymark::Signal::traces));
  const waymark::Tracer tracer = telemetry.tracer("bench");
  const std::string scene = waymark::bench::kScene;
  work.perform(
      [&](std::int64_t i) {
        auto span = tracer.span("read_bands", {{"scene", scene}, {"band", waymark::bench::kBand}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
      },
      [&] {
        if (work.name == "leave") return;
        telemetry.force_flush(std::chrono::minutes(5));
        const waymark::Counts c = telemetry.stats().destinations.at(0).counts;
        if (c.offered != c.delivered + c.rejected + c.dropped + c.filtered + c.pending) fail(c);
        if (c.offered != c.delivered || c.offered != work.count) fail(c);
        telemetry.shutdown(std::chrono::seconds(10));
      });
}

// Starts when it is told to, so that opening the directory is part of the time.
void recover(const Work& work) {
  work.perform(nullptr, [&] {
    waymark::Telemetry telemetry(config(work, waymark::Signal::traces));
    telemetry.recover();
    telemetry.force_flush(std::chrono::minutes(5));
    telemetry.shutdown(std::chrono::minutes(1));
  });
}

void counter(const Work& work) {
  waymark::Telemetry telemetry(config(work, waymark::Signal::metrics));
  const waymark::Counter counter = telemetry.meter("bench").counter("c");
  work.perform(
      [&](std::int64_t i) { counter.add(1, {{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", i & 3}}); },
      [] {});
}

void log(const Work& work) {
  waymark::Telemetry telemetry(config(work, waymark::Signal::logs));
  const waymark::Logger logger = telemetry.logger("bench");
  work.perform([&](std::int64_t i) { logger.info("tile read", {{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"index", i}}); },
               [&] { telemetry.force_flush(std::chrono::minutes(5)); });
}

}  // namespace

int main(int argc, char** argv) {
  const Work work(argc, argv);
  if (work.name == "counter") counter(work);
  else if (work.name == "log") log(work);
  else if (work.name == "recover") recover(work);
  else spans(work);
  return 0;
}
