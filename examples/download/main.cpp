// download: a pipeline that fetches files, measures the numbers in them, and writes a report; what a server refuses for
// now is tried again, with a growing wait.
//
//   download URL... [--out DIR]      http:// and file://; DIR (default: out/download) gets report.json, traces and logs
//            [--isolate]             tasks run in worker processes: one that crashes is tried again, and the program goes on
//
// A run that was interrupted goes on where it was when the same command is given again: the job's key is its URLs.
#include <waymark/waymark.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "tasks.h"

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  std::vector<std::string> urls;
  std::filesystem::path out = "out/download";
  auto isolation = waymark::Isolation::none;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--out" && i + 1 < argc) {
      out = argv[++i];
    } else if (argument == "--isolate") {
      isolation = waymark::Isolation::process;
    } else if (argument.find("://") != std::string_view::npos) {
      urls.emplace_back(argument);
    } else {
      std::cerr << "usage: download URL... [--out DIR] [--isolate]\n";
      return argument == "--help" ? 0 : 2;
    }
  }
  if (urls.empty()) {
    std::cerr << "usage: download URL... [--out DIR] [--isolate]\n";
    return 2;
  }
  out = std::filesystem::absolute(out);
  std::filesystem::create_directories(out);
  const std::string state = (out / "state").string();
  waymark::configure_otel_tracing(
      {.service = "download", .endpoint = "file:" + (out / "traces.jsonl").string(), .state_directory = state});
  waymark::configure_otel_logging(
      {.service = "download", .endpoint = "file:" + (out / "logs.jsonl").string(), .state_directory = state});

  waymark::Client client({.name = "download", .store = (out / "store.db").string()});
  client.limit({.task = "Download", .key = "*", .max_running = 2});   // from each server
  std::string key;
  for (const std::string& url : urls) key += url + "\n";
  waymark::Job job = client.jobs().submit("download", Pipeline{urls, (out / "report.json").string()}, {.key = key});
  client
      .runner<Pipeline, Download, Measure, Report>(
          {.backoff = {.initial = 50ms, .maximum = 30s, .multiplier = 2}, .isolation = isolation})
      .run_all();

  job = client.jobs().find(job.id);
  std::uint32_t failures = 0;
  for (const waymark::TaskInfo& task : client.jobs().tasks(job.id)) {
    failures += task.failures;
    if (task.state == waymark::TaskState::failed_optional) std::cout << "left out: " << task.error << '\n';
  }
  std::cout << "job " << waymark::job_state_name(job.state) << ", " << failures << " failed attempts, report in "
            << (out / "report.json").string() << '\n';
  return job.state == waymark::JobState::completed ? 0 : 1;
} catch (const std::exception& e) {
  std::cerr << "download: " << e.what() << '\n';
  return 1;
}
