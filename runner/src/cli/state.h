// What `waymark status` and `waymark purge` print.
//
// Hides: the tables, the JSON, and the words for sizes and ages.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>
#include <vector>

#include "waymark/reader.h"

namespace waymark::cli {

// For people; `now` is what ages are counted from. Colors where `color`.
[[nodiscard]] std::string show_status(const StateStatus& status, Timestamp now, bool color);
// The same as one JSON object; times as nanoseconds since 1970.
[[nodiscard]] std::string status_json(const StateStatus& status, Timestamp now);

// One line for each subdirectory: what was done, or would be.
[[nodiscard]] std::string show_purged(const Purged& purged, bool only_look);

// "1.5 MiB"
[[nodiscard]] std::string human_bytes(std::uint64_t bytes);

}  // namespace waymark::cli
