#include "metric/exponential.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "metric/cell.h"
#include "support/holds.h"

namespace waymark::metric {
namespace {

// The bucket's lower and upper bound, by long double.
long double bound(std::int32_t index, std::int32_t scale) { return std::exp2l(std::ldexp(static_cast<long double>(index), -scale)); }

TEST(BucketIndexTest, IsExactForPowersOfTwoAtEveryScale) {
  HOLDS("MT-41");
  for (std::int32_t scale = kMinimumScale; scale <= kMaximumScale; ++scale) {
    for (int exponent = -1022; exponent <= 1023; ++exponent) {
      const double value = std::ldexp(1.0, exponent);
      // The upper bound belongs to the bucket: 2^e is the end of the bucket before.
      const std::int64_t expected = scale >= 0 ? (std::int64_t{exponent} << scale) - 1 : (exponent - 1) >> -scale;
      ASSERT_EQ(bucket_index(value, scale), expected) << "2^" << exponent << " at scale " << scale;
    }
  }
}

TEST(BucketIndexTest, IsAtMostOneOffAnywhere) {
  HOLDS("MT-41");
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const double value = std::ldexp(1.0 + static_cast<double>(random() >> 12) * 0x1p-52, static_cast<int>(random() % 600) - 300);
    for (const std::int32_t scale : {-10, -3, 0, 1, 4, 10, 20}) {
      const std::int32_t index = bucket_index(value, scale);
      ASSERT_GT(static_cast<long double>(value), bound(index - 1, scale)) << value << " at " << scale;
      ASSERT_LE(static_cast<long double>(value), bound(index + 2, scale)) << value << " at " << scale;
    }
  }
}

TEST(BucketIndexTest, TakesEveryDoubleAboveZero) {
  HOLDS("MT-39");
  for (const std::int32_t scale : {kMinimumScale, 0, kMaximumScale}) {
    for (const double value : {5e-324, 1e-310, 2.2250738585072014e-308, 1e-300, 1.0, 1e300, 1.7976931348623157e308}) {
      const std::int32_t index = bucket_index(value, scale);
      EXPECT_GE(index, -(1 << 30));
      EXPECT_LE(index, 1 << 30);
    }
  }
  EXPECT_EQ(bucket_index(5e-324, 0), bucket_index(2.2250738585072014e-308, 0)) << "subnormals are the smallest normal";
}

HistogramShape shape(std::uint32_t size = 160) {
  HistogramShape s;
  s.exponential = true;
  s.signed_values = true;
  s.max_buckets = size;
  return s;
}

std::map<std::int32_t, std::uint64_t> filled(const Buckets& row) {
  std::map<std::int32_t, std::uint64_t> counts;
  for (std::int32_t i = row.low; !row.empty() && i <= row.high; ++i) {
    if (row.counts[i - row.base] > 0) counts[i] = row.counts[i - row.base];
  }
  return counts;
}

TEST(DistributionTest, OneValueHasTheBestScale) {
  HOLDS("MT-40");
  Distribution d(shape());
  d.add(shape(), 3.0);
  EXPECT_EQ(d.scale, kMaximumScale);
  EXPECT_EQ(filled(d.positive).size(), 1u);
}

// Whatever comes in whatever order: nothing is lost, there is room for all, and a scale higher would not have done.
TEST(DistributionTest, KeepsAllCountsAtTheBestScaleThatHasRoom) {
  HOLDS("MT-40");
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    const auto size = static_cast<std::uint32_t>(2 + random() % 160);
    const HistogramShape s = shape(size);
    Distribution d(s);
    std::vector<double> values;
    const double spread = std::ldexp(1.0, static_cast<int>(random() % 12));
    const int n = 1 + static_cast<int>(random() % 200);
    for (int i = 0; i < n; ++i) {
      const double e = (static_cast<double>(random() % 2000001) / 1e6 - 1) * spread;
      double value = random() % 20 == 0 ? 0 : std::exp2(e);
      if (random() % 3 == 0) value = -value;
      values.push_back(value);
      d.add(s, value);
    }
    std::map<std::int32_t, std::uint64_t> positive;
    std::map<std::int32_t, std::uint64_t> negative;
    std::uint64_t zeros = 0;
    std::int32_t lowest[2] = {INT32_MAX, INT32_MAX};
    std::int32_t highest[2] = {INT32_MIN, INT32_MIN};
    for (const double v : values) {
      if (v == 0) {
        ++zeros;
        continue;
      }
      // The place at the finest scale tells that at every other.
      const std::int32_t fine = bucket_index(std::abs(v), kMaximumScale);
      ++(v > 0 ? positive : negative)[fine >> (kMaximumScale - d.scale)];
      lowest[v > 0] = std::min(lowest[v > 0], fine);
      highest[v > 0] = std::max(highest[v > 0], fine);
    }
    ASSERT_EQ(d.zeros, zeros);
    ASSERT_EQ(d.count, values.size());
    ASSERT_EQ(filled(d.positive), positive);
    ASSERT_EQ(filled(d.negative), negative);
    for (const Buckets* row : {&d.positive, &d.negative}) {
      if (row->empty()) continue;
      ASSERT_LE(row->high - row->low + 1, static_cast<std::int32_t>(size));
    }
    if (d.scale < kMaximumScale) {
      const std::int32_t shift = kMaximumScale - d.scale - 1;
      const auto width = [&](int sign) {
        return highest[sign] < lowest[sign] ? 0 : (highest[sign] >> shift) - (lowest[sign] >> shift) + 1;
      };
      // One more than fits, or as many, since an index at the edge may be one off.
      ASSERT_GE(std::max(width(0), width(1)), static_cast<std::int32_t>(size)) << "scale " << d.scale << " is too coarse";
    }
  }
}

TEST(DistributionTest, MergingIsAsIfOneHadCountedAll) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    const HistogramShape s = shape(8 + static_cast<std::uint32_t>(random() % 100));
    Distribution one(s);
    Distribution parts[3]{Distribution(s), Distribution(s), Distribution(s)};
    Distribution merged(s);
    for (int i = 0; i < 100; ++i) {
      const double e = static_cast<double>(random() % 1000) / 50 - 10;
      const double value = random() % 4 == 0 ? -std::exp2(e) : std::exp2(e);
      one.add(s, value);
      parts[random() % 3].add(s, value);
    }
    for (const Distribution& part : parts) merged.merge(s, part);
    ASSERT_EQ(merged.count, one.count);
    ASSERT_DOUBLE_EQ(merged.minimum, one.minimum);
    ASSERT_DOUBLE_EQ(merged.maximum, one.maximum);
    ASSERT_NEAR(merged.sum, one.sum, 1e-6);
    ASSERT_EQ(merged.zeros, one.zeros);
    const std::int32_t common = std::min(merged.scale, one.scale);
    const auto at = [&](const Distribution& d, const Buckets& row) {
      std::map<std::int32_t, std::uint64_t> counts;
      for (const auto& [index, count] : filled(row)) counts[index >> (d.scale - common)] += count;
      return counts;
    };
    ASSERT_EQ(at(merged, merged.positive), at(one, one.positive));
    ASSERT_EQ(at(merged, merged.negative), at(one, one.negative));
    ASSERT_LE(std::abs(merged.scale - one.scale), 1);
  }
}

TEST(DistributionTest, WithoutExemplarsNothingIsOfferedAndNothingKept) {
  HOLDS("MT-54");
  for (const bool exponential : {false, true}) {
    HistogramShape s = shape();
    s.exponential = exponential;
    Distribution d(s);
    EXPECT_TRUE(d.exemplars.empty());
    EXPECT_EQ(d.add(s, 1), -1);
  }
}

TEST(DistributionTest, ClearedItIsAsNew) {
  const HistogramShape s = shape();
  Distribution d(s);
  for (const double v : {1e-100, 1e100, -5.0, 0.0}) d.add(s, v);
  d.clear(s);
  EXPECT_EQ(d.count, 0u);
  EXPECT_EQ(d.scale, kMaximumScale);
  for (const std::uint64_t n : d.counts) EXPECT_EQ(n, 0u);
}

}  // namespace
}  // namespace waymark::metric
