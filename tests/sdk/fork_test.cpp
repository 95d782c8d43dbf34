// What becomes of telemetry in a child of fork, and of the parent's meanwhile.
#include <gmock/gmock.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "process.h"
#include "support/sanitized.h"
#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using testing::require;

constexpr seconds kLong{60};

// A child's end, by turns.
enum class End { exits, leaves, crashes };

void end_as(End end) {
  if (end == End::exits) std::exit(0);
  if (end == End::leaves) _exit(0);
  signal(SIGSEGV, SIG_DFL);
  raise(SIGSEGV);
}

void wait_for(pid_t child) {
  int status = 0;
  require(waitpid(child, &status, 0) == child, "the child is ours");
}
void wait_for_success(pid_t child) {
  int status = 0;
  require(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child did well");
}

std::map<std::string, ReadSpan> by_name(const std::vector<ReadSpan>& spans) {
  std::map<std::string, ReadSpan> found;
  for (const ReadSpan& span : spans) EXPECT_TRUE(found.emplace(span.name, span).second) << span.name << " came twice";
  return found;
}

std::set<std::string> texts(const std::vector<ReadLog>& logs) {
  std::set<std::string> found;
  for (const ReadLog& log : logs) EXPECT_TRUE(found.insert(to_text(log.body)).second) << to_text(log.body) << " came twice";
  return found;
}

std::string resource_text(const ReadSpan& span, std::string_view key) {
  const AnyValue* value = find(span.resource, key);
  return value != nullptr ? to_text(*value) : "";
}

class ForkTest : public testing::InAProcess {
 protected:
  void SetUp() override {
    SKIP_IF_NO_FORK_BESIDE_THREADS();
    InAProcess::SetUp();
  }
  // In the process under test. Nothing is sent before the end, so that nothing is sent twice.
  void configure(OnRecord hook = {}) const {
    configure_otel_tracing({.service = "forks",
                            .endpoint = file("spans"),
                            .export_interval = std::chrono::hours(1),
                            .lossy = false,
                            .on_record = std::move(hook)});
    configure_otel_logging(
        {.service = "forks", .endpoint = file("logs"), .export_interval = std::chrono::hours(1), .lossy = false});
  }
  [[nodiscard]] std::size_t homes() const {
    std::error_code none;
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_ / "state", none)) ++count;
    return count;
  }
};

TEST_F(ForkTest, ParentAndChildGoOnEachWithItsOwn) {
  IN_A_PROCESS({
    configure();
    const Tracer tracer = waymark::tracer("t");
    const Logger logger = waymark::logger("t");
    auto open = tracer.span("open at the fork");
    DetachedSpan detached = tracer.start_span("detached at the fork");
    logger.info("before");
    const pid_t child = fork();
    if (child == 0) {
      require(!open.recording() && !detached.recording() && !current_span().recording(), "inherited spans are inert");
      open.set("from", "the child");
      detached.event("from the child");
      detached.end();
      require(tracer.enabled() && logger.enabled(Severity::info), "handles work");
      { auto own = tracer.span("child's"); }
      logger.info("child's");
      open.end();
      std::exit(0);
    }
    wait_for_success(child);
    open.set("from", "the parent");
    { auto own = tracer.span("parent's"); }
    logger.info("parent's");
    open.end();
    detached.end();
  });
  const auto spans = by_name(read("spans").spans);
  ASSERT_THAT(spans, SizeIs(4));
  EXPECT_EQ(find_string(spans.at("open at the fork").attributes, "from"), "the parent");
  EXPECT_THAT(spans.at("detached at the fork").events, IsEmpty());
  EXPECT_EQ(spans.at("child's").parent, spans.at("open at the fork").context.span_id) << "the trace goes through";
  EXPECT_NE(resource_text(spans.at("child's"), "process.pid"), resource_text(spans.at("parent's"), "process.pid"));
  EXPECT_NE(resource_text(spans.at("child's"), "service.instance.id"),
            resource_text(spans.at("parent's"), "service.instance.id"));
  EXPECT_EQ(resource_text(spans.at("child's"), "service.name"), "forks");
  EXPECT_THAT(texts(read("logs").logs), UnorderedElementsAre("before", "parent's", "child's"));
}

TEST_F(ForkTest, AGivenInstanceIdStays) {
  IN_A_PROCESS({
    configure_otel_tracing({.service = {{"service.name", "forks"}, {"service.instance.id", "seven"}}, .endpoint = file("spans")});
    const pid_t child = fork();
    if (child == 0) {
      { auto own = tracer("t").span("child's"); }
      std::exit(0);
    }
    wait_for_success(child);
  });
  EXPECT_EQ(resource_text(by_name(read("spans").spans).at("child's"), "service.instance.id"), "seven");
}

TEST_F(ForkTest, AChildThatNeverRecordsHasNothingAndSaysNothing) {
  IN_A_PROCESS_THAT_SAYS("^$", {
    configure();
    const pid_t child = fork();
    if (child == 0) {
      require(force_flush(seconds(1)), "there is nothing to flush");
      require(homes() == 1, "only the parent's directory is there");
      require(stats().destinations.empty(), "there is nothing to count");
      std::exit(0);
    }
    wait_for_success(child);
  });
}

TEST_F(ForkTest, AChildThatWasShutDownStaysSo) {
  IN_A_PROCESS({
    configure();
    const Tracer tracer = waymark::tracer("t");
    const pid_t child = fork();
    if (child == 0) {
      require(waymark::shutdown(seconds(1)), "nothing is left");
      { auto own = tracer.span("child's"); }
      require(!tracer.enabled(), "it is over");
      std::exit(0);
    }
    wait_for_success(child);
    { auto own = tracer.span("parent's"); }
    require(waymark::shutdown(kLong), "all is delivered");
    const pid_t late = fork();
    if (late == 0) {
      { auto own = tracer.span("late"); }
      require(!tracer.enabled(), "what its parent had ended does not begin again");
      std::exit(0);
    }
    wait_for_success(late);
  });
  const auto spans = by_name(read("spans").spans);
  EXPECT_THAT(spans, SizeIs(1));
  EXPECT_TRUE(spans.contains("parent's"));
}

TEST_F(ForkTest, AChildMayConfigureMore) {
  IN_A_PROCESS({
    configure();
    const pid_t child = fork();
    if (child == 0) {
      configure_otel_tracing({.service = "forks", .endpoint = file("more"), .export_interval = std::chrono::hours(1)});
      { auto own = tracer("child only").span("child's"); }
      require(stats().destinations.size() == 3, "its parent's, and one of its own");
      std::exit(0);
    }
    wait_for_success(child);
    require(stats().destinations.size() == 2, "the parent's are as they were");
  });
  EXPECT_TRUE(by_name(read("more").spans).contains("child's"));
  EXPECT_TRUE(by_name(read("spans").spans).contains("child's"));
}

TEST_F(ForkTest, AChildOfAChildIsAProcessLikeAnyOther) {
  IN_A_PROCESS({
    configure();
    const Tracer tracer = waymark::tracer("t");
    { auto span = tracer.span("0"); }
    // The first two have recorded when they fork, the third has not.
    for (int depth = 1; depth <= 4; ++depth) {
      const pid_t child = fork();
      if (child != 0) {
        wait_for_success(child);
        std::exit(0);
      }
      if (depth != 3) { auto span = tracer.span(std::to_string(depth)); }
    }
  });
  const auto spans = by_name(read("spans").spans);
  std::set<std::string> processes;
  for (const auto& [name, span] : spans) processes.insert(resource_text(span, "process.pid"));
  EXPECT_THAT(spans, SizeIs(4));
  EXPECT_THAT(processes, SizeIs(4));
}

// The parent's threads record at full speed while it forks; its children end in every way.
TEST_F(ForkTest, AHundredForksWhileThreadsRecordLoseNothingAndDoubleNothing) {
  constexpr int kForks = 100;
  constexpr int kThreads = 3;
  constexpr int kEach = 100;   // spans, and as many logs, of each thread around each fork
  constexpr int kOfChild = 20;
  IN_A_PROCESS({
    configure();
    const Tracer tracer = waymark::tracer("t");
    const Logger logger = waymark::logger("t");
    std::atomic<int> granted{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int round = 0; round < kForks; ++round) {
          granted.wait(round);
          for (int n = 0; n < kEach; ++n) {
            const std::string name = "p" + std::to_string(t) + "." + std::to_string(round * kEach + n);
            auto span = tracer.span(name, {{"n", n}});
            span.event("recorded");
            logger.info(name);
          }
        }
      });
    }
    std::vector<pid_t> children;
    for (int round = 0; round < kForks; ++round) {
      auto around = tracer.span("around." + std::to_string(round));
      granted.fetch_add(1);
      granted.notify_all();
      const pid_t child = fork();
      if (child == 0) {
        const auto record = [&](const std::string& who) {
          for (int n = 0; n < kOfChild; ++n) {
            const std::string name = who + std::to_string(round) + "." + std::to_string(n);
            auto span = tracer.span(name);
            logger.info(name);
          }
        };
        record("c");
        if (round % 3 == 2) {
          const pid_t grandchild = fork();
          if (grandchild == 0) {
            record("g");
            end_as(static_cast<End>(round / 3 % 3));
          }
          wait_for(grandchild);
        }
        end_as(static_cast<End>(round % 3));
      }
      require(child > 0, "it can fork");
      children.push_back(child);
      // So that no more than a few live at a time: each has a recorder of its own.
      if (children.size() >= 4) {
        wait_for(children.front());
        children.erase(children.begin());
      }
    }
    for (std::thread& thread : threads) thread.join();
    for (const pid_t child : children) wait_for(child);
    telemetry().recover();
    require(force_flush(kLong), "all is delivered");
  });
  const auto spans = by_name(read("spans").spans);
  const auto logs = texts(read("logs").logs);
  std::set<std::string> wanted;
  for (int round = 0; round < kForks; ++round) {
    for (int n = 0; n < kOfChild; ++n) {
      wanted.insert("c" + std::to_string(round) + "." + std::to_string(n));
      if (round % 3 == 2) wanted.insert("g" + std::to_string(round) + "." + std::to_string(n));
    }
    for (int n = round * kEach; n < (round + 1) * kEach; ++n) {
      for (int t = 0; t < kThreads; ++t) wanted.insert("p" + std::to_string(t) + "." + std::to_string(n));
    }
  }
  EXPECT_EQ(logs.size(), wanted.size());
  EXPECT_TRUE(logs == wanted);
  EXPECT_EQ(spans.size(), wanted.size() + kForks);
  std::set<std::string> ids;
  for (const auto& [name, span] : spans) {
    EXPECT_TRUE(name.starts_with("around.") || wanted.contains(name)) << name;
    ids.insert(span.context.span_id.hex());
    if (name.starts_with("c")) {
      const std::string around = "around." + name.substr(1, name.find('.') - 1);
      EXPECT_EQ(span.parent, spans.at(around).context.span_id) << name;
    }
  }
  EXPECT_EQ(ids.size(), spans.size()) << "an id was drawn twice";
}

TEST_F(ForkTest, AForkInTheHookThatReturnsEndsTheChildThere) {
  IN_A_PROCESS({
    static std::atomic<bool> forked{false};
    configure([](RecordEditor&) {
      if (forked.exchange(true)) return Verdict::keep;
      const pid_t child = fork();
      if (child > 0) wait_for_success(child);
      return Verdict::keep;  // in the child: on the collector's thread, over the parent's ring
    });
    for (int n = 0; n < 10; ++n) { auto span = tracer("t").span(std::to_string(n)); }
    require(force_flush(kLong), "all is delivered");
    require(forked, "it has forked");
  });
  EXPECT_THAT(by_name(read("spans").spans), SizeIs(10));
}

TEST_F(ForkTest, AChildThatIsForkedInTheHookMayRecordBeforeItEnds) {
  IN_A_PROCESS({
    static std::atomic<bool> forked{false};
    configure([](RecordEditor&) {
      if (forked.exchange(true)) return Verdict::keep;
      const pid_t child = fork();
      if (child > 0) wait_for_success(child);
      if (child == 0) { auto own = tracer("t").span("child's"); }
      return Verdict::keep;
    });
    { auto span = tracer("t").span("parent's"); }
    require(force_flush(kLong), "all is delivered");
  });
  EXPECT_THAT(by_name(read("spans").spans), SizeIs(2));
}

// No atfork handler runs for _Fork: the page that the kernel wipes tells.
TEST_F(ForkTest, AProcessThatCameWithoutAtforkHandlersIsNoticed) {
  IN_A_PROCESS({
    configure();
    const Tracer tracer = waymark::tracer("t");
    auto open = tracer.span("open at the fork");
    const TraceId drawn = TraceId::random();
    const pid_t child = _Fork();
    if (child == 0) {
      require(!open.recording(), "inherited spans are inert");
      { auto own = tracer.span("child's"); }
      require(TraceId::random() != drawn, "ids are the child's own");
      require(force_flush(kLong), "delivered");
      _exit(0);
    }
    wait_for_success(child);
    { auto own = tracer.span("parent's"); }
  });
  const auto spans = by_name(read("spans").spans);
  ASSERT_THAT(spans, SizeIs(3));
  EXPECT_NE(spans.at("parent's").context.span_id, spans.at("child's").context.span_id);
  EXPECT_NE(resource_text(spans.at("child's"), "process.pid"), resource_text(spans.at("parent's"), "process.pid"));
}

TEST_F(ForkTest, WhatIsStartedByPosixSpawnInheritsNoDescriptor) {
  const std::string listed = directory_ / "fds";
  IN_A_PROCESS({
    configure();
    { auto span = tracer("t").span("recorded"); }
    require(force_flush(kLong), "all files are open");
    // The shell's own: 0, 1, 2, and the directory that `ls` reads.
    const std::string command = "ls -l /proc/self/fd > " + listed;
    const char* const arguments[] = {"sh", "-c", command.c_str(), nullptr};
    pid_t child = 0;
    require(posix_spawn(&child, "/bin/sh", nullptr, nullptr, const_cast<char**>(arguments), environ) == 0, "spawned");
    wait_for_success(child);
    { auto span = tracer("t").span("recorded behind it"); }
  });
  const std::string descriptors = testing::contents(listed);
  EXPECT_THAT(descriptors, HasSubstr("/proc/"));
  for (const char* ours : {"state/", "/dev/shm/", "inotify", "eventfd", "memfd", "spans", "logs"}) {
    EXPECT_EQ(testing::times(descriptors, ours), 0u) << descriptors;
  }
  EXPECT_THAT(by_name(read("spans").spans), SizeIs(2));
}

// ---- beside a living Telemetry

class ForkBesideTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_IF_NO_FORK_BESIDE_THREADS(); }
  ForkBesideTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "waymark-fork-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    scratch = pattern;
  }
  ~ForkBesideTest() override {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(scratch + "/state", error)) {
      std::filesystem::remove_all("/dev/shm/waymark-" + std::to_string(geteuid()) + "/" + entry.path().filename().string());
    }
    std::filesystem::remove_all(scratch);
  }
  Config config(testing::MemoryDestination& to) {
    Config c = testing::memory_config(to);
    c.state_directory = scratch + "/state";
    c.recorder.max_bytes = 2 << 20;
    return c;
  }
  std::string scratch;
};

TEST_F(ForkBesideTest, SeveralTelemetriesBeginAgainEachForItself) {
  testing::MemoryDestination first_memory;
  testing::MemoryDestination second_memory;
  Telemetry first(config(first_memory));
  Telemetry second(config(second_memory));
  const Tracer one = first.tracer("one");
  const Tracer two = second.tracer("two");
  const std::string directory = first.directory();
  const pid_t child = fork();
  if (child == 0) {
    { auto span = one.span("to one"); }
    require(first.force_flush(kLong), "delivered");
    { auto span = two.span("to two"); }
    require(second.force_flush(kLong), "delivered");
    require(first_memory.spans().size() == 1 && first_memory.spans()[0].name == "to one", "one gets its own");
    require(second_memory.spans().size() == 1 && second_memory.spans()[0].name == "to two", "two gets its own");
    require(first.directory() != directory && first.directory() != second.directory(), "each has its directory");
    require(first.shutdown(kLong) && second.shutdown(kLong), "each ends");
    _exit(0);
  }
  wait_for_success(child);
  EXPECT_TRUE(first.force_flush(kLong));
  EXPECT_THAT(first_memory.spans(), IsEmpty());
  EXPECT_EQ(first.directory(), directory);
}

// The lock's descriptor is closed in the child: while it were open there, nobody would hear of the parent's end.
TEST_F(ForkBesideTest, ALivingChildDoesNotHideItsDeadParentFromASibling) {
  testing::MemoryDestination memory;
  Config c = config(memory);
  c.recover_siblings = true;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::uint64_t> dead;
  c.on_recovered = [&](const Recovered& found) {
    const std::scoped_lock lock(mutex);
    dead.push_back(found.process_id);
    changed.notify_all();
  };
  // They share a pipe: the grandchild lives until its reading end is told to let go.
  int to_end[2];
  ASSERT_EQ(pipe(to_end), 0);
  Telemetry sibling(c);
  const pid_t parent = fork();
  if (parent == 0) {
    testing::MemoryDestination none;
    Telemetry own(config(none));
    auto open = own.tracer("t").span("open when its process dies");
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      ::close(to_end[1]);
      char byte;
      _exit(read(to_end[0], &byte, 1) < 0 ? 1 : 0);
    }
    raise(SIGKILL);
  }
  ::close(to_end[0]);
  wait_for(parent);
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, kLong, [&] { return !dead.empty(); })) << "nobody heard of its end";
    EXPECT_THAT(dead, ElementsAre(static_cast<std::uint64_t>(parent)));
  }
  EXPECT_TRUE(sibling.force_flush(kLong));
  ASSERT_THAT(memory.spans(), SizeIs(1));
  EXPECT_EQ(memory.spans()[0].name, "open when its process dies");
  ::close(to_end[1]);
}

}  // namespace
}  // namespace waymark
