// The examples of docs/runner.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stop_token>
#include <thread>

#include "docs/recorded.h"
#include "runner/temporary_directory.h"

namespace waymark::docs {
namespace {

struct Tile {
  std::string scene_id;
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, scene_id, index)   // the input travels as JSON

  void execute(waymark::Context& context) {
    if (index == 1 && context.attempt() == 1) throw std::runtime_error("the file server hiccuped");
    context.logger().info("tile read", {{"index", index}});
    context.progress("tiles").done();
  }
};

struct Mosaic {
  void execute(waymark::Context& context) { context.logger().info("mosaic done"); }
};

struct ProcessScene {
  std::string scene_id;
  int tiles = 3;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ProcessScene, scene_id, tiles)

  void execute(waymark::Context& context) {
    std::vector<Tile> work;
    for (int i = 0; i < tiles; ++i) work.push_back({scene_id, i});
    context.progress("tiles").add(static_cast<std::uint64_t>(tiles));
    auto done = context.submit_subtasks(work, {.max_retries = 3});
    context.submit_subtask(Mosaic{}, {.depends_on = done});
  }
};

struct Resample {
  static constexpr waymark::TaskIdentifier identifier{"acme.Resample", "v1.2"};

  void execute(waymark::Context& context) {
    const std::stop_token stop = context.stop_token();
    for (int row = 0; row < 1000; ++row) {
      if (stop.stop_requested()) throw waymark::Stopped();   // give the task back: another runner starts it anew
    }
    if (context.job().name.empty()) throw waymark::NonRetryable("a job without a name is never going to work");
  }
};

TEST(RunnerPage, RunsAJob) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/store.db";
  Recorded recorded;
  Telemetry& telemetry = recorded.telemetry;

  waymark::Client client({.name = "sentinel-2-runner", .store = path, .telemetry = &telemetry});
  waymark::Job job = client.jobs().submit("scene S2A_1", ProcessScene{"S2A_1"});

  auto runner = client.runner<ProcessScene, Tile, Mosaic>({.backoff = {.initial = std::chrono::milliseconds(1)}});
  runner.run_all();   // returns when nothing is left to do

  job = client.jobs().find(job.id);
  EXPECT_EQ(job.state, waymark::JobState::completed);
  EXPECT_EQ(job.tasks, 5u);
  EXPECT_THAT(job.progress, ::testing::ElementsAre(waymark::ProgressCount{"tiles", 3, 3}));
  // Several threads execute the tiles, so that their order may differ; the tree's lines do not.
  const std::string tree = R"(
submit/scene S2A_1
job/scene S2A_1 -> submit/scene S2A_1
  task/ProcessScene
  subtasks/ProcessScene
    task/Tile
    task/Tile [error]
    task/Tile
    task/Tile -> task/Tile
    task/Mosaic -> task/Tile
)";
  const auto lines = [](std::string text) {
    std::vector<std::string> all;
    for (std::size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
      if (end > 0) all.push_back(text.substr(0, end));
    }
    return all;
  };
  EXPECT_THAT(lines(recorded.tree()), ::testing::UnorderedElementsAreArray(lines(tree)));
}

TEST(RunnerPage, StopsWhenAsked) {
  const testing::TemporaryDirectory directory;
  waymark::Client client({.name = "acme", .store = directory.path() + "/store.db"});
  const std::string job = client.jobs().submit("resample", Resample{}).id;

  std::stop_source stop;
  auto runner = client.runner<Resample>({.concurrency = 2});
  std::thread loop([&] { runner.run_forever(stop.get_token()); });
  const waymark::Job done = client.jobs().wait(job, std::chrono::seconds(30));
  stop.request_stop();   // running tasks are asked to stop, and waited for
  loop.join();
  EXPECT_EQ(done.state, JobState::completed) << done.error;
}

}  // namespace
}  // namespace waymark::docs
