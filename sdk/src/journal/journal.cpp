#include "journal/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/clock.h"
#include "base/thread.h"
#include "journal/checksum.h"
#include "journal/fault.h"
#include "journal/hook.h"

namespace waymark::journal {
namespace {

// A greater one is damage: no process lives so long.
constexpr std::uint64_t kGreatestPosition = std::uint64_t{1} << 62;

std::string segment_name(std::uint64_t base) {
  char name[32];
  std::snprintf(name, sizeof name, "%016llx.seg", static_cast<unsigned long long>(base));
  return name;
}

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
  [[nodiscard]] const char* data() const noexcept { return data_.get(); }

 private:
  std::unique_ptr<char[]> data_;
  std::size_t capacity_ = 0;
};

// Definitions file: entries of kind, id, length, checksum, bytes.
struct DefinitionHeader {
  std::uint32_t kind;  // 0 resource, 1 scope
  std::uint32_t id;
  std::uint32_t bytes;
  std::uint32_t schema_bytes;  // of `bytes`, at the end
  std::uint64_t checksum;
};

}  // namespace

struct Journal::Segment {
  std::uint64_t base = 0;
  std::atomic<std::uint64_t> end{0};   // position behind the last frame
  std::shared_ptr<const File> file;    // guarded by the journal's mutex; readers keep a copy
  std::string path;                    // empty: anonymous memory
  bool memory = false;
  bool moving = false;                 // the mover has it, or will
  bool move_failed = false;            // it could not be written to the state directory the last time
  bool verify = false;                 // its bytes have been out of our hands
  SignalCounts records{};              // in it, by signal
};

struct Journal::CursorState {
  std::string name;
  Signal signal = Signal::traces;
  bool lossy = true;
  std::uint32_t slot = 0;
  std::uint64_t generation = 0;
  std::atomic<std::uint64_t> position{0};
  std::uint64_t in_flight_end = 0;  // 0: nothing in flight
  Cursor::Outcome outcome;
  std::uint64_t base_offered = 0;
  std::uint64_t base_refused = 0;
  std::uint64_t base_hook_dropped = 0;
};

class Journal::FileCursor final : public Cursor {
 public:
  FileCursor(Journal& journal, std::shared_ptr<CursorState> state) : journal_(journal), state_(std::move(state)) {}

  std::uint64_t read(const std::function<bool(const Record&)>& take) override {
    {
      const std::scoped_lock lock(journal_.mutex_);
      state_->in_flight_end = UINT64_MAX;
    }
    std::uint64_t position = state_->position.load(std::memory_order_relaxed);
    const std::uint64_t end = journal_.end();
    lost_ = 0;
    bool go_on = true;
    while (go_on && position < end) {
      SegmentPtr segment;
      Place place;
      {
        const std::scoped_lock lock(journal_.mutex_);
        segment = journal_.segment_at(position);
        if (segment) place = {segment->file, segment->path, segment->base, segment->verify};
      }
      if (!segment) break;
      position = std::max(position, segment->base + sizeof(SegmentHeader));
      const std::uint64_t segment_end = std::min(end, segment->end.load(std::memory_order_acquire));
      go_on = read_segment(place, position, segment_end, take);
      if (go_on && position < segment_end) position = segment_end;
      if (position >= segment_end && segment_end < end) {
        const std::scoped_lock lock(journal_.mutex_);
        const SegmentPtr next = journal_.segment_at(segment_end);
        if (!next || next == segment) break;
        position = std::max(position, next->base);
      }
    }
    const std::scoped_lock lock(journal_.mutex_);
    state_->in_flight_end = position;
    return position;
  }

  void acknowledge(std::uint64_t position, const Outcome& outcome) noexcept override {
    {
      const std::scoped_lock lock(journal_.mutex_);
      CursorState& s = *state_;
      s.in_flight_end = 0;
      s.outcome.delivered += outcome.delivered;
      s.outcome.rejected += outcome.rejected;
      s.outcome.dropped += outcome.dropped + lost_;
      s.outcome.filtered += outcome.filtered;
      s.position.store(std::max(position, s.position.load(std::memory_order_relaxed)), std::memory_order_release);
      journal_.store_cursor(s);
    }
    lost_ = 0;
    journal_.speak();
  }

  void abandon() noexcept override {
    const std::scoped_lock lock(journal_.mutex_);
    state_->in_flight_end = 0;
    abandoned_at_ = state_->position.load(std::memory_order_relaxed);
  }

  bool retake(std::uint64_t position) noexcept override {
    const std::scoped_lock lock(journal_.mutex_);
    if (state_->position.load(std::memory_order_relaxed) != abandoned_at_) return false;
    state_->in_flight_end = position;
    return true;
  }

  std::uint64_t position() const noexcept override { return state_->position.load(std::memory_order_acquire); }

  std::uint64_t lag_bytes() const noexcept override {
    const std::uint64_t end = journal_.end();
    const std::uint64_t here = position();
    return end > here ? end - here : 0;
  }

  Counts counts() const override {
    const Totals totals = journal_.totals_();
    const auto s = static_cast<std::size_t>(state_->signal);
    const std::scoped_lock lock(journal_.mutex_);
    Counts c;
    c.pending = totals.waiting[s];
    c.offered = totals.offered[s] - std::min(totals.offered[s], state_->base_offered);
    c.delivered = state_->outcome.delivered;
    c.rejected = state_->outcome.rejected;
    c.dropped = state_->outcome.dropped + totals.refused[s] - std::min(totals.refused[s], state_->base_refused);
    c.filtered = state_->outcome.filtered + totals.hook_dropped[s] - std::min(totals.hook_dropped[s], state_->base_hook_dropped);
    for (const SegmentPtr& segment : journal_.segments_) {
      if (segment->end.load(std::memory_order_relaxed) > state_->position.load(std::memory_order_relaxed)) {
        c.pending += journal_.count_records(*segment, state_->position.load(std::memory_order_relaxed), state_->signal);
      }
    }
    return c;
  }

 private:
  friend class Journal;

  // A segment's file as it is now; the mover may put another in its place meanwhile.
  struct Place {
    std::shared_ptr<const File> file;
    std::string path;
    std::uint64_t base = 0;
    bool verify = false;
  };

  // From `position` on, which becomes the place behind the last record taken. False: `take` has had enough.
  bool read_segment(const Place& segment, std::uint64_t& position, std::uint64_t end,
                    const std::function<bool(const Record&)>& take) {
    const File& file = *segment.file;
    const auto signal = static_cast<std::size_t>(state_->signal);
    std::uint64_t frame = frame_segment_ == segment.base && frame_ <= position ? frame_ : segment.base + sizeof(SegmentHeader);
    while (frame < end) {
      FrameHeader header;
      if (!file.read_at(frame - segment.base, &header, sizeof header) || header.magic != kFrameMagic ||
          header.position != frame || header.bytes > end - frame - sizeof header) {
        journal_.diagnostics_.say_limited("frame", DiagnosticLevel::error,
                                          "journal " + segment.path + ": a frame at byte " +
                                              std::to_string(frame - segment.base) + " can't be read; the rest of that segment is lost");
        return true;
      }
      const std::uint64_t records = frame + sizeof header;
      const std::uint64_t next = records + header.bytes;
      if (next <= position || header.records[signal] == 0) {
        frame = next;
        position = std::max(position, next);
        continue;
      }
      frame_segment_ = segment.base;
      frame_ = frame;
      char* data = buffer_.at_least(header.bytes);
      bool good = file.read_at(records - segment.base, data, header.bytes);
      if (good && segment.verify) good = checksum(data, header.bytes) == header.checksum;
      bool enough = false;
      if (good) {
        const std::size_t from = position > records ? static_cast<std::size_t>(position - records) : 0;
        good = for_each_record(data, header.bytes, from, [&](const Record& record, std::size_t behind) {
          if (record.signal == state_->signal && !take(record)) {
            enough = true;
            return false;
          }
          position = records + behind;
          return true;
        });
      } else {
        lost_ += header.records[signal];
      }
      if (!good) {
        journal_.diagnostics_.say_limited("damage", DiagnosticLevel::error,
                                          "journal " + segment.path + ": the records of the frame at byte " +
                                              std::to_string(frame - segment.base) + " are damaged and were left out");
      }
      if (enough) return false;
      position = next;
      frame = next;
    }
    return true;
  }

  Journal& journal_;
  std::shared_ptr<CursorState> state_;
  Buffer buffer_;
  std::uint64_t frame_segment_ = UINT64_MAX;  // where the frame that the position lies in begins
  std::uint64_t frame_ = 0;
  std::uint64_t lost_ = 0;          // damaged records of the last read; counted when it is acknowledged
  std::uint64_t abandoned_at_ = 0;  // the position when the last batch was abandoned
};

Journal::Journal(Home home, JournalConfig config, Diagnostics& diagnostics, std::function<Totals()> totals)
    : home_(std::move(home)), config_(config), diagnostics_(diagnostics), totals_(std::move(totals)) {
  cursor_file_ = home_.memory.empty() ? File::memory("waymark-cursors")
                                      : File::open(home_.memory + "/cursors", O_RDWR | O_CREAT);
  open_definitions();
  if (!home_.state.empty() && home_.memory != home_.state) {
    mover_ = std::thread([this] { move_segments(); });
  }
}

Journal::Journal(Found, Home home, JournalConfig config, Diagnostics& diagnostics)
    : home_(std::move(home)), config_(config), diagnostics_(diagnostics), dead_(true) {
  totals_ = [this] {
    Totals t;
    t.offered = appended_;
    return t;
  };
  open_segments();
  const std::string beside = home_.memory + "/cursors";
  const std::string kept = home_.state + "/cursors";
  struct stat s {};
  const bool in_memory = !home_.memory.empty() && ::stat(beside.c_str(), &s) == 0;
  load_cursors(in_memory ? beside : kept);
  cursor_file_ = File::open(in_memory ? beside : kept, O_RDWR | O_CREAT);
  open_definitions();
}

Journal::Journal(ReadOnly, Home home, Diagnostics& diagnostics)
    : home_(std::move(home)), diagnostics_(diagnostics), dead_(true), writable_(false) {
  open_segments();
  open_definitions();
}

void Journal::open_segments() {
  find_segments(home_.state, false);
  if (!home_.memory.empty() && home_.memory != home_.state) find_segments(home_.memory, true);
  std::sort(segments_.begin(), segments_.end(), [](const auto& a, const auto& b) { return a->base < b->base; });
  // A segment that was copied when the process died stands in both places: the copy was renamed last, so it is whole.
  segments_.erase(std::unique(segments_.begin(), segments_.end(),
                              [](const auto& a, const auto& b) { return a->base == b->base; }),
                  segments_.end());
  for (const SegmentPtr& segment : segments_) {
    end_.store(std::max(end_.load(std::memory_order_relaxed), segment->end.load(std::memory_order_relaxed)));
    for (std::size_t s = 0; s < kSignals; ++s) appended_[s] += segment->records[s];
  }
}

Journal::~Journal() {
  stop_moving();
}

// ---- segments

void Journal::find_segments(const std::string& directory, bool memory) {
  for (const std::string& name : list_directory(directory)) {
    if (name.size() != 20 || name.substr(16) != ".seg") continue;
    auto segment = std::make_shared<Segment>();
    segment->path = directory + "/" + name;
    segment->memory = memory;
    segment->verify = true;
    segment->file = std::make_shared<File>(File::open(segment->path, writable_ ? O_RDWR : O_RDONLY));
    SegmentHeader header;
    if (!segment->file->valid() && errno != ENOENT) extent_.unreadable = true;
    if (!segment->file->valid() || !segment->file->read_at(0, &header, sizeof header) || header.magic != kSegmentMagic ||
        !sealed(header) || header.version != kLayoutVersion || header.header_bytes != sizeof header ||
        header.base > kGreatestPosition) {
      const std::uint64_t bytes = segment->file->valid() ? segment->file->size() : 0;
      extent_.damaged_bytes += bytes;
      if (bytes > 0) extent_.problem = segment->path + ": no segment of layout " + std::to_string(kLayoutVersion);
      // What recovery adds must not take its place.
      std::uint64_t base = 0;
      std::from_chars(name.data(), name.data() + 16, base, 16);
      if (base <= kGreatestPosition) end_.store(std::max(end_.load(std::memory_order_relaxed), base + bytes));
      continue;
    }
    segment->base = header.base;
    scan(*segment);
    segments_.push_back(std::move(segment));
  }
}

// Finds the end of a segment's frames, and what they say about lanes. What lies behind the last good frame is a torn
// write, and no damage if it came from a lane that still has it.
bool Journal::scan(Segment& segment) {
  const std::uint64_t size = segment.file->size();
  std::uint64_t offset = sizeof(SegmentHeader);
  Buffer buffer;
  while (offset + sizeof(FrameHeader) <= size) {
    FrameHeader header;
    if (!segment.file->read_at(offset, &header, sizeof header)) break;
    if (header.magic == 0) break;
    if (header.magic != kFrameMagic || header.position != segment.base + offset ||
        header.header_checksum != checksum(&header, offsetof(FrameHeader, header_checksum))) {
      extent_.problem = segment.path + ": the frame at byte " + std::to_string(offset) + " is not whole";
      extent_.damaged_bytes += size - offset;
      break;
    }
    if (header.bytes > size - offset - sizeof header) break;  // torn: its lane was not freed
    char* data = buffer.at_least(header.bytes);
    const bool good = segment.file->read_at(offset + sizeof header, data, header.bytes) &&
                      checksum(data, header.bytes) == header.checksum;
    if (good) {
      if (header.lane != kNoLane) {
        Extent::LastFrame& last = extent_.lanes[header.lane];
        if (header.lane_end >= last.end) {
          last = {header.lane_begin, header.lane_end, {}};
          for (std::size_t s = 0; s < kSignals; ++s) last.records[s] = header.records[s];
        }
      }
      for (std::size_t s = 0; s < kSignals; ++s) segment.records[s] += header.records[s];
    } else {
      const bool last = offset + sizeof header + header.bytes >= size;
      if (last) break;  // torn, too
      extent_.problem = segment.path + ": the records of the frame at byte " + std::to_string(offset) + " are damaged";
      extent_.damaged_bytes += header.bytes;
      for (std::size_t s = 0; s < kSignals; ++s) segment.records[s] += header.records[s];
    }
    offset += sizeof header + header.bytes;
  }
  segment.end.store(segment.base + offset, std::memory_order_relaxed);
  return true;
}

Journal::SegmentPtr Journal::segment_at(std::uint64_t position) const {
  // The one that holds the position, else the oldest behind it.
  for (const SegmentPtr& segment : segments_) {
    if (position < segment->end.load(std::memory_order_relaxed)) return segment;
  }
  return nullptr;
}

bool Journal::needed(const Segment& segment) const {
  const std::uint64_t end = segment.end.load(std::memory_order_relaxed);
  return std::any_of(cursors_.begin(), cursors_.end(), [&](const auto& cursor) {
    return cursor->position.load(std::memory_order_relaxed) < end &&
           segment.records[static_cast<std::size_t>(cursor->signal)] > 0;
  });
}

std::uint64_t Journal::count_records(const Segment& segment, std::uint64_t from, Signal signal) const {
  const auto s = static_cast<std::size_t>(signal);
  if (from <= segment.base + sizeof(SegmentHeader)) return segment.records[s];
  std::uint64_t count = 0;
  std::uint64_t frame = segment.base + sizeof(SegmentHeader);
  const std::uint64_t end = segment.end.load(std::memory_order_acquire);
  Buffer buffer;
  while (frame < end) {
    FrameHeader header;
    if (!segment.file->read_at(frame - segment.base, &header, sizeof header) || header.magic != kFrameMagic ||
        header.bytes > end - frame - sizeof header) {
      break;
    }
    const std::uint64_t records = frame + sizeof header;
    const std::uint64_t next = records + header.bytes;
    if (next > from && header.records[s] > 0) {
      if (records >= from) {
        count += header.records[s];
      } else {
        char* data = buffer.at_least(header.bytes);
        if (segment.file->read_at(records - segment.base, data, header.bytes)) {
          for_each_record(data, header.bytes, static_cast<std::size_t>(from - records), [&](const Record& record, std::size_t) {
            count += record.signal == signal ? 1 : 0;
            return true;
          });
        }
      }
    }
    frame = next;
  }
  return count;
}

bool Journal::append(const Stretch& stretch) {
  const bool written = append_locked(stretch);
  speak();
  return written;
}

void Journal::note(std::string key, DiagnosticLevel level, std::string message) {
  to_say_.push_back({std::move(key), level, std::move(message)});
}

void Journal::speak() {
  std::vector<Message> messages;
  {
    const std::scoped_lock lock(mutex_);
    messages.swap(to_say_);
  }
  for (const Message& m : messages) diagnostics_.say_limited(m.key, m.level, m.text);
}

bool Journal::append_locked(const Stretch& stretch) {
  const std::scoped_lock lock(mutex_);
  if (closed_) return false;
  const std::uint64_t need = sizeof(FrameHeader) + stretch.bytes;
  SegmentPtr segment = segments_.empty() || segments_.back()->verify ? nullptr : segments_.back();
  if (segment && segment->end.load(std::memory_order_relaxed) + need - segment->base > config_.segment_bytes) segment = nullptr;
  if (!segment) {
    if (!roll()) return false;
    segment = segments_.back();
  }
  const std::uint64_t position = segment->end.load(std::memory_order_relaxed);
  FrameHeader header{};
  header.magic = kFrameMagic;
  header.bytes = static_cast<std::uint32_t>(stretch.bytes);
  header.position = position;
  header.lane_begin = stretch.lane_begin;
  header.lane_end = stretch.lane_end;
  header.lane = stretch.lane;
  for (std::size_t s = 0; s < kSignals; ++s) header.records[s] = stretch.records[s];
  header.header_checksum = checksum(&header, offsetof(FrameHeader, header_checksum));
  header.checksum = checksum(stretch.data, stretch.bytes);
  const iovec pieces[2] = {{&header, sizeof header}, {const_cast<void*>(stretch.data), stretch.bytes}};
  if (!segment->file->write_at(position - segment->base, pieces, 2)) {
    note("write", DiagnosticLevel::error,
                             "journal " + (segment->path.empty() ? "in memory" : segment->path) + ": cannot be written: " +
                                 errno_text(errno) + "; records wait in the recorder");
    return false;
  }
  for (std::size_t s = 0; s < kSignals; ++s) {
    segment->records[s] += stretch.records[s];
    appended_[s] += stretch.records[s];
  }
  segment->end.store(position + need, std::memory_order_release);
  end_.store(position + need, std::memory_order_release);
  return true;
}

// A new segment behind the last one.
bool Journal::roll() {
  if (!make_room()) return false;
  auto segment = std::make_shared<Segment>();
  segment->base = end_.load(std::memory_order_relaxed);
  // A dead process's new segments go to its state directory: its memory may be gone.
  const std::string& directory = dead_ ? home_.state : home_.memory;
  segment->memory = !dead_ && home_.memory != home_.state;
  if (directory.empty()) {
    segment->file = std::make_shared<File>(File::memory("waymark-segment"));
  } else {
    segment->path = directory + "/" + segment_name(segment->base);
    segment->file = std::make_shared<File>(File::open(segment->path, O_RDWR | O_CREAT | O_TRUNC));
  }
  SegmentHeader header{};
  header.magic = kSegmentMagic;
  header.version = kLayoutVersion;
  header.header_bytes = sizeof header;
  header.base = segment->base;
  header.created_ns = wall_ns();
  std::memcpy(header.journal_id, home_.id.data(), std::min(home_.id.size(), sizeof header.journal_id));
  seal(header);
  if (!segment->file->valid() || !segment->file->write_at(0, &header, sizeof header)) {
    note("write", DiagnosticLevel::error,
                             "journal: no new segment " + segment->path + ": " + errno_text(errno) +
                                 "; records wait in the recorder");
    if (!segment->path.empty()) ::unlink(segment->path.c_str());
    return false;
  }
  segment->end.store(segment->base + sizeof header, std::memory_order_relaxed);
  end_.store(segment->base + sizeof header, std::memory_order_release);
  segments_.push_back(std::move(segment));
  return true;
}

// Before a new segment: frees what is delivered, hands to the mover what is not, takes the oldest where all is full.
bool Journal::make_room() {
  if (dead_) return true;
  const bool to_disk = !home_.state.empty();
  const std::size_t limit = to_disk ? config_.max_bytes : std::min(config_.max_bytes, config_.memory_bytes);
  const auto total = [&] {
    std::uint64_t bytes = config_.segment_bytes;
    for (const SegmentPtr& s : segments_) bytes += s->end.load(std::memory_order_relaxed) - s->base;
    return bytes;
  };
  while (!segments_.empty() && total() > limit) {
    if (!evict_oldest()) return false;
  }
  if (!mover_.joinable()) return true;
  const std::size_t memory_limit = std::max<std::size_t>(2, config_.memory_bytes / config_.segment_bytes);
  const auto in_memory = [&] {
    return static_cast<std::size_t>(
        std::count_if(segments_.begin(), segments_.end(), [](const SegmentPtr& s) { return s->memory; }));
  };
  // The mover gets the oldest before the memory is full, so that a busy disk does not stop the collector.
  std::size_t in_place = in_memory();
  for (const SegmentPtr& segment : segments_) {
    if (in_place + 1 <= memory_limit - memory_limit / 4) break;
    if (!segment->memory) continue;
    --in_place;
    if (segment->moving || segment->move_failed || !needed(*segment)) continue;
    segment->moving = true;
    to_move_.push_back(segment);
    move_.notify_one();
  }
  while (in_memory() + 1 > memory_limit) {
    const auto oldest = std::find_if(segments_.begin(), segments_.end(), [](const SegmentPtr& s) { return s->memory; });
    if (!needed(**oldest) || planted(Fault::early_unlink)) {
      ::unlink((*oldest)->path.c_str());
      segments_.erase(oldest);
      continue;
    }
    // Where the disk is slow the rings hold what comes until the mover is done; where it is full, the oldest goes, one at a
    // time.
    if ((*oldest)->moving) return false;
    const bool on_disk_before = oldest != segments_.begin();
    const SegmentPtr waiting = *oldest;
    if (!evict_oldest()) return false;
    if (!on_disk_before) continue;
    // It could not be written; with room on the disk it may be now.
    waiting->moving = true;
    to_move_.push_back(waiting);
    move_.notify_one();
    return false;
  }
  return true;
}

// Takes the oldest segment. False where a batch in flight or a lossless cursor needs it.
bool Journal::evict_oldest() {
  const SegmentPtr oldest = segments_.front();
  const std::uint64_t end = oldest->end.load(std::memory_order_relaxed);
  for (const auto& cursor : cursors_) {
    const std::uint64_t position = cursor->position.load(std::memory_order_relaxed);
    if (position >= end || oldest->records[static_cast<std::size_t>(cursor->signal)] == 0) continue;
    if (cursor->in_flight_end != 0 || !cursor->lossy) return false;
  }
  for (const auto& cursor : cursors_) {
    const std::uint64_t position = cursor->position.load(std::memory_order_relaxed);
    if (position >= end) continue;
    const std::uint64_t lost = count_records(*oldest, position, cursor->signal);
    cursor->outcome.dropped += lost;
    cursor->position.store(end, std::memory_order_release);
    store_cursor(*cursor);
    if (lost > 0) {
      note("evict " + cursor->name, DiagnosticLevel::warning,
                               "destination " + cursor->name + " (" + std::string(signal_name(cursor->signal)) +
                                   "): the journal is full; " + std::to_string(lost) +
                                   " of the oldest records were dropped (raise journal.max_bytes, or see why it is slow)");
    }
  }
  if (!oldest->path.empty()) ::unlink(oldest->path.c_str());
  segments_.erase(segments_.begin());
  return true;
}

// The writer thread: full segments that are still needed, from tmpfs to the state directory.
void Journal::move_segments() {
  begin_own_thread("wm-journal");
  std::unique_lock lock(mutex_);
  for (;;) {
    move_.wait(lock, [&] { return stopping_ || !to_move_.empty(); });
    if (stopping_) return;
    const SegmentPtr segment = to_move_.front();
    to_move_.erase(to_move_.begin());
    if (std::find(segments_.begin(), segments_.end(), segment) == segments_.end()) continue;
    const std::string from = segment->path;
    const std::string to = home_.state + "/" + segment_name(segment->base);
    lock.unlock();
    const bool copied = copy_file(from, to);
    const int error = errno;
    auto file = std::make_shared<File>(copied ? File::open(to, O_RDWR) : File());
    lock.lock();
    segment->moving = false;
    segment->move_failed = !copied || !file->valid();
    if (!copied || !file->valid()) {
      lock.unlock();
      diagnostics_.say_limited("move", DiagnosticLevel::error,
                               "state directory " + home_.state + ": a segment cannot be written: " + errno_text(error) +
                                   "; telemetry stays in memory");
      lock.lock();
      continue;
    }
    if (std::find(segments_.begin(), segments_.end(), segment) == segments_.end()) {
      ::unlink(to.c_str());  // evicted meanwhile
      continue;
    }
    segment->file = std::move(file);
    segment->path = to;
    segment->memory = false;
    segment->verify = true;
    ::unlink(from.c_str());
  }
}

std::uint64_t Journal::bytes() const {
  const std::scoped_lock lock(mutex_);
  std::uint64_t bytes = 0;
  for (const SegmentPtr& s : segments_) bytes += s->end.load(std::memory_order_relaxed) - s->base;
  return bytes;
}

void Journal::for_each(const std::function<void(const Record&, std::uint16_t)>& each) const {
  std::vector<SegmentPtr> segments;
  {
    const std::scoped_lock lock(mutex_);
    segments = segments_;
  }
  Buffer buffer;
  for (const SegmentPtr& segment : segments) {
    std::uint64_t offset = sizeof(SegmentHeader);
    const std::uint64_t size = segment->end.load(std::memory_order_acquire) - segment->base;
    while (offset < size) {
      FrameHeader header;
      if (!segment->file->read_at(offset, &header, sizeof header) || header.bytes > size - offset - sizeof header) break;
      char* data = buffer.at_least(header.bytes);
      if (segment->file->read_at(offset + sizeof header, data, header.bytes) &&
          checksum(data, header.bytes) == header.checksum) {
        for_each_record(data, header.bytes, 0, [&](const Record& record, std::size_t) {
          each(record, header.lane);
          return true;
        });
      }
      offset += sizeof header + header.bytes;
    }
  }
}

void Journal::set_totals(const Totals& totals) {
  totals_ = [totals] { return totals; };
}

// ---- cursors

void Journal::load_cursors(const std::string& path) {
  const File file = File::open(path, O_RDONLY);
  if (!file.valid()) {
    extent_.cursors_missing = true;
    extent_.unreadable = extent_.unreadable || errno != ENOENT;
    return;
  }
  // The last pair may lack its second copy, or the room behind the slot.
  const std::uint64_t pairs = std::min<std::uint64_t>((file.size() + 2 * kCursorSlotBytes - 1) / (2 * kCursorSlotBytes), 1024);
  for (std::uint64_t i = 0; i < pairs; ++i) {
    CursorSlot best{};
    for (int copy = 0; copy < 2; ++copy) {
      CursorSlot slot;
      if (!file.read_at((i * 2 + static_cast<unsigned>(copy)) * kCursorSlotBytes, &slot, sizeof slot)) continue;
      if (slot.magic == kCursorMagic && sealed(slot) && slot.signal < kSignals && slot.name_bytes <= sizeof slot.name &&
          slot.position <= kGreatestPosition && (best.magic == 0 || slot.generation > best.generation)) {
        best = slot;
      }
    }
    auto state = std::make_shared<CursorState>();
    state->slot = static_cast<std::uint32_t>(i);
    if (best.magic != 0) {
      state->name.assign(best.name, best.name_bytes);
      state->signal = static_cast<Signal>(best.signal);
      state->lossy = best.lossy != 0;
      state->generation = best.generation;
      state->position.store(best.position, std::memory_order_relaxed);
      // What recovery adds lies behind every cursor, also where the segments that it has passed can't be read.
      end_.store(std::max(end_.load(std::memory_order_relaxed), best.position));
      state->outcome = {best.delivered, best.rejected, best.dropped, best.filtered};
      state->base_offered = best.base_offered;
      state->base_refused = best.base_refused;
      state->base_hook_dropped = best.base_hook_dropped;
    }
    cursors_.push_back(std::move(state));
  }
  // Unreadable slots keep their place in the file, not in the list.
  std::erase_if(cursors_, [](const auto& c) { return c->generation == 0; });
}

void Journal::store_cursor(CursorState& s) {
  CursorSlot slot{};
  slot.magic = kCursorMagic;
  slot.generation = ++s.generation;
  slot.position = s.position.load(std::memory_order_relaxed);
  slot.delivered = s.outcome.delivered;
  slot.rejected = s.outcome.rejected;
  slot.dropped = s.outcome.dropped;
  slot.filtered = s.outcome.filtered;
  slot.base_offered = s.base_offered;
  slot.base_refused = s.base_refused;
  slot.base_hook_dropped = s.base_hook_dropped;
  slot.signal = static_cast<std::uint8_t>(s.signal);
  slot.lossy = s.lossy ? 1 : 0;
  slot.name_bytes = static_cast<std::uint16_t>(std::min(s.name.size(), sizeof slot.name));
  std::memcpy(slot.name, s.name.data(), slot.name_bytes);
  seal(slot);
  if (planted(Fault::cursor_in_place)) {
    // Position and counts first, the checksum behind them, both times over the same copy.
    const std::uint64_t at = s.slot * 2 * kCursorSlotBytes;
    cursor_file_.write_at(at, &slot, 128);
    cursor_file_.write_at(at + 128, reinterpret_cast<const char*>(&slot) + 128, sizeof slot - 128);
    return;
  }
  if (!cursor_file_.write_at((s.slot * 2 + s.generation % 2) * kCursorSlotBytes, &slot, sizeof slot)) {
    note("cursor", DiagnosticLevel::error,
                             "journal: the cursor of " + s.name + " cannot be written: " + errno_text(errno) +
                                 "; what it has got would be sent again after a crash");
  }
}

std::unique_ptr<Cursor> Journal::cursor(std::string_view name, Signal signal, bool lossy) {
  name = name.substr(0, sizeof(CursorSlot::name));
  // Taken before the lock: the totals come from the recorder, whose threads never wait for us.
  const Totals totals = totals_();
  const std::scoped_lock lock(mutex_);
  for (const auto& state : cursors_) {
    if (state->name == name && state->signal == signal) {
      state->lossy = lossy;
      return std::make_unique<FileCursor>(*this, state);
    }
  }
  if (dead_) return nullptr;
  auto state = std::make_shared<CursorState>();
  const auto s = static_cast<std::size_t>(signal);
  state->name = name;
  state->signal = signal;
  state->lossy = lossy;
  state->slot = static_cast<std::uint32_t>(cursors_.size());
  state->position.store(end_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  state->base_refused = totals.refused[s];
  state->base_hook_dropped = totals.hook_dropped[s];
  // Everything journaled or lost before is not this cursor's; what waits in the rings is.
  state->base_offered = appended_[s] + state->base_refused + state->base_hook_dropped;
  cursors_.push_back(state);
  store_cursor(*state);
  return std::make_unique<FileCursor>(*this, state);
}

std::vector<Journal::CursorName> Journal::cursors() const {
  const std::scoped_lock lock(mutex_);
  std::vector<CursorName> names;
  for (const auto& state : cursors_) {
    const bool waits = std::any_of(segments_.begin(), segments_.end(), [&](const SegmentPtr& s) {
      return state->position.load(std::memory_order_relaxed) < s->end.load(std::memory_order_relaxed) &&
             s->records[static_cast<std::size_t>(state->signal)] > 0 &&
             count_records(*s, state->position.load(std::memory_order_relaxed), state->signal) > 0;
    });
    names.push_back({state->name, state->signal, !waits});
  }
  return names;
}

// ---- definitions: the resource and the scopes

void Journal::open_definitions() {
  const std::string& directory = home_.state.empty() ? home_.memory : home_.state;
  if (directory.empty()) {
    definitions_file_ = File::memory("waymark-scopes");
    return;
  }
  if (writable_) definitions_file_ = File::open(directory + "/scopes", O_RDWR | O_CREAT);
  if (!dead_) return;
  const auto bytes = read_file(directory + "/scopes", 64 << 20);
  std::size_t offset = 0;
  while (bytes && offset + sizeof(DefinitionHeader) <= bytes->size()) {
    DefinitionHeader header;
    std::memcpy(&header, bytes->data() + offset, sizeof header);
    const std::size_t begin = offset + sizeof header;
    if (header.bytes > bytes->size() - begin || header.schema_bytes > header.bytes || header.id > UINT16_MAX ||
        header.checksum != checksum(bytes->data() + begin, header.bytes)) {
      extent_.problem = directory + "/scopes: the entry at byte " + std::to_string(offset) + " is damaged";
      break;
    }
    const std::string_view text(bytes->data() + begin, header.bytes);
    if (header.kind == 0) {
      resource_ = text;
    } else {
      if (scopes_.size() <= header.id) scopes_.resize(header.id + 1);
      scopes_[header.id] = {std::string(text.substr(0, header.bytes - header.schema_bytes)),
                            std::string(text.substr(header.bytes - header.schema_bytes))};
    }
    offset = begin + header.bytes;
  }
  definitions_bytes_ = offset;
}

namespace {

bool write_definition(const File& file, std::uint64_t& offset, std::uint32_t kind, std::uint32_t id, const std::string& bytes,
                      std::size_t schema_bytes) {
  DefinitionHeader header{kind, id, static_cast<std::uint32_t>(bytes.size()), static_cast<std::uint32_t>(schema_bytes),
                          checksum(bytes.data(), bytes.size())};
  const iovec pieces[2] = {{&header, sizeof header}, {const_cast<char*>(bytes.data()), bytes.size()}};
  if (!file.write_at(offset, pieces, 2)) return false;
  offset += sizeof header + bytes.size();
  return true;
}

}  // namespace

std::string Journal::resource() const {
  const std::scoped_lock lock(mutex_);
  return resource_;
}

Scope Journal::scope(std::uint16_t id) const {
  const std::scoped_lock lock(mutex_);
  return id < scopes_.size() ? scopes_[id] : Scope{};
}

void Journal::set_resource(std::string encoded) {
  {
    const std::scoped_lock lock(mutex_);
    resource_ = std::move(encoded);
    if (!write_definition(definitions_file_, definitions_bytes_, 0, 0, resource_, 0)) {
      note("resource", DiagnosticLevel::error, "state directory " + home_.state + ": the resource cannot be written: " +
                                                   errno_text(errno) + "; after a crash it would be missing");
    }
  }
  speak();
}

std::uint16_t Journal::add_scope(const Scope& scope) {
  std::uint16_t id = 0;
  {
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < scopes_.size(); ++i) {
      if (scopes_[i].encoded == scope.encoded && scopes_[i].schema_url == scope.schema_url) {
        return static_cast<std::uint16_t>(i);
      }
    }
    if (scopes_.size() >= UINT16_MAX) return UINT16_MAX - 1;
    scopes_.push_back(scope);
    id = static_cast<std::uint16_t>(scopes_.size() - 1);
    if (!write_definition(definitions_file_, definitions_bytes_, 1, id, scope.encoded + scope.schema_url,
                          scope.schema_url.size())) {
      note("scope", DiagnosticLevel::error, "state directory " + home_.state + ": a scope cannot be written: " +
                                                errno_text(errno) + "; after a crash its name would be missing");
    }
  }
  speak();
  return id;
}

// ---- the end

void Journal::stop_moving() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  move_.notify_all();
  if (mover_.joinable()) mover_.join();
}

bool Journal::close() {
  stop_moving();
  bool whole = true;
  {
    const std::scoped_lock lock(mutex_);
    if (closed_) return true;
    closed_ = true;
    std::uint64_t kept = 0;
    for (auto it = segments_.rbegin(); it != segments_.rend(); ++it) {
      Segment& segment = **it;
      const std::uint64_t bytes = segment.end.load(std::memory_order_relaxed) - segment.base;
      if (segment.path.empty()) continue;
      const bool is_needed = needed(segment);
      if (!is_needed && kept + bytes > config_.keep_bytes) {
        ::unlink(segment.path.c_str());
        continue;
      }
      kept += bytes;
      if (!segment.memory) continue;
      if (copy_file(segment.path, home_.state + "/" + segment_name(segment.base))) {
        ::unlink(segment.path.c_str());
      } else if (is_needed) {
        whole = false;
        note("close", DiagnosticLevel::error, "state directory " + home_.state + ": a segment cannot be written: " +
                                                  errno_text(errno) + "; it stays at " + segment.path);
      }
    }
    if (!home_.memory.empty() && home_.memory != home_.state && !home_.state.empty()) {
      struct stat s {};
      const std::string beside = home_.memory + "/cursors";
      if (::stat(beside.c_str(), &s) == 0) {
        if (copy_file(beside, home_.state + "/cursors")) {
          if (whole) ::unlink(beside.c_str());
        } else {
          whole = false;
          note("close", DiagnosticLevel::error, "state directory " + home_.state + ": the cursors cannot be written: " +
                                                    errno_text(errno) + "; they stay at " + beside);
        }
      }
    }
  }
  speak();
  return whole;
}

}  // namespace waymark::journal
