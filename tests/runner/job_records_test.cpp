// The records of a job, from what a state directory keeps.
#include "job_records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "runner/workflow.h"

namespace waymark {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

Config kept_in(const std::string& directory) {
  Config config;
  config.resource = Resource("records-test");
  config.state_directory = directory;
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    DestinationConfig file;
    file.name = "file";
    file.signal = signal;
    file.output = Output::file;
    file.path = directory + "/" + std::string(signal_name(signal)) + ".jsonl";
    config.destinations.push_back(file);
  }
  return config;
}

std::vector<std::string> span_names(const std::vector<ReadSpan>& spans) {
  std::vector<std::string> all;
  for (const ReadSpan& span : spans) all.push_back(span.name);
  return all;
}

class JobRecordsTest : public ::testing::Test {
 protected:
  ClientOptions options(Telemetry& telemetry) {
    return {.name = "test", .store = directory_.path() + "/store.db", .telemetry = &telemetry};
  }
  static void run(Client& client) {
    client.runner<ProcessScene, Tile, Mosaic, Scripted, Empty>({.concurrency = 1}).run_all();
  }
  testing::TemporaryDirectory directory_;
};

TEST_F(JobRecordsTest, GivesTheSpansAndLogsOfOneJobInTheirOrder) {
  Telemetry telemetry(kept_in(directory_.path() + "/state"));
  Client client(options(telemetry));
  const Job scene = client.jobs().submit("scene", ProcessScene{"S2A_1", 2});
  const Job other = client.jobs().submit("other", ProcessScene{"S2A_2", 1});
  run(client);

  const auto spans = client.jobs().query_spans(scene.id);
  EXPECT_THAT(span_names(spans),
              UnorderedElementsAre("submit/scene", "job/scene", "task/ProcessScene", "subtasks/ProcessScene", "task/Tile",
                                   "read_bands", "task/Tile", "read_bands", "task/Mosaic"));
  EXPECT_TRUE(std::is_sorted(spans.begin(), spans.end(), [](const auto& a, const auto& b) { return a.start < b.start; }));
  std::vector<std::string> bodies;
  const auto logs = client.jobs().query_logs(scene.id);
  for (const ReadLog& log : logs) bodies.push_back(to_text(log.body));
  EXPECT_THAT(bodies, ElementsAre("tile read", "tile read", "mosaic done"));
  EXPECT_TRUE(std::is_sorted(logs.begin(), logs.end(), [](const auto& a, const auto& b) { return a.time < b.time; }));
  EXPECT_THAT(client.jobs().query_logs(other.id), SizeIs(2));
}

TEST_F(JobRecordsTest, ReadsWhatProcessesThatAreGoneHaveLeft) {
  const std::string state = directory_.path() + "/state";
  std::string id;
  {
    Telemetry telemetry(kept_in(state));
    Client client(options(telemetry));
    id = client.jobs().submit("scene", ProcessScene{"S2A_1", 1}).id;
    run(client);
    telemetry.shutdown(10s);
  }
  testing::MemoryDestination memory;
  Telemetry without(testing::memory_config(memory));
  Client client(options(without));
  EXPECT_THAT(client.jobs().query_spans(id, state), SizeIs(7));
  EXPECT_THAT(client.jobs().query_logs(id, state), SizeIs(2));
  for (const std::string& directory : {std::string(), directory_.path() + "/nowhere"}) {
    try {
      (void)client.jobs().query_logs(id, directory);
      ADD_FAILURE() << "read nothing, and did not say so";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::not_found) << error.what();
    }
  }
  EXPECT_THROW((void)client.jobs().query_spans("no such job", state), Error);
}

// ------ whose a record is

struct Made {
  ReadTelemetry all;
  TraceId trace = TraceId::random();

  SpanId span(const std::string& name, SpanId parent, const std::string& job = {}) {
    ReadSpan s;
    s.name = name;
    s.context.trace_id = trace;
    s.context.span_id = SpanId::random();
    s.parent = parent;
    s.start = Timestamp(std::chrono::nanoseconds(++time));
    s.end = Timestamp(std::chrono::nanoseconds(1000 - time));
    if (!job.empty()) s.attributes.push_back({"workflow.job.id", AnyValue{job}});
    all.spans.push_back(s);
    return s.context.span_id;
  }
  void log(const std::string& body, SpanId within) {
    ReadLog l;
    l.body = AnyValue{body};
    l.trace_id = trace;
    l.span_id = within;
    l.time = Timestamp(std::chrono::nanoseconds(++time));
    all.logs.push_back(l);
  }
  [[nodiscard]] std::vector<std::string> of(const std::string& id) const {
    Job job;
    job.id = id;
    job.trace_id = trace;
    const ReadTelemetry found = detail::records_of(all, job);
    std::vector<std::string> names = span_names(found.spans);
    for (const ReadLog& l : found.logs) names.push_back(to_text(l.body));
    return names;
  }
  std::int64_t time = 0;
};

TEST(RecordsOfAJob, TellTheJobFromTheOneThatItsTaskRanAndFromWhatIsAround) {
  Made made;
  const SpanId caller = made.span("caller", {});
  const SpanId outer = made.span("task/Outer", caller, "outer");
  const SpanId inner = made.span("task/Inner", made.span("job/inner", outer, "inner"), "inner");
  const SpanId read = made.span("read", made.span("open", inner));
  made.log("in read", read);
  made.log("in outer", outer);
  made.log("around", caller);
  made.log("in a span that is open", SpanId::random());
  EXPECT_THAT(made.of("outer"), ElementsAre("task/Outer", "in outer"));
  EXPECT_THAT(made.of("inner"), ElementsAre("job/inner", "task/Inner", "open", "read", "in read"));
}

TEST(RecordsOfAJob, IncludeWhatLiesInSpansThatAreStillOpen) {
  Made made;
  const SpanId open = SpanId::random();
  made.span("read", open);
  made.log("in an open span", open);
  EXPECT_THAT(made.of("job"), ElementsAre("read", "in an open span"));
  Made other;
  other.span("read", open);
  other.trace = TraceId::random();
  EXPECT_THAT(other.of("job"), IsEmpty());
}

TEST(RecordsOfAJob, AreThereOnceAndSurviveParentsInACircle) {
  Made made;
  made.span("task/A", {}, "job");
  made.all.spans.push_back(made.all.spans.back());
  const SpanId first = made.span("first", {});
  const SpanId second = made.span("second", first);
  made.all.spans[2].parent = second;
  EXPECT_THAT(made.of("job"), ElementsAre("task/A"));
}

}  // namespace
}  // namespace waymark
