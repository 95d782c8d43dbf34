// The collector: the one thread that takes finished records out of the lanes and into the journal.
//
// Hides: when it looks, how long it sleeps, and the order of write, count and freeing that makes a crash harmless.
// Threads: start(), flush() and stop() any; everything else is its own thread's.
// Failure: none of its own. Where the journal has no room, records wait in their rings.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "journal/hook.h"
#include "journal/journal.h"
#include "journal/recorder.h"

namespace waymark::journal {

class Collector {
 public:
  // `journaled` is called after something was written, from the collector's thread: it wakes destinations.
  Collector(Recorder& recorder, Journal& journal, Hook& hook, const Clock& clock,
            std::function<void(const Journaled&)> journaled);
  ~Collector();

  // Everything published before the call is in the journal. False: not within the deadline. `no_room` is called once where
  // the journal is full.
  bool flush(Deadline deadline, const std::function<void()>& no_room = {});
  // Whether something waits for room in the journal.
  [[nodiscard]] bool blocked();
  // Drains once more until the deadline, then ends the thread.
  bool stop(Deadline deadline);

 private:
  void run();
  bool drain_once(Deadline deadline);
  bool drain_all();
  bool drain(Lane& lane);
  [[nodiscard]] bool anything() const noexcept;

  Recorder& recorder_;
  Journal& journal_;
  Hook& hook_;
  const Clock& clock_;
  std::function<void(const Journaled&)> journaled_;
  Journaled round_;
  bool refused_ = false;  // by the journal, in this round
  bool busy_ = false;     // a lane was filled by an eighth or more since it was last looked at
  std::string kept_;  // what the hook left of a stretch
  std::mutex mutex_;
  std::condition_variable drained_;
  std::atomic<std::uint64_t> asked_{0};  // flushes asked for
  std::uint64_t done_ = 0;               // and done, guarded by mutex_
  bool blocked_ = false;                 // the last round left something behind, guarded by mutex_
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace waymark::journal
