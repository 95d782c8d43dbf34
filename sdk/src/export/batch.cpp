#include "export/batch.h"

#include <functional>

#include "otlp/fields.h"
#include "otlp/json.h"
#include "otlp/reader.h"
#include "otlp/schema.h"
#include "otlp/walk.h"
#include "otlp/writer.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

// The numbers are the same for spans and logs.
constexpr char tag(otlp::field::Number number) { return static_cast<char>(number << 3 | 2); }  // of a field with a length
constexpr char kResourceRecords = tag(otlp::field::request::kResources);
constexpr char kResource = tag(otlp::field::resource_records::kResource);
constexpr char kScopeRecords = tag(otlp::field::resource_records::kScopes);
constexpr char kScope = tag(otlp::field::scope_records::kScope);
constexpr char kSchemaUrl = tag(otlp::field::scope_records::kSchemaUrl);
constexpr char kAttribute = tag(otlp::field::resource::kAttributes);

void append_head(std::string& out, char tag_byte, std::size_t payload) {
  char bytes[11];
  bytes[0] = tag_byte;
  out.append(bytes, static_cast<std::size_t>(otlp::put_varint(bytes + 1, payload) - bytes));
}

std::string whole_field(char tag_byte, std::string_view content) {
  std::string out;
  append_head(out, tag_byte, content.size());
  return out.append(content);
}

// The same places in JSON.
struct Words {
  std::string_view begin;    // up to the resource
  std::string_view scopes;   // up to the first scope
  std::string_view records;  // from a scope's head to its first record
};
constexpr Words kWords[kSignals] = {
    {R"({"resourceSpans":[{)", R"("scopeSpans":[)", R"("spans":[)"},
    {R"({"resourceLogs":[{)", R"("scopeLogs":[)", R"("logRecords":[)"},
    {R"({"resourceMetrics":[{)", R"("scopeMetrics":[)", R"("metrics":[)"},
};
constexpr std::string_view kEnd = "]}]}";
constexpr std::size_t kLengthBytes = 5;  // that a length takes at most, up to 32 GiB
const Words& words_of(Signal signal) noexcept { return kWords[static_cast<std::size_t>(signal)]; }

// A field as JSON, with a comma behind it; nothing for bytes that make no sense: the records matter more.
std::string json_field(std::string_view name, std::string_view message, const otlp::Shape& shape) {
  std::string out = "\"" + std::string(name) + "\":";
  try {
    otlp::append_json(out, message, shape);
  } catch (const Error&) {
    return {};
  }
  return out + ",";
}

std::string_view key_of(std::string_view key_value) {
  otlp::Walk fields(key_value, "KeyValue");
  while (fields.next()) {
    if (fields.number() == otlp::field::key_value::kKey) return fields.bytes();
  }
  return {};
}

// `own` without the attributes that `extra` has, then those of `extra`.
std::string merged(std::string_view own, const AnyMap& extra) {
  std::string out;
  otlp::Walk fields(own, "Resource");
  while (fields.next()) {
    const bool replaced = fields.number() == otlp::field::resource::kAttributes && find(extra, key_of(fields.bytes()));
    if (!replaced) out.append(fields.field());
  }
  for (const auto& [key, value] : extra) otlp::append_attribute(out, kAttribute, key, value);
  return out;
}

}  // namespace

Encoding encoding_of(const DestinationConfig& config) noexcept {
  return config.output == Output::otlp && config.protocol == Protocol::http_json ? Encoding::json : Encoding::protobuf;
}

Envelope::Envelope(const journal::Source& source, const AnyMap& extra, Encoding encoding)
    : source_(&source), encoding_(encoding) {
  std::string resource = source.resource();
  if (!extra.empty()) {
    try {
      resource = merged(resource, extra);
    } catch (const Error&) {
      // A dead process's resource that can't be read is passed on as it is: the records matter more.
    }
  }
  if (resource.empty()) return;
  resource_ = encoding_ == Encoding::json ? json_field("resource", resource, otlp::kResourceShape)
                                          : whole_field(kResource, resource);
}

const Envelope::Scope& Envelope::scope(std::uint16_t id) {
  const auto known = scopes_.find(id);
  if (known != scopes_.end()) return known->second;
  const journal::Scope read = source_->scope(id);
  Scope made;
  if (encoding_ == Encoding::json) {
    if (!read.encoded.empty()) made.head = json_field("scope", read.encoded, otlp::kScopeShape);
    if (!read.schema_url.empty()) {
      made.tail = R"(,"schemaUrl":)";
      otlp::append_json_string(made.tail, read.schema_url);
    }
  } else {
    if (!read.encoded.empty()) made.head = whole_field(kScope, read.encoded);
    if (!read.schema_url.empty()) made.tail = whole_field(kSchemaUrl, read.schema_url);
  }
  return scopes_.emplace(id, std::move(made)).first->second;
}

void Batch::forget(std::size_t max_bytes) {
  std::size_t reserved = 0;
  for (const Slot& slot : slots_) reserved += slot.records.capacity();
  // Scopes that took turns in being busy have each left a large buffer behind.
  if (reserved > 4 * max_bytes) slots_.clear();
  used_ = last_ = 0;
  pieces_.clear();
  bytes_ = at_most_ = 0;
  records_ = filtered_ = oversized_ = unreadable_ = taken_bytes_ = framed_bytes_ = 0;
}

double Batch::framed_share() const noexcept {
  std::size_t encoded = 0;
  for (std::size_t i = 0; i < used_; ++i) encoded += slots_[i].records.size();
  return encoded == 0 ? 1.0 : static_cast<double>(framed_bytes_) / static_cast<double>(encoded);
}

Batch::Slot* Batch::find(std::uint16_t scope) noexcept {
  if (last_ < used_ && slots_[last_].scope == scope) return &slots_[last_];
  for (std::size_t i = 0; i < used_; ++i) {
    if (slots_[i].scope == scope) {
      last_ = i;
      return &slots_[i];
    }
  }
  return nullptr;
}

// In JSON the first of several has no comma before it, so that one is taken off what all of them have.
std::size_t Batch::scope_size(std::size_t payload) const noexcept {
  if (encoding_ == Encoding::protobuf) return otlp::field_size(payload);
  return payload + std::string_view(",{]}").size() + words_of(signal_).records.size() - 1;
}

std::size_t Batch::request_size(std::size_t payload) const noexcept {
  if (encoding_ == Encoding::protobuf) return otlp::field_size(payload);
  const Words& words = words_of(signal_);
  return payload + words.begin.size() + words.scopes.size() + kEnd.size() - 1;
}

bool Batch::take(const journal::Record& record, Envelope& envelope, const BatchRules& rules) {
  if (rules.minimum_severity != Severity::unspecified && record.signal == Signal::logs) {
    const auto severity = otlp::log_severity(record.body);
    if (severity != 0 && severity < static_cast<std::int32_t>(rules.minimum_severity)) {
      ++filtered_;
      taken_bytes_ += record.framed.size();
      return true;
    }
  }
  if (rules.keep && !(*rules.keep)(record)) {
    ++filtered_;
    taken_bytes_ += record.framed.size();
    return true;
  }
  if (rules.max_records != 0 && records_ >= rules.max_records) return false;

  signal_ = record.signal;
  std::string_view bytes = record.framed;
  if (encoding_ == Encoding::json) {
    json_ = ',';
    try {
      otlp::append_json(json_, record.body, otlp::record_shape(record.signal));
    } catch (const Error&) {
      ++unreadable_;
      taken_bytes_ += record.framed.size();
      return true;
    }
    bytes = json_;
  }

  Slot* slot = find(record.scope);
  if (slot != nullptr && at_most_ + bytes.size() <= rules.max_bytes) [[likely]] {
    put(*slot, record, bytes);
    return true;
  }
  measure(envelope);
  const Envelope::Scope& header = slot ? *slot->header : envelope.scope(record.scope);
  const std::size_t before = slot ? scope_size(slot->payload) : 0;
  const std::size_t payload = (slot ? slot->payload : header.head.size() + header.tail.size()) + bytes.size();
  const std::size_t request = request_size(resource_ - before + scope_size(payload));
  if (request > rules.max_bytes) {
    if (records_ != 0) return false;
    ++oversized_;  // alone and still too large; what stands behind it goes on
    taken_bytes_ += record.framed.size();
    return true;
  }
  if (!slot) {
    if (used_ == slots_.size()) slots_.emplace_back();
    last_ = used_++;
    slot = &slots_[last_];
    slot->scope = record.scope;
    slot->header = &header;
    slot->records.clear();
    slot->payload = payload - bytes.size();
  }
  put(*slot, record, bytes);
  // From here on records are counted by their bytes, and what their lengths' lengths may grow by meanwhile.
  at_most_ = request + kLengthBytes * (used_ + 1);
  return true;
}

void Batch::put(Slot& slot, const journal::Record& record, std::string_view bytes) {
  slot.records.append(bytes);
  slot.payload += bytes.size();
  at_most_ += bytes.size();
  ++records_;
  taken_bytes_ += record.framed.size();
  framed_bytes_ += record.framed.size();
}

void Batch::measure(const Envelope& envelope) noexcept {
  resource_ = envelope.resource().size();
  for (std::size_t i = 0; i < used_; ++i) resource_ += scope_size(slots_[i].payload);
}

void Batch::assemble(const Envelope& envelope) {
  const bool json = encoding_ == Encoding::json;
  const Words& words = words_of(signal_);
  prefix_.clear();
  if (json) {
    prefix_.append(words.begin).append(envelope.resource()).append(words.scopes);
  } else {
    append_head(prefix_, kResourceRecords, resource_);
    prefix_.append(envelope.resource());
  }
  pieces_.push_back(prefix_);
  for (std::size_t i = 0; i < used_; ++i) {
    Slot& slot = slots_[i];
    slot.prefix.clear();
    slot.suffix.clear();
    if (json) {
      slot.prefix.append(i == 0 ? "{" : ",{").append(slot.header->head).append(words.records);
      slot.suffix.append("]").append(slot.header->tail).append("}");
    } else {
      append_head(slot.prefix, kScopeRecords, slot.payload);
      slot.prefix.append(slot.header->head);
      slot.suffix.append(slot.header->tail);
    }
    pieces_.push_back(slot.prefix);
    pieces_.push_back(std::string_view(slot.records).substr(json ? 1 : 0));
    if (!slot.suffix.empty()) pieces_.push_back(slot.suffix);
  }
  if (json) pieces_.push_back(kEnd);
}

void Batch::cut(journal::Cursor& cursor, Envelope& envelope, const BatchRules& rules) {
  forget(rules.max_bytes);
  encoding_ = envelope.encoding();
  at_end_ = true;
  auto taker = [&](const journal::Record& record) {
    const bool taken = take(record, envelope, rules);
    if (!taken) at_end_ = false;
    return taken;
  };
  position_ = cursor.read(std::ref(taker));  // by reference: std::function has room for no more without allocating
  if (records_ == 0) return;
  measure(envelope);
  bytes_ = request_size(resource_);
  assemble(envelope);
}

}  // namespace waymark::delivery
