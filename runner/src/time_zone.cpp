#include "time_zone.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "waymark/error.h"

namespace waymark::detail {
namespace {

constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kFarthest = 95'617'584'000;  // the year 5000
constexpr std::size_t kLargestFile = 1 << 20;
constexpr std::int32_t kLargestOffset = 26 * 3600;

[[noreturn]] void corrupt(const char* what) {
  throw Error(ErrorCode::corrupt, std::string("time zone: expected TZif: ") + what);
}

// Big-endian numbers, one after the other; what would lie behind the end is refused.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size()) corrupt("it ends too early");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  std::int64_t integer(std::size_t width) {
    std::uint64_t value = 0;
    const std::string_view bytes = take(width);
    for (const char c : bytes) value = value << 8 | static_cast<unsigned char>(c);
    return width == 4 ? static_cast<std::int32_t>(static_cast<std::uint32_t>(value)) : static_cast<std::int64_t>(value);
  }
  [[nodiscard]] std::string_view rest() const noexcept { return bytes_; }

 private:
  std::string_view bytes_;
};

struct Header {
  char version = 0;
  std::uint64_t utc = 0, standard = 0, leaps = 0, times = 0, types = 0, characters = 0;
  [[nodiscard]] std::uint64_t size(std::uint64_t time_width) const noexcept {
    return times * time_width + times + types * 6 + characters + leaps * (time_width + 4) + standard + utc;
  }
};

Header read_header(ByteReader& in) {
  if (in.take(4) != "TZif") corrupt("it does not begin with these letters");
  Header h;
  h.version = in.take(1)[0];
  in.take(15);
  for (std::uint64_t* count : {&h.utc, &h.standard, &h.leaps, &h.times, &h.types, &h.characters}) {
    *count = static_cast<std::uint32_t>(in.integer(4));
  }
  return h;
}

std::chrono::sys_days day_of(int year, int month, int day) {
  return std::chrono::year(year) / month / day;
}

std::int64_t days(std::chrono::sys_days d) { return d.time_since_epoch().count(); }

int year_of(std::int64_t instant) {
  const std::chrono::sys_days d{std::chrono::days(instant >= 0 ? instant / kDay : (instant - kDay + 1) / kDay)};
  return static_cast<int>(std::chrono::year_month_day(d).year());
}

std::string database_directory() {
  const char* directory = std::getenv("TZDIR");
  return directory && *directory == '/' ? directory : "/usr/share/zoneinfo";
}

}  // namespace

// The line at a file's end: "CET-1CEST,M3.5.0,M10.5.0/3".
class TimeZone::RuleReader {
 public:
  explicit RuleReader(std::string_view text) : text_(text) {}

  Rule read() {
    Rule rule;
    name();
    rule.standard = -time(24);
    rule.summer = rule.standard;
    if (text_.empty()) return rule;
    rule.changes = true;
    name();
    rule.summer = rule.standard + 3600;
    if (!text_.empty() && text_[0] != ',') rule.summer = -time(24);
    expect(',');
    rule.begin = change();
    expect(',');
    rule.end = change();
    if (!text_.empty()) corrupt("something follows its rule");
    return rule;
  }

 private:
  void expect(char c) {
    if (text_.empty() || text_[0] != c) corrupt("its rule for the years to come is damaged");
    text_.remove_prefix(1);
  }
  [[nodiscard]] bool skip(char c) {
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void name() {
    std::size_t length = 0;
    if (skip('<')) {
      length = text_.find('>');
      if (length == std::string_view::npos) corrupt("a name in its rule does not end");
      text_.remove_prefix(length + 1);
    } else {
      const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
      while (length < text_.size() && is_letter(text_[length])) ++length;
      text_.remove_prefix(length);
    }
    if (length == 0) corrupt("a name is missing in its rule");
  }
  int number(int least, int most) {
    int value = 0;
    std::size_t digits = 0;
    while (digits < text_.size() && digits < 3 && text_[digits] >= '0' && text_[digits] <= '9') {
      value = value * 10 + (text_[digits++] - '0');
    }
    if (digits == 0 || value < least || value > most) corrupt("a number in its rule is out of range");
    text_.remove_prefix(digits);
    return value;
  }
  std::int32_t time(int most_hours) {
    const bool negative = skip('-');
    if (!negative) (void)skip('+');
    std::int32_t seconds = number(0, most_hours) * 3600;
    if (skip(':')) seconds += number(0, 59) * 60;
    if (skip(':')) seconds += number(0, 59);
    return negative ? -seconds : seconds;
  }
  Change change() {
    Change c;
    if (skip('M')) {
      c.month = number(1, 12);
      expect('.');
      c.week = number(1, 5);
      expect('.');
      c.day = number(0, 6);
    } else if (skip('J')) {
      c.kind = 'J';
      c.day = number(1, 365);
    } else {
      c.kind = '0';
      c.day = number(0, 365);
    }
    c.time = skip('/') ? time(167) : 2 * 3600;
    return c;
  }
  std::string_view text_;
};

TimeZone TimeZone::parse(std::string_view tzif) {
  if (tzif.size() > kLargestFile) corrupt("it is larger than 1 MiB");
  ByteReader in(tzif);
  Header header = read_header(in);
  std::size_t width = 4;
  if (header.version != 0) {
    in.take(header.size(4));
    header = read_header(in);
    width = 8;
  }
  if (header.types == 0 || header.types > 256) corrupt("it has no types of local time, or too many");
  if (header.leaps != 0) corrupt("it counts leap seconds: use the zone outside of 'right/'");
  ByteReader block(in.take(header.size(width)));
  TimeZone zone;
  zone.transitions_.reserve(header.times);
  for (std::uint64_t i = 0; i < header.times; ++i) {
    const std::int64_t at = block.integer(width);
    if (i > 0 && at <= zone.transitions_.back().at) corrupt("its transitions are not in order");
    zone.transitions_.push_back({at, 0});
  }
  const std::string_view of_transition = block.take(header.times);
  std::vector<std::int32_t> offsets;
  for (std::uint64_t i = 0; i < header.types; ++i) {
    const std::int64_t offset = block.integer(4);
    if (offset < -kLargestOffset || offset > kLargestOffset) corrupt("an offset is out of range");
    offsets.push_back(static_cast<std::int32_t>(offset));
    block.take(2);
  }
  zone.first_offset_ = offsets[0];
  for (std::uint64_t i = 0; i < header.times; ++i) {
    const auto type = static_cast<unsigned char>(of_transition[i]);
    if (type >= offsets.size()) corrupt("a transition leads to a type that is not there");
    zone.transitions_[i].offset = offsets[type];
  }
  if (width == 8) {
    const std::string_view footer = in.rest();
    const std::size_t end = footer.find('\n', 1);
    if (footer.empty() || footer[0] != '\n' || end == std::string_view::npos) corrupt("its last line is missing");
    if (end > 1) zone.rule_ = RuleReader(footer.substr(1, end - 1)).read();
  }
  return zone;
}

TimeZone TimeZone::find(std::string_view name) {
  if (name.empty() || name == "UTC") return {};
  const std::string shown(name.substr(0, 64));
  const bool is_name =
      name.size() <= 64 && name[0] != '/' && name.find("..") == std::string_view::npos &&
      std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::strchr("_+-/", c);
      });
  if (!is_name || name.find('\0') != std::string_view::npos) {
    throw Error(ErrorCode::invalid_argument, "time zone \"" + shown + "\": expected a name like Europe/Vienna");
  }
  const std::string path = database_directory() + "/" + std::string(name);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const auto refuse = [&](int error) {
    throw Error(ErrorCode::not_found, "time zone \"" + shown + "\": " + path + ": " + std::strerror(error) +
                                          ": use a name that is there, or install the system's tz database (tzdata)");
  };
  if (fd < 0) refuse(errno);
  std::string bytes;
  std::array<char, 8192> buffer;
  ssize_t got = 0;
  while (bytes.size() <= kLargestFile && (got = read(fd, buffer.data(), buffer.size())) > 0) {
    bytes.append(buffer.data(), static_cast<std::size_t>(got));
  }
  const int error = errno;
  close(fd);
  if (got < 0) refuse(error);
  try {
    return parse(bytes);
  } catch (const Error& e) {
    throw Error(e.code(), path + ": " + e.what());
  }
}

std::int64_t TimeZone::instant(const Change& change, int year, std::int32_t offset_before) {
  std::int64_t day = days(day_of(year, 1, 1));
  if (change.kind == 'M') {
    const std::chrono::year_month_weekday_last last =
        std::chrono::year(year) / change.month / std::chrono::weekday(static_cast<unsigned>(change.day))[std::chrono::last];
    if (change.week == 5) {
      day = days(std::chrono::sys_days(last));
    } else {
      day = days(std::chrono::sys_days(
          std::chrono::year(year) / change.month /
          std::chrono::weekday(static_cast<unsigned>(change.day))[static_cast<unsigned>(change.week)]));
    }
  } else if (change.kind == 'J') {
    const bool leap = std::chrono::year(year).is_leap();
    day += change.day - 1 + (leap && change.day >= 60 ? 1 : 0);
  } else {
    day += change.day;
  }
  return day * kDay + change.time - offset_before;
}

// What the rule says of an instant that is not before `from`, the last transition.
TimeZone::Period TimeZone::by_rule(std::int64_t at, std::int64_t from) const {
  if (!rule_->changes) return {from, INT64_MAX, rule_->standard};
  std::array<Transition, 6> changes;
  std::size_t count = 0;
  const int year = year_of(at);
  for (int y = year - 1; y <= year + 1; ++y) {
    changes[count++] = {instant(rule_->begin, y, rule_->standard), rule_->summer};
    changes[count++] = {instant(rule_->end, y, rule_->summer), rule_->standard};
  }
  std::stable_sort(changes.begin(), changes.end(), [](const auto& a, const auto& b) { return a.at < b.at; });
  Period period{from, INT64_MAX, rule_->standard};
  for (const Transition& change : changes) {
    if (change.at > at) {
      period.end = change.at;
      break;
    }
    period.begin = std::max(from, change.at);
    period.offset = change.offset;
  }
  return period;
}

TimeZone::Period TimeZone::period(std::int64_t at) const {
  at = std::clamp(at, -kFarthest, kFarthest);
  const auto after = std::upper_bound(transitions_.begin(), transitions_.end(), at,
                                      [](std::int64_t t, const Transition& transition) { return t < transition.at; });
  Period period;
  period.offset = first_offset_;
  if (after != transitions_.begin()) {
    period.begin = std::prev(after)->at;
    period.offset = std::prev(after)->offset;
  }
  if (after != transitions_.end()) {
    period.end = after->at;
  } else if (rule_) {
    period = by_rule(at, period.begin);
  }
  if (period.end > kFarthest) period.end = INT64_MAX;
  return period;
}

}  // namespace waymark::detail
