// Configuration files, as somebody may have written them. The environment has one variable, whose value is a secret.
#include <algorithm>
#include <string>

#include "config/file.h"
#include "fuzz/fuzz.h"
#include "waymark/error.h"

using namespace waymark;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::string_view kSecret = "pAssw0rd~";
  const std::string_view input = fuzz::text(data, size);
  if (input.find("pAss") != std::string_view::npos) return 0;
  config::Environment environment([&](const std::string& name) -> std::optional<std::string> {
    if (name == "S") return std::string(kSecret);
    if (name == "HOME") return "/home/u";
    return std::nullopt;
  });
  try {
    const config::ConfigFile file = config::parse_config_file(input, "FILE", environment);
    for (const std::string& warning : file.warnings) {
      fuzz::check(warning.starts_with("FILE:"), "a warning begins with its place");
      fuzz::check(warning.find(kSecret) == std::string::npos, "no warning holds a secret");
    }
    for (const DestinationConfig& d : file.config.destinations) {
      fuzz::check(!d.name.empty(), "a destination has a name");
      fuzz::check(d.output != Output::otlp || d.url.starts_with("http"), "a destination has a URL");
      fuzz::check(d.batch.max_bytes >= 1024 && d.batch.interval.count() > 0, "a batch is in its range");
      fuzz::plant((d.batch.max_records > 4 && d.batch.max_records < 100) || d.name.size() == 2, input);
    }
  } catch (const Error& error) {
    const std::string message = error.what();
    fuzz::check(error.code() == ErrorCode::invalid_config, "what is refused is refused as a configuration");
    fuzz::check(message.starts_with("FILE"), "a problem begins with its place");
    fuzz::check(message.find(kSecret) == std::string::npos, "no problem holds a secret");
    fuzz::check(std::all_of(message.begin(), message.end(), [](char c) { return c == '\n' || static_cast<unsigned char>(c) >= ' '; }),
                "a message is text");
  }
  return 0;
}
