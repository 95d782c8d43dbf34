// Durations, as a user may have written them into a variable.
#include "fuzz/fuzz.h"
#include "waymark/configure.h"
#include "waymark/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  const std::string_view input = fuzz::text(data, size);
  try {
    const std::chrono::nanoseconds duration = parse_duration(input, "KEY");
    fuzz::check(duration.count() > 0, "a duration is not zero");
    fuzz::check(duration <= std::chrono::hours(365 * 24), "a duration is at most a year");
    fuzz::plant(duration > std::chrono::hours(3 * 24), input);
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::invalid_duration, "what is refused is refused as a duration");
    fuzz::check(std::string_view(error.what()).starts_with("KEY"), "the message names the key");
  }
  return 0;
}
