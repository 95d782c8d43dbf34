#include <waymark/configure.h>

int main(int, char** argv) {
  waymark::configure_otel_tracing({.service = "consumer", .endpoint = std::string("file:") + argv[1]});
  {
    auto span = waymark::tracer("consumer").span("ten lines");
    span.set("lines", 10);
  }
  return waymark::shutdown() ? 0 : 1;
}
