// What is observed: the service, its process, its host. One for each Telemetry, fixed when recording starts.
//
// Hides: nothing; attributes are detected and merged in src/config.
// Threads: a value.
// Failure: none here; a second, different service name for one Telemetry is an Error at configure time.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waymark/attribute.h"

namespace waymark {

// Written as a service name, or as a whole resource:
//   .service = "sentinel-2-runner"
//   .service = {{"service.name", "sentinel-2-runner"}, {"deployment.environment.name", "test"}}
// What is not given is detected: service.namespace, service.instance.id, service.version, process.pid, host.name,
// host.arch, os.type, telemetry.sdk.*. Precedence: given here, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, detected.
class Resource {
 public:
  Resource() = default;
  Resource(const char* service_name) : Resource(std::string_view(service_name)) {}
  Resource(const std::string& service_name) : Resource(std::string_view(service_name)) {}
  Resource(std::string_view service_name) {
    if (!service_name.empty()) set("service.name", AnyValue{std::string(service_name)});
  }
  Resource(std::initializer_list<std::pair<const char*, const char*>> attributes) {
    for (const auto& [key, text] : attributes) set(key, AnyValue{std::string(text)});
  }

  // Sets or replaces one attribute.
  Resource& set(std::string_view key, AnyValue value) {
    for (auto& [k, v] : attributes_) {
      if (k == key) {
        v = std::move(value);
        return *this;
      }
    }
    attributes_.emplace_back(std::string(key), std::move(value));
    return *this;
  }
  [[nodiscard]] const AnyValue* find(std::string_view key) const noexcept {
    for (const auto& [k, v] : attributes_) {
      if (k == key) return &v;
    }
    return nullptr;
  }
  // The service.name, or empty where none is set.
  [[nodiscard]] std::string service_name() const {
    const AnyValue* v = find("service.name");
    const auto* s = v ? std::get_if<std::string>(&v->value) : nullptr;
    return s ? *s : std::string();
  }
  [[nodiscard]] const AnyMap& attributes() const noexcept { return attributes_; }
  [[nodiscard]] bool empty() const noexcept { return attributes_.empty(); }
  friend bool operator==(const Resource&, const Resource&) = default;

 private:
  AnyMap attributes_;
};

}  // namespace waymark
