// What a backend, or whatever stands at its address, answers. Three lines: status, Content-Type, Retry-After; then the body.
#include <array>
#include <charconv>

#include "export/response.h"
#include "fuzz/fuzz.h"
#include "transport/http.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  const std::string_view input = fuzz::text(data, size);
  std::string_view rest = input;
  std::array<std::string_view, 3> lines;
  for (std::string_view& line : lines) {
    const std::size_t end = rest.find('\n');
    line = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  int status = 200;
  std::from_chars(lines[0].data(), lines[0].data() + lines[0].size(), status);

  for (const Signal signal : {Signal::traces, Signal::logs}) {
    const delivery::Evaluation answer = delivery::evaluate(signal, status, lines[1], rest);
    fuzz::check(answer.message.size() <= 4 * 512, "a message is at most 512 characters long");
    for (const char c : answer.message) {
      fuzz::check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "a message holds no control characters");
    }
    fuzz::plant(answer.rejected > 3 && answer.rejected < 1000, input);
  }

  const auto wait = transport::parse_retry_after(lines[2], 1'800'000'000);
  if (wait) fuzz::check(wait->count() >= 0 && *wait <= std::chrono::hours(24), "a wait is at most a day");
  return 0;
}
