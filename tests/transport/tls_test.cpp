// TLS and proxies, of HTTP and of gRPC.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/certificates.h"
#include "support/holds.h"
#include "support/http_server.h"
#include "support/scripted_server.h"
#include "transport/grpc.h"
#include "transport/http.h"
#include "waymark/error.h"

namespace waymark::transport {
namespace {

using testing::Certificates;
using testing::HttpServer;
using testing::ScriptedServer;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

// One authority, what it signed, and another authority: made once.
struct Files {
  Certificates made;
  Certificates::Pair ca = made.authority("authority");
  Certificates::Pair other_ca = made.authority("other");
  Certificates::Pair server = made.signed_by(ca, "server", "IP:127.0.0.1,DNS:localhost");
  Certificates::Pair elsewhere = made.signed_by(ca, "elsewhere", "DNS:elsewhere.example");
  Certificates::Pair expired = made.signed_by(ca, "expired", "IP:127.0.0.1", 0);
  Certificates::Pair client = made.signed_by(ca, "client", "DNS:client.example");
  Certificates::Pair stranger = made.signed_by(other_ca, "stranger", "DNS:client.example");
};
Files& files() {
  static Files made;
  return made;
}

Json tls_of(const Certificates::Pair& pair) { return {{"certificate", pair.certificate}, {"key", pair.key}}; }

// What a request over HTTP and one over gRPC end with: nothing where they went well.
struct Ends {
  std::string http;
  std::string grpc;
};

class TlsTest : public ::testing::Test {
 protected:
  Ends ends(int port, const TlsConfig& tls, const std::string& host = "127.0.0.1") {
    const std::string url = "https://" + host + ":" + std::to_string(port);
    const std::vector<std::string_view> body{"body"};
    Ends result;
    HttpClient http({.url = url + "/v1/traces", .content_type = "application/x-protobuf", .timeout = 20s, .tls = tls});
    const HttpResponse& response = http.post(body);
    if (response.failure != Failure::none) {
      EXPECT_EQ(response.failure, Failure::connect) << response.error;
      result.http = response.error;
    } else {
      EXPECT_EQ(response.status, 200);
    }
    GrpcClient grpc({.url = url, .method = "/a.B/C", .timeout = 20s, .tls = tls});
    const GrpcResponse& called = grpc.call(body);
    if (called.status != GrpcStatus::ok) {
      EXPECT_EQ(called.status, GrpcStatus::unavailable) << called.error;
      result.grpc = called.error;
    }
    return result;
  }
  // Answers HTTP/2 with a gRPC yes, and HTTP/1 with an HTTP one. HTTP clients of ours would take HTTP/2 as well.
  int listen(const Certificates::Pair& pair, Json more = Json::object()) {
    Json tls = tls_of(pair);
    tls.update(more);
    return server.listen({{"http", 1}, {"tls", tls}, {"alpn", {"h2", "http/1.1"}}});
  }

  ScriptedServer server{"wire_server.py"};
};

TEST_F(TlsTest, BelievesAServerThatTheGivenAuthoritySigned) {
  HOLDS("HC-19", "HC-22", "GC-03", "GC-06");
  const int port = listen(files().server);
  const Ends by_address = ends(port, {.ca_file = files().ca.certificate});
  EXPECT_EQ(by_address.http, "");
  EXPECT_EQ(by_address.grpc, "");
  const Ends by_name = ends(port, {.ca_file = files().ca.certificate, .minimum_version = "1.3"}, "localhost");
  EXPECT_EQ(by_name.http, "");
  EXPECT_EQ(by_name.grpc, "");
}

TEST_F(TlsTest, RefusesAServerThatNobodyKnownSigned) {
  HOLDS("HC-22");
  const int port = listen(files().server);
  for (const TlsConfig& tls : {TlsConfig{}, TlsConfig{.ca_file = files().other_ca.certificate}}) {
    const Ends both = ends(port, tls);
    EXPECT_THAT(both.http, HasSubstr("tls.ca_file"));
    EXPECT_THAT(both.grpc, HasSubstr("tls.ca_file"));
  }
  const Json seen = server.ask({{"do", "seen"}});
  EXPECT_TRUE(seen["requests"].empty());
}

TEST_F(TlsTest, RefusesAServerOfAnotherName) {
  const Ends both = ends(listen(files().elsewhere), {.ca_file = files().ca.certificate});
  EXPECT_THAT(both.http, HasSubstr("127.0.0.1"));
  EXPECT_NE(both.grpc, "");
}

TEST_F(TlsTest, RefusesACertificateThatIsOver) {
  const Ends both = ends(listen(files().expired), {.ca_file = files().ca.certificate});
  EXPECT_THAT(both.http, HasSubstr("expired"));
  EXPECT_THAT(both.grpc, HasSubstr("expired"));
}

TEST_F(TlsTest, BelievesAnybodyWhereToldTo) {
  for (const auto& pair : {files().elsewhere, files().expired}) {
    const Ends both = ends(listen(pair), {.insecure_skip_verify = true});
    EXPECT_EQ(both.http, "");
    EXPECT_EQ(both.grpc, "");
  }
}

TEST_F(TlsTest, ShowsItsOwnCertificate) {
  HOLDS("HC-22");
  const int port = listen(files().server, {{"client_ca", files().ca.certificate}});
  const TlsConfig with{.ca_file = files().ca.certificate, .certificate_file = files().client.certificate, .key_file = files().client.key};
  const Ends shown = ends(port, with);
  EXPECT_EQ(shown.http, "");
  EXPECT_EQ(shown.grpc, "");
}

TEST_F(TlsTest, AServerThatKnowsNotItsCertificateSendsItAway) {
  const int port = listen(files().server, {{"client_ca", files().ca.certificate}});
  for (const TlsConfig& tls : {TlsConfig{.ca_file = files().ca.certificate},
                               TlsConfig{.ca_file = files().ca.certificate,
                                         .certificate_file = files().stranger.certificate,
                                         .key_file = files().stranger.key}}) {
    // In TLS 1.3 the server says so only after the handshake: a connection that ends, or was not made.
    HttpClient http({.url = "https://127.0.0.1:" + std::to_string(port), .content_type = "x/y", .timeout = 20s, .tls = tls});
    const std::vector<std::string_view> body{"body"};
    const HttpResponse& response = http.post(body);
    EXPECT_TRUE(response.failure == Failure::connect || response.failure == Failure::closed) << response.error;
  }
  EXPECT_TRUE(server.ask({{"do", "seen"}})["requests"].empty());
}

TEST_F(TlsTest, RefusesVersionsBelowTheMinimum) {
  HOLDS("GC-06");
  const TlsConfig from_2{.ca_file = files().ca.certificate, .minimum_version = "1.2"};
  const TlsConfig from_3{.ca_file = files().ca.certificate, .minimum_version = "1.3"};
  const int only_1 = listen(files().server, {{"maximum", "1.1"}});
  EXPECT_NE(ends(only_1, from_2).http, "");
  EXPECT_NE(ends(only_1, from_2).grpc, "");
  const int only_2 = listen(files().server, {{"maximum", "1.2"}});
  EXPECT_EQ(ends(only_2, from_2).http, "");
  EXPECT_EQ(ends(only_2, from_2).grpc, "");
  EXPECT_NE(ends(only_2, from_3).http, "");
  EXPECT_NE(ends(only_2, from_3).grpc, "");
}

TEST_F(TlsTest, GrpcNeedsAServerThatAgreesToHttp2) {
  HOLDS("GC-06");
  const int port = server.listen({{"http", 1}, {"tls", tls_of(files().server)}, {"alpn", {"http/1.1"}}});
  GrpcClient grpc({.url = "https://127.0.0.1:" + std::to_string(port), .method = "/a.B/C", .timeout = 20s,
                   .tls = {.ca_file = files().ca.certificate}});
  const std::vector<std::string_view> body{"body"};
  const GrpcResponse& response = grpc.call(body);
  EXPECT_EQ(response.status, GrpcStatus::unavailable);
  EXPECT_THAT(response.error, HasSubstr("HTTP/2"));
}

TEST_F(TlsTest, HttpFallsBackToHttp1) {
  HOLDS("HC-02");
  const int port = server.listen({{"http", 1}, {"tls", tls_of(files().server)}});
  HttpClient http({.url = "https://127.0.0.1:" + std::to_string(port) + "/v1/traces", .content_type = "x/y", .timeout = 20s,
                   .tls = {.ca_file = files().ca.certificate}});
  const std::vector<std::string_view> body{"body"};
  EXPECT_EQ(http.post(body).status, 200);
}

TEST_F(TlsTest, KeepsItsConnection) {
  HOLDS("HC-15");
  const int port = listen(files().server);
  HttpClient http({.url = "https://127.0.0.1:" + std::to_string(port), .content_type = "x/y", .timeout = 20s,
                   .tls = {.ca_file = files().ca.certificate}});
  GrpcClient grpc({.url = "https://127.0.0.1:" + std::to_string(port), .method = "/a.B/C", .timeout = 20s,
                   .tls = {.ca_file = files().ca.certificate}});
  const std::vector<std::string_view> body{"body"};
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(http.post(body).status, 200);
    EXPECT_EQ(grpc.call(body).error, "");
  }
  EXPECT_EQ(server.ask({{"do", "seen"}})["connections"], 2);
}

TEST_F(TlsTest, ANewConnectionReadsTheFilesAgain) {
  Certificates& made = files().made;
  const std::string ca_file = made.path("renewed-ca.pem");
  const auto copy = [&](const std::string& from) {
    std::filesystem::copy_file(from, ca_file, std::filesystem::copy_options::overwrite_existing);
  };
  copy(files().other_ca.certificate);
  const int port = listen(files().server);
  HttpClient http({.url = "https://127.0.0.1:" + std::to_string(port), .content_type = "x/y", .timeout = 20s, .tls = {.ca_file = ca_file}});
  const std::vector<std::string_view> body{"body"};
  EXPECT_EQ(http.post(body).failure, Failure::connect);
  copy(files().ca.certificate);
  EXPECT_EQ(http.post(body).status, 200);
}

TEST_F(TlsTest, ARenewedCertificateOfTheClientIsShownOnTheNextConnection) {
  Certificates& made = files().made;
  const TlsConfig tls{.ca_file = files().ca.certificate, .certificate_file = made.path("mine.pem"), .key_file = made.path("mine.key")};
  const auto put = [&](const Certificates::Pair& pair) {
    std::filesystem::copy_file(pair.certificate, tls.certificate_file, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::copy_file(pair.key, tls.key_file, std::filesystem::copy_options::overwrite_existing);
  };
  const int port = listen(files().server, {{"client_ca", files().ca.certificate}});
  put(files().stranger);
  HttpClient http({.url = "https://127.0.0.1:" + std::to_string(port), .content_type = "x/y", .timeout = 20s, .tls = tls});
  const std::vector<std::string_view> body{"body"};
  EXPECT_NE(http.post(body).failure, Failure::none);
  put(files().client);
  EXPECT_EQ(http.post(body).status, 200) << "on a new connection";
}

TEST_F(TlsTest, AFileThatCannotWorkIsRefusedByItsKeyAndPath) {
  Certificates& made = files().made;
  const std::string missing = made.path("missing.pem");
  const std::string empty = made.path("empty.pem");
  std::ofstream(empty) << "no certificate";
  const std::string& pem = files().client.certificate;
  struct Case {
    TlsConfig tls;
    std::vector<std::string> words;
  };
  for (const auto& [tls, words] : {Case{{.ca_file = missing}, {"tls.ca_file", missing}},
                                   Case{{.ca_file = empty}, {"tls.ca_file", empty, "PEM"}},
                                   Case{{.ca_file = made.path("")}, {"tls.ca_file"}},
                                   Case{{.certificate_file = missing, .key_file = pem}, {"tls.certificate_file", missing}},
                                   Case{{.certificate_file = pem, .key_file = missing}, {"tls.key_file", missing}},
                                   Case{{.certificate_file = pem}, {"tls.key_file"}},
                                   Case{{.key_file = pem}, {"tls.certificate_file"}},
                                   Case{{.minimum_version = "1.1"}, {"tls.minimum_version", "1.1", "1.2"}}}) {
    for (const bool grpc : {false, true}) {
      try {
        if (grpc) {
          const GrpcClient client({.url = "https://127.0.0.1:1", .method = "/a.B/C", .tls = tls});
        } else {
          const HttpClient client({.url = "https://127.0.0.1:1/", .content_type = "x/y", .tls = tls});
        }
        ADD_FAILURE() << "accepted: " << words[0];
      } catch (const Error& error) {
        for (const auto& word : words) EXPECT_THAT(error.what(), HasSubstr(word));
      }
    }
  }
}

TEST_F(TlsTest, AHandshakeThatHangsIsBoundedByTheTimeoutAndByAbort) {
  HOLDS("RT-20");
  const int port = server.listen({{"http", 1}, {"silent", true}});
  const std::string url = "https://127.0.0.1:" + std::to_string(port);
  const std::vector<std::string_view> body{"body"};
  HttpClient bounded({.url = url, .content_type = "x/y", .timeout = 50ms});
  EXPECT_EQ(bounded.post(body).failure, Failure::timeout);
  HttpClient endless({.url = url, .content_type = "x/y"});
  std::thread waiting([&] { EXPECT_EQ(endless.post(body).failure, Failure::aborted); });
  EXPECT_TRUE(server.wait({{"holds", 2}}));
  endless.abort();
  waiting.join();
  server.release();
}

// The proxy's variables for as long as a test runs.
class Environment {
 public:
  explicit Environment(std::vector<std::pair<std::string, std::string>> set) {
    for (const char* name : {"http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"}) {
      const char* value = std::getenv(name);
      before_.emplace_back(name, value ? std::optional<std::string>(value) : std::nullopt);
      ::unsetenv(name);
    }
    for (const auto& [name, value] : set) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : before_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> before_;
};

class ProxyTest : public TlsTest {
 protected:
  int proxy(int status = 200) { return server.ask({{"do", "proxy"}, {"status", status}})["port"]; }
  std::vector<std::string> proxied() { return server.ask({{"do", "seen"}})["proxied"]; }
  static std::string url_of(int port, const std::string& userinfo = {}) {
    return "http://" + userinfo + "127.0.0.1:" + std::to_string(port);
  }
};

TEST_F(ProxyTest, TlsGoesThroughATunnelThatSeesNoHeaders) {
  const int port = listen(files().server);
  const int tunnel = proxy();
  for (const char* name : {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}) {
    const Environment environment({{name, url_of(tunnel)}});
    const Ends both = ends(port, {.ca_file = files().ca.certificate});
    EXPECT_EQ(both.http, "");
    EXPECT_EQ(both.grpc, "");
  }
  EXPECT_EQ(proxied().size(), 8u);
  const Environment environment({{"https_proxy", url_of(tunnel)}});
  HttpClient http({.url = "https://127.0.0.1:" + std::to_string(port), .headers = {{"Authorization", "secret"}}, .content_type = "x/y",
                   .timeout = 20s, .tls = {.ca_file = files().ca.certificate}});
  const std::vector<std::string_view> body{"body"};
  EXPECT_EQ(http.post(body).status, 200);
  EXPECT_THAT(proxied().back(), HasSubstr("CONNECT 127.0.0.1:" + std::to_string(port)));
  EXPECT_THAT(proxied().back(), Not(HasSubstr("secret")));
}

TEST_F(ProxyTest, GrpcWithoutTlsGoesThroughATunnelToo) {
  const int port = server.listen({{"http", 2}});
  const Environment environment({{"http_proxy", url_of(proxy())}});
  GrpcClient grpc({.url = url_of(port), .method = "/a.B/C", .timeout = 20s});
  const std::vector<std::string_view> body{"body"};
  for (int i = 0; i < 3; ++i) EXPECT_EQ(grpc.call(body).error, "");
  EXPECT_EQ(proxied().size(), 1u);
}

TEST_F(ProxyTest, PlainHttpIsAskedOfTheProxy) {
  HttpServer proxying;
  const Environment environment({{"http_proxy", proxying.url("")}});
  HttpClient http({.url = "http://backend.example:4318/v1/traces", .content_type = "x/y", .timeout = 20s});
  const std::vector<std::string_view> body{"body"};
  EXPECT_EQ(http.post(body).status, 200);
  EXPECT_EQ(proxying.requests().at(0).target, "http://backend.example:4318/v1/traces");
}

TEST_F(ProxyTest, IsNotAskedWhereItIsExemptOrNotMeant) {
  HttpServer backend;
  const std::string nowhere = url_of(HttpServer::closed_port());
  const std::vector<std::string_view> body{"body"};
  for (const auto& set : std::vector<std::vector<std::pair<std::string, std::string>>>{
           {{"http_proxy", nowhere}, {"no_proxy", "127.0.0.1"}},
           {{"http_proxy", nowhere}, {"NO_PROXY", "*"}},
           {{"HTTP_PROXY", nowhere}},   // a CGI program's is its caller's to set
           {{"https_proxy", nowhere}},  // for https
           {{"http_proxy", ""}}}) {
    const Environment environment(set);
    HttpClient http({.url = backend.url(), .content_type = "x/y", .timeout = 20s});
    EXPECT_EQ(http.post(body).status, 200) << set[0].first;
  }
  const Environment environment({{"http_proxy", nowhere}});
  HttpClient http({.url = backend.url(), .content_type = "x/y", .timeout = 20s});
  EXPECT_EQ(http.post(body).failure, Failure::connect) << "a proxy is asked for this machine's addresses too";
}

TEST_F(ProxyTest, TheEnvironmentIsReadOnce) {
  HttpServer backend;
  std::optional<HttpClient> http;
  {
    const Environment environment({});
    http.emplace(HttpSettings{.url = backend.url(), .content_type = "x/y", .timeout = 20s});
  }
  const Environment environment({{"http_proxy", url_of(HttpServer::closed_port())}});
  const std::vector<std::string_view> body{"body"};
  EXPECT_EQ(http->post(body).status, 200);
}

TEST_F(ProxyTest, ItsPasswordIsInNoMessage) {
  const std::vector<std::string_view> body{"body"};
  for (const std::string& proxy_url : {"http://user:hunter2@127.0.0.1:" + std::to_string(HttpServer::closed_port()),
                                       "http://user:hunter2@127.0.0.1:" + std::to_string(proxy(407)),
                                       std::string("gopher://user:hunter2@127.0.0.1:1"), std::string("http://user:hunter2@127.0.0.1:x"),
                                       std::string("http://user:hunter2@[::1:1"), std::string("http://user:hunter2@no such host")}) {
    const Environment environment({{"https_proxy", proxy_url}});
    HttpClient http({.url = "https://127.0.0.1:1/", .content_type = "x/y", .timeout = 20s});
    const HttpResponse& response = http.post(body);
    EXPECT_NE(response.failure, Failure::none) << proxy_url;
    EXPECT_NE(response.error, "");
    EXPECT_THAT(response.error, Not(HasSubstr("hunter2"))) << proxy_url;
  }
}

}  // namespace
}  // namespace waymark::transport
