// A program in a terminal of its own, as a person sees it.
//
// Hides: pseudo-terminals.
// Threads: one.
// Failure: expectations; what it printed until then is in them.
#pragma once

#include <gtest/gtest.h>

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace waymark::testing {

class Terminal {
 public:
  // `settings`: NAME=value, for its environment.
  Terminal(const std::vector<std::string>& arguments, const std::vector<std::string>& settings, unsigned short columns = 120,
           unsigned short lines = 40) {
    winsize size{};
    size.ws_col = columns;
    size.ws_row = lines;
    std::vector<std::string> line = {"env", "-u", "NO_COLOR", "TERM=xterm-256color"};
    line.insert(line.end(), settings.begin(), settings.end());
    line.insert(line.end(), arguments.begin(), arguments.end());
    std::vector<char*> words;
    for (std::string& word : line) words.push_back(word.data());
    words.push_back(nullptr);
    child_ = forkpty(&fd_, nullptr, nullptr, &size);
    if (child_ == 0) {
      execvp(words[0], words.data());
      _exit(127);
    }
    EXPECT_GT(child_, 0);
  }
  ~Terminal() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    if (fd_ >= 0) close(fd_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Reads until this has come since the last such call.
  void expect(const std::string& text) {
    for (;;) {
      const std::size_t at = output_.find(text, read_);
      if (at != std::string::npos) {
        read_ = at + text.size();
        return;
      }
      if (!more()) break;
    }
    FAIL() << "'" << text << "' did not come; there was:\n" << output_;
  }
  void type(const std::string& keys) { EXPECT_EQ(write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size())); }
  void signal(int number) const { kill(child_, number); }
  // Its exit code, 128 + the signal's number where one ended it.
  int end() {
    while (more()) {
    }
    int status = 0;
    waitpid(std::exchange(child_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  [[nodiscard]] const std::string& output() const { return output_; }

 private:
  bool more() {
    pollfd one{fd_, POLLIN, 0};
    if (poll(&one, 1, 60'000) <= 0) return false;
    std::array<char, 4096> buffer{};
    const ssize_t size = read(fd_, buffer.data(), buffer.size());
    if (size <= 0) return false;  // EIO: it has ended
    output_.append(buffer.data(), static_cast<std::size_t>(size));
    return true;
  }

  pid_t child_ = -1;
  int fd_ = -1;
  std::string output_;
  std::size_t read_ = 0;
};

}  // namespace waymark::testing
