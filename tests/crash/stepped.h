// The process that is single-stepped: one thread records one short script, and says whose turn it is.
//
// Hides: the scripts, and how a ring or a segment is brought to the point where the interesting thing happens.
// Threads: one that records, and those of its Telemetry.
// Failure: exit code 1 where a Telemetry can't be had; otherwise it is killed.
#pragma once

#include <cstdint>
#include <string>

#include "waymark/config.h"

namespace waymark::crash {

inline constexpr const char* kScriptNames[] = {"a span and a log record", "drained while it is open", "a long record",
                                               "a span that moves",       "the ring's end",           "a new segment"};
inline constexpr unsigned kScripts = 6;

// Whose turn it is (Told::turn); a name of a thread of the process.
enum class Turn : std::uint8_t { collector, traces, logs };
inline constexpr const char* kTurnThreads[] = {"wm-collector", "wm-traces", "wm-logs"};

// What a stepped process sent before its death: requests in this file, each behind its signal and size.
struct SentHeader {
  std::uint32_t signal;
  std::uint32_t bytes;
};
[[nodiscard]] std::string sent_file(const std::string& work);

// `work`: the directory of its state directory and its sent file.
int run_stepped(const std::string& work, std::uint64_t script);

}  // namespace waymark::crash
