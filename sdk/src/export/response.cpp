#include "export/response.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "otlp/walk.h"
#include "base/utf8.h"
#include "waymark/error.h"

namespace waymark::delivery {
namespace {

enum class Encoding : std::uint8_t { unknown, protobuf, json };

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

// The media type, without parameters such as charset.
Encoding encoding_of(std::string_view content_type) {
  std::string type = lower(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  if (type == "application/x-protobuf" || type == "application/protobuf") return Encoding::protobuf;
  if (type == "application/json") return Encoding::json;
  return Encoding::unknown;
}

struct PartialSuccess {
  std::int64_t rejected = 0;
  std::string message;
};

// Export<Signal>ServiceResponse{1: partial_success{1: rejected, 2: error_message}}, the same numbers for every signal.
PartialSuccess partial_success_of_protobuf(std::string_view body) {
  PartialSuccess found;
  otlp::Walk response(body, "Export response");
  while (response.next()) {
    if (response.number() != 1) continue;
    otlp::Walk partial(response.bytes(), "partial_success");
    while (partial.next()) {
      if (partial.number() == 1) found.rejected = static_cast<std::int64_t>(partial.varint());
      if (partial.number() == 2) found.message = partial.bytes();
    }
  }
  return found;
}

constexpr std::string_view kRetryInfo = "google.rpc.RetryInfo";  // the end of its type URL
constexpr std::int64_t kMostSeconds = 24 * 60 * 60;

std::chrono::nanoseconds delay_of(std::int64_t seconds, std::int64_t nanoseconds) noexcept {
  const std::chrono::nanoseconds delay = std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, kMostSeconds)) +
                                         std::chrono::nanoseconds(std::clamp<std::int64_t>(nanoseconds, 0, 999'999'999));
  return std::min<std::chrono::nanoseconds>(delay, std::chrono::seconds(kMostSeconds));
}

struct RpcStatus {
  std::string message;
  std::string code;  // where it is a word
  std::optional<std::chrono::nanoseconds> retry_delay;
};

// RetryInfo{1: Duration{1: seconds, 2: nanos}}
std::chrono::nanoseconds retry_delay_of_protobuf(std::string_view retry_info) {
  std::int64_t seconds = 0;
  std::int64_t nanoseconds = 0;
  otlp::Walk info(retry_info, "RetryInfo");
  while (info.next()) {
    if (info.number() != 1) continue;
    otlp::Walk duration(info.bytes(), "Duration");
    while (duration.next()) {
      if (duration.number() == 1) seconds = static_cast<std::int64_t>(duration.varint());
      if (duration.number() == 2) nanoseconds = static_cast<std::int64_t>(duration.varint());
    }
  }
  return delay_of(seconds, nanoseconds);
}

// google.rpc.Status{1: code, 2: message, 3: details of Any{1: type_url, 2: value}}; the code decides nothing. What stands
// before damage counts.
RpcStatus status_of_protobuf(std::string_view body) {
  RpcStatus found;
  try {
    otlp::Walk status(body, "Status");
    while (status.next()) {
      if (status.number() == 2) found.message = status.bytes();
      if (status.number() != 3) continue;
      std::string_view type;
      std::string_view value;
      otlp::Walk any(status.bytes(), "Any");
      while (any.next()) {
        if (any.number() == 1) type = any.bytes();
        if (any.number() == 2) value = any.bytes();
      }
      if (type.ends_with(kRetryInfo)) found.retry_delay = retry_delay_of_protobuf(value);
    }
  } catch (const Error&) {
    // Nobody vouches for these bytes.
  }
  return found;
}

// "3.5s"
std::optional<std::chrono::nanoseconds> retry_delay_of_json(std::string_view text) {
  std::int64_t seconds = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, seconds);
  if (error != std::errc()) return std::nullopt;
  std::string_view behind(rest, static_cast<std::size_t>(end - rest));
  if (!behind.ends_with('s')) return std::nullopt;
  behind.remove_suffix(1);
  std::int64_t nanoseconds = 0;
  if (behind.starts_with('.')) {
    std::string digits(behind.substr(1, 9));
    digits.resize(9, '0');
    const char* last = digits.data() + digits.size();
    if (std::from_chars(digits.data(), last, nanoseconds).ptr != last) return std::nullopt;
  } else if (!behind.empty()) {
    return std::nullopt;
  }
  return delay_of(seconds, nanoseconds);
}

// Reads JSON without building it: however deep or long the text, only what matters is kept.
class ResponseJson : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit ResponseJson(std::string_view rejected_key) : rejected_key_(rejected_key) {}

  PartialSuccess partial;
  RpcStatus status;

  bool null() override { return scalar(); }
  bool boolean(bool) override { return scalar(); }
  bool number_integer(number_integer_t value) override {
    if (in_partial() && key_ == rejected_key_) partial.rejected = value;
    return scalar();
  }
  bool number_unsigned(number_unsigned_t value) override {
    constexpr auto kMost = static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max());
    if (in_partial() && key_ == rejected_key_) partial.rejected = static_cast<std::int64_t>(std::min(value, kMost));
    return scalar();
  }
  bool number_float(number_float_t, const string_t&) override { return scalar(); }
  bool string(string_t& value) override {
    if (in_partial()) {
      if (key_ == "errorMessage") partial.message = value;
      if (key_ == rejected_key_) {
        std::int64_t number = 0;
        const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
        if (error == std::errc() && end == value.data() + value.size()) partial.rejected = number;
      }
    } else if (depth_ == 1 && !arrays_ && key_ == "message") {
      status.message = value;
    } else if (depth_ == 1 && !arrays_ && key_ == "code") {
      status.code = value;
    } else if (in_detail() && key_ == "@type") {
      detail_type_ = value;
    } else if (in_detail() && key_ == "retryDelay") {
      detail_delay_ = retry_delay_of_json(value);
    }
    return scalar();
  }
  bool binary(binary_t&) override { return scalar(); }
  bool start_object(std::size_t) override {
    ++depth_;
    if (depth_ == 2 && !arrays_ && key_ == "partialSuccess") partial_open_ = true;
    key_.clear();
    return true;
  }
  bool end_object() override {
    if (in_detail()) {
      if (detail_type_.ends_with(kRetryInfo) && detail_delay_) status.retry_delay = detail_delay_;
      detail_type_.clear();
      detail_delay_.reset();
    }
    if (depth_ == 2) partial_open_ = false;
    --depth_;
    key_.clear();
    return true;
  }
  bool key(string_t& value) override {
    key_ = value;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == 1 && !arrays_ && key_ == "details") details_open_ = true;
    ++arrays_;
    key_.clear();
    return true;
  }
  bool end_array() override {
    if (--arrays_ == 0) details_open_ = false;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  [[nodiscard]] bool in_partial() const { return partial_open_ && depth_ == 2 && arrays_ == 0; }
  [[nodiscard]] bool in_detail() const { return details_open_ && depth_ == 2 && arrays_ == 1; }
  bool scalar() {
    key_.clear();
    return true;
  }

  std::string_view rejected_key_;
  std::string key_;
  std::size_t depth_ = 0;
  std::size_t arrays_ = 0;
  bool partial_open_ = false;
  bool details_open_ = false;
  std::string detail_type_;
  std::optional<std::chrono::nanoseconds> detail_delay_;
};

struct Answer {
  PartialSuccess partial;
  RpcStatus status;
};

// A body is read for what its status makes it; one that can't be read says nothing.
Answer read(Signal signal, bool success, std::string_view content_type, std::string_view body) {
  const Encoding encoding = encoding_of(content_type);
  if (encoding == Encoding::protobuf) {
    if (!success) return {{}, status_of_protobuf(body)};
    try {
      return {partial_success_of_protobuf(body), {}};
    } catch (const Error&) {
      return {};
    }
  }
  if (encoding == Encoding::json) {
    constexpr std::string_view kRejectedKeys[] = {"rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"};
    ResponseJson reader(kRejectedKeys[static_cast<std::size_t>(signal)]);
    if (nlohmann::json::sax_parse(body, &reader)) return {std::move(reader.partial), std::move(reader.status)};
  }
  return {};
}

bool retryable(int status) noexcept { return status == 429 || status == 502 || status == 503 || status == 504; }

Refusal refusal_of(int status) noexcept {
  if (status == 401 || status == 403 || status == 407) return Refusal::unauthorized;  // 407: a proxy's credentials
  return status == 413 ? Refusal::too_large : Refusal::none;
}

void accept(Evaluation& result, const PartialSuccess& partial, const HeaderList& sent) {
  if (partial.rejected > 0) result.rejected = static_cast<std::uint64_t>(partial.rejected);
  result.message = printable(redacted(partial.message, sent));
}

// gRPC's servers refuse a message that is too large with RESOURCE_EXHAUSTED, as they do a client that is too fast; only
// their words differ.
bool speaks_of_size(std::string_view words) {
  const std::string text = lower(words);
  const auto says = [&](std::string_view what) { return text.find(what) != std::string::npos; };
  return says("larger than max") || says("too large") || (says("exceeds") && says("size"));
}

}  // namespace

std::string printable(std::string_view text, std::size_t characters) {
  // A character has at most four bytes, so this much decides, and a text of megabytes is not copied.
  std::string line = sanitized(text.substr(0, characters * 4));
  std::ranges::replace_if(line, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  const auto first = first_characters(line, characters);
  if (first.size() == line.size()) return line;
  return std::string(first) + "…";
}

std::string redacted(std::string_view text, const HeaderList& headers) {
  constexpr std::size_t kTooShortToBeSecret = 6;
  std::string out(text);
  const auto blot = [&out](std::string_view secret) {
    if (secret.size() < kTooShortToBeSecret) return;
    std::string clean;
    std::size_t from = 0;
    for (auto at = out.find(secret); at != std::string::npos; at = out.find(secret, from)) {
      clean.append(out, from, at - from).append("***");
      from = at + secret.size();
    }
    if (from > 0) out = clean.append(out, from);
  };
  for (const auto& [name, value] : headers) {
    blot(value);
    if (const auto space = value.rfind(' '); space != std::string::npos) blot(std::string_view(value).substr(space + 1));
  }
  return out;
}

Evaluation evaluate(Signal signal, int status, std::string_view content_type, std::string_view body, const HeaderList& sent) {
  Evaluation result;
  const bool success = status >= 200 && status < 300;
  const Answer answer = read(signal, success, content_type, body);
  if (success) {
    accept(result, answer.partial, sent);
    return result;
  }
  result.verdict = retryable(status) ? Outcome::retry : Outcome::rejected;
  result.refusal = refusal_of(status);
  result.message = printable(redacted(answer.status.message, sent));
  result.code = printable(answer.status.code, 64);
  result.retry_delay = answer.status.retry_delay;
  return result;
}

Evaluation evaluate_grpc(Signal signal, const transport::GrpcResponse& response, const HeaderList& sent) {
  using transport::GrpcStatus;
  Evaluation result;
  if (response.status == GrpcStatus::ok) {
    accept(result, read(signal, true, "application/x-protobuf", response.message).partial, sent);
    return result;
  }
  const RpcStatus details = status_of_protobuf(response.details);
  result.retry_delay = details.retry_delay;
  result.message = printable(redacted(response.error.empty() ? details.message : response.error, sent));
  result.verdict = Outcome::rejected;
  switch (response.status) {
    case GrpcStatus::cancelled:
    case GrpcStatus::deadline_exceeded:
    case GrpcStatus::aborted:
    case GrpcStatus::out_of_range:
    case GrpcStatus::unavailable:
    case GrpcStatus::data_loss: result.verdict = Outcome::retry; break;
    case GrpcStatus::resource_exhausted:
      // Without RetryInfo it is no request to wait: a quota, or a limit that these bytes would meet again.
      if (result.retry_delay || response.calmed) {
        result.verdict = Outcome::retry;
      } else if (!response.synthesized && speaks_of_size(response.error)) {
        result.refusal = Refusal::too_large;
      }
      break;
    case GrpcStatus::unauthenticated:
    case GrpcStatus::permission_denied: result.refusal = Refusal::unauthorized; break;
    default: break;
  }
  return result;
}

}  // namespace waymark::delivery
