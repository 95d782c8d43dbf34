// The thread that collects ("wm-meter"): at the interval, when asked, and once more at the end.
//
// Hides: when a collection is due.
// Threads: any; one collection at a time, on the thread.
// Failure: collect() and stop() return false where the deadline came first.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "base/clock.h"

namespace waymark::metric {

class Periodic {
 public:
  Periodic(std::chrono::nanoseconds interval, std::function<void()> collect);
  ~Periodic();
  Periodic(const Periodic&) = delete;
  Periodic& operator=(const Periodic&) = delete;

  // A collection that begins after the call. From within one (a callback): false at once.
  bool collect(Deadline deadline);
  [[nodiscard]] bool is_own_thread() const noexcept { return thread_.get_id() == std::this_thread::get_id(); }
  // The last collection, then the end of the thread. A callback that does not return by the deadline is not waited for by the
  // collection's caller, but by whoever destroys this.
  bool stop(Deadline deadline);

 private:
  void run();

  const std::chrono::nanoseconds interval_;
  const std::function<void()> collect_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable done_;
  std::uint64_t asked_ = 0;
  std::uint64_t answered_ = 0;
  bool stopping_ = false;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace waymark::metric
