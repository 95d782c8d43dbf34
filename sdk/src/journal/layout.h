// What lies in the recorder's file and in the journal's segments, byte for byte.
//
// Hides: nothing; it is the contract between a process and whoever finishes its work after its death. Every number is
//   in the machine's byte order: the files never leave it. A change here is a new kLayoutVersion.
// Threads: says for each field who writes it.
// Failure: readers trust nothing that they have not checked against a size or a checksum.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "waymark/config.h"

namespace waymark::journal {

inline constexpr std::uint64_t kRecorderMagic = 0x31524b5259415721u;  // "!WAYRKR1"
inline constexpr std::uint64_t kSegmentMagic = 0x3147455359415721u;   // "!WAYSEG1"
inline constexpr std::uint32_t kFrameMagic = 0x4d415246;              // "FRAM"
inline constexpr std::uint32_t kLayoutVersion = 1;

inline constexpr std::size_t kBlockBytes = 2048;
inline constexpr std::size_t kLaneBlocks = 8;
inline constexpr std::size_t kMaximumRecordBytes = 256 * 1024;
inline constexpr std::size_t kMinimumRingBytes = 2 * kMaximumRecordBytes;
inline constexpr std::uint32_t kNoBlock = UINT32_MAX;
inline constexpr std::uint16_t kNoLane = UINT16_MAX;

// Offset in the recorder's file and length of a text, in one store: offset << 32 | length. 0: none.
using Text = std::uint64_t;

// Counts of records by signal.
using SignalCounts = std::array<std::uint64_t, kSignals>;

// The first page of the recorder's file.
struct RecorderHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t lanes;
  std::uint64_t file_bytes;
  std::uint64_t lanes_offset;
  std::uint64_t blocks_offset;
  std::uint32_t blocks;        // of lanes and pool together
  std::uint32_t process_id;
  std::uint64_t started_ns;
  char boot_id[40];            // the kernel's, NUL-terminated
  std::uint64_t checksum;      // of what stands above
  alignas(64) std::atomic<std::uint64_t> alive_ns;  // collector: the last moment the process was known alive
  std::atomic<std::uint32_t> recovered;             // recoverer: everything in here is in the journal
  // The thread that a signal killed, written by the crash handler (crash.h).
  alignas(64) std::atomic<std::uint32_t> crash_signal;  // 0: none; stored last
  std::uint32_t crash_thread;      // the kernel's id
  std::uint64_t crash_address;     // of the fault; where crash_code <= 0, the process that sent the signal
  std::uint32_t crash_frames;
  std::int32_t crash_code;         // si_code
  std::uint64_t crash_stack[64];   // return addresses, innermost first; the first is where it happened
  std::uint64_t crash_ns;          // when
  char crash_modules[3072];        // the files that these addresses lie in, a line each: base, end and inode in hex, build id,
                                   // path; NUL-terminated
};
static_assert(sizeof(RecorderHeader) <= 4096);
inline constexpr std::size_t kHeaderBytes = 4096;

// What the collector has taken out of a lane, in one flip: `active` says which of two is true.
struct Drained {
  std::uint64_t position;  // = the ring's free end
  std::atomic<std::uint64_t> records[kSignals];       // journaled
  std::atomic<std::uint64_t> hook_dropped[kSignals];  // by on_record
};

// One lane. Positions count bytes since the lane was made and never wrap; a ring offset is position % ring_bytes.
struct LaneHeader {
  // Written by the threads that record through this lane.
  alignas(64) std::atomic<std::uint64_t> head;      // everything before it is finished
  std::atomic<std::uint64_t> refused[kSignals];     // records that found no room
  std::atomic<std::uint32_t> thread;                // the kernel's id of the thread it is lent to; 0: free or shared
  // Written by the collector.
  alignas(64) std::atomic<std::uint64_t> tail;      // the ring is free up to here
  std::atomic<std::uint32_t> active;
  Drained drained[2];
  // Written once.
  alignas(64) std::uint64_t ring_offset;
  std::uint64_t ring_bytes;
};
inline constexpr std::size_t kLaneHeaderBytes = 256;
static_assert(sizeof(LaneHeader) <= kLaneHeaderBytes);

// Stands before every record, in rings and in journal frames. Records are padded to 8 bytes.
struct RecordHeader {
  std::uint32_t framed : 24;  // bytes of the framed record: 0x12, length, body
  std::uint32_t signal : 8;   // kFiller: skip
  std::uint16_t scope;
  std::uint16_t reserved;
  // Up to the next header.
  [[nodiscard]] std::size_t bytes() const noexcept { return (sizeof(RecordHeader) + framed + 7) & ~std::size_t{7}; }
};
static_assert(sizeof(RecordHeader) == 8);
inline constexpr std::uint32_t kFiller = 255;
inline constexpr std::size_t kMaximumPadded = kMaximumRecordBytes + 64;
static_assert(kMaximumPadded < (1u << 24));

enum class BlockState : std::uint32_t { free = 0, open = 1, more = 2 };

// A record in the making. Fields are written by the record's owner; `state` is stored last at the start.
// An end that is not 0 means: finished, and to be found in `ring_lane` at `ring_position` once that lane's head has
// passed it; until then the record is made from here.
struct BlockHeader {
  std::atomic<std::uint32_t> state;       // BlockState
  std::atomic<std::uint32_t> next;        // the block that the bytes go on in; kNoBlock: none
  std::atomic<std::uint32_t> used;        // bytes of the stream in this block, once `next` is set
  std::atomic<std::uint32_t> committed;   // of the whole chain, in its first block: bytes of complete fields
  std::atomic<std::uint32_t> body;        // first block of the chain; another than this one after compaction
  std::uint32_t thread;
  std::uint16_t scope;
  std::uint8_t kind;
  std::atomic<std::uint8_t> status;       // StatusCode
  std::uint32_t flags;                    // OTLP's Span.flags
  std::uint8_t trace_id[16];
  std::uint8_t span_id[8];
  std::uint8_t parent_id[8];              // zero: root
  std::uint64_t start_ns;
  std::atomic<std::uint64_t> end_ns;      // 0: open
  std::atomic<Text> name;
  std::atomic<Text> status_message;
  Text trace_state;
  std::atomic<std::uint32_t> dropped_attributes;
  std::atomic<std::uint32_t> dropped_events;
  std::atomic<std::uint32_t> dropped_links;
  std::atomic<std::uint32_t> repeated;    // a key stands in the bytes more than once: the last one counts
  std::uint32_t ring_lane;
  std::uint64_t ring_position;
  // Only the owner reads these.
  std::uint32_t tail;                     // the block that is written to
  std::uint32_t text_used;                // bytes of texts at this block's end
  std::uint32_t text_block;               // where texts go when they do not fit there; kNoBlock: none
  std::uint32_t text_blocks;              // how many there are; at most kMaximumTextBlocks
  std::uint32_t attributes;
  std::uint32_t events;
  std::uint32_t links;
  std::uint32_t compact_at;               // stream bytes at which repeated keys are worth compacting
};
inline constexpr std::size_t kBlockPayload = kBlockBytes - sizeof(BlockHeader);
inline constexpr std::uint32_t kMaximumTextBlocks = 4;
inline constexpr std::size_t kMaximumTextBytes = 1536;  // of a name, a status message, a tracestate
static_assert(kMaximumTextBytes <= kBlockPayload);

// The first bytes of a segment. Its positions are `base` + offset in the file.
struct SegmentHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t header_bytes;
  std::uint64_t base;
  std::uint64_t created_ns;
  std::uint8_t journal_id[16];
  std::uint64_t used;      // not 0: the file held another segment before, and what lies behind its frames is that one's
  std::uint64_t checksum;
};
static_assert(sizeof(SegmentHeader) == 64);

// Before each stretch of records in a segment. Where the file was used before, one whose first word is zero stands behind the
// last frame, unless the file ends there: written with it, it is all zeros until the next frame's bytes come, whose first word
// comes last.
struct FrameHeader {
  std::uint32_t magic;
  std::uint32_t bytes;            // of the records behind this header
  std::uint64_t position;         // of this header: a shifted frame does not match
  std::uint64_t lane_begin;       // where in the lane the records came from
  std::uint64_t lane_end;
  std::uint16_t lane;             // kNoLane: closed by recovery
  std::uint16_t reserved;
  std::uint32_t records[kSignals];
  std::uint64_t header_checksum;  // XXH3 over what stands before it: makes the length good for skipping a bad frame
  std::uint64_t checksum;         // XXH3 over the records
};
static_assert(sizeof(FrameHeader) == 64);

// One cursor's state in the cursors' file, written twice by turns; the valid one of the higher generation counts.
struct CursorSlot {
  std::uint64_t magic;
  std::uint64_t generation;
  std::uint64_t position;
  std::uint64_t delivered;
  std::uint64_t rejected;
  std::uint64_t dropped;         // taken by the full journal, or too large to send
  std::uint64_t filtered;        // by the destination's filter
  std::uint64_t base_offered;    // the journal's totals when the cursor was made: what came before is not its own
  std::uint64_t base_refused;
  std::uint64_t base_hook_dropped;
  std::uint8_t signal;
  std::uint8_t lossy;
  std::uint16_t name_bytes;
  std::uint32_t cursors;         // how many there were when it was written: a file with fewer was cut. kCursorsLost
  char name[400];
  std::uint64_t checksum;
};
static_assert(sizeof(CursorSlot) <= 512);
inline constexpr std::size_t kCursorSlotBytes = 512;
inline constexpr std::uint32_t kCursorsLost = UINT32_MAX;  // there had been others, of which nothing is known
inline constexpr std::uint64_t kCursorMagic = 0x3152554359415721u;  // "!WAYCUR1"

}  // namespace waymark::journal
