#include "metric/aggregator.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <exception>
#include <limits>

#include "base/random.h"
#include "base/thread.h"
#include "metric/attribute_key.h"
#include "otlp/writer.h"

namespace waymark::metric {

using detail::CallbackState;
using detail::Observations;

// One thread's way from a set of attributes to its cells. Written by that thread alone.
struct ThreadCells {
  struct Entry {
    std::uint64_t hash = 0;  // 0: free
    const InstrumentState* instrument = nullptr;
    std::string packed;
    Aggregator::Target target;
  };
  // What is seen more often than remembered costs a look at the series each time.
  static constexpr std::size_t kMostEntries = 1 << 14;

  std::vector<Entry> table{std::vector<Entry>(64)};
  std::size_t used = 0;
  std::vector<Aggregator::Target> bound;  // by BoundState::index; no cell: not yet
  // Cells; with the aggregator's lock.
  static constexpr std::size_t kSumsInChunk = 128;
  struct alignas(64) SumChunk {
    alignas(SumCell) char memory[kSumsInChunk * sizeof(SumCell)];
  };
  std::vector<std::unique_ptr<SumChunk>> sums;
  std::size_t sums_used = kSumsInChunk;
  std::vector<std::unique_ptr<HistogramCell>> histograms;
  struct Owned {
    Series* series;
    Cell* cell;
  };
  std::vector<Owned> owned;

  [[nodiscard]] const Entry* find(std::uint64_t hash, const InstrumentState& instrument, Attributes attributes) const noexcept {
    const std::size_t mask = table.size() - 1;
    for (std::size_t i = hash & mask; table[i].hash != 0; i = (i + 1) & mask) {
      const Entry& entry = table[i];
      if (entry.hash == hash && entry.instrument == &instrument &&
          same(entry.packed.data(), entry.packed.size(), attributes)) [[likely]] {
        return &entry;
      }
    }
    return nullptr;
  }

  void remember(std::uint64_t hash, const InstrumentState& instrument, Attributes attributes, Aggregator::Target target) {
    if (used >= kMostEntries) {
      // Whoever names so many is beyond every limit; the cells stay.
      table = std::vector<Entry>(64);
      used = 0;
    }
    if ((used + 1) * 2 > table.size()) {
      std::vector<Entry> larger(table.size() * 2);
      for (Entry& entry : table) {
        if (entry.hash != 0) place(larger, std::move(entry));
      }
      table = std::move(larger);
    }
    place(table, Entry{hash, &instrument, pack(attributes), std::move(target)});
    ++used;
  }

 private:
  static void place(std::vector<Entry>& into, Entry entry) {
    const std::size_t mask = into.size() - 1;
    std::size_t i = entry.hash & mask;
    while (into[i].hash != 0) i = (i + 1) & mask;
    into[i] = std::move(entry);
  }
};

namespace {

struct LentCells {
  std::uint64_t aggregator = 0;
  ThreadCells* cells = nullptr;
};
constinit thread_local LentCells lent;
// After a thread's cells were handed over, at its very end.
constinit thread_local bool cells_gone = false;

struct Registry {
  std::mutex mutex;
  std::unordered_map<std::uint64_t, Aggregator*> aggregators;
};
constinit PerProcess<Registry> registry;

struct ThreadsCells {
  std::vector<LentCells> all;
  ~ThreadsCells() {
    lent = {};
    cells_gone = true;
    Registry& known = *registry;
    const std::scoped_lock lock(known.mutex);
    for (const LentCells& mine : all) {
      const auto found = known.aggregators.find(mine.aggregator);
      if (found != known.aggregators.end()) found->second->hand_over(mine.cells);
    }
  }
};
thread_local ThreadsCells threads_cells;

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> next{1};
  return next.fetch_add(1);
}

// A clock that is turned back by more than this begins all series anew; by less, a collection's time stands still.
constexpr std::uint64_t kTurnedBack = 1'000'000'000;
// A Metric message has no more than this, or one data point.
constexpr std::size_t kPieceBytes = 64 * 1024;

constexpr double kBounds[] = {0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000};

bool is_time(std::string_view unit) {
  for (const std::string_view time : {"s", "ms", "us", "ns", "min", "h", "d"}) {
    if (unit == time) return true;
  }
  return false;
}

// `*` any text, `?` any character; the rest as it is. Instrument names know no case.
bool fits(std::string_view pattern, std::string_view name) {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::size_t p = 0;
  std::size_t n = 0;
  std::size_t star = std::string_view::npos;
  std::size_t again = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || (pattern[p] != '*' && low(pattern[p]) == low(name[n])))) {
      ++p;
      ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      again = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++again;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool selects(const ViewSelector& select, const InstrumentState& instrument) {
  const MeterState& meter = *instrument.meter;
  return (select.name.empty() || fits(select.name, instrument.name)) && (!select.kind || *select.kind == instrument.kind) &&
         (select.unit.empty() || select.unit == instrument.unit) &&
         (select.meter_name.empty() || fits(select.meter_name, meter.name)) &&
         (select.meter_version.empty() || select.meter_version == meter.version) &&
         (select.meter_schema_url.empty() || select.meter_schema_url == meter.schema_url);
}

bool adds(InstrumentKind kind) {
  return kind == InstrumentKind::counter || kind == InstrumentKind::up_down_counter ||
         kind == InstrumentKind::observable_counter || kind == InstrumentKind::observable_up_down_counter;
}
bool gauges(InstrumentKind kind) { return kind == InstrumentKind::gauge || kind == InstrumentKind::observable_gauge; }

// What a view asks for that makes no sense for the instrument is as if it were not asked.
bool possible(Aggregation aggregation, const InstrumentState& instrument) {
  switch (aggregation) {
    case Aggregation::standard:
    case Aggregation::drop: return true;
    case Aggregation::sum: return !gauges(instrument.kind);
    case Aggregation::last_value: return gauges(instrument.kind);
    case Aggregation::explicit_histogram:
    case Aggregation::exponential_histogram: return !instrument.observable();
  }
  return false;
}

bool monotonic(InstrumentKind kind) {
  return kind == InstrumentKind::counter || kind == InstrumentKind::histogram || kind == InstrumentKind::observable_counter;
}

bool is_delta(Temporality preference, InstrumentKind kind) {
  switch (preference) {
    case Temporality::cumulative: return false;
    case Temporality::delta: return monotonic(kind);
    case Temporality::lowmemory: return kind == InstrumentKind::counter || kind == InstrumentKind::histogram;
  }
  return false;
}

std::uint64_t plus(std::uint64_t a, std::uint64_t b, bool is_double) noexcept {
  if (!is_double) return a + b;
  return std::bit_cast<std::uint64_t>(std::bit_cast<double>(a) + std::bit_cast<double>(b));
}
std::uint64_t minus(std::uint64_t a, std::uint64_t b, bool is_double) noexcept {
  if (!is_double) return a - b;
  return std::bit_cast<std::uint64_t>(std::bit_cast<double>(a) - std::bit_cast<double>(b));
}
bool less(std::uint64_t a, std::uint64_t b, bool is_double) noexcept {
  if (!is_double) return static_cast<std::int64_t>(a) < static_cast<std::int64_t>(b);
  return std::bit_cast<double>(a) < std::bit_cast<double>(b);
}
double number(std::uint64_t bits, bool is_double) noexcept {
  return is_double ? std::bit_cast<double>(bits) : static_cast<double>(static_cast<std::int64_t>(bits));
}

}  // namespace

template <class T>
static std::uint64_t bits_of(T value) noexcept {
  if constexpr (std::same_as<T, double>) {
    return std::bit_cast<std::uint64_t>(value);
  } else {
    return static_cast<std::uint64_t>(value);
  }
}

Aggregator::Aggregator(MetricConfig config, const Clock& clock, Diagnostics& diagnostics)
    : config_(std::move(config)), clock_(clock), diagnostics_(diagnostics), id_(next_id()),
      membarrier_(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0),
      common_(std::make_unique<ThreadCells>()), last_ns_(clock.now()), last_observed_ns_(last_ns_),
      last_steady_(std::chrono::steady_clock::now()) {
  const std::scoped_lock lock(registry->mutex);
  registry->aggregators.emplace(id_, this);
}

Aggregator::~Aggregator() {
  const std::scoped_lock lock(registry->mutex);
  registry->aggregators.erase(id_);
}

void Aggregator::configure(MetricConfig config) {
  const std::scoped_lock lock(mutex_);
  config_ = std::move(config);
}

bool Aggregator::drops(const InstrumentState& instrument) const {
  bool any = false;
  for (const View& view : config_.views) {
    if (!selects(view.select, instrument)) continue;
    if (view.aggregation != Aggregation::drop) return false;
    any = true;
  }
  return any;
}

// ---- recording

ThreadCells* Aggregator::thread() noexcept {
  if (lent.aggregator == id_) [[likely]] return lent.cells;
  return join();
}

ThreadCells* Aggregator::join() noexcept {
  if (cells_gone) return nullptr;
  for (const LentCells& mine : threads_cells.all) {
    if (mine.aggregator == id_) {
      lent = mine;
      return mine.cells;
    }
  }
  ThreadCells* cells = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    cells = threads_.emplace_back(std::make_unique<ThreadCells>()).get();
  }
  threads_cells.all.push_back({id_, cells});
  lent = {id_, cells};
  return cells;
}

void Aggregator::refuse(InstrumentState& instrument, const char* why) noexcept {
  refused_.fetch_add(1, std::memory_order_relaxed);
  // Whoever gives it bad values in a loop pays for a look at a flag.
  if (instrument.refusal_said.load(std::memory_order_relaxed) || instrument.refusal_said.exchange(true)) return;
  diagnostics_.say(DiagnosticLevel::warning, "instrument " + instrument.name + ": " + why +
                                                 "; such measurements are left out, and counted (meter " +
                                                 instrument.meter->name + ")");
}

template <class T>
void Aggregator::apply(const Target& target, T value) noexcept {
  for (const Target* t = &target; t != nullptr; t = t->next.get()) {
    switch (t->cell->kind) {
      case CellKind::sum_int:
      case CellKind::sum_double: static_cast<SumCell*>(t->cell)->add(value); break;
      case CellKind::last: static_cast<LastCell*>(t->cell)->put(bits_of(value)); break;
      case CellKind::histogram: {
        auto& cell = *static_cast<HistogramCell*>(t->cell);
        cell.record(static_cast<double>(value), [&](Distribution& half, std::int64_t place) noexcept {
          const detail::ActiveContext* context = detail::current;
          const bool in_trace = context != nullptr && context->span.valid() && context->span.sampled();
          if (!in_trace && config_.exemplar_filter == ExemplarFilter::trace_based) return;
          if (cell.shape.exponential) {
            const std::uint64_t seen = half.offered++;
            if (seen >= half.exemplars.size()) {
              const std::uint64_t drawn = random_u64() % (seen + 1);
              if (drawn >= half.exemplars.size()) return;
              place = static_cast<std::int64_t>(drawn);
            } else {
              place = static_cast<std::int64_t>(seen);
            }
          }
          Exemplar& exemplar = half.exemplars[static_cast<std::size_t>(place)];
          // One of each bucket, each as likely as the others.
          if (!cell.shape.exponential && exemplar.time_ns != 0 &&
              random_u64() % half.counts[static_cast<std::size_t>(place)] != 0) {
            return;
          }
          exemplar.time_ns = clock_.now();
          exemplar.bits = bits_of(value);
          exemplar.trace_id = in_trace ? context->span.trace_id : TraceId{};
          exemplar.span_id = in_trace ? context->span.span_id : SpanId{};
          exemplar.filtered = t->filtered;
        });
        break;
      }
    }
  }
}

template <class T>
void Aggregator::record(InstrumentState& instrument, T value, Attributes attributes) noexcept {
  ThreadCells* const mine = thread();
  if (mine == nullptr || !plain(attributes)) [[unlikely]] return record_slowly(mine, instrument, value, attributes);
  const std::uint64_t hash = metric::hash(attributes, instrument.index + 1);
  if (const ThreadCells::Entry* entry = mine->find(hash, instrument, attributes)) [[likely]] {
    if (entry->target.cell != nullptr) apply(entry->target, value);
    return;
  }
  Target target;
  {
    const HeldMessages held;
    const std::scoped_lock lock(mutex_);
    target = resolve(mine, instrument, attributes);
  }
  if (target.cell != nullptr) apply(target, value);
  mine->remember(hash, instrument, attributes, std::move(target));
}

template <class T>
void Aggregator::record(BoundState& bound, T value) noexcept {
  ThreadCells* const mine = thread();
  if (mine == nullptr) [[unlikely]] return record_slowly(mine, *bound.instrument, value, bound.attributes);
  if (bound.index < mine->bound.size() && mine->bound[bound.index].cell != nullptr) [[likely]] {
    return apply(mine->bound[bound.index], value);
  }
  Target target;
  {
    const HeldMessages held;
    const std::scoped_lock lock(mutex_);
    target = resolve(mine, *bound.instrument, bound.attributes);
  }
  if (target.cell != nullptr) apply(target, value);
  if (bound.index >= mine->bound.size()) mine->bound.resize(bound.index + 1);
  mine->bound[bound.index] = std::move(target);
}

// Arrays and maps among the attributes, or a thread at its very end.
template <class T>
void Aggregator::record_slowly(ThreadCells* thread, InstrumentState& instrument, T value, Attributes attributes) noexcept {
  if (thread != nullptr) {
    Target target;
    {
      const HeldMessages held;
      const std::scoped_lock lock(mutex_);
      target = resolve(thread, instrument, attributes);
    }
    if (target.cell != nullptr) apply(target, value);
    return;
  }
  const HeldMessages held;
  const std::scoped_lock lock(mutex_);
  const Target target = resolve(common_.get(), instrument, attributes);
  if (target.cell != nullptr) apply(target, value);
}

template void Aggregator::record(InstrumentState&, std::int64_t, Attributes) noexcept;
template void Aggregator::record(InstrumentState&, double, Attributes) noexcept;
template void Aggregator::record(BoundState&, std::int64_t) noexcept;
template void Aggregator::record(BoundState&, double) noexcept;

Aggregator::Target Aggregator::resolve(ThreadCells* thread, InstrumentState& instrument, Attributes attributes) {
  Target first;
  Target* behind = nullptr;
  for (const auto& stream : streams_of(instrument)) {
    Target target;
    Series& series = series_of(*stream, attributes, &target.filtered);
    target.cell = cell_of(series, thread);
    if (first.cell == nullptr) {
      first = std::move(target);
      continue;
    }
    auto& next = behind == nullptr ? first.next : behind->next;
    next = std::make_unique<Target>(std::move(target));
    behind = next.get();
  }
  return first;
}

Cell* Aggregator::cell_of(Series& series, ThreadCells* thread) {
  const Stream& stream = *series.stream;
  if (stream.kind == Stream::Kind::last) return series.last.get();
  for (const Series::Part& part : series.parts) {
    if (part.thread == thread) return part.cell;
  }
  Cell* cell = nullptr;
  if (stream.kind == Stream::Kind::sum) {
    if (thread->sums_used == ThreadCells::kSumsInChunk) {
      thread->sums.push_back(std::make_unique<ThreadCells::SumChunk>());
      thread->sums_used = 0;
    }
    char* const place = thread->sums.back()->memory + thread->sums_used++ * sizeof(SumCell);
    cell = new (place) SumCell(stream.instrument->is_double ? CellKind::sum_double : CellKind::sum_int);
  } else {
    cell = thread->histograms.emplace_back(std::make_unique<HistogramCell>(stream.shape, !membarrier_)).get();
  }
  series.parts.push_back({thread, cell});
  thread->owned.push_back({&series, cell});
  return cell;
}

void Aggregator::hand_over(ThreadCells* thread) noexcept {
  const std::scoped_lock lock(mutex_);
  for (const ThreadCells::Owned& owned : thread->owned) {
    Series& series = *owned.series;
    if (owned.cell->kind == CellKind::histogram) {
      auto& cell = *static_cast<HistogramCell*>(owned.cell);
      // Apart from what was told: a clock that is turned back clears that.
      if (series.left == nullptr) series.left = std::make_unique<Distribution>(cell.shape);
      for (const Distribution& half : cell.halves) series.left->merge(cell.shape, half);
    } else {
      series.ended = plus(series.ended, static_cast<SumCell*>(owned.cell)->bits.load(std::memory_order_relaxed),
                          series.stream->instrument->is_double);
    }
    std::erase_if(series.parts, [&](const Series::Part& part) { return part.thread == thread; });
  }
  std::erase_if(threads_, [&](const auto& t) { return t.get() == thread; });
}

// ---- streams and series

std::vector<std::unique_ptr<Stream>>& Aggregator::streams_of(InstrumentState& instrument) {
  if (instrument.index >= streams_.size()) streams_.resize(instrument.index + 1);
  auto& streams = streams_[instrument.index];
  if (!streams.empty()) return streams;
  bool seen = false;
  for (const View& view : config_.views) {
    if (!selects(view.select, instrument)) continue;
    if (!possible(view.aggregation, instrument)) {
      diagnostics_.say_once("view " + view.select.name + " " + instrument.name, DiagnosticLevel::warning,
                            "a view of instrument " + instrument.name +
                                " asks for an aggregation that its kind has not; the view is not used for it");
      continue;
    }
    seen = true;
    if (view.aggregation != Aggregation::drop) streams.push_back(make_stream(instrument, &view));
  }
  if (!seen) streams.push_back(make_stream(instrument, nullptr));
  for (const auto& stream : streams) warn_of_twins(*stream);
  return streams;
}

// Two streams of one scope and name can't be told apart by who reads them.
void Aggregator::warn_of_twins(const Stream& made) {
  if (made.view == nullptr) return;  // instruments' own names were looked at when they were made
  for (const auto& streams : streams_) {
    for (const auto& other : streams) {
      if (other.get() == &made || other->instrument->meter != made.instrument->meter || other->name != made.name) continue;
      diagnostics_.say_once("twins " + made.name, DiagnosticLevel::warning,
                            "two streams of meter " + made.instrument->meter->name + " have the name " + made.name +
                                "; give one of them another by a view's `name`");
    }
  }
}

std::unique_ptr<Stream> Aggregator::make_stream(const InstrumentState& instrument, const View* view) {
  auto stream = std::make_unique<Stream>();
  stream->instrument = &instrument;
  stream->view = view;
  stream->name = view != nullptr && !view->name.empty() ? view->name : instrument.name;
  stream->description = view != nullptr && !view->description.empty() ? view->description : instrument.description;
  stream->delta = is_delta(config_.temporality, instrument.kind);
  stream->limit = view != nullptr && view->cardinality_limit > 0 ? view->cardinality_limit : config_.cardinality_limit;
  stream->start_ns = last_ns_;
  const Aggregation wanted = view != nullptr ? view->aggregation : Aggregation::standard;
  HistogramShape& shape = stream->shape;
  switch (wanted) {
    case Aggregation::sum: stream->kind = Stream::Kind::sum; break;
    case Aggregation::last_value: stream->kind = Stream::Kind::last; break;
    case Aggregation::explicit_histogram: stream->kind = Stream::Kind::histogram; break;
    case Aggregation::exponential_histogram:
      stream->kind = Stream::Kind::histogram;
      shape.exponential = true;
      break;
    case Aggregation::standard:
    case Aggregation::drop:
      stream->kind = adds(instrument.kind) ? Stream::Kind::sum : gauges(instrument.kind) ? Stream::Kind::last : Stream::Kind::histogram;
      if (stream->kind == Stream::Kind::histogram && instrument.boundaries.empty() &&
          (view == nullptr || view->boundaries.empty())) {
        shape.exponential = config_.default_histogram == Aggregation::standard
                                ? is_time(instrument.unit)
                                : config_.default_histogram == Aggregation::exponential_histogram;
      }
      break;
  }
  if (stream->kind != Stream::Kind::histogram) return stream;
  stream->with_sum = !instrument.signed_values;
  shape.signed_values = instrument.signed_values;
  if (view != nullptr) {
    shape.max_buckets = view->max_buckets;
    shape.max_scale = view->max_scale;
  }
  if (!shape.exponential) {
    if (view != nullptr && !view->boundaries.empty()) {
      shape.bounds = view->boundaries;
    } else if (wanted == Aggregation::standard && !instrument.boundaries.empty()) {
      shape.bounds = instrument.boundaries;
    } else {
      shape.bounds.assign(std::begin(kBounds), std::end(kBounds));
    }
  }
  if (config_.exemplar_filter != ExemplarFilter::always_off) {
    shape.exemplars = static_cast<std::uint32_t>(shape.exponential ? std::min<std::size_t>(20, shape.max_buckets) : shape.buckets());
  }
  return stream;
}

// The series of these attributes, whatever their order; of a key that stands twice, the last.
Series& Aggregator::series_of(Stream& stream, Attributes attributes, const std::string** filtered) {
  std::vector<const Attribute*> kept;
  std::string left_out;
  for (const Attribute* a = attributes.begin(); a != attributes.end(); ++a) {
    const bool last = std::none_of(a + 1, attributes.end(), [a](const Attribute& later) { return later.key == a->key; });
    if (!last || a->key.empty()) continue;
    bool wanted = true;
    if (stream.view != nullptr) {
      const auto named = [&](const std::vector<std::string>& keys) {
        return std::any_of(keys.begin(), keys.end(), [&](const std::string& key) { return key == a->key; });
      };
      wanted = (!stream.view->attribute_keys || named(*stream.view->attribute_keys)) && !named(stream.view->excluded_keys);
    }
    if (wanted) {
      kept.push_back(a);
    } else if (stream.shape.exemplars > 0) {
      otlp::append_attribute(left_out, 0x3a, a->key, a->value);
    }
  }
  if (!left_out.empty() && stream.filtered.size() < stream.limit) *filtered = &*stream.filtered.insert(left_out).first;
  std::sort(kept.begin(), kept.end(), [](const Attribute* a, const Attribute* b) { return a->key < b->key; });
  std::string encoded;
  for (const Attribute* a : kept) otlp::append_attribute(encoded, stream.attribute_tag(), a->key, a->value);

  const auto make = [&](std::string key) -> Series& {
    auto made = std::make_unique<Series>();
    made->stream = &stream;
    made->attributes = key;
    made->start_ns = stream.instrument->observable() ? stream.start_ns : clock_.now();
    if (stream.kind == Stream::Kind::last) made->last = std::make_unique<LastCell>(CellKind::last);
    if (stream.kind == Stream::Kind::histogram) made->all = std::make_unique<Distribution>(stream.shape);
    Series& series = *made;
    stream.order.push_back(&series);
    stream.series.emplace(std::move(key), std::move(made));
    return series;
  };
  if (const auto known = stream.series.find(encoded); known != stream.series.end()) return *known->second;
  if (stream.series.size() - (stream.overflow != nullptr ? 1 : 0) < stream.limit) return make(std::move(encoded));
  if (stream.overflow == nullptr) {
    std::string key;
    otlp::append_attribute(key, stream.attribute_tag(), "otel.metric.overflow", Value(true));
    const auto own = stream.series.find(key);
    stream.overflow = own != stream.series.end() ? own->second.get() : &make(std::move(key));
    if (!std::exchange(stream.overflow_said, true)) {
      diagnostics_.say(DiagnosticLevel::warning,
                       "instrument " + stream.name + " of meter " + stream.instrument->meter->name +
                           " has been given more than " + std::to_string(stream.limit) +
                           " sets of attributes; those that come now are added up in one series, otel.metric.overflow=true. "
                           "Leave attributes out (a view's attribute_keys), or raise the cardinality limit");
    }
  }
  return *stream.overflow;
}

void Aggregator::observe(InstrumentState& instrument, std::uint64_t bits, Attributes attributes) {
  const HeldMessages held;
  const std::scoped_lock lock(mutex_);
  for (const auto& stream : streams_of(instrument)) {
    const std::string* filtered = nullptr;
    Series& series = series_of(*stream, attributes, &filtered);
    if (series.cycle == cycle_ && stream->kind == Stream::Kind::sum) {
      series.observed = plus(series.observed, bits, instrument.is_double);  // a view has left out what they differ in
    } else {
      series.observed = bits;
    }
    series.cycle = cycle_;
  }
}

// ---- collection

void Aggregator::run_callbacks(const Meters& meters) {
  const auto call = [this](InstrumentState& instrument) {
    for (CallbackState* c = instrument.callbacks.load(std::memory_order_acquire); c != nullptr; c = c->next) {
      const std::uint64_t running = CallbackState::kRunning | std::uint64_t{process_generation()} << 2 |
                                    std::uint64_t{thread_id()} << 32;
      std::uint64_t seen = c->state.load(std::memory_order_acquire);
      // One that ran when the parent forked is live here.
      const bool parents = (seen & 3) == CallbackState::kRunning && (seen >> 2 & ((1u << 30) - 1)) != process_generation();
      if (!parents) seen = CallbackState::kLive;
      if (!c->state.compare_exchange_strong(seen, running, std::memory_order_acq_rel)) continue;
      c->observations.instrument = &instrument;
      c->observations.open.store(true, std::memory_order_release);
      called_.store(&instrument, std::memory_order_release);
      try {
        const ProgramCode code;
        c->call(&c->observations);
      } catch (const std::exception& e) {
        diagnostics_.say_limited("callback " + instrument.name, DiagnosticLevel::error,
                                 "the callback of instrument " + instrument.name + " threw " + e.what());
      } catch (...) {
        diagnostics_.say_limited("callback " + instrument.name, DiagnosticLevel::error,
                                 "the callback of instrument " + instrument.name + " threw");
      }
      called_.store(nullptr, std::memory_order_release);
      c->observations.open.store(false, std::memory_order_release);
      // Who removes it waits for this.
      std::uint64_t still = running;
      if (!c->state.compare_exchange_strong(still, CallbackState::kLive, std::memory_order_acq_rel)) {
        c->state.store(CallbackState::kChanging, std::memory_order_release);
      }
      c->state.notify_all();
    }
  };
  meters([&](MeterState& meter) {
    detail::for_each_instrument(meter, [&](InstrumentState& instrument) {
      // Not by its switch: that is off already at the last collection.
      if (instrument.observable() && !drops(instrument)) call(instrument);
    });
  });
}

std::uint64_t Aggregator::total(const Series& series) const noexcept {
  const bool is_double = series.stream->instrument->is_double;
  std::uint64_t sum = series.ended;
  for (const Series::Part& part : series.parts) {
    sum = plus(sum, static_cast<const SumCell*>(part.cell)->bits.load(std::memory_order_relaxed), is_double);
  }
  return sum;
}

// Takes what threads have recorded into histograms since the last time. One whose owner stays in the midst of a record, since
// it gets no processor, is taken the next time: nothing is lost.
void Aggregator::take_histograms() {
  std::vector<Series::Part*> parts;
  std::vector<Series*> owners;
  for (const auto& streams : streams_) {
    for (const auto& stream : streams) {
      if (stream->kind != Stream::Kind::histogram) continue;
      for (Series* series : stream->order) {
        if (series->left != nullptr) {
          series->all->merge(stream->shape, *series->left);
          series->left.reset();
        }
        for (Series::Part& part : series->parts) {
          parts.push_back(&part);
          owners.push_back(series);
          static_cast<HistogramCell*>(part.cell)->turn();
        }
      }
    }
  }
  if (parts.empty()) return;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (membarrier_) syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
  for (const Series::Part* part : parts) static_cast<HistogramCell*>(part->cell)->look();
  const Deadline deadline = deadline_after(std::chrono::milliseconds(50));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    auto& cell = *static_cast<HistogramCell*>(parts[i]->cell);
    while (!cell.settled() && std::chrono::steady_clock::now() < deadline) sched_yield();
    if (!cell.settled()) continue;
    Distribution& taken = cell.taken();
    owners[i]->all->merge(cell.shape, taken);
    taken.clear(cell.shape);
    cell.turned = false;
  }
}

// The wall clock was turned back: what is told from here on starts anew, so that no interval has negative length and none is
// told twice. With the lock, before anything of this collection is added.
void Aggregator::start_anew() {
  for (const auto& streams : streams_) {
    for (const auto& stream : streams) {
      stream->start_ns = anew_ns_;
      for (Series* series : stream->order) {
        series->start_ns = anew_ns_;
        if (stream->delta) continue;
        if (stream->kind == Stream::Kind::histogram) series->all->clear(stream->shape);
        // What was told up to the last collection is not told again; what may fall is told as it stands.
        if (stream->kind == Stream::Kind::sum && monotonic(stream->instrument->kind)) series->told = series->before;
      }
    }
  }
  last_ns_ = last_observed_ns_ = anew_ns_;
}

void Aggregator::begin_collection() {
  const auto steady = std::chrono::steady_clock::now();
  const std::uint64_t wall = clock_.now();
  anew_ns_ = 0;
  if (wall + kTurnedBack < last_ns_) {
    const auto elapsed = static_cast<std::uint64_t>(std::max<std::int64_t>(1, (steady - last_steady_).count()));
    anew_ns_ = wall > elapsed ? wall - elapsed : 1;
    now_ns_ = std::max(wall, anew_ns_ + 1);
    start_anew();
  } else {
    now_ns_ = std::max(wall, last_ns_ + 1);
  }
  last_steady_ = steady;
}

std::string Aggregator::in_callback() const {
  const InstrumentState* const called = called_.load(std::memory_order_acquire);
  return called == nullptr ? std::string() : called->name + " of meter " + called->meter->name;
}

std::size_t Aggregator::collect(const Meters& meters, const Emit& emit) {
  {
    const std::scoped_lock lock(mutex_);
    ++cycle_;
  }
  run_callbacks(meters);
  return tell(meters, emit, true);
}

std::size_t Aggregator::collect_recorded(const Meters& meters, const Emit& emit) { return tell(meters, emit, false); }

std::size_t Aggregator::tell(const Meters& meters, const Emit& emit, bool observed) {
  struct Piece {
    std::uint16_t scope;
    std::string body;
  };
  std::vector<Piece> pieces;
  std::size_t told = 0;
  {
    const std::scoped_lock lock(mutex_);
    begin_collection();
    take_histograms();
    const Emit keep = [&](std::uint16_t scope, std::string_view body) { pieces.push_back({scope, std::string(body)}); };
    meters([&](MeterState& meter) {
      std::vector<InstrumentState*> instruments;
      detail::for_each_instrument(meter, [&](InstrumentState& instrument) { instruments.push_back(&instrument); });
      for (auto i = instruments.rbegin(); i != instruments.rend(); ++i) {
        if ((*i)->index >= streams_.size() || ((*i)->observable() && !observed)) continue;
        for (const auto& stream : streams_[(*i)->index]) told += write(*stream, meter.scope, keep);
      }
    });
    last_ns_ = now_ns_;
    if (observed) last_observed_ns_ = now_ns_;
  }
  for (const Piece& piece : pieces) emit(piece.scope, piece.body);
  return told;
}

namespace {

void append_fixed64(std::string& out, char tag, std::uint64_t value) {
  char bytes[9];
  bytes[0] = tag;
  otlp::put_fixed64(bytes + 1, value);
  out.append(bytes, sizeof bytes);
}
void append_double(std::string& out, char tag, double value) { append_fixed64(out, tag, std::bit_cast<std::uint64_t>(value)); }
void append_varint(std::string& out, std::uint64_t value) {
  char bytes[10];
  out.append(bytes, static_cast<std::size_t>(otlp::put_varint(bytes, value) - bytes));
}
void append_field(std::string& out, char tag, std::string_view content) {
  out += tag;
  append_varint(out, content.size());
  out += content;
}
std::uint64_t zigzag(std::int32_t value) noexcept {
  return static_cast<std::uint32_t>(value) << 1 ^ static_cast<std::uint32_t>(value >> 31);
}
void append_words(std::string& out, char tag, const std::uint64_t* words, std::size_t n) {
  if (n == 0) return;
  out += tag;
  append_varint(out, n * 8);
  out.append(reinterpret_cast<const char*>(words), n * 8);
}
void append_buckets(std::string& out, char tag, const Buckets& row) {
  if (row.empty()) return;
  std::string counts;
  for (std::int32_t i = row.low; i <= row.high; ++i) append_varint(counts, row.counts[i - row.base]);
  std::string message;
  message += 0x08;
  append_varint(message, zigzag(row.low));
  append_field(message, 0x12, counts);
  append_field(out, tag, message);
}

}  // namespace

void Aggregator::append_exemplars(std::string& out, char tag, const Stream& stream, const Distribution& all) {
  for (const Exemplar& e : all.exemplars) {
    if (e.time_ns == 0) continue;
    std::string message;
    append_fixed64(message, 0x11, e.time_ns);
    if (stream.instrument->is_double) append_fixed64(message, 0x19, e.bits);
    if (e.span_id.valid()) append_field(message, 0x22, {reinterpret_cast<const char*>(e.span_id.bytes.data()), 8});
    if (e.trace_id.valid()) append_field(message, 0x2a, {reinterpret_cast<const char*>(e.trace_id.bytes.data()), 16});
    if (!stream.instrument->is_double) append_fixed64(message, 0x31, e.bits);
    if (e.filtered != nullptr) message += *e.filtered;
    append_field(out, tag, message);
  }
}

// Appends the data point where the series has one to tell, and moves it on.
void Aggregator::append_point(std::string& out, Stream& stream, Series& series) {
  const InstrumentState& instrument = *stream.instrument;
  const bool is_double = instrument.is_double;
  // Seen for the first time by a clock that has since been turned back.
  const std::uint64_t last = instrument.observable() ? last_observed_ns_ : last_ns_;
  if (series.start_ns >= now_ns_) series.start_ns = anew_ns_ != 0 ? anew_ns_ : last;
  const std::uint64_t start = stream.delta ? last : series.start_ns;
  std::string point;
  if (stream.kind != Stream::Kind::histogram) {
    std::uint64_t value = 0;
    std::uint64_t begin = start;
    if (instrument.observable()) {
      if (series.cycle != cycle_) return;
      value = series.observed;
      if (stream.kind == Stream::Kind::sum) {
        // A total that has become less was begun anew by whoever counts.
        bool fell = monotonic(instrument.kind) && series.had_before && less(series.observed, series.before, is_double);
        if (fell && stream.delta && &series == stream.overflow) {
          // A sum of many, one of which was not observed this time: it counts on where it is more than was ever told.
          series.observed = series.before;
          fell = false;
        }
        if (fell) {
          series.told = 0;
          series.start_ns = begin = last;
        }
        if (stream.delta && series.had_before && !fell) series.told = series.before;
        value = minus(series.observed, series.told, is_double);
      }
      series.before = series.observed;
      series.had_before = true;
    } else if (stream.kind == Stream::Kind::last) {
      if (!series.last->set.load(std::memory_order_acquire)) return;
      value = series.last->bits.load(std::memory_order_relaxed);
    } else {
      std::uint64_t all = total(series);
      // A thread's end changes the order of the additions, and so a double's last place: no sum falls by that.
      if (is_double && monotonic(instrument.kind) && less(all, series.before, true)) all = series.before;
      if (is_double && !std::isfinite(number(all, true)) && !std::exchange(stream.infinite_said, true)) {
        diagnostics_.say(DiagnosticLevel::warning, "the sum of instrument " + stream.name + " of meter " +
                                                       instrument.meter->name + " is more than a double can hold");
      }
      value = minus(all, series.told, is_double);
      if (stream.delta) {
        if (number(value, is_double) == 0 || all == series.told) return;
        series.told = all;
      }
      series.before = all;
    }
    if (stream.kind == Stream::Kind::sum) append_fixed64(point, 0x11, begin);
    append_fixed64(point, 0x19, now_ns_);
    append_fixed64(point, is_double ? 0x21 : 0x31, value);
    point += series.attributes;
    append_field(out, 0x0a, point);
    return;
  }
  Distribution& all = *series.all;
  if (all.count == 0 && stream.delta) return;
  const HistogramShape& shape = stream.shape;
  if (shape.exponential) {
    point += series.attributes;
    append_fixed64(point, 0x11, start);
    append_fixed64(point, 0x19, now_ns_);
    append_fixed64(point, 0x21, all.count);
    if (stream.with_sum) append_double(point, 0x29, all.sum);
    point += 0x30;
    append_varint(point, zigzag(all.scale));
    append_fixed64(point, 0x39, all.zeros);
    append_buckets(point, 0x42, all.positive);
    append_buckets(point, 0x4a, all.negative);
    append_exemplars(point, 0x5a, stream, all);
    if (all.count > 0) {
      append_double(point, 0x61, all.minimum);
      append_double(point, 0x69, all.maximum);
    }
  } else {
    append_fixed64(point, 0x11, start);
    append_fixed64(point, 0x19, now_ns_);
    append_fixed64(point, 0x21, all.count);
    if (stream.with_sum) append_double(point, 0x29, all.sum);
    append_words(point, 0x32, all.counts.data(), all.counts.size());
    append_words(point, 0x3a, reinterpret_cast<const std::uint64_t*>(shape.bounds.data()), shape.bounds.size());
    append_exemplars(point, 0x42, stream, all);
    point += series.attributes;
    if (all.count > 0) {
      append_double(point, 0x59, all.minimum);
      append_double(point, 0x61, all.maximum);
    }
  }
  append_field(out, 0x0a, point);
  if (stream.delta) {
    all.clear(shape);
  } else {
    all.clear_exemplars();
  }
}

std::size_t Aggregator::write(Stream& stream, std::uint16_t scope, const Emit& emit) {
  const InstrumentState& instrument = *stream.instrument;
  std::string head;
  append_field(head, 0x0a, stream.name);
  if (!stream.description.empty()) append_field(head, 0x12, stream.description);
  if (!instrument.unit.empty()) append_field(head, 0x1a, instrument.unit);
  std::string data;
  std::size_t points = 0;
  const auto flush = [&] {
    if (data.empty()) return;
    if (stream.kind != Stream::Kind::last) {
      data += 0x10;
      data += stream.delta ? 1 : 2;
      if (stream.kind == Stream::Kind::sum && monotonic(instrument.kind)) data.append("\x18\x01", 2);
    }
    std::string body = head;
    append_field(body, stream.kind == Stream::Kind::last ? 0x2a : stream.kind == Stream::Kind::sum ? 0x3a
                       : stream.shape.exponential                                              ? 0x52 : 0x4a,
                 data);
    emit(scope, body);
    data.clear();
  };
  std::string point;
  for (Series* series : stream.order) {
    point.clear();
    append_point(point, stream, *series);
    if (point.empty()) continue;
    ++points;
    if (data.size() + point.size() > kPieceBytes) flush();
    data += point;
  }
  flush();
  // Of what is observed, those that are no more make room for others; but for totals of which the next one is the difference.
  const bool needs_before = stream.kind == Stream::Kind::sum && stream.delta;
  if (instrument.observable() && !needs_before && stream.series.size() >= stream.limit) {
    std::erase_if(stream.order, [&](const Series* series) { return series->cycle != cycle_; });
    if (stream.overflow != nullptr && stream.overflow->cycle != cycle_) stream.overflow = nullptr;
    std::erase_if(stream.series, [&](const auto& entry) { return entry.second->cycle != cycle_; });
  }
  return points;
}

}  // namespace waymark::metric

namespace waymark::detail {
namespace {

template <class T>
bool measures(InstrumentState& instrument, metric::Aggregator& aggregator, T value) noexcept {
  if constexpr (std::same_as<T, double>) {
    if (!(std::abs(value) <= std::numeric_limits<double>::max())) [[unlikely]] {
      aggregator.refuse(instrument, "a value is not a number, or infinite");
      return false;
    }
  }
  if (value < 0 && !instrument.signed_values) [[unlikely]] {
    aggregator.refuse(instrument, "a value is less than zero, which its kind does not take");
    return false;
  }
  return true;
}

template <class T>
void put(InstrumentState& instrument, T value, Attributes attributes) noexcept {
  if (!instrument.recording.load(std::memory_order_acquire)) return;
  Recording& r = *instrument.recording_of;
  if (!here(r) || !measures(instrument, *r.metrics, value)) return;
  r.metrics->record(instrument, value, attributes);
}

template <class T>
void put(BoundState& bound, T value) noexcept {
  InstrumentState& instrument = *bound.instrument;
  if (!instrument.recording.load(std::memory_order_acquire)) return;
  Recording& r = *instrument.recording_of;
  if (!here(r) || !measures(instrument, *r.metrics, value)) return;
  r.metrics->record(bound, value);
}

template <class T>
void see(Observations* into, T value, Attributes attributes) noexcept {
  if (into == nullptr || !into->open.load(std::memory_order_acquire)) return;
  InstrumentState& instrument = *into->instrument;
  metric::Aggregator& aggregator = *instrument.recording_of->metrics;
  if (measures(instrument, aggregator, value)) aggregator.observe(instrument, metric::bits_of(value), attributes);
}

}  // namespace

void record(InstrumentState* instrument, std::int64_t value, Attributes attributes) noexcept { put(*instrument, value, attributes); }
void record(InstrumentState* instrument, double value, Attributes attributes) noexcept { put(*instrument, value, attributes); }
void record(BoundState* bound, std::int64_t value) noexcept { put(*bound, value); }
void record(BoundState* bound, double value) noexcept { put(*bound, value); }
void observe(Observations* into, std::int64_t value, Attributes attributes) noexcept { see(into, value, attributes); }
void observe(Observations* into, double value, Attributes attributes) noexcept { see(into, value, attributes); }

}  // namespace waymark::detail
