#include "export/response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "support/holds.h"

namespace waymark::delivery {
namespace {

using ::testing::HasSubstr;
using namespace std::string_literals;

constexpr auto kProtobuf = "application/x-protobuf";
constexpr auto kJson = "application/json";

// Export*ServiceResponse{1: {1: rejected, 2: message}}
std::string partial(std::string rejected_varint, const std::string& message) {
  std::string inner = rejected_varint.empty() ? "" : "\x08" + rejected_varint;
  if (!message.empty()) inner += "\x12"s + static_cast<char>(message.size()) + message;
  return "\x0a"s + static_cast<char>(inner.size()) + inner;
}

TEST(ResponseTest, RetriesExactlyFourStatuses) {
  HOLDS("RT-02", "RT-03");
  for (int status = 300; status < 600; ++status) {
    const bool retryable = status == 429 || status == 502 || status == 503 || status == 504;
    EXPECT_EQ(evaluate(Signal::traces, status, "", "").verdict, retryable ? Outcome::retry : Outcome::rejected) << status;
  }
  EXPECT_EQ(evaluate(Signal::traces, 0, "", "").verdict, Outcome::rejected);
  EXPECT_EQ(evaluate(Signal::traces, 101, "", "").verdict, Outcome::rejected);
}

TEST(ResponseTest, AnEmptyBodyIsFullSuccess) {
  HOLDS("HC-13", "GC-30");
  for (const char* type : {"", kProtobuf, kJson, "text/html"}) {
    const Evaluation result = evaluate(Signal::traces, 200, type, "");
    EXPECT_EQ(result.verdict, Outcome::delivered);
    EXPECT_EQ(result.rejected, 0u);
    EXPECT_EQ(result.message, "");
  }
}

TEST(ResponseTest, AnUnknownTypeOrDamagedBodyIsFullSuccess) {
  HOLDS("HC-13");
  EXPECT_EQ(evaluate(Signal::traces, 200, "text/html", partial("\x03", "no")).rejected, 0u);
  EXPECT_EQ(evaluate(Signal::traces, 200, kProtobuf, "\xff\xff\xff").rejected, 0u);
  EXPECT_EQ(evaluate(Signal::traces, 200, kProtobuf, "\x0a\x7f").rejected, 0u);
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, "{\"partialSuccess\":{\"rejectedSpans\":3").rejected, 0u);
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, "[[[[").verdict, Outcome::delivered);
}

TEST(ResponseTest, ReadsPartialSuccessFromProtobuf) {
  HOLDS("HC-12", "RT-17");
  const Evaluation result = evaluate(Signal::logs, 200, "Application/X-Protobuf; v=1", partial("\x03", "too old"));
  EXPECT_EQ(result.verdict, Outcome::delivered);
  EXPECT_EQ(result.rejected, 3u);
  EXPECT_EQ(result.message, "too old");
}

TEST(ResponseTest, ReadsPartialSuccessFromJsonForEachSignal) {
  HOLDS("HC-12", "RT-17", "JS-07", "JS-19");
  struct Case {
    Signal signal;
    const char* body;
  };
  for (const auto& [signal, body] : {Case{Signal::traces, R"({"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}})"},
                                     Case{Signal::logs, R"({"partialSuccess":{"rejectedLogRecords":3,"errorMessage":"x"}})"},
                                     Case{Signal::metrics, R"({"partialSuccess":{"errorMessage":"x","rejectedDataPoints":"3"}})"}}) {
    const Evaluation result = evaluate(signal, 200, "application/json; charset=utf-8", body);
    EXPECT_EQ(result.rejected, 3u) << body;
    EXPECT_EQ(result.message, "x") << body;
  }
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, R"({"partialSuccess":{"rejectedLogRecords":3}})").rejected, 0u);
}

TEST(ResponseTest, UnknownFieldsAreIgnored) {
  HOLDS("HC-33", "JS-05");
  const std::string unknown = "\x98\x3f\x05"s;  // field 1011
  EXPECT_EQ(evaluate(Signal::traces, 200, kProtobuf, unknown + partial("\x02", "") + unknown).rejected, 2u);
  const char* body = R"({"new":[{"partialSuccess":{"rejectedSpans":9}}],"deep":{"partialSuccess":{"rejectedSpans":9}},
      "partialSuccess":{"also":{"rejectedSpans":9},"list":[{"rejectedSpans":9},"8"],"rejectedSpans":"2","x":null},"z":1.5})";
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, body).rejected, 2u);
}

TEST(ResponseTest, AnEmptyPartialSuccessIsNone) {
  HOLDS("RT-18");
  const Evaluation result = evaluate(Signal::traces, 200, kProtobuf, partial("", ""));
  EXPECT_EQ(result.rejected, 0u);
  EXPECT_EQ(result.message, "");
}

TEST(ResponseTest, AMessageAloneIsAWarningOnASuccess) {
  HOLDS("RT-19");
  const Evaluation result = evaluate(Signal::traces, 200, kProtobuf, partial("", "be careful"));
  EXPECT_EQ(result.verdict, Outcome::delivered);
  EXPECT_EQ(result.rejected, 0u);
  EXPECT_EQ(result.message, "be careful");
}

TEST(ResponseTest, ANegativeCountIsNone) {
  const std::string minus_one = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
  EXPECT_EQ(evaluate(Signal::traces, 200, kProtobuf, partial(minus_one, "")).rejected, 0u);
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, R"({"partialSuccess":{"rejectedSpans":"-4"}})").rejected, 0u);
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, R"({"partialSuccess":{"rejectedSpans":"many"}})").rejected, 0u);
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, R"({"partialSuccess":{"rejectedSpans":18446744073709551615}})").rejected,
            9223372036854775807u);
}

TEST(ResponseTest, TheServersWordsAreReadButDecideNothing) {
  HOLDS("HC-14", "JS-19");
  const std::string status = "\x08\x0e\x12\x04" "busy";  // code 14 (UNAVAILABLE), message
  const Evaluation protobuf = evaluate(Signal::traces, 400, kProtobuf, status);
  EXPECT_EQ(protobuf.verdict, Outcome::rejected);
  EXPECT_EQ(protobuf.message, "busy");
  const Evaluation json = evaluate(Signal::traces, 503, kJson, R"({"code":3,"details":[{"message":"no"}],"message":"bad"})");
  EXPECT_EQ(json.verdict, Outcome::retry);
  EXPECT_EQ(json.message, "bad");
}

TEST(ResponseTest, MessagesBecomeOnePrintableLine) {
  const std::string json = R"({"message":"a\u001b[31m\nb"})";
  EXPECT_EQ(evaluate(Signal::traces, 400, kJson, json).message, "a [31m b");
  EXPECT_EQ(printable("\xff ok"), "\xef\xbf\xbd ok");
  const std::string cut = printable(std::string(5'000'000, 'x'));
  EXPECT_EQ(cut, std::string(512, 'x') + "…");
}

TEST(ResponseTest, NestingCostsNoStack) {
  HOLDS("JS-21");
  const std::string deep = std::string(2'000'000, '[');
  EXPECT_EQ(evaluate(Signal::traces, 200, kJson, deep).verdict, Outcome::delivered);
  const std::string objects = [] {
    std::string text;
    for (int i = 0; i < 300'000; ++i) text += "{\"a\":";
    return text;
  }();
  EXPECT_EQ(evaluate(Signal::traces, 400, kJson, objects).verdict, Outcome::rejected);
}

// google.rpc.Status{3: Any{1: type_url, 2: value}} around a RetryInfo{1: Duration{1: seconds, 2: nanos}}
std::string status_with(std::string_view type, const std::string& duration) {
  const auto field = [](char tag, std::string_view content) {
    return std::string{tag, static_cast<char>(content.size())}.append(content);
  };
  return field(0x12, "words") + field(0x1a, field(0x0a, type) + field(0x12, field(0x0a, duration)));
}

TEST(ResponseTest, RetryInfoIsFoundByTheEndOfItsType) {
  HOLDS("GC-22", "JS-20");
  using namespace std::chrono_literals;
  const auto delay = [](std::string_view type, const std::string& duration) {
    return evaluate(Signal::traces, 503, kProtobuf, status_with(type, duration)).retry_delay;
  };
  EXPECT_EQ(delay("type.googleapis.com/google.rpc.RetryInfo", "\x08\x03"), 3s);
  EXPECT_EQ(delay("elsewhere/google.rpc.RetryInfo", "\x08\x01\x10\x05"), 1s + 5ns);
  EXPECT_EQ(delay("type.googleapis.com/google.rpc.RetryInfo", ""), 0s);
  EXPECT_EQ(delay("type.googleapis.com/google.rpc.QuotaFailure", "\x08\x03"), std::nullopt);
  EXPECT_EQ(delay("google.rpc.RetryInfo", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0s) << "negative";
  EXPECT_EQ(delay("google.rpc.RetryInfo", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), 24h);
  const auto json = [](std::string_view text) {
    return evaluate(Signal::traces, 503, kJson, R"({"details":[{"@type":"x/google.rpc.RetryInfo","retryDelay":")" + std::string(text) + "\"}]}")
        .retry_delay;
  };
  EXPECT_EQ(json("3.5s"), 3500ms);
  EXPECT_EQ(json("0s"), 0s);
  EXPECT_EQ(json("0.000000001s"), 1ns);
  EXPECT_EQ(json("99999999999s"), 24h);
  for (const char* none : {"", "s", "3", "3.s5", "three", "3.5.5s", "3m"}) EXPECT_EQ(json(none), std::nullopt) << none;
  EXPECT_EQ(evaluate(Signal::traces, 503, kJson, R"({"retryDelay":"3s","details":[[{"@type":"google.rpc.RetryInfo","retryDelay":"3s"}]]})").retry_delay,
            std::nullopt);
}

TEST(ResponseTest, DetailsThatAreDamagedSayNothing) {
  transport::GrpcResponse response{.status = transport::GrpcStatus::resource_exhausted, .error = "words", .details = "\x1a\x7f"};
  const Evaluation result = evaluate_grpc(Signal::traces, response);
  EXPECT_EQ(result.verdict, Outcome::rejected);
  EXPECT_EQ(result.message, "words");
}

TEST(ResponseTest, GrpcServersSayInWordsThatARequestIsTooLarge) {
  for (const char* words : {"Received message larger than max (2000 vs. 1000)", "grpc: received message larger than max (5 vs. 4)",
                            "gRPC message exceeds maximum size 4194304: 5000000",
                            "Received message exceeds the maximum configured message size."}) {
    const Evaluation result = evaluate_grpc(Signal::traces, {.status = transport::GrpcStatus::resource_exhausted, .error = words});
    EXPECT_EQ(result.verdict, Outcome::rejected);
    EXPECT_EQ(result.refusal, Refusal::too_large) << words;
  }
  for (const char* words : {"quota exceeded", "", "slow down"}) {
    EXPECT_EQ(evaluate_grpc(Signal::traces, {.status = transport::GrpcStatus::resource_exhausted, .error = words}).refusal, Refusal::none);
  }
  const transport::GrpcResponse ours{.status = transport::GrpcStatus::resource_exhausted,
                                     .error = "the response message is larger than max",
                                     .synthesized = true};
  EXPECT_EQ(evaluate_grpc(Signal::traces, ours).refusal, Refusal::none) << "not the request";
}

TEST(ResponseTest, AStreamThatWasResetToCalmUsIsSentAgain) {
  const transport::GrpcResponse response{.status = transport::GrpcStatus::resource_exhausted, .synthesized = true, .calmed = true};
  EXPECT_EQ(evaluate_grpc(Signal::traces, response).verdict, Outcome::retry);
}

}  // namespace
}  // namespace waymark::delivery
