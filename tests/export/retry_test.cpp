#include "export/retry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "support/holds.h"

namespace waymark::delivery {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kLeast = 0;
constexpr std::uint64_t kMost = UINT64_MAX;
const RetryConfig kConfig{.initial = 100ms, .maximum = 1s, .multiplier = 2.0};

TEST(BackoffTest, GrowsByTheMultiplierUpToTheMaximum) {
  HOLDS("RT-01", "RT-06");
  Backoff low;
  Backoff high;
  for (const auto longest : {100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    EXPECT_EQ(low.next(kConfig, 0s, kLeast), longest / 2);
    const auto wait = high.next(kConfig, 0s, kMost);
    EXPECT_LE(wait, longest);
    EXPECT_GE(wait, longest - 1us);
  }
}

TEST(BackoffTest, ItsJitterIsTheShareThatIsLeftToChance) {
  for (const double jitter : {0.0, 0.25, 1.0}) {
    const RetryConfig config{.initial = 100ms, .maximum = 1s, .jitter = jitter};
    EXPECT_EQ(Backoff().next(config, 0s, kLeast), std::chrono::duration_cast<std::chrono::nanoseconds>(100ms * (1 - jitter)));
    EXPECT_GE(Backoff().next(config, 0s, kMost), 100ms - 1us);
  }
}

TEST(BackoffTest, HasJitter) {
  HOLDS("RT-01", "RT-09");
  std::set<std::chrono::nanoseconds> waits;
  for (int i = 0; i < 10; ++i) waits.insert(Backoff().next(kConfig, 0s));
  EXPECT_GT(waits.size(), 5u);
}

TEST(BackoffTest, BeginsAnewAfterASuccess) {
  Backoff backoff;
  for (int i = 0; i < 5; ++i) (void)backoff.next(kConfig, 0s);
  backoff.reset();
  EXPECT_EQ(backoff.next(kConfig, 0s, kLeast), 50ms);
}

TEST(BackoffTest, WhatTheServerAsksForWinsWhereItIsLonger) {
  HOLDS("RT-04", "RT-14");
  Backoff backoff;
  EXPECT_EQ(backoff.next(kConfig, 7s, kMost), 7s);
  EXPECT_GE(Backoff().next(kConfig, 1ms, kLeast), 50ms);
}

TEST(BackoffTest, WhatTheServerAsksForIsAtMostAnHour) {
  EXPECT_EQ(Backoff().next(kConfig, 24h, kMost), 1h);
}

TEST(BackoffTest, GrowsFromWhatTheServerAskedFor) {
  HOLDS("RT-15");
  Backoff backoff;
  EXPECT_EQ(backoff.next(kConfig, 300ms, kLeast), 300ms);
  EXPECT_EQ(backoff.next(kConfig, 0s, kLeast), 300ms) << "half of twice as much";
}

TEST(BackoffTest, LastsForever) {
  Backoff backoff;
  const RetryConfig config{.initial = 1ns, .maximum = std::chrono::nanoseconds::max(), .multiplier = 1e300};
  for (int i = 0; i < 100; ++i) EXPECT_GE(backoff.next(config, 0s), 0ns);
}

TEST(LongerIntervalTest, DoublesWithEachRefusalUpToAMinute) {
  std::vector<std::chrono::nanoseconds> waits;
  for (std::chrono::nanoseconds last = 0s; waits.size() < 8;) waits.push_back(last = longer_interval(last, 1s));
  EXPECT_THAT(waits, ::testing::ElementsAre(2s, 4s, 8s, 16s, 32s, 60s, 60s, 60s));
  EXPECT_EQ(longer_interval(0s, 24h * 365), 60s) << "of what is longer by itself, nothing becomes shorter by this";
}

}  // namespace
}  // namespace waymark::delivery
