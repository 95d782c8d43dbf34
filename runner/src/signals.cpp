#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "waymark/error.h"

namespace waymark::detail {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM};

int pipe_end = -1;  // the handler's; written before the handler is installed

void on_signal(int signal) {
  const int saved = errno;
  const char byte = static_cast<char>(signal);
  if (write(pipe_end, &byte, 1) < 0) {
    // It is full: a signal is on its way already.
  }
  errno = saved;
}

struct Signals {
  std::mutex mutex;  // held while watchers are called
  std::vector<std::function<void(int)>*> watchers;
  struct sigaction before[2] = {};
  bool installed = false;
  int pipe[2] = {-1, -1};
  std::thread thread;

  void install() {
    if (pipe2(pipe, O_CLOEXEC) != 0) {
      throw Error(ErrorCode::io, std::string("signals: could not make a pipe: ") + std::strerror(errno));
    }
    fcntl(pipe[1], F_SETFL, O_NONBLOCK);
    pipe_end = pipe[1];
    thread = std::thread([this, end = pipe[0]] { listen(end); });
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < 2; ++i) sigaction(kSignals[i], &action, &before[i]);
    installed = true;
  }
  // What somebody else has installed meanwhile stays.
  void uninstall() {
    if (!std::exchange(installed, false)) return;
    for (std::size_t i = 0; i < 2; ++i) {
      struct sigaction now {};
      sigaction(kSignals[i], nullptr, &now);
      if (now.sa_handler == on_signal) sigaction(kSignals[i], &before[i], nullptr);
    }
  }
  void listen(int end) {
    pthread_setname_np(pthread_self(), "wm-signals");
    char signal = 0;
    ssize_t n;
    while ((n = read(end, &signal, 1)) < 0 && errno == EINTR) {
    }
    if (n != 1 || signal == 0) return;
    const std::scoped_lock lock(mutex);
    uninstall();
    for (auto* arrived : watchers) (*arrived)(signal);
  }
};

Signals& signals() {
  static auto* s = new Signals;  // a handler may outlive every static
  return *s;
}

}  // namespace

SignalWatch::SignalWatch(std::function<void(int)> arrived) : arrived_(std::move(arrived)) {
  Signals& s = signals();
  const std::scoped_lock lock(s.mutex);
  if (s.watchers.empty()) s.install();
  s.watchers.push_back(&arrived_);
}

SignalWatch::~SignalWatch() {
  Signals& s = signals();
  std::thread thread;
  int pipe[2];
  {
    const std::scoped_lock lock(s.mutex);
    std::erase(s.watchers, &arrived_);
    if (!s.watchers.empty()) return;
    s.uninstall();
    thread = std::move(s.thread);
    pipe[0] = s.pipe[0];
    pipe[1] = s.pipe[1];
  }
  const char end = 0;
  if (write(pipe[1], &end, 1) < 0) {
    // It is full of signals: the thread has read one, and ended.
  }
  thread.join();
  close(pipe[0]);
  close(pipe[1]);
}

}  // namespace waymark::detail
