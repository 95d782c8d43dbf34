#include "waymark/workflow_testing.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "waymark/error.h"
#include "waymark/store.h"

namespace waymark::testing {
namespace {

constexpr auto kAttempt = std::chrono::milliseconds(1);     // what an attempt takes
constexpr auto kFlushPatience = std::chrono::seconds(60);

Config telemetry_config(const MemoryDestination& memory, const ManualClock& clock) {
  Config config = memory_config(memory);
  config.clock = clock.function();
  return config;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

struct Workbench::Parts {
  struct Injection {
    TaskName task;
    std::uint32_t attempt = 0;
    Matches matches;
    Fault fault = Fault::fail;
    std::string message;
  };

  explicit Parts(const WorkbenchOptions& o)
      : options(o.runner),
        telemetry(telemetry_config(memory, clock)),
        client({.name = "test",
                .store = "memory:",
                .telemetry = &telemetry,
                .cache_directory = o.cache_directory,
                .cache_spans = o.cache_spans,
                .time = {.now = clock.function(),
                         .pass = [this](std::chrono::nanoseconds by) { clock.advance(by); }}}) {
    options.concurrency = 1;
  }

  // Runs within the attempt, before the task.
  void before(const TaskName& task, std::string_view input, Context& context) {
    clock.advance(kAttempt);
    for (const Injection& injection : injections) {
      if (injection.task != task || (injection.attempt != 0 && injection.attempt != context.attempt())) continue;
      if (!injection.matches(input)) continue;
      switch (injection.fault) {
        case Fault::fail: throw std::runtime_error(injection.message);
        case Fault::time_out: {
          const std::chrono::nanoseconds timeout = detail::run_out_of_time(context);
          if (timeout.count() == 0) {
            throw NonRetryable("Workbench::time_out: task " + task.name +
                               " has no timeout: give it one where it is submitted");
          }
          clock.advance(timeout);
          throw Stopped();
        }
        case Fault::lose_runner: lose_runner(context); break;
      }
    }
  }

  // Another runner finds it dead, gives its tasks back, and goes. Of spans that this closed, the runner that goes on is
  // told.
  void lose_runner(Context& context) {
    clock.advance(options.lease);
    Store& store = client.store();
    const WorkerId other = store.join({.runner = SpanId::random().hex(), .name = "finder", .host = {}, .tasks = {}});
    const LostAttempt lost{.task = std::stoll(context.task_id()), .end = clock.now()};
    (void)store.release(other, runner, {&lost, 1}, options.max_lost);
    store.leave(other);
  }

  RunnerOptions options;
  std::string runner;  // the id of the one that runs
  ManualClock clock;
  MemoryDestination memory;
  Telemetry telemetry;
  Client client;
  std::vector<Injection> injections;
};

Workbench::Workbench(const WorkbenchOptions& options) : parts_(std::make_unique<Parts>(options)) {}
Workbench::~Workbench() = default;

Client& Workbench::client() noexcept { return parts_->client; }
ManualClock& Workbench::clock() noexcept { return parts_->clock; }

void Workbench::inject(const TaskName& task, std::uint32_t attempt, Matches matches, Fault fault, std::string message) {
  parts_->injections.push_back({task, attempt, std::move(matches), fault, std::move(message)});
}

void Workbench::run_all(std::vector<TaskType> tasks) {
  for (TaskType& task : tasks) {
    task.execute = [parts = parts_.get(), name = task.name, execute = std::move(task.execute)](std::string_view input,
                                                                                             Context& context) {
      parts->before(name, input, context);
      execute(input, context);
    };
  }
  Runner runner = parts_->client.make_runner(std::move(tasks), parts_->options);
  parts_->runner = runner.id();
  runner.run_all();
}

std::vector<ReadSpan> Workbench::spans() {
  parts_->telemetry.force_flush(kFlushPatience);
  return parts_->memory.spans();
}

std::vector<ReadLog> Workbench::logs() {
  parts_->telemetry.force_flush(kFlushPatience);
  return parts_->memory.logs();
}

std::string Workbench::trace() { return span_tree(spans()); }

std::string Workbench::golden(const std::string& path) { return golden_difference(path, trace()); }

std::string golden_difference(const std::string& path, std::string_view text) {
  const auto fail = [&](const char* doing) {
    throw Error(ErrorCode::io, "golden file " + path + ": could not " + doing + ": " + std::strerror(errno));
  };
  const char* update = std::getenv("WAYMARK_UPDATE_GOLDEN");
  if (update && *update && std::string_view(update) != "0") {
    std::error_code ignored;  // opening it says what is wrong
    if (const auto parent = std::filesystem::path(path).parent_path(); !parent.empty()) {
      std::filesystem::create_directories(parent, ignored);
    }
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    file.close();
    if (!file) fail("write it");
    return {};
  }
  std::string kept;
  errno = 0;
  if (std::ifstream file(path, std::ios::binary); file) {
    kept.assign(std::istreambuf_iterator<char>(file), {});
    if (file.bad()) fail("read it");
  } else if (errno != ENOENT) {
    fail("read it");
  }
  if (kept == text) return {};

  // The longest common run of lines at both ends is left out; what is between differs.
  const std::vector<std::string> before = lines_of(kept), after = lines_of(text);
  const auto [b, a] = std::mismatch(before.begin(), before.end(), after.begin(), after.end());
  const auto first = static_cast<std::size_t>(b - before.begin());
  std::size_t same_end = 0;
  while (same_end < before.size() - first && same_end < after.size() - first &&
         before[before.size() - 1 - same_end] == after[after.size() - 1 - same_end]) {
    ++same_end;
  }
  std::string difference = path + ", from line " + std::to_string(first + 1) +
                           " (WAYMARK_UPDATE_GOLDEN=1 writes it anew):\n";
  for (std::size_t i = first; i < before.size() - same_end; ++i) difference += "- " + before[i] + "\n";
  for (std::size_t i = first; i < after.size() - same_end; ++i) difference += "+ " + after[i] + "\n";
  return difference;
}

}  // namespace waymark::testing
