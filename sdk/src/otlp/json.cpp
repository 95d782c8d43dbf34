#include "otlp/json.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <concepts>

#include "base/base64.h"
#include "otlp/schema.h"
#include "otlp/walk.h"
#include "otlp/writer.h"

namespace waymark::otlp {
namespace {

void append_integer(std::string& out, std::integral auto value) {
  std::array<char, 24> digits;
  out.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
}

void append_quoted_integer(std::string& out, std::integral auto value) {
  out += '"';
  append_integer(out, value);
  out += '"';
}

void append_json_double(std::string& out, double value) {
  const bool quote = !std::isfinite(value);
  if (quote) out += '"';
  append_double(out, value);
  if (quote) out += '"';
}

void append_key(std::string& out, std::string_view name, char& separator) {
  out += separator;
  separator = ',';
  out += '"';
  out += name;
  out += "\":";
}

// What one walk over a message finds of one field.
struct Found {
  std::size_t count = 0;
  std::string_view from;    // the message from its first occurrence on
  std::string_view bytes;   // the last one's content
  std::uint64_t scalar = 0;
};

const Rule* find_rule(const Shape& shape, field::Number number) {
  // Numbers ascend with few gaps, so the rule stands at its number or a little before.
  std::size_t i = std::min<std::size_t>(number, shape.rules.size());
  while (i > 0 && shape.rules[i - 1].number > number) --i;
  return i > 0 && shape.rules[i - 1].number == number ? &shape.rules[i - 1] : nullptr;
}

std::uint64_t read_scalar(const Walk& walk, Kind kind) {
  switch (wire_of(kind)) {
    case Wire::varint: return walk.varint();
    case Wire::fixed64: return walk.fixed64();
    case Wire::fixed32: return walk.fixed32();
    case Wire::bytes: break;
  }
  return 0;
}

std::string_view read_bytes(const Walk& walk, Kind kind) {
  if (kind == Kind::trace_id) return walk.id(16);
  if (kind == Kind::span_id) return walk.id(8);
  return walk.bytes();
}

// A member of a oneof takes the place of the one before it.
void forget_other_members(const Shape& shape, const Rule& rule, std::array<Found, kMaxRules>& found) {
  for (std::size_t i = 0; i < shape.rules.size(); ++i) {
    if (shape.rules[i].presence == Presence::oneof && &shape.rules[i] != &rule) found[i] = {};
  }
}

bool is_default(const Rule& rule, const Found& f) {
  switch (rule.kind) {
    case Kind::message: return false;
    // Of a varint only as many bits count as the field's type has.
    case Kind::int32:
    case Kind::sint32:
    case Kind::uint32: return static_cast<std::uint32_t>(f.scalar) == 0;
    default: return wire_of(rule.kind) == Wire::bytes ? f.bytes.empty() : f.scalar == 0;
  }
}

void append_message(std::string& out, std::string_view message, const Shape& shape, int depth);

// A number or a flag, by its bits.
void append_scalar(std::string& out, Kind kind, std::uint64_t scalar) {
  switch (kind) {
    case Kind::boolean: out += scalar != 0 ? "true" : "false"; return;
    case Kind::int64:
    case Kind::sfixed64: return append_quoted_integer(out, static_cast<std::int64_t>(scalar));
    case Kind::int32: return append_integer(out, static_cast<std::int32_t>(scalar));
    case Kind::sint32: {
      const auto zigzag = static_cast<std::uint32_t>(scalar);
      return append_integer(out, static_cast<std::int32_t>(zigzag >> 1 ^ (0u - (zigzag & 1))));
    }
    case Kind::uint32:
    case Kind::fixed32: return append_integer(out, static_cast<std::uint32_t>(scalar));
    case Kind::uint64:
    case Kind::fixed64: return append_quoted_integer(out, scalar);
    case Kind::float64: return append_json_double(out, std::bit_cast<double>(scalar));
    default: return;
  }
}

void append_single(std::string& out, const Rule& rule, const Found& f, int depth) {
  switch (rule.kind) {
    case Kind::text: return append_json_string(out, f.bytes);
    case Kind::bytes:
      out += '"';
      append_base64(out, f.bytes);
      out += '"';
      return;
    case Kind::trace_id:
    case Kind::span_id:
      out += '"';
      append_hex(out, f.bytes);
      out += '"';
      return;
    case Kind::message: break;
    default: return append_scalar(out, rule.kind, f.scalar);
  }
  if (f.count == 1) return append_message(out, f.bytes, *rule.shape, depth);
  // Parts of one message: protobuf merges them, which is what their bytes mean one after another.
  std::string merged;
  for (Walk walk(f.from, "message"); walk.next();) {
    if (walk.number() == rule.number) merged += walk.bytes();
  }
  append_message(out, merged, *rule.shape, depth);
}

void append_repeated(std::string& out, const Rule& rule, const Found& f, int depth) {
  char separator = '[';
  std::size_t left = f.count;
  for (Walk walk(f.from, "message"); left > 0 && walk.next();) {
    if (walk.number() != rule.number) continue;
    --left;
    out += separator;
    separator = ',';
    append_message(out, walk.bytes(), *rule.shape, depth);
  }
  out += ']';
}

// Nothing where there is none: an empty piece says as much as no piece.
void append_packed(std::string& out, const Shape& shape, const Rule& rule, const Found& f, char& separator) {
  char before = '[';
  const auto add = [&](std::uint64_t scalar) {
    if (before == '[') append_key(out, rule.name, separator);
    out += before;
    before = ',';
    append_scalar(out, rule.kind, scalar);
  };
  std::size_t left = f.count;
  for (Walk walk(f.from, shape.name); left > 0 && walk.next();) {
    if (walk.number() != rule.number) continue;
    --left;
    if (walk.wire() != Wire::bytes) {
      add(read_scalar(walk, rule.kind));
    } else {
      walk.for_each_packed(wire_of(rule.kind), add);
    }
  }
  if (before == ',') out += ']';
}

void append_message(std::string& out, std::string_view message, const Shape& shape, int depth) {
  std::array<Found, kMaxRules> found{};
  Walk walk(message, shape.name);
  if (&shape == &kAnyValueShape && ++depth > kMaxNesting) walk.fail("arrays and maps stand in one another too deep");
  while (walk.next()) {
    const Rule* rule = find_rule(shape, walk.number());
    if (!rule) continue;
    Found& f = found[static_cast<std::size_t>(rule - shape.rules.data())];
    if (rule->presence == Presence::packed) {
      // Its numbers are read when they are written.
    } else if (wire_of(rule->kind) == Wire::bytes) {
      f.bytes = read_bytes(walk, rule->kind);
    } else {
      f.scalar = read_scalar(walk, rule->kind);
    }
    if (rule->presence == Presence::oneof) forget_other_members(shape, *rule, found);
    if (f.count++ == 0) f.from = {walk.field().data(), walk.field().size() + walk.rest().size()};
  }
  char separator = '{';
  for (std::size_t i = 0; i < shape.rules.size(); ++i) {
    const Rule& rule = shape.rules[i];
    const Found& f = found[i];
    if (f.count == 0 || (rule.presence == Presence::implicit && is_default(rule, f))) continue;
    if (rule.presence == Presence::packed) {
      append_packed(out, shape, rule, f, separator);
      continue;
    }
    append_key(out, rule.name, separator);
    if (rule.presence == Presence::repeated) {
      append_repeated(out, rule, f, depth);
    } else {
      append_single(out, rule, f, depth);
    }
  }
  if (separator == '{') out += '{';
  out += '}';
}

// A value within an array or a map that is shown to people.
void append_plain(std::string& out, const AnyValue& value) {
  struct Visitor {
    std::string& out;
    void operator()(std::monostate) const { out += "null"; }
    void operator()(const std::string& s) const { append_json_string(out, s); }
    void operator()(bool b) const { out += b ? "true" : "false"; }
    void operator()(std::int64_t i) const { append_integer(out, i); }
    void operator()(double d) const { append_json_double(out, d); }
    void operator()(const std::vector<std::byte>& b) const {
      out += '"';
      append_base64(out, {reinterpret_cast<const char*>(b.data()), b.size()});
      out += '"';
    }
    void operator()(const AnyArray& array) const {
      char separator = '[';
      for (const AnyValue& v : array) {
        out += separator;
        separator = ',';
        append_plain(out, v);
      }
      if (array.empty()) out += '[';
      out += ']';
    }
    void operator()(const AnyMap& map) const {
      char separator = '{';
      for (const auto& [key, v] : map) {
        out += separator;
        separator = ',';
        append_json_string(out, key);
        out += ':';
        append_plain(out, v);
      }
      if (map.empty()) out += '{';
      out += '}';
    }
  };
  std::visit(Visitor{out}, value.value);
}

}  // namespace

void append_json(std::string& out, std::string_view message, const Shape& shape) {
  const std::size_t before = out.size();
  try {
    append_message(out, message, shape, 0);
  } catch (...) {
    out.resize(before);
    throw;
  }
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string scratch;
  text = clean(text, scratch);
  out += '"';
  std::size_t done = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, done, i - done);
    done = i + 1;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default: out.append({'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]}); break;
    }
  }
  out.append(text, done);
  out += '"';
}

void append_double(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value < 0 ? "-Infinity" : "Infinity";
  } else if (value == 0 && std::signbit(value)) {
    out += "-0.0";  // many read -0 as the integer, which has no sign
  } else {
    std::array<char, 32> digits;
    out.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
  }
}

void append_hex(std::string& out, std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const char c : bytes) {
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
}

}  // namespace waymark::otlp

namespace waymark {

std::string request_to_json(Signal signal, std::string_view protobuf) {
  std::string out;
  out.reserve(protobuf.size() * 2);
  otlp::append_message(out, protobuf, otlp::request_shape(signal), 0);
  return out;
}

std::string to_text(const AnyValue& value) {
  if (const auto* text = std::get_if<std::string>(&value.value)) return *text;
  std::string out;
  if (const auto* number = std::get_if<double>(&value.value)) {
    otlp::append_double(out, *number);
  } else if (const auto* bytes = std::get_if<std::vector<std::byte>>(&value.value)) {
    append_base64(out, {reinterpret_cast<const char*>(bytes->data()), bytes->size()});
  } else if (!std::holds_alternative<std::monostate>(value.value)) {
    otlp::append_plain(out, value);
  }
  return out;
}

}  // namespace waymark
