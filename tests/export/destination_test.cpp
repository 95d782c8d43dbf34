#include "export/destination.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "export/fake_journal.h"
#include "support/holds.h"
#include "support/http_server.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

using testing::FakeSource;
using testing::HttpReply;
using testing::HttpServer;
using testing::log_bytes;
using testing::span_bytes;
using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Deadline in(std::chrono::nanoseconds wait) { return deadline_after(wait); }
constexpr auto kLong = 5min;  // a test that needs it hangs; the test runner ends it

// What was said, and what was done on the destination's thread.
class Heard {
 public:
  ErrorHandler handler() {
    return [this](DiagnosticLevel, std::string_view message) { add(message); };
  }
  void add(std::string_view text) {
    const std::lock_guard lock(mutex_);
    lines_.emplace_back(text);
    changed_.notify_all();
  }
  [[nodiscard]] std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }
  [[nodiscard]] bool wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 30s, [&] { return lines_.size() >= count; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
};

class DestinationTest : public ::testing::Test {
 protected:
  DestinationConfig config(Signal signal = Signal::traces) const {
    DestinationConfig c;
    c.name = "backend";
    c.signal = signal;
    c.url = server.url(signal == Signal::traces ? "/v1/traces" : "/v1/logs");
    c.timeout = 0s;
    c.batch.interval = 1h;
    c.retry = {.initial = 1ms, .maximum = 2ms, .multiplier = 2.0};
    return c;
  }
  // One that has the live source.
  std::unique_ptr<Destination> open(DestinationConfig c, DestinationHooks hooks = {}) {
    auto destination = std::make_unique<Destination>(std::move(c), diagnostics, std::move(hooks));
    destination->add_source(source, true);
    return destination;
  }
  void record(Destination& destination, const std::string& name) {
    const bool traces = destination.signal() == Signal::traces;
    destination.wake(1, source->append(destination.signal(), traces ? span_bytes(name) : log_bytes(name)));
  }
  // Names of the spans (texts of the log records) in a request.
  static std::vector<std::string> names(Signal signal, const std::string& body) {
    const ReadTelemetry read = read_request(signal, body);
    std::vector<std::string> found;
    for (const auto& span : read.spans) found.push_back(span.name);
    for (const auto& log : read.logs) found.push_back(to_text(log.body));
    return found;
  }
  std::vector<std::vector<std::string>> received(Signal signal = Signal::traces) const {
    std::vector<std::vector<std::string>> all;
    for (const auto& request : server.requests()) all.push_back(names(signal, request.body));
    return all;
  }
  void expect_balanced(const Destination& destination) {
    const Counts c = destination.stats().counts;
    EXPECT_EQ(c.offered, c.delivered + c.rejected + c.dropped + c.filtered + c.pending);
    EXPECT_EQ(source->misuse(), 0);
  }

  Heard heard;
  Diagnostics diagnostics{DiagnosticLevel::debug, heard.handler()};
  HttpServer server;
  std::shared_ptr<FakeSource> source = std::make_shared<FakeSource>();
};

// ---- when a batch is due

TEST_F(DestinationTest, SendsWhenTheOldestRecordHasWaitedForTheInterval) {
  HOLDS("BP-06");
  auto c = config();
  c.batch.interval = 1ms;
  const auto destination = open(c);
  for (std::size_t i = 1; i <= 3; ++i) {
    record(*destination, std::to_string(i));
    ASSERT_TRUE(server.wait_for_requests(i));
  }
  EXPECT_THAT(received(), ElementsAre(ElementsAre("1"), ElementsAre("2"), ElementsAre("3")));
}

TEST_F(DestinationTest, SendsAtOnceWhenEnoughRecordsWait) {
  HOLDS("BP-06", "BP-07", "BP-09");
  auto c = config();
  c.batch.max_records = 2;
  const auto destination = open(c);
  for (int i = 0; i < 5; ++i) record(*destination, std::to_string(i));
  ASSERT_TRUE(server.wait_for_requests(2));
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_THAT(received(), ElementsAre(ElementsAre("0", "1"), ElementsAre("2", "3"), ElementsAre("4")));
  expect_balanced(*destination);
}

TEST_F(DestinationTest, SendsAtOnceWhenEnoughBytesWait) {
  auto c = config();
  c.batch.max_bytes = 1024;
  const auto destination = open(c);
  record(*destination, std::string(600, 'a'));
  record(*destination, std::string(600, 'b'));
  ASSERT_TRUE(server.wait_for_requests(1));
  EXPECT_EQ(received().at(0).size(), 1u);
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(received().size(), 2u);
}

TEST_F(DestinationTest, WhatAFullBatchLeftGoesOutByItsOwnAge) {
  auto c = config();
  c.batch.max_records = 2;
  c.batch.interval = 20ms;
  const auto destination = open(c);
  for (int i = 0; i < 3; ++i) source->append(Signal::traces, span_bytes(std::to_string(i)));
  destination->wake(3, 100);
  ASSERT_TRUE(server.wait_for_requests(2));
  EXPECT_THAT(received(), ElementsAre(ElementsAre("0", "1"), ElementsAre("2")));
}

TEST_F(DestinationTest, SendsNothingWhereNothingWaits) {
  HOLDS("HC-31", "BP-08");
  const auto destination = open(config());
  EXPECT_TRUE(destination->flush(in(kLong)));
  source->append(Signal::logs, log_bytes("of the other signal"));
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(source->position("backend", Signal::traces), 1u) << "passed all the same";
  destination->stop(in(kLong));
  EXPECT_THAT(server.requests(), IsEmpty());
  EXPECT_EQ(source->misuse(), 0);
}

TEST_F(DestinationTest, KeepsOneConnection) {
  HOLDS("HC-15", "BP-01");
  const auto destination = open(config());
  for (int i = 0; i < 10; ++i) {
    record(*destination, std::to_string(i));
    EXPECT_TRUE(destination->flush(in(kLong)));
  }
  EXPECT_EQ(server.requests().size(), 10u);
  EXPECT_EQ(server.connections(), 1u);
}

// ---- retries

TEST_F(DestinationTest, SendsTheSameBytesAgainUntilTheyAreTaken) {
  HOLDS("RT-01", "RT-02", "RT-06", "RT-08", "RT-13", "RT-23");
  server.script({{.status = 429}, {.status = 502}, {.broken = HttpReply::Break::no_response}, {.status = 503}, {.status = 504},
                 {.body = "torn", .broken = HttpReply::Break::half_body}});
  const auto destination = open(config());
  record(*destination, "first");
  EXPECT_TRUE(destination->flush(in(kLong)));
  record(*destination, "second");
  EXPECT_TRUE(destination->flush(in(kLong)));
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 8u);
  for (std::size_t i = 0; i < 7; ++i) EXPECT_EQ(requests[i].body, requests[0].body);
  EXPECT_THAT(names(Signal::traces, requests[7].body), ElementsAre("second"));
  EXPECT_EQ(destination->stats().counts.delivered, 2u);
  EXPECT_FALSE(destination->stats().last_error.empty());
  EXPECT_THAT(heard.lines(), ElementsAre(AllOf(HasSubstr("traces to backend"), HasSubstr("HTTP 429"), HasSubstr("trying again"))));
  expect_balanced(*destination);
}

TEST_F(DestinationTest, WaitsAsLongAsTheServerAsks) {
  HOLDS("RT-04", "RT-14");
  server.script({{.status = 503, .headers = {{"Retry-After", "60"}}}});
  Heard looks;  // at the clock: one when the wait begins, one for each time that it is asked whether it is over
  std::atomic<std::int64_t> seconds{100'000};
  const auto destination = open(config(), {.now = [&] {
                                  looks.add("now");
                                  return std::chrono::steady_clock::time_point(std::chrono::seconds(seconds));
                                }});
  record(*destination, "a");
  const auto first = destination->begin_flush();
  ASSERT_TRUE(looks.wait_for(2));
  seconds += 59;
  const auto second = destination->begin_flush();
  ASSERT_TRUE(looks.wait_for(3));
  EXPECT_EQ(server.requests().size(), 1u) << "a flush is not in so much of a hurry";
  seconds += 1;
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST_F(DestinationTest, DeliversOnceTheBackendIsThere) {
  HOLDS("RT-09", "EH-03");
  const auto port = HttpServer::closed_port();
  auto c = config();
  c.url = "http://127.0.0.1:" + std::to_string(port) + "/v1/traces";
  const auto destination = open(c);
  record(*destination, "early");
  const auto flush = destination->begin_flush();
  ASSERT_TRUE(heard.wait_for(1));
  const HttpServer late(port);
  EXPECT_TRUE(destination->wait(flush, in(kLong)));
  EXPECT_EQ(late.requests().size(), 1u);
}

TEST_F(DestinationTest, NeverSendsAgainWhatWasRefusedForGood) {
  HOLDS("RT-03", "RT-12", "HC-11", "HC-17", "RT-25", "TR-85");
  const std::vector<HttpReply> refusals = {
      {.status = 302}, {.status = 400}, {.status = 402}, {.status = 404}, {.status = 422}, {.status = 408}, {.status = 413},
      {.status = 500}, {.status = 501}, {.status = 505}, {.broken = HttpReply::Break::endless_headers},
      {.body = std::string(5 << 20, 'x')}};
  server.script(refusals);
  const auto destination = open(config());
  for (std::size_t i = 0; i < refusals.size(); ++i) {
    record(*destination, std::to_string(i));
    EXPECT_TRUE(destination->flush(in(kLong)));
    EXPECT_EQ(server.requests().size(), i + 1);
    EXPECT_EQ(destination->stats().counts.rejected, i + 1);
  }
  record(*destination, "last");
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(destination->stats().counts.delivered, 1u);
  EXPECT_EQ(heard.lines().size(), 1u) << "said once, then a summary a minute";
  expect_balanced(*destination);
}

TEST_F(DestinationTest, SaysWhatTheServerSaidButNoSecrets) {
  HOLDS("HC-14", "EH-07");
  server.script({{.status = 400,
                  .headers = {{"Content-Type", "application/json"}},
                  .body = R"({"message":"bad token 0123456789abcdef in 'Bearer 0123456789abcdef'"})"}});
  auto c = config();
  c.headers = {{"Authorization", "Bearer 0123456789abcdef"}};
  const auto destination = open(c);
  record(*destination, "a");
  EXPECT_TRUE(destination->flush(in(kLong)));
  const std::string said = destination->stats().last_error;
  EXPECT_THAT(said, AllOf(HasSubstr("HTTP 400"), HasSubstr("bad token"), HasSubstr("1 record"), Not(HasSubstr("0123456789"))));
  EXPECT_THAT(heard.lines().at(0), AllOf(HasSubstr(said), HasSubstr("traces to backend")));
}

TEST_F(DestinationTest, CountsAPartialSuccessAndSendsNothingAgain) {
  HOLDS("RT-17");
  server.script({{.headers = {{"Content-Type", "application/json"}},
                  .body = R"({"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}})"}});
  const auto destination = open(config());
  for (int i = 0; i < 5; ++i) record(*destination, "x");
  EXPECT_TRUE(destination->flush(in(kLong)));
  const Counts counts = destination->stats().counts;
  EXPECT_EQ(counts.delivered, 3u);
  EXPECT_EQ(counts.rejected, 2u);
  EXPECT_EQ(server.requests().size(), 1u);
  EXPECT_THAT(heard.lines(), ElementsAre(AllOf(HasSubstr("2 of 5 records"), HasSubstr("too old"))));
  expect_balanced(*destination);
}

TEST_F(DestinationTest, ABackendCantRefuseMoreThanItWasSent) {
  server.script({{.headers = {{"Content-Type", "application/json"}}, .body = R"({"partialSuccess":{"rejectedSpans":"99"}})"}});
  const auto destination = open(config());
  record(*destination, "x");
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(destination->stats().counts.rejected, 1u);
  expect_balanced(*destination);
}

TEST_F(DestinationTest, AWarningOnASuccessIsSaid) {
  HOLDS("RT-19");
  server.script({{.headers = {{"Content-Type", "application/json"}}, .body = R"({"partialSuccess":{"errorMessage":"careful"}})"}});
  const auto destination = open(config());
  record(*destination, "x");
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(destination->stats().counts.delivered, 1u);
  EXPECT_THAT(heard.lines(), ElementsAre(HasSubstr("careful")));
}

TEST_F(DestinationTest, ABackendThatTakesNoLogsLosesNothingUnsentAndIsAskedLessOften) {
  for (const int status : {404, 501}) {
    HttpServer backend;
    backend.standard({.status = status});
    auto c = config(Signal::logs);
    c.name = "jaeger " + std::to_string(status);
    c.url = backend.url("/v1/logs");
    c.batch.interval = 1ms;
    c.batch.max_records = 2;
    const auto destination = open(c);
    const std::size_t said_before = heard.lines().size();
    for (std::size_t i = 1; i <= 3; ++i) {
      record(*destination, "early");
      ASSERT_TRUE(backend.wait_for_requests(i)) << "by its interval, though that is longer now";
    }
    for (int i = 3; i < 20; ++i) {
      record(*destination, "early");
      EXPECT_TRUE(destination->flush(in(kLong)));
    }
    EXPECT_EQ(backend.requests().size(), 20u) << "each by itself";
    EXPECT_EQ(destination->stats().counts.rejected, 20u);
    record(*destination, "waits");
    record(*destination, "is enough");
    ASSERT_TRUE(backend.wait_for_requests(21));
    EXPECT_EQ(read_request(Signal::logs, backend.requests().at(20).body).logs.size(), 2u)
        << "what waits is sent once it is a whole batch: nothing heaps up in the journal";
    backend.standard({.status = 200});
    record(*destination, "taken");
    EXPECT_TRUE(destination->flush(in(kLong)));
    record(*destination, "at the usual interval");
    ASSERT_TRUE(backend.wait_for_requests(23));
    EXPECT_TRUE(destination->flush(in(kLong)));
    EXPECT_EQ(destination->stats().counts.delivered, 2u);
    EXPECT_EQ(destination->stats().counts.rejected, 22u);
    const auto lines = heard.lines();
    ASSERT_EQ(lines.size(), said_before + 1) << "said once";
    EXPECT_THAT(lines.back(), AllOf(HasSubstr("seems to take no logs"), HasSubstr("logs_as_span_events"), HasSubstr(std::to_string(status))));
  }
}

TEST_F(DestinationTest, ARouteThatIsGoneForAMomentCostsOneBatchOfLogs) {
  HttpServer backend;
  backend.script({{.status = 200}, {.status = 404}, {.status = 200}});
  auto c = config(Signal::logs);
  c.url = backend.url("/v1/logs");
  const auto destination = open(c);
  for (int i = 0; i < 3; ++i) {
    record(*destination, "a");
    static_cast<void>(destination->flush(in(kLong)));
  }
  EXPECT_EQ(backend.requests().size(), 3u);
  EXPECT_EQ(destination->stats().counts.delivered, 2u);
  EXPECT_EQ(destination->stats().counts.rejected, 1u);
}

// ---- flush

TEST_F(DestinationTest, AFlushEndsABackoffOfOurOwnOnce) {
  HOLDS("RT-22");
  server.script({{.status = 503}, {.status = 503}});
  auto c = config();
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};
  c.batch.max_records = 1;
  const auto destination = open(c);
  record(*destination, "a");
  ASSERT_TRUE(heard.wait_for(1));
  const auto flush = destination->begin_flush();
  ASSERT_TRUE(server.wait_for_requests(2));
  EXPECT_FALSE(destination->wait(flush, in(20ms))) << "one more try, then the backoff goes on";
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(server.requests().size(), 3u);
}

TEST_F(DestinationTest, AFlushDoesNotEndAWaitThatTheServerAskedFor) {
  HOLDS("RT-07", "RT-14", "RT-22");
  server.script({{.status = 429, .headers = {{"Retry-After", "3600"}}}});
  auto c = config();
  c.batch.max_records = 1;
  const auto destination = open(c);
  record(*destination, "a");
  ASSERT_TRUE(heard.wait_for(1));
  EXPECT_FALSE(destination->flush(in(20ms)));
  destination->stop(in(kLong));  // at once: there is no use in waiting
  EXPECT_EQ(server.requests().size(), 1u);
  EXPECT_EQ(destination->stats().counts.pending, 1u);
}

TEST_F(DestinationTest, AFlushWaitsForWhatWasThereBeforeItOnly) {
  HOLDS("BP-11");
  server.standard({.hold = HttpReply::Hold::before_headers});
  const auto destination = open(config());
  record(*destination, "before");
  const auto flush = destination->begin_flush();
  ASSERT_TRUE(server.wait_for_holds(1));
  record(*destination, "after");
  EXPECT_FALSE(destination->wait(flush, in(20ms)));
  server.release();
  EXPECT_TRUE(destination->wait(flush, in(kLong)));
  EXPECT_EQ(destination->stats().counts.pending, 1u);
}

// ---- stop

TEST_F(DestinationTest, AStopDrains) {
  HOLDS("BP-09", "BP-12");
  auto c = config();
  c.batch.max_records = 30;
  auto destination = open(c);
  const auto dead = std::make_shared<FakeSource>(false);
  dead->had_cursor("backend", Signal::traces);
  dead->append(Signal::traces, span_bytes("dead"));
  destination->add_source(dead, false);
  for (int i = 0; i < 100; ++i) source->append(Signal::traces, span_bytes(std::to_string(i)));
  destination->stop(in(kLong));
  std::size_t sum = 0;
  for (const auto& batch : received()) {
    EXPECT_LE(batch.size(), 30u);
    sum += batch.size();
  }
  EXPECT_EQ(sum, 101u);
  EXPECT_EQ(source->position("backend", Signal::traces), 100u);
  EXPECT_EQ(dead->position("backend", Signal::traces), 1u);
  destination->stop(in(kLong));
}

TEST_F(DestinationTest, AStopIsNotHeldUpByAServerThatHangs) {
  HOLDS("RT-20", "EH-10", "GC-26", "TR-85");
  for (const auto hold : {HttpReply::Hold::before_headers, HttpReply::Hold::before_body}) {
    HttpServer hanging;
    hanging.standard({.body = "late", .hold = hold});
    auto c = config();
    c.url = hanging.url();
    c.batch.max_records = 1;
    source = std::make_shared<FakeSource>();
    const auto destination = open(c);
    record(*destination, "a");
    ASSERT_TRUE(hanging.wait_for_holds(1));
    destination->stop(in(10ms));
    EXPECT_EQ(destination->stats().counts.pending, 1u);
    EXPECT_EQ(source->position("backend", Signal::traces), 0u);
    expect_balanced(*destination);
  }
}

TEST_F(DestinationTest, AStopGivesADeadBackendOneTry) {
  auto c = config();
  c.url = "http://127.0.0.1:" + std::to_string(HttpServer::closed_port()) + "/v1/traces";
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};
  const auto destination = open(c);
  record(*destination, "a");
  destination->stop(in(kLong));
  EXPECT_EQ(destination->stats().counts.pending, 1u);
  expect_balanced(*destination);
}

TEST_F(DestinationTest, AStopEndsABackoff) {
  HOLDS("RT-22");
  server.script({{.status = 503}});
  auto c = config();
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};
  c.batch.max_records = 1;
  const auto destination = open(c);
  record(*destination, "a");
  ASSERT_TRUE(heard.wait_for(1));
  destination->stop(in(kLong));
  EXPECT_EQ(destination->stats().counts.delivered, 1u);
}

TEST_F(DestinationTest, AfterAStopNothingIsSent) {
  HOLDS("TR-85");
  const auto destination = open(config());
  destination->stop(in(kLong));
  record(*destination, "late");
  EXPECT_FALSE(destination->flush(in(kLong)));
  EXPECT_THAT(server.requests(), IsEmpty());
  EXPECT_EQ(destination->stats().counts.pending, 1u);
}

// ---- sources

TEST_F(DestinationTest, ReadsWhatADeadProcessLeftAndLetsItGo) {
  HOLDS("RT-25");
  Heard done;
  const auto dead = std::make_shared<FakeSource>(false);
  dead->had_cursor("backend", Signal::traces, {.offered = 7, .delivered = 4, .dropped = 3});
  for (int i = 0; i < 3; ++i) dead->append(Signal::traces, span_bytes("dead" + std::to_string(i)));
  const auto destination = open(config(), {.on_source_done = [&](const auto& s) { done.add(s == dead ? "dead" : "other"); }});
  destination->add_source(dead, false);
  ASSERT_TRUE(done.wait_for(1));
  EXPECT_THAT(done.lines(), ElementsAre("dead"));
  EXPECT_THAT(received(), ElementsAre(ElementsAre("dead0", "dead1", "dead2")));
  record(*destination, "own");
  EXPECT_TRUE(destination->flush(in(kLong)));
  const Counts counts = destination->stats().counts;
  EXPECT_EQ(counts.delivered, 4u) << "three recovered and one of its own; not what the dead process had delivered";
  expect_balanced(*destination);
}

TEST_F(DestinationTest, ADeadSourceThatNeverHadThisDestinationIsNotTaken) {
  const auto dead = std::make_shared<FakeSource>(false);
  dead->append(Signal::traces, span_bytes("nobody asked"));
  const auto destination = open(config());
  EXPECT_FALSE(destination->add_source(dead, false));
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_THAT(server.requests(), IsEmpty());
}

TEST_F(DestinationTest, ADisabledOneLetsGoOfWhatADeadProcessLeft) {
  Heard done;
  const auto dead = std::make_shared<FakeSource>(false);
  dead->had_cursor("backend", Signal::traces);
  dead->append(Signal::traces, span_bytes("dead"));
  server.script({{.status = 503, .headers = {{"Retry-After", "3600"}}}});
  const auto destination = open(config(), {.on_source_done = [&](const auto&) { done.add("done"); },
                                           .on_failing = [&] { done.add("failing"); }});
  EXPECT_TRUE(destination->add_source(dead, false));
  ASSERT_TRUE(done.wait_for(1));
  EXPECT_TRUE(destination->failing());
  EXPECT_FALSE(destination->give_back(dead)) << "it waits to be sent again";
  auto off = config();
  off.enabled = false;
  destination->replace(off);
  ASSERT_TRUE(done.wait_for(2));
  EXPECT_THAT(done.lines(), ElementsAre("failing", "done"));
  EXPECT_FALSE(destination->add_source(dead, false));
  destination->replace(config());
  EXPECT_TRUE(destination->add_source(dead, false)) << "its cursor stands where it stood";
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(destination->stats().counts.delivered, 1u);
}

TEST_F(DestinationTest, ABusySourceDoesNotStarveARecoveredOne) {
  auto c = config();
  c.batch.max_records = 1;
  const auto destination = open(c);
  const auto dead = std::make_shared<FakeSource>(false);
  dead->had_cursor("backend", Signal::traces);
  dead->append(Signal::traces, span_bytes("dead"));
  for (int i = 0; i < 20; ++i) source->append(Signal::traces, span_bytes("own"));
  server.script({{.hold = HttpReply::Hold::before_headers}});
  destination->wake(20, 1000);
  ASSERT_TRUE(server.wait_for_holds(1));
  destination->add_source(dead, false);
  server.release();
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_THAT(received().at(1), ElementsAre("dead"));
}

TEST_F(DestinationTest, AFaultWhileABatchIsMadeLosesNothing) {
  HOLDS("BP-16", "EH-05");
  source->fail_scopes(1);
  const auto destination = open(config());
  record(*destination, "a");
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(destination->stats().counts.delivered, 1u);
  EXPECT_THAT(heard.lines(), ElementsAre(HasSubstr("planted")));
  expect_balanced(*destination);
}

TEST_F(DestinationTest, ARecordLargerThanARequestIsDroppedAndSaid) {
  HOLDS("HC-08", "HC-09", "GC-23");
  auto c = config();
  c.batch.max_bytes = 1024;
  const auto destination = open(c);
  record(*destination, std::string(3000, 'x'));
  record(*destination, "small");
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_EQ(destination->stats().counts.dropped, 1u);
  EXPECT_EQ(destination->stats().counts.delivered, 1u);
  EXPECT_THAT(heard.lines(), ElementsAre(HasSubstr("batch.max_bytes = 1024")));
  expect_balanced(*destination);
}

TEST_F(DestinationTest, WhatItFiltersIsCounted) {
  auto c = config(Signal::logs);
  c.minimum_severity = Severity::error;
  const auto destination = open(c);
  for (const int severity : {9, 9, 9}) source->append(Signal::logs, log_bytes("quiet", severity));
  EXPECT_TRUE(destination->flush(in(kLong)));
  EXPECT_THAT(server.requests(), IsEmpty());
  EXPECT_EQ(destination->stats().counts.filtered, 3u);
  expect_balanced(*destination);
}

// ---- settings

TEST_F(DestinationTest, NewSettingsTakeOverTheBatchThatWaits) {
  HttpServer other;
  server.standard({.status = 503});
  auto c = config();
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};
  c.batch.max_records = 1;
  const auto destination = open(c);
  record(*destination, "a");
  ASSERT_TRUE(heard.wait_for(1));
  EXPECT_TRUE(source->opened_lossy());
  c.url = other.url();
  c.lossy = false;
  c.resource_attributes = {{"s2.stream", {std::string("tiles")}}};
  destination->replace(c);
  ASSERT_TRUE(other.wait_for_requests(1));
  record(*destination, "b");
  EXPECT_TRUE(destination->flush(in(kLong)));
  const auto requests = other.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(find_string(read_request(Signal::traces, requests[1].body).spans.at(0).resource, "s2.stream"), "tiles");
  EXPECT_FALSE(source->opened_lossy());
  EXPECT_EQ(server.requests().size(), 1u);
  expect_balanced(*destination);
}

TEST_F(DestinationTest, SettingsThatCantWorkAreRefusedAndChangeNothing) {
  const auto destination = open(config());
  const auto refused = [&](auto change) {
    auto c = config();
    change(c);
    EXPECT_THROW(destination->replace(c), Error);
    EXPECT_THROW(Destination(c, diagnostics), Error);
  };
  refused([](auto& c) { c.batch.max_bytes = 1023; });
  refused([](auto& c) { c.batch.max_bytes = (64 << 20) + 1; });
  refused([](auto& c) { c.batch.interval = 0s; });
  refused([](auto& c) { c.batch.interval = 24h * 400; });
  refused([](auto& c) { c.timeout = -1s; });
  refused([](auto& c) { c.retry.multiplier = 0.5; });
  refused([](auto& c) { c.retry.maximum = 0s; });
  refused([](auto& c) { c.headers = {{"A", "b\r\nc"}}; });
  refused([](auto& c) { c.output = Output::callback; });
  refused([](auto& c) { c.output = Output::console; });
  refused([](auto& c) { c.output = Output::file; });
  auto c = config();
  c.name = "another";
  EXPECT_THROW(destination->replace(c), Error);
  record(*destination, "a");
  EXPECT_TRUE(destination->flush(in(kLong)));
}

TEST_F(DestinationTest, ACallbackThatThrowsIsARefusal) {
  HOLDS("EH-04", "TR-82");
  auto c = config();
  c.output = Output::callback;
  std::vector<std::string> requests;
  c.deliver = [&](Signal signal, std::string_view request) -> DeliveryResult {
    requests.push_back(names(signal, std::string(request)).at(0));
    if (requests.back() == "throw") throw std::runtime_error("no disk");
    if (requests.back() == "int") throw 3;
    return {.outcome = requests.size() == 3 ? Outcome::retry : Outcome::delivered};
  };
  const auto destination = open(c);
  for (const char* name : {"throw", "int", "good"}) {
    record(*destination, name);
    EXPECT_TRUE(destination->flush(in(kLong)));
  }
  EXPECT_THAT(requests, ElementsAre("throw", "int", "good", "good"));
  const DestinationStats stats = destination->stats();
  EXPECT_EQ(stats.counts.rejected, 2u);
  EXPECT_EQ(stats.counts.delivered, 1u);
  EXPECT_THAT(heard.lines().at(0), HasSubstr("no disk"));
}

TEST_F(DestinationTest, OneDeadBackendCostsAnotherNothing) {
  HOLDS("HC-32", "TR-82");
  HttpServer hanging;
  hanging.standard({.hold = HttpReply::Hold::before_headers});
  auto c = config();
  c.name = "hangs";
  c.url = hanging.url();
  c.batch.max_records = 1;
  const auto dead = open(c);
  const auto alive = open(config());
  const auto size = source->append(Signal::traces, span_bytes("a"));
  dead->wake(1, size);
  alive->wake(1, size);
  ASSERT_TRUE(hanging.wait_for_holds(1));
  EXPECT_TRUE(alive->flush(in(kLong)));
  EXPECT_EQ(alive->stats().counts.delivered, 1u);
  EXPECT_EQ(dead->stats().counts.pending, 1u);
}

TEST_F(DestinationTest, ManyThreadsAtOnce) {
  HOLDS("BP-14");
  auto c = config();
  c.batch.interval = 1ms;
  c.batch.max_records = 7;
  const auto destination = open(c);
  std::atomic<bool> recorded{false};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    for (int i = 0; i < 2000; ++i) record(*destination, std::to_string(i));
    recorded = true;
  });
  threads.emplace_back([&] {
    while (!recorded) (void)destination->flush(in(5ms));
  });
  threads.emplace_back([&] {
    while (!recorded) (void)destination->stats();
  });
  threads.emplace_back([&] {
    for (int i = 0; !recorded && i < 20; ++i) destination->replace(c);
  });
  for (auto& thread : threads) thread.join();
  destination->begin_stop(in(kLong));
  std::thread beside([&] { destination->stop(in(kLong)); });
  destination->stop(in(kLong));
  beside.join();
  std::vector<std::string> arrived;
  for (const auto& batch : received()) arrived.insert(arrived.end(), batch.begin(), batch.end());
  ASSERT_EQ(arrived.size(), 2000u);
  for (std::size_t i = 0; i < arrived.size(); ++i) ASSERT_EQ(arrived[i], std::to_string(i));
  expect_balanced(*destination);
}

TEST_F(DestinationTest, WhatAFullJournalTookWhileItWaitedIsNotSentAgain) {
  std::vector<std::vector<std::string>> sent;
  Heard calls;
  DestinationConfig c = config();
  c.output = Output::callback;
  c.retry = {.initial = 1h, .maximum = 1h, .multiplier = 1.0};  // only a flush ends the pause
  c.deliver = [&](Signal signal, std::string_view request) {
    std::vector<std::string> names;
    for (const ReadSpan& span : read_request(signal, request).spans) names.push_back(span.name);
    sent.push_back(names);
    calls.add("call");
    return DeliveryResult{sent.size() == 1 ? Outcome::retry : Outcome::delivered, 0, {}};
  };
  const auto destination = open(c);
  source->append(Signal::traces, span_bytes("oldest"));
  source->append(Signal::traces, span_bytes("newer"));
  const auto first = destination->begin_flush();
  ASSERT_TRUE(calls.wait_for(1));
  source->evict_one("backend", Signal::traces);
  ASSERT_TRUE(destination->flush(in(kLong)));
  EXPECT_THAT(sent, ElementsAre(ElementsAre("oldest", "newer"), ElementsAre("newer")));
  const Counts counts = destination->stats().counts;
  EXPECT_EQ(counts.delivered, 1u);
  EXPECT_EQ(counts.dropped, 1u);
  EXPECT_EQ(source->misuse(), 0);
}

}  // namespace
}  // namespace waymark::delivery
