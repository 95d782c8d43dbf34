// A set of attributes as a call gives it: its hash, and its bytes to be compared with those of a later call.
//
// Hides: how values become words. Arrays and maps are not cached: `plain` says so.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "waymark/attribute.h"

namespace waymark::metric {

namespace key_detail {

inline std::uint64_t load8(const char* p) noexcept {
  std::uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}
inline std::uint64_t load4(const char* p) noexcept {
  std::uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}
inline constexpr std::uint64_t kA = 0xa0761d6478bd642fu;
inline constexpr std::uint64_t kB = 0xe7037ed1a0b428dbu;
inline constexpr std::uint64_t kC = 0x8ebc6af09c88c6e3u;

inline std::uint64_t hash_text(const char* p, std::size_t n, std::uint64_t seed) noexcept {
  if (n >= 8) [[likely]] {
    std::uint64_t h = seed;
    std::size_t i = 0;
    for (; i + 16 < n; i += 16) h = mix(load8(p + i) ^ kA, load8(p + i + 8) ^ h);
    return mix(load8(p + (n >= 16 ? n - 16 : 0)) ^ kA, load8(p + n - 8) ^ h ^ n);
  }
  if (n >= 4) return mix(load4(p) << 32 | load4(p + n - 4), seed ^ kB ^ n);
  if (n == 0) return seed ^ kC;
  const std::uint64_t bytes = static_cast<std::uint64_t>(static_cast<unsigned char>(p[0])) << 16 |
                              static_cast<std::uint64_t>(static_cast<unsigned char>(p[n / 2])) << 8 |
                              static_cast<unsigned char>(p[n - 1]);
  return mix(bytes ^ kC, seed ^ kB ^ n);
}

inline bool same_text(const char* a, const char* b, std::size_t n) noexcept {
  if (n >= 8) [[likely]] {
    std::size_t i = 0;
    for (; i + 8 < n; i += 8) {
      if (load8(a + i) != load8(b + i)) return false;
    }
    return load8(a + n - 8) == load8(b + n - 8);
  }
  if (n >= 4) return load4(a) == load4(b) && load4(a + n - 4) == load4(b + n - 4);
  for (std::size_t i = 0; i < n; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

inline bool has_text(Value::Type type) noexcept { return type == Value::Type::string || type == Value::Type::bytes; }

// What a value is besides its text: the scalar, or the text's length.
inline std::uint64_t word_of(const Value& value) noexcept {
  switch (value.type()) {
    case Value::Type::float64: {
      std::uint64_t bits;
      const double number = value.as_double();
      std::memcpy(&bits, &number, 8);
      return bits;
    }
    case Value::Type::string:
    case Value::Type::bytes: return value.size();
    case Value::Type::empty: return 0;
    default: return static_cast<std::uint64_t>(value.as_int());
  }
}

struct Head {
  std::uint32_t key_size;
  std::uint32_t type;
  std::uint64_t word;
};

}  // namespace key_detail

[[nodiscard]] inline bool plain(Attributes attributes) noexcept {
  for (const Attribute& a : attributes) {
    if (a.value.type() >= Value::Type::values) return false;
  }
  return true;
}

// Of a plain set, never 0. The same attributes in another order are another set here, and the same series behind it.
[[nodiscard]] inline std::uint64_t hash(Attributes attributes, std::uint64_t seed) noexcept {
  using namespace key_detail;
  std::uint64_t h = seed * kB + attributes.size();
  for (const Attribute& a : attributes) {
    std::uint64_t own = hash_text(a.key.data(), a.key.size(), kC);
    const auto type = static_cast<std::uint64_t>(a.value.type());
    if (has_text(a.value.type())) {
      own ^= hash_text(static_cast<const char*>(a.value.data()), a.value.size(), kA + type);
    } else {
      own ^= mix(word_of(a.value) ^ kB, kA + type);
    }
    h = (h << 23 | h >> 41) ^ own;
    h *= kC;
  }
  h ^= h >> 32;
  return h == 0 ? 1 : h;
}

[[nodiscard]] inline std::string pack(Attributes attributes) {
  using namespace key_detail;
  std::string out;
  for (const Attribute& a : attributes) {
    const Head head{static_cast<std::uint32_t>(a.key.size()), static_cast<std::uint32_t>(a.value.type()), word_of(a.value)};
    out.append(reinterpret_cast<const char*>(&head), sizeof head);
    out.append(a.key);
    if (has_text(a.value.type())) out.append(static_cast<const char*>(a.value.data()), a.value.size());
  }
  return out;
}

// Whether pack(attributes) == packed, without packing. `packed` comes from pack().
[[nodiscard]] inline bool same(const char* packed, std::size_t size, Attributes attributes) noexcept {
  using namespace key_detail;
  const char* const end = packed + size;
  for (const Attribute& a : attributes) {
    if (packed == end) return false;
    Head head;
    std::memcpy(&head, packed, sizeof head);
    packed += sizeof head;
    if (head.key_size != a.key.size() || head.type != static_cast<std::uint32_t>(a.value.type()) ||
        head.word != word_of(a.value) || !same_text(packed, a.key.data(), a.key.size())) {
      return false;
    }
    packed += a.key.size();
    if (has_text(a.value.type())) {
      if (!same_text(packed, static_cast<const char*>(a.value.data()), a.value.size())) return false;
      packed += a.value.size();
    }
  }
  return packed == end;
}

}  // namespace waymark::metric
