// What the programs that record telemetry at a pace share: the configuration, the span, the pace, the sink, the accounts, and
// where files lie meanwhile.
//
// Hides: how the sink's process is started and asked.
// Threads: each object, one.
// Failure: throws Failed where accounts do not add up, or something was lost in a row of which nothing may be. Ends the
//   program where it can't have a directory or a sink.
#pragma once

#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "row.h"
#include "waymark/waymark.h"

namespace waymark::bench {

// An empty directory, gone with the object.
class Directory {
 public:
  explicit Directory(const std::string& parent) : path_(parent + "/waymark-bench-XXXXXX") {
    if (mkdtemp(path_.data()) != nullptr) return;
    std::perror(path_.c_str());
    std::exit(1);
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] bool on_disk() const {
    constexpr long kTmpfs = 0x01021994;
    struct statfs file_system {};
    return statfs(path_.c_str(), &file_system) == 0 && file_system.f_type != kTmpfs;
  }

 private:
  std::string path_;
};

// The sink, and what it decoded.
class Sink {
 public:
  explicit Sink(const char* program) {
    int in[2];
    int out[2];
    if (pipe(in) != 0 || pipe(out) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
      execl(program, program, static_cast<char*>(nullptr));
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = fdopen(out[0], "r");
    if (out_ == nullptr || std::fscanf(out_, "port %d", &port_) != 1) std::abort();
  }
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
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

inline Config config(const std::string& state) {
  Config c;
  c.resource = "bench";
  c.state_directory = state;
  c.recover_siblings = false;
  return c;
}

inline Config to(const Sink& sink, const std::string& state) {
  Config c = config(state);
  DestinationConfig d;
  d.name = "sink";
  d.url = sink.url();
  c.destinations.push_back(d);
  return c;
}

// A destination in this process.
inline DestinationConfig calling(std::function<DeliveryResult(Signal, std::string_view request)> deliver) {
  DestinationConfig d;
  d.name = "callback";
  d.output = Output::callback;
  d.deliver = std::move(deliver);
  return d;
}

inline DestinationConfig discarding() {
  return calling([](Signal, std::string_view) { return DeliveryResult{}; });
}

// The span that is measured: two texts and three integers.
struct Workload {
  Tracer tracer;
  std::string scene = "S2A_MSIL1C_20260101T100031_N0500_R02";  // 36 bytes
  void operator()(std::int64_t i) const {
    auto span = tracer.span("read_bands", {{"scene", scene}, {"band", "B02_10m_jp2_"}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
  }
};

// The accounts, which have to add up.
inline Counts checked(const Stats& stats) {
  const Counts& c = stats.destinations.at(0).counts;
  if (c.offered != c.delivered + c.rejected + c.dropped + c.filtered + c.pending) {
    throw Failed("the accounts do not add up: " + std::to_string(c.offered) + " offered, " + std::to_string(c.delivered) + " delivered, " +
                 std::to_string(c.rejected) + " rejected, " + std::to_string(c.dropped) + " dropped, " + std::to_string(c.filtered) +
                 " filtered, " + std::to_string(c.pending) + " pending");
  }
  return c;
}

// Rows that stand for records of which none was lost have no figure where some were.
inline void none_lost(const Row& row, std::uint64_t recorded, std::uint64_t seen) {
  if (seen == recorded) return;
  throw Failed(std::to_string(seen) + " of " + std::to_string(recorded) + " at the sink; the median of " + std::to_string(median(row.values)) +
               " " + row.unit + " does not count");
}

// Sleeps until the next period begins, by a clock of its own. Copies go on from the same moment. What was missed while a machine
// stood still (virtual ones do, for seconds) is not caught up: that would be a burst without an end.
class Ticks {
 public:
  explicit Ticks(std::chrono::nanoseconds period = std::chrono::milliseconds(1)) : period_(period.count()), next_(now()) {}
  void wait() {
    constexpr std::int64_t kCaughtUp = 2;  // periods: with the burst that is due, half of what a lane's ring holds
    constexpr std::int64_t kSecond = 1'000'000'000;
    next_ += period_;
    if (now() > next_ + kCaughtUp * period_) next_ = now();
    const timespec until{next_ / kSecond, next_ % kSecond};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
  }

 private:
  static std::int64_t now() { return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count(); }
  std::int64_t period_;  // nanoseconds, as next_
  std::int64_t next_;
};

// How bursts follow one another in a repetition.
struct Pace {
  int bursts = 1000;
  int records = 1000;  // of a burst, by all threads together
  std::chrono::nanoseconds period = std::chrono::milliseconds(1);
};

// What a repetition cost a record, in nanoseconds, and how many records it had.
struct Cost {
  double elapsed = 0;   // each thread's time, within its bursts
  double cpu = 0;       // each thread's time on a processor, within its bursts, with one read of that clock for each burst
  double together = 0;  // from the first thread's begin of a burst to the last one's end, for each record of them all
  double process = 0;   // CPU of the whole process, from the first burst to the last
  std::uint64_t records = 0;
};

// One repetition: `threads` threads begin their bursts at the same time, each burst(calls) of `records` records a call.
inline Cost repetition(int threads, int records, const std::function<void(int calls)>& burst, const Pace& pace) {
  struct Own {
    double cpu = 0;
    std::vector<Clock::time_point> begins;
    std::vector<Clock::time_point> ends;
  };
  const int calls = pace.records / threads / records;
  std::vector<Own> all(static_cast<std::size_t>(threads));
  for (Own& own : all) {
    own.begins.reserve(static_cast<std::size_t>(pace.bursts));
    own.ends.reserve(static_cast<std::size_t>(pace.bursts));
  }
  const double process = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
  const auto run = [&, first = Ticks(pace.period)](Own& own) {
    Ticks paced = first;
    for (int b = 0; b < pace.bursts; ++b) {
      paced.wait();
      const double cpu = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
      own.begins.push_back(Clock::now());
      burst(calls);
      own.ends.push_back(Clock::now());
      own.cpu += cpu_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    }
  };
  std::vector<std::thread> others;
  for (std::size_t t = 1; t < all.size(); ++t) others.emplace_back(run, std::ref(all[t]));
  run(all[0]);
  for (std::thread& thread : others) thread.join();
  Cost cost;
  cost.process = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - process;
  for (std::size_t b = 0; b < static_cast<std::size_t>(pace.bursts); ++b) {
    Clock::time_point begin = all[0].begins[b];
    Clock::time_point end = all[0].ends[b];
    for (const Own& own : all) {
      cost.elapsed += ns_between(own.begins[b], own.ends[b]);
      begin = std::min(begin, own.begins[b]);
      end = std::max(end, own.ends[b]);
    }
    cost.together += ns_between(begin, end);
  }
  for (const Own& own : all) cost.cpu += own.cpu;
  cost.records = static_cast<std::uint64_t>(pace.bursts) * static_cast<std::uint64_t>(calls * records * threads);
  for (double* const sum : {&cost.elapsed, &cost.cpu, &cost.together, &cost.process}) *sum /= static_cast<double>(cost.records);
  return cost;
}

// Fills the row with what a record costs in bursts of 1,000 a millisecond, for ten seconds: `threads` threads make them
// together, each call(i) `records` of them. Returns how many were recorded.
inline std::uint64_t bursts(Row& row, int threads, int records, const std::function<void(int calls)>& burst) {
  constexpr int kRepetitions = 10;
  std::uint64_t recorded = 0;
  for (int r = 0; r < kRepetitions; ++r) {
    row.clock_read_ns.push_back(clock_read_ns());
    const Cost cost = repetition(threads, records, burst, {});
    row.values.push_back(cost.elapsed);
    recorded += cost.records;
  }
  return recorded;
}

}  // namespace waymark::bench
