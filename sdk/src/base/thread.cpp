#include "base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <cstring>
#include <initializer_list>

#include "base/signal_stack.h"

namespace waymark {

constinit thread_local bool own_thread = false;

void begin_own_thread(const char* name) noexcept {
  own_thread = true;
  char cut[16] = {};
  std::strncpy(cut, name, sizeof cut - 1);
  pthread_setname_np(pthread_self(), cut);
  sigset_t all;
  sigfillset(&all);
  // A fault while it is blocked ends the process before anybody can tell of it.
  for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigdelset(&all, fault);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  lend_signal_stack();
}

}  // namespace waymark
