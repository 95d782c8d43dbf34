// The wall clock, in nanoseconds since 1970, and deadlines on the steady clock.
//
// Hides: clock_gettime, the processor's time-stamp counter where the kernel itself keeps time by it, and the clock that a
//   test puts in its place.
// Threads: any.
// Failure: none.
#pragma once

#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

#include "waymark/trace.h"

namespace waymark {

namespace detail {

// The line that turns the time-stamp counter into wall-clock time: drawn anew against the kernel's clock every 10 ms of
// use, so that what the kernel does to its clock is followed within that time. Fields are read between two looks at
// `sequence`, which is odd while they are written.
struct ClockLine {
  std::atomic<std::uint32_t> sequence{0};
  std::atomic<std::uint64_t> ticks{0};       // where it starts, on the counter
  std::atomic<std::uint64_t> ns{0};          // and on the clock
  std::atomic<std::uint64_t> rate{0};        // nanoseconds a tick, times 2^32
  std::atomic<std::uint64_t> valid_ticks{0}; // how far it goes; 0: there is none
};
extern constinit ClockLine clock_line;
// Asks the kernel, and draws the line anew where that is due.
std::uint64_t wall_ns_of_kernel() noexcept;

}  // namespace detail

// The kernel's wall clock, to within what it is corrected by in 10 ms.
inline std::uint64_t wall_ns() noexcept {
#if defined(__x86_64__)
  const detail::ClockLine& line = detail::clock_line;
  const std::uint32_t sequence = line.sequence.load(std::memory_order_acquire);
  const std::uint64_t rate = line.rate.load(std::memory_order_acquire);
  const std::uint64_t valid = line.valid_ticks.load(std::memory_order_acquire);
  const std::uint64_t begin = line.ns.load(std::memory_order_acquire);
  const std::uint64_t ticks = __rdtsc() - line.ticks.load(std::memory_order_acquire);
  if (ticks < valid && (sequence & 1) == 0 && line.sequence.load(std::memory_order_relaxed) == sequence) [[likely]] {
    return begin + static_cast<std::uint64_t>(static_cast<unsigned __int128>(ticks) * rate >> 32);
  }
#endif
  return detail::wall_ns_of_kernel();
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
