#include "otlp/writer.h"

#include <charconv>

namespace waymark::otlp {
namespace {

// What a string value becomes on the wire; `scratch` holds it where it had to change.
std::string_view prepared(std::string_view text, const Limits& limits, std::string& scratch) {
  text = clean(text, scratch);
  if (text.size() > limits.attribute_value_length) text = first_characters(text, limits.attribute_value_length);
  return text;
}

// Decimal text of integers above int64's range.
struct Decimal {
  explicit Decimal(std::uint64_t v) noexcept : end(std::to_chars(digits, digits + sizeof digits, v).ptr) {}
  [[nodiscard]] std::string_view text() const noexcept { return {digits, static_cast<std::size_t>(end - digits)}; }
  char digits[20];
  char* end;
};

std::size_t size_string_any(std::string_view text, const Limits& limits) {
  if (ascii(text) && text.size() <= limits.attribute_value_length) [[likely]] return field_size(text.size());
  std::string scratch;
  return field_size(prepared(text, limits, scratch).size());
}
char* put_string_any(char* p, std::string_view text, const Limits& limits) {
  if (ascii(text) && text.size() <= limits.attribute_value_length) [[likely]] return put_field(p, 0x0a, text);
  std::string scratch;
  return put_field(p, 0x0a, prepared(text, limits, scratch));
}

// Calls `each` with every element as a Value.
template <class F>
void for_elements(const Value& value, F&& each) {
  const std::size_t n = value.size();
  switch (value.type()) {
    case Value::Type::values:
      for (std::size_t i = 0; i < n; ++i) each(static_cast<const Value*>(value.data())[i]);
      break;
    case Value::Type::strings:
      for (std::size_t i = 0; i < n; ++i) each(Value(static_cast<const std::string*>(value.data())[i]));
      break;
    case Value::Type::string_views:
      for (std::size_t i = 0; i < n; ++i) each(Value(static_cast<const std::string_view*>(value.data())[i]));
      break;
    case Value::Type::int64s:
      for (std::size_t i = 0; i < n; ++i) each(Value(static_cast<const std::int64_t*>(value.data())[i]));
      break;
    case Value::Type::float64s:
      for (std::size_t i = 0; i < n; ++i) each(Value(static_cast<const double*>(value.data())[i]));
      break;
    default:
      break;
  }
}

// Calls `each` with the entries of a map whose keys are not repeated later in it: the last value of a key wins.
template <class F>
void for_entries(const Value& map, F&& each) {
  const auto* entries = static_cast<const Attribute*>(map.data());
  for (std::size_t i = 0; i < map.size(); ++i) {
    bool last = true;
    for (std::size_t j = i + 1; j < map.size() && last; ++j) last = entries[j].key != entries[i].key;
    if (last) each(entries[i]);
  }
}

std::size_t size_elements(const Value& value, const Limits& limits, unsigned depth) {
  std::size_t bytes = 0;
  if (value.type() == Value::Type::map) {
    for_entries(value, [&](const Attribute& a) {
      std::string scratch;
      const std::size_t any = size_any(a.value, limits, depth + 1);
      bytes += field_size(field_size(clean(a.key, scratch).size()) + field_size(any));
    });
  } else {
    for_elements(value, [&](const Value& v) { bytes += field_size(size_any(v, limits, depth + 1)); });
  }
  return bytes;
}

}  // namespace

std::size_t size_any(const Value& value, const Limits& limits, unsigned depth) {
  switch (value.type()) {
    case Value::Type::empty:
      return 0;
    case Value::Type::string:
      return size_string_any(value.as_string(), limits);
    case Value::Type::boolean:
      return 2;
    case Value::Type::int64:
      return 1 + varint_size(static_cast<std::uint64_t>(value.as_int()));
    case Value::Type::uint64:
      return field_size(Decimal(static_cast<std::uint64_t>(value.as_int())).text().size());
    case Value::Type::float64:
      return 9;
    case Value::Type::bytes:
      return field_size(std::min<std::size_t>(value.size(), limits.attribute_value_length));
    default:
      if (depth > limits.attribute_value_depth) return 0;
      return field_size(size_elements(value, limits, depth));
  }
}

char* put_any(char* p, const Value& value, const Limits& limits, unsigned depth) {
  switch (value.type()) {
    case Value::Type::empty:
      return p;
    case Value::Type::string:
      return put_string_any(p, value.as_string(), limits);
    case Value::Type::boolean:
      *p++ = 0x10;
      *p++ = static_cast<char>(value.as_int());
      return p;
    case Value::Type::int64:
      *p++ = 0x18;
      return put_varint(p, static_cast<std::uint64_t>(value.as_int()));
    case Value::Type::uint64:
      return put_field(p, 0x0a, Decimal(static_cast<std::uint64_t>(value.as_int())).text());
    case Value::Type::float64:
      *p++ = 0x21;
      return put_fixed64(p, std::bit_cast<std::uint64_t>(value.as_double()));
    case Value::Type::bytes:
      return put_field(p, 0x3a, value.as_string().substr(0, std::min<std::size_t>(value.size(), limits.attribute_value_length)));
    default:
      break;
  }
  if (depth > limits.attribute_value_depth) return p;
  const bool map = value.type() == Value::Type::map;
  *p++ = map ? 0x32 : 0x2a;
  p = put_varint(p, size_elements(value, limits, depth));
  if (map) {
    for_entries(value, [&](const Attribute& a) {
      std::string scratch;
      const std::string_view key = clean(a.key, scratch);
      const std::size_t any = size_any(a.value, limits, depth + 1);
      *p++ = 0x0a;
      p = put_varint(p, field_size(key.size()) + field_size(any));
      p = put_field(p, 0x0a, key);
      *p++ = 0x12;
      p = put_varint(p, any);
      p = put_any(p, a.value, limits, depth + 1);
    });
  } else {
    for_elements(value, [&](const Value& v) {
      *p++ = 0x0a;
      p = put_varint(p, size_any(v, limits, depth + 1));
      p = put_any(p, v, limits, depth + 1);
    });
  }
  return p;
}

std::size_t size_attribute(std::string_view key, const Value& value, const Limits& limits) {
  return field_size(field_size(key.size()) + field_size(size_any(value, limits)));
}

char* put_attribute(char* p, char tag, std::string_view key, const Value& value, const Limits& limits) {
  const std::size_t any = size_any(value, limits);
  *p++ = tag;
  p = put_varint(p, field_size(key.size()) + field_size(any));
  p = put_field(p, 0x0a, key);
  *p++ = 0x12;
  p = put_varint(p, any);
  return put_any(p, value, limits);
}

void append_attribute(std::string& out, char tag, std::string_view key, const Value& value, const Limits& limits) {
  std::string scratch;
  key = clean(key, scratch);
  const std::size_t before = out.size();
  out.resize(before + size_attribute(key, value, limits));
  put_attribute(out.data() + before, tag, key, value, limits);
}

namespace {

void append_varint(std::string& out, std::uint64_t v) {
  char digits[10];
  out.append(digits, static_cast<std::size_t>(put_varint(digits, v) - digits));
}
void append_field(std::string& out, char tag, std::string_view bytes) {
  out.push_back(tag);
  append_varint(out, bytes.size());
  out.append(bytes);
}

}  // namespace

void append_any(std::string& out, const AnyValue& value) {
  struct Visitor {
    std::string& out;
    void operator()(std::monostate) const {}
    void operator()(const std::string& s) const {
      std::string scratch;
      append_field(out, 0x0a, clean(s, scratch));
    }
    void operator()(bool b) const { out.append({0x10, static_cast<char>(b)}); }
    void operator()(std::int64_t i) const {
      out.push_back(0x18);
      append_varint(out, static_cast<std::uint64_t>(i));
    }
    void operator()(double d) const {
      char bytes[8];
      put_fixed64(bytes, std::bit_cast<std::uint64_t>(d));
      out.push_back(0x21);
      out.append(bytes, 8);
    }
    void operator()(const std::vector<std::byte>& b) const {
      append_field(out, 0x3a, {reinterpret_cast<const char*>(b.data()), b.size()});
    }
    void operator()(const AnyArray& array) const {
      std::string inner;
      for (const AnyValue& v : array) {
        std::string any;
        append_any(any, v);
        append_field(inner, 0x0a, any);
      }
      append_field(out, 0x2a, inner);
    }
    void operator()(const AnyMap& map) const {
      std::string inner;
      for (const auto& [k, v] : map) append_attribute(inner, 0x0a, k, v);
      append_field(out, 0x32, inner);
    }
  };
  std::visit(Visitor{out}, value.value);
}

void append_attribute(std::string& out, char tag, std::string_view key, const AnyValue& value) {
  std::string scratch;
  std::string any;
  append_any(any, value);
  std::string entry;
  append_field(entry, 0x0a, clean(key, scratch));
  append_field(entry, 0x12, any);
  append_field(out, tag, entry);
}

}  // namespace waymark::otlp
