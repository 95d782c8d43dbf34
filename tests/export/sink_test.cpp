#include "export/sink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/certificates.h"
#include "support/holds.h"
#include "support/http_server.h"
#include "support/official.h"
#include "support/scripted_server.h"
#include "waymark/error.h"

namespace waymark::delivery {
namespace {

using testing::HttpReply;
using testing::HttpServer;
using testing::official_json;
using testing::official_random;
using testing::ScriptedServer;
using namespace std::chrono_literals;
using namespace std::string_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

DestinationConfig to(std::string url, Signal signal = Signal::traces, Protocol protocol = Protocol::http_protobuf) {
  DestinationConfig config;
  config.name = "backend";
  config.signal = signal;
  config.protocol = protocol;
  config.url = std::move(url);
  config.timeout = 30s;
  return config;
}

Delivery send(Sink& sink, std::string_view request = "request") {
  const std::vector<std::string_view> pieces{request.substr(0, request.size() / 2), request.substr(request.size() / 2)};
  return sink.send(pieces);
}

Delivery answer(const HttpReply& reply, Signal signal = Signal::traces) {
  HttpServer server;
  server.script({reply});
  return send(*open_sink(to(server.url(), signal)));
}

TEST(HttpSinkTest, SaysWhichEncodingItSends) {
  HOLDS("HC-03", "HC-04");
  HttpServer server;
  EXPECT_EQ(send(*open_sink(to(server.url()))).outcome, Outcome::delivered);
  EXPECT_EQ(send(*open_sink(to(server.url(), Signal::logs, Protocol::http_json)), "{}").outcome, Outcome::delivered);
  EXPECT_EQ(*server.requests().at(0).header("Content-Type"), "application/x-protobuf");
  EXPECT_EQ(*server.requests().at(1).header("Content-Type"), "application/json");
  EXPECT_EQ(server.requests().at(1).body, "{}");
}

TEST(HttpSinkTest, TellsRefusalsThatAreNotAboutTheRecords) {
  const std::map<int, Refusal> table{{400, Refusal::none}, {401, Refusal::unauthorized}, {403, Refusal::unauthorized},
                                     {404, Refusal::none}, {407, Refusal::unauthorized}, {408, Refusal::none},
                                     {413, Refusal::too_large}, {500, Refusal::none}};
  for (const auto& [status, refusal] : table) {
    const Delivery delivery = answer({.status = status});
    EXPECT_EQ(delivery.outcome, Outcome::rejected) << status;
    EXPECT_EQ(delivery.refusal, refusal) << status;
    EXPECT_EQ(delivery.status, status);
    EXPECT_EQ(delivery.message, "HTTP " + std::to_string(status));
    EXPECT_EQ(delivery.unsupported, status == 404);
  }
}

TEST(HttpSinkTest, TellsTheWordBesideTheStatus) {
  const Delivery delivery = answer({.status = 409,
                                    .headers = {{"Content-Type", "application/json"}},
                                    .body = R"({"code":"transaction_conflict","message":"try again"})"});
  EXPECT_EQ(delivery.code, "transaction_conflict");
  EXPECT_EQ(delivery.message, "HTTP 409: try again");
  EXPECT_EQ(answer({.status = 500, .headers = {{"Content-Type", "application/json"}}, .body = R"({"code":13})"}).code, "");
}

TEST(HttpSinkTest, WaitsAsLongAsTheHeaderSaysElseAsTheBodySays) {
  HOLDS("RT-04", "JS-20");
  const std::string body = R"({"code":14,"message":"busy","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.5s"}]})";
  const std::vector<std::pair<std::string, std::string>> json{{"Content-Type", "application/json"}};
  auto with_header = json;
  with_header.emplace_back("Retry-After", "7");
  EXPECT_EQ(answer({.status = 503, .headers = with_header, .body = body}).retry_after, 7s);
  EXPECT_EQ(answer({.status = 503, .headers = json, .body = body}).retry_after, 3500ms);
  EXPECT_EQ(answer({.status = 503}).retry_after, 0s);
  EXPECT_EQ(answer({.status = 503}).outcome, Outcome::retry);
}

TEST(HttpSinkTest, ARedirectIsSaidAndNotFollowed) {
  HOLDS("HC-17");
  HttpServer elsewhere;
  const Delivery delivery = answer({.status = 308, .headers = {{"Location", elsewhere.url()}}});
  EXPECT_EQ(delivery.outcome, Outcome::rejected);
  EXPECT_THAT(delivery.message, HasSubstr("redirects are not followed"));
  EXPECT_TRUE(elsewhere.requests().empty());
}

TEST(HttpSinkTest, AResponseThatIsTooMuchIsNoReasonToSendAgain) {
  HOLDS("HC-11");
  for (const auto broken : {HttpReply::Break::endless_body, HttpReply::Break::endless_headers}) {
    const Delivery delivery = answer({.broken = broken});
    EXPECT_EQ(delivery.outcome, Outcome::rejected);
    EXPECT_THAT(delivery.message, HasSubstr("larger than"));
  }
}

TEST(HttpSinkTest, HowLongAResponseMayBeIsTheConfigurations) {
  HOLDS("HC-28");
  HttpServer server;
  server.standard({.body = std::string(2000, 'x')});
  DestinationConfig config = to(server.url());
  EXPECT_EQ(send(*open_sink(config)).outcome, Outcome::delivered);
  config.max_response_bytes = 1999;
  const Delivery delivery = send(*open_sink(config));
  EXPECT_EQ(delivery.outcome, Outcome::rejected);
  EXPECT_THAT(delivery.message, HasSubstr("larger than"));
  config.max_response_bytes = 2000;
  EXPECT_EQ(send(*open_sink(config)).outcome, Outcome::delivered);
}

TEST(HttpSinkTest, ARefusalThatCannotBeReadIsTheRefusalThatItsStatusSays) {
  const std::vector<std::pair<std::string, std::string>> gzip{{"Content-Encoding", "gzip"}};
  EXPECT_EQ(answer({.status = 503, .headers = gzip, .body = "raw"}).outcome, Outcome::retry);
  EXPECT_EQ(answer({.status = 429, .body = std::string(5 << 20, 'x')}).outcome, Outcome::retry);
  EXPECT_EQ(answer({.status = 401, .headers = gzip, .body = "raw"}).refusal, Refusal::unauthorized);
  EXPECT_EQ(answer({.status = 200, .headers = gzip, .body = "raw"}).outcome, Outcome::rejected) << "sent again, it may be there twice";
}

TEST(HttpSinkTest, AConnectionThatEndsIsAReasonToSendAgain) {
  HOLDS("RT-08", "RT-09");
  EXPECT_EQ(answer({.broken = HttpReply::Break::no_response}).outcome, Outcome::retry);
  EXPECT_EQ(answer({.body = "SSH-2.0-OpenSSH\r\n", .broken = HttpReply::Break::raw}).outcome, Outcome::retry);
  const Delivery nobody = send(*open_sink(to("http://127.0.0.1:" + std::to_string(HttpServer::closed_port()) + "/")));
  EXPECT_EQ(nobody.outcome, Outcome::retry);
  EXPECT_TRUE(nobody.unreachable);
  EXPECT_EQ(nobody.status, 0);
}

TEST(HttpSinkTest, WhatItSentDoesNotComeBackInAMessage) {
  HttpServer server;
  server.standard({.status = 400, .headers = {{"Content-Type", "application/json"}}, .body = R"({"message":"bad token abcdefgh and ijklmnop"})"});
  DestinationConfig config = to(server.url());
  config.headers = {{"Authorization", "Bearer abcdefgh"}};
  const auto sink = open_sink(config);
  EXPECT_EQ(send(*sink).message, "HTTP 400: bad token *** and ijklmnop");
  sink->replace_headers({{"Authorization", "Bearer ijklmnop"}});
  EXPECT_EQ(send(*sink).message, "HTTP 400: bad token abcdefgh and ***");
  EXPECT_EQ(*server.requests().at(0).header("Authorization"), "Bearer abcdefgh");
  EXPECT_EQ(*server.requests().at(1).header("Authorization"), "Bearer ijklmnop");
}

TEST(HttpSinkTest, NoPartOfATokenThatIsLongerThanAMessageComesBackInOne) {
  std::string token;
  for (int i = 0; token.size() < 900; ++i) token += std::to_string(i) + "_";
  HttpServer server;
  DestinationConfig config = to(server.url());
  config.headers = {{"Authorization", "Bearer " + token}};
  for (const int status : {200, 400}) {
    const std::string words = "bad token " + token + " here";
    const Json body = status == 200 ? Json{{"partialSuccess", {{"rejectedSpans", 1}, {"errorMessage", words}}}} : Json{{"message", words}};
    server.script({{.status = status, .headers = {{"Content-Type", "application/json"}}, .body = body.dump()}});
    EXPECT_EQ(send(*open_sink(config)).message, (status == 200 ? "" : "HTTP 400: ") + "bad token *** here"s);
  }
}

TEST(SinkTest, ATlsFileThatIsMissingIsSaidAtOnce) {
  for (const Protocol protocol : {Protocol::http_protobuf, Protocol::http_json, Protocol::grpc}) {
    DestinationConfig config = to("https://127.0.0.1:1", Signal::traces, protocol);
    config.tls.ca_file = "/nonexistent/ca.pem";
    try {
      static_cast<void>(open_sink(config));
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("tls.ca_file"));
      EXPECT_THAT(error.what(), HasSubstr("/nonexistent/ca.pem"));
    }
  }
}

// A real gRPC server with the official services.
class GrpcSinkTest : public ::testing::Test {
 protected:
  [[nodiscard]] DestinationConfig config(Signal signal = Signal::traces) const {
    return to("http://127.0.0.1:" + std::to_string(port), signal, Protocol::grpc);
  }
  Delivery answer(const Json& reply, Signal signal = Signal::traces) {
    server.script(Json::array({reply}));
    return send(*open_sink(config(signal)), "");
  }
  Json calls() { return server.ask({{"do", "calls"}})["calls"]; }

  ScriptedServer server{"grpc_server.py"};
  int port = server.listen(Json::object());
};

TEST_F(GrpcSinkTest, EverySignalArrivesAsItWasSent) {
  HOLDS("GC-01", "GC-07", "GC-08", "GC-20");
  for (const bool gzip : {false, true}) {
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      DestinationConfig with = config(signal);
      with.gzip = gzip;
      const auto sink = open_sink(with);
      for (const std::string& request : official_random(signal, 7, 20)) {
        EXPECT_EQ(send(*sink, request).message, "");
        const Json seen = calls();
        const Json& last = seen.back();
        EXPECT_EQ(last["method"], signal_name(signal));
        const std::string arrived = from_base64(last["message"].get<std::string>()).value();
        EXPECT_EQ(Json::parse(official_json(signal, arrived)), Json::parse(official_json(signal, request)));
      }
    }
  }
  EXPECT_EQ(send(*open_sink(config(Signal::metrics)), "").outcome, Outcome::delivered);
  EXPECT_EQ(calls().back()["method"], "metrics");
}

TEST_F(GrpcSinkTest, TheServerKnowsHowLongItIsWaitedFor) {
  HOLDS("GC-11");
  DestinationConfig with = config();
  with.timeout = 20s;
  with.headers = {{"X-Key", "abc"}};
  EXPECT_EQ(send(*open_sink(with), "").outcome, Outcome::delivered);
  const Json call = calls().at(0);
  EXPECT_LE(call["remaining"].get<double>(), 20.0);
  EXPECT_GT(call["remaining"].get<double>(), 0.0);
  EXPECT_THAT(call["metadata"].get<std::vector<std::vector<std::string>>>(), ::testing::Contains(std::vector<std::string>{"x-key", "abc"}));
}

TEST_F(GrpcSinkTest, EachStatusIsRetriedOrNot) {
  HOLDS("RT-10", "RT-11", "RT-12");
  struct Row {
    const char* code;
    int number;
    Outcome outcome;
    Refusal refusal = Refusal::none;
  };
  for (const auto& [code, number, outcome, refusal] :
       {Row{"CANCELLED", 1, Outcome::retry}, Row{"UNKNOWN", 2, Outcome::rejected}, Row{"INVALID_ARGUMENT", 3, Outcome::rejected},
        Row{"DEADLINE_EXCEEDED", 4, Outcome::retry}, Row{"NOT_FOUND", 5, Outcome::rejected}, Row{"ALREADY_EXISTS", 6, Outcome::rejected},
        Row{"PERMISSION_DENIED", 7, Outcome::rejected, Refusal::unauthorized}, Row{"RESOURCE_EXHAUSTED", 8, Outcome::rejected},
        Row{"FAILED_PRECONDITION", 9, Outcome::rejected}, Row{"ABORTED", 10, Outcome::retry}, Row{"OUT_OF_RANGE", 11, Outcome::retry},
        Row{"UNIMPLEMENTED", 12, Outcome::rejected}, Row{"INTERNAL", 13, Outcome::rejected}, Row{"UNAVAILABLE", 14, Outcome::retry},
        Row{"DATA_LOSS", 15, Outcome::retry}, Row{"UNAUTHENTICATED", 16, Outcome::rejected, Refusal::unauthorized}}) {
    const Delivery delivery = answer({{"code", code}, {"message", "because"}});
    EXPECT_EQ(delivery.outcome, outcome) << code;
    EXPECT_EQ(delivery.refusal, refusal) << code;
    EXPECT_EQ(delivery.status, number);
    EXPECT_EQ(delivery.message, "gRPC "s + code + ": because");
    EXPECT_EQ(delivery.unsupported, number == 12);
  }
}

TEST_F(GrpcSinkTest, ReadsHowLongToWait) {
  HOLDS("GC-22", "RT-11", "RT-15", "RT-16");
  const Delivery exhausted = answer({{"code", "RESOURCE_EXHAUSTED"}, {"retry_after", 3}});
  EXPECT_EQ(exhausted.outcome, Outcome::retry);
  EXPECT_EQ(exhausted.retry_after, 3s);
  EXPECT_EQ(answer({{"code", "UNAVAILABLE"}, {"retry_after", 0.25}}).retry_after, 250ms);
  const Delivery at_once = answer({{"code", "RESOURCE_EXHAUSTED"}, {"retry_after", 0}});
  EXPECT_EQ(at_once.outcome, Outcome::retry);
  EXPECT_EQ(at_once.retry_after, 0s);
}

TEST_F(GrpcSinkTest, APartialSuccessIsCountedAndNotSentAgain) {
  HOLDS("RT-17", "RT-19");
  for (const Signal signal : {Signal::traces, Signal::logs, Signal::metrics}) {
    const Delivery delivery = answer({{"rejected", 3}, {"warning", "too old"}, {"gzip", true}}, signal);
    EXPECT_EQ(delivery.outcome, Outcome::delivered);
    EXPECT_EQ(delivery.rejected, 3u);
    EXPECT_EQ(delivery.message, "too old");
  }
  const Delivery warned = answer({{"warning", "be careful"}});
  EXPECT_EQ(warned.outcome, Outcome::delivered);
  EXPECT_EQ(warned.rejected, 0u);
  EXPECT_EQ(warned.message, "be careful");
}

TEST_F(GrpcSinkTest, AMessageThatIsTooLargeForTheServerIsToBeSplit) {
  ScriptedServer small("grpc_server.py");
  const int to_small = small.listen({{"max_bytes", 1000}});
  const Delivery delivery = send(*open_sink(to("http://127.0.0.1:" + std::to_string(to_small), Signal::traces, Protocol::grpc)),
                                 std::string(2000, 'x'));
  EXPECT_EQ(delivery.outcome, Outcome::rejected);
  EXPECT_EQ(delivery.refusal, Refusal::too_large) << delivery.message;
}

TEST_F(GrpcSinkTest, HowLongAResponseMayBeIsTheConfigurations) {
  DestinationConfig with = config();
  with.max_response_bytes = 1999;
  server.script(Json::array({Json{{"warning", std::string(2000, 'w')}}, Json{{"warning", std::string(1000, 'w')}}}));
  const auto sink = open_sink(with);
  const Delivery delivery = send(*sink, "");
  EXPECT_EQ(delivery.outcome, Outcome::rejected);
  EXPECT_EQ(delivery.refusal, Refusal::none) << "smaller requests would change nothing";
  EXPECT_THAT(delivery.message, HasSubstr("larger than"));
  EXPECT_EQ(send(*sink, "").outcome, Outcome::delivered);
}

TEST_F(GrpcSinkTest, AServerThatHangsIsTriedAgain) {
  HOLDS("GC-19");
  server.script(Json::array({Json{{"hold", true}}}));
  DestinationConfig with = config();
  with.timeout = 100ms;
  const Delivery delivery = send(*open_sink(with), "");
  EXPECT_EQ(delivery.outcome, Outcome::retry);
  EXPECT_THAT(delivery.message, HasSubstr("gRPC DEADLINE_EXCEEDED"));
  server.release();
}

TEST_F(GrpcSinkTest, AbortEndsWhatHangs) {
  server.script(Json::array({Json{{"hold", true}}}));
  DestinationConfig with = config();
  with.timeout = 0s;
  const auto sink = open_sink(with);
  std::thread waiting([&] { EXPECT_TRUE(send(*sink, "").aborted); });
  EXPECT_TRUE(server.wait({{"holds", 1}}));
  sink->abort();
  waiting.join();
  server.release();
}

TEST_F(GrpcSinkTest, NobodyThereIsUnreachable) {
  const Delivery delivery =
      send(*open_sink(to("http://127.0.0.1:" + std::to_string(HttpServer::closed_port()), Signal::traces, Protocol::grpc)));
  EXPECT_EQ(delivery.outcome, Outcome::retry);
  EXPECT_TRUE(delivery.unreachable);
}

TEST_F(GrpcSinkTest, AServerThatIsGoneAndComesBackGetsTheRest) {
  HOLDS("GC-18");
  auto first = std::make_unique<ScriptedServer>("grpc_server.py");
  const int at = first->listen(Json::object());
  const auto sink = open_sink(to("http://127.0.0.1:" + std::to_string(at), Signal::traces, Protocol::grpc));
  EXPECT_EQ(send(*sink, "").outcome, Outcome::delivered);
  first.reset();
  EXPECT_EQ(send(*sink, "").outcome, Outcome::retry);
  ScriptedServer second("grpc_server.py");
  EXPECT_EQ(second.listen({{"port", at}}), at);
  EXPECT_EQ(send(*sink, "").message, "");
}

TEST_F(GrpcSinkTest, TlsWithAClientsCertificate) {
  HOLDS("GC-03", "HC-22");
  testing::Certificates made;
  const auto ca = made.authority("authority");
  const auto theirs = made.signed_by(ca, "server", "IP:127.0.0.1");
  const auto ours = made.signed_by(ca, "client", "DNS:client.example");
  ScriptedServer secure("grpc_server.py");
  const int at = secure.listen({{"tls", {{"certificate", theirs.certificate}, {"key", theirs.key}, {"client_ca", ca.certificate}}}});
  DestinationConfig with = to("https://127.0.0.1:" + std::to_string(at), Signal::traces, Protocol::grpc);
  with.tls.ca_file = ca.certificate;
  EXPECT_EQ(send(*open_sink(with), "").outcome, Outcome::retry) << "without a certificate";
  with.tls.certificate_file = ours.certificate;
  with.tls.key_file = ours.key;
  const auto sink = open_sink(with);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(send(*sink, "").message, "");
}

TEST_F(GrpcSinkTest, WhatItSentDoesNotComeBackInAMessage) {
  DestinationConfig with = config();
  with.headers = {{"Authorization", "Bearer abcdefgh"}};
  server.script(Json::array({Json{{"code", "INVALID_ARGUMENT"}, {"message", "bad abcdefgh"}}}));
  EXPECT_EQ(send(*open_sink(with), "").message, "gRPC INVALID_ARGUMENT: bad ***");
  with.headers = {{"Authorization", "Bearer " + std::string(900, 'a')}};
  server.script(Json::array({Json{{"code", "INVALID_ARGUMENT"}, {"message", "bad " + std::string(900, 'a')}}}));
  EXPECT_EQ(send(*open_sink(with), "").message, "gRPC INVALID_ARGUMENT: bad ***");
}

}  // namespace
}  // namespace waymark::delivery
