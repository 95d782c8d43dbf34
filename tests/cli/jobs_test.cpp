// The commands that operate jobs, as a person runs them: `waymark jobs`, `tasks`, `runners`, `clusters`, `why`, `store`,
// `top`, `completion`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "runner/processes/program.h"
#include "store/schema.h"
#include "support/command.h"
#include "support/terminal.h"
#include "waymark/store.h"
#include "waymark/waymark.h"

namespace waymark {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using waymark::testing::CommandResult;
using waymark::testing::Terminal;
using Json = nlohmann::json;
namespace fs = std::filesystem;

struct Tile {
  int index = 0;
  int broken = -1;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE_WITH_DEFAULT(Tile, index, broken)

  void execute(Context& context) {
    context.logger().info("tile read", {{"index", index}});
    if (index == broken) throw std::runtime_error("the file server hiccuped");
  }
};

struct Mosaic {
  void execute(Context& context) { context.logger().warning("mosaic done"); }
};

struct ProcessScene {
  int tiles = 3;
  int broken = -1;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE_WITH_DEFAULT(ProcessScene, tiles, broken)

  void execute(Context& context) {
    std::vector<Tile> work;
    for (int i = 0; i < tiles; ++i) work.push_back({i, broken});
    const auto done = context.submit_subtasks(work);
    context.submit_subtask(Mosaic{}, {.depends_on = done, .display = "the whole scene"});
  }
};

class JobsCommandTest : public ::testing::Test {
 protected:
  JobsCommandTest() {
    std::string pattern = ::testing::TempDir() + "jobs_XXXXXX";
    directory = mkdtemp(pattern.data());
    store = (directory / "store.db").string();
  }
  ~JobsCommandTest() override { fs::remove_all(directory); }

  // The way a user calls it, with the store of this test. Groups come before `--store`.
  CommandResult waymark(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), WAYMARK_COMMAND);
    arguments.insert(arguments.end(), {"--store", store});
    return waymark::testing::run_command(arguments, environment());
  }
  std::string environment() const {
    return "env -u WAYMARK_STATE_DIR -u OTEL_SERVICE_NAME HOME='" + directory.string() + "' XDG_STATE_HOME='" +
           (directory / "xdg").string() + "' COLUMNS=140";
  }
  Json json(std::vector<std::string> arguments) const {
    arguments.emplace_back("--json");
    const CommandResult result = waymark(arguments);
    Json parsed = Json::parse(result.output, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << result.output;
    return parsed;
  }
  void expect_refusal(const std::vector<std::string>& arguments, const std::string& what) const {
    const CommandResult result = waymark(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_THAT(result.output, StartsWith("waymark: "));
    EXPECT_THAT(result.output, HasSubstr(what));
    EXPECT_EQ(std::ranges::count(result.output, '\n'), 1) << result.output;
  }
  std::string submit(const std::string& input = "{}") const {
    const CommandResult result = waymark({"jobs", "submit", "ProcessScene", "--input", input, "--name", "scene S2A_1"});
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\n"));
    return result.output.substr(0, 36);
  }
  void run() const {
    Client client({.name = "test", .store = store});
    client.runner<ProcessScene, Tile, Mosaic>({.concurrency = 1}).run_all();
  }
  void execute(const char* sql) const {
    sqlite3* handle = nullptr;
    ASSERT_EQ(sqlite3_open(store.c_str(), &handle), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(handle, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(handle);
    sqlite3_close(handle);
  }

  fs::path directory;
  std::string store;
};

TEST_F(JobsCommandTest, ListFollowsWhatBecomesOfJobs) {
  const std::string first = submit();
  testing::Program list(WAYMARK_COMMAND, {"jobs", "list", "--follow", "--store", store});
  EXPECT_EQ(list.line(), "job " + first + " scene S2A_1: submitted");
  const std::string second = submit(R"({"broken": 1})");
  EXPECT_EQ(list.line(), "job " + second + " scene S2A_1: submitted");
  run();
  EXPECT_EQ(list.line("job " + first + " scene S2A_1: completed"), "job " + first + " scene S2A_1: completed");
  EXPECT_THAT(list.line("job " + second + " scene S2A_1: failed"), HasSubstr("the file server hiccuped"));
  EXPECT_EQ(waymark({"jobs", "list", "--follow", "--after", "1"}).exit_code, 2);
}

TEST_F(JobsCommandTest, SubmitsAJobAndShowsWhatBecameOfIt) {
  const std::string id = submit();
  EXPECT_THAT(waymark({"jobs", "list"}).output, AllOf(HasSubstr(id), HasSubstr("submitted"), HasSubstr("scene S2A_1")));
  EXPECT_EQ(waymark({"jobs", "wait", id, "--timeout", "1ms"}).exit_code, 5);
  run();
  EXPECT_EQ(waymark({"jobs", "wait", id}).output, id + " completed\n");

  const CommandResult shown = waymark({"jobs", "show", id});
  EXPECT_EQ(shown.exit_code, 0);
  EXPECT_THAT(shown.output, StartsWith("job " + id + "  scene S2A_1  completed\n"));
  EXPECT_THAT(shown.output, HasSubstr("5 tasks, 5 done"));
  EXPECT_THAT(shown.output, HasSubstr("\nProcessScene "));
  EXPECT_THAT(shown.output, HasSubstr("\n├─Tile "));
  EXPECT_THAT(shown.output, HasSubstr("\n└─Mosaic \"the whole scene\" "));
  EXPECT_THAT(shown.output, Not(HasSubstr("\x1b")));

  const Json listed = json({"jobs", "list"});
  ASSERT_THAT(listed.at("jobs"), SizeIs(1));
  EXPECT_EQ(listed.at("jobs")[0].at("id"), id);
  EXPECT_EQ(listed.at("jobs")[0].at("tasks_done"), 5);
  EXPECT_TRUE(listed.at("next").is_null());
  const Json whole = json({"jobs", "show", id});
  EXPECT_EQ(whole.at("state"), "completed");
  ASSERT_THAT(whole.at("task_list"), SizeIs(5));
  EXPECT_EQ(whole.at("task_list")[1].at("group"), whole.at("task_list")[4].at("after")[0]);
}

TEST_F(JobsCommandTest, MakesOneRowOfManyTasksThatAreAlike) {
  const std::string id = submit(R"({"tiles": 20})");
  run();
  const CommandResult folded = waymark({"jobs", "show", id});
  EXPECT_THAT(folded.output, HasSubstr("├─Tile ×20 "));
  EXPECT_LT(std::ranges::count(folded.output, '\n'), 10);
  EXPECT_GT(std::ranges::count(waymark({"jobs", "show", id, "--all"}).output, '\n'), 22);
}

TEST_F(JobsCommandTest, ShowsAFailureAndRetriesIt) {
  const std::string id = submit(R"({"broken": 1})");
  run();
  const CommandResult waited = waymark({"jobs", "wait", id});
  EXPECT_EQ(waited.exit_code, 3);
  EXPECT_THAT(waited.output, HasSubstr("failed task "));
  EXPECT_THAT(waited.output, HasSubstr("std::runtime_error: the file server hiccuped"));
  EXPECT_THAT(waymark({"jobs", "show", id}).output, HasSubstr("std::runtime_error: the file server hiccuped"));
  const CommandResult failed = waymark({"tasks", id, "--state", "failed"});
  EXPECT_THAT(failed.output, HasSubstr("hiccuped"));
  EXPECT_THAT(failed.output, Not(HasSubstr("Mosaic")));
  EXPECT_THAT(json({"tasks", id, "--name", "Tile", "--state", "failed"}), SizeIs(1));
  EXPECT_THAT(waymark({"why", id}).output, HasSubstr("has failed"));

  const CommandResult retried = waymark({"jobs", "retry", id});
  EXPECT_EQ(retried.exit_code, 0) << retried.output;
  EXPECT_THAT(retried.output, HasSubstr(" again\n"));
  const CommandResult again = waymark({"jobs", "retry", id});
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.output, HasSubstr("only what failed or was canceled can be retried"));
}

TEST_F(JobsCommandTest, CancelsAJob) {
  const std::string id = submit();
  EXPECT_EQ(waymark({"jobs", "cancel", id}).output, id + " canceled\n");
  EXPECT_EQ(waymark({"jobs", "wait", id}).exit_code, 4);
  const Json waited = json({"jobs", "wait", id});
  ASSERT_EQ(waited.size(), 1u) << "an array, of however many";
  EXPECT_EQ(waited[0].at("state"), "canceled");
  const std::string other = submit();
  EXPECT_THAT(json({"jobs", "cancel", id, other}), SizeIs(2));
  EXPECT_THAT(json({"jobs", "retry", id}), SizeIs(1));
  EXPECT_EQ(json({"jobs", "retry", other})[0].at("tasks"), 1);
}

TEST_F(JobsCommandTest, WaitsForAJobThatAnotherProcessRuns) {
  Client client({.name = "test", .store = store});
  std::stop_source stop;
  std::thread runner([&] { client.runner<ProcessScene, Tile, Mosaic>({.concurrency = 1}).run_forever(stop.get_token()); });
  const CommandResult good = waymark({"jobs", "submit", "ProcessScene", "--wait"});
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_THAT(good.output, HasSubstr(" completed\n"));
  EXPECT_EQ(waymark({"jobs", "submit", "ProcessScene", "--input", R"({"broken":0})", "--wait"}).exit_code, 3);
  const std::string id = submit();
  const CommandResult followed = waymark({"jobs", "show", "--follow", id});
  EXPECT_EQ(followed.exit_code, 0);
  EXPECT_THAT(followed.output, HasSubstr("Mosaic \"the whole scene\": completed\n"));
  EXPECT_THAT(followed.output, HasSubstr("job " + id + ": completed\n"));
  const CommandResult lines = waymark({"jobs", "show", "--follow", "--json", id});
  EXPECT_EQ(Json::parse(lines.output).at("state"), "completed") << "one line, since it is finished";
  stop.request_stop();
  runner.join();
}

TEST_F(JobsCommandTest, TakesAsMuchOfAnIdAsIsUnique) {
  const std::string first = submit(), second = submit();
  std::size_t same = 0;
  while (first[same] == second[same]) ++same;
  EXPECT_EQ(json({"jobs", "show", second.substr(0, same + 1)}).at("id"), second);
  expect_refusal({"jobs", "show", first.substr(0, same)}, "several jobs' ids begin with this");
  expect_refusal({"jobs", "show", "ffff"}, "job ffff: the store knows no such job");
}

TEST_F(JobsCommandTest, ListsWhatFitsInPages) {
  for (int i = 0; i < 3; ++i) submit();
  EXPECT_EQ(waymark({"jobs", "cancel", submit()}).exit_code, 0);
  EXPECT_THAT(json({"jobs", "list", "--state", "canceled"}).at("jobs"), SizeIs(1));
  EXPECT_THAT(json({"jobs", "list", "--name", "SCENE", "--since", "1h", "--cluster", "default"}).at("jobs"), SizeIs(4));
  EXPECT_EQ(waymark({"jobs", "list", "--cluster", "gpu"}).output, "no jobs\n");
  const Json page = json({"jobs", "list", "--limit", "3"});
  EXPECT_THAT(page.at("jobs"), SizeIs(3));
  EXPECT_THAT(json({"jobs", "list", "--after", page.at("next")}).at("jobs"), SizeIs(1));
  EXPECT_THAT(waymark({"jobs", "list", "--limit", "3"}).output, HasSubstr("there are more: --all"));
  EXPECT_THAT(json({"jobs", "list", "--limit", "1", "--all"}).at("jobs"), SizeIs(4));
}

TEST_F(JobsCommandTest, RefusesWhatItDoesNotKnowInOneLine) {
  submit();
  const CommandResult alone = waymark::testing::run_command({WAYMARK_COMMAND, "jobs"});
  EXPECT_EQ(alone.exit_code, 2);
  EXPECT_THAT(alone.output, StartsWith("waymark: a command is missing: one of submit, list, show, "));
  expect_refusal({"jobs", "lst"}, "lst");
  expect_refusal({"jobs", "list", "--state", "broken"}, "expected one of submitted, running");
  expect_refusal({"jobs", "list", "--since", "yesterday"}, "--since");
  expect_refusal({"jobs", "list", "--after", "here"}, "JobFilter::cursor");
  expect_refusal({"jobs", "submit", "Tile", "--input", "nonsense"}, "--input: expected JSON");
  expect_refusal({"jobs", "submit", "Tile", "--input", "@/nowhere/input.json"}, "/nowhere/input.json: no such file");
  expect_refusal({"jobs", "submit", "Tile", "--task-version", "one"}, "expected a version like");
  expect_refusal({"jobs", "submit", "Tile", "--timeout", "soon"}, "--timeout");
  expect_refusal({"jobs", "logs", "0", "--level", "loud"}, "expected one of trace, debug");
  expect_refusal({"jobs", "diagram", "0", "--format", "png"}, "--format");
  expect_refusal({"tasks", "--state", "failed"}, "name the job");
  expect_refusal({"why", "12345"}, "task 12345: the store knows no such task");
  expect_refusal({"clusters", "pause", "gpu"}, "cluster gpu: the store knows no such cluster, but default");
  expect_refusal({"top", "--interval", "0"}, "--interval");
}

TEST_F(JobsCommandTest, RefusesAStoreThatIsNoneOrNewerOrAnotherPrograms) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"jobs", "list"}, {"jobs", "show", "0"}, {"tasks"}, {"runners"}, {"clusters", "list"},
        {"why", "0"}, {"top"}, {"store", "check"}, {"store", "vacuum"}, {"store", "migrate"}}) {
    expect_refusal(arguments, "there is none; --store names another");
    EXPECT_FALSE(fs::exists(store)) << "looking makes no store";
  }
  submit();
  execute("INSERT INTO schema_version VALUES (99, 0)");
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"jobs", "list"}, {"jobs", "submit", "Tile"}, {"top"}, {"store", "check"}, {"store", "vacuum"},
        {"store", "migrate"}}) {
    expect_refusal(arguments, "its schema has version 99");
  }
  fs::remove(store);
  std::ofstream(store) << std::string(4096, 'x');
  expect_refusal({"jobs", "list"}, store);
  expect_refusal({"store", "check"}, store);
  fs::remove(store);
  execute("CREATE TABLE photo(id INTEGER)");
  expect_refusal({"jobs", "list"}, "another program's database");
  expect_refusal({"jobs", "submit", "Tile"}, "another program's database");
}

TEST_F(JobsCommandTest, LooksAtAStoreThatIsLockedAndSaysThatItCannotBeChanged) {
  const std::string id = submit();
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(store.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"jobs", "list"}, {"jobs", "show", id}, {"runners"}, {"why", "1"}, {"top"}}) {
    const CommandResult looked = waymark(arguments);
    EXPECT_EQ(looked.exit_code, 0) << looked.output;
  }
  const CommandResult canceled = waymark({"jobs", "cancel", id});
  EXPECT_EQ(canceled.exit_code, 1) << "it is no wrong use";
  EXPECT_THAT(canceled.output, HasSubstr("another program has kept it locked"));
  sqlite3_close(other);
}

TEST_F(JobsCommandTest, ChecksAStoreAndTellsWhatIsWrong) {
  submit();
  const CommandResult sound = waymark({"store", "check"});
  EXPECT_EQ(sound.exit_code, 0);
  EXPECT_THAT(sound.output, AllOf(HasSubstr("1 job, 1 task\n"), HasSubstr("it is sound\n")));
  EXPECT_THAT(json({"store", "check"}).at("problems"), IsEmpty());
  execute("UPDATE job SET tasks = 7");
  const CommandResult broken = waymark({"store", "check"});
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_THAT(broken.output, HasSubstr("another number of tasks than it says"));
  EXPECT_THAT(json({"store", "check"}).at("problems"), SizeIs(1));
}

TEST_F(JobsCommandTest, BringsAnOlderStoreUpToDateWhenAsked) {
  execute(store::kSchema1);
  execute("INSERT INTO schema_version VALUES (1, 0)");
  expect_refusal({"store", "check"}, "'waymark store migrate' brings it up to date");
  const std::string newest = std::to_string(store::kSchemaVersion);
  EXPECT_THAT(waymark({"store", "migrate"}).output, HasSubstr("brought from version 1 to " + newest + "\n"));
  EXPECT_THAT(waymark({"store", "migrate"}).output, HasSubstr("it has version " + newest + " already\n"));
  EXPECT_EQ(waymark({"store", "check"}).exit_code, 0);
}

TEST_F(JobsCommandTest, GivesRoomBack) {
  submit();
  execute("CREATE TABLE waste(text TEXT); INSERT INTO waste VALUES (zeroblob(3000000)); DROP TABLE waste;");
  EXPECT_GT(json({"store", "check"}).at("unused_bytes"), 2'000'000);
  EXPECT_GT(json({"store", "vacuum"}).at("given_back_bytes"), 2'000'000);
  EXPECT_THAT(waymark({"store", "vacuum"}).output, HasSubstr("given back\n"));
}

TEST_F(JobsCommandTest, SaysWhyNothingHappens) {
  const std::string id = submit();
  EXPECT_THAT(waymark({"why", id}).output,
              AllOf(StartsWith("job " + id), HasSubstr("no living runner of cluster default can run ProcessScene v0.0\n")));
  EXPECT_EQ(waymark({"clusters", "pause", "default"}).exit_code, 0);
  EXPECT_THAT(waymark({"why", "1"}).output, HasSubstr("cluster default is paused: waymark clusters resume default\n"));
  EXPECT_EQ(json({"clusters", "list"})[0].at("paused"), true);
  EXPECT_THAT(waymark({"clusters", "list"}).output, HasSubstr("paused"));
  EXPECT_EQ(waymark({"clusters", "resume", "default"}).exit_code, 0);

  const auto opened = open_store(store);
  const WorkerId worker = opened->join({.runner = "0123456789abcdef", .name = "acme", .host = "host", .process_id = 4242,
                                        .tasks = {{"ProcessScene", "v0.0"}, {"Tile", "v0.0"}, {"Mosaic", "v0.0"}},
                                        .lease = std::chrono::hours(1)});
  EXPECT_THAT(waymark({"why", "1"}).output, HasSubstr("is ready and the next: 1 runner can take it\n"));
  const Exchanged claimed = opened->exchange({.worker = worker, .want = 1});
  ASSERT_THAT(claimed.claimed, SizeIs(1));
  EXPECT_THAT(waymark({"why", id}).output,
              AllOf(HasSubstr("is running: 1 task, 1 running"), HasSubstr("attempt 1, on acme (process 4242 on host)\n")));
  const CommandResult runners = waymark({"runners"});
  EXPECT_THAT(runners.output, AllOf(HasSubstr("acme"), HasSubstr("4242"), HasSubstr("alive"), HasSubstr("task 1 ProcessScene (")));
  const Json all = json({"runners"});
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_EQ(all[0].at("alive"), true);
  EXPECT_EQ(all[0].at("running")[0].at("job"), id);

  Finish done{.task = 1, .attempt = 1, .end = std::chrono::system_clock::now(), .subtasks = {}, .error_type = {}, .error = {}};
  NewTask tile{.name = {"Tile", "v0.0"}, .input = "{}", .group = 0};
  NewTask mosaic{.name = {"Mosaic", "v0.0"}, .input = "{}", .after = {0}, .dependencies = 1};
  done.subtasks = {{tile, mosaic}, {1}};
  opened->limit({.task = "Tile", .rate = 1, .per = std::chrono::hours(1)});
  (void)opened->exchange({.worker = worker, .finishes = std::vector<Finish>{done}, .want = 1});
  EXPECT_THAT(waymark({"why", "1"}).output,
              AllOf(HasSubstr("waits for 2 subtasks, the first is task 2 Tile, which runs for ")));
  EXPECT_THAT(waymark({"why", "3"}).output, HasSubstr("task 3 Mosaic waits for 1 task: task 2 Tile, which runs for "));
  const Json why = json({"why", "3"});
  EXPECT_EQ(why.at("job"), id);
  EXPECT_EQ(why.at("state"), "waiting");

  Client client({.name = "test", .store = store});
  const auto task_of = [&](const Job& job) { return client.jobs().tasks(job.id).at(0).id; };
  const std::string limited = task_of(client.jobs().submit("limited", Tile{}));
  EXPECT_THAT(waymark({"why", limited}).output, HasSubstr("is ready, but there is a limit: 1 starts in 1h"));
  const Job later = client.jobs().submit("later", Mosaic{}, {.delay = std::chrono::hours(100)});
  EXPECT_THAT(waymark({"why", task_of(later)}).output, HasSubstr("is to start in "));
  client.jobs().cancel(later.id);
  EXPECT_THAT(waymark({"why", task_of(later)}).output, HasSubstr("was skipped: something else failed before it started"));
  execute("UPDATE worker SET lease_until = 1");
  EXPECT_THAT(waymark({"why", "2"}).output, HasSubstr("(process 4242 on host), which gave no sign of life for too long\n"));
  EXPECT_THAT(waymark({"runners"}).output, HasSubstr("silent"));
}

TEST_F(JobsCommandTest, WaitsForAllOfSeveralJobs) {
  const std::string good = submit(), broken = submit(R"({"broken":1})");
  run();
  const CommandResult waited = waymark({"jobs", "wait", good, broken});
  EXPECT_EQ(waited.exit_code, 3) << "that of the first that is not completed";
  EXPECT_THAT(waited.output, AllOf(StartsWith(good + " completed\n" + broken + " failed"), HasSubstr("hiccuped")));
}

TEST_F(JobsCommandTest, FollowsAJobLineByLineUntilItIsFinished) {
  const std::string id = submit();
  std::string output;
  std::thread follows([&] { output = waymark({"jobs", "show", id, "--follow", "--json"}).output; });
  run();
  follows.join();
  std::stringstream lines(output);
  Json last;
  for (std::string line; std::getline(lines, line);) last = Json::parse(line);
  EXPECT_EQ(last.at("id"), id);
  EXPECT_EQ(last.at("state"), "completed");
}

TEST_F(JobsCommandTest, PrintsTheRecordsOfAJobThatAStateDirectoryKeeps) {
  const std::string state = (directory / "xdg" / "waymark" / "tiles").string();
  std::string id;
  {
    Config config;
    config.resource = Resource("tiles");
    config.state_directory = state;
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      DestinationConfig d;
      d.name = "backend";
      d.signal = signal;
      d.output = Output::callback;
      d.deliver = [](Signal, std::string_view) { return DeliveryResult{}; };
      config.destinations.push_back(d);
    }
    Telemetry telemetry(config);
    Client client({.name = "test", .store = store, .telemetry = &telemetry});
    id = client.jobs().submit("scene", ProcessScene{}).id;
    client.jobs().submit("other", ProcessScene{.tiles = 40});
    client.runner<ProcessScene, Tile, Mosaic>({.concurrency = 1}).run_all();
    telemetry.shutdown(std::chrono::seconds(30));
  }
  const CommandResult all = waymark({"jobs", "logs", id, "--state-dir", state});
  EXPECT_EQ(all.exit_code, 0) << all.output;
  EXPECT_EQ(std::ranges::count(all.output, '\n'), 4) << all.output;
  EXPECT_THAT(all.output, HasSubstr(" tile read index=2\n"));
  EXPECT_EQ(waymark({"jobs", "logs", id}).output, all.output) << "below XDG_STATE_HOME, every service's";
  EXPECT_EQ(waymark({"jobs", "logs", "--follow", id}).output, all.output) << "the job is finished";
  const CommandResult loud = waymark({"jobs", "logs", id, "--level", "warn"});
  EXPECT_EQ(std::ranges::count(loud.output, '\n'), 1) << loud.output;
  EXPECT_THAT(loud.output, HasSubstr("mosaic done"));
  const std::string task = json({"tasks", id, "--name", "Mosaic"})[0].at("id");
  const CommandResult one = waymark({"jobs", "logs", id, "--task", task, "--json"});
  EXPECT_EQ(Json::parse(one.output).at("body"), "mosaic done");
  EXPECT_EQ(Json::parse(one.output).at("service"), "tiles");

  // A job in its caller's trace, beside what the caller itself logs.
  {
    Config config;
    config.resource = Resource("tiles");
    config.state_directory = state;
    DestinationConfig d;
    d.name = "backend";
    d.signal = Signal::logs;
    d.output = Output::callback;
    d.deliver = [](Signal, std::string_view) { return DeliveryResult{}; };
    config.destinations.push_back(d);
    d.signal = Signal::traces;
    config.destinations.push_back(d);
    Telemetry telemetry(config);
    Client client({.name = "test", .store = store, .telemetry = &telemetry});
    std::stop_source stop;
    Runner runner = client.runner<ProcessScene, Tile, Mosaic>({.concurrency = 1});
    std::thread running([&] { runner.run_forever(stop.get_token()); });
    {
      auto span = telemetry.tracer("caller").span("request");
      telemetry.logger("caller").info("of the caller");
      id = client.jobs().run("called", Mosaic{}).id;
    }
    stop.request_stop();
    running.join();
    telemetry.shutdown(std::chrono::seconds(30));
  }
  const CommandResult called = waymark({"jobs", "logs", id, "--state-dir", state});
  EXPECT_THAT(called.output, HasSubstr("mosaic done"));
  EXPECT_THAT(called.output, ::testing::Not(HasSubstr("of the caller")));

  const CommandResult none = waymark({"jobs", "logs", submit(), "--state-dir", state});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.output, HasSubstr("no records of job"));
  expect_refusal({"jobs", "logs", id, "--state-dir", "/nowhere/state"}, "/nowhere/state: no such directory");
}

TEST_F(JobsCommandTest, DrawsADiagram) {
  const std::string id = submit(R"({"tiles": 5})");
  run();
  EXPECT_EQ(waymark({"jobs", "diagram", id}).output,
            "flowchart LR\n"
            "  t0[\"ProcessScene<br/>completed\"]:::completed\n"
            "  t1[\"Tile ×5<br/>completed\"]:::completed\n"
            "  t2[\"Mosaic<br/>completed\"]:::completed\n"
            "  t0 -.-> t1\n"
            "  t0 -.-> t2\n"
            "  t1 --> t2\n"
            "  classDef completed fill:#dafbe1,stroke:#1a7f37,color:#1f2328\n");
  EXPECT_THAT(waymark({"jobs", "diagram", id, "--all"}).output, HasSubstr("t6[\"Mosaic &quot;the whole scene&quot;<br/>"));
  const std::string file = (directory / "job.svg").string();
  EXPECT_EQ(waymark({"jobs", "diagram", id, "--output", file}).output, "");
  std::stringstream svg;
  svg << std::ifstream(file).rdbuf();
  EXPECT_THAT(svg.str(), AllOf(StartsWith("<svg xmlns=\"http://www.w3.org/2000/svg\""), HasSubstr(">Tile ×5</text>")));
  const CommandResult parsed = waymark::testing::run_command(
      {"python3", "-c", "import sys, xml.dom.minidom as x; print(len(x.parse(sys.argv[1]).getElementsByTagName('rect')))", file});
  EXPECT_EQ(parsed.output, "4\n") << "the ground and three boxes";
  const CommandResult nowhere = waymark({"jobs", "diagram", id, "--output", "/nowhere/job.svg"});
  EXPECT_EQ(nowhere.exit_code, 1);
  EXPECT_THAT(nowhere.output, HasSubstr("/nowhere/job.svg: can't be written"));
}

TEST_F(JobsCommandTest, NoTextOfAJobDrivesTheTerminalOrEndsADiagram) {
  const std::string evil = "\x1b[2J<b>\"]\n\" & x";
  const CommandResult submitted = waymark({"jobs", "submit", "Tile", "--name", evil, "--display", evil});
  const std::string id = submitted.output.substr(0, 36);
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"jobs", "list"}, {"jobs", "show", id},
                                                    {"tasks", id}, {"why", id}, {"jobs", "diagram", id, "--all"},
                                                    {"jobs", "diagram", id, "--format", "svg", "--all"}}) {
    const CommandResult result = waymark(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, Not(HasSubstr("\x1b")));
    EXPECT_THAT(result.output, Not(HasSubstr("<b>\"]\n")));
  }
  EXPECT_THAT(waymark({"jobs", "diagram", id, "--all"}).output, HasSubstr("&lt;b&gt;&quot;]"));
}

TEST_F(JobsCommandTest, ShowsWhatIsToBeDoneAndWhatWasDoneLately) {
  submit();
  run();
  submit();
  const CommandResult tasks = waymark({"tasks"});
  EXPECT_THAT(tasks.output, AllOf(HasSubstr("ProcessScene"), HasSubstr("done in 1m00s")));
  const CommandResult frame = waymark({"top", "--period", "5m"});
  EXPECT_EQ(frame.exit_code, 0);
  EXPECT_THAT(frame.output, StartsWith("waymark top  " + store));
  EXPECT_THAT(frame.output, HasSubstr("1 open job; tasks: 0 running, 1 ready, 0 scheduled, 0 waiting\n"));
  EXPECT_THAT(frame.output, HasSubstr("(5 tasks in 5m00s)\n"));
  EXPECT_THAT(frame.output, HasSubstr("failures    0 attempts"));
  EXPECT_THAT(frame.output, Not(HasSubstr("\x1b")));
  const Json all = json({"top", "--period", "5m"});
  std::uint64_t computed = 0;
  for (const Json& task : all.at("tasks")) computed += task.at("computed").get<std::uint64_t>();
  EXPECT_EQ(computed, 5u);
  EXPECT_THAT(all.at("runners"), IsEmpty());
}

TEST_F(JobsCommandTest, IsLiveInATerminalAndGivesItBack) {
  submit();
  const std::vector<std::string> settings = {"HOME=" + directory.string()};
  for (const char* way : {"q", "\x03"}) {
    Terminal terminal({WAYMARK_COMMAND, "top", "--interval", "100ms", "--store", store}, settings);
    terminal.expect("\x1b[?1049h");
    terminal.expect("throughput");
    terminal.expect("ProcessScene");
    terminal.expect("throughput");  // again
    terminal.type(way);
    terminal.expect("\x1b[?1049l");
    EXPECT_EQ(terminal.end(), 0) << terminal.output();
  }
  Terminal terminal({WAYMARK_COMMAND, "top", "--store", store}, settings);
  terminal.expect("throughput");
  terminal.signal(SIGTERM);
  terminal.expect("\x1b[?1049l");
  EXPECT_EQ(terminal.end(), 0);
}

// A terminal that draws, to see what stands on the screen.
class Tmux {
 public:
  explicit Tmux(const std::string& directory) : socket_(directory + "/tmux") {}
  ~Tmux() { run({"kill-server"}); }
  Tmux(const Tmux&) = delete;
  Tmux& operator=(const Tmux&) = delete;
  CommandResult run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"tmux", "-S", socket_, "-f", "/dev/null"});
    return waymark::testing::run_command(arguments, "env -u TMUX -u NO_COLOR LC_ALL=C.UTF-8 TERM=xterm-256color");
  }
  // The lines of the screen, once they are as they should be.
  std::vector<std::string> wait_for(const std::function<bool(const std::string&)>& is_so) const {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    std::string screen;
    do {
      screen = run({"capture-pane", "-p"}).output;
    } while (!is_so(screen) && std::chrono::steady_clock::now() < limit);
    EXPECT_TRUE(is_so(screen)) << screen;
    std::vector<std::string> lines;
    std::stringstream text(screen);
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  // Once the program in it has.
  bool ended() const {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    do {
      if (run({"display-message", "-p", "#{pane_dead}"}).output == "1\n") return true;
    } while (std::chrono::steady_clock::now() < limit);
    return false;
  }

 private:
  std::string socket_;
};

TEST_F(JobsCommandTest, TopStaysInPlaceOnAScreenOfAnySize) {
  if (waymark::testing::run_command({"tmux", "-V"}).exit_code != 0) GTEST_SKIP() << "tmux is not installed";
  const auto shows = [](const std::string& text) {
    return [text](const std::string& screen) { return screen.find(text) != std::string::npos; };
  };
  submit();
  const Tmux tmux(directory.string());
  const CommandResult started =
      tmux.run({"new-session", "-d", "-x", "120", "-y", "20", WAYMARK_COMMAND, "top", "--interval", "100ms", "--store", store});
  ASSERT_EQ(started.exit_code, 0) << started.output;
  tmux.run({"set-option", "remain-on-exit", "on"});
  EXPECT_THAT(tmux.wait_for(shows("ProcessScene"))[0], StartsWith("waymark top  " + store.substr(0, 20)));
  submit();
  std::vector<std::string> lines = tmux.wait_for(shows("2 open jobs"));
  EXPECT_THAT(lines[0], StartsWith("waymark top"));
  EXPECT_EQ(std::ranges::count_if(lines, [](const std::string& l) { return l.starts_with("waymark top"); }), 1)
      << "a frame stands where the one before it stood";
  // Too narrow and too low for all of it: cut, and nothing is pushed off above.
  tmux.run({"resize-window", "-x", "30", "-y", "4"});
  lines = tmux.wait_for([](const std::string& screen) {
    return screen.starts_with("waymark top") && screen.find("\nthroughput") != std::string::npos &&
           screen.find("runners") == std::string::npos && screen.find("\nfailures") != std::string::npos;
  });
  EXPECT_EQ(lines.size(), 4u);
  tmux.run({"resize-window", "-x", "120", "-y", "20"});
  (void)tmux.wait_for(shows("runners     0 alive"));
  tmux.run({"send-keys", "q"});
  EXPECT_TRUE(tmux.ended());
}

TEST_F(JobsCommandTest, ColorsStatesOnATerminalOnly) {
  const std::string id = submit();
  const std::vector<std::string> settings = {"HOME=" + directory.string()};
  Terminal colored({WAYMARK_COMMAND, "jobs", "list", "--store", store}, settings);
  EXPECT_EQ(colored.end(), 0);
  EXPECT_THAT(colored.output(), HasSubstr("\x1b[33msubmitted\x1b[0m"));
  for (const std::vector<std::string>& plain : {std::vector<std::string>{"--no-color"}, {"--json"}}) {
    std::vector<std::string> arguments = {WAYMARK_COMMAND, "jobs", "show", id, "--store", store};
    arguments.insert(arguments.end(), plain.begin(), plain.end());
    Terminal terminal(arguments, settings);
    EXPECT_EQ(terminal.end(), 0);
    EXPECT_THAT(terminal.output(), Not(HasSubstr("\x1b")));
  }
  Terminal narrow({WAYMARK_COMMAND, "jobs", "list", "--no-color", "--store", store}, settings, 60);
  EXPECT_EQ(narrow.end(), 0);
  std::istringstream lines(narrow.output());
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    EXPECT_LE(std::ranges::count_if(line, [](char c) { return (c & 0xc0) != 0x80; }), 60) << line;
  }
}

TEST_F(JobsCommandTest, FollowsAJobInPlaceInATerminal) {
  const std::string id = submit();
  Terminal terminal({WAYMARK_COMMAND, "jobs", "show", "--follow", id, "--store", store}, {"HOME=" + directory.string()});
  terminal.expect("\x1b[?1049h");
  terminal.expect("submitted");
  run();
  terminal.expect("\x1b[?1049l");
  terminal.expect("└─Mosaic");
  EXPECT_EQ(terminal.end(), 0) << terminal.output();
}

TEST_F(JobsCommandTest, CompletesItsWords) {
  const auto bash = [&](const std::string& words) {
    const std::string script = "source <('" WAYMARK_COMMAND "' completion bash); COMP_WORDS=(waymark " + words +
                               "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _waymark; echo \"${COMPREPLY[@]}\"";
    return waymark::testing::run_command({"bash", "-c", script}).output;
  };
  EXPECT_EQ(bash("jobs su"), "submit\n");
  EXPECT_EQ(bash("jobs show --fo"), "--follow\n");
  EXPECT_EQ(bash("jobs show 0197 --fo"), "--follow\n") << "an argument is no command";
  EXPECT_EQ(bash("clus"), "clusters\n");
  EXPECT_EQ(bash("store ''"), "check vacuum migrate --help -h\n");
  for (const std::string shell : {"zsh", "fish"}) {
    const CommandResult result = waymark::testing::run_command({WAYMARK_COMMAND, "completion", shell});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.output, AllOf(HasSubstr("diagram"), HasSubstr("no-color"), HasSubstr("vacuum")));
    const std::string file = (directory / shell).string();
    std::ofstream(file) << result.output;
    const CommandResult found = waymark::testing::run_command({"sh", "-c", "command -v " + shell});
    if (found.exit_code == 0) {
      EXPECT_EQ(waymark::testing::run_command({shell, "-n", file}).output, "");
    }
  }
  const CommandResult other = waymark::testing::run_command({WAYMARK_COMMAND, "completion", "tcsh"});
  EXPECT_EQ(other.exit_code, 2);
}

}  // namespace
}  // namespace waymark
