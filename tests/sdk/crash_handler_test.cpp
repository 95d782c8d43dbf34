// What is known of a process that crashed: real ones, each a child of this one, recovered here.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <latch>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "sdk/process.h"
#include "support/sanitized.h"
#include "waymark/configure.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

using namespace waymark::testing;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::KilledBySignal;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

// The child dies of this signal in the midst of what it is told to do.
#define DIES_OF(signal, ...) \
  EXPECT_EXIT({ ([&] { __VA_ARGS__; }()); std::_Exit(0); }, KilledBySignal(signal), "")
#define EXITS_WITH(code, ...) \
  EXPECT_EXIT({ ([&] { __VA_ARGS__; }()); std::_Exit(0); }, ::testing::ExitedWithCode(code), "")

// What a child does before it crashes.
void start(const std::function<void(TracingOptions&)>& change = {}) {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  install_crash_handler();
  TracingOptions tracing{.service = "victim", .endpoint = "http://127.0.0.1:9", .name = "sink"};
  if (change) change(tracing);
  configure_otel_tracing(tracing);
  configure_otel_logging({.service = "victim", .endpoint = "http://127.0.0.1:9", .name = "sink"});
}

// Kept from the compiler's eyes: what is wrong with these must happen when it runs.
std::uintptr_t hidden(std::uintptr_t value) {
  volatile std::uintptr_t kept = value;
  return kept;
}
// UBSan would say so first.
[[gnu::noinline, gnu::no_sanitize("undefined")]] void write_to(std::uintptr_t address) { *reinterpret_cast<volatile int*>(address) = 1; }
[[gnu::noinline, gnu::no_sanitize("undefined")]] int divide(int by) { return 7 / by; }
[[gnu::noinline]] void follow_null() { write_to(hidden(0)); }
[[gnu::noinline, gnu::no_sanitize("undefined")]] void call_null() {
  const auto nowhere = reinterpret_cast<void (*)()>(hidden(0));
  nowhere();
  asm volatile("");  // not its last act: the call must be a call
}
// Returns memory that no file stands behind any more.
void* behind_the_file(const std::string& path) {
  std::ofstream(path) << std::string(8192, 'x');
  const int file = open(path.c_str(), O_RDWR);
  void* memory = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  require(memory != MAP_FAILED && ftruncate(file, 0) == 0, "a mapping without a file");
  return memory;
}
[[gnu::noinline]] std::size_t overflow(std::size_t depth) {
  volatile char room[4096];
  if (hidden(depth) == SIZE_MAX) return depth;
  room[depth % sizeof room] = 1;
  return overflow(depth + 1) + static_cast<std::size_t>(room[0]);
}

class CrashHandlerTest : public InAProcess {
 protected:
  void SetUp() override {
    InAProcess::SetUp();
    if (!owner_) return;
    // A sanitizer must leave the children's crashes to them.
    const std::string leave = "handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:handle_abort=0:"
                              "use_sigaltstack=0:allocator_may_return_null=1";
    for (const char* options : {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
      const char* known = std::getenv(options);
      setenv(options, (std::string(known != nullptr ? known : "") + ":" + leave).c_str(), 1);
    }
  }

  struct Found {
    Recovered report;
    std::vector<ReadSpan> spans;
    std::vector<ReadLog> logs;
    std::vector<std::string> said;

    [[nodiscard]] const ReadSpan* span(std::string_view name) const {
      for (const ReadSpan& s : spans) {
        if (s.name == name) return &s;
      }
      return nullptr;
    }
    [[nodiscard]] const InterruptedSpan* interrupted(std::string_view name) const {
      for (const InterruptedSpan& s : report.interrupted) {
        if (s.name == name) return &s;
      }
      return nullptr;
    }
    // The attribute of the exception event of that span; "-" where it has no such event.
    [[nodiscard]] std::string exception(std::string_view name, std::string_view key) const {
      const ReadSpan* s = span(name);
      if (s == nullptr) return "no such span";
      std::string text = "-";
      std::size_t events = 0;
      for (const ReadEvent& event : s->events) {
        if (event.name != "exception") continue;
        ++events;
        text = find_string(event.attributes, key);
      }
      return events > 1 ? "several" : text;
    }
  };

  // What the child left, delivered here.
  Found recovered(const std::string& state = "state") {
    Found found;
    MemoryDestination memory;
    Config config = memory_config(memory);
    config.destinations = {memory.destination(Signal::traces, "sink"), memory.destination(Signal::logs, "sink")};
    config.state_directory = directory_ / state;
    std::mutex mutex;
    std::vector<Recovered> reports;
    config.on_recovered = [&](const Recovered& report) {
      const std::scoped_lock lock(mutex);
      reports.push_back(report);
    };
    config.error_handler = [&](DiagnosticLevel, std::string_view line) {
      const std::scoped_lock lock(mutex);
      found.said.emplace_back(line);
    };
    {
      Telemetry telemetry(config);
      telemetry.recover();
      EXPECT_TRUE(telemetry.force_flush(std::chrono::seconds(60)));
      found.spans = memory.spans();
      found.logs = memory.logs();
      for (const DestinationStats& to : telemetry.stats().destinations) {
        const Counts& c = to.counts;
        EXPECT_EQ(c.offered, c.delivered + c.rejected + c.dropped + c.filtered + c.pending) << to.name;
        EXPECT_EQ(c.pending, 0u);
      }
    }
    EXPECT_THAT(reports, SizeIs(1));
    if (!reports.empty()) found.report = reports[0];
    return found;
  }
};

TEST_F(CrashHandlerTest, ASegmentationFaultIsToldByTheSpanThatItInterrupted) {
  DIES_OF(SIGSEGV, {
    start();
    auto task = tracer("test").span("task");
    task.set("index", 7);
    auto inner = tracer("test").span("read_bands");
    follow_null();
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("read_bands", "exception.type"), "SIGSEGV");
  EXPECT_EQ(found.exception("read_bands", "exception.message"), "SIGSEGV: address not mapped at 0x0");
  EXPECT_EQ(found.exception("task", "exception.type"), "-") << "the innermost span of the thread has it";
  const std::string stack = found.exception("read_bands", "exception.stacktrace");
  EXPECT_THAT(stack, StartsWith("#0 "));
  EXPECT_THAT(stack, HasSubstr("(sdk_test+0x")) << "the file and the offset in it";
#ifdef WAYMARK_HAS_LIBDW
  EXPECT_THAT(stack, ContainsRegex("^#0 [^\n]*write_to\\(unsigned long\\) at [^\n]*crash_handler_test.cpp:[0-9]+ "));
  EXPECT_THAT(stack, ContainsRegex("\n#1 [^\n]*follow_null\\(\\) at [^\n]*crash_handler_test.cpp:[0-9]+ "));
#endif
  for (const char* name : {"task", "read_bands"}) {
    const ReadSpan* span = found.span(name);
    ASSERT_NE(span, nullptr);
    EXPECT_EQ(span->status, StatusCode::error);
    EXPECT_EQ(to_text(*find(span->attributes, "workflow.interrupted")), "true");
    ASSERT_NE(found.interrupted(name), nullptr);
    EXPECT_TRUE(found.interrupted(name)->crashed_here);
  }
  EXPECT_EQ(found.span("read_bands")->status_message, "interrupted by SIGSEGV: address not mapped at 0x0");
  EXPECT_EQ(to_text(*find(found.span("task")->attributes, "index")), "7");
  const ReadEvent& event = found.span("read_bands")->events.at(0);
  EXPECT_LE(found.span("read_bands")->start, event.time);
  EXPECT_GE(found.span("read_bands")->end, event.time) << "it was alive when it crashed";

  EXPECT_EQ(found.report.crash.signal, "SIGSEGV");
  EXPECT_EQ(found.report.crash.message, "SIGSEGV: address not mapped at 0x0");
  EXPECT_EQ(found.report.crash.stack, stack);
  EXPECT_EQ(found.report.crash.time, event.time);
  EXPECT_EQ(found.report.crash.thread_id, found.interrupted("task")->thread_id);
  EXPECT_THAT(found.said, ::testing::Contains(HasSubstr("; it died of SIGSEGV: address not mapped at 0x0")));
  EXPECT_THAT(found.logs, IsEmpty()) << "the span tells it";
}

struct Deadly {
  int signal;
  const char* name;
  const char* message;  // a regular expression
  void (*crash)(const std::string& scratch);
};
std::ostream& operator<<(std::ostream& out, const Deadly& deadly) { return out << deadly.name; }

class DeadlySignalTest : public CrashHandlerTest, public ::testing::WithParamInterface<Deadly> {};

TEST_P(DeadlySignalTest, IsToldAndTakesItsCourse) {
  const Deadly deadly = GetParam();
  DIES_OF(deadly.signal, {
    start();
    auto span = tracer("test").span("work");
    deadly.crash(directory_ / "scratch");
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("work", "exception.type"), std::string(deadly.name).substr(0, 7).substr(0, std::string(deadly.name).find('_')));
  EXPECT_THAT(found.exception("work", "exception.message"), MatchesRegex(deadly.message));
  EXPECT_THAT(found.exception("work", "exception.stacktrace"), HasSubstr("(sdk_test+0x"));
  EXPECT_TRUE(found.interrupted("work") != nullptr && found.interrupted("work")->crashed_here);
}

INSTANTIATE_TEST_SUITE_P(
    Signals, DeadlySignalTest,
    ::testing::Values(
        Deadly{SIGSEGV, "SIGSEGV", "SIGSEGV: address not mapped at 0x10", [](const std::string&) { write_to(hidden(16)); }},
        Deadly{SIGSEGV, "SIGSEGV_read_only", "SIGSEGV: access not permitted at 0x[0-9a-f]+",
               [](const std::string&) { write_to(reinterpret_cast<std::uintptr_t>(&write_to)); }},
        Deadly{SIGSEGV, "SIGSEGV_no_address", "SIGSEGV: access to an address that can't exist",
               [](const std::string&) { write_to(hidden(0x1234567890abcdef)); }},
        Deadly{SIGBUS, "SIGBUS", "SIGBUS: nothing behind the mapping at 0x[0-9a-f]+",
               [](const std::string& scratch) { write_to(reinterpret_cast<std::uintptr_t>(behind_the_file(scratch))); }},
        Deadly{SIGILL, "SIGILL", "SIGILL: (illegal operand|illegal instruction) at 0x[0-9a-f]+",
               [](const std::string&) { __builtin_trap(); }},
        Deadly{SIGFPE, "SIGFPE", "SIGFPE: integer divided by zero at 0x[0-9a-f]+",
               [](const std::string&) { std::printf("%d", divide(static_cast<int>(hidden(0)))); }},
        Deadly{SIGABRT, "SIGABRT", "SIGABRT: the program aborted", [](const std::string&) { std::abort(); }},
        Deadly{SIGSEGV, "SIGSEGV_raised", "SIGSEGV: sent by the program itself",
               [](const std::string&) {
                 raise(SIGSEGV);
               }},
        Deadly{SIGFPE, "SIGFPE_raised", "SIGFPE: sent by the program itself",
               [](const std::string&) {
                 raise(SIGFPE);
               }},
        Deadly{SIGBUS, "SIGBUS_killed", "SIGBUS: sent by process [0-9]+",
               [](const std::string&) {
                 const pid_t target = getpid();
                 if (_Fork() == 0) {  // not fork(): a sanitizer's handlers may hang in the child
                   // To this thread: one that is sent to a process may reach any of its threads.
                   syscall(SYS_tgkill, target, target, SIGBUS);
                   _exit(0);
                 }
                 for (;;) pause();
               }}),
    [](const auto& which) { return which.param.name; });

TEST_F(CrashHandlerTest, AnUncaughtExceptionIsAnAbort) {
  DIES_OF(SIGABRT, {
    start();
    std::thread([] {
      auto span = tracer("test").span("work");
      throw std::runtime_error("nobody catches this");
    }).join();
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("work", "exception.type"), "SIGABRT");
  EXPECT_THAT(found.exception("work", "exception.stacktrace"), HasSubstr("libstdc++"));
}

TEST_F(CrashHandlerTest, AnExitWithOpenSpansTellsOfNoCrash) {
  EXITS_WITH(3, {
    start();
    auto span = tracer("test").span("work");
    _exit(3);
  });
  const Found found = recovered();
  EXPECT_EQ(found.report.crash.signal, "");
  EXPECT_EQ(found.exception("work", "exception.type"), "-");
  EXPECT_FALSE(found.interrupted("work")->crashed_here);
  EXPECT_EQ(found.span("work")->status_message, "interrupted: the process ended before the span did");
  EXPECT_THAT(found.logs, IsEmpty());
}

TEST_F(CrashHandlerTest, AKillTellsOfNoCrash) {
  DIES_OF(SIGKILL, {
    start();
    auto span = tracer("test").span("work");
    raise(SIGKILL);
  });
  const Found found = recovered();
  EXPECT_EQ(found.report.crash.signal, "");
  EXPECT_EQ(found.exception("work", "exception.type"), "-");
}

// The memory cgroup of this process, where processes that take too much are killed together; empty where there is none.
struct MemoryGroup {
  std::string path;
  const char* limit = "";  // the name of its setting
};
MemoryGroup memory_group() {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::string name = line.substr(line.rfind(':') + 1);
    if (line.find(":memory:") != std::string::npos) return {"/sys/fs/cgroup/memory" + name, "memory.limit_in_bytes"};
    if (line.starts_with("0::") && std::filesystem::exists("/sys/fs/cgroup" + name + "/memory.max")) {
      return {"/sys/fs/cgroup" + name, "memory.max"};
    }
  }
  return {};
}

TEST_F(CrashHandlerTest, TheKernelsKillForWantOfMemoryTellsOfNoCrashAndLosesNothing) {
  const MemoryGroup group = memory_group();
  const std::string own = group.path + "/" + directory_.filename().string();
  if (owner_ && (group.path.empty() || mkdir(own.c_str(), 0700) != 0)) {
    GTEST_SKIP() << "this machine lets nobody make a memory cgroup";
  }
  if (owner_ && !(std::ofstream(own + "/" + group.limit) << (kSanitized ? "1073741824" : "268435456") << std::flush)) {
    rmdir(own.c_str());
    GTEST_SKIP() << "this machine lets nobody limit a cgroup's memory";
  }
  DIES_OF(SIGKILL, {
    require(static_cast<bool>(std::ofstream(own + "/cgroup.procs") << 0 << std::flush), "the child joins it");
    start();
    { auto span = tracer("test").span("finished"); }
    auto span = tracer("test").span("work");
    for (;;) {
      constexpr std::size_t kPiece = 4 << 20;
      void* memory = mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      require(memory != MAP_FAILED, "addresses are left");
      std::memset(memory, 1, kPiece);
    }
  });
  const Found found = recovered();
  EXPECT_NE(found.span("finished"), nullptr);
  EXPECT_EQ(to_text(*find(found.span("work")->attributes, "workflow.interrupted")), "true");
  EXPECT_EQ(found.report.crash.signal, "");
  // Once what the child had on tmpfs is gone, and its end is known there.
  for (int i = 0; i < 1000 && rmdir(own.c_str()) != 0 && errno == EBUSY; ++i) sched_yield();
}

TEST_F(CrashHandlerTest, AStackThatRanOutIsToldFromAnother) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's frames are too large to fill the stack in time";
  DIES_OF(SIGSEGV, {
    start();
    std::thread([] {
      auto span = tracer("test").span("work");
      std::printf("%zu", overflow(hidden(0)));
    }).join();
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("work", "exception.type"), "SIGSEGV");
  const std::string stack = found.exception("work", "exception.stacktrace");
  EXPECT_THAT(stack, HasSubstr("\n#63 ")) << "as much as there is room for";
  EXPECT_THAT(stack, Not(HasSubstr("\n#64 ")));
}

TEST_F(CrashHandlerTest, TheMainThreadsStackThatRanOutIsToldToo) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's frames are too large to fill the stack in time";
  DIES_OF(SIGSEGV, {
    start();
    auto span = tracer("test").span("work");
    std::printf("%zu", overflow(hidden(0)));
  });
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGSEGV");
}

TEST_F(CrashHandlerTest, ACallOfANullPointerIsToldWithItsCaller) {
  DIES_OF(SIGSEGV, {
    start();
    auto span = tracer("test").span("work");
    call_null();
  });
  const std::string stack = recovered().exception("work", "exception.stacktrace");
  EXPECT_THAT(stack, StartsWith("#0 0x0\n#1 "));
#ifdef WAYMARK_HAS_LIBDW
  EXPECT_THAT(stack, ContainsRegex("\n#1 [^\n]*call_null\\(\\)"));
#endif
  EXPECT_THAT(stack, HasSubstr("\n#3 ")) << "and all that called it";
}

TEST_F(CrashHandlerTest, OfSeveralThreadsTheOneThatCrashedHasTheEvent) {
  DIES_OF(SIGSEGV, {
    start();
    std::latch open(2);
    std::thread bystander([&] {
      auto span = tracer("test").span("bystander");
      open.count_down();
      for (;;) pause();
    });
    std::thread guilty([&] {
      auto span = tracer("test").span("guilty");
      open.arrive_and_wait();
      follow_null();
    });
    guilty.join();
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("guilty", "exception.type"), "SIGSEGV");
  EXPECT_TRUE(found.interrupted("guilty")->crashed_here);
  EXPECT_EQ(found.exception("bystander", "exception.type"), "-");
  EXPECT_FALSE(found.interrupted("bystander")->crashed_here);
  EXPECT_EQ(to_text(*find(found.span("bystander")->attributes, "workflow.interrupted")), "true");
}

TEST_F(CrashHandlerTest, OfThreadsThatCrashAtOnceOneIsTold) {
  DIES_OF(SIGSEGV, {
    start();
    std::latch open(8);
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        auto span = tracer("test").span("work " + std::to_string(i));
        open.arrive_and_wait();
        follow_null();
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  const Found found = recovered();
  ASSERT_THAT(found.report.interrupted, SizeIs(8));
  std::size_t told = 0;
  for (const InterruptedSpan& span : found.report.interrupted) {
    const bool has = found.exception(span.name, "exception.type") == "SIGSEGV";
    EXPECT_EQ(has, span.crashed_here);
    told += has ? 1 : 0;
  }
  EXPECT_EQ(told, 1u);
}

TEST_F(CrashHandlerTest, ACrashOutsideOfAllSpansIsALogRecord) {
  DIES_OF(SIGSEGV, {
    start();
    auto span = tracer("test").span("elsewhere");
    std::thread(follow_null).join();
  });
  const Found found = recovered();
  EXPECT_EQ(found.report.crash.message, "SIGSEGV: address not mapped at 0x0");
  EXPECT_EQ(found.exception("elsewhere", "exception.type"), "-");
  EXPECT_FALSE(found.interrupted("elsewhere")->crashed_here);
  ASSERT_THAT(found.logs, SizeIs(1));
  const ReadLog& log = found.logs[0];
  EXPECT_EQ(log.event_name, "process.crashed");
  EXPECT_EQ(log.severity, static_cast<std::uint8_t>(Severity::critical));
  EXPECT_EQ(to_text(log.body), "SIGSEGV: address not mapped at 0x0");
  EXPECT_EQ(find_string(log.attributes, "exception.type"), "SIGSEGV");
  EXPECT_EQ(find_string(log.attributes, "exception.stacktrace"), found.report.crash.stack);
  EXPECT_EQ(find_string(log.resource, "service.name"), "victim");
  EXPECT_EQ(log.time, found.report.crash.time);
}

// ---- what else the program has to do with these signals

std::atomic<const char*> note_path{nullptr};
void note(const char* text) {
  const int file = open(note_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (write(file, text, std::strlen(text)) < 0) _exit(9);
  close(file);
}

TEST_F(CrashHandlerTest, AnEarlierHandlerIsCalledWithWhatTheKernelSaid) {
  DIES_OF(SIGSEGV, {
    const std::string path = directory_ / "note";
    note_path = path.c_str();
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int signal, siginfo_t* info, void* context) {
      if (signal == SIGSEGV && info->si_addr == nullptr && info->si_code == SEGV_MAPERR && context != nullptr) note("called");
      ::signal(SIGSEGV, SIG_DFL);
    };
    sigaction(SIGSEGV, &action, nullptr);
    start();
    auto span = tracer("test").span("work");
    follow_null();
  });
  EXPECT_EQ(contents(directory_ / "note"), "called");
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGSEGV");
}

TEST_F(CrashHandlerTest, AnEarlierHandlerOfAbortMayReturn) {
  DIES_OF(SIGABRT, {
    const std::string path = directory_ / "note";
    note_path = path.c_str();
    ::signal(SIGABRT, [](int) { note("called"); });
    start();
    auto span = tracer("test").span("work");
    std::abort();
  });
  EXPECT_EQ(contents(directory_ / "note"), "called");
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGABRT");
}

TEST_F(CrashHandlerTest, AnEarlierHandlerForOneCallIsCalledOnce) {
  DIES_OF(SIGSEGV, {
    const std::string path = directory_ / "note";
    note_path = path.c_str();
    struct sigaction action {};
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    action.sa_handler = [](int) { note("called"); };
    sigaction(SIGSEGV, &action, nullptr);
    start();
    auto span = tracer("test").span("work");
    follow_null();
  });
  EXPECT_EQ(contents(directory_ / "note"), "called");
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGSEGV");
}

void* repaired = nullptr;

TEST_F(CrashHandlerTest, AFaultThatAnEarlierHandlerRepairsIsNoCrash) {
  DIES_OF(SIGKILL, {
    repaired = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void*) { mprotect(repaired, 4096, PROT_READ | PROT_WRITE); };
    sigaction(SIGSEGV, &action, nullptr);
    start();
    auto span = tracer("test").span("work");
    for (int i = 0; i < 3; ++i) {
      write_to(reinterpret_cast<std::uintptr_t>(repaired));
      mprotect(repaired, 4096, PROT_NONE);
    }
    span.set("survived", true);
    raise(SIGKILL);
  });
  const Found found = recovered();
  EXPECT_NE(find(found.span("work")->attributes, "survived"), nullptr);
  EXPECT_EQ(found.report.crash.signal, "");
  EXPECT_EQ(found.exception("work", "exception.type"), "-");
}

sigjmp_buf back;

TEST_F(CrashHandlerTest, AThreadThatJumpedOutOfItsCrashHasSurvivedIt) {
  DIES_OF(SIGKILL, {
    ::signal(SIGSEGV, [](int) { siglongjmp(back, 1); });
    start();
    if (sigsetjmp(back, 1) == 0) follow_null();
    const auto later = std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now()) +
                       std::chrono::seconds(5);
    auto span = tracer("test").span("work", {}, {.start = later});
    raise(SIGKILL);
  });
  const Found found = recovered();
  EXPECT_EQ(found.report.crash.signal, "");
  EXPECT_FALSE(found.interrupted("work")->crashed_here);
}

TEST_F(CrashHandlerTest, AThreadThatJumpedOutOfItsCrashMayCrashAgainAndSoMayOthers) {
  DIES_OF(SIGFPE, {
    ::signal(SIGSEGV, [](int) { siglongjmp(back, 1); });
    start();
    for (int i = 0; i < 3; ++i) {
      if (sigsetjmp(back, 1) == 0) follow_null();
    }
    std::thread([] {
      auto span = tracer("test").span("work");
      std::printf("%d", divide(static_cast<int>(hidden(0))));
    }).join();
  });
  const Found found = recovered();
  EXPECT_EQ(found.report.crash.signal, "SIGFPE");
  EXPECT_EQ(found.exception("work", "exception.type"), "SIGFPE");
}

TEST_F(CrashHandlerTest, AnIgnoredSignalStaysIgnored) {
  DIES_OF(SIGKILL, {
    ::signal(SIGFPE, SIG_IGN);
    ::signal(SIGSEGV, SIG_IGN);
    start();
    auto span = tracer("test").span("work");
    raise(SIGFPE);
    kill(getpid(), SIGSEGV);
    span.set("survived", true);
    raise(SIGKILL);
  });
  const Found found = recovered();
  EXPECT_NE(find(found.span("work")->attributes, "survived"), nullptr);
  EXPECT_EQ(found.report.crash.signal, "");
}

TEST_F(CrashHandlerTest, AFaultCannotBeIgnored) {
  DIES_OF(SIGSEGV, {
    ::signal(SIGSEGV, SIG_IGN);
    start();
    auto span = tracer("test").span("work");
    follow_null();
  });
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGSEGV");
}

TEST_F(CrashHandlerTest, AnAbortCannotBeIgnored) {
  DIES_OF(SIGABRT, {
    ::signal(SIGABRT, SIG_IGN);
    start();
    auto span = tracer("test").span("work");
    std::abort();
  });
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGABRT");
}

struct sigaction ours;

TEST_F(CrashHandlerTest, ALaterHandlerThatCallsTheOneBeforeItIsServed) {
  DIES_OF(SIGSEGV, {
    const std::string path = directory_ / "note";
    note_path = path.c_str();
    start();
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    action.sa_sigaction = [](int signal, siginfo_t* info, void* context) {
      note("called");
      ours.sa_sigaction(signal, info, context);
    };
    sigaction(SIGSEGV, &action, &ours);
    auto span = tracer("test").span("work");
    follow_null();
  });
  EXPECT_EQ(contents(directory_ / "note"), "called");
  const Found found = recovered();
  EXPECT_EQ(found.exception("work", "exception.type"), "SIGSEGV");
#ifdef WAYMARK_HAS_LIBDW
  EXPECT_THAT(found.exception("work", "exception.stacktrace"), ContainsRegex("^#0 [^\n]*write_to"));
#endif
}

TEST_F(CrashHandlerTest, AStackForSignalsThatTheProgramHasSetIsKept) {
  DIES_OF(SIGSEGV, {
    static char mine[256 * 1024];
    stack_t own{};
    own.ss_sp = mine;
    own.ss_size = sizeof mine;
    sigaltstack(&own, nullptr);
    start();
    auto span = tracer("test").span("work");
    stack_t now{};
    sigaltstack(nullptr, &now);
    require(now.ss_sp == mine && (now.ss_flags & SS_DISABLE) == 0, "it is still set");
    follow_null();
  });
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGSEGV");
}

TEST_F(CrashHandlerTest, EveryThreadThatRecordsHasAStackForSignalsAndGivesItBack) {
  EXITS_WITH(0, {
    start();
    void* last = nullptr;
    for (int i = 0; i < 100; ++i) {
      std::thread([&] {
        stack_t before{};
        sigaltstack(nullptr, &before);
        require((before.ss_flags & SS_DISABLE) != 0, "it has none at first");
        { auto span = tracer("test").span("work"); }
        stack_t now{};
        sigaltstack(nullptr, &now);
        require((now.ss_flags & SS_DISABLE) == 0 && now.ss_size >= 64 * 1024, "it has one now");
        last = now.ss_sp;
      }).join();
      // Given back to the system: it can't be read any more, unless something else is there by now.
    }
    unsigned char there = 0;
    require(mincore(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(last) & ~std::uintptr_t{4095}), 4096, &there) != 0,
            "the memory is free");
    std::_Exit(0);
  });
}

TEST_F(CrashHandlerTest, InstalledTwiceAndLastItIsThereOnce) {
  DIES_OF(SIGSEGV, {
    configure_otel_tracing({.service = "victim", .endpoint = "http://127.0.0.1:9", .name = "sink"});
    auto span = tracer("test").span("work");
    start();
    install_crash_handler();
    follow_null();
  });
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGSEGV");
}

TEST_F(CrashHandlerTest, WithoutItNothingIsKnownOfTheCrash) {
  DIES_OF(SIGSEGV, {
    configure_otel_tracing({.service = "victim", .endpoint = "http://127.0.0.1:9", .name = "sink"});
    auto span = tracer("test").span("work");
    follow_null();
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("work", "exception.type"), "-");
  EXPECT_EQ(found.report.crash.signal, "");
}

TEST_F(CrashHandlerTest, AHandlerWithoutTelemetryLetsTheSignalTakeItsCourse) {
  DIES_OF(SIGSEGV, {
    install_crash_handler();
    follow_null();
  });
}

TEST_F(CrashHandlerTest, EveryTelemetryOfTheProcessIsTold) {
  DIES_OF(SIGSEGV, {
    start();
    MemoryDestination memory;
    Config config = memory_config(memory, "second");
    for (DestinationConfig& to : config.destinations) to.name = "sink";
    config.state_directory = directory_ / "second";
    Telemetry second(config);
    {
      Telemetry gone(memory_config(memory, "gone"));
    }
    auto span = tracer("test").span("work");
    auto other = second.tracer("test").span("other");
    follow_null();
  });
  EXPECT_EQ(recovered().exception("work", "exception.type"), "SIGSEGV");
  const Found second = recovered("second");
  EXPECT_EQ(second.report.crash.signal, "SIGSEGV");
  EXPECT_TRUE(second.interrupted("other") != nullptr && second.interrupted("other")->crashed_here);
}

// ---- what must not matter at the crash

TEST_F(CrashHandlerTest, ACrashInsideOfMallocIsTold) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer brings a heap of its own";
  DIES_OF(SIGSEGV, {
    start();
    auto span = tracer("test").span("work");
    // Large enough for no cache; the second keeps the first from being given back as a whole.
    void* first = std::malloc(5000);
    void* behind = std::malloc(5000);
    auto* torn = reinterpret_cast<std::uintptr_t*>(hidden(reinterpret_cast<std::uintptr_t>(first)));
    std::free(first);
    torn[0] = torn[1] = 16;  // the heap's own list, as a stray write leaves it: malloc() follows it, and holds its lock
    for (int i = 0; i < 100; ++i) hidden(reinterpret_cast<std::uintptr_t>(std::malloc(6000)));
    std::free(behind);
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("work", "exception.type"), "SIGSEGV");
  EXPECT_THAT(found.exception("work", "exception.stacktrace"), ContainsRegex("^#0 [^\n]*\\(libc.so"));
}

TEST_F(CrashHandlerTest, AProgramWithoutDescriptorsLeftIsToldWithItsModules) {
  DIES_OF(SIGSEGV, {
    start();
    auto span = tracer("test").span("work");
    rlimit limit{64, 4096};
    setrlimit(RLIMIT_NOFILE, &limit);
    while (dup(0) >= 0) {
    }
    follow_null();
  });
  EXPECT_THAT(recovered().exception("work", "exception.stacktrace"), HasSubstr("(sdk_test+0x"));
}

TEST_F(CrashHandlerTest, ATornStackCostsOnlyItself) {
  if (kThreadSanitizer) GTEST_SKIP() << "under this sanitizer a fault within a handler ends the process at once";
  DIES_OF(SIGSEGV, {
    start();
    std::thread([] {
      auto span = tracer("test").span("work");
#if defined(__x86_64__)
      // Where frames were, nothing is: whoever follows them faults.
      asm volatile("mov $8, %%rbp; mov $16, %%rsp; movl $1, (%%rbp)" ::: "memory");
#else
      follow_null();
#endif
    }).join();
  });
  const Found found = recovered();
  EXPECT_EQ(found.exception("work", "exception.type"), "SIGSEGV");
  EXPECT_THAT(found.exception("work", "exception.stacktrace"), HasSubstr("(sdk_test+0x")) << "where it happened is known";
}

TEST_F(CrashHandlerTest, ACrashInAChildOfForkIsNotItsParents) {
  SKIP_IF_NO_FORK_BESIDE_THREADS();
  DIES_OF(SIGKILL, {
    start();
    auto span = tracer("test").span("work");
    const pid_t child = fork();
    if (child == 0) {
      follow_null();
      _exit(0);
    }
    int status = 0;
    require(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "it crashed");
    raise(SIGKILL);
  });
  const Found found = recovered();
  EXPECT_EQ(found.report.crash.signal, "");
  EXPECT_EQ(found.exception("work", "exception.type"), "-");
}

TEST_F(CrashHandlerTest, ACrashInAHookOnOurOwnThreadIsTold) {
  DIES_OF(SIGSEGV, {
    start([](TracingOptions& tracing) {
      tracing.on_record = [](RecordEditor&) {
        follow_null();
        return Verdict::keep;
      };
    });
    auto open = tracer("test").span("open");
    { auto span = tracer("test").span("work"); }
    for (;;) pause();
  });
  MemoryDestination memory;
  Config config = memory_config(memory);
  config.state_directory = directory_ / "state";
  config.on_record = [](RecordEditor&) { return Verdict::keep; };  // its records must pass one
  Telemetry telemetry(config);
  std::vector<Recovered> reports;
  telemetry.recover();
  telemetry.on_recovered([&](const Recovered& report) { reports.push_back(report); });
  ASSERT_THAT(reports, SizeIs(1));
  EXPECT_EQ(reports[0].crash.message, "SIGSEGV: address not mapped at 0x0");
  for (const InterruptedSpan& span : reports[0].interrupted) EXPECT_FALSE(span.crashed_here) << span.name;
}

}  // namespace
}  // namespace waymark
