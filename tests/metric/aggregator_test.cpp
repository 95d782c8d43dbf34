#include "metric/aggregator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <latch>
#include <limits>
#include <random>
#include <set>
#include <thread>

#include "metric/numbers.h"
#include "support/holds.h"
#include "waymark/trace.h"

namespace waymark {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Numbers;
using Kind = ReadMetric::Kind;

MetricConfig with(Temporality temporality) {
  MetricConfig config;
  config.temporality = temporality;
  return config;
}
MetricConfig with(View view) {
  MetricConfig config;
  config.views.push_back(std::move(view));
  return config;
}

TEST(CounterTest, AddsUpEachSetOfAttributesInAnyOrder) {
  HOLDS("MT-02", "MT-07", "MT-52");
  Numbers numbers;
  const auto counter = numbers.meter().counter("tasks", {.unit = "{task}", .description = "Tasks"});
  counter.add(1, {{"a", "x"}, {"b", 2}});
  counter.add(2, {{"b", 2}, {"a", "x"}});
  counter.add(4, {{"a", "y"}, {"b", 2}, {"a", "x"}});
  counter.add(8);
  const auto all = numbers.collect();
  const ReadMetric& metric = Numbers::named(all, "tasks");
  EXPECT_EQ(metric.unit, "{task}");
  EXPECT_EQ(metric.description, "Tasks");
  EXPECT_EQ(metric.kind, Kind::sum);
  EXPECT_TRUE(metric.monotonic);
  EXPECT_FALSE(metric.delta);
  ASSERT_EQ(metric.points.size(), 2u);
  EXPECT_EQ(Numbers::whole(metric.points[0]), 7);
  EXPECT_EQ(metric.points[0].attributes.size(), 2u);
  EXPECT_EQ(Numbers::whole(metric.points[1]), 8);
  EXPECT_THAT(metric.points[1].attributes, IsEmpty());
}

TEST(CounterTest, RefusesWhatIsNoMeasurementAndSaysItOnce) {
  HOLDS("MT-08", "MT-74");
  Numbers numbers;
  const auto whole = numbers.meter().counter("whole");
  const auto real = numbers.meter().counter<double>("real");
  const auto sizes = numbers.meter().histogram("sizes");
  const auto level = numbers.meter().up_down_counter("level");
  whole.add(-1);
  whole.add(-1);
  real.add(std::numeric_limits<double>::quiet_NaN());
  real.add(std::numeric_limits<double>::infinity());
  sizes.record(-0.5);
  level.add(-3);
  EXPECT_EQ(numbers.aggregator().refused(), 5u);
  EXPECT_EQ(numbers.said().size(), 3u);
  EXPECT_THAT(numbers.said(), Contains(HasSubstr("instrument whole: a value is less than zero")));
  const auto all = numbers.collect();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(Numbers::whole(all[0].points.at(0)), -3);
  EXPECT_FALSE(all[0].monotonic);
  whole.add(std::numeric_limits<std::int64_t>::max());
  whole.add(1);
  EXPECT_EQ(Numbers::whole(Numbers::named(numbers.collect(), "whole").points.at(0)), std::numeric_limits<std::int64_t>::min());
}

TEST(CounterTest, ABoundOneIsTheSameSeries) {
  HOLDS("MT-21");
  Numbers numbers;
  const auto counter = numbers.meter().counter("c");
  std::string value = "west";
  const auto bound = counter.bind({{"region", value}, {"n", 7}, {"skipped", std::vector<std::int64_t>{1}}});
  value = "lost";
  bound.add(3);
  bound.add(4);
  counter.bind({{"region", "west"}, {"n", 7}}).add(5);
  counter.add(6, {{"n", 7}, {"region", "west"}});
  const auto all = numbers.collect();
  ASSERT_EQ(all.at(0).points.size(), 1u);
  EXPECT_EQ(Numbers::whole(all[0].points[0]), 18);
  EXPECT_EQ(Numbers::text(all[0].points[0].attributes, "region"), "west");
}

TEST(CounterTest, ArraysAmongTheAttributesAreToldApartToo) {
  Numbers numbers;
  const auto counter = numbers.meter().counter("c");
  const std::vector<std::int64_t> one{1};
  const std::vector<std::int64_t> two{2};
  for (int i = 0; i < 3; ++i) counter.add(1, {{"bands", one}});
  counter.add(1, {{"bands", two}});
  const auto all = numbers.collect();
  ASSERT_EQ(all.at(0).points.size(), 2u);
  EXPECT_EQ(Numbers::whole(all[0].points[0]), 3);
}

TEST(GaugeTest, KeepsTheLastValueWhoeverSaysIt) {
  HOLDS("MT-36");
  Numbers numbers;
  const auto gauge = numbers.meter().gauge("temperature");
  gauge.record(20);
  std::thread([&] { gauge.record(21.5); }).join();
  auto all = numbers.collect();
  EXPECT_EQ(all.at(0).kind, Kind::gauge);
  EXPECT_EQ(Numbers::real(all[0].points.at(0)), 21.5);
  gauge.record(-3);
  all = numbers.collect();
  EXPECT_EQ(Numbers::real(all.at(0).points.at(0)), -3);
  EXPECT_EQ(numbers.collect().at(0).points.size(), 1u) << "told again while nobody says otherwise";
}

TEST(HistogramTest, UpperBoundsAreInclusive) {
  HOLDS("MT-37", "MT-38", "PB-20");
  Numbers numbers;
  const auto sizes = numbers.meter().histogram("sizes", {.unit = "By"});
  const std::vector<double> bounds{0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000};
  for (const double bound : bounds) sizes.record(bound);
  sizes.record(10001);
  const auto all = numbers.collect();
  const ReadPoint& point = all.at(0).points.at(0);
  EXPECT_EQ(all[0].kind, Kind::histogram);
  EXPECT_EQ(point.bounds, bounds);
  EXPECT_THAT(point.counts, ::testing::Each(1u));
  ASSERT_EQ(point.counts.size(), bounds.size() + 1);
  EXPECT_EQ(point.count, 16u);
  EXPECT_EQ(point.minimum, 0);
  EXPECT_EQ(point.maximum, 10001);
  EXPECT_EQ(point.sum, 27765 + 10001);
}

TEST(HistogramTest, DurationsAreExponentialUnlessTheyAreGivenBounds) {
  HOLDS("MT-19", "MT-34", "MT-39", "PB-21");
  Numbers numbers;
  numbers.meter().histogram("duration", {.unit = "s"}).record(0.25);
  const auto wide = numbers.meter().histogram("wide", {.unit = "ms"});
  for (const double v : {0.0, 1e-300, 1.0, 1e300}) wide.record(v);
  numbers.meter().histogram("advised", {.unit = "s", .boundaries = {1, 2}}).record(1.5);
  numbers.meter().histogram<std::int64_t>("bytes", {.unit = "By"}).record(4);
  const auto all = numbers.collect();
  const ReadMetric& duration = Numbers::named(all, "duration");
  ASSERT_EQ(duration.kind, Kind::exponential_histogram);
  EXPECT_EQ(duration.points.at(0).scale, 20);
  EXPECT_EQ(duration.points[0].positive_offset, -(2 << 20) - 1);
  EXPECT_THAT(duration.points[0].positive, ElementsAre(1));
  const ReadPoint& spread = Numbers::named(all, "wide").points.at(0);
  EXPECT_EQ(spread.count, 4u);
  EXPECT_EQ(spread.zero_count, 1u);
  EXPECT_LE(spread.positive.size(), 160u);
  std::uint64_t counted = spread.zero_count;
  for (const std::uint64_t n : spread.positive) counted += n;
  EXPECT_EQ(counted, spread.count);
  EXPECT_EQ(spread.maximum, 1e300);
  EXPECT_EQ(Numbers::named(all, "advised").points.at(0).bounds, (std::vector<double>{1, 2}));
  EXPECT_EQ(Numbers::named(all, "bytes").kind, Kind::histogram);
}

TEST(HistogramTest, TheDefaultCanBeSet) {
  HOLDS("MT-71");
  MetricConfig config;
  config.default_histogram = Aggregation::exponential_histogram;
  Numbers exponential(config);
  exponential.meter().histogram("b", {.unit = "By"}).record(1);
  EXPECT_EQ(exponential.collect().at(0).kind, Kind::exponential_histogram);
  config.default_histogram = Aggregation::explicit_histogram;
  Numbers explicit_one(config);
  explicit_one.meter().histogram("d", {.unit = "s"}).record(1);
  EXPECT_EQ(explicit_one.collect().at(0).kind, Kind::histogram);
}

// ---- temporality

TEST(TemporalityTest, CumulativeTellsAllSinceOneStartEachTime) {
  HOLDS("MT-43", "MT-44", "MT-45", "MT-46", "PB-19");
  Numbers numbers;
  const auto counter = numbers.meter().counter("c");
  const auto sizes = numbers.meter().histogram("h", {.unit = "By"});
  numbers.advance(std::chrono::seconds(1));
  const std::uint64_t first = numbers.now();
  counter.add(1);
  sizes.record(3);
  for (int i = 0; i < 3; ++i) {
    numbers.advance(std::chrono::seconds(10));
    const auto all = numbers.collect();
    ASSERT_EQ(all.size(), 2u);
    for (const ReadMetric& metric : all) {
      EXPECT_FALSE(metric.delta);
      EXPECT_EQ(to_ns(metric.points.at(0).start), first);
      EXPECT_EQ(to_ns(metric.points.at(0).time), numbers.now());
    }
    EXPECT_EQ(Numbers::whole(all[0].points[0]), 1);
    EXPECT_EQ(all[1].points[0].count, 1u);
  }
  counter.add(1, {{"late", true}});
  const std::uint64_t late = numbers.now();
  numbers.advance(std::chrono::seconds(1));
  EXPECT_EQ(to_ns(numbers.collect()[0].points.at(1).start), late);
}

TEST(TemporalityTest, DeltaTellsWhatIsNewAndItsIntervalsChain) {
  HOLDS("MT-43", "MT-44", "MT-45");
  Numbers numbers(with(Temporality::delta));
  const auto counter = numbers.meter().counter("c");
  const auto sizes = numbers.meter().histogram("h", {.unit = "By"});
  const auto level = numbers.meter().up_down_counter("l");
  std::uint64_t before = numbers.now();
  for (int i = 1; i <= 4; ++i) {
    counter.add(i);
    sizes.record(i);
    level.add(1);
    numbers.advance(std::chrono::seconds(10));
    const auto all = numbers.collect();
    ASSERT_EQ(all.size(), 3u);
    EXPECT_TRUE(all[0].delta);
    EXPECT_TRUE(all[1].delta);
    EXPECT_FALSE(all[2].delta);
    EXPECT_EQ(Numbers::whole(all[0].points.at(0)), i);
    EXPECT_EQ(all[1].points.at(0).count, 1u);
    EXPECT_EQ(all[1].points[0].minimum, i) << "of this interval";
    EXPECT_EQ(Numbers::whole(all[2].points.at(0)), i);
    for (std::size_t m : {0u, 1u}) {
      EXPECT_EQ(to_ns(all[m].points[0].start), before);
      EXPECT_EQ(to_ns(all[m].points[0].time), numbers.now());
    }
    before = numbers.now();
  }
  numbers.advance(std::chrono::seconds(10));
  const auto idle = numbers.collect();
  ASSERT_EQ(idle.size(), 1u) << "nothing new is nothing told, but for what is cumulative";
  EXPECT_EQ(idle[0].name, "l");
}

TEST(TemporalityTest, PreferencesAreThoseOfTheSpecification) {
  HOLDS("MT-72");
  const auto deltas = [](Temporality preference) {
    Numbers numbers(with(preference));
    const Meter meter = numbers.meter();
    meter.counter("counter").add(1);
    meter.up_down_counter("up_down_counter").add(1);
    meter.gauge("gauge").record(1);
    meter.histogram("histogram").record(1);
    meter.observable_counter("observable_counter", {}, [](const auto& o) { o.observe(1); });
    meter.observable_up_down_counter("observable_up_down_counter", {}, [](const auto& o) { o.observe(1); });
    meter.observable_gauge("observable_gauge", {}, [](const auto& o) { o.observe(1); });
    std::set<std::string> names;
    const auto all = numbers.collect();
    EXPECT_EQ(all.size(), 7u);
    for (const ReadMetric& metric : all) {
      if (metric.delta) names.insert(metric.name);
    }
    return names;
  };
  EXPECT_THAT(deltas(Temporality::cumulative), IsEmpty());
  EXPECT_THAT(deltas(Temporality::delta), ElementsAre("counter", "histogram", "observable_counter"));
  EXPECT_THAT(deltas(Temporality::lowmemory), ElementsAre("counter", "histogram"));
}

TEST(TemporalityTest, SumsAreMonotonicWhereValuesAreOnlyAdded) {
  HOLDS("MT-35");
  Numbers numbers;
  const Meter meter = numbers.meter();
  meter.counter("1").add(1);
  meter.up_down_counter("0").add(1);
  meter.observable_counter("11", {}, [](const auto& o) { o.observe(1); });
  meter.observable_up_down_counter("00", {}, [](const auto& o) { o.observe(1); });
  for (const ReadMetric& metric : numbers.collect()) EXPECT_EQ(metric.monotonic, metric.name[0] == '1') << metric.name;
}

// Whatever the clock does, no interval is negative, deltas chain, and nothing is told twice or never.
TEST(TemporalityTest, AClockThatJumpsLosesNothing) {
  HOLDS("MT-45", "MT-47");
  for (const Temporality temporality : {Temporality::cumulative, Temporality::delta}) {
    Numbers numbers(with(temporality));
    const auto counter = numbers.meter().counter("c");
    const auto sizes = numbers.meter().histogram("h", {.unit = "By"});
    const auto level = numbers.meter().up_down_counter("l");
    std::int64_t seen = 0;
    std::uint64_t recorded = 0;
    std::map<std::uint64_t, std::int64_t> starts;  // of a start the last value
    std::map<std::uint64_t, std::uint64_t> counts;
    std::uint64_t last_end = 0;
    int restarts = 0;
    const std::chrono::nanoseconds jumps[] = {std::chrono::hours(1), -std::chrono::hours(2), std::chrono::seconds(10),
                                              -std::chrono::milliseconds(5), std::chrono::nanoseconds(0), -std::chrono::hours(24)};
    for (const auto jump : jumps) {
      counter.add(5);
      sizes.record(1);
      level.add(1);
      recorded += 1;
      numbers.advance(jump);
      for (const ReadMetric& metric : numbers.collect()) {
        const ReadPoint& p = metric.points.at(0);
        ASSERT_LT(p.start, p.time);
        if (metric.name == "l") {
          EXPECT_EQ(Numbers::whole(p), static_cast<std::int64_t>(recorded)) << "a level is what it is, whatever the clock";
        } else if (metric.name == "h") {
          if (temporality == Temporality::delta) counts[counts.size()] = p.count;
          else counts[to_ns(p.start)] = p.count;
        } else if (temporality == Temporality::delta) {
          seen += Numbers::whole(p);
          if (last_end != 0 && to_ns(p.start) != last_end) ++restarts;
          last_end = to_ns(p.time);
        } else {
          starts[to_ns(p.start)] = Numbers::whole(p);
        }
      }
    }
    std::uint64_t counted = 0;
    for (const auto& [start, count] : counts) counted += count;
    EXPECT_EQ(counted, recorded);
    if (temporality == Temporality::delta) {
      EXPECT_EQ(seen, 30);
      EXPECT_EQ(restarts, 2) << "only where the clock was turned far back";
    } else {
      for (const auto& [start, value] : starts) seen += value;
      EXPECT_EQ(seen, 30);
      EXPECT_EQ(starts.size(), 3u);
    }
  }
}

// Floating-point additions depend on their order, and that a thread ends changes it.
TEST(TemporalityTest, AMonotonicSumDoesNotFallWhenThreadsEnd) {
  HOLDS("MT-35");
  for (const Temporality temporality : {Temporality::cumulative, Temporality::delta}) {
    for (unsigned seed = 0; seed < 20; ++seed) {
      Numbers numbers(with(temporality));
      const auto counter = numbers.meter().counter<double>("c");
      constexpr int kThreads = 8;
      std::vector<std::unique_ptr<std::latch>> ends;
      std::latch added(kThreads);
      std::vector<std::thread> threads;
      double expected = 0;
      for (int t = 1; t <= kThreads; ++t) {
        ends.push_back(std::make_unique<std::latch>(1));
        threads.emplace_back([&, t, end = ends.back().get()] {
          counter.add(0.1 * t);
          added.count_down();
          end->wait();
        });
        expected += 0.1 * t;
      }
      added.wait();
      std::mt19937 random(seed);
      std::vector<std::size_t> order{0, 1, 2, 3, 4, 5, 6, 7};
      std::shuffle(order.begin(), order.end(), random);
      double told = 0;
      std::uint64_t start = 0;
      const auto look = [&] {
        numbers.advance(std::chrono::seconds(1));
        for (const ReadMetric& metric : numbers.collect()) {
          const double value = Numbers::real(metric.points.at(0));
          if (temporality == Temporality::delta) {
            ASSERT_GE(value, 0);
            told += value;
          } else {
            ASSERT_GE(value, told);
            told = value;
            if (start != 0) {
              ASSERT_EQ(to_ns(metric.points[0].start), start);
            }
            start = to_ns(metric.points[0].start);
          }
        }
      };
      look();
      for (const std::size_t t : order) {
        ends[t]->count_down();
        threads[t].join();
        look();
      }
      EXPECT_NEAR(told, expected, 1e-12);
    }
  }
}

TEST(TemporalityTest, ASumThatHasBecomeInfiniteIsToldOnceAndNoNumberIsMadeOfIt) {
  HOLDS("MT-74");
  Numbers numbers(with(Temporality::delta));
  const auto counter = numbers.meter().counter<double>("c");
  counter.add(std::numeric_limits<double>::max());
  counter.add(std::numeric_limits<double>::max());
  EXPECT_EQ(Numbers::real(numbers.points().at(0)), std::numeric_limits<double>::infinity());
  counter.add(1);
  EXPECT_THAT(numbers.collect(), IsEmpty());
  EXPECT_THAT(numbers.said(), ElementsAre(HasSubstr("the sum of instrument c")));
}

// What an ended thread has recorded and nobody was told of yet is not what was told before.
TEST(TemporalityTest, AClockThatIsTurnedBackLosesNothingOfThreadsThatHaveEnded) {
  HOLDS("MT-45", "MT-47");
  for (const Temporality temporality : {Temporality::cumulative, Temporality::delta}) {
    Numbers numbers(with(temporality));
    const auto sizes = numbers.meter().histogram("h", {.unit = "By"});
    const auto times = numbers.meter().histogram("d", {.unit = "s"});
    const auto counter = numbers.meter().counter("c");
    const auto work = [&] {
      std::thread([&] {
        for (int i = 0; i < 5; ++i) {
          sizes.record(1);
          times.record(1);
          counter.add(1);
        }
      }).join();
    };
    work();
    numbers.advance(std::chrono::seconds(10));
    (void)numbers.collect();
    work();
    numbers.advance(-std::chrono::seconds(20));
    const auto all = numbers.collect();
    EXPECT_EQ(Numbers::named(all, "h").points.at(0).count, 5u);
    EXPECT_EQ(Numbers::named(all, "d").points.at(0).count, 5u);
    EXPECT_EQ(Numbers::whole(Numbers::named(all, "c").points.at(0)), 5);
  }
}

// ---- observables

TEST(ObservableTest, CallbacksAreCalledOnceForEachCollection) {
  HOLDS("MT-03", "MT-10", "MT-11", "MT-61");
  Numbers numbers;
  int first = 0;
  int second = 0;
  const auto gauge = numbers.meter().observable_gauge<std::int64_t>("g", {}, [&](const Observer<std::int64_t>& o) {
    o.observe(++first, {{"from", "creation"}});
    o.observe(100, {{"from", "creation too"}});
  });
  {
    const auto registration = gauge.add_callback([&](const Observer<std::int64_t>& o) { o.observe(++second, {{"from", "later"}}); });
    const auto all = numbers.collect();
    ASSERT_EQ(all.at(0).points.size(), 3u);
    EXPECT_EQ(all[0].points[0].time, all[0].points[1].time);
    numbers.collect();
  }
  const auto all = numbers.collect();
  EXPECT_EQ(first, 3);
  EXPECT_EQ(second, 2);
  EXPECT_EQ(all.at(0).points.size(), 2u) << "what is not observed is not told";
}

TEST(ObservableTest, TotalsBecomeDeltasAndAFallBeginsAnew) {
  HOLDS("MT-43", "MT-46", "MT-75");
  for (const Temporality temporality : {Temporality::delta, Temporality::cumulative}) {
    Numbers numbers(with(temporality));
    const std::uint64_t begin = numbers.now();
    double total = 0;
    numbers.meter().observable_counter<double>("t", {}, [&](const Observer<double>& o) { o.observe(total); });
    std::vector<double> told;
    std::vector<std::uint64_t> starts;
    for (const double now : {10.0, 15.0, 15.0, 4.0, 6.0}) {
      total = now;
      numbers.advance(std::chrono::seconds(1));
      const auto all = numbers.collect();
      told.push_back(Numbers::real(all.at(0).points.at(0)));
      starts.push_back(to_ns(all[0].points[0].start));
    }
    EXPECT_EQ(starts[0], begin);
    if (temporality == Temporality::delta) {
      EXPECT_THAT(told, ElementsAre(10, 5, 0, 4, 2));
      for (std::size_t i = 1; i < starts.size(); ++i) EXPECT_EQ(starts[i], begin + i * 1'000'000'000) << "the collection before";
    } else {
      EXPECT_THAT(told, ElementsAre(10, 15, 15, 4, 6));
      EXPECT_EQ(starts[0], starts[2]);
      EXPECT_GT(starts[3], starts[2]);
      EXPECT_EQ(starts[4], starts[3]);
    }
  }
}

TEST(ObservableTest, WhatIsObservedOutsideOfTheCallOrAfterAThrowDoesNotCount) {
  HOLDS("MT-62");
  Numbers numbers;
  std::optional<Observer<double>> leaked;
  numbers.meter().observable_gauge("leak", {}, [&](const Observer<double>& o) { leaked = o; });
  numbers.meter().observable_gauge("throws", {}, [](const Observer<double>& o) {
    o.observe(1);
    throw std::runtime_error("no sensor");
  });
  const auto all = numbers.collect();
  leaked->observe(5);
  EXPECT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].name, "throws");
  EXPECT_THAT(numbers.said(), ElementsAre(HasSubstr("the callback of instrument throws threw no sensor")));
  EXPECT_EQ(numbers.collect().size(), 1u);
}

TEST(ObservableTest, ARegistrationCanEndWhileItsCallbackRuns) {
  HOLDS("MT-14");
  Numbers numbers;
  const auto gauge = numbers.meter().observable_gauge("g");
  std::atomic<bool> stop{false};
  std::thread collecting([&] {
    while (!stop) numbers.collect();
  });
  for (int i = 0; i < 200; ++i) {
    auto alive = std::make_unique<int>(i);
    auto registration = gauge.add_callback([&alive](const Observer<double>& o) { o.observe(*alive); });
    registration.remove();
    alive.reset();
  }
  stop = true;
  collecting.join();
  CallbackRegistration own;
  own = gauge.add_callback([&](const Observer<double>&) { own.remove(); });
  numbers.collect();
  numbers.collect();
}

// What is recorded can be told while a callback hangs: by whoever can wait no longer.
TEST(ObservableTest, WhileACallbackHangsWhatIsRecordedCanBeTold) {
  HOLDS("MT-61");
  for (const Temporality temporality : {Temporality::delta, Temporality::cumulative}) {
    Numbers numbers(with(temporality));
    const auto counter = numbers.meter().counter("c");
    std::latch in(1);
    std::latch go(1);
    bool hangs = false;
    numbers.meter().observable_counter("total", {}, [&](const auto& o) {
      if (hangs) {
        in.count_down();
        go.wait();
      }
      o.observe(hangs ? 9 : 4);
    });
    counter.add(1);
    numbers.advance(std::chrono::seconds(1));
    (void)numbers.collect();
    EXPECT_EQ(numbers.aggregator().in_callback(), "");
    const std::uint64_t first = numbers.now();
    hangs = true;
    counter.add(2);
    numbers.advance(std::chrono::seconds(1));
    std::vector<ReadMetric> late;
    std::thread hanging([&] { late = numbers.collect(); });
    in.wait();
    EXPECT_EQ(numbers.aggregator().in_callback(), "total of meter test");
    const auto all = numbers.collect_recorded();
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(Numbers::whole(all[0].points.at(0)), temporality == Temporality::delta ? 2 : 3);
    numbers.advance(std::chrono::seconds(1));
    go.count_down();
    hanging.join();
    const ReadMetric& total = Numbers::named(late, "total");
    EXPECT_EQ(Numbers::whole(total.points.at(0)), temporality == Temporality::delta ? 5 : 9);
    if (temporality == Temporality::delta) {
      EXPECT_EQ(to_ns(total.points[0].start), first) << "since it was told last";
    }
    EXPECT_EQ(late.size(), temporality == Temporality::delta ? 1u : 2u);
  }
}


// ---- views

TEST(ViewTest, SelectsByEachCriterionAndAll) {
  HOLDS("MT-23", "MT-24", "MT-31");
  const auto dropped = [](ViewSelector select) {
    Numbers numbers(with(View{.select = std::move(select), .aggregation = Aggregation::drop}));
    const auto counter = numbers.meter().counter("task.count", {.unit = "{task}"});
    counter.add(1);
    numbers.meter().histogram("other").record(1);
    const bool gone = !counter.enabled();
    EXPECT_EQ(numbers.collect().size(), gone ? 1u : 2u);
    return gone;
  };
  EXPECT_TRUE(dropped({.name = "task.count"}));
  EXPECT_TRUE(dropped({.name = "Task.Count"}));
  EXPECT_TRUE(dropped({.name = "task.*"}));
  EXPECT_TRUE(dropped({.name = "t?sk*unt"}));
  EXPECT_FALSE(dropped({.name = "task"}));
  EXPECT_FALSE(dropped({.name = "task.?"}));
  EXPECT_TRUE(dropped({.name = "task.*", .kind = InstrumentKind::counter, .unit = "{task}", .meter_name = "test"}));
  EXPECT_FALSE(dropped({.name = "task.*", .kind = InstrumentKind::gauge}));
  EXPECT_FALSE(dropped({.name = "task.*", .unit = "s"}));
  EXPECT_FALSE(dropped({.meter_name = "another"}));
  EXPECT_FALSE(dropped({.name = "task.*", .meter_version = "2"}));
  EXPECT_FALSE(dropped({.name = "task.*", .meter_schema_url = "u"}));
}

TEST(ViewTest, AStarDropsWhatNoOtherViewWants) {
  HOLDS("MT-09", "MT-31");
  MetricConfig config;
  config.views.push_back(View{.select = {.name = "*"}, .aggregation = Aggregation::drop});
  config.views.push_back(View{.select = {.name = "kept"}});
  Numbers numbers(config);
  const auto kept = numbers.meter().counter("kept");
  const auto gone = numbers.meter().counter("gone");
  kept.add(1);
  gone.add(1);
  EXPECT_TRUE(kept.enabled());
  EXPECT_FALSE(gone.enabled());
  EXPECT_EQ(numbers.collect().size(), 1u);
}

TEST(ViewTest, RenamesKeepsKeysAndSetsBuckets) {
  HOLDS("MT-25", "MT-26", "MT-30");
  Numbers numbers(with(View{.select = {.name = "latency"},
                            .name = "the latency",
                            .description = "of all",
                            .attribute_keys = {{"path"}},
                            .aggregation = Aggregation::explicit_histogram,
                            .boundaries = {1, 2}}));
  const auto latency = numbers.meter().histogram("latency", {.unit = "s", .description = "d", .boundaries = {7}});
  latency.record(1, {{"path", "/"}, {"user", "a"}});
  latency.record(3, {{"path", "/"}, {"user", "b"}});
  const auto all = numbers.collect();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].name, "the latency");
  EXPECT_EQ(all[0].description, "of all");
  ASSERT_EQ(all[0].points.size(), 1u);
  EXPECT_EQ(all[0].points[0].attributes.size(), 1u);
  EXPECT_THAT(all[0].points[0].counts, ElementsAre(1, 0, 1));
}

TEST(ViewTest, BoundariesAloneAskForExplicitBuckets) {
  HOLDS("MT-30");
  Numbers numbers(with(View{.select = {.name = "*"}, .boundaries = {0.1, 1, 10}}));
  numbers.meter().histogram("duration", {.unit = "s"}).record(0.5);
  numbers.meter().histogram("advised", {.unit = "s", .boundaries = {1, 2}}).record(0.5);
  const auto all = numbers.collect();
  for (const ReadMetric& metric : all) {
    EXPECT_EQ(metric.kind, Kind::histogram) << metric.name;
    EXPECT_EQ(metric.points.at(0).bounds, (std::vector<double>{0.1, 1, 10})) << metric.name;
  }
}

TEST(ViewTest, ExplicitBucketsWithoutBoundariesAreTheDefaultOnesWhateverTheAdvice) {
  HOLDS("MT-19");
  Numbers numbers(with(View{.select = {.name = "*"}, .aggregation = Aggregation::explicit_histogram}));
  numbers.meter().histogram("advised", {.unit = "s", .boundaries = {1, 2}}).record(0.5);
  EXPECT_EQ(numbers.points().at(0).bounds.size(), 15u);
}


TEST(ViewTest, TwoViewsAreTwoStreams) {
  HOLDS("MT-28");
  MetricConfig config;
  config.views.push_back(View{.select = {.name = "c"}, .name = "by a", .attribute_keys = {{"a"}}});
  config.views.push_back(View{.select = {.name = "c"}, .name = "all", .excluded_keys = {"a", "b"}});
  config.views.push_back(View{.select = {.name = "c"}, .name = "all"});
  Numbers numbers(config);
  const auto counter = numbers.meter().counter("c");
  const auto bound = counter.bind({{"a", 2}, {"b", 3}});
  for (int i = 0; i < 3; ++i) {
    counter.add(1, {{"a", 1}, {"b", i}});
    bound.add(10);
  }
  const auto all = numbers.collect();
  EXPECT_EQ(Numbers::named(all, "by a").points.size(), 2u);
  EXPECT_EQ(Numbers::whole(Numbers::named(all, "by a").points[0]), 3);
  EXPECT_EQ(Numbers::whole(Numbers::named(all, "all").points.at(0)), 33);
  EXPECT_THAT(numbers.said(), Contains(HasSubstr("have the name all")));
}

TEST(ViewTest, AnImpossibleAggregationIsAsIfItWereNotThere) {
  HOLDS("MT-29", "MT-33");
  Numbers numbers(with(View{.select = {.name = "*"}, .aggregation = Aggregation::exponential_histogram}));
  numbers.meter().observable_counter("o", {}, [](const auto& o) { o.observe(3); });
  const auto level = numbers.meter().up_down_counter("level");
  level.add(-4);
  level.add(4);
  numbers.meter().histogram("h").record(1);
  const auto all = numbers.collect();
  EXPECT_EQ(Numbers::named(all, "o").kind, Kind::sum);
  const ReadMetric& distribution = Numbers::named(all, "level");
  ASSERT_EQ(distribution.kind, Kind::exponential_histogram);
  EXPECT_FALSE(distribution.points.at(0).sum.has_value()) << "there may be values below zero";
  EXPECT_THAT(distribution.points[0].negative, ElementsAre(1));
  EXPECT_THAT(distribution.points[0].positive, ElementsAre(1));
  EXPECT_EQ(Numbers::named(all, "h").points.at(0).sum, 1);
  EXPECT_THAT(numbers.said(), ElementsAre(HasSubstr("a view of instrument o asks for an aggregation")));
}

// ---- cardinality

TEST(CardinalityTest, BeyondTheLimitAllIsAddedUpInOneSeries) {
  HOLDS("MT-48", "MT-49", "MT-50");
  Numbers numbers;
  const auto counter = numbers.meter().counter("c");
  for (int i = 0; i < 2000; ++i) counter.add(1, {{"i", i}});
  const auto whole = numbers.collect();
  ASSERT_EQ(whole.at(0).points.size(), 2000u);
  for (int i = 1990; i < 2100; ++i) counter.add(1, {{"i", i}});
  const auto all = numbers.collect();
  ASSERT_EQ(all.at(0).points.size(), 2001u);
  std::int64_t sum = 0;
  std::int64_t overflow = 0;
  for (const ReadPoint& point : all[0].points) {
    sum += Numbers::whole(point);
    if (const AnyValue* mark = find(point.attributes, "otel.metric.overflow")) {
      EXPECT_EQ(*mark, AnyValue{true});
      overflow = Numbers::whole(point);
    }
  }
  EXPECT_EQ(sum, 2110);
  EXPECT_EQ(overflow, 100);
  EXPECT_THAT(numbers.said(), ElementsAre(HasSubstr("more than 2000 sets of attributes")));
}

TEST(CardinalityTest, AViewsLimitCountsAfterItsKeys) {
  HOLDS("MT-48");
  Numbers numbers(with(View{.select = {.name = "c"}, .attribute_keys = {{"a"}}, .cardinality_limit = 3}));
  const auto counter = numbers.meter().counter("c");
  for (int i = 0; i < 50; ++i) counter.add(1, {{"a", i % 3}, {"b", i}});
  EXPECT_EQ(numbers.collect().at(0).points.size(), 3u);
  counter.add(1, {{"a", 3}});
  EXPECT_EQ(numbers.collect().at(0).points.size(), 4u);
}

TEST(CardinalityTest, OfWhatIsObservedTheFirstStayAndThoseThatAreNoMoreMakeRoom) {
  HOLDS("MT-51");
  MetricConfig config;
  config.cardinality_limit = 3;
  Numbers numbers(config);
  int from = 0;
  numbers.meter().observable_gauge<std::int64_t>("g", {}, [&](const Observer<std::int64_t>& o) {
    for (int i = from; i < from + 5; ++i) o.observe(i, {{"i", i}});
  });
  const auto values = [&] {
    std::vector<std::int64_t> all;
    for (const ReadPoint& p : numbers.points()) all.push_back(Numbers::whole(p));
    return all;
  };
  EXPECT_THAT(values(), ElementsAre(0, 1, 2, 4));
  EXPECT_THAT(values(), ElementsAre(0, 1, 2, 4));
  from = 10;
  (void)values();
  EXPECT_THAT(values(), Contains(10));
}

// A series that is not observed once, and comes back.
TEST(CardinalityTest, ATotalThatIsNotObservedOnceIsNotToldTwice) {
  HOLDS("MT-51");
  MetricConfig config = with(Temporality::delta);
  config.cardinality_limit = 2;
  Numbers numbers(config);
  std::map<std::string, std::int64_t> totals;
  numbers.meter().observable_counter("t", {}, [&](const Observer<std::int64_t>& o) {
    for (const auto& [name, total] : totals) o.observe(total, {{"name", name}});
  });
  std::int64_t told = 0;
  const auto look = [&](std::map<std::string, std::int64_t> now) {
    totals = std::move(now);
    numbers.advance(std::chrono::seconds(1));
    for (const ReadMetric& metric : numbers.collect()) {
      for (const ReadPoint& p : metric.points) told += Numbers::whole(p);
    }
  };
  look({{"a", 100}, {"b", 10}});
  EXPECT_EQ(told, 110);
  look({{"b", 10}});
  look({{"a", 110}, {"b", 10}});
  EXPECT_EQ(told, 120);
  // The others are one series.
  look({{"a", 110}, {"b", 10}, {"c", 50}, {"d", 100}});
  EXPECT_EQ(told, 270);
  look({{"a", 110}, {"b", 10}, {"c", 50}});
  look({{"a", 110}, {"b", 10}, {"c", 50}, {"d", 105}});
  EXPECT_EQ(told, 275);
}


// ---- exemplars

TEST(ExemplarTest, AreFromSampledSpansOnlyUnlessTheFilterSaysOtherwise) {
  HOLDS("MT-53", "MT-54");
  const auto exemplars = [](ExemplarFilter filter) {
    MetricConfig config;
    config.exemplar_filter = filter;
    Numbers numbers(config);
    const auto sizes = numbers.meter().histogram("h", {.unit = "By"});
    sizes.record(1);
    SpanContext span;
    span.trace_id = TraceId::random();
    span.span_id = SpanId::random();
    {
      const ContextScope not_sampled(TraceContext{span, {}});
      sizes.record(20);
    }
    span.flags = SpanContext::kSampled;
    const ContextScope sampled(TraceContext{span, {}});
    sizes.record(300);
    return numbers.collect().at(0).points.at(0).exemplars.size();
  };
  EXPECT_EQ(exemplars(ExemplarFilter::trace_based), 1u);
  EXPECT_EQ(exemplars(ExemplarFilter::always_on), 3u);
  EXPECT_EQ(exemplars(ExemplarFilter::always_off), 0u);
}

TEST(ExemplarTest, TellTheValueTheSpanAndWhatTheViewLeftOut) {
  HOLDS("MT-55");
  Numbers numbers(with(View{.select = {.name = "h"}, .attribute_keys = {{"kept"}}}));
  const auto sizes = numbers.meter().histogram<std::int64_t>("h", {.unit = "By"});
  SpanContext span;
  span.trace_id = TraceId::random();
  span.span_id = SpanId::random();
  span.flags = SpanContext::kSampled;
  const ContextScope current(TraceContext{span, {}});
  sizes.record(42, {{"kept", 1}, {"scene", "S2A"}});
  const auto all = numbers.collect();
  ASSERT_EQ(all.at(0).points.at(0).exemplars.size(), 1u);
  const ReadExemplar& exemplar = all[0].points[0].exemplars[0];
  EXPECT_EQ(exemplar.value, (std::variant<std::int64_t, double>(std::int64_t{42})));
  EXPECT_EQ(exemplar.trace_id, span.trace_id);
  EXPECT_EQ(exemplar.span_id, span.span_id);
  EXPECT_EQ(to_ns(exemplar.time), numbers.now());
  EXPECT_EQ(Numbers::text(exemplar.filtered_attributes, "scene"), "S2A");
  EXPECT_EQ(exemplar.filtered_attributes.size(), 1u);
  EXPECT_THAT(numbers.collect().at(0).points.at(0).exemplars, IsEmpty()) << "told once";
}

TEST(ExemplarTest, OneOfEachBucketAndAFairSampleOfAnExponential) {
  HOLDS("MT-57", "MT-58");
  MetricConfig config;
  config.exemplar_filter = ExemplarFilter::always_on;
  Numbers numbers(config);
  const auto sizes = numbers.meter().histogram("h", {.unit = "By"});
  const auto time = numbers.meter().histogram("d", {.unit = "s"});
  double drawn = 0;
  int exemplars = 0;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 1000; ++i) {
      sizes.record(i % 30);
      time.record(i);
    }
    const auto all = numbers.collect();
    std::set<int> buckets;
    for (const ReadExemplar& e : Numbers::named(all, "h").points.at(0).exemplars) {
      const double v = std::get<double>(e.value);
      buckets.insert(v <= 0 ? 0 : v <= 5 ? 1 : v <= 10 ? 2 : v <= 25 ? 3 : 4);
    }
    ASSERT_EQ(buckets.size(), 5u);
    ASSERT_EQ(Numbers::named(all, "h").points[0].exemplars.size(), 5u);
    ASSERT_EQ(Numbers::named(all, "d").points.at(0).exemplars.size(), 20u);
    for (const ReadExemplar& e : Numbers::named(all, "d").points[0].exemplars) {
      drawn += std::get<double>(e.value);
      ++exemplars;
    }
  }
  // 2,000 draws out of 0..999: the mean's deviation is 6.5; this is eight of them.
  EXPECT_NEAR(drawn / exemplars, 499.5, 52);
}

// ---- instruments

TEST(InstrumentTest, TheSameTwiceIsOneAndAnotherOfTheNameIsSaid) {
  HOLDS("MT-05", "MT-15", "MT-16", "MT-76");
  Numbers numbers;
  const Meter meter = numbers.meter();
  meter.counter("requests", {.unit = "1"}).add(1);
  meter.counter("requests", {.unit = "1"}).add(2);
  EXPECT_THAT(numbers.said(), IsEmpty());
  meter.counter("Requests", {.unit = "1"}).add(4);
  EXPECT_THAT(numbers.said(), ElementsAre(HasSubstr("names know no case; it is the same as requests")));
  meter.counter("requests", {.unit = "s"}).add(8);
  EXPECT_THAT(numbers.said().back(), AllOf(HasSubstr("both are sent"), HasSubstr("view")));
  meter.counter<double>("requests", {.unit = "1"}).add(16);
  const auto pieces = numbers.pieces();
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(Numbers::whole(otlp::read_metric(pieces[0]).points.at(0)), 7);
  EXPECT_EQ(otlp::read_metric(pieces[1]).unit, "s");
  EXPECT_EQ(Numbers::real(otlp::read_metric(pieces[2]).points.at(0)), 16);
}

TEST(InstrumentTest, NamesAreLookedAtAndUsedAsTheyAre) {
  HOLDS("MT-04", "MT-06");
  Numbers numbers;
  const Meter meter = numbers.meter();
  meter.counter(std::string(255, 'a'), {.unit = std::string(200, 'u'), .description = std::string(5000, 'd')}).add(1);
  meter.counter("a_b.c-d/e9").add(1);
  EXPECT_THAT(numbers.said(), IsEmpty());
  for (const std::string& name : {std::string(256, 'a'), std::string("9lives"), std::string("größe"), std::string(), std::string("a b")}) {
    const std::size_t before = numbers.said().size();
    meter.counter(name).add(1);
    EXPECT_EQ(numbers.said().size(), before + 1) << name;
  }
  EXPECT_EQ(numbers.collect().size(), 7u);
}

TEST(InstrumentTest, AdviceThatMakesNoSenseIsLeftOutAndTheFirstCounts) {
  HOLDS("MT-18");
  Numbers numbers;
  const Meter meter = numbers.meter();
  meter.histogram("bad", {.unit = "By", .boundaries = {3, 2}}).record(1);
  EXPECT_THAT(numbers.said(), ElementsAre(HasSubstr("its boundaries do not ascend")));
  meter.histogram("h", {.boundaries = {1}}).record(1);
  meter.histogram("h", {.boundaries = {2}}).record(1);
  EXPECT_THAT(numbers.said().back(), HasSubstr("boundaries differ"));
  const auto all = numbers.collect();
  EXPECT_EQ(Numbers::named(all, "bad").points.at(0).bounds.size(), 15u);
  EXPECT_EQ(Numbers::named(all, "h").points.at(0).bounds, std::vector<double>{1});
}

TEST(InstrumentTest, OnlyWhatIsNewGetsANumber) {
  Numbers numbers;
  for (int i = 0; i < 1000; ++i) {
    numbers.meter().counter("y", {.unit = "1", .description = "Ys"}).bind({{"a", 1}, {"b", std::uint64_t{1} << 63}}).add(1);
  }
  EXPECT_EQ(numbers.recording().next_instrument.load(), 1u);
  EXPECT_EQ(numbers.recording().next_bound.load(), 1u);
  EXPECT_EQ(Numbers::whole(numbers.points().at(0)), 1000);
}

TEST(InstrumentTest, ANameThatIsNoUtf8IsTheSameInstrumentEachTime) {
  HOLDS("MT-05");
  Numbers numbers;
  for (int i = 0; i < 3; ++i) numbers.meter().counter("n\xff", {.unit = "u\xff", .description = "d\xff"}).add(1);
  EXPECT_EQ(numbers.said().size(), 1u);
  EXPECT_EQ(Numbers::whole(numbers.points().at(0)), 3);
}

TEST(InstrumentTest, WhatIsRefusedIsSaidOfEachThatHasTheName) {
  Numbers numbers;
  numbers.meter().counter("errors", {.unit = "a"}).add(-1);
  numbers.meter().counter("errors", {.unit = "b"}).add(-1);
  numbers.meter().counter("errors", {.unit = "b"}).add(-1);
  EXPECT_EQ(std::ranges::count_if(numbers.said(), [](const std::string& text) { return text.find("less than zero") != text.npos; }), 2);
}


TEST(InstrumentTest, WithoutATelemetryNothingHappens) {
  HOLDS("MT-22");
  const Meter none;
  none.counter("c").add(1, {{"a", 1}});
  none.histogram("h").bind({{"a", 1}}).record(2);
  const auto registration = none.observable_gauge("g").add_callback([](const Observer<double>&) { FAIL(); });
  EXPECT_FALSE(none.counter("c").enabled());
}

// ---- threads

// Totals over any interleaving of threads that come and go, collections, and overflow are what was added.
TEST(ThreadsTest, NothingIsLostWhateverHappensAtTheSameTime) {
  HOLDS("MT-14", "MT-50", "MT-68");
  for (const Temporality temporality : {Temporality::delta, Temporality::cumulative}) {
    MetricConfig config = with(temporality);
    config.cardinality_limit = 40;
    config.exemplar_filter = ExemplarFilter::always_on;
    Numbers numbers(config);
    const auto counter = numbers.meter().counter("c");
    const auto real = numbers.meter().counter<double>("r");
    const auto sizes = numbers.meter().histogram<std::int64_t>("h", {.unit = "By"});
    const auto time = numbers.meter().histogram("d", {.unit = "s"});
    const auto bound = counter.bind({{"bound", true}});
    constexpr int kThreads = 4;
    constexpr int kRounds = 6;
    constexpr int kAdds = 1500;
    std::atomic<int> running{kThreads};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int r = 0; r < kRounds; ++r) {
          // A thread that ends hands over what it has.
          std::thread([&, r] {
            std::mt19937 random(static_cast<unsigned>(t * 100 + r));
            for (int i = 0; i < kAdds; ++i) {
              const int key = static_cast<int>(random() % 80);
              counter.add(1, {{"k", key}, {"shared", "yes"}});
              bound.add(2);
              real.add(0.5, {{"k", key % 7}});
              sizes.record(key, {{"k", key % 5}});
              time.record(std::ldexp(1.0, key % 60 - 30), {{"k", key % 3}});
            }
          }).join();
        }
        --running;
      });
    }
    std::int64_t whole = 0;
    double sum = 0;
    std::uint64_t counts = 0;
    double sizes_sum = 0;
    std::uint64_t durations = 0;
    const auto take = [&](const std::vector<ReadMetric>& all) {
      if (temporality == Temporality::cumulative) whole = 0, sum = 0, counts = 0, sizes_sum = 0, durations = 0;
      for (const ReadMetric& metric : all) {
        for (const ReadPoint& p : metric.points) {
          if (metric.name == "c") whole += Numbers::whole(p);
          if (metric.name == "r") sum += Numbers::real(p);
          if (metric.name == "h") {
            counts += p.count;
            sizes_sum += *p.sum;
            std::uint64_t buckets = 0;
            for (const std::uint64_t n : p.counts) buckets += n;
            EXPECT_EQ(buckets, p.count) << "a distribution is whole at every collection";
          }
          if (metric.name == "d") {
            durations += p.count;
            std::uint64_t buckets = p.zero_count;
            for (const std::uint64_t n : p.positive) buckets += n;
            EXPECT_EQ(buckets, p.count);
          }
        }
      }
    };
    while (running > 0) take(numbers.collect());
    for (std::thread& thread : threads) thread.join();
    take(numbers.collect());
    constexpr int kAll = kThreads * kRounds * kAdds;
    EXPECT_EQ(whole, 3 * kAll);
    EXPECT_EQ(sum, 0.5 * kAll);
    EXPECT_EQ(counts, static_cast<std::uint64_t>(kAll));
    EXPECT_EQ(durations, static_cast<std::uint64_t>(kAll));
    double expected = 0;
    for (int t = 0; t < kThreads; ++t) {
      for (int r = 0; r < kRounds; ++r) {
        std::mt19937 random(static_cast<unsigned>(t * 100 + r));
        for (int i = 0; i < kAdds; ++i) expected += static_cast<int>(random() % 80);
      }
    }
    EXPECT_EQ(sizes_sum, expected);
  }
}

TEST(ThreadsTest, InstrumentsOfOneNameMadeAtTheSameTimeAreOne) {
  HOLDS("MT-14");
  Numbers numbers;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) numbers.meter().counter("c" + std::to_string(i)).bind({{"a", i}}).add(1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto all = numbers.collect();
  ASSERT_EQ(all.size(), 50u);
  for (const ReadMetric& metric : all) EXPECT_EQ(Numbers::whole(metric.points.at(0)), 8) << metric.name;
}

// More sets than a thread remembers: slower, and right.
TEST(ThreadsTest, AThreadThatSeesTooManySetsForgetsAndCountsOn) {
  Numbers numbers;
  const auto counter = numbers.meter().counter("c");
  constexpr int kSets = 40'000;
  for (int i = 0; i < kSets; ++i) counter.add(1, {{"i", i}});
  for (int i = 0; i < 10; ++i) counter.add(1, {{"i", i}});
  std::int64_t sum = 0;
  for (const ReadPoint& p : numbers.points()) sum += Numbers::whole(p);
  EXPECT_EQ(sum, kSets + 10);
}

TEST(WriteTest, ALargeStreamIsCutBetweenDataPoints) {
  MetricConfig config;
  config.cardinality_limit = 100'000;
  Numbers numbers(config);
  const auto counter = numbers.meter().counter("c", {.unit = "u"});
  for (int i = 0; i < 5000; ++i) counter.add(1, {{"some.attribute", "with a value"}, {"i", i}});
  const auto pieces = numbers.pieces();
  ASSERT_GT(pieces.size(), 1u);
  std::size_t points = 0;
  for (const std::string& piece : pieces) {
    EXPECT_LT(piece.size(), 128u * 1024) << "a record may have 256 KiB";
    const ReadMetric metric = otlp::read_metric(piece);
    EXPECT_EQ(metric.name, "c");
    EXPECT_EQ(metric.unit, "u");
    EXPECT_TRUE(metric.monotonic);
    points += metric.points.size();
  }
  EXPECT_EQ(points, 5000u);
}

// A record may have 256 KiB: a large data point must not take small ones with it that would have had room.
TEST(WriteTest, ALargeDataPointHasAPieceOfItsOwn) {
  Numbers numbers;
  const auto counter = numbers.meter().counter("c");
  const std::string large(200 * 1024, 'x');
  for (int i = 0; i < 600; ++i) counter.add(1, {{"some.attribute", std::string(60, 's')}, {"i", i}});
  counter.add(1, {{"large", large}});
  counter.add(1, {{"small", 1}});
  std::size_t points = 0;
  for (const std::string& piece : numbers.pieces()) {
    const ReadMetric metric = otlp::read_metric(piece);
    points += metric.points.size();
    if (piece.size() > large.size()) {
      EXPECT_EQ(metric.points.size(), 1u);
    } else {
      EXPECT_LE(piece.size(), 65u * 1024);
    }
  }
  EXPECT_EQ(points, 602u);
}

}  // namespace
}  // namespace waymark
