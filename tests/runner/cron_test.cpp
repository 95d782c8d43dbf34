// Ticks of cron expressions, and the time zones that they are told in.
#include "cron.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "time_zone.h"
#include "waymark/error.h"

namespace waymark::detail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string big_endian(std::int64_t value, int width) {
  std::string bytes;
  for (int i = width - 1; i >= 0; --i) bytes += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
  return bytes;
}


std::string header(char version, std::size_t times, std::size_t types) {
  std::string bytes = "TZif";
  bytes += version;
  bytes += std::string(15, '\0');
  for (const std::size_t count : {std::size_t{0}, std::size_t{0}, std::size_t{0}, times, types, std::size_t{4}}) {
    bytes += big_endian(static_cast<std::int64_t>(count), 4);
  }
  return bytes;
}

std::string block(const std::vector<std::pair<std::int64_t, int>>& transitions, const std::vector<std::int32_t>& offsets,
                  int width) {
  std::string bytes;
  for (const auto& [at, type] : transitions) bytes += big_endian(at, width);
  for (const auto& [at, type] : transitions) bytes += static_cast<char>(type);
  for (const std::int32_t offset : offsets) bytes += big_endian(offset, 4) + std::string(2, '\0');
  return bytes + "ABC" + '\0';
}

std::string tzif(const std::string& rule, const std::vector<std::pair<std::int64_t, int>>& transitions = {},
                 const std::vector<std::int32_t>& offsets = {0}) {
  return header('2', 0, 1) + block({}, {0}, 4) + header('2', transitions.size(), offsets.size()) +
         block(transitions, offsets, 8) + "\n" + rule + "\n";
}

TimeZone zone(const std::string& rule) { return TimeZone::parse(tzif(rule)); }
const TimeZone& vienna() {
  static const TimeZone z = zone("CET-1CEST,M3.5.0,M10.5.0/3");
  return z;
}
const TimeZone& new_york() {
  static const TimeZone z = zone("EST5EDT,M3.2.0,M11.1.0");
  return z;
}

// "2026-03-29 01:00" in UTC.
std::int64_t instant(const std::string& text) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  EXPECT_EQ(std::sscanf(text.c_str(), "%d-%d-%d %d:%d", &year, &month, &day, &hour, &minute), 5) << text;
  const std::chrono::sys_days date{std::chrono::year(year) / month / day};
  return date.time_since_epoch().count() * 86'400 + hour * 3600 + minute * 60;
}
std::string text(std::int64_t at) {
  const auto day = at >= 0 ? at / 86'400 : (at - 86'399) / 86'400;
  const std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days(day)}};
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%04d-%02u-%02u %02d:%02d", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(at - day * 86'400) / 3600, static_cast<int>(at - day * 86'400) / 60 % 60);
  return buffer;
}
std::vector<std::string> ticks(const std::string& cron, const std::string& after, std::size_t count,
                               const TimeZone& zone = {}) {
  const CronSchedule schedule(cron);
  std::vector<std::string> all;
  std::int64_t at = instant(after);
  while (all.size() < count) {
    const auto next = schedule.next(at, zone);
    if (!next) break;
    EXPECT_GT(*next, at);
    all.push_back(text(*next));
    at = *next;
  }
  return all;
}

// ------ the syntax

TEST(CronTest, FindsTheTicksOfEachField) {
  struct Row {
    const char* cron;
    const char* after;
    std::vector<std::string> next;
  };
  const Row rows[] = {
      {"* * * * *", "2026-01-01 00:00", {"2026-01-01 00:01", "2026-01-01 00:02"}},
      {"0 * * * *", "2026-01-01 00:00", {"2026-01-01 01:00", "2026-01-01 02:00"}},
      {"*/15 * * * *", "2026-01-01 00:50", {"2026-01-01 01:00", "2026-01-01 01:15"}},
      {"7-59/20 * * * *", "2026-01-01 00:00", {"2026-01-01 00:07", "2026-01-01 00:27", "2026-01-01 00:47"}},
      {"5/20 * * * *", "2026-01-01 00:00", {"2026-01-01 00:05", "2026-01-01 00:25", "2026-01-01 00:45"}},
      {"1,2,50-52 3 * * *", "2026-01-01 00:00",
       {"2026-01-01 03:01", "2026-01-01 03:02", "2026-01-01 03:50", "2026-01-01 03:51", "2026-01-01 03:52",
        "2026-01-02 03:01"}},
      {"30 6 * * mon-fri", "2026-01-02 12:00", {"2026-01-05 06:30", "2026-01-06 06:30"}},
      {"0 0 * * SUN", "2026-01-01 00:00", {"2026-01-04 00:00", "2026-01-11 00:00"}},
      {"0 0 * * 7", "2026-01-01 00:00", {"2026-01-04 00:00", "2026-01-11 00:00"}},
      {"0 0 * * 5-7", "2026-01-01 00:00", {"2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00"}},
      {"0 0 * * fri-sun", "2026-01-01 00:00", {"2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00"}},
      {"0 0 1 jan,Jul *", "2026-01-01 00:00", {"2026-07-01 00:00", "2027-01-01 00:00"}},
      {"0 0 31 * *", "2026-01-31 00:00", {"2026-03-31 00:00", "2026-05-31 00:00"}},
      {"0 12 29 2 *", "2026-01-01 00:00", {"2028-02-29 12:00", "2032-02-29 12:00"}},
      {"0 12 29 2 *", "2096-03-01 00:00", {"2104-02-29 12:00"}},
      // Both days restricted: either will do. One that begins with *: both must fit.
      {"0 0 13 * fri", "2026-01-01 00:00", {"2026-01-02 00:00", "2026-01-09 00:00", "2026-01-13 00:00"}},
      {"0 0 */2 * mon", "2026-01-01 00:00", {"2026-01-05 00:00", "2026-01-19 00:00"}},
      {"@hourly", "2026-01-01 00:30", {"2026-01-01 01:00", "2026-01-01 02:00"}},
      {"@daily", "2026-01-01 00:30", {"2026-01-02 00:00", "2026-01-03 00:00"}},
      {"@midnight", "2026-01-01 00:30", {"2026-01-02 00:00"}},
      {"@weekly", "2026-01-01 00:30", {"2026-01-04 00:00", "2026-01-11 00:00"}},
      {"@monthly", "2026-01-01 00:30", {"2026-02-01 00:00"}},
      {"@yearly", "2026-01-01 00:30", {"2027-01-01 00:00"}},
      {"@annually", "2026-01-01 00:30", {"2027-01-01 00:00"}},
      {"  0\t0   1 1 * ", "2026-01-01 00:30", {"2027-01-01 00:00"}},
      {"0 0 1 1 *", "1969-06-01 00:00", {"1970-01-01 00:00", "1971-01-01 00:00"}},
  };
  for (const Row& row : rows) EXPECT_EQ(ticks(row.cron, row.after, row.next.size()), row.next) << row.cron;
}

TEST(CronTest, RefusesWhatIsNoScheduleAndNamesTheField) {
  const std::pair<const char*, const char*> rows[] = {
      {"", "five fields"},          {"* * * *", "five fields"},      {"* * * * * *", "five fields"},
      {"@reboot", "five fields"},   {"60 * * * *", "minute \"60\""}, {"* 24 * * *", "hour \"24\""},
      {"* * 0 * *", "day of month"}, {"* * 32 * *", "day of month"}, {"* * * 13 *", "month \"13\""},
      {"* * * * 8", "day of week"}, {"5-1 * * * *", "minute \"5-1\""}, {"*/0 * * * *", "minute \"*/0\""},
      {"*/ * * * *", "minute"},     {"1, * * * *", "minute \"\""},   {"a * * * *", "minute \"a\""},
      {"-1 * * * *", "minute"},     {"1-2-3 * * * *", "minute"},     {"* * * jan-foo *", "month"},
      {"0 0 30 2 *", "a day that comes"}, {"0 0 31 4,6 *", "a day that comes"}, {"1000000 * * * *", "minute"},
      {"+1 * * * *", "minute"}, {"** * * * *", "minute"},
  };
  for (const auto& [cron, expected] : rows) {
    try {
      const CronSchedule schedule(cron);
      ADD_FAILURE() << cron;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
      EXPECT_THAT(e.what(), HasSubstr(expected)) << cron;
    }
  }
}

// ------ clocks that are put forward and back

TEST(CronTest, TellsItsHoursInTheTimeZone) {
  EXPECT_THAT(ticks("0 6 * * *", "2026-01-15 00:00", 2, vienna()), ElementsAre("2026-01-15 05:00", "2026-01-16 05:00"));
  EXPECT_THAT(ticks("0 6 * * *", "2026-07-15 00:00", 2, vienna()), ElementsAre("2026-07-15 04:00", "2026-07-16 04:00"));
  EXPECT_THAT(ticks("30 0 1 * *", "2026-01-15 00:00", 2, vienna()), ElementsAre("2026-01-31 23:30", "2026-02-28 23:30"));
  EXPECT_THAT(ticks("0 20 * * *", "2026-01-15 00:00", 2, new_york()), ElementsAre("2026-01-15 01:00", "2026-01-16 01:00"));
}

// In Vienna 02:00 to 03:00 is left out on 2026-03-29, at 01:00 UTC.
TEST(CronTest, GivesWhatFallsIntoAnHourThatIsLeftOutOneTickAtItsEnd) {
  EXPECT_THAT(ticks("30 2 * * *", "2026-03-28 00:00", 3, vienna()),
              ElementsAre("2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"));
  EXPECT_THAT(ticks("*/20 2 * * *", "2026-03-28 12:00", 2, vienna()), ElementsAre("2026-03-29 01:00", "2026-03-30 00:00"));
  // That is 03:00, which is a tick by itself.
  EXPECT_THAT(ticks("0 2,3 * * *", "2026-03-28 12:00", 2, vienna()), ElementsAre("2026-03-29 01:00", "2026-03-30 00:00"));
  EXPECT_THAT(ticks("0 3 * * *", "2026-03-28 12:00", 2, vienna()), ElementsAre("2026-03-29 01:00", "2026-03-30 01:00"));
  EXPECT_THAT(ticks("59 1 * * *", "2026-03-28 12:00", 1, vienna()), ElementsAre("2026-03-29 00:59"));
  // In New York it is 02:00 to 03:00 on 2026-03-08, at 07:00 UTC.
  EXPECT_THAT(ticks("15 2 * * *", "2026-03-08 00:00", 2, new_york()), ElementsAre("2026-03-08 07:00", "2026-03-09 06:15"));
}

// In Vienna 02:00 to 03:00 comes twice on 2026-10-25, from 00:00 UTC and from 01:00 UTC.
TEST(CronTest, TakesAnHourThatComesTwiceOnceWhereHoursAreFixed) {
  EXPECT_THAT(ticks("30 2 * * *", "2026-10-24 12:00", 2, vienna()), ElementsAre("2026-10-25 00:30", "2026-10-26 01:30"));
  EXPECT_THAT(ticks("*/30 2 * * *", "2026-10-24 12:00", 3, vienna()),
              ElementsAre("2026-10-25 00:00", "2026-10-25 00:30", "2026-10-26 01:00"));
  EXPECT_THAT(ticks("30 2 * * *", "2026-10-25 01:10", 1, vienna()), ElementsAre("2026-10-26 01:30"));
  EXPECT_THAT(ticks("0 3 * * *", "2026-10-24 12:00", 1, vienna()), ElementsAre("2026-10-25 02:00"));
  EXPECT_THAT(ticks("30 1 * * *", "2026-10-31 12:00", 2, new_york()), ElementsAre("2026-11-01 05:30", "2026-11-02 06:30"));
}

TEST(CronTest, FollowsTheClockThatIsShownWhereEveryHourIsMeant) {
  EXPECT_THAT(ticks("0 * * * *", "2026-03-29 00:00", 2, vienna()), ElementsAre("2026-03-29 01:00", "2026-03-29 02:00"));
  EXPECT_THAT(ticks("30 * * * *", "2026-03-28 23:40", 3, vienna()),
              ElementsAre("2026-03-29 00:30", "2026-03-29 01:30", "2026-03-29 02:30"));
  EXPECT_THAT(ticks("0 * * * *", "2026-10-24 23:30", 4, vienna()),
              ElementsAre("2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00", "2026-10-25 03:00"));
  EXPECT_THAT(ticks("*/30 */2 * * *", "2026-10-24 23:30", 4, vienna()),
              ElementsAre("2026-10-25 00:00", "2026-10-25 00:30", "2026-10-25 01:00", "2026-10-25 01:30"));
}

TEST(CronTest, CountsFixedHoursOnceADayInEveryZoneAndYear) {
  for (const char* rule : {"CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
                           "AEST-10AEDT,M10.1.0,M4.1.0/3", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "IST-5:30", "XST3XDT4,J60,J300/1"}) {
    const TimeZone there = zone(rule);
    for (const char* cron : {"30 2 * * *", "0 0 * * *", "15 1 * * *", "30 23 * * *"}) {
      const auto all = ticks(cron, "2026-06-01 00:00", 3 * 365, there);
      ASSERT_EQ(all.size(), 3u * 365);
      // A tick a day: the last is three years after the first, but for the change between summer and winter.
      EXPECT_LE(std::abs(instant(all.back()) - instant(all.front()) - (3 * 365 - 1) * 86'400), 3600) << rule << ' ' << cron;
    }
  }
}

// ------ time zones

TEST(TimeZoneTest, GoesByItsTransitionsAndThenByItsRule) {
  const std::int64_t first = instant("1990-01-01 00:00"), second = instant("2000-01-01 00:00");
  const TimeZone z = TimeZone::parse(tzif("CET-1CEST,M3.5.0,M10.5.0/3", {{first, 1}, {second, 2}}, {-60, 7200, 3600}));
  EXPECT_EQ(z.period(first - 1).offset, -60);
  EXPECT_EQ(z.period(first - 1).begin, INT64_MIN);
  EXPECT_EQ(z.period(first - 1).end, first);
  EXPECT_EQ(z.period(first).offset, 7200);
  EXPECT_EQ(z.period(second - 1).end, second);
  EXPECT_EQ(z.period(second).offset, 3600);
  EXPECT_EQ(z.period(second).begin, second);
  EXPECT_EQ(text(z.period(second).end), "2000-03-26 01:00");
  EXPECT_EQ(z.period(instant("2026-07-01 00:00")).offset, 7200);
  EXPECT_EQ(text(z.period(instant("2026-07-01 00:00")).begin), "2026-03-29 01:00");
  EXPECT_EQ(text(z.period(instant("2026-07-01 00:00")).end), "2026-10-25 01:00");
  EXPECT_EQ(TimeZone().period(0).offset, 0);
  EXPECT_EQ(TimeZone().period(0).end, INT64_MAX);
}

TEST(TimeZoneTest, ChangesNothingInTheFarthestFuture) {
  const TimeZone z = TimeZone::parse(tzif("CET-1CEST,M3.5.0,M10.5.0/3", {{1'500'000'000'000'000, 1}}, {0, 3600}));
  EXPECT_EQ(z.period(0).end, INT64_MAX);
  EXPECT_EQ(z.period(INT64_MAX).offset, 0);
  EXPECT_EQ(vienna().period(INT64_MAX).end, INT64_MAX);
}

TEST(TimeZoneTest, ReadsTheFirstVersionToo) {
  const TimeZone z = TimeZone::parse(header('\0', 1, 2) + block({{1000, 1}}, {0, 3600}, 4));
  EXPECT_EQ(z.period(999).offset, 0);
  EXPECT_EQ(z.period(1000).offset, 3600);
  EXPECT_EQ(z.period(1000).end, INT64_MAX);
}

TEST(TimeZoneTest, RefusesDamagedBytes) {
  const std::string good = tzif("CET-1CEST,M3.5.0,M10.5.0/3", {{1000, 1}, {2000, 0}}, {0, 3600});
  (void)TimeZone::parse(good);
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW((void)TimeZone::parse(good.substr(0, length)), Error) << length;
  }
  EXPECT_THROW((void)TimeZone::parse(tzif("", {{2000, 0}, {1000, 0}})), Error);
  EXPECT_THROW((void)TimeZone::parse(tzif("", {{2000, 3}})), Error);
  EXPECT_THROW((void)TimeZone::parse(tzif("", {}, {200'000})), Error);
  for (const char* rule : {"CET", "CET-99", "CET-1CEST", "CET-1CEST,M13.1.0,M10.5.0", "CET-1CEST,M3.5.0", "CET-1CEST,M3.6.0,M1.1.1",
                           "<CET-1", "CET-1CEST,M3.5.0,M10.5.0/3x", "1", "CET-1CEST,J0,J5", "CET-1CEST,M3.5.0/168,M10.5.0"}) {
    EXPECT_THROW((void)zone(rule), Error) << rule;
  }
}

TEST(TimeZoneTest, FindsZonesByNameOnly) {
  for (const char* name : {"../etc/passwd", "/etc/passwd", "Europe/../../x", "a b", "Europe/Vienna\n"}) {
    try {
      (void)TimeZone::find(name);
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument) << name;
    }
  }
  EXPECT_EQ(TimeZone::find("UTC").period(0).offset, 0);
  try {
    (void)TimeZone::find("Mars/Olympus");
    ADD_FAILURE() << "there is no such zone";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::not_found);
    EXPECT_THAT(e.what(), HasSubstr("tzdata"));
  }
}

TEST(TimeZoneTest, AgreesWithTheSystemsDatabase) {
  std::optional<TimeZone> z;
  try {
    z = TimeZone::find("Europe/Vienna");
  } catch (const Error& e) {
    GTEST_SKIP() << e.what();
  }
  for (const char* at : {"2026-01-01 00:00", "2026-03-29 00:59", "2026-03-29 01:00", "2026-10-25 00:59", "2026-10-25 01:00",
                         "2037-07-01 00:00", "2050-07-01 00:00"}) {
    EXPECT_EQ(z->period(instant(at)).offset, vienna().period(instant(at)).offset) << at;
  }
}

}  // namespace
}  // namespace waymark::detail
