// What meters and instruments share with the Telemetry that made them: complete before they are linked, never unlinked, so
// that lists are whole at the instant of any fork.
//
// Hides: nothing; handles in public headers point here.
// Threads: any. Nothing here is locked; what is added is pushed.
// Failure: none.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "trace/tracer.h"
#include "waymark/metric.h"

namespace waymark::detail {

// Where one callback's observations go; open only while it is called.
class Observations {
 public:
  InstrumentState* instrument = nullptr;
  std::atomic<bool> open{false};
};

// A callback's place in its instrument's list. One that was removed is used again.
struct CallbackState {
  enum : std::uint64_t { kFree = 0, kLive = 1, kChanging = 2, kRunning = 3 };
  std::function<void(Observations*)> call;
  Observations observations;
  // kRunning also holds the process's generation and the caller's thread: in a child of fork, nobody runs what its parent ran.
  std::atomic<std::uint64_t> state{kFree};
  CallbackState* next = nullptr;
};

// An instrument's attributes, resolved once. Equal sets of one instrument share it.
struct BoundState {
  InstrumentState* instrument = nullptr;
  std::string packed;      // as a thread's cache has it
  std::uint64_t hash = 0;
  std::uint32_t index = 0;  // among all of the Telemetry's
  // What the attributes view: owned.
  std::vector<AnyValue> owned;
  std::vector<std::string> keys;
  std::vector<Attribute> attributes;
  BoundState* next = nullptr;
};

struct InstrumentState : InstrumentSwitch {
  Recording* recording_of = nullptr;
  MeterState* meter = nullptr;
  InstrumentKind kind = InstrumentKind::counter;
  bool is_double = false;
  bool signed_values = false;  // less than zero makes sense
  std::string name;
  std::string unit;
  std::string description;
  std::vector<double> boundaries;  // advice
  std::atomic<bool> refusal_said{false};
  std::uint32_t index = 0;         // among all of the Telemetry's
  InstrumentState* next = nullptr;
  std::atomic<BoundState*> bound{nullptr};
  std::atomic<CallbackState*> callbacks{nullptr};

  [[nodiscard]] bool observable() const noexcept { return kind >= InstrumentKind::observable_counter; }
};

struct MeterState {
  Recording* recording_of = nullptr;
  std::uint16_t scope = 0;
  std::string name;
  std::string version;
  std::string schema_url;
  std::atomic<InstrumentState*> first{nullptr};  // newest first
};

// As the Telemetry's switch and its views have it now.
void refresh(InstrumentState& instrument) noexcept;

// Calls each(InstrumentState&), newest first.
template <class F>
void for_each_instrument(const MeterState& meter, F&& each) {
  for (InstrumentState* i = meter.first.load(std::memory_order_acquire); i != nullptr; i = i->next) each(*i);
}
// Ends and deletes what hangs on it.
void delete_instruments(MeterState& meter) noexcept;

}  // namespace waymark::detail
