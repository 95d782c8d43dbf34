// The log records of a job that state directories keep.
//
// Hides: which records are a job's, and where an SDK keeps them where nobody says so.
// Threads: pure functions over files; live processes' directories may be read while they record.
// Failure: WrongUse where a directory that was named is not there; Error(corrupt | io).
#pragma once

#include <string>
#include <vector>

#include "waymark/job.h"
#include "waymark/reader.h"

namespace waymark::cli {

// The one that is named; else WAYMARK_STATE_DIR; else, below $XDG_STATE_HOME/waymark, that of OTEL_SERVICE_NAME; else every
// service's.
[[nodiscard]] std::vector<std::string> state_directories(const std::string& named);

// In the order of their times.
[[nodiscard]] std::vector<ReadLog> job_logs(const Job& job, const std::vector<std::string>& directories);

}  // namespace waymark::cli
