// Recovery: what a dead process left behind becomes a journal that can be delivered.
//
// Hides: how the recorder of another process is read without trusting it, and what makes doing it twice harmless.
// Threads: any; a directory is recovered by whoever holds its lock.
// Failure: never throws for what it reads. Damage is counted, named, and left behind.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "journal/directory.h"
#include "journal/hook.h"
#include "journal/journal.h"

namespace waymark::journal {

struct RecoveredJournal {
  Home home;
  DirectoryLock lock;
  std::unique_ptr<Journal> journal;
  Recovered found;
  bool fresh = false;  // its recorder was read now, so `found` is news
};

// Takes a dead process's subdirectory over: finished records that were in its lanes and spans that were open are appended
// to its journal. `report` hears of it before that is made final, so that it is told at least once. Null: it is alive,
// already delivered, or was set aside; `problem` says the last of these.
[[nodiscard]] std::unique_ptr<RecoveredJournal> recover_directory(const std::string& state_directory, const std::string& id,
                                                                 const JournalConfig& config, Hook& hook,
                                                                 Diagnostics& diagnostics,
                                                                 const std::function<void(const Recovered&)>& report);
// Keeps what happened before the journal, for whoever delivers the rest when the recorder is gone.
bool store_totals(const Home& home, const Totals& totals);
// The same from outside, of anyone's, living or dead; what is still in the rings is not in it. Nothing where it can't be
// known. `recovered`: the recorder is in the journal.
[[nodiscard]] std::optional<Totals> look_at_totals(const Home& home, bool& recovered);
// When the process was last known alive, as a recorder that nobody has read yet says, in nanoseconds; 0: nothing says so.
[[nodiscard]] std::uint64_t look_at_last_alive(const Home& home);
// Everything has been delivered: keeps what `keep_bytes` allows, frees the rest and the memory. False: it is not finished,
// and is somebody's to finish once the disk can be written; or nobody knows to whom it was delivered (cursors_missing).
bool finish_recovered(RecoveredJournal& recovered);
// Dead processes' subdirectories to be recovered ahead of everything else, by name: those during whose recovery a process has
// died more than once, and the oldest ones whose recorders take more than `recorder_bytes` together.
[[nodiscard]] std::vector<std::string> urgent_homes(const std::string& state_directory, std::uint64_t recorder_bytes);
// Removes the oldest dead subdirectories, set aside ones included, beyond `max_bytes` in all, and says how many records that
// cost. `ours` are those that this process has open, by their names: they count, and stay. Returns by how many bytes that is
// still too much.
std::uint64_t trim_dead(const std::string& state_directory, std::uint64_t max_bytes, const std::set<std::string>& ours,
                        Diagnostics& diagnostics);

// Tells when a sibling in the state directory may have died, without looking again and again: a process's end closes its
// lock file, and the kernel tells those who watch it.
class SiblingWatch {
 public:
  SiblingWatch(std::string state_directory, std::function<void()> died, Diagnostics& diagnostics);
  ~SiblingWatch();
  // Calls `died` soon, on its thread, whoever has died or not.
  void look() noexcept;

 private:
  void run();
  void watch_homes();
  std::string directory_;
  std::function<void()> died_;
  Diagnostics& diagnostics_;
  File inotify_;
  File stop_;
  File look_;
  bool blind_ = false;  // the kernel does not tell of everything; the thread's own, once there is one
  std::thread thread_;
};

}  // namespace waymark::journal
