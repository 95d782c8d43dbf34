#include "journal/directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <mutex>

#include "base/random.h"
#include "journal/orphans.h"
#include "waymark/error.h"

namespace waymark::journal {
namespace {

// The one table of locks: descriptors by lock file.
struct LockTable {
  std::mutex mutex;
  std::map<std::string, File> held;
};
constinit PerProcess<LockTable> table;

std::string key_of(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return {};
  return std::to_string(s.st_dev) + ":" + std::to_string(s.st_ino);
}

constexpr long kTmpfsMagic = 0x01021994;
constexpr const char* kMemoryRoot = "/dev/shm";

std::string memory_root_name() { return std::string(kMemoryRoot) + "/waymark-" + std::to_string(::geteuid()); }

// tmpfs for this user, or empty where there is none, or none that can be trusted: `why` says so.
std::string memory_root(std::string* why = nullptr) {
  struct statfs fs {};
  if (::statfs(kMemoryRoot, &fs) != 0 || static_cast<long>(fs.f_type) != kTmpfsMagic) return {};
  std::string root = memory_root_name();
  const bool made = make_directory(root) || errno == EEXIST;
  const int error = errno;
  std::string problem = made ? distrust(root) : "cannot be created: " + errno_text(error);
  if (problem.empty()) return root;
  if (why != nullptr) *why = root + ": " + problem + "; what would be there lies in the state directory";
  return {};
}

// The subdirectory of this id, under another name until it is locked and, where it has one already, its identity is in it,
// so that no sibling takes it for a dead one's. Throws, with errno kept.
void place_home(OwnedHome& owned, const std::string& state_directory, const Identity* identity, bool synced) {
  make_private_directory(state_directory);
  const std::string scratch = state_directory + "/.new-" + owned.home.id;
  // Where it is made anew, others read these names meanwhile.
  if (owned.home.state.empty()) owned.home.state = state_directory + "/" + owned.home.id;
  const auto refuse = [&](std::string_view what, int error) {
    errno = error;
    throw Error(ErrorCode::state_directory, "state directory " + state_directory + ": " + std::string(what) + ": " +
                                                errno_text(error) + "; " + std::string(errno_advice(error)) +
                                                ", or name another one with WAYMARK_STATE_DIR");
  };
  remove_tree(scratch);  // of a try that failed: nobody else has this name
  if (!make_directory(scratch)) refuse("cannot be written", errno);
  if (identity != nullptr && !write_identity({owned.home.id, scratch, owned.home.memory}, *identity, synced)) {
    const int error = errno;
    remove_tree(scratch);
    refuse("cannot be written", error);
  }
  DirectoryLock lock = DirectoryLock::take(scratch);
  if (!lock.valid() || ::rename(scratch.c_str(), owned.home.state.c_str()) != 0) {
    const int error = errno;
    remove_tree(scratch);
    refuse("cannot lock a file in it", error);
  }
  if (synced) sync_directory(state_directory);
  owned.lock = std::move(lock);
}

// A disk that failed in this way may recover.
bool passes(int error) noexcept { return error == ENOSPC || error == EDQUOT || error == EROFS || error == EIO; }

// The names of a subdirectory, of the state directory, and of those that it may have been made in, which may not be ours to
// open.
bool sync_names(const std::string& subdirectory) {
  const std::size_t above = subdirectory.rfind('/');
  if (!sync_directory(subdirectory) || !sync_directory(subdirectory.substr(0, above))) return false;
  for (std::size_t at = above; (at = subdirectory.rfind('/', at - 1)) != std::string::npos && at > 0;) {
    sync_directory(subdirectory.substr(0, at));
  }
  return true;
}

std::uint64_t to_number(std::string_view text) {
  std::uint64_t v = 0;
  std::from_chars(text.data(), text.data() + text.size(), v);
  return v;
}

}  // namespace

DirectoryLock::~DirectoryLock() {
  if (!valid()) return;
  const std::scoped_lock lock(table->mutex);
  const auto held = table->held.find(key_);
  if (held == table->held.end()) return;
  keep_in_children(held->second.fd());
  table->held.erase(held);
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept
    : key_(std::exchange(other.key_, {})), generation_(other.generation_) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  std::swap(key_, other.key_);
  std::swap(generation_, other.generation_);
  return *this;
}

DirectoryLock DirectoryLock::take(const std::string& directory) {
  const std::string path = directory + "/lock";
  DirectoryLock result;
  LockTable& locks = *table;
  const std::scoped_lock lock(locks.mutex);
  // A second descriptor of a file that we hold would release it when closed: look before opening.
  if (const std::string key = key_of(path); !key.empty() && locks.held.contains(key)) return result;
  File file = File::open(path, O_RDWR | O_CREAT);
  if (!file.valid()) return result;
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(file.fd(), F_SETLK, &whole) != 0) return result;
  result.key_ = key_of(path);
  result.generation_ = process_generation();
  if (result.key_.empty()) return result;
  close_in_children(file.fd());
  locks.held.emplace(result.key_, std::move(file));
  return result;
}

bool DirectoryLock::held(const std::string& directory) {
  LockTable& locks = *table;
  const std::scoped_lock lock(locks.mutex);
  return locks.held.contains(key_of(directory + "/lock"));
}

bool DirectoryLock::taken(const std::string& directory) {
  const std::string path = directory + "/lock";
  LockTable& locks = *table;
  const std::scoped_lock lock(locks.mutex);
  const std::string key = key_of(path);
  if (key.empty()) return false;
  if (locks.held.contains(key)) return true;
  // Read-only: closing it tells those who watch for a writer's end nothing.
  const File file = File::open(path, O_RDONLY);
  if (!file.valid()) return false;
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(file.fd(), F_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

bool is_home_name(std::string_view name) noexcept {
  return name.size() == 32 && std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::vector<std::string> list_homes(const std::string& state_directory) {
  std::vector<std::string> homes = list_directory(state_directory);
  std::erase_if(homes, [](const std::string& name) { return !is_home_name(name); });
  return homes;
}

OwnedHome create_home(const std::string& state_directory, RecorderConfig::Place place) {
  OwnedHome owned;
  owned.home.id = random_hex(16);
  if (state_directory.empty()) return owned;
  try {
    place_home(owned, state_directory, nullptr, false);
  } catch (const Error& e) {
    // Without tmpfs there is no place to wait for it.
    if (!passes(errno) || place != RecorderConfig::Place::tmpfs || memory_root().empty()) throw;
    owned.why_no_disk = e.what();
    owned.home.state = state_directory + "/" + owned.home.id;
  }
  owned.home.memory = owned.home.state;
  if (place == RecorderConfig::Place::tmpfs) {
    const std::string root = memory_root(&owned.why_no_tmpfs);
    const std::string memory = root + "/" + owned.home.id;
    if (!root.empty() && make_directory(memory)) {
      owned.home.memory = memory;
      owned.memory_lock = claim_memory(owned.home);
    }
  }
  if (!owned.why_no_disk.empty() && owned.home.memory == owned.home.state) {
    throw Error(ErrorCode::state_directory, owned.why_no_disk + "; and " + owned.why_no_tmpfs);
  }
  return owned;
}

bool leave_disk(OwnedHome& owned, int error, std::string why) {
  if (!passes(error) || owned.home.memory == owned.home.state) return false;
  owned.why_no_disk = std::move(why);
  remove_tree(owned.home.state);
  owned.lock = {};
  return true;
}

bool restore_home(OwnedHome& owned, const std::string& state_directory, const Identity& identity, bool synced) {
  try {
    place_home(owned, state_directory, &identity, synced);
    if (owned.home.memory != owned.home.state) sign_memory(owned.home);
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::string memory_path(const std::string& id) {
  const std::string root = memory_root();
  return root.empty() ? root : root + "/" + id;
}

bool write_identity(const Home& home, const Identity& identity, bool synced) {
  std::string text;
  const auto line = [&](std::string_view key, std::string_view value) {
    text.append(key).append("=").append(value).append("\n");
  };
  line("version", std::to_string(identity.version));
  line("memory", identity.memory);
  line("recorder_inode", std::to_string(identity.recorder_inode));
  line("boot", identity.boot);
  line("process_id", std::to_string(identity.process_id));
  line("started_ns", std::to_string(identity.started_ns));
  line("hook", identity.hook ? "1" : "0");
  line("closed", identity.closed ? "1" : "0");
  std::string service = identity.service;
  std::replace(service.begin(), service.end(), '\n', ' ');
  line("service", service);
  const std::string path = home.state + "/identity";
  if (!synced) return replace_file(path, text);
  // Its bytes before its name: an empty one would cost the whole subdirectory.
  const File file = File::open(path + ".new", O_WRONLY | O_CREAT | O_TRUNC);
  return file.valid() && file.write_at(0, text.data(), text.size()) && file.sync_data() &&
         ::rename((path + ".new").c_str(), path.c_str()) == 0 && sync_names(home.state);
}

std::optional<Identity> read_identity(const std::string& subdirectory) {
  const auto text = read_file(subdirectory + "/identity", 64 << 10);
  if (!text) return std::nullopt;
  Identity identity;
  bool last = false;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = line.substr(0, equals);
    const std::string_view value = line.substr(equals + 1);
    if (key == "version") identity.version = static_cast<std::uint32_t>(to_number(value));
    else if (key == "memory") identity.memory = value;
    else if (key == "recorder_inode") identity.recorder_inode = to_number(value);
    else if (key == "boot") identity.boot = value;
    else if (key == "process_id") identity.process_id = to_number(value);
    else if (key == "started_ns") identity.started_ns = to_number(value);
    else if (key == "hook") identity.hook = value == "1";
    else if (key == "closed") identity.closed = value == "1", last = true;
    else if (key == "service") identity.service = value;
  }
  identity.whole = identity.version != 0 && last;
  return identity;
}

bool is_delivered(const std::string& subdirectory) { return ::access((subdirectory + "/delivered").c_str(), F_OK) == 0; }
bool mark_delivered(const std::string& subdirectory) { return replace_file(subdirectory + "/delivered", ""); }

std::uint64_t directory_bytes(const std::string& subdirectory, bool with_recorder) {
  std::uint64_t bytes = 0;
  for (const std::string& name : list_directory(subdirectory)) {
    if (name == "recorder" && !with_recorder) continue;
    struct stat s {};
    if (::lstat((subdirectory + "/" + name).c_str(), &s) == 0) bytes += static_cast<std::uint64_t>(s.st_blocks) * 512;
  }
  return bytes;
}

void remove_memory(const Home& home) {
  if (home.memory.empty()) return;
  if (home.memory == home.state) {
    ::unlink((home.memory + "/recorder").c_str());
  } else if (is_home_name(home.id) && home.memory == memory_root_name() + "/" + home.id) {
    remove_tree(home.memory);
  }
}

}  // namespace waymark::journal
