#include "journal/recorder.h"

#include <gmock/gmock.h>

#include <barrier>
#include <set>
#include <thread>

#include "journal/process.h"
#include "waymark/error.h"

namespace waymark::journal {
namespace {

using ::testing::ElementsAre;
using testing::Contents;
using testing::contents_of;
using testing::ScratchDirectory;
using testing::TestProcess;

// One lane of a megabyte, four of half a megabyte; the last of these is shared.
constexpr RecorderConfig kFive{.max_bytes = 4 << 20, .ring_bytes = 1 << 20};
// One lane, of the smallest size, which all threads share.
constexpr RecorderConfig kOne{.max_bytes = 1 << 20, .ring_bytes = 512 * 1024};

char letter(int i) { return static_cast<char>('a' + i % 26); }

class RecorderTest : public ::testing::Test {
 protected:
  std::unique_ptr<Recorder> make(const RecorderConfig& config) { return Recorder::create(config, "", 1); }
  // Publishes a log record of about so many bytes; false: refused.
  static bool put(Recorder& recorder, std::string_view text) {
    const std::string body = testing::log_body(text);
    Lane& lane = *recorder.lane();
    char* p = recorder.ring_reserve(lane, Signal::logs, 0, otlp::field_size(body.size()));
    if (p == nullptr) return false;
    otlp::put_field(p, 0x12, body);
    recorder.publish(lane);
    return true;
  }
  // Takes everything out of a lane, as the collector does.
  static std::vector<std::string> take(Lane& lane) {
    std::vector<std::string> texts;
    std::uint64_t tail = lane.shared->tail.load();
    const std::uint64_t head = lane.shared->head.load();
    while (tail < head) {
      const std::uint64_t offset = tail % lane.ring_bytes;
      const auto length = static_cast<std::size_t>(std::min(head - tail, lane.ring_bytes - offset));
      EXPECT_TRUE(for_each_record(lane.ring + offset, length, 0, [&](const Record& record, std::size_t) {
        texts.push_back(to_text(otlp::read_log(record.body).body));
        return true;
      }));
      tail += length;
    }
    lane.shared->tail.store(tail);
    return texts;
  }
};

TEST_F(RecorderTest, ALaneIsLentToOneThreadAndGivenBackAtItsEnd) {
  const auto recorder = make(kFive);
  Lane* const ours = recorder->lane();
  EXPECT_EQ(recorder->lane(), ours);
  Lane* first = nullptr;
  Lane* second = nullptr;
  std::thread([&] { first = recorder->lane(); }).join();
  std::thread([&] { second = recorder->lane(); }).join();
  EXPECT_NE(first, ours);
  EXPECT_EQ(second, first);
  EXPECT_EQ(first->shared->thread.load(), 0u) << "nobody has it now";
  EXPECT_EQ(ours->shared->thread.load(), Recorder::thread());
}

TEST_F(RecorderTest, MoreThreadsThanLanesShareTheLastOnes) {
  const auto recorder = make(kFive);
  constexpr int kThreads = 8;
  std::barrier all_have_one(kThreads);
  std::vector<Lane*> lanes(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      lanes[static_cast<std::size_t>(i)] = recorder->lane();
      all_have_one.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::multiset<Lane*> lent(lanes.begin(), lanes.end());
  std::size_t shared = 0;
  for (Lane* lane : lanes) {
    if (lane->is_shared) {
      ++shared;
    } else {
      EXPECT_EQ(lent.count(lane), 1u);
    }
  }
  EXPECT_EQ(recorder->lanes().size(), 5u);
  EXPECT_EQ(shared, kThreads - 4u);
}

TEST_F(RecorderTest, ThreadsOfASharedLaneLoseNothingOfEachOther) {
  ScratchDirectory scratch;
  TestProcess process(scratch.path(), {.recorder = kOne});
  ASSERT_TRUE(process.recorder->lane()->is_shared);
  constexpr int kThreads = 4;
  constexpr int kEach = 200;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        Lane& lane = *process.recorder->lane();
        lane.lock.lock();
        process.log(std::to_string(t));
        lane.lock.unlock();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(process.drain());
  std::map<std::string, int> seen;
  for (const std::string& text : contents_of(*process.journal).logs) ++seen[text];
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(seen[std::to_string(t)], kEach);
}

TEST_F(RecorderTest, BlocksAreReusedLastInFirstOut) {
  const auto recorder = make(kFive);
  Lane& lane = *recorder->lane();
  Block* const outer = recorder->take_block(lane);
  Block* const inner = recorder->take_block(lane);
  EXPECT_EQ(recorder->open_blocks(), 2u);
  recorder->release(lane, inner);
  EXPECT_EQ(recorder->take_block(lane), inner);
  recorder->release(lane, inner);
  recorder->release(lane, outer);
  EXPECT_EQ(recorder->take_block(lane), outer);
}

TEST_F(RecorderTest, MoreOpenRecordsThanALaneHasBlocksComeFromThePoolUntilItIsEmpty) {
  const auto recorder = make(kOne);
  Lane& lane = *recorder->lane();
  std::vector<Block*> blocks;
  while (Block* block = recorder->take_block(lane)) blocks.push_back(block);
  EXPECT_GT(blocks.size(), kLaneBlocks);
  EXPECT_EQ(std::set<Block*>(blocks.begin(), blocks.end()).size(), blocks.size());
  recorder->refuse(Signal::traces);
  EXPECT_EQ(recorder->refused()[0], 1u);
  EXPECT_EQ(recorder->offered()[0], 1u);
  for (Block* block : blocks) recorder->release(lane, block);
  EXPECT_EQ(recorder->open_blocks(), 0u);
  EXPECT_NE(recorder->take_block(lane), nullptr);
}

class RecordTest : public ::testing::Test {
 protected:
  ReadSpan finished(Block* block) {
    EXPECT_TRUE(process.finish(block));
    EXPECT_TRUE(process.drain());
    return contents_of(*process.journal).spans.back();
  }
  ScratchDirectory scratch;
  TestProcess process{scratch.path(), {.recorder = kFive}};
};

TEST_F(RecordTest, OneThatOutgrowsItsBlockBecomesAChain) {
  Block* block = process.open("grows");
  const std::size_t open = process.recorder->open_blocks();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(process.set(block, "key" + std::to_string(i), Value(std::string(100, 'x'))));
  }
  EXPECT_GT(process.recorder->open_blocks(), open);
  const ReadSpan span = finished(block);
  ASSERT_EQ(span.attributes.size(), 100u);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(span.attributes[static_cast<std::size_t>(i)].first, "key" + std::to_string(i));
    EXPECT_EQ(to_text(span.attributes[static_cast<std::size_t>(i)].second), std::string(100, 'x'));
  }
  EXPECT_EQ(process.recorder->open_blocks(), 0u) << "the chain went back";
}

TEST_F(RecordTest, OneFieldMayBeLargerThanABlock) {
  Block* block = process.open("large");
  ASSERT_TRUE(process.set(block, "before", Value(1)));
  ASSERT_TRUE(process.set(block, "large", Value(std::string(100'000, 'x'))));
  ASSERT_TRUE(process.set(block, "behind", Value(2)));
  std::vector<std::size_t> fields;
  process.recorder->for_each_field(block, [&](std::string_view field) {
    fields.push_back(field.size());
    return true;
  });
  EXPECT_EQ(fields.size(), 3u);
  const ReadSpan span = finished(block);
  EXPECT_EQ(find_string(span.attributes, "large"), std::string(100'000, 'x'));
  EXPECT_EQ(to_text(*find(span.attributes, "behind")), "2");
}

TEST_F(RecordTest, OneStopsGrowingAt256KiBAndIsStillPublished) {
  Block* block = process.open("too long");
  int kept = 0;
  while (process.set(block, "key" + std::to_string(kept), Value(std::string(1000, 'x')))) ++kept;
  EXPECT_GT(kept, 240);
  EXPECT_FALSE(process.set(block, "whole", Value(std::string(300'000, 'x'))));
  EXPECT_FALSE(process.set(block, "last", Value(std::string(10'000, 'x'))));
  const ReadSpan span = finished(block);
  EXPECT_EQ(span.attributes.size(), static_cast<std::size_t>(kept));
}

TEST_F(RecordTest, RepeatedKeysAreCompactedBeforeAnythingIsRefused) {
  Block* block = process.open("repeats");
  ASSERT_TRUE(process.set(block, "kept", Value("yes")));
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(process.set(block, "again", Value(std::string(1000, letter(i))), i > 0)) << i;
  }
  const ReadSpan span = finished(block);
  ASSERT_EQ(span.attributes.size(), 2u);
  EXPECT_EQ(find_string(span.attributes, "kept"), "yes");
  EXPECT_EQ(find_string(span.attributes, "again"), std::string(1000, letter(1999)));
  EXPECT_EQ(process.recorder->open_blocks(), 0u);
}

TEST_F(RecordTest, RepeatedFieldsLargerThanABlockAreCompactedToo) {
  Block* block = process.open("repeats");
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(process.set(block, "again", Value(std::string(5000, letter(i))), i > 0)) << i;
  }
  const ReadSpan span = finished(block);
  ASSERT_EQ(span.attributes.size(), 1u);
  EXPECT_EQ(find_string(span.attributes, "again"), std::string(5000, letter(199)));
}

TEST_F(RecordTest, AFullRecordIsCompactedBeforeAnythingIsRefused) {
  Block* block = process.open("full");
  int kept = 0;
  // 150 KiB that stay, then repeats up to the limit and beyond.
  for (; kept < 150; ++kept) {
    ASSERT_TRUE(process.set(block, "key" + std::to_string(kept), Value(std::string(1000, 'x'))));
  }
  for (int i = 0; i < 500; ++i) ASSERT_TRUE(process.set(block, "again", Value(std::string(1000, 'y')), i > 0)) << i;
  EXPECT_EQ(finished(block).attributes.size(), 151u);
}

TEST_F(RecordTest, ANameIsCutAtACharacter) {
  std::string name;
  while (name.size() < 2 * kMaximumTextBytes) name += "\xc3\xa4";
  Block* block = process.open("x" + name);
  const ReadSpan span = finished(block);
  EXPECT_EQ(span.name.size(), kMaximumTextBytes - 1);
  EXPECT_TRUE(valid_utf8(span.name));
}

TEST_F(RecordTest, TextsGoElsewhereWhereTheBlockIsFull) {
  Block* block = process.open("first");
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(process.set(block, "key" + std::to_string(i), Value(std::string(100, 'x'))));
  const std::string name(1000, 'n');
  block->name = process.recorder->put_text(block, name);
  const ReadSpan span = finished(block);
  EXPECT_EQ(span.name, name);
  EXPECT_EQ(span.attributes.size(), 40u);
  EXPECT_EQ(process.recorder->open_blocks(), 0u);
}

TEST_F(RecorderTest, TheRingComesAroundWithEveryRecordWhole) {
  const auto recorder = make(kOne);
  Lane& lane = *recorder->lane();
  std::vector<std::string> put_texts;
  std::vector<std::string> taken;
  for (int i = 0; lane.head < 5 * lane.ring_bytes; ++i) {
    const std::string text = std::to_string(i) + std::string(static_cast<std::size_t>(i * 7919 % 9000), 'x');
    if (put(*recorder, text)) {
      put_texts.push_back(text);
    } else {
      ADD_FAILURE() << "refused with room in the ring";
    }
    if (i % 10 == 9) {
      for (std::string& text_taken : take(lane)) taken.push_back(std::move(text_taken));
    }
  }
  for (std::string& text : take(lane)) taken.push_back(std::move(text));
  EXPECT_EQ(taken, put_texts);
}

TEST_F(RecorderTest, AFullRingRefusesTheNewestAndCounts) {
  const auto recorder = make(kOne);
  Lane& lane = *recorder->lane();
  std::uint64_t kept = 0;
  while (put(*recorder, std::string(1000, 'x'))) ++kept;
  EXPECT_FALSE(put(*recorder, std::string(1000, 'x')));
  const auto logs = static_cast<std::size_t>(Signal::logs);
  EXPECT_EQ(recorder->refused()[logs], 2u);
  EXPECT_EQ(recorder->offered()[logs], kept + 2);
  EXPECT_EQ(take(lane).size(), kept);
  EXPECT_TRUE(put(*recorder, "room again"));
  EXPECT_THAT(take(lane), ElementsAre("room again"));
}

TEST_F(RecorderTest, ARecordLargerThanTheLimitIsRefusedAndCounted) {
  const auto recorder = make(kOne);
  EXPECT_FALSE(put(*recorder, std::string(kMaximumRecordBytes, 'x')));
  EXPECT_EQ(recorder->refused()[static_cast<std::size_t>(Signal::logs)], 1u);
}

TEST_F(RecorderTest, AWriterThatMayWaitDoesSoAtMostAsLongAsItMay) {
  const auto recorder = make(kOne);
  while (put(*recorder, std::string(1000, 'x'))) {
  }
  recorder->set_waiting(true, std::chrono::milliseconds(20));
  EXPECT_FALSE(put(*recorder, std::string(1000, 'x')));
}

TEST_F(RecorderTest, AWriterThatWaitsGoesOnWhenThereIsRoom) {
  const auto recorder = make(kOne);
  Lane& lane = *recorder->lane();
  while (put(*recorder, std::string(1000, 'x'))) {
  }
  recorder->set_waiting(true, std::chrono::hours(1));
  bool good = false;
  const std::string waited(1000, 'w');  // as large as the others: it does not fit before there is room
  std::thread writer([&] { good = put(*recorder, waited); });  // the lane is shared
  take(lane);
  recorder->freed();
  writer.join();
  EXPECT_TRUE(good);
  EXPECT_THAT(take(lane), ElementsAre(waited));
}

TEST_F(RecorderTest, NobodyWaitsOnceWaitingIsOver) {
  const auto recorder = make(kOne);
  while (put(*recorder, std::string(1000, 'x'))) {
  }
  recorder->set_waiting(true, std::chrono::hours(1));
  bool good = true;
  std::thread writer([&] { good = put(*recorder, std::string(1000, 'x')); });
  recorder->set_waiting(false, {});
  writer.join();
  EXPECT_FALSE(good);
}

TEST_F(RecorderTest, OurOwnThreadsNeverWait) {
  const auto recorder = make(kOne);
  while (put(*recorder, std::string(1000, 'x'))) {
  }
  recorder->set_waiting(true, std::chrono::hours(1));
  std::thread([&] {
    own_thread = true;
    EXPECT_FALSE(put(*recorder, std::string(1000, 'x')));
  }).join();
}

TEST_F(RecorderTest, SizesOutOfRangeAreRefusedByName) {
  for (const std::size_t bytes : {std::size_t{1} << 19, (std::size_t{1} << 30) + 1}) {
    try {
      (void)make({.max_bytes = bytes, .ring_bytes = 1 << 20});
      FAIL() << bytes;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
      EXPECT_THAT(e.what(), ::testing::HasSubstr("recorder.max_bytes"));
    }
  }
}

TEST_F(RecorderTest, ItsFileIsPrivateAndReservedAsAWhole) {
  ScratchDirectory scratch;
  const std::string path = scratch.path() + "/recorder";
  const auto recorder = Recorder::create(kFive, path, 1);
  struct stat s {};
  ASSERT_EQ(::stat(path.c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777u, 0600u);
  EXPECT_EQ(static_cast<std::size_t>(s.st_size), recorder->bytes());
  EXPECT_GE(static_cast<std::size_t>(s.st_blocks) * 512, recorder->bytes()) << "a full disk would be a signal";
  EXPECT_THROW((void)Recorder::create(kFive, path, 1), Error) << "somebody else's";
}

TEST(WithoutRepeatsTest, KeepsTheLastOfEachKeyAndEverythingElseInOrder) {
  std::string stream;
  otlp::append_attribute(stream, 0x4a, "a", Value(1));
  std::string event("\x5a\x02\x12\x00", 4);
  stream += event;
  otlp::append_attribute(stream, 0x4a, "b", Value(1));
  otlp::append_attribute(stream, 0x4a, "a", Value(2));
  std::string expected = event;
  otlp::append_attribute(expected, 0x4a, "b", Value(1));
  otlp::append_attribute(expected, 0x4a, "a", Value(2));
  std::string kept;
  without_repeats(stream, kept);
  EXPECT_EQ(kept, expected);
}

}  // namespace
}  // namespace waymark::journal
