#include "journal/journal.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/inotify.h>

#include "journal/small_journal.h"

namespace waymark::journal {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::adds_up;
using testing::bytes_of;
using testing::Contents;
using testing::contents_of;
using testing::kLogs;
using testing::put_bytes;
using testing::read_all;

using JournalTest = testing::SmallJournal;

TEST_F(JournalTest, ReadsAcrossSegmentsWhatWasAppendedInOrder) {
  const auto journal = make(home());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(put(*journal, i));
  EXPECT_GT(segments_in(home().state).size(), 4u);
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 20));
  EXPECT_THAT(read_all(*cursor).logs, IsEmpty());
  EXPECT_EQ(cursor->lag_bytes(), 0u);
  const Counts counts = cursor->counts();
  EXPECT_EQ(counts.offered, 20u);
  EXPECT_EQ(counts.delivered, 20u);
  EXPECT_TRUE(adds_up(counts));
}

TEST_F(JournalTest, WhatWasNotAcknowledgedIsReadAgain) {
  const auto journal = make(home());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(put(*journal, i));
  int taken = 0;
  const std::uint64_t position = cursor->read([&](const Record&) { return ++taken <= 3; });
  EXPECT_EQ(cursor->counts().pending, 10u);
  cursor->abandon();
  taken = 0;
  EXPECT_EQ(cursor->read([&](const Record&) { return ++taken <= 3; }), position);
  cursor->acknowledge(position, {.delivered = 2, .rejected = 1});
  EXPECT_EQ(cursor->counts().pending, 7u);
  EXPECT_TRUE(adds_up(cursor->counts()));
  EXPECT_EQ(read_all(*cursor).logs, texts(3, 10));
}

TEST_F(JournalTest, EachCursorHasItsOwnSignalAndItsOwnPlace) {
  const auto journal = make(home());
  const auto logs = journal->cursor("a", Signal::logs, true);
  const auto traces = journal->cursor("a", Signal::traces, true);
  ASSERT_TRUE(put(*journal, 0));
  const auto late = journal->cursor("b", Signal::logs, true);
  ASSERT_TRUE(put(*journal, 1));
  EXPECT_EQ(read_all(*logs).logs, texts(0, 2));
  EXPECT_THAT(read_all(*traces).logs, IsEmpty());
  EXPECT_EQ(read_all(*late).logs, texts(1, 2)) << "a new one starts at the next record";
  EXPECT_TRUE(adds_up(logs->counts()));
  EXPECT_TRUE(adds_up(late->counts()));
  EXPECT_EQ(late->counts().offered, 1u);
}

TEST_F(JournalTest, AFullJournalTakesTheOldestFromLossyCursorsAndCountsThem) {
  const auto journal = make(home(), small(4));
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(put(*journal, i));
  const Counts counts = cursor->counts();
  EXPECT_GT(counts.dropped, 20u);
  EXPECT_TRUE(adds_up(counts));
  const auto dropped = static_cast<int>(counts.dropped);
  EXPECT_EQ(read_all(*cursor).logs, texts(dropped, 40));
  EXPECT_TRUE(adds_up(cursor->counts()));
  EXPECT_LE(journal->bytes(), 4 * kSegment);
  EXPECT_TRUE(said_.about("the journal is full"));
}

TEST_F(JournalTest, WhatAFullJournalKeepsIsInItsFiles) {
  for (const bool memory : {false, true}) {
    const Home where = memory ? home(true) : home();
    const auto journal = make(where, small(4));
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(put(*journal, i));
    journal->stop_moving();  // a file that moves meanwhile is seen in neither directory
    const auto kept = texts(static_cast<int>(cursor->counts().dropped), 40);
    std::vector<std::string> in_files;
    for (const std::string& directory : memory ? std::vector{where.state, where.memory} : std::vector{where.state}) {
      for (const std::string& name : segments_in(directory)) {
        const std::string bytes = bytes_of(directory + "/" + name);
        for (const std::string& text : kept) {
          if (bytes.find(text) != std::string::npos) in_files.push_back(text);
        }
      }
    }
    EXPECT_THAT(in_files, ::testing::UnorderedElementsAreArray(kept));
    std::filesystem::remove_all(where.state);
    totals_ = {};
  }
}

TEST_F(JournalTest, NothingIsTakenFromUnderABatchInFlight) {
  const auto journal = make(home(), small(4));
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  ASSERT_TRUE(put(*journal, 0));
  int taken = 0;
  const std::uint64_t position = cursor->read([&](const Record&) { return ++taken <= 1; });
  int kept = 1;
  while (put(*journal, kept)) ASSERT_LT(++kept, 100);
  --totals_.offered[kLogs];  // a record that waits in its ring is tried again
  EXPECT_EQ(cursor->counts().dropped, 0u);
  cursor->acknowledge(position, {.delivered = 1});
  ASSERT_TRUE(put(*journal, kept));
  EXPECT_GT(cursor->counts().dropped, 0u) << "in flight no longer";
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(JournalTest, ALosslessCursorHoldsTheJournal) {
  const auto journal = make(home(), small(4));
  const auto lossless = journal->cursor("keeps", Signal::logs, false);
  const auto lossy = journal->cursor("may lose", Signal::logs, true);
  int kept = 0;
  while (put(*journal, kept)) ASSERT_LT(++kept, 100);
  --totals_.offered[kLogs];
  EXPECT_EQ(lossless->counts().dropped, 0u);
  EXPECT_EQ(lossy->counts().dropped, 0u);
  EXPECT_EQ(read_all(*lossless).logs, texts(0, kept));
  ASSERT_TRUE(put(*journal, kept));
  EXPECT_EQ(lossless->counts().dropped, 0u);
  EXPECT_GT(lossy->counts().dropped, 0u);
}

TEST_F(JournalTest, WithoutAStateDirectoryMemoryIsTheLimit) {
  JournalConfig config = small(1000);
  config.memory_bytes = 4 * kSegment;
  const auto journal = make({}, config);
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(put(*journal, i));
  EXPECT_LE(journal->bytes(), 4 * kSegment);
  EXPECT_TRUE(adds_up(cursor->counts()));
  EXPECT_GT(cursor->counts().dropped, 0u);
}

TEST_F(JournalTest, DeliveredSegmentsNeverReachTheStateDirectory) {
  JournalConfig config = small(1000);
  config.memory_bytes = 4 * kSegment;
  const Home where = home(true);
  const auto journal = make(where, config);
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(put(*journal, i));
    EXPECT_EQ(read_all(*cursor).logs, texts(i, i + 1));
  }
  EXPECT_THAT(segments_in(where.state), IsEmpty());
  EXPECT_LE(segments_in(where.memory).size(), 4u);
}

TEST_F(JournalTest, FullSegmentsThatAreStillNeededMoveToTheStateDirectory) {
  JournalConfig config = small(1000);
  config.memory_bytes = 8 * kSegment;
  const Home where = home(true);
  const File inotify(inotify_init1(IN_CLOEXEC));
  ASSERT_GE(inotify_add_watch(inotify.fd(), where.state.c_str(), IN_MOVED_TO), 0);
  const auto journal = make(where, config);
  const auto cursor = journal->cursor("sink", Signal::logs, false);
  constexpr int kRecords = 100;
  for (int i = 0; i < kRecords; ++i) {
    while (!put(*journal, i)) {
      // The memory is full: the writer thread moves a segment.
      --totals_.offered[kLogs];
      pollfd moved{inotify.fd(), POLLIN, 0};
      ASSERT_EQ(poll(&moved, 1, 30'000), 1);
      alignas(inotify_event) char events[4096];
      ASSERT_GT(read(inotify.fd(), events, sizeof events), 0);
    }
  }
  EXPECT_THAT(segments_in(where.state), Contains("0000000000000000.seg"));
  EXPECT_LE(segments_in(where.memory).size(), 8u);
  EXPECT_EQ(read_all(*cursor).logs, texts(0, kRecords));
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(JournalTest, AReaderIsNotDisturbedByTheMove) {
  JournalConfig config = small(100'000);
  config.memory_bytes = 4 * kSegment;
  const auto journal = make(home(true), config);
  const auto cursor = journal->cursor("sink", Signal::logs, false);
  constexpr int kRecords = 2000;
  std::thread reader([&] {
    std::vector<std::string> all;
    while (all.size() < kRecords) {
      for (std::string& text : read_all(*cursor).logs) all.push_back(std::move(text));
    }
    EXPECT_EQ(all, texts(0, kRecords));
  });
  for (int i = 0; i < kRecords; ++i) {
    while (!put(*journal, i)) --totals_.offered[kLogs], std::this_thread::yield();
  }
  reader.join();
}

TEST_F(JournalTest, ACleanEndKeepsTheNewestOfWhatWasDeliveredAndAllThatIsNeeded) {
  JournalConfig config = small(1000);
  config.keep_bytes = 3 * kSegment;
  const Home where = home(true);
  auto journal = make(where, config);
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(put(*journal, i));
  (void)read_all(*cursor);
  EXPECT_TRUE(journal->close());
  EXPECT_THAT(segments_in(where.memory), IsEmpty());
  const auto kept = segments_in(where.state);
  EXPECT_GE(kept.size(), 2u);
  EXPECT_LE(kept.size(), 4u);
  EXPECT_FALSE(put(*journal, 41)) << "closed";
  const std::vector<std::string> logs = contents_of(*found(where)).logs;
  EXPECT_EQ(logs.back(), text_of(39));
}

TEST_F(JournalTest, ACleanEndKeepsWhatSomebodyStillNeedsHoweverLittleMayStay) {
  JournalConfig config = small(1000);
  config.keep_bytes = 0;
  const Home where = home(true);
  auto journal = make(where, config);
  {
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(put(*journal, i));
    int taken = 0;
    const std::uint64_t position = cursor->read([&](const Record&) { return ++taken <= 10; });
    cursor->acknowledge(position, {.delivered = 10});
  }
  EXPECT_TRUE(journal->close());
  journal.reset();
  const auto again = found(where);
  const auto cursor = again->cursor("sink", Signal::logs, true);
  ASSERT_NE(cursor, nullptr);
  EXPECT_EQ(read_all(*cursor).logs, texts(10, 40));
}

TEST_F(JournalTest, EveryCursorOfADeadProcessIsFoundAgain) {
  for (int count = 1; count <= 5; ++count) {
    Home where = home();
    where.state += std::to_string(count);
    where.memory = where.state;
    std::filesystem::create_directory(where.state);
    {
      const auto journal = make(where);
      for (int i = 0; i < count; ++i) (void)journal->cursor("sink " + std::to_string(i), Signal::logs, true);
      ASSERT_TRUE(put(*journal, 0));
    }
    const auto journal = found(where);
    EXPECT_EQ(journal->cursors().size(), static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      const auto cursor = journal->cursor("sink " + std::to_string(i), Signal::logs, true);
      ASSERT_NE(cursor, nullptr) << "cursor " << i << " of " << count;
      EXPECT_EQ(read_all(*cursor).logs, texts(0, 1));
    }
    EXPECT_EQ(journal->cursor("nobody", Signal::logs, true), nullptr);
    EXPECT_EQ(journal->cursor("sink 0", Signal::traces, true), nullptr);
  }
}

TEST_F(JournalTest, ACursorSurvivesATornWriteOfItsNewestSlot) {
  const Home where = home();
  {
    const auto journal = make(where);
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(put(*journal, i));
      (void)read_all(*cursor);
    }
  }
  const std::string path = where.memory + "/cursors";
  const std::string good = bytes_of(path);
  for (const std::size_t slot : {std::size_t{0}, kCursorSlotBytes}) {
    std::string torn = good;
    for (std::size_t i = slot + 200; i < std::min(slot + kCursorSlotBytes, torn.size()); ++i) torn[i] = '\x5a';
    put_bytes(path, torn);
    const auto journal = found(where);
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    ASSERT_NE(cursor, nullptr);
    EXPECT_LE(read_all(*cursor).logs.size(), 1u) << "at most what the torn write had acknowledged";
  }
  // Cut at any byte.
  for (std::size_t size = 0; size < good.size(); size += 31) {
    put_bytes(path, good.substr(0, size));
    const auto journal = found(where);
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    if (cursor) {
      EXPECT_LE(read_all(*cursor).logs.size(), 4u);
    }
  }
}

TEST_F(JournalTest, ABadRecordCostsItsFrameOnly) {
  const Home where = home();
  {
    const auto journal = make(where);
    (void)journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(put(*journal, i));
  }
  const std::string path = where.state + "/0000000000000000.seg";
  std::string bytes = bytes_of(path);
  const auto frames = frames_of(bytes);
  ASSERT_EQ(frames.size(), 3u);
  bytes[frames[1] + sizeof(FrameHeader) + 100] ^= 1;
  put_bytes(path, bytes);
  const auto journal = found(where);
  EXPECT_GT(journal->extent().damaged_bytes, 0u);
  EXPECT_THAT(journal->extent().problem, HasSubstr(path));
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  EXPECT_THAT(read_all(*cursor).logs, ElementsAre(text_of(0), text_of(2)));
  EXPECT_EQ(cursor->counts().dropped, 1u);
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(JournalTest, ABadFrameHeaderCostsTheRestOfItsSegment) {
  const Home where = home();
  {
    const auto journal = make(where);
    (void)journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(put(*journal, i));
  }
  const std::string path = where.state + "/0000000000000000.seg";
  const std::string good = bytes_of(path);
  const auto frames = frames_of(good);
  ASSERT_EQ(frames.size(), 4u);
  const std::string cursors = bytes_of(where.memory + "/cursors");
  for (std::size_t at = 0; at < sizeof(FrameHeader) - sizeof(std::uint64_t); ++at) {
    std::string bytes = good;
    bytes[frames[1] + at] ^= 0x10;
    put_bytes(path, bytes);
    put_bytes(where.memory + "/cursors", cursors);
    const auto journal = found(where);
    EXPECT_GT(journal->extent().damaged_bytes, 0u) << at;
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    const std::vector<std::string> logs = read_all(*cursor).logs;
    ASSERT_FALSE(logs.empty());
    EXPECT_EQ(logs.front(), text_of(0));
    EXPECT_EQ(logs.back(), text_of(7)) << "the next segment is whole";
    EXPECT_EQ(logs.size(), 5u);
  }
}

TEST_F(JournalTest, ATornLastFrameIsNoDamage) {
  const Home where = home();
  {
    const auto journal = make(where);
    (void)journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(put(*journal, i));
  }
  const std::string path = where.state + "/0000000000000000.seg";
  const std::string good = bytes_of(path);
  const auto frames = frames_of(good);
  for (std::size_t size = frames[2]; size < good.size(); size += 7) {
    put_bytes(path, good.substr(0, size));
    const auto journal = found(where);
    EXPECT_EQ(journal->extent().damaged_bytes, 0u) << size;
    EXPECT_EQ(journal->extent().lanes.at(0).end, 2 * lane_ / 3) << "the ring still has the third";
    EXPECT_EQ(contents_of(*journal).logs, texts(0, 2));
  }
}

// The segments that lie in memory one after the other, each in what the one before it held.
class UsedSegmentTest : public JournalTest {
 protected:
  static constexpr std::size_t kBytes = 32 * 1024;
  static constexpr std::size_t kPage = 4096;
  void SetUp() override {
    JournalConfig config = small(1000);
    config.segment_bytes = kBytes;
    config.memory_bytes = 2 * kBytes;
    journal_ = make(where_, config);
    cursor_ = journal_->cursor("sink", Signal::logs, true);
    while (segments_in(where_.memory).empty() || !is_used(newest())) {
      ASSERT_LT(records_, 1000) << "no segment's memory was used again";
      ASSERT_TRUE(put(*journal_, records_++));
      (void)read_all(*cursor_);
    }
  }
  [[nodiscard]] std::string newest() const { return where_.memory + "/" + segments_in(where_.memory).back(); }
  static bool is_used(const std::string& path) {
    SegmentHeader header;
    const std::string bytes = bytes_of(path);
    std::memcpy(&header, bytes.data(), sizeof header);
    return header.used != 0;
  }
  // As whoever comes after a kill finds them.
  std::unique_ptr<Journal> found_copy(const std::string& segment, const std::string& bytes) {
    Home copy = where_;
    copy.state = scratch_.path() + "/copy";
    copy.memory = copy.state + "/memory";
    std::filesystem::remove_all(copy.state);
    std::filesystem::copy(where_.state, copy.state);
    std::filesystem::copy(where_.memory, copy.memory);
    put_bytes(copy.memory + "/" + segment.substr(segment.rfind('/') + 1), bytes);
    return found(copy);
  }

  const Home where_ = home(true);
  std::unique_ptr<Journal> journal_;
  std::shared_ptr<Cursor> cursor_;
  int records_ = 0;
};

TEST_F(UsedSegmentTest, EndsWhereItsFramesEnd) {
  EXPECT_LE(std::filesystem::file_size(newest()), kBytes + kPage);
  for (int left = 0; left < 3; ++left) {
    const auto copy = found_copy(newest(), bytes_of(newest()));
    EXPECT_EQ(copy->extent().damaged_bytes, 0u) << left << ": " << copy->extent().problem;
    EXPECT_EQ(read_all(*copy->cursor("sink", Signal::logs, true)).logs, texts(records_ - left, records_));
    ASSERT_TRUE(put(*journal_, records_++));
  }
}

TEST_F(UsedSegmentTest, AWriteThatEndedBetweenTwoPagesIsNoDamage) {
  const int before = records_;
  int torn = 0;
  for (; torn < 8 && records_ < before + 25; ++records_) {
    const std::string path = newest();
    const std::string old_bytes = bytes_of(path);
    const std::size_t begin = frames_of(old_bytes).empty() ? sizeof(SegmentHeader) : [&] {
      FrameHeader last;
      const std::size_t at = frames_of(old_bytes).back();
      std::memcpy(&last, old_bytes.data() + at, sizeof last);
      return at + sizeof last + last.bytes;
    }();
    ASSERT_TRUE(put(*journal_, records_));
    if (newest() != path) break;
    const std::string bytes = bytes_of(path);
    const std::size_t page = (begin / kPage + 1) * kPage;
    if (page >= frames_of(bytes).back() + sizeof(FrameHeader) + 900) continue;
    ++torn;
    const auto copy = found_copy(path, bytes.substr(0, page) + old_bytes.substr(std::min(page, old_bytes.size())));
    EXPECT_EQ(copy->extent().damaged_bytes, 0u) << copy->extent().problem;
    EXPECT_EQ(read_all(*copy->cursor("sink", Signal::logs, true)).logs, texts(before, records_));
  }
  EXPECT_GT(torn, 2);
}

TEST_F(UsedSegmentTest, ADamagedFrameIsSaid) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(put(*journal_, records_++));
  std::string bytes = bytes_of(newest());
  const auto frames = frames_of(bytes);
  bytes[frames[frames.size() - 1] + sizeof(FrameHeader) + 100] ^= 1;
  const auto last = found_copy(newest(), bytes);
  EXPECT_GT(last->extent().damaged_bytes, 0u) << "its end stands behind it, so it had been whole";
  EXPECT_EQ(read_all(*last->cursor("sink", Signal::logs, true)).logs, texts(records_ - 3, records_ - 1));
}

TEST_F(UsedSegmentTest, AFrameWhoseFirstWordIsNotThereYetIsTheEnd) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(put(*journal_, records_++));
  std::string bytes = bytes_of(newest());
  const std::size_t last = frames_of(bytes).back();
  bytes.replace(last, sizeof FrameHeader::magic, sizeof FrameHeader::magic, '\0');
  const auto copy = found_copy(newest(), bytes);
  EXPECT_EQ(copy->extent().damaged_bytes, 0u) << copy->extent().problem;
  EXPECT_EQ(read_all(*copy->cursor("sink", Signal::logs, true)).logs, texts(records_ - 3, records_ - 1));
}

TEST_F(UsedSegmentTest, ACleanEndLeavesNoneBehind) {
  ASSERT_TRUE(put(*journal_, std::string(2 * kBytes, 'l'))) << "a frame larger than a segment is a new file";
  (void)read_all(*cursor_);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(put(*journal_, records_++));
    (void)read_all(*cursor_);
  }
  std::uint64_t held = 0;
  for (const std::string& name : list_directory(where_.memory)) {
    if (name.ends_with(".seg") || name.starts_with("spare")) held += std::filesystem::file_size(where_.memory + "/" + name);
  }
  EXPECT_LE(held, 4 * kBytes) << "memory_bytes, and two that wait for their turn";
  cursor_.reset();
  EXPECT_TRUE(journal_->close());
  EXPECT_THAT(list_directory(where_.memory), ElementsAre("scopes"));
}

TEST_F(UsedSegmentTest, OneThatGotItsNameAndNothingElseHoldsNothing) {
  const std::string path = newest();
  const std::string old_bytes = bytes_of(path);
  char next[32];
  std::snprintf(next, sizeof next, "/%016llx.seg", static_cast<unsigned long long>(journal_->end()));
  const auto copy = found_copy(next, old_bytes);
  EXPECT_EQ(copy->extent().damaged_bytes, 0u);
  EXPECT_THAT(read_all(*copy->cursor("sink", Signal::logs, true)).logs, IsEmpty());
}

TEST_F(JournalTest, ASegmentCutAnywhereGivesWhatStandsBeforeTheCut) {
  const Home where = home();
  {
    const auto journal = make(where);
    (void)journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(put(*journal, i));
  }
  const std::string path = where.state + "/0000000000000000.seg";
  const std::string good = bytes_of(path);
  for (std::size_t size = 0; size < good.size(); size += 61) {
    put_bytes(path, good.substr(0, size));
    const auto journal = found(where);
    const std::vector<std::string> logs = contents_of(*journal).logs;
    EXPECT_EQ(logs, texts(0, static_cast<int>(logs.size())));
  }
}

TEST_F(JournalTest, WhatCannotBeASegmentIsNamedAndLeftOut) {
  const Home where = home();
  {
    const auto journal = make(where);
    (void)journal->cursor("sink", Signal::logs, true);
    ASSERT_TRUE(put(*journal, 0));
  }
  std::string bytes = bytes_of(where.state + "/0000000000000000.seg");
  const std::string other = where.state + "/00000000000f0000.seg";
  put_bytes(other, "");
  EXPECT_EQ(found(where)->extent().damaged_bytes, 0u) << "a process may die before it has written the header";
  bytes[8] = 9;  // the version
  put_bytes(other, bytes);
  const auto journal = found(where);
  EXPECT_EQ(journal->extent().damaged_bytes, bytes.size());
  EXPECT_THAT(journal->extent().problem, HasSubstr(other));
  EXPECT_EQ(contents_of(*journal).logs, texts(0, 1));
}

TEST_F(JournalTest, WhatRecoveryAddsIsReadAlsoWhereTheSegmentsBeforeAreGone) {
  const Home where = home();
  {
    const auto journal = make(where);
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(put(*journal, i));
    (void)read_all(*cursor);
  }
  for (const std::string& name : segments_in(where.state)) {
    std::string bytes = bytes_of(where.state + "/" + name);
    bytes[17] ^= 1;  // in the header
    put_bytes(where.state + "/" + name, bytes);
  }
  const auto journal = found(where);
  ASSERT_TRUE(put(*journal, 100));
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  EXPECT_EQ(read_all(*cursor).logs, texts(100, 101)) << "behind every cursor, whatever was lost";
}

TEST_F(JournalTest, ADamagedSegmentIsNotWrittenOver) {
  const Home where = home();
  {
    const auto journal = make(where);
    (void)journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(put(*journal, i));
  }
  const std::string path = where.state + "/0000000000000000.seg";
  std::string bytes = bytes_of(path);
  bytes[17] ^= 1;
  put_bytes(path, bytes);
  ASSERT_TRUE(put(*found(where), 100));
  EXPECT_EQ(bytes_of(path), bytes) << "somebody may want to look at it";
}

TEST_F(JournalTest, ResourceAndScopesAreFoundAgain) {
  const Home where = home();
  {
    const auto journal = make(where);
    journal->set_resource("resource");
    EXPECT_EQ(journal->add_scope({"one", ""}), 0);
    EXPECT_EQ(journal->add_scope({"two", "schema"}), 1);
    EXPECT_EQ(journal->add_scope({"one", ""}), 0);
    EXPECT_EQ(journal->add_scope({"one", "schema"}), 2);
  }
  {
    const auto journal = found(where);
    EXPECT_EQ(journal->resource(), "resource");
    EXPECT_EQ(journal->scope(1).encoded, "two");
    EXPECT_EQ(journal->scope(1).schema_url, "schema");
    EXPECT_EQ(journal->scope(3).encoded, "");
  }
  const std::string path = where.state + "/scopes";
  const std::string good = bytes_of(path);
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] ^= 0x41;
    put_bytes(path, bytes);
    (void)found(where)->scope(2);
    put_bytes(path, good.substr(0, at));
    (void)found(where)->scope(2);
  }
}

TEST_F(JournalTest, ItsFilesArePrivate) {
  const Home where = home(true);
  const auto journal = make(where);
  (void)journal->cursor("sink", Signal::logs, true);
  journal->set_resource("resource");
  ASSERT_TRUE(put(*journal, 0));
  int files = 0;
  for (const std::string& directory : {where.state, where.memory}) {
    for (const std::string& name : list_directory(directory)) {
      struct stat s {};
      ASSERT_EQ(::stat((directory + "/" + name).c_str(), &s), 0);
      EXPECT_EQ(s.st_mode & 0777u, 0600u) << name;
      ++files;
    }
  }
  EXPECT_EQ(files, 4);
}

}  // namespace
}  // namespace waymark::journal
