// The two calls of a program's start, and a backend that speaks OTLP/HTTP: what arrives, by the official classes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "sdk/process.h"
#include "sdk/recorded.h"
#include "support/http_server.h"
#include "support/official.h"
#include "waymark/configure.h"

namespace waymark {
namespace {

using namespace waymark::testing;
using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::MatchesRegex;
using ::testing::Not;

// The parent has the server, so that it can look at what it got; the child knows its URL.
class BackendTest : public InAProcess {
 protected:
  void SetUp() override {
    InAProcess::SetUp();
    if (!owner_) return;
    server_ = std::make_unique<HttpServer>();
    setenv("WAYMARK_TEST_PROCESS_SERVER", server_->url("").c_str(), 1);
  }
  void TearDown() override {
    if (owner_) unsetenv("WAYMARK_TEST_PROCESS_SERVER");
    InAProcess::TearDown();
  }
  static std::string endpoint() { return std::getenv("WAYMARK_TEST_PROCESS_SERVER"); }
  static std::string closed_endpoint() { return "http://127.0.0.1:" + std::to_string(HttpServer::closed_port()); }
  // The only request to this path.
  [[nodiscard]] HttpRequest received(const std::string& path) const {
    std::vector<HttpRequest> found;
    for (const HttpRequest& request : server_->requests()) {
      if (request.target == path) found.push_back(request);
    }
    EXPECT_EQ(found.size(), 1u) << path;
    return found.empty() ? HttpRequest{} : found.front();
  }
  static std::string header(const HttpRequest& request, std::string_view name) {
    const std::string* value = request.header(name);
    return value ? *value : "";
  }

  std::unique_ptr<HttpServer> server_;
};

void expect_whole_resource(const nlohmann::json& resource) {
  const auto attributes = Recorded::attributes(resource);
  std::set<std::string> keys;
  for (const auto& [key, value] : attributes.items()) keys.insert(key);
  EXPECT_THAT(keys, IsSupersetOf({"service.namespace", "service.name", "service.instance.id", "service.version",
                                  "process.pid", "host.name", "host.arch", "os.type", "telemetry.sdk.name",
                                  "telemetry.sdk.language", "telemetry.sdk.version"}));
  const auto text = [&](const char* key) { return attributes.value(key, std::string()); };
  EXPECT_EQ(text("service.name"), "sentinel-2-runner");
  EXPECT_EQ(text("service.namespace"), "waymark.workflows");
  EXPECT_THAT(text("service.instance.id"),
              MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_NE(text("service.version"), "");
  EXPECT_GT(std::stol(text("process.pid")), 1);
  EXPECT_NE(text("process.pid"), std::to_string(getpid())) << "the child's is meant";
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  EXPECT_EQ(text("host.name"), host);
  EXPECT_NE(text("host.arch"), "");
  EXPECT_EQ(text("os.type"), "linux");
  EXPECT_EQ(text("telemetry.sdk.name"), "waymark");
  EXPECT_EQ(text("telemetry.sdk.language"), "cpp");
  EXPECT_NE(text("telemetry.sdk.version"), "");
}

TEST_F(BackendTest, SpansAndLogsArriveAsTheOfficialClassesReadThem) {
  IN_A_PROCESS_THAT_SAYS("^$", {
    configure_otel_tracing({.service = "sentinel-2-runner",
                            .endpoint = endpoint(),
                            .headers = {{"Authorization", "Bearer x"}}});
    configure_otel_logging({.service = "sentinel-2-runner",
                            .endpoint = endpoint(),
                            .headers = {{"Authorization", "Bearer x"}}});
    {
      auto span = tracer("scenes").span("read_bands", {{"bands", 4}});
      logger("scenes").info("tile read", {{"index", 7}});
    }
    require(shutdown(), "nothing is left");
  });
  ASSERT_EQ(server_->requests().size(), 2u);
  const HttpRequest traces = received("/v1/traces");
  const HttpRequest logs = received("/v1/logs");
  for (const HttpRequest& request : {traces, logs}) {
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(header(request, "Authorization"), "Bearer x");
    EXPECT_EQ(header(request, "Content-Type"), "application/x-protobuf");
  }
  const auto spans = nlohmann::json::parse(official_json(Signal::traces, traces.body)).at("resourceSpans");
  const auto records = nlohmann::json::parse(official_json(Signal::logs, logs.body)).at("resourceLogs");
  ASSERT_EQ(spans.size(), 1u);
  ASSERT_EQ(records.size(), 1u);
  expect_whole_resource(spans[0].at("resource"));
  EXPECT_EQ(spans[0].at("resource"), records[0].at("resource"));
  const auto& scope = spans[0].at("scopeSpans").at(0);
  EXPECT_EQ(scope.at("scope").at("name"), "scenes");
  const auto& span = scope.at("spans").at(0);
  EXPECT_EQ(span.at("name"), "read_bands");
  EXPECT_EQ(Recorded::attributes(span).at("bands"), "4");
  const auto& record = records[0].at("scopeLogs").at(0).at("logRecords").at(0);
  EXPECT_EQ(record.at("body").at("stringValue"), "tile read");
  EXPECT_EQ(Recorded::attributes(record).at("index"), "7");
  EXPECT_EQ(record.at("traceId"), span.at("traceId"));
  EXPECT_EQ(record.at("spanId"), span.at("spanId"));
}

TEST_F(BackendTest, AProgramThatJustReturnsFromMainHasSentItsSpans) {
  IN_A_PROCESS_THAT_SAYS("^$", {
    configure_otel_tracing({.service = "runner", .endpoint = file("traces.jsonl")});
    configure_otel_logging({.service = "runner", .endpoint = endpoint()});
    auto span = tracer("test").span("work");
    logger("test").info("done");
    span.end();
  });
  ASSERT_EQ(read("traces.jsonl").spans.size(), 1u);
  EXPECT_EQ(received("/v1/logs").method, "POST");
}

// Surprise 8 of Tilebox's: a dead endpoint costs 12 s at exit.
TEST_F(BackendTest, ADeadEndpointHoldsUpTheEndForOneTry) {
  const auto begin = std::chrono::steady_clock::now();
  IN_A_PROCESS_THAT_SAYS(
      AllOf(Says("1 offered, 0 delivered, 0 rejected, 0 dropped, 0 filtered, 1 pending", 1),
            // One try where the end comes first, and the end's own where the thread had looked before.
            HasSubstr("the pending ones are sent after the next start"), HasSubstr("not delivered")),
      {
        configure_otel_tracing({.service = "runner", .endpoint = closed_endpoint(), .export_interval = 1h});
        auto span = tracer("test").span("work");
        span.end();
      });
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 8s) << "far more than one try takes, even on a busy machine";
}

TEST_F(BackendTest, WhatADeadEndpointDidNotTakeIsSentByTheNextProcess) {
  IN_A_PROCESS({
    configure_otel_tracing(
        {.service = "runner", .endpoint = closed_endpoint(), .export_interval = 1h, .name = "backend"});
    { auto span = tracer("test").span("left behind"); }
  });
  IN_A_PROCESS({
    configure_otel_tracing({.service = "runner", .endpoint = endpoint(), .name = "backend"});
    telemetry().recover();
    require(shutdown(), "nothing is left");
  });
  const auto sent = nlohmann::json::parse(official_json(Signal::traces, received("/v1/traces").body));
  EXPECT_EQ(sent.at("resourceSpans").at(0).at("scopeSpans").at(0).at("spans").at(0).at("name"), "left behind");
}

}  // namespace
}  // namespace waymark
