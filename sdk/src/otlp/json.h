// OTLP JSON: messages written, a line of a file as telemetry, and the scalars that JSON writes its own way.
//
// Hides: escapes, which numbers are strings.
// Threads: pure functions.
// Failure: Error(corrupt) that names the place; any bytes may be given.
#pragma once

#include <string>
#include <string_view>

#include "waymark/reader.h"

namespace waymark::otlp {

// One request, as written by request_to_json or any other OTLP JSON writer; spans, logs and metrics are added to `into`. `place`
// (file and line) opens the message of an error. Unknown keys are ignored.
void read_json_line(std::string_view line, std::string_view place, ReadTelemetry& into);

// A message as it stands within what request_to_json writes. Where the bytes make no sense, `out` is as it was before.
struct Shape;
void append_json(std::string& out, std::string_view message, const Shape& shape);

// In quotes. A byte that is not part of well-formed UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);
// The shortest decimal that reads back the same; NaN, Infinity, -Infinity without quotes.
void append_double(std::string& out, double value);
void append_hex(std::string& out, std::string_view bytes);

}  // namespace waymark::otlp
