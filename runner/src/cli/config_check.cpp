#include "cli/config_check.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "waymark/reader.h"

namespace waymark::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::nanoseconds;

constexpr const char* kHidden = "***";

// As parse_duration reads it; 0 is "0".
std::string duration(nanoseconds d) {
  struct Unit {
    const char* name;
    std::int64_t nanoseconds;
  };
  static constexpr Unit units[] = {{"d", 86'400'000'000'000}, {"h", 3'600'000'000'000}, {"m", 60'000'000'000},
                                   {"s", 1'000'000'000},      {"ms", 1'000'000},        {"us", 1'000}};
  std::int64_t rest = d.count();
  std::string text;
  for (const Unit& unit : units) {
    if (const std::int64_t n = rest / unit.nanoseconds; n > 0) text += std::to_string(n) + unit.name;
    rest %= unit.nanoseconds;
  }
  if (rest > 0) text += text.empty() ? "0.00" + std::to_string(rest) + "us" : "";  // of a duration made by hand
  return text.empty() ? "0" : text;
}

std::string level(Severity severity) {
  switch (severity) {
    case Severity::unspecified:
    case Severity::trace: return "trace";
    case Severity::debug: return "debug";
    case Severity::info: return "info";
    case Severity::warning: return "warning";
    case Severity::error: return "error";
    case Severity::critical: return "critical";
  }
  return "trace";
}

Json value_json(const AnyValue& value) {
  if (const auto* text = std::get_if<std::string>(&value.value)) return *text;
  if (const auto* flag = std::get_if<bool>(&value.value)) return *flag;
  if (const auto* whole = std::get_if<std::int64_t>(&value.value)) return *whole;
  if (const auto* real = std::get_if<double>(&value.value)) return *real;
  if (const auto* array = std::get_if<AnyArray>(&value.value)) {
    Json list = Json::array();
    for (const AnyValue& item : *array) list.push_back(value_json(item));
    return list;
  }
  return to_text(value);
}

Json attributes(const AnyMap& map) {
  Json out = Json::object();
  for (const auto& [key, value] : map) out[key] = value_json(value);
  return out;
}

Json limits(const Limits& limits) {
  return {{"attribute_count", limits.attribute_count},
          {"attribute_value_length", limits.attribute_value_length},
          {"attribute_value_depth", limits.attribute_value_depth},
          {"event_count", limits.event_count},
          {"link_count", limits.link_count},
          {"event_attribute_count", limits.event_attribute_count},
          {"link_attribute_count", limits.link_attribute_count}};
}

template <std::size_t N, typename Enum>
std::string_view word(const std::array<std::string_view, N>& words, Enum value) {
  const auto i = static_cast<std::size_t>(value);
  return i < N ? words[i] : "?";
}

Json request(const DestinationConfig& d) {
  Json out = Json::object();
  out["protocol"] = word(std::array<std::string_view, 3>{"http/protobuf", "http/json", "grpc"}, d.protocol);
  if (d.preset == Preset::s2) out["preset"] = "s2";
  const auto query = d.url.find('?');
  // As it is, so that nothing is added when this is read as a configuration.
  const std::string key = d.protocol == Protocol::grpc ? "endpoint" : std::string(signal_name(d.signal)) + "_endpoint";
  out[key] = d.url.substr(0, query) + (query == std::string::npos ? "" : std::string("?") + kHidden);
  if (!d.headers.empty()) {
    Json headers = Json::object();
    for (const auto& [name, value] : d.headers) headers[name] = kHidden;
    out["headers"] = std::move(headers);
  }
  if (!d.headers_file.empty()) out["headers_file"] = d.headers_file;
  if (d.url.starts_with("https:")) {
    Json tls = Json::object();
    if (!d.tls.ca_file.empty()) tls["ca_file"] = d.tls.ca_file;
    if (!d.tls.certificate_file.empty()) tls["cert_file"] = d.tls.certificate_file;
    if (!d.tls.key_file.empty()) tls["key_file"] = d.tls.key_file;
    tls["min_version"] = d.tls.minimum_version;
    tls["insecure_skip_verify"] = d.tls.insecure_skip_verify;
    out["tls"] = std::move(tls);
  }
  out["compression"] = d.gzip ? "gzip" : "none";
  out["timeout"] = duration(d.timeout);
  out["max_response_bytes"] = d.max_response_bytes;
  return out;
}

Json destination(const DestinationConfig& d) {
  Json out = Json::object();
  out["name"] = d.name;
  out["signals"] = Json::array({signal_name(d.signal)});
  out["enabled"] = d.enabled;
  out["output"] = word(std::array<std::string_view, 4>{"otlp", "file", "console", "callback"}, d.output);
  if (d.output == Output::otlp) out.update(request(d));
  if (d.output == Output::file || d.output == Output::console) out["path"] = d.path;
  if (d.output == Output::file) {
    out["rotation"] = {{"max_bytes", d.rotation.max_bytes}, {"max_age", duration(d.rotation.max_age)}, {"files", d.rotation.files}};
  }
  if (d.output == Output::console) out["color"] = d.color;
  if (d.signal == Signal::logs) out["level"] = level(d.minimum_severity);
  out["lossy"] = d.lossy;
  out["batch"] = {{"max_bytes", d.batch.max_bytes},
                  {"min_bytes", d.batch.min_bytes},
                  {"max_records", d.batch.max_records},
                  {"interval", duration(d.batch.interval)}};
  out["retry"] = {{"initial", duration(d.retry.initial)},
                  {"maximum", duration(d.retry.maximum)},
                  {"multiplier", d.retry.multiplier},
                  {"jitter", d.retry.jitter},
                  {"give_up_age", duration(d.retry.give_up_age)}};
  if (!d.resource_attributes.empty()) out["resource"] = attributes(d.resource_attributes);
  return out;
}

Json tree(const Config& config, const ConfigNotes& notes) {
  Json out = Json::object();
  out["disabled"] = config.disabled;
  out["log_level"] = word(std::array<std::string_view, 5>{"none", "error", "warning", "info", "debug"}, config.diagnostics);
  if (!notes.given.attributes().empty()) out["resource"] = attributes(notes.given.attributes());
  Json state = Json::object();
  if (!notes.state_directory.empty()) state["directory"] = notes.state_directory;
  state["recover_siblings"] = config.recover_siblings;
  out["state"] = std::move(state);
  out["recorder"] = {{"place", config.recorder.place == RecorderConfig::Place::tmpfs ? "tmpfs" : "state"},
                     {"max_bytes", config.recorder.max_bytes},
                     {"ring_bytes", config.recorder.ring_bytes}};
  const JournalConfig& j = config.journal;
  out["journal"] = {{"max_bytes", j.max_bytes},
                    {"memory_bytes", j.memory_bytes},
                    {"segment_bytes", j.segment_bytes},
                    {"keep_bytes", j.keep_bytes},
                    {"block_timeout", duration(j.block_timeout)},
                    {"fsync", word(std::array<std::string_view, 3>{"never", "interval", "every_batch"}, j.fsync)},
                    {"fsync_interval", duration(j.fsync_interval)}};
  static constexpr std::array<std::string_view, 6> samplers{"always_on", "always_off", "traceidratio",
                                                            "parentbased_always_on", "parentbased_always_off",
                                                            "parentbased_traceidratio"};
  Json sampler{{"kind", word(samplers, config.sampler.kind)}};
  if (word(samplers, config.sampler.kind).ends_with("traceidratio")) sampler["ratio"] = config.sampler.ratio;
  out["sampler"] = std::move(sampler);
  out["limits"] = {{"spans", limits(config.span_limits)}, {"logs", limits(config.log_limits)}};
  out["logs_as_span_events"] = config.logs_as_span_events;
  out["propagators"] = notes.propagators;
  const MetricConfig& m = config.metrics;
  static constexpr std::array<std::string_view, 6> aggregations{"standard", "drop", "sum", "last_value", "explicit_histogram",
                                                                "exponential_histogram"};
  const std::string_view histograms = m.default_histogram == Aggregation::standard             ? "by_unit"
                                      : m.default_histogram == Aggregation::explicit_histogram ? "explicit"
                                                                                               : "exponential";
  out["collection"] = {
      {"interval", duration(m.interval)},
      {"temporality", word(std::array<std::string_view, 3>{"cumulative", "delta", "lowmemory"}, m.temporality)},
      {"histograms", histograms},
      {"exemplar_filter", word(std::array<std::string_view, 3>{"trace_based", "always_on", "always_off"}, m.exemplar_filter)},
      {"cardinality_limit", m.cardinality_limit},
      {"process", m.process},
      {"sdk", m.sdk}};
  Json views = Json::object();
  for (const View& v : m.views) {
    Json view = Json::object();
    const auto text = [&](const char* key, const std::string& value) {
      if (!value.empty()) view[key] = value;
    };
    static constexpr std::array<std::string_view, 7> kinds{"counter",            "up_down_counter",            "gauge",           "histogram",
                                                           "observable_counter", "observable_up_down_counter", "observable_gauge"};
    text("instrument", v.select.name);
    if (v.select.kind) view["kind"] = word(kinds, *v.select.kind);
    text("unit", v.select.unit);
    text("meter", v.select.meter_name);
    text("meter_version", v.select.meter_version);
    text("meter_schema_url", v.select.meter_schema_url);
    text("name", v.name);
    text("description", v.description);
    if (v.attribute_keys) view["attribute_keys"] = *v.attribute_keys;
    if (!v.excluded_keys.empty()) view["excluded_keys"] = v.excluded_keys;
    view["aggregation"] = word(aggregations, v.aggregation);
    if (!v.boundaries.empty()) view["boundaries"] = v.boundaries;
    if (v.aggregation == Aggregation::exponential_histogram) {
      view["max_buckets"] = v.max_buckets;
      view["max_scale"] = v.max_scale;
    }
    if (v.cardinality_limit > 0) view["cardinality_limit"] = v.cardinality_limit;
    views["view " + std::to_string(views.size() + 1)] = std::move(view);
  }
  if (!views.empty()) out["views"] = std::move(views);
  Json destinations = Json::object();
  for (const DestinationConfig& d : config.destinations) {
    // The signals of one name are entries of their own, which `name` keeps together.
    destinations[d.name + " " + std::string(signal_name(d.signal))] = destination(d);
  }
  out["destinations"] = std::move(destinations);
  return out;
}

// Text that YAML can take for nothing else needs no quotes.
std::string scalar(const Json& value) {
  if (!value.is_string()) return value.dump();
  const auto& text = value.get_ref<const std::string&>();
  static constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/.:";
  const bool letters = !text.empty() && ((text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z') || text[0] == '/');
  const bool word = letters && text.find_first_not_of(plain) == std::string::npos && text.back() != ':' &&
                    text != "true" && text != "false" && text != "null" && text != "Null" && text != "NULL";
  if (word) return text;
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A value, in which "$" is no variable.
std::string value_text(const Json& value) {
  std::string text;
  for (const char c : scalar(value)) text += c == '$' ? "$$" : std::string(1, c);
  return text;
}

void write(std::string& out, const Json& map, int depth) {
  for (const auto& [key, value] : map.items()) {
    // A destination's name may have dots in it, which are no levels then.
    const std::string name = depth == 1 && key.find_first_of(".:/ ") != std::string::npos ? Json(key).dump() : scalar(Json(key));
    out.append(static_cast<std::size_t>(depth) * 2, ' ').append(name).append(":");
    if (value.is_object()) {
      out += value.empty() ? " {}\n" : "\n";
      write(out, value, depth + 1);
    } else if (value.is_array()) {
      std::string list;
      for (const Json& item : value) list += (list.empty() ? "" : ", ") + value_text(item);
      out += " [" + list + "]\n";
    } else {
      out += " " + value_text(value) + "\n";
    }
  }
}

}  // namespace

std::string config_yaml(const Config& config, const ConfigNotes& notes) {
  std::string out;
  write(out, tree(config, notes), 0);
  return out;
}

std::string config_json(const Config& config, const ConfigNotes& notes) {
  return tree(config, notes).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace waymark::cli
