// Processes of this program, and what a victim of them tells.
//
// Hides: spawning, descriptors, and what the environment says to a child.
// Threads: one.
// Failure: says what the system refuses and ends the program; a child is killed with its owner.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "crash/ledger.h"
#include "crash/victim.h"

namespace waymark::crash {

// Sanitizers make a process slower; what is bounded by time gets more of it there.
#if defined(__SANITIZE_THREAD__)
inline constexpr int kSlowness = 15;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr int kSlowness = 5;
#else
inline constexpr int kSlowness = 1;
#endif
inline constexpr std::chrono::seconds kPatience{60};  // then something hangs

// A directory that goes with its owner.
class Workplace {
 public:
  explicit Workplace(const std::string& parent);
  ~Workplace();
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Pipe {
 public:
  Pipe();
  ~Pipe();
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  [[nodiscard]] int reader() const { return ends_[0]; }
  [[nodiscard]] int writer() const { return ends_[1]; }
  void close_writer();

 private:
  int ends_[2] = {-1, -1};
};

class Child {
 public:
  // Its end is what it is for: it stays in a planted fault's window.
  enum class Fate { lives, dies };
  // `tells`, `waits`: what become its kTellDescriptor and kWaitDescriptor; -1: none.
  Child(std::vector<std::string> arguments, Fate fate, int tells = -1, int waits = -1);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] pid_t id() const { return process_; }

  // The random instant: spent working, not sleeping, so that the machine is as it is under load; at most until its end.
  void spin_with(std::chrono::microseconds time) const;
  // Sends the signal; false if the process ended otherwise than by a signal.
  bool kill(int signal);
  int exit_code();
  // Somebody else has seen its end.
  void forget() { process_ = -1; }

 private:
  int wait_status();
  pid_t process_ = -1;
};

// What the victim told, up to its end.
class Tale {
 public:
  [[nodiscard]] int writer() const { return pipe_.writer(); }
  void close_writer() { pipe_.close_writer(); }
  // Takes messages until `enough` says so, nothing is told for so long, or the end. False: not enough.
  bool take(std::chrono::milliseconds patience, const std::function<void(const Message&)>& each,
            const std::function<bool()>& enough);

 private:
  Pipe pipe_;
};

[[nodiscard]] std::vector<std::string> arguments_of(const Setting& setting, std::string command);

}  // namespace waymark::crash
