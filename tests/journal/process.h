// A process's recorder, journal and subdirectory, made by hand so that a test can stop it at any point.
//
// Hides: how a tracer fills a block, and what a process's death leaves: files as they stand, and a lock that is gone.
// Threads: one.
// Failure: what can't be made throws.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "base/file.h"
#include "journal/collector.h"
#include "journal/directory.h"
#include "journal/hook.h"
#include "journal/journal.h"
#include "journal/recorder.h"
#include "journal/recovery.h"
#include "otlp/reader.h"
#include "otlp/writer.h"

namespace waymark::journal::testing {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "waymark-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = pattern;
  }
  ~ScratchDirectory() {
    // What lies on tmpfs belongs to subdirectories of this one, also to those that were set aside.
    for (const std::string& name : list_directory(path_)) {
      const std::string id = name.substr(name.rfind('-') + 1);
      if (is_home_name(id)) std::filesystem::remove_all(memory_path(id));
    }
    std::filesystem::remove_all(path_);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Keeps what was said, by any thread.
struct Said {
  std::vector<std::string> lines;  // guarded by mutex while other threads may speak
  mutable std::mutex mutex;
  mutable std::condition_variable more;
  Diagnostics diagnostics{DiagnosticLevel::debug, [this](DiagnosticLevel, std::string_view line) {
                            const std::scoped_lock lock(mutex);
                            lines.emplace_back(line);
                            more.notify_all();
                          }};
  [[nodiscard]] std::size_t times(std::string_view text) const {
    const std::scoped_lock lock(mutex);
    return static_cast<std::size_t>(std::count_if(
        lines.begin(), lines.end(), [&](const std::string& line) { return line.find(text) != std::string::npos; }));
  }
  [[nodiscard]] bool about(std::string_view text) const { return times(text) > 0; }
  // False: not said within half a minute.
  [[nodiscard]] bool hears(std::string_view text) const {
    std::unique_lock lock(mutex);
    return more.wait_for(lock, std::chrono::seconds(30), [&] {
      return std::any_of(lines.begin(), lines.end(),
                         [&](const std::string& line) { return line.find(text) != std::string::npos; });
    });
  }
};

inline std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void put_bytes(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A log record's body, told from others by its text.
inline std::string log_body(std::string_view text) {
  std::string any(otlp::field_size(text.size()), '\0');
  otlp::put_field(any.data(), 0x0a, text);
  std::string body(9 + otlp::field_size(any.size()), '\0');
  char* p = body.data();
  *p++ = 0x09;
  p = otlp::put_fixed64(p, 1'800'000'000'000'000'000u);
  otlp::put_field(p, 0x2a, any);
  return body;
}
// A span's body with a name and an id of its own.
inline std::string span_body(std::string_view name, std::uint8_t id) {
  std::string body;
  const auto field = [&](char tag, std::string_view content) {
    std::string whole(otlp::field_size(content.size()), '\0');
    otlp::put_field(whole.data(), tag, content);
    body += whole;
  };
  field(0x0a, std::string(16, static_cast<char>(id)));
  field(0x12, std::string(8, static_cast<char>(id)));
  field(0x2a, name);
  return body;
}

// Everything in a journal, as values, in order.
struct Contents {
  std::vector<ReadSpan> spans;
  std::vector<std::string> logs;  // their texts
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const ReadSpan& span : spans) all.push_back(span.name);
    return all;
  }
  [[nodiscard]] const ReadSpan* span(std::string_view name) const {
    for (const ReadSpan& span : spans) {
      if (span.name == name) return &span;
    }
    return nullptr;
  }
};
inline Contents contents_of(const Journal& journal) {
  Contents all;
  journal.for_each([&](const Record& record, std::uint16_t) {
    if (record.signal == Signal::traces) all.spans.push_back(otlp::read_span(record.body));
    if (record.signal == Signal::logs) all.logs.push_back(to_text(otlp::read_log(record.body).body));
  });
  return all;
}
// What a cursor has still to read; acknowledges it as delivered.
inline Contents read_all(Cursor& cursor) {
  Contents all;
  Cursor::Outcome outcome;
  const std::uint64_t position = cursor.read([&](const Record& record) {
    ++outcome.delivered;
    if (record.signal == Signal::traces) all.spans.push_back(otlp::read_span(record.body));
    if (record.signal == Signal::logs) all.logs.push_back(to_text(otlp::read_log(record.body).body));
    return true;
  });
  cursor.acknowledge(position, outcome);
  return all;
}
inline ::testing::AssertionResult adds_up(const Counts& c) {
  if (c.offered == c.delivered + c.rejected + c.dropped + c.filtered + c.pending) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << c.offered << " offered, " << c.delivered << " delivered, " << c.rejected
                                       << " rejected, " << c.dropped << " dropped, " << c.filtered << " filtered, "
                                       << c.pending << " pending";
}

struct ProcessOptions {
  RecorderConfig recorder{.max_bytes = 2 << 20, .ring_bytes = 512 * 1024};
  JournalConfig journal = {};
  OnRecord hook = {};
  std::vector<std::string> destinations = {"sink"};  // a cursor for traces and one for logs each
};

class TestProcess {
 public:
  static constexpr std::uint64_t kStart = 1'800'000'000'000'000'000u;

  explicit TestProcess(const std::string& state, ProcessOptions options = {})
      : hook_(said.diagnostics), owned_(create_home(state, options.recorder.place)) {
    home = owned_.home;
    recorder = Recorder::create(options.recorder, home.memory + "/recorder", kStart);
    journal = std::make_unique<Journal>(home, options.journal, said.diagnostics, [this] { return totals(); });
    std::string resource;
    otlp::append_attribute(resource, 0x0a, "service.name", Value("test"));
    journal->set_resource(resource);
    std::string scope(otlp::field_size(4), '\0');
    otlp::put_field(scope.data(), 0x0a, "test");
    scope_ = journal->add_scope({scope, {}});
    if (options.hook) hook_.set(options.hook);
    identity.version = kLayoutVersion;
    identity.memory = home.memory;
    identity.boot = boot_id();
    identity.process_id = 4711;
    identity.started_ns = kStart;
    identity.hook = static_cast<bool>(options.hook);
    struct stat s {};
    if (::lstat((home.memory + "/recorder").c_str(), &s) == 0) identity.recorder_inode = s.st_ino;
    write_identity(home, identity);
    for (const std::string& name : options.destinations) {
      for (const Signal signal : {Signal::traces, Signal::logs}) {
        cursors[{name, signal}] = journal->cursor(name, signal, true);
      }
    }
  }

  Block* open(std::string_view name) {
    Lane& lane = *recorder->lane();
    Block* block = recorder->take_block(lane);
    if (block == nullptr) {
      recorder->refuse(Signal::traces);
      return nullptr;
    }
    block->thread = Recorder::thread();
    block->scope = scope_;
    block->kind = 1;
    block->status = 0;
    block->flags = 0x101;
    const SpanContext context{TraceId::random(), SpanId::random(), 1, false, {}};
    std::memcpy(block->trace_id, context.trace_id.bytes.data(), 16);
    std::memcpy(block->span_id, context.span_id.bytes.data(), 8);
    std::memset(block->parent_id, 0, 8);
    block->end_ns = 0;
    block->status_message = 0;
    block->dropped_attributes = 0;
    block->dropped_events = 0;
    block->dropped_links = 0;
    block->repeated = 0;
    block->attributes = 0;
    block->events = 0;
    block->links = 0;
    block->compact_at = kBlockPayload / 2;
    block->name = recorder->put_text(block, name);
    block->trace_state = 0;
    block->start_ns = kStart + 1;
    block->state.store(static_cast<std::uint32_t>(BlockState::open), std::memory_order_release);
    return block;
  }
  // False: no room.
  bool set(Block* block, std::string_view key, const Value& value, bool repeated = false) {
    std::string field;
    otlp::append_attribute(field, 0x4a, key, value);
    return recorder->append(block, field, repeated);
  }
  // False: refused.
  bool finish(Block* block, std::uint64_t end_ns = kStart + 2) {
    Lane& lane = *recorder->lane();
    const bool published = recorder->publish_span(lane, block, end_ns);
    recorder->release(lane, block);
    return published;
  }
  bool span(std::string_view name) {
    Block* block = open(name);
    return block != nullptr && finish(block);
  }
  bool log(std::string_view text) {
    const std::string body = log_body(text);
    char* p = recorder->ring_reserve(*recorder->lane(), Signal::logs, scope_, otlp::field_size(body.size()));
    if (p == nullptr) return false;
    otlp::put_field(p, 0x12, body);
    recorder->publish(*recorder->lane());
    return true;
  }
  // What the collector does; false: the journal has no room for all of it.
  bool drain() {
    Collector collector(*recorder, *journal, hook_, clock_, [](const Journaled&) {});
    return collector.flush(deadline_after(std::chrono::seconds(30)));
  }
  Cursor& cursor(Signal signal, const std::string& name = "sink") { return *cursors.at({name, signal}); }
  [[nodiscard]] Totals totals() const {
    Totals t;
    if (!recorder) return t;
    t.offered = recorder->offered();
    t.refused = recorder->refused();
    for (const auto& lane : recorder->lanes()) {
      const Drained& drained = lane->shared->drained[lane->shared->active.load()];
      for (std::size_t s = 0; s < kSignals; ++s) t.hook_dropped[s] += drained.hook_dropped[s];
    }
    return t;
  }
  [[nodiscard]] std::string recorder_path() const { return home.memory + "/recorder"; }

  // As a kill would: nothing is written any more, and the lock is free.
  void die() {
    cursors.clear();
    journal.reset();
    recorder.reset();
    owned_.memory_lock = {};
    owned_.lock = {};
  }

  Said said;
  Home home;
  Identity identity;
  std::unique_ptr<Recorder> recorder;
  std::unique_ptr<Journal> journal;
  std::map<std::pair<std::string, Signal>, std::unique_ptr<Cursor>> cursors;

 private:
  Hook hook_;
  Clock clock_;
  OwnedHome owned_;
  std::uint16_t scope_ = 0;
};

// Whoever recovers, with what it was told.
struct Recoverer {
  explicit Recoverer(std::string state_directory, OnRecord on_record = {}) : state(std::move(state_directory)) {
    if (on_record) hook.set(std::move(on_record));
  }
  std::unique_ptr<RecoveredJournal> recover(const std::string& id) {
    return recover_directory(state, id, JournalConfig{}, hook, said.diagnostics,
                             [this](const Recovered& found) { reports.push_back(found); });
  }
  std::string state;
  Said said;
  Hook hook{said.diagnostics};
  std::vector<Recovered> reports;
};

}  // namespace waymark::journal::testing
