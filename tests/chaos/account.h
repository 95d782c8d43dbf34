// The account that tasks keep outside the store: one file, to which every process appends.
//
// An entry is one write of 64 bytes to a file that is open for appending, so that entries of several processes never
// mix, and none is torn by a kill: it never crosses a page.
//
// Hides: the file's form.
// Threads: any; any process.
// Failure: says what the system refuses, and ends the process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace waymark::chaos {

struct Entry {
  enum Kind : std::uint64_t { began = 1, computed = 2 };  // an execution began; it has done all of its work
  Kind kind = began;
  std::int64_t task = 0;
  std::uint64_t attempt = 0;
  std::uint64_t node = 0;     // Node::seed
  std::uint64_t process = 0;
};

class Account {
 public:
  explicit Account(const std::string& path);
  ~Account();
  Account(const Account&) = delete;
  Account& operator=(const Account&) = delete;

  void add(const Entry& entry) const;
  [[nodiscard]] std::vector<Entry> read() const;

 private:
  int file_;
};

// A number that all processes read and the test changes: how far the clock is off, in nanoseconds.
class SharedOffset {
 public:
  explicit SharedOffset(const std::string& path);
  ~SharedOffset();
  SharedOffset(const SharedOffset&) = delete;
  SharedOffset& operator=(const SharedOffset&) = delete;

  [[nodiscard]] std::int64_t get() const;
  void add(std::int64_t nanoseconds);

 private:
  std::int64_t* number_;
};

[[noreturn]] void give_up(const char* what);

}  // namespace waymark::chaos
