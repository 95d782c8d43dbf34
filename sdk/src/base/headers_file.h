// Request headers that stand in a file, so that tokens can be rotated without a restart: `Name: value` a line.
//
// Hides: the file's format, and how a new version of it is noticed.
// Threads: one at a time.
// Failure: the constructor and reload() throw Error(invalid_header | io) naming the path and the line; what was read
//   before stays. No message holds a value. The file's mode is the user's business; what it holds is never stored.
#pragma once

#include <sys/stat.h>

#include <string>

#include "waymark/config.h"

namespace waymark {

class HeadersFile {
 public:
  // Blank lines and lines that begin with # are passed over. At most 64 KiB.
  explicit HeadersFile(std::string path);

  [[nodiscard]] const HeaderList& headers() const noexcept { return headers_; }
  // Whether the file is another one, or was written to, since it was read. A glance: one stat().
  [[nodiscard]] bool touched() const noexcept;
  // Reads it again. True where it says something else now.
  bool reload();

 private:
  // Nanoseconds, size and inode tell a version from the next: rotation replaces the file, or writes it anew.
  struct Stamp {
    struct timespec modified {};
    off_t size = 0;
    ino_t inode = 0;
  };
  [[nodiscard]] static Stamp stamp_of(const struct stat& status) noexcept;

  std::string path_;
  HeaderList headers_;
  Stamp stamp_;
};

// `own`, in which those of `file` take the place of their namesakes (in any case).
[[nodiscard]] HeaderList merged(HeaderList own, const HeaderList& file);
// The value of the header of this name, in any case, or null.
[[nodiscard]] const std::string* find_header(const HeaderList& headers, std::string_view name) noexcept;

}  // namespace waymark
