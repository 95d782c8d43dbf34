// Tables of cases: one row a line, columns separated by tabs, the first a JSON string, "#" before a comment.
//
// Hides: the file's syntax.
// Threads: pure functions.
// Failure: a test failure where the file is missing or a row can't be read.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace waymark::config {

struct Row {
  std::string input;
  std::vector<std::string> columns;  // behind the input
  int line = 0;
};

inline std::vector<Row> read_table(const std::string& name) {
  std::ifstream file(std::string(WAYMARK_SOURCE_DIR) + "/tests/config/cases/" + name);
  EXPECT_TRUE(file.is_open()) << name;
  std::vector<Row> rows;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty() || line.front() == '#') continue;
    Row row{.input = {}, .columns = {}, .line = number};
    std::size_t start = 0;
    for (bool first = true; start <= line.size(); first = false) {
      const auto end = std::min(line.find('\t', start), line.size());
      const std::string cell = line.substr(start, end - start);
      if (first) {
        row.input = nlohmann::json::parse(cell).get<std::string>();
      } else {
        row.columns.push_back(cell);
      }
      start = end + 1;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace waymark::config
