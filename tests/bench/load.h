// What the programs that record telemetry at a pace share: the configuration, the pace, the sink, and the accounts.
//
// Hides: how the sink's process is started and asked.
// Threads: each object, one.
// Failure: throws Failed where accounts do not add up, or something was lost in a row of which nothing may be.
#pragma once

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "row.h"
#include "waymark/waymark.h"

namespace waymark::bench {

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

// Fills the row with what a record costs in bursts of 1,000 a millisecond, for ten seconds: `threads` threads make them
// together, each call(i) `records` of them. Returns how many were recorded.
inline std::uint64_t bursts(Row& row, int threads, int records, const std::function<void(int calls)>& burst) {
  constexpr int kRepetitions = 10;
  constexpr int kBursts = 1000;
  const int calls = 1000 / threads / records;
  for (int r = 0; r < kRepetitions; ++r) {
    row.clock_read_ns.push_back(clock_read_ns());
    std::vector<double> ns(static_cast<std::size_t>(threads));
    const auto run = [&](std::size_t t) {
      Milliseconds paced;
      for (int b = 0; b < kBursts; ++b) {
        paced.wait();
        const auto begin = Clock::now();
        burst(calls);
        ns[t] += ns_between(begin, Clock::now());
      }
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(run, static_cast<std::size_t>(t));
    run(0);
    for (std::thread& thread : others) thread.join();
    double all = 0;
    for (const double each : ns) all += each;
    row.values.push_back(all / (static_cast<double>(kBursts) * calls * records * threads));
  }
  return static_cast<std::uint64_t>(kRepetitions) * kBursts * static_cast<std::uint64_t>(calls * records * threads);
}

}  // namespace waymark::bench
