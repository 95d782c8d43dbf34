#include "crash/stepped.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "crash/victim.h"
#include "journal/directory.h"
#include "journal/layout.h"
#include "waymark/error.h"
#include "waymark/telemetry.h"

namespace waymark::crash {
namespace {

constexpr std::size_t kRingBytes = 512 << 10;
constexpr std::size_t kSegmentBytes = 1 << 20;

Config config_in(const std::string& work, std::function<DeliveryResult(Signal, std::string_view)> deliver) {
  Config config;
  config.resource = Resource("crash-test");
  config.state_directory = work + "/state";
  config.diagnostics = DiagnosticLevel::error;
  config.recover_siblings = false;
  // Small, since it is compared after every step: one lane for a thread of its own, and one to be shared.
  config.recorder.max_bytes = 3 << 19;
  config.recorder.ring_bytes = kRingBytes;
  config.journal.segment_bytes = kSegmentBytes;
  config.journal.memory_bytes = 2 * kSegmentBytes;
  config.journal.max_bytes = 8 * kSegmentBytes;
  for (const Signal signal : {Signal::traces, Signal::logs}) {
    DestinationConfig destination;
    destination.name = "sink";
    destination.signal = signal;
    destination.lossy = false;
    destination.output = Output::callback;
    destination.deliver = deliver;
    destination.batch.interval = std::chrono::nanoseconds(1);
    config.destinations.push_back(std::move(destination));
  }
  return config;
}

class Script {
 public:
  explicit Script(const std::string& work)
      : sent_(::open(sent_file(work).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)),
        telemetry_(config_in(work, [this](Signal signal, std::string_view request) { return send(signal, request); })),
        tracer_(telemetry_.tracer("crash test")),
        logger_(telemetry_.logger("crash test")) {}
  ~Script() { close(sent_); }
  Script(const Script&) = delete;
  Script& operator=(const Script&) = delete;

  void run(std::uint64_t script) {
    // What happens once only is over: a lane is lent, positions are not zero, blocks hold old bytes.
    for (int i = 0; i < 3; ++i) {
      const std::uint64_t number = next(Kind::inner);
      span(number, [&](Span& span) { set_all(span, number); });
      log();
    }
    if (script == 4) fill_ring();
    if (script == 5) fill_segments();
    settle();
    tell(0, Told::ready);
    char go = 0;
    while (::read(kWaitDescriptor, &go, 1) < 0 && errno == EINTR) {
    }
    switch (script) {
      case 0: one_span_and_one_log(); break;
      case 1: drained_while_open(); break;
      case 2: long_record(); break;
      case 3: moved(); break;
      default: across_an_end(); break;
    }
    tell(0, Told::idle);
    for (;;) pause();
  }

 private:
  std::uint64_t next(Kind kind) { return number_of(0, kind, ++sequence_); }
  static void turn(Turn turn) { tell(0, Told::turn, 0, static_cast<std::uint8_t>(turn)); }
  static void all_turns() {
    turn(Turn::collector);
    turn(Turn::traces);
    turn(Turn::logs);
  }

  DeliveryResult send(Signal signal, std::string_view request) const {
    const SentHeader header{static_cast<std::uint32_t>(signal), static_cast<std::uint32_t>(request.size())};
    const iovec pieces[2] = {{const_cast<SentHeader*>(&header), sizeof header},
                             {const_cast<char*>(request.data()), request.size()}};
    const bool whole = ::writev(sent_, pieces, 2) == static_cast<ssize_t>(sizeof header + request.size());
    return {.outcome = whole ? Outcome::delivered : Outcome::retry};
  }

  template <class F>
  void span(std::uint64_t number, F&& body) {
    {
      auto span = tracer_.span(name_of(number), {{"number", number}, {"text", text_of(number)}});
      tell(0, Told::opened, number);
      body(span);
      tell(0, Told::ending, number);
    }
    tell(0, Told::finished, number);
  }
  // Three more attributes, one of them again, and an event.
  void set_all(SpanHandle& span, std::uint64_t number) {
    span.set("count", number % 1000);
    tell(0, Told::set, number, kCount);
    for (std::uint8_t value = 1; value <= 2; ++value) {
      span.set("again", again_of(number, value));
      tell(0, Told::set, number, kAgain, value);
    }
    span.event("mark", {{"at", number}});
    tell(0, Told::set, number, kMark);
  }
  void log(std::size_t padding = 0) {
    const std::uint64_t number = next(Kind::inner);
    const auto span = tracer_.start_span("inner", {}, {.sampled = false});  // for the ids alone
    const ContextScope current(span);
    if (padding == 0) {
      logger_.info(text_of(number), {{"number", number}});
    } else {
      logger_.info(text_of(number), {{"number", number}, {"padding", std::string(padding, 'p')}});
    }
    tell(0, Told::logged, number);
  }
  void settle() {
    if (telemetry_.force_flush(std::chrono::seconds(60))) return;
    std::fputs("crashtest: the stepped process is stuck\n", stderr);
  }

  void one_span_and_one_log() {
    const std::uint64_t number = next(Kind::inner);
    span(number, [&](Span& span) { set_all(span, number); });
    log();
    all_turns();
  }

  void drained_while_open() {
    const std::uint64_t number = next(Kind::outer);
    span(number, [&](Span& span) {
      set_all(span, number);
      const std::uint64_t inner = next(Kind::inner);
      this->span(inner, [](Span&) {});
      turn(Turn::collector);
      log();
      turn(Turn::collector);
      turn(Turn::traces);
    });
    turn(Turn::collector);
    turn(Turn::logs);
    turn(Turn::traces);
  }

  void long_record() {
    const std::uint64_t number = next(Kind::inner);
    span(number, [&](Span& span) {
      for (std::uint8_t value = 1; value <= 16; ++value) {
        span.set("again", again_of(number, value));
        tell(0, Told::set, number, kAgain, value);
      }
      span.set("large", large_of(number));
      tell(0, Told::set, number, kLarge);
      span.update_name(name_of(number));
      span.event("mark", {{"at", number}});
      tell(0, Told::set, number, kMark);
    });
    turn(Turn::collector);
    turn(Turn::traces);
  }

  void moved() {
    const std::uint64_t number = next(Kind::moved);
    auto moved = tracer_.start_span(name_of(number), {{"number", number}, {"text", text_of(number)}});
    tell(0, Told::opened, number);
    const std::uint64_t inner = next(Kind::inner);
    span(inner, [&](Span& span) {
      set_all(moved, number);
      set_all(span, inner);
    });
    moved.set("moved", true);
    tell(0, Told::set, number, kMoved);
    tell(0, Told::ending, number);
    moved.end();
    tell(0, Told::finished, number);
    turn(Turn::collector);
    turn(Turn::traces);
  }

  // Some records, one of which crosses what fill_ring() or fill_segments() has come close to.
  void across_an_end() {
    for (int i = 0; i < 2; ++i) {
      const std::uint64_t number = next(Kind::inner);
      span(number, [&](Span& span) { span.set("count", number % 1000), tell(0, Told::set, number, kCount); });
      log();
    }
    all_turns();
  }

  // Fewer bytes are left in the lane's ring than two small records take.
  void fill_ring() {
    using namespace journal;
    const std::string id = telemetry_.directory().substr(telemetry_.directory().rfind('/') + 1);
    const File recorder = File::open(memory_path(id) + "/recorder", O_RDONLY);
    const auto left = [&] {
      std::uint64_t head = 0;
      recorder.read_at(kHeaderBytes + offsetof(LaneHeader, head), &head, sizeof head);
      return kRingBytes - head % kRingBytes;
    };
    while (left() > 2000) log(1000);
    while (left() > 350) log();
  }

  // Two segments are full but for a small record.
  void fill_segments() {
    const std::string id = telemetry_.directory().substr(telemetry_.directory().rfind('/') + 1);
    const auto left = [&] {
      settle();
      std::vector<std::string> segments = list_directory(journal::memory_path(id));
      std::erase_if(segments, [](const std::string& name) { return !name.ends_with(".seg"); });
      if (segments.size() < 2) return kSegmentBytes;
      return kSegmentBytes - File::open(journal::memory_path(id) + "/" + segments.back(), O_RDONLY).size();
    };
    while (left() > 12'000) log(5'000);
    while (left() > 400) log();
  }

  int sent_;
  Telemetry telemetry_;
  const Tracer tracer_;
  const Logger logger_;
  std::uint64_t sequence_ = 0;
};

}  // namespace

std::string sent_file(const std::string& work) { return work + "/sent"; }

int run_stepped(const std::string& work, std::uint64_t script) {
  try {
    Script(work).run(script);
  } catch (const Error& e) {
    std::fprintf(stderr, "crashtest: the stepped process has no telemetry: %s\n", e.what());
  }
  return 1;
}

}  // namespace waymark::crash
