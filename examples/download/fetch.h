// Reads what an http:// or file:// URL names, whole. Knows nothing of Waymark.
#pragma once

#include <stdexcept>
#include <string>

namespace fetch {

// A server that is busy, a connection that broke: it may work another time.
struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A URL that is wrong, a file that is not there: it will not.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string read(const std::string& url);

}  // namespace fetch
