// The free functions of configure.h, over the process-wide Telemetry: resolve, check, and only then change.

#include "waymark/configure.h"

#include <mutex>
#include <optional>
#include <utility>

#include "base/diagnostics.h"
#include "config/environment.h"
#include "config/resolve.h"
#include "config/resource.h"
#include "core.h"
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

template <typename Options>
void configure(const Options& options) {
  Calls& shared = calls();
  const std::lock_guard lock(shared.mutex);
  Telemetry::Core& core = telemetry().core();

  config::Environment environment;
  Config base = config::resolve_base(options, environment);
  std::optional<DestinationConfig> destination = resolve_destination(options, base.disabled, environment);
  if (core.started()) {
    check_later(options, core.config());
    AnyMap own = config::additional_attributes(core.config().resource, options.service);
    if (destination) destination->resource_attributes = std::move(own);
  }

  std::vector<std::string> warnings = environment.warnings();
  (void)trace::parse_propagators(environment.text("OTEL_PROPAGATORS").value_or(""), warnings);
  shared.diagnostics.set_level(base.diagnostics);
  for (const std::string& warning : warnings) shared.diagnostics.say_once(warning, DiagnosticLevel::warning, warning);

  if (!core.started()) {
    base.error_handler = shared.handler;
    if (destination) base.destinations.push_back(*std::move(destination));
    core.start(std::move(base));
    return;
  }
  if (destination) core.add(*std::move(destination));
  if constexpr (requires { options.on_record; }) {
    if (options.on_record) core.set_on_record(options.on_record);
  }
  if constexpr (requires { options.logs_as_span_events; }) core.set_logs_as_span_events(options.logs_as_span_events);
}

}  // namespace

void configure_otel_tracing(const TracingOptions& options) { configure(options); }

void configure_otel_logging(const LoggingOptions& options) { configure(options); }

void configure_console_logging(const ConsoleOptions& options) { configure(options); }

void install_crash_handler() { journal::catch_crashes(); }

bool force_flush(std::chrono::nanoseconds timeout) { return telemetry().force_flush(timeout); }

bool shutdown(std::chrono::nanoseconds timeout) { return telemetry().shutdown(timeout); }

Stats stats() { return telemetry().stats(); }

Tracer tracer(std::string_view name, std::string_view version) { return telemetry().tracer(name, version); }

Logger logger(std::string_view name, std::string_view version) { return telemetry().logger(name, version); }

void set_error_handler(ErrorHandler handler) {
  Calls& shared = calls();
  const std::lock_guard lock(shared.mutex);
  shared.handler = handler;
  shared.diagnostics.set_handler(handler);
  telemetry().core().set_error_handler(std::move(handler));
}

}  // namespace waymark
