// What `waymark config check` prints: a Config in the words of a configuration file, without its secrets.
//
// Hides: which fields matter to which output, and which of their values are secret.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>

#include "waymark/configure.h"

namespace waymark::cli {

// A header's value, and what stands behind a URL's "?", is "***". What was detected or drawn is left out: another process
// that reads the same file has its own.
[[nodiscard]] std::string config_yaml(const Config& config, const ConfigNotes& notes);
[[nodiscard]] std::string config_json(const Config& config, const ConfigNotes& notes);

}  // namespace waymark::cli
