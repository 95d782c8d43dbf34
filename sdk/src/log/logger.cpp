#include <cstring>

#include "otlp/writer.h"
#include "trace/tracer.h"

namespace waymark {
namespace detail {

// A logger's own attributes, encoded.
struct BoundAttributes {
  std::string fields;         // a pinned one is told by its tag
  std::string wire;           // as they stand in a record that overrides none of them
  std::uint32_t count = 0;
  otlp::SeenKeys seen = {};
};

namespace {

constexpr char kAttributeTag = 0x32;

// In a logger's bound attributes a pinned one is told by this tag; on the wire both have kAttributeTag.
constexpr char kPinnedTag = 0x33;

// One field of the bound attributes: tag, length, 0x0a, key length, key, ...
struct BoundField {
  std::string_view bytes;
  std::string_view key;
  bool pinned;
};
BoundField next_bound(std::string_view& rest) noexcept {
  std::size_t at = 1;
  const auto varint = [&] {
    std::uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(rest[at++]);
      v |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return static_cast<std::size_t>(v);
    }
  };
  const std::size_t length = varint();
  const std::size_t end = at + length;
  ++at;
  const std::size_t key_length = varint();
  const BoundField field{rest.substr(0, end), rest.substr(at, key_length), rest[0] == kPinnedTag};
  rest.remove_prefix(end);
  return field;
}

// Calls `each` with every attribute that the record gets: the bound ones first, without those that the call has too unless
// they are pinned; of a key that is repeated in the call, the last. Returns how many the limit left out.
template <class Bound, class Own>
std::uint32_t for_attributes(const BoundAttributes* bound, Attributes own, std::uint32_t most, Bound&& each_bound, Own&& each_own) {
  std::uint32_t kept = 0;
  std::uint32_t dropped = 0;
  bool any_pinned = false;
  if (bound != nullptr) {
    std::string_view rest = bound->fields;
    while (!rest.empty()) {
      const BoundField field = next_bound(rest);
      any_pinned = any_pinned || field.pinned;
      bool repeated = false;
      for (const Attribute& a : own) repeated = repeated || a.key == field.key;
      if (repeated && !field.pinned) continue;
      if (kept < most) {
        each_bound(field.bytes);
        ++kept;
      } else {
        ++dropped;
      }
    }
  }
  const auto pinned = [&](std::string_view key) {
    std::string_view rest = bound->fields;
    while (!rest.empty()) {
      const BoundField field = next_bound(rest);
      if (field.pinned && field.key == key) return true;
    }
    return false;
  };
  for (const Attribute* a = own.begin(); a != own.end(); ++a) {
    bool last = true;
    for (const Attribute* b = a + 1; b != own.end() && last; ++b) last = b->key != a->key;
    if (!last || (any_pinned && pinned(a->key))) continue;
    if (a->key.empty() || kept >= most) {
      ++dropped;
      continue;
    }
    each_own(*a);
    ++kept;
  }
  return dropped;
}

// What a record has besides its attributes, ready for the wire.
struct Fields {
  std::uint64_t time;
  std::uint64_t now;
  Severity severity;
  std::string_view severity_text;
  std::string_view event_name;
  const Value& body;
  std::string_view text;  // the body, where it is a string
  const SpanContext* context;
};

// `put` writes `attributes` bytes of attributes.
template <class Put>
void write_record(LoggerState& logger, const Fields& f, std::size_t attributes, std::uint32_t dropped, Put&& put) noexcept {
  static constexpr Limits kNoLimits{};
  const bool is_text = f.body.type() == Value::Type::string;
  const std::size_t body = is_text ? otlp::field_size(f.text.size()) : otlp::size_any(f.body, kNoLimits);
  const auto severity = static_cast<std::uint8_t>(f.severity);
  const std::size_t bytes = 9 + (severity ? 2 : 0) + (f.severity_text.empty() ? 0 : otlp::field_size(f.severity_text.size())) +
                            (f.body.type() != Value::Type::empty ? otlp::field_size(body) : 0) + attributes +
                            (dropped ? 1 + otlp::varint_size(dropped) : 0) +
                            (f.context ? (f.context->flags ? 5 : 0) + 18 + 10 : 0) + 9 +
                            (f.event_name.empty() ? 0 : otlp::field_size(f.event_name.size()));

  journal::Recorder& recorder = *logger.recording_of->recorder;
  Lane& lane = *recorder.lane();
  if (lane.is_shared) lane.lock.lock();
  char* p = recorder.ring_reserve(lane, Signal::logs, logger.scope, otlp::field_size(bytes));
  if (p != nullptr) {
    *p++ = 0x12;
    p = otlp::put_varint(p, bytes);
    *p++ = 0x09;
    p = otlp::put_fixed64(p, f.time);
    if (severity != 0) {
      *p++ = 0x10;
      *p++ = static_cast<char>(severity);
    }
    if (!f.severity_text.empty()) p = otlp::put_field(p, 0x1a, f.severity_text);
    if (f.body.type() != Value::Type::empty) {
      *p++ = 0x2a;
      p = otlp::put_varint(p, body);
      p = is_text ? otlp::put_field(p, 0x0a, f.text) : otlp::put_any(p, f.body, kNoLimits);
    }
    p = put(p);
    if (dropped != 0) {
      *p++ = 0x38;
      p = otlp::put_varint(p, dropped);
    }
    if (f.context != nullptr) {
      if (f.context->flags != 0) {
        *p++ = 0x45;
        p = otlp::put_fixed32(p, f.context->flags);
      }
      p = otlp::put_field(p, 0x4a, {reinterpret_cast<const char*>(f.context->trace_id.bytes.data()), 16});
      p = otlp::put_field(p, 0x52, {reinterpret_cast<const char*>(f.context->span_id.bytes.data()), 8});
    }
    *p++ = 0x59;
    p = otlp::put_fixed64(p, f.now);
    if (!f.event_name.empty()) otlp::put_field(p, 0x62, f.event_name);
    recorder.publish(lane);
  }
  if (lane.is_shared) lane.lock.unlock();
}

// For attributes that are long, repeated, bound and overridden, or too many: walked twice, for their size and for their bytes.
[[gnu::noinline]] void write_any_record(LoggerState& logger, const Fields& fields, const BoundAttributes* bound, Attributes own) noexcept {
  const Limits& limits = logger.recording_of->log_limits;
  std::string scratch;
  std::size_t bytes = 0;
  const std::uint32_t dropped = for_attributes(
      bound, own, limits.attribute_count, [&](std::string_view field) { bytes += field.size(); },
      [&](const Attribute& a) { bytes += otlp::size_attribute(clean(a.key, scratch), a.value, limits); });
  write_record(logger, fields, bytes, dropped, [&](char* p) {
    for_attributes(
        bound, own, limits.attribute_count,
        [&](std::string_view field) {
          char* const begin = p;
          p = otlp::put_bytes(p, field);
          *begin = kAttributeTag;
        },
        [&](const Attribute& a) { p = otlp::put_attribute(p, kAttributeTag, clean(a.key, scratch), a.value, limits); });
    return p;
  });
}

void emit(LoggerState& logger, const BoundAttributes* bound, const LogRecord& record) noexcept {
  Recording& r = *logger.recording_of;
  std::string scratch[3];
  const SpanContext* context = record.context;
  if (context == nullptr && current != nullptr) context = &current->span;
  if (context != nullptr && !context->valid()) context = nullptr;
  const std::uint64_t now = r.clock->now();
  const bool is_text = record.body.type() == Value::Type::string;
  const Fields fields{
      .time = record.time != Timestamp{} ? to_ns(record.time) : now,
      .now = now,
      .severity = record.severity,
      .severity_text = record.severity_text.empty() ? severity_name(record.severity) : clean(record.severity_text, scratch[0]),
      .event_name = record.event_name.empty() ? std::string_view() : clean(record.event_name, scratch[1]),
      .body = record.body,
      .text = is_text ? clean(record.body.as_string(), scratch[2]) : std::string_view(),
      .context = context,
  };

  // Small values of keys that are not bound, too, are made once, and their size known.
  char own[1024];
  const std::size_t count = record.attributes.size() + (bound != nullptr ? bound->count : 0);
  if (count <= r.log_limits.attribute_count && r.log_limits.attribute_value_length >= otlp::kSmallValue) [[likely]] {
    otlp::SeenKeys seen = {};
    if (bound != nullptr) seen[0] = bound->seen[0], seen[1] = bound->seen[1];
    const Attribute* next = record.attributes.begin();
    const char* const end =
        otlp::put_small_attributes(own, own + sizeof own - otlp::kSmallAttribute, kAttributeTag, next, record.attributes.end(), seen);
    if (next == record.attributes.end()) [[likely]] {
      const std::string_view before = bound != nullptr ? std::string_view(bound->wire) : std::string_view();
      const std::string_view small(own, static_cast<std::size_t>(end - own));
      write_record(logger, fields, before.size() + small.size(), 0,
                   [&](char* p) { return otlp::put_bytes(otlp::put_bytes(p, before), small); });
      return;
    }
  }
  write_any_record(logger, fields, bound, record.attributes);
}

// Copies the record to the current span, as Tilebox does. What the record itself says wins over attributes of the same
// name.
void copy_to_span(const BoundAttributes* bound, const LogRecord& record) noexcept {
  OpenSpan* span = current_recording();
  if (span == nullptr) return;
  const Recording& r = *span->tracer->recording_of;
  std::vector<Attribute> own(record.attributes.begin(), record.attributes.end());
  own.emplace_back("body", record.body);
  own.emplace_back("level", record.severity_text.empty() ? severity_name(record.severity) : record.severity_text);
  std::string encoded;
  const std::uint32_t dropped = for_attributes(
      bound, own, r.span_limits.event_attribute_count,
      [&](std::string_view field) {
        encoded.push_back(0x1a);
        encoded.append(field.substr(1));
      },
      [&](const Attribute& a) { otlp::append_attribute(encoded, 0x1a, a.key, a.value, r.span_limits); });
  add_encoded_event(*span, "log.message", record.time != Timestamp{} ? to_ns(record.time) : r.clock->now(), encoded, dropped);
}

}  // namespace
}  // namespace detail

std::string_view severity_name(Severity severity) noexcept {
  switch (severity) {
    case Severity::trace:
      return "trace";
    case Severity::debug:
      return "debug";
    case Severity::info:
      return "info";
    case Severity::warning:
      return "warning";
    case Severity::error:
      return "error";
    case Severity::critical:
      return "critical";
    case Severity::unspecified:
      break;
  }
  return {};
}

bool Logger::enabled(Severity severity) const noexcept {
  if (state_ == nullptr) return false;
  const std::uint8_t minimum = state_->minimum.load(std::memory_order_acquire);
  const bool wanted = severity == Severity::unspecified ? minimum != 255 : static_cast<std::uint8_t>(severity) >= minimum;
  return wanted && detail::here(*state_->recording_of);
}

void Logger::log(Severity severity, std::string_view message, Attributes attributes) const noexcept {
  if (!enabled(severity)) return;
  LogRecord record;
  record.severity = severity;
  record.body = message;
  record.attributes = attributes;
  emit(record);
}

void Logger::emit(const LogRecord& record) const noexcept {
  if (!enabled(record.severity)) return;
  detail::emit(*state_, bound_.get(), record);
  if (state_->recording_of->logs_as_span_events.load(std::memory_order_relaxed)) detail::copy_to_span(bound_.get(), record);
}

namespace {

std::shared_ptr<const detail::BoundAttributes> bound_to(const detail::LoggerState* state, const detail::BoundAttributes* before,
                                                        Attributes attributes, char tag) {
  auto bound = std::make_shared<detail::BoundAttributes>();
  const Limits limits = state != nullptr ? state->recording_of->log_limits : Limits{};
  detail::for_attributes(
      before, attributes, UINT32_MAX, [&](std::string_view field) { bound->fields.append(field); },
      [&](const Attribute& a) { otlp::append_attribute(bound->fields, tag, a.key, a.value, limits); });
  for (std::string_view rest = bound->fields; !rest.empty(); ++bound->count) {
    const detail::BoundField field = detail::next_bound(rest);
    bound->wire.push_back(detail::kAttributeTag);
    bound->wire.append(field.bytes.substr(1));
    otlp::add_key(bound->seen, otlp::key_hash(field.key));
  }
  return bound;
}

}  // namespace

Logger Logger::bind(Attributes attributes) const {
  Logger bound(*this);
  bound.bound_ = bound_to(state_, bound_.get(), attributes, detail::kAttributeTag);
  return bound;
}

Logger Logger::pin(Attributes attributes) const {
  Logger pinned(*this);
  pinned.bound_ = bound_to(state_, bound_.get(), attributes, detail::kPinnedTag);
  return pinned;
}

namespace {

void log_exception(const Logger& logger, std::string_view message, std::string_view type, const char* what, Attributes attributes) {
  // What the caller says about the exception wins.
  std::vector<Attribute> all;
  all.emplace_back("exception.type", type);
  if (what != nullptr) all.emplace_back("exception.message", what);
  all.insert(all.end(), attributes.begin(), attributes.end());
  logger.log(Severity::error, message, all);
}

}  // namespace

void Logger::exception(std::string_view message, const std::exception& exception, Attributes attributes) const noexcept {
  if (enabled(Severity::error)) log_exception(*this, message, detail::exception_type(exception), exception.what(), attributes);
}

void Logger::exception(std::string_view message, const std::exception_ptr& exception, Attributes attributes) const noexcept {
  if (!enabled(Severity::error)) return;
  if (!exception) return log(Severity::error, message, attributes);
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& e) {
    this->exception(message, e, attributes);
  } catch (...) {
    log_exception(*this, message, detail::current_exception_type(), nullptr, attributes);
  }
}

}  // namespace waymark
