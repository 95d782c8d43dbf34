// What a worker process says to its runner, after whatever has happened to its memory. The checks over headers are made to
// fit, so that what is behind them is reached.
#include "worker_frames.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "fuzz/fuzz.h"
#include "waymark/error.h"

namespace {

constexpr std::size_t kChecked = 13;  // magic, kind, length
constexpr std::size_t kHeader = kChecked + 4;

void correct(std::string& bytes) {
  std::size_t at = 0;
  while (bytes.size() - at >= kHeader) {
    std::uint32_t hash = 0x811c9dc5;
    for (std::size_t i = 0; i < kChecked; ++i) hash = (hash ^ static_cast<unsigned char>(bytes[at + i])) * 0x01000193;
    std::memcpy(bytes.data() + at + kChecked, &hash, sizeof hash);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at + 5, sizeof length);
    if (length > bytes.size() - at - kHeader) return;
    at += kHeader + static_cast<std::size_t>(length);
  }
}

template <class Message>
void read(std::string_view bytes, std::size_t piece, std::string_view input) {
  using namespace waymark;
  detail::FrameReader reader;
  try {
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      reader.append(bytes.substr(at, piece));
      while (const auto message = reader.next<Message>()) {
        const std::string once = detail::frame(*message);
        detail::FrameReader again;
        again.append(once);
        const auto same = again.next<Message>();
        fuzz::check(same && detail::frame(*same) == once, "a message that was read can be sent on");
        if constexpr (std::is_same_v<Message, detail::FromWorker>) {
          const auto* finish = std::get_if<Finish>(&*message);
          if (!finish) continue;
          for (const NewTask& task : finish->subtasks.tasks) {
            fuzz::check(task.group == NewTask::kNoGroup || task.group < finish->subtasks.group_sizes.size(),
                        "a subtask's group is there");
            fuzz::check(!task.name.name.empty(), "a subtask has a name");
          }
          fuzz::plant(finish->attempt > 1'000'000, input);
        }
      }
    }
  } catch (const Error& error) {
    fuzz::check(error.code() == ErrorCode::corrupt, "what is refused is refused as bytes that make no sense");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input = waymark::fuzz::text(data, size);
  std::string bytes(input.substr(1));
  correct(bytes);
  const std::size_t piece = 1 + data[0] % 64;
  read<waymark::detail::FromWorker>(bytes, piece, input);
  read<waymark::detail::FromRunner>(bytes, piece, input);
  return 0;
}
