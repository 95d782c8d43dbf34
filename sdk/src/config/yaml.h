// A configuration file's text as a tree in which everything knows its place.
//
// Hides: YAML (yaml-cpp's event parser), and what of it a configuration may not use: anchors and aliases, tags, several
//   documents, tabs as indentation, more than 1 MiB or 32 levels.
// Threads: pure functions.
// Failure: problems with their places; nothing of the text is repeated in them, since it may be a secret.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace waymark::config {

inline constexpr std::size_t kMaximumFileBytes = 1024 * 1024;

// Both count from 1; 0 where there is none.
struct Place {
  int line = 0;
  int column = 0;
};

struct Problem {
  Place place;
  std::string key;   // "tracer.otel.level"; empty where it is the text that is wrong
  std::string what;  // what was found, what was expected, what to do
};

struct YamlNode {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  Place place = {};
  bool quoted = false;                  // a scalar that is text whatever it looks like
  std::string text = {};                // of a scalar
  std::string written = {};             // the same before variables are put in place (settings.h)
  std::vector<YamlNode> items = {};     // of a list; of a map, its values in the order of the file
  std::vector<YamlNode> keys = {};      // of a map, one for each value
};

// Nothing where there are problems.
[[nodiscard]] std::optional<YamlNode> parse_yaml(std::string_view text, std::vector<Problem>& problems);

}  // namespace waymark::config
