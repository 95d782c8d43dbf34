// The calls at start-up. Each resolves its options against the environment and adds a destination to the process-wide
// Telemetry (telemetry.h).
//
// Hides: environment variables, endpoint and duration rules, resource detection.
// Threads: any, one at a time; call before recording starts.
// Failure: Error, with nothing changed.
//
// Argument beats environment beats file beats default; an empty variable counts as unset.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/config.h"
#include "waymark/telemetry.h"

namespace waymark {

struct TracingOptions {
  Resource service = {};         // a service name, or a whole resource
  std::string endpoint = {};     // base or complete URL, or file:PATH; else OTEL_TRACES_ENDPOINT, else OTEL_EXPORTER_OTLP_*
  HeaderList headers = {};       // for every request
  std::string headers_file = {};  // more of them, `Name: value` a line; read again after 401
  std::optional<Protocol> protocol = {};  // else OTEL_EXPORTER_OTLP[_TRACES]_PROTOCOL, else http/protobuf
  std::optional<bool> gzip = {};          // else OTEL_EXPORTER_OTLP[_TRACES]_COMPRESSION, else false
  std::optional<std::chrono::nanoseconds> timeout = {};  // of a request; else OTEL_EXPORTER_OTLP[_TRACES]_TIMEOUT, else 10 s
  TlsConfig tls = {};                     // else OTEL_EXPORTER_OTLP[_TRACES]_CERTIFICATE, _CLIENT_CERTIFICATE, _CLIENT_KEY
  Preset preset = Preset::none;
  std::optional<std::chrono::nanoseconds> export_interval = {};  // default 5 s
  std::optional<Sampler> sampler = {};
  std::string name = {};         // of the destination; default: the URL without userinfo, query and /v1/...
  bool lossy = true;
  std::string state_directory = {};  // else WAYMARK_STATE_DIR, else $XDG_STATE_HOME/waymark/<service>
  std::optional<RecorderConfig::Place> recorder = {};
  OnRecord on_record = {};
};

struct LoggingOptions {
  Resource service = {};
  std::string endpoint = {};     // else OTEL_LOGS_ENDPOINT, else OTEL_EXPORTER_OTLP_*
  HeaderList headers = {};
  std::string headers_file = {};
  std::optional<Protocol> protocol = {};  // and so on: as for tracing, with LOGS in the variables
  std::optional<bool> gzip = {};
  std::optional<std::chrono::nanoseconds> timeout = {};
  TlsConfig tls = {};
  Preset preset = Preset::none;
  std::optional<std::chrono::nanoseconds> export_interval = {};  // default 1 s
  Severity level = Severity::debug;  // records below it are not sent
  std::string name = {};
  bool lossy = true;
  bool logs_as_span_events = false;  // also copy each record to the current span as the event "log.message"
  std::string state_directory = {};
  std::optional<RecorderConfig::Place> recorder = {};
  OnRecord on_record = {};
};

// Metrics are collected once for all their destinations: what says how (interval, temporality, histograms, exemplar_filter,
// views, process, sdk) belongs to the first call, and must be the same in later ones or left out.
struct MetricsOptions {
  Resource service = {};
  std::string endpoint = {};     // else OTEL_METRICS_ENDPOINT, else OTEL_EXPORTER_OTLP_*
  HeaderList headers = {};
  std::string headers_file = {};
  std::optional<Protocol> protocol = {};  // and so on: as for tracing, with METRICS in the variables
  std::optional<bool> gzip = {};
  std::optional<std::chrono::nanoseconds> timeout = {};
  TlsConfig tls = {};
  Preset preset = Preset::none;
  std::optional<std::chrono::nanoseconds> interval = {};  // between collections; else OTEL_METRIC_EXPORT_INTERVAL, else 60 s
  std::optional<Temporality> temporality = {};  // else OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, else cumulative
  std::optional<Aggregation> histograms = {};   // else OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION, else by unit
  std::optional<ExemplarFilter> exemplar_filter = {};  // else OTEL_METRICS_EXEMPLAR_FILTER, else trace_based
  std::vector<View> views = {};
  std::optional<bool> process = {};       // the process's own numbers (process.*); else true
  std::optional<bool> sdk = {};           // Waymark's own (otel.sdk.*, waymark.*); else true
  std::string name = {};
  bool lossy = true;
  std::string state_directory = {};
  std::optional<RecorderConfig::Place> recorder = {};
};

struct ConsoleOptions {
  Severity level = Severity::info;
  bool to_stderr = false;
  std::optional<bool> color = {};  // default: only on a terminal and without NO_COLOR
  Resource service = {};
};

void configure_otel_tracing(const TracingOptions& options = {});
void configure_otel_logging(const LoggingOptions& options = {});
void configure_otel_metrics(const MetricsOptions& options = {});
// Log records as lines for people. Calling it again replaces it.
void configure_console_logging(const ConsoleOptions& options = {});

// Everything at once from a YAML file; its words are in docs/configuration.md. An empty path: the variable WAYMARK_CONFIG.
// Throws Error(invalid_config) that lists all that is wrong, each with file, line, column and key; nothing is changed then.
// Called after other configure calls, it adds its destinations to theirs; one of the same name and signal replaces.
void configure_from_file(const std::string& path = {});
// What a file says beside its Config, or why something stands in it: for whoever looks at one.
struct ConfigNotes {
  std::vector<std::string> warnings;     // what is odd but no error, each with its place
  std::vector<std::string> propagators;  // of the process, as configure_from_file has it: OTEL_PROPAGATORS's words
  Resource given;                        // of the Config's resource, what was neither detected nor drawn
  std::string state_directory;           // the Config's; empty where it follows from the name of the program that asks
};
// The same file as a Config, with the environment in its place, for a Telemetry of one's own or to be looked at: its
// destinations hold secrets. Throws as configure_from_file does.
[[nodiscard]] Config read_config_file(const std::string& path = {}, ConfigNotes* notes = nullptr);

// SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT are written into the recorders of this process, with the stack, before they
// take their course (core dumps and earlier handlers still work): the interrupted span of the thread says what happened.
// Once for the process, before or after the other calls; a later call only gives the calling thread a stack for signals, in
// case its own runs out: other threads get one at their first record. Throws Error(io) where the system refuses.
void install_crash_handler();

// Each Telemetry made from now on recovers nothing, whatever its Config says. For a process that works for another one:
// that one is to hear of the dead, and delivers what they have left.
void leave_recovery_to_others() noexcept;

// Of the process-wide Telemetry.
bool force_flush(std::chrono::nanoseconds timeout = std::chrono::seconds(5));
bool shutdown(std::chrono::nanoseconds timeout = std::chrono::seconds(5));
[[nodiscard]] Stats stats();
[[nodiscard]] Tracer tracer(std::string_view name, std::string_view version = {});
[[nodiscard]] Logger logger(std::string_view name, std::string_view version = {});
[[nodiscard]] Meter meter(std::string_view name, std::string_view version = {});
// Instead of standard error.
void set_error_handler(ErrorHandler handler);

// "5s", "1m30s", "250ms", "1d2h3m4s" (units d, h, m, s, ms, us; largest first), as OTEL_EXPORT_INTERVAL reads it.
// Throws Error(invalid_duration) that names `key`.
[[nodiscard]] std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view key);

}  // namespace waymark
