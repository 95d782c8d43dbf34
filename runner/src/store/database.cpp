#include "store/database.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "waymark/error.h"

namespace waymark::store {

Statement::Statement(Database& database, std::string_view sql) : database_(&database) {
  const int code = sqlite3_prepare_v3(database.handle_, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement_, nullptr);
  if (code != SQLITE_OK) database.fail(code, "prepare a statement");
}

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_), statement_(std::exchange(other.statement_, nullptr)) {}

Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(database_, other.database_);
  std::swap(statement_, other.statement_);
  return *this;
}

Statement::~Statement() { sqlite3_finalize(statement_); }

bool Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  sqlite3_reset(statement_);  // or its locks would outlive the transaction
  if (code != SQLITE_DONE) database_->fail(code, "run a statement");
  return false;
}

void Statement::reset() noexcept { sqlite3_reset(statement_); }

std::int64_t Statement::integer(int column) const noexcept { return sqlite3_column_int64(statement_, column); }

double Statement::real(int column) const noexcept { return sqlite3_column_double(statement_, column); }

bool Statement::null(int column) const noexcept { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

std::string_view Statement::text(int column) const noexcept {
  const auto* data = reinterpret_cast<const char*>(
      sqlite3_column_type(statement_, column) == SQLITE_BLOB ? sqlite3_column_blob(statement_, column)
                                                             : sqlite3_column_text(statement_, column));
  if (!data) return {};
  return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

void Statement::bind_one(int index, std::int64_t value) {
  const int code = sqlite3_bind_int64(statement_, index, value);
  if (code != SQLITE_OK) database_->fail(code, "bind a number");
}

void Statement::bind_one(int index, double value) {
  const int code = sqlite3_bind_double(statement_, index, value);
  if (code != SQLITE_OK) database_->fail(code, "bind a number");
}

void Statement::bind_one(int index, Bytes value) {
  const char* data = value.data.data() ? value.data.data() : "";
  const int code = sqlite3_bind_blob64(statement_, index, data, value.data.size(), SQLITE_STATIC);
  if (code != SQLITE_OK) database_->fail(code, "bind bytes");
}

void Statement::bind_one(int index, std::string_view value) {
  const char* data = value.data() ? value.data() : "";  // a null pointer would bind NULL
  const int code = sqlite3_bind_text64(statement_, index, data, value.size(), SQLITE_STATIC, SQLITE_UTF8);
  if (code != SQLITE_OK) database_->fail(code, "bind a text");
}

void Statement::bind_one(int index, std::nullptr_t) {
  const int code = sqlite3_bind_null(statement_, index);
  if (code != SQLITE_OK) database_->fail(code, "bind nothing");
}

Database::Database(std::string path, std::chrono::milliseconds patience, Missing missing)
    : path_(std::move(path)), patience_(patience) {
  // Threads take turns by a mutex of ours.
  const int access = missing == Missing::only_look ? SQLITE_OPEN_READONLY
                     : missing == Missing::create  ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
                                                   : SQLITE_OPEN_READWRITE;
  // SQLite's memdb is a file system in memory, with the locks that files have; names there begin with a slash.
  const bool memory = in_memory(path_);
  const std::string place = memory ? "/" + path_ : path_;
  const int code = sqlite3_open_v2(place.c_str(), &handle_, access | SQLITE_OPEN_NOMUTEX, memory ? "memdb" : nullptr);
  try {
    if (code != SQLITE_OK) fail(code, "open it");
    sqlite3_extended_result_codes(handle_, 1);
    sqlite3_busy_handler(handle_, &Database::on_busy, this);
    if (missing != Missing::only_look) execute("PRAGMA journal_mode = WAL;");
    execute(
        "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY;"
        "PRAGMA cache_size = -32768; PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = 16000;");
    if (memory) return;
    struct stat file {};
    if (stat(path_.c_str(), &file) != 0) fail(SQLITE_CANTOPEN, "look at it");
    device_ = file.st_dev;
    inode_ = file.st_ino;
  } catch (...) {
    sqlite3_close_v2(handle_);
    throw;
  }
}

void Database::check_present() const {
  if (in_memory(path_)) return;
  struct stat file {};
  const bool there = stat(path_.c_str(), &file) == 0;
  if (there && file.st_dev == device_ && file.st_ino == inode_) return;
  throw Error(ErrorCode::store, "store " + path_ + ": the file was " + (there ? "replaced" : "removed") +
                                    " while it was open: put it back, or start the program again");
}

Database::~Database() {
  begin_ = {};
  commit_ = {};
  sqlite3_close_v2(handle_);
}

void Database::execute(const char* sql) {
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(code, "run a statement");
}

std::int64_t Database::changes() const noexcept { return sqlite3_changes64(handle_); }
std::int64_t Database::total_changes() const noexcept { return sqlite3_total_changes64(handle_); }
std::int64_t Database::last_id() const noexcept { return sqlite3_last_insert_rowid(handle_); }

void Database::fail(int code, const char* doing) const {
  const char* advice = "";
  switch (code & 0xff) {
    case SQLITE_BUSY: advice = "; another program has kept it locked: end that program, or wait for it"; break;
    case SQLITE_READONLY: advice = "; it can't be written: check its permissions and those of its directory"; break;
    case SQLITE_FULL: advice = "; its disk is full: make room there"; break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: advice = "; the file is damaged, or no store: move it away and start again"; break;
    case SQLITE_CANTOPEN: advice = "; check that its directory exists and may be written"; break;
    default: break;
  }
  throw Error(ErrorCode::store, "store " + path_ + ": could not " + doing + ": " +
                                    (handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(code)) + advice);
}

// SQLite's own handler sleeps up to 100 ms between tries, which starves whoever asks less often. Commits take tens of
// microseconds, so this one asks soon, and then less and less often.
int Database::on_busy(void* self, int tries) noexcept {
  auto& database = *static_cast<Database*>(self);
  const auto now = std::chrono::steady_clock::now();
  if (tries == 0) database.busy_since_ = now;
  constexpr auto kHurriedPatience = std::chrono::milliseconds(500);
  const bool hurried = database.hurried_ && *database.hurried_ > 0;
  if (now - database.busy_since_ > (hurried ? std::min(kHurriedPatience, database.patience_) : database.patience_)) return 0;
  const long microseconds = tries < 10 ? 50 : tries < 50 ? 500 : 5000;
  const timespec wait{0, microseconds * 1000};
  nanosleep(&wait, nullptr);
  return 1;
}

Transaction::Transaction(Database& database) : database_(&database) {
  if (!database.begin_) {
    database.begin_ = Statement(database, "BEGIN IMMEDIATE");
    database.commit_ = Statement(database, "COMMIT");
  }
  database.begin_.run();
}

Transaction::~Transaction() {
  if (!database_) return;
  try {
    database_->execute("ROLLBACK");
  } catch (const Error&) {
    // SQLite has rolled back by itself: after a full disk, for one.
  }
}

void Transaction::commit() {
  database_->commit_.run();
  database_ = nullptr;
}

Rows::Rows(Database& database) {
  using Function = void (*)(sqlite3_context*, int, sqlite3_value**);
  for (const auto& [name, function] : std::initializer_list<std::pair<const char*, Function>>{
           {"row_listed", &Rows::listed}, {"row_first", &Rows::first}, {"row_second", &Rows::second}}) {
    const int code = sqlite3_create_function_v2(database.handle_, name, 1, SQLITE_UTF8 | SQLITE_DIRECTONLY, this, function,
                                                nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) database.fail(code, "define a function");
  }
}

void Rows::sort() {
  const auto by_id = [](const Row& a, const Row& b) { return a.id < b.id; };
  if (!std::is_sorted(rows_.begin(), rows_.end(), by_id)) std::sort(rows_.begin(), rows_.end(), by_id);
  last_ = 0;
}

const Rows::Row* Rows::find(std::int64_t id) noexcept {
  for (std::size_t i = last_; i < std::min(last_ + 2, rows_.size()); ++i) {
    if (rows_[i].id != id) continue;
    last_ = i;
    return &rows_[i];
  }
  const auto it = std::lower_bound(rows_.begin(), rows_.end(), id, [](const Row& row, std::int64_t i) { return row.id < i; });
  if (it == rows_.end() || it->id != id) return nullptr;
  last_ = static_cast<std::size_t>(it - rows_.begin());
  return &*it;
}

void Rows::listed(sqlite3_context* context, int, sqlite3_value** values) noexcept {
  auto& rows = *static_cast<Rows*>(sqlite3_user_data(context));
  sqlite3_result_int(context, rows.find(sqlite3_value_int64(values[0])) ? 1 : 0);
}

void Rows::first(sqlite3_context* context, int, sqlite3_value** values) noexcept {
  auto& rows = *static_cast<Rows*>(sqlite3_user_data(context));
  if (const Row* row = rows.find(sqlite3_value_int64(values[0]))) sqlite3_result_int64(context, row->first);
}

void Rows::second(sqlite3_context* context, int, sqlite3_value** values) noexcept {
  auto& rows = *static_cast<Rows*>(sqlite3_user_data(context));
  if (const Row* row = rows.find(sqlite3_value_int64(values[0]))) sqlite3_result_int64(context, row->second);
}

}  // namespace waymark::store
