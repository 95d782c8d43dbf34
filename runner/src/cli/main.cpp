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
  std::string timeout = "30s";
};

// What one dead process had left, on a line, and each span it had open on one of its own.
void tell(const Recovered& found) {
  std::string text = "process " + std::to_string(found.process_id);
  if (const auto service = find_string(found.resource, "service.name"); !service.empty()) {
    text += " (" + cli::printable(service) + ")";
  }
  text += ": " + std::to_string(found.finished_spans) + " finished spans, " + std::to_string(found.log_records) +
          " log records, " + std::to_string(found.interrupted.size()) + " interrupted spans";
  if (found.damaged_bytes > 0) text += ", " + std::to_string(found.damaged_bytes) + " bytes damaged";
  if (!found.problem.empty()) text += "; " + cli::printable(found.problem);
  text += '\n';
  for (const InterruptedSpan& span : found.interrupted) {
    text += "  " + cli::printable(span.name) + ", open for " + cli::human_duration(span.end - span.start) +
            ", trace " + span.context.trace_id.hex() + (span.crashed_here ? ", its thread crashed" : "") + '\n';
  }
  std::cout << text << std::flush;
}

int recover(const RecoverArguments& arguments) {
  if (!fs::is_directory(arguments.directory)) {
    return complain(arguments.directory + ": no such directory", kWrongUse);
  }
  if (!arguments.endpoint.empty() && !(arguments.traces_file.empty() && arguments.logs_file.empty())) {
    return complain("--endpoint and --traces-file or --logs-file: give one or the other", kWrongUse);
  }
  std::chrono::nanoseconds timeout{};
  try {
    timeout = parse_duration(arguments.timeout, "--timeout");
    // The endpoint, else a file for each signal that has one, else what the environment names.
    const bool files = !arguments.traces_file.empty() || !arguments.logs_file.empty();
    const auto endpoint = [&](const std::string& file) { return files ? "file:" + file : arguments.endpoint; };
    telemetry().on_recovered(tell);
    if (!files || !arguments.traces_file.empty()) {
      configure_otel_tracing({.service = "waymark-recover",
                              .endpoint = endpoint(arguments.traces_file),
                              .state_directory = arguments.directory});
    }
    if (!files || !arguments.logs_file.empty()) {
      configure_otel_logging({.service = "waymark-recover",
                              .endpoint = endpoint(arguments.logs_file),
                              .state_directory = arguments.directory});
    }
  } catch (const Error& error) {
    const bool usage = error.code() == ErrorCode::invalid_endpoint || error.code() == ErrorCode::invalid_duration ||
                       error.code() == ErrorCode::missing_endpoint;
    return complain(error.what(), usage ? kWrongUse : 1);
  }

  telemetry().recover();
  const bool delivered = force_flush(timeout);
  for (const auto& [name, signal, counts, last_error] : stats().destinations) {
    std::cout << signal_name(signal) << " to " << name << ": " << counts.delivered << " delivered, " << counts.rejected
              << " rejected, " << counts.dropped << " dropped, " << counts.pending << " still to be sent";
    if (!last_error.empty()) std::cout << " (" << last_error << ")";
    std::cout << '\n';
  }
  shutdown();
  return delivered ? 0 : complain("not everything could be delivered; what is left stays in " + arguments.directory, 1);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Looks at telemetry on this machine, and saves what dead processes left."};
  app.set_version_flag("--version", "waymark " WAYMARK_VERSION);
  app.require_subcommand(1);

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
    if (trace_command->parsed()) return trace(trace_arguments);
    return recover(recover_arguments);
  } catch (const Error& error) {
    return complain(error.what(), error.code() == ErrorCode::not_found ? kWrongUse : 1);
  } catch (const std::exception& error) {
    return complain(error.what(), 1);
  }
}
