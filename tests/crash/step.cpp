#include "crash/step.h"

#include "crash/stepped.h"

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/diagnostics.h"
#include "base/file.h"
#include "crash/process.h"
#include "journal/directory.h"
#include "journal/recovery.h"
#include "otlp/reader.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::crash {
namespace {

// Files by name.
using Files = std::map<std::string, std::string>;

// What outlives the process, but for the recorder.
struct Remains {
  Files state;
  Files memory;
  std::string sent;
  friend bool operator==(const Remains&, const Remains&) = default;
};

std::string read_all(const std::string& path) { return read_file(path, 64 << 20).value_or(""); }

Files read_files(const std::string& directory) {
  Files files;
  for (const std::string& name : list_directory(directory)) {
    if (name != "lock" && name != "recorder") files.emplace(name, read_all(directory + "/" + name));
  }
  return files;
}

void write_files(const std::string& directory, const Files& files) {
  for (const auto& [name, bytes] : files) {
    File::open(directory + "/" + name, O_WRONLY | O_CREAT | O_TRUNC).write_at(0, bytes.data(), bytes.size());
  }
}

// ---- the traced process

class Tracee {
 public:
  explicit Tracee(pid_t process) : process_(process) {}
  // Kills it. The system holds its end back until every thread's has been seen by who traces it; the main thread's is
  // left to the process's owner.
  ~Tracee() {
    kill(process_, SIGKILL);
    for (const auto& [name, thread] : threads_) {
      int status = 0;
      while (thread.id != process_ && waitpid(thread.id, &status, __WALL) == thread.id && WIFSTOPPED(status)) {
      }
    }
  }
  Tracee(const Tracee&) = delete;
  Tracee& operator=(const Tracee&) = delete;

  // Stops all its threads. False: the system forbids it.
  bool seize() {
    const std::string tasks = "/proc/" + std::to_string(process_) + "/task";
    for (const std::string& name : list_directory(tasks)) {
      const pid_t thread = std::stoi(name);
      if (ptrace(PTRACE_SEIZE, thread, nullptr, PTRACE_O_EXITKILL) != 0) return false;
      if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0 || !wait(thread)) return false;
      std::string comm = read_all(tasks + "/" + name + "/comm");
      if (!comm.empty()) comm.pop_back();
      threads_.emplace(thread == process_ ? "" : comm, Thread{thread});
    }
    const std::string maps = read_all("/proc/" + std::to_string(process_) + "/maps");
    if (const std::size_t name = maps.find("[vdso]"); name != std::string::npos) {
      std::sscanf(maps.c_str() + maps.rfind('\n', name) + 1, "%llx-%llx", &clock_begin_, &clock_end_);
    }
    return true;
  }
  // The empty name: the main thread.
  [[nodiscard]] bool has(const std::string& name) const { return threads_.contains(name); }

  enum class Next { instruction, call, sleep };
  // What the thread does next. One that was stopped in a call goes on with that.
  Next next(const std::string& name) {
    const Thread& thread = threads_.at(name);
    in_clock_ = false;
    if (!thread.moved) return Next::call;
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, thread.id, nullptr, &registers);
    in_clock_ = registers.rip >= clock_begin_ && registers.rip < clock_end_;
    const auto [known, fresh] = is_call_.try_emplace(registers.rip, false);
    if (fresh) known->second = (ptrace(PTRACE_PEEKTEXT, thread.id, registers.rip, nullptr) & 0xffff) == 0x050f;
    if (!known->second) return Next::instruction;
    const auto operation = static_cast<int>(registers.rsi) & FUTEX_CMD_MASK;
    const bool sleeps = registers.rax == SYS_futex && (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET);
    return sleeps ? Next::sleep : Next::call;
  }
  // Whether that stands in the kernel's code for reading its clock: it writes nothing, and begins anew where it takes longer
  // than from one of the kernel's ticks to the next.
  [[nodiscard]] bool in_clock() const noexcept { return in_clock_; }
  // False: the process is dead.
  bool step(const std::string& name) {
    Thread& thread = threads_.at(name);
    thread.moved = true;
    ptrace(PTRACE_SINGLESTEP, thread.id, nullptr, reinterpret_cast<void*>(static_cast<long>(thread.signal)));
    thread.signal = 0;
    int status = 0;
    if (!wait(thread.id, &status)) return false;
    if (WSTOPSIG(status) != SIGTRAP) thread.signal = WSTOPSIG(status);
    return true;
  }

 private:
  struct Thread {
    pid_t id = 0;
    bool moved = false;
    int signal = 0;  // to be given to it
  };
  // False: the process is dead. The main thread's end is told only when the others' were seen, so theirs are waited for,
  // too.
  static bool wait(pid_t thread, int* status = nullptr) {
    int stopped = 0;
    for (pid_t seen = 0; seen != thread;) {
      seen = waitpid(-1, &stopped, __WALL);
      if (seen < 0 && errno != EINTR) return false;
    }
    if (status != nullptr) *status = stopped;
    return WIFSTOPPED(stopped);
  }

  pid_t process_;
  unsigned long long clock_begin_ = 0;
  unsigned long long clock_end_ = 0;
  bool in_clock_ = false;
  std::map<std::string, Thread> threads_;
  std::unordered_map<unsigned long long, bool> is_call_;  // by address
};

// ---- the judge

// Recovers copies of what a process would leave, and compares with what it had told.
class Judge {
 public:
  Judge(const std::string& work, const journal::Identity& identity, StepResult& result)
      : identity_(identity), result_(result), state_(work + "/judge"), hook_(diagnostics_) {
    make_private_directory(state_);
  }

  // `torn`: a file is cut in the middle of a write, which may be reported as damage, and loses nothing.
  void judge(const Ledger& told, const Remains& remains, std::string_view recorder, const char* where,
             bool torn = false) {
    ++result_.states;
    Ledger ledger(told);
    take_sent(remains.sent, ledger);
    ledger.recovering();
    const std::string wrong = recover(remains, recorder, torn, ledger);
    const Verdict verdict = ledger.judge();
    result_.verdict += verdict;
    if (verdict.good() && wrong.empty()) return;
    result_.good = false;
    if (!wrong.empty() && verdict.good()) ++result_.verdict.corrupt;
    if (++said_ > 3) return;
    std::fprintf(stderr, "crashtest: step %llu (%s):%s %s\n", static_cast<unsigned long long>(result_.steps), where,
                 wrong.c_str(), verdict.text().c_str());
  }

 private:
  static void take_sent(std::string_view sent, Ledger& ledger) {
    while (sent.size() >= sizeof(SentHeader)) {
      SentHeader header;
      std::memcpy(&header, sent.data(), sizeof header);
      sent.remove_prefix(sizeof header);
      try {
        ledger.delivered(read_request(static_cast<Signal>(header.signal), sent.substr(0, header.bytes)));
      } catch (const Error& e) {
        ledger.unreadable(e.what());
      }
      sent.remove_prefix(std::min<std::size_t>(header.bytes, sent.size()));
    }
  }

  // Empty, or what is wrong.
  std::string recover(const Remains& remains, std::string_view recorder, bool torn, Ledger& ledger) {
    // Lock files go with their directories, and a new one may get an old one's inode: never the same directory twice.
    char id[33];
    std::snprintf(id, sizeof id, "%032llx", static_cast<unsigned long long>(++copies_));
    journal::Home home{id, state_ + "/" + id, journal::memory_path(id)};
    mkdir(home.state.c_str(), 0700);
    mkdir(home.memory.c_str(), 0700);
    write_files(home.state, remains.state);
    write_files(home.memory, remains.memory);
    struct stat recorder_file {};
    {
      const File file = File::open(home.memory + "/recorder", O_RDWR | O_CREAT);
      file.write_at(0, recorder.data(), recorder.size());
      fstat(file.fd(), &recorder_file);
    }
    journal::Identity identity = identity_;
    identity.memory = home.memory;
    identity.recorder_inode = recorder_file.st_ino;
    journal::write_identity(home, identity);

    std::string wrong;
    JournalConfig config;
    config.keep_bytes = 0;
    if (const auto recovered = journal::recover_directory(state_, id, config, hook_, diagnostics_, {})) {
      if (!torn && (recovered->found.damaged_bytes != 0 || !recovered->found.problem.empty())) {
        wrong += " damage was found where there is none: " + recovered->found.problem + ";";
      }
      for (const Signal signal : {Signal::traces, Signal::logs}) wrong += deliver(*recovered->journal, signal, ledger);
      journal::finish_recovered(*recovered);
      if (!journal::is_delivered(home.state)) wrong += " it could not be finished;";
    } else {
      wrong += " it was not recovered;";
    }
    remove_tree(home.memory);
    std::error_code error;
    std::filesystem::remove_all(home.state, error);
    return wrong;
  }

  static std::string deliver(journal::Journal& journal, Signal signal, Ledger& ledger) {
    const std::unique_ptr<journal::Cursor> cursor = journal.cursor("sink", signal, false);
    if (!cursor) return " the cursor of " + std::string(signal_name(signal)) + " is gone;";
    ReadTelemetry read;
    std::uint64_t records = 0;
    try {
      const AnyMap resource = otlp::read_resource(journal.resource());
      const std::uint64_t position = cursor->read([&](const journal::Record& record) {
        ++records;
        const ReadScope scope = otlp::read_scope(journal.scope(record.scope).encoded);
        if (signal == Signal::traces) {
          read.spans.push_back(otlp::read_span(record.body));
          read.spans.back().resource = resource;
          read.spans.back().scope = scope;
        } else {
          read.logs.push_back(otlp::read_log(record.body));
          read.logs.back().resource = resource;
          read.logs.back().scope = scope;
        }
        return true;
      });
      cursor->acknowledge(position, {.delivered = records});
    } catch (const Error& e) {
      ledger.unreadable(e.what());
    }
    ledger.delivered(read);
    const Counts c = cursor->counts();
    if (c.offered == c.delivered && c.rejected + c.dropped + c.filtered + c.pending == 0) return {};
    return " the counts do not add up (" + std::string(signal_name(signal)) + ": " + std::to_string(c.offered) +
           " offered, " + std::to_string(c.delivered) + " delivered, " + std::to_string(c.dropped) + " dropped, " +
           std::to_string(c.pending) + " pending);";
  }

  journal::Identity identity_;
  StepResult& result_;
  const std::string state_;
  Diagnostics diagnostics_{DiagnosticLevel::none};
  journal::Hook hook_;
  std::uint64_t copies_ = (std::uint64_t{static_cast<std::uint32_t>(getpid())} << 32);
  int said_ = 0;
};

// ---- stepping

pid_t watched = 0;

// Ends a process that hangs: then a step does not return. Wound up before every step; how long a state is judged does
// not count.
constexpr unsigned kLongestStep = 60;  // seconds
void set_watchdog(pid_t process) {
  watched = process;
  signal(SIGALRM, [](int) { kill(watched, SIGKILL); });
}

class Stepper {
 public:
  Stepper(const std::string& work, unsigned script, const StepOptions& options, StepResult& result)
      : work_(work), script_(script), options_(options), result_(result) {}
  ~Stepper() {
    if (!live_.empty()) munmap(const_cast<char*>(live_.data()), live_.size());
    if (!home_.memory.empty()) remove_tree(home_.memory);
  }
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  void run() {
    Pipe wait;
    Child child({"--stepped", work_, "--script", std::to_string(script_)}, Child::Fate::lives, tale_.writer(),
                wait.reader());
    tale_.close_writer();
    if (!tale_.take(kPatience, [&](const Message& message) { hear(message); }, [&] { return ready_; })) {
      fail("the process did not get ready");
      return;
    }
    Tracee tracee(child.id());
    if (!tracee.seize()) {
      result_.skipped = std::string("ptrace is forbidden here: ") + std::strerror(errno);
      return;
    }
    if (!open(child.id())) return;
    set_watchdog(child.id());
    const char go = 1;
    if (write(wait.writer(), &go, 1) != 1) fail("the process does not listen");
    const std::string recording;
    judge("before the first step");
    while (!idle_ && !enough()) {
      if (!step(tracee, recording)) break;
      while (!turns_.empty() && !enough()) {
        const std::string name = kTurnThreads[turns_.front()];
        turns_.erase(turns_.begin());
        const std::uint64_t before = changes_;
        if (!tracee.has(name)) return fail("it has no thread " + name);
        while (!enough() && (changes_ == before || tracee.next(name) != Tracee::Next::sleep)) {
          if (!step(tracee, name)) return;
        }
      }
    }
  }

 private:
  void hear(const Message& message) {
    told_.told(message);
    ready_ = ready_ || message.told == Told::ready;
    idle_ = idle_ || message.told == Told::idle;
    if (message.told == Told::turn) turns_.push_back(message.which);
    ++heard_;
  }
  [[nodiscard]] bool enough() const { return options_.until_wrong && !result_.good; }
  void fail(const std::string& what) {
    std::fprintf(stderr, "crashtest: %s: %s\n", kScriptNames[script_], what.c_str());
    result_.good = false;
    ++result_.verdict.corrupt;
  }

  // Finds what the process's death would leave.
  bool open(pid_t process) {
    const std::string state = work_ + "/state";
    const std::vector<std::string> homes = journal::list_homes(state);
    if (homes.size() != 1) {
      fail("the process has no directory");
      return false;
    }
    home_ = {homes[0], state + "/" + homes[0], journal::memory_path(homes[0])};
    const auto identity = journal::read_identity(home_.state);
    const File file = File::open(home_.memory + "/recorder", O_RDONLY);
    const std::size_t bytes = file.valid() ? file.size() : 0;
    void* memory = bytes > 0 ? mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), 0) : MAP_FAILED;
    if (!identity || memory == MAP_FAILED) {
      fail("the recorder of process " + std::to_string(process) + " can't be read");
      return false;
    }
    live_ = {static_cast<const char*>(memory), bytes};
    recorder_.assign(live_.begin(), live_.end());
    remains_ = read();
    judge_.emplace(work_, *identity, result_);
    return true;
  }

  [[nodiscard]] Remains read() const {
    return {read_files(home_.state), read_files(home_.memory), read_all(sent_file(work_))};
  }

  // One instruction of one thread, and what has changed by it. False: the process is dead.
  bool step(Tracee& tracee, const std::string& name) {
    const bool call = tracee.next(name) != Tracee::Next::instruction;
    alarm(kLongestStep);
    const bool lives = tracee.step(name);
    alarm(0);
    if (!lives) {
      fail("the process died");
      return false;
    }
    ++result_.steps;
    const char* const where = name.empty() ? "recording" : name.c_str();
    bool changed = !tracee.in_clock() && copy_recorder();
    bool heard = false;
    // Files change, and messages come, by calls of the system only: no script comes to a segment whose memory is used again, which
    // is written without calls. Kills at random instants find what goes wrong there (early_frame).
    if (call) {
      Remains now = read();
      if (now != remains_) {
        changed = true;
        tear(now, where);
        remains_ = std::move(now);
      }
      const std::uint64_t before = heard_;
      tale_.take(std::chrono::milliseconds(0), [&](const Message& message) { hear(message); }, [] { return false; });
      heard = heard_ != before;
    }
    changes_ += changed ? 1 : 0;
    if (changed || heard) judge(where);
    return true;
  }

  bool copy_recorder() {
    constexpr std::size_t kPage = 4096;
    bool changed = false;
    for (std::size_t at = 0; at < live_.size(); at += kPage) {
      const std::size_t bytes = std::min(kPage, live_.size() - at);
      if (std::memcmp(live_.data() + at, recorder_.data() + at, bytes) == 0) continue;
      std::memcpy(recorder_.data() + at, live_.data() + at, bytes);
      changed = true;
    }
    return changed;
  }

  // A kill in the middle of a write leaves some of it: at most whole pages of it in fact, any part of it here.
  void tear(const Remains& now, const char* where) {
    for (const auto& [name, bytes] : now.memory) {
      const auto old = remains_.memory.find(name);
      const std::string before = old != remains_.memory.end() ? old->second : std::string();
      if (before == bytes || bytes.size() < before.size()) continue;
      const auto begin = static_cast<std::size_t>(
          std::mismatch(before.begin(), before.end(), bytes.begin()).first - before.begin());
      const std::size_t written = bytes.size() - begin;
      Remains torn = remains_;
      const std::size_t last = written - std::min<std::size_t>(written, 8);
      for (const std::size_t part : {written / 8, written / 4, written / 2, last}) {
        if (part == 0) continue;
        std::string half = bytes.substr(0, begin + part);
        if (half.size() < before.size()) half += before.substr(half.size());
        torn.memory[name] = half;
        ++changed_states_;
        if (changed_states_ % options_.judge_every == 0) judge_->judge(told_, torn, recorder_, where, true);
      }
    }
  }

  void judge(const char* where) {
    if (changed_states_++ % options_.judge_every == 0) judge_->judge(told_, remains_, recorder_, where);
  }

  const std::string work_;
  const unsigned script_;
  const StepOptions& options_;
  StepResult& result_;
  Tale tale_;
  Ledger told_{true};
  bool ready_ = false;
  bool idle_ = false;
  std::vector<std::uint8_t> turns_;
  std::uint64_t heard_ = 0;
  std::uint64_t changes_ = 0;
  std::uint64_t changed_states_ = 0;
  journal::Home home_;
  std::string_view live_;   // the recorder
  std::string recorder_;    // as it was after the last step
  Remains remains_;
  std::optional<Judge> judge_;
};

}  // namespace

StepResult run_steps(unsigned script, const StepOptions& options) {
  StepResult result;
  const Workplace work("/dev/shm");
  Stepper(work.path(), script, options, result).run();
  return result;
}

}  // namespace waymark::crash

#else

namespace waymark::crash {

StepResult run_steps(unsigned, const StepOptions&) {
  StepResult result;
  result.skipped = "single steps need x86-64 and a build without sanitizers";
  return result;
}

}  // namespace waymark::crash

#endif
