#include "journal/recovery.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <random>

#include "journal/checksum.h"
#include "journal/process.h"

namespace waymark::journal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::adds_up;
using testing::bytes_of;
using testing::Contents;
using testing::contents_of;
using testing::ProcessOptions;
using testing::put_bytes;
using testing::read_all;
using testing::Recoverer;
using testing::ScratchDirectory;
using testing::TestProcess;

class RecoveryTest : public ::testing::Test {
 protected:
  // Kills the process and recovers what it left.
  std::unique_ptr<RecoveredJournal> recovered(TestProcess& process) {
    process.die();
    return recoverer_.recover(process.home.id);
  }
  // Of every cursor of a dead journal, read to its end.
  static void expect_sums(const RecoveredJournal& recovered) {
    for (const Journal::CursorName& name : recovered.journal->cursors()) {
      const auto cursor = recovered.journal->cursor(name.name, name.signal, true);
      EXPECT_TRUE(adds_up(cursor->counts())) << "before, " << signal_name(name.signal);
      (void)read_all(*cursor);
      EXPECT_TRUE(adds_up(cursor->counts())) << "after, " << signal_name(name.signal);
      EXPECT_EQ(cursor->counts().pending, 0u);
    }
  }

  ScratchDirectory scratch_;
  Recoverer recoverer_{scratch_.path()};
};

TEST_F(RecoveryTest, DeliversWhatWasFinishedAndStillInItsRing) {
  TestProcess process(scratch_.path());
  ASSERT_TRUE(process.span("in the journal"));
  ASSERT_TRUE(process.drain());
  ASSERT_TRUE(process.span("in the ring"));
  ASSERT_TRUE(process.log("logged"));
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_TRUE(dead->fresh);
  EXPECT_THAT(contents_of(*dead->journal).names(), ElementsAre("in the journal", "in the ring"));
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("logged"));
  ASSERT_THAT(recoverer_.reports, SizeIs(1));
  const Recovered& found = recoverer_.reports[0];
  EXPECT_EQ(found.directory, process.home.id);
  EXPECT_EQ(found.process_id, 4711u);
  EXPECT_EQ(find_string(found.resource, "service.name"), "test");
  EXPECT_EQ(found.finished_spans, 1u) << "that were not in the journal yet";
  EXPECT_EQ(found.log_records, 1u);
  EXPECT_THAT(found.interrupted, IsEmpty());
  EXPECT_EQ(found.problem, "");
  expect_sums(*dead);
}

TEST_F(RecoveryTest, AnOpenSpanIsReportedAsInterruptedWithWhatItHad) {
  TestProcess process(scratch_.path());
  Block* block = process.open("task");
  ASSERT_TRUE(process.set(block, "bands", Value(4)));
  process.recorder->header().alive_ns = TestProcess::kStart + 500;
  const std::uint32_t thread = block->thread;
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  const Contents contents = contents_of(*dead->journal);
  const ReadSpan* span = contents.span("task");
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->status, StatusCode::error);
  EXPECT_THAT(span->status_message, HasSubstr("interrupted"));
  EXPECT_EQ(to_text(*find(span->attributes, "bands")), "4");
  EXPECT_EQ(to_text(*find(span->attributes, "workflow.interrupted")), "true");
  EXPECT_EQ(to_ns(span->end), TestProcess::kStart + 500) << "the last moment it was known alive";
  ASSERT_THAT(recoverer_.reports.at(0).interrupted, SizeIs(1));
  const InterruptedSpan& interrupted = recoverer_.reports[0].interrupted[0];
  EXPECT_EQ(interrupted.name, "task");
  EXPECT_EQ(interrupted.context.span_id, span->context.span_id);
  EXPECT_EQ(interrupted.thread_id, thread);
  EXPECT_FALSE(interrupted.crashed_here);
  EXPECT_EQ(to_ns(interrupted.start), TestProcess::kStart + 1);
  expect_sums(*dead);
}

TEST_F(RecoveryTest, AnInterruptedSpanEndsWithTheNewestRecordWhereThatIsLater) {
  TestProcess process(scratch_.path());
  process.open("task");
  process.recorder->header().alive_ns = TestProcess::kStart + 500;
  Block* inner = process.open("inner");
  ASSERT_TRUE(process.finish(inner, TestProcess::kStart + 900));
  const auto dead = recovered(process);
  EXPECT_EQ(to_ns(contents_of(*dead->journal).span("task")->end), TestProcess::kStart + 900);
}

TEST_F(RecoveryTest, TheCrashedThreadsSpansSaySo) {
  TestProcess process(scratch_.path());
  Block* guilty = process.open("guilty");
  Block* bystander = process.open("bystander");
  bystander->thread = 1;
  process.recorder->header().crash_thread = guilty->thread;
  process.recorder->header().crash_ns = TestProcess::kStart + 2;
  process.recorder->header().crash_signal = 11;
  const auto dead = recovered(process);
  for (const InterruptedSpan& span : recoverer_.reports.at(0).interrupted) {
    EXPECT_EQ(span.crashed_here, span.name == "guilty") << span.name;
  }
}

TEST_F(RecoveryTest, ACrashBeforeAnythingWasAskedForIsToldAndLeavesNothing) {
  TestProcess process(scratch_.path(), ProcessOptions{.destinations = {}});
  process.recorder->header().crash_thread = 1;
  process.recorder->header().crash_ns = TestProcess::kStart + 2;
  process.recorder->header().crash_signal = 6;
  const auto dead = recovered(process);
  EXPECT_EQ(recoverer_.reports.at(0).crash.signal, "SIGABRT");
  EXPECT_TRUE(contents_of(*dead->journal).logs.empty());
  EXPECT_TRUE(finish_recovered(*dead));
}

TEST_F(RecoveryTest, AStatusThatWasSetKeepsItsMessage) {
  TestProcess process(scratch_.path());
  Block* block = process.open("task");
  block->status_message = process.recorder->put_text(block, "no such tile");
  block->status = 2;
  const auto dead = recovered(process);
  EXPECT_EQ(contents_of(*dead->journal).span("task")->status_message, "no such tile");
}

TEST_F(RecoveryTest, ASpanThatEndedButWasNotYetPublishedIsFinished) {
  TestProcess process(scratch_.path());
  Block* block = process.open("ended");
  ASSERT_TRUE(process.set(block, "bands", Value(4)));
  Lane& lane = *process.recorder->lane();
  block->ring_lane = lane.index;
  block->ring_position = lane.head;
  block->end_ns = TestProcess::kStart + 7;
  const auto dead = recovered(process);
  const Contents contents = contents_of(*dead->journal);
  const ReadSpan* span = contents.span("ended");
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(to_ns(span->end), TestProcess::kStart + 7);
  EXPECT_EQ(span->status, StatusCode::unset);
  EXPECT_EQ(find(span->attributes, "workflow.interrupted"), nullptr);
  EXPECT_THAT(recoverer_.reports.at(0).interrupted, IsEmpty());
  EXPECT_EQ(recoverer_.reports[0].finished_spans, 1u);
  expect_sums(*dead);
}

TEST_F(RecoveryTest, ASpanInBothItsBlockAndItsRingCountsOnce) {
  TestProcess process(scratch_.path());
  Block* block = process.open("both");
  ASSERT_TRUE(process.recorder->publish_span(*process.recorder->lane(), block, TestProcess::kStart + 7));
  const auto dead = recovered(process);
  EXPECT_THAT(contents_of(*dead->journal).names(), ElementsAre("both"));
  EXPECT_EQ(recoverer_.reports.at(0).finished_spans, 1u);
  expect_sums(*dead);
}

TEST_F(RecoveryTest, AFrameWhoseRingSpaceWasNotFreedYetCountsOnce) {
  TestProcess process(scratch_.path());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(process.log("first " + std::to_string(i)));
  ASSERT_TRUE(process.drain());
  const Lane& lane = *process.recorder->lane();
  // As before the drain, but the frame stands.
  Drained& drained = lane.shared->drained[lane.shared->active.load()];
  drained.position = 0;
  for (auto& records : drained.records) records = 0;
  lane.shared->tail = 0;
  ASSERT_TRUE(process.log("second"));
  const auto dead = recovered(process);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("first 0", "first 1", "first 2", "second"));
  EXPECT_EQ(recoverer_.reports.at(0).log_records, 1u);
  expect_sums(*dead);
}

TEST_F(RecoveryTest, AChainOfBlocksIsPutTogether) {
  TestProcess process(scratch_.path());
  Block* block = process.open("long");
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(process.set(block, "key" + std::to_string(i), Value(std::string(100, 'x'))));
  ASSERT_TRUE(process.set(block, "large", Value(std::string(10'000, 'y'))));
  ASSERT_TRUE(process.set(block, "last", Value("there")));
  const auto dead = recovered(process);
  const Contents contents = contents_of(*dead->journal);
  const ReadSpan* span = contents.span("long");
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->attributes.size(), 63u);
  EXPECT_EQ(find_string(span->attributes, "large"), std::string(10'000, 'y'));
  EXPECT_EQ(find_string(span->attributes, "last"), "there");
}

TEST_F(RecoveryTest, OfARepeatedKeyTheLastValueCounts) {
  TestProcess process(scratch_.path());
  Block* block = process.open("repeats");
  ASSERT_TRUE(process.set(block, "again", Value(1)));
  ASSERT_TRUE(process.set(block, "other", Value(0)));
  ASSERT_TRUE(process.set(block, "again", Value(2), true));
  const auto dead = recovered(process);
  const Contents contents = contents_of(*dead->journal);
  const ReadSpan* span = contents.span("repeats");
  ASSERT_EQ(span->attributes.size(), 3u) << "again, other, workflow.interrupted";
  EXPECT_EQ(to_text(*find(span->attributes, "again")), "2");
}

TEST_F(RecoveryTest, AFieldThatWasHalfWrittenIsNotThere) {
  TestProcess process(scratch_.path());
  Block* block = process.open("half");
  ASSERT_TRUE(process.set(block, "whole", Value(1)));
  char* p = process.recorder->reserve(block, 100);
  ASSERT_NE(p, nullptr);
  std::memset(p, 0x4a, 50);
  const auto dead = recovered(process);
  const Contents contents = contents_of(*dead->journal);
  EXPECT_EQ(contents.span("half")->attributes.size(), 2u);
}

TEST_F(RecoveryTest, ABlockThatIsBeingFilledIsNoSpanYet) {
  TestProcess process(scratch_.path());
  Block* block = process.recorder->take_block(*process.recorder->lane());
  ASSERT_NE(block, nullptr);
  std::memset(block->trace_id, 1, 16);
  std::memset(block->span_id, 1, 8);
  const auto dead = recovered(process);
  EXPECT_THAT(contents_of(*dead->journal).spans, IsEmpty());
}

TEST_F(RecoveryTest, CountsOfADeadProcessAddUp) {
  TestProcess process(scratch_.path(), {.recorder = {.max_bytes = 1 << 20, .ring_bytes = 512 * 1024}});
  ASSERT_TRUE(process.log("delivered"));
  ASSERT_TRUE(process.drain());
  (void)read_all(process.cursor(Signal::logs));
  ASSERT_TRUE(process.log("journaled"));
  ASSERT_TRUE(process.drain());
  std::uint64_t refused = 1;
  while (process.log(std::string(5000, 'x'))) {
  }
  for (; refused < 5; ++refused) EXPECT_FALSE(process.log(std::string(5000, 'x')));
  const std::uint64_t offered = process.recorder->offered()[1];
  const auto dead = recovered(process);
  const auto cursor = dead->journal->cursor("sink", Signal::logs, true);
  (void)read_all(*cursor);
  const Counts counts = cursor->counts();
  EXPECT_EQ(counts.offered, offered);
  EXPECT_EQ(counts.dropped, refused);
  EXPECT_EQ(counts.delivered, offered - refused);
  EXPECT_TRUE(adds_up(counts));
}

OnRecord redacting() {
  return [](RecordEditor& record) {
    if (record.log() != nullptr && to_text(record.log()->body) == "secret") return Verdict::drop;
    if (record.span() != nullptr && find(record.span()->attributes, "token") != nullptr) {
      record.set_attribute("token", AnyValue{std::string("redacted")});
    }
    return Verdict::keep;
  };
}

TEST_F(RecoveryTest, WhatMustPassAHookWaitsForAProcessThatHasOne) {
  TestProcess process(scratch_.path(), {.hook = redacting()});
  ASSERT_TRUE(process.log("secret"));
  ASSERT_TRUE(process.log("plain"));
  ASSERT_TRUE(process.drain());
  ASSERT_TRUE(process.log("secret"));
  ASSERT_TRUE(process.log("also plain"));
  ASSERT_TRUE(process.set(process.open("task"), "token", Value("12345")));
  EXPECT_EQ(recovered(process), nullptr);
  EXPECT_TRUE(recoverer_.said.about("on_record"));
  EXPECT_THAT(recoverer_.reports, IsEmpty());
  Recoverer able(scratch_.path(), redacting());
  const auto dead = able.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  const Contents contents = contents_of(*dead->journal);
  EXPECT_THAT(contents.logs, ElementsAre("plain", "also plain"));
  EXPECT_EQ(find_string(contents.span("task")->attributes, "token"), "redacted");
  const auto logs = dead->journal->cursor("sink", Signal::logs, true);
  EXPECT_EQ(logs->counts().offered, 4u);
  EXPECT_EQ(logs->counts().filtered, 2u);
  expect_sums(*dead);
}

TEST_F(RecoveryTest, ARecorderThatIsGoneIsSaidAndTheJournalDelivered) {
  TestProcess process(scratch_.path());
  ASSERT_TRUE(process.log("journaled"));
  ASSERT_TRUE(process.drain());
  process.open("lost");
  std::filesystem::remove(process.recorder_path());
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(dead->found.problem, HasSubstr(process.recorder_path()));
  EXPECT_TRUE(recoverer_.said.about("is gone"));
  ASSERT_THAT(recoverer_.reports, SizeIs(1)) << "that it is dead, and what is lost, is told";
  EXPECT_EQ(recoverer_.reports[0].problem, dead->found.problem);
  EXPECT_EQ(recoverer_.reports[0].process_id, process.identity.process_id);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("journaled"));
}

TEST_F(RecoveryTest, ARecorderOfAnotherBootIsNotRead) {
  TestProcess process(scratch_.path());
  process.open("of another boot");
  process.identity.boot = "another";
  write_identity(process.home, process.identity);
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_TRUE(recoverer_.said.about("started anew"));
  EXPECT_THAT(contents_of(*dead->journal).spans, IsEmpty());
}

TEST_F(RecoveryTest, AFileThatOnlyHasTheRecordersNameIsNotRead) {
  TestProcess process(scratch_.path());
  process.open("of another");
  ++process.identity.recorder_inode;
  write_identity(process.home, process.identity);
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(contents_of(*dead->journal).spans, IsEmpty());
  EXPECT_NE(dead->found.problem, "");
}

TEST_F(RecoveryTest, AnotherLayoutIsLeftAlone) {
  TestProcess process(scratch_.path());
  process.log("one");
  process.identity.version = kLayoutVersion + 1;
  write_identity(process.home, process.identity);
  EXPECT_EQ(recovered(process), nullptr);
  EXPECT_TRUE(recoverer_.said.about("left alone"));
  EXPECT_TRUE(std::filesystem::exists(process.recorder_path()));
}

TEST_F(RecoveryTest, AProcessThatDiedUnbornLeavesNothing) {
  std::string id;
  {
    const OwnedHome unborn = create_home(scratch_.path(), RecorderConfig::Place::tmpfs);
    put_bytes(unborn.home.memory + "/recorder", "not yet");
    id = unborn.home.id;
  }
  EXPECT_EQ(recoverer_.recover(id), nullptr);
  EXPECT_FALSE(std::filesystem::exists(scratch_.path() + "/" + id));
  EXPECT_FALSE(std::filesystem::exists(memory_path(id)));
}

TEST_F(RecoveryTest, WhatIsDeliveredIsNotReadAgain) {
  TestProcess process(scratch_.path());
  process.log("one");
  auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    (void)read_all(*dead->journal->cursor("sink", signal, true));
  }
  finish_recovered(*dead);
  dead.reset();
  EXPECT_EQ(recoverer_.recover(process.home.id), nullptr);
  EXPECT_FALSE(std::filesystem::exists(memory_path(process.home.id)));
  EXPECT_TRUE(is_delivered(process.home.state));
}

TEST_F(RecoveryTest, MemoryIsFreedBeforeItsOwnerIsCalledDelivered) {
  TestProcess process(scratch_.path());
  process.log("one");
  auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  (void)read_all(*dead->journal->cursor("sink", Signal::logs, true));
  // The mark can't be made, as if the recoverer died before it.
  std::filesystem::create_directory(process.home.state + "/delivered.new");
  finish_recovered(*dead);
  dead.reset();
  EXPECT_FALSE(std::filesystem::exists(memory_path(process.home.id)));
  std::filesystem::remove(process.home.state + "/delivered.new");
  dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr) << "whoever comes next makes it";
  EXPECT_EQ(dead->found.problem, "");
  EXPECT_THAT(read_all(*dead->journal->cursor("sink", Signal::logs, true)).logs, IsEmpty());
  finish_recovered(*dead);
  EXPECT_TRUE(is_delivered(process.home.state));
}

TEST_F(RecoveryTest, WithTheRecorderInTheStateDirectoryCursorsOutliveTheirRecovererToo) {
  ProcessOptions in_state;
  in_state.recorder.place = RecorderConfig::Place::state;
  TestProcess process(scratch_.path(), in_state);
  process.log("one");
  auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  (void)read_all(*dead->journal->cursor("sink", Signal::logs, true));
  // The mark can't be made, as if the recoverer died before it.
  std::filesystem::create_directory(process.home.state + "/delivered.new");
  finish_recovered(*dead);
  dead.reset();
  std::filesystem::remove(process.home.state + "/delivered.new");
  dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  EXPECT_FALSE(dead->journal->extent().cursors_missing) << "nobody would ever finish it";
  const auto cursor = dead->journal->cursor("sink", Signal::logs, true);
  ASSERT_NE(cursor, nullptr);
  EXPECT_THAT(read_all(*cursor).logs, IsEmpty());
}

TEST_F(RecoveryTest, WhereTheCursorsAreLostWhoeverAsksGetsEverythingOnceAndItIsNeverCalledDelivered) {
  TestProcess process(scratch_.path());
  process.log("one");
  ASSERT_TRUE(process.drain());
  process.log("two");
  put_bytes(process.home.memory + "/cursors", "");
  auto dead = recovered(process);
  for (int start = 0; start < 3; ++start) {
    ASSERT_NE(dead, nullptr);
    EXPECT_TRUE(dead->journal->extent().cursors_missing) << start;
    EXPECT_THAT(dead->found.problem, HasSubstr(process.home.memory + "/cursors")) << start;
    EXPECT_TRUE(recoverer_.said.about("/cursors")) << start;
    const auto cursor = dead->journal->cursor(start < 2 ? "sink" : "another", Signal::logs, true);
    ASSERT_NE(cursor, nullptr);
    EXPECT_EQ(cursor->counts().pending, start == 1 ? 0u : 2u) << start;
    EXPECT_TRUE(adds_up(cursor->counts())) << start;
    EXPECT_EQ(read_all(*cursor).logs.size(), start == 1 ? 0u : 2u) << start;
    EXPECT_TRUE(adds_up(cursor->counts())) << start;
    finish_recovered(*dead);
    EXPECT_FALSE(is_delivered(process.home.state)) << "nobody knows who else waits for it";
    dead.reset();
    dead = recoverer_.recover(process.home.id);
  }
}

TEST_F(RecoveryTest, WhereOneCursorIsDamagedItsDestinationGetsEverythingAndTheOthersGoOn) {
  ProcessOptions two;
  two.destinations = {"first", "second"};
  TestProcess process(scratch_.path(), two);
  process.log("one");
  ASSERT_TRUE(process.drain());
  for (const char* name : {"first", "second"}) (void)read_all(process.cursor(Signal::logs, name));
  process.log("two");
  ASSERT_TRUE(process.drain());
  // Slots: the first's traces and logs, the second's.
  std::string bytes = bytes_of(process.home.memory + "/cursors");
  for (const std::size_t at : {2 * kCursorSlotBytes, 3 * kCursorSlotBytes}) bytes[at + 20] ^= 1;
  put_bytes(process.home.memory + "/cursors", bytes);
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(dead->found.problem, HasSubstr("/cursors: the cursor at byte 1024 is damaged"));
  EXPECT_THAT(read_all(*dead->journal->cursor("first", Signal::logs, true)).logs, ElementsAre("one", "two"));
  EXPECT_THAT(read_all(*dead->journal->cursor("second", Signal::logs, true)).logs, ElementsAre("two"));
  expect_sums(*dead);
  EXPECT_TRUE(dead->journal->extent().cursors_missing) << "nor is it known that the first was its only one";
}

TEST_F(RecoveryTest, WhereNothingWasRecordedNoCursorIsMissed) {
  TestProcess process(scratch_.path());
  std::filesystem::remove(process.home.memory + "/cursors");
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_EQ(dead->found.problem, "");
  EXPECT_FALSE(dead->journal->extent().cursors_missing);
}

TEST_F(RecoveryTest, WhoeverContinuesFindsTheSameOnce) {
  TestProcess process(scratch_.path());
  ASSERT_TRUE(process.log("one"));
  process.open("open");
  ASSERT_NE(recovered(process), nullptr);  // and dies at once
  const auto dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  EXPECT_FALSE(dead->fresh);
  EXPECT_THAT(recoverer_.reports, SizeIs(1));
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("one"));
  EXPECT_THAT(contents_of(*dead->journal).names(), ElementsAre("open"));
  expect_sums(*dead);
}

TEST_F(RecoveryTest, ARecovererThatDiedBeforeItsEndIsFollowedWithoutDuplicates) {
  TestProcess process(scratch_.path());
  ASSERT_TRUE(process.log("one"));
  process.open("open");
  const std::string recorder = process.recorder_path();
  ASSERT_EQ(::link(recorder.c_str(), (recorder + ".kept").c_str()), 0);
  ASSERT_NE(recovered(process), nullptr);
  // As if it had died when all was appended, and nothing said of it yet.
  ASSERT_EQ(::link((recorder + ".kept").c_str(), recorder.c_str()), 0);
  std::filesystem::remove(process.home.state + "/totals");
  const auto dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("one"));
  EXPECT_THAT(contents_of(*dead->journal).names(), ElementsAre("open"));
  EXPECT_THAT(recoverer_.reports, SizeIs(2)) << "told at least once";
  expect_sums(*dead);
}

TEST_F(RecoveryTest, NothingIsFreedThatCouldNotBeWritten) {
  TestProcess process(scratch_.path());
  ASSERT_TRUE(process.log("one"));
  process.die();
  // Where the new segment would be.
  const std::string segment = process.home.state + "/0000000000000000.seg";
  std::filesystem::create_directory(segment);
  EXPECT_EQ(recoverer_.recover(process.home.id), nullptr);
  EXPECT_TRUE(recoverer_.said.about("left for a later recovery"));
  EXPECT_TRUE(std::filesystem::exists(process.recorder_path()));
  EXPECT_THAT(recoverer_.reports, IsEmpty()) << "it is for whoever can";
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(recoverer_.recover(process.home.id), nullptr) << "a full disk is no reason to set it aside";
  }
  std::filesystem::remove(segment);
  const auto dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("one"));
}

TEST_F(RecoveryTest, WhatKillsItsRecoverersIsSetAside) {
  TestProcess process(scratch_.path());
  process.log("one");
  process.die();
  put_bytes(process.home.state + "/attempts", "1000");
  EXPECT_EQ(recoverer_.recover(process.home.id), nullptr);
  EXPECT_TRUE(recoverer_.said.about("set aside"));
  EXPECT_TRUE(std::filesystem::exists(scratch_.path() + "/damaged-" + process.home.id));
  EXPECT_THAT(list_homes(scratch_.path()), IsEmpty());
}

TEST_F(RecoveryTest, WhatIsToldOfARecorderThatIsGoneIsToldOnce) {
  TestProcess process(scratch_.path());
  ASSERT_TRUE(process.log("journaled"));
  ASSERT_TRUE(process.drain());
  std::filesystem::remove(process.recorder_path());
  process.die();
  EXPECT_NE(recoverer_.recover(process.home.id), nullptr);
  EXPECT_NE(recoverer_.recover(process.home.id), nullptr) << "for whoever continues";
  EXPECT_THAT(recoverer_.reports, SizeIs(1));
}

TEST_F(RecoveryTest, AfterThreeRecoveriesThatFailedADirectoryIsSetAside) {
  TestProcess process(scratch_.path());
  process.log("one");
  process.die();
  const auto failing = [](const Recovered&) { throw std::runtime_error("what it says makes no sense"); };
  Hook none(recoverer_.said.diagnostics);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(recover_directory(scratch_.path(), process.home.id, {}, none, recoverer_.said.diagnostics, failing), nullptr);
    EXPECT_THAT(list_homes(scratch_.path()), ElementsAre(process.home.id)) << "not before the third";
  }
  EXPECT_EQ(recoverer_.recover(process.home.id), nullptr);
  EXPECT_TRUE(std::filesystem::exists(scratch_.path() + "/damaged-" + process.home.id));
  EXPECT_TRUE(recoverer_.said.about("makes no sense"));
  EXPECT_TRUE(recoverer_.said.about("failed 3 times; set aside"));
}

TEST_F(RecoveryTest, ADirectoryThatFailedOnceIsRecoveredByOneWhoCan) {
  TestProcess process(scratch_.path());
  process.log("one");
  process.die();
  Hook none(recoverer_.said.diagnostics);
  EXPECT_EQ(recover_directory(scratch_.path(), process.home.id, {}, none, recoverer_.said.diagnostics,
                              [](const Recovered&) { throw std::bad_alloc(); }),
            nullptr);
  const auto dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("one"));
  EXPECT_FALSE(std::filesystem::exists(process.home.state + "/attempts"));
}

TEST_F(RecoveryTest, AProgramThatDiesAtEveryStartDoesNotCostItsRecordsAtOnce) {
  TestProcess process(scratch_.path());
  process.log("one");
  process.die();
  put_bytes(process.home.state + "/attempts", "5");
  ASSERT_NE(recoverer_.recover(process.home.id), nullptr);
  EXPECT_FALSE(std::filesystem::exists(process.home.state + "/attempts"));
}

TEST_F(RecoveryTest, ADamagedLaneCostsItselfOnly) {
  TestProcess process(scratch_.path(), {.recorder = {.max_bytes = 4 << 20, .ring_bytes = 1 << 20}});
  ASSERT_TRUE(process.log("in a damaged lane"));
  Lane* const damaged = process.recorder->lane();
  std::thread([&] { ASSERT_TRUE(process.log("in a good lane")); }).join();
  Block* open = process.open("open");
  ASSERT_NE(open, nullptr);
  damaged->shared->head = std::uint64_t{1} << 60;
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("in a good lane"));
  EXPECT_THAT(contents_of(*dead->journal).names(), ElementsAre("open"));
  EXPECT_THAT(recoverer_.reports.at(0).problem, HasSubstr("lane 0"));
}

TEST_F(RecoveryTest, ADamagedRecordCostsTheRestOfItsLane) {
  TestProcess process(scratch_.path());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(process.log(std::to_string(i)));
  const Lane& lane = *process.recorder->lane();
  RecordHeader header;
  std::memcpy(&header, lane.ring, sizeof header);
  const std::size_t second = header.bytes();
  header.framed = 0xFFFFFF;
  std::memcpy(lane.ring + second, &header, sizeof header);
  const auto dead = recovered(process);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("0"));
  EXPECT_THAT(recoverer_.reports.at(0).problem, HasSubstr("damaged"));
  EXPECT_GT(recoverer_.reports[0].damaged_bytes, 0u);
}

TEST_F(RecoveryTest, ARecordThatCannotBeReadIsNotSentAndCountsAsDropped) {
  TestProcess process(scratch_.path());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(process.log(std::to_string(i)));
  const Lane& lane = *process.recorder->lane();
  RecordHeader header;
  std::memcpy(&header, lane.ring, sizeof header);
  // Within the second record's body: what a stray write of the dying process does.
  std::memset(lane.ring + header.bytes() + sizeof header + 2, 0xff, 8);
  Block* block = process.open("damaged");
  ASSERT_TRUE(process.set(block, "key", Value(1)));
  std::memset(block->payload + 2, 0xff, 4);
  process.open("good");
  const auto dead = recovered(process);
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("0", "2"));
  EXPECT_THAT(contents_of(*dead->journal).names(), ElementsAre("good"));
  EXPECT_THAT(recoverer_.reports.at(0).problem, HasSubstr("damaged"));
  const auto cursor = dead->journal->cursor("sink", Signal::logs, true);
  EXPECT_EQ(cursor->counts().offered, 3u);
  EXPECT_EQ(cursor->counts().dropped, 1u);
  expect_sums(*dead);
}

TEST_F(RecoveryTest, ADamagedHeaderIsSaid) {
  TestProcess process(scratch_.path());
  ASSERT_TRUE(process.log("journaled"));
  ASSERT_TRUE(process.drain());
  process.recorder->header().lanes = 1'000'000;
  const auto dead = recovered(process);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(dead->found.problem, HasSubstr("header is damaged"));
  EXPECT_THAT(contents_of(*dead->journal).logs, ElementsAre("journaled"));
}

TEST_F(RecoveryTest, NumbersThatFitNothingAreNotFollowed) {
  for (const bool sealed_header : {false, true}) {
    std::mt19937_64 random(20260101);
    for (int round = 0; round < 150; ++round) {
      TestProcess process(scratch_.path(), {.recorder = {.max_bytes = 1 << 20, .ring_bytes = 512 * 1024}});
      for (int i = 0; i < 3; ++i) process.log(std::string(300, 'x'));
      process.span("finished");
      Block* block = process.open("open");
      for (int i = 0; i < 40; ++i) process.set(block, "key" + std::to_string(i), Value(std::string(100, 'x')));
      RecorderHeader& header = process.recorder->header();
      // Words of the header, the lane, the blocks in use and the ring, by what numbers may go wrong by.
      const std::size_t lanes = header.lanes_offset;
      const std::size_t blocks = header.blocks_offset;
      // Where a shared lane's blocks come from, and chains go on.
      const std::size_t pool = blocks + kLaneBlocks * kBlockBytes;
      const std::size_t ring = process.recorder->lane()->shared->ring_offset;
      const auto word = [&](std::size_t from, std::size_t bytes) {
        char* p = reinterpret_cast<char*>(&header) + from + random() % (bytes / 8) * 8;
        const std::uint64_t values[] = {random(), UINT64_MAX, std::uint64_t{1} << (random() % 64), 0, UINT32_MAX, 7,
                                        std::uint64_t{UINT32_MAX} << 32};
        const std::uint64_t value = values[random() % std::size(values)];
        std::memcpy(p, &value, sizeof value);
      };
      for (int i = 0; i < 1 + round % 4; ++i) {
        if (sealed_header) word(8, offsetof(RecorderHeader, checksum) - 8);
        word(lanes, kLaneHeaderBytes);
        word(blocks, sizeof(BlockHeader));
        word(pool + random() % 3 * kBlockBytes, sizeof(BlockHeader));
        word(ring, 1024);
      }
      if (sealed_header) {
        header.version = kLayoutVersion;
        seal(header);
      }
      const auto dead = recovered(process);
      if (dead) (void)contents_of(*dead->journal);
    }
  }
}

}  // namespace
}  // namespace waymark::journal
