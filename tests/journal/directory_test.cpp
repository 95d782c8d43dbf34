#include "journal/directory.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "journal/orphans.h"
#include "journal/process.h"
#include "waymark/error.h"

namespace waymark::journal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::adds_up;
using testing::bytes_of;
using testing::put_bytes;
using testing::Recoverer;
using testing::ScratchDirectory;
using testing::TestProcess;

// A child of fork: says a line when it is asked for one, and stays until it is let go or killed.
class Fork {
 public:
  explicit Fork(const std::function<std::string()>& body) {
    int say[2];
    int hold[2];
    if (pipe(say) != 0 || pipe(hold) != 0) throw std::runtime_error("no pipe");
    process_ = fork();
    if (process_ == 0) {
      close(say[0]);
      close(hold[1]);
      const std::string line = body() + "\n";
      const bool said = write(say[1], line.data(), line.size()) == static_cast<ssize_t>(line.size());
      char byte;
      // Until the parent closes its end.
      while (said && read(hold[0], &byte, 1) > 0) continue;
      _exit(0);
    }
    close(say[1]);
    close(hold[0]);
    said_ = fdopen(say[0], "r");
    hold_ = hold[1];
  }
  ~Fork() {
    fclose(said_);
    end(0);
    close(hold_);
  }
  std::string line() const {
    char buffer[512];
    if (fgets(buffer, sizeof buffer, said_) == nullptr) return "nothing";
    return std::string(buffer, strlen(buffer) - 1);
  }
  // 0: lets it go.
  void end(int signal) {
    if (process_ < 0) return;
    if (signal != 0) {
      ::kill(process_, signal);
    } else {
      close(hold_);
      hold_ = -1;
    }
    waitpid(process_, nullptr, 0);
    process_ = -1;
  }

 private:
  pid_t process_ = -1;
  FILE* said_ = nullptr;
  int hold_ = -1;
};

std::map<std::string, std::string> files_of(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const std::string& name : list_directory(directory)) files[name] = bytes_of(directory + "/" + name);
  return files;
}

TEST(DirectoryTest, ASubdirectoryIsLockedBeforeAnybodySeesIt) {
  ScratchDirectory scratch;
  const OwnedHome owned = create_home(scratch.path(), RecorderConfig::Place::tmpfs);
  EXPECT_TRUE(is_home_name(owned.home.id));
  EXPECT_THAT(list_homes(scratch.path()), ElementsAre(owned.home.id));
  EXPECT_THAT(list_directory(scratch.path()), ElementsAre(owned.home.id)) << "no other name is left";
  EXPECT_TRUE(owned.lock.valid());
  EXPECT_TRUE(DirectoryLock::taken(owned.home.state));
}

TEST(DirectoryTest, DirectoriesArePrivate) {
  ScratchDirectory scratch;
  const std::string state = scratch.path() + "/deep/er/state";
  const OwnedHome owned = create_home(state, RecorderConfig::Place::tmpfs);
  std::vector<std::string> directories{state, owned.home.state};
  if (owned.home.memory != owned.home.state) {
    directories.push_back(owned.home.memory);
    directories.push_back(owned.home.memory.substr(0, owned.home.memory.rfind('/')));
  }
  for (const std::string& directory : directories) {
    struct stat s {};
    ASSERT_EQ(::lstat(directory.c_str(), &s), 0) << directory;
    EXPECT_EQ(s.st_mode & 0777u, 0700u) << directory;
  }
  struct stat s {};
  ASSERT_EQ(::lstat((owned.home.state + "/lock").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777u, 0600u);
  std::filesystem::remove_all(owned.home.memory);
}

TEST(DirectoryTest, ALinkIsRefused) {
  ScratchDirectory scratch;
  std::filesystem::create_directory(scratch.path() + "/real");
  std::filesystem::create_symlink(scratch.path() + "/real", scratch.path() + "/link");
  try {
    (void)create_home(scratch.path() + "/link", RecorderConfig::Place::state);
    FAIL() << "a link was followed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::state_directory);
    EXPECT_THAT(e.what(), HasSubstr(scratch.path() + "/link"));
    EXPECT_THAT(e.what(), HasSubstr("link"));
  }
  EXPECT_THAT(list_directory(scratch.path() + "/real"), IsEmpty());
}

TEST(DirectoryTest, WithoutAStateDirectoryThereIsNoPlace) {
  const OwnedHome owned = create_home("", RecorderConfig::Place::tmpfs);
  EXPECT_EQ(owned.home.state, "");
  EXPECT_EQ(owned.home.memory, "");
}

TEST(DirectoryTest, ALockIsHeldByOneAndGivenBack) {
  ScratchDirectory scratch;
  {
    const DirectoryLock lock = DirectoryLock::take(scratch.path());
    EXPECT_TRUE(lock.valid());
    EXPECT_FALSE(DirectoryLock::take(scratch.path()).valid()) << "this process has it";
    EXPECT_TRUE(DirectoryLock::taken(scratch.path()));
    Fork other([&] {
      return std::string(DirectoryLock::take(scratch.path()).valid() ? "mine" : "theirs");
    });
    // In a child of fork the table still says that we hold it; the next test asks a process that does not know.
    EXPECT_EQ(other.line(), "theirs");
  }
  EXPECT_FALSE(DirectoryLock::taken(scratch.path()));
  EXPECT_TRUE(DirectoryLock::take(scratch.path()).valid());
}

TEST(DirectoryTest, ALivingProcessKeepsItsLockAndADeadOneLosesIt) {
  ScratchDirectory scratch;
  Fork owner([&] {
    static const DirectoryLock lock = DirectoryLock::take(scratch.path());
    return std::string(lock.valid() ? "held" : "not held");
  });
  ASSERT_EQ(owner.line(), "held");
  EXPECT_TRUE(DirectoryLock::taken(scratch.path()));
  EXPECT_FALSE(DirectoryLock::take(scratch.path()).valid());
  EXPECT_TRUE(DirectoryLock::taken(scratch.path())) << "asking does not take it away";
  owner.end(SIGKILL);
  EXPECT_FALSE(DirectoryLock::taken(scratch.path()));
  EXPECT_TRUE(DirectoryLock::take(scratch.path()).valid());
}

TEST(DirectoryTest, ALivingProcesssFilesAreNeverTouched) {
  ScratchDirectory scratch;
  Fork owner([&] {
    auto* process = new TestProcess(scratch.path());  // lives until the child is killed
    process->log("one");
    process->drain();
    process->open("open");
    return process->home.id + " " + process->home.memory;
  });
  const std::string line = owner.line();
  const std::string id = line.substr(0, 32);
  const std::string memory = line.substr(33);
  const auto state_before = files_of(scratch.path() + "/" + id);
  const auto memory_before = files_of(memory);
  Recoverer recoverer(scratch.path());
  EXPECT_EQ(recoverer.recover(id), nullptr);
  EXPECT_EQ(trim_dead(scratch.path(), 0, {}, recoverer.said.diagnostics), 0u);
  EXPECT_EQ(files_of(scratch.path() + "/" + id), state_before);
  EXPECT_EQ(files_of(memory), memory_before);
  EXPECT_THAT(recoverer.reports, IsEmpty());
  owner.end(SIGKILL);
  EXPECT_NE(recoverer.recover(id), nullptr);
}

TEST(DirectoryTest, OfTwoRecoverersOneGetsIt) {
  ScratchDirectory scratch;
  for (int round = 0; round < 10; ++round) {
    TestProcess process(scratch.path());
    process.log("one");
    process.die();
    const auto body = [&] {
      auto* recoverer = new Recoverer(scratch.path());
      return std::string(recoverer->recover(process.home.id).release() != nullptr ? "mine" : "not mine");
    };
    Fork one(body);
    Fork other(body);
    const std::vector<std::string> said{one.line(), other.line()};
    EXPECT_THAT(said, ::testing::UnorderedElementsAre("mine", "not mine"));
  }
}

TEST(DirectoryTest, AnIdentityIsReadAsItWasWritten) {
  ScratchDirectory scratch;
  Home home{std::string(32, 'a'), scratch.path(), scratch.path()};
  Identity identity;
  identity.version = 7;
  identity.memory = "/dev/shm/somewhere";
  identity.recorder_inode = 12345678901234;
  identity.boot = "boot";
  identity.process_id = 42;
  identity.started_ns = 1'800'000'000'000'000'000u;
  identity.service = "two\nlines = one";
  identity.hook = true;
  ASSERT_TRUE(write_identity(home, identity));
  const auto read = read_identity(scratch.path());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->version, 7u);
  EXPECT_EQ(read->memory, identity.memory);
  EXPECT_EQ(read->recorder_inode, identity.recorder_inode);
  EXPECT_EQ(read->boot, "boot");
  EXPECT_EQ(read->process_id, 42u);
  EXPECT_EQ(read->started_ns, identity.started_ns);
  EXPECT_EQ(read->service, "two lines = one");
  EXPECT_TRUE(read->hook);
  EXPECT_FALSE(read->closed);
}

TEST(DirectoryTest, RemovingMemoryNeverLeavesItsPlace) {
  ScratchDirectory scratch;
  std::filesystem::create_directory(scratch.path() + "/precious");
  put_bytes(scratch.path() + "/precious/file", "x");
  remove_memory({std::string(32, 'a'), scratch.path() + "/state", scratch.path() + "/precious"});
  EXPECT_EQ(bytes_of(scratch.path() + "/precious/file"), "x");
  const std::string id(32, 'a');
  for (const std::string& elsewhere : {scratch.path() + "/project", scratch.path() + "/" + id}) {
    std::filesystem::create_directory(elsewhere);
    put_bytes(elsewhere + "/recorder", "somebody's");
    remove_memory({id, scratch.path() + "/state", elsewhere});
    remove_memory({id, scratch.path() + "/state", memory_path(id) + "/../../../.." + elsewhere});
    EXPECT_EQ(bytes_of(elsewhere + "/recorder"), "somebody's") << "a path from a file that anyone may have written";
  }
}

TEST(DirectoryTest, ARecorderThatNobodyHasReadSaysWhenItsProcessLived) {
  ScratchDirectory scratch;
  TestProcess process(scratch.path());
  process.recorder->header().alive_ns = TestProcess::kStart + 5;
  process.die();
  EXPECT_EQ(look_at_last_alive(process.home), TestProcess::kStart + 5);
  put_bytes(process.recorder_path(), std::string(1 << 16, 'x'));
  EXPECT_EQ(look_at_last_alive(process.home), 0u) << "no header that can be believed";
}

TEST(TrimTest, RemovesTheOldestDeadBeyondTheLimitAndSaysWhatWasNotDelivered) {
  ScratchDirectory scratch;
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    TestProcess process(scratch.path(), {.recorder = {.max_bytes = 1 << 20, .ring_bytes = 512 * 1024}});
    process.identity.started_ns += static_cast<std::uint64_t>(i);
    write_identity(process.home, process.identity);
    process.log("one");
    process.drain();
    process.die();
    ids.push_back(process.home.id);
    if (i == 0) mark_delivered(process.home.state);
    put_bytes(process.home.state + "/ballast", std::string(100'000, 'x'));
  }
  testing::Said said;
  EXPECT_EQ(trim_dead(scratch.path(), 270'000, {}, said.diagnostics), 0u);
  EXPECT_THAT(list_homes(scratch.path()), ::testing::UnorderedElementsAre(ids[1], ids[2]));
  EXPECT_FALSE(said.about("never delivered"));
  EXPECT_FALSE(std::filesystem::exists(memory_path(ids[0])));
  EXPECT_EQ(trim_dead(scratch.path(), 150'000, {}, said.diagnostics), 0u);
  EXPECT_THAT(list_homes(scratch.path()), ElementsAre(ids[2]));
  EXPECT_TRUE(said.about(ids[1]));
  EXPECT_FALSE(std::filesystem::exists(memory_path(ids[1])));
}

TEST(TrimTest, WhatThisProcessHasOpenCountsAndStays) {
  ScratchDirectory scratch;
  std::vector<std::string> ids;
  for (int i = 0; i < 2; ++i) {
    TestProcess process(scratch.path());
    process.log("one");
    process.drain();
    process.die();
    ids.push_back(process.home.id);
    put_bytes(process.home.state + "/ballast", std::string(100'000, 'x'));
  }
  Recoverer recoverer(scratch.path());
  const auto open = recoverer.recover(ids[0]);
  ASSERT_NE(open, nullptr);
  testing::Said said;
  const std::uint64_t excess = trim_dead(scratch.path(), 50'000, {ids[0]}, said.diagnostics);
  EXPECT_GT(excess, 50'000u);
  EXPECT_THAT(list_homes(scratch.path()), ElementsAre(ids[0]));
  EXPECT_TRUE(said.about("removed with 1 records")) << "what it cost is told";
  const auto cursor = open->journal->cursor("sink", Signal::logs, true);
  EXPECT_GT(open->journal->give_up(excess), 0u);
  EXPECT_EQ(cursor->counts().dropped, 1u) << "and counted, where it is open";
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST(OrphanTest, MemoryWhoseSubdirectoryWasRemovedIsSwept) {
  ScratchDirectory scratch;
  TestProcess process(scratch.path());
  process.log("one");
  process.die();
  const std::string memory = process.home.memory;
  sweep_orphans();
  EXPECT_TRUE(std::filesystem::exists(memory)) << "it is found by its subdirectory";
  std::filesystem::remove_all(process.home.state);
  EXPECT_GE(sweep_orphans(), 1u);
  EXPECT_FALSE(std::filesystem::exists(memory));
}

TEST(OrphanTest, TheMemoryOfALivingProcessStaysWhereverItsSubdirectoryWent) {
  ScratchDirectory scratch;
  TestProcess here(scratch.path());
  Fork elsewhere([&] {
    auto* process = new TestProcess(scratch.path());
    return process->home.id + " " + process->home.memory;
  });
  const std::string line = elsewhere.line();
  const std::string memory = line.substr(33);
  std::filesystem::remove_all(here.home.state);
  std::filesystem::remove_all(scratch.path() + "/" + line.substr(0, 32));
  sweep_orphans();
  EXPECT_TRUE(std::filesystem::exists(here.recorder_path()));
  EXPECT_TRUE(std::filesystem::exists(memory + "/recorder"));
  elsewhere.end(SIGKILL);
  sweep_orphans();
  EXPECT_FALSE(std::filesystem::exists(memory));
  here.die();
  sweep_orphans();
}

TEST(OrphanTest, TheMemoryOfWhatWasSetAsideStaysAsLongAsThat) {
  ScratchDirectory scratch;
  TestProcess process(scratch.path());
  process.log("one");
  process.die();
  const std::string aside = scratch.path() + "/damaged-" + process.home.id;
  std::filesystem::rename(process.home.state, aside);
  sweep_orphans();
  EXPECT_TRUE(std::filesystem::exists(process.recorder_path())) << "somebody may still want to look into it";
  std::filesystem::remove_all(aside);
  sweep_orphans();
  EXPECT_FALSE(std::filesystem::exists(process.recorder_path()));
}

// As in another container that has its own volume there, or while the volume is not mounted.
TEST(OrphanTest, MemoryStaysWhereItsStateDirectoryIsNotTheOneThatIsSeen) {
  ScratchDirectory scratch;
  const std::string state = scratch.path() + "/state";
  TestProcess process(state);
  process.log("one");
  process.die();
  std::filesystem::rename(state, scratch.path() + "/elsewhere");
  sweep_orphans();
  EXPECT_TRUE(std::filesystem::exists(process.recorder_path())) << "nothing is there";
  std::filesystem::create_directory(state);
  sweep_orphans();
  EXPECT_TRUE(std::filesystem::exists(process.recorder_path())) << "another is there";
  std::filesystem::remove(state);
  std::filesystem::rename(scratch.path() + "/elsewhere", state);
  std::filesystem::remove_all(process.home.state);
  sweep_orphans();
  EXPECT_FALSE(std::filesystem::exists(process.recorder_path())) << "the very one is there, without it";
}

TEST(OrphanTest, MemoryOfASubdirectoryThatWasMadeAnewIsSweptByItsNewPlace) {
  ScratchDirectory scratch;
  const std::string state = scratch.path() + "/state";
  OwnedHome owned = create_home(state, RecorderConfig::Place::tmpfs);
  std::filesystem::rename(state, scratch.path() + "/old");
  ASSERT_TRUE(restore_home(owned, state, {}, false));
  owned.memory_lock = {};
  owned.lock = {};
  sweep_orphans();
  EXPECT_TRUE(std::filesystem::exists(owned.home.memory));
  std::filesystem::remove_all(owned.home.state);
  sweep_orphans();
  EXPECT_FALSE(std::filesystem::exists(owned.home.memory));
}

TEST(OrphanTest, WhatDoesNotSayWhoseItIsStays) {
  const std::string id(32, '7');
  const std::string memory = memory_path(id);
  ASSERT_FALSE(memory.empty());
  std::filesystem::create_directory(memory);
  for (const std::string& text : {std::string(), std::string("mnt:[1]"), "mnt:[1]\n/no/such/place/" + id, std::string("x\n/etc")}) {
    if (!text.empty()) put_bytes(memory + "/owner", text);
    sweep_orphans();
    EXPECT_TRUE(std::filesystem::exists(memory)) << text;
  }
  std::filesystem::remove_all(memory);
}

// A second lock by the same process would succeed, and closing any descriptor of the file would free the first.
TEST(DirectoryTest, LookingAtALockThatIsOursDoesNotLoseIt) {
  ScratchDirectory scratch;
  const OwnedHome owned = create_home(scratch.path(), RecorderConfig::Place::state);
  EXPECT_FALSE(DirectoryLock::take(owned.home.state).valid());
  EXPECT_TRUE(DirectoryLock::taken(owned.home.state));
  Fork other([&] { return DirectoryLock::taken(owned.home.state) ? "taken" : "free"; });
  EXPECT_EQ(other.line(), "taken");
  other.end(SIGKILL);
}

// Waits until `died` has been called and the subdirectory is free.
class Deaths {
 public:
  // Of whoever has this one.
  void of(const std::string& home) {
    const std::scoped_lock lock(mutex_);
    home_ = home;
  }
  void heard() {
    const std::scoped_lock lock(mutex_);
    told_ = told_ || (!home_.empty() && !DirectoryLock::taken(home_));
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return told_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string home_;
  bool told_ = false;
};

TEST(SiblingWatchTest, FiresWhenASiblingThatWasThereDies) {
  ScratchDirectory scratch;
  Fork sibling([&] { return (new OwnedHome(create_home(scratch.path(), RecorderConfig::Place::state)))->home.state; });
  const std::string home = sibling.line();
  Deaths deaths;
  testing::Said said;
  SiblingWatch watch(scratch.path(), [&] { deaths.heard(); }, said.diagnostics);
  ASSERT_TRUE(DirectoryLock::taken(home));
  deaths.of(home);
  sibling.end(SIGKILL);
  EXPECT_TRUE(deaths.wait());
}

TEST(SiblingWatchTest, FiresWhenOneThatCameLaterDies) {
  ScratchDirectory scratch;
  Deaths deaths;
  testing::Said said;
  int let_go[2];
  ASSERT_EQ(pipe(let_go), 0);
  Fork sibling([&] {
    char byte;
    if (read(let_go[0], &byte, 1) != 1) return std::string("not let go");
    return (new OwnedHome(create_home(scratch.path(), RecorderConfig::Place::state)))->home.state;
  });
  SiblingWatch watch(scratch.path(), [&] { deaths.heard(); }, said.diagnostics);
  ASSERT_EQ(write(let_go[1], "x", 1), 1);
  const std::string home = sibling.line();
  deaths.of(home);
  sibling.end(SIGKILL);
  EXPECT_TRUE(deaths.wait());
  close(let_go[0]);
  close(let_go[1]);
}

TEST(SiblingWatchTest, FiresAlsoInADirectoryThatWasRemovedAndMadeAnew) {
  ScratchDirectory scratch;
  const std::string state = scratch.path() + "/state";
  ASSERT_TRUE(make_directory(state));
  Deaths deaths;
  testing::Said said;
  int let_go[2];
  ASSERT_EQ(pipe(let_go), 0);
  Fork sibling([&] {
    char byte;
    if (read(let_go[0], &byte, 1) != 1) return std::string("not let go");
    return (new OwnedHome(create_home(state, RecorderConfig::Place::state)))->home.state;
  });
  SiblingWatch watch(state, [&] { deaths.heard(); }, said.diagnostics);
  ASSERT_TRUE(remove_tree(state));
  EXPECT_TRUE(said.hears("cannot be watched")) << "it looks until it is there again";
  ASSERT_EQ(write(let_go[1], "x", 1), 1);
  const std::string home = sibling.line();
  deaths.of(home);
  sibling.end(SIGKILL);
  EXPECT_TRUE(deaths.wait());
  close(let_go[0]);
  close(let_go[1]);
}

TEST(SiblingWatchTest, LooksOnceAtItsStartForThoseWhoAreDeadAlready) {
  ScratchDirectory scratch;
  testing::Said said;
  std::mutex mutex;
  std::condition_variable changed;
  int looked = 0;
  SiblingWatch watch(scratch.path(), [&] {
    const std::scoped_lock lock(mutex);
    ++looked;
    changed.notify_all();
  }, said.diagnostics);
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&] { return looked > 0; }));
}

TEST(SiblingWatchTest, ADirectoryThatCannotBeWatchedIsSaidAndLookedAtOnce) {
  ScratchDirectory scratch;
  testing::Said said;
  std::atomic<int> looked{0};
  { SiblingWatch watch(scratch.path() + "/gone", [&] { ++looked; }, said.diagnostics); }
  EXPECT_TRUE(said.about("cannot be watched"));
  EXPECT_EQ(looked, 1);
}

}  // namespace
}  // namespace waymark::journal
