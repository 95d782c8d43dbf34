// Traces drawn for a terminal: a tree of spans, each with its bar on the trace's time axis.
//
// Hides: how spans become rows (folding, marks, details) and how a bar is drawn finer than a character cell.
// Threads: pure functions.
// Failure: none. Spans without their parent, twice delivered, or in a circle are drawn all the same.
#pragma once

#include <chrono>
#include <string>

#include "waymark/reader.h"

namespace waymark::cli {

struct WaterfallOptions {
  int width = 100;     // columns of the terminal; less than 40 counts as 40
  bool color = false;  // ANSI colours
  bool all = false;    // fold nothing
  std::string job = {};  // only traces of the job with this id (its first characters will do); empty: every trace
};

// One block for each trace, in the order in which they began; empty where there is no trace to draw.
[[nodiscard]] std::string draw_waterfall(const ReadTelemetry& telemetry, const WaterfallOptions& options);

// "850 ns", "45.1 ms", "1.23 s", "2m05s", "1h02m": three digits, for people.
[[nodiscard]] std::string human_duration(std::chrono::nanoseconds duration);

}  // namespace waymark::cli
