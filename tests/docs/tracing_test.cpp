// The examples of docs/tracing.md.
#include <gtest/gtest.h>

#include <stdexcept>
#include <thread>

#include "docs/recorded.h"

namespace waymark::docs {
namespace {

const std::string scene_id = "S2A_1";

[[noreturn]] void read(const std::string& scene) { throw std::runtime_error(scene + ": no such scene"); }

[[maybe_unused]] waymark::Tracer start() {
  waymark::configure_otel_tracing({.service = "tiles", .endpoint = "http://localhost:4318"});
  const waymark::Tracer tracer = waymark::tracer("tiles", "1.4");
  return tracer;
}

[[maybe_unused]] void hook() {
  waymark::configure_otel_tracing({.service = "tiles", .on_record = [](waymark::RecordEditor& record) {
    if (record.span() && record.span()->name == "health check") return waymark::Verdict::drop;
    record.remove_attribute("user.email");
    return waymark::Verdict::keep;
  }});
}

[[maybe_unused]] void sampler() {
  waymark::configure_otel_tracing(
      {.service = "tiles", .sampler = waymark::Sampler{waymark::SamplerKind::parentbased_traceidratio, 0.1}});
}

TEST(TracingPage, SpansNest) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto tile = tracer.span("process_tile", {{"scene", scene_id}, {"index", 7}});
    {
      auto bands = tracer.span("read_bands");   // its parent is process_tile
      bands.set("bytes", 196608);
      bands.event("cache miss", {{"band", "B04"}});
    }
    waymark::current_span().set("cloudy", false);   // process_tile again
  }
  EXPECT_EQ(recorded.tree(), "process_tile\n  read_bands\n");
}

TEST(TracingPage, AttributesHaveTypes) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto span = tracer.span("statistics");
    const std::vector<std::string> bands = {"B02", "B03", "B04"};
    span.set({{"scene", scene_id},
              {"cloudy", false},
              {"pixels", 65536},
              {"cloud_share", 0.31},
              {"bands", bands},
              {"window", waymark::Value::map({{"x", 256}, {"y", 512}})}});
  }
  EXPECT_EQ(recorded.spans().at(0).attributes.size(), 6u);
}

TEST(TracingPage, SpansHaveOptions) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto run = tracer.span("night run", {}, {.root = true});
    auto get = tracer.span("GET", {{"url.path", "/tiles/7"}}, {.kind = waymark::SpanKind::client});
    auto again = tracer.span("GET", {}, {.parent = run.trace_context(),
                                         .links = {{get.context(), {{"why", "retry"}}}}});
  }
  EXPECT_EQ(recorded.tree(), "night run\n  GET\n  GET -> GET\n");
}

TEST(TracingPage, ErrorsAreRecorded) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto span = tracer.span("read");
    try {
      read(scene_id);
    } catch (const std::exception& e) {
      span.record_exception(e).status(waymark::StatusCode::error, e.what());
    }
  }
  const ReadSpan span = recorded.spans().at(0);
  EXPECT_EQ(span.status, StatusCode::error);
  EXPECT_EQ(find_string(span.events.at(0).attributes, "exception.type"), "std::runtime_error");
}

TEST(TracingPage, DetachedSpansMove) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  waymark::DetachedSpan upload = tracer.start_span("upload", {{"scene", scene_id}});
  std::thread worker([upload = std::move(upload)]() mutable {
    upload.set("bytes", 1024);
    upload.end();
  });
  worker.join();
  EXPECT_EQ(recorded.tree(), "upload\n");
}

}  // namespace
}  // namespace waymark::docs
