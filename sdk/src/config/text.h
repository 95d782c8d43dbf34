// Text from outside: how it is trimmed, decoded, and shown in messages.
//
// Hides: which bytes are safe to print.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace waymark::config {

// Without surrounding ASCII white space.
[[nodiscard]] std::string_view trimmed(std::string_view text) noexcept;

// ASCII lower case; other bytes stay.
[[nodiscard]] std::string lower(std::string_view text);

// For messages: in single quotes, cut after 80 bytes, everything but printable ASCII as \xNN. Never for secrets.
[[nodiscard]] std::string in_quotes(std::string_view text);

// "%41" to "A". Nothing where a "%" is not followed by two hexadecimal digits.
[[nodiscard]] std::optional<std::string> percent_decoded(std::string_view text);

}  // namespace waymark::config
