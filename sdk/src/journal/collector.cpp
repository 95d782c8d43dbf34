#include "journal/collector.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/quiet_thread.h"
#include "journal/fault.h"

namespace waymark::journal {
namespace {

// How often it looks while there is something to do, and where a lane fills by an eighth meanwhile: so much of it is free
// that it may be kept waiting for a processor. A lane that is half full wakes it at once.
constexpr auto kRound = std::chrono::milliseconds(2);
constexpr auto kBusyRound = std::chrono::milliseconds(1);
constexpr auto kBlockedRound = std::chrono::milliseconds(20);
// How long it goes on looking after the last record.
constexpr auto kWakeful = std::chrono::milliseconds(100);
// How often it says "alive" while a record is open.
constexpr auto kStamp = std::chrono::milliseconds(100);

}  // namespace

Collector::Collector(Recorder& recorder, Journal& journal, Hook& hook, const Clock& clock,
                     std::function<void(const Journaled&)> journaled)
    : recorder_(recorder), journal_(journal), hook_(hook), clock_(clock), journaled_(std::move(journaled)) {
  thread_ = quiet_thread([this] { run(); });
}

Collector::~Collector() { stop(deadline_after({})); }

bool Collector::anything() const noexcept {
  if (stopping_.load(std::memory_order_acquire)) return true;
  for (const auto& lane : recorder_.lanes()) {
    if (lane->shared->head.load(std::memory_order_acquire) != lane->shared->tail.load(std::memory_order_relaxed)) return true;
  }
  return false;
}

void Collector::run() {
  begin_own_thread("wm-collector");
  run_in_short_turns();
  auto last_work = std::chrono::steady_clock::now();
  for (;;) {
    const std::uint64_t asked = asked_.load(std::memory_order_acquire);
    const bool stopping = stopping_.load(std::memory_order_acquire);
    const bool wrote = drain_all();
    const bool left = [&] {
      for (const auto& lane : recorder_.lanes()) {
        if (lane->shared->head.load(std::memory_order_acquire) != lane->shared->tail.load(std::memory_order_relaxed)) return true;
      }
      return false;
    }();
    const bool open = recorder_.open_records() > 0;
    if (wrote || open) recorder_.header().alive_ns.store(clock_.now(), std::memory_order_release);
    if (wrote) {
      recorder_.freed();
      journaled_(round_);
      round_ = {};
    }
    {
      const std::scoped_lock lock(mutex_);
      blocked_ = refused_;
      done_ = asked;
    }
    drained_.notify_all();
    if (stopping) return;
    const auto now = std::chrono::steady_clock::now();
    if (wrote) last_work = now;
    const auto flush_waits = [&] { return asked_.load(std::memory_order_acquire) != asked; };
    if (now - last_work < kWakeful || left) {
      // What the journal has no room for waits for somebody to read it: no use in looking at full speed.
      recorder_.collector().sleep(false, now + (left && !wrote ? kBlockedRound : busy_ ? kBusyRound : kRound),
                                  [&] { return flush_waits() || stopping_.load(std::memory_order_acquire); });
    } else {
      // Deep: the next record wakes it. An open one must be stamped meanwhile.
      recorder_.collector().sleep(true, open ? now + kStamp : Deadline::max(),
                                  [&] { return flush_waits() || anything() || (!open && recorder_.open_records() > 0); });
    }
  }
}

bool Collector::drain_all() {
  bool wrote = false;
  refused_ = false;
  busy_ = false;
  for (const auto& lane : recorder_.lanes()) wrote = drain(*lane) || wrote;
  return wrote;
}

bool Collector::drain(Lane& lane) {
  LaneHeader& shared = *lane.shared;
  std::uint64_t tail = shared.tail.load(std::memory_order_relaxed);
  const std::uint64_t head = shared.head.load(std::memory_order_acquire);
  bool wrote = false;
  busy_ = busy_ || head - tail >= lane.ring_bytes / 8;
  while (tail < head) {
    const std::uint64_t offset = tail % lane.ring_bytes;
    const std::size_t length = static_cast<std::size_t>(std::min(head - tail, lane.ring_bytes - offset));
    const char* data = lane.ring + offset;
    Journal::Stretch stretch;
    stretch.lane = static_cast<std::uint16_t>(lane.index);
    stretch.lane_begin = tail;
    stretch.lane_end = tail + length;
    stretch.data = data;
    // Up to the filler at the ring's end, if there is one.
    std::size_t behind = 0;
    SignalCounts framed{};
    for_each_record(data, length, 0, [&](const Record& record, std::size_t next) {
      ++stretch.records[static_cast<std::size_t>(record.signal)];
      framed[static_cast<std::size_t>(record.signal)] += record.framed.size();
      behind = next;
      return true;
    });
    stretch.bytes = behind;
    SignalCounts hook_dropped{};
    if (hook_.present()) [[unlikely]] {
      const Hook::Result result = hook_.apply(data, behind, journal_, kept_);
      stretch.records = result.kept;
      hook_dropped = result.dropped;
      stretch.data = kept_.data();
      stretch.bytes = kept_.size();
    }
    if (planted(Fault::early_free)) {
      shared.tail.store(tail + length, std::memory_order_release);
      if (tail > 0) hold_fault_open();
    }
    if (!planted(Fault::early_flip) && stretch.bytes > 0 && !journal_.append(stretch)) {
      refused_ = true;
      return wrote;
    }
    const std::uint32_t active = shared.active.load(std::memory_order_relaxed);
    const Drained& before = shared.drained[active];
    Drained& after = shared.drained[1 - active];
    after.position = tail + length;
    for (std::size_t s = 0; s < kSignals; ++s) {
      after.records[s] = before.records[s] + stretch.records[s];
      after.hook_dropped[s] = before.hook_dropped[s] + hook_dropped[s];
    }
    shared.active.store(1 - active, std::memory_order_release);
    if (planted(Fault::early_flip)) static_cast<void>(journal_.append(stretch));
    tail += length;
    shared.tail.store(tail, std::memory_order_release);
    for (std::size_t s = 0; s < kSignals; ++s) {
      round_.records[s] += stretch.records[s];
      round_.bytes[s] += framed[s];
    }
    wrote = true;
  }
  return wrote;
}

bool Collector::drain_once(Deadline deadline) {
  const std::uint64_t ticket = asked_.fetch_add(1, std::memory_order_seq_cst) + 1;
  recorder_.collector().wake();
  std::unique_lock lock(mutex_);
  if (!drained_.wait_until(lock, deadline, [&] { return done_ >= ticket; })) return false;
  return !blocked_;
}

// A journal that is full of what a lossless destination has not got yet has room again as that one goes on.
bool Collector::flush(Deadline deadline, const std::function<void()>& no_room) {
  constexpr std::chrono::milliseconds kBetweenTries{5};
  for (bool told = !no_room; !drain_once(deadline);) {
    const Deadline now = std::chrono::steady_clock::now();
    if (now >= deadline) return false;
    if (!std::exchange(told, true)) no_room();
    std::this_thread::sleep_until(std::min(deadline, now + kBetweenTries));
  }
  return true;
}

bool Collector::blocked() {
  const std::scoped_lock lock(mutex_);
  return blocked_;
}

bool Collector::stop(Deadline deadline) {
  if (!thread_.joinable()) return true;
  const bool flushed = drain_once(deadline);  // not until a full journal has room: the time is for delivering what it holds
  stopping_.store(true, std::memory_order_release);
  recorder_.collector().wake();
  thread_.join();
  return flushed;
}

}  // namespace waymark::journal
