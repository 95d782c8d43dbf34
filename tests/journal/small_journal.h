// A journal with small segments, for tests that fill many of them.
//
// Hides: how a stretch is made of one log record.
// Threads: the test's; what is said may come from any.
// Failure: what can't be made throws.
#pragma once

#include "journal/process.h"

namespace waymark::journal::testing {

inline constexpr auto kLogs = static_cast<std::size_t>(Signal::logs);

// A journal with small segments; what was appended counts as offered.
class SmallJournal : public ::testing::Test {
 protected:
  static constexpr std::size_t kSegment = 4096;
  static JournalConfig small(std::size_t segments) {
    JournalConfig config;
    config.segment_bytes = kSegment;
    config.max_bytes = segments * kSegment;
    config.memory_bytes = segments * kSegment;
    return config;
  }
  // `memory`: the newest segments lie apart from the state directory.
  Home home(bool memory = false) {
    Home home{std::string(32, 'a'), scratch_.path() + "/state", scratch_.path() + "/state"};
    std::filesystem::create_directory(home.state);  // or is there already
    if (memory) {
      home.memory = scratch_.path() + "/memory";
      std::filesystem::create_directory(home.memory);
    }
    return home;
  }
  std::unique_ptr<Journal> make(const Home& where, const JournalConfig& config = small(1000)) {
    return std::make_unique<Journal>(where, config, said_.diagnostics, [this] { return totals_; });
  }
  std::unique_ptr<Journal> found(const Home& where) {
    return std::make_unique<Journal>(Journal::Found{}, where, small(1000), said_.diagnostics);
  }
  static std::string text_of(int i) { return "record " + std::to_string(i) + std::string(900, '.'); }
  // One frame with one log record of about a kilobyte: four fill a segment's worth, the first of the next rolls it.
  bool put(Journal& journal, int i) { return put(journal, text_of(i)); }
  bool put(Journal& journal, const std::string& text) {
    std::string records;
    append_record(records, Signal::logs, 0, log_body(text));
    Journal::Stretch stretch;
    stretch.lane = 0;
    stretch.lane_begin = lane_;
    stretch.lane_end = lane_ += records.size();
    stretch.records[kLogs] = 1;
    stretch.data = records.data();
    stretch.bytes = records.size();
    ++totals_.offered[kLogs];
    return journal.append(stretch);
  }
  static std::vector<std::string> texts(int from, int to) {
    std::vector<std::string> all;
    for (int i = from; i < to; ++i) all.push_back(text_of(i));
    return all;
  }
  static std::vector<std::string> segments_in(const std::string& directory) {
    std::vector<std::string> names;
    for (const std::string& name : list_directory(directory)) {
      if (name.ends_with(".seg")) names.push_back(name);
    }
    return names;
  }
  // The frames' offsets in a segment file.
  static std::vector<std::size_t> frames_of(const std::string& segment) {
    std::vector<std::size_t> offsets;
    for (std::size_t at = sizeof(SegmentHeader); at + sizeof(FrameHeader) <= segment.size();) {
      FrameHeader header;
      std::memcpy(&header, segment.data() + at, sizeof header);
      if (header.magic != kFrameMagic) break;
      offsets.push_back(at);
      at += sizeof header + header.bytes;
    }
    return offsets;
  }

  ScratchDirectory scratch_;
  Said said_;
  Totals totals_;
  std::uint64_t lane_ = 0;
};

}  // namespace waymark::journal::testing
