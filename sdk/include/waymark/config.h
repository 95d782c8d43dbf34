// A Telemetry's configuration, resolved: no environment, no defaults left to find.
//
// Hides: nothing; it is data. Made by configure.h's functions, or by hand for a Telemetry of one's own.
// Threads: values.
// Failure: Telemetry's constructor and add() throw Error for values out of range.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waymark/log.h"
#include "waymark/metric.h"
#include "waymark/propagation.h"
#include "waymark/resource.h"
#include "waymark/trace.h"

namespace waymark {

enum class Signal : std::uint8_t { traces = 0, logs = 1, metrics = 2 };
inline constexpr std::size_t kSignals = 3;
[[nodiscard]] std::string_view signal_name(Signal signal) noexcept;  // "traces", "logs", "metrics"

struct ReadSpan;  // reader.h

using HeaderList = std::vector<std::pair<std::string, std::string>>;

enum class Output : std::uint8_t {
  otlp,      // requests to `url`, in the words of `protocol`
  file,      // one OTLP JSON request a line, appended to `path` ("-": standard output)
  console,   // log records as text for people, to standard output or standard error
  callback,  // `deliver` is called with each encoded request: tests, embedders
};

// OTEL_EXPORTER_OTLP_PROTOCOL's words: http/protobuf, http/json, grpc.
enum class Protocol : std::uint8_t { http_protobuf, http_json, grpc };

// What a backend asks of its clients beyond OTLP.
enum class Preset : std::uint8_t {
  none,
  s2,  // its retryable statuses, its batch bounds (50 ms, 256 KiB, 512 KiB), a bearer token; `s2.stream` must be given
};

// Files in PEM. Read when a connection is made, so that renewed ones are found.
struct TlsConfig {
  std::string ca_file = {};          // who may sign the server's certificate; empty: the system's
  std::string certificate_file = {}; // the client's own; empty: none
  std::string key_file = {};         // its key; with certificate_file, and only then
  std::string minimum_version = "1.2";  // or "1.3"
  bool insecure_skip_verify = false; // believes any server; said as a warning at every start
};

// What became of one request.
enum class Outcome : std::uint8_t { delivered, retry, rejected };
struct DeliveryResult {
  Outcome outcome = Outcome::delivered;
  std::uint64_t rejected = 0;  // records refused within a delivered request (partial success)
  std::string message = {};    // why, for people
};

struct BatchConfig {
  std::size_t max_bytes = 512 * 1024;                      // encoded request, [1 KiB, 64 MiB]
  std::size_t min_bytes = 0;                               // so much waiting, encoded, is worth sending at once (of JSON by
                                                           // what the last request's records took); 0: max_bytes
  std::size_t max_records = 0;                             // 0: no limit but bytes
  std::chrono::nanoseconds interval = std::chrono::seconds(5);  // the oldest record waits at most this long, (0, 1 year]
};

// Exponential backoff with jitter over the upper part: wait in [(1 - jitter) * d, d], d = initial * multiplier^n, at most
// maximum.
struct RetryConfig {
  std::chrono::nanoseconds initial = std::chrono::milliseconds(500);
  std::chrono::nanoseconds maximum = std::chrono::seconds(30);
  double multiplier = 2.0;
  double jitter = 0.5;  // [0, 1]; 0: none, so that all who were refused at once come back at once
  std::chrono::nanoseconds give_up_age{0};  // a batch that is refused for longer than this is dropped, counted; 0: never.
                                            // While its credentials are what is refused, it is kept
};

// Of Output::file. The file is closed, renamed to PATH.1 (PATH.1 to PATH.2, and so on), and begun anew.
struct RotationConfig {
  std::size_t max_bytes = 0;                // of one file; 0: no limit
  std::chrono::nanoseconds max_age{0};      // of one file; 0: no limit
  std::size_t files = 5;                    // kept beside the current one; older ones are removed
};

// One reader of the journal: a name and a signal.
struct DestinationConfig {
  std::string name;  // cursors are found again by name and signal
  Signal signal = Signal::traces;
  bool enabled = true;  // false: gets nothing new; what its cursor has not got yet stays in the journal
  Output output = Output::otlp;
  Protocol protocol = Protocol::http_protobuf;          // otlp
  Preset preset = Preset::none;                         // otlp
  std::string url;                                      // otlp: complete, as it will be requested; grpc: scheme, host, port
  HeaderList headers;                                   // otlp: secrets; never stored, never shown
  std::string headers_file;                             // otlp: more of them, `Name: value` a line; read at the start, and
                                                        // again after 401, so that tokens can be rotated
  TlsConfig tls;                                        // otlp with https
  std::chrono::nanoseconds timeout = std::chrono::seconds(10);  // one request; 0: no limit
  bool gzip = false;
  std::size_t max_response_bytes = 4 * 1024 * 1024;     // otlp: a longer answer, unpacked, is none; [1 KiB, 64 MiB]
  std::string path;                                     // file: its path; console: "stdout" or "stderr"
  RotationConfig rotation;                              // file
  bool color = false;                                   // console
  std::function<DeliveryResult(Signal, std::string_view request)> deliver;  // callback: runs on the destination's thread
  Severity minimum_severity = Severity::unspecified;    // logs: records below it are filtered
  std::function<bool(const ReadSpan&)> span_filter;     // traces: false is filtered; runs on the destination's thread
  bool lossy = true;   // false: writers wait (at most block_timeout) rather than lose what this destination has not got
  BatchConfig batch;
  bool batch_is_final = false;  // preset: true leaves `batch` as it is; else what is at its default becomes the preset's
  RetryConfig retry;
  AnyMap resource_attributes;                           // added to the resource for this destination only
};

struct Limits {
  std::uint32_t attribute_count = 128;
  std::uint32_t attribute_value_length = UINT32_MAX;  // characters of a string, bytes of a byte string
  std::uint32_t attribute_value_depth = 64;
  std::uint32_t event_count = 128;
  std::uint32_t link_count = 128;
  std::uint32_t event_attribute_count = 128;
  std::uint32_t link_attribute_count = 128;
};

struct RecorderConfig {
  enum class Place : std::uint8_t { tmpfs, state };
  Place place = Place::tmpfs;
  std::size_t max_bytes = 16 * 1024 * 1024;  // lanes and pool together, [1 MiB, 1 GiB]
  std::size_t ring_bytes = 1024 * 1024;      // of one thread's lane
};

// When the journal is written through to the disk. The page cache outlives the process, so none of this matters to a
// crash of the program; it is for those who fear the machine's end.
enum class Fsync : std::uint8_t {
  never,        // a power failure loses what the kernel had not written by itself, and what lay on tmpfs
  interval,     // all that was recorded up to `fsync_interval` before the failure is on the disk
  every_batch,  // no request is sent, and no flush answers, before its records are on the disk
};

struct JournalConfig {
  std::size_t max_bytes = 256 * 1024 * 1024;   // of one live process; all dead ones together have another of the same size
  std::size_t memory_bytes = 32 * 1024 * 1024; // of it, on tmpfs
  std::size_t segment_bytes = 4 * 1024 * 1024;
  std::size_t keep_bytes = 64 * 1024 * 1024;   // delivered telemetry that stays to be looked at, after a clean end
  std::chrono::nanoseconds block_timeout = std::chrono::seconds(5);
  Fsync fsync = Fsync::never;                  // not `never`: segments are in the state directory from the start
  std::chrono::nanoseconds fsync_interval = std::chrono::seconds(1);
};

// A finished record on its way into the journal. Runs in the collector thread, before anything is stored.
// Change what is passed by `replace_attribute` and friends; the verdict says whether the record stays.
enum class Verdict : std::uint8_t { keep, drop };
class RecordEditor;
using OnRecord = std::function<Verdict(RecordEditor&)>;

// What was found in a dead process's directory and is now on its way.
struct InterruptedSpan {
  SpanContext context;
  std::string name;
  AnyMap attributes;
  Timestamp start;
  Timestamp end;
  std::uint64_t thread_id = 0;      // the kernel's id of the thread that had it open
  bool crashed_here = false;        // this thread's signal ended the process
};
// The signal that ended the process, as its crash handler told (install_crash_handler).
struct CrashReport {
  std::string signal;               // "SIGSEGV"; empty: no crash is told of
  std::string message;              // "SIGSEGV: address not mapped at 0x0"
  std::string stack;                // a line for each frame, innermost first
  std::uint64_t thread_id = 0;
  Timestamp time;
};
struct Recovered {
  std::string directory;            // the subdirectory's name
  std::uint64_t process_id = 0;
  AnyMap resource;
  std::uint64_t finished_spans = 0; // found unsent, finished
  std::uint64_t log_records = 0;
  std::vector<InterruptedSpan> interrupted;
  CrashReport crash;
  std::uint64_t damaged_bytes = 0;
  std::string problem;              // empty, or what could not be read and where
};
// Called by the thread that recovers, at least once for each directory; it must not shut its Telemetry down.
using OnRecovered = std::function<void(const Recovered&)>;

enum class DiagnosticLevel : std::uint8_t { none, error, warning, info, debug };
// What the SDK has to say about itself. Called from any of its threads; must not record.
using ErrorHandler = std::function<void(DiagnosticLevel, std::string_view message)>;

// Which measurements a histogram keeps as examples, with the span that they were made in.
enum class ExemplarFilter : std::uint8_t { trace_based, always_on, always_off };

// How numbers are collected: one collection for all destinations of metrics.
struct MetricConfig {
  std::chrono::nanoseconds interval = std::chrono::seconds(60);  // between collections, [1 ms, 1 year]
  Temporality temporality = Temporality::cumulative;
  // Of histograms that neither a view nor advice says more of; standard: exponential for units of time, else explicit.
  Aggregation default_histogram = Aggregation::standard;
  ExemplarFilter exemplar_filter = ExemplarFilter::trace_based;
  std::size_t cardinality_limit = 2000;  // sets of attributes of an instrument, [1, 1000000]
  std::vector<View> views;
  bool process = false;  // the process's own numbers, `process.*`
  bool sdk = false;      // Waymark's own, `otel.sdk.*` and `waymark.*`
  friend bool operator==(const MetricConfig&, const MetricConfig&) = default;
};

struct Config {
  Resource resource;               // complete, as sent; a child of fork puts its own process.pid where there is one
  bool instance_id_made_up = false;  // its service.instance.id was drawn, not given: a child of fork draws another
  std::string state_directory;     // empty: memory only
  RecorderConfig recorder;
  JournalConfig journal;
  Sampler sampler;
  Limits span_limits;
  Limits log_limits;
  MetricConfig metrics;
  bool logs_as_span_events = false;
  bool recover_siblings = true;    // deliver what dead processes left in the state directory
  bool disabled = false;           // OTEL_SDK_DISABLED
  DiagnosticLevel diagnostics = DiagnosticLevel::info;
  OnRecord on_record;
  OnRecovered on_recovered;
  ErrorHandler error_handler;      // none: standard error
  std::function<Timestamp()> clock;  // tests; none: the system's
  std::vector<DestinationConfig> destinations;
};

}  // namespace waymark
