// The work of a peer program in C++, as tests/bench/peers/README.md words it: `PROGRAM URL WORK COUNT RATE`.
//
// Hides: arguments, pace, and the lines that the driver waits for.
// Threads: the program's first.
// Failure: ends the program, with a message.
#pragma once

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

namespace waymark::bench {

inline constexpr const char* kScene = "S2A_MSIL1C_20260101T100031_N0500_R02";  // 36 bytes
inline constexpr const char* kBand = "B02_10m_jp2_";                           // 12 bytes

struct Work {
  std::string url;
  std::string name;
  std::uint64_t count = 0;
  std::uint64_t rate = 0;  // a second, in bursts of a millisecond; 0: without a pause

  Work(int argc, char** argv) {
    if (argc != 5) {
      std::fprintf(stderr, "usage: %s URL WORK COUNT RATE\n", argv[0]);
      std::exit(2);
    }
    url = argv[1];
    name = argv[2];
    count = std::strtoull(argv[3], nullptr, 10);
    rate = std::strtoull(argv[4], nullptr, 10);
  }

  // Does operation(i) `count` times once the driver says so, then finish(), which delivers what is left; tells what a call
  // cost its caller, and waits until the driver has looked at the process.
  template <class Operation, class Finish>
  void perform(Operation&& operation, Finish&& finish) const {
    std::printf("ready\n");
    std::fflush(stdout);
    wait_for_line();
    double spent = 0;
    if constexpr (!std::is_same_v<std::decay_t<Operation>, std::nullptr_t>) {
      const std::uint64_t each = rate == 0 ? 1000 : rate / 1000;
      timespec next = now();
      for (std::uint64_t done = 0; done < count;) {
        if (rate != 0) {
          next.tv_nsec += 1'000'000;
          if (next.tv_nsec >= 1'000'000'000) {
            next.tv_nsec -= 1'000'000'000;
            ++next.tv_sec;
          }
          clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, nullptr);
        }
        const std::uint64_t end = std::min(count, done + each);
        const timespec begin = now();
        for (; done < end; ++done) operation(static_cast<std::int64_t>(done));
        const timespec after = now();
        spent += static_cast<double>(after.tv_sec - begin.tv_sec) * 1e9 + static_cast<double>(after.tv_nsec - begin.tv_nsec);
      }
    }
    finish();
    std::printf("recorded %llu ns %.1f\n", static_cast<unsigned long long>(count), spent / static_cast<double>(std::max<std::uint64_t>(count, 1)));
    std::fflush(stdout);
    wait_for_line();
  }

 private:
  static timespec now() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t;
  }
  static void wait_for_line() {
    char c = 0;
    while (read(0, &c, 1) == 1 && c != '\n') {
    }
  }
};

}  // namespace waymark::bench
