#include "crash/ledger.h"

#include <cstdio>
#include <optional>

namespace waymark::crash {
namespace {

std::optional<std::uint64_t> integer(const AnyMap& attributes, std::string_view key) {
  const AnyValue* value = find(attributes, key);
  const auto* number = value ? std::get_if<std::int64_t>(&value->value) : nullptr;
  return number ? std::optional(static_cast<std::uint64_t>(*number)) : std::nullopt;
}

}  // namespace

Verdict& Verdict::operator+=(const Verdict& other) {
  finished += other.finished;
  open += other.open;
  finished_lost += other.finished_lost;
  open_lost += other.open_lost;
  corrupt += other.corrupt;
  duplicates += other.duplicates;
  disordered += other.disordered;
  return *this;
}

void Ledger::say(std::uint64_t& counter, std::string_view what, std::uint64_t number) {
  ++counter;
  if (++said_ > 5) return;
  std::fprintf(stderr, "crashtest: %.*s: thread %u, %s %llu\n", static_cast<int>(what.size()), what.data(),
               thread_of(number), is_outer(number) ? "outer" : "inner",
               static_cast<unsigned long long>(number & ((std::uint64_t{1} << 47) - 1)));
}

void Ledger::told(const Message& message) {
  switch (message.told) {
    case Told::opened:
      spans_[message.number].opened = true;
      break;
    case Told::attribute:
      spans_[message.number].set |= 1u << message.which;
      break;
    case Told::ending:
      spans_[message.number].ending = true;
      break;
    case Told::finished:
      spans_[message.number].finished = true;
      break;
    case Told::logged:
      logs_[message.number].told = true;
      break;
    case Told::ready:
    case Told::idle:
      break;
  }
}

void Ledger::unreadable(std::string_view why) {
  ++verdict_.corrupt;
  std::fprintf(stderr, "crashtest: unreadable: %.*s\n", static_cast<int>(why.size()), why.data());
}

void Ledger::delivered(const ReadTelemetry& telemetry) {
  for (const ReadSpan& span : telemetry.spans) take(span);
  for (const ReadLog& log : telemetry.logs) take(log);
}

void Ledger::take(const ReadSpan& span) {
  const auto number = integer(span.attributes, "number");
  // A kill between a span's birth and its first attribute leaves one without a number, interrupted.
  const AnyValue* interrupted = find(span.attributes, "workflow.interrupted");
  const bool is_interrupted = interrupted != nullptr && interrupted->value == AnyValue{true}.value;
  if (!number) {
    if (!is_interrupted || !span.context.valid()) say(verdict_.corrupt, "a span without a number", 0);
    return;
  }
  SpanEntry& entry = spans_[*number];
  const bool first = entry.attributes.empty();
  if (!first) {
    ++verdict_.duplicates;
    if (entry.id != span.context.span_id) say(verdict_.corrupt, "two spans of one number", *number);
  }
  entry.id = span.context.span_id;
  entry.attributes.push_back(span.attributes);
  ++(is_interrupted ? entry.as_interrupted : entry.as_finished);
  if (span.name != (is_outer(*number) ? "outer" : "inner") || !span.context.valid() || span.end < span.start ||
      find_string(span.resource, "service.name") != "crash-test" || span.scope.name != "crash test" ||
      is_interrupted != (span.status == StatusCode::error)) {
    say(verdict_.corrupt, "a span that says something else than was recorded", *number);
  }
  if (first && !is_outer(*number)) {
    std::uint64_t& last = last_span_[thread_of(*number)];
    if (*number < last) say(verdict_.disordered, "a span that came after a newer one of its thread", *number);
    last = *number;
  }
}

void Ledger::take(const ReadLog& log) {
  const auto number = integer(log.attributes, "number");
  if (!number || to_text(log.body) != text_of(*number) || log.severity != static_cast<std::uint8_t>(Severity::info) ||
      find_string(log.resource, "service.name") != "crash-test" || log.scope.name != "crash test" ||
      !log.span_id.valid()) {
    say(verdict_.corrupt, "a log record that says something else than was recorded", number.value_or(0));
    return;
  }
  LogEntry& entry = logs_[*number];
  entry.span = log.span_id;
  if (entry.delivered++ > 0) {
    ++verdict_.duplicates;
    return;
  }
  std::uint64_t& last = last_log_[thread_of(*number)];
  if (*number < last) say(verdict_.disordered, "a log record that came after a newer one of its thread", *number);
  last = *number;
}

// Empty: all that was told to be set is there, as it was set.
std::string_view Ledger::wrong_attribute(const AnyMap& attributes, std::uint64_t number, std::uint32_t set) {
  const auto was = [&](Which which) { return (set >> which & 1) != 0; };
  if (find_string(attributes, "text") != text_of(number)) return "the attribute text is missing or wrong";
  const auto count = integer(attributes, "count");
  if ((was(kCount) || count) && count != number % 1000) return "the attribute count is missing or wrong";
  const bool large = find(attributes, "large") != nullptr;
  if ((was(kLarge) || large) && find_string(attributes, "large") != large_of(number)) {
    return "the attribute large is missing or wrong";
  }
  const auto again = integer(attributes, "again");
  if (was(kAgainTwo) ? again != 2 : was(kAgainOne) && again != 1 && again != 2) {
    return "the attribute again is missing or wrong";
  }
  return {};
}

Verdict Ledger::judge() {
  for (const auto& [number, entry] : spans_) {
    if (entry.as_finished > 0 && entry.as_interrupted > 0) {
      say(verdict_.corrupt, "a span finished and interrupted", number);
    }
    for (const AnyMap& attributes : entry.attributes) {
      // Told or not, what was delivered is right; what was told to be set is checked below.
      if (!entry.opened && find(attributes, "text") == nullptr) continue;
      const std::string_view wrong = wrong_attribute(attributes, number, entry.set);
      if (wrong.empty()) continue;
      say(entry.finished ? verdict_.corrupt : verdict_.open_lost, wrong, number);
    }
    if (entry.finished) {
      ++verdict_.finished;
      if (entry.as_finished == 0) say(verdict_.finished_lost, "a finished span was lost", number);
    } else if (entry.opened) {
      ++verdict_.open;
      if (entry.attributes.empty()) say(verdict_.open_lost, "an open span was not reported", number);
      if (entry.as_finished > 0 && !entry.ending) {
        say(verdict_.open_lost, "an open span was delivered as finished", number);
      }
    }
  }
  for (const auto& [number, entry] : logs_) {
    if (entry.told) ++verdict_.finished;
    if (entry.told && entry.delivered == 0) say(verdict_.finished_lost, "a log record was lost", number);
    if (entry.delivered == 0) continue;
    const auto span = spans_.find(number);
    if (span != spans_.end() && !span->second.attributes.empty() && span->second.id != entry.span) {
      say(verdict_.corrupt, "a log record with another span's id", number);
    }
  }
  return verdict_;
}

}  // namespace waymark::crash
