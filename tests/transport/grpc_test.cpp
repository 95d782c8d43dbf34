#include "transport/grpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "support/holds.h"
#include "support/http_server.h"
#include "support/scripted_server.h"
#include "transport/gzip.h"
#include "waymark/error.h"

namespace waymark::transport {
namespace {

using testing::HttpServer;
using testing::ScriptedServer;
using testing::to_base64;
using namespace std::chrono_literals;
using namespace std::string_literals;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

constexpr auto kMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

Json headers(std::vector<std::pair<std::string, std::string>> fields, bool end = false) {
  Json list = Json::array();
  for (auto& [name, value] : fields) list.push_back({name, value});
  return {{"headers", std::move(list)}, {"end", end}};
}
Json begin() { return headers({{":status", "200"}, {"content-type", "application/grpc"}}); }
Json status(const std::string& number, std::vector<std::pair<std::string, std::string>> more = {}) {
  more.insert(more.begin(), {"grpc-status", number});
  return headers(std::move(more), true);
}
Json data(const std::string& bytes) { return {{"data", to_base64(bytes)}}; }
std::string frame(const std::string& message, char flag = 0) {
  const auto n = message.size();
  return std::string{flag, static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)} + message;
}

class GrpcTest : public ::testing::Test {
 protected:
  GrpcTest() : server("wire_server.py"), port(server.listen({{"http", 2}})) {}

  [[nodiscard]] GrpcSettings settings() const {
    return {.url = "http://127.0.0.1:" + std::to_string(port), .method = kMethod, .timeout = 30s};
  }
  GrpcResponse call(const std::vector<Json>& steps) {
    server.script(Json::array({Json(steps)}));
    GrpcClient client(settings());
    return client.call(request);
  }
  // Header fields of the n-th request. Each came once.
  std::map<std::string, std::string> fields(std::size_t n) {
    std::map<std::string, std::string> found;
    const Json seen = server.ask({{"do", "seen"}});
    for (const auto& pair : seen["requests"].at(n)["headers"]) {
      EXPECT_TRUE(found.emplace(pair[0], pair[1]).second) << pair[0];
    }
    return found;
  }
  std::string body(std::size_t n) {
    return from_base64(server.ask({{"do", "seen"}})["requests"].at(n)["body"].get<std::string>()).value();
  }

  ScriptedServer server;
  int port;
  std::vector<std::string_view> request{"mess", "", "age"};
};

TEST_F(GrpcTest, CallsTheMethodWithItsFields) {
  HOLDS("GC-01", "GC-05", "GC-06", "GC-09", "GC-10", "GC-11", "GC-29");
  GrpcSettings with = settings();
  with.url += "/ignored?x";
  with.timeout = 10s;
  GrpcClient client(with);
  const GrpcResponse& response = client.call(request);
  EXPECT_EQ(response.status, GrpcStatus::ok) << response.error;
  EXPECT_EQ(response.message, "");
  auto sent = fields(0);
  EXPECT_THAT(sent["user-agent"], ::testing::MatchesRegex(R"(OTel-OTLP-Exporter-Cpp-Waymark/[0-9]+\.[0-9]+\.[0-9]+)"));
  sent.erase("user-agent");
  const std::map<std::string, std::string> expected{
      {":method", "POST"},
      {":scheme", "http"},
      {":path", kMethod},
      {":authority", "127.0.0.1:" + std::to_string(port)},
      {"te", "trailers"},
      {"content-type", "application/grpc+proto"},
      {"grpc-accept-encoding", "identity,gzip"},
      {"grpc-timeout", "10000m"},
      {"content-length", std::to_string(5 + 7)},
      {"accept", "*/*"},
  };
  EXPECT_EQ(sent, expected);
}

TEST_F(GrpcTest, TheBodyIsOnePrefixedMessage) {
  HOLDS("GC-07", "GC-09");
  GrpcClient client(settings());
  static_cast<void>(client.call(request));
  EXPECT_EQ(body(0), "\0\0\0\0\x07message"s);
  const std::string large(70'000, 'x');
  const std::vector<std::string_view> pieces{large};
  static_cast<void>(client.call(pieces));
  EXPECT_EQ(body(1), "\0\0\x01\x11\x70"s + large);
}

TEST_F(GrpcTest, CompressesTheMessageAndNotTheBody) {
  HOLDS("GC-08");
  GrpcSettings with = settings();
  with.gzip = true;
  GrpcClient client(with);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(client.call(request).status, GrpcStatus::ok);
    auto sent = fields(i);
    EXPECT_EQ(sent["grpc-encoding"], "gzip");
    EXPECT_EQ(sent.count("content-encoding"), 0u);
    const std::string bytes = body(i);
    EXPECT_EQ(bytes[0], 1);
    EXPECT_EQ(bytes.size(), 5u + static_cast<unsigned char>(bytes[4]));
    std::string message;
    EXPECT_EQ(gunzip(std::string_view(bytes).substr(5), 100, message), Unpacked::whole);
    EXPECT_EQ(message, "message");
  }
}

TEST_F(GrpcTest, HeadersBecomeMetadata) {
  HOLDS("GC-12", "GC-13");
  GrpcSettings with = settings();
  with.headers = {{"Api-Key", "x y"}, {"Trace-BIN", "\xff\x01\x02\x03"}, {"TE", "gzip"}, {"Content-Type", "text/html"},
                  {"User-Agent", "Mine/1.0"}};
  GrpcClient client(with);
  static_cast<void>(client.call(request));
  auto sent = fields(0);
  EXPECT_EQ(sent["api-key"], "x y");
  EXPECT_EQ(sent["trace-bin"], "/wECAw") << "base64 without padding";
  EXPECT_EQ(sent["te"], "trailers");
  EXPECT_EQ(sent["content-type"], "application/grpc+proto");
  EXPECT_THAT(sent["user-agent"], ::testing::StartsWith("Mine/1.0 OTel-OTLP-Exporter-Cpp-Waymark/"));
}

TEST_F(GrpcTest, HeadersCanBeReplaced) {
  GrpcSettings with = settings();
  with.headers = {{"authorization", "old"}};
  GrpcClient client(with);
  static_cast<void>(client.call(request));
  client.replace_headers({{"authorization", "new"}});
  EXPECT_THROW(client.replace_headers({{"authorization", "sec\nret"}}), Error);
  EXPECT_EQ(client.call(request).status, GrpcStatus::ok);
  EXPECT_EQ(fields(0)["authorization"], "old");
  EXPECT_EQ(fields(1)["authorization"], "new");
  EXPECT_EQ(fields(1)["grpc-accept-encoding"], "identity,gzip");
}

TEST_F(GrpcTest, RefusesWhatIsNoMetadata) {
  HOLDS("GC-12");
  for (const auto& [name, value] : HeaderList{{"grpc-timeout", "secret"}, {"a b", "secret"}, {"a!b", "secret"}, {"", "secret"},
                                              {"a", "secret\r\nb: c"}, {"a", std::string("secret\0", 7)}, {"a", "secret\xc3\xa9"}}) {
    GrpcSettings with = settings();
    with.headers = {{name, value}};
    try {
      const GrpcClient client(with);
      ADD_FAILURE() << "accepted: " << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_header);
      EXPECT_THAT(error.what(), Not(HasSubstr("secret")));
    }
  }
}

TEST_F(GrpcTest, KeepsItsConnection) {
  HOLDS("HC-15");
  GrpcClient client(settings());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(client.call(request).error, "");
  const Json seen = server.ask({{"do", "seen"}});
  EXPECT_EQ(seen["requests"].size(), 10u);
  EXPECT_EQ(seen["connections"], 1);
}

TEST_F(GrpcTest, SendsOnANewConnectionWhereTheKeptOneWasClosed) {
  GrpcClient client(settings());
  for (int i = 0; i < 3; ++i) {
    server.script(Json::array({Json::array({begin(), data(frame("")), status("0"), Json{{"hold", true}}, Json{{"close", true}}})}));
    EXPECT_EQ(client.call(request).error, "");
    EXPECT_TRUE(server.wait({{"holds", i + 1}}));
    server.release();
    EXPECT_TRUE(server.wait({{"closes", i + 1}}));
    EXPECT_EQ(client.call(request).error, "");
  }
  const Json seen = server.ask({{"do", "seen"}});
  EXPECT_EQ(seen["requests"].size(), 6u);
  EXPECT_EQ(seen["connections"], 4);
  for (const auto& one : seen["requests"]) EXPECT_EQ(one["body"], seen["requests"][0]["body"]);
}

TEST_F(GrpcTest, ReadsTheResponseMessageHoweverItIsCut) {
  HOLDS("GC-20", "GC-30");
  const std::string message = "\x0a\x02\x08\x03" + std::string(300, 'x');
  for (const int size : {1, 2, 4, 5, 6, 16384}) {
    const GrpcResponse response = call({begin(), {{"data", to_base64(frame(message))}, {"frame", size}}, status("0")});
    EXPECT_EQ(response.status, GrpcStatus::ok) << size << response.error;
    EXPECT_EQ(response.message, message);
  }
}

TEST_F(GrpcTest, TheStatusInTheTrailersDecides) {
  HOLDS("GC-14");
  const GrpcResponse response = call({begin(), data(frame("")), status("14", {{"grpc-message", "come back"}})});
  EXPECT_EQ(response.status, GrpcStatus::unavailable);
  EXPECT_EQ(response.error, "come back");
  EXPECT_FALSE(response.synthesized);
}

TEST_F(GrpcTest, AResponseMayBeTrailersOnly) {
  HOLDS("GC-14");
  const GrpcResponse response = call({headers(
      {{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "7"}, {"grpc-message", "no"}}, true)});
  EXPECT_EQ(response.status, GrpcStatus::permission_denied);
  EXPECT_EQ(response.error, "no");
}

TEST_F(GrpcTest, AStatusThatIsNoNumberOrTooLargeIsUnknown) {
  for (const char* text : {"17", "4294967296", "-1", "OK", "", "0x0", "3 "}) {
    const auto found = call({begin(), status(text)}).status;
    EXPECT_EQ(found, std::string(text) == "3 " ? GrpcStatus::invalid_argument : GrpcStatus::unknown) << text;
  }
}

TEST_F(GrpcTest, WithoutAStatusTheHttpStatusDecides) {
  HOLDS("GC-15");
  const std::map<std::string, GrpcStatus> table{
      {"400", GrpcStatus::internal},    {"401", GrpcStatus::unauthenticated}, {"403", GrpcStatus::permission_denied},
      {"404", GrpcStatus::unimplemented}, {"429", GrpcStatus::unavailable},   {"431", GrpcStatus::internal},
      {"502", GrpcStatus::unavailable}, {"503", GrpcStatus::unavailable},     {"504", GrpcStatus::unavailable},
      {"500", GrpcStatus::unknown},     {"200", GrpcStatus::unknown},         {"302", GrpcStatus::unknown}};
  for (const auto& [http, expected] : table) {
    const GrpcResponse response = call({headers({{":status", http}, {"content-type", "text/html"}}), {{"data", to_base64("<html>")}, {"end", true}}});
    EXPECT_EQ(response.status, expected) << http;
    EXPECT_TRUE(response.synthesized);
    EXPECT_THAT(response.error, HasSubstr("HTTP " + http));
  }
  const GrpcResponse given = call({headers({{":status", "503"}, {"grpc-status", "3"}}, true)});
  EXPECT_EQ(given.status, GrpcStatus::invalid_argument) << "a status that is given wins";
}

TEST_F(GrpcTest, TheMessageIsPercentDecodedAsFarAsItCanBe) {
  HOLDS("GC-16");
  EXPECT_EQ(call({begin(), status("3", {{"grpc-message", "bad%ZZ%E2%82%AC%"}})}).error, "bad%ZZ\xe2\x82\xac%");
}

TEST_F(GrpcTest, ReadsTheDetailsPaddedOrNot) {
  HOLDS("GC-13");
  EXPECT_EQ(call({begin(), status("14", {{"grpc-status-details-bin", "CA4="}})}).details, "\x08\x0e");
  EXPECT_EQ(call({begin(), status("14", {{"grpc-status-details-bin", "CA4"}})}).details, "\x08\x0e");
  const GrpcResponse damaged = call({begin(), status("14", {{"grpc-status-details-bin", "!!"}})});
  EXPECT_EQ(damaged.status, GrpcStatus::unavailable);
  EXPECT_EQ(damaged.details, "");
}

TEST_F(GrpcTest, ReadsAGzippedResponse) {
  HOLDS("GC-10");
  Gzip gzip;
  const std::vector<std::string_view> plain{"hello"};
  const std::string packed(gzip.compress(plain));
  const Json with_gzip = headers({{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-encoding", "gzip"}});
  EXPECT_EQ(call({with_gzip, data(frame(packed, 1)), status("0")}).message, "hello");
  EXPECT_EQ(call({with_gzip, data(frame("plain", 0)), status("0")}).message, "plain");
}

TEST_F(GrpcTest, AResponseInAnotherCompressionIsInternal) {
  HOLDS("GC-10", "GC-21");
  const auto with = [](const std::string& encoding) {
    return headers({{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-encoding", encoding}});
  };
  for (const Json& first : {with("snappy"), with("identity"), with("gzip"), begin()}) {
    const GrpcResponse response = call({first, data(frame("not packed", 1)), status("0")});
    EXPECT_EQ(response.status, GrpcStatus::internal) << first;
    EXPECT_FALSE(response.error.empty());
  }
  EXPECT_EQ(call({begin(), data(frame("x", 2)), status("0")}).status, GrpcStatus::internal);
}

TEST_F(GrpcTest, OkWithoutAMessageOrWithTwoIsInternal) {
  HOLDS("GC-21");
  EXPECT_EQ(call({begin(), status("0")}).status, GrpcStatus::internal);
  EXPECT_EQ(call({begin(), data(frame("") + frame("")), status("0")}).status, GrpcStatus::internal);
  EXPECT_EQ(call({begin(), data("\0\0\0"s), status("0")}).status, GrpcStatus::internal);
  EXPECT_EQ(call({begin(), data("\0\0\0\0\x05" "ab"s), status("0")}).status, GrpcStatus::internal);
}

TEST_F(GrpcTest, AMessageThatAnnouncesTooMuchIsNotWaitedFor) {
  HOLDS("GC-24");
  // The server says 1 GiB and then nothing: without a limit this would end by the timeout, as another status.
  const GrpcResponse response = call({begin(), data("\0\x40\0\0\0"s), {{"hold", true}}});
  EXPECT_EQ(response.status, GrpcStatus::resource_exhausted);
  EXPECT_EQ(response.failure, Failure::too_large);
  server.release();
}

TEST_F(GrpcTest, AMessageThatIsTooLargeOnceUnpackedIsRefused) {
  HOLDS("GC-24");
  Gzip gzip;
  const std::string zeros(64 << 20, '\0');
  const std::vector<std::string_view> plain{zeros};
  const std::string packed(gzip.compress(plain));
  const GrpcResponse response = call({headers({{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-encoding", "gzip"}}),
                                      data(frame(packed, 1)), status("0")});
  EXPECT_EQ(response.status, GrpcStatus::resource_exhausted);
  EXPECT_EQ(response.failure, Failure::too_large);
  EXPECT_EQ(response.message, "");
}

TEST_F(GrpcTest, EndlessFieldsAreRefused) {
  HOLDS("GC-28");
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < 100; ++i) many.emplace_back("grpc-x" + std::to_string(i), std::string(1000, 'x'));
  const GrpcResponse response = call({begin(), data(frame("")), status("0", many)});
  EXPECT_NE(response.status, GrpcStatus::ok);
  EXPECT_TRUE(response.synthesized);
}

TEST_F(GrpcTest, AResetStreamIsTheStatusOfItsCode) {
  HOLDS("GC-17");
  // To libcurl NO_ERROR is an end, so that it is one before the status: the others are those of gRPC's table.
  const std::map<int, GrpcStatus> table{{0, GrpcStatus::unavailable}, {1, GrpcStatus::internal}, {2, GrpcStatus::internal},
                                        {3, GrpcStatus::internal}, {5, GrpcStatus::internal}, {8, GrpcStatus::cancelled},
                                        {11, GrpcStatus::resource_exhausted}, {12, GrpcStatus::permission_denied}};
  for (const auto& [code, expected] : table) {
    const GrpcResponse response = call({begin(), {{"reset", code}}});
    EXPECT_EQ(response.status, expected) << code << ' ' << response.error;
    EXPECT_TRUE(response.synthesized);
    EXPECT_EQ(response.calmed, code == 11);
  }
  EXPECT_EQ(grpc_status_of_reset(7), GrpcStatus::unavailable);
}

TEST_F(GrpcTest, ARefusedStreamIsSentAgainOrUnavailable) {
  HOLDS("GC-17", "GC-18");
  const GrpcResponse response = call({{{"reset", 7}}});
  EXPECT_THAT(response.status, AnyOf(GrpcStatus::unavailable, GrpcStatus::ok)) << "libcurl may try again by itself";
}

TEST_F(GrpcTest, AStreamAboveTheGoAwayIsUnavailableOrSentAgainElsewhere) {
  HOLDS("GC-18");
  GrpcClient client(settings());
  EXPECT_EQ(client.call(request).status, GrpcStatus::ok);
  server.script(Json::array({Json::array({Json{{"goaway", 0}, {"last", 1}}, Json{{"close", true}}})}));
  const GrpcStatus first = client.call(request).status;
  EXPECT_THAT(first, AnyOf(GrpcStatus::unavailable, GrpcStatus::ok));
  EXPECT_EQ(client.call(request).status, GrpcStatus::ok) << "on a new connection";
  EXPECT_GE(server.ask({{"do", "seen"}})["connections"], 2);
}

TEST_F(GrpcTest, AConnectionThatEndsIsUnavailable) {
  HOLDS("RT-08");
  const GrpcResponse response = call({begin(), {{"close", true}}});
  EXPECT_EQ(response.status, GrpcStatus::unavailable) << response.error;
  EXPECT_EQ(response.failure, Failure::closed);
}

TEST_F(GrpcTest, AResponseThatEndsBeforeItsStatusIsUnavailable) {
  const GrpcResponse response = call({begin(), data(frame("")), {{"close", true}}});
  EXPECT_EQ(response.status, GrpcStatus::unavailable);
  EXPECT_EQ(response.failure, Failure::closed);
  EXPECT_EQ(call({begin(), {{"data", ""}, {"end", true}}}).status, GrpcStatus::unavailable);
}

TEST_F(GrpcTest, AServerThatHangsIsDeadlineExceeded) {
  HOLDS("GC-19", "RT-20");
  for (const auto& steps : {std::vector<Json>{{{"hold", true}}}, std::vector<Json>{begin(), {{"hold", true}}}}) {
    server.script(Json::array({Json(steps)}));
    GrpcSettings with = settings();
    with.timeout = 50ms;
    GrpcClient client(with);
    const GrpcResponse& response = client.call(request);
    EXPECT_EQ(response.status, GrpcStatus::deadline_exceeded) << response.error;
    EXPECT_EQ(response.failure, Failure::timeout);
  }
  server.release();
}

TEST_F(GrpcTest, AbortEndsACallThatHangs) {
  server.script(Json::array({Json::array({Json{{"hold", true}}})}));
  GrpcSettings with = settings();
  with.timeout = 0s;
  GrpcClient client(with);
  std::thread waiting([&] { EXPECT_EQ(client.call(request).failure, Failure::aborted); });
  EXPECT_TRUE(server.wait({{"holds", 1}}));
  client.abort();
  waiting.join();
  EXPECT_EQ(client.call(request).failure, Failure::aborted);
  EXPECT_EQ(fields(0).count("grpc-timeout"), 0u) << "no limit, none said";
  server.release();
}

TEST_F(GrpcTest, NothingListensThere) {
  GrpcSettings with = settings();
  with.url = "http://127.0.0.1:" + std::to_string(HttpServer::closed_port());
  GrpcClient client(with);
  const GrpcResponse& response = client.call(request);
  EXPECT_EQ(response.status, GrpcStatus::unavailable);
  EXPECT_EQ(response.failure, Failure::connect);
}

TEST_F(GrpcTest, AServerWithoutHttp2IsUnavailable) {
  HOLDS("GC-06");
  HttpServer old;
  GrpcSettings with = settings();
  with.url = old.url("");
  with.timeout = 5s;
  GrpcClient client(with);
  const GrpcResponse& response = client.call(request);
  EXPECT_EQ(response.status, GrpcStatus::unavailable) << response.error;
  EXPECT_FALSE(response.error.empty());
}

TEST(GrpcTimeoutTest, HasEightDigitsAndAUnit) {
  HOLDS("GC-11");
  EXPECT_EQ(grpc_timeout(10s), "10000m");
  EXPECT_EQ(grpc_timeout(1ns), "1m") << "rounded up";
  EXPECT_EQ(grpc_timeout(1500us), "2m");
  EXPECT_EQ(grpc_timeout(99'999'999ms), "99999999m");
  EXPECT_EQ(grpc_timeout(100'000'000ms), "100000S");
  EXPECT_EQ(grpc_timeout(std::chrono::nanoseconds::max()), "2562048H");
}

TEST(PercentTest, EscapesThatAreNoneStay) {
  HOLDS("GC-16");
  EXPECT_EQ(percent_decoded("a%20b%2"), "a b%2");
  EXPECT_EQ(percent_decoded("%%41%4"), "%A%4");
  EXPECT_EQ(percent_decoded(""), "");
}

TEST(GunzipTest, StopsAtTheLimitAndAtDamage) {
  Gzip gzip;
  const std::string text(1000, 'a');
  const std::vector<std::string_view> pieces{text};
  const std::string packed(gzip.compress(pieces));
  std::string out;
  EXPECT_EQ(gunzip(packed, 1000, out), Unpacked::whole);
  EXPECT_EQ(out, text);
  EXPECT_EQ(gunzip(packed, 999, out), Unpacked::too_large);
  EXPECT_EQ(gunzip(packed.substr(0, packed.size() - 1), 1000, out), Unpacked::damaged);
  EXPECT_EQ(gunzip(packed + "x", 1000, out), Unpacked::damaged);
  EXPECT_EQ(gunzip("", 1000, out), Unpacked::damaged);
}

}  // namespace
}  // namespace waymark::transport
