// How one thread sleeps until another has work for it, without a lock on the side that has the work.
//
// Hides: futexes, and the fence that makes "look, then sleep" safe against "work, then look whether it sleeps".
// Threads: one thread sleeps; any number wake it.
// Failure: none. Where the kernel has no membarrier, a deep sleep ends by itself every 100 ms.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace waymark {

class Wakeup {
 public:
  Wakeup();

  // The sleeper: announces a sleep, looks for work once more through `anything`, then sleeps until woken or the deadline.
  // In a deep sleep every poke() wakes it; in a light one only wake() does.
  template <class F>
  void sleep(bool deep, Deadline deadline, F&& anything) {
    state_.exchange(deep ? kDeep : kLight, std::memory_order_seq_cst);
    fence(deep);
    if (!anything()) wait(deep, deadline);
    state_.store(kAwake, std::memory_order_relaxed);
  }

  // After every piece of work: one relaxed load where the sleeper does not sleep deeply.
  void poke() noexcept {
    if (state_.load(std::memory_order_relaxed) == kDeep) [[unlikely]] wake();
  }
  // Wakes it from any sleep.
  void wake() noexcept;
  // The same where it sleeps for some time, and at the cost of one relaxed load where it does not. May miss one that falls
  // asleep at this moment: for those who will ask again.
  void nudge() noexcept {
    if (state_.load(std::memory_order_relaxed) != kAwake) wake();
  }

 private:
  static constexpr std::uint32_t kAwake = 0;
  static constexpr std::uint32_t kLight = 1;
  static constexpr std::uint32_t kDeep = 2;
  void fence(bool deep) noexcept;
  void wait(bool deep, Deadline deadline) noexcept;
  std::atomic<std::uint32_t> state_{kAwake};
  bool membarrier_ = false;
};

}  // namespace waymark
