// Rotation of a file output, and OTLP JSON on standard output.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "export/fake_journal.h"
#include "export/sink.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::log_bytes;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

std::string request(const std::string& text) {
  const auto wrap = [](char tag, const std::string& content) {
    char head[11] = {tag};
    return std::string(head, static_cast<std::size_t>(otlp::put_varint(head + 1, content.size()) - head)) + content;
  };
  return wrap(0x0a, wrap(0x12, wrap(0x12, log_bytes(text))));
}

Delivery send(Sink& sink, const std::string& text) {
  const std::string bytes = request(text);
  const std::string_view pieces[] = {bytes};
  return sink.send(pieces);
}

std::vector<std::string> texts(const std::string& file) {
  std::vector<std::string> found;
  for (const auto& log : read_json_file(file).logs) found.push_back(to_text(log.body));
  return found;
}

class RotationTest : public ::testing::Test {
 protected:
  RotationTest() {
    std::string pattern = (fs::temp_directory_path() / "waymark-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    directory = pattern;
    path = directory + "/logs.jsonl";
    line = request_to_json(Signal::logs, request("0")).size() + 1;
  }
  ~RotationTest() override { fs::remove_all(directory); }

  std::unique_ptr<Sink> open(RotationConfig rotation) const {
    DestinationConfig config;
    config.name = "file";
    config.signal = Signal::logs;
    config.output = Output::file;
    config.path = path;
    config.rotation = rotation;
    return open_sink(config);
  }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename());
    return names;
  }

  std::string directory;
  std::string path;
  std::size_t line = 0;  // bytes of one with a text of one character
};

TEST_F(RotationTest, AFileIsNoLargerThanAllowedAndTheOldestFallsOff) {
  const auto sink = open({.max_bytes = 2 * line, .files = 2});
  for (const char* text : {"0", "1", "2", "3", "4", "5", "6"}) EXPECT_EQ(send(*sink, text).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ElementsAre("6"));
  EXPECT_THAT(texts(path + ".1"), ElementsAre("4", "5"));
  EXPECT_THAT(texts(path + ".2"), ElementsAre("2", "3"));
  EXPECT_EQ(files(), (std::set<std::string>{"logs.jsonl", "logs.jsonl.1", "logs.jsonl.2"}));
}

TEST_F(RotationTest, ALineLargerThanAFileHasOneOfItsOwn) {
  const auto sink = open({.max_bytes = 10});
  for (const char* text : {"0", "1"}) EXPECT_EQ(send(*sink, text).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ElementsAre("1"));
  EXPECT_THAT(texts(path + ".1"), ElementsAre("0"));
}

TEST_F(RotationTest, AnOldFileMakesRoomAndAYoungOneStays) {
  const auto young = open({.max_age = 1h});
  for (const char* text : {"0", "1"}) EXPECT_EQ(send(*young, text).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ElementsAre("0", "1"));
  const auto old = open({.max_age = 1ns});
  EXPECT_EQ(send(*old, "2").outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ElementsAre("2"));
  EXPECT_THAT(texts(path + ".1"), ElementsAre("0", "1"));
}

TEST_F(RotationTest, WithoutFilesToKeepTheOldOneIsRemoved) {
  const auto sink = open({.max_bytes = line, .files = 0});
  for (const char* text : {"0", "1"}) EXPECT_EQ(send(*sink, text).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ElementsAre("1"));
  EXPECT_EQ(files(), (std::set<std::string>{"logs.jsonl"}));
}

TEST_F(RotationTest, WhatALargerLimitLeftIsRemoved) {
  for (int i = 1; i <= 4; ++i) std::ofstream(path + "." + std::to_string(i)) << "old\n";
  const auto sink = open({.max_bytes = line, .files = 2});
  for (const char* text : {"0", "1"}) EXPECT_EQ(send(*sink, text).outcome, Outcome::delivered);
  EXPECT_EQ(files(), (std::set<std::string>{"logs.jsonl", "logs.jsonl.1", "logs.jsonl.2"}));
}

TEST_F(RotationTest, WhereAFileCantBeRenamedItGrowsOnAndThatIsSaidOnce) {
  fs::create_directories(path + ".1/in/the/way");
  const auto sink = open({.max_bytes = line, .files = 1});
  EXPECT_EQ(send(*sink, "0").message, "");
  const Delivery first = send(*sink, "1");
  EXPECT_EQ(first.outcome, Outcome::delivered);
  EXPECT_THAT(first.message, HasSubstr(path));
  EXPECT_THAT(first.message, HasSubstr("can't be rotated"));
  EXPECT_EQ(send(*sink, "2").message, "") << "said once";
  EXPECT_THAT(texts(path), ElementsAre("0", "1", "2"));
  fs::remove_all(path + ".1");
  EXPECT_EQ(send(*sink, "3").outcome, Outcome::delivered);
  EXPECT_THAT(texts(path), ElementsAre("3"));
  EXPECT_THAT(texts(path + ".1"), ElementsAre("0", "1", "2"));
}

TEST_F(RotationTest, AFileWithTwoNamesGrowsOn) {
  const auto sink = open({.max_bytes = line, .files = 1});
  EXPECT_EQ(send(*sink, "0").outcome, Outcome::delivered);
  fs::create_hard_link(path, path + ".1");
  EXPECT_THAT(send(*sink, "1").message, HasSubstr("can't be rotated"));
  EXPECT_THAT(texts(path), ElementsAre("0", "1"));
}

TEST_F(RotationTest, SinksThatShareAFileRotateItTogetherAndLoseNothing) {
  constexpr int kWriters = 4;
  constexpr int kLines = 200;
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      const auto sink = open({.max_bytes = 20 * line, .files = 1000});
      for (int i = 0; i < kLines; ++i) {
        EXPECT_EQ(send(*sink, std::to_string(w) + "/" + std::to_string(i)).outcome, Outcome::delivered);
      }
    });
  }
  for (auto& writer : writers) writer.join();
  std::set<std::string> found;
  std::size_t lines = 0;
  for (const std::string& name : files()) {
    for (const std::string& text : texts(directory + "/" + name)) {
      found.insert(text);
      ++lines;
    }
    EXPECT_LE(fs::file_size(directory + "/" + name), 20 * line);
  }
  EXPECT_EQ(lines, std::size_t{kWriters * kLines});
  EXPECT_EQ(found.size(), std::size_t{kWriters * kLines});
  EXPECT_GT(files().size(), 20u);
}

TEST_F(RotationTest, WhatSomebodyElseRenamedIsLeftAlone) {
  const auto sink = open({.max_bytes = 2 * line});
  EXPECT_EQ(send(*sink, "0").outcome, Outcome::delivered);
  fs::rename(path, path + "-20260101");
  for (const char* text : {"1", "2", "3"}) EXPECT_EQ(send(*sink, text).outcome, Outcome::delivered);
  EXPECT_THAT(texts(path + "-20260101"), ElementsAre("0"));
  EXPECT_THAT(texts(path + ".1"), ElementsAre("1", "2"));
  EXPECT_THAT(texts(path), ElementsAre("3"));
}

// ---- standard output

class StandardOutputTest : public RotationTest {
 protected:
  void SetUp() override {
    path = "-";
    kept_ = ::dup(STDOUT_FILENO);
  }
  void TearDown() override { restore(); }
  // Standard output is this from here on.
  void redirect(int descriptor) {
    fflush(stdout);
    ::dup2(descriptor, STDOUT_FILENO);
    ::close(descriptor);
  }
  void restore() {
    if (kept_ < 0) return;
    fflush(stdout);
    ::dup2(kept_, STDOUT_FILENO);
    ::close(std::exchange(kept_, -1));
  }

 private:
  int kept_ = -1;
};

TEST_F(StandardOutputTest, GetsOneRequestALine) {
  const std::string file = directory + "/out";
  redirect(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const auto sink = open({.max_bytes = 1});
  const Outcome one = send(*sink, "one").outcome;
  const Outcome two = send(*sink, "two").outcome;
  restore();
  EXPECT_EQ(one, Outcome::delivered);
  EXPECT_EQ(two, Outcome::delivered);
  EXPECT_THAT(texts(file), ElementsAre("one", "two"));
  EXPECT_EQ(files(), (std::set<std::string>{"out"})) << "never rotated, and no file named -";
}

TEST_F(StandardOutputTest, AFullDiskIsWorthAnotherTryAndAReaderThatIsGoneIsNot) {
  redirect(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  const auto sink = open({});
  const Delivery full = send(*sink, "one");
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  ::close(ends[0]);
  redirect(ends[1]);
  sigset_t pipe_signal;
  sigset_t before;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const Delivery gone = send(*sink, "one");
  const timespec now{};
  sigtimedwait(&pipe_signal, nullptr, &now);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  restore();
  EXPECT_EQ(full.outcome, Outcome::retry);
  EXPECT_THAT(full.message, HasSubstr("No space left"));
  EXPECT_EQ(gone.outcome, Outcome::rejected);
}

}  // namespace
}  // namespace waymark::delivery
