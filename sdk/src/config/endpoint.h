// Endpoints: what people write, and the URL that is requested.
//
// Hides: URL syntax (libcurl's parser decides what is a URL), where /v1/traces and /v1/logs belong, what of a URL is
//   secret.
// Threads: pure functions.
// Failure: Error(invalid_endpoint) that names `key`, shows the value without userinfo and query, and says what to
//   write.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "waymark/config.h"

namespace waymark::config {

// How a URL's path is read.
enum class PathRule : std::uint8_t {
  base_or_complete,  // arguments, OTEL_TRACES_ENDPOINT: /v1/... is added unless it is there
  base,              // OTEL_EXPORTER_OTLP_ENDPOINT: /v1/... is added
  as_it_is,          // OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: nothing is added
  target,            // gRPC: scheme, host and port, which is 4317 where none is written; a path has no meaning
};

struct Endpoint {
  Output output = Output::otlp;
  std::string url;            // otlp: complete, without userinfo; the path as it was written, byte for byte
  std::string path;           // file
  std::string authorization;  // "Basic ..." made of the URL's userinfo; a secret; empty where there was none
  std::string name;           // the destination's default name: no userinfo, no query, no /v1/...
  std::string origin;         // otlp: scheme://host:port, for comparison
  bool path_ignored = false;  // PathRule::target: there was a path or a query, which is not sent
};

// For messages, in quotes and without userinfo and query: an endpoint as it is `written` with variables, which becomes
// `text`.
[[nodiscard]] std::string shown_endpoint(std::string_view written, std::string_view text);

// Nothing where the text is blank. `key` is the argument's or the variable's name.
[[nodiscard]] std::optional<Endpoint> parse_endpoint(std::string_view text, Signal signal, PathRule rule,
                                                     std::string_view key);
// The same for gRPC, by PathRule::target. Without a scheme, `insecure` decides between http and https.
[[nodiscard]] std::optional<Endpoint> parse_grpc_endpoint(std::string_view text, Signal signal, bool insecure,
                                                          std::string_view key);

}  // namespace waymark::config
