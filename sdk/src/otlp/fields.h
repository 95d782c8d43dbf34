// OTLP's field numbers, by message (opentelemetry/proto/{common,resource,trace,logs,metrics}/v1 and collector/*/v1).
//
// Hides: nothing; it is the one place where the numbers stand by name.
// Threads: constants.
// Failure: none.
#pragma once

#include <cstdint>

namespace waymark::otlp::field {

using Number = std::uint32_t;

// common.v1
namespace any_value {
inline constexpr Number kString = 1, kBool = 2, kInt = 3, kDouble = 4, kArray = 5, kMap = 6, kBytes = 7;
}
namespace array_value {
inline constexpr Number kValues = 1;
}
namespace key_value_list {
inline constexpr Number kValues = 1;
}
namespace key_value {
inline constexpr Number kKey = 1, kValue = 2;
}
namespace scope {
inline constexpr Number kName = 1, kVersion = 2, kAttributes = 3, kDroppedAttributes = 4;
}

// resource.v1
namespace resource {
inline constexpr Number kAttributes = 1, kDroppedAttributes = 2;
}

// Export{Trace,Logs,Metrics}ServiceRequest, and TracesData, LogsData and MetricsData, which are the same on the wire
namespace request {
inline constexpr Number kResources = 1;
}
// ResourceSpans, ResourceLogs, ResourceMetrics
namespace resource_records {
inline constexpr Number kResource = 1, kScopes = 2, kSchemaUrl = 3;
}
// ScopeSpans, ScopeLogs, ScopeMetrics
namespace scope_records {
inline constexpr Number kScope = 1, kRecords = 2, kSchemaUrl = 3;
}

// trace.v1
namespace span {
inline constexpr Number kTraceId = 1, kSpanId = 2, kTraceState = 3, kParentSpanId = 4, kName = 5, kKind = 6, kStart = 7,
                        kEnd = 8, kAttributes = 9, kDroppedAttributes = 10, kEvents = 11, kDroppedEvents = 12, kLinks = 13,
                        kDroppedLinks = 14, kStatus = 15, kFlags = 16;
}
namespace event {
inline constexpr Number kTime = 1, kName = 2, kAttributes = 3, kDroppedAttributes = 4;
}
namespace link {
inline constexpr Number kTraceId = 1, kSpanId = 2, kTraceState = 3, kAttributes = 4, kDroppedAttributes = 5, kFlags = 6;
}
namespace status {
inline constexpr Number kMessage = 2, kCode = 3;
}
// Span.flags and Link.flags above the eight bits of the W3C
inline constexpr std::uint32_t kHasIsRemote = 0x100;
inline constexpr std::uint32_t kIsRemote = 0x200;

// logs.v1
namespace log_record {
inline constexpr Number kTime = 1, kSeverity = 2, kSeverityText = 3, kBody = 5, kAttributes = 6, kDroppedAttributes = 7,
                        kFlags = 8, kTraceId = 9, kSpanId = 10, kObservedTime = 11, kEventName = 12;
}

// metrics.v1
namespace metric {
inline constexpr Number kName = 1, kDescription = 2, kUnit = 3, kGauge = 5, kSum = 7, kHistogram = 9, kExponential = 10,
                        kSummary = 11, kMetadata = 12;
}
// Gauge, Sum, Histogram, ExponentialHistogram, Summary
namespace metric_data {
inline constexpr Number kPoints = 1, kTemporality = 2, kMonotonic = 3;
}
namespace number_point {
inline constexpr Number kStart = 2, kTime = 3, kDouble = 4, kExemplars = 5, kInt = 6, kAttributes = 7, kFlags = 8;
}
namespace histogram_point {
inline constexpr Number kStart = 2, kTime = 3, kCount = 4, kSum = 5, kCounts = 6, kBounds = 7, kExemplars = 8, kAttributes = 9,
                        kFlags = 10, kMin = 11, kMax = 12;
}
namespace exponential_point {
inline constexpr Number kAttributes = 1, kStart = 2, kTime = 3, kCount = 4, kSum = 5, kScale = 6, kZeroCount = 7, kPositive = 8,
                        kNegative = 9, kFlags = 10, kExemplars = 11, kMin = 12, kMax = 13, kZeroThreshold = 14;
}
namespace buckets {
inline constexpr Number kOffset = 1, kCounts = 2;
}
namespace summary_point {
inline constexpr Number kStart = 2, kTime = 3, kCount = 4, kSum = 5, kQuantiles = 6, kAttributes = 7, kFlags = 8;
}
namespace quantile {
inline constexpr Number kQuantile = 1, kValue = 2;
}
namespace exemplar {
inline constexpr Number kTime = 2, kDouble = 3, kSpanId = 4, kTraceId = 5, kInt = 6, kFiltered = 7;
}

}  // namespace waymark::otlp::field
