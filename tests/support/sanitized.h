// Whether a test is built with a sanitizer, for what these can't do.
//
// Hides: the compiler's macros.
// Threads: constants.
// Failure: none.
#pragma once

namespace waymark::testing {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
inline constexpr bool kSanitized = kAddressSanitizer || kThreadSanitizer;

// GCC 12's AddressSanitizer takes no lock of its allocator around fork, so that the child may wait for ever at its first
// allocation; its ThreadSanitizer ends a child that starts a thread ("dup thread with used id").
#define SKIP_IF_NO_FORK_BESIDE_THREADS() \
  if (::waymark::testing::kSanitized) GTEST_SKIP() << "this sanitizer does not survive a fork beside other threads"

}  // namespace waymark::testing
