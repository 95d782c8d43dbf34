// What `waymark config check` prints: a Config in the words of a configuration file, without its secrets.
//
// Hides: which fields matter to which output, and which of their values are secret.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>

#include "waymark/config.h"

namespace waymark::cli {

// A header's value, and what stands behind a URL's "?", is "***".
[[nodiscard]] std::string config_yaml(const Config& config);
[[nodiscard]] std::string config_json(const Config& config);

}  // namespace waymark::cli
