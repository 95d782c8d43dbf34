// The crash test: a process that records is killed at a random instant, somebody recovers what it left, and what the
// sink got is compared with what the process had told before it died.
//
//   crashtest [--kills N] [--seed S]
//
// The last line counts: `crashtest: kills=50 finished_lost=0 open_lost=0 corrupt=0 duplicates=N`. Exit code 0 if
// nothing was lost, overtaken or left behind, else 1; every deviation is said on standard error.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "crash/ledger.h"
#include "crash/victim.h"
#include "support/http_server.h"
#include "waymark/error.h"
#include "waymark/reader.h"
#include "waymark/telemetry.h"

namespace waymark::crash {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Sanitizers make a process slower; what is bounded by time gets more of it there.
#if defined(__SANITIZE_THREAD__)
constexpr int kSlowness = 15;
#elif defined(__SANITIZE_ADDRESS__)
constexpr int kSlowness = 5;
#else
constexpr int kSlowness = 1;
#endif
constexpr seconds kPatience{60};                    // then something hangs
constexpr seconds kStalled{3 * kSlowness};          // a victim that tells nothing for so long is killed as it is
constexpr seconds kSiblingLimit{5 * kSlowness};     // within which a sibling must have begun to recover
constexpr int kKilledRecoverers = 4;

enum class When { at_start, sending, unanswered, idle, rings_full };
enum class How { next_start, sibling, command, killed_recoverers };
constexpr unsigned kInstants = 5;
constexpr unsigned kWays = 4;  // no common divisor: by turns, all pairs come
constexpr const char* kWhenNames[] = {"at its start", "while sending", "with requests unanswered", "while idle",
                                      "after its rings were full"};
constexpr const char* kHowNames[] = {"the next start", "a sibling", "a command", "recoverers that die"};

using Random = std::mt19937_64;
std::uint64_t between(Random& random, std::uint64_t least, std::uint64_t most) {
  return std::uniform_int_distribution(least, most)(random);
}

// The random instant: spent working, not sleeping, so that the machine is as it is under load.
void spin(microseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < until) {
  }
}

// A process of this program.
class Child {
 public:
  // `tell`: what becomes its kTellDescriptor; -1: none.
  Child(const std::vector<std::string>& arguments, int tell, bool victim) {
    std::vector<std::string> texts{"/proc/self/exe"};
    texts.insert(texts.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& text : texts) argv.push_back(text.data());
    argv.push_back(nullptr);
    std::vector<char*> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
    // Only who is to die stays in a planted fault's window.
    char hold[] = "WAYMARK_PLANTED_FAULT_HOLD=1";
    if (victim) environment.push_back(hold);
    environment.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (tell >= 0) posix_spawn_file_actions_adddup2(&actions, tell, kTellDescriptor);
    if (posix_spawn(&process_, "/proc/self/exe", &actions, nullptr, argv.data(), environment.data()) != 0) {
      std::perror("crashtest: posix_spawn");
      std::exit(1);
    }
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Child() {
    if (process_ > 0) kill();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // True if the kill was what ended it.
  bool kill() {
    ::kill(process_, SIGKILL);
    const int status = wait_status();
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }
  int exit_code() {
    const int status = wait_status();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  int wait_status() {
    int status = 0;
    while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {
    }
    process_ = -1;
    return status;
  }
  pid_t process_ = -1;
};

std::vector<std::string> arguments_of(const Setting& setting, std::string command) {
  std::vector<std::string> arguments{std::move(command), "--state", setting.state};
  if (setting.url.empty()) {
    arguments.insert(arguments.end(), {"--files", setting.files});
  } else {
    arguments.insert(arguments.end(), {"--url", setting.url});
  }
  if (setting.recorder_in_state) arguments.emplace_back("--recorder-in-state");
  return arguments;
}

// What the victim told, up to its end.
class Tale {
 public:
  Tale() {
    if (pipe2(ends_, O_CLOEXEC) != 0) {
      std::perror("crashtest: pipe");
      std::exit(1);
    }
  }
  ~Tale() {
    close(ends_[0]);
    close_writer();
  }
  Tale(const Tale&) = delete;
  Tale& operator=(const Tale&) = delete;
  [[nodiscard]] int writer() const { return ends_[1]; }
  void close_writer() {
    if (ends_[1] >= 0) close(ends_[1]);
    ends_[1] = -1;
  }

  // Takes messages until `enough` says so, nothing is told for so long, or the end. False: not enough.
  template <class F>
  bool take(Ledger& ledger, milliseconds patience, F&& enough) {
    for (;;) {
      if (enough()) return true;
      pollfd waits{ends_[0], POLLIN, 0};
      const int ready = poll(&waits, 1, static_cast<int>(patience.count()));
      if (ready < 0 && errno == EINTR) continue;
      if (ready <= 0) return false;
      Message buffer[256];
      const ssize_t n = read(ends_[0], buffer, sizeof buffer);  // messages are whole: so is what is read
      if (n <= 0) return false;
      for (std::size_t i = 0; i < static_cast<std::size_t>(n) / sizeof(Message); ++i) {
        ++messages;
        ready_told = ready_told || buffer[i].told == Told::ready;
        idle_threads += buffer[i].told == Told::idle ? 1 : 0;
        ledger.told(buffer[i]);
      }
    }
  }

  std::uint64_t messages = 0;
  unsigned idle_threads = 0;
  bool ready_told = false;

 private:
  int ends_[2] = {-1, -1};
};

// Set by on_recovered.
class Latch {
 public:
  void set() {
    const std::scoped_lock lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool wait(seconds limit) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// Everything that the sink owes is there, and the counts say so. Empty, or what is wrong.
std::string deliver(Telemetry& telemetry) {
  telemetry.recover();
  std::string wrong;
  if (!telemetry.force_flush(kPatience)) wrong += " not everything was delivered in time;";
  for (const DestinationStats& d : telemetry.stats().destinations) {
    const Counts& c = d.counts;
    const std::string counts = " (" + std::string(signal_name(d.signal)) + ": " + std::to_string(c.offered) +
                               " offered, " + std::to_string(c.delivered) + " delivered, " +
                               std::to_string(c.rejected) + " rejected, " + std::to_string(c.dropped) + " dropped, " +
                               std::to_string(c.filtered) + " filtered, " + std::to_string(c.pending) + " pending);";
    const std::uint64_t other = c.rejected + c.dropped + c.filtered + c.pending;
    if (c.offered != c.delivered + other) wrong += " the counts do not add up" + counts;
    if (other != 0) wrong += " not everything counts as delivered" + counts;
    if (!d.last_error.empty()) wrong += " " + d.last_error + ";";
  }
  if (!telemetry.shutdown(kPatience)) wrong += " the shutdown left something behind;";
  return wrong;
}

int run_recoverer(const Setting& setting) {
  Config config = config_of(setting);
  config.recover_siblings = false;
  Telemetry telemetry(std::move(config));
  const std::string wrong = deliver(telemetry);
  if (wrong.empty()) return 0;
  std::fprintf(stderr, "crashtest: recoverer:%s\n", wrong.c_str());
  return 1;
}

std::vector<std::string> homes_in(const std::string& state) {
  std::vector<std::string> homes;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(state, error)) {
    const std::string name = entry.path().filename();
    // Also what was set aside: that is never right here.
    if (name.size() >= 32 && name[0] != '.') homes.push_back(name);
  }
  return homes;
}

// What the round's processes left that is neither delivered nor gone.
std::string leftovers(const std::string& state, std::vector<std::string> before) {
  std::string left;
  for (const std::string& home : homes_in(state)) {
    if (!std::filesystem::exists(state + "/" + home + "/delivered")) left += " " + home + " is not delivered;";
    before.push_back(home);
  }
  for (const std::string& home : before) {
    const std::string memory = "/dev/shm/waymark-" + std::to_string(geteuid()) + "/" + home;
    if (std::filesystem::exists(memory)) left += " " + memory + " is left;";
  }
  return left;
}

struct Round {
  Verdict verdict;
  bool good = false;
};

Round run_round(std::uint64_t number, Random& random) {
  const auto when = static_cast<When>(number % kInstants);
  const auto how = static_cast<How>(number % kWays);
  const bool files = number % 3 == 2 && when != When::unanswered;
  std::string work = (std::filesystem::temp_directory_path() / "crashtest-XXXXXX").string();
  if (mkdtemp(work.data()) == nullptr) {
    std::perror("crashtest: mkdtemp");
    std::exit(1);
  }
  testing::HttpServer server;
  Setting setting;
  setting.state = work + "/state";
  setting.recorder_in_state = number % 7 == 6;
  if (files) {
    setting.files = work;
  } else {
    setting.url = server.url("");
  }
  if (when == When::unanswered) server.standard({.hold = testing::HttpReply::Hold::before_headers});

  Latch recovered;
  const auto start = [&](std::optional<Telemetry>& telemetry) {
    Config config = config_of(setting);
    config.on_recovered = [&](const Recovered&) { recovered.set(); };
    telemetry.emplace(std::move(config));
  };
  std::optional<Telemetry> sibling;
  if (how == How::sibling) start(sibling);

  // The life and the end of the victim.
  Ledger ledger;
  Tale told;
  std::uint64_t records = 0;
  if (when == When::idle) records = between(random, 20, 400);
  std::vector<std::string> arguments = arguments_of(setting, "--victim");
  if (records != 0) arguments.insert(arguments.end(), {"--records", std::to_string(records)});
  {
    Child victim(arguments, told.writer(), true);
    told.close_writer();
    if (when == When::at_start) {
      spin(microseconds(between(random, 0, 40'000 * kSlowness)));
    } else if (when == When::idle) {
      told.take(ledger, kStalled, [&] { return told.idle_threads == kThreads; });
      spin(microseconds(between(random, 0, 30'000)));
    } else {
      // All three rings hold what 20,000 messages speak of.
      const bool full = when == When::rings_full;
      const std::uint64_t enough = full ? between(random, 25'000, 40'000) : between(random, 200, 6000);
      told.take(ledger, kStalled, [&] { return told.messages >= enough; });
      spin(microseconds(between(random, 0, 500)));
    }
    if (!victim.kill()) std::fprintf(stderr, "crashtest: the victim ended before it was killed\n");
  }
  const auto dead_since = std::chrono::steady_clock::now();
  told.take(ledger, kPatience, [] { return false; });
  std::vector<std::string> homes = homes_in(setting.state);
  server.standard({});
  server.release();

  // Recovery.
  std::string wrong;
  switch (how) {
    case How::next_start: {
      std::optional<Telemetry> next;
      start(next);
      if (told.ready_told && !recovered.wait(kPatience)) wrong += " the next start recovered nothing;";
      wrong += deliver(*next);
      break;
    }
    case How::sibling:
      if (told.ready_told && !recovered.wait(kPatience)) wrong += " the sibling recovered nothing;";
      if (told.ready_told && std::chrono::steady_clock::now() - dead_since > kSiblingLimit) {
        wrong += " the sibling was late;";
      }
      wrong += deliver(*sibling);
      sibling.reset();
      break;
    case How::killed_recoverers:
      for (int i = 0; i < kKilledRecoverers; ++i) {
        Child recoverer(arguments_of(setting, "--recover"), -1, false);
        spin(microseconds(between(random, 0, 30'000 * kSlowness)));
        recoverer.kill();
        for (std::string& home : homes_in(setting.state)) homes.push_back(std::move(home));
      }
      [[fallthrough]];
    case How::command: {
      Child recoverer(arguments_of(setting, "--recover"), -1, false);
      if (recoverer.exit_code() != 0) wrong += " the command failed;";
      break;
    }
  }
  wrong += leftovers(setting.state, std::move(homes));

  // The comparison.
  if (files) {
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      const std::string path = file_of(setting, signal);
      if (!std::filesystem::exists(path)) continue;
      try {
        ledger.delivered(read_json_file(path));
      } catch (const Error& e) {
        ledger.unreadable(e.what());
      }
    }
  } else {
    for (const testing::HttpRequest& request : server.requests()) {
      try {
        ledger.delivered(read_request(request.target == "/v1/logs" ? Signal::logs : Signal::traces, request.body));
      } catch (const Error& e) {
        ledger.unreadable(e.what());
      }
    }
  }
  Round round;
  round.verdict = ledger.judge();
  round.good = round.verdict.good() && wrong.empty();
  if (!round.good) {
    const Verdict& v = round.verdict;
    std::string line = "crashtest: round " + std::to_string(number) + " (killed " + kWhenNames[static_cast<int>(when)] +
                       ", recovered by " + kHowNames[static_cast<int>(how)] + (files ? ", to files" : "");
    line += std::string(setting.recorder_in_state ? ", recorder in the state directory" : "") + "):" + wrong + " ";
    line += std::to_string(v.finished_lost) + " of " + std::to_string(v.finished) + " finished lost, ";
    line += std::to_string(v.open_lost) + " of " + std::to_string(v.open) + " open lost, ";
    line += std::to_string(v.corrupt) + " corrupt, " + std::to_string(v.disordered) + " out of order\n";
    std::fputs(line.c_str(), stderr);
  }
  std::error_code error;
  std::filesystem::remove_all(work, error);
  return round;
}

int run(std::uint64_t kills, std::uint64_t seed) {
  signal(SIGPIPE, SIG_IGN);
  std::printf("crashtest: seed %llu\n", static_cast<unsigned long long>(seed));
  Random random(seed);
  Verdict all;
  bool good = true;
  for (std::uint64_t i = 0; i < kills; ++i) {
    const Round round = run_round(i, random);
    all += round.verdict;
    good = good && round.good;
  }
  std::printf("crashtest: %llu finished and %llu open at the kill\n", static_cast<unsigned long long>(all.finished),
              static_cast<unsigned long long>(all.open));
  std::printf("crashtest: kills=%llu finished_lost=%llu open_lost=%llu corrupt=%llu duplicates=%llu\n",
              static_cast<unsigned long long>(kills), static_cast<unsigned long long>(all.finished_lost),
              static_cast<unsigned long long>(all.open_lost), static_cast<unsigned long long>(all.corrupt),
              static_cast<unsigned long long>(all.duplicates));
  return good ? 0 : 1;
}

int usage(std::string_view problem) {
  std::fprintf(stderr, "crashtest: %.*s; expected [--kills N] [--seed S]\n", static_cast<int>(problem.size()),
               problem.data());
  return 2;
}

int main(int argc, char** argv) {
  enum class Role { parent, victim, recoverer } role = Role::parent;
  Setting setting;
  std::uint64_t kills = 50;
  std::uint64_t seed = std::random_device()();
  std::uint64_t records = 0;
  const auto number = [](std::string_view text, std::uint64_t& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc() && end == text.data() + text.size();
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--victim" || option == "--recover") {
      role = option == "--victim" ? Role::victim : Role::recoverer;
      continue;
    }
    if (option == "--recorder-in-state") {
      setting.recorder_in_state = true;
      continue;
    }
    if (i + 1 == argc) return usage(std::string(option) + " is unknown or needs a value");
    const std::string_view value = argv[++i];
    bool good = true;
    if (option == "--kills") good = number(value, kills);
    else if (option == "--seed") good = number(value, seed);
    else if (option == "--records") good = number(value, records);
    else if (option == "--state") setting.state = value;
    else if (option == "--url") setting.url = value;
    else if (option == "--files") setting.files = value;
    else return usage(std::string(option) + " is unknown");
    if (!good) return usage(std::string(option) + " " + std::string(value) + " is no number");
  }
  if (role == Role::victim) return run_victim(setting, records);
  if (role == Role::recoverer) return run_recoverer(setting);
  return run(kills, seed);
}

}  // namespace
}  // namespace waymark::crash

int main(int argc, char** argv) { return waymark::crash::main(argc, argv); }
