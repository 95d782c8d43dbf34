// spdlog alone: `log` formats a record with three attributes into a sink that discards it. Nothing is delivered anywhere.
#include <spdlog/sinks/null_sink.h>
#include <spdlog/spdlog.h>

#include "peers/work.h"

int main(int argc, char** argv) {
  const waymark::bench::Work work(argc, argv);
  spdlog::logger logger("bench", std::make_shared<spdlog::sinks::null_sink_st>());
  work.perform([&](std::int64_t i) { logger.info("tile read cluster={} identifier={} index={}", "sentinel-2-west", "tilebox.com/Tile", i); },
               [] {});
  return 0;
}
