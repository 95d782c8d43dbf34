#include "crash/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

namespace waymark::crash {
namespace {

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

}  // namespace

Workplace::Workplace(const std::string& parent) : path_(parent + "/crashtest-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) give_up("crashtest: mkdtemp");
}

Workplace::~Workplace() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

Pipe::Pipe() {
  if (pipe2(ends_, O_CLOEXEC) != 0) give_up("crashtest: pipe");
}

Pipe::~Pipe() {
  close(ends_[0]);
  close_writer();
}

void Pipe::close_writer() {
  if (ends_[1] >= 0) close(ends_[1]);
  ends_[1] = -1;
}

Child::Child(std::vector<std::string> arguments, Fate fate, int tells, int waits) {
  arguments.insert(arguments.begin(), "/proc/self/exe");
  std::vector<char*> argv;
  for (std::string& text : arguments) argv.push_back(text.data());
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
  char hold[] = "WAYMARK_PLANTED_FAULT_HOLD=1";
  if (fate == Fate::dies) environment.push_back(hold);
  environment.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // One of them may have the other's number.
  const int safe = waits >= 0 ? fcntl(waits, F_DUPFD_CLOEXEC, 10) : -1;
  if (tells >= 0) posix_spawn_file_actions_adddup2(&actions, tells, kTellDescriptor);
  if (waits >= 0) posix_spawn_file_actions_adddup2(&actions, safe, kWaitDescriptor);
  if (posix_spawn(&process_, "/proc/self/exe", &actions, nullptr, argv.data(), environment.data()) != 0) {
    give_up("crashtest: posix_spawn");
  }
  posix_spawn_file_actions_destroy(&actions);
  if (safe >= 0) close(safe);
}

Child::~Child() {
  if (process_ > 0) kill(SIGKILL);
}

void Child::spin_with(std::chrono::microseconds time) const {
  const auto until = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < until) {
    siginfo_t ended{};
    const int known = waitid(P_PID, static_cast<id_t>(process_), &ended, WEXITED | WNOHANG | WNOWAIT);
    if (known != 0 || ended.si_pid != 0) return;
  }
}

bool Child::kill(int signal) {
  ::kill(process_, signal);
  return WIFSIGNALED(wait_status());
}

int Child::exit_code() {
  const int status = wait_status();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int Child::wait_status() {
  int status = 0;
  while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
  return status;
}

bool Tale::take(std::chrono::milliseconds patience, const std::function<void(const Message&)>& each,
                const std::function<bool()>& enough) {
  for (;;) {
    if (enough()) return true;
    pollfd waits{pipe_.reader(), POLLIN, 0};
    const int ready = poll(&waits, 1, static_cast<int>(patience.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    Message buffer[256];
    const ssize_t n = read(pipe_.reader(), buffer, sizeof buffer);  // messages are whole: so is what is read
    if (n <= 0) return false;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n) / sizeof(Message); ++i) each(buffer[i]);
  }
}

std::vector<std::string> arguments_of(const Setting& setting, std::string command) {
  std::vector<std::string> arguments{std::move(command), "--state", setting.state};
  if (setting.url.empty()) {
    arguments.insert(arguments.end(), {"--files", setting.files});
  } else {
    arguments.insert(arguments.end(), {"--url", setting.url});
  }
  if (setting.recorder_in_state) arguments.emplace_back("--recorder-in-state");
  if (setting.small_journal) arguments.emplace_back("--small-journal");
  return arguments;
}

}  // namespace waymark::crash
