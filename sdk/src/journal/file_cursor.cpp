// A reader of the journal: walks frames and records from its position on, and settles what its destination is done with.
#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "base/file.h"
#include "journal/checksum.h"
#include "journal/hook.h"
#include "journal/journal.h"

namespace waymark::journal {

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
      Place place;
      {
        const std::scoped_lock lock(journal_.mutex_);
        place.segment = journal_.segment_at(position);
        if (!place.segment) break;
        place.storage = place.segment->storage;
        place.path = place.segment->path;
        place.verify = place.segment->verify;
        place.records = place.segment->records[static_cast<std::size_t>(state_->signal)];
        place.end = place.segment->end.load(std::memory_order_relaxed);
      }
      if (place.segment->base >= end) break;
      position = std::max(position, place.segment->base + sizeof(SegmentHeader));
      const std::uint64_t segment_end = std::min(end, place.end);
      go_on = read_segment(place, position, segment_end, take);
      if (go_on && position < segment_end) position = segment_end;
    }
    const std::scoped_lock lock(journal_.mutex_);
    state_->in_flight_end = position;
    return position;
  }

  void acknowledge(std::uint64_t position, const Outcome& outcome) noexcept override {
    CursorWrite write;
    {
      const std::scoped_lock lock(journal_.mutex_);
      CursorState& s = *state_;
      s.in_flight_end = 0;
      s.outcome.delivered += outcome.delivered;
      s.outcome.rejected += outcome.rejected;
      s.outcome.dropped += outcome.dropped + lost_;
      s.outcome.filtered += outcome.filtered;
      s.position.store(std::max(position, s.position.load(std::memory_order_relaxed)), std::memory_order_release);
      write = journal_.next_write(s);
    }
    lost_ = 0;
    settled_ = read_.position == position ? read_ : Middle{};
    journal_.store(write);
    journal_.settle();
  }

  void set_last_error(std::string_view message) noexcept override {
    // A server that is away says the same at every attempt.
    const auto now = std::chrono::steady_clock::now();
    const bool said = message == last_error_ && now - last_error_at_ < std::chrono::seconds(10);
    if (said || journal_.home_.state.empty()) return;
    try {
      last_error_ = message;
      last_error_at_ = now;
      (void)replace_file(journal_.home_.state + "/" + error_file_name(state_->slot), message);
    } catch (const std::bad_alloc&) {
      // It is for people to look at, and nothing depends on it.
    }
  }

  void abandon() noexcept override {
    const std::scoped_lock lock(journal_.mutex_);
    state_->in_flight_end = 0;
    abandoned_at_ = state_->position.load(std::memory_order_relaxed);
    abandoned_taken_ = state_->taken;
  }

  bool retake(std::uint64_t position) noexcept override {
    const std::scoped_lock lock(journal_.mutex_);
    if (state_->position.load(std::memory_order_relaxed) != abandoned_at_ || state_->taken != abandoned_taken_) return false;
    state_->in_flight_end = position;
    return true;
  }

  std::uint64_t position() const noexcept override { return state_->position.load(std::memory_order_acquire); }

  std::uint64_t lag_bytes() const noexcept override {
    const std::uint64_t end = journal_.end_.load(std::memory_order_acquire);
    const std::uint64_t here = position();
    return end > here ? end - here : 0;
  }

  Counts counts() const override {
    const Totals totals = journal_.totals_();
    const std::scoped_lock lock(journal_.mutex_);
    return journal_.counts_of(*state_, totals);
  }

  std::uint64_t lost() const override {
    const std::scoped_lock lock(journal_.mutex_);
    return state_->outcome.rejected + state_->outcome.dropped;
  }

 private:
  // A segment as it is now; the journal's thread may put another file in its place meanwhile.
  struct Place {
    SegmentPtr segment;
    std::shared_ptr<const Storage> storage;
    std::string path;
    std::uint64_t end = 0;
    std::uint64_t records = 0;  // of our signal, up to the end
    bool verify = false;
  };

  // From `position` on, which becomes the place behind the last record taken. False: `take` has had enough.
  bool read_segment(const Place& place, std::uint64_t& position, std::uint64_t end,
                    const std::function<bool(const Record&)>& take) {
    const std::uint64_t base = place.segment->base;
    const Storage& storage = *place.storage;
    const auto signal = static_cast<std::size_t>(state_->signal);
    std::uint64_t frame = frame_segment_ == base && frame_ <= position ? frame_ : base + sizeof(SegmentHeader);
    while (frame < end) {
      FrameHeader header;
      if (!read_frame(storage, base, frame, place.end, header)) {
        {
          const std::scoped_lock lock(journal_.mutex_);
          // What stands before the position is settled.
          const std::uint64_t before = place.segment->count_before(std::max(frame, position), state_->signal);
          lost_ += place.records - std::min(place.records, before);
        }
        journal_.diagnostics_.say_limited("frame", DiagnosticLevel::error,
                                          "journal " + place.path + ": a frame at byte " + std::to_string(frame - base) +
                                              " can't be read; the rest of that segment is lost, and counted as dropped");
        return true;
      }
      const std::uint64_t records = frame + sizeof header;
      const std::uint64_t next = records + header.bytes;
      if (next <= position || header.records[signal] == 0) {
        frame = next;
        position = std::max(position, next);
        continue;
      }
      frame_segment_ = base;
      frame_ = frame;
      const char* data = storage.at(records - base, header.bytes);
      bool good = data != nullptr;
      if (!good) {
        char* const buffer = buffer_.at_least(header.bytes);
        good = storage.read_at(records - base, buffer, header.bytes);
        data = buffer;
      }
      if (good && place.verify) good = checksum(data, header.bytes) == header.checksum;
      bool enough = false;
      // Records of the frame that earlier batches have settled.
      std::uint64_t passed = position > records && position == settled_.position ? settled_.passed : 0;
      if (good) {
        const std::size_t from = position > records ? static_cast<std::size_t>(position - records) : 0;
        good = for_each_record(data, header.bytes, from, [&](const Record& record, std::size_t behind) {
          const bool ours = record.signal == state_->signal;
          if (ours && !take(record)) {
            enough = true;
            return false;
          }
          passed += ours ? 1 : 0;
          position = records + behind;
          return true;
        });
        if (enough) read_ = {position, passed};
      } else {
        lost_ += header.records[signal] - std::min<std::uint64_t>(passed, header.records[signal]);
      }
      if (!good) {
        journal_.diagnostics_.say_limited("damage", DiagnosticLevel::error,
                                          "journal " + place.path + ": the records of the frame at byte " +
                                              std::to_string(frame - base) + " are damaged and were left out");
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
  // How many of our records stand before a position in the middle of a frame.
  struct Middle {
    std::uint64_t position = 0;
    std::uint64_t passed = 0;
  };
  Middle read_;                        // where the last read ended
  Middle settled_;                     // where the last acknowledged one did
  std::uint64_t lost_ = 0;             // damaged records of the last read; counted when it is acknowledged
  std::uint64_t abandoned_at_ = 0;     // the position when the last batch was abandoned
  std::uint64_t abandoned_taken_ = 0;  // and how many segments had been taken from this cursor
  std::string last_error_;
  std::chrono::steady_clock::time_point last_error_at_{};
};

std::unique_ptr<Cursor> Journal::cursor(std::string_view name, Signal signal, bool lossy) {
  name = name.substr(0, sizeof(CursorSlot::name));
  // Taken before the lock: the totals come from the recorder, whose threads never wait for us.
  const Totals totals = totals_();
  std::vector<CursorWrite> writes;
  auto state = std::make_shared<CursorState>();
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& there : cursors_) {
      if (there->name == name && there->signal == signal) {
        there->lossy = lossy;
        return std::make_unique<FileCursor>(*this, there);
      }
    }
    if (dead_ && !cursors_lost()) return nullptr;
    const auto s = static_cast<std::size_t>(signal);
    state->name = name;
    state->signal = signal;
    state->lossy = lossy;
    state->slot = next_slot_++;
    state->stored_position = dead_ ? segments_.front()->base : end_.load(std::memory_order_relaxed);
    state->position.store(state->stored_position, std::memory_order_relaxed);
    state->base_refused = totals.refused[s];
    state->base_hook_dropped = totals.hook_dropped[s];
    // Everything journaled or lost before is not this cursor's; what waits in the rings is. All that a dead one holds is.
    state->base_offered = dead_ ? totals.offered[s] - std::min(totals.offered[s], pending(*state))
                                : appended_[s] + state->base_refused + state->base_hook_dropped;
    cursors_.push_back(state);
    // It first, then the others: they say that it is there.
    writes.push_back(next_write(*state));
    for (const auto& other : cursors_) {
      if (other != state) writes.push_back(next_write(*other));
    }
    const bool there = std::any_of(segments_.begin(), segments_.end(), [](const SegmentPtr& segment) {
      return segment->place == Place::state || segment->moving;
    });
    if (there && !dead_) copy_cursors_soon();
  }
  for (const CursorWrite& write : writes) store(write);
  return std::make_unique<FileCursor>(*this, state);
}

}  // namespace waymark::journal
