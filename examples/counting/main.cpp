// Counts the words that it reads, and times its lines: what a program needs to send metrics of its own.
//
//   counting < book.txt        to the backend at localhost:4318, or wherever OTEL_METRICS_ENDPOINT says (file:words.jsonl)
//
// With what the program counts, its CPU time, memory and threads are sent, and what Waymark says of itself.
#include <waymark/waymark.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

int main() {
  using namespace std::chrono_literals;
  const bool elsewhere = std::getenv("OTEL_METRICS_ENDPOINT") != nullptr;
  // A word is told by its length alone, and no more than that is kept of it.
  const waymark::View by_length{.select = {.name = "words.read"}, .attribute_keys = {{"length"}}};
  waymark::MetricsOptions metrics{.service = "counting", .interval = 10s};
  if (!elsewhere) metrics.endpoint = "http://localhost:4318";
  metrics.views = {by_length};
  waymark::configure_otel_metrics(metrics);

  const waymark::Meter meter = waymark::meter("counting");
  const auto words = meter.counter("words.read", {.unit = "{word}", .description = "Words, by their length"});
  const auto line_duration = meter.histogram("line.duration", {.unit = "s", .description = "From a line's reading to its end"});
  const auto line_size = meter.histogram<std::int64_t>("line.size", {.unit = "By", .boundaries = {10, 40, 80, 200}});
  // Known beforehand, so resolved once.
  const auto empty_lines = meter.counter("lines.empty").bind({{"source", "standard input"}});

  std::int64_t lines = 0;
  for (std::string line; std::getline(std::cin, line); ++lines) {
    const auto begin = std::chrono::steady_clock::now();
    if (line.empty()) empty_lines.add(1);
    std::istringstream text(line);
    for (std::string word; text >> word;) words.add(1, {{"word", word}, {"length", word.size()}});
    line_size.record(static_cast<std::int64_t>(line.size()));
    line_duration.record(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }

  const bool sent = waymark::shutdown(5s);
  std::cout << lines << " lines" << (sent ? "" : "; what could not be sent is sent by the next run") << '\n';
}
