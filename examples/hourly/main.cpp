// A service that nobody calls: every hour it makes a mosaic of what has come, and every scene that is put into a directory
// is tiled at once. Start as many of it as you like, on one store: an hour is one job, and a file is one job.
//
//   hourly DIRECTORY        then: cp scene.tif DIRECTORY/      and: waymark automations list
//
// It ends for SIGINT and SIGTERM. What came meanwhile is made up for at the next start.
#include <waymark/waymark.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>

struct TileScene {
  std::string path;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(TileScene, path)

  void execute(waymark::Context& context) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("could not read " + path);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    context.display("scene " + path);
    context.logger().info("scene tiled", {{"path", path}, {"bytes", bytes.size()}});
  }
};

struct HourlyMosaic {
  std::string hour;
  std::string directory;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(HourlyMosaic, hour, directory)

  void execute(waymark::Context& context) {
    std::size_t scenes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) scenes += entry.path().extension() == ".tif";
    context.logger().info("mosaic made", {{"hour", hour}, {"scenes", scenes}});
  }
};

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: hourly DIRECTORY\n";
    return 2;
  }
  const std::string directory = arguments[1];
  try {
    waymark::configure_otel_tracing({.service = "hourly", .endpoint = "http://localhost:4318"});
    waymark::configure_otel_logging({.service = "hourly", .endpoint = "http://localhost:4318"});
    waymark::Client client({.name = "hourly"});

    // {time} is the tick's, {path} the file's: see waymark/automation.h.
    client.automations().cron("hourly mosaic", "0 * * * *", HourlyMosaic{"{time}", directory},
                              {.missed = waymark::MissedRuns::one, .max_retries = 2});
    client.automations().watch_directory("new scenes", directory, "*.tif", TileScene{"{path}"}, {.max_retries = 2});

    auto runner = client.runner<TileScene, HourlyMosaic>();
    return waymark::exit_code(runner.run_forever({.handle_signals = true}));
  } catch (const waymark::Error& error) {
    std::cerr << "hourly: " << error.what() << '\n';
    return 1;
  }
}
