#include "config/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>

#include "config/text.h"
#include "waymark/configure.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

constexpr std::size_t kMaximumKeys = 4096;

std::string joined(const std::vector<std::string>& words, std::size_t from = 0) {
  std::string text;
  for (std::size_t i = from; i < words.size(); ++i) text += (i > from ? "." : "") + words[i];
  return text;
}

std::vector<std::string> split(std::string_view text, char by) {
  std::vector<std::string> words;
  for (;;) {
    const auto at = text.find(by);
    words.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return words;
    text.remove_prefix(at + 1);
  }
}

// Whether a key is the other, or stands below it.
bool is_below(std::string_view key, std::string_view prefix) {
  return key == prefix || (key.starts_with(prefix) && key.size() > prefix.size() && key[prefix.size()] == '.');
}

template <typename Number>
std::optional<Number> number_of(std::string_view text) {
  Number number{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string listed(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
  return all;
}

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t corner = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = corner + (a[i] == b[j] ? 0 : 1);
      corner = row[j + 1];
      row[j + 1] = std::min({replaced, corner + 1, row[j] + 1});
    }
  }
  return row.back();
}

// What stands there, where another kind was expected. Never a list's or a map's content.
std::string found(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null: return "nothing";
    case YamlNode::Kind::list: return "a list";
    case YamlNode::Kind::map: return "a map";
    case YamlNode::Kind::scalar: break;
  }
  return in_quotes(node.written.empty() ? node.text : node.written);
}

// Where {name: NAME, value: VALUE} has the two, in any order; nothing for another map.
std::optional<std::pair<std::size_t, std::size_t>> name_and_value(const YamlNode& item) {
  if (item.kind != YamlNode::Kind::map || item.keys.size() != 2) return std::nullopt;
  const std::size_t name = item.keys[0].text == "name" ? 0 : 1;
  if (item.keys[name].text != "name" || item.keys[1 - name].text != "value") return std::nullopt;
  const auto one = [](const YamlNode& node) { return node.kind == YamlNode::Kind::scalar || node.kind == YamlNode::Kind::null; };
  if (!one(item.items[0]) || !one(item.items[1])) return std::nullopt;
  return std::pair(name, 1 - name);
}

bool variable_name(std::string_view name) {
  return !name.empty() && !(name.front() >= '0' && name.front() <= '9') && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

// What an unquoted value is taken for.
AnyValue guessed(const YamlNode& node) {
  if (!node.quoted && node.text == node.written) {
    if (node.text == "true" || node.text == "false") return {node.text == "true"};
    if (const auto whole = number_of<std::int64_t>(node.text)) return {*whole};
    const bool digits = node.text.find_first_of("0123456789") != std::string::npos;  // "inf" and "nan" are words here
    if (const auto real = number_of<double>(node.text); real && digits) return {*real};
  }
  return {node.text};
}

}  // namespace

std::optional<std::string> with_variables(std::string_view text, const Environment& environment, std::string& problem) {
  std::string out;
  while (!text.empty()) {
    const auto dollar = text.find('$');
    out += text.substr(0, dollar);
    if (dollar == std::string_view::npos) break;
    text.remove_prefix(dollar);
    if (text.starts_with("$$")) {
      out += '$';
      text.remove_prefix(2);
      continue;
    }
    if (!text.starts_with("${")) {
      out += '$';
      text.remove_prefix(1);
      continue;
    }
    const auto end = text.find('}');
    if (end == std::string_view::npos) {
      problem = "a '${' without its '}'; write ${NAME}, ${NAME:-default}, or $$ for a dollar";
      return std::nullopt;
    }
    std::string_view name = text.substr(2, end - 2);
    if (name.find("${") != std::string_view::npos) {
      problem = "a '${' within '${...}'; a default is plain text, in which no variable can stand";
      return std::nullopt;
    }
    text.remove_prefix(end + 1);
    if (name.starts_with("env:")) name.remove_prefix(4);
    const auto dash = name.find(":-");
    const std::string variable(name.substr(0, dash));
    if (!variable_name(variable)) {
      problem = "a '${...}' that holds no variable's name; write ${NAME}, ${NAME:-default}, or $$ for a dollar";
      return std::nullopt;
    }
    if (const auto value = environment.text(variable.c_str())) {
      out += *value;
    } else if (dash != std::string_view::npos) {
      out += name.substr(dash + 2);
    } else {
      problem = "the variable " + variable + " is not set; set it, or write ${" + variable + ":-default}";
      return std::nullopt;
    }
  }
  return out;
}

std::string nearest(std::string_view text, const std::vector<std::string>& words) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, text.size() / 2) + 1;
  for (const std::string& word : words) {
    // Long words are nobody's slip of the pen, and comparing them takes time.
    if (word.size() > 64 || text.size() > 64) continue;
    const std::size_t d = distance(lower(text), lower(word));
    if (d < best_distance && d < std::max(text.size(), word.size())) {
      best_distance = d;
      best = word;
    }
  }
  return best;
}

// ---- Settings

Settings::Settings(const YamlNode& root, std::string file, std::initializer_list<std::string_view> sections,
                   const Environment& environment)
    : file_(std::move(file)), environment_(environment) {
  for (const auto section : sections) sections_.emplace(section);
  if (root.kind == YamlNode::Kind::map) {
    flatten(root, {});
  } else if (root.kind != YamlNode::Kind::null) {
    problem(root.place, "", found(root) + " instead of keys; expected for example 'service: NAME'");
  }
}

void Settings::flatten(const YamlNode& map, const std::vector<std::string>& words) {
  std::set<std::string> here;
  for (std::size_t i = 0; i < map.keys.size(); ++i) {
    const YamlNode& key = map.keys[i];
    const YamlNode& value = map.items[i];
    if (entries_.size() == kMaximumKeys) {
      problem(key.place, "", "there are more than " + std::to_string(kMaximumKeys) + " keys, which no configuration has");
      return;
    }
    if (key.kind != YamlNode::Kind::scalar || key.text.empty()) {
      problem(key.place, joined(words), "an empty key; expected a word");
      continue;
    }
    std::vector<std::string> path = words;
    // A member of a section may have dots in its name: then it stands in quotes.
    if (key.quoted && words.size() == 1 && sections_.contains(words[0])) {
      path.push_back(key.text);
    } else {
      for (std::string& word : split(key.text, '.')) path.push_back(std::move(word));
    }
    if (!here.insert(joined(path)).second) {
      const bool secret = joined(words).ends_with("headers");
      problem(key.place, secret ? joined(words) : joined(path), "is given twice in one map; keep one of the two");
      continue;
    }
    // A header's value is one text: no dot of its name ends in a map.
    const bool header = path.size() > 3 && path[2] == "headers" && sections_.contains(path[0]);
    if (value.kind == YamlNode::Kind::map && !value.keys.empty() && !header) {
      flatten(value, path);
    } else {
      add(std::move(path), key.place, value);
    }
  }
}

void Settings::add(std::vector<std::string> words, Place key_place, const YamlNode& value) {
  Entry entry{.section = {}, .id = {}, .key = {}, .key_place = key_place, .value = value};
  if (sections_.contains(words.front())) {
    entry.section = words.front();
    if (words.size() > 1) entry.id = words[1];
    entry.key = joined(words, 2);
  } else {
    entry.key = joined(words);
  }
  for (const Entry& other : entries_) {
    if (other.section != entry.section || other.id != entry.id || other.key != entry.key) continue;
    problem(key_place, shown_key(entry), "is given twice, here and in line " + std::to_string(other.key_place.line) +
                                             "; keep one of the two");
    return;
  }
  const std::string shown = shown_key(entry);
  const auto empty = is_below(entry.key, "headers") || is_below(entry.key, "resource") ? Empty::kept : Empty::left_out;
  bool good = true;
  if (entry.value.kind == YamlNode::Kind::scalar) good = substitute(entry.value, shown, empty);
  if (entry.value.kind == YamlNode::Kind::list) {
    for (YamlNode& item : entry.value.items) {
      if (item.kind == YamlNode::Kind::scalar) good = substitute(item, shown, empty) && good;
    }
  }
  if (!good) {
    entry.value = {.kind = YamlNode::Kind::null, .place = value.place};
    entry.refused = true;
  }
  entries_.push_back(std::move(entry));
}

bool Settings::Entry::empty() const noexcept {
  const bool map = value.kind == YamlNode::Kind::map && value.keys.empty();
  return !refused && (map || value.kind == YamlNode::Kind::null);
}

bool Settings::substitute(YamlNode& scalar, const std::string& key, Empty empty) {
  std::string what;
  scalar.written = scalar.text;
  auto text = with_variables(scalar.text, environment_, what);
  if (!text) {
    problem(scalar.place, key, what);
    return false;
  }
  scalar.text = *std::move(text);
  const bool meant = scalar.quoted && (scalar.written.empty() || empty == Empty::kept);
  if (scalar.text.empty() && !meant) scalar.kind = YamlNode::Kind::null;
  return true;
}

// A header's name may be the secret, where somebody forgot the space behind its colon.
std::string Settings::shown_key(const Entry& entry) const {
  std::string key = entry.key;
  constexpr std::string_view headers = "headers.";
  const auto at = key.find(headers);
  if (at != std::string::npos && (at == 0 || key[at - 1] == '.')) key.resize(at + headers.size() - 1);
  std::string shown = entry.section;
  for (const std::string& part : {entry.id, key}) {
    if (!part.empty()) shown += (shown.empty() ? "" : ".") + part;
  }
  return shown;
}

std::vector<Group> Settings::members(std::string_view section) {
  std::vector<Group> groups;
  for (Entry& entry : entries_) {
    if (entry.section != section) continue;
    if (entry.id.empty()) {
      entry.used = true;
      if (entry.value.kind == YamlNode::Kind::null || entry.value.kind == YamlNode::Kind::map) continue;
      problem(entry.value.place, entry.section, found(entry.value) + " instead of names with keys below them");
      continue;
    }
    if (entry.key.empty()) {  // a member with nothing below it
      entry.used = true;
      if (entry.value.kind != YamlNode::Kind::null && entry.value.kind != YamlNode::Kind::map) {
        problem(entry.value.place, shown_key(entry), found(entry.value) + " instead of keys and values");
        continue;
      }
      if (entry.refused) continue;
    }
    const bool known =
        std::any_of(groups.begin(), groups.end(), [&](const Group& group) { return group.id() == entry.id; });
    if (!known) groups.emplace_back(*this, entry.section, entry.id);
  }
  return groups;
}

std::vector<std::string> Settings::words_below(std::string_view section, std::string_view key) const {
  std::set<std::string> words;
  for (const std::string& known : known_) {
    const auto line = known.find('\n');
    if (std::string_view(known).substr(0, line) != section) continue;
    std::string_view whole = std::string_view(known).substr(line + 1);
    if (!key.empty()) {
      if (!is_below(whole, key) || whole == key) continue;
      whole.remove_prefix(key.size() + 1);
    }
    words.emplace(whole.substr(0, whole.find('.')));
  }
  if (section.empty() && key.empty()) words.insert(sections_.begin(), sections_.end());
  return {words.begin(), words.end()};
}

void Settings::refuse_unknown() {
  for (const Entry& entry : entries_) {
    if (entry.used) continue;
    const std::vector<std::string> words = words_below(entry.section, entry.key);
    const bool known = known_.contains(entry.section + "\n" + entry.key);
    if (!words.empty()) {
      // A section that says nothing has its defaults.
      if (entry.empty() || entry.refused) continue;
      problem(entry.value.place, shown_key(entry), found(entry.value) + " instead of keys; expected " + listed(words));
    } else if (known && entry.empty()) {
      if (entry.value.kind == YamlNode::Kind::map) problem(entry.value.place, shown_key(entry), "a map instead of one value");
    } else if (known) {
      problem(entry.key_place, shown_key(entry), "has no meaning beside what else is set here; leave it out");
    } else {
      problem(entry.key_place, shown_key(entry), "is no key that Waymark knows" + advice(entry));
    }
  }
}

std::string Settings::advice(const Entry& entry) const {
  // The first word that leads nowhere, and what could stand there instead.
  const std::vector<std::string> words = split(entry.key, '.');
  std::vector<std::string> choices;
  std::size_t at = 0;
  for (;; ++at) {
    choices = words_below(entry.section, joined({words.begin(), words.begin() + static_cast<std::ptrdiff_t>(at)}));
    const bool there = std::find(choices.begin(), choices.end(), words[at]) != choices.end();
    if (!there || at + 1 == words.size()) break;
  }
  const std::string near = nearest(words[at], choices);
  // Or it is a key that stands elsewhere.
  const std::string& last = words.back();
  std::size_t least = last.size() / 4 + 1;
  if (!near.empty()) least = std::min(least, distance(lower(words[at]), lower(near)));
  std::vector<std::string> elsewhere;
  for (const std::string& known : known_) {
    const auto line = known.find('\n');
    const std::string key = known.substr(line + 1);
    if (std::string_view(known).substr(0, line) != entry.section || key.size() > 64 || last.size() > 64) continue;
    const std::size_t d = distance(lower(last), lower(split(key, '.').back()));
    if (d < least) elsewhere.clear();
    if (d < least || (d == least && !elsewhere.empty())) elsewhere.push_back(key);
    least = std::min(least, d);
  }
  if (!elsewhere.empty()) {
    std::string all;
    for (const std::string& key : elsewhere) all += (all.empty() ? "'" : " or '") + key + "'";
    return "; did you mean " + all + "?";
  }
  if (!near.empty()) return "; did you mean '" + near + "'?";
  if (!choices.empty()) return "; known here are " + listed(choices);
  return "; leave it out";
}

void Settings::problem(Place place, std::string key, std::string what) {
  problems_.push_back({place, std::move(key), std::move(what)});
}

std::string Settings::located(Place place, const std::string& key, const std::string& what) const {
  std::string text = file_;
  if (place.line > 0) text += ":" + std::to_string(place.line) + ":" + std::to_string(place.column);
  text += ": ";
  if (!key.empty()) {
    for (const char c : key) text += (static_cast<unsigned char>(c) < ' ' || c == '\x7f') ? '?' : c;
    text += ": ";
  }
  return text + what;
}

void Settings::warning(Place place, const std::string& key, const std::string& what) {
  warnings_.push_back(located(place, key, what));
}

std::string Settings::problems() const {
  std::vector<Problem> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return a.place.line != b.place.line ? a.place.line < b.place.line : a.place.column < b.place.column;
  });
  std::string text;
  for (const Problem& problem : sorted) {
    text += (text.empty() ? "" : "\n") + located(problem.place, problem.key, problem.what);
  }
  return text;
}

// ---- Group

Group::Group(Settings& settings, std::string section, std::string id)
    : settings_(settings), section_(std::move(section)), id_(std::move(id)) {}

bool Group::has(std::string_view key) const {
  return std::any_of(settings_.entries_.begin(), settings_.entries_.end(), [&](const Settings::Entry& entry) {
    return entry.section == section_ && entry.id == id_ && is_below(entry.key, key) && !entry.empty();
  });
}

bool Group::gives(std::string_view key) const {
  return std::any_of(settings_.entries_.begin(), settings_.entries_.end(), [&](const Settings::Entry& entry) {
    return entry.section == section_ && entry.id == id_ && entry.key == key && !entry.empty();
  });
}

bool Group::refused(std::string_view key) const {
  return std::any_of(settings_.entries_.begin(), settings_.entries_.end(), [&](const Settings::Entry& entry) {
    return entry.section == section_ && entry.id == id_ && is_below(entry.key, key) && entry.refused;
  });
}

std::vector<std::string> Group::below(std::string_view key) const {
  std::vector<std::string> keys;
  for (const Settings::Entry& entry : settings_.entries_) {
    if (entry.section == section_ && entry.id == id_ && is_below(entry.key, key)) keys.push_back(entry.key);
  }
  return keys;
}

Place Group::place(std::string_view key) const {
  Place nearest_place;
  for (const Settings::Entry& entry : settings_.entries_) {
    if (entry.section != section_ || entry.id != id_) continue;
    if (entry.key == key) return entry.value.place;
    if (nearest_place.line == 0) nearest_place = entry.key_place;  // else the group's own
  }
  return nearest_place;
}

std::string Group::shown(std::string_view key) const {
  std::string text = section_;
  for (const std::string_view part : {std::string_view(id_), key}) {
    if (!part.empty()) text.append(text.empty() ? "" : ".").append(part);
  }
  return text;
}

void Group::problem(std::string_view key, const std::string& what) { problem(key, place(key), what); }

void Group::problem(std::string_view key, Place place, const std::string& what) {
  settings_.problem(place, shown(key), what);
}

void Group::warning(std::string_view key, const std::string& what) { settings_.warning(place(key), shown(key), what); }

std::optional<Text> Group::text(std::string_view key) {
  settings_.known_.insert(section_ + "\n" + std::string(key));
  for (Settings::Entry& entry : settings_.entries_) {
    if (entry.section != section_ || entry.id != id_ || entry.key != key) continue;
    const bool map = entry.value.kind == YamlNode::Kind::map;
    if (map && entry.empty()) return std::nullopt;  // of a section, perhaps, that says nothing: refuse_unknown() knows
    entry.used = true;
    if (entry.value.kind == YamlNode::Kind::null) return std::nullopt;
    if (entry.value.kind != YamlNode::Kind::scalar) {
      problem(key, found(entry.value) + " instead of one value");
      return std::nullopt;
    }
    return Text{entry.value.text, in_quotes(entry.value.written), entry.value.place, entry.value.written};
  }
  return std::nullopt;
}

std::optional<bool> Group::boolean(std::string_view key) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  const std::string word = lower(value->text);
  if (word == "true") return true;
  if (word == "false") return false;
  problem(key, value->shown + " is neither true nor false; write one of them");
  return std::nullopt;
}

std::optional<std::size_t> Group::choice(std::string_view key, std::initializer_list<std::string_view> words) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  const auto at = std::find(words.begin(), words.end(), lower(value->text));
  if (at != words.end()) return static_cast<std::size_t>(at - words.begin());
  std::string all;
  for (const auto word : words) all += (all.empty() ? "" : ", ") + std::string(word);
  problem(key, value->shown + " is not known; expected one of " + all);
  return std::nullopt;
}

std::optional<std::uint64_t> Group::integer(std::string_view key, std::uint64_t minimum, std::uint64_t maximum) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  const auto number = number_of<std::uint64_t>(value->text);
  if (number && *number >= minimum && *number <= maximum) return number;
  problem(key, value->shown + (number ? " is out of range" : " is no whole number") + "; expected " +
                   std::to_string(minimum) + " to " + std::to_string(maximum));
  return std::nullopt;
}

std::optional<double> Group::number(std::string_view key, double minimum, double maximum) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  const auto number = number_of<double>(value->text);
  if (number && *number >= minimum && *number <= maximum) return number;
  const auto plain = [](double limit) {
    std::array<char, 32> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), limit).ptr;
    return std::string(digits.data(), end);
  };
  problem(key, value->shown + (number ? " is out of range" : " is no number") + "; expected " + plain(minimum) + " to " +
                   plain(maximum));
  return std::nullopt;
}

std::optional<std::uint64_t> Group::bytes(std::string_view key, std::uint64_t minimum, std::uint64_t maximum) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  struct Unit {
    std::string_view name;
    std::uint64_t bytes;
  };
  static constexpr Unit units[] = {{"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}, {"kB", 1000},
                                   {"KB", 1000},        {"MB", 1000'000},    {"GB", 1000'000'000}, {"B", 1}, {"", 1}};
  const auto digits = std::min(value->text.find_first_not_of("0123456789"), value->text.size());
  const auto unit = std::find_if(std::begin(units), std::end(units), [&](const Unit& u) {
    return u.name == trimmed(std::string_view(value->text).substr(digits));
  });
  const auto number = number_of<std::uint64_t>(std::string_view(value->text).substr(0, digits));
  if (!number || unit == std::end(units)) {
    problem(key, value->shown + " is no size; write whole bytes, or for example 256KiB, 64MiB, 1GiB");
    return std::nullopt;
  }
  if (*number <= UINT64_MAX / unit->bytes) {
    const std::uint64_t size = *number * unit->bytes;
    if (size >= minimum && size <= maximum) return size;
  }
  problem(key, value->shown + " is out of range; expected " + std::to_string(minimum) + " to " + std::to_string(maximum) +
                   " bytes");
  return std::nullopt;
}

std::optional<std::chrono::nanoseconds> Group::duration(std::string_view key, Zero zero) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  // "0", and with any unit: as long as the same with other digits is a duration.
  std::string text = value->text;
  const bool nothing = zero == Zero::allowed && text.find('0') != std::string::npos && text.find_first_of("123456789") == std::string::npos;
  if (nothing) std::replace(text.begin(), text.end(), '0', '1');
  if (nothing && text == "1") return std::chrono::nanoseconds(0);
  try {
    const auto duration = parse_duration(text, "");
    return nothing ? std::chrono::nanoseconds(0) : duration;
  } catch (const Error& error) {
    const std::string message = error.what();  // ": 'VALUE' why"
    problem(key, value->shown + message.substr(2 + in_quotes(value->text).size()));
    return std::nullopt;
  }
}

std::optional<Severity> Group::severity(std::string_view key) {
  const auto level = choice(key, {"trace", "debug", "info", "warn", "warning", "error", "critical", "fatal"});
  static constexpr Severity levels[] = {Severity::trace,   Severity::debug, Severity::info,     Severity::warning,
                                        Severity::warning, Severity::error, Severity::critical, Severity::critical};
  if (!level) return std::nullopt;
  return levels[*level];
}

std::vector<Text> Group::list(std::string_view key) {
  settings_.known_.insert(section_ + "\n" + std::string(key));
  std::vector<Text> words;
  for (Settings::Entry& entry : settings_.entries_) {
    if (entry.section != section_ || entry.id != id_ || entry.key != key) continue;
    entry.used = true;
    if (entry.value.kind == YamlNode::Kind::scalar) return {{entry.value.text, in_quotes(entry.value.written), entry.value.place}};
    if (entry.value.kind == YamlNode::Kind::map) problem(key, "a map instead of a list");
    for (const YamlNode& item : entry.value.items) {
      if (item.kind == YamlNode::Kind::scalar) {
        words.push_back({item.text, in_quotes(item.written), item.place});
      } else {
        problem(key, item.place, found(item) + " instead of a word");
      }
    }
  }
  return words;
}

std::vector<Group::Header> Group::headers(std::string_view key) {
  settings_.known_.insert(section_ + "\n" + std::string(key));
  std::vector<Header> headers;
  constexpr const char* expected = "; expected a list of \"Name: value\" in quotes, or a map";
  for (Settings::Entry& entry : settings_.entries_) {
    if (entry.section != section_ || entry.id != id_ || !is_below(entry.key, key)) continue;
    entry.used = true;
    if (entry.key != key) {  // of a map
      if (entry.value.kind == YamlNode::Kind::list || entry.value.kind == YamlNode::Kind::map) {
        problem(key, entry.value.place, found(entry.value) + " instead of a header's value");
      } else {
        headers.push_back({entry.key.substr(key.size() + 1), entry.value.text, entry.key_place});
      }
      continue;
    }
    if (entry.value.kind == YamlNode::Kind::scalar) problem(key, std::string("one text") + expected);
    for (const YamlNode& item : entry.value.items) {
      // As the Collector's list has them.
      if (const auto pair = name_and_value(item)) {
        YamlNode value = item.items[pair->second];
        if (value.kind == YamlNode::Kind::scalar && !settings_.substitute(value, shown(key), Settings::Empty::kept)) continue;
        headers.push_back({item.items[pair->first].text, value.text, item.place});
        continue;
      }
      // "- Name: value" without quotes is a map of one.
      if (item.kind == YamlNode::Kind::map && item.keys.size() == 1 && item.items[0].kind != YamlNode::Kind::list &&
          item.items[0].kind != YamlNode::Kind::map) {
        YamlNode value = item.items[0];
        if (value.kind == YamlNode::Kind::scalar && !settings_.substitute(value, shown(key), Settings::Empty::kept)) continue;
        headers.push_back({item.keys[0].text, value.text, item.place});
        continue;
      }
      const auto colon = item.text.find(':');
      if (item.kind != YamlNode::Kind::scalar || colon == std::string::npos) {
        problem(key, item.place, std::string("an entry that is no \"Name: value\"") + expected);
        continue;
      }
      headers.push_back({std::string(trimmed(std::string_view(item.text).substr(0, colon))),
                         std::string(trimmed(std::string_view(item.text).substr(colon + 1))), item.place});
    }
  }
  return headers;
}

AnyMap Group::attributes(std::string_view key) {
  settings_.known_.insert(section_ + "\n" + std::string(key));
  AnyMap map;
  for (Settings::Entry& entry : settings_.entries_) {
    if (entry.section != section_ || entry.id != id_ || !is_below(entry.key, key)) continue;
    entry.used = true;
    if (entry.key == key) {
      if (entry.value.kind != YamlNode::Kind::null && entry.value.kind != YamlNode::Kind::map) {
        problem(key, found(entry.value) + " instead of attributes; expected 'name: value' below it");
      }
      continue;
    }
    const std::string name = entry.key.substr(key.size() + 1);
    if (entry.value.kind == YamlNode::Kind::scalar) map.push_back({name, guessed(entry.value)});
    if (entry.value.kind == YamlNode::Kind::list) {
      AnyArray array;
      for (const YamlNode& item : entry.value.items) {
        if (item.kind == YamlNode::Kind::scalar) {
          array.push_back(guessed(item));
        } else {
          problem(entry.key, item.place, found(item) + " instead of a value");
        }
      }
      map.push_back({name, {std::move(array)}});
    }
  }
  return map;
}

bool Group::pass_over(std::string_view key) {
  settings_.known_.insert(section_ + "\n" + std::string(key));
  bool any = false;
  for (Settings::Entry& entry : settings_.entries_) {
    if (entry.section != section_ || entry.id != id_ || !is_below(entry.key, key)) continue;
    entry.used = true;
    any = true;
  }
  return any;
}

}  // namespace waymark::config
