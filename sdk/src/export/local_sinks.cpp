// The outputs on this machine: a file of OTLP JSON lines, and the console.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "export/console.h"
#include "export/sink.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark::delivery {
namespace {

std::string error_text(int error) { return std::generic_category().message(error); }

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_ = -1;
};

// Writes that a reader who does not read can't hold up for longer than until abort().
class Writer {
 public:
  Writer() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (wake_.get() < 0) throw Error(ErrorCode::io, "no event descriptor: " + error_text(errno));
  }

  struct Written {
    std::size_t bytes = 0;  // all of them, unless error or aborted
    int error = 0;
    bool aborted = false;
  };

  // `regular`: a file of its own, written in one call where the kernel takes it. Else a pipe or terminal: never more than
  // it has room for.
  Written write(int fd, bool regular, std::string_view text) noexcept {
    Written result;
    while (result.bytes < text.size()) {
      if (aborted_.load()) {
        result.aborted = true;
        return result;
      }
      std::size_t most = text.size() - result.bytes;
      if (!regular) {
        pollfd waits[2] = {{fd, POLLOUT, 0}, {wake_.get(), POLLIN, 0}};
        if (::poll(waits, 2, -1) < 0) {
          if (errno == EINTR) continue;
          result.error = errno;
          return result;
        }
        if (waits[1].revents != 0) continue;
        most = std::min<std::size_t>(most, PIPE_BUF);  // what a pipe that is ready takes without blocking
      }
      const ssize_t n = ::write(fd, text.data() + result.bytes, most);
      if (n >= 0) {
        result.bytes += static_cast<std::size_t>(n);
      } else if (errno != EINTR && errno != EAGAIN) {
        result.error = errno;
        return result;
      }
    }
    return result;
  }

  [[nodiscard]] bool aborted() const noexcept { return aborted_.load(); }
  // Returns true at abort(), false after `milliseconds`.
  [[nodiscard]] bool wait(int milliseconds) noexcept {
    pollfd waits{wake_.get(), POLLIN, 0};
    return ::poll(&waits, 1, milliseconds) > 0 || aborted_.load();
  }

  void abort() noexcept {
    aborted_.store(true);
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(wake_.get(), &one, sizeof one);
  }

 private:
  Descriptor wake_;
  std::atomic<bool> aborted_{false};
};

std::string_view joined(std::string& buffer, std::span<const std::string_view> pieces) {
  buffer.clear();
  for (const auto piece : pieces) buffer.append(piece);
  return buffer;
}

// Held while a line is written, so that a line without an end is never one that a living process is writing. The kernel
// lets it go when its holder dies. A holder that is stopped, or hangs in its disk, is waited for until the writer's abort().
class WriteLock {
 public:
  WriteLock(int fd, Writer& writer) noexcept : fd_(fd) {
    constexpr int kLookMs = 5;  // a line is written in less
    while (!(held_ = ::flock(fd, LOCK_EX | LOCK_NB) == 0)) {
      if (errno == EINTR) continue;
      if (errno != EWOULDBLOCK) return;  // a file system without locks
      if (writer.wait(kLookMs)) return;
    }
  }
  ~WriteLock() {
    if (held_) ::flock(fd_, LOCK_UN);
  }
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;
  [[nodiscard]] bool held() const noexcept { return held_; }

 private:
  int fd_;
  bool held_ = false;
};

// OTLP JSON lines. Whole lines only: what a kill or a full disk left of one is taken back, or ended. Several processes and
// signals may share a file, and rotate it: whoever holds the lock of the file that has the name may write and rename.
class FileSink final : public Sink {
 public:
  explicit FileSink(const DestinationConfig& config)
      : signal_(config.signal), path_(config.path), rotation_(config.rotation) {
    if (path_.empty()) {
      throw Error(ErrorCode::invalid_argument,
                  "destination \"" + config.name + "\": `path` is empty; a file output needs the path of its file");
    }
    const auto parent = std::filesystem::path(path_).parent_path();
    std::error_code error;
    if (!parent.empty()) std::filesystem::create_directories(parent, error);
    if (const int failed = open(); failed != 0) {
      throw Error(ErrorCode::io, "destination \"" + config.name + "\": the file " + path_ + " can't be opened for appending (" +
                                     error_text(failed) + "); name one in a directory that can be written");
    }
  }

  Delivery send(std::span<const std::string_view> pieces) override {
    std::string line;
    try {
      line = request_to_json(signal_, joined(request_, pieces));
    } catch (const Error& error) {
      return {.outcome = Outcome::rejected, .message = error.what()};
    }
    line.push_back('\n');
    std::optional<WriteLock> lock;
    if (const int failed = hold(lock); failed != 0) return later(failed);
    std::string warning;
    // Between the rename and the lock on the new file another sink may have filled that one too.
    for (int i = 0; i < kTries && regular_ && lock->held() && is_full(line.size()); ++i) {
      const int failed = rotate();
      if (failed != 0) {
        if (!std::exchange(rotation_failed_, true)) {
          warning = "the file " + path_ + " can't be rotated (" + error_text(failed) + "); it grows beyond its limit until it can";
        }
        break;
      }
      rotation_failed_ = false;
      lock.reset();
      file_ = Descriptor();
      if (const int closed = hold(lock); closed != 0) return later(closed);
    }
    if (regular_ && !whole(lock->held())) line.insert(line.begin(), '\n');

    struct stat before {};
    ::fstat(file_.get(), &before);
    const Writer::Written written = writer_.write(file_.get(), regular_, line);
    if (written.bytes == line.size()) return {.message = std::move(warning)};
    if (written.bytes > 0) take_back(before.st_size, written.bytes);
    if (written.aborted) return {.aborted = true};
    return later(written.error);
  }
  void abort() noexcept override { writer_.abort(); }

 private:
  // 0, or an errno.
  int open() {
    constexpr int kFlags = O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY;
    constexpr mode_t kReadableByAll = 0644;  // it is the user's output, not the SDK's state
    Descriptor file(::open(path_.c_str(), O_RDWR | kFlags, kReadableByAll));
    if (file.get() < 0) file = Descriptor(::open(path_.c_str(), O_WRONLY | kFlags, kReadableByAll));
    if (file.get() < 0) return errno;
    struct statx status {};
    if (::statx(file.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &status) != 0) return errno;
    regular_ = S_ISREG(status.stx_mode);
    // Where the file system does not keep the time of birth, that of the last line is the nearest.
    const auto& born = (status.stx_mask & STATX_BTIME) != 0 ? status.stx_btime : status.stx_mtime;
    born_ = std::chrono::system_clock::time_point(std::chrono::seconds(born.tv_sec) +
                                                  std::chrono::microseconds(born.tv_nsec / 1000));
    file_ = std::move(file);
    return 0;
  }

  // Opens the file that has the name now, where it is not the one that is open, and locks it. 0, or an errno.
  int hold(std::optional<WriteLock>& lock) {
    for (int i = 0;; ++i) {
      if (moved_away()) file_ = Descriptor();
      if (file_.get() < 0) {
        if (const int failed = open(); failed != 0) return failed;
      }
      if (!regular_) return 0;
      lock.emplace(file_.get(), writer_);
      if (!lock->held() && writer_.aborted()) return ECANCELED;
      if (!moved_away() || i == kTries) return 0;
      lock.reset();
    }
  }

  [[nodiscard]] bool is_full(std::size_t more) const {
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0 || status.st_size == 0) return false;
    if (rotation_.max_bytes != 0 && static_cast<std::size_t>(status.st_size) + more > rotation_.max_bytes) return true;
    return rotation_.max_age.count() > 0 && std::chrono::system_clock::now() - born_ >= rotation_.max_age;
  }

  // Moves PATH to PATH.1, PATH.1 to PATH.2 and so on; the last falls off. 0, or the errno of what failed first: then PATH is
  // where it was. The lock on the open file is held.
  int rotate() const {
    const auto kept = [this](std::size_t number) { return path_ + "." + std::to_string(number); };
    for (std::size_t i = rotation_.files + 1; ::unlink(kept(i).c_str()) == 0; ++i) continue;  // of a larger limit
    if (rotation_.files == 0) return ::unlink(path_.c_str()) == 0 ? 0 : errno;
    std::size_t last = 1;
    while (last < rotation_.files && ::access(kept(last).c_str(), F_OK) == 0) ++last;
    for (; last > 1; --last) {
      if (::rename(kept(last - 1).c_str(), kept(last).c_str()) != 0 && errno != ENOENT) return errno;
    }
    if (::rename(path_.c_str(), kept(1).c_str()) != 0) return errno;
    return moved_away() ? 0 : EEXIST;  // two names of one file: it was renamed to itself
  }

  // Whether the file ends with a line's end. Of ours, one without is taken back where nobody can be writing it; another's
  // stays.
  [[nodiscard]] bool whole(bool locked) const {
    struct stat status {};
    char chunk[4096];
    if (::fstat(file_.get(), &status) != 0 || status.st_size == 0) return true;
    off_t end = status.st_size;
    if (::pread(file_.get(), chunk, 1, end - 1) != 1 || chunk[0] == '\n') return true;
    if (!locked) return false;
    while (end > 0) {
      const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(sizeof chunk));
      const auto size = static_cast<std::size_t>(end - begin);
      if (::pread(file_.get(), chunk, size, begin) != static_cast<ssize_t>(size)) return false;
      const std::size_t line_end = std::string_view(chunk, size).rfind('\n');
      end = line_end == std::string_view::npos ? begin : begin + static_cast<off_t>(line_end) + 1;
      if (line_end != std::string_view::npos) break;
    }
    return is_ours(end) && ::ftruncate(file_.get(), end) == 0;
  }

  // Whether what stands there is the begin of a line that a FileSink writes, or as much of one as there is.
  [[nodiscard]] bool is_ours(off_t begin) const {
    constexpr std::string_view kKeys[] = {R"({"resourceSpans")", R"({"resourceLogs")", R"({"resourceMetrics")"};
    char text[32];
    const ssize_t n = ::pread(file_.get(), text, sizeof text, begin);
    if (n <= 0) return false;
    const std::string_view found(text, static_cast<std::size_t>(n));
    return std::ranges::any_of(kKeys, [&](std::string_view key) { return found.starts_with(key) || key.starts_with(found); });
  }

  // Renamed or deleted, as log rotation does: the next line belongs into a new file.
  [[nodiscard]] bool moved_away() const {
    if (!regular_ || file_.get() < 0) return false;
    struct stat named {};
    struct stat held {};
    if (::fstat(file_.get(), &held) != 0) return true;
    return ::stat(path_.c_str(), &named) != 0 || named.st_ino != held.st_ino || named.st_dev != held.st_dev;
  }

  void take_back(off_t size_before, std::size_t written) {
    struct stat now {};
    const bool ours_is_last = regular_ && ::fstat(file_.get(), &now) == 0 && now.st_size == size_before + static_cast<off_t>(written);
    // Where it can't be, the next line finds it.
    [[maybe_unused]] const bool taken = ours_is_last && ::ftruncate(file_.get(), size_before) == 0;
  }

  Delivery later(int error) const {
    if (error == ECANCELED && writer_.aborted()) return {.aborted = true};
    return {.outcome = Outcome::retry, .message = "the file " + path_ + " can't be written: " + error_text(error)};
  }

  static constexpr int kTries = 100;  // each is lost to another's rotation

  Signal signal_;
  std::string path_;
  RotationConfig rotation_;
  Descriptor file_;
  bool regular_ = true;
  std::chrono::system_clock::time_point born_;  // the open file's birth
  bool rotation_failed_ = false;                // said already
  Writer writer_;
  std::string request_;
};

// OTLP JSON lines to standard output, which is nobody's to truncate, lock or rotate.
class StandardOutputSink final : public Sink {
 public:
  explicit StandardOutputSink(const DestinationConfig& config) : signal_(config.signal) {}

  Delivery send(std::span<const std::string_view> pieces) override {
    std::string line;
    try {
      line = request_to_json(signal_, joined(request_, pieces));
    } catch (const Error& error) {
      return {.outcome = Outcome::rejected, .message = error.what()};
    }
    line.push_back('\n');
    if (torn_) line.insert(line.begin(), '\n');
    struct stat status {};
    const bool regular = ::fstat(STDOUT_FILENO, &status) == 0 && S_ISREG(status.st_mode);
    const Writer::Written written = writer_.write(STDOUT_FILENO, regular, line);
    // What was written of a line can't be taken back; the next one begins on a line of its own.
    if (written.bytes > 0) torn_ = written.bytes < line.size();
    if (written.aborted) return {.aborted = true};
    if (written.error == 0) return {};
    const bool gone = written.error == EPIPE || written.error == EBADF;  // the reader does not come back
    return {.outcome = gone ? Outcome::rejected : Outcome::retry,
            .message = "standard output can't be written: " + error_text(written.error)};
  }
  void abort() noexcept override { writer_.abort(); }

 private:
  Signal signal_;
  bool torn_ = false;
  Writer writer_;
  std::string request_;
};

class ConsoleSink final : public Sink {
 public:
  explicit ConsoleSink(const DestinationConfig& config)
      : fd_(config.path == "stderr" ? STDERR_FILENO : STDOUT_FILENO), color_(config.color) {
    if (config.signal != Signal::logs) {
      throw Error(ErrorCode::invalid_argument, "destination \"" + config.name + "\": `signal` is " +
                                                   std::string(signal_name(config.signal)) + "; the console shows logs only");
    }
    if (!config.path.empty() && config.path != "stdout" && config.path != "stderr") {
      throw Error(ErrorCode::invalid_argument, "destination \"" + config.name + "\": `path` is \"" + config.path +
                                                   "\"; a console output's is \"stdout\" or \"stderr\"");
    }
  }

  Delivery send(std::span<const std::string_view> pieces) override {
    text_.clear();
    try {
      for (const ReadLog& record : read_request(Signal::logs, joined(request_, pieces)).logs) {
        append_console_line(text_, record, color_);
      }
    } catch (const Error& error) {
      return {.outcome = Outcome::rejected, .message = error.what()};
    }
    struct stat status {};
    const bool regular = ::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode);
    const Writer::Written written = writer_.write(fd_, regular, text_);
    if (written.aborted) return {.aborted = true};
    if (written.error == 0) return {};
    // Lines half shown can't be taken back, and showing them again would not help a reader who is gone.
    return {.outcome = Outcome::rejected, .message = "the console can't be written: " + error_text(written.error)};
  }
  void abort() noexcept override { writer_.abort(); }

 private:
  int fd_;
  bool color_;
  Writer writer_;
  std::string request_;
  std::string text_;
};

}  // namespace

std::unique_ptr<Sink> open_file(const DestinationConfig& config) {
  if (config.path == "-") return std::make_unique<StandardOutputSink>(config);
  return std::make_unique<FileSink>(config);
}
std::unique_ptr<Sink> open_console(const DestinationConfig& config) { return std::make_unique<ConsoleSink>(config); }

}  // namespace waymark::delivery
