// The SQLite store's tables, as the steps that made them: a new file takes all of them, an older one those it lacks. A step
// that was released is never changed. Times are nanoseconds since 1970 by this machine's clock; span ids are their eight bytes
// taken as one integer; states are TaskState's and JobState's numbers.
//
// Hides: nothing; sqlite.cpp's statements are the only ones that use it.
// Threads: constants.
// Failure: none.
#pragma once

#include <iterator>

namespace waymark::store {

inline constexpr char kSchema1[] = R"sql(
CREATE TABLE schema_version(version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;

CREATE TABLE cluster(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL DEFAULT 0) STRICT;

-- A task's name and version. Few rows; a task has a number instead of two texts.
CREATE TABLE kind(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, major INTEGER NOT NULL, minor INTEGER NOT NULL,
  UNIQUE(name, major, minor)) STRICT;

CREATE TABLE job(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  stopping INTEGER NOT NULL DEFAULT 0,      -- 1: it has failed, 2: it was canceled; its last tasks still run
  open_roots INTEGER NOT NULL,
  tasks INTEGER NOT NULL, tasks_done INTEGER NOT NULL DEFAULT 0,
  submitted_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER,
  ended_at INTEGER NOT NULL DEFAULT 0,      -- the greatest end of an attempt so far
  traceparent TEXT NOT NULL,                -- of its job/ span
  tracestate TEXT, baggage TEXT,
  parent_span INTEGER,                      -- of the job/ span
  submitter TEXT,                           -- traceparent of the submit/ span
  idempotency_key TEXT, automation INTEGER, labels TEXT,
  error_type TEXT, error TEXT, failed_task INTEGER) STRICT;
CREATE UNIQUE INDEX job_idempotency ON job(idempotency_key) WHERE idempotency_key IS NOT NULL AND state < 2;
CREATE INDEX job_list ON job(submitted_at DESC, id DESC);
CREATE INDEX job_stopping ON job(id) WHERE stopping > 0 AND finished_at IS NULL;

CREATE TABLE task(
  id INTEGER PRIMARY KEY, job INTEGER NOT NULL, parent INTEGER,
  depth INTEGER NOT NULL,                   -- 0: a root
  grp INTEGER,                              -- the group it is a member of, where something depends on it
  cluster INTEGER NOT NULL, kind INTEGER NOT NULL,
  state INTEGER NOT NULL,
  priority INTEGER NOT NULL DEFAULT 0, run_at INTEGER,
  deps_left INTEGER NOT NULL DEFAULT 0,     -- groups that are still open
  open_children INTEGER NOT NULL DEFAULT 0, -- subtasks whose subtrees are
  broken INTEGER NOT NULL DEFAULT 0,        -- 1: something in its subtree failed for good
  attempt INTEGER NOT NULL DEFAULT 0,       -- started so far
  failures INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0,
  max_retries INTEGER NOT NULL DEFAULT 0, optional INTEGER NOT NULL DEFAULT 0,
  worker INTEGER,                           -- of the last attempt; with `attempt`, the fence
  timeout INTEGER, concurrency_key TEXT,
  input TEXT NOT NULL, display TEXT,
  parent_span INTEGER NOT NULL,             -- what its attempts and its subtasks/ span hang below
  span INTEGER, prev_span INTEGER,          -- of the last attempt and the one before
  subtasks_span INTEGER,
  deps INTEGER NOT NULL DEFAULT 0,          -- siblings it depends on
  dep_span INTEGER, dep_end INTEGER,        -- of them, the one that finished last
  created_at INTEGER NOT NULL,              -- when its parent's attempt ended, so its spans start no earlier
  ready_at INTEGER, started_at INTEGER,
  ended_at INTEGER,                         -- of the last attempt
  closed_at INTEGER NOT NULL DEFAULT 0,     -- the greatest end in its subtree so far
  error_type TEXT, error TEXT) STRICT;
-- Without run_at: with it, once ANALYZE has run, the claim becomes a skip-scan and a sort. Scheduled is its own state.
-- With state, so that finding candidates reads the index only.
CREATE INDEX task_ready ON task(state, cluster, kind, priority DESC) WHERE state = 1;
CREATE INDEX task_due ON task(run_at, kind) WHERE state = 9;
CREATE INDEX task_running ON task(worker) WHERE state = 2;
CREATE INDEX task_waiting ON task(kind) WHERE state = 0;
CREATE INDEX task_job ON task(job, parent);

-- Tasks with the same dependents: "100 tasks, then 100 tasks" is one group and 100 rows of dep.
CREATE TABLE grp(
  id INTEGER PRIMARY KEY, job INTEGER NOT NULL, open INTEGER NOT NULL,
  last_span INTEGER, last_end INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE dep(grp INTEGER NOT NULL, task INTEGER NOT NULL, PRIMARY KEY(grp, task)) STRICT, WITHOUT ROWID;

-- Attempts that did not compute: outcome 1 failed, 2 lost and charged, 3 lost, 4 given back.
CREATE TABLE attempt(
  task INTEGER NOT NULL, n INTEGER NOT NULL, worker INTEGER, started_at INTEGER, ended_at INTEGER,
  outcome INTEGER NOT NULL, span INTEGER, error_type TEXT, error TEXT,
  PRIMARY KEY(task, n)) STRICT, WITHOUT ROWID;

-- A row is a lease. Ids are never used again, or a worker that lost its lease could come back as another.
CREATE TABLE worker(
  id INTEGER PRIMARY KEY AUTOINCREMENT, runner TEXT NOT NULL, name TEXT NOT NULL, host TEXT NOT NULL,
  pid INTEGER NOT NULL, cluster INTEGER NOT NULL, lease INTEGER NOT NULL, joined_at INTEGER NOT NULL,
  lease_until INTEGER NOT NULL) STRICT;
CREATE TABLE worker_task(
  worker INTEGER NOT NULL, name TEXT NOT NULL, major INTEGER NOT NULL, minor INTEGER NOT NULL,
  PRIMARY KEY(worker, name, major, minor)) STRICT, WITHOUT ROWID;

-- Enclosing spans to be recorded by `worker`; by anybody, once that is gone.
CREATE TABLE span_outbox(
  id INTEGER PRIMARY KEY AUTOINCREMENT, worker INTEGER, job INTEGER NOT NULL, task INTEGER,
  span INTEGER NOT NULL, parent INTEGER, started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL,
  outcome INTEGER NOT NULL, error_type TEXT, error TEXT, tasks INTEGER NOT NULL) STRICT;

CREATE TABLE progress(
  job INTEGER NOT NULL, task INTEGER NOT NULL, label TEXT NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL,
  PRIMARY KEY(job, task, label)) STRICT, WITHOUT ROWID;
)sql";

inline constexpr char kSchema2[] = R"sql(
ALTER TABLE job ADD COLUMN cluster INTEGER;
ALTER TABLE job ADD COLUMN first_span INTEGER;    -- of its first job/ span, once it was retried
ALTER TABLE job ADD COLUMN opened_at INTEGER;     -- when it was retried: its job/ span starts then
ALTER TABLE job ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
UPDATE job SET cluster = (SELECT cluster FROM task WHERE task.job = job.id ORDER BY id LIMIT 1);
DROP INDEX job_idempotency;
CREATE UNIQUE INDEX job_idempotency ON job(idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX job_finished ON job(finished_at) WHERE finished_at IS NOT NULL;

ALTER TABLE kind ADD COLUMN keyed INTEGER NOT NULL DEFAULT 0;   -- 1: a task of it had a limit_key

ALTER TABLE task RENAME COLUMN concurrency_key TO limit_key;
ALTER TABLE task ADD COLUMN boundary INTEGER;     -- the nearest optional task above it
ALTER TABLE task ADD COLUMN cut INTEGER NOT NULL DEFAULT 0;     -- of an optional task, 1: it or something below failed
ALTER TABLE task ADD COLUMN skipped_by INTEGER;   -- the optional failure because of which it never ran
ALTER TABLE task ADD COLUMN reopened_at INTEGER;  -- when its job was retried: its subtasks/ span starts then
ALTER TABLE task ADD COLUMN backoff INTEGER;
-- With limit_key, so that tasks with a key and tasks without are found apart, both along the index only.
DROP INDEX task_ready;
CREATE INDEX task_ready ON task(state, cluster, kind, limit_key, priority DESC) WHERE state = 1;
CREATE INDEX grp_job ON grp(job);

-- Waits before the next attempt, where a task has its own. Few rows.
CREATE TABLE backoff(
  id INTEGER PRIMARY KEY, initial INTEGER NOT NULL, maximum INTEGER NOT NULL, multiplier REAL NOT NULL,
  jitter REAL NOT NULL, UNIQUE(initial, maximum, multiplier, jitter)) STRICT;

-- task '' is any, key '' any or none, key '*' each key by itself; max_running and rate 0 do not limit.
CREATE TABLE limiter(
  id INTEGER PRIMARY KEY, task TEXT NOT NULL, key TEXT NOT NULL, max_running INTEGER NOT NULL, rate INTEGER NOT NULL,
  per INTEGER NOT NULL, UNIQUE(task, key)) STRICT;
CREATE TABLE bucket(
  limiter INTEGER NOT NULL, key TEXT NOT NULL, tokens REAL NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(limiter, key)) STRICT, WITHOUT ROWID;
-- Raised whenever limits or kind.keyed change, so that what processes remember of them stays true.
CREATE TABLE setting(id INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT;
INSERT INTO setting VALUES (1, 0);

CREATE TABLE step(task INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(task, name)) STRICT;
CREATE TABLE cache(
  job INTEGER NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY(job, path, key)) STRICT;
-- Jobs that are gone for everybody, and whose rows are being removed.
CREATE TABLE removal(job INTEGER PRIMARY KEY, uid TEXT NOT NULL) STRICT;
)sql";

inline constexpr char kSchema3[] = R"sql(
-- kind 0: cron, 1: directory; missed is MissedRuns' number. A name that is used again is another automation.
CREATE TABLE automation(
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, kind INTEGER NOT NULL,
  schedule TEXT NOT NULL, time_zone TEXT NOT NULL, missed INTEGER NOT NULL,
  directory TEXT NOT NULL, pattern TEXT NOT NULL,
  task TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL,
  cluster TEXT NOT NULL, max_retries INTEGER NOT NULL, priority INTEGER NOT NULL,
  paused INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL,
  looked_at INTEGER NOT NULL,               -- ticks until then are done with
  fired_at INTEGER, last_job TEXT, jobs INTEGER NOT NULL DEFAULT 0,
  revision INTEGER NOT NULL DEFAULT 1) STRICT;
-- Files that were submitted.
CREATE TABLE automation_file(
  automation INTEGER NOT NULL, path TEXT NOT NULL, PRIMARY KEY(automation, path)) STRICT, WITHOUT ROWID;
-- Why a job was submitted, where an automation did it.
CREATE TABLE job_trigger(
  job INTEGER PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, path TEXT NOT NULL) STRICT;
)sql";

inline constexpr const char* kSchemaSteps[] = {kSchema1, kSchema2, kSchema3};
inline constexpr int kSchemaVersion = static_cast<int>(std::size(kSchemaSteps));

}  // namespace waymark::store
