// What a span costs its caller (design section 7): bursts of a million a second, flat out, beside a busy disk, and where
// nothing is recorded. Five attributes are two strings and three integers.
//
// Usage: bench_spans [--list] [ROW...]
// A limit is in clock reads: the cost of one clock_gettime(CLOCK_REALTIME), measured between the repetitions of the same
// run. Delivery is what the sink, another process, decoded. A run in which offered = delivered + rejected + dropped +
// filtered + pending does not hold prints no figure and fails.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "load.h"
#include "micro.h"
#include "row.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::bursts;
using waymark::bench::checked;
using waymark::bench::Clock;
using waymark::bench::clock_read_ns;
using waymark::bench::config;
using waymark::bench::Directory;
using waymark::bench::discarding;
using waymark::bench::Failed;
using waymark::bench::micro;
using waymark::bench::none_lost;
using waymark::bench::ns_between;
using waymark::bench::Row;
using waymark::bench::Ticks;
using waymark::bench::to;
using waymark::bench::Workload;

class Sink : public waymark::bench::Sink {
 public:
  Sink() : waymark::bench::Sink(WAYMARK_BENCH_SINK) {}
};

struct WithEvent : Workload {
  void operator()(std::int64_t i) const {
    auto span = tracer.span("read_bands", {{"scene", scene}, {"band", "B02_10m_jp2_"}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
    span.event("tile read", {{"index", i}});
  }
};

struct WithoutAttributes : Workload {
  void operator()(std::int64_t) const { auto span = tracer.span("read_bands"); }
};

struct Nested : Workload {
  void operator()(std::int64_t i) const { down(i, 5); }
  void down(std::int64_t i, int depth) const {
    auto span = tracer.span("read_bands", {{"scene", scene}, {"band", "B02_10m_jp2_"}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
    if (depth > 1) down(i, depth - 1);
  }
};

// A process that writes to a file in `directory` as fast as the disk takes it, over and over, and waits for the disk each
// time, until it is destroyed.
class DiskWriter {
 public:
  explicit DiskWriter(const std::string& directory) {
    pid_ = fork();
    if (pid_ != 0) return;
    constexpr std::size_t kPiece = 4 << 20;
    constexpr off_t kFile = 512 << 20;
    const std::string path = directory + "/saturating";
    const std::vector<char> piece(kPiece, 'x');
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (off_t at = 0;; at = (at + static_cast<off_t>(kPiece)) % kFile) {
      if (pwrite(file, piece.data(), kPiece, at) < 0 || fdatasync(file) != 0) _exit(1);
    }
  }
  ~DiskWriter() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  DiskWriter(const DiskWriter&) = delete;
  DiskWriter& operator=(const DiskWriter&) = delete;
  [[nodiscard]] bool running() const { return waitpid(pid_, nullptr, WNOHANG) == 0; }

 private:
  pid_t pid_ = 0;
};

// The worst of ten million spans beside a disk that is busy, beyond what a loop sees that does nothing at the same times.
Row beside_a_disk_writer(const std::string& state) {
  Row row{"span.worst_ms.disk", 5, "ms"};
  std::filesystem::create_directories(state);
  Sink sink;
  std::optional<DiskWriter> writer(std::in_place, std::filesystem::path(state).parent_path().string());
  std::uint64_t recorded = 0;
  double worst_empty = 0;
  double worst_span = 0;
  {
    waymark::Telemetry telemetry(to(sink, state));
    const Workload work{telemetry.tracer("bench")};
    constexpr int kRepetitions = 10;
    constexpr int kBursts = 1000;
    for (int r = 0; r < kRepetitions; ++r) {
      double span_ns = 0;
      Ticks paced;
      for (int b = 0; b < kBursts; ++b) {
        paced.wait();
        auto last = Clock::now();
        const auto begin = last;
        for (int i = 0; i < 1000; ++i) {
          work(i);
          const auto now = Clock::now();
          span_ns = std::max(span_ns, ns_between(last, now));
          last = now;
        }
        // As long as the burst was, in the same millisecond.
        const auto half = last + (last - begin);
        while (last < half) {
          const auto now = Clock::now();
          worst_empty = std::max(worst_empty, ns_between(last, now));
          last = now;
        }
      }
      recorded += kBursts * 1000;
      worst_span = std::max(worst_span, span_ns);
    }
    telemetry.force_flush(std::chrono::seconds(60));
    static_cast<void>(checked(telemetry.stats()));
    telemetry.shutdown(std::chrono::seconds(10));
  }
  if (!writer->running()) throw Failed("the writer beside it has failed");
  writer.reset();  // it holds the sink's input open, too
  char worst[96];
  std::snprintf(worst, sizeof worst, " at the sink; worst span %.2f ms, empty loop %.2f ms", worst_span / 1e6, worst_empty / 1e6);
  row.remark = std::to_string(recorded) + worst;
  // Of all repetitions together: the limit is for the worst of them.
  row.values.assign(1, std::max(0.0, worst_span - worst_empty) / 1e6);
  none_lost(row, recorded, sink.finish());
  return row;
}

// Bursts of 1,000 spans a millisecond for ten seconds to a live sink, nothing lost.
template <class Work>
Row paced(Row row, const std::string& state, int threads = 1, int spans_a_call = 1) {
  Sink sink;
  std::uint64_t recorded = 0;
  {
    waymark::Telemetry telemetry(to(sink, state));
    const Work work{telemetry.tracer("bench")};
    recorded = bursts(row, threads, spans_a_call, [&](int calls) {
      for (int i = 0; i < calls; ++i) work(i);
    });
    telemetry.force_flush(std::chrono::seconds(60));
    static_cast<void>(checked(telemetry.stats()));
    telemetry.shutdown(std::chrono::seconds(10));
  }
  none_lost(row, recorded, sink.finish());
  row.remark = std::to_string(recorded) + " at the sink";
  return row;
}

// Spans that are not recorded: nothing may be offered.
Row not_recorded(Row row, const std::string& state, bool sampled_out) {
  waymark::Config c = config(state);
  c.sampler.kind = waymark::SamplerKind::always_off;
  c.destinations.push_back(discarding());
  waymark::Telemetry telemetry(c);
  if (!sampled_out) telemetry.shutdown(std::chrono::seconds(10));
  const Workload work{telemetry.tracer("bench")};
  micro(row, 1, work);
  const waymark::Counts counts = checked(telemetry.stats());
  if (counts.offered != 0) throw Failed(std::to_string(counts.offered) + " spans were recorded");
  return row;
}

Row flat_out(const std::string& state, bool lossless) {
  Row row{lossless ? "span.5attr.lossless" : "span.5attr.flat", lossless ? 9.0 : 6.0};
  waymark::Config c = config(state);
  std::uint64_t bytes = 0;
  waymark::DestinationConfig d = waymark::bench::calling([&bytes](waymark::Signal, std::string_view request) {
    bytes += request.size();
    return waymark::DeliveryResult{};
  });
  d.lossy = !lossless;
  c.destinations.push_back(d);
  waymark::Telemetry telemetry(c);
  const Workload work{telemetry.tracer("bench")};
  constexpr int kRepetitions = 10;
  constexpr int kSpans = 1'000'000;
  for (int r = 0; r < kRepetitions; ++r) {
    const double read = clock_read_ns();
    const auto begin = Clock::now();
    for (int i = 0; i < kSpans; ++i) work(i);
    row.values.push_back(ns_between(begin, Clock::now()) / kSpans);
    row.clock_read_ns.push_back(read);
  }
  telemetry.force_flush(std::chrono::seconds(60));
  const waymark::Counts counts = checked(telemetry.stats());
  row.remark = std::to_string(counts.dropped) + " dropped, " + std::to_string(counts.delivered) + " delivered";
  telemetry.shutdown(std::chrono::seconds(10));
  return row;
}

}  // namespace

int main(int argc, char** argv) {
  const Directory directory("/tmp");
  const std::string& state = directory.path();
  return waymark::bench::run(argc, argv, {
      {{"span.5attr"}, [&] { return std::vector{paced<Workload>({"span.5attr", 5}, state + "/a")}; }},
      {{"span.5attr.event"}, [&] { return std::vector{paced<WithEvent>({"span.5attr.event", 7}, state + "/e")}; }},
      {{"span.0attr"}, [&] { return std::vector{paced<WithoutAttributes>({"span.0attr"}, state + "/0")}; }},
      {{"span.5attr.2threads"}, [&] { return std::vector{paced<Workload>({"span.5attr.2threads"}, state + "/2", 2)}; }},
      {{"span.nested5"}, [&] { return std::vector{paced<Nested>({"span.nested5"}, state + "/n", 1, 5)}; }},
      {{"span.disabled"}, [&] { return std::vector{not_recorded({"span.disabled", 0.1}, state + "/o", false)}; }},
      {{"span.sampled_out"}, [&] { return std::vector{not_recorded({"span.sampled_out", 0.3}, state + "/s", true)}; }},
      {{"span.5attr.flat"}, [&] { return std::vector{flat_out(state + "/b", false)}; }},
      {{"span.5attr.lossless"}, [&] { return std::vector{flat_out(state + "/c", true)}; }},
      {{"span.worst_ms.disk"}, [&] { return std::vector{beside_a_disk_writer(state + "/d")}; }},
  });
}
