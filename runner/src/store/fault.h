// Planted faults: what the chaos test must be able to find. They exist in its own build of the store
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

namespace waymark::store {

// Named for what is done wrongly or not at all.
enum class Fault : std::uint8_t {
  no_fence,      // a result counts whoever reports it
  no_countdown,  // what depends on a group is not told that it is done
  early_outbox,  // an enclosing span leaves the outbox before it was recorded
  other_span,    // an enclosing span that is sent again has another id
  lost_task,     // the tasks of a dead runner are not given back
  early_close,   // a task's subtree is closed one subtask too early
  double_countdown,  // what depends on a group is told twice that it is done
};
inline constexpr const char* kFaultNames[] = {"no_fence",   "no_countdown", "early_outbox",
                                              "other_span", "lost_task",    "early_close",
                                              "double_countdown"};

#ifdef WAYMARK_FAULTS

inline bool planted(Fault fault) noexcept {
  static const std::string_view chosen = [] {
    const char* name = std::getenv("WAYMARK_PLANTED_FAULT");
    return std::string_view(name != nullptr ? name : "");
  }();
  return chosen == kFaultNames[static_cast<std::size_t>(fault)];
}

// A thread that comes here in a process that is to be killed stays until it is.
inline void hold_fault_open() noexcept {
  if (std::getenv("WAYMARK_PLANTED_FAULT_HOLD") == nullptr) return;
  for (;;) pause();
}

#else

constexpr bool planted(Fault) noexcept { return false; }
constexpr void hold_fault_open() noexcept {}

#endif

}  // namespace waymark::store
