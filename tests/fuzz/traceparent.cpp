// traceparent and tracestate, as a stranger's request may carry them. The first line is one, the rest is the other.
#include <algorithm>

#include "fuzz/fuzz.h"
#include "waymark/propagation.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  const std::string_view input = fuzz::text(data, size);
  const std::size_t line = std::min(input.find('\n'), input.size());
  const std::string_view state_text = line < input.size() ? input.substr(line + 1) : std::string_view();

  const TraceState state = TraceState::parse(state_text);
  fuzz::check(TraceState::parse(state.header()) == state, "a tracestate that was read can be read again");
  const TraceState changed = state.set("wm", "1");
  fuzz::check(changed.get("wm") == "1", "a member that was set is there");
  fuzz::check(!changed.remove("wm").get("wm"), "a member that was removed is gone");

  const auto context = from_traceparent(input.substr(0, line), state_text);
  if (!context) return 0;
  fuzz::check(context->valid() && context->remote, "what is accepted is valid and remote");
  const auto again = from_traceparent(to_traceparent(*context), context->trace_state.header());
  fuzz::check(again && to_traceparent(*again) == to_traceparent(*context) && again->trace_state == context->trace_state,
              "a context that was read can be sent on");
  fuzz::plant((context->span_id.bytes[7] & 1) == 0, input);
  return 0;
}
