// The process's own numbers, by OpenTelemetry's `process.*` conventions.
//
// Hides: /proc.
// Threads: looked at by the collection's thread.
// Failure: what can't be read is not told.
#pragma once

#include "waymark/metric.h"

namespace waymark::metric {

// Once for each Telemetry.
void observe_process(const Meter& meter);

}  // namespace waymark::metric
