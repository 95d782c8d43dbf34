#include "base/signal_stack.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace waymark {
namespace {

constinit std::atomic<bool> wanted{false};

// A walk over the stack takes some 10 KiB; an earlier handler of the program runs here, too. Only what is touched costs memory.
constexpr std::size_t kBytes = 128 * 1024;

class SignalStack {
 public:
  void lend() noexcept {
    if (memory_ != nullptr) return;
    stack_t there{};
    if (sigaltstack(nullptr, &there) != 0 || (there.ss_flags & SS_DISABLE) == 0) return;
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    // What the kernel puts there depends on the processor's registers.
    const long frame = sysconf(_SC_MINSIGSTKSZ);
    const std::size_t stack = (kBytes + static_cast<std::size_t>(std::max(frame, 0L)) + page - 1) / page * page;
    void* memory = mmap(nullptr, page + stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return;
    stack_t own{};
    own.ss_sp = static_cast<char*>(memory) + page;
    own.ss_size = stack;
    if (mprotect(memory, page, PROT_NONE) != 0 || sigaltstack(&own, nullptr) != 0) {
      munmap(memory, page + stack);
      return;
    }
    memory_ = memory;
    bytes_ = page + stack;
    begin_ = own.ss_sp;
  }
  ~SignalStack() {
    if (memory_ == nullptr) return;
    stack_t there{};
    if (sigaltstack(nullptr, &there) == 0 && there.ss_sp == begin_) {
      stack_t none{};
      none.ss_flags = SS_DISABLE;
      if (sigaltstack(&none, nullptr) != 0) return;  // it is being used
    }
    munmap(memory_, bytes_);
  }

 private:
  void* memory_ = nullptr;
  void* begin_ = nullptr;
  std::size_t bytes_ = 0;
};

thread_local SignalStack signal_stack;

}  // namespace

void want_signal_stacks() noexcept { wanted.store(true, std::memory_order_relaxed); }

void lend_signal_stack() noexcept {
  if (wanted.load(std::memory_order_relaxed)) signal_stack.lend();
}

}  // namespace waymark
