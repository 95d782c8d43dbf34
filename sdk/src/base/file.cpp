#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "waymark/error.h"

namespace waymark {

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

File File::open(const std::string& path, int flags, unsigned mode) noexcept {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, mode);
  } while (fd < 0 && errno == EINTR);
  File file(fd);
  struct stat s {};
  if (fd >= 0 && (flags & O_CREAT) != 0 && ::fstat(fd, &s) == 0 && (s.st_mode & 0600) != 0600) {
    ::fchmod(fd, (s.st_mode | 0600) & 07777);
  }
  return file;
}

bool File::read_at(std::uint64_t offset, void* data, std::size_t bytes) const noexcept {
  auto* p = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pread(fd_, p, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::size_t>(n);
  }
  return true;
}

bool File::write_at(std::uint64_t offset, const void* data, std::size_t bytes) const noexcept {
  const iovec piece{const_cast<void*>(data), bytes};
  return write_at(offset, &piece, 1);
}

bool File::write_at(std::uint64_t offset, const iovec* pieces, int count) const noexcept {
  iovec left[4];
  if (count > 4) return false;
  std::copy(pieces, pieces + count, left);
  iovec* p = left;
  while (count > 0) {
    const ssize_t n = ::pwritev(fd_, p, count, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    offset += static_cast<std::uint64_t>(n);
    auto done = static_cast<std::size_t>(n);
    while (count > 0 && done >= p->iov_len) {
      done -= p->iov_len;
      ++p;
      --count;
    }
    if (count > 0) {
      p->iov_base = static_cast<char*>(p->iov_base) + done;
      p->iov_len -= done;
    }
  }
  return true;
}

std::uint64_t File::size() const noexcept {
  struct stat s {};
  return fstat(fd_, &s) == 0 && s.st_size > 0 ? static_cast<std::uint64_t>(s.st_size) : 0;
}

bool File::reserve(std::uint64_t bytes) const noexcept {
  // On a thread of the program's, whose file size limit would end it with a signal. One that is pending was ours.
  sigset_t limit;
  sigset_t before;
  sigset_t pending;
  sigemptyset(&limit);
  sigaddset(&limit, SIGXFSZ);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &limit, &before);
  const int error = posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  if (error == EFBIG && !sigismember(&pending, SIGXFSZ) && !sigismember(&before, SIGXFSZ)) {
    const timespec now{};
    sigtimedwait(&limit, nullptr, &now);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return error == 0;
}

bool File::sync_data() const noexcept {
  while (::fdatasync(fd_) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

bool sync_directory(const std::string& path) noexcept {
  const File directory = File::open(path, O_RDONLY | O_DIRECTORY);
  if (!directory.valid()) return false;
  while (::fsync(directory.fd()) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

std::optional<std::string> read_file(const std::string& path, std::size_t limit) {
  const File file = File::open(path, O_RDONLY);
  if (!file.valid()) return std::nullopt;
  std::string out;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(file.fd(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 || out.size() > limit) return std::nullopt;
    if (n == 0) return out;
    out.append(buffer, static_cast<std::size_t>(n));
  }
}

std::optional<std::string> read_named_file(const std::string& path, std::size_t limit) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.valid()) return std::nullopt;
  std::string text;
  for (char chunk[4096];;) {
    const ssize_t n = ::read(file.fd(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;  // close() may set another
      return errno = error, std::nullopt;
    }
    if (n == 0) return text;
    text.append(chunk, static_cast<std::size_t>(n));
    if (text.size() > limit) return errno = EFBIG, std::nullopt;
  }
}

std::string pem_problem(const std::string& path) {
  constexpr std::size_t kMostBytes = 16 << 20;  // a system's whole list of authorities has a quarter of a MiB
  constexpr const char* kAdvice = "; give the path of a file in PEM";
  const auto text = read_named_file(path, kMostBytes);
  if (!text) return "can't be read (" + errno_text(errno) + ")" + kAdvice;
  if (text->find("-----BEGIN ") == std::string::npos) return std::string("holds nothing in PEM") + kAdvice;
  return {};
}

bool replace_file(const std::string& path, std::string_view bytes) noexcept {
  const std::string scratch = path + ".new";
  {
    const File file = File::open(scratch, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.valid() || !file.write_at(0, bytes.data(), bytes.size())) return false;
  }
  return ::rename(scratch.c_str(), path.c_str()) == 0;
}

bool append_file(const std::string& path, std::string_view bytes) noexcept {
  const File file = File::open(path, O_WRONLY | O_CREAT);
  return file.valid() && file.write_at(file.size(), bytes.data(), bytes.size());
}

std::vector<std::string> list_directory(const std::string& path) {
  std::vector<std::string> names;
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return names;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  ::closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

bool remove_tree(const std::string& path) noexcept {
  for (const std::string& name : list_directory(path)) ::unlink((path + "/" + name).c_str());
  return ::rmdir(path.c_str()) == 0;
}

bool make_directory(const std::string& path) noexcept {
  if (::mkdir(path.c_str(), 0700) != 0) return false;
  struct stat s {};
  if (::lstat(path.c_str(), &s) == 0 && (s.st_mode & 0700) != 0700) ::chmod(path.c_str(), 0700);
  return true;
}

std::string distrust(const std::string& path) {
  struct stat s {};
  if (::lstat(path.c_str(), &s) != 0) return errno == ENOENT ? "" : "cannot be looked at: " + errno_text(errno);
  if (!S_ISDIR(s.st_mode)) return "expected a directory, not a link or a file";
  if (s.st_uid != ::geteuid()) {
    return "belongs to user " + std::to_string(s.st_uid) + ", expected the user that runs this program (" +
           std::to_string(::geteuid()) + ")";
  }
  if ((s.st_mode & 022) != 0) {
    char mode[8];
    std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(s.st_mode & 07777));
    return std::string("others may write to it (mode ") + mode + "), expected 0700";
  }
  return {};
}

void make_private_directory(const std::string& path) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    make_directory(path.substr(0, slash));
  }
  const std::string place = "state directory " + path + ": ";
  if (!make_directory(path) && errno != EEXIST) {
    throw Error(ErrorCode::state_directory, place + "cannot be created: " + errno_text(errno) + "; " +
                                                std::string(errno_advice(errno)) +
                                                ", or name another one with the option state_directory or WAYMARK_STATE_DIR");
  }
  if (const std::string why = distrust(path); !why.empty()) {
    throw Error(ErrorCode::state_directory, place + why + "; name another one with the option state_directory or "
                                                          "WAYMARK_STATE_DIR");
  }
  struct statfs fs {};
  if (::statfs(path.c_str(), &fs) != 0) return;
  struct Network {
    std::uint32_t magic;
    const char* name;
  };
  static constexpr Network kNetworks[] = {
      {0x6969, "NFS"},        {0x517B, "SMB"},        {0xFF534D42, "CIFS"},   {0xFE534D42, "SMB2"},
      {0x01021997, "9p"},     {0x5346414F, "AFS"},    {0x6B414653, "AFS"},    {0x00C36400, "Ceph"},
      {0x0BD00BD0, "Lustre"}, {0x47504653, "GPFS"},   {0x19830326, "BeeGFS"}, {0x01161970, "GFS2"},
      {0x7461636F, "OCFS2"},  {0x73757245, "Coda"},   {0x564C, "NCP"},        {0xAAD7AAEA, "PanFS"}};
  for (const Network& n : kNetworks) {
    if (static_cast<std::uint32_t>(fs.f_type) != n.magic) continue;
    throw Error(ErrorCode::state_directory, place + "lies on a network file system (" + n.name +
                                                "), where locks and memory maps can't be trusted; name a local one");
  }
}

std::string boot_id() {
  const auto text = read_file("/proc/sys/kernel/random/boot_id", 128);
  if (!text || text->size() < 36) return "unknown";
  return text->substr(0, 36);
}

std::string errno_text(int error) {
  char buffer[128];
  return strerror_r(error, buffer, sizeof buffer);
}

std::string_view errno_advice(int error) noexcept {
  switch (error) {
    case ENOSPC: return "free some space on its file system";
    case EDQUOT: return "free some of this user's quota, or raise it";
    case EROFS: return "mount its file system writable";
    case EACCES:
    case EPERM: return "let the user that runs this program write there";
    case ENOENT: return "leave the directories of a running program in place";
    case EFBIG: return "raise the limit of file sizes (ulimit -f)";
    case EMFILE:
    case ENFILE: return "raise the limit of open files (ulimit -n)";
    case EIO: return "see what the kernel says about the disk";
    case ENOMEM: return "free some memory";
    default: return "see what is wrong with its file system";
  }
}

NoFileSizeSignal::NoFileSizeSignal() noexcept {
  sigset_t pending;
  sigemptyset(&pending);
  sigpending(&pending);
  pending_before_ = sigismember(&pending, SIGXFSZ) == 1;
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &only, &before_);
}

NoFileSizeSignal::~NoFileSizeSignal() {
  const int error = errno;
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGXFSZ);
  // Ours is taken back before anybody can get it; one that waited before stays.
  const timespec at_once{};
  if (!pending_before_) sigtimedwait(&only, nullptr, &at_once);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  errno = error;
}

}  // namespace waymark
