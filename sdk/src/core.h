// The composition root's inside: what Telemetry owns, start order, stop order.
//
// Hides: nothing from the SDK's own rooms' point of view; it is what telemetry.cpp and configure.cpp share.
// Threads: as Telemetry.
// Failure: start() and add() throw Error, with nothing changed.
#pragma once

#include "waymark/telemetry.h"

namespace waymark {

// Off until started: its tracers and loggers exist, and record nothing.
class Telemetry::Core {
 public:
  Core();
  ~Core();
  // Opens recorder and journal, starts the threads and the destinations in `config`. Once only.
  void start(Config config);
  [[nodiscard]] bool started() const noexcept;
  [[nodiscard]] const Config& config() const noexcept;  // as started
  void add(DestinationConfig destination);
  void set_on_record(OnRecord hook);
  void set_error_handler(ErrorHandler handler);
  void set_logs_as_span_events(bool on);

  struct Parts;
  [[nodiscard]] Parts& parts() noexcept { return *parts_; }

 private:
  std::unique_ptr<Parts> parts_;
};

}  // namespace waymark
