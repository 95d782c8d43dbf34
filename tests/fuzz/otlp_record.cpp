// One record's bytes: read as a whole, field by field, and edited as a hook would. The first byte picks the signal.
#include <string>

#include "fuzz/fuzz.h"
#include "otlp/edit.h"
#include "otlp/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  if (size == 0) return 0;
  const std::string_view input = fuzz::text(data, size);
  const Signal signal = (data[0] & 1) != 0 ? Signal::logs : Signal::traces;
  const std::string_view body = input.substr(1);

  std::size_t bytes = otlp::span_name(body).size() + static_cast<std::size_t>(otlp::log_severity(body) & 1) +
                      static_cast<std::size_t>(otlp::span_status(body));
  const bool walked = otlp::for_each_attribute(
      signal, body, [&](std::string_view key, std::string_view any) { bytes += key.size() + any.size(); });
  fuzz::check(!walked || bytes <= 2 * size + 4, "a record's parts are in the record");

  const ReadScope scope;
  otlp::Edit edit(signal, body, scope);
  try {
    const AnyMap attributes = signal == Signal::logs ? otlp::read_log(body).attributes : otlp::read_span(body).attributes;
    edit.set_attribute("wm", AnyValue{std::string("1")});
    const std::string added(edit.body());
    const AnyMap after = signal == Signal::logs ? otlp::read_log(added).attributes : otlp::read_span(added).attributes;
    fuzz::check(find_string(after, "wm") == "1", "an attribute that was set is there");
    edit.remove_attribute("wm");
    edit.set_name("name");
    edit.set_body(AnyValue{true});
    const AnyMap last =
        signal == Signal::logs ? otlp::read_log(edit.body()).attributes : otlp::read_span(edit.body()).attributes;
    fuzz::check(find(last, "wm") == nullptr, "an attribute that was removed is gone");
    if (signal == Signal::traces) {
      const ReadSpan span = otlp::read_span(body);
      fuzz::plant(span.end < span.start, input);
    }
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::corrupt, "what can't be read is refused as corrupt");
  }
  return 0;
}
