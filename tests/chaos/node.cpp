#include "chaos/node.h"

#include <unistd.h>

#include <chrono>
#include <stdexcept>
#include <utility>
#include <vector>

namespace waymark::chaos {
namespace {

constexpr int kDeepest = 3;
constexpr std::uint32_t kRetries = 3;

// SplitMix64: the n-th number of a node.
std::uint64_t number(std::uint64_t seed, std::uint64_t n) {
  std::uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

struct Child {
  Node node;
  bool optional = false;
  std::vector<std::size_t> after;  // earlier ones
};

std::vector<Child> children(const Node& node) {
  std::vector<Child> all;
  if (node.depth >= kDeepest || node.doom == Node::fails) return all;
  constexpr std::uint64_t kMost[] = {7, 5, 4};
  std::size_t count = number(node.seed, 0) % kMost[node.depth];
  if (node.depth == 0) count += 2;
  if (node.doom == Node::fails_below) count += 2;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t seed = number(node.seed, 100 + i);
    Child child;
    const std::string path = node.path + "." + std::to_string(i);
    child.node = {.seed = seed, .path = path, .depth = node.depth + 1, .doom = Node::none};
    if (node.doom == Node::fails_below && i == 0) {
      child.node.doom = Node::fails;
    } else if (number(seed, 1) % 6 == 0) {
      child.optional = true;
      const std::uint64_t luck = number(seed, 2) % 3;
      if (luck == 0) child.node.doom = Node::fails;
      if (luck == 1) child.node.doom = child.node.depth < kDeepest ? Node::fails_below : Node::fails;
    }
    for (std::size_t earlier = 0; earlier < i; ++earlier) {
      if (number(seed, 10 + earlier) % 4 == 0) child.after.push_back(earlier);
    }
    all.push_back(std::move(child));
  }
  return all;
}

std::uint32_t failures(const Node& node) {
  const std::uint64_t luck = number(node.seed, 3) % 10;
  return luck == 0 ? 2 : luck <= 2 ? 1 : 0;
}

// Work, not sleep: so that the machine is as it is under load.
void work(const Node& node, const std::stop_token& stop) {
  const std::uint64_t luck = number(node.seed, 4) % 20;
  const std::chrono::microseconds time(luck == 0 ? 40'000 : luck < 5 ? 5'000 : 300);
  for (const auto until = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < until;) {
    if (stop.stop_requested()) throw Stopped();
  }
}

}  // namespace

const Account*& Node::account() {
  static const Account* account = nullptr;
  return account;
}

Node root_node(std::uint64_t seed) { return {.seed = seed, .path = "0", .depth = 0, .doom = Node::none}; }

void Node::execute(Context& context) {
  const Entry entry{Entry::began, std::stoll(context.task_id()), context.attempt(), seed,
                    static_cast<std::uint64_t>(getpid())};
  account()->add(entry);
  auto span = context.tracer().span("work");
  context.progress("nodes").done();
  work(*this, context.stop_token());
  if (doom == fails) throw NonRetryable("doomed");
  // Attempts that were lost count as attempts, too: so it never fails more often than it may.
  if (context.attempt() <= failures(*this)) throw std::runtime_error("unlucky");
  std::vector<FutureTask> submitted;
  for (const Child& child : children(*this)) {
    std::vector<FutureTasks> after;
    for (const std::size_t earlier : child.after) after.push_back(submitted[earlier]);
    submitted.push_back(context.submit_subtask(
        child.node,
        {.depends_on = after, .max_retries = kRetries, .optional = child.optional, .display = child.node.path}));
  }
  Entry done = entry;
  done.kind = Entry::computed;
  account()->add(done);
}

void expect(const Node& node, bool computed, std::map<std::string, Expected>& into) {
  into[node.path].seed = node.seed;
  into[node.path].computed = computed && node.doom != Node::fails;
  for (const Child& child : children(node)) {
    expect(child.node, computed && node.doom == Node::none, into);
    for (const std::size_t earlier : child.after) {
      into[child.node.path].after.push_back(node.path + "." + std::to_string(earlier));
    }
  }
}

}  // namespace waymark::chaos
