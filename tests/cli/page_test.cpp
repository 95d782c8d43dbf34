// docs/command.md says what `--help` says: every command, its options and arguments, and the exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "support/command.h"

namespace waymark {
namespace {

using Options = std::vector<std::pair<std::string, std::string>>;  // the words before it, what it is

std::string help(const std::string& command) {
  std::istringstream words(command);
  std::vector<std::string> arguments = {WAYMARK_COMMAND};
  for (std::string word; words >> word;) arguments.push_back(word);
  arguments.emplace_back("--help");
  const waymark::testing::CommandResult result = waymark::testing::run_command(arguments);
  EXPECT_EQ(result.exit_code, 0) << command;
  return result.output;
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) all.push_back(line);
  return all;
}

// The entries of one section of a help text.
Options section(const std::string& text, const std::string& name) {
  Options found;
  bool inside = false;
  for (const std::string& line : lines(text)) {
    if (!line.starts_with("  ")) {
      inside = line == name + ":";
    } else if (inside) {
      const bool goes_on = line.starts_with("      ");
      const std::size_t gap = goes_on ? 2 : line.find("  ", 2);
      const std::size_t at = gap == std::string::npos ? std::string::npos : line.find_first_not_of(' ', gap);
      if (!goes_on) found.emplace_back(line.substr(2, gap == std::string::npos ? gap : gap - 2), "");
      if (at != std::string::npos) found.back().second += (found.back().second.empty() ? "" : " ") + line.substr(at);
    }
  }
  return found;
}

// Every command that has none below it.
void leaves(const std::string& command, std::vector<std::string>& found) {
  const Options below = section(help(command), "Subcommands");
  if (below.empty() && !command.empty()) found.push_back(command);
  for (const auto& [name, purpose] : below) leaves(command.empty() ? name : command + " " + name, found);
}

std::string page() {
  std::ifstream file(WAYMARK_SOURCE_DIR "/docs/command.md");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Rows of two cells below a heading; the first without its marks.
Options table(const std::string& text, const std::string& heading) {
  Options rows;
  bool inside = false;
  for (const std::string& line : lines(text)) {
    if (line.starts_with("#")) inside = line == heading;
    std::smatch cells;
    if (!inside || !std::regex_match(line, cells, std::regex(R"(\| (.+?) \| (.+) \|)")) || line.starts_with("| ---")) continue;
    rows.emplace_back(std::regex_replace(cells[1].str(), std::regex("`"), ""), cells[2].str());
  }
  if (!rows.empty()) rows.erase(rows.begin());  // its head
  return rows;
}

// "-f,--follow" or "--width N:INT in [40 - 1000]" as the page writes them: "--follow, -f", "--width".
std::string option_name(const std::string& words) {
  const std::string first = words.substr(0, words.find(' '));
  const std::size_t comma = first.find(',');
  return comma == std::string::npos ? first : first.substr(comma + 1) + ", " + first.substr(0, comma);
}

TEST(CommandPage, HasEveryCommandWithItsOptions) {
  std::vector<std::string> commands;
  leaves("", commands);
  ASSERT_GT(commands.size(), 20u);
  const std::string text = page();
  for (const std::string& command : commands) {
    const std::string own = help(command);
    Options expected;
    for (const auto& [words, what] : section(own, "Positionals")) {
      const std::vector<std::string> parts = lines(std::regex_replace(words, std::regex(" "), "\n"));
      expected.emplace_back(parts.size() > 1 ? parts[1] : parts[0], what);
    }
    for (const auto& [words, what] : section(own, "Options")) {
      if (words != "-h,--help") expected.emplace_back(option_name(words), what);
    }
    for (auto& [name, what] : expected) {  // as a table's cell has it
      name = std::regex_replace(name, std::regex(":.*| \\.\\.\\."), "");
      name = std::regex_replace(name, std::regex("\\|"), "\\|");
    }
    EXPECT_EQ(table(text, "### `waymark " + command + "`"), expected) << command;
    std::string codes = own.substr(std::min(own.find("Exit codes: "), own.size()));
    codes.erase(codes.find_last_not_of(" \n") + 1);
    EXPECT_THAT(text, ::testing::HasSubstr("\n" + codes + "\n")) << command;
  }
}

TEST(CommandPage, HasTheTableOfExitCodes) {
  Options expected = section(help(""), "Exit codes");
  ASSERT_EQ(expected.size(), 6u);
  EXPECT_EQ(table(page(), "## Exit codes"), expected);
}

TEST(CommandPage, EveryHelpHasExamplesAndExitCodes) {
  std::vector<std::string> commands;
  leaves("", commands);
  for (const std::string& command : commands) {
    const std::string text = help(command);
    EXPECT_THAT(text, ::testing::HasSubstr("Examples:\n  ")) << command;
    EXPECT_THAT(text, ::testing::HasSubstr("Exit codes: 0 ")) << command;
  }
}

}  // namespace
}  // namespace waymark
