// The pixel work of examples/scene_tiles.
#include "pixels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <string>

namespace scene {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// A directory that is gone when the test ends.
class PixelsTest : public testing::Test {
 protected:
  PixelsTest() {
    std::string pattern = testing::TempDir() + "pixels_XXXXXX";
    directory = mkdtemp(pattern.data());
  }
  ~PixelsTest() override { std::filesystem::remove_all(directory); }
  std::filesystem::path directory;
};

Image filled(int width, int height, std::array<std::uint8_t, 3> color) {
  Image image{width, height, {}};
  for (int i = 0; i < width * height; ++i) image.pixels.insert(image.pixels.end(), color.begin(), color.end());
  return image;
}

Image noise(int width, int height) {
  std::mt19937 random(7);
  Image image{width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(width) * height * kBands)};
  for (auto& value : image.pixels) value = static_cast<std::uint8_t>(random());
  return image;
}

// What the workflow does to a scene, without the workflow.
Image cut_and_put_together(const Image& image, int tile, const std::filesystem::path& directory) {
  write_scene(directory / "scene.ppm", image);
  const Size size = scene_size(directory / "scene.ppm");
  const auto grid = tile_grid(size, tile);
  for (std::size_t i = 0; i < grid.size(); ++i) {
    write_png(directory / (std::to_string(i) + ".png"), read_region(directory / "scene.ppm", grid[i]));
  }
  Image together = filled(size.width, size.height, {255, 0, 255});
  for (std::size_t i = 0; i < grid.size(); ++i) {
    paste(together, decode(directory / (std::to_string(i) + ".png")), grid[i].x, grid[i].y);
  }
  return together;
}

TEST_F(PixelsTest, TilesPutTogetherAgainEqualTheDecodedEarth) {
  const std::filesystem::path earth = "/usr/share/xplanet/images/earth.jpg";
  if (!std::filesystem::exists(earth)) FAIL() << earth << " is missing: install the package xplanet-images";
  const Image image = decode(earth);
  EXPECT_EQ(image.width, 2048);
  EXPECT_EQ(image.height, 1024);
  EXPECT_TRUE(cut_and_put_together(image, 300, directory) == image);
}

TEST_F(PixelsTest, TilesPutTogetherAgainEqualNoiseOfAnOddSize) {
  const Image image = noise(61, 37);
  EXPECT_TRUE(cut_and_put_together(image, 16, directory) == image);
  EXPECT_TRUE(cut_and_put_together(image, 1000, directory) == image);
}

TEST_F(PixelsTest, GridCoversTheSceneOnce) {
  EXPECT_THAT(tile_grid({5, 3}, 2), testing::ElementsAre(Region{0, 0, 2, 2}, Region{2, 0, 2, 2}, Region{4, 0, 1, 2},
                                                         Region{0, 2, 2, 1}, Region{2, 2, 2, 1}, Region{4, 2, 1, 1}));
}

TEST_F(PixelsTest, StatisticsOfOneColor) {
  const Image green = filled(4, 4, {10, 200, 20});
  EXPECT_EQ(band_statistics(green, 1).mean, 200);
  EXPECT_EQ(band_statistics(green, 1).deviation, 0);
  EXPECT_DOUBLE_EQ(excess_green(green), (400.0 - 10 - 20) / 230);
  EXPECT_EQ(cloud_share(green), 0);
  EXPECT_EQ(excess_green(filled(2, 2, {0, 0, 0})), 0);
  EXPECT_EQ(cloud_share(filled(2, 2, {240, 240, 250})), 1);
  EXPECT_EQ(cloud_share(filled(2, 2, {120, 120, 120})), 0);
  EXPECT_EQ(cloud_share(filled(2, 2, {250, 190, 190})), 0);
}

TEST_F(PixelsTest, DeviationIsThePopulations) {
  const Image two{2, 1, {10, 0, 0, 20, 0, 0}};
  EXPECT_DOUBLE_EQ(band_statistics(two, 0).mean, 15);
  EXPECT_DOUBLE_EQ(band_statistics(two, 0).deviation, 5);
}

TEST_F(PixelsTest, PyramidLevelsAverageWhatTheyCover) {
  const Image image{3, 1, {0, 0, 0, 100, 50, 10, 7, 8, 9}};
  EXPECT_EQ(half(image), (Image{2, 1, {50, 25, 5, 7, 8, 9}}));
}

TEST_F(PixelsTest, HeatMapKeepsGreyGreyAndColorsGreen) {
  EXPECT_EQ(heat_map(filled(1, 1, {90, 90, 90})), filled(1, 1, {90, 90, 90}));
  const Image hot = heat_map(filled(1, 1, {10, 200, 10}));
  EXPECT_GT(hot.pixels[0], 150);
  EXPECT_LT(hot.pixels[2], 80);
}

TEST_F(PixelsTest, SaysWhatIsWrongWithAFile) {
  const auto write = [&](const char* name, const std::string& bytes) {
    std::ofstream(directory / name, std::ios::binary) << bytes;
    return directory / name;
  };
  const auto expect = [](const std::filesystem::path& file, const char* what) {
    EXPECT_THAT([&] { (void)decode(file); }, ThrowsMessage<std::runtime_error>(HasSubstr(what)));
  };
  expect(directory / "none.jpg", "cannot be opened");
  expect(write("empty.png", ""), "neither a JPEG nor a PNG");
  expect(write("text.png", "hello, world"), "neither a JPEG nor a PNG");
  expect(write("torn.jpg", "\xFF\xD8\xFF\xE0"), "no usable JPEG");
  std::ifstream earth("/usr/share/xplanet/images/earth.jpg", std::ios::binary);
  std::string half_of_it(100'000, '\0');
  earth.read(half_of_it.data(), static_cast<std::streamsize>(half_of_it.size()));
  expect(write("half.jpg", half_of_it), "no usable JPEG");
  expect(write("torn.png", "\x89PNG\r\n\x1a\nxxxx"), "no usable PNG");
  EXPECT_THAT([&] { (void)read_region(write("text.ppm", "P5 1 1 255 x"), {0, 0, 1, 1}); },
              ThrowsMessage<std::runtime_error>(HasSubstr("is no scene")));
  EXPECT_THAT([&] { (void)read_region(write("short.ppm", "P6 2 2 255 x"), {0, 0, 2, 2}); },
              ThrowsMessage<std::runtime_error>(HasSubstr("ends too early")));
  EXPECT_THAT([&] { (void)read_region(write("small.ppm", "P6 2 2 255 xxxxxxxxxxxx"), {1, 0, 2, 2}); },
              ThrowsMessage<std::runtime_error>(HasSubstr("does not have the region")));
}

}  // namespace
}  // namespace scene
