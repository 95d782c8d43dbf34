// What the victim told, what the sink got, and what of the one is missing in the other.
//
// Hides: how records are matched by number, and what each of them must say.
// Threads: one.
// Failure: none; every deviation is counted, and the first few are said on standard error.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "crash/victim.h"
#include "waymark/reader.h"

namespace waymark::crash {

struct Verdict {
  std::uint64_t finished = 0;       // told finished: spans and log records
  std::uint64_t open = 0;           // open at the kill
  std::uint64_t finished_lost = 0;  // never delivered as finished
  std::uint64_t open_lost = 0;      // never delivered, or not as interrupted, or without an attribute that was set
  std::uint64_t corrupt = 0;        // requests and records that can't be read or say something else than was recorded
  std::uint64_t duplicates = 0;     // deliveries after the first
  std::uint64_t disordered = 0;     // first deliveries that overtook an older record of their thread

  Verdict& operator+=(const Verdict& other);
  // "1 of 20 finished lost, 0 of 3 open lost, 0 corrupt, 0 out of order"
  [[nodiscard]] std::string text() const;
  [[nodiscard]] bool good() const { return finished_lost + open_lost + corrupt + disordered == 0; }
};

class Ledger {
 public:
  // `quiet`: deviations are counted, not said.
  explicit Ledger(bool quiet = false) : quiet_(quiet) {}
  // All that was told comes before anything that was delivered.
  void told(const Message& message);
  // In order of arrival, each signal by itself.
  void delivered(const ReadTelemetry& telemetry);
  // What is delivered from here on comes from one recovery, which must not deliver anything twice.
  void recovering() { recovery_ = true; }
  // One request or file that could not be read.
  void unreadable(std::string_view why);
  [[nodiscard]] Verdict judge();
  // Whether something that was delivered says which signal it was.
  [[nodiscard]] bool crash_told() const { return crash_told_; }

 private:
  struct SpanEntry {
    bool opened = false;
    bool ending = false;
    bool finished = false;
    std::uint32_t set = 0;  // a bit for each Which
    unsigned again = 0;     // how often it was set
    unsigned finished_times = 0;     // delivered as such
    unsigned interrupted_times = 0;
    unsigned recovered_times = 0;    // of both, by the recovery
    SpanId id;
    [[nodiscard]] unsigned delivered() const { return finished_times + interrupted_times; }
  };
  struct LogEntry {
    bool told = false;
    unsigned delivered = 0;
    unsigned recovered = 0;
    SpanId span;
  };
  void say(std::uint64_t& counter, std::string_view what, std::uint64_t number);
  void take(const ReadSpan& span);
  void take(const ReadLog& log);
  // Empty, or what it says that was never recorded; what it lacks of what was told to be there.
  static std::string_view invented(const ReadSpan& span, std::uint64_t number);
  static std::string_view missing(const ReadSpan& span, const SpanEntry& entry, std::uint64_t number);

  Verdict verdict_;
  std::map<std::uint64_t, SpanEntry> spans_;
  std::map<std::uint64_t, LogEntry> logs_;
  std::map<unsigned, std::uint64_t> last_span_;  // by thread: the newest inner span that came first
  std::map<unsigned, std::uint64_t> last_log_;
  bool quiet_ = false;
  bool recovery_ = false;
  bool crash_told_ = false;
  int said_ = 0;
};

}  // namespace waymark::crash
