// Runs a program as a person would, and keeps what it says.
//
// Hides: pipes, the shell's quoting, and exit codes.
// Threads: any.
// Failure: a program that can't be started has the shell's exit code (126, 127).
#pragma once

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

namespace waymark::testing {

struct CommandResult {
  int exit_code = -1;  // 128 + the signal's number where one ended it
  std::string output;  // standard output and standard error
};

// `before` stands in front of the command: NAME=value settings for the shell.
inline CommandResult run_command(const std::vector<std::string>& arguments, const std::string& before = {}) {
  std::string line = before;
  for (const std::string& argument : arguments) {
    line += " '";
    for (const char c : argument) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  CommandResult result;
  std::FILE* pipe = popen((line + " 2>&1 </dev/null").c_str(), "r");
  if (!pipe) return result;
  std::array<char, 4096> buffer{};
  while (const std::size_t size = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    result.output.append(buffer.data(), size);
  }
  const int status = pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace waymark::testing
