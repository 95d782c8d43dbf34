#include "pixels.h"

#include <png.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

// libjpeg's header wants stdio before it.
#include <jpeglib.h>

namespace scene {
namespace {

constexpr std::uint64_t kMostPixels = 400'000'000;

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& what) {
  throw std::runtime_error(file.string() + ": " + what);
}

[[noreturn]] void fail_with_errno(const std::filesystem::path& file, const std::string& what) {
  fail(file, what + ": " + std::generic_category().message(errno));
}

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

File open(const std::filesystem::path& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode));
  if (!file) fail_with_errno(path, "cannot be opened");
  return file;
}

std::size_t bytes_of(std::uint64_t width, std::uint64_t height) { return width * height * kBands; }

void check_size(const std::filesystem::path& file, std::uint64_t width, std::uint64_t height) {
  if (width == 0 || height == 0) fail(file, "is an image without pixels");
  if (width * height > kMostPixels) fail(file, "is larger than 400 megapixels");
}

// libjpeg reports errors by a call that must not return: it jumps back to where decoding began.
struct JpegErrors {
  jpeg_error_mgr manager;  // first, so that libjpeg's pointer to it is one to this struct
  std::jmp_buf decode_failed;
  char message[JMSG_LENGTH_MAX];

  static void on_error(j_common_ptr jpeg) {
    auto* errors = reinterpret_cast<JpegErrors*>(jpeg->err);
    jpeg->err->format_message(jpeg, errors->message);
    std::longjmp(errors->decode_failed, 1);
  }
  // Below 0 are warnings of damaged data, which libjpeg would make up for with grey: here a scene is right or refused.
  static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0) on_error(jpeg);
  }
};

// Owns nothing that a longjmp would leave behind: `image`, `jpeg` and `file` are the caller's. False: see errors.message.
bool decode_jpeg(std::FILE* file, jpeg_decompress_struct& jpeg, JpegErrors& errors, Image& image) {
  if (setjmp(errors.decode_failed)) return false;
  jpeg_stdio_src(&jpeg, file);
  jpeg_read_header(&jpeg, TRUE);
  if (std::uint64_t{jpeg.image_width} * jpeg.image_height > kMostPixels) {
    std::strncpy(errors.message, "is larger than 400 megapixels", sizeof errors.message);
    return false;
  }
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  image.width = static_cast<int>(jpeg.output_width);
  image.height = static_cast<int>(jpeg.output_height);
  image.pixels.resize(bytes_of(jpeg.output_width, jpeg.output_height));
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = image.pixels.data() + bytes_of(jpeg.output_width, jpeg.output_scanline);
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

Image read_jpeg(const std::filesystem::path& path) {
  const File file = open(path, "rb");
  JpegErrors errors{};
  jpeg_decompress_struct jpeg{};
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = JpegErrors::on_error;
  errors.manager.emit_message = JpegErrors::on_message;
  jpeg_create_decompress(&jpeg);
  const std::unique_ptr<jpeg_decompress_struct, void (*)(jpeg_decompress_struct*)> owner(
      &jpeg, [](jpeg_decompress_struct* j) { jpeg_destroy_decompress(j); });
  Image image;
  if (!decode_jpeg(file.get(), jpeg, errors, image)) fail(path, std::string("no usable JPEG: ") + errors.message);
  return image;
}

Image read_png(const std::filesystem::path& path) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, void (*)(png_image*)> owner(&png, png_image_free);
  if (!png_image_begin_read_from_file(&png, path.c_str())) fail(path, std::string("no usable PNG: ") + png.message);
  check_size(path, png.width, png.height);
  png.format = PNG_FORMAT_RGB;
  Image image{static_cast<int>(png.width), static_cast<int>(png.height), {}};
  image.pixels.resize(bytes_of(png.width, png.height));
  const png_color black{0, 0, 0};
  if (!png_image_finish_read(&png, &black, image.pixels.data(), 0, nullptr)) {
    fail(path, std::string("no usable PNG: ") + png.message);
  }
  return image;
}

std::filesystem::path beside(const std::filesystem::path& file) { return file.string() + ".part"; }

const std::uint8_t* pixel(const Image& image, int x, int y) {
  return image.pixels.data() + (static_cast<std::size_t>(y) * image.width + x) * kBands;
}

double excess_green(const std::uint8_t* rgb) {
  const int sum = rgb[0] + rgb[1] + rgb[2];
  return sum == 0 ? 0 : (2.0 * rgb[1] - rgb[0] - rgb[2]) / sum;
}

// The header of a PPM file, and where its pixels begin.
struct Layout {
  Size size;
  std::streamoff pixels = 0;
};

Layout read_layout(const std::filesystem::path& path, std::istream& file) {
  std::string magic;
  int width = 0;
  int height = 0;
  int most = 0;
  file >> magic >> width >> height >> most;
  if (!file || magic != "P6" || most != 255 || width <= 0 || height <= 0) fail(path, "is no scene written by write_scene");
  file.get();  // the one white space before the pixels
  return {{width, height}, file.tellg()};
}

std::ifstream open_scene(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_with_errno(path, "cannot be opened");
  return file;
}

}  // namespace

Image decode(const std::filesystem::path& path) {
  std::array<unsigned char, 8> first{};
  const File file = open(path, "rb");
  const std::size_t size = std::fread(first.data(), 1, first.size(), file.get());
  if (size >= 2 && first[0] == 0xFF && first[1] == 0xD8) return read_jpeg(path);
  if (size == 8 && png_sig_cmp(first.data(), 0, 8) == 0) return read_png(path);
  fail(path, "is neither a JPEG nor a PNG file");
}

std::uintmax_t write_png(const std::filesystem::path& path, const Image& image) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  const auto part = beside(path);
  if (!png_image_write_to_file(&png, part.c_str(), 0, image.pixels.data(), 0, nullptr)) {
    fail(path, std::string("cannot be written: ") + png.message);
  }
  const auto size = std::filesystem::file_size(part);
  std::filesystem::rename(part, path);
  return size;
}

void write_scene(const std::filesystem::path& path, const Image& image) {
  const auto part = beside(path);
  std::ofstream file(part, std::ios::binary);
  file << "P6\n" << image.width << ' ' << image.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size()));
  file.close();
  if (!file) fail_with_errno(part, "cannot be written");
  std::filesystem::rename(part, path);
}

Size scene_size(const std::filesystem::path& path) {
  auto file = open_scene(path);
  return read_layout(path, file).size;
}

Image read_region(const std::filesystem::path& path, const Region& region) {
  auto file = open_scene(path);
  const auto [size, begin] = read_layout(path, file);
  if (region.x < 0 || region.y < 0 || region.width <= 0 || region.height <= 0 || region.x > size.width - region.width ||
      region.y > size.height - region.height) {
    fail(path, "does not have the region asked for");
  }
  Image image{region.width, region.height, {}};
  const std::size_t row = bytes_of(static_cast<std::uint64_t>(region.width), 1);
  image.pixels.resize(row * static_cast<std::size_t>(region.height));
  for (int y = 0; y < region.height; ++y) {
    const std::streamoff at = (static_cast<std::streamoff>(region.y + y) * size.width + region.x) * kBands;
    file.seekg(begin + at);
    file.read(reinterpret_cast<char*>(image.pixels.data() + row * static_cast<std::size_t>(y)),
              static_cast<std::streamsize>(row));
  }
  if (!file) fail(path, "ends too early");
  return image;
}

std::vector<Region> tile_grid(Size size, int tile) {
  std::vector<Region> grid;
  for (int y = 0; y < size.height; y += tile) {
    for (int x = 0; x < size.width; x += tile) {
      grid.push_back({x, y, std::min(tile, size.width - x), std::min(tile, size.height - y)});
    }
  }
  return grid;
}

void paste(Image& onto, const Image& image, int x, int y) {
  if (x < 0 || y < 0 || x + image.width > onto.width || y + image.height > onto.height) {
    throw std::runtime_error("an image does not fit where it is to be pasted");
  }
  for (int row = 0; row < image.height; ++row) {
    std::copy_n(pixel(image, 0, row), static_cast<std::size_t>(image.width) * kBands,
                onto.pixels.data() + (static_cast<std::size_t>(y + row) * onto.width + x) * kBands);
  }
}

BandStatistics band_statistics(const Image& image, int band) {
  // Sums of integers are exact, so the result does not depend on the order of the pixels.
  std::uint64_t sum = 0;
  std::uint64_t squares = 0;
  for (std::size_t i = static_cast<std::size_t>(band); i < image.pixels.size(); i += kBands) {
    const std::uint64_t value = image.pixels[i];
    sum += value;
    squares += value * value;
  }
  const double count = static_cast<double>(image.pixels.size() / kBands);
  const double mean = static_cast<double>(sum) / count;
  return {mean, std::sqrt(std::max(0.0, static_cast<double>(squares) / count - mean * mean))};
}

double excess_green(const Image& image) {
  double sum = 0;
  for (std::size_t i = 0; i < image.pixels.size(); i += kBands) sum += excess_green(&image.pixels[i]);
  return sum / static_cast<double>(image.pixels.size() / kBands);
}

double cloud_share(const Image& image) {
  constexpr int kBright = 180;       // of 255, the darkest band
  constexpr double kColored = 0.15;  // saturation: (largest - smallest band) / largest
  std::size_t cloudy = 0;
  for (std::size_t i = 0; i < image.pixels.size(); i += kBands) {
    const auto [least, most] = std::minmax({image.pixels[i], image.pixels[i + 1], image.pixels[i + 2]});
    if (least >= kBright && most - least <= kColored * most) ++cloudy;
  }
  return static_cast<double>(cloudy) / static_cast<double>(image.pixels.size() / kBands);
}

Image half(const Image& image) {
  Image small{(image.width + 1) / 2, (image.height + 1) / 2, {}};
  small.pixels.resize(bytes_of(static_cast<std::uint64_t>(small.width), static_cast<std::uint64_t>(small.height)));
  std::uint8_t* out = small.pixels.data();
  for (int y = 0; y < small.height; ++y) {
    const int below = std::min(2 * y + 1, image.height - 1);
    for (int x = 0; x < small.width; ++x) {
      const int right = std::min(2 * x + 1, image.width - 1);
      for (int band = 0; band < kBands; ++band) {
        const int sum = pixel(image, 2 * x, 2 * y)[band] + pixel(image, right, 2 * y)[band] +
                        pixel(image, 2 * x, below)[band] + pixel(image, right, below)[band];
        *out++ = static_cast<std::uint8_t>((sum + 2) / 4);
      }
    }
  }
  return small;
}

Image heat_map(const Image& image) {
  Image map{image.width, image.height, {}};
  map.pixels.resize(image.pixels.size());
  for (std::size_t i = 0; i < image.pixels.size(); i += kBands) {
    const double grey = 0.299 * image.pixels[i] + 0.587 * image.pixels[i + 1] + 0.114 * image.pixels[i + 2];
    // Dense forest seen from above reaches about 0.7: there the colour is at its fullest.
    const double green = std::clamp(excess_green(&image.pixels[i]) / 0.7, -1.0, 1.0);
    const std::array<double, kBands> color =
        green < 0 ? std::array{40.0, 60.0, 200.0} : std::array{30 + 210 * green, 150 + 70 * green, 40.0};
    const double weight = 0.75 * std::sqrt(std::abs(green));
    for (int band = 0; band < kBands; ++band) {
      const double value = (1 - weight) * grey + weight * color[static_cast<std::size_t>(band)];
      const auto index = i + static_cast<std::size_t>(band);
      map.pixels[index] = static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
    }
  }
  return map;
}

}  // namespace scene
