// Random bits for ids: a fast generator a thread, seeded from the kernel, seeded again in a child of fork.
//
// Hides: the generator (wyrand) and its seeding.
// Threads: one generator a thread.
// Failure: none; getrandom does not fail after boot.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "waymark/propagation.h"

namespace waymark {

namespace detail {
extern constinit thread_local std::uint64_t random_state;  // 0: not seeded in this process
extern constinit thread_local std::uint64_t random_key;    // so that two threads never walk the same sequence
std::uint64_t seed_random() noexcept;
}  // namespace detail

// Never returns 0.
inline std::uint64_t random_u64() noexcept {
  std::uint64_t state = detail::random_state;
  if (state == 0) [[unlikely]] state = detail::seed_random();
  for (;;) {
    state += 0xa0761d6478bd642fu;
    const auto product = static_cast<unsigned __int128>(state) * (state ^ detail::random_key);
    const auto value = static_cast<std::uint64_t>(product >> 64) ^ static_cast<std::uint64_t>(product);
    detail::random_state = state;
    if (value != 0 && state != 0) [[likely]] return value;
  }
}

// Inline for the hot path, for callers that have seen process_generation() since the last fork; TraceId::random() and
// SpanId::random() call these.
inline void fill_random(TraceId& id) noexcept {
  const std::uint64_t words[2] = {random_u64(), random_u64()};
  std::memcpy(id.bytes.data(), words, sizeof words);
}
inline void fill_random(SpanId& id) noexcept {
  const std::uint64_t word = random_u64();
  std::memcpy(id.bytes.data(), &word, sizeof word);
}

// `bytes` random bytes as lower-case hex, straight from the kernel: for names of directories.
[[nodiscard]] std::string random_hex(std::size_t bytes);

// Version 4, as text.
[[nodiscard]] std::string random_uuid();

}  // namespace waymark
