#include "config/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>

#include "support/holds.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::StartsWith;
using namespace std::string_literals;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

using Variables = std::map<std::string, std::string>;

Environment environment(Variables variables) {
  variables.try_emplace("HOME", "/home/u");
  return Environment([variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
    const auto at = variables.find(name);
    if (at == variables.end()) return std::nullopt;
    return at->second;
  });
}

ConfigFile read(std::string_view text, Variables variables = {}) {
  Environment env = environment(std::move(variables));
  return parse_config_file(text, "w.yaml", env);
}

std::vector<DestinationConfig> destinations(std::string_view text, Variables variables = {}) {
  return read(text, std::move(variables)).config.destinations;
}

std::string find_string(const AnyMap& map, std::string_view key) {
  for (const auto& [name, value] : map) {
    if (name == key) return std::get<std::string>(value.value);
  }
  return {};
}

// Every problem a line; empty where there is none.
std::string problems(std::string_view text, Variables variables = {}) {
  try {
    (void)read(text, std::move(variables));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_config);
    return error.what();
  }
  return {};
}

// Files that a configuration names: a directory of its own, whose path stands before each name.
class NamedFiles {
 public:
  NamedFiles() {
    std::string pattern = ::testing::TempDir() + "waymark_config_XXXXXX";
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    directory_ = pattern;
  }
  ~NamedFiles() { std::filesystem::remove_all(directory_); }
  NamedFiles(const NamedFiles&) = delete;
  NamedFiles& operator=(const NamedFiles&) = delete;

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name)) << text;
    return path(name);
  }
  std::string pem(const std::string& name) const { return write(name, "-----BEGIN CERTIFICATE-----\n"); }

 private:
  std::string directory_;
};

std::string with_tracer(const std::string& line) {
  return "tracer:\n  otel:\n    type: open-telemetry\n    transport: http\n    endpoint: http://localhost:4318\n    " + line + "\n";
}

// ---- Stalwart's words

TEST(ConfigFileTest, TheTracerOfTheGrpcPageWorks) {
  const auto file = read(R"(
tracer:
  otel:
    type: "open-telemetry"
    transport: "grpc"
    endpoint: "https://127.0.0.1/otel"
    level: "info"
    enable: true
)");
  ASSERT_THAT(file.config.destinations, SizeIs(1)) << "the page: log records are not exported unless it is said";
  const DestinationConfig& d = file.config.destinations[0];
  EXPECT_EQ(d.name, "otel");
  EXPECT_EQ(d.signal, Signal::traces);
  EXPECT_EQ(d.protocol, Protocol::grpc);
  EXPECT_EQ(d.url, "https://127.0.0.1:4317");
  EXPECT_TRUE(d.enabled);
  EXPECT_FALSE(d.lossy) << "the page: the default value is false";
  EXPECT_EQ(d.batch.interval, seconds(1)) << "the page: the default value is 1s";
  EXPECT_THAT(file.warnings, ElementsAre(AllOf(HasSubstr("w.yaml:6:15: tracer.otel.endpoint: "), HasSubstr("path"))));
}

TEST(ConfigFileTest, TheTracerOfTheHttpPageWorks) {
  const auto all = destinations(R"(
tracer.otel.type: open-telemetry
tracer.otel.transport: http
tracer.otel.endpoint: "https://tracing.mydomain.test/v1/otel"
tracer.otel.headers: ["Authorization: <place_auth_here>"]
tracer.otel.level: debug
tracer.otel.enable: true
tracer.otel.enable.log-exporter: true
)");
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].signal, Signal::traces);
  EXPECT_EQ(all[0].url, "https://tracing.mydomain.test/v1/otel/v1/traces");
  EXPECT_EQ(all[0].protocol, Protocol::http_protobuf);
  EXPECT_EQ(all[0].minimum_severity, Severity::unspecified);
  EXPECT_EQ(all[1].signal, Signal::logs);
  EXPECT_EQ(all[1].url, "https://tracing.mydomain.test/v1/otel/v1/logs");
  EXPECT_EQ(all[1].minimum_severity, Severity::debug);
  for (const auto& d : all) EXPECT_THAT(d.headers, ElementsAre(Pair("Authorization", "<place_auth_here>")));
}

TEST(ConfigFileTest, DottedAndNestedKeysAreTheSame) {
  const auto nested = destinations(with_tracer("enable: {log-exporter: true, span-exporter: false}"));
  const auto dotted = destinations(with_tracer("enable.log-exporter: true\n    enable.span-exporter: false"));
  const auto all = destinations("tracer.otel: {type: otel, transport: http, endpoint: 'http://localhost:4318', "
                                "\"enable.log-exporter\": true}\ntracer: {otel: {enable.span-exporter: false}}");
  for (const auto& found : {nested, dotted, all}) {
    ASSERT_THAT(found, SizeIs(1));
    EXPECT_EQ(found[0].signal, Signal::logs);
    EXPECT_EQ(found[0].url, "http://localhost:4318/v1/logs");
  }
}

TEST(ConfigFileTest, ATracersOtherWordsReachItsDestination) {
  const auto all = destinations(
      with_tracer("throttle: 250ms\n    lossy: true\n    timeout: 3s\n    enable: false\n    headers: {X-Key: a, X-Other: 'b:c'}"));
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_EQ(all[0].batch.interval, milliseconds(250));
  EXPECT_TRUE(all[0].lossy);
  EXPECT_EQ(all[0].timeout, seconds(3));
  EXPECT_FALSE(all[0].enabled);
  EXPECT_THAT(all[0].headers, ElementsAre(Pair("X-Key", "a"), Pair("X-Other", "b:c")));
  EXPECT_EQ(destinations(with_tracer("timeout: 0"))[0].timeout, seconds(0));
}

TEST(ConfigFileTest, AGrpcTracerWithoutAnEndpointUsesTheEnvironmentsOrTheDefault) {
  HOLDS("GC-02");
  const std::string text = "tracer.otel: {type: otel, transport: grpc, enable.log-exporter: true}";
  EXPECT_EQ(destinations(text)[0].url, "http://localhost:4317");
  const auto all = destinations(text, {{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:1"},
                                       {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://l"}});
  EXPECT_EQ(all[0].url, "http://h:1");
  EXPECT_EQ(all[1].url, "https://l:4317");
}

TEST(ConfigFileTest, AGrpcEndpointWithoutASchemeIsSecureUnlessItIsSaidToBeNot) {
  HOLDS("GC-02");
  const std::string environments = "tracer.otel: {type: otel, transport: grpc, enable.log-exporter: true, headers: ['A: b']}";
  const std::string own = "destinations.d: {protocol: grpc, endpoint: 'collector:4317'}";
  const std::string collectors = "exporters.otlp: {endpoint: 'collector:4317'}";
  const auto urls = [](const std::string& text, Variables variables) {
    variables.try_emplace("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    std::vector<std::string> found;
    for (const auto& d : destinations(text, variables)) found.push_back(d.url);
    return found;
  };
  const std::string secure = "https://collector:4317";
  const std::string insecure = "http://collector:4317";
  for (const std::string& text : {environments, own, collectors}) {
    EXPECT_THAT(urls(text, {}), ElementsAre(secure, secure)) << text;
    EXPECT_THAT(urls(text, {{"OTEL_EXPORTER_OTLP_INSECURE", "false"}}), ElementsAre(secure, secure)) << text;
    EXPECT_THAT(urls(text, {{"OTEL_EXPORTER_OTLP_INSECURE", "true"}}), ElementsAre(insecure, insecure)) << text;
    EXPECT_THAT(urls(text, {{"OTEL_EXPORTER_OTLP_INSECURE", "true"}, {"OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"}}),
                ElementsAre(secure, insecure))
        << text;
    EXPECT_THAT(urls(text, {{"OTEL_EXPORTER_OTLP_LOGS_INSECURE", "true"}}), ElementsAre(secure, insecure)) << text;
  }
  EXPECT_THAT(urls("exporters.otlp: {endpoint: 'collector:4317', tls: {insecure: false}}", {{"OTEL_EXPORTER_OTLP_INSECURE", "true"}}),
              ElementsAre(secure, secure))
      << "what the file says stands";
  EXPECT_THAT(urls("destinations.d: {protocol: grpc, endpoint: 'https://h'}", {{"OTEL_EXPORTER_OTLP_INSECURE", "true"}}),
              ElementsAre("https://h:4317", "https://h:4317"));
}

TEST(ConfigFileTest, ConsoleAndLogTracersShowLogs) {
  const auto all = destinations(R"(
tracer:
  screen: {type: stdout, ansi: false, level: warn}
  errors: {type: stderr, ansi: true}
  file: {type: log, path: /var/log/tiles, prefix: tiles, rotate: hourly, level: trace}
)");
  ASSERT_THAT(all, SizeIs(3));
  for (const auto& d : all) EXPECT_EQ(d.signal, Signal::logs);
  EXPECT_EQ(all[0].output, Output::console);
  EXPECT_EQ(all[0].path, "stdout");
  EXPECT_FALSE(all[0].color);
  EXPECT_EQ(all[0].minimum_severity, Severity::warning);
  EXPECT_EQ(all[1].path, "stderr");
  EXPECT_TRUE(all[1].color);
  EXPECT_EQ(all[1].minimum_severity, Severity::info);
  EXPECT_EQ(all[2].output, Output::file);
  EXPECT_EQ(all[2].path, "/var/log/tiles/tiles.jsonl");
  EXPECT_EQ(all[2].rotation.max_age, std::chrono::hours(1));
  EXPECT_EQ(all[2].rotation.files, 10'000u) << "what was logged does not go after five hours";
  EXPECT_EQ(all[2].minimum_severity, Severity::trace);
}

TEST(ConfigFileTest, ATypeThatIsNotSupportedIsRefusedWithThoseThatAre) {
  EXPECT_EQ(problems("tracer:\n  j:\n    type: journal\n    level: info\n"),
            "w.yaml:3:11: tracer.j.type: 'journal' is not known; expected one of open-telemetry, otel, console, stdout, "
            "stderr, log");
  EXPECT_THAT(problems("tracer: {j: {level: info}}"), HasSubstr("tracer.j.type: is missing"));
}

TEST(ConfigFileTest, MetricsGoWhereStalwartsPageSendsThem) {
  EXPECT_THAT(read("metrics.open-telemetry: {transport: disable}").config.destinations, IsEmpty());
  const auto file = read("metrics:\n  open-telemetry:\n    transport: http\n    endpoint: http://h/v1/metrics\n    interval: 2m\n"
                         "    headers: ['A: b']\n    timeout: 9s\n");
  EXPECT_THAT(file.warnings, IsEmpty());
  ASSERT_THAT(file.config.destinations, SizeIs(1));
  const DestinationConfig& d = file.config.destinations[0];
  EXPECT_EQ(d.name, "open-telemetry");
  EXPECT_EQ(d.signal, Signal::metrics);
  EXPECT_EQ(d.url, "http://h/v1/metrics");
  EXPECT_EQ(d.timeout, seconds(9));
  EXPECT_EQ(d.batch.interval, seconds(1)) << "what is collected is sent";
  ASSERT_THAT(d.headers, SizeIs(1));
  EXPECT_EQ(file.config.metrics.interval, minutes(2));
  EXPECT_TRUE(file.config.metrics.process);
  EXPECT_TRUE(file.config.metrics.sdk);
  EXPECT_EQ(read("metrics.open-telemetry: {transport: grpc}").config.destinations.at(0).url, "http://localhost:4317");
  EXPECT_EQ(read("metrics.open-telemetry: {transport: grpc}", {{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:1"}})
                .config.destinations.at(0).url,
            "http://m:1");
  EXPECT_FALSE(read("metrics.open-telemetry: {transport: http, endpoint: 'http://h', enable: false}").config.destinations.at(0).enabled);
  EXPECT_THAT(problems("metrics.open-telemetry: {transport: http}"), HasSubstr("endpoint: is missing"));
  EXPECT_THAT(problems("metrics.open-telemetry: {transport: disable, interval: often}"), HasSubstr("interval: 'often'"));
  EXPECT_THAT(problems("metrics.prometheus: {enable: true}"), HasSubstr("is no way to send metrics"));
}

TEST(ConfigFileTest, HowMetricsAreCollectedIsSaidOnceAndTheEnvironmentComesBefore) {
  const char* text =
      "collection: {interval: 10s, temporality: delta, histograms: explicit, exemplar_filter: always_off, cardinality_limit: 50, "
      "process: false, sdk: false}";
  const MetricConfig m = read(text).config.metrics;
  EXPECT_EQ(m.interval, seconds(10));
  EXPECT_EQ(m.temporality, Temporality::delta);
  EXPECT_EQ(m.default_histogram, Aggregation::explicit_histogram);
  EXPECT_EQ(m.exemplar_filter, ExemplarFilter::always_off);
  EXPECT_EQ(m.cardinality_limit, 50u);
  EXPECT_FALSE(m.process);
  EXPECT_FALSE(m.sdk);
  const MetricConfig other = read(text, {{"OTEL_METRIC_EXPORT_INTERVAL", "5000"},
                                         {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "LowMemory"},
                                         {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"},
                                         {"OTEL_METRICS_EXEMPLAR_FILTER", "always_on"}})
                                 .config.metrics;
  EXPECT_EQ(other.interval, seconds(5));
  EXPECT_EQ(other.temporality, Temporality::lowmemory);
  EXPECT_EQ(other.default_histogram, Aggregation::exponential_histogram);
  EXPECT_EQ(other.exemplar_filter, ExemplarFilter::always_on);
  EXPECT_FALSE(other.sdk);
  EXPECT_THAT(problems("collection.temporality: sometimes"), HasSubstr("'sometimes' is not known"));
}

TEST(ConfigFileTest, ViewsAreReadWithTheirPlaces) {
  const auto file = read(R"(views:
  latency:
    instrument: task.execution.duration
    kind: histogram
    unit: s
    meter: waymark.runner
    name: task.latency
    description: of all
    attribute_keys: [cluster]
    aggregation: explicit_histogram
    boundaries: [0.1, 1, 10.5]
    cardinality_limit: 10
  noise: {instrument: 'process.*', aggregation: drop}
  fewer: {instrument: x, excluded_keys: user, aggregation: exponential_histogram, max_buckets: 20, max_scale: -2}
)");
  ASSERT_THAT(file.config.metrics.views, SizeIs(3));
  const View& v = file.config.metrics.views[0];
  EXPECT_EQ(v.select.name, "task.execution.duration");
  EXPECT_EQ(v.select.kind, InstrumentKind::histogram);
  EXPECT_EQ(v.select.unit, "s");
  EXPECT_EQ(v.select.meter_name, "waymark.runner");
  EXPECT_EQ(v.name, "task.latency");
  EXPECT_EQ(v.description, "of all");
  ASSERT_TRUE(v.attribute_keys.has_value());
  EXPECT_THAT(*v.attribute_keys, ElementsAre("cluster"));
  EXPECT_EQ(v.aggregation, Aggregation::explicit_histogram);
  EXPECT_THAT(v.boundaries, ElementsAre(0.1, 1, 10.5));
  EXPECT_EQ(v.cardinality_limit, 10u);
  EXPECT_EQ(file.config.metrics.views[1].aggregation, Aggregation::drop);
  EXPECT_FALSE(file.config.metrics.views[1].attribute_keys.has_value());
  EXPECT_THAT(file.config.metrics.views[2].excluded_keys, ElementsAre("user"));
  EXPECT_EQ(file.config.metrics.views[2].max_buckets, 20u);
  EXPECT_EQ(file.config.metrics.views[2].max_scale, -2);
  EXPECT_THAT(problems("views: {a: {instrument: 'x*', name: y}}"), HasSubstr("views.a.name: would be the name of several streams"));
  EXPECT_THAT(problems("views: {a: {instrument: x, boundaries: [2, 1]}}"), HasSubstr("boundaries: '1' does not follow"));
  EXPECT_THAT(problems("views: {a: {instrument: x, boundaries: [few]}}"), HasSubstr("'few' does not follow"));
  EXPECT_THAT(problems("views: {a: {aggregation: median}}"), HasSubstr("'median' is not known"));
}

TEST(ConfigFileTest, DestinationsMayTakeMetrics) {
  const auto file = read("destinations:\n  all: {signals: [traces, logs, metrics], endpoint: 'http://h'}\n"
                         "  file: {signals: metrics, output: file, path: m.jsonl}\n");
  ASSERT_THAT(file.config.destinations, SizeIs(4));
  EXPECT_EQ(file.config.destinations[2].url, "http://h/v1/metrics");
  EXPECT_EQ(file.config.destinations[3].path, "m.jsonl");
  EXPECT_THAT(read("destinations: {usual: {endpoint: 'http://h'}}").config.destinations, SizeIs(2));
  EXPECT_THAT(problems("destinations: {a: {output: console, signals: [metrics]}}"), HasSubstr("has metrics, and a console shows logs"));
}

// ---- the Collector's words

constexpr const char* kS2Page = R"(
exporters:
  otlphttp:
    endpoint: https://my-basin.b.s2.dev/otlp
    encoding: json
    headers:
      Content-Type: application/json
      Authorization: Bearer ${S2_ACCESS_TOKEN}
    sending_queue:
      num_consumers: 1
      batch:
        flush_timeout: 50ms
        min_size: 262144 # 256KiB
        max_size: 524288 # 512KiB
        sizer: bytes
)";

TEST(ConfigFileTest, TheBlockOfS2sPageWorksAsItIs) {
  const auto file = read(kS2Page, {{"S2_ACCESS_TOKEN", "t0ken"}});
  ASSERT_THAT(file.config.destinations, SizeIs(2));
  for (const auto& d : file.config.destinations) {
    EXPECT_EQ(d.name, "otlphttp");
    EXPECT_EQ(d.url, "https://my-basin.b.s2.dev/otlp/v1/" + std::string(signal_name(d.signal)));
    EXPECT_EQ(d.protocol, Protocol::http_json);
    EXPECT_THAT(d.headers, ElementsAre(Pair("Authorization", "Bearer t0ken")));
    EXPECT_EQ(d.batch.interval, milliseconds(50));
    EXPECT_EQ(d.batch.min_bytes, 262144u);
    EXPECT_EQ(d.batch.max_bytes, 524288u);
    EXPECT_EQ(d.batch.max_records, 0u);
  }
  EXPECT_THAT(file.warnings, ElementsAre(HasSubstr("preset: s2")));
}

TEST(ConfigFileTest, PlaceholdersThatWereLeftOnThePageAreErrorsWithPlaces) {
  EXPECT_EQ(problems(R"(exporters:
  otlphttp:
    endpoint: https://<your-basin>.b.s2.dev/otlp
    encoding: <your-preferred-encoding>
    headers:
      Content-Type: <value-based-on-encoding>
      Authorization: Bearer <your-access-token>
)"),
            "w.yaml:3:15: exporters.otlphttp.endpoint: 'https://<your-basin>.b.s2.dev/otlp' has a host that can't be read; "
            "write for example http://localhost:4318 (and percent-encode '@', ':' and '/' in a user name or password)\n"
            "w.yaml:4:15: exporters.otlphttp.encoding: '<your-preferred-encoding>' is not known; expected one of proto, json\n"
            "w.yaml:6:7: exporters.otlphttp.headers: Content-Type is not application/x-protobuf, which the encoding asks "
            "for; leave it out");
}

TEST(ConfigFileTest, AWholeCollectorConfigurationSaysWhatIsNotLookedAt) {
  const NamedFiles files;
  const auto file = read(R"(
receivers: {otlp: {protocols: {grpc: , http: }}}
processors: {batch: }
exporters:
  otlphttp/s2:
    traces_endpoint: https://h/t
    logs_endpoint: https://h/l/
    compression: gzip
    timeout: 30s
    tls: {ca_file: '${CA}', cert_file: '${CERTIFICATE}', key_file: '${KEY}', min_version: 1.3, insecure_skip_verify: true}
    retry_on_failure: {enabled: true, initial_interval: 2s, multiplier: 1.5, max_interval: 1m, max_elapsed_time: 0s, randomization_factor: 0.25}
    sending_queue: {enabled: true, num_consumers: 10, queue_size: 1000, batch: {max_size: 100}}
  otlp/grpc: {endpoint: 'localhost:4317', tls: {insecure: true}}
  otlphttp/unused: {endpoint: 'http://u'}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlphttp/s2, otlp/grpc]}
    logs/app: {receivers: [otlp], exporters: [otlphttp/s2]}
    metrics: {receivers: [otlp], exporters: [otlp/grpc]}
  telemetry: {logs: {level: debug}}
)", {{"CA", files.pem("ca.pem")}, {"CERTIFICATE", files.pem("c.pem")}, {"KEY", files.pem("c.key")}});
  ASSERT_THAT(file.config.destinations, SizeIs(4));
  const DestinationConfig& t = file.config.destinations[0];
  EXPECT_EQ(t.url, "https://h/t");
  EXPECT_TRUE(t.gzip);
  EXPECT_EQ(t.timeout, seconds(30));
  EXPECT_EQ(t.tls.ca_file, files.path("ca.pem"));
  EXPECT_EQ(t.tls.certificate_file, files.path("c.pem"));
  EXPECT_EQ(t.tls.key_file, files.path("c.key"));
  EXPECT_EQ(t.tls.minimum_version, "1.3");
  EXPECT_TRUE(t.tls.insecure_skip_verify);
  EXPECT_EQ(t.retry.initial, seconds(2));
  EXPECT_EQ(t.retry.multiplier, 1.5);
  EXPECT_EQ(t.retry.jitter, 0.25);
  EXPECT_EQ(t.retry.maximum, minutes(1));
  EXPECT_EQ(t.retry.give_up_age, seconds(0));
  EXPECT_EQ(t.batch.max_records, 100u);
  EXPECT_EQ(file.config.destinations[1].url, "https://h/l/");
  EXPECT_EQ(file.config.destinations[2].name, "otlp/grpc");
  EXPECT_EQ(file.config.destinations[2].signal, Signal::traces);
  EXPECT_EQ(file.config.destinations[2].url, "http://localhost:4317");
  std::string all;
  for (const auto& warning : file.warnings) all += warning + "\n";
  EXPECT_THAT(all, AllOf(HasSubstr("receivers: belongs to a Collector"), HasSubstr("processors: "),
                         HasSubstr("service.telemetry: "), HasSubstr("num_consumers: counts as 1"), HasSubstr("queue_size: "),
                         HasSubstr("otlphttp/unused: stands in no pipeline")));
  EXPECT_EQ(file.config.destinations[3].signal, Signal::metrics);
  EXPECT_EQ(file.config.destinations[3].name, "otlp/grpc");
  EXPECT_EQ(file.config.resource.service_name(), "unknown_service:config_test");
}

TEST(ConfigFileTest, PipelinesThatNameNothingAreNoPipelines) {
  for (const char* pipelines : {"x", "[x]", "{}", "{exporters: [otlphttp]}", "{traces: }", "{traces.exporters: }"}) {
    const std::string text = std::string("exporters.otlphttp.endpoint: 'http://h'\nservice: {pipelines: ") + pipelines + "}";
    EXPECT_EQ(problems(text), "") << text;
    EXPECT_THAT(read(text).warnings, ElementsAre(HasSubstr("stands in no pipeline"))) << text;
  }
}

TEST(ConfigFileTest, AnotherExporterIsRefused) {
  EXPECT_THAT(problems("exporters: {debug: {verbosity: detailed}}"), HasSubstr("exporters.debug: is no exporter that Waymark has"));
}

TEST(ConfigFileTest, ARetryThatIsOffGivesUpAtOnce) {
  const std::string text = "exporters.otlphttp: {endpoint: 'http://h', retry_on_failure.enabled: false}";
  EXPECT_EQ(destinations(text)[0].retry.give_up_age, std::chrono::nanoseconds(1));
  EXPECT_EQ(destinations("exporters.otlphttp: {endpoint: 'http://h'}")[0].retry.give_up_age, std::chrono::nanoseconds(0));
}

// ---- Waymark's own words

TEST(ConfigFileTest, WaymarksOwnWordsReachTheConfig) {
  const auto file = read(R"(
service: {name: tiles, version: '1.10'}
resource:
  deployment.environment.name: production
  cores: 4
  share: 0.5
  spot: true
  zip: "01234"
  zones: [a, b]
state: {directory: /var/lib/tiles, recover_siblings: false}
recorder: {place: state, max_bytes: 32MiB, ring_bytes: 2MiB}
journal: {max_bytes: 1GiB, memory_bytes: 64MiB, segment_bytes: 8MiB, keep_bytes: 0, block_timeout: 2s, fsync: every_batch, fsync_interval: 500ms}
sampler: {kind: parentbased_traceidratio, ratio: 0.25}
limits: {attribute_count: 64, spans: {event_count: 16}, logs.attribute_value_length: 4096}
logs_as_span_events: true
propagators: [tracecontext]
log_level: error
)");
  const Config& c = file.config;
  EXPECT_EQ(c.resource.service_name(), "tiles");
  EXPECT_EQ(find_string(c.resource.attributes(), "service.version"), "1.10");
  EXPECT_EQ(*c.resource.find("deployment.environment.name"), AnyValue{std::string("production")});
  EXPECT_EQ(*c.resource.find("cores"), AnyValue{std::int64_t{4}});
  EXPECT_EQ(*c.resource.find("share"), AnyValue{0.5});
  EXPECT_EQ(*c.resource.find("spot"), AnyValue{true});
  EXPECT_EQ(*c.resource.find("zip"), AnyValue{std::string("01234")});
  EXPECT_EQ(*c.resource.find("zones"), (AnyValue{AnyArray{{std::string("a")}, {std::string("b")}}}));
  EXPECT_NE(c.resource.find("process.pid"), nullptr) << "what is detected stays";
  EXPECT_EQ(c.state_directory, "/var/lib/tiles");
  EXPECT_FALSE(c.recover_siblings);
  EXPECT_EQ(c.recorder.place, RecorderConfig::Place::state);
  EXPECT_EQ(c.recorder.max_bytes, 32u << 20);
  EXPECT_EQ(c.recorder.ring_bytes, 2u << 20);
  EXPECT_EQ(c.journal.max_bytes, 1u << 30);
  EXPECT_EQ(c.journal.memory_bytes, 64u << 20);
  EXPECT_EQ(c.journal.segment_bytes, 8u << 20);
  EXPECT_EQ(c.journal.keep_bytes, 0u);
  EXPECT_EQ(c.journal.block_timeout, seconds(2));
  EXPECT_EQ(c.journal.fsync, Fsync::every_batch);
  EXPECT_EQ(c.journal.fsync_interval, milliseconds(500));
  EXPECT_EQ(c.sampler.kind, SamplerKind::parentbased_traceidratio);
  EXPECT_EQ(c.sampler.ratio, 0.25);
  EXPECT_EQ(c.span_limits.attribute_count, 64u);
  EXPECT_EQ(c.log_limits.attribute_count, 64u);
  EXPECT_EQ(c.span_limits.event_count, 16u);
  EXPECT_EQ(c.log_limits.event_count, 128u);
  EXPECT_EQ(c.log_limits.attribute_value_length, 4096u);
  EXPECT_TRUE(c.logs_as_span_events);
  EXPECT_EQ(c.diagnostics, DiagnosticLevel::error);
  EXPECT_EQ(file.propagators, (trace::Propagators{.trace_context = true, .baggage = false}));
  EXPECT_THAT(file.warnings, IsEmpty());
}

TEST(ConfigFileTest, OwnDestinationsHaveEveryField) {
  const NamedFiles files;
  const auto all = destinations(R"(
destinations:
  backend:
    signals: [traces]
    protocol: http/json
    endpoint: https://user:pw@h/otlp
    headers: ["X-Tenant: ${TENANT:-none}"]
    headers_file: ${TOKEN}
    tls.ca_file: ${CA}
    compression: gzip
    timeout: 5s
    max_response_bytes: 64KiB
    lossy: false
    batch: {max_bytes: 1MiB, min_bytes: 64KiB, max_records: 500, interval: 2s}
    retry: {initial: 1s, maximum: 10s, multiplier: 3, give_up_age: 1h}
    resource: {s2.stream: tiles}
  archive:
    output: file
    traces_path: traces.jsonl
    logs_path: logs.jsonl
    rotation: {max_bytes: 100MB, max_age: 1d, files: 3}
  screen: {output: console, level: warning, color: true}
  "http://old:4318": {endpoint: 'http://new:4318', enabled: false, headers_file: /nowhere/token, tls.ca_file: /nowhere/ca}
)", {{"TOKEN", files.write("token", "")}, {"CA", files.pem("ca.pem")}});
  ASSERT_THAT(all, SizeIs(6));
  const DestinationConfig& b = all[0];
  EXPECT_EQ(b.protocol, Protocol::http_json);
  EXPECT_EQ(b.url, "https://h/otlp/v1/traces");
  EXPECT_THAT(b.headers, ElementsAre(Pair("X-Tenant", "none"), Pair("Authorization", "Basic dXNlcjpwdw==")));
  EXPECT_EQ(b.headers_file, files.path("token"));
  EXPECT_EQ(b.tls.ca_file, files.path("ca.pem"));
  EXPECT_EQ(b.max_response_bytes, 64u << 10);
  EXPECT_TRUE(b.gzip);
  EXPECT_EQ(b.timeout, seconds(5));
  EXPECT_FALSE(b.lossy);
  EXPECT_EQ(b.batch.max_bytes, 1u << 20);
  EXPECT_EQ(b.batch.min_bytes, 64u << 10);
  EXPECT_EQ(b.batch.max_records, 500u);
  EXPECT_EQ(b.batch.interval, seconds(2));
  EXPECT_EQ(b.retry.initial, seconds(1));
  EXPECT_EQ(b.retry.maximum, seconds(10));
  EXPECT_EQ(b.retry.multiplier, 3);
  EXPECT_EQ(b.retry.give_up_age, std::chrono::hours(1));
  EXPECT_EQ(find_string(b.resource_attributes, "s2.stream"), "tiles");
  EXPECT_EQ(all[1].path, "traces.jsonl");
  EXPECT_EQ(all[2].path, "logs.jsonl");
  EXPECT_EQ(all[2].rotation.max_bytes, 100'000'000u);
  EXPECT_EQ(all[2].rotation.max_age, std::chrono::hours(24));
  EXPECT_EQ(all[2].rotation.files, 3u);
  EXPECT_EQ(all[3].output, Output::console);
  EXPECT_EQ(all[3].minimum_severity, Severity::warning);
  EXPECT_TRUE(all[3].color);
  EXPECT_EQ(all[4].name, "http://old:4318");
  EXPECT_FALSE(all[4].enabled) << "and so nothing that it names need be there";
  EXPECT_EQ(all[4].batch.interval, seconds(5));
  EXPECT_EQ(all[5].batch.interval, seconds(1));
}

TEST(ConfigFileTest, APresetOfS2NeedsItsStreamAndItsToken) {
  const std::string text = "destinations.s2: {preset: s2, endpoint: 'https://b.b.s2.dev/otlp'}";
  EXPECT_EQ(problems(text), "w.yaml:1:27: destinations.s2.preset: s2 needs the stream that records go to; write s2.stream: NAME "
                            "below `resource`\n"
                            "w.yaml:1:27: destinations.s2.preset: s2 needs an access token; write Authorization: Bearer TOKEN "
                            "below `headers`");
  const std::string token = "\ndestinations.s2.headers.Authorization: Bearer t";
  const auto all = destinations(text + token + "\nresource.s2.stream: tiles");
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].preset, Preset::s2);
  EXPECT_EQ(all[0].batch.interval, milliseconds(50));
  EXPECT_EQ(problems(text + token + "\ndestinations.s2.resource.s2.stream: tiles"), "");
  EXPECT_EQ(problems(text + token, {{"OTEL_RESOURCE_ATTRIBUTES", "s2.stream=tiles"}}), "");
  const NamedFiles files;
  const std::string of_file = text + "\nresource.s2.stream: tiles\ndestinations.s2.headers_file: ";
  EXPECT_EQ(problems(of_file + files.write("token", "authorization: Bearer t\n")), "");
  EXPECT_THAT(problems(of_file + files.write("none", "X: y\n")), HasSubstr("s2 needs an access token"));
}

TEST(ConfigFileTest, OneThingMayHaveSeveralSpellingsAndOneValue) {
  const auto destination = [](const std::string& more) { return "destinations.d: {endpoint: 'http://h', " + more + "}"; };
  for (const char* spelling : {"interval: 2s", "batch.flush_timeout: 2s", "batch.interval: 2s", "batch: {flush_timeout: 2s}"}) {
    EXPECT_EQ(destinations(destination(spelling)).at(0).batch.interval, seconds(2)) << spelling;
  }
  EXPECT_EQ(problems(destination("interval: 2s, batch: {interval: 2s}")),
            "w.yaml:1:50: destinations.d.interval: says again what batch.interval says; keep one of the two");
  EXPECT_THAT(problems(destination("batch: {flush_timeout: 2s, interval: 2s}")),
              HasSubstr("destinations.d.batch.flush_timeout: says again what batch.interval says"));
  EXPECT_EQ(read("journal.keep: 1MiB").config.journal.keep_bytes, 1u << 20);
  EXPECT_THAT(problems("journal: {keep: 1MiB, keep_bytes: 1MiB}"), HasSubstr("journal.keep: says again what journal.keep_bytes says"));
  EXPECT_EQ(read("log_level: warn").config.diagnostics, DiagnosticLevel::warning);
  EXPECT_EQ(read("log_level: warning").config.diagnostics, DiagnosticLevel::warning);
  EXPECT_EQ(read("recorder: state").config.recorder.place, RecorderConfig::Place::state);
  EXPECT_EQ(read("recorder: state\nrecorder.max_bytes: 32MiB").config.recorder.max_bytes, 32u << 20);
  EXPECT_THAT(problems("recorder: state\nrecorder.place: tmpfs"), HasSubstr("recorder: says again what recorder.place says"));
  EXPECT_EQ(read("sampler: traceidratio\nsampler.ratio: 0.5").config.sampler.ratio, 0.5);
}

TEST(ConfigFileTest, AServiceHasOneName) {
  EXPECT_EQ(problems("service: a\nservice.name: b\nresource: {service.name: c}\n"),
            "w.yaml:2:15: service.name: says again what service says; keep one of the two\n"
            "w.yaml:3:26: resource.service.name: says again what the service's name says; keep one of the two");
  EXPECT_THAT(problems("service: {name: a}\nresource.service.name: b"), HasSubstr("w.yaml:2:24: resource.service.name: says again"));
  EXPECT_THAT(problems("service: {name: a, version: '1'}\nresource.service.version: '2'"), HasSubstr("resource.service.version: says again"));
  EXPECT_EQ(read("service: {version: '1'}\nresource.service.name: b").config.resource.service_name(), "b");
}

TEST(ConfigFileTest, HeadersAreTextsInAnyOfThreeForms) {
  const auto headers = [](const std::string& value, Variables variables = {}) {
    return destinations(with_tracer("headers: " + value), std::move(variables)).at(0).headers;
  };
  EXPECT_THAT(headers("['X.Y: a', 'Z: b']"), ElementsAre(Pair("X.Y", "a"), Pair("Z", "b")));
  EXPECT_THAT(headers("{X.Y: a, Z: b}"), ElementsAre(Pair("X.Y", "a"), Pair("Z", "b")));
  EXPECT_THAT(headers("[{name: X.Y, value: '${A}'}, {value: b, name: Z}]", {{"A", "a"}}), ElementsAre(Pair("X.Y", "a"), Pair("Z", "b")));
  EXPECT_THAT(destinations(with_tracer("headers.X.Y: a")).at(0).headers, ElementsAre(Pair("X.Y", "a")));
  for (const char* nested : {"headers: {Authorization: {Bearer: hunter2}}", "headers.Authorization: {Bearer: hunter2}",
                             "headers: {Authorization: [hunter2]}"}) {
    EXPECT_THAT(problems(with_tracer(nested)),
                AllOf(HasSubstr("w.yaml:6:"), HasSubstr("tracer.otel.headers: a "), HasSubstr("instead of a header's value"),
                      Not(HasSubstr("hunter2"))))
        << nested;
  }
  EXPECT_THAT(problems(with_tracer("headers: [{name: X, value: y, other: z}]")), HasSubstr("an entry that is no \"Name: value\""));
  EXPECT_EQ(*read("resource: {headers: {a: {b: c}}}").config.resource.find("headers.a.b"), AnyValue{std::string("c")})
      << "attributes are nested as deep as they are";
}

TEST(ConfigFileTest, HeadersThatGrpcCannotCarryAreRefusedWithTheirPlace) {
  HOLDS("GC-12");
  const NamedFiles files;
  const auto refusal = [](const std::string& more, const std::string& protocol = "grpc") {
    return problems("destinations:\n  d:\n    protocol: " + protocol + "\n    endpoint: https://h\n    " + more + "\n");
  };
  for (const char* header : {"X!Y: hunter2", "grpc-timeout: hunter2", "GRPC-Timeout: hunter2", "X: hunter2\xc3\xbc", "X: \"hunter2\\tx\""}) {
    const std::string headers = std::string("headers: {") + header + "}";
    EXPECT_THAT(refusal(headers), AllOf(StartsWith("w.yaml:5:15: destinations.d.headers: the header "), HasSubstr("gRPC"), Not(HasSubstr("hunter2"))))
        << header;
    EXPECT_EQ(refusal(headers, "http/protobuf"), "") << header;
  }
  EXPECT_EQ(refusal("headers: {X-Key: a, X-Bytes-Bin: \xc3\xbc}"), "");
  EXPECT_THAT(problems("exporters:\n  otlp:\n    endpoint: https://h\n    headers: {X!Y: z}\n"), HasSubstr("w.yaml:4:15: exporters.otlp.headers: "));
  EXPECT_THAT(problems("tracer.o: {type: otel, transport: grpc, headers: ['X!Y: z']}"), HasSubstr("tracer.o.headers: "));
  const std::string file = files.write("headers", "X: y\nX!Y: hunter2\n");
  EXPECT_EQ(refusal("headers_file: " + file), "w.yaml:5:19: destinations.d.headers_file: '" + file +
                                                  "': header 2 has a name that gRPC does not allow (letters, digits, '_', '.' and '-')");
  EXPECT_EQ(refusal("headers_file: " + file, "http/json"), "");
}

TEST(ConfigFileTest, FilesThatAreNamedAreReadAndWhatIsWrongWithThemIsToldOnceWithItsPlace) {
  const NamedFiles files;
  EXPECT_EQ(problems("destinations:\n  d:\n    endpoint: https://h\n    headers_file: " + files.path("gone") +
                     "\n    tls:\n      ca_file: ${CA}\n      cert_file: " + files.write("no.pem", "hunter2") + "\n      key_file: /\n"
                     "    lossy: maybe\n",
                     {{"CA", "/nowhere/hunter2.pem"}}),
            "w.yaml:4:19: destinations.d.headers_file: '" + files.path("gone") +
                "': can't be read (No such file or directory); name a readable file of `Name: value` lines\n"
                "w.yaml:6:16: destinations.d.tls.ca_file: '${CA}' can't be read (No such file or directory); give the path of a file in PEM\n"
                "w.yaml:7:18: destinations.d.tls.cert_file: '" + files.path("no.pem") +
                "' holds nothing in PEM; give the path of a file in PEM\n"
                "w.yaml:8:17: destinations.d.tls.key_file: '/' can't be read (Is a directory); give the path of a file in PEM\n"
                "w.yaml:9:12: destinations.d.lossy: 'maybe' is neither true nor false; write one of them");
  EXPECT_THAT(problems("destinations.d: {endpoint: 'http://h', headers_file: " + files.write("bad", "A: b\nhunter2\n") + "}"),
              AllOf(HasSubstr("/bad', line 2: expected `Name: value`"), Not(HasSubstr("hunter2"))));
  EXPECT_EQ(problems("destinations.d: {endpoint: 'http://h', headers_file: \"/x\\0y\"}"),
            "w.yaml:1:54: destinations.d.headers_file: '/x\\x00y' has a NUL in it, as no path has");
  EXPECT_THAT(problems("exporters.otlphttp: {endpoint: 'https://h', preset: s2, resource.s2.stream: x, headers_file: /nowhere/h}"),
              AllOf(HasSubstr("exporters.otlphttp.headers_file: '/nowhere/h': can't be read"), Not(HasSubstr("token"))));
}

TEST(ConfigFileTest, ASectionThatSaysNothingHasItsDefaults) {
  for (const char* text :
       {"recorder:", "recorder: {}", "journal: ~", "journal: {}", "sampler:", "sampler: {}", "limits: {}", "limits: {spans: {}, logs: }",
        "state:", "service: {}", "resource: {}", "exporters.otlphttp: {endpoint: 'http://h', sending_queue: , retry_on_failure: }",
        "exporters.otlphttp: {endpoint: 'http://h', sending_queue: {batch: {}}, retry_on_failure: {}, tls: {}, headers: {}}",
        "destinations.d: {endpoint: 'http://h', batch: {}, retry: , tls: {}, resource: {}, headers: }",
        "tracer.o: {type: otel, transport: http, endpoint: 'http://h', enable: {}}"}) {
    EXPECT_EQ(problems(text), "") << text;
    EXPECT_FALSE(read(text).recorder || read(text).journal || read(text).sampler || read(text).limits) << text;
  }
  EXPECT_EQ(problems("exporters.otlphttp: {endpoint: 'http://h', sending_queue: 5}"),
            "w.yaml:1:59: exporters.otlphttp.sending_queue: '5' instead of keys; expected batch, block_on_overflow, enabled, "
            "num_consumers, queue_size, sizer, storage");
  EXPECT_EQ(problems("journal: [a]"), "w.yaml:1:10: journal: a list instead of keys; expected block_timeout, fsync, fsync_interval, "
                                      "keep, keep_bytes, max_bytes, memory_bytes, segment_bytes");
  EXPECT_EQ(problems("journal: {fsync: {}}"), "w.yaml:1:18: journal.fsync: a map instead of one value");
  EXPECT_EQ(problems("servce: {}"), "w.yaml:1:1: servce: is no key that Waymark knows; did you mean 'service'?");
}

TEST(ConfigFileTest, WhatIsWrongIsNotAlsoMissing) {
  for (const auto& [text, key] : std::initializer_list<std::pair<const char*, const char*>>{
           {"destinations: {b: 5}", "destinations.b: '5' instead of keys"},
           {"destinations: {b: '${NOPE}'}", "the variable NOPE"},
           {"destinations.b: {endpoint: '${NOPE}'}", "destinations.b.endpoint: the variable NOPE"},
           {"destinations.b: {endpoint: [a]}", "destinations.b.endpoint: a list instead of one value"},
           {"destinations.b: {traces_endpoint: '${NOPE}', signals: traces}", "the variable NOPE"},
           {"destinations.b: {output: file, path: '${NOPE}'}", "destinations.b.path: the variable NOPE"},
           {"destinations.b: {endpoint: 'https://h', tls: {cert_file: '${NOPE}', key_file: '${NOPE}'}}", "cert_file: the variable NOPE"},
           {"destinations.b: {endpoint: 'https://h', preset: s2, resource.s2.stream: x, headers: ['Authorization: ${NOPE}']}",
            "headers: the variable NOPE"},
           {"destinations.b: {endpoint: 'https://h', preset: s2, resource.s2.stream: '${NOPE}', headers: ['Authorization: x']}",
            "resource.s2.stream: the variable NOPE"},
           {"tracer.o: {type: otel, transport: http, endpoint: '${NOPE}'}", "tracer.o.endpoint: the variable NOPE"},
           {"tracer.o: {type: '${NOPE}', transport: http}", "tracer.o.type: the variable NOPE"},
           {"tracer.o: {type: otel, transport: '${NOPE}', endpoint: 'http://h'}", "tracer.o.transport: the variable NOPE"},
           {"tracer.o: {type: log, path: '${NOPE}'}", "tracer.o.path: the variable NOPE"}}) {
    const std::string said = problems(text);
    EXPECT_THAT(said, HasSubstr(key)) << text;
    EXPECT_THAT(said, Not(HasSubstr("is missing"))) << text;
    EXPECT_THAT(said, Not(HasSubstr("needs"))) << text;
  }
  EXPECT_EQ(problems("tracer: {o: {type: }}"), "w.yaml:1:20: tracer.o.type: is missing; expected open-telemetry, console, stdout, stderr or log");
}

TEST(ConfigFileTest, WhatIsSetBesideThePresetOfS2Stays) {
  const std::string s2 = "{preset: s2, endpoint: 'https://b.b.s2.dev/otlp', headers: {Authorization: Bearer t}, resource: {s2.stream: x}, ";
  const auto explicit_values = destinations("destinations.s2: " + s2 + "batch: {interval: 5s, min_bytes: 0}}");
  EXPECT_EQ(explicit_values[0].batch.interval, seconds(5));
  EXPECT_EQ(explicit_values[0].batch.min_bytes, 0u);
  EXPECT_TRUE(explicit_values[0].batch_is_final);
  const auto small = destinations("destinations.s2: " + s2 + "batch: {max_bytes: 100000}}");
  EXPECT_EQ(small[0].batch.max_bytes, 100'000u);
  EXPECT_EQ(small[0].batch.min_bytes, 100'000u);
  const auto exporter =
      destinations("exporters.otlphttp: " + s2 + "sending_queue: {batch: {sizer: bytes, max_size: 100000}}}");
  EXPECT_EQ(exporter[0].batch.min_bytes, 100'000u);
}

TEST(ConfigFileTest, APasswordInAnEndpointWithAVariableIsNotShown) {
  for (const std::string& endpoint : {"https://user:hunter2@${HOST}/otlp"s, "https://user:hunter2@" + std::string(90, 'h') + "${HOST}",
                                      "https://user:hunter2${AT}h y"s, "https://${HOST}/?key=hunter2"s}) {
    const std::string said = problems("destinations.a.endpoint: '" + endpoint + "'", {{"HOST", "a b"}, {"AT", "@"}});
    EXPECT_THAT(said, AllOf(HasSubstr("destinations.a.endpoint: "), HasSubstr("***"), Not(HasSubstr("hunter2")))) << endpoint;
  }
}

// ---- who wins

TEST(ConfigFileTest, TheEnvironmentComesBeforeTheFileForTheProcess) {
  HOLDS("EV-11");
  const std::string text = "service: file\nresource: {a: file, b: file}\nstate.directory: /file\nsampler: always_off\n"
                           "limits.attribute_count: 1\nlog_level: error\ndisabled: true\n";
  const Config alone = read(text).config;
  EXPECT_EQ(alone.resource.service_name(), "file");
  EXPECT_EQ(alone.state_directory, "/file");
  EXPECT_EQ(alone.sampler.kind, SamplerKind::always_off);
  EXPECT_EQ(alone.span_limits.attribute_count, 1u);
  EXPECT_EQ(alone.diagnostics, DiagnosticLevel::error);
  EXPECT_TRUE(alone.disabled);
  const auto file = read(text, {{"OTEL_SERVICE_NAME", "env"},
                                {"OTEL_RESOURCE_ATTRIBUTES", "a=env"},
                                {"WAYMARK_STATE_DIR", "/env"},
                                {"OTEL_TRACES_SAMPLER", "always_on"},
                                {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2"},
                                {"OTEL_LOG_LEVEL", "debug"},
                                {"OTEL_SDK_DISABLED", "false"}});
  EXPECT_EQ(file.config.resource.service_name(), "env");
  EXPECT_EQ(find_string(file.config.resource.attributes(), "a"), "env");
  EXPECT_EQ(find_string(file.config.resource.attributes(), "b"), "file");
  EXPECT_EQ(file.resource.service_name(), "env") << "what later calls are compared with";
  EXPECT_EQ(file.config.state_directory, "/env");
  EXPECT_EQ(file.config.sampler.kind, SamplerKind::always_on);
  EXPECT_EQ(file.config.span_limits.attribute_count, 2u);
  EXPECT_EQ(file.config.log_limits.attribute_count, 1u);
  EXPECT_EQ(file.config.diagnostics, DiagnosticLevel::debug);
  EXPECT_FALSE(file.config.disabled);
}

TEST(ConfigFileTest, ADestinationStandsAsItIsWritten) {
  const auto all = destinations(with_tracer(""), {{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://env"},
                                                  {"OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2"},
                                                  {"OTEL_EXPORT_INTERVAL", "7s"}});
  EXPECT_EQ(all[0].url, "http://localhost:4318/v1/traces");
  EXPECT_THAT(all[0].headers, IsEmpty()) << "they were written for another server";
  EXPECT_EQ(all[0].batch.interval, seconds(1));
}

TEST(ConfigFileTest, AnEmptyFileIsAConfiguration) {
  for (const char* text : {"", "# nothing\n", "---\n", "{}", "~", "tracer:\n"}) {
    EXPECT_THAT(read(text).config.destinations, IsEmpty()) << text;
  }
}

// ---- variables

TEST(ConfigFileTest, VariablesArePutIntoValues) {
  HOLDS("EV-01");
  const Variables variables{{"NAME", "tiles"}, {"EMPTY", ""}, {"YES", "true"}};
  const auto name = [&](const std::string& value) {
    return read("service: " + value, variables).config.resource.service_name();
  };
  EXPECT_EQ(name("${NAME}"), "tiles");
  EXPECT_EQ(name("'a-${NAME}-b'"), "a-tiles-b");
  EXPECT_EQ(name("${env:NAME}"), "tiles");
  EXPECT_EQ(name("${GONE:-other}"), "other");
  EXPECT_EQ(name("${EMPTY:-other}"), "other");
  EXPECT_EQ(name("${NAME:-other}"), "tiles");
  EXPECT_EQ(name("$${NAME}"), "${NAME}");
  EXPECT_EQ(name("a$b"), "a$b");
  EXPECT_EQ(name("$"), "$");
  EXPECT_FALSE(destinations(with_tracer("enable: ${NO:-false}"))[0].enabled);
  EXPECT_EQ(*read("resource.n: ${N:-4}").config.resource.find("n"), AnyValue{std::string("4")}) << "a variable is text";
}

TEST(ConfigFileTest, WhatAVariableLeavesEmptyCountsAsLeftOut) {
  for (const char* value : {"${T:-}", "'${T:-}'", "\"${T:-}\"", "'${T:-}${T:-}'"}) {
    EXPECT_EQ(destinations(with_tracer("timeout: "s + value)).at(0).timeout, seconds(10)) << value;
    EXPECT_THAT(problems(with_tracer("name: "s + value)), "") << value;
  }
  EXPECT_THAT(problems(with_tracer("timeout: ''")), HasSubstr("'' is no duration")) << "no variable";
  EXPECT_THAT(destinations(with_tracer("headers: {A: '${T:-}'}")).at(0).headers, ElementsAre(Pair("A", "")));
  EXPECT_EQ(*read("resource.n: '${T:-}'").config.resource.find("n"), AnyValue{std::string()});
  EXPECT_EQ(read("resource.n: ${T:-}").config.resource.find("n"), nullptr);
}

TEST(ConfigFileTest, AVariableCantChangeTheStructure) {
  const auto all = destinations(with_tracer("headers: {A: '${X}'}"), {{"X", "a, B: c]}\tx"}});
  EXPECT_THAT(all[0].headers, ElementsAre(Pair("A", "a, B: c]}\tx")));
  EXPECT_EQ(read("service: ${X}", {{"X", "{a: ${NAME}}"}}).config.resource.service_name(), "{a: ${NAME}}")
      << "what comes from a variable is not looked into";
}

TEST(ConfigFileTest, AMissingVariableIsAnErrorWithItsPlace) {
  EXPECT_EQ(problems("service:\n  name: ${GONE}\n", {{"EMPTY", ""}}),
            "w.yaml:2:9: service.name: the variable GONE is not set; set it, or write ${GONE:-default}");
  EXPECT_THAT(problems("service: ${EMPTY}", {{"EMPTY", ""}}), HasSubstr("EMPTY is not set"));
  EXPECT_THAT(problems("service: '${GONE'"), HasSubstr("without its '}'"));
  EXPECT_EQ(problems("service: '${A:-${B}}'", {{"B", "b"}}),
            "w.yaml:1:10: service: a '${' within '${...}'; a default is plain text, in which no variable can stand");
  EXPECT_THAT(problems("service: '${}'"), HasSubstr("no variable's name"));
  EXPECT_THAT(problems("service: '${a b}'"), HasSubstr("no variable's name"));
  EXPECT_THAT(problems(with_tracer("headers: ['A: ${GONE}']")), AllOf(HasSubstr("w.yaml:6:15: tracer.otel.headers: "), HasSubstr("GONE")));
}

// ---- what is wrong

TEST(ConfigFileTest, AllProblemsAreToldAtOnceInTheOrderOfTheFile) {
  EXPECT_EQ(problems(R"(tracer:
  otel:
    type: open-telemetry
    transport: carrier
    endpoint: localhost:4318
    throtle: 2s
    throttle: soon
    lossy: maybe
journal:
  max_bytes: 64 MiB
  fsync: always
servce: x
)"),
            R"(w.yaml:4:16: tracer.otel.transport: 'carrier' is not known; expected one of http, grpc
w.yaml:5:15: tracer.otel.endpoint: 'localhost:4318' does not start with http:// or https://; write for example http://localhost:4318 or file:PATH
w.yaml:6:5: tracer.otel.throtle: is no key that Waymark knows; did you mean 'throttle'?
w.yaml:7:15: tracer.otel.throttle: 'soon' is no duration: a number and a unit are expected; write for example '5s', '250ms', '1m30s', '1.5h' or '1d2h3m4s'
w.yaml:8:12: tracer.otel.lossy: 'maybe' is neither true nor false; write one of them
w.yaml:11:10: journal.fsync: 'always' is not known; expected one of never, interval, every_batch
w.yaml:12:1: servce: is no key that Waymark knows; did you mean 'service'?)");
}

TEST(ConfigFileTest, UnknownKeysComeWithTheNearestKnownOne) {
  EXPECT_THAT(problems(with_tracer("enable.log-exportr: true")), HasSubstr("w.yaml:6:5: tracer.otel.enable.log-exportr: is no key that "
                                                                          "Waymark knows; did you mean 'log-exporter'?"));
  EXPECT_THAT(problems("tracr: {otel: {type: otel}}"), HasSubstr("did you mean 'tracer'?"));
  EXPECT_THAT(problems("destination: {a: {endpoint: x}}"), HasSubstr("did you mean 'destinations'?"));
  EXPECT_THAT(problems("journal: {max_byte: 1}"), HasSubstr("did you mean 'max_bytes'?"));
  EXPECT_THAT(problems("exporters.otlphttp: {endpoint: 'http://h', sending_queue: {batch: {flush: 1s}}}"),
              HasSubstr("exporters.otlphttp.sending_queue.batch.flush: is no key that Waymark knows"));
  EXPECT_THAT(problems("journal: {zzzzzzzzzz: 1}"), HasSubstr("known here are block_timeout, fsync"));
  EXPECT_THAT(problems("fsync: never"), HasSubstr("did you mean 'journal.fsync'?"));
  EXPECT_THAT(problems("block_timout: 1s"), HasSubstr("did you mean 'journal.block_timeout'?"));
  EXPECT_THAT(problems("state: {max_byte: 1}"), HasSubstr("did you mean 'journal.max_bytes' or 'recorder.max_bytes'?"));
  for (const char* wrong : {"insecure_skip_verify", "tls.insecure_skip_verfy", "batch.insecure_skip_verify"}) {
    EXPECT_THAT(problems("destinations.d: {endpoint: 'https://h', "s + wrong + ": true}"), HasSubstr("insecure_skip_verify'?")) << wrong;
  }
  EXPECT_THAT(problems("destinations.d: {endpoint: 'https://h', insecure_skip_verify: true}"), HasSubstr("did you mean 'tls.insecure_skip_verify'?"));
  EXPECT_THAT(problems("destinations: {d: {endpoint: 'https://h', color: true}, e: {output: console, color: true}}"),
              HasSubstr("destinations.d.color: has no meaning beside what else is set here; leave it out"));
}

TEST(ConfigFileTest, TypesAndRangesAreChecked) {
  struct Case {
    const char* text;
    const char* expected;
  };
  for (const Case& c : {Case{"service: [a]", "w.yaml:1:10: service: a list instead of one value"},
                        Case{"recorder: 5", "recorder: '5' is not known; expected one of tmpfs, state"},
                        Case{"destinations: {a: {endpoint: 'http://h', timeout: 0x}}", "'0x' has an unknown unit"},
                        Case{"destinations: {a: {endpoint: 'http://h', batch: {interval: 0s}}}", "'0s' is zero"},
                        Case{"destinations: {a: {endpoint: 'http://h', max_response_bytes: 1}}", "is out of range"},
                        Case{"recorder: {place: disk}", "'disk' is not known; expected one of tmpfs, state"},
                        Case{"recorder: {max_bytes: 1KiB}", "'1KiB' is out of range; expected 1048576 to 1073741824 bytes"},
                        Case{"recorder: {max_bytes: many}", "'many' is no size; write whole bytes, or for example 256KiB"},
                        Case{"recorder: {max_bytes: -1}", "'-1' is no size"},
                        Case{"recorder: {max_bytes: 99999999999999999999}", "is no size"},
                        Case{"journal: {max_bytes: 99999999999GiB}", "is out of range"},
                        Case{"journal: {max_bytes: 4MiB}", "is too small; expected room for two segments, 8388608 bytes"},
                        Case{"sampler: {kind: traceidratio, ratio: 2}", "'2' is out of range; expected 0 to 1"},
                        Case{"sampler: {kind: traceidratio, ratio: nan}", "'nan' is out of range"},
                        Case{"sampler: {kind: always_on, ratio: 0.5}", "has no meaning with this sampler"},
                        Case{"limits: {event_count: -1}", "'-1' is no whole number; expected 0 to 4294967295"},
                        Case{"limits: {event_count: 4294967296}", "is out of range"},
                        Case{"disabled: yes", "'yes' is neither true nor false"},
                        Case{"propagators: [jaeger]", "'jaeger' is not known"},
                        Case{"tracer: {a: 1}", "tracer.a: '1' instead of keys and values"},
                        Case{"tracer: [a]", "tracer: a list instead of names with keys below them"},
                        Case{"- a", "a list instead of keys"},
                        Case{"words", "'words' instead of keys"},
                        Case{"destinations: {a: {signals: [profiles], endpoint: 'http://h'}}", "'profiles' is no signal"},
                        Case{"destinations: {a: {output: console, signals: [traces]}}", "a console shows logs"},
                        Case{"destinations: {a: {output: file}}", "path: is missing"},
                        Case{"destinations: {a: {output: file, path: x, rotation.max_bytes: 1}}", "traces_path and logs_path"},
                        Case{"destinations: {a: {}}", "destinations.a.endpoint: is missing"},
                        Case{"destinations: {a: {endpoint: 'http://h', batch: {min_bytes: 1MiB}}}", "is more than batch.max_bytes"},
                        Case{"destinations: {a: {endpoint: 'http://h', retry: {initial: 1m, maximum: 59s}}}", "is more than retry.maximum"},
                        Case{"destinations: {a: {endpoint: 'http://h', retry: {jitter: 2}}}", "'2' is out of range; expected 0 to 1"},
                        Case{"destinations: {a: {output: file, path: x, rotation.files: 10001}}", "expected 0 to 10000"},
                        Case{"destinations: {a: {endpoint: 'https://h', tls: {cert_file: x}}}", "stands alone"},
                        Case{"destinations: {a: {endpoint: 'http://h'}, b: {name: a, endpoint: 'http://i'}}", "another destination"},
                        Case{"resource: {service.name: 5}", "is no text"},
                        Case{"resource: x", "expected 'name: value' below it"}}) {
    EXPECT_THAT(problems(c.text), HasSubstr(c.expected)) << c.text;
  }
}

TEST(ConfigFileTest, NoTimeoutIsZeroInAnyUnit) {
  for (const char* zero : {"0", "0s", "0ms", "0m0s", "0.0s", "00d"}) {
    EXPECT_EQ(destinations(with_tracer("timeout: "s + zero)).at(0).timeout, seconds(0)) << zero;
  }
}

TEST(ConfigFileTest, AFirstRetryThatIsLateMovesTheLastOne) {
  EXPECT_EQ(destinations("destinations.a: {endpoint: 'http://h', retry.initial: 1m}").at(0).retry.maximum, minutes(1));
  EXPECT_EQ(destinations("exporters.otlphttp: {endpoint: 'http://h', retry_on_failure.initial_interval: 1m}").at(0).retry.maximum, minutes(1));
}

TEST(ConfigFileTest, WhatIsGivenTwiceIsAnError) {
  EXPECT_EQ(problems("service: a\nservice: b\n"), "w.yaml:2:1: service: is given twice in one map; keep one of the two");
  EXPECT_EQ(problems("journal: {fsync: never}\njournal.fsync: interval\n"),
            "w.yaml:2:1: journal.fsync: is given twice, here and in line 1; keep one of the two");
}

TEST(ConfigFileTest, WhatIsNoYamlIsAnErrorWithItsPlace) {
  EXPECT_THAT(problems("a: b: c\n"), StartsWith("w.yaml:1:5: this is no YAML (illegal map value)"));
  for (const char* open : {"service: 'x\n", "service: \"x", "service: 'x\nresource: {a: b}\njournal:\n  fsync: never\n"}) {
    EXPECT_THAT(problems(open), ContainsRegex("^w.yaml:1:[0-9]+: quotes that are opened here, or behind it, are never closed")) << open;
  }
  EXPECT_THAT(problems("service: x\nresource: {a: b"), ContainsRegex("^w.yaml:2:[0-9]+: ")) << "nor are brackets";
  EXPECT_THAT(problems("a: [b, 'c'\n"), ContainsRegex("^w.yaml:1:[0-9]+: "));
  EXPECT_EQ(problems("journal:\n\tfsync: never\n"), "w.yaml:2:1: a tab stands where the line is indented; write spaces");
  EXPECT_EQ(problems("service: a\nx: \xff\n"), "w.yaml:2:1: is not UTF-8; expected UTF-8 text");
  EXPECT_EQ(problems(std::string("service: a\0b", 12)), "w.yaml:1:11: a control character; expected text");
  EXPECT_EQ(problems("service: a\n---\nservice: b\n"), "w.yaml:3:1: a second document begins; a configuration is one");
  EXPECT_EQ(problems("service: \"\t\"\n\t\n"), "") << "no tab that indents";
  EXPECT_THAT(problems("{a: b}: c"), HasSubstr("can't be a key"));
}

TEST(ConfigFileTest, AnchorsTagsDepthAndSizeAreBounded) {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 9; ++i) bomb += std::string(i > 0 ? ",*" : "*") + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(problems(bomb), StartsWith("w.yaml:1:4: anchors (&) and aliases (*) are not supported"));
  EXPECT_THAT(problems("service: *hunter2"), AllOf(HasSubstr("aliases (*)"), Not(HasSubstr("hunter2"))));
  EXPECT_THAT(problems("service: !!python/object x"), HasSubstr("tags (!) are not supported"));
  EXPECT_THAT(problems("a: " + std::string(100, '[') + std::string(100, ']')), HasSubstr("nested deeper than 32 levels"));
  EXPECT_THAT(problems("a: " + std::string(100000, '{')), HasSubstr("nested deeper than 32 levels"));
  EXPECT_EQ(problems(std::string(1024 * 1024 + 1, '\n')), "w.yaml: is larger than 1 MiB, which no configuration is");
  std::string many;
  for (int i = 0; i < 5000; ++i) many += "k" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(problems(many), HasSubstr("more than 4096 keys"));
}

TEST(ConfigFileTest, NoMessageHoldsASecret) {
  const Variables variables{{"SECRET", "hunter2"}};
  for (const std::string& text :
       {with_tracer("headers: ['Authorization=hunter2']"), with_tracer("headers: 'Authorization: hunter2'"),
        with_tracer("headers: {'Bad Name hunter2': x}"), with_tracer("headers: {'hunter2': {x: y}, 'A b': hunter2}"),
        with_tracer("headers: {Authorization: \"hunter2\\r\\nX: y\"}"), with_tracer("headers: [[hunter2]]"),
        with_tracer("headers: {hunter2: 1, hunter2: 2}"), with_tracer("headers: {Content-Type: hunter2}"),
        with_tracer("lossy: ${SECRET}"), with_tracer("throttle: ${SECRET}"), with_tracer("level: 'x${SECRET}'"),
        std::string("tracer.o: {type: otel, transport: http, endpoint: 'http://u:hunter2@h:99999'}"),
        std::string("tracer.o: {type: otel, transport: http, endpoint: 'http://h/${SECRET}:x#f'}"),
        std::string("tracer.o: {type: otel, transport: http, endpoint: '${SECRET}'}"),
        std::string("journal: {max_bytes: '${SECRET}', fsync: '${SECRET}'}"), std::string("sampler: {ratio: '${SECRET}'}"),
        std::string("limits: {event_count: '${SECRET}'}"), std::string("destinations.a: {signals: ['${SECRET}']}")}) {
    const std::string message = problems(text, variables);
    EXPECT_THAT(message, Not(IsEmpty())) << text;
    EXPECT_THAT(message, Not(HasSubstr("hunter2"))) << text;
  }
}

// ---- the documentation

TEST(ConfigFileTest, EveryExampleOfThePageWorks) {
  std::ifstream page(std::string(WAYMARK_SOURCE_DIR) + "/docs/configuration.md");
  ASSERT_TRUE(page.is_open());
  std::size_t examples = 0;
  std::string block;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (!inside) {
      inside = line == "```yaml";
      block.clear();
    } else if (line != "```") {
      block += line + "\n";
    } else {
      inside = false;
      ++examples;
      EXPECT_EQ(problems(block), "") << block;
      if (::testing::Test::HasFailure()) continue;
      EXPECT_THAT(read(block).warnings, IsEmpty()) << block;
      EXPECT_THAT(destinations(block), Not(IsEmpty()));
    }
  }
  EXPECT_EQ(examples, 3u);
}

// ---- the file itself

TEST(ConfigFileTest, TheFileIsTheArgumentOrItsVariable) {
  const std::string path = ::testing::TempDir() + "waymark_config_file_test.yaml";
  std::ofstream(path) << "service: from-file\n";
  Environment none = environment({});
  EXPECT_EQ(read_config_file(path, none).config.resource.service_name(), "from-file");
  Environment variable = environment({{"WAYMARK_CONFIG", path}});
  EXPECT_EQ(read_config_file("", variable).config.resource.service_name(), "from-file");
  std::filesystem::remove(path);
  const auto message = [&](const std::string& given) -> std::string {
    try {
      (void)read_config_file(given, none);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_config);
      return error.what();
    }
    return {};
  };
  EXPECT_THAT(message(""), HasSubstr("WAYMARK_CONFIG"));
  EXPECT_THAT(message(path), AllOf(StartsWith(path + ": can't be read (No such file"), HasSubstr("give the path")));
  EXPECT_THAT(message("/"), HasSubstr("/: can't be read (Is a directory)"));
}

}  // namespace
}  // namespace waymark::config
