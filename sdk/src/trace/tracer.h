// What tracers and loggers share with the Telemetry that made them.
//
// Hides: nothing; handles in public headers point here.
// Threads: written by Telemetry before `recording` is set; read by all.
// Failure: none.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "journal/recorder.h"
#include "waymark/config.h"
#include "waymark/log.h"
#include "waymark/trace.h"

namespace waymark::detail {

// One for each Telemetry. It lives as long as its handles may: the process's for ever, others as long as the object.
struct Recording {
  std::atomic<bool> on{false};
  std::uint32_t generation = 0;       // of the process that started it: in a child of fork nothing is recorded
  journal::Recorder* recorder = nullptr;
  const Clock* clock = nullptr;
  Sampler sampler;
  std::uint64_t ratio_threshold = 0;  // trace ids whose low 56 bits are below it are sampled
  Limits span_limits;
  bool small_values = true;           // no limit cuts a value of at most 64 bytes
  Limits log_limits;
  std::atomic<bool> logs_as_span_events{false};
  std::atomic<std::uint8_t> minimum_severity{255};
  Diagnostics* diagnostics = nullptr;
  std::atomic<bool> said_dropped{false};
};

struct TracerState : TracerSwitch {
  Recording* recording_of = nullptr;
  std::uint16_t scope = 0;
};

struct LoggerState : LoggerSwitch {
  Recording* recording_of = nullptr;
  std::uint16_t scope = 0;
};

// Prepares the threshold for Sampler::ratio.
[[nodiscard]] std::uint64_t ratio_threshold(double ratio) noexcept;

// The thread's stack of contexts; null where nothing is current.
extern constinit thread_local ActiveContext* current;

// The dynamic type of an exception, demangled; of the one being handled, empty where there is none.
[[nodiscard]] std::string exception_type(const std::exception& exception);
[[nodiscard]] std::string current_exception_type();

// The current span where it records; adds an event to it whose attributes are encoded already, as Event.attributes fields
// (tag 0x1a).
[[nodiscard]] OpenSpan* current_recording() noexcept;
void add_encoded_event(OpenSpan& span, std::string_view name, std::uint64_t time_ns, std::string_view attributes,
                       std::uint32_t dropped) noexcept;

// Bumped in a child of fork: spans and recordings of another generation are inert.
extern std::atomic<std::uint32_t> process_generation;
void watch_for_fork() noexcept;

}  // namespace waymark::detail
