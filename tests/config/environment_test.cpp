#include "config/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "support/holds.h"

namespace waymark::config {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using std::chrono::milliseconds;

Environment environment(std::map<std::string, std::string> variables) {
  return Environment([variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
    const auto at = variables.find(name);
    if (at == variables.end()) return std::nullopt;
    return at->second;
  });
}

TEST(EnvironmentTest, AnEmptyVariableIsUnset) {
  HOLDS("EV-01", "OE-12");
  Environment env = environment({{"A", ""}, {"B", " \t\n"}, {"C", " x "}});
  EXPECT_EQ(env.text("A"), std::nullopt);
  EXPECT_EQ(env.text("B"), std::nullopt);
  EXPECT_EQ(env.text("C"), "x");
  EXPECT_EQ(env.text("D"), std::nullopt);
  EXPECT_EQ(env.first({"A", "D", "C"})->name, "C");
  EXPECT_FALSE(env.flag("A"));
  EXPECT_EQ(env.integer({"A"}, 0, 9), std::nullopt);
  EXPECT_EQ(env.choice({"A"}, {"x"}), std::nullopt);
  EXPECT_THAT(env.warnings(), IsEmpty());
}

TEST(EnvironmentTest, ReadsTheProcessByDefault) {
  EXPECT_NE(Environment().text("PATH"), std::nullopt);
  EXPECT_EQ(Environment().text("WAYMARK_NO_SUCH_VARIABLE"), std::nullopt);
}

TEST(EnvironmentTest, OnlyTrueIsTrue) {
  HOLDS("EV-02");
  struct Case {
    const char* value;
    bool is;
    std::size_t warnings;
  };
  for (const Case& c : {Case{"true", true, 0}, Case{"TRUE", true, 0}, Case{"True", true, 0}, Case{"false", false, 0},
                        Case{"FALSE", false, 0}, Case{"1", false, 1}, Case{"yes", false, 1}, Case{"on", false, 1}}) {
    Environment env = environment({{"FLAG", c.value}});
    EXPECT_EQ(env.flag("FLAG"), c.is) << c.value;
    EXPECT_EQ(env.warnings().size(), c.warnings) << c.value;
  }
}

TEST(EnvironmentTest, NumbersOutOfRangeOrMalformedAreToldAndUnset) {
  HOLDS("EV-03", "EV-04");
  for (const char* value : {"abc", "-1", "+1", "1e3", "5000ms", "99999999999999999999", "1.0", "0x10", "11", "1 0"}) {
    Environment env = environment({{"N", value}});
    EXPECT_EQ(env.integer({"N"}, 0, 10), std::nullopt) << value;
    EXPECT_THAT(env.warnings(), ElementsAre(AllOf(HasSubstr("N: '" + std::string(value)), HasSubstr("0 to 10"))));
  }
  Environment env = environment({{"LOW", "0"}, {"HIGH", "2147483647"}});
  EXPECT_EQ(env.integer({"LOW"}, 0, 10), 0u);
  EXPECT_EQ(env.integer({"HIGH"}, 0, INT32_MAX), 2147483647u);
  EXPECT_THAT(env.warnings(), IsEmpty());
}

TEST(EnvironmentTest, AnInvalidVariableLeavesItToTheNext) {
  HOLDS("EV-03", "TR-52");
  Environment env = environment({{"OWN", "abc"}, {"GENERAL", "7"}});
  EXPECT_EQ(env.integer({"OWN", "GENERAL"}, 0, 10), 7u);
  EXPECT_EQ(env.warnings().size(), 1u);
}

TEST(EnvironmentTest, AWarningIsCollectedOnce) {
  Environment env = environment({{"N", "abc"}});
  (void)env.integer({"N"}, 0, 10);
  (void)env.integer({"N"}, 0, 10);
  EXPECT_EQ(env.warnings().size(), 1u);
}

TEST(EnvironmentTest, MillisecondsAreWholeAndNotNegative) {
  HOLDS("EV-05", "EV-06");
  Environment env = environment({{"ZERO", "0"}, {"TEN", "10000"}, {"NEGATIVE", "-5"}, {"LONG", "31536000001"}});
  EXPECT_EQ(env.milliseconds({"ZERO"}), milliseconds(0));
  EXPECT_EQ(env.milliseconds({"TEN"}), milliseconds(10'000));
  EXPECT_EQ(env.milliseconds({"NEGATIVE"}), std::nullopt);
  EXPECT_EQ(env.milliseconds({"LONG"}), std::nullopt);
  EXPECT_EQ(env.warnings().size(), 2u);
}

TEST(EnvironmentTest, RatiosLieBetweenZeroAndOne) {
  HOLDS("EV-16");
  const std::map<std::string, double> ratios{{"0", 0}, {"1", 1}, {"0.25", 0.25}, {"1e-3", 0.001}};
  for (const auto& [value, number] : ratios) {
    EXPECT_EQ(environment({{"R", value}}).ratio("R"), number) << value;
  }
  for (const char* value : {"1.5", "-0.1", "abc", "nan", "inf", "0,5", "0.5x"}) {
    Environment env = environment({{"R", value}});
    EXPECT_EQ(env.ratio("R"), std::nullopt) << value;
    EXPECT_EQ(env.warnings().size(), 1u);
  }
}

TEST(EnvironmentTest, ChoicesIgnoreCaseAndUnknownOnesAreToldWithTheirValue) {
  HOLDS("EV-07");
  Environment env = environment({{"A", "GZip"}, {"B", "zipkinn"}});
  EXPECT_EQ(env.choice({"A"}, {"none", "gzip"}), 1u);
  EXPECT_EQ(env.choice({"B"}, {"none", "gzip"}), std::nullopt);
  EXPECT_THAT(env.warnings(), ElementsAre(AllOf(HasSubstr("B: 'zipkinn'"), HasSubstr("none, gzip"))));
}

}  // namespace
}  // namespace waymark::config
