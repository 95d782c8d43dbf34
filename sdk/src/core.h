// The composition root's inside: what Telemetry owns, start order, stop order, and what becomes of it in a child of fork.
//
// Hides: nothing from the SDK's own rooms' point of view; it is what telemetry.cpp and configure.cpp share.
// Threads: as Telemetry.
// Failure: start() and add() throw Error, with nothing changed.
//
// In a child of fork the handles go on, and everything behind them is left alone: its threads are the parent's, its locks may
// be held for ever, its files belong to the parent. The child gets Parts of its own, made from the Plan, at the first use of
// them; one that execs at once has paid nothing.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "waymark/telemetry.h"

namespace waymark {

// Off until started: its tracers and loggers exist, and record nothing.
class Telemetry::Core {
 public:
  Core();
  ~Core();
  // Opens recorder and journal, starts the threads and the destinations in `config`. Once only.
  void start(Config config);
  [[nodiscard]] bool started();
  [[nodiscard]] const Config& config();  // as started
  void add(std::vector<DestinationConfig> all);  // or none
  void set_on_record(OnRecord hook);
  void set_error_handler(ErrorHandler handler);
  void set_logs_as_span_events(bool on);
  // How metrics are collected; before the first destination of them, or as it is.
  void set_metrics(const MetricConfig& metrics);

  // shutdown(5 s), if this process has recorded anything.
  void close();
  // The same at the end of the program.
  void end_of_process();

  struct Plan;     // what a child of fork starts with
  struct Handles;  // what tracers and loggers point at: one for all processes
  struct Parts;    // what is behind them: one for each process
  // This process's; started, where its parent had started its own.
  [[nodiscard]] Parts& parts();
  // The same as it is: in a child of fork that has not used them yet, nothing.
  [[nodiscard]] Parts& parts_as_they_are();

 private:
  std::unique_ptr<Handles> handles_;
  std::atomic<Parts*> parts_;
};

}  // namespace waymark
