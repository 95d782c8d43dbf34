#include "transport/grpc.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "base/base64.h"
#include "base/header_rules.h"
#include "transport/gzip.h"
#include "waymark/error.h"

namespace waymark::transport {
namespace {

constexpr std::size_t kPrefix = 5;  // a flag and the message's length
constexpr std::uint32_t kEnhanceYourCalm = 11;

std::uint32_t length_of(std::string_view prefix) noexcept {
  std::uint32_t length = 0;
  for (std::size_t i = 1; i < kPrefix; ++i) length = length << 8 | static_cast<unsigned char>(prefix[i]);
  return length;
}

std::array<char, kPrefix> prefix_of(bool compressed, std::size_t size) noexcept {
  return {static_cast<char>(compressed), static_cast<char>(size >> 24 & 0xff), static_cast<char>(size >> 16 & 0xff),
          static_cast<char>(size >> 8 & 0xff), static_cast<char>(size & 0xff)};
}

// The announced length decides, before the message is there. A proxy's page announces none.
bool acceptable(std::string_view content_type, std::string_view body, std::size_t max_bytes) noexcept {
  return body.size() < kPrefix || !content_type.starts_with("application/grpc") || length_of(body) <= max_bytes;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

// The user's headers as metadata, and gRPC's own behind them.
HeaderList metadata_of(const HeaderList& given, const GrpcSettings& settings) {
  HeaderList metadata;
  for (const auto& [name, value] : given) {
    if (const auto why = refused_by_grpc(name, value); !why.empty()) {
      throw Error(ErrorCode::invalid_header,
                  "headers: the one that has " + std::to_string(name.size()) + " bytes of name " + std::string(why));
    }
    std::string key = lower(name);
    std::string text;
    if (key.ends_with("-bin")) {
      append_base64(text, value);
      while (text.ends_with('=')) text.pop_back();
    } else {
      text = value;
    }
    metadata.emplace_back(std::move(key), std::move(text));
  }
  metadata.emplace_back("grpc-accept-encoding", "identity,gzip");
  if (settings.gzip) metadata.emplace_back("grpc-encoding", "gzip");
  if (settings.timeout.count() > 0) metadata.emplace_back("grpc-timeout", grpc_timeout(settings.timeout));
  return metadata;
}

// Scheme, host and port.
std::string_view origin_of(std::string_view url) {
  const auto scheme = url.find("://");
  const auto host = scheme == std::string_view::npos ? 0 : scheme + 3;
  return url.substr(0, url.find_first_of("/?#", host));
}

HttpSettings http_settings(const GrpcSettings& settings) {
  return {.url = std::string(origin_of(settings.url)) + settings.method,
          .headers = metadata_of(settings.headers, settings),
          .content_type = "application/grpc+proto",
          .timeout = settings.timeout,
          .gzip = false,
          .max_response_bytes = kPrefix + settings.max_response_bytes,
          .tls = settings.tls,
          .grpc = true,
          .acceptable = [limit = settings.max_response_bytes](std::string_view type, std::string_view body) {
            return acceptable(type, body, limit);
          }};
}

GrpcStatus status_of_failure(const HttpResponse& response) noexcept {
  switch (response.failure) {
    case Failure::aborted: return GrpcStatus::cancelled;
    case Failure::timeout: return GrpcStatus::deadline_exceeded;
    case Failure::too_large: return GrpcStatus::resource_exhausted;
    case Failure::unusable:
    case Failure::unreadable: return GrpcStatus::internal;
    case Failure::closed: return response.reset ? grpc_status_of_reset(*response.reset) : GrpcStatus::unavailable;
    case Failure::none:
    case Failure::not_http:
    case Failure::connect: break;
  }
  return GrpcStatus::unavailable;
}

const std::string* field(const HttpResponse& response, std::string_view name) {
  const std::string* found = nullptr;
  for (const auto& [key, value] : response.grpc_fields) {
    if (key == name) found = &value;  // a trailer stands behind the header of the same name
  }
  return found;
}

// A number that is no known status is UNKNOWN; nothing for what is no number.
std::optional<GrpcStatus> read_status(const std::string* text) noexcept {
  if (!text) return std::nullopt;
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size()) return GrpcStatus::unknown;
  if (number > static_cast<unsigned>(GrpcStatus::unauthenticated)) return GrpcStatus::unknown;
  return static_cast<GrpcStatus>(number);
}

}  // namespace

std::string_view grpc_status_name(GrpcStatus status) noexcept {
  constexpr std::string_view kNames[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
      "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
      "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  return kNames[static_cast<std::size_t>(status)];
}

GrpcFrame read_grpc_frame(std::string_view body, std::string_view encoding, std::size_t max_bytes) {
  if (body.empty()) return {.error = "the server says OK and sent no response message"};
  if (body.size() < kPrefix) return {.error = "the response message ends within its prefix"};
  const auto flag = static_cast<unsigned char>(body[0]);
  const std::size_t length = length_of(body);
  const std::string_view content = body.substr(kPrefix);
  if (length > max_bytes) {
    return {.error = "the response message is larger than " + std::to_string(max_bytes) + " bytes", .too_large = true};
  }
  if (content.size() < length) return {.error = "the response message is shorter than its prefix says"};
  if (content.size() > length) return {.error = "more than one response message came"};
  if (flag == 0) return {.message = std::string(content)};
  if (flag > 1) return {.error = "the response message's flag is neither 0 nor 1"};
  if (encoding.empty() || encoding == "identity") {
    return {.error = "the response message is compressed, and nothing says how"};
  }
  if (encoding != "gzip") return {.error = "the response message is compressed in another way than gzip"};
  GrpcFrame frame;
  switch (gunzip(content, max_bytes, frame.message)) {
    case Unpacked::whole: break;
    case Unpacked::damaged: frame.error = "the response message says gzip and is none"; break;
    case Unpacked::too_large:
      frame.error = "the response message is larger than " + std::to_string(max_bytes) + " bytes once unpacked";
      frame.too_large = true;
      break;
  }
  if (!frame.error.empty()) frame.message.clear();
  return frame;
}

std::string percent_decoded(std::string_view text) {
  const auto digit = [&](std::size_t i) -> int {
    if (i >= text.size()) return -1;
    const char c = text[i];
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' ? digit(i + 1) : -1;
    const int low = high >= 0 ? digit(i + 2) : -1;
    if (low >= 0) {
      out += static_cast<char>(high << 4 | low);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string grpc_timeout(std::chrono::nanoseconds timeout) {
  constexpr std::int64_t kMost = 99'999'999;
  struct Unit {
    std::int64_t nanoseconds;
    char letter;
  };
  // Milliseconds say every timeout that anybody writes; the finer units are for what would be none in them.
  constexpr Unit kUnits[] = {{1'000'000, 'm'}, {1'000'000'000, 'S'}, {60'000'000'000, 'M'}, {3'600'000'000'000, 'H'}};
  const std::int64_t count = std::max<std::int64_t>(1, timeout.count());
  for (const auto& [nanoseconds, letter] : kUnits) {
    const std::int64_t number = count / nanoseconds + (count % nanoseconds != 0 ? 1 : 0);
    if (number <= kMost) return std::to_string(number) + letter;
  }
  return std::to_string(kMost) + 'H';
}

GrpcStatus grpc_status_of_http(int status) noexcept {
  switch (status) {
    case 400:
    case 431: return GrpcStatus::internal;
    case 401: return GrpcStatus::unauthenticated;
    case 403: return GrpcStatus::permission_denied;
    case 404: return GrpcStatus::unimplemented;
    case 429:
    case 502:
    case 503:
    case 504: return GrpcStatus::unavailable;
    default: return GrpcStatus::unknown;
  }
}

GrpcStatus grpc_status_of_reset(std::uint32_t http2_error) noexcept {
  switch (http2_error) {
    case 7: return GrpcStatus::unavailable;  // REFUSED_STREAM
    case 8: return GrpcStatus::cancelled;    // CANCEL
    case kEnhanceYourCalm: return GrpcStatus::resource_exhausted;
    case 12: return GrpcStatus::permission_denied;  // INADEQUATE_SECURITY
    default: return GrpcStatus::internal;
  }
}

struct GrpcClient::State {
  explicit State(GrpcSettings given) : settings(std::move(given)), http(http_settings(settings)) {
    if (settings.gzip) gzip.emplace();
  }

  GrpcSettings settings;
  HttpClient http;
  std::optional<Gzip> gzip;
  std::vector<std::string_view> framed;
  GrpcResponse response;
};

GrpcClient::GrpcClient(GrpcSettings settings) : state_(std::make_unique<State>(std::move(settings))) {}
GrpcClient::~GrpcClient() = default;

const GrpcResponse& GrpcClient::call(std::span<const std::string_view> pieces) {
  State& s = *state_;
  std::string_view packed;
  if (s.gzip) {
    packed = s.gzip->compress(pieces);
    pieces = std::span(&packed, 1);
  }
  std::size_t size = 0;
  for (const auto piece : pieces) size += piece.size();
  const auto prefix = prefix_of(s.gzip.has_value(), size);
  s.framed.assign(1, std::string_view(prefix.data(), prefix.size()));
  s.framed.insert(s.framed.end(), pieces.begin(), pieces.end());

  const HttpResponse& http = s.http.post(s.framed);
  s.response = {.failure = http.failure};
  GrpcResponse& response = s.response;
  const auto status = read_status(field(http, "grpc-status"));
  // A status that came stands, whatever became of the stream behind it; one beside a message that is torn does not.
  if (status && (http.failure == Failure::none || (*status != GrpcStatus::ok && http.failure == Failure::closed))) {
    response.failure = Failure::none;
    response.status = *status;
    if (const auto* text = field(http, "grpc-message")) response.error = percent_decoded(*text);
    if (const auto* details = field(http, "grpc-status-details-bin")) {
      response.details = from_base64(*details).value_or(std::string());
    }
    if (response.status != GrpcStatus::ok) return response;
    const auto* given = field(http, "grpc-encoding");
    const std::string_view encoding = given ? std::string_view(*given) : std::string_view();
    GrpcFrame frame = read_grpc_frame(http.body, encoding, s.settings.max_response_bytes);
    if (frame.error.empty()) {
      response.message = std::move(frame.message);
      response.error.clear();
    } else {
      response.status = frame.too_large ? GrpcStatus::resource_exhausted : GrpcStatus::internal;
      response.synthesized = true;
      response.error = std::move(frame.error);
      if (frame.too_large) response.failure = Failure::too_large;
    }
    return response;
  }
  response.synthesized = true;
  if (http.failure == Failure::none && http.status == 200 && http.content_type.starts_with("application/grpc")) {
    // To libcurl a connection that ends within an HTTP/2 response is the end of it.
    response.status = GrpcStatus::unavailable;
    response.failure = Failure::closed;
    response.error = "the response ended before its status";
  } else if (http.failure == Failure::none) {
    response.status = grpc_status_of_http(http.status);
    response.error = "HTTP " + std::to_string(http.status) + " without a gRPC status";
    if (http.status >= 300 && http.status < 400) {
      response.error += " (redirects are not followed; set the endpoint to the final URL)";
    }
  } else {
    response.status = status_of_failure(http);
    response.calmed = http.reset == kEnhanceYourCalm;
    response.error = http.error;
  }
  return response;
}

void GrpcClient::replace_headers(const HeaderList& headers) {
  state_->http.replace_headers(metadata_of(headers, state_->settings));
}

void GrpcClient::abort() noexcept { state_->http.abort(); }

}  // namespace waymark::transport
