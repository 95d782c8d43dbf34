#include "transport/http.h"

#include <curl/curl.h>
#include <strings.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <climits>
#include <mutex>
#include <utility>

#include "transport/gzip.h"
#include "waymark/error.h"

namespace waymark::transport {
namespace {

constexpr std::size_t kMaxHeaderBytes = 64 * 1024;  // of one response, interim responses and trailers included
constexpr std::size_t kMaxRetryAfterText = 64;      // an HTTP-date has 29
constexpr std::chrono::seconds kMaxRetryAfter = std::chrono::hours(24);

bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

// Headers that describe the body or frame the message: the user's would contradict ours.
bool is_ours(std::string_view name) noexcept {
  for (const std::string_view ours :
       {"content-type", "content-length", "content-encoding", "transfer-encoding", "expect", "accept-encoding"}) {
    if (equals_ignoring_case(name, ours)) return true;
  }
  return false;
}

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view kBlank = " \t\r\n";
  const auto begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// Milliseconds as libcurl takes them, rounded up so that a short timeout does not become none.
long to_milliseconds(std::chrono::nanoseconds time) noexcept {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(time).count();
  return static_cast<long>(std::clamp<std::int64_t>(ms, 0, INT_MAX));
}

Failure failure_of(CURLcode code) noexcept {
  switch (code) {
    case CURLE_OK: return Failure::none;
    case CURLE_OPERATION_TIMEDOUT: return Failure::timeout;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
    case CURLE_INTERFACE_FAILED:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_OUT_OF_MEMORY:  // of this moment, like a refused connection
    case CURLE_FAILED_INIT: return Failure::connect;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_AGAIN: return Failure::closed;
    case CURLE_WRITE_ERROR:  // our own callbacks refuse only what is too much
    case CURLE_FILESIZE_EXCEEDED: return Failure::too_large;
    case CURLE_URL_MALFORMAT:
    case CURLE_BAD_FUNCTION_ARGUMENT: return Failure::unusable;
    default: return Failure::not_http;
  }
}

}  // namespace

void initialize() noexcept {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

std::optional<std::chrono::seconds> parse_retry_after(std::string_view value, std::time_t now) {
  value = trimmed(value);
  if (value.empty() || value.size() > kMaxRetryAfterText) return std::nullopt;
  if (value.find_first_not_of("0123456789") == std::string_view::npos) {
    std::int64_t seconds = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
    if (error != std::errc()) return kMaxRetryAfter;  // more digits than an int64 holds
    return std::min(std::chrono::seconds(seconds), kMaxRetryAfter);
  }
  // libcurl also reads dates that are none in HTTP ("20300101", "12:00"): every HTTP-date starts with a day's name.
  if (value.front() < 'A' || value.front() > 'Z' || value.find(':') == std::string_view::npos) return std::nullopt;
  const std::time_t when = curl_getdate(std::string(value).c_str(), nullptr);
  if (when < 0) return std::nullopt;
  return std::clamp(std::chrono::seconds(when - now), std::chrono::seconds(0), kMaxRetryAfter);
}

struct HttpClient::State {
  HttpSettings settings;
  CURLM* multi = nullptr;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  std::optional<Gzip> gzip;
  std::atomic<bool> aborted{false};

  // Of the request under way.
  std::span<const std::string_view> pieces;
  std::size_t piece = 0;   // the read position: the next byte to send is pieces[piece][offset]
  std::size_t offset = 0;
  std::size_t header_bytes = 0;
  bool too_large = false;
  HttpResponse response;
  char error[CURL_ERROR_SIZE] = {};

  void add_header(const std::string& line) {
    curl_slist* longer = curl_slist_append(headers, line.c_str());
    if (!longer) throw std::bad_alloc();
    headers = longer;
  }

  void set_headers() {
    for (const auto& [name, value] : settings.headers) {
      const auto forbidden = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
      if (name.empty() || std::ranges::any_of(name, forbidden) || name.find_first_of(": \t") != std::string::npos ||
          std::ranges::any_of(value, forbidden)) {
        throw Error(ErrorCode::invalid_header,
                    "headers: a name must be an HTTP token and neither name nor value may hold a line end or a NUL "
                    "(found in the header that has " + std::to_string(name.size()) + " bytes of name); remove these");
      }
      if (is_ours(name)) continue;
      add_header(trimmed(value).empty() ? name + ";" : name + ": " + value);  // ";" is how libcurl sends an empty value
    }
    add_header("Content-Type: " + settings.content_type);
    if (settings.gzip) add_header("Content-Encoding: gzip");
    add_header("Expect:");  // no round trip before the body
  }

  static std::size_t read_body(char* to, std::size_t size, std::size_t count, void* self) {
    auto& s = *static_cast<State*>(self);
    std::size_t room = size * count;
    std::size_t given = 0;
    while (room > 0 && s.piece < s.pieces.size()) {
      const std::string_view rest = s.pieces[s.piece].substr(s.offset);
      const std::size_t n = rest.copy(to + given, room);
      given += n;
      room -= n;
      s.offset += n;
      if (s.offset == s.pieces[s.piece].size()) {
        ++s.piece;
        s.offset = 0;
      }
    }
    return given;
  }

  // libcurl sends the body again where a kept connection turned out to be closed.
  static int seek_body(void* self, curl_off_t target, int origin) {
    if (origin != SEEK_SET || target < 0) return CURL_SEEKFUNC_FAIL;
    auto& s = *static_cast<State*>(self);
    auto left = static_cast<std::size_t>(target);
    for (s.piece = 0; s.piece < s.pieces.size() && left >= s.pieces[s.piece].size(); ++s.piece) {
      left -= s.pieces[s.piece].size();
    }
    s.offset = left;
    return s.piece < s.pieces.size() || left == 0 ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
  }

  static std::size_t take_body(char* data, std::size_t size, std::size_t count, void* self) noexcept {
    auto& s = *static_cast<State*>(self);
    const std::size_t n = size * count;
    try {
      if (n <= s.settings.max_response_bytes - s.response.body.size()) {
        s.response.body.append(data, n);
        return n;
      }
    } catch (const std::bad_alloc&) {
      // As good as too large.
    }
    s.too_large = true;
    return n == 0 ? 1 : 0;
  }

  static std::size_t take_header(char* data, std::size_t size, std::size_t count, void* self) noexcept {
    auto& s = *static_cast<State*>(self);
    const std::size_t n = size * count;
    s.header_bytes += n;
    if (s.header_bytes > kMaxHeaderBytes) {
      s.too_large = true;
      return n == 0 ? 1 : 0;
    }
    try {
      const std::string_view line(data, n);
      if (line.starts_with("HTTP/")) {  // a response after an interim one
        s.response.content_type.clear();
        s.response.retry_after.reset();
      } else if (const auto colon = line.find(':'); colon != std::string_view::npos) {
        const auto name = line.substr(0, colon);
        const auto value = trimmed(line.substr(colon + 1));
        if (equals_ignoring_case(name, "content-type")) {
          s.response.content_type = value;
        } else if (equals_ignoring_case(name, "retry-after")) {
          s.response.retry_after = parse_retry_after(value, std::time(nullptr));
        }
      }
    } catch (const std::bad_alloc&) {
      s.too_large = true;
      return n == 0 ? 1 : 0;
    }
    return n;
  }

  void set_options() {
    const auto set = [this](CURLoption option, auto value) {
      const CURLcode code = curl_easy_setopt(easy, option, value);
      if (code != CURLE_OK) {
        throw Error(ErrorCode::invalid_argument, std::string("libcurl refuses an option that it should know (") +
                                                     curl_easy_strerror(code) + "): version 7.87 or newer is needed");
      }
    };
    set(CURLOPT_URL, settings.url.c_str());
    set(CURLOPT_PATH_AS_IS, 1L);
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);  // neither the body nor the credentials go elsewhere
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_QUICK_EXIT, 1L);
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_USERAGENT, "OTel-OTLP-Exporter-Cpp-Waymark/" WAYMARK_VERSION);
    set(CURLOPT_ACCEPT_ENCODING, "gzip");
    set(CURLOPT_HTTPHEADER, headers);
    set(CURLOPT_POST, 1L);
    set(CURLOPT_READFUNCTION, &State::read_body);
    set(CURLOPT_READDATA, this);
    set(CURLOPT_SEEKFUNCTION, &State::seek_body);
    set(CURLOPT_SEEKDATA, this);
    set(CURLOPT_WRITEFUNCTION, &State::take_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_HEADERFUNCTION, &State::take_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_ERRORBUFFER, error);
    set(CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024L);
    if (settings.timeout.count() > 0) {
      set(CURLOPT_TIMEOUT_MS, to_milliseconds(settings.timeout));
      set(CURLOPT_CONNECTTIMEOUT_MS, to_milliseconds(settings.timeout));
    }
  }

  // Runs the request to its end, or to abort().
  [[nodiscard]] CURLcode perform() {
    if (curl_multi_add_handle(multi, easy) != CURLM_OK) return CURLE_FAILED_INIT;
    CURLcode result = CURLE_FAILED_INIT;
    for (bool done = false; !done && !aborted.load();) {
      int running = 0;
      if (curl_multi_perform(multi, &running) != CURLM_OK) break;
      int left = 0;
      while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
        if (message->msg != CURLMSG_DONE) continue;
        result = message->data.result;
        done = true;
      }
      // libcurl cuts the wait short for its own timeouts; curl_multi_wakeup ends it, also when called before it begins.
      if (!done && !aborted.load() && curl_multi_poll(multi, nullptr, 0, INT_MAX, nullptr) != CURLM_OK) break;
    }
    curl_multi_remove_handle(multi, easy);
    return result;
  }

  ~State() {
    curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
    curl_slist_free_all(headers);
  }
};

HttpClient::HttpClient(HttpSettings settings) : state_(std::make_unique<State>()) {
  initialize();
  State& s = *state_;
  s.settings = std::move(settings);
  s.multi = curl_multi_init();
  s.easy = curl_easy_init();
  if (!s.multi || !s.easy) throw std::bad_alloc();
  if (s.settings.gzip) s.gzip.emplace();
  s.set_headers();
  s.set_options();
}

HttpClient::~HttpClient() = default;

const HttpResponse& HttpClient::post(std::span<const std::string_view> pieces) {
  State& s = *state_;
  std::string_view compressed;
  if (s.gzip) {
    compressed = s.gzip->compress(pieces);
    pieces = std::span(&compressed, 1);
  }
  s.pieces = pieces;
  s.piece = 0;
  s.offset = 0;
  s.header_bytes = 0;
  s.too_large = false;
  s.error[0] = '\0';
  HttpResponse& response = s.response;
  response.failure = Failure::none;
  response.status = 0;
  response.content_type.clear();
  response.body.clear();
  response.retry_after.reset();
  response.error.clear();

  std::size_t total = 0;
  for (const auto piece : pieces) total += piece.size();
  curl_easy_setopt(s.easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(total));

  const CURLcode code = s.perform();
  long status = 0;
  curl_easy_getinfo(s.easy, CURLINFO_RESPONSE_CODE, &status);
  s.pieces = {};

  response.failure = s.aborted.load() && code != CURLE_OK ? Failure::aborted
                     : s.too_large                        ? Failure::too_large
                                                          : failure_of(code);
  const bool torn = response.failure == Failure::closed || response.failure == Failure::timeout;
  if (torn && status >= 300) response.failure = Failure::none;  // it said no; how it went on to say so is no matter
  if (response.failure == Failure::none) {
    response.status = static_cast<int>(status);
  } else if (response.failure == Failure::aborted) {
    response.error = "given up";
  } else if (response.failure == Failure::too_large) {
    response.error = "the response is larger than " + std::to_string(s.settings.max_response_bytes) +
                     " bytes, or its header larger than " + std::to_string(kMaxHeaderBytes);
  } else {
    response.error = s.error[0] != '\0' ? s.error : curl_easy_strerror(code);
  }
  return response;
}

void HttpClient::abort() noexcept {
  state_->aborted.store(true);
  curl_multi_wakeup(state_->multi);
}

}  // namespace waymark::transport
