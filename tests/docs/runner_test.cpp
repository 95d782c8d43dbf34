// The examples of docs/runner.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
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

struct Download {
  std::string scene_id;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Download, scene_id)

  void execute(waymark::Context& context) {
    // Runs once, whatever becomes of this attempt: a later one finds the result.
    const auto bytes = context.step("download", [&] { return std::string(1000, 'x'); });
    context.job_cache().group(scene_id).set("bands", bytes);   // for the other tasks of the job
    context.display("scene " + scene_id);
  }
};

struct Preview {
  std::string scene_id;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Preview, scene_id)

  void execute(waymark::Context& context) {
    const std::string bytes = context.job_cache().group(scene_id).get("bands");   // not_found where it is not there
    throw std::runtime_error("no preview of " + std::to_string(bytes.size()) + " bytes");
  }
};

struct Publish {
  void execute(waymark::Context& context) { context.logger().info("published"); }
};

TEST(RunnerPage, RunsAJobOfSeveralRoots) {
  const testing::TemporaryDirectory directory;
  waymark::Client client({.name = "acme", .store = directory.path() + "/store.db"});

  waymark::TaskSet roots;
  auto scenes = roots.add(std::vector<Download>{{"S2A_1"}, {"S2A_2"}},
                          {.max_retries = 3, .timeout = std::chrono::minutes(10), .limit_key = "archive"});
  auto preview = roots.add(Preview{"S2A_1"}, {.depends_on = scenes, .optional = true});   // may fail
  roots.add(Publish{}, {.depends_on = preview});
  client.limit({.key = "archive", .max_running = 4, .rate = 10, .per = std::chrono::seconds(1)});
  waymark::Job job = client.jobs().submit("daily", std::move(roots), {.key = "daily 2026-01-01"});   // once a day

  client.runner<Download, Preview, Publish>().run_all();
  job = client.jobs().find(job.id);
  EXPECT_EQ(job.state, waymark::JobState::completed);
  const auto tasks = client.jobs().tasks(job.id);
  EXPECT_EQ(tasks.at(0).display, "scene S2A_1");
  EXPECT_EQ(tasks.at(2).state, waymark::TaskState::failed_optional);
  EXPECT_EQ(tasks.at(3).state, waymark::TaskState::completed);
  EXPECT_EQ(client.jobs().submit("daily", Publish{}, {.key = "daily 2026-01-01"}).id, job.id);
}

TEST(RunnerPage, OperatesJobs) {
  const testing::TemporaryDirectory directory;
  waymark::Client client({.name = "acme", .store = directory.path() + "/store.db"});
  const std::string id = client.jobs().submit("publish", Publish{}).id;

  client.jobs().cancel(id);   // nothing of it starts any more; what runs is asked to stop, within a second
  client.jobs().retry(id);    // what failed, was stopped or skipped runs again; what was computed is kept

  waymark::JobFilter filter{.states = {waymark::JobState::failed}, .name = "scene", .limit = 50};
  waymark::JobPage page = client.jobs().query(filter);   // newest first
  for (; !page.next.empty(); page = client.jobs().query(filter)) filter.cursor = page.next;

  client.pause("default");   // hands out no tasks, until client.resume("default")
  EXPECT_EQ(client.jobs().find(id).retries, 1u);
  EXPECT_TRUE(client.clusters().at(0).paused);
}

TEST(RunnerPage, ReadsTheRecordsOfAJob) {
  const testing::TemporaryDirectory directory;
  const testing::MemoryDestination memory;
  Config config = testing::memory_config(memory);
  config.state_directory = directory.path() + "/state";
  Telemetry telemetry(std::move(config));
  waymark::Client client({.name = "acme", .store = directory.path() + "/store.db", .telemetry = &telemetry});
  const std::string id = client.jobs().submit("publish", Publish{}).id;
  client.runner<Publish>().run_all();

  ::testing::internal::CaptureStdout();
  for (const waymark::ReadLog& log : client.jobs().query_logs(id)) std::cout << waymark::to_text(log.body) << "\n";
  for (const waymark::ReadSpan& span : client.jobs().query_spans(id)) std::cout << span.name << "\n";
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "published\nsubmit/publish\njob/publish\ntask/Publish\n");
}

namespace automated {

struct Mosaic {
  std::string hour;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Mosaic, hour)
  void execute(waymark::Context&) {}
};

struct Ingest {
  std::string path;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Ingest, path)
  void execute(waymark::Context&) {}
};

TEST(RunnerPage, AutomatesJobs) {
  if (!std::filesystem::exists("/usr/share/zoneinfo/Europe/Vienna")) GTEST_SKIP() << "no tz database";
  const testing::TemporaryDirectory directory;
  const std::string incoming = directory.path() + "/in";
  std::filesystem::create_directory(incoming);
  waymark::Client client({.name = "acme", .store = directory.path() + "/store.db"});

  client.automations().cron("hourly mosaic", "0 * * * *", Mosaic{.hour = "{time}"}, {.time_zone = "Europe/Vienna"});
  client.automations().watch_directory("new scenes", incoming, "*.tif", Ingest{.path = "{path}"}, {.max_retries = 3});

  for (const waymark::Automation& automation : client.automations().list()) {
    if (automation.kind == waymark::AutomationKind::cron) client.automations().pause(automation.name);
  }
  const std::vector<waymark::Job> jobs = client.automations().run("new scenes");   // now, whatever its schedule says
  client.automations().resume("hourly mosaic");   // ticks that came meanwhile were not missed
  client.automations().remove("new scenes");
  EXPECT_TRUE(jobs.empty());
  ASSERT_EQ(client.automations().list().size(), 1u);
  EXPECT_FALSE(client.automations().list()[0].paused);
}

}  // namespace automated

int serve(waymark::Client& client) {
  auto runner = client.runner<Resample>();
  return waymark::exit_code(runner.run_forever({.handle_signals = true}));   // 130 after SIGINT, 143 after SIGTERM
}

// Not called: its workers would be this program, with all of its tests (see tests/runner/processes).
[[maybe_unused]]
int isolate(waymark::Client& client) {
  auto runner = client.runner<ProcessScene, Tile, Mosaic>({.isolation = waymark::Isolation::process});
  return waymark::exit_code(runner.run_forever({.handle_signals = true}));
}

TEST(RunnerPage, EndsForASignal) {
  const testing::TemporaryDirectory directory;
  waymark::Client client({.name = "acme", .store = directory.path() + "/store.db"});
  client.jobs().submit("resample", Resample{});
  std::thread other([&] {
    // Once its job is done, it serves, so that its signals are handled.
    const waymark::JobPage page = client.jobs().query();
    client.jobs().wait(page.jobs.at(0).id);
    kill(getpid(), SIGTERM);
  });
  EXPECT_EQ(serve(client), 128 + SIGTERM);
  other.join();
}

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
