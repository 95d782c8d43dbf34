#include "cli/table.h"

#include <algorithm>

#include "cli/display_text.h"

namespace waymark::cli {

std::string paint(std::string_view color, const std::string& text) {
  return color.empty() || text.empty() ? text : "\x1b[" + std::string(color) + "m" + text + "\x1b[0m";
}

std::string draw_table(const std::vector<Column>& heads, const std::vector<std::vector<Cell>>& rows, bool color,
                       int indent, int width) {
  std::vector<int> widths;
  for (const Column& head : heads) widths.push_back(columns(head.head));
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], columns(row[c].text));
  }
  std::string text;
  const auto line = [&](const std::vector<Cell>& row) {
    std::string one(static_cast<std::size_t>(indent), ' ');
    int used = indent;
    std::string gap;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const int own = columns(row[c].text);
      const std::string fill(static_cast<std::size_t>(std::max(widths[c] - own, 0)), ' ');
      if (own > 0) {
        if (heads[c].right) gap += fill;
        std::string shown = row[c].text;
        const int start = used + static_cast<int>(gap.size());
        if (width > 0 && start >= width) break;
        if (width > 0 && start + own > width) shown = cut(shown, width - start);
        one += gap + paint(color ? row[c].color : std::string_view(), shown);
        used = start + columns(shown);
        gap.clear();
        if (!heads[c].right) gap = fill;
      } else {
        gap += fill;
      }
      gap += "  ";
    }
    text += one + "\n";
  };
  std::vector<Cell> first;
  bool headed = false;
  for (const Column& head : heads) {
    first.push_back({head.head, "2"});
    headed = headed || !head.head.empty();
  }
  if (headed) line(first);
  for (const auto& row : rows) line(row);
  return text;
}

}  // namespace waymark::cli
