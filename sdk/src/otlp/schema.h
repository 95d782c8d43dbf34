// OTLP's messages as data: which field has which number, JSON name and kind. JSON is written and read by these tables.
//
// Hides: nothing; it is data.
// Threads: constants.
// Failure: none.
#pragma once

#include <cstdint>
#include <span>

#include "otlp/fields.h"
#include "otlp/walk.h"
#include "waymark/config.h"

namespace waymark::otlp {

enum class Kind : std::uint8_t {
  text, bytes,
  trace_id, span_id,  // hex in JSON
  boolean,
  int64,    // varint; a decimal string in JSON
  int32,    // varint, also of enums; a number in JSON
  uint32,   // varint; a number in JSON
  uint64,   // varint; a decimal string in JSON
  sint32,   // zigzag varint; a number in JSON
  fixed32,  // a number in JSON
  fixed64,  // a decimal string in JSON
  sfixed64, // the same, with a sign
  float64,
  message,
};
[[nodiscard]] constexpr Wire wire_of(Kind kind) noexcept {
  switch (kind) {
    case Kind::boolean:
    case Kind::int64:
    case Kind::int32:
    case Kind::uint32:
    case Kind::uint64:
    case Kind::sint32: return Wire::varint;
    case Kind::fixed32: return Wire::fixed32;
    case Kind::fixed64:
    case Kind::sfixed64:
    case Kind::float64: return Wire::fixed64;
    default: return Wire::bytes;
  }
}

enum class Presence : std::uint8_t {
  implicit,  // absent and default are the same
  oneof,     // at most one member; written where it is set, also to its default
  optional,  // written where it is set, also to its default
  repeated,
  packed,    // numbers, written in one piece; read also one by one
};

struct Shape;
struct Rule {
  field::Number number;
  const char* name;  // lowerCamelCase
  Kind kind;
  Presence presence = Presence::implicit;
  const Shape* shape = nullptr;  // of a message
};
struct Shape {
  const char* name;             // for errors
  std::span<const Rule> rules;  // by number, ascending
};
inline constexpr std::size_t kMaxRules = 16;

extern const Shape kAnyValueShape;
extern const Shape kResourceShape;
extern const Shape kScopeShape;
// ExportTraceServiceRequest, ExportLogsServiceRequest, ExportMetricsServiceRequest.
[[nodiscard]] const Shape& request_shape(Signal signal);
// Span, LogRecord, Metric.
[[nodiscard]] const Shape& record_shape(Signal signal);

}  // namespace waymark::otlp
