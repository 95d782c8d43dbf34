#include "otlp/schema.h"

namespace waymark::otlp {
namespace {

using enum Kind;
using enum Presence;

extern const Shape kKeyValue;

constexpr Rule kArrayRules[] = {{field::array_value::kValues, "values", message, repeated, &kAnyValueShape}};
constexpr Shape kArray{"ArrayValue", kArrayRules};

constexpr Rule kMapRules[] = {{field::key_value_list::kValues, "values", message, repeated, &kKeyValue}};
constexpr Shape kMap{"KeyValueList", kMapRules};

constexpr Rule kAnyValueRules[] = {
    {field::any_value::kString, "stringValue", text, oneof},
    {field::any_value::kBool, "boolValue", boolean, oneof},
    {field::any_value::kInt, "intValue", int64, oneof},
    {field::any_value::kDouble, "doubleValue", float64, oneof},
    {field::any_value::kArray, "arrayValue", message, oneof, &kArray},
    {field::any_value::kMap, "kvlistValue", message, oneof, &kMap},
    {field::any_value::kBytes, "bytesValue", bytes, oneof},
};

constexpr Rule kKeyValueRules[] = {
    {field::key_value::kKey, "key", text},
    {field::key_value::kValue, "value", message, implicit, &kAnyValueShape},
};
constexpr Shape kKeyValue{"KeyValue", kKeyValueRules};

constexpr Rule kScopeRules[] = {
    {field::scope::kName, "name", text},
    {field::scope::kVersion, "version", text},
    {field::scope::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::scope::kDroppedAttributes, "droppedAttributesCount", uint32},
};

constexpr Rule kResourceRules[] = {
    {field::resource::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::resource::kDroppedAttributes, "droppedAttributesCount", uint32},
};

constexpr Rule kEventRules[] = {
    {field::event::kTime, "timeUnixNano", fixed64},
    {field::event::kName, "name", text},
    {field::event::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::event::kDroppedAttributes, "droppedAttributesCount", uint32},
};
constexpr Shape kEvent{"Span.Event", kEventRules};

constexpr Rule kLinkRules[] = {
    {field::link::kTraceId, "traceId", trace_id},
    {field::link::kSpanId, "spanId", span_id},
    {field::link::kTraceState, "traceState", text},
    {field::link::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::link::kDroppedAttributes, "droppedAttributesCount", uint32},
    {field::link::kFlags, "flags", fixed32},
};
constexpr Shape kLink{"Span.Link", kLinkRules};

constexpr Rule kStatusRules[] = {
    {field::status::kMessage, "message", text},
    {field::status::kCode, "code", int32},
};
constexpr Shape kStatus{"Status", kStatusRules};

constexpr Rule kSpanRules[] = {
    {field::span::kTraceId, "traceId", trace_id},
    {field::span::kSpanId, "spanId", span_id},
    {field::span::kTraceState, "traceState", text},
    {field::span::kParentSpanId, "parentSpanId", span_id},
    {field::span::kName, "name", text},
    {field::span::kKind, "kind", int32},
    {field::span::kStart, "startTimeUnixNano", fixed64},
    {field::span::kEnd, "endTimeUnixNano", fixed64},
    {field::span::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::span::kDroppedAttributes, "droppedAttributesCount", uint32},
    {field::span::kEvents, "events", message, repeated, &kEvent},
    {field::span::kDroppedEvents, "droppedEventsCount", uint32},
    {field::span::kLinks, "links", message, repeated, &kLink},
    {field::span::kDroppedLinks, "droppedLinksCount", uint32},
    {field::span::kStatus, "status", message, implicit, &kStatus},
    {field::span::kFlags, "flags", fixed32},
};
static_assert(std::size(kSpanRules) <= kMaxRules);
constexpr Shape kSpan{"Span", kSpanRules};

constexpr Rule kLogRecordRules[] = {
    {field::log_record::kTime, "timeUnixNano", fixed64},
    {field::log_record::kSeverity, "severityNumber", int32},
    {field::log_record::kSeverityText, "severityText", text},
    {field::log_record::kBody, "body", message, implicit, &kAnyValueShape},
    {field::log_record::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::log_record::kDroppedAttributes, "droppedAttributesCount", uint32},
    {field::log_record::kFlags, "flags", fixed32},
    {field::log_record::kTraceId, "traceId", trace_id},
    {field::log_record::kSpanId, "spanId", span_id},
    {field::log_record::kObservedTime, "observedTimeUnixNano", fixed64},
    {field::log_record::kEventName, "eventName", text},
};
static_assert(std::size(kLogRecordRules) <= kMaxRules);
constexpr Shape kLogRecord{"LogRecord", kLogRecordRules};

constexpr Rule kExemplarRules[] = {
    {field::exemplar::kTime, "timeUnixNano", fixed64},
    {field::exemplar::kDouble, "asDouble", float64, oneof},
    {field::exemplar::kSpanId, "spanId", span_id},
    {field::exemplar::kTraceId, "traceId", trace_id},
    {field::exemplar::kInt, "asInt", sfixed64, oneof},
    {field::exemplar::kFiltered, "filteredAttributes", message, repeated, &kKeyValue},
};
constexpr Shape kExemplar{"Exemplar", kExemplarRules};

constexpr Rule kNumberPointRules[] = {
    {field::number_point::kStart, "startTimeUnixNano", fixed64},
    {field::number_point::kTime, "timeUnixNano", fixed64},
    {field::number_point::kDouble, "asDouble", float64, oneof},
    {field::number_point::kExemplars, "exemplars", message, repeated, &kExemplar},
    {field::number_point::kInt, "asInt", sfixed64, oneof},
    {field::number_point::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::number_point::kFlags, "flags", uint32},
};
constexpr Shape kNumberPoint{"NumberDataPoint", kNumberPointRules};

constexpr Rule kHistogramPointRules[] = {
    {field::histogram_point::kStart, "startTimeUnixNano", fixed64},
    {field::histogram_point::kTime, "timeUnixNano", fixed64},
    {field::histogram_point::kCount, "count", fixed64},
    {field::histogram_point::kSum, "sum", float64, optional},
    {field::histogram_point::kCounts, "bucketCounts", fixed64, packed},
    {field::histogram_point::kBounds, "explicitBounds", float64, packed},
    {field::histogram_point::kExemplars, "exemplars", message, repeated, &kExemplar},
    {field::histogram_point::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::histogram_point::kFlags, "flags", uint32},
    {field::histogram_point::kMin, "min", float64, optional},
    {field::histogram_point::kMax, "max", float64, optional},
};
constexpr Shape kHistogramPoint{"HistogramDataPoint", kHistogramPointRules};

constexpr Rule kBucketsRules[] = {
    {field::buckets::kOffset, "offset", sint32},
    {field::buckets::kCounts, "bucketCounts", uint64, packed},
};
constexpr Shape kBuckets{"ExponentialHistogramDataPoint.Buckets", kBucketsRules};

constexpr Rule kExponentialPointRules[] = {
    {field::exponential_point::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::exponential_point::kStart, "startTimeUnixNano", fixed64},
    {field::exponential_point::kTime, "timeUnixNano", fixed64},
    {field::exponential_point::kCount, "count", fixed64},
    {field::exponential_point::kSum, "sum", float64, optional},
    {field::exponential_point::kScale, "scale", sint32},
    {field::exponential_point::kZeroCount, "zeroCount", fixed64},
    {field::exponential_point::kPositive, "positive", message, implicit, &kBuckets},
    {field::exponential_point::kNegative, "negative", message, implicit, &kBuckets},
    {field::exponential_point::kFlags, "flags", uint32},
    {field::exponential_point::kExemplars, "exemplars", message, repeated, &kExemplar},
    {field::exponential_point::kMin, "min", float64, optional},
    {field::exponential_point::kMax, "max", float64, optional},
    {field::exponential_point::kZeroThreshold, "zeroThreshold", float64},
};
constexpr Shape kExponentialPoint{"ExponentialHistogramDataPoint", kExponentialPointRules};

constexpr Rule kQuantileRules[] = {
    {field::quantile::kQuantile, "quantile", float64},
    {field::quantile::kValue, "value", float64},
};
constexpr Shape kQuantile{"SummaryDataPoint.ValueAtQuantile", kQuantileRules};

constexpr Rule kSummaryPointRules[] = {
    {field::summary_point::kStart, "startTimeUnixNano", fixed64},
    {field::summary_point::kTime, "timeUnixNano", fixed64},
    {field::summary_point::kCount, "count", fixed64},
    {field::summary_point::kSum, "sum", float64},
    {field::summary_point::kQuantiles, "quantileValues", message, repeated, &kQuantile},
    {field::summary_point::kAttributes, "attributes", message, repeated, &kKeyValue},
    {field::summary_point::kFlags, "flags", uint32},
};
constexpr Shape kSummaryPoint{"SummaryDataPoint", kSummaryPointRules};

constexpr Rule kGaugeRules[] = {{field::metric_data::kPoints, "dataPoints", message, repeated, &kNumberPoint}};
constexpr Shape kGauge{"Gauge", kGaugeRules};
constexpr Rule kSumRules[] = {
    {field::metric_data::kPoints, "dataPoints", message, repeated, &kNumberPoint},
    {field::metric_data::kTemporality, "aggregationTemporality", int32},
    {field::metric_data::kMonotonic, "isMonotonic", boolean},
};
constexpr Shape kSum{"Sum", kSumRules};
constexpr Rule kHistogramRules[] = {
    {field::metric_data::kPoints, "dataPoints", message, repeated, &kHistogramPoint},
    {field::metric_data::kTemporality, "aggregationTemporality", int32},
};
constexpr Shape kHistogram{"Histogram", kHistogramRules};
constexpr Rule kExponentialRules[] = {
    {field::metric_data::kPoints, "dataPoints", message, repeated, &kExponentialPoint},
    {field::metric_data::kTemporality, "aggregationTemporality", int32},
};
constexpr Shape kExponential{"ExponentialHistogram", kExponentialRules};
constexpr Rule kSummaryRules[] = {{field::metric_data::kPoints, "dataPoints", message, repeated, &kSummaryPoint}};
constexpr Shape kSummary{"Summary", kSummaryRules};

constexpr Rule kMetricRules[] = {
    {field::metric::kName, "name", text},
    {field::metric::kDescription, "description", text},
    {field::metric::kUnit, "unit", text},
    {field::metric::kGauge, "gauge", message, oneof, &kGauge},
    {field::metric::kSum, "sum", message, oneof, &kSum},
    {field::metric::kHistogram, "histogram", message, oneof, &kHistogram},
    {field::metric::kExponential, "exponentialHistogram", message, oneof, &kExponential},
    {field::metric::kSummary, "summary", message, oneof, &kSummary},
    {field::metric::kMetadata, "metadata", message, repeated, &kKeyValue},
};
constexpr Shape kMetric{"Metric", kMetricRules};

constexpr Rule kScopeSpansRules[] = {
    {field::scope_records::kScope, "scope", message, implicit, &kScopeShape},
    {field::scope_records::kRecords, "spans", message, repeated, &kSpan},
    {field::scope_records::kSchemaUrl, "schemaUrl", text},
};
constexpr Shape kScopeSpans{"ScopeSpans", kScopeSpansRules};

constexpr Rule kScopeLogsRules[] = {
    {field::scope_records::kScope, "scope", message, implicit, &kScopeShape},
    {field::scope_records::kRecords, "logRecords", message, repeated, &kLogRecord},
    {field::scope_records::kSchemaUrl, "schemaUrl", text},
};
constexpr Shape kScopeLogs{"ScopeLogs", kScopeLogsRules};

constexpr Rule kScopeMetricsRules[] = {
    {field::scope_records::kScope, "scope", message, implicit, &kScopeShape},
    {field::scope_records::kRecords, "metrics", message, repeated, &kMetric},
    {field::scope_records::kSchemaUrl, "schemaUrl", text},
};
constexpr Shape kScopeMetrics{"ScopeMetrics", kScopeMetricsRules};

constexpr Rule kResourceSpansRules[] = {
    {field::resource_records::kResource, "resource", message, implicit, &kResourceShape},
    {field::resource_records::kScopes, "scopeSpans", message, repeated, &kScopeSpans},
    {field::resource_records::kSchemaUrl, "schemaUrl", text},
};
constexpr Shape kResourceSpans{"ResourceSpans", kResourceSpansRules};

constexpr Rule kResourceLogsRules[] = {
    {field::resource_records::kResource, "resource", message, implicit, &kResourceShape},
    {field::resource_records::kScopes, "scopeLogs", message, repeated, &kScopeLogs},
    {field::resource_records::kSchemaUrl, "schemaUrl", text},
};
constexpr Shape kResourceLogs{"ResourceLogs", kResourceLogsRules};

constexpr Rule kResourceMetricsRules[] = {
    {field::resource_records::kResource, "resource", message, implicit, &kResourceShape},
    {field::resource_records::kScopes, "scopeMetrics", message, repeated, &kScopeMetrics},
    {field::resource_records::kSchemaUrl, "schemaUrl", text},
};
constexpr Shape kResourceMetrics{"ResourceMetrics", kResourceMetricsRules};

constexpr Rule kTracesRules[] = {{field::request::kResources, "resourceSpans", message, repeated, &kResourceSpans}};
constexpr Shape kTraces{"ExportTraceServiceRequest", kTracesRules};

constexpr Rule kLogsRules[] = {{field::request::kResources, "resourceLogs", message, repeated, &kResourceLogs}};
constexpr Shape kLogs{"ExportLogsServiceRequest", kLogsRules};

constexpr Rule kMetricsRules[] = {{field::request::kResources, "resourceMetrics", message, repeated, &kResourceMetrics}};
constexpr Shape kMetrics{"ExportMetricsServiceRequest", kMetricsRules};

}  // namespace

constexpr Shape kAnyValueShape{"AnyValue", kAnyValueRules};
constexpr Shape kResourceShape{"Resource", kResourceRules};
constexpr Shape kScopeShape{"InstrumentationScope", kScopeRules};

const Shape& request_shape(Signal signal) {
  switch (signal) {
    case Signal::traces: break;
    case Signal::logs: return kLogs;
    case Signal::metrics: return kMetrics;
  }
  return kTraces;
}

const Shape& record_shape(Signal signal) {
  switch (signal) {
    case Signal::traces: break;
    case Signal::logs: return kLogRecord;
    case Signal::metrics: return kMetric;
  }
  return kSpan;
}

}  // namespace waymark::otlp
