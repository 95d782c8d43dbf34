// A log record as a line for people.
//
// Hides: layout, colours, and that a record's text can't move a terminal's cursor.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <string>

#include "waymark/reader.h"

namespace waymark::delivery {

// "14:03:21.042 INFO  tile read index=4 scene="S2A 1"  (tasks)" and a line end; local time. Attributes stand in the
// record's order; a text with blanks or quotes in it is quoted. Lines of a message after the first are indented.
void append_console_line(std::string& out, const ReadLog& record, bool color);

}  // namespace waymark::delivery
