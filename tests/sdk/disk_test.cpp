// A whole Telemetry on disks that are full, fail, or are not there; and the bounds of what it keeps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include "support/faulty_calls.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Call;
using testing::CallFaults;
using testing::MemoryDestination;

constexpr seconds kLong{30};

// What has been said, by any thread.
class Heard {
 public:
  ErrorHandler handler() {
    return [this](DiagnosticLevel, std::string_view line) {
      const std::scoped_lock lock(mutex_);
      text_.append(line).append("\n");
      more_.notify_all();
    };
  }
  std::string text() const {
    const std::scoped_lock lock(mutex_);
    return text_;
  }
  std::size_t times(const std::string& part) const {
    const std::string all = text();
    std::size_t count = 0;
    for (auto at = all.find(part); at != std::string::npos; at = all.find(part, at + part.size())) ++count;
    return count;
  }
  bool hears(const std::string& part) {
    std::unique_lock lock(mutex_);
    return more_.wait_for(lock, kLong, [&] { return text_.find(part) != std::string::npos; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable more_;
  std::string text_;
};

::testing::AssertionResult adds_up(const Counts& c) {
  if (c.offered == c.delivered + c.rejected + c.dropped + c.filtered + c.pending) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << c.offered << " offered, " << c.delivered << " delivered, " << c.rejected
                                       << " rejected, " << c.dropped << " dropped, " << c.filtered << " filtered, "
                                       << c.pending << " pending";
}

Counts counts_of(const Telemetry& telemetry, std::string_view name) {
  for (const DestinationStats& d : telemetry.stats().destinations) {
    if (d.signal == Signal::logs && d.name == name) return d.counts;
  }
  ADD_FAILURE() << "no destination " << name;
  return {};
}

// In a scratch directory, with small bounds: a segment is 1 MiB, two of them are the memory.
class DiskTest : public ::testing::Test {
 protected:
  DiskTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "waymark-disk-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    scratch_ = pattern;
  }
  ~DiskTest() override { clean(); }
  void clean() {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(state(), error)) {
      std::filesystem::remove_all(shared() + "/" + entry.path().filename().string(), error);
    }
    std::filesystem::remove_all(scratch_, error);
  }
  std::string state() const { return scratch_ + "/state"; }
  static std::string shared() { return "/dev/shm/waymark-" + std::to_string(geteuid()); }

  DestinationConfig dead(std::string name) {
    DestinationConfig d;
    d.name = std::move(name);
    d.signal = Signal::logs;
    d.output = Output::callback;
    d.deliver = [](Signal, std::string_view) { return DeliveryResult{Outcome::retry, 0, "nobody is there"}; };
    return d;
  }
  Config config(std::vector<DestinationConfig> destinations) {
    Config c = testing::memory_config(memory_);
    c.destinations = std::move(destinations);
    c.state_directory = state();
    c.recover_siblings = false;
    c.recorder.max_bytes = 1 << 20;
    c.recorder.ring_bytes = 512 * 1024;
    c.journal.segment_bytes = 1 << 20;
    c.journal.memory_bytes = 2 << 20;
    c.journal.max_bytes = 16 << 20;
    c.error_handler = heard_.handler();
    return c;
  }
  // So large that a few fill a segment, and each told from the others.
  static void log(const Logger& logger, int i) { logger.info(std::to_string(i) + std::string(30'000, '.')); }
  static std::set<int> numbers(const MemoryDestination& memory) {
    std::set<int> all;
    for (const ReadLog& log : memory.logs()) all.insert(std::stoi(to_text(log.body)));
    return all;
  }

  std::string scratch_;
  MemoryDestination memory_;
  Heard heard_;
};

// ---- faults

TEST_F(DiskTest, AnySingleCallMayFailAndNothingIsLostUncounted) {
  constexpr int kRecords = 110;  // three segments and a half
  constexpr int kErrors[] = {ENOSPC, EIO, EDQUOT, EROFS, EMFILE};
  // The first time none fails: how many there are.
  int index = -1;
  int made = 0;
  for (; index < made; ++index) {
    std::mutex mutex;
    int calls = 0;
    std::string failed;
    MemoryDestination first;
    MemoryDestination second;
    MemoryDestination later;
    Counts now_before;
    Counts later_before;
    SCOPED_TRACE("call " + std::to_string(index));
    {
      CallFaults faults([&](const Call& call) {
        if (!call.path.starts_with(scratch_ + "/") && !call.path.starts_with(shared())) return 0;
        const std::scoped_lock lock(mutex);
        if (calls++ != index) return 0;
        failed = std::string(call.name) + " " + call.path;
        return kErrors[static_cast<std::size_t>(index) % std::size(kErrors)];
      });
      Config c = config({first.destination(Signal::logs, "now"), dead("later")});
      Telemetry telemetry(c);
      const Logger logger = telemetry.logger("t");
      // A record that finds its ring full is refused, and counted: let the collector keep up.
      for (int i = 0; i < kRecords; ++i) {
        log(logger, i);
        if (i % 10 == 9) telemetry.force_flush(milliseconds(5));
      }
      telemetry.shutdown(milliseconds(50));
      made = std::max(made, calls);
      ASSERT_TRUE(adds_up(counts_of(telemetry, "now"))) << failed;
      ASSERT_TRUE(adds_up(counts_of(telemetry, "later"))) << failed;
      const std::set<int> got = numbers(first);
      now_before = counts_of(telemetry, "now");
      later_before = counts_of(telemetry, "later");
      ASSERT_GE(got.size() + now_before.dropped + now_before.pending, static_cast<std::size_t>(kRecords)) << failed;
      ASSERT_EQ(later_before.dropped + later_before.pending, static_cast<std::size_t>(kRecords)) << failed;
      if (telemetry.directory().empty()) {
        EXPECT_GT(heard_.times("dies with the process"), 0u) << failed;
        clean();
        ASSERT_TRUE(std::filesystem::create_directories(scratch_));
        continue;
      }
    }
    {
      Telemetry telemetry(config({second.destination(Signal::logs, "now"), later.destination(Signal::logs, "later")}));
      telemetry.recover();
      EXPECT_TRUE(telemetry.force_flush(kLong)) << failed;
      const Counts then = counts_of(telemetry, "later");
      EXPECT_TRUE(adds_up(then)) << failed;
      std::set<int> all = numbers(first);
      all.merge(numbers(second));
      EXPECT_GE(all.size() + now_before.dropped + counts_of(telemetry, "now").dropped, static_cast<std::size_t>(kRecords)) << failed;
      EXPECT_EQ(numbers(later).size() + later_before.dropped + then.dropped, static_cast<std::size_t>(kRecords)) << failed << heard_.text();
    }
    if (::testing::Test::HasFailure()) return;
    clean();
    ASSERT_TRUE(std::filesystem::create_directories(scratch_));
  }
  EXPECT_GT(index, 30) << "there are that many calls to fail";
}

TEST_F(DiskTest, ADirectoryThatIsRemovedUnderALivingProcessIsMadeAnew) {
  MemoryDestination later;
  std::string directory;
  {
    Telemetry telemetry(config({dead("later")}));
    directory = telemetry.directory();
    const Logger logger = telemetry.logger("t");
    for (int i = 0; i < 20; ++i) log(logger, i);
    telemetry.force_flush(milliseconds(1));
    std::filesystem::rename(state(), scratch_ + "/gone");
    std::filesystem::remove_all(scratch_ + "/gone");
    int i = 20;
    for (; heard_.times("is written again") == 0 && i < 10'000; ++i) {
      log(logger, i);
      telemetry.force_flush(milliseconds(1));
    }
    telemetry.shutdown(milliseconds(1));
    EXPECT_TRUE(adds_up(counts_of(telemetry, "later")));
  }
  ASSERT_TRUE(std::filesystem::exists(directory)) << heard_.text();
  Telemetry telemetry(config({later.destination(Signal::logs, "later")}));
  EXPECT_EQ(telemetry.recover(), 1u);
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_TRUE(numbers(later).contains(0) || counts_of(telemetry, "later").dropped > 0);
  EXPECT_GT(numbers(later).size(), 20u);
  EXPECT_TRUE(adds_up(counts_of(telemetry, "later")));
}

TEST_F(DiskTest, UnderALimitOfFileSizesTelemetryGoesOnInMemoryAndEndsNobody) {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{64 * 1024, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  {
    Telemetry telemetry(config({memory_.destination(Signal::logs, "now")}));
    const Logger logger = telemetry.logger("t");
    for (int i = 0; i < 10; ++i) log(logger, i);
    EXPECT_TRUE(telemetry.shutdown(kLong));
    EXPECT_EQ(telemetry.directory(), "");
  }
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(numbers(memory_).size(), 10u);
  EXPECT_EQ(heard_.times("ulimit -f"), 2u) << "for tmpfs and for the state directory, in one line: " << heard_.text();
}

// ---- real file systems, in a mount namespace of a child's own

class SmallFileSystemTest : public DiskTest {
 protected:
  void SetUp() override {
    const pid_t child = fork();
    if (child == 0) _exit(enter() ? 0 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) GTEST_SKIP() << "this user may not mount file systems here";
    GTEST_FLAG_SET(death_test_style, "fast");
  }
  static bool enter() {
    return unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=16m,mode=1777") == 0;
  }
  static bool tmpfs(const std::string& path, const std::string& options) {
    std::filesystem::create_directories(path);
    return mount("tmpfs", path.c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  static void require(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "not so: %s\n", what.c_str());
    std::_Exit(1);
  }
};

#define IN_A_NAMESPACE(...)                               \
  EXPECT_EXIT(                                            \
      {                                                   \
        require(enter(), "it has its own file systems");  \
        ([&] { __VA_ARGS__; }());                         \
        std::_Exit(0);                                    \
      },                                                  \
      ::testing::ExitedWithCode(0), "")

TEST_F(SmallFileSystemTest, ATmpfsThatIsFullFromTheStartSendsTheRecorderToTheStateDirectory) {
  IN_A_NAMESPACE({
    require(tmpfs("/dev/shm", "size=512k,mode=1777"), "a small one is mounted");
    Telemetry telemetry(config({memory_.destination(Signal::logs, "now")}));
    require(std::filesystem::exists(telemetry.directory() + "/recorder"), "the recorder lies in the state directory");
    require(heard_.times("No space left on device") == 1, "that is said once: " + heard_.text());
    const Logger logger = telemetry.logger("t");
    for (int i = 0; i < 10; ++i) log(logger, i);
    require(telemetry.shutdown(kLong), "everything is delivered");
    require(numbers(memory_).size() == 10, "everything");
  });
}

TEST_F(SmallFileSystemTest, ATmpfsThatFillsUpSendsSegmentsToTheStateDirectory) {
  IN_A_NAMESPACE({
    require(tmpfs("/dev/shm", "size=3m,mode=1777"), "a small one is mounted");
    Config c = config({dead("later")});
    c.destinations[0].lossy = false;  // nobody is refused because the collector is late
    c.journal.block_timeout = kLong;
    c.journal.memory_bytes = 12 << 20;
    Telemetry telemetry(c);
    const Logger logger = telemetry.logger("t");
    for (int i = 0; i < 200; ++i) {
      log(logger, i);
      if (i % 5 == 4) telemetry.force_flush(milliseconds(1));
    }
    require(heard_.times("No space left on device") == 1, "that is said once: " + heard_.text());
    const Counts counts = counts_of(telemetry, "later");
    require(counts.pending == 200, "nothing is lost");
    require(adds_up(counts), "and it adds up");
  });
}

TEST_F(SmallFileSystemTest, AStateDirectoryThatIsFullIsGoneBackToOnceThereIsRoom) {
  IN_A_NAMESPACE({
    require(tmpfs(state(), "size=2m,mode=0700"), "a small one is mounted");
    const std::string filler = state() + "/filler";
    { std::ofstream(filler) << std::string(1'700'000, 'x'); }
    Config c = config({dead("later")});
    c.journal.memory_bytes = 4 << 20;
    Telemetry telemetry(c);
    require(!telemetry.directory().empty(), "it is still good for a few small files: " + heard_.text());
    const Logger logger = telemetry.logger("t");
    int i = 0;
    for (; heard_.times("cannot be written") == 0 && i < 10'000; ++i) {
      log(logger, i);
      telemetry.force_flush(milliseconds(1));
    }
    require(heard_.times("No space left on device; telemetry stays in memory") == 1, "it says what and why: " + heard_.text());
    std::filesystem::remove(filler);
    require(heard_.hears("is written again"), "it goes back");
    require(adds_up(counts_of(telemetry, "later")), "it adds up");
  });
}

TEST_F(SmallFileSystemTest, AStateDirectoryThatIsFullFromTheStartIsUsedOnceThereIsRoom) {
  IN_A_NAMESPACE({
    require(tmpfs(state(), "size=1m,mode=0700"), "a small one is mounted");
    const std::string filler = state() + "/filler";
    {
      std::ofstream out(filler);
      const std::string page(4096, 'x');
      while (out.write(page.data(), 4096).flush()) {
      }
      for (int i = 0; std::ofstream(state() + "/filler" + std::to_string(i)).put('x').flush(); ++i) {
      }
    }
    Telemetry telemetry(config({dead("later")}));
    require(heard_.times("No space left on device") == 1, "that is said once: " + heard_.text());
    require(heard_.times("telemetry stays in memory until it can be written") == 1, "and what it means: " + heard_.text());
    log(telemetry.logger("t"), 1);
    telemetry.force_flush(milliseconds(1));
    std::filesystem::remove(filler);
    require(heard_.hears("is written again"), "it goes there: " + heard_.text());
    require(std::filesystem::exists(telemetry.directory() + "/identity"), "and is what a sibling would recover");
    require(std::filesystem::exists(telemetry.directory() + "/lock"), "and may not, while we live");
    require(!telemetry.shutdown(milliseconds(1)), "nobody has got it");
    require(counts_of(telemetry, "later").pending == 1, "nothing is lost");
    Telemetry next(config({memory_.destination(Signal::logs, "later")}));
    next.recover();
    require(next.force_flush(kLong), "it is delivered");
    require(numbers(memory_).contains(1), "after the next start");
  });
}

TEST_F(SmallFileSystemTest, AStateDirectoryThatIsReadOnlyFromTheStartIsUsedOnceItCanBeWritten) {
  IN_A_NAMESPACE({
    require(tmpfs(state(), "size=4m,mode=0700"), "one is mounted");
    require(mount(nullptr, state().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0, "read-only");
    Telemetry telemetry(config({memory_.destination(Signal::logs, "now")}));
    require(heard_.times("Read-only file system") == 1, "that is said once: " + heard_.text());
    log(telemetry.logger("t"), 1);
    require(telemetry.force_flush(kLong), "telemetry goes on");
    require(mount(nullptr, state().c_str(), nullptr, MS_REMOUNT, "size=4m") == 0, "no more");
    require(heard_.hears("is written again"), "it goes there: " + heard_.text());
    log(telemetry.logger("t"), 2);
    require(telemetry.shutdown(kLong), "everything is delivered");
    require(std::filesystem::exists(telemetry.directory() + "/delivered"), "and that is kept");
  });
}

// ---- fsync

TEST_F(DiskTest, WithEveryBatchNothingIsSentAndNoFlushAnswersBeforeItIsOnTheDisk) {
  std::mutex mutex;
  std::condition_variable changed;
  bool held = true;
  std::set<std::string> synced;
  CallFaults faults([&](const Call& call) {
    if (call.name != "fdatasync" && call.name != "fsync") return 0;
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !held || !call.path.ends_with(".seg"); });
    synced.insert(call.path);
    return 0;
  });
  Config c = config({memory_.destination(Signal::logs, "now")});
  c.journal.fsync = Fsync::every_batch;
  c.destinations[0].batch.interval = milliseconds(1);
  bool early = false;
  c.destinations[0].deliver = [&, inner = c.destinations[0].deliver](Signal signal, std::string_view request) {
    const std::scoped_lock lock(mutex);
    early = early || std::none_of(synced.begin(), synced.end(), [](const auto& path) { return path.ends_with(".seg"); });
    return inner(signal, request);
  };
  Telemetry telemetry(c);
  {
    // Or nobody could tell afterwards whose records these are, or find them.
    const std::scoped_lock lock(mutex);
    EXPECT_TRUE(synced.contains(telemetry.directory() + "/identity.new"));
    for (const std::string& name : {telemetry.directory(), state(), scratch_}) EXPECT_TRUE(synced.contains(name)) << name;
  }
  telemetry.logger("t").info("0");
  EXPECT_FALSE(telemetry.force_flush(milliseconds(100)));
  EXPECT_TRUE(memory_.logs().empty());
  {
    const std::scoped_lock lock(mutex);
    held = false;
    changed.notify_all();
  }
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_EQ(memory_.logs().size(), 1u);
  EXPECT_FALSE(early);
  for (int i = 0; i < 100; ++i) telemetry.logger("t").info(std::to_string(i));
  EXPECT_TRUE(telemetry.shutdown(kLong));
  EXPECT_EQ(memory_.logs().size(), 101u);
}

// ---- bounds

class BoundsTest : public DiskTest {};

TEST_F(BoundsTest, ALossyJournalKeepsTheNewestMaxBytes) {
  Config c = config({dead("later")});
  c.journal.max_bytes = 4 << 20;
  Telemetry telemetry(c);
  const Logger logger = telemetry.logger("t");
  for (int i = 0; i < 400; ++i) {
    log(logger, i);
    if (i % 5 == 4) telemetry.force_flush(milliseconds(20));  // the collector has made room
  }
  EXPECT_LE(telemetry.stats().journal_bytes, 4u << 20);
  const Counts counts = counts_of(telemetry, "later");
  EXPECT_GT(counts.dropped, 0u);
  EXPECT_GT(counts.pending, 30u);
  EXPECT_TRUE(adds_up(counts));
  telemetry.add(memory_.destination(Signal::logs, "later"));
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_TRUE(numbers(memory_).contains(399)) << "the newest stay";
  EXPECT_FALSE(numbers(memory_).contains(0)) << "the oldest go";
}

TEST_F(BoundsTest, WithoutAStateDirectoryMemoryBytesAreTheBound) {
  Config c = config({dead("later")});
  c.state_directory.clear();
  Telemetry telemetry(c);
  const Logger logger = telemetry.logger("t");
  for (int i = 0; i < 300; ++i) {
    log(logger, i);
    if (i % 5 == 4) telemetry.force_flush(milliseconds(1));
  }
  EXPECT_LE(telemetry.stats().journal_bytes, 2u << 20);
  EXPECT_GT(counts_of(telemetry, "later").dropped, 0u);
  EXPECT_TRUE(adds_up(counts_of(telemetry, "later")));
}

TEST_F(BoundsTest, ALosslessOneWaitsAtMostBlockTimeoutThenRefusesAndCounts) {
  Config c = config({dead("later")});
  c.destinations[0].lossy = false;
  c.journal.max_bytes = 2 << 20;
  c.journal.block_timeout = milliseconds(100);
  Telemetry telemetry(c);
  const Logger logger = telemetry.logger("t");
  int i = 0;
  for (; counts_of(telemetry, "later").dropped == 0 && i < 1000; ++i) log(logger, i);
  const auto before = std::chrono::steady_clock::now();
  log(logger, i);
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(100)) << "it waited before it was refused";
  EXPECT_GE(counts_of(telemetry, "later").dropped, 2u);
  EXPECT_TRUE(adds_up(counts_of(telemetry, "later")));
  EXPECT_TRUE(telemetry.stats().journal_bytes <= 2u << 20);
}

TEST_F(BoundsTest, NobodyWaitsPastAShutdown) {
  Config c = config({dead("later")});
  c.destinations[0].lossy = false;
  c.journal.max_bytes = 2 << 20;
  c.journal.block_timeout = std::chrono::hours(1);
  Telemetry telemetry(c);
  std::atomic<int> done{0};
  std::thread writer([&] {
    const Logger logger = telemetry.logger("t");
    for (int i = 0; i < 300; ++i) log(logger, done = i);
  });
  for (int seen = -1; seen != done;) {  // until it waits
    seen = done;
    telemetry.force_flush(milliseconds(100));
  }
  telemetry.shutdown(milliseconds(1));
  writer.join();
  EXPECT_TRUE(adds_up(counts_of(telemetry, "later")));
}

TEST_F(BoundsTest, ACleanEndKeepsKeepBytesOfWhatWasDelivered) {
  Config c = config({memory_.destination(Signal::logs, "now")});
  c.journal.keep_bytes = 2 << 20;
  {
    Telemetry telemetry(c);
    const Logger logger = telemetry.logger("t");
    for (int i = 0; i < 200; ++i) {
      log(logger, i);
      if (i % 5 == 4) {
        EXPECT_TRUE(telemetry.force_flush(kLong));
      }
    }
    EXPECT_TRUE(telemetry.shutdown(kLong));
  }
  const std::vector<ReadLog> kept = read_state_directory(state()).logs;
  ASSERT_FALSE(kept.empty());
  EXPECT_LE(kept.size() * 30'000, 2u << 20);
  EXPECT_GT(kept.size() * 30'000, 1u << 19);
  EXPECT_EQ(std::stoi(to_text(kept.back().body)), 199) << "the newest of it";
}

}  // namespace
}  // namespace waymark
