// The workflow that the process tests run: a scene of tiles, then a mosaic.
//
// Hides: nothing.
// Threads: as tasks are.
// Failure: a Tile does what its process was told to do with it (see worker.cpp).
#pragma once

#include <functional>
#include <vector>

#include "waymark/waymark.h"

namespace waymark::testing {

struct Tile {
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, index)
  void execute(Context& context) { body()(*this, context); }
  static std::function<void(const Tile&, Context&)>& body() {
    static auto* const b = new std::function<void(const Tile&, Context&)>;  // for good: a task may hang in it at the end
    return *b;
  }
};

struct Mosaic {
  void execute(Context& context) { context.logger().info("mosaic done"); }
};

struct Scene {
  int tiles = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Scene, tiles)
  void execute(Context& context) {
    std::vector<Tile> work;
    for (int i = 0; i < tiles; ++i) work.push_back({i});
    context.submit_subtask(Mosaic{}, {.depends_on = context.submit_subtasks(work)});
  }
};

}  // namespace waymark::testing
