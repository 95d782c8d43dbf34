// What a runner counts and times, against what it has done.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "instrumentation.h"
#include "runner/temporary_directory.h"
#include "support/sanitized.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;

std::atomic<int> tries{0};

struct Steady {
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Steady, index)
  void execute(Context&) {}
};
struct FailsTwice {
  void execute(Context&) {
    if (++tries <= 2) throw std::runtime_error("not yet");
  }
};
struct Hopeless {
  void execute(Context&) { throw std::runtime_error("never"); }
};
struct Work {
  void execute(Context& context) {
    const auto done = context.submit_subtasks(std::vector<Steady>(3));
    context.submit_subtask(FailsTwice{}, {.depends_on = done, .max_retries = 5});
  }
};
// Until it is let go.
std::atomic<int> holding{0};
struct Held {
  void execute(Context&) {
    holding = 1;
    holding.notify_all();
    holding.wait(1);
  }
};
// Nobody here knows it.
struct Elsewhere {
  void execute(Context&) {}
};

// What any runner's first minute tells of; the others have tests of their own.
constexpr names::Metric kTold[] = {names::kTasksExecuted,  names::kTasksComputed, names::kTasksFailed,  names::kTaskInputSize,
                                   names::kTaskDuration,   names::kTasksRetried,  names::kTaskQueueWait, names::kTasksActive,
                                   names::kTasksStored,    names::kJobDuration,   names::kLeaseCount,    names::kIdleTime,
                                   names::kStoreDuration};

class RunnerMetricsTest : public ::testing::Test {
 protected:
  RunnerMetricsTest()
      : telemetry_([this] {
          Config config = testing::memory_config(memory_);
          config.metrics.interval = 1h;
          config.destinations.push_back(memory_.destination(Signal::metrics));
          return config;
        }()),
        client_({.name = "counted", .store = directory_.path() + "/store.db", .cluster = "west", .telemetry = &telemetry_}) {}

  std::map<std::string, ReadMetric> collected() {
    memory_.clear();
    EXPECT_TRUE(telemetry_.force_flush(60s));
    std::map<std::string, ReadMetric> all;
    for (ReadMetric& metric : memory_.metrics()) {
      EXPECT_EQ(metric.scope.name, names::kRunnerScope);
      all[metric.name] = std::move(metric);
    }
    return all;
  }
  // The points of this metric that have these attributes.
  static std::vector<ReadPoint> points(const std::map<std::string, ReadMetric>& all, std::string_view name,
                                       const std::map<std::string, std::string>& attributes = {}) {
    std::vector<ReadPoint> found;
    const auto metric = all.find(std::string(name));
    if (metric == all.end()) return found;
    for (const ReadPoint& point : metric->second.points) {
      bool all_there = true;
      for (const auto& [key, value] : attributes) all_there = all_there && find_string(point.attributes, key) == value;
      if (all_there) found.push_back(point);
    }
    return found;
  }
  static std::int64_t sum(const std::vector<ReadPoint>& points) {
    std::int64_t all = 0;
    for (const ReadPoint& point : points) all += std::get<std::int64_t>(point.value);
    return all;
  }
  static std::uint64_t count(const std::vector<ReadPoint>& points) {
    std::uint64_t all = 0;
    for (const ReadPoint& point : points) all += point.count;
    return all;
  }

  testing::TemporaryDirectory directory_;
  testing::MemoryDestination memory_;
  Telemetry telemetry_;
  Client client_;
};

TEST_F(RunnerMetricsTest, ARunnerThatCommitsEachResultHasACommitForEachTask) {
  constexpr int kTasks = 1000;
  client_.jobs().submit("many", std::vector<Steady>(kTasks));
  client_.runner<Steady>({.commit_each = true}).run_all();
  std::uint64_t exchanges = 0;
  for (const ReadPoint& p : points(collected(), names::kStoreDuration.name, {{std::string(names::kStoreOperation), "exchange"}})) {
    exchanges += p.count;
  }
  EXPECT_GE(exchanges, kTasks);
}

TEST_F(RunnerMetricsTest, CountsWhatItsSpansSay) {
  tries = 0;
  client_.jobs().submit("good", Work{});
  client_.jobs().submit("bad", Hopeless{});
  client_.jobs().submit("never", Elsewhere{});
  auto runner = client_.runner<Work, Steady, FailsTwice, Hopeless>(
      {.concurrency = 2, .lease = 30s, .backoff = {.initial = 1ms, .maximum = 2ms, .multiplier = 1}});
  runner.run_all();
  const auto all = collected();
  const auto spans = memory_.spans();
  for (const names::Metric& metric : kTold) {
    std::istringstream words{std::string(metric.attributes)};
    const std::set<std::string> keys{std::istream_iterator<std::string>(words), {}};
    const auto its_points = points(all, metric.name);
    EXPECT_FALSE(its_points.empty()) << metric.name;
    for (const ReadPoint& point : its_points) {
      std::set<std::string> told;
      for (const auto& [key, value] : point.attributes) told.insert(key);
      EXPECT_EQ(told, keys) << metric.name;
    }
  }

  // Work, three of Steady, three attempts at FailsTwice, one at Hopeless.
  EXPECT_EQ(sum(points(all, "task.executed.count")), 8);
  EXPECT_EQ(sum(points(all, "task.computed.count")), 5);
  EXPECT_EQ(sum(points(all, "task.failed.count")), 3);
  EXPECT_EQ(sum(points(all, "workflow.task.retried.count")), 2);
  const std::map<std::string, std::string> unlucky{{"task_identifier", "FailsTwice"}, {"task_version", "v0.0"}, {"workflow.cluster", "west"}};
  EXPECT_EQ(sum(points(all, "task.executed.count", unlucky)), 3);
  EXPECT_EQ(sum(points(all, "task.failed.count", unlucky)), 2);
  EXPECT_EQ(count(points(all, "task.input.size")), 8u);
  EXPECT_EQ(count(points(all, "workflow.task.queue_wait.duration")), 8u);
  EXPECT_EQ(all.at("task.execution.duration").kind, ReadMetric::Kind::exponential_histogram);
  EXPECT_EQ(count(points(all, "task.execution.duration", {{"state", "computed"}})), 5u);
  EXPECT_EQ(count(points(all, "task.execution.duration", {{"state", "retried"}})), 2u);
  EXPECT_EQ(count(points(all, "task.execution.duration", {{"state", "failed"}})), 1u);
  EXPECT_EQ(points(all, "workflow.task.active").size(), 1u);
  EXPECT_EQ(sum(points(all, "workflow.task.active")), 0);
  EXPECT_EQ(count(points(all, "workflow.job.duration", {{"state", "completed"}})), 1u);
  EXPECT_EQ(count(points(all, "workflow.job.duration", {{"state", "failed"}})), 1u);
  EXPECT_GE(sum(points(all, "workflow.lease.renewal.count", {{"state", "renewed"}})), 1);
  EXPECT_GE(count(points(all, "workflow.store.operation.duration", {{"workflow.store.operation", "exchange"}})), 2u);
  EXPECT_EQ(count(points(all, "workflow.store.operation.duration", {{"workflow.store.operation", "join"}})), 1u);
  // Durations of attempts are those of their spans.
  double seconds = 0;
  for (const ReadPoint& point : points(all, "task.execution.duration")) seconds += point.sum.value();
  double of_spans = 0;
  for (const ReadSpan& span : memory_.spans()) {
    if (span.name.starts_with("task/")) of_spans += std::chrono::duration<double>(span.end - span.start).count();
  }
  EXPECT_NEAR(seconds, of_spans, 1e-6);
}

TEST_F(RunnerMetricsTest, TellsWhatIsInTheStore) {
  const auto runner = client_.runner<Work, Elsewhere>({});  // not running
  client_.jobs().submit("one", Elsewhere{});
  client_.jobs().submit("two", Elsewhere{});
  client_.jobs().submit("three", Work{});
  const auto all = collected();
  EXPECT_EQ(all.at("workflow.task.count").kind, ReadMetric::Kind::gauge);
  EXPECT_EQ(sum(points(all, "workflow.task.count", {{"state", "ready"}, {"task_identifier", "Elsewhere"}, {"workflow.cluster", "west"}})), 2);
  EXPECT_EQ(sum(points(all, "workflow.task.count", {{"state", "ready"}})), 3);
  // What is there no longer is zero, which is another thing than a runner that says nothing.
  tries = 0;
  client_.runner<Work, Steady, FailsTwice, Elsewhere>({.backoff = {.initial = 1ms, .maximum = 2ms, .multiplier = 1}}).run_all();
  const auto drained = collected();
  const auto ready = points(drained, "workflow.task.count", {{"state", "ready"}, {"task_identifier", "Elsewhere"}});
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_EQ(sum(ready), 0);
  EXPECT_EQ(sum(points(drained, "workflow.task.count")), 0);
}

// What lasts for hours is told while it lasts, and what began before anybody counted is not counted below zero at its end.
TEST_F(RunnerMetricsTest, WhatRunsAndWhatWaitsAreToldWhileTheyDo) {
  holding = 0;
  testing::MemoryDestination late;
  Telemetry telemetry(testing::memory_config(late));
  Client client({.name = "late", .store = directory_.path() + "/late.db", .telemetry = &telemetry});
  client.jobs().submit("held", Held{});
  auto runner = client.runner<Held>({.concurrency = 2});
  std::thread running([&] { runner.run_all(); });
  holding.wait(0);
  telemetry.add(late.destination(Signal::metrics));
  const auto told = [&](std::string_view name) -> std::optional<AnyValue> {
    late.clear();
    EXPECT_TRUE(telemetry.force_flush(60s));
    std::optional<AnyValue> value;
    for (const ReadMetric& metric : late.metrics()) {
      if (metric.name != name || metric.points.empty()) continue;
      const auto& number = metric.points[0].value;
      value = std::holds_alternative<double>(number) ? AnyValue{std::get<double>(number)} : AnyValue{std::get<std::int64_t>(number)};
    }
    return value;
  };
  EXPECT_EQ(told("workflow.task.active"), AnyValue{std::int64_t{1}});
  // The other thread waits, or will in a moment.
  const auto end = std::chrono::steady_clock::now() + 60s;
  bool waited = false;
  while (!waited && std::chrono::steady_clock::now() < end) {
    const auto idle = told("workflow.runner.idle.time");
    waited = idle && std::get<double>(idle->value) > 0;
  }
  EXPECT_TRUE(waited);
  holding = 2;
  holding.notify_all();
  running.join();
  EXPECT_EQ(told("workflow.task.active"), AnyValue{std::int64_t{0}});
}

TEST_F(RunnerMetricsTest, AChildOfForkDoesNotAskItsParentsStore) {
  SKIP_IF_NO_FORK_BESIDE_THREADS();
  const auto runner = client_.runner<Elsewhere>({});
  client_.jobs().submit("one", Elsewhere{});
  EXPECT_EQ(sum(points(collected(), "workflow.task.count")), 1);
  memory_.clear();
  const pid_t child = fork();
  if (child == 0) {
    telemetry_.meter(names::kRunnerScope).counter("mine").add(1);
    if (!telemetry_.force_flush(60s)) _exit(1);
    const auto metrics = memory_.metrics();
    const auto named = [&](std::string_view name) { return std::ranges::any_of(metrics, [&](const auto& m) { return m.name == name; }); };
    if (!named("mine")) _exit(2);
    _exit(named("workflow.task.count") || named("workflow.task.active") ? 3 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(RunnerMetricsTest, HasTheNamesOfTilebox) {
  client_.jobs().submit("bad", Hopeless{});
  client_.runner<Hopeless, Steady>({.concurrency = 1}).run_all();
  client_.jobs().submit("good", Steady{1});
  client_.runner<Hopeless, Steady>({.concurrency = 1}).run_all();
  std::map<std::string, std::string> units;
  for (const auto& [name, metric] : collected()) units[name] = metric.unit;
  EXPECT_EQ(units["task.executed.count"], "1");
  EXPECT_EQ(units["task.computed.count"], "1");
  EXPECT_EQ(units["task.failed.count"], "1");
  EXPECT_EQ(units["task.input.size"], "By");
  EXPECT_EQ(units["task.execution.duration"], "s");
}

}  // namespace
}  // namespace waymark
