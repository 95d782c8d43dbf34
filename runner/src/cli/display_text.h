// Text as a terminal shows it: what a cell holds, and what must not reach it.
//
// Hides: UTF-8 decoding and the widths of Unicode characters (not the locale's: the picture is the same everywhere).
// Threads: pure functions.
// Failure: none; what is not UTF-8 becomes U+FFFD.
#pragma once

#include <string>
#include <string_view>

namespace waymark::cli {

// The text on one line: line ends and tabs become spaces, other control characters (escape sequences in somebody's
// telemetry must not drive this terminal) and bad UTF-8 become U+FFFD.
[[nodiscard]] std::string printable(std::string_view text);

// Cells that `printable` text takes: 0 for combining marks, 2 for East Asian wide characters and emoji.
[[nodiscard]] int columns(std::string_view text);

// At most `width` cells of it; "…" stands for what was cut off.
[[nodiscard]] std::string cut(std::string_view text, int width);

// Filled up with spaces to `width` cells.
[[nodiscard]] std::string pad_right(std::string_view text, int width);
[[nodiscard]] std::string pad_left(std::string_view text, int width);

}  // namespace waymark::cli
