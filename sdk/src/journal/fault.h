// Planted faults: what the crash test must be able to find. Compiled in only when the build asks for one
// (WAYMARK_PLANTED_FAULT); each keeps its window open until the process is killed in it.
//
// Hides: nothing.
// Threads: called by the thread that has the fault.
// Failure: that is the point.
#pragma once

#include <unistd.h>

#include <cstdlib>

namespace waymark::journal {

// A thread that comes here in a process that is to be killed stays until it is. Whoever recovers after it, with the same
// fault compiled in, goes on.
inline void hold_fault_open() noexcept {
  if (std::getenv("WAYMARK_PLANTED_FAULT_HOLD") == nullptr) return;
  for (;;) pause();
}

}  // namespace waymark::journal
