// Whether a span costs more where there is more: of threads, of spans that are open, of telemetry in a journal that nobody
// empties. scripts/bench-growth runs it and draws the curves; it is no part of scripts/bench's table.
//
// Usage: growth [--list] [ROW...]
// A point is a row: growth.threads.8, growth.open.1000, growth.journal.256 (MiB). What is measured is the span of spans.cpp,
// in bursts of 100 of each thread, and its cost is what the calling thread had of a processor: with more threads than
// processors, the time on the wall tells of the others' turns. The last points are far beyond the first, and where the
// design says that a curve is flat, every point of it may cost at most kFactor times the first one: else it is named, and the
// program fails. So it does where spans were dropped: of the threads one in a thousand, of the others any.
#include <sys/statvfs.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "load.h"
#include "row.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::calling;
using waymark::bench::checked;
using waymark::bench::config;
using waymark::bench::Cost;
using waymark::bench::cpu_ns;
using waymark::bench::Directory;
using waymark::bench::discarding;
using waymark::bench::Failed;
using waymark::bench::Measurement;
using waymark::bench::Pace;
using waymark::bench::repetition;
using waymark::bench::Row;
using waymark::bench::Workload;

constexpr double kFactor = 2;
constexpr int kRepetitions = 9;
constexpr int kBurst = 100;  // spans of one thread
constexpr std::uint64_t kMiB = 1 << 20;

// Where the design says that nothing grows: the rows of one curve, the first point first.
using Curve = std::vector<std::string>;

// Rows of the same repetitions.
struct Rows {
  Row cpu;
  Row together;
  Row process;
};

// What reading a clock takes of a processor. Not by the wall: a machine that is busy would make spans cheap.
double read_ns(clockid_t clock) {
  constexpr int kReads = 100'000;
  timespec t;
  const double begin = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < kReads; ++i) clock_gettime(clock, &t);
  return (cpu_ns(CLOCK_THREAD_CPUTIME_ID) - begin) / kReads;
}

// All repetitions, after one that does not count: it touches memory for the first time. What reading the thread's clock takes
// is taken off its cost.
template <class Work>
void measure(Rows& rows, int threads, const Pace& pace, const Work& work) {
  const auto burst = [&](int calls) {
    for (int i = 0; i < calls; ++i) work(i);
  };
  for (int r = 0; r < kRepetitions + 1; ++r) {
    const double read = read_ns(CLOCK_REALTIME);
    const double cpu_read = read_ns(CLOCK_THREAD_CPUTIME_ID);
    const Cost cost = repetition(threads, 1, burst, pace);
    if (r == 0) continue;
    for (Row* const row : {&rows.cpu, &rows.together, &rows.process}) row->clock_read_ns.push_back(read);
    rows.cpu.values.push_back(cost.cpu - cpu_read * threads / pace.records);
    rows.together.values.push_back(cost.together);
    rows.process.values.push_back(cost.process);
  }
}

// The accounts, as a remark. `share`: so many may have been dropped.
std::string dropped_at_most(double share, const waymark::Stats& stats) {
  const waymark::Counts counts = checked(stats);
  std::string said = std::to_string(counts.offered) + " recorded, " + std::to_string(counts.dropped) + " dropped";
  if (static_cast<double>(counts.dropped) > share * static_cast<double>(counts.offered)) throw Failed(said);
  return said;
}

// `recorder_bytes` decides how many threads have a lane to themselves: 14 of 16 MiB (the default), 68 of 64 MiB; the others
// share four lanes, and a lock for each.
std::vector<Row> threads(const std::string& name, int count, std::size_t recorder_bytes, const std::string& state) {
  waymark::Config c = config(state);
  c.recorder.max_bytes = recorder_bytes;
  c.destinations.push_back(discarding());
  waymark::Telemetry telemetry(c);
  Rows rows{{name}, {name + ".together"}, {}};
  // All threads begin at the same time, as seldom as leaves the collector time to empty the lanes that they share; where it gets
  // no processor all the same, a lane of 13 threads may fill.
  measure(rows, count, {.bursts = 25, .records = kBurst * count, .period = std::chrono::milliseconds(20)}, Workload{telemetry.tracer("bench")});
  telemetry.force_flush(std::chrono::seconds(60));
  rows.cpu.remark = rows.together.remark = dropped_at_most(0.001, telemetry.stats());
  return {rows.cpu, rows.together};
}

// A recorder's last quarter is blocks of 2 KiB: 1 GiB, the most there is, has room for 121,000 open spans. It is as large at
// every point, so that nothing else differs.
std::vector<Row> open_spans(const std::string& name, int count, const std::string& state) {
  waymark::Config c = config(state);
  c.recorder.max_bytes = 1024 * kMiB;
  c.destinations.push_back(discarding());
  waymark::Telemetry telemetry(c);
  const Workload work{telemetry.tracer("bench")};
  const auto start = [&](std::int64_t i) {
    return work.tracer.start_span("read_bands",
                                  {{"scene", work.scene}, {"band", "B02_10m_jp2_"}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
  };
  std::vector<waymark::DetachedSpan> open;
  open.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) open.push_back(start(i));
  const Pace pace{.bursts = 200, .records = kBurst};
  Rows scoped{{name}, {}, {}};
  measure(scoped, 1, pace, work);
  Rows detached{{name + ".detached"}, {}, {}};
  measure(detached, 1, pace, [&](std::int64_t i) { static_cast<void>(start(i)); });
  telemetry.force_flush(std::chrono::seconds(60));
  const waymark::Stats stats = telemetry.stats();
  if (stats.open_spans != static_cast<std::uint64_t>(count)) {
    throw Failed(std::to_string(stats.open_spans) + " of " + std::to_string(count) + " spans are open; the others found no room");
  }
  scoped.cpu.remark = detached.cpu.remark = dropped_at_most(0, stats);
  // So many at once would find the ring full.
  constexpr std::size_t kAtOnce = 1000;
  while (!open.empty()) {
    open.resize(open.size() - std::min(kAtOnce, open.size()));
    telemetry.force_flush(std::chrono::seconds(60));
  }
  telemetry.shutdown(std::chrono::seconds(10));
  return {scoped.cpu, detached.cpu};
}

// Until the threads of the process have nothing to do: a full journal's moves to the disk take a while.
void quiet() {
  constexpr std::chrono::milliseconds kLook{200};
  for (int i = 0; i < 600; ++i) {
    const double before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
    std::this_thread::sleep_for(kLook);
    if (cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - before < 2e6) return;
  }
  throw Failed("the journal's thread still works after two minutes");
}

// So many MiB of spans that are wanted by a destination which takes none: it asks to be sent them again in an hour.
std::vector<Row> journal(const std::string& name, std::uint64_t mib, const Directory& directory) {
  if (!directory.on_disk()) throw Failed(directory.path() + " is not on a disk");
  const std::uint64_t wanted = mib * kMiB;
  struct statvfs disk {};
  if (statvfs(directory.path().c_str(), &disk) != 0 || disk.f_bavail * disk.f_frsize < wanted + 512 * kMiB) {
    throw Failed(directory.path() + " has less than " + std::to_string(mib + 512) + " MiB free");
  }
  const std::string state = directory.path() + "/" + name;
  std::vector<Row> found;
  {
    waymark::Config c = config(state);
    c.journal.max_bytes = 2 * wanted + 256 * kMiB;
    c.journal.block_timeout = std::chrono::minutes(10);
    c.diagnostics = waymark::DiagnosticLevel::none;
    waymark::DestinationConfig none = calling([](waymark::Signal, std::string_view) {
      return waymark::DeliveryResult{.outcome = waymark::Outcome::retry, .message = "not now"};
    });
    none.lossy = false;  // filling waits for the disk
    none.retry = {.initial = std::chrono::hours(1), .maximum = std::chrono::hours(1), .jitter = 0};
    c.destinations.push_back(none);
    waymark::Telemetry telemetry(c);
    const Workload work{telemetry.tracer("bench")};
    const std::string large(200'000, 'x');
    for (std::uint64_t bytes = 0; bytes + large.size() <= wanted; bytes += large.size()) {
      auto span = work.tracer.span("fill", {{"large", large}});
    }
    telemetry.force_flush(std::chrono::milliseconds(1));  // collected, not delivered
    quiet();
    const std::uint64_t before = telemetry.stats().journal_bytes;
    // What lies in memory at most doubles meanwhile, and stays there. What lies on the disk grows by whole segments: moving them
    // is part of the process's cost, and each repetition has two of them.
    constexpr std::uint64_t kSpanBytes = 200;
    const std::uint64_t repeated = wanted > c.journal.memory_bytes ? 2 * c.journal.segment_bytes
                                                                   : std::min<std::uint64_t>(wanted, 4 * kMiB) / (kRepetitions + 1);
    Rows rows{{name}, {}, {name + ".process"}};
    measure(rows, 1, {.bursts = static_cast<int>(repeated / kSpanBytes / kBurst), .records = kBurst}, work);
    telemetry.force_flush(std::chrono::milliseconds(1));
    const waymark::Stats stats = telemetry.stats();
    char remark[128];
    std::snprintf(remark, sizeof remark, "; %.1f to %.1f MiB meanwhile", static_cast<double>(before) / kMiB,
                  static_cast<double>(stats.journal_bytes) / kMiB);
    rows.cpu.remark = rows.process.remark = dropped_at_most(0, stats) + remark;
    if (stats.destinations.at(0).counts.delivered != 0 || before < wanted * 9 / 10) throw Failed("the journal does not hold what it should" + rows.cpu.remark);
    telemetry.shutdown(std::chrono::nanoseconds(0));
    found = {rows.cpu, rows.process};
  }
  std::error_code ignored;
  std::filesystem::remove_all(state, ignored);
  return found;
}

// Whether no point of the curve costs too much more than its first one; of those that were measured. In clock reads.
bool flat(const Curve& curve, const std::map<std::string, double>& measured) {
  const std::pair<const std::string, double>* first = nullptr;
  bool good = true;
  for (const std::string& point : curve) {
    const auto found = measured.find(point);
    if (found == measured.end()) continue;
    if (first == nullptr) first = &*found;
    if (found->second <= kFactor * first->second) continue;
    std::fprintf(stderr, "%s GROWS: %.2f clock reads, %.2f times %s (%.2f); at most %.1f times is allowed\n", point.c_str(), found->second,
                 found->second / first->second, first->first.c_str(), first->second, kFactor);
    good = false;
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  const Directory directory("/var/tmp");
  std::vector<Measurement> measurements;
  std::map<std::string, double> measured;
  const auto add = [&](std::vector<std::string> names, std::function<std::vector<Row>()> measure) {
    measurements.push_back({std::move(names), [&measured, measure = std::move(measure)] {
                              std::vector<Row> rows = measure();
                              for (const Row& row : rows) measured[row.name] = waymark::bench::in_clock_reads(row);
                              return rows;
                            }});
  };
  Curve few_threads;
  Curve lane_each;
  for (const int count : {1, 2, 4, 8, 16, 32, 64}) {
    const std::string name = "growth.threads." + std::to_string(count);
    const std::string each = name + ".lane_each";
    add({name, name + ".together"}, [=, &directory] { return threads(name, count, 16 * kMiB, directory.path() + "/" + name); });
    add({each}, [=, &directory] { return threads(each, count, 64 * kMiB, directory.path() + "/" + each); });
    constexpr int kOwnLanes = 14;
    if (count <= kOwnLanes) few_threads.push_back(name);
    lane_each.push_back(each);
  }
  Curve open;
  Curve detached;
  for (const int count : {1, 10, 100, 1'000, 10'000, 100'000}) {
    const std::string name = "growth.open." + std::to_string(count);
    add({name, name + ".detached"}, [=, &directory] { return open_spans(name, count, directory.path() + "/" + name); });
    open.push_back(name);
    detached.push_back(name + ".detached");
  }
  Curve filled;
  Curve process_in_memory;
  Curve process_on_disk;
  for (const std::uint64_t mib : {1, 4, 16, 64, 256, 1024, 4096}) {
    const std::string name = "growth.journal." + std::to_string(mib);
    add({name, name + ".process"}, [=, &directory] { return journal(name, mib, directory); });
    filled.push_back(name);
    // Beyond the memory, segments are moved to the disk, each once: a step, but no slope.
    (mib * kMiB > waymark::JournalConfig{}.memory_bytes ? process_on_disk : process_in_memory).push_back(name + ".process");
  }
  int status = waymark::bench::run(argc, argv, measurements);
  for (const Curve& curve : {few_threads, lane_each, open, detached, filled, process_in_memory, process_on_disk}) {
    if (!flat(curve, measured)) status = 1;
  }
  return status;
}
