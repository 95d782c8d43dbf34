#include "base/random.h"

#include <pthread.h>
#include <sys/random.h>


namespace waymark {
namespace detail {

constinit thread_local std::uint64_t random_state = 0;
constinit thread_local std::uint64_t random_key = 0;

std::uint64_t seed_random() noexcept {
  // The forking thread's generator would go on with its parent's numbers: the child forgets it.
  [[maybe_unused]] static const int registered = pthread_atfork(nullptr, nullptr, [] { random_state = 0; });
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

TraceId TraceId::random() noexcept {
  TraceId id;
  fill_random(id);
  return id;
}

SpanId SpanId::random() noexcept {
  SpanId id;
  fill_random(id);
  return id;
}

}  // namespace waymark
