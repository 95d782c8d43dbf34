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

#include "base/utf8.h"
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
inline char* put_fixed16(char* p, std::uint16_t v) noexcept {
  std::memcpy(p, &v, 2);
  return p + 2;
}
inline char* put_bytes(char* p, std::string_view text) noexcept {
  if (!text.empty()) std::memcpy(p, text.data(), text.size());
  return p + text.size();
}
// A length-delimited field with a one-byte tag.
inline char* put_field(char* p, char tag, std::string_view text) noexcept {
  *p++ = tag;
  return put_bytes(put_varint(p, text.size()), text);
}
inline constexpr std::size_t field_size(std::size_t bytes) noexcept { return 1 + varint_size(bytes) + bytes; }

// Copies text and gives its bytes, or-ed together in words: not ASCII where a high bit is set.
inline std::uint64_t copy_or(char* to, const char* from, std::size_t n) noexcept {
  if (n >= 16) {
    std::uint64_t bits = 0;
    std::uint64_t w[2];
    std::size_t i = 0;
    for (; i + 16 < n; i += 16) {
      std::memcpy(w, from + i, 16);
      std::memcpy(to + i, w, 16);
      bits |= w[0] | w[1];
    }
    std::memcpy(w, from + n - 16, 16);
    std::memcpy(to + n - 16, w, 16);
    return bits | w[0] | w[1];
  }
  if (n >= 8) {
    std::uint64_t a;
    std::uint64_t b;
    std::memcpy(&a, from, 8);
    std::memcpy(&b, from + n - 8, 8);
    std::memcpy(to, &a, 8);
    std::memcpy(to + n - 8, &b, 8);
    return a | b;
  }
  if (n >= 4) {
    std::uint32_t a;
    std::uint32_t b;
    std::memcpy(&a, from, 4);
    std::memcpy(&b, from + n - 4, 4);
    std::memcpy(to, &a, 4);
    std::memcpy(to + n - 4, &b, 4);
    return a | b;
  }
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < n; ++i) {
    to[i] = from[i];
    bits |= static_cast<unsigned char>(from[i]);
  }
  return bits;
}
inline constexpr std::uint64_t kHighBits = 0x8080808080808080u;

// A key's copy: its bytes or-ed together, and a number that tells most keys apart, made of its length and its ends.
struct CopiedKey {
  std::uint64_t bits;
  std::uint64_t hash;
};
inline std::uint64_t key_hash(std::uint64_t begin, std::uint64_t end, std::size_t size) noexcept {
  constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15u;
  return ((begin ^ end * kOdd) + size) * kOdd;
}
template <bool kCopy>
inline CopiedKey read_key(char* to, const char* from, std::size_t n) noexcept {
  const auto copy = [&](std::size_t at, const auto& piece) {
    if constexpr (kCopy) std::memcpy(to + at, &piece, sizeof piece);
  };
  if (n >= 8) {
    std::uint64_t begin;
    std::uint64_t end;
    std::memcpy(&begin, from, 8);
    std::memcpy(&end, from + n - 8, 8);
    copy(0, begin);
    std::uint64_t bits = begin | end;
    for (std::size_t i = 8; kCopy && i + 8 < n; i += 8) {
      std::uint64_t word;
      std::memcpy(&word, from + i, 8);
      copy(i, word);
      bits |= word;
    }
    copy(n - 8, end);
    return {bits, key_hash(begin, end, n)};
  }
  if (n >= 4) {
    std::uint32_t begin;
    std::uint32_t end;
    std::memcpy(&begin, from, 4);
    std::memcpy(&end, from + n - 4, 4);
    copy(0, begin);
    copy(n - 4, end);
    return {begin | end, key_hash(begin, end, n)};
  }
  if (n == 0) return {0, 0};
  const auto first = static_cast<unsigned char>(from[0]);
  const auto middle = static_cast<unsigned char>(from[n / 2]);
  const auto last = static_cast<unsigned char>(from[n - 1]);
  copy(0, first);
  copy(n / 2, middle);
  copy(n - 1, last);
  const std::uint64_t word = first | std::uint64_t{middle} << 8 | std::uint64_t{last} << 16;
  return {word, key_hash(word, 0, n)};
}
inline CopiedKey copy_key(char* to, std::string_view key) noexcept { return read_key<true>(to, key.data(), key.size()); }
inline std::uint64_t key_hash(std::string_view key) noexcept { return read_key<false>(nullptr, key.data(), key.size()).hash; }

// An attribute whose lengths all take one byte, written at once: returns its end, or null where it is not such a one
// (long, not ASCII, an array, a map), and then what is at `p` means nothing. Needs kSmallAttribute bytes of room. The key is
// not empty, has at most kSmallKey bytes, and was copied to p + 4.
inline constexpr std::size_t kSmallKey = 48;
inline constexpr std::size_t kSmallValue = 64;
inline constexpr std::size_t kSmallAttribute = 128 + 2;
inline char* put_small_attribute(char* p, char tag, std::size_t k, std::uint64_t key_bits, const Value& value) noexcept {
  char* const any = p + 4 + k;  // tag, length, 0x0a, key length, key
  char* end;
  std::uint64_t bits = key_bits;
  const Value::Type type = value.type();
  if (type == Value::Type::string) {
    const std::size_t n = value.size();
    if (n > kSmallValue) [[unlikely]] return nullptr;
    put_fixed32(any, 0x000a0012u | static_cast<std::uint32_t>(n + 2) << 8 | static_cast<std::uint32_t>(n) << 24);
    bits |= copy_or(any + 4, static_cast<const char*>(value.data()), n);
    end = any + 4 + n;
  } else if (type == Value::Type::int64) {
    const auto v = static_cast<std::uint64_t>(value.as_int());
    if (v < 0x80) {
      put_fixed32(any, 0x00180212u | static_cast<std::uint32_t>(v) << 24);
      end = any + 4;
    } else {
      end = put_varint(any + 3, v);
      put_fixed16(any, static_cast<std::uint16_t>(0x0012 | (end - any - 2) << 8));
      any[2] = 0x18;
    }
  } else if (type == Value::Type::float64) {
    put_fixed16(any, 0x0912);
    any[2] = 0x21;
    end = put_fixed64(any + 3, std::bit_cast<std::uint64_t>(value.as_double()));
  } else if (type == Value::Type::boolean) {
    put_fixed32(any, 0x00100212u | static_cast<std::uint32_t>(value.as_int()) << 24);
    end = any + 4;
  } else {
    return nullptr;
  }
  if ((bits & kHighBits) != 0) [[unlikely]] return nullptr;
  put_fixed32(p, static_cast<std::uint32_t>(static_cast<unsigned char>(tag)) | static_cast<std::uint32_t>(end - p - 2) << 8 | 0x000a0000u |
                     static_cast<std::uint32_t>(k) << 24);
  return end;
}

// Which keys a record has, as far as a bit in each of two words tells: one that it has is never taken for new.
using SeenKeys = std::uint64_t[2];
inline bool has_key(const SeenKeys& seen, std::uint64_t hash) noexcept {
  return (seen[0] >> (hash >> 58) & 1) != 0 && (seen[1] >> (hash >> 52 & 63) & 1) != 0;
}
inline void add_key(SeenKeys& seen, std::uint64_t hash) noexcept {
  seen[0] |= std::uint64_t{1} << (hash >> 58);
  seen[1] |= std::uint64_t{1} << (hash >> 52 & 63);
}

// Small attributes of new keys, from `next` until `stop`, or until one is none, or would begin behind `last`: the writer needs
// kSmallAttribute bytes from there however few it fills. Returns the end of what was written; `next` is the first that was not.
inline char* put_small_attributes(char* p, const char* last, char tag, const Attribute*& next, const Attribute* stop,
                                  SeenKeys& seen) noexcept {
  SeenKeys keys = {seen[0], seen[1]};
  const Attribute* attribute = next;
  for (; attribute != stop; ++attribute) {
    const std::size_t size = attribute->key.size();
    if (size - 1 >= kSmallKey || p > last) [[unlikely]] break;
    const CopiedKey key = copy_key(p + 4, attribute->key);
    if (has_key(keys, key.hash)) [[unlikely]] break;
    char* const behind = put_small_attribute(p, tag, size, key.bits, attribute->value);
    if (behind == nullptr) [[unlikely]] break;
    p = behind;
    add_key(keys, key.hash);
  }
  seen[0] = keys[0];
  seen[1] = keys[1];
  next = attribute;
  return p;
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
