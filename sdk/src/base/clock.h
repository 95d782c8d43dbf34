// The wall clock, in nanoseconds since 1970, and deadlines on the steady clock.
//
// Hides: clock_gettime, and the clock that a test puts in its place.
// Threads: any.
// Failure: none.
#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>
#include <functional>

#include "waymark/trace.h"

namespace waymark {

inline std::uint64_t wall_ns() noexcept {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(t.tv_nsec);
}

// A Telemetry's clock: the system's, or the one its Config gave.
class Clock {
 public:
  Clock() = default;
  explicit Clock(std::function<Timestamp()> manual) : manual_(std::move(manual)), is_manual_(manual_ != nullptr) {}
  [[nodiscard]] std::uint64_t now() const noexcept {
    if (!is_manual_) [[likely]] return wall_ns();
    return static_cast<std::uint64_t>(manual_().time_since_epoch().count());
  }

 private:
  std::function<Timestamp()> manual_;
  bool is_manual_ = false;
};

inline std::uint64_t to_ns(Timestamp t) noexcept { return static_cast<std::uint64_t>(t.time_since_epoch().count()); }
inline Timestamp to_timestamp(std::uint64_t ns) noexcept {
  return Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(ns)));
}

using Deadline = std::chrono::steady_clock::time_point;
inline Deadline deadline_after(std::chrono::nanoseconds wait) noexcept {
  const auto now = std::chrono::steady_clock::now();
  return wait > Deadline::max() - now ? Deadline::max() : now + wait;
}

}  // namespace waymark
