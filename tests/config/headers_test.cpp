#include "config/headers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/holds.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr const char* kVariable = "OTEL_EXPORTER_OTLP_HEADERS";

Environment empty_environment() {
  return Environment([](const std::string&) -> std::optional<std::string> { return std::nullopt; });
}

TEST(HeadersTest, AreReadAsNamesAndPercentEncodedValues) {
  HOLDS("OE-09");
  Environment env = empty_environment();
  const char* text = "Authorization=Basic%20abc==, X-A = a=b=c ,X-B=, ,X-C=1%2C2,X-D=Bearer t,X-E=a;b";
  EXPECT_THAT(parse_headers({kVariable, text}, env),
              ElementsAre(Pair("Authorization", "Basic abc=="), Pair("X-A", "a=b=c"), Pair("X-B", ""),
                          Pair("X-C", "1,2"), Pair("X-D", "Bearer t"), Pair("X-E", "a;b")));
  EXPECT_THAT(env.warnings(), IsEmpty());
}

TEST(HeadersTest, AMalformedEntryIsToldAndSkippedWithoutItsText) {
  HOLDS("OE-10");
  for (const char* entry : {"hunter2", "=hunter2", "X=%zzhunter2", "a b=hunter2", "X=hunter2%0d%0aY:%20z",
                            "X=hunter2%00", "Bearer hunter2=", "Content-Type=hunter2"}) {
    Environment env = empty_environment();
    EXPECT_THAT(parse_headers({kVariable, std::string(entry) + ",k=v"}, env), ElementsAre(Pair("k", "v"))) << entry;
    ASSERT_THAT(env.warnings(), SizeIs(1)) << entry;
    EXPECT_THAT(env.warnings()[0], AllOf(HasSubstr(kVariable), HasSubstr("entry 1"), Not(HasSubstr("hunter2"))));
  }
}

TEST(HeadersTest, WhatGrpcCannotCarryIsToldAndSkippedOrRefused) {
  HOLDS("GC-12");
  for (const char* entry : {"X!Y=hunter2", "grpc-hunter2=a", "Grpc-Timeout=hunter2", "X=hunter2%c3%bc", "X=hunter2%09"}) {
    Environment env = empty_environment();
    const std::string text = std::string(entry) + ",k=v,x-bin=%c3%bc";
    EXPECT_THAT(parse_headers({kVariable, text}, env, Protocol::grpc), ElementsAre(Pair("k", "v"), Pair("x-bin", "\xc3\xbc"))) << entry;
    ASSERT_THAT(env.warnings(), SizeIs(1)) << entry;
    EXPECT_THAT(env.warnings()[0], AllOf(HasSubstr(kVariable), HasSubstr("entry 1"), HasSubstr("gRPC"), Not(HasSubstr("hunter2"))));
    EXPECT_THAT(parse_headers({kVariable, text}, env), SizeIs(3)) << entry << " over HTTP";
  }
  EXPECT_THROW((void)checked_headers({{"X!Y", "z"}}, Protocol::grpc), Error);
  EXPECT_NO_THROW((void)checked_headers({{"X!Y", "z"}}));
}

TEST(HeadersTest, TheLastOfANameWinsWhateverItsCase) {
  Environment env = empty_environment();
  EXPECT_THAT(parse_headers({kVariable, "a=1,A=2"}, env), ElementsAre(Pair("A", "2")));
  EXPECT_THAT(checked_headers({{"x-a", "1"}, {"X-A", "2"}, {"b", "3"}}), ElementsAre(Pair("X-A", "2"), Pair("b", "3")));
}

TEST(HeadersTest, GivenOnesThatHttpForbidsAreRefusedWithoutTheirValue) {
  HOLDS("HC-23");
  const std::vector<std::pair<std::string, std::string>> bad{
      {"", "hunter2"},
      {"a b", "hunter2"},
      {"a:", "hunter2"},
      {"a\r\nb", "hunter2"},
      {"z\xc3\xbc", "hunter2"},
      {"X", "hunter2\r\nY: z"},
      {"X", "hunter2\n"},
      {"X", std::string("hunter2\0", 8)},
      {"X", "hunter2\x7f"},
      {"Content-Length", "hunter2"},
      {"content-type", "hunter2"},
      {"TRANSFER-ENCODING", "hunter2"}};
  for (const auto& header : bad) {
    try {
      (void)checked_headers({{"ok", "1"}, header});
      ADD_FAILURE() << header.first << " is accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_header);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("headers: entry 2"), Not(HasSubstr("hunter2"))));
    }
  }
}

TEST(HeadersTest, GivenOnesMayHoldTabsAndBytesBeyondAscii) {
  EXPECT_THAT(checked_headers({{"X-A", "a\tb \xc3\xbc"}, {"X-B", ""}}), SizeIs(2));
}

}  // namespace
}  // namespace waymark::config
