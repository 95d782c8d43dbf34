// How many empty tasks a runner does in a second on SQLite, and what telemetry takes of that (design section 7).
//
// The store is a new file on a disk for each repetition. Its jobs, of 1,000 root tasks each, are submitted first; what is
// timed is a runner with default options from its start until nothing is left. Telemetry is spans to an HTTP sink in another
// process, and log records and metrics to destinations that discard, with a state directory on the same disk.
// A figure is printed only where the store says that each task was computed in its first attempt, the tasks themselves have
// counted as many executions, the accounts of each signal add up, and the sink has decoded one span for each attempt, each
// job and each submit.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "load.h"
#include "row.h"
#include "waymark/store.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::Clock;
using waymark::bench::ns_between;
using waymark::bench::Row;

[[noreturn, gnu::format(printf, 1, 2)]] void refuse(const char* format, ...) {
  char why[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(why, sizeof why, format, arguments);
  va_end(arguments);
  throw waymark::bench::Failed(why);
}

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

std::atomic<std::uint64_t> executed{0};

struct Nothing {
  void execute(waymark::Context&) { executed.fetch_add(1, std::memory_order_relaxed); }
};

waymark::Config telemetry_off() {
  waymark::Config c;
  c.resource = "bench";
  c.disabled = true;
  return c;
}

waymark::Config telemetry_to(const Sink& sink, const std::string& directory) {
  waymark::Config c;
  c.resource = "bench";
  c.state_directory = directory;
  c.recover_siblings = false;
  waymark::DestinationConfig spans;
  spans.name = "sink";
  spans.url = sink.url();
  spans.lossy = false;  // a machine that is busy otherwise makes a row slower, not void
  c.destinations.push_back(spans);
  for (const waymark::Signal signal : {waymark::Signal::logs, waymark::Signal::metrics}) {
    waymark::DestinationConfig discard;
    discard.name = "discard";
    discard.signal = signal;
    discard.output = waymark::Output::callback;
    discard.deliver = [](waymark::Signal, std::string_view) { return waymark::DeliveryResult{}; };
    c.destinations.push_back(discard);
  }
  c.metrics.interval = std::chrono::seconds(1);
  c.metrics.process = true;
  c.metrics.sdk = true;
  return c;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Load {
  std::uint64_t jobs;
  std::uint64_t tasks_each;
  [[nodiscard]] std::uint64_t tasks() const { return jobs * tasks_each; }
};

struct Run {
  double seconds = 0;
  double cpu_us_per_task = 0;  // of this process, all threads, until the last record is delivered
  [[nodiscard]] double rate(const Load& load) const { return static_cast<double>(load.tasks()) / seconds; }
};

void check_store(waymark::Client& client, const std::vector<std::string>& jobs, const Load& load) {
  std::uint64_t computed = 0;
  for (const std::string& id : jobs) {
    const waymark::Job job = client.jobs().find(id);
    if (job.state != waymark::JobState::completed || job.tasks != load.tasks_each || job.tasks_done != load.tasks_each) {
      refuse("job %s has %" PRIu64 " of %" PRIu64 " tasks done", id.c_str(), job.tasks_done, job.tasks);
    }
    for (const waymark::TaskInfo& task : client.jobs().tasks(id)) {
      if (task.state == waymark::TaskState::completed && task.attempts == 1) ++computed;
    }
  }
  if (computed != load.tasks()) {
    refuse("the store has %" PRIu64 " of %" PRIu64 " tasks as computed in one attempt", computed, load.tasks());
  }
  if (executed != load.tasks()) {
    refuse("%" PRIu64 " executions of %" PRIu64 " tasks", executed.load(), load.tasks());
  }
}

void check_telemetry(const waymark::Stats& stats, std::uint64_t spans, std::uint64_t seen) {
  for (const waymark::DestinationStats& d : stats.destinations) {
    const waymark::Counts& c = d.counts;
    if (c.offered != c.delivered + c.rejected + c.dropped + c.filtered + c.pending || c.delivered != c.offered) {
      refuse("%s: %" PRIu64 " offered, %" PRIu64 " delivered, %" PRIu64 " rejected, %" PRIu64 " dropped, %" PRIu64
                  " filtered, %" PRIu64 " pending", std::string(waymark::signal_name(d.signal)).c_str(), c.offered, c.delivered,
             c.rejected, c.dropped, c.filtered, c.pending);
    }
  }
  if (stats.spans != spans || seen != spans) {
    refuse("%" PRIu64 " spans ended and %" PRIu64 " reached the sink, of %" PRIu64, stats.spans, seen, spans);
  }
}

// One runner, once, through all of `load`.
Run run(const std::string& directory, const Load& load, bool telemetry_on,
        const waymark::RunnerOptions& options = {}) {
  std::filesystem::create_directories(directory);
  executed = 0;
  std::optional<Sink> sink;
  if (telemetry_on) sink.emplace();
  Run result;
  waymark::Stats stats;
  {
    waymark::Telemetry telemetry(sink ? telemetry_to(*sink, directory + "/telemetry") : telemetry_off());
    waymark::Client client({.name = "bench", .store = directory + "/store.db", .telemetry = &telemetry});
    const std::vector<Nothing> tasks(load.tasks_each);
    std::vector<std::string> jobs;
    for (std::uint64_t i = 0; i < load.jobs; ++i) jobs.push_back(client.jobs().submit("empty", tasks).id);
    telemetry.force_flush(std::chrono::seconds(60));

    waymark::Runner runner = client.runner<Nothing>(options);
    const double cpu_before = cpu_seconds();
    const auto begin = Clock::now();
    runner.run_all();
    result.seconds = ns_between(begin, Clock::now()) / 1e9;
    telemetry.force_flush(std::chrono::seconds(60));
    result.cpu_us_per_task = (cpu_seconds() - cpu_before) * 1e6 / static_cast<double>(load.tasks());

    check_store(client, jobs, load);
    telemetry.shutdown(std::chrono::seconds(10));
    stats = telemetry.stats();
  }
  // The sink waits until its connections are closed.
  if (sink) check_telemetry(stats, load.tasks() + 2 * load.jobs, sink->finish());
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return result;
}

void note_cpu(Row& row, std::vector<double> cpu) {
  char text[64];
  std::snprintf(text, sizeof text, "%.1f us of CPU a task", waymark::bench::median(std::move(cpu)));
  row.remark = text;
}

Row batched(const std::string& directory) {
  Row row{.name = "runner.sqlite.tasks_per_s", .limit = 80'000, .unit = "1/s", .at_least = true};
  constexpr Load kLoad{100, 1000};
  constexpr int kRepetitions = 5;
  std::vector<double> cpu;
  for (int r = 0; r < kRepetitions; ++r) {
    const Run one = run(directory + "/" + std::to_string(r), kLoad, true);
    row.values.push_back(one.rate(kLoad));
    cpu.push_back(one.cpu_us_per_task);
  }
  note_cpu(row, cpu);
  return row;
}

Row commit_each(const std::string& directory) {
  Row row{.name = "runner.sqlite.tasks_per_s.commit_each", .limit = 15'000, .unit = "1/s", .at_least = true};
  constexpr Load kLoad{20, 1000};
  constexpr int kRepetitions = 5;
  std::vector<double> cpu;
  for (int r = 0; r < kRepetitions; ++r) {
    const Run one = run(directory + "/" + std::to_string(r), kLoad, true, {.commit_each = true});
    row.values.push_back(one.rate(kLoad));
    cpu.push_back(one.cpu_us_per_task);
  }
  note_cpu(row, cpu);
  return row;
}

// On and off in turn, since a machine's speed changes under a long run.
Row tracing_cost(const std::string& directory) {
  Row row{.name = "runner.tracing_cost_percent", .limit = 5, .unit = "%"};
  constexpr Load kLoad{100, 1000};
  constexpr int kPairs = 7;
  std::vector<double> with;
  std::vector<double> without;
  std::vector<double> cpu_with;
  std::vector<double> cpu_without;
  for (int r = 0; r < kPairs; ++r) {
    const std::string place = directory + "/" + std::to_string(r);
    Run on;
    Run off;
    for (const bool telemetry_on : {r % 2 == 0, r % 2 != 0}) {
      (telemetry_on ? on : off) = run(place, kLoad, telemetry_on);
    }
    with.push_back(on.rate(kLoad));
    without.push_back(off.rate(kLoad));
    cpu_with.push_back(on.cpu_us_per_task);
    cpu_without.push_back(off.cpu_us_per_task);
    row.values.push_back(100 * (1 - with.back() / without.back()));
  }
  char text[128];
  std::snprintf(text, sizeof text, "%.0f tasks a second with, %.0f without; %.1f and %.1f us of CPU a task",
                waymark::bench::median(with), waymark::bench::median(without), waymark::bench::median(cpu_with),
                waymark::bench::median(cpu_without));
  row.remark = text;
  return row;
}

std::mutex started_mutex;
std::condition_variable started_changed;
std::optional<Clock::time_point> started;

struct Start {
  void execute(waymark::Context&) {
    const auto now = Clock::now();
    executed.fetch_add(1, std::memory_order_relaxed);
    const std::scoped_lock lock(started_mutex);
    started = now;
    started_changed.notify_one();
  }
};

// From the call that submits a job of one task to that task's first line, where the runner was idle. Same process.
Row start_latency(const std::string& directory) {
  Row row{.name = "runner.sqlite.start_latency_p99_ms", .limit = 4, .unit = "ms"};
  constexpr int kRepetitions = 5;
  constexpr int kJobs = 400;
  std::vector<double> medians;
  for (int r = 0; r < kRepetitions; ++r) {
    const std::string place = directory + "/" + std::to_string(r);
    std::filesystem::create_directories(place);
    executed = 0;
    Sink sink;
    waymark::Stats stats;
    {
      waymark::Telemetry telemetry(telemetry_to(sink, place + "/telemetry"));
      waymark::Client client({.name = "bench", .store = place + "/store.db", .telemetry = &telemetry});
      waymark::Runner runner = client.runner<Start>();
      std::vector<double> latencies;
      std::vector<std::string> jobs;
      std::stop_source stop;
      std::thread loop([&] { runner.run_forever(stop.get_token()); });
      for (int i = 0; i < kJobs; ++i) {
        const auto submitted = Clock::now();
        jobs.push_back(client.jobs().submit("one", Start{}).id);
        {
          std::unique_lock lock(started_mutex);
          if (!started_changed.wait_for(lock, std::chrono::seconds(30), [] { return started.has_value(); })) {
            refuse("a task has not started in 30 s");
          }
          latencies.push_back(ns_between(submitted, *started) / 1e6);
          started.reset();
        }
        client.jobs().wait(jobs.back());
        std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the runner is idle again
      }
      stop.request_stop();
      loop.join();
      check_store(client, jobs, {kJobs, 1});
      std::sort(latencies.begin(), latencies.end());
      row.values.push_back(latencies[kJobs * 99 / 100]);
      medians.push_back(latencies[kJobs / 2]);
      telemetry.force_flush(std::chrono::seconds(60));
      telemetry.shutdown(std::chrono::seconds(10));
      stats = telemetry.stats();
    }
    check_telemetry(stats, 3 * kJobs, sink.finish());
    std::error_code ignored;
    std::filesystem::remove_all(place, ignored);
  }
  char text[64];
  std::snprintf(text, sizeof text, "p50 %.3f ms", waymark::bench::median(medians));
  row.remark = text;
  return row;
}

}  // namespace

int main(int argc, char** argv) {
  const waymark::bench::Directory directory("/var/tmp");
  if (!directory.on_disk()) {
    std::fprintf(stderr, "bench_runner: %s is not on a disk\n", directory.path().c_str());
    return 1;
  }
  std::vector<waymark::bench::Measurement> measurements;
  for (const auto& [name, measure] : std::initializer_list<std::pair<const char*, Row (*)(const std::string&)>>{
           {"runner.sqlite.tasks_per_s", batched},
           {"runner.sqlite.tasks_per_s.commit_each", commit_each},
           {"runner.sqlite.start_latency_p99_ms", start_latency},
           {"runner.tracing_cost_percent", tracing_cost}}) {
    measurements.push_back({{name}, [measure = measure, place = directory.path() + "/" + name] { return std::vector{measure(place)}; }});
  }
  return waymark::bench::run(argc, argv, measurements);
}
