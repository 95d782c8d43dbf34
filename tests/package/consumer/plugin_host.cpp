// Loads sdk.cpp, built as a plugin, while it runs.
#include <dlfcn.h>

#include <cstdio>

int main(int argc, char** argv) {
  void* const plugin = dlopen("./plugin.so", RTLD_NOW);
  void* const begin = plugin != nullptr ? dlsym(plugin, "_Z9ten_linesiPPc") : nullptr;
  if (begin == nullptr) {
    std::fprintf(stderr, "plugin_host: %s\n", dlerror());
    return 1;
  }
  return reinterpret_cast<int (*)(int, char**)>(begin)(argc, argv);
}
