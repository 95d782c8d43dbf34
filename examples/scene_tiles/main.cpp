// scene_tiles: a real workflow on real images, and all that can be seen of it.
//
//   scene_tiles [image...] [--out DIR] [--tile N] [--endpoint URL] [--concurrency N] [--fault crash]
//   scene_tiles --runner-only --out DIR
//
// The first form submits one job for the images and runs its tasks until the job is done. The second is another runner
// for the job of a first one that was started with the same --out: both take tasks from the same store, and if one of
// them dies the other finishes the job, and delivers what the dead one had recorded. `waymark trace` draws the result.
#include <getopt.h>
#include <unistd.h>
#include <waymark/reader.h>
#include <waymark/waymark.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iomanip>
#include <initializer_list>
#include <iostream>
#include <map>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tasks.h"

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::string_view kUsage = R"(usage: scene_tiles [image...] [options]

Cuts satellite images into tiles, computes statistics, and puts a mosaic together, as a job of many tasks.
Images are JPEG or PNG files; without any, those of the package xplanet-images.

  --out DIR          outputs, telemetry and the job's store go there (default: out/scene)
  --tile N           edge of a tile in pixels, 16 to 4096 (default: 256)
  --endpoint URL     send traces and logs there (OTLP); without it OTEL_TRACES_ENDPOINT and OTEL_LOGS_ENDPOINT
                     decide, and without them files in DIR
  --concurrency N    tasks at a time (default: one per core)
  --fault crash      half-way through the first scene a tile dies of SIGSEGV and takes this process with it
  --runner-only      submit nothing: help with the job in DIR until it is done
)";

struct Options {
  std::vector<std::string> images;
  fs::path out = "out/scene";
  int tile = 256;
  std::string endpoint;
  std::uint32_t concurrency = 0;
  bool crash = false;
  bool runner_only = false;
};

// What the command line asks for and can't have.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int parse_int(const char* option, std::string_view text, int least, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw UsageError(std::string(option) + " takes a number from " + std::to_string(least) + " to " +
                     std::to_string(most) + ", not \"" + std::string(text) + "\"");
  }
  return value;
}

std::vector<std::string> default_images() {
  std::vector<std::string> images;
  for (const char* image : {"/usr/share/xplanet/images/earth.jpg", "/usr/share/xplanet/images/night.jpg"}) {
    if (!fs::exists(image)) {
      throw UsageError(std::string(image) + " is missing: install the package xplanet-images, or name an image");
    }
    images.push_back(image);
  }
  return images;
}

Options parse(int argc, char** argv) {
  enum : int { out = 1, tile, endpoint, concurrency, fault, runner_only, help };
  const option options[] = {{"out", required_argument, nullptr, out},
                            {"tile", required_argument, nullptr, tile},
                            {"endpoint", required_argument, nullptr, endpoint},
                            {"concurrency", required_argument, nullptr, concurrency},
                            {"fault", required_argument, nullptr, fault},
                            {"runner-only", no_argument, nullptr, runner_only},
                            {"help", no_argument, nullptr, help},
                            {nullptr, 0, nullptr, 0}};
  Options result;
  opterr = 0;
  for (int option; (option = getopt_long(argc, argv, ":", options, nullptr)) != -1;) {
    switch (option) {
      case out: result.out = optarg; break;
      case tile: result.tile = parse_int("--tile", optarg, 16, 4096); break;
      case endpoint: result.endpoint = optarg; break;
      case concurrency: result.concurrency = static_cast<std::uint32_t>(parse_int("--concurrency", optarg, 1, 256)); break;
      case fault:
        if (std::string_view(optarg) != "crash") throw UsageError("--fault knows only \"crash\"");
        result.crash = true;
        break;
      case runner_only: result.runner_only = true; break;
      case help: std::cout << kUsage; std::exit(0);
      case ':': throw UsageError(std::string(argv[optind - 1]) + " needs a value");
      default: throw UsageError("unknown option " + std::string(argv[optind - 1]) + "; --help shows those there are");
    }
  }
  for (int i = optind; i < argc; ++i) {
    if (!fs::exists(argv[i])) throw UsageError(std::string(argv[i]) + ": no such image");
    result.images.push_back(fs::absolute(argv[i]).string());
  }
  if (!result.runner_only && result.images.empty()) result.images = default_images();
  result.out = fs::absolute(result.out);
  return result;
}

bool any_set(std::initializer_list<const char*> variables) {
  for (const char* variable : variables) {
    const char* value = std::getenv(variable);
    if (value && *value) return true;
  }
  return false;
}

// The newest of each metric.
class Collection {
 public:
  void take(waymark::ReadTelemetry telemetry) {
    const std::scoped_lock lock(mutex_);
    for (waymark::ReadMetric& metric : telemetry.metrics) metrics_[metric.name] = std::move(metric);
  }
  // Of all series: how many, and their sum where it is a histogram's.
  struct Figures {
    double count = 0;
    double sum = 0;
    double maximum = 0;
  };
  [[nodiscard]] Figures of(const std::string& name) const {
    const std::scoped_lock lock(mutex_);
    Figures all;
    const auto metric = metrics_.find(name);
    if (metric == metrics_.end()) return all;
    for (const waymark::ReadPoint& point : metric->second.points) {
      const bool histogram = point.sum.has_value();
      all.count += histogram ? static_cast<double>(point.count) : std::visit([](auto v) { return static_cast<double>(v); }, point.value);
      all.sum += point.sum.value_or(0);
      all.maximum = std::max(all.maximum, point.maximum.value_or(0));
    }
    return all;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, waymark::ReadMetric> metrics_;
};

// Outlives the Telemetry's last collection, at the program's end.
Collection& last_collection() {
  static auto* const collection = new Collection;
  return *collection;
}

void report_metrics() {
  const Collection& all = last_collection();
  const auto whole = [&](const char* name) { return static_cast<std::int64_t>(all.of(name).count); };
  const auto duration = all.of("task.execution.duration");
  const auto wait = all.of("workflow.task.queue_wait.duration");
  const auto store = all.of("workflow.store.operation.duration");
  const auto mean = [](const Collection::Figures& f) { return f.count > 0 ? 1000 * f.sum / f.count : 0; };
  std::cout << std::setprecision(1) << "attempts: " << whole("task.executed.count") << " begun, " << whole("task.computed.count")
            << " computed, " << whole("task.failed.count") << " failed, " << whole("workflow.task.retried.count") << " tried again; "
            << mean(duration) << " ms each, " << 1000 * duration.maximum << " ms the longest\n"
            << "queue: " << mean(wait) << " ms each; store: " << whole("workflow.store.operation.duration") << " calls, " << mean(store)
            << " ms each; task threads idle for " << all.of("workflow.runner.idle.time").count << " s\n";
}

// To the endpoint of the command line, else to that of the environment, else into files.
void configure_telemetry(const Options& options) {
  const auto endpoint = [&](std::initializer_list<const char*> variables, const char* file) {
    if (!options.endpoint.empty()) return options.endpoint;
    return any_set(variables) ? std::string() : "file:" + (options.out / file).string();
  };
  const std::string state = (options.out / "state").string();
  waymark::configure_otel_tracing(
      {.service = "scene-tiles",
       .endpoint = endpoint({"OTEL_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"},
                            "traces.jsonl"),
       .state_directory = state});
  waymark::configure_otel_logging(
      {.service = "scene-tiles",
       .endpoint = endpoint({"OTEL_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"},
                            "logs.jsonl"),
       .state_directory = state});
  waymark::configure_otel_metrics(
      {.service = "scene-tiles",
       .endpoint = endpoint({"OTEL_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"},
                            "metrics.jsonl"),
       .state_directory = state});
  // The same for the summary at the end: a destination is whatever takes a request.
  waymark::DestinationConfig summary;
  summary.name = "summary";
  summary.signal = waymark::Signal::metrics;
  summary.output = waymark::Output::callback;
  summary.deliver = [](waymark::Signal signal, std::string_view request) {
    last_collection().take(waymark::read_request(signal, request));
    return waymark::DeliveryResult{};
  };
  waymark::telemetry().add(summary);
}

// One line that is drawn again and again on a terminal; elsewhere a line for every tenth of the work.
class ProgressLine {
 public:
  void show(const waymark::Job& job) {
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    for (const auto& count : job.progress) done += count.done, total += count.total;
    const std::string figures = std::to_string(done) + " of " + std::to_string(total) + " tiles, " +
                                std::to_string(job.tasks_done) + " of " + std::to_string(job.tasks) + " tasks";
    if (terminal_) {
      constexpr std::uint64_t kCells = 30;
      const std::uint64_t full = total == 0 ? 0 : done * kCells / total;
      std::string bar;
      for (std::uint64_t i = 0; i < kCells; ++i) bar += i < full ? "█" : "░";
      std::cout << "\r\x1b[K" << bar << "  " << figures << std::flush;
      if (job.finished()) std::cout << '\n';
    } else if (const std::uint64_t tenth = total == 0 ? 0 : done * 10 / total; tenth > shown_ || job.finished()) {
      shown_ = tenth;
      std::cout << figures << std::endl;
    }
  }

 private:
  bool terminal_ = isatty(STDOUT_FILENO) != 0;
  std::uint64_t shown_ = 0;
};

void report(const Options& options, const waymark::Job& job) {
  const double seconds = std::chrono::duration<double>(job.finished_at - job.submitted_at).count();
  std::cout << "job " << waymark::job_state_name(job.state) << " in " << std::fixed << std::setprecision(2) << seconds
            << " s, " << job.tasks << " tasks\n";
  if (job.state != waymark::JobState::completed) std::cout << job.error_type << ": " << job.error << '\n';

  const bool flushed = waymark::force_flush(10s);
  std::cout << '\n';
  waymark::Stats stats = waymark::stats();
  std::ranges::stable_sort(stats.destinations, {}, &waymark::DestinationStats::signal);
  for (const waymark::DestinationStats& d : stats.destinations) {
    if (d.name == "console" || d.name == "summary") continue;
    const waymark::Counts& counts = d.counts;
    constexpr const char* kWords[] = {"spans", "log records", "metrics"};
    std::cout << kWords[static_cast<std::size_t>(d.signal)] << ": " << counts.offered << " recorded, "
              << counts.delivered << " delivered, " << counts.dropped << " dropped";
    if (counts.rejected > 0) std::cout << ", " << counts.rejected << " rejected";
    if (counts.pending > 0) std::cout << ", " << counts.pending << " still to be sent";
    std::cout << ", to " << d.name << (d.last_error.empty() ? "" : ": " + d.last_error) << '\n';
  }
  report_metrics();
  if (!flushed) std::cout << "what is still to be sent is kept in " << (options.out / "state").string() << '\n';
}

int run(const Options& options) {
  fs::create_directories(options.out);
  waymark::install_crash_handler();
  configure_telemetry(options);
  waymark::Client client({.name = "scene-tiles", .store = (options.out / "store.db").string()});

  // The job's id lies in the output directory, for runners that help with it.
  const fs::path id_file = options.out / "job.id";
  std::string id;
  if (options.runner_only) {
    if (!(std::ifstream(id_file) >> id)) throw UsageError(id_file.string() + ": no job to help with");
    waymark::configure_console_logging({.level = waymark::Severity::warning});
  } else {
    const scene::ProcessScenes task{options.images, options.out.string(), options.tile,
                                    options.crash ? getpid() : 0};
    id = client.jobs().submit("scene tiles", task).id;
    std::ofstream(id_file) << id << '\n';
    std::cout << "job " << id << ": " << options.images.size() << (options.images.size() == 1 ? " image" : " images")
              << ", process " << getpid() << std::endl;
  }

  auto runner = client.runner<scene::ProcessScenes, scene::ReadScene, scene::Tile, scene::Mosaic, scene::Summary>(
      {.concurrency = options.concurrency});
  std::stop_source stop;
  auto work = std::async(std::launch::async, [&] { runner.run_forever(stop.get_token()); });
  ProgressLine progress;
  waymark::Job job;
  do {
    job = client.jobs().wait(id, 100ms);
    if (!options.runner_only) progress.show(job);
  } while (!job.finished() && work.wait_for(0s) == std::future_status::timeout);
  stop.request_stop();
  work.get();  // throws what ended the runner, if anything did

  report(options, job);
  waymark::shutdown();
  return job.state == waymark::JobState::completed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const UsageError& error) {
    std::cerr << "scene_tiles: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "scene_tiles: " << error.what() << '\n';
    return 1;
  }
}
