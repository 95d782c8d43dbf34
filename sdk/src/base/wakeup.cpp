#include "base/wakeup.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace waymark {

Wakeup::Wakeup()
    : membarrier_(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0) {}

void Wakeup::wake() noexcept {
  if (state_.exchange(kAwake, std::memory_order_seq_cst) == kAwake) return;
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&state_), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void Wakeup::fence(bool deep) noexcept {
  // Those who poke only load; the sleeper pays for both sides' ordering.
  if (deep && membarrier_) syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

void Wakeup::wait(bool deep, Deadline deadline) noexcept {
  const std::uint32_t expected = deep ? kDeep : kLight;
  auto now = std::chrono::steady_clock::now();
  if (deep && !membarrier_) deadline = std::min(deadline, now + std::chrono::milliseconds(100));
  while (state_.load(std::memory_order_acquire) == expected) {
    timespec relative{};
    timespec* timeout = nullptr;
    if (deadline != Deadline::max()) {
      if (deadline <= now) return;
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - now).count();
      relative.tv_sec = left / 1'000'000'000;
      relative.tv_nsec = left % 1'000'000'000;
      timeout = &relative;
    }
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&state_), FUTEX_WAIT_PRIVATE, expected, timeout, nullptr, 0);
    now = std::chrono::steady_clock::now();
  }
}

}  // namespace waymark
