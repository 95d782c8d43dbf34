// SIGINT and SIGTERM as requests to stop, for as long as somebody wants them.
//
// The handler notes the signal in a pipe; a thread reads it, puts back what was there before, so that a second signal
// does what it always did, and asks everybody to stop.
//
// Hides: the handler, the pipe, the thread ("wm-signals").
// Threads: any. Several may want signals at a time; the first one installs the handler, the last one takes it away.
// Failure: the constructor throws Error(io) where there is no pipe.
#pragma once

#include <functional>
#include <memory>

namespace waymark::detail {

class SignalWatch {
 public:
  // `arrived` is called once at most, by the thread of the signals.
  explicit SignalWatch(std::function<void(int signal)> arrived);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  std::function<void(int)> arrived_;
};

}  // namespace waymark::detail
