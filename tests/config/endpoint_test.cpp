#include "config/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/table.h"
#include "support/holds.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string message_of(std::string_view text, Signal signal = Signal::traces) {
  try {
    (void)parse_endpoint(text, signal, PathRule::base_or_complete, "OTEL_TRACES_ENDPOINT");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_endpoint);
    return error.what();
  }
  ADD_FAILURE() << text << " is accepted";
  return {};
}

Endpoint parsed(std::string_view text, PathRule rule = PathRule::base_or_complete, Signal signal = Signal::traces) {
  return parse_endpoint(text, signal, rule, "endpoint").value();
}

std::string outcome(const std::string& text, Signal signal) {
  try {
    const auto endpoint = parse_endpoint(text, signal, PathRule::base_or_complete, "endpoint");
    return endpoint ? endpoint->url : "unset";
  } catch (const Error&) {
    return "error";
  }
}

TEST(EndpointTest, ReadsEveryRowOfTheTable) {
  HOLDS("HC-05", "HC-18", "HC-20");
  const auto rows = read_table("endpoints.tsv");
  EXPECT_GT(rows.size(), 80u);
  for (const auto& row : rows) {
    SCOPED_TRACE("line " + std::to_string(row.line) + ": " + row.input);
    ASSERT_GE(row.columns.size(), 2u);
    EXPECT_EQ(outcome(row.input, Signal::traces), row.columns[0]);
    EXPECT_EQ(outcome(row.input, Signal::logs), row.columns[1]);
  }
}

TEST(EndpointTest, EveryErrorNamesTheKeyAndWhatToWrite) {
  for (const auto& row : read_table("endpoints.tsv")) {
    if (row.columns[0] != "error") continue;
    const std::string message = message_of(row.input);
    EXPECT_THAT(message, HasSubstr("OTEL_TRACES_ENDPOINT: '")) << row.input;
    EXPECT_THAT(message, ::testing::ContainsRegex("write|leave|encode|colon|usual")) << row.input;
  }
}

TEST(EndpointTest, ABaseGetsTheSignalsPath) {
  HOLDS("OE-02");
  for (const char* text : {"http://c:4318/my", "http://c:4318/my/"}) {
    EXPECT_EQ(parsed(text, PathRule::base).url, "http://c:4318/my/v1/traces");
    EXPECT_EQ(parsed(text, PathRule::base, Signal::logs).url, "http://c:4318/my/v1/logs");
  }
  for (const char* text : {"http://c:4318", "http://c:4318/"}) {
    EXPECT_EQ(parsed(text, PathRule::base).url, "http://c:4318/v1/traces");
  }
  EXPECT_EQ(parsed("http://c:4318/v1/traces", PathRule::base).url, "http://c:4318/v1/traces/v1/traces");
}

TEST(EndpointTest, AnEndpointOfTheSignalIsUsedAsItIs) {
  HOLDS("OE-03", "OE-04", "OE-05", "HC-35");
  for (const char* text : {"https://x/v1/metrics/", "http://c:4318/", "https://x/y", "http://c/a%2Fb/%7e/../?x=%20y",
                           "http://c:4318/v1/logs", "http://c//", "http://c/?x"}) {
    EXPECT_EQ(parsed(text, PathRule::as_it_is).url, text);
  }
  EXPECT_EQ(parsed("http://c:4318", PathRule::as_it_is).url, "http://c:4318/");
  EXPECT_EQ(parsed("http://c:4318?x=1", PathRule::as_it_is).url, "http://c:4318/?x=1");
}

TEST(EndpointTest, UserinfoBecomesAnAuthorizationHeaderAndLeavesTheUrl) {
  const Endpoint endpoint = parsed("http://Aladdin:open%20sesame@localhost:4318/otlp");
  EXPECT_EQ(endpoint.authorization, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
  EXPECT_EQ(endpoint.url, "http://localhost:4318/otlp/v1/traces");
  EXPECT_EQ(endpoint.name, "http://localhost:4318/otlp");
  EXPECT_EQ(parsed("http://token@h").authorization, "Basic dG9rZW46");
  EXPECT_EQ(parsed("http://:pw@h").authorization, "Basic OnB3");
  EXPECT_EQ(parsed("http://u:p:w%40@h").authorization, "Basic dTpwOndA");
  EXPECT_EQ(parsed("http://h").authorization, "");
}

TEST(EndpointTest, TheNameLacksUserinfoQueryAndSignalPath) {
  for (const char* text : {"http://h:4318", "http://h:4318/", "http://h:4318/v1/traces", "http://h:4318/v1/traces/",
                           "http://u:p@h:4318/?key=secret", "HTTP://h:4318/v1/traces?key=secret"}) {
    EXPECT_EQ(parsed(text).name, "http://h:4318") << text;
  }
  EXPECT_EQ(parsed("http://h/otlp/v1/traces", PathRule::as_it_is).name, "http://h/otlp");
  EXPECT_EQ(parsed("http://h/otlp/", PathRule::as_it_is).name, "http://h/otlp");
  EXPECT_EQ(parsed("http://h", PathRule::as_it_is).name, "http://h");
  EXPECT_EQ(parsed("http://h/v1/logs", PathRule::base_or_complete, Signal::logs).name, "http://h");
}

TEST(EndpointTest, TheOriginComparesServers) {
  EXPECT_EQ(parsed("http://H/a").origin, parsed("HTTP://h:80/b?c").origin);
  EXPECT_EQ(parsed("https://u@h").origin, parsed("https://h:443").origin);
  EXPECT_NE(parsed("http://h").origin, parsed("https://h").origin);
  EXPECT_NE(parsed("http://h:1").origin, parsed("http://h:2").origin);
}

TEST(EndpointTest, ErrorsShowNoSecrets) {
  for (const char* text :
       {"http://alice:hunter2@h:99999", "http://alice:hunter2@h#f", "ftp://alice:hunter2@h", "alice:hunter2@h:4318",
        "http://alice:hunter2@", "http://alice:hun/ter2@h", "http://alice:hun?ter2@h", "http://alice:hun#ter2@h",
        "http://alice:hun@ter2@h", "http://h:99999/?key=hunter2", "http://h/v1/logs?key=hunter2",
        "http://alice:hunter2%0a@h", "http://alice:hunter2@h/v1/logs", "http://alice:hunter2@h\x01",
        "http://alice:hunter2@h/a b", "://alice:hunter2@h"}) {
    EXPECT_THAT(message_of(text), AllOf(Not(HasSubstr("hunter2")), Not(HasSubstr("ter2")), Not(HasSubstr("alice"))))
        << text;
  }
}

TEST(EndpointTest, ErrorsSayWhatIsWrong) {
  EXPECT_THAT(message_of("localhost:4318"), HasSubstr("http://localhost:4318"));
  EXPECT_THAT(message_of("ftp://h"), HasSubstr("'ftp'"));
  EXPECT_THAT(message_of("http://"), HasSubstr("no host"));
  EXPECT_THAT(message_of("http://h:99999"), HasSubstr("65535"));
  EXPECT_THAT(message_of("http://h:0"), HasSubstr("65535"));
  EXPECT_THAT(message_of("http://[::1"), HasSubstr("IPv6"));
  EXPECT_THAT(message_of("http://h#f"), HasSubstr("fragment"));
  EXPECT_THAT(message_of("http://h/v1/logs"),
              AllOf(HasSubstr("/v1/logs"), HasSubstr("without"), HasSubstr("/v1/traces")));
  EXPECT_THAT(message_of("http://h/v1/traces", Signal::logs), AllOf(HasSubstr("logs are sent"), HasSubstr("/v1/logs")));
  EXPECT_THAT(message_of("http://h/\r\nx: y"), HasSubstr("control character"));
}

TEST(EndpointTest, ReadsEveryRowOfTheGrpcTable) {
  HOLDS("GC-02", "GC-03", "GC-04", "OE-07");
  const auto rows = read_table("grpc_endpoints.tsv");
  EXPECT_GT(rows.size(), 30u);
  const auto read = [](const std::string& text, bool insecure) -> std::string {
    try {
      const auto endpoint = parse_grpc_endpoint(text, Signal::traces, insecure, "endpoint");
      if (!endpoint) return "unset";
      EXPECT_EQ(endpoint->output == Output::otlp ? endpoint->url : endpoint->name, endpoint->name);
      return endpoint->name + (endpoint->path_ignored ? " without its path" : "");
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("endpoint: '"), Not(HasSubstr("hunter2"))));
      return "error";
    }
  };
  for (const auto& row : rows) {
    SCOPED_TRACE("line " + std::to_string(row.line) + ": " + row.input);
    ASSERT_EQ(row.columns.size(), 2u);
    EXPECT_EQ(read(row.input, false), row.columns[0]);
    EXPECT_EQ(read(row.input, true), row.columns[1]);
  }
}

TEST(EndpointTest, AFileIsAnEndpointToo) {
  HOLDS("FS-01");
  struct Case {
    const char* text;
    const char* path;
  };
  for (const Case& c : {Case{"file:traces.jsonl", "traces.jsonl"}, Case{"file:./out/t.jsonl", "./out/t.jsonl"},
                        Case{"file:/tmp/t.jsonl", "/tmp/t.jsonl"}, Case{"file:///tmp/t.jsonl", "/tmp/t.jsonl"},
                        Case{"file://localhost/tmp/t.jsonl", "/tmp/t.jsonl"}, Case{"FILE:a b?c#d%20", "a b?c#d%20"},
                        Case{" file:\xc3\xbc.jsonl ", "\xc3\xbc.jsonl"}}) {
    const Endpoint endpoint = parsed(c.text);
    EXPECT_EQ(endpoint.output, Output::file) << c.text;
    EXPECT_EQ(endpoint.path, c.path);
    EXPECT_EQ(endpoint.name, "file:" + std::string(c.path));
    EXPECT_EQ(endpoint.url, "");
  }
}

}  // namespace
}  // namespace waymark::config
