// What a destination does about refusals, credentials, filters and being switched off.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "export/destination.h"
#include "export/fake_journal.h"
#include "support/accounts.h"
#include "support/holds.h"
#include "support/http_server.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

using testing::FakeSource;
using testing::HttpReply;
using testing::HttpRequest;
using testing::HttpServer;
using testing::log_bytes;
using testing::span_bytes;
using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr auto kLong = 1min;  // a test that needs it has failed

class DestinationLawTest : public ::testing::Test {
 protected:
  DestinationLawTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "waymark-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    directory = pattern;
  }
  ~DestinationLawTest() override { std::filesystem::remove_all(directory); }

  DestinationConfig config(Signal signal = Signal::traces) const {
    DestinationConfig c;
    c.name = "backend";
    c.signal = signal;
    c.url = server.url();
    c.timeout = 0s;
    c.batch.interval = 1h;
    c.retry = {.initial = 1ms, .maximum = 2ms, .multiplier = 2.0};
    return c;
  }
  std::unique_ptr<Destination> open(DestinationConfig c, DestinationHooks hooks = {}) {
    auto destination = std::make_unique<Destination>(std::move(c), diagnostics, std::move(hooks));
    destination->add_source(source, true);
    return destination;
  }
  void record(Destination& destination, int from, int to) {
    for (int i = from; i < to; ++i) {
      const std::string name = std::to_string(i);
      const bool traces = destination.signal() == Signal::traces;
      destination.wake(1, source->append(destination.signal(), traces ? span_bytes(name) : log_bytes(name)));
    }
  }
  static std::vector<std::string> names(const HttpRequest& request) {
    std::vector<std::string> found;
    for (const auto& span : read_request(Signal::traces, request.body).spans) found.push_back(span.name);
    return found;
  }
  static std::size_t count(const HttpRequest& request) { return names(request).size(); }
  static bool flush(Destination& destination) { return destination.flush(deadline_after(kLong)); }
  std::size_t said(std::string_view part) {
    const std::lock_guard lock(mutex);
    std::size_t times = 0;
    for (const auto& line : lines) times += line.find(part) != std::string::npos ? 1 : 0;
    return times;
  }
  bool wait_until_said(std::string_view part) {
    std::unique_lock lock(mutex);
    return heard.wait_for(lock, 30s, [&] {
      return std::ranges::any_of(lines, [&](const auto& line) { return line.find(part) != std::string::npos; });
    });
  }
  void expect_books(const Destination& destination, testing::Seen seen = {}) {
    seen.waiting = source->waiting("backend", destination.signal());
    testing::expect_accounts(destination.stats(), seen);
    EXPECT_EQ(source->misuse(), 0);
  }
  // In one step, as tools that rotate do.
  void write_headers(const std::string& text) const {
    std::ofstream(directory + "/new") << text;
    std::filesystem::rename(directory + "/new", directory + "/headers");
  }

  std::string directory;
  std::mutex mutex;
  std::condition_variable heard;
  std::vector<std::string> lines;
  Diagnostics diagnostics{DiagnosticLevel::debug, [this](DiagnosticLevel, std::string_view line) {
                            const std::lock_guard lock(mutex);
                            lines.emplace_back(line);
                            heard.notify_all();
                          }};
  HttpServer server;
  std::shared_ptr<FakeSource> source = std::make_shared<FakeSource>();
};

// ---- 401 and 403

TEST_F(DestinationLawTest, KeepsItsDataWhereItsCredentialsAreRefusedAndSaysSoOnce) {
  for (const int status : {401, 403}) {
    SCOPED_TRACE(status);
    HttpServer backend;
    backend.script(std::vector<HttpReply>(5, {.status = status}));
    source = std::make_shared<FakeSource>();
    auto c = config();
    c.url = backend.url();
    c.name = "backend";
    const auto before = said("credentials");
    {
      const auto destination = open(c);
      record(*destination, 0, 10);
      EXPECT_TRUE(flush(*destination));
      EXPECT_EQ(backend.requests().size(), 6u);
      for (const auto& request : backend.requests()) EXPECT_EQ(count(request), 10u);
      EXPECT_EQ(destination->stats().counts.rejected, 0u);
      EXPECT_THAT(destination->stats().last_error, HasSubstr("HTTP " + std::to_string(status)));
      expect_books(*destination, {.recorded = 10, .arrived = std::set<std::string>{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}});
    }
    EXPECT_LE(said("credentials"), before + 1) << "once a minute";
  }
  EXPECT_EQ(said("refused for its credentials"), 1u);
}

TEST_F(DestinationLawTest, AStopGivesRefusedCredentialsOneTryAndKeepsTheRecords) {
  server.standard({.status = 401});
  auto c = config();
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};
  const auto destination = open(c);
  record(*destination, 0, 3);
  destination->stop(deadline_after(kLong));
  EXPECT_EQ(server.requests().size(), 1u);
  expect_books(*destination, {.recorded = 3, .arrived = std::set<std::string>{}});
  EXPECT_EQ(destination->stats().counts.pending, 3u);
}

TEST_F(DestinationLawTest, ReadsItsHeadersAgainAfter401) {
  const auto token = [](const HttpRequest& request) { return *request.header("authorization"); };
  server.answer_by([&](const HttpRequest& request) -> HttpReply {
    if (token(request) == "Bearer first-token") {
      write_headers("# rotated\n\nAuthorization: Bearer second-token\n");
      return {.status = 401};
    }
    return {};
  });
  write_headers("authorization: Bearer first-token\r\nX-Tenant: a");
  auto c = config();
  c.headers = {{"Authorization", "Bearer of-the-options"}, {"X-Own", "kept"}};
  c.headers_file = directory + "/headers";
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};  // the new token ends the wait
  const auto destination = open(c);
  record(*destination, 0, 1);
  EXPECT_TRUE(flush(*destination));
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(*requests[0].header("X-Tenant"), "a");
  EXPECT_EQ(*requests[0].header("X-Own"), "kept");
  EXPECT_EQ(token(requests[1]), "Bearer second-token");
  EXPECT_EQ(requests[1].header("X-Tenant"), nullptr);
  EXPECT_EQ(*requests[1].header("X-Own"), "kept");
  expect_books(*destination, {.recorded = 1, .arrived = std::set<std::string>{"0"}});
}

TEST_F(DestinationLawTest, ANewHeadersFileEndsTheWaitAndABadOneIsSaidWithoutItsValue) {
  server.answer_by([&](const HttpRequest& request) -> HttpReply {
    return {.status = *request.header("Authorization") == "Bearer good-token" ? 200 : 401};
  });
  write_headers("Authorization: Bearer stale-token\n");
  auto c = config();
  c.headers_file = directory + "/headers";
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};
  const auto destination = open(c);
  record(*destination, 0, 1);
  const auto waiting = destination->begin_flush();
  ASSERT_TRUE(wait_until_said("refused for its credentials"));
  write_headers("X: y\nBearer secret-token\n");
  ASSERT_TRUE(wait_until_said("line 2"));
  EXPECT_EQ(said("secret-token"), 0u);
  EXPECT_EQ(said("stale-token"), 0u);
  write_headers("Authorization: Bearer good-token\n");
  EXPECT_TRUE(destination->wait(waiting, deadline_after(kLong)));
  expect_books(*destination, {.recorded = 1, .arrived = std::set<std::string>{"0"}});
}

TEST_F(DestinationLawTest, AHeadersFileThatMakesNoSenseIsRefusedWithItsPlace) {
  const std::string path = directory + "/headers";
  const auto refusal = [&]() -> std::string {
    auto c = config();
    c.headers_file = path;
    try {
      Destination(c, diagnostics);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_THAT(refusal(), AllOf(HasSubstr(path), HasSubstr("No such file")));
  write_headers("A: b\n\nAuthorization Bearer secret\n");
  EXPECT_THAT(refusal(), AllOf(HasSubstr(path), HasSubstr("line 3"), Not(HasSubstr("secret"))));
  write_headers("bad name: secret\n");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("line 1"), Not(HasSubstr("secret"))));
  write_headers(std::string("A: se") + '\x01' + "cret\n");
  EXPECT_THAT(refusal(), HasSubstr("line 1"));
  write_headers(std::string(70'000, '#'));
  EXPECT_THAT(refusal(), HasSubstr("64 KiB"));
  write_headers("A: b\n");
  EXPECT_EQ(refusal(), "none");
}

// ---- 413

TEST_F(DestinationLawTest, SplitsWhatIsTooLargeAndLosesNoTail) {
  server.answer_by([](const HttpRequest& request) -> HttpReply { return {.status = count(request) > 10 ? 413 : 200}; });
  const auto destination = open(config());
  record(*destination, 0, 100);
  EXPECT_TRUE(flush(*destination));
  std::vector<std::string> taken;
  for (const auto& request : server.requests()) {
    const auto found = names(request);
    if (found.size() <= 10) taken.insert(taken.end(), found.begin(), found.end());
  }
  ASSERT_EQ(taken.size(), 100u);
  for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(taken[i], std::to_string(i));
  EXPECT_EQ(count(server.requests().at(0)), 100u);
  EXPECT_EQ(count(server.requests().at(1)), 50u);
  expect_books(*destination, {.recorded = 100, .arrived = std::set<std::string>(taken.begin(), taken.end())});
}

TEST_F(DestinationLawTest, ARecordThatIsTooLargeByItselfIsRejectedAlone) {
  HOLDS("RT-12");
  server.answer_by([](const HttpRequest& request) -> HttpReply {
    for (const auto& name : names(request)) {
      if (name == "5") return {.status = 413};
    }
    return {};
  });
  const auto destination = open(config());
  record(*destination, 0, 16);
  EXPECT_TRUE(flush(*destination));
  EXPECT_EQ(destination->stats().counts.rejected, 1u);
  std::set<std::string> taken;
  for (const auto& request : server.requests()) {
    const auto found = names(request);
    if (std::ranges::find(found, "5") == found.end()) taken.insert(found.begin(), found.end());
  }
  expect_books(*destination, {.recorded = 16, .arrived = taken});
  EXPECT_EQ(destination->stats().counts.delivered, 15u);
}

TEST_F(DestinationLawTest, AfterASplitItsRequestsGrowAgain) {
  server.script({{.status = 413}, {.status = 413}});
  auto c = config();
  const auto destination = open(c);
  record(*destination, 0, 64);
  EXPECT_TRUE(flush(*destination));
  std::vector<std::size_t> sizes;
  for (const auto& request : server.requests()) sizes.push_back(count(request));
  EXPECT_THAT(sizes, ElementsAre(64, 32, 16, 17, 18, 13));
}

// ---- giving up

TEST_F(DestinationLawTest, DropsAndCountsABatchThatIsRefusedForTooLong) {
  server.standard({.status = 503});
  auto c = config();
  c.retry.give_up_age = 500ms;
  const auto destination = open(c);
  record(*destination, 0, 4);
  EXPECT_TRUE(flush(*destination));
  EXPECT_GE(server.requests().size(), 2u);
  EXPECT_EQ(destination->stats().counts.dropped, 4u);
  EXPECT_EQ(said("4 records dropped: not taken for longer than retry.give_up_age"), 1u);
  expect_books(*destination, {.recorded = 4, .arrived = std::set<std::string>{}});
}

TEST_F(DestinationLawTest, RefusedCredentialsDropNothingHoweverOldItGets) {
  std::atomic<int> minutes{0};
  server.answer_by([&](const HttpRequest&) -> HttpReply {
    const int answered = minutes += 10;
    return {.status = answered <= 50 ? 401 : answered <= 60 ? 503 : 200};
  });
  auto c = config();
  c.retry.give_up_age = 15min;
  const auto destination =
      open(c, {.now = [&] { return std::chrono::steady_clock::now() + std::chrono::minutes(minutes); }});
  record(*destination, 0, 3);
  EXPECT_TRUE(flush(*destination));
  EXPECT_EQ(server.requests().size(), 7u) << "nor does the time under a refused token count for the 503 behind it";
  EXPECT_EQ(destination->stats().counts.dropped, 0u);
  expect_books(*destination, {.recorded = 3, .arrived = std::set<std::string>{"0", "1", "2"}});
}

// ---- the preset of S2

TEST_F(DestinationLawTest, S2sRetryableStatusesAreRetriedAndItsOthersAreNot) {
  const auto json = [](int status, const std::string& code) {
    return HttpReply{.status = status,
                     .headers = {{"Content-Type", "application/json"}},
                     .body = R"({"code":")" + code + R"(","message":"m"})"};
  };
  HttpReply torn = json(409, "resource_already_exists");
  torn.body.pop_back();
  HttpReply page = json(409, "resource_already_exists");
  page.headers = {{"Content-Type", "text/html"}};
  const std::vector<HttpReply> retried = {json(408, "request_timeout"),
                                          {.status = 408},
                                          json(409, "transaction_conflict"),
                                          {.status = 409},
                                          torn,
                                          page,
                                          json(500, "other"),
                                          json(500, "storage"),
                                          json(500, "bug"),
                                          {.status = 500},
                                          {.status = 500, .headers = {{"Content-Type", "text/html"}}, .body = "<h1>Oops</h1>"},
                                          json(502, "hot_server"),
                                          json(504, "upstream_timeout")};
  const std::vector<HttpReply> refused = {json(400, "bad_json"),  json(404, "stream_not_found"),
                                          json(409, "resource_already_exists"), json(409, "stream_deletion_pending"),
                                          json(422, "invalid"),   json(501, "not_implemented")};
  auto c = config();
  c.preset = Preset::s2;
  c.headers = {{"Authorization", "Bearer 0123456789"}};
  const auto destination = open(c);
  server.script(retried);
  record(*destination, 0, 1);
  EXPECT_TRUE(flush(*destination));
  EXPECT_EQ(server.requests().size(), retried.size() + 1);
  EXPECT_EQ(destination->stats().counts.delivered, 1u);
  server.script(refused);
  for (std::size_t i = 0; i < refused.size(); ++i) {
    record(*destination, static_cast<int>(i) + 1, static_cast<int>(i) + 2);
    EXPECT_TRUE(flush(*destination));
  }
  EXPECT_EQ(destination->stats().counts.rejected, refused.size());
  expect_books(*destination, {.recorded = 1 + refused.size()});
}

TEST_F(DestinationLawTest, WithoutThePresetS2sStatusesAreRefusals) {
  HOLDS("RT-02", "RT-03");
  server.script({{.status = 408}, {.status = 409}, {.status = 500}});
  const auto destination = open(config());
  for (int i = 0; i < 3; ++i) {
    record(*destination, i, i + 1);
    EXPECT_TRUE(flush(*destination));
  }
  EXPECT_EQ(server.requests().size(), 3u);
  EXPECT_EQ(destination->stats().counts.rejected, 3u);
}

TEST_F(DestinationLawTest, S2sBatchBoundsStandWhereNothingElseWasAskedFor) {
  DestinationConfig c;
  c.preset = Preset::s2;
  const BatchConfig bounds = with_preset(c).batch;
  EXPECT_EQ(bounds.interval, 50ms);
  EXPECT_EQ(bounds.min_bytes, 256u * 1024);
  EXPECT_EQ(bounds.max_bytes, 512u * 1024);
  c.batch.interval = 1s;
  c.batch.max_bytes = 100'000;
  EXPECT_EQ(with_preset(c).batch.interval, 1s);
  EXPECT_EQ(with_preset(c).batch.max_bytes, 100'000u);
  EXPECT_EQ(with_preset(c).batch.min_bytes, 100'000u);
  c.batch = {.interval = 5s};
  c.batch_is_final = true;
  EXPECT_EQ(with_preset(c).batch.interval, 5s);
  EXPECT_EQ(with_preset(c).batch.min_bytes, 0u);
  c.preset = Preset::none;
  EXPECT_EQ(with_preset(c).batch.min_bytes, 0u);
}

TEST_F(DestinationLawTest, WhatIsSwitchedOffNeedsNoTokenAndNoFileYet) {
  auto c = config();
  c.preset = Preset::s2;
  c.headers_file = "/nowhere/headers";
  c.tls.ca_file = "/nowhere/ca.pem";
  c.enabled = false;
  const auto destination = open(c);
  c.enabled = true;
  EXPECT_THROW(destination->replace(c), Error);
  c.headers_file.clear();
  c.preset = Preset::none;
  EXPECT_THROW(destination->replace(c), Error) << "tls.ca_file";
}

TEST_F(DestinationLawTest, AUrlThatCannotBeRequestedIsRefusedWithoutItsSecrets) {
  auto c = config();
  for (const char* url : {"", "localhost:4318", "ftp://user:hunter2@h/", "http://", "http://a b/", "http://h:port/", "unix:///x"}) {
    c.url = url;
    try {
      check(c);
      FAIL() << url;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("`url` is no http:// or https:// URL"), Not(HasSubstr("hunter2"))));
    }
  }
  c.enabled = false;
  EXPECT_NO_THROW(check(c));
}

// ---- when to send, and what

TEST_F(DestinationLawTest, MinBytesAreWorthSendingAtOnceAndABatchMayStillBeLarger) {
  auto c = config();
  c.batch.min_bytes = 300;
  const auto destination = open(c);
  std::uint64_t bytes = 0;
  for (int i = 0; bytes < 400; ++i) bytes += source->append(Signal::traces, span_bytes(std::to_string(i)));
  destination->wake(20, bytes);
  ASSERT_TRUE(server.wait_for_requests(1));
  EXPECT_TRUE(flush(*destination));
  EXPECT_EQ(server.requests().size(), 1u);
  EXPECT_GT(server.requests()[0].body.size(), 300u);
}

TEST_F(DestinationLawTest, MinBytesOfJsonAreThoseOfItsRequests) {
  auto c = config();
  c.protocol = Protocol::http_json;
  c.batch.min_bytes = 16 * 1024;
  const auto destination = open(c);
  record(*destination, 0, 100);
  EXPECT_TRUE(flush(*destination));
  const std::size_t each = server.requests().at(0).body.size() / 100;
  const std::size_t enough = c.batch.min_bytes / each;
  ASSERT_LT(100 * span_bytes("100").size() * 2, 100 * each) << "this shows nothing where JSON is no longer than protobuf";
  record(*destination, 100, 100 + static_cast<int>(enough * 5 / 4));
  ASSERT_TRUE(server.wait_for_requests(2));
  EXPECT_GE(server.requests()[1].body.size(), c.batch.min_bytes * 9 / 10);
  EXPECT_TRUE(flush(*destination));
}

TEST_F(DestinationLawTest, SpansThatItsFilterDoesNotWantAreFilteredAndCounted) {
  auto c = config();
  std::vector<std::string> asked;
  c.span_filter = [&](const ReadSpan& span) {
    asked.push_back(span.name + " " + span.scope.name);
    if (span.name == "3") throw std::runtime_error("planted");
    return span.name != "1" && span.name != "2";
  };
  std::string scope = "\x0a\x05tests";
  source->set_scope(0, {.encoded = scope, .schema_url = ""});
  const auto destination = open(c);
  record(*destination, 0, 5);
  EXPECT_TRUE(flush(*destination));
  ASSERT_EQ(server.requests().size(), 1u);
  EXPECT_THAT(names(server.requests()[0]), ElementsAre("0", "3", "4"));
  EXPECT_THAT(asked, ElementsAre("0 tests", "1 tests", "2 tests", "3 tests", "4 tests"));
  EXPECT_EQ(destination->stats().counts.filtered, 2u);
  EXPECT_EQ(said("span_filter threw planted; the span is sent"), 1u);
  expect_books(*destination, {.recorded = 5, .arrived = std::set<std::string>{"0", "3", "4"}});
}

// ---- switched off

TEST_F(DestinationLawTest, SwitchedOffItGetsNothingAndItsCursorStays) {
  auto c = config();
  c.lossy = false;
  const auto destination = open(c);
  record(*destination, 0, 2);
  EXPECT_TRUE(flush(*destination));
  EXPECT_FALSE(source->opened_lossy());
  c.enabled = false;
  destination->replace(c);
  EXPECT_TRUE(source->opened_lossy()) << "what gets nothing holds up no writer";
  record(*destination, 2, 5);
  EXPECT_TRUE(flush(*destination)) << "it owes nothing";
  EXPECT_EQ(server.requests().size(), 1u);
  EXPECT_EQ(source->position("backend", Signal::traces), 2u);
  EXPECT_EQ(destination->stats().counts.pending, 3u);
  expect_books(*destination, {.recorded = 5, .arrived = std::set<std::string>{"0", "1"}});
  c.enabled = true;
  destination->replace(c);
  EXPECT_FALSE(source->opened_lossy());
  EXPECT_TRUE(flush(*destination));
  EXPECT_EQ(server.requests().size(), 2u);
  expect_books(*destination, {.recorded = 5, .arrived = std::set<std::string>{"0", "1", "2", "3", "4"}});
  c.enabled = false;
  destination->replace(c);
  record(*destination, 5, 6);
  destination->stop(deadline_after(kLong));
  EXPECT_EQ(destination->stats().counts.pending, 1u);
}

TEST_F(DestinationLawTest, OneThatNeverWasSwitchedOnStartsAtTheNextRecordOnceItIs) {
  auto c = config();
  c.enabled = false;
  const auto destination = open(c);
  record(*destination, 0, 3);
  EXPECT_TRUE(flush(*destination));
  EXPECT_EQ(destination->stats().counts.pending, 0u);
  c.enabled = true;
  destination->replace(c);
  record(*destination, 3, 5);
  EXPECT_TRUE(flush(*destination));
  ASSERT_EQ(server.requests().size(), 1u);
  EXPECT_THAT(names(server.requests()[0]), ElementsAre("3", "4"));
}

TEST_F(DestinationLawTest, SwitchingItOffEndsAFlushThatWaitsForIt) {
  server.standard({.status = 503});
  auto c = config();
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};
  const auto destination = open(c);
  record(*destination, 0, 1);
  const auto waiting = destination->begin_flush();
  ASSERT_TRUE(wait_until_said("not delivered"));
  c.enabled = false;
  destination->replace(c);
  EXPECT_TRUE(destination->wait(waiting, deadline_after(kLong)));
  EXPECT_EQ(destination->stats().counts.pending, 1u);
}

// ---- ranges

TEST_F(DestinationLawTest, RangesAreRefusedWithTheirKeyAndWhatWasExpected) {
  const auto refusal = [&](auto change) -> std::string {
    auto c = config();
    change(c);
    try {
      check(c);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("backend"), HasSubstr("expected")));
      return error.what();
    }
    return "none";
  };
  EXPECT_EQ(refusal([](auto&) {}), "none");
  EXPECT_THAT(refusal([](auto& c) { c.batch.max_bytes = 1023; }), AllOf(HasSubstr("`batch.max_bytes` is 1023"), HasSubstr("1024")));
  EXPECT_THAT(refusal([](auto& c) { c.batch.min_bytes = c.batch.max_bytes + 1; }), HasSubstr("`batch.min_bytes` is 524289"));
  EXPECT_THAT(refusal([](auto& c) { c.batch.interval = 0s; }), HasSubstr("`batch.interval` is 0 ms"));
  EXPECT_THAT(refusal([](auto& c) { c.batch.interval = 24h * 365 + 1ns; }), HasSubstr("at most a year"));
  EXPECT_EQ(refusal([](auto& c) { c.batch.interval = 24h * 365; }), "none");
  EXPECT_THAT(refusal([](auto& c) { c.timeout = -1ms; }), HasSubstr("`timeout` is -1 ms"));
  EXPECT_THAT(refusal([](auto& c) { c.max_response_bytes = 1023; }), HasSubstr("`max_response_bytes` is 1023"));
  EXPECT_THAT(refusal([](auto& c) { c.max_response_bytes = (64 << 20) + 1; }), HasSubstr("expected 1024 to 67108864"));
  EXPECT_THAT(refusal([](auto& c) { c.retry.initial = 0s; }), HasSubstr("`retry.initial` is 0 ms"));
  EXPECT_THAT(refusal([](auto& c) { c.retry.maximum = 500us; }), AllOf(HasSubstr("`retry.maximum` is 0.5 ms"), HasSubstr("1 ms")));
  EXPECT_THAT(refusal([](auto& c) { c.retry.multiplier = 0.5; }), HasSubstr("`retry.multiplier` is 0.5"));
  EXPECT_THAT(refusal([](auto& c) { c.retry.multiplier = std::numeric_limits<double>::quiet_NaN(); }), HasSubstr("nan"));
  EXPECT_THAT(refusal([](auto& c) { c.retry.give_up_age = -1s; }), HasSubstr("`retry.give_up_age` is -1000 ms"));
  EXPECT_THAT(refusal([](auto& c) { c.rotation.max_age = -1s; }), HasSubstr("`rotation.max_age` is -1000 ms"));
  EXPECT_THAT(refusal([](auto& c) { c.rotation.files = 10'001; }), HasSubstr("`rotation.files` is 10001"));
}

}  // namespace
}  // namespace waymark::delivery
