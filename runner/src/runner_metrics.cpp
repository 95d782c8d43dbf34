#include "runner_metrics.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <tuple>

#include "instrumentation.h"

namespace waymark {
namespace {

double seconds(std::chrono::nanoseconds t) { return std::chrono::duration<double>(t).count(); }

InstrumentOptions options(const names::Metric& metric) { return {.unit = metric.unit, .description = metric.description}; }

// In the order of AttemptOutcome.
constexpr std::array<std::string_view, 5> kOutcomes{"computed", "retried", "failed", "released", "lease_lost"};

}  // namespace

RunnerMetrics::RunnerMetrics(Telemetry& telemetry, const std::string& cluster)
    : cluster_(cluster),
      meter_(telemetry.meter(names::kRunnerScope)),
      idle_(meter_.counter<double>(names::kIdleTime.name, options(names::kIdleTime)).bind({{names::kCluster, cluster_}})),
      job_duration_(meter_.histogram(names::kJobDuration.name, options(names::kJobDuration))),
      store_duration_(meter_.histogram(names::kStoreDuration.name, options(names::kStoreDuration))),
      leases_(meter_.counter(names::kLeaseCount.name, options(names::kLeaseCount))),
      recovered_(meter_.counter(names::kTasksRecovered.name, options(names::kTasksRecovered))) {}

void RunnerMetrics::know(const std::vector<TaskName>& names) {
  const auto counter = [this](const names::Metric& metric) { return meter_.counter(metric.name, options(metric)); };
  const auto executed = counter(names::kTasksExecuted);
  const auto computed = counter(names::kTasksComputed);
  const auto failed = counter(names::kTasksFailed);
  const auto retried = counter(names::kTasksRetried);
  const auto input_size = meter_.histogram<std::int64_t>(names::kTaskInputSize.name, options(names::kTaskInputSize));
  const auto queue_wait = meter_.histogram(names::kTaskQueueWait.name, options(names::kTaskQueueWait));
  const auto duration = meter_.histogram(names::kTaskDuration.name, options(names::kTaskDuration));
  for (const TaskName& name : names) {
    const std::array<Attribute, 4> all{Attribute(names::kTaskIdentifier, name.name), Attribute(names::kTaskVersion, name.version),
                                       Attribute(names::kCluster, cluster_), Attribute(names::kState, "")};
    const Attributes attributes(std::span<const Attribute>(all.data(), 3));
    OfTask& task = tasks_[{name.name, name.version}];
    task.executed = executed.bind(attributes);
    task.computed = computed.bind(attributes);
    task.failed = failed.bind(attributes);
    task.retried = retried.bind(attributes);
    task.input_size = input_size.bind(attributes);
    task.queue_wait = queue_wait.bind(attributes);
    for (const std::string_view outcome : kOutcomes) {
      task.duration.push_back(duration.bind({all[0], all[1], all[2], {names::kState, outcome}}));
    }
  }
}

void RunnerMetrics::watch(std::shared_ptr<Store> store) {
  // A child of fork collects too: the store's connection, and what is executed, are its parent's.
  const auto ours = [parent = getpid()] { return getpid() == parent; };
  // What was told once and is no more is told as zero, which nobody could tell from a runner that has ended; those beyond this
  // many, once.
  constexpr std::size_t kRemembered = 1000;
  using Key = std::tuple<TaskState, std::string, std::string, std::string>;
  const auto told = std::make_shared<std::map<Key, std::uint64_t>>();
  const auto gauge = meter_.observable_gauge<std::int64_t>(names::kTasksStored.name, options(names::kTasksStored));
  stored_ = gauge.add_callback([this, ours, told, store = std::move(store)](const Observer<std::int64_t>& observer) {
    if (!ours()) return;
    tell_idle(0);
    for (auto& [key, tasks] : *told) tasks = 0;
    for (const TaskCount& count : store->counts()) (*told)[{count.state, count.cluster, count.name.name, count.name.version}] = count.tasks;
    for (const auto& [key, tasks] : *told) {
      const auto& [state, cluster, name, version] = key;
      observer.observe(static_cast<std::int64_t>(tasks), {{names::kState, task_state_name(state)},
                                                          {names::kCluster, cluster},
                                                          {names::kTaskIdentifier, name},
                                                          {names::kTaskVersion, version}});
    }
    if (told->size() > kRemembered) std::erase_if(*told, [](const auto& entry) { return entry.second == 0; });
  });
  const auto active = meter_.observable_up_down_counter<std::int64_t>(names::kTasksActive.name, options(names::kTasksActive));
  active_ = active.add_callback([this, ours](const Observer<std::int64_t>& observer) {
    if (ours()) observer.observe(now_->executing.load(), {{names::kCluster, cluster_}});
  });
}

void RunnerMetrics::unwatch() noexcept {
  stored_.remove();
  active_.remove();
}

const RunnerMetrics::OfTask* RunnerMetrics::of(const TaskName& name) const {
  const auto found = tasks_.find({name.name, name.version});
  return found == tasks_.end() ? nullptr : &found->second;
}

void RunnerMetrics::begin(const TaskName& name, std::size_t input_bytes, std::chrono::nanoseconds queue_wait) const {
  ++now_->executing;
  const OfTask* const task = of(name);
  if (task == nullptr) return;
  task->executed.add(1);
  task->input_size.record(static_cast<std::int64_t>(input_bytes));
  task->queue_wait.record(std::max(0.0, seconds(queue_wait)));
}

void RunnerMetrics::end(const TaskName& name, AttemptOutcome outcome, std::chrono::nanoseconds duration) const {
  const OfTask* const task = of(name);
  if (task == nullptr) return;
  if (outcome == AttemptOutcome::computed) task->computed.add(1);
  if (outcome == AttemptOutcome::failed || outcome == AttemptOutcome::retried) task->failed.add(1);
  if (outcome == AttemptOutcome::retried) task->retried.add(1);
  task->duration[static_cast<std::size_t>(outcome)].record(std::max(0.0, seconds(duration)));
}

void RunnerMetrics::job_ended(const EnclosingSpan& job) const {
  if (job.task != 0) return;
  job_duration_.record(std::max(0.0, seconds(job.end - job.start)),
                       {{names::kState, task_state_name(job.outcome)}, {names::kCluster, cluster_}});
}

void RunnerMetrics::tell_idle(int change) const {
  const std::scoped_lock lock(now_->mutex);
  const auto now = std::chrono::steady_clock::now();
  if (now_->waiting > 0) idle_.add(now_->waiting * seconds(now - now_->idle_told));
  now_->idle_told = now;
  now_->waiting += change;
}
void RunnerMetrics::idle_begins() const { tell_idle(1); }
void RunnerMetrics::idle_ends() const { tell_idle(-1); }

void RunnerMetrics::lease(Lease what) const {
  static constexpr std::array<std::string_view, 3> words{"renewed", "lost", "unreachable"};
  leases_.add(1, {{names::kState, words[static_cast<std::size_t>(what)]}, {names::kCluster, cluster_}});
}

void RunnerMetrics::released(const Released& what) const {
  if (what.tasks > 0) recovered_.add(static_cast<std::int64_t>(what.tasks), {{names::kState, "again"}, {names::kCluster, cluster_}});
  if (what.failed > 0) recovered_.add(static_cast<std::int64_t>(what.failed), {{names::kState, "failed"}, {names::kCluster, cluster_}});
}

void RunnerMetrics::store_called(std::string_view operation, std::chrono::nanoseconds duration) const {
  store_duration_.record(seconds(duration), {{names::kStoreOperation, operation}});
}

}  // namespace waymark
