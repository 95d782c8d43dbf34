// Our own threads, and what becomes of a process that forks: which process this is, and what is one for each.
//
// Hides: what every thread of ours does first; how a child of fork is told from its parent, also where no atfork handler
//   runs (_Fork, a raw clone): by a page that the kernel wipes in the child.
// Threads: any.
// Failure: none. Where the kernel can't wipe a page, only fork() is noticed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace waymark {

// True on threads that are ours: they never wait for room in a lane, since they are the ones that make it. The thread that a
// child of fork has is the program's, whichever it was before.
extern constinit thread_local bool own_thread;

// To be called first. `name` is cut to 15 bytes. All signals but faults are blocked: a write to a closed socket or beyond a file size
// limit is then an error that we see, and the program's handlers run on the program's threads.
void begin_own_thread(const char* name) noexcept;

// For a thread of ours that others wait for or lose by, and that never works for long: it is to run within a fraction of a
// millisecond of being woken, also where as many threads compute as there are processors. Asks the scheduler for short turns
// (Linux 6.12 and newer grant it to anybody; older ones ignore it). No more of the processor, and no priority. Threads and
// children that it makes inherit it.
void run_in_short_turns() noexcept;

namespace detail {
extern constinit thread_local std::uint32_t known_thread_id;  // 0: not asked for in this process
[[nodiscard]] std::uint32_t ask_thread_id() noexcept;
struct alignas(4096) ProcessPage {
  std::atomic<std::uint32_t> generation;  // 0: this process has not been given a number yet
  std::atomic<std::uint32_t> entered;     // 1: a thread rids this process of what it must not inherit; 2: done
};
extern constinit ProcessPage process_page;
[[nodiscard]] std::uint32_t begin_generation() noexcept;
}  // namespace detail

// The kernel's id of the calling thread.
[[nodiscard]] inline std::uint32_t thread_id() noexcept {
  const std::uint32_t known = detail::known_thread_id;
  return known != 0 ? known : detail::ask_thread_id();
}

// A number that a process shares with none of its ancestors. For comparing with one that is known: 0, which equals none, in a
// child of fork in which nothing of ours has run yet. One load.
[[nodiscard]] inline std::uint32_t seen_generation() noexcept {
  return detail::process_page.generation.load(std::memory_order_relaxed);
}
// The same, never 0: begins the child's own where it has none.
[[nodiscard]] inline std::uint32_t process_generation() noexcept {
  const std::uint32_t seen = seen_generation();
  return seen != 0 ? seen : detail::begin_generation();
}

// A descriptor that a child of fork closes at once: while it is open there, nobody hears that its file was let go of.
// Where it is called makes no difference to the parent. Forget it before it is closed.
void close_in_children(int descriptor) noexcept;
void keep_in_children(int descriptor) noexcept;

// One T for each process. A child of fork makes its own at first use; the parent's, its locks in whatever state they were,
// is left alone for ever. Never destroyed.
template <class T>
class PerProcess {
 public:
  T& operator*() noexcept {
    const std::uint32_t generation = process_generation();
    Box* box = box_.load(std::memory_order_acquire);
    while (box == nullptr || box->generation != generation) {
      auto fresh = std::make_unique<Box>();
      fresh->generation = generation;
      fresh->parents = box;
      if (box_.compare_exchange_strong(box, fresh.get(), std::memory_order_acq_rel, std::memory_order_acquire)) {
        box = fresh.release();
      }
    }
    return box->value;
  }
  T* operator->() noexcept { return &**this; }

 private:
  struct Box {
    std::uint32_t generation = 0;
    Box* parents = nullptr;  // so that it is not taken for a leak
    T value;
  };
  std::atomic<Box*> box_{nullptr};
};

// Around every call of the program's functions. They may fork, and return in the child: where that was a thread of ours, it is
// now the child's only one, in the midst of its parent's work. It goes no further: the child ends as any program whose last
// thread ends, by exit(0).
class ProgramCode {
 public:
  ProgramCode() noexcept : ours_(own_thread), generation_(process_generation()) {}
  ~ProgramCode();
  ProgramCode(const ProgramCode&) = delete;
  ProgramCode& operator=(const ProgramCode&) = delete;

 private:
  bool ours_;
  std::uint32_t generation_;
};

}  // namespace waymark
