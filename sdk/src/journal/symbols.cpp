#include "journal/symbols.h"

#include <cxxabi.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>

#include "base/file.h"

#ifdef WAYMARK_HAS_LIBDW
#include <elfutils/libdwfl.h>

#include <mutex>
#endif

namespace waymark::journal {
namespace {

// Names of templates grow without end; what follows in the stack is worth more.
constexpr std::size_t kLongestName = 400;

struct Place {
  std::string function;
  std::string source;  // "tile.cpp:42"
};

#ifdef WAYMARK_HAS_LIBDW

// Larger ones are not looked into: a recovery must not take long.
constexpr off_t kLargestFile = off_t{1} << 30;

// elfutils keeps a state of its own for the process.
std::mutex& library_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 && text ? text.get() : name;
}

// A module's file, if it is still what was loaded.
class SymbolFile {
 public:
  // The path and all else come from a dead process's memory, and may say anything.
  static std::unique_ptr<SymbolFile> open(const LoadedModule& module, std::uint64_t when_ns) {
    struct stat s {};
    // Looked at first: opening what is no file may do something.
    if (::lstat(module.path.c_str(), &s) != 0 || !S_ISREG(s.st_mode)) return nullptr;
    File file = File::open(module.path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file.valid() || ::fstat(file.fd(), &s) != 0 || !S_ISREG(s.st_mode) || s.st_size > kLargestFile) return nullptr;
    const std::uint64_t changed = static_cast<std::uint64_t>(std::max<time_t>(s.st_mtim.tv_sec, 0)) * 1'000'000'000u +
                                  static_cast<std::uint64_t>(s.st_mtim.tv_nsec);
    if (module.build_id.empty() && (s.st_ino != module.inode || changed > when_ns)) return nullptr;
    std::unique_ptr<SymbolFile> opened(new SymbolFile);
    if (!opened->read(module, file)) return nullptr;
    return opened;
  }
  ~SymbolFile() {
    if (session_ != nullptr) dwfl_end(session_);
  }
  SymbolFile(const SymbolFile&) = delete;
  SymbolFile& operator=(const SymbolFile&) = delete;

  // `offset` from where the file's first byte was mapped.
  [[nodiscard]] Place at(std::uint64_t offset) const {
    Place place;
    const GElf_Addr address = base_ + offset;
    GElf_Off within = 0;
    GElf_Sym symbol{};
    const char* name = dwfl_module_addrinfo(module_, address, &within, &symbol, nullptr, nullptr, nullptr);
    // Of a stripped file the nearest name may be that of something far away.
    if (name != nullptr && (symbol.st_size == 0 || within < symbol.st_size)) place.function = demangled(name);
    if (Dwfl_Line* line = dwfl_module_getsrc(module_, address); line != nullptr) {
      int number = 0;
      const char* source = dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr);
      if (source != nullptr) place.source = std::string(source) + ":" + std::to_string(number);
    }
    return place;
  }

 private:
  SymbolFile() = default;

  bool read(const LoadedModule& module, const File& file) {
    // Separate debugging information is looked for on this machine, by its build id; never on a server.
    static constexpr Dwfl_Callbacks kCallbacks = {.find_elf = dwfl_build_id_find_elf,
                                                  .find_debuginfo = dwfl_build_id_find_debuginfo,
                                                  .section_address = dwfl_offline_section_address,
                                                  .debuginfo_path = nullptr};
    session_ = dwfl_begin(&kCallbacks);
    if (session_ == nullptr) return false;
    dwfl_report_begin(session_);
    const int own = ::fcntl(file.fd(), F_DUPFD_CLOEXEC, 0);
    if (own < 0) return false;
    module_ = dwfl_report_offline(session_, module.path.c_str(), module.path.c_str(), own);
    if (module_ == nullptr) {
      ::close(own);
      return false;
    }
    dwfl_report_end(session_, nullptr, nullptr);
    GElf_Addr bias = 0;
    Elf* elf = dwfl_module_getelf(module_, &bias);
    if (elf == nullptr) return false;
    if (!module.build_id.empty() && build_id() != module.build_id) return false;
    std::size_t parts = 0;
    if (elf_getphdrnum(elf, &parts) != 0) return false;
    for (std::size_t i = 0; i < parts; ++i) {
      GElf_Phdr part;
      if (gelf_getphdr(elf, static_cast<int>(i), &part) == nullptr || part.p_type != PT_LOAD) continue;
      base_ = bias + part.p_vaddr - part.p_offset;
      return true;
    }
    return false;
  }

  [[nodiscard]] std::string build_id() const {
    const unsigned char* bytes = nullptr;
    GElf_Addr address = 0;
    const int length = dwfl_module_build_id(module_, &bytes, &address);
    std::string text;
    for (int i = 0; i < length; ++i) {
      text += "0123456789abcdef"[bytes[i] >> 4];
      text += "0123456789abcdef"[bytes[i] & 15];
    }
    return text;
  }

  Dwfl* session_ = nullptr;
  Dwfl_Module* module_ = nullptr;
  GElf_Addr base_ = 0;  // of the file's first byte, in the session's addresses
};

#else

class SymbolFile {
 public:
  static std::unique_ptr<SymbolFile> open(const LoadedModule&, std::uint64_t) { return nullptr; }
  [[nodiscard]] static Place at(std::uint64_t) { return {}; }
};

#endif

std::string hex(std::uint64_t number) {
  char digits[16];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, number, 16);
  return "0x" + std::string(digits, end);
}

}  // namespace

std::string stack_text(std::span<const std::uint64_t> stack, const std::vector<LoadedModule>& modules,
                       std::uint64_t when_ns) {
#ifdef WAYMARK_HAS_LIBDW
  const std::scoped_lock lock(library_mutex());
#endif
  std::vector<std::unique_ptr<SymbolFile>> files(modules.size());
  std::vector<bool> tried(modules.size());
  std::string text;
  for (std::size_t i = 0; i < stack.size(); ++i) {
    const std::uint64_t address = stack[i];
    // A return address is behind its call, which may be the last thing in its function.
    const std::uint64_t within = i == 0 || address == 0 ? address : address - 1;
    text += (i == 0 ? "#" : "\n#") + std::to_string(i) + " ";
    const auto found = std::find_if(modules.begin(), modules.end(),
                                    [&](const LoadedModule& m) { return within >= m.base && within < m.end; });
    if (found == modules.end()) {
      text += hex(address);
      continue;
    }
    const auto m = static_cast<std::size_t>(found - modules.begin());
    if (!tried[m]) files[m] = SymbolFile::open(*found, when_ns);
    tried[m] = true;
    const Place place = files[m] ? files[m]->at(within - found->base) : Place{};
    if (!place.function.empty()) {
      text += place.function.size() <= kLongestName ? place.function : place.function.substr(0, kLongestName) + "...";
      text += ' ';
    }
    if (!place.source.empty()) text += "at " + place.source + " ";
    const std::string_view path = found->path;
    text += "(" + std::string(path.substr(path.rfind('/') + 1)) + "+" + hex(address - found->base) + ")";
  }
  return text;
}

}  // namespace waymark::journal
