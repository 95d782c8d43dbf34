// Random bits for ids: a fast generator a thread, seeded from the kernel, seeded again in a child of fork.
//
// Hides: the generator (wyrand) and its seeding.
// Threads: one generator a thread.
// Failure: none; getrandom does not fail after boot.
#pragma once

#include <bit>
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

// Several at once: the thread's state is loaded and stored once for all.
class Randoms {
 public:
  // Whether the next ones are made without a call.
  [[nodiscard]] static bool ready() noexcept { return detail::random_state != 0; }
  Randoms() noexcept : state_(detail::random_state) {
    if (state_ == 0) [[unlikely]] state_ = detail::seed_random();
    key_ = detail::random_key;
  }
  ~Randoms() { detail::random_state = state_; }
  Randoms(const Randoms&) = delete;
  Randoms& operator=(const Randoms&) = delete;
  // Never 0.
  std::uint64_t next() noexcept {
    for (;;) {
      const Product p = step();
      if ((p.high ^ p.low) != 0) [[likely]] return p.high ^ p.low;
    }
  }
  // Three at once, the last two never 0: as good as those of three steps, but made of one product. For what belongs together.
  struct Three {
    std::uint64_t first, second, third;
  };
  Three next_three() noexcept {
    const Product p = step();
    const std::uint64_t second = p.high ^ p.low;
    const std::uint64_t third = p.low ^ std::rotl(p.high, 17);
    return {p.high + std::rotl(p.low, 24), second + (second == 0 ? 1 : 0), third + (third == 0 ? 1 : 0)};
  }

 private:
  struct Product {
    std::uint64_t high, low;
  };
  Product step() noexcept {
    state_ += 0xa0761d6478bd642fu;
    const auto product = static_cast<unsigned __int128>(state_) * (state_ ^ key_);
    return {static_cast<std::uint64_t>(product >> 64), static_cast<std::uint64_t>(product)};
  }
  std::uint64_t state_;
  std::uint64_t key_;
};

// Never returns 0.
inline std::uint64_t random_u64() noexcept { return Randoms().next(); }

// Inline for the hot path, for callers that have seen process_generation() since the last fork; TraceId::random() and
// SpanId::random() call these.
inline void fill_random(Randoms& random, TraceId& id) noexcept {
  const std::uint64_t words[2] = {random.next(), random.next()};
  std::memcpy(id.bytes.data(), words, sizeof words);
}
inline void fill_random(Randoms& random, SpanId& id) noexcept {
  const std::uint64_t word = random.next();
  std::memcpy(id.bytes.data(), &word, sizeof word);
}

// A root's: its span's id has to be unlike the others of its trace only.
inline void fill_random(Randoms& random, TraceId& trace, SpanId& span) noexcept {
  const Randoms::Three three = random.next_three();
  std::memcpy(trace.bytes.data(), &three.first, 8);
  std::memcpy(trace.bytes.data() + 8, &three.second, 8);
  std::memcpy(span.bytes.data(), &three.third, 8);
}

// `bytes` random bytes as lower-case hex, straight from the kernel: for names of directories.
[[nodiscard]] std::string random_hex(std::size_t bytes);

// Version 4, as text.
[[nodiscard]] std::string random_uuid();

}  // namespace waymark
