#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/propagators.h"
#include "support/holds.h"
#include "waymark/propagation.h"

namespace waymark {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr std::string_view kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr std::string_view kSpan = "00f067aa0ba902b7";
const std::string kParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

std::string parent_with(std::string_view version, std::string_view flags, std::string_view rest = {}) {
  return std::string(version) + "-" + std::string(kTrace) + "-" + std::string(kSpan) + "-" + std::string(flags) +
         std::string(rest);
}

SpanContext span_context(std::uint8_t flags = SpanContext::kSampled) {
  SpanContext context;
  context.trace_id = *TraceId::from_hex(kTrace);
  context.span_id = *SpanId::from_hex(kSpan);
  context.flags = flags;
  return context;
}

// Every value of one header, as a request with that header repeated gives them.
HeaderGetter getter(std::vector<std::pair<std::string, std::string>> headers) {
  return [headers = std::move(headers)](std::string_view name) {
    std::vector<std::string> values;
    for (const auto& [key, value] : headers) {
      if (key == name) values.push_back(value);
    }
    return values;
  };
}

TEST(TraceparentTest, IsWrittenInLowerCaseWithVersion00) {
  HOLDS("TC-01");
  EXPECT_EQ(to_traceparent(span_context()), kParent);
  EXPECT_EQ(to_traceparent(span_context(0)), parent_with("00", "00"));
}

TEST(TraceparentTest, IsEmptyForAnInvalidContext) {
  HOLDS("TC-20");
  EXPECT_EQ(to_traceparent(SpanContext{}), "");
  SpanContext no_span = span_context();
  no_span.span_id = {};
  EXPECT_EQ(to_traceparent(no_span), "");
}

TEST(TraceparentTest, CarriesIdsFlagsAndTraceStateIntoTheContext) {
  HOLDS("TC-11", "TR-16");
  const auto context = from_traceparent(kParent, "a=1,b=2");
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_id.hex(), kTrace);
  EXPECT_EQ(context->span_id.hex(), kSpan);
  EXPECT_EQ(context->flags, 1);
  EXPECT_TRUE(context->remote);
  EXPECT_EQ(context->trace_state.header(), "a=1,b=2");
}

TEST(TraceparentTest, ReadsWhatW3cAllows) {
  HOLDS("TC-01", "TC-05");
  for (const std::string& text : {
           kParent,
           " \t" + kParent + "\t ",
           parent_with("01", "01"),
           parent_with("01", "01", "-extra"),
           parent_with("cc", "01", "-what-the-future-will-be-like"),
           parent_with("cc", "01", "-"),
           parent_with("fe", "01"),
       }) {
    const auto context = from_traceparent(text);
    ASSERT_TRUE(context.has_value()) << text;
    EXPECT_EQ(to_traceparent(*context), kParent) << text;
  }
}

TEST(TraceparentTest, IgnoresWhatW3cForbids) {
  HOLDS("TC-02", "TC-03", "TC-04", "TC-05");
  const std::string trace(kTrace);
  const std::string span(kSpan);
  for (const std::string& text : {
           std::string(),
           std::string("00"),
           std::string(55, '-'),
           std::string(55, '0'),
           // TC-02: ids
           "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + span + "-01",
           "00-" + trace + "-00F067AA0BA902B7-01",
           "00-" + std::string(32, '0') + "-" + span + "-01",
           "00-" + trace + "-" + std::string(16, '0') + "-01",
           "00-" + trace.substr(1) + "-" + span + "-01",
           "00-" + trace + "0-" + span + "-01",
           "00-" + trace + "-" + span.substr(1) + "-01",
           "00-" + trace + "-" + span + "0-01",
           "00-.bf92f3577b34da6a3ce929d0e0e4736-" + span + "-01",
           "00-" + trace + "-.0f067aa0ba902b7-01",
           "00-" + trace + "-" + span,
           "00-" + trace + "-" + span + "-",
           // flags
           parent_with("00", "1"),
           parent_with("00", "0x"),
           parent_with("00", ".1"),
           parent_with("00", "0A"),
           // TC-03: version
           parent_with("ff", "01"),
           parent_with("FE", "01"),
           parent_with("0", "01"),
           parent_with("000", "01"),
           parent_with(".0", "01"),
           "00 " + kParent.substr(3),
           // TC-04: version 00 has exactly 55 characters
           parent_with("00", "01", "-"),
           parent_with("00", "01", "-extra"),
           parent_with("00", "01", "."),
           // TC-05: after the flags of a higher version stands a dash or nothing
           parent_with("cc", "01", ".what"),
           parent_with("01", "012"),
           kParent + std::string(1, '\0'),
           std::string("\0", 1) + kParent,
       }) {
    EXPECT_FALSE(from_traceparent(text).has_value()) << text;
  }
}

TEST(TraceparentTest, ReadsFlagsByBitAndPropagatesTheRandomFlagAsReceived) {
  HOLDS("TC-07", "TC-08");
  struct Row {
    const char* in;
    bool sampled;
    bool random;
  };
  for (const Row& row :
       {Row{"00", false, false}, Row{"01", true, false}, Row{"02", false, true}, Row{"03", true, true}}) {
    const auto context = from_traceparent(parent_with("00", row.in));
    ASSERT_TRUE(context.has_value());
    EXPECT_EQ(context->sampled(), row.sampled) << row.in;
    EXPECT_EQ((context->flags & SpanContext::kRandom) != 0, row.random) << row.in;
    EXPECT_EQ(to_traceparent(*context), parent_with("00", row.in));
  }
}

TEST(TraceparentTest, ClearsUnknownFlagsWhenWritten) {
  HOLDS("TC-10");
  EXPECT_EQ(to_traceparent(*from_traceparent(parent_with("00", "ff"))), parent_with("00", "03"));
  EXPECT_EQ(to_traceparent(*from_traceparent(parent_with("00", "fc"))), parent_with("00", "00"));
  EXPECT_EQ(to_traceparent(*from_traceparent(parent_with("cc", "a9", "-x"))), parent_with("00", "01"));
}

TEST(TraceparentTest, TracestateCountsOnlyBesideAValidTraceparentAndNeverSpoilsIt) {
  HOLDS("TC-06");
  EXPECT_FALSE(from_traceparent("00-bad", "a=1").has_value());
  const auto context = from_traceparent(kParent, "a=1,B=2");
  ASSERT_TRUE(context.has_value());
  EXPECT_TRUE(context->trace_state.empty());
}

std::string members(int count) {
  std::string list;
  for (int i = 0; i < count; ++i) list += (i ? ",k" : "k") + std::to_string(i) + "=v";
  return list;
}

TEST(TraceStateTest, ReadsMembersAroundWhiteSpaceAndEmptyOnes) {
  HOLDS("TC-13");
  EXPECT_EQ(TraceState::parse("a=1,b=2").header(), "a=1,b=2");
  EXPECT_EQ(TraceState::parse("a=1,,b=2").header(), "a=1,b=2");
  EXPECT_EQ(TraceState::parse("a=1 \t , \t b=2,").header(), "a=1,b=2");
  EXPECT_EQ(TraceState::parse(",,").header(), "");
  EXPECT_TRUE(TraceState::parse("").empty());
  EXPECT_EQ(TraceState::parse(members(32)).header(), members(32));
  EXPECT_TRUE(TraceState::parse(members(33)).empty());
}

TEST(TraceStateTest, ReadsKeysAndValuesAtTheBoundaries) {
  HOLDS("TC-14");
  for (const std::string& member : {
           std::string("a=1"),
           std::string("0=1"),
           std::string("a_-*/@9=!\"#$%&'()*+-./0189:;<>?@AZ[\\]^_`az{|}~"),
           std::string("fw529a3039@dt=FfAuIQ8XO"),
           std::string("a= inner space"),
           std::string(256, 'k') + "=" + std::string(256, 'v'),
       }) {
    EXPECT_EQ(TraceState::parse(member).header(), member);
  }
  for (const std::string& member : {
           std::string("A=1"),
           std::string("aB=1"),
           std::string("@a=1"),
           std::string("_a=1"),
           std::string("a.b=1"),
           std::string("a =1"),
           std::string("a b=1"),
           std::string("=1"),
           std::string("a"),
           std::string("a="),
           std::string("a=1=2"),
           std::string("a=\x01"),
           std::string("a=\x7f"),
           std::string("a=\xc3\xa9"),
           std::string("a=1;b=\t2"),
           std::string("a=1\0", 4),
           std::string(257, 'k') + "=v",
           "k=" + std::string(257, 'v'),
       }) {
    EXPECT_TRUE(TraceState::parse(member).empty()) << member;
    EXPECT_TRUE(TraceState::parse("ok=1," + member).empty()) << "the whole list is dropped: " << member;
  }
}

TEST(TraceStateTest, KeepsTheFirstOfADuplicatedKey) {
  HOLDS("TC-18");
  EXPECT_EQ(TraceState::parse("a=1,b=2,a=3").header(), "a=1,b=2");
}

TEST(TraceStateTest, SetPutsTheMemberInFrontAndKeepsTheOthersInOrder) {
  HOLDS("TC-18", "TR-17");
  const auto state = TraceState::parse("a=1,b=2,c=3");
  EXPECT_EQ(state.set("d", "4").header(), "d=4,a=1,b=2,c=3");
  EXPECT_EQ(state.set("b", "9").header(), "b=9,a=1,c=3");
  EXPECT_EQ(state.header(), "a=1,b=2,c=3");
  EXPECT_EQ(TraceState().set("a", "1").header(), "a=1");
  EXPECT_EQ(TraceState::parse(members(32)).set("new", "x").header(), "new=x," + members(31));
  EXPECT_EQ(TraceState::parse(members(32)).set("k31", "x").header(), "k31=x," + members(31));
}

TEST(TraceStateTest, SetChangesNothingWhereKeyOrValueAreMalformed) {
  HOLDS("TC-14", "TR-17");
  const auto state = TraceState::parse("a=1");
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"", "1"}, {"B", "1"}, {"b", ""}, {"b", "1,c=2"}, {"b", "="}, {"b", "1 "}, {"b", "\r\n"}}) {
    EXPECT_EQ(state.set(key, value).header(), "a=1") << key << value;
  }
}

TEST(TraceStateTest, GetsAndRemovesByKey) {
  HOLDS("TC-18", "TC-19", "TR-17");
  const auto state = TraceState::parse("a=1,b=2");
  EXPECT_EQ(state.get("a"), "1");
  EXPECT_EQ(state.get("b"), "2");
  EXPECT_EQ(state.get("c"), std::nullopt);
  EXPECT_EQ(state.remove("a").header(), "b=2");
  EXPECT_EQ(state.remove("c"), state);
  EXPECT_TRUE(state.remove("a").remove("b").empty());
  EXPECT_EQ(TraceState().get("a"), std::nullopt);
}

TEST(BaggageTest, IsImmutableAndHoldsOneValueForEachName) {
  HOLDS("BG-01", "BG-03");
  const Baggage none;
  const Baggage one = none.set("a", "1");
  const Baggage two = one.set("a", "2").set("b", "3", "meta");
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(one.get("a"), "1");
  EXPECT_EQ(two.get("a"), "2");
  EXPECT_THAT(two.entries(), UnorderedElementsAre(Baggage::Entry{"a", "2", ""}, Baggage::Entry{"b", "3", "meta"}));
  EXPECT_EQ(two.remove("a").get("a"), std::nullopt);
  EXPECT_EQ(two.remove("c"), two);
  EXPECT_TRUE(one.remove("a").empty());
  EXPECT_TRUE(none.set("", "1").empty());
}

TEST(BaggageTest, NamesAreCaseSensitiveAndValuesAnyUtf8) {
  HOLDS("BG-02");
  const Baggage baggage = Baggage().set("Key", "\xf0\x9f\x9b\xb0 z\xc3\xbcrich").set("key", "other");
  EXPECT_EQ(baggage.get("Key"), "\xf0\x9f\x9b\xb0 z\xc3\xbcrich");
  EXPECT_EQ(baggage.get("key"), "other");
  EXPECT_EQ(baggage.get("KEY"), std::nullopt);
  EXPECT_EQ(Baggage::parse(baggage.header()), baggage);
}

TEST(BaggageTest, ReadsTheExamplesOfW3c) {
  HOLDS("BG-04", "BG-08");
  const char* example = "key1=value1;property1;property2, key2 = value2, key3=value3; propertyKey=propertyValue";
  EXPECT_THAT(Baggage::parse(example).entries(),
              ElementsAre(Baggage::Entry{"key1", "value1", "property1;property2"}, Baggage::Entry{"key2", "value2", ""},
                          Baggage::Entry{"key3", "value3", "propertyKey=propertyValue"}));
  EXPECT_EQ(Baggage::parse("serverNode=DF%2028,isProduction=false").get("serverNode"), "DF 28");
}

TEST(BaggageTest, MetadataTravelsVerbatim) {
  HOLDS("BG-08");
  EXPECT_EQ(Baggage::parse("k=v;p1;p2=x").header(), "k=v;p1;p2=x");
  EXPECT_EQ(Baggage().set("k", "v", "p1;p2=x").header(), "k=v;p1;p2=x");
}

TEST(BaggageTest, NamesThatAreNoTokenAreLeftOutOfTheHeader) {
  HOLDS("BG-05");
  const Baggage baggage = Baggage().set("two words", "1").set("ok", "2").set("a,b", "3").set("a=b", "4");
  EXPECT_EQ(baggage.set("\xc3\xbc", "5").header(), "ok=2");
  EXPECT_EQ(Baggage().set("!#$%&'*+-.^_`|~09azAZ", "1").header(), "!#$%&'*+-.^_`|~09azAZ=1");
  EXPECT_EQ(Baggage::parse("a%20b=1").get("a%20b"), "1") << "a name is not decoded";
}

TEST(BaggageTest, MetadataCannotBreakOutOfItsMember) {
  HOLDS("BG-05");
  EXPECT_EQ(Baggage().set("a", "1", "x,admin=true").set("b", "2", "x\r\nset-cookie: y").set("c", "3").header(), "c=3");
}

TEST(BaggageTest, EncodesEverythingButBaggageOctets) {
  HOLDS("BG-06");
  EXPECT_EQ(Baggage().set("k", "a b").header(), "k=a%20b");
  EXPECT_EQ(Baggage().set("k", "1+1=2").header(), "k=1+1=2");
  EXPECT_EQ(Baggage().set("k", "\",;\\%").header(), "k=%22%2C%3B%5C%25");
  EXPECT_EQ(Baggage().set("k", std::string_view("\0\r\n\x7f", 4)).header(), "k=%00%0D%0A%7F");
  EXPECT_EQ(Baggage().set("k", "\xc3\xbc").header(), "k=%C3%BC");
  EXPECT_EQ(Baggage().set("k", "!#$&'()*+-./:<=>?@[]^_`{|}~").header(), "k=!#$&'()*+-./:<=>?@[]^_`{|}~");
}

TEST(BaggageTest, DecodesPercentAndLeavesPlusAlone) {
  HOLDS("BG-07");
  EXPECT_EQ(Baggage::parse("k=a%20b+c").get("k"), "a b+c");
  EXPECT_EQ(Baggage::parse("k=a=b=c").get("k"), "a=b=c");
  EXPECT_EQ(Baggage::parse("k=%c3%BC").get("k"), "\xc3\xbc");
  EXPECT_EQ(Baggage::parse("k=%FF").get("k"), "\xef\xbf\xbd");
  EXPECT_EQ(Baggage::parse("k=").get("k"), "");
  EXPECT_EQ(Baggage::parse("k=100%").get("k"), "100%");
  EXPECT_EQ(Baggage::parse("k=%4").get("k"), "%4");
  EXPECT_EQ(Baggage::parse("k=%zz%41").get("k"), "%zzA");
}

TEST(BaggageTest, SkipsMalformedMembersAndKeepsTheOthers) {
  HOLDS("BG-11");
  EXPECT_EQ(Baggage::parse("a=1,bad,b=2,=3,two words=4,q=\"5\",s=a b,r=a\\b,\xc3\xbc=6,u=\xc3\xbc,,c=7").header(),
            "a=1,b=2,c=7");
  EXPECT_TRUE(Baggage::parse("bad").empty());
  EXPECT_TRUE(Baggage::parse("").empty());
}

TEST(BaggageTest, TheLastOfADuplicatedNameWins) {
  HOLDS("BG-01");
  EXPECT_EQ(Baggage::parse("a=1,b=2,a=3").header(), "a=3,b=2");
}

TEST(BaggageTest, PropagatesUpTo64MembersInBothDirections) {
  HOLDS("BG-09");
  Baggage baggage;
  std::string header;
  for (int i = 0; i < 65; ++i) {
    baggage = baggage.set("k" + std::to_string(i), "v");
    header += (i ? ",k" : "k") + std::to_string(i) + "=v";
  }
  const std::string first_64 = header.substr(0, header.rfind(','));
  EXPECT_EQ(baggage.header(), first_64);
  EXPECT_EQ(Baggage::parse(first_64).header(), first_64);
  EXPECT_EQ(Baggage::parse(header).header(), first_64);
}

TEST(BaggageTest, PropagatesUpTo8192BytesAndNeverAPartOfAMember) {
  HOLDS("BG-09", "BG-10");
  const std::string exact = "k=" + std::string(8190, 'v');
  EXPECT_EQ(Baggage::parse(exact).header(), exact);
  EXPECT_EQ(Baggage().set("k", std::string(8191, 'v')).header(), "");
  EXPECT_EQ(Baggage().set("a", "1").set("k", std::string(8187, 'v')).set("b", "2").header(), "a=1,b=2");
  EXPECT_EQ(Baggage().set("a", "1").set("k", std::string(8186, 'v')).header().size(), 8192u);
  EXPECT_TRUE(Baggage::parse("k=" + std::string(8191, 'v')).empty());
}

TEST(PropagationTest, WritesLowerCaseHeadersForAValidContext) {
  HOLDS("CP-01", "TC-01", "TC-16");
  TraceContext context{.span = span_context(3), .baggage = Baggage().set("user", "a b")};
  context.span.trace_state = TraceState::parse("a=1");
  Headers headers;
  inject(context, headers);
  EXPECT_THAT(headers, UnorderedElementsAre(Pair("traceparent", parent_with("00", "03")), Pair("tracestate", "a=1"),
                                            Pair("baggage", "user=a%20b")));
}

TEST(PropagationTest, WritesNothingWithoutAValidSpanAndNoEmptyTracestate) {
  HOLDS("TC-15", "TC-20");
  Headers headers;
  inject(TraceContext{}, headers);
  EXPECT_THAT(headers, IsEmpty());
  inject(TraceContext{.span = span_context(), .baggage = {}}, headers);
  EXPECT_THAT(headers, ElementsAre(Pair("traceparent", kParent)));
}

TEST(PropagationTest, InjectingAgainReplacesEveryHeaderOfTheOldTrace) {
  HOLDS("CP-05");
  Headers headers{{"Traceparent", "old"}, {"TRACESTATE", "old=1"}, {"baggage", "old=1"}, {"accept", "x"}};
  inject(TraceContext{.span = span_context(), .baggage = Baggage().set("new", "1")}, headers);
  EXPECT_THAT(headers,
              UnorderedElementsAre(Pair("traceparent", kParent), Pair("baggage", "new=1"), Pair("accept", "x")));
}

TEST(PropagationTest, ReadsHeadersWhateverTheirCase) {
  HOLDS("CP-04", "TC-01");
  const Headers headers{{"TraceParent", kParent}, {"TRACESTATE", "a=1"}, {"Baggage", "k=v"}};
  const TraceContext context = extract(headers);
  EXPECT_EQ(to_traceparent(context.span), kParent);
  EXPECT_EQ(context.span.trace_state.header(), "a=1");
  EXPECT_EQ(context.baggage.get("k"), "v");
}

TEST(PropagationTest, JoinsRepeatedTracestateAndBaggageHeadersInOrder) {
  HOLDS("CP-04", "TC-15");
  const TraceContext context = extract(getter({{"traceparent", kParent}, {"tracestate", "a=1,b=2"}, {"tracestate", ""},
                                               {"tracestate", "c=3"}, {"baggage", "x=1"}, {"baggage", "y=2"}}));
  EXPECT_EQ(context.span.trace_state.header(), "a=1,b=2,c=3");
  EXPECT_EQ(context.baggage.header(), "x=1,y=2");
}

TEST(PropagationTest, TwoTraceparentHeadersAreNone) {
  HOLDS("TC-02");
  EXPECT_FALSE(extract(getter({{"traceparent", kParent}, {"traceparent", kParent}})).span.valid());
}

TEST(PropagationTest, WhatCannotBeReadLeavesTheGivenContextUnchanged) {
  HOLDS("CP-02");
  const TraceContext base{.span = span_context(), .baggage = Baggage().set("kept", "1")};
  for (const Headers& headers :
       {Headers{}, Headers{{"traceparent", "garbage"}, {"tracestate", "a=1"}, {"baggage", ",;="}},
        Headers{{"traceparent", ""}, {"baggage", ""}}}) {
    const TraceContext context = extract(headers, base);
    EXPECT_EQ(context.span, base.span);
    EXPECT_EQ(context.baggage, base.baggage);
  }
}

TEST(PropagationTest, PassesALongTracestateThrough) {
  HOLDS("TC-16", "TC-17");
  const std::string state = "a=" + std::string(256, 'x') + ",b=" + std::string(256, 'y') + ",c=1";
  Headers headers;
  inject(extract(Headers{{"traceparent", kParent}, {"tracestate", state}}), headers);
  EXPECT_EQ(headers["tracestate"], state);
  EXPECT_EQ(headers["traceparent"], kParent);
}

TEST(PropagatorsTest, AreChosenByAListWithoutRegardToCaseOrderOrRepetition) {
  HOLDS("CP-07", "EV-07", "EV-08", "EV-15");
  struct Row {
    const char* value;
    bool trace_context;
    bool baggage;
    std::size_t warnings;
  };
  for (const Row& row : {
           Row{"", true, true, 0},
           Row{" ", true, true, 0},
           Row{"tracecontext,baggage", true, true, 0},
           Row{"tracecontext", true, false, 0},
           Row{"tracecontext,tracecontext", true, false, 0},
           Row{" Baggage , ", false, true, 0},
           Row{"none", false, false, 0},
           Row{"NONE,baggage", false, false, 0},
           Row{"jaeger,tracecontext", true, false, 1},
           Row{"jaeger,xray", true, true, 2},
       }) {
    std::vector<std::string> warnings;
    const auto chosen = trace::parse_propagators(row.value, warnings);
    EXPECT_EQ(chosen.trace_context, row.trace_context) << row.value;
    EXPECT_EQ(chosen.baggage, row.baggage) << row.value;
    EXPECT_EQ(warnings.size(), row.warnings) << row.value;
    for (const std::string& warning : warnings) EXPECT_THAT(warning, HasSubstr("OTEL_PROPAGATORS"));
  }
}

TEST(PropagatorsTest, B3IsReadInEitherFormAndWrittenInTheChosenOne) {
  HOLDS("CP-08", "EC-01", "EC-02");
  std::vector<std::string> warnings;
  const auto written = [&](const char* propagators, std::uint8_t flags) {
    Headers headers;
    trace::inject(TraceContext{.span = span_context(flags), .baggage = {}},
                  [&](std::string_view name, std::string_view value) { headers.emplace(name, value); },
                  trace::parse_propagators(propagators, warnings));
    return headers;
  };
  const std::string ids = std::string(kTrace) + "-" + std::string(kSpan);
  EXPECT_EQ(written("b3", 1), (Headers{{"b3", ids + "-1"}}));
  EXPECT_EQ(written("b3", 0), (Headers{{"b3", ids + "-0"}}));
  EXPECT_EQ(written("B3Multi", 3), (Headers{{"x-b3-traceid", std::string(kTrace)}, {"x-b3-spanid", std::string(kSpan)},
                                            {"x-b3-sampled", "1"}}));
  trace::inject(TraceContext{}, [](std::string_view name, std::string_view) { ADD_FAILURE() << name; },
                trace::parse_propagators("b3,b3multi", warnings));

  const auto read = [&](std::vector<std::pair<std::string, std::string>> headers, const char* propagators = "b3") {
    return trace::extract(getter(std::move(headers)), {}, trace::parse_propagators(propagators, warnings)).span;
  };
  for (const char* state : {"-1", "-d", "-1-00f067aa0ba902b7"}) {
    EXPECT_EQ(to_traceparent(read({{"b3", ids + state}})), kParent) << state;
  }
  EXPECT_TRUE(read({{"b3", ids + "-1"}}).remote);
  EXPECT_FALSE(read({{"b3", ids + "-0"}}).sampled());
  EXPECT_FALSE(read({{"b3", ids}}).sampled());
  EXPECT_EQ(read({{"b3", "a3ce929d0e0e4736-00f067aa0ba902b7-1"}}).trace_id.hex(), "0000000000000000a3ce929d0e0e4736");
  const std::vector<std::pair<std::string, std::string>> many{{"x-b3-traceid", std::string(kTrace)},
                                                             {"x-b3-spanid", std::string(kSpan)},
                                                             {"x-b3-parentspanid", "1111111111111111"}};
  EXPECT_FALSE(read(many, "b3multi").sampled());
  for (const auto& [name, value] : {std::pair("x-b3-sampled", "1"), std::pair("x-b3-sampled", "true"), std::pair("x-b3-flags", "1")}) {
    auto headers = many;
    headers.emplace_back(name, value);
    EXPECT_EQ(to_traceparent(read(headers)), kParent) << name;
    headers.emplace_back("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1");
    EXPECT_EQ(read(headers, "b3multi").span_id.hex(), "b7ad6b7169203331") << "the single header wins";
  }
  for (const std::string& bad : {std::string(), std::string("0"), std::string("d"), ids + "-2", ids + "-", ids + "-1-", ids + "-1-x",
                                 ids + "-1-00f067aa0ba902b7-", std::string("-"), std::string(kTrace) + "-",
                                 std::string(32, '0') + "-" + std::string(kSpan) + "-1", "x" + ids + "-1"}) {
    EXPECT_FALSE(read({{"b3", bad}}).valid()) << bad;
  }
  EXPECT_FALSE(read({{"b3", ids + "-1"}}, "tracecontext").valid());
}

TEST(PropagatorsTest, WhereARequestCarriesTwoFormatsTheLastOneCounts) {
  HOLDS("CP-06");
  const auto both = getter({{"traceparent", kParent}, {"b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"}});
  std::vector<std::string> warnings;
  const auto read = [&](const char* list) {
    return trace::extract(both, {}, trace::parse_propagators(list, warnings)).span.span_id.hex();
  };
  EXPECT_EQ(read("b3,tracecontext"), kSpan);
  EXPECT_EQ(read("tracecontext,b3"), "b7ad6b7169203331");
  EXPECT_EQ(read("tracecontext,baggage,b3multi"), "b7ad6b7169203331");
  EXPECT_THAT(warnings, IsEmpty());
}

TEST(PropagatorsTest, OnlyTheChosenOnesReadAndWrite) {
  HOLDS("CP-07");
  const TraceContext context{.span = span_context(), .baggage = Baggage().set("k", "v")};
  struct Row {
    trace::Propagators chosen;
    std::vector<std::string> names;
  };
  for (const Row& row : {Row{{true, true}, {"traceparent", "baggage"}}, Row{{true, false}, {"traceparent"}},
                         Row{{false, true}, {"baggage"}}, Row{{false, false}, {}}}) {
    std::vector<std::string> names;
    trace::inject(context, [&](std::string_view name, std::string_view) { names.emplace_back(name); }, row.chosen);
    EXPECT_EQ(names, row.names);
    const auto read = trace::extract(getter({{"traceparent", kParent}, {"baggage", "k=v"}}), {}, row.chosen);
    EXPECT_EQ(read.span.valid(), row.chosen.trace_context);
    EXPECT_EQ(!read.baggage.empty(), row.chosen.baggage);
  }
}

TEST(PropagatorsTest, TheirNamesChooseTheSame) {
  for (const char* words : {"tracecontext,baggage", "tracecontext", "baggage", "b3", "b3multi,b3", "b3,tracecontext", "tracecontext,b3multi,baggage", "none"}) {
    std::vector<std::string> warnings;
    const trace::Propagators chosen = trace::parse_propagators(words, warnings);
    std::string names;
    for (const std::string& name : trace::names_of(chosen)) names += (names.empty() ? "" : ",") + name;
    EXPECT_EQ(trace::parse_propagators(names, warnings), chosen) << words << " became " << names;
    EXPECT_TRUE(warnings.empty());
  }
}

}  // namespace
}  // namespace waymark
