#include "cli/screen.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <iostream>

namespace waymark::cli {
namespace {

constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGQUIT};
volatile sig_atomic_t ended = 0;

void end(int) { ended = 1; }

sigset_t signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kSignals) sigaddset(&set, signal);
  return set;
}

}  // namespace

Screen::Screen() {
  // They come only while it waits, so that a frame is never cut in half.
  const sigset_t set = signals();
  pthread_sigmask(SIG_BLOCK, &set, &mask_before_);
  struct sigaction action {};
  action.sa_handler = end;
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
  keys_ = isatty(STDIN_FILENO) != 0 && tcgetattr(STDIN_FILENO, &before_) == 0;
  if (keys_) {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  // Lines that are too long end at the edge: wrapped, they would push the first ones off the screen.
  std::cout << "\x1b[?1049h\x1b[?25l\x1b[?7l" << std::flush;
}

Screen::~Screen() {
  std::cout << "\x1b[?7h\x1b[?25h\x1b[?1049l" << std::flush;
  if (keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  for (const int signal : kSignals) std::signal(signal, SIG_DFL);
  pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

void Screen::show(const std::string& frame) {
  winsize size{};
  const int lines = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
  std::string text = "\x1b[H";
  std::size_t at = 0;
  for (int line = 0; line < lines && at < frame.size(); ++line) {
    const std::size_t end = std::min(frame.find('\n', at), frame.size());
    text += (line > 0 ? "\r\n" : "") + frame.substr(at, end - at) + "\x1b[K";
    at = end + 1;
  }
  std::cout << text << "\x1b[J" << std::flush;
}

bool Screen::wait(std::chrono::milliseconds time) {
  sigset_t let;
  pthread_sigmask(SIG_SETMASK, nullptr, &let);
  for (const int signal : kSignals) sigdelset(&let, signal);
  const auto until = std::chrono::steady_clock::now() + time;
  while (!ended) {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return true;
    const timespec most{left.count() / 1'000'000'000, left.count() % 1'000'000'000};
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (ppoll(&input, keys_ ? 1 : 0, &most, &let) <= 0) continue;
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) <= 0) return false;  // the terminal is gone
    if (key == 'q' || key == 'Q' || key == 3) return false;
  }
  return false;
}

}  // namespace waymark::cli
