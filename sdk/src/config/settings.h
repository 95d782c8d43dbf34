// The keys and values of a configuration file, looked up by name and read by type.
//
// Hides: that dotted and nested keys are the same, ${VAR}, how values are written, which keys nobody asked for.
// Threads: one thread at a time.
// Failure: none at the call: a value that makes no sense is a problem and counts as left out, so that all problems of a
//   file are found at once. No problem shows a value that came from a variable, or a header's.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/environment.h"
#include "config/yaml.h"
#include "waymark/config.h"

namespace waymark::config {

// A text and where it stands.
struct Text {
  std::string text;   // with variables in place
  std::string shown;  // as it is written
  Place place;
  std::string written = {};  // as `shown`, whole and without quotes; empty where it stands in no file
};

class Settings;

// The keys below one place of the file: all of it, or one member of a section (`tracer.<id>`).
class Group {
 public:
  Group(Settings& settings, std::string section, std::string id);

  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  // Whether there is a value at the key, or at one below it; one that makes no sense is one.
  [[nodiscard]] bool has(std::string_view key) const;
  // At the key itself.
  [[nodiscard]] bool gives(std::string_view key) const;
  // Whether a value at the key, or at one below it, was found to be missing (a variable), which has been said.
  [[nodiscard]] bool refused(std::string_view key) const;
  [[nodiscard]] Place place(std::string_view key) const;  // of the key's value
  // The whole keys at and below this one, whatever their values.
  [[nodiscard]] std::vector<std::string> below(std::string_view key) const;

  // Each: nothing where the key is left out, null, or makes no sense.
  [[nodiscard]] std::optional<Text> text(std::string_view key);
  [[nodiscard]] std::optional<bool> boolean(std::string_view key);
  [[nodiscard]] std::optional<std::size_t> choice(std::string_view key, std::initializer_list<std::string_view> words);
  [[nodiscard]] std::optional<std::uint64_t> integer(std::string_view key, std::uint64_t minimum, std::uint64_t maximum);
  [[nodiscard]] std::optional<double> number(std::string_view key, double minimum, double maximum);
  // A whole number of bytes, or one with KiB, MiB, GiB, kB, MB, GB.
  [[nodiscard]] std::optional<std::uint64_t> bytes(std::string_view key, std::uint64_t minimum, std::uint64_t maximum);
  enum class Zero { refused, allowed };
  [[nodiscard]] std::optional<std::chrono::nanoseconds> duration(std::string_view key, Zero zero = Zero::refused);
  [[nodiscard]] std::optional<Severity> severity(std::string_view key);
  // A list, or one word.
  [[nodiscard]] std::vector<Text> list(std::string_view key);
  // A list of "Name: value" or of {name: NAME, value: VALUE}, or a map. Not yet checked.
  struct Header {
    std::string name;
    std::string value;
    Place place;
  };
  [[nodiscard]] std::vector<Header> headers(std::string_view key);
  // Everything below the key: text where it is in quotes or has a variable, else what it looks like.
  [[nodiscard]] AnyMap attributes(std::string_view key);
  // Everything at and below the key is taken note of, and nothing done with it. Whether there was anything.
  bool pass_over(std::string_view key);

  void problem(std::string_view key, const std::string& what);
  void problem(std::string_view key, Place place, const std::string& what);
  void warning(std::string_view key, const std::string& what);

 private:
  friend class Settings;
  std::string shown(std::string_view key) const;

  Settings& settings_;
  std::string section_;
  std::string id_;
};

class Settings {
 public:
  // The members of `sections` are groups of their own.
  Settings(const YamlNode& root, std::string file, std::initializer_list<std::string_view> sections,
           const Environment& environment);
  [[nodiscard]] Group top() { return Group(*this, {}, {}); }
  // In the order of the file.
  [[nodiscard]] std::vector<Group> members(std::string_view section);

  // Makes a problem of every key that nobody asked for, with the nearest that somebody did.
  void refuse_unknown();
  void problem(Place place, std::string key, std::string what);
  void warning(Place place, const std::string& key, const std::string& what);

  // In the order of the file, each "FILE:LINE:COLUMN: KEY: WHAT".
  [[nodiscard]] std::string problems() const;
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return warnings_; }

 private:
  friend class Group;
  struct Entry {
    std::string section;  // empty: none
    std::string id;
    std::string key;      // the rest, words joined with dots
    Place key_place;
    YamlNode value;       // a scalar, null, a list, or an empty map; variables are in place
    bool refused = false; // its value is missing, which was said: it counts as left out
    bool used = false;

    [[nodiscard]] bool empty() const noexcept;  // nothing stands there that anybody could have meant
  };
  void flatten(const YamlNode& map, const std::vector<std::string>& words);
  void add(std::vector<std::string> words, Place key_place, const YamlNode& value);
  // Puts variables in place; false where one is missing, which is a problem then. What becomes empty by that counts as left
  // out, unless empty text means something there.
  enum class Empty { left_out, kept };
  bool substitute(YamlNode& scalar, const std::string& key, Empty empty);
  // What may stand below the key; below none, what a group of this section may begin with. Sorted.
  [[nodiscard]] std::vector<std::string> words_below(std::string_view section, std::string_view key) const;
  // What somebody who wrote this key may have meant, or could write instead; begins with "; ".
  [[nodiscard]] std::string advice(const Entry& entry) const;
  [[nodiscard]] std::string shown_key(const Entry& entry) const;
  [[nodiscard]] std::string located(Place place, const std::string& key, const std::string& what) const;

  std::string file_;
  std::set<std::string, std::less<>> sections_;
  const Environment& environment_;
  std::vector<Entry> entries_;
  std::set<std::string, std::less<>> known_;  // "section\nkey", as asked for
  std::vector<Problem> problems_;
  std::vector<std::string> warnings_;
};

// "${VAR}", "${VAR:-default}" (with or without "env:" before VAR) and "$$" replaced. An empty variable counts as unset.
// Nothing where a variable is missing or the syntax is wrong; `problem` says so.
[[nodiscard]] std::optional<std::string> with_variables(std::string_view text, const Environment& environment,
                                                        std::string& problem);

// The word of `words` that `text` may have been meant for; empty where none is near.
[[nodiscard]] std::string nearest(std::string_view text, const std::vector<std::string>& words);

}  // namespace waymark::config
