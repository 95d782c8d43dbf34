// Waymark's own numbers: OpenTelemetry's `otel.sdk.*`, and `waymark.*` for what these have no words for. They are what
// stats() says, looked at once for each collection.
//
// Hides: names, and what of stats() is told under which.
// Threads: look() and collected() are the collection's; know() and exported() any; observe() once for each Telemetry.
// Failure: none.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waymark/metric.h"
#include "waymark/telemetry.h"

namespace waymark {

// What otel.component.type and otel.component.name say of a destination: "otlp_http_span_exporter" and that with a number.
struct Component {
  std::string exporter;
  std::string exporter_type;
  std::string processor;
  std::string processor_type;
};

class SelfMetrics {
 public:
  // Makes the instruments. `current` gives this process's SelfMetrics when it is called: callbacks come through a fork.
  void begin(const Meter& meter);
  static void observe(const Meter& meter, const std::function<const SelfMetrics&()>& current);

  // Numbers a destination, which is new, or sends in another way than before.
  void know(const DestinationConfig& destination);
  void look(Stats stats);
  void collected(std::chrono::nanoseconds took);
  // A batch was settled; `error`: empty, "rejected" or "given_up".
  void exported(const std::string& destination, Signal signal, std::chrono::nanoseconds took, std::string_view error);

 private:
  [[nodiscard]] Component component(const std::string& destination, Signal signal) const;

  mutable std::mutex mutex_;  // guards what follows
  Histogram<double> export_duration_;
  Histogram<double> collection_duration_;  // begin() is before its first use
  Stats stats_;
  std::uint64_t started_ = 0;
  std::map<std::pair<std::string, Signal>, Component> components_;
  std::map<std::string, int> numbers_;  // by type
};

}  // namespace waymark
