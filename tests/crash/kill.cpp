#include "crash/kill.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "crash/process.h"
#include "support/http_server.h"
#include "waymark/error.h"
#include "waymark/reader.h"
#include "waymark/telemetry.h"

namespace waymark::crash {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kStalled{60};  // a victim that tells nothing for so long is killed as it is
constexpr int kKilledRecoverers = 4;

// No two of these counts have a common divisor but the first two: by turns, all pairs come.
enum class When { at_start, sending, unanswered, idle, rings_full };
enum class How { next_start, sibling, command, killed_recoverers };
constexpr const char* kWhenNames[] = {"at its start", "while sending", "with requests unanswered", "while idle",
                                      "after its rings were full"};
constexpr const char* kHowNames[] = {"the next start", "a sibling", "a command", "recoverers that die"};
constexpr unsigned kInstants = 5;
constexpr unsigned kWays = 4;
// SIGUSR1 makes the victim die of a SIGSEGV of its own making, SIGUSR2 of its own abort().
constexpr int kSignals[] = {SIGKILL, SIGSEGV, SIGABRT, SIGKILL, SIGUSR1, SIGUSR2};
constexpr const char* kSignalNames[] = {"SIGKILL", "SIGSEGV", "SIGABRT", "SIGKILL", "a segmentation fault", "abort()"};

std::uint64_t between(std::mt19937_64& random, std::uint64_t least, std::uint64_t most) {
  return std::uniform_int_distribution(least, most)(random);
}

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

// What the round's processes left that is neither delivered nor gone; what lies on tmpfs goes now.
std::string leftovers(const std::string& state, std::vector<std::string> before) {
  std::string left;
  for (const std::string& home : homes_in(state)) {
    if (!std::filesystem::exists(state + "/" + home + "/delivered")) left += " " + home + " is not delivered;";
    before.push_back(home);
  }
  for (const std::string& home : before) {
    const std::string memory = "/dev/shm/waymark-" + std::to_string(geteuid()) + "/" + home;
    if (!std::filesystem::exists(memory)) continue;
    left += " " + memory + " is left;";
    std::error_code error;
    std::filesystem::remove_all(memory, error);
  }
  return left;
}

// What a round is like.
struct Circumstances {
  When when;
  How how;
  unsigned signal;  // of kSignals
  bool files;
  bool crash_handler;
  Setting setting;
};

std::string described(const Circumstances& c) {
  std::string text = std::string("killed ") + kWhenNames[static_cast<int>(c.when)] + " by " + kSignalNames[c.signal] +
                     ", recovered by " + kHowNames[static_cast<int>(c.how)];
  if (c.files) text += ", to files";
  if (c.crash_handler) text += ", with a crash handler";
  if (c.setting.recorder_in_state) text += ", recorder in the state directory";
  if (c.setting.small_journal) text += ", small segments";
  return text;
}

// What the victim told, and its end.
struct Life {
  Ledger ledger;
  bool ready = false;
  std::chrono::steady_clock::time_point dead_since;
};

Life live_and_die(const Circumstances& c, std::mt19937_64& random) {
  Life life;
  Tale tale;
  std::uint64_t messages = 0;
  unsigned idle_threads = 0;
  const auto take = [&](milliseconds patience, const std::function<bool()>& enough) {
    tale.take(
        patience,
        [&](const Message& message) {
          ++messages;
          life.ready = life.ready || message.told == Told::ready;
          idle_threads += message.told == Told::idle ? 1 : 0;
          life.ledger.told(message);
        },
        enough);
  };
  std::vector<std::string> arguments = arguments_of(c.setting, "--victim");
  if (c.when == When::idle) arguments.insert(arguments.end(), {"--records", std::to_string(between(random, 20, 400))});
  if (c.crash_handler) arguments.emplace_back("--crash-handler");
  {
    Child victim(std::move(arguments), Child::Fate::dies, tale.writer());
    tale.close_writer();
    if (c.when == When::at_start) {
      victim.spin_with(microseconds(between(random, 0, 40'000 * kSlowness)));
    } else if (c.when == When::idle) {
      take(kStalled, [&] { return idle_threads == kThreads; });
      victim.spin_with(microseconds(between(random, 0, 30'000)));
    } else {
      // All three rings hold what 20,000 messages speak of; small segments are rolled by then.
      const bool full = c.when == When::rings_full || c.setting.small_journal;
      const std::uint64_t enough = full ? between(random, 25'000, 40'000) : between(random, 200, 6000);
      take(kStalled, [&] { return messages >= enough; });
      victim.spin_with(microseconds(between(random, 0, 500)));
    }
    if (!victim.kill(kSignals[c.signal])) std::fputs("crashtest: the victim ended before it was killed\n", stderr);
  }
  life.dead_since = std::chrono::steady_clock::now();
  take(kPatience, [] { return false; });
  return life;
}

}  // namespace

int run_recoverer(const Setting& setting) {
  Config config = config_of(setting);
  config.recover_siblings = false;
  Telemetry telemetry(std::move(config));
  const std::string wrong = deliver(telemetry);
  if (wrong.empty()) return 0;
  std::fprintf(stderr, "crashtest: recoverer:%s\n", wrong.c_str());
  return 1;
}

Verdict run_round(std::uint64_t number, std::mt19937_64& random, seconds sibling_limit) {
  Circumstances c{static_cast<When>(number % kInstants), static_cast<How>(number % kWays),
                  static_cast<unsigned>(number / 4 % std::size(kSignals)), false, false, {}};
  c.files = c.when != When::unanswered && between(random, 0, 2) == 0;
  c.crash_handler = between(random, 0, 2) == 0;
  const Workplace work(std::filesystem::temp_directory_path());
  testing::HttpServer server;
  c.setting.state = work.path() + "/state";
  c.setting.recorder_in_state = between(random, 0, 6) == 0;
  c.setting.small_journal = between(random, 0, 3) == 0;
  if (c.files) {
    c.setting.files = work.path();
  } else {
    c.setting.url = server.url("");
  }
  if (c.when == When::unanswered) server.standard({.hold = testing::HttpReply::Hold::before_headers});

  Latch recovered;
  const auto start = [&](std::optional<Telemetry>& telemetry) {
    Config config = config_of(c.setting);
    config.on_recovered = [&](const Recovered&) { recovered.set(); };
    telemetry.emplace(std::move(config));
  };
  std::optional<Telemetry> sibling;
  if (c.how == How::sibling) start(sibling);

  Life life = live_and_die(c, random);
  std::vector<std::string> homes = homes_in(c.setting.state);
  server.standard({});
  server.release();

  // Recovery.
  std::string wrong;
  switch (c.how) {
    case How::next_start: {
      std::optional<Telemetry> next;
      start(next);
      if (life.ready && !recovered.wait(kPatience)) wrong += " the next start recovered nothing;";
      wrong += deliver(*next);
      break;
    }
    case How::sibling:
      if (life.ready && !recovered.wait(kPatience)) wrong += " the sibling recovered nothing;";
      if (life.ready && std::chrono::steady_clock::now() - life.dead_since > sibling_limit) {
        wrong += " the sibling was late;";
      }
      wrong += deliver(*sibling);
      sibling.reset();
      break;
    case How::killed_recoverers:
      for (int i = 0; i < kKilledRecoverers; ++i) {
        Child recoverer(arguments_of(c.setting, "--recover"), Child::Fate::dies);
        // On a busy machine the first ones hardly begin; none of them gets more time than it needs.
        recoverer.spin_with(microseconds(between(random, 0, (30'000 * kSlowness) << (2 * i))));
        recoverer.kill(i % 2 == 0 ? SIGKILL : SIGSEGV);
        for (std::string& home : homes_in(c.setting.state)) homes.push_back(std::move(home));
      }
      [[fallthrough]];
    case How::command: {
      Child recoverer(arguments_of(c.setting, "--recover"), Child::Fate::lives);
      if (recoverer.exit_code() != 0) wrong += " the command failed;";
      break;
    }
  }
  wrong += leftovers(c.setting.state, std::move(homes));

  // The comparison.
  Ledger& ledger = life.ledger;
  if (c.files) {
    for (const Signal signal : {Signal::traces, Signal::logs}) {
      const std::string path = file_of(c.setting, signal);
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
  Verdict v = ledger.judge();
  const bool crashed = life.ready && c.crash_handler && kSignals[c.signal] != SIGKILL;
  if (crashed && !ledger.crash_told()) wrong += " nothing says which signal it was;";
  if (!crashed && life.ready && ledger.crash_told()) wrong += " a crash is told of that was none;";
  if (!v.good() || !wrong.empty()) {
    const std::string line =
        "crashtest: round " + std::to_string(number) + " (" + described(c) + "):" + wrong + " " + v.text();
    std::fprintf(stderr, "%s\n", line.c_str());
    if (v.good()) ++v.corrupt;
  }
  return v;
}

}  // namespace waymark::crash
