// The one exception type of the public API.
//
// Hides: nothing; it is data.
// Threads: an Error is an ordinary value.
// Failure: only set-up and store calls throw it. Recording is noexcept.
#pragma once

#include <stdexcept>
#include <string>

namespace waymark {

enum class ErrorCode {
  invalid_argument,      // a value given in code is out of its range
  missing_endpoint,      // no endpoint in the options nor in the environment
  invalid_endpoint,      // an endpoint that is no usable URL
  invalid_duration,      // a duration that can't be read, is zero, or is longer than a year
  invalid_header,        // a header name or value that HTTP does not allow
  invalid_environment,   // another environment variable that can't be read
  invalid_config,        // a configuration file that can't be read or does not make sense; the message lists every place
  conflicting_resource,  // a second, different service name for one Telemetry
  state_directory,       // the state directory can't be used
  io,                    // a file could not be read or written
  corrupt,               // bytes found on disk do not make sense
  not_found,             // a job, a file or a directory does not exist
  store,                 // the runner's store refused a statement
  unknown_task,          // a task type that this runner does not know
  closed,                // the object was shut down
};

// The message names the key, the place of the value, what was expected and what to do.
// It never holds a header value, a token or a password.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace waymark
