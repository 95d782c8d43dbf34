// Unary gRPC calls over one connection that is kept.
//
// Hides: gRPC's framing, metadata, trailers and compression; HTTP/2 is http.h's.
// Threads: a client belongs to one thread at a time; abort() may be called from any other.
// Failure: the constructor throws Error for headers and TLS settings that can't work; call() returns a status, made from
//   what happened where the server sent none.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "transport/http.h"
#include "waymark/config.h"

namespace waymark::transport {

enum class GrpcStatus : std::uint8_t {
  ok = 0, cancelled = 1, unknown = 2, invalid_argument = 3, deadline_exceeded = 4, not_found = 5, already_exists = 6,
  permission_denied = 7, resource_exhausted = 8, failed_precondition = 9, aborted = 10, out_of_range = 11,
  unimplemented = 12, internal = 13, unavailable = 14, data_loss = 15, unauthenticated = 16,
};
[[nodiscard]] std::string_view grpc_status_name(GrpcStatus status) noexcept;  // "UNAVAILABLE"

struct GrpcSettings {
  std::string url;        // scheme, host and port; what stands behind them is not used
  std::string method;     // "/package.Service/Method"
  HeaderList headers = {};  // of the user, sent as metadata: names in lower case, the values of -bin names in base64
  std::chrono::nanoseconds timeout{0};  // of one call, connecting included; 0: no limit
  bool gzip = false;                    // of the request; a gzip response is always understood
  std::size_t max_response_bytes = 4 * 1024 * 1024;
  TlsConfig tls = {};
};

struct GrpcResponse {
  GrpcStatus status = GrpcStatus::ok;
  std::string message = {};  // the response, with ok
  std::string error = {};    // the server's words, or ours
  std::string details = {};  // google.rpc.Status, where the server sent one
  bool synthesized = false;  // the server sent no status; it was made from what happened
  bool calmed = false;       // the server reset the stream with ENHANCE_YOUR_CALM: too much at once
  Failure failure = Failure::none;  // where no whole response came
};

class GrpcClient {
 public:
  explicit GrpcClient(GrpcSettings settings);
  ~GrpcClient();
  GrpcClient(const GrpcClient&) = delete;
  GrpcClient& operator=(const GrpcClient&) = delete;

  // The request message is the pieces, back to back. The response is good until the next call.
  const GrpcResponse& call(std::span<const std::string_view> pieces);
  // From the next call on. Throws Error(invalid_header), with nothing changed.
  void replace_headers(const HeaderList& headers);
  // For good: what is under way and all that follows fail at once.
  void abort() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The pieces of gRPC that read what a server sent.

// One length-prefixed message, and nothing behind it. Empty error: `message` is its content, unpacked.
struct GrpcFrame {
  std::string message = {};
  std::string error = {};
  bool too_large = false;
};
[[nodiscard]] GrpcFrame read_grpc_frame(std::string_view body, std::string_view encoding, std::size_t max_bytes);
// Escapes that are none stay as they are.
[[nodiscard]] std::string percent_decoded(std::string_view text);
// "10000m": at most 8 digits and a unit, rounded up.
[[nodiscard]] std::string grpc_timeout(std::chrono::nanoseconds timeout);
// Where a server sent none.
[[nodiscard]] GrpcStatus grpc_status_of_http(int status) noexcept;
[[nodiscard]] GrpcStatus grpc_status_of_reset(std::uint32_t http2_error) noexcept;

}  // namespace waymark::transport
