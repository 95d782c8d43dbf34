#include "metric/cell.h"

#include <algorithm>

namespace waymark::metric {

Distribution::Distribution(const HistogramShape& shape)
    : scale(shape.max_scale),
      counts(shape.exponential && shape.signed_values ? 2 * shape.buckets() : shape.buckets()),
      exemplars(shape.exemplars) {
  positive.counts = counts.data();
  negative.counts = shape.exponential && shape.signed_values ? counts.data() + shape.buckets() : nullptr;
}

std::size_t Distribution::add_explicit(const HistogramShape& shape, double value) noexcept {
  // Upper bounds are inclusive.
  const auto bound = std::lower_bound(shape.bounds.begin(), shape.bounds.end(), value);
  const auto bucket = static_cast<std::size_t>(bound - shape.bounds.begin());
  ++counts[bucket];
  return bucket;
}

void Distribution::downscale(std::int32_t shift) noexcept {
  positive.downscale(shift);
  negative.downscale(shift);
  scale -= shift;
}

void Distribution::add_exponential(const HistogramShape& shape, double value) noexcept {
  if (value == 0) {
    ++zeros;
    return;
  }
  Buckets& row = value > 0 ? positive : negative;
  const double size = std::abs(value);
  std::int32_t index = bucket_index(size, scale);
  const std::int32_t shift = row.shift_for(index, index, shape.max_buckets);
  if (shift > 0) [[unlikely]] {
    downscale(shift);
    index >>= shift;
  }
  row.add(index, 1, shape.max_buckets);
}

std::int64_t Distribution::add(const HistogramShape& shape, double value) noexcept {
  minimum = count == 0 ? value : std::min(minimum, value);
  maximum = count == 0 ? value : std::max(maximum, value);
  ++count;
  sum += value;
  if (shape.exponential) {
    add_exponential(shape, value);
    return shape.exemplars > 0 ? 0 : -1;
  }
  const std::size_t bucket = add_explicit(shape, value);
  return shape.exemplars > 0 ? static_cast<std::int64_t>(bucket % shape.exemplars) : -1;
}

void Distribution::merge(const HistogramShape& shape, const Distribution& other) noexcept {
  if (other.count == 0) return;
  minimum = count == 0 ? other.minimum : std::min(minimum, other.minimum);
  maximum = count == 0 ? other.maximum : std::max(maximum, other.maximum);
  sum += other.sum;
  if (!shape.exponential) {
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
  } else {
    zeros += other.zeros;
    std::int32_t common = std::min(scale, other.scale);
    const auto wanted = [&](const Buckets& mine, const Buckets& theirs) {
      if (theirs.empty()) return;
      for (;;) {
        Buckets row = mine;
        row.low >>= scale - common;
        row.high = mine.empty() ? row.low - 1 : mine.high >> (scale - common);
        const std::int32_t shift = row.shift_for(theirs.low >> (other.scale - common), theirs.high >> (other.scale - common),
                                                 shape.max_buckets);
        if (shift == 0) return;
        common -= shift;
      }
    };
    wanted(positive, other.positive);
    wanted(negative, other.negative);
    downscale(scale - common);
    const auto take = [&](Buckets& mine, const Buckets& theirs) {
      if (theirs.empty()) return;
      for (std::int32_t i = theirs.low; i <= theirs.high; ++i) {
        const std::uint64_t n = theirs.counts[i - theirs.base];
        if (n > 0) mine.add(i >> (other.scale - common), n, shape.max_buckets);
      }
    };
    take(positive, other.positive);
    take(negative, other.negative);
  }
  count += other.count;
  // Each reservoir is a fair sample of its own; of two for one place the newer stays.
  for (std::size_t i = 0; i < exemplars.size(); ++i) {
    const Exemplar& theirs = other.exemplars[i];
    if (theirs.time_ns > exemplars[i].time_ns) exemplars[i] = theirs;
  }
}

void Distribution::clear_exemplars() noexcept {
  std::fill(exemplars.begin(), exemplars.end(), Exemplar{});
  offered = 0;
}

void Distribution::clear(const HistogramShape& shape) noexcept {
  if (count > 0) {
    if (shape.exponential) {
      positive.clear();
      negative.clear();
    } else {
      std::fill(counts.begin(), counts.end(), 0);
    }
  }
  count = zeros = 0;
  sum = minimum = maximum = 0;
  scale = shape.max_scale;
  clear_exemplars();
}

}  // namespace waymark::metric
