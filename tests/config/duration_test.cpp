#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "config/table.h"
#include "waymark/configure.h"
#include "waymark/error.h"

namespace waymark {
namespace {

using ::testing::HasSubstr;
using std::chrono::nanoseconds;

std::string message_of(std::string_view text) {
  try {
    (void)parse_duration(text, "OTEL_EXPORT_INTERVAL");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_duration) << text;
    return error.what();
  }
  ADD_FAILURE() << text << " is accepted";
  return {};
}

TEST(DurationTest, ReadsEveryRowOfTheTable) {
  const auto rows = config::read_table("durations.tsv");
  EXPECT_GT(rows.size(), 90u);
  for (const auto& row : rows) {
    SCOPED_TRACE("line " + std::to_string(row.line) + ": " + row.input);
    ASSERT_GE(row.columns.size(), 1u);
    if (row.columns[0] == "error" || row.columns[0] == "unset") {
      EXPECT_THROW((void)parse_duration(row.input, "KEY"), Error);  // unset: nothing that a duration could be made of
    } else {
      const auto expected = nanoseconds(std::llround(std::stold(row.columns[0]) * 1e6L));
      EXPECT_EQ(parse_duration(row.input, "KEY"), expected);
    }
  }
}

TEST(DurationTest, CutsDigitsThatAreWorthLessThanANanosecond) {
  EXPECT_EQ(parse_duration("1.0000000019s", "KEY"), nanoseconds(1'000'000'001));
  EXPECT_EQ(parse_duration("0.0015us", "KEY"), nanoseconds(1));
}

TEST(DurationTest, ErrorsQuoteTheVariableAndNameGoodExamples) {
  for (const char* text : {"5000", "0s", "5s1m", "5S", "366d", "five seconds", "1.2.3s", "", "s"}) {
    const std::string message = message_of(text);
    EXPECT_THAT(message, HasSubstr("OTEL_EXPORT_INTERVAL"));
    EXPECT_THAT(message, HasSubstr("'" + std::string(text) + "'"));
    EXPECT_THAT(message, HasSubstr("'1m30s'"));
  }
}

TEST(DurationTest, ErrorsSayWhatIsWrong) {
  EXPECT_THAT(message_of("5000"), HasSubstr("without a unit"));
  EXPECT_THAT(message_of("5M"), HasSubstr("unknown unit"));
  EXPECT_THAT(message_of("5s1m"), HasSubstr("order"));
  EXPECT_THAT(message_of("0h0m"), HasSubstr("zero"));
  EXPECT_THAT(message_of("99999999999s"), HasSubstr("longer than a year"));
}

TEST(DurationTest, ErrorsShowHostileTextInOneShortLine) {
  const std::string message = message_of(std::string("5s\r\n\0\x1b[31m\xff", 11) + std::string(10'000, 'x'));
  EXPECT_THAT(message, HasSubstr("'5s\\x0d\\x0a\\x00\\x1b[31m\\xff"));
  EXPECT_LT(message.size(), 400u);
}

}  // namespace
}  // namespace waymark
