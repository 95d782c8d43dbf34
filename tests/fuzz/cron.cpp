// Cron expressions, as somebody may have typed them.
#include "cron.h"

#include "fuzz/fuzz.h"
#include "waymark/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  const std::string_view input = fuzz::text(data, size);
  try {
    const detail::CronSchedule schedule(input);
    std::int64_t at = 1'800'000'000;
    for (int i = 0; i < 4; ++i) {
      const auto next = schedule.next(at, {});
      fuzz::check(next && *next > at, "a schedule that is accepted goes on");
      fuzz::check(*next % 60 == 0, "a tick is a whole minute");
      fuzz::plant(*next - at > 3 * 86'400, input);
      at = *next;
    }
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::invalid_argument, "what is refused is refused as an argument");
  }
  return 0;
}
