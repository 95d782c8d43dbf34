#include <waymark/waymark.h>

struct Task {
  int lines = 10;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Task, lines)
  void execute(waymark::Context& context) { auto span = context.tracer().span("ten lines", {{"lines", lines}}); }
};

int main(int, char** argv) {
  waymark::configure_otel_tracing({.service = "consumer", .endpoint = std::string("file:") + argv[1]});
  waymark::Client client({.name = "consumer"});
  client.jobs().submit("consumer", Task{});
  client.runner<Task>().run_all();
  return waymark::shutdown() ? 0 : 1;
}
