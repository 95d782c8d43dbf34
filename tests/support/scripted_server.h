// A server in a Python process of its own (tests/conformance/*_server.py), driven by JSON lines.
//
// Hides: the process, and the pipe to it.
// Threads: one at a time.
// Failure: std::runtime_error, also where the environment is missing: a test then fails and says what to run.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "base/base64.h"

namespace waymark::testing {

class ScriptedServer {
 public:
  using Json = nlohmann::json;

  // "grpc_server.py", "wire_server.py"
  explicit ScriptedServer(const std::string& script) {
    const char* configured = std::getenv("WAYMARK_TEST_PYTHON");
    std::string python = configured ? configured : WAYMARK_BINARY_DIR "/../venv/bin/python";
    if (access(python.c_str(), X_OK) != 0) {
      throw std::runtime_error(python + " is missing: run `make test`, or `scripts/test-venv build/venv` once");
    }
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("socketpair failed");
    socket_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::string path = std::string(WAYMARK_SOURCE_DIR "/tests/conformance/") + script;
    char* arguments[] = {python.data(), path.data(), nullptr};
    const int error = posix_spawn(&process_, python.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (error != 0) {
      close(socket_);
      throw std::runtime_error(python + " can't be started: " + std::strerror(error));
    }
  }
  ~ScriptedServer() {
    close(socket_);  // it reads the end of its input and leaves
    waitpid(process_, nullptr, 0);
  }
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  Json ask(const Json& command) {
    const std::string line = command.dump() + "\n";
    for (std::size_t done = 0; done < line.size();) {
      const ssize_t n = send(socket_, line.data() + done, line.size() - done, MSG_NOSIGNAL);
      if (n <= 0) fail();
      done += static_cast<std::size_t>(n);
    }
    std::string answer;
    char chunk[65536];
    while (answer.empty() || answer.back() != '\n') {
      const ssize_t n = recv(socket_, chunk, sizeof chunk, 0);
      if (n <= 0) fail();
      answer.append(chunk, static_cast<std::size_t>(n));
    }
    return Json::parse(answer);
  }

  // The port that it listens on now.
  int listen(Json command) {
    command["do"] = "listen";
    return ask(command)["port"];
  }
  void script(Json replies) { ask({{"do", "script"}, {"replies", std::move(replies)}}); }
  void release() { ask({{"do", "release"}}); }
  [[nodiscard]] bool wait(Json what) {
    what["do"] = "wait";
    return ask(what)["done"];
  }

 private:
  [[noreturn]] static void fail() { throw std::runtime_error("the server's process has ended; its error stands above"); }

  int socket_ = -1;
  pid_t process_ = -1;
};

inline std::string to_base64(std::string_view bytes) {
  std::string text;
  append_base64(text, bytes);
  return text;
}

}  // namespace waymark::testing
