// A benchmark program's rows: what it can measure, and what it found, one JSON object a line. scripts/bench runs the
// programs and prints the table.
//
// Hides: the command line, medians, and how a row is written.
// Threads: the program's first.
// Failure: a measurement that throws, or leaves out a row that was asked for, prints no figure; the others still run, and
//   the program fails at its end.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace waymark::bench {

using Clock = std::chrono::steady_clock;
inline double ns_between(Clock::time_point a, Clock::time_point b) { return std::chrono::duration<double, std::nano>(b - a).count(); }

inline double clock_read_ns() {
  constexpr int kReads = 200'000;
  timespec t;
  const auto begin = Clock::now();
  for (int i = 0; i < kReads; ++i) clock_gettime(CLOCK_REALTIME, &t);
  return ns_between(begin, Clock::now()) / kReads;
}

// Time on a processor, of the calling thread or of the whole process.
inline double cpu_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

struct Row {
  std::string name;
  std::optional<double> limit = {};        // in clock reads where those were measured, else in `unit`; none: for information
  std::string unit = "ns";
  bool at_least = false;                   // the limit is the least that is allowed, not the most
  std::vector<double> values = {};         // of each repetition
  std::vector<double> clock_read_ns = {};  // before each repetition; empty: the limit is not in clock reads
  std::string remark = {};
};

// Why there is no figure: most of all, accounts that do not add up.
struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What is measured in one go: most give one row.
struct Measurement {
  std::vector<std::string> rows;
  std::function<std::vector<Row>()> run;
};

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

// The median, where each repetition is measured against its own clock reads: a processor that changes its speed changes
// nothing.
inline double in_clock_reads(const Row& row) {
  std::vector<double> reads(row.values);
  for (std::size_t i = 0; i < reads.size(); ++i) reads[i] /= row.clock_read_ns.at(i);
  return median(reads);
}

// "remark" and "at_least" are for the table.
inline void print(const Row& row) {
  const auto quoted = [](const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + '"';
  };
  const auto [low, high] = std::minmax_element(row.values.begin(), row.values.end());
  std::printf("{\"row\": %s, \"median\": %.6g, \"spread\": [%.6g, %.6g], \"unit\": %s", quoted(row.name).c_str(), median(row.values),
              *low, *high, quoted(row.unit).c_str());
  if (!row.clock_read_ns.empty()) {
    std::printf(", \"clock_read_ns\": %.1f, \"in_clock_reads\": %.3g", median(row.clock_read_ns), in_clock_reads(row));
  }
  if (row.limit) std::printf(", \"limit\": %g", *row.limit);
  if (row.at_least) std::printf(", \"at_least\": true");
  if (!row.remark.empty()) std::printf(", \"remark\": %s", quoted(row.remark).c_str());
  std::printf("}\n");
  std::fflush(stdout);
}

// The whole of main(): --list prints the rows' names; ROW... measures these; all by default. Returns the exit status.
inline int run(int argc, char** argv, const std::vector<Measurement>& measurements) {
  std::vector<std::string> asked(argv + 1, argv + argc);
  std::vector<std::string> known;
  for (const Measurement& m : measurements) known.insert(known.end(), m.rows.begin(), m.rows.end());
  if (asked == std::vector<std::string>{"--list"}) {
    for (const std::string& row : known) std::printf("%s\n", row.c_str());
    return 0;
  }
  for (const std::string& row : asked) {
    if (std::find(known.begin(), known.end(), row) != known.end()) continue;
    std::fprintf(stderr, "%s: unknown row '%s'; --list tells them\n", argv[0], row.c_str());
    return 2;
  }
  if (asked.empty()) asked = known;
  const auto is_asked = [&](const std::string& row) { return std::find(asked.begin(), asked.end(), row) != asked.end(); };
  int status = 0;
  for (const Measurement& m : measurements) {
    if (std::none_of(m.rows.begin(), m.rows.end(), is_asked)) continue;
    std::vector<Row> found;
    std::string why = "was not measured";
    try {
      found = m.run();
    } catch (const std::exception& e) {
      why = e.what();
    }
    for (const std::string& name : m.rows) {
      if (!is_asked(name)) continue;
      const auto row = std::find_if(found.begin(), found.end(), [&](const Row& r) { return r.name == name && !r.values.empty(); });
      if (row != found.end()) {
        print(*row);
      } else {
        std::fprintf(stderr, "%s: %s\n", name.c_str(), why.c_str());
        status = 1;
      }
    }
  }
  return status;
}

}  // namespace waymark::bench
