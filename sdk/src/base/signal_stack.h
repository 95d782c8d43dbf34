// A stack of its own for each thread's signal handlers: that of a thread may be what has run out.
//
// Hides: sigaltstack, which is for each thread, and the guard page below.
// Threads: any; each for itself.
// Failure: none; a thread for which there is no memory has none. One that the program has set itself is kept.
#pragma once

namespace waymark {

// From here on lend_signal_stack() does what it says; before, nobody has asked for one.
void want_signal_stacks() noexcept;

// Gives the calling thread one, until it ends, unless it has one.
void lend_signal_stack() noexcept;

}  // namespace waymark
