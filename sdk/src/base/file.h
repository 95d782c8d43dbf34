// Files: an owned descriptor, whole writes and reads, directories that only their owner can enter.
//
// Hides: EINTR, short writes, O_CLOEXEC, and the checks against links and foreign owners.
// Threads: a File is used by one thread at a time, except pread and pwrite.
// Failure: bool or empty with errno kept; open_or_throw and friends throw Error(io | state_directory) naming the path.
#pragma once

#include <signal.h>
#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace waymark {

class File {
 public:
  File() = default;
  explicit File(int descriptor) noexcept : fd_(descriptor) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File();
  // open(2) with O_CLOEXEC and O_NOFOLLOW; invalid on failure, errno set. A file that it creates is the owner's to read and
  // write whatever the umask says.
  [[nodiscard]] static File open(const std::string& path, int flags, unsigned mode = 0600) noexcept;
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  // Everything or false.
  bool read_at(std::uint64_t offset, void* data, std::size_t bytes) const noexcept;
  bool write_at(std::uint64_t offset, const void* data, std::size_t bytes) const noexcept;
  bool write_at(std::uint64_t offset, const iovec* pieces, int count) const noexcept;
  [[nodiscard]] std::uint64_t size() const noexcept;  // 0 on failure
  [[nodiscard]] bool reserve(std::uint64_t bytes) const noexcept;  // posix_fallocate
  [[nodiscard]] bool sync_data() const noexcept;                   // fdatasync: bytes and size are on the disk

 private:
  int fd_ = -1;
};

[[nodiscard]] std::optional<std::string> read_file(const std::string& path, std::size_t limit = 16 << 20);
// A file that the user names, to be read only: links are followed, and what is no file (a FIFO without a writer) is not
// waited for. Nothing, with errno, where it can't be read, or is larger than `limit` (EFBIG).
[[nodiscard]] std::optional<std::string> read_named_file(const std::string& path, std::size_t limit);
// Why a file is no use where one in PEM is asked for, as the end of a sentence about it; empty where it may be.
[[nodiscard]] std::string pem_problem(const std::string& path);
// The names in a directory are on the disk.
bool sync_directory(const std::string& path) noexcept;
// Creates or replaces `path` at once: a reader sees the old bytes or the new ones.
bool replace_file(const std::string& path, std::string_view bytes) noexcept;
bool append_file(const std::string& path, std::string_view bytes) noexcept;
[[nodiscard]] std::vector<std::string> list_directory(const std::string& path);  // names, sorted; without . and ..
bool remove_tree(const std::string& path) noexcept;  // one level of files, then the directory
// mkdir(2) with 0700, whatever the umask says. False: errno.
bool make_directory(const std::string& path) noexcept;
// Why a directory can't be trusted: it is a link, no directory, another user's, or others may write to it. Empty: it can,
// or there is none.
[[nodiscard]] std::string distrust(const std::string& path);
// Makes the directory and its parents (0700). Throws Error(state_directory) where it can't be trusted, or lies on a network
// file system that says so (what FUSE mounts does not).
void make_private_directory(const std::string& path);
[[nodiscard]] std::string boot_id();  // the kernel's; "unknown" where it can't be read
[[nodiscard]] std::string errno_text(int error);
// What somebody can do about a file that can't be written for this reason, as the end of a sentence.
[[nodiscard]] std::string_view errno_advice(int error) noexcept;

// A file beyond the process's limit of file sizes (RLIMIT_FSIZE) raises SIGXFSZ, which ends a program. While one of these
// lives, the calling thread gets EFBIG and no signal. Our own threads block all signals anyway.
class NoFileSizeSignal {
 public:
  NoFileSizeSignal() noexcept;
  ~NoFileSizeSignal();
  NoFileSizeSignal(const NoFileSizeSignal&) = delete;
  NoFileSizeSignal& operator=(const NoFileSizeSignal&) = delete;

 private:
  sigset_t before_;
  bool pending_before_ = false;
};

}  // namespace waymark
