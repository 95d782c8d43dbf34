// Rounds of random kills: a process that records dies at a random instant, somebody recovers what it left, and what the
// sink got is compared with what the process had told before it died.
//
// Hides: when and how it dies, who recovers it, and where it sends to.
// Threads: one, and those of a Telemetry beside the victim.
// Failure: none; every deviation is counted, and said on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>

#include "crash/ledger.h"
#include "crash/victim.h"

namespace waymark::crash {

// What is wrong beyond the records (counts that do not add up, files that are left) counts as corrupt. Rounds of
// consecutive numbers go through all instants, signals and ways to recover by turns.
// `sibling_limit`: within which a sibling must have begun to recover.
[[nodiscard]] Verdict run_round(std::uint64_t number, std::mt19937_64& random, std::chrono::seconds sibling_limit);

// The recovering process: 0 if everything was delivered.
int run_recoverer(const Setting& setting);

}  // namespace waymark::crash
