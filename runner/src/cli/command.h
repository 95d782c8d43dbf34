// What every command shares: its exit codes, how it says what is wrong, where its output goes, and the store it looks at.
//
// Hides: CLI11's callbacks, the terminal, how a store is opened without making one by mistake.
// Threads: one.
// Failure: WrongUse for what exits with 2; Error for what could not be done.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "waymark/client.h"

namespace waymark::cli {

// docs/command.md and `waymark --help` have this table.
inline constexpr int kDone = 0;
inline constexpr int kNotDone = 1;
inline constexpr int kWrongUse = 2;
inline constexpr int kJobFailed = 3;
inline constexpr int kJobCanceled = 4;
inline constexpr int kTimeUp = 5;

// The command line, or what it names, is wrong: one line, and exit code 2.
class WrongUse : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Says it on standard error; returns `code`.
int complain(const std::string& what, int code);
// On standard output, at once; its result is the exit code.
int print(const std::string& text);

// A command: what it is for, and below its options the rest of its help. Where it has something to do, `exit_code` is
// what `act` returns.
CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& purpose, const std::string& footer);
// Commands that have a first word in common. WrongUse where no second one is given.
CLI::App& add_group(CLI::App& parent, const std::string& name, const std::string& purpose);
[[noreturn]] void refuse_without_command(CLI::App& group);
void on_run(CLI::App& command, int& exit_code, std::function<int()> act);

struct Output {
  bool json = false;
  bool no_color = false;
  [[nodiscard]] bool color() const;  // on a terminal that wants them
};
void add_output(CLI::App& command, Output& output);
[[nodiscard]] bool is_terminal();
[[nodiscard]] int terminal_width();  // of the terminal, else of COLUMNS, else 100

void add_store(CLI::App& command, std::string& place);
// WrongUse where there is no store (`make`: it is made), one of a newer program, or something else; Error where it can't
// be used now.
[[nodiscard]] std::unique_ptr<Client> open_client(const std::string& place, bool make = false,
                                                  const std::string& cluster = "default");
// By its id, or characters that only its id begins with.
[[nodiscard]] Job find_job(Client& client, const std::string& id);

}  // namespace waymark::cli
