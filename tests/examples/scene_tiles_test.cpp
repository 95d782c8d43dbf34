// examples/scene_tiles as a user runs it, with and without a crash, judged by its outputs and its trace.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pixels.h"
#include "support/command.h"
#include "support/http_server.h"
#include "support/official.h"
#include "waymark/client.h"
#include "waymark/reader.h"
#include "waymark/testing.h"

namespace waymark {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using waymark::testing::CommandResult;

// A smooth picture, so that its PNG files compress as real ones do; 6 x 4 tiles of 64 pixels, the last ones smaller.
scene::Image picture() {
  scene::Image image{370, 250, {}};
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      for (const int value : {x % 256, (x + y) % 256, y % 256}) image.pixels.push_back(static_cast<std::uint8_t>(value));
    }
  }
  return image;
}
constexpr int kTile = 64;
constexpr std::size_t kTiles = 24;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class SceneTilesTest : public ::testing::Test {
 protected:
  SceneTilesTest() {
    std::string pattern = ::testing::TempDir() + "scene_tiles_XXXXXX";
    directory = mkdtemp(pattern.data());
    image = directory / "picture.png";
    scene::write_png(image, picture());
  }
  ~SceneTilesTest() override { fs::remove_all(directory); }

  // Without what this machine's user may have set up for telemetry; a sanitizer must not catch the crash that is asked
  // for.
  static std::string environment() {
    return "env -u OTEL_TRACES_ENDPOINT -u OTEL_LOGS_ENDPOINT -u OTEL_EXPORTER_OTLP_ENDPOINT "
           "-u OTEL_EXPORTER_OTLP_TRACES_ENDPOINT -u OTEL_EXPORTER_OTLP_LOGS_ENDPOINT COLUMNS=100 "
           "ASAN_OPTIONS=\"$ASAN_OPTIONS:handle_segv=0\" TSAN_OPTIONS=\"$TSAN_OPTIONS:handle_segv=0\"";
  }
  // `variables` are settings for the shell; `endpoint` is the option's value, if not empty.
  CommandResult run(const fs::path& out, const std::string& variables = {}, const std::string& endpoint = {}) const {
    std::vector<std::string> arguments = {WAYMARK_SCENE_TILES, image.string(), "--out", out.string(), "--tile",
                                          std::to_string(kTile)};
    if (!endpoint.empty()) arguments.insert(arguments.end(), {"--endpoint", endpoint});
    return testing::run_command(arguments, environment() + " " + variables);
  }
  // scripts/demo on this picture, with settings of its own.
  CommandResult demo(const fs::path& out, const std::string& variables = {}) const {
    return testing::run_command({WAYMARK_SOURCE_DIR "/scripts/demo"},
                                environment() + " TILE=" + std::to_string(kTile) + " BUILD='" + WAYMARK_BINARY_DIR +
                                    "' OUT='" + out.string() + "' IMAGE='" + image.string() + "' " + variables);
  }

  fs::path directory;
  fs::path image;
};

std::vector<const ReadSpan*> named(const ReadTelemetry& telemetry, const std::string& name) {
  std::vector<const ReadSpan*> found;
  for (const ReadSpan& span : telemetry.spans) {
    if (span.name == name) found.push_back(&span);
  }
  return found;
}

bool interrupted(const ReadSpan* span) {
  const AnyValue* value = find(span->attributes, "workflow.interrupted");
  return value && value->value == AnyValue{true}.value;
}

// The runner's other task may have died of the same fault in the same moment; the crash is the first's.
bool crashed(const ReadSpan* span) {
  return interrupted(span) && std::ranges::any_of(span->events, [](const ReadEvent& event) { return event.name == "exception"; });
}

TEST_F(SceneTilesTest, ItsTilesPutTogetherAgainEqualTheScene) {
  const fs::path out = directory / "out";
  const CommandResult result = run(out);
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("24 of 24 tiles"));
  EXPECT_THAT(result.output, ContainsRegex("attempts: [1-9][0-9]* begun, [1-9][0-9]* computed, 0 failed"));
  EXPECT_THAT(result.output, ContainsRegex("store: [1-9][0-9]* calls"));
  EXPECT_THAT(result.output, HasSubstr("0 dropped"));

  const scene::Image whole = scene::decode(image);
  scene::Image together{whole.width, whole.height, std::vector<std::uint8_t>(whole.pixels.size())};
  const auto grid = scene::tile_grid({whole.width, whole.height}, kTile);
  ASSERT_EQ(grid.size(), kTiles);
  for (std::size_t i = 0; i < grid.size(); ++i) {
    const std::string name = (i < 10 ? "00" : "0") + std::to_string(i) + ".png";
    scene::paste(together, scene::decode(out / "picture" / "tiles" / name), grid[i].x, grid[i].y);
  }
  EXPECT_TRUE(together == whole);
  EXPECT_TRUE(scene::decode(out / "picture" / "level1.png") == scene::half(whole));
  EXPECT_TRUE(scene::decode(out / "picture" / "mosaic.png") == scene::heat_map(scene::half(whole)));
  EXPECT_THAT(read(out / "picture" / "summary.json"), HasSubstr("\"excess_green\""));
}

// What a run left in `out`: its job's trace is one tree, every span lies inside its parent, the attempts are those that
// the store counted, and every log record belongs to a span, but for what a runner says of itself. A span that was
// delivered twice counts once.
void expect_a_whole_trace(const fs::path& out) {
  const ReadTelemetry traces = read_json_file((out / "traces.jsonl").string());
  const ReadTelemetry logs = read_json_file((out / "logs.jsonl").string());
  using Key = std::pair<TraceId, SpanId>;
  std::map<Key, const ReadSpan*> spans;
  for (const ReadSpan& span : traces.spans) spans.emplace(Key{span.context.trace_id, span.context.span_id}, &span);

  testing::MemoryDestination memory;
  Telemetry telemetry(testing::memory_config(memory));
  Client client({.name = "judge", .store = (out / "store.db").string(), .telemetry = &telemetry});
  std::string id;
  std::ifstream(out / "job.id") >> id;
  const Job job = client.jobs().find(id);
  EXPECT_EQ(job.state, JobState::completed);

  std::vector<std::string> roots;
  std::map<std::pair<std::string, std::string>, std::uint32_t> attempts;  // by task id and span name
  for (const auto& [key, span] : spans) {
    if (key.first != job.trace_id) continue;
    if (span->name.starts_with("task/")) {
      ++attempts[{std::string(find_string(span->attributes, "task_id")), span->name}];
    }
    if (!span->parent.valid()) {
      roots.push_back(span->name);
      continue;
    }
    const auto parent = spans.find({key.first, span->parent});
    ASSERT_NE(parent, spans.end()) << span->name;
    EXPECT_LE(parent->second->start, span->start) << span->name << " in " << parent->second->name;
    EXPECT_GE(parent->second->end, span->end) << span->name << " in " << parent->second->name;
  }
  EXPECT_THAT(roots, ElementsAre("job/scene tiles"));

  std::map<std::pair<std::string, std::string>, std::uint32_t> stored;
  for (const TaskInfo& task : client.jobs().tasks(id)) stored[{task.id, "task/" + task.name}] = task.attempts;
  EXPECT_EQ(attempts, stored);

  EXPECT_FALSE(logs.logs.empty());
  for (const ReadLog& log : logs.logs) {
    if (log.scope.name == "waymark.runner" && !log.trace_id.valid() && !log.span_id.valid()) continue;
    EXPECT_TRUE(spans.contains({log.trace_id, log.span_id})) << to_text(log.body);
  }
}

TEST_F(SceneTilesTest, ItsTraceIsOneTreeThatEnclosesWhatItHolds) {
  const fs::path out = directory / "out";
  const CommandResult result = run(out);
  ASSERT_EQ(result.exit_code, 0) << result.output;
  expect_a_whole_trace(out);
  const ReadTelemetry telemetry = read_json_file((out / "traces.jsonl").string());
  EXPECT_EQ(named(telemetry, "task/Tile").size(), kTiles);
  EXPECT_EQ(named(telemetry, "statistics").size(), kTiles);
}

TEST_F(SceneTilesTest, ItsFilesAreWhatTheOfficialClassesWrite) {
  const fs::path out = directory / "out";
  const CommandResult result = run(out);
  ASSERT_EQ(result.exit_code, 0) << result.output;
  for (const Signal signal : {Signal::traces, Signal::logs, Signal::metrics}) {
    const std::string name = std::string(signal_name(signal)) + ".jsonl";
    std::ifstream file(out / name);
    std::size_t lines = 0;
    for (std::string line; std::getline(file, line); ++lines) {
      EXPECT_EQ(nlohmann::json::parse(line), nlohmann::json::parse(testing::official_json_of_json(signal, line)));
    }
    EXPECT_GT(lines, 0u) << name;
  }
}

// The names of all spans and the bodies of all log records in requests of OTLP JSON.
using Names = std::multiset<std::string>;
void add_names(const std::string& request, Names& names) {
  const auto json = nlohmann::json::parse(request);
  for (const auto& resource : json.value("resourceSpans", nlohmann::json::array())) {
    for (const auto& scope : resource.at("scopeSpans")) {
      for (const auto& span : scope.at("spans")) names.insert(span.at("name").get<std::string>());
    }
  }
  for (const auto& resource : json.value("resourceLogs", nlohmann::json::array())) {
    for (const auto& scope : resource.at("scopeLogs")) {
      for (const auto& log : scope.at("logRecords")) names.insert(log.at("body").at("stringValue").get<std::string>());
    }
  }
}

Names names_in(const fs::path& file) {
  Names names;
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) add_names(line, names);
  return names;
}

// What came in for the signal, decoded by the official classes.
Names names_received(const testing::HttpServer& server, Signal signal) {
  Names names;
  for (const testing::HttpRequest& request : server.requests()) {
    if (request.target == (signal == Signal::traces ? "/v1/traces" : "/v1/logs")) {
      add_names(testing::official_json(signal, request.body), names);
    }
  }
  return names;
}

TEST_F(SceneTilesTest, ItSendsToAnEndpointWhatItElseWritesToFiles) {
  const CommandResult files = run(directory / "files");
  ASSERT_EQ(files.exit_code, 0) << files.output;
  const Names spans = names_in(directory / "files" / "traces.jsonl");
  const Names logs = names_in(directory / "files" / "logs.jsonl");
  EXPECT_EQ(spans.count("task/Tile"), kTiles);
  EXPECT_EQ(logs.count("tile done"), kTiles);

  testing::HttpServer both;
  const CommandResult option = run(directory / "option", "", both.url(""));
  ASSERT_EQ(option.exit_code, 0) << option.output;
  EXPECT_EQ(names_received(both, Signal::traces), spans);
  EXPECT_EQ(names_received(both, Signal::logs), logs);
  EXPECT_FALSE(fs::exists(directory / "option" / "traces.jsonl"));

  testing::HttpServer for_traces;
  testing::HttpServer for_logs;
  const CommandResult variables =
      run(directory / "variables",
          "OTEL_TRACES_ENDPOINT=" + for_traces.url("") + " OTEL_LOGS_ENDPOINT=" + for_logs.url(""));
  ASSERT_EQ(variables.exit_code, 0) << variables.output;
  EXPECT_EQ(names_received(for_traces, Signal::traces), spans);
  EXPECT_EQ(names_received(for_traces, Signal::logs), Names());
  EXPECT_EQ(names_received(for_logs, Signal::traces), Names());
  EXPECT_EQ(names_received(for_logs, Signal::logs), logs);
  EXPECT_FALSE(fs::exists(directory / "variables" / "logs.jsonl"));
}

TEST_F(SceneTilesTest, TheDemoSaysWhereEverythingLiesAndHowToSeeItInJaeger) {
  const fs::path out = directory / "out";
  const CommandResult result = demo(out);
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("24 of 24 tiles"));
  EXPECT_THAT(result.output, HasSubstr("job/scene tiles"));
  EXPECT_THAT(result.output, Not(HasSubstr("attempt 2")));

  const std::string telemetry = (out / "traces.jsonl").string() + " " + (out / "logs.jsonl").string();
  const std::string again = WAYMARK_BINARY_DIR "/runner/waymark trace " + telemetry;
  EXPECT_THAT(result.output, HasSubstr("\noutputs    " + (out / "picture" / "mosaic.png").string() +
                                       "; beside it tiles/, level1.png, summary.json\n"));
  EXPECT_THAT(result.output, HasSubstr("\ntelemetry  " + telemetry + "\n"));
  EXPECT_THAT(result.output, HasSubstr("\nagain      " + again + "\n"));
  EXPECT_THAT(result.output, HasSubstr("\nto Jaeger  OTEL_TRACES_ENDPOINT=http://localhost:4318 make demo\n"));
  EXPECT_EQ(testing::run_command({"sh", "-c", again}).exit_code, 0);
}

TEST_F(SceneTilesTest, ACrashedRunnersJobIsFinishedByTheOtherWithTheSameResult) {
  const fs::path calm = directory / "calm";
  ASSERT_EQ(run(calm).exit_code, 0);

  const fs::path out = directory / "out";
  const CommandResult result = demo(out, "FAULT=crash");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("died of SIGSEGV"));
  EXPECT_THAT(result.output, HasSubstr("task/Tile attempt 2"));
  EXPECT_THAT(result.output, HasSubstr("event band done  band=red"));
  // What it died of, and where.
  EXPECT_THAT(result.output, HasSubstr("interrupted by SIGSEGV: address not mapped at 0x8\n"));
  EXPECT_THAT(result.output, ContainsRegex("SIGSEGV: address not mapped at 0x8\n[^\n]*  #0 "));

  std::size_t files = 0;
  for (const auto& file : fs::recursive_directory_iterator(calm / "picture")) {
    if (!file.is_regular_file()) continue;
    ++files;
    EXPECT_TRUE(read(file.path()) == read(out / "picture" / fs::relative(file.path(), calm / "picture"))) << file.path();
  }
  EXPECT_EQ(files, 2 * kTiles + 4);

  expect_a_whole_trace(out);
  const ReadTelemetry telemetry = read_json_file((out / "traces.jsonl").string());
  const auto statistics = named(telemetry, "statistics");
  const auto died = std::ranges::find_if(statistics, crashed);
  ASSERT_NE(died, statistics.end()) << result.output;
  EXPECT_EQ((*died)->status, StatusCode::error);
  ASSERT_EQ((*died)->events.size(), 3u) << "two bands, and the crash";
  EXPECT_EQ(find_string((*died)->events[2].attributes, "exception.type"), "SIGSEGV");
  EXPECT_THAT(std::string(find_string((*died)->events[2].attributes, "exception.stacktrace")), HasSubstr("(scene_tiles+0x"));
  const auto tiles = named(telemetry, "task/Tile");
  EXPECT_TRUE(std::ranges::any_of(tiles, interrupted));
}

}  // namespace
}  // namespace waymark
