#include "cli/command.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <utility>

#include "cli/display_text.h"
#include "waymark/error.h"
#include "waymark/store.h"

namespace waymark::cli {

int complain(const std::string& what, int code) {
  std::cerr << "waymark: " << what << '\n';
  return code;
}

int print(const std::string& text) {
  std::cout << text << std::flush;
  return std::cout ? kDone : complain("standard output can't be written", kNotDone);
}

CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& purpose, const std::string& footer) {
  CLI::App* command = parent.add_subcommand(name, purpose);
  command->footer(footer);
  return *command;
}

CLI::App& add_group(CLI::App& parent, const std::string& name, const std::string& purpose) {
  CLI::App& group = add_command(parent, name, purpose,
                                "'waymark " + name + " COMMAND --help' shows a command's options and examples.");
  group.callback([&group] {
    if (group.get_subcommands().empty()) refuse_without_command(group);
  });
  return group;
}

void refuse_without_command(CLI::App& group) {
  std::string names;
  for (const CLI::App* command : group.get_subcommands([](CLI::App*) { return true; })) {
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  const std::string own = group.get_parent() ? "waymark " + group.get_name() : group.get_name();
  throw WrongUse("a command is missing: one of " + names + "; see " + own + " --help");
}

void on_run(CLI::App& command, int& exit_code, std::function<int()> act) {
  command.callback([&exit_code, act = std::move(act)] { exit_code = act(); });
}

bool is_terminal() { return isatty(STDOUT_FILENO) != 0; }

bool Output::color() const {
  const char* without = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return !no_color && is_terminal() && !(without && *without) && !(term && std::string_view(term) == "dumb");
}

void add_output(CLI::App& command, Output& output) {
  command.add_flag("--json", output.json, "As JSON");
  command.add_flag("--no-color", output.no_color, "No colors, also on a terminal");
}

int terminal_width() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const int width = columns ? std::atoi(columns) : 0;
  return width > 0 ? width : 100;
}

void add_store(CLI::App& command, std::string& place) {
  command.add_option("--store", place, "The store; default: ~/.local/state/waymark/store.db")->type_name("PATH");
}

std::unique_ptr<Client> open_client(const std::string& place, bool make, const std::string& cluster) {
  StoreVersion version;
  try {
    version = store_version(place);
  } catch (const Error& error) {
    throw WrongUse(error.what());
  }
  if (version.found == 0 && !make) {
    throw WrongUse("store " + printable(version.place) + ": there is none; --store names another");
  }
  if (version.found > version.known) {
    throw WrongUse("store " + printable(version.place) + ": its schema has version " + std::to_string(version.found) +
                   ", this program knows up to " + std::to_string(version.known) +
                   ": use a newer program, or another store");
  }
  return std::make_unique<Client>(ClientOptions{.name = "waymark", .store = place, .cluster = cluster});
}

Job find_job(Client& client, const std::string& id) {
  if (id.empty()) throw WrongUse("a job's id is missing");
  const JobPage page = client.jobs().query({.id = id, .limit = 2});
  if (page.jobs.empty()) throw WrongUse("job " + printable(id) + ": the store knows no such job");
  if (page.jobs.size() > 1) {
    throw WrongUse("job " + printable(id) + ": several jobs' ids begin with this, " + page.jobs[0].id + " and " +
                   page.jobs[1].id + " among them: give more of it");
  }
  return client.jobs().find(page.jobs[0].id);
}

}  // namespace waymark::cli
