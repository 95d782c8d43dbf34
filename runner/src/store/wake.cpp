#include "store/wake.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "store/database.h"
#include "waymark/propagation.h"

namespace waymark::store {
namespace {

constexpr std::size_t kLongestPath = sizeof(sockaddr_un::sun_path) - 1;
constexpr std::size_t kNameLength = 17;  // "/" and 16 hexadecimal digits
constexpr int kShortestPoll = 50;        // milliseconds
constexpr int kLongestPoll = 250;
// A directory's mtime has the resolution of the kernel's tick: within it, two changes look like one.
constexpr std::int64_t kTick = 20'000'000;

std::uint64_t fnv1a(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::int64_t realtime() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

sockaddr_un address(const std::string& path) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::memcpy(a.sun_path, path.data(), std::min(path.size(), kLongestPath));
  return a;
}

// Ours alone: others could otherwise wait in our name, or see who is there.
bool own_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) return true;
  struct stat s{};
  return errno == EEXIST && lstat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode) && access(path.c_str(), W_OK) == 0;
}

// Stores in memory that are the same one: only this process can have it, so they call each other.
struct Neighbours {
  std::mutex mutex;
  std::multimap<std::string, Wake*> by_file;
};
Neighbours& neighbours() {
  static Neighbours n;
  return n;
}

}  // namespace

std::string Wake::socket_directory(const std::string& file) {
  if (in_memory(file)) return {};
  std::string beside = file + ".wake";
  if (beside.size() + kNameLength <= kLongestPath) return beside;
  char name[64];
  std::snprintf(name, sizeof name, "/waymark-%u-%016llx", static_cast<unsigned>(getuid()),
                static_cast<unsigned long long>(fnv1a(file)));
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  std::string shorter = (runtime && *runtime == '/' ? std::string(runtime) : std::string("/tmp")) + name;
  if (shorter.size() + kNameLength > kLongestPath) shorter = std::string("/tmp") + name;
  return shorter;
}

Wake::Wake(const std::string& file, std::function<std::int64_t()> version)
    : directory_(socket_directory(file)), version_(std::move(version)) {
  if (!directory_.empty()) return;
  memory_ = file;
  const std::scoped_lock lock(neighbours().mutex);
  neighbours().by_file.emplace(memory_, this);
}

Wake::~Wake() {
  if (!memory_.empty()) {
    const std::scoped_lock lock(neighbours().mutex);
    std::erase_if(neighbours().by_file, [&](const auto& entry) { return entry.second == this; });
  }
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(stop_fd_, &one, sizeof one);
    thread_.join();
  }
  if (stop_fd_ >= 0) close(stop_fd_);
  if (socket_ >= 0) {
    unlink(socket_path_.c_str());
    close(socket_);
    rmdir(directory_.c_str());  // stays while others are in it
  }
  if (send_socket_ >= 0) close(send_socket_);
}

std::shared_ptr<void> Wake::watch(std::function<void()> changed) {
  auto watcher = std::make_shared<Watcher>(Watcher{std::move(changed)});
  const std::scoped_lock lock(watchers_mutex_);
  if (!started_ && memory_.empty()) start();
  watchers_.push_back(watcher);
  // Whoever lets go of it waits for calls that are under way.
  return {watcher.get(), [this, watcher](void*) mutable {
            const std::scoped_lock inner(watchers_mutex_);
            watcher->changed = nullptr;
            std::erase_if(watchers_, [&](const auto& w) { return w.lock() == watcher; });
          }};
}

void Wake::start() {
  started_ = true;
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  if (own_directory(directory_)) {
    // A sibling's destructor may remove the directory between the two calls: once more, then.
    for (int tries = 0; tries < 3 && socket_ < 0; ++tries) {
      const int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      const std::string path = directory_ + "/" + SpanId::random().hex();
      const sockaddr_un a = address(path);
      if (s >= 0 && bind(s, reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0) {
        socket_ = s;
        const std::scoped_lock lock(peers_mutex_);
        socket_path_ = path;
      } else {
        if (s >= 0) close(s);
        own_directory(directory_);
      }
    }
  }
  thread_ = std::thread([this] { listen(); });
}

void Wake::listen() {
  pthread_setname_np(pthread_self(), "wm-store-wake");
  std::int64_t version = version_();
  int wait = kShortestPoll;
  for (;;) {
    pollfd fds[2] = {{stop_fd_, POLLIN, 0}, {socket_, POLLIN, 0}};
    const int ready = poll(fds, 2, wait);
    if (fds[0].revents) return;
    bool changed = false;
    if (ready > 0 && fds[1].revents) {
      char byte[8];
      while (recv(socket_, byte, sizeof byte, 0) > 0) {
      }
      changed = true;
    }
    const std::int64_t now = version_();
    changed |= now != version;
    version = now;
    wait = changed ? kShortestPoll : std::min(wait * 2, kLongestPoll);
    if (changed) call_watchers();
  }
}

void Wake::call_watchers() {
  const std::scoped_lock lock(watchers_mutex_);
  for (const auto& weak : watchers_) {
    const auto watcher = weak.lock();
    if (watcher && watcher->changed) watcher->changed();
  }
}

void Wake::notify() {
  if (!memory_.empty()) {
    const std::scoped_lock lock(neighbours().mutex);
    const auto [first, last] = neighbours().by_file.equal_range(memory_);
    for (auto it = first; it != last; ++it) it->second->call_watchers();
    return;
  }
  call_watchers();
  tell_other_processes();
}

void Wake::tell_other_processes() {
  const std::scoped_lock lock(peers_mutex_);
  struct stat s{};
  if (stat(directory_.c_str(), &s) != 0) return;  // nobody waits
  const std::int64_t now = realtime();
  const std::int64_t changed = s.st_mtim.tv_sec * 1'000'000'000 + s.st_mtim.tv_nsec;
  const bool same = s.st_mtim.tv_sec == listed_.tv_sec && s.st_mtim.tv_nsec == listed_.tv_nsec;
  if (!same || listed_at_ - changed < kTick) {
    peers_.clear();
    if (DIR* directory = opendir(directory_.c_str())) {
      while (const dirent* entry = readdir(directory)) {
        if (entry->d_name[0] != '.') peers_.push_back(directory_ + "/" + entry->d_name);
      }
      closedir(directory);
    }
    listed_ = s.st_mtim;
    listed_at_ = now;
  }
  if (peers_.empty()) return;
  if (send_socket_ < 0) send_socket_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  for (const std::string& peer : peers_) {
    if (peer == socket_path_) continue;  // watchers here have been called
    const sockaddr_un a = address(peer);
    // A full queue (EAGAIN) is a process that has news to read already. A refusal is one that has died.
    if (sendto(send_socket_, "!", 1, MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&a), sizeof a) < 0 &&
        errno == ECONNREFUSED) {
      unlink(peer.c_str());
    }
  }
}

}  // namespace waymark::store
