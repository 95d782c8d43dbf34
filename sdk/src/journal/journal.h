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

#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "base/diagnostics.h"
#include "base/file.h"
#include "journal/layout.h"
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
  // What was read up to `position`, and abandoned while it waited to be sent again, is in flight once more. False where
  // the journal has taken part of it meanwhile: what was read is not to be sent, but read anew.
  [[nodiscard]] virtual bool retake(std::uint64_t position) noexcept = 0;

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

// Where a journal's files lie.
struct Home {
  std::string id;      // 32 hex digits: the subdirectory's name
  std::string state;   // <state directory>/<id>; empty: no state directory
  std::string memory;  // the tmpfs directory, or `state`, or empty: anonymous memory
};

// What happened before the journal, counted since its process started: refused by full rings, dropped by the hook, and
// what is still in the rings.
struct Totals {
  SignalCounts offered{};
  SignalCounts refused{};
  SignalCounts hook_dropped{};
  SignalCounts waiting{};
};

class Journal final : public Source {
 public:
  // A new, empty one.
  Journal(Home home, JournalConfig config, Diagnostics& diagnostics, std::function<Totals()> totals);
  // A dead process's, as its files stand. New frames go into a segment of their own.
  struct Found {};
  Journal(Found, Home home, JournalConfig config, Diagnostics& diagnostics);
  // Anyone's, to be looked at: nothing is created, locked or changed.
  struct ReadOnly {};
  Journal(ReadOnly, Home home, Diagnostics& diagnostics);
  ~Journal() override;

  // Writes one stretch of records. False: no room now (every reason is counted or said); nothing was written.
  struct Stretch {
    std::uint16_t lane = kNoLane;
    std::uint64_t lane_begin = 0;
    std::uint64_t lane_end = 0;
    std::array<std::uint32_t, kSignals> records{};
    const void* data = nullptr;
    std::size_t bytes = 0;
  };
  [[nodiscard]] bool append(const Stretch& stretch);

  [[nodiscard]] std::unique_ptr<Cursor> cursor(std::string_view name, Signal signal, bool lossy) override;
  // The names and signals of all cursors: for a dead journal, who still has something to get.
  struct CursorName {
    std::string name;
    Signal signal;
    bool done;  // at the end
  };
  [[nodiscard]] std::vector<CursorName> cursors() const;

  [[nodiscard]] std::string resource() const override;
  [[nodiscard]] Scope scope(std::uint16_t id) const override;
  [[nodiscard]] std::uint64_t end() const noexcept override { return end_.load(std::memory_order_acquire); }
  void set_resource(std::string encoded);
  // Registers a scope, or finds it. 65,535 at most; later ones share the last.
  [[nodiscard]] std::uint16_t add_scope(const Scope& scope);

  [[nodiscard]] const Home& home() const noexcept { return home_; }
  [[nodiscard]] std::uint64_t bytes() const;
  // For recovery: how far each lane is journaled, what recovery itself has closed, and what could not be read.
  struct Extent {
    struct LastFrame {
      std::uint64_t begin = 0;
      std::uint64_t end = 0;
      SignalCounts records{};
    };
    std::map<std::uint16_t, LastFrame> lanes;  // positions in the lane
    std::uint64_t damaged_bytes = 0;
    std::string problem;
    bool cursors_missing = false;  // nobody knows who has got what: nothing is done
    bool unreadable = false;  // a file that is there could not be opened or read: nothing may be concluded from this
  };
  [[nodiscard]] Extent extent() const { return extent_; }
  // Every record from the oldest kept one on, whoever has read it.
  void for_each(const std::function<void(const Record&, std::uint16_t lane)>& each) const;
  void set_totals(const Totals& totals);

  // A clean end: what is still needed and, of what was delivered, the newest `keep_bytes` go to the state directory;
  // the rest is freed. The journal can't be used afterwards. False: something that is needed could not be moved, and lies
  // where it was.
  [[nodiscard]] bool close();
  // Ends the thread that moves segments: before the directory is given up.
  void stop_moving();

 private:
  struct Segment;
  struct CursorState;
  struct Message {
    std::string key;
    DiagnosticLevel level;
    std::string text;
  };
  class FileCursor;
  friend class FileCursor;
  using SegmentPtr = std::shared_ptr<Segment>;

  bool append_locked(const Stretch& stretch);
  bool roll();
  bool make_room();
  bool evict_oldest();
  [[nodiscard]] bool needed(const Segment& segment) const;
  [[nodiscard]] std::uint64_t count_records(const Segment& segment, std::uint64_t from, Signal signal) const;
  [[nodiscard]] SegmentPtr segment_at(std::uint64_t position) const;
  bool scan(Segment& segment);
  void move_segments();
  void find_segments(const std::string& directory, bool memory);
  void open_segments();
  void load_cursors(const std::string& path);
  void store_cursor(CursorState& cursor);
  // Messages are made under the mutex and said without it: a handler may ask for stats().
  void note(std::string key, DiagnosticLevel level, std::string message);
  void speak();
  void open_definitions();

  Home home_;
  JournalConfig config_;
  Diagnostics& diagnostics_;
  std::function<Totals()> totals_;
  bool dead_ = false;
  bool writable_ = true;
  mutable std::mutex mutex_;             // guards everything below but end_
  std::vector<SegmentPtr> segments_;     // oldest first; the last one is written to
  std::atomic<std::uint64_t> end_{0};
  SignalCounts appended_{};
  Extent extent_;
  std::vector<std::shared_ptr<CursorState>> cursors_;
  File cursor_file_;
  File definitions_file_;
  std::uint64_t definitions_bytes_ = 0;
  std::string resource_;
  std::vector<Scope> scopes_;
  std::condition_variable move_;         // the mover has work
  std::vector<SegmentPtr> to_move_;
  std::vector<Message> to_say_;
  bool stopping_ = false;
  bool closed_ = false;
  std::thread mover_;
};

}  // namespace waymark::journal
