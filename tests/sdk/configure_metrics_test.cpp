// configure_otel_metrics(), in processes of their own.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <set>
#include <thread>

#include "process.h"
#include "support/holds.h"
#include "waymark/configure.h"
#include "waymark/reader.h"

namespace waymark {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using testing::require;

class ConfigureMetricsTest : public testing::InAProcess {
 protected:
  [[nodiscard]] std::vector<ReadMetric> sent(const std::string& name) const {
    return read(name).metrics;
  }
  [[nodiscard]] std::vector<std::string> names(const std::string& name) const {
    std::vector<std::string> all;
    for (const ReadMetric& metric : sent(name)) all.push_back(metric.name);
    return all;
  }
};

TEST_F(ConfigureMetricsTest, SendsTheProgramsTheProcesssAndItsOwnAtTheEnd) {
  HOLDS("MT-01", "MT-67");
  const std::string endpoint = file("metrics.jsonl");
  IN_A_PROCESS({
    configure_otel_metrics({.service = "counting", .endpoint = endpoint, .interval = std::chrono::hours(1)});
    meter("program", "2").counter("tasks").add(3, {{"kind", "tile"}});
  });
  const auto metrics = sent("metrics.jsonl");
  ASSERT_FALSE(metrics.empty());
  EXPECT_EQ(find_string(metrics[0].resource, "service.name"), "counting");
  EXPECT_THAT(names("metrics.jsonl"), Contains("tasks"));
  EXPECT_THAT(names("metrics.jsonl"), Contains("process.cpu.time"));
  EXPECT_THAT(names("metrics.jsonl"), Contains("otel.sdk.log.created"));
}

TEST_F(ConfigureMetricsTest, CanLeaveOutWhatTheProgramDidNotCount) {
  const std::string endpoint = file("metrics.jsonl");
  IN_A_PROCESS({
    setenv("OTEL_METRICS_ENDPOINT", endpoint.c_str(), 1);
    const auto before = meter("program").counter("before");
    before.add(1);
    configure_otel_metrics({.service = "counting",
                            .temporality = Temporality::delta,
                            .views = {View{.select = {.name = "tasks"}, .name = "renamed"}},
                            .process = false,
                            .sdk = false});
    meter("program").counter("tasks").add(3);
    require(force_flush(std::chrono::seconds(30)), "it is delivered");
    meter("program").counter("tasks").add(4);
  });
  const auto metrics = sent("metrics.jsonl");
  ASSERT_EQ(metrics.size(), 2u);
  EXPECT_EQ(metrics[0].name, "renamed");
  EXPECT_TRUE(metrics[0].delta);
  EXPECT_EQ(std::get<std::int64_t>(metrics[1].points.at(0).value), 4);
  EXPECT_EQ(metrics[1].points[0].start, metrics[0].points.at(0).time);
}

TEST_F(ConfigureMetricsTest, AnotherDestinationIsFineAndAnotherCollectionIsRefused) {
  const std::string one = file("one.jsonl");
  const std::string two = file("two.jsonl");
  const std::string traces = file("traces.jsonl");
  IN_A_PROCESS({
    configure_otel_tracing({.service = "counting", .endpoint = traces});
    configure_otel_metrics({.service = "counting", .endpoint = one, .interval = std::chrono::hours(1)});
    configure_otel_metrics({.service = "counting", .endpoint = two});
    testing::code_of([&] { configure_otel_metrics({.service = "counting", .endpoint = two, .temporality = Temporality::delta}); },
                     "the same for all destinations");
    meter("program").counter("tasks").add(1);
  });
  EXPECT_THAT(names("one.jsonl"), Contains("tasks"));
  EXPECT_THAT(names("two.jsonl"), Contains("tasks"));
}

// A header is renewed by the same call again; of the collection it says the same, or nothing.
TEST_F(ConfigureMetricsTest, TheSameCallTwiceIsFineAndWhatIsNotSaidAgainStays) {
  const std::string one = file("one.jsonl");
  const std::string two = file("two.jsonl");
  IN_A_PROCESS({
    const MetricsOptions options{.service = "counting",
                                 .endpoint = one,
                                 .interval = std::chrono::hours(1),
                                 .views = {View{.select = {.name = "tasks"}, .name = "renamed"}},
                                 .process = false,
                                 .sdk = false};
    configure_otel_metrics(options);
    configure_otel_metrics(options);
    setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000", 1);
    configure_otel_metrics({.service = "counting", .endpoint = two});
    testing::code_of([&] { configure_otel_metrics({.service = "counting", .endpoint = two, .process = true}); },
                     "the same for all destinations");
    testing::code_of([&] { configure_otel_metrics({.service = "counting", .endpoint = two, .views = {View{.select = {.name = "x"}}}}); },
                     "the same for all destinations");
    meter("program").counter("tasks").add(1);
  });
  EXPECT_THAT(names("one.jsonl"), ElementsAre("renamed"));
  EXPECT_THAT(names("two.jsonl"), ElementsAre("renamed"));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// GCC 12's sanitizers do not survive a fork beside other threads.
TEST_F(ConfigureMetricsTest, AChildOfForkCountsFromZeroAndItsParentGoesOn) {
  HOLDS("MT-47");
  const std::string endpoint = file("metrics.jsonl");
  IN_A_PROCESS({
    configure_otel_metrics({.service = "forks", .endpoint = endpoint, .interval = std::chrono::hours(1), .sdk = false});
    const auto counter = meter("program").counter("tasks");
    const auto bound = counter.bind({{"who", "anybody"}});
    const auto sizes = meter("program").histogram("sizes", {.unit = "By"});
    meter("program").observable_gauge<std::int64_t>("pid", {}, [](const Observer<std::int64_t>& o) { o.observe(getpid()); });
    std::thread([&] { counter.add(100); }).join();
    for (int i = 0; i < 3; ++i) {
      counter.add(1);
      bound.add(10);
      sizes.record(7);
    }
    const pid_t child = fork();
    if (child == 0) {
      counter.add(2);
      bound.add(20);
      sizes.record(8);
      std::exit(0);
    }
    int status = 0;
    require(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child did well");
    counter.add(5);
  });
  std::map<std::int64_t, std::map<std::string, ReadMetric>> by_process;
  for (const ReadMetric& metric : sent("metrics.jsonl")) {
    const AnyValue* pid = find(metric.resource, "process.pid");
    ASSERT_NE(pid, nullptr);
    by_process[std::get<std::int64_t>(pid->value)][metric.name] = metric;
  }
  ASSERT_EQ(by_process.size(), 2u);
  std::set<std::int64_t> plain;
  std::map<std::int64_t, Timestamp> starts;  // of the value
  std::set<std::int64_t> bound;
  std::set<std::uint64_t> sizes;
  for (auto& [pid, metrics] : by_process) {
    for (const ReadPoint& point : metrics.at("tasks").points) {
      (point.attributes.empty() ? plain : bound).insert(std::get<std::int64_t>(point.value));
      starts[std::get<std::int64_t>(point.value)] = point.start;
    }
    sizes.insert(metrics.at("sizes").points.at(0).count);
    EXPECT_EQ(std::get<std::int64_t>(metrics.at("pid").points.at(0).value), pid);
    EXPECT_TRUE(metrics.contains("process.cpu.time"));
  }
  EXPECT_EQ(plain, (std::set<std::int64_t>{2, 108}));
  EXPECT_GT(starts[2], starts[108]) << "a new start says that it counts anew";
  EXPECT_EQ(bound, (std::set<std::int64_t>{20, 30}));
  EXPECT_EQ(sizes, (std::set<std::uint64_t>{1, 3}));
}
#endif

}  // namespace
}  // namespace waymark
