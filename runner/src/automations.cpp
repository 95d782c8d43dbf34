#include "automations.h"

#include <dirent.h>
#include <fnmatch.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "instrumentation.h"
#include "task_batch.h"
#include "waymark/client.h"
#include "waymark/error.h"
#include "worker_process.h"

namespace waymark {
namespace detail {
namespace {

using namespace std::chrono_literals;

constexpr auto kOnTime = 1min;          // a tick that is older was missed
constexpr std::size_t kMostMissed = 100;
constexpr auto kSettled = 2s;           // a file that was not changed for so long is finished
constexpr auto kScanAgain = 1min;       // file systems of other machines tell nothing
constexpr auto kTryAgain = 5s;
constexpr auto kLookInterval = 250ms;   // between two looks because the store has changed

struct Placeholder {
  std::string_view name;
  std::string_view text;
};

// In one pass, so that what was put in is not looked at again.
std::string filled(std::string_view text, const std::array<Placeholder, 4>& values) {
  std::string whole;
  while (!text.empty()) {
    const std::size_t brace = text.find('{');
    whole += text.substr(0, brace);
    if (brace == std::string_view::npos) break;
    text.remove_prefix(brace);
    const auto value =
        std::find_if(values.begin(), values.end(), [&](const Placeholder& p) { return text.starts_with(p.name); });
    if (value == values.end()) {
      whole += '{';
      text.remove_prefix(1);
    } else {
      whole += value->text;
      text.remove_prefix(value->name.size());
    }
  }
  return whole;
}

void fill(nlohmann::json& value, const std::array<Placeholder, 4>& values) {
  if (value.is_string()) {
    value = filled(value.get_ref<const std::string&>(), values);
  } else if (value.is_structured()) {
    for (auto& part : value) fill(part, values);
  }
}

std::string file_name(std::string_view path) { return std::string(path.substr(path.rfind('/') + 1)); }

std::string filled_input(const std::string& input, const JobTrigger& trigger) {
  if (input.empty()) return input;
  const std::string time = time_text(trigger.time);
  const std::string file = file_name(trigger.path);
  nlohmann::json whole = nlohmann::json::parse(input);
  fill(whole, {{{"{name}", trigger.name}, {"{time}", time}, {"{path}", trigger.path}, {"{file}", file}}});
  return whole.dump();
}

bool fits(const std::string& pattern, const char* name) {
  return fnmatch(pattern.c_str(), name, FNM_PERIOD | FNM_PATHNAME) == 0;
}

std::int64_t seconds(Timestamp t) { return std::chrono::floor<std::chrono::seconds>(t).time_since_epoch().count(); }
Timestamp timestamp(std::int64_t s) { return Timestamp(std::chrono::seconds(s)); }

}  // namespace

std::optional<Timestamp> Ticks::next(Timestamp after) const {
  const auto tick = schedule.next(seconds(after), zone);
  return tick ? std::optional(timestamp(*tick)) : std::nullopt;
}

std::vector<Timestamp> Ticks::last(Timestamp after, Timestamp until, std::size_t most) const {
  const std::int64_t first = seconds(after), end = seconds(until);
  // Not from the beginning: that may be years of minutes ago.
  for (std::int64_t window = 3600;; window *= 24) {
    const bool whole = end - first <= window;
    std::vector<Timestamp> ticks;
    std::int64_t at = whole ? first : end - window;
    while (at < end) {
      const auto tick = schedule.next(at, zone);
      if (!tick || *tick > end) break;
      ticks.push_back(timestamp(*tick));
      at = *tick;
    }
    if (!whole && ticks.size() < most) continue;
    if (ticks.size() > most) ticks.erase(ticks.begin(), ticks.end() - static_cast<std::ptrdiff_t>(most));
    return ticks;
  }
}

Ticks read_ticks(const Automation& automation) {
  return {CronSchedule(automation.schedule), TimeZone::find(automation.time_zone)};
}

// ------ AutomationWork

AutomationWork::AutomationWork(AutomationGround ground, bool watches) : ground_(std::move(ground)), watches_(watches) {}

AutomationWork::~AutomationWork() {
  if (inotify_ >= 0) close(inotify_);
}

void AutomationWork::wait_no_longer_than(std::chrono::nanoseconds time) {
  wait_ = std::min(wait_.value_or(time), std::max(time, std::chrono::nanoseconds(1ms)));
}

void AutomationWork::tell_once(const Automation& automation, const std::string& what) {
  std::string& last = told_[automation.name];
  if (last == what) return;
  last = what;
  ground_.logger.warning("automation \"" + automation.name + "\": " + what, {{names::kTriggerName, automation.name}});
}

std::optional<std::chrono::nanoseconds> AutomationWork::look() {
  wait_.reset();
  submitted_.clear();
  const std::vector<Automation> all = ground_.store->automations();
  read_events();
  std::set<std::string_view> there;
  for (const Automation& automation : all) {
    if (automation.cluster != ground_.cluster || automation.paused) continue;
    if (automation.kind == AutomationKind::directory) there.insert(automation.name);
    try {
      if (automation.kind == AutomationKind::cron) {
        look_at_cron(automation, ground_.store->time());
      } else {
        look_at_directory(automation);
      }
    } catch (const Error& e) {
      if (e.code() == ErrorCode::store) throw;
      tell_once(automation, e.what());
      wait_no_longer_than(kTryAgain);
    }
  }
  for (auto it = directories_.begin(); it != directories_.end();) {
    if (there.contains(it->first)) {
      ++it;
      continue;
    }
    const int watch = it->second.watch;
    it = directories_.erase(it);
    const bool used = std::any_of(directories_.begin(), directories_.end(),
                                  [&](const auto& other) { return other.second.watch == watch; });
    if (watch >= 0 && !used) inotify_rm_watch(inotify_, watch);
  }
  finished_.clear();
  return wait_;
}

void AutomationWork::look_at_cron(const Automation& automation, Timestamp now) {
  const auto key = std::pair(automation.schedule, automation.time_zone);
  auto known = ticks_.find(key);
  if (known == ticks_.end()) known = ticks_.emplace(key, read_ticks(automation)).first;
  const Ticks& ticks = known->second;
  const std::size_t most = automation.missed == MissedRuns::all ? kMostMissed : 1;
  std::uint64_t revision = automation.revision;
  for (const Timestamp tick : ticks.last(automation.looked_at, now, most)) {
    AutomationStep step{.name = automation.name, .revision = revision, .tick = tick};
    if (automation.missed == MissedRuns::skip && now - tick > kOnTime) {
      if (!ground_.store->advance(step)) break;
    } else if (!submit(automation, step, {.type = "cron", .name = automation.name, .time = tick})) {
      break;  // it was another runner's
    }
    ++revision;
  }
  if (const auto next = ticks.next(std::max(now, automation.looked_at))) wait_no_longer_than(*next - now);
}

bool AutomationWork::submit(const Automation& automation, AutomationStep step, JobTrigger trigger) {
  NewJob job;
  job.id = new_job_id();
  job.name = automation.name;
  job.cluster = automation.cluster;
  job.span = ground_.tracer.new_root(std::string(names::kJob) + automation.name);
  job.not_before = ground_.store->time();
  job.trigger = std::move(trigger);
  const std::string span_name = std::string(names::kSubmit) + automation.name;
  if (ground_.tracer.enabled()) job.submitter = ground_.tracer.new_root(span_name);
  TaskBatch root;
  try {
    root.add(automation.task, {filled_input(automation.input, job.trigger)},
             {.max_retries = automation.max_retries, .priority = automation.priority});
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::invalid_argument, "the input of task " + automation.task.name + " can't be written: " + e.what());
  }
  job.roots = root.take();
  step.job = &job;
  if (!ground_.store->advance(step)) return false;
  submitted_.push_back(job.id);
  if (!job.submitter.valid()) return true;
  SpanOptions options;
  options.kind = SpanKind::producer;
  options.root = true;
  options.start = job.not_before;
  options.trace_id = job.submitter.trace_id;
  options.span_id = job.submitter.span_id;
  options.sampled = job.submitter.sampled();
  DetachedSpan span = ground_.tracer.start_span(span_name,
                                                {{names::kJobId, job.id},
                                                 {names::kJobName, job.name},
                                                 {names::kIdentifierName, automation.task.name},
                                                 {names::kIdentifierVersion, automation.task.version}},
                                                options);
  set_trigger(span, job.trigger);
  span.end();
  return true;
}

std::vector<std::string> AutomationWork::run(const Automation& automation) {
  submitted_.clear();
  const JobTrigger trigger{.type = "manual", .name = automation.name, .time = ground_.store->time()};
  if (automation.kind == AutomationKind::cron) {
    submit(automation, {.name = automation.name, .revision = automation.revision, .also_paused = true}, trigger);
  } else {
    Directory directory;
    directory.path = automation.directory;
    directory.pattern = automation.pattern;
    Automation asked = automation;
    asked.paused = true;  // also where it is
    scan(asked, directory);
  }
  return submitted_;
}

// ------ directories

void AutomationWork::read_events() {
  if (inotify_ < 0) return;
  alignas(inotify_event) std::array<char, 16384> buffer;
  ssize_t got = 0;
  while ((got = read(inotify_, buffer.data(), buffer.size())) > 0) {
    for (ssize_t at = 0; at < got;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      for (auto& [name, directory] : directories_) {
        if (event->mask & IN_Q_OVERFLOW) directory.next_scan = {};
        if (directory.watch != event->wd) continue;
        if (event->mask & (IN_IGNORED | IN_MOVE_SELF | IN_DELETE_SELF)) {
          directory.watch = -1;  // its path leads elsewhere now, or nowhere
          directory.next_scan = {};
        } else if (event->len > 0 && fits(directory.pattern, event->name)) {
          finished_.emplace(directory.path, event->name);
        }
      }
    }
  }
}

void AutomationWork::look_at_directory(const Automation& automation) {
  const auto now = Clock::now();
  Directory& directory = directories_[automation.name];
  if (directory.path != automation.directory || directory.pattern != automation.pattern) {
    const int watch = directory.watch;
    const bool same = directory.path == automation.directory;
    directory = {};
    directory.path = automation.directory;
    directory.pattern = automation.pattern;
    if (same) directory.watch = watch;
  }
  // Watched before it is looked through, so that nothing comes unseen between the two.
  if (watches_ && directory.watch < 0) {
    if (inotify_ < 0) inotify_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (inotify_ >= 0) {
      directory.watch = inotify_add_watch(inotify_, directory.path.c_str(),
                                          IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
    }
    directory.next_scan = {};
  }
  const bool told = finished_.lower_bound({directory.path, {}}) != finished_.end() &&
                    finished_.lower_bound({directory.path, {}})->first == directory.path;
  if (now >= directory.next_scan || told) {
    directory.next_scan = now + kScanAgain;
    try {
      scan(automation, directory);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::store) directory.next_scan = {};
      throw;
    }
  }
  wait_no_longer_than(directory.next_scan - now);
}

void AutomationWork::scan(const Automation& automation, Directory& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(directory.path.c_str()), closedir);
  if (!open) {
    throw Error(ErrorCode::not_found, directory.path + ": " + std::strerror(errno));
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::vector<std::string> names;
  std::unordered_set<std::string> present;
  while (const dirent* entry = readdir(open.get())) {
    const std::string name = entry->d_name;
    if (!fits(directory.pattern, name.c_str())) continue;
    if (directory.done.contains(name)) {
      present.insert(name);
      continue;
    }
    struct stat file{};
    if (fstatat(dirfd(open.get()), name.c_str(), &file, 0) != 0 || !S_ISREG(file.st_mode)) continue;
    const auto age = now - (std::chrono::seconds(file.st_mtim.tv_sec) + std::chrono::nanoseconds(file.st_mtim.tv_nsec));
    if (age >= kSettled || finished_.contains({directory.path, name})) {
      names.push_back(name);
    } else {
      directory.next_scan = std::min(directory.next_scan, Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                              std::min<std::chrono::nanoseconds>(kSettled - age, kSettled)));
    }
  }
  std::sort(names.begin(), names.end());
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    paths.push_back(directory.path + (directory.path.ends_with('/') ? "" : "/") + name);
  }
  const std::vector<std::string> new_paths = ground_.store->new_files(automation.name, paths);
  for (const std::string& path : new_paths) {
    const AutomationStep step{.name = automation.name,
                              .revision = automation.revision,
                              .path = path,
                              .also_paused = automation.paused};
    JobTrigger trigger{.type = automation.paused ? "manual" : "directory",
                       .name = automation.name,
                       .time = ground_.store->time(),
                       .path = path};
    try {
      submit(automation, step, std::move(trigger));
    } catch (const Error& e) {
      if (e.code() == ErrorCode::store) throw;
      tell_once(automation, e.what());
      names.erase(std::find(names.begin(), names.end(), file_name(path)));
    }
  }
  // Of those that are gone, the store remembers.
  directory.done = std::move(present);
  directory.done.insert(names.begin(), names.end());
}

// ------ AutomationThread

AutomationThread::State::~State() {
  if (wake >= 0) close(wake);
}

void AutomationThread::State::wake_up() const noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wake, &one, sizeof one);  // else it is readable already
}

AutomationThread::AutomationThread(AutomationGround ground, std::shared_ptr<void> telemetry)
    : state_(std::make_shared<State>()) {
  state_->telemetry = std::move(telemetry);
  state_->ground = std::move(ground);
  state_->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  watch_ = state_->ground.store->watch([state = state_.get()] {
    if (!state->changed.exchange(true)) state->wake_up();
  });
  thread_ = std::thread([state = state_]() mutable {
    run(*state);
    std::shared_ptr<std::atomic<std::size_t>> hanging;
    {
      const std::scoped_lock lock(state->mutex);
      state->ended = true;
      hanging = std::move(state->hanging);
      state->told.notify_all();
    }
    state.reset();
    if (hanging) --*hanging;
  });
}

AutomationThread::~AutomationThread() { finish({}, nullptr); }

void AutomationThread::ask_to_stop() noexcept {
  state_->stop = true;
  state_->wake_up();
}

void AutomationThread::finish(std::optional<Clock::time_point> until, std::shared_ptr<std::atomic<std::size_t>> hanging) {
  if (!thread_.joinable()) return;
  watch_.reset();
  ask_to_stop();
  if (until) {
    std::unique_lock lock(state_->mutex);
    if (!state_->told.wait_until(lock, *until, [&] { return state_->ended; })) {
      if (hanging) ++*hanging;
      state_->hanging = std::move(hanging);
      thread_.detach();
      return;
    }
  }
  thread_.join();
}

void AutomationThread::run(State& state) {
  pthread_setname_np(pthread_self(), "wm-automation");
  AutomationWork work(state.ground, true);
  // Until woken, or for so long.
  const auto sleep = [&](std::optional<std::chrono::nanoseconds> time, bool for_files) {
    std::array<pollfd, 2> fds{{{state.wake, POLLIN, 0}, {for_files ? work.watch_fd() : -1, POLLIN, 0}}};
    const auto ms = time ? std::chrono::ceil<std::chrono::milliseconds>(std::min<std::chrono::nanoseconds>(*time, 24h)).count() : -1;
    (void)poll(fds.data(), fds.size(), static_cast<int>(ms));
    std::uint64_t ignored = 0;
    while (read(state.wake, &ignored, sizeof ignored) > 0) {
    }
  };
  bool told = false;
  while (!state.stop) {
    state.changed = false;
    std::optional<std::chrono::nanoseconds> wait;
    try {
      wait = work.look();
      told = false;
    } catch (const Error& e) {
      if (!told) state.ground.logger.warning("the store can't be used for automations; trying again", {{"error", e.what()}});
      told = true;
      wait = kTryAgain;
    }
    const auto looked = Clock::now();
    if (!state.stop && !state.changed) sleep(wait, true);
    // A busy store changes all the time.
    while (!state.stop && state.changed && Clock::now() - looked < kLookInterval) {
      sleep(kLookInterval - (Clock::now() - looked), false);
    }
  }
}

}  // namespace detail

// ------ Automations

namespace {

void check_name(std::string_view name) {
  if (!name.empty() && name.size() <= 256 && name.find('\0') == std::string_view::npos) return;
  throw Error(ErrorCode::invalid_argument, "automation: expected a name of 1 to 256 bytes");
}

void check_input(const Automation& automation) {
  if (automation.input.empty() || nlohmann::json::accept(automation.input)) return;
  throw Error(ErrorCode::invalid_argument, "automation \"" + automation.name + "\": the input of task " +
                                               automation.task.name + ": expected JSON, or nothing");
}

}  // namespace

void Automations::Shared::missing(std::string_view name) const {
  throw Error(ErrorCode::not_found, "automation \"" + std::string(name.substr(0, 256)) + "\": the store knows none of this name");
}

void Automations::cron(std::string_view name, std::string_view schedule, const TaskName& task, std::string input,
                       const CronOptions& options) {
  check_name(name);
  Automation a;
  a.name = name;
  a.kind = AutomationKind::cron;
  a.schedule = schedule;
  a.time_zone = options.time_zone;
  a.missed = options.missed;
  a.task = detail::checked_name({.name = task.name, .version = task.version});
  a.input = std::move(input);
  a.cluster = options.cluster.empty() ? shared_->ground.cluster : options.cluster;
  a.max_retries = options.max_retries;
  a.priority = options.priority;
  check_input(a);
  (void)detail::read_ticks(a);
  if (!detail::starting_worker()) shared_->ground.store->keep(a);
}

void Automations::watch_directory(std::string_view name, const std::string& directory, std::string_view pattern,
                                  const TaskName& task, std::string input, const WatchOptions& options) {
  check_name(name);
  Automation a;
  a.name = name;
  a.kind = AutomationKind::directory;
  const std::unique_ptr<char, void (*)(void*)> path(realpath(directory.c_str(), nullptr), std::free);
  struct stat found{};
  if (!path || stat(path.get(), &found) != 0 || !S_ISDIR(found.st_mode)) {
    throw Error(ErrorCode::not_found, "automation \"" + a.name + "\": " + directory + ": expected a directory: " +
                                          (path ? "it is none" : std::strerror(errno)));
  }
  if (pattern.empty() || pattern.find('/') != std::string_view::npos || pattern.find('\0') != std::string_view::npos) {
    throw Error(ErrorCode::invalid_argument,
                "automation \"" + a.name + "\": the pattern: expected one for names of files, like *.tif");
  }
  a.directory = path.get();
  a.pattern = pattern;
  a.task = detail::checked_name({.name = task.name, .version = task.version});
  a.input = std::move(input);
  a.cluster = options.cluster.empty() ? shared_->ground.cluster : options.cluster;
  a.max_retries = options.max_retries;
  a.priority = options.priority;
  check_input(a);
  if (!detail::starting_worker()) shared_->ground.store->keep(a);
}

std::vector<Automation> Automations::list() {
  std::vector<Automation> all = shared_->ground.store->automations();
  const Timestamp now = shared_->ground.store->time();
  for (Automation& a : all) {
    if (a.kind != AutomationKind::cron || a.paused) continue;
    try {
      a.next_at = detail::read_ticks(a).next(std::max(now, a.looked_at)).value_or(Timestamp{});
    } catch (const Error&) {
      // This machine does not know its time zone: its runners say so.
    }
  }
  return all;
}

Automation Automations::find(std::string_view name) {
  for (Automation& a : list()) {
    if (a.name == name) return std::move(a);
  }
  shared_->missing(name);
}

void Automations::pause(std::string_view name) {
  if (detail::starting_worker()) return;
  if (!shared_->ground.store->pause_automation(name, true)) shared_->missing(name);
}

void Automations::resume(std::string_view name) {
  if (detail::starting_worker()) return;
  if (!shared_->ground.store->pause_automation(name, false)) shared_->missing(name);
}

void Automations::remove(std::string_view name) {
  if (detail::starting_worker()) return;
  if (!shared_->ground.store->remove_automation(name)) shared_->missing(name);
}

std::vector<Job> Automations::run(std::string_view name) {
  if (detail::starting_worker()) return {};
  detail::AutomationWork work(shared_->ground, false);
  std::vector<Job> jobs;
  for (const std::string& id : work.run(find(name))) {
    if (auto job = shared_->ground.store->find(id)) jobs.push_back(std::move(*job));
  }
  return jobs;
}

}  // namespace waymark
