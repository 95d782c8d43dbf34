#include "otlp/walk.h"

#include <bit>
#include <cstring>
#include <protozero/exception.hpp>
#include <protozero/varint.hpp>
#include <string>

#include "waymark/error.h"

namespace waymark::otlp {
namespace {

constexpr std::uint32_t kMaxFieldNumber = (1u << 29) - 1;

const char* name_of(Wire wire) noexcept {
  switch (wire) {
    case Wire::varint: return "a varint";
    case Wire::fixed64: return "eight bytes";
    case Wire::bytes: return "a length and bytes";
    case Wire::fixed32: return "four bytes";
  }
  return "nothing known";
}

}  // namespace

bool Walk::next() {
  if (at_ == end_) return false;
  field_ = at_;
  number_ = 0;
  const std::uint64_t tag = read_varint();
  if (tag >> 3 == 0 || tag >> 3 > kMaxFieldNumber) fail("no field has this number");
  number_ = static_cast<std::uint32_t>(tag >> 3);
  wire_ = static_cast<Wire>(tag & 7);
  const auto left = [this] { return static_cast<std::uint64_t>(end_ - at_); };
  switch (wire_) {
    case Wire::varint:
      scalar_ = read_varint();
      return true;
    case Wire::fixed64:
      if (left() < 8) fail("the bytes end in the middle of a field");
      std::memcpy(&scalar_, at_, 8);
      at_ += 8;
      return true;
    case Wire::fixed32: {
      if (left() < 4) fail("the bytes end in the middle of a field");
      std::uint32_t value;
      std::memcpy(&value, at_, 4);
      scalar_ = value;
      at_ += 4;
      return true;
    }
    case Wire::bytes: {
      const std::uint64_t size = read_varint();
      if (size > left()) fail("a field is longer than what contains it");
      content_ = {at_, static_cast<std::size_t>(size)};
      at_ += size;
      return true;
    }
  }
  fail("the wire type is unknown");
}

std::uint64_t Walk::read_varint() {
  try {
    return protozero::decode_varint(&at_, end_);
  } catch (const protozero::exception&) {
    fail("a varint does not end");
  }
}

double Walk::float64() const { return std::bit_cast<double>(fixed64()); }

std::string_view Walk::id(std::size_t size) const {
  const std::string_view id = bytes();
  if (!id.empty() && id.size() != size) fail(size == 16 ? "a trace id has 16 bytes" : "a span id has 8 bytes");
  return id;
}

void Walk::wrong_wire(Wire expected) const {
  fail((std::string("expected ") + name_of(expected) + ", found " + name_of(wire_)).c_str());
}

void Walk::fail(const char* what) const {
  std::string text = "these bytes are not OTLP: ";
  text += message_;
  if (number_ != 0) text += ", field " + std::to_string(number_);
  text += ", byte " + std::to_string((field_ ? field_ : begin_) - begin_);
  text += ": ";
  text += what;
  throw Error(ErrorCode::corrupt, text);
}

std::uint64_t Walk::take_fixed(std::string_view& left, std::size_t size) noexcept {
  std::uint64_t value = 0;
  std::memcpy(&value, left.data(), size);
  left.remove_prefix(size);
  return value;
}

std::uint64_t Walk::take_varint(std::string_view& left) const {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !left.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(left.front());
    left.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  fail("a packed varint has no end");
}

}  // namespace waymark::otlp
