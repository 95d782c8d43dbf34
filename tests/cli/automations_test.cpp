// `waymark automations` as a person runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runner/temporary_directory.h"
#include "support/command.h"
#include "waymark/client.h"

namespace waymark {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using waymark::testing::CommandResult;

class AutomationsCommandTest : public ::testing::Test {
 protected:
  AutomationsCommandTest() : client_({.name = "test", .store = store()}) {
    std::filesystem::create_directory(directory_.path() + "/in");
    client_.automations().cron("nightly mosaic", "30 2 * * *", TaskName{"Mosaic", "v1.0"}, R"({"day":"{time}"})",
                               {.missed = MissedRuns::all, .max_retries = 2});
    client_.automations().watch_directory("scenes", directory_.path() + "/in", "*.tif", TaskName{"Scene", "v1.0"},
                                          R"({"path":"{path}"})");
  }
  std::string store() const { return directory_.path() + "/store.db"; }
  CommandResult automations(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {WAYMARK_COMMAND, "automations"});
    arguments.insert(arguments.end(), {"--store", store()});
    return testing::run_command(arguments, "env COLUMNS=80");
  }

  testing::TemporaryDirectory directory_;
  Client client_;
};

TEST_F(AutomationsCommandTest, ListsThem) {
  const CommandResult table = automations({"list"});
  EXPECT_EQ(table.exit_code, 0);
  EXPECT_THAT(table.output, AllOf(StartsWith("name"), HasSubstr("\nnightly mosaic  on     30 2 * * * UTC"),
                                  HasSubstr("/in/*.tif"), HasSubstr("T02:30:00Z\n"), HasSubstr("on arrival\n")));
  const auto json = nlohmann::json::parse(automations({"list", "--json"}).output);
  ASSERT_EQ(json.at("automations").size(), 2u);
  EXPECT_EQ(json["automations"][0]["missed"], "all");
  EXPECT_EQ(json["automations"][0]["last_ns"], nullptr);
  EXPECT_GT(json["automations"][0]["next_ns"], json["automations"][0]["created_ns"]);
  EXPECT_EQ(json["automations"][1]["pattern"], "*.tif");
}

TEST_F(AutomationsCommandTest, PausesResumesAndRemovesOne) {
  EXPECT_EQ(automations({"pause", "nightly mosaic"}).output, "paused nightly mosaic\n");
  EXPECT_THAT(automations({"show", "nightly mosaic"}).output,
              AllOf(StartsWith("nightly mosaic: paused\n"), HasSubstr("next        never\n"), HasSubstr("retries     2\n"),
                    HasSubstr("task        Mosaic v1.0\n")));
  EXPECT_EQ(automations({"resume", "nightly mosaic"}).output, "resumed nightly mosaic\n");
  EXPECT_FALSE(client_.automations().find("nightly mosaic").paused);
  EXPECT_EQ(automations({"remove", "nightly mosaic"}).output, "removed nightly mosaic\n");
  EXPECT_EQ(client_.automations().list().size(), 1u);
}

TEST_F(AutomationsCommandTest, RunsOneNow) {
  const CommandResult ran = automations({"run", "nightly mosaic"});
  const Job job = client_.jobs().query().jobs.at(0);
  EXPECT_EQ(ran.output, "submitted job " + job.id + "\n");
  EXPECT_EQ(job.name, "nightly mosaic");
  EXPECT_EQ(automations({"run", "scenes"}).output, "nothing to submit: there is no file that has no job yet\n");
  const std::string path = directory_.path() + "/in/a.tif";
  std::ofstream(path) << "pixels";
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(nlohmann::json::parse(automations({"run", "scenes", "--json"}).output).at("jobs").size(), 1u);
  EXPECT_THAT(automations({"show", "nightly mosaic"}).output, HasSubstr("Z, job " + job.id + "\n"));
}

TEST_F(AutomationsCommandTest, SaysInOneLineWhatIsNotThere) {
  const auto expect_refusal = [](const CommandResult& result, const std::string& what) {
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_THAT(result.output, AllOf(StartsWith("waymark: "), HasSubstr(what)));
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  };
  expect_refusal(automations({"pause", "weekly"}), "automation \"weekly\": the store knows none of this name");
  expect_refusal(automations({"run"}), "name is required");
  expect_refusal(automations({"flush"}), "flush");
  expect_refusal(testing::run_command({WAYMARK_COMMAND, "automations", "list", "--store", store() + ".not"}, ""),
                 "there is none");
  EXPECT_FALSE(std::filesystem::exists(store() + ".not"));
  EXPECT_EQ(testing::run_command({WAYMARK_COMMAND, "automations", "--help"}, "").exit_code, 0);
}

}  // namespace
}  // namespace waymark
