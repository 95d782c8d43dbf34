#include "journal/cursors.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "journal/checksum.h"
#include "journal/fault.h"

namespace waymark::journal {
namespace {

constexpr std::uint64_t kGreatestPosition = std::uint64_t{1} << 62;  // a greater one is damage
constexpr std::uint64_t kGreatestCount = 1024;

}  // namespace

CursorWrite write_of(CursorState& state) {
  CursorWrite write{state.slot, {}};
  CursorSlot& slot = write.bytes;
  slot.magic = kCursorMagic;
  slot.generation = ++state.generation;
  slot.position = state.position.load(std::memory_order_relaxed);
  slot.delivered = state.outcome.delivered;
  slot.rejected = state.outcome.rejected;
  slot.dropped = state.outcome.dropped;
  slot.filtered = state.outcome.filtered;
  slot.base_offered = state.base_offered;
  slot.base_refused = state.base_refused;
  slot.base_hook_dropped = state.base_hook_dropped;
  slot.signal = static_cast<std::uint8_t>(state.signal);
  slot.lossy = state.lossy ? 1 : 0;
  slot.name_bytes = static_cast<std::uint16_t>(std::min(state.name.size(), sizeof slot.name));
  std::memcpy(slot.name, state.name.data(), slot.name_bytes);
  seal(slot);
  return write;
}

std::string error_file_name(std::uint32_t slot) { return "error-" + std::to_string(slot); }

CursorFile::Loaded CursorFile::load(const std::string& path) {
  Loaded loaded;
  const File file = File::open(path, O_RDONLY | O_NONBLOCK);
  if (!file.valid()) {
    loaded.missing = true;
    loaded.unreadable = errno != ENOENT;
    return loaded;
  }
  // The last pair may lack its second copy, or the room behind the slot.
  const std::uint64_t size = file.size();
  const std::uint64_t pairs = std::min<std::uint64_t>(size / (2 * kCursorSlotBytes) + (size % (2 * kCursorSlotBytes) != 0 ? 1 : 0),
                                                      kGreatestCount);
  for (std::uint64_t i = 0; i < pairs; ++i) {
    CursorSlot best{};
    bool damaged = false;
    for (int copy = 0; copy < 2; ++copy) {
      CursorSlot slot;
      const std::uint64_t offset = (i * 2 + static_cast<unsigned>(copy)) * kCursorSlotBytes;
      if (!file.read_at(offset, &slot, sizeof slot)) continue;
      if (slot.magic == kCursorMagic && sealed(slot) && slot.signal < kSignals && slot.name_bytes <= sizeof slot.name &&
          slot.position <= kGreatestPosition) {
        if (best.magic == 0 || slot.generation > best.generation) best = slot;
      } else if (slot.magic != 0 || slot.generation != 0) {
        damaged = true;
      }
    }
    // One copy may be torn by the process's end: the other is what counts.
    if (best.magic == 0) {
      if (damaged) loaded.problem = path + ": the cursor at byte " + std::to_string(i * 2 * kCursorSlotBytes) + " is damaged";
      continue;
    }
    auto state = std::make_shared<CursorState>();
    state->slot = static_cast<std::uint32_t>(i);
    state->name.assign(best.name, best.name_bytes);
    state->signal = static_cast<Signal>(best.signal);
    state->lossy = best.lossy != 0;
    state->generation = best.generation;
    state->position.store(best.position, std::memory_order_relaxed);
    state->stored_position = best.position;
    state->outcome = {best.delivered, best.rejected, best.dropped, best.filtered};
    state->base_offered = best.base_offered;
    state->base_refused = best.base_refused;
    state->base_hook_dropped = best.base_hook_dropped;
    loaded.cursors.push_back(std::move(state));
  }
  return loaded;
}

bool CursorFile::open(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  path_ = path;
  file_ = File::open(path, O_RDWR | O_CREAT);
  for (Latest& latest : latest_) latest.written = false;
  return file_.valid();
}

bool CursorFile::store(const CursorWrite& write) noexcept {
  const std::scoped_lock lock(mutex_);
  if (path_.empty()) return true;
  if (latest_.size() <= write.slot) latest_.resize(write.slot + 1);
  Latest& latest = latest_[write.slot];
  if (write.bytes.generation <= latest.bytes.generation) return latest.written;
  latest = {write.bytes, false};
  bool good = true;
  for (std::uint32_t slot = 0; slot < latest_.size(); ++slot) good = this->write(slot) && good;
  return good;
}

bool CursorFile::catch_up() noexcept {
  const std::scoped_lock lock(mutex_);
  bool good = true;
  for (std::uint32_t slot = 0; slot < latest_.size(); ++slot) good = write(slot) && good;
  return good;
}

// With the mutex held.
bool CursorFile::write(std::uint32_t slot) noexcept {
  Latest& latest = latest_[slot];
  if (latest.written || latest.bytes.magic == 0) return true;
  if (!file_.valid()) file_ = File::open(path_, O_RDWR | O_CREAT);
  if (!file_.valid()) return false;
  const std::uint64_t pair = slot * std::uint64_t{2} * kCursorSlotBytes;
  if (planted(Fault::cursor_in_place)) {
    // Position and counts first, the checksum behind them, both times over the same copy.
    const auto* bytes = reinterpret_cast<const char*>(&latest.bytes);
    latest.written = file_.write_at(pair, bytes, 128) && file_.write_at(pair + 128, bytes + 128, sizeof latest.bytes - 128);
  } else {
    latest.written = file_.write_at(pair + latest.bytes.generation % 2 * kCursorSlotBytes, &latest.bytes, sizeof latest.bytes);
  }
  if (latest.written) dirty_.store(true, std::memory_order_release);
  return latest.written;
}

bool CursorFile::sync() noexcept {
  const std::scoped_lock lock(mutex_);
  if (!dirty_.exchange(false, std::memory_order_acq_rel)) return true;
  if (file_.sync_data()) return true;
  dirty_.store(true, std::memory_order_release);
  return false;
}

}  // namespace waymark::journal
