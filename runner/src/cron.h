// When a cron expression's ticks are.
//
//   minute hour day-of-month month day-of-week      0 6 * * mon-fri      */15 8-18 * * *      30 2 1,15 * *      @hourly
//
// Where both days are restricted, either of them will do; a field that begins with * restricts nothing. 7 is Sunday, too.
//
// Clocks that are put forward or back: a schedule whose hours begin with * follows the clock that is shown, so that an
// hour that is left out has no ticks, and one that comes twice has them twice. A schedule of fixed hours has as many
// ticks as on any other day: what falls into an hour that is left out is one tick at its end, and an hour that comes
// twice has them the first time.
//
// Hides: the syntax, and the search.
// Threads: a CronSchedule is a value.
// Failure: Error(invalid_argument) that names the field, what was found and what is expected.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string_view>

#include "time_zone.h"

namespace waymark::detail {

class CronSchedule {
 public:
  explicit CronSchedule(std::string_view text);
  // The first one after an instant; seconds since 1970. None: in forty years there is none.
  [[nodiscard]] std::optional<std::int64_t> next(std::int64_t after, const TimeZone& zone) const;

 private:
  [[nodiscard]] std::optional<std::int64_t> next_local(std::int64_t after) const;
  [[nodiscard]] bool has_day(std::int64_t day) const;

  std::bitset<60> minutes_;
  std::bitset<24> hours_;
  std::bitset<32> days_;      // 1 to 31
  std::bitset<13> months_;    // 1 to 12
  std::bitset<7> weekdays_;   // from Sunday
  bool any_day_ = false;      // one of the two begins with *: both must fit, and that one does
  bool any_hour_ = false;
};

}  // namespace waymark::detail
