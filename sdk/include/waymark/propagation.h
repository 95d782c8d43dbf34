// Trace context: ids, flags, baggage, and how they travel between threads and processes.
//
// Hides: the W3C header formats (traceparent, tracestate, baggage).
// Threads: all types are values; "current" is per thread.
// Failure: parsing untrusted text never throws; what is malformed is ignored as the W3C documents say.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace waymark {

// 16 random bytes; all zero is invalid.
struct TraceId {
  std::array<std::uint8_t, 16> bytes{};
  [[nodiscard]] bool valid() const noexcept { return *this != TraceId{}; }
  [[nodiscard]] std::string hex() const;  // 32 lower-case digits
  [[nodiscard]] static std::optional<TraceId> from_hex(std::string_view text) noexcept;  // lower case only
  [[nodiscard]] static TraceId random() noexcept;
  friend bool operator==(const TraceId&, const TraceId&) = default;
  friend auto operator<=>(const TraceId&, const TraceId&) = default;
};

// 8 random bytes; all zero is invalid.
struct SpanId {
  std::array<std::uint8_t, 8> bytes{};
  [[nodiscard]] bool valid() const noexcept { return *this != SpanId{}; }
  [[nodiscard]] std::string hex() const;  // 16 lower-case digits
  [[nodiscard]] static std::optional<SpanId> from_hex(std::string_view text) noexcept;  // lower case only
  [[nodiscard]] static SpanId random() noexcept;
  friend bool operator==(const SpanId&, const SpanId&) = default;
  friend auto operator<=>(const SpanId&, const SpanId&) = default;
};

// W3C tracestate: an immutable, validated list of members. Copying shares it.
class TraceState {
 public:
  TraceState() = default;
  // Parses a header value (several headers joined with ","). Empty where it is malformed (W3C: the whole list is dropped).
  [[nodiscard]] static TraceState parse(std::string_view header);
  [[nodiscard]] std::optional<std::string> get(std::string_view key) const;
  // A copy with the member added or moved to the front; unchanged where key or value are malformed. The 33rd member falls off.
  [[nodiscard]] TraceState set(std::string_view key, std::string_view value) const;
  [[nodiscard]] TraceState remove(std::string_view key) const;
  [[nodiscard]] bool empty() const noexcept { return !text_; }
  [[nodiscard]] std::string_view header() const noexcept { return text_ ? std::string_view(*text_) : std::string_view(); }
  friend bool operator==(const TraceState& a, const TraceState& b) noexcept { return a.header() == b.header(); }

 private:
  std::shared_ptr<const std::string> text_;
};

// What identifies a span to others. Immutable once handed out.
struct SpanContext {
  static constexpr std::uint8_t kSampled = 0x01;
  static constexpr std::uint8_t kRandom = 0x02;  // W3C level 2: the low 7 bytes of the trace id are random

  TraceId trace_id;
  SpanId span_id;
  std::uint8_t flags = 0;
  bool remote = false;  // came from another process
  TraceState trace_state;

  [[nodiscard]] bool valid() const noexcept { return trace_id.valid() && span_id.valid(); }
  [[nodiscard]] bool sampled() const noexcept { return (flags & kSampled) != 0; }
  friend bool operator==(const SpanContext&, const SpanContext&) = default;
};

// W3C baggage: name to value, with optional metadata. Immutable; copying shares it. Not copied to telemetry by itself.
class Baggage {
 public:
  struct Entry {
    std::string name;
    std::string value;     // any UTF-8, decoded
    std::string metadata;  // the properties after ";", verbatim
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  Baggage() = default;
  // Reads header values, already joined with ",". Malformed members are skipped.
  [[nodiscard]] static Baggage parse(std::string_view header);
  [[nodiscard]] std::optional<std::string> get(std::string_view name) const;
  [[nodiscard]] Baggage set(std::string_view name, std::string_view value, std::string_view metadata = {}) const;
  [[nodiscard]] Baggage remove(std::string_view name) const;
  [[nodiscard]] const std::vector<Entry>& entries() const noexcept;
  [[nodiscard]] bool empty() const noexcept { return !entries_; }
  // The header: whole members only, at most 64 and 8,192 bytes; names that are no token are left out.
  [[nodiscard]] std::string header() const;
  friend bool operator==(const Baggage& a, const Baggage& b) noexcept { return a.entries() == b.entries(); }

 private:
  std::shared_ptr<const std::vector<Entry>> entries_;  // null where there are none
};

// What a thread is working for: a span and its baggage. Captured on one thread, made current on another.
struct TraceContext {
  SpanContext span;
  Baggage baggage;
};

// The calling thread's context; an invalid span where nothing is current.
[[nodiscard]] TraceContext current_context();

class SpanHandle;

namespace detail {
struct OpenSpan;
// One entry of a thread's stack of current contexts. Lives in a Span or a ContextScope.
struct ActiveContext {
  SpanContext span;
  Baggage baggage;
  OpenSpan* open = nullptr;  // the recording span behind it, null where it records nothing or lives elsewhere
  ActiveContext* previous = nullptr;
};
// The top of the calling thread's stack of contexts; null where nothing is current. Found without a call.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ActiveContext* current;
}  // namespace detail

// Makes a context current for the calling thread until the scope ends. Scopes nest; leave them in reverse order.
class [[nodiscard]] ContextScope {
 public:
  explicit ContextScope(const TraceContext& context);
  // The same for a span of this process, which current_span() then gives: for a DetachedSpan. It outlives the scope.
  explicit ContextScope(const SpanHandle& span);
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  detail::ActiveContext entry_;
};

// `00-<trace id>-<span id>-<flags>`; empty where the context is invalid. Unknown flag bits are cleared.
[[nodiscard]] std::string to_traceparent(const SpanContext& context);
// Reads traceparent and, if that is valid, tracestate. The result is remote.
[[nodiscard]] std::optional<SpanContext> from_traceparent(std::string_view traceparent, std::string_view tracestate = {});

// Carriers. `set` is called once for each header to send, names in lower case. `get` returns every value of a header in
// order, names compared without case. Which formats take part is OTEL_PROPAGATORS (default: tracecontext,baggage).
using HeaderSetter = std::function<void(std::string_view name, std::string_view value)>;
using HeaderGetter = std::function<std::vector<std::string>(std::string_view name)>;
void inject(const TraceContext& context, const HeaderSetter& set);
[[nodiscard]] TraceContext extract(const HeaderGetter& get, const TraceContext& base = {});

using Headers = std::map<std::string, std::string>;
void inject(const TraceContext& context, Headers& headers);
[[nodiscard]] TraceContext extract(const Headers& headers, const TraceContext& base = {});

}  // namespace waymark
