#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "export/console.h"
#include "export/fake_journal.h"
#include "export/sink.h"
#include "support/holds.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::log_bytes;
using namespace std::string_literals;

// A request of one log record.
std::string request(const std::string& text) {
  const auto wrap = [](char tag, const std::string& content) {
    char head[11] = {tag};
    return std::string(head, static_cast<std::size_t>(otlp::put_varint(head + 1, content.size()) - head)) + content;
  };
  return wrap(0x0a, wrap(0x12, wrap(0x12, log_bytes(text))));
}

Delivery send(Sink& sink, const std::string& bytes) {
  const std::string_view pieces[] = {std::string_view(bytes).substr(0, 3), std::string_view(bytes).substr(3)};
  return sink.send(pieces);
}

class FileSinkTest : public ::testing::Test {
 protected:
  FileSinkTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "waymark-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    directory = pattern;
    path = directory + "/logs.jsonl";
  }
  ~FileSinkTest() override { std::filesystem::remove_all(directory); }

  std::unique_ptr<Sink> open(const std::string& file) const {
    DestinationConfig config;
    config.name = "file";
    config.signal = Signal::logs;
    config.output = Output::file;
    config.path = file;
    return open_sink(config);
  }
  static std::string content(const std::string& file) {
    std::ifstream in(file);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static std::vector<std::string> texts(const std::string& file) {
    std::vector<std::string> found;
    for (const auto& log : read_json_file(file).logs) found.push_back(to_text(log.body));
    return found;
  }

  std::string directory;
  std::string path;
};

TEST_F(FileSinkTest, WritesOneRequestALine) {
  HOLDS("FS-01", "FS-02");
  const auto sink = open(path);
  EXPECT_EQ(send(*sink, request("one")).outcome, Outcome::delivered);
  EXPECT_EQ(send(*sink, request("t\nwo")).outcome, Outcome::delivered);
  EXPECT_EQ(content(path), request_to_json(Signal::logs, request("one")) + "\n" + request_to_json(Signal::logs, request("t\nwo")) + "\n");
  EXPECT_THAT(texts(path), ::testing::ElementsAre("one", "t\nwo"));
}

TEST_F(FileSinkTest, MakesTheDirectoryAndAFileThatOthersMayRead) {
  const auto old = umask(022);
  const std::string deep = directory + "/a/b/logs.jsonl";
  const auto sink = open(deep);
  umask(old);
  struct stat status {};
  ASSERT_EQ(stat(deep.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0644u);
}

TEST_F(FileSinkTest, AppendsToWhatIsThereAndTakesATornLineBack) {
  HOLDS("FS-06");
  const std::string one = request_to_json(Signal::logs, request("one")) + "\n";
  std::ofstream(path) << one << "{\"resourceLogs\":[\"" << std::string(10000, 'x');  // a process was killed in the middle of it
  const auto sink = open(path);
  EXPECT_EQ(send(*sink, request("one")).outcome, Outcome::delivered);
  EXPECT_EQ(content(path), one + one);
}

TEST_F(FileSinkTest, AFileThatIsATornLineStartsAnew) {
  std::ofstream(path) << "{\"resourceL";
  const auto sink = open(path);
  EXPECT_EQ(send(*sink, request("one")).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ::testing::ElementsAre("one"));
}

TEST_F(FileSinkTest, ALineThatTearsWhileTheFileIsOpenIsTakenBackToo) {
  const auto sink = open(path);
  EXPECT_EQ(send(*sink, request("one")).outcome, Outcome::delivered);
  std::ofstream(path, std::ios::app) << "{\"resourceL";  // of another process that writes here
  EXPECT_EQ(send(*sink, request("two")).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ::testing::ElementsAre("one", "two"));
}

TEST_F(FileSinkTest, WhatIsNoLineOfOursIsNotTakenBack) {
  for (const std::string& foreign : {"precious, without a line's end"s, "one\n{\"notes\": 2"s}) {
    std::ofstream(path) << foreign;
    EXPECT_EQ(send(*open(path), request("one")).outcome, Outcome::delivered);
    EXPECT_EQ(content(path), foreign + "\n" + request_to_json(Signal::logs, request("one")) + "\n");
  }
}

TEST_F(FileSinkTest, AbortEndsTheWaitForALockThatSomebodyKeeps) {
  const auto sink = open(path);
  const int other = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  Delivery delivery;
  std::thread waiting([&] { delivery = send(*sink, request("one")); });
  sink->abort();
  waiting.join();
  EXPECT_TRUE(delivery.aborted);
  EXPECT_EQ(content(path), "");
  ::close(other);
}

TEST_F(FileSinkTest, WaitsForALockUntilItIsGiven) {
  const auto sink = open(path);
  const int other = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  std::thread waiting([&] { EXPECT_EQ(send(*sink, request("one")).outcome, Outcome::delivered); });
  EXPECT_EQ(content(path), "");
  ::close(other);
  waiting.join();
  EXPECT_THAT(texts(path), ::testing::ElementsAre("one"));
}

TEST_F(FileSinkTest, GoesOnInANewFileWhereTheOldOneWasMoved) {
  const auto sink = open(path);
  EXPECT_EQ(send(*sink, request("one")).outcome, Outcome::delivered);
  std::filesystem::rename(path, path + ".1");
  EXPECT_EQ(send(*sink, request("two")).outcome, Outcome::delivered);
  std::filesystem::remove(path);
  EXPECT_EQ(send(*sink, request("three")).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path + ".1"), ::testing::ElementsAre("one"));
  EXPECT_THAT(texts(path), ::testing::ElementsAre("three"));
}

TEST_F(FileSinkTest, RefusesAPathThatCantBeOpenedAndNamesIt) {
  try {
    (void)open(directory);
    FAIL() << "a directory was opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
    EXPECT_THAT(error.what(), AllOf(HasSubstr(directory), HasSubstr("file")));
  }
}

TEST_F(FileSinkTest, AFullDiskIsWorthAnotherTry) {
  const auto sink = open("/dev/full");
  const Delivery delivery = send(*sink, request("one"));
  EXPECT_EQ(delivery.outcome, Outcome::retry);
  EXPECT_THAT(delivery.message, AllOf(HasSubstr("/dev/full"), HasSubstr("No space left")));
}

TEST_F(FileSinkTest, TakesBackHalfALine) {
  HOLDS("FS-06");
  const auto sink = open(path);
  EXPECT_EQ(send(*sink, request("one")).outcome, Outcome::delivered);
  sigset_t too_large;
  sigset_t before;
  sigemptyset(&too_large);
  sigaddset(&too_large, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &too_large, &before);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = std::filesystem::file_size(path) + 10;
  setrlimit(RLIMIT_FSIZE, &small);
  const Delivery delivery = send(*sink, request("two"));
  setrlimit(RLIMIT_FSIZE, &old);
  const timespec now{};
  sigtimedwait(&too_large, nullptr, &now);  // the signal that the kernel sent beside EFBIG
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(delivery.outcome, Outcome::retry);
  EXPECT_EQ(send(*sink, request("two")).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ::testing::ElementsAre("one", "two"));
  EXPECT_EQ(content(path), request_to_json(Signal::logs, request("one")) + "\n" + request_to_json(Signal::logs, request("two")) + "\n");
}

TEST_F(FileSinkTest, ARequestThatCantBeReadIsRefused) {
  const auto sink = open(path);
  EXPECT_EQ(send(*sink, "\xff\xff\xff\xff").outcome, Outcome::rejected);
  EXPECT_EQ(content(path), "");
}

TEST_F(FileSinkTest, AbortEndsAWriteThatNobodyReads) {
  const std::string fifo = directory + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const auto sink = open(fifo);
  const std::string large = request(std::string(1 << 20, 'x'));  // more than a pipe holds
  std::thread writing([&] { EXPECT_TRUE(send(*sink, large).aborted); });
  sink->abort();
  writing.join();
}

// ---- the console

ReadLog log() {
  setenv("TZ", "UTC", 1);
  tzset();
  ReadLog record;
  record.time = Timestamp(std::chrono::seconds(1'800'000'000) + std::chrono::milliseconds(42));
  record.severity = 9;
  record.body = {std::string("tile read")};
  record.scope.name = "tasks";
  return record;
}

std::string line(const ReadLog& record, bool color = false) {
  std::string out;
  append_console_line(out, record, color);
  return out;
}

TEST(ConsoleTest, ARecordIsALineForPeople) {
  ReadLog record = log();
  record.attributes = {{"index", {std::int64_t{4}}}, {"scene", {std::string("S2A 1")}}, {"id", {std::string("a-b")}},
                       {"ok", {true}}, {"none", {std::string()}}};
  EXPECT_EQ(line(record), "08:00:00.042 INFO  tile read index=4 scene=\"S2A 1\" id=a-b ok=true none=\"\"  (tasks)\n");
}

TEST(ConsoleTest, LevelsAreFiveWide) {
  const std::pair<int, const char*> cases[] = {{1, "TRACE"}, {8, "DEBUG"}, {9, "INFO "}, {13, "WARN "}, {17, "ERROR"},
                                               {24, "CRIT "}, {0, "     "}, {25, "     "}};
  for (const auto& [severity, name] : cases) {
    ReadLog record = log();
    record.severity = static_cast<std::uint8_t>(severity);
    EXPECT_EQ(line(record), "08:00:00.042 "s + name + " tile read  (tasks)\n");
  }
}

TEST(ConsoleTest, ColoursOnlyWhereAsked) {
  ReadLog record = log();
  record.severity = 17;
  record.attributes = {{"k", {std::int64_t{1}}}};
  EXPECT_EQ(line(record).find('\x1b'), std::string::npos);
  EXPECT_EQ(line(record, true),
            "08:00:00.042 \x1b[31m\x1b[1mERROR\x1b[0m tile read \x1b[2mk=\x1b[0m1  \x1b[2m(tasks)\x1b[0m\n");
}

TEST(ConsoleTest, TextCantMoveTheCursor) {
  ReadLog record = log();
  record.body = {std::string("a\x1b[2J\r\x7f\xc2\x9b" "31m\tb\nc")};
  record.attributes = {{"k\n", {std::string("x\ny\"")}}};
  EXPECT_EQ(line(record), "08:00:00.042 INFO  a\\x1b[2J\\x0d\\x7f\\x9b31m\tb\n                   c k\\n=\"x\\ny\\\"\"  (tasks)\n");
}

TEST(ConsoleTest, ShowsTheObservedTimeWhereThereIsNoOther) {
  ReadLog record = log();
  record.observed = record.time;
  record.time = {};
  EXPECT_EQ(line(record).substr(0, 13), "08:00:00.042 ");
}

TEST(ConsoleTest, WritesToTheStreamThatWasAskedFor) {
  for (const char* stream : {"stdout", "stderr"}) {
    DestinationConfig config;
    config.name = "console";
    config.signal = Signal::logs;
    config.output = Output::console;
    config.path = stream;
    const auto sink = open_sink(config);
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const Delivery delivery = send(*sink, request("hello"));
    const std::string out = ::testing::internal::GetCapturedStdout();
    const std::string err = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(delivery.outcome, Outcome::delivered);
    EXPECT_THAT(stream == "stdout"s ? out : err, HasSubstr("hello"));
    EXPECT_EQ(stream == "stdout"s ? err : out, "");
  }
}

TEST(ConsoleTest, ShowsLogsOnlyAndKnowsTwoStreams) {
  DestinationConfig config;
  config.name = "console";
  config.output = Output::console;
  config.signal = Signal::traces;
  EXPECT_THROW((void)open_sink(config), Error);
  config.signal = Signal::logs;
  config.path = "/dev/tty";
  EXPECT_THROW((void)open_sink(config), Error);
}

}  // namespace
}  // namespace waymark::delivery
