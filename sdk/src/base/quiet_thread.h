// A thread of the library's own.
//
// Hides: that it begins with the program's signals blocked: begin_own_thread() alone would leave an instant in which one lands there.
// Threads: any.
// Failure: what std::thread throws.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace waymark {

// It takes none of the program's signals, and none for a write to a closed pipe or a full disk.
template <class F>
std::thread quiet_thread(F body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

}  // namespace waymark
