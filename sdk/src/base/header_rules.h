// Which request headers may be sent, over HTTP and over gRPC.
//
// Hides: RFC 9110's tokens and gRPC's metadata.
// Threads: pure functions.
// Failure: none. What is said holds neither a name nor a value: either may be a piece of a secret.
#pragma once

#include <string>
#include <string_view>

namespace waymark {

[[nodiscard]] bool is_header_name(std::string_view name) noexcept;
// No line end, which would begin another header, and no other control character but tabs.
[[nodiscard]] bool is_header_value(std::string_view value) noexcept;

// Why gRPC can't carry it as metadata, though HTTP may: as the end of a sentence about the header; empty where it can. The
// name's case does not matter, it is sent in lower case.
[[nodiscard]] std::string_view refused_by_grpc(std::string_view name, std::string_view value) noexcept;

}  // namespace waymark
