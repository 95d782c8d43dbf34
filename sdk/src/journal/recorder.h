// The recorder: shared memory in which records are made and finished records wait for the collector. It outlives the
// process.
//
// Hides: which memory a thread records into, how a record grows, and how a finished one is published.
// Threads: a Lane is used by the thread it is lent to (shared lanes: under their lock). Blocks belong to whoever opened
//   them. drain-side calls belong to the collector.
// Failure: create() throws Error. Recording never fails loudly: no room means a null and a count.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/thread.h"
#include "base/wakeup.h"
#include "journal/crash.h"
#include "journal/fault.h"
#include "journal/layout.h"
#include "otlp/span.h"

namespace waymark::detail {

// A block as it lies in shared memory.
struct Block : journal::BlockHeader {
  char payload[journal::kBlockPayload];
};
static_assert(sizeof(Block) == journal::kBlockBytes);

class SpinLock {
 public:
  void lock() noexcept {
    while (flag_.test_and_set(std::memory_order_acquire)) pause();
  }
  void unlock() noexcept { flag_.clear(std::memory_order_release); }

 private:
  static void pause() noexcept;
  std::atomic_flag flag_;
};

// The process's own side of a lane.
struct alignas(64) Lane {
  journal::LaneHeader* shared = nullptr;
  char* ring = nullptr;
  std::uint64_t ring_bytes = 0;
  std::uint64_t head = 0;          // as in shared, without the atomic
  std::uint64_t offset = 0;        // of head in the ring
  std::uint64_t reserved = 0;      // bytes of the record that is being written at `offset`
  std::uint64_t known_tail = 0;    // shared->tail as last read
  std::uint32_t index = 0;
  std::uint32_t free_blocks = 0;   // LIFO
  std::array<Block*, journal::kLaneBlocks> blocks{};
  std::array<std::atomic<std::uint64_t>, kSignals> offered{};  // ended while recording: kept or refused
  std::atomic<std::uint32_t> open{0};  // blocks of this lane that are in use
  SpinLock lock;
  bool is_shared = false;          // lent to several threads: `lock` guards everything above
  bool lent = false;               // guarded by the recorder's mutex
};

// Which recorder a thread last recorded into, and its lane there.
struct LentLane {
  std::uint64_t recorder = 0;
  Lane* lane = nullptr;
};
extern constinit thread_local LentLane lent_lane;

}  // namespace waymark::detail

namespace waymark::journal {

using detail::Block;
using detail::Lane;

class Recorder {
 public:
  // `path` empty: anonymous memory that dies with the process.
  static std::unique_ptr<Recorder> create(const RecorderConfig& config, const std::string& path, std::uint64_t now_ns);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // The calling thread's lane; never null.
  [[nodiscard]] Lane* lane() noexcept {
    if (detail::lent_lane.recorder == id_) [[likely]] return detail::lent_lane.lane;
    return borrow_lane();
  }

  // A block to make a record in: the lane's most recently freed one, else one of the pool; null where the pool is empty
  // (counted). Not yet visible to recovery: the caller fills it and stores `state`.
  [[nodiscard]] Block* take_block(Lane& lane) noexcept {
    if (lane.is_shared || lane.free_blocks == 0) [[unlikely]] return take_pool_record();
    Block* const block = lane.blocks[--lane.free_blocks];
    lane.open.store(static_cast<std::uint32_t>(kLaneBlocks) - lane.free_blocks, std::memory_order_relaxed);
    empty(block);
    return block;
  }
  // The same from the pool: for records that move between threads.
  [[nodiscard]] Block* take_pool_record() noexcept;
  // Gives a record's blocks back. The record must be published or refused.
  void release(Lane& lane, Block* block) noexcept {
    block->state.store(static_cast<std::uint32_t>(BlockState::free), std::memory_order_release);
    const std::uint32_t index = index_of(block);
    const bool alone = block->body.load(std::memory_order_relaxed) == index &&
                       (block->next.load(std::memory_order_relaxed) & block->text_block) == kNoBlock;
    // Its thread may have ended with this record open: then the lane goes back.
    if (!alone || index >= lane_blocks_ || lane.shared->thread.load(std::memory_order_relaxed) == 0) [[unlikely]] {
      release_all(lane, block);
      return;
    }
    lane.blocks[lane.free_blocks++] = block;
    lane.open.store(static_cast<std::uint32_t>(kLaneBlocks) - lane.free_blocks, std::memory_order_relaxed);
  }

  // Room for `bytes` more of the stream, in one piece; null where the record or the pool is full. commit() makes them count.
  [[nodiscard]] char* reserve(Block* block, std::size_t bytes) noexcept {
    Block* tail = block->tail == index_of(block) ? block : at(block->tail);
    const std::uint32_t used = tail->used.load(std::memory_order_relaxed);
    if (used + bytes + tail->text_used <= kBlockPayload) [[likely]] return tail->payload + used;
    return reserve_more(block, bytes);
  }
  void commit(Block* block, std::size_t bytes) noexcept;
  // The same for bytes that may be more than a block holds: copied over as many as it takes. `repeats`: an attribute whose key
  // the stream has already. False: no room.
  bool append(Block* block, std::string_view bytes, bool repeats = false) noexcept;
  // Places a text (cut to kMaximumTextBytes at a character) and gives its Text; 0 where there is no room.
  [[nodiscard]] Text put_text(Block* block, std::string_view text) noexcept {
    const std::size_t used = block->used.load(std::memory_order_relaxed) + block->text_used + text.size();
    if (text.size() > kMaximumTextBytes || used > kBlockPayload) [[unlikely]] return put_long_text(block, text);
    if (text.empty()) return 0;
    return place_text(block, text);
  }
  // The same for what most texts are: short ASCII, and room in the first block. 0: it is not such a one.
  [[nodiscard]] Text put_small_text(Block* block, std::string_view text) noexcept {
    const std::size_t size = text.size();
    const std::size_t used = block->used.load(std::memory_order_relaxed) + block->text_used + size;
    if (size == 0 || size > kSmallText || used > kBlockPayload) [[unlikely]] return 0;
    const std::uint32_t text_used = block->text_used + static_cast<std::uint32_t>(size);
    char* const p = block->payload + kBlockPayload - text_used;
    if ((otlp::copy_or(p, text.data(), size) & otlp::kHighBits) != 0) [[unlikely]] return 0;
    block->text_used = text_used;
    return static_cast<Text>(p - memory_) << 32 | size;
  }
  [[nodiscard]] std::string_view text(Text t) const noexcept {
    return {memory_ + (t >> 32), static_cast<std::size_t>(t & UINT32_MAX)};
  }

  // Calls `each` with every field of the stream (tag, length and content) until it returns false. Fields that lie across
  // blocks are joined first.
  template <class F>
  void for_each_field(const Block* block, F&& each) const;

  // Counts a record that found no block.
  void refuse(Signal signal) noexcept;
  // The kernel's id of the calling thread.
  [[nodiscard]] static std::uint32_t thread() noexcept { return thread_id(); }

  // Closes a span: copies it into the lane's ring, finished at `end_ns`. False: refused, and counted.
  bool publish_span(Lane& lane, Block* block, std::uint64_t end_ns) noexcept;
  // Room in the ring for one record of `framed` bytes, header written; null: refused, and counted. Fill it, then publish().
  [[nodiscard]] char* ring_reserve(Lane& lane, Signal signal, std::uint16_t scope, std::size_t framed) noexcept {
    const std::size_t need = (sizeof(RecordHeader) + framed + 7) & ~std::size_t{7};
    // Half a ring is free, and none of it is its end.
    if (framed > kMaximumRecordBytes || lane.offset + need > lane.ring_bytes ||
        lane.head + need - lane.known_tail > lane.ring_bytes / 2) [[unlikely]] {
      if (!make_room(lane, signal, framed, need)) return nullptr;
    }
    RecordHeader header{};
    header.framed = static_cast<std::uint32_t>(framed) & 0xFFFFFFu;
    header.signal = static_cast<std::uint32_t>(signal);
    header.scope = scope;
    char* const at = lane.ring + lane.offset;
    std::memcpy(at, &header, sizeof header);
    lane.reserved = need;
    count_offered(lane, signal);
    if (planted(Fault::early_head)) lane.shared->head.store(lane.head + need, std::memory_order_release);
    return at + sizeof header;
  }
  void publish(Lane& lane) noexcept {
// Each record makes the one before it visible: the window is open until the next one.
    if (planted(Fault::late_length)) lane.shared->head.store(lane.head, std::memory_order_release);
    lane.head += lane.reserved;
    lane.offset += lane.reserved;
    if (lane.offset == lane.ring_bytes) lane.offset = 0;
    if (!planted(Fault::late_length)) lane.shared->head.store(lane.head, std::memory_order_release);
    fetch_ahead(lane);
    collector_.poke();
  }

  // Whether writers wait for room (some destination is lossless), and how long at most.
  void set_waiting(bool waits, std::chrono::nanoseconds limit) noexcept;
  [[nodiscard]] bool writers_wait() const noexcept { return waits_.load(std::memory_order_relaxed); }

  // The collector's side.
  [[nodiscard]] std::vector<std::unique_ptr<Lane>>& lanes() noexcept { return lanes_; }
  [[nodiscard]] RecorderHeader& header() noexcept { return *reinterpret_cast<RecorderHeader*>(memory_); }
  [[nodiscard]] Wakeup& collector() noexcept { return collector_; }
  void freed() noexcept;  // tells writers that wait
  // Records in the making, however many blocks they have.
  [[nodiscard]] std::size_t open_records() const noexcept;
  // Blocks in use, chains and texts included.
  [[nodiscard]] std::size_t open_blocks() const noexcept;
  // Finished records that the collector has not taken yet.
  [[nodiscard]] SignalCounts waiting() const noexcept;
  [[nodiscard]] SignalCounts offered() const noexcept;
  [[nodiscard]] SignalCounts refused() const noexcept;
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  // A thread has ended: its lane may be lent again.
  void give_back(Lane* lane) noexcept;

  [[nodiscard]] std::uint32_t index_of(const Block* block) const noexcept {
    return static_cast<std::uint32_t>(block - blocks_);
  }

 private:
  static constexpr std::size_t kSmallText = 64;
  Recorder() = default;
  [[nodiscard]] Block* at(std::uint32_t index) const noexcept { return blocks_ + index; }
  Lane* borrow_lane() noexcept;
  // A block as it is taken: its own first and only one, with nothing in it.
  void empty(Block* block) const noexcept {
    const std::uint32_t index = index_of(block);
    block->next.store(kNoBlock, std::memory_order_relaxed);
    block->used.store(0, std::memory_order_relaxed);
    block->committed.store(0, std::memory_order_relaxed);
    block->body.store(index, std::memory_order_relaxed);
    block->tail = index;
    block->text_used = 0;
    block->text_block = kNoBlock;
    block->text_blocks = 0;
  }
  // Of a lane's writer, or under a shared lane's lock.
  static void count_offered(Lane& lane, Signal signal) noexcept {
    auto& counter = lane.offered[static_cast<std::size_t>(signal)];
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  static void count_refused(Lane& lane, Signal signal) noexcept;
  // The collector has read what the next record will overwrite: while that record is made, its lines come back to this
  // processor, to be written.
  static void fetch_ahead(const Lane& lane) noexcept {
#if defined(__x86_64__)
    const char* const next = lane.ring + lane.offset;
    for (std::size_t line = 0; line < kFetchedAhead; line += 64) {
      asm volatile("prefetchw %0" : : "m"(next[line + kFetchedAhead]));
    }
#else
    static_cast<void>(lane);
#endif
  }
  static constexpr std::size_t kFetchedAhead = 320;
  // For a record that needs the ring's second half, or its beginning. False: refused, and counted.
  bool make_room(Lane& lane, Signal signal, std::size_t framed, std::size_t need) noexcept;
  // At the end of `home`, which has the room.
  Text place_text(Block* home, std::string_view text) noexcept {
    home->text_used += static_cast<std::uint32_t>(text.size());
    char* const p = home->payload + kBlockPayload - home->text_used;
    std::memcpy(p, text.data(), text.size());
    return static_cast<Text>(p - memory_) << 32 | text.size();
  }
  Text put_long_text(Block* block, std::string_view text) noexcept;
  bool may_grow(Block* block, std::size_t bytes) noexcept;
  char* reserve_more(Block* block, std::size_t bytes) noexcept;
  bool grow(Block* block) noexcept;
  void compact(Block* block) noexcept;
  void copy_stream(const Block* block, char* out) const noexcept;
  [[nodiscard]] Block* take_pool_block() noexcept;
  void give_pool_block(Block* block) noexcept;
  void release_chain(std::uint32_t first) noexcept;
  void release_all(Lane& lane, Block* block) noexcept;
  [[nodiscard]] bool may_wait() const noexcept;
  bool wait_for_room(Lane& lane, std::uint64_t need, Deadline deadline) noexcept;

  char* memory_ = nullptr;
  std::size_t bytes_ = 0;
  Block* blocks_ = nullptr;
  std::uint64_t id_ = 0;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::size_t exclusive_ = 0;           // lanes that are lent to one thread; the others are shared
  std::size_t next_shared_ = 0;
  std::mutex lending_;
  mutable std::mutex pool_mutex_;
  std::vector<Block*> pool_;
  std::size_t pool_blocks_ = 0;
  std::uint32_t lane_blocks_ = 0;       // the first so many blocks belong to lanes
  std::atomic<std::size_t> pool_records_{0};
  Wakeup collector_;
  std::atomic<bool> waits_{false};
  std::atomic<std::int64_t> wait_limit_ns_{0};
  std::mutex room_mutex_;
  std::condition_variable room_;
  std::atomic<std::uint32_t> waiters_{0};
  File file_;
  std::unique_ptr<CrashPlace> crash_place_;
};

template <class F>
void Recorder::for_each_field(const Block* block, F&& each) const {
  const Block* first = at(block->body.load(std::memory_order_relaxed));
  const std::size_t bytes = first->committed.load(std::memory_order_relaxed);
  std::string joined;
  std::string_view stream(first->payload, bytes);
  if (first->used.load(std::memory_order_relaxed) != bytes) {
    joined.resize(bytes);
    copy_stream(block, joined.data());
    stream = joined;
  }
  while (!stream.empty()) {
    std::size_t head = 1;
    std::uint64_t length = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(stream[head++]);
      length |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    const std::size_t field = head + static_cast<std::size_t>(length);
    if (!each(stream.substr(0, field))) return;
    stream.remove_prefix(field);
  }
}

// What a span's block says, for whoever closes it: this process, or the one that recovers it.
[[nodiscard]] otlp::SpanParts span_parts(const BlockHeader& block, std::uint64_t end_ns) noexcept;
// The stream with the last value of every repeated attribute key only; `stream` is Span fields.
void without_repeats(std::string_view stream, std::string& out);

}  // namespace waymark::journal
