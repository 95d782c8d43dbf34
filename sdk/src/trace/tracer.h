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
#include "base/thread.h"
#include "journal/recorder.h"
#include "waymark/config.h"
#include "waymark/log.h"
#include "waymark/trace.h"

namespace waymark::metric {
class Aggregator;
}

namespace waymark::detail {

// One for each Telemetry. It lives as long as its handles may: the process's for ever, others as long as the object.
struct Recording {
  std::atomic<bool> on{false};
  std::atomic<std::uint32_t> generation{0};  // of the process that what follows is good for; stored last
  // In a child of fork: makes what follows the child's own. False: nothing is recorded there. May take milliseconds.
  bool (*begin_again)(void* owner) noexcept = nullptr;
  void* owner = nullptr;
  journal::Recorder* recorder = nullptr;
  const Clock* clock = nullptr;
  Sampler sampler;
  bool never_roots = false;           // the sampler says no to every span without a parent
  std::uint64_t ratio_threshold = 0;  // trace ids whose low 56 bits are below it are sampled
  Limits span_limits;
  bool small_values = true;           // no limit cuts a value of at most 64 bytes
  Limits log_limits;
  std::atomic<bool> logs_as_span_events{false};
  std::atomic<std::uint8_t> minimum_severity{255};
  Diagnostics* diagnostics = nullptr;
  std::atomic<bool> said_dropped{false};
  metric::Aggregator* metrics = nullptr;           // of this process; null until recording has started
  std::atomic<bool> metrics_on{false};             // somebody collects
  std::atomic<std::uint32_t> next_instrument{0};   // numbers are given once for all processes
  std::atomic<std::uint32_t> next_bound{0};
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

// The dynamic type of an exception, demangled; of the one being handled, empty where there is none.
[[nodiscard]] std::string exception_type(const std::exception& exception);
[[nodiscard]] std::string current_exception_type();

// The current span where it records; adds an event to it whose attributes are encoded already, as Event.attributes fields
// (tag 0x1a).
[[nodiscard]] OpenSpan* current_recording() noexcept;
void add_encoded_event(OpenSpan& span, std::string_view name, std::uint64_t time_ns, std::string_view attributes,
                       std::uint32_t dropped) noexcept;

// Whether what the recording points at is this process's own; begins again where this is a child of fork.
[[nodiscard]] inline bool here(Recording& r) noexcept {
  return r.generation.load(std::memory_order_acquire) == seen_generation() || r.begin_again(r.owner);
}

}  // namespace waymark::detail
