#include "transport/gzip.h"

#include <zlib.h>

#include <new>

namespace waymark::transport {

struct Gzip::Stream {
  z_stream z{};
};

Gzip::Gzip() : stream_(std::make_unique<Stream>()) {
  constexpr int kGzipFraming = 16;
  // Level 1: telemetry repeats itself so much that the higher levels cost several times the CPU for a few per cent.
  if (deflateInit2(&stream_->z, 1, Z_DEFLATED, MAX_WBITS + kGzipFraming, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
}

Gzip::~Gzip() { deflateEnd(&stream_->z); }

std::string_view Gzip::compress(std::span<const std::string_view> pieces) {
  z_stream& z = stream_->z;
  deflateReset(&z);
  std::size_t total = 0;
  for (const auto piece : pieces) total += piece.size();
  const std::size_t bound = deflateBound(&z, static_cast<uLong>(total));
  if (out_.size() < bound) out_.resize(bound);
  z.next_out = reinterpret_cast<Bytef*>(out_.data());
  z.avail_out = static_cast<uInt>(out_.size());
  for (const auto piece : pieces) {
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(piece.data()));
    z.avail_in = static_cast<uInt>(piece.size());
    deflate(&z, Z_NO_FLUSH);
  }
  z.next_in = nullptr;
  z.avail_in = 0;
  deflate(&z, Z_FINISH);
  return {out_.data(), out_.size() - z.avail_out};
}

}  // namespace waymark::transport
