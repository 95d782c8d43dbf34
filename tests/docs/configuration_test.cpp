// The examples of docs/configuration.md.
#include <gtest/gtest.h>

#include <functional>

#include "docs/recorded.h"
#include "runner/temporary_directory.h"

namespace waymark::docs {
namespace {

using namespace std::chrono_literals;

[[maybe_unused]] void start() {
  waymark::configure_otel_tracing({.service = "sentinel-2-runner",
                                   .endpoint = "http://localhost:4318",
                                   .headers = {{"Authorization", "Bearer <token>"}},
                                   .export_interval = 2s});
  waymark::configure_otel_logging({.service = "sentinel-2-runner", .endpoint = "http://localhost:4318"});
  waymark::configure_console_logging({.level = waymark::Severity::warning});
}

TEST(ConfigurationPage, ErrorsSayWhatToWrite) {
  const auto message = [](const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.what()) + "\n";
    }
    return std::string();
  };
  EXPECT_EQ(message([] { configure_otel_tracing({.service = "tiles", .endpoint = "localhost:4318"}); }) +
                message([] { (void)parse_duration("5 s", "OTEL_EXPORT_INTERVAL"); }),
            1 + R"(
endpoint: 'localhost:4318' does not start with http:// or https://; write for example http://localhost:4318 or file:PATH
OTEL_EXPORT_INTERVAL: '5 s' has an unknown unit (known are d, h, m, s, ms, us, in lower case); write for example '5s', '250ms', '1m30s', '1.5h' or '1d2h3m4s'
)");
}

TEST(ConfigurationPage, ATelemetryOfOnesOwn) {
  const testing::TemporaryDirectory temporary;
  const std::string directory = temporary.path() + "/state";
  const std::string file = temporary.path() + "/traces.jsonl";
  {
    waymark::Config config;
    config.resource = "ingest";
    config.state_directory = directory;
    config.journal.max_bytes = 64 * 1024 * 1024;
    waymark::DestinationConfig archive;
    archive.name = "archive";
    archive.output = waymark::Output::file;
    archive.path = file;
    config.destinations.push_back(std::move(archive));
    waymark::Telemetry telemetry(std::move(config));
    auto span = telemetry.tracer("ingest").span("read");
    span.end();
  }
  EXPECT_EQ(read_json_file(file).spans.at(0).name, "read");
}

}  // namespace
}  // namespace waymark::docs
