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
#include "waymark/propagation.h"
#include "waymark/resource.h"
#include "waymark/trace.h"

namespace waymark {

enum class Signal : std::uint8_t { traces = 0, logs = 1, metrics = 2 };
inline constexpr std::size_t kSignals = 3;
[[nodiscard]] std::string_view signal_name(Signal signal) noexcept;  // "traces", "logs", "metrics"

using HeaderList = std::vector<std::pair<std::string, std::string>>;

enum class Output : std::uint8_t {
  otlp_http,  // POST of protobuf to `url`
  file,       // one OTLP JSON request a line, appended to `path`
  console,    // log records as text for people, to standard output or standard error
  callback,   // `deliver` is called with each encoded request: tests, embedders
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
  std::size_t max_records = 0;                             // 0: no limit but bytes
  std::chrono::nanoseconds interval = std::chrono::seconds(5);  // the oldest record waits at most this long, (0, 1 year]
};

// Exponential backoff with full jitter over the upper half: wait in [d/2, d], d = initial * multiplier^n, at most maximum.
struct RetryConfig {
  std::chrono::nanoseconds initial = std::chrono::milliseconds(500);
  std::chrono::nanoseconds maximum = std::chrono::seconds(30);
  double multiplier = 2.0;
};

// One reader of the journal: a name and a signal.
struct DestinationConfig {
  std::string name;  // cursors are found again by name and signal
  Signal signal = Signal::traces;
  Output output = Output::otlp_http;
  std::string url;                                      // otlp_http: complete, as it will be requested
  HeaderList headers;                                   // otlp_http: secrets; never stored, never shown
  std::chrono::nanoseconds timeout = std::chrono::seconds(10);  // one request; 0: no limit
  bool gzip = false;
  std::string path;                                     // file: its path; console: "stdout" or "stderr"
  bool color = false;                                   // console
  std::function<DeliveryResult(Signal, std::string_view request)> deliver;  // callback: runs on the destination's thread
  Severity minimum_severity = Severity::unspecified;    // logs: records below it are filtered
  bool lossy = true;   // false: writers wait (at most block_timeout) rather than lose what this destination has not got
  BatchConfig batch;
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

struct JournalConfig {
  std::size_t max_bytes = 256 * 1024 * 1024;   // of one live process; all dead ones together have another of the same size
  std::size_t memory_bytes = 32 * 1024 * 1024; // of it, on tmpfs
  std::size_t segment_bytes = 4 * 1024 * 1024;
  std::size_t keep_bytes = 64 * 1024 * 1024;   // delivered telemetry that stays to be looked at, after a clean end
  std::chrono::nanoseconds block_timeout = std::chrono::seconds(5);
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
struct Recovered {
  std::string directory;            // the subdirectory's name
  std::uint64_t process_id = 0;
  AnyMap resource;
  std::uint64_t finished_spans = 0; // found unsent, finished
  std::uint64_t log_records = 0;
  std::vector<InterruptedSpan> interrupted;
  std::uint64_t damaged_bytes = 0;
  std::string problem;              // empty, or what could not be read and where
};
// Called by the thread that recovers, at least once for each directory; it must not shut its Telemetry down.
using OnRecovered = std::function<void(const Recovered&)>;

enum class DiagnosticLevel : std::uint8_t { none, error, warning, info, debug };
// What the SDK has to say about itself. Called from any of its threads; must not record.
using ErrorHandler = std::function<void(DiagnosticLevel, std::string_view message)>;

struct Config {
  Resource resource;               // complete, as sent
  std::string state_directory;     // empty: memory only
  RecorderConfig recorder;
  JournalConfig journal;
  Sampler sampler;
  Limits span_limits;
  Limits log_limits;
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
