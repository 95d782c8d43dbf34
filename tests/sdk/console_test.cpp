// Log records for people, and which of them are recorded at all.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "sdk/process.h"
#include "waymark/configure.h"

namespace waymark {
namespace {

using namespace waymark::testing;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ConsoleLoggingTest : public InAProcess {
 protected:
  // Standard output into a file that the parent can look at.
  void keep_stdout() const {
    std::fflush(stdout);
    const int fd = ::open((directory_ / "stdout").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    require(fd >= 0 && ::dup2(fd, STDOUT_FILENO) >= 0, "standard output is kept");
  }
  [[nodiscard]] std::string kept_stdout() const { return contents(directory_ / "stdout"); }
};

TEST_F(ConsoleLoggingTest, ConfiguredTwiceEveryRecordIsOneLine) {
  IN_A_PROCESS_THAT_SAYS(Says("\n", 2), {
    for (int i = 0; i < 2; ++i) configure_console_logging({.to_stderr = true, .service = "a"});
    logger("test").info("first", {{"n", 1}});
    logger("test").warning("second");
  });
}

TEST_F(ConsoleLoggingTest, TheSecondCallReplacesTheFirst) {
  IN_A_PROCESS_THAT_SAYS(AllOf(Says("\n", 1), HasSubstr("noticed"), Not(HasSubstr("hidden"))), {
    keep_stdout();
    configure_console_logging({.level = Severity::debug, .service = "a"});
    configure_console_logging({.level = Severity::warning, .to_stderr = true, .service = "a"});
    logger("test").info("hidden");
    logger("test").warning("noticed");
  });
  EXPECT_EQ(kept_stdout(), "");
}

TEST_F(ConsoleLoggingTest, LinesGoToStandardOutputUnlessAskedOtherwise) {
  IN_A_PROCESS_THAT_SAYS("^$", {
    keep_stdout();
    configure_console_logging({.service = "a"});
    logger("test").info("here");
  });
  EXPECT_THAT(kept_stdout(), AllOf(HasSubstr("INFO  here"), Says("\n", 1)));
}

TEST_F(ConsoleLoggingTest, WhatIsNoTerminalGetsNoColors) {
  IN_A_PROCESS_THAT_SAYS(AllOf(HasSubstr("ERROR failed"), Says("\x1b", 0)), {
    configure_console_logging({.to_stderr = true, .service = "a"});
    logger("test").error("failed");
  });
}

TEST_F(ConsoleLoggingTest, ATerminalGetsColorsUnlessNoColorIsSet) {
  IN_A_PROCESS({
    const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    require(terminal >= 0 && ::grantpt(terminal) == 0 && ::unlockpt(terminal) == 0, "a terminal");
    const int screen = ::open(::ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    const int before = ::dup(STDOUT_FILENO);
    require(screen >= 0 && ::dup2(screen, STDOUT_FILENO) >= 0, "standard output is a terminal");
    setenv("TERM", "xterm", 1);
    const auto shown = [&] {
      logger("test").error("failed");
      require(force_flush(), "it is shown");
      char text[1000];
      const ssize_t size = ::read(terminal, text, sizeof text);
      require(size > 0, "something is shown");
      return std::string(text, static_cast<std::size_t>(size));
    };
    configure_console_logging({.service = "a"});
    require(shown().find("\x1b[31m") != std::string::npos, "red");
    setenv("NO_COLOR", "1", 1);
    configure_console_logging({.service = "a"});
    require(shown().find('\x1b') == std::string::npos, "no color");
    ::dup2(before, STDOUT_FILENO);
  });
}

// Surprises 6 and 7 of Tilebox's: level DEBUG gives no DEBUG records, and what was logged early is lost.
TEST_F(ConsoleLoggingTest, ADebugRecordBeforeAnythingElseReachesTheFile) {
  IN_A_PROCESS({
    const Logger early = logger("made before");
    configure_otel_logging({.service = "a", .endpoint = file("logs.jsonl"), .level = Severity::debug});
    early.debug("first");
    logger("made after").debug("second");
  });
  std::vector<std::string> bodies;
  for (const ReadLog& log : read("logs.jsonl").logs) {
    bodies.push_back(to_text(log.body));
    EXPECT_EQ(log.severity, 5);
  }
  EXPECT_THAT(bodies, ElementsAre("first", "second"));
}

TEST_F(ConsoleLoggingTest, AConsoleForPeopleDoesNotRaiseTheLevelOfTheBackend) {
  IN_A_PROCESS_THAT_SAYS(Not(HasSubstr("detail")), {
    configure_console_logging({.level = Severity::info, .to_stderr = true, .service = "a"});
    configure_otel_logging({.service = "a", .endpoint = file("logs.jsonl")});
    logger("test").debug("detail");
    require(force_flush(), "everything is settled");
    for (const DestinationStats& d : stats().destinations) {
      require(d.counts.offered == 1 && d.counts.pending == 0, "offered to both");
      require(d.name == "console" ? d.counts.filtered == 1 : d.counts.delivered == 1, "the console filters it");
    }
  });
  EXPECT_EQ(read("logs.jsonl").logs.size(), 1u);
}

}  // namespace
}  // namespace waymark
