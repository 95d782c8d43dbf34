// One export request, cut at a cursor: records grouped by scope, under the headers of their resource and scopes.
//
// Hides: how the request's bytes are laid out in protobuf and in JSON, and that its size is known exactly while it grows.
// Threads: values of one destination's thread.
// Failure: std::bad_alloc; nothing is acknowledged then.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "journal/journal.h"
#include "waymark/config.h"

namespace waymark::delivery {

// Of requests on the wire.
enum class Encoding : std::uint8_t { protobuf, json };
[[nodiscard]] Encoding encoding_of(const DestinationConfig& config) noexcept;

// The parts of a source's requests that stay the same: its resource and its scopes, as they go on the wire.
class Envelope {
 public:
  struct Scope {
    std::string head;  // ScopeSpans.scope, a whole field (JSON: with a comma behind it); empty where the scope says nothing
    std::string tail;  // ScopeSpans.schema_url, a whole field (JSON: with a comma before it); empty where there is none
  };

  // `extra` replaces what the resource says under the same keys. The source must outlive it.
  Envelope(const journal::Source& source, const AnyMap& extra, Encoding encoding = Encoding::protobuf);
  [[nodiscard]] Encoding encoding() const noexcept { return encoding_; }
  // ResourceSpans.resource, the field (JSON: with a comma behind it)
  [[nodiscard]] const std::string& resource() const noexcept { return resource_; }
  [[nodiscard]] const Scope& scope(std::uint16_t id);

 private:
  const journal::Source* source_;
  Encoding encoding_;
  std::string resource_;
  std::unordered_map<std::uint16_t, Scope> scopes_;
};

struct BatchRules {
  std::size_t max_bytes = 512 * 1024;  // of the encoded request
  std::size_t max_records = 0;         // 0: no limit
  Severity minimum_severity = Severity::unspecified;
  const std::function<bool(const journal::Record&)>* keep = nullptr;  // false: filtered; null keeps all; must not throw
};

class Batch {
 public:
  // Takes what fits from the cursor's position on; what was cut before is forgotten. Buffers are kept, so that a batch
  // like the last one allocates nothing. The envelope's encoding is the request's.
  void cut(journal::Cursor& cursor, Envelope& envelope, const BatchRules& rules);

  // The request: the pieces back to back. Good until the next cut.
  [[nodiscard]] std::span<const std::string_view> pieces() const noexcept { return pieces_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }  // of the request
  // The bytes of its records as the journal frames them, by those that they have in the request; 1 where it has none.
  [[nodiscard]] double framed_share() const noexcept;
  [[nodiscard]] std::uint64_t records() const noexcept { return records_; }
  [[nodiscard]] std::uint64_t filtered() const noexcept { return filtered_; }    // by the rules
  [[nodiscard]] std::uint64_t oversized() const noexcept { return oversized_; }  // larger than max_bytes, each alone
  [[nodiscard]] std::uint64_t unreadable() const noexcept { return unreadable_; }  // bytes that JSON can't be made of
  // Everything that was passed, filtered, oversized and unreadable records included.
  [[nodiscard]] std::uint64_t taken_records() const noexcept { return records_ + filtered_ + oversized_ + unreadable_; }
  [[nodiscard]] std::uint64_t taken_bytes() const noexcept { return taken_bytes_; }
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] bool at_end() const noexcept { return at_end_; }  // nothing was left in the journal

 private:
  struct Slot {
    std::uint16_t scope = 0;
    const Envelope::Scope* header = nullptr;
    std::size_t payload = 0;  // head, records and tail
    std::string prefix;       // what stands before the records, head included
    std::string records;      // JSON: a comma before each
    std::string suffix;       // what stands behind them, tail included
  };

  void forget(std::size_t max_bytes);
  bool take(const journal::Record& record, Envelope& envelope, const BatchRules& rules);
  Slot* find(std::uint16_t scope) noexcept;
  [[nodiscard]] std::size_t scope_size(std::size_t payload) const noexcept;
  [[nodiscard]] std::size_t request_size(std::size_t payload) const noexcept;
  void put(Slot& slot, const journal::Record& record, std::string_view bytes);
  void measure(const Envelope& envelope) noexcept;
  void assemble(const Envelope& envelope);

  std::vector<Slot> slots_;
  std::size_t used_ = 0;      // of slots_
  std::size_t last_ = 0;      // the slot that the newest record went into
  std::size_t resource_ = 0;  // the resource and its scopes: exact behind measure()
  std::size_t at_most_ = 0;   // what the request's size can't be beyond
  Encoding encoding_ = Encoding::protobuf;
  Signal signal_ = Signal::traces;  // of the newest record
  std::string json_;                // the newest record, behind a comma
  std::string prefix_;        // the request's first bytes, up to the first scope
  std::vector<std::string_view> pieces_;
  std::size_t bytes_ = 0;
  std::uint64_t records_ = 0;
  std::uint64_t filtered_ = 0;
  std::uint64_t oversized_ = 0;
  std::uint64_t unreadable_ = 0;
  std::uint64_t taken_bytes_ = 0;
  std::uint64_t framed_bytes_ = 0;  // of what is in the request
  std::uint64_t position_ = 0;
  bool at_end_ = true;
};

}  // namespace waymark::delivery
