// Tests of the process-wide Telemetry, which starts once: each runs in a process of its own.
//
//   TEST_F(InAProcess, ...) { IN_A_PROCESS({ configure_otel_tracing(...); ... }); EXPECT_... }
//
// Hides: the child, its environment without anything that configures telemetry, and the directory that both see.
// Threads: the test's.
// Failure: the child says what is not so, and ends with 1.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "waymark/error.h"
#include "waymark/reader.h"

extern char** environ;

namespace waymark::testing {

class InAProcess : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    // The child of a threadsafe death test comes through here too, and must find its parent's directory.
    if (const char* inherited = std::getenv("WAYMARK_TEST_PROCESS_DIRECTORY")) {
      directory_ = inherited;
      return;
    }
    for (char** variable = environ; *variable;) {
      const std::string name = std::string(*variable).substr(0, std::string(*variable).find('='));
      if (name != "WAYMARK_TEST_PYTHON" &&
          (name.starts_with("OTEL_") || name.starts_with("WAYMARK_") || name.starts_with("XDG_"))) {
        unsetenv(name.c_str());
        variable = environ;
      } else {
        ++variable;
      }
    }
    std::string pattern = std::filesystem::temp_directory_path() / "waymark-process-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    owner_ = true;
    setenv("WAYMARK_TEST_PROCESS_DIRECTORY", pattern.c_str(), 1);
    setenv("WAYMARK_STATE_DIR", (pattern + "/state").c_str(), 1);
  }
  void TearDown() override {
    if (!owner_) return;
    unsetenv("WAYMARK_TEST_PROCESS_DIRECTORY");
    unsetenv("WAYMARK_STATE_DIR");
    std::filesystem::remove_all(directory_);
  }
  [[nodiscard]] std::string file(const std::string& name) const { return "file:" + (directory_ / name).string(); }
  [[nodiscard]] ReadTelemetry read(const std::string& name) const { return read_json_file(directory_ / name); }

  std::filesystem::path directory_;
  bool owner_ = false;
};

// Inside the child: says what is wrong and ends it.
inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::_Exit(1);
}

inline ErrorCode code_of(const std::function<void()>& call, const std::string& named = {}) {
  try {
    call();
  } catch (const Error& error) {
    if (std::string(error.what()).find(named) == std::string::npos) {
      std::fprintf(stderr, "'%s' is not in: %s\n", named.c_str(), error.what());
      std::_Exit(1);
    }
    return error.code();
  }
  std::fprintf(stderr, "no error\n");
  std::_Exit(1);
}

inline std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// How often a text stands in another.
inline std::size_t times(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

MATCHER_P2(Says, part, count, "says '" + std::string(part) + "' " + std::to_string(count) + " times") {
  return times(arg, part) == static_cast<std::size_t>(count);
}

// The child ends as a program that returns from main, and what it says on standard error matches.
#define IN_A_PROCESS_THAT_SAYS(says, ...) \
  EXPECT_EXIT({ ([&] { __VA_ARGS__; }()); std::exit(0); }, ::testing::ExitedWithCode(0), says)
#define IN_A_PROCESS(...) IN_A_PROCESS_THAT_SAYS("", __VA_ARGS__)

}  // namespace waymark::testing
