// HTTP POST to one URL over one connection that is kept.
//
// Hides: libcurl, gzip, and how a request that hangs in the resolver or in the server is given up at once.
// Threads: a client belongs to one thread at a time; abort() may be called from any other.
// Failure: the constructor throws Error(invalid_header); post() returns what went wrong. No message holds a header's value.
#pragma once

#include <chrono>
#include <cstddef>
#include <ctime>
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

// What kept a response from arriving whole.
enum class Failure : std::uint8_t {
  none,
  aborted,   // by abort()
  connect,   // no connection: name not resolved, refused, TLS not agreed
  timeout,
  closed,    // the connection ended without a response, or within one that said success
  too_large, // the response's header or body passed its limit, before or after decompression
  not_http,  // what came was no HTTP response, or its body could not be decompressed
  unusable,  // the URL can't be requested
};

struct HttpSettings {
  std::string url;           // requested as it is, byte for byte
  HeaderList headers;        // of the user; Content-* and what frames the message are ours
  std::string content_type;
  std::chrono::nanoseconds timeout{0};  // of one request, connecting included; 0: no limit
  bool gzip = false;                    // of the request; a gzip response is always understood
  std::size_t max_response_bytes = 4 * 1024 * 1024;
};

struct HttpResponse {
  Failure failure = Failure::none;
  int status = 0;             // with Failure::none; a refusal (3xx to 5xx) stands though its body was torn
  std::string content_type;
  std::string body;
  std::optional<std::chrono::seconds> retry_after;
  std::string error;          // for people, with a failure
};

class HttpClient {
 public:
  explicit HttpClient(HttpSettings settings);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // The body is the pieces, back to back; they must stay until the return. The response is good until the next post.
  const HttpResponse& post(std::span<const std::string_view> pieces);
  // For good: what is under way and all that follows fail at once. No resolver thread is waited for.
  void abort() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Retry-After: seconds, or an HTTP-date (one that is past means 0). Nothing for what is neither. At most a day.
[[nodiscard]] std::optional<std::chrono::seconds> parse_retry_after(std::string_view value, std::time_t now);

}  // namespace waymark::transport
