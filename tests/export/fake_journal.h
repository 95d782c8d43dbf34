// A journal in a vector, for tests of destinations: records are bytes of the test's making.
//
// Hides: positions (indices) and the bookkeeping of what is in flight.
// Threads: any.
// Failure: a cursor that is moved without a read, or read twice without an answer, is counted in `misuse`.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "journal/journal.h"
#include "otlp/fields.h"
#include "otlp/writer.h"

namespace waymark::testing {

// A Span with a name, or a LogRecord with a body and a severity, just enough to be told apart.
inline std::string span_bytes(std::string_view name) {
  std::string out;
  const auto field = [&](char tag, std::string_view content) {
    out.push_back(tag);
    out.push_back(static_cast<char>(content.size()));
    out.append(content);
  };
  field(0x0a, std::string(16, '\x11'));
  field(0x12, std::string(8, '\x22'));
  if (name.size() < 128) {
    field(0x2a, name);
  } else {
    char head[11] = {0x2a};
    out.append(head, static_cast<std::size_t>(otlp::put_varint(head + 1, name.size()) - head));
    out.append(name);
  }
  return out;
}
inline std::string log_bytes(std::string_view text, int severity = 9) {
  std::string out;
  if (severity != 0) out = {0x10, static_cast<char>(severity)};
  std::string any;
  otlp::append_any(any, AnyValue{std::string(text)});
  char head[11] = {0x2a};
  out.append(head, static_cast<std::size_t>(otlp::put_varint(head + 1, any.size()) - head));
  return out.append(any);
}

class FakeSource final : public journal::Source {
 public:
  explicit FakeSource(bool live = true) : state_(std::make_shared<State>()), live_(live) {}

  // Returns the framed size, for Destination::wake.
  std::uint64_t append(Signal signal, std::string body, std::uint16_t scope = 0) {
    char head[11] = {0x12};
    std::string framed(head, static_cast<std::size_t>(otlp::put_varint(head + 1, body.size()) - head));
    framed += body;
    const std::lock_guard lock(state_->mutex);
    const std::uint64_t size = framed.size();
    state_->records.push_back({signal, scope, std::move(framed), body.size()});
    ++state_->offered[static_cast<std::size_t>(signal)];
    return size;
  }
  // A dead process's cursor, for sources that are not live.
  void had_cursor(std::string name, Signal signal, Counts counts = {}) {
    const std::lock_guard lock(state_->mutex);
    state_->cursors[{std::move(name), signal}].counts = counts;
  }
  // A full journal takes the cursor's oldest record, as soon as nothing is in flight.
  void evict_one(const std::string& name, Signal signal) {
    std::unique_lock lock(state_->mutex);
    Place& place = state_->cursors.at({name, signal});
    state_->abandoned.wait(lock, [&] { return !place.reading; });
    ++place.position;
    ++place.counts.dropped;
    place.evicted = true;
  }
  void set_resource(std::string bytes) { resource_ = std::move(bytes); }
  void set_scope(std::uint16_t id, journal::Scope scope) { scopes_[id] = std::move(scope); }
  // Throws out of the next `times` calls of scope().
  void fail_scopes(int times) { failing_ = times; }

  [[nodiscard]] int misuse() const {
    const std::lock_guard lock(state_->mutex);
    return state_->misuse;
  }
  [[nodiscard]] std::uint64_t position(const std::string& name, Signal signal) const {
    const std::lock_guard lock(state_->mutex);
    return state_->cursors.at({name, signal}).position;
  }
  // Records of this signal that the cursor has not passed, counted one by one.
  [[nodiscard]] std::uint64_t waiting(const std::string& name, Signal signal) const {
    const std::lock_guard lock(state_->mutex);
    const auto place = state_->cursors.find({name, signal});
    if (place == state_->cursors.end()) return 0;
    std::uint64_t count = 0;
    for (std::uint64_t i = place->second.position; i < state_->records.size(); ++i) {
      if (state_->records[i].signal == signal) ++count;
    }
    return count;
  }
  [[nodiscard]] bool opened_lossy() const {
    const std::lock_guard lock(state_->mutex);
    return state_->lossy;
  }

  std::unique_ptr<journal::Cursor> cursor(std::string_view name, Signal signal, bool lossy) override {
    const std::lock_guard lock(state_->mutex);
    const Key key{std::string(name), signal};
    const auto known = state_->cursors.find(key);
    if (known == state_->cursors.end()) {
      if (!live_) return nullptr;
      state_->cursors[key].position = state_->records.size();
    }
    state_->lossy = lossy;
    return std::make_unique<FakeCursor>(state_, key);
  }
  std::string resource() const override { return resource_; }
  journal::Scope scope(std::uint16_t id) const override {
    if (failing_ > 0) {
      --failing_;
      throw std::runtime_error("planted");
    }
    const auto known = scopes_.find(id);
    return known == scopes_.end() ? journal::Scope{} : known->second;
  }
  std::uint64_t end() const noexcept override {
    const std::lock_guard lock(state_->mutex);
    return state_->records.size();
  }

 private:
  using Key = std::pair<std::string, Signal>;
  struct Stored {
    Signal signal;
    std::uint16_t scope;
    std::string framed;
    std::size_t body_size;
  };
  struct Place {
    std::uint64_t position = 0;
    std::uint64_t in_flight = 0;
    bool reading = false;
    bool evicted = false;
    Counts counts;
  };
  struct State {
    mutable std::mutex mutex;
    std::condition_variable abandoned;
    std::deque<Stored> records;  // they stay where they are while others are added
    std::map<Key, Place> cursors;
    std::uint64_t offered[kSignals] = {};
    int misuse = 0;
    bool lossy = false;
  };

  class FakeCursor final : public journal::Cursor {
   public:
    FakeCursor(std::shared_ptr<State> state, Key key) : state_(std::move(state)), key_(std::move(key)) {}

    std::uint64_t read(const std::function<bool(const journal::Record&)>& take) override {
      std::uint64_t at = 0;
      std::uint64_t end = 0;
      {
        const std::lock_guard lock(state_->mutex);
        Place& place = state_->cursors.at(key_);
        if (place.reading) ++state_->misuse;
        place.reading = true;
        at = place.position;
        end = state_->records.size();
      }
      // As the real one: nothing is locked while it is called.
      for (; at < end; ++at) {
        const Stored& stored = [&]() -> const Stored& {
          const std::lock_guard lock(state_->mutex);
          return state_->records[at];
        }();
        if (stored.signal != key_.second) continue;
        const std::string_view framed = stored.framed;
        if (!take({stored.signal, stored.scope, framed, framed.substr(framed.size() - stored.body_size)})) break;
      }
      const std::lock_guard lock(state_->mutex);
      state_->cursors.at(key_).in_flight = at;
      return at;
    }
    void acknowledge(std::uint64_t position, const Outcome& outcome) noexcept override {
      const std::lock_guard lock(state_->mutex);
      Place& place = state_->cursors.at(key_);
      if (!place.reading || position > place.in_flight || position < place.position) ++state_->misuse;
      place.reading = false;
      place.position = position;
      place.counts.delivered += outcome.delivered;
      place.counts.rejected += outcome.rejected;
      place.counts.dropped += outcome.dropped;
      place.counts.filtered += outcome.filtered;
    }
    void abandon() noexcept override {
      const std::lock_guard lock(state_->mutex);
      state_->cursors.at(key_).reading = false;
      state_->abandoned.notify_all();
    }
    bool retake(std::uint64_t position) noexcept override {
      const std::lock_guard lock(state_->mutex);
      Place& place = state_->cursors.at(key_);
      if (place.evicted) {
        place.evicted = false;
        return false;
      }
      if (place.reading || position != place.in_flight) ++state_->misuse;
      place.reading = true;
      return true;
    }
    std::uint64_t position() const noexcept override {
      const std::lock_guard lock(state_->mutex);
      return state_->cursors.at(key_).position;
    }
    std::uint64_t lag_bytes() const noexcept override {
      const std::lock_guard lock(state_->mutex);
      std::uint64_t bytes = 0;
      for (std::uint64_t i = state_->cursors.at(key_).position; i < state_->records.size(); ++i) {
        bytes += state_->records[i].framed.size();
      }
      return bytes;
    }
    Counts counts() const override {
      const std::lock_guard lock(state_->mutex);
      const Place& place = state_->cursors.at(key_);
      Counts counts = place.counts;
      counts.pending = 0;
      for (std::uint64_t i = place.position; i < state_->records.size(); ++i) {
        if (state_->records[i].signal == key_.second) ++counts.pending;
      }
      counts.offered = state_->offered[static_cast<std::size_t>(key_.second)] + place.counts.offered;
      return counts;
    }
    std::uint64_t lost() const override {
      const std::lock_guard lock(state_->mutex);
      const Counts& counts = state_->cursors.at(key_).counts;
      return counts.rejected + counts.dropped;
    }

   private:
    std::shared_ptr<State> state_;
    Key key_;
  };

  std::shared_ptr<State> state_;
  bool live_;
  std::string resource_;
  std::map<std::uint16_t, journal::Scope> scopes_;
  mutable int failing_ = 0;
};

}  // namespace waymark::testing
