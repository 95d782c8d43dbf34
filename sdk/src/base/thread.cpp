#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "base/signal_stack.h"

#include "base/random.h"

namespace waymark {

constinit thread_local bool own_thread = false;

namespace detail {
// Zero at the start, so that it lies in memory that no file backs: the kernel wipes no other.
constinit ProcessPage process_page{};
constinit thread_local std::uint32_t known_thread_id = 0;
}  // namespace detail

namespace {

// Numbers that were given out, here and in the ancestors.
constinit std::atomic<std::uint32_t> generations{0};

// One bit for each descriptor that a child closes; those above are left open there.
constexpr int kDescriptors = 65536;
constinit std::array<std::atomic<std::uint64_t>, kDescriptors / 64> descriptors{};
constinit std::atomic<int> highest{-1};

// What a child of fork does before anything else of ours, on its only thread. Async-signal-safe: the parent's other threads
// may have held any lock.
void enter_child() noexcept {
  own_thread = false;
  detail::known_thread_id = 0;
  detail::random_state = 0;
  const int last = highest.exchange(-1, std::memory_order_relaxed);
  for (int word = 0; word * 64 <= last; ++word) {
    std::uint64_t bits = descriptors[static_cast<std::size_t>(word)].exchange(0, std::memory_order_relaxed);
    for (; bits != 0; bits &= bits - 1) ::close(word * 64 + __builtin_ctzll(bits));
  }
}

void after_fork() {
  detail::process_page.generation.store(0, std::memory_order_relaxed);
  enter_child();
  detail::process_page.entered.store(2, std::memory_order_relaxed);
}

// Before main, so that no fork ever finds it half done.
[[maybe_unused]] const bool watching = [] {
  madvise(&detail::process_page, sizeof detail::process_page, MADV_WIPEONFORK);
  pthread_atfork(nullptr, nullptr, after_fork);
  return true;
}();

}  // namespace

std::uint32_t detail::begin_generation() noexcept {
  // In a child that no atfork handler ran in: once, before anybody opens something that would be closed again.
  std::uint32_t entered = 0;
  if (process_page.entered.compare_exchange_strong(entered, 1, std::memory_order_acquire)) {
    enter_child();
    process_page.entered.store(2, std::memory_order_release);
  }
  while (process_page.entered.load(std::memory_order_acquire) != 2) sched_yield();
  const std::uint32_t fresh = generations.fetch_add(1, std::memory_order_relaxed) + 1;
  std::uint32_t seen = 0;
  process_page.generation.compare_exchange_strong(seen, fresh, std::memory_order_relaxed);
  return seen == 0 ? fresh : seen;
}

void begin_own_thread(const char* name) noexcept {
  own_thread = true;
  char cut[16] = {};
  std::strncpy(cut, name, sizeof cut - 1);
  pthread_setname_np(pthread_self(), cut);
  sigset_t all;
  sigfillset(&all);
  // A fault while it is blocked ends the process before anybody can tell of it.
  for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigdelset(&all, fault);
  // Not SIG_BLOCK: who made the thread may have blocked more.
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  lend_signal_stack();
}

void run_in_short_turns() noexcept {
  // linux/sched/types.h: glibc 2.36 has neither the structure nor the calls.
  struct SchedulingAttributes {
    std::uint32_t size = sizeof(SchedulingAttributes);
    std::uint32_t policy = 0;
    std::uint64_t flags = 0;
    std::int32_t nice = 0;
    std::uint32_t priority = 0;
    std::uint64_t runtime_ns = 0;
    std::uint64_t deadline_ns = 0;
    std::uint64_t period_ns = 0;
  } attributes;
  constexpr std::uint64_t kTurnNs = 100'000;  // the least that is granted
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0 || attributes.policy != SCHED_OTHER) return;
  attributes.runtime_ns = kTurnNs;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

std::uint32_t detail::ask_thread_id() noexcept {
  known_thread_id = static_cast<std::uint32_t>(syscall(SYS_gettid));
  lend_signal_stack();
  return known_thread_id;
}

void close_in_children(int descriptor) noexcept {
  if (descriptor < 0 || descriptor >= kDescriptors) return;
  descriptors[static_cast<std::size_t>(descriptor) / 64].fetch_or(std::uint64_t{1} << descriptor % 64, std::memory_order_relaxed);
  int seen = highest.load(std::memory_order_relaxed);
  while (seen < descriptor && !highest.compare_exchange_weak(seen, descriptor, std::memory_order_relaxed)) {
  }
}

void keep_in_children(int descriptor) noexcept {
  if (descriptor < 0 || descriptor >= kDescriptors) return;
  descriptors[static_cast<std::size_t>(descriptor) / 64].fetch_and(~(std::uint64_t{1} << descriptor % 64),
                                                                   std::memory_order_relaxed);
}

ProgramCode::~ProgramCode() {
  if (ours_ && seen_generation() != generation_) std::exit(0);
}

}  // namespace waymark
