// What a log record costs its caller (design section 7): through our logger, and through spdlog with our sink, beside what
// spdlog costs into nothing. A span is current.
//
// Usage: bench_logs [--list] [ROW...]
// Bursts of 1,000 records a millisecond, to a destination in this process that counts the records in what it is given.
// Through spdlog the three attributes are the thread's id, file and line. Where one is lost there is no figure.
#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>

#include <filesystem>
#include <memory>
#include <string>

#include "load.h"
#include "micro.h"
#include "row.h"
#include "waymark/spdlog_sink.h"
#include "waymark/waymark.h"

namespace {

using waymark::bench::bursts;
using waymark::bench::checked;
using waymark::bench::micro;
using waymark::bench::none_lost;
using waymark::bench::Row;

// Calls `each` with the contents of every field `number` (length-delimited) of a message that has no others but these.
template <class F>
void fields(std::string_view message, unsigned number, F&& each) {
  while (!message.empty()) {
    const unsigned tag = static_cast<unsigned char>(message[0]);
    std::size_t length = 0;
    std::size_t at = 1;
    for (int shift = 0; at < message.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(message[at++]);
      length |= static_cast<std::size_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if ((tag & 7) != 2 || length > message.size() - at) return;
    if (tag >> 3 == number) each(message.substr(at, length));
    message.remove_prefix(at + length);
  }
}

std::uint64_t count_records(std::string_view request) {
  std::uint64_t records = 0;
  fields(request, 1, [&](std::string_view resource_logs) {
    fields(resource_logs, 2, [&](std::string_view scope_logs) {
      fields(scope_logs, 2, [&](std::string_view) { ++records; });
    });
  });
  return records;
}

// make(telemetry) gives the call that is measured.
template <class Make>
Row row(Row row, const std::string& state, Make&& make) {
  waymark::Config config = waymark::bench::config(state);
  std::uint64_t counted = 0;
  waymark::DestinationConfig logs = waymark::bench::calling([&counted](waymark::Signal, std::string_view request) {
    counted += count_records(request);
    return waymark::DeliveryResult{};
  });
  logs.signal = waymark::Signal::logs;
  config.destinations.push_back(logs);
  config.destinations.push_back(waymark::bench::discarding());
  waymark::Telemetry telemetry(config);
  auto call = make(telemetry);
  std::uint64_t recorded = 0;
  {
    auto span = telemetry.tracer("bench").span("read_bands");
    recorded = bursts(row, 1, 1, [&](int calls) {
      for (int i = 0; i < calls; ++i) call(i);
    });
  }
  telemetry.force_flush(std::chrono::seconds(60));
  static_cast<void>(checked(telemetry.stats()));
  telemetry.shutdown(std::chrono::seconds(10));
  none_lost(row, recorded, counted);
  row.remark = std::to_string(recorded) + " delivered";
  return row;
}

}  // namespace

int main(int argc, char** argv) {
  const waymark::bench::Directory directory("/tmp");
  const std::string& state = directory.path();
  const auto ours = [](waymark::Telemetry& telemetry) {
    return [logger = telemetry.logger("bench"), scene = std::string("S2A_MSIL1C_20260101T100031_N0500_R02")](int i) {
      logger.info("tile read", {{"scene", scene}, {"band", "B02_10m_jp2_"}, {"index", i}});
    };
  };
  constexpr spdlog::source_loc kPlace{"tests/bench/logs.cpp", 1, nullptr};
  const auto through_spdlog = [&](waymark::Telemetry& telemetry) {
    auto logger = std::make_shared<spdlog::logger>("bench", waymark::spdlog_sink(telemetry, {.source_location = true}));
    return [logger, &kPlace](int i) { logger->log(kPlace, spdlog::level::info, "tile {} read", i); };
  };
  const auto alone = [&] {
    Row row{"log.spdlog.alone"};
    spdlog::logger logger("bench", std::make_shared<spdlog::sinks::null_sink_st>());
    micro(row, 1, [&](std::int64_t i) { logger.log(kPlace, spdlog::level::info, "tile {} read", i); });
    return std::vector{row};
  };
  return waymark::bench::run(argc, argv, {
      {{"log.3attr"}, [&] { return std::vector{row({"log.3attr"}, state + "/l", ours)}; }},
      {{"log.spdlog.3attr"}, [&] { return std::vector{row({"log.spdlog.3attr", 9}, state + "/s", through_spdlog)}; }},
      {{"log.spdlog.alone"}, alone},
  });
}
