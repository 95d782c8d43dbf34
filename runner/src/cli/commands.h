// What there is below `waymark`: each of these adds its commands, and what they do writes the exit code.
//
// Hides: their options.
// Threads: one.
// Failure: what runs throws WrongUse or Error.
#pragma once

#include <CLI/CLI.hpp>

namespace waymark::cli {

void add_jobs(CLI::App& app, int& exit_code);
// tasks, runners, clusters, why
void add_queue(CLI::App& app, int& exit_code);
void add_automations(CLI::App& app, int& exit_code);
void add_top(CLI::App& app, int& exit_code);
void add_store_command(CLI::App& app, int& exit_code);
// Last: it knows the commands that are there.
void add_completion(CLI::App& app, int& exit_code);

}  // namespace waymark::cli
