// read_state_directory(): what the journals of living and dead processes hold, without disturbing them.
#include <fcntl.h>

#include <algorithm>

#include "base/file.h"
#include "journal/directory.h"
#include "journal/hook.h"
#include "journal/layout.h"
#include "otlp/reader.h"
#include "waymark/error.h"
#include "waymark/reader.h"

namespace waymark {

ReadTelemetry read_state_directory(const std::string& path) {
  const File there = File::open(path, O_RDONLY | O_DIRECTORY);
  if (!there.valid()) throw Error(ErrorCode::not_found, path + ": expected a state directory: " + errno_text(errno));
  // A state directory, or one process's part of it.
  std::vector<std::string> homes;
  for (const std::string& id : journal::list_homes(path)) homes.push_back(path + "/" + id);
  if (homes.empty() && journal::read_identity(path)) homes.push_back(path);

  ReadTelemetry all;
  Diagnostics quiet(DiagnosticLevel::none);
  for (const std::string& state : homes) {
    const auto identity = journal::read_identity(state);
    if (!identity || identity->version != journal::kLayoutVersion) continue;
    journal::Home home;
    home.id = state.substr(state.rfind('/') + 1);
    home.state = state;
    home.memory = identity->memory.ends_with("/" + home.id) ? identity->memory : state;
    const journal::Journal journal(journal::Journal::ReadOnly{}, home, quiet);
    AnyMap resource;
    try {
      resource = otlp::read_resource(journal.resource());
    } catch (const Error&) {
      // Its records still tell what they can.
    }
    journal.for_each([&](const journal::Record& record, std::uint16_t) {
      const journal::Scope encoded = journal.scope(record.scope);
      ReadScope scope;
      try {
        scope = otlp::read_scope(encoded.encoded);
        scope.schema_url = encoded.schema_url;
        if (record.signal == Signal::traces) {
          ReadSpan span = otlp::read_span(record.body);
          span.scope = std::move(scope);
          span.resource = resource;
          all.spans.push_back(std::move(span));
        } else if (record.signal == Signal::metrics) {
          ReadMetric metric = otlp::read_metric(record.body);
          metric.scope = std::move(scope);
          metric.resource = resource;
          all.metrics.push_back(std::move(metric));
        } else if (record.signal == Signal::logs) {
          ReadLog log = otlp::read_log(record.body);
          log.scope = std::move(scope);
          log.resource = resource;
          all.logs.push_back(std::move(log));
        }
      } catch (const Error&) {
        // One bad record does not hide the others; recovery is where damage is reported.
      }
    });
  }
  return all;
}

}  // namespace waymark
