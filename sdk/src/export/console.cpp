#include "export/console.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace waymark::delivery {
namespace {

struct Level {
  std::string_view name;   // five wide, so that messages stand below one another
  std::string_view color;  // spdlog's
};

Level level_of(std::uint8_t severity) noexcept {
  constexpr std::array<Level, 7> kLevels = {{{"     ", ""},
                                             {"TRACE", "\x1b[37m"},
                                             {"DEBUG", "\x1b[36m"},
                                             {"INFO ", "\x1b[32m"},
                                             {"WARN ", "\x1b[33m\x1b[1m"},
                                             {"ERROR", "\x1b[31m\x1b[1m"},
                                             {"CRIT ", "\x1b[1m\x1b[41m"}}};
  constexpr std::uint8_t kHighest = 24;
  if (severity == 0 || severity > kHighest) return kLevels[0];
  return kLevels[1 + (severity - 1u) / 4];  // four numbers a level
}
constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kPlain = "\x1b[0m";

// A record's text without anything that a terminal would obey: C0 and C1 controls and DEL become \xNN.
void append_safe(std::string& out, std::string_view text, std::string_view line_end) {
  constexpr std::string_view kHex = "0123456789abcdef";
  const auto escape = [&](unsigned char c) {
    out.append("\\x");
    out.push_back(kHex[c >> 4]);
    out.push_back(kHex[c & 15]);
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const unsigned char next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    if (c == '\n') {
      out.append(line_end);
    } else if ((c < 0x20 && c != '\t') || c == 0x7f) {
      escape(c);
    } else if (c == 0xC2 && next >= 0x80 && next <= 0x9f) {  // U+0080 to U+009F
      escape(next);
      ++i;
    } else {
      out.push_back(text[i]);
    }
  }
}

void append_value(std::string& out, const AnyValue& value) {
  const std::string text = to_text(value);
  const bool is_string = std::holds_alternative<std::string>(value.value);
  if (is_string && (text.empty() || text.find_first_of(" \t\n\"=") != std::string::npos)) {
    std::string quoted = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') quoted.push_back('\\');
      quoted.push_back(c);
    }
    quoted.push_back('"');
    append_safe(out, quoted, "\\n");
  } else {
    append_safe(out, text, "\\n");
  }
}

}  // namespace

void append_console_line(std::string& out, const ReadLog& record, bool color) {
  const Timestamp time = record.time == Timestamp{} ? record.observed : record.time;
  const auto milliseconds = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count();
  std::tm local{};
  localtime_r(&seconds, &local);
  char clock[32];
  std::snprintf(clock, sizeof clock, "%02d:%02d:%02d.%03d ", local.tm_hour % 100, local.tm_min % 100, local.tm_sec % 100,
                static_cast<int>(((milliseconds % 1000) + 1000) % 1000));
  const auto dim = color ? kDim : std::string_view();
  const auto plain = color ? kPlain : std::string_view();
  const Level level = level_of(record.severity);

  out.append(clock);
  out.append(color ? level.color : std::string_view()).append(level.name).append(level.color.empty() ? "" : plain);
  out.push_back(' ');
  constexpr std::string_view kIndented = "\n                   ";  // below the message's first character
  append_safe(out, to_text(record.body), kIndented);
  for (const auto& [key, value] : record.attributes) {
    out.push_back(' ');
    out.append(dim);
    append_safe(out, key, "\\n");
    out.push_back('=');
    out.append(plain);
    append_value(out, value);
  }
  if (!record.scope.name.empty()) {
    out.append("  ").append(dim).append("(");
    append_safe(out, record.scope.name, "\\n");
    out.append(")").append(plain);
  }
  out.push_back('\n');
}

}  // namespace waymark::delivery
