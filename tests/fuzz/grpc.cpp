// What a gRPC server answers. Three lines: grpc-status, grpc-encoding, grpc-message; then, behind a byte that is the length
// of google.rpc.Status, that message and the response's framed body.
#include <array>
#include <charconv>

#include "base/base64.h"
#include "export/response.h"
#include "fuzz/fuzz.h"
#include "transport/grpc.h"

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
  unsigned status = 0;
  std::from_chars(lines[0].data(), lines[0].data() + lines[0].size(), status);
  const std::size_t details = rest.empty() ? 0 : static_cast<unsigned char>(rest[0]);
  if (!rest.empty()) rest.remove_prefix(1);

  constexpr std::size_t kMost = 1 << 16;
  transport::GrpcFrame frame = transport::read_grpc_frame(rest.substr(std::min(details, rest.size())), lines[1], kMost);
  fuzz::check(frame.message.size() <= kMost, "a message is never larger than its limit");
  fuzz::check(frame.error.empty() || frame.message.empty(), "what is refused is not passed on");

  const std::string words = transport::percent_decoded(lines[2]);
  fuzz::check(words.size() <= lines[2].size(), "escapes only shrink");
  if (const auto bytes = from_base64(lines[2])) fuzz::check(bytes->size() <= lines[2].size(), "base64 only shrinks");

  const transport::GrpcResponse response{.status = static_cast<transport::GrpcStatus>(status % 17),
                                         .message = frame.message,
                                         .error = words,
                                         .details = std::string(rest.substr(0, details))};
  const delivery::Evaluation answer = delivery::evaluate_grpc(Signal::traces, response);
  fuzz::check((response.status == transport::GrpcStatus::ok) == (answer.verdict == Outcome::delivered), "only OK delivers");
  fuzz::check(answer.message.size() <= 4 * 512, "a message is at most 512 characters long");
  for (const char c : answer.message) {
    fuzz::check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "a message holds no control characters");
  }
  if (answer.retry_delay) {
    fuzz::check(answer.retry_delay->count() >= 0 && *answer.retry_delay <= std::chrono::hours(24), "a wait is at most a day");
    fuzz::plant(*answer.retry_delay > std::chrono::seconds(5), input);
  }
  return 0;
}
