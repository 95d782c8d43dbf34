// The free functions of configure.h, over the process-wide Telemetry: resolve, check, and only then change.

#include "waymark/configure.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "base/diagnostics.h"
#include "config/environment.h"
#include "config/file.h"
#include "config/resolve.h"
#include "config/resource.h"
#include "core.h"
#include "export/destination.h"
#include "base/propagators.h"
#include "journal/crash.h"
#include "waymark/error.h"

namespace waymark {
namespace {

// What configure calls share. Never destroyed, as the process-wide Telemetry is not.
struct Calls {
  std::mutex mutex;         // one call at a time
  ErrorHandler handler;     // set before recording started
  Diagnostics diagnostics;  // for what is wrong with the environment
};

Calls& calls() {
  static Calls* const shared = new Calls;
  return *shared;
}

// A later call must not contradict what the first one fixed for the process.
template <typename Options>
void check_later(const Options& options, const Config& started) {
  if constexpr (requires { options.state_directory; }) {
    const std::string directory = config::absolute_directory(options.state_directory);
    // Started without one: it could not be had, which was said then.
    const bool other = !started.state_directory.empty() && directory != started.state_directory;
    if (!directory.empty() && other) {
      throw Error(ErrorCode::state_directory,
                  "state_directory: recording has started in '" + started.state_directory + "', not in '" + directory +
                      "'; give it to the first configure call, or leave it out of the later ones");
    }
    if (options.recorder && *options.recorder != started.recorder.place) {
      throw Error(ErrorCode::invalid_argument,
                  "recorder: recording has started at another place; give it to the first configure call, or leave it "
                  "out of the later ones");
    }
  }
  if constexpr (requires { options.sampler; }) {
    const Sampler sampler = options.sampler.value_or(started.sampler);
    if (sampler.kind != started.sampler.kind || sampler.ratio != started.sampler.ratio) {
      throw Error(ErrorCode::invalid_argument, "sampler: recording has started with " + started.sampler.description() +
                                                   "; give " + sampler.description() +
                                                   " to the first configure call (tracing before logging)");
    }
  }
}

// Nothing where the SDK is disabled and nobody said where to send: that is no mistake then.
template <typename Options>
std::optional<DestinationConfig> resolve_destination(const Options& options, bool disabled,
                                                     config::Environment& environment) {
  try {
    return config::resolve_destination(options, environment);
  } catch (const Error& error) {
    if (!disabled || error.code() != ErrorCode::missing_endpoint) throw;
    return std::nullopt;
  }
}

void say(Calls& shared, DiagnosticLevel level, const std::vector<std::string>& warnings) {
  shared.diagnostics.set_level(level);
  for (const std::string& warning : warnings) shared.diagnostics.say_once(warning, DiagnosticLevel::warning, warning);
}

bool collects(const Config& config) {
  return std::any_of(config.destinations.begin(), config.destinations.end(),
                     [](const DestinationConfig& d) { return d.signal == Signal::metrics; });
}

template <typename Options>
void configure(const Options& options) {
  Calls& shared = calls();
  const HeldMessages held;
  const std::lock_guard lock(shared.mutex);
  Telemetry::Core& core = telemetry().core();

  config::Environment environment;
  Config base = config::resolve_base(options, environment);
  std::optional<DestinationConfig> destination = resolve_destination(options, base.disabled, environment);
  constexpr bool metrics = std::is_same_v<Options, MetricsOptions>;
  MetricConfig collection;
  if constexpr (metrics) {
    if (core.started() && collects(core.config())) {
      // What an earlier call has fixed stays where this one says nothing of it, whatever the environment says.
      config::Environment nothing([](const std::string&) { return std::nullopt; });
      collection = config::resolve_metrics(options, core.config().metrics, nothing);
    } else {
      collection = config::resolve_metrics(options, std::nullopt, environment);
    }
  }
  if (core.started()) {
    check_later(options, core.config());
    AnyMap own = config::additional_attributes(core.config().resource, options.service);
    if (destination) destination->resource_attributes = std::move(own);
  }

  std::vector<std::string> warnings = environment.warnings();
  (void)trace::parse_propagators(environment.text("OTEL_PROPAGATORS").value_or(""), warnings);
  say(shared, base.diagnostics, warnings);

  if (!core.started()) {
    base.error_handler = shared.handler;
    if (destination) base.destinations.push_back(*std::move(destination));
    base.metrics = std::move(collection);
    core.start(std::move(base));
    return;
  }
  if (metrics && destination) core.set_metrics(collection);
  if (destination) telemetry().add(*std::move(destination));
  if constexpr (requires { options.on_record; }) {
    if (options.on_record) core.set_on_record(options.on_record);
  }
  if constexpr (requires { options.logs_as_span_events; }) core.set_logs_as_span_events(options.logs_as_span_events);
}

auto values(const RecorderConfig& r) { return std::tie(r.place, r.max_bytes, r.ring_bytes); }
auto values(const JournalConfig& j) {
  return std::tie(j.max_bytes, j.memory_bytes, j.segment_bytes, j.keep_bytes, j.block_timeout, j.fsync, j.fsync_interval);
}
auto values(const Sampler& s) { return std::tie(s.kind, s.ratio); }
auto values(const Limits& l) {
  return std::tie(l.attribute_count, l.attribute_value_length, l.attribute_value_depth, l.event_count, l.link_count,
                  l.event_attribute_count, l.link_attribute_count);
}

// What the file says of the process must not contradict what an earlier call fixed.
void check_later(const config::ConfigFile& file, const Config& started) {
  const auto refuse = [](const char* key, const std::string& why) {
    return Error(ErrorCode::invalid_config, std::string("configure_from_file: ") + key + ": recording has started " + why +
                                                "; call configure_from_file first, or leave the key out of the file");
  };
  const Config& wanted = file.config;
  const bool elsewhere = !started.state_directory.empty() && wanted.state_directory != started.state_directory;
  if (file.state_directory && elsewhere) throw refuse("state.directory", "in '" + started.state_directory + "'");
  const auto check = [&](const char* key, bool given, bool same) {
    if (given && !same) throw refuse(key, "with another value");
  };
  check("recorder", file.recorder, values(wanted.recorder) == values(started.recorder));
  // A segment is as large as a ring needs it, whatever is given.
  JournalConfig journal = wanted.journal;
  journal.segment_bytes = started.journal.segment_bytes;
  check("journal", file.journal, values(journal) == values(started.journal));
  check("sampler", file.sampler, values(wanted.sampler) == values(started.sampler));
  check("limits", file.limits, values(wanted.span_limits) == values(started.span_limits) &&
                                   values(wanted.log_limits) == values(started.log_limits));
}

config::ConfigFile read_file(const std::string& path, config::Environment& environment, std::vector<std::string>& warnings) {
  config::ConfigFile file = config::read_config_file(path, environment);
  warnings = environment.warnings();
  (void)trace::parse_propagators(environment.text("OTEL_PROPAGATORS").value_or(""), warnings);
  warnings.insert(warnings.end(), file.warnings.begin(), file.warnings.end());
  return file;
}

}  // namespace

void configure_otel_tracing(const TracingOptions& options) { configure(options); }

void configure_otel_logging(const LoggingOptions& options) { configure(options); }

void configure_otel_metrics(const MetricsOptions& options) { configure(options); }

void configure_console_logging(const ConsoleOptions& options) { configure(options); }

void configure_from_file(const std::string& path) {
  Calls& shared = calls();
  const HeldMessages held;
  const std::lock_guard lock(shared.mutex);
  Telemetry::Core& core = telemetry().core();
  config::Environment environment;
  std::vector<std::string> warnings;
  config::ConfigFile file = read_file(path, environment, warnings);
  AnyMap own;
  if (core.started()) {
    check_later(file, core.config());
    own = config::additional_attributes(core.config().resource, file.resource);
  }

  say(shared, file.config.diagnostics, warnings);
  const auto prefer = [&] {
    if (file.propagators) trace::prefer_propagators(*file.propagators);
  };
  if (!core.started()) {
    file.config.error_handler = shared.handler;
    core.start(std::move(file.config));
    prefer();
    return;
  }
  for (DestinationConfig& destination : file.config.destinations) {
    AnyMap more = own;
    for (AnyEntry& attribute : destination.resource_attributes) more.push_back(std::move(attribute));
    destination.resource_attributes = std::move(more);
  }
  if (collects(file.config)) core.set_metrics(file.config.metrics);
  core.add(std::move(file.config.destinations));
  prefer();
  core.set_logs_as_span_events(file.config.logs_as_span_events);
}

Config read_config_file(const std::string& path, ConfigNotes* notes) {
  config::Environment environment;
  std::vector<std::string> warnings;
  config::ConfigFile file = read_file(path, environment, warnings);
  std::string problems;
  for (const DestinationConfig& destination : file.config.destinations) {
    try {
      delivery::check(destination);
    } catch (const Error& error) {
      const std::string name = path.empty() ? environment.text("WAYMARK_CONFIG").value_or("") : path;
      problems += (problems.empty() ? "" : "\n") + name + ": " + error.what();
    }
  }
  if (!problems.empty()) throw Error(ErrorCode::invalid_config, problems);
  if (notes != nullptr) {
    const auto variable = environment.text("OTEL_PROPAGATORS");
    std::vector<std::string> said;  // among the warnings already
    const auto chosen = variable ? trace::parse_propagators(*variable, said) : file.propagators.value_or(trace::Propagators());
    *notes = {.warnings = std::move(warnings),
              .propagators = trace::names_of(chosen),
              .given = std::move(file.given),
              .state_directory = file.directory_detected ? "" : file.config.state_directory};
  }
  return std::move(file.config);
}

void install_crash_handler() { journal::catch_crashes(); }

bool force_flush(std::chrono::nanoseconds timeout) { return telemetry().force_flush(timeout); }

bool shutdown(std::chrono::nanoseconds timeout) { return telemetry().shutdown(timeout); }

Stats stats() { return telemetry().stats(); }

Tracer tracer(std::string_view name, std::string_view version) { return telemetry().tracer(name, version); }

Logger logger(std::string_view name, std::string_view version) { return telemetry().logger(name, version); }

Meter meter(std::string_view name, std::string_view version) { return telemetry().meter(name, version); }

void set_error_handler(ErrorHandler handler) {
  Calls& shared = calls();
  const std::lock_guard lock(shared.mutex);
  shared.handler = handler;
  shared.diagnostics.set_handler(handler);
  telemetry().core().set_error_handler(std::move(handler));
}

}  // namespace waymark
