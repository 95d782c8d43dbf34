// What every page's examples stand on: telemetry in memory, and a program that is only named in the page.
//
// Hides: the memory destination.
// Threads: those of Telemetry.
// Failure: none.
#pragma once

#include <waymark/reader.h>
#include <waymark/testing.h>
#include <waymark/waymark.h>

#include <string>
#include <vector>

namespace waymark::docs {

struct Recorded {
  testing::MemoryDestination memory;
  Telemetry telemetry{testing::memory_config(memory)};
  Tracer tracer = telemetry.tracer("tiles");
  Logger log = telemetry.logger("tiles");

  std::string tree() {
    telemetry.force_flush(std::chrono::seconds(5));
    return testing::span_tree(memory.spans());
  }
  std::vector<ReadSpan> spans() {
    telemetry.force_flush(std::chrono::seconds(5));
    return memory.spans();
  }
  std::vector<ReadLog> logs() {
    telemetry.force_flush(std::chrono::seconds(5));
    return memory.logs();
  }
};

}  // namespace waymark::docs
