// A destination over each protocol: what it cuts, what arrives, in which order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "export/destination.h"
#include "export/fake_journal.h"
#include "otlp/json.h"
#include "support/holds.h"
#include "support/http_server.h"
#include "support/scripted_server.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

using testing::FakeSource;
using testing::HttpServer;
using testing::ScriptedServer;
using testing::span_bytes;
using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kLong = 5min;  // a test that needs it hangs; the test runner ends it

class ProtocolsTest : public ::testing::Test {
 protected:
  static DestinationConfig config(Protocol protocol, std::string url) {
    DestinationConfig c;
    c.name = "backend";
    c.protocol = protocol;
    c.url = std::move(url);
    c.timeout = 30s;
    c.batch.interval = 1h;
    c.retry = {.initial = 1ms, .maximum = 2ms, .multiplier = 2.0};
    return c;
  }
  std::unique_ptr<Destination> open(DestinationConfig c) {
    auto destination = std::make_unique<Destination>(std::move(c), diagnostics);
    destination->add_source(source, true);
    return destination;
  }
  void record(Destination& destination, const std::string& name) {
    destination.wake(1, source->append(Signal::traces, span_bytes(name)));
  }
  void expect_balanced(const Destination& destination) {
    const Counts c = destination.stats().counts;
    EXPECT_EQ(c.offered, c.delivered + c.rejected + c.dropped + c.filtered + c.pending);
    EXPECT_EQ(source->misuse(), 0);
  }
  std::vector<std::string> heard() {
    const std::lock_guard lock(mutex);
    return lines;
  }

  std::mutex mutex;
  std::vector<std::string> lines;
  Diagnostics diagnostics{DiagnosticLevel::debug, [this](DiagnosticLevel, std::string_view message) {
                            const std::lock_guard lock(mutex);
                            lines.emplace_back(message);
                          }};
  std::shared_ptr<FakeSource> source = std::make_shared<FakeSource>();
};

std::vector<std::string> names_in_json(const std::string& body) {
  ReadTelemetry read;
  otlp::read_json_line(body, "request", read);
  std::vector<std::string> names;
  for (const auto& span : read.spans) names.push_back(span.name);
  return names;
}

TEST_F(ProtocolsTest, JsonRequestsKeepTheirLimitAndTheirOrder) {
  HOLDS("HC-04", "HC-08", "HC-09");
  HttpServer server;
  auto c = config(Protocol::http_json, server.url());
  c.batch.max_bytes = 2048;
  const auto destination = open(c);
  std::vector<std::string> expected;
  for (int i = 0; i < 200; ++i) {
    if (i == 100) record(*destination, std::string(500, '\x01'));  // small enough in protobuf, too large in JSON
    expected.push_back(std::to_string(i));
    record(*destination, expected.back());
  }
  EXPECT_TRUE(destination->flush(deadline_after(kLong)));
  std::vector<std::string> arrived;
  for (const auto& request : server.requests()) {
    EXPECT_EQ(*request.header("Content-Type"), "application/json");
    EXPECT_LE(request.body.size(), 2048u);
    for (const auto& name : names_in_json(request.body)) arrived.push_back(name);
  }
  EXPECT_EQ(arrived, expected);
  EXPECT_EQ(destination->stats().counts.delivered, 200u);
  EXPECT_EQ(destination->stats().counts.dropped, 1u);
  expect_balanced(*destination);
}

TEST_F(ProtocolsTest, ABatchThatWaitsIsSentInTheNewEncoding) {
  HttpServer server;
  server.script({{.status = 503, .headers = {{"Retry-After", "3600"}}}});
  const auto destination = open(config(Protocol::http_protobuf, server.url()));
  record(*destination, "a");
  const auto flush = destination->begin_flush();
  ASSERT_TRUE(server.wait_for_requests(1));
  destination->replace(config(Protocol::http_json, server.url()));
  EXPECT_TRUE(destination->wait(flush, deadline_after(kLong)));
  EXPECT_EQ(*server.requests().back().header("Content-Type"), "application/json");
  EXPECT_THAT(names_in_json(server.requests().back().body), ElementsAre("a"));
}

TEST_F(ProtocolsTest, GrpcBringsAllRecordsInOrderThroughFaults) {
  HOLDS("RT-10", "RT-11", "RT-17");
  ScriptedServer server("grpc_server.py");
  auto c = config(Protocol::grpc, "http://127.0.0.1:" + std::to_string(server.listen(Json::object())));
  c.batch.max_records = 7;
  server.script({{{"code", "UNAVAILABLE"}}, Json::object(), {{"code", "RESOURCE_EXHAUSTED"}, {"retry_after", 0}}, {{"code", "ABORTED"}},
                 Json::object(), {{"rejected", 2}, {"warning", "too old"}}, {{"code", "CANCELLED"}}});
  const auto destination = open(c);
  std::vector<std::string> expected;
  for (int i = 0; i < 50; ++i) {
    expected.push_back(std::to_string(i));
    record(*destination, expected.back());
  }
  EXPECT_TRUE(destination->flush(deadline_after(kLong)));
  std::vector<std::string> arrived;
  const Json seen = server.ask({{"do", "calls"}});
  for (const Json& call : seen["calls"]) {
    const std::string message = from_base64(call["message"].get<std::string>()).value();
    for (const auto& span : read_request(Signal::traces, message).spans) {
      if (std::ranges::find(arrived, span.name) == arrived.end()) arrived.push_back(span.name);  // the faults' calls came too
    }
  }
  EXPECT_EQ(arrived, expected);
  EXPECT_EQ(destination->stats().counts.delivered, 48u);
  EXPECT_EQ(destination->stats().counts.rejected, 2u);
  EXPECT_THAT(heard(), Contains(HasSubstr("gRPC UNAVAILABLE")));
  EXPECT_THAT(heard(), Contains(HasSubstr("2 of 7 records refused: too old")));
  expect_balanced(*destination);
}

TEST_F(ProtocolsTest, AServerThatIsNotVerifiedIsWarnedOf) {
  auto c = config(Protocol::http_protobuf, "https://127.0.0.1:1/");
  c.tls.insecure_skip_verify = true;
  const auto destination = open(c);
  EXPECT_THAT(heard(), ElementsAre(HasSubstr("tls.insecure_skip_verify")));
}

}  // namespace
}  // namespace waymark::delivery
