#include "otlp/edit.h"

#include <gtest/gtest.h>

#include <protozero/pbf_writer.hpp>

#include "otlp/reader.h"
#include "otlp/writer.h"
#include "waymark/error.h"

namespace waymark::otlp {
namespace {

const ReadScope kScope{"tiles", "1", {}, {}};

std::string span_body() {
  std::string out;
  protozero::pbf_writer span(out);
  span.add_bytes(1, std::string(16, '\x11'));
  span.add_string(5, "read_bands");
  append_attribute(out, 0x4a, "a", AnyValue{std::int64_t{1}});
  span.add_message(11, std::string());  // an event between attributes
  append_attribute(out, 0x4a, "secret", AnyValue{std::string("token")});
  append_attribute(out, 0x4a, "b", AnyValue{true});
  span.add_string(900, "from a newer version");
  return out;
}

std::string log_body() {
  std::string out;
  protozero::pbf_writer log(out);
  log.add_enum(2, 9);
  std::string any;
  append_any(any, AnyValue{std::string("hello")});
  log.add_message(5, any);
  append_attribute(out, 0x32, "a", AnyValue{std::int64_t{1}});
  return out;
}

TEST(EditTest, ChangesNothingByItself) {
  const std::string body = span_body();
  Edit edit(Signal::traces, body, kScope);
  EXPECT_EQ(edit.span()->name, "read_bands");
  EXPECT_EQ(edit.span()->scope.name, "tiles");
  EXPECT_EQ(edit.log(), nullptr);
  EXPECT_FALSE(edit.changed());
  EXPECT_EQ(edit.body().data(), body.data());
}

TEST(EditTest, ReplacesAnAttributeWhereItStands) {
  const std::string body = span_body();
  Edit edit(Signal::traces, body, kScope);
  edit.set_attribute("secret", AnyValue{std::string("***")});
  EXPECT_TRUE(edit.changed());
  EXPECT_EQ(edit.span()->attributes,
            (AnyMap{{"a", {std::int64_t{1}}}, {"secret", {std::string("***")}}, {"b", {true}}}));
  EXPECT_EQ(edit.span()->events.size(), 1u);
  EXPECT_EQ(edit.body().find("token"), std::string_view::npos);
  EXPECT_NE(edit.body().find("from a newer version"), std::string_view::npos);
}

TEST(EditTest, AddsAnAttributeAtTheEnd) {
  const std::string body = span_body();
  Edit edit(Signal::traces, body, kScope);
  edit.set_attribute("c", AnyValue{AnyArray{{2.5}}});
  EXPECT_EQ(edit.span()->attributes.back(), (AnyEntry{"c", {AnyArray{{2.5}}}}));
  EXPECT_TRUE(edit.body().starts_with(body));
}

TEST(EditTest, RemovesEveryAttributeWithTheKey) {
  std::string body = span_body();
  append_attribute(body, 0x4a, "secret", AnyValue{std::string("again")});
  Edit edit(Signal::traces, body, kScope);
  edit.remove_attribute("secret");
  EXPECT_EQ(edit.span()->attributes, (AnyMap{{"a", {std::int64_t{1}}}, {"b", {true}}}));
}

TEST(EditTest, RemovingWhatIsNotThereChangesNothing) {
  const std::string body = span_body();
  Edit edit(Signal::traces, body, kScope);
  edit.remove_attribute("nothing");
  EXPECT_FALSE(edit.changed());
}

TEST(EditTest, RenamesASpan) {
  const std::string body = span_body();
  Edit edit(Signal::traces, body, kScope);
  edit.set_name("renamed");
  EXPECT_EQ(edit.span()->name, "renamed");
  edit.set_name(std::string(1000, 'x'));
  EXPECT_EQ(edit.span()->name, std::string(1000, 'x'));
  EXPECT_EQ(edit.span()->attributes.size(), 3u);
}

TEST(EditTest, ReplacesTheBodyOfALog) {
  const std::string body = log_body();
  Edit edit(Signal::logs, body, kScope);
  edit.set_body(AnyValue{AnyMap{{"k", {std::int64_t{-1}}}}});
  edit.set_attribute("b", AnyValue{std::string("x")});
  EXPECT_EQ(edit.log()->body, (AnyValue{AnyMap{{"k", {std::int64_t{-1}}}}}));
  EXPECT_EQ(edit.log()->attributes, (AnyMap{{"a", {std::int64_t{1}}}, {"b", {std::string("x")}}}));
  EXPECT_EQ(edit.log()->severity, 9);
  EXPECT_EQ(edit.span(), nullptr);
}

TEST(EditTest, IgnoresWhatHasNoMeaningForTheSignal) {
  const std::string span = span_body();
  Edit spans(Signal::traces, span, kScope);
  spans.set_body(AnyValue{true});
  spans.set_attribute("", AnyValue{true});
  EXPECT_FALSE(spans.changed());
  const std::string log = log_body();
  Edit logs(Signal::logs, log, kScope);
  logs.set_name("n");
  EXPECT_FALSE(logs.changed());
}

TEST(EditTest, TakesViewsOfWhatItGaveOut) {
  const std::string body = span_body();
  Edit edit(Signal::traces, body, kScope);
  edit.set_name("first");
  edit.set_name(edit.span()->name);
  edit.remove_attribute(edit.span()->attributes[0].first);
  edit.set_attribute(edit.span()->attributes[0].first, edit.span()->attributes[1].second);
  EXPECT_EQ(edit.span()->name, "first");
  EXPECT_EQ(edit.span()->attributes, (AnyMap{{"secret", {true}}, {"b", {true}}}));
}

TEST(EditTest, WritesValidUtf8Only) {
  const std::string body = span_body();
  Edit edit(Signal::traces, body, kScope);
  edit.set_name("a\xff");
  edit.set_attribute("k\xff", AnyValue{std::string("v\xff")});
  edit.set_attribute("k\xff", AnyValue{std::string("w\xff")});
  EXPECT_EQ(edit.span()->name, "a\uFFFD");
  EXPECT_EQ(edit.span()->attributes.size(), 4u);
  EXPECT_EQ(edit.span()->attributes.back(), (AnyEntry{"k\uFFFD", {std::string("w\uFFFD")}}));
}

TEST(EditTest, RefusesDamagedBytes) {
  Edit edit(Signal::traces, "\x2a\x09", kScope);
  EXPECT_THROW((void)edit.span(), Error);
  EXPECT_THROW(edit.set_name("n"), Error);
  EXPECT_THROW(edit.remove_attribute("k"), Error);
  EXPECT_FALSE(edit.changed());
}

}  // namespace
}  // namespace waymark::otlp
