// Base-2 exponential buckets: which bucket a value falls into, and a row of buckets that gives up resolution for range.
//
// Hides: the index arithmetic. Bucket i of scale s holds (b^i, b^(i+1)], b = 2^(2^-s).
// Threads: values of one owner at a time.
// Failure: none.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace waymark::metric {

inline constexpr std::int32_t kMinimumScale = -10;
inline constexpr std::int32_t kMaximumScale = 20;

// The bucket of a value greater than zero, at a scale of kMinimumScale to kMaximumScale. Exact for powers of two; else it may
// be one off at a bucket's edge. Subnormals count as the smallest normal number.
[[nodiscard]] inline std::int32_t bucket_index(double value, std::int32_t scale) noexcept {
  constexpr std::uint64_t kSignificand = (std::uint64_t{1} << 52) - 1;
  std::uint64_t bits = std::bit_cast<std::uint64_t>(value);
  if (bits >> 52 == 0) bits = std::uint64_t{1} << 52;
  const auto exponent = static_cast<std::int32_t>(bits >> 52) - 1023;
  const std::uint64_t significand = bits & kSignificand;
  if (scale <= 0) return (significand == 0 ? exponent - 1 : exponent) >> -scale;
  if (significand == 0) return (exponent << scale) - 1;
  // The exponent is exact; only the significand's part, in (0, 1), is computed.
  const double fraction = std::log2(std::bit_cast<double>(significand | std::uint64_t{1023} << 52));
  const auto steps = static_cast<std::int32_t>(fraction * static_cast<double>(std::int32_t{1} << scale));
  const std::int32_t most = (std::int32_t{1} << scale) - 1;
  return (exponent << scale) + (steps < most ? steps : most);
}

// A row of at most `size` buckets. Its counts are the caller's memory.
struct Buckets {
  std::uint64_t* counts = nullptr;
  std::int32_t base = 0;   // the index that counts[0] is of
  std::int32_t low = 0;    // first and last index that may hold something; low > high: none
  std::int32_t high = -1;

  [[nodiscard]] bool empty() const noexcept { return low > high; }
  void clear() noexcept {
    if (!empty()) std::memset(counts + (low - base), 0, static_cast<std::size_t>(high - low + 1) * sizeof *counts);
    low = 0;
    high = -1;
  }
  // By how much the scale must fall so that low to high and `from` to `to` have room.
  [[nodiscard]] std::int32_t shift_for(std::int32_t from, std::int32_t to, std::uint32_t size) const noexcept {
    std::int64_t l = empty() || from < low ? from : low;
    std::int64_t h = empty() || to > high ? to : high;
    std::int32_t shift = 0;
    while (h - l + 1 > static_cast<std::int64_t>(size)) {
      l >>= 1;
      h >>= 1;
      ++shift;
    }
    return shift;
  }
  void downscale(std::int32_t shift) noexcept {
    if (shift <= 0 || empty()) return;
    // Downwards in place: a target never lies behind what is still to be read.
    const std::int32_t new_low = low >> shift;
    std::int32_t new_high = new_low;
    for (std::int32_t i = low; i <= high; ++i) {
      const std::uint64_t n = counts[i - base];
      counts[i - base] = 0;
      new_high = i >> shift;
      // The new row starts where the old one did: counts[low - base] is the first of both.
      counts[(low - base) + (new_high - new_low)] += n;
    }
    base = new_low - (low - base);
    low = new_low;
    high = new_high;
  }
  // `index` must have room: shift_for(index, index, size) == 0.
  void add(std::int32_t index, std::uint64_t n, std::uint32_t size) noexcept {
    if (empty()) {
      base = index - static_cast<std::int32_t>(size / 2);
      low = high = index;
    } else if (index < low || index > high) {
      const std::int32_t new_low = index < low ? index : low;
      const std::int32_t new_high = index > high ? index : high;
      if (new_low < base || new_high - base >= static_cast<std::int32_t>(size)) {
        // In the middle of what is free, so that it need not move for each new bucket.
        const std::int32_t room = (static_cast<std::int32_t>(size) - (new_high - new_low + 1)) / 2;
        move(new_low - room);
      }
      low = new_low;
      high = new_high;
    }
    counts[index - base] += n;
  }

 private:
  void move(std::int32_t new_base) noexcept {
    const auto n = static_cast<std::size_t>(high - low + 1);
    std::uint64_t* const from = counts + (low - base);
    std::uint64_t* const to = counts + (low - new_base);
    std::memmove(to, from, n * sizeof *counts);
    // What was left and is not written over.
    if (to > from) {
      const std::size_t gap = std::size_t(to - from) < n ? std::size_t(to - from) : n;
      std::memset(from, 0, gap * sizeof *counts);
    } else if (to < from) {
      const std::size_t gap = std::size_t(from - to) < n ? std::size_t(from - to) : n;
      std::memset(from + n - gap, 0, gap * sizeof *counts);
    }
    base = new_base;
  }
};

}  // namespace waymark::metric
