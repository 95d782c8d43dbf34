// One destination: reads its signal from any number of journals, cuts batches, sends them, and moves its cursors.
//
// Hides: when a batch is due, the retry law, what is said about failures, and how a flush or a stop gets past a backend
//   that hangs.
// Threads: a thread of its own ("wm-traces", "wm-logs") with all signals blocked; every member may be called from any
//   other. One batch is in flight at a time, so what arrives is in order. It is not usable in a child of fork; leave it
//   undestroyed there.
// Failure: the constructor and replace() throw Error, with nothing changed. Delivery failures are counted at the cursors,
//   said through Diagnostics, and kept as last_error.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "export/batch.h"
#include "export/headers_file.h"
#include "export/retry.h"
#include "export/sink.h"
#include "journal/journal.h"
#include "waymark/config.h"
#include "waymark/telemetry.h"

namespace waymark::delivery {

// Throws Error(invalid_argument) naming the destination, the key, the value and what was expected. What needs a look at
// files or the backend's headers is checked when a Destination is made of it.
void check(const DestinationConfig& config);
// Reads the files that it names as its start would: its headers and TLS. Throws Error.
void check_files(const DestinationConfig& config);
// With what its preset asks for in place of the values that were left at their defaults.
[[nodiscard]] DestinationConfig with_preset(DestinationConfig config);

struct DestinationHooks {
  // On the destination's thread, once for each source that add_source() was told is dead: everything in it that this
  // destination has a cursor for is settled, or it was disabled, and nothing here refers to the source any more.
  std::function<void(const std::shared_ptr<journal::Source>&)> on_source_done = {};
  // On the destination's thread: a batch was not taken, where the last one was.
  std::function<void()> on_failing = {};
  // On the destination's thread: a batch was delivered, refused for good ("rejected") or dropped ("given_up"); waits for the
  // backend are in the time it took.
  std::function<void(std::chrono::nanoseconds took, std::string_view error)> on_settled = {};
  // What the waits for a backend are measured with: before a retry, and before one that takes no logs is asked again. Tests
  // put a clock of their own. None: the steady clock.
  std::function<std::chrono::steady_clock::time_point()> now = {};
};

class Destination {
 public:
  // After 404 or 501, logs and metrics are not sent for this long (Jaeger takes traces only).
  static constexpr std::chrono::hours kUnsupportedPause{1};

  // Diagnostics must outlive it. Sends nothing before it has a source.
  Destination(DestinationConfig config, Diagnostics& diagnostics, DestinationHooks hooks = {});
  ~Destination();  // stop(now)
  Destination(const Destination&) = delete;
  Destination& operator=(const Destination&) = delete;

  // `live`: the source grows, and is kept; else it is dead, and is let go when it has been read, or while the destination
  // is disabled. False: a dead one that it has already, that holds no cursor of its own, or while it is disabled; nothing
  // is kept of it then.
  bool add_source(std::shared_ptr<journal::Source> source, bool live);
  // Lets go of a dead source while the backend fails, its cursor where it stands; on_source_done is not called for it.
  // False: it has not got that source, its backend does not fail, or what waits to be sent again is of this source.
  [[nodiscard]] bool give_back(const std::shared_ptr<journal::Source>& source);
  // The last batch that was tried was not taken, and waits.
  [[nodiscard]] bool failing() const;
  [[nodiscard]] bool enabled() const;
  // By the collector, after this many records of this signal, framed in so many bytes, were journaled in the live source.
  // Two atomic additions; a system call only where the thread sleeps and has reason to get up.
  void wake(std::uint64_t records, std::uint64_t bytes) noexcept;

  // What a flush waits for. Begin at all destinations before waiting for one: the deadline is for all of them.
  class Flush;
  [[nodiscard]] Flush begin_flush();
  // True if all that stood in the sources when the flush began is settled. A flush makes one try at once where the
  // backoff is our own; what the backend asked for (Retry-After) is kept.
  [[nodiscard]] bool wait(const Flush& flush, Deadline deadline);
  // Once it is settled: whether nothing was rejected or dropped meanwhile (also of what came later, where that was in the
  // same batch), and no source was let go of before its end. A disabled destination owes nothing.
  [[nodiscard]] bool acknowledged(const Flush& flush) const;
  [[nodiscard]] bool flush(Deadline deadline);

  // Drain until the deadline, then give up, whatever hangs; what is left stays in the journal. A backend that can't be
  // reached gets one try, not the whole time. stop() begins where begin_stop() was not called, and waits for the end.
  // An output's callback that does not return is the one thing that holds it up.
  void begin_stop(Deadline deadline);
  void stop(Deadline deadline);

  // Other settings for the same name and signal; the cursors stay. A batch that waits to be sent again is cut anew and
  // sent with the new ones, at once. Disabled, it reads and sends nothing, owes nothing to a flush, and holds up no writer;
  // its cursors stay where they are. One that never was enabled has no cursor in a live source, and starts at the next
  // record once it is.
  void replace(DestinationConfig config);
  // With those of another that is of the same name and signal, has no source, and was checked when it was made.
  void replace(Destination&& checked);

  // What its live source's cursor says, and what it has done since for recovered ones.
  [[nodiscard]] DestinationStats stats() const;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] Signal signal() const noexcept { return signal_; }

 private:
  struct Settings {
    DestinationConfig config;
    std::shared_ptr<Sink> sink;
    std::shared_ptr<HeadersFile> headers_file;  // the thread's; null where there is none
    std::uint64_t number = 0;  // grows with each replace()
  };
  struct Reader {  // of one source; fields without a remark belong to the destination's thread
    std::shared_ptr<journal::Source> source;  // constant
    bool live = true;                         // constant
    Counts adopted;                           // constant; what a dead source's cursor had counted before
    std::shared_ptr<journal::Cursor> cursor;  // guarded by mutex_; null where a dead source has none for us, and before
                                              // a live one's destination is enabled for the first time
    bool lossy = true;                        // as the cursor was opened
    std::uint64_t envelope_of = UINT64_MAX;   // the number of the settings that `envelope` was made with
    std::unique_ptr<Envelope> envelope;
    std::function<bool(const journal::Record&)> keep;  // of the same settings; empty: all
    bool look = true;                         // guarded by mutex_; to be read, whatever is known to wait
    bool drained = false;                     // guarded by mutex_; read to its end since the stop began
    bool done = false;                        // guarded by mutex_
    std::uint64_t settled = 0;                // guarded by mutex_; nothing before this position is owed
    std::uint64_t lost = 0;                   // guarded by mutex_; once done: what the cursor had lost, or more than any
                                              // has where it was let go of before its end
    std::uint64_t wanted = 0;                 // guarded by mutex_; the greatest position that a flush waits for
  };
  enum class Sleep : std::uint8_t { awake, until_due, until_any, until_told };

  [[nodiscard]] std::shared_ptr<const Settings> checked(DestinationConfig config, std::uint64_t number) const;

  // The thread's.
  void run() noexcept;
  [[nodiscard]] std::shared_ptr<Reader> next();
  // One batch of one reader. False: the stop leaves no time; the batch went back to the journal.
  [[nodiscard]] bool serve(const std::shared_ptr<Reader>& reader);
  enum class Delivered : std::uint8_t { settled, again, over };
  [[nodiscard]] Delivered deliver(journal::Cursor& cursor, const Settings& settings, journal::Cursor::Outcome& outcome);
  struct Wait {
    std::chrono::nanoseconds time{0};
    bool asked_for = false;     // by the backend: a flush does not cut it short
    std::uint64_t hurried = 0;  // hurry_ and the settings' number as they were before the try
    std::uint64_t settings = 0;
    const HeadersFile* credentials = nullptr;  // a new version of it ends the wait
  };
  // False: the stop leaves no time.
  [[nodiscard]] bool pause(const Wait& wait);
  [[nodiscard]] bool refresh_credentials(const Settings& settings);
  void keep_by_filter(Reader& reader, const Settings& settings);
  void finish(const std::shared_ptr<Reader>& reader);
  void let_go(const std::shared_ptr<Reader>& reader);  // with mutex_ held
  void set_failing(bool failing);
  void note(std::string_view topic, DiagnosticLevel level, const std::string& message);
  [[nodiscard]] std::chrono::steady_clock::time_point now() const;

  // With mutex_ held.
  void sleep(std::unique_lock<std::mutex>& lock);
  void rouse() noexcept;
  void claim();
  void open_cursor(Reader& reader);
  void apply_settings();
  void replace_settings(std::shared_ptr<const Settings> settings);
  [[nodiscard]] bool over() const noexcept;
  [[nodiscard]] bool is_due() const noexcept;
  [[nodiscard]] Deadline due_at() const noexcept;

  [[nodiscard]] bool enough() const noexcept;

  const std::string name_;
  const Signal signal_;
  const std::string title_;  // "traces to NAME", for messages
  Diagnostics& diagnostics_;
  const DestinationHooks hooks_;

  mutable std::mutex mutex_;
  std::condition_variable work_;      // the thread sleeps on it
  std::condition_variable progress_;  // flush and stop wait on it
  std::shared_ptr<const Settings> settings_;
  std::shared_ptr<Sink> sending_;  // while a send is under way
  std::vector<std::shared_ptr<Reader>> readers_;
  std::size_t turn_ = 0;  // of the readers, so that a busy one does not starve the rest
  std::shared_ptr<Reader> serving_;  // by the thread
  bool failing_ = false;
  Counts recovered_;  // by readers that are done
  std::string last_error_;
  std::uint64_t hurry_ = 0;  // flushes and stops, each of which wants a try at once
  bool stopping_ = false;
  bool exited_ = false;
  Deadline stop_deadline_ = Deadline::max();
  std::mutex join_mutex_;

  // What the collector told of and no read has claimed, and since when the oldest of it waits.
  std::atomic<std::uint64_t> waiting_records_{0};
  std::atomic<std::uint64_t> waiting_bytes_{0};
  std::atomic<Deadline> waiting_since_{};
  std::atomic<std::uint64_t> enough_records_{0};  // by the settings: worth sending at once
  std::atomic<std::uint64_t> enough_bytes_{0};
  std::atomic<Sleep> sleep_{Sleep::awake};

  // The thread's own.
  Batch batch_;
  Backoff backoff_;
  std::size_t most_records_ = 0;            // of a batch, since the backend found one too large; 0: it never did
  std::uint64_t most_records_of_ = UINT64_MAX;  // the number of the settings that it was found with
  std::uint64_t claimed_records_ = 0;  // taken out of waiting_records_ for the batch that is being cut
  std::uint64_t claimed_bytes_ = 0;
  Deadline claimed_since_{};
  std::chrono::steady_clock::time_point unsupported_until_{};
  std::uint64_t unsupported_of_ = UINT64_MAX;  // the number of the settings that it was found with
  std::uint64_t taken_of_ = UINT64_MAX;        // the number of the settings with which something was delivered

  std::thread thread_;  // last: it uses everything above
};

class Destination::Flush {
 private:
  friend class Destination;
  struct Target {
    std::shared_ptr<Reader> reader;
    std::uint64_t end;
    std::uint64_t lost;  // before
  };
  std::vector<Target> targets_;
};

}  // namespace waymark::delivery
