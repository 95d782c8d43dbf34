#include "export/destination.h"

#include <signal.h>

#include <algorithm>
#include <exception>

#include "base/thread.h"
#include "journal/fault.h"
#include "waymark/error.h"

namespace waymark::delivery {
namespace {

constexpr std::chrono::nanoseconds kAfterFault = std::chrono::seconds(1);  // no memory, say: not at once again

[[noreturn]] void refuse(const DestinationConfig& config, std::string_view what) {
  throw Error(ErrorCode::invalid_argument, "destination \"" + config.name + "\": " + std::string(what));
}

void check(const DestinationConfig& config) {
  constexpr std::size_t kLeastBytes = 1024;
  constexpr std::size_t kMostBytes = 64 * 1024 * 1024;
  constexpr auto kYear = std::chrono::hours(24 * 366);
  constexpr std::chrono::nanoseconds kZero{0};
  if (config.name.empty()) refuse(config, "`name` is empty; a destination needs one, since its position is kept under it");
  if (config.batch.max_bytes < kLeastBytes || config.batch.max_bytes > kMostBytes) {
    refuse(config, "`batch.max_bytes` is " + std::to_string(config.batch.max_bytes) + "; give one from 1024 to 67108864");
  }
  if (config.batch.interval <= kZero || config.batch.interval > kYear) {
    refuse(config, "`batch.interval` must be longer than 0 and at most a year");
  }
  if (config.timeout < kZero) refuse(config, "`timeout` is negative; give 0 for none, or a time");
  if (config.retry.initial <= kZero || config.retry.maximum < config.retry.initial || !(config.retry.multiplier >= 1.0)) {
    refuse(config, "`retry` needs initial > 0, maximum >= initial and multiplier >= 1");
  }
}

// The thread of a library takes none of the program's signals, and none for a write to a closed pipe or a full disk.
template <class F>
std::thread quiet_thread(F body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

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

std::string records_text(std::uint64_t n) { return std::to_string(n) + (n == 1 ? " record" : " records"); }

}  // namespace

Destination::Destination(DestinationConfig config, Diagnostics& diagnostics, DestinationHooks hooks)
    : name_(config.name),
      signal_(config.signal),
      title_(std::string(signal_name(config.signal)) + " to " + config.name),
      diagnostics_(diagnostics),
      hooks_(std::move(hooks)),
      settings_(checked(std::move(config), 0)) {
  enough_records_ = settings_->config.batch.max_records;
  enough_bytes_ = settings_->config.batch.max_bytes;
  thread_ = quiet_thread([this] { run(); });
}

Destination::~Destination() { stop(std::chrono::steady_clock::now()); }

std::shared_ptr<const Destination::Settings> Destination::checked(DestinationConfig config, std::uint64_t number) const {
  check(config);
  if (config.name != name_ || config.signal != signal_) refuse(config, "its name and signal can't be replaced; add another");
  std::shared_ptr<Sink> sink = open_sink(config);
  return std::make_shared<const Settings>(Settings{std::move(config), std::move(sink), number});
}

void Destination::replace(DestinationConfig config) {
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = settings_->number + 1;
  }
  auto settings = checked(std::move(config), number);
  {
    const std::lock_guard lock(mutex_);
    settings_.swap(settings);
    enough_records_ = settings_->config.batch.max_records;
    enough_bytes_ = settings_->config.batch.max_bytes;
    rouse();
  }
}

void Destination::add_source(std::shared_ptr<journal::Source> source, bool live) {
  auto reader = std::make_shared<Reader>();
  reader->source = std::move(source);
  reader->live = live;
  // A live one's cursor starts at its end; wake() tells of what comes.
  reader->look = !live;
  {
    const std::lock_guard lock(mutex_);
    reader->lossy = settings_->config.lossy;
  }
  reader->cursor = reader->source->cursor(name_, signal_, reader->lossy);
  if (reader->cursor) {
    reader->settled = reader->cursor->position();
    if (!live) reader->adopted = reader->cursor->counts();
  }
  const std::lock_guard lock(mutex_);
  readers_.push_back(std::move(reader));
  rouse();
}

void Destination::wake(std::uint64_t records, std::uint64_t bytes) noexcept {
  if (records == 0) return;
  // The addition and the look at sleep_ stand in one order with the thread's store to sleep_ and its look at the sum: one
  // of the two sees the other.
  if (waiting_records_.load() == 0) waiting_since_.store(std::chrono::steady_clock::now());
  waiting_bytes_.fetch_add(bytes);
  waiting_records_.fetch_add(records);
  Sleep asleep = sleep_.load();
  if (asleep == Sleep::awake || (asleep == Sleep::until_due && !enough())) return;
  if (!sleep_.compare_exchange_strong(asleep, Sleep::awake)) return;
  { const std::lock_guard lock(mutex_); }  // so that it either waits already or sees that it need not
  work_.notify_all();
}

bool Destination::enough() const noexcept {
  const auto records = enough_records_.load();
  return waiting_bytes_.load() >= enough_bytes_.load() || (records != 0 && waiting_records_.load() >= records);
}

Deadline Destination::due_at() const noexcept { return waiting_since_.load() + settings_->config.batch.interval; }

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
  if (waiting_records_.load() == 0) {
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
    const std::size_t count = readers_.size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = (turn_ + i) % count;
      Reader& reader = *readers_[at];
      if (reader.look || !reader.live || due || reader.wanted > reader.settled || (stopping_ && !reader.drained)) {
        turn_ = at + 1;
        return readers_[at];
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
      if (!pause(kAfterFault, true, hurried, settings)) break;
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
  {
    const std::lock_guard lock(mutex_);
    settings = settings_;
    stopping = stopping_;
    wanted = reader->wanted;
    if (reader->live) claim();
    reader->look = false;
  }
  if (!reader->cursor) {
    finish(reader);
    return true;
  }
  if (settings->config.lossy != reader->lossy) {
    reader->lossy = settings->config.lossy;
    const std::lock_guard lock(mutex_);
    reader->cursor.reset();
    reader->cursor = reader->source->cursor(name_, signal_, reader->lossy);
  }
  if (reader->envelope_of != settings->number) {
    reader->envelope = std::make_unique<Envelope>(*reader->source, settings->config.resource_attributes);
    reader->envelope_of = settings->number;
  }
  journal::Cursor& cursor = *reader->cursor;
  const auto& rules = settings->config.batch;
  batch_.cut(cursor, *reader->envelope, {rules.max_bytes, rules.max_records, settings->config.minimum_severity});

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

  journal::Cursor::Outcome outcome{.dropped = batch_.oversized(), .filtered = batch_.filtered()};
  if (journal::planted(journal::Fault::early_cursor) && batch_.records() > 0) {
    cursor.acknowledge(batch_.position(), {});
    journal::hold_fault_open();
  }
  if (batch_.records() > 0) {
    switch (deliver(cursor, outcome)) {
      case Delivered::settled: break;
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
    progress_.notify_all();
  }
  if (!reader->live && batch_.at_end()) finish(reader);
  return true;
}

// Until the batch is settled: sent, refused, or given up. While it waits for its next try nothing is in flight, so that a
// full journal may take the oldest under a dead backend, and goes on for the others.
Destination::Delivered Destination::deliver(journal::Cursor& cursor, journal::Cursor::Outcome& outcome) {
  const std::uint64_t records = batch_.records();
  backoff_.reset();
  for (;;) {
    std::shared_ptr<const Settings> settings;
    std::uint64_t hurried = 0;
    bool last_chance = false;
    {
      const std::lock_guard lock(mutex_);
      if (over()) return Delivered::over;
      settings = settings_;
      sending_ = settings->sink;
      hurried = hurry_;
      last_chance = stopping_;
    }
    if (unsupported_of_ == settings->number && now() < unsupported_until_) {
      outcome.rejected += records;
      return Delivered::settled;
    }
    const Delivery delivery = settings->sink->send(batch_.pieces());
    {
      const std::lock_guard lock(mutex_);
      sending_.reset();
    }
    if (delivery.aborted) return Delivered::over;

    switch (delivery.outcome) {
      case Outcome::delivered: {
        const std::uint64_t refused = std::min(delivery.rejected, records);
        outcome.delivered += records - refused;
        outcome.rejected += refused;
        if (refused > 0) {
          note("partial", DiagnosticLevel::warning,
               std::to_string(refused) + " of " + records_text(records) + " refused" +
                   (delivery.message.empty() ? "" : ": " + delivery.message));
        } else if (!delivery.message.empty()) {
          note("partial", DiagnosticLevel::warning, "all accepted, with a warning: " + delivery.message);
        }
        return Delivered::settled;
      }
      case Outcome::rejected:
        outcome.rejected += records;
        if (delivery.unsupported && signal_ == Signal::logs) {
          unsupported_until_ = now() + kUnsupportedPause;
          unsupported_of_ = settings->number;
          const std::string message = delivery.message + ": this backend seems to take no logs; they are not sent there for an "
                                                         "hour at a time (logs_as_span_events shows them in the spans)";
          {
            const std::lock_guard lock(mutex_);
            last_error_ = message;
          }
          diagnostics_.say_once(title_ + " unsupported", DiagnosticLevel::warning, title_ + ": " + message);
        } else {
          note("rejected", DiagnosticLevel::warning,
               records_text(records) + " refused for good" + (delivery.message.empty() ? "" : ": " + delivery.message));
        }
        return Delivered::settled;
      case Outcome::retry: break;
    }

    const bool give_up = last_chance && delivery.unreachable;
    note("retry", DiagnosticLevel::warning,
         "not delivered" + (delivery.message.empty() ? "" : " (" + delivery.message + ")") +
             (give_up ? "; given up, since this is the end" : "; trying again"));
    if (give_up) return Delivered::over;
    const auto wait = backoff_.next(settings->config.retry, delivery.retry_after);
    cursor.abandon();
    if (!pause(wait, delivery.retry_after.count() > 0, hurried, settings->number)) return Delivered::over;
    if (!cursor.retake(batch_.position())) return Delivered::again;
  }
}

bool Destination::pause(std::chrono::nanoseconds wait, bool asked_for, std::uint64_t hurried, std::uint64_t settings) {
  const auto since = now();
  std::unique_lock lock(mutex_);
  for (;;) {
    if (over()) return false;
    if (settings_->number != settings || (!asked_for && hurry_ != hurried)) return true;
    const auto waited = now() - since;
    if (waited >= wait) return true;
    const Deadline until = deadline_after(wait - waited);
    if (stopping_ && until > stop_deadline_) return false;
    work_.wait_until(lock, until);
  }
}

void Destination::finish(const std::shared_ptr<Reader>& reader) {
  const Counts counted = reader->cursor && !reader->live ? since(reader->adopted, reader->cursor->counts()) : Counts{};
  {
    const std::lock_guard lock(mutex_);
    add(recovered_, counted);
    std::erase(readers_, reader);
    reader->done = true;
    reader->cursor.reset();
    progress_.notify_all();
  }
  reader->envelope.reset();
  if (reader->live || !hooks_.on_source_done) return;
  try {
    hooks_.on_source_done(reader->source);
  } catch (const std::exception& error) {
    note("source", DiagnosticLevel::error, std::string("what follows a recovered journal failed: ") + error.what());
  }
}

void Destination::note(std::string_view topic, DiagnosticLevel level, const std::string& message) {
  {
    const std::lock_guard lock(mutex_);
    last_error_ = message;
  }
  diagnostics_.say_limited(title_ + " " + std::string(topic), level, title_ + ": " + message);
}

std::chrono::steady_clock::time_point Destination::now() const {
  return hooks_.now ? hooks_.now() : std::chrono::steady_clock::now();
}

Destination::Flush Destination::begin_flush() {
  Flush flush;
  const std::lock_guard lock(mutex_);
  for (const auto& reader : readers_) {
    const std::uint64_t end = reader->source->end();
    reader->wanted = std::max(reader->wanted, end);
    flush.targets_.emplace_back(reader, end);
  }
  ++hurry_;
  rouse();
  return flush;
}

bool Destination::wait(const Flush& flush, Deadline deadline) {
  const auto settled = [&] {
    return std::ranges::all_of(flush.targets_, [](const auto& t) { return t.first->done || t.first->settled >= t.second; });
  };
  std::unique_lock lock(mutex_);
  progress_.wait_until(lock, deadline, [&] { return exited_ || settled(); });
  return settled();
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
