#include "transport/http.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <zlib.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support/holds.h"
#include "support/http_server.h"
#include "support/scripted_server.h"
#include "waymark/error.h"

namespace {

// A resolver that hangs for one name, until the test lets it go.
struct Resolver {
  std::mutex mutex;
  std::condition_variable changed;
  bool asked = false;
  bool let_go = false;
  bool left = false;
};
Resolver& resolver() {
  static Resolver& kept = *new Resolver;  // a detached resolver thread may outlive the tests
  return kept;
}

}  // namespace

// libcurl calls this one, since the program's own definition comes first.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints, addrinfo** found) {
  if (name && std::string_view(name) == "hangs.invalid") {
    Resolver& r = resolver();
    std::unique_lock lock(r.mutex);
    r.asked = true;
    r.changed.notify_all();
    r.changed.wait(lock, [&] { return r.let_go; });
    r.left = true;
    r.changed.notify_all();
    return EAI_NONAME;
  }
  using Original = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto original = reinterpret_cast<Original>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return original(name, service, hints, found);
}

namespace waymark::transport {
namespace {

using testing::HttpReply;
using testing::HttpServer;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

HttpSettings settings(std::string url) {
  return {.url = std::move(url), .headers = {}, .content_type = "application/x-protobuf", .timeout = 30s};
}

HttpResponse post(HttpClient& client, std::vector<std::string_view> pieces = {"body"}) { return client.post(pieces); }

HttpResponse post(const std::string& url) {
  HttpClient client(settings(url));
  return post(client);
}

std::string gunzip(const std::string& packed) {
  z_stream z{};
  inflateInit2(&z, MAX_WBITS + 16);
  std::string out(1 << 20, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  z.avail_in = static_cast<uInt>(packed.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  const int result = inflate(&z, Z_FINISH);
  out.resize(z.total_out);
  inflateEnd(&z);
  return result == Z_STREAM_END ? out : "not gzip";
}

std::string gzipped(const std::string& text) {
  z_stream z{};
  deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, text.size()), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

TEST(HttpTest, PostsTheBodyWithItsHeaders) {
  HOLDS("HC-01", "HC-03", "HC-29");
  HttpServer server;
  const HttpResponse response = post(server.url());
  EXPECT_EQ(response.failure, Failure::none) << response.error;
  EXPECT_EQ(response.status, 200);
  const auto request = server.requests().at(0);
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.target, "/v1/traces");
  EXPECT_EQ(request.body, "body");
  EXPECT_EQ(*request.header("Content-Type"), "application/x-protobuf");
  EXPECT_EQ(*request.header("Content-Length"), "4");
  EXPECT_THAT(*request.header("User-Agent"), ::testing::MatchesRegex(R"(OTel-OTLP-Exporter-Cpp-Waymark/[0-9]+\.[0-9]+\.[0-9]+)"));
  EXPECT_EQ(request.header("Expect"), nullptr);
  EXPECT_EQ(request.header("Transfer-Encoding"), nullptr);
}

TEST(HttpTest, AnUncompressedBodySaysNothingAboutItsEncoding) {
  HOLDS("HC-06");
  HttpServer server;
  post(server.url());
  EXPECT_EQ(server.requests().at(0).header("Content-Encoding"), nullptr);
}

TEST(HttpTest, CompressesWhereAsked) {
  HOLDS("HC-06", "HC-24");
  HttpServer server;
  HttpSettings with = settings(server.url());
  with.gzip = true;
  HttpClient client(with);
  const std::string large(100'000, 'a');
  for (int i = 0; i < 2; ++i) EXPECT_EQ(post(client, {"head ", "", large, " tail"}).status, 200);
  for (const auto& request : server.requests()) {
    EXPECT_EQ(*request.header("Content-Encoding"), "gzip");
    EXPECT_LT(request.body.size(), 2000u);
    EXPECT_EQ(gunzip(request.body), "head " + large + " tail");
  }
}

TEST(HttpTest, PiecesStandBackToBack) {
  HttpServer server;
  HttpClient client(settings(server.url()));
  const std::string large(700'000, 'x');
  EXPECT_EQ(post(client, {"", "one", "", large, "two", ""}).status, 200);
  EXPECT_EQ(server.requests().at(0).body, "one" + large + "two");
}

TEST(HttpTest, AnEmptyBodyIsSentAsOne) {
  HttpServer server;
  HttpClient client(settings(server.url()));
  EXPECT_EQ(post(client, {}).status, 200);
  EXPECT_EQ(*server.requests().at(0).header("Content-Length"), "0");
}

TEST(HttpTest, KeepsItsConnection) {
  HOLDS("HC-15");
  HttpServer server;
  server.standard({.body = "some body"});
  HttpClient client(settings(server.url()));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(post(client).status, 200);
  EXPECT_EQ(server.requests().size(), 10u);
  EXPECT_EQ(server.connections(), 1u);
}

TEST(HttpTest, KeepsItsConnectionAfterRefusals) {
  HttpServer server;
  server.script({{.status = 503, .body = "busy"}, {.status = 400, .body = "bad"}});
  HttpClient client(settings(server.url()));
  EXPECT_EQ(post(client).status, 503);
  EXPECT_EQ(post(client).status, 400);
  EXPECT_EQ(post(client).status, 200);
  EXPECT_EQ(server.connections(), 1u);
}

TEST(HttpTest, SendsTheWholeBodyAgainOnANewConnectionWhereTheKeptOneWasClosed) {
  HttpServer server;
  server.script({{.close = true}});
  HttpClient client(settings(server.url()));
  EXPECT_EQ(post(client, {"first"}).status, 200);
  EXPECT_EQ(post(client, {"sec", "ond"}).status, 200);
  EXPECT_EQ(server.requests().back().body, "second");
  EXPECT_EQ(server.connections(), 2u);
}

TEST(HttpTest, SendsTheUsersHeaders) {
  HOLDS("HC-23");
  HttpServer server;
  HttpSettings with = settings(server.url());
  with.headers = {{"Authorization", "Bearer abc"}, {"X-Empty", ""}, {"content-LENGTH", "9"}, {"Content-Type", "text/html"}};
  HttpClient client(with);
  EXPECT_EQ(post(client).status, 200);
  const auto request = server.requests().at(0);
  EXPECT_EQ(*request.header("authorization"), "Bearer abc");
  ASSERT_NE(request.header("x-empty"), nullptr);
  EXPECT_EQ(*request.header("x-empty"), "");
  EXPECT_EQ(*request.header("content-length"), "4");
  EXPECT_EQ(*request.header("content-type"), "application/x-protobuf");
}

TEST(HttpTest, RefusesAHeaderThatEndsItsLineAndKeepsItsValueToItself) {
  for (const auto& [name, value] : HeaderList{{"Token", "secret\r\nEvil: 1"}, {"Token", std::string("secret\0x", 8)}, {"To\nken", "secret"},
                                              {"", "secret"}, {"A B", "secret"}, {"A:B", "secret"}}) {
    HttpSettings with = settings("http://127.0.0.1:1/");
    with.headers = {{name, value}};
    try {
      const HttpClient client(with);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_header);
      EXPECT_THAT(error.what(), Not(HasSubstr("secret")));
    }
  }
}

TEST(HttpTest, RequestsTheUrlByteForByte) {
  HOLDS("HC-05", "HC-18", "HC-35");
  HttpServer server;
  EXPECT_EQ(post(server.url("/a%2Fb/../c%20d/?x=%41&y")).status, 200);
  EXPECT_EQ(server.requests().at(0).target, "/a%2Fb/../c%20d/?x=%41&y");
}

TEST(HttpTest, FollowsNoRedirect) {
  HOLDS("HC-17");
  HttpServer server;
  HttpServer elsewhere;
  server.script({{.status = 307, .headers = {{"Location", elsewhere.url()}}}});
  EXPECT_EQ(post(server.url()).status, 307);
  EXPECT_TRUE(elsewhere.requests().empty());
}

TEST(HttpTest, ReadsBodyAndTypeOfTheResponse) {
  HttpServer server;
  server.script({{.headers = {{"content-type", "application/json; charset=utf-8"}}, .body = "{}"}, {.status = 202}});
  HttpClient client(settings(server.url()));
  const HttpResponse first = post(client);
  EXPECT_EQ(first.content_type, "application/json; charset=utf-8");
  EXPECT_EQ(first.body, "{}");
  const HttpResponse second = post(client);
  EXPECT_EQ(second.content_type, "");
  EXPECT_EQ(second.body, "");
}

TEST(HttpTest, UnderstandsAGzippedResponse) {
  HOLDS("HC-07");
  HttpServer server;
  server.script({{.headers = {{"Content-Encoding", "gzip"}}, .body = gzipped("hello")}});
  EXPECT_EQ(post(server.url()).body, "hello");
  EXPECT_EQ(*server.requests().at(0).header("Accept-Encoding"), "gzip");
}

TEST(HttpTest, RefusesAResponseThatIsTooLarge) {
  HOLDS("HC-10", "HC-28");
  HttpServer server;
  server.script({{.body = std::string(5 << 20, 'x')}, {.body = std::string(4 << 20, 'x')}});
  HttpClient client(settings(server.url()));
  EXPECT_EQ(post(client).failure, Failure::too_large);
  EXPECT_EQ(post(client).failure, Failure::none);
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST(HttpTest, RefusesAResponseThatIsTooLargeOnceUnpacked) {
  HOLDS("HC-10");
  HttpServer server;
  server.script({{.headers = {{"Content-Encoding", "gzip"}}, .body = gzipped(std::string(64 << 20, '\0'))}});
  const HttpResponse response = post(server.url());
  EXPECT_EQ(response.failure, Failure::too_large);
  EXPECT_LE(response.body.size(), 4u << 20);
}

TEST(HttpTest, RefusesAnEndlessBody) {
  HttpServer server;
  server.script({{.broken = HttpReply::Break::endless_body}});
  EXPECT_EQ(post(server.url()).failure, Failure::too_large);
}

TEST(HttpTest, RefusesEndlessHeaders) {
  HttpServer server;
  server.script({{.broken = HttpReply::Break::endless_headers}});
  EXPECT_EQ(post(server.url()).failure, Failure::too_large);
}

TEST(HttpTest, ABodyThatSaysGzipAndIsNoneIsUnreadable) {
  HttpServer server;
  server.script({{.headers = {{"Content-Encoding", "gzip"}}, .body = "not gzip at all"}});
  EXPECT_EQ(post(server.url()).failure, Failure::unreadable);
}

TEST(HttpTest, GarbageIsNoResponse) {
  HttpServer server;
  server.script({{.body = "SSH-2.0-OpenSSH\r\n", .broken = HttpReply::Break::raw}});
  EXPECT_EQ(post(server.url()).failure, Failure::not_http);
}

TEST(HttpTest, AnInterimResponseIsNotTheResponse) {
  HttpServer server;
  server.script({{.body = "HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\nContent-Type: text/plain\r\n\r\n"
                          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                  .broken = HttpReply::Break::raw}});
  const HttpResponse response = post(server.url());
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "ok");
  EXPECT_EQ(response.content_type, "");
  EXPECT_EQ(response.retry_after, std::nullopt);
}

TEST(HttpTest, AProductOfTheUsersStandsBeforeOurs) {
  HOLDS("HC-29", "HC-30");
  HttpServer server;
  HttpSettings with = settings(server.url());
  with.headers = {{"user-agent", "MyDist/1.2"}};
  HttpClient client(with);
  EXPECT_EQ(post(client).status, 200);
  EXPECT_THAT(*server.requests().at(0).header("User-Agent"),
              ::testing::MatchesRegex(R"(MyDist/1\.2 OTel-OTLP-Exporter-Cpp-Waymark/[0-9]+\.[0-9]+\.[0-9]+)"));
}

TEST(HttpTest, ReplacesItsHeaders) {
  HttpServer server;
  HttpSettings with = settings(server.url());
  with.headers = {{"Authorization", "old"}, {"X-Old", "1"}};
  HttpClient client(with);
  EXPECT_EQ(post(client).status, 200);
  client.replace_headers({{"Authorization", "new"}});
  EXPECT_THROW(client.replace_headers({{"Authorization", "a\nb"}}), Error);
  EXPECT_EQ(post(client).status, 200);
  EXPECT_EQ(*server.requests().at(1).header("Authorization"), "new");
  EXPECT_EQ(server.requests().at(1).header("X-Old"), nullptr);
  EXPECT_EQ(*server.requests().at(1).header("Content-Type"), "application/x-protobuf");
  EXPECT_EQ(server.connections(), 1u);
}

TEST(HttpTest, AResponseMayComeByteByByte) {
  testing::ScriptedServer server("wire_server.py");
  nlohmann::json steps = nlohmann::json::array();
  for (const char c : std::string("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello")) {
    steps.push_back({{"bytes", testing::to_base64(std::string(1, c))}});
  }
  server.script(nlohmann::json::array({steps}));
  const HttpResponse response = post("http://127.0.0.1:" + std::to_string(server.listen({{"http", 1}})) + "/");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "hello");
  EXPECT_EQ(response.content_type, "a/b");
}

TEST(HttpTest, ABodyShorterThanItSaysIsTornAndALongerOneIsCutThere) {
  HttpServer server;
  server.script({{.body = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", .broken = HttpReply::Break::raw},
                 {.body = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello", .broken = HttpReply::Break::raw}});
  HttpClient client(settings(server.url()));
  EXPECT_EQ(post(client).failure, Failure::closed);
  EXPECT_EQ(post(client).body, "he");
  EXPECT_EQ(post(client).status, 200) << "what stood behind it is no response to the next request";
}

TEST(HttpTest, NothingListensThere) {
  const HttpResponse response = post("http://127.0.0.1:" + std::to_string(HttpServer::closed_port()) + "/");
  EXPECT_EQ(response.failure, Failure::connect);
  EXPECT_FALSE(response.error.empty());
}

TEST(HttpTest, OnlyHttpIsSpoken) {
  HOLDS("HC-19");
  for (const char* url : {"ftp://127.0.0.1/x", "file:///etc/hostname", "gopher://127.0.0.1/"}) {
    const Failure failure = post(url).failure;
    EXPECT_TRUE(failure == Failure::not_http || failure == Failure::unusable) << url;
  }
}

TEST(HttpTest, AConnectionClosedWithoutResponseIsClosed) {
  HttpServer server;
  server.script({{.broken = HttpReply::Break::no_response}});
  EXPECT_EQ(post(server.url()).failure, Failure::closed);
}

TEST(HttpTest, AnAnswerOfYesThatIsTornIsClosed) {
  HttpServer server;
  server.script({{.body = "0123456789", .broken = HttpReply::Break::half_body}});
  EXPECT_EQ(post(server.url()).failure, Failure::closed);
}

TEST(HttpTest, AnAnswerOfNoStandsThoughItIsTorn) {
  HttpServer server;
  server.script({{.status = 400, .body = "0123456789", .broken = HttpReply::Break::half_body}});
  const HttpResponse response = post(server.url());
  EXPECT_EQ(response.failure, Failure::none);
  EXPECT_EQ(response.status, 400);
}

TEST(HttpTest, AnAnswerOfNoStandsThoughItsBodyOrHeaderCannotBeRead) {
  const std::string line = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\n";
  for (const HttpReply& reply :
       {HttpReply{.status = 503, .headers = {{"Retry-After", "9"}, {"Content-Encoding", "gzip"}}, .body = "not gzip at all"},
        HttpReply{.status = 503, .headers = {{"Retry-After", "9"}}, .body = std::string(5 << 20, 'x')},
        HttpReply{.body = line + "X-Long: " + std::string(70 << 10, 'x') + "\r\n\r\n", .broken = HttpReply::Break::raw}}) {
    HttpServer server;
    server.script({reply});
    const HttpResponse response = post(server.url());
    EXPECT_EQ(response.failure, Failure::none) << response.error;
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.body, "");
    EXPECT_EQ(response.retry_after, std::chrono::seconds(9));
  }
}

TEST(HttpTest, GivesUpAServerThatHangs) {
  HOLDS("HC-25", "RT-20");
  for (const auto hold : {HttpReply::Hold::before_headers, HttpReply::Hold::before_body}) {
    HttpServer server;
    server.standard({.body = "late", .hold = hold});
    HttpSettings with = settings(server.url());
    with.timeout = 50ms;
    HttpClient client(with);
    EXPECT_EQ(post(client).failure, Failure::timeout);
  }
}

TEST(HttpTest, AbortEndsARequestThatHangs) {
  for (const auto hold : {HttpReply::Hold::before_headers, HttpReply::Hold::before_body}) {
    HttpServer server;
    server.standard({.body = "late", .hold = hold});
    HttpSettings with = settings(server.url());
    with.timeout = 0s;
    HttpClient client(with);
    std::thread waiting([&] { EXPECT_EQ(post(client).failure, Failure::aborted); });
    EXPECT_TRUE(server.wait_for_holds(1));
    client.abort();
    waiting.join();
    EXPECT_EQ(post(client).failure, Failure::aborted) << "and so do all that follow";
    EXPECT_EQ(server.requests().size(), 1u);
  }
}

TEST(HttpTest, AbortDoesNotWaitForAResolverThatHangs) {
  HOLDS("RT-20");
  Resolver& r = resolver();
  {
    const std::lock_guard lock(r.mutex);
    r.asked = r.let_go = r.left = false;
  }
  {
    HttpSettings with = settings("http://hangs.invalid:4318/v1/traces");
    with.timeout = 0s;
    HttpClient client(with);
    std::thread waiting([&] { EXPECT_EQ(post(client).failure, Failure::aborted); });
    {
      std::unique_lock lock(r.mutex);
      EXPECT_TRUE(r.changed.wait_for(lock, 30s, [&] { return r.asked; }));
    }
    client.abort();
    waiting.join();
  }
  // Client and connection are gone, the resolver's thread still hangs. It is let go, so that it ends before the program.
  std::unique_lock lock(r.mutex);
  EXPECT_FALSE(r.left);
  r.let_go = true;
  r.changed.notify_all();
  EXPECT_TRUE(r.changed.wait_for(lock, 30s, [&] { return r.left; }));
}

TEST(HttpTest, TellsWhenToTryAgain) {
  HOLDS("RT-04");
  HttpServer server;
  server.script({{.status = 503, .headers = {{"retry-after", "7"}}}, {.status = 503, .headers = {{"Retry-After", "soon"}}}});
  HttpClient client(settings(server.url()));
  EXPECT_EQ(post(client).retry_after, 7s);
  EXPECT_EQ(post(client).retry_after, std::nullopt);
}

TEST(RetryAfterTest, ReadsSecondsAndHttpDates) {
  HOLDS("RT-04", "RT-05");
  const std::time_t now = 1'800'000'000;  // Fri, 15 Jan 2027 08:00:00 GMT
  const auto parse = [&](std::string_view text) { return parse_retry_after(text, now); };
  EXPECT_EQ(parse("0"), 0s);
  EXPECT_EQ(parse(" 120 "), 120s);
  EXPECT_EQ(parse("Fri, 15 Jan 2027 08:00:30 GMT"), 30s);
  EXPECT_EQ(parse("Friday, 15-Jan-27 08:00:30 GMT"), 30s);
  EXPECT_EQ(parse("Fri Jan 15 08:00:30 2027"), 30s);
  EXPECT_EQ(parse("Fri, 15 Jan 2027 07:00:00 GMT"), 0s) << "past: at once";
}

TEST(RetryAfterTest, IsBounded) {
  EXPECT_EQ(parse_retry_after("99999999", 0), 24h);
  EXPECT_EQ(parse_retry_after("9999999999999999999999999999", 0), 24h);
  EXPECT_EQ(parse_retry_after("Fri, 15 Jan 2027 08:00:30 GMT", 0), 24h);
}

TEST(RetryAfterTest, IgnoresWhatIsNeither) {
  HOLDS("RT-05");
  for (const std::string_view text : {"", " ", "abc", "-5", "1.5", "12:00", "2030-01-01", "5 seconds", "+3", "0x10", "Monday"}) {
    EXPECT_EQ(parse_retry_after(text, 1'800'000'000), std::nullopt) << text;
  }
  EXPECT_EQ(parse_retry_after(std::string(10'000, '1'), 0), std::nullopt);
}

}  // namespace
}  // namespace waymark::transport
