// System calls that fail, wait or lie when a test says so. Including this defines them for the whole program, in place of
// the C library's: one source file of a program may do so.
//
//   CallFaults faults([&](const Call& call) { return call.name == "pwritev" && call.path.starts_with(state) ? ENOSPC : 0; });
//
// Hides: how a call is taken over, and which file a descriptor belongs to.
// Threads: the test's function is called by whichever thread makes the call, several at once.
// Failure: an errno of 0 lets the call through.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <string_view>

namespace waymark::testing {

struct Call {
  std::string_view name;  // as in the C library; posix_fallocate is "fallocate"
  std::string path;       // of the file, also where only a descriptor was given
};

class CallFaults {
 public:
  using Decide = std::function<int(const Call&)>;  // the errno to fail with
  explicit CallFaults(Decide decide) : decide_(std::move(decide)) { current().store(this); }
  ~CallFaults() {
    current().store(nullptr);
    while (inside().load() != 0) sched_yield();
  }
  CallFaults(const CallFaults&) = delete;
  CallFaults& operator=(const CallFaults&) = delete;

  // What statfs says of every file system; 0: the truth.
  static std::atomic<long>& file_system() {
    static std::atomic<long> type{0};
    return type;
  }

  // True: the call fails, and errno is set.
  static bool fails(std::string_view name, const char* path, int descriptor = -1) {
    static thread_local bool asking = false;  // what the test's function does itself is let through
    if (asking || current().load() == nullptr) return false;
    asking = true;
    inside().fetch_add(1);
    int error = 0;
    if (CallFaults* faults = current().load()) {
      Call call{name, path != nullptr ? path : ""};
      char link[64];
      char target[4096];
      if (path == nullptr && descriptor >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        const ssize_t n = ::readlink(link, target, sizeof target);
        if (n > 0) call.path.assign(target, static_cast<std::size_t>(n));
      }
      error = faults->decide_(call);
    }
    inside().fetch_sub(1);
    asking = false;
    if (error != 0) errno = error;
    return error != 0;
  }

 private:
  static std::atomic<CallFaults*>& current() {
    static std::atomic<CallFaults*> faults{nullptr};
    return faults;
  }
  static std::atomic<int>& inside() {
    static std::atomic<int> count{0};
    return count;
  }
  Decide decide_;
};

}  // namespace waymark::testing

extern "C" {

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  if (waymark::testing::CallFaults::fails("open", path)) return -1;
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

ssize_t pwritev(int descriptor, const struct iovec* pieces, int count, off_t offset) {
  if (waymark::testing::CallFaults::fails("pwritev", nullptr, descriptor)) return -1;
  return syscall(SYS_pwritev, descriptor, pieces, count, offset, 0L);
}

ssize_t pread(int descriptor, void* data, size_t bytes, off_t offset) {
  if (waymark::testing::CallFaults::fails("pread", nullptr, descriptor)) return -1;
  return syscall(SYS_pread64, descriptor, data, bytes, offset);
}

int ftruncate(int descriptor, off_t bytes) noexcept {
  if (waymark::testing::CallFaults::fails("ftruncate", nullptr, descriptor)) return -1;
  return static_cast<int>(syscall(SYS_ftruncate, descriptor, bytes));
}

int posix_fallocate(int descriptor, off_t offset, off_t bytes) {
  if (waymark::testing::CallFaults::fails("fallocate", nullptr, descriptor)) return errno;
  return syscall(SYS_fallocate, descriptor, 0, offset, bytes) == 0 ? 0 : errno;
}

int rename(const char* from, const char* to) noexcept {
  if (waymark::testing::CallFaults::fails("rename", to)) return -1;
  return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int unlink(const char* path) noexcept {
  if (waymark::testing::CallFaults::fails("unlink", path)) return -1;
  return static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (waymark::testing::CallFaults::fails("mkdir", path)) return -1;
  return static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

int fdatasync(int descriptor) {
  if (waymark::testing::CallFaults::fails("fdatasync", nullptr, descriptor)) return -1;
  return static_cast<int>(syscall(SYS_fdatasync, descriptor));
}

int fsync(int descriptor) {
  if (waymark::testing::CallFaults::fails("fsync", nullptr, descriptor)) return -1;
  return static_cast<int>(syscall(SYS_fsync, descriptor));
}

int inotify_init1(int flags) noexcept {
  if (waymark::testing::CallFaults::fails("inotify_init1", "")) return -1;
  return static_cast<int>(syscall(SYS_inotify_init1, flags));
}

int inotify_add_watch(int descriptor, const char* path, uint32_t mask) noexcept {
  if (waymark::testing::CallFaults::fails("inotify_add_watch", path)) return -1;
  return static_cast<int>(syscall(SYS_inotify_add_watch, descriptor, path, mask));
}

int statfs(const char* path, struct statfs* out) noexcept {
  if (waymark::testing::CallFaults::fails("statfs", path)) return -1;
  const int result = static_cast<int>(syscall(SYS_statfs, path, out));
  const long type = waymark::testing::CallFaults::file_system().load();
  if (result == 0 && type != 0) out->f_type = type;
  return result;
}

void* mmap(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) noexcept {
  // Not what the program maps for itself: it may hold any lock.
  if (descriptor >= 0 && (flags & MAP_SHARED) != 0 && waymark::testing::CallFaults::fails("mmap", nullptr, descriptor)) {
    return MAP_FAILED;
  }
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, bytes, protection, flags, descriptor, offset));
}

}  // extern "C"
