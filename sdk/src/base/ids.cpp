// Trace and span ids as text: lower-case hex, as every W3C header and OTLP JSON writes them.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "waymark/propagation.h"

namespace waymark {
namespace {

template <std::size_t N>
std::string to_hex(const std::array<std::uint8_t, N>& bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text(2 * N, '0');
  for (std::size_t i = 0; i < N; ++i) {
    text[2 * i] = digits[bytes[i] >> 4];
    text[2 * i + 1] = digits[bytes[i] & 0x0f];
  }
  return text;
}

// The digit's value, or -1. Upper case is refused: W3C allows HEXDIGLC only.
constexpr int digit_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

template <std::size_t N>
bool read_hex(std::string_view text, std::array<std::uint8_t, N>& bytes) noexcept {
  if (text.size() != 2 * N) return false;
  for (std::size_t i = 0; i < N; ++i) {
    const int high = digit_value(text[2 * i]);
    const int low = digit_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return true;
}

}  // namespace

std::string TraceId::hex() const { return to_hex(bytes); }

std::optional<TraceId> TraceId::from_hex(std::string_view text) noexcept {
  TraceId id;
  if (!read_hex(text, id.bytes)) return std::nullopt;
  return id;
}

std::string SpanId::hex() const { return to_hex(bytes); }

std::optional<SpanId> SpanId::from_hex(std::string_view text) noexcept {
  SpanId id;
  if (!read_hex(text, id.bytes)) return std::nullopt;
  return id;
}

}  // namespace waymark
