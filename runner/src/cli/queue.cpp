#include "cli/queue.h"

#include <algorithm>
#include <map>
#include <memory>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/display_text.h"
#include "cli/waterfall.h"
#include "cli/why.h"

namespace waymark::cli {

namespace {

using namespace std::chrono_literals;

constexpr std::chrono::nanoseconds kPeriod = 60s;  // of what `waymark tasks` says was done lately

std::string number(std::uint64_t n) { return n == 0 ? "" : std::to_string(n); }
std::string time(std::chrono::nanoseconds d) { return d.count() == 0 ? "" : human_duration(d); }

}  // namespace

std::string draw_activity(const std::vector<TaskActivity>& tasks, std::chrono::nanoseconds period, bool color, int width) {
  std::vector<std::vector<Cell>> rows;
  for (const TaskActivity& t : tasks) {
    rows.push_back({{printable(t.cluster)}, {printable(t.name)}, {number(t.waiting)}, {number(t.scheduled)},
                    {number(t.ready), "33"}, {number(t.running), "36"}, {number(t.computed), "32"}, {number(t.failed), "1;31"},
                    {time(t.wait_p50)}, {time(t.wait_p99)}, {time(t.run_p50)}, {time(t.run_p99)}});
  }
  const std::string in = " in " + human_duration(period);
  return draw_table({{"cluster"}, {"task"}, {"waiting", true}, {"scheduled", true}, {"ready", true}, {"running", true},
                     {"done" + in, true}, {"failed", true}, {"queued p50", true}, {"p99", true}, {"ran p50", true}, {"p99", true}},
                    rows, color, 0, width);
}

std::string draw_workers(const std::vector<WorkerInfo>& workers, Timestamp now, bool color, int width) {
  std::vector<std::vector<Cell>> rows;
  for (const WorkerInfo& w : workers) {
    std::string doing;
    for (const WorkerInfo::Running& running : w.running) {
      doing += (doing.empty() ? "" : ", ") + std::string("task ") + running.task.id + " " + task_label(running.task) + " (" +
               duration_text(running.task.started_at, {}, now) + ")";
    }
    const bool alive = w.lease.count() >= 0;
    rows.push_back({{printable(w.name)},
                    {w.runner.substr(0, 8)},
                    {printable(w.host)},
                    {std::to_string(w.process_id)},
                    {printable(w.cluster)},
                    alive ? Cell{"alive", "32"} : Cell{"silent, overdue for " + human_duration(-w.lease), "1;31"},
                    {ago(w.joined_at, now)},
                    doing.empty() ? Cell{"idle", "2"} : Cell{doing, "36"}});
  }
  return draw_table({{"runner"}, {"id"}, {"host"}, {"process", true}, {"cluster"}, {"state"}, {"joined", true}, {"doing"}}, rows,
                    color, 0, width);
}

Json activity_json(const Activity& activity, std::chrono::nanoseconds period) {
  Json tasks = Json::array();
  for (const TaskActivity& t : activity.tasks) {
    tasks.push_back({{"cluster", t.cluster}, {"name", t.name}, {"waiting", t.waiting}, {"scheduled", t.scheduled},
                     {"ready", t.ready}, {"running", t.running}, {"computed", t.computed}, {"failed", t.failed},
                     {"wait_p50_ns", t.wait_p50.count()}, {"wait_p99_ns", t.wait_p99.count()},
                     {"run_p50_ns", t.run_p50.count()}, {"run_p99_ns", t.run_p99.count()}});
  }
  return {{"now_ns", time_json(activity.now)}, {"period_ns", period.count()}, {"open_jobs", activity.open_jobs},
          {"tasks", std::move(tasks)}};
}

Json workers_json(const std::vector<WorkerInfo>& workers) {
  Json all = Json::array();
  for (const WorkerInfo& w : workers) {
    Json tasks = Json::array(), running = Json::array();
    for (const TaskName& task : w.tasks) tasks.push_back({{"name", task.name}, {"version", task.version}});
    for (const WorkerInfo::Running& r : w.running) {
      running.push_back({{"job", r.job}, {"job_name", r.job_name}, {"task", task_json(r.task)}});
    }
    all.push_back({{"runner", w.runner}, {"name", w.name}, {"host", w.host}, {"process_id", w.process_id},
                   {"cluster", w.cluster}, {"alive", w.lease.count() >= 0}, {"lease_left_ns", w.lease.count()},
                   {"joined_ns", time_json(w.joined_at)}, {"tasks", std::move(tasks)}, {"running", std::move(running)}});
  }
  return all;
}

namespace {

int table_width() { return is_terminal() ? terminal_width() : 0; }

// ------ tasks

struct Tasks {
  std::string store, job, name;
  std::vector<std::string> states;
  Output output;
};

int tasks(const Tasks& a) {
  std::vector<TaskState> states;
  for (const std::string& state : a.states) states.push_back(task_state(state));
  if (a.job.empty() && !(states.empty() && a.name.empty())) throw WrongUse("--state and --name are for a job's tasks: name the job");
  const auto client = open_client(a.store);
  if (a.job.empty()) {
    const Activity activity = client->store().activity(kPeriod);
    if (a.output.json) return print(write_json(activity_json(activity, kPeriod)));
    return print(activity.tasks.empty() ? "nothing is to be done\n" : draw_activity(activity.tasks, kPeriod, a.output.color(), table_width()));
  }
  std::vector<TaskInfo> found = client->jobs().tasks(find_job(*client, a.job).id);
  std::erase_if(found, [&](const TaskInfo& task) {
    return (!states.empty() && std::ranges::find(states, task.state) == states.end()) ||
           (!a.name.empty() && task.name != a.name);
  });
  if (a.output.json) {
    Json all = Json::array();
    for (const TaskInfo& task : found) all.push_back(task_json(task));
    return print(write_json(all));
  }
  const Timestamp now = wall_clock();
  std::vector<std::vector<Cell>> rows;
  for (const TaskInfo& task : found) {
    rows.push_back({{task.id}, {task_label(task)}, {task.version}, state_cell(task.state), {number(task.attempts)},
                    {duration_text(task.started_at, task.ended_at, now)}, {printable(task.cluster)}, {task.parent},
                    {error_text(task.error_type, task.error), "31"}});
  }
  return print(rows.empty() ? "no tasks\n"
                            : draw_table({{"id", true}, {"task"}, {"version"}, {"state"}, {"attempts", true}, {"time", true},
                                          {"cluster"}, {"parent", true}, {"error"}},
                                         rows, a.output.color(), 0, table_width()));
}

// ------ runners, clusters, why

struct Plain {
  std::string store, name;
  Output output;
};

int runners(const Plain& a) {
  const auto client = open_client(a.store);
  const std::vector<WorkerInfo> workers = client->store().workers();
  if (a.output.json) return print(write_json(workers_json(workers)));
  return print(workers.empty() ? "no runners\n" : draw_workers(workers, wall_clock(), a.output.color(), table_width()));
}

int clusters(const Plain& a) {
  const auto client = open_client(a.store);
  struct Counts {
    std::uint64_t ready = 0, running = 0, runners = 0;
  };
  std::map<std::string, Counts> counts;
  for (const TaskActivity& task : client->store().activity(0s).tasks) {
    counts[task.cluster].ready += task.ready;
    counts[task.cluster].running += task.running;
  }
  for (const WorkerInfo& worker : client->store().workers()) counts[worker.cluster].runners += worker.lease.count() >= 0;
  Json all = Json::array();
  std::vector<std::vector<Cell>> rows;
  for (const Cluster& cluster : client->clusters()) {
    const Counts& c = counts[cluster.name];
    all.push_back({{"name", cluster.name}, {"paused", cluster.paused}, {"ready", c.ready}, {"running", c.running}, {"runners", c.runners}});
    rows.push_back({{printable(cluster.name)}, cluster.paused ? Cell{"paused", "1;33"} : Cell{"open", "32"},
                    {std::to_string(c.runners)}, {std::to_string(c.ready)}, {std::to_string(c.running)}});
  }
  if (a.output.json) return print(write_json(all));
  return print(rows.empty() ? "no clusters\n"
                            : draw_table({{"cluster"}, {"state"}, {"runners", true}, {"ready", true}, {"running", true}}, rows,
                                         a.output.color(), 0, table_width()));
}

int pause(const Plain& a, bool paused) {
  const auto client = open_client(a.store);
  const std::vector<Cluster> known = client->clusters();
  if (std::ranges::none_of(known, [&](const Cluster& c) { return c.name == a.name; })) {
    std::string names;
    for (const Cluster& c : known) names += (names.empty() ? "" : ", ") + printable(c.name);
    throw WrongUse("cluster " + printable(a.name) + ": the store knows no such cluster" + (names.empty() ? "" : ", but " + names));
  }
  client->store().pause(a.name, paused);
  if (a.output.json) return print(write_json({{"name", a.name}, {"paused", paused}}));
  return print("cluster " + printable(a.name) + (paused ? " is paused: what runs goes on, nothing else starts\n" : " is open\n"));
}

int why(const Plain& a) {
  const auto client = open_client(a.store);
  // Tasks are numbers; a job's id begins with a zero.
  const bool is_task = !a.name.empty() && a.name[0] != '0' && a.name.find_first_not_of("0123456789") == std::string::npos;
  const auto answer = [&](const std::string& job, const std::string& task, std::string_view state, const std::string& text) {
    if (!a.output.json) return print(text + "\n");
    return print(write_json({{"job", job}, {"task", text_json(task)}, {"state", state}, {"why", text}}));
  };
  if (is_task) {
    const auto wait = client->store().wait_of(a.name);
    if (!wait) throw WrongUse("task " + a.name + ": the store knows no such task");
    return answer(wait->job, wait->task.id, task_state_name(wait->task.state), why_task(client->store(), *wait));
  }
  const Job job = find_job(*client, a.name);
  return answer(job.id, {}, job_state_name(job.state), why_job(*client, job));
}

}  // namespace

void add_queue(CLI::App& app, int& exit_code) {
  {
    const auto a = std::make_shared<Tasks>();
    CLI::App& c = add_command(app, "tasks", "List a job's tasks; without one, what is to be done and what was done lately",
                              "Examples:\n"
                              "  waymark tasks\n"
                              "  waymark tasks 0197 --state failed --state running\n\n"
                              "Exit codes: 0 done; 2 the command line is wrong, or there is no such job");
    c.add_option("job", a->job, "Its id, or characters that only its id begins with")->type_name("JOB");
    c.add_option("--state", a->states, "Only tasks in this state; several: any of them")->type_name("STATE");
    c.add_option("--name", a->name, "Only tasks of this name")->type_name("TASK");
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a] { return tasks(*a); });
  }
  const auto plain = [&](CLI::App& parent, const char* name, const char* purpose, const std::string& footer,
                         const char* argument, const char* type, std::function<int(const Plain&)> act) -> CLI::App& {
    const auto a = std::make_shared<Plain>();
    CLI::App& c = add_command(parent, name, purpose, footer);
    if (argument) c.add_option(type[0] == 'J' ? "subject" : "cluster", a->name, argument)->required()->type_name(type);
    add_store(c, a->store);
    add_output(c, a->output);
    on_run(c, exit_code, [a, act] { return act(*a); });
    return c;
  };
  plain(app, "runners", "List runners: who is alive, and doing what",
        "A runner is silent once its lease is over: its tasks run again elsewhere.\n\n"
        "Examples:\n  waymark runners\n  waymark runners --json | jq '.[].running'\n\n"
        "Exit codes: 0 done; 2 the command line is wrong",
        nullptr, nullptr, runners);
  CLI::App& group = add_group(app, "clusters", "List clusters, pause and resume them");
  plain(group, "list", "List clusters",
        "Examples:\n  waymark clusters list\n\nExit codes: 0 done; 2 the command line is wrong", nullptr, nullptr, clusters);
  plain(group, "pause", "Hand out no tasks of a cluster; what runs goes on",
        "Examples:\n  waymark clusters pause gpu\n\nExit codes: 0 done; 2 the command line is wrong, or there is no such cluster",
        "The cluster", "NAME", [](const Plain& a) { return pause(a, true); });
  plain(group, "resume", "Hand out a cluster's tasks again",
        "Examples:\n  waymark clusters resume gpu\n\nExit codes: 0 done; 2 the command line is wrong, or there is no such cluster",
        "The cluster", "NAME", [](const Plain& a) { return pause(a, false); });
  plain(app, "why", "Say what a job or a task is waiting for, in one line",
        "Examples:\n  waymark why 0197\n  waymark why 12\n\n"
        "Exit codes: 0 done; 2 the command line is wrong, or there is no such job or task",
        "A job's id, or characters that only its id begins with; or a task's number", "JOB|TASK", why);
}

}  // namespace waymark::cli
