// The state directory's subdirectories: one for each Telemetry, living or dead, each locked by whoever may touch it.
//
// Hides: names, the identity file, the lock table, and where the memory that belongs to a subdirectory lies.
// Threads: any.
// Failure: create_home() throws Error(state_directory); the others say no.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/thread.h"
#include "journal/journal.h"

namespace waymark::journal {

// What a subdirectory says about the process that made it.
struct Identity {
  std::uint32_t version = 0;
  std::string memory;        // the tmpfs directory, or the subdirectory itself
  std::uint64_t recorder_inode = 0;
  std::string boot;
  std::uint64_t process_id = 0;
  std::uint64_t started_ns = 0;
  std::string service;
  bool hook = false;         // its records pass on_record before they may be stored
  bool closed = false;       // ended cleanly: there is no recorder any more
  bool whole = false;        // as read: nothing of the above was missing from the file
};

// Held while this process owns a subdirectory. An fcntl lock on its file `lock`, which nothing else in the process opens. A
// child of fork does not inherit it: there it is of no effect, and its end neither.
class DirectoryLock {
 public:
  DirectoryLock() = default;
  ~DirectoryLock();
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;
  // Invalid where a living process has it.
  [[nodiscard]] static DirectoryLock take(const std::string& directory);
  [[nodiscard]] bool valid() const noexcept { return !key_.empty() && generation_ == process_generation(); }
  // Whether this process owns it.
  [[nodiscard]] static bool held(const std::string& directory);
  // Whether somebody, this process included, owns it. Does not disturb the owner.
  [[nodiscard]] static bool taken(const std::string& directory);

 private:
  std::string key_;  // device and inode of the lock file
  std::uint32_t generation_ = 0;  // of the process that took it
};

struct OwnedHome {
  Home home;
  DirectoryLock lock;
  DirectoryLock memory_lock;  // of its part on tmpfs: so that it is no orphan where somebody removes the subdirectory
  std::string why_no_tmpfs;   // where its part there was refused; the memory lies in the subdirectory then
  std::string why_no_disk;    // where the disk refused the subdirectory: only its part on tmpfs is there, and restore_home()
                              // makes the rest once the disk has recovered
};
// Makes this Telemetry's own subdirectory, locked before anyone can see it. Throws where it can't be had.
[[nodiscard]] OwnedHome create_home(const std::string& state_directory, RecorderConfig::Place place);
// The disk has refused what belongs into the subdirectory just made: it is removed, and the part on tmpfs goes on alone, as
// where it could not be made. False: it can't, because it has none or the error is not one that passes.
[[nodiscard]] bool leave_disk(OwnedHome& owned, int error, std::string why);
// Makes it anew, under its name, where somebody removed it, with its identity in it from the start: a sibling that saw it
// without one would take it for a process that had recorded nothing. False: errno, and nothing is left.
bool restore_home(OwnedHome& owned, const std::string& state_directory, const Identity& identity, bool synced);
// Where create_home() puts the memory of this subdirectory; empty where there is no tmpfs.
[[nodiscard]] std::string memory_path(const std::string& id);
// `synced`: on the disk, with the names of the subdirectory and of all that it lies in. False: errno.
bool write_identity(const Home& home, const Identity& identity, bool synced = false);
[[nodiscard]] std::optional<Identity> read_identity(const std::string& subdirectory);
[[nodiscard]] bool is_home_name(std::string_view name) noexcept;  // 32 hex digits
inline constexpr const char* kSetAside = "damaged-";  // before the name of one that could not be recovered
[[nodiscard]] std::vector<std::string> list_homes(const std::string& state_directory);

// A subdirectory that has nothing left to send says so in a file, so that nobody reads its journal again.
[[nodiscard]] bool is_delivered(const std::string& subdirectory);
bool mark_delivered(const std::string& subdirectory);
// What it takes; the recorder's memory is not counted where it is freed by whoever recovers it.
[[nodiscard]] std::uint64_t directory_bytes(const std::string& subdirectory, bool with_recorder = false);
// The recorder of a subdirectory, and all of its part on tmpfs where that lies where create_home() puts it: the path comes
// from a file.
void remove_memory(const Home& home);

}  // namespace waymark::journal
