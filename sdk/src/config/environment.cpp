#include "config/environment.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "config/text.h"

namespace waymark::config {

Environment::Environment(Lookup lookup) : lookup_(std::move(lookup)) {}

Environment::Lookup Environment::process_lookup() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (!value) return std::nullopt;
    return std::string(value);
  };
}

std::optional<std::string> Environment::text(const char* name) const {
  const auto value = lookup_(name);
  if (!value) return std::nullopt;
  const auto text = trimmed(*value);
  if (text.empty()) return std::nullopt;
  return std::string(text);
}

std::optional<Environment::Found> Environment::first(Names names) const {
  for (const char* name : names) {
    if (auto value = text(name)) return Found{name, *std::move(value)};
  }
  return std::nullopt;
}

void Environment::warn(std::string message) {
  const bool known = std::find(warnings_.begin(), warnings_.end(), message) != warnings_.end();
  if (!known) warnings_.push_back(std::move(message));
}

void Environment::warn(const Found& found, const std::string& expected) {
  warn(found.name + ": " + in_quotes(found.text) + " is ignored; write " + expected);
}

bool Environment::flag(const char* name) {
  const auto value = text(name);
  if (!value) return false;
  const std::string word = lower(*value);
  if (word != "true" && word != "false") warn({name, *value}, "true or false; anything else means false");
  return word == "true";
}

std::optional<std::uint64_t> Environment::integer(Names names, std::uint64_t minimum, std::uint64_t maximum) {
  for (const char* name : names) {
    const auto value = text(name);
    if (!value) continue;
    std::uint64_t number = 0;
    const auto [end, problem] = std::from_chars(value->data(), value->data() + value->size(), number);
    if (problem == std::errc() && end == value->data() + value->size() && number >= minimum && number <= maximum) {
      return number;
    }
    warn({name, *value}, "a whole number from " + std::to_string(minimum) + " to " + std::to_string(maximum));
  }
  return std::nullopt;
}

std::optional<std::chrono::milliseconds> Environment::milliseconds(Names names) {
  constexpr std::chrono::milliseconds year = std::chrono::hours(24 * 365);
  const auto number = integer(names, 0, static_cast<std::uint64_t>(year.count()));
  if (!number) return std::nullopt;
  return std::chrono::milliseconds(*number);
}

std::optional<double> Environment::ratio(const char* name) {
  const auto value = text(name);
  if (!value) return std::nullopt;
  double number = 0;
  const auto [end, problem] = std::from_chars(value->data(), value->data() + value->size(), number);
  // "nan" is read as a number, and is in no range.
  if (problem == std::errc() && end == value->data() + value->size() && number >= 0 && number <= 1) return number;
  warn({name, *value}, "a number from 0 to 1, for example 0.1");
  return std::nullopt;
}

std::optional<std::size_t> Environment::choice(Names names, std::initializer_list<std::string_view> choices) {
  for (const char* name : names) {
    const auto value = text(name);
    if (!value) continue;
    const auto at = std::find(choices.begin(), choices.end(), lower(*value));
    if (at != choices.end()) return static_cast<std::size_t>(at - choices.begin());
    std::string known;
    for (const auto choice : choices) known += (known.empty() ? "" : ", ") + std::string(choice);
    warn({name, *value}, "one of " + known);
  }
  return std::nullopt;
}

}  // namespace waymark::config
