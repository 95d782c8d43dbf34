// An export request in protobuf: read as values, written as JSON, and the JSON read again. The first byte picks the signal.
#include "fuzz/fuzz.h"
#include "otlp/json.h"
#include "waymark/error.h"
#include "waymark/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  if (size == 0) return 0;
  const std::string_view input = fuzz::text(data, size);
  const Signal signal = (data[0] & 1) != 0 ? Signal::logs : Signal::traces;
  const std::string_view request = input.substr(1);
  try {
    const ReadTelemetry read = read_request(signal, request);
    const std::string json = request_to_json(signal, request);
    fuzz::check(json.find('\n') == std::string::npos, "a request is one line");
    ReadTelemetry again;
    otlp::read_json_line(json, "line 1", again);
    fuzz::check(again.spans.size() == read.spans.size() && again.logs.size() == read.logs.size(),
                "JSON holds the records that protobuf held");
    for (const ReadSpan& span : read.spans) fuzz::plant(span.dropped_links > 1, input);
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::corrupt, "what can't be read is refused as corrupt");
  }
  return 0;
}
