// The journal: finished records in order, on disk or tmpfs, read by any number of cursors.
//
// Hides: which segment a record goes to and where that lies, eviction, the move from tmpfs to the state directory, what
//   happens where the disk fails, and when what was written is on the disk.
// Threads: append() and announce() belong to the collector thread (for a dead process's journal: to the recoverer). Each
//   Cursor belongs to one destination thread; different cursors may be used at the same time, and beside append(). A thread
//   of the journal's own ("wm-journal") moves, removes and syncs; nobody waits for it who does not say so.
// Failure: return values. What can't be written to the state directory stays in memory until it can be, and that is said.
//   What could not be read is counted and reported through extent(), never thrown.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "journal/cursors.h"
#include "journal/definitions.h"
#include "journal/layout.h"
#include "journal/segment.h"
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

// How far one destination has got with one signal of one journal, and what became of what it passed. Moving it is one
// checksummed write beside the recorder, so that a dead process's counts add up too. An interface, so that destinations
// are tested without a journal.
class Cursor {
 public:
  using Outcome = CursorOutcome;
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

  // Keeps the destination's last error where `waymark status` finds it. No secret may stand in it.
  virtual void set_last_error(std::string_view) noexcept {}

  // These may be called from any thread.
  [[nodiscard]] virtual std::uint64_t position() const noexcept = 0;
  // Bytes of journal between the position and the end, all signals: a cheap upper bound for what is waiting.
  [[nodiscard]] virtual std::uint64_t lag_bytes() const noexcept = 0;
  // offered, delivered, rejected, dropped, filtered; pending is found by walking the journal.
  [[nodiscard]] virtual Counts counts() const = 0;
  // How many of the journal's records were rejected or dropped here; no walk. What never got into it is not among them.
  [[nodiscard]] virtual std::uint64_t lost() const = 0;
};

// What destinations see of a journal, live or dead.
class Source {
 public:
  virtual ~Source() = default;
  // Finds the cursor of this name and signal, or makes one: at the end of a live journal; at the beginning of a dead one
  // whose cursors are lost. Another dead one gives null where it had none (what nobody asked for stays pending).
  [[nodiscard]] virtual std::unique_ptr<Cursor> cursor(std::string_view name, Signal signal, bool lossy) = 0;
  // The Resource message's bytes (opentelemetry.proto.resource.v1.Resource).
  [[nodiscard]] virtual std::string resource() const = 0;
  [[nodiscard]] virtual Scope scope(std::uint16_t id) const = 0;
  // The position after the newest record that may be read.
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

// What one round of the collector wrote, by signal.
struct Journaled {
  SignalCounts records{};
  SignalCounts bytes{};  // framed
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
  using Stretch = journal::Stretch;
  [[nodiscard]] bool append(const Stretch& stretch);
  // Tells what on_readable() set that there is something to read: at once, or as soon as it is on the disk where nothing may
  // be sent before (Fsync::every_batch; then from the journal's thread).
  void announce(const Journaled& round);
  void on_readable(std::function<void(const Journaled&)> readable);  // before the first append()
  // Where Fsync::every_batch asks for it: all that was appended before the call is on the disk, or the disk has failed, and
  // that was said. False: not within the deadline.
  [[nodiscard]] bool sync(Deadline deadline);
  // Called on the journal's thread when the subdirectory is gone: is to make it anew, and to say whether it could (errno).
  void on_vanished(std::function<bool()> restore);

  [[nodiscard]] std::unique_ptr<Cursor> cursor(std::string_view name, Signal signal, bool lossy) override;
  // The names and signals of all cursors: for a dead journal, who still has something to get.
  struct CursorName {
    std::string name;
    Signal signal;
    bool done;  // at the end
  };
  [[nodiscard]] std::vector<CursorName> cursors() const;

  // Of one of cursors().
  [[nodiscard]] Counts counts_of(std::string_view name, Signal signal) const;

  [[nodiscard]] std::string resource() const override;
  [[nodiscard]] Scope scope(std::uint16_t id) const override;
  [[nodiscard]] std::uint64_t end() const noexcept override { return readable_.load(std::memory_order_acquire); }
  void set_resource(std::string encoded);
  // Registers a scope, or finds it. 65,535 at most; later ones share the last.
  [[nodiscard]] std::uint16_t add_scope(const Scope& scope);

  [[nodiscard]] const Home& home() const noexcept { return home_; }
  [[nodiscard]] std::uint64_t bytes() const;
  // For recovery: how far each lane is journaled, what recovery itself has closed, and what could not be read.
  struct Extent {
    std::map<std::uint16_t, LastFrame> lanes;  // positions in the lane
    std::uint64_t damaged_bytes = 0;
    std::string problem;  // the last one found: file, offset, what
    bool cursors_missing = false;  // there are records, and nobody knows who has got what: nothing is done
    bool unreadable = false;  // a file that is there could not be opened or read: nothing may be concluded from this
  };
  [[nodiscard]] Extent extent() const;
  // Every record from the oldest kept one on, whoever has read it.
  void for_each(const std::function<void(const Record&, std::uint16_t lane)>& each) const;
  // Of frames that end behind `from` only, and with the position where each record ends.
  void walk(std::uint64_t from, const std::function<void(const Record&, std::uint16_t lane, std::uint64_t end)>& each) const;
  void set_totals(const Totals& totals);
  // Where the recorder is gone, which knew what was offered: sets the totals to what became of it.
  void assume_totals();
  [[nodiscard]] Totals totals() const { return totals_(); }
  // Takes the oldest segments, as a full journal does, until so many bytes are free. Returns how many are.
  std::uint64_t give_up(std::uint64_t bytes);
  // Of a dead journal that is damaged, once its totals are known: what was recorded and is neither settled nor to be found
  // is dropped.
  void count_damage();

  // A clean end: what is still needed and, of what was delivered, the newest `keep_bytes` go to the state directory;
  // the rest is freed. The journal can't be used afterwards. False: something that is needed could not be moved, and lies
  // where it was.
  [[nodiscard]] bool close();
  // Ends the thread that moves segments: before the directory is given up.
  void stop_moving();

 private:
  struct Message {
    std::string key;
    DiagnosticLevel level;
    std::string text;
  };
  class FileCursor;  // file_cursor.cpp
  friend class FileCursor;

  bool write(const Stretch& stretch);
  void written(const SegmentPtr& segment, const Stretch& stretch);
  [[nodiscard]] std::vector<Place> places() const;
  [[nodiscard]] bool home_is_state() const noexcept;
  [[nodiscard]] const std::string& directory_of(Place place) const noexcept;
  bool make_room();
  bool evict(SegmentPtr segment);
  void remove(SegmentPtr segment);  // not by reference: it may be one of segments_
  [[nodiscard]] bool needed(const Segment& segment) const;
  [[nodiscard]] Counts counts_of(const CursorState& state, const Totals& totals) const;
  [[nodiscard]] std::uint64_t pending(const CursorState& state) const;
  [[nodiscard]] SegmentPtr segment_at(std::uint64_t position) const;
  void seal_and_move(const SegmentPtr& segment);
  void queue_move(const SegmentPtr& segment);
  [[nodiscard]] SegmentPtr movable() const;
  [[nodiscard]] bool known(const SegmentPtr& segment) const;
  void load_definitions();
  void find_segments(const std::string& directory, Place place, std::vector<FoundSegment>& found);
  void open_segments();
  void load_cursors(const std::vector<std::string>& paths);
  [[nodiscard]] bool cursors_lost() const;
  [[nodiscard]] CursorWrite next_write(CursorState& state);
  [[nodiscard]] std::vector<CursorWrite> all_cursors() const;
  void copy_cursors_soon();
  void copy_cursors(std::unique_lock<std::mutex>& lock);
  void open_cursors();
  void store(const CursorWrite& write);

  // What the disk does to us; with the mutex held.
  void fault(Place place, int error);
  void fine(Place place);
  [[nodiscard]] bool disk_is_wanted() const;

  // The journal's thread; `lock` is held when they are called and when they return.
  void run();
  void move_next(std::unique_lock<std::mutex>& lock);
  void try_the_disk(std::unique_lock<std::mutex>& lock);
  void sync_round(std::unique_lock<std::mutex>& lock);
  [[nodiscard]] Deadline sync_due() const noexcept;
  void sync_soon();
  bool restore(std::unique_lock<std::mutex>& lock);

  // What was decided under the mutex and is done without it: cursors are written, then files removed, then messages said (a
  // handler may ask for stats()).
  void settle();
  [[nodiscard]] bool spared(const SegmentPtr& segment);
  bool keep_spare(Spare spare, const std::string& path);
  void drop_spare(const Spare& spare);
  void note(std::string key, DiagnosticLevel level, std::string message);

  Home home_;
  JournalConfig config_;
  Diagnostics& diagnostics_;
  std::function<Totals()> totals_;
  std::function<void(const Journaled&)> on_readable_;
  bool dead_ = false;
  bool writable_ = true;
  Definitions definitions_;
  CursorFile cursor_file_;
  bool cursors_in_state_ = false;
  std::atomic<std::uint64_t> end_{0};       // behind the newest record
  std::atomic<std::uint64_t> readable_{0};  // what may be read; behind end_ only where it must be on the disk first

  mutable std::mutex mutex_;             // guards what follows; never held while a file of the state directory is written
  std::vector<SegmentPtr> segments_;     // oldest first; the last one is written to, unless it is sealed
  bool writing_ = false;                 // a frame is on its way into the last one
  SignalCounts appended_{};
  Extent extent_;
  std::vector<std::shared_ptr<CursorState>> cursors_;
  std::uint32_t next_slot_ = 0;
  Deadline copy_at_ = Deadline::max();  // when the cursors are to be copied to the state directory, beside what it holds
  std::string lost_;  // why not all cursors of a dead journal are known; empty: they are
  std::vector<CursorWrite> to_store_;
  std::vector<SegmentPtr> to_remove_;
  static constexpr std::size_t kSpares = 2;  // one that is filled while another is moved
  std::vector<Spare> spares_;
  std::uint64_t next_spare_ = 0;
  std::vector<Message> to_say_;
  bool closed_ = false;
  bool closed_whole_ = false;            // what close() answered

  std::condition_variable work_;         // for the journal's thread
  std::vector<SegmentPtr> to_move_;
  std::vector<std::string> to_unlink_;
  Deadline records_dirty_since_ = Deadline::max();  // written and not yet synced
  Deadline cursors_dirty_since_ = Deadline::max();
  Journaled unannounced_;
  std::condition_variable synced_;
  bool disk_down_ = false;               // the state directory could not be written the last time
  int disk_error_ = 0;
  Deadline retry_at_{};
  std::chrono::nanoseconds retry_wait_{0};
  bool memory_down_ = false;             // the same of tmpfs
  bool restoring_ = false;               // the subdirectory was gone, and not all that was in it is written again
  std::function<bool()> on_vanished_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace waymark::journal
