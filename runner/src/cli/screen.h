// A terminal's whole screen, redrawn in place, and given back as it was.
//
// Hides: escape sequences, the keys, the signals that end it.
// Threads: one; one at a time in a process, since signals are the process's.
// Failure: none; where standard input is no terminal there are no keys.
#pragma once

#include <signal.h>
#include <termios.h>

#include <chrono>
#include <string>

namespace waymark::cli {

class Screen {
 public:
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // Lines below the last of the screen are left out.
  void show(const std::string& frame);
  // False at once when the user has had enough: q, Ctrl-C, SIGTERM, SIGHUP.
  [[nodiscard]] bool wait(std::chrono::milliseconds time);

 private:
  bool keys_ = false;
  termios before_{};
  sigset_t mask_before_{};
};

}  // namespace waymark::cli
