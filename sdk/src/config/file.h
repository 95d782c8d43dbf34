// A configuration file: Waymark's own words, Stalwart's `tracer.<id>`, and the OpenTelemetry Collector's `exporters`.
//
// Hides: what each word of the three means for a Config, and which words are taken note of and nothing more.
// Threads: one thread at a time (Environment).
// Failure: Error(invalid_config) that lists every problem with its place; no message holds a secret.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/propagators.h"
#include "config/environment.h"
#include "waymark/config.h"

namespace waymark::config {

struct ConfigFile {
  Config config;  // the environment before the file before the defaults; and the file's destinations
  std::optional<trace::Propagators> propagators;
  Resource given;  // of the config's resource, what was neither detected nor drawn
  bool directory_detected = false;  // the config's state directory follows from the program's name
  std::vector<std::string> warnings;  // each with its place
  // What the file itself says of the process: recording that has started can't go on with another.
  Resource resource;                  // as it is in `config`
  bool state_directory = false;
  bool recorder = false;
  bool journal = false;
  bool sampler = false;
  bool limits = false;
};

// Of text, which stands in `file`.
[[nodiscard]] ConfigFile parse_config_file(std::string_view text, const std::string& file, Environment& environment);
// The path as it is given; empty: the variable WAYMARK_CONFIG.
[[nodiscard]] ConfigFile read_config_file(const std::string& path, Environment& environment);

}  // namespace waymark::config
