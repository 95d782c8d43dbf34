// Environment variables, read by OpenTelemetry's rules: an empty value is unset, and one that makes no sense is told
// and then treated as unset.
//
// Hides: where variables come from, number and enumeration syntax, the words of the warnings.
// Threads: one thread at a time.
// Failure: none; what is wrong is collected in warnings(), with the variable's name, its value and what is expected.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace waymark::config {

class Environment {
 public:
  using Lookup = std::function<std::optional<std::string>(const std::string& name)>;
  // In the order of precedence: a variable that is unset or makes no sense leaves it to the next.
  using Names = std::initializer_list<const char*>;

  explicit Environment(Lookup lookup = process_lookup());
  // The process's variables.
  [[nodiscard]] static Lookup process_lookup();

  struct Found {
    std::string name;
    std::string text;  // trimmed, not empty
  };
  // The first that is set.
  [[nodiscard]] std::optional<Found> first(Names names) const;
  [[nodiscard]] std::optional<std::string> text(const char* name) const;

  // "true" in any case; all else is false, and told unless it is "false".
  [[nodiscard]] bool flag(const char* name);
  [[nodiscard]] std::optional<std::uint64_t> integer(Names names, std::uint64_t minimum, std::uint64_t maximum);
  // A whole number of milliseconds, 0 to a year.
  [[nodiscard]] std::optional<std::chrono::milliseconds> milliseconds(Names names);
  // 0 to 1.
  [[nodiscard]] std::optional<double> ratio(const char* name);
  // The place of the value among the choices, whatever its case.
  [[nodiscard]] std::optional<std::size_t> choice(Names names, std::initializer_list<std::string_view> choices);

  // Each message once, however often its variable is read.
  void warn(std::string message);
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return warnings_; }

 private:
  void warn(const Found& found, const std::string& expected);

  Lookup lookup_;
  std::vector<std::string> warnings_;
};

}  // namespace waymark::config
