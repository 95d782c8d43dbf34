// What becomes of a SQLite store, and of the runners on it, when its file is locked, full, read-only, damaged, or gone.
// Faults are put in where SQLite asks the kernel.
#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <latch>
#include <mutex>
#include <semaphore>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "executor.h"
#include "runner/engines.h"
#include "runner/workflow.h"
#include "store/database.h"
#include "store/sqlite.h"

namespace waymark {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// ------ the kernel, as SQLite sees it

std::atomic<int> write_fault{0};    // errno
std::atomic<bool> no_writing{false};  // files open for reading only
std::mutex hits_mutex;
std::condition_variable hit;
int hits = 0;

ssize_t faulty_write(int fd, const void* bytes, size_t n, off_t at) {
  if (const int fault = write_fault) {
    {
      const std::scoped_lock lock(hits_mutex);
      ++hits;
    }
    hit.notify_all();
    errno = fault;
    return -1;
  }
  return pwrite(fd, bytes, n, at);
}

int faulty_open(const char* path, int flags, int mode) {
  if (no_writing && (flags & O_RDWR)) {
    errno = EACCES;
    return -1;
  }
  return open(path, flags, mode);
}

class Faults {
 public:
  Faults() {
    sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr);
    for (const char* name : {"pwrite64", "pwrite"}) {
      if (vfs->xGetSystemCall(vfs, name)) {
        vfs->xSetSystemCall(vfs, name, reinterpret_cast<sqlite3_syscall_ptr>(&faulty_write));
      }
    }
    vfs->xSetSystemCall(vfs, "open", reinterpret_cast<sqlite3_syscall_ptr>(&faulty_open));
    hits = 0;
  }
  ~Faults() {
    write_fault = 0;
    no_writing = false;
    sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr);
    vfs->xSetSystemCall(vfs, nullptr, nullptr);
  }
  // Until the kernel has refused so many writes.
  static bool wait_for_hits(int n) {
    std::unique_lock lock(hits_mutex);
    return hit.wait_for(lock, 60s, [&] { return hits >= n; });
  }
};

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::store) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

class StoreFaultsTest : public RunnerTest {
 protected:
  std::string path() const { return directory_.path() + "/store.db"; }
  static NewJob new_job(const std::string& id) {
    NewJob job;
    job.id = id;
    job.name = id;
    job.span.trace_id = TraceId::random();
    job.span.span_id = SpanId::random();
    job.roots.tasks.emplace_back();
    job.roots.tasks[0].name = {"Empty", "v0.0"};
    return job;
  }
  Faults faults_;
};

TEST_F(StoreFaultsTest, SaysThatAnotherProgramKeepsItLocked) {
  const auto store = store::open_sqlite({.path = path(), .clock = {}, .patience = 20ms});
  store->submit(new_job("before"));
  store::Database other(path());
  other.execute("BEGIN IMMEDIATE");
  EXPECT_THAT(message_of([&] { store->submit(new_job("refused")); }), HasSubstr("another program has kept it locked"));
  EXPECT_TRUE(store->find("before")) << "readers wait for nobody";
  other.execute("ROLLBACK");
  EXPECT_EQ(store->find("refused"), std::nullopt);
  store->submit(new_job("after"));
  EXPECT_TRUE(store->find("after"));
}

TEST_F(StoreFaultsTest, SaysThatTheDiskIsFullAndLosesNothingCommitted) {
  Store& store = client_.store();
  store.submit(new_job("before"));
  write_fault = ENOSPC;
  EXPECT_THAT(message_of([&] { store.submit(new_job("refused")); }), HasSubstr("its disk is full: make room there"));
  EXPECT_TRUE(store.find("before"));
  EXPECT_EQ(store.find("refused"), std::nullopt);
  write_fault = 0;
  store.submit(new_job("after"));
  EXPECT_TRUE(Client(options()).jobs().find("after").id == "after");
}

TEST_F(StoreFaultsTest, KeepsATasksResultUntilTheDiskHasRoomAgain) {
  std::atomic<int> executions{0};
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          ++executions;
                                          context.submit_subtask(Empty{});
                                          write_fault = ENOSPC;
                                        }));
  std::thread run([&] { runner().run_all(); });
  EXPECT_TRUE(Faults::wait_for_hits(2));
  EXPECT_EQ(client_.jobs().tasks(job.id)[0].state, TaskState::running);
  write_fault = 0;
  run.join();
  EXPECT_EQ(executions, 1);
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
  EXPECT_THAT(client_.jobs().tasks(job.id), SizeIs(2));
}

TEST_F(StoreFaultsTest, EndsARunnerWhoseStoreStaysFullForLongerThanItsLease) {
  const Job job = client_.jobs().submit("job", scripted([&](Context& context) {
                                          if (context.attempt() == 1) write_fault = ENOSPC;
                                        }));
  RunnerOptions impatient = quick();
  impatient.lease = 50ms;
  EXPECT_THAT(message_of([&] { runner(impatient).run_all(); }), HasSubstr("its disk is full"));
  write_fault = 0;
  runner(impatient).run_all();  // the lease of the first has ended, or ends: the task runs again
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
}

TEST_F(StoreFaultsTest, DoesNotWaitForAFullStoreWhenItsEndHasATime) {
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  std::stop_source stop;
  client_.jobs().submit("job", scripted([&](Context&) {
                          write_fault = ENOSPC;
                          stop.request_stop();
                        }));
  client_.jobs().submit("stubborn", scripted([released](Context&) { released.wait(); }));
  RunnerOptions options = quick();
  options.lease = 24h;
  Runner r = runner(options);
  EXPECT_THAT(message_of([&] { r.run_forever({.stop = stop.get_token(), .grace = 50ms}); }),
              HasSubstr("its disk is full"));
  release.set_value();
  while (r.hanging_threads() > 0) std::this_thread::yield();
}

TEST_F(StoreFaultsTest, SaysThatItCantBeWritten) {
  client_.jobs().submit("job", Empty{});
  no_writing = true;
  const std::string message = message_of([&] {
    const auto store = store::open_sqlite({.path = path(), .clock = {}});
    store->submit(new_job("refused"));
  });
  EXPECT_THAT(message, ::testing::AnyOf(HasSubstr("check its permissions"), HasSubstr("may be written")));
  EXPECT_THAT(message, HasSubstr(path()));
}

TEST_F(StoreFaultsTest, SaysThatTheFileIsDamaged) {
  const std::string copy = directory_.path() + "/copy.db";
  {
    const auto store = store::open_sqlite({.path = copy, .clock = {}});
    for (int i = 0; i < 200; ++i) store->submit(new_job("job" + std::to_string(i)));
  }
  const auto size = std::filesystem::file_size(copy);
  ASSERT_GT(size, 40'000u);
  {
    std::fstream file(copy, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(8192);
    file << std::string(size - 8192, 'x');
  }
  EXPECT_THAT(message_of([&] {
                const auto store = store::open_sqlite({.path = copy, .clock = {}});
                for (int i = 0; i < 200; ++i) store->submit(new_job("more" + std::to_string(i)));
              }),
              HasSubstr("the file is damaged, or no store: move it away and start again"));
}

TEST_F(StoreFaultsTest, NoticesThatTheFileHasVanishedAndGoesOnWhenItIsBack) {
  Store& store = client_.store();
  store.submit(new_job("before"));
  const std::string away = path() + ".away";
  std::filesystem::rename(path(), away);
  EXPECT_THAT(message_of([&] { store.submit(new_job("lost")); }), HasSubstr("was removed while it was open: put it back"));
  std::ofstream(path()) << "";
  EXPECT_THAT(message_of([&] { store.submit(new_job("lost")); }), HasSubstr("was replaced while it was open"));
  std::filesystem::rename(away, path());
  store.submit(new_job("after"));
  EXPECT_TRUE(store.find("before"));
  EXPECT_EQ(store.find("lost"), std::nullopt);
  EXPECT_TRUE(store.find("after"));
}

TEST_F(StoreFaultsTest, KeepsATasksResultWhileTheFileIsAway) {
  std::atomic<int> executions{0};
  const std::string away = path() + ".away";
  std::binary_semaphore is_away(0);
  const Job job = client_.jobs().submit("job", scripted([&](Context&) {
                                          ++executions;
                                          std::filesystem::rename(path(), away);
                                          is_away.release();
                                        }));
  std::thread run([&] { runner().run_all(); });
  is_away.acquire();
  EXPECT_THAT(message_of([&] { client_.store().submit(new_job("refused")); }), HasSubstr("was removed"));
  std::filesystem::rename(away, path());
  run.join();
  EXPECT_EQ(executions, 1);
  EXPECT_EQ(client_.jobs().find(job.id).state, JobState::completed);
}

TEST_F(StoreFaultsTest, EndsTheWaitForAJobWhoseStoreIsGone) {
  const Job job = client_.jobs().submit("job", Empty{});
  std::promise<void> waits;
  auto ended = std::async(std::launch::async, [&] {
    waits.set_value();
    return message_of([&] { (void)client_.jobs().wait(job.id); });
  });
  waits.get_future().wait();
  const std::string away = path() + ".away";
  std::filesystem::rename(path(), away);
  const bool in_time = ended.wait_for(60s) == std::future_status::ready;
  EXPECT_TRUE(in_time) << "in a file that nobody writes to nothing changes";
  if (!in_time) {
    std::filesystem::rename(away, path());
    client_.jobs().cancel(job.id);
  }
  if (in_time) {
    EXPECT_THAT(ended.get(), HasSubstr("was removed while it was open"));
  }
}

TEST_F(StoreFaultsTest, IsLookedAtWhileAnotherProgramKeepsItLocked) {
  const Job job = client_.jobs().submit("job", Empty{});
  store::Database other(path());
  other.execute("BEGIN IMMEDIATE");
  const auto store = store::open_sqlite({.path = path(), .clock = {}, .patience = 20ms});
  EXPECT_TRUE(store->find(job.id));
  other.execute("ROLLBACK");
}

TEST_F(StoreFaultsTest, WaitsNoLongerOnceItIsHurried) {
  const auto store = store::open_sqlite({.path = path(), .clock = {}, .patience = 1h});
  store::Database other(path());
  other.execute("BEGIN IMMEDIATE");
  auto refused = std::async(std::launch::async, [&] { return message_of([&] { store->submit(new_job("refused")); }); });
  const auto hurry = store->hurry();
  const bool in_time = refused.wait_for(60s) == std::future_status::ready;
  EXPECT_TRUE(in_time);
  other.execute("ROLLBACK");
  if (in_time) {
    EXPECT_THAT(refused.get(), HasSubstr("another program has kept it locked"));
  }
}

// ------ several runners

// As after a machine that slept, or a store that was locked for longer than a lease.
TEST_F(StoreFaultsTest, AStallOfAllRunnersMakesNoneTakeTheTasksOfTheLiving) {
  testing::TestClock clock;
  ClientOptions o = options();
  o.time.now = [&] { return clock.now(); };
  Client one(o), two(o);
  std::latch runs(2);
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  const auto body = scripted([&, released](Context&) {
    runs.count_down();
    released.wait();
  });
  const Job a = one.jobs().submit("a", body), b = one.jobs().submit("b", body);
  RunnerOptions leased = quick(1);
  leased.lease = 2s;
  std::thread first([&] { one.runner<Scripted>(leased).run_all(); });
  std::thread second([&] { two.runner<Scripted>(leased).run_all(); });
  runs.wait();
  // One that really is dead, to see when they have looked for such.
  const auto store = open_store(o.store, o.time.now);
  store->join({.runner = "dead", .name = {}, .host = {}, .tasks = {}, .lease = 2s});
  clock.advance(60s);
  while (std::ranges::any_of(store->workers(), [](const WorkerInfo& w) { return w.runner == "dead"; })) {
    std::this_thread::yield();
  }
  for (const Job& job : {a, b}) {
    const TaskInfo task = one.jobs().tasks(job.id)[0];
    EXPECT_EQ(task.state, TaskState::running);
    EXPECT_EQ(task.lost, 0u);
  }
  release.set_value();
  first.join();
  second.join();
  for (const Job& job : {a, b}) {
    EXPECT_EQ(one.jobs().tasks(job.id)[0].attempts, 1u);
    EXPECT_EQ(one.jobs().find(job.id).state, JobState::completed);
  }
}

// ------ the end

TEST_F(StoreFaultsTest, EndsInTimeWhateverHoldsItsAutomations) {
  std::mutex mutex;
  std::condition_variable changed;
  bool held = false, open = false, told = false;
  ClientOptions o = options();
  // What hangs is the clock that automations look at, for want of a network disk.
  o.time.now = [&] {
    char name[16] = {};
    pthread_getname_np(pthread_self(), name, sizeof name);
    if (std::string_view(name) == "wm-automation") {
      std::unique_lock lock(mutex);
      held = true;
      changed.notify_all();
      changed.wait(lock, [&] { return open; });
    }
    return detail::system_time();
  };
  Client client(o);
  client.automations().cron("hourly", "0 * * * *", Empty{});
  std::latch runs(1);
  client.jobs().submit("job", scripted([&](Context& context) {
                         runs.count_down();
                         std::condition_variable_any stopped;
                         std::unique_lock lock(mutex);
                         (void)stopped.wait_for(lock, context.stop_token(), 60s, [] { return false; });
                         told = context.stop_token().stop_requested();
                       }));
  std::stop_source stop;
  Runner r = client.runner<Scripted, Empty>(quick());
  auto ended = std::async(std::launch::async, [&] { return r.run_forever({.stop = stop.get_token(), .grace = 200ms}); });
  runs.wait();
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return held; });
  }
  stop.request_stop();
  EXPECT_EQ(ended.wait_for(60s), std::future_status::ready) << "it waits for what hangs";
  {
    const std::scoped_lock lock(mutex);
    EXPECT_TRUE(told) << "before anything else was waited for";
    open = true;
  }
  changed.notify_all();
  EXPECT_EQ(ended.get(), StopReason::requested);
  while (r.hanging_threads() > 0) std::this_thread::yield();
}

TEST_F(StoreFaultsTest, TellsItsTasksOfTheEndWhileTheStoreIsLocked) {
  store::Database other(path());
  std::mutex mutex;
  std::latch runs(2);
  std::atomic<bool> told{false};
  std::promise<void> locked;
  std::shared_future<void> is_locked = locked.get_future().share();
  client_.jobs().submit("told", scripted([&](Context& context) {
                          runs.count_down();
                          std::condition_variable_any stopped;
                          std::unique_lock lock(mutex);
                          told = !stopped.wait_for(lock, context.stop_token(), 60s, [] { return false; }) &&
                                 context.stop_token().stop_requested();
                        }));
  client_.jobs().submit("done", scripted([&, is_locked](Context&) {
                          runs.count_down();
                          is_locked.wait();
                        }));
  RunnerOptions patient = quick(2);
  patient.lease = 24h;
  std::stop_source stop;
  Runner r = runner(patient);
  auto ended = std::async(std::launch::async, [&] {
    return message_of([&] { r.run_forever({.stop = stop.get_token(), .grace = 10s}); });
  });
  runs.wait();
  other.execute("BEGIN IMMEDIATE");
  locked.set_value();
  stop.request_stop();
  EXPECT_EQ(ended.wait_for(60s), std::future_status::ready);
  EXPECT_TRUE(told);
  other.execute("ROLLBACK");
  EXPECT_THAT(ended.get(), HasSubstr("another program has kept it locked"));
}

}  // namespace
}  // namespace waymark
