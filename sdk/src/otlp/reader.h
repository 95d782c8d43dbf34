// OTLP bytes as values: whole records (waymark/reader.h's types), and single fields of a record without a copy.
//
// Hides: messages, field order, merging of what stands twice.
// Threads: pure functions over bytes.
// Failure: Error(corrupt) for the whole-record readers, which take any bytes. The readers of single fields are noexcept:
//   what is damaged reads as absent.
#pragma once

#include <cstdint>
#include <string_view>

#include "otlp/fields.h"
#include "otlp/walk.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::otlp {

// A Span's, LogRecord's or Metric's body. Scope and resource stay empty.
[[nodiscard]] ReadSpan read_span(std::string_view body);
[[nodiscard]] ReadLog read_log(std::string_view body);
[[nodiscard]] ReadMetric read_metric(std::string_view body);
// The greatest time of a Metric's data points. Throws as the readers do.
[[nodiscard]] std::uint64_t metric_time(std::string_view body);
// InstrumentationScope. The schema URL is not part of it.
[[nodiscard]] ReadScope read_scope(std::string_view message);
// Resource's attributes.
[[nodiscard]] AnyMap read_resource(std::string_view message);
[[nodiscard]] AnyValue read_any(std::string_view message);

// Of a LogRecord; 0 where there is none.
[[nodiscard]] std::int32_t log_severity(std::string_view body) noexcept;
// Of a Span. The view is into `body`.
[[nodiscard]] std::string_view span_name(std::string_view body) noexcept;
[[nodiscard]] StatusCode span_status(std::string_view body) noexcept;

// Calls each(std::string_view key, std::string_view any) for every attribute of a Span or LogRecord, in wire order; `any`
// is the AnyValue message's bytes, for read_any(). Stops at damage and returns false.
template <class Each>
bool for_each_attribute(Signal signal, std::string_view body, Each&& each) {
  try {
    const field::Number attributes = signal == Signal::logs ? field::log_record::kAttributes : field::span::kAttributes;
    Walk record(body, "record");
    while (record.next()) {
      if (record.number() != attributes) continue;
      std::string_view key;
      std::string_view any;
      Walk entry(record.bytes(), "KeyValue");
      while (entry.next()) {
        if (entry.number() == field::key_value::kKey) key = entry.bytes();
        if (entry.number() == field::key_value::kValue) any = entry.bytes();
      }
      each(key, any);
    }
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::corrupt) throw;
    return false;
  }
}

}  // namespace waymark::otlp
