// The writer of the hot path: attributes and fixed fields as OTLP protobuf bytes, straight into the record.
//
// Hides: varints, tags, the size pass that makes nested lengths canonical, and what happens to text that is not UTF-8.
// Threads: pure functions over the caller's memory.
// Failure: none. Sizes are exact: write_* writes as many bytes as size_* said for the same arguments.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "waymark/attribute.h"
#include "waymark/config.h"

namespace waymark::otlp {

inline constexpr std::size_t varint_size(std::uint64_t v) noexcept {
  return static_cast<std::size_t>((std::bit_width(v | 1) * 9 + 64) / 64);
}
inline char* put_varint(char* p, std::uint64_t v) noexcept {
  while (v >= 0x80) {
    *p++ = static_cast<char>(v | 0x80);
    v >>= 7;
  }
  *p++ = static_cast<char>(v);
  return p;
}
inline char* put_fixed64(char* p, std::uint64_t v) noexcept {
  std::memcpy(p, &v, 8);
  return p + 8;
}
inline char* put_fixed32(char* p, std::uint32_t v) noexcept {
  std::memcpy(p, &v, 4);
  return p + 4;
}
inline char* put_bytes(char* p, std::string_view text) noexcept {
  std::memcpy(p, text.data(), text.size());
  return p + text.size();
}
// A length-delimited field with a one-byte tag.
inline char* put_field(char* p, char tag, std::string_view text) noexcept {
  *p++ = tag;
  return put_bytes(put_varint(p, text.size()), text);
}
inline constexpr std::size_t field_size(std::size_t bytes) noexcept { return 1 + varint_size(bytes) + bytes; }

inline bool ascii(std::string_view text) noexcept {
  const char* p = text.data();
  std::size_t n = text.size();
  std::uint64_t bits = 0;
  std::uint64_t word;
  if (n >= 8) {
    for (; n > 8; n -= 8, p += 8) {
      std::memcpy(&word, p, 8);
      bits |= word;
    }
    std::memcpy(&word, p + n - 8, 8);
    bits |= word;
  } else {
    for (; n > 0; --n, ++p) bits |= static_cast<std::uint64_t>(static_cast<unsigned char>(*p));
  }
  return (bits & 0x8080808080808080u) == 0;
}
[[nodiscard]] bool valid_utf8(std::string_view text) noexcept;
// A copy with U+FFFD in place of every byte that is not part of a well-formed sequence.
[[nodiscard]] std::string sanitized(std::string_view text);
// The longest prefix of at most `characters` code points.
[[nodiscard]] std::string_view first_characters(std::string_view text, std::size_t characters) noexcept;

// Text as it may go on the wire: itself where it is well-formed, else a sanitized copy in `scratch`.
inline std::string_view clean(std::string_view text, std::string& scratch) {
  if (ascii(text) || valid_utf8(text)) [[likely]] return text;
  scratch = sanitized(text);
  return scratch;
}

// AnyValue, for every type. `depth` counts from 1 at the top; what is deeper than the limit becomes the empty value.
[[nodiscard]] std::size_t size_any(const Value& value, const Limits& limits, unsigned depth = 1);
char* put_any(char* p, const Value& value, const Limits& limits, unsigned depth = 1);

// KeyValue as a field with a one-byte tag: Span.attributes 0x4a, LogRecord.attributes 0x32, Event.attributes 0x1a,
// Link.attributes 0x22, Resource.attributes 0x0a. Returns the whole field's size, tag and length included.
[[nodiscard]] std::size_t size_attribute(std::string_view key, const Value& value, const Limits& limits);
char* put_attribute(char* p, char tag, std::string_view key, const Value& value, const Limits& limits);

// For code off the hot path.
void append_attribute(std::string& out, char tag, std::string_view key, const Value& value, const Limits& limits = {});
void append_attribute(std::string& out, char tag, std::string_view key, const AnyValue& value);
void append_any(std::string& out, const AnyValue& value);  // the AnyValue message's bytes, no tag

}  // namespace waymark::otlp
