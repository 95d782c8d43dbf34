#include "store/sqlite.h"

#include <pwd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "store/database.h"
#include "store/fault.h"
#include "store/schema.h"
#include "store/wake.h"
#include "task_batch.h"
#include "waymark/error.h"

namespace waymark::store {
namespace {

using Ns = std::int64_t;

Ns ns(Timestamp t) { return t.time_since_epoch().count(); }
Timestamp timestamp(Ns t) { return Timestamp(std::chrono::nanoseconds(t)); }

std::int64_t number(const SpanId& id) {
  std::int64_t n;
  std::memcpy(&n, id.bytes.data(), sizeof n);
  return n;
}
SpanId span_id(std::int64_t n) {
  SpanId id;
  std::memcpy(id.bytes.data(), &n, sizeof n);
  return id;
}

constexpr int code(TaskState state) { return static_cast<int>(state); }
static_assert(code(TaskState::waiting) == 0 && code(TaskState::ready) == 1 && code(TaskState::running) == 2 &&
                  code(TaskState::computed) == 3 && code(TaskState::scheduled) == 9,
              "the schema's partial indexes name these numbers");

constexpr int kFailedWithin = 1;   // task.broken: bits
constexpr int kSkippedWithin = 2;

enum class AttemptEnd { failed = 1, lost_charged = 2, lost = 3, released = 4 };  // attempt.outcome

struct Version {
  int major = 0;
  int minor = 0;
};

// Checked where names are made: v<major>.<minor>.
Version version_of(const TaskName& name) {
  Version v;
  const char* end = name.version.data() + name.version.size();
  const auto major = std::from_chars(name.version.data() + 1, end, v.major);
  if (major.ptr < end) std::from_chars(major.ptr + 1, end, v.minor);
  return v;
}

TaskState subtree_outcome(int broken) {
  return broken & kFailedWithin ? TaskState::failed : broken ? TaskState::canceled : TaskState::completed;
}

std::string version_text(std::int64_t major, std::int64_t minor) {
  return "v" + std::to_string(major) + "." + std::to_string(minor);
}

std::optional<std::string> text_or_null(std::string_view text) {
  return text.empty() ? std::nullopt : std::optional<std::string>(text);
}

// Statements are prepared once, at their first use. A key is the literal itself.
class Connection {
 public:
  Connection(const std::string& path, std::chrono::milliseconds patience,
             Database::Missing missing = Database::Missing::refuse)
      : database(path, patience, missing) {}
  Statement& sql(const char* text) {
    auto [it, is_new] = statements_.try_emplace(text);
    if (is_new) {
      try {
        it->second = Statement(database, text);
      } catch (...) {
        statements_.erase(it);
        throw;
      }
    }
    return it->second;
  }
  // Another number whenever this or another connection has changed something.
  std::int64_t change() {
    Statement& s = sql("PRAGMA data_version");
    s.bind().step();
    const std::int64_t others = s.integer(0);
    s.reset();
    return (others << 32) + database.total_changes();
  }
  Database database;

 private:
  std::unordered_map<const char*, Statement> statements_;
};

constexpr char kClaim[] =
    "SELECT id, priority FROM task WHERE state = 1 AND cluster = ? AND kind = ? AND limit_key IS NULL "
    "ORDER BY priority DESC, id LIMIT ?";
constexpr char kClaimKeyed[] =
    "SELECT id, priority FROM task WHERE state = 1 AND cluster = ? AND kind = ? AND limit_key = ? "
    "ORDER BY priority DESC, id LIMIT ?";
constexpr char kAnyReady[] = "SELECT 1 FROM task WHERE state = 1 AND cluster = ? AND kind = ? LIMIT 1";

constexpr std::size_t kKeysAtOnce = 256;                       // looked at in one claim, of one kind
constexpr std::chrono::nanoseconds kLookAgain = std::chrono::milliseconds(5);  // at the keys after those

// What this process knows of an attempt that one of its workers holds.
struct Held {
  WorkerId worker = 0;
  std::uint32_t attempt = 0;
  std::uint32_t lost = 0;
  std::int64_t job = 0;
  std::int64_t parent = 0;
  std::int64_t group = 0;
  std::int64_t cluster = 0;
  int depth = 0;
  std::int64_t span = 0;
  std::int64_t parent_span = 0;
  std::int64_t boundary = 0;  // the optional task whose subtree it is in, itself included; 0: none
  bool limited = false;       // its end may let another start
};

struct Worker {
  std::int64_t cluster = 0;
  std::vector<TaskName> tasks;
  std::int64_t newest_kind = -1;  // when `kinds` was made
  std::vector<std::pair<std::int64_t, std::uint32_t>> kinds;  // of tasks it takes, with the index of its own
  // Of a kind's keys, of which a claim does not look at all where there are very many.
  struct Keys {
    std::string from;           // where the last look ended
    int rounds = 0;             // whole ones, or their beginning, in which none let a task start
    std::int64_t change = 0;    // of the store, at that time
    Ns due = INT64_MAX;         // when a rate allows the next, as far as was seen in those
  };
  std::unordered_map<std::int64_t, Keys> keys;
};

// A limit as claims see it.
struct Limiter {
  std::int64_t id = 0;
  Limit limit;
  [[nodiscard]] bool fits(const std::string& task, const std::string& key) const {
    if (!limit.task.empty() && limit.task != task) return false;
    return limit.key.empty() || (limit.key == "*" ? !key.empty() : limit.key == key);
  }
  // Of what it counts together.
  [[nodiscard]] std::string bucket(const std::string& key) const { return limit.key == "*" ? key : std::string(); }
};

class Allowances;

// Of a transaction that is to be rolled back, and done again in another way.
struct NotTogether {};

// A batch of subtree ends, applied once for each parent, group and job instead of once for each task.
struct Ends {
  struct Parent {
    std::int64_t count = 0;
    Ns end = 0;
    int broken = 0;
  };
  struct Group {
    std::int64_t count = 0;
    Ns end = 0;
    std::int64_t span = 0;
  };
  struct Job {
    std::int64_t roots = 0;  // whose subtrees ended
    std::int64_t done = 0;   // tasks
    Ns end = 0;
  };
  std::map<int, std::unordered_map<std::int64_t, Parent>, std::greater<>> parents;  // by depth, deepest first
  std::unordered_map<std::int64_t, Group> groups;
  std::unordered_map<std::int64_t, Job> jobs;
  std::vector<std::int64_t> stopped;  // jobs whose waiting tasks are to be skipped
  std::uint64_t made_ready = 0;
  bool tell = false;                  // others have something to see
};

struct Position {  // of a task in its job
  std::int64_t job = 0;
  std::int64_t parent = 0;
  std::int64_t group = 0;
  int depth = 0;
};

class SqliteStore final : public Store {
 public:
  explicit SqliteStore(const SqliteOptions& options)
      : clock_(options.clock),
        patience_(options.patience),
        writer_(options.path, options.patience, Database::Missing::create),
        rows_(writer_.database),
        reader_((migrate(), options.path), options.patience),
        wake_(options.path, [this, path = options.path] { return data_version(path); }) {
    writer_.database.hurry_by(hurried_);
    reader_.database.hurry_by(hurried_);
  }

  Job submit(const NewJob& job) override;
  std::optional<Job> find(std::string_view id) override;
  JobPage query(const JobFilter& filter) override;
  void cancel(std::string_view id) override;
  std::uint64_t retry(std::string_view id) override;
  void pause(std::string_view cluster, bool paused) override;
  std::vector<Cluster> clusters() override;
  void limit(const Limit& limit) override;
  std::vector<Limit> limits() override;
  Timestamp time() override { return timestamp(now()); }
  std::vector<Automation> automations() override;
  void keep(const Automation& automation) override;
  bool pause_automation(std::string_view name, bool paused) override;
  bool remove_automation(std::string_view name) override;
  std::vector<std::string> new_files(std::string_view name, std::span<const std::string> paths) override;
  bool advance(const AutomationStep& step) override;
  std::optional<std::string> find_step(std::int64_t task, std::string_view name) override;
  bool keep_step(WorkerId worker, std::int64_t task, std::uint32_t attempt, std::string_view name,
                 std::string_view result) override;
  void display(WorkerId worker, std::int64_t task, std::uint32_t attempt, std::string_view text) override;
  std::optional<std::string> cached(std::int64_t job, std::string_view path, std::string_view key) override;
  void cache(std::int64_t job, std::string_view path, std::string_view key,
             std::optional<std::string_view> bytes) override;
  std::vector<std::string> cached_keys(std::int64_t job, std::string_view path) override;
  Pruned prune(const Retention& retention, std::size_t rows) override;
  std::vector<TaskInfo> tasks(std::string_view id) override;
  WorkerId join(const NewWorker& worker) override;
  std::optional<Timestamp> renew(WorkerId worker) override;
  void leave(WorkerId worker) override;
  Exchanged exchange(const Exchange& exchange) override;
  Released sweep(WorkerId by, std::uint32_t max_lost) override;
  Released release(WorkerId by, std::string_view runner, std::span<const LostAttempt> lost,
                   std::uint32_t max_lost) override;
  std::vector<TaskCount> counts() override;
  bool idle(WorkerId worker) override;
  std::vector<WorkerInfo> workers() override;
  std::optional<TaskWait> wait_of(std::string_view task) override;
  Activity activity(std::chrono::nanoseconds period) override;
  std::uint64_t vacuum() override;
  std::shared_ptr<void> hurry() override {
    ++hurried_;
    return {this, [this](void*) { --hurried_; }};
  }
  std::shared_ptr<void> watch(std::function<void()> changed) override { return wake_.watch(std::move(changed)); }

 private:
  Ns now() const {
    return clock_ ? ns(clock_())
                  : std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count();
  }
  Statement& sql(const char* text) { return writer_.sql(text); }
  void migrate();
  int schema_version();
  std::int64_t data_version(const std::string& path) noexcept;

  std::int64_t cluster_number(const std::string& name);
  std::int64_t kind_number(const TaskName& name);
  const std::pair<TaskName, Version>& kind(std::int64_t number);
  std::shared_ptr<const JobRecord> job_record(std::int64_t number);
  void refresh_kinds(Worker& worker);
  Ns insert_job(const NewJob& job);
  struct Insertion {  // what the tasks of a batch have in common
    Position parent;
    std::int64_t cluster = 0;
    std::int64_t parent_span = 0;
    std::int64_t boundary = 0;
    Ns created = 0;
    bool skipped = false;         // never to run, unless the job is retried
    std::int64_t skipped_by = 0;  // not even then
  };
  std::uint64_t insert(const NewTasks& tasks, const Insertion& common, Ns now);
  std::int64_t backoff_number(const RetryConfig& backoff);
  std::optional<RetryConfig> backoff(std::int64_t number);
  void note_key(std::int64_t kind);

  bool holds(WorkerId worker, const Finish& f) const {
    const auto it = held_.find(f.task);
    return it != held_.end() && it->second.worker == worker && it->second.attempt == f.attempt;
  }
  bool finish(WorkerId worker, const Finish& f, Ns now, Ends& ends);
  void finish_leaves(WorkerId worker, std::span<const Finish> leaves, Ends& ends, std::vector<bool>& accepted);
  void finish_all(WorkerId worker, std::span<const Finish> finishes, bool together, Ns now, Ends& ends,
                  std::vector<bool>& accepted);
  static void count_computed(const Held& held, Ns end, Ends& ends);
  void forget_attempt(std::int64_t task);
  void fail_job(std::int64_t job, std::int64_t task, std::string_view error_type, std::string_view error, Ends& ends);
  void failed_for_good(const Held& held, std::int64_t task, std::string_view error_type, std::string_view error,
                       Ends& ends);
  std::int64_t cut_by(std::int64_t boundary);
  void cut(std::int64_t job, std::int64_t boundary, std::int64_t failed, Ends& ends);
  void subtree_ended(const Position& task, Ns end, std::int64_t span, int broken, Ends& ends);
  void settle(WorkerId worker, Ns now, Ends& ends, std::vector<EnclosingSpan>& closed);
  void stop_job(std::int64_t job, WorkerId worker, Ns now, Ends& ends, std::vector<EnclosingSpan>& closed);
  void finish_job(std::int64_t job, WorkerId worker, Ns now, Ends& ends, std::vector<EnclosingSpan>& closed);
  void close_span(WorkerId worker, EnclosingSpan span, std::vector<EnclosingSpan>& closed);
  bool is_stopping(std::int64_t job);

  static Job read_job(const Statement& row);
  void read_progress(std::int64_t number, Job& job);
  static TaskInfo read_task(const Statement& row);
  bool refresh_settings(const Worker& worker);
  Ns first_due();
  void next_due(Ns now, Exchanged& result);
  void claim(const Exchange& exchange, Worker& worker, Ns now, Exchanged& result, Ends& ends);
  friend class Allowances;
  bool anything_for(const Exchange& exchange, Worker& worker, Ns now, Exchanged& result);
  void list_stopping(WorkerId worker, Exchanged& result);
  void lose(WorkerId worker, const std::unordered_map<std::int64_t, LostAttempt>* known, Ns end, std::uint32_t max_lost,
            Ns now, Ends& ends, Released& released);
  void remove_worker(WorkerId worker);
  void forget_held(WorkerId worker) {
    std::erase_if(held_, [&](const auto& entry) { return entry.second.worker == worker; });
  }
  void take_leftovers(WorkerId by, std::vector<EnclosingSpan>& spans);

  // Runs `step` in a transaction. What this process remembers is forgotten where it fails, since it may not be so.
  template <class Step>
  void transact(Step step) {
    try {
      writer_.database.check_present();
      Transaction transaction(writer_.database);
      step();
      transaction.commit();
    } catch (...) {
      settings_version_ = -1;
      backoffs_.clear();
      kinds_.clear();
      kind_names_.clear();
      clusters_.clear();
      claimed_.clear();
      begun_job_ = 0;
      for (auto& [id, worker] : workers_) worker.newest_kind = -1;  // another may get the number of a kind of ours
      throw;
    }
  }

  std::function<Timestamp()> clock_;
  std::chrono::milliseconds patience_;
  std::atomic<int> hurried_{0};

  std::mutex writing_;
  Connection writer_;
  Rows rows_;  // of the statement under way
  std::map<TaskName, std::int64_t> kinds_;
  std::unordered_map<std::int64_t, std::pair<TaskName, Version>> kind_names_;
  std::map<std::string, std::int64_t> clusters_;
  std::unordered_map<std::int64_t, RetryConfig> backoffs_;
  std::int64_t settings_version_ = -1;  // of the two that follow
  std::vector<Limiter> limiters_;
  std::unordered_set<std::int64_t> keyed_kinds_;
  std::unordered_map<std::int64_t, std::shared_ptr<const JobRecord>> jobs_;
  std::unordered_map<WorkerId, Worker> workers_;
  std::unordered_map<std::int64_t, Held> held_;
  std::unordered_map<std::int64_t, Held> claimed_;  // by the transaction under way

  std::int64_t begun_job_ = 0;  // the last one of which a root was claimed: it has begun

  std::mutex reading_;
  Connection reader_;

  std::unique_ptr<Connection> version_reader_;  // of the wake's thread
  Wake wake_;
};

// Steps that another process takes meanwhile are waited for, and then not taken again.
void SqliteStore::migrate() {
  Database& database = writer_.database;
  const int found = schema_version();
  if (found > kSchemaVersion) {
    throw Error(ErrorCode::store, "store " + database.path() + ": its schema has version " + std::to_string(found) +
                                      ", this program knows up to " + std::to_string(kSchemaVersion) +
                                      ": use a newer program, or another store");
  }
  if (found == kSchemaVersion) return;  // whoever only looks need not wait for the lock
  Transaction transaction(database);
  for (int step = schema_version(); step < kSchemaVersion; ++step) {
    database.execute(kSchemaSteps[step]);
    Statement(database, "INSERT INTO schema_version VALUES (?, ?)").run(step + 1, now());
  }
  transaction.commit();
}

// 0: there is none.
int SqliteStore::schema_version() {
  Database& database = writer_.database;
  Statement exists(database, "SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'");
  exists.step();
  if (exists.integer(0) == 0) return 0;
  Statement version(database, "SELECT max(version) FROM schema_version");
  version.step();
  return static_cast<int>(version.integer(0));
}

std::int64_t SqliteStore::data_version(const std::string& path) noexcept {
  try {
    if (!version_reader_) version_reader_ = std::make_unique<Connection>(path, patience_);
    version_reader_->database.check_present();
    Statement& s = version_reader_->sql("PRAGMA data_version");
    s.bind();
    const std::int64_t version = s.step() ? s.integer(0) : 0;
    s.reset();
    return version;
  } catch (const Error&) {
    return 0;  // whoever is told that it has changed will see what is wrong with the file
  }
}

std::int64_t SqliteStore::cluster_number(const std::string& name) {
  if (const auto it = clusters_.find(name); it != clusters_.end()) return it->second;
  sql("INSERT INTO cluster(name) VALUES (?) ON CONFLICT DO NOTHING").run(name);
  Statement& s = sql("SELECT id FROM cluster WHERE name = ?");
  s.bind(name).step();
  const std::int64_t id = s.integer(0);
  s.reset();
  return clusters_[name] = id;
}

std::int64_t SqliteStore::kind_number(const TaskName& name) {
  if (const auto it = kinds_.find(name); it != kinds_.end()) return it->second;
  const Version v = version_of(name);
  sql("INSERT INTO kind(name, major, minor) VALUES (?, ?, ?) ON CONFLICT DO NOTHING").run(name.name, v.major, v.minor);
  Statement& s = sql("SELECT id FROM kind WHERE name = ? AND major = ? AND minor = ?");
  s.bind(name.name, v.major, v.minor).step();
  const std::int64_t id = s.integer(0);
  s.reset();
  return kinds_[name] = id;
}

const std::pair<TaskName, Version>& SqliteStore::kind(std::int64_t id) {
  auto [it, is_new] = kind_names_.try_emplace(id);
  if (is_new) {
    Statement& s = sql("SELECT name, major, minor FROM kind WHERE id = ?");
    s.bind(id).step();
    it->second = {{std::string(s.text(0)), version_text(s.integer(1), s.integer(2))},
                  {static_cast<int>(s.integer(1)), static_cast<int>(s.integer(2))}};
    s.reset();
  }
  return it->second;
}

std::shared_ptr<const JobRecord> SqliteStore::job_record(std::int64_t id) {
  constexpr std::size_t kRemembered = 4096;
  if (const auto it = jobs_.find(id); it != jobs_.end()) return it->second;
  Statement& s = sql("SELECT j.uid, j.name, traceparent, tracestate, baggage, t.type, t.name, t.at, t.path "
                     "FROM job j LEFT JOIN job_trigger t ON t.job = j.id WHERE j.id = ?");
  auto record = std::make_shared<JobRecord>();
  if (s.bind(id).step()) {
    record->number = id;
    record->id = s.text(0);
    record->name = s.text(1);
    if (auto context = from_traceparent(s.text(2), s.text(3))) record->span = *context;
    record->baggage = Baggage::parse(s.text(4));
    if (!s.null(5)) {
      record->trigger = {.type = std::string(s.text(5)),
                         .name = std::string(s.text(6)),
                         .time = timestamp(s.integer(7)),
                         .path = std::string(s.text(8))};
    }
  }
  s.reset();
  if (jobs_.size() >= kRemembered) jobs_.clear();
  return jobs_[id] = std::move(record);
}

// ------ submitting

// In a transaction. When it was submitted.
Ns SqliteStore::insert_job(const NewJob& job) {
  const Ns submitted = std::max(now(), ns(job.not_before));
  const std::string traceparent = to_traceparent(job.span);
  const auto tracestate = text_or_null(job.span.trace_state.header());
  const auto baggage = text_or_null(job.baggage.header());
  const auto submitter = text_or_null(to_traceparent(job.submitter));
  const auto parent = job.parent.valid() ? std::optional(number(job.parent)) : std::nullopt;
  const std::int64_t cluster = cluster_number(job.cluster);
  sql("INSERT INTO job(uid, name, open_roots, tasks, submitted_at, traceparent, tracestate, baggage, parent_span, "
      "submitter, cluster, idempotency_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .run(job.id, job.name, static_cast<std::int64_t>(job.roots.tasks.size()),
           static_cast<std::int64_t>(job.roots.tasks.size()), submitted, traceparent, tracestate, baggage, parent,
           submitter, cluster, text_or_null(job.key));
  const Position root{.job = writer_.database.last_id(), .depth = -1};
  if (!job.trigger.type.empty()) {
    sql("INSERT INTO job_trigger(job, type, name, at, path) VALUES (?, ?, ?, ?, ?)")
        .run(root.job, job.trigger.type, job.trigger.name, ns(job.trigger.time), job.trigger.path);
  }
  insert(job.roots,
         {.parent = root, .cluster = cluster, .parent_span = number(job.span.span_id), .created = submitted},
         submitted);
  if (job.roots.tasks.empty()) {
    Ends ends;
    std::vector<EnclosingSpan> closed;  // it stays in the outbox, for a runner
    finish_job(root.job, 0, submitted, ends, closed);
  }
  return submitted;
}

Job SqliteStore::submit(const NewJob& job) {
  const std::scoped_lock lock(writing_);
  Job result;
  std::string existing;
  const auto once = [&] {
    existing.clear();
    if (!job.key.empty()) {
      Statement& known = sql("SELECT uid FROM job WHERE idempotency_key = ?");
      if (known.bind(job.key).step()) existing = known.text(0);
      known.reset();
      if (!existing.empty()) return;
    }
    const Ns submitted = insert_job(job);
    if (job.roots.tasks.empty()) {
      result.state = JobState::completed;
      result.finished_at = timestamp(submitted);
    }
    result.id = job.id;
    result.name = job.name;
    result.cluster = job.cluster;
    result.key = job.key;
    result.submitted_at = timestamp(submitted);
    result.trace_id = job.span.trace_id;
    result.tasks = job.roots.tasks.size();
  };
  for (;;) {
    transact(once);
    if (existing.empty()) break;
    if (std::optional<Job> found = find(existing)) return *std::move(found);
    // It was removed meanwhile, and its key with it.
  }
  wake_.notify();
  return result;
}

std::int64_t SqliteStore::backoff_number(const RetryConfig& b) {
  sql("INSERT INTO backoff(initial, maximum, multiplier, jitter) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
      .run(b.initial.count(), b.maximum.count(), b.multiplier, b.jitter);
  Statement& s = sql("SELECT id FROM backoff WHERE initial = ? AND maximum = ? AND multiplier = ? AND jitter = ?");
  s.bind(b.initial.count(), b.maximum.count(), b.multiplier, b.jitter).step();
  const std::int64_t id = s.integer(0);
  s.reset();
  return id;
}

std::optional<RetryConfig> SqliteStore::backoff(std::int64_t id) {
  if (id == 0) return std::nullopt;
  auto [it, is_new] = backoffs_.try_emplace(id);
  if (is_new) {
    Statement& s = sql("SELECT initial, maximum, multiplier, jitter FROM backoff WHERE id = ?");
    if (s.bind(id).step()) {
      it->second = {.initial = std::chrono::nanoseconds(s.integer(0)),
                    .maximum = std::chrono::nanoseconds(s.integer(1)),
                    .multiplier = s.real(2),
                    .jitter = s.real(3)};
    }
    s.reset();
  }
  return it->second;
}

// Claims look for keys only among kinds that ever had one.
void SqliteStore::note_key(std::int64_t kind) {
  if (settings_version_ >= 0 && keyed_kinds_.contains(kind)) return;
  sql("UPDATE kind SET keyed = 1 WHERE id = ? AND keyed = 0").run(kind);
  if (writer_.database.changes() > 0) sql("UPDATE setting SET version = version + 1").run();
}

std::uint64_t SqliteStore::insert(const NewTasks& batch, const Insertion& common, Ns now) {
  const Position& parent = common.parent;
  std::vector<std::int64_t> groups;
  groups.reserve(batch.group_sizes.size());
  for (const std::uint32_t size : batch.group_sizes) {
    sql("INSERT INTO grp(job, open) VALUES (?, ?)").run(parent.job, size);
    groups.push_back(writer_.database.last_id());
  }
  std::uint64_t ready = 0;
  Statement& add = sql(
      "INSERT INTO task(job, parent, depth, grp, cluster, kind, state, priority, deps_left, deps, max_retries, input, "
      "parent_span, created_at, ready_at, boundary) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  const auto parent_or_null = parent.parent ? std::optional(parent.parent) : std::nullopt;
  const auto boundary = common.boundary ? std::optional(common.boundary) : std::nullopt;
  const TaskSettings* last_settings = nullptr;
  std::optional<std::int64_t> last_backoff;
  std::int64_t last_cluster = 0;
  for (const NewTask& task : batch.tasks) {
    const TaskSettings* settings = task.settings.get();
    const bool waits = !task.after.empty();
    Ns run_at = 0;
    if (settings) {
      if (settings->delay.count() > 0) run_at = now + settings->delay.count();
      run_at = std::max(run_at, ns(settings->not_before));
    }
    const TaskState state = common.skipped  ? TaskState::skipped
                            : waits         ? TaskState::waiting
                            : run_at > now  ? TaskState::scheduled
                                            : TaskState::ready;
    ready += state == TaskState::ready || state == TaskState::scheduled ? 1 : 0;  // runners are told of both
    const std::int64_t kind = kind_number(task.name);
    add.run(parent.job, parent_or_null, parent.depth + 1,
            task.group == NewTask::kNoGroup ? std::nullopt : std::optional(groups.at(task.group)), common.cluster,
            kind, code(state), task.priority, static_cast<std::int64_t>(task.after.size()), task.dependencies,
            task.max_retries, task.input, common.parent_span, common.created,
            state == TaskState::ready ? std::optional(now) : std::nullopt, boundary);
    const std::int64_t id = writer_.database.last_id();
    if (settings) {
      if (settings != last_settings) {
        last_settings = settings;
        last_backoff = settings->backoff ? std::optional(backoff_number(*settings->backoff)) : std::nullopt;
        last_cluster = settings->cluster.empty() ? common.cluster : cluster_number(settings->cluster);
      }
      if (!settings->limit_key.empty()) note_key(kind);
      sql("UPDATE task SET optional = ?, backoff = ?, timeout = ?, run_at = ?, limit_key = ?, cluster = ?, display = ? "
          "WHERE id = ?")
          .run(settings->optional, last_backoff,
               settings->timeout.count() > 0 ? std::optional(settings->timeout.count()) : std::nullopt,
               run_at > now ? std::optional(run_at) : std::nullopt, text_or_null(settings->limit_key), last_cluster,
               text_or_null(settings->display), id);
    }
    if (common.skipped_by) sql("UPDATE task SET skipped_by = ? WHERE id = ?").run(common.skipped_by, id);
    for (const std::uint32_t group : task.after) {
      sql("INSERT INTO dep(grp, task) VALUES (?, ?)").run(groups.at(group), id);
    }
  }
  return ready;
}

// ------ finishing

bool SqliteStore::is_stopping(std::int64_t job) {
  Statement& s = sql("SELECT stopping FROM job WHERE id = ?");
  const bool stopping = s.bind(job).step() && s.integer(0) != 0;
  s.reset();
  return stopping;
}

void SqliteStore::subtree_ended(const Position& task, Ns end, std::int64_t span, int broken, Ends& ends) {
  if (task.group) {
    auto& group = ends.groups[task.group];
    ++group.count;
    if (end >= group.end) {
      group.end = end;
      group.span = span;
    }
  }
  if (task.parent) {
    auto& parent = ends.parents[task.depth - 1][task.parent];
    ++parent.count;
    parent.end = std::max(parent.end, end);
    parent.broken |= broken;
  } else {
    auto& job = ends.jobs[task.job];
    ++job.roots;
    job.end = std::max(job.end, end);
  }
}

// A task whose failure is its job's, or that of the optional subtree it is in.
void SqliteStore::failed_for_good(const Held& held, std::int64_t task, std::string_view error_type,
                                  std::string_view error, Ends& ends) {
  if (held.boundary) {
    cut(held.job, held.boundary, task, ends);
  } else {
    fail_job(held.job, task, error_type, error, ends);
  }
}

// The failure because of which nothing starts in an optional subtree any more; 0: it is whole.
std::int64_t SqliteStore::cut_by(std::int64_t boundary) {
  if (boundary == 0) return 0;
  Statement& s = sql("SELECT cut FROM task WHERE id = ?");
  const std::int64_t by = s.bind(boundary).step() ? s.integer(0) : 0;
  s.reset();
  return by;
}

// The rest of an optional subtree is skipped; what runs in it goes on.
void SqliteStore::cut(std::int64_t job, std::int64_t boundary, std::int64_t failed, Ends& ends) {
  sql("UPDATE task SET cut = ? WHERE id = ? AND cut = 0").run(failed, boundary);
  if (writer_.database.changes() == 0) return;
  struct Below {
    std::int64_t id;
    Position position;
    TaskState state;
  };
  std::vector<Below> below;
  Statement& list =
      sql("WITH RECURSIVE below(id, parent, grp, depth, state) AS ("
          "SELECT id, parent, grp, depth, state FROM task WHERE job = ?1 AND parent = ?2 UNION ALL "
          "SELECT t.id, t.parent, t.grp, t.depth, t.state FROM below b JOIN task t ON t.job = ?1 AND t.parent = b.id) "
          "SELECT id, parent, grp, depth, state FROM below");
  for (list.bind(job, boundary); list.step();) {
    below.push_back({list.integer(0),
                     {job, list.integer(1), list.integer(2), static_cast<int>(list.integer(3))},
                     static_cast<TaskState>(list.integer(4))});
  }
  for (const Below& task : below) {
    switch (task.state) {
      case TaskState::waiting:
      case TaskState::ready:
      case TaskState::scheduled:
        sql("UPDATE task SET state = 7, skipped_by = ? WHERE id = ?").run(failed, task.id);
        ++ends.jobs[job].done;
        subtree_ended(task.position, 0, 0, kSkippedWithin, ends);
        break;
      case TaskState::skipped:
      case TaskState::canceled:
        sql("UPDATE task SET skipped_by = ? WHERE id = ? AND skipped_by IS NULL").run(failed, task.id);
        break;
      default:
        // It runs, or something below it does: nothing starts there any more.
        sql("UPDATE task SET cut = ? WHERE id = ? AND optional AND cut = 0 AND (state = 2 OR open_children > 0)")
            .run(failed, task.id);
    }
  }
}

void SqliteStore::fail_job(std::int64_t job, std::int64_t task, std::string_view error_type, std::string_view error,
                           Ends& ends) {
  sql("UPDATE job SET stopping = 1, error_type = ?, error = ?, failed_task = ? WHERE id = ? AND stopping = 0")
      .run(error_type, error, task, job);
  if (writer_.database.changes() > 0) ends.stopped.push_back(job);
}

void SqliteStore::count_computed(const Held& held, Ns end, Ends& ends) {
  auto& job = ends.jobs[held.job];
  ++job.done;
  job.end = std::max(job.end, end);
  ends.tell |= held.limited;
}

// What most finishes are, all of them by one statement for each stretch of tasks. Where the store does not have each as it
// should, NotTogether: then they are to be looked at one by one.
void SqliteStore::finish_leaves(WorkerId worker, std::span<const Finish> leaves, Ends& ends, std::vector<bool>& accepted) {
  rows_.clear();
  for (const Finish& f : leaves) {
    accepted.push_back(holds(worker, f));
    if (!accepted.back()) continue;
    const Held& held = held_.at(f.task);
    const Ns end = ns(f.end);
    rows_.list(f.task, end, f.attempt);
    count_computed(held, end, ends);
    subtree_ended({held.job, held.parent, held.group, held.depth}, end, held.span, 0, ends);
  }
  rows_.stretches([&](std::int64_t lowest, std::int64_t highest, std::int64_t count) {
    // +: along the ids, not along an index that it changes.
    sql("UPDATE task SET state = 4, ended_at = row_first(id), closed_at = max(closed_at, row_first(id)), open_children = 0, "
        "subtasks_span = NULL WHERE id BETWEEN ? AND ? AND row_listed(id) AND +worker = ? AND attempt = row_second(id) AND "
        "+state = 2")
        .run(lowest, highest, worker);
    if (writer_.database.changes() != count) throw NotTogether();
  });
}

void SqliteStore::finish_all(WorkerId worker, std::span<const Finish> finishes, bool together, Ns now, Ends& ends,
                             std::vector<bool>& accepted) {
  const auto leaf = [](const Finish& f) { return f.result == TaskResult::computed && f.subtasks.tasks.empty(); };
  accepted.reserve(finishes.size());
  for (std::size_t i = 0; i < finishes.size();) {
    std::size_t end = i;
    while (together && end < finishes.size() && leaf(finishes[end])) ++end;
    if (end > i + 1) {
      finish_leaves(worker, finishes.subspan(i, end - i), ends, accepted);
      i = end;
    } else {
      accepted.push_back(finish(worker, finishes[i++], now, ends));
    }
  }
}

// One that nobody began: there is no span of it.
void SqliteStore::forget_attempt(std::int64_t task) {
  sql("UPDATE task SET attempt = attempt - 1, span = prev_span, (started_at, ended_at) = (SELECT started_at, ended_at "
      "FROM attempt a WHERE a.task = task.id AND a.n = task.attempt - 1) WHERE id = ?")
      .run(task);
}

bool SqliteStore::finish(WorkerId worker, const Finish& f, Ns now, Ends& ends) {
  if (!holds(worker, f)) return false;
  const Held& held = held_.at(f.task);
  const Position position{held.job, held.parent, held.group, held.depth};
  const Ns end = f.started ? ns(f.end) : 0;
  const auto written = [&] { return writer_.database.changes() > 0; };
  // A finish whose commit had worked although it was reported as failed is there already.
  const auto applied_before = [&] {
    Statement& s = sql("SELECT 1 FROM task WHERE id = ? AND worker = ? AND attempt = ? AND state <> 2");
    const bool applied = s.bind(f.task, worker, f.attempt).step();
    s.reset();
    return applied;
  };
  const auto log_attempt = [&](AttemptEnd outcome) {
    sql("INSERT OR REPLACE INTO attempt(task, n, worker, started_at, ended_at, outcome, span, error_type, error) "
        "SELECT id, attempt, worker, started_at, ?, ?, span, ?, ? FROM task WHERE id = ?")
        .run(end, static_cast<int>(outcome), f.error_type, f.error, f.task);
  };

  if (f.result == TaskResult::computed) {
    // In what is being stopped, subtasks are written for a later retry of the job, or to be seen.
    const bool none = f.subtasks.tasks.empty();
    const std::int64_t skipped_by = none ? 0 : cut_by(held.boundary);
    const bool skipped = !none && (skipped_by != 0 || is_stopping(held.job));
    const bool leaf = none || skipped;
    std::int64_t children = leaf ? 0 : static_cast<std::int64_t>(f.subtasks.tasks.size());
    if (planted(Fault::early_close) && children > 1) --children;
    const std::int64_t span = leaf ? 0 : number(SpanId::random());
    sql(planted(Fault::no_fence)
            ? "UPDATE task SET state = ?, ended_at = ?5, closed_at = max(closed_at, ?5), open_children = ?2, "
              "subtasks_span = ?3 WHERE id = ?4 AND ?6 = ?6 AND ?7 = ?7"
            : "UPDATE task SET state = ?, ended_at = ?5, closed_at = max(closed_at, ?5), open_children = ?2, "
              "subtasks_span = ?3 WHERE id = ?4 AND worker = ?6 AND attempt = ?7 AND state = 2")
        .run(code(none ? TaskState::completed : TaskState::computed), children,
             leaf ? std::nullopt : std::optional(span), f.task, end, worker, f.attempt);
    if (!written()) return applied_before();
    count_computed(held, end, ends);
    if (!none) {
      const std::uint64_t ready = insert(f.subtasks,
                                         {.parent = {held.job, f.task, 0, held.depth},
                                          .cluster = held.cluster,
                                          .parent_span = span,
                                          .boundary = held.boundary,
                                          .created = end,
                                          .skipped = skipped,
                                          .skipped_by = skipped_by},
                                         now);
      ends.made_ready += ready;
      sql("UPDATE job SET tasks = tasks + ? WHERE id = ?").run(static_cast<std::int64_t>(f.subtasks.tasks.size()),
                                                              held.job);
      if (skipped) {
        sql("UPDATE task SET broken = broken | ? WHERE id = ?").run(kSkippedWithin, f.task);
        ends.jobs[held.job].done += static_cast<std::int64_t>(f.subtasks.tasks.size());
      }
    }
    // What a cut subtree lacks is nothing to those above its boundary.
    const bool own_boundary = skipped_by != 0 && held.boundary == f.task;
    if (leaf) subtree_ended(position, end, held.span, skipped && !own_boundary ? kSkippedWithin : 0, ends);
    return true;
  }

  const std::int64_t skipped_by = cut_by(held.boundary);
  const bool stopping = skipped_by != 0 || is_stopping(held.job);
  ends.tell |= held.limited;
  if (f.result == TaskResult::released && !stopping) {
    sql("UPDATE task SET state = 1, ready_at = ?1, attempt = attempt - ?2, span = iif(?2, prev_span, span), "
        "closed_at = max(closed_at, ?3) WHERE id = ?4 AND worker = ?5 AND attempt = ?6 AND state = 2")
        .run(now, f.started ? 0 : 1, end, f.task, worker, f.attempt);
    if (!written()) return false;
    if (f.started) {
      log_attempt(AttemptEnd::released);
      sql("DELETE FROM progress WHERE job = ? AND task = ?").run(held.job, f.task);
    }
    ++ends.made_ready;
    ends.tell = true;
    return true;
  }
  if (f.result == TaskResult::failed && f.retry_after && !stopping) {
    sql("UPDATE task SET state = 9, run_at = ?1, failures = failures + 1, ended_at = ?2, "
        "closed_at = max(closed_at, ?2), error_type = ?3, error = ?4 "
        "WHERE id = ?5 AND worker = ?6 AND attempt = ?7 AND state = 2")
        .run(now + f.retry_after->count(), end, f.error_type, f.error, f.task, worker, f.attempt);
    if (!written()) return applied_before();
    log_attempt(AttemptEnd::failed);
    sql("DELETE FROM progress WHERE job = ? AND task = ?").run(held.job, f.task);
    return true;
  }
  // For good: it failed, or its job is being stopped. What could have been tried again did not fail for good, so that a
  // retry of the job runs it, also within an optional subtree.
  const bool attempt_failed = f.result == TaskResult::failed;
  const bool failed = attempt_failed && !f.retry_after;
  sql("UPDATE task SET state = ?1, failures = failures + ?2, ended_at = ?3, closed_at = max(closed_at, ?3), "
      "error_type = ?4, error = ?5, skipped_by = ?9 WHERE id = ?6 AND worker = ?7 AND attempt = ?8 AND state = 2")
      .run(code(!failed         ? TaskState::canceled
                : held.boundary ? TaskState::failed_optional
                                : TaskState::failed),
           attempt_failed, end, text_or_null(f.error_type), text_or_null(f.error), f.task, worker, f.attempt,
           !failed && skipped_by ? std::optional(skipped_by) : std::nullopt);
  if (!written()) return applied_before();
  if (f.started) {
    log_attempt(attempt_failed ? AttemptEnd::failed : AttemptEnd::released);
  } else {
    forget_attempt(f.task);
  }
  auto& job = ends.jobs[held.job];
  ++job.done;
  job.end = std::max(job.end, end);
  const bool own_boundary = held.boundary == f.task && (failed || skipped_by != 0);
  subtree_ended(position, end, f.started ? held.span : 0, own_boundary ? 0 : failed ? kFailedWithin : kSkippedWithin,
                ends);
  if (failed) failed_for_good(held, f.task, f.error_type, f.error, ends);
  return true;
}

void SqliteStore::close_span(WorkerId worker, EnclosingSpan span, std::vector<EnclosingSpan>& closed) {
  if (!span.job->span.sampled()) return;
  const auto parent = span.parent.valid() ? std::optional(number(span.parent)) : std::nullopt;
  sql("INSERT INTO span_outbox(worker, job, task, span, parent, started_at, ended_at, outcome, error_type, error, "
      "tasks) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .run(worker ? std::optional(worker) : std::nullopt, span.job->number,
           span.task ? std::optional(span.task) : std::nullopt, number(span.span), parent, ns(span.start), ns(span.end),
           code(span.outcome), text_or_null(span.error_type), text_or_null(span.error), span.tasks);
  span.id = writer_.database.last_id();
  if (planted(Fault::early_outbox)) sql("DELETE FROM span_outbox WHERE id = ?").run(span.id);
  closed.push_back(std::move(span));
}

void SqliteStore::settle(WorkerId worker, Ns now, Ends& ends, std::vector<EnclosingSpan>& closed) {
  while (!ends.parents.empty()) {
    const auto level = ends.parents.extract(ends.parents.begin());
    for (const auto& [id, delta] : level.mapped()) {
      // A subtree in which something failed for good never completes: it stays "computed".
      Statement& s = sql(
          "UPDATE task SET open_children = open_children - ?1, closed_at = max(closed_at, ?2), broken = broken | ?3, "
          "state = iif(open_children = ?1 AND (broken | ?3) = 0, 4, state) WHERE id = ?4 "
          "RETURNING open_children, job, parent, grp, depth, kind, parent_span, subtasks_span, "
          "ifnull(reopened_at, ended_at), closed_at, broken, cut");
      s.bind(delta.count, delta.end, delta.broken, id);
      if (!s.step()) continue;
      const bool is_closed = s.integer(0) == 0;
      const Position position{s.integer(1), s.integer(2), s.integer(3), static_cast<int>(s.integer(4))};
      const std::int64_t kind_id = s.integer(5), parent_span = s.integer(6), span = s.integer(7);
      const Ns start = s.integer(8), end = s.integer(9);
      const int broken = static_cast<int>(s.integer(10));
      const bool is_cut = s.integer(11) != 0;
      s.reset();
      if (!is_closed) continue;
      Statement& count = sql("SELECT count(*) FROM task WHERE job = ? AND parent = ?");
      count.bind(position.job, id).step();
      const auto children = static_cast<std::uint64_t>(count.integer(0));
      count.reset();
      close_span(worker,
                 {.job = job_record(position.job),
                  .task = id,
                  .name = kind(kind_id).first,
                  .span = span_id(span),
                  .parent = span_id(parent_span),
                  .start = timestamp(start),
                  .end = timestamp(end),
                  .outcome = subtree_outcome(broken),
                  .error_type = {},
                  .error = {},
                  .submitter = {},
                  .tasks = children},
                 closed);
      subtree_ended(position, end, span, is_cut ? 0 : broken, ends);
    }
  }

  for (const auto& [id, delta] : ends.groups) {
    Statement& s = sql(
        "UPDATE grp SET open = open - ?1, last_span = iif(?2 >= last_end, ?3, last_span), last_end = max(last_end, ?2) "
        "WHERE id = ?4 RETURNING open, last_span, last_end");
    s.bind(delta.count, delta.end, delta.span, id);
    if (!s.step()) continue;
    const bool is_closed = s.integer(0) == 0;
    const std::int64_t span = s.integer(1);
    const Ns end = s.integer(2);
    s.reset();
    if (!is_closed || planted(Fault::no_countdown)) continue;
    for (int times = planted(Fault::double_countdown) ? 2 : 1; times > 0; --times) {
      sql("UPDATE task SET deps_left = deps_left - 1, dep_span = iif(?1 >= ifnull(dep_end, 0), ?2, dep_span), "
          "dep_end = max(ifnull(dep_end, 0), ?1), ready_at = ?3, "
          "state = iif(state = 0 AND deps_left = 1, iif(run_at > ?3, 9, 1), state) "
          "WHERE id IN (SELECT task FROM dep WHERE grp = ?4)")
          .run(end, span, now, id);
      ends.made_ready += static_cast<std::uint64_t>(writer_.database.changes());
    }
  }
  ends.groups.clear();

  // Finished jobs come last: stop_job() counts what is open anew.
  for (const auto& [id, delta] : std::exchange(ends.jobs, {})) {
    // RETURNING would cost as much as the rest of it.
    sql("UPDATE job SET open_roots = open_roots - ?1, tasks_done = tasks_done + ?2, ended_at = max(ended_at, ?3) "
        "WHERE id = ?4")
        .run(delta.roots, delta.done, delta.end, id);
    if (delta.roots == 0) continue;
    Statement& s = sql("SELECT open_roots FROM job WHERE id = ?");
    const bool finished = s.bind(id).step() && s.integer(0) == 0;
    s.reset();
    if (finished) finish_job(id, worker, now, ends, closed);
  }
  for (const std::int64_t job : std::exchange(ends.stopped, {})) stop_job(job, worker, now, ends, closed);
}

// Nothing of this job starts any more. Running tasks are asked to stop by whoever runs them; the job is finished, and
// its span ended, when the last of them has.
void SqliteStore::stop_job(std::int64_t job, WorkerId worker, Ns now, Ends& ends, std::vector<EnclosingSpan>& closed) {
  ends.tell = true;
  sql("UPDATE task SET state = 7 WHERE job = ? AND state IN (0, 1, 9)").run(job);
  const std::int64_t skipped = writer_.database.changes();
  sql("UPDATE job SET tasks_done = tasks_done + ? WHERE id = ?").run(skipped, job);
  if (skipped == 0) return;  // so nothing is open that was not before

  struct Open {
    std::int64_t id, kind, parent_span, span;
    Ns start, end;
    int broken;
  };
  std::vector<Open> computed;
  Statement& list =
      sql("SELECT id, kind, parent_span, subtasks_span, ifnull(reopened_at, ended_at) FROM task "
          "WHERE job = ? AND state = 3 AND open_children > 0 ORDER BY depth DESC");
  for (list.bind(job); list.step();) {
    computed.push_back({list.integer(0), list.integer(1), list.integer(2), list.integer(3), list.integer(4), 0, 0});
  }
  for (Open& task : computed) {
    Statement& count =
        sql("SELECT count(*) FILTER (WHERE state = 2 OR (state = 3 AND open_children > 0)), max(closed_at), "
            // A subtree that is open yet will tell when it is closed.
            "max(state = 5 OR (open_children = 0 AND cut = 0 AND broken & 1)) | "
            "(max((state IN (7, 8) AND skipped_by IS NULL) OR (open_children = 0 AND cut = 0 AND broken & 2)) << 1), "
            "count(*) "
            "FROM task WHERE job = ? AND parent = ?");
    count.bind(job, task.id).step();
    const std::int64_t open = count.integer(0);
    const Ns end = count.integer(1);
    const std::int64_t broken = count.integer(2);
    const auto children = static_cast<std::uint64_t>(count.integer(3));
    count.reset();
    Statement& update =
        sql("UPDATE task SET open_children = ?1, closed_at = max(closed_at, ?2), broken = broken | ?3 WHERE id = ?4 "
            "RETURNING closed_at, broken");
    update.bind(open, end, broken, task.id).step();
    task.end = update.integer(0);
    task.broken = static_cast<int>(update.integer(1));
    update.reset();
    if (open > 0) continue;
    close_span(worker,
               {.job = job_record(job),
                .task = task.id,
                .name = kind(task.kind).first,
                .span = span_id(task.span),
                .parent = span_id(task.parent_span),
                .start = timestamp(task.start),
                .end = timestamp(task.end),
                .outcome = subtree_outcome(task.broken),
                .error_type = {},
                .error = {},
                .submitter = {},
                .tasks = children},
               closed);
  }
  Statement& roots =
      sql("UPDATE job SET open_roots = (SELECT count(*) FROM task WHERE job = ?1 AND parent IS NULL "
          "AND (state = 2 OR (state = 3 AND open_children > 0))) WHERE id = ?1 AND finished_at IS NULL "
          "RETURNING open_roots");
  const bool finished = roots.bind(job).step() && roots.integer(0) == 0;
  roots.reset();
  if (finished) finish_job(job, worker, now, ends, closed);
}

void SqliteStore::finish_job(std::int64_t id, WorkerId worker, Ns now, Ends& ends, std::vector<EnclosingSpan>& closed) {
  Statement& s =
      // A job of which everything was done before it could be stopped has completed.
      sql("UPDATE job SET state = CASE WHEN stopping = 0 THEN 2 WHEN stopping = 1 THEN 3 WHEN EXISTS(SELECT 1 FROM task "
          "WHERE job = ?2 AND skipped_by IS NULL AND state IN (5, 7, 8)) THEN 4 ELSE 2 END, "
          "finished_at = max(?1, ended_at) WHERE id = ?2 AND finished_at IS NULL "
          "RETURNING state, ifnull(opened_at, submitted_at), ended_at, parent_span, submitter, error_type, error, tasks, "
          "finished_at, traceparent, first_span");
  s.bind(now, id);
  if (!s.step()) return;
  const auto state = static_cast<JobState>(s.integer(0));
  EnclosingSpan span;
  span.job = job_record(id);
  if (const auto own = from_traceparent(s.text(9))) span.span = own->span_id;  // a retried job has another
  if (!s.null(10)) span.first = span_id(s.integer(10));
  if (!s.null(3)) span.parent = span_id(s.integer(3));
  span.start = timestamp(s.integer(1));
  // Where no attempt ever ended, the job did when it was stopped.
  span.end = timestamp(std::max(s.integer(1), s.integer(2) ? s.integer(2) : s.integer(8)));
  span.outcome = state == JobState::completed ? TaskState::completed
                 : state == JobState::failed  ? TaskState::failed
                                              : TaskState::canceled;
  if (auto submitter = from_traceparent(s.text(4))) span.submitter = *submitter;
  span.error_type = s.text(5);
  span.error = s.text(6);
  span.tasks = static_cast<std::uint64_t>(s.integer(7));
  s.reset();
  close_span(worker, std::move(span), closed);
  ends.tell = true;
}

// ------ claiming

WorkerId SqliteStore::join(const NewWorker& worker) {
  const std::scoped_lock lock(writing_);
  WorkerId id = 0;
  Worker known;
  transact([&] {
    const Ns t = now();
    known.cluster = cluster_number(worker.cluster);
    known.tasks = worker.tasks;
    sql("INSERT INTO worker(runner, name, host, pid, cluster, lease, joined_at, lease_until) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .run(worker.runner, worker.name, worker.host, worker.process_id, known.cluster, worker.lease.count(), t,
             t + worker.lease.count());
    id = writer_.database.last_id();
    for (const TaskName& task : worker.tasks) {
      const Version v = version_of(task);
      sql("INSERT INTO worker_task(worker, name, major, minor) VALUES (?, ?, ?, ?)")
          .run(id, task.name, v.major, v.minor);
    }
  });
  workers_[id] = std::move(known);
  return id;
}

std::optional<Timestamp> SqliteStore::renew(WorkerId worker) {
  const std::scoped_lock lock(writing_);
  std::optional<Timestamp> end;
  transact([&] {
    Statement& s = sql("UPDATE worker SET lease_until = ? + lease WHERE id = ? RETURNING lease_until");
    if (s.bind(now(), worker).step()) end = timestamp(s.integer(0));
    s.reset();
    if (planted(Fault::no_fence) && !end) end = timestamp(now());
  });
  return end;
}

void SqliteStore::remove_worker(WorkerId worker) {
  sql("DELETE FROM worker WHERE id = ?").run(worker);
  sql("DELETE FROM worker_task WHERE worker = ?").run(worker);
}

void SqliteStore::leave(WorkerId worker) {
  const std::scoped_lock lock(writing_);
  Ends ends;
  transact([&] {
    const Ns t = now();
    std::vector<EnclosingSpan> closed;  // of jobs that were being stopped: in the outbox, for others
    for (const auto& [task, held] : held_) {
      if (held.worker != worker) continue;
      Finish back;
      back.task = task;
      back.attempt = held.attempt;
      back.result = TaskResult::released;
      back.started = false;
      back.end = timestamp(t);
      finish(worker, back, t, ends);
    }
    settle(worker, t, ends, closed);
    remove_worker(worker);
  });
  workers_.erase(worker);
  forget_held(worker);
  if (ends.tell || ends.made_ready > 0) wake_.notify();
}

// True while this worker's cluster hands out tasks. Learns of changed limits by the way.
bool SqliteStore::refresh_settings(const Worker& worker) {
  Statement& s = sql("SELECT paused, (SELECT version FROM setting WHERE id = 1) FROM cluster WHERE id = ?");
  const bool open = s.bind(worker.cluster).step() && s.integer(0) == 0;
  const std::int64_t version = s.integer(1);
  s.reset();
  if (version == settings_version_) return open;
  limiters_.clear();
  Statement& list = sql("SELECT id, task, key, max_running, rate, per FROM limiter ORDER BY id");
  for (list.bind(); list.step();) {
    limiters_.push_back({list.integer(0),
                         {.task = std::string(list.text(1)),
                          .key = std::string(list.text(2)),
                          .max_running = static_cast<std::uint32_t>(list.integer(3)),
                          .rate = static_cast<std::uint32_t>(list.integer(4)),
                          .per = std::chrono::nanoseconds(list.integer(5))}});
  }
  keyed_kinds_.clear();
  Statement& keyed = sql("SELECT id FROM kind WHERE keyed = 1");
  for (keyed.bind(); keyed.step();) keyed_kinds_.insert(keyed.integer(0));
  settings_version_ = version;
  return open;
}

void SqliteStore::refresh_kinds(Worker& worker) {
  Statement& newest = sql("SELECT max(id) FROM kind");
  newest.bind().step();
  const std::int64_t id = newest.integer(0);
  newest.reset();
  if (id == worker.newest_kind) return;
  worker.kinds.clear();
  for (std::int64_t k = 1; k <= id; ++k) {
    const auto& [name, version] = kind(k);
    // Of several that fit, the oldest: it is nearest to what was submitted.
    std::optional<std::uint32_t> best;
    int best_minor = 0;
    for (std::uint32_t i = 0; i < worker.tasks.size(); ++i) {
      const Version own = version_of(worker.tasks[i]);
      if (worker.tasks[i].name != name.name || own.major != version.major || own.minor < version.minor) continue;
      if (!best || own.minor < best_minor) {
        best = i;
        best_minor = own.minor;
      }
    }
    if (best) worker.kinds.emplace_back(k, *best);
  }
  worker.newest_kind = id;
}

void SqliteStore::list_stopping(WorkerId worker, Exchanged& result) {
  Statement& s =
      sql("SELECT t.id FROM job j CROSS JOIN task t ON t.job = j.id AND t.worker = ? AND t.state = 2 "
          "WHERE j.stopping > 0 AND j.finished_at IS NULL");
  for (s.bind(worker); s.step();) result.stopping.push_back(s.integer(0));
}

bool SqliteStore::anything_for(const Exchange& exchange, Worker& worker, Ns now, Exchanged& result) {
  if (!exchange.finishes.empty() || !exchange.progress.empty() || !exchange.recorded.empty()) return true;
  if (exchange.want > 0) {
    refresh_kinds(worker);
    const bool open = refresh_settings(worker);
    for (const auto& [kind_id, index] : worker.kinds) {
      if (!open) break;
      Statement& s = sql(kAnyReady);
      const bool found = s.bind(worker.cluster, kind_id).step();
      s.reset();
      if (found) return true;
    }
    next_due(now, result);
    if (result.due && result.due->count() <= 0) return true;
  }
  list_stopping(exchange.worker, result);
  return false;
}

Exchanged SqliteStore::exchange(const Exchange& exchange) {
  const std::scoped_lock lock(writing_);
  Exchanged result;
  const auto known = workers_.find(exchange.worker);
  if (known == workers_.end()) {
    result.lease_lost = true;
    result.accepted.assign(exchange.finishes.size(), false);
    return result;
  }
  // An idle runner only reads.
  if (!anything_for(exchange, known->second, now(), result)) return result;
  result = {};

  if (planted(Fault::other_span) && !exchange.recorded.empty()) hold_fault_open();
  Ends ends;
  const auto step = [&](bool together) {
    result = {};
    ends = {};
    claimed_.clear();
    const Ns t = now();
    Statement& alive = sql("SELECT 1 FROM worker WHERE id = ?");
    result.lease_lost = !alive.bind(exchange.worker).step() && !planted(Fault::no_fence);
    alive.reset();
    if (result.lease_lost) return;
    for (const std::int64_t id : exchange.recorded) sql("DELETE FROM span_outbox WHERE id = ?").run(id);
    for (const ProgressReport& p : exchange.progress) {
      const auto held = held_.find(p.task);
      if (held == held_.end() || held->second.worker != exchange.worker || held->second.attempt != p.attempt) continue;
      sql("INSERT OR REPLACE INTO progress(job, task, label, done, total) VALUES (?, ?, ?, ?, ?)")
          .run(held->second.job, p.task, p.label, p.done, p.total);
    }
    finish_all(exchange.worker, exchange.finishes, together, t, ends, result.accepted);
    settle(exchange.worker, t, ends, result.closed);
    if (exchange.want > 0) claim(exchange, known->second, t, result, ends);
    list_stopping(exchange.worker, result);
  };
  try {
    transact([&] { step(!planted(Fault::no_fence)); });
  } catch (const NotTogether&) {
    transact([&] { step(false); });
  }

  if (planted(Fault::early_outbox) && !result.closed.empty()) hold_fault_open();
  if (result.lease_lost) {
    result.accepted.assign(exchange.finishes.size(), false);
    workers_.erase(known);
    forget_held(exchange.worker);
    return result;
  }
  for (const Finish& f : exchange.finishes) {
    if (holds(exchange.worker, f)) held_.erase(f.task);
  }
  for (auto& [task, held] : std::exchange(claimed_, {})) held_.insert_or_assign(task, held);
  // Whoever waits elsewhere need not know of work that was taken at once.
  const bool more = ends.made_ready > result.claimed.size() ||
                    (exchange.want > 0 && result.claimed.size() == exchange.want && ends.made_ready > 0);
  if (more || ends.tell) wake_.notify();
  return result;
}

// How many tasks may start in one claim, by the limits that fit them. Costs nothing where there are none.
class Allowances {
 public:
  Allowances(SqliteStore& store, Ns now) : store_(&store), now_(now) {}

  [[nodiscard]] bool any() const noexcept { return !store_->limiters_.empty(); }
  [[nodiscard]] bool limits(std::int64_t kind, const std::string& key) {
    return any() && std::any_of(store_->limiters_.begin(), store_->limiters_.end(), [&](const Limiter& l) {
             return l.fits(store_->kind(kind).first.name, key);
           });
  }
  [[nodiscard]] std::size_t left(std::int64_t kind, const std::string& key) {
    std::size_t least = SIZE_MAX;
    for (const Limiter& limiter : store_->limiters_) {
      if (limiter.fits(store_->kind(kind).first.name, key)) least = std::min(least, left(bucket(limiter, key)));
    }
    return least;
  }
  // Those that let nothing start.
  [[nodiscard]] std::vector<Limit> exhausted(std::int64_t kind, const std::string& key) {
    std::vector<Limit> limits;
    for (const Limiter& limiter : store_->limiters_) {
      if (limiter.fits(store_->kind(kind).first.name, key) && left(bucket(limiter, key)) == 0) limits.push_back(limiter.limit);
    }
    return limits;
  }
  bool take(std::int64_t kind, const std::string& key) {
    if (left(kind, key) == 0) return false;
    for (const Limiter& limiter : store_->limiters_) {
      if (!limiter.fits(store_->kind(kind).first.name, key)) continue;
      Bucket& b = bucket(limiter, key);
      ++b.running;
      b.tokens -= 1;
      b.taken = true;
    }
    return true;
  }
  // Keeps what was taken, and says when a rate allows the next.
  std::optional<std::chrono::nanoseconds> write() {
    std::optional<std::chrono::nanoseconds> due;
    for (const auto& [name, b] : buckets_) {
      const Limit& limit = b.limiter->limit;
      if (limit.rate == 0) continue;
      if (b.taken) {
        store_->sql("INSERT OR REPLACE INTO bucket(limiter, key, tokens, at) VALUES (?, ?, ?, ?)")
            .run(name.first, name.second, b.tokens, now_);
      }
      if (b.tokens >= 1) continue;
      const auto wait = std::chrono::nanoseconds(
          1 + static_cast<Ns>((1 - b.tokens) * static_cast<double>(limit.per.count()) / limit.rate));
      due = due ? std::min(*due, wait) : wait;
    }
    return due;
  }

 private:
  struct Bucket {
    const Limiter* limiter = nullptr;
    std::uint64_t running = 0;
    double tokens = 0;
    bool taken = false;  // to be written
  };
  struct Running {
    std::string task;
    std::string key;
    std::uint64_t count;
  };

  static std::size_t left(const Bucket& b) {
    const Limit& limit = b.limiter->limit;
    std::size_t n = SIZE_MAX;
    if (limit.max_running > 0) n = limit.max_running > b.running ? limit.max_running - b.running : 0;
    if (limit.rate > 0) n = std::min(n, b.tokens >= 1 ? static_cast<std::size_t>(b.tokens) : 0);
    return n;
  }
  Bucket& bucket(const Limiter& limiter, const std::string& key) {
    const std::string name = limiter.bucket(key);
    auto [it, is_new] = buckets_.try_emplace({limiter.id, name});
    Bucket& b = it->second;
    if (!is_new) return b;
    b.limiter = &limiter;
    if (limiter.limit.max_running > 0) {
      for (const Running& r : running()) {
        if (limiter.fits(r.task, r.key) && limiter.bucket(r.key) == name) b.running += r.count;
      }
    }
    if (limiter.limit.rate > 0) {
      b.tokens = limiter.limit.rate;  // full, where nothing is known
      Statement& s = store_->sql("SELECT tokens, at FROM bucket WHERE limiter = ? AND key = ?");
      if (s.bind(limiter.id, name).step()) {
        const Ns passed = now_ - s.integer(1);
        b.taken = passed < 0;  // the clock was set back: it goes on from now
        const double since = static_cast<double>(std::max<Ns>(0, passed));
        const double refilled = since * limiter.limit.rate / static_cast<double>(limiter.limit.per.count());
        b.tokens = std::min<double>(limiter.limit.rate, s.real(0) + refilled);
      }
      s.reset();
    }
    return b;
  }
  // Counted, not kept: what is counted can't be wrong.
  const std::vector<Running>& running() {
    if (running_) return *running_;
    running_.emplace();
    Statement& s =
        store_->sql("SELECT kind, limit_key, count(*) FROM task INDEXED BY task_running WHERE state = 2 GROUP BY 1, 2");
    for (s.bind(); s.step();) {
      running_->push_back({store_->kind(s.integer(0)).first.name, std::string(s.text(1)),
                           static_cast<std::uint64_t>(s.integer(2))});
    }
    return *running_;
  }

  SqliteStore* store_;
  Ns now_;
  std::map<std::pair<std::int64_t, std::string>, Bucket> buckets_;
  std::optional<std::vector<Running>> running_;
};

void SqliteStore::claim(const Exchange& exchange, Worker& worker, Ns now, Exchanged& result, Ends& ends) {
  if (first_due() <= now) {
    sql("UPDATE task SET state = 1, ready_at = run_at, run_at = NULL WHERE state = 9 AND run_at <= ?").run(now);
    ends.made_ready += static_cast<std::uint64_t>(writer_.database.changes());
  }
  refresh_kinds(worker);

  if (!refresh_settings(worker)) {
    next_due(now, result);
    return;
  }
  struct Candidate {
    std::int64_t priority, id, kind;
    std::uint32_t type;
    std::uint32_t key;  // index into `keys`
  };
  std::vector<std::string> keys = {{}};
  std::vector<Candidate> found;
  Allowances allowances(*this, now);
  const std::int64_t change = keyed_kinds_.empty() ? 0 : writer_.change();
  std::vector<Worker::Keys*> looked_at;
  for (const auto& [kind_id, type] : worker.kinds) {
    const std::size_t most = std::min(exchange.want, allowances.left(kind_id, {}));
    if (most > 0) {
      Statement& s = sql(kClaim);
      for (s.bind(worker.cluster, kind_id, static_cast<std::int64_t>(most)); s.step();) {
        found.push_back({s.integer(1), s.integer(0), kind_id, type, 0});
      }
    }
    if (!keyed_kinds_.contains(kind_id)) continue;
    // The keys of this kind, in turn; not all of very many at once.
    Worker::Keys& turn = worker.keys[kind_id];
    looked_at.push_back(&turn);
    if (turn.change != change || turn.due <= now) {
      turn.rounds = 0;
      turn.due = INT64_MAX;
    }
    std::string& from = turn.from;
    std::string after = from;
    bool wrapped = from.empty();
    std::size_t looked = 0;
    for (const std::size_t enough = found.size() + exchange.want;;) {
      Statement& next =
          sql("SELECT limit_key FROM task WHERE state = 1 AND cluster = ? AND kind = ? AND limit_key > ? "
              "ORDER BY limit_key LIMIT 1");
      const bool more = next.bind(worker.cluster, kind_id, after).step();
      std::string key(more ? next.text(0) : std::string_view());
      next.reset();
      if (!more && !wrapped) {
        ++turn.rounds;
        wrapped = true;
        after.clear();
        continue;
      }
      if (!more || (wrapped && !from.empty() && key > from)) {
        turn.rounds = 2;
        from.clear();
        break;
      }
      const std::size_t allowed = std::min(exchange.want, allowances.left(kind_id, key));
      if (allowed > 0) {
        turn.rounds = 0;
        keys.push_back(key);
        const auto index = static_cast<std::uint32_t>(keys.size() - 1);
        Statement& s = sql(kClaimKeyed);
        for (s.bind(worker.cluster, kind_id, key, static_cast<std::int64_t>(allowed)); s.step();) {
          found.push_back({s.integer(1), s.integer(0), kind_id, type, index});
        }
      }
      after = std::move(key);
      if (++looked >= kKeysAtOnce) {
        // Once all were seen to be at their limit, there is nothing to be found before something changes.
        if (found.size() < enough && turn.rounds < 2) result.due = kLookAgain;
        from = after;
        break;
      }
    }
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.id < b.id;
  });
  if (allowances.any()) {
    std::vector<Candidate> allowed;
    for (const Candidate& c : found) {
      if (allowed.size() < exchange.want && allowances.take(c.kind, keys[c.key])) allowed.push_back(c);
    }
    found = std::move(allowed);
    std::optional<std::chrono::nanoseconds> due = allowances.write();
    for (Worker::Keys* turn : looked_at) {
      if (due) turn->due = std::min(turn->due, now + due->count());
      if (turn->due != INT64_MAX) due = std::chrono::nanoseconds(turn->due - now);
    }
    if (due) result.due = result.due ? std::min(*result.due, *due) : *due;
  }
  const std::size_t n = std::min(found.size(), exchange.want);
  found.resize(n);

  // Read and written along their ids, and handed out in the order of their priorities.
  rows_.clear();
  for (std::size_t i = 0; i < n; ++i) {
    rows_.list(found[i].id, number(SpanId::random()), static_cast<std::int64_t>(i));
  }
  result.claimed.resize(n);
  rows_.stretches([&](std::int64_t lowest, std::int64_t highest, std::int64_t) {
    Statement& s = sql(
        "SELECT job, parent, grp, depth, attempt, failures, lost, max_retries, input, parent_span, span, dep_span, deps, "
        "created_at, ready_at, boundary, optional, timeout, backoff, id FROM task WHERE id BETWEEN ? AND ?");
    for (s.bind(lowest, highest); s.step();) {
      const Rows::Row* row = rows_.find(s.integer(19));
      if (!row) continue;
      const auto place = static_cast<std::size_t>(row->second);
      const Candidate& candidate = found[place];
      ClaimedTask& task = result.claimed[place];
      task.task = candidate.id;
      task.type = candidate.type;
      task.job = job_record(s.integer(0));
      task.parent = s.integer(1);
      task.attempt = static_cast<std::uint32_t>(s.integer(4)) + 1;
      task.failures = static_cast<std::uint32_t>(s.integer(5));
      task.lost = static_cast<std::uint32_t>(s.integer(6));
      task.max_retries = static_cast<std::uint32_t>(s.integer(7));
      task.input = s.text(8);
      task.span = span_id(row->first);
      task.parent_span = span_id(s.integer(9));
      if (task.attempt > 1) task.previous_attempt = span_id(s.integer(10));
      task.last_dependency = span_id(s.integer(11));
      task.dependencies = static_cast<std::uint32_t>(s.integer(12));
      const Ns created = s.integer(13), ready = s.integer(14);
      task.not_before = timestamp(created);
      task.queue_wait = std::chrono::nanoseconds(std::max<Ns>(0, now - ready));
      if (task.dependencies > 0) task.dependency_wait = std::chrono::nanoseconds(std::max<Ns>(0, ready - created));
      const int depth = static_cast<int>(s.integer(3));
      task.timeout = std::chrono::nanoseconds(s.integer(17));
      task.backoff = backoff(s.integer(18));
      claimed_.insert_or_assign(candidate.id, Held{.worker = exchange.worker,
                                                   .attempt = task.attempt,
                                                   .job = s.integer(0),
                                                   .parent = task.parent,
                                                   .group = s.integer(2),
                                                   .cluster = worker.cluster,
                                                   .depth = depth,
                                                   .span = row->first,
                                                   .boundary = s.integer(16) ? candidate.id : s.integer(15),
                                                   .limited = allowances.limits(candidate.kind, keys[candidate.key])});
      if (depth == 0 && task.job->number != begun_job_) {
        begun_job_ = task.job->number;
        sql("UPDATE job SET state = 1, started_at = ifnull(started_at, ?) WHERE id = ? AND (state = 0 OR started_at IS NULL)")
            .run(now, begun_job_);
      }
    }
    if (lowest == highest) {  // SQLite copies the pages that a statement for several rows changes
      sql("UPDATE task SET state = 2, attempt = attempt + 1, worker = ?, prev_span = iif(attempt > 0, span, NULL), "
          "span = ?, started_at = ? WHERE id = ?")
          .run(exchange.worker, rows_.find(lowest)->first, now, lowest);
      return;
    }
    sql("UPDATE task SET state = 2, attempt = attempt + 1, worker = ?, prev_span = iif(attempt > 0, span, NULL), "
        "span = row_first(id), started_at = ? WHERE id BETWEEN ? AND ? AND row_listed(id)")
        .run(exchange.worker, now, lowest, highest);
  });

  if (!looked_at.empty()) {
    const std::int64_t changed = writer_.change();
    for (Worker::Keys* turn : looked_at) turn->change = changed;
  }
  next_due(now, result);
}

Ns SqliteStore::first_due() {
  Statement& s = sql("SELECT run_at FROM task WHERE state = 9 ORDER BY run_at LIMIT 1");
  const Ns due = s.bind().step() ? s.integer(0) : INT64_MAX;
  s.reset();
  return due;
}

void SqliteStore::next_due(Ns now, Exchanged& result) {
  const Ns due = first_due();
  if (due == INT64_MAX) return;
  const std::chrono::nanoseconds left(due - now);
  result.due = result.due ? std::min(*result.due, left) : left;
}

// ------ upkeep

// `known` is what the dead process's telemetry tells; without it, every attempt is charged and ended at `end`.
void SqliteStore::lose(WorkerId worker, const std::unordered_map<std::int64_t, LostAttempt>* known, Ns end,
                       std::uint32_t max_lost, Ns now, Ends& ends, Released& released) {
  struct Running {
    std::int64_t id, job, parent, group, span, lost, boundary;
    int depth;
  };
  std::vector<Running> running;
  Statement& list =
      sql("SELECT id, job, parent, grp, span, lost, depth, iif(optional, id, ifnull(boundary, 0)) FROM task "
          "WHERE worker = ? AND state = 2");
  for (list.bind(worker); list.step();) {
    running.push_back({list.integer(0), list.integer(1), list.integer(2), list.integer(3), list.integer(4),
                       list.integer(5), list.integer(7), static_cast<int>(list.integer(6))});
  }
  if (planted(Fault::lost_task)) running.clear();
  for (const Running& task : running) {
    bool charged = true;
    bool started = true;
    Ns ended = end;
    std::int64_t span = task.span;
    if (known) {
      if (const auto it = known->find(task.id); it != known->end()) {
        charged = it->second.charged;
        ended = ns(it->second.end);
      } else if (job_record(task.job)->span.sampled()) {
        started = charged = false;  // it was waiting for a thread: a started one would have had a span
        ended = span = 0;
      }
    }
    const std::int64_t skipped_by = cut_by(task.boundary);
    const bool being_stopped = skipped_by != 0 || is_stopping(task.job);
    if (!started && !being_stopped) {
      sql("UPDATE task SET state = 1, ready_at = ?, attempt = attempt - 1, span = prev_span, worker = NULL "
          "WHERE id = ?")
          .run(now, task.id);
      ++ends.made_ready;
      ++released.tasks;
      continue;
    }
    const bool failed = charged && task.lost + 1 >= max_lost;
    const bool stopping = !failed && being_stopped;
    const std::string message =
        failed ? "its runner was lost while it ran, " + std::to_string(task.lost + 1) + " times" : std::string();
    if (started) {
      sql("INSERT OR REPLACE INTO attempt(task, n, worker, started_at, ended_at, outcome, span, error_type) "
          "SELECT id, attempt, worker, started_at, ?, ?, span, 'runner_lost' FROM task WHERE id = ?")
          .run(ended, static_cast<int>(charged ? AttemptEnd::lost_charged : AttemptEnd::lost), task.id);
    }
    sql("UPDATE task SET state = ?1, lost = lost + ?2, ready_at = ?3, worker = NULL, closed_at = max(closed_at, ?4), "
        "ended_at = ?4, error_type = ?5, error = ?6, skipped_by = ?8 WHERE id = ?7")
        .run(code(failed     ? (task.boundary ? TaskState::failed_optional : TaskState::failed)
                  : stopping ? TaskState::canceled
                             : TaskState::ready),
             charged, now, ended, failed ? std::optional("runner_lost") : std::nullopt, text_or_null(message), task.id,
             stopping && skipped_by ? std::optional(skipped_by) : std::nullopt);
    if (!started) forget_attempt(task.id);
    if (!failed && !stopping) {
      sql("DELETE FROM progress WHERE job = ? AND task = ?").run(task.job, task.id);
      ++ends.made_ready;
      ++released.tasks;
      continue;
    }
    auto& job = ends.jobs[task.job];
    ++job.done;
    job.end = std::max(job.end, ended);
    const bool own_boundary = task.boundary == task.id && (failed || skipped_by != 0);
    subtree_ended({task.job, task.parent, task.group, task.depth}, ended, span,
                  own_boundary ? 0 : failed ? kFailedWithin : kSkippedWithin, ends);
    if (failed) {
      ++released.failed;
      const Held held{.job = task.job, .boundary = task.boundary};
      failed_for_good(held, task.id, "runner_lost", message, ends);
    }
  }
  remove_worker(worker);
  ends.tell = true;
}

void SqliteStore::take_leftovers(WorkerId by, std::vector<EnclosingSpan>& spans) {
  constexpr int kAtOnce = 1000;
  Statement& s = sql(
      "SELECT o.id, o.job, o.task, o.span, o.parent, o.started_at, o.ended_at, o.outcome, o.error_type, o.error, "
      "o.tasks, t.kind, j.submitter, j.first_span FROM span_outbox o JOIN job j ON j.id = o.job LEFT JOIN task t ON t.id = o.task "
      "WHERE o.worker IS NULL OR o.worker NOT IN (SELECT id FROM worker) ORDER BY o.id LIMIT ?");
  const std::size_t first = spans.size();
  for (s.bind(kAtOnce); s.step();) {
    EnclosingSpan span;
    span.id = s.integer(0);
    span.job = job_record(s.integer(1));
    span.task = s.integer(2);
    if (span.task) span.name = kind(s.integer(11)).first;
    span.span = planted(Fault::other_span) ? SpanId::random() : span_id(s.integer(3));
    if (!s.null(4)) span.parent = span_id(s.integer(4));
    span.start = timestamp(s.integer(5));
    span.end = timestamp(s.integer(6));
    span.outcome = static_cast<TaskState>(s.integer(7));
    span.error_type = s.text(8);
    span.error = s.text(9);
    span.tasks = static_cast<std::uint64_t>(s.integer(10));
    if (span.task == 0) {
      if (auto submitter = from_traceparent(s.text(12))) span.submitter = *submitter;
      if (!s.null(13) && span_id(s.integer(13)) != span.span) span.first = span_id(s.integer(13));
    }
    spans.push_back(std::move(span));
  }
  for (std::size_t i = first; i < spans.size(); ++i) {
    sql("UPDATE span_outbox SET worker = ? WHERE id = ?").run(by, spans[i].id);
  }
}

Released SqliteStore::sweep(WorkerId by, std::uint32_t max_lost) {
  const std::scoped_lock lock(writing_);
  Released released;
  Statement& any =
      sql("SELECT EXISTS(SELECT 1 FROM worker WHERE lease_until < ?1 OR lease_until > ?1 + lease) OR "
          "EXISTS(SELECT 1 FROM span_outbox WHERE worker IS NULL OR worker NOT IN (SELECT id FROM worker))");
  any.bind(now()).step();
  const bool needed = any.integer(0) != 0;
  any.reset();
  if (!needed) return released;
  Ends ends;
  transact([&] {
    released = {};
    const Ns t = now();
    // Given before the clock was set back: of one who died then, it would not end for as long.
    sql("UPDATE worker SET lease_until = ?1 + lease WHERE lease_until > ?1 + lease").run(t);
    std::vector<std::pair<WorkerId, Ns>> dead;
    // Not by one whose own lease has ended since it was renewed: what has kept it may have kept the others.
    Statement& list = sql("SELECT id, lease_until FROM worker WHERE lease_until < ?1 AND "
                          "EXISTS(SELECT 1 FROM worker WHERE id = ?2 AND lease_until >= ?1)");
    for (list.bind(t, by); list.step();) dead.emplace_back(list.integer(0), list.integer(1));
    for (const auto& [worker, until] : dead) lose(worker, nullptr, until, max_lost, t, ends, released);
    settle(by, t, ends, released.spans);
    take_leftovers(by, released.spans);
  });
  if (ends.tell || ends.made_ready > 0) wake_.notify();
  return released;
}

Released SqliteStore::release(WorkerId by, std::string_view runner, std::span<const LostAttempt> lost,
                              std::uint32_t max_lost) {
  const std::scoped_lock lock(writing_);
  std::unordered_map<std::int64_t, LostAttempt> known;
  for (const LostAttempt& attempt : lost) known[attempt.task] = attempt;
  Released released;
  Ends ends;
  transact([&] {
    released = {};
    const Ns t = now();
    std::vector<WorkerId> workers;
    Statement& list = sql("SELECT id FROM worker WHERE runner = ?");
    for (list.bind(runner); list.step();) workers.push_back(list.integer(0));
    for (const WorkerId worker : workers) lose(worker, &known, t, max_lost, t, ends, released);
    settle(by, t, ends, released.spans);
    take_leftovers(by, released.spans);
  });
  if (ends.tell || ends.made_ready > 0) wake_.notify();
  return released;
}

bool SqliteStore::idle(WorkerId id) {
  const std::scoped_lock lock(writing_);
  const auto known = workers_.find(id);
  if (known == workers_.end()) return false;
  Worker& worker = known->second;
  refresh_kinds(worker);
  const auto any = [](Statement& s) {
    const bool found = s.step();
    s.reset();
    return found;
  };
  bool waiting = false;
  for (const auto& [kind_id, type] : worker.kinds) {
    if (any(sql(kAnyReady).bind(worker.cluster, kind_id))) return false;
    for (const char* open : {"SELECT 1 FROM task WHERE state = 9 AND kind = ? AND cluster = ? LIMIT 1",
                             "SELECT 1 FROM task WHERE state = 2 AND kind = ? AND cluster = ? LIMIT 1"}) {
      if (any(sql(open).bind(kind_id, worker.cluster))) return false;
    }
    waiting |= any(
        sql("SELECT 1 FROM task WHERE state = 0 AND kind = ? AND cluster = ? LIMIT 1").bind(kind_id, worker.cluster));
  }
  if (!waiting) return true;
  // What it waits for is another runner's, if there is one: it runs, or would be taken by somebody.
  if (any(sql("SELECT 1 FROM task WHERE state = 2 LIMIT 1").bind())) return false;
  return !any(sql("SELECT 1 FROM worker w JOIN worker_task wt ON wt.worker = w.id JOIN kind k ON k.name = wt.name "
                  "AND k.major = wt.major AND k.minor <= wt.minor "
                  "WHERE w.id <> ? AND ("
                  "EXISTS(SELECT 1 FROM task WHERE state = 1 AND cluster = w.cluster AND kind = k.id) OR "
                  "EXISTS(SELECT 1 FROM task WHERE state = 9 AND cluster = w.cluster AND kind = k.id)) LIMIT 1")
                  .bind(id));
}

// ------ looking

// What read_job() reads.
#define WAYMARK_JOB_COLUMNS                                                                            \
  "SELECT j.id, j.uid, j.name, j.state, j.submitted_at, j.started_at, j.finished_at, j.traceparent, "       \
  "j.error_type, j.error, j.failed_task, j.tasks, j.tasks_done, c.name, j.idempotency_key, j.retries "      \
  "FROM job j LEFT JOIN cluster c ON c.id = j.cluster "

Job SqliteStore::read_job(const Statement& s) {
  Job job;
  job.id = s.text(1);
  job.name = s.text(2);
  job.state = static_cast<JobState>(s.integer(3));
  job.submitted_at = timestamp(s.integer(4));
  job.started_at = timestamp(s.integer(5));
  job.finished_at = timestamp(s.integer(6));
  if (auto context = from_traceparent(s.text(7))) job.trace_id = context->trace_id;
  job.error_type = s.text(8);
  job.error = s.text(9);
  if (!s.null(10)) job.failed_task = std::to_string(s.integer(10));
  job.tasks = static_cast<std::uint64_t>(s.integer(11));
  job.tasks_done = static_cast<std::uint64_t>(s.integer(12));
  job.cluster = s.text(13);
  job.key = s.text(14);
  job.retries = static_cast<std::uint32_t>(s.integer(15));
  return job;
}

void SqliteStore::read_progress(std::int64_t number, Job& job) {
  Statement& p =
      reader_.sql("SELECT label, sum(done), sum(total) FROM progress WHERE job = ? GROUP BY label ORDER BY label");
  for (p.bind(number); p.step();) {
    job.progress.push_back(
        {std::string(p.text(0)), static_cast<std::uint64_t>(p.integer(1)), static_cast<std::uint64_t>(p.integer(2))});
  }
}

std::optional<Job> SqliteStore::find(std::string_view id) {
  const std::scoped_lock lock(reading_);
  reader_.database.check_present();  // in one that was removed nothing ever changes
  Statement& s = reader_.sql(WAYMARK_JOB_COLUMNS "WHERE j.uid = ?");
  if (!s.bind(id).step()) return std::nullopt;
  const std::int64_t number = s.integer(0);
  Job job = read_job(s);
  s.reset();
  read_progress(number, job);
  return job;
}

JobPage SqliteStore::query(const JobFilter& filter) {
  constexpr std::size_t kMost = 10'000;
  if (filter.limit == 0 || filter.limit > kMost) {
    throw Error(ErrorCode::invalid_argument, "JobFilter::limit: expected 1 to " + std::to_string(kMost));
  }
  Ns before = INT64_MAX;
  std::int64_t before_number = INT64_MAX;
  if (!filter.cursor.empty()) {
    const char* end = filter.cursor.data() + filter.cursor.size();
    const auto time = std::from_chars(filter.cursor.data(), end, before);
    const auto rest = time.ptr < end && *time.ptr == '.' ? std::from_chars(time.ptr + 1, end, before_number) : time;
    if (time.ec != std::errc() || rest.ec != std::errc() || rest.ptr != end || time.ptr == rest.ptr) {
      throw Error(ErrorCode::invalid_argument, "JobFilter::cursor: expected JobPage::next of the page before");
    }
  }
  std::int64_t states = 0;
  for (const JobState state : filter.states) states |= std::int64_t{1} << static_cast<int>(state);
  const std::scoped_lock lock(reading_);
  Statement& s = reader_.sql(WAYMARK_JOB_COLUMNS
                             "WHERE (j.submitted_at, j.id) < (?1, ?2) AND j.submitted_at >= ?3 AND j.submitted_at < ?4 "
                             "AND (?5 = 0 OR (?5 >> j.state) & 1) AND (?6 = '' OR instr(lower(j.name), lower(?6)) > 0) "
                             "AND (?7 = '' OR c.name = ?7) AND substr(j.uid, 1, length(?8)) = ?8 "
                             "ORDER BY j.submitted_at DESC, j.id DESC LIMIT ?9");
  s.bind(before, before_number, ns(filter.submitted_after),
         filter.submitted_before == Timestamp{} ? INT64_MAX : ns(filter.submitted_before), states, filter.name,
         filter.cluster, filter.id, static_cast<std::int64_t>(filter.limit + 1));
  JobPage page;
  std::vector<std::int64_t> numbers;
  while (s.step()) {
    if (page.jobs.size() == filter.limit) {
      page.next = std::to_string(ns(page.jobs.back().submitted_at)) + "." + std::to_string(numbers.back());
      break;
    }
    numbers.push_back(s.integer(0));
    page.jobs.push_back(read_job(s));
  }
  s.reset();
  for (std::size_t i = 0; i < numbers.size(); ++i) read_progress(numbers[i], page.jobs[i]);
  return page;
}

// What read_task() reads.
#define WAYMARK_TASK_COLUMNS                                                                               \
  "SELECT t.id, t.parent, k.name, k.major, k.minor, t.state, t.attempt, t.failures, t.lost, t.error_type, t.error, "    \
  "t.started_at, t.ended_at, iif(t.state = 9, t.run_at, 0), t.display, c.name, t.limit_key, t.priority, t.optional, "   \
  "t.grp, j.uid, j.name, t.kind, t.cluster, t.worker FROM task t JOIN job j ON j.id = t.job "                         \
  "JOIN kind k ON k.id = t.kind JOIN cluster c ON c.id = t.cluster "

TaskInfo SqliteStore::read_task(const Statement& s) {
  TaskInfo task;
  task.id = std::to_string(s.integer(0));
  if (!s.null(1)) task.parent = std::to_string(s.integer(1));
  task.name = s.text(2);
  task.version = version_text(s.integer(3), s.integer(4));
  task.state = static_cast<TaskState>(s.integer(5));
  task.attempts = static_cast<std::uint32_t>(s.integer(6));
  task.failures = static_cast<std::uint32_t>(s.integer(7));
  task.lost = static_cast<std::uint32_t>(s.integer(8));
  task.error_type = s.text(9);
  task.error = s.text(10);
  task.started_at = timestamp(s.integer(11));
  task.ended_at = timestamp(s.integer(12));
  task.due_at = timestamp(s.integer(13));
  task.display = s.text(14);
  task.cluster = s.text(15);
  task.limit_key = s.text(16);
  task.priority = static_cast<std::int32_t>(s.integer(17));
  task.optional = s.integer(18) != 0;
  if (!s.null(19)) task.group = std::to_string(s.integer(19));
  return task;
}

std::vector<TaskInfo> SqliteStore::tasks(std::string_view id) {
  const std::scoped_lock lock(reading_);
  std::vector<TaskInfo> tasks;
  std::unordered_map<std::int64_t, std::size_t> places;
  Statement& s = reader_.sql(WAYMARK_TASK_COLUMNS "WHERE j.uid = ? ORDER BY t.id");
  for (s.bind(id); s.step();) {
    places.emplace(s.integer(0), tasks.size());
    tasks.push_back(read_task(s));
  }
  Statement& after = reader_.sql(
      "SELECT d.task, d.grp FROM job j JOIN grp g ON g.job = j.id JOIN dep d ON d.grp = g.id WHERE j.uid = ? ORDER BY d.grp");
  for (after.bind(id); after.step();) {
    if (const auto place = places.find(after.integer(0)); place != places.end()) {
      tasks[place->second].after.push_back(std::to_string(after.integer(1)));
    }
  }
  return tasks;
}

std::vector<WorkerInfo> SqliteStore::workers() {
  const std::scoped_lock lock(reading_);
  const Ns t = now();
  std::vector<WorkerInfo> workers;
  std::unordered_map<std::int64_t, std::size_t> places;
  Statement& s = reader_.sql(
      "SELECT w.id, w.runner, w.name, w.host, w.pid, c.name, w.joined_at, w.lease_until FROM worker w "
      "LEFT JOIN cluster c ON c.id = w.cluster ORDER BY w.id");
  for (s.bind(); s.step();) {
    places.emplace(s.integer(0), workers.size());
    workers.push_back({.runner = std::string(s.text(1)),
                       .name = std::string(s.text(2)),
                       .host = std::string(s.text(3)),
                       .process_id = static_cast<std::uint64_t>(s.integer(4)),
                       .cluster = std::string(s.text(5)),
                       .tasks = {},
                       .joined_at = timestamp(s.integer(6)),
                       .lease = std::chrono::nanoseconds(s.integer(7) - t),
                       .running = {}});
  }
  Statement& can = reader_.sql("SELECT worker, name, major, minor FROM worker_task ORDER BY worker, name, major, minor");
  for (can.bind(); can.step();) {
    if (const auto place = places.find(can.integer(0)); place != places.end()) {
      workers[place->second].tasks.push_back({std::string(can.text(1)), version_text(can.integer(2), can.integer(3))});
    }
  }
  Statement& running = reader_.sql(WAYMARK_TASK_COLUMNS "WHERE t.state = 2 ORDER BY t.worker, t.id");
  for (running.bind(); running.step();) {
    if (const auto place = places.find(running.integer(24)); place != places.end()) {
      workers[place->second].running.push_back(
          {std::string(running.text(20)), std::string(running.text(21)), read_task(running)});
    }
  }
  return workers;
}

#define WAYMARK_QUEUE(state)                                                                               \
  "SELECT c.name, k.name, q.n FROM (SELECT cluster, kind, count(*) AS n FROM task WHERE state = " state \
  " GROUP BY 1, 2) q JOIN cluster c ON c.id = q.cluster JOIN kind k ON k.id = q.kind"

Activity SqliteStore::activity(std::chrono::nanoseconds period) {
  const std::scoped_lock lock(reading_);
  const Ns t = now();
  const Ns since = t - period.count();
  struct Measured {
    TaskActivity counts;
    std::vector<Ns> waits;
    std::vector<Ns> runs;
  };
  std::map<std::pair<std::string, std::string>, Measured> all;
  const auto of = [&](const Statement& row) -> Measured& {
    return all[{std::string(row.text(0)), std::string(row.text(1))}];
  };
  for (const auto& [count, text] :
       {std::pair{&TaskActivity::waiting, WAYMARK_QUEUE("0")},
        std::pair{&TaskActivity::scheduled, WAYMARK_QUEUE("9")},
        std::pair{&TaskActivity::ready, WAYMARK_QUEUE("1")},
        std::pair{&TaskActivity::running, WAYMARK_QUEUE("2")}}) {
    Statement& s = reader_.sql(text);
    for (s.bind(); s.step();) of(s).counts.*count += static_cast<std::uint64_t>(s.integer(2));
  }
  Activity activity;
  activity.now = timestamp(t);
  Statement& open = reader_.sql("SELECT count(*) FROM job WHERE finished_at IS NULL");
  open.bind().step();
  activity.open_jobs = static_cast<std::uint64_t>(open.integer(0));
  open.reset();
  Statement& s = reader_.sql(
      "SELECT c.name, k.name, t.state, t.ready_at, t.started_at, t.ended_at, "
      "iif(t.failures + t.attempt > 1, (SELECT count(*) FROM attempt a WHERE a.task = t.id AND a.outcome < 4 AND "
      "a.ended_at >= ?1), iif(t.state IN (5, 6) AND t.ended_at >= ?1, t.failures, 0)) "
      "FROM job j CROSS JOIN task t ON t.job = j.id JOIN cluster c ON c.id = t.cluster JOIN kind k ON k.id = t.kind "
      "WHERE (j.finished_at IS NULL OR j.finished_at >= ?1) AND (t.started_at >= ?1 OR t.ended_at >= ?1)");
  for (s.bind(since); s.step();) {
    Measured& m = of(s);
    const auto state = static_cast<TaskState>(s.integer(2));
    m.counts.failed += static_cast<std::uint64_t>(s.integer(6));
    if (!s.null(3) && s.integer(4) >= since) m.waits.push_back(std::max<Ns>(0, s.integer(4) - s.integer(3)));
    if ((state == TaskState::computed || state == TaskState::completed) && s.integer(5) >= since) {
      ++m.counts.computed;
      m.runs.push_back(std::max<Ns>(0, s.integer(5) - s.integer(4)));
    }
  }
  const auto percentile = [](std::vector<Ns>& values, std::size_t percent) {
    if (values.empty()) return std::chrono::nanoseconds(0);
    const auto at = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) * percent / 100);
    std::nth_element(values.begin(), at, values.end());
    return std::chrono::nanoseconds(*at);
  };
  for (auto& [names, m] : all) {
    m.counts.cluster = names.first;
    m.counts.name = names.second;
    m.counts.wait_p50 = percentile(m.waits, 50);
    m.counts.wait_p99 = percentile(m.waits, 99);
    m.counts.run_p50 = percentile(m.runs, 50);
    m.counts.run_p99 = percentile(m.runs, 99);
    activity.tasks.push_back(std::move(m.counts));
  }
  return activity;
}

// On the connection that writes, since it knows how limits are counted.
std::optional<TaskWait> SqliteStore::wait_of(std::string_view id) {
  const std::scoped_lock lock(writing_);
  std::int64_t task = 0;
  const auto parsed = std::from_chars(id.data(), id.data() + id.size(), task);
  if (parsed.ec != std::errc() || parsed.ptr != id.data() + id.size()) return std::nullopt;
  const Ns t = now();
  Statement& s = sql(WAYMARK_TASK_COLUMNS "WHERE t.id = ?");
  if (!s.bind(task).step()) return std::nullopt;
  TaskWait wait;
  wait.task = read_task(s);
  wait.job = s.text(20);
  const std::int64_t kind_id = s.integer(22), cluster = s.integer(23), worker = s.integer(24);
  s.reset();
  const TaskState state = wait.task.state;
  const auto first_open = [&](Statement& list) {
    for (; list.step(); ++wait.open) {
      if (wait.open == 0) wait.next = std::to_string(list.integer(0));
    }
  };
  if (state == TaskState::waiting) {
    first_open(sql("SELECT t.id FROM dep d JOIN grp g ON g.id = d.grp AND g.open > 0 JOIN task t ON t.job = g.job AND "
                   "t.grp = g.id WHERE d.task = ? AND (t.state IN (0, 1, 2, 9) OR (t.state = 3 AND t.open_children > 0)) "
                   "ORDER BY t.id")
                   .bind(task));
  } else if (state == TaskState::computed) {
    first_open(sql("SELECT t.id FROM task p JOIN task t ON t.job = p.job AND t.parent = p.id WHERE p.id = ? AND "
                   "(t.state IN (0, 1, 2, 9) OR (t.state = 3 AND t.open_children > 0)) ORDER BY t.id")
                   .bind(task));
  } else if (state == TaskState::running) {
    Statement& by = sql("SELECT runner FROM worker WHERE id = ?");
    if (by.bind(worker).step()) wait.runner = by.text(0);
    by.reset();
  }
  if (state != TaskState::ready && state != TaskState::scheduled) return wait;

  Statement& takers =
      sql("SELECT count(DISTINCT w.id) FROM worker w JOIN worker_task wt ON wt.worker = w.id JOIN kind k ON k.name = wt.name "
          "AND k.major = wt.major AND k.minor <= wt.minor WHERE k.id = ? AND w.cluster = ? AND w.lease_until >= ?");
  takers.bind(kind_id, cluster, t).step();
  wait.takers = static_cast<std::uint64_t>(takers.integer(0));
  takers.reset();
  Worker here;
  here.cluster = cluster;
  wait.paused = !refresh_settings(here);
  if (state == TaskState::scheduled) {
    wait.due = wait.task.due_at - timestamp(t);
    return wait;
  }
  wait.limits = Allowances(*this, t).exhausted(kind_id, wait.task.limit_key);
  Statement& ahead =
      sql("SELECT count(*) FROM task WHERE state = 1 AND cluster = ?1 AND (priority > ?2 OR (priority = ?2 AND id < ?3))");
  ahead.bind(cluster, wait.task.priority, task).step();
  wait.ahead = static_cast<std::uint64_t>(ahead.integer(0));
  ahead.reset();
  return wait;
}

std::uint64_t SqliteStore::vacuum() {
  const std::scoped_lock lock(writing_);
  writer_.database.check_present();
  const auto size = [&] {
    Statement& s = sql("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
    s.bind().step();
    const std::int64_t bytes = s.integer(0);
    s.reset();
    return bytes;
  };
  const std::int64_t before = size();
  writer_.database.execute("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);");
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, before - size()));
}

// ------ changing jobs

void SqliteStore::cancel(std::string_view id) {
  const std::scoped_lock lock(writing_);
  Ends ends;
  transact([&] {
    Statement& s =
        sql("UPDATE job SET stopping = 2 WHERE uid = ? AND finished_at IS NULL AND stopping = 0 RETURNING id");
    if (s.bind(id).step()) ends.stopped.push_back(s.integer(0));
    s.reset();
    std::vector<EnclosingSpan> closed;  // they stay in the outbox, for a runner
    settle(0, now(), ends, closed);
  });
  if (ends.tell) wake_.notify();
}

std::uint64_t SqliteStore::retry(std::string_view id) {
  const std::scoped_lock lock(writing_);
  std::uint64_t again = 0;
  transact([&] {
    again = 0;
    const Ns t = now();
    Statement& find = sql("SELECT id, traceparent FROM job WHERE uid = ? AND state IN (3, 4) AND finished_at IS NOT NULL");
    if (!find.bind(id).step()) return;
    const std::int64_t job = find.integer(0);
    std::optional<SpanContext> context = from_traceparent(find.text(1));
    find.reset();
    const SpanId first = context ? context->span_id : SpanId::random();

    // What is to run again waits for everything, until it is known for what.
    sql("UPDATE task SET state = 0, failures = 0, lost = 0, worker = NULL, error_type = NULL, error = NULL, "
        // Its delay stays; the wait before a next attempt does not.
        "run_at = iif(failures = 0 AND run_at > ?1, run_at, NULL), created_at = ?1, ready_at = NULL, deps_left = 0, closed_at = max(closed_at, ?1) "
        "WHERE job = ?2 AND state IN (5, 7, 8) AND skipped_by IS NULL")
        .run(t, job);
    again = static_cast<std::uint64_t>(writer_.database.changes());
    if (again == 0) return;
    sql("DELETE FROM progress WHERE job = ?1 AND task IN (SELECT id FROM task WHERE job = ?1 AND state = 0)").run(job);

    // Subtrees above it are open again, from below to above.
    std::vector<std::int64_t> computed;
    Statement& list = sql("SELECT id FROM task WHERE job = ? AND state = 3 ORDER BY depth DESC");
    for (list.bind(job); list.step();) computed.push_back(list.integer(0));
    std::vector<std::int64_t> open;
    for (const std::int64_t task : computed) {
      Statement& count =
          sql("SELECT count(*) FROM task WHERE job = ? AND parent = ? AND (state = 0 OR (state = 3 AND open_children > 0))");
      count.bind(job, task).step();
      const std::int64_t children = count.integer(0);
      count.reset();
      if (children == 0) continue;
      sql("UPDATE task SET open_children = ?, broken = 0, reopened_at = ?, closed_at = max(closed_at, ?2) WHERE id = ?")
          .run(children, t, task);
      open.push_back(task);
    }

    // Then what waits for what.
    sql("UPDATE grp SET open = 0 WHERE job = ?").run(job);
    std::vector<std::pair<std::int64_t, std::int64_t>> groups;
    Statement& members =
        sql("SELECT grp, count(*) FROM task WHERE job = ? AND grp IS NOT NULL AND "
            "(state = 0 OR (state = 3 AND open_children > 0)) GROUP BY grp");
    for (members.bind(job); members.step();) groups.emplace_back(members.integer(0), members.integer(1));
    for (const auto& [group, size] : groups) {
      sql("UPDATE grp SET open = ? WHERE id = ?").run(size, group);
      // +state: along the group's members, not along all of the job for each group.
      sql("UPDATE task SET deps_left = deps_left + 1 WHERE +state = 0 AND id IN (SELECT task FROM dep WHERE grp = ?)")
          .run(group);
    }
    sql("UPDATE task SET state = iif(run_at > ?1, 9, 1), ready_at = iif(run_at > ?1, NULL, ?1) "
        "WHERE job = ?2 AND state = 0 AND deps_left = 0")
        .run(t, job);

    // New enclosing spans; a first one keeps its children.
    const std::int64_t root_span = number(SpanId::random());
    sql("UPDATE task SET parent_span = ? WHERE job = ? AND parent IS NULL AND "
        "(state IN (0, 1, 9) OR (state = 3 AND open_children > 0))")
        .run(root_span, job);
    for (const std::int64_t task : open) {
      const std::int64_t span = number(SpanId::random());
      sql("UPDATE task SET subtasks_span = ? WHERE id = ?").run(span, task);
      sql("UPDATE task SET parent_span = ? WHERE job = ? AND parent = ? AND "
          "(state IN (0, 1, 9) OR (state = 3 AND open_children > 0))")
          .run(span, job, task);
    }
    if (context) context->span_id = span_id(root_span);
    const std::string traceparent = context ? to_traceparent(*context) : std::string();
    sql("UPDATE job SET state = iif(started_at IS NULL, 0, 1), stopping = 0, finished_at = NULL, error_type = NULL, error = NULL, failed_task = NULL, "
        "tasks_done = tasks_done - ?1, retries = retries + 1, opened_at = ?2, ended_at = max(ended_at, ?2), "
        "first_span = ifnull(first_span, ?3), traceparent = ?4, parent_span = NULL, "
        "open_roots = (SELECT count(*) FROM task WHERE job = ?5 AND parent IS NULL AND "
        "(state IN (0, 1, 9) OR (state = 3 AND open_children > 0))) WHERE id = ?5")
        .run(again, t, number(first), traceparent, job);
    jobs_.erase(job);
  });
  if (again > 0) wake_.notify();
  return again;
}

void SqliteStore::pause(std::string_view cluster, bool paused) {
  const std::scoped_lock lock(writing_);
  transact([&] {
    sql("UPDATE cluster SET paused = ? WHERE id = ?").run(paused, cluster_number(std::string(cluster)));
  });
  wake_.notify();
}

std::vector<Cluster> SqliteStore::clusters() {
  const std::scoped_lock lock(reading_);
  std::vector<Cluster> clusters;
  Statement& s = reader_.sql("SELECT name, paused FROM cluster ORDER BY name");
  for (s.bind(); s.step();) clusters.push_back({std::string(s.text(0)), s.integer(1) != 0});
  return clusters;
}

void SqliteStore::limit(const Limit& l) {
  if (l.rate > 0 && l.per.count() <= 0) throw Error(ErrorCode::invalid_argument, "Limit::per: expected more than 0");
  const std::scoped_lock lock(writing_);
  transact([&] {
    if (l.max_running == 0 && l.rate == 0) {
      sql("DELETE FROM bucket WHERE limiter IN (SELECT id FROM limiter WHERE task = ? AND key = ?)").run(l.task, l.key);
      sql("DELETE FROM limiter WHERE task = ? AND key = ?").run(l.task, l.key);
    } else {
      sql("INSERT INTO limiter(task, key, max_running, rate, per) VALUES (?1, ?2, ?3, ?4, ?5) "
          "ON CONFLICT(task, key) DO UPDATE SET max_running = ?3, rate = ?4, per = ?5")
          .run(l.task, l.key, l.max_running, l.rate, detail::bounded(l.per).count());
    }
    sql("UPDATE setting SET version = version + 1").run();
  });
  wake_.notify();
}

std::vector<Limit> SqliteStore::limits() {
  const std::scoped_lock lock(reading_);
  std::vector<Limit> limits;
  Statement& s = reader_.sql("SELECT task, key, max_running, rate, per FROM limiter ORDER BY task, key");
  for (s.bind(); s.step();) {
    limits.push_back({.task = std::string(s.text(0)),
                      .key = std::string(s.text(1)),
                      .max_running = static_cast<std::uint32_t>(s.integer(2)),
                      .rate = static_cast<std::uint32_t>(s.integer(3)),
                      .per = std::chrono::nanoseconds(s.integer(4))});
  }
  return limits;
}

// ------ automations

std::vector<Automation> SqliteStore::automations() {
  const std::scoped_lock lock(reading_);
  std::vector<Automation> all;
  Statement& s = reader_.sql(
      "SELECT name, kind, schedule, time_zone, missed, directory, pattern, task, version, input, cluster, max_retries, "
      "priority, paused, created_at, looked_at, fired_at, last_job, jobs, revision FROM automation ORDER BY name");
  for (s.bind(); s.step();) {
    all.push_back({.name = std::string(s.text(0)),
                   .kind = s.integer(1) == 0 ? AutomationKind::cron : AutomationKind::directory,
                   .schedule = std::string(s.text(2)),
                   .time_zone = std::string(s.text(3)),
                   .missed = static_cast<MissedRuns>(s.integer(4)),
                   .directory = std::string(s.text(5)),
                   .pattern = std::string(s.text(6)),
                   .task = {std::string(s.text(7)), std::string(s.text(8))},
                   .input = std::string(s.text(9)),
                   .cluster = std::string(s.text(10)),
                   .max_retries = static_cast<std::uint32_t>(s.integer(11)),
                   .priority = static_cast<std::int32_t>(s.integer(12)),
                   .paused = s.integer(13) != 0,
                   .created_at = timestamp(s.integer(14)),
                   .looked_at = timestamp(s.integer(15)),
                   .last_fired_at = timestamp(s.integer(16)),
                   .next_at = {},
                   .last_job = std::string(s.text(17)),
                   .jobs = static_cast<std::uint64_t>(s.integer(18)),
                   .revision = static_cast<std::uint64_t>(s.integer(19))});
  }
  return all;
}

void SqliteStore::keep(const Automation& a) {
  const std::scoped_lock lock(writing_);
  transact([&] {
    sql("INSERT INTO automation(name, kind, schedule, time_zone, missed, directory, pattern, task, version, input, "
        "cluster, max_retries, priority, created_at, looked_at) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14) ON CONFLICT(name) DO UPDATE SET "
        "looked_at = iif(kind = ?2 AND schedule = ?3 AND time_zone = ?4, looked_at, ?14), kind = ?2, schedule = ?3, "
        "time_zone = ?4, missed = ?5, directory = ?6, pattern = ?7, task = ?8, version = ?9, input = ?10, "
        "cluster = ?11, max_retries = ?12, priority = ?13, revision = revision + 1")
        .run(a.name, static_cast<int>(a.kind), a.schedule, a.time_zone, static_cast<int>(a.missed), a.directory,
             a.pattern, a.task.name, a.task.version, a.input, a.cluster, a.max_retries, a.priority, now());
  });
  wake_.notify();
}

bool SqliteStore::pause_automation(std::string_view name, bool paused) {
  const std::scoped_lock lock(writing_);
  bool found = false;
  transact([&] {
    sql("UPDATE automation SET paused = ?1, looked_at = iif(paused AND NOT ?1, ?2, looked_at), revision = revision + 1 "
        "WHERE name = ?3")
        .run(paused, now(), name);
    found = writer_.database.changes() > 0;
  });
  wake_.notify();
  return found;
}

bool SqliteStore::remove_automation(std::string_view name) {
  const std::scoped_lock lock(writing_);
  bool found = false;
  transact([&] {
    sql("DELETE FROM automation_file WHERE automation = (SELECT id FROM automation WHERE name = ?)").run(name);
    sql("DELETE FROM automation WHERE name = ?").run(name);
    found = writer_.database.changes() > 0;
  });
  wake_.notify();
  return found;
}

std::vector<std::string> SqliteStore::new_files(std::string_view name, std::span<const std::string> paths) {
  const std::scoped_lock lock(reading_);
  std::vector<std::string> left;
  Statement& s = reader_.sql(
      "SELECT 1 FROM automation_file WHERE automation = (SELECT id FROM automation WHERE name = ?) AND path = ?");
  for (const std::string& path : paths) {
    if (!s.bind(name, path).step()) left.push_back(path);
    s.reset();
  }
  return left;
}

bool SqliteStore::advance(const AutomationStep& step) {
  const std::scoped_lock lock(writing_);
  bool taken = false;
  transact([&] {
    taken = false;
    Statement& s = sql("SELECT id FROM automation WHERE name = ? AND revision = ? AND (paused = 0 OR ?)");
    std::int64_t id = 0;
    if (s.bind(step.name, step.revision, step.also_paused).step()) id = s.integer(0);
    s.reset();
    if (id == 0) return;
    if (!step.path.empty()) {
      sql("INSERT INTO automation_file(automation, path) VALUES (?, ?) ON CONFLICT DO NOTHING").run(id, step.path);
      if (writer_.database.changes() == 0) return;
    }
    taken = true;
    if (step.tick) {
      sql("UPDATE automation SET looked_at = ?, revision = revision + 1 WHERE id = ?").run(ns(*step.tick), id);
    }
    if (!step.job) return;
    const Ns submitted = insert_job(*step.job);
    sql("UPDATE automation SET fired_at = ?, last_job = ?, jobs = jobs + 1 WHERE id = ?")
        .run(submitted, step.job->id, id);
  });
  if (taken && step.job) wake_.notify();
  return taken;
}

// ------ what tasks keep

std::optional<std::string> SqliteStore::find_step(std::int64_t task, std::string_view name) {
  const std::scoped_lock lock(reading_);
  Statement& s = reader_.sql("SELECT value FROM step WHERE task = ? AND name = ?");
  std::optional<std::string> value;
  if (s.bind(task, name).step()) value = s.text(0);
  s.reset();
  return value;
}

bool SqliteStore::keep_step(WorkerId worker, std::int64_t task, std::uint32_t attempt, std::string_view name,
                            std::string_view result) {
  const std::scoped_lock lock(writing_);
  bool kept = false;
  transact([&] {
    sql("INSERT OR REPLACE INTO step(task, name, value) SELECT id, ?, ? FROM task "
        "WHERE id = ? AND worker = ? AND attempt = ? AND state = 2")
        .run(name, result, task, worker, attempt);
    kept = writer_.database.changes() > 0;
  });
  return kept;
}

void SqliteStore::display(WorkerId worker, std::int64_t task, std::uint32_t attempt, std::string_view text) {
  const std::scoped_lock lock(writing_);
  transact([&] {
    sql("UPDATE task SET display = ? WHERE id = ? AND worker = ? AND attempt = ? AND state = 2")
        .run(text, task, worker, attempt);
  });
}

std::optional<std::string> SqliteStore::cached(std::int64_t job, std::string_view path, std::string_view key) {
  const std::scoped_lock lock(reading_);
  Statement& s = reader_.sql("SELECT value FROM cache WHERE job = ? AND path = ? AND key = ?");
  std::optional<std::string> value;
  if (s.bind(job, path, key).step()) value = s.text(0);
  s.reset();
  return value;
}

void SqliteStore::cache(std::int64_t job, std::string_view path, std::string_view key,
                        std::optional<std::string_view> bytes) {
  const std::scoped_lock lock(writing_);
  transact([&] {
    if (bytes) {
      sql("INSERT OR REPLACE INTO cache(job, path, key, value) VALUES (?, ?, ?, ?)").run(job, path, key, Bytes{*bytes});
    } else {
      sql("DELETE FROM cache WHERE job = ? AND path = ? AND key = ?").run(job, path, key);
    }
  });
}

std::vector<std::string> SqliteStore::cached_keys(std::int64_t job, std::string_view path) {
  const std::scoped_lock lock(reading_);
  std::vector<std::string> keys;
  Statement& s = reader_.sql("SELECT key FROM cache WHERE job = ? AND path = ? ORDER BY key");
  for (s.bind(job, path); s.step();) keys.emplace_back(s.text(0));
  return keys;
}

// ------ removing

// The newest job and the newest task's job stay: SQLite would give their numbers to others.
Pruned SqliteStore::prune(const Retention& retention, std::size_t rows) {
  const std::scoped_lock lock(writing_);
  Pruned pruned;
  const Ns t = now();
  const Ns oldest = retention.age.count() > 0 ? t - retention.age.count() : 0;
  std::int64_t excess = 0;
  if (retention.jobs > 0) {
    Statement& count = sql("SELECT count(*) FROM job WHERE finished_at IS NOT NULL");
    count.bind().step();
    excess = std::max<std::int64_t>(0, count.integer(0) - static_cast<std::int64_t>(retention.jobs));
    count.reset();
  }
  Statement& any = sql("SELECT EXISTS(SELECT 1 FROM removal) OR EXISTS(SELECT 1 FROM job WHERE finished_at < ?)");
  any.bind(oldest).step();
  const bool needed = any.integer(0) != 0 || excess > 0;
  any.reset();
  if (!needed) return pruned;

  transact([&] {
    pruned = {};
    auto budget = static_cast<std::int64_t>(rows);
    const auto spent = [&] { budget -= writer_.database.changes(); };
    std::vector<std::pair<std::int64_t, std::string>> jobs;
    Statement& choose =
        sql("SELECT id, uid, finished_at FROM job WHERE finished_at IS NOT NULL AND id < (SELECT max(id) FROM job) AND "
            "id <> (SELECT job FROM task ORDER BY id DESC LIMIT 1) AND "
            "NOT EXISTS (SELECT 1 FROM span_outbox WHERE span_outbox.job = job.id) ORDER BY finished_at, id LIMIT ?");
    const std::int64_t at_once = std::max<std::int64_t>(1, budget / 10);
    for (choose.bind(at_once); choose.step();) {
      if (choose.integer(2) >= oldest && static_cast<std::int64_t>(jobs.size()) >= excess) break;
      jobs.emplace_back(choose.integer(0), choose.text(1));
    }
    choose.reset();
    for (const auto& [job, uid] : jobs) {
      sql("DELETE FROM job WHERE id = ?").run(job);
      spent();
      sql("DELETE FROM job_trigger WHERE job = ?").run(job);
      sql("INSERT INTO removal(job, uid) VALUES (?, ?)").run(job, uid);
      jobs_.erase(job);
    }
    pruned.more = static_cast<std::int64_t>(jobs.size()) == at_once && budget < static_cast<std::int64_t>(rows);

    std::vector<std::pair<std::int64_t, std::string>> removals;
    Statement& list = sql("SELECT job, uid FROM removal ORDER BY job LIMIT ?");
    for (list.bind(at_once); list.step();) removals.emplace_back(list.integer(0), list.text(1));
    for (const auto& [job, uid] : removals) {
      if (budget <= 0) {
        pruned.more = true;
        break;
      }
      std::vector<std::int64_t> ids;
      Statement& tasks = sql("SELECT id FROM task WHERE job = ? LIMIT ?");
      for (tasks.bind(job, budget); tasks.step();) ids.push_back(tasks.integer(0));
      for (const std::int64_t task : ids) {
        sql("DELETE FROM attempt WHERE task = ?").run(task);
        sql("DELETE FROM step WHERE task = ?").run(task);
        sql("DELETE FROM task WHERE id = ?").run(task);
        --budget;
      }
      ids.clear();
      Statement& groups = sql("SELECT id FROM grp WHERE job = ? LIMIT ?");
      for (groups.bind(job, std::max<std::int64_t>(budget, 0)); groups.step();) ids.push_back(groups.integer(0));
      for (const std::int64_t group : ids) {
        if (budget <= 0) break;
        sql("DELETE FROM dep WHERE grp = ?").run(group);
        spent();
        sql("DELETE FROM grp WHERE id = ?").run(group);
        spent();
      }
      if (budget > 0) {
        sql("DELETE FROM cache WHERE rowid IN (SELECT rowid FROM cache WHERE job = ? LIMIT ?)").run(job, budget);
        spent();
      }
      if (budget <= 0) {
        pruned.more = true;
        break;
      }
      sql("DELETE FROM progress WHERE job = ?").run(job);
      sql("DELETE FROM removal WHERE job = ?").run(job);
      pruned.jobs.push_back(uid);
    }
    // A bucket that is full again says nothing.
    sql("DELETE FROM bucket WHERE at + (SELECT per FROM limiter WHERE id = limiter) < ?").run(t);
  });
  if (!pruned.jobs.empty()) wake_.notify();
  return pruned;
}

// Each state has an index of its own.
std::vector<TaskCount> SqliteStore::counts() {
  const std::scoped_lock lock(reading_);
  std::vector<TaskCount> all;
  Statement& s = reader_.sql(
      "SELECT c.state, l.name, k.name, k.major, k.minor, c.n FROM ("
      "SELECT 0 AS state, cluster, kind, count(*) AS n FROM task WHERE state = 0 GROUP BY cluster, kind UNION ALL "
      "SELECT 1, cluster, kind, count(*) FROM task WHERE state = 1 GROUP BY cluster, kind UNION ALL "
      "SELECT 2, cluster, kind, count(*) FROM task WHERE state = 2 GROUP BY cluster, kind UNION ALL "
      "SELECT 9, cluster, kind, count(*) FROM task WHERE state = 9 GROUP BY cluster, kind"
      ") c JOIN cluster l ON l.id = c.cluster JOIN kind k ON k.id = c.kind ORDER BY 2, 3, 4, 5, 1");
  for (s.bind(); s.step();) {
    TaskCount& count = all.emplace_back();
    count.state = static_cast<TaskState>(s.integer(0));
    count.cluster = s.text(1);
    count.name = {std::string(s.text(2)), version_text(s.integer(3), s.integer(4))};
    count.tasks = static_cast<std::uint64_t>(s.integer(5));
  }
  return all;
}

// ------ opening

void refuse_network_file_system(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  struct statfs fs{};
  if (statfs(directory.c_str(), &fs) != 0) return;  // opening it will say why
  const char* name = nullptr;
  switch (static_cast<std::uint32_t>(fs.f_type)) {
    case 0x6969: name = "NFS"; break;
    case 0x517b:
    case 0xfe534d42:
    case 0xff534d42: name = "SMB"; break;
    case 0x5346414f: name = "AFS"; break;
    case 0x00c36400: name = "Ceph"; break;
    default: return;
  }
  throw Error(ErrorCode::store, "store " + path + ": it lies on " + name +
                                    ", where SQLite's locks can't be relied on: choose a path on a local disk");
}

std::string default_path(bool make) {
  const char* state = std::getenv("XDG_STATE_HOME");
  std::string directory;
  if (state && *state == '/') {
    directory = state;
  } else {
    const char* home = std::getenv("HOME");
    const passwd* user = home && *home ? nullptr : getpwuid(getuid());
    if (user) home = user->pw_dir;
    if (!home || *home != '/') {
      throw Error(ErrorCode::store,
                  "store: neither XDG_STATE_HOME nor HOME names a directory for the default store: "
                  "set one, or give ClientOptions::store a path");
    }
    directory = std::string(home) + "/.local/state";
  }
  directory += "/waymark";
  for (std::size_t at = 1; make && at != std::string::npos;) {
    at = directory.find('/', at + 1);
    const std::string part = directory.substr(0, at);
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      throw Error(ErrorCode::store, "store: could not make the directory " + part + ": " + std::strerror(errno) +
                                        ": set XDG_STATE_HOME, or give ClientOptions::store a path");
    }
  }
  return directory + "/store.db";
}

}  // namespace

std::string path_of(const std::string& where, bool make) {
  if (where.starts_with("postgresql://") || where.starts_with("postgres://")) {
    throw Error(ErrorCode::store, "store: PostgreSQL is not in this version: give a path, or sqlite:PATH");
  }
  // Without a name it has one of its own, so that nobody else has it.
  if (in_memory(where)) return where.size() > kMemory.size() ? where : where + SpanId::random().hex();
  std::string path = where;
  if (path.starts_with("sqlite:")) {
    path.erase(0, 7);
    if (path.empty()) throw Error(ErrorCode::store, "store: a path is missing after 'sqlite:'");
  }
  if (path.find("://") != std::string::npos) {
    throw Error(ErrorCode::store, "store: a URL of an unknown kind: give a path, or sqlite:PATH");
  }
  return path.empty() ? default_path(make) : path;
}

std::shared_ptr<Store> open_sqlite(const SqliteOptions& options) {
  if (!in_memory(options.path)) refuse_network_file_system(options.path);
  return std::make_shared<SqliteStore>(options);
}

const char* claim_statement() noexcept { return kClaim; }

}  // namespace waymark::store

namespace waymark {

std::shared_ptr<Store> open_store(const std::string& where, std::function<Timestamp()> clock) {
  return store::open_sqlite({.path = store::path_of(where, true), .clock = std::move(clock)});
}

std::string_view job_state_name(JobState state) noexcept {
  constexpr std::string_view names[] = {"submitted", "running", "completed", "failed", "canceled"};
  const auto n = static_cast<std::size_t>(state);
  return n < std::size(names) ? names[n] : std::string_view();
}

std::string_view task_state_name(TaskState state) noexcept {
  constexpr std::string_view names[] = {"waiting", "ready",           "running", "computed", "completed",
                                        "failed",  "failed_optional", "skipped", "canceled", "scheduled"};
  const auto n = static_cast<std::size_t>(state);
  return n < std::size(names) ? names[n] : std::string_view();
}

}  // namespace waymark
