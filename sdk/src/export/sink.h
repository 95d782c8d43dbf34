// Where a destination's requests go: an OTLP backend, a file, the console, a callback.
//
// Hides: what each kind of output makes of a request, and which of its answers are worth another try.
// Threads: a sink belongs to its destination's thread; abort() may be called from any other.
// Failure: open_sink() throws Error; send() returns what happened. A sink's messages hold no secrets.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "waymark/config.h"

namespace waymark::delivery {

// Refusals that are not about the records: those are kept, and sent again in another way.
enum class Refusal : std::uint8_t {
  none,
  unauthorized,  // 401, 403, UNAUTHENTICATED, PERMISSION_DENIED: other credentials are needed
  too_large,     // 413, or a gRPC status that speaks of the message's size: smaller requests are needed
};

struct Delivery {
  Outcome outcome = Outcome::delivered;
  std::uint64_t rejected = 0;                 // within a delivered request; may be more than was sent
  std::string message = {};                   // why; with a delivered request, the backend's warning
  std::chrono::nanoseconds retry_after{0};    // at least this long, where the backend asks for it
  bool unreachable = false;                   // nothing listens there: another try now is not worth an exit's time
  bool unsupported = false;                   // the backend does not know this kind of request
  bool aborted = false;                       // by abort(); outcome means nothing
  Refusal refusal = Refusal::none;            // with Outcome::rejected
  int status = 0;                             // HTTP's, or gRPC's; 0 where no answer came
  std::string code = {};                      // the word that a backend gives beside its status (S2's "storage")
};

class Sink {
 public:
  virtual ~Sink() = default;
  // One request, as pieces that stand back to back. Sends it once.
  [[nodiscard]] virtual Delivery send(std::span<const std::string_view> pieces) = 0;
  // For good: a send that is under way returns soon, and so do all that follow.
  virtual void abort() noexcept = 0;
  // From the next send on, instead of those it was opened with. Throws Error(invalid_header), with nothing changed.
  virtual void replace_headers(const HeaderList&) {}
};

// Throws Error where the settings can't work: a header that HTTP does not allow, a file that can't be opened.
[[nodiscard]] std::unique_ptr<Sink> open_sink(const DestinationConfig& config);

// Of the local outputs (local_sinks.cpp).
[[nodiscard]] std::unique_ptr<Sink> open_file(const DestinationConfig& config);
[[nodiscard]] std::unique_ptr<Sink> open_console(const DestinationConfig& config);

}  // namespace waymark::delivery
