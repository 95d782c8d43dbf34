#include "tasks.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string_view>

#include "pixels.h"

namespace scene {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, kBands> kBandNames = {"red", "green", "blue"};
// Any attempt may meet a full disk or a signal; only this many failures of one tile give the job up.
constexpr std::uint32_t kTileRetries = 3;

fs::path scene_file(const fs::path& directory) { return directory / "scene.ppm"; }

// directory/tiles/007.png and .json
fs::path tile_file(const fs::path& directory, int index, const char* extension) {
  std::string number = std::to_string(index);
  number.insert(0, 3 - std::min<std::size_t>(3, number.size()), '0');
  return directory / "tiles" / (number + extension);
}

// A file that is whole or not there, whatever becomes of this process meanwhile.
void write_json(const fs::path& path, const nlohmann::json& json) {
  const fs::path part = path.string() + ".part";
  std::ofstream file(part);
  file << json.dump(2) << '\n';
  file.close();
  if (!file) throw std::runtime_error(path.string() + ": cannot be written");
  fs::rename(part, path);
}

nlohmann::json read_json(const fs::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path.string() + ": cannot be opened");
  return nlohmann::json::parse(file);
}

// What a bad pointer does. The process dies of SIGSEGV here and now: no destructor runs, nothing is flushed.
[[noreturn]] void crash() {
  volatile std::uintptr_t nowhere = 8;
  *reinterpret_cast<volatile int*>(nowhere) = 1;
  std::abort();
}

}  // namespace

void ProcessScenes::execute(waymark::Context& context) {
  std::vector<ReadScene> scenes;
  std::set<std::string> names;
  for (const std::string& image : images) {
    std::string name = fs::path(image).stem().string();
    while (!names.insert(name).second) name += "_";
    scenes.push_back({image, (fs::path(out) / name).string(), tile, scenes.empty() ? doomed : 0});
  }
  context.submit_subtasks(scenes);
  context.logger().info("scenes found", {{"scenes", scenes.size()}});
}

void ReadScene::execute(waymark::Context& context) {
  Image image_pixels;
  {
    auto span = context.tracer().span("decode", {{"file", image}, {"file.bytes", fs::file_size(image)}});
    image_pixels = decode(image);
    span.set("width", image_pixels.width).set("height", image_pixels.height);
  }
  {
    auto span = context.tracer().span("write_scene", {{"bytes", image_pixels.pixels.size()}});
    fs::create_directories(fs::path(directory) / "tiles");
    write_scene(scene_file(directory), image_pixels);
  }

  const int count = static_cast<int>(tile_grid({image_pixels.width, image_pixels.height}, tile).size());
  std::vector<Tile> tiles;
  for (int i = 0; i < count; ++i) tiles.push_back({directory, tile, i, i >= count / 2 ? doomed : 0});
  const auto cut = context.submit_subtasks(tiles, {.max_retries = kTileRetries});
  const auto mosaic = context.submit_subtask(Mosaic{directory, tile}, {.depends_on = cut});
  context.submit_subtask(Summary{image, directory, tile}, {.depends_on = mosaic});

  context.progress("tiles").add(static_cast<std::uint64_t>(count));
  context.logger().info("scene read", {{"file", image},
                                       {"width", image_pixels.width},
                                       {"height", image_pixels.height},
                                       {"tiles", count}});
}

void Tile::execute(waymark::Context& context) {
  const Region region = tile_grid(scene_size(scene_file(directory)), tile).at(static_cast<std::size_t>(index));
  auto current = waymark::current_span();
  current.set("tile.index", index).set("tile.x", region.x).set("tile.y", region.y);

  Image image;
  {
    auto span = context.tracer().span("read", {{"width", region.width}, {"height", region.height}});
    image = read_region(scene_file(directory), region);
    span.set("bytes", image.pixels.size());
  }
  context.logger().info("tile read", {{"index", index}, {"bytes", image.pixels.size()}});

  nlohmann::json result{{"index", index}, {"x", region.x}, {"y", region.y}, {"width", region.width}, {"height", region.height}};
  {
    auto span = context.tracer().span("statistics", {{"pixels", region.width * region.height}});
    for (int band = 0; band < kBands; ++band) {
      const auto [mean, deviation] = band_statistics(image, band);
      const std::string name(kBandNames[static_cast<std::size_t>(band)]);
      result[name] = {{"mean", mean}, {"deviation", deviation}};
      span.event("band done", {{"band", name}, {"mean", mean}, {"deviation", deviation}});
      if (doomed == getpid() && band == 1) {
        context.logger().warning("about to follow a bad pointer", {{"index", index}});
        crash();
      }
    }
    const double green = excess_green(image);
    const double cloud = cloud_share(image);
    result["excess_green"] = green;
    result["cloud_share"] = cloud;
    span.set("excess_green", green).set("cloud_share", cloud);
  }
  {
    auto span = context.tracer().span("encode");
    span.set("png.bytes", write_png(tile_file(directory, index, ".png"), image));
    write_json(tile_file(directory, index, ".json"), result);
  }
  context.progress("tiles").done();
  context.logger().info("tile done", {{"index", index},
                                      {"excess_green", result["excess_green"].get<double>()},
                                      {"cloud_share", result["cloud_share"].get<double>()}});
}

void Mosaic::execute(waymark::Context& context) {
  const Size size = scene_size(scene_file(directory));
  const auto grid = tile_grid(size, tile);
  Image whole{size.width, size.height, {}};
  whole.pixels.resize(static_cast<std::size_t>(size.width) * size.height * kBands);
  {
    auto span = context.tracer().span("assemble", {{"tiles", grid.size()}});
    for (std::size_t i = 0; i < grid.size(); ++i) {
      paste(whole, decode(tile_file(directory, static_cast<int>(i), ".png")), grid[i].x, grid[i].y);
    }
  }
  Image level;
  {
    auto span = context.tracer().span("pyramid_level", {{"level", 1}});
    level = half(whole);
    span.set("png.bytes", write_png(fs::path(directory) / "level1.png", level));
  }
  {
    auto span = context.tracer().span("heat_map", {{"index", "excess green"}});
    span.set("png.bytes", write_png(fs::path(directory) / "mosaic.png", heat_map(level)));
  }
  context.logger().info("mosaic done", {{"width", level.width}, {"height", level.height}});
}

void Summary::execute(waymark::Context& context) {
  const Size size = scene_size(scene_file(directory));
  const std::size_t count = tile_grid(size, tile).size();
  nlohmann::json tiles = nlohmann::json::array();
  double green = 0;
  double cloud = 0;
  for (std::size_t i = 0; i < count; ++i) {
    tiles.push_back(read_json(tile_file(directory, static_cast<int>(i), ".json")));
    const double pixels = tiles.back()["width"].get<double>() * tiles.back()["height"].get<double>();
    green += tiles.back()["excess_green"].get<double>() * pixels;
    cloud += tiles.back()["cloud_share"].get<double>() * pixels;
  }
  const double pixels = static_cast<double>(size.width) * size.height;
  green /= pixels;
  cloud /= pixels;
  write_json(fs::path(directory) / "summary.json", {{"image", fs::path(image).filename().string()},
                                                    {"width", size.width},
                                                    {"height", size.height},
                                                    {"excess_green", green},
                                                    {"cloud_share", cloud},
                                                    {"tiles", tiles}});
  context.logger().info("summary written", {{"excess_green", green}, {"cloud_share", cloud}, {"tiles", count}});
}

}  // namespace scene
