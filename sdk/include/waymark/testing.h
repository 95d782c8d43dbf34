// For tests of code that records: a destination in memory, span trees as text, a clock that a test moves.
//
// Hides: decoding.
// Threads: MemoryDestination and ManualClock may be used from any thread.
// Failure: read errors throw Error(corrupt), which would be a defect of Waymark's.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "waymark/reader.h"
#include "waymark/telemetry.h"

namespace waymark::testing {

// Keeps what it is sent. Add it with telemetry.add(memory.destination(Signal::traces)), and flush before looking.
class MemoryDestination {
 public:
  MemoryDestination();
  [[nodiscard]] DestinationConfig destination(Signal signal, std::string name = "memory") const;
  [[nodiscard]] std::vector<ReadSpan> spans() const;
  [[nodiscard]] std::vector<ReadLog> logs() const;
  [[nodiscard]] std::vector<ReadMetric> metrics() const;
  [[nodiscard]] std::vector<std::string> requests(Signal signal) const;  // protobuf, as they would be sent
  void clear();

 private:
  struct Kept;
  std::shared_ptr<Kept> kept_;
};

// The spans as an indented tree, children by start time then name; one line a span: its name, then, where present,
// "[error]" and "-> <name of the linked span>" for each link ("-> ?" where it is not among the spans). Spans whose parent is
// missing stand at the margin behind "?", after the roots. A span that was delivered twice stands once.
[[nodiscard]] std::string span_tree(const std::vector<ReadSpan>& spans);

// Config for a Telemetry that keeps everything in memory and reads no environment.
[[nodiscard]] Config memory_config(const MemoryDestination& memory, std::string service = "test");

class ManualClock {
 public:
  explicit ManualClock(Timestamp start = Timestamp(std::chrono::seconds(1'800'000'000)));
  void advance(std::chrono::nanoseconds by);
  [[nodiscard]] Timestamp now() const;
  [[nodiscard]] std::function<Timestamp()> function() const;  // for Config::clock

 private:
  std::shared_ptr<std::atomic<std::int64_t>> nanoseconds_;
};

}  // namespace waymark::testing
