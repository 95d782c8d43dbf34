// A sink for programs that log with spdlog: their records become Waymark's, correlated with the current span.
//
//   spdlog::default_logger()->sinks().push_back(waymark::spdlog_sink());
//
// The record's time, level, text and logger name (as the instrumentation scope) are kept; thread.id is an attribute. The
// sink's pattern has no effect. With an asynchronous spdlog logger the sink runs on spdlog's thread, where the caller's
// span is not current: such records carry no ids.
// A logger named "waymark" is left out. It is the one to use in an error handler (set_error_handler), which would
// otherwise report a failing destination into that destination.
//
// Hides: which Logger stands for which spdlog logger.
// Threads: any number of loggers and threads may share one; records of known loggers take no lock.
// Failure: a record that can't be recorded is counted (telemetry.h: stats). flush() does nothing: what was logged already
//   survives the process.
#pragma once

#include <spdlog/common.h>
#include <spdlog/details/log_msg.h>
#include <spdlog/sinks/sink.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "waymark/log.h"
#include "waymark/telemetry.h"

namespace waymark {

struct SpdlogOptions {
  bool source_location = false;  // code.file.path, code.line.number, code.function.name, where the record has them
};

namespace detail {

class SpdlogSink final : public spdlog::sinks::sink {
 public:
  SpdlogSink(Telemetry& telemetry, const SpdlogOptions& options) : telemetry_(telemetry), options_(options) {}
  ~SpdlogSink() override {
    for (auto& bucket : loggers_) {
      for (const Entry* entry = bucket.load(std::memory_order_acquire); entry;) {
        delete std::exchange(entry, entry->next);
      }
    }
  }
  SpdlogSink(const SpdlogSink&) = delete;
  SpdlogSink& operator=(const SpdlogSink&) = delete;

  void log(const spdlog::details::log_msg& message) override {
    const Severity severity = severity_of(message.level);
    const std::string_view name(message.logger_name.data(), message.logger_name.size());
    if (severity == Severity::unspecified || name == "waymark") return;
    // Recording may call user code (an error handler) that logs again.
    thread_local bool recording = false;
    if (recording) return;
    recording = true;
    const struct Leave {
      ~Leave() { recording = false; }
    } leave;

    const Logger& logger = find(name);
    if (!logger.enabled(severity)) return;
    const auto level = spdlog::level::to_string_view(message.level);
    const bool located = options_.source_location && !message.source.empty();
    const std::array<Attribute, 4> attributes = {{
        {"thread.id", message.thread_id},
        {"code.file.path", located ? message.source.filename : nullptr},
        {"code.line.number", message.source.line},
        {"code.function.name", located ? message.source.funcname : nullptr},
    }};
    const std::size_t count = !located ? 1 : message.source.funcname ? 4 : 3;
    logger.emit({.time = std::chrono::time_point_cast<std::chrono::nanoseconds>(message.time),
                 .severity = severity,
                 .severity_text = {level.data(), level.size()},
                 .body = std::string_view(message.payload.data(), message.payload.size()),
                 .attributes = std::span<const Attribute>(attributes.data(), count)});
  }
  void flush() override {}
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

 private:
  // Loggers are added at the front of a bucket and stay, so that reading takes no lock.
  struct Entry {
    std::string name;
    Logger logger;
    const Entry* next;
  };

  static Severity severity_of(spdlog::level::level_enum level) noexcept {
    switch (level) {
      case spdlog::level::trace: return Severity::trace;
      case spdlog::level::debug: return Severity::debug;
      case spdlog::level::info: return Severity::info;
      case spdlog::level::warn: return Severity::warning;
      case spdlog::level::err: return Severity::error;
      case spdlog::level::critical: return Severity::critical;
      default: return Severity::unspecified;
    }
  }

  const Logger& find(std::string_view name) {
    // Names of a program's loggers differ in their lengths and ends.
    const std::size_t hash = name.empty() ? 0 : name.size() * 31 + static_cast<unsigned char>(name.front()) * 7 + static_cast<unsigned char>(name.back());
    auto& bucket = loggers_[hash % loggers_.size()];
    for (const Entry* entry = bucket.load(std::memory_order_acquire); entry; entry = entry->next) {
      if (entry->name == name) return entry->logger;
    }
    return add(bucket, name);
  }
  const Logger& add(std::atomic<const Entry*>& bucket, std::string_view name) {
    const std::lock_guard lock(adding_);
    const Entry* newest = bucket.load(std::memory_order_relaxed);
    for (const Entry* entry = newest; entry; entry = entry->next) {
      if (entry->name == name) return entry->logger;  // another thread was first
    }
    const auto* entry = new Entry{std::string(name), telemetry_.logger(name), newest};
    bucket.store(entry, std::memory_order_release);
    return entry->logger;
  }

  Telemetry& telemetry_;
  const SpdlogOptions options_;
  std::array<std::atomic<const Entry*>, 64> loggers_{};
  std::mutex adding_;
};

}  // namespace detail

// `telemetry` outlives the sink.
[[nodiscard]] inline std::shared_ptr<spdlog::sinks::sink> spdlog_sink(Telemetry& telemetry = waymark::telemetry(),
                                                                      SpdlogOptions options = {}) {
  return std::make_shared<detail::SpdlogSink>(telemetry, options);
}

}  // namespace waymark
