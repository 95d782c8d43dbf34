// A line of an OTLP JSON file, by whomever it was written.
#include "fuzz/fuzz.h"
#include "otlp/json.h"
#include "waymark/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  const std::string_view input = fuzz::text(data, size);
  try {
    ReadTelemetry read;
    otlp::read_json_line(input, "file:1", read);
    for (const ReadLog& log : read.logs) fuzz::plant(log.severity != 0 && log.severity != 9, input);
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::corrupt, "what can't be read is refused as corrupt");
    fuzz::check(std::string_view(error.what()).starts_with("file:1"), "the message says where");
  }
  return 0;
}
