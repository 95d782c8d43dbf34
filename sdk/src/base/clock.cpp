#include "base/clock.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace waymark::detail {

constinit ClockLine clock_line;

namespace {

std::uint64_t kernel_ns(clockid_t clock) noexcept {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(t.tv_nsec);
}

#if defined(__x86_64__)

constexpr double kLineNs = 10e6;           // a line's length
constexpr double kFirstNs = 4e6;           // the first rate is measured over at least this long
constexpr double kBaselineNs = 20e6;       // and a later one over this
constexpr double kLongestBaselineNs = 1e10;  // and at most this: the machine may have slept in between
constexpr double kStepNs = 1e6;            // a kernel's clock that is further off was set, and is followed at once
constexpr double kPlausible = 1e-3;        // a rate further from the last one is asked for once more before it is believed
constexpr std::uint64_t kTryTicks = 500'000;  // while no rate is known: reading all clocks takes as long as three reads of one
constexpr std::uint64_t kReadTicks = 20'000;  // two reads further apart than this were interrupted
constexpr double kFraction = 4294967296.0;    // 2^32

// Whether the counter runs at one rate, always, on all processors: the kernel has found out, and keeps time by it.
bool counter_is_trusted() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d & (1u << 8)) == 0) return false;
  try {
    std::ifstream file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    std::string source;
    return static_cast<bool>(file >> source) && source == "tsc";
  } catch (...) {
    return false;
  }
}

std::atomic<bool> off{false};  // the kernel does not trust the counter
std::atomic_flag drawing = ATOMIC_FLAG_INIT;  // held by whoever draws; it guards what follows
std::uint64_t base_ticks = 0;
std::uint64_t base_raw = 0;  // of the clock that nobody sets: what rates are measured against
double rate = 0;             // nanoseconds a tick; 0: not known
std::atomic<std::uint64_t> due{0};  // while no rate is known: where the counter is to be before it is tried again
double doubted = 0;          // measured once, and too far from `rate`

struct Reading {
  std::uint64_t ticks = 0;
  std::uint64_t ns = 0;   // wall clock
  std::uint64_t raw = 0;  // CLOCK_MONOTONIC_RAW
};

// All clocks at one moment. False: interrupted in between.
bool read_all(Reading& reading) noexcept {
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t before = __rdtsc();
    reading.ns = kernel_ns(CLOCK_REALTIME);
    const std::uint64_t after = __rdtsc();
    reading.raw = kernel_ns(CLOCK_MONOTONIC_RAW);
    if (__rdtsc() - before > kReadTicks) continue;
    reading.ticks = before + (after - before) / 2;
    return true;
  }
  return false;
}

// False: not long enough since the last time, and no rate is known.
bool measure(const Reading& now) noexcept {
  const double ticks = static_cast<double>(now.ticks - base_ticks);
  const double ns = static_cast<double>(now.raw - base_raw);
  if (base_raw == 0 || ns > kLongestBaselineNs || ticks <= 0) {
    base_ticks = now.ticks;
    base_raw = now.raw;
    return rate != 0;
  }
  if (ns < (rate == 0 ? kFirstNs : kBaselineNs)) return rate != 0;
  base_ticks = now.ticks;
  base_raw = now.raw;
  const double measured = ns / ticks;
  const auto near = [&](double other) { return other != 0 && std::abs(measured / other - 1) < kPlausible; };
  if (rate == 0 || near(rate) || near(doubted)) {
    rate = measured;
    doubted = 0;
  } else {
    doubted = measured;
  }
  return true;
}

// Returns the time to give out for this reading.
std::uint64_t draw(const Reading& now) noexcept {
  if (!measure(now)) {
    due.store(now.ticks + kTryTicks, std::memory_order_relaxed);
    return now.ns;
  }
  due.store(0, std::memory_order_relaxed);
  const std::uint64_t ticks = now.ticks;
  const std::uint64_t ns = now.ns;
  ClockLine& line = clock_line;
  std::uint64_t begin = ns;
  double drawn = rate;
  if (const std::uint64_t valid = line.valid_ticks.load(std::memory_order_relaxed); valid != 0) {
    // The latest time that anybody can have read.
    const std::uint64_t age = std::min(ticks - line.ticks.load(std::memory_order_relaxed), valid);
    const std::uint64_t said = line.ns.load(std::memory_order_relaxed) +
                               static_cast<std::uint64_t>(static_cast<unsigned __int128>(age) *
                                                              line.rate.load(std::memory_order_relaxed) >> 32);
    if (said > ns && static_cast<double>(said - ns) < kStepNs) {
      begin = said;
      drawn = rate * (1 - static_cast<double>(said - ns) / kLineNs);  // it meets the kernel's at its end
    }
  }
  const std::uint32_t sequence = line.sequence.load(std::memory_order_relaxed);
  line.sequence.store(sequence + 1, std::memory_order_relaxed);
  line.ticks.store(ticks, std::memory_order_release);
  line.ns.store(begin, std::memory_order_release);
  line.rate.store(static_cast<std::uint64_t>(drawn * kFraction), std::memory_order_release);
  line.valid_ticks.store(static_cast<std::uint64_t>(kLineNs / rate), std::memory_order_release);
  line.sequence.store(sequence + 2, std::memory_order_release);
  return begin;
}

#endif

}  // namespace

std::uint64_t wall_ns_of_kernel() noexcept {
#if defined(__x86_64__)
  if (off.load(std::memory_order_relaxed) || __rdtsc() < due.load(std::memory_order_relaxed)) return kernel_ns(CLOCK_REALTIME);
  // Whoever comes while another draws, or in a child of fork where nobody will finish, reads the kernel's clock.
  if (!drawing.test_and_set(std::memory_order_acquire)) {
    if (base_raw == 0 && !counter_is_trusted()) off.store(true, std::memory_order_relaxed);
    Reading now;
    std::uint64_t ns = 0;
    if (!off.load(std::memory_order_relaxed) && read_all(now)) ns = draw(now);
    drawing.clear(std::memory_order_release);
    if (ns != 0) return ns;
  }
#endif
  return kernel_ns(CLOCK_REALTIME);
}

}  // namespace waymark::detail
