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
  ready,      // Telemetry's constructor has returned
  opened,     // span `number` exists, with the attributes that it was started with
  attribute,  // the attribute `which` of span `number` was set
  ending,     // span `number` is about to end
  finished,   // span `number` has ended
  logged,     // log record `number` was taken
  idle,       // this thread will do nothing more
};
struct Message {
  std::uint64_t number = 0;
  Told told = Told::ready;
  std::uint8_t thread = 0;
  std::uint8_t which = 0;
  std::uint8_t unused[5] = {};
};
static_assert(sizeof(Message) == 16);

inline constexpr unsigned kThreads = 3;
// The descriptor that the victim tells through.
inline constexpr int kTellDescriptor = 3;

// Attributes that are set after the start.
enum Which : std::uint8_t { kCount = 1, kLarge = 2, kAgainOne = 3, kAgainTwo = 4 };

// Numbers: the thread, whether it is an outer span (they end out of order), and a sequence.
inline std::uint64_t number_of(unsigned thread, bool outer, std::uint64_t sequence) {
  return (std::uint64_t{thread} << 48) | (std::uint64_t{outer} << 47) | sequence;
}
inline unsigned thread_of(std::uint64_t number) { return static_cast<unsigned>(number >> 48); }
inline bool is_outer(std::uint64_t number) { return (number >> 47 & 1) != 0; }
inline std::string text_of(std::uint64_t number) { return "text of " + std::to_string(number); }
inline std::string large_of(std::uint64_t number) {
  return std::string(3000 + number % 3000, static_cast<char>('a' + number % 26));
}

// Where telemetry is to go, and where it waits.
struct Setting {
  std::string state;     // the state directory
  std::string url;       // http://host:port, or empty: files
  std::string files;     // the directory of the files
  bool recorder_in_state = false;
};
// The same for the victim, for who recovers, and for who lives beside it: one lossless destination for each signal.
[[nodiscard]] Config config_of(const Setting& setting);
[[nodiscard]] std::string file_of(const Setting& setting, Signal signal);

// Records until it is killed. `records`: after so many spans a thread does nothing more; 0: never.
int run_victim(const Setting& setting, std::uint64_t records);

}  // namespace waymark::crash
