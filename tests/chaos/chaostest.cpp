// The chaos test. Four processes run random jobs from one store, while they are killed, stopped for longer than their
// lease, the clock jumps for all of them, and jobs are canceled and go on later. Then everything must have been done,
// once, and told (judge.h). Besides, it is run on itself with faults planted in the store, each of which it must find.
//
//   chaostest [--jobs N] [--seed S] [--planted]
//
// The last line counts, as in
// `chaostest: jobs=500 tasks=15000 lost=0 double=0 hung=0 spans_missing=0 planted=7 caught=7`. Exit code 0 if nothing
// deviates and every fault was found, else 1; every deviation is said on standard error.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "chaos/account.h"
#include "chaos/judge.h"
#include "chaos/node.h"
#include "store/database.h"
#include "store/fault.h"

namespace waymark::chaos {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Number = unsigned long long;

// Sanitizers make a process slower; what it must get done between two strokes takes longer there.
#if defined(__SANITIZE_THREAD__)
constexpr unsigned kSlowness = 15;
#elif defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSlowness = 5;
#else
constexpr unsigned kSlowness = 1;
#endif
constexpr auto kLease = 1s;
constexpr auto kPatience = 120s;  // without anything being done: then something hangs
constexpr auto kOrphaned = 5s;    // a task runs, and its runner is none: nobody will take it
constexpr int kRunners = 4;
constexpr std::uint64_t kSeedsForAFault = 4;
constexpr int kDoomed = 8;        // so many processes stay in a planted fault's window until they are killed
constexpr std::size_t kJobsAtOnce = 24;

struct Options {
  std::uint64_t jobs = 40;
  std::uint64_t seed = std::random_device()();
  bool planted = false;
};

// Where everything lies.
struct Place {
  std::string directory;
  [[nodiscard]] std::string store() const { return directory + "/store.db"; }
  [[nodiscard]] std::string state() const { return directory + "/state"; }
  [[nodiscard]] std::string account() const { return directory + "/account"; }
  [[nodiscard]] std::string offset() const { return directory + "/offset"; }
  [[nodiscard]] std::string traces(const std::string& who) const { return directory + "/" + who + ".jsonl"; }
};

Config telemetry_config(const Place& place, const std::string& who) {
  Config config;
  config.resource = Resource("chaos");
  config.state_directory = place.state();
  config.recorder.max_bytes = 4 * 1024 * 1024;
  config.recorder.ring_bytes = 256 * 1024;
  config.journal.max_bytes = 64 * 1024 * 1024;
  config.journal.memory_bytes = 8 * 1024 * 1024;
  config.journal.segment_bytes = 1024 * 1024;
  config.journal.keep_bytes = 0;
  config.diagnostics = DiagnosticLevel::error;
  DestinationConfig file;
  file.name = "file";
  file.signal = Signal::traces;
  file.output = Output::file;
  file.path = place.traces(who);
  file.lossy = false;
  file.batch.interval = 50ms;
  config.destinations.push_back(file);
  return config;
}

TimeSource time_off_by(const SharedOffset& offset) {
  return {.now = [&offset] {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now()) +
           std::chrono::nanoseconds(offset.get());
  }};
}

// ------ a runner

int run_runner(const Place& place, const std::string& number) {
  const Account account(place.account());
  const SharedOffset offset(place.offset());
  Node::account() = &account;
  Telemetry telemetry(telemetry_config(place, "runner-" + number));
  Client client({.name = "runner-" + number,
                 .store = place.store(),
                 .telemetry = &telemetry,
                 .time = time_off_by(offset)});
  Runner runner = client.runner<Node>({.concurrency = 3,
                                       .lease = kLease,
                                       .backoff = {.initial = 5ms, .maximum = 50ms, .multiplier = 2},
                                       .max_lost = 1'000'000});
  runner.run_forever({.handle_signals = true});
  return telemetry.shutdown(30s) ? 0 : 3;
}

class Process {
 public:
  // `doomed`: it will be killed, and stays in a planted fault's window until then.
  Process(const Place& place, int number, bool doomed) : doomed_(doomed) {
    std::vector<std::string> texts{"/proc/self/exe", "--runner", place.directory, "--number", std::to_string(number)};
    std::vector<char*> argv;
    for (std::string& text : texts) argv.push_back(text.data());
    argv.push_back(nullptr);
    std::vector<char*> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
    char hold[] = "WAYMARK_PLANTED_FAULT_HOLD=1";
    if (doomed) environment.push_back(hold);
    environment.push_back(nullptr);
    // The parent waits for SIGCHLD, which it has blocked for that.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    const int refused = posix_spawn(&id_, argv[0], nullptr, &attributes, argv.data(), environment.data());
    posix_spawnattr_destroy(&attributes);
    if (refused != 0) {
      errno = refused;
      give_up("chaostest: a runner");
    }
  }
  ~Process() { kill_now(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) const {
    if (id_ > 0) kill(id_, number);
  }
  void kill_now() {
    if (id_ <= 0) return;
    kill(id_, SIGKILL);
    int status = 0;
    while (waitpid(id_, &status, 0) < 0 && errno == EINTR) {
    }
    id_ = -1;
  }
  // True once it has ended by itself, or by a signal that it was sent to end.
  [[nodiscard]] bool ended() {
    if (id_ <= 0) return true;
    int status = 0;
    if (waitpid(id_, &status, WNOHANG) != id_) return false;
    id_ = -1;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
  }
  [[nodiscard]] int code() const { return code_; }
  [[nodiscard]] bool doomed() const { return doomed_; }

 private:
  bool doomed_;
  pid_t id_ = -1;
  int code_ = 0;
};

// Until a child ends or so long has passed: between two strokes.
void wait_for_child(std::chrono::microseconds time) {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  const timespec wait{time.count() / 1'000'000, (time.count() % 1'000'000) * 1000};
  sigtimedwait(&child, nullptr, &wait);
}

// ------ one round of chaos

class Chaos {
 public:
  Chaos(const Options& options, Place place)
      : options_(options),
        place_(std::move(place)),
        random_(options.seed),
        account_(place_.account()),
        offset_(place_.offset()),
        telemetry_(telemetry_config(place_, "submitter")),
        client_({.name = "submitter", .store = place_.store(), .telemetry = &telemetry_, .time = time_off_by(offset_)}),
        look_(place_.store()) {}

  Verdict run() {
    Node::account() = &account_;
    for (int i = 0; i < kRunners; ++i) start(i);
    std::jthread continuer([this](const std::stop_token& stop) { continue_stopped(stop); });
    auto last_change = Clock::now();
    std::uint64_t last_sum = 0;
    while (submitted_.size() < options_.jobs || !open_.empty()) {
      while (open_.size() < kJobsAtOnce && submitted_.size() < options_.jobs) submit();
      stroke();
      const std::uint64_t sum = look_at_jobs();
      if (sum != last_sum) {
        last_sum = sum;
        last_change = Clock::now();
      }
      if (Clock::now() - last_change > kPatience || hangs()) break;
    }
    continuer.request_stop();
    continuer.join();
    verdict_.hung += open_.size();
    for (const std::string& id : open_) std::fprintf(stderr, "chaostest: job %s hangs\n", id.c_str());
    end();
    std::printf("chaostest: %llu kills, %llu stops, %llu jumps of the clock, %llu cancels, %llu executions\n",
                static_cast<Number>(kills_), static_cast<Number>(stops_), static_cast<Number>(jumps_),
                static_cast<Number>(cancels_), static_cast<Number>(verdict_.executions));
    return verdict_;
  }

 private:
  std::uint64_t below(std::uint64_t n) { return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random_); }

  void start(int slot) {
    stopped_until_[slot].reset();
    const bool doomed = spawned_ < kDoomed;
    runners_[slot] = std::make_unique<Process>(place_, spawned_++, doomed);
  }

  void submit() {
    const std::uint64_t seed = random_();
    const Job job = client_.jobs().submit("chaos", root_node(seed), {.max_retries = 3, .display = "0"});
    submitted_[job.id] = seed;
    open_.push_back(job.id);
  }

  // Something happens to somebody.
  void stroke() {
    wait_for_child(std::chrono::microseconds(kSlowness * (20'000 + below(150'000))));
    std::unique_lock lock(runners_mutex_);
    const auto slot = static_cast<int>(below(kRunners));
    switch (below(8)) {
      case 0:
      case 1:
      case 2:
        runners_[slot]->kill_now();
        ++kills_;
        break;
      case 3:
      case 4:
        // Stopped beyond its lease, which the clock may shorten; the others take its tasks.
        if (stopped_until_[slot]) break;
        ++stops_;
        runners_[slot]->signal(SIGSTOP);
        stopped_until_[slot] = Clock::now() + kLease * 3 / 2;
        wake_continuer_.notify_one();
        if (below(2) == 0) jump(kLease + std::chrono::milliseconds(100 + below(60'000)));
        break;
      case 5: jump(std::chrono::milliseconds(below(30'000))); break;
      case 6: jump(-std::chrono::milliseconds(below(2'000))); break;
      default:
        if (open_.empty()) break;
        lock.unlock();
        (void)client_.jobs().cancel(open_[below(open_.size())]);
        lock.lock();
        ++cancels_;
    }
    for (int i = 0; i < kRunners; ++i) {
      if (!runners_[i]->ended()) continue;
      if (runners_[i]->code() != 0) std::printf("chaostest: a runner ended with %d\n", runners_[i]->code());
      start(i);
    }
  }

  // A thread of its own: whoever is stopped may hold the store's lock, and then the test waits for it as others do.
  void continue_stopped(const std::stop_token& stop) {
    std::unique_lock lock(runners_mutex_);
    while (!stop.stop_requested()) {
      auto next = Clock::now() + 1s;
      for (int i = 0; i < kRunners; ++i) {
        if (!stopped_until_[i]) continue;
        if (Clock::now() >= *stopped_until_[i]) {
          stopped_until_[i].reset();
          runners_[i]->signal(SIGCONT);
        } else {
          next = std::min(next, *stopped_until_[i]);
        }
      }
      wake_continuer_.wait_until(lock, stop, next, [] { return false; });
    }
  }

  void jump(std::chrono::milliseconds by) {
    ++jumps_;
    offset_.add(std::chrono::nanoseconds(by).count());
  }

  // Forgets those that are finished; canceled ones go on. A number that changes while anything is done.
  std::uint64_t look_at_jobs() {
    std::uint64_t sum = submitted_.size();
    std::erase_if(open_, [&](const std::string& id) {
      const Job job = client_.jobs().find(id);
      sum += job.tasks_done + job.tasks + job.retries;
      if (job.state == JobState::canceled && job.finished()) {
        (void)client_.jobs().retry(id);
        return false;
      }
      return job.finished();
    });
    return sum - open_.size();
  }

  // Whether a job can't go on, whatever happens: nothing of it is to be run, or what runs is nobody's.
  bool hangs() {
    store::Statement orphans(look_, "SELECT ifnull(min(id), 0) FROM task WHERE state = 2 AND "
                                    "(worker IS NULL OR worker NOT IN (SELECT id FROM worker))");
    orphans.step();
    const std::int64_t orphan = orphans.integer(0);
    orphans.reset();
    if (orphan != orphan_) orphan_since_ = Clock::now();
    orphan_ = orphan;
    if (orphan_ != 0 && Clock::now() - orphan_since_ > kOrphaned) return true;
    for (const std::string& id : open_) {
      bool alive = false;
      for (const TaskInfo& task : client_.jobs().tasks(id)) {
        const TaskState state = task.state;
        alive |= state == TaskState::ready || state == TaskState::running || state == TaskState::scheduled;
      }
      if (!alive && !client_.jobs().find(id).finished()) return true;
    }
    return false;
  }

  std::int64_t left_in_outbox() {
    store::Statement count(look_, "SELECT count(*) FROM span_outbox");
    count.step();
    return count.integer(0);
  }

  void end() {
    for (const auto& runner : runners_) {
      if (runner->doomed()) runner->kill_now();
      runner->signal(SIGCONT);
      runner->signal(SIGTERM);
    }
    const auto until = Clock::now() + kPatience;
    for (const auto& runner : runners_) {
      while (!runner->ended() && Clock::now() < until) wait_for_child(100ms);
      if (!runner->ended()) {
        ++verdict_.hung;
        std::fprintf(stderr, "chaostest: a runner does not end\n");
      } else if (runner->code() != 0 && runner->code() != 128 + SIGTERM) {  // that came before it listened
        ++verdict_.hung;
        std::fprintf(stderr, "chaostest: a runner ended with %d where it was asked to end\n", runner->code());
      }
      runner->kill_now();
    }
    // What the dead have left: their telemetry is recovered here, their leases end, and a last runner records their spans.
    while (telemetry_.recover() > 0) {
    }
    for (const auto give_up_at = Clock::now() + kPatience; left_in_outbox() > 0 && Clock::now() < give_up_at;) {
      jump(kLease * 2);
      client_.runner<Node>({.lease = kLease}).run_all();
    }
    if (!telemetry_.force_flush(60s)) {
      ++verdict_.spans_missing;
      std::fprintf(stderr, "chaostest: telemetry was not delivered\n");
    }
    std::vector<ReadSpan> spans;
    for (const auto& entry : std::filesystem::directory_iterator(place_.directory)) {
      if (entry.path().extension() != ".jsonl") continue;
      for (ReadSpan& span : read_json_file(entry.path().string()).spans) spans.push_back(std::move(span));
    }
    Judge(verdict_).judge(client_, submitted_, account_.read(), spans);
  }

  const Options& options_;
  Place place_;
  std::mt19937_64 random_;
  Account account_;
  SharedOffset offset_;
  Telemetry telemetry_;
  Client client_;
  store::Database look_;
  std::mutex runners_mutex_;
  std::condition_variable_any wake_continuer_;
  std::unique_ptr<Process> runners_[kRunners];
  std::optional<Clock::time_point> stopped_until_[kRunners];
  int spawned_ = 0;
  Submitted submitted_;
  std::vector<std::string> open_;
  std::int64_t orphan_ = 0;
  Clock::time_point orphan_since_;
  std::uint64_t kills_ = 0, stops_ = 0, jumps_ = 0, cancels_ = 0;
  Verdict verdict_;
};

class Workplace {
 public:
  Workplace() : path_((std::filesystem::temp_directory_path() / "chaostest-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) give_up("chaostest: mkdtemp");
  }
  ~Workplace() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// ------ planted faults

// Where a fault shows.
struct Plan {
  store::Fault fault;
  const char* count;
  [[nodiscard]] const char* name() const { return store::kFaultNames[static_cast<std::size_t>(fault)]; }
};
constexpr Plan kPlans[] = {
    {store::Fault::no_fence, " double="},
    {store::Fault::no_countdown, " hung="},
    {store::Fault::early_outbox, " spans_missing="},
    {store::Fault::other_span, " spans_missing="},
    {store::Fault::lost_task, " hung="},
    {store::Fault::early_close, " lost="},
    {store::Fault::double_countdown, " lost="},
};
static_assert(std::size(kPlans) == std::size(store::kFaultNames));

// Runs the program beside this one that has the faults. True if it found what is wrong.
bool finds(const Plan& plan, std::uint64_t seed) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string() + "_planted";
  // What it says on standard error is what is wrong on purpose.
  const std::string command = std::string("WAYMARK_PLANTED_FAULT=") + plan.name() + " '" + program +
                              "' --jobs 40 --seed " + std::to_string(seed) + " 2>/dev/null";
  std::FILE* output = popen(command.c_str(), "r");
  if (!output) give_up("chaostest: the program with faults");
  std::string last;
  char line[512];
  while (std::fgets(line, sizeof line, output)) last = line;
  const int status = pclose(output);
  const std::size_t count = last.find(plan.count);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 || count == std::string::npos) return false;
  return last[count + std::string_view(plan.count).size()] != '0';
}

int run(const Options& options) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  signal(SIGPIPE, SIG_IGN);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, nullptr);
  std::printf("chaostest: seed %llu\n", static_cast<Number>(options.seed));
  Verdict v;
  if (options.jobs > 0) {
    const Workplace workplace;
    v = Chaos(options, {workplace.path()}).run();
  }
  std::uint64_t planted = 0, caught = 0;
  if (options.planted) {
    for (const Plan& plan : kPlans) {
      ++planted;
      // Chance decides whether a window is met: another seed has another chance.
      bool found = false;
      for (std::uint64_t more = 0; more < kSeedsForAFault && !found; ++more) found = finds(plan, options.seed + more);
      caught += found ? 1 : 0;
      std::printf("chaostest: planted %s: %s\n", plan.name(), found ? "caught" : "NOT CAUGHT");
    }
  }
  std::printf("chaostest: jobs=%llu tasks=%llu lost=%llu double=%llu hung=%llu spans_missing=%llu planted=%llu "
              "caught=%llu\n",
              static_cast<Number>(v.jobs), static_cast<Number>(v.tasks), static_cast<Number>(v.lost),
              static_cast<Number>(v.double_done), static_cast<Number>(v.hung), static_cast<Number>(v.spans_missing),
              static_cast<Number>(planted), static_cast<Number>(caught));
  return v.good() && planted == caught ? 0 : 1;
}

int usage(std::string_view problem) {
  std::fprintf(stderr, "chaostest: %.*s; expected [--jobs N] [--seed S] [--planted]\n",
               static_cast<int>(problem.size()), problem.data());
  return 2;
}

int main(int argc, char** argv) {
  Options options;
  std::optional<std::string> runner;
  std::string number_of_runner;
  const auto number = [](std::string_view text, std::uint64_t& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc() && end == text.data() + text.size();
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--planted") {
      options.planted = true;
      continue;
    }
    if (i + 1 == argc) return usage(std::string(option) + " is unknown or needs a value");
    const std::string_view value = argv[++i];
    bool good = true;
    if (option == "--jobs") good = number(value, options.jobs);
    else if (option == "--seed") good = number(value, options.seed);
    else if (option == "--runner") runner = value;
    else if (option == "--number") number_of_runner = value;
    else return usage(std::string(option) + " is unknown");
    if (!good) return usage(std::string(option) + " " + std::string(value) + " is no number");
  }
  if (runner) return run_runner({*runner}, number_of_runner);
  return run(options);
}

}  // namespace
}  // namespace waymark::chaos

int main(int argc, char** argv) { return waymark::chaos::main(argc, argv); }
