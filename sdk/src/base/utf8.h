// Text that is UTF-8, and text that is not.
//
// Hides: what a well-formed sequence is (RFC 3629: no overlong forms, no surrogates).
// Threads: pure functions.
// Failure: none; what is not well-formed is replaced.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace waymark {

inline bool ascii(std::string_view text) noexcept {
  const char* p = text.data();
  std::size_t n = text.size();
  std::uint64_t bits = 0;
  std::uint64_t word;
  if (n >= 8) {
    for (; n > 8; n -= 8, p += 8) {
      std::memcpy(&word, p, 8);
      bits |= word;
    }
    std::memcpy(&word, p + n - 8, 8);
    bits |= word;
  } else {
    for (; n > 0; --n, ++p) bits |= static_cast<std::uint64_t>(static_cast<unsigned char>(*p));
  }
  return (bits & 0x8080808080808080u) == 0;
}
[[nodiscard]] bool valid_utf8(std::string_view text) noexcept;
// A copy with U+FFFD in place of every byte that is not part of a well-formed sequence.
[[nodiscard]] std::string sanitized(std::string_view text);
// The longest prefix of at most `characters` code points.
[[nodiscard]] std::string_view first_characters(std::string_view text, std::size_t characters) noexcept;

// Text as it may go on the wire: itself where it is well-formed, else a sanitized copy in `scratch`.
inline std::string_view clean(std::string_view text, std::string& scratch) {
  if (ascii(text) || valid_utf8(text)) [[likely]] return text;
  scratch = sanitized(text);
  return scratch;
}

}  // namespace waymark
