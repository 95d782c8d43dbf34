#include "config/endpoint.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <memory>

#include "config/text.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

constexpr std::string_view kGrpcPort = "4317";
constexpr std::array<std::string_view, kSignals> kSuffixes{"/v1/traces", "/v1/logs", "/v1/metrics"};

std::string_view suffix_of(Signal signal) { return kSuffixes[static_cast<std::size_t>(signal)]; }

bool is_scheme(std::string_view text) {
  const std::string word = lower(text);
  return !word.empty() && word.front() >= 'a' && word.front() <= 'z' &&
         word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789+-.") == std::string::npos;
}

// Everything before the last "@" may be a password, and everything behind a "?" a key: neither is shown.
std::string shown(std::string_view text) {
  std::string safe;
  if (const auto at = text.rfind('@'); at != std::string_view::npos) {
    const auto scheme = text.find("://");
    const auto start = scheme < at && is_scheme(text.substr(0, scheme)) ? scheme + 3 : 0;
    safe.append(text.substr(0, start)).append("***").append(text.substr(at));
  } else {
    safe = text;
  }
  if (const auto query = safe.find('?'); query != std::string::npos) safe = safe.substr(0, query) + "?***";
  return in_quotes(safe);
}

std::string base64(std::string_view bytes) {
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](std::size_t at) -> unsigned {
      return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0u;
    };
    const unsigned bits = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    text += digits[bits >> 18];
    text += digits[bits >> 12 & 63];
    text += i + 1 < bytes.size() ? digits[bits >> 6 & 63] : '=';
    text += i + 2 < bytes.size() ? digits[bits & 63] : '=';
  }
  return text;
}

}  // namespace

std::string shown_endpoint(std::string_view written, std::string_view text) {
  // Where a variable holds the "@" or "?", nobody can say what of the rest is secret.
  for (const char mark : {'@', '?'}) {
    if (std::ranges::count(text, mark) > std::ranges::count(written, mark)) return in_quotes("***");
  }
  return shown(written);
}

namespace {

// libcurl's view of a URL. It judges; the URL that is requested is put together from the text itself, since libcurl
// writes percent signs anew (HC-35).
class ParsedUrl {
 public:
  explicit ParsedUrl(const std::string& text) : url_(curl_url(), &curl_url_cleanup) {
    if (!url_) throw std::bad_alloc();
    result_ = curl_url_set(url_.get(), CURLUPART_URL, text.c_str(), CURLU_NON_SUPPORT_SCHEME | CURLU_PATH_AS_IS);
  }
  [[nodiscard]] CURLUcode result() const noexcept { return result_; }
  // Nothing where the URL has no such part, or it can't be decoded.
  [[nodiscard]] std::optional<std::string> part(CURLUPart which, unsigned flags = 0) const {
    char* text = nullptr;
    if (curl_url_get(url_.get(), which, &text, flags) != CURLUE_OK) return std::nullopt;
    const std::unique_ptr<char, decltype(&curl_free)> owned(text, &curl_free);
    return std::string(text);
  }

 private:
  std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url_;
  CURLUcode result_;
};

std::string_view without_trailing_slashes(std::string_view path) {
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  return path;
}

// Makes the errors of one value.
class Refusal {
 public:
  Refusal(std::string_view key, std::string_view text) : key_(key), text_(text) {}
  [[nodiscard]] Error operator()(const std::string& why) const {
    return Error(ErrorCode::invalid_endpoint, std::string(key_) + ": " + shown(text_) + " " + why);
  }

 private:
  std::string_view key_;
  std::string_view text_;
};

Endpoint file_endpoint(std::string_view path, const Refusal& refuse) {
  if (path.substr(0, 2) == "//") {  // file:///abs and file://localhost/abs
    path.remove_prefix(2);
    const auto slash = path.find('/');
    const std::string host = lower(path.substr(0, slash));
    if (slash == std::string_view::npos || (!host.empty() && host != "localhost")) {
      throw refuse("names a host; write file:PATH or file:///PATH");
    }
    path.remove_prefix(slash);
  }
  if (path.empty() || path.back() == '/') throw refuse("names no file; write for example file:traces.jsonl");
  Endpoint endpoint;
  endpoint.output = Output::file;
  endpoint.path = path;
  endpoint.name = "file:" + endpoint.path;
  return endpoint;
}

std::string basic_authorization(const ParsedUrl& url, const Refusal& refuse) {
  const auto user = url.part(CURLUPART_USER, CURLU_URLDECODE);
  const auto password = url.part(CURLUPART_PASSWORD, CURLU_URLDECODE);
  // A part that is there and can't be decoded holds a control character.
  if (url.part(CURLUPART_USER).has_value() != user.has_value() ||
      url.part(CURLUPART_PASSWORD).has_value() != password.has_value()) {
    throw refuse("has a user name or password that can't be decoded; percent-encode it");
  }
  if (!user && !password) return {};
  if (user && user->find(':') != std::string::npos) throw refuse("has a colon in its user name, which HTTP can't send");
  return "Basic " + base64(user.value_or("") + ":" + password.value_or(""));
}

// The path that is requested.
std::string requested_path(std::string_view path, Signal signal, PathRule rule, const Refusal& refuse) {
  if (rule == PathRule::as_it_is) return path.empty() ? "/" : std::string(path);
  const std::string_view base = without_trailing_slashes(path);
  const std::string_view suffix = suffix_of(signal);
  if (rule == PathRule::base_or_complete) {
    if (base.ends_with(suffix)) return std::string(base);
    for (const std::string_view other : kSuffixes) {
      if (base.ends_with(other)) {
        throw refuse("ends in " + std::string(other) + ", but " + std::string(suffix.substr(4)) +
                     " are sent there; write it without " + std::string(other) + ", or with " + std::string(suffix));
      }
    }
  }
  return std::string(base) + std::string(suffix);
}

}  // namespace

std::optional<Endpoint> parse_endpoint(std::string_view text, Signal signal, PathRule rule, std::string_view key) {
  const std::string value(trimmed(text));
  const Refusal refuse(key, value);
  const std::string usual(rule == PathRule::target ? kGrpcPort : "4318");
  if (value.empty()) return std::nullopt;
  const auto control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; };
  if (std::any_of(value.begin(), value.end(), control)) {
    throw refuse("has a control character in it; write for example http://localhost:4318");
  }
  if (lower(value.substr(0, 5)) == "file:") return file_endpoint(std::string_view(value).substr(5), refuse);

  const auto colon = value.find("://");
  if (colon == std::string::npos || !is_scheme(value.substr(0, colon))) {
    throw refuse("does not start with http:// or https://; write for example http://localhost:4318 or file:PATH");
  }
  const std::string scheme = lower(value.substr(0, colon));
  if (scheme != "http" && scheme != "https") {
    throw refuse("has the scheme " + in_quotes(scheme) + "; write http://, https:// or file:PATH");
  }
  if (std::any_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) > '~'; })) {
    throw refuse("has characters beyond ASCII; percent-encode them, and write a host's name in its xn-- form");
  }
  if (value.find('#') != std::string::npos) throw refuse("has a fragment ('#...'), which is never sent; leave it out");

  const std::string_view rest = std::string_view(value).substr(colon + 3);
  const auto authority_end = std::min(rest.find_first_of("/?"), rest.size());
  std::string_view authority = rest.substr(0, authority_end);
  const auto query_start = std::min(rest.find('?'), rest.size());
  const std::string_view path = rest.substr(authority_end, query_start - authority_end);
  const std::string_view query = rest.substr(query_start);
  if (const auto at = authority.rfind('@'); at != std::string_view::npos) authority.remove_prefix(at + 1);
  if (authority.ends_with(':')) authority.remove_suffix(1);  // an empty port is the scheme's own
  if (authority.empty()) throw refuse("has no host; write for example http://localhost:4318");

  const ParsedUrl url(value);
  switch (url.result()) {
    case CURLUE_OK: break;
    case CURLUE_BAD_PORT_NUMBER: throw refuse("has a port that is no number from 1 to 65535; the usual one is " + usual);
    case CURLUE_NO_HOST: throw refuse("has no host; write for example http://localhost:4318");
    case CURLUE_BAD_IPV6: throw refuse("has an IPv6 address that can't be read; write for example http://[::1]:4318");
    case CURLUE_BAD_HOSTNAME:
    case CURLUE_BAD_LOGIN:
      throw refuse("has a host that can't be read; write for example http://localhost:4318 (and percent-encode '@', "
                   "':' and '/' in a user name or password)");
    default:
      throw refuse("is no URL (" + std::string(curl_url_strerror(url.result())) +
                   "); percent-encode spaces, or write for example http://localhost:4318");
  }
  if (url.part(CURLUPART_PORT) == "0") throw refuse("has the port 0; write one from 1 to 65535, the usual one is " + usual);

  Endpoint endpoint;
  endpoint.authorization = basic_authorization(url, refuse);
  const std::string site = scheme + "://" + std::string(authority);
  if (rule == PathRule::target) {
    const bool port = !url.part(CURLUPART_PORT).value_or("").empty();
    endpoint.url = site + (port ? "" : ":" + usual);
    endpoint.name = endpoint.url;
    endpoint.origin = scheme + "://" + lower(url.part(CURLUPART_HOST).value_or("")) + ":" +
                      (port ? url.part(CURLUPART_PORT).value_or("") : usual);
    endpoint.path_ignored = (!path.empty() && path != "/") || !query.empty();
    return endpoint;
  }
  const std::string target = requested_path(path, signal, rule, refuse);
  endpoint.url = site + target + std::string(query);
  std::string_view name = without_trailing_slashes(target);
  if (name.ends_with(suffix_of(signal))) name.remove_suffix(suffix_of(signal).size());
  endpoint.name = site + std::string(without_trailing_slashes(name));
  endpoint.origin = scheme + "://" + lower(url.part(CURLUPART_HOST).value_or("")) + ":" +
                    url.part(CURLUPART_PORT, CURLU_DEFAULT_PORT).value_or("");
  return endpoint;
}

std::optional<Endpoint> parse_grpc_endpoint(std::string_view text, Signal signal, bool insecure, std::string_view key) {
  const std::string value(trimmed(text));
  const bool complete = value.empty() || value.find("://") != std::string::npos || lower(value.substr(0, 5)) == "file:";
  return parse_endpoint(complete ? value : (insecure ? "http://" : "https://") + value, signal, PathRule::target, key);
}

}  // namespace waymark::config
