#include "tasks.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fetch.h"

using namespace std::chrono_literals;

void Download::execute(waymark::Context& context) {
  context.display(url);
  try {
    auto span = context.tracer().span("fetch", {{"url.full", url}});
    const std::string bytes = fetch::read(url);
    span.set("bytes", bytes.size());
    context.job_cache().group("files").set(std::to_string(index), bytes);
  } catch (const fetch::Refused& e) {
    throw waymark::NonRetryable(e.what());   // another attempt would be told the same
  }
  context.progress("files").done();
}

void Measure::execute(waymark::Context& context) {
  context.display("measure " + url);
  std::istringstream text(context.job_cache().group("files").get(std::to_string(index)));
  double least = std::numeric_limits<double>::infinity(), most = -least, sum = 0;
  int count = 0;
  for (double value; text >> value; ++count) {
    least = std::min(least, value);
    most = std::max(most, value);
    sum += value;
  }
  if (count == 0) throw waymark::NonRetryable(url + ": there are no numbers in it");
  const nlohmann::json figures{{"count", count}, {"least", least}, {"most", most}, {"mean", sum / count}};
  context.job_cache().group("figures").set(std::to_string(index), figures.dump());
  context.logger().info("measured", {{"url", url}, {"count", count}});
}

void Report::execute(waymark::Context& context) {
  nlohmann::json report = nlohmann::json::object();
  for (std::size_t i = 0; i < urls.size(); ++i) {
    const auto figures = context.job_cache().group("figures").find(std::to_string(i));
    report[urls[i]] = figures ? nlohmann::json::parse(*figures) : nlohmann::json(nullptr);
  }
  std::ofstream file(out);
  file << report.dump(2) << '\n';
  if (!file.flush()) throw std::runtime_error(out + ": could not be written");
}

void Pipeline::execute(waymark::Context& context) {
  context.progress("files").add(urls.size());
  std::vector<waymark::FutureTasks> measured;
  for (std::size_t i = 0; i < urls.size(); ++i) {
    const int index = static_cast<int>(i);
    const std::string server = urls[i].substr(0, urls[i].find('/', urls[i].find("://") + 3));
    // A file that can't be had is left out of the report; the job goes on.
    auto download = context.submit_subtask(Download{urls[i], index},
                                           {.max_retries = 5, .optional = true, .timeout = 1min, .limit_key = server});
    measured.push_back(context.submit_subtask(Measure{urls[i], index}, {.depends_on = download, .optional = true}));
  }
  context.submit_subtask(Report{urls, out}, {.depends_on = measured});
}
