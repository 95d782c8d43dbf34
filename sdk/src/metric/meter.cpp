#include "metric/meter.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "base/diagnostics.h"
#include "metric/aggregator.h"
#include "metric/attribute_key.h"

namespace waymark {
namespace detail {
namespace {

bool same_name(std::string_view a, std::string_view b) {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return low(x) == low(y); });
}

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool valid_name(std::string_view name) {
  constexpr std::size_t kLongest = 255;
  if (name.empty() || name.size() > kLongest || !letter(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' || c == '/';
  });
}

// Told once for each name: the Telemetry may not have started yet, then nobody hears it.
void warn(const MeterState& meter, std::string_view name, const std::string& what) {
  if (Diagnostics* diagnostics = meter.recording_of->diagnostics) {
    const std::string text = "instrument " + std::string(name) + " of meter " + meter.name + ": " + what;
    diagnostics->say_once(text, DiagnosticLevel::warning, text);
  }
}

std::string_view kind_name(InstrumentKind kind) {
  static constexpr std::string_view names[] = {"counter",           "up-down counter",           "gauge",           "histogram",
                                               "observable counter", "observable up-down counter", "observable gauge"};
  return names[static_cast<std::size_t>(kind)];
}

std::vector<double> advice(const MeterState& meter, std::string_view name, const std::vector<double>& given) {
  bool ascending = true;
  for (std::size_t i = 0; i < given.size(); ++i) {
    ascending = ascending && std::isfinite(given[i]) && (i == 0 || given[i - 1] < given[i]);
  }
  if (ascending) return given;
  warn(meter, name, "its boundaries do not ascend, or are not finite; they are not used");
  return {};
}

// Pushes, unless `known` finds somebody else's in what was pushed meanwhile. `number` is called before, once: who makes the same
// again and again uses up no numbers, which every thread's tables are as long as.
template <class T, class Known, class Number>
T* push(std::atomic<T*>& list, std::unique_ptr<T> made, Known&& known, Number&& number) {
  T* first = list.load(std::memory_order_acquire);
  for (bool numbered = false;; numbered = true) {
    if (T* there = known(first)) return there;
    if (!numbered) number(*made);
    made->next = first;
    if (list.compare_exchange_weak(first, made.get(), std::memory_order_seq_cst, std::memory_order_acquire)) {
      return made.release();
    }
  }
}

AnyValue own(const Value& value) {
  switch (value.type()) {
    case Value::Type::string: return AnyValue{std::string(value.as_string())};
    case Value::Type::boolean: return AnyValue{value.as_int() != 0};
    case Value::Type::int64: return AnyValue{value.as_int()};
    case Value::Type::float64: return AnyValue{value.as_double()};
    case Value::Type::bytes: {
      const auto* data = static_cast<const std::byte*>(value.data());
      return AnyValue{std::vector<std::byte>(data, data + value.size())};
    }
    default: return {};
  }
}
Value view(const AnyValue& value) {
  if (const auto* text = std::get_if<std::string>(&value.value)) return Value(*text);
  if (const auto* flag = std::get_if<bool>(&value.value)) return Value(*flag);
  if (const auto* whole = std::get_if<std::int64_t>(&value.value)) return Value(*whole);
  if (const auto* number = std::get_if<double>(&value.value)) return Value(*number);
  if (const auto* bytes = std::get_if<std::vector<std::byte>>(&value.value)) return Value(*bytes);
  return {};
}

}  // namespace

void refresh(InstrumentState& instrument) noexcept {
  const Recording& r = *instrument.recording_of;
  const bool on = r.metrics_on.load(std::memory_order_seq_cst) && !r.metrics->drops(instrument);
  instrument.recording.store(on, std::memory_order_release);
}

bool instrument_enabled(const InstrumentState* instrument) noexcept {
  return instrument != nullptr && instrument->recording.load(std::memory_order_acquire) && here(*instrument->recording_of);
}

BoundState* bind(InstrumentState* instrument, Attributes attributes) {
  if (metric::plain(attributes)) {
    const std::uint64_t hash = metric::hash(attributes, instrument->index);
    for (BoundState* b = instrument->bound.load(std::memory_order_acquire); b != nullptr; b = b->next) {
      if (b->hash == hash && metric::same(b->packed.data(), b->packed.size(), attributes)) return b;
    }
  }
  auto made = std::make_unique<BoundState>();
  made->instrument = instrument;
  // Arrays and maps are no attributes that numbers are told apart by; a bound instrument leaves them out.
  std::vector<Attribute> plain;
  for (const Attribute& a : attributes) {
    if (a.value.type() < Value::Type::values) plain.push_back(a);
    else warn(*instrument->meter, instrument->name, "an array or a map among bound attributes is left out");
  }
  made->keys.reserve(plain.size());
  made->owned.reserve(plain.size());
  for (const Attribute& a : plain) {
    made->keys.emplace_back(a.key);
    // An integer above int64's range is its decimal text on the wire.
    made->owned.push_back(a.value.type() == Value::Type::uint64
                              ? AnyValue{std::to_string(static_cast<std::uint64_t>(a.value.as_int()))}
                              : own(a.value));
  }
  for (std::size_t i = 0; i < plain.size(); ++i) made->attributes.emplace_back(made->keys[i], view(made->owned[i]));
  made->packed = metric::pack(made->attributes);
  made->hash = metric::hash(made->attributes, instrument->index);
  const std::uint64_t hash = made->hash;
  const std::string packed = made->packed;
  const auto known = [&](BoundState* first) -> BoundState* {
    for (BoundState* b = first; b != nullptr; b = b->next) {
      if (b->hash == hash && b->packed == packed) return b;
    }
    return nullptr;
  };
  return push(instrument->bound, std::move(made), known, [&](BoundState& b) {
    b.index = instrument->recording_of->next_bound.fetch_add(1, std::memory_order_relaxed);
  });
}

CallbackState* add_callback(InstrumentState* instrument, std::function<void(Observations*)> call) {
  const auto fill = [&](CallbackState& state) {
    state.call = std::move(call);
    state.state.store(CallbackState::kLive, std::memory_order_release);
  };
  for (CallbackState* c = instrument->callbacks.load(std::memory_order_acquire); c != nullptr; c = c->next) {
    std::uint64_t free = CallbackState::kFree;
    if (!c->state.compare_exchange_strong(free, CallbackState::kChanging, std::memory_order_acq_rel)) continue;
    fill(*c);
    return c;
  }
  auto made = std::make_unique<CallbackState>();
  fill(*made);
  return push(instrument->callbacks, std::move(made), [](CallbackState*) -> CallbackState* { return nullptr; }, [](CallbackState&) {});
}

void delete_instruments(MeterState& meter) noexcept {
  for (InstrumentState* i = meter.first.exchange(nullptr); i != nullptr;) {
    for (BoundState* b = i->bound.exchange(nullptr); b != nullptr;) delete std::exchange(b, b->next);
    for (CallbackState* c = i->callbacks.exchange(nullptr); c != nullptr;) delete std::exchange(c, c->next);
    delete std::exchange(i, i->next);
  }
}

}  // namespace detail

detail::InstrumentState* Meter::make(InstrumentKind kind, bool is_double, std::string_view given_name,
                                     const InstrumentOptions& options) const {
  if (state_ == nullptr) return nullptr;
  detail::MeterState& meter = *state_;
  std::string name_scratch;
  std::string unit_scratch;
  std::string description_scratch;
  const std::string_view name = clean(given_name, name_scratch);
  const std::string_view unit = clean(options.unit, unit_scratch);
  const std::string_view description = clean(options.description, description_scratch);
  const auto known = [&](detail::InstrumentState* first) -> detail::InstrumentState* {
    for (detail::InstrumentState* i = first; i != nullptr; i = i->next) {
      if (detail::same_name(i->name, name) && i->kind == kind && i->is_double == is_double && i->unit == unit &&
          i->description == description) {
        return i;
      }
    }
    return nullptr;
  };
  detail::InstrumentState* const before = meter.first.load(std::memory_order_acquire);
  detail::InstrumentState* there = known(before);
  if (there == nullptr) {
    if (!detail::valid_name(name)) {
      detail::warn(meter, name, "the name is not valid (a letter, then letters, digits and _ . - / up to 255 characters); it is "
                                "used as it is, and receivers may refuse it");
    }
    for (detail::InstrumentState* i = before; i != nullptr; i = i->next) {
      if (!detail::same_name(i->name, name)) continue;
      const bool same_kind = i->kind == kind && i->is_double == is_double;
      detail::warn(meter, name,
                   "there is another of this name, " + std::string(detail::kind_name(i->kind)) + " of unit '" + i->unit +
                       "', and this is a " + std::string(detail::kind_name(kind)) + " of unit '" + std::string(unit) +
                       (same_kind ? "' or with another description; both are sent. Make them the same, or give one of them a view "
                                    "with another `description` or `name`"
                                  : "'; both are sent. Rename one, or give it a view with another `name`"));
      break;
    }
    auto made = std::make_unique<detail::InstrumentState>();
    made->recording_of = meter.recording_of;
    made->meter = &meter;
    made->kind = kind;
    made->is_double = is_double;
    made->signed_values = kind != InstrumentKind::counter && kind != InstrumentKind::histogram && kind != InstrumentKind::observable_counter;
    made->name = name;
    made->unit = unit;
    made->description = description;
    made->boundaries = detail::advice(meter, name, options.boundaries);
    there = detail::push(meter.first, std::move(made), known, [&](detail::InstrumentState& i) {
      i.index = meter.recording_of->next_instrument.fetch_add(1, std::memory_order_relaxed);
    });
  }
  if (there->name != name) detail::warn(meter, name, "names know no case; it is the same as " + there->name);
  if (!options.boundaries.empty() && there->boundaries != options.boundaries &&
      there->boundaries != detail::advice(meter, name, options.boundaries)) {
    detail::warn(meter, name, "its boundaries differ from those it was first made with, which are used");
  }
  detail::refresh(*there);
  return there;
}

void CallbackRegistration::remove() noexcept {
  using State = detail::CallbackState;
  State* const callback = std::exchange(state_, nullptr);
  if (callback == nullptr) return;
  for (;;) {
    std::uint64_t seen = callback->state.load(std::memory_order_acquire);
    const auto what = seen & 3;
    if (what == State::kFree) return;
    const bool ours = (seen >> 2 & ((1u << 30) - 1)) == process_generation();
    if (what == State::kRunning && ours && seen >> 32 != thread_id()) {
      callback->state.wait(seen, std::memory_order_acquire);
      continue;
    }
    if (what == State::kChanging) {
      std::this_thread::yield();
      continue;
    }
    if (!callback->state.compare_exchange_strong(seen, State::kChanging, std::memory_order_acq_rel)) continue;
    // From within the callback itself its function must outlive the call: the collection leaves the place as it is.
    if (what == State::kRunning && ours) return;
    callback->call = nullptr;
    callback->state.store(State::kFree, std::memory_order_release);
    return;
  }
}

}  // namespace waymark
