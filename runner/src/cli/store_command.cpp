// waymark store: check, vacuum, migrate.
#include <memory>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/display_text.h"
#include "cli/job_text.h"
#include "cli/state.h"
#include "waymark/error.h"
#include "waymark/store.h"

namespace waymark::cli {
namespace {

struct Arguments {
  std::string store;
  Output output;
};

int check(const Arguments& a) {
  StoreCheck found;
  try {
    found = check_store(a.store);
  } catch (const Error& error) {
    throw WrongUse(error.what());
  }
  const std::string place = "store " + printable(found.version.place);
  if (found.version.found == 0) throw WrongUse(place + ": there is none; --store names another");
  if (found.version.found != found.version.known && found.problems.empty()) {
    throw WrongUse(place + ": its schema has version " + std::to_string(found.version.found) + ", this program's is " +
                   std::to_string(found.version.known) +
                   (found.version.found < found.version.known ? ": 'waymark store migrate' brings it up to date"
                                                              : ": use a newer program, or another store"));
  }
  if (a.output.json) {
    Json problems = found.problems;
    if (problems.is_null()) problems = Json::array();
    const int code = print(write_json({{"place", found.version.place}, {"version", found.version.found}, {"bytes", found.bytes},
                                       {"unused_bytes", found.unused_bytes}, {"jobs", found.jobs}, {"tasks", found.tasks},
                                       {"problems", std::move(problems)}}));
    return code != kDone ? code : found.problems.empty() ? kDone : kNotDone;
  }
  std::string text = place + ": version " + std::to_string(found.version.found) + ", " + human_bytes(found.bytes) + " (" +
                     human_bytes(found.unused_bytes) + " unused), " + count(found.jobs, "job") + ", " + count(found.tasks, "task") + "\n";
  for (const std::string& problem : found.problems) {
    text += (a.output.color() ? paint("1;31", printable(problem)) : printable(problem)) + "\n";
  }
  if (found.problems.empty()) text += "it is sound\n";
  const int code = print(text);
  if (code != kDone || found.problems.empty()) return code;
  return complain(place + ": " + count(found.problems.size(), "problem") + " found", kNotDone);
}

int vacuum(const Arguments& a) {
  const auto client = open_client(a.store);
  const std::uint64_t bytes = client->store().vacuum();
  if (a.output.json) return print(write_json({{"given_back_bytes", bytes}}));
  return print(human_bytes(bytes) + " given back\n");
}

int migrate(const Arguments& a) {
  StoreVersion before;
  try {
    before = store_version(a.store);
  } catch (const Error& error) {
    throw WrongUse(error.what());
  }
  (void)open_client(a.store);  // it brings an older one up to date, and refuses what is none or newer
  if (a.output.json) {
    return print(write_json({{"place", before.place}, {"from", before.found}, {"to", before.known}}));
  }
  const std::string place = "store " + printable(before.place) + ": ";
  return print(before.found == before.known ? place + "it has version " + std::to_string(before.found) + " already\n"
                                            : place + "brought from version " + std::to_string(before.found) + " to " +
                                                  std::to_string(before.known) + "\n");
}

}  // namespace

void add_store_command(CLI::App& app, int& exit_code) {
  CLI::App& store = add_group(app, "store", "Look after the store");
  const auto add = [&](const char* name, const char* purpose, const std::string& footer, int (*act)(const Arguments&)) {
    const auto a = std::make_shared<Arguments>();
    CLI::App& c = add_command(store, name, purpose, footer);
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a, act] { return act(*a); });
  };
  add("check", "Read all of the store, and say what is damaged or contradicts itself",
      "Changes nothing; runners go on.\n\n"
      "Examples:\n  waymark store check\n  waymark store check --store /srv/waymark/store.db --json\n\n"
      "Exit codes: 0 it is sound; 1 it is not; 2 there is none, or it has another version",
      check);
  add("vacuum", "Give the room that removed jobs have left back to the disk",
      "Runners wait meanwhile. It needs as much room again as the store has.\n\n"
      "Examples:\n  waymark store vacuum\n\n"
      "Exit codes: 0 done; 1 it could not be done; 2 there is none, or it is of a newer program",
      vacuum);
  add("migrate", "Bring a store of an older version up to date",
      "Whatever opens it does so, too. Programs of the older version can't use it from then on.\n\n"
      "Examples:\n  waymark store migrate --store /srv/waymark/store.db\n\n"
      "Exit codes: 0 done; 1 it could not be done; 2 there is none, or it is of a newer program",
      migrate);
}

}  // namespace waymark::cli
