// What a test recorded, as the official protobuf classes read it.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "support/official.h"
#include "waymark/testing.h"
#include "waymark/waymark.h"

namespace waymark::testing {

// A Telemetry in memory; spans() and logs() flush and give what the destinations were sent.
class Recorded {
 public:
  explicit Recorded(Config changes = {}) : config_(std::move(changes)) {
    Config base = memory_config(memory_);
    config_.resource = base.resource;
    config_.destinations = base.destinations;
    telemetry_ = std::make_unique<Telemetry>(config_);
  }
  Telemetry& telemetry() { return *telemetry_; }
  Tracer tracer() { return telemetry_->tracer("test"); }
  Logger logger() { return telemetry_->logger("test"); }
  MemoryDestination& memory() { return memory_; }

  // By name.
  std::map<std::string, nlohmann::json> spans() { return records(Signal::traces, "resourceSpans", "scopeSpans", "spans", "name"); }
  // By body text.
  std::map<std::string, nlohmann::json> logs() {
    return records(Signal::logs, "resourceLogs", "scopeLogs", "logRecords", "body");
  }

  // {"key": value} of an attribute list; int64 stay text, as in OTLP JSON.
  static nlohmann::json attributes(const nlohmann::json& record) {
    nlohmann::json map = nlohmann::json::object();
    for (const auto& a : record.value("attributes", nlohmann::json::array())) {
      const std::string key = a.at("key");
      EXPECT_FALSE(map.contains(key)) << key << " stands twice on the wire";
      map[key] = a.contains("value") && !a["value"].empty() ? a["value"].begin().value() : nlohmann::json();
    }
    return map;
  }

 private:
  std::map<std::string, nlohmann::json> records(Signal signal, const char* resources, const char* scopes, const char* list,
                                                const char* key) {
    EXPECT_TRUE(telemetry_->force_flush(std::chrono::seconds(20)));
    std::map<std::string, nlohmann::json> found;
    for (const std::string& request : memory_.requests(signal)) {
      const nlohmann::json decoded = nlohmann::json::parse(official_json(signal, request));
      for (const auto& resource : decoded[resources]) {
        for (const auto& scope : resource[scopes]) {
          for (const auto& record : scope[list]) {
            const auto& name = record.contains(key) ? record[key] : nlohmann::json("");
            found[name.is_object() ? name.value("stringValue", "") : name.get<std::string>()] = record;
          }
        }
      }
    }
    return found;
  }

  MemoryDestination memory_;
  Config config_;
  std::unique_ptr<Telemetry> telemetry_;
};

}  // namespace waymark::testing
