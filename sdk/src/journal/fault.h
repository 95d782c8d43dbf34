// Planted faults: what the crash test must be able to find. Compiled in only when the build asks for one
// (WAYMARK_PLANTED_FAULT); each keeps its window open until the process is killed in it.
//
// Hides: nothing.
// Threads: called by the thread that has the fault.
// Failure: that is the point.
#pragma once

#include <unistd.h>

namespace waymark::journal {

// The next thread that comes here in a program that asked for it stays until it is killed.
inline void hold_fault_open() noexcept {
  for (;;) pause();
}

}  // namespace waymark::journal
