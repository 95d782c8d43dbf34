// What the journal does where its disk fails, is slow, or is gone; and when what it wrote is on the disk.
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <functional>

#include "journal/checksum.h"
#include "journal/directory.h"
#include "journal/journal.h"
#include "journal/small_journal.h"
#include "support/faulty_calls.h"
#include "waymark/error.h"

namespace waymark::journal {
namespace {

using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::adds_up;
using testing::bytes_of;
using testing::contents_of;
using testing::kLogs;
using testing::put_bytes;
using testing::read_all;
using waymark::testing::Call;
using waymark::testing::CallFaults;

constexpr std::chrono::seconds kLong{30};

class DiskTest : public testing::SmallJournal {
 protected:
  DiskTest() : where_(home(true)) {}
  // Eight segments in memory, at most.
  JournalConfig config() {
    JournalConfig c = small(1000);
    c.memory_bytes = 8 * kSegment;
    return c;
  }
  bool in_state(const Call& call) const { return call.path.starts_with(where_.state + "/"); }
  bool in_memory(const Call& call) const { return call.path.starts_with(where_.memory + "/"); }
  // Puts a record that finds no room again when there may be some.
  void put_for_certain(Journal& journal, int i) {
    const Deadline deadline = deadline_after(std::chrono::seconds(30));
    while (!put(journal, i)) {
      --totals_.offered[kLogs];
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
  }

  Home where_;
};

struct Fault {
  const char* call;
  int error;
};
class DiskFaultTest : public DiskTest, public ::testing::WithParamInterface<Fault> {};

TEST_P(DiskFaultTest, RecordsStayInMemoryAndGoToTheDiskOnceTheyCan) {
  std::atomic<bool> broken{true};
  CallFaults faults([&](const Call& call) {
    const bool segment = call.path.ends_with(".seg.new") || call.path.ends_with(".seg");
    return broken && call.name == GetParam().call && in_state(call) && segment ? GetParam().error : 0;
  });
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  // The seventh segment is as much as the memory holds.
  for (int i = 0; i < 27; ++i) put_for_certain(*journal, i);
  ASSERT_TRUE(said_.hears("state directory " + where_.state + ": cannot be written: " + errno_text(GetParam().error)));
  EXPECT_TRUE(said_.about(errno_advice(GetParam().error)));
  EXPECT_THAT(segments_in(where_.state), IsEmpty());
  EXPECT_EQ(cursor->counts().dropped, 0u);
  broken = false;
  ASSERT_TRUE(said_.hears("is written again"));
  for (int i = 27; i < 60; ++i) put_for_certain(*journal, i);
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 60)) << "nothing is lost";
  EXPECT_TRUE(adds_up(cursor->counts()));
  EXPECT_THAT(segments_in(where_.state), SizeIs(Gt(0u)));
  EXPECT_EQ(said_.times("cannot be written"), 1u);
  EXPECT_EQ(said_.times("is written again"), 1u);
}

INSTANTIATE_TEST_SUITE_P(OfEachKind, DiskFaultTest,
                         ::testing::Values(Fault{"open", ENOSPC}, Fault{"open", EROFS}, Fault{"open", EACCES},
                                           Fault{"open", EMFILE}, Fault{"pwritev", ENOSPC}, Fault{"pwritev", EDQUOT},
                                           Fault{"pwritev", EIO}, Fault{"rename", EIO}),
                         [](const auto& fault) {
                           return std::string(fault.param.call) + std::to_string(fault.param.error);
                         });

TEST_F(DiskTest, BeyondTheMemoryTheOldestGoesAndIsCounted) {
  CallFaults faults([&](const Call& call) { return in_state(call) && call.name == "open" ? EROFS : 0; });
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 100; ++i) put_for_certain(*journal, i);
  EXPECT_LE(journal->bytes(), config().memory_bytes);
  const auto dropped = static_cast<int>(cursor->counts().dropped);
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(read_all(*cursor).logs, texts(dropped, 100)) << "the oldest, and nothing else";
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(DiskTest, WhatIsOnAFullDiskGoesBeforeWhatIsNewer) {
  std::atomic<bool> full{false};
  CallFaults faults([&](const Call& call) { return full && in_state(call) && call.name == "pwritev" ? ENOSPC : 0; });
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 60; ++i) put_for_certain(*journal, i);
  ASSERT_THAT(segments_in(where_.state), SizeIs(Gt(2u)));
  full = true;
  for (int i = 60; i < 160; ++i) put_for_certain(*journal, i);
  const auto dropped = static_cast<int>(cursor->counts().dropped);
  EXPECT_EQ(read_all(*cursor).logs, texts(dropped, 160));
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(DiskTest, WhatCannotBeWrittenKeepsWhatIsOnItAndLosesWhatIsInMemory) {
  std::atomic<bool> broken{false};
  CallFaults faults([&](const Call& call) { return broken && in_state(call) && call.name == "open" ? EIO : 0; });
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 60; ++i) put_for_certain(*journal, i);
  const std::size_t on_disk = segments_in(where_.state).size();
  ASSERT_GT(on_disk, 2u);
  broken = true;
  for (int i = 60; i < 160; ++i) put_for_certain(*journal, i);
  EXPECT_GE(segments_in(where_.state).size(), on_disk) << "taking these would make no room";
  const std::vector<std::string> logs = read_all(*cursor).logs;
  ASSERT_FALSE(logs.empty());
  EXPECT_EQ(logs.front(), text_of(0));
  EXPECT_EQ(logs.back(), text_of(159));
  EXPECT_EQ(logs.size() + cursor->counts().dropped, 160u);
  EXPECT_TRUE(std::is_sorted(logs.begin(), logs.end(), [](const auto& a, const auto& b) {
    return std::stoi(a.substr(7)) < std::stoi(b.substr(7));
  })) << "in order";
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(DiskTest, ABatchThatWaitsIsReadAnewWhereTheMiddleOfItWasTaken) {
  std::atomic<bool> broken{false};
  CallFaults faults([&](const Call& call) { return broken && in_state(call) && call.name == "open" ? EIO : 0; });
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 60; ++i) put_for_certain(*journal, i);
  broken = true;
  const std::uint64_t position = cursor->read([](const Record&) { return true; });
  cursor->abandon();
  for (int i = 60; i < 160; ++i) put_for_certain(*journal, i);
  ASSERT_GT(cursor->counts().dropped, 0u);
  EXPECT_FALSE(cursor->retake(position));
  const std::size_t read = read_all(*cursor).logs.size();
  EXPECT_EQ(read + cursor->counts().dropped, 160u);
}

TEST_F(DiskTest, AFullTmpfsSendsNewSegmentsToTheStateDirectory) {
  std::atomic<bool> full{false};
  CallFaults faults([&](const Call& call) { return full && in_memory(call) && call.name == "pwritev" ? ENOSPC : 0; });
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(put(*journal, i));
  full = true;
  for (int i = 6; i < 20; ++i) ASSERT_TRUE(put(*journal, i));
  EXPECT_THAT(segments_in(where_.memory), SizeIs(2u));
  EXPECT_THAT(segments_in(where_.state), SizeIs(Gt(2u)));
  EXPECT_TRUE(said_.about("journal " + where_.memory + ": cannot be written: " + errno_text(ENOSPC)));
  full = false;
  for (int i = 20; i < 30; ++i) ASSERT_TRUE(put(*journal, i));
  EXPECT_TRUE(said_.about("journal " + where_.memory + ": is written again"));
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 30));
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(DiskTest, WhereBothAreFullTheProcesssOwnMemoryTakesIt) {
  std::atomic<bool> full{true};
  CallFaults faults([&](const Call& call) { return full && call.name == "pwritev" ? ENOSPC : 0; });
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(put(*journal, i));
  EXPECT_THAT(segments_in(where_.memory), IsEmpty());
  EXPECT_THAT(segments_in(where_.state), IsEmpty());
  full = false;
  ASSERT_TRUE(said_.hears("state directory " + where_.state + ": is written again"));
  for (int i = 20; i < 30; ++i) ASSERT_TRUE(put(*journal, i));
  ASSERT_TRUE(journal->close());
  EXPECT_EQ(contents_of(*found(where_)).logs, texts(0, 30)) << "nothing of it died with the process";
}

TEST_F(DiskTest, AFrameThatWasHalfWrittenIsThereOnce) {
  // Half of it comes through, then the disk is full.
  std::atomic<int> calls{0};
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  ASSERT_TRUE(put(*journal, 0));
  const std::string path = where_.memory + "/" + segments_in(where_.memory).front();
  const std::string before = bytes_of(path);
  {
    CallFaults faults([&](const Call& call) {
      if (call.name == "ftruncate") return EIO;
      if (call.name != "pwritev" || call.path != path || calls++ > 0) return 0;
      // As if the kernel had written all of it and failed afterwards.
      const std::string frame = before.substr(sizeof(SegmentHeader));
      FrameHeader header;
      std::memcpy(&header, frame.data(), sizeof header);
      header.position = before.size();
      header.header_checksum = checksum(&header, offsetof(FrameHeader, header_checksum));
      std::string bytes = before + frame;
      std::memcpy(bytes.data() + before.size(), &header, sizeof header);
      put_bytes(path, bytes);
      return EIO;
    });
    ASSERT_TRUE(put(*journal, 1));
  }
  ASSERT_TRUE(put(*journal, 2));
  EXPECT_EQ(contents_of(*found(where_)).logs, texts(0, 3)) << "the one that was given up is not believed";
}

TEST_F(DiskTest, ALimitOfFileSizesMakesSegmentsSmallerAndEndsNobody) {
  const NoFileSizeSignal quiet;
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  for (const rlim_t most : {rlim_t{3000}, rlim_t{500}}) {
    const rlimit limit{most, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    bool good = true;
    for (int i = 0; i < 10; ++i) good = put(*journal, i) && good;
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_TRUE(good) << most;
    EXPECT_EQ(read_all(*cursor).logs, texts(0, 10)) << most;
  }
  EXPECT_TRUE(said_.about("ulimit -f"));
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(DiskTest, ADirectoryThatIsRemovedUnderALivingProcessIsMadeAnew) {
  const auto journal = make(where_, config());
  journal->on_vanished([&] { return make_directory(where_.state); });
  journal->set_resource("resource");
  const std::uint16_t scope = journal->add_scope({"scope", ""});
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 40; ++i) put_for_certain(*journal, i);
  ASSERT_THAT(segments_in(where_.state), SizeIs(Gt(1u)));
  std::filesystem::rename(where_.state, scratch_.path() + "/gone");  // at once: the journal's thread is busy in it
  int i = 40;
  for (; !said_.about("cannot be written"); ++i) put_for_certain(*journal, i);
  ASSERT_TRUE(said_.hears("is written again"));
  const int end = i + 40;
  for (; i < end; ++i) put_for_certain(*journal, i);
  EXPECT_TRUE(said_.about("cannot be written: " + errno_text(ENOENT)));
  ASSERT_TRUE(journal->close());
  const auto again = found(where_);
  EXPECT_EQ(again->resource(), "resource");
  EXPECT_EQ(again->scope(scope).encoded, "scope");
  EXPECT_EQ(contents_of(*again).logs, texts(0, end)) << "also what lay in files that had no name any more";
}

TEST_F(DiskTest, ADirectoryThatCannotBeMadeWholeAtOnceIsMadeWholeLater) {
  std::atomic<int> refusals{0};
  CallFaults faults([&](const Call& call) {
    const bool scopes = call.name == "open" && call.path == where_.state + "/scopes.new";
    return scopes && refusals++ == 0 ? ENOSPC : 0;
  });
  const auto journal = make(where_, config());
  journal->on_vanished([&] { return make_directory(where_.state); });
  journal->set_resource("resource");
  // Lossless: until the second try the memory may be full, and nothing is to be taken.
  const auto cursor = journal->cursor("sink", Signal::logs, false);
  for (int i = 0; i < 40; ++i) put_for_certain(*journal, i);
  ASSERT_THAT(segments_in(where_.state), SizeIs(Gt(1u)));
  std::filesystem::rename(where_.state, scratch_.path() + "/gone");  // at once: the journal's thread is busy in it
  int i = 40;
  for (; refusals == 0; ++i) put_for_certain(*journal, i);
  ASSERT_TRUE(said_.hears("is written again"));
  EXPECT_GT(refusals, 1);
  for (const int end = i + 40; i < end; ++i) put_for_certain(*journal, i);
  ASSERT_TRUE(journal->close());
  const auto again = found(where_);
  EXPECT_EQ(again->resource(), "resource");
  EXPECT_EQ(contents_of(*again).logs, texts(0, i)) << "also what the first try had not come to";
}

TEST_F(DiskTest, WhatIsDeliveredStaysWhileThatCannotBeWrittenDown) {
  std::atomic<bool> broken{false};
  CallFaults faults([&](const Call& call) { return broken && call.path.find("/cursors") != std::string::npos ? EIO : 0; });
  {
    const auto journal = make(where_, config());
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    broken = true;
    for (int i = 0; i < 60; ++i) {
      put_for_certain(*journal, i);
      EXPECT_THAT(read_all(*cursor).logs, SizeIs(1u));
    }
  }
  broken = false;
  const auto again = found(where_);
  again->set_totals(totals_);
  again->count_damage();
  const auto cursor = again->cursor("sink", Signal::logs, true);
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 60)) << "once more, as nobody knows it any more";
  EXPECT_EQ(cursor->counts().dropped, 0u);
}

// The machine's end, without a word to the journal: what lay on tmpfs is gone.
TEST_F(DiskTest, WhatTheStateDirectoryHoldsIsReadOnWithTheCursorsThatWentThereWithIt) {
  {
    const auto journal = make(where_, config());
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 10; ++i) put_for_certain(*journal, i);
    EXPECT_EQ(read_all(*cursor).logs, texts(0, 10));
    for (int i = 10; i < 60; ++i) put_for_certain(*journal, i);
    // It knows of destinations that came after the last segment was moved, too.
    (void)journal->cursor("later", Signal::logs, false);
    const Deadline deadline = deadline_after(kLong);
    while (CursorFile::load({where_.state + "/cursors"}).cursors.size() < 2) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
    EXPECT_THAT(segments_in(where_.memory), SizeIs(Gt(0u)));
  }
  remove_tree(where_.memory);
  for (int start = 0; start < 2; ++start) {
    const auto again = found(where_);
    EXPECT_FALSE(again->extent().cursors_missing);
    again->assume_totals();
    const auto cursor = again->cursor("sink", Signal::logs, true);
    ASSERT_NE(cursor, nullptr);
    EXPECT_TRUE(adds_up(cursor->counts()));
    const std::vector<std::string> logs = read_all(*cursor).logs;
    EXPECT_TRUE(adds_up(cursor->counts()));
    EXPECT_EQ(logs, start == 0 ? texts(10, 10 + static_cast<int>(logs.size())) : texts(0, 0)) << start;
    EXPECT_EQ(logs.empty(), start == 1);
    EXPECT_NE(again->cursor("later", Signal::logs, false), nullptr);
  }
}

TEST_F(DiskTest, ACursorBehindTheFirstSegmentReadsWhatIsThere) {
  std::string older;
  {
    const auto journal = make(where_, config());
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 60; ++i) put_for_certain(*journal, i);
    older = bytes_of(where_.state + "/cursors");
    ASSERT_FALSE(older.empty());
    EXPECT_EQ(read_all(*cursor).logs, texts(0, 60));
    for (int i = 60; i < 120; ++i) put_for_certain(*journal, i);
  }
  remove_tree(where_.memory);
  put_bytes(where_.state + "/cursors", older);
  const std::string first = segments_in(where_.state).front();
  std::filesystem::remove(where_.state + "/" + first);  // or it was freed, when all had it
  const auto again = found(where_);
  again->assume_totals();
  const auto cursor = again->cursor("sink", Signal::logs, true);
  const std::size_t pending = cursor->counts().pending;
  EXPECT_GT(pending, 0u);
  EXPECT_THAT(read_all(*cursor).logs, SizeIs(pending));
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(DiskTest, WhereOneOfTheCursorsTwoFilesIsLostTheOtherCounts) {
  {
    const auto journal = make(where_, config());
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 60; ++i) put_for_certain(*journal, i);
    EXPECT_EQ(read_all(*cursor).logs, texts(0, 60));
  }
  put_bytes(where_.memory + "/cursors", "");
  const auto again = found(where_);
  EXPECT_FALSE(again->extent().cursors_missing);
  // Some of it twice, or nothing: the other was written as of some time before the end, or at the end.
  const auto logs = read_all(*again->cursor("sink", Signal::logs, true)).logs;
  EXPECT_EQ(logs, texts(60 - static_cast<int>(logs.size()), 60));
}

TEST_F(DiskTest, AScopeThatIsNewWhileTheDiskIsDownIsFoundAfterTheProcesssEnd) {
  std::atomic<bool> broken{false};
  CallFaults faults([&](const Call& call) { return broken && in_state(call) ? EIO : 0; });
  std::uint16_t early = 0;
  std::uint16_t late = 0;
  {
    const auto journal = make(where_, config());
    journal->set_resource("resource");
    (void)journal->cursor("sink", Signal::logs, true);
    early = journal->add_scope({"early", ""});
    broken = true;
    late = journal->add_scope({"late", "schema"});
    ASSERT_TRUE(put(*journal, 0));
  }
  broken = false;
  for (int start = 0; start < 2; ++start) {
    const auto again = found(where_);
    EXPECT_EQ(again->extent().problem, "") << start;
    EXPECT_EQ(again->resource(), "resource") << start;
    EXPECT_EQ(again->scope(early).encoded, "early") << start;
    EXPECT_EQ(again->scope(late).encoded, "late") << start;
    EXPECT_EQ(again->scope(late).schema_url, "schema") << start;
    std::filesystem::remove(where_.memory + "/scopes");  // whoever recovers has put it on the disk
  }
}

// Whoever recovers, on a disk that is full.
class FullDiskRecoveryTest : public ::testing::Test {
 protected:
  testing::ScratchDirectory scratch_;
  testing::Recoverer recoverer_{scratch_.path()};
};

TEST_F(FullDiskRecoveryTest, WhatWasInARingIsDeliveredFromTheMemoryAndToldOnce) {
  testing::TestProcess process(scratch_.path());
  ASSERT_NE(process.home.memory, process.home.state) << "this needs a tmpfs";
  ASSERT_TRUE(process.log("one"));
  ASSERT_NE(process.open("open"), nullptr);
  process.die();
  {
    CallFaults faults([&](const Call& call) {
      return call.name == "pwritev" && call.path.starts_with(process.home.state + "/") ? ENOSPC : 0;
    });
    for (int start = 0; start < 2; ++start) {
      const auto dead = recoverer_.recover(process.home.id);
      ASSERT_NE(dead, nullptr) << start;
      EXPECT_EQ(dead->fresh, start == 0);
      const auto cursor = dead->journal->cursor("sink", Signal::logs, true);
      if (start == 0) {
        EXPECT_THAT(read_all(*cursor).logs, ElementsAre("one"));
        EXPECT_THAT(read_all(*dead->journal->cursor("sink", Signal::traces, true)).names(), ElementsAre("open"));
      }
      EXPECT_EQ(cursor->counts().delivered, 1u) << start;
      EXPECT_TRUE(adds_up(cursor->counts())) << start;
      EXPECT_FALSE(finish_recovered(*dead)) << "somebody's to finish once there is room";
    }
    EXPECT_TRUE(recoverer_.said.about("cannot be written: " + errno_text(ENOSPC)));
    EXPECT_THAT(recoverer_.reports, SizeIs(1));
  }
  const auto dead = recoverer_.recover(process.home.id);
  ASSERT_NE(dead, nullptr);
  EXPECT_FALSE(dead->fresh);
  EXPECT_THAT(read_all(*dead->journal->cursor("sink", Signal::logs, true)).logs, IsEmpty());
  EXPECT_TRUE(finish_recovered(*dead));
  EXPECT_TRUE(is_delivered(process.home.state));
  EXPECT_FALSE(std::filesystem::exists(process.home.memory));
}

TEST_F(FullDiskRecoveryTest, NoMemoryIsTakenForAFileThatOnlyClaimsToBeARecorder) {
  testing::TestProcess process(scratch_.path(), {.recorder = {.place = RecorderConfig::Place::state, .max_bytes = 1 << 20,
                                                              .ring_bytes = 512 * 1024}});
  ASSERT_TRUE(process.log("one"));
  ASSERT_TRUE(process.drain());
  const std::string recorder = process.recorder_path();
  process.die();
  // In place, so that it is the same file; larger than its header says.
  std::filesystem::resize_file(recorder, (std::uintmax_t{1} << 31) - 4096);
  std::ifstream statm("/proc/self/statm");
  rlim_t pages = 0;
  ASSERT_TRUE(statm >> pages);
  rlimit before{};
  getrlimit(RLIMIT_AS, &before);
  const rlimit limit{pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (512u << 20), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  const auto dead = recoverer_.recover(process.home.id);
  setrlimit(RLIMIT_AS, &before);
  ASSERT_NE(dead, nullptr);
  EXPECT_THAT(dead->found.problem, HasSubstr(recorder + ": its header's offsets do not fit its size"));
  EXPECT_THAT(read_all(*dead->journal->cursor("sink", Signal::logs, true)).logs, ElementsAre("one"));
}

// Every user has but so many instances, and so many watches.
class BlindWatchTest : public ::testing::TestWithParam<const char*> {};

TEST_P(BlindWatchTest, LooksNowAndThenAndSaysSoOnce) {
  testing::ScratchDirectory scratch;
  const OwnedHome home = create_home(scratch.path(), RecorderConfig::Place::state);
  CallFaults faults([&](const Call& call) {
    if (call.name != GetParam()) return 0;
    return call.name == "inotify_init1" ? EMFILE : call.path.ends_with("/lock") ? ENOSPC : 0;
  });
  testing::Said said;
  std::mutex mutex;
  std::condition_variable changed;
  int looked = 0;
  SiblingWatch watch(scratch.path(), [&] {
    const std::scoped_lock lock(mutex);
    ++looked;
    changed.notify_all();
  }, said.diagnostics);
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, kLong, [&] { return looked >= 3; })) << "the first is at its start";
  lock.unlock();
  EXPECT_EQ(said.times("cannot be watched"), 1u);
}

INSTANTIATE_TEST_SUITE_P(Where, BlindWatchTest, ::testing::Values("inotify_init1", "inotify_add_watch"),
                         [](const auto& what) { return std::string(what.param); });

TEST_F(DiskTest, LookingAtADeadJournalsCountsLeavesItLossless) {
  {
    const auto journal = make(where_, config());
    const auto cursor = journal->cursor("sink", Signal::logs, false);
    ASSERT_TRUE(put(*journal, 0));
  }
  const auto again = found(where_);
  EXPECT_EQ(again->counts_of("sink", Signal::logs).pending, 1u);
  EXPECT_EQ(again->counts_of("sink", Signal::traces).pending, 0u);
  EXPECT_EQ(again->give_up(1), 0u) << "nothing is taken from one that is lossless";
}

TEST_F(DiskTest, ADirectoryIsMadeAnewWithItsIdentityOrNotAtAll) {
  const std::string states = scratch_.path() + "/states";
  OwnedHome owned = create_home(states, RecorderConfig::Place::state);
  remove_tree(owned.home.state);
  Identity identity;
  identity.process_id = 4711;
  {
    CallFaults faults([](const Call& call) { return call.path.find("/identity") != std::string::npos ? ENOSPC : 0; });
    EXPECT_FALSE(restore_home(owned, states, identity, false));
    EXPECT_EQ(errno, ENOSPC);
    EXPECT_THAT(list_directory(states), IsEmpty()) << "one without an identity would be taken for nobody's";
  }
  ASSERT_TRUE(restore_home(owned, states, identity, false));
  EXPECT_TRUE(owned.lock.valid());
  const auto read = read_identity(owned.home.state);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->process_id, 4711u);
}

TEST_F(DiskTest, ADiskThatHangsHoldsUpNeitherRecordingNorDelivery) {
  std::mutex mutex;
  std::condition_variable changed;
  bool hung = false;
  bool released = false;
  CallFaults faults([&](const Call& call) {
    if (call.name != "pwritev" || !in_state(call) || !call.path.ends_with(".seg.new")) return 0;
    std::unique_lock lock(mutex);
    hung = true;
    changed.notify_all();
    changed.wait(lock, [&] { return released; });
    return 0;
  });
  const auto journal = make(where_, config());
  const auto slow = journal->cursor("slow", Signal::logs, true);
  const auto sink = journal->cursor("sink", Signal::logs, true);
  int i = 0;
  for (; i < 26; ++i) ASSERT_TRUE(put(*journal, i));
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, kLong, [&] { return hung; }));
  }
  EXPECT_EQ(read_all(*sink).logs, texts(0, i)) << "a destination goes on";
  EXPECT_EQ(read_all(*slow).logs, texts(0, i));
  for (int round = 0; round < 20; ++round) {
    for (int k = 0; k < 10; ++k, ++i) ASSERT_TRUE(put(*journal, i)) << "and so does recording";
    EXPECT_EQ(read_all(*sink).logs, texts(i - 10, i));
    EXPECT_EQ(read_all(*slow).logs, texts(i - 10, i));
  }
  {
    const std::scoped_lock lock(mutex);
    released = true;
    changed.notify_all();
  }
}

TEST_F(DiskTest, ADamagedReadOfALiveSegmentIsCounted) {
  std::atomic<bool> broken{false};
  const auto journal = make(where_, config());
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(put(*journal, i));
  CallFaults faults([&](const Call& call) {
    return broken && call.name == "pread" && call.path.ends_with("0000000000000000.seg") ? EIO : 0;
  });
  broken = true;
  const std::vector<std::string> logs = read_all(*cursor).logs;
  broken = false;
  EXPECT_EQ(logs.front(), text_of(static_cast<int>(10 - logs.size())));
  EXPECT_EQ(cursor->counts().dropped, 10 - logs.size());
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(DiskTest, NetworkFileSystemsAreRefusedByName) {
  const std::pair<long, const char*> kinds[] = {{0x6969, "NFS"},        {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB2"},
                                                {0x5346414F, "AFS"},    {0x00C36400, "Ceph"}, {0x01021997, "9p"},
                                                {0x0BD00BD0, "Lustre"}};
  for (const auto& [type, name] : kinds) {
    CallFaults::file_system() = type;
    std::string said;
    try {
      make_private_directory(where_.state);
    } catch (const Error& error) {
      said = error.what();
    }
    CallFaults::file_system() = 0;
    EXPECT_THAT(said, HasSubstr(where_.state + ": lies on a network file system (" + name + ")"));
  }
  make_private_directory(where_.state);
}

// ---- fsync

class FsyncTest : public DiskTest {
 protected:
  JournalConfig config(Fsync fsync) {
    JournalConfig c = DiskTest::config();
    c.fsync = fsync;
    c.fsync_interval = std::chrono::milliseconds(20);
    return c;
  }
  // Keeps what was synced, and may hold it up.
  int see(const Call& call) {
    std::unique_lock lock(mutex_);
    if (call.name == "pwritev" && call.path.ends_with(".seg") && frame_held_) {
      in_frame_ = true;
      changed_.notify_all();
      changed_.wait(lock, [&] { return !frame_held_; });
    }
    if (call.name != "fdatasync" && call.name != "fsync") return 0;
    changed_.wait(lock, [&] { return !held_; });
    synced_.push_back(call.path.substr(call.path.rfind('/') + 1));
    changed_.notify_all();
    return call.path == where_.state ? std::exchange(directory_error_, 0) : error_;
  }
  bool waits_for(const std::function<bool()>& what) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLong, what);
  }
  void hold(bool on) {
    const std::scoped_lock lock(mutex_);
    held_ = on;
    changed_.notify_all();
  }
  bool synced(const std::string& name) const { return std::count(synced_.begin(), synced_.end(), name) > 0; }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  bool frame_held_ = false;
  bool in_frame_ = false;
  int error_ = 0;
  int directory_error_ = 0;  // of the state directory itself, once
  std::vector<std::string> synced_;
  CallFaults faults_{[this](const Call& call) { return see(call); }};
};

TEST_F(FsyncTest, NeverSyncsNothing) {
  {
    const auto journal = make(where_, config(Fsync::never));
    const auto cursor = journal->cursor("sink", Signal::logs, true);
    for (int i = 0; i < 60; ++i) put_for_certain(*journal, i);
    (void)read_all(*cursor);
    EXPECT_TRUE(journal->close());
  }
  EXPECT_THAT(synced_, IsEmpty());
}

TEST_F(FsyncTest, WithAnIntervalSegmentsCursorsAndDirectoryAreSyncedWithoutAnyoneWaiting) {
  const auto journal = make(where_, config(Fsync::interval));
  journal->set_resource("resource");
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  hold(true);
  ASSERT_TRUE(put(*journal, 0)) << "nobody waits for the disk";
  EXPECT_THAT(segments_in(where_.state), ElementsAre("0000000000000000.seg")) << "from the start";
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 1));
  hold(false);
  EXPECT_TRUE(waits_for([&] { return synced("0000000000000000.seg") && synced("cursors") && synced("scopes") && synced("state"); }));
}

TEST_F(FsyncTest, WithEveryBatchNothingCanBeReadBeforeItIsOnTheDisk) {
  const auto journal = make(where_, config(Fsync::every_batch));
  std::uint64_t told = 0;
  journal->on_readable([&](const Journaled& round) {
    const std::scoped_lock lock(mutex_);
    EXPECT_TRUE(synced("0000000000000000.seg")) << "told before it was synced";
    EXPECT_TRUE(synced("state")) << "the new file's name too";
    told += round.records[kLogs];
    changed_.notify_all();
  });
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  hold(true);
  ASSERT_TRUE(put(*journal, 0));
  Journaled round;
  round.records[kLogs] = 1;
  journal->announce(round);
  EXPECT_THAT(read_all(*cursor).logs, IsEmpty());
  EXPECT_EQ(cursor->counts().pending, 1u);
  EXPECT_FALSE(journal->sync(std::chrono::steady_clock::now()));
  EXPECT_EQ(told, 0u);
  hold(false);
  EXPECT_TRUE(journal->sync(deadline_after(kLong)));
  EXPECT_TRUE(waits_for([&] { return told == 1; }));
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 1));
  EXPECT_TRUE(adds_up(cursor->counts()));
}

TEST_F(FsyncTest, ADiskThatCannotSyncIsSaidAndHoldsNothingBack) {
  const auto journal = make(where_, config(Fsync::every_batch));
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  error_ = EIO;
  ASSERT_TRUE(put(*journal, 0));
  EXPECT_TRUE(journal->sync(deadline_after(kLong)));
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 1));
  ASSERT_TRUE(said_.hears("cannot be written: " + errno_text(EIO)));
  {
    const std::scoped_lock lock(mutex_);
    error_ = 0;
  }
  ASSERT_TRUE(put(*journal, 1));
  EXPECT_TRUE(said_.hears("is written again"));
  EXPECT_TRUE(journal->sync(deadline_after(kLong)));
  ASSERT_TRUE(journal->close());
  EXPECT_EQ(contents_of(*found(where_)).logs, texts(0, 2)) << "what could not be synced was written anew";
}

TEST_F(FsyncTest, WhatCouldNotBeSyncedIsWrittenAnewAlsoWhereAFrameWasOnItsWay) {
  const auto journal = make(where_, config(Fsync::interval));
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  hold(true);
  ASSERT_TRUE(put(*journal, 0));
  {
    const std::scoped_lock lock(mutex_);
    frame_held_ = true;
  }
  std::thread writer([&] { EXPECT_TRUE(put(*journal, 1)); });
  EXPECT_TRUE(waits_for([&] { return in_frame_; }));
  {
    const std::scoped_lock lock(mutex_);
    error_ = EIO;
  }
  hold(false);
  EXPECT_TRUE(said_.hears("cannot be written: " + errno_text(EIO)));
  {
    const std::scoped_lock lock(mutex_);
    error_ = 0;
    frame_held_ = false;
    changed_.notify_all();
  }
  writer.join();
  EXPECT_TRUE(waits_for([&] { return synced("0000000000000000.seg.new"); })) << "what the kernel has given up it does not try again";
  EXPECT_TRUE(said_.hears("is written again"));
  ASSERT_TRUE(put(*journal, 2));
  EXPECT_EQ(read_all(*cursor).logs, texts(0, 3));
}

TEST_F(FsyncTest, ADirectoryThatCouldNotBeSyncedIsSyncedLater) {
  const auto journal = make(where_, config(Fsync::interval));
  directory_error_ = EIO;
  ASSERT_TRUE(put(*journal, 0));
  EXPECT_TRUE(waits_for([&] { return std::count(synced_.begin(), synced_.end(), "state") >= 2; }))
      << "without anything new, or a power failure takes the file's name";
}

TEST_F(FsyncTest, AfterAPowerFailureWhatWasSyncedIsThere) {
  // What lay on tmpfs is gone; the state directory holds records and positions.
  const auto journal = make(where_, config(Fsync::every_batch));
  const auto cursor = journal->cursor("sink", Signal::logs, true);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(put(*journal, i));
  ASSERT_TRUE(journal->sync(deadline_after(kLong)));
  int taken = 0;
  const std::uint64_t position = cursor->read([&](const Record&) { return ++taken <= 4; });
  cursor->acknowledge(position, {.delivered = 4});
  std::filesystem::remove_all(where_.memory);
  const auto again = found(where_);
  const auto rest = again->cursor("sink", Signal::logs, true);
  ASSERT_NE(rest, nullptr);
  EXPECT_EQ(read_all(*rest).logs, texts(4, 10));
}

}  // namespace
}  // namespace waymark::journal
