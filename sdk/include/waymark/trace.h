// Tracer and spans.
//
// Hides: where a span lives (blocks of shared memory that outlive the process) and how it becomes OTLP bytes.
// Threads: a Tracer may be used by any thread. A Span belongs to the thread that made it. A DetachedSpan may move
//   between threads and be changed by several at a time (it takes its own lock).
// Failure: everything here is noexcept. What can't be recorded is counted (telemetry.h: stats), and the span still has
//   valid ids.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "waymark/attribute.h"
#include "waymark/propagation.h"

namespace waymark {

// Nanoseconds since 1970-01-01 UTC. A default one (0) means "now" wherever a time may be left out.
using Timestamp = std::chrono::sys_time<std::chrono::nanoseconds>;

enum class SpanKind : std::uint8_t { internal = 1, server = 2, client = 3, producer = 4, consumer = 5 };
enum class StatusCode : std::uint8_t { unset = 0, ok = 1, error = 2 };

struct Link {
  SpanContext context;
  Attributes attributes;  // a view: what it views must live until the call that takes the link
};

// How a span starts, where the default won't do. Attributes and links given at the start are seen by samplers.
struct SpanOptions {
  SpanKind kind = SpanKind::internal;
  std::optional<TraceContext> parent = std::nullopt;  // instead of the thread's current context
  bool root = false;                                  // start a new trace, whatever is current
  std::vector<Link> links = {};
  Timestamp start = {};
  TraceId trace_id = {};  // for a root: this trace id
  SpanId span_id = {};    // this span id instead of a random one
  std::optional<bool> sampled = std::nullopt;  // decided elsewhere: the sampler is not asked
};

namespace detail {

struct TracerState;
struct Lane;
struct Block;

// What every tracer handle looks at first. `recording` is false while the Telemetry is off, disabled or shut down.
struct TracerSwitch {
  std::atomic<bool> recording{false};
};
inline constinit TracerSwitch no_tracer;  // of tracers that nobody gave out

// The private side of a span in the making; its bytes are in `block`.
struct OpenSpan {
  ActiveContext active;
  Block* block = nullptr;          // null: not recording (sampled out, off, or no room), and what has no value here means nothing
  std::uint32_t generation = 0;    // of the process, so that a span is inert after fork
  int exceptions;                  // on their way when it began: more at its end, and its scope is left by one
  TracerState* tracer;
  Lane* lane;
  std::uint64_t seen_keys[2];      // Bloom filter over attribute keys: one bit in each
  bool detached = false;
  std::atomic_flag lock = {};
};

}  // namespace detail

// The operations of a span. Not owning: what current_span() gives is good until that span ends on this thread.
class SpanHandle {
 public:
  SpanHandle() noexcept = default;

  // Sets or replaces one attribute.
  SpanHandle& set(std::string_view key, Value value) noexcept;
  SpanHandle& set(Attributes attributes) noexcept;
  SpanHandle& event(std::string_view name, Attributes attributes = {}, Timestamp time = {}) noexcept;
  SpanHandle& link(const SpanContext& context, Attributes attributes = {}) noexcept;
  // Ok > error > unset: ok is final, unset is ignored. The description is kept for errors only.
  SpanHandle& status(StatusCode code, std::string_view description = {}) noexcept;
  // The event "exception" with exception.type (demangled) and exception.message; `extra` is added and wins: a program that
  // has the stack of a throw gives it as {"exception.stacktrace", text}. Does not set the status.
  SpanHandle& record_exception(const std::exception& exception, Attributes extra = {}) noexcept;
  SpanHandle& record_exception(const std::exception_ptr& exception, Attributes extra = {}) noexcept;
  SpanHandle& update_name(std::string_view name) noexcept;

  // Valid for the span's whole life and after its end, also where the span is not recording.
  [[nodiscard]] const SpanContext& context() const noexcept;
  // With the baggage that the span was started under: what to capture for another thread.
  [[nodiscard]] TraceContext trace_context() const;
  // False once it has ended, where it never recorded, and in a child of fork that it was not started in.
  [[nodiscard]] bool recording() const noexcept;

 protected:
  explicit SpanHandle(detail::ActiveContext* active) noexcept : active_(active) {}
  // Null where the context was only made current, and the span is another's.
  [[nodiscard]] detail::OpenSpan* open() const noexcept { return active_ ? active_->open : nullptr; }
  detail::ActiveContext* active_ = nullptr;
  friend SpanHandle current_span() noexcept;
  friend class ContextScope;
};

inline ContextScope::ContextScope(const SpanHandle& span) : ContextScope(span.trace_context()) { entry_.open = span.open(); }

// The calling thread's current span; one that records nothing where there is none.
[[nodiscard]] SpanHandle current_span() noexcept;

// Ends with its scope, is current for its thread meanwhile, stays where it is. If its scope is left by an exception,
// the span gets status error, and the exception's type where it can be told.
class [[nodiscard]] Span : public SpanHandle {
 public:
  // Inline, and the list is made behind the check: a tracer that is off costs its caller little more than that.
  [[gnu::always_inline]] Span(detail::TracerSwitch* tracer, std::string_view name, Attributes attributes,
                              const SpanOptions* options) noexcept {
    const bool more = !attributes.empty() || options != nullptr;
    if (tracer->recording.load(std::memory_order_acquire)) [[likely]] {
      if (begin(tracer, name, options, more) && more) {
        detail::made_here(attributes, [this, options](Attributes made) { open_with(made, options); });
      }
    } else if (options != nullptr && options->parent) {
      pass(*options->parent);
    }
  }
  // Inline where there is nothing to end and nothing to free.
  [[gnu::always_inline]] ~Span() {
    if (active_ == nullptr) [[likely]] return;
    const detail::ActiveContext& active = state_.active;
    // One comparison of all three.
    if ((int{state_.block != nullptr} | int{!active.baggage.empty()} | int{!active.span.trace_state.empty()}) == 0) [[likely]] {
      detail::current = active.previous;
    } else {
      finish();
    }
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

  // Ends it before its scope does; later calls are ignored. It stays current until the scope ends.
  void end(Timestamp time = {}) noexcept;

 private:
  // Makes it current. True: it is recorded, and where `more` is to come, open only with open_with().
  bool begin(detail::TracerSwitch* tracer, std::string_view name, const SpanOptions* options, bool more) noexcept;
  bool begin_any(detail::TracerState* tracer, std::string_view name, const SpanOptions* options, bool more) noexcept;
  // What it begins with, all of it, is there before a crash can leave it interrupted.
  void open_with(Attributes attributes, const SpanOptions* options) noexcept;
  // The same where nothing records: what it was given is current.
  void pass(const TraceContext& context) noexcept;
  void enter() noexcept;
  void finish() noexcept;
  // Made by begin() and pass(), undone by finish(); left as it is where there is nothing to undo.
  // Aligned as its parts are cleared, in pairs of words: none of them lies in two cache lines.
  union alignas(16) {
    detail::OpenSpan state_;
  };
};

// May move between threads, is not current until made so (ContextScope(span)), ends when destroyed or at
// end(). Lock-protected, so slower than Span.
class [[nodiscard]] DetachedSpan : public SpanHandle {
 public:
  DetachedSpan() noexcept = default;
  DetachedSpan(DetachedSpan&& other) noexcept;
  DetachedSpan& operator=(DetachedSpan&& other) noexcept;
  ~DetachedSpan();
  void end(Timestamp time = {}) noexcept;

 private:
  friend class Tracer;
  explicit DetachedSpan(detail::OpenSpan* open) noexcept : SpanHandle(&open->active) {}
};

// A handle: cheap to copy, never invalid while its Telemetry lives.
class Tracer {
 public:
  Tracer() noexcept = default;
  explicit Tracer(detail::TracerSwitch* state) noexcept : state_(state) {}

  // Starts a span that is current and ends with its scope: auto span = tracer.span("read_bands", {{"bands", 4}});
  [[nodiscard]] [[gnu::always_inline]] Span span(std::string_view name, Attributes attributes = {}) const noexcept {
    return Span(state_, name, attributes, nullptr);
  }
  [[nodiscard]] [[gnu::always_inline]] Span span(std::string_view name, Attributes attributes,
                                                 const SpanOptions& options) const noexcept {
    return Span(state_, name, attributes, &options);
  }
  [[nodiscard]] DetachedSpan start_span(std::string_view name, Attributes attributes = {},
                                        const SpanOptions& options = {}) const noexcept;
  // Allots ids for a new root span and asks the sampler, recording nothing: for spans that are written later, elsewhere.
  [[nodiscard]] SpanContext new_root(std::string_view name) const noexcept;
  // False while nothing would be recorded.
  [[nodiscard]] bool enabled() const noexcept;

 private:
  detail::TracerSwitch* state_ = &detail::no_tracer;  // never null
};

// Decides at a root (or for every span, where it is not parent-based) whether it is recorded.
enum class SamplerKind : std::uint8_t {
  always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio,
};
struct Sampler {
  SamplerKind kind = SamplerKind::parentbased_always_on;
  double ratio = 1.0;  // [0, 1]; for the ratio kinds
  [[nodiscard]] std::string description() const;  // as in the specification: "ParentBased{root:AlwaysOnSampler,…}"
};

}  // namespace waymark
