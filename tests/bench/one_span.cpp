// A program that records one span, as a user would write it; with nothing.cpp, what start-up, shutdown, size and idling cost.
//
// Says "ready" once the span has ended, and shuts down when its standard input has a line or ends.
#include <unistd.h>

#include <cstdio>

#include "waymark/waymark.h"

int main(int, char** argv) {
  waymark::TracingOptions options;
  options.service = "bench";
  options.endpoint = argv[1];
  options.state_directory = argv[2];
  waymark::configure_otel_tracing(options);
  { auto span = waymark::tracer("bench").span("read_bands", {{"bands", 4}}); }
  std::puts("ready");
  std::fflush(stdout);
  char c;
  if (read(0, &c, 1) < 0) return 1;
  waymark::shutdown();
  return 0;
}
