// The waterfall as text: golden pictures of hand-made traces.
#include "cli/waterfall.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "cli/display_text.h"

namespace waymark::cli {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using testing::HasSubstr;
using testing::Not;

const Timestamp kStart{1'800'000'000s};

SpanId span_id(std::uint8_t number) {
  SpanId id;
  id.bytes[7] = number;
  return id;
}

TraceId trace_id(std::uint8_t number) {
  TraceId id;
  id.bytes.fill(number);
  return id;
}

AnyValue text(std::string value) { return {std::move(value)}; }
AnyValue number(std::int64_t value) { return {value}; }
AnyValue yes() { return {true}; }

// Traces written down as a list; spans are numbered from 1 in the order in which they are added.
class Sketch {
 public:
  ReadSpan& span(std::uint8_t parent, std::string name, nanoseconds start, nanoseconds end, AnyMap attributes = {}) {
    ReadSpan span;
    span.context.trace_id = trace_id(trace_);
    span.context.span_id = span_id(++last_);
    if (parent > 0) span.parent = span_id(parent);
    span.name = std::move(name);
    span.start = kStart + start;
    span.end = kStart + end;
    span.attributes = std::move(attributes);
    telemetry.spans.push_back(std::move(span));
    return telemetry.spans.back();
  }
  ReadLog& log(std::uint8_t span, std::string message, nanoseconds time, AnyMap attributes = {}) {
    ReadLog log;
    log.time = kStart + time;
    log.severity = 9;
    log.severity_text = "info";
    log.body = text(std::move(message));
    log.trace_id = trace_id(trace_);
    log.span_id = span_id(span);
    log.attributes = std::move(attributes);
    telemetry.logs.push_back(std::move(log));
    return telemetry.logs.back();
  }
  void next_trace() { ++trace_; }
  [[nodiscard]] std::string draw(WaterfallOptions options = {.width = 80}) const {
    return "\n" + draw_waterfall(telemetry, options);
  }

  ReadTelemetry telemetry;

 private:
  std::uint8_t trace_ = 0xab;
  std::uint8_t last_ = 0;
};

AnyMap attempt(std::string task, std::int64_t attempt) {
  return {{"task_id", text(std::move(task))}, {"workflow.attempt", number(attempt)}, {"workflow.job.id", text("0197-a")}};
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t end = text.find('\n', from);
    result.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return result;
}

TEST(WaterfallTest, DrawsAJobAsATreeOfBars) {
  Sketch sketch;
  sketch.span(0, "job/earth", 0ms, 2000ms, {{"workflow.job.name", text("scene earth")}});
  sketch.span(1, "task/ReadScene", 100ms, 500ms);
  sketch.span(2, "decode", 150ms, 400ms);
  sketch.span(1, "subtasks/ReadScene", 500ms, 2000ms);
  sketch.span(4, "task/Tile", 500ms, 1250ms);
  sketch.span(4, "task/Tile", 500ms, 1000ms);
  sketch.span(4, "task/Mosaic", 1250ms, 2000ms);
  sketch.log(2, "scene read", 450ms);
  sketch.log(7, "mosaic done", 1900ms);
  sketch.log(7, "mosaic written", 1950ms);
  EXPECT_EQ(sketch.draw(), R"(
trace abababababababababababababababab  scene earth
2.00 s elapsed, 2.40 s of compute (1.2 at a time), 7 spans, 3 log records

                        duration     start  0                             2.00 s
job/earth                 2.00 s      +0 s  ────────────────────────────────────
├─task/ReadScene     ≡1   400 ms   +100 ms   ▕███████
│ └─decode                250 ms   +150 ms    ▕████▎
└─subtasks/ReadScene      1.50 s   +500 ms           ───────────────────────────
  ├─task/Tile             750 ms   +500 ms           █████████████▌
  ├─task/Tile             500 ms   +500 ms           █████████
  └─task/Mosaic      ≡2   750 ms   +1.25 s                        ▐█████████████

≡ log records
)");
}

TEST(WaterfallTest, ShowsWhatAnInterruptedSpanHadRecorded) {
  Sketch sketch;
  sketch.span(0, "job/earth", 0ms, 2000ms, {{"workflow.job.name", text("scene earth")}});
  AnyMap died = attempt("t1", 1);
  died.push_back({"workflow.interrupted", yes()});
  died.push_back({"tile.index", number(5)});
  died.push_back({"tile.region", text("1024,512 256x256")});
  ReadSpan& first = sketch.span(1, "task/Tile", 0ms, 400ms, died);
  first.status = StatusCode::error;
  first.status_message = "interrupted";
  first.events.push_back({kStart + 120ms, "pixels read", {{"bytes", number(196608)}}, 0});
  sketch.span(1, "task/Tile", 800ms, 2000ms, attempt("t1", 2));
  sketch.log(2, "statistics begin", 130ms, {{"bands", number(3)}});
  EXPECT_EQ(sketch.draw(), R"(
trace abababababababababababababababab  scene earth
2.00 s elapsed, 1.60 s of compute (0.8 at a time), 3 spans, 1 log record,
1 interrupted

                           duration     start  0                          2.00 s
job/earth                    2.00 s      +0 s  ─────────────────────────────────
├─task/Tile attempt 1 ↯ ≡1   400 ms      +0 s  ██████▋
│   interrupted
│   tile.index=5 tile.region=1024,512 256x256
│   +120 ms event pixels read  bytes=196608
│   +130 ms info statistics begin  bands=3
└─task/Tile attempt 2        1.20 s   +800 ms               ▐███████████████████

↯ interrupted: its process died; below it, what it had recorded   ≡ log records
)");
}

TEST(WaterfallTest, ShowsWhatACrashedSpanDiedOfAndTheInnermostFrames) {
  Sketch sketch;
  ReadSpan& span = sketch.span(0, "task/Tile", 0ms, 400ms, {{"workflow.interrupted", yes()}});
  span.status = StatusCode::error;
  span.status_message = "interrupted by SIGSEGV: address not mapped at 0x8";
  std::string stack = "#0 crash() at tasks.cpp:54 (scene+0x12)";
  for (int i = 1; i < 7; ++i) stack += "\n#" + std::to_string(i) + " 0x" + std::to_string(i);
  span.events.push_back({kStart + 120ms,
                         "exception",
                         {{"exception.type", text("SIGSEGV")},
                          {"exception.message", text("SIGSEGV: address not mapped at 0x8")},
                          {"exception.stacktrace", text(stack)}},
                         0});
  EXPECT_THAT(sketch.draw(), HasSubstr(R"(
  interrupted by SIGSEGV: address not mapped at 0x8
  +120 ms SIGSEGV: address not mapped at 0x8
    #0 crash() at tasks.cpp:54 (scene+0x12)
    #1 0x1
    #2 0x2
    #3 0x3
    (3 more frames)
)"));
}

TEST(WaterfallTest, MarksErrorsAttemptsAndLostLeases) {
  Sketch sketch;
  sketch.span(0, "job/earth", 0ms, 3s);
  ReadSpan& failed = sketch.span(1, "task/Tile", 0ms, 500ms, attempt("t1", 1));
  failed.status = StatusCode::error;
  failed.events.push_back({kStart + 499ms, "exception",
                           {{"exception.type", text("std::runtime_error")}, {"exception.message", text("no such band: 9")}}, 0});
  AnyMap lost = attempt("t1", 2);
  lost.push_back({"workflow.lease_lost", yes()});
  sketch.span(1, "task/Tile", 1s, 2s, lost);
  sketch.span(1, "task/Tile", 2s, 3s, attempt("t1", 3));
  sketch.span(1, "task/Other", 2s, 3s, attempt("t2", 1));
  EXPECT_EQ(sketch.draw(), R"(
trace abababababababababababababababab  job/earth
3.00 s elapsed, 3.50 s of compute (1.2 at a time), 5 spans, 0 log records,
1 error

                        duration     start  0                             3.00 s
job/earth                 3.00 s      +0 s  ────────────────────────────────────
├─task/Tile attempt 1 ✗   500 ms      +0 s  ██████
│   std::runtime_error: no such band: 9
├─task/Tile attempt 2 ⊘   1.00 s   +1.00 s              ████████████
├─task/Other              1.00 s   +2.00 s                          ████████████
└─task/Tile attempt 3     1.00 s   +2.00 s                          ████████████

✗ error   ⊘ lease lost: another runner took the task over
)");
}

TEST(WaterfallTest, FoldsManySiblingsButNeverWhatWentWrong) {
  Sketch sketch;
  sketch.span(0, "job/earth", 0ms, 2s);
  for (int i = 0; i < 20; ++i) sketch.span(1, "task/Tile", i * 100ms, i * 100ms + 50ms + (i % 5 == 2 ? i * 1ms : 0ms));
  ReadSpan& failed = sketch.span(1, "task/Tile", 1s, 1010ms, attempt("t1", 1));
  failed.status = StatusCode::error;
  sketch.span(1, "task/Tile", 1100ms, 1120ms, attempt("t1", 2));
  sketch.span(1, "task/Mosaic", 1900ms, 2s);
  EXPECT_EQ(sketch.draw(), R"(
trace abababababababababababababababab  job/earth
2.00 s elapsed, 1.17 s of compute (0.6 at a time), 24 spans, 0 log records,
1 error

                        duration     start  0                             2.00 s
job/earth                 2.00 s      +0 s  ────────────────────────────────────
├─task/Tile attempt 1 ✗  10.0 ms   +1.00 s                    ▏
├─task/Tile attempt 2    20.0 ms   +1.10 s                     ▕▏
├─task/Tile              62.0 ms   +1.20 s                       ▐▊
├─task/Tile              67.0 ms   +1.70 s                                ▐▊
├─… 18 more task/Tile, 909 ms in all        ░░░░░░░░░░░░░░░░░░░░░  ░░░░░░░  ░░░░
└─task/Mosaic             100 ms   +1.90 s                                    ▐█

✗ error   ░ folded (--all shows them)
)");
  const std::string all = sketch.draw({.width = 80, .all = true});
  EXPECT_EQ(lines(all).size(), lines(sketch.draw()).size() + 17) << all;
}

TEST(WaterfallTest, PutsSpansWithoutTheirParentUnderAQuestionMark) {
  Sketch sketch;
  sketch.span(0, "job/earth", 0ms, 1s);
  sketch.span(99, "task/Lost", 100ms, 300ms);
  sketch.span(2, "read", 100ms, 200ms);
  sketch.span(98, "task/Gone", 200ms, 300ms);
  EXPECT_EQ(sketch.draw(), R"(
trace abababababababababababababababab  job/earth
1.00 s elapsed, 300 ms of compute (0.3 at a time), 4 spans, 0 log records

            duration     start  0                                         1.00 s
job/earth     1.00 s      +0 s  ────────────────────────────────────────────────
?
├─task/Lost   200 ms   +100 ms      ▕█████████▍
│ └─read      100 ms   +100 ms      ▕████▋
└─task/Gone   100 ms   +200 ms           ▐████▍

? their parent span is not here (yet)
)");
}

TEST(WaterfallTest, DrawsAJobThatIsStillRunning) {
  Sketch sketch;
  for (int i = 0; i < 20; ++i) {
    sketch.span(99, "task/Tile", i * 100ms, i * 100ms + 50ms, {{"workflow.job.name", text("scene earth")}});
  }
  const std::string picture = sketch.draw();
  EXPECT_THAT(picture, HasSubstr("abab  scene earth\n"));
  EXPECT_THAT(picture, HasSubstr("└─… 18 more task/Tile, 900 ms in all"));
}

TEST(WaterfallTest, DrawsACircleOfParentsOnce) {
  Sketch sketch;
  sketch.span(2, "hen", 0ms, 1s);
  sketch.span(1, "egg", 0ms, 1s);
  sketch.span(3, "ouroboros", 0ms, 1s);
  const std::string picture = sketch.draw();
  for (const auto* name : {"hen", "egg", "ouroboros"}) {
    const auto first = picture.find(name, picture.find('?'));
    ASSERT_NE(first, std::string::npos) << picture;
    EXPECT_EQ(picture.find(name, first + 1), std::string::npos) << picture;
  }
}

TEST(WaterfallTest, CountsWhatWasDeliveredTwiceOnceAndPrefersTheFinishedCopy) {
  Sketch sketch;
  sketch.span(0, "job/earth", 0ms, 1s);
  sketch.log(1, "hello", 5ms);
  sketch.telemetry.spans.push_back(sketch.telemetry.spans.front());
  sketch.telemetry.spans.back().attributes.push_back({"workflow.interrupted", yes()});
  sketch.telemetry.logs.push_back(sketch.telemetry.logs.front());
  EXPECT_THAT(sketch.draw(), HasSubstr("1 span, 1 log record\n"));
  std::swap(sketch.telemetry.spans[0], sketch.telemetry.spans[1]);
  EXPECT_THAT(sketch.draw(), HasSubstr("1 span, 1 log record\n"));
}

TEST(WaterfallTest, DrawsTracesInTheOrderInWhichTheyBegan) {
  Sketch sketch;
  sketch.span(0, "job/second", 2s, 3s);
  sketch.next_trace();
  sketch.span(0, "job/first", 0s, 1s);
  const std::string picture = sketch.draw();
  EXPECT_LT(picture.find("job/first"), picture.find("job/second")) << picture;
}

TEST(WaterfallTest, PicksAJobByTheBeginningOfItsId) {
  Sketch sketch;
  sketch.span(0, "job/wanted", 0s, 1s, {{"workflow.job.id", text("0197aaaa")}});
  sketch.next_trace();
  sketch.span(0, "job/other", 0s, 1s, {{"workflow.job.id", text("0198bbbb")}});
  const std::string picture = sketch.draw({.width = 80, .job = "0197"});
  EXPECT_THAT(picture, HasSubstr("job/wanted"));
  EXPECT_THAT(picture, Not(HasSubstr("job/other")));
  EXPECT_EQ(draw_waterfall(sketch.telemetry, {.job = "0199"}), "");
}

TEST(WaterfallTest, NeverExceedsTheWidth) {
  Sketch sketch;
  sketch.span(0, "job/衛星画像の処理", 0ms, 1s, {{"workflow.job.name", text(std::string(200, 'n'))}});
  for (std::uint8_t depth = 1; depth < 60; ++depth) {
    ReadSpan& span = sketch.span(depth, "subtasks/very long name of a task 衛星画像", depth * 1ms, 1s - depth * 1ms,
                                 {{"workflow.interrupted", yes()}, {"note", text(std::string(300, 'x'))}});
    span.status = StatusCode::error;
    span.status_message = "word after word after word after word after word after word after word after word";
    sketch.log(depth, "a record", 1ms);
  }
  for (const int width : {20, 40, 57, 80, 100, 250}) {
    for (const std::string& line : lines(sketch.draw({.width = width}))) {
      EXPECT_LE(columns(line), std::max(width, 40)) << line;
      EXPECT_FALSE(line.ends_with(' ')) << line;
    }
  }
}

TEST(WaterfallTest, KeepsControlCharactersFromTheTerminal) {
  Sketch sketch;
  sketch.span(0, "job/\x1b[2Jgone", 0ms, 1s, {{"workflow.interrupted", yes()}, {"k\x07", text("a\nb\x9b")}});
  const std::string picture = sketch.draw();
  EXPECT_THAT(picture, HasSubstr("job/\uFFFD[2Jgone"));
  EXPECT_THAT(picture, HasSubstr("k\uFFFD=a b\uFFFD"));
  EXPECT_THAT(picture, Not(HasSubstr("\x1b")));
}

TEST(WaterfallTest, ColorsOnlyWhereAsked) {
  Sketch sketch;
  sketch.span(0, "job/earth", 0ms, 1s).status = StatusCode::error;
  EXPECT_THAT(sketch.draw({.width = 80, .color = true}), HasSubstr("\x1b[31mjob/earth"));
  EXPECT_THAT(sketch.draw(), Not(HasSubstr("\x1b")));
}

TEST(HumanDurationTest, ShowsThreeDigits) {
  EXPECT_EQ(human_duration(0ns), "0 s");
  EXPECT_EQ(human_duration(850ns), "850 ns");
  EXPECT_EQ(human_duration(1500ns), "1.50 µs");
  EXPECT_EQ(human_duration(45'100us), "45.1 ms");
  EXPECT_EQ(human_duration(999'600us), "1.00 s");
  EXPECT_EQ(human_duration(1234ms), "1.23 s");
  EXPECT_EQ(human_duration(59'949ms), "59.9 s");
  EXPECT_EQ(human_duration(59'980ms), "1m00s");
  EXPECT_EQ(human_duration(125s), "2m05s");
  EXPECT_EQ(human_duration(3599'600ms), "1h00m");
  EXPECT_EQ(human_duration(26h + 2min), "26h02m");
}

TEST(DisplayTextTest, KnowsHowWideTextIs) {
  EXPECT_EQ(columns("task/Tile"), 9);
  EXPECT_EQ(columns("Größe"), 5);
  EXPECT_EQ(columns("e\u0301"), 1);
  EXPECT_EQ(columns("衛星"), 4);
  EXPECT_EQ(columns("🛰"), 2);
  EXPECT_EQ(columns("├─░█"), 4);
}

TEST(DisplayTextTest, CutsBetweenCharacters) {
  EXPECT_EQ(cut("mosaic", 6), "mosaic");
  EXPECT_EQ(cut("mosaic", 5), "mosa…");
  EXPECT_EQ(cut("衛星画像", 6), "衛星…");
  EXPECT_EQ(cut("衛星画像", 4), "衛…");
  EXPECT_EQ(cut("mosaic", 1), "…");
  EXPECT_EQ(cut("mosaic", 0), "");
  EXPECT_EQ(pad_left("é", 3), "  é");
  EXPECT_EQ(pad_right("衛", 3), "衛 ");
}

TEST(DisplayTextTest, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(printable("a\xff\xc3"), "a\uFFFD\uFFFD");
  EXPECT_EQ(printable("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(printable("\xc0\x80"), "\uFFFD\uFFFD");             // an overlong NUL
  EXPECT_EQ(printable("one\r\ntwo\tthree"), "one  two three");
  EXPECT_EQ(printable("\u202Eevil"), "\uFFFDevil");
}

}  // namespace
}  // namespace waymark::cli
