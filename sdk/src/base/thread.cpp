#include "base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <cstring>

namespace waymark {

constinit thread_local bool own_thread = false;

void begin_own_thread(const char* name) noexcept {
  own_thread = true;
  char cut[16] = {};
  std::strncpy(cut, name, sizeof cut - 1);
  pthread_setname_np(pthread_self(), cut);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace waymark
