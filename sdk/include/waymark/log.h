// Structured logs. Every record carries the trace and span id of the current span.
//
// Hides: how a record becomes OTLP bytes, and where it goes.
// Threads: a Logger may be used by any thread.
// Failure: everything is noexcept; what can't be recorded is counted.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include "waymark/attribute.h"
#include "waymark/trace.h"

namespace waymark {

// OpenTelemetry's severity numbers.
enum class Severity : std::uint8_t { unspecified = 0, trace = 1, debug = 5, info = 9, warning = 13, error = 17, critical = 21 };

// Everything a record may say, for bridges from other loggers. Times left out are "now".
struct LogRecord {
  Timestamp time = {};
  Severity severity = Severity::unspecified;
  std::string_view severity_text = {};  // empty: the severity's name
  Value body = {};
  Attributes attributes = {};
  std::string_view event_name = {};
  const SpanContext* context = nullptr;  // instead of the current span
};

namespace detail {
struct LoggerState;
struct BoundAttributes;
struct LoggerSwitch {
  std::atomic<std::uint8_t> minimum{255};  // lowest severity that any destination wants; 255 while nothing records
};
}  // namespace detail

class Logger {
 public:
  Logger() noexcept = default;
  explicit Logger(detail::LoggerState* state) noexcept : state_(state) {}

  // A logger that adds these attributes to every record; those of the call win.
  [[nodiscard]] Logger bind(Attributes attributes) const;
  // The same for attributes that nothing overrides: ids that others rely on.
  [[nodiscard]] Logger pin(Attributes attributes) const;

  void debug(std::string_view message, Attributes attributes = {}) const noexcept { log(Severity::debug, message, attributes); }
  void info(std::string_view message, Attributes attributes = {}) const noexcept { log(Severity::info, message, attributes); }
  void warning(std::string_view message, Attributes attributes = {}) const noexcept { log(Severity::warning, message, attributes); }
  void error(std::string_view message, Attributes attributes = {}) const noexcept { log(Severity::error, message, attributes); }
  void critical(std::string_view message, Attributes attributes = {}) const noexcept { log(Severity::critical, message, attributes); }
  // Severity error, with exception.type and exception.message; the call's attributes win ("exception.stacktrace" is theirs).
  void exception(std::string_view message, const std::exception& exception, Attributes attributes = {}) const noexcept;
  void exception(std::string_view message, const std::exception_ptr& exception, Attributes attributes = {}) const noexcept;

  void log(Severity severity, std::string_view message, Attributes attributes = {}) const noexcept;
  void emit(const LogRecord& record) const noexcept;
  // Whether anything would record this severity now. The answer may change.
  [[nodiscard]] bool enabled(Severity severity) const noexcept;

 private:
  detail::LoggerState* state_ = nullptr;
  std::shared_ptr<const detail::BoundAttributes> bound_;
};

// "trace", "debug", "info", "warning", "error", "critical"; empty for other numbers.
[[nodiscard]] std::string_view severity_name(Severity severity) noexcept;

}  // namespace waymark
