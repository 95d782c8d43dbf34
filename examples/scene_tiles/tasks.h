// The workflow of scene_tiles. Each task is a struct: its members are its input and travel as JSON, so that any runner
// that knows the type can execute it, in this process or another. Pixels travel as files in the output directory.
//
//   ProcessScenes
//     ReadScene           one per image: decodes it, writes scene.ppm
//       Tile ...          reads its region, computes statistics, writes NNN.png and NNN.json; retried if it fails
//       Mosaic            after all tiles: puts them together, writes level1.png and mosaic.png
//       Summary           after the mosaic: writes summary.json
//
// Hides: what the tasks write, and where.
// Threads: each execution has its own object; tasks share nothing but files.
// Failure: an exception out of execute() fails the attempt, and is recorded on its span.
#pragma once

#include <waymark/waymark.h>

#include <string>
#include <vector>

namespace scene {

struct Tile {
  std::string directory;  // of the scene
  int tile = 0;           // edge of a full tile, pixels
  int index = 0;          // in tile_grid's order
  int doomed = 0;         // id of the process that a crash takes down when it executes this task; 0: none
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, directory, tile, index, doomed)

  void execute(waymark::Context& context);
};

struct Mosaic {
  std::string directory;
  int tile = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Mosaic, directory, tile)

  void execute(waymark::Context& context);
};

struct Summary {
  std::string image;
  std::string directory;
  int tile = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Summary, image, directory, tile)

  void execute(waymark::Context& context);
};

struct ReadScene {
  std::string image;
  std::string directory;
  int tile = 0;
  int doomed = 0;  // passed on to the second half of its tiles
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ReadScene, image, directory, tile, doomed)

  void execute(waymark::Context& context);
};

struct ProcessScenes {
  std::vector<std::string> images;
  std::string out;
  int tile = 256;
  int doomed = 0;  // passed on to the first scene
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ProcessScenes, images, out, tile, doomed)

  void execute(waymark::Context& context);
};

}  // namespace scene
