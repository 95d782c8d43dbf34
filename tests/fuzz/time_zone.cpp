// Files of a time zone database.
#include "time_zone.h"

#include "fuzz/fuzz.h"
#include "waymark/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  const std::string_view input = fuzz::text(data, size);
  try {
    const detail::TimeZone zone = detail::TimeZone::parse(input);
    // Period after period, and each of them where the one before it ends.
    std::int64_t at = -2'000'000'000;
    for (int i = 0; i < 64; ++i) {
      const auto period = zone.period(at);
      fuzz::check(period.begin <= at && at < period.end, "a period contains the instant that was asked for");
      fuzz::check(period.offset >= -26 * 3600 && period.offset <= 26 * 3600, "an offset is in range");
      fuzz::plant(period.offset > 7 * 3600, input);
      if (period.end == INT64_MAX) break;
      at = period.end;
    }
    (void)zone.period(INT64_MIN);
    (void)zone.period(INT64_MAX);
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::corrupt, "what is refused is refused as corrupt");
  }
  return 0;
}
