// One segment of a journal: a header and frames of records, in a file or in the process's own memory.
//
// Hides: where a segment's bytes lie, how a frame is laid out, and how much of a file that a crash or a bad disk left
//   behind can be believed.
// Threads: a Storage may be read by any number of threads while one appends behind what they know of. What a Segment says
//   about itself is guarded by its journal's mutex; only `end` may be read without it.
// Failure: bool or null with errno kept. What can't be believed is described, never thrown.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/file.h"
#include "journal/layout.h"

namespace waymark::journal {

// One stretch of records, as it comes out of a lane.
struct Stretch {
  std::uint16_t lane = kNoLane;
  std::uint64_t lane_begin = 0;
  std::uint64_t lane_end = 0;
  std::array<std::uint32_t, kSignals> records{};
  const void* data = nullptr;
  std::size_t bytes = 0;
};

// Bytes that grow without being cleared.
class Buffer {
 public:
  char* at_least(std::size_t bytes) {
    if (bytes > capacity_) {
      data_.reset(new char[bytes]);
      capacity_ = bytes;
    }
    return data_.get();
  }

 private:
  std::unique_ptr<char[]> data_;
  std::size_t capacity_ = 0;
};

class Storage {
 public:
  explicit Storage(File file) noexcept : file_(std::move(file)) {}
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  // Memory of the process, which no limit of files and no file system can refuse. Null: there is none left.
  [[nodiscard]] static std::shared_ptr<Storage> in_memory(std::size_t bytes) noexcept;
  // Makes a file of tmpfs memory of the process, too: its room is reserved first, so that no write can fail. It outlives the
  // process all the same. False: it stays a file.
  bool map(std::size_t bytes) noexcept;

  [[nodiscard]] bool valid() const noexcept { return memory_ != nullptr || file_.valid(); }
  [[nodiscard]] bool read_at(std::uint64_t offset, void* data, std::size_t bytes) const noexcept;
  [[nodiscard]] bool write_at(std::uint64_t offset, const iovec* pieces, int count) const noexcept;
  // Where the bytes lie, for storage that is memory of the process; null where it is not, or they are not within it.
  [[nodiscard]] char* at(std::uint64_t offset, std::size_t bytes) const noexcept {
    return memory_ != nullptr && offset <= capacity_ && bytes <= capacity_ - offset ? memory_ + offset : nullptr;
  }
  [[nodiscard]] bool is_memory() const noexcept { return memory_ != nullptr; }
  [[nodiscard]] std::uint64_t size() const noexcept { return memory_ != nullptr ? capacity_ : file_.size(); }
  // Takes half a write back, as far as that is possible.
  void cut(std::uint64_t bytes) const noexcept;
  [[nodiscard]] bool sync() const noexcept { return memory_ != nullptr || file_.sync_data(); }

 private:
  Storage() = default;
  File file_;
  char* memory_ = nullptr;
  std::size_t capacity_ = 0;
};

enum class Place : std::uint8_t {
  state,   // a file in the state directory
  memory,  // a file beside the recorder, on tmpfs: outlives the process
  heap,    // the process's own memory: dies with it
};

struct Segment {
  std::uint64_t base = 0;
  std::atomic<std::uint64_t> end{0};  // position behind the last frame
  std::shared_ptr<Storage> storage;
  std::string path;  // empty: heap
  Place place = Place::state;
  SignalCounts records{};   // in it, by signal
  bool moving = false;      // to be written to the state directory
  bool sealed = false;      // nothing is appended any more
  bool used = false;        // its storage was another segment's before
  bool verify = false;      // its bytes have been out of our hands
  bool dirty = false;       // written since it was last synced
  bool entry_dirty = false; // its directory entry is newer than the last sync of the directory

  [[nodiscard]] std::uint64_t bytes() const noexcept { return end.load(std::memory_order_relaxed) - base; }
  // Records of a signal that stand before a position; those of a frame in the middle are walked.
  [[nodiscard]] std::uint64_t count_before(std::uint64_t position, Signal signal) const;
  [[nodiscard]] std::uint64_t count_from(std::uint64_t position, Signal signal) const {
    return records[static_cast<std::size_t>(signal)] - count_before(position, signal);
  }
};
using SegmentPtr = std::shared_ptr<Segment>;

[[nodiscard]] std::string segment_name(std::uint64_t base);

// The memory of a segment that nobody needs any more, for the next one: the kernel takes longer to find new pages than to
// copy into old ones.
struct Spare {
  std::shared_ptr<Storage> storage;  // null: none
  std::string path;                  // empty: heap
  Place place = Place::heap;
};

// A new one with nothing in it, in the spare's storage if there is one for this place. `directory` is of no account for the
// heap, which takes `capacity` bytes. Null: errno says why, and nothing is left.
[[nodiscard]] SegmentPtr create_segment(const std::string& directory, Place place, std::uint64_t base,
                                        const std::string& journal_id, std::size_t capacity, Spare spare = {});
// Writes one frame at `position`, behind which the storage may hold another segment's bytes (`used`). False: errno; what
// was written of it is taken back.
[[nodiscard]] bool write_frame(const Storage& storage, std::uint64_t base, std::uint64_t position, const Stretch& stretch,
                               bool used);
// Writes the segment's first `bytes` to a new file in `directory`; `synced`: and on to the disk, name and all. Null: errno
// says why, and nothing is left.
[[nodiscard]] std::shared_ptr<Storage> copy_segment(const Storage& from, std::uint64_t bytes, const std::string& to,
                                                    bool synced);

// The frame that begins at `frame`, if there is one that ends at `end` at the latest.
[[nodiscard]] bool read_frame(const Storage& storage, std::uint64_t base, std::uint64_t frame, std::uint64_t end,
                              FrameHeader& header) noexcept;

// What a segment's file was found to hold.
struct FoundSegment {
  SegmentPtr segment;         // null: it can't be read as one
  bool unreadable = false;    // it is there and could not be opened
  std::uint64_t behind = 0;   // no new segment may begin before this position
  std::uint64_t damaged = 0;  // bytes
  std::string problem;        // where, and what
};
[[nodiscard]] FoundSegment open_segment(const std::string& path, bool writable, Place place);

struct LastFrame {  // of a lane
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  SignalCounts records{};
};
// Finds the end of a found segment's frames, and what they say about lanes. Nothing behind `limit`, where the next segment
// begins, is believed. What lies behind the last good frame is a torn write, and no damage if it came from a lane that
// still has it.
void scan_segment(FoundSegment& found, std::uint64_t limit, std::map<std::uint16_t, LastFrame>& lanes);

}  // namespace waymark::journal
