// What Linux has in store for designs like this one; docs/delivery.md says which test shows which.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <string>

#include "process.h"
#include "support/sanitized.h"
#include "waymark/error.h"
#include "waymark/telemetry.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::require;

constexpr seconds kLong{60};

class TrapsTest : public ::testing::Test {
 protected:
  TrapsTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "waymark-traps-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    scratch = pattern;
  }
  ~TrapsTest() override {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(state(), error)) {
      std::filesystem::remove_all("/dev/shm/waymark-" + std::to_string(geteuid()) + "/" + entry.path().filename().string());
    }
    std::filesystem::remove_all(scratch);
  }
  [[nodiscard]] std::string state() const { return scratch + "/state"; }
  Config config() {
    Config c = testing::memory_config(memory);
    c.state_directory = state();
    c.recorder.max_bytes = 2 << 20;
    c.diagnostics = DiagnosticLevel::warning;
    c.error_handler = [this](DiagnosticLevel, std::string_view line) {
      const std::scoped_lock lock(mutex);
      said.append(line).append("\n");
    };
    return c;
  }
  std::string scratch;
  testing::MemoryDestination memory;
  std::mutex mutex;
  std::string said;
};

// SIGPIPE of OpenSSL's writes, SIGXFSZ of a file size limit, and the program's own signals: none is for our threads. Faults
// are, since one that is blocked ends the process before anybody can tell of it.
TEST_F(TrapsTest, OurThreadsTakeNoSignalButFaults) {
  std::mutex seen_mutex;
  std::vector<sigset_t> seen;
  const auto look = [&] {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    const std::scoped_lock lock(seen_mutex);
    seen.push_back(mask);
  };
  Config c = config();
  c.on_record = [&](RecordEditor&) {
    look();
    return Verdict::keep;
  };
  for (DestinationConfig& d : c.destinations) {
    d.deliver = [&](Signal, std::string_view) {
      look();
      return DeliveryResult{};
    };
  }
  Telemetry telemetry(c);
  { auto span = telemetry.tracer("t").span("one"); }
  EXPECT_TRUE(telemetry.force_flush(kLong));
  ASSERT_EQ(seen.size(), 2u);
  for (const sigset_t& mask : seen) {
    for (const int blocked : {SIGPIPE, SIGXFSZ, SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGALRM}) EXPECT_TRUE(sigismember(&mask, blocked));
    for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) EXPECT_FALSE(sigismember(&mask, fault));
  }
}

// In a process of its own: a limit can't be raised again.
template <class Body>
void in_a_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_FALSE(WIFSIGNALED(status)) << "ended by " << strsignal(WTERMSIG(status));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void limit_files_to(rlim_t bytes) {
  const rlimit limit{bytes, bytes};
  require(setrlimit(RLIMIT_FSIZE, &limit) == 0, "a limit can be set");
}

TEST_F(TrapsTest, AFileSizeLimitBelowTheRecordersIsNoDeadlySignal) {
  in_a_child([&] {
    limit_files_to(1 << 20);
    try {
      Telemetry telemetry(config());
      { auto span = telemetry.tracer("t").span("one"); }
      require(telemetry.shutdown(kLong) || true, "it ends");
    } catch (const Error& error) {
      require(error.code() == ErrorCode::state_directory, "it says what is wrong");
    }
  });
}

TEST_F(TrapsTest, AFileSizeLimitBelowASegmentsCostsNoRecordThatFits) {
  in_a_child([&] {
    Config c = config();
    for (DestinationConfig& d : c.destinations) d.deliver = [](Signal, std::string_view) { return DeliveryResult{Outcome::retry, 0, "later"}; };
    Telemetry telemetry(c);
    limit_files_to(256 << 10);
    const Logger logger = telemetry.logger("t");
    const std::string text(1000, 'x');
    for (int i = 0; i < 1000; ++i) logger.info(text);
    telemetry.force_flush(milliseconds(200));
    const Stats stats = telemetry.stats();
    for (const DestinationStats& d : stats.destinations) {
      const Counts& n = d.counts;
      require(n.offered == n.delivered + n.rejected + n.dropped + n.filtered + n.pending, "it adds up");
      if (d.signal == Signal::logs) require(n.offered == 1000, "nothing is lost unseen");
    }
    telemetry.shutdown(milliseconds(100));
  });
}

std::size_t kilobytes(const char* what) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(what)) return std::stoul(line.substr(line.find_first_of("0123456789")));
  }
  return 0;
}

// A program that died a thousand times while its backend was down.
TEST_F(TrapsTest, AThousandDeadDirectoriesAreRecoveredWithFewFilesAndLittleMemory) {
  constexpr int kEnded = 980;
  constexpr int kKilled = 20;
  constexpr int kRecords = 10;
  Config cut_off = config();
  cut_off.recorder.max_bytes = 1 << 20;
  cut_off.journal.segment_bytes = 1 << 20;
  for (DestinationConfig& d : cut_off.destinations) {
    d.deliver = [](Signal, std::string_view) { return DeliveryResult{Outcome::retry, 0, "nobody is there"}; };
  }
  {
    Telemetry one(cut_off);
    for (int i = 0; i < kRecords; ++i) one.logger("t").info("ended");
    one.shutdown(milliseconds(1));
    const std::filesystem::path model = one.directory();
    for (int i = 1; i < kEnded; ++i) {
      char name[33];
      std::snprintf(name, sizeof name, "%032x", i);
      std::filesystem::copy(model, std::filesystem::path(state()) / name);
    }
  }
  for (int i = 0; i < kKilled; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      Telemetry doomed(cut_off);
      auto open = doomed.tracer("t").span("open");
      for (int n = 0; n < kRecords; ++n) doomed.logger("t").info("killed");
      raise(SIGKILL);
    }
    waitpid(child, nullptr, 0);
  }
  in_a_child([&] {
    const rlimit few{160, 160};
    require(setrlimit(RLIMIT_NOFILE, &few) == 0, "few files can be opened");
    std::atomic<int> told{0};
    Config c = config();
    c.on_recovered = [&](const Recovered& found) { told += found.interrupted.size() == 1 ? 1 : 0; };
    std::atomic<std::size_t> logs{0};
    std::atomic<std::size_t> spans{0};
    for (DestinationConfig& d : c.destinations) {
      d.deliver = [&](Signal signal, std::string_view request) {
        const ReadTelemetry read = read_request(signal, request);
        logs += read.logs.size();
        spans += read.spans.size();
        return DeliveryResult{};
      };
    }
    Telemetry recoverer(c);
    std::ofstream("/proc/self/clear_refs") << "5";
    const std::size_t before = kilobytes("VmRSS");
    const std::size_t taken = recoverer.recover();
    require(taken == kEnded + kKilled, "all are taken over");
    require(told == kKilled, "what was interrupted is told at once, before it is delivered");
    require(recoverer.force_flush(seconds(120)), "all is delivered");
    const std::size_t peak = kilobytes("VmHWM");
    std::fprintf(stderr, "recovered %zu directories, peak %zu KiB over %zu KiB\n", taken, peak, before);
    require(logs == (kEnded + kKilled) * kRecords, "every log record, once");
    require(spans == kKilled, "every interrupted span, once");
    // A sanitizer keeps what was freed.
    require(testing::kSanitized || peak < before + 128 * 1024, "in little memory");
  });
}

// A program that dies in the midst of its start, over and over: what it leaves behind stays bounded, nothing of it is taken
// for damaged, and all of it arrives.
TEST_F(TrapsTest, ACrashLoopLeavesFewRecordersAndNothingIsSetAside) {
  constexpr int kDeaths = 24;
  Config cut_off = config();
  cut_off.recorder.max_bytes = 1 << 20;
  cut_off.journal.segment_bytes = 1 << 20;
  cut_off.journal.max_bytes = 16 << 20;  // a quarter of it for recorders: four
  cut_off.recover_siblings = true;
  for (DestinationConfig& d : cut_off.destinations) {
    d.deliver = [](Signal, std::string_view) { return DeliveryResult{Outcome::retry, 0, "nobody is there"}; };
  }
  const auto recorders = [&] {
    int count = 0;
    const std::filesystem::path shared = "/dev/shm/waymark-" + std::to_string(geteuid());
    for (const auto& home : std::filesystem::directory_iterator(state())) {
      const std::string id = home.path().filename().string();
      EXPECT_FALSE(id.starts_with("damaged-")) << id;
      count += std::filesystem::exists(home.path() / "recorder") || std::filesystem::exists(shared / id / "recorder") ? 1 : 0;
    }
    return count;
  };
  for (int i = 0; i < kDeaths; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      Telemetry doomed(cut_off);
      auto open = doomed.tracer("t").span("open");
      raise(SIGKILL);
    }
    waitpid(child, nullptr, 0);
    EXPECT_LE(recorders(), 6) << "after " << i + 1;
  }
  std::set<std::uint64_t> told;
  Config c = config();
  c.on_recovered = [&](const Recovered& found) {
    const std::scoped_lock lock(mutex);
    told.insert(found.process_id);
  };
  Telemetry next(c);
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_EQ(memory.spans().size(), static_cast<std::size_t>(kDeaths));
}

// The deaths during whose recovery it is the program that dies are not the directory's fault.
TEST_F(TrapsTest, ADirectoryWhoseRecoverersDiedIsRecoveredBeforeAnythingElse) {
  const pid_t child = fork();
  if (child == 0) {
    Telemetry doomed(config());
    auto open = doomed.tracer("t").span("open");
    raise(SIGKILL);
  }
  waitpid(child, nullptr, 0);
  std::string home;
  for (const auto& entry : std::filesystem::directory_iterator(state())) home = entry.path().string();
  std::ofstream(home + "/attempts") << "9 0";
  Config c = config();
  c.recover_siblings = true;
  bool told = false;
  c.on_recovered = [&](const Recovered& found) { told = found.interrupted.size() == 1; };
  Telemetry next(c);
  EXPECT_TRUE(told) << "the constructor has seen to it";
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_EQ(memory.spans().size(), 1u);
}

TEST_F(TrapsTest, WhatWasSetAsideCountsAmongTheDead) {
  const std::string old = state() + "/damaged-" + std::string(32, 'a');
  std::filesystem::create_directories(old);
  std::filesystem::permissions(state(), std::filesystem::perms::owner_all);
  std::filesystem::permissions(old, std::filesystem::perms::owner_all);
  std::ofstream(old + "/something") << std::string(20 << 20, 'x');
  Config c = config();
  c.journal.segment_bytes = 1 << 20;
  c.journal.max_bytes = 16 << 20;
  Telemetry telemetry(c);
  telemetry.recover();
  EXPECT_FALSE(std::filesystem::exists(old));
  EXPECT_THAT(said, HasSubstr("removed with what could not be recovered"));
}

TEST_F(TrapsTest, DeadDirectoriesTogetherStayWithinTheirBoundWhileTheirBackendIsDown) {
  Config cut_off = config();
  cut_off.journal.segment_bytes = 1 << 20;
  cut_off.journal.max_bytes = 4 << 20;
  cut_off.journal.memory_bytes = 4 << 20;
  for (DestinationConfig& d : cut_off.destinations) {
    d.deliver = [](Signal, std::string_view) { return DeliveryResult{Outcome::retry, 0, "nobody is there"}; };
  }
  const auto size = [&] {
    std::uintmax_t bytes = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(state())) {
      if (entry.is_regular_file()) bytes += entry.file_size();
    }
    return bytes;
  };
  // Each leaves 1 MiB and is taken over by the next, whose backend is as dead.
  for (int i = 0; i < 12; ++i) {
    Telemetry one(cut_off);
    one.recover();
    const std::string text(1000, 'x');
    for (int n = 0; n < 1000; ++n) one.logger("t").info(text);
    one.force_flush(milliseconds(1));
    one.shutdown(milliseconds(1));
  }
  Telemetry last(cut_off);
  last.recover();
  for (const DestinationStats& d : last.stats().destinations) {
    const Counts& n = d.counts;
    EXPECT_EQ(n.offered, n.delivered + n.rejected + n.dropped + n.filtered + n.pending) << d.name;
  }
  // Files are removed by the journals' own threads, which have done so at the end.
  last.shutdown(milliseconds(1));
  EXPECT_LE(size(), cut_off.journal.max_bytes + (1 << 20));
  // Whole directories, or the oldest segments of those that are open.
  EXPECT_THAT(said, AnyOf(HasSubstr("exceed journal.max_bytes"), HasSubstr("of the oldest records were dropped")));
}

}  // namespace
}  // namespace waymark
