// The checksum of everything that recovery has to trust: XXH3, 64 bits.
//
// Hides: xxHash, compiled in, so that nothing has to be linked.
// Threads: pure functions.
// Failure: none.
#pragma once

#include <cstddef>
#include <cstdint>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace waymark::journal {

inline std::uint64_t checksum(const void* data, std::size_t bytes) noexcept { return XXH3_64bits(data, bytes); }

// For structures that end in the checksum of what stands before it.
template <class T>
void seal(T& structure) noexcept {
  structure.checksum = checksum(&structure, offsetof(T, checksum));
}
template <class T>
[[nodiscard]] bool sealed(const T& structure) noexcept {
  return structure.checksum == checksum(&structure, offsetof(T, checksum));
}

}  // namespace waymark::journal
