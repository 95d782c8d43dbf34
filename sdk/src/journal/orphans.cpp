#include "journal/orphans.h"

#include <sys/stat.h>

#include <cerrno>
#include <string_view>

#include "base/file.h"

namespace waymark::journal {
namespace {

// In a memory directory: device and inode of the state directory, and the state subdirectory's path. The same path may lead
// elsewhere in another container, or while a volume is not mounted; the same numbers do not.
constexpr const char* kOwnerFile = "/owner";

// Empty: it can't be seen.
std::string numbers_of(const std::string& directory) {
  struct stat s {};
  if (::stat(directory.c_str(), &s) != 0) return {};
  return std::to_string(s.st_dev) + ":" + std::to_string(s.st_ino);
}

bool is_gone(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) != 0 && errno == ENOENT;
}

std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

void sign_memory(const Home& home) {
  replace_file(home.memory + kOwnerFile, numbers_of(parent_of(home.state)) + "\n" + home.state);
}

DirectoryLock claim_memory(const Home& home) {
  // The lock first: where there is no owner file nothing is swept.
  DirectoryLock lock = DirectoryLock::take(home.memory);
  sign_memory(home);
  return lock;
}

std::size_t sweep_orphans() {
  const std::string root = memory_path("");
  if (root.empty()) return 0;
  std::size_t swept = 0;
  for (const std::string& id : list_homes(root)) {
    const std::string memory = root + id;
    const auto owner = read_file(memory + kOwnerFile, 8192);
    const std::size_t line = owner ? owner->find('\n') : std::string::npos;
    if (line == std::string::npos) continue;
    const std::string state = owner->substr(line + 1);
    // The path comes from a file: it must end as what we wrote does.
    if (!state.starts_with('/') || !state.ends_with("/" + id)) continue;
    const std::string parent = parent_of(state);
    // In this order: what is being set aside is at the one place or at the other.
    const auto orphaned = [&] {
      return !parent.empty() && is_gone(state) && is_gone(parent + "/" + kSetAside + id) &&
             numbers_of(parent) == std::string_view(*owner).substr(0, line);
    };
    if (!orphaned()) continue;
    const DirectoryLock lock = DirectoryLock::take(memory);
    // It may have been made anew while we looked; its owner holds the lock as long as it lives.
    if (lock.valid() && orphaned() && remove_tree(memory)) ++swept;
  }
  return swept;
}

}  // namespace waymark::journal
