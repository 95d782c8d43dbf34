// What recovery makes of what the crash handler wrote, and of what it could not have written. The handler itself is tested
// with real crashes, in tests/sdk.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "journal/crash.h"
#include "journal/process.h"
#include "journal/symbols.h"

namespace waymark::journal {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using testing::adds_up;
using testing::Contents;
using testing::contents_of;
using testing::read_all;
using testing::Recoverer;
using testing::ScratchDirectory;
using testing::TestProcess;

[[gnu::noinline]] void landmark() { asm volatile(""); }

// Of this program, as its memory map says.
LoadedModule this_program() {
  std::ifstream maps("/proc/self/maps");
  const std::string path = std::filesystem::read_symlink("/proc/self/exe");
  LoadedModule module;
  for (std::string line; std::getline(maps, line);) {
    if (!line.ends_with(" " + path)) continue;
    const std::uint64_t begin = std::stoull(line, nullptr, 16);
    if (module.path.empty()) module.base = begin;
    module.end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
    module.path = path;
  }
  struct stat s {};
  if (::stat(path.c_str(), &s) == 0) module.inode = s.st_ino;
  return module;
}

std::uint64_t now_ns() { return Clock().now(); }

void put_crash(RecorderHeader& header, std::uint32_t thread, std::uint64_t when) {
  header.crash_thread = thread;
  header.crash_code = 1;
  header.crash_address = 16;
  header.crash_ns = when;
  header.crash_signal = 11;
}

class CrashReportTest : public ::testing::Test {
 protected:
  std::unique_ptr<RecoveredJournal> recovered(TestProcess& process) {
    process.die();
    return recoverer_.recover(process.home.id);
  }
  static std::size_t exceptions(const ReadSpan* span) {
    std::size_t count = 0;
    for (const ReadEvent& event : span->events) count += event.name == "exception" ? 1 : 0;
    return count;
  }

  ScratchDirectory scratch_;
  Recoverer recoverer_{scratch_.path()};
};

TEST_F(CrashReportTest, OfNestedSpansTheOneThatStartedLastHasTheEvent) {
  TestProcess process(scratch_.path());
  Block* inner = process.open("inner");
  Block* outer = process.open("outer");
  inner->start_ns = TestProcess::kStart + 20;
  outer->start_ns = TestProcess::kStart + 10;
  put_crash(process.recorder->header(), inner->thread, TestProcess::kStart + 30);
  const auto dead = recovered(process);
  const Contents contents = contents_of(*dead->journal);
  EXPECT_EQ(exceptions(contents.span("inner")), 1u);
  EXPECT_EQ(exceptions(contents.span("outer")), 0u);
  EXPECT_EQ(to_ns(contents.span("inner")->events.at(0).time), TestProcess::kStart + 30);
  for (const InterruptedSpan& span : recoverer_.reports.at(0).interrupted) EXPECT_TRUE(span.crashed_here);
}

TEST_F(CrashReportTest, OfSpansThatStartedAtOnceTheChildHasIt) {
  for (const bool child_first : {true, false}) {
    TestProcess process(scratch_.path());
    Block* first = process.open(child_first ? "child" : "parent");
    Block* second = process.open(child_first ? "parent" : "child");
    Block* child = child_first ? first : second;
    std::memcpy(child->parent_id, (child_first ? second : first)->span_id, 8);
    put_crash(process.recorder->header(), child->thread, TestProcess::kStart + 30);
    const auto dead = recovered(process);
    EXPECT_EQ(exceptions(contents_of(*dead->journal).span("child")), 1u) << child_first;
    EXPECT_EQ(exceptions(contents_of(*dead->journal).span("parent")), 0u) << child_first;
  }
}

TEST_F(CrashReportTest, AFinishedSpanOfTheThreadIsNotTheOne) {
  TestProcess process(scratch_.path());
  Block* task = process.open("task");
  ASSERT_TRUE(process.span("finished"));
  put_crash(process.recorder->header(), task->thread, TestProcess::kStart + 30);
  const auto dead = recovered(process);
  EXPECT_EQ(exceptions(contents_of(*dead->journal).span("task")), 1u);
  EXPECT_EQ(exceptions(contents_of(*dead->journal).span("finished")), 0u);
}

TEST_F(CrashReportTest, AThreadThatWentOnHasNotCrashed) {
  TestProcess process(scratch_.path());
  Block* task = process.open("task");
  put_crash(process.recorder->header(), task->thread, TestProcess::kStart - 2'000'000'000);
  const auto dead = recovered(process);
  EXPECT_EQ(exceptions(contents_of(*dead->journal).span("task")), 0u);
  EXPECT_EQ(recoverer_.reports.at(0).crash.signal, "");
  EXPECT_FALSE(recoverer_.reports.at(0).interrupted.at(0).crashed_here);
}

TEST_F(CrashReportTest, ASpanThatIsAlmostFullSaysWhatHappenedWithoutTheStack) {
  testing::ProcessOptions roomy;
  roomy.recorder.max_bytes = 8 << 20;
  TestProcess process(scratch_.path(), roomy);
  Block* block = process.open("full");
  const std::string piece(1000, 'x');
  while (process.set(block, "key", Value(piece))) {
  }
  RecorderHeader& header = process.recorder->header();
  header.crash_frames = 64;
  for (std::uint64_t& frame : header.crash_stack) frame = 0x1500;
  const std::string module = "1000 2000 0 - /gone/" + std::string(300, 'm') + "\n";
  std::memcpy(header.crash_modules, module.data(), module.size());
  // So that what is left is less than the stack takes.
  for (std::size_t size = 4096; size > 8; size /= 2) {
    while (process.set(block, "k", Value(std::string(size, 'y')))) {
    }
  }
  put_crash(header, block->thread, TestProcess::kStart + 30);
  const auto dead = recovered(process);
  const Contents contents = contents_of(*dead->journal);
  const ReadSpan* span = contents.span("full");
  ASSERT_NE(span, nullptr);
  ASSERT_EQ(exceptions(span), 1u);
  EXPECT_EQ(find_string(span->events[0].attributes, "exception.type"), "SIGSEGV");
  EXPECT_EQ(find(span->events[0].attributes, "exception.stacktrace"), nullptr);
  EXPECT_GT(recoverer_.reports.at(0).crash.stack.size(), 64u * 300) << "it is told elsewhere";
  const auto cursor = dead->journal->cursor("sink", Signal::traces, true);
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(CrashReportTest, ACrashOutsideOfAllSpansIsOneLogRecordThoughItIsRecoveredTwice) {
  TestProcess process(scratch_.path());
  put_crash(process.recorder->header(), 12345, TestProcess::kStart + 30);
  process.die();
  {
    // Dies before it has said that it is done: the recorder is still there for the next one.
    const std::string copy = scratch_.path() + "/recorder";
    std::filesystem::copy_file(process.recorder_path(), copy);
    struct stat before {};
    ASSERT_EQ(::lstat(process.recorder_path().c_str(), &before), 0);
    const int kept = ::link(process.recorder_path().c_str(), (process.home.memory + "/kept").c_str());
    ASSERT_EQ(kept, 0);
    ASSERT_NE(recoverer_.recover(process.home.id), nullptr);
    ASSERT_EQ(::rename((process.home.memory + "/kept").c_str(), process.recorder_path().c_str()), 0);
    std::filesystem::remove(process.home.state + "/totals");
    std::filesystem::remove(copy);
  }
  const auto dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("SIGSEGV: address not mapped at 0x10"));
  const auto cursor = dead->journal->cursor("sink", Signal::logs, true);
  EXPECT_TRUE(adds_up(cursor->counts()));
  EXPECT_THAT(read_all(*cursor).logs, SizeIs(1));
  EXPECT_TRUE(adds_up(cursor->counts()));
  EXPECT_EQ(cursor->counts().pending, 0u);
}

TEST_F(CrashReportTest, WhatMakesNoSenseIsNoCrash) {
  auto header = std::make_unique<RecorderHeader>();
  EXPECT_FALSE(read_crash(*header));
  header->crash_signal = 15;
  EXPECT_FALSE(read_crash(*header)) << "no signal that the handler tells of";
  header->crash_signal = 11;
  header->crash_frames = 4'000'000'000;
  std::memset(header->crash_modules, 'x', sizeof header->crash_modules);
  const auto crash = read_crash(*header);
  ASSERT_TRUE(crash);
  EXPECT_THAT(crash->stack, SizeIs(64));
  EXPECT_THAT(crash->modules, IsEmpty());
}

TEST_F(CrashReportTest, OnlyWholeLinesOfModulesCount) {
  auto header = std::make_unique<RecorderHeader>();
  header->crash_signal = 11;
  const std::string text =
      "1000 2000 7 ab12 /usr/bin/one with blanks\n"
      "2000 1000 7 - /ends/before/it/begins\n"
      "x 2000 7 - /no/number\n"
      "1000 2000 7 - relative/path\n"
      "1000 2000 7\n"
      "\n"
      "3000 4000 8 - /usr/bin/two\n"
      "5000 6000 9 - /usr/bin/thr";
  std::memcpy(header->crash_modules, text.data(), text.size());
  const auto crash = read_crash(*header);
  ASSERT_TRUE(crash);
  ASSERT_THAT(crash->modules, SizeIs(2));
  EXPECT_EQ(crash->modules[0].path, "/usr/bin/one with blanks");
  EXPECT_EQ(crash->modules[0].build_id, "ab12");
  EXPECT_EQ(crash->modules[0].base, 0x1000u);
  EXPECT_EQ(crash->modules[0].end, 0x2000u);
  EXPECT_EQ(crash->modules[1].inode, 8u);
  EXPECT_EQ(crash->modules[1].build_id, "");
}

struct SaidBy {
  int signal;
  int code;
  std::uint64_t address;
  const char* text;
};

TEST_F(CrashReportTest, EachSignalSaysWhatItsCodeMeans) {
  for (const SaidBy& row : {SaidBy{11, 1, 0, "SIGSEGV: address not mapped at 0x0"},
                            SaidBy{11, 2, 0xabc, "SIGSEGV: access not permitted at 0xabc"},
                            SaidBy{11, 0x80, 0, "SIGSEGV: access to an address that can't exist"},
                            SaidBy{11, 77, 16, "SIGSEGV: code 77 at 0x10"},
                            SaidBy{7, 1, 1, "SIGBUS: address not aligned at 0x1"},
                            SaidBy{8, 1, 4096, "SIGFPE: integer divided by zero at 0x1000"},
                            SaidBy{4, 2, 4096, "SIGILL: illegal operand at 0x1000"},
                            SaidBy{6, -6, 4711, "SIGABRT: the program aborted"},
                            SaidBy{11, 0, 4711, "SIGSEGV: sent by the program itself"},
                            SaidBy{11, 0, 1, "SIGSEGV: sent by process 1"}}) {
    auto header = std::make_unique<RecorderHeader>();
    header->process_id = 4711;
    header->crash_signal = static_cast<std::uint32_t>(row.signal);
    header->crash_code = row.code;
    header->crash_address = row.address;
    const auto crash = read_crash(*header);
    ASSERT_TRUE(crash);
    EXPECT_EQ(crash->text, row.text);
  }
}

// ---- symbols

class StackTextTest : public ::testing::Test {
 protected:
  ScratchDirectory scratch_;
  LoadedModule program_ = this_program();
  std::uint64_t address_ = reinterpret_cast<std::uint64_t>(&landmark);
};

#ifdef WAYMARK_HAS_LIBDW
TEST_F(StackTextTest, AnAddressOfAFileThatIsUnchangedHasItsFunctionAndLine) {
  const std::uint64_t stack[] = {address_};
  EXPECT_THAT(stack_text(stack, {program_}, now_ns()),
              ContainsRegex("^#0 [^\n]*landmark\\(\\) at [^\n]*crash_handler_test.cpp:[0-9]+ \\(journal_test\\+0x[0-9a-f]+\\)$"));
}

TEST_F(StackTextTest, AReturnAddressIsTheLineOfItsCall) {
  // The last instruction of a function may be a call: the address behind it is in the next one.
  const std::uint64_t stack[] = {address_, address_};
  const std::string text = stack_text(stack, {program_}, now_ns());
  EXPECT_THAT(text, ContainsRegex("^#0 [^\n]*landmark"));
  EXPECT_THAT(text, Not(ContainsRegex("\n#1 [^\n]*landmark")));
}
#endif

TEST_F(StackTextTest, AnAddressOfNoFileIsANumber) {
  const std::uint64_t stack[] = {0, 0x1234, UINT64_MAX};
  EXPECT_EQ(stack_text(stack, {}, now_ns()), "#0 0x0\n#1 0x1234\n#2 0xffffffffffffffff");
  EXPECT_EQ(stack_text({}, {program_}, now_ns()), "");
}

TEST_F(StackTextTest, AFileThatIsAnotherByNowIsNotLookedInto) {
  const std::uint64_t stack[] = {address_};
  const auto expect_offset_only = [&](const LoadedModule& module, const char* why) {
    EXPECT_THAT(stack_text(stack, {module}, now_ns()), ContainsRegex("^#0 \\([^ ]*\\+0x[0-9a-f]+\\)$")) << why;
  };
  LoadedModule other = program_;
  other.build_id = "00112233";
  expect_offset_only(other, "another build");
  other = program_;
  other.inode += 1;
  expect_offset_only(other, "without a build id, another file");
  other = program_;
  EXPECT_THAT(stack_text(stack, {other}, 1'000'000'000), Not(HasSubstr("landmark"))) << "written since the process died";
  other.path = scratch_.path() + "/gone";
  expect_offset_only(other, "no file");
}

TEST_F(StackTextTest, WhatIsNoRegularFileIsNotOpened) {
  const std::uint64_t stack[] = {address_};
  LoadedModule module = program_;
  const std::string link = scratch_.path() + "/link";
  ASSERT_EQ(::symlink(program_.path.c_str(), link.c_str()), 0);
  const std::string pipe = scratch_.path() + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string empty = scratch_.path() + "/empty";
  std::ofstream{empty};
  const std::string huge = scratch_.path() + "/huge";
  std::ofstream{huge};
  ASSERT_EQ(::truncate(huge.c_str(), off_t{1} << 40), 0);
  for (const std::string& path : {link, pipe, empty, huge, scratch_.path(), std::string("/dev/zero"), std::string("/")}) {
    module.path = path;
    struct stat s {};
    if (::stat(path.c_str(), &s) == 0) module.inode = s.st_ino;
    EXPECT_THAT(stack_text(stack, {module}, now_ns()), Not(HasSubstr("landmark"))) << path;
  }
}

TEST_F(StackTextTest, AFileThatIsNoProgramIsNotBelieved) {
  const std::uint64_t stack[] = {address_};
  std::ifstream in(program_.path, std::ios::binary);
  std::string bytes(200'000, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  for (const std::size_t length : {std::size_t{0}, std::size_t{16}, std::size_t{64}, std::size_t{500}, bytes.size()}) {
    const std::string path = scratch_.path() + "/cut";
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(length));
    LoadedModule module = program_;
    module.path = path;
    struct stat s {};
    ASSERT_EQ(::stat(path.c_str(), &s), 0);
    module.inode = s.st_ino;
    EXPECT_THAT(stack_text(stack, {module}, now_ns()), HasSubstr("(cut+0x")) << length;
  }
}

}  // namespace
}  // namespace waymark::journal
