// The crash handler: what a deadly signal leaves in the recorders of this process, and how it is read back.
//
// Hides: signal handlers, how a stack is walked inside of one, and the form of RecorderHeader's crash fields.
// Threads: any. The handler runs in the thread that crashed; it takes no lock, allocates nothing, and touches no
//   thread-local storage of ours. Of threads that crash at once the first is told of.
// Failure: catch_crashes() throws Error(io). The handler leaves out what it can't find out; read_crash() what makes no sense.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "journal/layout.h"
#include "journal/symbols.h"

namespace waymark::journal {

struct CrashSlot;

// Installs the handler, once for the process; a later call only gives the calling thread a stack for it.
void catch_crashes();

// While it lives, a crash of this process is written there. A child of fork has no part in it.
class CrashPlace {
 public:
  explicit CrashPlace(RecorderHeader& header);
  ~CrashPlace();
  CrashPlace(const CrashPlace&) = delete;
  CrashPlace& operator=(const CrashPlace&) = delete;

 private:
  CrashSlot* slot_;
};

// What the handler wrote.
struct Crash {
  int signal = 0;
  std::uint32_t thread = 0;
  std::uint64_t time_ns = 0;
  std::string name;              // "SIGSEGV"
  std::string text;              // "SIGSEGV: address not mapped at 0x0"
  std::vector<std::uint64_t> stack;
  std::vector<LoadedModule> modules;
};
// Of a dead process, whose memory may say anything. Nothing: no crash is told of.
[[nodiscard]] std::optional<Crash> read_crash(const RecorderHeader& header);

}  // namespace waymark::journal
