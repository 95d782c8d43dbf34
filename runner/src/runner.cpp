#include "waymark/runner.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "automations.h"
#include "loop.h"
#include "signals.h"
#include "task_batch.h"
#include "waymark/error.h"

namespace waymark {
namespace detail {
namespace {

// Queued tasks that no thread has started for so long go back: others may be free.
constexpr auto kQueuePatience = std::chrono::milliseconds(10);
constexpr std::size_t kMostPrefetched = 256;
constexpr double kPrefetchedWork = 0.005;  // seconds of it, at most
constexpr auto kLookAgain = std::chrono::milliseconds(10);  // at a thread that was just about to begin
constexpr auto kProgressInterval = std::chrono::milliseconds(100);
// For what worker processes have recorded, at their end.
constexpr auto kFlush = std::chrono::seconds(5);
constexpr auto kHurriedFlush = std::chrono::milliseconds(500);
constexpr auto kLastPatience = std::chrono::milliseconds(100);  // with a thread that was asked to end

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

void name_thread(const std::string& name) { pthread_setname_np(pthread_self(), name.c_str()); }

}  // namespace

RunnerLoop::RunnerLoop(LoopOptions options)
    : options_(std::move(options)),
      telemetry_(options_.telemetry->keep()),
      id_(SpanId::random().hex()),
      ground_(std::make_shared<AttemptGround>(
          AttemptGround{.store = options_.store,
                        .instrumentation = Instrumentation(*options_.telemetry, id_, options_.name, options_.cluster),
                        .backoff = options_.runner.backoff,
                        .cache_directory = options_.cache_directory,
                        .cache_spans = options_.cache_spans,
                        .now = options_.time.now,
                        .types = options_.tasks})),
      instrumentation_(ground_->instrumentation) {
  RunnerOptions& runner = options_.runner;
  if (runner.lease < std::chrono::milliseconds(50) || runner.lease > std::chrono::hours(24)) {
    throw Error(ErrorCode::invalid_argument, "RunnerOptions::lease: expected 50 ms to 1 day");
  }
  if (runner.max_lost == 0) throw Error(ErrorCode::invalid_argument, "RunnerOptions::max_lost: expected at least 1");
  check_backoff(runner.backoff, "RunnerOptions::backoff");
  ground_->backoff = bounded(runner.backoff);
  if (runner.timeout_grace.count() < 0) {
    throw Error(ErrorCode::invalid_argument, "RunnerOptions::timeout_grace: expected 0 or more");
  }
  if (runner.keep_jobs_for.count() < 0) {
    throw Error(ErrorCode::invalid_argument, "RunnerOptions::keep_jobs_for: expected 0 or more");
  }
  runner.timeout_grace = bounded(runner.timeout_grace);
  runner.keep_jobs_for = bounded(runner.keep_jobs_for);
  if (runner.concurrency == 0) runner.concurrency = std::max(1u, std::thread::hardware_concurrency());
  for (std::size_t i = 0; i < options_.tasks.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (options_.tasks[i].name != options_.tasks[j].name) continue;
      throw Error(ErrorCode::invalid_argument, "runner: two tasks are named " + options_.tasks[i].name.name + " " +
                                                   options_.tasks[i].name.version +
                                                   ": give one of them an identifier of its own (see waymark/task.h)");
    }
  }
  std::vector<TaskName> task_names;
  for (const TaskType& task : options_.tasks) task_names.push_back(task.name);
  ground_->instrumentation.metrics().know(task_names);
  ground_->instrumentation.metrics().watch(options_.store);
}

void RunnerLoop::join_store() {
  NewWorker worker;
  worker.runner = id_;
  worker.name = options_.name;
  worker.host = host_name();
  worker.process_id = static_cast<std::uint64_t>(getpid());
  worker.cluster = options_.cluster;
  for (const TaskType& task : options_.tasks) worker.tasks.push_back(task.name);
  worker.lease = options_.runner.lease;
  const WorkerId id = instrumentation_.metrics().timed("join", [&] { return options_.store->join(worker); });
  const auto deadline = options_.store->renew(id);
  const std::scoped_lock lock(mutex_);
  worker_ = id;
  if (deadline) deadline_ = *deadline;
  renewed_ = Clock::now();
}

void RunnerLoop::start_threads() {
  {
    const std::scoped_lock lock(mutex_);
    running_threads_ = true;
    changed_ = true;
    due_.reset();
    board_ = std::make_shared<ProgressBoard>([this] {
      const std::scoped_lock inner(mutex_);
      progress_changed_ = true;
      if (loop_waits_) wake_loop_.notify_one();
    });
  }
  for (std::uint32_t i = 0; i < options_.runner.concurrency; ++i) start_thread();
  lease_thread_ = std::thread([this] { keep_lease(); });
}

void RunnerLoop::start_thread() {
  const std::uint32_t number = ++last_thread_;
  threads_.emplace(number, std::thread([self = shared_from_this(), hanging = hanging_, number]() mutable {
                     const bool came_back = self->execute_tasks(number);
                     self.reset();
                     if (came_back) --*hanging;
                   }));
}

// Waits for tasks that are still executing and were not given up.
void RunnerLoop::stop_threads() noexcept {
  {
    const std::scoped_lock lock(mutex_);
    running_threads_ = false;
    wake_tasks_.notify_all();
    wake_lease_.notify_all();
  }
  for (auto& [number, thread] : threads_) thread.join();
  threads_.clear();
  lease_thread_.join();
  timers_.clear();
  if (board_) board_->close();
}

// Starts a worker process where there is none any more. False: there can't be one, and the run ends.
bool RunnerLoop::ready(std::shared_ptr<WorkerProcess>& process, const Attempt& attempt) {
  if (process && process->alive()) return true;
  WorkerStart start{.runner = id_, .tasks = {}};
  for (const TaskType& task : options_.tasks) start.tasks.push_back(task.name);
  try {
    process = WorkerProcess::start(*options_.workers, start, attempt.stop_source().get_token());
  } catch (const Error&) {
    const std::scoped_lock lock(mutex_);
    if (!no_workers_) no_workers_ = std::current_exception();
    return false;
  }
  return process != nullptr;
}

bool RunnerLoop::execute_tasks(std::uint32_t number) {
  name_thread("wm-task-" + std::to_string(number));
  std::shared_ptr<WorkerProcess> process;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (running_threads_ && queue_.empty()) {
      instrumentation_.metrics().idle_begins();
      wake_tasks_.wait(lock, [&] { return !running_threads_ || !queue_.empty(); });
      instrumentation_.metrics().idle_ends();
    }
    if (!running_threads_) break;
    std::shared_ptr<Attempt> attempt = std::move(queue_.front());
    queue_.pop_front();
    active_.emplace(attempt.get(), Active{attempt, number});
    last_start_ = Clock::now();
    if (options_.workers) {
      lock.unlock();
      const bool is_ready = ready(process, *attempt);
      lock.lock();
      if (!is_ready) {  // given back
        active_.erase(attempt.get());
        if (!attempt->lease_lost()) finished_.push_back(std::move(attempt));
        if (loop_waits_) wake_loop_.notify_one();
        continue;
      }
    }
    if (attempt->timeout().count() > 0) {
      timers_.emplace(last_start_ + attempt->timeout(), attempt.get());
      if (loop_waits_) wake_loop_.notify_one();
    }
    lock.unlock();
    const auto start = Clock::now();
    attempt->execute(process);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    lock.lock();
    if (attempt->abandoned()) {  // another thread has taken this one's place
      lock.unlock();
      return true;
    }
    seconds_per_task_ += (seconds - seconds_per_task_) / 8;
    active_.erase(attempt.get());
    if (attempt->timeout().count() > 0) {
      std::erase_if(timers_, [&](const auto& timer) { return timer.second == attempt.get(); });
    }
    if (const auto deadline = attempt->lease_lost()) {
      lock.unlock();
      attempt->conclude(false, *deadline);
      attempt.reset();
      lock.lock();
    } else {
      finished_.push_back(std::move(attempt));
    }
    if (loop_waits_) wake_loop_.notify_one();
  }
  const bool hurry = grace_.has_value();
  lock.unlock();
  // What a worker can't deliver in time is in the state directory, if there is one.
  if (process) process->end(hurry ? kHurriedFlush : kFlush);
  return false;
}

// The first time its timeout is over, an attempt is asked to stop; the second time, its thread is given up.
void RunnerLoop::watch_time(std::unique_lock<std::mutex>& lock) {
  const auto now = Clock::now();
  std::vector<std::stop_source> sources;
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Attempt* attempt = timers_.begin()->second;
    timers_.erase(timers_.begin());
    std::stop_source source = attempt->stop_source();
    if (!attempt->timed_out()) {
      attempt->time_out();
      sources.push_back(source);
      timers_.emplace(now + options_.runner.timeout_grace, attempt);
    } else if (!abandon(attempt, true)) {
      timers_.emplace(now + kLookAgain, attempt);
    }
  }
  if (give_up_ && now >= *give_up_) abandon_all();
  if (sources.empty()) return;
  lock.unlock();
  for (std::stop_source& source : sources) source.request_stop();
  lock.lock();
}

bool RunnerLoop::abandon(Attempt* attempt, bool for_timeout) {
  const auto it = active_.find(attempt);
  if (it == active_.end() || attempt->kill_process(for_timeout)) return true;
  if (!attempt->abandon(for_timeout)) return false;
  Active active = std::move(it->second);
  active_.erase(it);
  ++*hanging_;
  if (const auto thread = threads_.find(active.thread); thread != threads_.end()) {
    thread->second.detach();
    threads_.erase(thread);
    if (running_threads_ && !give_up_) start_thread();
  }
  if (!active.attempt->lease_lost()) {
    finished_.push_back(std::move(active.attempt));
  } else {
    active.attempt->conclude(false, *active.attempt->lease_lost());
  }
  return true;
}

void RunnerLoop::abandon_all() {
  std::vector<Attempt*> attempts;
  for (const auto& [attempt, active] : active_) {
    if (!attempt->killed()) attempts.push_back(attempt);
  }
  for (Attempt* attempt : attempts) {
    std::erase_if(timers_, [&](const auto& timer) { return timer.second == attempt; });
    (void)abandon(attempt, false);
  }
  if (!attempts.empty()) {
    instrumentation_.logger().warning("tasks did not stop when they were asked to, and were given back",
                                      {{"tasks", attempts.size()}});
  }
  if (!active_.empty()) give_up_ = Clock::now() + kLookAgain;
}

// For a small part of the lease, so that it is never kept waiting.
void RunnerLoop::prune() {
  constexpr std::size_t kRows = 1000;
  const Retention retention{.age = options_.runner.keep_jobs_for, .jobs = options_.runner.keep_jobs};
  if (retention.age.count() == 0 && retention.jobs == 0) return;
  const auto until = Clock::now() + options_.runner.lease / 10;
  do {
    if (!unused_caches_.empty()) {
      if (remove_cache(options_.cache_directory, unused_caches_.back(), until)) unused_caches_.pop_back();
    } else {
      Pruned pruned = options_.store->prune(retention, kRows);
      if (!options_.cache_directory.empty()) unused_caches_ = std::move(pruned.jobs);
      if (!pruned.more && unused_caches_.empty()) return;
    }
    const std::scoped_lock lock(mutex_);
    if (!running_threads_ || give_up_) return;
  } while (Clock::now() < until);
}

void RunnerLoop::keep_lease() {
  name_thread("wm-lease");
  const std::chrono::nanoseconds lease = options_.runner.lease, long_since = lease * 2 / 3;
  bool patient = false;  // with the others, until then
  Clock::time_point sweep_from;
  std::unique_lock lock(mutex_);
  while (running_threads_) {
    const WorkerId worker = worker_;
    const Timestamp last_deadline = deadline_;
    const Clock::time_point last_renewed = renewed_;
    lock.unlock();
    std::optional<Timestamp> deadline;
    Released released;
    bool reached = false;
    try {
      deadline = instrumentation_.metrics().timed("renew", [&] { return options_.store->renew(worker); });
      reached = true;
      instrumentation_.metrics().lease(deadline ? RunnerMetrics::Lease::renewed : RunnerMetrics::Lease::lost);
      if (deadline) {
        // What has kept this runner from renewing in time (a machine that slept, a clock that was set, a store that was
        // locked) may have kept all of them. The others are given the time to say that they live.
        const bool late = Clock::now() - last_renewed > long_since || *deadline - last_deadline > long_since;
        if (late && !patient) sweep_from = Clock::now() + long_since;
        patient |= late;
        if (!patient || Clock::now() >= sweep_from) {
          patient = false;
          released = instrumentation_.metrics().timed("sweep", [&] { return options_.store->sweep(worker, options_.runner.max_lost); });
          instrumentation_.metrics().released(released);
        }
      }
    } catch (const Error& e) {
      if (!reached) instrumentation_.metrics().lease(RunnerMetrics::Lease::unreachable);
      instrumentation_.logger().warning("the store could not be reached to renew the lease", {{"error", e.what()}});
    }
    record(released.spans);
    if (released.tasks + released.failed > 0) {
      instrumentation_.logger().warning("took over the tasks of runners that are gone",
                                        {{"tasks", released.tasks}, {"failed", released.failed}});
    }
    lock.lock();
    if (deadline && worker == worker_) {
      deadline_ = *deadline;
      renewed_ = Clock::now();
    }
    if (reached && !deadline && worker == worker_) {
      lease_lost_ = true;
      if (loop_waits_) wake_loop_.notify_one();
    }
    if (!running_threads_) break;
    if (deadline) {
      lock.unlock();
      try {
        prune();
      } catch (const Error& e) {
        instrumentation_.logger().warning("old jobs could not be removed", {{"error", e.what()}});
      }
      lock.lock();
      if (!running_threads_) break;
    }
    wake_lease_.wait_for(lock, reached ? lease / 3 : std::min<std::chrono::nanoseconds>(std::chrono::seconds(1), lease / 10));
  }
  const auto until = give_up_.value_or(Clock::time_point::max());
  lock.unlock();
  // Nobody else knows of these.
  for (const std::string& job : unused_caches_) remove_cache(options_.cache_directory, job, until);
  unused_caches_.clear();
}

void RunnerLoop::changed() {
  const std::scoped_lock lock(mutex_);
  changed_ = true;
  if (loop_waits_) wake_loop_.notify_one();
}

void RunnerLoop::recovered(const std::vector<LostRunner>& lost) {
  const std::scoped_lock lock(mutex_);
  for (const LostRunner& l : lost) {
    if (l.runner != id_) lost_.push_back(l);
  }
  if (loop_waits_) wake_loop_.notify_one();
}

void RunnerLoop::record(const std::vector<EnclosingSpan>& spans) {
  if (spans.empty()) return;
  for (const EnclosingSpan& span : spans) instrumentation_.record(span);
  const std::scoped_lock lock(mutex_);
  for (const EnclosingSpan& span : spans) recorded_.push_back(span.id);
  if (loop_waits_) wake_loop_.notify_one();
}

// How many tasks could be used now. Short ones are worth having in advance.
std::size_t RunnerLoop::room() const noexcept {
  const double threads = options_.runner.concurrency;
  const auto ahead = std::min(kMostPrefetched,
                              static_cast<std::size_t>(kPrefetchedWork * threads / std::max(seconds_per_task_, 1e-7)));
  const std::size_t capacity = options_.runner.concurrency + (ahead > 1 ? ahead : 0);
  // Where results wait for commits of their own, they are not to become ever more.
  const std::size_t taken = active_.size() + queue_.size() + (options_.runner.commit_each ? finished_.size() : 0);
  const std::size_t room = capacity > taken ? capacity - taken : 0;
  // Nor is each commit to claim one more of the short ones, and wake a thread for it: enough is there until half is free.
  const bool enough = options_.runner.commit_each && ahead > 1 && room < capacity / 2 && !(queue_.empty() && finished_.empty());
  return enough ? 0 : room;
}

void RunnerLoop::give_back_queue() {
  for (auto& attempt : queue_) finished_.push_back(std::move(attempt));
  queue_.clear();
}

// Stop callbacks are the user's code: not under our lock.
void RunnerLoop::stop_all(std::unique_lock<std::mutex>& lock) {
  std::vector<std::stop_source> sources;
  for (const auto& [attempt, active] : active_) sources.push_back(attempt->stop_source());
  lock.unlock();
  for (std::stop_source& source : sources) source.request_stop();
  lock.lock();
}

void RunnerLoop::stop_some(std::unique_lock<std::mutex>& lock, const std::vector<std::int64_t>& tasks) {
  std::vector<std::stop_source> sources;
  for (const std::int64_t task : tasks) {
    const auto is_it = [&](const auto& attempt) { return attempt->task().task == task; };
    for (const auto& [attempt, active] : active_) {
      if (is_it(attempt)) sources.push_back(attempt->stop_source());
    }
    if (const auto it = std::find_if(queue_.begin(), queue_.end(), is_it); it != queue_.end()) {
      finished_.push_back(std::move(*it));
      queue_.erase(it);
    }
  }
  lock.unlock();
  for (std::stop_source& source : sources) source.request_stop();
  lock.lock();
}

// Tasks are told of the end before anything else is waited for.
void RunnerLoop::begin_end(std::unique_lock<std::mutex>& lock) {
  if (std::exchange(ending_, true)) return;
  if (grace_) give_up_ = Clock::now() + *grace_;
  if (automations_) automations_->ask_to_stop();
  give_back_queue();
  stop_all(lock);
}

// A store that is locked or full may be usable again soon. Until then results are kept, and nothing new is claimed.
// Where the end has a time, only until then.
template <class Call>
auto RunnerLoop::patiently(Call call) {
  const auto give_up = Clock::now() + options_.runner.lease;
  auto pause = std::chrono::milliseconds(50);
  for (bool first = true;; first = false) {
    try {
      return call();
    } catch (const Error& e) {
      if (first) instrumentation_.logger().warning("the store can't be used; trying again", {{"error", e.what()}});
      std::unique_lock lock(mutex_);
      if (stop_.stop_requested()) begin_end(lock);
      const auto now = Clock::now();
      if (now > give_up || (give_up_ && now >= *give_up_)) throw;
      wake_loop_.wait_until(lock, give_up_ ? std::min(now + pause, *give_up_) : now + pause,
                            [&] { return stop_.stop_requested() && !ending_; });
    }
    pause = std::min(pause * 2, std::chrono::milliseconds(1000));
  }
}

// What was executed and not committed is lost; what is being executed is told.
void RunnerLoop::lose_lease(std::unique_lock<std::mutex>& lock, std::vector<std::shared_ptr<Attempt>> finished) {
  lease_lost_ = false;
  const Timestamp deadline = deadline_;
  for (const auto& [attempt, active] : active_) attempt->lose_lease(deadline);
  const std::size_t lost = active_.size() + finished.size() + finished_.size();
  queue_.clear();
  for (auto& attempt : finished_) finished.push_back(std::move(attempt));
  finished_.clear();
  stop_all(lock);
  lock.unlock();
  for (auto& attempt : finished) attempt->conclude(false, deadline);
  instrumentation_.logger().warning("the lease was lost: this runner's tasks were given to others",
                                    {{names::kRunnerId, id_}, {"tasks", lost}});
  patiently([&] { join_store(); });
  // Whoever took them may be gone as well.
  record(patiently([&] { return options_.store->sweep(worker_, options_.runner.max_lost); }).spans);
  lock.lock();
  changed_ = true;
}

void RunnerLoop::release_dead(std::unique_lock<std::mutex>& lock) {
  const std::vector<LostRunner> lost = std::exchange(lost_, {});
  const WorkerId worker = worker_;
  lock.unlock();
  for (const LostRunner& l : lost) {
    const Released released =
        patiently([&] {
          return instrumentation_.metrics().timed("release", [&] {
            return options_.store->release(worker, l.runner, l.attempts, options_.runner.max_lost);
          });
        });
    instrumentation_.metrics().released(released);
    record(released.spans);
    if (released.tasks + released.failed == 0) continue;
    instrumentation_.logger().warning(
        "released the tasks of a runner whose process has died",
        {{names::kRunnerId, l.runner}, {"tasks", released.tasks}, {"failed", released.failed}});
  }
  lock.lock();
}

// One exchange with the store, if there is a reason for one. False where there is nothing more to do.
bool RunnerLoop::step(std::unique_lock<std::mutex>& lock, bool stopping) {
  if (lease_lost_) {
    lose_lease(lock, {});
    return true;
  }
  if (!lost_.empty()) {
    release_dead(lock);
    return true;
  }
  if ((!timers_.empty() && timers_.begin()->first <= Clock::now()) || (give_up_ && *give_up_ <= Clock::now())) {
    watch_time(lock);
  }
  const auto now = Clock::now();
  if (stopping || (!queue_.empty() && now - last_start_ >= kQueuePatience)) {
    if (!queue_.empty()) seconds_per_task_ = std::max(seconds_per_task_, 1.0);
    give_back_queue();
  }
  const std::size_t want = stopping ? 0 : room();
  const bool due = due_ && *due_ <= now && want > 0;
  const bool report = progress_changed_ && now - last_progress_ >= kProgressInterval;
  const bool more = more_ && want > 0;
  if (finished_.empty() && recorded_.empty() && !changed_ && !more && !due && !report) return false;

  const bool one = options_.runner.commit_each && !finished_.empty();
  const auto last = one ? std::next(finished_.begin()) : finished_.end();
  std::vector<std::shared_ptr<Attempt>> finished(std::move_iterator(finished_.begin()), std::move_iterator(last));
  finished_.erase(finished_.begin(), last);
  const std::vector<std::int64_t> recorded = std::exchange(recorded_, {});
  const WorkerId worker = worker_;
  changed_ = false;
  if (want > 0) more_ = false;
  if (due) due_.reset();
  const bool take_progress = progress_changed_ && (report || !finished.empty());
  if (take_progress) {
    progress_changed_ = false;
    last_progress_ = now;
  }
  lock.unlock();

  const std::vector<ProgressReport> progress = take_progress ? board_->take() : std::vector<ProgressReport>();
  std::vector<Finish> finishes;
  finishes.reserve(finished.size());
  for (const auto& attempt : finished) finishes.push_back(std::move(attempt->finish()));
  Exchanged result;
  const auto ask = [&] {
    return instrumentation_.metrics().timed("exchange", [&] {
      return options_.store->exchange(
          {.worker = worker, .finishes = finishes, .progress = progress, .recorded = recorded, .want = want});
    });
  };
  try {
    result = patiently(ask);
  } catch (...) {
    // Their leases will end: somebody runs them again.
    lock.lock();
    const Timestamp deadline = deadline_;
    lock.unlock();
    for (auto& attempt : finished) attempt->conclude(false, deadline);
    throw;
  }
  if (result.lease_lost) {
    lock.lock();
    lose_lease(lock, std::move(finished));
    return true;
  }
  // First what is over is recorded: the next task may be one that ends the process.
  lock.lock();
  const Timestamp deadline = deadline_;
  lock.unlock();
  for (std::size_t i = 0; i < finished.size(); ++i) {
    finished[i]->finish() = std::move(finishes[i]);
    finished[i]->conclude(result.accepted[i], deadline);
  }
  finished.clear();
  record(result.closed);
  std::vector<std::shared_ptr<Attempt>> claimed;
  claimed.reserve(result.claimed.size());
  for (ClaimedTask& task : result.claimed) {
    claimed.push_back(std::make_shared<Attempt>(std::move(task), ground_, worker, board_));
  }
  lock.lock();
  if (!claimed.empty()) {
    if (queue_.empty()) last_start_ = Clock::now();
    for (auto& attempt : claimed) queue_.push_back(std::move(attempt));
    if (ending_) give_back_queue();
    if (claimed.size() == 1) {
      wake_tasks_.notify_one();
    } else {
      wake_tasks_.notify_all();
    }
  }
  if (want > 0) {
    due_ = result.due ? std::optional(Clock::now() + *result.due) : std::nullopt;
    if (result.due) due_in_ = std::max(*result.due, std::chrono::nanoseconds(0));
    more_ = claimed.size() == want;
  }
  if (!result.stopping.empty()) stop_some(lock, result.stopping);
  return true;
}

// Where time need not be waited for: true if it has passed until the next task is due.
bool RunnerLoop::pass_time(std::unique_lock<std::mutex>& lock) {
  const bool at_rest = active_.empty() && queue_.empty() && finished_.empty() && recorded_.empty();
  if (!options_.time.pass || !due_ || !at_rest) return false;
  due_.reset();
  changed_ = true;
  const WorkerId worker = worker_;
  lock.unlock();
  options_.time.pass(due_in_);
  // The lease would have been renewed meanwhile.
  const auto deadline = patiently([&] { return options_.store->renew(worker); });
  lock.lock();
  if (deadline) deadline_ = *deadline;
  return true;
}

void RunnerLoop::wait(std::unique_lock<std::mutex>& lock, bool stopping) {
  auto until = Clock::time_point::max();
  if (due_ && !stopping && room() > 0) until = *due_;
  if (!queue_.empty()) until = std::min(until, last_start_ + kQueuePatience);
  if (progress_changed_) until = std::min(until, last_progress_ + kProgressInterval);
  if (!timers_.empty()) until = std::min(until, timers_.begin()->first);
  if (give_up_ && !active_.empty()) until = std::min(until, *give_up_);
  loop_waits_ = true;
  if (until == Clock::time_point::max()) {
    wake_loop_.wait(lock);
  } else {
    wake_loop_.wait_until(lock, until);
  }
  loop_waits_ = false;
}

void RunnerLoop::run(const std::stop_token& stop, bool until_idle, std::optional<std::chrono::nanoseconds> grace) {
  if (starting_worker()) return;
  stop_ = stop;
  grace_ = grace;
  no_workers_ = nullptr;
  give_up_.reset();
  ending_ = false;
  join_store();
  const auto watch = options_.store->watch([this] { changed(); });
  std::shared_ptr<void> hurry;
  const std::stop_callback on_stop(stop, [this, &hurry] {
    if (grace_) hurry = options_.store->hurry();
    const std::scoped_lock lock(mutex_);
    wake_loop_.notify_one();
  });
  const AutomationGround ground{.store = options_.store,
                                .tracer = instrumentation_.runner_tracer(),
                                .logger = instrumentation_.logger(),
                                .cluster = options_.cluster};
  if (until_idle) {
    AutomationWork due(ground, false);
    patiently([&] { due.look(); });
  }
  start_threads();
  if (!until_idle) automations_.emplace(ground, telemetry_);
  const auto end_automations = [&] {
    if (automations_ && give_up_) automations_->finish(std::max(*give_up_, Clock::now() + kLastPatience), hanging_);
    automations_.reset();
  };
  try {
    std::unique_lock lock(mutex_);
    const auto is_over = [&] { return stop.stop_requested() || no_workers_; };
    for (;;) {
      const bool stopping = is_over();
      if (stopping) begin_end(lock);
      if (step(lock, stopping)) continue;
      const bool at_rest = active_.empty() && queue_.empty() && finished_.empty() && recorded_.empty();
      if (at_rest && stopping) break;
      if (at_rest && until_idle) {
        const WorkerId worker = worker_;
        lock.unlock();
        const bool idle = patiently([&] {
          return instrumentation_.metrics().timed("idle", [&] { return options_.store->idle(worker); });
        });
        lock.lock();
        if (idle && !anything_new()) break;
      }
      if (!anything_new() && is_over() == stopping) {
        if (!stopping && pass_time(lock)) continue;
        wait(lock, stopping);
      }
    }
  } catch (...) {
    {
      std::unique_lock lock(mutex_);
      begin_end(lock);
      queue_.clear();
      loop_waits_ = true;
      if (give_up_) wake_loop_.wait_until(lock, *give_up_, [&] { return active_.empty(); });
      while (give_up_ && !active_.empty()) {
        abandon_all();
        if (!active_.empty()) wake_loop_.wait_until(lock, *give_up_);
      }
      loop_waits_ = false;
    }
    end_automations();
    stop_threads();
    for (auto& attempt : finished_) attempt->conclude(false, deadline_);
    finished_.clear();
    recorded_.clear();
    lost_.clear();
    lease_lost_ = false;
    throw;
  }
  end_automations();
  stop_threads();
  try {
    options_.store->leave(worker_);
  } catch (const Error& e) {
    // The lease will end by itself.
    instrumentation_.logger().warning("could not leave the store", {{"error", e.what()}});
  }
  if (no_workers_) std::rethrow_exception(std::exchange(no_workers_, nullptr));
}

StopReason RunnerLoop::run_forever(const RunOptions& options) {
  if (options.grace && options.grace->count() < 0) {
    throw Error(ErrorCode::invalid_argument, "RunOptions::grace: expected 0 or more");
  }
  const auto grace = options.grace ? std::optional(bounded(*options.grace)) : std::nullopt;
  if (!options.handle_signals) {
    run(options.stop, false, grace);
    return StopReason::requested;
  }
  constexpr auto kGrace = std::chrono::seconds(3);
  constexpr auto kLastFlush = std::chrono::seconds(1);  // more is left to the process's end
  std::stop_source both;
  std::atomic<int> signal{0};
  const std::stop_callback pass_on(options.stop, [&] { both.request_stop(); });
  {
    const SignalWatch watch([&](int arrived) {
      signal = arrived;
      both.request_stop();
    });
    try {
      run(both.get_token(), false, grace.value_or(kGrace));
    } catch (...) {
      options_.telemetry->force_flush(kLastFlush);
      throw;
    }
  }
  options_.telemetry->force_flush(kLastFlush);
  if (signal == SIGINT) return StopReason::interrupted;
  return signal == SIGTERM ? StopReason::terminated : StopReason::requested;
}

}  // namespace detail

int exit_code(StopReason reason) noexcept {
  switch (reason) {
    case StopReason::interrupted: return 128 + SIGINT;
    case StopReason::terminated: return 128 + SIGTERM;
    case StopReason::requested: break;
  }
  return 0;
}

bool in_worker_process() noexcept { return detail::worker(); }

Runner::Runner(std::shared_ptr<detail::RunnerLoop> loop) : loop_(std::move(loop)) {}

void Runner::run_all() { loop_->run({}, true); }
StopReason Runner::run_forever(const RunOptions& options) { return loop_->run_forever(options); }
StopReason Runner::run_forever(std::stop_token stop) { return loop_->run_forever({.stop = std::move(stop)}); }
std::size_t Runner::hanging_threads() const noexcept { return loop_->hanging(); }
const std::string& Runner::id() const noexcept { return loop_->id(); }

}  // namespace waymark
