// The process that is killed, and what it tells before it dies.
//
// Hides: what it records. Every span and log record carries a number; what a number's record must say can be told from
//   the number alone.
// Threads: three that record and one that waits; a message is one write(2) of less than PIPE_BUF bytes, so it is whole.
// Failure: exit code 1 where a Telemetry can't be had; otherwise it ends only by being killed.
#pragma once

#include <cstdint>
#include <string>

#include "waymark/config.h"

namespace waymark::crash {

// Told after the call that it speaks of has returned (`ending`: before the span's end is begun).
enum class Told : std::uint8_t {
  ready,     // Telemetry's constructor has returned; a stepped victim: and it waits to be stepped
  opened,    // span `number` exists, with the attributes that it was started with
  set,       // span `number` got what `which` says; `value`: how often
  ending,    // span `number` is about to end
  finished,  // span `number` has ended
  logged,    // log record `number` was taken
  turn,      // of a stepped victim: the thread `which` is to be stepped now
  idle,      // this thread will do nothing more
};
struct Message {
  std::uint64_t number = 0;
  Told told = Told::ready;
  std::uint8_t thread = 0;
  std::uint8_t which = 0;
  std::uint8_t value = 0;
  std::uint8_t unused[4] = {};
};
static_assert(sizeof(Message) == 16);

inline constexpr unsigned kThreads = 3;
// The descriptor that the victim tells through, and the one that a stepped one waits on.
inline constexpr int kTellDescriptor = 3;
inline constexpr int kWaitDescriptor = 4;
void tell(unsigned thread, Told told, std::uint64_t number = 0, std::uint8_t which = 0, std::uint8_t value = 0);

// What a span gets after its start.
enum Which : std::uint8_t {
  kCount = 1,     // an attribute
  kLarge = 2,     // one that is larger than a block
  kAgain = 3,     // one that is set `value` times, so that the record is compacted now and then
  kMark = 4,      // an event with an attribute
  kMoved = 5,     // an attribute, by another thread than the one that started the span
};

// Numbers: the thread that started it, its kind, and a sequence.
enum class Kind : std::uint8_t {
  inner = 0,  // ends in the order of its number
  outer = 1,  // has inner ones as children
  moved = 2,  // may be ended by another thread
};
inline std::uint64_t number_of(unsigned thread, Kind kind, std::uint64_t sequence) {
  return (std::uint64_t{thread} << 48) | (static_cast<std::uint64_t>(kind) << 46) | sequence;
}
inline unsigned thread_of(std::uint64_t number) { return static_cast<unsigned>(number >> 48); }
inline Kind kind_of(std::uint64_t number) { return static_cast<Kind>(number >> 46 & 3); }
inline const char* name_of(std::uint64_t number) {
  constexpr const char* kNames[] = {"inner", "outer", "moved", ""};
  return kNames[static_cast<std::size_t>(kind_of(number))];
}
inline std::string text_of(std::uint64_t number) { return "text of " + std::to_string(number); }
inline std::string large_of(std::uint64_t number) {
  return std::string(3000 + number % 3000, static_cast<char>('a' + number % 26));
}
inline std::string again_of(std::uint64_t number, unsigned value) {
  return std::to_string(value) + std::string(150 + (number + value) % 100, static_cast<char>('a' + value % 26));
}

// Where telemetry is to go, and where it waits.
struct Setting {
  std::string state;  // the state directory
  std::string url;    // http://host:port, or empty: files
  std::string files;  // the directory of the files
  bool recorder_in_state = false;
  bool small_journal = false;  // segments are rolled, moved and removed all the time
};
// The same for the victim, for who recovers, and for who lives beside it: one lossless destination for each signal.
[[nodiscard]] Config config_of(const Setting& setting);
[[nodiscard]] std::string file_of(const Setting& setting, Signal signal);

// Records until it is killed. `records`: after so many spans a thread does nothing more; 0: never. SIGUSR1 makes it
// die of a SIGSEGV of its own, SIGUSR2 of abort().
int run_victim(const Setting& setting, std::uint64_t records, bool crash_handler);

}  // namespace waymark::crash
