// What a backend's answer, over HTTP or gRPC, means for the records that were sent.
//
// Hides: the two status tables, partial_success and google.rpc.Status with RetryInfo, in protobuf and in JSON.
// Threads: pure functions.
// Failure: none; these are bytes that nobody vouches for, and what can't be read says nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "export/sink.h"
#include "transport/grpc.h"
#include "waymark/config.h"

namespace waymark::delivery {

struct Evaluation {
  Outcome verdict = Outcome::delivered;
  std::uint64_t rejected = 0;  // as the backend says; it may say more than it was sent
  std::string message;         // the backend's words, as one printable line of at most 512 characters; may be empty
  std::string code;            // of a refusal in JSON whose `code` is a word (S2's are); else empty
  Refusal refusal = Refusal::none;
  std::optional<std::chrono::nanoseconds> retry_delay;  // RetryInfo's; at most a day
};

// `content_type` is the response's header; one that is neither protobuf nor JSON makes its body mean nothing. `sent` are
// the request's headers, whose values do not come back in a message.
[[nodiscard]] Evaluation evaluate(Signal signal, int status, std::string_view content_type, std::string_view body,
                                  const HeaderList& sent = {});
[[nodiscard]] Evaluation evaluate_grpc(Signal signal, const transport::GrpcResponse& response, const HeaderList& sent = {});

// A text without the values of these headers, or the tokens behind "Bearer " in them. To be asked of the whole text: of one
// that is cut, the begin of a token would stay.
[[nodiscard]] std::string redacted(std::string_view text, const HeaderList& headers);

// A foreign text fit for one line of a log: UTF-8, no control characters, at most `characters` long.
[[nodiscard]] std::string printable(std::string_view text, std::size_t characters = 512);

}  // namespace waymark::delivery
