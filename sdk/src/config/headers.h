// Request headers from options, URLs and OTEL_EXPORTER_OTLP_HEADERS.
//
// Hides: which headers are Waymark's own to say, and the variable's list syntax.
// Threads: pure functions.
// Failure: Error(invalid_header) for options; entries of the variable that make no sense are told and skipped. No
//   message holds a value, nor a name that may be part of one.
#pragma once

#include "config/environment.h"
#include "waymark/config.h"

namespace waymark::config {

// Adds the header, in place of one with the same name in any case.
void put_header(HeaderList& headers, std::string name, std::string value);

// As given in code. Throws for what must not be sent, or can't be in this protocol.
[[nodiscard]] HeaderList checked_headers(const HeaderList& given, Protocol protocol = Protocol::http_protobuf);

// "k1=v1,k2=v2": values percent-decoded, white space around names and values left out.
[[nodiscard]] HeaderList parse_headers(const Environment::Found& variable, Environment& environment,
                                       Protocol protocol = Protocol::http_protobuf);

}  // namespace waymark::config
