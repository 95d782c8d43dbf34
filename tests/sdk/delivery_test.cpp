// Delivery from the call to the sink, through everything that a network does: what arrives, in which order, and whether the
// books close.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/accounts.h"
#include "support/fault_proxy.h"
#include "support/holds.h"
#include "support/http_server.h"
#include "support/official.h"
#include "waymark/error.h"
#include "waymark/reader.h"
#include "waymark/telemetry.h"

namespace {

// A name that ends in .hangs is looked up until the tests end.
struct Resolver {
  std::mutex mutex;
  std::condition_variable changed;
  int asked = 0;
};
Resolver& resolver() {
  static Resolver& kept = *new Resolver;  // the thread that looks up may outlive the tests
  return kept;
}

}  // namespace

extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints, addrinfo** found) {
  if (name && std::string_view(name).ends_with(".hangs")) {
    Resolver& r = resolver();
    std::unique_lock lock(r.mutex);
    ++r.asked;
    r.changed.notify_all();
    r.changed.wait(lock, [] { return false; });
  }
  using Original = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto original = reinterpret_cast<Original>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return original(name, service, hints, found);
}

namespace waymark {
namespace {

using namespace waymark::testing;
using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int kMany = 10'000;

class DeliveryTest : public ::testing::Test {
 protected:
  DeliveryTest() {
    std::string pattern = (fs::temp_directory_path() / "waymark-delivery-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    directory = pattern;
    // Something to be torn, spoiled and cut short.
    good = {.headers = {{"Content-Type", "application/json"}}, .body = R"({"partialSuccess":{}})"};
    server.standard(good);
  }
  ~DeliveryTest() override { fs::remove_all(directory); }

  Config config() {
    Config c;
    c.resource = Resource("delivery");
    c.state_directory = directory + "/state";
    c.recorder.max_bytes = 64u << 20;
    c.recorder.ring_bytes = 4u << 20;  // so that what is recorded in one go needs no luck
    c.journal.keep_bytes = 0;
    c.error_handler = [this](DiagnosticLevel, std::string_view line) {
      const std::lock_guard lock(heard_mutex);
      heard.emplace_back(line);
    };
    return c;
  }
  DestinationConfig destination(const std::string& url, Signal signal = Signal::traces) const {
    DestinationConfig d;
    d.name = "backend";
    d.signal = signal;
    d.url = url;
    d.batch.interval = 1ms;
    d.batch.max_records = 50;
    d.retry = {.initial = 1ms, .maximum = 4ms, .multiplier = 2.0};
    return d;
  }
  static void record(Telemetry& telemetry, int from, int to, Signal signal = Signal::traces) {
    if (signal == Signal::traces) {
      const Tracer tracer = telemetry.tracer("test");
      for (int i = from; i < to; ++i) auto span = tracer.span(std::to_string(i));
    } else {
      const Logger logger = telemetry.logger("test");
      for (int i = from; i < to; ++i) logger.info(std::to_string(i));
    }
  }
  // What the records of a request are called, in order.
  std::vector<std::string> names(const HttpRequest& request, Signal signal) const {
    ReadTelemetry read;
    const std::string* type = request.header("Content-Type");
    if (type && *type == "application/json") {
      const std::string path = directory + "/request.json";
      std::ofstream(path) << request.body << "\n";
      read = read_json_file(path);
    } else {
      read = read_request(signal, request.body);
    }
    std::vector<std::string> found;
    for (const ReadSpan& span : read.spans) found.push_back(span.name);
    for (const ReadLog& log : read.logs) found.push_back(to_text(log.body));
    return found;
  }
  // In the order of their first arrival.
  std::vector<std::string> arrived(const HttpServer& at, Signal signal = Signal::traces) const {
    std::set<std::string> known;
    std::vector<std::string> order;
    for (const HttpRequest& request : at.requests()) {
      for (const std::string& name : names(request, signal)) {
        if (known.insert(name).second) order.push_back(name);
      }
    }
    return order;
  }
  static std::set<std::string> distinct(const std::vector<std::string>& list) { return {list.begin(), list.end()}; }
  static void expect_complete_and_in_order(const std::vector<std::string>& order, int count = kMany) {
    ASSERT_EQ(order.size(), static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) ASSERT_EQ(order[static_cast<std::size_t>(i)], std::to_string(i));
  }
  static DestinationStats stats(const Telemetry& telemetry, std::string_view name = "backend",
                                Signal signal = Signal::traces) {
    for (const DestinationStats& d : telemetry.stats().destinations) {
      if (d.name == name && d.signal == signal) return d;
    }
    ADD_FAILURE() << "no destination " << name;
    return {};
  }
  // The journal's records that have not arrived, after the end of their Telemetry.
  std::uint64_t waiting_in_journal(const std::set<std::string>& got) const {
    std::uint64_t waiting = 0;
    for (const ReadSpan& span : read_state_directory(directory + "/state").spans) waiting += got.contains(span.name) ? 0 : 1;
    return waiting;
  }
  bool was_said(std::string_view text) {
    const std::lock_guard lock(heard_mutex);
    return std::ranges::any_of(heard, [&](const std::string& line) { return line.find(text) != std::string::npos; });
  }

  std::string directory;
  HttpReply good;
  HttpServer server;
  std::mutex heard_mutex;
  std::vector<std::string> heard;
};

// ---- through random faults

struct Way {
  const char* name;
  Protocol protocol;
  bool lossy;
  Signal signal;
  // In the tests' names, which would hold addresses else.
  friend void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }
};

class RandomFaultsTest : public DeliveryTest, public ::testing::WithParamInterface<Way> {};

TEST_P(RandomFaultsTest, TenThousandRecordsArriveCompleteAndInOrder) {
  HOLDS("RT-01", "RT-08", "RT-09", "HC-10");
  const Way way = GetParam();
  // Each stall costs a whole timeout, so they are the rarest.
  const std::vector<NetFault> kinds = {
      NetFault::refuse,           NetFault::refuse,           NetFault::reset_in_request, NetFault::reset_in_request,
      NetFault::truncate,         NetFault::truncate,         NetFault::dribble,          NetFault::dribble,
      NetFault::length_too_long,  NetFault::length_too_short, NetFault::gzip_bomb,        NetFault::endless_headers,
      NetFault::throttle_seconds, NetFault::throttle_date,    NetFault::throttle_seconds, NetFault::throttle_date,
      NetFault::reset_before_response, NetFault::reset_in_response, NetFault::reset_before_response,
      NetFault::reset_in_response, NetFault::stall_in_request, NetFault::stall_before_response, NetFault::stall_in_response};
  FaultProxy proxy(server.port(), FaultProxy::random(20261121, kinds, 60));
  const char* path = way.signal == Signal::traces ? "/v1/traces" : "/v1/logs";
  DestinationConfig d = destination(proxy.url(path), way.signal);
  d.protocol = way.protocol;
  d.lossy = way.lossy;
  d.timeout = 250ms;
  Config c = config();
  c.destinations = {d};
  Telemetry telemetry(c);
  record(telemetry, 0, kMany, way.signal);
  // False where something was refused; below it is told of what.
  const bool acknowledged = telemetry.force_flush(120s);

  const auto order = arrived(server, way.signal);
  expect_complete_and_in_order(order);
  // What the server took, and then answered with what nobody reads to its end, is rejected and not sent again.
  const auto forwarded = proxy.forwarded();
  const auto requests = server.requests();
  ASSERT_EQ(forwarded.size(), requests.size());
  std::set<std::string> spoiled;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (forwarded[i] != NetFault::gzip_bomb && forwarded[i] != NetFault::endless_headers) continue;
    for (const std::string& name : names(requests[i], way.signal)) spoiled.insert(name);
  }
  const DestinationStats s = stats(telemetry, "backend", way.signal);
  EXPECT_LE(s.counts.rejected, spoiled.size());
  EXPECT_EQ(s.counts.dropped, 0u);
  EXPECT_EQ(acknowledged, s.counts.rejected == 0);
  expect_accounts(s, {.recorded = kMany,
                      .arrived = distinct(order),
                      .refused_after_arrival = s.counts.rejected,
                      .waiting = 0});
  const auto done = proxy.done();
  for (const NetFault kind : kinds) EXPECT_GT(done.contains(kind) ? done.at(kind) : 0u, 0u) << "fault " << int(kind);
  // The official classes read a sample of what came.
  for (std::size_t i = 0; i < requests.size(); i += 40) {
    const std::string read = way.protocol == Protocol::http_json ? official_json_of_json(way.signal, requests[i].body)
                                                                 : official_json(way.signal, requests[i].body);
    EXPECT_FALSE(nlohmann::json::parse(read).empty());
  }
  EXPECT_TRUE(telemetry.shutdown(10s));
}

INSTANTIATE_TEST_SUITE_P(
    Ways, RandomFaultsTest,
    ::testing::Values(Way{"ProtobufLossy", Protocol::http_protobuf, true, Signal::traces},
                      Way{"ProtobufLossless", Protocol::http_protobuf, false, Signal::logs},
                      Way{"JsonLossy", Protocol::http_json, true, Signal::logs},
                      Way{"JsonLossless", Protocol::http_json, false, Signal::traces}),
    [](const auto& way) { return std::string(way.param.name); });

// ---- order across splits, retries and restarts

TEST_F(DeliveryTest, TenThousandRecordsKeepTheirOrderAcrossSplitsAndRetries) {
  std::size_t number = 0;
  server.answer_by([&](const HttpRequest& request) -> HttpReply {
    if (request.body.size() > 1500) return {.status = 413};
    if (++number % 7 == 0) return {.status = 503};
    return good;
  });
  DestinationConfig d = destination(server.url());
  d.batch.max_records = 0;
  Config c = config();
  c.destinations = {d};
  Telemetry telemetry(c);
  record(telemetry, 0, kMany);
  ASSERT_TRUE(telemetry.force_flush(120s));
  std::vector<std::string> taken;
  std::size_t too_large = 0;
  std::size_t again = 0;
  for (const HttpRequest& request : server.requests()) {
    if (request.body.size() > 1500) {
      ++too_large;
      continue;
    }
    const auto found = names(request, Signal::traces);
    if (taken.size() >= found.size() && found.front() == taken[taken.size() - found.size()]) {
      ++again;  // the same bytes after a 503
      continue;
    }
    taken.insert(taken.end(), found.begin(), found.end());
  }
  expect_complete_and_in_order(taken);
  EXPECT_GT(too_large, 5u);
  EXPECT_GT(again, 20u);
  EXPECT_LT(too_large, server.requests().size() / 4) << "it grows slowly, so that most tries are worth it";
  expect_accounts(stats(telemetry), {.recorded = kMany, .arrived = distinct(taken), .waiting = 0});
  EXPECT_EQ(stats(telemetry).counts.rejected, 0u);
}

TEST_F(DeliveryTest, TenThousandRecordsKeepTheirOrderAcrossARestart) {
  std::size_t number = 0;
  server.answer_by([&](const HttpRequest&) -> HttpReply {
    if (++number > 60) return {.status = 503};
    return number % 5 == 0 ? HttpReply{.status = 502} : good;
  });
  Config c = config();
  c.destinations = {destination(server.url())};
  std::set<std::string> acknowledged;
  {
    Telemetry telemetry(c);
    record(telemetry, 0, kMany);
    EXPECT_FALSE(telemetry.force_flush(2s));
    EXPECT_FALSE(telemetry.shutdown(500ms)) << "something is left";
    const DestinationStats s = stats(telemetry);
    EXPECT_GT(s.counts.pending, 0u);
    EXPECT_EQ(s.counts.delivered, 48u * 50u);
    for (std::uint64_t i = 0; i < s.counts.delivered; ++i) acknowledged.insert(std::to_string(i));
    expect_accounts(s, {.recorded = kMany, .arrived = acknowledged, .waiting = waiting_in_journal(acknowledged)});
    EXPECT_TRUE(was_said("pending; the pending ones are sent after the next start"));
  }
  HttpServer later;
  c.destinations = {destination(later.url())};
  Telemetry telemetry(c);
  telemetry.recover();
  ASSERT_TRUE(telemetry.force_flush(60s));
  const auto rest = arrived(later);
  ASSERT_EQ(rest.size(), kMany - acknowledged.size());
  for (std::size_t i = 0; i < rest.size(); ++i) ASSERT_EQ(rest[i], std::to_string(i + acknowledged.size()));
  expect_accounts(stats(telemetry), {.recorded = rest.size(), .arrived = distinct(rest), .waiting = 0});
  EXPECT_TRUE(telemetry.shutdown(10s));
}

// ---- an end beside a server that hangs

class HangTest : public DeliveryTest {
 protected:
  // Ten spans to a backend that hangs; `hangs` waits until it does.
  void expect_in_time(const std::string& url, const std::function<bool()>& hangs, std::size_t text_bytes = 0) {
    Config c = config();
    DestinationConfig d = destination(url);
    d.timeout = 0s;  // nothing but the end's own deadline
    d.batch.max_bytes = 64u << 20;
    c.destinations = {d};
    {
      Telemetry telemetry(c);
      const std::string text(text_bytes, 'x');
      {
        const Tracer tracer = telemetry.tracer("test");
        for (int i = 0; i < 10; ++i) auto span = tracer.span(std::to_string(i), {{"text", text}});
      }
      EXPECT_FALSE(telemetry.force_flush(20ms));
      ASSERT_TRUE(hangs());
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_FALSE(telemetry.shutdown(100ms));
      EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s) << "far more than the deadline, far less than for ever";
      expect_accounts(stats(telemetry), {.recorded = 10, .arrived = std::set<std::string>{}, .waiting = waiting_in_journal({})});
      EXPECT_TRUE(was_said("10 offered, 0 delivered, 0 rejected, 0 dropped, 0 filtered, 10 pending"));
    }
    HttpServer later;
    c.destinations = {destination(later.url())};
    Telemetry telemetry(c);
    telemetry.recover();
    EXPECT_TRUE(telemetry.force_flush(30s));
    expect_complete_and_in_order(arrived(later), 10);
    EXPECT_TRUE(telemetry.shutdown(10s));
  }
};

TEST_F(HangTest, InTheResolver) {
  HOLDS("RT-20");
  expect_in_time("http://name.hangs:4318/v1/traces", [] {
    Resolver& r = resolver();
    std::unique_lock lock(r.mutex);
    return r.changed.wait_for(lock, 30s, [&] { return r.asked > 0; });
  });
}

TEST_F(HangTest, InConnecting) {
  HOLDS("RT-20");
  const SynBlackhole hole;
  expect_in_time("http://127.0.0.1:" + std::to_string(hole.port()) + "/v1/traces", [] { return true; });
}

TEST_F(HangTest, InTls) {
  HOLDS("RT-20");
  // A server that never says a word to a client's hello.
  FaultProxy proxy(server.port(), FaultProxy::always(NetFault::none));
  expect_in_time("https://127.0.0.1:" + std::to_string(proxy.port()) + "/v1/traces", [&] { return proxy.wait_for_client(); });
}

TEST_F(HangTest, InTakingTheRequest) {
  HOLDS("RT-20");
  FaultProxy proxy(server.port(), FaultProxy::always(NetFault::stall_in_request));
  expect_in_time(proxy.url("/v1/traces"), [&] { return proxy.wait_for_stall(); }, 200'000);
}

TEST_F(HangTest, BeforeTheAnswersHeaders) {
  HOLDS("RT-20");
  HttpServer hanging;
  hanging.standard({.hold = HttpReply::Hold::before_headers});
  expect_in_time(hanging.url(), [&] { return hanging.wait_for_holds(1); });
}

TEST_F(HangTest, InTheAnswersBody) {
  HOLDS("RT-20");
  HttpServer hanging;
  hanging.standard({.body = "late", .hold = HttpReply::Hold::before_body});
  expect_in_time(hanging.url(), [&] { return hanging.wait_for_holds(1); });
}

TEST_F(DeliveryTest, OneThatHangsCostsAnotherNothing) {
  HOLDS("HC-32");
  HttpServer hanging;
  hanging.standard({.hold = HttpReply::Hold::before_headers});
  Config c = config();
  c.destinations = {destination(server.url()), destination(hanging.url())};
  c.destinations[1].name = "hangs";
  c.destinations[1].timeout = 0s;
  Telemetry telemetry(c);
  record(telemetry, 0, kMany);
  ASSERT_TRUE(hanging.wait_for_holds(1));
  // Not by a flush: it waits for both.
  ASSERT_TRUE(server.wait_for_requests(kMany / 50));
  EXPECT_FALSE(telemetry.force_flush(50ms));
  const auto order = arrived(server);
  expect_complete_and_in_order(order);
  expect_accounts(stats(telemetry), {.recorded = kMany, .arrived = distinct(order), .waiting = 0});
  expect_accounts(stats(telemetry, "hangs"), {.recorded = kMany, .arrived = std::set<std::string>{}, .waiting = kMany});
  EXPECT_FALSE(telemetry.shutdown(100ms));
}

// ---- settings that only a whole Telemetry sees

TEST_F(DeliveryTest, AFlushIsTrueOnlyOnceEverythingBeforeItIsAcknowledged) {
  server.standard({.hold = HttpReply::Hold::before_headers});
  Config c = config();
  c.destinations = {destination(server.url())};
  Telemetry telemetry(c);
  record(telemetry, 0, 1);
  ASSERT_TRUE(server.wait_for_holds(1));
  EXPECT_FALSE(telemetry.force_flush(20ms)) << "sent, but not acknowledged";
  EXPECT_EQ(stats(telemetry).counts.delivered, 0u);
  server.standard(good);
  server.release();
  EXPECT_TRUE(telemetry.force_flush(30s));
  expect_accounts(stats(telemetry), {.recorded = 1, .arrived = std::set<std::string>{"0"}, .waiting = 0});
}

TEST_F(DeliveryTest, S2WantsAStreamAndAToken) {
  DestinationConfig d = destination(server.url());
  d.preset = Preset::s2;
  d.headers = {{"Authorization", "Bearer 0123456789"}};
  Config c = config();
  c.destinations = {d};
  const auto refusal = [&]() -> std::string {
    try {
      const Telemetry telemetry(c);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return error.what();
    }
    return "none";
  };
  EXPECT_THAT(refusal(), AllOf(HasSubstr("s2.stream"), HasSubstr("backend"), HasSubstr("traces")));
  c.resource.set("s2.stream", {std::string("tiles")});
  EXPECT_EQ(refusal(), "none");
  c.resource = Resource("delivery");
  c.destinations[0].resource_attributes = {{"s2.stream", {std::string("tiles")}}};
  EXPECT_EQ(refusal(), "none");
  c.destinations[0].headers.clear();
  EXPECT_THAT(refusal(), AllOf(HasSubstr("Authorization"), HasSubstr("Bearer <access token>")));
}

}  // namespace
}  // namespace waymark
