// Whether everything was done exactly once: the store's account, that of the tasks, and that of the telemetry.
//
// Hides: what must agree with what.
// Threads: one.
// Failure: none; every deviation is counted, and the first few are said on standard error.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "chaos/account.h"
#include "chaos/node.h"
#include "waymark/client.h"
#include "waymark/reader.h"

namespace waymark::chaos {

struct Verdict {
  std::uint64_t jobs = 0;
  std::uint64_t tasks = 0;
  std::uint64_t executions = 0;     // begun: more than tasks, since some fail, and some are lost and done again
  std::uint64_t lost = 0;           // tasks that must be there and computed, and are not, or not by both accounts, or too early
  std::uint64_t double_done = 0;    // tasks that were committed twice, and attempts that two processes had
  std::uint64_t hung = 0;           // jobs and processes that did not end
  std::uint64_t spans_missing = 0;  // of attempts and around subtrees; or another one in its place
  [[nodiscard]] bool good() const { return lost + double_done + hung + spans_missing == 0; }
};

// What the submitter knows: by job id, the seed of its root.
using Submitted = std::map<std::string, std::uint64_t>;

class Judge {
 public:
  explicit Judge(Verdict& verdict) : verdict_(&verdict) {}
  void judge(Client& client, const Submitted& jobs, const std::vector<Entry>& account,
             const std::vector<ReadSpan>& spans);

 private:
  void judge_job(Client& client, const std::string& id, std::uint64_t seed);
  void judge_order(const std::string& id, const std::map<std::string, Expected>& expected,
                   const std::vector<TaskInfo>& tasks);
  void deviates(std::uint64_t& count, const std::string& what);

  Verdict* verdict_;
  std::map<std::pair<std::int64_t, std::uint64_t>, unsigned> began_;     // task and attempt
  std::map<std::pair<std::int64_t, std::uint64_t>, std::uint64_t> computed_;  // the same, and its node
  std::map<std::pair<std::int64_t, std::uint64_t>, std::size_t> computed_at_;  // its place in the account
  std::map<std::int64_t, std::size_t> began_at_;                         // by task: of its first attempt
  std::map<std::pair<std::int64_t, std::uint64_t>, SpanId> attempt_spans_;
  std::map<std::int64_t, unsigned> commits_;                             // by task: spans that say so
  std::map<std::int64_t, std::uint32_t> subtree_spans_;                  // by task, how many
  std::map<std::string, std::uint32_t> job_spans_;                       // by job
  unsigned said_ = 0;
};

}  // namespace waymark::chaos
