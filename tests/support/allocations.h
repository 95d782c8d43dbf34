// Counts what the calling thread takes from the heap. Replaces the program's operator new: include it in one source.
//
// Hides: the replacement.
// Threads: each has its own count.
// Failure: std::bad_alloc where there is no memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace waymark::testing {

inline thread_local std::uint64_t allocations = 0;

}  // namespace waymark::testing

// Not inlined: the compiler would see malloc() meet delete, and free() meet new.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++waymark::testing::allocations;
  if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++waymark::testing::allocations;
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
