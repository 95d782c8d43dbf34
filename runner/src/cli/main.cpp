// The `waymark` command: what a person wants to know of the telemetry and the jobs of this machine, without a backend.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <mutex>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/config_check.h"
#include "cli/display_text.h"
#include "cli/state.h"
#include "cli/waterfall.h"
#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace {

namespace fs = std::filesystem;
using namespace waymark;

using cli::complain;
using cli::kWrongUse;
using cli::print;
using cli::terminal_width;

bool wants_color(bool no_color) { return cli::Output{.no_color = no_color}.color(); }

struct TraceArguments {
  std::vector<std::string> paths;
  std::string job;
  int width = 0;
  bool no_color = false;
  bool all = false;
};

int trace(const TraceArguments& arguments) {
  for (const std::string& path : arguments.paths) {
    if (!fs::exists(path)) return complain(path + ": no such file or directory", kWrongUse);
  }
  ReadTelemetry telemetry;
  for (const std::string& path : arguments.paths) {
    ReadTelemetry part = fs::is_directory(path) ? read_state_directory(path) : read_json_file(path);
    std::ranges::move(part.spans, std::back_inserter(telemetry.spans));
    std::ranges::move(part.logs, std::back_inserter(telemetry.logs));
  }
  const std::string picture = cli::draw_waterfall(telemetry, {.width = arguments.width > 0 ? arguments.width : terminal_width(),
                                                              .color = wants_color(arguments.no_color),
                                                              .all = arguments.all,
                                                              .job = arguments.job});
  if (!picture.empty()) {
    std::cout << picture << std::flush;
    return std::cout ? 0 : complain("standard output can't be written", 1);
  }
  if (arguments.job.empty() || telemetry.spans.empty()) return complain("there are no spans in what was named", 1);
  return complain("no trace there belongs to job " + arguments.job, kWrongUse);
}

struct RecoverArguments {
  std::string directory;
  std::string endpoint;
  std::string traces_file;
  std::string logs_file;
  std::string metrics_file;
  [[nodiscard]] bool files() const { return !traces_file.empty() || !logs_file.empty() || !metrics_file.empty(); }
  std::string destination;
  std::string timeout = "30s";
};

std::string count(std::uint64_t number, std::string_view noun) {
  return std::to_string(number) + " " + std::string(noun) + (number == 1 ? "" : "s");
}

// What one dead process had left, on a line, and each span it had open on one of its own.
void tell(const Recovered& found) {
  std::string text = "process " + std::to_string(found.process_id);
  if (const auto service = find_string(found.resource, "service.name"); !service.empty()) {
    text += " (" + cli::printable(service) + ")";
  }
  text += ": " + count(found.finished_spans, "finished span") + ", " + count(found.log_records, "log record") + ", " +
          count(found.interrupted.size(), "interrupted span");
  if (found.damaged_bytes > 0) text += ", " + std::to_string(found.damaged_bytes) + " bytes damaged";
  if (!found.problem.empty()) text += "; " + cli::printable(found.problem);
  text += '\n';
  for (const InterruptedSpan& span : found.interrupted) {
    text += "  " + cli::printable(span.name) + ", open for " + cli::human_duration(span.end - span.start) +
            ", trace " + span.context.trace_id.hex() + (span.crashed_here ? ", its thread crashed" : "") + '\n';
  }
  std::cout << text << std::flush;
}

// Says what takes the records of `signal`: where, and under which destination's name (empty: the endpoint's own).
void take(const RecoverArguments& arguments, Signal signal, const std::string& name) {
  const std::string& file = signal == Signal::traces ? arguments.traces_file
                            : signal == Signal::logs ? arguments.logs_file
                                                     : arguments.metrics_file;
  if (arguments.files() && file.empty()) return;
  const std::string endpoint = arguments.files() ? "file:" + file : arguments.endpoint;  // empty: the environment's
  if (signal == Signal::traces) {
    configure_otel_tracing(
        {.service = "waymark-recover", .endpoint = endpoint, .name = name, .state_directory = arguments.directory});
  } else if (signal == Signal::metrics) {
    configure_otel_metrics({.service = "waymark-recover",
                            .endpoint = endpoint,
                            .process = false,
                            .sdk = false,
                            .name = name,
                            .state_directory = arguments.directory});
  } else {
    configure_otel_logging(
        {.service = "waymark-recover", .endpoint = endpoint, .name = name, .state_directory = arguments.directory});
  }
}

int recover(const RecoverArguments& arguments) {
  if (!fs::is_directory(arguments.directory)) {
    return complain(arguments.directory + ": no such directory", kWrongUse);
  }
  if (!arguments.endpoint.empty() && arguments.files()) {
    return complain("--endpoint and --traces-file, --logs-file or --metrics-file: give one or the other", kWrongUse);
  }
  const auto timeout = parse_duration(arguments.timeout, "--timeout");
  telemetry().on_recovered(tell);
  for (const Signal signal : {Signal::traces, Signal::logs}) take(arguments, signal, arguments.destination);
  telemetry().recover();

  // Records wait for a destination by its name. Where they go somewhere else today, and it is clear whose they are, they
  // are taken under that name.
  const Stats found = stats();
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    std::vector<std::string> waiting;
    bool wanted = false;
    for (const DestinationStats& d : found.destinations) {
      if (d.signal != signal) continue;
      if (!d.configured) waiting.push_back(d.name);
      wanted = wanted || (d.configured && d.counts.offered == 0);
    }
    if (!wanted || waiting.empty()) continue;
    if (waiting.size() > 1 || !arguments.destination.empty()) {
      std::string names;
      for (const std::string& name : waiting) names += (names.empty() ? "" : ", ") + cli::printable(name);
      return complain(std::string(signal_name(signal)) + " wait there for other destinations; name one with --destination: " +
                          names, kWrongUse);
    }
    std::cout << signal_name(signal) << " that waited for " << cli::printable(waiting.front()) << " are taken\n";
    take(arguments, signal, waiting.front());
  }

  // Metrics are taken where some wait: who sends none has no endpoint for them.
  for (const DestinationStats& d : found.destinations) {
    const bool named = arguments.destination.empty() || arguments.destination == d.name;
    if (d.signal == Signal::metrics && !d.configured && named) take(arguments, Signal::metrics, d.name);
  }

  const bool delivered = force_flush(timeout);
  std::uint64_t left = 0;
  for (const DestinationStats& d : stats().destinations) {
    left += d.counts.pending;
    if (d.configured && d.counts.offered == 0) continue;
    std::cout << signal_name(d.signal) << " for " << cli::printable(d.name) << ": " << d.counts.delivered << " delivered, "
              << d.counts.rejected << " rejected, " << d.counts.dropped << " dropped, " << d.counts.pending
              << " still to be sent";
    if (!d.last_error.empty()) std::cout << " (" << cli::printable(d.last_error) << ")";
    std::cout << '\n';
  }
  shutdown();
  if (delivered && left == 0) return 0;
  return complain("not everything could be delivered; what is left stays in " + arguments.directory, 1);
}

Timestamp right_now() {
  return std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
}

struct ConfigArguments {
  std::string file;
  bool json = false;
};

int config_check(const ConfigArguments& arguments) {
  ConfigNotes notes;
  const Config config = read_config_file(arguments.file, &notes);
  for (const std::string& warning : notes.warnings) std::cerr << "warning: " << cli::printable(warning) << '\n';
  return print(arguments.json ? cli::config_json(config, notes) : cli::config_yaml(config, notes));
}

struct StatusArguments {
  std::string directory;
  bool json = false;
  bool no_color = false;
};

int status(const StatusArguments& arguments) {
  const StateStatus found = read_state_status(arguments.directory);
  return print(arguments.json ? cli::status_json(found, right_now())
                              : cli::show_status(found, right_now(), wants_color(arguments.no_color)));
}

struct PurgeArguments {
  std::string directory;
  std::string older_than;
  bool yes = false;
  bool dry_run = false;
};

bool confirmed(const std::string& question) {
  std::cout << question << " [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

int purge(const PurgeArguments& arguments) {
  PurgeOptions options;
  options.pending = true;
  options.only_look = true;
  if (!arguments.older_than.empty()) options.older_than = parse_duration(arguments.older_than, "--older-than");
  const Purged found = purge_state_directory(arguments.directory, options);
  if (arguments.dry_run) return print(cli::show_purged(found, true));
  PurgeOptions delivered_only = options;
  delivered_only.pending = false;
  const Purged delivered = purge_state_directory(arguments.directory, delivered_only);
  const std::size_t pending = found.removed.size() - std::min(found.removed.size(), delivered.removed.size());
  if (pending > 0 && !arguments.yes) {
    const std::string what = count(pending, "dead process") + (pending == 1 ? " has" : " have") +
                             " records that were never delivered";
    if (isatty(STDIN_FILENO) == 0) {
      return complain(what + "; nothing was removed. 'waymark recover' delivers them, --yes removes them too", 1);
    }
    std::cout << cli::show_purged(found, true);
    if (!confirmed(what + ". Remove them all the same?")) return complain("nothing was removed", 1);
    // The answer is about what was shown, not about who has died since.
    for (const StateProcess& process : found.removed) options.only.push_back(process.directory);
  }
  options.pending = arguments.yes || pending > 0;
  options.only_look = false;
  const Purged purged = purge_state_directory(arguments.directory, options);
  const int code = print(cli::show_purged(purged, false));
  return purged.removed.size() < found.removed.size() && code == 0 ? 1 : code;
}

// Whether an error is one of the command line, or of the variables that stand in for it.
bool is_usage(ErrorCode code) {
  return code == ErrorCode::not_found || code == ErrorCode::invalid_endpoint || code == ErrorCode::invalid_duration ||
         code == ErrorCode::missing_endpoint || code == ErrorCode::invalid_argument ||
         code == ErrorCode::invalid_config;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Operates jobs, looks at telemetry on this machine, and saves what dead processes left.", "waymark"};
  app.set_version_flag("--version", "waymark " WAYMARK_VERSION);

  TraceArguments trace_arguments;
  CLI::App* trace_command = app.add_subcommand("trace", "Draw traces as a waterfall");
  trace_command->add_option("path", trace_arguments.paths, "Files of OTLP JSON lines, and state directories")
      ->required()
      ->type_name("FILE|STATE_DIR");
  trace_command->add_option("--job", trace_arguments.job, "Only this job; the first characters of its id will do")->type_name("ID");
  trace_command->add_option("--width", trace_arguments.width, "Columns; default: the terminal's, else COLUMNS, else 100")
      ->type_name("N")
      ->check(CLI::Range(40, 1000));
  trace_command->add_flag("--all", trace_arguments.all, "Show every span, also where there are many of a kind");
  trace_command->add_flag("--no-color", trace_arguments.no_color, "No colors, also on a terminal");

  RecoverArguments recover_arguments;
  CLI::App* recover_command =
      app.add_subcommand("recover", "Deliver what dead processes left in a state directory, and close their open spans");
  recover_command->add_option("directory", recover_arguments.directory, "The state directory")->required()->type_name("DIR");
  recover_command
      ->add_option("--endpoint", recover_arguments.endpoint,
                   "OTLP endpoint; default: OTEL_TRACES_ENDPOINT and OTEL_LOGS_ENDPOINT")
      ->type_name("URL");
  recover_command->add_option("--traces-file", recover_arguments.traces_file, "Append traces to this file instead")->type_name("FILE");
  recover_command->add_option("--logs-file", recover_arguments.logs_file, "Append logs to this file instead")->type_name("FILE");
  recover_command->add_option("--metrics-file", recover_arguments.metrics_file, "Append metrics to this file instead")
      ->type_name("FILE");
  recover_command
      ->add_option("--destination", recover_arguments.destination,
                   "Take what waits for this destination; default: the endpoint's own name, or the only one there is")
      ->type_name("NAME");
  recover_command->add_option("--timeout", recover_arguments.timeout, "How long to try (default 30s)")->type_name("DURATION");

  ConfigArguments config_arguments;
  CLI::App* check_command = cli::add_group(app, "config", "Look at a configuration file").add_subcommand(
      "check", "Say what is wrong with a configuration file, or what it comes to");
  check_command->add_option("file", config_arguments.file, "The file; default: WAYMARK_CONFIG")->type_name("FILE");
  check_command->add_flag("--json", config_arguments.json, "As JSON instead of YAML");
  check_command->footer(
      "Prints the configuration with the environment in its place and every secret as ***.\n\n"
      "Examples:\n"
      "  waymark config check waymark.yaml\n"
      "  WAYMARK_CONFIG=waymark.yaml waymark config check --json\n\n"
      "Exit codes: 0 it is right; 2 it is wrong, and standard error says where: FILE:LINE:COLUMN: KEY: what");

  StatusArguments status_arguments;
  CLI::App* status_command = app.add_subcommand("status", "Show how far each destination of each process has got");
  status_command->add_option("directory", status_arguments.directory, "The state directory")->required()->type_name("DIR");
  status_command->add_flag("--json", status_arguments.json, "As JSON");
  status_command->add_flag("--no-color", status_arguments.no_color, "No colors, also on a terminal");
  status_command->footer(
      "Disturbs nobody: living processes go on, and nothing is changed.\n\n"
      "Examples:\n"
      "  waymark status ~/.local/state/waymark/tiles\n"
      "  waymark status --json DIR | jq .totals.counts.pending\n\n"
      "Exit codes: 0 done; 2 there is no such directory");

  PurgeArguments purge_arguments;
  CLI::App* purge_command = app.add_subcommand("purge", "Remove what dead processes left in a state directory");
  purge_command->add_option("directory", purge_arguments.directory, "The state directory")->required()->type_name("DIR");
  purge_command->add_flag("--yes", purge_arguments.yes, "Also what was never delivered, without asking");
  purge_command->add_option("--older-than", purge_arguments.older_than, "Only what nobody has written to for so long")
      ->type_name("DURATION");
  purge_command->add_flag("--dry-run", purge_arguments.dry_run, "Remove nothing; say what would be removed");
  purge_command->footer(
      "Living processes' telemetry, other files, and the runner's store stay.\n\n"
      "Examples:\n"
      "  waymark purge --dry-run ~/.local/state/waymark/tiles\n"
      "  waymark purge --older-than 7d --yes ~/.local/state/waymark/tiles\n\n"
      "Exit codes: 0 done; 1 something stays that was to be removed; 2 the command line is wrong");

  trace_command->footer(
      "Examples:\n  waymark trace traces.jsonl logs.jsonl\n  waymark trace --job 3f2 ~/.local/state/waymark/tiles\n\n"
      "Exit codes: 0 done; 1 there are no spans; 2 a path or a job is not there");
  recover_command->footer(
      "Examples:\n  waymark recover ~/.local/state/waymark/tiles --endpoint http://localhost:4318\n"
      "  waymark recover DIR --traces-file traces.jsonl --logs-file logs.jsonl\n\n"
      "Exit codes: 0 all delivered; 1 something is left; 2 the command line is wrong");
  int exit_code = cli::kDone;
  cli::on_run(*trace_command, exit_code, [&] { return trace(trace_arguments); });
  cli::on_run(*recover_command, exit_code, [&] { return recover(recover_arguments); });
  cli::on_run(*check_command, exit_code, [&] { return config_check(config_arguments); });
  cli::on_run(*status_command, exit_code, [&] { return status(status_arguments); });
  cli::on_run(*purge_command, exit_code, [&] { return purge(purge_arguments); });
  cli::add_jobs(app, exit_code);
  cli::add_queue(app, exit_code);
  cli::add_top(app, exit_code);
  cli::add_store_command(app, exit_code);
  cli::add_automations(app, exit_code);
  cli::add_completion(app, exit_code);
  app.footer("Exit codes:\n"
             "  0  done\n"
             "  1  it could not be done\n"
             "  2  the command line or a configuration is wrong, or what it names is not there\n"
             "  3  the job that was waited for failed\n"
             "  4  the job that was waited for was canceled\n"
             "  5  the job that was waited for is not finished\n\n"
             "'waymark COMMAND --help' shows a command's options and examples.");

  try {
    install_crash_handler();
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) cli::refuse_without_command(app);
    return exit_code;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::string what = error.what();
    std::ranges::replace(what, '\n', ' ');
    return complain(what + "; see waymark --help", kWrongUse);
  } catch (const cli::WrongUse& error) {
    return complain(error.what(), kWrongUse);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::invalid_config) {
      std::cerr << error.what() << '\n';  // a line for each problem, which begins with its place
      return kWrongUse;
    }
    return complain(error.what(), is_usage(error.code()) ? kWrongUse : cli::kNotDone);
  } catch (const std::exception& error) {
    return complain(error.what(), cli::kNotDone);
  }
}
