// A task that does what it is told to, also what no task should.
//
// Hides: nothing.
// Threads: as tasks are.
// Failure: see isolated.cpp.
#pragma once

#include <functional>
#include <string>

#include "waymark/waymark.h"

namespace waymark::testing {

struct Act {
  std::string what;
  std::string with;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Act, what, with)
  void execute(Context& context) { body()(*this, context); }
  static std::function<void(const Act&, Context&)>& body() {
    static std::function<void(const Act&, Context&)> b;
    return b;
  }
};

}  // namespace waymark::testing
