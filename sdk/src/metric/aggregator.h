// One process's numbers: which series there are, each thread's cells, and how a collection adds them up and writes them as
// OTLP metrics.
//
// Hides: views, cardinality, temporality, start times, what becomes of a thread's cells when it ends.
// Threads: record() any; it takes the lock only at the first sight of a set of attributes by a thread. collect() one at a time;
//   collect_recorded() any.
// Failure: recording never fails; what is no measurement is refused and counted. A callback that throws is said.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "metric/cell.h"
#include "metric/meter.h"
#include "waymark/config.h"

namespace waymark::metric {

using detail::BoundState;
using detail::InstrumentState;
using detail::MeterState;

struct ThreadCells;

// What becomes of an instrument's measurements: of one view, or of none.
struct Stream {
  enum class Kind : std::uint8_t { sum, last, histogram };
  const InstrumentState* instrument = nullptr;
  std::string name;
  std::string description;
  Kind kind = Kind::sum;
  HistogramShape shape;
  bool delta = false;
  bool with_sum = true;   // of a histogram: only where values are zero or more
  std::size_t limit = 2000;
  const View* view = nullptr;  // its keys
  std::uint64_t start_ns = 0;  // where series have no start of their own
  std::unordered_map<std::string, std::unique_ptr<Series>> series;  // by encoded attributes
  std::vector<Series*> order;  // as first seen
  Series* overflow = nullptr;
  bool overflow_said = false;
  bool infinite_said = false;
  std::set<std::string> filtered;  // what exemplars tell besides; at most `limit`

  [[nodiscard]] char attribute_tag() const noexcept {
    return kind != Kind::histogram ? 0x3a : shape.exponential ? 0x0a : 0x4a;
  }
};

// One set of attributes.
struct Series {
  Stream* stream = nullptr;
  std::string attributes;  // encoded, as fields of the data point
  std::uint64_t start_ns = 0;
  // Of a thread each; those of threads that have ended are in `ended`.
  struct Part {
    ThreadCells* thread;
    Cell* cell;
  };
  std::vector<Part> parts;
  std::uint64_t ended = 0;     // a sum's bits
  std::uint64_t told = 0;      // of a sum: what was told before the start (cumulative) or up to the last collection (delta)
  std::unique_ptr<LastCell> last;
  std::unique_ptr<Distribution> all;  // of a histogram: since the start, or the last collection
  std::unique_ptr<Distribution> left;  // of a histogram: what threads that have ended recorded since the last collection
  std::uint64_t before = 0;    // of a sum: all of it at the last collection
  bool had_before = false;
  // Of an observable one.
  std::uint64_t observed = 0;  // bits
  std::uint64_t cycle = 0;     // of the last collection that observed it
};

class Aggregator {
 public:
  // `config` is what the Telemetry has when recording starts; see configure().
  Aggregator(MetricConfig config, const Clock& clock, Diagnostics& diagnostics);
  ~Aggregator();
  Aggregator(const Aggregator&) = delete;
  Aggregator& operator=(const Aggregator&) = delete;

  // Before anything is recorded.
  void configure(MetricConfig config);
  [[nodiscard]] const MetricConfig& config() const noexcept { return config_; }
  // Whether views drop it altogether.
  [[nodiscard]] bool drops(const InstrumentState& instrument) const;

  template <class T>
  void record(InstrumentState& instrument, T value, Attributes attributes) noexcept;
  template <class T>
  void record(BoundState& bound, T value) noexcept;
  void observe(InstrumentState& instrument, std::uint64_t bits, Attributes attributes);
  // Counts and says a measurement that is none.
  void refuse(InstrumentState& instrument, const char* why) noexcept;
  [[nodiscard]] std::uint64_t refused() const noexcept { return refused_.load(std::memory_order_relaxed); }

  // Calls the callbacks, adds up, and gives each(scope, body) the body of a Metric message for every piece of every stream
  // that has something to tell. `meters` calls its argument with every MeterState, in the order of their making.
  using Emit = std::function<void(std::uint16_t scope, std::string_view body)>;
  using Meters = std::function<void(const std::function<void(MeterState&)>&)>;
  // How many series were told.
  std::size_t collect(const Meters& meters, const Emit& emit);
  // The same of what is recorded, without what is observed: whatever a callback does meanwhile that collect() waits for.
  std::size_t collect_recorded(const Meters& meters, const Emit& emit);
  // Which instrument's callback runs, "NAME of meter NAME"; empty: none.
  [[nodiscard]] std::string in_callback() const;

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] const Clock& clock() const noexcept { return clock_; }
  // A thread has ended.
  void hand_over(ThreadCells* thread) noexcept;

 private:
  struct Target {
    Cell* cell = nullptr;
    const std::string* filtered = nullptr;
    std::unique_ptr<Target> next;  // another stream's
  };
  friend struct ThreadCells;

  // The calling thread's cells; null at the very end of a thread.
  [[nodiscard]] ThreadCells* thread() noexcept;
  ThreadCells* join() noexcept;
  template <class T>
  void apply(const Target& target, T value) noexcept;
  template <class T>
  void record_slowly(ThreadCells* thread, InstrumentState& instrument, T value, Attributes attributes) noexcept;
  // With the lock.
  Target resolve(ThreadCells* thread, InstrumentState& instrument, Attributes attributes);
  std::vector<std::unique_ptr<Stream>>& streams_of(InstrumentState& instrument);
  std::unique_ptr<Stream> make_stream(const InstrumentState& instrument, const View* view);
  void warn_of_twins(const Stream& made);
  Series& series_of(Stream& stream, Attributes attributes, const std::string** filtered);
  Cell* cell_of(Series& series, ThreadCells* thread);
  void take_histograms();
  void begin_collection();
  std::size_t write(Stream& stream, std::uint16_t scope, const Emit& emit);
  void append_point(std::string& out, Stream& stream, Series& series);
  void append_exemplars(std::string& out, char tag, const Stream& stream, const Distribution& all);
  [[nodiscard]] std::uint64_t total(const Series& series) const noexcept;
  void start_anew();
  void run_callbacks(const Meters& meters);
  std::size_t tell(const Meters& meters, const Emit& emit, bool observed);

  MetricConfig config_;
  const Clock& clock_;
  Diagnostics& diagnostics_;
  const std::uint64_t id_;
  const bool membarrier_;
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<const InstrumentState*> called_{nullptr};

  std::mutex mutex_;  // guards what follows
  std::vector<std::vector<std::unique_ptr<Stream>>> streams_;  // by instrument
  std::vector<std::unique_ptr<ThreadCells>> threads_;
  std::unique_ptr<ThreadCells> common_;  // of threads at their very end; recorded into with the lock
  std::uint64_t cycle_ = 0;
  std::uint64_t last_ns_;      // time of the last collection, or when this began
  std::uint64_t last_observed_ns_;  // of the last one that called callbacks
  std::uint64_t now_ns_ = 0;   // of the collection that is on its way
  Deadline last_steady_;
  std::uint64_t anew_ns_ = 0;  // in a collection that finds the clock turned back: the new start
};

}  // namespace waymark::metric
