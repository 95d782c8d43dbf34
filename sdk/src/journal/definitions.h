// The resource and the scopes that a journal's records refer to by number.
//
// Hides: their file, in which each entry stands behind its length and checksum, appended before the number is given out; and
//   that there are two of it where the memory lies apart, so that what the disk refuses outlives the process all the same.
// Threads: any. Who only asks never waits for the disk.
// Failure: what can't be written stays known, and is written by rewrite() once that is possible.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/file.h"

namespace waymark::journal {

// An instrumentation scope as it goes on the wire.
struct Scope {
  std::string encoded;     // the InstrumentationScope message's bytes
  std::string schema_url;  // of ScopeSpans / ScopeLogs
};

class Definitions {
 public:
  // Reads what a dead process wrote there and beside its recorder (may be empty). What is damaged, and where; empty:
  // nothing. What only the second holds is not complete() until rewrite().
  [[nodiscard]] std::string load(const std::string& path, const std::string& beside);
  // Writes go there from now on; never called: they go nowhere.
  void write_to(const std::string& path, const std::string& beside);

  [[nodiscard]] std::string resource() const;
  [[nodiscard]] Scope scope(std::uint16_t id) const;  // empty where there is none
  // False: it is known, but could not be written; errno says why.
  [[nodiscard]] bool set_resource(std::string encoded);
  // Registers a scope, or finds it. 65,535 at most; later ones share the last.
  struct Added {
    std::uint16_t id = 0;
    int error = 0;  // why it could not be written; 0: it was
  };
  [[nodiscard]] Added add(const Scope& scope);

  [[nodiscard]] bool complete() const noexcept { return !main_.behind.load(std::memory_order_acquire); }
  // The whole file anew, where it was or where it should be.
  [[nodiscard]] bool rewrite();
  // On to the disk, if something was written since. False: errno.
  [[nodiscard]] bool sync();

 private:
  struct Copy {
    std::string path;  // empty: none
    File file;
    std::uint64_t bytes = 0;
    bool dirty = false;
    std::atomic<bool> behind{false};  // something is known that is not in the file
  };
  [[nodiscard]] bool append(std::uint32_t kind, std::uint32_t id, const std::string& bytes, std::size_t schema_bytes);
  [[nodiscard]] static bool append_to(Copy& copy, std::uint32_t kind, std::uint32_t id, const std::string& bytes,
                                      std::size_t schema_bytes);
  [[nodiscard]] bool rewrite(Copy& copy);

  mutable std::mutex mutex_;  // guards what is known; held for moments
  std::string resource_;
  std::vector<Scope> scopes_;

  std::mutex file_mutex_;  // guards what follows; taken first
  Copy main_;
  Copy beside_;
};

}  // namespace waymark::journal
