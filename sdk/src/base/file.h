// Files: an owned descriptor, whole writes and reads, directories that only their owner can enter.
//
// Hides: EINTR, short writes, O_CLOEXEC, and the checks against links and foreign owners.
// Threads: a File is used by one thread at a time, except pread and pwrite.
// Failure: bool or empty with errno kept; open_or_throw and friends throw Error(io | state_directory) naming the path.
#pragma once

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
  // open(2) with O_CLOEXEC and O_NOFOLLOW; invalid on failure, errno set.
  [[nodiscard]] static File open(const std::string& path, int flags, unsigned mode = 0600) noexcept;
  [[nodiscard]] static File memory(const char* name) noexcept;  // memfd
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  // Everything or false.
  bool read_at(std::uint64_t offset, void* data, std::size_t bytes) const noexcept;
  bool write_at(std::uint64_t offset, const void* data, std::size_t bytes) const noexcept;
  bool write_at(std::uint64_t offset, const iovec* pieces, int count) const noexcept;
  [[nodiscard]] std::uint64_t size() const noexcept;  // 0 on failure
  [[nodiscard]] bool reserve(std::uint64_t bytes) const noexcept;  // posix_fallocate

 private:
  int fd_ = -1;
};

[[nodiscard]] std::optional<std::string> read_file(const std::string& path, std::size_t limit = 16 << 20);
// Creates or replaces `path` at once: a reader sees the old bytes or the new ones.
bool replace_file(const std::string& path, std::string_view bytes) noexcept;
bool append_file(const std::string& path, std::string_view bytes) noexcept;
// Copies a file's bytes to a new file beside it and renames it into place. False: nothing is left at `to`.
bool copy_file(const std::string& from, const std::string& to) noexcept;
[[nodiscard]] std::vector<std::string> list_directory(const std::string& path);  // names, sorted; without . and ..
bool remove_tree(const std::string& path) noexcept;  // one level of files, then the directory
// Makes the directory and its parents (0700). Throws Error(state_directory) where it is not ours, is a link, or lies on
// a network file system.
void make_private_directory(const std::string& path);
[[nodiscard]] std::string boot_id();  // the kernel's; "unknown" where it can't be read
[[nodiscard]] std::string errno_text(int error);

}  // namespace waymark
