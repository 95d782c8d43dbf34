#include "journal/recorder.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "journal/checksum.h"
#include "journal/fault.h"
#include "waymark/error.h"

namespace waymark::detail {

void SpinLock::pause() noexcept { sched_yield(); }

constinit thread_local LentLane lent_lane;

}  // namespace waymark::detail

namespace waymark::journal {

namespace {

using detail::LentLane;
using detail::lent_lane;

// The recorders of this process, by their numbers.
struct Registry {
  std::mutex mutex;
  std::unordered_map<std::uint64_t, Recorder*> recorders;
};
constinit PerProcess<Registry> registry;

// After a thread's lanes were given back, at its very end, what still records borrows a shared one each time.
constinit thread_local bool lanes_gone = false;

// All lanes of a thread, to be given back when it ends.
struct ThreadLanes {
  std::vector<LentLane> lanes;
  ~ThreadLanes() {
    lent_lane = {};
    lanes_gone = true;
    Registry& known = *registry;
    const std::scoped_lock lock(known.mutex);
    for (const LentLane& lent : lanes) {
      const auto found = known.recorders.find(lent.recorder);
      if (found != known.recorders.end()) found->second->give_back(lent.lane);
    }
  }
};
thread_local ThreadLanes thread_lanes;

std::size_t page_aligned(std::size_t bytes) noexcept { return (bytes + 4095) & ~std::size_t{4095}; }

}  // namespace

std::unique_ptr<Recorder> Recorder::create(const RecorderConfig& config, const std::string& path, std::uint64_t now_ns) {
  static std::atomic<std::uint64_t> next_id{1};
  if (config.max_bytes < (1u << 20) || config.max_bytes > (1u << 30)) {
    throw Error(ErrorCode::invalid_argument,
                "recorder.max_bytes: " + std::to_string(config.max_bytes) + ": expected 1048576 to 1073741824 bytes");
  }
  // Three quarters are rings: two thirds of these for threads with a full-sized one, then smaller ones, the last few of
  // which several threads share. What remains is blocks.
  const std::size_t rings = config.max_bytes / 4 * 3;
  const std::size_t small = kMinimumRingBytes;
  const std::size_t large = std::max(small, page_aligned(config.ring_bytes));
  std::vector<std::size_t> sizes;
  std::size_t used = 0;
  while (used + large <= rings / 2) sizes.push_back(large), used += large;
  std::size_t shared = 0;
  while (used + small <= rings) sizes.push_back(small), used += small;
  if (sizes.empty()) sizes.push_back(small), used += small;
  shared = std::max<std::size_t>(1, std::min<std::size_t>(4, sizes.size() / 3));

  const std::size_t lanes_offset = kHeaderBytes;
  const std::size_t blocks_offset = page_aligned(lanes_offset + sizes.size() * kLaneHeaderBytes);
  const std::size_t lane_blocks = sizes.size() * kLaneBlocks;
  const std::size_t rest = config.max_bytes > used + blocks_offset ? config.max_bytes - used - blocks_offset : 0;
  const std::size_t block_count = std::max(lane_blocks + 16, rest / kBlockBytes);
  const std::size_t rings_offset = page_aligned(blocks_offset + block_count * kBlockBytes);
  const std::size_t total = rings_offset + used;

  std::unique_ptr<Recorder> r(new Recorder);
  const std::string place = "recorder " + (path.empty() ? "in memory" : path) + ": cannot ";
  if (!path.empty()) {
    r->file_ = File::open(path, O_RDWR | O_CREAT | O_EXCL);
    if (!r->file_.valid() || !r->file_.reserve(total)) {
      const int error = errno;
      ::unlink(path.c_str());
      throw Error(ErrorCode::state_directory, place + "reserve " + std::to_string(total) + " bytes: " + errno_text(error) +
                                                  "; " + std::string(errno_advice(error)) +
                                                  ", or set recorder.max_bytes lower");
    }
  }
  // Without a path no file at all: no limit of file sizes and no full tmpfs can refuse it.
  void* memory = path.empty() ? mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                              : mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_SHARED, r->file_.fd(), 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    if (!path.empty()) ::unlink(path.c_str());
    throw Error(ErrorCode::state_directory, place + "be mapped: " + errno_text(error) + "; " +
                                                std::string(errno_advice(error)));
  }
  r->memory_ = static_cast<char*>(memory);
  r->bytes_ = total;
  r->id_ = next_id.fetch_add(1);
  r->blocks_ = reinterpret_cast<Block*>(r->memory_ + blocks_offset);
  r->exclusive_ = sizes.size() - shared;
  r->next_shared_ = r->exclusive_;

  std::size_t ring_offset = rings_offset;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    auto lane = std::make_unique<Lane>();
    lane->shared = reinterpret_cast<LaneHeader*>(r->memory_ + lanes_offset + i * kLaneHeaderBytes);
    lane->shared->ring_offset = ring_offset;
    lane->shared->ring_bytes = sizes[i];
    lane->ring = r->memory_ + ring_offset;
    lane->ring_bytes = sizes[i];
    lane->index = static_cast<std::uint32_t>(i);
    lane->is_shared = i >= r->exclusive_;
    for (std::size_t b = 0; b < kLaneBlocks; ++b) lane->blocks[b] = r->blocks_ + i * kLaneBlocks + b;
    lane->free_blocks = kLaneBlocks;
    ring_offset += sizes[i];
    r->lanes_.push_back(std::move(lane));
  }
  for (std::size_t b = block_count; b > lane_blocks; --b) r->pool_.push_back(r->blocks_ + b - 1);
  r->pool_blocks_ = r->pool_.size();
  r->lane_blocks_ = static_cast<std::uint32_t>(lane_blocks);

  RecorderHeader& header = r->header();
  header.version = kLayoutVersion;
  header.lanes = static_cast<std::uint32_t>(sizes.size());
  header.file_bytes = total;
  header.lanes_offset = lanes_offset;
  header.blocks_offset = blocks_offset;
  header.blocks = static_cast<std::uint32_t>(block_count);
  header.process_id = static_cast<std::uint32_t>(getpid());
  header.started_ns = now_ns;
  const std::string boot = boot_id();
  std::memcpy(header.boot_id, boot.data(), std::min(boot.size(), sizeof header.boot_id - 1));
  header.magic = kRecorderMagic;
  header.checksum = checksum(&header, offsetof(RecorderHeader, checksum));
  header.alive_ns.store(now_ns, std::memory_order_relaxed);
  // Memory that dies with the process tells nobody of a crash.
  if (!path.empty()) r->crash_place_ = std::make_unique<CrashPlace>(header);

  const std::scoped_lock lock(registry->mutex);
  registry->recorders.emplace(r->id_, r.get());
  return r;
}

Recorder::~Recorder() {
  if (id_ != 0) {
    const std::scoped_lock lock(registry->mutex);
    registry->recorders.erase(id_);
  }
  crash_place_.reset();
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

Lane* Recorder::borrow_lane() noexcept {
  if (lanes_gone) return lanes_.back().get();
  for (const LentLane& lent : thread_lanes.lanes) {
    if (lent.recorder == id_) {
      lent_lane = lent;
      return lent.lane;
    }
  }
  Lane* lane = nullptr;
  {
    const std::scoped_lock lock(lending_);
    for (std::size_t i = 0; i < exclusive_ && lane == nullptr; ++i) {
      if (!lanes_[i]->lent) lane = lanes_[i].get();
    }
    if (lane != nullptr) {
      lane->lent = true;
      lane->shared->thread.store(thread_id(), std::memory_order_relaxed);
    } else {
      lane = lanes_[next_shared_].get();
      next_shared_ = next_shared_ + 1 < lanes_.size() ? next_shared_ + 1 : exclusive_;
    }
  }
  // Out of memory here ends the program, as it would for any thread-local object.
  thread_lanes.lanes.push_back({id_, lane});
  lent_lane = {id_, lane};
  return lane;
}

void Recorder::give_back(Lane* lane) noexcept {
  if (lane->is_shared) return;
  const std::scoped_lock lock(lending_);
  lane->shared->thread.store(0, std::memory_order_relaxed);
  // Spans that the thread left open keep the lane's blocks; it is lent again only when they are back.
  lane->lent = lane->free_blocks != kLaneBlocks;
}

void Recorder::refuse(Signal signal) noexcept {
  Lane& lane = *this->lane();
  if (lane.is_shared) lane.lock.lock();
  count_refused(lane, signal);
  if (lane.is_shared) lane.lock.unlock();
}

Block* Recorder::take_pool_record() noexcept {
  Block* block = take_pool_block();
  if (block != nullptr) pool_records_.fetch_add(1, std::memory_order_relaxed);
  return block;
}

Block* Recorder::take_pool_block() noexcept {
  Block* block;
  {
    const std::scoped_lock lock(pool_mutex_);
    if (pool_.empty()) return nullptr;
    block = pool_.back();
    pool_.pop_back();
  }
  empty(block);
  return block;
}

void Recorder::give_pool_block(Block* block) noexcept {
  block->state.store(static_cast<std::uint32_t>(BlockState::free), std::memory_order_release);
  const std::scoped_lock lock(pool_mutex_);
  pool_.push_back(block);
}

void Recorder::release_chain(std::uint32_t first) noexcept {
  while (first != kNoBlock) {
    Block* block = at(first);
    first = block->next.load(std::memory_order_relaxed);
    give_pool_block(block);
  }
}

void Recorder::release_all(Lane& lane, Block* block) noexcept {
  const std::uint32_t index = index_of(block);
  if (block->body.load(std::memory_order_relaxed) != index) [[unlikely]] {
    release_chain(block->body.load(std::memory_order_relaxed));
  } else if (block->next.load(std::memory_order_relaxed) != kNoBlock) [[unlikely]] {
    release_chain(block->next.load(std::memory_order_relaxed));
  }
  if (block->text_block != kNoBlock) [[unlikely]] release_chain(block->text_block);
  if (index < lane_blocks_) {
    lane.blocks[lane.free_blocks++] = block;
    lane.open.store(static_cast<std::uint32_t>(kLaneBlocks) - lane.free_blocks, std::memory_order_relaxed);
    if (!lane.is_shared && lane.free_blocks == kLaneBlocks && lane.shared->thread.load(std::memory_order_relaxed) == 0)
        [[unlikely]] {
      give_back(&lane);  // its thread has ended with this record open
    }
  } else {
    give_pool_block(block);
    pool_records_.fetch_sub(1, std::memory_order_relaxed);
  }
}

void Recorder::commit(Block* block, std::size_t bytes) noexcept {
  const std::uint32_t index = index_of(block);
  Block* tail = block->tail == index ? block : at(block->tail);
  tail->used.store(tail->used.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(bytes), std::memory_order_relaxed);
  Block* first = at(block->body.load(std::memory_order_relaxed));
  first->committed.store(first->committed.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(bytes),
                         std::memory_order_release);
}

// Adds an empty block to the chain.
bool Recorder::grow(Block* block) noexcept {
  Block* more = take_pool_block();
  if (more == nullptr) return false;
  more->state.store(static_cast<std::uint32_t>(BlockState::more), std::memory_order_relaxed);
  at(block->tail)->next.store(index_of(more), std::memory_order_release);
  block->tail = index_of(more);
  return true;
}

// Whether the record may grow by so much. Repeated keys are compacted when they are worth it, and before a refusal.
bool Recorder::may_grow(Block* block, std::size_t bytes) noexcept {
  // Room for the fixed fields: three texts and what has a size of its own.
  constexpr std::size_t kFixed = 3 * (kMaximumTextBytes + 3) + 128;
  const auto committed = [&] {
    return at(block->body.load(std::memory_order_relaxed))->committed.load(std::memory_order_relaxed);
  };
  const auto full = [&] { return committed() + bytes + kFixed > kMaximumRecordBytes; };
  if (block->repeated.load(std::memory_order_relaxed) != 0 && (full() || committed() >= block->compact_at)) {
    compact(block);
    block->compact_at = committed() * 2 + kBlockPayload;
  }
  return !full();
}

char* Recorder::reserve_more(Block* block, std::size_t bytes) noexcept {
  if (bytes > kBlockPayload || !may_grow(block, bytes)) return nullptr;
  // After a compaction there may be room where there was none.
  Block* tail = at(block->tail);
  const std::uint32_t used = tail->used.load(std::memory_order_relaxed);
  if (used + bytes + tail->text_used <= kBlockPayload) return tail->payload + used;
  return grow(block) ? at(block->tail)->payload : nullptr;
}

bool Recorder::append(Block* block, std::string_view bytes, bool repeats) noexcept {
  // Said before the bytes count: a reader must know that an earlier value stands behind them. And after a compaction,
  // which says that there is none.
  const auto say = [&] {
    if (repeats) block->repeated.store(1, std::memory_order_release);
  };
  if (bytes.size() <= kBlockPayload) {
    char* p = reserve(block, bytes.size());
    if (p == nullptr) return false;
    say();
    if (planted(Fault::early_commit)) commit(block, bytes.size());
    std::memcpy(p, bytes.data(), bytes.size());
    if (!planted(Fault::early_commit)) commit(block, bytes.size());
    return true;
  }
  if (!may_grow(block, bytes.size())) return false;
  Block* first = at(block->body.load(std::memory_order_relaxed));
  const std::uint32_t committed = first->committed.load(std::memory_order_relaxed);
  const std::uint32_t old_tail = block->tail;
  std::string_view rest = bytes;
  while (!rest.empty()) {
    if (!grow(block)) {
      // Take the blocks of the half-written field back.
      const std::uint32_t added = at(old_tail)->next.load(std::memory_order_relaxed);
      at(old_tail)->next.store(kNoBlock, std::memory_order_release);
      if (added != kNoBlock) release_chain(added);
      block->tail = old_tail;
      return false;
    }
    Block* tail = at(block->tail);
    const std::string_view piece = rest.substr(0, kBlockPayload);
    std::memcpy(tail->payload, piece.data(), piece.size());
    tail->used.store(static_cast<std::uint32_t>(piece.size()), std::memory_order_relaxed);
    rest.remove_prefix(piece.size());
  }
  say();
  first->committed.store(committed + static_cast<std::uint32_t>(bytes.size()), std::memory_order_release);
  return true;
}

Text Recorder::put_long_text(Block* block, std::string_view text) noexcept {
  if (text.size() > kMaximumTextBytes) {
    std::size_t end = kMaximumTextBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end);
  }
  const auto fits = [&](const Block* b) {
    return b->used.load(std::memory_order_relaxed) + b->text_used + text.size() <= kBlockPayload;
  };
  Block* home = block;
  // Once the stream has left the first block, its end is fixed: what is free there may be used.
  if (!fits(home)) {
    home = block->text_block == kNoBlock ? nullptr : at(block->text_block);
    // A text that is changed again and again takes what it is given anew each time; a few blocks of it are enough.
    if (home != nullptr && !fits(home) && block->text_blocks >= kMaximumTextBlocks) return 0;
    if (home == nullptr || !fits(home)) {
      home = take_pool_block();
      if (home == nullptr) return 0;
      home->state.store(static_cast<std::uint32_t>(BlockState::more), std::memory_order_relaxed);
      home->next.store(block->text_block, std::memory_order_relaxed);
      block->text_block = index_of(home);
      ++block->text_blocks;
    }
  }
  return place_text(home, text);
}

void Recorder::copy_stream(const Block* block, char* out) const noexcept {
  const Block* part = at(block->body.load(std::memory_order_relaxed));
  std::size_t left = part->committed.load(std::memory_order_relaxed);
  while (left > 0) {
    const std::size_t n = std::min<std::size_t>(left, part->used.load(std::memory_order_relaxed));
    std::memcpy(out, part->payload, n);
    out += n;
    left -= n;
    if (left > 0) part = at(part->next.load(std::memory_order_relaxed));
  }
}

// Rewrites the stream without repeated keys into a new chain, and makes that the record's in one store.
void Recorder::compact(Block* block) noexcept {
  const std::uint32_t old_body = block->body.load(std::memory_order_relaxed);
  std::string stream(at(old_body)->committed.load(std::memory_order_relaxed), '\0');
  copy_stream(block, stream.data());
  std::string kept;
  without_repeats(stream, kept);
  Block* first = take_pool_block();
  if (first == nullptr) return;
  first->state.store(static_cast<std::uint32_t>(BlockState::more), std::memory_order_relaxed);
  Block* tail = first;
  std::string_view rest = kept;
  while (true) {
    const std::string_view piece = rest.substr(0, kBlockPayload);
    std::memcpy(tail->payload, piece.data(), piece.size());
    tail->used.store(static_cast<std::uint32_t>(piece.size()), std::memory_order_relaxed);
    rest.remove_prefix(piece.size());
    if (rest.empty()) break;
    Block* more = take_pool_block();
    if (more == nullptr) {
      release_chain(index_of(first));
      return;
    }
    more->state.store(static_cast<std::uint32_t>(BlockState::more), std::memory_order_relaxed);
    tail->next.store(index_of(more), std::memory_order_relaxed);
    tail = more;
  }
  first->committed.store(static_cast<std::uint32_t>(kept.size()), std::memory_order_relaxed);
  if (planted(Fault::early_compact)) block->repeated.store(0, std::memory_order_release);
  block->body.store(index_of(first), std::memory_order_release);
  block->tail = index_of(tail);
  block->repeated.store(0, std::memory_order_relaxed);
  if (old_body == index_of(block)) {
    const std::uint32_t rest_of_old = block->next.load(std::memory_order_relaxed);
    block->next.store(kNoBlock, std::memory_order_relaxed);
    if (rest_of_old != kNoBlock) release_chain(rest_of_old);
  } else {
    release_chain(old_body);
  }
}

[[gnu::always_inline]] static inline otlp::SpanParts parts_of(const BlockHeader& block, std::uint64_t end_ns) noexcept {
  otlp::SpanParts parts;
  parts.trace_id = block.trace_id;
  parts.span_id = block.span_id;
  std::uint64_t parent;
  std::memcpy(&parent, block.parent_id, 8);
  parts.parent_id = parent != 0 ? block.parent_id : nullptr;
  parts.kind = block.kind;
  parts.status = block.status.load(std::memory_order_relaxed);
  parts.flags = block.flags;
  parts.start_ns = block.start_ns;
  parts.end_ns = end_ns;
  parts.dropped_attributes = block.dropped_attributes.load(std::memory_order_relaxed);
  parts.dropped_events = block.dropped_events.load(std::memory_order_relaxed);
  parts.dropped_links = block.dropped_links.load(std::memory_order_relaxed);
  return parts;
}

otlp::SpanParts span_parts(const BlockHeader& block, std::uint64_t end_ns) noexcept { return parts_of(block, end_ns); }

bool Recorder::publish_span(Lane& lane, Block* block, std::uint64_t end_ns) noexcept {
  otlp::SpanParts parts = parts_of(*block, end_ns);
  parts.name = text(block->name.load(std::memory_order_relaxed));
  parts.trace_state = text(block->trace_state);
  if (parts.status == static_cast<std::uint8_t>(StatusCode::error)) {
    parts.status_message = text(block->status_message.load(std::memory_order_relaxed));
  }
  const Block* first = at(block->body.load(std::memory_order_relaxed));
  std::size_t stream = first->committed.load(std::memory_order_relaxed);
  // Straight into the ring: the pool may have no block left to compact into.
  std::string kept;
  const bool repeated = block->repeated.load(std::memory_order_relaxed) != 0;
  if (repeated) [[unlikely]] {
    std::string whole(stream, '\0');
    copy_stream(block, whole.data());
    without_repeats(whole, kept);
    stream = kept.size();
  }
  const std::size_t body = parts.size() + stream;
  const std::size_t framed = otlp::field_size(body);
  char* p = ring_reserve(lane, Signal::traces, block->scope, framed);
  if (p == nullptr) return false;
  // From here on the record is found by its position; without the end it would be open, and closed again.
  block->ring_lane = lane.index;
  block->ring_position = lane.head;
  block->end_ns.store(end_ns, std::memory_order_release);
  if (planted(Fault::early_release)) block->state.store(static_cast<std::uint32_t>(BlockState::free), std::memory_order_release);
  *p++ = 0x12;
  p = otlp::put_varint(p, body);
  p = parts.put_head(p);
  if (repeated) [[unlikely]] {
    std::memcpy(p, kept.data(), stream);
  } else if (first->used.load(std::memory_order_relaxed) == stream) [[likely]] {
    std::memcpy(p, first->payload, stream);
  } else {
    copy_stream(block, p);
  }
  parts.put_tail(p + stream);
  publish(lane);
  return true;
}

void Recorder::count_refused(Lane& lane, Signal signal) noexcept {
  count_offered(lane, signal);
  auto& counter = lane.shared->refused[static_cast<std::size_t>(signal)];
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

bool Recorder::make_room(Lane& lane, Signal signal, std::size_t framed, std::size_t need) noexcept {
  if (framed > kMaximumRecordBytes) {
    count_refused(lane, signal);
    return false;
  }
  std::uint64_t filler = 0;
  for (Deadline deadline{};;) {
    filler = lane.offset + need > lane.ring_bytes ? lane.ring_bytes - lane.offset : 0;
    const std::uint64_t after = lane.head + filler + need;
    lane.known_tail = lane.shared->tail.load(std::memory_order_acquire);
    if (after - lane.known_tail > lane.ring_bytes / 2) collector_.nudge();
    if (after - lane.known_tail <= lane.ring_bytes) break;
    if (deadline == Deadline{}) {
      deadline = deadline_after(std::chrono::nanoseconds(wait_limit_ns_.load(std::memory_order_relaxed)));
    }
    if (!may_wait() || !wait_for_room(lane, filler + need, deadline)) {
      count_refused(lane, signal);
      return false;
    }
  }
  if (filler != 0) {
    RecordHeader skip{};
    skip.framed = static_cast<std::uint32_t>(filler - sizeof skip) & 0xFFFFFFu;
    skip.signal = kFiller;
    std::memcpy(lane.ring + lane.offset, &skip, sizeof skip);
    // Published with the record behind it.
    lane.head += filler;
    lane.offset = 0;
  }
  return true;
}

bool Recorder::may_wait() const noexcept { return waits_.load(std::memory_order_relaxed) && !own_thread; }

// A shared lane's lock is not held meanwhile: who takes it then finds the ring full, and waits or is refused like us.
bool Recorder::wait_for_room(Lane& lane, std::uint64_t need, Deadline deadline) noexcept {
  const std::uint64_t wanted = lane.head + need - lane.ring_bytes;
  if (lane.is_shared) lane.lock.unlock();
  const auto room = [&] { return lane.shared->tail.load(std::memory_order_acquire) >= wanted; };
  bool found = false;
  {
    std::unique_lock lock(room_mutex_);
    waiters_.fetch_add(1, std::memory_order_seq_cst);
    while (!(found = room()) && waits_.load(std::memory_order_relaxed)) {
      if (room_.wait_until(lock, deadline) == std::cv_status::timeout) {
        found = room();
        break;
      }
    }
    waiters_.fetch_sub(1, std::memory_order_relaxed);
  }
  if (lane.is_shared) lane.lock.lock();
  return found;
}

void Recorder::freed() noexcept {
  if (waiters_.load(std::memory_order_seq_cst) == 0) return;
  { const std::scoped_lock lock(room_mutex_); }
  room_.notify_all();
}

void Recorder::set_waiting(bool waits, std::chrono::nanoseconds limit) noexcept {
  wait_limit_ns_.store(limit.count(), std::memory_order_relaxed);
  waits_.store(waits, std::memory_order_relaxed);
  if (!waits) {
    { const std::scoped_lock lock(room_mutex_); }
    room_.notify_all();
  }
}

std::size_t Recorder::open_records() const noexcept {
  std::size_t open = pool_records_.load(std::memory_order_relaxed);
  for (const auto& lane : lanes_) open += lane->open.load(std::memory_order_relaxed);
  return open;
}

std::size_t Recorder::open_blocks() const noexcept {
  std::size_t open = 0;
  for (const auto& lane : lanes_) open += lane->open.load(std::memory_order_relaxed);
  const std::scoped_lock lock(pool_mutex_);
  return open + pool_blocks_ - pool_.size();
}

SignalCounts Recorder::waiting() const noexcept {
  SignalCounts waiting{};
  for (const auto& lane : lanes_) {
    const Drained& drained = lane->shared->drained[lane->shared->active.load(std::memory_order_acquire)];
    for (std::size_t s = 0; s < kSignals; ++s) {
      const std::uint64_t offered = lane->offered[s].load(std::memory_order_relaxed);
      const std::uint64_t refused = lane->shared->refused[s].load(std::memory_order_relaxed);
      const std::uint64_t published = offered > refused ? offered - refused : 0;
      const std::uint64_t taken = drained.records[s].load(std::memory_order_relaxed) +
                                  drained.hook_dropped[s].load(std::memory_order_relaxed);
      waiting[s] += published > taken ? published - taken : 0;
    }
  }
  return waiting;
}

SignalCounts Recorder::offered() const noexcept {
  SignalCounts total{};
  for (const auto& lane : lanes_) {
    for (std::size_t s = 0; s < kSignals; ++s) total[s] += lane->offered[s].load(std::memory_order_relaxed);
  }
  return total;
}

SignalCounts Recorder::refused() const noexcept {
  SignalCounts total{};
  for (const auto& lane : lanes_) {
    for (std::size_t s = 0; s < kSignals; ++s) total[s] += lane->shared->refused[s].load(std::memory_order_relaxed);
  }
  return total;
}

void without_repeats(std::string_view stream, std::string& out) {
  struct Field {
    std::string_view bytes;
    std::string_view key;  // of attributes
  };
  std::vector<Field> fields;
  const char* p = stream.data();
  const char* const end = p + stream.size();
  const auto varint = [&](const char*& q) {
    std::uint64_t v = 0;
    for (int shift = 0; q < end && shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(*q++);
      v |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return v;
  };
  while (p < end) {
    const char* const begin = p;
    const char tag = *p++;
    const std::uint64_t length = varint(p);
    if (length > static_cast<std::uint64_t>(end - p)) break;  // torn: recovery reads only what was committed
    Field field{{begin, static_cast<std::size_t>(p - begin) + static_cast<std::size_t>(length)}, {}};
    if (tag == 0x4a && length > 2) {
      const char* q = p + 1;
      const std::uint64_t key = varint(q);
      if (key <= static_cast<std::uint64_t>(end - q)) field.key = {q, static_cast<std::size_t>(key)};
    }
    fields.push_back(field);
    p += length;
  }
  std::unordered_map<std::string_view, std::size_t> last;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (!fields[i].key.empty()) last[fields[i].key] = i;
  }
  out.clear();
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].key.empty() || last[fields[i].key] == i) out.append(fields[i].bytes);
  }
}

}  // namespace waymark::journal
