// A workflow in one page: a scene is cut into tiles, each tile is a task, the mosaic waits for all of them. Every task's
// execution is a span, its logs belong to that span, and both go to the OTLP backend at localhost:4318.
//
// Where nothing listens there, the tasks run all the same: Waymark says so once, keeps what it recorded in the state
// directory, and delivers it when a backend answers, also after a restart. `waymark trace` shows it meanwhile.
#include <waymark/waymark.h>

struct Tile {
  std::string scene_id;
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, scene_id, index)          // inputs travel as JSON

  void execute(waymark::Context& context) {
    auto span = context.tracer().span("read_bands", {{"bands", 4}});      // ends with its scope
    context.logger().info("tile read", {{"index", index}});
  }
};

struct Mosaic {
  std::string scene_id;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Mosaic, scene_id)

  void execute(waymark::Context& context) { context.logger().info("mosaic done"); }
};

struct ProcessScene {
  std::string scene_id;
  int tiles = 16;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(ProcessScene, scene_id, tiles)

  void execute(waymark::Context& context) {
    std::vector<Tile> work;
    for (int i = 0; i < tiles; ++i) work.push_back({scene_id, i});
    auto done = context.submit_subtasks(work, {.max_retries = 3});
    context.submit_subtask(Mosaic{scene_id}, {.depends_on = done});
  }
};

int main() {
  waymark::configure_otel_tracing({.service = "sentinel-2-runner",
                                   .endpoint = "http://localhost:4318",
                                   .headers = {{"Authorization", "Bearer <token>"}}});
  waymark::configure_otel_logging({.service = "sentinel-2-runner",
                                   .endpoint = "http://localhost:4318"});   // or OTEL_LOGS_ENDPOINT
  waymark::Client client({.name = "sentinel-2-runner"});         // embedded store; or postgresql://...
  client.jobs().submit("scene S2A_1", ProcessScene{"S2A_1"});
  client.runner<ProcessScene, Tile, Mosaic>().run_forever();
}
