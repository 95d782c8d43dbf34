#include "base/clock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace waymark {
namespace {

std::uint64_t kernel_ns() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(t.tv_nsec);
}

// Long enough for several lines to be drawn (clock.cpp: one each 10 ms).
constexpr std::uint64_t kWhile = 200'000'000;

TEST(ClockTest, AgreesWithTheKernels) {
  const std::uint64_t end = kernel_ns() + kWhile;
  std::uint64_t readings = 0;
  std::uint64_t apart = 0;
  for (std::uint64_t now = 0; now < end || readings <= 1000;) {
    const std::uint64_t before = kernel_ns();
    const std::uint64_t ours = wall_ns();
    now = kernel_ns();
    ++readings;
    // Outside of what the kernel said before and after it by more than a clock's correction.
    if (ours + 20'000 < before || ours > now + 20'000) ++apart;
  }
  EXPECT_EQ(apart, 0u);
}

TEST(ClockTest, HardlyEverRunsBackwardsInAnyThread) {
  std::vector<std::uint64_t> worst(4, 0);
  std::vector<std::thread> threads;
  for (std::uint64_t& back : worst) {
    threads.emplace_back([&back] {
      std::uint64_t last = wall_ns();
      for (const std::uint64_t end = last + kWhile; last < end;) {
        const std::uint64_t now = wall_ns();
        if (now < last) back = std::max(back, last - now);
        last = now;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  // While one thread draws a line, others read the kernel's clock, from which the line before may have strayed a little.
  for (const std::uint64_t back : worst) EXPECT_LT(back, 20'000u);
}

TEST(ClockTest, IsWhatATestPutsInItsPlace) {
  const Clock clock([] { return Timestamp(std::chrono::nanoseconds(42)); });
  EXPECT_EQ(clock.now(), 42u);
}

}  // namespace
}  // namespace waymark
