#include "chaos/account.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace waymark::chaos {
namespace {

constexpr std::size_t kEntryBytes = 64;
static_assert(sizeof(Entry) <= kEntryBytes);

}  // namespace

void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

Account::Account(const std::string& path) : file_(open(path.c_str(), O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600)) {
  if (file_ < 0) give_up("chaostest: the account");
}

Account::~Account() { close(file_); }

void Account::add(const Entry& entry) const {
  char bytes[kEntryBytes] = {};
  std::memcpy(bytes, &entry, sizeof entry);
  if (write(file_, bytes, sizeof bytes) != static_cast<ssize_t>(sizeof bytes)) give_up("chaostest: the account");
}

std::vector<Entry> Account::read() const {
  struct stat file {};
  if (fstat(file_, &file) != 0) give_up("chaostest: the account");
  std::vector<char> bytes(static_cast<std::size_t>(file.st_size));
  if (pread(file_, bytes.data(), bytes.size(), 0) != file.st_size) give_up("chaostest: the account");
  std::vector<Entry> entries(bytes.size() / kEntryBytes);
  for (std::size_t i = 0; i < entries.size(); ++i) std::memcpy(&entries[i], &bytes[i * kEntryBytes], sizeof(Entry));
  return entries;
}

SharedOffset::SharedOffset(const std::string& path) {
  const int file = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof(std::int64_t)) != 0) give_up("chaostest: the clock's offset");
  void* page = mmap(nullptr, sizeof(std::int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (page == MAP_FAILED) give_up("chaostest: the clock's offset");
  number_ = static_cast<std::int64_t*>(page);
}

SharedOffset::~SharedOffset() { munmap(number_, sizeof(std::int64_t)); }

std::int64_t SharedOffset::get() const { return std::atomic_ref(*number_).load(); }
void SharedOffset::add(std::int64_t nanoseconds) { std::atomic_ref(*number_).fetch_add(nanoseconds); }

}  // namespace waymark::chaos
