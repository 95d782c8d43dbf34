#include <bit>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "base/base64.h"
#include "otlp/json.h"
#include "otlp/schema.h"
#include "otlp/writer.h"
#include "waymark/error.h"

namespace waymark::otlp {
namespace {

using Json = nlohmann::json;

// Where in the line something stands, as a chain up the stack: resourceSpans[0].scopeSpans[1].spans[2].traceId
struct Place {
  const Place* outer;
  std::string_view name;  // of a file and line, or of a key
  std::optional<std::size_t> index = std::nullopt;

  [[nodiscard]] std::string text() const {
    std::string out = outer ? outer->text() + (outer->outer ? "." : ": ") : std::string();
    out += name;
    if (index) out += '[' + std::to_string(*index) + ']';
    return out;
  }
  [[noreturn]] void fail(const std::string& expected) const {
    throw Error(ErrorCode::corrupt, text() + ": expected " + expected);
  }
};

void append_varint(std::string& out, std::uint64_t value) {
  char bytes[10];
  out.append(bytes, static_cast<std::size_t>(put_varint(bytes, value) - bytes));
}

// JSON numbers and strings alike; 1.0 and 1e3 are integers too.
template <class Integer>
Integer read_integer(const Json& value, const Place& place, const char* expected) {
  if (value.is_number_unsigned() || value.is_number_integer()) {
    if (value.is_number_unsigned() && std::in_range<Integer>(value.get<std::uint64_t>())) {
      return static_cast<Integer>(value.get<std::uint64_t>());
    }
    if (!value.is_number_unsigned() && std::in_range<Integer>(value.get<std::int64_t>())) {
      return static_cast<Integer>(value.get<std::int64_t>());
    }
  } else if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    Integer number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  } else if (value.is_number_float()) {
    // Beyond 2^53 a double has no exact last digit, so a larger one is no integer that anybody meant.
    const double number = value.get<double>();
    if (std::trunc(number) == number && std::abs(number) <= 0x1p53 &&
        std::in_range<Integer>(static_cast<std::int64_t>(number))) {
      return static_cast<Integer>(static_cast<std::int64_t>(number));
    }
  }
  place.fail(expected);
}

double read_double(const Json& value, const Place& place) {
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
    if (text == "Infinity") return std::numeric_limits<double>::infinity();
    if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
    double number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size() && std::isfinite(number)) return number;
  }
  place.fail("a number, \"NaN\", \"Infinity\" or \"-Infinity\"");
}

const std::string& read_text(const Json& value, const Place& place, const char* expected = "a string") {
  if (!value.is_string()) place.fail(expected);
  return value.get_ref<const std::string&>();
}

std::string read_hex(const Json& value, const Place& place, std::size_t size) {
  const char* expected = size == 16 ? "32 hex digits or an empty string" : "16 hex digits or an empty string";
  const std::string& text = read_text(value, place, expected);
  if (text.empty()) return {};
  if (text.size() != 2 * size) place.fail(expected);
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned byte = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, byte, 16);
    if (error != std::errc() || end != text.data() + i + 2) place.fail(expected);
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

std::string read_base64(const Json& value, const Place& place) {
  auto bytes = from_base64(read_text(value, place, "base64"));
  if (!bytes) place.fail("base64");
  return std::move(*bytes);
}

std::string encode_message(const Json& object, const Shape& shape, const Place& place, int depth);

// One field's content, without its tag.
void append_content(std::string& out, const Rule& rule, const Json& value, const Place& place, int depth) {
  const auto append_bytes = [&](std::string_view bytes) {
    append_varint(out, bytes.size());
    out += bytes;
  };
  const auto append_fixed64 = [&](std::uint64_t number) {
    char bytes[8];
    put_fixed64(bytes, number);
    out.append(bytes, sizeof bytes);
  };
  switch (rule.kind) {
    case Kind::text: return append_bytes(read_text(value, place));
    case Kind::bytes: return append_bytes(read_base64(value, place));
    case Kind::trace_id: return append_bytes(read_hex(value, place, 16));
    case Kind::span_id: return append_bytes(read_hex(value, place, 8));
    case Kind::boolean:
      if (!value.is_boolean()) place.fail("true or false");
      return append_varint(out, value.get<bool>());
    case Kind::int64:
      return append_varint(out, static_cast<std::uint64_t>(read_integer<std::int64_t>(value, place, "an integer of 64 bits")));
    case Kind::int32: {
      const auto number = read_integer<std::int32_t>(value, place, "an integer of 32 bits");
      return append_varint(out, static_cast<std::uint64_t>(static_cast<std::int64_t>(number)));
    }
    case Kind::uint32:
      return append_varint(out, read_integer<std::uint32_t>(value, place, "an integer of 32 bits, 0 or more"));
    case Kind::uint64:
      return append_varint(out, read_integer<std::uint64_t>(value, place, "an integer of 64 bits, 0 or more"));
    case Kind::sint32: {
      const auto number = read_integer<std::int32_t>(value, place, "an integer of 32 bits");
      return append_varint(out, static_cast<std::uint32_t>(number) << 1 ^ static_cast<std::uint32_t>(number >> 31));
    }
    case Kind::sfixed64:
      return append_fixed64(static_cast<std::uint64_t>(read_integer<std::int64_t>(value, place, "an integer of 64 bits")));
    case Kind::fixed32: {
      char bytes[4];
      put_fixed32(bytes, read_integer<std::uint32_t>(value, place, "an integer of 32 bits, 0 or more"));
      out.append(bytes, sizeof bytes);
      return;
    }
    case Kind::fixed64:
      return append_fixed64(read_integer<std::uint64_t>(value, place, "an integer of 64 bits, 0 or more"));
    case Kind::float64: return append_fixed64(std::bit_cast<std::uint64_t>(read_double(value, place)));
    case Kind::message: return append_bytes(encode_message(value, *rule.shape, place, depth));
  }
}

std::string encode_message(const Json& object, const Shape& shape, const Place& place, int depth) {
  if (!object.is_object()) place.fail("an object");
  if (&shape == &kAnyValueShape && ++depth > kMaxNesting) place.fail("fewer arrays and maps in one another");
  std::string out;
  for (const Rule& rule : shape.rules) {
    const auto member = object.find(rule.name);
    if (member == object.end() || member->is_null()) continue;
    const std::uint64_t tag = std::uint64_t{rule.number} << 3 | static_cast<std::uint64_t>(wire_of(rule.kind));
    if (rule.presence == Presence::packed) {
      if (!member->is_array()) Place{&place, rule.name}.fail("an array");
      std::string numbers;
      std::size_t index = 0;
      for (const Json& element : *member) append_content(numbers, rule, element, {&place, rule.name, index++}, depth);
      append_varint(out, std::uint64_t{rule.number} << 3 | static_cast<std::uint64_t>(Wire::bytes));
      append_varint(out, numbers.size());
      out += numbers;
      continue;
    }
    if (rule.presence != Presence::repeated) {
      append_varint(out, tag);
      append_content(out, rule, *member, {&place, rule.name}, depth);
      continue;
    }
    if (!member->is_array()) Place{&place, rule.name}.fail("an array");
    std::size_t index = 0;
    for (const Json& element : *member) {
      append_varint(out, tag);
      append_content(out, rule, element, {&place, rule.name, index++}, depth);
    }
  }
  return out;
}

Json parse(std::string_view line, const Place& place) {
  try {
    return Json::parse(line);
  } catch (const Json::parse_error& error) {
    // Its own text quotes the line, which may hold anything.
    throw Error(ErrorCode::corrupt, place.text() + ": not JSON from byte " + std::to_string(error.byte) +
                                        " on; expected one OTLP JSON request a line");
  } catch (const Json::out_of_range&) {
    throw Error(ErrorCode::corrupt, place.text() + ": a number that is too large; expected one OTLP JSON request a line");
  }
}

void add_request(const Json& request, const Place& place, ReadTelemetry& into) {
  ReadTelemetry spans = read_request(Signal::traces, encode_message(request, request_shape(Signal::traces), place, 0));
  ReadTelemetry logs = read_request(Signal::logs, encode_message(request, request_shape(Signal::logs), place, 0));
  ReadTelemetry metrics = read_request(Signal::metrics, encode_message(request, request_shape(Signal::metrics), place, 0));
  into.metrics.insert(into.metrics.end(), std::make_move_iterator(metrics.metrics.begin()),
                      std::make_move_iterator(metrics.metrics.end()));
  into.spans.insert(into.spans.end(), std::make_move_iterator(spans.spans.begin()),
                    std::make_move_iterator(spans.spans.end()));
  into.logs.insert(into.logs.end(), std::make_move_iterator(logs.logs.begin()), std::make_move_iterator(logs.logs.end()));
}

bool blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

void read_json_line(std::string_view line, std::string_view place, ReadTelemetry& into) {
  const Place start{nullptr, place};
  add_request(parse(line, start), start, into);
}

}  // namespace waymark::otlp

namespace waymark {

ReadTelemetry read_json_file(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    throw Error(ErrorCode::not_found, path + ": there is no such file; expected a file of OTLP JSON lines");
  }
  if (status.type() == std::filesystem::file_type::directory) {
    throw Error(ErrorCode::io, path + ": is a directory; expected a file of OTLP JSON lines");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::io, path + ": can't be opened; is it readable for this user?");

  ReadTelemetry telemetry;
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (otlp::blank(line)) continue;
    // Without a line end it was still being written, or its writer died there.
    if (file.eof() && !nlohmann::json::accept(line)) break;
    otlp::read_json_line(line, path + ":" + std::to_string(number), telemetry);
  }
  if (file.bad()) throw Error(ErrorCode::io, path + ": could not be read to its end");
  return telemetry;
}

}  // namespace waymark
