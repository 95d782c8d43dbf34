#include "journal/cursors.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "journal/checksum.h"
#include "journal/fault.h"

namespace waymark::journal {
namespace {

constexpr std::uint64_t kGreatestPosition = std::uint64_t{1} << 62;  // a greater one is damage
constexpr std::uint64_t kGreatestCount = 1024;

// Each generation in the other copy's place.
std::uint64_t place_of(const CursorWrite& write) {
  return (write.slot * std::uint64_t{2} + write.bytes.generation % 2) * kCursorSlotBytes;
}

}  // namespace

CursorWrite write_of(const CursorState& state, std::uint32_t cursors) {
  CursorWrite write{state.slot, {}};
  CursorSlot& slot = write.bytes;
  slot.magic = kCursorMagic;
  slot.generation = state.generation;
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
  slot.cursors = cursors;
  slot.name_bytes = static_cast<std::uint16_t>(std::min(state.name.size(), sizeof slot.name));
  std::memcpy(slot.name, state.name.data(), slot.name_bytes);
  seal(slot);
  return write;
}

std::string error_file_name(std::uint32_t slot) { return "error-" + std::to_string(slot); }

namespace {

// The slots of one file, added to what others have said.
struct Slots {
  std::map<std::uint32_t, CursorSlot> best;
  std::map<std::uint32_t, std::string> damaged;  // where, and what
  std::uint32_t pairs = 0;
};
// False: errno.
bool read_slots(const std::string& path, Slots& slots) {
  const File file = File::open(path, O_RDONLY | O_NONBLOCK);
  if (!file.valid()) return false;
  // The last pair may lack its second copy, or the room behind the slot.
  const std::uint64_t size = file.size();
  const auto pairs = static_cast<std::uint32_t>(std::min<std::uint64_t>(
      size / (2 * kCursorSlotBytes) + (size % (2 * kCursorSlotBytes) != 0 ? 1 : 0), kGreatestCount));
  slots.pairs = std::max(slots.pairs, pairs);
  for (std::uint32_t i = 0; i < pairs; ++i) {
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
      CursorSlot slot;
      const std::uint64_t offset = (i * std::uint64_t{2} + copy) * kCursorSlotBytes;
      if (!file.read_at(offset, &slot, sizeof slot)) continue;
      if (slot.magic == kCursorMagic && sealed(slot) && slot.signal < kSignals && slot.name_bytes <= sizeof slot.name &&
          slot.position <= kGreatestPosition) {
        CursorSlot& best = slots.best[i];
        if (best.magic == 0 || slot.generation > best.generation) best = slot;
      } else if (slot.magic != 0 || slot.generation != 0) {
        slots.damaged.emplace(i, path + ": the cursor at byte " + std::to_string(i * std::uint64_t{2} * kCursorSlotBytes) +
                                     " is damaged");
      }
    }
  }
  return true;
}

}  // namespace

CursorFile::Loaded CursorFile::load(const std::vector<std::string>& paths) {
  Loaded loaded;
  Slots slots;
  bool there = false;
  for (const std::string& path : paths) {
    const bool read = read_slots(path, slots);
    there = there || read;
    loaded.unreadable = loaded.unreadable || (!read && errno != ENOENT);
  }
  loaded.slots = slots.pairs;
  std::uint32_t most = 0;
  for (const auto& [i, slot] : slots.best) {
    most = std::max(most, slot.cursors);
    auto state = std::make_shared<CursorState>();
    state->slot = i;
    state->name.assign(slot.name, slot.name_bytes);
    state->signal = static_cast<Signal>(slot.signal);
    state->lossy = slot.lossy != 0;
    state->generation = slot.generation;
    state->position.store(slot.position, std::memory_order_relaxed);
    state->stored_position = slot.position;
    state->outcome = {slot.delivered, slot.rejected, slot.dropped, slot.filtered};
    state->base_offered = slot.base_offered;
    state->base_refused = slot.base_refused;
    state->base_hook_dropped = slot.base_hook_dropped;
    loaded.cursors.push_back(std::move(state));
  }
  // One copy may be torn by the process's end: the other is what counts.
  for (const auto& [i, what] : slots.damaged) {
    if (loaded.lost.empty() && !slots.best.contains(i)) loaded.lost = what;
  }
  const auto found = static_cast<std::uint32_t>(loaded.cursors.size());
  if (!loaded.lost.empty() || (found > 0 && most <= found)) return loaded;
  loaded.lost = paths.front() + ": ";
  if (most == kCursorsLost) {
    loaded.lost += "cursors that were in it before are lost";
  } else if (found > 0) {
    loaded.lost += "it was cut short: it holds " + std::to_string(found) + " of " + std::to_string(most) + " cursors";
  } else {
    loaded.lost += there ? "it holds no cursor" : "it is gone";
  }
  return loaded;
}

bool CursorFile::replace(const std::string& path, const std::vector<CursorWrite>& writes) {
  std::string bytes;
  for (const CursorWrite& write : writes) {
    const std::size_t at = place_of(write);
    bytes.resize(std::max(bytes.size(), at + kCursorSlotBytes));
    std::memcpy(bytes.data() + at, &write.bytes, sizeof write.bytes);
  }
  return replace_file(path, bytes);
}

bool CursorFile::open(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  path_ = path;
  file_ = File::open(path, O_RDWR | O_CREAT);
  for (Latest& latest : latest_) latest.written = false;
  return file_.valid();
}

void CursorFile::open_later(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  path_ = path;
  file_ = File::open(path, O_RDWR);
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
  if (planted(Fault::cursor_in_place)) {
    const std::uint64_t pair = slot * std::uint64_t{2} * kCursorSlotBytes;
    // Position and counts first, the checksum behind them, both times over the same copy.
    const auto* bytes = reinterpret_cast<const char*>(&latest.bytes);
    latest.written = file_.write_at(pair, bytes, 128) && file_.write_at(pair + 128, bytes + 128, sizeof latest.bytes - 128);
  } else {
    latest.written = file_.write_at(place_of({slot, latest.bytes}), &latest.bytes, sizeof latest.bytes);
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
