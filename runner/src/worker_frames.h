// What a runner and its worker processes say to each other, as bytes.
//
//   runner --WorkerStart, WorkerTask, WorkerStop, WorkerConclude, WorkerEnd--> worker
//          <--WorkerReady, ProgressReport, Finish-------------------
//
// A frame is a header of fixed size (magic, kind, length, and a check over them, so that a length out of a worker's
// overwritten memory is never waited for) and the message's fields.
//
// Hides: the layout, and every check: whoever gets a message may hand it to the store. What a worker says about subtasks
//   is held to what TaskBatch could have made: groups count their members, and a task waits for earlier ones only.
// Threads: a reader belongs to one thread.
// Failure: Error(corrupt) for bytes that are no such message; the reader is of no use from then on.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "waymark/store.h"

namespace waymark::detail {

// The first one: whom the worker works for. Its program must know the same tasks, in the same order.
struct WorkerStart {
  std::string runner;
  std::vector<TaskName> tasks;
};

struct WorkerTask {
  WorkerId worker = 0;  // that holds it in the store
  ClaimedTask task;
};

struct WorkerStop {
  std::int64_t task = 0;
  std::uint32_t attempt = 0;
  bool timed_out = false;
};

// What the store has said about an attempt that was executed: its span ends.
struct WorkerConclude {
  std::int64_t task = 0;
  std::uint32_t attempt = 0;
  bool accepted = false;
  Timestamp deadline;  // of the lease, where it was not
};

// The last one.
struct WorkerEnd {
  std::chrono::nanoseconds flush{0};  // for what was recorded and not yet delivered
};

// The answer to WorkerStart. The worker can't serve where there is a problem.
struct WorkerReady {
  std::string problem;
};

using FromRunner = std::variant<WorkerStart, WorkerTask, WorkerStop, WorkerConclude, WorkerEnd>;
using FromWorker = std::variant<WorkerReady, ProgressReport, Finish>;

[[nodiscard]] std::string frame(const FromRunner& message);
[[nodiscard]] std::string frame(const FromWorker& message);

// Bytes as they arrive, in pieces of any size.
class FrameReader {
 public:
  void append(std::string_view bytes);
  // The next message that is whole.
  template <class Message>
  [[nodiscard]] std::optional<Message> next();

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

}  // namespace waymark::detail
