// A runner whose tasks run in worker processes: isolated STORE STATE TRACES MODE
//
// MODE is a word: "all" (until nothing is left to do), "serve" (until a signal), "blind" (the same, two tasks at a time, and
// it recovers nothing), "elsewhere" (serves another cluster), "submit" (a job of its own first, then all), or "astray" (its
// workers end before they come to the runner). What its tasks do stands in their input (act.h).
// Every start of a task is a line "start PROCESS ATTEMPT" on standard output, and what is recovered, too.
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <string>

#include "runner/processes/act.h"

using namespace waymark;
using testing::Act;

namespace {

struct Unlucky : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void say(const std::string& line) {
  const std::string text = line + "\n";
  if (write(STDOUT_FILENO, text.data(), text.size()) < 0) _exit(3);
}

// As a stray pointer's write would, into every stream that is open.
void write_garbage() {
  const std::string garbage(1000, '\x5a');
  for (int fd = 3; fd < 256; ++fd) {
    int type = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) continue;
    if (send(fd, garbage.data(), garbage.size(), MSG_NOSIGNAL) < 0) continue;
  }
}

void wait_for_stop(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait(lock, stop, [] { return false; });
}

void act(const Act& task, Context& context) {
  auto span = context.tracer().span("act", {{"what", task.what}});
  say("start " + std::to_string(getpid()) + " " + std::to_string(context.attempt()));
  const bool first = context.attempt() == 1;
  if (task.what == "crash" && first) {
    volatile std::uintptr_t nowhere = 8;  // not 0: UBSan would say so first
    *reinterpret_cast<volatile int*>(nowhere) = 1;
  }
  if (task.what == "exit") _exit(7);
  if (task.what == "garbage" && first) {
    write_garbage();
    for (;;) pause();
  }
  if (task.what == "throw") throw Unlucky("no luck with " + task.with);
  if (task.what == "throw a number") throw 42;
  if (task.what == "give up") throw NonRetryable("never");
  if (task.what == "hang" && first) {
    for (;;) pause();
  }
  if (task.what == "wait") {
    wait_for_stop(context.stop_token());
    say("stopped");
    throw Stopped();
  }
  if (task.what == "scene") {
    const Progress tiles = context.progress("tiles");
    tiles.add(4);
    tiles.done(3);
    context.display("scene " + task.with);
    const auto made = context.step("download", [&] {
      say("download");
      return task.with + " in " + std::to_string(getpid());
    });
    context.job_cache().set("made", made);
    context.logger().info("scene seen");
    if (first) throw Unlucky("after the step");
    const auto done = context.submit_subtasks(std::vector<Act>{{"tile", "0"}, {"tile", "1"}}, {.max_retries = 2});
    context.submit_subtask(Act{"mosaic", ""}, {.depends_on = done, .limit_key = "mosaic", .display = "the mosaic"});
  }
  if (task.what == "mosaic") say("made " + context.job_cache().get("made"));
  if (task.what == "pass on") context.submit_subtask(Act{"measure", task.with});
  if (task.what == "measure") say("size " + std::to_string(task.with.size()));
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) return 2;
  const std::string store = arguments[1], state = arguments[2], traces = arguments[3], mode = arguments[4];
  if (mode == "astray" && in_worker_process()) return 9;

  Config config;
  config.resource = Resource("isolated");
  config.state_directory = state;
  config.recover_siblings = mode != "blind";
  DestinationConfig file;
  file.name = "file";
  file.signal = Signal::traces;
  file.output = Output::file;
  file.path = traces;
  file.batch.interval = std::chrono::milliseconds(50);
  config.destinations.push_back(file);
  Telemetry telemetry(std::move(config));
  telemetry.on_recovered([](const Recovered& recovered) {
    for (const InterruptedSpan& span : recovered.interrupted) say("recovered " + span.name);
  });
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  install_crash_handler();

  Act::body() = act;
  Client client({.name = "isolated",
                 .store = store,
                 .cluster = mode == "elsewhere" ? "elsewhere" : "default",
                 .telemetry = &telemetry});
  if (mode == "submit") {
    const Job job = client.jobs().submit("own", Act{"compute", ""});
    say("submitted " + client.jobs().find(job.id).id);
  }
  int code = 0;
  try {
    Runner runner = client.runner<Act>({.concurrency = mode == "blind" ? 2u : 1u,
                                        .lease = std::chrono::hours(1),
                                        .backoff = {.initial = std::chrono::milliseconds(1)},
                                        .timeout_grace = std::chrono::milliseconds(50),
                                        .isolation = Isolation::process});
    if (mode == "serve" || mode == "blind" || mode == "elsewhere") {
      code = exit_code(runner.run_forever({.handle_signals = true, .grace = std::chrono::milliseconds(200)}));
    } else {
      runner.run_all();
    }
  } catch (const Error& e) {
    say(std::string("error ") + e.what());
    code = 1;
  }
  telemetry.shutdown(std::chrono::seconds(10));
  say("bye");
  return code;
}
