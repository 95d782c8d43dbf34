#include "crash/ledger.h"

#include <charconv>
#include <cstdio>
#include <optional>
#include <set>

namespace waymark::crash {
namespace {

std::optional<std::uint64_t> integer(const AnyMap& attributes, std::string_view key) {
  const AnyValue* value = find(attributes, key);
  const auto* number = value ? std::get_if<std::int64_t>(&value->value) : nullptr;
  return number ? std::optional(static_cast<std::uint64_t>(*number)) : std::nullopt;
}

// What a crash handler adds.
bool is_crash(bool named_so, const AnyMap& attributes) {
  return named_so && find_string(attributes, "exception.type").starts_with("SIG");
}

// How often the attribute was set when it got the value that it has; 0: it has none, or none that it ever had.
unsigned again_in(const ReadSpan& span, std::uint64_t number) {
  const std::string_view text = find_string(span.attributes, "again");
  unsigned value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value != 0 && text == again_of(number, value) ? value : 0;
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

std::string Verdict::text() const {
  return std::to_string(finished_lost) + " of " + std::to_string(finished) + " finished lost, " +
         std::to_string(open_lost) + " of " + std::to_string(open) + " open lost, " + std::to_string(corrupt) +
         " corrupt, " + std::to_string(disordered) + " out of order";
}

void Ledger::say(std::uint64_t& counter, std::string_view what, std::uint64_t number) {
  ++counter;
  if (quiet_ || ++said_ > 5) return;
  std::fprintf(stderr, "crashtest: %.*s: thread %u, %s %llu\n", static_cast<int>(what.size()), what.data(),
               thread_of(number), name_of(number),
               static_cast<unsigned long long>(number & ((std::uint64_t{1} << 46) - 1)));
}

void Ledger::told(const Message& message) {
  switch (message.told) {
    case Told::opened:
      spans_[message.number].opened = true;
      break;
    case Told::set:
      spans_[message.number].set |= 1u << message.which;
      if (message.which == kAgain) spans_[message.number].again = message.value;
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
    case Told::turn:
    case Told::idle:
      break;
  }
}

void Ledger::unreadable(std::string_view why) {
  ++verdict_.corrupt;
  if (!quiet_) std::fprintf(stderr, "crashtest: unreadable: %.*s\n", static_cast<int>(why.size()), why.data());
}

void Ledger::delivered(const ReadTelemetry& telemetry) {
  for (const ReadSpan& span : telemetry.spans) take(span);
  for (const ReadLog& log : telemetry.logs) take(log);
}

void Ledger::take(const ReadSpan& span) {
  const auto number = integer(span.attributes, "number");
  for (const ReadEvent& event : span.events) {
    crash_told_ = crash_told_ || is_crash(event.name == "exception", event.attributes);
  }
  const AnyValue* interrupted = find(span.attributes, "workflow.interrupted");
  const bool is_interrupted = interrupted != nullptr && interrupted->value == AnyValue{true}.value;
  if (!number) {
    say(verdict_.corrupt, "a span without a number", 0);
    return;
  }
  SpanEntry& entry = spans_[*number];
  const bool first = entry.delivered() == 0;
  if (!first) {
    ++verdict_.duplicates;
    if (entry.id != span.context.span_id) say(verdict_.corrupt, "two spans of one number", *number);
  }
  entry.id = span.context.span_id;
  ++(is_interrupted ? entry.interrupted_times : entry.finished_times);
  if (recovery_ && ++entry.recovered_times > 1) say(verdict_.corrupt, "a span twice in one recovery", *number);
  if (span.name != name_of(*number) || !span.context.valid() || span.end < span.start ||
      find_string(span.resource, "service.name") != "crash-test" || span.scope.name != "crash test" ||
      is_interrupted != (span.status == StatusCode::error) || !span.links.empty() ||
      span.dropped_attributes + span.dropped_events + span.dropped_links != 0) {
    say(verdict_.corrupt, "a span that says something else than was recorded", *number);
  }
  const std::string_view wrong = invented(span, *number);
  if (!wrong.empty()) say(verdict_.corrupt, wrong, *number);
  const std::string_view lacks = entry.opened ? missing(span, entry, *number) : std::string_view();
  if (!lacks.empty()) say(entry.finished ? verdict_.corrupt : verdict_.open_lost, lacks, *number);
  if (first && kind_of(*number) == Kind::inner) {
    std::uint64_t& last = last_span_[thread_of(*number)];
    if (*number < last) say(verdict_.disordered, "a span that came after a newer one of its thread", *number);
    last = *number;
  }
}

void Ledger::take(const ReadLog& log) {
  if (is_crash(log.event_name == "process.crashed", log.attributes)) {
    crash_told_ = true;
    return;
  }
  const auto number = integer(log.attributes, "number");
  if (!number || to_text(log.body) != text_of(*number) || log.severity != static_cast<std::uint8_t>(Severity::info) ||
      find_string(log.resource, "service.name") != "crash-test" || log.scope.name != "crash test" ||
      !log.span_id.valid()) {
    say(verdict_.corrupt, "a log record that says something else than was recorded", number.value_or(0));
    return;
  }
  LogEntry& entry = logs_[*number];
  entry.span = log.span_id;
  if (recovery_ && ++entry.recovered > 1) say(verdict_.corrupt, "a log record twice in one recovery", *number);
  if (entry.delivered++ > 0) {
    ++verdict_.duplicates;
    return;
  }
  std::uint64_t& last = last_log_[thread_of(*number)];
  if (*number < last) say(verdict_.disordered, "a log record that came after a newer one of its thread", *number);
  last = *number;
}

std::string_view Ledger::invented(const ReadSpan& span, std::uint64_t number) {
  if (find(span.attributes, "text") == nullptr) return "a span without all that it was started with";
  std::set<std::string_view> keys;
  for (const AnyEntry& entry : span.attributes) {
    const std::string_view key = entry.first;
    if (!keys.insert(key).second) return "an attribute stands there twice";
    bool good = key == "number" || key == "workflow.interrupted" || (key == "moved" && kind_of(number) == Kind::moved);
    const auto* text = std::get_if<std::string>(&entry.second.value);
    if (key == "text") good = text != nullptr && *text == text_of(number);
    if (key == "large") good = text != nullptr && *text == large_of(number);
    if (key == "count") good = integer(span.attributes, "count") == number % 1000;
    if (key == "again") good = again_in(span, number) != 0;
    if (!good) return "an attribute that nobody set";
  }
  int marks = 0;
  int crashes = 0;
  for (const ReadEvent& event : span.events) {
    if (is_crash(event.name == "exception", event.attributes)) {
      if (++crashes > 1 || span.status != StatusCode::error) return "a crash that was another's";
      continue;
    }
    if (++marks > 1) return "more events than there were";
    if (event.name != "mark" || event.attributes.size() != 1 || integer(event.attributes, "at") != number ||
        event.time < span.start) {
      return "an event that was not recorded";
    }
  }
  return {};
}

std::string_view Ledger::missing(const ReadSpan& span, const SpanEntry& entry, std::uint64_t number) {
  const auto was = [&](Which which) { return (entry.set >> which & 1) != 0; };
  const auto lacks = [&](std::string_view key) { return find(span.attributes, key) == nullptr; };
  if (was(kCount) && lacks("count")) return "the attribute count is missing";
  if (was(kLarge) && lacks("large")) return "the attribute large is missing";
  if (was(kMoved) && lacks("moved")) return "the attribute moved is missing";
  if (was(kMark) && span.events.empty()) return "the event is missing";
  // The next value may have been set already, and not been told.
  const unsigned again = again_in(span, number);
  if (again < entry.again || again > entry.again + 1) return "the attribute again has an old value";
  return {};
}

Verdict Ledger::judge() {
  for (const auto& [number, entry] : spans_) {
    if (entry.finished_times > 0 && entry.interrupted_times > 0) {
      say(verdict_.corrupt, "a span finished and interrupted", number);
    }
    if (entry.finished) {
      ++verdict_.finished;
      if (entry.finished_times == 0) say(verdict_.finished_lost, "a finished span was lost", number);
    } else if (entry.opened) {
      ++verdict_.open;
      if (entry.delivered() == 0) say(verdict_.open_lost, "an open span was not reported", number);
      if (entry.finished_times > 0 && !entry.ending) {
        say(verdict_.open_lost, "an open span was delivered as finished", number);
      }
    }
  }
  for (const auto& [number, entry] : logs_) {
    if (entry.told) ++verdict_.finished;
    if (entry.told && entry.delivered == 0) say(verdict_.finished_lost, "a log record was lost", number);
    if (entry.delivered == 0) continue;
    const auto span = spans_.find(number);
    if (span != spans_.end() && span->second.delivered() != 0 && span->second.id != entry.span) {
      say(verdict_.corrupt, "a log record with another span's id", number);
    }
  }
  return verdict_;
}

}  // namespace waymark::crash
