// waymark top: queue, throughput, latency and failures, live.
#include <array>
#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/display_text.h"
#include "cli/queue.h"
#include "cli/screen.h"
#include "cli/waterfall.h"
#include "waymark/configure.h"

namespace waymark::cli {
namespace {

struct Top {
  std::string store, period = "10s", interval = "1s";
  bool once = false;
  Output output;
};

std::string rate(std::uint64_t number, std::chrono::nanoseconds period) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f/s", static_cast<double>(number) * 1e9 / static_cast<double>(period.count()));
  return text.data();
}

std::string frame(Client& client, const std::string& place, std::chrono::nanoseconds period, bool color, int width) {
  const Activity activity = client.store().activity(period);
  const std::vector<WorkerInfo> workers = client.store().workers();
  std::uint64_t waiting = 0, scheduled = 0, ready = 0, running = 0, computed = 0, failed = 0, alive = 0;
  for (const TaskActivity& t : activity.tasks) {
    waiting += t.waiting;
    scheduled += t.scheduled;
    ready += t.ready;
    running += t.running;
    computed += t.computed;
    failed += t.failed;
  }
  for (const WorkerInfo& worker : workers) alive += worker.lease.count() >= 0;
  const auto painted = [&](std::string_view code, const std::string& text) { return color ? paint(code, text) : text; };
  std::string text = painted("1", "waymark top") + "  " + printable(place) + "  " + utc(activity.now).substr(0, 19) + " UTC\n";
  text += "queue       " + count(activity.open_jobs, "open job") + "; tasks: " + std::to_string(running) + " running, " +
          std::to_string(ready) + " ready, " + std::to_string(scheduled) + " scheduled, " + std::to_string(waiting) + " waiting\n";
  text += "throughput  " + rate(computed, period) + " (" + count(computed, "task") + " in " + human_duration(period) + ")\n";
  text += "failures    " + painted(failed > 0 ? "1;31" : "", count(failed, "attempt")) + " in " + human_duration(period) + "\n";
  text += "runners     " + std::to_string(alive) + " alive" +
          (alive < workers.size() ? ", " + painted("1;31", std::to_string(workers.size() - alive) + " silent") : "") + "\n";
  for (const Cluster& cluster : client.clusters()) {
    if (cluster.paused) text += painted("1;33", "cluster " + printable(cluster.name) + " is paused") + "\n";
  }
  if (!activity.tasks.empty()) text += "\n" + draw_activity(activity.tasks, period, color, width);
  if (!workers.empty()) text += "\n" + draw_workers(workers, activity.now, color, width);
  return text;
}

int top(const Top& a) {
  const auto period = parse_duration(a.period, "--period");
  const auto interval = parse_duration(a.interval, "--interval");
  const auto client = open_client(a.store);
  if (a.output.json) {
    Json all = activity_json(client->store().activity(period), period);
    all["runners"] = workers_json(client->store().workers());
    all["paused"] = Json::array();
    for (const Cluster& cluster : client->clusters()) {
      if (cluster.paused) all["paused"].push_back(cluster.name);
    }
    return print(write_json(all));
  }
  const std::string place = store_version(a.store).place;
  const bool live = is_terminal();
  const auto draw = [&] { return frame(*client, place, period, a.output.color(), live ? terminal_width() : 0); };
  if (a.once || !live) return print(draw());
  Screen screen;
  do {
    screen.show(draw());
  } while (screen.wait(std::max(std::chrono::duration_cast<std::chrono::milliseconds>(interval), std::chrono::milliseconds(100))));
  return kDone;
}

}  // namespace

void add_top(CLI::App& app, int& exit_code) {
  const auto a = std::make_shared<Top>();
  CLI::App& c = add_command(app, "top", "Show queue, throughput, latency and failures, live",
                            "q or Ctrl-C ends it. Where standard output is no terminal, it prints one frame.\n"
                            "Each frame reads all tasks of the jobs that are open.\n\n"
                            "Examples:\n"
                            "  waymark top\n"
                            "  waymark top --period 5m --interval 10s\n"
                            "  waymark top --json | jq .tasks\n\n"
                            "Exit codes: 0 done; 2 the command line is wrong");
  c.add_option("--period", a->period, "What throughput, latency and failures are of; default: 10s")->type_name("DURATION");
  c.add_option("--interval", a->interval, "Between two frames; default: 1s")->type_name("DURATION");
  c.add_flag("--once", a->once, "One frame, also on a terminal");
  add_store(c, a->store);
  add_output(c, a->output);
  on_run(c, exit_code, [a] { return top(*a); });
}

}  // namespace waymark::cli
