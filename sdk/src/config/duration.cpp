// Durations as people write them: "5s", "1m30s".

#include <array>
#include <cstdint>

#include "config/text.h"
#include "waymark/configure.h"
#include "waymark/error.h"

namespace waymark {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t nanoseconds;
};
constexpr std::array kUnits{Unit{"d", 86'400'000'000'000}, Unit{"h", 3'600'000'000'000}, Unit{"m", 60'000'000'000},
                            Unit{"s", 1'000'000'000},      Unit{"ms", 1'000'000},        Unit{"us", 1'000}};
constexpr std::int64_t kYear = 365 * kUnits[0].nanoseconds;  // the longest that is accepted; far from overflow

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

}  // namespace

std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view key) {
  const auto refuse = [&](std::string_view why) {
    return Error(ErrorCode::invalid_duration, std::string(key) + ": " + config::in_quotes(text) + " " +
                                                  std::string(why) +
                                                  "; write for example '5s', '250ms', '1m30s', '1.5h' or '1d2h3m4s'");
  };

  std::string_view rest = config::trimmed(text);
  if (rest.empty()) throw refuse("is no duration");
  std::int64_t total = 0;
  std::size_t next_unit = 0;  // units come largest first, each at most once
  while (!rest.empty()) {
    std::size_t length = 0;
    std::size_t points = 0;
    while (length < rest.size() && (is_digit(rest[length]) || rest[length] == '.')) points += rest[length++] == '.';
    const std::string_view number = rest.substr(0, length);
    if (number.size() == points || points > 1) throw refuse("is no duration: a number and a unit are expected");
    rest.remove_prefix(length);

    length = 0;
    while (length < rest.size() && !is_digit(rest[length]) && rest[length] != '.') ++length;
    const std::string_view name = rest.substr(0, length);
    rest.remove_prefix(length);
    if (name.empty()) throw refuse("has a number without a unit (d, h, m, s, ms, us)");
    std::size_t unit = 0;
    while (unit < kUnits.size() && kUnits[unit].name != name) ++unit;
    if (unit == kUnits.size()) throw refuse("has an unknown unit (known are d, h, m, s, ms, us, in lower case)");
    if (unit < next_unit) throw refuse("has its units in the wrong order or twice (d, h, m, s, ms, us)");
    next_unit = unit + 1;

    // Digits one by one, so that "1.0009s" is exact; those worth less than a nanosecond are cut.
    std::int64_t whole = 0;
    std::int64_t place = kUnits[unit].nanoseconds;
    bool fraction = false;
    for (const char c : number) {
      if (c == '.') {
        fraction = true;
      } else if (fraction) {
        place /= 10;
        total += place * (c - '0');
      } else {
        whole = whole * 10 + (c - '0');
        if (whole > kYear / kUnits[unit].nanoseconds) throw refuse("is longer than a year");
      }
    }
    total += whole * kUnits[unit].nanoseconds;
    if (total > kYear) throw refuse("is longer than a year");
  }
  if (total == 0) throw refuse("is zero: it must be longer");
  return std::chrono::nanoseconds(total);
}

}  // namespace waymark
