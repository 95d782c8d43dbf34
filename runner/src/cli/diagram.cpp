#include "cli/diagram.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>

#include "cli/display_text.h"
#include "cli/job_text.h"

namespace waymark::cli {
namespace {

struct Box {
  std::string label;
  std::size_t parent = SIZE_MAX;    // a box
  std::set<std::size_t> after = {}; // boxes
  std::map<TaskState, std::uint64_t> states = {};
  std::uint64_t tasks = 0;
  std::size_t column = 0;
};

// The worst that can be said of it.
TaskState state_of(const Box& box) {
  for (const TaskState state : {TaskState::failed, TaskState::running, TaskState::failed_optional, TaskState::canceled,
                                TaskState::ready, TaskState::scheduled, TaskState::waiting, TaskState::skipped,
                                TaskState::computed}) {
    if (box.states.contains(state)) return state;
  }
  return TaskState::completed;
}

std::string states_text(const Box& box) {
  if (box.states.size() == 1) return std::string(task_state_name(box.states.begin()->first));
  std::string text;
  for (const auto& [state, n] : box.states) {
    text += (text.empty() ? "" : ", ") + std::to_string(n) + " " + std::string(task_state_name(state));
  }
  return text;
}

// Tasks come before those that wait for them, and parents before their subtasks.
std::vector<Box> boxes(const std::vector<TaskInfo>& tasks, bool all) {
  std::vector<Box> boxes;
  std::unordered_map<std::string, std::size_t> box_of;                        // task
  std::unordered_map<std::string, std::set<std::size_t>> members;             // group
  std::map<std::tuple<std::size_t, std::string, std::set<std::size_t>>, std::size_t> alike;
  for (const TaskInfo& task : tasks) {
    Box box;
    if (const auto parent = box_of.find(task.parent); parent != box_of.end()) box.parent = parent->second;
    for (const std::string& group : task.after) box.after.insert(members[group].begin(), members[group].end());
    box.label = all ? task_label(task) : printable(task.name);
    std::size_t place = boxes.size();
    if (!all) place = alike.try_emplace({box.parent, box.label, box.after}, place).first->second;
    if (place == boxes.size()) {
      if (box.parent != SIZE_MAX) box.column = boxes[box.parent].column + 1;
      for (const std::size_t before : box.after) box.column = std::max(box.column, boxes[before].column + 1);
      boxes.push_back(std::move(box));
    }
    ++boxes[place].states[task.state];
    ++boxes[place].tasks;
    box_of.emplace(task.id, place);
    if (!task.group.empty()) members[task.group].insert(place);
  }
  return boxes;
}

std::string title(const Box& box) {
  return box.label + (box.tasks > 1 ? " ×" + std::to_string(box.tasks) : "");
}

// Neither Mermaid's quoted labels nor XML's text end early.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

struct Paint {
  TaskState state;
  const char* fill;
  const char* stroke;
};
constexpr std::array kPaints{
    Paint{TaskState::waiting, "#f6f8fa", "#8c959f"},   Paint{TaskState::ready, "#fff8c5", "#bf8700"},
    Paint{TaskState::running, "#ddf4ff", "#0969da"},   Paint{TaskState::computed, "#dafbe1", "#1a7f37"},
    Paint{TaskState::completed, "#dafbe1", "#1a7f37"}, Paint{TaskState::failed, "#ffebe9", "#cf222e"},
    Paint{TaskState::failed_optional, "#fff1e5", "#bc4c00"}, Paint{TaskState::skipped, "#eaeef2", "#8c959f"},
    Paint{TaskState::canceled, "#fbefff", "#8250df"},  Paint{TaskState::scheduled, "#fff8c5", "#bf8700"},
};

const Paint& paint_of(TaskState state) {
  return *std::ranges::find_if(kPaints, [&](const Paint& p) { return p.state == state; });
}

}  // namespace

std::string mermaid(const std::vector<TaskInfo>& tasks, bool all) {
  const std::vector<Box> drawn = boxes(tasks, all);
  std::string text = "flowchart LR\n";
  std::set<TaskState> used;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const TaskState state = state_of(drawn[i]);
    used.insert(state);
    text += "  t" + std::to_string(i) + "[\"" + escaped(title(drawn[i])) + "<br/>" + states_text(drawn[i]) + "\"]:::" +
            std::string(task_state_name(state)) + "\n";
  }
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    if (drawn[i].parent != SIZE_MAX) {
      text += "  t" + std::to_string(drawn[i].parent) + " -.-> t" + std::to_string(i) + "\n";
    }
    for (const std::size_t before : drawn[i].after) {
      text += "  t" + std::to_string(before) + " --> t" + std::to_string(i) + "\n";
    }
  }
  for (const TaskState state : used) {
    const Paint& p = paint_of(state);
    text += "  classDef " + std::string(task_state_name(state)) + " fill:" + p.fill + ",stroke:" + p.stroke +
            ",color:#1f2328\n";
  }
  return text;
}

std::string svg(const Job& job, const std::vector<TaskInfo>& tasks, bool all) {
  constexpr int kWide = 220, kHigh = 46, kGapX = 70, kGapY = 22, kMargin = 24, kHead = 46;
  constexpr int kCharacters = 30;  // that fit in a box
  const std::vector<Box> drawn = boxes(tasks, all);
  std::vector<int> x(drawn.size()), y(drawn.size());
  std::map<std::size_t, int> rows;  // of each column
  int high = 0, wide = 0;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    int& row = rows[drawn[i].column];
    x[i] = kMargin + static_cast<int>(drawn[i].column) * (kWide + kGapX);
    // Not above whoever submitted it, so that subtrees stay together.
    if (drawn[i].parent != SIZE_MAX) row = std::max(row, (y[drawn[i].parent] - kMargin - kHead) / (kHigh + kGapY));
    y[i] = kMargin + kHead + row * (kHigh + kGapY);
    ++row;
    wide = std::max(wide, x[i] + kWide + kMargin);
    high = std::max(high, y[i] + kHigh + kMargin);
  }
  wide = std::max(wide, 2 * kMargin + 400);
  high = std::max(high, 2 * kMargin + kHead);
  const auto n = [](int number) { return std::to_string(number); };
  std::string text = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + n(wide) + "\" height=\"" + n(high) +
                     "\" viewBox=\"0 0 " + n(wide) + " " + n(high) +
                     "\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n"
                     "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" "
                     "markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#57606a\"/></marker></defs>\n"
                     "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
  text += "<text x=\"" + n(kMargin) + "\" y=\"" + n(kMargin + 14) + "\" font-size=\"16\" fill=\"#1f2328\">" +
          escaped(printable(job.name)) + " <tspan fill=\"#57606a\" font-size=\"13\">" + escaped(job.id) + ", " +
          std::string(job_state_name(job.state)) + "</tspan></text>\n";
  const auto arrow = [&](std::size_t from, std::size_t to, bool dependency) {
    const int x1 = x[from] + kWide, y1 = y[from] + kHigh / 2, x2 = x[to], y2 = y[to] + kHigh / 2;
    const int bend = std::max(30, (x2 - x1) / 2);
    text += "<path d=\"M" + n(x1) + " " + n(y1) + "C" + n(x1 + bend) + " " + n(y1) + " " + n(x2 - bend) + " " + n(y2) + " " +
            n(x2) + " " + n(y2) + "\" fill=\"none\" stroke=\"#57606a\" " +
            (dependency ? "stroke-width=\"1.6\"" : "stroke-dasharray=\"4 4\"") + " marker-end=\"url(#arrow)\"/>\n";
  };
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    if (drawn[i].parent != SIZE_MAX) arrow(drawn[i].parent, i, false);
    for (const std::size_t before : drawn[i].after) arrow(before, i, true);
  }
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const Paint& p = paint_of(state_of(drawn[i]));
    const std::string words = states_text(drawn[i]);
    text += "<g><title>" + escaped(title(drawn[i])) + ": " + words + "</title><rect x=\"" + n(x[i]) + "\" y=\"" + n(y[i]) +
            "\" width=\"" + n(kWide) + "\" height=\"" + n(kHigh) + "\" rx=\"6\" fill=\"" + p.fill + "\" stroke=\"" +
            p.stroke + "\"/><text x=\"" + n(x[i] + 12) + "\" y=\"" + n(y[i] + 19) + "\" fill=\"#1f2328\">" +
            escaped(cut(title(drawn[i]), kCharacters)) + "</text><text x=\"" + n(x[i] + 12) + "\" y=\"" + n(y[i] + 36) +
            "\" font-size=\"11\" fill=\"" + p.stroke + "\">" + escaped(cut(words, kCharacters + 4)) + "</text></g>\n";
  }
  return text + "</svg>\n";
}

}  // namespace waymark::cli
