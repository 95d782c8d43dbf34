// Everything at once: recording, flushing, looking, replacing and adding destinations, recovering, and the end. For
// ThreadSanitizer; without it, for the books.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <latch>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/accounts.h"
#include "waymark/error.h"
#include "waymark/reader.h"
#include "waymark/telemetry.h"

namespace waymark {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// A backend that refuses every seventh request, and keeps the names of what it took.
class Backend {
 public:
  DeliveryResult take(Signal signal, std::string_view request) {
    const std::lock_guard lock(mutex_);
    if (++asked_ % 7 == 0) return {.outcome = Outcome::retry};
    const ReadTelemetry read = read_request(signal, request);
    for (const ReadSpan& span : read.spans) names_.insert(span.name);
    for (const ReadLog& log : read.logs) names_.insert(to_text(log.body));
    return {};
  }
  DestinationConfig destination(std::string name, Signal signal) {
    DestinationConfig d;
    d.name = std::move(name);
    d.signal = signal;
    d.output = Output::callback;
    d.deliver = [this](Signal s, std::string_view request) { return take(s, request); };
    d.batch.interval = 1ms;
    d.retry = {.initial = 1ms, .maximum = 2ms, .multiplier = 2.0};
    return d;
  }
  [[nodiscard]] std::set<std::string> names() const {
    const std::lock_guard lock(mutex_);
    return names_;
  }

 private:
  mutable std::mutex mutex_;
  std::size_t asked_ = 0;
  std::set<std::string> names_;
};

TEST(ConcurrencyTest, RecordingFlushReplacementAndShutdownFromManyThreadsAtOnce) {
  std::string directory = (fs::temp_directory_path() / "waymark-concurrency-XXXXXX").string();
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  constexpr int kRecorders = 3;
  constexpr int kEach = 1000;
  Backend spans;
  Backend logs;
  Config config;
  config.resource = Resource("concurrency");
  config.state_directory = directory + "/state";
  config.diagnostics = DiagnosticLevel::none;
  config.journal.keep_bytes = 0;
  config.destinations = {spans.destination("first", Signal::traces), logs.destination("first", Signal::logs)};
  std::uint64_t left_spans = 0;
  std::uint64_t left_logs = 0;
  {
    Telemetry telemetry(config);
    std::latch all(kRecorders + 6);
    std::atomic<int> recording{kRecorders};
    std::atomic<bool> half{false};
    std::vector<std::thread> threads;
    for (int r = 0; r < kRecorders; ++r) {
      threads.emplace_back([&, r] {
        all.arrive_and_wait();
        for (int i = 0; i < kEach; ++i) {
          if (i == kEach / 2) half = true;
          const std::string name = std::to_string(r) + "/" + std::to_string(i);
          auto span = telemetry.tracer("tracer " + std::to_string(i % 3)).span(name, {{"i", i}});
          telemetry.logger("logger").info(name);
        }
        --recording;
      });
    }
    threads.emplace_back([&] {
      all.arrive_and_wait();
      while (recording > 0) static_cast<void>(telemetry.force_flush(5ms));
    });
    threads.emplace_back([&] {
      all.arrive_and_wait();
      while (recording > 0) {
        for (const DestinationStats& d : telemetry.stats().destinations) EXPECT_LE(d.counts.delivered, d.counts.offered);
      }
    });
    threads.emplace_back([&] {  // other settings for those that are there
      all.arrive_and_wait();
      for (int i = 0; recording > 0; ++i) {
        DestinationConfig d = spans.destination("first", Signal::traces);
        d.enabled = i % 3 != 0;
        d.lossy = i % 2 == 0;
        d.batch.max_records = i % 5 == 0 ? 7 : 0;
        d.resource_attributes = {{"i", {std::int64_t{i}}}};
        try {
          telemetry.add(d);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::closed);
        }
      }
    });
    threads.emplace_back([&] {  // and new ones
      all.arrive_and_wait();
      for (int i = 0; i < 5; ++i) {
        try {
          telemetry.add(spans.destination("more " + std::to_string(i), Signal::traces));
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::closed);
        }
      }
    });
    threads.emplace_back([&] {
      all.arrive_and_wait();
      while (recording > 0) telemetry.recover();
    });
    threads.emplace_back([&] {
      all.arrive_and_wait();
      while (!half && recording > 0) std::this_thread::yield();
      static_cast<void>(telemetry.shutdown(10ms));  // in the midst of it
    });
    for (auto& thread : threads) thread.join();
    static_cast<void>(telemetry.shutdown(10ms));
    const Stats stats = telemetry.stats();
    for (const DestinationStats& d : stats.destinations) testing::expect_accounts(d);
    for (const DestinationStats& d : stats.destinations) {
      if (d.name != "first") continue;
      (d.signal == Signal::traces ? left_spans : left_logs) = d.counts.pending;
      if (d.signal == Signal::logs) {
        testing::expect_accounts(d, {.arrived = logs.names()});
      }
    }
  }
  // What was left is delivered after the next start.
  const auto before = logs.names().size();
  Telemetry telemetry(config);
  telemetry.recover();
  EXPECT_TRUE(telemetry.force_flush(30s));
  EXPECT_EQ(logs.names().size() - before, left_logs);
  for (const DestinationStats& d : telemetry.stats().destinations) {
    if (d.configured) testing::expect_accounts(d, {.waiting = 0});
    if (d.configured && d.signal == Signal::traces) {
      EXPECT_GE(d.counts.delivered, left_spans);
    }
  }
  static_cast<void>(telemetry.shutdown(10s));  // "more" destinations have records that nobody asks for now
  fs::remove_all(directory);
}

}  // namespace
}  // namespace waymark
