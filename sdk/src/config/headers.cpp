#include "config/headers.h"

#include <algorithm>
#include <array>

#include "base/header_rules.h"
#include "config/text.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

// What describes the body is the exporter's to say.
bool reserved(std::string_view name) {
  static constexpr std::array<std::string_view, 4> names{"content-encoding", "content-length", "content-type",
                                                         "transfer-encoding"};
  return std::find(names.begin(), names.end(), lower(name)) != names.end();
}

// Why this header must not be sent; empty where it may. Names the header where its name is one.
std::string problem(std::string_view name, std::string_view value, Protocol protocol) {
  if (!is_header_name(name)) return "has a name that HTTP does not allow (letters, digits and !#$%&'*+-.^_`|~)";
  if (!is_header_value(value)) return in_quotes(name) + " has a line end or another control character in its value";
  if (reserved(name)) return in_quotes(name) + " is set by Waymark itself; leave it out";
  return std::string(protocol == Protocol::grpc ? refused_by_grpc(name, value) : "");
}

}  // namespace

void put_header(HeaderList& headers, std::string name, std::string value) {
  std::erase_if(headers, [&](const auto& header) { return lower(header.first) == lower(name); });
  headers.emplace_back(std::move(name), std::move(value));
}

HeaderList checked_headers(const HeaderList& given, Protocol protocol) {
  HeaderList headers;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const auto& [name, value] = given[i];
    if (const std::string why = problem(name, value, protocol); !why.empty()) {
      throw Error(ErrorCode::invalid_header, "headers: entry " + std::to_string(i + 1) + " " + why);
    }
    put_header(headers, name, value);
  }
  return headers;
}

HeaderList parse_headers(const Environment::Found& variable, Environment& environment, Protocol protocol) {
  HeaderList headers;
  std::string_view rest = variable.text;
  for (std::size_t entry = 1;; ++entry) {
    const auto comma = rest.find(',');
    const auto pair = trimmed(rest.substr(0, comma));
    if (!pair.empty()) {
      const auto equals = pair.find('=');
      const auto name = trimmed(pair.substr(0, equals));
      const auto value =
          equals == std::string_view::npos ? std::nullopt : percent_decoded(trimmed(pair.substr(equals + 1)));
      // An entry without "=" may be a bare token: its text is not shown.
      const std::string why = value ? problem(name, *value, protocol) : "is no name=value, or has a bad percent-encoding";
      if (why.empty()) {
        put_header(headers, std::string(name), *value);
      } else {
        environment.warn(variable.name + ": entry " + std::to_string(entry) + " " + why +
                         ", and is skipped; write name=value,name=value with values percent-encoded");
      }
    }
    if (comma == std::string_view::npos) return headers;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace waymark::config
