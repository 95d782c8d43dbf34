// A runner in a process of its own: worker STORE STATE TRACES LEASE_MS TILE
//
// TILE says what becomes of tiles here: "compute"; "hang" (until the process is killed); "die" (the process kills
// itself); "stubborn" (it serves until a signal, which its tiles do not mind); "crash" (two run at a time; that of the job "poison" follows a bad pointer once the other has started, which
// waits for its end).
// Every tile that starts and ends is a line on standard output. STATE "" keeps telemetry in memory.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "runner/processes/scene.h"

using namespace waymark;

int main(int count, char** arguments) {
  if (count != 6) return 2;
  const std::string store = arguments[1], state = arguments[2], traces = arguments[3], behaviour = arguments[5];
  const std::chrono::milliseconds lease(std::atoi(arguments[4]));
  const auto say = [](const std::string& line) {
    const std::string text = line + "\n";
    if (write(STDOUT_FILENO, text.data(), text.size()) < 0) _exit(3);
  };

  Config config;
  config.resource = Resource("worker");
  config.state_directory = state;
  DestinationConfig file;
  file.name = "file";
  file.signal = Signal::traces;
  file.output = Output::file;
  file.path = traces;
  file.batch.interval = std::chrono::milliseconds(50);
  config.destinations.push_back(file);
  Telemetry telemetry(std::move(config));

  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  install_crash_handler();

  std::atomic<bool> other_started{false};
  testing::Tile::body() = [&](const testing::Tile& tile, Context& context) {
    auto span = context.tracer().span("read_bands", {{"bands", 4}});
    say("start " + std::to_string(tile.index) + " " + std::to_string(context.attempt()));
    if (behaviour == "hang") pause();
    if (behaviour == "stubborn") {
      for (;;) pause();
    }
    if (behaviour == "die") raise(SIGKILL);
    if (behaviour == "crash" && context.job().name == "poison") {
      other_started.wait(false);
      volatile std::uintptr_t nowhere = 8;  // not 0: UBSan would say so first
      *reinterpret_cast<volatile int*>(nowhere) = 1;
    }
    if (behaviour == "crash") {
      other_started = true;
      other_started.notify_all();
      for (;;) pause();
    }
    say("done " + std::to_string(tile.index));
  };
  Client client({.name = "worker", .store = store, .telemetry = &telemetry});
  Runner runner = client.runner<testing::Scene, testing::Tile, testing::Mosaic>(
      {.concurrency = behaviour == "crash" ? 2u : 1u, .lease = lease});
  int code = 0;
  if (behaviour == "stubborn") {
    code = exit_code(runner.run_forever({.handle_signals = true}));
  } else {
    runner.run_all();
  }
  telemetry.shutdown(std::chrono::seconds(10));
  say("bye");
  return code;
}
