#include "crash/victim.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "waymark/error.h"
#include "waymark/telemetry.h"

namespace waymark::crash {
namespace {

void tell(unsigned thread, Told told, std::uint64_t number = 0, std::uint8_t which = 0) {
  const Message message{number, told, static_cast<std::uint8_t>(thread), which, {}};
  while (::write(kTellDescriptor, &message, sizeof message) < 0 && errno == EINTR) {
  }
}

void record(Telemetry& telemetry, unsigned thread, std::uint64_t records) {
  const Tracer tracer = telemetry.tracer("crash test");
  const Logger logger = telemetry.logger("crash test");
  std::uint64_t sequence = 0;
  for (std::uint64_t outer_sequence = 1;; ++outer_sequence) {
    const std::uint64_t outer_number = number_of(thread, true, outer_sequence);
    {
      auto outer = tracer.span("outer", {{"number", outer_number}, {"text", text_of(outer_number)}});
      tell(thread, Told::opened, outer_number);
      outer.set("large", large_of(outer_number));
      tell(thread, Told::attribute, outer_number, kLarge);
      for (int i = 0; i < 50; ++i) {
        const std::uint64_t number = number_of(thread, false, ++sequence);
        {
          auto span = tracer.span("inner", {{"number", number}, {"text", text_of(number)}});
          tell(thread, Told::opened, number);
          span.set("count", number % 1000);
          tell(thread, Told::attribute, number, kCount);
          if (number % 16 == 0) {
            span.set("large", large_of(number));
            tell(thread, Told::attribute, number, kLarge);
          }
          if (number % 8 == 0) {
            span.set("again", 1);
            tell(thread, Told::attribute, number, kAgainOne);
            span.set("again", 2);
            tell(thread, Told::attribute, number, kAgainTwo);
          }
          logger.info(text_of(number), {{"number", number}});
          tell(thread, Told::logged, number);
          tell(thread, Told::ending, number);
        }
        tell(thread, Told::finished, number);
        if (records != 0 && sequence >= records) {
          tell(thread, Told::idle);
          for (;;) pause();
        }
      }
      tell(thread, Told::ending, outer_number);
    }
    tell(thread, Told::finished, outer_number);
  }
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

int run_victim(const Setting& setting, std::uint64_t records) {
  try {
    Telemetry telemetry(config_of(setting));
    tell(kThreads, Told::ready);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back([&, i] { record(telemetry, i, records); });
    for (std::thread& thread : threads) thread.join();
  } catch (const Error& e) {
    std::fprintf(stderr, "crashtest: the victim has no telemetry: %s\n", e.what());
  }
  return 1;
}

}  // namespace waymark::crash
