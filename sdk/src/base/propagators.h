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
  bool b3 = false;        // written as the one header b3; either form of B3 is read where one of them is chosen
  bool b3_multi = false;  // written as the headers x-b3-*
  bool b3_last = false;   // it stands behind tracecontext: where a request carries both, the last one counts
  friend bool operator==(const Propagators&, const Propagators&) = default;
};

// Adds the format with this name, in any case; false where there is none.
bool choose_propagator(Propagators& chosen, std::string_view name);

// Their names, as choose_propagator() takes them; "none" where there is none.
[[nodiscard]] std::vector<std::string> names_of(const Propagators& propagators);

// Reads the value of OTEL_PROPAGATORS ("tracecontext", "baggage", "b3", "b3multi", "none", separated by commas). Empty, or
// nothing that is known: the default, tracecontext and baggage.
[[nodiscard]] Propagators parse_propagators(std::string_view value, std::vector<std::string>& warnings);

// Instead of the default, where OTEL_PROPAGATORS is unset. Before the first use of inject() and extract().
void prefer_propagators(Propagators propagators);

// What the public inject() and extract() do, with these formats.
void inject(const TraceContext& context, const HeaderSetter& set, Propagators propagators);
[[nodiscard]] TraceContext extract(const HeaderGetter& get, const TraceContext& base, Propagators propagators);

}  // namespace waymark::trace
