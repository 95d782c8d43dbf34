// A dead process's recorder. The input is a byte of flags, the number of lanes and blocks, the ring's size in words of
// eight bytes (two bytes), then each lane's header, each block's header and the beginning of its bytes, the rings'
// contents, and what a crash handler wrote.
#include <fcntl.h>

#include "fuzz/home.h"
#include "journal/layout.h"
#include "journal/recorder.h"

namespace {

using namespace waymark;
using namespace waymark::journal;

constexpr std::size_t kPayload = 96;  // of a block, from the input

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz::text(data, size);
  fuzz::Pieces pieces(input);
  const std::size_t flags = pieces.number(1);
  const std::size_t lanes = 1 + pieces.number(1) % 2;
  const std::size_t blocks = pieces.number(1) % 4;
  const std::size_t ring = 8 * (1 + pieces.number(2) % 128);

  RecorderHeader header{};
  header.magic = kRecorderMagic;
  header.version = kLayoutVersion;
  header.lanes = static_cast<std::uint32_t>(lanes);
  header.lanes_offset = kHeaderBytes;
  header.blocks_offset = kHeaderBytes + lanes * kLaneHeaderBytes;
  header.blocks = static_cast<std::uint32_t>(blocks);
  const std::size_t rings_offset = header.blocks_offset + blocks * kBlockBytes;
  header.file_bytes = rings_offset + lanes * ring;
  // A header that says something else must be found out by its numbers, not by its checksum.
  if ((flags & 1) != 0) header.lanes_offset = pieces.number(4);
  if ((flags & 2) != 0) header.blocks_offset = pieces.number(4);
  if ((flags & 4) != 0) header.lanes = static_cast<std::uint32_t>(pieces.number(4));
  if ((flags & 8) != 0) header.blocks = static_cast<std::uint32_t>(pieces.number(4));
  header.checksum = checksum(&header, offsetof(RecorderHeader, checksum));
  header.alive_ns = 1'800'000'000'000'000'000u;
  header.crash_signal = (flags & 16) != 0 ? 11 : 0;

  std::string file(rings_offset + lanes * ring, '\0');
  fuzz::put(file, 0, header);
  for (std::size_t i = 0; i < lanes; ++i) {
    const std::string bytes = pieces.take(sizeof(LaneHeader));
    const std::size_t at = kHeaderBytes + i * kLaneHeaderBytes;
    std::memcpy(file.data() + at, bytes.data(), bytes.size());
    // What is written once, where the input does not say otherwise.
    const std::uint64_t place[2] = {rings_offset + i * ring, ring};
    if ((flags & 32) == 0) std::memcpy(file.data() + at + offsetof(LaneHeader, ring_offset), place, sizeof place);
  }
  for (std::size_t i = 0; i < blocks; ++i) {
    const std::string bytes = pieces.take(sizeof(BlockHeader) + kPayload);
    std::memcpy(file.data() + kHeaderBytes + lanes * kLaneHeaderBytes + i * kBlockBytes, bytes.data(), bytes.size());
  }
  const std::string contents = pieces.take(lanes * ring);
  std::memcpy(file.data() + rings_offset, contents.data(), contents.size());

  if ((flags & 64) != 0) {
    // From the thread on, to the end of the header.
    constexpr std::size_t kCrash = offsetof(RecorderHeader, crash_thread);
    const std::string crash = pieces.take(sizeof(RecorderHeader) - kCrash);
    std::memcpy(file.data() + kCrash, crash.data(), crash.size());
  }

  fuzz::DeadHome home;
  home.file("recorder", file);
  std::size_t records = 0;
  home.recover(
      [&](const Record& record, std::uint16_t) {
        ++records;
        // Whatever the dead process wrote over: what is sent can be read.
        if (record.signal == Signal::traces) (void)otlp::read_span(record.body);
        if (record.signal == Signal::logs) (void)otlp::read_log(record.body);
      },
      [&](const Recovered& found) {
        fuzz::check(found.interrupted.size() <= blocks, "no more spans are open than there are blocks");
        for (const InterruptedSpan& span : found.interrupted) {
          fuzz::check(span.context.valid(), "a span has ids");
          fuzz::plant(span.thread_id >> 24 != 0, input);
        }
      });
  // And one that tells of a crash.
  fuzz::check(records <= blocks + lanes * ring / sizeof(RecordHeader) + 1, "no more records than there is room for");
  return 0;
}
