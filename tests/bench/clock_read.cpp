// What one clock_gettime(CLOCK_REALTIME) costs now, in nanoseconds: for the benchmarks that are no C++ programs.
#include "row.h"

int main() {
  std::printf("%.2f\n", waymark::bench::clock_read_ns());
  return 0;
}
