#include "transport/gzip.h"

#include <zlib.h>

#include <array>
#include <new>

namespace waymark::transport {

namespace {

constexpr int kGzipFraming = 16;

}  // namespace

struct Gzip::Stream {
  z_stream z{};
};

Gzip::Gzip() : stream_(std::make_unique<Stream>()) {
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

Unpacked gunzip(std::string_view packed, std::size_t max_bytes, std::string& out) {
  out.clear();
  z_stream z{};
  if (inflateInit2(&z, MAX_WBITS + kGzipFraming) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> end(&z, &inflateEnd);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  z.avail_in = static_cast<uInt>(packed.size());
  std::array<char, 16 * 1024> chunk;
  for (;;) {
    z.next_out = reinterpret_cast<Bytef*>(chunk.data());
    z.avail_out = static_cast<uInt>(chunk.size());
    const int result = inflate(&z, Z_NO_FLUSH);
    const std::size_t made = chunk.size() - z.avail_out;
    if (made > max_bytes - out.size()) return Unpacked::too_large;
    out.append(chunk.data(), made);
    if (result == Z_STREAM_END) return z.avail_in == 0 ? Unpacked::whole : Unpacked::damaged;
    if (result != Z_OK) return Unpacked::damaged;
  }
}

}  // namespace waymark::transport
