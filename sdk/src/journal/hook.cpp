#include "journal/hook.h"

#include "base/thread.h"
#include "otlp/edit.h"
#include "otlp/reader.h"
#include "otlp/writer.h"

namespace waymark::journal {

void append_record(std::string& out, Signal signal, std::uint16_t scope, std::string_view body) {
  RecordHeader header{};
  header.framed = static_cast<std::uint32_t>(otlp::field_size(body.size())) & 0xFFFFFFu;
  header.signal = static_cast<std::uint32_t>(signal) & 0xFFu;
  header.scope = scope;
  const std::size_t before = out.size();
  out.resize(before + header.bytes());
  char* p = out.data() + before;
  std::memcpy(p, &header, sizeof header);
  otlp::put_field(p + sizeof header, 0x12, body);
}

void Hook::set(OnRecord hook) {
  const std::scoped_lock lock(mutex_);
  hook_ = hook ? std::make_shared<const OnRecord>(std::move(hook)) : nullptr;
  present_.store(hook_ != nullptr, std::memory_order_release);
}

Hook::Result Hook::apply(const char* data, std::size_t bytes, const Source& source, std::string& kept) {
  std::shared_ptr<const OnRecord> hook;
  {
    const std::scoped_lock lock(mutex_);
    hook = hook_;
  }
  kept.clear();
  Result result;
  for_each_record(data, bytes, 0, [&](const Record& record, std::size_t) {
    const auto s = static_cast<std::size_t>(record.signal);
    if (record.signal == Signal::metrics) {
      append_record(kept, record.signal, record.scope, record.body);
      ++result.kept[s];
      return true;
    }
    Verdict verdict = Verdict::drop;
    try {
      const Scope encoded = source.scope(record.scope);
      ReadScope scope = otlp::read_scope(encoded.encoded);
      scope.schema_url = encoded.schema_url;
      otlp::Edit edit(record.signal, record.body, scope);
      if (hook) {
        const ProgramCode code;
        verdict = (*hook)(edit);
      } else {
        verdict = Verdict::keep;
      }
      if (verdict == Verdict::keep && otlp::field_size(edit.body().size()) > kMaximumFramed) {
        verdict = Verdict::drop;
        diagnostics_.say_limited("hook size", DiagnosticLevel::error,
                                 "on_record made a record of " + std::to_string(edit.body().size()) +
                                     " bytes, more than a record may have; it was dropped");
      }
      if (verdict == Verdict::keep) append_record(kept, record.signal, record.scope, edit.body());
    } catch (const std::exception& e) {
      verdict = Verdict::drop;
      diagnostics_.say_limited("hook", DiagnosticLevel::error,
                               std::string("on_record threw ") + e.what() + "; the record was dropped");
    } catch (...) {
      verdict = Verdict::drop;
      diagnostics_.say_limited("hook", DiagnosticLevel::error, "on_record threw; the record was dropped");
    }
    if (verdict == Verdict::keep) {
      ++result.kept[s];
    } else {
      ++result.dropped[s];
    }
    return true;
  });
  return result;
}

}  // namespace waymark::journal
