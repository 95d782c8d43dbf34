#include "cli/job_logs.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "cli/command.h"
#include "cli/display_text.h"
#include "job_records.h"

namespace waymark::cli {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

std::vector<std::string> state_directories(const std::string& named) {
  const std::string one = named.empty() ? environment("WAYMARK_STATE_DIR") : named;
  if (!one.empty()) {
    if (!fs::is_directory(one)) throw WrongUse(printable(one) + ": no such directory");
    return {one};
  }
  fs::path home = environment("XDG_STATE_HOME");
  if (!home.is_absolute()) home = fs::path(environment("HOME")) / ".local" / "state";
  home /= "waymark";
  if (const std::string service = environment("OTEL_SERVICE_NAME"); !service.empty()) {
    if (!fs::is_directory(home / service)) throw WrongUse(printable((home / service).string()) + ": no such directory");
    return {(home / service).string()};
  }
  std::vector<std::string> all;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(home, error)) {
    if (entry.is_directory(error)) all.push_back(entry.path().string());
  }
  if (all.empty()) throw WrongUse("no state directory in " + printable(home.string()) + ": name one with --state-dir");
  std::ranges::sort(all);
  return all;
}

std::vector<ReadLog> job_logs(const Job& job, const std::vector<std::string>& directories) {
  ReadTelemetry all;
  for (const std::string& directory : directories) {
    ReadTelemetry one = read_state_directory(directory);
    std::ranges::move(one.spans, std::back_inserter(all.spans));
    std::ranges::move(one.logs, std::back_inserter(all.logs));
  }
  std::vector<ReadLog> logs = detail::records_of(std::move(all), job).logs;
  std::ranges::stable_sort(logs, {}, [](const ReadLog& log) { return log.time == Timestamp{} ? log.observed : log.time; });
  return logs;
}

}  // namespace waymark::cli
