// A dead process's subdirectory, made of bytes that an input gives, and everything that is done with one.
//
// Hides: where it lies, its identity, and the checksums that an input can't be expected to guess.
// Threads: one.
// Failure: aborts where the machine has no room for it.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "fuzz/fuzz.h"
#include "journal/checksum.h"
#include "journal/directory.h"
#include "journal/recovery.h"
#include "otlp/reader.h"

namespace waymark::fuzz {

// Takes an input apart, from its front; zeros behind its end.
class Pieces {
 public:
  explicit Pieces(std::string_view rest) : rest_(rest) {}
  [[nodiscard]] std::string take(std::size_t bytes) {
    std::string piece(rest_.substr(0, bytes));
    rest_.remove_prefix(piece.size());
    piece.resize(bytes);
    return piece;
  }
  [[nodiscard]] std::size_t number(std::size_t bytes) {
    std::size_t value = 0;
    const std::string piece = take(bytes);
    std::memcpy(&value, piece.data(), bytes);
    return value;
  }
  [[nodiscard]] std::string rest() { return take(rest_.size()); }
  [[nodiscard]] std::size_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
};

template <class T>
void put(std::string& bytes, std::size_t at, const T& structure) {
  std::memcpy(bytes.data() + at, reinterpret_cast<const char*>(&structure), sizeof structure);
}

class DeadHome {
 public:
  DeadHome() {
    make_private_directory(state());
    make_private_directory(state() + "/" + kId);
  }
  ~DeadHome() { remove_tree(state() + "/" + kId); }
  DeadHome(const DeadHome&) = delete;
  DeadHome& operator=(const DeadHome&) = delete;

  void file(const std::string& name, std::string_view bytes) {
    const std::string path = state() + "/" + kId + "/" + name;
    const File out = File::open(path, O_WRONLY | O_CREAT | O_TRUNC);
    check(out.valid() && out.write_at(0, bytes.data(), bytes.size()), "there is room for a few kilobytes");
  }

  // Recovers it and reads everything that can be read. Calls `each` with every record, `found` with what was found.
  template <class Each, class Found>
  void recover(Each&& each, Found&& found) {
    journal::Identity identity;
    identity.version = journal::kLayoutVersion;
    identity.memory = state() + "/" + kId;
    static const std::string boot = boot_id();
    identity.boot = boot;
    struct stat s {};
    if (::lstat((identity.memory + "/recorder").c_str(), &s) == 0) identity.recorder_inode = s.st_ino;
    const bool written = journal::write_identity({kId, identity.memory, identity.memory}, identity);
    check(written, "there is room for a few kilobytes");

    Diagnostics quiet(DiagnosticLevel::none);
    journal::Hook hook(quiet);
    const auto recovered = journal::recover_directory(state(), kId, JournalConfig{}, hook, quiet, found);
    if (!recovered) return;
    journal::Journal& journal = *recovered->journal;
    (void)journal.resource();
    for (const auto& name : journal.cursors()) {
      const auto cursor = journal.cursor(name.name, name.signal, true);
      check(cursor != nullptr, "a cursor that is listed is there");
      (void)cursor->counts();
      // In two bites, as a destination does.
      for (const int most : {1, 1'000'000}) {
        int taken = 0;
        const std::uint64_t position = cursor->read([&](const journal::Record& record) {
          if (taken == most) return false;
          ++taken;
          return record.signal == name.signal;
        });
        check(position >= cursor->position(), "a cursor moves forward");
        cursor->acknowledge(position, {.delivered = static_cast<std::uint64_t>(taken)});
      }
      (void)cursor->counts();
    }
    journal.for_each([&](const journal::Record& record, std::uint16_t lane) {
      (void)journal.scope(record.scope);
      each(record, lane);
    });
    journal::finish_recovered(*recovered);
  }

 private:
  static constexpr const char* kId = "0123456789abcdef0123456789abcdef";
  // In the working directory, which whoever runs the fuzzer puts on tmpfs and removes.
  static const std::string& state() {
    static const std::string path = std::filesystem::current_path().string() + "/state";
    return path;
  }
};

}  // namespace waymark::fuzz
