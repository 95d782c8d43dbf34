// What the SDK has to say about itself: a handler of the user's, or one line on standard error.
//
// Hides: the level, the handler, and the rate limit of what could be said a thousand times a second.
// Threads: any. The handler may be called by several threads at once.
// Failure: none. A handler that throws is ignored; one that makes the SDK speak again is not called for that.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "waymark/config.h"

namespace waymark {

// While it lives, what this thread says is kept back, and said at its end: a handler may ask for stats() or a logger, and would
// wait for the locks that this thread holds. Make it before they are taken, so that it ends after them.
class HeldMessages {
 public:
  HeldMessages() noexcept;
  ~HeldMessages();
  HeldMessages(const HeldMessages&) = delete;
  HeldMessages& operator=(const HeldMessages&) = delete;

 private:
  friend class Diagnostics;
  struct Message {
    class Diagnostics* diagnostics;
    DiagnosticLevel level;
    std::string text;
  };
  HeldMessages* const outer_;  // speaks for us, where there is one
  std::vector<Message> messages_;
};

class Diagnostics {
 public:
  // A message said through say_limited() is said again at most this often.
  static constexpr std::chrono::minutes kQuiet{1};

  explicit Diagnostics(DiagnosticLevel level = DiagnosticLevel::info, ErrorHandler handler = {});

  // One line, no secrets: it may end up in anybody's log. Line ends and other control characters become spaces.
  void say(DiagnosticLevel level, std::string_view message) noexcept;
  // The first message of this key only.
  void say_once(std::string_view key, DiagnosticLevel level, std::string_view message) noexcept;
  // The first message of this key, then at most one a minute, which tells how many were left out.
  void say_limited(std::string_view key, DiagnosticLevel level, std::string_view message) noexcept;

  void set_handler(ErrorHandler handler);
  void set_level(DiagnosticLevel level) noexcept;

 private:
  struct Said {
    std::chrono::steady_clock::time_point when;
    std::uint64_t left_out = 0;
  };

  std::mutex mutex_;  // held for a moment, never while the handler runs
  DiagnosticLevel level_;
  std::shared_ptr<const ErrorHandler> handler_;
  std::map<std::string, Said, std::less<>> said_;  // keys are few: the SDK's own words and destination names
};

}  // namespace waymark
