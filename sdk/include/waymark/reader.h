// Telemetry read back: OTLP requests, OTLP JSON files, and what a state directory keeps, as plain values. And the
// housekeeping of state directories.
//
// Hides: the wire formats and the journal's layout.
// Threads: pure functions over bytes and files; a live process's directory may be read while it records.
// Failure: Error(corrupt | io | not_found) with file and place.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "waymark/config.h"
#include "waymark/telemetry.h"

namespace waymark {

struct ReadEvent {
  Timestamp time;
  std::string name;
  AnyMap attributes;
  std::uint32_t dropped_attributes = 0;
};
struct ReadLink {
  SpanContext context;
  AnyMap attributes;
  std::uint32_t dropped_attributes = 0;
};
struct ReadScope {
  std::string name;
  std::string version;
  AnyMap attributes;
  std::string schema_url;
};
struct ReadSpan {
  SpanContext context;        // flags: the low 8 bits of the wire's
  SpanId parent;              // invalid for a root
  bool parent_remote = false;
  std::string name;
  SpanKind kind = SpanKind::internal;
  Timestamp start;
  Timestamp end;
  AnyMap attributes;
  std::vector<ReadEvent> events;
  std::vector<ReadLink> links;
  StatusCode status = StatusCode::unset;
  std::string status_message;
  std::uint32_t dropped_attributes = 0;
  std::uint32_t dropped_events = 0;
  std::uint32_t dropped_links = 0;
  ReadScope scope;
  AnyMap resource;
};
struct ReadLog {
  Timestamp time;
  Timestamp observed;
  std::uint8_t severity = 0;  // OpenTelemetry's number
  std::string severity_text;
  AnyValue body;
  AnyMap attributes;
  TraceId trace_id;
  SpanId span_id;
  std::uint8_t flags = 0;
  std::string event_name;
  std::uint32_t dropped_attributes = 0;
  ReadScope scope;
  AnyMap resource;
};
struct ReadExemplar {
  Timestamp time;
  std::variant<std::int64_t, double> value;
  AnyMap filtered_attributes;
  TraceId trace_id;
  SpanId span_id;
};
// A data point, of a number or a distribution.
struct ReadPoint {
  AnyMap attributes;
  Timestamp start;  // zero: none
  Timestamp time;
  std::variant<std::int64_t, double> value;  // of gauges and sums
  std::uint64_t count = 0;                   // of histograms, as all that follows
  std::optional<double> sum;
  std::optional<double> minimum;
  std::optional<double> maximum;
  std::vector<double> bounds;
  std::vector<std::uint64_t> counts;
  std::int32_t scale = 0;                    // of exponential ones, as all that follows
  std::uint64_t zero_count = 0;
  std::int32_t positive_offset = 0;
  std::vector<std::uint64_t> positive;
  std::int32_t negative_offset = 0;
  std::vector<std::uint64_t> negative;
  std::vector<ReadExemplar> exemplars;
};
// One metric of a collection, or a piece of one.
struct ReadMetric {
  enum class Kind : std::uint8_t { gauge, sum, histogram, exponential_histogram, other };
  std::string name;
  std::string description;
  std::string unit;
  Kind kind = Kind::other;
  bool delta = false;      // else cumulative; gauges are neither
  bool monotonic = false;  // of sums
  std::vector<ReadPoint> points;
  ReadScope scope;
  AnyMap resource;
};
struct ReadTelemetry {
  std::vector<ReadSpan> spans;
  std::vector<ReadLog> logs;
  std::vector<ReadMetric> metrics;
};

// One export request (or TracesData, LogsData, MetricsData), protobuf. Throws Error(corrupt).
[[nodiscard]] ReadTelemetry read_request(Signal signal, std::string_view protobuf);
// The same request as OTLP JSON, one line without the line end. Throws Error(corrupt).
[[nodiscard]] std::string request_to_json(Signal signal, std::string_view protobuf);
// A file of OTLP JSON, one request a line; signals may be mixed. Errors name file and line; a torn last line is left out.
[[nodiscard]] ReadTelemetry read_json_file(const std::string& path);
// Everything a state directory holds, of live and dead processes: delivered records that are kept, and those still to be
// sent. Changes nothing.
[[nodiscard]] ReadTelemetry read_state_directory(const std::string& path);

// How far a destination has got with what one process recorded. Counts are those at its last acknowledgement; what a
// living process recorded in the last moments is not in them yet.
struct StateDestination {
  std::string name;
  Signal signal = Signal::traces;
  bool lossy = true;
  Counts counts;
  std::uint64_t pending_bytes = 0;  // as they would be sent, before compression
  Timestamp oldest_pending{};       // of a span its end, of a log record when it was observed, of a metric its time; zero: none pending
  std::string last_error;           // empty: none; no secret stands in it
  Timestamp last_error_time{};
};
struct StateProcess {
  enum class Condition : std::uint8_t {
    alive,       // it runs
    recovering,  // it is gone, and another process delivers what it left
    dead,        // it is gone, and nobody delivers what it left
    delivered,   // it is gone, and nothing is left to be sent
    set_aside,   // its directory could not be recovered
  };
  std::string directory;            // the subdirectory's name
  Condition condition = Condition::dead;
  bool unread = false;              // dead, and what its recorder holds is neither in the counts nor in the journal yet
  bool lost_cursors = false;        // dead, and nobody knows any more who has got what
  std::uint64_t process_id = 0;
  std::string service;
  Timestamp started{};
  std::uint64_t journal_bytes = 0;  // on disk and tmpfs
  std::uint64_t recorder_bytes = 0;
  std::string problem;              // empty, or what could not be read
  std::vector<StateDestination> destinations;
};
struct StateStatus {
  std::string directory;
  std::vector<StateProcess> processes;  // oldest first
};
// Who has recorded into a state directory, and what of it is where. Changes nothing, and disturbs nobody. Throws
// Error(not_found).
[[nodiscard]] StateStatus read_state_status(const std::string& path);

struct PurgeOptions {
  bool pending = false;                      // also what was never delivered
  std::chrono::nanoseconds older_than{0};    // only what nobody has written to for so long
  std::vector<std::string> only = {};        // subdirectories' names; empty: all of them
  bool only_look = false;                    // removes nothing, and tells what would be
};
struct Purged {
  std::vector<StateProcess> removed;
  struct Kept {
    StateProcess process;
    std::string why;
  };
  std::vector<Kept> kept;
};
// Removes dead processes' subdirectories with what they have on tmpfs. What is not Waymark's, not this user's, or a
// living process's stays, and links are not followed. Throws Error(not_found).
[[nodiscard]] Purged purge_state_directory(const std::string& path, const PurgeOptions& options = {});

// The first value with this key, or null.
[[nodiscard]] const AnyValue* find(const AnyMap& map, std::string_view key) noexcept;
// Its text where it is a string, else empty.
[[nodiscard]] std::string_view find_string(const AnyMap& map, std::string_view key) noexcept;
// A value as people write it: text as it is, JSON for arrays and maps, base64 for bytes.
[[nodiscard]] std::string to_text(const AnyValue& value);

// A finished span or log record that on_record may change; metrics do not pass it (views are for these). Views are good until the next change or the hook's return.
class RecordEditor {
 public:
  virtual ~RecordEditor() = default;
  [[nodiscard]] virtual Signal signal() const noexcept = 0;
  [[nodiscard]] virtual const ReadScope& scope() const = 0;
  [[nodiscard]] virtual const ReadSpan* span() const = 0;  // decoded at the first call; null for logs
  [[nodiscard]] virtual const ReadLog* log() const = 0;    // null for spans
  virtual void set_attribute(std::string_view key, AnyValue value) = 0;  // adds or replaces
  virtual void remove_attribute(std::string_view key) = 0;
  virtual void set_name(std::string_view name) = 0;        // of a span
  virtual void set_body(AnyValue body) = 0;                // of a log record
};

}  // namespace waymark
