// A finished record under the hands of an on_record hook.
//
// Hides: how one field of a record is replaced in its bytes; all others are copied as they are.
// Threads: belongs to the thread that runs the hook.
// Failure: Error(corrupt) from every member where the record's bytes make no sense.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "waymark/reader.h"

namespace waymark::otlp {

// What set_name means for a log record, set_body for a span, and an attribute without a key: nothing.
class Edit final : public RecordEditor {
 public:
  // `body` (of a Span or LogRecord) and `scope` outlive the edit.
  Edit(Signal signal, std::string_view body, const ReadScope& scope) noexcept
      : signal_(signal), body_(body), scope_(scope) {}

  [[nodiscard]] bool changed() const noexcept { return changed_; }
  // The record as it is now: the bytes it was made from where nothing changed. Good until the next change.
  [[nodiscard]] std::string_view body() const noexcept { return changed_ ? std::string_view(edited_) : body_; }

  [[nodiscard]] Signal signal() const noexcept override { return signal_; }
  [[nodiscard]] const ReadScope& scope() const override { return scope_; }
  // With the scope, without the resource.
  [[nodiscard]] const ReadSpan* span() const override;
  [[nodiscard]] const ReadLog* log() const override;
  void set_attribute(std::string_view key, AnyValue value) override;
  void remove_attribute(std::string_view key) override;
  void set_name(std::string_view name) override;
  void set_body(AnyValue body) override;

 private:
  void replace(std::string edited);
  void replace_attribute(std::string_view key, std::string_view encoded);
  void replace_field(std::uint32_t number, std::string_view content);

  Signal signal_;
  std::string_view body_;
  const ReadScope& scope_;
  bool changed_ = false;
  std::string edited_;
  mutable std::optional<ReadSpan> span_;
  mutable std::optional<ReadLog> log_;
};

}  // namespace waymark::otlp
