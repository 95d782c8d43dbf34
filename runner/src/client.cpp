#include "waymark/client.h"

#include <cxxabi.h>
#include <errno.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "automations.h"
#include "instrumentation.h"
#include "job_records.h"
#include "loop.h"
#include "task_batch.h"
#include "waymark/store.h"
#include "worker_process.h"

namespace waymark {

// ------ names of tasks

namespace detail {

TaskName checked_name(TaskIdentifier identifier) {
  constexpr std::size_t kLongestName = 256;
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, "task identifier \"" +
                                                 std::string(identifier.name.substr(0, kLongestName)) + "\" \"" +
                                                 std::string(identifier.version.substr(0, 64)) + "\": " + what);
  };
  if (identifier.name.empty() || identifier.name.size() > kLongestName) refuse("expected a name of 1 to 256 bytes");
  const std::string_view v = identifier.version;
  const std::size_t dot = v.find('.');
  const auto is_number = [](std::string_view digits) {
    return !digits.empty() && digits.size() <= 6 && digits.find_first_not_of("0123456789") == std::string_view::npos;
  };
  if (v.empty() || v[0] != 'v' || dot == std::string_view::npos || !is_number(v.substr(1, dot - 1)) ||
      !is_number(v.substr(dot + 1))) {
    refuse("expected a version like \"v1.0\"");
  }
  return {std::string(identifier.name), std::string(identifier.version)};
}

// The last part of a::b::Type, whatever stands in its template arguments or in the function that it is local to.
std::string unqualified_name(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(type.name(), nullptr, nullptr, &status),
                                                    std::free);
  const std::string full = status == 0 && text ? text.get() : type.name();
  std::size_t start = 0;
  int depth = 0;
  for (std::size_t i = 0; i < full.size(); ++i) {
    const char c = full[i];
    if (c == '<' || c == '(' || c == '{') ++depth;
    if (c == '>' || c == ')' || c == '}') --depth;
    if (depth == 0 && c == ':' && i + 1 < full.size() && full[i + 1] == ':') start = i + 2;
  }
  return full.substr(start);
}

void input_not_json(const TaskName& name, const char* why) {
  throw Error(ErrorCode::invalid_argument, "the input of task " + name.name + " can't be written as JSON: " + why);
}

}  // namespace detail

namespace {

// Options of a root beside a set of roots that have their own would be lost.
void check_job_only(const JobOptions& options) {
  if (options.max_retries == 0 && options.priority == 0 && !options.backoff && options.timeout.count() == 0 &&
      options.delay.count() == 0 && options.not_before == Timestamp{} && options.limit_key.empty() &&
      options.display.empty()) {
    return;
  }
  throw Error(ErrorCode::invalid_argument,
              "JobOptions: only cluster and key can be given beside a TaskSet: give the others to its add()");
}

}  // namespace

struct Jobs::Shared {
  std::shared_ptr<Store> store;
  Telemetry* telemetry = nullptr;
  std::string name;
  std::string cluster;
  std::string cache_directory;
  bool cache_spans = false;
  bool in_memory = false;  // the store
  TimeSource time;
  Tracer tracer;

  std::mutex runners_mutex;
  std::vector<std::weak_ptr<detail::RunnerLoop>> runners;
  std::vector<LostRunner> lost;  // found so far; a runner may be made later

  Job need(std::string_view id) {
    auto job = store->find(id);
    if (!job && detail::starting_worker()) {  // it was submitted here, that is, it was not
      job.emplace().id = id;
    }
    if (!job)
      throw Error(ErrorCode::not_found, "job " + std::string(id.substr(0, 64)) + ": the store knows no such job");
    return std::move(*job);
  }

  ReadTelemetry records(std::string_view id, const std::string& state_directory) {
    constexpr auto kFlush = std::chrono::milliseconds(250);  // a destination may be away; the journal is not
    const Job job = need(id);
    std::string directory = state_directory;
    if (directory.empty()) {
      const std::string own = telemetry->directory();
      if (own.empty()) {
        throw Error(ErrorCode::not_found,
                    "the records of job " + job.id +
                        ": this program's telemetry has no state directory, so nothing is kept: name one that has");
      }
      telemetry->force_flush(kFlush);
      directory = own.substr(0, own.rfind('/'));
    }
    return detail::records_of(read_state_directory(directory), job);
  }
};

// ------ Jobs

TaskSet Jobs::root_set(const TaskName& task, std::vector<std::string> inputs, const JobOptions& options) {
  TaskSet roots;
  roots.add(task, std::move(inputs),
            {.max_retries = options.max_retries,
             .priority = options.priority,
             .backoff = options.backoff,
             .timeout = options.timeout,
             .delay = options.delay,
             .not_before = options.not_before,
             .limit_key = options.limit_key,
             .display = options.display});
  return roots;
}

Job Jobs::submit(std::string_view name, const TaskName& task, std::string input, const JobOptions& options) {
  return submit(name, root_set(task, {std::move(input)}, options), options, false);
}

Job Jobs::submit(std::string_view name, TaskSet roots, const JobOptions& options) {
  check_job_only(options);
  return submit(name, std::move(roots), options, false);
}

Job Jobs::run(std::string_view name, const TaskName& task, std::string input, const JobOptions& options) {
  return wait(submit(name, root_set(task, {std::move(input)}, options), options, true).id);
}

Job Jobs::run(std::string_view name, TaskSet roots, const JobOptions& options) {
  check_job_only(options);
  return wait(submit(name, std::move(roots), options, true).id);
}

Job Jobs::submit(std::string_view name, TaskSet roots, const JobOptions& options, bool waits) {
  if (detail::starting_worker()) {  // the runner's process has submitted it
    Job job;
    job.id = detail::new_job_id();
    job.name = name;
    return job;
  }
  const TraceContext caller = current_context();
  Span span = shared_->tracer.span(std::string(names::kSubmit) + std::string(name), {{names::kJobName, name}},
                                   {.kind = SpanKind::producer});
  NewJob job;
  job.id = detail::new_job_id();
  job.name = name;
  job.cluster = options.cluster.empty() ? shared_->cluster : options.cluster;
  job.key = options.key;
  job.baggage = caller.baggage;
  if (waits && caller.span.valid()) {
    // Part of what the caller does, and sampled as that is.
    job.span = caller.span;
    job.span.span_id = SpanId::random();
    job.span.remote = false;
    job.parent = caller.span.span_id;
  } else {
    job.span = shared_->tracer.new_root(std::string(names::kJob) + std::string(name));
  }
  if (span.context().valid()) job.submitter = span.context();
  job.not_before = shared_->time.now();
  job.roots = roots.batch_->take();
  if (job.roots.tasks.size() == 1) {
    const TaskName& task = job.roots.tasks[0].name;
    span.set({{names::kIdentifierName, task.name}, {names::kIdentifierVersion, task.version}});
  }
  Job submitted = shared_->store->submit(job);
  span.set(names::kJobId, submitted.id);  // of the one that was there, where it has the same key
  return submitted;
}

JobPage Jobs::query(const JobFilter& filter) { return shared_->store->query(filter); }

Job Jobs::cancel(std::string_view id) {
  (void)shared_->need(id);
  if (!detail::starting_worker()) shared_->store->cancel(id);
  return shared_->need(id);
}

std::uint64_t Jobs::retry(std::string_view id) {
  if (detail::starting_worker()) return 0;
  (void)shared_->need(id);
  return shared_->store->retry(id);
}

Job Jobs::find(std::string_view id) { return shared_->need(id); }

Job Jobs::wait(std::string_view id, std::chrono::nanoseconds timeout) {
  using Clock = std::chrono::steady_clock;
  std::mutex mutex;
  std::condition_variable told;
  bool changed = false;
  const auto watch = shared_->store->watch([&] {
    const std::scoped_lock lock(mutex);
    changed = true;
    told.notify_one();
  });
  const auto now = Clock::now();
  const auto until = timeout >= Clock::time_point::max() - now ? Clock::time_point::max() : now + timeout;
  for (;;) {
    Job job = shared_->need(id);
    if (job.finished() || Clock::now() >= until || detail::starting_worker()) return job;
    std::unique_lock lock(mutex);
    // Also without word: nobody gives it of a store that can't be reached any more.
    told.wait_until(lock, std::min(until, Clock::now() + std::chrono::seconds(10)), [&] { return changed; });
    changed = false;
  }
}

std::vector<TaskInfo> Jobs::tasks(std::string_view id) {
  (void)shared_->need(id);
  return shared_->store->tasks(id);
}

std::vector<ReadLog> Jobs::query_logs(std::string_view id, const std::string& state_directory) {
  return shared_->records(id, state_directory).logs;
}

std::vector<ReadSpan> Jobs::query_spans(std::string_view id, const std::string& state_directory) {
  return shared_->records(id, state_directory).spans;
}

// ------ Client

Client::Client(const ClientOptions& options)
    : jobs_(std::make_shared<Jobs::Shared>()), automations_(std::make_shared<Automations::Shared>()) {
  Jobs::Shared& shared = *jobs_.shared_;
  shared.telemetry = options.telemetry ? options.telemetry : &telemetry();
  shared.name = !options.name.empty() ? options.name : shared.telemetry->resource().service_name();
  if (shared.name.empty()) shared.name = program_invocation_short_name;
  if (options.cluster.empty()) throw Error(ErrorCode::invalid_argument, "ClientOptions::cluster: expected a name");
  shared.cluster = options.cluster;
  shared.cache_directory = options.cache_directory;
  shared.cache_spans = options.cache_spans;
  shared.in_memory = options.store.starts_with("memory:");
  shared.store = open_store(options.store, options.time.now);
  shared.time = options.time;
  if (!shared.time.now) shared.time.now = detail::system_time;
  shared.tracer = shared.telemetry->tracer(names::kRunnerScope);
  automations_.shared_->ground = {.store = shared.store,
                                  .tracer = shared.tracer,
                                  .logger = shared.telemetry->logger(names::kRunnerScope),
                                  .cluster = shared.cluster};
  shared.telemetry->on_recovered([weak = std::weak_ptr(jobs_.shared_)](const Recovered& recovered) {
    const auto known = weak.lock();
    if (!known) return;
    const std::vector<LostRunner> lost = lost_runners(recovered);
    const std::scoped_lock lock(known->runners_mutex);
    known->lost.insert(known->lost.end(), lost.begin(), lost.end());
    for (const auto& runner : known->runners) {
      if (const auto loop = runner.lock()) loop->recovered(lost);
    }
  });
}

Runner Client::make_runner(std::vector<TaskType> tasks, const RunnerOptions& options) {
  Jobs::Shared& shared = *jobs_.shared_;
  detail::LoopOptions all{.store = shared.store,
                          .telemetry = shared.telemetry,
                          .name = shared.name,
                          .cluster = shared.cluster,
                          .tasks = std::move(tasks),
                          .runner = options,
                          .cache_directory = shared.cache_directory,
                          .cache_spans = shared.cache_spans,
                          .time = shared.time};
  if (options.isolation == Isolation::process) all.workers = detail::isolate(all, shared.in_memory);
  auto loop = std::make_shared<detail::RunnerLoop>(std::move(all));
  const std::scoped_lock lock(shared.runners_mutex);
  std::erase_if(shared.runners, [](const auto& runner) { return runner.expired(); });
  shared.runners.push_back(loop);
  loop->recovered(shared.lost);
  // Threads that hang keep the loop, perhaps beyond the telemetry's end: what it watches ends with the last handle.
  detail::RunnerLoop* const handle = loop.get();
  return Runner(std::shared_ptr<detail::RunnerLoop>(
      handle, [loop = std::move(loop)](detail::RunnerLoop* closed) { closed->close(); }));
}

void Client::pause(std::string_view cluster) {
  if (!detail::starting_worker()) store().pause(cluster, true);
}
void Client::resume(std::string_view cluster) {
  if (!detail::starting_worker()) store().pause(cluster, false);
}
std::vector<Cluster> Client::clusters() { return store().clusters(); }
void Client::limit(const Limit& limit) {
  if (!detail::starting_worker()) store().limit(limit);
}
std::vector<Limit> Client::limits() { return store().limits(); }

Store& Client::store() noexcept { return *jobs_.shared_->store; }

}  // namespace waymark
