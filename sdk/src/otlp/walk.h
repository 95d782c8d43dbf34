// A protobuf message's bytes, one field after another. Nothing is copied.
//
// Hides: tags, wire types and varints of untrusted bytes.
// Threads: a value over the caller's bytes.
// Failure: Error(corrupt) that names the message, the field and the byte. Fields that nobody asks for are skipped.
#pragma once

#include <cstdint>
#include <string_view>

namespace waymark::otlp {

enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

// How deep arrays and maps may stand in one another: what is deeper is an error for every reader here, so that untrusted
// bytes can't exhaust the stack.
inline constexpr int kMaxNesting = 100;

class Walk {
 public:
  // `message` is its name, for errors; it outlives the walk.
  Walk(std::string_view bytes, const char* message) noexcept
      : message_(message), begin_(bytes.data()), at_(begin_), end_(begin_ + bytes.size()) {}

  // To the next field; false at the end.
  [[nodiscard]] bool next();

  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  [[nodiscard]] Wire wire() const noexcept { return wire_; }
  // The field's content; another wire type than the one asked for is an error.
  [[nodiscard]] std::uint64_t varint() const { return scalar(Wire::varint); }
  [[nodiscard]] std::uint64_t fixed64() const { return scalar(Wire::fixed64); }
  [[nodiscard]] std::uint32_t fixed32() const { return static_cast<std::uint32_t>(scalar(Wire::fixed32)); }
  [[nodiscard]] double float64() const;
  [[nodiscard]] std::string_view bytes() const {
    expect(Wire::bytes);
    return content_;
  }
  // The numbers of a packed field, as bits; `wire` is what each is on its own.
  template <class Each>
  void for_each_packed(Wire wire, Each&& each) const {
    std::string_view left = bytes();
    const std::size_t size = wire == Wire::fixed64 ? 8 : wire == Wire::fixed32 ? 4 : 0;
    if (size != 0 && left.size() % size != 0) fail("packed numbers end in the middle of one");
    while (!left.empty()) each(size != 0 ? take_fixed(left, size) : take_varint(left));
  }
  // Exactly `size` bytes, or none (an id that is absent).
  [[nodiscard]] std::string_view id(std::size_t size) const;
  // The whole field with its tag, and what stands behind it.
  [[nodiscard]] std::string_view field() const noexcept { return {field_, static_cast<std::size_t>(at_ - field_)}; }
  [[nodiscard]] std::string_view rest() const noexcept { return {at_, static_cast<std::size_t>(end_ - at_)}; }

  [[noreturn]] void fail(const char* what) const;

 private:
  void expect(Wire wire) const {
    if (wire_ != wire) [[unlikely]] wrong_wire(wire);
  }
  [[nodiscard]] std::uint64_t scalar(Wire wire) const {
    expect(wire);
    return scalar_;
  }
  [[noreturn]] void wrong_wire(Wire expected) const;
  [[nodiscard]] static std::uint64_t take_fixed(std::string_view& left, std::size_t size) noexcept;
  [[nodiscard]] std::uint64_t take_varint(std::string_view& left) const;
  [[nodiscard]] std::uint64_t read_varint();

  const char* message_;
  const char* begin_;
  const char* at_;
  const char* end_;
  const char* field_ = nullptr;
  std::uint32_t number_ = 0;
  Wire wire_ = Wire::varint;
  std::uint64_t scalar_ = 0;
  std::string_view content_;
};

}  // namespace waymark::otlp
