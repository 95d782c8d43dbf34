#include "instrumentation.h"

#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <typeinfo>
#include <utility>

#include "waymark/reader.h"

namespace waymark {
namespace {

double milliseconds(std::chrono::nanoseconds t) { return std::chrono::duration<double, std::milli>(t).count(); }

std::string hash_text(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; hash >>= 4) text[i] = "0123456789abcdef"[hash & 15];
  return text;
}

std::string_view outcome_text(AttemptOutcome outcome) {
  switch (outcome) {
    case AttemptOutcome::computed: return "computed";
    case AttemptOutcome::retried: return "retried";
    case AttemptOutcome::failed: return "failed";
    case AttemptOutcome::released: return "released";
    case AttemptOutcome::lease_lost: return "lease_lost";
  }
  return {};
}

// The context of a span of this job: what its children need to know.
SpanContext in_trace_of(const JobRecord& job, const SpanId& span) {
  SpanContext context = job.span;
  context.span_id = span;
  context.remote = true;
  return context;
}

std::int64_t integer(const AnyMap& attributes, std::string_view key) {
  const AnyValue* value = find(attributes, key);
  const auto* n = value ? std::get_if<std::int64_t>(&value->value) : nullptr;
  return n ? *n : 0;
}

}  // namespace

std::string time_text(Timestamp time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto day = std::chrono::floor<std::chrono::days>(seconds);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(seconds - day);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  return text;
}

void set_trigger(DetachedSpan& span, const JobTrigger& trigger) {
  if (trigger.type.empty()) return;
  span.set({{names::kTriggerType, trigger.type},
            {names::kTriggerName, trigger.name},
            {names::kTriggerTime, time_text(trigger.time)}});
  if (!trigger.path.empty()) span.set(names::kTriggerPath, trigger.path);
}

Instrumentation::Instrumentation(Telemetry& telemetry, std::string runner_id, std::string runner_name,
                                 std::string cluster)
    : runner_id_(std::move(runner_id)),
      runner_name_(std::move(runner_name)),
      cluster_(std::move(cluster)),
      runner_tracer_(telemetry.tracer(names::kRunnerScope)),
      task_tracer_(telemetry.tracer(names::kTaskScope)),
      runner_logger_(telemetry.logger(names::kRunnerScope)),
      task_logger_(telemetry.logger(names::kTaskScope)),
      metrics_(telemetry, cluster_) {}

DetachedSpan Instrumentation::start_attempt(const ClaimedTask& task, const TaskName& name, Timestamp start,
                                            bool in_worker) const {
  const JobRecord& job = *task.job;
  SpanOptions options;
  options.parent = TraceContext{in_trace_of(job, task.parent_span), job.baggage};
  options.span_id = task.span;
  options.start = start;
  options.sampled = job.span.sampled();
  if (task.previous_attempt.valid()) options.links.push_back({in_trace_of(job, task.previous_attempt), {}});
  if (task.last_dependency.valid()) options.links.push_back({in_trace_of(job, task.last_dependency), {}});
  const std::string span_name = std::string(names::kTask) + name.name;
  if (!runner_tracer_.enabled() || !job.span.sampled()) return runner_tracer_.start_span(span_name, {}, options);
  const std::string id = std::to_string(task.task);
  const std::string hash = hash_text(task.input);
  // Started with all of it: by these the store finds the task again where the process dies in it.
  const Attribute attributes[] = {
      {names::kTaskId, id},
      {names::kIdentifierName, name.name},
      {names::kIdentifierVersion, name.version},
      {names::kJobId, job.id},
      {names::kJobName, job.name},
      {names::kAttempt, task.attempt},
      {names::kMaxAttempts, task.max_retries + 1},
      {names::kQueueWait, milliseconds(task.queue_wait)},
      {names::kCluster, cluster_},
      {names::kRunnerId, runner_id_},
      {names::kRunnerName, runner_name_},
      {names::kInputSize, task.input.size()},
      {names::kInputHash, hash},
      {names::kWorkerProcess, static_cast<std::int64_t>(getpid())},
  };
  constexpr std::size_t kOfEvery = std::size(attributes) - 1;
  DetachedSpan span = runner_tracer_.start_span(
      span_name, std::span<const Attribute>(attributes, in_worker ? std::size(attributes) : kOfEvery), options);
  if (task.parent) span.set(names::kParentTask, std::to_string(task.parent));
  if (task.lost) span.set(names::kLostAttempts, task.lost);
  if (task.dependencies) {
    span.set(names::kDependencies, task.dependencies);
    span.set(names::kDependencyWait, milliseconds(task.dependency_wait));
  }
  return span;
}

void Instrumentation::end_attempt(DetachedSpan& span, AttemptOutcome outcome, std::string_view error_type,
                                  std::size_t subtasks, Timestamp end) const {
  if (span.recording()) {
    span.set(names::kOutcome, outcome_text(outcome));
    if (subtasks) span.set(names::kSubtaskCount, subtasks);
    if (!error_type.empty()) span.set(names::kErrorType, error_type);
    if (outcome == AttemptOutcome::lease_lost) {
      span.set(names::kLeaseLost, true);
      span.status(StatusCode::error, "the lease was lost; the result was refused");
    }
  }
  span.end(end);
}

void Instrumentation::record(const EnclosingSpan& enclosing) const {
  metrics_.job_ended(enclosing);
  const JobRecord& job = *enclosing.job;
  SpanOptions options;
  options.span_id = enclosing.span;
  options.start = enclosing.start;
  options.sampled = true;
  if (enclosing.parent.valid()) {
    options.parent = TraceContext{in_trace_of(job, enclosing.parent), {}};
  } else {
    options.root = true;
    options.trace_id = job.span.trace_id;
  }
  if (enclosing.submitter.valid()) options.links.push_back({enclosing.submitter, {}});
  if (enclosing.first.valid()) options.links.push_back({in_trace_of(job, enclosing.first), {}});
  std::string name(enclosing.task ? names::kSubtasks : names::kJob);
  name += enclosing.task ? enclosing.name.name : job.name;
  DetachedSpan span = runner_tracer_.start_span(
      name, {{names::kJobId, job.id}, {names::kJobName, job.name}, {names::kOutcome, task_state_name(enclosing.outcome)}},
      options);
  if (enclosing.task) {
    span.set({{names::kTaskId, std::to_string(enclosing.task)},
              {names::kIdentifierName, enclosing.name.name},
              {names::kIdentifierVersion, enclosing.name.version},
              {names::kSubtaskCount, enclosing.tasks}});
  } else {
    span.set(names::kJobTasks, enclosing.tasks);
    set_trigger(span, job.trigger);
  }
  if (!enclosing.error_type.empty()) span.set(names::kErrorType, enclosing.error_type);
  if (enclosing.outcome == TaskState::failed) span.status(StatusCode::error, enclosing.error);
  span.end(enclosing.end);
}

Logger Instrumentation::runner_logger(const ClaimedTask& task) const {
  return runner_logger_.pin({{names::kTaskId, std::to_string(task.task)},
                             {names::kJobId, task.job->id},
                             {names::kJobName, task.job->name},
                             {names::kAttempt, task.attempt}});
}

Logger Instrumentation::task_logger(const ClaimedTask& task, const TaskName& name) const {
  return task_logger_.pin({{names::kTaskId, std::to_string(task.task)},
                           {names::kIdentifierName, name.name},
                           {names::kJobId, task.job->id},
                           {names::kJobName, task.job->name},
                           {names::kAttempt, task.attempt}});
}

std::vector<LostRunner> lost_runners(const Recovered& recovered) {
  struct Found {
    LostAttempt attempt;
    Timestamp start;
    bool crashed = false;
    std::uint64_t thread = 0;
  };
  std::map<std::string, std::vector<Found>> by_runner;
  bool crashed = false;
  for (const InterruptedSpan& span : recovered.interrupted) {
    const std::string_view runner = find_string(span.attributes, names::kRunnerId);
    const std::string_view task = find_string(span.attributes, names::kTaskId);
    if (runner.empty() || task.empty() || !span.name.starts_with(names::kTask)) continue;
    if (find(span.attributes, names::kWorkerProcess) && !find(span.attributes, names::kRunnerLost)) continue;
    Found found{{.task = 0, .end = span.end}, span.start, span.crashed_here, span.thread_id};
    const auto parsed = std::from_chars(task.data(), task.data() + task.size(), found.attempt.task);
    if (parsed.ec != std::errc() || integer(span.attributes, names::kAttempt) <= 0) continue;
    crashed |= found.crashed;
    by_runner[std::string(runner)].push_back(found);
  }
  // A thread's earlier attempts may still have been waiting for their commit: it was executing the newest.
  const Found* guilty = nullptr;
  for (const auto& [runner, attempts] : by_runner) {
    for (const Found& f : attempts) {
      if (f.crashed && (!guilty || f.start >= guilty->start)) guilty = &f;
    }
  }
  std::vector<LostRunner> lost;
  for (const auto& [runner, attempts] : by_runner) {
    LostRunner& l = lost.emplace_back();
    l.runner = runner;
    for (const Found& f : attempts) {
      l.attempts.push_back(f.attempt);
      l.attempts.back().charged = !crashed || &f == guilty;
    }
  }
  return lost;
}

ExceptionText describe(const std::exception_ptr& exception) {
  const auto demangle = [](const std::type_info* type) -> std::string {
    if (!type) return "unknown";
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(type->name(), nullptr, nullptr, &status),
                                                      std::free);
    return status == 0 && text ? text.get() : type->name();
  };
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& e) {
    return {demangle(&typeid(e)), e.what()};
  } catch (...) {
    return {demangle(abi::__cxa_current_exception_type()), "an exception that is no std::exception"};
  }
}

}  // namespace waymark
