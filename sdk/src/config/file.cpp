#include "config/file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <fstream>
#include <system_error>

#include "base/file.h"
#include "base/header_rules.h"
#include "base/headers_file.h"
#include "config/endpoint.h"
#include "config/headers.h"
#include "config/resolve.h"
#include "config/resource.h"
#include "config/settings.h"
#include "config/text.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

using std::chrono::nanoseconds;
using Zero = Group::Zero;

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr std::size_t kMostFiles = 10'000;  // of one rotation, as delivery has it
constexpr std::array kAll{Signal::traces, Signal::logs, Signal::metrics};
// Where nobody says what is sent: metrics are collected for those who ask for them.
constexpr std::array kUsual{Signal::traces, Signal::logs};

bool has_stream(const AnyMap& attributes) {
  return std::any_of(attributes.begin(), attributes.end(), [](const AnyEntry& attribute) {
    const auto* name = std::get_if<std::string>(&attribute.second.value);
    return attribute.first == "s2.stream" && name != nullptr && !name->empty();
  });
}

std::string quoted(std::string_view word) { return "'" + std::string(word) + "'"; }

std::string twice(std::string_view what) {
  return "says again what " + std::string(what) + " says; keep one of the two";
}

// One value that may stand under any of these keys, and under one of them only.
template <typename Read>
auto spelled(Group& group, std::initializer_list<const char*> keys, Read read) {
  decltype(read("")) value;
  const char* first = nullptr;
  for (const char* key : keys) {
    auto given = read(key);
    if (!group.gives(key)) continue;
    if (first) {
      group.problem(key, twice(first));
    } else {
      first = key;
      value = std::move(given);
    }
  }
  return value;
}

// One member of `tracer`, `exporters` or `destinations` in the making: what its signals have in common.
struct Draft {
  DestinationConfig common;
  std::vector<Signal> signals;
  std::array<std::optional<Text>, kSignals> endpoints;  // of a signal alone
  std::array<std::string, kSignals> endpoint_keys;
  std::array<std::string, kSignals> paths;  // of files
  std::optional<Text> endpoint;             // of all of them
  std::string endpoint_key = "endpoint";
  PathRule rule = PathRule::base_or_complete;   // of `endpoint`
  PathRule own_rule = PathRule::as_it_is;       // of `endpoints`
  std::optional<bool> insecure;                 // gRPC without a scheme; else the environment decides
  std::optional<HeaderList> headers_of_file;    // nothing where there is no such file, or it can't be read
};

class Reader {
 public:
  Reader(Settings& settings, Environment& environment, ConfigFile& out)
      : settings_(settings), top_(settings.top()), environment_(environment), out_(out) {}

  void read() {
    process();
    for (Group& group : settings_.members("destinations")) own_destination(group);
    for (Group& group : settings_.members("tracer")) tracer(group);
    collector();
    for (Group& group : settings_.members("metrics")) metrics(group);
    for (Group& group : settings_.members("views")) view(group);
    collection();
    settings_.refuse_unknown();
  }

 private:
  // ---- the process

  void process() {
    Config& config = out_.config;
    pipelines_ = !top_.below("service.pipelines").empty();
    if (pipelines_ || !top_.below("service.extensions").empty() || !top_.below("service.telemetry").empty()) {
      attribute({"service.name"}, "service.name");
    } else {
      attribute({"service", "service.name"}, "service.name");
    }
    attribute({"service.namespace"}, "service.namespace");
    attribute({"service.version"}, "service.version");
    for (auto& [key, value] : top_.attributes("resource")) {
      if (out_.resource.find(key)) top_.problem("resource." + key, twice(key == "service.name" ? "the service's name" : key));
      else out_.resource.set(key, std::move(value));
    }
    if (const AnyValue* name = out_.resource.find("service.name");
        name && !std::holds_alternative<std::string>(name->value)) {
      top_.problem("resource.service.name", "is no text; put the service's name in quotes");
    }

    if (const auto directory = top_.text("state.directory")) {
      config.state_directory = directory->text;
      out_.state_directory = true;
    }
    take(config.recover_siblings, top_.boolean("state.recover_siblings"));

    out_.recorder = top_.has("recorder");
    take(config.recorder.place, spelled(top_, {"recorder.place", "recorder"}, [&](const char* key) {
           return top_.choice(key, {"tmpfs", "state"});
         }));
    take(config.recorder.max_bytes, top_.bytes("recorder.max_bytes", kMiB, 1024 * kMiB));
    take(config.recorder.ring_bytes, top_.bytes("recorder.ring_bytes", kMiB / 2, 512 * kMiB));

    out_.journal = top_.has("journal");
    take(config.journal.max_bytes, top_.bytes("journal.max_bytes", 2 * kMiB, UINT64_MAX / 4));
    take(config.journal.memory_bytes, top_.bytes("journal.memory_bytes", 2 * kMiB, UINT64_MAX / 4));
    take(config.journal.segment_bytes, top_.bytes("journal.segment_bytes", kMiB, 1024 * kMiB));
    take(config.journal.keep_bytes, spelled(top_, {"journal.keep_bytes", "journal.keep"}, [&](const char* key) {
           return top_.bytes(key, 0, UINT64_MAX / 4);
         }));
    take(config.journal.block_timeout, top_.duration("journal.block_timeout", Zero::allowed));
    take(config.journal.fsync, top_.choice("journal.fsync", {"never", "interval", "every_batch"}));
    take(config.journal.fsync_interval, top_.duration("journal.fsync_interval"));
    const std::uint64_t segments = 2 * std::max(config.journal.segment_bytes, 2 * config.recorder.ring_bytes);
    if (config.journal.max_bytes < segments || config.journal.memory_bytes < segments) {
      top_.problem(config.journal.max_bytes < segments ? "journal.max_bytes" : "journal.memory_bytes",
                   "is too small; expected room for two segments, " + std::to_string(segments) +
                       " bytes (a segment is journal.segment_bytes, and at least twice recorder.ring_bytes)");
    }

    out_.sampler = top_.has("sampler");
    take(config.sampler.kind, spelled(top_, {"sampler.kind", "sampler"}, [&](const char* key) {
           return top_.choice(key, {"always_on", "always_off", "traceidratio", "parentbased_always_on",
                                    "parentbased_always_off", "parentbased_traceidratio"});
         }));
    take(config.sampler.ratio, top_.number("sampler.ratio", 0, 1));
    const bool ratio_kind = config.sampler.kind == SamplerKind::traceidratio ||
                            config.sampler.kind == SamplerKind::parentbased_traceidratio;
    if (top_.has("sampler.ratio") && !ratio_kind) {
      top_.problem("sampler.ratio", "has no meaning with this sampler; write traceidratio or parentbased_traceidratio as "
                                    "sampler.kind, or leave it out");
    }

    out_.limits = top_.has("limits");
    limits("limits.", {&config.span_limits, &config.log_limits});
    limits("limits.spans.", {&config.span_limits});
    limits("limits.logs.", {&config.log_limits});

    take(config.logs_as_span_events, top_.boolean("logs_as_span_events"));
    take(config.disabled, top_.boolean("disabled"));
    if (const auto level = top_.choice("log_level", {"none", "error", "warning", "info", "debug", "warn"})) {
      config.diagnostics = *level == 5 ? DiagnosticLevel::warning : static_cast<DiagnosticLevel>(*level);
    }
    if (const auto words = top_.list("propagators"); !words.empty()) {
      trace::Propagators chosen{.trace_context = false, .baggage = false};
      for (const Text& word : words) {
        if (!trace::choose_propagator(chosen, word.text) && (word.text != "none" || words.size() > 1)) {
          top_.problem("propagators", word.place,
                       word.shown + " is not known; expected some of tracecontext, baggage, b3 and b3multi, or none");
        }
      }
      out_.propagators = chosen;
    }
  }

  void attribute(std::initializer_list<const char*> keys, std::string_view name) {
    const auto value = spelled(top_, keys, [&](const char* key) {
      const auto text = top_.text(key);
      if (text && text->text.empty()) top_.problem(key, "is empty; expected a name");
      return text;
    });
    if (value && !value->text.empty()) out_.resource.set(name, AnyValue{value->text});
  }

  void limits(const std::string& prefix, std::initializer_list<Limits*> all) {
    static constexpr std::pair<const char*, std::uint32_t Limits::*> members[] = {
        {"attribute_count", &Limits::attribute_count},
        {"attribute_value_length", &Limits::attribute_value_length},
        {"attribute_value_depth", &Limits::attribute_value_depth},
        {"event_count", &Limits::event_count},
        {"link_count", &Limits::link_count},
        {"event_attribute_count", &Limits::event_attribute_count},
        {"link_attribute_count", &Limits::link_attribute_count}};
    for (const auto& [name, member] : members) {
      const auto value = top_.integer(prefix + name, 0, UINT32_MAX);
      for (Limits* limits : all) {
        if (value) limits->*member = static_cast<std::uint32_t>(*value);
      }
    }
  }

  template <typename Value, typename Given>
  static void take(Value& value, const std::optional<Given>& given) {
    if (given) value = static_cast<Value>(*given);
  }

  // ---- Waymark's own words

  void own_destination(Group& group) {
    Draft draft;
    DestinationConfig& d = draft.common;
    d.name = name_of(group);
    d.batch.interval = nanoseconds::zero();  // the signal's own
    take(d.enabled, group.boolean("enabled"));
    take(d.lossy, group.boolean("lossy"));
    take(d.minimum_severity, group.severity("level"));
    const auto output = group.choice("output", {"otlp", "file", "console"});
    take(d.output, output);
    d.resource_attributes = group.attributes("resource");

    const auto words = group.list("signals");
    for (const Text& word : words) {
      const auto signal = std::find_if(kAll.begin(), kAll.end(), [&](Signal s) { return word.text == signal_name(s); });
      if (signal == kAll.end()) {
        group.problem("signals", word.place, word.shown + " is no signal; expected some of traces, logs and metrics");
      } else if (std::find(draft.signals.begin(), draft.signals.end(), *signal) == draft.signals.end()) {
        draft.signals.push_back(*signal);
      }
    }
    if (draft.signals.empty()) {
      if (d.output != Output::console) draft.signals.push_back(Signal::traces);
      draft.signals.push_back(Signal::logs);
    }

    if (d.output == Output::otlp) {
      take(d.protocol, group.choice("protocol", {"http/protobuf", "http/json", "grpc"}));
      if (group.choice("preset", {"none", "s2"}) == 1u) d.preset = Preset::s2;
      if (d.preset == Preset::s2) use_s2_batches(d);
      requests(group, draft);
      if (const auto word = group.choice("compression", {"none", "gzip"})) d.gzip = *word == 1;
      take(d.max_response_bytes, group.bytes("max_response_bytes", 1024, 64 * kMiB));
      tls(group, d);
    } else if (d.output == Output::file) {
      file(group, draft);
    } else {
      console(group, draft);
    }

    take(d.batch.max_bytes, group.bytes("batch.max_bytes", 1024, 64 * kMiB));
    d.batch.min_bytes = std::min(d.batch.min_bytes, d.batch.max_bytes);  // a preset's
    take(d.batch.min_bytes, group.bytes("batch.min_bytes", 0, 64 * kMiB));
    take(d.batch.max_records, group.integer("batch.max_records", 0, INT32_MAX));
    take(d.batch.interval, spelled(group, {"batch.interval", "batch.flush_timeout", "interval"}, [&](const char* key) {
           return group.duration(key);
         }));
    if (d.batch.min_bytes > d.batch.max_bytes) group.problem("batch.min_bytes", "is more than batch.max_bytes");
    waits(group, d.retry, "retry.initial", "retry.maximum");
    take(d.retry.multiplier, group.number("retry.multiplier", 1, 1000));
    take(d.retry.jitter, group.number("retry.jitter", 0, 1));
    take(d.retry.give_up_age, group.duration("retry.give_up_age", Zero::allowed));
    add(group, draft);
  }

  // A first wait that is longer than the default's longest is the longest, too.
  static void waits(Group& group, RetryConfig& retry, const char* initial, const char* maximum) {
    take(retry.initial, group.duration(initial));
    take(retry.maximum, group.duration(maximum));
    if (!group.has(maximum)) retry.maximum = std::max(retry.maximum, retry.initial);
    if (retry.initial > retry.maximum) {
      group.problem(initial, "is more than " + std::string(maximum) + "; expected at most that");
    }
  }

  void file(Group& group, Draft& draft) {
    const auto path = group.text("path");
    for (const Signal signal : kAll) {
      const std::string key = std::string(signal_name(signal)) + "_path";
      const auto own = group.text(key);
      draft.paths[static_cast<std::size_t>(signal)] = own ? own->text : path ? path->text : "";
    }
    RotationConfig& rotation = draft.common.rotation;
    take(rotation.max_bytes, group.bytes("rotation.max_bytes", 0, UINT64_MAX / 4));
    take(rotation.max_age, group.duration("rotation.max_age", Zero::allowed));
    take(rotation.files, group.integer("rotation.files", 0, kMostFiles));
    for (const Signal signal : draft.signals) {
      if (draft.paths[static_cast<std::size_t>(signal)].empty()) {
        if (!makes_no_sense(group, {"path", std::string(signal_name(signal)) + "_path"})) {
          group.problem("path", "is missing; expected the file that " + std::string(signal_name(signal)) +
                                    " are appended to, or '-' for standard output");
        }
        return;
      }
    }
    const bool turns = rotation.max_bytes > 0 || rotation.max_age > nanoseconds::zero();
    for (std::size_t i = 0; turns && i < draft.signals.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        const std::string a(signal_name(draft.signals[j]));
        const std::string b(signal_name(draft.signals[i]));
        if (draft.paths[static_cast<std::size_t>(draft.signals[i])] != draft.paths[static_cast<std::size_t>(draft.signals[j])]) continue;
        group.problem("rotation", "can't be done for a file that " + a + " and " + b + " share; give them " + a + "_path and " + b +
                                      "_path");
        return;
      }
    }
  }

  // Something stands there that could not be read, which has been said: it is not missing as well.
  static bool makes_no_sense(Group& group, const std::vector<std::string>& keys) {
    return std::any_of(keys.begin(), keys.end(), [&](const std::string& key) { return group.gives(key) && !group.text(key); });
  }

  void console(Group& group, Draft& draft) {
    const auto other = std::find_if(draft.signals.begin(), draft.signals.end(), [](Signal s) { return s != Signal::logs; });
    if (other != draft.signals.end()) {
      group.problem("signals", "has " + std::string(signal_name(*other)) +
                                   ", and a console shows logs; write signals: [logs], or leave it out");
    }
    const auto stream = group.choice("path", {"stdout", "stderr"});
    to_console(group, draft, stream == 1u, group.boolean("color"));
  }

  // A console as configure_console_logging() makes it.
  void to_console(Group& group, Draft& draft, bool to_stderr, std::optional<bool> color) {
    ConsoleOptions options;
    options.to_stderr = to_stderr;
    options.color = color;
    const DestinationConfig made = resolve_destination(options, environment_);
    draft.common.output = Output::console;
    draft.common.path = made.path;
    draft.common.color = made.color;
    draft.common.batch.interval = made.batch.interval;
    if (!group.has("level")) draft.common.minimum_severity = made.minimum_severity;
  }

  // ---- what all OTLP destinations have

  void requests(Group& group, Draft& draft) {
    DestinationConfig& d = draft.common;
    draft.endpoint = group.text("endpoint");
    for (const Signal signal : kAll) {
      const auto i = static_cast<std::size_t>(signal);
      draft.endpoint_keys[i] = std::string(signal_name(signal)) + "_endpoint";
      draft.endpoints[i] = group.text(draft.endpoint_keys[i]);
    }
    headers(group, d);
    if (const auto path = group.text("headers_file")) {
      d.headers_file = path->text;
      if (d.enabled) headers_file(group, draft, *path);
    }
    take(d.timeout, group.duration("timeout", Zero::allowed));
  }

  // It is read again when the destination is made; what is wrong with it is told with everything else.
  static void headers_file(Group& group, Draft& draft, const Text& path) {
    if (path.text.find('\0') != std::string::npos) {
      group.problem("headers_file", path.shown + " has a NUL in it, as no path has");
      return;
    }
    try {
      draft.headers_of_file = HeadersFile(path.text).headers();
    } catch (const Error& error) {
      const std::string message = error.what();  // "headers_file PATH..."
      const std::string before = "headers_file " + path.text;
      group.problem("headers_file", path.shown + message.substr(before.size()));
      return;
    }
    if (draft.common.protocol != Protocol::grpc) return;
    for (std::size_t i = 0; i < draft.headers_of_file->size(); ++i) {
      const auto& [name, value] = (*draft.headers_of_file)[i];
      const auto why = refused_by_grpc(name, value);
      if (!why.empty()) group.problem("headers_file", path.shown + ": header " + std::to_string(i + 1) + " " + std::string(why));
    }
  }

  // Headers that describe the body are Waymark's own to say; where the file says the same, nothing is lost.
  void headers(Group& group, DestinationConfig& d) {
    for (const Group::Header& header : group.headers("headers")) {
      if (lower(header.name) == "content-type") {
        const char* own = d.protocol == Protocol::grpc        ? "application/grpc"
                          : d.protocol == Protocol::http_json ? "application/json"
                                                              : "application/x-protobuf";
        if (lower(trimmed(header.value)) != own) {
          group.problem("headers", header.place, std::string("Content-Type is not ") + own +
                                                     ", which the encoding asks for; leave it out");
        }
        continue;
      }
      try {
        for (auto& [name, value] : checked_headers({{header.name, header.value}}, d.protocol)) put_header(d.headers, name, value);
      } catch (const Error& error) {
        const std::string message = error.what();  // "headers: entry 1 ..."
        constexpr std::string_view before = "headers: entry 1 ";
        group.problem("headers", header.place, "the header " + message.substr(before.size()));
      }
    }
  }

  static void tls(Group& group, DestinationConfig& d) {
    TlsConfig& tls = d.tls;
    const auto path = [&](const char* key, std::string& value) {
      const auto text = group.text(key);
      if (!text) return;
      value = text->text;
      const std::string why = d.enabled && !value.empty() ? pem_problem(value) : "";
      if (!why.empty()) group.problem(key, text->shown + " " + why);
    };
    path("tls.ca_file", tls.ca_file);
    path("tls.cert_file", tls.certificate_file);
    path("tls.key_file", tls.key_file);
    if (const auto version = group.choice("tls.min_version", {"1.2", "1.3"})) tls.minimum_version = *version ? "1.3" : "1.2";
    take(tls.insecure_skip_verify, group.boolean("tls.insecure_skip_verify"));
    if (tls.certificate_file.empty() != tls.key_file.empty() && !makes_no_sense(group, {"tls.cert_file", "tls.key_file"})) {
      group.problem(tls.key_file.empty() ? "tls.cert_file" : "tls.key_file",
                    "stands alone; expected tls.cert_file and tls.key_file together");
    }
  }

  // ---- Stalwart's words

  void tracer(Group& group) {
    const auto type = group.choice("type", {"open-telemetry", "otel", "console", "stdout", "stderr", "log"});
    if (!type) {
      if (!group.has("type")) group.problem("type", "is missing; expected open-telemetry, console, stdout, stderr or log");
      pass_over_tracer(group);
      return;
    }
    Draft draft;
    DestinationConfig& d = draft.common;
    d.name = name_of(group);
    take(d.enabled, group.boolean("enable"));
    d.minimum_severity = group.severity("level").value_or(Severity::info);
    d.lossy = group.boolean("lossy").value_or(false);
    d.batch.interval = group.duration("throttle").value_or(std::chrono::seconds(1));
    if (*type <= 1) {
      const auto transport = group.choice("transport", {"http", "grpc"});
      if (!group.has("transport")) group.problem("transport", "is missing; expected grpc or http");
      if (transport == 1u) d.protocol = Protocol::grpc;
      headers(group, d);
      draft.endpoint = group.text("endpoint");
      take(d.timeout, group.duration("timeout", Zero::allowed));
      if (group.boolean("enable.span-exporter").value_or(true)) draft.signals.push_back(Signal::traces);
      if (group.boolean("enable.log-exporter").value_or(false)) draft.signals.push_back(Signal::logs);
      if (draft.signals.empty()) {
        group.warning("enable.span-exporter", "neither spans nor log records are enabled: nothing is sent");
        return;
      }
      if (!draft.endpoint && transport == 0u) {
        if (!group.gives("endpoint")) group.problem("endpoint", "is missing; expected a URL such as http://localhost:4318");
        return;
      }
      if (!draft.endpoint && transport == 1u) default_grpc_endpoint(draft);
    } else if (*type == 5) {
      draft.signals = {Signal::logs};
      d.output = Output::file;
      const auto path = group.text("path");
      const auto prefix = group.text("prefix");
      if (!group.gives("path")) group.problem("path", "is missing; expected the directory of the log files");
      draft.paths[static_cast<std::size_t>(Signal::logs)] =
          (path ? path->text : "") + "/" + (prefix ? prefix->text : "waymark") + ".jsonl";
      static constexpr nanoseconds ages[] = {std::chrono::hours(24), std::chrono::hours(1), std::chrono::minutes(1),
                                             nanoseconds::zero()};
      if (const auto rotate = group.choice("rotate", {"daily", "hourly", "minutely", "never"})) {
        d.rotation.max_age = ages[*rotate];
        d.rotation.files = kMostFiles;  // the page names no number, and nothing of what was logged is to go by itself
      }
    } else {
      draft.signals = {Signal::logs};
      const nanoseconds interval = d.batch.interval;
      to_console(group, draft, *type == 4, group.boolean("ansi"));
      if (group.has("throttle")) d.batch.interval = interval;
      d.minimum_severity = group.severity("level").value_or(Severity::info);
    }
    add(group, draft);
  }

  // Of a tracer whose type is not known: its keys are not called wrong as well.
  static void pass_over_tracer(Group& group) {
    for (const char* key : {"transport", "endpoint", "headers", "level", "enable", "throttle", "lossy", "timeout", "path",
                            "prefix", "rotate", "ansi", "name"}) {
      (void)group.pass_over(key);
    }
  }

  // The page: "otherwise the default endpoint is used".
  void default_grpc_endpoint(Draft& draft) {
    for (const Signal signal : draft.signals) {
      static constexpr const char* variables[] = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                                                  "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"};
      const std::string own = variables[static_cast<std::size_t>(signal)];
      const auto found = environment_.first({own.c_str(), "OTEL_EXPORTER_OTLP_ENDPOINT"});
      Text& text = draft.endpoints[static_cast<std::size_t>(signal)].emplace();
      text.text = found ? found->text : "http://localhost:4317";
      text.shown = found ? "$" + found->name : in_quotes(text.text);
      draft.endpoint_keys[static_cast<std::size_t>(signal)] = "endpoint";
    }
  }

  // ---- the Collector's words

  void collector() {
    for (const char* block : {"receivers", "processors", "extensions", "connectors"}) {
      if (top_.pass_over(block)) {
        top_.warning(block, "belongs to a Collector, which Waymark needs none of; it is not looked at");
      }
    }
    for (const char* block : {"service.extensions", "service.telemetry"}) {
      if (top_.pass_over(block)) top_.warning(block, "belongs to a Collector; it is not looked at");
    }
    auto exporters = settings_.members("exporters");
    std::array<std::vector<Text>, kSignals> piped;
    if (pipelines_) piped = read_pipelines(exporters);
    for (Group& group : exporters) {
      const std::string kind = group.id().substr(0, group.id().find('/'));
      const bool http = kind == "otlphttp" || kind == "otlp_http";
      if (!http && kind != "otlp" && kind != "otlp_grpc") {
        group.problem("", "is no exporter that Waymark has; expected otlphttp, otlphttp/NAME, otlp or otlp/NAME");
        continue;
      }
      exporter(group, http, piped);
    }
  }

  // Which exporters the Collector's pipelines name, by signal.
  std::array<std::vector<Text>, kSignals> read_pipelines(const std::vector<Group>& exporters) {
    std::array<std::vector<Text>, kSignals> piped;
    for (const std::string& key : top_.below("service.pipelines")) {
      // "service.pipelines.traces/2.exporters"
      constexpr std::string_view before = "service.pipelines.";
      constexpr std::string_view after = ".exporters";
      (void)top_.pass_over(key);
      if (!key.ends_with(after) || key.size() <= before.size() + after.size()) continue;
      const std::string name = key.substr(before.size(), key.size() - before.size() - after.size());
      const std::string signal = name.substr(0, name.find('/'));
      for (const Text& word : top_.list(key)) {
        const bool known =
            std::any_of(exporters.begin(), exporters.end(), [&](const Group& group) { return group.id() == word.text; });
        if (!known) top_.problem(key, word.place, word.shown + " is no exporter of this file");
        for (const Signal s : kAll) {
          if (signal == signal_name(s)) piped[static_cast<std::size_t>(s)].push_back(word);
        }
      }
    }
    return piped;
  }

  void exporter(Group& group, bool http, const std::array<std::vector<Text>, kSignals>& piped) {
    Draft draft;
    DestinationConfig& d = draft.common;
    d.name = name_of(group);
    for (const Signal signal : kAll) {
      const auto& named = piped[static_cast<std::size_t>(signal)];
      const bool wanted = std::any_of(named.begin(), named.end(), [&](const Text& word) { return word.text == group.id(); });
      const bool usual = std::find(kUsual.begin(), kUsual.end(), signal) != kUsual.end();
      if (pipelines_ ? wanted : usual) draft.signals.push_back(signal);
    }
    d.batch.interval = nanoseconds::zero();
    if (http) {
      draft.rule = PathRule::base;
      if (group.choice("encoding", {"proto", "json"}) == 1u) d.protocol = Protocol::http_json;
    } else {
      d.protocol = Protocol::grpc;
    }
    if (group.choice("preset", {"none", "s2"}) == 1u) {
      d.preset = Preset::s2;
      use_s2_batches(d);
    }
    requests(group, draft);
    if (const auto word = group.choice("compression", {"none", "gzip"})) d.gzip = *word == 1;
    tls(group, d);
    const auto insecure = group.boolean("tls.insecure");
    draft.insecure = insecure;
    if (http && insecure) group.warning("tls.insecure", "has no meaning for HTTP: the URL's scheme decides");
    d.resource_attributes = group.attributes("resource");
    queue(group, d);
    retry(group, d.retry);
    if (draft.signals.empty()) {
      group.warning("", "stands in no pipeline: nothing is sent there");
      return;
    }
    add(group, draft);
  }

  void queue(Group& group, DestinationConfig& d) {
    const auto without_meaning = [&](const std::string& key, const char* why) {
      if (group.has(key)) group.warning(key, why);
    };
    if (group.boolean("sending_queue.enabled") == false) {
      group.warning("sending_queue.enabled", "there is always a queue: it is the journal");
    }
    if (const auto consumers = group.integer("sending_queue.num_consumers", 1, 100000); consumers && *consumers > 1) {
      group.warning("sending_queue.num_consumers", "counts as 1: batches are sent one after the other, in order");
    }
    (void)group.integer("sending_queue.queue_size", 1, INT64_MAX);
    without_meaning("sending_queue.queue_size", "has no meaning here: journal.max_bytes bounds what waits");
    const auto sizer = group.choice("sending_queue.sizer", {"requests", "items", "bytes"});
    if (group.boolean("sending_queue.block_on_overflow") == true) d.lossy = false;
    (void)group.text("sending_queue.storage");
    without_meaning("sending_queue.storage", "has no meaning here: the queue is in state.directory");

    take(d.batch.interval, group.duration("sending_queue.batch.flush_timeout"));
    const auto batch_sizer = group.choice("sending_queue.batch.sizer", {"items", "bytes"});
    const bool bytes = batch_sizer ? *batch_sizer == 1 : sizer == 2u;
    const std::string minimum_key = "sending_queue.batch.min_size";
    const std::string maximum_key = "sending_queue.batch.max_size";
    if (bytes) {
      const auto minimum = group.integer(minimum_key, 0, 64 * kMiB);
      const auto maximum = group.integer(maximum_key, 0, 64 * kMiB);
      // The Collector's 0 is "no limit"; ours is what every receiver takes.
      if (maximum) d.batch.max_bytes = *maximum == 0 ? 64 * kMiB : *maximum;
      if (maximum && *maximum > 0 && *maximum < 1024) group.problem(maximum_key, "is less than 1024 bytes; expected at least that");
      if (maximum) d.batch.min_bytes = std::min(d.batch.min_bytes, d.batch.max_bytes);  // a preset's
      take(d.batch.min_bytes, minimum);
      if (!maximum) d.batch.max_bytes = std::max(d.batch.max_bytes, d.batch.min_bytes);
      if (d.batch.min_bytes > d.batch.max_bytes) {
        group.problem(minimum_key, "is more than sending_queue.batch.max_size; expected at most that");
      }
    } else {
      (void)group.integer(minimum_key, 0, INT32_MAX);
      take(d.batch.max_records, group.integer(maximum_key, 0, INT32_MAX));
      without_meaning(minimum_key, "has no meaning for items: write sizer: bytes, or leave it to flush_timeout");
    }
  }

  static void retry(Group& group, RetryConfig& retry) {
    waits(group, retry, "retry_on_failure.initial_interval", "retry_on_failure.max_interval");
    take(retry.multiplier, group.number("retry_on_failure.multiplier", 1, 1000));
    take(retry.give_up_age, group.duration("retry_on_failure.max_elapsed_time", Zero::allowed));
    take(retry.jitter, group.number("retry_on_failure.randomization_factor", 0, 1));
    // Without retries the Collector drops what is refused once.
    if (group.boolean("retry_on_failure.enabled") == false) retry.give_up_age = nanoseconds(1);
  }

  // ---- metrics

  // Stalwart's words.
  void metrics(Group& group) {
    if (group.id() != "open-telemetry") {
      group.problem("", "is no way to send metrics that Waymark has; expected open-telemetry");
      return;
    }
    const auto transport = group.choice("transport", {"disable", "grpc", "http", "https"});
    Draft draft;
    DestinationConfig& d = draft.common;
    d.name = name_of(group);
    d.enabled = group.boolean("enable").value_or(true);
    d.lossy = group.boolean("lossy").value_or(true);
    if (transport == 1u) d.protocol = Protocol::grpc;
    d.batch.interval = nanoseconds::zero();
    draft.signals = {Signal::metrics};
    draft.endpoint = group.text("endpoint");
    headers(group, d);
    const auto interval = group.duration("interval");
    take(d.timeout, group.duration("timeout", Zero::allowed));
    const bool off = !transport || transport == 0u;
    if (off) {
      // What nobody is sent is checked all the same.
      if (draft.endpoint) {
        (void)parsed(group, "endpoint", *draft.endpoint, Signal::metrics, PathRule::base_or_complete, d, draft.insecure);
      }
      return;
    }
    if (!draft.endpoint && transport != 1u) {
      group.problem("endpoint", "is missing; expected a URL such as http://localhost:4318");
      return;
    }
    if (!draft.endpoint) default_grpc_endpoint(draft);
    if (interval) out_.config.metrics.interval = *interval;
    add(group, draft);
  }

  // How metrics are collected: once for all who are sent them.
  void collection() {
    MetricConfig& m = out_.config.metrics;
    take(m.interval, top_.duration("collection.interval"));
    take(m.temporality, top_.choice("collection.temporality", {"cumulative", "delta", "lowmemory"}));
    if (const auto kind = top_.choice("collection.histograms", {"by_unit", "explicit", "exponential"})) {
      static constexpr Aggregation kinds[] = {Aggregation::standard, Aggregation::explicit_histogram, Aggregation::exponential_histogram};
      m.default_histogram = kinds[*kind];
    }
    take(m.exemplar_filter, top_.choice("collection.exemplar_filter", {"trace_based", "always_on", "always_off"}));
    take(m.cardinality_limit, top_.integer("collection.cardinality_limit", 1, 1'000'000));
    m.process = m.sdk = true;
    take(m.process, top_.boolean("collection.process"));
    take(m.sdk, top_.boolean("collection.sdk"));
  }

  void view(Group& group) {
    View view;
    const auto text = [&](const char* key, std::string& value) {
      if (const auto given = group.text(key)) value = given->text;
    };
    text("instrument", view.select.name);
    if (const auto kind = group.choice("kind", {"counter", "up_down_counter", "gauge", "histogram", "observable_counter",
                                                "observable_up_down_counter", "observable_gauge"})) {
      view.select.kind = static_cast<InstrumentKind>(*kind);
    }
    text("unit", view.select.unit);
    text("meter", view.select.meter_name);
    text("meter_version", view.select.meter_version);
    text("meter_schema_url", view.select.meter_schema_url);
    text("name", view.name);
    text("description", view.description);
    if (!view.name.empty() && (view.select.name.empty() || view.select.name.find_first_of("*?") != std::string::npos)) {
      group.problem("name", "would be the name of several streams; expected `instrument` to name one, without * and ?");
    }
    const auto words = [&](const char* key) {
      std::vector<std::string> all;
      for (const Text& word : group.list(key)) all.push_back(word.text);
      return all;
    };
    if (group.has("attribute_keys")) view.attribute_keys = words("attribute_keys");
    view.excluded_keys = words("excluded_keys");
    take(view.aggregation,
         group.choice("aggregation", {"standard", "drop", "sum", "last_value", "explicit_histogram", "exponential_histogram"}));
    for (const Text& word : group.list("boundaries")) {
      double bound = 0;
      const char* const end = word.text.data() + word.text.size();
      const auto [at, error] = std::from_chars(word.text.data(), end, bound);
      if (error != std::errc() || at != end || !std::isfinite(bound) ||
          (!view.boundaries.empty() && bound <= view.boundaries.back())) {
        group.problem("boundaries", word.place, word.shown + " does not follow; expected numbers, each greater than the one before it");
        break;
      }
      view.boundaries.push_back(bound);
    }
    take(view.max_buckets, group.integer("max_buckets", 2, 1024));
    if (const auto scale = group.number("max_scale", -10, 20)) view.max_scale = static_cast<std::int32_t>(*scale);
    take(view.cardinality_limit, group.integer("cardinality_limit", 1, 1'000'000));
    out_.config.metrics.views.push_back(std::move(view));
  }

  // ---- from a draft to destinations

  std::string name_of(Group& group) {
    const auto name = group.text("name");
    if (name && name->text.empty()) group.problem("name", "is empty; expected a name, or leave it out");
    const std::string chosen = name ? name->text : group.id();
    if (chosen.size() > 256) group.problem("name", "is longer than 256 bytes; write a shorter one");
    return chosen;
  }

  std::optional<Endpoint> parsed(Group& group, const std::string& key, const Text& text, Signal signal, PathRule rule,
                                 const DestinationConfig& d, std::optional<bool> insecure) {
    try {
      if (d.protocol != Protocol::grpc) return parse_endpoint(text.text, signal, rule, "");
      if (!insecure && text.text.find("://") == std::string::npos) {
        static constexpr std::array<const char*, kSignals> own{
            "OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_LOGS_INSECURE", "OTEL_EXPORTER_OTLP_METRICS_INSECURE"};
        const auto variable = environment_.first({own[static_cast<std::size_t>(signal)], "OTEL_EXPORTER_OTLP_INSECURE"});
        insecure = variable && environment_.flag(variable->name.c_str());
      }
      return parse_grpc_endpoint(text.text, signal, insecure.value_or(false), "");
    } catch (const Error& error) {
      // What the file shows instead of what a variable holds.
      std::string why = error.what();
      const bool variable = text.shown != in_quotes(text.text);
      const auto end = why.find("' ");
      if (variable && end != std::string::npos) {
        why = (text.written.empty() ? text.shown : shown_endpoint(text.written, text.text)) + why.substr(end + 1);
      }
      if (why.starts_with(": ")) why.erase(0, 2);
      group.problem(key, text.place.line > 0 ? text.place : group.place(key), why);
      return std::nullopt;
    }
  }

  // The endpoint's part of a destination. False where there is none.
  bool set_endpoint(Group& group, const Draft& draft, DestinationConfig& d) {
    const auto i = static_cast<std::size_t>(d.signal);
    const auto& own = draft.endpoints[i];
    const std::string key = own ? draft.endpoint_keys[i] : draft.endpoint_key;
    const auto& text = own ? own : draft.endpoint;
    if (!text || trimmed(text->text).empty()) {
      if (!makes_no_sense(group, {draft.endpoint_keys[i], draft.endpoint_key})) {
        group.problem(key, "is missing; expected a URL such as http://localhost:4318, or file:PATH");
      }
      return false;
    }
    const auto endpoint = parsed(group, key, *text, d.signal, own ? draft.own_rule : draft.rule, d, draft.insecure);
    if (!endpoint) return false;
    if (endpoint->output == Output::file) {
      d.output = Output::file;
      d.path = endpoint->path;
      d.headers.clear();
      return true;
    }
    d.url = endpoint->url;
    if (endpoint->path_ignored) group.warning(key, "gRPC requests are sent to " + d.url + "; the path behind it is left out");
    const bool given = std::any_of(d.headers.begin(), d.headers.end(),
                                   [](const auto& header) { return lower(header.first) == "authorization"; });
    if (!endpoint->authorization.empty() && !given) put_header(d.headers, "Authorization", endpoint->authorization);
    std::string_view host = std::string_view(endpoint->origin);
    host = host.substr(0, host.rfind(':'));
    if (host.ends_with(".s2.dev") && d.preset == Preset::none && d.signal == draft.signals.front()) {
      group.warning(key, "is S2's, which asks more of its clients than OTLP does; write preset: s2");
    }
    return true;
  }

  void add(Group& group, const Draft& draft) {
    for (const Signal signal : draft.signals) {
      DestinationConfig d = draft.common;
      d.signal = signal;
      if (signal != Signal::logs) d.minimum_severity = Severity::unspecified;
      if (d.output == Output::file) d.path = draft.paths[static_cast<std::size_t>(signal)];
      if (d.output == Output::otlp && !set_endpoint(group, draft, d)) return;
      // As the configure calls have it.
      if (d.batch.interval == nanoseconds::zero()) {
        d.batch.interval = signal == Signal::traces ? std::chrono::seconds(5) : std::chrono::seconds(1);
      }
      for (const DestinationConfig& other : out_.config.destinations) {
        if (other.name != d.name || other.signal != signal) continue;
        group.problem("name", quoted(d.name) + " is the name of another destination of this file; give one of them a `name`");
        return;
      }
      if (d.preset == Preset::s2 && d.output == Output::otlp && d.enabled) {
        const bool known = !group.refused("headers") && (draft.headers_of_file || !group.gives("headers_file"));
        const HeaderList all = merged(d.headers, draft.headers_of_file.value_or(HeaderList()));
        const std::string* token = find_header(all, "Authorization");
        preset_.push_back({group, d.name, signal, !known || (token && !token->empty())});
      }
      out_.config.destinations.push_back(std::move(d));
    }
  }

 public:
  // What S2 asks for, now that the resource is known.
  void check_presets() {
    std::string said;
    for (auto& [group, name, signal, token] : preset_) {
      if (said == name) continue;
      said = name;
      const auto& all = out_.config.destinations;
      const auto d = std::find_if(all.begin(), all.end(), [&](const auto& x) { return x.name == name && x.signal == signal; });
      const bool stream = has_stream(d->resource_attributes) || has_stream(out_.config.resource.attributes());
      if (!stream && !group.refused("resource") && !top_.refused("resource")) {
        group.problem("preset", "s2 needs the stream that records go to; write s2.stream: NAME below `resource`");
      }
      if (!token) group.problem("preset", "s2 needs an access token; write Authorization: Bearer TOKEN below `headers`");
    }
  }

 private:
  struct S2 {
    Group group;
    std::string name;
    Signal signal;
    bool token;  // there is one, or where it may stand could not be read, which has been said
  };

  Settings& settings_;
  Group top_;
  Environment& environment_;
  ConfigFile& out_;
  bool pipelines_ = false;
  std::vector<S2> preset_;
};

std::string spoken(const std::string& file, const std::vector<Problem>& problems) {
  std::string text;
  for (const Problem& problem : problems) {
    text += (text.empty() ? "" : "\n") + file;
    if (problem.place.line > 0) text += ":" + std::to_string(problem.place.line) + ":" + std::to_string(problem.place.column);
    text += ": " + problem.what;
  }
  return text;
}

// The resource without what a program that says nothing would have, unless the file says it.
Resource given_of(const Config& config, const Resource& own) {
  Environment nothing([](const std::string&) -> std::optional<std::string> { return std::nullopt; });
  const Resource detected = detect_resource({}, nothing);
  Resource given;
  for (const auto& [key, value] : config.resource.attributes()) {
    const AnyValue* same = detected.find(key);
    const bool found = (same && *same == value) || (key == "service.instance.id" && config.instance_id_made_up);
    if (!found || own.find(key)) given.set(key, value);
  }
  return given;
}

}  // namespace

ConfigFile parse_config_file(std::string_view text, const std::string& file, Environment& environment) {
  std::vector<Problem> unreadable;
  const auto root = parse_yaml(text, unreadable);
  if (!root) throw Error(ErrorCode::invalid_config, spoken(file, unreadable));

  ConfigFile out;
  Settings settings(*root, file, {"tracer", "exporters", "destinations", "metrics", "views"}, environment);
  Reader reader(settings, environment, out);
  reader.read();
  const Resource own = out.resource;
  out.config = resolve_file_base(std::move(out.config), own, environment);
  out.given = given_of(out.config, own);
  out.config.metrics = resolve_metrics({}, out.config.metrics, environment);
  out.directory_detected =
      !out.state_directory && !environment.text("WAYMARK_STATE_DIR") && out.given.find("service.name") == nullptr;
  for (const auto& [key, value] : own.attributes()) {
    if (const AnyValue* chosen = out.config.resource.find(key)) out.resource.set(key, *chosen);
  }
  reader.check_presets();
  if (const std::string problems = settings.problems(); !problems.empty()) throw Error(ErrorCode::invalid_config, problems);
  out.warnings = settings.warnings();
  return out;
}

ConfigFile read_config_file(const std::string& path, Environment& environment) {
  std::string name = path;
  if (name.empty()) name = environment.text("WAYMARK_CONFIG").value_or("");
  if (name.empty()) {
    throw Error(ErrorCode::invalid_config,
                "configure_from_file: no file is given; set the argument, or the variable WAYMARK_CONFIG");
  }
  errno = 0;
  std::ifstream file(name, std::ios::binary);
  std::string text(kMaximumFileBytes + 1, '\0');
  if (file) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad() || (file.gcount() == 0 && errno != 0)) {
    throw Error(ErrorCode::invalid_config, name + ": can't be read (" + std::generic_category().message(errno) +
                                               "); give the path of a YAML file");
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  return parse_config_file(text, name, environment);
}

}  // namespace waymark::config
