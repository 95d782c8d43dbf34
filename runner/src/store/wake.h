// How whoever waits for a store's file learns that it has changed.
//
// Watchers of the same process's store are called directly, also those of a store in memory that is the same one. Other
// processes bind a datagram socket each in a directory beside the file (`<file>.wake`), and whoever commits sends every one
// of them a byte. Where that fails (a path that is too long goes to a short directory instead; a file system without
// sockets), a look at the file's version every 50 to 250 ms finds the change.
//
// Hides: sockets, the listening thread, the fallback.
// Threads: any. The listening thread lives from the first watch() to the destructor.
// Failure: none: what goes wrong costs latency only.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <sys/stat.h>
#include <sys/types.h>
#include <thread>
#include <vector>

namespace waymark::store {

class Wake {
 public:
  // `version` changes when another connection has written; called by the listening thread only.
  Wake(const std::string& file, std::function<std::int64_t()> version);
  ~Wake();
  Wake(const Wake&) = delete;
  Wake& operator=(const Wake&) = delete;

  // No call of `changed` is under way or comes once the result is gone.
  [[nodiscard]] std::shared_ptr<void> watch(std::function<void()> changed);
  // Tells everybody, here and elsewhere.
  void notify();

  // The directory of the sockets: beside the file, or a short one where that would be longer than a socket's address. None
  // for a store in memory.
  [[nodiscard]] static std::string socket_directory(const std::string& file);

 private:
  struct Watcher {
    std::function<void()> changed;
  };
  void start();
  void listen();
  void call_watchers();
  void tell_other_processes();

  std::string directory_;
  std::string memory_;  // the name of a store in memory; empty for a file
  std::function<std::int64_t()> version_;

  std::mutex watchers_mutex_;  // held while watchers are called
  std::vector<std::weak_ptr<Watcher>> watchers_;
  bool started_ = false;
  std::thread thread_;
  int stop_fd_ = -1;  // an eventfd
  int socket_ = -1;

  std::mutex peers_mutex_;
  std::string socket_path_;  // of `socket_`; empty where there is none
  int send_socket_ = -1;
  std::vector<std::string> peers_;
  timespec listed_{};  // the directory's mtime when `peers_` was read
  std::int64_t listed_at_ = 0;  // and when that was
};

}  // namespace waymark::store
