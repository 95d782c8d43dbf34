// The stores that are tested: every suite over them holds for each.
//
// Hides: how a store of each kind is opened on a clock of the test's.
// Threads: any.
// Failure: as opening a store fails.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "store/sqlite.h"
#include "waymark/store.h"

namespace waymark::testing {

class TestClock {
 public:
  void advance(std::chrono::nanoseconds by) { now_ += by.count(); }
  [[nodiscard]] Timestamp now() const { return Timestamp(std::chrono::nanoseconds(now_.load())); }

 private:
  std::atomic<std::int64_t> now_{1'800'000'000'000'000'000};
};

// One engine: how to open the store at a place, again and again.
struct Engine {
  const char* name;
  std::function<std::shared_ptr<Store>(const std::string& directory, std::function<Timestamp()> clock)> open;
  std::function<std::string(const std::string& directory)> place;  // for store_version() and check_store()
};

// In the names of tests.
inline void PrintTo(const Engine& engine, std::ostream* out) { *out << engine.name; }

inline std::vector<Engine> engines() {
  return {{"Sqlite",
           [](const std::string& directory, std::function<Timestamp()> clock) {
             return store::open_sqlite({.path = directory + "/store.db", .clock = std::move(clock)});
           },
           [](const std::string& directory) { return directory + "/store.db"; }},
          {"Memory",
           [](const std::string& directory, std::function<Timestamp()> clock) {
             return open_store("memory:" + directory, std::move(clock));
           },
           [](const std::string& directory) { return "memory:" + directory; }}};
}

}  // namespace waymark::testing
