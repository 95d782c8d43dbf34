#include "otlp/reader.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace waymark::otlp {
namespace {

// Each record read carries its own copy of resource and scope. A few hostile bytes would become gigabytes where a large
// resource stands above very many empty records; real requests stay far below this.
constexpr std::size_t kMaxCopied = 256u * 1024 * 1024;

void read_any(std::string_view message, AnyValue& into, int depth);

std::string text(std::string_view bytes) { return std::string(bytes); }

Timestamp timestamp(std::uint64_t nanoseconds) {
  constexpr auto kLatest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(nanoseconds, kLatest))));
}

template <class Id>
Id id(const Walk& field) {
  Id id;
  const std::string_view bytes = field.id(id.bytes.size());
  if (!bytes.empty()) std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return id;
}

// What stands twice is merged, as protobuf says: a scalar's last value counts, lists are joined.
void read_attribute(std::string_view message, AnyMap& into, int depth) {
  auto& [key, value] = into.emplace_back();
  Walk entry(message, "KeyValue");
  while (entry.next()) {
    if (entry.number() == field::key_value::kKey) key = text(entry.bytes());
    if (entry.number() == field::key_value::kValue) read_any(entry.bytes(), value, depth);
  }
}

template <class List>
List& same_kind(AnyValue& value) {
  if (!std::holds_alternative<List>(value.value)) value.value.emplace<List>();
  return std::get<List>(value.value);
}

void read_any(std::string_view message, AnyValue& into, int depth) {
  Walk any(message, "AnyValue");
  if (depth > kMaxNesting) any.fail("arrays and maps stand in one another too deep");
  while (any.next()) {
    switch (any.number()) {
      case field::any_value::kString:
        into.value = text(any.bytes());
        break;
      case field::any_value::kBool:
        into.value = any.varint() != 0;
        break;
      case field::any_value::kInt:
        into.value = static_cast<std::int64_t>(any.varint());
        break;
      case field::any_value::kDouble:
        into.value = any.float64();
        break;
      case field::any_value::kBytes: {
        const auto* data = reinterpret_cast<const std::byte*>(any.bytes().data());
        into.value = std::vector<std::byte>(data, data + any.bytes().size());
        break;
      }
      case field::any_value::kArray: {
        auto& list = same_kind<AnyArray>(into);
        Walk array(any.bytes(), "ArrayValue");
        while (array.next()) {
          if (array.number() == field::array_value::kValues) read_any(array.bytes(), list.emplace_back(), depth + 1);
        }
        break;
      }
      case field::any_value::kMap: {
        auto& map = same_kind<AnyMap>(into);
        Walk list(any.bytes(), "KeyValueList");
        while (list.next()) {
          if (list.number() == field::key_value_list::kValues) read_attribute(list.bytes(), map, depth + 1);
        }
        break;
      }
      default:
        break;
    }
  }
}

void read_event(std::string_view message, ReadEvent& into) {
  Walk event(message, "Span.Event");
  while (event.next()) {
    switch (event.number()) {
      case field::event::kTime: into.time = timestamp(event.fixed64()); break;
      case field::event::kName: into.name = text(event.bytes()); break;
      case field::event::kAttributes: read_attribute(event.bytes(), into.attributes, 1); break;
      case field::event::kDroppedAttributes:
        into.dropped_attributes = static_cast<std::uint32_t>(event.varint());
        break;
      default: break;
    }
  }
}

// Bits above the W3C's eight say whether the context came from another process, and may hold anything else.
bool remote(std::uint32_t flags) { return (flags & field::kHasIsRemote) != 0 && (flags & field::kIsRemote) != 0; }

void read_link(std::string_view message, ReadLink& into) {
  Walk link(message, "Span.Link");
  while (link.next()) {
    switch (link.number()) {
      case field::link::kTraceId: into.context.trace_id = id<TraceId>(link); break;
      case field::link::kSpanId: into.context.span_id = id<SpanId>(link); break;
      case field::link::kTraceState: into.context.trace_state = TraceState::parse(link.bytes()); break;
      case field::link::kAttributes: read_attribute(link.bytes(), into.attributes, 1); break;
      case field::link::kDroppedAttributes:
        into.dropped_attributes = static_cast<std::uint32_t>(link.varint());
        break;
      case field::link::kFlags:
        into.context.flags = static_cast<std::uint8_t>(link.fixed32());
        into.context.remote = remote(link.fixed32());
        break;
      default: break;
    }
  }
}

SpanKind kind(std::uint64_t wire) {
  return wire >= 1 && wire <= 5 ? static_cast<SpanKind>(wire) : SpanKind::internal;
}
StatusCode status_code(std::uint64_t wire) {
  return wire <= 2 ? static_cast<StatusCode>(wire) : StatusCode::unset;
}

void read_status(std::string_view message, ReadSpan& into) {
  Walk status(message, "Status");
  while (status.next()) {
    if (status.number() == field::status::kMessage) into.status_message = text(status.bytes());
    if (status.number() == field::status::kCode) into.status = status_code(status.varint());
  }
}

void read_scope(std::string_view message, ReadScope& into) {
  Walk scope(message, "InstrumentationScope");
  while (scope.next()) {
    switch (scope.number()) {
      case field::scope::kName: into.name = text(scope.bytes()); break;
      case field::scope::kVersion: into.version = text(scope.bytes()); break;
      case field::scope::kAttributes: read_attribute(scope.bytes(), into.attributes, 1); break;
      default: break;
    }
  }
}

void read_resource(std::string_view message, AnyMap& into) {
  Walk resource(message, "Resource");
  while (resource.next()) {
    if (resource.number() == field::resource::kAttributes) read_attribute(resource.bytes(), into, 1);
  }
}

// Calls each(resource, scope, body) for every record; ResourceSpans, ResourceLogs and ResourceMetrics have the same field numbers. What a
// record stands in may follow it on the wire, so each message is walked twice.
template <class Each>
void for_each_record(std::string_view request, Each&& each) {
  std::size_t copied = 0;
  Walk top(request, "request");
  while (top.next()) {
    if (top.number() != field::request::kResources) continue;
    AnyMap resource;
    std::size_t resource_size = 0;
    const char* name = "ResourceSpans or ResourceLogs";
    for (Walk group(top.bytes(), name); group.next();) {
      if (group.number() != field::resource_records::kResource) continue;
      resource_size += group.bytes().size();
      read_resource(group.bytes(), resource);
    }
    for (Walk group(top.bytes(), name); group.next();) {
      if (group.number() != field::resource_records::kScopes) continue;
      ReadScope scope;
      std::size_t scope_size = 0;
      for (Walk records(group.bytes(), "ScopeSpans or ScopeLogs"); records.next();) {
        if (records.number() == field::scope_records::kScope) {
          scope_size += records.bytes().size();
          read_scope(records.bytes(), scope);
        } else if (records.number() == field::scope_records::kSchemaUrl) {
          scope.schema_url = text(records.bytes());
          scope_size += scope.schema_url.size();
        }
      }
      for (Walk records(group.bytes(), "ScopeSpans or ScopeLogs"); records.next();) {
        if (records.number() != field::scope_records::kRecords) continue;
        copied += resource_size + scope_size;
        if (copied > kMaxCopied) records.fail("resource and scope are too large for so many records");
        each(resource, scope, records.bytes());
      }
    }
  }
}

}  // namespace

ReadSpan read_span(std::string_view body) {
  ReadSpan into;
  Walk span(body, "Span");
  while (span.next()) {
    switch (span.number()) {
      case field::span::kTraceId: into.context.trace_id = id<TraceId>(span); break;
      case field::span::kSpanId: into.context.span_id = id<SpanId>(span); break;
      case field::span::kTraceState: into.context.trace_state = TraceState::parse(span.bytes()); break;
      case field::span::kParentSpanId: into.parent = id<SpanId>(span); break;
      case field::span::kName: into.name = text(span.bytes()); break;
      case field::span::kKind: into.kind = kind(span.varint()); break;
      case field::span::kStart: into.start = timestamp(span.fixed64()); break;
      case field::span::kEnd: into.end = timestamp(span.fixed64()); break;
      case field::span::kAttributes: read_attribute(span.bytes(), into.attributes, 1); break;
      case field::span::kDroppedAttributes: into.dropped_attributes = static_cast<std::uint32_t>(span.varint()); break;
      case field::span::kEvents: read_event(span.bytes(), into.events.emplace_back()); break;
      case field::span::kDroppedEvents: into.dropped_events = static_cast<std::uint32_t>(span.varint()); break;
      case field::span::kLinks: read_link(span.bytes(), into.links.emplace_back()); break;
      case field::span::kDroppedLinks: into.dropped_links = static_cast<std::uint32_t>(span.varint()); break;
      case field::span::kStatus: read_status(span.bytes(), into); break;
      case field::span::kFlags:
        into.context.flags = static_cast<std::uint8_t>(span.fixed32());
        into.parent_remote = remote(span.fixed32());
        break;
      default: break;
    }
  }
  return into;
}

ReadLog read_log(std::string_view body) {
  constexpr std::uint64_t kHighestSeverity = 24;
  ReadLog into;
  Walk log(body, "LogRecord");
  while (log.next()) {
    switch (log.number()) {
      case field::log_record::kTime: into.time = timestamp(log.fixed64()); break;
      case field::log_record::kSeverity:
        into.severity = static_cast<std::uint8_t>(log.varint() <= kHighestSeverity ? log.varint() : 0);
        break;
      case field::log_record::kSeverityText: into.severity_text = text(log.bytes()); break;
      case field::log_record::kBody: read_any(log.bytes(), into.body, 1); break;
      case field::log_record::kAttributes: read_attribute(log.bytes(), into.attributes, 1); break;
      case field::log_record::kDroppedAttributes: into.dropped_attributes = static_cast<std::uint32_t>(log.varint()); break;
      case field::log_record::kFlags: into.flags = static_cast<std::uint8_t>(log.fixed32()); break;
      case field::log_record::kTraceId: into.trace_id = id<TraceId>(log); break;
      case field::log_record::kSpanId: into.span_id = id<SpanId>(log); break;
      case field::log_record::kObservedTime: into.observed = timestamp(log.fixed64()); break;
      case field::log_record::kEventName: into.event_name = text(log.bytes()); break;
      default: break;
    }
  }
  return into;
}

namespace {

double as_double(std::uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
std::int32_t unzigzag(std::uint64_t wire) {
  const auto bits = static_cast<std::uint32_t>(wire);
  return static_cast<std::int32_t>(bits >> 1 ^ (0u - (bits & 1)));
}

template <class T, class Convert>
void read_packed(const Walk& walk, Wire wire, std::vector<T>& into, Convert&& convert) {
  if (walk.wire() != Wire::bytes) {
    into.push_back(convert(wire == Wire::fixed64 ? walk.fixed64() : walk.varint()));
  } else {
    walk.for_each_packed(wire, [&](std::uint64_t bits) { into.push_back(convert(bits)); });
  }
}
constexpr auto kAsItIs = [](std::uint64_t bits) { return bits; };

ReadExemplar read_exemplar(std::string_view message) {
  ReadExemplar into;
  Walk exemplar(message, "Exemplar");
  while (exemplar.next()) {
    switch (exemplar.number()) {
      case field::exemplar::kTime: into.time = timestamp(exemplar.fixed64()); break;
      case field::exemplar::kDouble: into.value = exemplar.float64(); break;
      case field::exemplar::kInt: into.value = static_cast<std::int64_t>(exemplar.fixed64()); break;
      case field::exemplar::kSpanId: into.span_id = id<SpanId>(exemplar); break;
      case field::exemplar::kTraceId: into.trace_id = id<TraceId>(exemplar); break;
      case field::exemplar::kFiltered: read_attribute(exemplar.bytes(), into.filtered_attributes, 1); break;
      default: break;
    }
  }
  return into;
}

ReadPoint read_number(std::string_view message) {
  ReadPoint into;
  Walk point(message, "NumberDataPoint");
  while (point.next()) {
    switch (point.number()) {
      case field::number_point::kStart: into.start = timestamp(point.fixed64()); break;
      case field::number_point::kTime: into.time = timestamp(point.fixed64()); break;
      case field::number_point::kDouble: into.value = point.float64(); break;
      case field::number_point::kInt: into.value = static_cast<std::int64_t>(point.fixed64()); break;
      case field::number_point::kExemplars: into.exemplars.push_back(read_exemplar(point.bytes())); break;
      case field::number_point::kAttributes: read_attribute(point.bytes(), into.attributes, 1); break;
      default: break;
    }
  }
  return into;
}

ReadPoint read_histogram(std::string_view message) {
  ReadPoint into;
  Walk point(message, "HistogramDataPoint");
  while (point.next()) {
    switch (point.number()) {
      case field::histogram_point::kStart: into.start = timestamp(point.fixed64()); break;
      case field::histogram_point::kTime: into.time = timestamp(point.fixed64()); break;
      case field::histogram_point::kCount: into.count = point.fixed64(); break;
      case field::histogram_point::kSum: into.sum = point.float64(); break;
      case field::histogram_point::kCounts: read_packed(point, Wire::fixed64, into.counts, kAsItIs); break;
      case field::histogram_point::kBounds: read_packed(point, Wire::fixed64, into.bounds, as_double); break;
      case field::histogram_point::kExemplars: into.exemplars.push_back(read_exemplar(point.bytes())); break;
      case field::histogram_point::kAttributes: read_attribute(point.bytes(), into.attributes, 1); break;
      case field::histogram_point::kMin: into.minimum = point.float64(); break;
      case field::histogram_point::kMax: into.maximum = point.float64(); break;
      default: break;
    }
  }
  return into;
}

void read_buckets(std::string_view message, std::int32_t& offset, std::vector<std::uint64_t>& counts) {
  Walk buckets(message, "ExponentialHistogramDataPoint.Buckets");
  while (buckets.next()) {
    if (buckets.number() == field::buckets::kOffset) offset = unzigzag(buckets.varint());
    if (buckets.number() == field::buckets::kCounts) read_packed(buckets, Wire::varint, counts, kAsItIs);
  }
}

ReadPoint read_exponential(std::string_view message) {
  ReadPoint into;
  Walk point(message, "ExponentialHistogramDataPoint");
  while (point.next()) {
    switch (point.number()) {
      case field::exponential_point::kAttributes: read_attribute(point.bytes(), into.attributes, 1); break;
      case field::exponential_point::kStart: into.start = timestamp(point.fixed64()); break;
      case field::exponential_point::kTime: into.time = timestamp(point.fixed64()); break;
      case field::exponential_point::kCount: into.count = point.fixed64(); break;
      case field::exponential_point::kSum: into.sum = point.float64(); break;
      case field::exponential_point::kScale: into.scale = unzigzag(point.varint()); break;
      case field::exponential_point::kZeroCount: into.zero_count = point.fixed64(); break;
      case field::exponential_point::kPositive: read_buckets(point.bytes(), into.positive_offset, into.positive); break;
      case field::exponential_point::kNegative: read_buckets(point.bytes(), into.negative_offset, into.negative); break;
      case field::exponential_point::kExemplars: into.exemplars.push_back(read_exemplar(point.bytes())); break;
      case field::exponential_point::kMin: into.minimum = point.float64(); break;
      case field::exponential_point::kMax: into.maximum = point.float64(); break;
      default: break;
    }
  }
  return into;
}

}  // namespace

ReadMetric read_metric(std::string_view body) {
  ReadMetric into;
  const auto data = [&](std::string_view message, ReadMetric::Kind kind, const char* name, auto read_point) {
    into.kind = kind;
    Walk walk(message, name);
    while (walk.next()) {
      switch (walk.number()) {
        case field::metric_data::kPoints: into.points.push_back(read_point(walk.bytes())); break;
        case field::metric_data::kTemporality:
          if (kind != ReadMetric::Kind::gauge) into.delta = walk.varint() == 1;
          break;
        case field::metric_data::kMonotonic:
          if (kind == ReadMetric::Kind::sum) into.monotonic = walk.varint() != 0;
          break;
        default: break;
      }
    }
  };
  Walk metric(body, "Metric");
  while (metric.next()) {
    switch (metric.number()) {
      case field::metric::kName: into.name = text(metric.bytes()); break;
      case field::metric::kDescription: into.description = text(metric.bytes()); break;
      case field::metric::kUnit: into.unit = text(metric.bytes()); break;
      case field::metric::kGauge: data(metric.bytes(), ReadMetric::Kind::gauge, "Gauge", read_number); break;
      case field::metric::kSum: data(metric.bytes(), ReadMetric::Kind::sum, "Sum", read_number); break;
      case field::metric::kHistogram: data(metric.bytes(), ReadMetric::Kind::histogram, "Histogram", read_histogram); break;
      case field::metric::kExponential:
        data(metric.bytes(), ReadMetric::Kind::exponential_histogram, "ExponentialHistogram", read_exponential);
        break;
      default: break;
    }
  }
  return into;
}

std::uint64_t metric_time(std::string_view body) {
  Timestamp latest{};
  for (const ReadPoint& point : read_metric(body).points) latest = std::max(latest, point.time);
  return static_cast<std::uint64_t>(latest.time_since_epoch().count());
}

ReadScope read_scope(std::string_view message) {
  ReadScope scope;
  read_scope(message, scope);
  return scope;
}

AnyMap read_resource(std::string_view message) {
  AnyMap attributes;
  read_resource(message, attributes);
  return attributes;
}

AnyValue read_any(std::string_view message) {
  AnyValue value;
  read_any(message, value, 1);
  return value;
}

std::int32_t log_severity(std::string_view body) noexcept {
  try {
    std::int32_t severity = 0;
    Walk log(body, "LogRecord");
    while (log.next()) {
      if (log.number() == field::log_record::kSeverity) severity = static_cast<std::int32_t>(log.varint());
    }
    return severity;
  } catch (const std::exception&) {
    return 0;
  }
}

std::string_view span_name(std::string_view body) noexcept {
  try {
    std::string_view name;
    Walk span(body, "Span");
    while (span.next()) {
      if (span.number() == field::span::kName) name = span.bytes();
    }
    return name;
  } catch (const std::exception&) {
    return {};
  }
}

StatusCode span_status(std::string_view body) noexcept {
  try {
    StatusCode code = StatusCode::unset;
    Walk span(body, "Span");
    while (span.next()) {
      if (span.number() != field::span::kStatus) continue;
      Walk status(span.bytes(), "Status");
      while (status.next()) {
        if (status.number() == field::status::kCode) code = status_code(status.varint());
      }
    }
    return code;
  } catch (const std::exception&) {
    return StatusCode::unset;
  }
}

}  // namespace waymark::otlp

namespace waymark {

ReadTelemetry read_request(Signal signal, std::string_view protobuf) {
  ReadTelemetry telemetry;
  switch (signal) {
    case Signal::traces:
      otlp::for_each_record(protobuf, [&](const AnyMap& resource, const ReadScope& scope, std::string_view body) {
        ReadSpan& span = telemetry.spans.emplace_back(otlp::read_span(body));
        span.scope = scope;
        span.resource = resource;
      });
      return telemetry;
    case Signal::logs:
      otlp::for_each_record(protobuf, [&](const AnyMap& resource, const ReadScope& scope, std::string_view body) {
        ReadLog& log = telemetry.logs.emplace_back(otlp::read_log(body));
        log.scope = scope;
        log.resource = resource;
      });
      return telemetry;
    case Signal::metrics:
      otlp::for_each_record(protobuf, [&](const AnyMap& resource, const ReadScope& scope, std::string_view body) {
        ReadMetric& metric = telemetry.metrics.emplace_back(otlp::read_metric(body));
        metric.scope = scope;
        metric.resource = resource;
      });
      return telemetry;
  }
  return telemetry;
}

const AnyValue* find(const AnyMap& map, std::string_view key) noexcept {
  const auto entry = std::ranges::find(map, key, [](const auto& e) { return std::string_view(e.first); });
  return entry == map.end() ? nullptr : &entry->second;
}

std::string_view find_string(const AnyMap& map, std::string_view key) noexcept {
  const AnyValue* value = find(map, key);
  const auto* string = value ? std::get_if<std::string>(&value->value) : nullptr;
  return string ? std::string_view(*string) : std::string_view();
}

}  // namespace waymark
