// read_state_status() and purge_state_directory(): state directories from outside, whoever lives in them.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file.h"
#include "journal/cursors.h"
#include "journal/directory.h"
#include "journal/orphans.h"
#include "journal/layout.h"
#include "journal/recovery.h"
#include "otlp/reader.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark {
namespace {

using Condition = StateProcess::Condition;

constexpr std::string_view kSetAside = journal::kSetAside;
constexpr std::size_t kMaximumError = 4096;

Timestamp at(std::uint64_t nanoseconds) { return Timestamp(std::chrono::nanoseconds(nanoseconds)); }

// A subdirectory by name: one of ours, or one of ours that was set aside.
bool is_ours(std::string_view name) {
  if (name.starts_with(kSetAside)) name.remove_prefix(kSetAside.size());
  return journal::is_home_name(name);
}

std::vector<std::string> subdirectories(const std::string& path) {
  const File there = File::open(path, O_RDONLY | O_DIRECTORY);
  if (!there.valid()) {
    const int error = errno;
    throw Error(ErrorCode::not_found, path + ": expected a state directory: " + errno_text(error));
  }
  std::vector<std::string> names = list_directory(path);
  std::erase_if(names, [](const std::string& name) { return !is_ours(name); });
  return names;
}

journal::Home home_of(const std::string& state, const std::optional<journal::Identity>& identity) {
  journal::Home home;
  home.state = state;
  home.id = state.substr(state.rfind('/') + 1);
  if (home.id.starts_with(kSetAside)) home.id.erase(0, kSetAside.size());
  // The path comes from a file: only where it lies where Waymark puts it.
  const bool sound = identity && identity->memory.ends_with("/" + home.id);
  home.memory = sound ? identity->memory : state;
  return home;
}

bool exists(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) == 0;
}

Timestamp time_of(const journal::Record& record) {
  try {
    if (record.signal == Signal::traces) return otlp::read_span(record.body).end;
    if (record.signal == Signal::logs) return otlp::read_log(record.body).observed;
    return to_timestamp(otlp::metric_time(record.body));
  } catch (const Error&) {
    // It is pending all the same.
  }
  return {};
}

void read_error(const journal::Home& home, std::uint32_t slot, StateDestination& destination) {
  const std::string path = home.state + "/" + journal::error_file_name(slot);
  struct stat s {};
  const auto text = read_file(path, kMaximumError);
  if (!text || ::lstat(path.c_str(), &s) != 0) return;
  destination.last_error = *text;
  destination.last_error_time =
      Timestamp(std::chrono::seconds(s.st_mtim.tv_sec) + std::chrono::nanoseconds(s.st_mtim.tv_nsec));
}

// The destinations' counts, and what they have still to get.
void read_destinations(const journal::Home& home, StateProcess& process) {
  // Cursors first: what is read as pending may have been delivered meanwhile, but nothing is missed.
  const std::string beside = home.memory + "/cursors";
  const auto loaded = home.memory == home.state ? journal::CursorFile::load({beside})
                                                : journal::CursorFile::load({beside, home.state + "/cursors"});
  const bool living = process.condition == Condition::alive;
  bool recovered = false;
  const auto totals = journal::look_at_totals(home, recovered);
  process.unread = process.condition == Condition::dead && !recovered && exists(home.memory + "/recorder");
  Diagnostics quiet(DiagnosticLevel::none);
  const journal::Journal journal(journal::Journal::ReadOnly{}, home, quiet);
  if (!loaded.lost.empty() && !living && process.condition != Condition::delivered) {
    journal.for_each([&](const journal::Record&, std::uint16_t) { process.lost_cursors = true; });
  }
  if (process.lost_cursors) process.problem = loaded.lost + "; nobody knows who has got what";
  if (loaded.cursors.empty()) return;
  if (process.problem.empty() && !living) process.problem = journal.extent().problem;
  std::uint64_t from = UINT64_MAX;
  for (const auto& cursor : loaded.cursors) {
    const auto s = static_cast<std::size_t>(cursor->signal);
    StateDestination d;
    d.name = cursor->name;
    d.signal = cursor->signal;
    d.lossy = cursor->lossy;
    d.counts.delivered = cursor->outcome.delivered;
    d.counts.rejected = cursor->outcome.rejected;
    d.counts.dropped = cursor->outcome.dropped;
    d.counts.filtered = cursor->outcome.filtered;
    if (totals) {
      d.counts.dropped += totals->refused[s] - std::min(totals->refused[s], cursor->base_refused);
      d.counts.filtered += totals->hook_dropped[s] - std::min(totals->hook_dropped[s], cursor->base_hook_dropped);
      d.counts.offered = totals->offered[s] - std::min(totals->offered[s], cursor->base_offered);
    }
    read_error(home, cursor->slot, d);
    process.destinations.push_back(std::move(d));
    from = std::min(from, cursor->position.load(std::memory_order_relaxed));
  }
  journal.walk(from, [&](const journal::Record& record, std::uint16_t, std::uint64_t end) {
    for (std::size_t i = 0; i < loaded.cursors.size(); ++i) {
      StateDestination& d = process.destinations[i];
      if (record.signal != d.signal || end <= loaded.cursors[i]->position.load(std::memory_order_relaxed)) continue;
      if (d.counts.pending == 0) d.oldest_pending = time_of(record);
      ++d.counts.pending;
      d.pending_bytes += record.framed.size();
    }
  });
  // Where nobody can say any more what was offered: what became of it adds up.
  for (StateDestination& d : process.destinations) {
    const Counts& c = d.counts;
    if (!totals) d.counts.offered = c.delivered + c.rejected + c.dropped + c.filtered + c.pending;
  }
}

std::uint64_t bytes_of(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) == 0 ? static_cast<std::uint64_t>(s.st_blocks) * 512 : 0;
}

// `held`: we have its lock ourselves, which is no sign of life.
StateProcess read_process(const std::string& state, bool held = false) {
  StateProcess process;
  process.directory = state.substr(state.rfind('/') + 1);
  const auto identity = journal::read_identity(state);
  const journal::Home home = home_of(state, identity);
  if (process.directory.starts_with(kSetAside)) {
    process.condition = Condition::set_aside;
  } else if (journal::is_delivered(state)) {
    process.condition = Condition::delivered;
  } else if (!held && journal::DirectoryLock::taken(state)) {
    // A process that runs has its recorder; who takes over what another left removes that first.
    bool recovered = false;
    (void)journal::look_at_totals(home, recovered);
    const bool gone = recovered || (identity && identity->closed);
    process.condition = gone ? Condition::recovering : Condition::alive;
  }
  process.journal_bytes = journal::directory_bytes(state);
  if (home.memory != state) process.journal_bytes += journal::directory_bytes(home.memory);
  process.recorder_bytes = bytes_of(home.memory + "/recorder");
  if (!identity) {
    process.problem = "its identity can't be read";
    return process;
  }
  process.process_id = identity->process_id;
  process.service = identity->service;
  process.started = at(identity->started_ns);
  if (!identity->whole && (identity->version == 0 || identity->version == journal::kLayoutVersion)) {
    process.problem = "its identity is empty or was cut short";
    return process;
  }
  if (identity->version != journal::kLayoutVersion) {
    process.problem = "layout " + std::to_string(identity->version) + ", this program reads " +
                      std::to_string(journal::kLayoutVersion);
    return process;
  }
  if (process.condition != Condition::set_aside) read_destinations(home, process);
  return process;
}

// The last time that anything in there was written to.
Timestamp last_change(const journal::Home& home, Timestamp now) {
  // What is stored into mapped memory moves no file's time. A stamp from the future says nothing.
  Timestamp last = at(journal::look_at_last_alive(home));
  if (last > now) last = {};
  for (const std::string& directory : {home.state, home.memory}) {
    for (const std::string& name : list_directory(directory)) {
      struct stat s {};
      if (name == "lock" || ::lstat((directory + "/" + name).c_str(), &s) != 0) continue;  // whoever looked took the lock
      last = std::max(last, Timestamp(std::chrono::seconds(s.st_mtim.tv_sec) + std::chrono::nanoseconds(s.st_mtim.tv_nsec)));
    }
  }
  return last;
}

// Why a subdirectory may not be touched; empty where it may.
std::string foreign(const std::string& state) {
  struct stat s {};
  if (::lstat(state.c_str(), &s) != 0) return errno_text(errno);
  if (S_ISLNK(s.st_mode)) return "it is a link, which is not followed";
  if (!S_ISDIR(s.st_mode)) return "it is no directory";
  if (s.st_uid != ::geteuid()) return "it belongs to another user";
  return {};
}

}  // namespace

StateStatus read_state_status(const std::string& path) {
  StateStatus status;
  status.directory = path;
  for (const std::string& name : subdirectories(path)) {
    const std::string state = path + "/" + name;
    if (!foreign(state).empty()) continue;
    StateProcess process = read_process(state);
    if (exists(state)) status.processes.push_back(std::move(process));  // else removed while it was read
  }
  std::stable_sort(status.processes.begin(), status.processes.end(),
                   [](const StateProcess& a, const StateProcess& b) { return a.started < b.started; });
  return status;
}

Purged purge_state_directory(const std::string& path, const PurgeOptions& options) {
  Purged purged;
  if (!options.only_look) journal::sweep_orphans();
  const Timestamp now = std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
  for (const std::string& name : subdirectories(path)) {
    const std::string state = path + "/" + name;
    StateProcess process;
    if (!options.only.empty() && std::find(options.only.begin(), options.only.end(), name) == options.only.end()) continue;
    process.directory = name;
    const auto keep = [&](std::string why) { purged.kept.push_back({process, std::move(why)}); };
    if (const std::string why = foreign(state); !why.empty()) {
      keep(why);
      continue;
    }
    if (journal::DirectoryLock::taken(state)) {
      process = read_process(state);
      keep(process.condition == Condition::recovering ? "another process delivers it" : "its process is alive");
      continue;
    }
    // Held until it is gone, so that nobody begins to recover it. Where nothing is removed, nothing is touched.
    journal::DirectoryLock lock;
    if (!options.only_look) lock = journal::DirectoryLock::take(state);
    process = read_process(state, lock.valid());
    if (!options.only_look && !lock.valid()) {
      keep("it can't be locked: another process has just taken it over, or it can't be written");
      continue;
    }
    const auto identity = journal::read_identity(state);
    const journal::Home home = home_of(state, identity);
    if (options.older_than.count() > 0 && now - last_change(home, now) < options.older_than) {
      keep("it is not that old");
      continue;
    }
    const bool pending = process.unread || process.lost_cursors || process.condition == Condition::set_aside || !identity ||
                         (!identity->whole && process.condition != Condition::delivered) || std::any_of(process.destinations.begin(), process.destinations.end(),
                                     [](const StateDestination& d) { return d.counts.pending > 0; });
    if (pending && !options.pending) {
      keep("not everything in it has been delivered");
      continue;
    }
    if (!options.only_look) {
      journal::remove_memory(home);
      if (!remove_tree(state)) {
        keep("it can't be removed: " + errno_text(errno));
        continue;
      }
    }
    purged.removed.push_back(std::move(process));
  }
  return purged;
}

}  // namespace waymark
