#include "transport/http.h"

#include <curl/curl.h>
#include <strings.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
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

bool is_https(std::string_view url) noexcept {
  constexpr std::string_view kScheme = "https:";
  return equals_ignoring_case(url.substr(0, kScheme.size()), kScheme);
}

constexpr char kUserAgent[] = "OTel-OTLP-Exporter-Cpp-Waymark/" WAYMARK_VERSION;

// Headers that describe the body, frame the message or belong to the connection: the user's would contradict ours.
bool is_ours(std::string_view name) noexcept {
  for (const std::string_view ours :
       {"content-type", "content-length", "content-encoding", "transfer-encoding", "expect", "accept-encoding", "te",
        "trailer", "connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings"}) {
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
    case CURLE_SSL_CERTPROBLEM:  // a file that was renewed half, say
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_USE_SSL_FAILED:
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
    case CURLE_BAD_CONTENT_ENCODING: return Failure::unreadable;
    case CURLE_URL_MALFORMAT:
    case CURLE_BAD_FUNCTION_ARGUMENT: return Failure::unusable;
    default: return Failure::not_http;
  }
}

// What can't work is said at once. Whether it does work is the handshake's to say.
void check_file(std::string_view key, const std::string& path) {
  if (path.empty()) return;
  const std::string why = pem_problem(path);
  if (!why.empty()) throw Error(ErrorCode::invalid_argument, "tls." + std::string(key) + ": '" + path + "' " + why);
}

struct Proxy {
  std::string url;     // empty: none
  std::string exempt;  // hosts, as in no_proxy
};

// The rules of curl: names in lower case win, and HTTP_PROXY is not looked at, since a CGI program's is its caller's to
// set. Read here and not by libcurl, which would do it in another thread while the program may change its environment.
Proxy proxy_of(std::string_view url) {
  const auto first = [](std::initializer_list<const char*> names) -> std::string {
    for (const char* name : names) {
      const char* value = std::getenv(name);
      if (value && *value) return value;
    }
    return {};
  };
  Proxy proxy;
  proxy.url = is_https(url)
                  ? first({"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"})
                  : first({"http_proxy", "all_proxy", "ALL_PROXY"});
  proxy.exempt = first({"no_proxy", "NO_PROXY"});
  return proxy;
}

// libcurl quotes a proxy that it does not understand. What stands before its @ is a password.
void hide_userinfo(std::string& text, const std::string& proxy) {
  const auto at = proxy.rfind('@');
  if (at == std::string::npos) return;
  const auto scheme = proxy.find("://");
  const auto begin = scheme == std::string::npos || scheme > at ? 0 : scheme + 3;
  const std::string userinfo = proxy.substr(begin, at - begin);
  if (userinfo.empty()) return;
  for (auto found = text.find(userinfo); found != std::string::npos; found = text.find(userinfo, found)) {
    text.replace(found, userinfo.size(), "***");
  }
}

}  // namespace

void initialize() noexcept {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

bool is_http_url(const std::string& url) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), &curl_url_cleanup);
  if (!parsed) throw std::bad_alloc();
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), CURLU_PATH_AS_IS | CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK) return false;
  const auto part = [&](CURLUPart which) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), which, &text, 0) != CURLUE_OK) return std::string();
    const std::unique_ptr<char, decltype(&curl_free)> owned(text, &curl_free);
    return std::string(text);
  };
  const std::string scheme = part(CURLUPART_SCHEME);
  return (scheme == "http" || scheme == "https") && !part(CURLUPART_HOST).empty();
}

void check(const TlsConfig& tls) {
  check_file("ca_file", tls.ca_file);
  check_file("certificate_file", tls.certificate_file);
  check_file("key_file", tls.key_file);
  if (tls.certificate_file.empty() != tls.key_file.empty()) {
    const bool key = tls.certificate_file.empty();
    throw Error(ErrorCode::invalid_argument,
                std::string("tls.") + (key ? "certificate_file" : "key_file") + ": empty, though tls." +
                    (key ? "key_file" : "certificate_file") + " is given; a client's certificate and its key go together");
  }
  if (tls.minimum_version != "1.2" && tls.minimum_version != "1.3") {
    throw Error(ErrorCode::invalid_argument,
                "tls.minimum_version: '" + tls.minimum_version + "' is none of 1.2 and 1.3; write one of them");
  }
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
  Proxy proxy;
  CURLM* multi = nullptr;
  CURL* easy = nullptr;
  // Of gRPC without TLS, which is HTTP/2 with prior knowledge:
  Deadline request_end{};
  bool prior_knowledge = false;
  bool connected = false;       // the last request went well, so that its connection should still be there
  bool only_kept = false;       // no socket may be opened for the request under way,
  bool refused_socket = false;  // and one would have been needed
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

  // The lines for libcurl. The caller owns the list.
  [[nodiscard]] curl_slist* lines_of(const HeaderList& given) const {
    std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> list(nullptr, &curl_slist_free_all);
    const auto add = [&list](const std::string& line) {
      curl_slist* longer = curl_slist_append(list.get(), line.c_str());
      if (!longer) throw std::bad_alloc();
      [[maybe_unused]] curl_slist* grown = list.release();
      list.reset(longer);
    };
    std::string user_agent = kUserAgent;
    for (const auto& [name, value] : given) {
      const auto forbidden = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
      if (name.empty() || std::ranges::any_of(name, forbidden) || name.find_first_of(": \t") != std::string::npos ||
          std::ranges::any_of(value, forbidden)) {
        throw Error(ErrorCode::invalid_header,
                    "headers: a name must be an HTTP token and neither name nor value may hold a line end or a NUL "
                    "(found in the header that has " + std::to_string(name.size()) + " bytes of name); remove these");
      }
      if (is_ours(name)) continue;
      if (equals_ignoring_case(name, "user-agent")) {  // a product of the user's, before ours
        if (!trimmed(value).empty()) user_agent = std::string(trimmed(value)) + " " + kUserAgent;
        continue;
      }
      add(trimmed(value).empty() ? name + ";" : name + ": " + value);  // ";" is how libcurl sends an empty value
    }
    add("User-Agent: " + user_agent);
    add("Content-Type: " + settings.content_type);
    if (settings.gzip) add("Content-Encoding: gzip");
    if (settings.grpc) add("TE: trailers");
    add("Expect:");  // no round trip before the body
    return list.release();
  }

  void set_headers(HeaderList given) {
    curl_slist* lines = lines_of(given);
    curl_slist_free_all(headers);
    headers = lines;
    settings.headers = std::move(given);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  }

  // Sockets that a child of the program does not inherit.
  static curl_socket_t open_socket(void* self, curlsocktype, curl_sockaddr* address) noexcept {
    auto& s = *static_cast<State*>(self);
    if (s.only_kept) {
      s.refused_socket = true;
      return CURL_SOCKET_BAD;
    }
    return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
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
        if (!s.settings.acceptable || s.settings.acceptable(s.response.content_type, s.response.body)) return n;
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
        s.response.grpc_fields.clear();
      } else if (const auto colon = line.find(':'); colon != std::string_view::npos) {
        const auto name = line.substr(0, colon);
        const auto value = trimmed(line.substr(colon + 1));
        if (equals_ignoring_case(name, "content-type")) {
          s.response.content_type = value;
        } else if (equals_ignoring_case(name, "retry-after")) {
          s.response.retry_after = parse_retry_after(value, std::time(nullptr));
        } else if (s.settings.grpc && name.starts_with("grpc-")) {  // HTTP/2 has no upper case
          s.response.grpc_fields.emplace_back(name, value);
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
    set(CURLOPT_OPENSOCKETFUNCTION, &State::open_socket);
    set(CURLOPT_OPENSOCKETDATA, this);
    set_tls(set);
    set(CURLOPT_PROXY, proxy.url.c_str());  // empty: none, whatever the environment says
    set(CURLOPT_NOPROXY, proxy.exempt.c_str());
    set(CURLOPT_HTTPPROXYTUNNEL, settings.grpc ? 1L : 0L);
    set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    set(CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));  // what the backend may see, a proxy may not
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_QUICK_EXIT, 1L);
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    if (!settings.grpc) set(CURLOPT_ACCEPT_ENCODING, "gzip");
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
      set(CURLOPT_CONNECTTIMEOUT_MS, to_milliseconds(settings.timeout));
    }
  }

  template <class Set>
  void set_tls(const Set& set) {
    const TlsConfig& tls = settings.tls;
    const long lowest = tls.minimum_version == "1.3" ? CURL_SSLVERSION_TLSv1_3 : CURL_SSLVERSION_TLSv1_2;
    set(CURLOPT_SSLVERSION, lowest);
    set(CURLOPT_SSL_VERIFYPEER, tls.insecure_skip_verify ? 0L : 1L);
    set(CURLOPT_SSL_VERIFYHOST, tls.insecure_skip_verify ? 0L : 2L);
    if (!tls.ca_file.empty()) {
      set(CURLOPT_CAINFO, tls.ca_file.c_str());
      set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));  // else the system's would be believed as well
    }
    if (!tls.certificate_file.empty()) {
      set(CURLOPT_SSLCERT, tls.certificate_file.c_str());
      set(CURLOPT_SSLKEY, tls.key_file.c_str());
    }
    // A new connection reads the files again, and proves who we are by them and not by an old session.
    set(CURLOPT_CA_CACHE_TIMEOUT, 0L);
    set(CURLOPT_SSL_SESSIONID_CACHE, 0L);
  }

  // Where the user may look, in words that libcurl does not have.
  [[nodiscard]] std::string words_for(CURLcode code) const {
    std::string text = error[0] != '\0' ? error : curl_easy_strerror(code);
    hide_userinfo(text, proxy.url);
    if (code == CURLE_PEER_FAILED_VERIFICATION) {
      text += settings.tls.ca_file.empty() ? " (verified against the system's authorities; tls.ca_file names others)"
                                           : " (verified against tls.ca_file)";
    } else if (code == CURLE_SSL_CERTPROBLEM) {
      text += " (look at tls.certificate_file and tls.key_file)";
    } else if (code == CURLE_SSL_CACERT_BADFILE) {
      text += " (look at tls.ca_file)";
    }
    return text;
  }

  // libcurl has HTTP/2's error code in its words only: "... (err 7)".
  [[nodiscard]] std::optional<std::uint32_t> reset_code() const {
    constexpr std::string_view kBefore = "(err ";
    const std::string_view text(error);
    const auto at = text.rfind(kBefore);
    std::uint32_t number = 0;
    if (at == std::string_view::npos) return std::nullopt;
    const auto digits = text.substr(at + kBefore.size());
    if (std::from_chars(digits.data(), digits.data() + digits.size(), number).ec != std::errc()) return std::nullopt;
    return number;
  }

  // With prior knowledge, libcurl 7.88 begins HTTP/2 anew on a connection that it has kept, and breaks it. So a connection
  // is made with prior knowledge and used again without. Where it is gone by then, no other is opened, since that one would
  // begin with HTTP/1.1: prior knowledge is asked for again.
  [[nodiscard]] CURLcode perform() {
    request_end = deadline_after(settings.timeout);
    if (!prior_knowledge) {
      const CURLcode code = perform_once();
      long made = 0;
      curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &made);
      const bool closed = code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING;
      // The server closed the kept connection while the request was on its way, which libcurl makes good for only where it
      // sees that early enough.
      if (!closed || made != 0 || header_bytes != 0 || aborted.load()) return code;
      seek_body(this, 0, SEEK_SET);
      forget_response();
      return perform_once();
    }
    if (connected) {
      curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2_0));
      curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 0L);
      only_kept = true;
      refused_socket = false;
      const CURLcode code = perform_once();
      only_kept = false;
      if (code == CURLE_OK || !refused_socket || aborted.load()) {
        connected = code == CURLE_OK;
        return code;
      }
      seek_body(this, 0, SEEK_SET);
      forget_response();
    }
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    const CURLcode code = perform_once();
    connected = code == CURLE_OK;
    return code;
  }

  void forget_response() {
    header_bytes = 0;
    too_large = false;
    error[0] = '\0';
    response.failure = Failure::none;
    response.status = 0;
    response.content_type.clear();
    response.body.clear();
    response.retry_after.reset();
    response.error.clear();
    response.grpc_fields.clear();
    response.reset.reset();
  }

  // Runs the request to its end, or to abort().
  [[nodiscard]] CURLcode perform_once() {
    if (settings.timeout.count() > 0) {
      // The whole request's, of which a first try may have taken some.
      const auto left = std::max<std::chrono::nanoseconds>(request_end - std::chrono::steady_clock::now(), std::chrono::milliseconds(1));
      curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, to_milliseconds(left));
    }
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
  check(settings.tls);
  s.settings = std::move(settings);
  s.proxy = proxy_of(s.settings.url);
  s.prior_knowledge = s.settings.grpc && !is_https(s.settings.url);
  s.multi = curl_multi_init();
  s.easy = curl_easy_init();
  if (!s.multi || !s.easy) throw std::bad_alloc();
  curl_multi_setopt(s.multi, CURLMOPT_MAXCONNECTS, 1L);  // a connection that was given up does not stay beside the next
  if (s.settings.gzip) s.gzip.emplace();
  s.set_options();
  s.set_headers(s.settings.headers);
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
  s.forget_response();
  HttpResponse& response = s.response;

  std::size_t total = 0;
  for (const auto piece : pieces) total += piece.size();
  curl_easy_setopt(s.easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(total));

  const CURLcode code = s.perform();
  long status = 0;
  curl_easy_getinfo(s.easy, CURLINFO_RESPONSE_CODE, &status);
  long version = 0;
  curl_easy_getinfo(s.easy, CURLINFO_HTTP_VERSION, &version);
  s.pieces = {};

  response.failure = s.aborted.load() && code != CURLE_OK ? Failure::aborted
                     : s.too_large                        ? Failure::too_large
                                                          : failure_of(code);
  const bool unreadable = response.failure == Failure::too_large || response.failure == Failure::unreadable ||
                          response.failure == Failure::not_http;
  const bool torn = unreadable || response.failure == Failure::closed || response.failure == Failure::timeout;
  if (torn && status >= 300) {  // it said no; how it went on to say so is no matter
    response.failure = Failure::none;
    if (unreadable) response.body.clear();
  }
  const bool old = s.settings.grpc && response.failure == Failure::none && version != CURL_HTTP_VERSION_2_0;
  if (old) response.failure = Failure::connect;
  if (response.failure == Failure::none) {
    response.status = static_cast<int>(status);
  } else if (response.failure == Failure::aborted) {
    response.error = "given up";
  } else if (response.failure == Failure::too_large) {
    response.error = "the response is larger than " + std::to_string(s.settings.max_response_bytes) +
                     " bytes, or its header larger than " + std::to_string(kMaxHeaderBytes);
  } else if (old) {
    response.error = "the server does not speak HTTP/2, which gRPC needs; is this its OTLP/HTTP port?";
  } else {
    response.error = s.words_for(code);
    if (code == CURLE_HTTP2_STREAM) response.reset = s.reset_code();
  }
  return response;
}

void HttpClient::replace_headers(HeaderList headers) { state_->set_headers(std::move(headers)); }

void HttpClient::abort() noexcept {
  state_->aborted.store(true);
  curl_multi_wakeup(state_->multi);
}

}  // namespace waymark::transport
