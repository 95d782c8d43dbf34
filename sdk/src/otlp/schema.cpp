#include "otlp/schema.h"

#include "waymark/error.h"

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

constexpr Rule kTracesRules[] = {{field::request::kResources, "resourceSpans", message, repeated, &kResourceSpans}};
constexpr Shape kTraces{"ExportTraceServiceRequest", kTracesRules};

constexpr Rule kLogsRules[] = {{field::request::kResources, "resourceLogs", message, repeated, &kResourceLogs}};
constexpr Shape kLogs{"ExportLogsServiceRequest", kLogsRules};

}  // namespace

constexpr Shape kAnyValueShape{"AnyValue", kAnyValueRules};
constexpr Shape kResourceShape{"Resource", kResourceRules};
constexpr Shape kScopeShape{"InstrumentationScope", kScopeRules};

namespace {

[[noreturn]] void refuse_signal() { throw Error(ErrorCode::invalid_argument, "signal: expected traces or logs"); }

}  // namespace

const Shape& request_shape(Signal signal) {
  switch (signal) {
    case Signal::traces: return kTraces;
    case Signal::logs: return kLogs;
    case Signal::metrics: break;
  }
  refuse_signal();
}

const Shape& record_shape(Signal signal) {
  switch (signal) {
    case Signal::traces: return kSpan;
    case Signal::logs: return kLogRecord;
    case Signal::metrics: break;
  }
  refuse_signal();
}

}  // namespace waymark::otlp
