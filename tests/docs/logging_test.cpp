// The examples of docs/logging.md.
#include <gtest/gtest.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <waymark/spdlog_sink.h>

#include <stdexcept>

#include "docs/recorded.h"

namespace waymark::docs {
namespace {

const std::string scene_id = "S2A_1";

[[maybe_unused]] void start() {
  waymark::configure_otel_logging({.service = "tiles",
                                   .endpoint = "http://localhost:4318",
                                   .level = waymark::Severity::info});
  waymark::configure_console_logging({.level = waymark::Severity::warning});
  const waymark::Logger log = waymark::logger("tiles");
}

[[maybe_unused]] void sink() {
  spdlog::default_logger()->sinks().push_back(waymark::spdlog_sink());
  spdlog::info("{} tiles read", 16);
}

[[maybe_unused]] void error_handler() {
  auto own = spdlog::stderr_color_mt("waymark");
  waymark::set_error_handler([own](waymark::DiagnosticLevel level, std::string_view message) {
    own->log(level == waymark::DiagnosticLevel::error ? spdlog::level::err : spdlog::level::warn, "{}", message);
  });
}

TEST(LoggingPage, RecordsHaveAttributes) {
  Recorded recorded;
  const Logger& log = recorded.log;
  log.info("tile read", {{"index", 7}, {"bytes", 196608}});

  const waymark::Logger scene_log = log.bind({{"scene", scene_id}});
  scene_log.warning("cloudy", {{"share", 0.93}});
  EXPECT_EQ(find_string(recorded.logs().at(1).attributes, "scene"), scene_id);
}

TEST(LoggingPage, RecordsBelongToTheCurrentSpan) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  const Logger& log = recorded.log;
  {
    auto span = tracer.span("read_bands");
    log.info("tile read");   // carries the span's trace id and span id
  }
  EXPECT_EQ(recorded.logs().at(0).span_id, recorded.spans().at(0).context.span_id);
}

TEST(LoggingPage, ExceptionsBecomeAttributes) {
  Recorded recorded;
  const Logger& log = recorded.log;
  try {
    throw std::runtime_error("no such band");
  } catch (const std::exception& e) {
    log.exception("tile failed", e, {{"index", 7}});
  }
  EXPECT_EQ(find_string(recorded.logs().at(0).attributes, "exception.message"), "no such band");
}

TEST(LoggingPage, SpdlogsRecordsKeepTheirName) {
  Recorded recorded;
  spdlog::logger logger("ingest", waymark::spdlog_sink(recorded.telemetry));
  logger.info("{} tiles read", 16);
  EXPECT_EQ(recorded.logs().at(0).scope.name, "ingest");
}

}  // namespace
}  // namespace waymark::docs
