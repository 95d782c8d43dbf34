// One SQLite connection: statements, transactions, waiting for other writers.
//
// Hides: sqlite3's C interface; errors become Error(store) that say which file, what was tried and what to do.
// Threads: a Database and its statements are used by one thread at a time.
// Failure: Error(store). A Transaction that is not committed is rolled back.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

struct sqlite3;
struct sqlite3_context;
struct sqlite3_stmt;
struct sqlite3_value;

namespace waymark::store {

class Database;

// A database in this process's memory is called memory:NAME. It lasts for as long as somebody has it open.
inline constexpr std::string_view kMemory = "memory:";
[[nodiscard]] inline bool in_memory(std::string_view path) noexcept { return path.starts_with(kMemory); }

// Bound as a blob.
struct Bytes {
  std::string_view data;
};

// A prepared statement. Binding starts it anew; text and blobs must live until it has been stepped through.
class Statement {
 public:
  Statement() noexcept = default;
  Statement(Database& database, std::string_view sql);
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  // Binds every parameter, in order.
  template <class... Values>
  Statement& bind(const Values&... values) {
    reset();
    int index = 0;
    (bind_one(++index, values), ...);
    return *this;
  }
  // True while there is a row.
  bool step();
  // Steps to the end, for statements without rows.
  void run() {
    while (step()) {
    }
  }
  template <class... Values>
  void run(const Values&... values) {
    bind(values...).run();
  }
  void reset() noexcept;
  explicit operator bool() const noexcept { return statement_ != nullptr; }

  [[nodiscard]] std::int64_t integer(int column) const noexcept;  // 0 for NULL
  [[nodiscard]] double real(int column) const noexcept;
  [[nodiscard]] bool null(int column) const noexcept;
  [[nodiscard]] std::string_view text(int column) const noexcept; // good until the next step

 private:
  void bind_one(int index, std::int64_t value);
  void bind_one(int index, std::uint64_t value) { bind_one(index, static_cast<std::int64_t>(value)); }
  void bind_one(int index, std::int32_t value) { bind_one(index, static_cast<std::int64_t>(value)); }
  void bind_one(int index, std::uint32_t value) { bind_one(index, static_cast<std::int64_t>(value)); }
  void bind_one(int index, bool value) { bind_one(index, static_cast<std::int64_t>(value)); }
  void bind_one(int index, double value);
  void bind_one(int index, std::string_view value);
  void bind_one(int index, Bytes value);
  void bind_one(int index, const std::string& value) { bind_one(index, std::string_view(value)); }
  void bind_one(int index, const char* value) { bind_one(index, std::string_view(value)); }
  void bind_one(int index, std::nullptr_t);
  // Not inlined: GCC 12 then takes the empty one's storage for uninitialized.
  template <class T>
  [[gnu::noinline]] void bind_one(int index, const std::optional<T>& value) {
    if (value) {
      bind_one(index, *value);
    } else {
      bind_one(index, nullptr);
    }
  }

  Database* database_ = nullptr;
  sqlite3_stmt* statement_ = nullptr;
};

class Database {
 public:
  // Waits `patience` for other writers before an Error says who could be meant. A file that is not there is created only
  // by whoever means to: a second one beside a log that belongs to another would damage that. `only_look` neither
  // creates nor changes anything.
  enum class Missing { create, refuse, only_look };
  explicit Database(std::string path, std::chrono::milliseconds patience = std::chrono::seconds(5),
                    Missing missing = Missing::create);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // While this is more than 0, it is less patient.
  void hurry_by(const std::atomic<int>& hurried) noexcept { hurried_ = &hurried; }

  void execute(const char* sql);
  [[nodiscard]] std::int64_t changes() const noexcept;  // rows of the last statement
  [[nodiscard]] std::int64_t total_changes() const noexcept;
  [[nodiscard]] std::int64_t last_id() const noexcept;
  // Error(store) where its path leads to another file now, or to none: what is written from then on would be lost.
  void check_present() const;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[noreturn]] void fail(int code, const char* doing) const;

 private:
  friend class Statement;
  friend class Rows;
  friend class Transaction;
  static int on_busy(void* self, int tries) noexcept;
  std::string path_;
  sqlite3* handle_ = nullptr;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::chrono::milliseconds patience_;
  const std::atomic<int>* hurried_ = nullptr;
  std::chrono::steady_clock::time_point busy_since_;
  Statement begin_;  // prepared at the first transaction
  Statement commit_;
};

// Rows that one statement is about, with two numbers for each: a statement for each row would cost more than what it does.
// SQL asks by row_listed(id), row_first(id) and row_second(id), of the connection's only Rows.
class Rows {
 public:
  explicit Rows(Database& database);
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  struct Row {
    std::int64_t id;
    std::int64_t first;
    std::int64_t second;
  };

  void clear() noexcept { rows_.clear(); }
  void list(std::int64_t id, std::int64_t first, std::int64_t second = 0) { rows_.push_back({id, first, second}); }
  // Calls `each(lowest, highest, rows)` for stretches of ids with few others between them.
  template <class Each>
  void stretches(Each each) {
    sort();
    for (std::size_t begin = 0; begin < rows_.size();) {
      std::size_t end = begin + 1;
      while (end < rows_.size() && rows_[end].id - rows_[end - 1].id <= kGap) ++end;
      each(rows_[begin].id, rows_[end - 1].id, static_cast<std::int64_t>(end - begin));
      begin = end;
    }
  }
  // Within stretches() only, as what SQL asks.
  [[nodiscard]] const Row* find(std::int64_t id) noexcept;

 private:
  static constexpr std::int64_t kGap = 4;  // passing over a row costs a fraction of beginning anew
  void sort();
  static void listed(sqlite3_context* context, int count, sqlite3_value** values) noexcept;
  static void first(sqlite3_context* context, int count, sqlite3_value** values) noexcept;
  static void second(sqlite3_context* context, int count, sqlite3_value** values) noexcept;
  std::vector<Row> rows_;
  std::size_t last_ = 0;  // where the last one was found: statements ask in order
};

// Takes the write lock at once, so that nothing that was read in it can be stale when it writes.
class Transaction {
 public:
  explicit Transaction(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database* database_;
};

}  // namespace waymark::store
