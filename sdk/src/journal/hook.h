// The on_record hook: what passes every finished record before it is stored anywhere.
//
// Hides: decoding, re-encoding, and what happens when the hook throws.
// Threads: set() any; apply() the collector thread, or the recoverer.
// Failure: a hook that throws drops the record: what should have been redacted must not get out. It is said.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "base/diagnostics.h"
#include "journal/journal.h"
#include "waymark/reader.h"

namespace waymark::journal {

class Hook {
 public:
  explicit Hook(Diagnostics& diagnostics) : diagnostics_(diagnostics) {}
  void set(OnRecord hook);
  [[nodiscard]] bool present() const noexcept { return present_.load(std::memory_order_acquire); }

  // Runs the hook over the stretch's records. `kept` gets those that stay, headers and all; the result counts them and
  // those that were dropped.
  struct Result {
    std::array<std::uint32_t, kSignals> kept{};
    SignalCounts dropped{};
  };
  Result apply(const char* data, std::size_t bytes, const Source& source, std::string& kept);

 private:
  Diagnostics& diagnostics_;
  std::atomic<bool> present_{false};
  std::mutex mutex_;
  std::shared_ptr<const OnRecord> hook_;
};

// What a record's header can say of its size.
inline constexpr std::size_t kMaximumFramed = (1u << 24) - 16;

// Appends one record with its header and padding, as it stands in rings and frames. At most kMaximumFramed bytes framed.
void append_record(std::string& out, Signal signal, std::uint16_t scope, std::string_view body);

// Walks the records of a ring stretch or a frame, fillers left out: each(RecordHeader, framed, body, offset, next offset)
// returns false to stop. False where a record does not fit.
template <class F>
bool for_each_record(const char* data, std::size_t bytes, std::size_t from, F&& each) {
  std::size_t offset = from;
  while (offset + sizeof(RecordHeader) <= bytes) {
    RecordHeader header;
    __builtin_memcpy(&header, data + offset, sizeof header);
    if (header.bytes() > bytes - offset) return false;
    const std::size_t next = offset + header.bytes();
    if (header.signal < kSignals) {
      Record record;
      record.signal = static_cast<Signal>(header.signal);
      record.scope = header.scope;
      record.framed = {data + offset + sizeof header, header.framed};
      // 0x12, then the length as a varint of at most four bytes.
      std::size_t head = 1;
      while (head < record.framed.size() && (static_cast<unsigned char>(record.framed[head]) & 0x80) != 0) ++head;
      if (head + 1 > record.framed.size()) return false;
      record.body = record.framed.substr(head + 1);
      if (!each(record, next)) return true;
    }
    offset = next;
  }
  return offset == bytes;
}

}  // namespace waymark::journal
