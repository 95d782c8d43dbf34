#include "otlp/edit.h"

#include "otlp/fields.h"
#include "otlp/reader.h"
#include "otlp/walk.h"
#include "otlp/writer.h"

namespace waymark::otlp {
namespace {

field::Number attributes_of(Signal signal) noexcept {
  return signal == Signal::logs ? field::log_record::kAttributes : field::span::kAttributes;
}

// All fields that are edited have numbers below 16, so one byte holds the tag.
constexpr char tag_of(field::Number number) noexcept {
  return static_cast<char>(number << 3 | static_cast<unsigned>(Wire::bytes));
}

std::string_view key_of(std::string_view entry) {
  std::string_view key;
  for (Walk walk(entry, "KeyValue"); walk.next();) {
    if (walk.number() == field::key_value::kKey) key = walk.bytes();
  }
  return key;
}

}  // namespace

const ReadSpan* Edit::span() const {
  if (signal_ != Signal::traces) return nullptr;
  if (!span_) {
    span_ = read_span(body());
    span_->scope = scope_;
  }
  return &*span_;
}

const ReadLog* Edit::log() const {
  if (signal_ != Signal::logs) return nullptr;
  if (!log_) {
    log_ = read_log(body());
    log_->scope = scope_;
  }
  return &*log_;
}

void Edit::set_attribute(std::string_view key, AnyValue value) {
  if (key.empty()) return;
  std::string encoded;
  append_attribute(encoded, tag_of(attributes_of(signal_)), key, value);
  replace_attribute(key, encoded);
}

void Edit::remove_attribute(std::string_view key) { replace_attribute(key, {}); }

void Edit::set_name(std::string_view name) {
  if (signal_ != Signal::traces) return;
  std::string scratch;
  replace_field(field::span::kName, clean(name, scratch));
}

void Edit::set_body(AnyValue value) {
  if (signal_ != Signal::logs) return;
  std::string encoded;
  append_any(encoded, value);
  replace_field(field::log_record::kBody, encoded);
}

// Puts `encoded` (a whole field) where the attribute stood first, else at the end; empty removes it.
void Edit::replace_attribute(std::string_view key, std::string_view encoded) {
  std::string scratch;
  key = clean(key, scratch);  // as it stands in the bytes
  std::string edited;
  edited.reserve(body().size() + encoded.size());
  bool found = false;
  for (Walk walk(body(), "record"); walk.next();) {
    if (walk.number() != attributes_of(signal_) || key_of(walk.bytes()) != key) {
      edited += walk.field();
    } else if (!found) {
      edited += encoded;
      found = true;
    }
  }
  if (!found) {
    if (encoded.empty()) return;
    edited += encoded;
  }
  replace(std::move(edited));
}

void Edit::replace_field(std::uint32_t number, std::string_view content) {
  std::string encoded(1 + varint_size(content.size()), '\0');
  encoded[0] = tag_of(number);
  put_varint(encoded.data() + 1, content.size());
  encoded += content;
  std::string edited;
  edited.reserve(body().size() + encoded.size());
  bool found = false;
  for (Walk walk(body(), "record"); walk.next();) {
    if (walk.number() != number) {
      edited += walk.field();
    } else if (!found) {
      edited += encoded;
      found = true;
    }
  }
  if (!found) edited += encoded;
  replace(std::move(edited));
}

void Edit::replace(std::string edited) {
  edited_ = std::move(edited);
  changed_ = true;
  span_.reset();
  log_.reset();
}

}  // namespace waymark::otlp
