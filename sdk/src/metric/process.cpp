#include "metric/process.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>

namespace waymark::metric {
namespace {

// Fields of /proc/self/stat, counted as proc(5) does; the name in parentheses may hold anything.
std::optional<long long> stat_field(int number) {
  std::ifstream file("/proc/self/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t name = line.rfind(')');
  if (name == std::string::npos) return std::nullopt;
  std::size_t at = name + 2;  // field 3
  for (int field = 3; field < number; ++field) {
    at = line.find(' ', at);
    if (at == std::string::npos) return std::nullopt;
    ++at;
  }
  return std::atoll(line.c_str() + at);
}

// Pages, all and resident.
std::optional<std::pair<long long, long long>> pages() {
  std::ifstream file("/proc/self/statm");
  long long all = 0;
  long long resident = 0;
  if (!(file >> all >> resident)) return std::nullopt;
  return std::pair{all, resident};
}

std::optional<std::int64_t> open_files() {
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return std::nullopt;
  std::int64_t count = -1;  // the folder's own
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(folder);
  return count;
}

double seconds(const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; }

}  // namespace

void observe_process(const Meter& meter) {
  meter.observable_counter<double>("process.cpu.time", {.unit = "s", .description = "CPU seconds of all threads, by mode"},
                                   [](const Observer<double>& observer) {
                                     rusage usage{};
                                     if (getrusage(RUSAGE_SELF, &usage) != 0) return;
                                     observer.observe(seconds(usage.ru_utime), {{"cpu.mode", "user"}});
                                     observer.observe(seconds(usage.ru_stime), {{"cpu.mode", "system"}});
                                   });
  meter.observable_up_down_counter("process.memory.usage", {.unit = "By", .description = "Physical memory in use"},
                                   [](const Observer<std::int64_t>& observer) {
                                     if (const auto p = pages()) observer.observe(p->second * sysconf(_SC_PAGESIZE));
                                   });
  meter.observable_up_down_counter("process.memory.virtual", {.unit = "By", .description = "Virtual memory"},
                                   [](const Observer<std::int64_t>& observer) {
                                     if (const auto p = pages()) observer.observe(p->first * sysconf(_SC_PAGESIZE));
                                   });
  meter.observable_up_down_counter("process.thread.count", {.unit = "{thread}", .description = "Threads"},
                                   [](const Observer<std::int64_t>& observer) {
                                     if (const auto threads = stat_field(20)) observer.observe(*threads);
                                   });
  meter.observable_up_down_counter("process.unix.file_descriptor.count",
                                   {.unit = "{file_descriptor}", .description = "Open file descriptors"},
                                   [](const Observer<std::int64_t>& observer) {
                                     if (const auto files = open_files()) observer.observe(*files);
                                   });
  meter.observable_gauge<double>("process.uptime", {.unit = "s", .description = "Time since the process started"},
                                 [](const Observer<double>& observer) {
                                   const auto started = stat_field(22);
                                   timespec now{};
                                   if (!started || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return;
                                   const double up = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9 -
                                                     static_cast<double>(*started) / static_cast<double>(sysconf(_SC_CLK_TCK));
                                   observer.observe(up > 0 ? up : 0);
                                 });
}

}  // namespace waymark::metric
