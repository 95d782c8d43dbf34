#include "base/header_rules.h"

#include <strings.h>

#include <algorithm>

namespace waymark {
namespace {

bool alphanumeric(char c) noexcept {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool consists_of(std::string_view name, std::string_view marks) noexcept {
  return !name.empty() && std::ranges::all_of(name, [&](char c) { return alphanumeric(c) || marks.find(c) != std::string_view::npos; });
}

}  // namespace

bool is_header_name(std::string_view name) noexcept { return consists_of(name, "!#$%&'*+-.^_`|~"); }

bool is_header_value(std::string_view value) noexcept {
  return std::ranges::none_of(value, [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; });
}

std::string_view refused_by_grpc(std::string_view name, std::string_view value) noexcept {
  constexpr std::string_view kOwn = "grpc-";
  constexpr std::string_view kBinary = "-bin";
  if (!consists_of(name, "_.-")) return "has a name that gRPC does not allow (letters, digits, '_', '.' and '-')";
  if (name.size() >= kOwn.size() && ::strncasecmp(name.data(), kOwn.data(), kOwn.size()) == 0) {
    return "begins with grpc-, as gRPC's own do";
  }
  if (name.size() >= kBinary.size() && ::strncasecmp(name.data() + name.size() - kBinary.size(), kBinary.data(), kBinary.size()) == 0) {
    return {};  // sent in base64
  }
  // HTTP/2 would carry other bytes, gRPC does not.
  if (std::ranges::any_of(value, [](char c) { return c < 0x20 || c > 0x7e; })) {
    return "has a value that gRPC does not allow (printable ASCII; other bytes need a name that ends in -bin)";
  }
  return {};
}

}  // namespace waymark
