// The requirements that a test shows to be held: `HOLDS("RT-03", "HC-05");`, first in its body. docs/conformance.md is made
// from these and from the run: a row is held when a test that carries its id ran and passed.
//
// Hides: nothing.
// Threads: the test's own.
// Failure: none; an id that tests/conformance does not know fails the table, not the test.
#pragma once

#include <gtest/gtest.h>

#include <string_view>

#define HOLDS(...) ::waymark::test::holds({__VA_ARGS__})

namespace waymark::test {

inline void holds(std::initializer_list<std::string_view> rows) {
  for (const std::string_view row : rows) ::testing::Test::RecordProperty(std::string(row), "held");
}

}  // namespace waymark::test
