// Planted faults: what the crash test must be able to find. They exist in the crash test's own build of a few sources
// (WAYMARK_FAULTS), where the environment chooses one; anywhere else planted() is false when it is compiled.
//
// Hides: how a fault is chosen, and that there are any.
// Threads: called by the thread that has the fault.
// Failure: that is the point.
#pragma once

#include <cstdint>

#ifdef WAYMARK_FAULTS
#include <unistd.h>

#include <cstdlib>
#include <string_view>
#endif

namespace waymark::journal {

// Named for what is done too early, too late or not at all.
enum class Fault : std::uint8_t {
  late_length,       // a record becomes visible only with the next one
  early_head,        // a lane's head passes a record before its bytes are there
  early_release,     // a span's block is free before its copy in the ring is complete
  early_open,        // a span counts before what it is started with is there
  early_commit,      // a field counts before its bytes are there
  early_compact,     // a span says that no key is repeated before that is so
  early_free,        // ring space is free before the journal has what lay in it
  early_frame,       // a frame counts before its bytes are there
  early_flip,        // a lane says that it was drained before the journal has it
  early_unlink,      // a segment is removed before its readers have passed it
  early_cursor,      // a batch is acknowledged before it was sent
  cursor_in_place,   // a cursor is written over its only good copy
  early_recovered,   // a recorder is removed before the journal has what it holds
  forgotten_pool,    // recovery does not look at the pool's blocks
  bare_interrupted,  // an interrupted span is closed without what it had
  twice,             // recovery does not look at what the journal has already
};
inline constexpr const char* kFaultNames[] = {
    "late_length",     "early_head",     "early_release",    "early_open",   "early_commit", "early_compact",
    "early_free",      "early_frame",    "early_flip",       "early_unlink", "early_cursor", "cursor_in_place",
    "early_recovered", "forgotten_pool", "bare_interrupted", "twice",
};

#ifdef WAYMARK_FAULTS

inline bool planted(Fault fault) noexcept {
  static const std::string_view chosen = [] {
    const char* name = std::getenv("WAYMARK_PLANTED_FAULT");
    return std::string_view(name != nullptr ? name : "");
  }();
  return chosen == kFaultNames[static_cast<std::size_t>(fault)];
}

// A thread that comes here in a process that is to be killed stays until it is. Whoever recovers after it, with the
// same fault, goes on.
inline void hold_fault_open() noexcept {
  if (std::getenv("WAYMARK_PLANTED_FAULT_HOLD") == nullptr) return;
  for (;;) pause();
}

#else

constexpr bool planted(Fault) noexcept { return false; }
constexpr void hold_fault_open() noexcept {}

#endif

}  // namespace waymark::journal
