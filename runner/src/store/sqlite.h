// The embedded store: one SQLite file, in WAL mode, for any number of processes of one machine.
//
// Hides: the schema, every statement, how steps are made atomic and cheap.
// Threads: any. Writers take turns by a mutex here and by SQLite's lock between processes; readers have a connection of
//   their own and wait for nobody.
// Failure: Error(store).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "waymark/store.h"

namespace waymark::store {

struct SqliteOptions {
  std::string path;
  std::function<Timestamp()> clock = {};  // tests; none: the system's
  std::chrono::milliseconds patience = std::chrono::seconds(5);  // with other programs that keep the file locked
};

[[nodiscard]] std::shared_ptr<Store> open_sqlite(const SqliteOptions& options);

// Where open_store() would look. The default's directory is made where `make` says so.
[[nodiscard]] std::string path_of(const std::string& where, bool make);

// The statements that find work, as EXPLAIN QUERY PLAN should see them.
[[nodiscard]] const char* claim_statement() noexcept;

}  // namespace waymark::store
