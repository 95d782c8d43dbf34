// Bytes as text of 64 letters.
//
// Hides: the alphabets, the padding.
// Threads: pure functions.
// Failure: nothing for a text that is none.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace waymark {

// Standard alphabet, padded.
void append_base64(std::string& out, std::string_view bytes);
// Standard and URL-safe alphabet, padded or not.
[[nodiscard]] std::optional<std::string> from_base64(std::string_view text);

}  // namespace waymark
