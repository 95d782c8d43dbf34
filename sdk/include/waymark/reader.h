// Telemetry read back: OTLP requests, OTLP JSON files, and what a state directory keeps, as plain values.
//
// Hides: the wire formats and the journal's layout.
// Threads: pure functions over bytes and files; a live process's directory may be read while it records.
// Failure: Error(corrupt | io | not_found) with file and place.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/config.h"

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
struct ReadTelemetry {
  std::vector<ReadSpan> spans;
  std::vector<ReadLog> logs;
};

// One export request (or TracesData / LogsData), protobuf. Throws Error(corrupt).
[[nodiscard]] ReadTelemetry read_request(Signal signal, std::string_view protobuf);
// The same request as OTLP JSON, one line without the line end. Throws Error(corrupt).
[[nodiscard]] std::string request_to_json(Signal signal, std::string_view protobuf);
// A file of OTLP JSON, one request a line; traces and logs may be mixed. Errors name file and line; a torn last line is left out.
[[nodiscard]] ReadTelemetry read_json_file(const std::string& path);
// Everything a state directory holds, of live and dead processes: delivered records that are kept, and those still to be
// sent. Changes nothing.
[[nodiscard]] ReadTelemetry read_state_directory(const std::string& path);

// The first value with this key, or null.
[[nodiscard]] const AnyValue* find(const AnyMap& map, std::string_view key) noexcept;
// Its text where it is a string, else empty.
[[nodiscard]] std::string_view find_string(const AnyMap& map, std::string_view key) noexcept;
// A value as people write it: text as it is, JSON for arrays and maps, base64 for bytes.
[[nodiscard]] std::string to_text(const AnyValue& value);

// A finished record that on_record may change. Views are good until the next change or the hook's return.
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
