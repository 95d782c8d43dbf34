#include "waymark/telemetry.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/random.h"
#include "base/thread.h"
#include "core.h"
#include "export/destination.h"
#include "journal/collector.h"
#include "journal/directory.h"
#include "journal/orphans.h"
#include "journal/recorder.h"
#include "journal/recovery.h"
#include "metric/aggregator.h"
#include "metric/periodic.h"
#include "metric/process.h"
#include "otlp/writer.h"
#include "self_metrics.h"
#include "trace/tracer.h"
#include "transport/http.h"
#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark {
namespace {

using delivery::Destination;

constinit std::atomic<bool> recovery_is_others{false};

// A scope's identity and the handles that record under it.
struct ScopeEntry {
  ScopeEntry() = default;
  ~ScopeEntry() { detail::delete_instruments(meter); }
  ScopeEntry(const ScopeEntry&) = delete;
  ScopeEntry& operator=(const ScopeEntry&) = delete;

  journal::Scope scope;
  detail::TracerState tracer;
  detail::LoggerState logger;
  detail::MeterState meter;
  ScopeEntry* next = nullptr;
};

// Entries are complete before they are linked and never unlinked, so that the list is whole at the instant of any fork.
class ScopeList {
 public:
  ScopeList() = default;
  ~ScopeList() {
    for (ScopeEntry* entry = first_.load(); entry != nullptr;) delete std::exchange(entry, entry->next);
  }
  ScopeList(const ScopeList&) = delete;
  ScopeList& operator=(const ScopeList&) = delete;
  // One thread at a time.
  ScopeEntry& add(std::unique_ptr<ScopeEntry> entry) {
    entry->next = first_.load(std::memory_order_relaxed);
    first_.store(entry.get(), std::memory_order_release);
    return *entry.release();
  }
  template <class F>
  void for_each(F&& each) const {
    for (ScopeEntry* entry = first_.load(std::memory_order_acquire); entry != nullptr; entry = entry->next) each(*entry);
  }

 private:
  std::atomic<ScopeEntry*> first_{nullptr};
};

journal::Scope encode_scope(std::string_view name, std::string_view version, std::string_view schema_url, Attributes attributes) {
  journal::Scope scope;
  const auto text = [&](char tag, std::string_view value) {
    if (value.empty()) return;
    std::string scratch;
    value = clean(value, scratch);
    std::string field(otlp::field_size(value.size()), '\0');
    otlp::put_field(field.data(), tag, value);
    scope.encoded += field;
  };
  text(0x0a, name);
  text(0x12, version);
  for (const Attribute* a = attributes.begin(); a != attributes.end(); ++a) {
    const bool last = std::none_of(a + 1, attributes.end(), [a](const Attribute& later) { return later.key == a->key; });
    if (last && !a->key.empty()) otlp::append_attribute(scope.encoded, 0x1a, a->key, a->value);
  }
  scope.schema_url = schema_url;
  return scope;
}

// What a destination asks for that its own settings do not tell. `resource`: this Telemetry's.
void check(const DestinationConfig& destination, const Resource& resource) {
  delivery::check(destination);
  if (destination.preset != Preset::s2 || destination.output != Output::otlp || !destination.enabled) return;
  const AnyValue* stream = find(destination.resource_attributes, "s2.stream");
  if (!stream) stream = resource.find("s2.stream");
  const auto* name = stream ? std::get_if<std::string>(&stream->value) : nullptr;
  if (!name || name->empty()) {
    throw Error(ErrorCode::invalid_argument,
                "destination \"" + destination.name + "\" (" + std::string(signal_name(destination.signal)) +
                    "): the preset s2 expects the name of a stream as `s2.stream`, in the resource or in the destination's "
                    "`resource_attributes`; without it S2 does not know where the records belong");
  }
}

// About so much memory.
std::size_t bytes_of(const Recovered& found) {
  const auto of_map = [](const AnyMap& map) {
    std::size_t bytes = 0;
    for (const auto& [key, value] : map) bytes += sizeof key + key.size() + sizeof value + to_text(value).size();
    return bytes;
  };
  std::size_t bytes = sizeof found + of_map(found.resource) + found.crash.stack.size() + found.problem.size();
  for (const InterruptedSpan& span : found.interrupted) bytes += sizeof span + span.name.size() + of_map(span.attributes);
  return bytes;
}

// Who has something to get from a dead process's journal.
std::vector<std::pair<std::string, Signal>> waiting_in(const journal::Journal& left) {
  std::vector<std::pair<std::string, Signal>> waiting;
  for (const auto& [name, signal, done] : left.cursors()) {
    if (!done) waiting.emplace_back(name, signal);
  }
  return waiting;
}

// What one ring holds is written in one piece.
std::size_t segment_bytes(const JournalConfig& journal, const RecorderConfig& recorder) {
  return std::max(journal.segment_bytes, 2 * recorder.ring_bytes);
}

void check(const JournalConfig& journal, const RecorderConfig& recorder) {
  if (journal.segment_bytes < (1u << 20) || journal.segment_bytes > (1u << 30)) {
    throw Error(ErrorCode::invalid_argument, "journal.segment_bytes: " + std::to_string(journal.segment_bytes) +
                                                 ": expected 1048576 to 1073741824");
  }
  if (journal.fsync == Fsync::interval &&
      (journal.fsync_interval <= std::chrono::nanoseconds(0) || journal.fsync_interval > std::chrono::hours(24))) {
    throw Error(ErrorCode::invalid_argument, "journal.fsync_interval: expected more than 0 and at most a day");
  }
  // With one, there would be no room before its last record is delivered.
  const std::size_t least = 2 * segment_bytes(journal, recorder);
  if (journal.max_bytes < least || journal.memory_bytes < least) {
    throw Error(ErrorCode::invalid_argument,
                "journal.max_bytes and journal.memory_bytes: expected at least two segments (" + std::to_string(least) +
                    " bytes: a segment is journal.segment_bytes, and at least twice recorder.ring_bytes)");
  }
}

void check(const MetricConfig& metrics) {
  const auto refuse = [](const std::string& why) { return Error(ErrorCode::invalid_argument, "metrics." + why); };
  if (metrics.interval < std::chrono::milliseconds(1) || metrics.interval > std::chrono::hours(24 * 365)) {
    throw refuse("interval: expected 1 ms to a year");
  }
  if (metrics.cardinality_limit < 1 || metrics.cardinality_limit > 1'000'000) {
    throw refuse("cardinality_limit: " + std::to_string(metrics.cardinality_limit) + ": expected 1 to 1000000");
  }
  if (metrics.default_histogram == Aggregation::drop || metrics.default_histogram == Aggregation::sum ||
      metrics.default_histogram == Aggregation::last_value) {
    throw refuse("default_histogram: expected standard, explicit_histogram or exponential_histogram");
  }
  for (std::size_t i = 0; i < metrics.views.size(); ++i) {
    const View& view = metrics.views[i];
    const std::string place = "views[" + std::to_string(i) + "].";
    if (!view.name.empty() && (view.select.name.empty() || view.select.name.find_first_of("*?") != std::string::npos)) {
      throw refuse(place + "name: '" + view.name + "' would be the name of several streams; expected a selector that names one "
                   "instrument, without * and ?");
    }
    if (view.max_buckets < 2 || view.max_buckets > 1024) throw refuse(place + "max_buckets: expected 2 to 1024");
    if (view.max_scale < metric::kMinimumScale || view.max_scale > metric::kMaximumScale) {
      throw refuse(place + "max_scale: expected -10 to 20");
    }
    if (view.cardinality_limit > 1'000'000) throw refuse(place + "cardinality_limit: expected at most 1000000");
    for (std::size_t b = 0; b < view.boundaries.size(); ++b) {
      if (!std::isfinite(view.boundaries[b]) || (b > 0 && !(view.boundaries[b - 1] < view.boundaries[b]))) {
        throw refuse(place + "boundaries: expected finite numbers, each greater than the one before it");
      }
    }
  }
}

}  // namespace

namespace {

// What a child of fork leaves alone, in sight of a leak checker.
template <class Parts>
void abandon(const Parts* parts) {
  static constinit std::atomic<const Parts*> last{nullptr};
  const_cast<Parts*>(parts)->next_abandoned = last.exchange(parts, std::memory_order_acq_rel);
}

}  // namespace

struct Telemetry::Core::Plan {
  Config config;
};

struct Telemetry::Core::Handles {
  detail::Recording recording;
  ScopeList scopes;
  // As of the last call that changed something; null: not started, or shut down. One that was replaced stays as it is.
  std::atomic<const Plan*> plan{nullptr};
  std::atomic<bool> observes_process{false};  // once for all processes: callbacks come through a fork
  std::atomic<bool> observes_itself{false};
};

struct Telemetry::Core::Parts {
  Parts(Handles& shared, std::uint32_t process) : handles(shared), generation(process) {}

  Handles& handles;
  const std::uint32_t generation;     // of the process that this belongs to
  const Parts* abandoned = nullptr;   // in a child of fork: the parent's, left alone
  const Parts* next_abandoned = nullptr;
  detail::Recording& recording = handles.recording;
  ScopeList& scopes = handles.scopes;
  Diagnostics diagnostics;
  Clock clock;
  Config config;
  journal::Hook hook{diagnostics};
  const pid_t owner = getpid();

  std::mutex beginning;      // one thread of a child begins again; taken before `mutex`
  mutable std::mutex mutex;  // guards what follows; never held while waiting for a destination
  std::vector<std::unique_ptr<const Plan>> plans;
  bool started = false;
  bool stopped = false;
  bool ended = false;  // the shutdown that began with `stopped` has its answer
  bool clean = true;   // the answer
  std::condition_variable has_ended;
  std::vector<OnRecovered> on_recovered;
  std::deque<Recovered> reports;  // told to a callback that comes later; the newest, as many as the two limits allow
  std::size_t report_bytes = 0;
  static constexpr std::size_t kMaximumReports = 1000;
  static constexpr std::size_t kMaximumReportBytes = 4 << 20;

  journal::OwnedHome home;
  std::unique_ptr<journal::Recorder> recorder;
  std::shared_ptr<journal::Journal> journal;
  std::unique_ptr<journal::Collector> collector;
  std::unique_ptr<metric::Aggregator> aggregator;
  std::unique_ptr<metric::Periodic> periodic;  // where there is a destination of metrics; guarded by mutex until it ends
  SelfMetrics self;                            // the collection's
  std::mutex destinations_mutex;  // guards the map; destinations live until the end
  std::map<std::pair<std::string, Signal>, std::unique_ptr<Destination>> destinations;
  std::array<std::vector<Destination*>, kSignals> by_signal;

  struct Dead {
    std::shared_ptr<journal::RecoveredJournal> recovered;
    std::shared_ptr<journal::Source> source;  // its journal, and with it all of `recovered`
    std::size_t readers = 0;  // destinations that have it, and whoever is about to give it to them
  };
  // One recovery at a time. A flush waits for its turn no longer than it may.
  std::mutex turn_mutex;
  std::condition_variable turn_free;
  bool recovering = false;       // guarded by turn_mutex
  std::thread::id recoverer;     // guarded by turn_mutex
  bool dead_closed = false;        // guarded by dead_mutex; a shutdown takes no more of them
  std::atomic<bool> ending{false};  // a shutdown has begun: no other look for dead siblings
  std::atomic<Deadline> recover_until{Deadline::max()};  // what is not recovered by then is for the next start
  std::mutex dead_mutex;
  std::condition_variable dead_done;
  std::vector<std::shared_ptr<Dead>> dead;  // open; at most most_open_dead()
  static constexpr std::size_t kMaximumOpenDead = 8;
  // Of journal.max_bytes: what dead processes' recorders may take before they are recovered ahead of everything else.
  static constexpr std::size_t kUnrecoveredPart = 4;
  journal::SiblingWatch* told_of_room = nullptr;  // guarded by dead_mutex
  // Recovered, waiting for room, and who has something to get from each; theirs who has the turn.
  using Waiting = std::vector<std::pair<std::string, Signal>>;
  std::map<std::string, Waiting> later;
  std::string opened_last;  // as `later`; the next look goes on behind it, so that each has its turn
  std::atomic<std::size_t> waiting_dead{0};       // how many these are
  std::set<std::string> nobodys;                  // recovered, and closed again: we have no destination for them; as `later`
  std::atomic<bool> new_destination{false};       // there may be one for them now
  std::unique_ptr<journal::SiblingWatch> watch;

  void attach(ScopeEntry& entry) const {
    const NoFileSizeSignal quiet;
    entry.tracer.scope = journal->add_scope(entry.scope);
    entry.logger.scope = entry.tracer.scope;
    entry.meter.scope = entry.tracer.scope;
    refresh(entry);
  }
  void refresh(ScopeEntry& entry) const {
    const bool on = recording.on.load(std::memory_order_relaxed);
    const bool traces = on && !by_signal_empty(Signal::traces);
    entry.tracer.recording.store(traces, std::memory_order_release);
    entry.logger.minimum.store(on ? recording.minimum_severity.load(std::memory_order_relaxed) : std::uint8_t{255},
                               std::memory_order_release);
    detail::for_each_instrument(entry.meter, [](detail::InstrumentState& instrument) { detail::refresh(instrument); });
  }
  [[nodiscard]] bool by_signal_empty(Signal signal) const { return by_signal[static_cast<std::size_t>(signal)].empty(); }

  [[nodiscard]] journal::Totals totals() const {
    journal::Totals t;
    t.offered = recorder->offered();
    t.refused = recorder->refused();
    t.waiting = recorder->waiting();
    for (const auto& lane : recorder->lanes()) {
      const auto& drained = lane->shared->drained[lane->shared->active.load(std::memory_order_acquire)];
      for (std::size_t s = 0; s < kSignals; ++s) t.hook_dropped[s] += drained.hook_dropped[s];
    }
    return t;
  }

  void start(Config wanted);
  bool begin_again() noexcept;
  void remember();
  void forget();
  void switch_off();
  std::string open();
  void undo();
  void add(std::vector<DestinationConfig> all);
  void add_one(DestinationConfig destination, std::unique_ptr<Destination> made);
  void recover_urgent();
  std::size_t recover(Deadline deadline = Deadline::max());
  std::size_t recover_all(Deadline deadline);
  bool room_for_dead(const Waiting& waiting);
  void close_unread();
  std::size_t most_open_dead();
  bool wanted(const Waiting& waiting, bool now);
  void look_for_dead();
  void trim();
  void read_dead(const std::shared_ptr<Dead>& dead_one, Destination& destination);
  void source_done(const std::shared_ptr<journal::Source>& source);
  bool flush(Deadline deadline);
  bool deliver(Deadline deadline);
  bool flush_once(Deadline deadline);
  std::vector<Destination*> all_destinations();
  void hurry();
  bool shutdown(std::chrono::nanoseconds timeout);
  bool deliver_and_close(std::chrono::nanoseconds timeout, Deadline deadline);
  bool wait_for_end(std::unique_lock<std::mutex>& lock, Deadline deadline);
  bool wait_for_recovery(Deadline deadline);
  [[nodiscard]] bool recovers_elsewhere();
  void report(const Recovered& found);
  void update_severity();
  void refresh_all();
  void set_metrics(const MetricConfig& wanted);
  void begin_collecting();
  void collect_metrics();
  void collect_recorded(const char* when);
  void for_each_meter(const std::function<void(detail::MeterState&)>& each);
  void put_metric(std::uint16_t scope, std::string_view body);
  [[nodiscard]] Stats stats();
  ScopeEntry& entry_of(std::string_view name, std::string_view version, std::string_view schema_url, Attributes attributes);
  ScopeEntry& known_entry(journal::Scope scope, std::string_view name, std::string_view version, std::string_view schema_url);
  [[nodiscard]] journal::Identity identity() const;
};

journal::Identity Telemetry::Core::Parts::identity() const {
  journal::Identity identity;
  identity.version = journal::kLayoutVersion;
  identity.memory = home.home.memory;
  identity.boot = boot_id();
  identity.process_id = static_cast<std::uint64_t>(owner);
  identity.started_ns = recorder->header().started_ns;
  identity.service = config.resource.service_name();
  identity.hook = hook.present();
  struct stat s {};
  if (::lstat((home.home.memory + "/recorder").c_str(), &s) == 0) identity.recorder_inode = s.st_ino;
  return identity;
}

void Telemetry::Core::Parts::start(Config wanted) {
  check(wanted.journal, wanted.recorder);
  check(wanted.metrics);
  for (const DestinationConfig& d : wanted.destinations) check(d, wanted.resource);
  transport::initialize();
  std::string said;
  {
    const HeldMessages held;
    const std::scoped_lock lock(mutex);
    if (started) throw Error(ErrorCode::invalid_argument, "Telemetry: started already");
    config = std::move(wanted);
    if (recovery_is_others) config.recover_siblings = false;
    diagnostics.set_level(config.diagnostics);
    if (config.error_handler) diagnostics.set_handler(config.error_handler);
    clock = Clock(config.clock);
    if (config.disabled) {
      started = true;
      return;
    }
    config.journal.segment_bytes = segment_bytes(config.journal, config.recorder);
    if (config.on_record) hook.set(config.on_record);
    if (config.on_recovered) on_recovered.push_back(config.on_recovered);
  }
  recover_urgent();
  {
    const HeldMessages held;
    const std::scoped_lock lock(mutex);
    try {
      said = open();
    } catch (...) {
      undo();
      if (config.on_recovered) on_recovered.pop_back();
      throw;
    }
    started = true;
    recording.on.store(true, std::memory_order_release);
    scopes.for_each([&](ScopeEntry& entry) { attach(entry); });
    refresh_all();
    remember();
    // From here on the handles record into what stands above.
    recording.generation.store(generation, std::memory_order_release);
  }
  // A handler may ask for whatever it likes: nothing is locked.
  if (!said.empty()) diagnostics.say(DiagnosticLevel::warning, said);
  if (!home.home.state.empty() && config.recover_siblings) {
    auto made = std::make_unique<journal::SiblingWatch>(config.state_directory, [this] { recover(); }, diagnostics);
    const std::scoped_lock lock(mutex);
    if (!stopped) {
      watch = std::move(made);
      const std::scoped_lock dead_lock(dead_mutex);
      told_of_room = watch.get();
    }
  }
}

// What the parent had, begun anew in a child of fork. False: there is nothing to begin, or it could not be had.
bool Telemetry::Core::Parts::begin_again() noexcept {
  // A handler of the user's may record while we begin: that record is nobody's.
  static constinit thread_local bool beginning_here = false;
  if (beginning_here) return false;
  const std::scoped_lock one(beginning);
  const Plan* plan = nullptr;
  {
    const std::scoped_lock lock(mutex);
    if (started || stopped) return started && !stopped;
    plan = handles.plan.load(std::memory_order_acquire);
  }
  if (plan == nullptr) return false;
  beginning_here = true;
  bool good = true;
  try {
    Config own = plan->config;
    if (own.resource.find("process.pid") != nullptr) own.resource.set("process.pid", AnyValue{std::int64_t{owner}});
    if (own.instance_id_made_up) own.resource.set("service.instance.id", AnyValue{random_uuid()});
    // What siblings leave is the parent's to recover, or the next start's: who is to hear of it, a store say, holds what can't
    // be used on both sides of a fork.
    own.recover_siblings = false;
    own.on_recovered = {};
    start(std::move(own));
  } catch (const std::exception& e) {
    diagnostics.say(DiagnosticLevel::error, std::string("in a child of fork nothing is recorded: ") + e.what());
    const std::scoped_lock lock(mutex);
    stopped = true;
    ended = true;
    switch_off();
    good = false;
  }
  beginning_here = false;
  return good;
}

// With `mutex` held, after every change that a child of fork should know of.
void Telemetry::Core::Parts::remember() {
  plans.push_back(std::make_unique<const Plan>(Plan{config}));
  handles.plan.store(plans.back().get(), std::memory_order_release);
}

// With `mutex` held: a child of fork begins nothing.
void Telemetry::Core::Parts::forget() { handles.plan.store(nullptr, std::memory_order_release); }

void Telemetry::Core::Parts::switch_off() {
  recording.metrics_on.store(false, std::memory_order_seq_cst);
  scopes.for_each([](ScopeEntry& entry) {
    detail::for_each_instrument(entry.meter, [](detail::InstrumentState& instrument) {
      instrument.recording.store(false, std::memory_order_release);
    });
    entry.tracer.recording.store(false, std::memory_order_release);
    entry.logger.minimum.store(255, std::memory_order_release);
  });
}

// Everything that start() needs from outside, with `mutex` held. Returns why there is no state directory, where one was
// asked for.
std::string Telemetry::Core::Parts::open() {
  const NoFileSizeSignal quiet;
  std::string said;
  const auto make = [&](RecorderConfig::Place place) {
    home = journal::create_home(config.state_directory, place);
    const std::string& memory = home.home.memory;
    recorder = journal::Recorder::create(config.recorder, memory.empty() ? "" : memory + "/recorder", clock.now());
    if (home.home.state.empty() || !home.why_no_disk.empty() ||
        journal::write_identity(home.home, identity(), config.journal.fsync != Fsync::never)) {
      return;
    }
    const int error = errno;
    const Error refused(ErrorCode::state_directory, "state directory " + config.state_directory + ": cannot be written: " +
                                                        errno_text(error) + "; " + std::string(errno_advice(error)));
    if (!journal::leave_disk(home, error, refused.what())) throw refused;
  };
  bool tmpfs_refused = false;
  const auto could_make = [&](RecorderConfig::Place place) {
    try {
      make(place);
      return true;
    } catch (const Error& e) {
      if (config.state_directory.empty()) throw;
      if (!said.empty()) said += "; ";
      said += e.what();
      tmpfs_refused = !home.home.state.empty() && home.home.memory != home.home.state;
      undo();
      return false;
    }
  };
  if (could_make(config.recorder.place)) {
    said = !home.why_no_disk.empty() ? home.why_no_disk + "; telemetry stays in memory until it can be written"
                                     : home.why_no_tmpfs;
  } else if (tmpfs_refused && could_make(RecorderConfig::Place::state)) {
    said += "; what would be there lies in the state directory";
  } else {
    config.state_directory.clear();
    make(config.recorder.place);
    said += "; telemetry stays in memory and dies with the process";
  }
  journal = std::make_shared<journal::Journal>(home.home, config.journal, diagnostics, [this] { return totals(); });
  journal->on_vanished([this] {
    return journal::restore_home(home, config.state_directory, identity(), config.journal.fsync != Fsync::never);
  });
  journal->on_readable([this](const journal::Journaled& round) {
    const std::scoped_lock lock(destinations_mutex);
    for (std::size_t s = 0; s < kSignals; ++s) {
      if (round.records[s] == 0) continue;
      for (Destination* d : by_signal[s]) d->wake(round.records[s], round.bytes[s]);
    }
  });
  std::string resource;
  for (const auto& [key, value] : config.resource.attributes()) otlp::append_attribute(resource, 0x0a, key, value);
  journal->set_resource(std::move(resource));

  recording.recorder = recorder.get();
  recording.diagnostics = &diagnostics;
  recording.clock = &clock;
  recording.sampler = config.sampler;
  recording.never_roots = config.sampler.kind == SamplerKind::always_off || config.sampler.kind == SamplerKind::parentbased_always_off;
  recording.ratio_threshold = detail::ratio_threshold(config.sampler.ratio);
  recording.span_limits = config.span_limits;
  recording.log_limits = config.log_limits;
  recording.small_values = config.span_limits.attribute_value_length >= otlp::kSmallValue;
  recording.logs_as_span_events.store(config.logs_as_span_events, std::memory_order_relaxed);
  aggregator = std::make_unique<metric::Aggregator>(config.metrics, clock, diagnostics);
  recording.metrics = aggregator.get();
  collector = std::make_unique<journal::Collector>(*recorder, *journal, hook, clock, [this](const journal::Journaled& round) {
    journal->announce(round);
  });
  add(std::vector<DestinationConfig>(config.destinations));
  return said;
}

// As if open() had not been called; with `mutex` held.
void Telemetry::Core::Parts::undo() {
  collector.reset();
  recording.metrics = nullptr;
  aggregator.reset();
  {
    const std::scoped_lock lock(destinations_mutex);
    for (auto& list : by_signal) list.clear();
  }
  destinations.clear();
  journal.reset();
  recorder.reset();
  recording.recorder = nullptr;
  if (!home.home.state.empty()) {
    journal::remove_memory(home.home);
    remove_tree(home.home.state);
  }
  home = {};
}

// All or none, with `mutex` held: what can be wrong with any is found before the first of them is live.
void Telemetry::Core::Parts::add(std::vector<DestinationConfig> all) {
  std::vector<std::unique_ptr<Destination>> made;
  for (const DestinationConfig& destination : all) {
    check(destination, config.resource);
    delivery::DestinationHooks hooks;
    hooks.on_source_done = [this](const std::shared_ptr<journal::Source>& source) { source_done(source); };
    hooks.on_failing = [this] { look_for_dead(); };
    hooks.on_settled = [this, name = destination.name, signal = destination.signal](std::chrono::nanoseconds took,
                                                                                    std::string_view error) {
      self.exported(name, signal, took, error);
    };
    made.push_back(std::make_unique<Destination>(destination, diagnostics, std::move(hooks)));
  }
  for (std::size_t i = 0; i < all.size(); ++i) add_one(std::move(all[i]), std::move(made[i]));
}

// `made`: what becomes of it, where there is none of its name and signal yet; else its settings are what counts.
void Telemetry::Core::Parts::add_one(DestinationConfig destination, std::unique_ptr<Destination> made) {
  self.know(destination);
  const auto key = std::make_pair(destination.name, destination.signal);
  Destination* fresh = nullptr;
  std::vector<std::shared_ptr<Dead>> waiting;
  {
    std::unique_lock lock(destinations_mutex);
    if (const auto found = destinations.find(key); found != destinations.end()) {
      Destination& there = *found->second;
      lock.unlock();
      const bool was_enabled = there.enabled();
      there.replace(std::move(*made));
      if (!was_enabled && destination.enabled) {
        // What it let go of, or was not given, while it was disabled.
        std::vector<std::shared_ptr<Dead>> open;
        {
          const std::scoped_lock dead_lock(dead_mutex);
          open = dead;
        }
        for (const auto& d : open) read_dead(d, there);
        new_destination = true;
        look_for_dead();
      }
      for (DestinationConfig& d : config.destinations) {
        if (d.name == destination.name && d.signal == destination.signal) d = destination;
      }
      update_severity();
      if (started) remember();
      return;
    }
    fresh = made.get();
    fresh->add_source(journal, true);
    destinations.emplace(key, std::move(made));
    by_signal[static_cast<std::size_t>(destination.signal)].push_back(fresh);
    // What is recovered from here on finds it in the map; what was before is read below. Each once.
    const std::scoped_lock dead_lock(dead_mutex);
    waiting = dead;
  }
  if (std::none_of(config.destinations.begin(), config.destinations.end(), [&](const DestinationConfig& d) {
        return d.name == destination.name && d.signal == destination.signal;
      })) {
    config.destinations.push_back(destination);
  }
  update_severity();
  if (started) remember();
  for (const auto& d : waiting) read_dead(d, *fresh);
  new_destination = true;
  look_for_dead();
}

void Telemetry::Core::Parts::update_severity() {
  std::uint8_t minimum = 255;
  bool lossless = false;
  for (const DestinationConfig& d : config.destinations) {
    if (!d.enabled) continue;
    lossless = lossless || !d.lossy;
    if (d.signal == Signal::logs) minimum = std::min(minimum, static_cast<std::uint8_t>(d.minimum_severity));
  }
  recording.minimum_severity.store(minimum, std::memory_order_relaxed);
  recorder->set_waiting(lossless, config.journal.block_timeout);
  refresh_all();
}

// With `mutex` held, after the destinations have changed.
void Telemetry::Core::Parts::refresh_all() {
  const bool on = recording.on.load(std::memory_order_relaxed);
  const bool collects = std::any_of(config.destinations.begin(), config.destinations.end(),
                                    [](const DestinationConfig& d) { return d.signal == Signal::metrics && d.enabled; });
  recording.metrics_on.store(on && collects, std::memory_order_seq_cst);
  scopes.for_each([&](ScopeEntry& entry) { refresh(entry); });
  if (on && collects && periodic == nullptr) begin_collecting();
}

// ---- metrics

void Telemetry::Core::Parts::begin_collecting() {
  const auto meter = [this](std::string_view name) {
    return Meter(&known_entry(encode_scope(name, WAYMARK_VERSION, {}, {}), name, WAYMARK_VERSION, {}).meter);
  };
  if (config.metrics.process && !handles.observes_process.exchange(true)) metric::observe_process(meter("waymark.process"));
  if (config.metrics.sdk) {
    self.begin(meter("waymark.sdk"));
    auto* const core = static_cast<Core*>(recording.owner);
    if (!handles.observes_itself.exchange(true)) {
      SelfMetrics::observe(meter("waymark.sdk"), [core]() -> const SelfMetrics& { return core->parts_as_they_are().self; });
    }
  }
  periodic = std::make_unique<metric::Periodic>(config.metrics.interval, [this] { collect_metrics(); });
}

// How and how often is one thing for all destinations, and stays once there is one.
void Telemetry::Core::Parts::set_metrics(const MetricConfig& wanted) {
  check(wanted);
  if (wanted == config.metrics) return;
  if (!by_signal_empty(Signal::metrics)) {
    throw Error(ErrorCode::invalid_argument,
                "metrics: they are collected already, and how is the same for all destinations; give interval, temporality, "
                "views and what else is asked of the collection to the first call that configures metrics");
  }
  config.metrics = wanted;
  if (aggregator) aggregator->configure(wanted);
}

// On the collection's thread.
void Telemetry::Core::Parts::collect_metrics() {
  const NoFileSizeSignal quiet;
  const auto begin = std::chrono::steady_clock::now();
  if (config.metrics.sdk) self.look(stats());
  aggregator->collect([this](const auto& each) { for_each_meter(each); },
                      [this](std::uint16_t scope, std::string_view body) { put_metric(scope, body); });
  if (config.metrics.sdk) self.collected(std::chrono::steady_clock::now() - begin);
}

// Oldest first, so that what is told stands in the same order each time.
void Telemetry::Core::Parts::for_each_meter(const std::function<void(detail::MeterState&)>& each) {
  std::vector<ScopeEntry*> entries;
  scopes.for_each([&](ScopeEntry& entry) { entries.push_back(&entry); });
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) each((*entry)->meter);
}

// In the place of a collection that did not end in time, on the thread of whoever waited for it: what is recorded is told
// whatever a callback does, and whose callback it is is said.
void Telemetry::Core::Parts::collect_recorded(const char* when) {
  const std::string called = aggregator->in_callback();
  if (called.empty()) {
    diagnostics.say_limited("collection", DiagnosticLevel::warning,
                            std::string("the metrics' collection ") + when + " did not end in time");
    return;
  }
  const NoFileSizeSignal quiet;
  aggregator->collect_recorded([this](const auto& each) { for_each_meter(each); },
                               [this](std::uint16_t scope, std::string_view body) { put_metric(scope, body); });
  diagnostics.say_limited("collection", DiagnosticLevel::warning,
                          std::string("the metrics' collection ") + when + " did not end in time: the callback of instrument " +
                              called + " has not returned. What is recorded is sent, what is observed is not");
}

// A collection may be larger than a ring: it waits for the collector, which does not wait for it. Where the journal has no room,
// it waits as any writer does.
void Telemetry::Core::Parts::put_metric(std::uint16_t scope, std::string_view body) {
  if (!recording.on.load(std::memory_order_acquire)) {
    recorder->refuse(Signal::metrics);  // of a collection that did not end before the shutdown
    return;
  }
  const std::size_t framed = otlp::field_size(body.size());
  journal::Lane& lane = *recorder->lane();
  const auto may_have_room = [&] {
    return framed > journal::kMaximumRecordBytes ||  // it never has
           lane.head - lane.shared->tail.load(std::memory_order_acquire) + framed + 64 <= lane.ring_bytes / 2;
  };
  const Deadline deadline = deadline_after(recorder->writers_wait() && !ending ? config.journal.block_timeout : std::chrono::milliseconds(100));
  if (lane.is_shared) lane.lock.lock();
  for (auto now = std::chrono::steady_clock::now(); !may_have_room() && now < deadline; now = std::chrono::steady_clock::now()) {
    if (lane.is_shared) lane.lock.unlock();
    // Others may go on writing to other lanes: ours is looked at between.
    static_cast<void>(collector->flush(std::min(deadline, now + std::chrono::milliseconds(20))));
    if (lane.is_shared) lane.lock.lock();
  }
  char* const p = recorder->ring_reserve(lane, Signal::metrics, scope, framed);
  if (p != nullptr) {
    otlp::put_field(p, 0x12, body);
    recorder->publish(lane);
  }
  if (lane.is_shared) lane.lock.unlock();
}

// ---- recovery

void Telemetry::Core::Parts::report(const Recovered& found) {
  std::vector<OnRecovered> callbacks;
  {
    const std::scoped_lock lock(mutex);
    callbacks = on_recovered;
    reports.push_back(found);
    report_bytes += bytes_of(found);
    while (reports.size() > kMaximumReports || (report_bytes > kMaximumReportBytes && reports.size() > 1)) {
      report_bytes -= bytes_of(reports.front());
      reports.pop_front();
    }
  }
  diagnostics.say(DiagnosticLevel::info,
                  "recovered what process " + std::to_string(found.process_id) + " left in " + found.directory + ": " +
                      std::to_string(found.finished_spans) + " finished spans, " + std::to_string(found.log_records) +
                      " log records, " + std::to_string(found.interrupted.size()) + " interrupted spans" +
                      (found.crash.message.empty() ? "" : "; it died of " + found.crash.message));
  for (const OnRecovered& callback : callbacks) {
    try {
      const ProgramCode code;
      callback(found);
    } catch (const std::exception& e) {
      diagnostics.say(DiagnosticLevel::error, std::string("on_recovered threw ") + e.what());
    } catch (...) {
      diagnostics.say(DiagnosticLevel::error, "on_recovered threw");
    }
  }
}

// Before this process has anything of its own, and its program a chance to crash: each death of a loop leaves a recorder, and
// a directory during whose recovery the program died by itself again and again would at last be taken for a bad one.
void Telemetry::Core::Parts::recover_urgent() {
  if (config.state_directory.empty() || !config.recover_siblings) return;
  const NoFileSizeSignal quiet;
  const std::vector<std::string> urgent =
      journal::urgent_homes(config.state_directory, config.journal.max_bytes / kUnrecoveredPart);
  for (const std::string& id : urgent) {
    // What it has to send waits, as every one's does, until the destinations are there.
    (void)journal::recover_directory(config.state_directory, id, config.journal, hook, diagnostics,
                                     [this](const Recovered& found) { report(found); });
  }
  if (!urgent.empty()) trim();
}

std::size_t Telemetry::Core::Parts::recover(Deadline deadline) {
  const NoFileSizeSignal quiet;
  if (home.home.state.empty() || ending) return 0;
  {
    std::unique_lock lock(turn_mutex);
    // A handler that is told of a recovery may ask for one.
    if (recovering && recoverer == std::this_thread::get_id()) return 0;
    if (!turn_free.wait_until(lock, deadline, [&] { return !recovering; })) return 0;
    recovering = true;
    recoverer = std::this_thread::get_id();
  }
  struct Turn {
    Parts& parts;
    ~Turn() {
      // A callback has forked, and this is the child: none of this is its own.
      if (parts.generation != seen_generation()) return;
      const std::scoped_lock lock(parts.turn_mutex);
      parts.recovering = false;
      parts.turn_free.notify_all();
    }
  };
  const Turn turn{*this};
  return recover_all(deadline);
}

// A directory that is being recovered is finished whatever the deadline says; what is behind it is left for the next time.
std::size_t Telemetry::Core::Parts::recover_all(Deadline deadline) {
  journal::sweep_orphans();
  std::size_t taken = 0;
  std::size_t untrimmed = 0;
  if (new_destination.exchange(false)) nobodys.clear();
  std::vector<std::string> homes = journal::list_homes(config.state_directory);
  std::erase_if(later, [&](const auto& entry) { return !std::binary_search(homes.begin(), homes.end(), entry.first); });
  std::rotate(homes.begin(), std::upper_bound(homes.begin(), homes.end(), opened_last), homes.end());
  // What somebody can be sent now goes before what waits for a backend.
  std::stable_partition(homes.begin(), homes.end(), [&](const std::string& id) {
    const auto waits = later.find(id);
    return waits == later.end() || wanted(waits->second, true);
  });
  for (const std::string& id : homes) {
    if (std::chrono::steady_clock::now() >= std::min(deadline, recover_until.load())) break;
    if (id == home.home.id || nobodys.contains(id)) continue;
    const auto waits = later.find(id);
    const bool known = waits != later.end();
    if (known && !room_for_dead(waits->second)) continue;
    std::shared_ptr<journal::RecoveredJournal> recovered = journal::recover_directory(
        config.state_directory, id, config.journal, hook, diagnostics, [this](const Recovered& found) { report(found); });
    // A callback has forked, and this is the child: none of this is its own.
    if (generation != seen_generation()) return 0;
    if (known) later.erase(id);
    if (!recovered) continue;
    if (!known) ++taken;
    // A crash loop's leavings may be more than a disk holds.
    if (++untrimmed % kMaximumOpenDead == 0) trim();
    if (!known) {
      // What happened is told, and its spans are closed: what it has to send waits for its turn, with no file open.
      Waiting waiting = waiting_in(*recovered->journal);
      if (!room_for_dead(waiting)) {
        later.emplace(id, std::move(waiting));
        continue;
      }
    }
    opened_last = id;
    auto dead_one = std::make_shared<Dead>();
    dead_one->source = std::shared_ptr<journal::Source>(recovered, recovered->journal.get());
    dead_one->recovered = std::move(recovered);
    dead_one->readers = 1;  // us, until all destinations have it
    std::vector<Destination*> all;
    {
      const std::scoped_lock lock(destinations_mutex, dead_mutex);
      // A shutdown delivers and lets go of those that it finds; one that came after it would be nobody's.
      if (dead_closed) break;
      for (const auto& [key, destination] : destinations) all.push_back(destination.get());
      dead.push_back(dead_one);
    }
    for (Destination* d : all) read_dead(dead_one, *d);
    source_done(dead_one->source);
  }
  waiting_dead = later.size();
  if (!ending) trim();
  return taken;
}

// Whether another dead process's journal may be opened, which these destinations have something to get from: each takes
// descriptors and buffers. Where others wait, those give way that nobody reads; and where one waits that can be delivered,
// those too that are read by destinations only whose backends fail. By whoever has the turn.
bool Telemetry::Core::Parts::room_for_dead(const Waiting& waiting) {
  const std::size_t most = most_open_dead();
  const auto room = [&] {
    const std::scoped_lock lock(dead_mutex);
    return dead.size() < most;
  };
  if (room()) return true;
  close_unread();
  if (room() || !wanted(waiting, true)) return room();
  std::vector<std::shared_ptr<Dead>> open;
  std::vector<Destination*> all;
  {
    const std::scoped_lock lock(destinations_mutex, dead_mutex);
    open = dead;
    for (const auto& [key, destination] : destinations) all.push_back(destination.get());
  }
  for (const auto& d : open) {
    for (Destination* destination : all) {
      if (destination->give_back(d->source)) source_done(d->source);
    }
  }
  open.clear();
  close_unread();
  return room();
}

// Closes what nobody reads. By whoever has the turn.
void Telemetry::Core::Parts::close_unread() {
  std::vector<std::shared_ptr<Dead>> closed;
  {
    const std::scoped_lock lock(dead_mutex);
    std::erase_if(dead, [&](const auto& d) {
      if (d->readers > 0) return false;
      closed.push_back(d);
      return true;
    });
  }
  for (const auto& d : closed) {
    Waiting waiting = waiting_in(*d->recovered->journal);
    if (wanted(waiting, false)) {
      later.emplace(d->recovered->home.id, std::move(waiting));
    } else {
      nobodys.insert(d->recovered->home.id);
    }
  }
  waiting_dead = later.size();
}

// A destination whose backend fails keeps one at most where others wait: with these, one at least is free for the rest.
std::size_t Telemetry::Core::Parts::most_open_dead() {
  const std::scoped_lock lock(destinations_mutex);
  return std::max(kMaximumOpenDead, destinations.size() + 1);
}

// Whether a destination that we have and that is enabled is among them; `now`: and whose backend does not fail.
bool Telemetry::Core::Parts::wanted(const Waiting& waiting, bool now) {
  const std::scoped_lock lock(destinations_mutex);
  return std::any_of(waiting.begin(), waiting.end(), [&](const auto& key) {
    const auto found = destinations.find(key);
    return found != destinations.end() && found->second->enabled() && !(now && found->second->failing());
  });
}

// There may be room for one that waits, or one that waits has become more urgent than one that is open.
void Telemetry::Core::Parts::look_for_dead() {
  const std::scoped_lock lock(dead_mutex);
  if (told_of_room != nullptr) told_of_room->look();
}

// Dead processes' directories together take at most max_bytes. By whoever has the turn.
void Telemetry::Core::Parts::trim() {
  std::vector<std::shared_ptr<Dead>> open;
  std::set<std::string> ours;
  {
    const std::scoped_lock lock(dead_mutex);
    open = dead;
  }
  for (const auto& d : open) ours.insert(d->recovered->home.id);
  std::uint64_t excess = journal::trim_dead(config.state_directory, config.journal.max_bytes, ours, diagnostics);
  for (const auto& d : open) excess -= std::min(excess, excess > 0 ? d->recovered->journal->give_up(excess) : 0);
}

void Telemetry::Core::Parts::read_dead(const std::shared_ptr<Dead>& dead_one, Destination& destination) {
  {
    const std::scoped_lock lock(dead_mutex);
    ++dead_one->readers;
  }
  if (!destination.add_source(dead_one->source, false)) source_done(dead_one->source);
}

// The last one to have read a dead source closes it; where somebody's cursor still waits, it stays for a later destination,
// or gives way to another.
void Telemetry::Core::Parts::source_done(const std::shared_ptr<journal::Source>& source) {
  std::shared_ptr<Dead> finished;
  {
    const std::scoped_lock lock(dead_mutex);
    const auto found = std::find_if(dead.begin(), dead.end(), [&](const auto& d) { return d->source == source; });
    if (found == dead.end()) return;
    const bool unread = --(*found)->readers == 0;
    if (waiting_dead > 0 && told_of_room != nullptr) told_of_room->look();
    if (!unread) return;
    dead_done.notify_all();
    const auto cursors = (*found)->recovered->journal->cursors();
    if ((*found)->recovered->journal->extent().cursors_missing) return;  // nobody knows who has got what
    if (std::any_of(cursors.begin(), cursors.end(), [](const auto& c) { return !c.done; })) return;
    finished = *found;
    dead.erase(found);
  }
  const bool done = journal::finish_recovered(*finished->recovered);
  if (done) finished.reset();
  const std::scoped_lock lock(dead_mutex);
  // Ours to hold while the disk can't be written: given back, it would be recovered again and again.
  if (finished && !dead_closed) dead.push_back(std::move(finished));
  dead_done.notify_all();
  if (waiting_dead > 0 && told_of_room != nullptr) told_of_room->look();
}

// ---- flush and end

// What was measured and recorded, then what dead processes have left, a few at a time, until there is no more.
bool Telemetry::Core::Parts::flush(Deadline deadline) {
  metric::Periodic* collecting = nullptr;
  {
    const std::scoped_lock lock(mutex);
    if (started && !stopped) collecting = periodic.get();
  }
  bool collected = true;
  if (collecting != nullptr) {
    // It writes, and there may be no room before somebody has read.
    if (collector->blocked()) hurry();
    const auto now = std::chrono::steady_clock::now();
    // A callback that does not return takes half of the time, and nothing else is held up by it.
    collected = collecting->collect(std::min(deadline, now + (deadline - now) / 2));
    if (!collected && !collecting->is_own_thread()) collect_recorded("for a flush");
  }
  return deliver(deadline) && collected;
}

bool Telemetry::Core::Parts::deliver(Deadline deadline) {
  for (;;) {
    // What a recovery has told of may not have been given to the destinations yet: then they are flushed once more.
    const bool again = recovers_elsewhere();
    if (!flush_once(deadline)) return false;
    if (again) {
      if (!wait_for_recovery(deadline)) return false;
      continue;
    }
    const std::size_t before = waiting_dead;
    if (before == 0) return true;
    {
      // Those that were just delivered are closed by their destinations' threads.
      std::unique_lock lock(dead_mutex);
      const auto unread = [&] { return std::count_if(dead.begin(), dead.end(), [](const auto& d) { return d->readers > 0; }); };
      if (!dead_done.wait_until(lock, deadline, [&] { return unread() < static_cast<std::ptrdiff_t>(kMaximumOpenDead); })) {
        return false;
      }
    }
    recover(deadline);
    if (std::chrono::steady_clock::now() >= deadline && waiting_dead > 0) return false;
    // Others hold them, or they can't be opened.
    if (waiting_dead >= before) return flush_once(deadline);
  }
}

// A recovery is under way, and not by this thread: what is called from within one must not wait for it.
bool Telemetry::Core::Parts::recovers_elsewhere() {
  const std::scoped_lock lock(turn_mutex);
  return recovering && recoverer != std::this_thread::get_id();
}

bool Telemetry::Core::Parts::wait_for_recovery(Deadline deadline) {
  std::unique_lock lock(turn_mutex);
  return turn_free.wait_until(lock, deadline, [&] { return !recovering; });
}

bool Telemetry::Core::Parts::flush_once(Deadline deadline) {
  {
    std::unique_lock lock(mutex);
    if (stopped) return wait_for_end(lock, deadline);
    if (!started || !recorder) return true;
  }
  // A full journal has room once destinations have read: those that wait by themselves don't while somebody waits for them.
  bool good = collector->flush(deadline, [this] { hurry(); });
  good = journal->sync(deadline) && good;
  const std::vector<Destination*> all = all_destinations();
  std::vector<Destination::Flush> flushes;
  flushes.reserve(all.size());
  for (Destination* d : all) flushes.push_back(d->begin_flush());
  for (std::size_t i = 0; i < all.size(); ++i) good = all[i]->wait(flushes[i], deadline) && all[i]->acknowledged(flushes[i]) && good;
  return good;
}

std::vector<Destination*> Telemetry::Core::Parts::all_destinations() {
  std::vector<Destination*> all;
  const std::scoped_lock lock(destinations_mutex);
  for (const auto& [key, destination] : destinations) all.push_back(destination.get());
  return all;
}

// Destinations send what they have, now.
void Telemetry::Core::Parts::hurry() {
  for (Destination* d : all_destinations()) static_cast<void>(d->begin_flush());
}

// The answer of the shutdown that was begun; false where it is not there in time, or is asked for by a thread that the
// shutdown itself waits for.
bool Telemetry::Core::Parts::wait_for_end(std::unique_lock<std::mutex>& lock, Deadline deadline) {
  if (!ended && own_thread) return false;
  return has_ended.wait_until(lock, deadline, [&] { return ended; }) && clean;
}

bool Telemetry::Core::Parts::shutdown(std::chrono::nanoseconds timeout) {
  const NoFileSizeSignal quiet;
  const Deadline deadline = deadline_after(timeout);
  {
    std::unique_lock lock(mutex);
    if (stopped) return wait_for_end(lock, deadline);
    forget();
    // A child of fork that has recorded nothing records nothing from here on.
    if (!started && abandoned == nullptr) return clean;
    stopped = true;
    ending = true;
    switch_off();
  }
  const bool good = !recorder || deliver_and_close(timeout, deadline);
  const std::scoped_lock lock(mutex);
  clean = good;
  ended = true;
  has_ended.notify_all();
  return good;
}

// True if nothing is left.
bool Telemetry::Core::Parts::deliver_and_close(std::chrono::nanoseconds timeout, Deadline deadline) {
  // The rest of the time is for delivering it.
  recover_until = deadline_after(timeout / 2);
  // A callback that does not return takes half of the time, and no more.
  const bool collected = !periodic || periodic->stop(recover_until);
  if (!collected) collect_recorded("at the end");
  // A span that ends from here on stays in its block, finished, and is delivered after the next start.
  recording.on.store(false, std::memory_order_release);
  {
    const std::scoped_lock lock(dead_mutex);
    told_of_room = nullptr;
  }
  watch.reset();  // what it has told of it has also handed to the destinations
  {
    const std::scoped_lock lock(dead_mutex);
    dead_closed = true;
  }
  recorder->set_waiting(false, {});
  bool good = collector->stop(deadline) && collected;
  good = journal->sync(deadline) && good;
  const std::size_t open = recorder->open_records();
  std::vector<Destination*> all;
  {
    const std::scoped_lock lock(destinations_mutex);
    for (const auto& [key, destination] : destinations) all.push_back(destination.get());
  }
  for (Destination* d : all) d->begin_stop(deadline);
  for (Destination* d : all) d->stop(deadline);
  journal->stop_moving();
  // What is not there, since the disk refused it until now or somebody has removed it, may be had at last.
  struct stat there {};
  const auto on_disk = [&] { return !home.home.state.empty() && ::lstat(home.home.state.c_str(), &there) == 0; };
  if (!home.home.state.empty() && !on_disk()) {
    (void)journal::restore_home(home, config.state_directory, identity(), config.journal.fsync != Fsync::never);
  }
  const bool kept = on_disk();
  const char* const lost = home.home.state.empty() ? "there is no state directory" : "the state directory can't be written";
  for (Destination* d : all) {
    const DestinationStats s = d->stats();
    const std::string text = "destination " + s.name + " (" + std::string(signal_name(s.signal)) + "): " +
                             std::to_string(s.counts.offered) + " offered, " + std::to_string(s.counts.delivered) +
                             " delivered, " + std::to_string(s.counts.rejected) + " rejected, " +
                             std::to_string(s.counts.dropped) + " dropped, " + std::to_string(s.counts.filtered) +
                             " filtered, " + std::to_string(s.counts.pending) + " pending";
    const bool whole = s.counts.pending == 0 && s.counts.rejected == 0 && s.counts.dropped == 0;
    good = good && s.counts.pending == 0;
    std::string end;
    if (s.counts.pending > 0) {
      end = kept ? "; the pending ones are sent after the next start" : std::string("; the pending ones are lost: ") + lost;
    }
    diagnostics.say(whole ? DiagnosticLevel::debug : DiagnosticLevel::warning, text + end);
  }
  if (open > 0) {
    diagnostics.say(DiagnosticLevel::warning,
                    std::to_string(open) + " spans were still open at shutdown; " +
                        (kept ? "they are reported after the next start" : std::string("they are lost: ") + lost));
  }
  bool empty = true;
  if (!home.home.state.empty()) {
    const auto cursors = journal->cursors();
    const bool delivered = std::all_of(cursors.begin(), cursors.end(), [](const auto& c) { return c.done; });
    // What is still in the recorder is for whoever opens the directory next, as after a crash.
    empty = open == 0 && std::all_of(recorder->lanes().begin(), recorder->lanes().end(), [](const auto& lane) {
                         return lane->shared->head.load() == lane->shared->tail.load();
                       });
    // Where something could not be moved to the state directory, the memory stays, and the identity still names it.
    const bool counted = !empty || delivered || journal::store_totals(home.home, totals());
    if (empty && counted && journal->close()) {
      journal::Identity closed = identity();
      closed.closed = true;
      if (journal::write_identity(home.home, closed, config.journal.fsync != Fsync::never)) {
        // Nobody looks at a delivered one again: its memory goes first.
        journal::remove_memory(home.home);
        if (delivered) journal::mark_delivered(home.home.state);
      }
    }
    good = good && delivered && empty;
  }
  {
    const std::scoped_lock lock(dead_mutex);
    // For whoever recovers them next; no recovery adds one from here on. Our destinations keep the journals, and can still
    // say what they counted.
    for (const auto& d : dead) d->recovered->lock = {};
    dead.clear();
  }
  if (empty) {
    home.memory_lock = {};
    home.lock = {};
  }
  // Else a span is open in this living process: whoever took the directory would call it dead. The locks go with us.
  return good;
}

Stats Telemetry::Core::Parts::stats() {
  Stats stats;
  if (!recorder) return stats;
  const journal::SignalCounts offered = recorder->offered();
  stats.spans = offered[static_cast<std::size_t>(Signal::traces)];
  stats.log_records = offered[static_cast<std::size_t>(Signal::logs)];
  stats.metric_records = offered[static_cast<std::size_t>(Signal::metrics)];
  stats.refused_measurements = aggregator->refused();
  stats.open_spans = recorder->open_records();
  stats.journal_bytes = journal->bytes();
  stats.recorder_bytes = recorder->bytes();
  const std::scoped_lock lock(destinations_mutex);
  for (const auto& [key, destination] : destinations) stats.destinations.push_back(destination->stats());
  // What dead processes had for destinations that this Telemetry has not.
  const std::scoped_lock dead_lock(dead_mutex);
  for (const auto& d : dead) {
    journal::Journal& left = *d->recovered->journal;
    for (const auto& [name, signal, done] : left.cursors()) {
      // One that is enabled reads it, and counts it.
      const auto known = destinations.find({name, signal});
      if (done || (known != destinations.end() && known->second->enabled())) continue;
      auto entry = std::find_if(stats.destinations.begin(), stats.destinations.end(),
                                [&, n = &name, s = signal](const auto& e) { return e.name == *n && e.signal == s; });
      if (entry == stats.destinations.end()) {
        entry = stats.destinations.insert(entry, DestinationStats{.name = name, .signal = signal, .configured = false});
      }
      const std::uint64_t pending = left.counts_of(name, signal).pending;
      entry->counts.offered += pending;
      entry->counts.pending += pending;
    }
  }
  return stats;
}

// ---- Core

Telemetry::Core::Core() : handles_(std::make_unique<Handles>()), parts_(new Parts(*handles_, process_generation())) {
  handles_->recording.owner = this;
  handles_->recording.begin_again = [](void* core) noexcept {
    return static_cast<Core*>(core)->parts_as_they_are().begin_again();
  };
}

void Telemetry::Core::close() {
  Parts* const parts = parts_.load(std::memory_order_acquire);
  if (parts->generation == seen_generation()) parts->shutdown(std::chrono::seconds(5));
}

Telemetry::Core::~Core() {
  Parts* const parts = parts_.load(std::memory_order_acquire);
  // A child of fork has none of the threads that would have to be joined.
  if (parts->generation != seen_generation()) {
    abandon(parts);
    return;
  }
  close();  // where it was never whole
  parts->periodic.reset();  // whose last collection may still look at what goes next
  if (parts->abandoned != nullptr) abandon(parts->abandoned);
  delete parts;
}

Telemetry::Core::Parts& Telemetry::Core::parts_as_they_are() {
  const std::uint32_t generation = process_generation();
  Parts* parts = parts_.load(std::memory_order_acquire);
  while (parts->generation != generation) {
    auto fresh = std::make_unique<Parts>(*handles_, generation);
    fresh->abandoned = parts;
    if (parts_.compare_exchange_strong(parts, fresh.get(), std::memory_order_acq_rel, std::memory_order_acquire)) {
      parts = fresh.release();
    }
  }
  return *parts;
}

Telemetry::Core::Parts& Telemetry::Core::parts() {
  Parts& parts = parts_as_they_are();
  if (parts.abandoned != nullptr) parts.begin_again();
  return parts;
}

void Telemetry::Core::end_of_process() {
  // exit() in a callback, on a thread that a shutdown would join: what is recorded is recovered, as after _exit().
  if (!own_thread) close();
}

void Telemetry::Core::start(Config config) { parts().start(std::move(config)); }

bool Telemetry::Core::started() {
  Parts& here = parts();
  const std::scoped_lock lock(here.mutex);
  return here.started;
}

const Config& Telemetry::Core::config() { return parts().config; }

void Telemetry::Core::add(std::vector<DestinationConfig> all) {
  if (all.empty()) return;
  Parts& here = parts();
  const HeldMessages held;
  const std::scoped_lock lock(here.mutex);
  if (here.stopped) throw Error(ErrorCode::closed, "destination " + all.front().name + ": the Telemetry was shut down");
  for (const DestinationConfig& destination : all) check(destination, here.config.resource);
  if (here.config.disabled) return;
  if (!here.started) throw Error(ErrorCode::invalid_argument, "Telemetry: not started");
  here.add(std::move(all));
}

void Telemetry::Core::set_on_record(OnRecord hook) {
  Parts& here = parts();
  const std::scoped_lock lock(here.mutex);
  here.config.on_record = hook;
  here.hook.set(std::move(hook));
  if (here.started) here.remember();
  // Said in the identity before a record passes it, so that no recovery stores one that did not.
  if (here.recorder && !here.home.home.state.empty() &&
      !journal::write_identity(here.home.home, here.identity(), here.config.journal.fsync != Fsync::never)) {
    throw Error(ErrorCode::state_directory, "on_record: " + here.home.home.state + "/identity cannot be written: " +
                                                errno_text(errno) + "; after a crash, records would be stored unseen by it");
  }
}

void Telemetry::Core::set_error_handler(ErrorHandler handler) {
  Parts& here = parts();
  const std::scoped_lock lock(here.mutex);
  here.config.error_handler = handler;
  here.diagnostics.set_handler(std::move(handler));
  if (here.started) here.remember();
}

void Telemetry::Core::set_metrics(const MetricConfig& metrics) {
  Parts& here = parts();
  const std::scoped_lock lock(here.mutex);
  here.set_metrics(metrics);
  if (here.started) here.remember();
}

void Telemetry::Core::set_logs_as_span_events(bool on) {
  Parts& here = parts();
  const std::scoped_lock lock(here.mutex);
  here.config.logs_as_span_events = on;
  here.recording.logs_as_span_events.store(on, std::memory_order_relaxed);
  if (here.started) here.remember();
}

// ---- Telemetry

Telemetry::Telemetry(Config config) : core_(std::make_shared<Core>()) { core_->start(std::move(config)); }
Telemetry::Telemetry() : core_(std::make_shared<Core>()) {}
Telemetry::~Telemetry() { core_->close(); }

ScopeEntry& Telemetry::Core::Parts::entry_of(std::string_view name, std::string_view version, std::string_view schema_url,
                                             Attributes attributes) {
  journal::Scope scope = encode_scope(name, version, schema_url, attributes);
  if (name.empty()) {
    diagnostics.say_once("scope", DiagnosticLevel::warning, "a tracer, logger or meter without a name was asked for");
  }
  const HeldMessages held;
  const std::scoped_lock lock(mutex);
  return known_entry(std::move(scope), name, version, schema_url);
}

// With `mutex` held.
ScopeEntry& Telemetry::Core::Parts::known_entry(journal::Scope scope, std::string_view name, std::string_view version,
                                                std::string_view schema_url) {
  ScopeEntry* known = nullptr;
  scopes.for_each([&](ScopeEntry& entry) {
    if (entry.scope.encoded == scope.encoded && entry.scope.schema_url == scope.schema_url) known = &entry;
  });
  if (known != nullptr) return *known;
  auto entry = std::make_unique<ScopeEntry>();
  entry->scope = std::move(scope);
  entry->tracer.recording_of = &recording;
  entry->logger.recording_of = &recording;
  entry->meter.recording_of = &recording;
  entry->meter.name = name;
  entry->meter.version = version;
  entry->meter.schema_url = schema_url;
  if (started && recorder && !stopped) attach(*entry);
  return scopes.add(std::move(entry));
}

Tracer Telemetry::tracer(std::string_view name, std::string_view version, std::string_view schema_url, Attributes attributes) {
  return Tracer(&core_->parts().entry_of(name, version, schema_url, attributes).tracer);
}

Logger Telemetry::logger(std::string_view name, std::string_view version, std::string_view schema_url, Attributes attributes) {
  return Logger(&core_->parts().entry_of(name, version, schema_url, attributes).logger);
}

Meter Telemetry::meter(std::string_view name, std::string_view version, std::string_view schema_url, Attributes attributes) {
  return Meter(&core_->parts().entry_of(name, version, schema_url, attributes).meter);
}

void Telemetry::add(DestinationConfig destination) {
  std::vector<DestinationConfig> one;
  one.push_back(std::move(destination));
  core_->add(std::move(one));
}

bool Telemetry::force_flush(std::chrono::nanoseconds timeout) { return core_->parts_as_they_are().flush(deadline_after(timeout)); }

bool Telemetry::shutdown(std::chrono::nanoseconds timeout) { return core_->parts_as_they_are().shutdown(timeout); }

Stats Telemetry::stats() const { return core_->parts_as_they_are().stats(); }

const Resource& Telemetry::resource() const noexcept { return core_->parts().config.resource; }

std::string Telemetry::directory() const { return core_->parts().home.home.state; }

std::size_t Telemetry::recover() { return recovery_is_others ? 0 : core_->parts().recover(); }

void Telemetry::on_recovered(OnRecovered callback) {
  if (!callback) return;
  Core::Parts& parts = core_->parts();
  std::deque<Recovered> known;
  {
    const std::scoped_lock lock(parts.mutex);
    parts.on_recovered.push_back(callback);
    known = parts.reports;
  }
  for (const Recovered& found : known) callback(found);
}

void leave_recovery_to_others() noexcept { recovery_is_others = true; }

Telemetry& telemetry() {
  // No function-local static: its guard could be held for ever in a child of fork.
  static constinit std::atomic<Telemetry*> process{nullptr};
  Telemetry* there = process.load(std::memory_order_acquire);
  if (there != nullptr) return *there;
  // OpenSSL's own exit handler runs after ours only if it was set up before.
  transport::initialize();
  std::unique_ptr<Telemetry> made(new Telemetry());
  if (!process.compare_exchange_strong(there, made.get(), std::memory_order_acq_rel, std::memory_order_acquire)) return *there;
  std::atexit([] { process.load(std::memory_order_acquire)->core().end_of_process(); });
  return *made.release();
}

}  // namespace waymark
