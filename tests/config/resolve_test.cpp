#include "config/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "support/holds.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

using Variables = std::map<std::string, std::string>;

Environment environment(Variables variables) {
  return Environment([variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
    const auto at = variables.find(name);
    if (at == variables.end()) return std::nullopt;
    return at->second;
  });
}

DestinationConfig traces(const TracingOptions& options, Variables variables = {}) {
  Environment env = environment(std::move(variables));
  return resolve_destination(options, env);
}

DestinationConfig logs(const LoggingOptions& options, Variables variables = {}) {
  Environment env = environment(std::move(variables));
  return resolve_destination(options, env);
}

Config base(Variables variables, const TracingOptions& options = {}) {
  Environment env = environment(std::move(variables));
  return resolve_base(options, env);
}

// Resolving a destination throws this; the message names and does not name what it should.
template <typename Options>
void expect_error(const Options& options, Variables variables, ErrorCode code, const std::vector<std::string>& named,
                  const std::string& secret = "hunter2") {
  Environment env = environment(std::move(variables));
  try {
    (void)resolve_destination(options, env);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : named) EXPECT_THAT(error.what(), HasSubstr(word));
    EXPECT_THAT(error.what(), Not(HasSubstr(secret)));
  }
}

const Variables kEndpoint{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318"}};

Variables with_endpoint(Variables more) {
  more.insert(kEndpoint.begin(), kEndpoint.end());
  return more;
}

TEST(ResolveTest, TheEndpointIsTheArgumentThenOtelTracesEndpointThenOtlpEndpoint) {
  HOLDS("OE-01", "OE-02", "OE-03", "OE-06", "EV-11");
  Variables variables{{"OTEL_TRACES_ENDPOINT", "http://own:4318"},
                      {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://signal:4318/x/"},
                      {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/my/"}};
  EXPECT_EQ(traces({.endpoint = "http://argument"}, variables).url, "http://argument/v1/traces");
  EXPECT_EQ(traces({.endpoint = " "}, variables).url, "http://own:4318/v1/traces");
  variables["OTEL_TRACES_ENDPOINT"] = "";
  EXPECT_EQ(traces({}, variables).url, "http://signal:4318/x/");
  EXPECT_EQ(logs({}, variables).url, "http://base:4318/my/v1/logs");
  variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = " ";
  EXPECT_EQ(traces({}, variables).url, "http://base:4318/my/v1/traces");
  variables["OTEL_LOGS_ENDPOINT"] = "http://own/v1/logs";
  EXPECT_EQ(logs({}, variables).url, "http://own/v1/logs");
}

TEST(ResolveTest, MetricsHaveTheSameRulesAndWordsOfTheirOwn) {
  HOLDS("MT-71", "OE-06");
  const auto metrics = [](const MetricsOptions& options, Variables variables) {
    Environment env = environment(std::move(variables));
    return resolve_destination(options, env);
  };
  EXPECT_EQ(metrics({.endpoint = "http://a:1"}, {{"OTEL_METRICS_ENDPOINT", "http://b:2"}}).url, "http://a:1/v1/metrics");
  EXPECT_EQ(metrics({}, with_endpoint({{"OTEL_METRICS_ENDPOINT", "http://b:2"}})).url, "http://b:2/v1/metrics");
  EXPECT_EQ(metrics({}, with_endpoint({{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:3/m"}})).url, "http://c:3/m");
  const DestinationConfig base = metrics({}, with_endpoint({{"OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "7"},
                                                            {"OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"},
                                                            {"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=b"},
                                                            {"OTEL_EXPORT_INTERVAL", "1h"}}));
  EXPECT_EQ(base.url, "http://base:4318/v1/metrics");
  EXPECT_EQ(base.signal, Signal::metrics);
  EXPECT_EQ(base.timeout, milliseconds(7));
  EXPECT_TRUE(base.gzip);
  EXPECT_THAT(base.headers, ElementsAre(Pair("a", "b")));
  EXPECT_EQ(base.batch.interval, seconds(1)) << "what is collected is sent at once, whatever spans wait for";
  expect_error(MetricsOptions{}, {}, ErrorCode::missing_endpoint,
               {"configure_otel_metrics", "OTEL_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"});
}

TEST(ResolveTest, HowMetricsAreCollectedIsTheArgumentThenTheEnvironmentThenTheDefault) {
  HOLDS("MT-64", "MT-71");
  const auto resolved = [](const MetricsOptions& options, Variables variables, std::vector<std::string>* warnings = nullptr) {
    Environment env = environment(std::move(variables));
    MetricConfig config = resolve_metrics(options, {}, env);
    if (warnings != nullptr) *warnings = env.warnings();
    return config;
  };
  const MetricConfig usual = resolved({}, {});
  EXPECT_EQ(usual.interval, seconds(60));
  EXPECT_EQ(usual.temporality, Temporality::cumulative);
  EXPECT_EQ(usual.default_histogram, Aggregation::standard);
  EXPECT_EQ(usual.exemplar_filter, ExemplarFilter::trace_based);
  EXPECT_EQ(usual.cardinality_limit, 2000u);
  EXPECT_TRUE(usual.process);
  EXPECT_TRUE(usual.sdk);
  const Variables set{{"OTEL_METRIC_EXPORT_INTERVAL", "250"},
                      {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"},
                      {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"},
                      {"OTEL_METRICS_EXEMPLAR_FILTER", "always_on"}};
  const MetricConfig by_variables = resolved({}, set);
  EXPECT_EQ(by_variables.interval, milliseconds(250));
  EXPECT_EQ(by_variables.temporality, Temporality::delta);
  EXPECT_EQ(by_variables.default_histogram, Aggregation::explicit_histogram);
  EXPECT_EQ(by_variables.exemplar_filter, ExemplarFilter::always_on);
  const MetricConfig given = resolved({.interval = seconds(3),
                                       .temporality = Temporality::lowmemory,
                                       .histograms = Aggregation::exponential_histogram,
                                       .exemplar_filter = ExemplarFilter::always_off,
                                       .process = false},
                                      set);
  EXPECT_EQ(given.interval, seconds(3));
  EXPECT_EQ(given.temporality, Temporality::lowmemory);
  EXPECT_EQ(given.default_histogram, Aggregation::exponential_histogram);
  EXPECT_EQ(given.exemplar_filter, ExemplarFilter::always_off);
  EXPECT_FALSE(given.process);
  std::vector<std::string> warnings;
  EXPECT_EQ(resolved({}, {{"OTEL_METRICS_EXEMPLAR_FILTER", "some"}, {"OTEL_METRIC_EXPORT_INTERVAL", "1s"}}, &warnings).interval, seconds(60));
  EXPECT_THAT(warnings, SizeIs(2));
  EXPECT_THROW((void)resolved({.interval = nanoseconds(0)}, {}), Error);
}

TEST(ResolveTest, WithoutAnyEndpointTheErrorNamesTheArgumentAndTheVariables) {
  expect_error(TracingOptions{}, {}, ErrorCode::missing_endpoint,
               {"configure_otel_tracing", "`endpoint`", "OTEL_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"});
  expect_error(LoggingOptions{}, {{"OTEL_LOGS_ENDPOINT", ""}, {"OTEL_TRACES_ENDPOINT", "http://h"}},
               ErrorCode::missing_endpoint,
               {"configure_otel_logging", "`endpoint`", "OTEL_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"});
}

TEST(ResolveTest, ABadEndpointNamesWhereItStands) {
  HOLDS("OE-14", "EH-02");
  expect_error(TracingOptions{.endpoint = "localhost"}, {}, ErrorCode::invalid_endpoint, {"endpoint: 'localhost'"});
  expect_error(TracingOptions{}, {{"OTEL_TRACES_ENDPOINT", "localhost"}}, ErrorCode::invalid_endpoint,
               {"OTEL_TRACES_ENDPOINT: 'localhost'"});
  expect_error(LoggingOptions{}, {{"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "localhost"}}, ErrorCode::invalid_endpoint,
               {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: 'localhost'"});
  expect_error(LoggingOptions{}, {{"OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://u:hunter2@h"}}, ErrorCode::invalid_endpoint,
               {"OTEL_EXPORTER_OTLP_ENDPOINT: 'ftp://***@h'"});
}

TEST(ResolveTest, ABadEndpointThatIsNotUsedDoesNotMatter) {
  EXPECT_EQ(traces({.endpoint = "http://h"}, {{"OTEL_TRACES_ENDPOINT", "localhost"}}).url, "http://h/v1/traces");
}

TEST(ResolveTest, ABaseThatLooksCompleteIsToldAboutItsPath) {
  HOLDS("OE-02");
  Environment env = environment({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h/v1/traces"}});
  EXPECT_EQ(resolve_destination(TracingOptions{}, env).url, "http://h/v1/traces/v1/traces");
  EXPECT_THAT(env.warnings(), ElementsAre(HasSubstr("OTEL_EXPORTER_OTLP_ENDPOINT")));
}

TEST(ResolveTest, TheDefaultsAreTheSpecifications) {
  HOLDS("BP-02", "BP-03", "HC-24", "HC-25");
  const auto t = traces({}, kEndpoint);
  EXPECT_EQ(t.signal, Signal::traces);
  EXPECT_EQ(t.output, Output::otlp);
  EXPECT_EQ(t.name, "http://base:4318");
  EXPECT_EQ(t.batch.interval, seconds(5));
  EXPECT_EQ(t.batch.max_records, 0u);
  EXPECT_EQ(t.timeout, seconds(10));
  EXPECT_FALSE(t.gzip);
  EXPECT_TRUE(t.lossy);
  EXPECT_THAT(t.headers, IsEmpty());
  const auto l = logs({}, kEndpoint);
  EXPECT_EQ(l.signal, Signal::logs);
  EXPECT_EQ(l.name, "http://base:4318");
  EXPECT_EQ(l.batch.interval, seconds(1));
  EXPECT_EQ(l.minimum_severity, Severity::debug);
}

TEST(ResolveTest, OptionsReachTheDestination) {
  const auto t = traces({.endpoint = "http://h", .headers = {{"X-A", "1"}}, .export_interval = milliseconds(250),
                         .name = "backup", .lossy = false});
  EXPECT_EQ(t.name, "backup");
  EXPECT_FALSE(t.lossy);
  EXPECT_EQ(t.batch.interval, milliseconds(250));
  EXPECT_THAT(t.headers, ElementsAre(Pair("X-A", "1")));
  EXPECT_EQ(logs({.endpoint = "http://h", .level = Severity::warning}).minimum_severity, Severity::warning);
}

TEST(ResolveTest, TheIntervalIsTheArgumentThenExportIntervalThenTheScheduleDelay) {
  HOLDS("BP-18", "EV-11");
  Variables variables = with_endpoint(
      {{"OTEL_EXPORT_INTERVAL", "30s"}, {"OTEL_BSP_SCHEDULE_DELAY", "700"}, {"OTEL_BLRP_SCHEDULE_DELAY", "300"}});
  EXPECT_EQ(traces({.export_interval = seconds(2)}, variables).batch.interval, seconds(2));
  EXPECT_EQ(traces({}, variables).batch.interval, seconds(30));
  EXPECT_EQ(logs({}, variables).batch.interval, seconds(30));
  variables["OTEL_EXPORT_INTERVAL"] = " ";
  EXPECT_EQ(traces({}, variables).batch.interval, milliseconds(700));
  EXPECT_EQ(logs({}, variables).batch.interval, milliseconds(300));
  variables["OTEL_BSP_SCHEDULE_DELAY"] = "0";
  EXPECT_EQ(traces({}, variables).batch.interval, milliseconds(1));
  variables["OTEL_BSP_SCHEDULE_DELAY"] = "-5";
  EXPECT_EQ(traces({}, variables).batch.interval, seconds(5));
}

TEST(ResolveTest, AMalformedIntervalMattersOnlyWhereItIsUsed) {
  const Variables variables = with_endpoint({{"OTEL_EXPORT_INTERVAL", "5000"}});
  expect_error(TracingOptions{}, variables, ErrorCode::invalid_duration, {"OTEL_EXPORT_INTERVAL", "'5000'"});
  EXPECT_EQ(traces({.export_interval = seconds(2)}, variables).batch.interval, seconds(2));
  Environment env = environment(variables);
  EXPECT_NO_THROW((void)resolve_base(TracingOptions{}, env));
  EXPECT_NO_THROW((void)resolve_destination(ConsoleOptions{}, env));
}

TEST(ResolveTest, AnIntervalArgumentOutOfRangeIsRefused) {
  for (const nanoseconds interval : {nanoseconds(0), nanoseconds(-1), nanoseconds(std::chrono::hours(24 * 366)),
                                     nanoseconds::min(), nanoseconds::max()}) {
    expect_error(TracingOptions{.endpoint = "http://h", .export_interval = interval}, {}, ErrorCode::invalid_duration,
                 {"export_interval"});
  }
  EXPECT_EQ(traces({.endpoint = "http://h", .export_interval = nanoseconds(1)}).batch.interval, nanoseconds(1));
}

TEST(ResolveTest, AHeaderThatGrpcCannotCarryIsToldWithItsVariableAndSkipped) {
  HOLDS("GC-12");
  const Variables variables{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h"}, {"OTEL_EXPORTER_OTLP_HEADERS", "X!Y=hunter2,k=v"},
                            {"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}};
  Environment env = environment(variables);
  EXPECT_THAT(resolve_destination(TracingOptions{}, env).headers, ElementsAre(Pair("k", "v")));
  EXPECT_THAT(env.warnings(), ElementsAre(AllOf(HasSubstr("OTEL_EXPORTER_OTLP_HEADERS: entry 1 "), HasSubstr("gRPC"), Not(HasSubstr("hunter2")))));
  expect_error(TracingOptions{.headers = {{"X!Y", "hunter2"}}}, variables, ErrorCode::invalid_header, {"headers: entry 1", "gRPC"});
}

TEST(ResolveTest, EverySignalVariableBeatsItsBase) {
  HOLDS("OE-01", "HC-27", "HC-24");
  const Variables variables = with_endpoint({{"OTEL_EXPORTER_OTLP_TIMEOUT", "1000"},
                                             {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"},
                                             {"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"},
                                             {"OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none"},
                                             {"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},
                                             {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"},
                                             {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "HTTP/Protobuf"},
                                             {"OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=2"},
                                             {"OTEL_EXPORTER_OTLP_LOGS_HEADERS", "c=3"},
                                             {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"}});
  const auto t = traces({}, variables);
  EXPECT_EQ(t.timeout, seconds(2));
  EXPECT_TRUE(t.gzip);
  EXPECT_THAT(t.headers, ElementsAre(Pair("a", "1"), Pair("b", "2")));
  EXPECT_EQ(t.batch.max_records, 64u);
  const auto l = logs({}, variables);
  EXPECT_EQ(l.timeout, seconds(1));
  EXPECT_FALSE(l.gzip);
  EXPECT_THAT(l.headers, ElementsAre(Pair("c", "3")));  // OE-11: as a whole
  EXPECT_EQ(l.batch.max_records, 0u);
}

TEST(ResolveTest, InvalidVariablesOfOpenTelemetryAreToldAndIgnored) {
  HOLDS("EV-03", "EV-07", "OE-13", "HC-26");
  Environment env = environment(with_endpoint({{"OTEL_EXPORTER_OTLP_TIMEOUT", "-1"},
                                               {"OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"},
                                               {"OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"},
                                               {"OTEL_BSP_SCHEDULE_DELAY", "5s"},
                                               {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"}}));
  const auto t = resolve_destination(TracingOptions{}, env);
  EXPECT_EQ(t.timeout, seconds(10));
  EXPECT_FALSE(t.gzip);
  EXPECT_EQ(t.batch.interval, seconds(5));
  EXPECT_EQ(t.batch.max_records, 0u);
  EXPECT_THAT(env.warnings(),
              UnorderedElementsAre(HasSubstr("OTLP_TIMEOUT: '-1'"), HasSubstr("'zstd'"), HasSubstr("'carrier-pigeon'"),
                                   HasSubstr("'5s'"), HasSubstr("BATCH_SIZE: '0'")));
}

TEST(ResolveTest, ATimeoutOfZeroIsNoLimit) {
  HOLDS("EV-06");
  EXPECT_EQ(traces({}, with_endpoint({{"OTEL_EXPORTER_OTLP_TIMEOUT", "0"}})).timeout, nanoseconds(0));
}

TEST(ResolveTest, TheProtocolIsTheArgumentThenTheSignalsVariableThenTheBase) {
  HOLDS("HC-26", "OE-01", "EV-07");
  EXPECT_EQ(traces({}, kEndpoint).protocol, Protocol::http_protobuf);
  const Variables variables = with_endpoint(
      {{"OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC"}, {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json"}});
  EXPECT_EQ(traces({}, variables).protocol, Protocol::grpc);
  EXPECT_EQ(traces({}, variables).url, "http://base:4318");
  EXPECT_EQ(logs({}, variables).protocol, Protocol::http_json);
  EXPECT_EQ(logs({}, variables).url, "http://base:4318/v1/logs");
  EXPECT_EQ(logs({.protocol = Protocol::http_protobuf}, variables).protocol, Protocol::http_protobuf);
  EXPECT_EQ(traces({}, with_endpoint({{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "x"}}))
                .protocol,
            Protocol::grpc);
  EXPECT_EQ(traces({.endpoint = "file:t.jsonl"}, {{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}}).output, Output::file)
      << "a file is written the same whatever the protocol";
}

TEST(ResolveTest, AGrpcEndpointIsATargetWhoseSchemeDecidesTls) {
  HOLDS("GC-02", "GC-03", "GC-04", "OE-07", "OE-08");
  const auto url = [](const std::string& endpoint, Variables variables) {
    variables["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc";
    variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint;
    return traces({}, variables).url;
  };
  const Variables secure{{"OTEL_EXPORTER_OTLP_INSECURE", "false"}};
  const Variables insecure{{"OTEL_EXPORTER_OTLP_INSECURE", "TRUE"}};
  EXPECT_EQ(url("localhost:4317", {}), "https://localhost:4317");
  EXPECT_EQ(url("localhost:4317", secure), "https://localhost:4317");
  EXPECT_EQ(url("localhost:4317", insecure), "http://localhost:4317");
  EXPECT_EQ(url("localhost", insecure), "http://localhost:4317");
  EXPECT_EQ(url("[::1]", insecure), "http://[::1]:4317");
  EXPECT_EQ(url("http://h:1", secure), "http://h:1");
  EXPECT_EQ(url("https://h:1", insecure), "https://h:1");
  EXPECT_EQ(url("https://h", {}), "https://h:4317");
  EXPECT_EQ(url("h:1", {{"OTEL_EXPORTER_OTLP_INSECURE", "false"}, {"OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true"}}),
            "http://h:1");
  EXPECT_EQ(traces({.endpoint = "http://h:4318"}, insecure).url, "http://h:4318/v1/traces") << "gRPC only";
}

TEST(ResolveTest, ThePathOfAGrpcEndpointIsLeftOutAndSaid) {
  HOLDS("OE-07");
  Environment env = environment({});
  const auto destination =
      resolve_destination(TracingOptions{.endpoint = "https://u:hunter2@127.0.0.1/otel?key=hunter2", .protocol = Protocol::grpc}, env);
  EXPECT_EQ(destination.url, "https://127.0.0.1:4317");
  EXPECT_EQ(destination.name, "https://127.0.0.1:4317");
  EXPECT_THAT(destination.headers, ElementsAre(Pair("Authorization", "Basic dTpodW50ZXIy")));
  EXPECT_THAT(env.warnings(), ElementsAre(AllOf(HasSubstr("endpoint: "), HasSubstr("gRPC"), Not(HasSubstr("hunter2")))));
  Environment quiet = environment({});
  (void)resolve_destination(TracingOptions{.endpoint = "https://127.0.0.1/", .protocol = Protocol::grpc}, quiet);
  EXPECT_THAT(quiet.warnings(), IsEmpty());
}

TEST(ResolveTest, CertificatesAreTheArgumentsThenTheSignalsThenTheBasesAndOnlyForTls) {
  HOLDS("HC-22", "OE-01", "OE-15");
  const Variables variables{{"OTEL_EXPORTER_OTLP_ENDPOINT", "https://h"},
                            {"OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"},
                            {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "client.pem"},
                            {"OTEL_EXPORTER_OTLP_CLIENT_KEY", "client.key"},
                            {"OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "logs-ca.pem"},
                            {"OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "logs.pem"},
                            {"OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", "logs.key"}};
  const auto t = traces({}, variables).tls;
  EXPECT_EQ(t.ca_file, "ca.pem");
  EXPECT_EQ(t.certificate_file, "client.pem");
  EXPECT_EQ(t.key_file, "client.key");
  const auto l = logs({}, variables).tls;
  EXPECT_EQ(l.ca_file, "logs-ca.pem");
  EXPECT_EQ(l.certificate_file, "logs.pem");
  EXPECT_EQ(l.key_file, "logs.key");
  const auto own = traces({.tls = {.ca_file = {}, .certificate_file = "own.pem", .key_file = "own.key"}}, variables).tls;
  EXPECT_EQ(own.ca_file, "ca.pem");
  EXPECT_EQ(own.certificate_file, "own.pem");
  EXPECT_EQ(own.key_file, "own.key");
  EXPECT_EQ(traces({.endpoint = "http://h"}, variables).tls.ca_file, "");
}

TEST(ResolveTest, OptionsBeatTheVariablesOfARequest) {
  HOLDS("HC-27", "EV-11", "HC-24", "HC-25");
  const Variables variables =
      with_endpoint({{"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"}, {"OTEL_EXPORTER_OTLP_TIMEOUT", "2000"}});
  EXPECT_TRUE(traces({}, variables).gzip);
  EXPECT_FALSE(traces({.gzip = false}, variables).gzip);
  EXPECT_TRUE(traces({.gzip = true}, kEndpoint).gzip);
  EXPECT_EQ(logs({.timeout = seconds(3)}, variables).timeout, seconds(3));
  EXPECT_EQ(logs({.timeout = seconds(0)}, variables).timeout, seconds(0));
  EXPECT_EQ(logs({.headers_file = "token"}, variables).headers_file, "token");
  expect_error(TracingOptions{.timeout = seconds(-1)}, kEndpoint, ErrorCode::invalid_duration, {"timeout: "});
  expect_error(TracingOptions{.timeout = std::chrono::hours(24 * 366)}, kEndpoint, ErrorCode::invalid_duration, {"year"});
}

TEST(ResolveTest, ThePresetBringsItsBatchesUnlessAnIntervalIsGiven) {
  const auto s2 = traces({.endpoint = "https://b.b.s2.dev/otlp", .preset = Preset::s2});
  EXPECT_EQ(s2.preset, Preset::s2);
  EXPECT_EQ(s2.batch.interval, milliseconds(50));
  EXPECT_EQ(s2.batch.min_bytes, 256u * 1024);
  EXPECT_EQ(s2.batch.max_bytes, 512u * 1024);
  EXPECT_EQ(logs({.endpoint = "https://b.b.s2.dev/otlp", .preset = Preset::s2, .export_interval = seconds(1)}).batch.interval,
            seconds(1));
  EXPECT_EQ(logs({.endpoint = "https://h"}).batch.interval, seconds(1));
}

TEST(ResolveTest, HeadersMergeByNameWithTheArgumentFirstAndUserinfoBeforeTheEnvironment) {
  HOLDS("HC-23", "OE-11");
  const Variables variables{{"OTEL_EXPORTER_OTLP_HEADERS", "authorization=env,x-a=env,x-b=env"}};
  EXPECT_THAT(traces({.endpoint = "http://h", .headers = {{"X-A", "argument"}}}, variables).headers,
              ElementsAre(Pair("authorization", "env"), Pair("x-b", "env"), Pair("X-A", "argument")));
  EXPECT_THAT(traces({.endpoint = "http://u:p@h"}, variables).headers, Contains(Pair("Authorization", "Basic dTpw")));
  EXPECT_THAT(traces({.endpoint = "http://u:p@h"}, variables).headers, Not(Contains(Pair("authorization", "env"))));
  EXPECT_THAT(traces({.endpoint = "http://u:p@h", .headers = {{"AUTHORIZATION", "argument"}}}, variables).headers,
              ElementsAre(Pair("x-a", "env"), Pair("x-b", "env"), Pair("AUTHORIZATION", "argument")));
}

// Surprise 13 of Tilebox's: a collector's secret reached another server.
TEST(ResolveTest, HeadersForTheEnvironmentsCollectorAreNotSentToAnotherServer) {
  Environment env = environment(with_endpoint({{"OTEL_EXPORTER_OTLP_HEADERS", "x-secret=hunter2"}}));
  EXPECT_THAT(resolve_destination(TracingOptions{.endpoint = "http://other:4318"}, env).headers, IsEmpty());
  EXPECT_THAT(env.warnings(), ElementsAre(AllOf(HasSubstr("OTEL_EXPORTER_OTLP_HEADERS"), HasSubstr("http://other:4318"),
                                                HasSubstr("OTEL_EXPORTER_OTLP_ENDPOINT"), Not(HasSubstr("hunter2")))));
  EXPECT_THAT(resolve_destination(TracingOptions{.endpoint = "http://BASE:4318/otlp"}, env).headers, SizeIs(1))
      << "the same server by another path";
  EXPECT_THAT(resolve_destination(TracingOptions{}, env).headers, SizeIs(1));
  EXPECT_THAT(traces({.endpoint = "http://other"}, {{"OTEL_EXPORTER_OTLP_HEADERS", "x=1"}}).headers, SizeIs(1))
      << "no other server is named";
  const Variables both{{"OTEL_EXPORTER_OTLP_HEADERS", "x=1"}, {"OTEL_TRACES_ENDPOINT", "http://o"}};
  EXPECT_THAT(traces({}, with_endpoint(both)).headers, IsEmpty());
}

TEST(ResolveTest, BadHeadersAreErrorsWhereGivenAndWarningsWhereFound) {
  expect_error(TracingOptions{.endpoint = "http://h", .headers = {{"X", "hunter2\r\n"}}}, {}, ErrorCode::invalid_header,
               {"headers"});
  expect_error(TracingOptions{.endpoint = "file:x", .headers = {{"X", "hunter2\r\n"}}}, {}, ErrorCode::invalid_header,
               {"headers"});
  Environment env = environment(with_endpoint({{"OTEL_EXPORTER_OTLP_HEADERS", "hunter2"}}));
  EXPECT_THAT(resolve_destination(TracingOptions{}, env).headers, IsEmpty());
  EXPECT_THAT(env.warnings(), ElementsAre(Not(HasSubstr("hunter2"))));
}

TEST(ResolveTest, AFileEndpointNeedsNoUrl) {
  const auto t = traces({}, {{"OTEL_TRACES_ENDPOINT", "file:out/traces.jsonl"}, {"OTEL_EXPORTER_OTLP_HEADERS", "a=1"}});
  EXPECT_EQ(t.output, Output::file);
  EXPECT_EQ(t.path, "out/traces.jsonl");
  EXPECT_EQ(t.name, "file:out/traces.jsonl");
  EXPECT_EQ(t.url, "");
  EXPECT_THAT(t.headers, IsEmpty());
  EXPECT_EQ(t.batch.interval, seconds(5));
}

TEST(ResolveTest, TheConsoleColoursAsAskedElseOnlyOnATerminalWithoutNoColor) {
  Environment env = environment({{"NO_COLOR", "1"}});
  const auto out = resolve_destination(ConsoleOptions{}, env);
  EXPECT_EQ(out.name, "console");
  EXPECT_EQ(out.signal, Signal::logs);
  EXPECT_EQ(out.output, Output::console);
  EXPECT_EQ(out.path, "stdout");
  EXPECT_EQ(out.minimum_severity, Severity::info);
  EXPECT_FALSE(out.color);
  const auto err = resolve_destination(ConsoleOptions{.level = Severity::error, .to_stderr = true, .color = true}, env);
  EXPECT_EQ(err.name, "console");
  EXPECT_EQ(err.path, "stderr");
  EXPECT_EQ(err.minimum_severity, Severity::error);
  EXPECT_TRUE(err.color);
}

TEST(ResolveTest, TheSamplerIsTheArgumentThenTheEnvironmentThenParentBasedOn) {
  HOLDS("TR-59", "EV-07", "EV-16");
  struct Case {
    Variables variables;
    SamplerKind kind;
    double ratio;
    std::size_t warnings;
  };
  const char* kind = "OTEL_TRACES_SAMPLER";
  const char* arg = "OTEL_TRACES_SAMPLER_ARG";
  for (const Case& c : {
           Case{{}, SamplerKind::parentbased_always_on, 1, 0},
           Case{{{arg, "0.1"}}, SamplerKind::parentbased_always_on, 1, 0},
           Case{{{kind, "always_on"}, {arg, "abc"}}, SamplerKind::always_on, 1, 0},
           Case{{{kind, "ALWAYS_OFF"}}, SamplerKind::always_off, 1, 0},
           Case{{{kind, "parentbased_always_on"}}, SamplerKind::parentbased_always_on, 1, 0},
           Case{{{kind, "parentbased_always_off"}}, SamplerKind::parentbased_always_off, 1, 0},
           Case{{{kind, "traceidratio"}, {arg, "0.25"}}, SamplerKind::traceidratio, 0.25, 0},
           Case{{{kind, "traceidratio"}}, SamplerKind::traceidratio, 1, 0},
           Case{{{kind, "parentbased_traceidratio"}, {arg, "1.5"}}, SamplerKind::parentbased_traceidratio, 1, 1},
           Case{{{kind, "jaeger_remote"}, {arg, "x"}}, SamplerKind::parentbased_always_on, 1, 1},
       }) {
    Variables variables = c.variables;
    variables["HOME"] = "/home/u";
    Environment env = environment(variables);
    const Config config = resolve_base(TracingOptions{}, env);
    EXPECT_EQ(config.sampler.kind, c.kind) << variables[kind];
    EXPECT_EQ(config.sampler.ratio, c.ratio) << variables[arg];
    EXPECT_THAT(env.warnings(), SizeIs(c.warnings));
  }
  const Config config = base({{kind, "always_off"}}, {.sampler = Sampler{SamplerKind::traceidratio, 0.5}});
  EXPECT_EQ(config.sampler.kind, SamplerKind::traceidratio);
  for (const double ratio : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW((void)base({}, {.sampler = Sampler{SamplerKind::traceidratio, ratio}}), Error);
  }
}

TEST(ResolveTest, LimitsOfTheModelBeatTheGeneralOnes) {
  HOLDS("TR-48", "TR-52", "TR-53");
  Config config = base({});
  EXPECT_EQ(config.span_limits.attribute_count, 128u);
  EXPECT_EQ(config.span_limits.attribute_value_length, UINT32_MAX);
  EXPECT_EQ(config.span_limits.event_count, 128u);
  config = base({{"OTEL_ATTRIBUTE_COUNT_LIMIT", "10"}, {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"}});
  EXPECT_EQ(config.span_limits.attribute_count, 10u);
  EXPECT_EQ(config.span_limits.attribute_value_length, 20u);
  EXPECT_EQ(config.log_limits.attribute_count, 10u);
  EXPECT_EQ(config.log_limits.attribute_value_length, 20u);
  config = base({{"OTEL_ATTRIBUTE_COUNT_LIMIT", "10"},
                 {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "11"},
                 {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0"},
                 {"OTEL_SPAN_EVENT_COUNT_LIMIT", "12"},
                 {"OTEL_SPAN_LINK_COUNT_LIMIT", "13"},
                 {"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "14"},
                 {"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "15"},
                 {"OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "16"},
                 {"OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "17"}});
  EXPECT_EQ(config.span_limits.attribute_count, 11u);
  EXPECT_EQ(config.span_limits.attribute_value_length, 0u);
  EXPECT_EQ(config.span_limits.event_count, 12u);
  EXPECT_EQ(config.span_limits.link_count, 13u);
  EXPECT_EQ(config.span_limits.event_attribute_count, 14u);
  EXPECT_EQ(config.span_limits.link_attribute_count, 15u);
  EXPECT_EQ(config.log_limits.attribute_count, 16u);
  EXPECT_EQ(config.log_limits.attribute_value_length, 17u);
}

TEST(ResolveTest, AnInvalidGeneralLimitIsToldOnce) {
  HOLDS("EV-03");
  Environment env = environment({{"OTEL_ATTRIBUTE_COUNT_LIMIT", "-1"}, {"HOME", "/home/u"}});
  EXPECT_EQ(resolve_base(TracingOptions{}, env).span_limits.attribute_count, 128u);
  EXPECT_THAT(env.warnings(), SizeIs(1));
}

TEST(ResolveTest, TheSdkIsDisabledAndSpeaksAsTheEnvironmentSays) {
  HOLDS("EV-02", "EH-09");
  EXPECT_FALSE(base({}).disabled);
  EXPECT_TRUE(base({{"OTEL_SDK_DISABLED", "True"}}).disabled);
  EXPECT_FALSE(base({{"OTEL_SDK_DISABLED", "1"}}).disabled);
  EXPECT_EQ(base({}).diagnostics, DiagnosticLevel::info);
  EXPECT_EQ(base({{"OTEL_LOG_LEVEL", "WARN"}}).diagnostics, DiagnosticLevel::warning);
  EXPECT_EQ(base({{"OTEL_LOG_LEVEL", "none"}}).diagnostics, DiagnosticLevel::none);
  EXPECT_EQ(base({{"OTEL_LOG_LEVEL", "debug"}}).diagnostics, DiagnosticLevel::debug);
  EXPECT_EQ(base({{"OTEL_LOG_LEVEL", "loud"}}).diagnostics, DiagnosticLevel::info);
}

TEST(ResolveTest, TheStateDirectoryIsTheOptionThenItsVariableThenXdgThenHome) {
  Variables variables{{"WAYMARK_STATE_DIR", "/var/lib/w/"}, {"XDG_STATE_HOME", "/xdg"}, {"HOME", "/home/u"}};
  EXPECT_EQ(base(variables, {.service = "s", .state_directory = "/opt/./state/"}).state_directory, "/opt/state");
  EXPECT_EQ(base(variables, {.service = "s"}).state_directory, "/var/lib/w");
  variables.erase("WAYMARK_STATE_DIR");
  EXPECT_EQ(base(variables, {.service = "my/service"}).state_directory, "/xdg/waymark/my%2Fservice");
  EXPECT_EQ(base(variables, {.service = ".."}).state_directory, "/xdg/waymark/%2E.");
  EXPECT_EQ(base(variables).state_directory, "/xdg/waymark/config_test");
  variables.erase("XDG_STATE_HOME");
  EXPECT_EQ(base(variables, {.service = "s"}).state_directory, "/home/u/.local/state/waymark/s");
}

TEST(ResolveTest, ARelativeStateDirectoryIsMadeAbsolute) {
  const std::string here = std::filesystem::current_path();
  EXPECT_EQ(base({}, {.state_directory = "out/../state"}).state_directory, here + "/state");
  EXPECT_EQ(base({{"WAYMARK_STATE_DIR", "state"}}).state_directory, here + "/state");
}

TEST(ResolveTest, WithoutAnyPlaceTelemetryStaysInMemoryAndSaysSo) {
  for (const Variables& variables : {Variables{}, Variables{{"HOME", ""}}, Variables{{"HOME", "relative"}}}) {
    Environment env = environment(variables);
    EXPECT_EQ(resolve_base(TracingOptions{.service = "s"}, env).state_directory, "");
    EXPECT_THAT(env.warnings(), ElementsAre(AllOf(HasSubstr("WAYMARK_STATE_DIR"), HasSubstr("memory"))));
  }
  Environment env = environment({{"XDG_STATE_HOME", "relative"}, {"HOME", "/home/u"}});
  EXPECT_EQ(resolve_base(TracingOptions{.service = "s"}, env).state_directory, "/home/u/.local/state/waymark/s");
  EXPECT_THAT(env.warnings(), ElementsAre(HasSubstr("XDG_STATE_HOME")));
}

TEST(ResolveTest, TheFirstCallsOptionsReachTheConfig) {
  Environment env = environment({{"HOME", "/home/u"}});
  const OnRecord hook = [](RecordEditor&) { return Verdict::drop; };
  Config config = resolve_base(
      TracingOptions{.service = "s", .recorder = RecorderConfig::Place::state, .on_record = hook}, env);
  EXPECT_EQ(config.resource.service_name(), "s");
  EXPECT_EQ(config.recorder.place, RecorderConfig::Place::state);
  EXPECT_TRUE(config.on_record);
  config = resolve_base(LoggingOptions{.service = "l", .logs_as_span_events = true}, env);
  EXPECT_EQ(config.resource.service_name(), "l");
  EXPECT_EQ(config.recorder.place, RecorderConfig::Place::tmpfs);
  EXPECT_TRUE(config.logs_as_span_events);
  EXPECT_FALSE(config.on_record);
  config = resolve_base(ConsoleOptions{.service = "c"}, env);
  EXPECT_EQ(config.resource.service_name(), "c");
  EXPECT_THAT(config.destinations, IsEmpty());
}

}  // namespace
}  // namespace waymark::config
