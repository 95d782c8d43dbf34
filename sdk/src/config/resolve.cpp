#include "config/resolve.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "config/endpoint.h"
#include "config/headers.h"
#include "config/resource.h"
#include "config/text.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

using std::chrono::nanoseconds;

// What differs between the signals, said once.
struct SignalVariables {
  Signal signal;
  const char* word;
  const char* call;           // the function that configures it
  const char* endpoint;       // Tilebox's name: base or complete
  const char* otlp_endpoint;  // OpenTelemetry's: as it is
  const char* headers;
  const char* timeout;
  const char* compression;
  const char* protocol;
  const char* insecure;
  const char* certificate;
  const char* client_certificate;
  const char* client_key;
  const char* schedule_delay;
  const char* batch_size;
  nanoseconds interval;       // the default
};

constexpr SignalVariables kTraces{Signal::traces,
                                  "traces",
                                  "configure_otel_tracing",
                                  "OTEL_TRACES_ENDPOINT",
                                  "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                                  "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                                  "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
                                  "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
                                  "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                                  "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
                                  "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
                                  "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
                                  "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
                                  "OTEL_BSP_SCHEDULE_DELAY",
                                  "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                                  std::chrono::seconds(5)};
constexpr SignalVariables kLogs{Signal::logs,
                                "logs",
                                "configure_otel_logging",
                                "OTEL_LOGS_ENDPOINT",
                                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                                "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
                                "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
                                "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION",
                                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
                                "OTEL_EXPORTER_OTLP_LOGS_INSECURE",
                                "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE",
                                "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
                                "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
                                "OTEL_BLRP_SCHEDULE_DELAY",
                                "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
                                std::chrono::seconds(1)};
// Metrics have an interval of their own, and no batch processor: what is collected is sent at once.
constexpr SignalVariables kMetrics{Signal::metrics,
                                   "metrics",
                                   "configure_otel_metrics",
                                   "OTEL_METRICS_ENDPOINT",
                                   "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                                   "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
                                   "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
                                   "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
                                   "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
                                   "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
                                   "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
                                   "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
                                   "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
                                   nullptr,
                                   nullptr,
                                   std::chrono::seconds(1)};
constexpr const char* kBaseEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";

constexpr nanoseconds kYear = std::chrono::hours(24 * 365);
// People who read a console want lines now; a tenth of a second still makes one write of a burst.
constexpr nanoseconds kConsoleInterval = std::chrono::milliseconds(100);

// How this destination's endpoints are read.
struct Reading {
  const SignalVariables& of;
  Protocol protocol;
  bool insecure;  // gRPC without a scheme
  Environment& environment;

  [[nodiscard]] std::optional<Endpoint> operator()(std::string_view text, PathRule rule, std::string_view key) const {
    return protocol == Protocol::grpc ? parse_grpc_endpoint(text, of.signal, insecure, key)
                                      : parse_endpoint(text, of.signal, rule, key);
  }
};

std::optional<Endpoint> otlp_endpoint(const Reading& reading, std::string& key) {
  Environment& environment = reading.environment;
  if (const auto own = environment.text(reading.of.otlp_endpoint)) {
    key = reading.of.otlp_endpoint;
    return reading(*own, PathRule::as_it_is, key);
  }
  const auto base = environment.text(kBaseEndpoint);
  if (!base) return std::nullopt;
  key = kBaseEndpoint;
  auto endpoint = reading(*base, PathRule::base, key);
  for (const char* suffix : {"/v1/traces", "/v1/logs", "/v1/metrics"}) {
    if (endpoint->output == Output::otlp && endpoint->name.ends_with(suffix)) {
      environment.warn(std::string(kBaseEndpoint) + " ends in " + suffix + " and is a base to which /v1/" +
                       reading.of.word + " is added; write it without " + suffix);
    }
  }
  return endpoint;
}

// The headers of OTEL_EXPORTER_OTLP_HEADERS were written for the endpoint of the same family: where that is another
// server than the one chosen, they are secrets of somebody else's.
HeaderList environment_headers(const Reading& reading, const Endpoint& chosen, bool chosen_by_otlp_variable) {
  Environment& environment = reading.environment;
  const auto variable = environment.first({reading.of.headers, "OTEL_EXPORTER_OTLP_HEADERS"});
  if (!variable) return {};
  if (const auto meant = environment.first({reading.of.otlp_endpoint, kBaseEndpoint});
      meant && !chosen_by_otlp_variable) {
    bool same = false;
    try {
      same = reading(meant->text, PathRule::as_it_is, meant->name)->origin == chosen.origin;
    } catch (const Error&) {
      // It is not used for anything else here, so what is wrong with it is nobody's concern.
    }
    if (!same) {
      environment.warn(variable->name + " is not sent to " + chosen.name + ", because " + meant->name +
                       " names another server; give the headers in the options");
      return {};
    }
  }
  return parse_headers(*variable, environment, reading.protocol);
}

nanoseconds checked_interval(nanoseconds interval) {
  if (interval <= nanoseconds::zero() || interval > kYear) {
    throw Error(ErrorCode::invalid_duration,
                "export_interval: " + std::to_string(interval.count()) +
                    " ns is out of range; give a duration above zero and of at most a year, for example 5s");
  }
  return interval;
}

// Nothing where nobody says.
std::optional<nanoseconds> interval_of(const SignalVariables& of, const std::optional<nanoseconds>& given,
                                       Environment& environment) {
  if (given) return checked_interval(*given);
  if (const auto text = environment.text("OTEL_EXPORT_INTERVAL")) return parse_duration(*text, "OTEL_EXPORT_INTERVAL");
  if (const auto delay = environment.milliseconds({of.schedule_delay})) {
    // Zero means "at once", and the shortest wait comes nearest to it.
    return std::max<nanoseconds>(*delay, std::chrono::milliseconds(1));
  }
  return std::nullopt;
}

Protocol protocol_of(const SignalVariables& of, const std::optional<Protocol>& given, Environment& environment) {
  if (given) return *given;
  // In the order of Protocol.
  const auto word =
      environment.choice({of.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"}, {"http/protobuf", "http/json", "grpc"});
  return word ? static_cast<Protocol>(*word) : Protocol::http_protobuf;
}

bool insecure(const SignalVariables& of, Environment& environment) {
  const auto variable = environment.first({of.insecure, "OTEL_EXPORTER_OTLP_INSECURE"});
  return variable && environment.flag(variable->name.c_str());
}

nanoseconds timeout_of(const SignalVariables& of, const std::optional<nanoseconds>& given, nanoseconds otherwise,
                       Environment& environment) {
  if (given) {
    if (*given < nanoseconds::zero() || *given > kYear) {
      throw Error(ErrorCode::invalid_duration, "timeout: " + std::to_string(given->count()) +
                                                   " ns is out of range; give at most a year, for example 10s, or 0 for "
                                                   "no limit");
    }
    return *given;
  }
  if (const auto timeout = environment.milliseconds({of.timeout, "OTEL_EXPORTER_OTLP_TIMEOUT"})) return *timeout;
  return otherwise;
}

// A client's certificate and key belong together: both are the argument's, or both the environment's.
TlsConfig tls_of(const SignalVariables& of, const TlsConfig& given, const std::string& url, Environment& environment) {
  TlsConfig tls = given;
  if (!url.starts_with("https:")) return tls;  // nothing to secure: what the variables name is for other destinations
  const auto path = [&](const char* own, const char* base) {
    const auto found = environment.first({own, base});
    return found ? found->text : std::string();
  };
  if (tls.ca_file.empty()) tls.ca_file = path(of.certificate, "OTEL_EXPORTER_OTLP_CERTIFICATE");
  if (tls.certificate_file.empty() && tls.key_file.empty()) {
    tls.certificate_file = path(of.client_certificate, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE");
    tls.key_file = path(of.client_key, "OTEL_EXPORTER_OTLP_CLIENT_KEY");
  }
  return tls;
}

template <typename Options>
DestinationConfig otlp_destination(const SignalVariables& of, const Options& options, Environment& environment) {
  const Protocol protocol = protocol_of(of, options.protocol, environment);
  const Reading reading{of, protocol, protocol == Protocol::grpc && insecure(of, environment), environment};
  std::string key = "endpoint";
  auto endpoint = reading(options.endpoint, PathRule::base_or_complete, key);
  if (!endpoint) {
    if (const auto text = environment.text(of.endpoint)) {
      key = of.endpoint;
      endpoint = reading(*text, PathRule::base_or_complete, key);
    }
  }
  const bool by_otlp_variable = !endpoint;
  if (!endpoint) endpoint = otlp_endpoint(reading, key);
  if (!endpoint) {
    throw Error(ErrorCode::missing_endpoint,
                std::string(of.call) + ": no endpoint is given; set the option `endpoint`, or the variable " +
                    of.endpoint + " or " + kBaseEndpoint + ", for example to http://localhost:4318 or file:" +
                    of.word + ".jsonl");
  }
  if (endpoint->path_ignored) {
    environment.warn(key + ": gRPC requests are sent to " + endpoint->url + "; the path behind it is left out");
  }

  DestinationConfig destination;
  destination.name = options.name.empty() ? endpoint->name : options.name;
  destination.signal = of.signal;
  destination.output = endpoint->output;
  destination.lossy = options.lossy;
  const HeaderList given = checked_headers(options.headers, protocol);
  if (endpoint->output == Output::otlp) {
    destination.protocol = protocol;
    destination.preset = options.preset;
    destination.url = endpoint->url;
    destination.headers = environment_headers(reading, *endpoint, by_otlp_variable);
    if (!endpoint->authorization.empty()) put_header(destination.headers, "Authorization", endpoint->authorization);
    for (const auto& [name, value] : given) put_header(destination.headers, name, value);
    destination.headers_file = options.headers_file;
    destination.tls = tls_of(of, options.tls, endpoint->url, environment);
    destination.timeout = timeout_of(of, options.timeout, destination.timeout, environment);
    const auto compression = environment.choice({of.compression, "OTEL_EXPORTER_OTLP_COMPRESSION"}, {"none", "gzip"});
    destination.gzip = options.gzip.value_or(compression == 1u);
  } else {
    destination.path = endpoint->path;
  }
  if (destination.preset == Preset::s2) use_s2_batches(destination);
  if (destination.preset == Preset::none) destination.batch.interval = of.interval;
  if constexpr (requires { options.export_interval; }) {
    if (const auto interval = interval_of(of, options.export_interval, environment)) destination.batch.interval = *interval;
  }
  // Waymark cuts batches by bytes and age; a count is a limit only where somebody asks for it. There is no queue whose
  // size OTEL_BSP_MAX_QUEUE_SIZE could set: RecorderConfig and JournalConfig bound what waits.
  if (of.batch_size != nullptr) destination.batch.max_records = environment.integer({of.batch_size}, 1, INT32_MAX).value_or(0);
  return destination;
}

Sampler sampler_of(const std::optional<Sampler>& given, const Sampler& below, Environment& environment) {
  if (given) {
    if (!(given->ratio >= 0 && given->ratio <= 1)) {
      throw Error(ErrorCode::invalid_argument,
                  "sampler: the ratio " + std::to_string(given->ratio) + " is out of range; give one from 0 to 1");
    }
    return *given;
  }
  // In the order of SamplerKind.
  const auto kind = environment.choice({"OTEL_TRACES_SAMPLER"},
                                       {"always_on", "always_off", "traceidratio", "parentbased_always_on",
                                        "parentbased_always_off", "parentbased_traceidratio"});
  if (!kind) return below;
  Sampler sampler{.kind = static_cast<SamplerKind>(*kind), .ratio = 1.0};
  if (sampler.kind == SamplerKind::traceidratio || sampler.kind == SamplerKind::parentbased_traceidratio) {
    sampler.ratio = environment.ratio("OTEL_TRACES_SAMPLER_ARG").value_or(1.0);
  }
  return sampler;
}

void read_limit(std::uint32_t& limit, Environment::Names names, Environment& environment) {
  if (const auto number = environment.integer(names, 0, UINT32_MAX)) limit = static_cast<std::uint32_t>(*number);
}

void read_span_limits(Limits& limits, Environment& environment) {
  constexpr const char* general_count = "OTEL_ATTRIBUTE_COUNT_LIMIT";
  read_limit(limits.attribute_count, {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", general_count}, environment);
  read_limit(limits.attribute_value_length,
             {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"}, environment);
  read_limit(limits.event_count, {"OTEL_SPAN_EVENT_COUNT_LIMIT"}, environment);
  read_limit(limits.link_count, {"OTEL_SPAN_LINK_COUNT_LIMIT"}, environment);
  read_limit(limits.event_attribute_count, {"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", general_count}, environment);
  read_limit(limits.link_attribute_count, {"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", general_count}, environment);
}

void read_log_limits(Limits& limits, Environment& environment) {
  read_limit(limits.attribute_count, {"OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"},
             environment);
  read_limit(limits.attribute_value_length,
             {"OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"}, environment);
}

DiagnosticLevel diagnostic_level(DiagnosticLevel below, Environment& environment) {
  const auto level =
      environment.choice({"OTEL_LOG_LEVEL"}, {"none", "error", "warn", "warning", "info", "debug", "trace"});
  static constexpr DiagnosticLevel levels[] = {DiagnosticLevel::none,    DiagnosticLevel::error,
                                               DiagnosticLevel::warning, DiagnosticLevel::warning,
                                               DiagnosticLevel::info,    DiagnosticLevel::debug,
                                               DiagnosticLevel::debug};
  return level ? levels[*level] : below;
}

// Where the state directory can't be had, telemetry stays in memory, and a warning says so.
std::string state_directory(std::string_view given, std::string_view below, const Resource& resource,
                            Environment& environment) {
  if (std::string directory = absolute_directory(given); !directory.empty()) return directory;
  if (const auto directory = environment.text("WAYMARK_STATE_DIR")) return absolute_directory(*directory);
  if (std::string directory = absolute_directory(below); !directory.empty()) return directory;

  std::filesystem::path home;
  if (const auto state = environment.text("XDG_STATE_HOME")) {
    // The XDG specification: a relative path is invalid and is ignored.
    if (state->front() == '/') {
      home = *state;
    } else {
      environment.warn("XDG_STATE_HOME: " + in_quotes(*state) + " is ignored; write an absolute path");
    }
  }
  if (home.empty()) {
    if (const auto user = environment.text("HOME"); user && user->front() == '/') {
      home = std::filesystem::path(*user) / ".local" / "state";
    }
  }
  if (home.empty()) {
    environment.warn("neither WAYMARK_STATE_DIR nor XDG_STATE_HOME nor HOME names a directory: telemetry stays in "
                     "memory, and what is not delivered is lost when the process ends");
    return {};
  }
  std::string service = resource.service_name();
  constexpr std::string_view unknown = "unknown_service:";
  if (service.starts_with(unknown)) service.erase(0, unknown.size());
  return (home / "waymark" / file_name_of(service)).lexically_normal();
}

struct BaseOptions {
  const Resource& service;
  std::string_view state_directory = {};
  std::optional<RecorderConfig::Place> recorder = {};
  std::optional<Sampler> sampler = {};
  OnRecord on_record = {};
  bool logs_as_span_events = false;
};

// `config` holds what a configuration file says; `below` is its resource.
Config base(const BaseOptions& options, Environment& environment, Config config = {}, const Resource& below = {}) {
  config.resource = detect_resource(options.service, environment, &config.instance_id_made_up, below);
  config.state_directory =
      state_directory(options.state_directory, config.state_directory, config.resource, environment);
  if (options.recorder) config.recorder.place = *options.recorder;
  config.sampler = sampler_of(options.sampler, config.sampler, environment);
  read_span_limits(config.span_limits, environment);
  read_log_limits(config.log_limits, environment);
  config.logs_as_span_events = config.logs_as_span_events || options.logs_as_span_events;
  if (environment.text("OTEL_SDK_DISABLED")) config.disabled = environment.flag("OTEL_SDK_DISABLED");
  config.diagnostics = diagnostic_level(config.diagnostics, environment);
  config.on_record = options.on_record;
  return config;
}

}  // namespace

// The bounds that S2's page recommends.
void use_s2_batches(DestinationConfig& destination) {
  destination.batch.interval = std::chrono::milliseconds(50);
  destination.batch.min_bytes = 256 * 1024;
  destination.batch.max_bytes = 512 * 1024;
  destination.batch_is_final = true;
}

std::string absolute_directory(std::string_view path) {
  if (trimmed(path).empty()) return {};
  std::error_code gone;  // of a working directory that was removed: the path stays as it is, and opening it will tell
  auto absolute = std::filesystem::absolute(trimmed(path), gone);
  if (gone) absolute = trimmed(path);
  std::string text = absolute.lexically_normal();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

Config resolve_base(const TracingOptions& options, Environment& environment) {
  return base({.service = options.service,
               .state_directory = options.state_directory,
               .recorder = options.recorder,
               .sampler = options.sampler,
               .on_record = options.on_record},
              environment);
}

Config resolve_base(const LoggingOptions& options, Environment& environment) {
  return base({.service = options.service,
               .state_directory = options.state_directory,
               .recorder = options.recorder,
               .on_record = options.on_record,
               .logs_as_span_events = options.logs_as_span_events},
              environment);
}

Config resolve_base(const MetricsOptions& options, Environment& environment) {
  return base({.service = options.service, .state_directory = options.state_directory, .recorder = options.recorder}, environment);
}

Config resolve_base(const ConsoleOptions& options, Environment& environment) {
  return base({.service = options.service}, environment);
}

Config resolve_file_base(Config below, const Resource& resource, Environment& environment) {
  return base({.service = {}}, environment, std::move(below), resource);
}

DestinationConfig resolve_destination(const TracingOptions& options, Environment& environment) {
  return otlp_destination(kTraces, options, environment);
}

DestinationConfig resolve_destination(const LoggingOptions& options, Environment& environment) {
  DestinationConfig destination = otlp_destination(kLogs, options, environment);
  destination.minimum_severity = options.level;
  return destination;
}

DestinationConfig resolve_destination(const MetricsOptions& options, Environment& environment) {
  return otlp_destination(kMetrics, options, environment);
}

MetricConfig resolve_metrics(const MetricsOptions& options, std::optional<MetricConfig> said, Environment& environment) {
  MetricConfig below;
  below.process = below.sdk = true;
  if (said) below = *std::move(said);
  if (options.interval) {
    if (*options.interval < std::chrono::milliseconds(1) || *options.interval > kYear) {
      throw Error(ErrorCode::invalid_duration, "interval: " + std::to_string(options.interval->count()) +
                                                   " ns is out of range; give 1 ms to a year, for example 60s");
    }
    below.interval = *options.interval;
  } else if (const auto interval = environment.milliseconds({"OTEL_METRIC_EXPORT_INTERVAL"})) {
    below.interval = std::max<nanoseconds>(*interval, std::chrono::milliseconds(1));
  }
  // Each in the order of its enumeration.
  if (options.temporality) {
    below.temporality = *options.temporality;
  } else if (const auto word = environment.choice({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"},
                                                  {"cumulative", "delta", "lowmemory"})) {
    below.temporality = static_cast<Temporality>(*word);
  }
  if (options.histograms) {
    below.default_histogram = *options.histograms;
  } else if (const auto kind = environment.choice({"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"},
                                                  {"explicit_bucket_histogram", "base2_exponential_bucket_histogram"})) {
    below.default_histogram = *kind == 0 ? Aggregation::explicit_histogram : Aggregation::exponential_histogram;
  }
  if (options.exemplar_filter) {
    below.exemplar_filter = *options.exemplar_filter;
  } else if (const auto filter =
                 environment.choice({"OTEL_METRICS_EXEMPLAR_FILTER"}, {"trace_based", "always_on", "always_off"})) {
    below.exemplar_filter = static_cast<ExemplarFilter>(*filter);
  }
  if (!options.views.empty()) below.views = options.views;
  below.process = options.process.value_or(below.process);
  below.sdk = options.sdk.value_or(below.sdk);
  return below;
}

DestinationConfig resolve_destination(const ConsoleOptions& options, Environment& environment) {
  DestinationConfig destination;
  destination.name = "console";
  destination.signal = Signal::logs;
  destination.output = Output::console;
  destination.path = options.to_stderr ? "stderr" : "stdout";
  destination.minimum_severity = options.level;
  destination.batch.interval = kConsoleInterval;
  destination.color = options.color.value_or(isatty(options.to_stderr ? STDERR_FILENO : STDOUT_FILENO) == 1 &&
                                             !environment.text("NO_COLOR") && environment.text("TERM") != "dumb");
  return destination;
}

}  // namespace waymark::config
