#include "cli/waterfall.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "cli/display_text.h"

namespace waymark::cli {
namespace {

using std::chrono::nanoseconds;

// Siblings of one name beyond this many are folded, and then only the slowest few are shown.
constexpr std::size_t kFoldAbove = 12;
constexpr std::size_t kShownOfFolded = 2;
constexpr std::size_t kLogsShown = 5;     // of an interrupted span: its last ones
constexpr std::size_t kFramesShown = 4;   // of a crash: the innermost ones
constexpr int kFrameCut = 160;            // names of templates are long
constexpr int kDeepest = 40;              // levels that are still indented further
constexpr int kNarrowest = 40;

constexpr std::string_view kErrorMark = "✗";
constexpr std::string_view kInterruptedMark = "↯";
constexpr std::string_view kLeaseLostMark = "⊘";
constexpr std::string_view kLogMark = "≡";

constexpr std::string_view kRed = "\x1b[31m";
constexpr std::string_view kMagenta = "\x1b[35m";
constexpr std::string_view kCyan = "\x1b[36m";
constexpr std::string_view kBold = "\x1b[1m";
constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kPlain = "";

// What the runner writes on its spans (docs/telemetry.md); a trace of any other program simply has none of it.
constexpr std::string_view kJobId = "workflow.job.id";
constexpr std::string_view kJobName = "workflow.job.name";
constexpr std::string_view kAttempt = "workflow.attempt";
constexpr std::string_view kInterrupted = "workflow.interrupted";
constexpr std::string_view kLeaseLost = "workflow.lease_lost";
constexpr std::string_view kTaskId = "task_id";

bool is_true(const AnyMap& attributes, std::string_view key) {
  const AnyValue* value = find(attributes, key);
  const bool* flag = value ? std::get_if<bool>(&value->value) : nullptr;
  return flag && *flag;
}

std::int64_t integer(const AnyMap& attributes, std::string_view key) {
  const AnyValue* value = find(attributes, key);
  const std::int64_t* number = value ? std::get_if<std::int64_t>(&value->value) : nullptr;
  return number ? *number : 0;
}

std::string with_noun(std::size_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

std::string formatted(const char* format, auto... values) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

std::string key_values(const AnyMap& attributes) {
  std::string text;
  for (const auto& [key, value] : attributes) {
    if (!text.empty()) text += ' ';
    const double* number = std::get_if<double>(&value.value);
    text += printable(key) + "=" + (number ? formatted("%.6g", *number) : cut(printable(to_text(value)), 60));
  }
  return text;
}

struct Node {
  const ReadSpan* span = nullptr;
  Node* parent = nullptr;
  std::vector<Node*> children;  // by start
  std::vector<const ReadLog*> logs;
  bool error = false;
  bool interrupted = false;
  bool lease_lost = false;
  bool shows_attempt = false;
  bool notable = false;  // it or something below it must not be folded away

  [[nodiscard]] bool encloses() const {  // stands for a time in which others worked
    return span->name.starts_with("job/") || span->name.starts_with("subtasks/");
  }
  [[nodiscard]] nanoseconds duration() const { return std::max(nanoseconds(0), span->end - span->start); }
};

// One trace as a forest. Every span is in `order` exactly once, parents before children.
struct Trace {
  TraceId id;
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<Node*> roots;
  std::vector<Node*> orphans;  // their parent is not here
  std::size_t log_records = 0;
  Timestamp start;
  Timestamp end;

  [[nodiscard]] nanoseconds elapsed() const { return std::max(nanoseconds(1), end - start); }
};

bool starts_before(const Node* a, const Node* b) {
  return std::tie(a->span->start, a->span->name, a->span->context.span_id) <
         std::tie(b->span->start, b->span->name, b->span->context.span_id);
}

// Appends `top` and all that is below it, each once, to `order`.
void walk(Node* top, std::set<const Node*>& seen, std::vector<Node*>& order) {
  std::vector<Node*> waiting{top};
  while (!waiting.empty()) {
    Node* node = waiting.back();
    waiting.pop_back();
    if (!seen.insert(node).second) continue;
    order.push_back(node);
    waiting.insert(waiting.end(), node->children.begin(), node->children.end());
  }
}

void mark(Trace& trace) {
  std::map<std::string, std::int64_t, std::less<>> highest_attempt;  // by task id
  for (const auto& node : trace.nodes) {
    const AnyMap& attributes = node->span->attributes;
    node->interrupted = is_true(attributes, kInterrupted);
    node->lease_lost = is_true(attributes, kLeaseLost);
    node->error = node->span->status == StatusCode::error;
    if (const auto task = find_string(attributes, kTaskId); !task.empty()) {
      auto& highest = highest_attempt[std::string(task)];
      highest = std::max(highest, integer(attributes, kAttempt));
    }
  }
  for (const auto& node : trace.nodes) {
    const auto found = highest_attempt.find(find_string(node->span->attributes, kTaskId));
    const std::int64_t highest = found == highest_attempt.end() ? 0 : found->second;
    const std::int64_t attempt = integer(node->span->attributes, kAttempt);
    node->shows_attempt = attempt > 1 || (attempt == 1 && highest > 1);
    node->notable = node->error || node->interrupted || node->lease_lost || node->shows_attempt;
  }
}

Trace build(const TraceId& id, const std::vector<const ReadSpan*>& spans, const std::vector<const ReadLog*>& logs) {
  Trace trace;
  trace.id = id;
  trace.log_records = logs.size();
  std::map<SpanId, Node*> by_id;
  for (const ReadSpan* span : spans) {
    auto& node = trace.nodes.emplace_back(std::make_unique<Node>());
    node->span = span;
    by_id[span->context.span_id] = node.get();
  }
  for (const ReadLog* log : logs) {
    if (const auto node = by_id.find(log->span_id); node != by_id.end()) node->second->logs.push_back(log);
  }
  trace.start = spans.front()->start;
  trace.end = spans.front()->end;
  for (const auto& node : trace.nodes) {
    trace.start = std::min(trace.start, node->span->start);
    trace.end = std::max({trace.end, node->span->start, node->span->end});
    if (!node->span->parent.valid()) {
      trace.roots.push_back(node.get());
    } else if (const auto parent = by_id.find(node->span->parent); parent == by_id.end()) {
      trace.orphans.push_back(node.get());
    } else {
      node->parent = parent->second;
      parent->second->children.push_back(node.get());
    }
    std::ranges::stable_sort(node->logs, {}, [](const ReadLog* log) { return log->time; });
  }

  std::set<const Node*> seen;
  std::vector<Node*> order;
  for (Node* root : trace.roots) walk(root, seen, order);
  for (Node* orphan : trace.orphans) walk(orphan, seen, order);
  for (const auto& node : trace.nodes) {
    if (seen.contains(node.get())) continue;
    // Parents in a circle: it is opened here, and what hangs on it stands with the orphans.
    std::erase(node->parent->children, node.get());
    node->parent = nullptr;
    trace.orphans.push_back(node.get());
    walk(node.get(), seen, order);
  }

  mark(trace);
  for (auto node = order.rbegin(); node != order.rend(); ++node) {
    std::ranges::sort((*node)->children, starts_before);
    if ((*node)->notable && (*node)->parent) (*node)->parent->notable = true;
  }
  std::ranges::sort(trace.roots, starts_before);
  std::ranges::sort(trace.orphans, starts_before);
  return trace;
}

// Traces in the order in which they began. What was delivered twice counts once; where one copy is of an interrupted
// span and the other of a finished one, the finished one is the truth.
std::vector<Trace> traces_of(const ReadTelemetry& telemetry) {
  std::map<TraceId, std::map<SpanId, const ReadSpan*>> spans;
  for (const ReadSpan& span : telemetry.spans) {
    const ReadSpan*& kept = spans[span.context.trace_id][span.context.span_id];
    if (!kept || is_true(kept->attributes, kInterrupted)) kept = &span;
  }
  std::map<TraceId, std::vector<const ReadLog*>> logs;
  std::set<std::tuple<TraceId, SpanId, Timestamp, Timestamp, std::string>> seen;
  for (const ReadLog& log : telemetry.logs) {
    if (seen.emplace(log.trace_id, log.span_id, log.time, log.observed, to_text(log.body)).second) {
      logs[log.trace_id].push_back(&log);
    }
  }
  std::vector<Trace> traces;
  for (const auto& [id, by_span] : spans) {
    std::vector<const ReadSpan*> list;
    for (const auto& [span_id, span] : by_span) list.push_back(span);
    traces.push_back(build(id, list, logs[id]));
  }
  std::ranges::stable_sort(traces, {}, &Trace::start);
  return traces;
}

bool belongs_to_job(const Trace& trace, std::string_view job) {
  return std::ranges::any_of(trace.nodes, [&](const auto& node) {
    // The submitter's span names the job too, from a trace of its own.
    return node->span->kind != SpanKind::producer && find_string(node->span->attributes, kJobId).starts_with(job);
  });
}

// One line of the picture, before columns are laid out.
struct Row {
  std::string tree;              // box drawing
  std::string name;              // may be cut
  std::string suffix;            // may not
  std::string_view mark;
  std::string_view color;
  const Node* node = nullptr;
  std::vector<const Node*> folded;
  std::string detail_tree;       // stands before each detail line
  std::vector<std::string> details;
};

// What an interrupted span had recorded, beside what every task's span says about its task.
AnyMap own_attributes(const AnyMap& attributes) {
  AnyMap own;
  for (const auto& attribute : attributes) {
    const std::string_view key = attribute.first;
    const bool about_task = key.starts_with("workflow.") || key.starts_with("identifier.") || key == kTaskId;
    if (!about_task) own.push_back(attribute);
  }
  return own;
}

std::string exception_text(const ReadEvent& exception) {
  const std::string type = printable(find_string(exception.attributes, "exception.type"));
  const std::string message = printable(find_string(exception.attributes, "exception.message"));
  if (type.empty() || message.empty() || message.starts_with(type + ":")) return message.empty() ? type : message;
  return type + ": " + message;
}

// Where it happened, and who called that.
std::vector<std::string> innermost_frames(const ReadEvent& exception) {
  std::vector<std::string> frames;
  std::string_view stack = find_string(exception.attributes, "exception.stacktrace");
  while (!stack.empty() && frames.size() < kFramesShown) {
    const std::string_view line = stack.substr(0, stack.find('\n'));
    stack.remove_prefix(std::min(stack.size(), line.size() + 1));
    frames.push_back("  " + cut(printable(line), kFrameCut));
  }
  const auto more = static_cast<std::size_t>(std::ranges::count(stack, '\n')) + (stack.empty() ? 0 : 1);
  if (more > 0) frames.push_back("  (" + with_noun(more, "more frame") + ")");
  return frames;
}

std::vector<std::string> details(const Node& node) {
  std::vector<std::string> lines;
  const ReadSpan& span = *node.span;
  const auto offset = [&](Timestamp time) { return "+" + human_duration(std::max(nanoseconds(0), time - span.start)); };
  if (node.error) {
    const auto exception = std::ranges::find(span.events, "exception", &ReadEvent::name);
    if (exception != span.events.end() && !node.interrupted) {
      lines.push_back(exception_text(*exception));
    } else if (!span.status_message.empty() && std::ranges::none_of(node.children, &Node::interrupted)) {
      // Of spans that died together the innermost says why.
      lines.push_back(printable(span.status_message));
    }
  }
  if (!node.interrupted) return lines;
  if (const AnyMap own = own_attributes(span.attributes); !own.empty()) lines.push_back(key_values(own));
  for (const ReadEvent& event : span.events) {
    if (event.name == "exception") {
      lines.push_back(offset(event.time) + " " + exception_text(event));
      std::ranges::move(innermost_frames(event), std::back_inserter(lines));
      continue;
    }
    lines.push_back(offset(event.time) + " event " + printable(event.name) + "  " + key_values(event.attributes));
  }
  const std::size_t first = node.logs.size() > kLogsShown ? node.logs.size() - kLogsShown : 0;
  if (first > 0) lines.push_back("(" + with_noun(first, "earlier log record") + ")");
  for (std::size_t i = first; i < node.logs.size(); ++i) {
    const ReadLog& log = *node.logs[i];
    lines.push_back(offset(log.time) + " " + printable(log.severity_text.empty() ? "log" : log.severity_text) + " " +
                    printable(to_text(log.body)) + "  " + key_values(own_attributes(log.attributes)));
  }
  return lines;
}

Row row_of(const Node& node, const std::string& tree, const std::string& below) {
  Row row;
  row.tree = tree;
  row.name = printable(node.span->name);
  if (node.shows_attempt) row.suffix = " attempt " + std::to_string(integer(node.span->attributes, kAttempt));
  row.node = &node;
  if (node.interrupted) {
    row.mark = kInterruptedMark, row.color = kMagenta;
  } else if (node.lease_lost) {
    row.mark = kLeaseLostMark, row.color = kRed;
  } else if (node.error) {
    row.mark = kErrorMark, row.color = kRed;
  }
  row.details = details(node);
  row.detail_tree = below + (node.children.empty() ? "  " : "│ ");
  return row;
}

// A child to draw, or the rest of a folded group.
struct Item {
  const Node* node = nullptr;
  std::vector<const Node*> folded;
};

// Keeps what matters: everything notable, and the slowest of each name where there are many.
std::vector<Item> fold(const std::vector<Node*>& children, bool all) {
  std::map<std::string_view, std::vector<const Node*>> plain;
  if (!all) {
    for (const Node* child : children) {
      if (!child->notable) plain[child->span->name].push_back(child);
    }
  }
  std::set<const Node*> hidden;
  std::map<std::string_view, const Node*> last_shown;  // the fold line of a name stands below it
  for (auto& [name, group] : plain) {
    if (group.size() <= kFoldAbove) continue;
    auto slowest = group;
    std::ranges::stable_sort(slowest, std::greater<>(), &Node::duration);
    hidden.insert(slowest.begin() + kShownOfFolded, slowest.end());
    std::erase_if(group, [&](const Node* node) { return !hidden.contains(node); });
  }
  for (const Node* child : children) {
    if (!hidden.contains(child)) last_shown[child->span->name] = child;
  }
  std::vector<Item> items;
  for (const Node* child : children) {
    if (hidden.contains(child)) continue;
    items.push_back({child, {}});
    const auto group = plain.find(child->span->name);
    const bool folds = group != plain.end() && hidden.contains(group->second.front());
    if (folds && last_shown[child->span->name] == child) items.push_back({nullptr, group->second});
  }
  return items;
}

std::vector<Row> rows_of(const Trace& trace, bool all) {
  struct Waiting {
    Item item;
    std::string tree;   // of the row itself
    std::string below;  // of the rows below it
    int depth = 0;
  };
  std::vector<Row> rows;
  std::vector<Waiting> stack;
  const auto push = [&](const std::vector<Node*>& children, const std::string& tree, const std::string& below, int depth) {
    const auto items = fold(children, all);
    const bool indent = depth < kDeepest;
    for (auto item = items.rbegin(); item != items.rend(); ++item) {
      const bool last = item == items.rbegin();
      stack.push_back({*item, indent ? below + (last ? "└─" : "├─") : tree, indent ? below + (last ? "  " : "│ ") : below,
                       depth + 1});
    }
  };
  const auto draw = [&] {
    while (!stack.empty()) {
      const Waiting next = std::move(stack.back());
      stack.pop_back();
      if (next.item.node) {
        rows.push_back(row_of(*next.item.node, next.tree, next.below));
        push(next.item.node->children, next.tree, next.below, next.depth);
        continue;
      }
      nanoseconds sum(0);
      for (const Node* node : next.item.folded) sum += node->duration();
      Row row;
      row.tree = next.tree;
      row.name = "… " + std::to_string(next.item.folded.size()) + " more " + printable(next.item.folded.front()->span->name);
      row.suffix = ", " + human_duration(sum) + " in all";
      row.color = kDim;
      row.folded = next.item.folded;
      rows.push_back(std::move(row));
    }
  };
  for (const Node* root : trace.roots) {
    stack.push_back({{root, {}}, "", "", 0});
    draw();
  }
  if (!trace.orphans.empty()) {
    Row unknown;
    unknown.name = "?";
    rows.push_back(std::move(unknown));
    push(trace.orphans, "", "", 0);
    draw();
  }
  return rows;
}

// A time axis of `cells` character cells.
class Axis {
 public:
  Axis(const Trace& trace, int cells) : start_(trace.start), elapsed_(trace.elapsed()), cells_(cells) {}

  // Solid, in eighths of a cell at its end and coarser at its start (Unicode has no more right-aligned blocks).
  [[nodiscard]] std::string bar(const ReadSpan& span) const {
    static constexpr std::array<std::string_view, 9> kLeft = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
    const auto [first, last] = range(span, 8);
    std::string text;
    for (int cell = 0; cell < cells_; ++cell) {
      const int from = std::clamp(first - cell * 8, 0, 8);
      const int to = std::clamp(last - cell * 8, 0, 8);
      if (from >= to) {
        text += ' ';
      } else if (from == 0) {
        text += kLeft[static_cast<std::size_t>(to)];
      } else if (to == 8) {
        text += from == 1 ? "█" : from < 6 ? "▐" : "▕";
      } else {
        text += from + to < 6 ? "▎" : from + to > 10 ? "▕" : "│";
      }
    }
    return text;
  }

  // A thin line in half cells: a time in which others worked.
  [[nodiscard]] std::string line(const ReadSpan& span) const {
    const auto [first, last] = range(span, 2);
    std::string text;
    for (int cell = 0; cell < cells_; ++cell) {
      const int from = std::clamp(first - cell * 2, 0, 2);
      const int to = std::clamp(last - cell * 2, 0, 2);
      text += from >= to ? " " : to - from == 2 ? "─" : from == 0 ? "╴" : "╶";
    }
    return text;
  }

  // Where any of them was at work.
  [[nodiscard]] std::string shade(const std::vector<const Node*>& nodes) const {
    std::vector<bool> busy(static_cast<std::size_t>(cells_));
    for (const Node* node : nodes) {
      const auto [first, last] = range(*node->span, 8);
      for (int cell = first / 8; cell <= (last - 1) / 8; ++cell) busy[static_cast<std::size_t>(cell)] = true;
    }
    std::string text;
    for (const bool cell : busy) text += cell ? "░" : " ";
    return text;
  }

 private:
  // From and to, in `parts` of a cell; never empty, never off the axis.
  [[nodiscard]] std::pair<int, int> range(const ReadSpan& span, int parts) const {
    const auto at = [&](Timestamp time) {
      const double share = static_cast<double>((time - start_).count()) / static_cast<double>(elapsed_.count());
      return static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * cells_ * parts));
    };
    const int first = std::min(at(span.start), cells_ * parts - 1);
    return {first, std::max(at(span.end), first + 1)};
  }

  Timestamp start_;
  nanoseconds elapsed_;
  int cells_;
};

class Picture {
 public:
  explicit Picture(const WaterfallOptions& options)
      : width_(std::max(kNarrowest, options.width)), color_(options.color), all_(options.all) {}

  void draw(const Trace& trace) {
    if (!text_.empty()) text_ += '\n';
    const auto rows = rows_of(trace, all_);
    header(trace);
    lay_out(rows);
    const Axis axis(trace, bar_width_);
    line({{pad_right("", name_width_ + mark_width_ + log_width_) + pad_left("duration", kDurationWidth) +
               (start_width_ > 0 ? pad_left("start", start_width_) : ""),
           kDim},
          {"  " + scale(trace), kDim}});
    for (const Row& row : rows) draw(row, trace, axis);
  }

  // The legend of the marks that occurred.
  [[nodiscard]] std::string finish() {
    std::vector<std::string> notes;
    if (seen_.contains(kErrorMark)) notes.push_back(std::string(kErrorMark) + " error");
    if (seen_.contains(kInterruptedMark)) {
      notes.push_back(std::string(kInterruptedMark) + " interrupted: its process died; below it, what it had recorded");
    }
    if (seen_.contains(kLeaseLostMark)) {
      notes.push_back(std::string(kLeaseLostMark) + " lease lost: another runner took the task over");
    }
    if (seen_.contains(kLogMark)) notes.push_back(std::string(kLogMark) + " log records");
    if (seen_.contains("?")) notes.push_back("? their parent span is not here (yet)");
    if (seen_.contains("░")) notes.push_back("░ folded (--all shows them)");
    if (!notes.empty()) text_ += '\n';
    list(notes, "   ", kDim);
    return std::move(text_);
  }

 private:
  static constexpr int kDurationWidth = 9;

  struct Piece {
    std::string text;
    std::string_view color;
  };

  // Writes pieces as one line, without spaces at its end.
  void line(std::vector<Piece> pieces) {
    while (!pieces.empty()) {
      std::string& last = pieces.back().text;
      last.erase(last.find_last_not_of(' ') + 1);
      if (!last.empty()) break;
      pieces.pop_back();
    }
    for (const auto& [text, color] : pieces) {
      if (color_ && !color.empty() && !text.empty()) {
        text_.append(color).append(text).append("\x1b[0m");
      } else {
        text_ += text;
      }
    }
    text_ += '\n';
  }

  void header(const Trace& trace) {
    const Node* job = nullptr;
    for (const Node* root : trace.roots) {
      if (!job || (root->span->name.starts_with("job/") && !job->span->name.starts_with("job/"))) job = root;
    }
    nanoseconds compute(0);
    std::size_t errors = 0;
    std::size_t interrupted = 0;
    for (const auto& node : trace.nodes) {
      const bool task = node->span->name.starts_with("task/");
      if (task) compute += node->duration();
      if (node->interrupted) {
        ++interrupted;
      } else if (node->error) {
        ++errors;
      }
    }
    // The job's name: its own span's, else what any other says of it while that one is still to come.
    std::string title;
    if (job) title = printable(find_string(job->span->attributes, kJobName));
    for (auto node = trace.nodes.begin(); title.empty() && node != trace.nodes.end(); ++node) {
      title = printable(find_string((*node)->span->attributes, kJobName));
    }
    if (title.empty() && job) title = printable(job->span->name);
    const std::string id = "trace " + trace.id.hex();
    line({{id + "  ", kDim}, {cut(title, width_ - columns(id) - 2), kBold}});

    std::vector<std::string> facts{human_duration(trace.elapsed()) + " elapsed"};
    if (compute.count() > 0) {
      const double at_a_time = static_cast<double>(compute.count()) / static_cast<double>(trace.elapsed().count());
      facts.push_back(human_duration(compute) + formatted(" of compute (%.1f at a time)", at_a_time));
    }
    facts.push_back(with_noun(trace.nodes.size(), "span"));
    facts.push_back(with_noun(trace.log_records, "log record"));
    if (errors > 0) facts.push_back(with_noun(errors, "error"));
    if (interrupted > 0) facts.push_back(std::to_string(interrupted) + " interrupted");
    list(facts, ", ", kPlain);
    text_ += '\n';
  }

  // Items one after the other, on as many lines as they need.
  void list(const std::vector<std::string>& items, std::string_view separator, std::string_view color) {
    const int tail = separator.starts_with(' ') ? 0 : 1;  // of a separator that ends a line
    std::string text;
    for (const std::string& item : items) {
      if (!text.empty() && columns(text) + columns(separator) + columns(item) + tail > width_) {
        line({{text + std::string(separator), color}});
        text.clear();
      }
      if (!text.empty()) text += separator;
      text += cut(item, width_);
    }
    if (!text.empty()) line({{text, color}});
  }

  void lay_out(const std::vector<Row>& rows) {
    bool marks = false;
    std::size_t most_logs = 0;
    for (const Row& row : rows) {
      marks = marks || !row.mark.empty();
      if (row.node) most_logs = std::max(most_logs, row.node->logs.size());
    }
    mark_width_ = marks ? 2 : 0;
    log_width_ = most_logs > 0 ? 2 + static_cast<int>(std::to_string(most_logs).size()) : 0;
    start_width_ = width_ < 60 ? 0 : 10;
    const int figures = mark_width_ + log_width_ + kDurationWidth + start_width_;
    int longest = 0;
    for (const Row& row : rows) {
      const int text = columns(row.tree) + columns(row.name) + columns(row.suffix);
      longest = std::max(longest, row.folded.empty() ? text : text - figures);
    }
    name_width_ = std::min(longest, width_ * 45 / 100);
    bar_width_ = width_ - name_width_ - figures - 2;
  }

  [[nodiscard]] std::string scale(const Trace& trace) const {
    const std::string total = human_duration(trace.elapsed());
    return columns(total) + 2 > bar_width_ ? "0" : "0" + pad_left(total, bar_width_ - 1);
  }

  void draw(const Row& row, const Trace& trace, const Axis& axis) {
    if (!row.mark.empty()) seen_.insert(row.mark);
    if (!row.node && row.folded.empty()) seen_.insert("?");
    if (!row.folded.empty()) {
      seen_.insert("░");
      // Its own text may stand where others have their figures.
      const int room = width_ - bar_width_ - 2;
      const std::string tree = fit_tree(row.tree);
      const std::string name = cut(row.name, room - columns(tree) - columns(row.suffix));
      line({{tree, kDim}, {pad_right(name + row.suffix, room - columns(tree)), row.color}, {"  ", kPlain},
            {axis.shade(row.folded), kDim}});
      return;
    }
    const std::string tree = fit_tree(row.tree);
    const std::string name = cut(row.name, name_width_ - columns(tree) - columns(row.suffix)) + row.suffix;
    std::vector<Piece> pieces{{tree, kDim}, {pad_right(name, name_width_ - columns(tree)), row.color}};
    if (row.node) {
      const Node& node = *row.node;
      if (mark_width_ > 0) pieces.push_back({pad_left(row.mark, mark_width_), row.color});
      if (log_width_ > 0) {
        const std::string count = node.logs.empty() ? "" : std::string(kLogMark) + std::to_string(node.logs.size());
        if (!count.empty()) seen_.insert(kLogMark);
        pieces.push_back({pad_left(count, log_width_), kDim});
      }
      pieces.push_back({pad_left(human_duration(node.duration()), kDurationWidth), kPlain});
      if (start_width_ > 0) {
        pieces.push_back({pad_left("+" + human_duration(node.span->start - trace.start), start_width_), kDim});
      }
      pieces.push_back({"  ", kPlain});
      if (node.encloses()) {
        pieces.push_back({axis.line(*node.span), row.color.empty() ? kDim : row.color});
      } else {
        pieces.push_back({axis.bar(*node.span), row.color.empty() ? kCyan : row.color});
      }
    }
    line(std::move(pieces));
    const std::string detail_tree = fit_tree(row.detail_tree);
    for (const std::string& detail : row.details) {
      for (const std::string& part : wrap(detail, width_ - columns(detail_tree))) {
        line({{detail_tree, kDim}, {part, row.color}});
      }
    }
  }

  // Where a tree is deeper than the name column can show, its left part goes.
  [[nodiscard]] std::string fit_tree(const std::string& tree) const {
    const int most = std::max(4, name_width_ / 2);
    const int width = columns(tree);
    if (width <= most) return tree;
    std::string_view rest = tree;
    for (int left = width - most + 1; left > 0; --left) {
      std::size_t bytes = 1;
      while (bytes < rest.size() && (static_cast<unsigned char>(rest[bytes]) & 0xC0) == 0x80) ++bytes;
      rest.remove_prefix(bytes);
    }
    return "⋯" + std::string(rest);
  }

  // Breaks at spaces into at most four lines; a word longer than a line, and what comes after, is cut.
  [[nodiscard]] static std::vector<std::string> wrap(std::string_view text, int width) {
    constexpr std::size_t kLines = 4;
    std::vector<std::string> lines;
    while (columns(text) > width && lines.size() + 1 < kLines) {
      std::size_t end = std::string_view::npos;
      for (std::size_t space = text.find(' '); space != std::string_view::npos; space = text.find(' ', space + 1)) {
        if (columns(text.substr(0, space)) > width) break;
        end = space;
      }
      if (end == std::string_view::npos || end == 0) break;
      lines.emplace_back(text.substr(0, end));
      text.remove_prefix(end + 1);
    }
    lines.push_back(cut(text, width));
    return lines;
  }

  int width_;
  bool color_;
  bool all_;
  int name_width_ = 0;
  int mark_width_ = 0;
  int log_width_ = 0;
  int start_width_ = 0;
  int bar_width_ = 0;
  std::set<std::string_view> seen_;  // marks that need explaining
  std::string text_;
};

}  // namespace

std::string human_duration(nanoseconds duration) {
  const double count = static_cast<double>(duration.count());
  if (count < 1) return "0 s";
  if (count < 999.5) return formatted("%.0f ns", count);
  struct Unit {
    double size;
    const char* name;
  };
  for (const auto& [size, name] : {Unit{1e3, "µs"}, Unit{1e6, "ms"}, Unit{1e9, "s"}}) {
    const double value = count / size;
    const double most = size < 1e9 ? 999.5 : 59.95;
    if (value >= most) continue;
    return formatted(value < 9.995 ? "%.2f %s" : value < 99.95 ? "%.1f %s" : "%.0f %s", value, name);
  }
  const auto seconds = static_cast<long long>(std::llround(count / 1e9));
  if (seconds < 3600) return formatted("%lldm%02llds", seconds / 60, seconds % 60);
  const long long minutes = std::llround(static_cast<double>(seconds) / 60);
  return formatted("%lldh%02lldm", minutes / 60, minutes % 60);
}

std::string draw_waterfall(const ReadTelemetry& telemetry, const WaterfallOptions& options) {
  Picture picture(options);
  bool drawn = false;
  for (const Trace& trace : traces_of(telemetry)) {
    if (!options.job.empty() && !belongs_to_job(trace, options.job)) continue;
    picture.draw(trace);
    drawn = true;
  }
  return drawn ? picture.finish() : std::string();
}

}  // namespace waymark::cli
