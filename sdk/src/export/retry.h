// How long to wait before the same bytes are sent again, or others where nobody takes any.
//
// Hides: exponential backoff and its jitter.
// Threads: a Backoff belongs to one thread.
// Failure: none; values out of range are brought into it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/random.h"
#include "waymark/config.h"

namespace waymark::delivery {

// The n-th wait lies in [(1 - jitter) * d, d], d = initial * multiplier^n, at most maximum. What the server asks for
// (Retry-After) wins where it is longer, up to an hour.
class Backoff {
 public:
  static constexpr std::chrono::nanoseconds kLongestRetryAfter = std::chrono::hours(1);

  [[nodiscard]] std::chrono::nanoseconds next(const RetryConfig& config, std::chrono::nanoseconds retry_after,
                                              std::uint64_t random = random_u64()) noexcept {
    const double initial = std::max(1.0, static_cast<double>(config.initial.count()));
    const double maximum = std::max(initial, static_cast<double>(config.maximum.count()));
    const double longest = step_ == 0.0 ? initial : std::min(maximum, step_ * std::max(1.0, config.multiplier));
    // What the server asked for is where the next wait grows from.
    step_ = std::max(longest, std::min(maximum, static_cast<double>(retry_after.count())));
    const double share = static_cast<double>(random >> 11) * 0x1p-53;  // [0, 1)
    const double jitter = std::clamp(config.jitter, 0.0, 1.0);
    const std::chrono::nanoseconds wait(static_cast<std::int64_t>(longest * (1.0 - jitter + jitter * share)));
    return std::max(wait, std::min(retry_after, kLongestRetryAfter));
  }
  void reset() noexcept { step_ = 0.0; }

 private:
  double step_ = 0.0;  // the upper end of the last wait, nanoseconds; 0 before the first
};

// How long the oldest record waits where a backend does not know this kind of request: after each such answer twice as
// long as before it, at most a minute, since a route may be back at any time. `last` is 0 before the first.
inline std::chrono::nanoseconds longer_interval(std::chrono::nanoseconds last, std::chrono::nanoseconds interval) noexcept {
  constexpr std::chrono::nanoseconds kLongest = std::chrono::minutes(1);
  return std::min(kLongest, 2 * std::clamp(std::max(last, interval), std::chrono::nanoseconds(1), kLongest));
}

}  // namespace waymark::delivery
