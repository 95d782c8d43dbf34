// The workflow: download each file, measure it, and report on all of them.
//
//   Pipeline
//     Download   one for each URL; tried again while the server is busy, at most two at a time from one server
//     Measure    one for each; waits for its download
//     Report     waits for all of them, also for those that failed for good
#pragma once

#include <waymark/waymark.h>

#include <string>
#include <vector>

struct Download {
  std::string url;
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Download, url, index)
  void execute(waymark::Context& context);
};

struct Measure {
  std::string url;
  int index = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Measure, url, index)
  void execute(waymark::Context& context);
};

struct Report {
  std::vector<std::string> urls;
  std::string out;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Report, urls, out)
  void execute(waymark::Context& context);
};

struct Pipeline {
  std::vector<std::string> urls;
  std::string out;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Pipeline, urls, out)
  void execute(waymark::Context& context);
};
