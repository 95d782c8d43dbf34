// store_version() and check_store(): a store's file from outside, also one that this program can't open.
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "store/database.h"
#include "store/schema.h"
#include "store/sqlite.h"
#include "waymark/error.h"
#include "waymark/store.h"

namespace waymark {
namespace {

using store::Database;
using store::Statement;

std::int64_t number(Database& database, const char* sql) {
  Statement s(database, sql);
  return s.step() ? s.integer(0) : 0;
}

int version_of(Database& database) {
  if (number(database, "SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'") > 0) {
    return static_cast<int>(number(database, "SELECT max(version) FROM schema_version"));
  }
  if (number(database, "SELECT count(*) FROM sqlite_master") > 0) {
    throw Error(ErrorCode::store, "store " + database.path() + ": this is another program's database: give a store's path");
  }
  return 0;
}

// What no step can leave behind, as statements that find where it is so nevertheless. The task or job is the first column.
struct Rule {
  const char* broken;
  const char* sql;
};
constexpr std::array kRules{
    Rule{"job {}: another number of tasks than it says",
         "SELECT uid FROM job j WHERE tasks <> (SELECT count(*) FROM task WHERE job = j.id) LIMIT 10"},
    Rule{"job {}: finished, with tasks that are not",
         "SELECT uid FROM job j WHERE finished_at IS NOT NULL AND EXISTS (SELECT 1 FROM task WHERE job = j.id AND "
         "state IN (0, 1, 2, 9)) LIMIT 10"},
    Rule{"job {}: not finished, with nothing left that could run",
         "SELECT uid FROM job j WHERE finished_at IS NULL AND NOT EXISTS (SELECT 1 FROM task WHERE job = j.id AND "
         "state IN (1, 2, 9)) LIMIT 10"},
    Rule{"task {}: in no job",
         "SELECT id FROM task t WHERE NOT EXISTS (SELECT 1 FROM job WHERE id = t.job) AND "
         "NOT EXISTS (SELECT 1 FROM removal WHERE job = t.job) LIMIT 10"},
    Rule{"task {}: its parent is not there",
         "SELECT id FROM task t WHERE parent IS NOT NULL AND EXISTS (SELECT 1 FROM job WHERE id = t.job) AND "
         "NOT EXISTS (SELECT 1 FROM task WHERE id = t.parent) LIMIT 10"},
    Rule{"task {}: running, and its runner is not there",
         "SELECT id FROM task t WHERE state = 2 AND NOT EXISTS (SELECT 1 FROM worker WHERE id = t.worker) LIMIT 10"},
    Rule{"task {}: waits for another number of groups than are open",
         "SELECT id FROM task t WHERE state = 0 AND (SELECT finished_at IS NULL AND stopping = 0 FROM job WHERE id = t.job) "
         "AND deps_left <> (SELECT count(*) FROM dep d JOIN grp g ON g.id = d.grp WHERE d.task = t.id AND g.open > 0) LIMIT 10"},
};

}  // namespace

StoreVersion store_version(const std::string& where) {
  StoreVersion version;
  version.place = store::path_of(where, false);
  version.known = store::kSchemaVersion;
  struct stat file {};
  if (!store::in_memory(version.place) && stat(version.place.c_str(), &file) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return version;
    throw Error(ErrorCode::store, "store " + version.place + ": could not look at it: " + std::strerror(errno));
  }
  Database database(version.place, std::chrono::seconds(10), Database::Missing::only_look);
  version.found = version_of(database);
  return version;
}

StoreCheck check_store(const std::string& where) {
  StoreCheck check;
  check.version = store_version(where);
  if (check.version.found == 0) return check;
  Database database(check.version.place, std::chrono::seconds(10), Database::Missing::only_look);
  database.execute("BEGIN");  // all of it as of one moment
  const auto page = static_cast<std::uint64_t>(number(database, "PRAGMA page_size"));
  check.bytes = page * static_cast<std::uint64_t>(number(database, "PRAGMA page_count"));
  check.unused_bytes = page * static_cast<std::uint64_t>(number(database, "PRAGMA freelist_count"));
  Statement integrity(database, "PRAGMA integrity_check(10)");
  while (integrity.step()) {
    if (integrity.text(0) != "ok") check.problems.emplace_back(integrity.text(0));
  }
  if (check.version.found != check.version.known || !check.problems.empty()) return check;
  check.jobs = static_cast<std::uint64_t>(number(database, "SELECT count(*) FROM job"));
  check.tasks = static_cast<std::uint64_t>(number(database, "SELECT count(*) FROM task"));
  for (const Rule& rule : kRules) {
    Statement s(database, rule.sql);
    while (s.step()) {
      std::string problem = rule.broken;
      problem.replace(problem.find("{}"), 2, s.text(0));
      check.problems.push_back(std::move(problem));
    }
  }
  return check;
}

}  // namespace waymark
