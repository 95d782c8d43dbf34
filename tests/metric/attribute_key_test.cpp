#include "metric/attribute_key.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

namespace waymark::metric {
namespace {

TEST(AttributeKeyTest, IsTheSameForTheSameAttributesOnly) {
  const std::string thirty(30, 'x');
  const std::string one_more(31, 'x');
  const std::vector<std::vector<Attribute>> sets = {
      {},
      {{"a", 1}},
      {{"a", 2}},
      {{"a", 1.0}},
      {{"a", "1"}},
      {{"a", true}},
      {{"a", nullptr}},
      {{"b", 1}},
      {{"a", 1}, {"b", 1}},
      {{"b", 1}, {"a", 1}},
      {{"ab", ""}},
      {{"a", "b"}},
      {{"", "ab"}},
      {{"key", "abcdefgh"}},
      {{"key", "abcdefgi"}},
      {{"key", "abcdefg"}},
      {{"key", thirty}},
      {{"key", one_more}},
  };
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const std::string packed = pack(sets[i]);
    for (std::size_t j = 0; j < sets.size(); ++j) {
      EXPECT_EQ(same(packed.data(), packed.size(), sets[j]), i == j) << i << " and " << j;
      if (i != j) {
        EXPECT_NE(hash(sets[i], 1), hash(sets[j], 1)) << i << " and " << j;
      }
    }
    EXPECT_NE(hash(sets[i], 1), hash(sets[i], 2)) << "another instrument's";
  }
}

TEST(AttributeKeyTest, EveryByteOfATextCounts) {
  for (std::size_t length = 1; length <= 70; ++length) {
    std::string text(length, 'a');
    std::set<std::uint64_t> hashes{hash({{"k", text}}, 0)};
    const std::string packed = pack({{"k", text}});
    for (std::size_t i = 0; i < length; ++i) {
      std::string other = text;
      other[i] = 'b';
      EXPECT_FALSE(same(packed.data(), packed.size(), {{"k", other}})) << length << " " << i;
      hashes.insert(hash({{"k", other}}, 0));
    }
    EXPECT_EQ(hashes.size(), length + 1) << length;
  }
}

TEST(AttributeKeyTest, ArraysAndMapsAreNotPlain) {
  const std::vector<std::int64_t> numbers{1, 2};
  EXPECT_TRUE(plain({{"a", 1}, {"b", "x"}}));
  EXPECT_FALSE(plain({{"a", 1}, {"b", numbers}}));
}

}  // namespace
}  // namespace waymark::metric
