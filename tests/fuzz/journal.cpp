// A journal that lies in a state directory: segments, cursors, definitions. The input is a byte of flags, three lengths
// (two bytes each), then a segment, another one, the cursors' file, and the file of scopes.
#include <fcntl.h>

#include "fuzz/home.h"
#include "journal/layout.h"

namespace {

using namespace waymark;
using namespace waymark::journal;

// Gives headers and frames the numbers that they must have to be looked at any further.
std::string sealed_segment(std::string bytes, std::uint64_t base) {
  if (bytes.size() < sizeof(SegmentHeader)) return bytes;
  SegmentHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.magic = kSegmentMagic;
  header.version = kLayoutVersion;
  header.header_bytes = sizeof header;
  header.base = base;
  seal(header);
  fuzz::put(bytes, 0, header);
  for (std::size_t at = sizeof header; at + sizeof(FrameHeader) <= bytes.size();) {
    FrameHeader frame;
    std::memcpy(&frame, bytes.data() + at, sizeof frame);
    const std::size_t room = bytes.size() - at - sizeof frame;
    frame.magic = kFrameMagic;
    frame.position = base + at;
    frame.bytes = static_cast<std::uint32_t>(frame.bytes % (room + 1));
    frame.checksum = checksum(bytes.data() + at + sizeof frame, frame.bytes);
    frame.header_checksum = checksum(&frame, offsetof(FrameHeader, header_checksum));
    fuzz::put(bytes, at, frame);
    at += sizeof frame + frame.bytes;
  }
  return bytes;
}

std::string sealed_cursors(std::string bytes) {
  for (std::size_t at = 0; at + sizeof(CursorSlot) <= bytes.size(); at += kCursorSlotBytes) {
    CursorSlot slot;
    std::memcpy(&slot, bytes.data() + at, sizeof slot);
    slot.magic = kCursorMagic;
    seal(slot);
    fuzz::put(bytes, at, slot);
  }
  return bytes;
}

// Entries of four numbers and a checksum, and as many bytes as the third number says.
std::string sealed_scopes(std::string bytes) {
  constexpr std::size_t kHead = 24;
  for (std::size_t at = 0; at + kHead <= bytes.size();) {
    std::uint32_t size;
    std::memcpy(&size, bytes.data() + at + 8, sizeof size);
    size = static_cast<std::uint32_t>(size % (bytes.size() - at - kHead + 1));
    fuzz::put(bytes, at + 8, size);
    fuzz::put(bytes, at + 16, checksum(bytes.data() + at + kHead, size));
    at += kHead + size;
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz::text(data, size);
  fuzz::Pieces pieces(input);
  const std::size_t flags = pieces.number(1);
  std::size_t lengths[3];
  for (std::size_t& length : lengths) length = pieces.number(2) % 2048;
  const bool seal_them = (flags & 1) == 0;
  std::string one = pieces.take(std::min(lengths[0], pieces.left()));
  std::string two = pieces.take(std::min(lengths[1], pieces.left()));
  std::string cursors = pieces.take(std::min(lengths[2], pieces.left()));
  std::string scopes = pieces.rest();
  if (seal_them) {
    one = sealed_segment(std::move(one), 0);
    // Behind the first, or, as damage may have it, within it.
    two = sealed_segment(std::move(two), (flags & 2) == 0 ? one.size() : one.size() / 2);
    cursors = sealed_cursors(std::move(cursors));
    scopes = sealed_scopes(std::move(scopes));
  }
  fuzz::DeadHome home;
  home.file("0000000000000000.seg", one);
  if (!two.empty()) home.file("0000000000000001.seg", two);
  home.file("cursors", cursors);
  home.file("scopes", scopes);
  std::size_t bytes = 0;
  home.recover(
      [&](const Record& record, std::uint16_t) {
        fuzz::check(record.body.size() <= record.framed.size(), "a record's body lies within its frame");
        bytes += record.framed.size();
        fuzz::plant(record.scope > 100, input);
      },
      [](const Recovered& found) {
        fuzz::check(found.interrupted.empty(), "without a recorder nothing is interrupted");
      });
  fuzz::check(bytes <= size, "records are what stands in the segments");
  return 0;
}
