#include "cli/state.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/display_text.h"
#include "cli/table.h"
#include "cli/waterfall.h"

namespace waymark::cli {
namespace {

using Condition = StateProcess::Condition;

std::string words(Condition condition) {
  switch (condition) {
    case Condition::alive: return "alive";
    case Condition::recovering: return "gone, being delivered by another process";
    case Condition::dead: return "gone";
    case Condition::delivered: return "gone, all delivered";
    case Condition::set_aside: return "set aside: it could not be recovered";
  }
  return "unknown";
}

std::string_view json_word(Condition condition) {
  static constexpr std::array<std::string_view, 5> names{"alive", "recovering", "dead", "delivered", "set_aside"};
  return names[static_cast<std::size_t>(condition)];
}

std::string age(Timestamp then, Timestamp now) { return human_duration(std::max(now - then, Timestamp::duration::zero())); }

std::string count(std::uint64_t number, std::string_view noun) {
  return std::to_string(number) + " " + std::string(noun) + (number == 1 ? "" : noun == "process" ? "es" : "s");
}

std::string who(const StateProcess& process) {
  std::string text = process.process_id == 0 ? "somebody" : "process " + std::to_string(process.process_id);
  if (!process.service.empty()) text += " (" + printable(process.service) + ")";
  return text;
}

struct Totals {
  Counts counts;
  std::uint64_t pending_bytes = 0;
  std::uint64_t journal_bytes = 0;
  std::uint64_t recorder_bytes = 0;
  std::size_t alive = 0;
};

Totals sum(const StateStatus& status) {
  Totals all;
  for (const StateProcess& process : status.processes) {
    all.journal_bytes += process.journal_bytes;
    all.recorder_bytes += process.recorder_bytes;
    all.alive += process.condition == Condition::alive;
    for (const StateDestination& d : process.destinations) {
      all.counts.offered += d.counts.offered;
      all.counts.delivered += d.counts.delivered;
      all.counts.rejected += d.counts.rejected;
      all.counts.dropped += d.counts.dropped;
      all.counts.filtered += d.counts.filtered;
      all.counts.pending += d.counts.pending;
      all.pending_bytes += d.pending_bytes;
    }
  }
  return all;
}

nlohmann::ordered_json counts_json(const Counts& c) {
  return {{"offered", c.offered}, {"delivered", c.delivered}, {"rejected", c.rejected},
          {"dropped", c.dropped}, {"filtered", c.filtered}, {"pending", c.pending}};
}

std::int64_t nanoseconds(Timestamp time) { return time.time_since_epoch().count(); }

}  // namespace

std::string human_bytes(std::uint64_t bytes) {
  static constexpr std::array<const char*, 4> units{"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
  return text.data();
}

std::string show_status(const StateStatus& status, Timestamp now, bool color) {
  const auto painted = [&](const char* code, const std::string& text) { return color ? paint(code, text) : text; };
  std::string text;
  for (const StateProcess& process : status.processes) {
    const char* code = process.condition == Condition::alive ? "32" : process.condition == Condition::set_aside ? "31" : "2";
    text += painted("1", who(process)) + ": " + painted(code, words(process.condition));
    if (process.started != Timestamp{}) text += ", started " + age(process.started, now) + " ago";
    text += ", journal " + human_bytes(process.journal_bytes);
    if (process.recorder_bytes > 0) text += ", recorder " + human_bytes(process.recorder_bytes);
    text += "\n";
    if (process.unread) text += "  what it recorded last is still to be recovered, and not in the counts\n";
    if (!process.problem.empty()) text += "  " + painted("31", printable(process.problem)) + "\n";
    std::vector<std::vector<Cell>> rows;
    for (const StateDestination& d : process.destinations) {
      const Counts& c = d.counts;
      rows.push_back({{printable(d.name)}, {std::string(signal_name(d.signal))},
                      {c.pending == 0 ? "0" : std::to_string(c.pending) + " (" + human_bytes(d.pending_bytes) + ")"},
                      {c.pending == 0 || d.oldest_pending == Timestamp{} ? "" : age(d.oldest_pending, now)},
                      {std::to_string(c.offered)}, {std::to_string(c.delivered)}, {std::to_string(c.rejected)},
                      {std::to_string(c.dropped)}, {std::to_string(c.filtered)}});
    }
    if (!rows.empty()) {
      text += draw_table({{"destination"}, {"signal"}, {"pending", true}, {"oldest", true}, {"offered", true},
                          {"delivered", true}, {"rejected", true}, {"dropped", true}, {"filtered", true}},
                         rows, color, 2);
    }
    for (const StateDestination& d : process.destinations) {
      if (d.last_error.empty()) continue;
      text += "  last error of " + printable(d.name) + " (" + std::string(signal_name(d.signal)) + "), " +
              age(d.last_error_time, now) + " ago: " + painted("33", printable(d.last_error)) + "\n";
    }
    text += "\n";
  }
  const Totals all = sum(status);
  if (status.processes.empty()) return "nobody has recorded into " + printable(status.directory) + "\n";
  text += count(status.processes.size(), "process") + ", " + std::to_string(all.alive) + " alive: " +
          count(all.counts.pending, "record") + " pending (" + human_bytes(all.pending_bytes) + "), " +
          std::to_string(all.counts.delivered) + " delivered, " + std::to_string(all.counts.rejected) + " rejected, " +
          std::to_string(all.counts.dropped) + " dropped; journals " + human_bytes(all.journal_bytes) + ", recorders " +
          human_bytes(all.recorder_bytes) + "\n";
  return text;
}

std::string status_json(const StateStatus& status, Timestamp now) {
  using Json = nlohmann::ordered_json;
  Json processes = Json::array();
  for (const StateProcess& process : status.processes) {
    Json destinations = Json::array();
    for (const StateDestination& d : process.destinations) {
      Json one{{"name", d.name}, {"signal", signal_name(d.signal)}, {"lossy", d.lossy}, {"counts", counts_json(d.counts)},
               {"pending_bytes", d.pending_bytes}};
      const bool dated = d.counts.pending > 0 && d.oldest_pending != Timestamp{};
      one["oldest_pending_ns"] = dated ? Json(nanoseconds(d.oldest_pending)) : Json();
      one["oldest_pending_age_ns"] = dated ? Json(std::max<std::int64_t>((now - d.oldest_pending).count(), 0)) : Json();
      one["last_error"] = d.last_error.empty() ? Json() : Json(d.last_error);
      one["last_error_ns"] = d.last_error.empty() ? Json() : Json(nanoseconds(d.last_error_time));
      destinations.push_back(std::move(one));
    }
    processes.push_back({{"directory", process.directory},
                         {"condition", json_word(process.condition)},
                         {"unread", process.unread},
                         {"process_id", process.process_id},
                         {"service", process.service},
                         {"started_ns", nanoseconds(process.started)},
                         {"journal_bytes", process.journal_bytes},
                         {"recorder_bytes", process.recorder_bytes},
                         {"problem", process.problem.empty() ? Json() : Json(process.problem)},
                         {"destinations", std::move(destinations)}});
  }
  const Totals all = sum(status);
  const Json whole{{"directory", status.directory},
                   {"processes", std::move(processes)},
                   {"totals", {{"processes", status.processes.size()},
                               {"alive", all.alive},
                               {"counts", counts_json(all.counts)},
                               {"pending_bytes", all.pending_bytes},
                               {"journal_bytes", all.journal_bytes},
                               {"recorder_bytes", all.recorder_bytes}}}};
  return whole.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string show_purged(const Purged& purged, bool only_look) {
  std::string text;
  std::uint64_t bytes = 0;
  for (const StateProcess& process : purged.removed) {
    std::uint64_t pending = 0;
    for (const StateDestination& d : process.destinations) pending += d.counts.pending;
    const std::uint64_t own = process.journal_bytes + process.recorder_bytes;
    bytes += own;
    text += (only_look ? "would remove " : "removed ") + process.directory + ": " + who(process) + ", " + human_bytes(own) +
            (pending > 0 ? ", " + count(pending, "record") + " never delivered" : "") +
            (process.unread ? ", and what it recorded last" : "") + "\n";
  }
  for (const auto& [process, why] : purged.kept) text += "kept " + process.directory + ": " + printable(why) + "\n";
  text += (only_look ? "would remove " : "removed ") + count(purged.removed.size(), "process") + ", " + human_bytes(bytes) + "\n";
  return text;
}

}  // namespace waymark::cli
