// `waymark automations`: what submits jobs by itself, and the few things that a person does about it.
//
// Hides: its subcommands and what they print.
// Threads: one.
// Failure: Error of the store, Error(not_found) for an unknown automation.
#pragma once

#include <functional>
#include <optional>

namespace CLI {
class App;
}

namespace waymark::cli {

// To be called once the command line was parsed: the exit code, where this command was given. Outlives no `app`.
[[nodiscard]] std::function<std::optional<int>()> add_automations(CLI::App& app);

}  // namespace waymark::cli
