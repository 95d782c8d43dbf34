// one_span.cpp without its SDK: what is not the SDK's.
#include <unistd.h>

#include <cstdio>

int main() {
  std::puts("ready");
  std::fflush(stdout);
  char c;
  return read(0, &c, 1) < 0 ? 1 : 0;
}
