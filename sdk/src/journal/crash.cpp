#include "journal/crash.h"

#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iterator>
#include <mutex>
#include <string_view>

#include "base/clock.h"
#include "base/file.h"
#include "base/signal_stack.h"
#include "waymark/error.h"

namespace waymark::journal {

// A place in the list of those that a crash is written to. Slots are used again, and never freed: the handler walks over
// them at any time.
struct CrashSlot {
  std::atomic<RecorderHeader*> header{nullptr};
  std::atomic<pid_t> process{0};  // whose recorder it is; stored before the header
  std::atomic<bool> taken{true};
  CrashSlot* next = nullptr;
};

namespace {

constexpr std::array<int, 5> kDeadly = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
constexpr std::size_t kMaximumFrames = std::size(RecorderHeader{}.crash_stack);

// ---- what the handler works with: all of it exists before the crash

constinit std::atomic<CrashSlot*> slots{nullptr};
std::array<struct sigaction, kDeadly.size()> earlier;  // written before our handler is installed

// The thread that writes; 0: none. It owns what follows.
constinit std::atomic<pid_t> writer{0};
// The thread whose crash is written and ends the process.
constinit std::atomic<pid_t> dying{0};
// How long another thread that crashes waits for that end.
constexpr int kPatience = 5000;  // milliseconds

sigjmp_buf way_out;
constinit std::atomic<bool> guarding{false};

struct Report {
  std::uint32_t signal;
  std::uint32_t thread;
  std::uint64_t address;
  std::int32_t code;
  std::uint32_t frames;
  std::uint64_t stack[kMaximumFrames];
  std::uint64_t time_ns;
  std::size_t modules_used;
  char modules[sizeof(RecorderHeader::crash_modules)];
};
Report report;

pid_t this_thread() noexcept { return static_cast<pid_t>(syscall(SYS_gettid)); }

// Does what may fault itself: over a torn stack, an unmapped file. A fault in it ends it, and no more.
template <class Work>
void guarded(const Work& work) noexcept {
  if (sigsetjmp(way_out, 0) == 0) {
    guarding.store(true, std::memory_order_relaxed);
    work();
  }
  guarding.store(false, std::memory_order_relaxed);
}

// ---- the processor

#if defined(__x86_64__)
greg_t* register_of(ucontext_t& context, int which) noexcept { return &context.uc_mcontext.gregs[which]; }
std::uint64_t program_counter(ucontext_t& context) noexcept {
  return static_cast<std::uint64_t>(*register_of(context, REG_RIP));
}
#elif defined(__aarch64__)
std::uint64_t program_counter(ucontext_t& context) noexcept { return context.uc_mcontext.pc; }
#else
std::uint64_t program_counter(ucontext_t&) noexcept { return 0; }
#endif

// While it lives, the context says what it was before a call to where no code is, so that the stack can be walked from the
// caller. The return address is the first thing such a call did.
class BeforeTheCall {
 public:
  explicit BeforeTheCall(ucontext_t& context) noexcept : context_(context), saved_(context.uc_mcontext) {}
  ~BeforeTheCall() { context_.uc_mcontext = saved_; }
  BeforeTheCall(const BeforeTheCall&) = delete;
  BeforeTheCall& operator=(const BeforeTheCall&) = delete;
  void step_back() noexcept {
#if defined(__x86_64__)
    greg_t* stack = register_of(context_, REG_RSP);
    *register_of(context_, REG_RIP) = *reinterpret_cast<const greg_t*>(*stack);
    *stack += static_cast<greg_t>(sizeof(greg_t));
#elif defined(__aarch64__)
    context_.uc_mcontext.pc = context_.uc_mcontext.regs[30];
#endif
  }

 private:
  ucontext_t& context_;
  mcontext_t saved_;
};

// ---- the stack

void walk_stack(ucontext_t& context, bool nowhere) noexcept {
  report.stack[0] = program_counter(context);
  report.frames = report.stack[0] != 0 || nowhere ? 1 : 0;
  BeforeTheCall before(context);
  guarded([&] {
    if (nowhere) before.step_back();
    // The handler's own frames come first.
    static void* raw[kMaximumFrames + 32];
    const int found = backtrace(raw, static_cast<int>(std::size(raw)));
    void* const here = reinterpret_cast<void*>(program_counter(context));
    int i = 0;
    while (i < found && raw[i] != here) ++i;
    if (!nowhere) ++i;
    for (; i < found && report.frames < kMaximumFrames; ++i) {
      report.stack[report.frames] = reinterpret_cast<std::uint64_t>(raw[i]);
      report.frames = report.frames + 1;
    }
  });
}

// ---- the files behind it

// /proc/self/maps is read at the crash, and no table is kept: it is true also of what was loaded a moment ago, and open(2)
// and read(2) may be called in a handler, while dl_iterate_phdr() may wait for a lock that the crash has left held.

constexpr std::size_t kLongestLine = 4096 + 128;

struct Mapping {
  std::uint64_t begin = 0, end = 0, offset = 0, inode = 0;
  const char* path = nullptr;  // null: no file
  std::size_t path_bytes = 0;
};

struct Module {
  std::uint64_t base, end, first_end, inode;
  bool hit;
  std::size_t path_bytes;
  char path[kLongestLine];
};
Module module;  // the one that the last lines were about

bool take_number(const char*& p, const char* end, std::uint64_t& number, unsigned base) noexcept {
  number = 0;
  const char* const begin = p;
  for (; p < end; ++p) {
    unsigned digit = 0;
    if (*p >= '0' && *p <= '9') {
      digit = static_cast<unsigned>(*p - '0');
    } else if (*p >= 'a' && *p <= 'f') {
      digit = static_cast<unsigned>(*p - 'a') + 10;
    } else {
      break;
    }
    if (digit >= base) break;
    number = number * base + digit;
  }
  return p > begin;
}

// `55d0c0a00000-55d0c0a02000 r--p 00000000 08:01 1234   /usr/bin/program`
bool read_mapping(const char* p, const char* end, Mapping& mapping) noexcept {
  const auto skip = [&](auto stop) {
    while (p < end && !stop(*p)) ++p;
  };
  const auto blank = [](char c) { return c == ' '; };
  const auto word = [](char c) { return c != ' '; };
  if (!take_number(p, end, mapping.begin, 16) || p == end || *p++ != '-' || !take_number(p, end, mapping.end, 16)) return false;
  skip(word);
  skip(blank);
  skip(word);
  if (!take_number(p, end, mapping.offset, 16)) return false;
  skip(word);
  skip(blank);
  skip(word);
  if (!take_number(p, end, mapping.inode, 10)) return false;
  skip(word);
  mapping.path = p < end && *p == '/' ? p : nullptr;
  mapping.path_bytes = static_cast<std::size_t>(end - p);
  return true;
}

void put_text(const char* text, std::size_t bytes) noexcept {
  for (std::size_t i = 0; i < bytes && report.modules_used + 1 < sizeof report.modules; ++i) {
    report.modules[report.modules_used++] = text[i];
  }
}
void put_hex(std::uint64_t number) noexcept {
  char digits[16];
  std::size_t at = sizeof digits;
  do {
    digits[--at] = "0123456789abcdef"[number & 15];
    number >>= 4;
  } while (number != 0);
  put_text(digits + at, sizeof digits - at);
}

// The note that the linker puts into every build of a program, as it lies in memory. Nothing beyond the mapping that the
// file begins with is looked at.
void put_build_id() noexcept {
  const auto within = [&](std::uint64_t at, std::uint64_t bytes) {
    return at >= module.base && at <= module.first_end && bytes <= module.first_end - at;
  };
  ElfW(Ehdr) file;
  if (!within(module.base, sizeof file)) return put_text("-", 1);
  std::memcpy(&file, reinterpret_cast<const void*>(module.base), sizeof file);
  if (std::memcmp(file.e_ident, ELFMAG, SELFMAG) != 0 || file.e_phentsize != sizeof(ElfW(Phdr))) return put_text("-", 1);
  std::uint64_t first = UINT64_MAX;
  for (int pass = 0; pass < 2; ++pass) {
    for (unsigned i = 0; i < file.e_phnum; ++i) {
      ElfW(Phdr) part;
      const std::uint64_t at = module.base + file.e_phoff + i * sizeof part;
      if (!within(at, sizeof part)) return put_text("-", 1);
      std::memcpy(&part, reinterpret_cast<const void*>(at), sizeof part);
      if (pass == 0) {
        if (part.p_type == PT_LOAD) first = std::min<std::uint64_t>(first, part.p_vaddr & ~std::uint64_t{4095});
        continue;
      }
      if (part.p_type != PT_NOTE || part.p_vaddr < first) continue;
      std::uint64_t note = module.base + (part.p_vaddr - first);
      if (!within(note, part.p_memsz)) continue;
      const std::uint64_t end = note + part.p_memsz;
      while (end - note >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) head;
        std::memcpy(&head, reinterpret_cast<const void*>(note), sizeof head);
        const std::uint64_t name = note + sizeof head;
        const std::uint64_t content = name + ((std::uint64_t{head.n_namesz} + 3) & ~std::uint64_t{3});
        const std::uint64_t next = content + ((std::uint64_t{head.n_descsz} + 3) & ~std::uint64_t{3});
        if (next > end || next <= note) break;
        if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && head.n_descsz <= 64 &&
            std::memcmp(reinterpret_cast<const void*>(name), "GNU", 4) == 0) {
          for (std::uint64_t b = content; b < content + head.n_descsz; ++b) {
            const auto byte = *reinterpret_cast<const unsigned char*>(b);
            put_text(&"0123456789abcdef"[byte >> 4], 1);
            put_text(&"0123456789abcdef"[byte & 15], 1);
          }
          return;
        }
        note = next;
      }
    }
  }
  put_text("-", 1);
}

void end_module() noexcept {
  if (!module.hit) return;
  module.hit = false;
  const std::size_t before = report.modules_used;
  put_hex(module.base);
  put_text(" ", 1);
  put_hex(module.end);
  put_text(" ", 1);
  put_hex(module.inode);
  put_text(" ", 1);
  put_build_id();
  put_text(" ", 1);
  put_text(module.path, module.path_bytes);
  put_text("\n", 1);
  if (report.modules_used + 1 >= sizeof report.modules) report.modules_used = before;  // whole lines only
}

void add_mapping(const Mapping& mapping) noexcept {
  if (mapping.path == nullptr || mapping.path_bytes > sizeof module.path) return;
  const bool same = mapping.offset != 0 && mapping.path_bytes == module.path_bytes &&
                    std::memcmp(mapping.path, module.path, module.path_bytes) == 0;
  if (!same) {
    end_module();
    module.base = mapping.begin - std::min(mapping.offset, mapping.begin);
    // Readable memory, in which nothing faults; what begins in the midst of a file is not looked into.
    module.first_end = mapping.offset == 0 ? mapping.end : 0;
    module.inode = mapping.inode;
    module.path_bytes = mapping.path_bytes;
    std::memcpy(module.path, mapping.path, mapping.path_bytes);
  }
  module.end = mapping.end;
  for (std::uint32_t i = 0; i < report.frames && !module.hit; ++i) {
    module.hit = report.stack[i] >= mapping.begin && report.stack[i] < mapping.end;
  }
}

int open_maps() noexcept {
  constexpr const char* kMaps = "/proc/self/maps";
  int file = ::open(kMaps, O_RDONLY | O_CLOEXEC);
  rlimit limit{};
  // A program may die of having no descriptors left.
  if (file < 0 && errno == EMFILE && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    const rlimit more{limit.rlim_cur + 1, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &more) == 0) {
      file = ::open(kMaps, O_RDONLY | O_CLOEXEC);
      setrlimit(RLIMIT_NOFILE, &limit);
    }
  }
  return file;
}

void find_modules() noexcept {
  static char line[kLongestLine];
  static char buffer[4096];
  report.modules_used = 0;
  module.hit = false;
  module.path_bytes = 0;
  const int file = open_maps();
  if (file < 0) return;
  guarded([&] {
    std::size_t used = 0;
    for (;;) {
      const ssize_t n = ::read(file, buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      for (ssize_t i = 0; i < n; ++i) {
        if (buffer[i] != '\n') {
          if (used < sizeof line) line[used++] = buffer[i];
          continue;
        }
        Mapping mapping;
        if (read_mapping(line, line + used, mapping)) add_mapping(mapping);
        used = 0;
      }
    }
    end_module();
  });
  ::close(file);
}

// ---- writing it down

template <class Each>
void for_each_header(const Each& each) noexcept {
  const pid_t process = getpid();
  for (CrashSlot* slot = slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) {
    RecorderHeader* header = slot->header.load(std::memory_order_seq_cst);
    // Of a child of fork: its parent's.
    if (header == nullptr || slot->process.load(std::memory_order_acquire) != process) continue;
    guarded([&] { each(*header); });
  }
}

void write_report(RecorderHeader& header) noexcept {
  header.crash_signal.store(0, std::memory_order_release);
  header.crash_thread = report.thread;
  header.crash_address = report.address;
  header.crash_code = report.code;
  header.crash_frames = report.frames;
  std::memcpy(header.crash_stack, report.stack, sizeof header.crash_stack);
  header.crash_ns = report.time_ns;
  std::memcpy(header.crash_modules, report.modules, sizeof header.crash_modules);
  if (header.alive_ns.load(std::memory_order_relaxed) < report.time_ns) {
    header.alive_ns.store(report.time_ns, std::memory_order_relaxed);
  }
  header.crash_signal.store(report.signal, std::memory_order_release);
}

void tell(int signal, const siginfo_t& info, ucontext_t& context, pid_t thread) noexcept {
  report.signal = static_cast<std::uint32_t>(signal);
  report.thread = static_cast<std::uint32_t>(thread);
  report.code = info.si_code;
  report.address = info.si_code > 0 ? reinterpret_cast<std::uint64_t>(info.si_addr) : static_cast<std::uint64_t>(info.si_pid);
  report.time_ns = wall_ns();
  walk_stack(context, info.si_code > 0 && signal != SIGILL && signal != SIGFPE &&
                          report.address == program_counter(context));
  find_modules();
  report.modules[report.modules_used] = '\0';
  for_each_header([](RecorderHeader& header) { write_report(header); });
}

// ---- the handler

void on_crash(int signal, siginfo_t* info, void* context) noexcept;

// Whether the fault happens again where its instruction is executed again.
bool is_fault(int signal, const siginfo_t& info) noexcept {
  return info.si_code > 0 && signal != SIGABRT && !(signal == SIGBUS && info.si_code == BUS_MCEERR_AO);
}

// abort(), or as good as.
bool is_abort(int signal, const siginfo_t& info) noexcept {
  return signal == SIGABRT && info.si_code <= 0 && info.si_pid == getpid();
}

void set_default(int signal) noexcept {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
}

// False: another thread's crash is what ends this process, and it takes its time.
bool become_writer(pid_t thread) noexcept {
  for (int waited = 0;; ++waited) {
    const pid_t ending = dying.load(std::memory_order_acquire);
    pid_t nobody = 0;
    if ((ending == 0 || ending == thread) && writer.compare_exchange_strong(nobody, thread, std::memory_order_seq_cst)) {
      return true;
    }
    if (waited == kPatience) return false;
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

// The process has survived: what was written is not so.
void take_back(pid_t thread) noexcept {
  if (!become_writer(thread)) return;
  for_each_header([&](RecorderHeader& header) {
    if (header.crash_thread == static_cast<std::uint32_t>(thread)) header.crash_signal.store(0, std::memory_order_release);
  });
  writer.store(0, std::memory_order_seq_cst);
}

// As the kernel would have called it.
void call_earlier(const struct sigaction& action, int signal, siginfo_t* info, ucontext_t& context) noexcept {
  sigset_t blocked = action.sa_mask;
  sigorset(&blocked, &blocked, &context.uc_sigmask);
  if ((action.sa_flags & SA_NODEFER) == 0) sigaddset(&blocked, signal);
  pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
  if ((action.sa_flags & SA_RESETHAND) != 0) set_default(signal);
  if ((action.sa_flags & SA_SIGINFO) != 0) {
    action.sa_sigaction(signal, info, &context);
  } else {
    action.sa_handler(signal);
  }
}

void on_crash(int signal, siginfo_t* info, void* untyped) noexcept {
  const int saved_errno = errno;
  const pid_t thread = this_thread();
  if (guarding.load(std::memory_order_relaxed) && writer.load(std::memory_order_acquire) == thread) siglongjmp(way_out, 1);

  auto& context = *static_cast<ucontext_t*>(untyped);
  const struct sigaction& action =
      earlier[static_cast<std::size_t>(std::find(kDeadly.begin(), kDeadly.end(), signal) - kDeadly.begin())];
  const bool has_handler =
      (action.sa_flags & SA_SIGINFO) != 0 || (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
  const bool fault = is_fault(signal, *info);
  // A fault can't be ignored, and abort() sees to it that it is not.
  const bool ignored = !has_handler && action.sa_handler == SIG_IGN && !fault;
  if (ignored && !is_abort(signal, *info)) return;

  if (become_writer(thread)) {
    tell(signal, *info, context, thread);
    if (!has_handler && !ignored) dying.store(thread, std::memory_order_release);
    writer.store(0, std::memory_order_seq_cst);
  }
  if (has_handler) {
    call_earlier(action, signal, info, context);
    struct sigaction now {};
    // Where we are still installed, the same fault comes here again. After a handler of SIGABRT abort() goes on.
    if (!is_abort(signal, *info) && sigaction(signal, nullptr, &now) == 0 && now.sa_sigaction == on_crash) take_back(thread);
  } else if (!ignored) {
    set_default(signal);
    // A fault happens again, with registers and stack as they were, for whoever reads the core. What was sent is sent again.
    if (!fault && syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, signal, info) != 0) {
      syscall(SYS_tgkill, getpid(), thread, signal);
    }
  }
  errno = saved_errno;
}

// ---- reading it

std::string hex(std::uint64_t number) {
  char digits[16];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, number, 16);
  return "0x" + std::string(digits, end);
}

std::string_view name_of(int signal) {
  switch (signal) {
    case SIGSEGV: return "SIGSEGV";
    case SIGBUS: return "SIGBUS";
    case SIGILL: return "SIGILL";
    case SIGFPE: return "SIGFPE";
    case SIGABRT: return "SIGABRT";
    default: return {};
  }
}

std::string_view fault_text(int signal, int code) {
  struct Row {
    int signal;
    int code;
    std::string_view text;
  };
  static constexpr Row kRows[] = {
      {SIGSEGV, SEGV_MAPERR, "address not mapped"},
      {SIGSEGV, SEGV_ACCERR, "access not permitted"},
      {SIGBUS, BUS_ADRALN, "address not aligned"},
      {SIGBUS, BUS_ADRERR, "nothing behind the mapping"},
      {SIGBUS, BUS_OBJERR, "error of the hardware"},
      {SIGBUS, BUS_MCEERR_AR, "memory is broken"},
      {SIGBUS, BUS_MCEERR_AO, "memory is broken"},
      {SIGILL, ILL_ILLOPC, "illegal instruction"},
      {SIGILL, ILL_ILLOPN, "illegal operand"},
      {SIGILL, ILL_PRVOPC, "privileged instruction"},
      {SIGFPE, FPE_INTDIV, "integer divided by zero"},
      {SIGFPE, FPE_INTOVF, "integer overflow"},
      {SIGFPE, FPE_FLTDIV, "floating-point number divided by zero"},
      {SIGFPE, FPE_FLTOVF, "floating-point overflow"},
      {SIGFPE, FPE_FLTUND, "floating-point underflow"},
      {SIGFPE, FPE_FLTRES, "floating-point result not exact"},
      {SIGFPE, FPE_FLTINV, "invalid floating-point operation"},
  };
  for (const Row& row : kRows) {
    if (row.signal == signal && row.code == code) return row.text;
  }
  return {};
}

std::string text_of(int signal, int code, std::uint64_t address, std::uint64_t process) {
  std::string text(name_of(signal));
  if (code <= 0) {
    if (address != process) return text + ": sent by process " + std::to_string(address);
    return text + (signal == SIGABRT ? ": the program aborted" : ": sent by the program itself");
  }
  // The kernel tells no address where there is none in the sense of the processor.
  if (code == SI_KERNEL) return text + ": access to an address that can't exist";
  const std::string_view what = fault_text(signal, code);
  return text + ": " + (what.empty() ? "code " + std::to_string(code) : std::string(what)) + " at " + hex(address);
}

std::vector<LoadedModule> read_modules(std::string_view text) {
  std::vector<LoadedModule> modules;
  while (!text.empty() && modules.size() < kMaximumFrames) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) break;
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const auto word = [&] {
      const std::string_view first = line.substr(0, line.find(' '));
      line.remove_prefix(std::min(line.size(), first.size() + 1));
      return first;
    };
    bool good = true;
    const auto number = [&] {
      std::uint64_t value = 0;
      const std::string_view digits = word();
      const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
      good = good && error == std::errc() && stop == digits.data() + digits.size();
      return value;
    };
    LoadedModule found;
    found.base = number();
    found.end = number();
    found.inode = number();
    found.build_id = word();
    if (found.build_id == "-") found.build_id.clear();
    found.path = line;
    if (good && found.base < found.end && found.path.starts_with('/')) modules.push_back(std::move(found));
  }
  return modules;
}

}  // namespace

void catch_crashes() {
  static std::mutex mutex;
  static bool done = false;
  const std::scoped_lock lock(mutex);
  want_signal_stacks();
  lend_signal_stack();
  if (done) return;
  // Its first call loads a library.
  void* first[4];
  (void)backtrace(first, 4);
  (void)wall_ns();  // nor may its first call be the handler's: it reads a file
  for (std::size_t i = 0; i < kDeadly.size(); ++i) sigaction(kDeadly[i], nullptr, &earlier[i]);
  struct sigaction action {};
  action.sa_sigaction = on_crash;
  // Not deferred: what the handler does may fault in turn.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;
  sigfillset(&action.sa_mask);
  for (const int signal : kDeadly) sigdelset(&action.sa_mask, signal);
  for (std::size_t i = 0; i < kDeadly.size(); ++i) {
    if (sigaction(kDeadly[i], &action, nullptr) == 0) continue;
    const int error = errno;
    for (std::size_t j = 0; j < i; ++j) sigaction(kDeadly[j], &earlier[j], nullptr);
    throw Error(ErrorCode::io, "install_crash_handler: the system refuses a handler of " + std::string(name_of(kDeadly[i])) +
                                   ": " + errno_text(error) + "; without it crashes are told of by their open spans only");
  }
  done = true;
}

CrashPlace::CrashPlace(RecorderHeader& header) {
  for (slot_ = slots.load(std::memory_order_acquire); slot_ != nullptr; slot_ = slot_->next) {
    bool taken = false;
    if (slot_->taken.compare_exchange_strong(taken, true, std::memory_order_acquire)) break;
  }
  const bool fresh = slot_ == nullptr;
  if (fresh) slot_ = new CrashSlot;
  slot_->process.store(getpid(), std::memory_order_release);
  slot_->header.store(&header, std::memory_order_seq_cst);
  if (!fresh) return;
  slot_->next = slots.load(std::memory_order_relaxed);
  while (!slots.compare_exchange_weak(slot_->next, slot_, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

CrashPlace::~CrashPlace() {
  slot_->header.store(nullptr, std::memory_order_seq_cst);
  // A handler that has seen it is done with it before its memory goes.
  while (slot_->process.load(std::memory_order_relaxed) == getpid() && writer.load(std::memory_order_seq_cst) != 0) {
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
  slot_->taken.store(false, std::memory_order_release);
}

std::optional<Crash> read_crash(const RecorderHeader& header) {
  Crash crash;
  crash.signal = static_cast<int>(header.crash_signal.load(std::memory_order_acquire));
  crash.name = name_of(crash.signal);
  if (crash.name.empty()) return std::nullopt;
  crash.thread = header.crash_thread;
  crash.time_ns = header.crash_ns;
  crash.text = text_of(crash.signal, header.crash_code, header.crash_address, header.process_id);
  const std::size_t frames = std::min<std::size_t>(header.crash_frames, kMaximumFrames);
  crash.stack.assign(header.crash_stack, header.crash_stack + frames);
  crash.modules =
      read_modules({header.crash_modules, strnlen(header.crash_modules, sizeof header.crash_modules)});
  return crash;
}

}  // namespace waymark::journal
