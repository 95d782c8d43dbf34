#include "cron.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "waymark/error.h"

namespace waymark::detail {
namespace {

constexpr std::int64_t kMinute = 60;
constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kHorizon = 40 * 366;  // days

constexpr std::array<std::string_view, 12> kMonths{"jan", "feb", "mar", "apr", "may", "jun",
                                                   "jul", "aug", "sep", "oct", "nov", "dec"};
constexpr std::array<std::string_view, 7> kWeekdays{"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

struct Field {
  const char* name;
  int least;
  int most;
  std::span<const std::string_view> words;
  int first_word;
};
constexpr std::array<Field, 5> kFields{{{"minute", 0, 59, {}, 0},
                                        {"hour", 0, 23, {}, 0},
                                        {"day of month", 1, 31, {}, 0},
                                        {"month", 1, 12, kMonths, 1},
                                        {"day of week", 0, 7, kWeekdays, 0}}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kNicknames{{{"@yearly", "0 0 1 1 *"},
                                                                                   {"@annually", "0 0 1 1 *"},
                                                                                   {"@monthly", "0 0 1 * *"},
                                                                                   {"@weekly", "0 0 * * 0"},
                                                                                   {"@daily", "0 0 * * *"},
                                                                                   {"@midnight", "0 0 * * *"},
                                                                                   {"@hourly", "0 * * * *"}}};

std::string lower(std::string_view text) {
  std::string small(text);
  for (char& c : small) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return small;
}

class FieldReader {
 public:
  FieldReader(const Field& field, std::string_view whole, std::string_view text)
      : field_(field), whole_(whole), text_(text) {}

  template <std::size_t N>
  void read(std::bitset<N>& into) {
    std::size_t start = 0;
    for (;;) {
      const std::size_t comma = std::min(text_.find(',', start), text_.size());
      item(text_.substr(start, comma - start), into);
      if (comma == text_.size()) return;
      start = comma + 1;
    }
  }

 private:
  [[noreturn]] void refuse(std::string_view part) const {
    std::string expected = std::to_string(field_.least) + " to " + std::to_string(field_.most);
    if (!field_.words.empty()) {
      expected += ", or " + std::string(field_.words.front()) + " to " + std::string(field_.words.back());
    }
    throw Error(ErrorCode::invalid_argument, "cron \"" + std::string(whole_.substr(0, 128)) + "\": " + field_.name + " \"" +
                                                 std::string(part.substr(0, 32)) + "\": expected " + expected +
                                                 ", a list, a range a-b, * or a step */n");
  }
  int number(std::string_view text, std::string_view part) const {
    const auto word = std::find(field_.words.begin(), field_.words.end(), text);
    if (word != field_.words.end()) return field_.first_word + static_cast<int>(word - field_.words.begin());
    return digits(text, field_.least, field_.most, part);
  }
  int digits(std::string_view text, int least, int most, std::string_view part) const {
    int value = 0;
    if (text.empty() || text.size() > 2) refuse(part);
    for (const char c : text) {
      if (c < '0' || c > '9') refuse(part);
      value = value * 10 + (c - '0');
    }
    if (value < least || value > most) refuse(part);
    return value;
  }
  template <std::size_t N>
  void item(std::string_view part, std::bitset<N>& into) const {
    std::string_view range = part;
    int step = 1;
    const std::size_t slash = part.find('/');
    if (slash != std::string_view::npos) {
      step = digits(part.substr(slash + 1), 1, 99, part);
      range = part.substr(0, slash);
    }
    int first = field_.least;
    int last = field_.most == 7 ? 6 : field_.most;
    if (range != "*") {
      const std::size_t dash = range.find('-');
      first = number(range.substr(0, dash), part);
      if (dash != std::string_view::npos) {
        last = number(range.substr(dash + 1), part);
        if (last == 0 && field_.most == 7) last = 7;  // fri-sun
        if (last < first) refuse(part);
      } else if (slash == std::string_view::npos) {
        last = first;
      }
    }
    for (int value = first; value <= last; value += step) into.set(static_cast<std::size_t>(value % 7 == 0 && field_.most == 7 ? 0 : value));
  }

  const Field& field_;
  std::string_view whole_;
  std::string_view text_;
};

std::int64_t floor_day(std::int64_t seconds) { return seconds >= 0 ? seconds / kDay : (seconds - kDay + 1) / kDay; }

}  // namespace

CronSchedule::CronSchedule(std::string_view text) {
  std::string small = lower(text);
  for (char& c : small) c = c == '\t' ? ' ' : c;
  const auto trim = [](std::string& s) {
    s.erase(0, std::min(s.find_first_not_of(' '), s.size()));
    s.erase(s.find_last_not_of(' ') + 1);
  };
  trim(small);
  for (const auto& [nickname, meaning] : kNicknames) {
    if (small == nickname) small = meaning;
  }
  std::vector<std::string_view> parts;
  for (std::size_t i = 0; i < small.size() && parts.size() <= kFields.size();) {
    const std::size_t end = std::min(small.find(' ', i), small.size());
    if (end > i) parts.push_back(std::string_view(small).substr(i, end - i));
    i = end + 1;
  }
  if (parts.size() != kFields.size()) {
    throw Error(ErrorCode::invalid_argument,
                "cron \"" + std::string(text.substr(0, 128)) +
                    "\": expected five fields (minute hour day-of-month month day-of-week), or @hourly, @daily, @weekly, "
                    "@monthly, @yearly");
  }
  FieldReader(kFields[0], text, parts[0]).read(minutes_);
  FieldReader(kFields[1], text, parts[1]).read(hours_);
  FieldReader(kFields[2], text, parts[2]).read(days_);
  FieldReader(kFields[3], text, parts[3]).read(months_);
  FieldReader(kFields[4], text, parts[4]).read(weekdays_);
  any_hour_ = parts[1][0] == '*';
  any_day_ = parts[2][0] == '*' || parts[4][0] == '*';
  if (!next_local(0)) {
    throw Error(ErrorCode::invalid_argument,
                "cron \"" + std::string(text.substr(0, 128)) + "\": expected a day that comes: its month has no such day");
  }
}

bool CronSchedule::has_day(std::int64_t day) const {
  const std::chrono::sys_days date{std::chrono::days(day)};
  const std::chrono::year_month_day ymd(date);
  if (!months_[static_cast<unsigned>(ymd.month())]) return false;
  const bool in_month = days_[static_cast<unsigned>(ymd.day())];
  const bool in_week = weekdays_[std::chrono::weekday(date).c_encoding()];
  return any_day_ ? in_month && in_week : in_month || in_week;
}

// The first minute after that the clock shows, as if there was no other than this zone's offset.
std::optional<std::int64_t> CronSchedule::next_local(std::int64_t after) const {
  std::int64_t day = floor_day(after);
  std::int64_t minute = (after - day * kDay) / kMinute + 1;
  for (const std::int64_t last = day + kHorizon; day <= last; ++day, minute = 0) {
    if (!has_day(day)) continue;
    for (; minute < kDay / kMinute; ++minute) {
      if (!hours_[static_cast<std::size_t>(minute / 60)]) {
        minute += 59 - minute % 60;
      } else if (minutes_[static_cast<std::size_t>(minute % 60)]) {
        return day * kDay + minute * kMinute;
      }
    }
  }
  return std::nullopt;
}

std::optional<std::int64_t> CronSchedule::next(std::int64_t after, const TimeZone& zone) const {
  constexpr std::int64_t kLastInstant = 95'000'000'000;
  if (after > kLastInstant || after < -kLastInstant) return std::nullopt;
  const std::int64_t horizon = after + kHorizon * kDay;
  TimeZone::Period period = zone.period(after);
  std::int64_t shown = after + period.offset;  // what the clock has shown already
  if (!any_hour_ && period.begin > -kLastInstant) {
    const TimeZone::Period before = zone.period(period.begin - 1);
    shown = std::max(shown, period.begin + before.offset - 1);
  }
  for (;;) {
    const auto local = next_local(shown);
    if (!local) return std::nullopt;
    if (period.end > horizon || *local - period.offset < period.end) return *local - period.offset;
    const TimeZone::Period following = zone.period(period.end);
    const std::int64_t shown_before = period.end + period.offset;
    const std::int64_t shown_after = period.end + following.offset;
    if (!any_hour_ && *local >= shown_before && *local < shown_after) return period.end;  // at the end of the gap
    shown = any_hour_ ? shown_after - 1 : std::max(shown_before, shown_after) - 1;
    period = following;
  }
}

}  // namespace waymark::detail
