// What a span with five attributes costs its caller (design section 7, the first three rows).
//
// Usage: bench_spans [--json] [ROW...]   rows: span.5attr span.5attr.flat span.5attr.lossless; all by default.
// A limit is in clock reads: the cost of one clock_gettime(CLOCK_REALTIME), measured between the repetitions of the same
// run. Delivery is what the sink, another process, decoded. A run in which offered = delivered + rejected + dropped +
// filtered + pending does not hold prints no figure and fails.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "row.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::Clock;
using waymark::bench::clock_read_ns;
using waymark::bench::ns_between;
using waymark::bench::Row;

// The sink, and what it decoded.
class Sink {
 public:
  Sink() {
    int in[2];
    int out[2];
    if (pipe(in) != 0 || pipe(out) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
      execl(WAYMARK_BENCH_SINK, WAYMARK_BENCH_SINK, static_cast<char*>(nullptr));
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = fdopen(out[0], "r");
    if (out_ == nullptr || std::fscanf(out_, "port %d", &port_) != 1) std::abort();
  }
  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1/traces"; }
  // Ends it. Distinct spans.
  std::uint64_t finish() {
    close(in_);
    unsigned long long distinct = 0;
    unsigned long long spans = 0;
    if (std::fscanf(out_, " requests %*u bytes %*u spans %llu distinct %llu", &spans, &distinct) != 2) distinct = 0;
    std::fclose(out_);
    waitpid(pid_, nullptr, 0);
    return distinct;
  }

 private:
  pid_t pid_ = 0;
  int in_ = -1;
  std::FILE* out_ = nullptr;
  int port_ = 0;
};

struct Workload {
  waymark::Tracer tracer;
  std::string scene = "S2A_MSIL1C_20260101T100031_N0500_R02";  // 36 bytes
  void operator()(std::int64_t i) const {
    auto span = tracer.span("read_bands", {{"scene", scene}, {"band", "B02_10m_jp2_"}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
  }
};

waymark::Config config(const std::string& state) {
  waymark::Config c;
  c.resource = "bench";
  c.state_directory = state;
  c.recover_siblings = false;
  return c;
}

// The identity of accounts, or the end of the program.
waymark::Counts checked(const waymark::Stats& stats, const char* row) {
  const waymark::Counts& c = stats.destinations.at(0).counts;
  if (c.offered != c.delivered + c.rejected + c.dropped + c.filtered + c.pending) {
    std::fprintf(stderr, "%s: the accounts do not add up: %" PRIu64 " offered, %" PRIu64 " delivered, %" PRIu64 " rejected, %" PRIu64
                         " dropped, %" PRIu64 " filtered, %" PRIu64 " pending\n",
                 row, c.offered, c.delivered, c.rejected, c.dropped, c.filtered, c.pending);
    std::exit(1);
  }
  return c;
}

// Bursts of 1,000 spans a millisecond for ten seconds to a live sink, nothing lost.
Row bursts(const std::string& state) {
  Row row{"span.5attr", 5, {}, {}, {}};
  Sink sink;
  waymark::Config c = config(state);
  waymark::DestinationConfig d;
  d.name = "sink";
  d.url = sink.url();
  c.destinations.push_back(d);
  std::uint64_t recorded = 0;
  {
    waymark::Telemetry telemetry(c);
    const Workload work{telemetry.tracer("bench")};
    constexpr int kRepetitions = 10;
    timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int r = 0; r < kRepetitions; ++r) {
      const double read = clock_read_ns();
      clock_gettime(CLOCK_MONOTONIC, &next);
      double ns = 0;
      constexpr int kBursts = 1000;
      for (int b = 0; b < kBursts; ++b) {
        next.tv_nsec += 1'000'000;
        if (next.tv_nsec >= 1'000'000'000) {
          next.tv_nsec -= 1'000'000'000;
          ++next.tv_sec;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, nullptr);
        const auto begin = Clock::now();
        for (int i = 0; i < 1000; ++i) work(i);
        ns += ns_between(begin, Clock::now());
      }
      recorded += kBursts * 1000;
      row.ns.push_back(ns / (kBursts * 1000.0));
      row.cr.push_back(row.ns.back() / read);
    }
    telemetry.force_flush(std::chrono::seconds(60));
    const waymark::Counts counts = checked(telemetry.stats(), "span.5attr");
    telemetry.shutdown(std::chrono::seconds(10));
    row.remark = std::to_string(counts.dropped) + " dropped";
  }
  const std::uint64_t seen = sink.finish();
  row.remark += ", " + std::to_string(seen) + " of " + std::to_string(recorded) + " at the sink";
  return row;
}

Row flat_out(const std::string& state, bool lossless) {
  Row row{lossless ? "span.5attr.lossless" : "span.5attr.flat", lossless ? 9.0 : 6.0, {}, {}, {}};
  waymark::Config c = config(state);
  waymark::DestinationConfig d;
  d.name = "discard";
  d.output = waymark::Output::callback;
  d.lossy = !lossless;
  std::uint64_t bytes = 0;
  d.deliver = [&bytes](waymark::Signal, std::string_view request) {
    bytes += request.size();
    return waymark::DeliveryResult{};
  };
  c.destinations.push_back(d);
  waymark::Telemetry telemetry(c);
  const Workload work{telemetry.tracer("bench")};
  constexpr int kRepetitions = 10;
  constexpr int kSpans = 1'000'000;
  for (int r = 0; r < kRepetitions; ++r) {
    const double read = clock_read_ns();
    const auto begin = Clock::now();
    for (int i = 0; i < kSpans; ++i) work(i);
    row.ns.push_back(ns_between(begin, Clock::now()) / kSpans);
    row.cr.push_back(row.ns.back() / read);
  }
  telemetry.force_flush(std::chrono::seconds(60));
  const waymark::Counts counts = checked(telemetry.stats(), row.name.c_str());
  row.remark = std::to_string(counts.dropped) + " dropped, " + std::to_string(counts.delivered) + " delivered";
  telemetry.shutdown(std::chrono::seconds(10));
  return row;
}

}  // namespace

int main(int argc, char** argv) {
  const waymark::bench::Report report(argc, argv);
  char directory[] = "/tmp/waymark-bench-XXXXXX";
  if (mkdtemp(directory) == nullptr) {
    std::perror("bench_spans: /tmp");
    return 1;
  }
  if (report.asked("span.5attr")) report.print(bursts(std::string(directory) + "/a"));
  if (report.asked("span.5attr.flat")) report.print(flat_out(std::string(directory) + "/b", false));
  if (report.asked("span.5attr.lossless")) report.print(flat_out(std::string(directory) + "/c", true));
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return 0;
}
