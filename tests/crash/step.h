// Single steps: a process is stopped after every instruction of its recording, collecting and delivering threads, and
// what its death there would leave is recovered from a copy.
//
// Hides: ptrace, and that a step that changed none of the bytes that outlive the process needs no recovery of its own.
// Threads: one.
// Failure: none; every deviation is counted, and the first few are said on standard error.
#pragma once

#include <cstdint>
#include <string>

#include "crash/ledger.h"

namespace waymark::crash {

struct StepOptions {
  std::uint64_t judge_every = 1;  // of the states that differ from the one before
  bool until_wrong = false;       // the first deviation is enough
};
struct StepResult {
  std::uint64_t steps = 0;
  std::uint64_t states = 0;   // judged
  Verdict verdict;
  bool good = true;
  std::string skipped;        // why it could not be done here
};
// `script`: an index of kScriptNames.
[[nodiscard]] StepResult run_steps(unsigned script, const StepOptions& options);

}  // namespace waymark::crash
