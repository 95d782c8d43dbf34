#include "worker_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "executor.h"
#include "loop.h"
#include "waymark/configure.h"
#include "waymark/error.h"

extern char** environ;

namespace waymark::detail {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kProgram[] = "/proc/self/exe";
constexpr char kVariable[] = "WAYMARK_WORKER";  // the channel's descriptor, the runner's number, the parent's process id
constexpr auto kStartTime = std::chrono::seconds(60);  // from the start to the runner's making
constexpr auto kEndTime = std::chrono::seconds(2);     // to end, beyond the time to deliver
constexpr auto kOrphansFlush = std::chrono::seconds(5);
constexpr auto kProgressInterval = std::chrono::milliseconds(100);

void close_if_open(int descriptor) {
  if (descriptor >= 0) close(descriptor);
}

int event() {
  const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptor < 0) throw Error(ErrorCode::io, std::string("runner: no eventfd: ") + std::strerror(errno));
  return descriptor;
}

void set_event(int descriptor) noexcept {
  const std::uint64_t one = 1;
  if (write(descriptor, &one, sizeof one) < 0) {
    // It is set already.
  }
}

void reset_event(int descriptor) noexcept {
  std::uint64_t count = 0;
  if (read(descriptor, &count, sizeof count) < 0) {
    // It was not set.
  }
}

int poll_milliseconds(std::optional<Clock::time_point> until) {
  if (!until) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
}

// ------ what this process is

struct Self {
  int channel = -1;  // none: no worker
  std::uint64_t runner = 0;
};

// Before main(), so that nothing that the program starts inherits the variable or the channel.
Self read_variable() {
  const char* text = std::getenv(kVariable);
  if (!text) return {};
  Self self;
  pid_t parent = 0;
  const char* const end = text + std::strlen(text);
  const auto channel = std::from_chars(text, end, self.channel);
  if (channel.ec != std::errc() || channel.ptr == end) return {};
  const auto runner = std::from_chars(channel.ptr + 1, end, self.runner);
  if (runner.ec != std::errc() || runner.ptr == end) return {};
  if (std::from_chars(runner.ptr + 1, end, parent).ec != std::errc()) return {};
  unsetenv(kVariable);
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(self.channel, SOL_SOCKET, SO_TYPE, &type, &size) != 0) return {};
  fcntl(self.channel, F_SETFD, FD_CLOEXEC);
  if (getppid() == parent) {
    // Its tasks are to be given to others when a runner dies: only a runner can do that.
    leave_recovery_to_others();
    return self;
  }
  // Either the runner has died meanwhile, or the variable was another's.
  char byte = 0;
  if (recv(self.channel, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) _exit(EXIT_FAILURE);
  return {};
}

const Self self = read_variable();
std::atomic<bool> serving{false};
std::atomic<std::uint64_t> isolated_runners{0};

// ------ the worker's end

class Service {
 public:
  explicit Service(const LoopOptions& options) : options_(options), progress_event_(event()) {
    board_ = std::make_shared<ProgressBoard>([this] { set_event(progress_event_); });
  }

  [[noreturn]] void serve() {
    prctl(PR_SET_NAME, program_invocation_short_name);  // it was started as "exe"
    // A signal to the group or the container reaches the runner, too, which then asks its workers to stop.
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    sigset_t runners;
    sigemptyset(&runners);
    for (const int signal : {SIGINT, SIGTERM}) {
      sigaction(signal, &action, nullptr);
      sigaddset(&runners, signal);
    }
    pthread_sigmask(SIG_UNBLOCK, &runners, nullptr);
    sigset_t every;
    sigset_t before;
    sigfillset(&every);
    for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) sigdelset(&every, signal);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    std::thread listener([this] { listen(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);

    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return ended_ || running_; });
      if (!running_) break;
      const std::shared_ptr<Attempt> attempt = running_;
      lock.unlock();
      attempt->execute();
      FromWorker result(std::in_place_type<Finish>, std::move(attempt->finish()));
      const std::string bytes = frame(result);
      attempt->finish() = std::move(std::get<Finish>(result));
      attempt->finish().subtasks = {};
      lock.lock();
      open_.push_back(attempt);
      running_.reset();
      lock.unlock();
      send_progress(bytes);
      lock.lock();
    }
    const std::chrono::nanoseconds flush = flush_;
    // The runner has ended, and did not say what became of these.
    for (const auto& attempt : open_) attempt->conclude(false, Timestamp::max());
    lock.unlock();
    listener.join();
    options_.telemetry->shutdown(flush);
    std::exit(EXIT_SUCCESS);
  }

 private:
  void listen() {
    pthread_setname_np(pthread_self(), "wm-worker");
    FrameReader reader;
    std::optional<Clock::time_point> progress_due;
    Clock::time_point last_progress;
    std::string buffer(1 << 16, '\0');
    try {
      for (;;) {
        pollfd fds[2] = {{self.channel, POLLIN, 0}, {progress_event_, POLLIN, 0}};
        if (poll(fds, 2, poll_milliseconds(progress_due)) < 0 && errno != EINTR) break;
        if (fds[1].revents) {
          reset_event(progress_event_);
          progress_due = last_progress + kProgressInterval;
        }
        if (progress_due && *progress_due <= Clock::now()) {
          progress_due.reset();
          last_progress = Clock::now();
          send_progress({});
        }
        if (!fds[0].revents) continue;
        const ssize_t n = recv(self.channel, buffer.data(), buffer.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        reader.append(std::string_view(buffer.data(), static_cast<std::size_t>(n)));
        while (auto message = reader.next<FromRunner>()) {
          std::visit([this](auto& m) { take(m); }, *message);
          if (std::holds_alternative<WorkerEnd>(*message)) return;
        }
      }
    } catch (const Error&) {
      // The runner's words are no longer to be understood: as if it were gone.
    }
    gone();
  }

  void take(const WorkerStart& start) {
    std::vector<TaskName> names;
    for (const TaskType& task : options_.tasks) names.push_back(task.name);
    ground_ = std::make_shared<AttemptGround>(AttemptGround{
        .store = options_.store,
        .instrumentation = Instrumentation(*options_.telemetry, start.runner, options_.name, options_.cluster),
        .backoff = options_.runner.backoff,
        .cache_directory = options_.cache_directory,
        .cache_spans = options_.cache_spans,
        .now = options_.time.now,
        .types = options_.tasks,
        .in_worker = true});
    WorkerReady ready;
    if (names != start.tasks) ready.problem = "it came to a runner of other tasks";
    send(frame(FromWorker(ready)));
  }
  void take(WorkerTask& task) {
    if (!ground_ || task.task.type >= options_.tasks.size()) {
      throw Error(ErrorCode::corrupt, "a worker process's channel: a task that is not known");
    }
    auto attempt = std::make_shared<Attempt>(std::move(task.task), ground_, task.worker, board_);
    const std::scoped_lock lock(mutex_);
    running_ = std::move(attempt);
    wake_.notify_one();
  }
  void take(const WorkerStop& stop) {
    std::shared_ptr<Attempt> attempt;
    {
      const std::scoped_lock lock(mutex_);
      if (running_ && is(*running_, stop)) attempt = running_;
    }
    if (!attempt) return;
    if (stop.timed_out) attempt->time_out();
    attempt->stop_source().request_stop();
  }
  void take(const WorkerConclude& conclude) {
    std::shared_ptr<Attempt> attempt;
    {
      const std::scoped_lock lock(mutex_);
      const auto it = std::find_if(open_.begin(), open_.end(), [&](const auto& a) { return is(*a, conclude); });
      if (it == open_.end()) return;
      attempt = std::move(*it);
      open_.erase(it);
    }
    attempt->conclude(conclude.accepted, conclude.deadline);
  }
  void take(const WorkerEnd& end) {
    const std::scoped_lock lock(mutex_);
    ended_ = true;
    flush_ = end.flush;
    wake_.notify_one();
  }

  template <class Message>
  static bool is(const Attempt& attempt, const Message& message) {
    return attempt.task().task == message.task && attempt.task().attempt == message.attempt;
  }

  // The channel is closed: nobody will take what is executed here, and others are to have it at once.
  void gone() {
    const std::scoped_lock lock(mutex_);
    if (running_) running_->orphan();
    for (const auto& attempt : open_) attempt->orphan();
    if (running_ || !open_.empty()) _exit(EXIT_FAILURE);
    ended_ = true;
    flush_ = kOrphansFlush;
    wake_.notify_one();
  }

  // What the tasks have counted, and then the result.
  void send_progress(const std::string& result) {
    const std::scoped_lock lock(sending_);
    std::string bytes;
    for (ProgressReport& report : board_->take()) bytes += frame(FromWorker(std::move(report)));
    send_locked(bytes + result);
  }
  void send(const std::string& bytes) {
    const std::scoped_lock lock(sending_);
    send_locked(bytes);
  }
  void send_locked(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(self.channel, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return;  // the runner is gone, as listen() is about to see
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }

  const LoopOptions& options_;
  const int progress_event_;
  std::shared_ptr<ProgressBoard> board_;
  std::shared_ptr<AttemptGround> ground_;
  std::mutex sending_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Attempt> running_;            // or about to
  std::vector<std::shared_ptr<Attempt>> open_;  // executed; the store has not said anything yet
  bool ended_ = false;
  std::chrono::nanoseconds flush_{0};
};

}  // namespace

bool worker() noexcept { return self.channel >= 0; }
bool starting_worker() noexcept { return self.channel >= 0 && !serving; }

WorkerProgram isolate(const LoopOptions& options, bool store_in_memory) {
  WorkerProgram program;
  program.runner = ++isolated_runners;
  if (self.channel >= 0 && program.runner == self.runner && !serving.exchange(true)) Service(options).serve();
  if (store_in_memory) {
    throw Error(ErrorCode::invalid_argument,
                "RunnerOptions::isolation: a store in memory can't be shared with worker processes: name a file");
  }
  if (options.time.pass) {
    throw Error(ErrorCode::invalid_argument,
                "RunnerOptions::isolation: worker processes do not see a time that passes by itself "
                "(ClientOptions::time): leave one of the two out");
  }
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (text.empty() || access(kProgram, X_OK) != 0) {
    throw Error(ErrorCode::io,
                "RunnerOptions::isolation: /proc/self/cmdline and /proc/self/exe, which tell how this program was "
                "started, can't be read: is /proc mounted?");
  }
  for (std::size_t at = 0; at < text.size(); at = text.find('\0', at) + 1) {
    program.arguments.emplace_back(text.c_str() + at);
    if (text.find('\0', at) == std::string::npos) break;
  }
  return program;
}

// ------ the runner's end

WorkerProcess::WorkerProcess(int channel) : channel_(channel), wake_(event()) {}

WorkerProcess::~WorkerProcess() {
  if (process_ > 0 && !gone_) (void)reap({});
  close_if_open(channel_);
  close_if_open(wake_);
}

void WorkerProcess::spawn(const WorkerProgram& program, int its_end) {
  std::vector<std::string> texts;
  const std::string mine = std::string(kVariable) + "=";
  for (char** variable = environ; *variable; ++variable) {
    if (!std::string_view(*variable).starts_with(mine)) texts.emplace_back(*variable);
  }
  texts.push_back(mine + std::to_string(its_end) + ":" + std::to_string(program.runner) + ":" + std::to_string(getpid()));
  const auto list = [](const std::vector<std::string>& strings) {
    std::vector<char*> pointers;
    for (const std::string& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
    pointers.push_back(nullptr);
    return pointers;
  };
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, its_end, its_end);  // it stays open
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);  // the runner's is not for two
  // Until it serves, a signal to the group waits.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGINT);
  sigaddset(&blocked, SIGTERM);
  posix_spawnattr_setsigmask(&attributes, &blocked);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int failure =
      posix_spawn(&process_, kProgram, &actions, &attributes, list(program.arguments).data(), list(texts).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failure == 0) return;
  process_ = -1;
  throw Error(ErrorCode::io, std::string("runner: no worker process could be started: ") + std::strerror(failure));
}

std::shared_ptr<WorkerProcess> WorkerProcess::start(const WorkerProgram& program, const WorkerStart& start,
                                                    const std::stop_token& stop) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw Error(ErrorCode::io, std::string("runner: no channel to a worker process: ") + std::strerror(errno));
  }
  std::shared_ptr<WorkerProcess> worker;
  try {
    worker = std::make_shared<WorkerProcess>(ends[0]);
    worker->spawn(program, ends[1]);
  } catch (...) {
    close(ends[1]);
    if (!worker) close(ends[0]);
    throw;
  }
  close(ends[1]);
  worker->post(start);
  const std::stop_callback on_stop(stop, [&] { worker->wake(); });
  const auto until = Clock::now() + kStartTime;
  std::string problem;
  try {
    while (!stop.stop_requested()) {
      if (const auto message = worker->reader_.next<FromWorker>()) {
        const auto* ready = std::get_if<WorkerReady>(&*message);
        if (ready && ready->problem.empty()) return worker;
        problem = ready ? ready->problem : "it spoke out of turn";
        break;
      }
      if (Clock::now() >= until) {
        problem = "it took longer than 60 s";
        break;
      }
      if (!worker->receive(until)) break;
    }
  } catch (const Error& e) {
    problem = e.what();
  }
  if (stop.stop_requested()) return nullptr;
  const std::string end = worker->reap(problem);
  throw Error(ErrorCode::io, "runner: " + end +
                                 " before it had come to its runner. A worker process is this program, started with the "
                                 "same arguments, and has to come to the same client.runner<...>() call");
}

void WorkerProcess::wake() noexcept { set_event(wake_); }

void WorkerProcess::post(const FromRunner& message) {
  const std::string bytes = frame(message);
  const std::scoped_lock lock(mutex_);
  pending_ += bytes;
  send_pending();
  if (!pending_.empty()) wake();
}

void WorkerProcess::send_pending() {
  while (sent_ < pending_.size()) {
    const ssize_t n = ::send(channel_, pending_.data() + sent_, pending_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) break;  // it is gone, as whoever receives will see
    sent_ += static_cast<std::size_t>(n);
  }
  pending_.clear();
  sent_ = 0;
}

// Waits for something to arrive, for a wake(), or for the time. False: the channel is closed.
bool WorkerProcess::receive(std::optional<Clock::time_point> until) {
  bool sending = false;
  {
    const std::scoped_lock lock(mutex_);
    sending = !pending_.empty();
  }
  pollfd fds[2] = {{channel_, static_cast<short>(POLLIN | (sending ? POLLOUT : 0)), 0}, {wake_, POLLIN, 0}};
  if (poll(fds, 2, poll_milliseconds(until)) < 0) return true;
  if (fds[1].revents) reset_event(wake_);
  if (fds[0].revents & POLLOUT) {
    const std::scoped_lock lock(mutex_);
    send_pending();
  }
  if (!(fds[0].revents & (POLLIN | POLLHUP | POLLERR))) return true;
  char buffer[1 << 16];
  const ssize_t n = recv(channel_, buffer, sizeof buffer, MSG_DONTWAIT);
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  reader_.append(std::string_view(buffer, static_cast<std::size_t>(n)));
  return n > 0;
}

// Makes sure that it is gone. How it ended: it has closed the channel, or what it sent was a problem.
std::string WorkerProcess::reap(const std::string& problem) {
  {
    const std::scoped_lock lock(mutex_);
    ::kill(process_, SIGKILL);  // where it has ended, this changes nothing
  }
  siginfo_t info{};
  while (waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  int status = 0;
  pid_t found = 0;
  {
    const std::scoped_lock lock(mutex_);
    gone_ = true;  // from here on its number may be another's
    found = waitpid(process_, &status, WNOHANG);
  }
  std::string text = "worker process " + std::to_string(process_);
  if (!problem.empty()) return text + " was ended: " + problem;
  if (found != process_) return text + " has ended";  // somebody else has waited for it
  if (WIFEXITED(status)) return text + " ended with exit code " + std::to_string(WEXITSTATUS(status));
  const char* name = sigabbrev_np(WTERMSIG(status));
  return text + " died of " + (name ? std::string("SIG") + name : "signal " + std::to_string(WTERMSIG(status)));
}

bool WorkerProcess::alive() {
  if (gone_) return false;
  char byte = 0;
  const ssize_t n = recv(channel_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return true;
  (void)reap({});
  return false;
}

WorkerProcess::Outcome WorkerProcess::run(WorkerId worker, const ClaimedTask& task, const std::stop_token& stop,
                                          const std::atomic<bool>& timed_out,
                                          const std::function<void(const ProgressReport&)>& progress) {
  {
    const std::scoped_lock lock(mutex_);
    running_ = {task.task, task.attempt};
    if (doomed_ == running_) ::kill(process_, SIGKILL);
  }
  post(WorkerTask{worker, task});
  Outcome outcome;
  std::string problem;
  {
    const std::stop_callback on_stop(
        stop, [&] { post(WorkerStop{.task = task.task, .attempt = task.attempt, .timed_out = timed_out}); });
    const auto is_this = [&](const auto& message) {
      return message.task == task.task && message.attempt == task.attempt;
    };
    try {
      while (!outcome.finish && problem.empty()) {
        auto message = reader_.next<FromWorker>();
        if (!message) {
          if (!receive({})) break;
        } else if (auto* finish = std::get_if<Finish>(&*message); finish && is_this(*finish)) {
          outcome.finish = std::move(*finish);
        } else if (const auto* report = std::get_if<ProgressReport>(&*message)) {
          if (is_this(*report)) progress(*report);  // an earlier task's thread may still count
        } else {
          problem = "it spoke out of turn";
        }
      }
    } catch (const Error& e) {
      problem = e.what();
    }
  }
  {
    const std::scoped_lock lock(mutex_);
    running_.reset();
  }
  if (!outcome.finish) outcome.died = reap(problem);
  return outcome;
}

void WorkerProcess::conclude(const WorkerConclude& what) { post(what); }

void WorkerProcess::kill(std::int64_t task, std::uint32_t attempt) {
  const std::scoped_lock lock(mutex_);
  doomed_ = {task, attempt};
  if (!gone_ && running_ == doomed_) ::kill(process_, SIGKILL);
}

void WorkerProcess::end(std::chrono::nanoseconds flush) {
  if (!alive()) return;
  post(WorkerEnd{flush});
  const auto until = Clock::now() + flush + kEndTime;
  while (Clock::now() < until && receive(until)) reader_ = {};
  (void)reap({});
}

}  // namespace waymark::detail
