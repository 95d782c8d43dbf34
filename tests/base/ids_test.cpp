#include <gtest/gtest.h>

#include "waymark/propagation.h"

#include "support/holds.h"

namespace waymark {
namespace {

TEST(IdsTest, HexIsLowerCaseAndReadsBack) {
  HOLDS("TR-15");
  const std::string text = "4bf92f3577b34da6a3ce929d0e0e4736";
  const auto id = TraceId::from_hex(text);
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(id->bytes[0], 0x4b);
  EXPECT_EQ(id->bytes[15], 0x36);
  EXPECT_EQ(id->hex(), text);

  const auto span = SpanId::from_hex("00f067aa0ba902b7");
  ASSERT_TRUE(span.has_value());
  EXPECT_EQ(span->hex(), "00f067aa0ba902b7");
}

TEST(IdsTest, AllZeroReadsBackButIsNotValid) {
  HOLDS("TR-14");
  ASSERT_TRUE(TraceId::from_hex(std::string(32, '0')).has_value());
  EXPECT_FALSE(TraceId::from_hex(std::string(32, '0'))->valid());
  EXPECT_FALSE(SpanId::from_hex(std::string(16, '0'))->valid());
}

TEST(IdsTest, RefusesUpperCaseOtherDigitsAndOtherLengths) {
  EXPECT_FALSE(TraceId::from_hex("4BF92F3577B34DA6A3CE929D0E0E4736").has_value());
  EXPECT_FALSE(TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e473g").has_value());
  EXPECT_FALSE(TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e473").has_value());
  EXPECT_FALSE(TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e47360").has_value());
  EXPECT_FALSE(TraceId::from_hex("").has_value());
  EXPECT_FALSE(SpanId::from_hex("00f067aa0ba902b").has_value());
  EXPECT_FALSE(SpanId::from_hex("00F067AA0BA902B7").has_value());
  EXPECT_FALSE(SpanId::from_hex(std::string_view("00f067aa0ba902b\0", 16)).has_value());
}

}  // namespace
}  // namespace waymark
