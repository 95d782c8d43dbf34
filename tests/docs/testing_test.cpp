// The examples of docs/testing.md.
#include <gtest/gtest.h>

#include <waymark/testing.h>
#include <waymark/waymark.h>
#include <waymark/workflow_testing.h>

#include <string>
#include <vector>

namespace {

void process_tile(const waymark::Tracer& tracer) {
  auto tile = tracer.span("process_tile");
  auto bands = tracer.span("read_bands");
}

TEST(TilesTest, ReadsTheBandsOfATile) {
  waymark::testing::MemoryDestination memory;
  waymark::Telemetry telemetry(waymark::testing::memory_config(memory));

  process_tile(telemetry.tracer("tiles"));

  telemetry.force_flush(std::chrono::seconds(5));
  EXPECT_EQ(waymark::testing::span_tree(memory.spans()),
            "process_tile\n"
            "  read_bands\n");
}

TEST(TilesTest, TakesAsLongAsTheClockSays) {
  waymark::testing::MemoryDestination memory;
  waymark::testing::ManualClock clock;
  waymark::Config config = waymark::testing::memory_config(memory);
  config.clock = clock.function();
  waymark::Telemetry telemetry(config);

  {
    auto span = telemetry.tracer("tiles").span("read_bands");
    clock.advance(std::chrono::milliseconds(20));
  }

  telemetry.force_flush(std::chrono::seconds(5));
  const waymark::ReadSpan span = memory.spans().at(0);
  EXPECT_EQ(span.end - span.start, std::chrono::milliseconds(20));
}

struct Tile {
  std::string scene_id;
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, scene_id, index)
  void execute(waymark::Context& context) { auto span = context.tracer().span("read_bands"); }
};

struct Mosaic {
  void execute(waymark::Context& context) { context.logger().info("mosaic done"); }
};

struct ProcessScene {
  std::string scene_id;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ProcessScene, scene_id)
  void execute(waymark::Context& context) {
    const std::vector<Tile> tiles{{scene_id, 0}, {scene_id, 1}, {scene_id, 2}};
    auto done = context.submit_subtasks(tiles, {.max_retries = 3});
    context.submit_subtask(Mosaic{}, {.depends_on = done});
  }
};

// The page's test itself is the example's: examples/workflow_test.
TEST(TestingPage, ShowsTheTraceOfATileThatFailed) {
  waymark::testing::Workbench bench;
  bench.fail<Tile>({.attempt = 1, .where = [](const Tile& tile) { return tile.index == 1; }});
  const auto job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1"});
  EXPECT_EQ(job.state, waymark::JobState::completed);
  const std::string tree = R"(
job/scene -> submit/scene
  task/ProcessScene
  subtasks/ProcessScene
    task/Tile
      read_bands
    task/Tile [error]
    task/Tile
      read_bands
    task/Tile -> task/Tile
      read_bands
    task/Mosaic -> task/Tile
submit/scene
)";
  EXPECT_EQ(bench.trace(), tree.substr(1));
}

TEST(TestingPage, TakesAPathInMemoryAndAClock) {
  waymark::testing::ManualClock clock;
  waymark::Client client({.name = "test", .store = "memory:", .time = {.now = clock.function()}});
  const auto job = client.jobs().submit("mosaic", Mosaic{});
  EXPECT_EQ(job.submitted_at, clock.now());
}

}  // namespace
