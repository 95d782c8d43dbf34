#include "trace/tracer.h"

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <typeinfo>
#include <utility>

#include "base/random.h"
#include "otlp/writer.h"

namespace waymark {
namespace detail {

constinit thread_local ActiveContext* current = nullptr;

std::uint64_t ratio_threshold(double ratio) noexcept {
  constexpr double kRange = 72057594037927936.0;  // 2^56
  if (!(ratio > 0)) return 0;
  return ratio >= 1 ? std::uint64_t{1} << 56 : static_cast<std::uint64_t>(ratio * kRange);
}

namespace {

// The low 56 bits of a trace id: random by W3C level 2.
std::uint64_t low_bits(const TraceId& id) noexcept {
  std::uint64_t v = 0;
  for (std::size_t i = 9; i < 16; ++i) v = v << 8 | id.bytes[i];
  return v;
}

bool sampled(const Recording& r, const SpanContext* parent, const TraceId& id) noexcept {
  switch (r.sampler.kind) {
    case SamplerKind::always_on:
      return true;
    case SamplerKind::always_off:
      return false;
    case SamplerKind::traceidratio:
      return low_bits(id) < r.ratio_threshold;
    case SamplerKind::parentbased_always_on:
      return parent == nullptr || parent->sampled();
    case SamplerKind::parentbased_always_off:
      return parent != nullptr && parent->sampled();
    case SamplerKind::parentbased_traceidratio:
      return parent != nullptr ? parent->sampled() : low_bits(id) < r.ratio_threshold;
  }
  return true;
}

constexpr char kAttributeTag = 0x4a;
constexpr char kEventTag = 0x5a;
constexpr char kLinkTag = 0x6a;

// This thread holds a span's lock, and is to say at its end that a span left something out.
constinit thread_local bool span_locked = false;
constinit thread_local Recording* unsaid = nullptr;

[[gnu::noinline]] void say_dropped(Recording& r) noexcept {
  r.diagnostics->say(DiagnosticLevel::warning,
                     "a span's attribute, event or link was left out: a limit was reached, the key was empty, or the record "
                     "was full; such spans count what they dropped, and this is said once");
}

void say_unsaid() noexcept {
  if (unsaid != nullptr) [[unlikely]] say_dropped(*std::exchange(unsaid, nullptr));
}

// Holds a detached span's lock; scoped spans need none. A handler may touch the span: nothing is said under it, nor before the span is open.
class SpanLock {
 public:
  explicit SpanLock(OpenSpan& span) noexcept : span_(span) {
    if (!span.detached) return;
    // Whoever ends a span may wait for room in its ring meanwhile.
    while (span.lock.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    span_locked = true;
  }
  ~SpanLock() {
    if (!span_.detached) return;
    span_.lock.clear(std::memory_order_release);
    span_locked = false;
    say_unsaid();
  }
  SpanLock(const SpanLock&) = delete;
  SpanLock& operator=(const SpanLock&) = delete;

 private:
  OpenSpan& span_;
};

// Still ours to change: recording, and not inherited through fork.
bool live(const OpenSpan* span) noexcept {
  return span != nullptr && span->block != nullptr && span->generation == seen_generation();
}

// From here on recovery sees the span. What it is started with is complete before.
void open_block(Block* block) noexcept {
  block->state.store(static_cast<std::uint32_t>(journal::BlockState::open), std::memory_order_release);
}
bool is_open(const Block& block) noexcept {
  return block.state.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(journal::BlockState::open);
}

// Counts what a limit, or a full record, left out. The first time it is said, so that nobody has to look for it.
void count_dropped(Recording& r, const Block& block, std::atomic<std::uint32_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (r.said_dropped.load(std::memory_order_relaxed) || r.said_dropped.exchange(true)) return;
  if (span_locked || !is_open(block)) {
    unsaid = &r;
  } else {
    say_dropped(r);
  }
}

// Whether the stream already holds an attribute with this key.
bool has_key(const journal::Recorder& recorder, const OpenSpan& span, std::string_view key);

// Everything that add_attributes() does not do at once: long values, other types, repeated keys, a new block, limits.
[[gnu::noinline]] void add_any_attribute(OpenSpan& span, std::string_view key, const Value& value) noexcept {
  Recording& r = *span.tracer->recording_of;
  journal::Recorder& recorder = *r.recorder;
  Block* block = span.block;
  if (key.empty()) {
    count_dropped(r, *block, block->dropped_attributes);
    return;
  }
  std::string scratch;
  key = clean(key, scratch);
  const std::uint64_t hash = otlp::key_hash(key);
  bool repeated = false;
  if (otlp::has_key(span.seen_keys, hash)) [[unlikely]] repeated = has_key(recorder, span, key);
  if (!repeated && block->attributes >= r.span_limits.attribute_count) {
    count_dropped(r, *block, block->dropped_attributes);
    return;
  }
  const std::size_t bytes = otlp::size_attribute(key, value, r.span_limits);
  if (bytes <= journal::kBlockPayload) [[likely]] {
    char* p = recorder.reserve(block, bytes);
    if (p == nullptr) {
      count_dropped(r, *block, block->dropped_attributes);
      return;
    }
    // Said before the bytes count: a reader must know that an earlier value stands behind them.
    if (repeated) block->repeated.store(1, std::memory_order_release);
    otlp::put_attribute(p, kAttributeTag, key, value, r.span_limits);
    recorder.commit(block, bytes);
  } else {
    if (bytes > journal::kMaximumRecordBytes) {
      count_dropped(r, *block, block->dropped_attributes);
      return;
    }
    const std::unique_ptr<char[]> large(new (std::nothrow) char[bytes]);
    if (large) otlp::put_attribute(large.get(), kAttributeTag, key, value, r.span_limits);
    if (!large || !recorder.append(block, {large.get(), bytes}, repeated)) {
      count_dropped(r, *block, block->dropped_attributes);
      return;
    }
  }
  otlp::add_key(span.seen_keys, hash);
  if (!repeated) ++block->attributes;
}

// Where small fields may be written at once: the stream has not left the first block. What is written counts with commit().
class SmallFields {
 public:
  SmallFields(const Recording& r, Block* block) noexcept : block_(block) {
    if (!r.small_values || block->next.load(std::memory_order_relaxed) != journal::kNoBlock || block->tail != r.recorder->index_of(block)) return;
    begin_ = block->payload + block->used.load(std::memory_order_relaxed);
    last_ = block->payload + journal::kBlockPayload - otlp::kSmallAttribute - block->text_used;
  }
  [[nodiscard]] bool any() const noexcept { return begin_ != nullptr; }
  [[nodiscard]] char* begin() const noexcept { return begin_; }
  // The last place where a small attribute may begin.
  [[nodiscard]] const char* last() const noexcept { return last_; }
  void commit(const char* end) const noexcept {
    const auto used = static_cast<std::uint32_t>(end - block_->payload);
    block_->used.store(used, std::memory_order_relaxed);
    block_->committed.store(used, std::memory_order_release);
  }

 private:
  Block* block_;
  char* begin_ = nullptr;
  const char* last_ = nullptr;
};

// Small values of new keys, while there is room in the first block. What the call wrote counts when it returns.
void add_attributes(OpenSpan& span, const Attribute* attribute, const Attribute* const end) noexcept {
  const Recording& r = *span.tracer->recording_of;
  Block* const block = span.block;
  while (attribute != end) {
    const SmallFields room(r, block);
    const std::uint32_t count = block->attributes;
    const std::uint32_t most = r.span_limits.attribute_count;
    // As many as the limit allows.
    const std::size_t left = count < most && room.any() ? most - count : 0;
    const Attribute* const begin = attribute;
    const Attribute* const stop = static_cast<std::size_t>(end - begin) <= left ? end : begin + left;
    const char* const behind = otlp::put_small_attributes(room.begin(), room.last(), kAttributeTag, attribute, stop, span.seen_keys);
    if (attribute != begin) [[likely]] {
      block->attributes = count + static_cast<std::uint32_t>(attribute - begin);
      room.commit(behind);
    }
    if (attribute == end) [[likely]] return;
    add_any_attribute(span, attribute->key, attribute->value);
    ++attribute;
  }
}

bool has_key(const journal::Recorder& recorder, const OpenSpan& span, std::string_view key) {
  bool found = false;
  recorder.for_each_field(span.block, [&](std::string_view field) {
    if (field[0] != kAttributeTag) return true;
    // 0x4a, length, 0x0a, key length, key.
    std::size_t at = 1;
    while ((static_cast<unsigned char>(field[at]) & 0x80) != 0) ++at;
    at += 2;
    std::uint64_t length = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(field[at++]);
      length |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    found = field.substr(at, length) == key;
    return !found;
  });
  return found;
}

// Attributes of an event or a link: the last of a repeated key, no more than the limit.
void encode_attributes(std::string& out, char tag, Attributes attributes, const Limits& limits, std::uint32_t most,
                       std::uint32_t& dropped) {
  std::uint32_t kept = 0;
  for (const Attribute* a = attributes.begin(); a != attributes.end(); ++a) {
    bool last = true;
    for (const Attribute* b = a + 1; b != attributes.end() && last; ++b) last = b->key != a->key;
    if (!last) continue;
    if (a->key.empty() || kept >= most) {
      ++dropped;
      continue;
    }
    otlp::append_attribute(out, tag, a->key, a->value, limits);
    ++kept;
  }
}

// Events and links are made off the hot path, in a buffer of the thread's that keeps its size.
std::string& scratch_buffer() {
  static thread_local std::string buffer;
  buffer.clear();
  return buffer;
}

void append_field(std::string& out, char tag, std::string_view bytes) {
  char head[12];
  head[0] = tag;
  out.append(head, static_cast<std::size_t>(otlp::put_varint(head + 1, bytes.size()) - head));
  out.append(bytes);
}

void append_event(OpenSpan& span, std::string_view name, std::uint64_t time_ns, std::string_view attributes,
                  std::uint32_t dropped) noexcept {
  Recording& r = *span.tracer->recording_of;
  Block* block = span.block;
  if (block->events >= r.span_limits.event_count) {
    count_dropped(r, *block, block->dropped_events);
    return;
  }
  std::string& event = scratch_buffer();
  std::string clean_name;
  event.push_back(0x09);
  char time[8];
  otlp::put_fixed64(time, time_ns);
  event.append(time, 8);
  append_field(event, 0x12, clean(name, clean_name));
  event.append(attributes);
  if (dropped > 0) {
    event.push_back(0x20);
    char digits[10];
    event.append(digits, static_cast<std::size_t>(otlp::put_varint(digits, dropped) - digits));
  }
  static thread_local std::string field;
  field.clear();
  append_field(field, kEventTag, event);
  if (!r.recorder->append(block, field)) {
    count_dropped(r, *block, block->dropped_events);
    return;
  }
  ++block->events;
}

// An event with a short name and small attributes, written at once. False: it is not such a one, and nothing was added.
bool add_small_event(OpenSpan& span, std::string_view name, Attributes attributes, std::uint64_t time_ns) noexcept {
  const Recording& r = *span.tracer->recording_of;
  Block* const block = span.block;
  const SmallFields room(r, block);
  if (!room.any() || name.size() - 1 >= otlp::kSmallKey || room.begin() + 16 + name.size() > room.last() ||
      attributes.size() > r.span_limits.event_attribute_count || block->events >= r.span_limits.event_count) {
    return false;
  }
  char* const begin = room.begin();
  char* const event = begin + 2;  // tag, length
  if (journal::planted(journal::Fault::early_commit)) {
    // What a block that was in use before may hold there: another event, one without a name.
    constexpr char kOther[] = {kEventTag, 2, 0x12, 0};
    std::memcpy(begin, kOther, sizeof kOther);
    room.commit(begin + sizeof kOther);
  }
  char* p = event;
  *p++ = 0x09;
  p = otlp::put_fixed64(p, time_ns);
  *p++ = 0x12;
  *p++ = static_cast<char>(name.size());
  if ((otlp::copy_or(p, name.data(), name.size()) & otlp::kHighBits) != 0) return false;
  const Attribute* next = attributes.begin();
  otlp::SeenKeys seen = {};
  p = otlp::put_small_attributes(p + name.size(), room.last(), 0x1a, next, attributes.end(), seen);
  if (next != attributes.end()) return false;
  const auto size = static_cast<std::size_t>(p - event);
  if (size >= 0x80) std::memmove(event + 1, event, size);  // the length takes two bytes
  *begin = kEventTag;
  room.commit(otlp::put_varint(begin + 1, size) + size);
  ++block->events;
  return true;
}

void add_event(OpenSpan& span, std::string_view name, Attributes attributes, std::uint64_t time_ns,
               Attributes more = {}) noexcept {
  if (more.empty() && add_small_event(span, name, attributes, time_ns)) [[likely]] return;
  const Limits& limits = span.tracer->recording_of->span_limits;
  static thread_local std::string encoded;
  encoded.clear();
  std::uint32_t dropped = 0;
  if (more.empty()) {
    encode_attributes(encoded, 0x1a, attributes, limits, limits.event_attribute_count, dropped);
  } else {
    std::vector<Attribute> all(attributes.begin(), attributes.end());
    all.insert(all.end(), more.begin(), more.end());
    encode_attributes(encoded, 0x1a, all, limits, limits.event_attribute_count, dropped);
  }
  append_event(span, name, time_ns, encoded, dropped);
}

void add_link(OpenSpan& span, const SpanContext& context, Attributes attributes) noexcept {
  Recording& r = *span.tracer->recording_of;
  Block* block = span.block;
  // A link that points nowhere and says nothing is left out.
  if (!context.valid() && attributes.empty() && context.trace_state.empty()) return;
  if (block->links >= r.span_limits.link_count) {
    count_dropped(r, *block, block->dropped_links);
    return;
  }
  std::string& link = scratch_buffer();
  append_field(link, 0x0a, {reinterpret_cast<const char*>(context.trace_id.bytes.data()), 16});
  append_field(link, 0x12, {reinterpret_cast<const char*>(context.span_id.bytes.data()), 8});
  if (!context.trace_state.empty()) append_field(link, 0x1a, context.trace_state.header());
  std::uint32_t dropped = 0;
  encode_attributes(link, 0x22, attributes, r.span_limits, r.span_limits.link_attribute_count, dropped);
  if (dropped > 0) {
    link.push_back(0x28);
    char digits[10];
    link.append(digits, static_cast<std::size_t>(otlp::put_varint(digits, dropped) - digits));
  }
  char flags[5] = {0x35};
  otlp::put_fixed32(flags + 1, 0x100u | (context.remote ? 0x200u : 0u) | context.flags);
  link.append(flags, 5);
  std::string field;
  field.reserve(link.size() + 8);
  append_field(field, kLinkTag, link);
  if (!r.recorder->append(block, field)) {
    count_dropped(r, *block, block->dropped_links);
    return;
  }
  ++block->links;
}

void open_with(OpenSpan& span, Attributes attributes, const std::vector<Link>* links) noexcept {
  add_attributes(span, attributes.begin(), attributes.end());
  if (links != nullptr) {
    for (const Link& link : *links) add_link(span, link.context, link.attributes);
  }
  open_block(span.block);
  say_unsaid();
}

[[gnu::noinline]] journal::Text put_name(journal::Recorder& recorder, Block* block, std::string_view name) noexcept {
  std::string scratch;
  return recorder.put_text(block, clean(name, scratch));
}

[[gnu::noinline]] void put_trace_state(journal::Recorder& recorder, Block* block, const TraceState& state) noexcept {
  if (state.header().size() <= journal::kMaximumTextBytes) block->trace_state = recorder.put_text(block, state.header());
}

// std::uncaught_exceptions(), without a call into the C++ library twice a span: the number stands where the platform's C++
// ABI says (Itanium C++ ABI, 2.2.2).
int uncaught_exceptions() noexcept {
  struct Globals {
    void* caught;
    unsigned uncaught;
  };
  static constinit thread_local const Globals* globals = nullptr;
  if (globals == nullptr) [[unlikely]] globals = reinterpret_cast<const Globals*>(abi::__cxa_get_globals());
  return static_cast<int>(globals->uncaught);
}

// Ids and the sampler's answer. True: it is to be recorded, and `parent` is set, null for a root. `options` is null at nearly
// every call: who knows, says so by its type.
template <class Options>
[[gnu::always_inline]] inline bool begin_span(OpenSpan& span, TracerState* tracer, Options options, const SpanContext*& parent) noexcept {
  constexpr bool kPlain = std::is_null_pointer_v<Options>;
  Recording& r = *tracer->recording_of;
  span.tracer = tracer;
  span.active.open = &span;
  const bool ours = here(r);
  parent = nullptr;
  const Baggage* baggage = nullptr;
  if (const ActiveContext* const active = current; active != nullptr) {
    parent = &active->span;
    baggage = &active->baggage;
  }
  if constexpr (!kPlain) {
    if (options->parent) {
      parent = &options->parent->span;
      baggage = &options->parent->baggage;
    }
    if (options->root) parent = nullptr;
  }
  if (parent != nullptr && !parent->valid()) parent = nullptr;
  SpanContext& context = span.active.span;
  context.flags = SpanContext::kRandom;
  if (Randoms random; parent == nullptr) {
    fill_random(random, context.trace_id, context.span_id);
  } else {
    fill_random(random, context.span_id);
    context.trace_id = parent->trace_id;
    context.flags &= parent->flags;
    if (!parent->trace_state.empty()) [[unlikely]] context.trace_state = parent->trace_state;
  }
  if (baggage != nullptr && !baggage->empty()) [[unlikely]] span.active.baggage = *baggage;
  if constexpr (!kPlain) {
    if (parent == nullptr && options->trace_id.valid()) context.trace_id = options->trace_id;
    if (options->span_id.valid()) context.span_id = options->span_id;
    if (options->sampled) return *options->sampled && ours;
  }
  return sampled(r, parent, context.trace_id) && ours;
}

// In halves, as it was just written: a processor that is to load both at once waits until they are in its cache.
inline void copy_trace_id(std::uint8_t* to, const TraceId& id) noexcept {
  std::uint64_t halves[2];
  std::memcpy(halves, id.bytes.data(), sizeof halves);
  asm("" : "+r"(halves[0]), "+r"(halves[1]));  // keeps the compiler from making one load of them
  std::memcpy(to, halves, sizeof halves);
}

// A block with the fixed fields, not yet open. `detached` spans come from the pool. False: there is no room.
[[gnu::noinline]] bool record_span(OpenSpan& span, std::string_view name, const SpanOptions* options, const SpanContext* parent,
                                   bool detached) noexcept {
  const TracerState* const tracer = span.tracer;
  Recording& r = *tracer->recording_of;
  SpanContext& context = span.active.span;
  span.detached = detached;
  span.seen_keys[0] = span.seen_keys[1] = 0;
  span.generation = r.generation.load(std::memory_order_relaxed);
  context.flags |= SpanContext::kSampled;

  journal::Recorder& recorder = *r.recorder;
  span.lane = detached ? nullptr : recorder.lane();
  Block* block = detached ? recorder.take_pool_record() : recorder.take_block(*span.lane);
  if (block == nullptr) {
    recorder.refuse(Signal::traces);
    return false;
  }
  block->thread = recorder.thread();
  block->scope = tracer->scope;
  block->kind = options != nullptr ? static_cast<std::uint8_t>(options->kind) : 1;
  block->status.store(0, std::memory_order_relaxed);
  block->flags = 0x100u | (parent != nullptr && parent->remote ? 0x200u : 0u) | context.flags;
  copy_trace_id(block->trace_id, context.trace_id);
  std::memcpy(block->span_id, context.span_id.bytes.data(), 8);
  if (parent != nullptr) {
    std::memcpy(block->parent_id, parent->span_id.bytes.data(), 8);
  } else {
    std::memset(block->parent_id, 0, 8);
  }
  block->end_ns.store(0, std::memory_order_relaxed);
  block->status_message.store(0, std::memory_order_relaxed);
  block->dropped_attributes.store(0, std::memory_order_relaxed);
  block->dropped_events.store(0, std::memory_order_relaxed);
  block->dropped_links.store(0, std::memory_order_relaxed);
  block->repeated.store(0, std::memory_order_relaxed);
  block->attributes = 0;
  block->events = 0;
  block->links = 0;
  block->compact_at = journal::kBlockPayload / 2;
  journal::Text text = recorder.put_small_text(block, name);
  if (text == 0) [[unlikely]] text = put_name(recorder, block, name);
  block->name.store(text, std::memory_order_relaxed);
  block->trace_state = 0;
  if (!context.trace_state.empty()) [[unlikely]] put_trace_state(recorder, block, context.trace_state);
  block->start_ns = options != nullptr && options->start != Timestamp{} ? to_ns(options->start) : r.clock->now();
  if (journal::planted(journal::Fault::early_open)) open_block(block);
  span.block = block;
  recorder.collector().poke();
  return true;
}

void close_span(OpenSpan& span, Timestamp time) noexcept {
  Recording& r = *span.tracer->recording_of;
  Block* block = span.block;
  span.block = nullptr;
  if (span.generation != seen_generation()) return;
  journal::Recorder& recorder = *r.recorder;
  std::uint64_t end = time != Timestamp{} ? to_ns(time) : r.clock->now();
  if (time == Timestamp{}) end = std::max(end, block->start_ns);
  Lane& lane = span.detached ? *recorder.lane() : *span.lane;
  if (lane.is_shared) lane.lock.lock();
  if (r.on.load(std::memory_order_relaxed)) {
    recorder.publish_span(lane, block, end);
    recorder.release(lane, block);
  } else {
    // Shut down meanwhile: nobody drains the ring any more. The record stays in its block, finished, for the next start.
    block->ring_lane = UINT32_MAX;
    block->end_ns.store(end, std::memory_order_release);
  }
  if (lane.is_shared) lane.lock.unlock();
}

std::string demangled(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), std::free);
  return status == 0 && text ? text.get() : type.name();
}

}  // namespace

OpenSpan* current_recording() noexcept {
  OpenSpan* span = current != nullptr ? current->open : nullptr;
  return live(span) ? span : nullptr;
}

void add_encoded_event(OpenSpan& span, std::string_view name, std::uint64_t time_ns, std::string_view attributes,
                       std::uint32_t dropped) noexcept {
  if (!live(&span)) return;
  const SpanLock lock(span);
  if (live(&span)) append_event(span, name, time_ns, attributes, dropped);
}

std::string exception_type(const std::exception& e) { return demangled(typeid(e)); }
std::string current_exception_type() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  return type != nullptr ? demangled(*type) : std::string();
}

}  // namespace detail

// ---- handles

SpanHandle& SpanHandle::set(std::string_view key, Value value) noexcept {
  const Attribute attribute(key, value);
  return set(std::span(&attribute, 1));
}

SpanHandle& SpanHandle::set(Attributes attributes) noexcept {
  detail::OpenSpan* const span = open();
  if (!detail::live(span)) return *this;
  const detail::SpanLock lock(*span);
  if (!span->detached || detail::live(span)) [[likely]] {
    detail::add_attributes(*span, attributes.begin(), attributes.end());
  }
  return *this;
}

SpanHandle& SpanHandle::event(std::string_view name, Attributes attributes, Timestamp time) noexcept {
  if (!detail::live(open())) return *this;
  const std::uint64_t when = time != Timestamp{} ? to_ns(time) : open()->tracer->recording_of->clock->now();
  const detail::SpanLock lock(*open());
  if (detail::live(open())) detail::add_event(*open(), name, attributes, when);
  return *this;
}

SpanHandle& SpanHandle::link(const SpanContext& context, Attributes attributes) noexcept {
  if (!detail::live(open())) return *this;
  const detail::SpanLock lock(*open());
  if (detail::live(open())) detail::add_link(*open(), context, attributes);
  return *this;
}

SpanHandle& SpanHandle::status(StatusCode code, std::string_view description) noexcept {
  if (!detail::live(open())) return *this;
  const detail::SpanLock lock(*open());
  if (!detail::live(open())) return *this;
  detail::Block* block = open()->block;
  const auto before = static_cast<StatusCode>(block->status.load(std::memory_order_relaxed));
  if (code == StatusCode::unset || before == StatusCode::ok) return *this;
  if (code == StatusCode::error) {
    std::string scratch;
    const std::string_view wanted = clean(description, scratch);
    const journal::Text text = open()->tracer->recording_of->recorder->put_text(block, wanted);
    // Where there is no room for another text, the earlier one says more than none.
    if (text != 0 || wanted.empty()) block->status_message.store(text, std::memory_order_release);
  }
  block->status.store(static_cast<std::uint8_t>(code), std::memory_order_release);
  return *this;
}

SpanHandle& SpanHandle::record_exception(const std::exception& exception, Attributes extra) noexcept {
  if (!detail::live(open())) return *this;
  const std::uint64_t when = open()->tracer->recording_of->clock->now();
  const std::string type = detail::exception_type(exception);
  const detail::SpanLock lock(*open());
  if (detail::live(open())) {
    detail::add_event(*open(), "exception", {{"exception.type", type}, {"exception.message", exception.what()}}, when, extra);
  }
  return *this;
}

SpanHandle& SpanHandle::record_exception(const std::exception_ptr& exception, Attributes extra) noexcept {
  if (!detail::live(open()) || !exception) return *this;
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& e) {
    return record_exception(e, extra);
  } catch (...) {
    const std::uint64_t when = open()->tracer->recording_of->clock->now();
    const std::string type = detail::current_exception_type();
    const detail::SpanLock lock(*open());
    if (detail::live(open())) detail::add_event(*open(), "exception", {{"exception.type", type}}, when, extra);
  }
  return *this;
}

SpanHandle& SpanHandle::update_name(std::string_view name) noexcept {
  if (!detail::live(open())) return *this;
  const detail::SpanLock lock(*open());
  if (!detail::live(open())) return *this;
  std::string scratch;
  const journal::Text text = open()->tracer->recording_of->recorder->put_text(open()->block, clean(name, scratch));
  if (text != 0 || name.empty()) open()->block->name.store(text, std::memory_order_release);
  return *this;
}

bool SpanHandle::recording() const noexcept { return detail::live(open()); }

const SpanContext& SpanHandle::context() const noexcept {
  static const SpanContext kNone;
  // One that is switched off stands for whatever is current, so that a trace passes through.
  if (active_ != nullptr) return active_->span;
  return detail::current != nullptr ? detail::current->span : kNone;
}

TraceContext SpanHandle::trace_context() const {
  if (active_ == nullptr) return current_context();
  return {active_->span, active_->baggage};
}

SpanHandle current_span() noexcept {
  return SpanHandle(detail::current);
}

inline void Span::enter() noexcept {
  active_ = &state_.active;
  state_.active.previous = detail::current;
  detail::current = &state_.active;
}

bool Span::begin(detail::TracerSwitch* tracer, std::string_view name, const SpanOptions* options, bool more) noexcept {
  auto* const state = static_cast<detail::TracerState*>(tracer);
  const detail::Recording& r = *state->recording_of;
  if (options != nullptr || detail::current != nullptr || !r.never_roots ||
      r.generation.load(std::memory_order_acquire) != seen_generation() || !Randoms::ready()) [[likely]] {
    return begin_any(state, name, options, more);
  }
  // A root where no root is sampled: what tracing costs a program that does not use it.
  new (&state_) detail::OpenSpan;
  Randoms random;
  fill_random(random, state_.active.span.trace_id, state_.active.span.span_id);
  state_.active.span.flags = SpanContext::kRandom;
  state_.active.open = &state_;
  enter();
  return false;
}

bool Span::begin_any(detail::TracerState* tracer, std::string_view name, const SpanOptions* options, bool more) noexcept {
  new (&state_) detail::OpenSpan;  // without parentheses: they would clear all of it first
  const SpanContext* parent;
  const bool record = options == nullptr ? detail::begin_span(state_, tracer, nullptr, parent)
                                         : detail::begin_span(state_, tracer, options, parent);
  enter();
  if (!record || !detail::record_span(state_, name, options, parent, false)) return false;
  state_.exceptions = detail::uncaught_exceptions();
  if (!more) detail::open_block(state_.block);
  return true;
}

void Span::open_with(Attributes attributes, const SpanOptions* options) noexcept {
  detail::open_with(state_, attributes, options != nullptr ? &options->links : nullptr);
}

void Span::pass(const TraceContext& context) noexcept {
  new (&state_) detail::OpenSpan;
  state_.active.span = context.span;
  state_.active.baggage = context.baggage;
  enter();
}

void Span::end(Timestamp time) noexcept {
  if (active_ != nullptr && state_.block != nullptr) detail::close_span(state_, time);
}

void Span::finish() noexcept {
  if (state_.block != nullptr) {
    if (detail::uncaught_exceptions() > state_.exceptions) [[unlikely]] {
      // The scope is left by an exception, whose type is known only once somebody catches it.
      status(StatusCode::error, "the scope was left by an exception");
    }
    detail::close_span(state_, {});
  }
  detail::current = state_.active.previous;
  std::destroy_at(&state_);
}

DetachedSpan Tracer::start_span(std::string_view name, Attributes attributes, const SpanOptions& options) const noexcept {
  const bool on = state_->recording.load(std::memory_order_acquire);
  if (!on && !options.parent) return {};
  auto* span = new (std::nothrow) detail::OpenSpan;
  if (span == nullptr) return {};
  if (on) {
    const SpanContext* parent;
    if (detail::begin_span(*span, static_cast<detail::TracerState*>(state_), &options, parent) &&
        detail::record_span(*span, name, &options, parent, true)) {
      detail::open_with(*span, attributes, &options.links);
    }
  } else {
    span->active.span = options.parent->span;
    span->active.baggage = options.parent->baggage;
    span->active.open = span;
  }
  return DetachedSpan(span);
}

DetachedSpan::DetachedSpan(DetachedSpan&& other) noexcept : SpanHandle(std::exchange(other.active_, nullptr)) {}

DetachedSpan& DetachedSpan::operator=(DetachedSpan&& other) noexcept {
  std::swap(active_, other.active_);
  return *this;
}

DetachedSpan::~DetachedSpan() {
  end();
  delete open();
}

void DetachedSpan::end(Timestamp time) noexcept {
  // One that came through a fork may come with its lock held.
  if (active_ == nullptr || open()->generation != seen_generation()) return;
  const detail::SpanLock lock(*open());
  if (open()->block != nullptr) detail::close_span(*open(), time);
}

SpanContext Tracer::new_root(std::string_view) const noexcept {
  SpanContext context;
  context.trace_id = TraceId::random();
  context.span_id = SpanId::random();
  context.flags = SpanContext::kRandom;
  const bool on = state_->recording.load(std::memory_order_acquire);
  // Without tracing nobody has decided against it: whoever records later may.
  if (!on || detail::sampled(*static_cast<detail::TracerState*>(state_)->recording_of, nullptr, context.trace_id)) context.flags |= SpanContext::kSampled;
  return context;
}

bool Tracer::enabled() const noexcept {
  return state_->recording.load(std::memory_order_acquire) && detail::here(*static_cast<detail::TracerState*>(state_)->recording_of);
}

// ---- context

TraceContext current_context() {
  if (detail::current == nullptr) return {};
  return {detail::current->span, detail::current->baggage};
}

ContextScope::ContextScope(const TraceContext& context) {
  entry_.span = context.span;
  entry_.baggage = context.baggage;
  entry_.previous = detail::current;
  detail::current = &entry_;
}

ContextScope::~ContextScope() { detail::current = entry_.previous; }

// ---- sampler

std::string Sampler::description() const {
  char number[32];
  std::snprintf(number, sizeof number, "TraceIdRatioBased{%.6f}", ratio);
  const auto parent_based = [](const std::string& root) {
    return "ParentBased{root:" + root +
           ",remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,"
           "localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler}";
  };
  switch (kind) {
    case SamplerKind::always_on:
      return "AlwaysOnSampler";
    case SamplerKind::always_off:
      return "AlwaysOffSampler";
    case SamplerKind::traceidratio:
      return number;
    case SamplerKind::parentbased_always_on:
      return parent_based("AlwaysOnSampler");
    case SamplerKind::parentbased_always_off:
      return parent_based("AlwaysOffSampler");
    case SamplerKind::parentbased_traceidratio:
      return parent_based(number);
  }
  return {};
}

}  // namespace waymark
