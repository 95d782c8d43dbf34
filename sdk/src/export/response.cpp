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

// The media type, without parameters such as charset.
Encoding encoding_of(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  std::ranges::transform(type, type.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
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

// google.rpc.Status{1: code, 2: message, 3: details}
std::string message_of_protobuf(std::string_view body) {
  std::string message;
  otlp::Walk status(body, "Status");
  while (status.next()) {
    if (status.number() == 2) message = status.bytes();
  }
  return message;
}

// Reads JSON without building it: however deep or long the text, only the four texts that matter are kept.
class ResponseJson : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit ResponseJson(std::string_view rejected_key) : rejected_key_(rejected_key) {}

  PartialSuccess partial;
  std::string status_message;
  std::string status_code;

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
      status_message = value;
    } else if (depth_ == 1 && !arrays_ && key_ == "code") {
      status_code = value;
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
    ++arrays_;
    key_.clear();
    return true;
  }
  bool end_array() override {
    --arrays_;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  [[nodiscard]] bool in_partial() const { return partial_open_ && depth_ == 2 && arrays_ == 0; }
  bool scalar() {
    key_.clear();
    return true;
  }

  std::string_view rejected_key_;
  std::string key_;
  std::size_t depth_ = 0;
  std::size_t arrays_ = 0;
  bool partial_open_ = false;
};

struct Answer {
  PartialSuccess partial;
  std::string status_message;
  std::string status_code = {};
};

// A body is read for what its status makes it; one that can't be read says nothing.
Answer read(Signal signal, bool success, std::string_view content_type, std::string_view body) {
  const Encoding encoding = encoding_of(content_type);
  if (encoding == Encoding::protobuf) {
    try {
      if (success) return {partial_success_of_protobuf(body), {}};
      return {{}, message_of_protobuf(body)};
    } catch (const Error&) {
      return {};
    }
  }
  if (encoding == Encoding::json) {
    constexpr std::string_view kRejectedKeys[] = {"rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"};
    ResponseJson reader(kRejectedKeys[static_cast<std::size_t>(signal)]);
    if (nlohmann::json::sax_parse(body, &reader)) {
      return {std::move(reader.partial), std::move(reader.status_message), std::move(reader.status_code)};
    }
  }
  return {};
}

bool retryable(int status) noexcept { return status == 429 || status == 502 || status == 503 || status == 504; }

}  // namespace

std::string printable(std::string_view text, std::size_t characters) {
  // A character has at most four bytes, so this much decides, and a text of megabytes is not copied.
  std::string line = sanitized(text.substr(0, characters * 4));
  std::ranges::replace_if(line, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  const auto first = first_characters(line, characters);
  if (first.size() == line.size()) return line;
  return std::string(first) + "…";
}

Evaluation evaluate(Signal signal, int status, std::string_view content_type, std::string_view body) {
  Evaluation result;
  const bool success = status >= 200 && status < 300;
  const Answer answer = read(signal, success, content_type, body);
  if (success) {
    if (answer.partial.rejected > 0) result.rejected = static_cast<std::uint64_t>(answer.partial.rejected);
    result.message = printable(answer.partial.message);
  } else {
    result.verdict = retryable(status) ? Outcome::retry : Outcome::rejected;
    result.message = printable(answer.status_message);
    result.code = answer.status_code;
  }
  return result;
}

}  // namespace waymark::delivery
