// From a configure call's options and the environment to a Config: arguments beat variables beat defaults.
//
// Hides: every variable's name and precedence, and every default that depends on the environment.
// Threads: one thread at a time (Environment).
// Failure: Error for options, endpoints and OTEL_EXPORT_INTERVAL; what is wrong with OpenTelemetry's own variables is
//   told in environment.warnings() and treated as unset. Nothing of the process is changed.
#pragma once

#include <string>
#include <string_view>

#include "config/environment.h"
#include "waymark/configure.h"

namespace waymark::config {

// Everything but destinations: what the first configure call starts recording with.
[[nodiscard]] Config resolve_base(const TracingOptions& options, Environment& environment);
[[nodiscard]] Config resolve_base(const LoggingOptions& options, Environment& environment);
[[nodiscard]] Config resolve_base(const MetricsOptions& options, Environment& environment);
[[nodiscard]] Config resolve_base(const ConsoleOptions& options, Environment& environment);

// From a configuration file, where the environment comes before it. `below` is what the file says, with its destinations;
// its resource is made from `resource`.
[[nodiscard]] Config resolve_file_base(Config below, const Resource& resource, Environment& environment);

// The destination that the call adds.
[[nodiscard]] DestinationConfig resolve_destination(const TracingOptions& options, Environment& environment);
[[nodiscard]] DestinationConfig resolve_destination(const LoggingOptions& options, Environment& environment);
[[nodiscard]] DestinationConfig resolve_destination(const MetricsOptions& options, Environment& environment);
[[nodiscard]] DestinationConfig resolve_destination(const ConsoleOptions& options, Environment& environment);

// How metrics are collected: the options, then the environment, then what was said before; null: nothing.
[[nodiscard]] MetricConfig resolve_metrics(const MetricsOptions& options, std::optional<MetricConfig> said, Environment& environment);

// The batches that Preset::s2 asks for, where nobody asks for others.
void use_s2_batches(DestinationConfig& destination);

// An option's directory as Config has it: absolute, without "." and ".."; empty where the option is.
[[nodiscard]] std::string absolute_directory(std::string_view path);

}  // namespace waymark::config
