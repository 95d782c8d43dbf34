// A workflow's tests. Nothing is waited for: delays, backoffs, timeouts and leases pass on the bench's own clock.
//
// The traces that are expected lie in traces/; WAYMARK_UPDATE_GOLDEN=1 writes them anew.
#include <gtest/gtest.h>
#include <waymark/workflow_testing.h>

#include "scene.h"

using namespace std::chrono_literals;

TEST(SceneTest, PutsItsTilesTogether) {
  waymark::testing::Workbench bench;
  const auto job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1"});
  EXPECT_EQ(job.state, waymark::JobState::completed);
  EXPECT_EQ(bench.golden(TRACES "/scene.txt"), "");
}

TEST(SceneTest, TriesATileAgainThatFailed) {
  waymark::testing::Workbench bench;
  bench.fail<Tile>({.attempt = 1, .where = [](const Tile& tile) { return tile.index == 1; }});
  const auto job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1"});
  EXPECT_EQ(job.state, waymark::JobState::completed);
  EXPECT_EQ(bench.golden(TRACES "/tile_failed.txt"), "");
}

TEST(SceneTest, SurvivesARunnerThatIsLostAndATileThatHangs) {
  waymark::testing::Workbench bench;
  bench.lose_runner<Tile>({.where = [](const Tile& tile) { return tile.index == 0; }});
  bench.time_out<Tile>({.where = [](const Tile& tile) { return tile.index == 2; }});
  const auto start = bench.clock().now();
  const auto job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1"});
  EXPECT_EQ(job.state, waymark::JobState::completed);
  EXPECT_GT(bench.clock().now() - start, 10min + 30s) << "a timeout and a lease, in no time";
}

TEST(SceneTest, GivesUpATileThatAlwaysFails) {
  waymark::testing::Workbench bench;
  bench.fail<Tile>({.attempt = 0}, "no such band");
  const auto job = bench.run<ProcessScene, Tile, Mosaic>("scene", ProcessScene{"S2A_1"});
  EXPECT_EQ(job.state, waymark::JobState::failed);
  EXPECT_EQ(job.error, "no such band");
}
