// The examples of docs/delivery.md.
#include <gtest/gtest.h>

#include <iostream>

#include "docs/recorded.h"

namespace waymark::docs {
namespace {

[[maybe_unused]] void lossless() {
  waymark::configure_otel_tracing({.service = "billing", .endpoint = "http://localhost:4318", .lossy = false});
}

[[maybe_unused]] void crashes() {
  waymark::install_crash_handler();
}

TEST(DeliveryPage, AccountsAddUp) {
  Recorded recorded;
  { auto span = recorded.tracer.span("read_bands"); }
  recorded.telemetry.force_flush(std::chrono::seconds(5));
  const waymark::Stats stats = recorded.telemetry.stats();
  for (const waymark::DestinationStats& to : stats.destinations) {
    const waymark::Counts& counts = to.counts;
    EXPECT_EQ(counts.offered, counts.delivered + counts.rejected + counts.dropped + counts.filtered + counts.pending);
  }
}

TEST(DeliveryPage, TellsWhatWasRecovered) {
  Recorded recorded;
  waymark::Telemetry& telemetry = recorded.telemetry;
  telemetry.on_recovered([](const waymark::Recovered& found) {
    for (const waymark::InterruptedSpan& span : found.interrupted) {
      std::cerr << "process " << found.process_id << " died in " << span.name << '\n';
    }
  });
}

}  // namespace
}  // namespace waymark::docs
