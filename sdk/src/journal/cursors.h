// How far each destination has got, and the file that says so to whoever comes after this process.
//
// Hides: the slots, each written twice by turns, and which of two copies counts.
// Threads: a CursorState is guarded by its journal's mutex; only `position` may be read without it. A CursorFile may be
//   used by any thread: an older state never overwrites a newer one.
// Failure: bool with errno. What can't be read is not there.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/file.h"
#include "journal/layout.h"
#include "waymark/config.h"

namespace waymark::journal {

// What happened to records that a cursor has passed.
struct CursorOutcome {
  std::uint64_t delivered = 0;
  std::uint64_t rejected = 0;
  std::uint64_t dropped = 0;
  std::uint64_t filtered = 0;
};

struct CursorState {
  std::string name;
  Signal signal = Signal::traces;
  bool lossy = true;
  std::uint32_t slot = 0;
  std::uint64_t generation = 0;
  std::atomic<std::uint64_t> position{0};
  std::uint64_t stored_position = 0;  // what the file says: who comes after a crash reads on from there
  std::uint64_t in_flight_end = 0;  // 0: nothing in flight
  std::uint64_t taken = 0;          // segments that the full journal took from it
  CursorOutcome outcome;
  // The journal's totals when it was made: what came before is not its own.
  std::uint64_t base_offered = 0;
  std::uint64_t base_refused = 0;
  std::uint64_t base_hook_dropped = 0;
};

// What is to be written of one cursor.
struct CursorWrite {
  std::uint32_t slot = 0;
  CursorSlot bytes{};
};
// It as it is, one of so many.
[[nodiscard]] CursorWrite write_of(const CursorState& state, std::uint32_t cursors);

// The file in the state directory that holds the last error of the destination, and when it was: its time of change.
[[nodiscard]] std::string error_file_name(std::uint32_t slot);

class CursorFile {
 public:
  struct Loaded {
    std::vector<std::shared_ptr<CursorState>> cursors;
    std::uint32_t slots = 0;  // no new one may lie before this
    bool unreadable = false;  // it is there, but could not be opened
    std::string lost;         // not empty: there are, or were, others, of which nothing is known; where, and what happened
  };
  // What the files say together, of each cursor the newest: the first is where a process keeps them.
  [[nodiscard]] static Loaded load(const std::vector<std::string>& paths);
  // Makes a file that holds these and nothing else, at once. False: errno.
  [[nodiscard]] static bool replace(const std::string& path, const std::vector<CursorWrite>& writes);

  // False: errno. Never called: what is stored goes nowhere.
  bool open(const std::string& path);
  // The same, but a file that is not there is made by what is first stored: nobody must take an empty one for the truth.
  void open_later(const std::string& path);
  // Writes it, and what could not be written before. False: errno; it is kept for the next time.
  [[nodiscard]] bool store(const CursorWrite& write) noexcept;
  // What could not be written before. False: errno.
  [[nodiscard]] bool catch_up() noexcept;
  // If something was stored since. False: errno.
  [[nodiscard]] bool sync() noexcept;
  [[nodiscard]] bool dirty() const noexcept { return dirty_.load(std::memory_order_acquire); }

 private:
  std::mutex mutex_;
  bool write(std::uint32_t slot) noexcept;

  std::string path_;  // empty: nowhere
  File file_;
  std::atomic<bool> dirty_{false};
  struct Latest {
    CursorSlot bytes{};
    bool written = false;
  };
  std::vector<Latest> latest_;  // by slot
};

}  // namespace waymark::journal
