// Which of the records that a state directory keeps belong to a job.
//
// Hides: how a record tells: by the job's id, by the span it lies in, by the job's trace.
// Threads: pure functions.
// Failure: none.
#pragma once

#include "waymark/job.h"
#include "waymark/reader.h"

namespace waymark::detail {

// Each once, by time. A record of the job is one that names it, one within a span of the job, and, in a trace of which
// nothing names another job, one within a span that was not kept or is still open.
[[nodiscard]] ReadTelemetry records_of(ReadTelemetry all, const Job& job);

}  // namespace waymark::detail
