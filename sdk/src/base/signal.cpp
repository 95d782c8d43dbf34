#include "waymark/config.h"

namespace waymark {

std::string_view signal_name(Signal signal) noexcept {
  switch (signal) {
    case Signal::traces: return "traces";
    case Signal::logs: return "logs";
    case Signal::metrics: return "metrics";
  }
  return "";
}

}  // namespace waymark
