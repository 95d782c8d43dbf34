#include "export/destination.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <unordered_map>

#include "base/quiet_thread.h"
#include "base/thread.h"
#include "journal/fault.h"
#include "otlp/reader.h"
#include "transport/http.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

constexpr std::chrono::nanoseconds kAfterFault = std::chrono::seconds(1);  // no memory, say: not at once again

// Of JSON, before a batch was cut: about what a span with a few attributes has.
constexpr double kFramedShareOfJson = 0.5;

// How often a file of credentials is looked at while the backend refuses those it has.
constexpr std::chrono::nanoseconds kCredentialsLook = std::chrono::seconds(1);

[[noreturn]] void refuse(const DestinationConfig& config, std::string_view what) {
  throw Error(ErrorCode::invalid_argument,
              "destination \"" + config.name + "\" (" + std::string(signal_name(config.signal)) + "): " + std::string(what));
}

std::string milliseconds_text(std::chrono::nanoseconds time) {
  std::string text = std::to_string(static_cast<double>(time.count()) / 1e6);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text + " ms";
}

// What S2 calls worth another try beyond OTLP's list. The word beside the status is its own; an answer without one may be
// a proxy's, and of 409 it alone tells what will never be taken.
bool preset_retries(Preset preset, const Delivery& delivery) {
  if (preset != Preset::s2) return false;
  return delivery.status == 408 || delivery.status == 500 ||
         (delivery.status == 409 && (delivery.code.empty() || delivery.code == "transaction_conflict"));
}

// A span filter's question about a record: the span as a value, under its scope and resource.
class SpanFilter {
 public:
  SpanFilter(std::shared_ptr<const journal::Source> source, std::function<bool(const ReadSpan&)> filter)
      : source_(std::move(source)), filter_(std::move(filter)) {
    try {
      resource_ = otlp::read_resource(source_->resource());
    } catch (const Error&) {
      // A dead process's resource that can't be read: the filter sees none.
    }
  }

  bool keeps(const journal::Record& record) {
    ReadSpan span = otlp::read_span(record.body);
    ReadScope& known = scope(record.scope);
    // Lent, not copied: the span is the filter's for the call only.
    span.scope = std::move(known);
    span.resource = std::move(resource_);
    const auto give_back = [&] {
      known = std::move(span.scope);
      resource_ = std::move(span.resource);
    };
    try {
      const ProgramCode code;
      const bool keep = filter_(span);
      give_back();
      return keep;
    } catch (...) {
      give_back();
      throw;
    }
  }

 private:
  ReadScope& scope(std::uint16_t id) {
    const auto known = scopes_.find(id);
    if (known != scopes_.end()) return known->second;
    const journal::Scope encoded = source_->scope(id);
    ReadScope read = otlp::read_scope(encoded.encoded);
    read.schema_url = encoded.schema_url;
    return scopes_.emplace(id, std::move(read)).first->second;
  }

  std::shared_ptr<const journal::Source> source_;
  std::function<bool(const ReadSpan&)> filter_;
  AnyMap resource_;
  std::unordered_map<std::uint16_t, ReadScope> scopes_;
};

void add(Counts& sum, const Counts& more) noexcept {
  sum.offered += more.offered;
  sum.delivered += more.delivered;
  sum.rejected += more.rejected;
  sum.dropped += more.dropped;
  sum.filtered += more.filtered;
  sum.pending += more.pending;
}

// What was counted since `before`: what was pending then counts as offered to us, so that the sum still holds.
Counts since(const Counts& before, const Counts& now) noexcept {
  return {.offered = now.offered - before.offered + before.pending,
          .delivered = now.delivered - before.delivered,
          .rejected = now.rejected - before.rejected,
          .dropped = now.dropped - before.dropped,
          .filtered = now.filtered - before.filtered,
          .pending = now.pending};
}

// The headers of its first request, and in `file` those of its headers_file, where it has one.
HeaderList first_headers(const DestinationConfig& config, std::shared_ptr<HeadersFile>& file) {
  HeaderList headers = config.headers;
  if (!config.headers_file.empty()) {
    file = std::make_shared<HeadersFile>(config.headers_file);
    headers = merged(std::move(headers), file->headers());
  }
  if (config.preset == Preset::s2 && config.output == Output::otlp) {
    const std::string* token = find_header(headers, "Authorization");
    if (!token || token->empty()) {
      refuse(config, "`headers` has no Authorization; the preset s2 expects `Authorization: Bearer <access token>`, there or in "
                     "`headers_file`");
    }
  }
  return headers;
}

std::string records_text(std::uint64_t n) { return std::to_string(n) + (n == 1 ? " record" : " records"); }

}  // namespace

void check(const DestinationConfig& config) {
  constexpr std::size_t kLeastBytes = 1024;
  constexpr std::size_t kMostBytes = 64 * 1024 * 1024;
  constexpr std::chrono::nanoseconds kYear = std::chrono::hours(24 * 365);
  constexpr std::chrono::nanoseconds kZero{0};
  const BatchConfig& batch = config.batch;
  const RetryConfig& retry = config.retry;
  if (config.name.empty()) refuse(config, "`name` is empty; a destination needs one, since its position is kept under it");
  if (static_cast<std::size_t>(config.signal) >= kSignals) refuse(config, "`signal` is no value of waymark::Signal");
  if (batch.max_bytes < kLeastBytes || batch.max_bytes > kMostBytes) {
    refuse(config, "`batch.max_bytes` is " + std::to_string(batch.max_bytes) + "; expected 1024 to 67108864");
  }
  if (batch.min_bytes > batch.max_bytes) {
    refuse(config, "`batch.min_bytes` is " + std::to_string(batch.min_bytes) + "; expected at most `batch.max_bytes`, which is " +
                       std::to_string(batch.max_bytes));
  }
  if (batch.interval <= kZero || batch.interval > kYear) {
    refuse(config, "`batch.interval` is " + milliseconds_text(batch.interval) + "; expected more than 0 and at most a year");
  }
  if (config.timeout < kZero || config.timeout > kYear) {
    refuse(config, "`timeout` is " + milliseconds_text(config.timeout) + "; expected 0 for none, or at most a year");
  }
  if (config.max_response_bytes < kLeastBytes || config.max_response_bytes > kMostBytes) {
    refuse(config, "`max_response_bytes` is " + std::to_string(config.max_response_bytes) + "; expected 1024 to 67108864");
  }
  if (retry.initial <= kZero || retry.initial > kYear) {
    refuse(config, "`retry.initial` is " + milliseconds_text(retry.initial) + "; expected more than 0 and at most a year");
  }
  if (retry.maximum < retry.initial || retry.maximum > kYear) {
    refuse(config, "`retry.maximum` is " + milliseconds_text(retry.maximum) + "; expected at least `retry.initial`, which is " +
                       milliseconds_text(retry.initial) + ", and at most a year");
  }
  if (!(retry.multiplier >= 1.0 && retry.multiplier <= 1000.0)) {
    refuse(config, "`retry.multiplier` is " + std::to_string(retry.multiplier) + "; expected 1 to 1000");
  }
  if (!(retry.jitter >= 0.0 && retry.jitter <= 1.0)) {
    refuse(config, "`retry.jitter` is " + std::to_string(retry.jitter) + "; expected 0 to 1");
  }
  if (retry.give_up_age < kZero || retry.give_up_age > kYear) {
    refuse(config, "`retry.give_up_age` is " + milliseconds_text(retry.give_up_age) + "; expected 0 for never, or at most a year");
  }
  if (config.rotation.max_age < kZero || config.rotation.max_age > kYear) {
    refuse(config, "`rotation.max_age` is " + milliseconds_text(config.rotation.max_age) + "; expected 0 for none, or at most a year");
  }
  if (config.rotation.files > 10'000) {
    refuse(config, "`rotation.files` is " + std::to_string(config.rotation.files) + "; expected 0 to 10000");
  }
  if (config.output == Output::otlp && config.enabled && !transport::is_http_url(config.url)) {
    refuse(config, "`url` is no http:// or https:// URL with a host; write for example http://localhost:4318/v1/traces");
  }
  if (config.output == Output::callback && !config.deliver) {
    refuse(config, "`deliver` is not set; a callback output needs a function to call");
  }
}

DestinationConfig with_preset(DestinationConfig config) {
  if (config.preset != Preset::s2 || config.batch_is_final) return config;
  constexpr BatchConfig kDefault;
  if (config.batch.interval == kDefault.interval) config.batch.interval = std::chrono::milliseconds(50);
  if (config.batch.max_bytes == kDefault.max_bytes) config.batch.max_bytes = 512 * 1024;
  if (config.batch.min_bytes == kDefault.min_bytes) {
    config.batch.min_bytes = std::min<std::size_t>(256 * 1024, config.batch.max_bytes);
  }
  return config;
}

Destination::Destination(DestinationConfig config, Diagnostics& diagnostics, DestinationHooks hooks)
    : name_(config.name),
      signal_(config.signal),
      title_(std::string(signal_name(config.signal)) + " to " + config.name),
      diagnostics_(diagnostics),
      hooks_(std::move(hooks)),
      settings_(checked(std::move(config), 0)) {
  apply_settings();
  thread_ = quiet_thread([this] { run(); });
}

Destination::~Destination() { stop(std::chrono::steady_clock::now()); }

std::shared_ptr<const Destination::Settings> Destination::checked(DestinationConfig config, std::uint64_t number) const {
  check(config);
  if (config.name != name_ || config.signal != signal_) refuse(config, "its name and signal can't be replaced; add another");
  config = with_preset(std::move(config));
  std::shared_ptr<HeadersFile> headers_file;
  std::shared_ptr<Sink> sink;
  if (config.enabled) {  // else nothing of it needs to be there yet
    DestinationConfig opened = config;
    opened.headers = first_headers(config, headers_file);
    sink = open_sink(opened);
    if (config.output == Output::otlp && config.tls.insecure_skip_verify) {
      diagnostics_.say(DiagnosticLevel::warning, title_ + ": tls.insecure_skip_verify is set: whoever answers at this address is "
                                                          "believed, and gets the records and the headers; give tls.ca_file instead");
    }
  }
  return std::make_shared<const Settings>(Settings{std::move(config), std::move(sink), std::move(headers_file), number});
}

void Destination::apply_settings() {
  const DestinationConfig& config = settings_->config;
  enough_records_ = config.batch.max_records;
  set_enough_bytes(encoding_of(config) == Encoding::json ? kFramedShareOfJson : 1.0);
  for (const auto& reader : readers_) {
    const bool lossy = config.lossy || !config.enabled;  // what gets nothing holds up nobody
    if (!reader->cursor) {
      if (reader->live && config.enabled) open_cursor(*reader);
    } else if (lossy != reader->lossy) {
      reader->lossy = lossy;
      static_cast<void>(reader->source->cursor(name_, signal_, lossy));  // the same one: ours goes on with it
    }
  }
}

void Destination::open_cursor(Reader& reader) {
  reader.lossy = settings_->config.lossy || !settings_->config.enabled;
  reader.cursor = reader.source->cursor(name_, signal_, reader.lossy);
  if (!reader.cursor) return;
  reader.settled = reader.cursor->position();
  if (!reader.live) reader.adopted = reader.cursor->counts();
}

void Destination::replace(DestinationConfig config) { replace_settings(checked(std::move(config), 0)); }

void Destination::replace(Destination&& checked) {
  checked.stop(std::chrono::steady_clock::now());
  replace_settings(checked.settings_);
}

void Destination::replace_settings(std::shared_ptr<const Settings> settings) {
  auto next = std::make_shared<Settings>(*settings);
  const std::lock_guard lock(mutex_);
  next->number = settings_->number + 1;
  settings_ = std::move(next);
  apply_settings();
  progress_.notify_all();  // what is disabled now owes nothing to a flush
  rouse();
}

bool Destination::add_source(std::shared_ptr<journal::Source> source, bool live) {
  auto reader = std::make_shared<Reader>();
  reader->source = std::move(source);
  reader->live = live;
  // A live one's cursor starts at its end; wake() tells of what comes.
  reader->look = !live;
  const std::lock_guard lock(mutex_);
  const bool known = std::ranges::any_of(readers_, [&](const auto& r) { return r->source == reader->source; });
  if (!live && (known || !settings_->config.enabled)) return false;
  if (settings_->config.enabled) open_cursor(*reader);
  if (!live && !reader->cursor) return false;
  readers_.push_back(std::move(reader));
  rouse();
  return true;
}

bool Destination::give_back(const std::shared_ptr<journal::Source>& source) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(readers_, [&](const auto& r) { return !r->live && r->source == source; });
  if (found == readers_.end() || !failing_ || *found == serving_) return false;
  let_go(std::shared_ptr<Reader>(*found));
  return true;
}

bool Destination::failing() const {
  const std::lock_guard lock(mutex_);
  return failing_;
}

bool Destination::enabled() const {
  const std::lock_guard lock(mutex_);
  return settings_->config.enabled;
}

void Destination::set_failing(bool failing) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(failing_, failing) == failing) return;
  }
  if (failing && hooks_.on_failing) hooks_.on_failing();
}

void Destination::wake(std::uint64_t records, std::uint64_t bytes) noexcept {
  if (records == 0) return;
  // The addition and the look at sleep_ stand in one order with the thread's store to sleep_ and its look at the sum: one
  // of the two sees the other.
  if (waiting_records_.load() == 0) waiting_since_.store(std::chrono::steady_clock::now());
  waiting_bytes_.fetch_add(bytes);
  waiting_records_.fetch_add(records);
  Sleep asleep = sleep_.load();
  if (asleep == Sleep::awake || asleep == Sleep::until_told || (asleep == Sleep::until_due && !enough())) return;
  if (!sleep_.compare_exchange_strong(asleep, Sleep::awake)) return;
  { const std::lock_guard lock(mutex_); }  // so that it either waits already or sees that it need not
  work_.notify_all();
}

void Destination::set_enough_bytes(double framed_share) noexcept {
  const BatchConfig& batch = settings_->config.batch;
  const std::size_t encoded = batch.min_bytes != 0 ? batch.min_bytes : batch.max_bytes;
  enough_bytes_ = static_cast<std::uint64_t>(static_cast<double>(encoded) * framed_share);
}

bool Destination::enough() const noexcept {
  const auto records = enough_records_.load();
  return waiting_bytes_.load() >= enough_bytes_.load() || (records != 0 && waiting_records_.load() >= records);
}

Deadline Destination::due_at() const noexcept {
  return waiting_since_.load() + std::max(settings_->config.batch.interval, patience_);
}

bool Destination::is_due() const noexcept {
  return waiting_records_.load() != 0 && (enough() || std::chrono::steady_clock::now() >= due_at());
}

bool Destination::over() const noexcept { return stopping_ && std::chrono::steady_clock::now() >= stop_deadline_; }

void Destination::rouse() noexcept {
  sleep_.store(Sleep::awake);
  work_.notify_all();
}

void Destination::sleep(std::unique_lock<std::mutex>& lock) {
  const auto roused = [this] { return sleep_.load() == Sleep::awake; };
  if (!settings_->config.enabled) {
    sleep_.store(Sleep::until_told);
    work_.wait(lock, roused);
  } else if (waiting_records_.load() == 0) {
    sleep_.store(Sleep::until_any);
    if (waiting_records_.load() == 0) work_.wait(lock, roused);
  } else {
    sleep_.store(Sleep::until_due);
    if (!is_due()) work_.wait_until(lock, due_at(), roused);
  }
  sleep_.store(Sleep::awake);
}

void Destination::claim() {
  claimed_since_ = waiting_since_.load();
  claimed_records_ = waiting_records_.exchange(0);
  claimed_bytes_ = waiting_bytes_.exchange(0);
  if (claimed_records_ == 0) return;
  for (const auto& reader : readers_) {
    if (reader->live) reader->look = true;
  }
}

std::shared_ptr<Destination::Reader> Destination::next() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (over()) return nullptr;
    const bool due = is_due();
    const bool enabled = settings_->config.enabled;
    const std::size_t count = readers_.size();
    serving_.reset();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = (turn_ + i) % count;
      Reader& reader = *readers_[at];
      if (!enabled && reader.live) continue;
      if (reader.look || !reader.live || due || reader.wanted > reader.settled || (stopping_ && !reader.drained)) {
        turn_ = at + 1;
        serving_ = readers_[at];
        return serving_;
      }
    }
    if (stopping_) return nullptr;
    sleep(lock);
  }
}

void Destination::run() noexcept {
  begin_own_thread(("wm-" + std::string(signal_name(signal_))).c_str());
  while (const auto reader = next()) {
    try {
      if (!serve(reader)) break;
    } catch (const std::exception& error) {
      if (reader->cursor) reader->cursor->abandon();
      note("fault", DiagnosticLevel::error, std::string("a batch could not be made (") + error.what() + "); trying again");
      std::uint64_t hurried = 0;
      std::uint64_t settings = 0;
      {
        const std::lock_guard lock(mutex_);
        reader->look = true;
        hurried = hurry_;
        settings = settings_->number;
      }
      if (!pause({.time = kAfterFault, .asked_for = true, .hurried = hurried, .settings = settings})) break;
    }
  }
  const std::lock_guard lock(mutex_);
  exited_ = true;
  progress_.notify_all();
}

bool Destination::serve(const std::shared_ptr<Reader>& reader) {
  std::shared_ptr<const Settings> settings;
  bool stopping = false;
  std::uint64_t wanted = 0;
  bool given_up = false;
  {
    const std::lock_guard lock(mutex_);
    settings = settings_;
    given_up = !settings->config.enabled && !reader->live;
    // Others may have to get what is in it, and it holds one of few places. Whoever enables us again offers it again.
    if (given_up) let_go(reader);
    stopping = stopping_;
    wanted = reader->wanted;
    if (reader->live) claim();
    reader->look = false;
  }
  if (given_up || !reader->cursor) {
    finish(reader);
    return true;
  }
  if (reader->envelope_of != settings->number) {
    reader->envelope =
        std::make_unique<Envelope>(*reader->source, settings->config.resource_attributes, encoding_of(settings->config));
    keep_by_filter(*reader, *settings);
    reader->envelope_of = settings->number;
  }
  if (learned_of_ != settings->number) {
    learned_of_ = settings->number;
    most_records_ = 0;
    patience_ = std::chrono::nanoseconds(0);
  }
  journal::Cursor& cursor = *reader->cursor;
  const auto& rules = settings->config.batch;
  const bool split = most_records_ != 0 && (rules.max_records == 0 || most_records_ < rules.max_records);
  BatchRules cut_by;
  cut_by.max_bytes = rules.max_bytes;
  cut_by.max_records = split ? most_records_ : rules.max_records;
  cut_by.minimum_severity = settings->config.minimum_severity;
  cut_by.keep = reader->keep ? &reader->keep : nullptr;
  batch_.cut(cursor, *reader->envelope, cut_by);
  if (batch_.records() > 0) {
    const std::lock_guard lock(mutex_);
    if (settings_->number == settings->number) set_enough_bytes(batch_.framed_share());
  }

  if (reader->live && !batch_.at_end()) {
    // Some of what was claimed stays: at least one record, which has waited as long as the oldest that was claimed.
    const auto left = [](std::uint64_t claimed, std::uint64_t taken) { return claimed > taken ? claimed - taken : 0; };
    waiting_bytes_.fetch_add(left(claimed_bytes_, batch_.taken_bytes()));
    waiting_since_.store(claimed_since_);
    waiting_records_.fetch_add(std::max<std::uint64_t>(1, left(claimed_records_, batch_.taken_records())));
  }
  if (batch_.oversized() > 0) {
    note("oversized", DiagnosticLevel::warning,
         records_text(batch_.oversized()) + " dropped: larger than a whole request may be (batch.max_bytes = " +
             std::to_string(rules.max_bytes) + ")");
  }

  if (batch_.unreadable() > 0) {
    note("unreadable", DiagnosticLevel::warning,
         records_text(batch_.unreadable()) + " dropped: their bytes are damaged, so that no JSON can be made of them");
  }

  journal::Cursor::Outcome outcome{.dropped = batch_.oversized() + batch_.unreadable(), .filtered = batch_.filtered()};
  if (journal::planted(journal::Fault::early_cursor) && batch_.records() > 0) {
    cursor.acknowledge(batch_.position(), {});
    journal::hold_fault_open();
  }
  if (batch_.records() > 0) {
    const auto begin = std::chrono::steady_clock::now();
    const auto before = outcome;
    switch (deliver(cursor, *settings, outcome)) {
      case Delivered::settled:
        if (hooks_.on_settled) {
          const char* error = outcome.rejected > before.rejected ? "rejected" : outcome.dropped > before.dropped ? "given_up" : "";
          hooks_.on_settled(std::chrono::steady_clock::now() - begin, error);
        }
        break;
      case Delivered::again: {
        cursor.abandon();
        const std::lock_guard lock(mutex_);
        reader->look = true;
        return true;
      }
      case Delivered::over: cursor.abandon(); return false;
    }
  }
  if (batch_.taken_records() > 0 || batch_.position() != cursor.position()) {
    cursor.acknowledge(batch_.position(), outcome);
  } else {
    cursor.abandon();
  }
  {
    const std::lock_guard lock(mutex_);
    // A read to the end has passed everything that stood there before, whatever position it is said to end at.
    reader->settled = batch_.at_end() ? std::max(batch_.position(), wanted) : batch_.position();
    if (batch_.at_end() && stopping) reader->drained = true;
    if (split && !batch_.at_end()) reader->look = true;  // the other parts were due as well
    progress_.notify_all();
  }
  if (!reader->live && batch_.at_end()) finish(reader);
  return true;
}

// Until the batch is settled: sent, refused, or given up. While it waits for its next try nothing is in flight, so that a
// full journal may take the oldest under a dead backend, and goes on for the others.
Destination::Delivered Destination::deliver(journal::Cursor& cursor, const Settings& settings,
                                            journal::Cursor::Outcome& outcome) {
  const DestinationConfig& config = settings.config;
  const std::uint64_t records = batch_.records();
  const auto give_up_age = config.retry.give_up_age;
  constexpr auto kNever = std::chrono::steady_clock::time_point::max();
  auto since = kNever;  // it is refused for reasons that count
  backoff_.reset();
  for (;;) {
    Wait wait{.settings = settings.number};
    bool last_chance = false;
    {
      const std::lock_guard lock(mutex_);
      if (over()) return Delivered::over;
      if (settings_->number != settings.number) return Delivered::again;
      sending_ = settings.sink;
      wait.hurried = hurry_;
      last_chance = stopping_;
    }
    if (give_up_age.count() > 0 && since == kNever) since = now();
    const Delivery delivery = settings.sink->send(batch_.pieces());
    {
      const std::lock_guard lock(mutex_);
      sending_.reset();
    }
    if (delivery.aborted) return Delivered::over;
    const std::string why = delivery.message.empty() ? "" : ": " + delivery.message;
    const auto patience = std::exchange(patience_, std::chrono::nanoseconds(0));

    if (delivery.outcome == Outcome::delivered) {
      const std::uint64_t refused = std::min(delivery.rejected, records);
      set_failing(false);
      outcome.delivered += records - refused;
      outcome.rejected += refused;
      if (refused > 0) {
        note("partial", DiagnosticLevel::warning, std::to_string(refused) + " of " + records_text(records) + " refused" + why);
      } else if (!delivery.message.empty()) {
        note("partial", DiagnosticLevel::warning, "all accepted, with a warning" + why);
      }
      // Slowly: each step beyond what the backend takes costs a request.
      if (most_records_ != 0 && records >= most_records_) most_records_ += std::max<std::size_t>(1, most_records_ / 16);
      return Delivered::settled;
    }

    if (delivery.refusal == Refusal::too_large && records > 1) {
      most_records_ = static_cast<std::size_t>(records / 2);
      note("split", DiagnosticLevel::warning,
           "a request of " + records_text(records) + " (" + std::to_string(batch_.bytes()) +
               " bytes) is too large for it; it is sent in parts, and a lower batch.max_bytes would spare the tries" + why);
      return Delivered::again;
    }

    // OTLP wants a batch that is answered with 401 or 403 to be dropped (RT-03). But the answer says nothing about the
    // records: every batch would be lost, one after the other, for as long as a token is expired. So they stay, within
    // the journal's bounds, and it is said.
    const bool unauthorized = delivery.refusal == Refusal::unauthorized;
    if (delivery.outcome == Outcome::rejected && !unauthorized && !preset_retries(config.preset, delivery)) {
      set_failing(false);
      outcome.rejected += records;
      if (delivery.unsupported && signal_ != Signal::traces) {
        // The next ones may be taken all the same, once a route is back: they wait for a larger batch, and are sent.
        patience_ = longer_interval(patience, config.batch.interval);
        if (patience.count() == 0) {
          note("unsupported", DiagnosticLevel::warning,
               records_text(records) + " refused for good" + why +
                   ": this backend seems to take no " + std::string(signal_name(signal_)) +
                   "; as long as it answers so, it is asked less and less often, at least once a minute" +
                   (signal_ == Signal::logs ? " (logs_as_span_events shows them in the spans)" : ""));
        }
      } else {
        note("rejected", DiagnosticLevel::warning, records_text(records) + " refused for good" + why);
      }
      return Delivered::settled;
    }

    if (unauthorized && refresh_credentials(settings)) continue;
    if (unauthorized) since = kNever;  // that is about the credentials, and says nothing of how old the batch may get
    const bool ages = since != kNever;
    const auto age = ages ? now() - since : std::chrono::nanoseconds(0);
    if (ages && age >= give_up_age) {
      outcome.dropped += records;
      note("given up", DiagnosticLevel::error,
           records_text(records) + " dropped: not taken for longer than retry.give_up_age" + why);
      return Delivered::settled;
    }
    const bool give_up = last_chance && (delivery.unreachable || unauthorized);
    const char* end = give_up ? "; given up, since this is the end" : "; trying again";
    if (unauthorized) {
      note("unauthorized", DiagnosticLevel::error,
           "refused for its credentials" + why + "; the records are kept" + end +
               (settings.headers_file ? ", and as soon as " + config.headers_file + " changes" : ""));
    } else {
      note("retry", DiagnosticLevel::warning,
           "not delivered" + (delivery.message.empty() ? "" : " (" + delivery.message + ")") + end);
    }
    if (give_up) return Delivered::over;
    wait.time = backoff_.next(config.retry, delivery.retry_after);
    wait.asked_for = delivery.retry_after.count() > 0;
    wait.credentials = unauthorized ? settings.headers_file.get() : nullptr;
    if (ages && !wait.asked_for) wait.time = std::min<std::chrono::nanoseconds>(wait.time, give_up_age - age);
    cursor.abandon();
    set_failing(true);
    if (!pause(wait)) return Delivered::over;
    if (unauthorized) static_cast<void>(refresh_credentials(settings));
    if (!cursor.retake(batch_.position())) return Delivered::again;
  }
}

bool Destination::refresh_credentials(const Settings& settings) {
  if (!settings.headers_file) return false;
  try {
    if (!settings.headers_file->reload()) return false;
    settings.sink->replace_headers(merged(settings.config.headers, settings.headers_file->headers()));
    return true;
  } catch (const Error& error) {
    note("credentials", DiagnosticLevel::error, std::string(error.what()) + "; the old ones stay");
    return false;
  }
}

void Destination::keep_by_filter(Reader& reader, const Settings& settings) {
  reader.keep = nullptr;
  if (signal_ != Signal::traces || !settings.config.span_filter) return;
  auto filter = std::make_shared<SpanFilter>(reader.source, settings.config.span_filter);
  // A filter that fails has filtered nothing.
  reader.keep = [this, filter](const journal::Record& record) {
    try {
      return filter->keeps(record);
    } catch (const std::exception& error) {
      note("filter", DiagnosticLevel::error, std::string("span_filter threw ") + error.what() + "; the span is sent");
    } catch (...) {
      note("filter", DiagnosticLevel::error, "span_filter threw what is no std::exception; the span is sent");
    }
    return true;
  };
}

bool Destination::pause(const Wait& wait) {
  const auto since = now();
  std::unique_lock lock(mutex_);
  for (;;) {
    if (over()) return false;
    if (settings_->number != wait.settings || (!wait.asked_for && hurry_ != wait.hurried)) return true;
    const auto waited = now() - since;
    if (waited >= wait.time) return true;
    const Deadline until = deadline_after(wait.time - waited);
    if (stopping_ && until > stop_deadline_) return false;
    if (!wait.credentials) {
      work_.wait_until(lock, until);
      continue;
    }
    lock.unlock();  // a file system may hang
    if (wait.credentials->touched()) return true;
    lock.lock();
    if (over() || settings_->number != wait.settings || (!wait.asked_for && hurry_ != wait.hurried)) continue;
    work_.wait_until(lock, std::min(until, deadline_after(kCredentialsLook)));
  }
}

void Destination::finish(const std::shared_ptr<Reader>& reader) {
  {
    const std::lock_guard lock(mutex_);
    let_go(reader);
    serving_.reset();
  }
  reader->envelope.reset();
  reader->keep = nullptr;
  if (reader->live || !hooks_.on_source_done) return;
  try {
    hooks_.on_source_done(reader->source);
  } catch (const std::exception& error) {
    note("source", DiagnosticLevel::error, std::string("what follows a recovered journal failed: ") + error.what());
  }
}

void Destination::let_go(const std::shared_ptr<Reader>& reader) {
  if (reader->done) return;
  Counts counted = reader->cursor ? since(reader->adopted, reader->cursor->counts()) : Counts{};
  if (reader->cursor) reader->lost = counted.pending == 0 ? reader->cursor->lost() : UINT64_MAX;
  // What is left in it is pending there, and no longer with us.
  counted.offered -= std::min(counted.offered, counted.pending);
  counted.pending = 0;
  add(recovered_, counted);
  std::erase(readers_, reader);
  reader->done = true;
  reader->cursor.reset();
  progress_.notify_all();
}

void Destination::note(std::string_view topic, DiagnosticLevel level, const std::string& message) {
  std::shared_ptr<journal::Cursor> own;
  {
    const std::lock_guard lock(mutex_);
    last_error_ = message;
    for (const auto& reader : readers_) {
      if (reader->live) own = reader->cursor;
    }
  }
  if (own) own->set_last_error(message);
  diagnostics_.say_limited(title_ + " " + std::string(topic), level, title_ + ": " + message);
}

std::chrono::steady_clock::time_point Destination::now() const {
  return hooks_.now ? hooks_.now() : std::chrono::steady_clock::now();
}

Destination::Flush Destination::begin_flush() {
  Flush flush;
  const std::lock_guard lock(mutex_);
  for (const auto& reader : readers_) {
    if (!settings_->config.enabled) break;
    const std::uint64_t end = reader->source->end();
    reader->wanted = std::max(reader->wanted, end);
    flush.targets_.push_back({reader, end, reader->cursor ? reader->cursor->lost() : 0});
  }
  ++hurry_;
  rouse();
  return flush;
}

bool Destination::wait(const Flush& flush, Deadline deadline) {
  const auto settled = [&] {
    return !settings_->config.enabled ||
           std::ranges::all_of(flush.targets_, [](const auto& t) { return t.reader->done || t.reader->settled >= t.end; });
  };
  std::unique_lock lock(mutex_);
  progress_.wait_until(lock, deadline, [&] { return exited_ || settled(); });
  return settled();
}

bool Destination::acknowledged(const Flush& flush) const {
  const std::lock_guard lock(mutex_);
  return !settings_->config.enabled || std::ranges::all_of(flush.targets_, [](const auto& t) {
    return (t.reader->cursor ? t.reader->cursor->lost() : t.reader->lost) == t.lost;
  });
}

bool Destination::flush(Deadline deadline) { return wait(begin_flush(), deadline); }

void Destination::begin_stop(Deadline deadline) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  stopping_ = true;
  stop_deadline_ = deadline;
  ++hurry_;
  rouse();
}

void Destination::stop(Deadline deadline) {
  begin_stop(deadline);
  {
    std::unique_lock lock(mutex_);
    progress_.wait_until(lock, stop_deadline_, [this] { return exited_; });
    if (sending_) sending_->abort();
    rouse();
  }
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

DestinationStats Destination::stats() const {
  DestinationStats stats{.name = name_, .signal = signal_, .counts = {}, .last_error = {}};
  std::vector<std::pair<std::shared_ptr<journal::Cursor>, const Reader*>> cursors;
  std::vector<std::shared_ptr<Reader>> readers;
  {
    const std::lock_guard lock(mutex_);
    stats.counts = recovered_;
    stats.last_error = last_error_;
    readers = readers_;
    for (const auto& reader : readers) cursors.emplace_back(reader->cursor, reader.get());
  }
  // Without the lock: counting what is pending may walk the journal.
  for (const auto& [cursor, reader] : cursors) {
    if (!cursor) continue;
    const Counts counts = cursor->counts();
    add(stats.counts, reader->live ? counts : since(reader->adopted, counts));
  }
  return stats;
}

}  // namespace waymark::delivery
