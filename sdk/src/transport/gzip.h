// Gzip for requests and for what comes back.
//
// Hides: zlib.
// Threads: a Gzip belongs to one thread; gunzip is a pure function.
// Failure: std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
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

enum class Unpacked : std::uint8_t { whole, damaged, too_large };
// Of one gzip stream, whatever its sender means it to become: never more than `max_bytes` are unpacked.
[[nodiscard]] Unpacked gunzip(std::string_view packed, std::size_t max_bytes, std::string& out);

}  // namespace waymark::transport
