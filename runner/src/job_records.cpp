#include "job_records.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "instrumentation.h"

namespace waymark::detail {
namespace {

using SpanKey = std::pair<TraceId, SpanId>;

enum class Whose { unknown, the_jobs, anothers };

class Membership {
 public:
  Membership(const ReadTelemetry& all, const Job& job) : job_(&job) {
    for (const ReadSpan& span : all.spans) {
      spans_.emplace(SpanKey(span.context.trace_id, span.context.span_id), &span);
      note(span.context.trace_id, span.attributes);
    }
    for (const ReadLog& log : all.logs) note(log.trace_id, log.attributes);
  }

  [[nodiscard]] bool has(const ReadSpan& span) {
    return decide(named(span.attributes), span.context.trace_id, span.parent);
  }
  [[nodiscard]] bool has(const ReadLog& log) { return decide(named(log.attributes), log.trace_id, log.span_id); }

 private:
  [[nodiscard]] Whose named(const AnyMap& attributes) const {
    const std::string_view id = find_string(attributes, names::kJobId);
    return id.empty() ? Whose::unknown : id == job_->id ? Whose::the_jobs : Whose::anothers;
  }
  void note(const TraceId& trace, const AnyMap& attributes) {
    if (trace == job_->trace_id && named(attributes) == Whose::anothers) shared_trace_ = true;
  }
  [[nodiscard]] bool decide(Whose own, const TraceId& trace, SpanId parent) {
    if (own != Whose::unknown) return own == Whose::the_jobs;
    // Upwards, until somebody says so. What was asked once is remembered; parents that lead in a circle end it.
    std::vector<SpanKey> way;
    std::set<SpanKey> seen;
    Whose whose = Whose::unknown;
    bool lost = false;
    while (whose == Whose::unknown && parent.valid()) {
      const SpanKey key(trace, parent);
      if (const auto known = known_.find(key); known != known_.end()) {
        whose = known->second;
        break;
      }
      if (!seen.insert(key).second) break;
      const auto span = spans_.find(key);
      if (span == spans_.end()) {
        lost = true;
        break;
      }
      way.push_back(key);
      whose = named(span->second->attributes);
      parent = span->second->parent;
    }
    if (whose == Whose::unknown) {
      whose = lost && trace == job_->trace_id && !shared_trace_ ? Whose::the_jobs : Whose::anothers;
    }
    for (const SpanKey& key : way) known_.emplace(key, whose);
    return whose == Whose::the_jobs;
  }

  const Job* job_;
  bool shared_trace_ = false;
  std::map<SpanKey, const ReadSpan*> spans_;
  std::map<SpanKey, Whose> known_;
};

}  // namespace

ReadTelemetry records_of(ReadTelemetry all, const Job& job) {
  ReadTelemetry found;
  Membership members(all, job);
  std::set<SpanKey> taken;  // a span that was delivered twice has one id
  for (const ReadSpan& span : all.spans) {
    if (members.has(span) && taken.emplace(span.context.trace_id, span.context.span_id).second) {
      found.spans.push_back(span);
    }
  }
  for (const ReadLog& log : all.logs) {
    if (members.has(log)) found.logs.push_back(log);
  }
  std::stable_sort(found.spans.begin(), found.spans.end(), [](const ReadSpan& a, const ReadSpan& b) {
    return std::tie(a.start, b.end) < std::tie(b.start, a.end);  // what encloses comes first
  });
  std::stable_sort(found.logs.begin(), found.logs.end(),
                   [](const ReadLog& a, const ReadLog& b) { return a.time < b.time; });
  return found;
}

}  // namespace waymark::detail
