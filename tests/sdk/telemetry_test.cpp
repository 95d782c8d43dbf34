#include "waymark/telemetry.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "support/holds.h"
#include "support/sanitized.h"
#include "waymark/error.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using testing::MemoryDestination;

constexpr seconds kLong{30};

std::vector<std::string> names(const std::vector<ReadSpan>& spans) {
  std::vector<std::string> all;
  for (const ReadSpan& span : spans) all.push_back(span.name);
  return all;
}
std::vector<std::string> texts(const std::vector<ReadLog>& logs) {
  std::vector<std::string> all;
  for (const ReadLog& log : logs) all.push_back(to_text(log.body));
  return all;
}

::testing::AssertionResult adds_up(const Counts& c) {
  if (c.offered == c.delivered + c.rejected + c.dropped + c.filtered + c.pending) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << c.offered << " offered, " << c.delivered << " delivered, " << c.rejected
                                       << " rejected, " << c.dropped << " dropped, " << c.filtered << " filtered, "
                                       << c.pending << " pending";
}

Counts counts_of(const Telemetry& telemetry, Signal signal, std::string_view name = "memory") {
  for (const DestinationStats& d : telemetry.stats().destinations) {
    if (d.signal == signal && d.name == name) return d.counts;
  }
  ADD_FAILURE() << "no destination " << name;
  return {};
}

// A destination that nothing can be sent to.
DestinationConfig unreachable(Signal signal, std::string name = "memory") {
  DestinationConfig destination;
  destination.name = std::move(name);
  destination.signal = signal;
  destination.output = Output::callback;
  destination.deliver = [](Signal, std::string_view) { return DeliveryResult{Outcome::retry, 0, "nobody is there"}; };
  return destination;
}

class TelemetryTest : public ::testing::Test {
 protected:
  TelemetryTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "waymark-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    scratch = pattern;
  }
  ~TelemetryTest() override {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(scratch + "/state", error)) {
      const std::string id = entry.path().filename();
      std::filesystem::remove_all("/dev/shm/waymark-" + std::to_string(geteuid()) + "/" + id);
    }
    std::filesystem::remove_all(scratch);
  }
  // With a state directory, and `memory` for both signals.
  Config config() {
    Config c = testing::memory_config(memory);
    c.state_directory = scratch + "/state";
    c.recover_siblings = true;
    c.recorder.max_bytes = 2 << 20;
    c.error_handler = [this](DiagnosticLevel, std::string_view line) {
      const std::scoped_lock lock(mutex);
      said.emplace_back(line);
    };
    c.on_recovered = [this](const Recovered& found) {
      const std::scoped_lock lock(mutex);
      recovered.push_back(found);
      changed.notify_all();
    };
    return c;
  }
  Config cut_off() {
    Config c = config();
    c.destinations = {unreachable(Signal::traces), unreachable(Signal::logs)};
    return c;
  }
  // A process that does this and is killed; its subdirectory.
  std::string killed(const Config& c, const std::function<void(Telemetry&)>& life) {
    int told[2];
    if (pipe(told) != 0) throw std::runtime_error("no pipe");
    const pid_t child = fork();
    if (child == 0) {
      auto* telemetry = new Telemetry(c);
      life(*telemetry);
      const std::string directory = telemetry->directory();
      if (write(told[1], directory.data(), directory.size()) < 0) _exit(1);
      raise(SIGKILL);
    }
    close(told[1]);
    char directory[512];
    const ssize_t n = read(told[0], directory, sizeof directory);
    close(told[0]);
    waitpid(child, nullptr, 0);
    return {directory, n > 0 ? static_cast<std::size_t>(n) : 0};
  }
  bool wait_for_reports(std::size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kLong, [&] { return recovered.size() >= count; });
  }
  std::vector<std::string> lines() {
    const std::scoped_lock lock(mutex);
    return said;
  }

  std::string scratch;
  MemoryDestination memory;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> said;
  std::vector<Recovered> recovered;
};

TEST_F(TelemetryTest, AFlushDeliversWhatWasRecordedBefore) {
  HOLDS("TR-81");
  Telemetry telemetry(config());
  { auto span = telemetry.tracer("t").span("one"); }
  telemetry.logger("t").info("two");
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(names(memory.spans()), ElementsAre("one"));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("two"));
  EXPECT_TRUE(adds_up(counts_of(telemetry, Signal::traces)));
  EXPECT_EQ(counts_of(telemetry, Signal::traces).delivered, 1u);
  EXPECT_EQ(telemetry.stats().spans, 1u);
  EXPECT_EQ(telemetry.stats().log_records, 1u);
}

TEST_F(TelemetryTest, AFlushThatDoesNotGetThroughSaysSo) {
  HOLDS("TR-06", "TR-81");
  Telemetry telemetry(cut_off());
  telemetry.logger("t").info("one");
  EXPECT_FALSE(telemetry.force_flush(milliseconds(20)));
  const Counts counts = counts_of(telemetry, Signal::logs);
  EXPECT_EQ(counts.pending, 1u);
  EXPECT_TRUE(adds_up(counts));
  telemetry.shutdown(milliseconds(1));
}

TEST_F(TelemetryTest, CountsAddUpWhileRecordsWaitInTheRecorder) {
  Config c = cut_off();
  std::atomic<bool> entered{false};
  std::mutex hold;
  c.on_record = [&](RecordEditor&) {
    entered = true;
    entered.notify_all();
    const std::scoped_lock lock(hold);
    return Verdict::keep;
  };
  std::unique_lock held(hold);
  Telemetry telemetry(c);
  for (int i = 0; i < 10; ++i) telemetry.logger("t").info("waits");
  entered.wait(false);
  const Counts counts = counts_of(telemetry, Signal::logs);
  EXPECT_EQ(counts.offered, 10u);
  EXPECT_EQ(counts.pending, 10u);
  EXPECT_TRUE(adds_up(counts));
  held.unlock();
  telemetry.shutdown(milliseconds(1));
}

TEST_F(TelemetryTest, AShutdownDeliversAndTheSecondDoesNothing) {
  HOLDS("TR-05", "TR-80");
  Telemetry telemetry(config());
  const Tracer tracer = telemetry.tracer("t");
  { auto span = tracer.span("one"); }
  EXPECT_TRUE(telemetry.shutdown(kLong));
  EXPECT_THAT(names(memory.spans()), ElementsAre("one"));
  { auto span = tracer.span("too late"); }
  telemetry.logger("t").info("too late");
  EXPECT_FALSE(tracer.enabled());
  EXPECT_TRUE(telemetry.shutdown(kLong));
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(memory.spans(), SizeIs(1));
  EXPECT_EQ(telemetry.stats().spans, 1u);
  EXPECT_TRUE(adds_up(counts_of(telemetry, Signal::traces)));
  EXPECT_EQ(telemetry.recover(), 0u);
  EXPECT_THROW(telemetry.add(memory.destination(Signal::logs, "late")), Error);
}

TEST_F(TelemetryTest, AThreadThatHoldsWhatIsKeptMayGoOnAfterTheEnd) {
  auto telemetry = std::make_unique<Telemetry>(testing::memory_config(memory));
  const Tracer tracer = telemetry->tracer("hangs");
  const Meter meter = telemetry->meter("hangs");
  std::promise<void> begun;
  std::promise<void> ended;
  std::thread hanging([&, kept = telemetry->keep()] {
    auto open = tracer.span("open");
    begun.set_value();
    ended.get_future().wait();
    open.set("late", true);
    auto late = tracer.span("late");
    meter.counter("late").add(1);
  });
  begun.get_future().wait();
  { auto span = tracer.span("in time"); }
  telemetry.reset();
  ended.set_value();
  hanging.join();
  EXPECT_THAT(names(memory.spans()), ElementsAre("in time"));
}

TEST_F(TelemetryTest, AShutdownSaysWhatBecameOfEveryRecordAndLeavesTheRest) {
  HOLDS("TR-06", "GC-26", "GC-27", "RT-25");
  {
    Telemetry telemetry(cut_off());
    for (int i = 0; i < 3; ++i) telemetry.logger("t").info(std::to_string(i));
    EXPECT_FALSE(telemetry.shutdown(milliseconds(20)));
    EXPECT_FALSE(telemetry.shutdown(kLong)) << "what the first one said";
    EXPECT_TRUE(adds_up(counts_of(telemetry, Signal::logs)));
  }
  EXPECT_THAT(lines(), Contains(AllOf(HasSubstr("3 offered"), HasSubstr("3 pending"),
                                      HasSubstr("after the next start"))));
  Telemetry next(config());
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("0", "1", "2"));
  const Counts counts = counts_of(next, Signal::logs);
  EXPECT_EQ(counts.offered, 3u);
  EXPECT_EQ(counts.delivered, 3u);
  EXPECT_TRUE(adds_up(counts));
}

TEST_F(TelemetryTest, WhatWasDroppedBeforeACleanEndStaysCounted) {
  Config c = cut_off();
  c.on_record = [](RecordEditor& record) {
    return to_text(record.log()->body) == "drop" ? Verdict::drop : Verdict::keep;
  };
  {
    Telemetry telemetry(c);
    for (const char* text : {"keep", "drop", "keep", "drop"}) telemetry.logger("t").info(text);
    EXPECT_FALSE(telemetry.shutdown(milliseconds(20)));
  }
  // A destination that comes later gets what is pending, and its counts hold.
  c = config();
  c.on_record = [](RecordEditor&) { return Verdict::keep; };
  Telemetry next(c);
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("keep", "keep"));
  const Counts counts = counts_of(next, Signal::logs);
  EXPECT_EQ(counts.delivered, 2u);
  EXPECT_TRUE(adds_up(counts));
}

TEST_F(TelemetryTest, ReplacingADestinationKeepsItsPlace) {
  Config c = config();
  c.destinations = {unreachable(Signal::logs)};
  Telemetry telemetry(c);
  telemetry.logger("t").info("before");
  EXPECT_FALSE(telemetry.force_flush(milliseconds(20)));
  telemetry.add(memory.destination(Signal::logs));
  telemetry.logger("t").info("behind");
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("before", "behind"));
  EXPECT_THAT(telemetry.stats().destinations, SizeIs(1));
  EXPECT_TRUE(adds_up(counts_of(telemetry, Signal::logs)));
}

TEST_F(TelemetryTest, ANewDestinationStartsAtTheNextRecord) {
  Telemetry telemetry(config());
  telemetry.logger("t").info("before");
  EXPECT_TRUE(telemetry.force_flush(kLong));
  MemoryDestination late;
  telemetry.add(late.destination(Signal::logs, "late"));
  telemetry.logger("t").info("behind");
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(texts(late.logs()), ElementsAre("behind"));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("before", "behind"));
  EXPECT_EQ(counts_of(telemetry, Signal::logs, "late").offered, 1u);
  EXPECT_TRUE(adds_up(counts_of(telemetry, Signal::logs, "late")));
}

TEST_F(TelemetryTest, TheHookKeepsDropsAndRedacts) {
  Config c = config();
  c.on_record = [](RecordEditor& record) {
    if (record.span() != nullptr) {
      if (record.span()->name == "drop") return Verdict::drop;
      if (find(record.span()->attributes, "token") != nullptr) {
        record.set_attribute("token", AnyValue{std::string("***")});
      }
      record.remove_attribute("internal");
      if (record.span()->name == "rename") record.set_name("renamed");
      return Verdict::keep;
    }
    EXPECT_EQ(record.scope().name, "t");
    if (to_text(record.log()->body) == "secret") record.set_body(AnyValue{std::string("***")});
    return to_text(record.log()->body) == "drop" ? Verdict::drop : Verdict::keep;
  };
  Telemetry telemetry(c);
  const Tracer tracer = telemetry.tracer("t");
  { auto span = tracer.span("keep", {{"token", "12345"}, {"internal", 1}, {"other", 2}}); }
  { auto span = tracer.span("drop"); }
  { auto span = tracer.span("rename"); }
  telemetry.logger("t").info("secret");
  telemetry.logger("t").info("drop");
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(names(memory.spans()), ElementsAre("keep", "renamed"));
  const AnyMap attributes = memory.spans()[0].attributes;
  EXPECT_EQ(find_string(attributes, "token"), "***");
  EXPECT_EQ(find(attributes, "internal"), nullptr);
  EXPECT_NE(find(attributes, "other"), nullptr);
  EXPECT_THAT(texts(memory.logs()), ElementsAre("***"));
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    EXPECT_EQ(counts_of(telemetry, signal).filtered, 1u);
    EXPECT_TRUE(adds_up(counts_of(telemetry, signal)));
  }
}

TEST_F(TelemetryTest, AHookThatThrowsDropsTheRecord) {
  Config c = config();
  c.on_record = [](RecordEditor& record) -> Verdict {
    if (to_text(record.log()->body) == "bad") throw std::runtime_error("no such key");
    return Verdict::keep;
  };
  Telemetry telemetry(c);
  for (const char* text : {"good", "bad", "good"}) telemetry.logger("t").info(text);
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("good", "good"));
  EXPECT_EQ(counts_of(telemetry, Signal::logs).filtered, 1u);
  EXPECT_THAT(lines(), Contains(HasSubstr("no such key")));
}

TEST_F(TelemetryTest, AHookMayMakeARecordLongerThanAnyMayBe) {
  Config c = config();
  c.on_record = [](RecordEditor& record) {
    if (to_text(record.log()->body) == "blow up") record.set_body(AnyValue{std::string(20 << 20, 'x')});
    return Verdict::keep;
  };
  Telemetry telemetry(c);
  for (const char* text : {"one", "blow up", "two"}) telemetry.logger("t").info(text);
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("one", "two"));
  EXPECT_TRUE(adds_up(counts_of(telemetry, Signal::logs)));
}

// The first shutdown is held up by a delivery that waits for the gate; what others are told must not come before its answer.
TEST_F(TelemetryTest, OthersWaitForTheShutdownThatIsUnderWayAndGetItsAnswer) {
  Config c = config();
  std::promise<void> reached;
  std::promise<void> gate;
  std::shared_future<void> open = gate.get_future().share();
  std::atomic<bool> first{true};
  for (DestinationConfig& d : c.destinations) {
    d.deliver = [&](Signal, std::string_view) {
      if (first.exchange(false)) reached.set_value();
      open.wait();
      return DeliveryResult{Outcome::retry, 0, "not now"};
    };
  }
  Telemetry telemetry(c);
  telemetry.logger("t").info("one");
  std::thread ends([&] { EXPECT_FALSE(telemetry.shutdown(seconds(1))); });
  reached.get_future().wait();
  EXPECT_FALSE(telemetry.force_flush(milliseconds(1))) << "nothing is acknowledged yet";
  EXPECT_FALSE(telemetry.shutdown(milliseconds(1))) << "it has not ended yet";
  std::thread asks([&] { EXPECT_FALSE(telemetry.shutdown(kLong)) << "the answer is the first one's"; });
  gate.set_value();
  ends.join();
  asks.join();
  EXPECT_FALSE(telemetry.force_flush(kLong));
}

TEST_F(TelemetryTest, AShutdownFromItsOwnCallbackIsRefusedWhileOneIsUnderWay) {
  Config c = config();
  Telemetry* inside = nullptr;
  std::promise<void> reached;
  std::promise<void> gate;
  std::atomic<bool> first{true};
  std::atomic<bool> answer{true};
  for (DestinationConfig& d : c.destinations) {
    d.deliver = [&](Signal, std::string_view) {
      if (first.exchange(false)) {
        reached.set_value();
        gate.get_future().wait();
        answer = inside->shutdown(std::chrono::hours(1));
      }
      return DeliveryResult{};
    };
  }
  Telemetry telemetry(c);
  inside = &telemetry;
  telemetry.logger("t").info("one");
  std::thread ends([&] { EXPECT_TRUE(telemetry.shutdown(kLong)); });
  reached.get_future().wait();
  while (telemetry.logger("t").enabled(Severity::critical)) std::this_thread::yield();
  gate.set_value();
  ends.join();
  EXPECT_FALSE(answer);
}

TEST_F(TelemetryTest, ASpanThatIsOpenAtTheShutdownComesBackAsInterrupted) {
  const pid_t child = fork();
  if (child == 0) {
    Telemetry telemetry(config());
    DetachedSpan open = telemetry.tracer("t").start_span("open", {{"bands", 4}});
    const bool counted = telemetry.stats().open_spans == 1;
    const bool left = !telemetry.shutdown(kLong);
    const auto is_told = [](const std::string& line) { return line.find("still open at shutdown") != std::string::npos; };
    const std::vector<std::string> told = lines();
    _exit(counted && left && std::any_of(told.begin(), told.end(), is_told) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  Telemetry next(config());
  ASSERT_TRUE(wait_for_reports(1));
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  ASSERT_THAT(names(memory.spans()), ElementsAre("open"));
  const ReadSpan span = memory.spans()[0];
  EXPECT_EQ(span.status, StatusCode::error);
  EXPECT_EQ(to_text(*find(span.attributes, "bands")), "4");
  EXPECT_EQ(to_text(*find(span.attributes, "workflow.interrupted")), "true");
  ASSERT_THAT(recovered[0].interrupted, SizeIs(1));
  EXPECT_EQ(recovered[0].process_id, static_cast<std::uint64_t>(child));
}

TEST_F(TelemetryTest, ASpanThatIsOpenAtTheShutdownIsNobodyElsesWhileItsProcessLives) {
  Telemetry telemetry(config());
  DetachedSpan open = telemetry.tracer("t").start_span("open");
  EXPECT_FALSE(telemetry.shutdown(kLong));
  Telemetry next(config());
  EXPECT_EQ(next.recover(), 0u);
  EXPECT_THAT(recovered, IsEmpty()) << "a living process was taken for dead";
  open.end();
  EXPECT_EQ(next.recover(), 0u);
}

TEST_F(TelemetryTest, ASpanThatEndsAfterTheShutdownIsDeliveredAsItEnded) {
  std::optional<Telemetry> telemetry(std::in_place, config());
  {
    DetachedSpan open = telemetry->tracer("t").start_span("ends late");
    EXPECT_FALSE(telemetry->shutdown(kLong));
    open.end();
  }
  telemetry.reset();
  Telemetry next(config());
  ASSERT_TRUE(wait_for_reports(1));
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  ASSERT_THAT(names(memory.spans()), ElementsAre("ends late"));
  EXPECT_EQ(memory.spans()[0].status, StatusCode::unset);
  EXPECT_EQ(recovered[0].finished_spans, 1u);
}

TEST_F(TelemetryTest, OnRecoveredHearsAlsoOfWhatWasFoundBeforeItWasSet) {
  const pid_t child = fork();
  if (child == 0) {
    Telemetry telemetry(config());
    auto open = telemetry.tracer("t").span("open");
    raise(SIGKILL);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  Telemetry next(config());
  ASSERT_TRUE(wait_for_reports(1));
  std::vector<std::string> heard;
  next.on_recovered([&](const Recovered& found) { heard.push_back(found.interrupted.at(0).name); });
  EXPECT_THAT(heard, ElementsAre("open"));
}

TEST_F(TelemetryTest, ACallbackThatThrowsDoesNotStopRecovery) {
  {
    Telemetry telemetry(cut_off());
    telemetry.logger("t").info("one");
    DetachedSpan open = telemetry.tracer("t").start_span("open");
    telemetry.shutdown(milliseconds(1));
  }
  Config c = config();
  c.on_recovered = [](const Recovered&) { throw std::runtime_error("no store"); };
  Telemetry next(c);
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("one"));
  EXPECT_THAT(lines(), Contains(HasSubstr("no store")));
}

TEST_F(TelemetryTest, SeveralInOneProcessDoNotTouchEachOther) {
  HOLDS("TR-01");
  MemoryDestination other_memory;
  Config other_config = config();
  other_config.destinations = {other_memory.destination(Signal::traces), other_memory.destination(Signal::logs)};
  Telemetry one(config());
  Telemetry other(other_config);
  EXPECT_NE(one.directory(), other.directory());
  const Tracer tracer = one.tracer("t");
  const Tracer other_tracer = other.tracer("t");
  for (int i = 0; i < 10; ++i) {
    auto span = tracer.span("one");
    auto inner = other_tracer.span("other");
  }
  EXPECT_EQ(one.recover() + other.recover(), 0u) << "both live";
  EXPECT_TRUE(one.force_flush(kLong));
  EXPECT_TRUE(other.force_flush(kLong));
  EXPECT_EQ(names(memory.spans()), std::vector<std::string>(10, "one"));
  EXPECT_EQ(names(other_memory.spans()), std::vector<std::string>(10, "other"));
  EXPECT_TRUE(one.shutdown(kLong));
  { auto inner = other_tracer.span("still"); }
  EXPECT_TRUE(other.force_flush(kLong));
  EXPECT_THAT(names(other_memory.spans()), Contains("still"));
}

TEST_F(TelemetryTest, ASiblingInTheSameProcessTakesOverWhatIsLeft) {
  Telemetry sibling(config());
  std::optional<Telemetry> telemetry(std::in_place, cut_off());
  telemetry->logger("t").info("left");
  {
    DetachedSpan open = telemetry->tracer("t").start_span("ends late");
    telemetry->shutdown(milliseconds(1));
  }
  telemetry.reset();
  ASSERT_TRUE(wait_for_reports(1)) << "the lock's end is heard";
  sibling.recover();
  EXPECT_TRUE(sibling.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("left"));
  EXPECT_THAT(names(memory.spans()), ElementsAre("ends late"));
}

TEST_F(TelemetryTest, WhereTheCursorsAreLostEverythingIsDeliveredAndItIsSaid) {
  Config c = cut_off();
  c.recorder.place = RecorderConfig::Place::state;
  const std::string directory = killed(c, [](Telemetry& telemetry) {
    for (int i = 0; i < 500; ++i) telemetry.logger("t").info(std::to_string(i));
    telemetry.force_flush(milliseconds(100));
  });
  std::filesystem::resize_file(directory + "/cursors", 0);
  for (int start = 0; start < 2; ++start) {
    memory.clear();
    Telemetry next(config());
    next.recover();
    EXPECT_TRUE(next.force_flush(kLong));
    EXPECT_THAT(memory.logs(), SizeIs(start == 0 ? 500u : 0u)) << start;
    EXPECT_TRUE(next.shutdown(kLong));
    EXPECT_THAT(lines(), Contains(HasSubstr(directory + "/cursors: "))) << start;
    EXPECT_FALSE(std::filesystem::exists(directory + "/delivered")) << "somebody else may wait for it";
    std::vector<std::string>().swap(said);
    std::vector<Recovered>().swap(recovered);
    if (start == 0) {
      // At the second start the first's are what is known.
      EXPECT_GT(std::filesystem::file_size(directory + "/cursors"), 0u);
    } else {
      EXPECT_FALSE(std::filesystem::exists(directory + "/delivered"));
    }
  }
}

TEST_F(TelemetryTest, AfterARebootWhatTheStateDirectoryHoldsIsDelivered) {
  Config c = cut_off();
  c.journal.segment_bytes = 1 << 20;
  c.journal.memory_bytes = 2 << 20;
  c.recorder.ring_bytes = 512 * 1024;
  const std::string directory = killed(c, [](Telemetry& telemetry) {
    for (int i = 0; i < 400; ++i) {
      telemetry.logger("t").info(std::to_string(i) + std::string(30'000, '.'));
      telemetry.force_flush(milliseconds(1));
    }
  });
  std::filesystem::remove_all("/dev/shm/waymark-" + std::to_string(geteuid()) + directory.substr(directory.rfind('/')));
  std::ifstream in(directory + "/identity");
  std::string identity{std::istreambuf_iterator<char>(in), {}};
  identity.replace(identity.find("boot=") + 5, 8, "another.");
  std::ofstream(directory + "/identity") << identity;
  std::size_t held = 0;
  for (const ReadLog& log : read_state_directory(directory).logs) held += to_text(log.body).size() > 30'000 ? 1 : 0;
  ASSERT_GT(held, 100u);
  Telemetry next(config());
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_THAT(memory.logs(), SizeIs(held));
  EXPECT_TRUE(adds_up(counts_of(next, Signal::logs)));
  EXPECT_TRUE(next.shutdown(kLong));
  EXPECT_THAT(lines(), Contains(HasSubstr("the machine was started anew since")));
  EXPECT_TRUE(std::filesystem::exists(directory + "/delivered"));
}

TEST_F(TelemetryTest, WhatNobodyHasADestinationForWaitsForOne) {
  {
    Config c = config();
    c.destinations = {unreachable(Signal::logs, "elsewhere")};
    Telemetry telemetry(c);
    telemetry.logger("t").info("left");
    telemetry.shutdown(milliseconds(1));
  }
  Telemetry next(config());
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_THAT(memory.logs(), IsEmpty());
  MemoryDestination elsewhere;
  next.add(elsewhere.destination(Signal::logs, "elsewhere"));
  EXPECT_TRUE(next.force_flush(kLong));
  EXPECT_THAT(texts(elsewhere.logs()), ElementsAre("left"));
  EXPECT_TRUE(next.shutdown(kLong));
}

// A handler may ask for whatever it likes, whoever speaks.
class HandlerTest : public TelemetryTest {
 protected:
  Config asking() {
    Config c = config();
    c.error_handler = [this](DiagnosticLevel, std::string_view line) {
      if (Telemetry* t = telemetry.load()) {
        (void)t->stats();
        (void)t->logger("asked by a handler");
        (void)t->tracer("asked by a handler");
      }
      const std::scoped_lock lock(mutex);
      said.emplace_back(line);
    };
    return c;
  }
  DestinationConfig unverified() {
    DestinationConfig d;
    d.name = "unverified";
    d.url = "https://127.0.0.1:1/v1/traces";
    d.tls.insecure_skip_verify = true;
    return d;
  }
  std::atomic<Telemetry*> telemetry{nullptr};
};

TEST_F(HandlerTest, MayAskForEverythingWhileADestinationIsAddedAndReplaced) {
  Telemetry here(asking());
  telemetry = &here;
  here.add(unverified());
  EXPECT_THAT(lines(), Contains(HasSubstr("insecure_skip_verify")));
  here.add(unverified());
  EXPECT_EQ(std::ranges::count_if(lines(), [](const auto& l) { return l.find("insecure_skip_verify") != l.npos; }), 2);
  here.shutdown(milliseconds(1));
}

TEST_F(HandlerTest, MayTouchTheSpanThatDroppedAnAttribute) {
  Config c = asking();
  DetachedSpan* span = nullptr;
  c.error_handler = [&](DiagnosticLevel, std::string_view line) {
    if (span != nullptr) span->set("touched", true);
    const std::scoped_lock lock(mutex);
    said.emplace_back(line);
  };
  Telemetry here(c);
  DetachedSpan open = here.tracer("t").start_span("open");
  span = &open;
  open.set("", 1);
  EXPECT_THAT(lines(), Contains(HasSubstr("left out")));
  span = nullptr;
}

TEST_F(TelemetryTest, AFlushIsFalseWhereSomethingWasRefused) {
  Config c = config();
  std::atomic<bool> refuse{true};
  c.destinations = {unreachable(Signal::logs)};
  c.destinations[0].deliver = [&](Signal, std::string_view) {
    return DeliveryResult{refuse ? Outcome::rejected : Outcome::delivered, 0, {}};
  };
  Telemetry here(c);
  here.logger("t").info("refused");
  EXPECT_FALSE(here.force_flush(kLong));
  refuse = false;
  here.logger("t").info("taken");
  EXPECT_TRUE(here.force_flush(kLong));
  EXPECT_EQ(counts_of(here, Signal::logs).rejected, 1u);
}

// Ends so many processes' worth of telemetry that nobody took: one log record in each, for "memory" and for "other", and a
// span that is still open, which makes each of them news.
class DeadDirectoriesTest : public TelemetryTest {
 protected:
  static constexpr std::size_t kMany = 20;  // more than are open at a time
  void leave(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      Config c = config();
      c.recover_siblings = false;
      c.on_recovered = {};
      c.destinations = {unreachable(Signal::logs), unreachable(Signal::logs, "other"), unreachable(Signal::traces)};
      Telemetry telemetry(c);
      DetachedSpan open = telemetry.tracer("t").start_span("open");
      telemetry.logger("t").info("left" + std::to_string(i));
      telemetry.shutdown(milliseconds(1));
    }
  }
  // A destination that tells of each record that it gets.
  DestinationConfig telling(const std::string& name) {
    DestinationConfig d = unreachable(Signal::logs, name);
    d.deliver = [this](Signal signal, std::string_view request) {
      const std::scoped_lock lock(mutex);
      for (const ReadLog& log : read_request(signal, request).logs) delivered.insert(to_text(log.body));
      changed.notify_all();
      return DeliveryResult{};
    };
    return d;
  }
  bool wait_for_delivery(std::size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kLong, [&] { return delivered.size() >= count; });
  }
  std::set<std::string> delivered;
};

TEST_F(DeadDirectoriesTest, ADisabledDestinationHoldsUpNoOther) {
  leave(kMany);
  Config c = config();
  DestinationConfig off = unreachable(Signal::logs, "other");
  off.enabled = false;
  c.destinations = {telling("memory"), off};
  Telemetry next(c);
  EXPECT_TRUE(wait_for_delivery(kMany));
  next.recover();
  EXPECT_TRUE(next.force_flush(kLong));
  {
    const std::scoped_lock lock(mutex);
    delivered.clear();
  }
  next.add(telling("other"));
  EXPECT_TRUE(wait_for_delivery(kMany)) << "once it is enabled it gets them";
}

TEST_F(DeadDirectoriesTest, ADeadBackendHoldsUpNoOther) {
  leave(kMany);
  Config c = config();
  DestinationConfig down = unreachable(Signal::logs, "other");
  c.destinations = {telling("memory"), down};
  Telemetry next(c);
  EXPECT_TRUE(wait_for_delivery(kMany));
  {
    const std::scoped_lock lock(mutex);
    delivered.clear();
  }
  next.add(telling("other"));
  EXPECT_TRUE(wait_for_delivery(kMany)) << "once it is back it gets them";
  EXPECT_TRUE(next.force_flush(kLong));
}

TEST_F(DeadDirectoriesTest, AShutdownFinishesTheOneThatIsBeingRecoveredAndThoseThatItHasTimeFor) {
  for (const auto& [time, least] : {std::pair{nanoseconds(1), 1}, std::pair{nanoseconds(kLong), 2}}) {
    leave(3);
    Config c = config();
    std::atomic<Telemetry*> next{nullptr};
    std::atomic<int> told{0};
    c.on_recovered = [&](const Recovered&) {
      ++told;
      told.notify_all();
      while (next == nullptr) std::this_thread::yield();
      while (next.load()->tracer("t").span("is it over?").recording()) std::this_thread::yield();
    };
    Telemetry telemetry(c);
    next = &telemetry;
    told.wait(0);
    telemetry.shutdown(time);
    EXPECT_GE(told, least);
    if (least == 1) {
      EXPECT_EQ(told, 1) << "the rest is for the next start";
    }
  }
}

// The callback is held up: what it was told of is not with the destinations yet, and a flush must not say that it is.
TEST_F(DeadDirectoriesTest, AFlushWaitsForTheRecoveryThatHasBegun) {
  leave(1);
  Config c = config();
  c.recover_siblings = false;
  c.destinations = {telling("memory"), telling("other")};
  std::promise<void> told;
  std::promise<void> gate;
  c.on_recovered = [&](const Recovered&) {
    told.set_value();
    gate.get_future().wait();
  };
  Telemetry next(c);
  std::thread recoverer([&] { next.recover(); });
  told.get_future().wait();
  EXPECT_FALSE(next.force_flush(milliseconds(1))) << "it can't be delivered yet";
  auto flushed = std::async(std::launch::async, [&] { return next.force_flush(kLong); });
  gate.set_value();
  EXPECT_TRUE(flushed.get());
  recoverer.join();
  EXPECT_THAT(delivered, ElementsAre("left0"));
}

TEST_F(DeadDirectoriesTest, AFlushWithinARecoveryDoesNotWaitForItself) {
  leave(1);
  Config c = config();
  c.recover_siblings = false;
  std::atomic<Telemetry*> next{nullptr};
  std::atomic<bool> answer{false};
  c.on_recovered = [&](const Recovered&) { answer = next.load()->force_flush(std::chrono::hours(1)); };
  Telemetry telemetry(c);
  next = &telemetry;
  EXPECT_EQ(telemetry.recover(), 1u);
  EXPECT_TRUE(answer);
}

TEST_F(DeadDirectoriesTest, AfterAShutdownNothingIsTakenOver) {
  leave(2);
  Config c = config();
  c.recover_siblings = false;
  std::atomic<int> told{0};
  std::atomic<bool> over{false};
  c.on_recovered = [&](const Recovered&) {
    ++told;
    told.notify_all();
    over.wait(false);
  };
  Telemetry stopped(c);
  std::thread user([&] { stopped.recover(); });
  told.wait(0);
  stopped.shutdown(kLong);
  over = true;
  over.notify_all();
  user.join();
  EXPECT_EQ(stopped.recover(), 0u);
  EXPECT_EQ(told, 1);
  Config d = config();
  d.destinations = {telling("memory"), telling("other")};
  Telemetry next(d);
  EXPECT_TRUE(wait_for_delivery(2)) << "nobody has kept them";
}

TEST_F(TelemetryTest, StatsCanBeAskedForWhateverWasLeftPending) {
  {
    Telemetry telemetry(cut_off());
    telemetry.logger("t").info("left");
    telemetry.shutdown(milliseconds(1));
  }
  Telemetry next(cut_off());
  next.recover();
  EXPECT_FALSE(next.force_flush(milliseconds(20)));
  EXPECT_EQ(counts_of(next, Signal::logs).pending, 1u);
  EXPECT_FALSE(next.shutdown(milliseconds(20)));
  EXPECT_EQ(counts_of(next, Signal::logs).pending, 1u);
  // While that one is only shut down, a third may have what it left.
  Telemetry third(config());
  third.recover();
  EXPECT_TRUE(third.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("left"));
  (void)next.stats();
}

TEST_F(TelemetryTest, ThreadsMayComeAndGo) {
  Telemetry telemetry(config());
  const Tracer tracer = telemetry.tracer("t");
  for (int i = 0; i < 100; ++i) {
    std::thread([&] { auto span = tracer.span("short"); }).join();
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 50; ++n) auto span = tracer.span("at once");
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(memory.spans(), SizeIs(1100));
}

TEST_F(TelemetryTest, AThreadMayOutliveItsTelemetry) {
  std::optional<Telemetry> telemetry(config());
  std::atomic<int> step{0};
  std::thread thread([&] {
    { auto span = telemetry->tracer("t").span("recorded"); }
    step = 1;
    step.notify_all();
    step.wait(1);
  });
  step.wait(0);
  EXPECT_TRUE(telemetry->shutdown(kLong));
  telemetry.reset();
  step = 2;
  step.notify_all();
  thread.join();
  EXPECT_THAT(names(memory.spans()), ElementsAre("recorded"));
}

TEST_F(TelemetryTest, AChildOfForkDoesNotTouchItsParents) {
  SKIP_IF_NO_FORK_BESIDE_THREADS();
  Telemetry telemetry(config());
  const Tracer tracer = telemetry.tracer("t");
  const Logger logger = telemetry.logger("t");
  {
    auto span = tracer.span("parent");
    logger.info("before the fork");
    const pid_t child = fork();
    if (child == 0) {
      span.set("from", "the child");
      span.end();
      { auto own = tracer.span("child"); }
      logger.info("child");
      telemetry.shutdown(kLong);
      _exit(names(memory.spans()) == std::vector<std::string>{"child"} ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    span.set("from", "the parent");
  }
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(names(memory.spans()), ElementsAre("parent"));
  EXPECT_EQ(find_string(memory.spans()[0].attributes, "from"), "the parent");
  EXPECT_THAT(texts(memory.logs()), ElementsAre("before the fork"));
  EXPECT_THAT(recovered, IsEmpty()) << "the child has left nothing";
  Telemetry sibling(config());
  EXPECT_EQ(sibling.recover(), 0u) << "the parent still has its lock";
}

TEST_F(TelemetryTest, WithoutAStateDirectoryEverythingStaysInMemory) {
  Config c = config();
  c.state_directory.clear();
  Telemetry telemetry(c);
  EXPECT_EQ(telemetry.directory(), "");
  telemetry.logger("t").info("one");
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("one"));
  EXPECT_EQ(telemetry.recover(), 0u);
}

TEST_F(TelemetryTest, AStateDirectoryThatCannotBeHadIsSaidOnceAndTelemetryGoesOn) {
  Config c = config();
  std::ofstream(scratch + "/file") << "x";
  c.state_directory = scratch + "/file/state";
  Telemetry telemetry(c);
  EXPECT_EQ(telemetry.directory(), "");
  EXPECT_THAT(lines(), Contains(AllOf(HasSubstr(c.state_directory), HasSubstr("stays in memory"))));
  telemetry.logger("t").info("one");
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(texts(memory.logs()), ElementsAre("one"));
}

TEST_F(TelemetryTest, ADisabledOneRecordsNothing) {
  Config c = config();
  c.disabled = true;
  Telemetry telemetry(c);
  EXPECT_FALSE(telemetry.tracer("t").enabled());
  { auto span = telemetry.tracer("t").span("one"); }
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_TRUE(telemetry.shutdown(kLong));
  EXPECT_FALSE(std::filesystem::exists(c.state_directory));
}

TEST_F(TelemetryTest, ItsDirectoryShowsWhatItRecordedWhileItLivesAndAfter) {
  Telemetry telemetry(config());
  { auto span = telemetry.tracer("t").span("one"); }
  EXPECT_TRUE(telemetry.force_flush(kLong));
  EXPECT_THAT(names(read_state_directory(scratch + "/state").spans), ElementsAre("one"));
  EXPECT_THAT(names(read_state_directory(telemetry.directory()).spans), ElementsAre("one"));
  EXPECT_TRUE(telemetry.shutdown(kLong));
  const ReadTelemetry kept = read_state_directory(scratch + "/state");
  EXPECT_THAT(names(kept.spans), ElementsAre("one")) << "kept, to be looked at";
  EXPECT_EQ(kept.spans[0].scope.name, "t");
  EXPECT_EQ(find_string(kept.spans[0].resource, "service.name"), "test");
}

TEST_F(TelemetryTest, ALosslessDestinationGetsEverythingHoweverSlowItIs) {
  Config c = config();
  c.recorder.max_bytes = 1 << 20;
  c.recorder.ring_bytes = 512 * 1024;
  c.journal.segment_bytes = 1 << 20;
  c.journal.max_bytes = c.journal.memory_bytes = 2 << 20;
  c.journal.block_timeout = seconds(60);
  for (DestinationConfig& d : c.destinations) {
    d.lossy = false;
    d.batch.max_bytes = 16 * 1024;
  }
  Telemetry telemetry(c);
  const Logger logger = telemetry.logger("t");
  const std::string text(1000, 'x');
  constexpr std::size_t kRecords = 8000;  // four times what the journal holds
  for (std::size_t i = 0; i < kRecords; ++i) logger.info(text);
  EXPECT_TRUE(telemetry.force_flush(seconds(60)));
  const Counts counts = counts_of(telemetry, Signal::logs);
  EXPECT_EQ(counts.delivered, kRecords);
  EXPECT_EQ(counts.dropped, 0u);
  EXPECT_TRUE(adds_up(counts));
}

// Its backoff would keep a destination from reading, and what it does not read has no room behind it.
TEST_F(TelemetryTest, AFlushOfAFullJournalHurriesADestinationThatWaitsByItself) {
  std::atomic<bool> up{false};
  std::atomic<bool> tried{false};
  Config c = config();
  c.recorder.max_bytes = 1 << 20;
  c.recorder.ring_bytes = 512 * 1024;
  c.journal.segment_bytes = 1 << 20;
  c.journal.max_bytes = c.journal.memory_bytes = 2 << 20;
  c.journal.block_timeout = milliseconds(50);
  for (DestinationConfig& d : c.destinations) {
    d.lossy = false;
    d.retry.initial = d.retry.maximum = std::chrono::hours(1);
    d.deliver = [&, inner = d.deliver](Signal signal, std::string_view request) {
      if (up) return inner(signal, request);
      tried = true;
      tried.notify_all();
      return DeliveryResult{.outcome = Outcome::retry};
    };
  }
  Telemetry telemetry(c);
  const Logger logger = telemetry.logger("t");
  const std::string text(1000, 'x');
  // Full is what lets nobody in, however long it is given.
  constexpr std::uint64_t kRound = 20;
  std::uint64_t refused = 0;
  std::uint64_t before = 0;
  do {
    for (std::uint64_t i = 0; i < kRound; ++i) logger.info(text);
    before = std::exchange(refused, counts_of(telemetry, Signal::logs).dropped);
  } while (refused - before < kRound);
  tried.wait(false);
  up = true;
  EXPECT_TRUE(telemetry.force_flush(seconds(30)));
  const Counts counts = counts_of(telemetry, Signal::logs);
  EXPECT_EQ(counts.pending, 0u);
  EXPECT_TRUE(adds_up(counts));
}

TEST_F(TelemetryTest, ALossyJournalDropsAndCountsAndNeverWaits) {
  HOLDS("RT-26");
  Config c = cut_off();
  c.recorder.max_bytes = 1 << 20;
  c.recorder.ring_bytes = 512 * 1024;
  c.journal.segment_bytes = 1 << 20;
  c.journal.max_bytes = c.journal.memory_bytes = 2 << 20;
  Telemetry telemetry(c);
  const Logger logger = telemetry.logger("t");
  const std::string text(1000, 'x');
  constexpr std::size_t kRecords = 8000;
  for (std::size_t i = 0; i < kRecords; ++i) logger.info(text);
  EXPECT_FALSE(telemetry.shutdown(milliseconds(1)));
  const Counts counts = counts_of(telemetry, Signal::logs);
  EXPECT_EQ(counts.offered, kRecords);
  EXPECT_GT(counts.dropped, 0u);
  EXPECT_EQ(counts.delivered, 0u);
  EXPECT_TRUE(adds_up(counts));
}

TEST_F(TelemetryTest, WhatARecordMayNotHoldIsCountedOnIt) {
  Config c = config();
  c.span_limits.attribute_count = 10'000;
  Telemetry telemetry(c);
  {
    auto span = telemetry.tracer("t").span("too long");
    for (int i = 0; i < 400; ++i) span.set("key" + std::to_string(i), std::string(1000, 'x'));
  }
  EXPECT_TRUE(telemetry.force_flush(kLong));
  ASSERT_THAT(memory.spans(), SizeIs(1));
  const ReadSpan span = memory.spans()[0];
  EXPECT_GT(span.dropped_attributes, 0u);
  EXPECT_EQ(span.attributes.size() + span.dropped_attributes, 400u);
}

TEST_F(TelemetryTest, ConfigurationOutOfRangeIsRefusedByName) {
  Config c = config();
  c.journal.segment_bytes = 1;
  EXPECT_THROW(Telemetry{c}, Error);
  c = config();
  c.journal.max_bytes = 8 << 20;
  c.recorder.ring_bytes = 4 << 20;  // which a segment must hold twice, and the journal two segments
  EXPECT_THROW(Telemetry{c}, Error);
  c = config();
  c.destinations[0].batch.max_bytes = 1;
  EXPECT_THROW(Telemetry{c}, Error);
  c = config();
  c.destinations[0].deliver = nullptr;
  EXPECT_THROW(Telemetry{c}, Error);
}

}  // namespace
}  // namespace waymark
