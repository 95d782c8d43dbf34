// waymark jobs: submit, list, show, wait, cancel, retry, logs, diagram.
#include <algorithm>
#include <condition_variable>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <ranges>
#include <set>
#include <sstream>
#include <utility>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/diagram.h"
#include "cli/display_text.h"
#include "cli/job_logs.h"
#include "cli/job_text.h"
#include "cli/screen.h"
#include "cli/task_tree.h"
#include "cli/waterfall.h"
#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/store.h"

namespace waymark::cli {
namespace {

using namespace std::chrono_literals;

constexpr const char* kJob = "JOB";
constexpr const char* kJobHelp = "Its id, or characters that only its id begins with";
constexpr const char* kEndCodes = "Exit codes: 0 it is completed; 3 it failed; 4 it was canceled; ";

int end_code(const Job& job) {
  if (!job.finished()) return kTimeUp;
  return job.state == JobState::failed ? kJobFailed : job.state == JobState::canceled ? kJobCanceled : kDone;
}

// ------ submit

struct Submit {
  std::string store, name, task, version = "v0.0", input = "{}", cluster = "default", key, timeout, delay, limit_key, display;
  std::uint32_t retries = 0;
  std::int32_t priority = 0;
  bool wait = false;
  Output output;
};

std::string read_input(const std::string& given) {
  std::string text = given;
  if (given == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else if (given.starts_with('@')) {
    std::ifstream file(given.substr(1));
    if (!file) throw WrongUse("--input: " + printable(given.substr(1)) + ": no such file, or it can't be read");
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  if (!Json::accept(text)) throw WrongUse("--input: expected JSON, @FILE or -");
  return text;
}

int submit(const Submit& a) {
  const TaskName task = detail::checked_name({.name = a.task, .version = a.version});
  std::string input = read_input(a.input);
  JobOptions options{.max_retries = a.retries, .priority = a.priority, .key = a.key, .limit_key = a.limit_key, .display = a.display};
  if (!a.timeout.empty()) options.timeout = parse_duration(a.timeout, "--timeout");
  if (!a.delay.empty()) options.delay = parse_duration(a.delay, "--delay");
  const auto client = open_client(a.store, true, a.cluster);
  Job job = client->jobs().submit(a.name.empty() ? task.name : a.name, task, std::move(input), options);
  if (a.wait) job = client->jobs().wait(job.id);
  const int code = print(a.output.json ? write_json(job_json(job))
                         : a.wait      ? job.id + " " + std::string(job_state_name(job.state)) + "\n"
                                       : job.id + "\n");
  return code != kDone || !a.wait ? code : end_code(job);
}

// Waits for changes of the store, from any process.
class Changes {
 public:
  explicit Changes(Store& store)
      : watch_(store.watch([this] {
          const std::scoped_lock lock(mutex_);
          changed_ = true;
          told_.notify_one();
        })) {}
  // At most so long, since what is followed may not be in the store.
  void wait(std::chrono::nanoseconds most) {
    std::unique_lock lock(mutex_);
    told_.wait_for(lock, most, [&] { return changed_; });
    changed_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable told_;
  bool changed_ = false;
  std::shared_ptr<void> watch_;
};

// ------ list

struct List {
  std::string store, name, cluster, since, cursor;
  std::vector<std::string> states;
  std::size_t limit = 50;
  bool all = false, follow = false;
  Output output;
};

std::string job_table(const JobPage& page, const List& a, Timestamp now) {
  std::vector<std::vector<Cell>> rows;
  for (const Job& job : page.jobs) {
    rows.push_back({{job.id},
                    state_cell(job.state),
                    {std::to_string(job.tasks_done) + "/" + std::to_string(job.tasks)},
                    {ago(job.submitted_at, now)},
                    {duration_text(job.started_at, job.finished_at, now)},
                    {printable(job.name)},
                    {error_text(job.error_type, job.error), "31"}});
  }
  return draw_table({{"job"}, {"state"}, {"tasks", true}, {"submitted", true}, {"time", true}, {"name"}, {"error"}}, rows,
                    a.output.color(), 0, is_terminal() ? terminal_width() : 0);
}

// Until somebody leaves it: the table in place on a terminal, else a line for each state that a job gets to.
int follow(Client& client, const List& a, const JobFilter& filter) {
  if (is_terminal() && !a.output.json) {
    Screen screen;
    do {
      screen.show(job_table(client.jobs().query(filter), a, wall_clock()));
    } while (screen.wait(500ms));
    return kDone;
  }
  Changes changes(client.store());
  std::map<std::string, std::string> seen;
  for (;; changes.wait(10s)) {
    const JobPage page = client.jobs().query(filter);
    std::string text;
    for (const Job& job : page.jobs | std::views::reverse) {
      const Cell state = state_cell(job.state);
      const std::string error = job.finished() ? error_text(job.error_type, job.error) : "";
      const std::string line = a.output.json ? write_json(job_json(job), true)
                                             : "job " + job.id + " " + printable(job.name) + ": " +
                                                   (a.output.color() ? paint(state.color, state.text) : state.text) +
                                                   (error.empty() ? "" : ", " + error) + "\n";
      if (std::exchange(seen[job.id], line) != line) text += line;
    }
    if (text.empty()) continue;
    if (const int code = print(text); code != kDone) return code;
  }
}

int list(const List& a) {
  JobFilter filter{.name = a.name, .cluster = a.cluster, .limit = a.all ? 10'000 : a.limit, .cursor = a.cursor};
  for (const std::string& state : a.states) filter.states.push_back(job_state(state));
  const Timestamp now = wall_clock();
  if (!a.since.empty()) filter.submitted_after = now - parse_duration(a.since, "--since");
  const auto client = open_client(a.store);
  if (a.follow) return follow(*client, a, filter);
  JobPage page = client->jobs().query(filter);
  while (a.all && !page.next.empty()) {
    filter.cursor = page.next;
    JobPage more = client->jobs().query(filter);
    std::ranges::move(more.jobs, std::back_inserter(page.jobs));
    page.next = more.next;
  }
  if (a.output.json) {
    Json jobs = Json::array();
    for (const Job& job : page.jobs) jobs.push_back(job_json(job));
    return print(write_json({{"jobs", std::move(jobs)}, {"next", text_json(page.next)}}));
  }
  if (page.jobs.empty()) return print("no jobs\n");
  std::string text = job_table(page, a, now);
  if (!page.next.empty()) text += "there are more: --all, or --after " + page.next + "\n";
  return print(text);
}

// ------ show

struct Show {
  std::string store, job;
  int width = 0;
  bool all = false, follow = false;
  Output output;
};

std::string picture(Client& client, const Job& job, const Show& a) {
  const bool color = a.output.color();
  const Timestamp now = wall_clock();
  const auto painted = [&](std::string_view code, const std::string& text) { return color ? paint(code, text) : text; };
  std::string text = "job " + job.id + "  " + painted("1", printable(job.name)) + "  " +
                     painted(state_color(job.state), std::string(job_state_name(job.state))) + "\n";
  text += "cluster " + printable(job.cluster) + ", submitted " + ago(job.submitted_at, now);
  if (job.started_at != Timestamp{}) text += ", " + std::string(job.finished() ? "took " : "runs for ") + duration_text(job.started_at, job.finished_at, now);
  text += ", " + count(job.tasks, "task") + ", " + std::to_string(job.tasks_done) + " done";
  if (job.retries > 0) text += ", retried " + count(job.retries, "time");
  text += "\ntrace " + job.trace_id.hex() + "\n";
  if (!job.key.empty()) text += "key " + printable(job.key) + "\n";
  for (const ProgressCount& p : job.progress) {
    text += "progress " + printable(p.label) + " " + std::to_string(p.done) + "/" + std::to_string(p.total) + "\n";
  }
  if (job.finished() && !job.error_type.empty()) {
    text += painted("1;31", "task " + job.failed_task + ": " + error_text(job.error_type, job.error)) + "\n";
  }
  return text + "\n" + draw_task_tree(client.jobs().tasks(job.id),
                                      {.width = a.width > 0 ? a.width : terminal_width(), .color = color, .all = a.all, .now = now});
}

Json whole_json(Client& client, const Job& job) {
  Json all = job_json(job);
  all["task_list"] = Json::array();
  for (const TaskInfo& task : client.jobs().tasks(job.id)) all["task_list"].push_back(task_json(task));
  return all;
}

// A line for each state that a task, or the job, gets to.
std::string changes_text(const Job& job, const std::vector<TaskInfo>& tasks, std::map<std::string, std::string>& seen,
                         bool color) {
  std::string text;
  const auto tell = [&](const std::string& id, const std::string& what, const Cell& state, const std::string& error) {
    std::string& before = seen[id];
    const std::string now = state.text + error;
    if (before == now) return;
    before = now;
    text += what + ": " + (color ? paint(state.color, state.text) : state.text) + (error.empty() ? "" : ", " + error) + "\n";
  };
  for (const TaskInfo& task : tasks) {
    if (task.state == TaskState::waiting) continue;
    const std::string attempt = task.attempts > 1 ? ", attempt " + std::to_string(task.attempts) : "";
    tell(task.id, "task " + task.id + " " + task_label(task) + attempt, state_cell(task.state), error_text(task.error_type, task.error));
  }
  tell("", "job " + job.id, state_cell(job.state), job.finished() ? error_text(job.error_type, job.error) : "");
  return text;
}

int follow(Client& client, const Show& a, Job job) {
  if (is_terminal() && !a.output.json) {
    {
      Screen screen;
      for (; !job.finished(); job = client.jobs().find(job.id)) {
        screen.show(picture(client, job, a));
        if (!screen.wait(500ms)) return kTimeUp;
      }
    }
    const int code = print(picture(client, job, a));
    return code != kDone ? code : end_code(job);
  }
  Changes changes(client.store());
  std::map<std::string, std::string> seen;
  std::string before;
  for (;; changes.wait(10s), job = client.jobs().find(job.id)) {
    std::string text = a.output.json ? write_json(job_json(job), true)
                                     : changes_text(job, client.jobs().tasks(job.id), seen, a.output.color());
    if (text != before && !text.empty()) {
      if (const int code = print(text); code != kDone) return code;
      before = std::move(text);
    }
    if (job.finished()) return end_code(job);
  }
}

int show(const Show& a) {
  const auto client = open_client(a.store);
  const Job job = find_job(*client, a.job);
  if (a.follow) return follow(*client, a, job);
  return print(a.output.json ? write_json(whole_json(*client, job)) : picture(*client, job, a));
}

// ------ wait, cancel, retry

struct Some {
  std::string store, timeout;
  std::vector<std::string> jobs;
  Output output;
};

int told(const Some& a, const std::vector<Job>& jobs) {
  if (!a.output.json) {
    std::string text;
    for (const Job& job : jobs) {
      const Cell state = state_cell(job.state);
      text += job.id + " " + (a.output.color() ? paint(state.color, state.text) : state.text);
      if (job.finished() && !job.error_type.empty()) text += " task " + job.failed_task + ": " + error_text(job.error_type, job.error);
      text += "\n";
    }
    return print(text);
  }
  Json all = Json::array();
  for (const Job& job : jobs) all.push_back(job_json(job));
  return print(write_json(all));
}

std::vector<Job> find_all(Client& client, const Some& a) {
  std::vector<Job> jobs;
  for (const std::string& id : a.jobs) jobs.push_back(find_job(client, id));
  return jobs;
}

int wait(const Some& a) {
  const auto most = a.timeout.empty() ? std::chrono::nanoseconds::max() : parse_duration(a.timeout, "--timeout");
  const auto client = open_client(a.store);
  std::vector<Job> jobs = find_all(*client, a);
  const auto start = std::chrono::steady_clock::now();
  int code = kDone;
  for (Job& job : jobs) {
    const std::chrono::nanoseconds passed = std::chrono::steady_clock::now() - start;
    job = client->jobs().wait(job.id, most == std::chrono::nanoseconds::max() ? most : std::max(most - passed, 0ns));
    if (code == kDone) code = end_code(job);
  }
  const int printed = told(a, jobs);
  return printed != kDone ? printed : code;
}

int cancel(const Some& a) {
  const auto client = open_client(a.store);
  std::vector<Job> jobs = find_all(*client, a);
  for (Job& job : jobs) job = client->jobs().cancel(job.id);
  return told(a, jobs);
}

int retry(const Some& a) {
  const auto client = open_client(a.store);
  std::string text;
  Json all = Json::array();
  int code = kDone;
  for (const Job& job : find_all(*client, a)) {
    const std::uint64_t tasks = client->jobs().retry(job.id);
    all.push_back({{"id", job.id}, {"tasks", tasks}});
    if (tasks > 0) {
      text += job.id + " " + count(tasks, "task") + (tasks == 1 ? " runs" : " run") + " again\n";
    } else if (code == kDone) {
      code = complain("job " + job.id + " is " + std::string(job_state_name(job.state)) +
                          ": only what failed or was canceled can be retried", kNotDone);
    }
  }
  const int printed = a.output.json ? print(write_json(all)) : print(text);
  return printed != kDone ? printed : code;
}

// ------ logs

struct Logs {
  std::string store, job, task, level, state_directory;
  bool follow = false;
  Output output;
};

std::uint8_t severity(const std::string& level) {
  constexpr std::pair<std::string_view, std::uint8_t> levels[] = {{"trace", 1}, {"debug", 5}, {"info", 9},
                                                                  {"warn", 13}, {"error", 17}, {"fatal", 21}};
  for (const auto& [name, number] : levels) {
    if (level == name) return number;
  }
  throw WrongUse("--level: '" + printable(level) + "' is none; expected one of trace, debug, info, warn, error, fatal");
}

Json any_json(const AnyValue& any) {
  return std::visit(
      [&](const auto& value) -> Json {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return {};
        } else if constexpr (std::is_same_v<T, std::vector<std::byte>>) {
          return to_text(any);
        } else if constexpr (std::is_same_v<T, AnyArray>) {
          Json all = Json::array();
          for (const AnyValue& one : value) all.push_back(any_json(one));
          return all;
        } else if constexpr (std::is_same_v<T, AnyMap>) {
          Json all = Json::object();
          for (const AnyEntry& one : value) all[one.first] = any_json(one.second);
          return all;
        } else {
          return value;
        }
      },
      any.value);
}

Json log_json(const ReadLog& log) {
  return {{"time_ns", time_json(log.time == Timestamp{} ? log.observed : log.time)},
          {"severity", log.severity},
          {"severity_text", text_json(log.severity_text)},
          {"body", any_json(log.body)},
          {"attributes", any_json({log.attributes})},
          {"trace_id", log.trace_id.valid() ? Json(log.trace_id.hex()) : Json()},
          {"span_id", log.span_id.valid() ? Json(log.span_id.hex()) : Json()},
          {"service", text_json(std::string(find_string(log.resource, "service.name")))}};
}

std::string log_text(const ReadLog& log, bool color) {
  const std::string_view level_color = log.severity >= 17 ? "1;31" : log.severity >= 13 ? "33" : log.severity >= 9 ? "32" : "2";
  const std::string level = pad_right(log.severity_text.empty() ? std::to_string(log.severity) : printable(log.severity_text), 5);
  std::string text = utc(log.time == Timestamp{} ? log.observed : log.time) + " " + (color ? paint(level_color, level) : level);
  const std::string_view name = find_string(log.attributes, "identifier.name");
  const AnyValue* id = find(log.attributes, "task_id");
  if (id) text += " [" + printable(name) + " " + printable(to_text(*id)) + "]";
  text += " " + printable(to_text(log.body));
  for (const AnyEntry& one : log.attributes) {
    if (one.first == "task_id" || one.first.starts_with("identifier.") || one.first.starts_with("workflow.")) continue;
    const std::string pair = " " + printable(one.first) + "=" + printable(to_text(one.second));
    text += color ? paint("2", pair) : pair;
  }
  return text + "\n";
}

int logs(const Logs& a) {
  const std::uint8_t least = a.level.empty() ? 0 : severity(a.level);
  const auto client = open_client(a.store);
  Job job = find_job(*client, a.job);
  const std::vector<std::string> directories = state_directories(a.state_directory);
  std::set<std::string> seen;
  Changes changes(client->store());
  for (;;) {
    const bool last = !a.follow || job.finished();
    std::string text;
    for (const ReadLog& log : job_logs(job, directories)) {
      if (log.severity < least) continue;
      const AnyValue* task = find(log.attributes, "task_id");
      if (!a.task.empty() && (!task || to_text(*task) != a.task)) continue;
      const std::string line = a.output.json ? write_json(log_json(log), true) : log_text(log, a.output.color());
      // A living process's records may be in its ring at one look and in its journal at the next.
      if (!seen.insert(line + log.span_id.hex() + std::to_string(log.observed.time_since_epoch().count())).second) continue;
      text += line;
    }
    if (!text.empty()) {
      if (const int code = print(text); code != kDone) return code;
    }
    if (last) break;
    changes.wait(1s);
    job = client->jobs().find(job.id);
  }
  if (!seen.empty()) return kDone;
  std::string where;
  for (const std::string& directory : directories) where += (where.empty() ? "" : ", ") + printable(directory);
  return complain("no records of job " + job.id + " are kept in " + where, kNotDone);
}

// ------ diagram

struct Diagram {
  std::string store, job, format, file;
  bool all = false;
};

int diagram(const Diagram& a) {
  std::string format = a.format;
  if (format.empty()) format = a.file.ends_with(".svg") ? "svg" : "mermaid";
  const auto client = open_client(a.store);
  const Job job = find_job(*client, a.job);
  const std::vector<TaskInfo> tasks = client->jobs().tasks(job.id);
  const std::string text = format == "svg" ? svg(job, tasks, a.all) : mermaid(tasks, a.all);
  if (a.file.empty()) return print(text);
  std::ofstream file(a.file, std::ios::trunc);
  file << text << std::flush;
  if (!file) return complain(printable(a.file) + ": can't be written", kNotDone);
  return kDone;
}

}  // namespace

void add_jobs(CLI::App& app, int& exit_code) {
  CLI::App& jobs = add_group(app, "jobs", "Submit jobs, look at them, change them");
  {
    const auto a = std::make_shared<Submit>();
    CLI::App& c = add_command(jobs, "submit", "Submit a job of one root task; print its id",
                              "A store that is not there is made.\n\n"
                              "Examples:\n"
                              "  waymark jobs submit ProcessScene --input '{\"scene_id\":\"S2A_1\"}' --name 'scene S2A_1'\n"
                              "  waymark jobs submit acme.Resample --task-version v1.2 --input @input.json --retries 3 --wait\n\n"
                              "Exit codes: 0 done; 2 the command line is wrong; with --wait: 3 it failed; 4 it was canceled");
    c.add_option("task", a->task, "The root task's name")->required()->type_name("TASK");
    c.add_option("--task-version", a->version, "Its version; default: v0.0")->type_name("VERSION");
    c.add_option("--input", a->input, "Its input: JSON, @FILE, or - for standard input; default: {}")->type_name("JSON");
    c.add_option("--name", a->name, "The job's name; default: the task's")->type_name("NAME");
    c.add_option("--cluster", a->cluster, "Where it runs; default: default")->type_name("NAME");
    c.add_option("--key", a->key, "Where the store has a job with this key, nothing is submitted")->type_name("KEY");
    c.add_option("--retries", a->retries, "How often the root task may fail and run again; default: 0")->type_name("N");
    c.add_option("--priority", a->priority, "Higher first; default: 0")->type_name("N");
    c.add_option("--timeout", a->timeout, "For an attempt of the root task")->type_name("DURATION");
    c.add_option("--delay", a->delay, "It starts no earlier")->type_name("DURATION");
    c.add_option("--limit-key", a->limit_key, "Which limits it counts for")->type_name("KEY");
    c.add_option("--display", a->display, "The root task's name for people")->type_name("TEXT");
    c.add_flag("--wait", a->wait, "Until it is finished: somebody has to run it meanwhile");
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a] { return submit(*a); });
  }
  {
    const auto a = std::make_shared<List>();
    CLI::App& c = add_command(jobs, "list", "List jobs, the newest first",
                              "Examples:\n"
                              "  waymark jobs list --state failed --since 24h\n"
                              "  waymark jobs list --follow --state failed\n"
                              "  waymark jobs list --json --all | jq -r '.jobs[].id'\n\n"
                              "Exit codes: 0 done; 2 the command line is wrong");
    c.add_option("--state", a->states, "Only jobs in this state; several: any of them")->type_name("STATE");
    c.add_option("--name", a->name, "Only jobs whose name holds this")->type_name("TEXT");
    c.add_option("--cluster", a->cluster, "Only jobs of this cluster")->type_name("NAME");
    c.add_option("--since", a->since, "Only jobs that were submitted in so long a time")->type_name("DURATION");
    c.add_option("--limit", a->limit, "How many; default: 50")->type_name("N")->check(CLI::Range(1, 10'000));
    auto* after = c.add_option("--after", a->cursor, "Go on where another list ended")->type_name("CURSOR");
    c.add_flag("--all", a->all, "All of them");
    c.add_flag("--follow,-f", a->follow, "Go on: in place on a terminal, else a line for each change")->excludes(after);
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a] { return list(*a); });
  }
  {
    const auto a = std::make_shared<Show>();
    CLI::App& c = add_command(jobs, "show", "Draw a job's tasks as a tree: states, attempts, times, errors",
                              "Examples:\n"
                              "  waymark jobs show 0197\n"
                              "  waymark jobs show --follow 0197\n"
                              "  waymark jobs show --json 0197 | jq '.task_list[] | select(.state == \"failed\")'\n\n"
                              "Exit codes: 0 done; 2 the command line is wrong, or there is no such job;\n"
                              "with --follow: 3 it failed; 4 it was canceled; 5 it was left before its end");
    c.add_option("job", a->job, kJobHelp)->required()->type_name(kJob);
    c.add_flag("--follow,-f", a->follow, "Go on until it is finished: in place on a terminal, else a line for each change");
    c.add_flag("--all", a->all, "A line for each task, also where many are alike");
    c.add_option("--width", a->width, "Columns; default: the terminal's, else COLUMNS, else 100")
        ->type_name("N")
        ->check(CLI::Range(40, 1000));
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a] { return show(*a); });
  }
  const auto some = [&](const char* name, const char* purpose, const std::string& footer, int (*act)(const Some&)) {
    const auto a = std::make_shared<Some>();
    CLI::App& c = add_command(jobs, name, purpose, footer);
    c.add_option("jobs", a->jobs, kJobHelp)->required()->type_name(kJob);
    if (act == wait) c.add_option("--timeout", a->timeout, "How long, at most")->type_name("DURATION");
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a, act] { return act(*a); });
  };
  some("wait", "Wait until jobs are finished",
       "Examples:\n  waymark jobs wait 0197\n  waymark jobs wait 0197 --timeout 10m\n\n" + std::string(kEndCodes) +
           "5 the time is up; 2 there is no such job.\nOf several jobs, that of the first that is not completed.",
       wait);
  some("cancel", "Stop jobs: nothing of them starts any more, and what runs is asked to stop",
       "A job is canceled when the last of its running tasks has ended; a finished one stays as it is.\n\n"
       "Examples:\n  waymark jobs cancel 0197\n\n"
       "Exit codes: 0 done; 2 the command line is wrong, or there is no such job",
       cancel);
  some("retry", "Run again what failed, was canceled or was skipped in jobs; what was computed is kept",
       "Examples:\n  waymark jobs retry 0197\n\n"
       "Exit codes: 0 done; 1 there is nothing to retry; 2 the command line is wrong, or there is no such job",
       retry);
  {
    const auto a = std::make_shared<Logs>();
    CLI::App& c = add_command(jobs, "logs", "Print the log records of a job that are kept on this machine",
                              "Examples:\n"
                              "  waymark jobs logs 0197 --level warn\n"
                              "  waymark jobs logs --follow 0197 --task 12\n"
                              "  waymark jobs logs --json 0197 | jq .body\n\n"
                              "Exit codes: 0 done; 1 there are none; 2 the command line is wrong, or there is no such job or directory");
    c.add_option("job", a->job, kJobHelp)->required()->type_name(kJob);
    c.add_option("--task", a->task, "Only this task's")->type_name("ID");
    c.add_option("--level", a->level, "Only this level and those above: trace, debug, info, warn, error, fatal")->type_name("LEVEL");
    c.add_option("--state-dir", a->state_directory,
                 "Where they are kept; default: WAYMARK_STATE_DIR, else that of OTEL_SERVICE_NAME, else every service's")
        ->type_name("DIR");
    c.add_flag("--follow,-f", a->follow, "Go on until the job is finished");
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a] { return logs(*a); });
  }
  {
    const auto a = std::make_shared<Diagram>();
    CLI::App& c = add_command(jobs, "diagram", "Draw a job's tasks and what they wait for, as Mermaid or SVG",
                              "Dotted: who submitted it; drawn through: what it waits for.\n\n"
                              "Examples:\n"
                              "  waymark jobs diagram 0197 --output job.svg\n"
                              "  waymark jobs diagram 0197 --format mermaid\n\n"
                              "Exit codes: 0 done; 1 the file can't be written; 2 the command line is wrong, or there is no such job");
    c.add_option("job", a->job, kJobHelp)->required()->type_name(kJob);
    c.add_option("--format", a->format, "mermaid or svg; default: by the file's name, else mermaid")
        ->type_name("FORMAT")
        ->check(CLI::IsMember({"mermaid", "svg"}));
    c.add_option("--output,-o", a->file, "The file to write; default: standard output")->type_name("FILE");
    c.add_flag("--all", a->all, "A box for each task, also where many are alike");
    add_store(c, a->store);
    on_run(c, exit_code, [a] { return diagram(*a); });
  }
}

}  // namespace waymark::cli
