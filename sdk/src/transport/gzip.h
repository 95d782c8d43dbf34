// Gzip for request bodies.
//
// Hides: zlib.
// Threads: a Gzip belongs to one thread.
// Failure: std::bad_alloc.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace waymark::transport {

class Gzip {
 public:
  Gzip();
  ~Gzip();
  // The pieces, back to back, compressed. Good until the next call; the buffer is kept.
  std::string_view compress(std::span<const std::string_view> pieces);

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
  std::string out_;
};

}  // namespace waymark::transport
