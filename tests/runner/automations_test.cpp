// Jobs that submit themselves: by the clock, and for files.
#include "automations.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <barrier>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runner/engines.h"
#include "runner/workflow.h"

namespace waymark {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using testing::Engine;
using testing::TestClock;

const TaskName kTask{"Hourly", "v0.0"};

Automation hourly(MissedRuns missed = MissedRuns::one, const std::string& schedule = "0 * * * *") {
  Automation a;
  a.name = "hourly";
  a.schedule = schedule;
  a.time_zone = "UTC";
  a.missed = missed;
  a.task = kTask;
  a.input = R"({"at":"{time}","by":"{name}"})";
  a.cluster = "default";
  return a;
}

int open_file(const std::string& path) { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600); }
void write_file(const std::string& path) { std::ofstream(path) << "pixels"; }
void write_old_file(const std::string& path) {
  write_file(path);
  fs::last_write_time(path, fs::file_time_type::clock::now() - 1h);
}

class AutomationsTest : public ::testing::TestWithParam<Engine> {
 protected:
  AutomationsTest() : telemetry_(testing::memory_config(memory_)), store_(open()) { fs::create_directory(in()); }

  std::shared_ptr<Store> open() {
    return GetParam().open(directory_.path(), [this] { return clock_.now(); });
  }
  detail::AutomationGround ground(const std::shared_ptr<Store>& store) {
    return {.store = store,
            .tracer = telemetry_.tracer("waymark.runner"),
            .logger = telemetry_.logger("waymark.runner"),
            .cluster = "default"};
  }
  std::string in() const { return directory_.path() + "/in"; }
  Automation scenes() {
    Automation a = hourly();
    a.name = "scenes";
    a.kind = AutomationKind::directory;
    a.schedule.clear();
    a.time_zone.clear();
    a.directory = in();
    a.pattern = "*.tif";
    a.input = R"({"path":"{path}","file":"{file}"})";
    return a;
  }
  std::size_t jobs() { return store_->query({.limit = 10'000}).jobs.size(); }
  // What the tasks of all jobs are told, as the store hands them out.
  std::vector<std::string> inputs() {
    const WorkerId worker = store_->join({.runner = "looks", .name = "test", .host = "host", .tasks = {kTask}});
    std::vector<std::string> all;
    for (const ClaimedTask& task : store_->exchange({.worker = worker, .want = 1000}).claimed) all.push_back(task.input);
    store_->leave(worker);
    return all;
  }
  void to_the_next_hour() {  // the clock begins at a whole hour
    clock_.advance(1h);
  }

  testing::TemporaryDirectory directory_;
  testing::MemoryDestination memory_;
  Telemetry telemetry_;
  TestClock clock_;
  std::shared_ptr<Store> store_;
};

// ------ by the clock

TEST_P(AutomationsTest, SubmitsAJobAtEachTick) {
  store_->keep(hourly());
  detail::AutomationWork work(ground(store_), false);
  EXPECT_EQ(work.look(), std::chrono::nanoseconds(1h));
  EXPECT_EQ(jobs(), 0u);
  clock_.advance(59min);
  EXPECT_EQ(work.look(), std::chrono::nanoseconds(1min));
  clock_.advance(1min);
  EXPECT_EQ(work.look(), std::chrono::nanoseconds(1h));
  EXPECT_EQ(jobs(), 1u);
  work.look();
  EXPECT_EQ(jobs(), 1u);
  to_the_next_hour();
  work.look();
  EXPECT_EQ(jobs(), 2u);
  EXPECT_THAT(inputs(), ElementsAre(R"({"at":"2027-01-15T09:00:00Z","by":"hourly"})",
                                    R"({"at":"2027-01-15T10:00:00Z","by":"hourly"})"));
  const Automation now = store_->automations().at(0);
  EXPECT_EQ(now.jobs, 2u);
  EXPECT_EQ(now.last_job, store_->query({}).jobs.at(0).id);
  EXPECT_EQ(now.looked_at, clock_.now());
}

TEST_P(AutomationsTest, SubmitsOneJobForATickWhoeverLooks) {
  constexpr int kTicks = 100;
  constexpr int kRunners = 3;
  store_->keep(hourly());
  // All of them find the same tick due, at the same time.
  std::barrier due(kRunners, [this]() noexcept { to_the_next_hour(); });
  std::vector<std::thread> runners;
  for (int i = 0; i < kRunners; ++i) {
    runners.emplace_back([&] {
      detail::AutomationWork work(ground(open()), false);  // as in a process of its own
      for (int tick = 0; tick < kTicks; ++tick) {
        due.arrive_and_wait();
        work.look();
      }
    });
  }
  for (std::thread& runner : runners) runner.join();
  EXPECT_EQ(jobs(), static_cast<std::size_t>(kTicks));
  EXPECT_EQ(store_->automations().at(0).jobs, static_cast<std::uint64_t>(kTicks));
  EXPECT_EQ(store_->automations().at(0).looked_at, clock_.now());
  std::size_t submits = 0;
  EXPECT_TRUE(telemetry_.force_flush(10s));
  for (const ReadSpan& span : memory_.spans()) submits += span.name == "submit/hourly";
  EXPECT_EQ(submits, static_cast<std::size_t>(kTicks));
}

TEST_P(AutomationsTest, TreatsMissedTicksAsItIsTold) {
  const std::map<MissedRuns, std::vector<std::string>> expected{
      {MissedRuns::skip, {}},
      {MissedRuns::one, {"12:00"}},
      {MissedRuns::all, {"09:00", "10:00", "11:00", "12:00"}},
  };
  for (const auto& [missed, hours] : expected) {
    testing::TemporaryDirectory own;
    TestClock clock;
    const auto store = GetParam().open(own.path(), [&] { return clock.now(); });
    store->keep(hourly(missed));
    clock.advance(4h + 30min);
    {
      detail::AutomationWork work(ground(store), false);
      EXPECT_EQ(work.look(), std::chrono::nanoseconds(30min));
    }
    EXPECT_EQ(store->query({}).jobs.size(), hours.size());
    const WorkerId worker = store->join({.runner = "looks", .name = "test", .host = "host", .tasks = {kTask}});
    const auto claimed = store->exchange({.worker = worker, .want = 10}).claimed;
    ASSERT_EQ(claimed.size(), hours.size());
    for (std::size_t i = 0; i < hours.size(); ++i) EXPECT_THAT(claimed[i].input, HasSubstr("T" + hours[i]));
    // After a restart nothing is done again; the next tick is on time.
    detail::AutomationWork work(ground(store), false);
    work.look();
    EXPECT_EQ(store->query({}).jobs.size(), hours.size());
    clock.advance(30min + 20s);
    work.look();
    EXPECT_EQ(store->query({}).jobs.size(), hours.size() + 1);
  }
}

TEST_P(AutomationsTest, BoundsHowManyMissedTicksAreMadeUpFor) {
  store_->keep(hourly(MissedRuns::all, "* * * * *"));
  clock_.advance(24h * 365 * 5);
  detail::AutomationWork work(ground(store_), false);
  work.look();
  EXPECT_EQ(jobs(), 100u);
  EXPECT_EQ(store_->automations().at(0).looked_at, clock_.now());
}

TEST_P(AutomationsTest, KeepsWhatIsDoneWhenTheSameIsRegisteredAgain) {
  store_->keep(hourly());
  to_the_next_hour();
  store_->keep(hourly());
  detail::AutomationWork work(ground(store_), false);
  work.look();
  EXPECT_EQ(jobs(), 1u);
  // Another schedule begins now.
  to_the_next_hour();
  store_->keep(hourly(MissedRuns::one, "*/30 * * * *"));
  work.look();
  EXPECT_EQ(jobs(), 1u);
  EXPECT_EQ(store_->automations().at(0).jobs, 1u);
}

TEST_P(AutomationsTest, DoesNothingWhilePausedAndMissesNothingThen) {
  store_->keep(hourly(MissedRuns::all));
  EXPECT_TRUE(store_->pause_automation("hourly", true));
  store_->keep(hourly(MissedRuns::all));  // a program that starts does not resume it
  clock_.advance(5h);
  detail::AutomationWork work(ground(store_), false);
  EXPECT_EQ(work.look(), std::nullopt);
  EXPECT_TRUE(store_->pause_automation("hourly", false));
  work.look();
  EXPECT_EQ(jobs(), 0u);
  to_the_next_hour();
  work.look();
  EXPECT_EQ(jobs(), 1u);
  EXPECT_TRUE(store_->remove_automation("hourly"));
  EXPECT_FALSE(store_->remove_automation("hourly"));
  EXPECT_FALSE(store_->pause_automation("hourly", true));
  to_the_next_hour();
  work.look();
  EXPECT_EQ(jobs(), 1u);
}

TEST_P(AutomationsTest, LeavesAutomationsOfOtherClustersAlone) {
  Automation other = hourly();
  other.cluster = "gpu";
  store_->keep(other);
  to_the_next_hour();
  detail::AutomationWork work(ground(store_), false);
  EXPECT_EQ(work.look(), std::nullopt);
  EXPECT_EQ(jobs(), 0u);
}

TEST_P(AutomationsTest, GoesOnWithTheOthersWhereOneIsWrong) {
  Automation lost = hourly();
  lost.name = "a lost one";
  lost.time_zone = "Mars/Olympus";
  store_->keep(lost);
  store_->keep(hourly());
  to_the_next_hour();
  detail::AutomationWork work(ground(store_), false);
  work.look();
  work.look();
  EXPECT_EQ(jobs(), 1u);
  EXPECT_TRUE(telemetry_.force_flush(10s));
  ASSERT_THAT(memory_.logs(), SizeIs(1));
  EXPECT_THAT(to_text(memory_.logs()[0].body), HasSubstr("Mars/Olympus"));
}

TEST_P(AutomationsTest, RefusesAStepOfWhatHasChangedMeanwhile) {
  store_->keep(hourly());
  const std::uint64_t revision = store_->automations().at(0).revision;
  const auto advance = [&](std::uint64_t r) {
    return store_->advance({.name = "hourly", .revision = r, .tick = clock_.now()});
  };
  EXPECT_TRUE(advance(revision));
  EXPECT_FALSE(advance(revision));
  store_->keep(hourly());
  EXPECT_FALSE(advance(revision + 1));
  EXPECT_TRUE(advance(revision + 2));
  EXPECT_FALSE(store_->advance({.name = "another", .revision = 1, .tick = clock_.now()}));
}

// ------ for files

TEST_P(AutomationsTest, SubmitsEachFinishedFileOnce) {
  store_->keep(scenes());
  write_old_file(in() + "/b.tif");
  write_old_file(in() + "/a.tif");
  write_old_file(in() + "/a.txt");
  write_old_file(in() + "/.hidden.tif");
  fs::create_directory(in() + "/folder.tif");
  for (int restart = 0; restart < 2; ++restart) {
    detail::AutomationWork work(ground(open()), false);
    work.look();
    work.look();
    EXPECT_EQ(jobs(), 2u);
  }
  EXPECT_THAT(inputs(), ElementsAre(R"({"file":"a.tif","path":")" + in() + R"(/a.tif"})",
                                    R"({"file":"b.tif","path":")" + in() + R"(/b.tif"})"));
  // Also where it is written again.
  fs::remove(in() + "/a.tif");
  detail::AutomationWork work(ground(store_), false);
  work.look();
  write_old_file(in() + "/a.tif");
  work.look();
  EXPECT_EQ(jobs(), 2u);
}

TEST_P(AutomationsTest, LetsAFileThatIsBeingWrittenWaitUntilItIsClosed) {
  store_->keep(scenes());
  detail::AutomationWork work(ground(store_), true);
  work.look();
  const std::string path = in() + "/a.tif";
  const int file = open_file(path);
  EXPECT_EQ(write(file, "pixels", 6), 6);
  fs::last_write_time(path, fs::file_time_type::clock::now() + 1h);  // so that only its end tells, however slow this is
  const auto wait = work.look();
  ASSERT_TRUE(wait.has_value());
  EXPECT_EQ(jobs(), 0u);
  close(file);
  work.look();
  EXPECT_EQ(jobs(), 1u);
  // Written elsewhere, and moved here.
  write_file(directory_.path() + "/b.tif");
  fs::rename(directory_.path() + "/b.tif", in() + "/b.tif");
  work.look();
  EXPECT_EQ(jobs(), 2u);
}

TEST_P(AutomationsTest, FindsItsDirectoryAgainAfterItWasAway) {
  store_->keep(scenes());
  detail::AutomationWork work(ground(store_), true);
  work.look();
  fs::rename(in(), in() + ".away");
  work.look();
  fs::create_directory(in());
  work.look();
  write_file(directory_.path() + "/b.tif");
  fs::rename(directory_.path() + "/b.tif", in() + "/b.tif");
  work.look();
  EXPECT_EQ(jobs(), 1u);
}

TEST_P(AutomationsTest, SubmitsAFileOnceWhoeverSeesIt) {
  store_->keep(scenes());
  for (int i = 0; i < 50; ++i) write_old_file(in() + "/" + std::to_string(i) + ".tif");
  std::vector<std::thread> runners;
  for (int i = 0; i < 3; ++i) {
    runners.emplace_back([&] {
      detail::AutomationWork work(ground(open()), true);
      work.look();
    });
  }
  for (std::thread& runner : runners) runner.join();
  EXPECT_EQ(jobs(), 50u);
  EXPECT_EQ(store_->automations().at(0).jobs, 50u);
}

INSTANTIATE_TEST_SUITE_P(Stores, AutomationsTest, ::testing::ValuesIn(testing::engines()),
                         [](const auto& engine) { return std::string(engine.param.name); });

// ------ a client's

class AutomationClientTest : public RunnerTest {};

TEST_F(AutomationClientTest, NamesItsTriggerInTheTrace) {
  // Long ago, as far as the store knows.
  store::open_sqlite({.path = directory_.path() + "/store.db", .clock = [] { return TestClock().now() - 24h * 3650; }})
      ->keep([] {
        Automation a = hourly();
        a.task = task_name<Empty>();
        a.input.clear();
        return a;
      }());
  runner().run_all();
  ASSERT_THAT(client_.jobs().query().jobs, SizeIs(1));
  EXPECT_EQ(testing::span_tree(spans()), "submit/hourly\njob/hourly -> submit/hourly\n  task/Empty\n");
  for (const char* name : {"submit/hourly", "job/hourly"}) {
    const ReadSpan span = spans_named(name).at(0);
    EXPECT_EQ(text(span.attributes, "workflow.trigger.type"), "cron");
    EXPECT_EQ(text(span.attributes, "workflow.trigger.name"), "hourly");
    EXPECT_THAT(text(span.attributes, "workflow.trigger.time"), HasSubstr(":00:00Z"));
    EXPECT_EQ(attribute(span, "workflow.trigger.path"), nullptr);
  }
  expect_enclosing(spans(), 2);
}

TEST_F(AutomationClientTest, GoesByTheStoresClock) {
  ClientOptions o = options();
  o.store = directory_.path() + "/past.db";
  o.time.now = [] { return TestClock().now() - 24h * 3650; };
  Client client(o);
  client.automations().cron("hourly", "0 * * * *", Empty{});
  const std::vector<Job> jobs = client.automations().run("hourly");
  ASSERT_THAT(jobs, SizeIs(1));
  EXPECT_EQ(jobs[0].submitted_at, o.time.now());
}

TEST_F(AutomationClientTest, ServesFilesAsTheyComeWhileItRuns) {
  const std::string in = directory_.path() + "/in";
  fs::create_directory(in);
  write_old_file(in + "/before.tif");
  client_.automations().watch_directory("scenes", in, "*.tif", Mosaic{"{file}"}, {.max_retries = 2});
  std::mutex mutex;
  std::condition_variable told;
  const auto watch = client_.store().watch([&] {
    const std::scoped_lock lock(mutex);
    told.notify_one();
  });
  const auto wait_for_jobs = [&](std::size_t count) {
    const auto limit = std::chrono::steady_clock::now() + 60s;
    std::unique_lock lock(mutex);
    for (;;) {
      const JobPage page = client_.jobs().query({.states = {JobState::completed}});
      if (page.jobs.size() == count) return;
      // Now and then also without word: that may have come before the wait.
      if (std::chrono::steady_clock::now() >= limit) FAIL() << page.jobs.size();
      told.wait_for(lock, 100ms);
    }
  };
  std::stop_source stop;
  Runner serving = runner();
  std::thread loop([&] { serving.run_forever(stop.get_token()); });
  wait_for_jobs(1);
  write_file(in + "/after.tif");
  wait_for_jobs(2);
  stop.request_stop();
  loop.join();
  const auto found = spans_named("job/scenes");
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(text(found[0].attributes, "workflow.trigger.type"), "directory");
  EXPECT_EQ(text(found[0].attributes, "workflow.trigger.path"), fs::canonical(in).string() + "/before.tif");
  EXPECT_EQ(text(found[1].attributes, "workflow.trigger.path"), fs::canonical(in).string() + "/after.tif");
}

TEST_F(AutomationClientTest, ListsPausesRunsAndRemovesThem) {
  const std::string in = directory_.path() + "/in";
  fs::create_directory(in);
  Automations& automations = client_.automations();
  automations.cron("nightly", "30 2 * * *", Empty{}, {.missed = MissedRuns::skip, .priority = 3});
  automations.watch_directory("scenes", in, "*.tif", Mosaic{"{file}"});
  ASSERT_THAT(automations.list(), SizeIs(2));
  const Automation nightly = automations.find("nightly");
  EXPECT_EQ(nightly.schedule, "30 2 * * *");
  EXPECT_EQ(nightly.task.name, "Empty");
  EXPECT_EQ(nightly.priority, 3);
  EXPECT_GT(nightly.next_at, nightly.looked_at);
  automations.pause("nightly");
  EXPECT_TRUE(automations.find("nightly").paused);
  EXPECT_EQ(automations.find("nightly").next_at, Timestamp{});
  EXPECT_THAT(automations.run("nightly"), SizeIs(1));
  EXPECT_THAT(automations.run("scenes"), IsEmpty());
  write_old_file(in + "/a.tif");
  EXPECT_THAT(automations.run("scenes"), SizeIs(1));
  EXPECT_THAT(automations.run("scenes"), IsEmpty());
  automations.resume("nightly");
  EXPECT_FALSE(automations.find("nightly").paused);
  automations.remove("nightly");
  const auto code = [](const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::io;
  };
  EXPECT_EQ(code([&] { (void)automations.find("nightly"); }), ErrorCode::not_found);
  EXPECT_EQ(code([&] { automations.pause("nightly"); }), ErrorCode::not_found);
  EXPECT_EQ(code([&] { automations.run("nightly"); }), ErrorCode::not_found);
  EXPECT_EQ(code([&] { automations.cron("x", "* * *", Empty{}); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code([&] { automations.cron("x", "* * * * *", Empty{}, {.time_zone = "Mars/Olympus"}); }), ErrorCode::not_found);
  EXPECT_EQ(code([&] { automations.cron("", "* * * * *", Empty{}); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code([&] { automations.cron("x", "* * * * *", TaskName{"T", "v1.0"}, "{no JSON"); }),
            ErrorCode::invalid_argument);
  EXPECT_EQ(code([&] { automations.watch_directory("x", in + "/nowhere", "*", Empty{}); }), ErrorCode::not_found);
  EXPECT_EQ(code([&] { automations.watch_directory("x", in, "a/*", Empty{}); }), ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace waymark
