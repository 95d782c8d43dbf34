// Addresses of a dead process as text: function, file and line where its program and libraries are still there unchanged,
// else the file and the offset in it.
//
// Hides: ELF, DWARF and libdw, which is used here only.
// Threads: any.
// Failure: none. What can't be read, is no regular file, or is not the same file any more, is not looked into.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace waymark::journal {

// A file that was mapped into the process.
struct LoadedModule {
  std::uint64_t base = 0;
  std::uint64_t end = 0;
  std::uint64_t inode = 0;
  std::string build_id;  // in hex; empty: it has none
  std::string path;
};

// One line for each address, innermost first: `#0 read_bands(int) at tile.cpp:42 (scene_tiles+0x1234)`. The first address is
// that of an instruction, the others are return addresses. `when_ns`: the process's end; a file changed since is another.
[[nodiscard]] std::string stack_text(std::span<const std::uint64_t> stack, const std::vector<LoadedModule>& modules,
                                     std::uint64_t when_ns);

}  // namespace waymark::journal
