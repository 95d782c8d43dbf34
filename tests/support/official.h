// OTLP bytes through the official protobuf classes, for comparison with ours.
//
// Hides: the Python process that has the classes (tests/conformance/decode.py), one for each test program.
// Threads: any; one request at a time.
// Failure: std::runtime_error, also where the environment is missing: a test then fails and says what to run.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "waymark/config.h"

namespace waymark::testing {

class OfficialDecoder {
 public:
  static OfficialDecoder& instance() {
    static OfficialDecoder decoder;
    return decoder;
  }

  std::string ask(char command, const std::string& payload) {
    const std::lock_guard lock(mutex_);
    const auto size = static_cast<std::uint32_t>(payload.size());
    std::string frame(1, command);
    frame.append(reinterpret_cast<const char*>(&size), sizeof size);
    send_all(frame + payload);
    const char status = receive(1)[0];
    std::uint32_t length = 0;
    std::memcpy(&length, receive(sizeof length).data(), sizeof length);
    std::string answer = receive(length);
    if (status != '+') throw std::runtime_error("the official classes refuse these bytes: " + answer);
    return answer;
  }

 private:
  OfficialDecoder() {
    const char* configured = std::getenv("WAYMARK_TEST_PYTHON");
    const std::string python = configured ? configured : WAYMARK_BINARY_DIR "/../venv/bin/python";
    if (access(python.c_str(), X_OK) != 0) {
      throw std::runtime_error(python + " is missing: run `make test`, or `scripts/test-venv build/venv` once");
    }
    // A socket, not pipes: writing to a process that has died is then an error, not a signal.
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("socketpair failed");
    socket_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::string script = WAYMARK_SOURCE_DIR "/tests/conformance/decode.py";
    std::string option = "--serve";
    std::string program = python;
    char* arguments[] = {program.data(), script.data(), option.data(), nullptr};
    const int error = posix_spawn(&process_, python.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (error != 0) {
      close(socket_);
      throw std::runtime_error(python + " can't be started: " + std::strerror(error));
    }
  }
  ~OfficialDecoder() {
    close(socket_);  // it reads the end of its input and leaves
    waitpid(process_, nullptr, 0);
  }
  OfficialDecoder(const OfficialDecoder&) = delete;
  OfficialDecoder& operator=(const OfficialDecoder&) = delete;

  void send_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) fail();
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  std::string receive(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t done = 0; done < size;) {
      const ssize_t n = recv(socket_, bytes.data() + done, size - done, 0);
      if (n <= 0) fail();
      done += static_cast<std::size_t>(n);
    }
    return bytes;
  }
  [[noreturn]] static void fail() {
    throw std::runtime_error("the official classes' process has ended; its error stands above. Run `make test`");
  }

  std::mutex mutex_;
  int socket_ = -1;
  pid_t process_ = -1;
};

// The request as JSON: keys in lowerCamelCase, ids as hex, 64-bit integers as strings, enums as numbers, defaults left out.
// One line. Compare it as JSON (nlohmann), not as text: keys are sorted, and doubles are written in Python's way.
inline std::string official_json(Signal signal, const std::string& request) {
  return OfficialDecoder::instance().ask("TLM"[static_cast<int>(signal)], request);
}

// The same of a request as OTLP JSON. Throws where the official classes do not know a field, or it has not their type.
inline std::string official_json_of_json(Signal signal, const std::string& line) {
  return OfficialDecoder::instance().ask("JKN"[static_cast<int>(signal)], line);
}

// `count` random requests that the official classes have written; the same seed gives the same ones.
inline std::vector<std::string> official_random(Signal signal, unsigned seed, unsigned count) {
  const std::string all = OfficialDecoder::instance().ask("tlm"[static_cast<int>(signal)],
                                                          std::to_string(seed) + " " + std::to_string(count));
  std::vector<std::string> requests;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t size = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(all[i++]);
      size |= static_cast<std::size_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    requests.push_back(all.substr(i, size));
    i += size;
  }
  return requests;
}

}  // namespace waymark::testing
