// What the fuzzers share: a property that must hold, and the overrun that shows that a fuzzer would find one.
//
// The fuzzers are built as they are and once more with WAYMARK_FUZZ_PLANT.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace waymark::fuzz {

// The input as text. libFuzzer hands out an allocation of exactly this size, so a read behind it is seen.
inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A property of the reader's answer.
inline void check(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", property);
  std::abort();
}

// Called with something that only an accepted input outside the seed corpus can meet. Where a fault is planted, it
// reads one byte behind the input.
inline void plant([[maybe_unused]] bool reached, [[maybe_unused]] std::string_view input) {
#ifdef WAYMARK_FUZZ_PLANT
  if (reached) {
    const volatile char* end = input.data() + input.size();
    [[maybe_unused]] const char overrun = *end;
  }
#endif
}

}  // namespace waymark::fuzz
