// Rows that are a loop of one call: Google Benchmark finds out how often to call it.
//
// Hides: Google Benchmark, and that a clock read is measured before each repetition.
// Threads: the program's first; the loop runs in as many as it says.
// Failure: a loop that Google Benchmark could not run has no values, and so no figure.
#pragma once

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>
#include <utility>

#include "row.h"

namespace waymark::bench {

// Takes the time of a call out of Google Benchmark's hands.
class OneTime : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      // Of one thread: the time that all took together, over what each of them called.
      if (!run.error_occurred) ns_.push_back(run.GetAdjustedRealTime() * static_cast<double>(run.threads));
    }
  }
  [[nodiscard]] const std::vector<double>& ns() const { return ns_; }

 private:
  std::vector<double> ns_;
};

// Fills the row's values with what call(i) costs each of `threads` threads. Returns how often it was called in all.
template <class Call>
std::uint64_t micro(Row& row, int threads, const Call& call) {
  constexpr int kRepetitions = 10;
  std::atomic<std::uint64_t> calls{0};
  OneTime times;
  for (int r = 0; r < kRepetitions; ++r) {
    row.clock_read_ns.push_back(clock_read_ns());
    benchmark::ClearRegisteredBenchmarks();
    benchmark::RegisterBenchmark(row.name.c_str(), [&](benchmark::State& state) {
      std::int64_t i = 0;
      for (auto _ : state) call(i++);
      calls += static_cast<std::uint64_t>(i);
    })->Threads(threads)->UseRealTime()->MinTime(0.1);
    benchmark::RunSpecifiedBenchmarks(&times);
  }
  row.values = times.ns();
  return calls;
}

}  // namespace waymark::bench
