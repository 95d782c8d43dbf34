#include "base/random.h"

#include <sys/random.h>

#include "base/thread.h"

namespace waymark {
namespace detail {

constinit thread_local std::uint64_t random_state = 0;
constinit thread_local std::uint64_t random_key = 0;

std::uint64_t seed_random() noexcept {
  std::uint64_t seed[2] = {0, 0};
  while (seed[0] == 0 || seed[1] == 0) {
    if (getrandom(seed, sizeof seed, 0) != sizeof seed) seed[0] = 0;
  }
  random_key = seed[1];
  random_state = seed[0];
  return seed[0];
}

}  // namespace detail

std::string random_hex(std::size_t bytes) {
  std::string out;
  out.reserve(bytes * 2);
  for (std::size_t i = 0; i < bytes; ++i) {
    unsigned char b = 0;
    while (getrandom(&b, 1, 0) != 1) {
    }
    out += "0123456789abcdef"[b >> 4];
    out += "0123456789abcdef"[b & 15];
  }
  return out;
}

std::string random_uuid() {
  TraceId id = TraceId::random();
  id.bytes[6] = static_cast<std::uint8_t>((id.bytes[6] & 0x0f) | 0x40);
  id.bytes[8] = static_cast<std::uint8_t>((id.bytes[8] & 0x3f) | 0x80);
  std::string text = id.hex();
  for (const std::size_t dash : {8, 13, 18, 23}) text.insert(dash, 1, '-');
  return text;
}

TraceId TraceId::random() noexcept {
  static_cast<void>(process_generation());  // a child of fork must not go on with its parent's numbers
  TraceId id;
  Randoms random;
  fill_random(random, id);
  return id;
}

SpanId SpanId::random() noexcept {
  static_cast<void>(process_generation());
  SpanId id;
  Randoms random;
  fill_random(random, id);
  return id;
}

}  // namespace waymark
