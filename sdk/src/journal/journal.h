// The journal: finished records in order, on disk or tmpfs, read by any number of cursors.
//
// Hides: segments, frames, checksums, the move from tmpfs to the state directory, eviction, and the cursors' file.
// Threads: append() belongs to the collector thread (for a dead process's journal: to the recoverer). Each Cursor belongs
//   to one destination thread; different cursors may be used at the same time, and beside append().
// Failure: return values. What could not be read is counted and reported through `problem()`, never thrown.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/config.h"
#include "waymark/telemetry.h"

namespace waymark::journal {

// One finished record as a destination sees it.
struct Record {
  Signal signal = Signal::traces;
  std::uint16_t scope = 0;     // look it up with Journal::scope()
  std::string_view framed;     // 0x12, length, body: ready to be concatenated into ScopeSpans or ScopeLogs (both field 2)
  std::string_view body;       // the Span or LogRecord alone
};

// An instrumentation scope as it goes on the wire.
struct Scope {
  std::string encoded;     // the InstrumentationScope message's bytes
  std::string schema_url;  // of ScopeSpans / ScopeLogs
};

// How far one destination has got with one signal of one journal, and what became of what it passed. Moving it is one
// checksummed write beside the recorder, so that a dead process's counts add up too. An interface, so that destinations
// are tested without a journal.
class Cursor {
 public:
  // What happened to the records of one acknowledged stretch.
  struct Outcome {
    std::uint64_t delivered = 0;
    std::uint64_t rejected = 0;
    std::uint64_t dropped = 0;
    std::uint64_t filtered = 0;
  };
  virtual ~Cursor() = default;
  // Takes records of this signal from the position on, in order, until `take` returns false (that record stays) or the
  // journal's end. What was taken is in flight until acknowledge() or abandon(): the journal does not evict it. Returns
  // the position after the last one taken; at the journal's end, the end's (records of other signals are passed over).
  // The views are good only during the call.
  [[nodiscard]] virtual std::uint64_t read(const std::function<bool(const Record&)>& take) = 0;
  // Moves to `position` (from read()) and adds to the counts.
  virtual void acknowledge(std::uint64_t position, const Outcome& outcome) noexcept = 0;
  // Nothing is in flight any more; the position stays.
  virtual void abandon() noexcept = 0;

  // These may be called from any thread.
  [[nodiscard]] virtual std::uint64_t position() const noexcept = 0;
  // Bytes of journal between the position and the end, all signals: a cheap upper bound for what is waiting.
  [[nodiscard]] virtual std::uint64_t lag_bytes() const noexcept = 0;
  // offered, delivered, rejected, dropped, filtered; pending is found by walking the journal.
  [[nodiscard]] virtual Counts counts() const = 0;
};

// What destinations see of a journal, live or dead.
class Source {
 public:
  virtual ~Source() = default;
  // Finds the cursor of this name and signal, or makes one: at the end of a live journal; a dead one gives null where it
  // had none (what nobody asked for stays pending).
  [[nodiscard]] virtual std::unique_ptr<Cursor> cursor(std::string_view name, Signal signal, bool lossy) = 0;
  // The Resource message's bytes (opentelemetry.proto.resource.v1.Resource).
  [[nodiscard]] virtual std::string resource() const = 0;
  [[nodiscard]] virtual Scope scope(std::uint16_t id) const = 0;
  // The position after the newest record.
  [[nodiscard]] virtual std::uint64_t end() const noexcept = 0;
};

}  // namespace waymark::journal
