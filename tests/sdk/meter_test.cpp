// Metrics from the instrument to the destination, as the official protobuf classes read them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <latch>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "sdk/recorded.h"
#include "support/holds.h"

namespace waymark {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ManualClock;
using testing::MemoryDestination;
using testing::official_json;

constexpr seconds kLong{60};

// A Telemetry in memory with a destination of metrics; told() flushes and gives the last collection's by name, official.
class Measured {
 public:
  explicit Measured(MetricConfig metrics = {}, std::function<void(Config&)> change = {}) {
    Config config = testing::memory_config(memory_);
    config.metrics = std::move(metrics);
    config.metrics.interval = std::chrono::hours(1);
    config.destinations.push_back(memory_.destination(Signal::metrics));
    if (change) change(config);
    telemetry_ = std::make_unique<Telemetry>(std::move(config));
  }
  Telemetry& telemetry() { return *telemetry_; }
  MemoryDestination& memory() { return memory_; }
  Meter meter() { return telemetry_->meter("test", "1"); }

  std::map<std::string, json> told() {
    memory_.clear();
    EXPECT_TRUE(telemetry_->force_flush(kLong));
    return official(memory_);
  }
  static std::map<std::string, json> official(const MemoryDestination& memory) {
    std::map<std::string, json> found;
    for (const std::string& request : memory.requests(Signal::metrics)) {
      const json decoded = json::parse(official_json(Signal::metrics, request));
      EXPECT_EQ(json::parse(request_to_json(Signal::metrics, request)), decoded) << "our JSON is the official one";
      for (const auto& resource : decoded["resourceMetrics"]) {
        EXPECT_TRUE(resource.contains("resource"));
        for (const auto& scope : resource["scopeMetrics"]) {
          for (const auto& metric : scope["metrics"]) {
            EXPECT_FALSE(found.contains(metric["name"])) << metric["name"];
            found[metric["name"]] = metric;
          }
        }
      }
    }
    return found;
  }

 private:
  MemoryDestination memory_;
  std::unique_ptr<Telemetry> telemetry_;
};

// Of the only destination of this signal.
Counts counts(const Telemetry& telemetry, Signal signal) {
  const Stats stats = telemetry.stats();
  for (const DestinationStats& d : stats.destinations) {
    if (d.signal == signal) return d.counts;
  }
  ADD_FAILURE() << "no destination of " << signal_name(signal);
  return {};
}

void record_all_kinds(const Meter& meter) {
  meter.counter("whole", {.unit = "{task}", .description = "Tasks"}).add(7, {{"cluster", "a"}});
  meter.counter<double>("real").add(0.5);
  meter.up_down_counter("level").add(-3);
  meter.gauge("temperature", {.unit = "Cel"}).record(21.5);
  meter.gauge<std::int64_t>("floor").record(-2);
  const auto sizes = meter.histogram("sizes", {.unit = "By", .boundaries = {1, 10}});
  for (const double v : {0.0, 1.0, 5.0, 100.0}) sizes.record(v);
  const auto time = meter.histogram("time", {.unit = "s"});
  for (const double v : {0.0, 0.25, 1.0}) time.record(v);
  meter.observable_counter("seen", {}, [](const Observer<std::int64_t>& o) { o.observe(12); });
}

TEST(MeterTest, EveryAggregationIsWhatTheOfficialClassesRead) {
  HOLDS("MT-01", "MT-33", "MT-69", "JS-15", "PB-03", "PB-04", "PB-13", "PB-19");
  for (const Temporality temporality : {Temporality::cumulative, Temporality::delta, Temporality::lowmemory}) {
    MetricConfig config;
    config.temporality = temporality;
    Measured measured(config);
    record_all_kinds(measured.meter());
    auto told = measured.told();
    ASSERT_EQ(told.size(), 8u);
    const int of_counters = temporality == Temporality::cumulative ? 2 : 1;
    const int of_observed = temporality == Temporality::delta ? 1 : 2;
    EXPECT_EQ(told["whole"]["unit"], "{task}");
    EXPECT_EQ(told["whole"]["description"], "Tasks");
    EXPECT_EQ(told["whole"]["sum"]["aggregationTemporality"], of_counters);
    EXPECT_EQ(told["whole"]["sum"]["isMonotonic"], true);
    EXPECT_EQ(told["whole"]["sum"]["dataPoints"][0]["asInt"], "7");
    EXPECT_EQ(told["whole"]["sum"]["dataPoints"][0]["attributes"], json::parse(R"([{"key":"cluster","value":{"stringValue":"a"}}])"));
    EXPECT_EQ(told["real"]["sum"]["dataPoints"][0]["asDouble"], 0.5);
    EXPECT_EQ(told["level"]["sum"]["aggregationTemporality"], 2);
    EXPECT_FALSE(told["level"]["sum"].contains("isMonotonic"));
    EXPECT_EQ(told["level"]["sum"]["dataPoints"][0]["asInt"], "-3");
    EXPECT_EQ(told["temperature"]["gauge"]["dataPoints"][0]["asDouble"], 21.5);
    EXPECT_EQ(told["floor"]["gauge"]["dataPoints"][0]["asInt"], "-2");
    const json sizes = told["sizes"]["histogram"]["dataPoints"][0];
    EXPECT_EQ(told["sizes"]["histogram"]["aggregationTemporality"], of_counters);
    EXPECT_EQ(sizes["bucketCounts"], json::parse(R"(["2","1","1"])"));
    EXPECT_EQ(sizes["explicitBounds"], json::parse("[1.0,10.0]"));
    EXPECT_EQ(sizes["count"], "4");
    EXPECT_EQ(sizes["sum"], 106.0);
    EXPECT_EQ(sizes["min"], 0.0) << "a zero that is set is written";
    EXPECT_EQ(sizes["max"], 100.0);
    const json time = told["time"]["exponentialHistogram"]["dataPoints"][0];
    EXPECT_EQ(time["count"], "3");
    EXPECT_EQ(time["zeroCount"], "1");
    // 0.25 and 1 are 2^-2 and 2^0: bucket -2*2^s - 1 and -1.
    EXPECT_EQ(time["scale"], 6);
    EXPECT_EQ(time["positive"]["offset"], -129);
    EXPECT_EQ(time["positive"]["bucketCounts"].size(), 129u);
    EXPECT_EQ(time["positive"]["bucketCounts"][0], "1");
    EXPECT_EQ(time["positive"]["bucketCounts"][128], "1");
    EXPECT_EQ(told["seen"]["sum"]["aggregationTemporality"], of_observed);
    EXPECT_EQ(told["seen"]["sum"]["dataPoints"][0]["asInt"], "12");
    for (const auto& [name, metric] : told) {
      for (const char* kind : {"sum", "gauge", "histogram", "exponentialHistogram"}) {
        if (!metric.contains(kind)) continue;
        for (const json& point : metric[kind]["dataPoints"]) {
          EXPECT_TRUE(point.contains("timeUnixNano")) << name;
          EXPECT_EQ(point.contains("startTimeUnixNano"), std::string(kind) != "gauge") << name;
        }
      }
    }
  }
}

TEST(MeterTest, ReadersGiveWhatWasMeasured) {
  HOLDS("TR-87");
  Measured measured;
  record_all_kinds(measured.meter());
  (void)measured.told();
  const auto metrics = measured.memory().metrics();
  ASSERT_EQ(metrics.size(), 8u);
  EXPECT_EQ(metrics[0].name, "whole");
  EXPECT_EQ(metrics[0].scope.name, "test");
  EXPECT_EQ(metrics[0].scope.version, "1");
  EXPECT_EQ(find_string(metrics[0].resource, "service.name"), "test");
  ReadTelemetry file;
  const auto path = std::filesystem::temp_directory_path() / ("waymark-metrics-" + std::to_string(getpid()) + ".jsonl");
  std::FILE* out = std::fopen(path.c_str(), "w");
  std::fputs((request_to_json(Signal::metrics, measured.memory().requests(Signal::metrics)[0]) + "\n").c_str(), out);
  std::fclose(out);
  EXPECT_EQ(read_json_file(path).metrics.size(), 8u);
  std::filesystem::remove(path);
}

TEST(MeterTest, IsCollectedAtTheInterval) {
  HOLDS("MT-64");
  std::mutex mutex;
  std::condition_variable came;
  int collections = 0;
  Config config = testing::memory_config(MemoryDestination());
  config.metrics.interval = std::chrono::milliseconds(20);
  DestinationConfig destination;
  destination.name = "seen";
  destination.signal = Signal::metrics;
  destination.output = Output::callback;
  destination.batch.interval = std::chrono::milliseconds(1);
  std::atomic<int> at_once{0};
  destination.deliver = [&](Signal, std::string_view) {
    EXPECT_EQ(at_once.fetch_add(1), 0) << "one at a time";
    const std::scoped_lock lock(mutex);
    ++collections;
    came.notify_all();
    --at_once;
    return DeliveryResult{};
  };
  config.destinations.push_back(destination);
  Telemetry telemetry(std::move(config));
  telemetry.meter("m").counter("c").add(1);
  std::unique_lock lock(mutex);
  EXPECT_TRUE(came.wait_for(lock, kLong, [&] { return collections >= 3; }));
}

TEST(MeterTest, TheLastValuesAreSentAtTheEnd) {
  HOLDS("MT-66", "MT-67");
  Measured measured;
  const auto counter = measured.meter().counter("c");
  counter.add(1);
  EXPECT_EQ(measured.told().at("c")["sum"]["dataPoints"][0]["asInt"], "1");
  counter.add(1);
  measured.memory().clear();
  EXPECT_TRUE(measured.telemetry().shutdown(kLong));
  EXPECT_EQ(Measured::official(measured.memory()).at("c")["sum"]["dataPoints"][0]["asInt"], "2");
  EXPECT_FALSE(counter.enabled());
  counter.add(1);
  EXPECT_TRUE(measured.telemetry().shutdown(kLong));
  EXPECT_EQ(measured.memory().requests(Signal::metrics).size(), 1u);
}

TEST(MeterTest, WithoutADestinationNothingIsCounted) {
  HOLDS("MT-22");
  testing::Recorded recorded;
  const auto counter = recorded.telemetry().meter("m").counter("c");
  EXPECT_FALSE(counter.enabled());
  counter.add(5);
  MemoryDestination memory;
  recorded.telemetry().add(memory.destination(Signal::metrics));
  EXPECT_TRUE(counter.enabled());
  counter.add(1);
  ASSERT_TRUE(recorded.telemetry().force_flush(kLong));
  EXPECT_EQ(Measured::official(memory).at("c")["sum"]["dataPoints"][0]["asInt"], "1");
}

TEST(MeterTest, ACollectionWaitsInTheJournalForABackendThatComesBack) {
  std::atomic<bool> up{false};
  MemoryDestination memory;
  Measured measured({}, [&](Config& config) {
    DestinationConfig d = memory.destination(Signal::metrics, "down");
    d.retry.initial = d.retry.maximum = std::chrono::milliseconds(1);
    d.deliver = [&up, inner = d.deliver](Signal signal, std::string_view request) {
      return up ? inner(signal, request) : DeliveryResult{.outcome = Outcome::retry};
    };
    config.destinations.back() = d;
  });
  measured.meter().counter("c").add(1);
  EXPECT_FALSE(measured.telemetry().force_flush(std::chrono::milliseconds(50)));
  EXPECT_EQ(counts(measured.telemetry(), Signal::metrics).pending, 1u);
  up = true;
  EXPECT_TRUE(measured.telemetry().force_flush(kLong));
  EXPECT_GE(memory.metrics().size(), 2u) << "the first collection, and the flush's own";
}

TEST(MeterTest, ALargeCollectionGoesThroughASmallRecorder) {
  MetricConfig config;
  config.cardinality_limit = 50'000;
  Measured measured(config, [](Config& c) { c.recorder.max_bytes = 2u << 20; });
  const auto counter = measured.meter().counter("c");
  constexpr int kSets = 30'000;
  const std::string path(60, 'p');
  for (int i = 0; i < kSets; ++i) counter.add(1, {{"path", path}, {"i", i}});
  ASSERT_TRUE(measured.telemetry().force_flush(kLong));
  std::size_t points = 0;
  for (const ReadMetric& metric : measured.memory().metrics()) points += metric.points.size();
  EXPECT_EQ(points, static_cast<std::size_t>(kSets));
  EXPECT_EQ(counts(measured.telemetry(), Signal::metrics).dropped, 0u);
}

// More threads than there are rings: the collection's is one that others write too.
TEST(MeterTest, ACollectionMayShareItsRingWithWhoeverRecords) {
  Measured measured({}, [](Config& c) {
    c.recorder.max_bytes = 1 << 20;
    c.recorder.ring_bytes = 128 * 1024;
  });
  Telemetry& telemetry = measured.telemetry();
  const auto counter = measured.meter().counter("c");
  constexpr int kThreads = 24;
  std::latch lanes_lent(kThreads);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      { auto span = telemetry.tracer("t").span("s"); }
      lanes_lent.count_down();
      while (!stop) {
        auto span = telemetry.tracer("t").span("s");
        counter.add(1);
      }
    });
  }
  lanes_lent.wait();
  for (int i = 0; i < 20; ++i) static_cast<void>(telemetry.force_flush(seconds(5)));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  static_cast<void>(telemetry.force_flush(kLong));
  const Counts c = counts(telemetry, Signal::metrics);
  EXPECT_GE(c.delivered, 1u);
  EXPECT_EQ(c.offered, c.delivered + c.dropped);
}

TEST(MeterTest, ACallbackMayUseTheTelemetryAndAHookDoesNotSeeMetrics) {
  std::atomic<int> hooked{0};
  std::atomic<bool> first{true};
  Measured measured({}, [&](Config& config) {
    config.on_record = [&](RecordEditor&) {
      ++hooked;
      return Verdict::keep;
    };
  });
  Telemetry& telemetry = measured.telemetry();
  measured.meter().observable_gauge<std::int64_t>("spans", {}, [&](const Observer<std::int64_t>& o) {
    { auto span = telemetry.tracer("t").span("in the callback"); }
    telemetry.logger("l").info("in the callback");
    o.observe(static_cast<std::int64_t>(telemetry.stats().spans));
    // Again at the end, which is not to be waited for either.
    if (first.exchange(false)) {
      EXPECT_FALSE(telemetry.force_flush(kLong)) << "a collection does not wait for itself";
    }
  });
  EXPECT_EQ(measured.told().at("spans")["gauge"]["dataPoints"][0]["asInt"], "1");
  EXPECT_EQ(hooked, 2);
}

// Nothing but what it would have observed is held up, and whose it is is said.
TEST(MeterTest, ACallbackThatHangsHoldsUpNothingElse) {
  HOLDS("MT-66", "MT-68");
  std::latch go(1);
  std::latch again(1);
  std::atomic<int> calls{0};
  std::mutex mutex;
  std::vector<std::string> said;
  Measured measured({}, [&](Config& config) {
    config.error_handler = [&](DiagnosticLevel, std::string_view message) {
      const std::scoped_lock lock(mutex);
      said.emplace_back(message);
    };
  });
  // Also where the test ends early.
  struct LetGo {
    std::latch& latch;
    ~LetGo() {
      if (!latch.try_wait()) latch.count_down();
    }
  };
  const LetGo let_go{go};
  const auto counter = measured.meter().counter("c");
  counter.add(3);
  measured.meter().observable_gauge("hung", {}, [&](const Observer<double>&) {
    if (calls++ == 0) go.wait();
    else again.count_down();
  });
  { auto span = measured.telemetry().tracer("t").span("work"); }
  EXPECT_FALSE(measured.telemetry().force_flush(seconds(4)));
  EXPECT_EQ(measured.memory().spans().size(), 1u);
  EXPECT_EQ(Measured::official(measured.memory()).at("c")["sum"]["dataPoints"][0]["asInt"], "3");
  {
    const std::scoped_lock lock(mutex);
    EXPECT_THAT(said, Contains(HasSubstr("the callback of instrument hung of meter test has not returned")));
  }
  counter.add(1);
  measured.memory().clear();
  EXPECT_FALSE(measured.telemetry().shutdown(seconds(4))) << "what is observed was not sent";
  EXPECT_EQ(Measured::official(measured.memory()).at("c")["sum"]["dataPoints"][0]["asInt"], "4");
  EXPECT_EQ(counts(measured.telemetry(), Signal::metrics).dropped, 0u);
  go.count_down();
  again.wait();
  EXPECT_GE(counts(measured.telemetry(), Signal::metrics).dropped, 1u) << "what comes too late is counted";
}

TEST(MeterTest, ExemplarsNameTheSpanOfTheMeasurement) {
  HOLDS("MT-55", "JS-01");
  Measured measured;
  const auto time = measured.meter().histogram("time", {.unit = "s"});
  {
    auto span = measured.telemetry().tracer("t").span("work");
    time.record(0.5);
  }
  const json exemplar = measured.told().at("time")["exponentialHistogram"]["dataPoints"][0]["exemplars"][0];
  const auto spans = measured.memory().spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(exemplar["asDouble"], 0.5);
  EXPECT_EQ(exemplar["traceId"], spans[0].context.trace_id.hex());
  EXPECT_EQ(exemplar["spanId"], spans[0].context.span_id.hex());
}

TEST(MeterTest, ConfigurationsThatMakeNoSenseAreRefusedByName) {
  HOLDS("MT-27");
  const auto refusal = [](MetricConfig metrics) -> std::string {
    try {
      Config config = testing::memory_config(MemoryDestination());
      config.metrics = std::move(metrics);
      const Telemetry telemetry(std::move(config));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto view = [](View v) {
    MetricConfig config;
    config.views.push_back(std::move(v));
    return config;
  };
  MetricConfig never;
  never.interval = seconds(0);
  EXPECT_THAT(refusal(never), HasSubstr("metrics.interval: expected 1 ms to a year"));
  MetricConfig limit;
  limit.cardinality_limit = 0;
  EXPECT_THAT(refusal(limit), HasSubstr("metrics.cardinality_limit: 0: expected"));
  EXPECT_THAT(refusal(view({.select = {.name = "a*"}, .name = "one"})), HasSubstr("views[0].name: 'one' would be the name of several"));
  EXPECT_THAT(refusal(view({.boundaries = {2, 1}})), HasSubstr("views[0].boundaries: expected finite numbers"));
  EXPECT_THAT(refusal(view({.max_buckets = 1})), HasSubstr("views[0].max_buckets: expected 2 to 1024"));
  EXPECT_THAT(refusal(view({.max_scale = 21})), HasSubstr("views[0].max_scale"));
}

// ---- the process's and Waymark's own

TEST(ProcessMetricsTest, TellWhatTheKernelTells) {
  MetricConfig config;
  config.process = true;
  Measured measured(config);
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::unique_lock held(mutex);
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { const std::scoped_lock lock(mutex); });
  auto told = measured.told();
  held.unlock();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(told.size(), 6u);
  const json cpu = told["process.cpu.time"]["sum"]["dataPoints"];
  ASSERT_EQ(cpu.size(), 2u);
  EXPECT_EQ(cpu[0]["attributes"][0]["value"]["stringValue"], "user");
  EXPECT_EQ(told["process.cpu.time"]["unit"], "s");
  EXPECT_GE(std::stoll(told["process.thread.count"]["sum"]["dataPoints"][0]["asInt"].get<std::string>()), 4 + 3);
  EXPECT_GT(std::stoll(told["process.memory.usage"]["sum"]["dataPoints"][0]["asInt"].get<std::string>()), 1 << 20);
  EXPECT_GT(std::stoll(told["process.memory.virtual"]["sum"]["dataPoints"][0]["asInt"].get<std::string>()),
            std::stoll(told["process.memory.usage"]["sum"]["dataPoints"][0]["asInt"].get<std::string>()));
  EXPECT_GE(std::stoll(told["process.unix.file_descriptor.count"]["sum"]["dataPoints"][0]["asInt"].get<std::string>()), 3);
  EXPECT_GE(told["process.uptime"]["gauge"]["dataPoints"][0]["asDouble"].get<double>(), 0);
}

std::string attribute(const json& point, const std::string& key) {
  for (const json& a : point.value("attributes", json::array())) {
    if (a["key"] == key) return a["value"]["stringValue"];
  }
  return "";
}
std::uint64_t whole(const json& metric, const std::map<std::string, std::string>& attributes) {
  for (const json& point : metric["sum"]["dataPoints"]) {
    bool all = true;
    for (const auto& [key, value] : attributes) all = all && attribute(point, key) == value;
    if (attributes.count("error.type") == 0 && !attribute(point, "error.type").empty()) all = false;
    if (all) return std::stoull(point["asInt"].get<std::string>());
  }
  ADD_FAILURE() << "no such point in " << metric.dump(1);
  return 0;
}

TEST(SelfMetricsTest, AgreeWithStatsAndTheAccountsAddUp) {
  HOLDS("SO-01", "SO-04", "SO-06", "SO-07", "SO-08", "SO-11");
  MetricConfig config;
  config.sdk = true;
  Measured measured(config, [](Config& c) {
    DestinationConfig some;
    some.name = "some";
    some.signal = Signal::traces;
    some.output = Output::callback;
    some.span_filter = [](const ReadSpan& span) { return span.name != "filtered"; };
    some.deliver = [](Signal, std::string_view) { return DeliveryResult{.outcome = Outcome::delivered, .rejected = 3, .message = "three"}; };
    c.destinations.push_back(some);
  });
  Telemetry& telemetry = measured.telemetry();
  const Tracer tracer = telemetry.tracer("t");
  for (int i = 0; i < 10; ++i) auto span = tracer.span("sent");
  for (int i = 0; i < 4; ++i) auto span = tracer.span("filtered");
  for (int i = 0; i < 5; ++i) telemetry.logger("l").info("x");
  measured.meter().counter("c").add(-1);
  EXPECT_FALSE(telemetry.force_flush(kLong)) << "three were rejected";
  auto open = tracer.span("open");
  auto told = measured.told();
  const Stats stats = telemetry.stats();
  const auto& records = told.at("waymark.destination.records");
  for (const DestinationStats& d : stats.destinations) {
    if (d.signal == Signal::metrics) continue;  // its own collection moves it
    const auto count = [&](const char* outcome) {
      return whole(records, {{"waymark.destination", d.name}, {"waymark.signal", std::string(signal_name(d.signal))}, {"waymark.outcome", outcome}});
    };
    EXPECT_EQ(count("offered"), d.counts.offered) << d.name;
    EXPECT_EQ(count("delivered"), d.counts.delivered) << d.name;
    EXPECT_EQ(count("rejected"), d.counts.rejected) << d.name;
    EXPECT_EQ(count("dropped"), d.counts.dropped) << d.name;
    EXPECT_EQ(count("filtered"), d.counts.filtered) << d.name;
    EXPECT_EQ(count("pending"), d.counts.pending) << d.name;
    EXPECT_EQ(count("offered"), count("delivered") + count("rejected") + count("dropped") + count("filtered") + count("pending"));
  }
  // Every outcome but a drop has happened.
  EXPECT_EQ(whole(records, {{"waymark.destination", "some"}, {"waymark.outcome", "filtered"}}), 4u);
  EXPECT_EQ(whole(records, {{"waymark.destination", "some"}, {"waymark.outcome", "rejected"}}), 3u);
  EXPECT_EQ(whole(told["otel.sdk.span.started"], {{"otel.span.sampling_result", "RECORD_AND_SAMPLE"}}), 15u);
  EXPECT_EQ(whole(told["otel.sdk.span.live"], {}), 1u);
  EXPECT_EQ(whole(told["otel.sdk.log.created"], {}), stats.log_records);
  EXPECT_EQ(whole(told["otel.sdk.exporter.span.exported"], {{"otel.component.name", "callback_span_exporter/1"}}), 7u);
  EXPECT_EQ(whole(told["otel.sdk.exporter.span.exported"], {{"otel.component.name", "callback_span_exporter/1"}, {"error.type", "rejected"}}), 3u);
  EXPECT_EQ(whole(told["otel.sdk.processor.span.processed"], {{"otel.component.name", "batching_span_processor/0"}}), 14u);
  EXPECT_EQ(whole(told["otel.sdk.processor.log.queue.size"], {{"otel.component.name", "batching_log_processor/0"}}), 0u);
  EXPECT_EQ(whole(told["waymark.measurement.refused"], {}), 1u);
  EXPECT_EQ(stats.refused_measurements, 1u);
  EXPECT_GT(whole(told["waymark.recorder.size"], {}), 0u);
  EXPECT_TRUE(told.contains("otel.sdk.metric_reader.collection.duration"));
}

// A backend that is down, and a journal that is too small for what waits for it.
TEST(SelfMetricsTest, AgreeWithStatsWhereRecordsWaitAndAreDropped) {
  HOLDS("SO-01", "SO-06");
  MetricConfig config;
  config.sdk = true;
  Measured measured(config, [](Config& c) {
    c.recorder.max_bytes = 1 << 20;
    c.recorder.ring_bytes = 512 * 1024;
    c.journal.segment_bytes = 1 << 20;
    c.journal.max_bytes = c.journal.memory_bytes = 2 << 20;
    DestinationConfig down;
    down.name = "down";
    down.signal = Signal::traces;
    down.output = Output::callback;
    down.retry.initial = down.retry.maximum = std::chrono::hours(1);
    down.deliver = [](Signal, std::string_view) { return DeliveryResult{.outcome = Outcome::retry}; };
    c.destinations.push_back(down);
  });
  Telemetry& telemetry = measured.telemetry();
  const Tracer tracer = telemetry.tracer("t");
  const std::string text(1000, 'x');
  for (int i = 0; i < 8000; ++i) auto span = tracer.span("s", {{"text", text}});
  // Seen by the same collection that tells it.
  Stats seen;
  const auto looking = measured.meter().observable_gauge("look").add_callback([&](const Observer<double>&) { seen = telemetry.stats(); });
  EXPECT_FALSE(telemetry.force_flush(seconds(2)));
  measured.memory().clear();
  EXPECT_FALSE(telemetry.force_flush(seconds(2)));
  auto told = Measured::official(measured.memory());
  const auto& records = told.at("waymark.destination.records");
  bool metrics = false;
  for (const DestinationStats& d : seen.destinations) {
    const auto count = [&](const char* outcome) {
      return whole(records, {{"waymark.destination", d.name}, {"waymark.signal", std::string(signal_name(d.signal))}, {"waymark.outcome", outcome}});
    };
    EXPECT_EQ(count("offered"), d.counts.offered) << d.name;
    EXPECT_EQ(count("delivered"), d.counts.delivered) << d.name;
    EXPECT_EQ(count("rejected"), d.counts.rejected) << d.name;
    EXPECT_EQ(count("dropped"), d.counts.dropped) << d.name;
    EXPECT_EQ(count("filtered"), d.counts.filtered) << d.name;
    EXPECT_EQ(count("pending"), d.counts.pending) << d.name;
    metrics = metrics || (d.signal == Signal::metrics && d.counts.delivered > 0);
    if (d.name != "down") continue;
    EXPECT_GT(d.counts.dropped, 0u);
    EXPECT_GT(d.counts.pending, 0u);
    EXPECT_EQ(whole(told["otel.sdk.processor.span.processed"],
                    {{"otel.component.name", "batching_span_processor/1"}, {"error.type", "queue_full"}}), d.counts.dropped);
    EXPECT_EQ(whole(told["otel.sdk.processor.span.queue.size"], {{"otel.component.name", "batching_span_processor/1"}}), d.counts.pending);
  }
  EXPECT_TRUE(metrics);
}

TEST(SelfMetricsTest, ABatchIsTimedOnceFromItsFirstTryToItsEnd) {
  HOLDS("SO-09", "SO-10");
  MetricConfig config;
  config.sdk = true;
  std::atomic<int> tries{0};
  Measured measured(config, [&](Config& c) {
    DestinationConfig d;
    d.name = "slow";
    d.signal = Signal::logs;
    d.output = Output::callback;
    d.retry.initial = d.retry.maximum = std::chrono::milliseconds(1);
    d.deliver = [&](Signal, std::string_view) {
      return ++tries % 3 == 0 ? DeliveryResult{} : DeliveryResult{.outcome = Outcome::retry};
    };
    c.destinations.push_back(d);
  });
  measured.telemetry().logger("l").info("x");
  ASSERT_TRUE(measured.telemetry().force_flush(kLong));
  auto told = measured.told();
  for (const json& point : told.at("otel.sdk.exporter.operation.duration")["exponentialHistogram"]["dataPoints"]) {
    if (attribute(point, "otel.component.name") != "callback_log_exporter/1") continue;
    EXPECT_EQ(point["count"], "1");
    EXPECT_EQ(attribute(point, "error.type"), "");
    EXPECT_EQ(tries, 3);
    return;
  }
  FAIL() << told["otel.sdk.exporter.operation.duration"].dump(1);
}

TEST(SelfMetricsTest, ComponentsHaveTheConventionsTypes) {
  HOLDS("SO-12");
  MetricConfig config;
  config.sdk = true;
  Measured measured(config, [](Config& c) {
    for (const Protocol protocol : {Protocol::http_protobuf, Protocol::http_json, Protocol::grpc}) {
      DestinationConfig d;
      d.name = "nobody " + std::to_string(static_cast<int>(protocol));
      d.protocol = protocol;
      d.url = protocol == Protocol::grpc ? "http://127.0.0.1:1" : "http://127.0.0.1:1/v1/traces";
      c.destinations.push_back(d);
    }
  });
  auto told = measured.told();
  for (const char* type : {"otlp_http_span_exporter", "otlp_http_json_span_exporter", "otlp_grpc_span_exporter"}) {
    EXPECT_EQ(whole(told["otel.sdk.exporter.span.exported"], {{"otel.component.type", type}, {"otel.component.name", type + std::string("/0")}}), 0u);
  }
}

TEST(SelfMetricsTest, AreOffUnlessAskedFor) {
  Measured measured;
  measured.meter().counter("c").add(1);
  EXPECT_EQ(measured.told().size(), 1u);
}

TEST(MeterTest, MetersAreNamespacesOfTheirOwn) {
  HOLDS("MT-17");
  std::vector<std::string> said;
  Measured measured({}, [&](Config& config) {
    config.error_handler = [&](DiagnosticLevel level, std::string_view message) {
      if (level <= DiagnosticLevel::warning) said.emplace_back(message);
    };
  });
  measured.telemetry().meter("a").counter("n", {.unit = "x"}).add(1);
  measured.telemetry().meter("b").counter("n", {.unit = "y"}).add(2);
  ASSERT_TRUE(measured.telemetry().force_flush(kLong));
  EXPECT_EQ(measured.memory().metrics().size(), 2u);
  EXPECT_THAT(said, IsEmpty());
}

// docs/metrics.md has every name and unit of the process's and Waymark's own metrics, and warns of what must be known.
// Of the page, and what was told. Errors need not have happened.
struct Row {
  std::string unit;
  std::set<std::string> keys;
  friend bool operator==(const Row& documented, const Row& told) {
    std::set<std::string> always = documented.keys;
    always.erase("error.type");
    return documented.unit == told.unit && std::ranges::includes(documented.keys, told.keys) &&
           std::ranges::includes(told.keys, always);
  }
};
void PrintTo(const Row& row, std::ostream* out) { *out << row.unit << ' ' << ::testing::PrintToString(row.keys); }

TEST(MetricsPageTest, HasEveryNameAndTheWarnings) {
  HOLDS("MT-13", "MT-59");
  std::ifstream file(WAYMARK_SOURCE_DIR "/docs/metrics.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  const auto documented = [&](const std::string& heading) {
    std::map<std::string, Row> found;
    const std::size_t begin = page.find("\n## " + heading + "\n");
    EXPECT_NE(begin, std::string::npos) << heading;
    std::istringstream section(page.substr(begin + 1, page.find("\n## ", begin + 4) - begin));
    for (std::string line; std::getline(section, line);) {
      const std::size_t name = line.find("| `");
      if (name != 0) continue;
      const std::size_t name_end = line.find('`', 3);
      const std::size_t unit = line.find('`', name_end + 1) + 1;
      Row& row = found[line.substr(3, name_end - 3)];
      const std::size_t unit_end = line.find('`', unit);
      row.unit = line.substr(unit, unit_end - unit);
      const std::size_t keys = line.find('|', unit_end) + 1;
      std::string cell = line.substr(keys, line.find('|', keys) - keys);
      if (cell.find("component") != cell.npos) row.keys = {"otel.component.name", "otel.component.type"};
      cell = cell.substr(0, cell.find("`: "));  // values of the last key
      for (std::size_t at = cell.find('`'); at != cell.npos; at = cell.find('`', at + 1)) {
        const std::size_t end = std::min(cell.find('`', at + 1), cell.size());
        row.keys.insert(cell.substr(at + 1, end - at - 1));
        at = end;
        if (at >= cell.size()) break;
      }
    }
    return found;
  };
  MetricConfig config;
  config.process = config.sdk = true;
  Measured measured(config);
  measured.telemetry().logger("l").info("x");
  ASSERT_TRUE(measured.telemetry().force_flush(kLong));
  measured.memory().clear();
  ASSERT_TRUE(measured.telemetry().force_flush(kLong));
  std::map<std::string, std::map<std::string, Row>> told;
  for (const ReadMetric& metric : measured.memory().metrics()) {
    Row& row = told[metric.scope.name][metric.name];
    row.unit = metric.unit;
    for (const ReadPoint& point : metric.points) {
      for (const auto& [key, value] : point.attributes) row.keys.insert(key);
    }
  }
  EXPECT_EQ(documented("The process's"), told["waymark.process"]);
  EXPECT_EQ(documented("Waymark's own"), told["waymark.sdk"]);
  const auto says = [&](const char* words) { EXPECT_NE(page.find(words), std::string::npos) << words; };
  says("It must come to an end soon");
  says("observe each set of attributes at most once; it may hold whatever state it captures");
  says("An example also tells the attributes that a view leaves out of the series");
}

}  // namespace
}  // namespace waymark
