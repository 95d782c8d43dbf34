// Tasks as a user writes them, and a client on a store and a telemetry of the test's own.
//
// Hides: where they lie.
// Threads: as the runner's.
// Failure: expectations.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "runner/temporary_directory.h"
#include "waymark/store.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace waymark {

using namespace std::chrono_literals;

struct Tile {
  std::string scene_id;
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, scene_id, index)

  void execute(Context& context) {
    auto span = context.tracer().span("read_bands", {{"bands", 4}});
    context.logger().info("tile read", {{"index", index}});
  }
};

struct Mosaic {
  std::string scene_id;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Mosaic, scene_id)

  void execute(Context& context) { context.logger().info("mosaic done"); }
};

struct ProcessScene {
  std::string scene_id;
  int tiles = 16;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ProcessScene, scene_id, tiles)

  void execute(Context& context) {
    std::vector<Tile> work;
    for (int i = 0; i < tiles; ++i) work.push_back({scene_id, i});
    auto done = context.submit_subtasks(work, {.max_retries = 3});
    context.submit_subtask(Mosaic{scene_id}, {.depends_on = done});
  }
};

// A task whose body a test gives, by number.
struct Scripted {
  int number = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Scripted, number)
  void execute(Context& context) {
    std::function<void(Context&)> body;
    {
      const std::scoped_lock lock(mutex());
      body = bodies().at(number);
    }
    body(context);
  }
  static std::mutex& mutex() {
    static std::mutex m;
    return m;
  }
  static std::map<int, std::function<void(Context&)>>& bodies() {
    static std::map<int, std::function<void(Context&)>> b;
    return b;
  }
};

inline Scripted scripted(std::function<void(Context&)> body) {
  const std::scoped_lock lock(Scripted::mutex());
  const int number = static_cast<int>(Scripted::bodies().size());
  Scripted::bodies()[number] = std::move(body);
  return {number};
}

struct Empty {
  void execute(Context&) {}
};

struct Unlucky : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline const AnyValue* attribute(const ReadSpan& span, std::string_view key) { return find(span.attributes, key); }
inline std::string text(const AnyMap& attributes, std::string_view key) {
  const AnyValue* value = find(attributes, key);
  return value ? to_text(*value) : "(none)";
}

// Every parent is there, and encloses its children; nothing ends before it starts.
inline void expect_enclosing(const std::vector<ReadSpan>& spans, std::size_t roots) {
  std::map<SpanId, const ReadSpan*> by_id;
  for (const ReadSpan& span : spans) {
    EXPECT_TRUE(by_id.emplace(span.context.span_id, &span).second) << span.name << " twice";
    EXPECT_LE(span.start, span.end) << span.name;
  }
  std::size_t found = 0;
  for (const ReadSpan& span : spans) {
    if (!span.parent.valid()) {
      ++found;
      continue;
    }
    const auto parent = by_id.find(span.parent);
    ASSERT_NE(parent, by_id.end()) << "no parent of " << span.name;
    EXPECT_EQ(parent->second->context.trace_id, span.context.trace_id);
    EXPECT_LE(parent->second->start, span.start) << span.name << " starts before " << parent->second->name;
    EXPECT_GE(parent->second->end, span.end) << span.name << " ends after " << parent->second->name;
  }
  EXPECT_EQ(found, roots);
}

class RunnerTest : public ::testing::Test {
 protected:
  RunnerTest() : telemetry_(testing::memory_config(memory_)), client_(options()) {}

  ClientOptions options() {
    return {.name = "test-runner", .store = directory_.path() + "/store.db", .telemetry = &telemetry_};
  }
  static RunnerOptions quick(std::uint32_t concurrency = 2) {
    return {.concurrency = concurrency, .lease = 30s, .backoff = {.initial = 1ms, .maximum = 5ms, .multiplier = 2}};
  }
  Runner runner(const RunnerOptions& options = quick()) {
    return client_.runner<ProcessScene, Tile, Mosaic, Scripted, Empty>(options);
  }
  std::vector<ReadSpan> spans() {
    EXPECT_TRUE(telemetry_.force_flush(10s));
    return memory_.spans();
  }
  std::vector<ReadSpan> spans_named(const std::string& name) {
    std::vector<ReadSpan> found = spans();
    std::erase_if(found, [&](const ReadSpan& s) { return s.name != name; });
    std::sort(found.begin(), found.end(), [](const ReadSpan& a, const ReadSpan& b) { return a.start < b.start; });
    return found;
  }
  std::vector<ReadLog> logs() {
    EXPECT_TRUE(telemetry_.force_flush(10s));
    return memory_.logs();
  }

  testing::TemporaryDirectory directory_;
  testing::MemoryDestination memory_;
  Telemetry telemetry_;
  Client client_;
};

}  // namespace waymark
