#include "metric/periodic.h"

#include "base/quiet_thread.h"
#include "base/thread.h"

namespace waymark::metric {

Periodic::Periodic(std::chrono::nanoseconds interval, std::function<void()> collect)
    : interval_(interval), collect_(std::move(collect)) {
  thread_ = quiet_thread([this] { run(); });
}

Periodic::~Periodic() {
  stop(deadline_after({}));
  if (thread_.joinable()) thread_.join();
}

void Periodic::run() {
  begin_own_thread("wm-meter");
  Deadline due = deadline_after(interval_);
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait_until(lock, due, [&] { return stopping_ || asked_ != answered_; });
    const auto now = std::chrono::steady_clock::now();
    const bool stopping = stopping_;
    const std::uint64_t asked = asked_;
    if (!stopping && asked == answered_ && now < due) continue;
    lock.unlock();
    collect_();
    lock.lock();
    answered_ = asked;
    // What was asked for meanwhile begins anew.
    if (stopping && asked_ == asked) break;
    // The rhythm is kept; a collection that took longer than an interval is not made up for.
    if (now >= due) due += interval_;
    if (due <= std::chrono::steady_clock::now()) due = deadline_after(interval_);
    done_.notify_all();
  }
  ended_ = true;
  done_.notify_all();
}

bool Periodic::collect(Deadline deadline) {
  if (is_own_thread()) return false;
  std::unique_lock lock(mutex_);
  if (stopping_) return done_.wait_until(lock, deadline, [&] { return ended_; });
  const std::uint64_t ticket = ++asked_;
  work_.notify_one();
  // One that is on its way may have begun before the call: `answered_` is what was asked when it began.
  return done_.wait_until(lock, deadline, [&] { return answered_ >= ticket || ended_; });
}

bool Periodic::stop(Deadline deadline) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  work_.notify_one();
  if (!done_.wait_until(lock, deadline, [&] { return ended_; })) return false;
  lock.unlock();
  if (thread_.joinable()) thread_.join();
  return true;
}

}  // namespace waymark::metric
