// What a span with five attributes costs its caller (design section 7, the first three rows).
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
#include <string>
#include <thread>
#include <vector>

#include "row.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::Clock;
using waymark::bench::clock_read_ns;
using waymark::bench::Failed;
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

// The accounts, which have to add up.
waymark::Counts checked(const waymark::Stats& stats) {
  const waymark::Counts& c = stats.destinations.at(0).counts;
  if (c.offered != c.delivered + c.rejected + c.dropped + c.filtered + c.pending) {
    throw Failed("the accounts do not add up: " + std::to_string(c.offered) + " offered, " + std::to_string(c.delivered) + " delivered, " +
                 std::to_string(c.rejected) + " rejected, " + std::to_string(c.dropped) + " dropped, " + std::to_string(c.filtered) +
                 " filtered, " + std::to_string(c.pending) + " pending");
  }
  return c;
}

waymark::Config to(const Sink& sink, const std::string& state) {
  waymark::Config c = config(state);
  waymark::DestinationConfig d;
  d.name = "sink";
  d.url = sink.url();
  c.destinations.push_back(d);
  return c;
}

// Rows that stand for spans of which none was lost have no figure where some were.
void none_lost(const Row& row, std::uint64_t recorded, std::uint64_t seen) {
  if (seen == recorded) return;
  throw Failed(std::to_string(seen) + " of " + std::to_string(recorded) + " at the sink; the median of " +
               std::to_string(waymark::bench::median(row.values)) + " " + row.unit + " does not count");
}

// Sleeps until the next millisecond begins, by a clock of its own.
class Milliseconds {
 public:
  Milliseconds() { clock_gettime(CLOCK_MONOTONIC, &next_); }
  void wait() {
    next_.tv_nsec += 1'000'000;
    if (next_.tv_nsec >= 1'000'000'000) {
      next_.tv_nsec -= 1'000'000'000;
      ++next_.tv_sec;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next_, nullptr);
  }

 private:
  timespec next_;
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
  const DiskWriter writer(std::filesystem::path(state).parent_path().string());
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
      Milliseconds paced;
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
  if (!writer.running()) throw Failed("the writer beside it has failed");
  char worst[96];
  std::snprintf(worst, sizeof worst, " at the sink; worst span %.2f ms, empty loop %.2f ms", worst_span / 1e6, worst_empty / 1e6);
  row.remark = std::to_string(recorded) + worst;
  // Of all repetitions together: the limit is for the worst of them.
  row.values.assign(1, std::max(0.0, worst_span - worst_empty) / 1e6);
  none_lost(row, recorded, sink.finish());
  return row;
}

// Bursts of 1,000 spans a millisecond for ten seconds to a live sink, nothing lost.
Row bursts(const std::string& state) {
  Row row{"span.5attr", 5};
  Sink sink;
  const waymark::Config c = to(sink, state);
  std::uint64_t recorded = 0;
  {
    waymark::Telemetry telemetry(c);
    const Workload work{telemetry.tracer("bench")};
    constexpr int kRepetitions = 10;
    for (int r = 0; r < kRepetitions; ++r) {
      const double read = clock_read_ns();
      Milliseconds paced;
      double ns = 0;
      constexpr int kBursts = 1000;
      for (int b = 0; b < kBursts; ++b) {
        paced.wait();
        const auto begin = Clock::now();
        for (int i = 0; i < 1000; ++i) work(i);
        ns += ns_between(begin, Clock::now());
      }
      recorded += kBursts * 1000;
      row.values.push_back(ns / (kBursts * 1000.0));
      row.clock_read_ns.push_back(read);
    }
    telemetry.force_flush(std::chrono::seconds(60));
    static_cast<void>(checked(telemetry.stats()));
    telemetry.shutdown(std::chrono::seconds(10));
  }
  none_lost(row, recorded, sink.finish());
  row.remark = std::to_string(recorded) + " at the sink";
  return row;
}

Row flat_out(const std::string& state, bool lossless) {
  Row row{lossless ? "span.5attr.lossless" : "span.5attr.flat", lossless ? 9.0 : 6.0};
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
  char directory[] = "/tmp/waymark-bench-XXXXXX";
  if (mkdtemp(directory) == nullptr) {
    std::perror("bench_spans: /tmp");
    return 1;
  }
  const std::string state(directory);
  const int status = waymark::bench::run(argc, argv, {
      {{"span.5attr"}, [&] { return std::vector{bursts(state + "/a")}; }},
      {{"span.5attr.flat"}, [&] { return std::vector{flat_out(state + "/b", false)}; }},
      {{"span.5attr.lossless"}, [&] { return std::vector{flat_out(state + "/c", true)}; }},
      {{"span.worst_ms.disk"}, [&] { return std::vector{beside_a_disk_writer(state + "/d")}; }},
  });
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return status;
}
