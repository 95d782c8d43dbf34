#include "journal/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <numeric>
#include <utility>

#include "base/quiet_thread.h"
#include "base/thread.h"
#include "journal/checksum.h"
#include "journal/fault.h"
#include "journal/hook.h"

namespace waymark::journal {
namespace {

// Between two tries of a disk that failed. Each is a file or two; nobody but the journal's thread waits for it.
constexpr std::chrono::milliseconds kFirstRetry{100};
constexpr std::chrono::seconds kLastRetry{10};
constexpr const char* kScopes = "/scopes";

}  // namespace

// ---- beginning

Journal::Journal(Home home, JournalConfig config, Diagnostics& diagnostics, std::function<Totals()> totals)
    : home_(std::move(home)), config_(config), diagnostics_(diagnostics), totals_(std::move(totals)) {
  if (home_.state.empty()) {
    config_.fsync = Fsync::never;
    return;
  }
  open_cursors();
  definitions_.write_to(home_.state + kScopes, home_is_state() ? "" : home_.memory + kScopes);
  struct stat s {};
  if (::lstat(home_.state.c_str(), &s) != 0) {
    // The disk refused it at the start, which was said (create_home()).
    disk_down_ = restoring_ = true;
    retry_wait_ = kFirstRetry;
    retry_at_ = std::chrono::steady_clock::now() + retry_wait_;
  }
  thread_ = quiet_thread([this] { run(); });
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
  struct stat s {};
  cursors_in_state_ = home_is_state() || ::stat(beside.c_str(), &s) != 0;
  const std::string path = cursors_in_state_ ? home_.state + "/cursors" : beside;
  load_cursors(home_is_state() ? std::vector{path} : std::vector{beside, home_.state + "/cursors"});
  cursor_file_.open_later(path);
  load_definitions();
  // What the disk had refused would go with the memory.
  if (definitions_.complete()) return;
  definitions_.write_to(home_.state + kScopes, "");
  if (!definitions_.rewrite()) fault(Place::state, errno);
}

Journal::Journal(ReadOnly, Home home, Diagnostics& diagnostics)
    : home_(std::move(home)), diagnostics_(diagnostics), dead_(true), writable_(false) {
  open_segments();
  load_definitions();
}

Journal::~Journal() { stop_moving(); }

void Journal::on_readable(std::function<void(const Journaled&)> readable) { on_readable_ = std::move(readable); }

void Journal::on_vanished(std::function<bool()> restore) {
  const std::scoped_lock lock(mutex_);
  on_vanished_ = std::move(restore);
}

bool Journal::home_is_state() const noexcept { return home_.memory.empty() || home_.memory == home_.state; }

const std::string& Journal::directory_of(Place place) const noexcept {
  return place == Place::memory ? home_.memory : home_.state;
}

void Journal::open_cursors() {
  // On the disk from the start only where it is written anyway.
  cursors_in_state_ = home_is_state() || config_.fsync != Fsync::never;
  const std::string path = directory_of(cursors_in_state_ ? Place::state : Place::memory) + "/cursors";
  if (!cursor_file_.open(path)) {
    note("cursors", DiagnosticLevel::error, "journal: " + path + " cannot be made: " + errno_text(errno) +
                                                "; what destinations have got would be sent again after a crash");
  }
}

void Journal::load_definitions() {
  const std::string path = home_.state + kScopes;
  std::string problem = definitions_.load(path, home_is_state() ? "" : home_.memory + kScopes);
  if (!problem.empty()) extent_.problem = std::move(problem);
  // Of one that has no records nothing is missed.
  const bool nothing = definitions_.resource().empty() && !segments_.empty();
  if (nothing && extent_.problem.empty()) extent_.problem = path + ": it is empty or gone: its records have no resource";
}

void Journal::find_segments(const std::string& directory, Place place, std::vector<FoundSegment>& found) {
  for (const std::string& name : list_directory(directory)) {
    if (name.size() != 20 || name.substr(16) != ".seg") continue;
    FoundSegment one = open_segment(directory + "/" + name, writable_, place);
    extent_.unreadable = extent_.unreadable || one.unreadable;
    extent_.damaged_bytes += one.damaged;
    if (!one.problem.empty()) extent_.problem = one.problem;
    end_.store(std::max(end_.load(std::memory_order_relaxed), one.behind));
    if (one.segment) found.push_back(std::move(one));
  }
}

void Journal::open_segments() {
  std::vector<FoundSegment> found;
  find_segments(home_.state, Place::state, found);
  if (!home_is_state()) find_segments(home_.memory, Place::memory, found);
  // A segment that was copied when the process died stands in both places: the copy was renamed last, so it is whole.
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.segment->base < b.segment->base; });
  found.erase(std::unique(found.begin(), found.end(),
                          [](const auto& a, const auto& b) { return a.segment->base == b.segment->base; }),
              found.end());
  for (std::size_t i = 0; i < found.size(); ++i) {
    found[i].damaged = 0;
    found[i].problem.clear();
    scan_segment(found[i], i + 1 < found.size() ? found[i + 1].segment->base : UINT64_MAX, extent_.lanes);
    extent_.damaged_bytes += found[i].damaged;
    if (!found[i].problem.empty()) extent_.problem = found[i].problem;
    const SegmentPtr& segment = found[i].segment;
    end_.store(std::max(end_.load(std::memory_order_relaxed), segment->end.load(std::memory_order_relaxed)));
    for (std::size_t s = 0; s < kSignals; ++s) appended_[s] += segment->records[s];
    segments_.push_back(segment);
  }
  readable_.store(end_.load());
}

void Journal::load_cursors(const std::vector<std::string>& paths) {
  CursorFile::Loaded loaded = CursorFile::load(paths);
  extent_.unreadable = extent_.unreadable || loaded.unreadable;
  cursors_ = std::move(loaded.cursors);
  next_slot_ = loaded.slots;
  lost_ = std::move(loaded.lost);
  // What recovery adds lies behind every cursor, also where the segments that it has passed can't be read.
  for (const auto& cursor : cursors_) end_.store(std::max(end_.load(), cursor->position.load()));
  readable_.store(end_.load());
}

// With the mutex held: where there is a record that somebody may wait for of whom nobody knows.
bool Journal::cursors_lost() const {
  return !lost_.empty() && std::any_of(segments_.begin(), segments_.end(), [](const SegmentPtr& s) {
    return std::any_of(s->records.begin(), s->records.end(), [](std::uint64_t n) { return n > 0; });
  });
}

// With the mutex held.
CursorWrite Journal::next_write(CursorState& state) {
  ++state.generation;
  return write_of(state, lost_.empty() ? static_cast<std::uint32_t>(cursors_.size()) : kCursorsLost);
}

// With the mutex held.
std::vector<CursorWrite> Journal::all_cursors() const {
  std::vector<CursorWrite> all;
  for (const auto& cursor : cursors_) {
    all.push_back(write_of(*cursor, lost_.empty() ? static_cast<std::uint32_t>(cursors_.size()) : kCursorsLost));
  }
  return all;
}

// With the mutex held.
void Journal::copy_cursors_soon() {
  if (cursors_in_state_ || !thread_.joinable()) return;
  copy_at_ = std::chrono::steady_clock::now();
  work_.notify_one();
}

// To the state directory, where they lie on tmpfs: a position that is older than the truth costs duplicates. Where that
// fails nobody waits for it: with none there, who reads it takes everything for new.
void Journal::copy_cursors(std::unique_lock<std::mutex>& lock) {
  if (cursors_in_state_) return;
  copy_at_ = Deadline::max();
  const std::vector<CursorWrite> all = all_cursors();
  const std::string path = home_.state + "/cursors";
  lock.unlock();
  const bool good = CursorFile::replace(path, all);
  const int error = errno;
  lock.lock();
  if (good) return;
  copy_at_ = std::min(copy_at_, std::chrono::steady_clock::now() + kLastRetry);
  note("cursors", DiagnosticLevel::error, "journal: " + path + " cannot be written: " + errno_text(error) +
                                              "; what destinations have got would be sent again if the machine ended now");
}

Journal::Extent Journal::extent() const {
  const std::scoped_lock lock(mutex_);
  Extent extent = extent_;
  extent.cursors_missing = cursors_lost();
  if (!extent.cursors_missing) return extent;
  if (!extent.problem.empty()) extent.problem += "; ";
  extent.problem += lost_ + "; nobody knows who has got what: all that is there is sent once more";
  return extent;
}

// ---- segments

SegmentPtr Journal::segment_at(std::uint64_t position) const {
  // The one that holds the position, else the oldest behind it.
  for (const SegmentPtr& segment : segments_) {
    if (position < segment->end.load(std::memory_order_relaxed)) return segment;
  }
  return nullptr;
}

bool Journal::known(const SegmentPtr& segment) const {
  return std::find(segments_.begin(), segments_.end(), segment) != segments_.end();
}

bool Journal::needed(const Segment& segment) const {
  const std::uint64_t end = segment.end.load(std::memory_order_relaxed);
  if (planted(Fault::early_unlink)) return false;
  return std::any_of(cursors_.begin(), cursors_.end(), [&](const auto& cursor) {
    return cursor->stored_position < end && segment.records[static_cast<std::size_t>(cursor->signal)] > 0;
  });
}

void Journal::note(std::string key, DiagnosticLevel level, std::string message) {
  to_say_.push_back({std::move(key), level, std::move(message)});
}

void Journal::settle() {
  std::vector<CursorWrite> cursors;
  std::vector<SegmentPtr> segments;
  std::vector<Message> messages;
  {
    const std::scoped_lock lock(mutex_);
    if (to_store_.empty() && to_remove_.empty() && to_say_.empty()) return;
    cursors.swap(to_store_);
    segments.swap(to_remove_);
    messages.swap(to_say_);
  }
  for (const CursorWrite& write : cursors) store(write);
  for (const SegmentPtr& segment : segments) {
    if (spared(segment) || segment->path.empty()) continue;
    if (segment->place == Place::memory || !thread_.joinable()) {
      ::unlink(segment->path.c_str());
      continue;
    }
    // A disk may take its time.
    const std::scoped_lock lock(mutex_);
    to_unlink_.push_back(segment->path);
    work_.notify_one();
  }
  for (const Message& m : messages) diagnostics_.say_limited(m.key, m.level, m.text);
}

// Keeps a removed segment's memory for the next one, under a name that is no segment's: what is in it counts no more.
bool Journal::spared(const SegmentPtr& segment) {
  if (segment->place == Place::state || dead_ || segment.use_count() != 1 || segment->storage.use_count() != 1) return false;
  Spare spare{segment->storage, {}, segment->place};
  segment->storage.reset();  // and so everything that its last reader did has happened before
  return keep_spare(std::move(spare), segment->path);
}

// With the mutex held.
void Journal::drop_spare(const Spare& spare) {
  if (spare.path.empty()) return;
  to_unlink_.push_back(spare.path);
  work_.notify_one();
}

// From now on a file is written to as memory, where that can be had. Without the mutex: making room for it takes its time.
bool Journal::keep_spare(Spare spare, const std::string& path) {
  // One that held a frame larger than a segment stays as it is.
  if (spare.storage->size() > config_.segment_bytes) return false;
  const auto take = [&] {
    std::erase_if(spares_, [&](const Spare& other) {
      if (other.place == spare.place) return false;
      drop_spare(other);  // segments lie elsewhere now
      return true;
    });
    return !closed_ && spares_.size() < kSpares;
  };
  {
    const std::scoped_lock lock(mutex_);
    if (!take()) return false;
    if (!path.empty()) spare.path = home_.memory + "/spare" + std::to_string(next_spare_++);
  }
  if (!path.empty()) {
    if (::rename(path.c_str(), spare.path.c_str()) != 0) return false;
    static_cast<void>(spare.storage->map(config_.segment_bytes));
  }
  {
    const std::scoped_lock lock(mutex_);
    if (take()) {
      spares_.push_back(std::move(spare));
      return true;
    }
  }
  if (!spare.path.empty()) ::unlink(spare.path.c_str());
  return true;
}

bool Journal::append(const Stretch& stretch) {
  const bool good = write(stretch);
  settle();
  return good;
}

bool Journal::write(const Stretch& stretch) {
  const std::size_t need = sizeof(FrameHeader) + stretch.bytes;
  SegmentPtr segment;
  std::shared_ptr<const Storage> storage;
  {
    const std::scoped_lock lock(mutex_);
    if (closed_) return false;
    if (!segments_.empty() && !segments_.back()->sealed) {
      if (segments_.back()->bytes() + need <= config_.segment_bytes) {
        segment = segments_.back();
        storage = segment->storage;
        writing_ = true;
      } else {
        segments_.back()->sealed = true;
      }
    }
  }
  if (segment) {
    const std::uint64_t position = segment->end.load(std::memory_order_relaxed);
    const bool good = write_frame(*storage, segment->base, position, stretch, segment->used);
    const int error = errno;
    const std::scoped_lock lock(mutex_);
    writing_ = false;
    if (segment->moving) work_.notify_one();
    if (good) {
      written(segment, stretch);
      return true;
    }
    segment->sealed = true;
    // Beyond the limit of a file's size there may be room in another.
    if (error != EFBIG || position == segment->base + sizeof(SegmentHeader)) fault(segment->place, error);
  }
  std::vector<Place> order;
  std::uint64_t base = 0;
  Spare spare;
  {
    const std::scoped_lock lock(mutex_);
    if (!make_room()) return false;
    order = places();
    base = end_.load(std::memory_order_relaxed);
    const auto fits = std::find_if(spares_.begin(), spares_.end(), [&](const Spare& s) { return s.place == order.front(); });
    if (fits != spares_.end() && sizeof(SegmentHeader) + need <= config_.segment_bytes) {
      spare = std::move(*fits);
      spares_.erase(fits);
    }
  }
  for (const Place place : order) {
    SegmentPtr fresh = create_segment(directory_of(place), place, base, home_.id,
                                      std::max<std::size_t>(config_.segment_bytes, sizeof(SegmentHeader) + need),
                                      std::exchange(spare, {}));
    const bool good =
        fresh && write_frame(*fresh->storage, base, base + sizeof(SegmentHeader), stretch, fresh->used);
    const int error = errno;
    if (!good && fresh && !fresh->path.empty()) ::unlink(fresh->path.c_str());
    const std::scoped_lock lock(mutex_);
    if (!good) {
      fault(place, error);
      continue;
    }
    if (place != Place::heap) fine(place);
    if (!segments_.empty()) segments_.back()->sealed = true;
    segments_.push_back(fresh);
    written(fresh, stretch);
    if (place == Place::state && !dead_) copy_cursors_soon();
    return true;
  }
  return false;
}

// With the mutex held.
void Journal::written(const SegmentPtr& segment, const Stretch& stretch) {
  for (std::size_t s = 0; s < kSignals; ++s) {
    segment->records[s] += stretch.records[s];
    appended_[s] += stretch.records[s];
  }
  const std::uint64_t end = segment->end.load(std::memory_order_relaxed) + sizeof(FrameHeader) + stretch.bytes;
  segment->end.store(end, std::memory_order_release);
  end_.store(end, std::memory_order_release);
  if (config_.fsync != Fsync::every_batch || dead_) readable_.store(end, std::memory_order_release);
  if (config_.fsync == Fsync::never) return;
  segment->dirty = segment->place == Place::state;
  if (dead_) {
    // The recoverer has time, and nobody else to do it.
    if (segment->dirty && segment->storage->sync() && sync_directory(home_.state)) segment->dirty = false;
    return;
  }
  sync_soon();
}

// Where a new segment may lie, the best first.
std::vector<Place> Journal::places() const {
  // A dead process's new segments go to its state directory, where they outlive the machine; but rather to what is left of
  // its memory than nowhere.
  if (dead_) return home_is_state() ? std::vector{Place::state} : std::vector{Place::state, Place::memory};
  if (home_.state.empty()) return {Place::heap};
  const bool disk = !disk_down_;
  if (home_is_state()) return disk ? std::vector{Place::state, Place::heap} : std::vector{Place::heap};
  if (config_.fsync == Fsync::never) {
    return disk ? std::vector{Place::memory, Place::state, Place::heap} : std::vector{Place::memory, Place::heap};
  }
  return disk ? std::vector{Place::state, Place::memory, Place::heap} : std::vector{Place::memory, Place::heap};
}

// Before a new segment: frees what is delivered, hands to the journal's thread what is not, takes the oldest where all is
// full.
bool Journal::make_room() {
  if (dead_) return true;
  const bool to_disk = !home_.state.empty();
  const std::size_t limit = to_disk ? config_.max_bytes : std::min(config_.max_bytes, config_.memory_bytes);
  const auto total = [&] {
    std::uint64_t bytes = config_.segment_bytes;
    for (const SegmentPtr& s : segments_) bytes += s->bytes();
    return bytes;
  };
  while (!segments_.empty() && total() > limit) {
    if (!evict(segments_.front())) return false;
  }
  if (!to_disk) return true;
  // All that is not on the disk: at most memory_bytes of it, the next segment included, which a spare becomes.
  const auto held = [](const Segment& s) { return s.storage->is_memory() ? s.storage->size() : s.bytes(); };
  const auto in_memory = [&] {
    std::uint64_t bytes = config_.segment_bytes * std::max<std::size_t>(1, spares_.size());
    for (const SegmentPtr& s : segments_) bytes += s->place == Place::state ? 0 : held(*s);
    return bytes;
  };
  const std::uint64_t memory_limit = std::max<std::uint64_t>(2 * config_.segment_bytes, config_.memory_bytes);
  while (spares_.size() > 1 && in_memory() > memory_limit) {
    drop_spare(spares_.back());
    spares_.pop_back();
  }
  // The thread gets the oldest before the memory is full, so that a busy disk does not stop the collector; and at once what
  // would die with the process, or should have been on the disk from the start.
  const bool all = home_is_state() || config_.fsync != Fsync::never;
  std::uint64_t in_place = in_memory();
  for (const SegmentPtr& segment : segments_) {
    if (segment->place == Place::state) continue;
    const bool early = in_place > memory_limit - memory_limit / 4;
    in_place -= std::min(in_place, held(*segment));
    if ((early || all || segment->place == Place::heap) && needed(*segment)) {
      segment->sealed = true;
      queue_move(segment);
    }
  }
  while (in_memory() > memory_limit) {
    const auto oldest =
        std::find_if(segments_.begin(), segments_.end(), [](const SegmentPtr& s) { return s->place != Place::state; });
    if (oldest == segments_.end()) break;
    const SegmentPtr segment = *oldest;
    if (!needed(*segment)) {
      remove(segment);
      continue;
    }
    // Where the disk is slow, or is just being tried again, the rings hold what comes until the thread is done.
    if (segment->moving && (!disk_down_ || retry_at_ <= std::chrono::steady_clock::now())) return false;
    if (!disk_down_) {
      queue_move(segment);
      return false;
    }
    // Where it is full, room on it is made for this one; where it can't be written, only memory is of use.
    const bool full = disk_error_ == ENOSPC || disk_error_ == EDQUOT;
    if (!full || segments_.front()->place != Place::state) {
      if (!evict(segment)) return false;
      continue;
    }
    if (!evict(segments_.front())) return false;
    retry_at_ = std::chrono::steady_clock::now();
    work_.notify_one();
    return false;
  }
  return true;
}

void Journal::queue_move(const SegmentPtr& segment) {
  if (segment->moving) return;
  segment->moving = true;
  to_move_.push_back(segment);
  work_.notify_one();
}

void Journal::seal_and_move(const SegmentPtr& segment) {
  segment->sealed = true;
  queue_move(segment);
}

// The next to be moved, but not one that a frame is on its way into: write() tells when it is there.
SegmentPtr Journal::movable() const {
  const auto next = std::find_if(to_move_.begin(), to_move_.end(), [&](const SegmentPtr& segment) {
    return !writing_ || segment != segments_.back();
  });
  return next == to_move_.end() ? nullptr : *next;
}

void Journal::remove(SegmentPtr segment) {
  segments_.erase(std::find(segments_.begin(), segments_.end(), segment));
  to_remove_.push_back(segment);
}

// Takes a segment from everyone who has not read it. False where a batch in flight or a lossless cursor needs it.
std::uint64_t Journal::give_up(std::uint64_t bytes) {
  std::uint64_t freed = 0;
  {
    const std::scoped_lock lock(mutex_);
    while (freed < bytes && !segments_.empty()) {
      const std::uint64_t here = segments_.front()->bytes();
      const SignalCounts records = segments_.front()->records;
      if (!evict(segments_.front())) break;
      if (!lost_.empty()) {
        note("evict", DiagnosticLevel::warning,
             lost_ + "; " + std::to_string(std::accumulate(records.begin(), records.end(), std::uint64_t{0})) +
                 " records of which nobody knows who has got them were dropped: dead processes' directories exceed "
                 "journal.max_bytes");
      }
      freed += here;
    }
  }
  settle();
  return freed;
}

bool Journal::evict(SegmentPtr segment) {
  const std::uint64_t end = segment->end.load(std::memory_order_relaxed);
  for (const auto& cursor : cursors_) {
    const std::uint64_t position = cursor->position.load(std::memory_order_relaxed);
    if (position >= end || segment->records[static_cast<std::size_t>(cursor->signal)] == 0) continue;
    if (!cursor->lossy || cursor->in_flight_end > segment->base) return false;
  }
  for (const auto& cursor : cursors_) {
    const std::uint64_t position = cursor->position.load(std::memory_order_relaxed);
    if (position >= end) continue;
    const std::uint64_t lost = segment->count_from(position, cursor->signal);
    cursor->outcome.dropped += lost;
    ++cursor->taken;
    if (segment == segments_.front()) cursor->position.store(end, std::memory_order_release);
    to_store_.push_back(next_write(*cursor));
    if (lost > 0) {
      note("evict " + cursor->name, DiagnosticLevel::warning,
           "destination " + cursor->name + " (" + std::string(signal_name(cursor->signal)) + "): the journal is full; " +
               std::to_string(lost) + " of the oldest records were dropped (raise journal.max_bytes, or see why it is slow)");
    }
  }
  remove(segment);
  return true;
}

// ---- a disk that fails

void Journal::fault(Place place, int error) {
  const std::string why = errno_text(error) + "; ";
  const std::string advice = std::string(errno_advice(error));
  if (dead_) {
    note("write " + directory_of(place), DiagnosticLevel::error,
         "state directory " + home_.state + ": " + (place == Place::state ? "" : directory_of(place) + ": ") +
             "cannot be written: " + why + advice);
    return;
  }
  switch (place) {
    case Place::heap:
      note("heap", DiagnosticLevel::error, "journal: no memory for a new segment: " + why + "records wait in the recorder");
      return;
    case Place::memory:
      if (!std::exchange(memory_down_, true)) {
        note("memory down", DiagnosticLevel::error, "journal " + home_.memory + ": cannot be written: " + why +
                                                        "records go elsewhere until it can be; " + advice);
      }
      return;
    case Place::state: break;
  }
  disk_error_ = error;
  retry_wait_ = disk_down_ ? std::min<std::chrono::nanoseconds>(retry_wait_ * 2, kLastRetry) : kFirstRetry;
  // A directory that is gone can be made at once.
  const bool at_once = error == ENOENT && !disk_down_;
  retry_at_ = std::chrono::steady_clock::now() + (at_once ? std::chrono::nanoseconds(0) : retry_wait_);
  if (!std::exchange(disk_down_, true)) {
    note("disk down", DiagnosticLevel::error,
         "state directory " + home_.state + ": cannot be written: " + why + "telemetry stays in memory, at most " +
             std::to_string(config_.memory_bytes >> 20) + " MiB of it, until it can be; " + advice);
  }
  work_.notify_one();
}

void Journal::fine(Place place) {
  bool& down = place == Place::memory ? memory_down_ : disk_down_;
  if (!std::exchange(down, false)) return;
  note(place == Place::memory ? "memory up" : "disk up", DiagnosticLevel::info,
       place == Place::memory ? "journal " + home_.memory + ": is written again"
                              : "state directory " + home_.state + ": is written again");
}

// Whether anything waits for the state directory to be written again. Asked only while it can't be.
bool Journal::disk_is_wanted() const {
  if (restoring_ || !to_move_.empty() || !definitions_.complete()) return true;
  const bool all = home_is_state() || config_.fsync != Fsync::never;
  return std::any_of(segments_.begin(), segments_.end(), [&](const SegmentPtr& s) {
    return s->place == Place::heap || (all && s->place != Place::state);
  });
}

// ---- the journal's thread

Deadline Journal::sync_due() const noexcept {
  const auto half = config_.fsync_interval / 2;
  const auto due = [&](Deadline since) { return since == Deadline::max() ? since : since + half; };
  const Deadline records = config_.fsync == Fsync::every_batch ? records_dirty_since_ : due(records_dirty_since_);
  return std::min(records, due(cursors_dirty_since_));
}

void Journal::run() {
  begin_own_thread("wm-journal");
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!to_say_.empty() || !to_store_.empty()) {
      lock.unlock();
      settle();
      lock.lock();
      continue;
    }
    if (!to_unlink_.empty()) {
      std::vector<std::string> paths;
      paths.swap(to_unlink_);
      lock.unlock();
      for (const std::string& path : paths) ::unlink(path.c_str());
      lock.lock();
      continue;
    }
    const Deadline now = std::chrono::steady_clock::now();
    if (sync_due() <= now) {
      sync_round(lock);
      continue;
    }
    if (!disk_down_ && movable()) {
      move_next(lock);
      continue;
    }
    if (copy_at_ <= now) {
      copy_cursors(lock);
      continue;
    }
    const bool down = disk_down_ && disk_is_wanted();
    if (down && retry_at_ <= now) {
      try_the_disk(lock);
      continue;
    }
    const Deadline next = std::min({sync_due(), copy_at_, down ? retry_at_ : Deadline::max()});
    if (next == Deadline::max()) {
      work_.wait(lock);
    } else {
      work_.wait_until(lock, next);
    }
  }
}

// Full segments that are still needed, from memory to the state directory.
void Journal::move_next(std::unique_lock<std::mutex>& lock) {
  const SegmentPtr segment = movable();
  if (!known(segment)) {
    to_move_.erase(std::find(to_move_.begin(), to_move_.end(), segment));
    return;
  }
  std::shared_ptr<Storage> from = segment->storage;
  const std::uint64_t bytes = segment->bytes();
  const std::string to = home_.state + "/" + segment_name(segment->base);
  copy_cursors(lock);
  lock.unlock();
  const std::shared_ptr<Storage> copy = copy_segment(*from, bytes, to, config_.fsync != Fsync::never);
  const int error = errno;
  lock.lock();
  if (!copy) {
    fault(Place::state, error);
    return;
  }
  fine(Place::state);
  to_move_.erase(std::find(to_move_.begin(), to_move_.end(), segment));
  segment->moving = false;
  if (!known(segment)) {
    to_unlink_.push_back(to);  // taken meanwhile
    return;
  }
  const std::string old_path = std::exchange(segment->path, to);
  const Place old_place = std::exchange(segment->place, Place::state);
  segment->storage = copy;
  segment->verify = true;
  segment->dirty = segment->entry_dirty = false;
  if (old_place != Place::memory) return;
  bool kept = false;
  if (from.use_count() == 1) {
    Spare spare{from, {}, Place::memory};
    from.reset();  // as in spared()
    lock.unlock();
    kept = keep_spare(std::move(spare), old_path);
    lock.lock();
  }
  if (!kept) to_unlink_.push_back(old_path);
}

// The subdirectory is gone: it is made anew, and what was in it is written again, from the files that are still open.
bool Journal::restore(std::unique_lock<std::mutex>& lock) {
  const std::function<bool()> make = on_vanished_;
  lock.unlock();
  struct stat s {};
  const bool gone = ::lstat(home_.state.c_str(), &s) != 0 && errno == ENOENT;
  bool good = true;
  // Only this thread, or close() after its end, looks at this. It stays until all steps are done: each may fail by itself.
  restoring_ = restoring_ || gone;
  if (restoring_) {
    good = (!gone || (make && make())) && definitions_.rewrite() &&
           (!cursors_in_state_ || cursor_file_.open(home_.state + "/cursors"));
  } else if (!definitions_.complete()) {
    good = definitions_.rewrite();
  }
  const int error = errno;
  lock.lock();
  if (!good) {
    fault(Place::state, error);
    return false;
  }
  if (!std::exchange(restoring_, false)) return true;
  for (const auto& cursor : cursors_) to_store_.push_back(next_write(*cursor));
  for (const SegmentPtr& segment : segments_) {
    if (segment->place == Place::state && needed(*segment)) seal_and_move(segment);
  }
  return true;
}

void Journal::try_the_disk(std::unique_lock<std::mutex>& lock) {
  if (!restore(lock)) return;
  const bool all = home_is_state() || config_.fsync != Fsync::never;
  for (const SegmentPtr& segment : segments_) {
    const bool wants = segment->place == Place::heap || (all && segment->place != Place::state);
    if (wants && needed(*segment)) seal_and_move(segment);
  }
  while (!to_move_.empty() && !known(to_move_.front())) to_move_.erase(to_move_.begin());
  if (movable()) return move_next(lock);
  if (!to_move_.empty()) return work_.wait(lock);
  // Nothing to move: a new segment will tell.
  if (!(writing_ && !segments_.empty()) && !segments_.empty() && all) segments_.back()->sealed = true;
  fine(Place::state);
}

void Journal::sync_round(std::unique_lock<std::mutex>& lock) {
  const std::uint64_t target = end_.load(std::memory_order_relaxed);
  struct Dirty {
    SegmentPtr segment;
    std::shared_ptr<const Storage> storage;
    bool failed = false;
  };
  std::vector<Dirty> dirty;
  bool entries = false;
  for (const SegmentPtr& segment : segments_) {
    if (!segment->dirty && !segment->entry_dirty) continue;
    entries = entries || segment->entry_dirty;
    segment->dirty = false;
    dirty.push_back({segment, segment->storage});
  }
  const Journaled round = std::exchange(unannounced_, {});
  records_dirty_since_ = cursors_dirty_since_ = Deadline::max();
  lock.unlock();
  int error = 0;
  for (Dirty& d : dirty) {
    if (d.storage->sync()) continue;
    error = errno;
    d.failed = true;
  }
  if (entries && !sync_directory(home_.state)) error = errno;
  if (!definitions_.sync()) error = errno;
  if (cursors_in_state_ && !cursor_file_.sync()) error = errno;
  lock.lock();
  for (const Dirty& d : dirty) {
    if (error == 0) d.segment->entry_dirty = false;
    // What the kernel could not write it forgets: the bytes are written anew, to another file.
    if (d.failed && known(d.segment)) seal_and_move(d.segment);
  }
  if (error != 0) {
    fault(Place::state, error);
    records_dirty_since_ = std::min(records_dirty_since_, retry_at_);
  }
  if (config_.fsync != Fsync::every_batch) return;
  // Also where the disk failed, and that was said: a backend is a better place than none.
  readable_.store(target, std::memory_order_release);
  synced_.notify_all();
  const bool any = std::any_of(round.records.begin(), round.records.end(), [](std::uint64_t n) { return n > 0; });
  if (!any || !on_readable_) return;
  lock.unlock();
  on_readable_(round);
  lock.lock();
}

void Journal::announce(const Journaled& round) {
  if (config_.fsync != Fsync::every_batch) {
    if (on_readable_) on_readable_(round);
    return;
  }
  const std::scoped_lock lock(mutex_);
  for (std::size_t s = 0; s < kSignals; ++s) {
    unannounced_.records[s] += round.records[s];
    unannounced_.bytes[s] += round.bytes[s];
  }
  sync_soon();
}

// With the mutex held. A sync that failed is tried again later; what is new does not wait for that.
void Journal::sync_soon() {
  const Deadline now = std::chrono::steady_clock::now();
  if (records_dirty_since_ <= now) return;
  records_dirty_since_ = now;
  work_.notify_one();
}

bool Journal::sync(Deadline deadline) {
  if (config_.fsync != Fsync::every_batch || dead_) return true;
  std::unique_lock lock(mutex_);
  const std::uint64_t target = end_.load(std::memory_order_relaxed);
  const auto there = [&] { return readable_.load(std::memory_order_relaxed) >= target; };
  synced_.wait_until(lock, deadline, [&] { return there() || stopping_; });
  return there();
}

// ---- what is asked

std::uint64_t Journal::bytes() const {
  const std::scoped_lock lock(mutex_);
  std::uint64_t bytes = 0;
  for (const SegmentPtr& s : segments_) bytes += s->bytes();
  return bytes;
}

void Journal::for_each(const std::function<void(const Record&, std::uint16_t)>& each) const {
  walk(0, [&](const Record& record, std::uint16_t lane, std::uint64_t) { each(record, lane); });
}

void Journal::walk(std::uint64_t from,
                   const std::function<void(const Record&, std::uint16_t, std::uint64_t)>& each) const {
  struct Part {
    std::shared_ptr<const Storage> storage;
    std::uint64_t base;
    std::uint64_t end;
  };
  std::vector<Part> parts;
  {
    const std::scoped_lock lock(mutex_);
    for (const SegmentPtr& s : segments_) parts.push_back({s->storage, s->base, s->end.load(std::memory_order_relaxed)});
  }
  Buffer buffer;
  for (const Part& part : parts) {
    FrameHeader header;
    for (std::uint64_t frame = part.base + sizeof(SegmentHeader);
         frame < part.end && read_frame(*part.storage, part.base, frame, part.end, header);
         frame += sizeof header + header.bytes) {
      const std::uint64_t records = frame + sizeof header;
      if (records + header.bytes <= from) continue;
      char* data = buffer.at_least(header.bytes);
      if (!part.storage->read_at(frame - part.base + sizeof header, data, header.bytes) ||
          checksum(data, header.bytes) != header.checksum) {
        continue;
      }
      for_each_record(data, header.bytes, 0, [&](const Record& record, std::size_t behind) {
        each(record, header.lane, records + behind);
        return true;
      });
    }
  }
}

void Journal::set_totals(const Totals& totals) {
  totals_ = [totals] { return totals; };
}

void Journal::assume_totals() {
  Totals totals;
  {
    const std::scoped_lock lock(mutex_);
    totals.offered = appended_;
    const auto known = [&](const CursorState& cursor) {
      const CursorOutcome& o = cursor.outcome;
      return o.delivered + o.rejected + o.dropped + o.filtered + pending(cursor);
    };
    for (const auto& cursor : cursors_) {
      std::uint64_t& offered = totals.offered[static_cast<std::size_t>(cursor->signal)];
      offered = std::max(offered, known(*cursor));
    }
    for (const auto& cursor : cursors_) {
      cursor->base_offered = totals.offered[static_cast<std::size_t>(cursor->signal)] - known(*cursor);
      cursor->base_refused = cursor->base_hook_dropped = 0;
      to_store_.push_back(next_write(*cursor));
    }
  }
  set_totals(totals);
  settle();
}

void Journal::count_damage() {
  std::vector<std::shared_ptr<CursorState>> cursors;
  {
    const std::scoped_lock lock(mutex_);
    cursors = cursors_;
  }
  for (const auto& state : cursors) {
    const Counts c = counts_of(state->name, state->signal);
    const std::uint64_t found = c.delivered + c.rejected + c.dropped + c.filtered + c.pending;
    if (c.offered <= found) continue;
    const std::scoped_lock lock(mutex_);
    state->outcome.dropped += c.offered - found;
    to_store_.push_back(next_write(*state));
    if (!extent_.problem.empty()) continue;
    extent_.problem = home_.state + ": " + std::to_string(c.offered - found) + " records (" +
                      std::string(signal_name(state->signal)) +
                      ") that were in its segments are not there: one was cut short or removed; they are lost";
  }
  settle();
}

// ---- cursors

void Journal::store(const CursorWrite& write) {
  if (!cursor_file_.store(write)) {
    const int error = errno;
    const std::string name(write.bytes.name, write.bytes.name_bytes);
    diagnostics_.say_limited("cursor", DiagnosticLevel::error,
                             "journal: the cursor of " + name + " cannot be written: " + errno_text(error) +
                                 "; what it has got would be sent again after a crash");
    return;
  }
  const std::scoped_lock lock(mutex_);
  const auto state = std::find_if(cursors_.begin(), cursors_.end(), [&](const auto& c) { return c->slot == write.slot; });
  if (state != cursors_.end()) (*state)->stored_position = std::max((*state)->stored_position, write.bytes.position);
  if (config_.fsync == Fsync::never || !cursors_in_state_ || !thread_.joinable()) return;
  if (cursors_dirty_since_ != Deadline::max()) return;
  cursors_dirty_since_ = std::chrono::steady_clock::now();
  work_.notify_one();
}

std::vector<Journal::CursorName> Journal::cursors() const {
  const std::scoped_lock lock(mutex_);
  std::vector<CursorName> names;
  for (const auto& state : cursors_) {
    const bool waits = std::any_of(segments_.begin(), segments_.end(), [&](const SegmentPtr& s) {
      return s->count_from(state->position.load(std::memory_order_relaxed), state->signal) > 0;
    });
    names.push_back({state->name, state->signal, !waits});
  }
  return names;
}

Counts Journal::counts_of(std::string_view name, Signal signal) const {
  const Totals totals = totals_();
  const std::scoped_lock lock(mutex_);
  for (const auto& state : cursors_) {
    if (state->name == name && state->signal == signal) return counts_of(*state, totals);
  }
  return {};
}

// With the mutex held.
Counts Journal::counts_of(const CursorState& state, const Totals& totals) const {
  const auto s = static_cast<std::size_t>(state.signal);
  Counts c;
  c.pending = totals.waiting[s];
  c.offered = totals.offered[s] - std::min(totals.offered[s], state.base_offered);
  c.delivered = state.outcome.delivered;
  c.rejected = state.outcome.rejected;
  c.dropped = state.outcome.dropped + totals.refused[s] - std::min(totals.refused[s], state.base_refused);
  c.filtered = state.outcome.filtered + totals.hook_dropped[s] - std::min(totals.hook_dropped[s], state.base_hook_dropped);
  c.pending += pending(state);
  return c;
}

// With the mutex held: in the segments.
std::uint64_t Journal::pending(const CursorState& state) const {
  std::uint64_t count = 0;
  for (const SegmentPtr& segment : segments_) {
    count += segment->count_from(state.position.load(std::memory_order_relaxed), state.signal);
  }
  return count;
}

// ---- definitions

std::string Journal::resource() const { return definitions_.resource(); }

Scope Journal::scope(std::uint16_t id) const { return definitions_.scope(id); }

void Journal::set_resource(std::string encoded) {
  if (definitions_.set_resource(std::move(encoded))) return;
  const int error = errno;
  {
    const std::scoped_lock lock(mutex_);
    fault(Place::state, error);
  }
  settle();
}

std::uint16_t Journal::add_scope(const Scope& scope) {
  const Definitions::Added added = definitions_.add(scope);
  if (added.error == 0) return added.id;
  {
    const std::scoped_lock lock(mutex_);
    fault(Place::state, added.error);
  }
  settle();
  return added.id;
}

// ---- the end

void Journal::stop_moving() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  synced_.notify_all();
  if (thread_.joinable()) thread_.join();
  static_cast<void>(cursor_file_.catch_up());  // what it could not write was said
  for (const std::string& path : to_unlink_) ::unlink(path.c_str());
  to_unlink_.clear();
}

bool Journal::close() {
  stop_moving();
  bool whole = true;
  {
    std::unique_lock lock(mutex_);
    if (closed_) return closed_whole_;
    closed_ = true;
    for (const Spare& spare : spares_) {
      if (!spare.path.empty()) ::unlink(spare.path.c_str());
    }
    spares_.clear();
    if (!home_.state.empty() && !dead_) whole = restore(lock);
    const bool synced = config_.fsync != Fsync::never;
    std::uint64_t kept = 0;
    for (auto it = segments_.rbegin(); it != segments_.rend(); ++it) {
      Segment& segment = **it;
      const std::uint64_t bytes = segment.bytes();
      const bool is_needed = needed(segment);
      if (!is_needed && (kept + bytes > config_.keep_bytes || home_.state.empty())) {
        if (!segment.path.empty()) ::unlink(segment.path.c_str());
        continue;
      }
      if (home_.state.empty()) continue;
      kept += bytes;
      if (segment.place == Place::state && !segment.moving) {
        if (synced && segment.dirty && !segment.storage->sync()) whole = whole && !is_needed;
        continue;
      }
      if (copy_segment(*segment.storage, bytes, home_.state + "/" + segment_name(segment.base), synced)) {
        if (segment.place == Place::memory) ::unlink(segment.path.c_str());
      } else if (is_needed) {
        const int error = errno;
        whole = false;
        note("close", DiagnosticLevel::error, "state directory " + home_.state + ": a segment cannot be written: " +
                                                  errno_text(error) + "; it " +
                                                  (segment.path.empty() ? "is lost" : "stays at " + segment.path));
      }
    }
    if (!cursors_in_state_) {
      const std::string beside = home_.memory + "/cursors";
      if (CursorFile::replace(home_.state + "/cursors", all_cursors())) {
        if (whole) ::unlink(beside.c_str());
      } else {
        whole = false;
        note("close", DiagnosticLevel::error, "state directory " + home_.state + ": the cursors cannot be written: " +
                                                  errno_text(errno) + "; they stay at " + beside);
      }
    }
    if (synced && !(definitions_.sync() && cursor_file_.sync() && sync_directory(home_.state))) whole = false;
    closed_whole_ = whole;
  }
  settle();
  return whole;
}

}  // namespace waymark::journal
