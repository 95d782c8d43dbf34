#include "crash/victim.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/telemetry.h"

namespace waymark::crash {

void tell(unsigned thread, Told told, std::uint64_t number, std::uint8_t which, std::uint8_t value) {
  const Message message{number, told, static_cast<std::uint8_t>(thread), which, value, {}};
  while (::write(kTellDescriptor, &message, sizeof message) < 0 && errno == EINTR) {
  }
}

namespace {

struct Moving {
  DetachedSpan span;
  std::uint64_t number = 0;
  bool passed_on = false;  // by the one who was to end it
};

// What a thread is to end of another's.
class Mailbox {
 public:
  // False: it is full.
  bool put(Moving& moving) {
    const std::scoped_lock lock(mutex_);
    if (waiting_.size() >= 8) return false;
    waiting_.push_back(std::move(moving));
    return true;
  }
  std::optional<Moving> take() {
    const std::scoped_lock lock(mutex_);
    if (waiting_.empty()) return std::nullopt;
    std::optional<Moving> first(std::move(waiting_.front()));
    waiting_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::deque<Moving> waiting_;
};

class Recording {
 public:
  explicit Recording(Telemetry& telemetry)
      : tracer_(telemetry.tracer("crash test")), logger_(telemetry.logger("crash test")) {}

  void run(unsigned thread, std::uint64_t records) {
    std::uint64_t sequence = 0;
    for (std::uint64_t outer_sequence = 1;; ++outer_sequence) {
      const std::uint64_t number = number_of(thread, Kind::outer, outer_sequence);
      {
        auto outer = tracer_.span("outer", {{"number", number}, {"text", text_of(number)}});
        tell(thread, Told::opened, number);
        outer.set("large", large_of(number));
        tell(thread, Told::set, number, kLarge);
        for (int i = 0; i < 50; ++i) {
          inner(thread, number_of(thread, Kind::inner, ++sequence));
          if (sequence % 4 == 0) start_moving(thread, number_of(thread, Kind::moved, sequence));
          end_moved(thread);
          if (records != 0 && sequence >= records) {
            tell(thread, Told::idle);
            for (;;) pause();
          }
        }
        tell(thread, Told::ending, number);
      }
      tell(thread, Told::finished, number);
    }
  }

 private:
  void inner(unsigned thread, std::uint64_t number) {
    {
      auto span = tracer_.span("inner", {{"number", number}, {"text", text_of(number)}});
      tell(thread, Told::opened, number);
      span.set("count", number % 1000);
      tell(thread, Told::set, number, kCount);
      if (number % 4 == 1) {
        span.event("mark", {{"at", number}});
        tell(thread, Told::set, number, kMark);
      }
      if (number % 16 == 0) {
        span.set("large", large_of(number));
        tell(thread, Told::set, number, kLarge);
      }
      // Often enough, some of the time, for what is no longer true to be compacted away.
      const unsigned times = number % 32 == 0 ? 30 : number % 8 == 0 ? 2 : 0;
      for (unsigned value = 1; value <= times; ++value) {
        span.set("again", again_of(number, value));
        tell(thread, Told::set, number, kAgain, static_cast<std::uint8_t>(value));
      }
      logger_.info(text_of(number), {{"number", number}});
      tell(thread, Told::logged, number);
      tell(thread, Told::ending, number);
    }
    tell(thread, Told::finished, number);
  }

  void start_moving(unsigned thread, std::uint64_t number) {
    Moving moving{tracer_.start_span("moved", {{"number", number}, {"text", text_of(number)}}), number, false};
    tell(thread, Told::opened, number);
    moving.span.set("count", number % 1000);
    tell(thread, Told::set, number, kCount);
    if (boxes_[(thread + 1) % kThreads].put(moving)) return;
    tell(thread, Told::ending, number);
    moving.span.end();
    tell(thread, Told::finished, number);
  }

  void end_moved(unsigned thread) {
    std::optional<Moving> moving = boxes_[thread].take();
    if (!moving) return;
    const std::uint64_t number = moving->number;
    moving->span.set("moved", true);
    tell(thread, Told::set, number, kMoved);
    const bool pass_on = number % 3 == 0 && !std::exchange(moving->passed_on, true);
    if (pass_on && boxes_[(thread + 1) % kThreads].put(*moving)) return;
    moving->span.event("mark", {{"at", number}});
    tell(thread, Told::set, number, kMark);
    tell(thread, Told::ending, number);
    moving->span.end();
    tell(thread, Told::finished, number);
  }

  const Tracer tracer_;
  const Logger logger_;
  Mailbox boxes_[kThreads];
};

// Not seen coming by the compiler, nor by a sanitizer.
[[gnu::no_sanitize("undefined")]] void touch_nothing(int) {
  static volatile int* volatile nowhere = nullptr;
  *nowhere = 1;
}

}  // namespace

std::string file_of(const Setting& setting, Signal signal) {
  return setting.files + "/" + std::string(signal_name(signal)) + ".jsonl";
}

Config config_of(const Setting& setting) {
  Config config;
  config.resource = Resource("crash-test");
  config.state_directory = setting.state;
  config.diagnostics = DiagnosticLevel::error;
  config.recorder.max_bytes = 4 << 20;
  config.recorder.place = setting.recorder_in_state ? RecorderConfig::Place::state : RecorderConfig::Place::tmpfs;
  if (setting.small_journal) {
    config.recorder.ring_bytes = 512 << 10;
    config.journal.segment_bytes = 1 << 20;
    config.journal.memory_bytes = 2 << 20;
    config.journal.max_bytes = 32 << 20;
  }
  // A slow machine must not turn into a record that was refused: what is counted as lost here is to be a defect.
  config.journal.block_timeout = std::chrono::minutes(2);
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    DestinationConfig destination;
    destination.name = "sink";
    destination.signal = signal;
    destination.lossy = false;
    destination.batch.max_bytes = 64 * 1024;
    destination.batch.interval = std::chrono::milliseconds(5);
    destination.retry.initial = std::chrono::milliseconds(20);
    if (setting.url.empty()) {
      destination.output = Output::file;
      destination.path = file_of(setting, signal);
    } else {
      destination.url = setting.url + "/v1/" + std::string(signal_name(signal));
    }
    config.destinations.push_back(std::move(destination));
  }
  return config;
}

int run_victim(const Setting& setting, std::uint64_t records, bool crash_handler) {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  signal(SIGUSR1, touch_nothing);
  signal(SIGUSR2, [](int) { std::abort(); });
  try {
    if (crash_handler) install_crash_handler();
    Telemetry telemetry(config_of(setting));
    tell(kThreads, Told::ready);
    Recording recording(telemetry);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back([&, i] { recording.run(i, records); });
    for (std::thread& thread : threads) thread.join();
  } catch (const Error& e) {
    std::fprintf(stderr, "crashtest: the victim has no telemetry: %s\n", e.what());
  }
  return 1;
}

}  // namespace waymark::crash
