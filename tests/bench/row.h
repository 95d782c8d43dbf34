// A benchmark's rows: what is measured, beside its limit in clock reads, as a table or as JSON.
//
// Hides: the machine's line, medians, and how a row is printed.
// Threads: the program's first.
// Failure: none.
#pragma once

#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
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

struct Row {
  std::string name;
  double limit;            // in clock reads; where there are none, in `unit`
  std::vector<double> ns;  // of each repetition, in `unit`
  std::vector<double> cr;
  std::string remark;
  const char* unit = "ns";
};

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

inline std::string first_line(const char* command) {
  std::string text;
  if (std::FILE* pipe = popen(command, "r")) {
    char buffer[256];
    if (std::fgets(buffer, sizeof buffer, pipe) != nullptr) text = buffer;
    pclose(pipe);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Report {
 public:
  // [--json] [ROW...]; all rows by default. Prints the table's head.
  Report(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      if (argument == "--json") json_ = true;
      else wanted_.push_back(argument);
    }
    if (json_) return;
    utsname system{};
    uname(&system);
    std::printf("machine: %s, %ld processors, %s %s\n", first_line("grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-").c_str(),
                sysconf(_SC_NPROCESSORS_ONLN), system.sysname, system.release);
    std::printf("compiler: gcc %s, commit: %s\n\n", __VERSION__, first_line("git describe --always --dirty 2>/dev/null").c_str());
    std::printf("%-22s %10s %18s %8s %8s %8s   %s\n", "row", "median ns", "spread ns", "reads", "limit", "ratio", "");
  }
  [[nodiscard]] bool asked(const char* row) const {
    return wanted_.empty() || std::find(wanted_.begin(), wanted_.end(), row) != wanted_.end();
  }
  void print(const Row& row) const {
    const auto [low, high] = std::minmax_element(row.ns.begin(), row.ns.end());
    const double m = median(row.ns);
    const double cr = row.cr.empty() ? m : median(row.cr);
    if (json_ && row.cr.empty()) {
      std::printf("{\"row\": \"%s\", \"median\": %.3f, \"spread\": [%.3f, %.3f], \"unit\": \"%s\", \"limit\": %g}\n",
                  row.name.c_str(), m, *low, *high, row.unit, row.limit);
    } else if (json_) {
      std::printf("{\"row\": \"%s\", \"median\": %.1f, \"spread\": [%.1f, %.1f], \"unit\": \"ns\", \"clock_read_ns\": %.1f, "
                  "\"in_clock_reads\": %.2f, \"limit\": %g}\n",
                  row.name.c_str(), m, *low, *high, m / cr, cr, row.limit);
    } else {
      char spread[64];
      std::snprintf(spread, sizeof spread, "%.1f to %.1f", *low, *high);
      char reads[32] = "-";
      if (!row.cr.empty()) std::snprintf(reads, sizeof reads, "%.2f", cr);
      const std::string value = row.unit == std::string_view("ns") ? std::string() : " " + std::string(row.unit);
      std::printf("%-22s %10.1f %18s %8s %8g %8.2f   %s\n", row.name.c_str(), m, (spread + value).c_str(), reads, row.limit,
                  cr / row.limit, row.remark.c_str());
    }
    std::fflush(stdout);
  }

 private:
  bool json_ = false;
  std::vector<std::string> wanted_;
};

}  // namespace waymark::bench
