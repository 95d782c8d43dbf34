// HTTP POST to one URL over one connection that is kept.
//
// Hides: libcurl, gzip, TLS, proxies, and how a request that hangs in the resolver or in the server is given up at once.
// Threads: a client belongs to one thread at a time; abort() may be called from any other. The proxy's environment
//   variables are read by the constructor, and never again.
// Failure: the constructor throws Error for headers and TLS settings that can't work; post() returns what went wrong. No
//   message holds a header's value or what stands before the @ of a proxy.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "waymark/config.h"

namespace waymark::transport {

// libcurl's process-wide part. To be called before the first exit handler is registered, since OpenSSL's own handler
// must not run first; later calls do nothing.
void initialize() noexcept;

// Whether a URL can be requested: http or https, with a host.
[[nodiscard]] bool is_http_url(const std::string& url);
// Throws Error where a file is not there or is no PEM, or the settings contradict each other.
void check(const TlsConfig& tls);

// What kept a response from arriving whole.
enum class Failure : std::uint8_t {
  none,
  aborted,   // by abort()
  connect,   // no connection: name not resolved, refused, TLS not agreed, no HTTP/2 where it is needed
  timeout,
  closed,    // the connection ended without a response, or within one that said success
  too_large, // the response's header or body passed its limit, before or after decompression
  unreadable,  // the body of a response that said success could not be decompressed
  not_http,  // what came was no HTTP response
  unusable,  // the URL can't be requested
};

struct HttpSettings {
  std::string url;           // requested as it is, byte for byte
  HeaderList headers = {};   // of the user; Content-* and what frames the message are ours
  std::string content_type;
  std::chrono::nanoseconds timeout{0};  // of one request, connecting included; 0: no limit
  bool gzip = false;                    // of the request; a gzip response is always understood
  std::size_t max_response_bytes = 4 * 1024 * 1024;
  TlsConfig tls = {};                   // of https
  // What gRPC needs of HTTP: HTTP/2 or nothing (with prior knowledge where there is no TLS), a proxy only as a tunnel, no
  // compression but its own, and the response's fields.
  bool grpc = false;
  // Asked as the response's body grows, of what there is by then; false ends the request as too large.
  std::function<bool(std::string_view content_type, std::string_view body)> acceptable = {};
};

struct HttpResponse {
  Failure failure = Failure::none;
  int status = 0;             // with Failure::none; a refusal (3xx to 5xx) stands though its body is torn or unreadable
  std::string content_type;
  std::string body;
  std::optional<std::chrono::seconds> retry_after;
  std::string error;          // for people, with a failure
  HeaderList grpc_fields;     // with HttpSettings::grpc: header and trailer fields named grpc-*, in lower case
  std::optional<std::uint32_t> reset;  // with Failure::closed: HTTP/2's error code, where the server reset the stream
};

class HttpClient {
 public:
  explicit HttpClient(HttpSettings settings);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // The body is the pieces, back to back; they must stay until the return. The response is good until the next post.
  const HttpResponse& post(std::span<const std::string_view> pieces);
  // From the next post on. Throws Error(invalid_header), with nothing changed.
  void replace_headers(HeaderList headers);
  // For good: what is under way and all that follows fail at once. No resolver thread is waited for.
  void abort() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Retry-After: seconds, or an HTTP-date (one that is past means 0). Nothing for what is neither. At most a day.
[[nodiscard]] std::optional<std::chrono::seconds> parse_retry_after(std::string_view value, std::time_t now);

}  // namespace waymark::transport
