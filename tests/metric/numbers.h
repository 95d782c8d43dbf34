// One aggregator with a meter, without a Telemetry around it; what a collection told, decoded.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/thread.h"
#include "metric/aggregator.h"
#include "otlp/reader.h"
#include "waymark/metric.h"

namespace waymark::testing {

class Numbers {
 public:
  explicit Numbers(MetricConfig config = {}) : config_(std::move(config)) { begin(); }
  ~Numbers() { detail::delete_instruments(state_); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  Meter meter() { return Meter(&state_); }
  metric::Aggregator& aggregator() { return *aggregator_; }
  const detail::Recording& recording() const { return recording_; }
  const std::vector<std::string>& said() const { return said_; }
  void advance(std::chrono::nanoseconds by) { now_.fetch_add(static_cast<std::uint64_t>(by.count())); }
  std::uint64_t now() const { return now_.load(); }

  // A collection's Metric messages.
  std::vector<std::string> pieces() {
    std::vector<std::string> all;
    aggregator_->collect([this](const auto& each) { each(state_); },
                         [&](std::uint16_t, std::string_view body) { all.emplace_back(body); });
    return all;
  }
  // Those of a collection that calls no callback.
  std::vector<ReadMetric> collect_recorded() {
    std::vector<ReadMetric> all;
    aggregator_->collect_recorded([this](const auto& each) { each(state_); },
                                  [&](std::uint16_t, std::string_view body) { all.push_back(otlp::read_metric(body)); });
    return all;
  }
  // Decoded; those of one name and kind that follow one another are put together.
  std::vector<ReadMetric> collect() {
    std::vector<ReadMetric> all;
    for (const std::string& body : pieces()) {
      ReadMetric piece = otlp::read_metric(body);
      if (!all.empty() && all.back().name == piece.name && all.back().kind == piece.kind) {
        for (ReadPoint& p : piece.points) all.back().points.push_back(std::move(p));
      } else {
        all.push_back(std::move(piece));
      }
    }
    return all;
  }
  // Of the first stream.
  std::vector<ReadPoint> points() { return collect().at(0).points; }
  // The only stream of this name; fails where there is none.
  static const ReadMetric& named(const std::vector<ReadMetric>& all, std::string_view name) {
    for (const ReadMetric& metric : all) {
      if (metric.name == name) return metric;
    }
    ADD_FAILURE() << "nothing is told of " << name;
    static const ReadMetric none;
    return none;
  }
  static std::int64_t whole(const ReadPoint& point) { return std::get<std::int64_t>(point.value); }
  static double real(const ReadPoint& point) { return std::get<double>(point.value); }
  static std::string text(const AnyMap& attributes, std::string_view key) { return std::string(find_string(attributes, key)); }

 private:
  void begin() {
    diagnostics_.set_handler([this](DiagnosticLevel, std::string_view message) {
      const std::scoped_lock lock(said_mutex_);
      said_.emplace_back(message);
    });
    clock_ = Clock([this] { return to_timestamp(now_.load()); });
    aggregator_ = std::make_unique<metric::Aggregator>(config_, clock_, diagnostics_);
    recording_.diagnostics = &diagnostics_;
    recording_.clock = &clock_;
    recording_.metrics = aggregator_.get();
    recording_.generation = process_generation();
    recording_.on = true;
    recording_.metrics_on = true;
    state_.recording_of = &recording_;
    state_.name = "test";
  }

  MetricConfig config_;
  std::mutex said_mutex_;
  std::vector<std::string> said_;
  Diagnostics diagnostics_{DiagnosticLevel::debug};
  std::atomic<std::uint64_t> now_{1'800'000'000'000'000'000};
  Clock clock_;
  detail::Recording recording_;
  std::unique_ptr<metric::Aggregator> aggregator_;
  detail::MeterState state_;
};

}  // namespace waymark::testing
