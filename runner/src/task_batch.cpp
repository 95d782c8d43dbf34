#include "task_batch.h"

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "waymark/error.h"

namespace waymark {

// ------ FutureTasks

FutureTasks::FutureTasks(std::initializer_list<FutureTasks> sets) {
  for (const FutureTasks& set : sets) add(set);
}

FutureTasks::FutureTasks(const std::vector<FutureTasks>& sets) {
  for (const FutureTasks& set : sets) add(set);
}

FutureTasks& FutureTasks::add(const FutureTasks& other) {
  if (other.empty()) return *this;
  if (!empty() && owner_ != other.owner_) {
    throw Error(ErrorCode::invalid_argument,
                "depends_on: tasks of two different executions or sets: name those of one only");
  }
  owner_ = other.owner_;
  std::vector<Range> all = std::move(ranges_);
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  std::sort(all.begin(), all.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  ranges_.clear();
  for (const Range& range : all) {
    if (!ranges_.empty() && range.first <= ranges_.back().last) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
  return *this;
}

std::size_t FutureTasks::size() const noexcept {
  std::size_t n = 0;
  for (const Range& range : ranges_) n += range.last - range.first;
  return n;
}

FutureTasks FutureTasks::operator[](std::size_t n) const {
  for (const Range& range : ranges_) {
    if (n < range.last - range.first) {
      FutureTasks one;
      one.owner_ = owner_;
      const auto at = static_cast<std::uint32_t>(range.first + n);
      one.ranges_.push_back({at, at + 1});
      return one;
    }
    n -= range.last - range.first;
  }
  throw Error(ErrorCode::invalid_argument, "FutureTasks: an index beyond its " + std::to_string(size()) + " tasks");
}

// ------ TaskSet

TaskSet::TaskSet() : batch_(std::make_unique<detail::TaskBatch>()) {}
TaskSet::~TaskSet() = default;
TaskSet::TaskSet(TaskSet&&) noexcept = default;
TaskSet& TaskSet::operator=(TaskSet&&) noexcept = default;

FutureTasks TaskSet::add(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options) {
  return batch_->add(name, std::move(inputs), options);
}

std::size_t TaskSet::size() const noexcept { return batch_->size(); }

namespace detail {
namespace {

constexpr std::uint32_t kNone = UINT32_MAX;
constexpr std::size_t kMostDisplayed = 1024;  // bytes of a display name

std::uint64_t mixed(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// None where everything is as by default, which is the cheap way.
std::shared_ptr<const TaskSettings> settings_of(const TaskName& name, const SubtaskOptions& options) {
  TaskSettings settings;
  settings.optional = options.optional;
  if (options.backoff) settings.backoff = bounded(*options.backoff);
  settings.timeout = bounded(options.timeout);
  settings.delay = bounded(options.delay);
  settings.not_before = options.not_before;
  settings.limit_key = options.limit_key;
  settings.cluster = options.cluster;
  settings.display = cut_display(options.display);
  check_settings(settings, "options of task " + name.name);
  const bool plain = !settings.optional && !settings.backoff && settings.timeout.count() == 0 &&
                     settings.delay.count() == 0 && settings.not_before == Timestamp{} && settings.limit_key.empty() &&
                     settings.cluster.empty() && settings.display.empty();
  return plain ? nullptr : std::make_shared<const TaskSettings>(std::move(settings));
}

}  // namespace

std::string new_job_id() {
  TraceId id = TraceId::random();
  const auto ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  for (std::size_t i = 0; i < 6; ++i) id.bytes[i] = static_cast<std::uint8_t>(ms >> (40 - 8 * i));
  id.bytes[6] = static_cast<std::uint8_t>((id.bytes[6] & 0x0f) | 0x70);
  id.bytes[8] = static_cast<std::uint8_t>((id.bytes[8] & 0x3f) | 0x80);
  const std::string hex = id.hex();
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" + hex.substr(16, 4) + "-" +
         hex.substr(20);
}

void check_backoff(const RetryConfig& backoff, const std::string& where) {
  if (backoff.initial.count() >= 0 && backoff.maximum >= backoff.initial && backoff.multiplier >= 1 &&
      backoff.jitter >= 0 && backoff.jitter <= 1) {
    return;
  }
  throw Error(ErrorCode::invalid_argument,
              where + ": expected 0 <= initial <= maximum, a multiplier of at least 1, and a jitter of 0 to 1");
}

void check_settings(const TaskSettings& settings, const std::string& where) {
  constexpr std::size_t kLongestKey = 256;
  const auto refuse = [&](const char* what) { throw Error(ErrorCode::invalid_argument, where + ": " + what); };
  if (settings.timeout.count() < 0) refuse("timeout: expected 0 or more");
  if (settings.delay.count() < 0) refuse("delay: expected 0 or more");
  if (settings.limit_key.size() > kLongestKey || settings.limit_key == "*") {
    refuse("limit_key: expected at most 256 bytes, and not \"*\"");
  }
  if (settings.backoff) check_backoff(*settings.backoff, where + ": backoff");
  if (settings.display.size() > kMostDisplayed) refuse("display: expected at most 1,024 bytes");
}

std::string cut_display(std::string_view text) {
  if (text.size() <= kMostDisplayed) return std::string(text);
  std::size_t end = kMostDisplayed;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not within a character
  return std::string(text.substr(0, end));
}

TaskBatch::TaskBatch() {
  static std::atomic<std::uint64_t> batches{0};
  owner_ = ++batches;
}

FutureTasks TaskBatch::add(const TaskName& name, std::vector<std::string> inputs, const SubtaskOptions& options) {
  std::shared_ptr<const TaskSettings> settings = settings_of(name, options);
  std::uint32_t dependency = kNone;
  if (!options.depends_on.empty()) {
    if (options.depends_on.owner_ != owner_) {
      throw Error(ErrorCode::invalid_argument, "depends_on of task " + name.name +
                                                   ": names tasks of another execution or set: a task can wait only "
                                                   "for those that are submitted together with it");
    }
    std::vector<std::pair<std::uint32_t, std::uint32_t>> key;
    for (const auto& range : options.depends_on.ranges_) key.emplace_back(range.first, range.last);
    const auto [it, is_new] =
        dependency_index_.try_emplace(std::move(key), static_cast<std::uint32_t>(dependencies_.size()));
    if (is_new) dependencies_.push_back(options.depends_on.ranges_);
    dependency = it->second;
  }
  FutureTasks future;
  future.owner_ = owner_;
  const auto first = static_cast<std::uint32_t>(tasks_.size());
  for (std::string& input : inputs) {
    NewTask task;
    task.name = name;
    task.input = std::move(input);
    task.priority = options.priority;
    task.max_retries = options.max_retries;
    task.settings = settings;
    tasks_.push_back(std::move(task));
    dependency_of_.push_back(dependency);
  }
  if (!inputs.empty()) future.ranges_.push_back({first, static_cast<std::uint32_t>(tasks_.size())});
  return future;
}

// Tasks that the same dependency sets name become one group, so that "100 tasks, then 100 tasks" needs one group and
// 100 references instead of 10,000. Which sets name a task is told by the sum of a random number for each.
NewTasks TaskBatch::take() {
  NewTasks batch;
  batch.tasks = std::move(tasks_);
  if (dependencies_.empty()) return batch;
  std::vector<std::uint64_t> sums(batch.tasks.size() + 1);
  for (std::size_t set = 0; set < dependencies_.size(); ++set) {
    for (const auto& range : dependencies_[set]) {
      sums[range.first] += mixed(set);
      sums[range.last] -= mixed(set);
    }
  }
  std::unordered_map<std::uint64_t, std::uint32_t> groups;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < batch.tasks.size(); ++i) {
    sum += sums[i];
    if (sum == 0) continue;
    const auto [it, is_new] = groups.try_emplace(sum, static_cast<std::uint32_t>(batch.group_sizes.size()));
    if (is_new) batch.group_sizes.push_back(0);
    ++batch.group_sizes[it->second];
    batch.tasks[i].group = it->second;
  }
  std::vector<std::vector<std::uint32_t>> groups_of(dependencies_.size());
  std::vector<std::uint32_t> sizes(dependencies_.size());
  std::vector<std::size_t> seen(batch.group_sizes.size(), SIZE_MAX);
  for (std::size_t set = 0; set < dependencies_.size(); ++set) {
    for (const auto& range : dependencies_[set]) {
      sizes[set] += range.last - range.first;
      for (std::uint32_t i = range.first; i < range.last; ++i) {
        const std::uint32_t group = batch.tasks[i].group;
        if (std::exchange(seen[group], set) != set) groups_of[set].push_back(group);
      }
    }
  }
  for (std::size_t i = 0; i < batch.tasks.size(); ++i) {
    if (dependency_of_[i] == kNone) continue;
    batch.tasks[i].after = groups_of[dependency_of_[i]];
    batch.tasks[i].dependencies = sizes[dependency_of_[i]];
  }
  return batch;
}

}  // namespace detail
}  // namespace waymark
