#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/display_text.h"
#include "cli/job_text.h"
#include "instrumentation.h"
#include "waymark/client.h"
#include "waymark/error.h"

namespace waymark::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string store;
  std::string name;
  bool json = false;
};

std::string_view kind_word(AutomationKind kind) { return kind == AutomationKind::cron ? "cron" : "directory"; }
std::string_view missed_word(MissedRuns missed) {
  return missed == MissedRuns::skip ? "skip" : missed == MissedRuns::one ? "one" : "all";
}
std::string time_or(Timestamp time, std::string_view none) {
  return time == Timestamp{} ? std::string(none) : time_text(time);
}
std::string occasion(const Automation& a) {
  return printable(a.kind == AutomationKind::cron ? a.schedule + " " + a.time_zone : a.directory + "/" + a.pattern);
}

Json as_json(const Automation& a) {
  Json one{{"name", a.name}, {"kind", kind_word(a.kind)}};
  if (a.kind == AutomationKind::cron) {
    one["schedule"] = a.schedule;
    one["time_zone"] = a.time_zone;
    one["missed"] = missed_word(a.missed);
    one["next_ns"] = time_json(a.next_at);
  } else {
    one["directory"] = a.directory;
    one["pattern"] = a.pattern;
  }
  one["task"] = {{"name", a.task.name}, {"version", a.task.version}};
  one["input"] = a.input.empty() ? Json() : Json::parse(a.input, nullptr, false);
  one["cluster"] = a.cluster;
  one["max_retries"] = a.max_retries;
  one["priority"] = a.priority;
  one["paused"] = a.paused;
  one["created_ns"] = time_json(a.created_at);
  one["last_ns"] = time_json(a.last_fired_at);
  one["last_job"] = a.last_job.empty() ? Json() : Json(a.last_job);
  one["jobs"] = a.jobs;
  return one;
}

std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string list(const std::vector<Automation>& all) {
  if (all.empty()) return "the store has no automations\n";
  using Row = std::array<std::string, 7>;
  std::vector<Row> rows{{"name", "state", "occasion", "task", "jobs", "last", "next"}};
  for (const Automation& a : all) {
    rows.push_back({printable(a.name), a.paused ? "paused" : "on", occasion(a), printable(a.task.name),
                    std::to_string(a.jobs), time_or(a.last_fired_at, "never"),
                    a.kind == AutomationKind::cron ? time_or(a.next_at, "never") : "on arrival"});
  }
  std::array<int, 7> widths{};
  for (const Row& row : rows) {
    for (std::size_t c = 0; c < widths.size(); ++c) widths[c] = std::max(widths[c], columns(row[c]));
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < widths.size(); ++c) line += pad_right(row[c], widths[c]) + "  ";
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string show(const Automation& a) {
  std::string text = printable(a.name) + ": " + (a.paused ? "paused" : "on") + "\n";
  const auto line = [&](std::string_view what, const std::string& value) {
    text += "  " + pad_right(std::string(what), 12) + value + "\n";
  };
  if (a.kind == AutomationKind::cron) {
    line("schedule", printable(a.schedule) + ", " + printable(a.time_zone));
    line("missed runs", std::string(missed_word(a.missed)));
    line("next", time_or(a.next_at, "never"));
  } else {
    line("files", occasion(a));
  }
  line("task", printable(a.task.name) + " " + printable(a.task.version));
  if (!a.input.empty()) line("input", printable(a.input));
  line("cluster", printable(a.cluster));
  line("retries", std::to_string(a.max_retries));
  line("priority", std::to_string(a.priority));
  line("since", time_or(a.created_at, "?"));
  line("jobs", std::to_string(a.jobs));
  line("last", a.last_job.empty() ? "never" : time_or(a.last_fired_at, "?") + ", job " + printable(a.last_job));
  return text;
}

int run(Automations& automations, const Arguments& arguments) {
  const std::vector<Job> jobs = automations.run(arguments.name);
  Json ids = Json::array();
  std::string text;
  for (const Job& job : jobs) {
    ids.push_back(job.id);
    text += "submitted job " + job.id + "\n";
  }
  if (jobs.empty()) text = "nothing to submit: there is no file that has no job yet\n";
  return print(arguments.json ? text_of({{"jobs", ids}}) : text);
}

}  // namespace

void add_automations(CLI::App& app, int& exit_code) {
  CLI::App& group = add_group(app, "automations", "What submits jobs by itself: at times, and for files");
  using Act = std::function<int(Automations&, const Arguments&)>;
  const auto add = [&](const char* name, const char* what, const char* example, bool named, bool json, Act act) {
    const auto arguments = std::make_shared<Arguments>();
    CLI::App& command =
        add_command(group, name, what,
                    std::string("Examples:\n  waymark automations ") + example +
                        "\n\nExit codes: 0 done; 1 it could not be done; 2 the command line is wrong, or names what is not there");
    if (named) command.add_option("name", arguments->name, "The automation's name")->required()->type_name("NAME");
    add_store(command, arguments->store);
    if (json) command.add_flag("--json", arguments->json, "As JSON");
    on_run(command, exit_code, [arguments, act = std::move(act)] {
      return act(open_client(arguments->store)->automations(), *arguments);
    });
  };
  const auto did = [](const char* what, const Arguments& a) { return print(what + (" " + printable(a.name)) + "\n"); };
  add("list", "All of them, with what they did last and will do next", "list", false, true,
      [](Automations& automations, const Arguments& a) {
        const std::vector<Automation> all = automations.list();
        if (!a.json) return print(list(all));
        Json json = Json::array();
        for (const Automation& one : all) json.push_back(as_json(one));
        return print(text_of({{"automations", std::move(json)}}));
      });
  add("show", "One of them, with all that is known of it", "show 'hourly mosaic' --json", true, true,
      [](Automations& automations, const Arguments& a) {
        const Automation one = automations.find(a.name);
        return print(a.json ? text_of(as_json(one)) : show(one));
      });
  add("pause", "Let it submit nothing until it is resumed", "pause 'hourly mosaic'", true, false,
      [did](Automations& automations, const Arguments& a) {
        automations.pause(a.name);
        return did("paused", a);
      });
  add("resume", "Let it go on; ticks that came meanwhile are not made up for", "resume 'hourly mosaic'", true, false,
      [did](Automations& automations, const Arguments& a) {
        automations.resume(a.name);
        return did("resumed", a);
      });
  add("remove", "Forget it; its jobs stay", "remove 'hourly mosaic'", true, false,
      [did](Automations& automations, const Arguments& a) {
        automations.remove(a.name);
        return did("removed", a);
      });
  add("run", "Submit its job now, or one for each file that has none yet", "run 'hourly mosaic' --store /data/store.db", true,
      true, run);
}

}  // namespace waymark::cli
