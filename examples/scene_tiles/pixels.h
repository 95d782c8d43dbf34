// Images of three 8-bit bands (red, green, blue), and what scene_tiles does with their pixels.
//
// Hides: libjpeg-turbo, libpng, and how a scene lies on disk.
// Threads: pure functions over values and files; two threads may not write the same file.
// Failure: std::runtime_error that names the file and what is wrong with it.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace scene {

inline constexpr int kBands = 3;

struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> pixels;  // red, green, blue, row by row
  friend bool operator==(const Image&, const Image&) = default;
};

struct Size {
  int width = 0;
  int height = 0;
};

// A part of an image, in pixels from its upper left corner.
struct Region {
  int x = 0;
  int y = 0;
  int width = 0;
  int height = 0;
  friend bool operator==(const Region&, const Region&) = default;
};

// A JPEG or PNG file, told apart by its first bytes. Transparent pixels are blended with black; at most 400 megapixels.
[[nodiscard]] Image decode(const std::filesystem::path& file);

// A file that is whole or not there: it is written beside its place, then renamed. Returns its size in bytes.
std::uintmax_t write_png(const std::filesystem::path& file, const Image& image);

// A decoded scene on disk is a PPM file (P6), so that a region can be read without the rest.
void write_scene(const std::filesystem::path& file, const Image& image);
[[nodiscard]] Size scene_size(const std::filesystem::path& file);
[[nodiscard]] Image read_region(const std::filesystem::path& file, const Region& region);

// The tiles of a scene, row by row; those at its right and lower edge may be smaller.
[[nodiscard]] std::vector<Region> tile_grid(Size size, int tile);

// Puts an image into a larger one.
void paste(Image& onto, const Image& image, int x, int y);

struct BandStatistics {
  double mean = 0;       // 0 .. 255
  double deviation = 0;  // standard deviation
};
[[nodiscard]] BandStatistics band_statistics(const Image& image, int band);

// The excess green index 2g - r - b on chromatic coordinates (each band divided by the sum of the three): -1 .. 2, above
// 0 where there is more green than grey. Here its mean over the image; black pixels count as 0.
[[nodiscard]] double excess_green(const Image& image);

// The share of pixels that look like cloud (or snow): bright and hardly coloured.
[[nodiscard]] double cloud_share(const Image& image);

// The next level of an image pyramid: half the size, each pixel the mean of up to four.
[[nodiscard]] Image half(const Image& image);

// The image in grey, coloured by excess green: blue where there is less than grey has, green to yellow where more.
[[nodiscard]] Image heat_map(const Image& image);

}  // namespace scene
