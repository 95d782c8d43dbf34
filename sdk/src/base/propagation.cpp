// The W3C formats, Trace Context Level 2 (traceparent, tracestate) and Baggage, and Zipkin's B3.

#include "waymark/propagation.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <utility>

#include "base/utf8.h"
#include "base/propagators.h"

namespace waymark {
namespace {

constexpr std::size_t kTracestateMembers = 32;
constexpr std::size_t kTracestateKey = 256;
constexpr std::size_t kTracestateValue = 256;
constexpr std::size_t kBaggageMembers = 64;
constexpr std::size_t kBaggageBytes = 8192;

constexpr bool lower_or_digit(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

constexpr char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool same_name(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

// HTTP's optional white space.
std::string_view trimmed(std::string_view text) noexcept {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Calls `take` with each trimmed part until it returns false; true if it never did.
template <typename Take>
bool each_member(std::string_view list, Take&& take) {
  for (;;) {
    const auto comma = list.find(',');
    if (!take(trimmed(list.substr(0, comma)))) return false;
    if (comma == std::string_view::npos) return true;
    list.remove_prefix(comma + 1);
  }
}

bool tracestate_key(std::string_view key) noexcept {
  if (key.empty() || key.size() > kTracestateKey || !lower_or_digit(key.front())) return false;
  return std::all_of(key.begin(), key.end(), [](char c) {
    return lower_or_digit(c) || c == '_' || c == '-' || c == '*' || c == '/' || c == '@';
  });
}

bool tracestate_value(std::string_view value) noexcept {
  if (value.empty() || value.size() > kTracestateValue || value.back() == ' ') return false;
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~' && c != ',' && c != '='; });
}

using Members = std::vector<std::pair<std::string_view, std::string_view>>;

// Of a list that parse() has made.
Members members_of(std::string_view header) {
  Members members;
  if (header.empty()) return members;
  each_member(header, [&](std::string_view member) {
    const auto equals = member.find('=');
    members.emplace_back(member.substr(0, equals), member.substr(equals + 1));
    return true;
  });
  return members;
}

std::shared_ptr<const std::string> joined(const Members& members) {
  if (members.empty()) return nullptr;
  std::string text;
  for (const auto& [key, value] : members) {
    if (!text.empty()) text += ',';
    text.append(key).append(1, '=').append(value);
  }
  return std::make_shared<const std::string>(std::move(text));
}

// RFC 7230's tchar.
constexpr bool token_char(char c) noexcept {
  return lower_or_digit(lower(c)) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool token(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), token_char);
}

constexpr bool baggage_octet(char c) noexcept {
  return c > ' ' && c <= '~' && c != '"' && c != ',' && c != ';' && c != '\\';
}

// Metadata travels verbatim, so it must not be able to break out of its member or its header.
bool metadata_text(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= ' ' && c <= '~' && c != ',') || c == '\t'; });
}

constexpr int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

// A "%" that no two digits follow stays as it is; "+" is a plus. What is no UTF-8 becomes U+FFFD.
std::string decoded(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = hex_value(text[i + 1]);
      const int low = hex_value(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out += static_cast<char>(high << 4 | low);
        i += 2;
        continue;
      }
    }
    out += text[i];
  }
  return valid_utf8(out) ? out : sanitized(out);
}

void append_encoded(std::string& out, std::string_view value) {
  static constexpr char digits[] = "0123456789ABCDEF";
  for (const char c : value) {
    if (baggage_octet(c) && c != '%') {
      out += c;
    } else {
      out += '%';
      out += digits[static_cast<unsigned char>(c) >> 4];
      out += digits[static_cast<unsigned char>(c) & 0x0f];
    }
  }
}

void put(std::vector<Baggage::Entry>& entries, Baggage::Entry entry) {
  const auto same = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.name == entry.name; });
  if (same == entries.end()) {
    entries.push_back(std::move(entry));
  } else {
    *same = std::move(entry);
  }
}

std::string joined_header(const std::vector<std::string>& values) {
  std::string header;
  for (const std::string& value : values) {
    if (!header.empty()) header += ',';
    header += value;
  }
  return header;
}

void erase_header(Headers& headers, std::string_view name) {
  std::erase_if(headers, [&](const auto& header) { return same_name(header.first, name); });
}

// B3's ids and sampling state. 16 digits of a trace id are the lower half of it. Debug means sampled, and more that has
// no place here; a state that is left out is the receiver's to decide, and "not sampled" for us.
std::optional<SpanContext> b3_context(std::string_view trace_id, std::string_view span_id, bool sampled) {
  SpanContext context;
  const std::string padded = trace_id.size() == 16 ? std::string(16, '0').append(trace_id) : std::string(trace_id);
  const auto trace = TraceId::from_hex(padded);
  const auto span = SpanId::from_hex(span_id);
  if (!trace || !trace->valid() || !span || !span->valid()) return std::nullopt;
  context.trace_id = *trace;
  context.span_id = *span;
  context.flags = sampled ? SpanContext::kSampled : 0;
  context.remote = true;
  return context;
}

// `b3: {trace id}-{span id}[-{0|1|d}[-{parent's span id}]]`, or only a state, which names no span.
std::optional<SpanContext> from_b3(std::string_view header) {
  const auto text = trimmed(header);
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= text.size() && parts.size() < 5;) {
    const std::size_t dash = std::min(text.find('-', at), text.size());
    parts.push_back(text.substr(at, dash - at));
    at = dash + 1;
  }
  if (parts.size() < 2 || parts.size() > 4) return std::nullopt;
  const std::string_view state = parts.size() > 2 ? parts[2] : "0";
  if (state != "0" && state != "1" && state != "d") return std::nullopt;
  if (parts.size() == 4 && !SpanId::from_hex(parts[3])) return std::nullopt;
  return b3_context(parts[0], parts[1], state != "0");
}

// The one header before the many.
std::optional<SpanContext> extract_b3(const HeaderGetter& get) {
  const auto only = [&](std::string_view name) {
    const auto values = get(name);
    return values.size() == 1 ? std::string(trimmed(values.front())) : std::string();
  };
  if (auto span = from_b3(only("b3"))) return span;
  const std::string sampled = only("x-b3-sampled");
  return b3_context(only("x-b3-traceid"), only("x-b3-spanid"),
                    only("x-b3-flags") == "1" || sampled == "1" || sampled == "true");
}

// A configuration file's, said before the first use.
std::atomic<const trace::Propagators*> preferred{nullptr};

// Read once, at the first use: propagation works before anything is configured, and where the SDK is disabled. What is
// wrong with the value is said by the configure calls, which read it too.
trace::Propagators chosen_propagators() {
  static const trace::Propagators chosen = [] {
    std::vector<std::string> warnings;
    const char* value = std::getenv("OTEL_PROPAGATORS");
    const trace::Propagators* other = preferred.load(std::memory_order_acquire);
    if ((value == nullptr || *value == '\0') && other != nullptr) return *other;
    return trace::parse_propagators(value ? value : "", warnings);
  }();
  return chosen;
}

}  // namespace

TraceState TraceState::parse(std::string_view header) {
  Members members;
  const bool well_formed = each_member(header, [&](std::string_view member) {
    if (member.empty()) return true;
    const auto equals = member.find('=');
    if (equals == std::string_view::npos) return false;
    const auto key = member.substr(0, equals);
    const auto value = member.substr(equals + 1);
    if (!tracestate_key(key) || !tracestate_value(value)) return false;
    // The first, which is the newest, stands for its key.
    const bool known = std::any_of(members.begin(), members.end(), [&](const auto& m) { return m.first == key; });
    if (!known) members.emplace_back(key, value);
    return members.size() <= kTracestateMembers;
  });
  TraceState state;
  if (well_formed) state.text_ = joined(members);
  return state;
}

std::optional<std::string> TraceState::get(std::string_view key) const {
  for (const auto& [k, value] : members_of(header())) {
    if (k == key) return std::string(value);
  }
  return std::nullopt;
}

TraceState TraceState::set(std::string_view key, std::string_view value) const {
  if (!tracestate_key(key) || !tracestate_value(value)) return *this;
  Members members = members_of(header());
  std::erase_if(members, [&](const auto& member) { return member.first == key; });
  members.insert(members.begin(), {key, value});
  if (members.size() > kTracestateMembers) members.pop_back();
  TraceState state;
  state.text_ = joined(members);
  return state;
}

TraceState TraceState::remove(std::string_view key) const {
  Members members = members_of(header());
  if (std::erase_if(members, [&](const auto& member) { return member.first == key; }) == 0) return *this;
  TraceState state;
  state.text_ = joined(members);
  return state;
}

Baggage Baggage::parse(std::string_view header) {
  // Bounded as the header that we would send: whole members, so nothing that a peer must be able to rely on is lost.
  std::size_t bytes = 0;
  std::vector<Entry> entries;
  each_member(header, [&](std::string_view member) {
    bytes += member.size() + 1;
    if (bytes > kBaggageBytes + 1) return false;
    const auto semicolon = member.find(';');
    const auto pair = trimmed(member.substr(0, semicolon));
    std::string_view metadata;
    if (semicolon != std::string_view::npos) metadata = trimmed(member.substr(semicolon + 1));
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos) return true;
    const auto name = trimmed(pair.substr(0, equals));
    const auto value = trimmed(pair.substr(equals + 1));
    const bool octets = std::all_of(value.begin(), value.end(), baggage_octet);
    if (!token(name) || !octets || !metadata_text(metadata)) return true;
    put(entries, {std::string(name), decoded(value), std::string(metadata)});
    return entries.size() < kBaggageMembers;
  });
  Baggage baggage;
  if (!entries.empty()) baggage.entries_ = std::make_shared<const std::vector<Entry>>(std::move(entries));
  return baggage;
}

const std::vector<Baggage::Entry>& Baggage::entries() const noexcept {
  static const std::vector<Entry> none;
  return entries_ ? *entries_ : none;
}

std::optional<std::string> Baggage::get(std::string_view name) const {
  for (const Entry& entry : entries()) {
    if (entry.name == name) return entry.value;
  }
  return std::nullopt;
}

Baggage Baggage::set(std::string_view name, std::string_view value, std::string_view metadata) const {
  if (name.empty()) return *this;
  std::vector<Entry> copy = entries();
  put(copy, {std::string(name), std::string(value), std::string(metadata)});
  Baggage baggage;
  baggage.entries_ = std::make_shared<const std::vector<Entry>>(std::move(copy));
  return baggage;
}

Baggage Baggage::remove(std::string_view name) const {
  std::vector<Entry> copy = entries();
  if (std::erase_if(copy, [&](const Entry& entry) { return entry.name == name; }) == 0) return *this;
  Baggage baggage;
  if (!copy.empty()) baggage.entries_ = std::make_shared<const std::vector<Entry>>(std::move(copy));
  return baggage;
}

std::string Baggage::header() const {
  std::string header;
  std::size_t count = 0;
  for (const Entry& entry : entries()) {
    if (count == kBaggageMembers) break;
    if (!token(entry.name) || !metadata_text(entry.metadata)) continue;
    const std::size_t before = header.size();
    if (before != 0) header += ',';
    header.append(entry.name).append(1, '=');
    append_encoded(header, entry.value);
    if (!entry.metadata.empty()) header.append(1, ';').append(entry.metadata);
    if (header.size() > kBaggageBytes) {
      header.resize(before);  // this one does not fit; a smaller one may
    } else {
      ++count;
    }
  }
  return header;
}

std::string to_traceparent(const SpanContext& context) {
  if (!context.valid()) return {};
  std::string text = "00-" + context.trace_id.hex() + "-" + context.span_id.hex() + "-0";
  text += static_cast<char>('0' + (context.flags & (SpanContext::kSampled | SpanContext::kRandom)));
  return text;
}

std::optional<SpanContext> from_traceparent(std::string_view traceparent, std::string_view tracestate) {
  constexpr std::size_t kLength = 55;  // of version 00: 2 + 32 + 16 + 2 digits, three dashes
  const auto text = trimmed(traceparent);
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;

  const auto lower_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  const auto version = text.substr(0, 2);
  if (!lower_hex(version[0]) || !lower_hex(version[1]) || version == "ff") return std::nullopt;
  if (text.size() > kLength && (version == "00" || text[kLength] != '-')) return std::nullopt;
  if (!lower_hex(text[53]) || !lower_hex(text[54])) return std::nullopt;

  const auto trace_id = TraceId::from_hex(text.substr(3, 32));
  const auto span_id = SpanId::from_hex(text.substr(36, 16));
  if (!trace_id || !trace_id->valid() || !span_id || !span_id->valid()) return std::nullopt;

  SpanContext context;
  context.trace_id = *trace_id;
  context.span_id = *span_id;
  context.flags = static_cast<std::uint8_t>(hex_value(text[53]) << 4 | hex_value(text[54]));
  context.remote = true;
  context.trace_state = TraceState::parse(tracestate);
  return context;
}

namespace trace {

void prefer_propagators(Propagators propagators) {
  // Never freed: it may be read at any time, and a process says it once or twice.
  preferred.store(new Propagators(propagators), std::memory_order_release);
}

bool choose_propagator(Propagators& chosen, std::string_view name) {
  if (same_name(name, "tracecontext")) {
    chosen.trace_context = true;
    chosen.b3_last = false;
  } else if (same_name(name, "baggage")) {
    chosen.baggage = true;
  } else if (same_name(name, "b3") || same_name(name, "b3multi")) {
    (same_name(name, "b3") ? chosen.b3 : chosen.b3_multi) = true;
    chosen.b3_last = true;
  } else {
    return false;
  }
  return true;
}

std::vector<std::string> names_of(const Propagators& propagators) {
  std::vector<std::string> names;
  if (propagators.trace_context && propagators.b3_last) names.emplace_back("tracecontext");
  if (propagators.b3) names.emplace_back("b3");
  if (propagators.b3_multi) names.emplace_back("b3multi");
  if (propagators.trace_context && !propagators.b3_last) names.emplace_back("tracecontext");
  if (propagators.baggage) names.emplace_back("baggage");
  if (names.empty()) names.emplace_back("none");
  return names;
}

Propagators parse_propagators(std::string_view value, std::vector<std::string>& warnings) {
  Propagators chosen{.trace_context = false, .baggage = false};
  bool none = false;
  each_member(value, [&](std::string_view name) {
    if (same_name(name, "none")) {
      none = true;
    } else if (!choose_propagator(chosen, name) && !name.empty()) {
      warnings.push_back("OTEL_PROPAGATORS: '" + std::string(name.substr(0, 64)) +
                         "' is not supported and is left out; write tracecontext, baggage, b3, b3multi or none");
    }
    return true;
  });
  if (none) return {.trace_context = false, .baggage = false};
  if (chosen == Propagators{.trace_context = false, .baggage = false}) return {};
  return chosen;
}

void inject(const TraceContext& context, const HeaderSetter& set, Propagators propagators) {
  if (propagators.trace_context && context.span.valid()) {
    set("traceparent", to_traceparent(context.span));
    if (!context.span.trace_state.empty()) set("tracestate", context.span.trace_state.header());
  }
  if (propagators.b3 && context.span.valid()) {
    set("b3", context.span.trace_id.hex() + "-" + context.span.span_id.hex() + (context.span.sampled() ? "-1" : "-0"));
  }
  if (propagators.b3_multi && context.span.valid()) {
    set("x-b3-traceid", context.span.trace_id.hex());
    set("x-b3-spanid", context.span.span_id.hex());
    set("x-b3-sampled", context.span.sampled() ? "1" : "0");
  }
  if (propagators.baggage) {
    const std::string header = context.baggage.header();
    if (!header.empty()) set("baggage", header);
  }
}

TraceContext extract(const HeaderGetter& get, const TraceContext& base, Propagators propagators) {
  TraceContext context = base;
  std::optional<SpanContext> by_b3;
  if (propagators.b3 || propagators.b3_multi) by_b3 = extract_b3(get);
  if (by_b3 && !propagators.b3_last) context.span = *by_b3;
  if (propagators.trace_context) {
    // Two traceparent headers contradict each other, and neither is to be believed.
    const auto traceparent = get("traceparent");
    if (traceparent.size() == 1) {
      if (auto span = from_traceparent(traceparent.front(), joined_header(get("tracestate")))) {
        context.span = *std::move(span);
      }
    }
  }
  if (by_b3 && propagators.b3_last) context.span = *std::move(by_b3);
  if (propagators.baggage) {
    Baggage baggage = Baggage::parse(joined_header(get("baggage")));
    if (!baggage.empty()) context.baggage = std::move(baggage);
  }
  return context;
}

}  // namespace trace

void inject(const TraceContext& context, const HeaderSetter& set) { trace::inject(context, set, chosen_propagators()); }

TraceContext extract(const HeaderGetter& get, const TraceContext& base) {
  return trace::extract(get, base, chosen_propagators());
}

void inject(const TraceContext& context, Headers& headers) {
  inject(context, [&](std::string_view name, std::string_view value) {
    // What an earlier call left must not stay beside it: another spelling, or the tracestate of another trace.
    erase_header(headers, name);
    if (name == "traceparent") erase_header(headers, "tracestate");
    headers.emplace(name, value);
  });
}

TraceContext extract(const Headers& headers, const TraceContext& base) {
  return extract(
      [&](std::string_view name) {
        std::vector<std::string> values;
        for (const auto& [key, value] : headers) {
          if (same_name(key, name)) values.push_back(value);
        }
        return values;
      },
      base);
}

}  // namespace waymark
