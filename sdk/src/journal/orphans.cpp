#include "journal/orphans.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "base/file.h"

namespace waymark::journal {
namespace {

// In a memory directory: the mount namespace, and the state subdirectory's path in it.
constexpr const char* kOwnerFile = "/owner";

std::string mount_namespace() {
  std::array<char, 64> name{};
  const ssize_t length = ::readlink("/proc/self/ns/mnt", name.data(), name.size());
  return length > 0 ? std::string(name.data(), static_cast<std::size_t>(length)) : "unknown";
}

bool is_gone(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) != 0 && errno == ENOENT;
}

}  // namespace

DirectoryLock claim_memory(const Home& home) {
  // The lock first: where there is no owner file nothing is swept.
  DirectoryLock lock = DirectoryLock::take(home.memory);
  replace_file(home.memory + kOwnerFile, mount_namespace() + "\n" + home.state);
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
    if (!state.starts_with('/') || !state.ends_with("/" + id) || !is_gone(state)) continue;
    const bool ours_to_see = std::string_view(*owner).substr(0, line) == mount_namespace();
    if (!ours_to_see && is_gone(state.substr(0, state.rfind('/')))) continue;
    const DirectoryLock lock = DirectoryLock::take(memory);
    // It may have been made anew while we looked; its owner holds the lock as long as it lives.
    if (lock.valid() && is_gone(state) && remove_tree(memory)) ++swept;
  }
  return swept;
}

}  // namespace waymark::journal
