// Which propagation formats take part in inject() and extract(): OTEL_PROPAGATORS.
//
// Hides: the variable's list syntax.
// Threads: pure functions.
// Failure: none; what is not known is told in `warnings` and left out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "waymark/propagation.h"

namespace waymark::trace {

struct Propagators {
  bool trace_context = true;
  bool baggage = true;
  friend bool operator==(const Propagators&, const Propagators&) = default;
};

// Reads the value of OTEL_PROPAGATORS ("tracecontext", "baggage", "none", separated by commas). Empty, or nothing that
// is known: the default, both.
[[nodiscard]] Propagators parse_propagators(std::string_view value, std::vector<std::string>& warnings);

// Instead of the default, where OTEL_PROPAGATORS is unset. Before the first use of inject() and extract().
void prefer_propagators(Propagators propagators);

// What the public inject() and extract() do, with these formats.
void inject(const TraceContext& context, const HeaderSetter& set, Propagators propagators);
[[nodiscard]] TraceContext extract(const HeaderGetter& get, const TraceContext& base, Propagators propagators);

}  // namespace waymark::trace
