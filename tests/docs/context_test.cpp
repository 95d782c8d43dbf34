// The examples of docs/context.md.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "docs/recorded.h"
#include "support/sanitized.h"

namespace waymark::docs {
namespace {

waymark::Headers sent;
void post(const waymark::Headers& headers) { sent = headers; }

TEST(ContextPage, TravelsInHeaders) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto span = tracer.span("GET", {}, {.kind = waymark::SpanKind::client});
    waymark::Headers headers;
    waymark::inject(waymark::current_context(), headers);   // traceparent, tracestate, baggage
    post(headers);
  }
  const Headers& headers = sent;
  {
    const waymark::TraceContext caller = waymark::extract(headers);
    auto span = tracer.span("handle GET", {}, {.kind = waymark::SpanKind::server, .parent = caller});
  }
  EXPECT_EQ(recorded.tree(), "GET\n  handle GET\n");
}

TEST(ContextPage, IsCarriedToAThread) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto span = tracer.span("mosaic");
    std::thread worker([tracer, context = waymark::current_context()] {
      waymark::ContextScope scope(context);
      auto part = tracer.span("resample");   // its parent is mosaic
    });
    worker.join();
  }
  EXPECT_EQ(recorded.tree(), "mosaic\n  resample\n");
}

TEST(ContextPage, IsGivenAsAParent) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto span = tracer.span("mosaic");
    const waymark::TraceContext parent = span.trace_context();
    auto part = tracer.span("resample", {}, {.parent = parent});
  }
  EXPECT_EQ(recorded.tree(), "mosaic\n  resample\n");
}

TEST(ContextPage, ADetachedSpanIsMadeCurrent) {
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    waymark::DetachedSpan upload = tracer.start_span("upload");
    {
      waymark::ContextScope scope(upload);
      auto part = tracer.span("part");   // its parent is upload
    }
    upload.end();
  }
  EXPECT_EQ(recorded.tree(), "upload\n  part\n");
}

TEST(ContextPage, CarriesBaggage) {
  waymark::TraceContext context = waymark::current_context();
  context.baggage = context.baggage.set("tenant", "esa");
  waymark::ContextScope scope(context);
  EXPECT_EQ(current_context().baggage.get("tenant"), "esa");
}

TEST(ContextPage, AChildOfForkRecordsIntoItsOwn) {
  SKIP_IF_NO_FORK_BESIDE_THREADS();
  Recorded recorded;
  const Tracer& tracer = recorded.tracer;
  {
    auto span = tracer.span("parent");
    const pid_t child = fork();
    if (child == 0) {
      const bool inert = !span.recording();
      { auto own = tracer.span("child"); }
      _exit(inert && recorded.tree() == "? child\n" ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(recorded.tree(), "parent\n");
}

}  // namespace
}  // namespace waymark::docs
