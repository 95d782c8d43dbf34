// Our own threads: named, deaf to signals, and known as ours.
//
// Hides: what every such thread does first.
// Threads: each for itself.
// Failure: none.
#pragma once

namespace waymark {

// True on threads that are ours: they never wait for room in a lane, since they are the ones that make it.
extern constinit thread_local bool own_thread;

// To be called first. `name` is cut to 15 bytes. All signals but faults are blocked: a write to a closed socket or beyond a file size
// limit is then an error that we see, and the program's handlers run on the program's threads.
void begin_own_thread(const char* name) noexcept;

}  // namespace waymark
