// One recorder, journal and set of destinations.
//
// Hides: everything between a record and its destinations.
// Threads: all members may be called from any thread; destroy it when no thread uses its tracers or loggers any more, or
//   where such a thread holds what keep() returned.
// Failure: the constructor and add() throw Error. After shutdown() its tracers and loggers record nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/config.h"
#include "waymark/log.h"
#include "waymark/metric.h"
#include "waymark/trace.h"

namespace waymark {

// offered = delivered + rejected + dropped + filtered + pending, each counted at its own event.
struct Counts {
  std::uint64_t offered = 0;    // finished records that this destination should have got
  std::uint64_t delivered = 0;  // acknowledged
  std::uint64_t rejected = 0;   // refused by the destination for good
  std::uint64_t dropped = 0;    // refused by a full recorder, or taken by a full journal
  std::uint64_t filtered = 0;   // by on_record or by the destination's own filter
  std::uint64_t pending = 0;    // still to be sent
};

struct DestinationStats {
  std::string name;
  Signal signal = Signal::traces;
  Counts counts = {};
  std::string last_error = {};  // empty: none
  bool configured = true;       // false: where dead processes' records would go that were taken over; all are pending
};

struct Stats {
  std::uint64_t spans = 0;        // ended while recording, whether kept or refused
  std::uint64_t log_records = 0;
  std::uint64_t metric_records = 0;        // a metric of a collection, or a piece of one
  std::uint64_t refused_measurements = 0;  // values that are none
  std::uint64_t open_spans = 0;
  std::uint64_t journal_bytes = 0;
  std::uint64_t recorder_bytes = 0;
  std::vector<DestinationStats> destinations;
};

class Telemetry {
 public:
  // Opens the recorder and the journal, starts the threads, and takes over what dead processes left in the state directory.
  explicit Telemetry(Config config);
  ~Telemetry();  // shutdown(5 s)
  Telemetry(const Telemetry&) = delete;
  Telemetry& operator=(const Telemetry&) = delete;

  // The scope is created once for each distinct name, version, schema URL and attributes.
  [[nodiscard]] Tracer tracer(std::string_view name, std::string_view version = {}, std::string_view schema_url = {},
                              Attributes attributes = {});
  [[nodiscard]] Logger logger(std::string_view name, std::string_view version = {}, std::string_view schema_url = {},
                              Attributes attributes = {});

  [[nodiscard]] Meter meter(std::string_view name, std::string_view version = {}, std::string_view schema_url = {},
                            Attributes attributes = {});

  // Adds a destination, or replaces the settings of the one with the same name and signal (its cursor stays).
  // A new one starts at the next record.
  void add(DestinationConfig destination);

  // Collects metrics, where somebody is sent them. True if everything that was accepted before the call has been acknowledged by every destination that is enabled. False
  // also where all is settled, but some of it was rejected or dropped meanwhile; stats() says how much.
  bool force_flush(std::chrono::nanoseconds timeout);
  // Stops recording, delivers until the deadline, leaves the rest in the state directory and says what became of every
  // record. True if nothing is left. The second call does nothing.
  bool shutdown(std::chrono::nanoseconds timeout);

  [[nodiscard]] Stats stats() const;
  [[nodiscard]] const Resource& resource() const noexcept;
  // This Telemetry's own subdirectory; empty where there is no state directory.
  [[nodiscard]] std::string directory() const;

  // Recovers now what dead siblings left in the state directory; returns how many directories were taken over.
  // Their delivery goes on in the background; force_flush covers it.
  std::size_t recover();
  // Adds a callback for what is found, and calls it at once with what was found before. Called by any thread.
  void on_recovered(OnRecovered callback);

  // While this is held, what was recorded with stays in memory after this object's end, shut down. For threads that can't
  // be waited for.
  [[nodiscard]] std::shared_ptr<void> keep() const noexcept { return core_; }

  class Core;  // not for users
  [[nodiscard]] Core& core() noexcept { return *core_; }

 private:
  friend Telemetry& telemetry();
  Telemetry();  // off
  std::shared_ptr<Core> core_;
};

// The process-wide one that configure.h's functions fill. It records nothing before the first of them, shuts itself down
// at exit (at most 5 s), and is never destroyed.
[[nodiscard]] Telemetry& telemetry();

}  // namespace waymark
