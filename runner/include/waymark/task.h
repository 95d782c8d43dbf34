// What makes a plain struct a task: `void execute(waymark::Context&)` and an input that travels as JSON.
//
//   struct Tile {
//     std::string scene_id;
//     int index = 0;
//     NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tile, scene_id, index)
//     void execute(waymark::Context& context);
//   };
//
// A task is known to the store by name and version. Without a word from its author that is the type's name without
// namespaces and "v0.0"; `static constexpr waymark::TaskIdentifier identifier{"acme.Tile", "v1.2"};` (or a static
// function of that name) says otherwise, and should, where types are renamed while jobs are under way.
//
// Hides: how a type becomes a name, and how an input becomes bytes.
// Threads: any.
// Failure: Error(invalid_argument) for a name or version that can't be one, and for an input that JSON can't hold.
#pragma once

#include <concepts>
#include <exception>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "waymark/error.h"

namespace waymark {

class Context;

// The version is "v<major>.<minor>": a runner takes tasks of its own major version, of its own minor version or below.
struct TaskIdentifier {
  std::string_view name;
  std::string_view version = "v0.0";
};

// Thrown out of execute(): the task fails at once, whatever retries it has left.
class NonRetryable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown out of execute() by a task whose stop token asked it to stop: the attempt is given back to the store and does
// not count as a failure. Returning instead says that the work is done.
class Stopped : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override { return "stopped on request"; }
};

template <class T>
concept Task = std::copy_constructible<T> && requires(T task, Context& context) { task.execute(context); };

// A task's name and version, checked.
struct TaskName {
  std::string name;     // 1 to 256 bytes
  std::string version;  // v<major>.<minor>
  friend bool operator==(const TaskName&, const TaskName&) = default;
  friend auto operator<=>(const TaskName&, const TaskName&) = default;
};

// One task that a runner can run.
struct TaskType {
  TaskName name;
  std::function<void(std::string_view input, Context& context)> execute;
};

namespace detail {
[[nodiscard]] TaskName checked_name(TaskIdentifier identifier);
[[nodiscard]] std::string unqualified_name(const std::type_info& type);
[[noreturn]] void input_not_json(const TaskName& name, const char* why);
}  // namespace detail

template <class T>
[[nodiscard]] const TaskName& task_name() {
  static const TaskName name = [] {
    if constexpr (requires {
                    { T::identifier() } -> std::convertible_to<TaskIdentifier>;
                  }) {
      return detail::checked_name(T::identifier());
    } else if constexpr (requires {
                           { T::identifier } -> std::convertible_to<TaskIdentifier>;
                         }) {
      return detail::checked_name(T::identifier);
    } else {
      const std::string type = detail::unqualified_name(typeid(T));
      return detail::checked_name({.name = type});
    }
  }();
  return name;
}

// The input as it is stored: JSON, or nothing for a type without members.
template <class T>
[[nodiscard]] std::string task_input(const T& task) {
  if constexpr (std::is_empty_v<T>) {
    return {};
  } else {
    static_assert(std::is_constructible_v<nlohmann::json, const T&>,
                  "a task with members needs NLOHMANN_DEFINE_TYPE_INTRUSIVE(Type, members...)");
    try {
      return nlohmann::json(task).dump();
    } catch (const nlohmann::json::exception& e) {
      detail::input_not_json(task_name<T>(), e.what());
    }
  }
}

template <class T>
[[nodiscard]] std::vector<std::string> task_inputs(const std::vector<T>& tasks) {
  std::vector<std::string> inputs;
  inputs.reserve(tasks.size());
  for (const T& task : tasks) inputs.push_back(task_input(task));
  return inputs;
}

template <Task T>
[[nodiscard]] TaskType task_type() {
  return {
      task_name<T>(), [](std::string_view input, Context& context) {
        if constexpr (std::is_empty_v<T>) {
          (void)input;
          T{}.execute(context);
        } else {
          auto task = [&] {
            try {
              return nlohmann::json::parse(input).template get<T>();
            } catch (const nlohmann::json::exception& e) {
              throw NonRetryable("the input of task " + task_name<T>().name + " does not fit its type: " + e.what());
            }
          }();
          task.execute(context);
        }
      }};
}

}  // namespace waymark
