// A span's fixed fields as OTLP bytes, before and behind the stream of attributes, events and links.
//
// Hides: field order, and which fields are left out when they are zero.
// Threads: pure functions.
// Failure: none; sizes are exact.
#pragma once

#include <cstdint>
#include <string_view>

#include "otlp/writer.h"

namespace waymark::otlp {

// What a span is when it is closed, apart from the stream.
struct SpanParts {
  const std::uint8_t* trace_id = nullptr;   // 16 bytes
  const std::uint8_t* span_id = nullptr;    // 8
  const std::uint8_t* parent_id = nullptr;  // 8; null: root
  std::uint8_t kind = 1;
  std::uint8_t status = 0;
  std::uint32_t flags = 0;
  std::uint64_t start_ns = 0;
  std::uint64_t end_ns = 0;
  std::string_view name;
  std::string_view trace_state;
  std::string_view status_message;
  std::uint32_t dropped_attributes = 0;
  std::uint32_t dropped_events = 0;
  std::uint32_t dropped_links = 0;

  // The body's size without the stream.
  [[nodiscard]] std::size_t size() const noexcept {
    return 18 + 10 + (parent_id ? 10 : 0) + (trace_state.empty() ? 0 : field_size(trace_state.size())) +
           (name.empty() ? 0 : field_size(name.size())) + 2 + 9 + 9 + (bare() ? 0 : rare_size()) + 6;
  }
  // Fields 1 to 8.
  char* put_head(char* p) const noexcept {
    p = put_field(p, 0x0a, {reinterpret_cast<const char*>(trace_id), 16});
    p = put_field(p, 0x12, {reinterpret_cast<const char*>(span_id), 8});
    if (!trace_state.empty()) p = put_field(p, 0x1a, trace_state);
    if (parent_id) p = put_field(p, 0x22, {reinterpret_cast<const char*>(parent_id), 8});
    if (!name.empty()) p = put_field(p, 0x2a, name);
    *p++ = 0x30;
    *p++ = static_cast<char>(kind);
    *p++ = 0x39;
    p = put_fixed64(p, start_ns);
    *p++ = 0x41;
    return put_fixed64(p, end_ns);
  }
  // Fields 10, 12, 14, 15, 16.
  char* put_tail(char* p) const noexcept {
    if (!bare()) [[unlikely]] p = put_rare(p);
    *p++ = static_cast<char>(0x85);
    *p++ = 0x01;
    return put_fixed32(p, flags);
  }

 private:
  // Nothing dropped, and no status: most spans.
  [[nodiscard]] bool bare() const noexcept { return (dropped_attributes | dropped_events | dropped_links | status) == 0; }
  [[nodiscard]] std::size_t rare_size() const noexcept {
    return counter(dropped_attributes) + counter(dropped_events) + counter(dropped_links) + (status ? field_size(status_size()) : 0);
  }
  char* put_rare(char* p) const noexcept {
    p = put_counter(p, 0x50, dropped_attributes);
    p = put_counter(p, 0x60, dropped_events);
    p = put_counter(p, 0x70, dropped_links);
    if (status) {
      *p++ = 0x7a;
      p = put_varint(p, status_size());
      if (!status_message.empty()) p = put_field(p, 0x12, status_message);
      *p++ = 0x18;
      *p++ = static_cast<char>(status);
    }
    return p;
  }
  [[nodiscard]] std::size_t status_size() const noexcept {
    return 2 + (status_message.empty() ? 0 : field_size(status_message.size()));
  }
  static std::size_t counter(std::uint32_t n) noexcept { return n ? 1 + varint_size(n) : 0; }
  static char* put_counter(char* p, char tag, std::uint32_t n) noexcept {
    if (n == 0) return p;
    *p++ = tag;
    return put_varint(p, n);
  }
};

}  // namespace waymark::otlp
