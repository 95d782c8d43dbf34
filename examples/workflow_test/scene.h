// The workflow under test: a scene is cut into tiles, and the mosaic waits for all of them.
#pragma once

#include <waymark/waymark.h>

#include <chrono>
#include <string>
#include <vector>

struct Tile {
  std::string scene_id;
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, scene_id, index)

  void execute(waymark::Context& context) {
    auto span = context.tracer().span("read_bands", {{"bands", 4}});
    context.job_cache().group("tiles").set(std::to_string(index), scene_id + "/" + std::to_string(index));
  }
};

struct Mosaic {
  int tiles = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Mosaic, tiles)

  void execute(waymark::Context& context) {
    const auto found = context.job_cache().group("tiles").keys().size();
    if (found != static_cast<std::size_t>(tiles)) throw waymark::NonRetryable("tiles are missing");
    context.logger().info("mosaic done", {{"tiles", found}});
  }
};

struct ProcessScene {
  std::string scene_id;
  int tiles = 3;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ProcessScene, scene_id, tiles)

  void execute(waymark::Context& context) {
    std::vector<Tile> work;
    for (int i = 0; i < tiles; ++i) work.push_back({scene_id, i});
    auto done = context.submit_subtasks(work, {.max_retries = 3, .timeout = std::chrono::minutes(10)});
    context.submit_subtask(Mosaic{tiles}, {.depends_on = done});
  }
};
