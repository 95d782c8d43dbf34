// How far a time zone's clocks are from UTC, and when that changes: from the system's tz database.
//
// Hides: TZif (RFC 8536) with its rule for the years to come, and where the database lies.
// Threads: a TimeZone is a value; find() reads a file.
// Failure: Error(invalid_argument) for a name that can't be one, Error(not_found) for one that is not in the database,
//   Error(corrupt) for bytes that are no time zone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace waymark::detail {

class TimeZone {
 public:
  // UTC.
  TimeZone() = default;
  // By its name in the database, like "Europe/Vienna"; "UTC" needs none.
  [[nodiscard]] static TimeZone find(std::string_view name);
  [[nodiscard]] static TimeZone parse(std::string_view tzif);

  // Seconds since 1970; an offset is added to UTC.
  struct Period {
    std::int64_t begin = INT64_MIN;
    std::int64_t end = INT64_MAX;  // one past
    std::int32_t offset = 0;
  };
  // The one that contains this instant. Beyond the year 5000 nothing changes any more.
  [[nodiscard]] Period period(std::int64_t instant) const;

 private:
  struct Change {  // in a year: a day of it, and seconds from that day's midnight
    char kind = 'M';  // M: month, week and weekday; J: day 1 to 365, never 29 February; 0: day 0 to 365
    int month = 0;
    int week = 0;
    int day = 0;
    std::int32_t time = 0;
  };
  struct Rule {  // for ever after the last transition
    std::int32_t standard = 0;
    std::int32_t summer = 0;
    bool changes = false;
    Change begin;  // of summer
    Change end;
  };
  struct Transition {
    std::int64_t at;
    std::int32_t offset;  // from then on
  };
  class RuleReader;
  [[nodiscard]] static std::int64_t instant(const Change& change, int year, std::int32_t offset_before);
  [[nodiscard]] Period by_rule(std::int64_t instant, std::int64_t from) const;

  std::int32_t first_offset_ = 0;
  std::vector<Transition> transitions_;
  std::optional<Rule> rule_;
};

}  // namespace waymark::detail
