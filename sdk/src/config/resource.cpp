#include "config/resource.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/random.h"
#include "config/text.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

constexpr std::string_view kServiceName = "service.name";
constexpr std::string_view kInstance = "service.instance.id";

AnyValue text_value(std::string text) { return AnyValue{std::move(text)}; }

// OpenTelemetry's host.arch for what the kernel calls the machine; other names stay.
std::string architecture(const std::string& machine) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 10> known{
      {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"arm64", "arm64"}, {"i386", "x86"}, {"i486", "x86"},
       {"i586", "x86"}, {"i686", "x86"}, {"ppc", "ppc32"}, {"ppc64le", "ppc64"}, {"ppc64", "ppc64"}}};
  for (const auto& [kernel, name] : known) {
    if (machine == kernel) return std::string(name);
  }
  return machine.starts_with("arm") ? "arm32" : machine;
}

// OTEL_RESOURCE_ATTRIBUTES: "k1=v1,k2=v2", percent-encoded; all of it or nothing (RS-10).
std::vector<std::pair<std::string, std::string>> environment_attributes(Environment& environment) {
  constexpr const char* name = "OTEL_RESOURCE_ATTRIBUTES";
  std::vector<std::pair<std::string, std::string>> attributes;
  const auto value = environment.text(name);
  if (!value) return attributes;
  std::string_view rest = *value;
  for (std::size_t entry = 1;; ++entry) {
    const auto comma = rest.find(',');
    const auto pair = rest.substr(0, comma);
    const auto equals = pair.find('=');
    const auto key = percent_decoded(trimmed(pair.substr(0, equals)));
    std::optional<std::string> text;
    if (equals != std::string_view::npos) text = percent_decoded(trimmed(pair.substr(equals + 1)));
    if (!key || key->empty() || !text) {
      environment.warn(std::string(name) + ": entry " + std::to_string(entry) +
                       " can't be read, so the whole value is ignored; write key=value,key=value, with ',', '=' and "
                       "'%' in keys and values percent-encoded");
      return {};
    }
    attributes.emplace_back(*key, *text);
    if (comma == std::string_view::npos) return attributes;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace

std::string program_name() {
  std::array<char, 4096> path{};
  const auto length = readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0) return {};
  std::string_view name(path.data(), static_cast<std::size_t>(length));
  name.remove_prefix(name.rfind('/') + 1);
  // What the kernel adds where the program's file was replaced while it runs.
  constexpr std::string_view deleted = " (deleted)";
  if (name.ends_with(deleted)) name.remove_suffix(deleted.size());
  return std::string(name);
}

Resource detect_resource(const Resource& given, Environment& environment, bool* instance_id_made_up,
                         const Resource& below) {
  const std::string program = program_name();
  Resource resource;
  resource.set(kServiceName, text_value(program.empty() ? "unknown_service" : "unknown_service:" + program));
  resource.set("service.namespace", text_value("waymark.workflows"));
  const AnyValue instance = text_value(random_uuid());
  resource.set(kInstance, instance);
  resource.set("service.version", text_value("dev"));
  resource.set("process.pid", AnyValue{std::int64_t{getpid()}});
  if (utsname system{}; uname(&system) == 0) {
    if (*system.nodename) resource.set("host.name", text_value(system.nodename));
    resource.set("host.arch", text_value(architecture(lower(system.machine))));
    resource.set("os.type", text_value(lower(system.sysname)));
  }
  resource.set("telemetry.sdk.name", text_value("waymark"));
  resource.set("telemetry.sdk.language", text_value("cpp"));
  resource.set("telemetry.sdk.version", text_value(WAYMARK_VERSION));

  const auto set = [&](const std::string& key, AnyValue value) {
    // An empty service name says nothing, and no backend takes it.
    if (key == kServiceName && value == text_value("")) return;
    resource.set(key, std::move(value));
  };
  for (const auto& [key, value] : below.attributes()) set(key, value);
  for (auto& [key, text] : environment_attributes(environment)) set(key, text_value(std::move(text)));
  if (auto name = environment.text("OTEL_SERVICE_NAME")) set(std::string(kServiceName), text_value(*std::move(name)));
  for (const auto& [key, value] : given.attributes()) {
    if (key == kServiceName && !std::holds_alternative<std::string>(value.value)) {
      throw Error(ErrorCode::invalid_argument, "service: the attribute service.name is no text; give it a string");
    }
    if (!key.empty()) set(key, value);
  }
  if (instance_id_made_up != nullptr) *instance_id_made_up = *resource.find(kInstance) == instance;
  return resource;
}

AnyMap additional_attributes(const Resource& started, const Resource& given) {
  AnyMap more;
  for (const auto& [key, value] : given.attributes()) {
    if (key.empty() || (key == kServiceName && value == text_value(""))) continue;
    const AnyValue* known = started.find(key);
    if (!known) {
      more.emplace_back(key, value);
    } else if (*known != value && key == kServiceName) {
      throw Error(ErrorCode::conflicting_resource,
                  "service: recording has started as the service " + in_quotes(started.service_name()) +
                      ", and can't go on as " + in_quotes(given.service_name()) +
                      "; give the same name to every configure call, beginning with the first");
    } else if (*known != value) {
      throw Error(ErrorCode::conflicting_resource,
                  "service: the resource attribute " + in_quotes(key) +
                      " has another value than recording has started with; give it to the first configure call");
    }
  }
  return more;
}

std::string file_name_of(const std::string& service) {
  static constexpr char hex[] = "0123456789ABCDEF";
  constexpr std::size_t longest = 200;  // a file name holds 255 bytes
  std::string name;
  for (const char c : service) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
                       c == '_' || (c == '.' && !name.empty());
    if (name.size() + 3 > longest) break;
    if (plain) {
      name += c;
    } else {
      name += '%';
      name += hex[static_cast<unsigned char>(c) >> 4];
      name += hex[static_cast<unsigned char>(c) & 0x0f];
    }
  }
  return name;
}

}  // namespace waymark::config
