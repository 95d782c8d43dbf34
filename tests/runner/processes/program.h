// A process that a test starts, listens to and kills, and what all of them have delivered.
//
// Hides: pipes and files.
// Threads: one.
// Failure: expectations.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "waymark/testing.h"

extern char** environ;

namespace waymark::testing {

class Program {
 public:
  Program(const char* path, const std::vector<std::string>& arguments) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::vector<char*> list = {const_cast<char*>(path)};
    for (const std::string& argument : arguments) list.push_back(const_cast<char*>(argument.c_str()));
    list.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, path, &actions, nullptr, list.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    from_ = ends[0];
  }
  ~Program() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      (void)wait();
    }
    close(from_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // The next line; empty where it has ended, or says nothing for a minute.
  std::string line() {
    for (;;) {
      if (const auto end = said_.find('\n'); end != std::string::npos) {
        std::string text = said_.substr(0, end);
        said_.erase(0, end + 1);
        return text;
      }
      pollfd fd{from_, POLLIN, 0};
      if (poll(&fd, 1, 60'000) <= 0) return {};
      char buffer[512];
      const ssize_t n = read(from_, buffer, sizeof buffer);
      if (n <= 0) return {};
      said_.append(buffer, static_cast<std::size_t>(n));
    }
  }
  // The next one that begins so; others before it are kept.
  std::string line(const std::string& beginning) {
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      if (!it->starts_with(beginning)) continue;
      std::string found = std::move(*it);
      kept_.erase(it);
      return found;
    }
    for (;;) {
      std::string next = line();
      if (next.empty() || next.starts_with(beginning)) return next;
      kept_.push_back(std::move(next));
    }
  }
  [[nodiscard]] pid_t id() const { return pid_; }
  void kill(int signal = SIGKILL) { ::kill(pid_, signal); }
  // How it ended: its exit code, or minus the signal.
  int wait() {
    int status = 0;
    if (waitpid(pid_, &status, 0) != pid_) return -1000;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int from_ = -1;
  std::string said_;
  std::vector<std::string> kept_;
};

// The spans that processes have written into the files of a directory, and these, each once.
inline std::vector<ReadSpan> delivered_spans(const std::string& directory, std::vector<ReadSpan> all) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".jsonl") continue;
    for (ReadSpan& span : read_json_file(entry.path().string()).spans) all.push_back(std::move(span));
  }
  std::map<SpanId, ReadSpan> once;
  for (ReadSpan& span : all) once.emplace(span.context.span_id, std::move(span));
  all.clear();
  for (auto& [id, span] : once) all.push_back(std::move(span));
  return all;
}

inline void expect_enclosing(const std::vector<ReadSpan>& spans) {
  std::map<SpanId, const ReadSpan*> by_id;
  for (const ReadSpan& span : spans) by_id[span.context.span_id] = &span;
  for (const ReadSpan& span : spans) {
    if (!span.parent.valid()) continue;
    ASSERT_TRUE(by_id.contains(span.parent)) << "no parent of " << span.name;
    EXPECT_LE(by_id[span.parent]->start, span.start) << span.name;
    EXPECT_GE(by_id[span.parent]->end, span.end) << span.name;
  }
}

}  // namespace waymark::testing
