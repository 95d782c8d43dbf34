// Columns as wide as what is in them, and the colours of a terminal.
//
// Hides: escape sequences and alignment.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace waymark::cli {

struct Cell {
  std::string text;        // printable
  std::string_view color = {};  // see paint(); empty: none
};

struct Column {
  std::string head;
  bool right = false;  // for numbers
};

// `text` in this colour: SGR numbers such as "31", or "1;32". As it is where there is none.
[[nodiscard]] std::string paint(std::string_view color, const std::string& text);

// A line of heads and one for each row, with `indent` before them; lines are cut to `width` where that is not 0.
[[nodiscard]] std::string draw_table(const std::vector<Column>& columns, const std::vector<std::vector<Cell>>& rows,
                                     bool color, int indent = 0, int width = 0);

}  // namespace waymark::cli
