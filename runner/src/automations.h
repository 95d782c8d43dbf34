// What a runner does for automations: looks at the clock and into directories, and submits what is due.
//
// Hides: missed ticks, when a file is finished, templates, inotify.
// Threads: an AutomationWork is used by one thread at a time; an AutomationThread has its own.
// Failure: Error(store). What is wrong with one automation is logged once, and holds up no other.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "cron.h"
#include "waymark/automation.h"
#include "waymark/job.h"
#include "waymark/log.h"
#include "waymark/store.h"
#include "waymark/trace.h"

namespace waymark::detail {

struct AutomationGround {
  std::shared_ptr<Store> store;
  Tracer tracer;  // the runner's
  Logger logger;
  std::string cluster;  // whose automations
};

// A schedule that was checked, in its time zone.
struct Ticks {
  CronSchedule schedule;
  TimeZone zone;
  [[nodiscard]] std::optional<Timestamp> next(Timestamp after) const;
  // Those after `after` until `until`, of more than `most` the last ones.
  [[nodiscard]] std::vector<Timestamp> last(Timestamp after, Timestamp until, std::size_t most) const;
};
[[nodiscard]] Ticks read_ticks(const Automation& automation);

class AutomationWork {
 public:
  // `watches`: it will look again when files come, so that those which are being written can wait.
  AutomationWork(AutomationGround ground, bool watches);
  ~AutomationWork();
  AutomationWork(const AutomationWork&) = delete;
  AutomationWork& operator=(const AutomationWork&) = delete;

  // Does what is due. How long until something is, by the clock alone; none: nothing will be.
  std::optional<std::chrono::nanoseconds> look();
  // Of one automation, whatever its schedule says.
  std::vector<std::string> run(const Automation& automation);
  // Readable when a directory has changed; -1: none is watched.
  [[nodiscard]] int watch_fd() const noexcept { return inotify_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Directory {
    std::string path;
    std::string pattern;
    std::unordered_set<std::string> done;  // files' names: they have their job
    Clock::time_point next_scan{};
    int watch = -1;  // inotify's
  };

  void look_at_cron(const Automation& automation, Timestamp now);
  void look_at_directory(const Automation& automation);
  void read_events();
  void scan(const Automation& automation, Directory& directory);
  bool submit(const Automation& automation, AutomationStep step, JobTrigger trigger);
  void tell_once(const Automation& automation, const std::string& what);
  void wait_no_longer_than(std::chrono::nanoseconds time);

  AutomationGround ground_;
  bool watches_;
  std::map<std::pair<std::string, std::string>, Ticks> ticks_;  // by schedule and time zone
  std::map<std::string, Directory, std::less<>> directories_;   // by the automation's name
  std::set<std::pair<std::string, std::string>> finished_;      // directory and file, as inotify tells
  std::map<std::string, std::string> told_;                     // the last thing that was wrong with an automation
  std::optional<std::chrono::nanoseconds> wait_;
  std::vector<std::string> submitted_;                          // jobs' ids
  int inotify_ = -1;
};

// Looks whenever time or a change demands it, until it is asked to stop.
class AutomationThread {
 public:
  using Clock = std::chrono::steady_clock;
  // `telemetry`: what the ground records with, kept for as long as it does.
  AutomationThread(AutomationGround ground, std::shared_ptr<void> telemetry);
  ~AutomationThread();
  void ask_to_stop() noexcept;
  // Waits for it. A directory of another machine that hangs holds it: if it has not come back at `until`, it is let go,
  // and counted as hanging until it does.
  void finish(std::optional<Clock::time_point> until, std::shared_ptr<std::atomic<std::size_t>> hanging);
  AutomationThread(const AutomationThread&) = delete;
  AutomationThread& operator=(const AutomationThread&) = delete;

 private:
  struct State {
    ~State();
    void wake_up() const noexcept;
    std::shared_ptr<void> telemetry;
    AutomationGround ground;
    std::atomic<bool> stop{false};
    std::atomic<bool> changed{false};
    int wake = -1;  // an eventfd
    std::mutex mutex;
    std::condition_variable told;
    bool ended = false;
    std::shared_ptr<std::atomic<std::size_t>> hanging;  // where it was let go
  };
  static void run(State& state);
  std::shared_ptr<State> state_;
  std::shared_ptr<void> watch_;
  std::thread thread_;
};

}  // namespace waymark::detail

namespace waymark {

struct Automations::Shared {
  detail::AutomationGround ground;
  [[noreturn]] void missing(std::string_view name) const;
};

}  // namespace waymark
