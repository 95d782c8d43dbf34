#include "worker_frames.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <type_traits>
#include <utility>

#include "task_batch.h"
#include "waymark/error.h"

namespace waymark::detail {
namespace {

// A header: magic, kind, length of the fields, check. Both ends are the same program on the same machine: numbers lie as
// they do in memory.
constexpr std::uint32_t kMagic = 0x314b4d57;  // "WMK1"
constexpr std::size_t kChecked = sizeof kMagic + 1 + sizeof(std::uint64_t);
constexpr std::size_t kHeader = kChecked + sizeof(std::uint32_t);
constexpr std::uint64_t kLongest = std::uint64_t{1} << 31;

[[noreturn]] void refuse(const char* what) {
  throw Error(ErrorCode::corrupt, std::string("a worker process's channel: ") + what);
}

std::uint32_t check_of(std::string_view bytes) {
  std::uint32_t hash = 0x811c9dc5;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
  return hash;
}

// ------ both directions: fields() lists what a message consists of, once

class Writer {
 public:
  static constexpr bool kReads = false;
  explicit Writer(std::string& out) : out_(out) {}

  template <class T>
    requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void one(const T& value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out_.append(bytes, sizeof bytes);
  }
  void one(const std::string& text) {
    one(static_cast<std::uint64_t>(text.size()));
    out_ += text;
  }
  template <std::size_t N>
  void one(const std::array<std::uint8_t, N>& bytes) {
    out_.append(reinterpret_cast<const char*>(bytes.data()), N);
  }

 private:
  std::string& out_;
};

class Reader {
 public:
  static constexpr bool kReads = true;
  explicit Reader(std::string_view in) : in_(in) {}

  template <class T>
    requires std::is_arithmetic_v<T>
  void one(T& value) {
    const std::string_view bytes = take(sizeof value);
    if constexpr (std::is_same_v<T, bool>) {
      if (static_cast<unsigned char>(bytes[0]) > 1) refuse("a yes or no that is neither");
      value = bytes[0] != 0;
    } else {
      std::memcpy(&value, bytes.data(), sizeof value);
    }
  }
  void one(TaskResult& value) {
    const auto n = static_cast<unsigned char>(take(1)[0]);
    if (n > static_cast<unsigned char>(TaskResult::released)) refuse("an unknown result");
    value = static_cast<TaskResult>(n);
  }
  void one(std::string& text) {
    std::uint64_t size = 0;
    one(size);
    if (size > in_.size()) refuse("a text that goes beyond its frame");
    text = take(static_cast<std::size_t>(size));
  }
  template <std::size_t N>
  void one(std::array<std::uint8_t, N>& bytes) {
    std::memcpy(bytes.data(), take(N).data(), N);
  }
  // Of a list whose elements take at least `least` bytes each: nobody makes room for more than there can be.
  std::size_t count(std::size_t least) {
    std::uint64_t n = 0;
    one(n);
    if (n > in_.size() / least) refuse("a list that goes beyond its frame");
    return static_cast<std::size_t>(n);
  }
  void end() const {
    if (!in_.empty()) refuse("a frame that is longer than its message");
  }

 private:
  std::string_view take(std::size_t n) {
    if (n > in_.size()) refuse("a frame that is shorter than its message");
    const std::string_view taken = in_.substr(0, n);
    in_.remove_prefix(n);
    return taken;
  }
  std::string_view in_;
};

template <class Codec, class T>
using Of = std::conditional_t<Codec::kReads, T, const T>;

template <class Codec, class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_same_v<T, std::string>
void field(Codec& codec, T& value) {
  codec.one(value);
}
inline void field(Writer& codec, const std::string& value) { codec.one(value); }
template <class Codec>
void field(Codec& codec, Of<Codec, std::chrono::nanoseconds>& value) {
  std::int64_t n = value.count();
  codec.one(n);
  if constexpr (Codec::kReads) value = std::chrono::nanoseconds(n);
}
template <class Codec>
void field(Codec& codec, Of<Codec, Timestamp>& value) {
  std::int64_t n = value.time_since_epoch().count();
  codec.one(n);
  if constexpr (Codec::kReads) value = Timestamp(std::chrono::nanoseconds(n));
}
template <class Codec>
void field(Codec& codec, Of<Codec, SpanId>& value) {
  codec.one(value.bytes);
}
template <class Codec>
void field(Codec& codec, Of<Codec, TaskName>& value) {
  codec.one(value.name);
  codec.one(value.version);
}
template <class Codec>
void field(Codec& codec, Of<Codec, SpanContext>& value) {
  codec.one(value.trace_id.bytes);
  codec.one(value.span_id.bytes);
  codec.one(value.flags);
  codec.one(value.remote);
  std::string state(value.trace_state.header());
  codec.one(state);
  if constexpr (Codec::kReads) value.trace_state = TraceState::parse(state);
}
template <class Codec>
void field(Codec& codec, Of<Codec, Baggage>& value) {
  std::string header = value.header();  // as the store keeps it
  codec.one(header);
  if constexpr (Codec::kReads) value = Baggage::parse(header);
}
template <class Codec>
void field(Codec& codec, Of<Codec, RetryConfig>& value) {
  field(codec, value.initial);
  field(codec, value.maximum);
  codec.one(value.multiplier);
  codec.one(value.jitter);
}
template <class Codec, class T>
  requires requires(T& optional) {
    optional.has_value();
    *optional;
  }
void field(Codec& codec, T& value) {
  bool there = value.has_value();
  codec.one(there);
  if constexpr (Codec::kReads) {
    if (there) value.emplace();
  }
  if (there) field(codec, *value);
}

template <class Codec, class... Fields>
void all(Codec& codec, Fields&... fields) {
  (field(codec, fields), ...);
}

template <class Codec, class List, class Element>
void list(Codec& codec, List& elements, std::size_t least, Element element) {
  if constexpr (Codec::kReads) {
    elements.resize(codec.count(least));
  } else {
    codec.one(static_cast<std::uint64_t>(elements.size()));
  }
  for (auto& one : elements) element(one);
}

template <class Codec>
void fields(Codec& codec, Of<Codec, WorkerStart>& message) {
  codec.one(message.runner);
  list(codec, message.tasks, 16, [&](auto& name) { field(codec, name); });
}

template <class Codec>
void fields(Codec& codec, Of<Codec, JobRecord>& job) {
  all(codec, job.number, job.id, job.name, job.span, job.baggage, job.trigger.type, job.trigger.name, job.trigger.time,
      job.trigger.path);
}

template <class Codec>
void fields(Codec& codec, Of<Codec, WorkerTask>& message) {
  auto& task = message.task;
  all(codec, message.worker, task.task, task.parent, task.type, task.input, task.attempt, task.failures, task.lost,
      task.max_retries, task.span, task.parent_span, task.previous_attempt, task.last_dependency, task.dependencies,
      task.not_before, task.dependency_wait, task.queue_wait, task.timeout, task.backoff);
  if constexpr (Codec::kReads) {
    auto job = std::make_shared<JobRecord>();
    fields(codec, *job);
    task.job = std::move(job);
  } else {
    fields(codec, *task.job);
  }
}

template <class Codec>
void fields(Codec& codec, Of<Codec, WorkerStop>& message) {
  all(codec, message.task, message.attempt, message.timed_out);
}
template <class Codec>
void fields(Codec& codec, Of<Codec, WorkerConclude>& message) {
  all(codec, message.task, message.attempt, message.accepted, message.deadline);
}
template <class Codec>
void fields(Codec& codec, Of<Codec, WorkerEnd>& message) {
  all(codec, message.flush);
}
template <class Codec>
void fields(Codec& codec, Of<Codec, WorkerReady>& message) {
  all(codec, message.problem);
}
template <class Codec>
void fields(Codec& codec, Of<Codec, ProgressReport>& message) {
  all(codec, message.task, message.attempt, message.label, message.done, message.total);
}

template <class Codec>
void fields(Codec& codec, Of<Codec, TaskSettings>& settings) {
  all(codec, settings.optional, settings.backoff, settings.timeout, settings.delay, settings.not_before,
      settings.limit_key, settings.cluster, settings.display);
}

// Names and settings are few, and shared by many tasks: each stands here once.
struct SubtaskTables {
  std::vector<TaskName> names;
  std::vector<std::shared_ptr<const TaskSettings>> settings;  // the first one: none
  std::map<TaskName, std::uint32_t> name_index;
  std::map<const TaskSettings*, std::uint32_t> settings_index;

  explicit SubtaskTables(const NewTasks& tasks) : SubtaskTables() {
    for (const NewTask& task : tasks.tasks) {
      if (name_index.try_emplace(task.name, static_cast<std::uint32_t>(names.size())).second) names.push_back(task.name);
      if (settings_index.try_emplace(task.settings.get(), static_cast<std::uint32_t>(settings.size())).second) {
        settings.push_back(task.settings);
      }
    }
  }
  SubtaskTables() {
    settings.push_back(nullptr);
    settings_index.emplace(nullptr, 0);
  }
};

template <class Codec>
void fields(Codec& codec, SubtaskTables& tables) {
  list(codec, tables.names, 16, [&](auto& name) { field(codec, name); });
  if constexpr (Codec::kReads) {
    const std::size_t n = codec.count(50);
    for (std::size_t i = 0; i < n; ++i) {
      auto settings = std::make_shared<TaskSettings>();
      fields(codec, *settings);
      tables.settings.push_back(std::move(settings));
    }
  } else {
    codec.one(static_cast<std::uint64_t>(tables.settings.size() - 1));
    for (std::size_t i = 1; i < tables.settings.size(); ++i) fields(codec, *tables.settings[i]);
  }
}

template <class Codec>
void fields(Codec& codec, Of<Codec, NewTasks>& message) {
  SubtaskTables tables = [&] {
    if constexpr (Codec::kReads) {
      return SubtaskTables();
    } else {
      return SubtaskTables(message);
    }
  }();
  fields(codec, tables);
  list(codec, message.group_sizes, 4, [&](auto& size) { codec.one(size); });
  list(codec, message.tasks, 40, [&](auto& task) {
    std::uint32_t name = 0;
    std::uint32_t settings = 0;
    if constexpr (!Codec::kReads) {
      name = tables.name_index.at(task.name);
      settings = tables.settings_index.at(task.settings.get());
    }
    all(codec, name, settings, task.input, task.priority, task.max_retries, task.group, task.dependencies);
    list(codec, task.after, 4, [&](auto& group) { codec.one(group); });
    if constexpr (Codec::kReads) {
      if (name >= tables.names.size() || settings >= tables.settings.size()) refuse("a subtask without a name");
      task.name = tables.names[name];
      task.settings = tables.settings[settings];
    }
  });
  if constexpr (Codec::kReads) {
    for (const TaskName& name : tables.names) {
      if (checked_name({.name = name.name, .version = name.version}) != name) refuse("a subtask's name");
    }
    for (std::size_t i = 1; i < tables.settings.size(); ++i) check_settings(*tables.settings[i], "a subtask");
  }
}

template <class Codec>
void fields(Codec& codec, Of<Codec, Finish>& message) {
  all(codec, message.task, message.attempt, message.result, message.started, message.end, message.error_type,
      message.error, message.retry_after);
  fields(codec, message.subtasks);
}

// ------ what could have been said

void check(const NewTasks& subtasks) {
  std::vector<std::uint32_t> members(subtasks.group_sizes.size());
  std::vector<std::size_t> last(subtasks.group_sizes.size());
  for (std::size_t i = 0; i < subtasks.tasks.size(); ++i) {
    const std::uint32_t group = subtasks.tasks[i].group;
    if (group == NewTask::kNoGroup) continue;
    if (group >= members.size()) refuse("a subtask in a group that is not there");
    ++members[group];
    last[group] = i;
  }
  if (members != subtasks.group_sizes) refuse("a group of another size");
  for (std::size_t i = 0; i < subtasks.tasks.size(); ++i) {
    std::uint64_t dependencies = 0;
    std::vector<std::uint32_t> after = subtasks.tasks[i].after;
    std::sort(after.begin(), after.end());
    if (std::adjacent_find(after.begin(), after.end()) != after.end()) refuse("a subtask that waits for a group twice");
    for (const std::uint32_t group : after) {
      if (group >= members.size() || last[group] >= i) refuse("a subtask that waits for what does not come before it");
      dependencies += members[group];
    }
    if (dependencies != subtasks.tasks[i].dependencies) refuse("a subtask that waits for another number of tasks");
  }
}

// What is added to the time of day stays a time, and counts can be added up.
constexpr std::chrono::nanoseconds kLongestWait = std::chrono::hours(24 * 365 * 100);
constexpr std::uint64_t kMostCounted = std::uint64_t{1} << 56;

void check(const FromRunner&) {}

void check(const FromWorker& message) {
  if (const auto* report = std::get_if<ProgressReport>(&message)) {
    if (report->done > kMostCounted || report->total > kMostCounted) refuse("a count beyond all bounds");
  }
  const auto* finish = std::get_if<Finish>(&message);
  if (!finish) return;
  if (const auto& wait = finish->retry_after;
      wait && (finish->result != TaskResult::failed || wait->count() < 0 || *wait > kLongestWait)) {
    refuse("a result that is tried again");
  }
  for (const NewTask& task : finish->subtasks.tasks) {
    if (!task.settings) continue;
    if (task.settings->delay > kLongestWait || task.settings->timeout > kLongestWait) refuse("a time beyond all bounds");
  }
  if (finish->result != TaskResult::computed && !finish->subtasks.tasks.empty()) refuse("a failure with subtasks");
  check(finish->subtasks);
}

template <class Message, std::size_t I = 0>
Message read_message(std::uint8_t kind, std::string_view bytes) {
  if constexpr (I == std::variant_size_v<Message>) {
    refuse("a frame of an unknown kind");
  } else {
    if (kind != I) return read_message<Message, I + 1>(kind, bytes);
    Message message(std::in_place_index<I>);
    Reader reader(bytes);
    try {
      fields(reader, std::get<I>(message));
      reader.end();
      check(message);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::corrupt) throw;
      throw Error(ErrorCode::corrupt, std::string("a worker process's channel: ") + e.what());
    }
    return message;
  }
}

template <class Message>
std::string write_message(const Message& message) {
  std::string out(kHeader, '\0');
  std::visit(
      [&](const auto& one) {
        Writer writer(out);
        fields(writer, one);
      },
      message);
  const std::uint64_t length = out.size() - kHeader;
  if (length > kLongest) throw Error(ErrorCode::invalid_argument, "a task's input or result: expected at most 2 GiB");
  std::memcpy(out.data(), &kMagic, sizeof kMagic);
  out[sizeof kMagic] = static_cast<char>(message.index());
  std::memcpy(out.data() + sizeof kMagic + 1, &length, sizeof length);
  const std::uint32_t hash = check_of(std::string_view(out).substr(0, kChecked));
  std::memcpy(out.data() + kChecked, &hash, sizeof hash);
  return out;
}

}  // namespace

std::string frame(const FromRunner& message) { return write_message(message); }
std::string frame(const FromWorker& message) { return write_message(message); }

void FrameReader::append(std::string_view bytes) {
  if (at_ > 0 && at_ >= bytes_.size() / 2) {
    bytes_.erase(0, at_);
    at_ = 0;
  }
  bytes_ += bytes;
}

template <class Message>
std::optional<Message> FrameReader::next() {
  const std::string_view rest = std::string_view(bytes_).substr(at_);
  if (rest.size() < kHeader) return std::nullopt;
  std::uint32_t magic = 0;
  std::uint64_t length = 0;
  std::uint32_t hash = 0;
  std::memcpy(&magic, rest.data(), sizeof magic);
  std::memcpy(&length, rest.data() + sizeof magic + 1, sizeof length);
  std::memcpy(&hash, rest.data() + kChecked, sizeof hash);
  if (magic != kMagic || hash != check_of(rest.substr(0, kChecked)) || length > kLongest) refuse("bytes that are no frame");
  if (rest.size() - kHeader < length) return std::nullopt;
  at_ += kHeader + static_cast<std::size_t>(length);
  return read_message<Message>(static_cast<std::uint8_t>(rest[sizeof magic]),
                               rest.substr(kHeader, static_cast<std::size_t>(length)));
}

template std::optional<FromRunner> FrameReader::next<FromRunner>();
template std::optional<FromWorker> FrameReader::next<FromWorker>();

}  // namespace waymark::detail
