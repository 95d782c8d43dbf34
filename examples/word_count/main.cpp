// word_count: a fan-out with a reduce. A text is cut into parts, each part's words are counted by a task of its own,
// and once all of them are done one task adds up.
//
//   word_count FILE [PARTS]      prints the ten most frequent words
//
// What parts hand to the reduce lies in the job's cache. The store is in memory here: a program whose jobs must survive
// a crash leaves `.store` out.
#include <waymark/waymark.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace {

using Counts = std::map<std::string, std::uint64_t>;

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

// Counts the words that begin in [first, last) of the file.
struct CountPart {
  std::string path;
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(CountPart, path, first, last)

  void execute(waymark::Context& context) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": could not be read");
    // A word that has begun before is the part's before.
    if (first > 0) {
      file.seekg(static_cast<std::streamoff>(first - 1));
      while (file && is_letter(static_cast<char>(file.peek()))) file.get();
    }
    Counts counts;
    std::string word;
    while (file) {
      const std::uint64_t at = static_cast<std::uint64_t>(file.tellg());
      const int c = file.get();
      if (c != EOF && is_letter(static_cast<char>(c)) && (!word.empty() || at < last)) {
        word += static_cast<char>(std::tolower(c));
        continue;
      }
      if (!word.empty()) ++counts[std::exchange(word, {})];
      if (at >= last) break;
    }
    context.job_cache().group("counts").set(std::to_string(first), nlohmann::json(counts).dump());
    context.progress("bytes").done(last - first);
  }
};

struct AddUp {
  void execute(waymark::Context& context) {
    const waymark::JobCache parts = context.job_cache().group("counts");
    Counts total;
    for (const std::string& part : parts.keys()) {
      for (const auto& [word, count] : nlohmann::json::parse(parts.get(part)).get<Counts>()) total[word] += count;
    }
    std::vector<std::pair<std::uint64_t, std::string>> order;
    for (const auto& [word, count] : total) order.emplace_back(count, word);
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    });
    for (std::size_t i = 0; i < std::min<std::size_t>(10, order.size()); ++i) {
      std::cout << order[i].first << ' ' << order[i].second << '\n';
    }
    context.logger().info("words counted", {{"words", total.size()}, {"parts", parts.keys().size()}});
  }
};

struct CountWords {
  std::string path;
  std::uint64_t parts = 8;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(CountWords, path, parts)

  void execute(waymark::Context& context) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw waymark::NonRetryable(path + ": could not be read");
    const auto size = static_cast<std::uint64_t>(file.tellg());
    context.progress("bytes").add(size);
    std::vector<CountPart> work;
    for (std::uint64_t i = 0; i < parts; ++i) work.push_back({path, size * i / parts, size * (i + 1) / parts});
    auto counted = context.submit_subtasks(work, {.max_retries = 3});   // the fan-out
    context.submit_subtask(AddUp{}, {.depends_on = counted});           // the reduce
  }
};

}  // namespace

int main(int argc, char** argv) try {
  const std::uint64_t parts = argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 8;
  if (argc < 2 || argc > 3 || parts == 0 || parts > 100'000) {
    std::cerr << "usage: word_count FILE [PARTS]      1 to 100,000 parts\n";
    return 2;
  }
  waymark::Client client({.name = "word-count", .store = "memory:"});
  const std::string id = client.jobs().submit("count words", CountWords{argv[1], parts}).id;
  client.runner<CountWords, CountPart, AddUp>().run_all();
  const waymark::Job job = client.jobs().find(id);
  if (job.state == waymark::JobState::completed) return 0;
  std::cerr << "word_count: " << job.error << '\n';
  return 1;
} catch (const std::exception& e) {
  std::cerr << "word_count: " << e.what() << '\n';
  return 1;
}
