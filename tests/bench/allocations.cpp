// How often recording allocates, once a thread is warm: never (design section 7). A counting allocator stands in front of the
// C library's.
//
// Usage: bench_allocations [--list] [ROW...]
// A row that is not 0 has no figure, and the program fails.
#include <cstdlib>
#include <string>

#include "row.h"
#include "waymark/waymark.h"

namespace {
thread_local bool counting = false;
thread_local unsigned long allocations = 0;
}  // namespace

// operator new calls malloc.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t bytes) {
  allocations += counting;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  allocations += counting;
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) {
  allocations += counting;
  return __libc_realloc(old, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  allocations += counting;
  return __libc_memalign(alignment, bytes);
}
}

namespace {

using waymark::bench::Failed;
using waymark::bench::Row;

template <class Call>
std::vector<Row> row(const char* name, Call&& call) {
  constexpr int kCalls = 1'000'000;
  for (int i = 0; i < 1000; ++i) call(i);
  allocations = 0;
  counting = true;
  for (int i = 0; i < kCalls; ++i) call(i);
  counting = false;
  if (allocations != 0) throw Failed(std::to_string(allocations) + " allocations in " + std::to_string(kCalls) + " calls");
  Row row{name, 0, "a call"};
  row.values = {0};
  row.remark = std::to_string(kCalls) + " calls";
  return {row};
}

}  // namespace

int main(int argc, char** argv) {
  // That the counting works.
  counting = true;
  delete new (std::nothrow) std::string(100, 'x');
  counting = false;
  if (allocations == 0) {
    std::fprintf(stderr, "bench_allocations: allocations are not counted\n");
    return 1;
  }
  waymark::Config config;
  config.resource = "bench";
  for (const waymark::Signal signal : {waymark::Signal::traces, waymark::Signal::logs, waymark::Signal::metrics}) {
    waymark::DestinationConfig discard;
    discard.name = "discard";
    discard.signal = signal;
    discard.output = waymark::Output::callback;
    discard.deliver = [](waymark::Signal, std::string_view) { return waymark::DeliveryResult{}; };
    config.destinations.push_back(discard);
  }
  waymark::Telemetry telemetry(config);
  const waymark::Tracer tracer = telemetry.tracer("bench");
  const waymark::Logger logger = telemetry.logger("bench");
  const auto counter = telemetry.meter("bench").counter("c");
  const std::string scene = "S2A_MSIL1C_20260101T100031_N0500_R02";
  return waymark::bench::run(argc, argv, {
      {{"span.allocs"}, [&] {
         return row("span.allocs", [&](int i) {
           auto span = tracer.span("read_bands", {{"scene", scene}, {"band", "B02_10m_jp2_"}, {"index", i}, {"width", 10980}, {"offset", 123456789}});
           span.event("tile read", {{"index", i}});
         });
       }},
      {{"log.allocs"}, [&] {
         return row("log.allocs", [&](int i) { logger.info("tile read", {{"scene", scene}, {"band", "B02_10m_jp2_"}, {"index", i}}); });
       }},
      {{"counter.allocs"}, [&] {
         return row("counter.allocs", [&](int i) {
           counter.add(1, {{"cluster", "sentinel-2-west"}, {"identifier", "tilebox.com/Tile"}, {"shard", i & 3}});
         });
       }},
  });
}
