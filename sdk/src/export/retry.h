// How long to wait before the same bytes are sent again.
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

}  // namespace waymark::delivery
