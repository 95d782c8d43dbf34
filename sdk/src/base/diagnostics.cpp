#include "base/diagnostics.h"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "base/thread.h"

namespace waymark {
namespace {

thread_local bool speaking = false;
constinit thread_local HeldMessages* held = nullptr;  // the innermost

std::string_view level_name(DiagnosticLevel level) noexcept {
  switch (level) {
    case DiagnosticLevel::error: return "error";
    case DiagnosticLevel::warning: return "warning";
    case DiagnosticLevel::info: return "info";
    case DiagnosticLevel::debug: return "debug";
    case DiagnosticLevel::none: break;
  }
  return "";
}

std::string one_line(std::string_view message) {
  std::string line(message);
  std::replace_if(line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return line;
}

// A whole line in one write, so that lines of several threads do not mix. What standard error does not take is lost.
void write_line(DiagnosticLevel level, std::string_view message) {
  std::string line = "waymark: ";
  line.append(level_name(level)).append(": ").append(message).append("\n");
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

Diagnostics::Diagnostics(DiagnosticLevel level, ErrorHandler handler) : level_(level) { set_handler(std::move(handler)); }

void Diagnostics::set_handler(ErrorHandler handler) {
  auto shared = handler ? std::make_shared<const ErrorHandler>(std::move(handler)) : nullptr;
  const std::lock_guard lock(mutex_);
  handler_ = std::move(shared);
}

void Diagnostics::set_level(DiagnosticLevel level) noexcept {
  const std::lock_guard lock(mutex_);
  level_ = level;
}

HeldMessages::HeldMessages() noexcept : outer_(std::exchange(held, this)) {}

HeldMessages::~HeldMessages() {
  held = outer_;
  for (const Message& message : messages_) message.diagnostics->say(message.level, message.text);
}

void Diagnostics::say(DiagnosticLevel level, std::string_view message) noexcept {
  if (speaking || level == DiagnosticLevel::none) return;
  if (held != nullptr) {
    try {
      held->messages_.push_back({this, level, std::string(message)});
    } catch (...) {
      // No memory to keep it: it is lost, rather than said where nobody may speak.
    }
    return;
  }
  speaking = true;
  try {
    std::shared_ptr<const ErrorHandler> handler;
    bool wanted = false;
    {
      const std::lock_guard lock(mutex_);
      wanted = level <= level_;
      handler = handler_;
    }
    if (wanted) {
      const std::string line = one_line(message);
      if (handler) {
        const ProgramCode code;
        (*handler)(level, line);
      } else {
        write_line(level, line);
      }
    }
  } catch (...) {
    // A handler's failure is nobody's to hear.
  }
  speaking = false;
}

void Diagnostics::say_once(std::string_view key, DiagnosticLevel level, std::string_view message) noexcept {
  try {
    {
      const std::lock_guard lock(mutex_);
      if (!said_.try_emplace(std::string(key), Said{std::chrono::steady_clock::now(), 0}).second) return;
    }
    say(level, message);
  } catch (...) {
    // No memory for the key: better said twice than never.
    say(level, message);
  }
}

void Diagnostics::say_limited(std::string_view key, DiagnosticLevel level, std::string_view message) noexcept {
  try {
    const auto now = std::chrono::steady_clock::now();
    std::uint64_t left_out = 0;
    {
      const std::lock_guard lock(mutex_);
      const auto [entry, first] = said_.try_emplace(std::string(key), Said{now, 0});
      if (!first) {
        Said& said = entry->second;
        if (now - said.when < kQuiet) {
          ++said.left_out;
          return;
        }
        left_out = said.left_out;
        said = Said{now, 0};
      }
    }
    if (left_out == 0) {
      say(level, message);
    } else {
      say(level, std::string(message) + " (and " + std::to_string(left_out) + " more like this since it was last said)");
    }
  } catch (...) {
    say(level, message);
  }
}

}  // namespace waymark
