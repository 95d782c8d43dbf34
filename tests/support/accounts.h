// The books of a delivery, closed at the end of a test: what the SDK counted against what the test saw.
//
// Hides: nothing.
// Threads: the test's own.
// Failure: a failed expectation names the destination and the term.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <set>
#include <string>

#include "waymark/telemetry.h"

namespace waymark::testing {

// What the test knows without asking the SDK. What it can't know is left out.
struct Seen {
  std::optional<std::uint64_t> recorded = std::nullopt;  // calls that the test made for this signal
  std::optional<std::set<std::string>> arrived = std::nullopt;  // distinct ids at the sink
  std::uint64_t refused_after_arrival = 0;  // of those: ones whose answer was spoiled in a way that is no other try's worth
  std::uint64_t unanswered = 0;             // of those: ones that were still without an answer when the books were closed
  std::optional<std::uint64_t> waiting = std::nullopt;  // found by walking the journal
};

// offered = delivered + rejected + dropped + filtered + pending, and each term that the test has seen is what it saw.
inline void expect_accounts(const DestinationStats& stats, const Seen& seen = {}) {
  SCOPED_TRACE("destination " + stats.name + " (" + std::string(signal_name(stats.signal)) + ")");
  const Counts& c = stats.counts;
  EXPECT_EQ(c.offered, c.delivered + c.rejected + c.dropped + c.filtered + c.pending)
      << c.delivered << " delivered, " << c.rejected << " rejected, " << c.dropped << " dropped, " << c.filtered << " filtered, "
      << c.pending << " pending";
  if (seen.recorded) {
    EXPECT_EQ(c.offered, *seen.recorded) << "offered";
  }
  if (seen.waiting) {
    EXPECT_EQ(c.pending, *seen.waiting) << "pending, against a walk of the journal";
  }
  if (seen.arrived) {
    EXPECT_EQ(c.delivered, seen.arrived->size() - seen.refused_after_arrival - seen.unanswered) << "delivered, against the sink";
  }
}

}  // namespace waymark::testing
