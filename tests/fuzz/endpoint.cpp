// Endpoints, as a user may have written them into a variable. The first byte picks the signal and the variable's rule.
#include <string>

#include "config/endpoint.h"
#include "fuzz/fuzz.h"
#include "waymark/error.h"

namespace {

using namespace waymark;

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

std::optional<config::Endpoint> parse(std::string_view text, Signal signal, config::PathRule rule, std::string& message) {
  try {
    return config::parse_endpoint(text, signal, rule, "KEY");
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::invalid_endpoint, "what is refused is refused as an endpoint");
    fuzz::check(contains(error.what(), "KEY"), "the message names the key");
    message = error.what();
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input = fuzz::text(data, size);
  const Signal signal = (data[0] & 1) != 0 ? Signal::logs : Signal::traces;
  const auto rule = static_cast<config::PathRule>((data[0] >> 1) % 3);
  const std::string_view text = input.substr(1);

  std::string message;
  const auto endpoint = parse(text, signal, rule, message);
  if (endpoint && endpoint->output == Output::otlp) {
    fuzz::check(endpoint->url.starts_with("http://") || endpoint->url.starts_with("https://"), "a URL is HTTP's");
    const auto again = parse(endpoint->url, signal, config::PathRule::as_it_is, message);
    fuzz::check(again && again->url == endpoint->url && again->authorization.empty(), "a URL that was made is complete");
    fuzz::plant(endpoint->url.starts_with("https://") && !contains(endpoint->url, ":4318"), input);
  }

  // The same text behind a password, which nothing that is shown or kept may hold.
  constexpr std::string_view kSecret = "pAssw0rd";
  const std::size_t host = text.find("//");
  if (host == std::string_view::npos || contains(text, kSecret)) return 0;
  const std::string secret = std::string(text.substr(0, host + 2)) + "user:" + std::string(kSecret) + "@" +
                             std::string(text.substr(host + 2));
  message.clear();
  const auto guarded = parse(secret, signal, rule, message);
  fuzz::check(!contains(message, kSecret), "no message holds a password");
  if (guarded && guarded->output == Output::otlp) {
    fuzz::check(!contains(guarded->url, kSecret) && !contains(guarded->name, kSecret) && !contains(guarded->origin, kSecret),
                "no URL holds a password");
  }
  return 0;
}
