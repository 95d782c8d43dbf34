// The random workflow: a tree of nodes, whose shape, dependencies and failures all follow from one number, so that the
// test knows what must have come of it.
//
// Hides: how a number becomes a tree.
// Threads: tasks run on any.
// Failure: a Node throws where its plan says so.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "chaos/account.h"
#include "waymark/waymark.h"

namespace waymark::chaos {

// Named in the store by its path from the root: "0", "0.2", "0.2.1".
struct Node {
  enum Doom { none, fails, fails_below };  // for good, itself or something below it: always within an optional subtree
  std::uint64_t seed = 0;
  std::string path;
  int depth = 0;
  int doom = none;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Node, seed, path, depth, doom)

  void execute(Context& context);
  static const Account*& account();  // of this process
};

[[nodiscard]] Node root_node(std::uint64_t seed);

// What must be true of a node when its job is done.
struct Expected {
  std::uint64_t seed = 0;
  bool computed = true;  // false: it may be, within an optional subtree in which something fails
  std::vector<std::string> after = {};  // paths of those whose whole subtrees come first
};
// By path: all nodes below and including this one.
void expect(const Node& node, bool computed, std::map<std::string, Expected>& into);

}  // namespace waymark::chaos
