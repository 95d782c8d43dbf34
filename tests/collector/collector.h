// A real OpenTelemetry Collector as a process: an OTLP receiver for gRPC and HTTP, and a file with what it accepted.
//
// Hides: scripts/collector, the configuration in YAML, and where the ports come from (the Collector's own log).
// Threads: one reads the Collector's log; the rest is the test's.
// Failure: std::runtime_error with the log's end where it can't be started. What it acknowledged is in the file at once:
//   a file that the Collector may rotate (it never does here) is written without a buffer.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <fstream>
#include <mutex>
#include <optional>
#include <regex>
#include <stdexcept>
#include <string>
#include <thread>

#include "support/command.h"
#include "waymark/config.h"

namespace waymark::testing {

class Collector {
 public:
  struct Settings {
    bool tls = false;
    std::string token = {};            // asked of every request, if not empty
    std::uint16_t grpc_port = 0;       // 0: a free one
    std::uint16_t http_port = 0;
    std::string file = "accepted.json";  // in the folder
  };

  // The program's path, or nothing, and then `why` says why there is none.
  static std::optional<std::string> program(std::string& why) {
    const CommandResult result = run_command({WAYMARK_SOURCE_DIR "/scripts/collector", "--built"});
    const std::string line = result.output.substr(0, result.output.find('\n'));
    if (result.exit_code == 0) return line;
    why = line;
    return std::nullopt;
  }

  Collector(const std::string& program, std::string folder, Settings settings)
      : folder_(std::move(folder)), settings_(std::move(settings)) {
    if (settings_.tls && access(ca_file().c_str(), R_OK) != 0) {
      const CommandResult made = run_command({program, "certificate", folder_});
      if (made.exit_code != 0) throw std::runtime_error("no certificate: " + made.output);
    }
    const std::string config = folder_ + "/collector.yaml";
    std::ofstream(config) << yaml();
    start(program, config);
  }
  ~Collector() { end(SIGTERM); }
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // What was acknowledged before stays in the file; the next one writes another.
  void kill() { end(SIGKILL); }

  [[nodiscard]] std::uint16_t grpc_port() const noexcept { return grpc_port_; }
  [[nodiscard]] std::uint16_t http_port() const noexcept { return http_port_; }
  [[nodiscard]] std::string ca_file() const { return folder_ + "/ca.pem"; }
  // Lines of OTLP JSON, one for each request that was accepted.
  [[nodiscard]] std::string file() const { return folder_ + "/" + settings_.file; }

  [[nodiscard]] std::string base(Protocol protocol) const {
    return (settings_.tls ? "https://127.0.0.1:" : "http://127.0.0.1:") +
           std::to_string(protocol == Protocol::grpc ? grpc_port_ : http_port_);
  }
  [[nodiscard]] DestinationConfig destination(Protocol protocol, Signal signal) const {
    DestinationConfig destination;
    destination.name = "collector";
    destination.signal = signal;
    destination.protocol = protocol;
    destination.url = base(protocol);
    if (protocol != Protocol::grpc) destination.url += "/v1/" + std::string(signal_name(signal));
    if (settings_.tls) destination.tls.ca_file = ca_file();
    destination.retry.initial = std::chrono::milliseconds(5);
    destination.retry.maximum = std::chrono::milliseconds(50);
    return destination;
  }

 private:
  [[nodiscard]] std::string yaml() const {
    std::string receiver;
    if (settings_.tls) {
      receiver += ", tls: {cert_file: " + folder_ + "/server.pem, key_file: " + folder_ + "/server-key.pem}";
    }
    if (!settings_.token.empty()) receiver += ", auth: {authenticator: bearertokenauth}";
    const auto listen = [&](std::uint16_t port) {
      return "{endpoint: \"127.0.0.1:" + std::to_string(port) + "\"" + receiver + "}\n";
    };
    const bool token = !settings_.token.empty();
    return (token ? "extensions: {bearertokenauth: {token: \"" + settings_.token + "\"}}\n" : std::string()) +
           "receivers:\n  otlp:\n    protocols:\n      grpc: " + listen(settings_.grpc_port) +
           "      http: " + listen(settings_.http_port) +
           "exporters: {file: {path: \"" + file() + "\", rotation: {max_megabytes: 1000}}}\n"
           "service:\n" + (token ? "  extensions: [bearertokenauth]\n" : "") +
           "  telemetry: {metrics: {level: none}}\n"
           "  pipelines:\n"
           "    traces: {receivers: [otlp], exporters: [file]}\n"
           "    logs: {receivers: [otlp], exporters: [file]}\n"
           "    metrics: {receivers: [otlp], exporters: [file]}\n";
  }

  void start(const std::string& program, const std::string& config) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    std::string path = program;
    std::string option = "--config=" + config;
    char* arguments[] = {path.data(), option.data(), nullptr};
    const int error = posix_spawn(&process_, path.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    if (error != 0) {
      ::close(ends[0]);
      process_ = -1;
      throw std::runtime_error(path + " can't be started");
    }
    reader_ = std::thread([this, end = ends[0]] { read_log(end); });
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(60), [this] { return ready_ || ended_; });
    if (!ready_) {
      const std::string log = log_;
      lock.unlock();
      end(SIGKILL);
      throw std::runtime_error("the Collector did not start: " + log.substr(log.size() > 2000 ? log.size() - 2000 : 0));
    }
  }

  void read_log(int from) {
    const std::regex started("Starting (GRPC|HTTP) server.*\"endpoint\": \"127\\.0\\.0\\.1:(\\d+)\"");
    std::string line;
    char buffer[4096];
    for (ssize_t n; (n = ::read(from, buffer, sizeof buffer)) > 0;) {
      for (const char c : std::string_view(buffer, static_cast<std::size_t>(n))) {
        if (c != '\n') {
          line += c;
          continue;
        }
        const std::lock_guard lock(mutex_);
        std::smatch found;
        if (std::regex_search(line, found, started)) {
          (found[1] == "GRPC" ? grpc_port_ : http_port_) = static_cast<std::uint16_t>(std::stoi(found[2]));
        }
        if (line.find("Everything is ready") != std::string::npos) ready_ = true;
        log_ += line + "\n";
        line.clear();
        changed_.notify_all();
      }
    }
    ::close(from);
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  void end(int signal) {
    if (process_ > 0) {
      ::kill(process_, signal);
      waitpid(process_, nullptr, 0);
      process_ = -1;
    }
    if (reader_.joinable()) reader_.join();
  }

  std::string folder_;
  Settings settings_;
  pid_t process_ = -1;
  std::thread reader_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint16_t grpc_port_ = 0;
  std::uint16_t http_port_ = 0;
  bool ready_ = false;
  bool ended_ = false;
  std::string log_;
};

}  // namespace waymark::testing
