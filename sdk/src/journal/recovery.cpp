#include "journal/recovery.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <unordered_set>

#include "base/quiet_thread.h"
#include "base/thread.h"
#include "journal/checksum.h"
#include "journal/crash.h"
#include "journal/fault.h"
#include "journal/recorder.h"
#include "journal/symbols.h"
#include "otlp/reader.h"
#include "otlp/span.h"
#include "waymark/error.h"

namespace waymark::journal {
namespace {

// Recoveries that failed over what they read, before a directory is set aside.
constexpr int kFailures = 3;
// The same for recoverers that died over it. That may not have been the directory's fault: a program that dies at every start
// dies while it recovers, too.
constexpr int kDeaths = 10;

// What became of those who tried, in a file that is there only while somebody tries, or where somebody has failed.
class Attempts {
 public:
  explicit Attempts(const std::string& subdirectory) : path_(subdirectory + "/attempts") {
    const auto text = read_file(path_, 64);
    if (!text) return;
    const char* const end = text->data() + text->size();
    const auto [after, error] = std::from_chars(text->data(), end, deaths_);
    if (error == std::errc() && after < end) std::from_chars(after + 1, end, failures_);
  }
  // Why nobody is to try again; empty: one may.
  [[nodiscard]] std::string verdict() const {
    if (failures_ >= kFailures) return "failed " + std::to_string(kFailures) + " times";
    if (deaths_ >= kDeaths) return "ended its process " + std::to_string(kDeaths) + " times";
    return {};
  }
  void begin() const { write(deaths_ + 1, failures_); }
  void fail() const { write(deaths_, failures_ + 1); }
  // Neither: what was read is good, or could not be read for a reason of our own.
  void end() const {
    if (failures_ > 0) {
      write(deaths_, failures_);
    } else {
      ::unlink(path_.c_str());
    }
  }
  void forget() const { ::unlink(path_.c_str()); }
  [[nodiscard]] int deaths() const { return deaths_; }

 private:
  void write(int deaths, int failures) const { replace_file(path_, std::to_string(deaths) + " " + std::to_string(failures)); }
  std::string path_;
  int deaths_ = 0;
  int failures_ = 0;
};

// Of records that are nobody's in the program.
constexpr std::uint16_t kNoScope = UINT16_MAX;

// Between two looks at the siblings, in milliseconds.
constexpr int kRest = 500;
// And where the kernel does not tell of them, or tells of the same one again and again.
constexpr int kLook = 2000;

std::string id_of(std::string_view body) {
  try {
    const ReadSpan span = otlp::read_span(body);
    return {reinterpret_cast<const char*>(span.context.span_id.bytes.data()), 8};
  } catch (const Error&) {
    return {};
  }
}

// The greatest time that a record speaks of; null where it can't be read: a dying process may have written anywhere.
std::optional<std::uint64_t> time_of(Signal signal, std::string_view body) {
  try {
    if (signal == Signal::metrics) return otlp::metric_time(body);
    if (signal == Signal::traces) return to_ns(otlp::read_span(body).end);
    // Not its own time, which may be anything that its author wrote.
    return to_ns(otlp::read_log(body).observed);
  } catch (const Error&) {
    return std::nullopt;
  }
}

struct HeaderPage {
  alignas(64) std::array<char, kHeaderBytes> bytes{};
};

// Another process's recorder, as bytes that may say anything.
class DeadRecorder {
 public:
  // Null with a reason where it is no recorder of this layout.
  static std::unique_ptr<DeadRecorder> read(const std::string& path, std::string& problem) {
    std::unique_ptr<DeadRecorder> r(new DeadRecorder);
    const File file = File::open(path, O_RDONLY);
    const std::uint64_t size = file.valid() ? file.size() : 0;
    if (size < kHeaderBytes || size > kGreatestFile) {
      problem = path + ": " + std::to_string(size) + " bytes, expected a recorder";
      return nullptr;
    }
    // No memory is taken for what says nothing of itself, whatever its size.
    HeaderPage page;
    if (!file.read_at(0, page.bytes.data(), page.bytes.size())) {
      problem = path + ": " + errno_text(errno);
      return nullptr;
    }
    if (const std::string why = doubt(*reinterpret_cast<const RecorderHeader*>(page.bytes.data()), size); !why.empty()) {
      problem = path + ": " + why;
      return nullptr;
    }
    // One that a living process maps can't be cut shorter than what we copy: the copy is what we read.
    r->bytes_.resize(size);
    if (!file.read_at(0, r->bytes_.data(), size)) {
      problem = path + ": " + errno_text(errno);
      return nullptr;
    }
    if (const std::string why = doubt(r->header(), size); !why.empty()) {
      problem = path + ": " + why;
      return nullptr;
    }
    return r;
  }

  [[nodiscard]] const RecorderHeader& header() const noexcept {
    return *reinterpret_cast<const RecorderHeader*>(bytes_.data());
  }
  [[nodiscard]] std::uint32_t lanes() const noexcept { return header().lanes; }
  [[nodiscard]] const LaneHeader& lane(std::uint32_t i) const noexcept {
    return *reinterpret_cast<const LaneHeader*>(bytes_.data() + header().lanes_offset + i * kLaneHeaderBytes);
  }
  // The ring, or null where the lane's own numbers make no sense.
  [[nodiscard]] const char* ring(const LaneHeader& lane) const noexcept {
    const bool good = lane.ring_bytes >= sizeof(RecordHeader) && lane.ring_bytes % 8 == 0 &&
                      lane.ring_offset <= bytes_.size() && lane.ring_bytes <= bytes_.size() - lane.ring_offset &&
                      lane.active.load(std::memory_order_relaxed) <= 1;
    return good ? bytes_.data() + lane.ring_offset : nullptr;
  }
  [[nodiscard]] const Block* block(std::uint32_t i) const noexcept {
    if (i >= header().blocks) return nullptr;
    return reinterpret_cast<const Block*>(bytes_.data() + header().blocks_offset) + i;
  }
  [[nodiscard]] std::string_view text(Text t) const noexcept {
    const std::uint64_t offset = t >> 32;
    const std::uint64_t length = t & UINT32_MAX;
    if (length > kMaximumTextBytes || offset > bytes_.size() || length > bytes_.size() - offset) return {};
    return {bytes_.data() + offset, static_cast<std::size_t>(length)};
  }
  // The stream of a record: as much of it as its blocks hold.
  [[nodiscard]] std::string stream(const Block& block) const {
    std::string out;
    const Block* part = this->block(block.body.load(std::memory_order_relaxed));
    if (part == nullptr) return out;
    std::size_t left = std::min<std::size_t>(part->committed.load(std::memory_order_relaxed), kMaximumRecordBytes);
    for (std::uint32_t steps = 0; left > 0 && part != nullptr && steps < header().blocks; ++steps) {
      const std::uint32_t next = part->next.load(std::memory_order_relaxed);
      const std::size_t here = std::min<std::size_t>(part->used.load(std::memory_order_relaxed), kBlockPayload);
      // In the last block `used` may lag behind what was committed.
      const std::size_t n = std::min(left, next == kNoBlock || here >= left ? std::min(left, kBlockPayload) : here);
      out.append(part->payload, n);
      left -= n;
      part = left > 0 ? this->block(next) : nullptr;
    }
    return out;
  }

 private:
  static constexpr std::uint64_t kGreatestFile = std::uint64_t{1} << 31;  // twice what a recorder may be configured to
  DeadRecorder() = default;
  // Why a header is none of a file of this size that this program reads; empty: it is.
  static std::string doubt(const RecorderHeader& h, std::uint64_t size) {
    if (h.magic != kRecorderMagic || h.checksum != checksum(&h, offsetof(RecorderHeader, checksum))) {
      return "its header is damaged";
    }
    if (h.version != kLayoutVersion) {
      return "layout " + std::to_string(h.version) + ", this program reads " + std::to_string(kLayoutVersion);
    }
    const bool fits = h.file_bytes == size && h.lanes_offset % 64 == 0 && h.lanes_offset <= size &&
                      h.lanes <= (size - h.lanes_offset) / kLaneHeaderBytes && h.blocks_offset % 64 == 0 &&
                      h.blocks_offset <= size && h.blocks <= (size - h.blocks_offset) / kBlockBytes;
    return fits ? "" : "its header's offsets do not fit its size";
  }
  std::vector<char> bytes_;
};

// Field after field, up to the first that is not whole.
std::string_view whole_fields(std::string_view stream) {
  std::size_t good = 0;
  while (good < stream.size()) {
    std::size_t p = good + 1;
    std::uint64_t length = 0;
    int shift = 0;
    bool ended = false;
    while (p < stream.size() && shift < 35) {
      const auto byte = static_cast<unsigned char>(stream[p++]);
      length |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      shift += 7;
      if (byte < 0x80) {
        ended = true;
        break;
      }
    }
    const char tag = stream[good];
    if (!ended || (tag != 0x4a && tag != 0x5a && tag != 0x6a) || length > stream.size() - p) break;
    good = p + static_cast<std::size_t>(length);
  }
  return stream.substr(0, good);
}

bool is_open(const Block& block) {
  return block.state.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(BlockState::open) &&
         block.end_ns.load(std::memory_order_relaxed) == 0;
}

// The crash that ended the process. Nothing where its thread has gone on: a handler of the program's may have saved it.
std::optional<Crash> fatal_crash(const DeadRecorder& recorder) {
  // The clock may have been set meanwhile, a little.
  constexpr std::uint64_t kMargin = 1'000'000'000;
  std::optional<Crash> crash = read_crash(recorder.header());
  for (std::uint32_t i = 0; crash && i < recorder.header().blocks; ++i) {
    const Block& block = *recorder.block(i);
    const bool later = block.start_ns > kMargin && block.start_ns - kMargin > crash->time_ns;
    if (is_open(block) && block.thread == crash->thread && later) crash.reset();
  }
  return crash;
}

// Of the spans that the thread had open, the one that was started last; null: it had none.
const Block* innermost_span(const DeadRecorder& recorder, std::uint32_t thread) {
  const Block* innermost = nullptr;
  for (std::uint32_t i = 0; i < recorder.header().blocks; ++i) {
    const Block& block = *recorder.block(i);
    if (!is_open(block) || block.thread != thread) continue;
    const bool later = innermost == nullptr || block.start_ns > innermost->start_ns ||
                       (block.start_ns == innermost->start_ns && std::memcmp(block.parent_id, innermost->span_id, 8) == 0);
    if (later) innermost = &block;
  }
  return innermost;
}

CrashReport report_of(const Crash& crash) {
  CrashReport report;
  report.signal = crash.name;
  report.message = crash.text;
  report.stack = stack_text(crash.stack, crash.modules, crash.time_ns);
  report.thread_id = crash.thread;
  report.time = to_timestamp(crash.time_ns);
  return report;
}

void append_field(std::string& out, char tag, std::string_view bytes) {
  const std::size_t at = out.size();
  out.resize(at + otlp::field_size(bytes.size()));
  otlp::put_field(out.data() + at, tag, bytes);
}

void append_time(std::string& out, char tag, std::uint64_t ns) {
  char field[9] = {tag};
  otlp::put_fixed64(field + 1, ns);
  out.append(field, sizeof field);
}

// The attributes that OpenTelemetry has for an exception. `tag`: of the record's attributes.
void append_exception(std::string& out, char tag, const CrashReport& crash, bool with_stack) {
  otlp::append_attribute(out, tag, "exception.type", Value(crash.signal));
  otlp::append_attribute(out, tag, "exception.message", Value(crash.message));
  if (with_stack) otlp::append_attribute(out, tag, "exception.stacktrace", Value(crash.stack));
}

// A Span's event field; empty where not even the one without the stack fits in `room`.
std::string exception_event(const CrashReport& crash, std::size_t room) {
  for (const bool with_stack : {true, false}) {
    std::string event;
    append_time(event, 0x09, to_ns(crash.time));
    append_field(event, 0x12, "exception");
    append_exception(event, 0x1a, crash, with_stack);
    if (otlp::field_size(event.size()) > room) continue;
    std::string field;
    append_field(field, 0x5a, event);
    return field;
  }
  return {};
}

constexpr std::string_view kCrashedEvent = "process.crashed";

// A LogRecord for a crash that no span can tell of.
std::string crash_record(const CrashReport& crash) {
  std::string record;
  append_time(record, 0x09, to_ns(crash.time));
  record.append({0x10, static_cast<char>(Severity::critical)});
  append_field(record, 0x1a, "critical");
  std::string text;
  append_field(text, 0x0a, crash.message);
  append_field(record, 0x2a, text);
  append_exception(record, 0x32, crash, true);
  append_time(record, 0x59, to_ns(crash.time));
  append_field(record, 0x62, kCrashedEvent);
  return record;
}

bool is_crash_record(const Record& record) {
  try {
    return record.signal == Signal::logs && otlp::read_log(record.body).event_name == kCrashedEvent;
  } catch (const Error&) {
    return false;
  }
}

struct Closed {
  std::string body;
  bool interrupted;
  std::uint32_t thread;
};

// A span from its block. Null: nothing there that could be one. `crash`: what ended it; null where that is not known.
std::optional<Closed> close_span(const DeadRecorder& recorder, const Block& block, std::uint64_t alive_ns,
                                 const CrashReport* crash) {
  TraceId trace;
  std::memcpy(trace.bytes.data(), block.trace_id, 16);
  SpanId span;
  std::memcpy(span.bytes.data(), block.span_id, 8);
  if (!trace.valid() || !span.valid()) return std::nullopt;
  const std::uint64_t end = block.end_ns.load(std::memory_order_relaxed);
  otlp::SpanParts parts = span_parts(block, end != 0 ? end : std::max(alive_ns, block.start_ns));
  if (parts.kind < 1 || parts.kind > 5) parts.kind = 1;
  if (parts.status > 2) parts.status = 0;
  std::string scratch[3];
  parts.name = clean(recorder.text(block.name.load(std::memory_order_relaxed)), scratch[0]);
  parts.trace_state = clean(recorder.text(block.trace_state), scratch[1]);
  if (parts.status == 2) {
    parts.status_message = clean(recorder.text(block.status_message.load(std::memory_order_relaxed)), scratch[2]);
  }
  const std::string bytes = recorder.stream(block);
  std::string stream(planted(Fault::bare_interrupted) ? std::string_view() : whole_fields(bytes));
  if (block.repeated.load(std::memory_order_relaxed) != 0) {
    std::string kept;
    without_repeats(stream, kept);
    stream = std::move(kept);
  }
  Closed closed{{}, end == 0, block.thread};
  if (closed.interrupted) {
    parts.status = 2;
    if (parts.status_message.empty()) {
      scratch[2] = crash == nullptr ? "interrupted: the process ended before the span did" : "interrupted by " + crash->message;
      parts.status_message = scratch[2];
    }
    otlp::append_attribute(stream, 0x4a, "workflow.interrupted", Value(true));
    const std::size_t taken = parts.size() + stream.size();
    if (crash != nullptr && taken < kMaximumRecordBytes) stream += exception_event(*crash, kMaximumRecordBytes - taken);
  }
  closed.body.resize(parts.size() + stream.size());
  char* p = parts.put_head(closed.body.data());
  std::memcpy(p, stream.data(), stream.size());
  parts.put_tail(p + stream.size());
  return closed;
}

// Appends what the recorder holds beyond the journal, and says what that was. False: the journal can't be written.
bool absorb(const DeadRecorder& recorder, Journal& journal, Hook& hook, bool apply_hook, Recovered& found, Totals& totals,
            std::string& problem) {
  const Journal::Extent extent = journal.extent();
  std::uint64_t newest = recorder.header().alive_ns.load(std::memory_order_relaxed);
  const auto count = [&](const Record& record) {
    if (record.signal == Signal::traces) ++found.finished_spans;
    if (record.signal == Signal::logs) ++found.log_records;
  };
  bool written = true;
  const auto store = [&](Journal::Stretch stretch) {
    std::string kept;
    if (apply_hook && stretch.bytes > 0) {
      const Hook::Result result = hook.apply(static_cast<const char*>(stretch.data), stretch.bytes, journal, kept);
      stretch.records = result.kept;
      stretch.data = kept.data();
      stretch.bytes = kept.size();
      for (std::size_t s = 0; s < kSignals; ++s) totals.hook_dropped[s] += result.dropped[s];
    }
    written = written && (stretch.bytes == 0 || journal.append(stretch));
  };

  for (std::uint32_t i = 0; i < recorder.lanes(); ++i) {
    const LaneHeader& lane = recorder.lane(i);
    const char* ring = recorder.ring(lane);
    const std::uint64_t head = lane.head.load(std::memory_order_relaxed);
    if (ring == nullptr) {
      problem = "lane " + std::to_string(i) + " of the recorder is damaged";
      continue;
    }
    const Drained& drained = lane.drained[lane.active.load(std::memory_order_relaxed)];
    for (std::size_t s = 0; s < kSignals; ++s) {
      const std::uint64_t refused = lane.refused[s].load(std::memory_order_relaxed);
      totals.refused[s] += refused;
      totals.hook_dropped[s] += drained.hook_dropped[s];
      totals.offered[s] += drained.records[s] + drained.hook_dropped[s] + refused;
    }
    if (head < drained.position || head - drained.position > lane.ring_bytes || drained.position % 8 != 0) {
      problem = "lane " + std::to_string(i) + " of the recorder is damaged";
      continue;
    }
    const auto journaled = extent.lanes.find(static_cast<std::uint16_t>(i));
    const std::uint64_t already = journaled == extent.lanes.end() || planted(Fault::twice) ? 0 : journaled->second.end;
    std::uint64_t position = drained.position;
    while (position < head) {
      const std::uint64_t offset = position % lane.ring_bytes;
      // A frame may have been written whose ring space was not yet freed: what it holds is counted, not written again.
      const std::uint64_t until = position < already ? std::min(already, head) : head;
      const auto length = static_cast<std::size_t>(std::min(until - position, lane.ring_bytes - offset));
      Journal::Stretch stretch;
      stretch.lane = static_cast<std::uint16_t>(i);
      stretch.lane_begin = position;
      stretch.lane_end = position + length;
      const bool news = position >= already;
      std::string good;
      SignalCounts in_ring{};
      std::size_t read = 0;
      const bool whole = for_each_record(ring + offset, length, 0, [&](const Record& record, std::size_t next) {
        const auto signal = static_cast<std::size_t>(record.signal);
        const std::optional<std::uint64_t> time = time_of(record.signal, record.body);
        ++totals.offered[signal];
        ++in_ring[signal];
        if (time) {
          append_record(good, record.signal, record.scope, record.body);
          ++stretch.records[signal];
          newest = std::max(newest, *time);
          if (news) count(record);
        } else {
          ++totals.refused[signal];
          problem = "lane " + std::to_string(i) + " of the recorder is damaged at byte " + std::to_string(offset + read);
          found.damaged_bytes += next - read;
        }
        read = next;
        return true;
      });
      if (!whole) {
        problem = "lane " + std::to_string(i) + " of the recorder is damaged at byte " + std::to_string(offset + read);
        found.damaged_bytes += length - read;
      }
      stretch.data = good.data();
      stretch.bytes = good.size();
      if (news) {
        store(stretch);
      } else if (position == journaled->second.begin) {
        // What the hook dropped of the frame that had not been counted yet.
        for (std::size_t s = 0; s < kSignals; ++s) {
          const std::uint64_t in_frame = journaled->second.records[s];
          if (apply_hook && in_ring[s] > in_frame) totals.hook_dropped[s] += in_ring[s] - in_frame;
        }
      }
      position += length;
    }
  }

  std::unordered_set<std::string> closed_before;
  bool told_before = false;
  // A crash is told where something was recorded, or asked for: a process that died before is nobody's to be told of.
  bool is_somebodys = !journal.cursors().empty();
  journal.for_each([&](const Record& record, std::uint16_t lane) {
    is_somebodys = true;
    if (lane != kNoLane) return;
    if (record.signal == Signal::traces) closed_before.insert(id_of(record.body));
    told_before = told_before || is_crash_record(record);
  });
  const std::optional<Crash> crash = fatal_crash(recorder);
  const Block* crashed = nullptr;
  if (crash) {
    crashed = innermost_span(recorder, crash->thread);
    found.crash = report_of(*crash);
  }
  std::string records;
  Journal::Stretch stretch;
  const auto flush = [&] {
    stretch.data = records.data();
    stretch.bytes = records.size();
    store(stretch);
    records.clear();
    stretch = {};
  };
  // It was alive when it opened the last of them: a span opened since the last stamp must not end after its parent.
  for (std::uint32_t i = 0; i < recorder.header().blocks; ++i) {
    const Block& block = *recorder.block(i);
    if (block.state.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(BlockState::open)) continue;
    newest = std::max(newest, block.start_ns);
  }
  for (std::uint32_t i = 0; i < recorder.header().blocks; ++i) {
    const Block& block = *recorder.block(i);
    if (block.state.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(BlockState::open)) continue;
    if (block.end_ns.load(std::memory_order_relaxed) != 0 && block.ring_lane < recorder.lanes() &&
        recorder.lane(block.ring_lane).head.load(std::memory_order_relaxed) > block.ring_position) {
      continue;  // in its ring, and counted there
    }
    if (planted(Fault::forgotten_pool) && i >= recorder.lanes() * kLaneBlocks) continue;
    const std::optional<Closed> closed = close_span(recorder, block, newest, &block == crashed ? &found.crash : nullptr);
    if (!closed) continue;
    ++totals.offered[static_cast<std::size_t>(Signal::traces)];
    try {
      ReadSpan span = otlp::read_span(closed->body);
      if (closed->interrupted) {
        InterruptedSpan interrupted;
        interrupted.context = span.context;
        interrupted.name = std::move(span.name);
        interrupted.attributes = std::move(span.attributes);
        interrupted.start = span.start;
        interrupted.end = span.end;
        interrupted.thread_id = closed->thread;
        interrupted.crashed_here = crash && crash->thread == closed->thread;
        found.interrupted.push_back(std::move(interrupted));
      } else {
        ++found.finished_spans;
      }
    } catch (const Error& e) {
      ++totals.refused[static_cast<std::size_t>(Signal::traces)];
      problem = "block " + std::to_string(i) + " of the recorder is damaged: " + e.what();
      continue;
    }
    if (closed_before.contains(id_of(closed->body)) && !planted(Fault::twice)) continue;
    append_record(records, Signal::traces, block.scope, closed->body);
    ++stretch.records[static_cast<std::size_t>(Signal::traces)];
    is_somebodys = true;
    if (records.size() > kMaximumRecordBytes) flush();
  }
  if (crash && crashed == nullptr && is_somebodys) {
    ++totals.offered[static_cast<std::size_t>(Signal::logs)];
    if (!told_before) {
      append_record(records, Signal::logs, kNoScope, crash_record(found.crash));
      ++stretch.records[static_cast<std::size_t>(Signal::logs)];
    }
  }
  if (!records.empty()) flush();
  return written;
}

constexpr const char* kTotalsFile = "/totals";

std::optional<Totals> load_totals(const Home& home) {
  auto bytes = read_file(home.state + kTotalsFile, 4096);
  if (!bytes) bytes = read_file(home.memory + kTotalsFile, 4096);
  if (!bytes || bytes->size() != sizeof(Totals)) return std::nullopt;
  Totals totals;
  std::memcpy(&totals, bytes->data(), sizeof totals);
  totals.waiting = {};  // nothing waits in a recorder that is gone
  return totals;
}

}  // namespace

bool store_totals(const Home& home, const Totals& totals) {
  return replace_file(home.state + kTotalsFile, {reinterpret_cast<const char*>(&totals), sizeof totals});
}

namespace {

// Null: it is none that can be believed.
const RecorderHeader* header_of(const File& recorder, HeaderPage& page) {
  if (!recorder.valid() || !recorder.read_at(0, page.bytes.data(), page.bytes.size())) return nullptr;
  const auto& h = *reinterpret_cast<const RecorderHeader*>(page.bytes.data());
  const bool good = h.magic == kRecorderMagic && h.checksum == checksum(&h, offsetof(RecorderHeader, checksum)) &&
                    h.version == kLayoutVersion && h.lanes <= UINT16_MAX;
  return good ? &h : nullptr;
}

}  // namespace

std::uint64_t look_at_last_alive(const Home& home) {
  HeaderPage page;
  const RecorderHeader* header = header_of(File::open(home.memory + "/recorder", O_RDONLY | O_NONBLOCK), page);
  return header != nullptr ? header->alive_ns.load(std::memory_order_relaxed) : 0;
}

std::optional<Totals> look_at_totals(const Home& home, bool& recovered) {
  const auto known = load_totals(home);
  recovered = known.has_value();
  if (known) return known;
  const File file = File::open(home.memory + "/recorder", O_RDONLY | O_NONBLOCK);
  HeaderPage page;
  const RecorderHeader* header = header_of(file, page);
  if (header == nullptr) return std::nullopt;
  const RecorderHeader& h = *header;
  Totals totals;
  for (std::uint32_t i = 0; i < h.lanes; ++i) {
    alignas(64) std::array<char, kLaneHeaderBytes> bytes{};
    if (!file.read_at(h.lanes_offset + i * kLaneHeaderBytes, bytes.data(), bytes.size())) return std::nullopt;
    const auto& lane = *reinterpret_cast<const LaneHeader*>(bytes.data());
    const Drained& drained = lane.drained[lane.active.load(std::memory_order_relaxed) & 1];
    for (std::size_t s = 0; s < kSignals; ++s) {
      const std::uint64_t refused = lane.refused[s].load(std::memory_order_relaxed);
      const std::uint64_t dropped = drained.hook_dropped[s].load(std::memory_order_relaxed);
      totals.refused[s] += refused;
      totals.hook_dropped[s] += dropped;
      totals.offered[s] += drained.records[s].load(std::memory_order_relaxed) + dropped + refused;
    }
  }
  return totals;
}

namespace {

// Beside the recorder where the disk refuses.
bool keep_totals(const Home& home, const Totals& totals) {
  return store_totals(home, totals) || (home.memory != home.state && store_totals({home.id, home.memory, home.memory}, totals));
}

// recover_directory() once the directory is ours. Throws for what it can't read.
std::unique_ptr<RecoveredJournal> read_what_is_left(std::unique_ptr<RecoveredJournal> result, const Identity& identity,
                                                    const Attempts& attempts, const JournalConfig& config, Hook& hook,
                                                    Diagnostics& diagnostics,
                                                    const std::function<void(const Recovered&)>& report) {
  const Home& home = result->home;
  const std::string& id = home.id;
  result->home.memory = result->home.state;
  if (identity.memory != result->home.state && identity.memory.ends_with("/" + id)) result->home.memory = identity.memory;
  result->journal = std::make_unique<Journal>(Journal::Found{}, result->home, config, diagnostics);
  if (result->journal->extent().unreadable) {
    // Out of descriptors, say: what was not seen must not be taken for nothing.
    diagnostics.say_limited("recovery " + id, DiagnosticLevel::error,
                            "state directory " + result->home.state +
                                ": not all of its files could be opened; left for a later recovery");
    attempts.end();
    return nullptr;
  }
  Recovered& found = result->found;
  found.directory = id;
  found.process_id = identity.process_id;
  try {
    found.resource = otlp::read_resource(result->journal->resource());
  } catch (const Error&) {
    // Reported with the rest of the damage below; the records are delivered all the same.
  }

  std::string problem;
  const auto problems = [&] {
    const std::string journals = result->journal->extent().problem;
    return problem.empty() || journals.empty() ? problem + journals : problem + "; " + journals;
  };
  const std::string recorder_path = result->home.memory + "/recorder";
  struct stat s {};
  const bool there = ::lstat(recorder_path.c_str(), &s) == 0;
  const auto known = load_totals(result->home);
  if (known) {
    result->journal->set_totals(*known);
  } else if (there && s.st_ino == identity.recorder_inode && identity.boot == boot_id()) {
    if (!File::open(recorder_path, O_RDONLY).valid()) {
      diagnostics.say_limited("recovery " + home.id, DiagnosticLevel::error,
                              "state directory " + home.state + ": " + recorder_path + " can't be opened (" + errno_text(errno) +
                                  "); left for a later recovery");
      attempts.end();
      return nullptr;
    }
    if (const auto recorder = DeadRecorder::read(recorder_path, problem)) {
      Totals totals;
      if (planted(Fault::early_recovered)) {
        store_totals(result->home, totals);
        hold_fault_open();
      }
      if (!absorb(*recorder, *result->journal, hook, identity.hook, found, totals, problem)) {
        // The journal has said why. What is appended already is found there by whoever tries again.
        diagnostics.say_limited("recovery " + id, DiagnosticLevel::error,
                                "state directory " + result->home.state +
                                    ": its journal cannot be written; it is left for a later recovery");
        attempts.end();
        return nullptr;
      }
      // It has been read: a recoverer that dies in what follows has not failed at it.
      attempts.forget();
      result->fresh = true;
      found.damaged_bytes += result->journal->extent().damaged_bytes;
      found.problem = problems();
      if (report) report(found);
      result->journal->set_totals(totals);
      // Where the totals can't be kept, the recorder stays: from it they are found again.
      if (keep_totals(result->home, totals)) ::unlink(recorder_path.c_str());
    }
  } else if (!identity.whole) {
    problem = home.state + "/identity: it is empty or was cut short: whose " + recorder_path +
              " is can't be told; what was not yet in the journal is lost";
  } else if (!identity.closed) {
    problem = "its recorder " + recorder_path + " is gone" +
              (identity.boot != boot_id() ? ": the machine was started anew since" : "") +
              "; what was not yet in the journal is lost";
  }
  if (!known && !result->fresh && !identity.closed) {
    // Nothing comes from a recorder that is gone or can't be read. Told all the same: who it was, and that it is dead.
    result->fresh = true;
    found.problem = problems();
    found.damaged_bytes += result->journal->extent().damaged_bytes;
    if (report) report(found);
    result->journal->assume_totals();
    keep_totals(result->home, result->journal->totals());
  }
  // Also where no byte is damaged: a segment that is cut short between two frames, or gone, does not show it.
  result->journal->count_damage();
  if (problem = problems(); !problem.empty()) {
    found.problem = problem;
    diagnostics.say(DiagnosticLevel::error, "state directory " + result->home.state + ": " + problem);
  }
  attempts.forget();
  return result;
}

}  // namespace

std::unique_ptr<RecoveredJournal> recover_directory(const std::string& state_directory, const std::string& id,
                                                    const JournalConfig& config, Hook& hook, Diagnostics& diagnostics,
                                                    const std::function<void(const Recovered&)>& report) {
  auto result = std::make_unique<RecoveredJournal>();
  result->home.id = id;
  result->home.state = state_directory + "/" + id;
  // Before anything in it is opened: what somebody else put there is not followed.
  if (const std::string why = distrust(result->home.state); !why.empty()) {
    diagnostics.say_once("distrust " + id, DiagnosticLevel::error, "state directory " + result->home.state + ": " + why +
                                                                       "; left alone");
    return nullptr;
  }
  if (is_delivered(result->home.state) || DirectoryLock::taken(result->home.state)) return nullptr;
  // What is not ours to recover is left without touching its lock: giving a lock back wakes everyone who watches it.
  const auto refused = [&](const std::optional<Identity>& identity) {
    if (!identity) return false;
    if (!identity->whole && (identity->version == 0 || identity->version == kLayoutVersion)) return false;  // damage
    if (identity->version != kLayoutVersion) {
      diagnostics.say_once("version " + id, DiagnosticLevel::warning,
                           "state directory " + result->home.state + ": layout " + std::to_string(identity->version) +
                               ", this program reads " + std::to_string(kLayoutVersion) + "; left alone");
      return true;
    }
    if (!identity->hook || hook.present()) return false;
    diagnostics.say_once("hook " + id, DiagnosticLevel::warning,
                         "state directory " + result->home.state + ": its records must pass an on_record hook, and this " +
                             "process has none; left for one that has");
    return true;
  };
  if (refused(read_identity(result->home.state))) return nullptr;
  result->lock = DirectoryLock::take(result->home.state);
  if (!result->lock.valid() || is_delivered(result->home.state)) return nullptr;
  std::optional<Identity> identity = read_identity(result->home.state);
  if (refused(identity)) return nullptr;
  if (identity && !identity->whole) {
    // What it still says may be half of it. What is in the journal can be told without.
    const std::string memory = memory_path(id);
    struct stat s {};
    *identity = {};
    identity->memory = !memory.empty() && ::lstat(memory.c_str(), &s) == 0 ? memory : result->home.state;
  }
  if (!identity) {
    struct stat s {};
    if (::lstat((result->home.state + "/identity").c_str(), &s) == 0 || errno != ENOENT) {
      diagnostics.say_limited("identity " + id, DiagnosticLevel::error,
                              "state directory " + result->home.state + ": its identity can't be read (" + errno_text(errno) +
                                  "); left for a later recovery");
      return nullptr;
    }
    // Died before it had recorded anything.
    remove_memory({id, result->home.state, memory_path(id)});
    remove_tree(result->home.state);
    return nullptr;
  }
  const Attempts attempts(result->home.state);
  if (const std::string why = attempts.verdict(); !why.empty()) {
    const std::string aside = state_directory + "/" + kSetAside + id;
    if (::rename(result->home.state.c_str(), aside.c_str()) == 0) {
      diagnostics.say(DiagnosticLevel::error,
                      "state directory " + result->home.state + ": its recovery " + why + "; set aside as " + aside);
    }
    return nullptr;
  }
  attempts.begin();
  try {
    return read_what_is_left(std::move(result), *identity, attempts, config, hook, diagnostics, report);
  } catch (const std::exception& e) {
    attempts.fail();
    diagnostics.say(DiagnosticLevel::error, "state directory " + state_directory + "/" + id + ": its recovery failed: " + e.what());
    return nullptr;
  }
}

bool finish_recovered(RecoveredJournal& recovered) {
  if (recovered.journal->extent().cursors_missing) return false;
  // With its memory would go what tells that its recorder has been read.
  const Home on_disk{recovered.home.id, recovered.home.state, recovered.home.state};
  if (!load_totals(on_disk) && !store_totals(on_disk, recovered.journal->totals())) return false;
  if (!recovered.journal->close()) return false;
  // Nobody looks at a delivered one again: its memory goes first.
  remove_memory(recovered.home);
  return mark_delivered(recovered.home.state);
}

// Of all its destinations together, as far as its journal tells.
static std::uint64_t count_pending(const std::string& path, const std::string& memory) {
  Diagnostics quiet(DiagnosticLevel::none);
  Home home{path.substr(path.rfind('/') + 1), path, memory.ends_with(path.substr(path.rfind('/'))) ? memory : path};
  Journal journal(Journal::Found{}, std::move(home), {}, quiet);
  std::uint64_t pending = 0;
  const auto cursors = journal.cursors();
  for (const auto& [name, signal, done] : cursors) {
    if (!done) pending += journal.counts_of(name, signal).pending;
  }
  // Nobody is known who has got any of it.
  if (cursors.empty()) journal.for_each([&](const Record&, std::uint16_t) { ++pending; });
  return pending;
}

namespace {

// Names of all that processes have in it, what could not be recovered included.
std::vector<std::string> all_homes(const std::string& state_directory) {
  std::vector<std::string> names = list_directory(state_directory);
  std::erase_if(names, [](std::string_view name) {
    if (name.starts_with(kSetAside)) name.remove_prefix(std::string_view(kSetAside).size());
    return !is_home_name(name);
  });
  return names;
}

// Without what says that it was set aside.
std::string id_in(const std::string& path) { return path.substr(path.size() - std::min<std::size_t>(path.size(), 32)); }

}  // namespace

std::vector<std::string> urgent_homes(const std::string& state_directory, std::uint64_t recorder_bytes) {
  struct Left {
    std::string id;
    std::uint64_t bytes;
    std::uint64_t started;
  };
  std::vector<Left> left;
  std::vector<std::string> urgent;
  std::uint64_t total = 0;
  for (const std::string& id : list_homes(state_directory)) {
    const std::string path = state_directory + "/" + id;
    if (!distrust(path).empty() || is_delivered(path) || DirectoryLock::taken(path)) continue;
    const auto identity = read_identity(path);
    if (!identity) continue;
    struct stat s {};
    if (::lstat((identity->memory + "/recorder").c_str(), &s) != 0) continue;  // recovered, or gone
    if (Attempts(path).deaths() > 1) {
      urgent.push_back(id);
      continue;
    }
    left.push_back({id, static_cast<std::uint64_t>(s.st_blocks) * 512, identity->started_ns});
    total += left.back().bytes;
  }
  std::sort(left.begin(), left.end(), [](const Left& a, const Left& b) { return a.started < b.started; });
  for (const Left& oldest : left) {
    if (total <= recorder_bytes) break;
    urgent.push_back(oldest.id);
    total -= oldest.bytes;
  }
  return urgent;
}

std::uint64_t trim_dead(const std::string& state_directory, std::uint64_t max_bytes, const std::set<std::string>& ours,
                        Diagnostics& diagnostics) {
  struct Dead {
    std::string path;
    std::uint64_t bytes;
    std::uint64_t started;
    bool set_aside;
  };
  std::vector<Dead> dead;
  std::uint64_t total = 0;
  for (const std::string& id : all_homes(state_directory)) {
    const std::string path = state_directory + "/" + id;
    if (!distrust(path).empty()) continue;
    const bool open_here = ours.contains(id);
    if (!open_here && DirectoryLock::taken(path)) continue;
    const auto identity = read_identity(path);
    // Nobody will free the recorder of one that was set aside.
    const bool set_aside = id.starts_with(kSetAside);
    std::uint64_t bytes = directory_bytes(path, set_aside);
    if (identity && identity->memory != state_directory + "/" + id_in(path)) {
      bytes += directory_bytes(identity->memory, set_aside);
    }
    if (!open_here) dead.push_back({path, bytes, identity ? identity->started_ns : 0, set_aside});
    total += bytes;
  }
  std::sort(dead.begin(), dead.end(), [](const Dead& a, const Dead& b) { return a.started < b.started; });
  for (const Dead& oldest : dead) {
    if (total <= max_bytes) break;
    const DirectoryLock lock = DirectoryLock::take(oldest.path);
    if (!lock.valid()) continue;
    const bool delivered = is_delivered(oldest.path);
    std::uint64_t lost = 0;
    if (const auto identity = read_identity(oldest.path)) {
      // One that was set aside is not opened: it may have ended those who tried.
      if (!delivered && !oldest.set_aside) lost = count_pending(oldest.path, identity->memory);
      remove_memory({id_in(oldest.path), oldest.path, identity->memory});
    }
    remove_tree(oldest.path);
    total -= oldest.bytes;
    if (lost > 0 || !delivered) {
      diagnostics.say(DiagnosticLevel::warning,
                      "state directory " + oldest.path + ": removed with " +
                          (oldest.set_aside ? std::string("what could not be recovered")
                                            : std::to_string(lost) + " records that were never delivered") +
                          ": dead processes' directories exceed journal.max_bytes");
    }
  }
  return total > max_bytes ? total - max_bytes : 0;
}

SiblingWatch::SiblingWatch(std::string state_directory, std::function<void()> died, Diagnostics& diagnostics)
    : directory_(std::move(state_directory)), died_(std::move(died)), diagnostics_(diagnostics),
      stop_(eventfd(0, EFD_CLOEXEC)), look_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!stop_.valid()) {
    diagnostics_.say(DiagnosticLevel::warning, "state directory " + directory_ + ": cannot be watched (" + errno_text(errno) +
                                                   "); what a sibling leaves is recovered at the next start");
    died_();
    return;
  }
  watch_homes();
  thread_ = quiet_thread([this] { run(); });
}

SiblingWatch::~SiblingWatch() {
  const std::uint64_t one = 1;
  if (thread_.joinable()) {
    while (::write(stop_.fd(), &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
}

void SiblingWatch::look() noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto told = ::write(look_.fd(), &one, sizeof one);
}

// Also what is watched already: it may be another one by now.
void SiblingWatch::watch_homes() {
  if (!inotify_.valid()) inotify_ = File(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  int error = inotify_.valid() ? 0 : errno;
  const auto watch = [&](const std::string& path, std::uint32_t what) {
    if (error == 0 && inotify_add_watch(inotify_.fd(), path.c_str(), what) < 0) error = errno;
  };
  watch(directory_, IN_MOVED_TO | IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR);
  for (const std::string& id : list_homes(directory_)) {
    const std::string path = directory_ + "/" + id;
    if (is_delivered(path)) continue;  // it never has an owner again
    const int before = error;
    watch(path + "/lock", IN_CLOSE_WRITE | IN_ONESHOT);
    if (before == 0 && error == ENOENT) error = 0;  // removed meanwhile
  }
  blind_ = error != 0;
  if (!blind_) return;
  diagnostics_.say_once("watch", DiagnosticLevel::warning,
                        "state directory " + directory_ + ": cannot be watched (" + errno_text(error) +
                            "); it is looked at every " + std::to_string(kLook / 1000) +
                            " s for what siblings leave, until it can be");
}

void SiblingWatch::run() {
  begin_own_thread("wm-recovery");
  // Whoever died before it was watched.
  died_();
  int rest = kRest;
  for (;;) {
    pollfd waits[3] = {{inotify_.fd(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}, {look_.fd(), POLLIN, 0}};
    const int ready = ::poll(waits, 3, blind_ ? kLook : -1);
    if (ready < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
    std::uint64_t asked = 0;
    const bool look = ::read(look_.fd(), &asked, sizeof asked) > 0;
    alignas(inotify_event) char buffer[4096];
    bool heard = false;
    for (ssize_t n; (n = ::read(inotify_.fd(), buffer, sizeof buffer)) > 0;) {
      heard = heard || n > 0;
    }
    // Whatever it was: a new sibling may have died before it could be watched.
    watch_homes();
    if (!heard && !look && ready != 0) continue;
    died_();
    if (!heard) continue;
    // A directory that could not be recovered tells us of our own giving up: less and less often.
    if (::poll(&waits[1], 1, rest) > 0) return;
    rest = ::poll(&waits[0], 1, 0) > 0 ? std::min(2 * rest, kLook) : kRest;
  }
}

}  // namespace waymark::journal
