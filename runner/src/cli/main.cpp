// The `waymark` command: what a person wants to know of telemetry that lies on this machine, without a backend.
//
// Exit codes: 0 done; 1 it could not be done; 2 the command line is wrong, or names what is not there.
#include <sys/ioctl.h>
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

#include "cli/display_text.h"
#include "cli/waterfall.h"
#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace {

namespace fs = std::filesystem;
using namespace waymark;

constexpr int kWrongUse = 2;

int complain(const std::string& what, int code) {
  std::cerr << "waymark: " << what << '\n';
  return code;
}

// Of the terminal, else of COLUMNS, else 100.
int terminal_width() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const int width = columns ? std::atoi(columns) : 0;
  return width > 0 ? width : 100;
}

bool wants_color() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return isatty(STDOUT_FILENO) != 0 && !(no_color && *no_color) && !(term && std::string_view(term) == "dumb");
}

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
                                                              .color = !arguments.no_color && wants_color(),
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
  const bool files = !arguments.traces_file.empty() || !arguments.logs_file.empty();
  const std::string& file = signal == Signal::traces ? arguments.traces_file : arguments.logs_file;
  if (files && file.empty()) return;
  const std::string endpoint = files ? "file:" + file : arguments.endpoint;  // empty: the environment's
  if (signal == Signal::traces) {
    configure_otel_tracing(
        {.service = "waymark-recover", .endpoint = endpoint, .name = name, .state_directory = arguments.directory});
  } else {
    configure_otel_logging(
        {.service = "waymark-recover", .endpoint = endpoint, .name = name, .state_directory = arguments.directory});
  }
}

int recover(const RecoverArguments& arguments) {
  if (!fs::is_directory(arguments.directory)) {
    return complain(arguments.directory + ": no such directory", kWrongUse);
  }
  if (!arguments.endpoint.empty() && !(arguments.traces_file.empty() && arguments.logs_file.empty())) {
    return complain("--endpoint and --traces-file or --logs-file: give one or the other", kWrongUse);
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

// Whether an error is one of the command line, or of the variables that stand in for it.
bool is_usage(ErrorCode code) {
  return code == ErrorCode::not_found || code == ErrorCode::invalid_endpoint || code == ErrorCode::invalid_duration ||
         code == ErrorCode::missing_endpoint || code == ErrorCode::invalid_argument;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Looks at telemetry on this machine, and saves what dead processes left."};
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
  recover_command
      ->add_option("--destination", recover_arguments.destination,
                   "Take what waits for this destination; default: the endpoint's own name, or the only one there is")
      ->type_name("NAME");
  recover_command->add_option("--timeout", recover_arguments.timeout, "How long to try (default 30s)")->type_name("DURATION");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::string what = error.what();
    std::ranges::replace(what, '\n', ' ');
    return complain(what + "; see waymark --help", kWrongUse);
  }
  try {
    install_crash_handler();
    if (trace_command->parsed()) return trace(trace_arguments);
    if (recover_command->parsed()) return recover(recover_arguments);
    return complain("a command is missing: trace or recover; see waymark --help", kWrongUse);
  } catch (const Error& error) {
    return complain(error.what(), is_usage(error.code()) ? kWrongUse : 1);
  } catch (const std::exception& error) {
    return complain(error.what(), 1);
  }
}
