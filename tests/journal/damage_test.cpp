// What a bad disk, a dying process or somebody else leaves in a directory: nothing of it ends the reader, and nothing that
// is damaged is delivered.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <functional>

#include "journal/checksum.h"
#include "journal/journal.h"
#include "journal/small_journal.h"
#include "waymark/error.h"

namespace waymark::journal {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::adds_up;
using testing::bytes_of;
using testing::contents_of;
using testing::kLogs;
using testing::put_bytes;
using testing::Recoverer;
using testing::ScratchDirectory;
using testing::TestProcess;

// A process that died with three records in its journal, one in its ring, and an open span; small, so that all of its bits
// can be turned over.
class DamageTest : public ::testing::Test {
 protected:
  DamageTest() {
    TestProcess process(scratch_.path(), {.recorder = {.place = RecorderConfig::Place::state, .max_bytes = 1 << 20,
                                                       .ring_bytes = 512 * 1024}});
    for (const std::string& text : kJournaled) {
      process.log(text);
      process.drain();
    }
    process.log("ring");
    process.open("open");
    home_ = process.home;
    process.die();
    for (const std::string& name : list_directory(home_.state)) good_[name] = bytes_of(home_.state + "/" + name);
    segment_ = *std::find_if(names().begin(), names().end(), [](const auto& name) { return name.ends_with(".seg"); });
  }
  std::vector<std::string>& names() {
    if (names_.empty()) {
      for (const auto& [name, bytes] : good_) names_.push_back(name);
    }
    return names_;
  }
  [[nodiscard]] std::string turned(const std::string& name, std::size_t bit) const {
    std::string bytes = good_.at(name);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    return bytes;
  }
  // As it was left, but for one file. The recorder is read by its inode, which must stay.
  void lay(const std::string& name, const std::string& bytes) {
    for (const std::string& there : list_directory(home_.state)) {
      if (!good_.contains(there)) std::filesystem::remove_all(home_.state + "/" + there);
    }
    for (const auto& [file, content] : good_) put_bytes(home_.state + "/" + file, file == name ? bytes : content);
    struct stat s {};
    ASSERT_EQ(::lstat((home_.state + "/recorder").c_str(), &s), 0);
    if (name == "identity") return;
    auto identity = read_identity(home_.state);
    ASSERT_TRUE(identity);
    identity->recorder_inode = s.st_ino;
    write_identity(home_, *identity);
  }
  struct Outcome {
    std::vector<std::string> logs;
    std::vector<std::string> spans;
    std::string problem;
    bool taken = false;
    std::uint64_t dropped = 0;
    bool sums = true;
    [[nodiscard]] bool whole() const { return logs.size() == 4 && spans.size() == 1; }
  };
  // As the destination would that the process had.
  Outcome recover() {
    Outcome outcome;
    Recoverer recoverer(scratch_.path());
    const auto dead = recoverer.recover(home_.id);
    for (const std::string& line : recoverer.said.lines) outcome.problem += line + "\n";
    if (!dead) return outcome;
    outcome.taken = true;
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      const auto cursor = dead->journal->cursor("sink", signal, true);
      if (!cursor) continue;
      const auto read = testing::read_all(*cursor);
      for (const std::string& text : read.logs) outcome.logs.push_back(text);
      for (const std::string& span : read.names()) outcome.spans.push_back(span);
      outcome.dropped += cursor->counts().dropped;
      outcome.sums = outcome.sums && adds_up(cursor->counts());
    }
    return outcome;
  }
  // The journal alone, as it lies there: much faster.
  Outcome look() {
    Outcome outcome;
    testing::Said said;
    Journal journal(Journal::Found{}, home_, JournalConfig{}, said.diagnostics);
    outcome.taken = true;
    for (const auto& name : journal.cursors()) {
      if (name.signal != Signal::logs) continue;
      const auto cursor = journal.cursor(name.name, name.signal, true);
      for (const std::string& text : testing::read_all(*cursor).logs) outcome.logs.push_back(text);
      outcome.sums = outcome.sums && adds_up(cursor->counts());
    }
    outcome.problem = journal.extent().problem;
    return outcome;
  }
  // Nothing else was ever recorded.
  static bool only_what_was_recorded(const Outcome& outcome) {
    for (const std::string& text : outcome.logs) {
      if (text != "ring" && std::find(kJournaled.begin(), kJournaled.end(), text) == kJournaled.end()) return false;
    }
    return true;
  }

  inline static const std::vector<std::string> kJournaled = {"one", "two", "three"};
  ScratchDirectory scratch_;
  Home home_;
  std::map<std::string, std::string> good_;
  std::vector<std::string> names_;
  std::string segment_;
};

TEST_F(DamageTest, NothingIsMissingWhereNothingIsDamaged) {
  lay("", "");
  const Outcome outcome = recover();
  EXPECT_THAT(outcome.logs, ElementsAre("one", "two", "three", "ring"));
  EXPECT_THAT(outcome.spans, ElementsAre("open"));
  EXPECT_TRUE(outcome.sums);
}

TEST_F(DamageTest, AnyBitOfASegmentMayBeTurnedOver) {
  lay("", "");
  for (std::size_t bit = 0; bit < good_.at(segment_).size() * 8; ++bit) {
    put_bytes(home_.state + "/" + segment_, turned(segment_, bit));
    put_bytes(home_.state + "/cursors", good_.at("cursors"));  // a look moves them
    const Outcome outcome = look();
    ASSERT_TRUE(only_what_was_recorded(outcome)) << bit;
    ASSERT_TRUE(outcome.sums) << bit;
    if (outcome.logs.size() == 3) continue;
    ASSERT_THAT(outcome.problem, HasSubstr(home_.state + "/" + segment_ + ":")) << bit;
    ASSERT_THAT(outcome.problem, HasSubstr("at byte ")) << bit;
  }
}

TEST_F(DamageTest, WhatASegmentLosesIsCountedAndCostsNothingElse) {
  for (std::size_t bit = 0; bit < good_.at(segment_).size() * 8; bit += 8 * 5 + 1) {
    lay(segment_, turned(segment_, bit));
    const Outcome outcome = recover();
    ASSERT_TRUE(outcome.taken) << bit;
    ASSERT_TRUE(only_what_was_recorded(outcome)) << bit;
    ASSERT_THAT(outcome.logs, Contains("ring")) << "what was elsewhere is there: " << bit;
    ASSERT_THAT(outcome.spans, ElementsAre("open")) << bit;
    ASSERT_TRUE(outcome.sums) << bit;
    ASSERT_EQ(outcome.logs.size() + outcome.dropped, 4u) << bit;
  }
}

TEST_F(DamageTest, AnyByteOfTheCursorsMayBeTurnedOver) {
  lay("", "");
  // Every byte, and by turns each of its bits: one checksum covers them all.
  for (std::size_t bit = 0; bit < good_.at("cursors").size() * 8; bit += 9) {
    put_bytes(home_.state + "/cursors", turned("cursors", bit));
    const Outcome outcome = look();
    ASSERT_TRUE(only_what_was_recorded(outcome)) << bit;
    ASSERT_TRUE(outcome.sums) << bit;
    if (outcome.logs.size() == 3) continue;
    ASSERT_THAT(outcome.problem, HasSubstr("/cursors: the cursor at byte ")) << bit;
  }
}

TEST_F(DamageTest, ARecordersDamageCostsItsOwnPartOnly) {
  // The header, the lanes' headers, the blocks and rings in use: other bytes are zeros that nobody reads.
  const std::string& good = good_.at("recorder");
  std::vector<std::size_t> used;
  for (std::size_t at = 0; at < good.size(); ++at) {
    if (good[at] != 0) used.push_back(at);
  }
  for (std::size_t i = 0; i < used.size(); i += 11) {
    std::string bytes = good;
    bytes[used[i]] = static_cast<char>(bytes[used[i]] ^ 1 << i % 8);
    lay("recorder", bytes);
    const Outcome outcome = recover();
    ASSERT_TRUE(outcome.taken) << used[i];
    for (const std::string& text : kJournaled) ASSERT_THAT(outcome.logs, Contains(text)) << used[i];
  }
}

TEST_F(DamageTest, EveryFileMayBeCutAnywhere) {
  for (const std::string& name : {segment_, std::string("cursors"), std::string("scopes"), std::string("identity")}) {
    const std::string& good = good_.at(name);
    for (std::size_t size = 0; size < good.size(); size += name == "cursors" ? 97 : 7) {
      lay(name, good.substr(0, size));
      const Outcome outcome = recover();
      ASSERT_TRUE(only_what_was_recorded(outcome)) << name << " cut at " << size;
      ASSERT_TRUE(outcome.sums) << name << " cut at " << size;
      if (name == "identity") {
        // The service's name is the last in it, and of no account.
        const bool whole = size > good.find("closed=") + 8;
        for (const std::string& text : kJournaled) ASSERT_THAT(outcome.logs, Contains(text)) << name << " cut at " << size;
        ASSERT_EQ(outcome.problem.find(home_.state + "/identity: it is empty or was cut short") == std::string::npos, whole)
            << size << ": " << outcome.problem;
      }
      if (name == "cursors") {
        ASSERT_TRUE(outcome.whole()) << "nobody knows who has got what, so it gets everything: " << size;
        // The first copy of the last cursor is not needed.
        if (size < good.size() - kCursorSlotBytes) {
          ASSERT_THAT(outcome.problem, HasSubstr(home_.state + "/cursors: ")) << size;
        }
      }
    }
  }
  for (std::size_t size = 0; size < good_.at("recorder").size(); size += 40'961) {
    lay("recorder", good_.at("recorder").substr(0, size));
    const Outcome outcome = recover();
    ASSERT_TRUE(outcome.taken);
    for (const std::string& text : kJournaled) ASSERT_THAT(outcome.logs, Contains(text)) << "recorder cut at " << size;
  }
}

TEST_F(DamageTest, FilesMayBeMissingAndOthersMayBeThere) {
  for (const std::string& name : names()) {
    if (name == "identity" || name == "lock") continue;
    lay("", "");
    std::filesystem::remove(home_.state + "/" + name);
    const Outcome outcome = recover();
    EXPECT_TRUE(outcome.taken) << name;
    EXPECT_TRUE(only_what_was_recorded(outcome)) << name;
    EXPECT_TRUE(outcome.sums) << name;
    if (name == "scopes") {
      EXPECT_THAT(outcome.problem, HasSubstr(home_.state + "/scopes: "));
    }
    if (name == "cursors") {
      EXPECT_TRUE(outcome.whole());
      EXPECT_THAT(outcome.problem, HasSubstr(home_.state + "/cursors: "));
    }
  }
  lay("", "");
  put_bytes(home_.state + "/of somebody else", "text");
  std::filesystem::create_directory(home_.state + "/0000000000ffff00.seg");
  ASSERT_EQ(::mkfifo((home_.state + "/0000000000fffe00.seg").c_str(), 0600), 0);
  (void)recover();  // comes back
}

TEST_F(DamageTest, ASegmentOfAnotherVersionIsLeftAloneAndBothVersionsAreNamed) {
  std::string bytes = good_.at(segment_);
  SegmentHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.version = kLayoutVersion + 1;
  seal(header);
  std::memcpy(bytes.data(), &header, sizeof header);
  lay(segment_, bytes);
  const Outcome outcome = recover();
  EXPECT_THAT(outcome.logs, ElementsAre("ring"));
  EXPECT_THAT(outcome.problem, HasSubstr("layout " + std::to_string(kLayoutVersion + 1) + ", this program reads " +
                                         std::to_string(kLayoutVersion)));
  EXPECT_EQ(bytes_of(home_.state + "/" + segment_), bytes);
  EXPECT_EQ(outcome.dropped, 3u);
}

TEST_F(DamageTest, AHugeSparseFileIsNotReadToItsEnd) {
  for (const char* name : {"cursors", "scopes", "0000000000000000.seg", "00000000000f0000.seg", "recorder"}) {
    lay("", "");
    const std::string path = home_.state + "/" + name;
    if (!std::filesystem::exists(path)) put_bytes(path, good_.at(segment_));
    std::filesystem::resize_file(path, std::uintmax_t{1} << 40);
    const Outcome outcome = recover();
    EXPECT_TRUE(only_what_was_recorded(outcome)) << name;
    std::filesystem::remove(path);
  }
}

// ---- who may have put it there

TEST(TrustTest, ASubdirectoryThatIsALinkIsRefusedByName) {
  ScratchDirectory scratch;
  ScratchDirectory elsewhere;
  TestProcess process(elsewhere.path(), {.recorder = {.place = RecorderConfig::Place::state, .max_bytes = 1 << 20,
                                                      .ring_bytes = 512 * 1024}});
  process.log("one");
  process.die();
  std::filesystem::create_symlink(process.home.state, scratch.path() + "/" + process.home.id);
  Recoverer recoverer(scratch.path());
  EXPECT_EQ(recoverer.recover(process.home.id), nullptr);
  EXPECT_TRUE(recoverer.said.about(scratch.path() + "/" + process.home.id + ": expected a directory, not a link"));
}

TEST(TrustTest, AFileThatIsALinkIsNotFollowed) {
  ScratchDirectory scratch;
  const std::string precious = scratch.path() + "/precious";
  put_bytes(precious, "mine");
  TestProcess process(scratch.path(), {.recorder = {.place = RecorderConfig::Place::state, .max_bytes = 1 << 20,
                                                    .ring_bytes = 512 * 1024}});
  process.log("one");
  process.die();
  for (const char* name : {"cursors", "scopes", "0000000000000000.seg", "totals.new", "attempts.new"}) {
    std::filesystem::remove(process.home.state + "/" + name);
    std::filesystem::create_symlink(precious, process.home.state + "/" + name);
  }
  Recoverer recoverer(scratch.path());
  (void)recoverer.recover(process.home.id);
  EXPECT_EQ(bytes_of(precious), "mine");
}

TEST(TrustTest, AStateDirectoryOfSomebodyElseOrThatOthersMayWriteIsRefusedByName) {
  ScratchDirectory scratch;
  const std::string path = scratch.path() + "/state";
  ASSERT_TRUE(make_directory(path));
  const auto refusal = [&] {
    try {
      make_private_directory(path);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(), "");
  ASSERT_EQ(::chmod(path.c_str(), 0777), 0);
  EXPECT_THAT(refusal(), HasSubstr(path + ": others may write to it (mode 0777), expected 0700"));
  ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
  EXPECT_EQ(refusal(), "") << "what lies in it is private anyway";
  if (::geteuid() != 0) GTEST_SKIP() << "only the superuser can give a directory away";
  ASSERT_EQ(::chown(path.c_str(), 4711, 4711), 0);
  EXPECT_THAT(refusal(), HasSubstr(path + ": belongs to user 4711"));
}

TEST(TrustTest, WhateverTheUmaskFilesAndDirectoriesAreTheOwnersAlone) {
  ScratchDirectory scratch;
  const mode_t before = ::umask(0777);
  std::string problems;
  {
    TestProcess process(scratch.path() + "/deep/state");
    process.log("one");
    process.drain();
    const auto look = [&](const std::string& directory) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        struct stat s {};
        ::lstat(entry.path().c_str(), &s);
        if ((s.st_mode & 07777) != (S_ISDIR(s.st_mode) ? 0700u : 0600u)) problems += entry.path().string() + " ";
      }
    };
    look(scratch.path());
    look(process.home.memory);
  }
  ::umask(before);
  EXPECT_EQ(problems, "");
}

}  // namespace
}  // namespace waymark::journal
