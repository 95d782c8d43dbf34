// What one thread has recorded into one series.
//
// Hides: how the owner writes without a lock while the collection reads. A sum only grows: it is read as it is. A histogram
//   has two halves: the collection turns to the other one, waits until the owner has left the record that it is at, and takes
//   what the first half holds.
// Threads: record() is the owner's alone; turn() and what it gives belong to whoever holds the aggregator's lock.
// Failure: none.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "metric/exponential.h"
#include "waymark/metric.h"
#include "waymark/propagation.h"

namespace waymark::metric {

enum class CellKind : std::uint8_t { sum_int, sum_double, last, histogram };

struct Exemplar {
  std::uint64_t time_ns = 0;  // 0: none
  std::uint64_t bits = 0;     // of the value, as the instrument has it
  TraceId trace_id;
  SpanId span_id;
  const std::string* filtered = nullptr;  // attributes that the view left out, encoded; lives as long as the aggregator
};

// How a histogram's stream cuts and keeps; constant.
struct HistogramShape {
  std::vector<double> bounds;    // explicit buckets, where `exponential` is false
  bool exponential = false;
  bool signed_values = false;    // there may be negative ones: two rows of buckets
  std::uint32_t max_buckets = 160;
  std::int32_t max_scale = kMaximumScale;
  std::uint32_t exemplars = 0;   // places in the reservoir; 0: none are kept

  [[nodiscard]] std::size_t buckets() const noexcept { return exponential ? max_buckets : bounds.size() + 1; }
};

// Numbers of one histogram over some time. `counts` and `exemplars` are one piece of memory each, made once.
struct Distribution {
  explicit Distribution(const HistogramShape& shape);
  Distribution(const Distribution&) = delete;
  Distribution& operator=(const Distribution&) = delete;

  std::uint64_t count = 0;
  double sum = 0;
  double minimum = 0;
  double maximum = 0;
  std::uint64_t zeros = 0;       // of an exponential one
  std::int32_t scale;
  Buckets positive;              // of an explicit one only its counts
  Buckets negative;
  std::vector<std::uint64_t> counts;
  std::vector<Exemplar> exemplars;
  std::uint64_t offered = 0;     // to the reservoir

  // The place in the reservoir that a measurement may take, or -1: it was counted before.
  std::int64_t add(const HistogramShape& shape, double value) noexcept;
  void merge(const HistogramShape& shape, const Distribution& other) noexcept;
  void clear(const HistogramShape& shape) noexcept;
  void clear_exemplars() noexcept;
  void downscale(std::int32_t shift) noexcept;

 private:
  std::size_t add_explicit(const HistogramShape& shape, double value) noexcept;
  void add_exponential(const HistogramShape& shape, double value) noexcept;
};

struct Series;

struct Cell {
  explicit Cell(CellKind what) noexcept : kind(what) {}
  const CellKind kind;
};

struct SumCell : Cell {
  using Cell::Cell;
  std::atomic<std::uint64_t> bits{0};  // an integer's, modulo 2^64, or a double's

  void add(std::int64_t value) noexcept {
    bits.store(bits.load(std::memory_order_relaxed) + static_cast<std::uint64_t>(value), std::memory_order_relaxed);
  }
  void add(double value) noexcept {
    const double sum = std::bit_cast<double>(bits.load(std::memory_order_relaxed)) + value;
    bits.store(std::bit_cast<std::uint64_t>(sum), std::memory_order_relaxed);
  }
};

// The last value is everybody's: the last store wins.
struct alignas(64) LastCell : Cell {
  using Cell::Cell;
  std::atomic<std::uint64_t> bits{0};
  std::atomic<bool> set{false};

  void put(std::uint64_t value) noexcept {
    bits.store(value, std::memory_order_relaxed);
    if (!set.load(std::memory_order_relaxed)) set.store(true, std::memory_order_release);
  }
};

struct alignas(64) HistogramCell : Cell {
  HistogramCell(const HistogramShape& how, bool owner_fences)
      : Cell(CellKind::histogram), shape(how), fences(owner_fences), halves{Distribution(how), Distribution(how)} {}

  const HistogramShape& shape;
  const bool fences;                      // the kernel has no membarrier: the owner pays for the order
  std::atomic<std::uint32_t> active{0};
  std::atomic<std::uint32_t> sequence{0};  // odd while the owner is at a record
  Distribution halves[2];
  // The collection's.
  bool turned = false;                    // the half that is not active has not been taken yet
  std::uint32_t at_turn = 0;

  // `sample(place, distribution)` is asked whether the measurement is to be kept as an exemplar.
  template <class Sample>
  void record(double value, Sample&& sample) noexcept {
    const std::uint32_t before = sequence.load(std::memory_order_relaxed);
    sequence.store(before + 1, std::memory_order_relaxed);
    if (fences) [[unlikely]] {
      std::atomic_thread_fence(std::memory_order_seq_cst);
    } else {
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    Distribution& half = halves[active.load(std::memory_order_acquire)];
    const std::int64_t place = half.add(shape, value);
    if (place >= 0) sample(half, place);
    sequence.store(before + 2, std::memory_order_release);
  }

  // Turns to the other half, which is empty. A fence for all threads must follow, then settled().
  void turn() noexcept {
    if (turned) return;
    active.store(1 - active.load(std::memory_order_relaxed), std::memory_order_release);
    turned = true;
  }
  void look() noexcept { at_turn = sequence.load(std::memory_order_acquire); }
  // Whether the owner has left the half that it was turned away from.
  [[nodiscard]] bool settled() const noexcept {
    return (at_turn & 1) == 0 || sequence.load(std::memory_order_acquire) != at_turn;
  }
  [[nodiscard]] Distribution& taken() noexcept { return halves[1 - active.load(std::memory_order_relaxed)]; }
};

}  // namespace waymark::metric
