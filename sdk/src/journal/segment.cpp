#include "journal/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "base/clock.h"
#include "journal/checksum.h"
#include "journal/fault.h"
#include "journal/hook.h"

namespace waymark::journal {
namespace {

// A greater one is damage: no process lives so long.
constexpr std::uint64_t kGreatestPosition = std::uint64_t{1} << 62;
// Nor does a lane hold more than this, in bytes.
constexpr std::uint32_t kGreatestFrame = 1u << 30;
constexpr std::size_t kCopied = 256 * 1024;  // bytes at a time

constexpr FrameHeader kNoFrame{};

// As far as it is worth looking: a file may claim any size.
bool only_zeros(const Storage& storage, std::uint64_t from, std::uint64_t to) {
  constexpr std::uint64_t kLooked = 64 << 20;
  char bytes[4096];
  for (to = std::min(to, from + kLooked); from < to;) {
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(sizeof bytes, to - from));
    if (!storage.read_at(from, bytes, piece)) return false;
    if (std::any_of(bytes, bytes + piece, [](char c) { return c != 0; })) return false;
    from += piece;
  }
  return true;
}

}  // namespace

// ---- storage

Storage::~Storage() {
  if (memory_ != nullptr) ::munmap(memory_, capacity_);
}

std::shared_ptr<Storage> Storage::in_memory(std::size_t bytes) noexcept {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  std::shared_ptr<Storage> storage(new Storage);
  storage->memory_ = static_cast<char*>(memory);
  storage->capacity_ = bytes;
  return storage;
}

bool Storage::map(std::size_t bytes) noexcept {
  if (memory_ != nullptr) return true;
  if (!file_.reserve(bytes)) return false;
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file_.fd(), 0);
  if (memory == MAP_FAILED) return false;
  // A child has no use for it, and would keep its memory.
  ::madvise(memory, bytes, MADV_DONTFORK);
  memory_ = static_cast<char*>(memory);
  capacity_ = bytes;
  return true;
}

bool Storage::read_at(std::uint64_t offset, void* data, std::size_t bytes) const noexcept {
  if (memory_ == nullptr) return file_.read_at(offset, data, bytes);
  const char* const from = at(offset, bytes);
  if (from != nullptr) std::memcpy(data, from, bytes);
  return from != nullptr;
}

bool Storage::write_at(std::uint64_t offset, const iovec* pieces, int count) const noexcept {
  if (file_.valid()) return file_.write_at(offset, pieces, count);
  for (int i = 0; i < count; ++i) {
    char* const to = at(offset, pieces[i].iov_len);
    if (to == nullptr) {
      errno = ENOSPC;
      return false;
    }
    std::memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
    offset += pieces[i].iov_len;
  }
  return true;
}

void Storage::cut(std::uint64_t bytes) const noexcept {
  const int error = errno;
  if (memory_ == nullptr) [[maybe_unused]] const int cut = ::ftruncate(file_.fd(), static_cast<off_t>(bytes));
  errno = error;
}

// ---- writing

std::string segment_name(std::uint64_t base) {
  char name[32];
  std::snprintf(name, sizeof name, "%016llx.seg", static_cast<unsigned long long>(base));
  return name;
}

SegmentPtr create_segment(const std::string& directory, Place place, std::uint64_t base, const std::string& journal_id,
                          std::size_t capacity, Spare spare) {
  auto segment = std::make_shared<Segment>();
  segment->base = base;
  segment->place = place;
  if (place != Place::heap) segment->path = directory + "/" + segment_name(base);
  if (spare.storage && spare.place == place &&
      (place == Place::heap || ::rename(spare.path.c_str(), segment->path.c_str()) == 0)) {
    segment->storage = std::move(spare.storage);
    segment->used = true;
  } else if (place == Place::heap) {
    segment->storage = Storage::in_memory(capacity);
  } else {
    segment->storage = std::make_shared<Storage>(File::open(segment->path, O_RDWR | O_CREAT | O_TRUNC));
  }
  if (!segment->storage || !segment->storage->valid()) return nullptr;
  SegmentHeader header{};
  header.magic = kSegmentMagic;
  header.version = kLayoutVersion;
  header.header_bytes = sizeof header;
  header.base = base;
  header.created_ns = wall_ns();
  std::memcpy(header.journal_id, journal_id.data(), std::min(journal_id.size(), sizeof header.journal_id));
  header.used = segment->used ? 1 : 0;
  seal(header);
  // In one page, so that no end of the process comes between them.
  const iovec pieces[2] = {{&header, sizeof header}, {const_cast<FrameHeader*>(&kNoFrame), sizeof kNoFrame}};
  if (!segment->storage->write_at(0, pieces, segment->used ? 2 : 1)) {
    const int error = errno;
    if (!segment->path.empty()) ::unlink(segment->path.c_str());
    errno = error;
    return nullptr;
  }
  segment->end.store(base + sizeof header, std::memory_order_relaxed);
  segment->dirty = segment->entry_dirty = place == Place::state;
  return segment;
}

bool write_frame(const Storage& storage, std::uint64_t base, std::uint64_t position, const Stretch& stretch, bool used) {
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
  const iovec pieces[3] = {{&header, sizeof header},
                           {const_cast<void*>(stretch.data), stretch.bytes},
                           {const_cast<FrameHeader*>(&kNoFrame), sizeof kNoFrame}};
  const std::uint64_t offset = position - base;
  if (storage.is_memory()) {
    char* const to = storage.at(offset, sizeof header + stretch.bytes);
    if (to == nullptr) {
      errno = ENOSPC;
      return false;
    }
    // The process may end between any two stores: last comes the word that makes it a frame.
    const auto put_header = [&] {
      constexpr std::size_t kWord = sizeof header.magic;
      std::memcpy(to + kWord, reinterpret_cast<const char*>(&header) + kWord, sizeof header - kWord);
      std::atomic_ref(*reinterpret_cast<std::uint32_t*>(to)).store(header.magic, std::memory_order_release);
    };
    char* const end = storage.at(offset + sizeof header + stretch.bytes, sizeof kNoFrame);
    if (end != nullptr) std::memcpy(end, &kNoFrame, sizeof kNoFrame);
    if (planted(Fault::early_frame)) {
      put_header();
      hold_fault_open();
    }
    std::memcpy(to + sizeof header, stretch.data, stretch.bytes);
    put_header();
    return true;
  }
  const bool behind = used && offset + sizeof header + stretch.bytes + sizeof kNoFrame <= storage.size();
  if (storage.write_at(offset, pieces, behind ? 3 : 2)) return true;
  // What comes next goes elsewhere, and would be there twice.
  storage.cut(position - base);
  return false;
}

std::shared_ptr<Storage> copy_segment(const Storage& from, std::uint64_t bytes, const std::string& to, bool synced) {
  const std::string scratch = to + ".new";
  auto out = std::make_shared<Storage>(File::open(scratch, O_RDWR | O_CREAT | O_TRUNC));
  if (!out->valid()) return nullptr;
  Buffer buffer;
  bool good = true;
  for (std::uint64_t offset = 0; good && offset < bytes;) {
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(kCopied, bytes - offset));
    char* data = from.at(offset, piece);
    if (data == nullptr) {
      data = buffer.at_least(kCopied);
      good = from.read_at(offset, data, piece);
    }
    const iovec whole{data, piece};
    good = good && out->write_at(offset, &whole, 1);
    offset += piece;
  }
  good = good && (!synced || out->sync()) && ::rename(scratch.c_str(), to.c_str()) == 0;
  if (good && synced) good = sync_directory(to.substr(0, to.rfind('/')));
  if (good) return out;
  const int error = errno;
  ::unlink(scratch.c_str());
  errno = error;
  return nullptr;
}

// ---- reading

bool read_frame(const Storage& storage, std::uint64_t base, std::uint64_t frame, std::uint64_t end,
                FrameHeader& header) noexcept {
  return end - frame >= sizeof header && storage.read_at(frame - base, &header, sizeof header) &&
         header.magic == kFrameMagic && header.position == frame && header.bytes <= end - frame - sizeof header;
}

std::uint64_t Segment::count_before(std::uint64_t position, Signal signal) const {
  const auto s = static_cast<std::size_t>(signal);
  const std::uint64_t until = end.load(std::memory_order_acquire);
  if (position >= until) return records[s];
  std::uint64_t count = 0;
  FrameHeader header;
  Buffer buffer;
  for (std::uint64_t frame = base + sizeof(SegmentHeader); frame < position;) {
    if (!read_frame(*storage, base, frame, until, header)) break;
    const std::uint64_t data = frame + sizeof header;
    frame = data + header.bytes;
    if (header.records[s] == 0) continue;
    if (frame <= position) {
      count += header.records[s];
      continue;
    }
    char* bytes = buffer.at_least(header.bytes);
    if (position <= data || !storage->read_at(data - base, bytes, header.bytes)) break;
    for_each_record(bytes, header.bytes, 0, [&](const Record& record, std::size_t behind) {
      if (data + behind > position) return false;
      count += record.signal == signal ? 1 : 0;
      return true;
    });
  }
  return std::min(count, records[s]);
}

FoundSegment open_segment(const std::string& path, bool writable, Place place) {
  FoundSegment found;
  auto segment = std::make_shared<Segment>();
  segment->path = path;
  segment->place = place;
  segment->verify = true;
  segment->sealed = true;
  segment->storage = std::make_shared<Storage>(File::open(path, (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK));
  if (!segment->storage->valid()) {
    found.unreadable = errno != ENOENT;
    return found;
  }
  const std::uint64_t bytes = segment->storage->size();
  std::uint64_t named = 0;
  const char* name = path.data() + path.rfind('/') + 1;
  std::from_chars(name, name + 16, named, 16);
  SegmentHeader header;
  if (segment->storage->read_at(0, &header, sizeof header) && header.magic == kSegmentMagic && sealed(header) &&
      header.version == kLayoutVersion && header.header_bytes == sizeof header && header.base <= kGreatestPosition) {
    if (header.base != named) {
      // Renamed for a new segment by a process that ended before it wrote there: what the old one held counts no more.
      found.behind = named;
      return found;
    }
    segment->base = header.base;
    segment->used = header.used != 0;
    found.segment = std::move(segment);
    return found;
  }
  // One that has no bytes is of a process that died over it.
  found.damaged = bytes;
  if (bytes > 0) {
    const bool whole = bytes >= sizeof header && header.magic == kSegmentMagic && sealed(header);
    found.problem = path + (whole && header.version != kLayoutVersion
                                ? ": layout " + std::to_string(header.version) + ", this program reads " +
                                      std::to_string(kLayoutVersion) + "; left alone"
                                : ": its header, at byte 0, is damaged: no segment of layout " + std::to_string(kLayoutVersion));
  }
  // What recovery adds must not take its place.
  if (named <= kGreatestPosition) found.behind = named + std::min(bytes, kGreatestPosition);
  return found;
}

namespace {

constexpr std::uint64_t kPage = 4096;

bool is_frame(const FrameHeader& header, std::uint64_t position) noexcept {
  return header.magic == kFrameMagic && header.position == position &&
         header.header_checksum == checksum(&header, offsetof(FrameHeader, header_checksum));
}

}  // namespace

void scan_segment(FoundSegment& found, std::uint64_t limit, std::map<std::uint16_t, LastFrame>& lanes) {
  Segment& segment = *found.segment;
  const std::uint64_t size = segment.storage->size();
  std::uint64_t offset = sizeof(SegmentHeader);
  Buffer buffer;
  while (offset + sizeof(FrameHeader) <= size) {
    FrameHeader header;
    const std::string place = segment.path + ": the frame at byte " + std::to_string(offset);
    const bool read = segment.storage->read_at(offset, &header, sizeof header);
    // The end where the file was used before: in memory the rest of the next header may stand there already. Else what it was
    // made longer by, when the machine ended before the bytes were there.
    const bool in_memory = segment.used && segment.place == Place::memory;
    if (read && header.magic == 0 &&
        (in_memory || only_zeros(*segment.storage, offset, segment.used ? offset + sizeof header : size))) {
      break;
    }
    // A write ends with the process between two pages: what lies on both may be half of it.
    if (read && segment.used && limit == UINT64_MAX && offset / kPage != (offset + sizeof header - 1) / kPage &&
        !is_frame(header, segment.base + offset)) {
      break;
    }
    if (!read || !is_frame(header, segment.base + offset)) {
      found.problem = place + " is not whole; the rest of the segment is lost";
      found.damaged += size - offset;
      break;
    }
    if (header.bytes > size - offset - sizeof header || header.bytes > kGreatestFrame) break;  // torn: its lane was not freed
    const std::uint64_t next = offset + sizeof header + header.bytes;
    // A write that was given up, and stands in the next segment.
    if (segment.base + next > limit) break;
    char* data = buffer.at_least(header.bytes);
    const bool good = segment.storage->read_at(offset + sizeof header, data, header.bytes) &&
                      checksum(data, header.bytes) == header.checksum;
    if (!good && segment.used && next + sizeof header <= size) {
      // Torn, where neither the next frame nor the end stands behind it: its lane was not freed.
      FrameHeader behind;
      if (segment.storage->read_at(next, &behind, sizeof behind) && !is_frame(behind, segment.base + next) && behind.magic != 0) break;
    }
    if (!good) {
      found.problem = place + " is damaged; its records are left out";
      found.damaged += header.bytes;
      // The newest: its lane may still have what it held.
      if (next >= size) break;
    } else if (header.lane != kNoLane) {
      LastFrame& last = lanes[header.lane];
      if (header.lane_end >= last.end) {
        last = {header.lane_begin, header.lane_end, {}};
        for (std::size_t s = 0; s < kSignals; ++s) last.records[s] = header.records[s];
      }
    }
    for (std::size_t s = 0; s < kSignals; ++s) segment.records[s] += header.records[s];
    offset = next;
  }
  segment.end.store(segment.base + offset, std::memory_order_relaxed);
}

}  // namespace waymark::journal
