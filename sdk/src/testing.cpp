#include "waymark/testing.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

namespace waymark::testing {

struct MemoryDestination::Kept {
  std::mutex mutex;
  std::array<std::vector<std::string>, kSignals> requests;
};

MemoryDestination::MemoryDestination() : kept_(std::make_shared<Kept>()) {}

DestinationConfig MemoryDestination::destination(Signal signal, std::string name) const {
  DestinationConfig destination;
  destination.name = std::move(name);
  destination.signal = signal;
  destination.output = Output::callback;
  destination.deliver = [kept = kept_](Signal what, std::string_view request) {
    const std::lock_guard lock(kept->mutex);
    kept->requests[static_cast<std::size_t>(what)].emplace_back(request);
    return DeliveryResult{};
  };
  return destination;
}

std::vector<std::string> MemoryDestination::requests(Signal signal) const {
  const std::lock_guard lock(kept_->mutex);
  return kept_->requests[static_cast<std::size_t>(signal)];
}

std::vector<ReadSpan> MemoryDestination::spans() const {
  std::vector<ReadSpan> spans;
  for (const std::string& request : requests(Signal::traces)) {
    for (ReadSpan& span : read_request(Signal::traces, request).spans) spans.push_back(std::move(span));
  }
  return spans;
}

std::vector<ReadLog> MemoryDestination::logs() const {
  std::vector<ReadLog> logs;
  for (const std::string& request : requests(Signal::logs)) {
    for (ReadLog& log : read_request(Signal::logs, request).logs) logs.push_back(std::move(log));
  }
  return logs;
}

std::vector<ReadMetric> MemoryDestination::metrics() const {
  std::vector<ReadMetric> metrics;
  for (const std::string& request : requests(Signal::metrics)) {
    for (ReadMetric& metric : read_request(Signal::metrics, request).metrics) metrics.push_back(std::move(metric));
  }
  return metrics;
}

void MemoryDestination::clear() {
  const std::lock_guard lock(kept_->mutex);
  for (auto& requests : kept_->requests) requests.clear();
}

namespace {

using Ids = std::pair<TraceId, SpanId>;

// Spans as a forest. Ids are random, so nothing may be ordered by them: siblings stand by start, name, and what is below.
class Tree {
 public:
  explicit Tree(const std::vector<ReadSpan>& spans) {
    for (const ReadSpan& span : spans) by_id_.emplace(Ids(span.context.trace_id, span.context.span_id), &span);
    for (const auto& [ids, span] : by_id_) children_[Ids(ids.first, span->parent)].push_back(span);
  }

  std::string text() {
    std::vector<const ReadSpan*> roots;
    std::vector<const ReadSpan*> orphans;
    for (const auto& [ids, span] : by_id_) {
      if (!span->parent.valid()) {
        roots.push_back(span);
      } else if (!by_id_.contains({ids.first, span->parent})) {
        orphans.push_back(span);
      }
    }
    std::string text = subtrees(roots, "", 0) + subtrees(orphans, "? ", 0);
    // What is left are spans that are their own ancestors.
    while (drawn_.size() < by_id_.size()) {
      const ReadSpan* first = nullptr;
      for (const auto& [ids, span] : by_id_) {
        if (!drawn_.contains(span) && (!first || before(*span, *first))) first = span;
      }
      text += subtrees({first}, "? ", 0);
    }
    return text;
  }

 private:
  static bool before(const ReadSpan& a, const ReadSpan& b) { return std::tie(a.start, a.name) < std::tie(b.start, b.name); }

  std::string subtrees(std::vector<const ReadSpan*> spans, std::string_view mark, std::size_t depth) {
    std::vector<std::pair<const ReadSpan*, std::string>> drawn;
    for (const ReadSpan* span : spans) {
      if (drawn_.insert(span).second) drawn.emplace_back(span, subtree(*span, mark, depth));
    }
    std::ranges::sort(drawn, [](const auto& a, const auto& b) {
      return std::tie(a.first->start, a.first->name, a.second) < std::tie(b.first->start, b.first->name, b.second);
    });
    std::string text;
    for (const auto& [span, lines] : drawn) text += lines;
    return text;
  }

  std::string subtree(const ReadSpan& span, std::string_view mark, std::size_t depth) {
    std::string text(2 * depth, ' ');
    text.append(mark).append(span.name);
    if (span.status == StatusCode::error) text += " [error]";
    for (const ReadLink& link : span.links) {
      const auto linked = by_id_.find({link.context.trace_id, link.context.span_id});
      text.append(" -> ").append(linked == by_id_.end() ? "?" : linked->second->name);
    }
    text += '\n';
    const auto children = children_.find({span.context.trace_id, span.context.span_id});
    if (children != children_.end()) text += subtrees(children->second, "", depth + 1);
    return text;
  }

  std::map<Ids, const ReadSpan*> by_id_;
  std::map<Ids, std::vector<const ReadSpan*>> children_;
  std::set<const ReadSpan*> drawn_;
};

}  // namespace

std::string span_tree(const std::vector<ReadSpan>& spans) { return Tree(spans).text(); }

Config memory_config(const MemoryDestination& memory, std::string service) {
  Config config;
  config.resource = Resource(service);
  config.recover_siblings = false;
  config.destinations = {memory.destination(Signal::traces), memory.destination(Signal::logs)};
  return config;
}

ManualClock::ManualClock(Timestamp start)
    : nanoseconds_(std::make_shared<std::atomic<std::int64_t>>(start.time_since_epoch().count())) {}

void ManualClock::advance(std::chrono::nanoseconds by) { nanoseconds_->fetch_add(by.count()); }

Timestamp ManualClock::now() const { return Timestamp(std::chrono::nanoseconds(nanoseconds_->load())); }

std::function<Timestamp()> ManualClock::function() const {
  return [clock = *this] { return clock.now(); };
}

}  // namespace waymark::testing
