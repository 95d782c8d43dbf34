#include "config/resource.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <map>

#include "support/holds.h"
#include "waymark/error.h"

namespace waymark::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

Environment environment(std::map<std::string, std::string> variables = {}) {
  return Environment([variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
    const auto at = variables.find(name);
    if (at == variables.end()) return std::nullopt;
    return at->second;
  });
}

std::string text_of(const Resource& resource, std::string_view key) {
  const AnyValue* value = resource.find(key);
  const auto* text = value ? std::get_if<std::string>(&value->value) : nullptr;
  return text ? *text : "(none)";
}

TEST(ResourceTest, CarriesTheServiceItsProcessItsHostAndTheSdk) {
  HOLDS("RS-04", "RS-05", "RS-07");
  Environment env = environment();
  const Resource resource = detect_resource("sentinel-2-runner", env);
  EXPECT_EQ(text_of(resource, "service.name"), "sentinel-2-runner");
  EXPECT_EQ(text_of(resource, "service.namespace"), "waymark.workflows");
  EXPECT_EQ(text_of(resource, "service.version"), "dev");
  EXPECT_THAT(text_of(resource, "service.instance.id"),
              MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  ASSERT_NE(resource.find("process.pid"), nullptr);
  EXPECT_EQ(*resource.find("process.pid"), AnyValue{std::int64_t{getpid()}});
  utsname system{};
  ASSERT_EQ(uname(&system), 0);
  EXPECT_EQ(text_of(resource, "host.name"), system.nodename);
  EXPECT_EQ(text_of(resource, "os.type"), "linux");
  EXPECT_THAT(text_of(resource, "host.arch"), Not(::testing::AnyOf("x86_64", "aarch64", "(none)")));
  EXPECT_EQ(text_of(resource, "telemetry.sdk.name"), "waymark");
  EXPECT_EQ(text_of(resource, "telemetry.sdk.language"), "cpp");
  EXPECT_THAT(text_of(resource, "telemetry.sdk.version"), MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_THAT(env.warnings(), IsEmpty());
}

TEST(ResourceTest, EveryDetectionMakesANewInstance) {
  HOLDS("RS-07");
  Environment env = environment();
  const Resource first = detect_resource("a", env);
  EXPECT_NE(text_of(first, "service.instance.id"), text_of(detect_resource("a", env), "service.instance.id"));
}

TEST(ResourceTest, WithoutANameTheProgramIsTheService) {
  HOLDS("RS-06");
  Environment env = environment();
  EXPECT_EQ(program_name(), "config_test");
  EXPECT_EQ(text_of(detect_resource({}, env), "service.name"), "unknown_service:config_test");
  EXPECT_EQ(text_of(detect_resource("", env), "service.name"), "unknown_service:config_test");
  EXPECT_EQ(text_of(detect_resource(Resource{{"service.name", ""}, {"x", "1"}}, env), "service.name"),
            "unknown_service:config_test");
}

TEST(ResourceTest, GivenBeatsServiceNameBeatsAttributesBeatsDetected) {
  HOLDS("RS-08", "RS-12", "RS-13");
  const std::map<std::string, std::string> attributes{
      {"OTEL_RESOURCE_ATTRIBUTES", "service.name=from-attributes,service.namespace=mine,host.name=h,extra=1"}};
  auto both = attributes;
  both["OTEL_SERVICE_NAME"] = "from-name";

  Environment env = environment(attributes);
  EXPECT_EQ(text_of(detect_resource({}, env), "service.name"), "from-attributes");
  env = environment(both);
  Resource resource = detect_resource({}, env);
  EXPECT_EQ(text_of(resource, "service.name"), "from-name");
  EXPECT_EQ(text_of(resource, "service.namespace"), "mine");
  EXPECT_EQ(text_of(resource, "host.name"), "h");
  EXPECT_EQ(text_of(resource, "extra"), "1");
  resource = detect_resource(Resource{{"service.name", "given"}, {"extra", "2"}, {"service.version", "1.2"}}, env);
  EXPECT_EQ(text_of(resource, "service.name"), "given");
  EXPECT_EQ(text_of(resource, "service.namespace"), "mine");
  EXPECT_EQ(text_of(resource, "extra"), "2");
  EXPECT_EQ(text_of(resource, "service.version"), "1.2");
  EXPECT_THAT(env.warnings(), IsEmpty());
}

TEST(ResourceTest, AnEmptyGivenValueStillWins) {
  HOLDS("RS-02");
  Environment env = environment({{"OTEL_RESOURCE_ATTRIBUTES", "extra=1"}});
  EXPECT_EQ(text_of(detect_resource(Resource{{"extra", ""}}, env), "extra"), "");
}

TEST(ResourceTest, ReadsAttributesPercentEncodedAndTrimmedWithTheLastOneWinning) {
  HOLDS("RS-09", "RS-11");
  Environment env =
      environment({{"OTEL_RESOURCE_ATTRIBUTES", " a = 1%2C2 ,b=x%3Dy,c=x=y,d=, e%2Df = z\xc3\xbc ,b=last"}});
  const Resource resource = detect_resource({}, env);
  EXPECT_EQ(text_of(resource, "a"), "1,2");
  EXPECT_EQ(text_of(resource, "b"), "last");
  EXPECT_EQ(text_of(resource, "c"), "x=y");
  EXPECT_EQ(text_of(resource, "d"), "");
  EXPECT_EQ(text_of(resource, "e-f"), "z\xc3\xbc");
  EXPECT_THAT(env.warnings(), IsEmpty());
}

TEST(ResourceTest, OneBadAttributeDiscardsThemAll) {
  HOLDS("RS-10");
  for (const char* value :
       {"a=1,b", "a=1,=2", "a=1,b=%zz", "a=1,b=%4", "a=1,b=%", "a=1,", ",a=1", "a=1, =2", "a=1,%zz=2"}) {
    Environment env = environment({{"OTEL_RESOURCE_ATTRIBUTES", value}});
    EXPECT_EQ(detect_resource({}, env).find("a"), nullptr) << value;
    ASSERT_EQ(env.warnings().size(), 1u) << value;
    EXPECT_THAT(env.warnings()[0], AllOf(HasSubstr("OTEL_RESOURCE_ATTRIBUTES"), HasSubstr("entry")));
  }
}

TEST(ResourceTest, AServiceNameIsText) {
  Environment env = environment();
  Resource resource;
  resource.set("service.name", AnyValue{std::int64_t{7}});
  EXPECT_THROW((void)detect_resource(resource, env), Error);
}

TEST(ResourceTest, ALaterCallMayAddAttributesButNotContradict) {
  const Resource started{{"service.name", "a"}, {"region", "eu"}};
  EXPECT_THAT(additional_attributes(started, {}), IsEmpty());
  EXPECT_THAT(additional_attributes(started, "a"), IsEmpty());
  EXPECT_THAT(additional_attributes(started, ""), IsEmpty());
  EXPECT_THAT(additional_attributes(started, Resource{{"region", "eu"}}), IsEmpty());
  EXPECT_EQ(additional_attributes(started, Resource{{"service.name", "a"}, {"stream", "x"}}),
            (AnyMap{{"stream", AnyValue{"x"}}}));
  try {
    (void)additional_attributes(started, "b");
    FAIL() << "another service name is accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::conflicting_resource);
    EXPECT_THAT(error.what(), AllOf(StartsWith("service"), HasSubstr("'a'"), HasSubstr("'b'")));
  }
  try {
    (void)additional_attributes(started, Resource{{"region", "us"}});
    FAIL() << "another value is accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::conflicting_resource);
    EXPECT_THAT(error.what(), HasSubstr("'region'"));
  }
}

TEST(ResourceTest, AServicesFilesHaveASafeName) {
  EXPECT_EQ(file_name_of("sentinel-2_runner.v1"), "sentinel-2_runner.v1");
  EXPECT_EQ(file_name_of("a/b c"), "a%2Fb%20c");
  EXPECT_EQ(file_name_of(".."), "%2E.");
  EXPECT_EQ(file_name_of("../../etc"), "%2E.%2F..%2Fetc");
  EXPECT_EQ(file_name_of("z\xc3\xbc"), "z%C3%BC");
  EXPECT_EQ(file_name_of(std::string("a\0b", 3)), "a%00b");
  EXPECT_LE(file_name_of(std::string(1000, '/')).size(), 200u);
}

}  // namespace
}  // namespace waymark::config
