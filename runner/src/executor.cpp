#include "executor.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "waymark/error.h"
#include "worker_process.h"

namespace waymark {

// ------ Context

FutureTasks Context::submit(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options) {
  return attempt_->submit(name, std::move(inputs), options);
}
const Logger& Context::logger() { return attempt_->logger(); }
const Tracer& Context::tracer() const { return attempt_->tracer(); }
Progress Context::progress(std::string_view label) { return Progress(attempt_->progress(label)); }
std::optional<std::string> Context::kept_step(std::string_view name) { return attempt_->kept_step(name); }
void Context::keep_step(std::string_view name, std::string_view result) { attempt_->keep_step(name, result); }
Span Context::step_span(std::string_view name) const {
  return attempt_->runner_tracer().span(std::string(names::kStep) + std::string(name));
}
JobCache Context::job_cache() const { return {attempt_->cache(), {}}; }
void Context::display(std::string_view text) { attempt_->display(text); }
std::uint32_t Context::attempt() const noexcept { return attempt_->task().attempt; }
const Context::JobRef& Context::job() const noexcept { return attempt_->job(); }
const std::string& Context::task_id() const noexcept { return attempt_->id(); }
std::stop_token Context::stop_token() const noexcept { return attempt_->stop_token(); }

void Progress::add(std::uint64_t total) const {
  label_->total.fetch_add(total, std::memory_order_relaxed);
  label_->board->list(label_);
}
void Progress::done(std::uint64_t count) const {
  label_->done.fetch_add(count, std::memory_order_relaxed);
  label_->board->list(label_);
}

namespace detail {

std::chrono::nanoseconds run_out_of_time(Context& context) {
  Attempt& attempt = *context.attempt_;
  if (attempt.timeout().count() == 0) return attempt.timeout();
  attempt.time_out();
  attempt.stop_source().request_stop();
  return attempt.timeout();
}

namespace {

// In [0, 1).
double random_fraction() {
  const SpanId bits = SpanId::random();
  std::uint64_t n;
  std::memcpy(&n, bits.bytes.data(), sizeof n);
  return static_cast<double>(n >> 11) * 0x1p-53;
}

// See RetryConfig: its jitter is left to chance, so that failures that came together part.
std::chrono::nanoseconds wait_before_retry(const RetryConfig& backoff, std::uint32_t failures) {
  const double longest = std::min(static_cast<double>(backoff.initial.count()) * std::pow(backoff.multiplier, failures),
                                  static_cast<double>(backoff.maximum.count()));
  return std::chrono::nanoseconds(static_cast<std::int64_t>(longest * (1.0 - backoff.jitter + backoff.jitter * random_fraction())));
}

}  // namespace

Timestamp system_time() {
  return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

void ProgressBoard::close() {
  const std::scoped_lock lock(mutex_);
  changed_ = nullptr;
  changes_.clear();
}

void ProgressBoard::list(const std::shared_ptr<ProgressLabel>& label) {
  if (label->listed.exchange(true)) return;
  const std::scoped_lock lock(mutex_);
  changes_.push_back(label);
  if (changes_.size() == 1 && changed_) changed_();
}

std::vector<ProgressReport> ProgressBoard::take() {
  std::vector<std::shared_ptr<ProgressLabel>> changes;
  {
    const std::scoped_lock lock(mutex_);
    changes.swap(changes_);
  }
  std::vector<ProgressReport> reports;
  reports.reserve(changes.size());
  for (const auto& label : changes) {
    label->listed.store(false);  // before the counts are read: a change from now on lists it again
    reports.push_back({label->task, label->attempt, label->label, label->done.load(), label->total.load()});
  }
  return reports;
}

Attempt::Attempt(ClaimedTask task, std::shared_ptr<const AttemptGround> ground, WorkerId worker,
                 std::shared_ptr<ProgressBoard> board)
    : task_(std::move(task)),
      ground_(std::move(ground)),
      type_(&ground_->types[task_.type]),
      worker_(worker),
      board_(std::move(board)),
      job_{task_.job->id, task_.job->name},
      id_(std::to_string(task_.task)) {
  finish_.task = task_.task;
  finish_.attempt = task_.attempt;
  release();
}

void Attempt::release() {
  finish_.result = TaskResult::released;
  finish_.started = false;
}

void Attempt::execute(const std::shared_ptr<WorkerProcess>& process) {
  finish_.started = true;
  start_ = std::max(now(), task_.not_before);
  process_ = process;
  if (!process_) span_ = ground_->instrumentation.start_attempt(task_, type_->name, start_, ground_->in_worker);
  if (!ground_->in_worker) ground_->instrumentation.metrics().begin(type_->name, task_.input.size(), task_.queue_wait);
  begun_.store(true, std::memory_order_release);
  if (span_.context().valid()) {
    const ContextScope entered(span_);
    execute_here();
  } else {
    // Without tracing, log records still carry the job's trace and this attempt's id.
    TraceContext context{task_.job->span, task_.job->baggage};
    context.span.span_id = task_.span;
    const ContextScope entered(context);
    process_ ? execute_in(*process_) : execute_here();
  }
  if (finish_.end == Timestamp{}) finish_.end = std::max(now(), start_);
  if (!ground_->in_worker) ground_->instrumentation.metrics().executed();
}

void Attempt::execute_here() {
  Context context(*this);
  try {
    type_->execute(task_.input, context);
    finish_.result = TaskResult::computed;
    if (subtasks_) finish_.subtasks = subtasks_->take();
    submitted_ = finish_.subtasks.tasks.size();
  } catch (const Stopped&) {
    if (timed_out_) {
      fail_by_timeout(finish_);
      span_.status(StatusCode::error, finish_.error);
      ground_->instrumentation.runner_logger(task_).warning("task " + type_->name.name + " failed: " + finish_.error);
    } else if (!stop_.stop_requested()) {
      fail(std::current_exception(), false);
    }
  } catch (const NonRetryable&) {
    fail(std::current_exception(), true);
  } catch (...) {
    if (stop_.stop_requested() && !timed_out_) {
      tell_of_stop(std::current_exception());
    } else {
      fail(std::current_exception(), false);
    }
  }
}

void Attempt::execute_in(WorkerProcess& process) {
  WorkerProcess::Outcome outcome = process.run(worker_, task_, stop_.get_token(), timed_out_,
                                               [this](const ProgressReport& report) { count(report); });
  if (outcome.finish) {
    finish_ = std::move(*outcome.finish);
    finish_.started = true;
    finish_.end = std::clamp(finish_.end, start_, std::max(now(), start_));
    if (finish_.retry_after && task_.failures >= task_.max_retries) finish_.retry_after.reset();
    return;
  }
  if (killed_ == Kill::to_stop) return;  // released
  if (killed_ == Kill::for_timeout) {
    fail_by_timeout(finish_);
    finish_.error += ", and did not stop when it was asked to: " + outcome.died;
  } else {
    finish_.result = TaskResult::failed;
    finish_.error_type = "worker_lost";
    finish_.error = outcome.died;
    finish_.retry_after = wait_before_next();
  }
  ground_->instrumentation.runner_logger(task_).warning("task " + type_->name.name + " failed: " + finish_.error);
}

bool Attempt::kill_process(bool for_timeout) {
  if (!begun_.load(std::memory_order_acquire) || !process_) return false;
  killed_ = for_timeout ? Kill::for_timeout : Kill::to_stop;
  process_->kill(task_.task, task_.attempt);
  return true;
}

void Attempt::orphan() noexcept {
  if (begun_.load(std::memory_order_acquire)) span_.set(names::kRunnerLost, true);
}

void Attempt::count(const ProgressReport& report) {
  const auto label = progress(report.label);
  label->done.store(report.done, std::memory_order_relaxed);
  label->total.store(report.total, std::memory_order_relaxed);
  board_->list(label);
}

std::optional<std::chrono::nanoseconds> Attempt::wait_before_next() const {
  if (task_.failures >= task_.max_retries) return std::nullopt;
  return wait_before_retry(task_.backoff ? *task_.backoff : ground_->backoff, task_.failures);
}

void Attempt::fail_by_timeout(Finish& finish) const {
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3g", std::chrono::duration<double>(task_.timeout).count());
  finish.result = TaskResult::failed;
  finish.error_type = "timeout";
  finish.error = "it ran longer than its timeout of " + std::string(seconds) + " s";
  finish.retry_after = wait_before_next();
}

bool Attempt::abandon(bool for_timeout) {
  if (!begun_.load(std::memory_order_acquire)) return false;
  Finish finish;
  finish.task = task_.task;
  finish.attempt = task_.attempt;
  finish.end = std::max(now(), start_);
  if (for_timeout) {
    fail_by_timeout(finish);
    finish.error += ", and did not stop when it was asked to";
    span_.status(StatusCode::error, finish.error);
    ground_->instrumentation.runner_logger(task_).warning("task " + type_->name.name +
                                                          " failed, and its thread hangs: " + finish.error);
  } else {
    finish.result = TaskResult::released;
  }
  abandoned_ = std::move(finish);
  return true;
}

void Attempt::fail(const std::exception_ptr& exception, bool for_good) {
  const ExceptionText text = describe(exception);
  finish_.result = TaskResult::failed;
  finish_.error_type = text.type;
  finish_.error = text.message;
  if (!for_good) finish_.retry_after = wait_before_next();
  const bool again = finish_.retry_after.has_value();
  span_.record_exception(exception);
  span_.status(StatusCode::error, text.message);
  std::string message = "task " + type_->name.name + " failed";
  if (again) {
    char delay[32];
    std::snprintf(delay, sizeof delay, "%.3g", std::chrono::duration<double>(*finish_.retry_after).count());
    message += ", tried again in " + std::string(delay) + " s";
  }
  ground_->instrumentation.runner_logger(task_).exception(message, exception);
}

// What its libraries throw when they are interrupted is no failure of its own: it is given back.
void Attempt::tell_of_stop(const std::exception_ptr& exception) {
  span_.record_exception(exception);
  ground_->instrumentation.runner_logger(task_).warning("task " + type_->name.name + " was asked to stop, and threw: " +
                                                        describe(exception).message);
}

void Attempt::conclude(bool accepted, Timestamp deadline) {
  const Finish& end = finish();
  if (!end.started) return;
  if (process_) {
    process_->conclude({.task = task_.task, .attempt = task_.attempt, .accepted = accepted, .deadline = deadline});
    process_.reset();
  }
  const bool counts = !ground_->in_worker;
  if (!accepted) {
    if (counts) ground_->instrumentation.metrics().end(type_->name, AttemptOutcome::lease_lost, end.end - start_);
    ground_->instrumentation.end_attempt(span_, AttemptOutcome::lease_lost, end.error_type, 0,
                                         std::max(start_, std::min(end.end, deadline)));
    return;
  }
  AttemptOutcome outcome = AttemptOutcome::computed;
  if (end.result == TaskResult::released) outcome = AttemptOutcome::released;
  if (end.result == TaskResult::failed) outcome = end.retry_after ? AttemptOutcome::retried : AttemptOutcome::failed;
  if (counts) ground_->instrumentation.metrics().end(type_->name, outcome, end.end - start_);
  ground_->instrumentation.end_attempt(span_, outcome, end.error_type, abandoned_ ? 0 : submitted_, end.end);
}

std::optional<std::string> Attempt::kept_step(std::string_view name) {
  return ground_->store->find_step(task_.task, name);
}

void Attempt::keep_step(std::string_view name, std::string_view result) {
  if (ground_->store->keep_step(worker_, task_.task, task_.attempt, name, result)) return;
  throw Error(ErrorCode::closed, "step \"" + std::string(name) + "\" of task " + type_->name.name +
                                     ": its result was not kept: this attempt is not the task's any more");
}

void Attempt::display(std::string_view text) {
  ground_->store->display(worker_, task_.task, task_.attempt, cut_display(text));
}

std::shared_ptr<const CacheShelf> Attempt::cache() {
  if (!cache_) {
    cache_ = std::make_shared<const CacheShelf>(ground_->store, task_.job, ground_->cache_directory,
                                                ground_->cache_spans ? std::optional(runner_tracer()) : std::nullopt);
  }
  return cache_;
}

const Logger& Attempt::logger() {
  if (!logger_) logger_ = ground_->instrumentation.task_logger(task_, type_->name);
  return *logger_;
}

std::shared_ptr<ProgressLabel> Attempt::progress(std::string_view label) {
  if (const auto it = progress_.find(label); it != progress_.end()) return it->second;
  auto made = std::make_shared<ProgressLabel>();
  made->board = board_;
  made->task = task_.task;
  made->attempt = task_.attempt;
  made->label = label;
  progress_.emplace(label, made);
  return made;
}

FutureTasks Attempt::submit(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options) {
  if (!subtasks_) subtasks_.emplace();
  return subtasks_->add(name, std::move(inputs), options);
}

}  // namespace detail
}  // namespace waymark
