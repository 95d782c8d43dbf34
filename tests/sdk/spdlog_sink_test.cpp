#include "waymark/spdlog_sink.h"

#include <gtest/gtest.h>
#include <spdlog/logger.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <set>
#include <thread>

#include "support/holds.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

class SpdlogSinkTest : public ::testing::Test {
 protected:
  std::vector<ReadLog> logs() {
    EXPECT_TRUE(telemetry_.force_flush(std::chrono::seconds(60)));
    return memory_.logs();
  }
  static spdlog::logger logger(const std::string& name, const spdlog::sink_ptr& sink) {
    spdlog::logger logger(name, sink);
    logger.set_level(spdlog::level::trace);
    return logger;
  }

  testing::MemoryDestination memory_;
  Telemetry telemetry_{testing::memory_config(memory_)};
};

TEST_F(SpdlogSinkTest, KeepsTextNameTimeAndThread) {
  HOLDS("LG-26", "LG-27", "LG-29");
  spdlog::logger tiles = logger("tiles", spdlog_sink(telemetry_));
  const auto time = spdlog::log_clock::time_point(std::chrono::seconds(1'700'000'000)) + std::chrono::microseconds(123'456);
  tiles.log(time, spdlog::source_loc{}, spdlog::level::info, "read 4 bands");
  const auto records = logs();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].body, AnyValue{std::string("read 4 bands")});
  EXPECT_EQ(records[0].scope.name, "tiles");
  EXPECT_TRUE(records[0].scope.attributes.empty());
  EXPECT_EQ(records[0].time, Timestamp(std::chrono::nanoseconds(1'700'000'000'123'456'000)));
  EXPECT_EQ(records[0].attributes, (AnyMap{{"thread.id", {std::int64_t{syscall(SYS_gettid)}}}}));
}

TEST_F(SpdlogSinkTest, MapsEveryLevel) {
  HOLDS("SEV-03", "SEV-05", "SEV-02");
  spdlog::logger tiles = logger("tiles", spdlog_sink(telemetry_));
  for (const auto level : {spdlog::level::trace, spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                           spdlog::level::err, spdlog::level::critical, spdlog::level::off}) {
    tiles.log(level, "x");
  }
  std::vector<std::pair<int, std::string>> seen;
  for (const ReadLog& log : logs()) seen.emplace_back(log.severity, log.severity_text);
  EXPECT_EQ(seen, (std::vector<std::pair<int, std::string>>{
                      {1, "trace"}, {5, "debug"}, {9, "info"}, {13, "warning"}, {17, "error"}, {21, "critical"}}));
}

TEST_F(SpdlogSinkTest, TellsTheSourceLocationWhenAsked) {
  const spdlog::source_loc place("src/tile.cpp", 42, "read");
  logger("with", spdlog_sink(telemetry_, {.source_location = true})).log(place, spdlog::level::info, "x");
  logger("nowhere", spdlog_sink(telemetry_, {.source_location = true})).info("x");
  logger("without", spdlog_sink(telemetry_)).log(place, spdlog::level::info, "x");
  for (const ReadLog& log : logs()) {
    if (log.scope.name == "with") {
      EXPECT_EQ(find_string(log.attributes, "code.file.path"), "src/tile.cpp");
      ASSERT_NE(find(log.attributes, "code.line.number"), nullptr);
      EXPECT_EQ(*find(log.attributes, "code.line.number"), AnyValue{std::int64_t{42}});
      EXPECT_EQ(find_string(log.attributes, "code.function.name"), "read");
    } else {
      EXPECT_EQ(log.attributes.size(), 1u) << log.scope.name;
    }
  }
  EXPECT_EQ(memory_.logs().size(), 3u);
}

TEST_F(SpdlogSinkTest, CarriesTheIdsOfTheCurrentSpan) {
  spdlog::logger tiles = logger("tiles", spdlog_sink(telemetry_));
  const auto span = telemetry_.tracer("t").span("work");
  tiles.info("inside");
  const auto records = logs();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].trace_id, span.context().trace_id);
  EXPECT_EQ(records[0].span_id, span.context().span_id);
}

TEST_F(SpdlogSinkTest, LeavesOutTheLoggerThatReportsAboutWaymark) {
  HOLDS("LG-30");
  const auto sink = spdlog_sink(telemetry_);
  logger("waymark", sink).error("a destination fails");
  logger("other", sink).error("x");
  const auto records = logs();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].scope.name, "other");
}

TEST_F(SpdlogSinkTest, KnowsManyLoggersFromManyThreads) {
  const auto sink = spdlog_sink(telemetry_);
  constexpr int kThreads = 4;
  constexpr int kNames = 100;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kNames; ++i) logger("logger " + std::to_string(i), sink).info("x");
    });
  }
  threads.clear();
  std::multiset<std::string> names;
  for (const ReadLog& log : logs()) names.insert(log.scope.name);
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kThreads * kNames));
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), static_cast<std::size_t>(kNames));
}

// The clock is user code that runs while a record is written.
TEST(SpdlogSinkRecursionTest, IgnoresWhatIsLoggedWhileItRecords) {
  testing::MemoryDestination memory;
  spdlog::logger* talkative = nullptr;
  const auto here = std::this_thread::get_id();
  int asked = 0;
  Config config = testing::memory_config(memory);
  config.clock = [&] {
    if (std::this_thread::get_id() == here && talkative) {
      ++asked;
      talkative->info("asked for the time");
    }
    return Timestamp(std::chrono::seconds(1));
  };
  Telemetry telemetry(config);
  spdlog::logger logger("tiles", spdlog_sink(telemetry));
  talkative = &logger;
  logger.info("once");
  talkative = nullptr;
  EXPECT_GT(asked, 0);
  ASSERT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
  const auto records = memory.logs();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].body, AnyValue{std::string("once")});
}

}  // namespace
}  // namespace waymark
