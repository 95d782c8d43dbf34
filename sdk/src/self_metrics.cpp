#include "self_metrics.h"

#include <algorithm>
#include <array>

namespace waymark {
namespace {

constexpr std::array<std::string_view, kSignals> kWords{"span", "log", "metric"};

std::string exporter_type(const DestinationConfig& destination) {
  std::string type;
  switch (destination.output) {
    case Output::otlp:
      type = destination.protocol == Protocol::grpc        ? "otlp_grpc"
             : destination.protocol == Protocol::http_json ? "otlp_http_json"
                                                           : "otlp_http";
      break;
    case Output::file: type = "otlp_file"; break;
    case Output::console: type = "console"; break;
    case Output::callback: type = "callback"; break;
  }
  return type + "_" + std::string(kWords[static_cast<std::size_t>(destination.signal)]) + "_exporter";
}

// Calls each(destination, its component) for those of one signal.
template <class Each>
void for_each(const Stats& stats, Signal signal, Each&& each) {
  for (const DestinationStats& d : stats.destinations) {
    if (d.signal == signal) each(d);
  }
}

using Count = Observer<std::int64_t>;
std::int64_t whole(std::uint64_t n) { return static_cast<std::int64_t>(n); }

}  // namespace

void SelfMetrics::begin(const Meter& meter) {
  const std::scoped_lock lock(mutex_);
  export_duration_ = meter.histogram("otel.sdk.exporter.operation.duration",
                                     {.unit = "s", .description = "From a batch's first request to its end, waits included"});
  collection_duration_ = meter.histogram("otel.sdk.metric_reader.collection.duration",
                                         {.unit = "s", .description = "Callbacks, adding up and encoding of a collection"});
}

Component SelfMetrics::component(const std::string& destination, Signal signal) const {
  const auto known = components_.find({destination, signal});
  return known == components_.end() ? Component{} : known->second;
}

void SelfMetrics::know(const DestinationConfig& destination) {
  const std::scoped_lock lock(mutex_);
  auto& component = components_[{destination.name, destination.signal}];
  const auto numbered = [&](const std::string& type) { return type + "/" + std::to_string(numbers_[type]++); };
  const std::string type = exporter_type(destination);
  if (component.exporter_type != type) {
    component.exporter_type = type;
    component.exporter = numbered(type);
  }
  if (component.processor.empty()) {
    component.processor_type = "batching_" + std::string(kWords[static_cast<std::size_t>(destination.signal)]) + "_processor";
    component.processor = numbered(component.processor_type);
  }
}

void SelfMetrics::look(Stats stats) {
  const std::scoped_lock lock(mutex_);
  stats_ = std::move(stats);
  // A span that ends between the two looks is in one of them at most.
  started_ = std::max(started_, stats_.spans + stats_.open_spans);
}

void SelfMetrics::collected(std::chrono::nanoseconds took) {
  collection_duration_.record(std::chrono::duration<double>(took).count(),
                              {{"otel.component.name", "periodic_metric_reader/0"}, {"otel.component.type", "periodic_metric_reader"}});
}

void SelfMetrics::exported(const std::string& destination, Signal signal, std::chrono::nanoseconds took, std::string_view error) {
  Histogram<double> duration;
  Component c;
  {
    const std::scoped_lock lock(mutex_);
    duration = export_duration_;
    c = component(destination, signal);
  }
  if (c.exporter.empty()) return;
  const double seconds = std::chrono::duration<double>(took).count();
  const Attribute name("otel.component.name", c.exporter);
  const Attribute type("otel.component.type", c.exporter_type);
  if (error.empty()) {
    duration.record(seconds, {name, type});
  } else {
    duration.record(seconds, {name, type, {"error.type", error}});
  }
}

void SelfMetrics::observe(const Meter& meter, const std::function<const SelfMetrics&()>& current) {
  // Each callback sees the same look, under the lock.
  const auto seeing = [current](auto tell) {
    return [current, tell](const Count& observer) {
      const SelfMetrics& self = current();
      const std::scoped_lock lock(self.mutex_);
      tell(observer, self);
    };
  };
  meter.observable_counter("otel.sdk.span.started", {.unit = "{span}", .description = "Spans started that are recorded"},
                           seeing([](const Count& o, const SelfMetrics& self) {
                             o.observe(whole(self.started_), {{"otel.span.sampling_result", "RECORD_AND_SAMPLE"}});
                           }));
  meter.observable_up_down_counter("otel.sdk.span.live", {.unit = "{span}", .description = "Spans that are open and recorded"},
                                   seeing([](const Count& o, const SelfMetrics& self) {
                                     o.observe(whole(self.stats_.open_spans), {{"otel.span.sampling_result", "RECORD_AND_SAMPLE"}});
                                   }));
  meter.observable_counter("otel.sdk.log.created", {.unit = "{log_record}", .description = "Log records made"},
                           seeing([](const Count& o, const SelfMetrics& self) { o.observe(whole(self.stats_.log_records)); }));
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    const std::string word(kWords[static_cast<std::size_t>(signal)]);
    const std::string unit = signal == Signal::traces ? "{span}" : "{log_record}";
    meter.observable_up_down_counter("otel.sdk.processor." + word + ".queue.size",
                                     {.unit = unit, .description = "Recorded and neither sent nor given up yet"},
                                     seeing([signal](const Count& o, const SelfMetrics& self) {
                                       for_each(self.stats_, signal, [&](const DestinationStats& d) {
                                         const Component c = self.component(d.name, signal);
                                         o.observe(whole(d.counts.pending), {{"otel.component.name", c.processor},
                                                                             {"otel.component.type", c.processor_type}});
                                       });
                                     }));
    meter.observable_counter("otel.sdk.processor." + word + ".processed",
                             {.unit = unit, .description = "Given to an exporter, or dropped (error.type)"},
                             seeing([signal](const Count& o, const SelfMetrics& self) {
                               for_each(self.stats_, signal, [&](const DestinationStats& d) {
                                 const Component c = self.component(d.name, signal);
                                 const Attribute name("otel.component.name", c.processor);
                                 const Attribute type("otel.component.type", c.processor_type);
                                 o.observe(whole(d.counts.delivered + d.counts.rejected), {name, type});
                                 o.observe(whole(d.counts.dropped), {name, type, {"error.type", "queue_full"}});
                               });
                             }));
    meter.observable_counter("otel.sdk.exporter." + word + ".exported",
                             {.unit = unit, .description = "Taken by a backend, or refused by it for good (error.type)"},
                             seeing([signal](const Count& o, const SelfMetrics& self) {
                               for_each(self.stats_, signal, [&](const DestinationStats& d) {
                                 const Component c = self.component(d.name, signal);
                                 const Attribute name("otel.component.name", c.exporter);
                                 const Attribute type("otel.component.type", c.exporter_type);
                                 o.observe(whole(d.counts.delivered), {name, type});
                                 o.observe(whole(d.counts.rejected), {name, type, {"error.type", "rejected"}});
                               });
                             }));
  }
  meter.observable_up_down_counter(
      "waymark.destination.records",
      {.unit = "{record}", .description = "What became of what was recorded: offered is the sum of the others"},
      seeing([](const Count& o, const SelfMetrics& self) {
        for (const DestinationStats& d : self.stats_.destinations) {
          const auto tell = [&](std::string_view outcome, std::uint64_t n) {
            o.observe(whole(n), {{"waymark.destination", d.name}, {"waymark.signal", signal_name(d.signal)}, {"waymark.outcome", outcome}});
          };
          tell("offered", d.counts.offered);
          tell("delivered", d.counts.delivered);
          tell("rejected", d.counts.rejected);
          tell("dropped", d.counts.dropped);
          tell("filtered", d.counts.filtered);
          tell("pending", d.counts.pending);
        }
      }));
  meter.observable_up_down_counter("waymark.journal.size", {.unit = "By", .description = "Bytes that the journal keeps"},
                                   seeing([](const Count& o, const SelfMetrics& self) { o.observe(whole(self.stats_.journal_bytes)); }));
  meter.observable_up_down_counter("waymark.recorder.size", {.unit = "By", .description = "Bytes of the recorder"},
                                   seeing([](const Count& o, const SelfMetrics& self) { o.observe(whole(self.stats_.recorder_bytes)); }));
  meter.observable_counter("waymark.measurement.refused",
                           {.unit = "{measurement}", .description = "Values that are none: not a number, infinite, or less than zero"},
                           seeing([](const Count& o, const SelfMetrics& self) { o.observe(whole(self.stats_.refused_measurements)); }));
}

}  // namespace waymark
