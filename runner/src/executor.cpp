#include "executor.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "waymark/error.h"

namespace waymark {

// ------ FutureTasks

FutureTasks::FutureTasks(std::initializer_list<FutureTasks> sets) {
  for (const FutureTasks& set : sets) add(set);
}

FutureTasks::FutureTasks(const std::vector<FutureTasks>& sets) {
  for (const FutureTasks& set : sets) add(set);
}

FutureTasks& FutureTasks::add(const FutureTasks& other) {
  if (other.empty()) return *this;
  if (!empty() && owner_ != other.owner_) {
    throw Error(ErrorCode::invalid_argument,
                "depends_on: subtasks of two different executions: name subtasks of one task only");
  }
  owner_ = other.owner_;
  std::vector<Range> all = std::move(ranges_);
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  std::sort(all.begin(), all.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  ranges_.clear();
  for (const Range& range : all) {
    if (!ranges_.empty() && range.first <= ranges_.back().last) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
  return *this;
}

std::size_t FutureTasks::size() const noexcept {
  std::size_t n = 0;
  for (const Range& range : ranges_) n += range.last - range.first;
  return n;
}

FutureTasks FutureTasks::operator[](std::size_t n) const {
  for (const Range& range : ranges_) {
    if (n < range.last - range.first) {
      FutureTasks one;
      one.owner_ = owner_;
      const auto at = static_cast<std::uint32_t>(range.first + n);
      one.ranges_.push_back({at, at + 1});
      return one;
    }
    n -= range.last - range.first;
  }
  throw Error(ErrorCode::invalid_argument, "FutureTasks: an index beyond its " + std::to_string(size()) + " tasks");
}

// ------ Context

FutureTasks Context::submit(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options) {
  return attempt_->submit(name, std::move(inputs), options);
}
const Logger& Context::logger() { return attempt_->logger(); }
const Tracer& Context::tracer() const { return attempt_->tracer(); }
Progress Context::progress(std::string_view label) { return Progress(attempt_->progress(label)); }
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
namespace {

constexpr std::uint32_t kNone = UINT32_MAX;

Timestamp now() { return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now()); }

std::uint64_t mixed(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

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

Attempt::Attempt(ClaimedTask task, const TaskType& type, const Instrumentation& instrumentation,
                 const RetryConfig& backoff, std::shared_ptr<ProgressBoard> board)
    : task_(std::move(task)),
      type_(&type),
      instrumentation_(&instrumentation),
      backoff_(&backoff),
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

void Attempt::execute() {
  finish_.started = true;
  start_ = std::max(now(), task_.not_before);
  span_ = instrumentation_->start_attempt(task_, type_->name, start_);
  instrumentation_->metrics().begin(type_->name, task_.input.size(), task_.queue_wait);
  const auto run = [&] {
    Context context(*this);
    try {
      type_->execute(task_.input, context);
      finish_.result = TaskResult::computed;
      finish_.subtasks = take_subtasks();
      submitted_ = finish_.subtasks.tasks.size();
    } catch (const Stopped&) {
      if (!stop_.stop_requested()) fail(std::current_exception(), false);
    } catch (const NonRetryable&) {
      fail(std::current_exception(), true);
    } catch (...) {
      fail(std::current_exception(), false);
    }
  };
  if (span_.context().valid()) {
    const ContextScope current(span_);
    run();
  } else {
    // Without tracing, log records still carry the job's trace and this attempt's id.
    TraceContext context{task_.job->span, task_.job->baggage};
    context.span.span_id = task_.span;
    const ContextScope current(context);
    run();
  }
  finish_.end = std::max(now(), start_);
  instrumentation_->metrics().executed();
}

void Attempt::fail(const std::exception_ptr& exception, bool for_good) {
  const ExceptionText text = describe(exception);
  finish_.result = TaskResult::failed;
  finish_.error_type = text.type;
  finish_.error = text.message;
  const bool again = !for_good && task_.failures < task_.max_retries;
  if (again) finish_.retry_after = wait_before_retry(*backoff_, task_.failures);
  span_.record_exception(exception);
  span_.status(StatusCode::error, text.message);
  std::string message = "task " + type_->name.name + " failed";
  if (again) {
    char delay[32];
    std::snprintf(delay, sizeof delay, "%.3g", std::chrono::duration<double>(*finish_.retry_after).count());
    message += ", tried again in " + std::string(delay) + " s";
  }
  instrumentation_->runner_logger(task_).exception(message, exception);
}

void Attempt::conclude(bool accepted, Timestamp deadline) {
  if (!finish_.started) return;
  if (!accepted) {
    instrumentation_->metrics().end(type_->name, AttemptOutcome::lease_lost, finish_.end - start_);
    instrumentation_->end_attempt(span_, AttemptOutcome::lease_lost, finish_.error_type, 0,
                                  std::max(start_, std::min(finish_.end, deadline)));
    return;
  }
  AttemptOutcome outcome = AttemptOutcome::computed;
  if (finish_.result == TaskResult::released) outcome = AttemptOutcome::released;
  if (finish_.result == TaskResult::failed)
    outcome = finish_.retry_after ? AttemptOutcome::retried : AttemptOutcome::failed;
  instrumentation_->metrics().end(type_->name, outcome, finish_.end - start_);
  instrumentation_->end_attempt(span_, outcome, finish_.error_type, submitted_, finish_.end);
}

const Logger& Attempt::logger() {
  if (!logger_) logger_ = instrumentation_->task_logger(task_, type_->name);
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
  static std::atomic<std::uint64_t> executions{0};
  if (owner_ == 0) owner_ = ++executions;
  std::uint32_t dependency = kNone;
  if (!options.depends_on.empty()) {
    if (options.depends_on.owner_ != owner_) {
      throw Error(ErrorCode::invalid_argument, "depends_on of subtask " + name.name +
                                                   ": names subtasks of another execution: a task can wait only for "
                                                   "subtasks that it has submitted itself");
    }
    std::vector<std::pair<std::uint32_t, std::uint32_t>> key;
    for (const auto& range : options.depends_on.ranges_) key.emplace_back(range.first, range.last);
    const auto [it, is_new] =
        dependency_index_.try_emplace(std::move(key), static_cast<std::uint32_t>(dependencies_.size()));
    if (is_new) dependencies_.push_back(options.depends_on.ranges_);
    dependency = it->second;
  }
  FutureTasks future;
  future.owner_ = owner_;
  const auto first = static_cast<std::uint32_t>(subtasks_.size());
  for (std::string& input : inputs) {
    NewTask task;
    task.name = name;
    task.input = std::move(input);
    task.priority = options.priority;
    task.max_retries = options.max_retries;
    subtasks_.push_back(std::move(task));
    dependency_of_.push_back(dependency);
  }
  if (!inputs.empty()) future.ranges_.push_back({first, static_cast<std::uint32_t>(subtasks_.size())});
  return future;
}

// Subtasks that the same dependency sets name become one group, so that "100 tasks, then 100 tasks" needs one group and
// 100 references instead of 10,000. Which sets name a subtask is told by the sum of a random number for each.
NewTasks Attempt::take_subtasks() {
  NewTasks batch;
  batch.tasks = std::move(subtasks_);
  if (dependencies_.empty()) return batch;
  std::vector<std::uint64_t> sums(batch.tasks.size() + 1);
  for (std::size_t set = 0; set < dependencies_.size(); ++set) {
    for (const auto& range : dependencies_[set]) {
      sums[range.first] += mixed(set);
      sums[range.last] -= mixed(set);
    }
  }
  std::unordered_map<std::uint64_t, std::uint32_t> groups;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < batch.tasks.size(); ++i) {
    sum += sums[i];
    if (sum == 0) continue;
    const auto [it, is_new] = groups.try_emplace(sum, static_cast<std::uint32_t>(batch.group_sizes.size()));
    if (is_new) batch.group_sizes.push_back(0);
    ++batch.group_sizes[it->second];
    batch.tasks[i].group = it->second;
  }
  std::vector<std::vector<std::uint32_t>> groups_of(dependencies_.size());
  std::vector<std::uint32_t> sizes(dependencies_.size());
  std::vector<std::size_t> seen(batch.group_sizes.size(), SIZE_MAX);
  for (std::size_t set = 0; set < dependencies_.size(); ++set) {
    for (const auto& range : dependencies_[set]) {
      sizes[set] += range.last - range.first;
      for (std::uint32_t i = range.first; i < range.last; ++i) {
        const std::uint32_t group = batch.tasks[i].group;
        if (std::exchange(seen[group], set) != set) groups_of[set].push_back(group);
      }
    }
  }
  for (std::size_t i = 0; i < batch.tasks.size(); ++i) {
    if (dependency_of_[i] == kNone) continue;
    batch.tasks[i].after = groups_of[dependency_of_[i]];
    batch.tasks[i].dependencies = sizes[dependency_of_[i]];
  }
  return batch;
}

}  // namespace detail
}  // namespace waymark
