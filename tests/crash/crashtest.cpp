// The crash test. A process that records is killed, somebody recovers what it left, and what arrived is compared with
// what the process had told before it died: at random instants (kill.h), and after every single instruction (step.h).
// Besides, it is run on itself with faults planted, each of which it must find.
//
//   crashtest [--kills N] [--seed S] [--within SECONDS] [--steps EVERY] [--script N] [--planted] [--until-wrong]
//
// `--within` is the time in which a sibling must have begun to recover: 60 s, which a busy machine keeps.
// `--steps 1` judges every state that a step leaves, `--steps 5` every fifth one, 0 none. The last line counts, as in
// `crashtest: kills=50 steps=9000 finished_lost=0 open_lost=0 corrupt=0 duplicates=7 planted=14 caught=14`. Exit code
// 0 if nothing was lost, overtaken or left behind and every fault was found, else 1; every deviation is said on
// standard error.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "crash/kill.h"
#include "crash/process.h"
#include "crash/step.h"
#include "crash/stepped.h"
#include "crash/victim.h"
#include "journal/fault.h"

namespace waymark::crash {
namespace {

using Number = unsigned long long;

struct Options {
  std::uint64_t kills = 50;
  std::uint64_t seed = std::random_device()();
  std::uint64_t within = 60;
  std::uint64_t steps = 0;
  std::optional<std::uint64_t> script;
  bool planted = false;
  bool until_wrong = false;
};

struct Total {
  Verdict verdict;
  std::uint64_t kills = 0;
  std::uint64_t steps = 0;
  std::uint64_t planted = 0;
  std::uint64_t caught = 0;
  [[nodiscard]] bool good() const { return verdict.good() && caught == planted; }
};

void run_kills(const Options& options, Total& total) {
  std::mt19937_64 random(options.seed);
  const auto begin = std::chrono::steady_clock::now();
  while (total.kills < options.kills && !(options.until_wrong && !total.good())) {
    total.verdict += run_round(total.kills++, random, std::chrono::seconds(options.within * kSlowness));
    if (total.kills % 50 == 0) {
      const auto took = std::chrono::steady_clock::now() - begin;
      std::printf("crashtest: %llu of %llu kills, %lld s\n", static_cast<Number>(total.kills),
                  static_cast<Number>(options.kills),
                  static_cast<long long>(std::chrono::duration_cast<std::chrono::seconds>(took).count()));
    }
  }
}

void run_all_steps(const Options& options, Total& total) {
  for (unsigned script = 0; script < kScripts; ++script) {
    if (options.script && options.script != script) continue;
    const StepResult result = run_steps(script, {.judge_every = options.steps, .until_wrong = options.until_wrong});
    if (!result.skipped.empty()) {
      std::printf("crashtest: no single steps: %s\n", result.skipped.c_str());
      return;
    }
    std::printf("crashtest: %s: %llu steps, %llu states judged\n", kScriptNames[script],
                static_cast<Number>(result.steps), static_cast<Number>(result.states));
    total.steps += result.steps;
    total.verdict += result.verdict;
  }
}

// What finds a fault: random kills, or single steps through a script.
struct Plan {
  journal::Fault fault;
  int script;  // -1: kills
  [[nodiscard]] const char* name() const { return journal::kFaultNames[static_cast<std::size_t>(fault)]; }
};
constexpr Plan kPlans[] = {
    {journal::Fault::late_length, 0},
    {journal::Fault::early_head, 0},
    {journal::Fault::early_release, 0},
    {journal::Fault::early_open, 0},
    {journal::Fault::early_commit, 0},
    {journal::Fault::early_compact, 2},
    {journal::Fault::early_free, -1},
    {journal::Fault::early_frame, -1},
    {journal::Fault::early_flip, 0},
    {journal::Fault::early_unlink, -1},
    {journal::Fault::early_cursor, 0},
    {journal::Fault::cursor_in_place, 0},
    {journal::Fault::early_recovered, -1},
    {journal::Fault::forgotten_pool, 3},
    {journal::Fault::bare_interrupted, 0},
    {journal::Fault::twice, 0},
};

// Runs the program beside this one that has the faults. True if it found that something is wrong.
bool finds(const Plan& plan, std::uint64_t seed) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string() + "_planted";
  std::vector<std::string> texts{program, "--until-wrong"};
  if (plan.script >= 0) {
    texts.insert(texts.end(), {"--kills", "0", "--steps", "1", "--script", std::to_string(plan.script)});
  } else {
    texts.insert(texts.end(), {"--kills", "200", "--seed", std::to_string(seed)});
  }
  std::vector<char*> argv;
  for (std::string& text : texts) argv.push_back(text.data());
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
  std::string chosen = std::string("WAYMARK_PLANTED_FAULT=") + plan.name();
  environment.push_back(chosen.data());
  environment.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // What it says is what is wrong on purpose.
  for (const int output : {1, 2}) posix_spawn_file_actions_addopen(&actions, output, "/dev/null", O_WRONLY, 0);
  pid_t process = -1;
  const int refused = posix_spawn(&process, program.c_str(), &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (refused != 0) return false;
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

static_assert(std::size(kPlans) == std::size(journal::kFaultNames));

void run_planted(const Options& options, Total& total) {
  // Where there are no steps, what only they can find is not planted.
  const bool steps = run_steps(0, {.judge_every = 1000000}).skipped.empty();
  for (const Plan& plan : kPlans) {
    if (plan.script >= 0 && !steps) continue;
    ++total.planted;
    const bool found = finds(plan, options.seed);
    total.caught += found ? 1 : 0;
    std::printf("crashtest: planted %s: %s\n", plan.name(), found ? "caught" : "NOT CAUGHT");
  }
}

int run(const Options& options) {
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("crashtest: seed %llu\n", static_cast<Number>(options.seed));
  Total total;
  if (options.steps > 0) run_all_steps(options, total);
  run_kills(options, total);
  if (options.planted) run_planted(options, total);
  const Verdict& v = total.verdict;
  std::printf("crashtest: %llu finished and %llu open at the kill\n", static_cast<Number>(v.finished),
              static_cast<Number>(v.open));
  std::printf("crashtest: kills=%llu steps=%llu finished_lost=%llu open_lost=%llu corrupt=%llu duplicates=%llu "
              "planted=%llu caught=%llu\n",
              static_cast<Number>(total.kills), static_cast<Number>(total.steps), static_cast<Number>(v.finished_lost),
              static_cast<Number>(v.open_lost), static_cast<Number>(v.corrupt), static_cast<Number>(v.duplicates),
              static_cast<Number>(total.planted), static_cast<Number>(total.caught));
  return total.good() ? 0 : 1;
}

int usage(std::string_view problem) {
  std::fprintf(stderr,
               "crashtest: %.*s; expected [--kills N] [--seed S] [--within SECONDS] [--steps EVERY] "
               "[--script N] [--planted] [--until-wrong]\n",
               static_cast<int>(problem.size()), problem.data());
  return 2;
}

int main(int argc, char** argv) {
  enum class Role { parent, victim, recoverer, stepped } role = Role::parent;
  Options options;
  Setting setting;
  std::string work;
  std::uint64_t records = 0;
  bool crash_handler = false;
  const auto number = [](std::string_view text, std::uint64_t& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc() && end == text.data() + text.size();
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    bool alone = true;
    if (option == "--victim") role = Role::victim;
    else if (option == "--recover") role = Role::recoverer;
    else if (option == "--recorder-in-state") setting.recorder_in_state = true;
    else if (option == "--small-journal") setting.small_journal = true;
    else if (option == "--crash-handler") crash_handler = true;
    else if (option == "--planted") options.planted = true;
    else if (option == "--until-wrong") options.until_wrong = true;
    else alone = false;
    if (alone) continue;
    if (i + 1 == argc) return usage(std::string(option) + " is unknown or needs a value");
    const std::string_view value = argv[++i];
    bool good = true;
    if (option == "--kills") good = number(value, options.kills);
    else if (option == "--seed") good = number(value, options.seed);
    else if (option == "--within") good = number(value, options.within);
    else if (option == "--steps") good = number(value, options.steps);
    else if (option == "--script") good = number(value, options.script.emplace());
    else if (option == "--records") good = number(value, records);
    else if (option == "--state") setting.state = value;
    else if (option == "--url") setting.url = value;
    else if (option == "--files") setting.files = value;
    else if (option == "--stepped") work = value, role = Role::stepped;
    else return usage(std::string(option) + " is unknown");
    if (!good) return usage(std::string(option) + " " + std::string(value) + " is no number");
  }
  switch (role) {
    case Role::victim: return run_victim(setting, records, crash_handler);
    case Role::recoverer: return run_recoverer(setting);
    case Role::stepped: return run_stepped(work, options.script.value_or(0));
    case Role::parent: break;
  }
  return run(options);
}

}  // namespace
}  // namespace waymark::crash

int main(int argc, char** argv) { return waymark::crash::main(argc, argv); }
