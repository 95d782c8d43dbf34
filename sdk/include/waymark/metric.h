// Meters and instruments: numbers that are added up in the process and sent at intervals.
//
// Hides: cells of each thread, aggregation, and how a collection becomes OTLP bytes.
// Threads: meters and instruments may be used by any thread. Callbacks run on the collection's thread, one at a time.
// Failure: recording is noexcept. What is no measurement (NaN, an infinity, less than zero where only zero and more makes
//   sense) is refused, counted (telemetry.h: stats) and said once for each instrument.
//
// A set of attributes that was seen once keeps its place until the end of the process, so keys and values are to be few:
// what comes after the first 2,000 sets of an instrument (settable) is added up in one series, `otel.metric.overflow=true`.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "waymark/attribute.h"

namespace waymark {

enum class InstrumentKind : std::uint8_t {
  counter, up_down_counter, gauge, histogram,
  observable_counter, observable_up_down_counter, observable_gauge,
};

// What an instrument may say about itself.
struct InstrumentOptions {
  std::string_view unit = {};         // UCUM: "s", "By", "{task}"; a histogram of a unit of time is exponential by default
  std::string_view description = {};
  std::vector<double> boundaries = {};  // advice, for histograms: upper bounds of buckets, ascending
};

// Which of an instrument's numbers are told since the last collection, and which since the start.
enum class Temporality : std::uint8_t {
  cumulative,  // all since the start
  delta,       // counters and histograms since the last collection
  lowmemory,   // counters and histograms that are recorded into since the last collection; what is observed, since the start
};

enum class Aggregation : std::uint8_t {
  standard,               // what the instrument's kind asks for
  drop,
  sum, last_value,
  explicit_histogram,
  exponential_histogram,  // base 2
};

// Which instruments a view is for. What is left out fits all.
struct ViewSelector {
  std::string name = {};  // exact, or with `*` (any text) and `?` (any character); of the instrument
  std::optional<InstrumentKind> kind = {};
  std::string unit = {};
  std::string meter_name = {};
  std::string meter_version = {};
  std::string meter_schema_url = {};
  friend bool operator==(const ViewSelector&, const ViewSelector&) = default;
};
// What becomes of an instrument's measurements. Each view that fits makes a stream of its own.
struct View {
  ViewSelector select = {};
  std::string name = {};                  // of the stream; empty: the instrument's. Only where the selector's name has no wildcard
  std::string description = {};           // empty: the instrument's
  std::optional<std::vector<std::string>> attribute_keys = {};  // only these are kept; exemplars still tell the others
  std::vector<std::string> excluded_keys = {};                  // these are not
  Aggregation aggregation = Aggregation::standard;
  std::vector<double> boundaries = {};    // explicit ones, also with `standard`; empty: with that the advice, else OpenTelemetry's
  std::uint32_t max_buckets = 160;        // of exponential_histogram, 2 to 1024
  std::int32_t max_scale = 20;            // of exponential_histogram, -10 to 20
  std::size_t cardinality_limit = 0;      // 0: the Telemetry's
  friend bool operator==(const View&, const View&) = default;
};

namespace detail {

struct InstrumentState;
struct MeterState;
struct BoundState;
struct CallbackState;

// What every instrument handle looks at first: false while nothing would be done with a measurement.
struct InstrumentSwitch {
  std::atomic<bool> recording{false};
};

void record(InstrumentState* instrument, std::int64_t value, Attributes attributes) noexcept;
void record(InstrumentState* instrument, double value, Attributes attributes) noexcept;
void record(BoundState* bound, std::int64_t value) noexcept;
void record(BoundState* bound, double value) noexcept;
[[nodiscard]] bool instrument_enabled(const InstrumentState* instrument) noexcept;
[[nodiscard]] BoundState* bind(InstrumentState* instrument, Attributes attributes);

// One callback's observations, all of the same time.
class Observations;
void observe(Observations* into, std::int64_t value, Attributes attributes) noexcept;
void observe(Observations* into, double value, Attributes attributes) noexcept;

}  // namespace detail

template <class T>
concept Number = std::same_as<T, std::int64_t> || std::same_as<T, double>;

// An instrument with its attributes resolved: no look-up at each measurement. Good while its Telemetry is.
template <Number T>
class BoundInstrument {
 public:
  BoundInstrument() noexcept = default;
  explicit BoundInstrument(detail::BoundState* state) noexcept : state_(state) {}

 protected:
  void put(T value) const noexcept {
    if (state_ != nullptr) detail::record(state_, value);
  }

 private:
  detail::BoundState* state_ = nullptr;
};

template <Number T>
class Instrument {
 public:
  Instrument() noexcept = default;
  explicit Instrument(detail::InstrumentState* state) noexcept : state_(state) {}
  // False where nothing would be done with a measurement: nobody collects, or views drop it. The answer may change.
  [[nodiscard]] bool enabled() const noexcept { return detail::instrument_enabled(state_); }

 protected:
  void put(T value, Attributes attributes) const noexcept {
    if (state_ != nullptr) detail::record(state_, value, attributes);
  }
  [[nodiscard]] detail::BoundState* bound(Attributes attributes) const {
    return state_ != nullptr ? detail::bind(state_, attributes) : nullptr;
  }

 private:
  detail::InstrumentState* state_ = nullptr;
};

template <Number T>
class BoundAdder : public BoundInstrument<T> {
 public:
  using BoundInstrument<T>::BoundInstrument;
  void add(T value) const noexcept { this->put(value); }
};
template <Number T>
class BoundRecorder : public BoundInstrument<T> {
 public:
  using BoundInstrument<T>::BoundInstrument;
  void record(T value) const noexcept { this->put(value); }
};

// Adds up. Values are zero or more.
template <Number T>
class Counter : public Instrument<T> {
 public:
  using Instrument<T>::Instrument;
  void add(T value, Attributes attributes = {}) const noexcept { this->put(value, attributes); }
  [[nodiscard]] BoundAdder<T> bind(Attributes attributes) const { return BoundAdder<T>(this->bound(attributes)); }
};
// Adds up what may also become less.
template <Number T>
class UpDownCounter : public Instrument<T> {
 public:
  using Instrument<T>::Instrument;
  void add(T value, Attributes attributes = {}) const noexcept { this->put(value, attributes); }
  [[nodiscard]] BoundAdder<T> bind(Attributes attributes) const { return BoundAdder<T>(this->bound(attributes)); }
};
// Keeps the last value.
template <Number T>
class Gauge : public Instrument<T> {
 public:
  using Instrument<T>::Instrument;
  void record(T value, Attributes attributes = {}) const noexcept { this->put(value, attributes); }
  [[nodiscard]] BoundRecorder<T> bind(Attributes attributes) const { return BoundRecorder<T>(this->bound(attributes)); }
};
// Counts by size. Values are zero or more.
template <Number T>
class Histogram : public Instrument<T> {
 public:
  using Instrument<T>::Instrument;
  void record(T value, Attributes attributes = {}) const noexcept { this->put(value, attributes); }
  [[nodiscard]] BoundRecorder<T> bind(Attributes attributes) const { return BoundRecorder<T>(this->bound(attributes)); }
};

// Where a callback says what it sees; good only during the call.
template <Number T>
class Observer {
 public:
  explicit Observer(detail::Observations* into) noexcept : into_(into) {}
  // Each set of attributes at most once in a call.
  void observe(T value, Attributes attributes = {}) const noexcept { detail::observe(into_, value, attributes); }

 private:
  detail::Observations* into_;
};

// A callback is called once for each collection, and must not take long: a collection waits for it. It may be called while
// the thread that registered it does anything else. What it throws is said, and what it observed until then counts.
template <Number T>
using ObserveCallback = std::function<void(const Observer<T>&)>;

// Takes the callback back when it is destroyed, and waits for a call that is on its way (not from within the callback). It
// must go before its Telemetry.
class [[nodiscard]] CallbackRegistration {
 public:
  CallbackRegistration() noexcept = default;
  explicit CallbackRegistration(detail::CallbackState* state) noexcept : state_(state) {}
  CallbackRegistration(CallbackRegistration&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  CallbackRegistration& operator=(CallbackRegistration&& other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~CallbackRegistration() { remove(); }
  void remove() noexcept;

 private:
  detail::CallbackState* state_ = nullptr;
};

namespace detail {
[[nodiscard]] CallbackState* add_callback(InstrumentState* instrument, std::function<void(Observations*)> call);
}  // namespace detail

// What is not recorded but looked at when it is collected. Counters observe totals.
template <Number T>
class ObservableInstrument {
 public:
  ObservableInstrument() noexcept = default;
  explicit ObservableInstrument(detail::InstrumentState* state) noexcept : state_(state) {}
  CallbackRegistration add_callback(ObserveCallback<T> callback) const {
    if (state_ == nullptr || !callback) return {};
    return CallbackRegistration(detail::add_callback(
        state_, [call = std::move(callback)](detail::Observations* into) { call(Observer<T>(into)); }));
  }

 private:
  detail::InstrumentState* state_ = nullptr;
};

// Makes instruments of one scope. An instrument that was made before with the same name, kind, unit, description and type of
// number is the same one; one that differs is another, and that is said.
class Meter {
 public:
  Meter() noexcept = default;
  explicit Meter(detail::MeterState* state) noexcept : state_(state) {}

  template <Number T = std::int64_t>
  [[nodiscard]] Counter<T> counter(std::string_view name, const InstrumentOptions& options = {}) const {
    return Counter<T>(make(InstrumentKind::counter, std::same_as<T, double>, name, options));
  }
  template <Number T = std::int64_t>
  [[nodiscard]] UpDownCounter<T> up_down_counter(std::string_view name, const InstrumentOptions& options = {}) const {
    return UpDownCounter<T>(make(InstrumentKind::up_down_counter, std::same_as<T, double>, name, options));
  }
  template <Number T = double>
  [[nodiscard]] Gauge<T> gauge(std::string_view name, const InstrumentOptions& options = {}) const {
    return Gauge<T>(make(InstrumentKind::gauge, std::same_as<T, double>, name, options));
  }
  template <Number T = double>
  [[nodiscard]] Histogram<T> histogram(std::string_view name, const InstrumentOptions& options = {}) const {
    return Histogram<T>(make(InstrumentKind::histogram, std::same_as<T, double>, name, options));
  }

  // A callback that is given here stays as long as the Telemetry.
  template <Number T = std::int64_t>
  ObservableInstrument<T> observable_counter(std::string_view name, const InstrumentOptions& options = {},
                                             std::type_identity_t<ObserveCallback<T>> callback = {}) const {
    return observable<T>(InstrumentKind::observable_counter, name, options, std::move(callback));
  }
  template <Number T = std::int64_t>
  ObservableInstrument<T> observable_up_down_counter(std::string_view name, const InstrumentOptions& options = {},
                                                     std::type_identity_t<ObserveCallback<T>> callback = {}) const {
    return observable<T>(InstrumentKind::observable_up_down_counter, name, options, std::move(callback));
  }
  template <Number T = double>
  ObservableInstrument<T> observable_gauge(std::string_view name, const InstrumentOptions& options = {},
                                           std::type_identity_t<ObserveCallback<T>> callback = {}) const {
    return observable<T>(InstrumentKind::observable_gauge, name, options, std::move(callback));
  }

 private:
  [[nodiscard]] detail::InstrumentState* make(InstrumentKind kind, bool is_double, std::string_view name,
                                              const InstrumentOptions& options) const;
  template <Number T>
  ObservableInstrument<T> observable(InstrumentKind kind, std::string_view name, const InstrumentOptions& options,
                                     ObserveCallback<T> callback) const {
    detail::InstrumentState* const made = make(kind, std::same_as<T, double>, name, options);
    if (made != nullptr && callback) {
      (void)detail::add_callback(made, [call = std::move(callback)](detail::Observations* into) { call(Observer<T>(into)); });
    }
    return ObservableInstrument<T>(made);
  }

  detail::MeterState* state_ = nullptr;
};

}  // namespace waymark
