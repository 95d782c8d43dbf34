#include "journal/definitions.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "journal/checksum.h"

namespace waymark::journal {
namespace {

struct EntryHeader {
  std::uint32_t kind;  // kResource or kScope
  std::uint32_t id;
  std::uint32_t bytes;
  std::uint32_t schema_bytes;  // of `bytes`, at the end
  std::uint64_t checksum;      // of the bytes
};
constexpr std::uint32_t kResource = 0;
constexpr std::uint32_t kScope = 1;
constexpr std::size_t kGreatestFile = 64 << 20;


// What one file holds.
struct Entries {
  std::string resource;
  std::vector<Scope> scopes;
  bool gone = false;
  std::string problem;
};

Entries read_entries(const std::string& path) {
  Entries entries;
  const auto bytes = read_file(path, kGreatestFile);
  if (!bytes) {
    if (errno != ENOENT) entries.problem = path + ": cannot be read: " + errno_text(errno);
    entries.gone = true;
    return entries;
  }
  for (std::size_t offset = 0; offset < bytes->size();) {
    EntryHeader header{};
    const bool whole = bytes->size() - offset >= sizeof header;
    if (whole) std::memcpy(&header, bytes->data() + offset, sizeof header);
    const std::size_t begin = offset + sizeof header;
    if (!whole || header.bytes > bytes->size() - begin || header.schema_bytes > header.bytes || header.id >= UINT16_MAX ||
        header.kind > kScope || header.checksum != checksum(bytes->data() + begin, header.bytes)) {
      entries.problem = path + ": the entry at byte " + std::to_string(offset) + " is damaged";
      break;
    }
    const std::string_view text(bytes->data() + begin, header.bytes);
    if (header.kind == kResource) {
      entries.resource = text;
    } else {
      if (entries.scopes.size() <= header.id) entries.scopes.resize(header.id + 1);
      const std::size_t encoded = header.bytes - header.schema_bytes;
      entries.scopes[header.id] = {std::string(text.substr(0, encoded)), std::string(text.substr(encoded))};
    }
    offset = begin + header.bytes;
  }
  return entries;
}

}  // namespace

std::string Definitions::load(const std::string& path, const std::string& beside) {
  const std::scoped_lock lock(file_mutex_, mutex_);
  Entries entries = read_entries(path);
  std::string problem = entries.problem;
  if (!beside.empty()) {
    Entries more = read_entries(beside);
    if (!more.gone && more.problem.empty()) problem.clear();  // it has been told everything first
    if (!more.problem.empty() && problem.empty()) problem = more.problem;
    bool news = !more.resource.empty() && more.resource != entries.resource;
    if (news) entries.resource = std::move(more.resource);
    for (std::size_t i = 0; i < more.scopes.size(); ++i) {
      if (entries.scopes.size() <= i) entries.scopes.resize(i + 1);
      Scope& known = entries.scopes[i];
      if (!known.encoded.empty() || !known.schema_url.empty() || more.scopes[i].encoded.empty()) continue;
      known = std::move(more.scopes[i]);
      news = true;
    }
    main_.behind.store(news, std::memory_order_release);
  }
  resource_ = std::move(entries.resource);
  scopes_ = std::move(entries.scopes);
  return problem;
}

void Definitions::write_to(const std::string& path, const std::string& beside) {
  const std::scoped_lock lock(file_mutex_);
  main_.path = path;
  main_.file = File::open(path, O_RDWR | O_CREAT);
  if (beside.empty()) return;
  beside_.path = beside;
  beside_.file = File::open(beside, O_RDWR | O_CREAT);
}

std::string Definitions::resource() const {
  const std::scoped_lock lock(mutex_);
  return resource_;
}

Scope Definitions::scope(std::uint16_t id) const {
  const std::scoped_lock lock(mutex_);
  return id < scopes_.size() ? scopes_[id] : Scope{};
}

bool Definitions::append_to(Copy& copy, std::uint32_t kind, std::uint32_t id, const std::string& bytes,
                            std::size_t schema_bytes) {
  if (copy.path.empty()) return true;
  const EntryHeader header{kind, id, static_cast<std::uint32_t>(bytes.size()), static_cast<std::uint32_t>(schema_bytes),
                           checksum(bytes.data(), bytes.size())};
  const iovec pieces[2] = {{const_cast<EntryHeader*>(&header), sizeof header},
                           {const_cast<char*>(bytes.data()), bytes.size()}};
  // One that is missing in between would give the next one's place to it.
  if (!copy.file.valid() || copy.behind || !copy.file.write_at(copy.bytes, pieces, 2)) {
    copy.behind.store(true, std::memory_order_release);
    return false;
  }
  copy.bytes += sizeof header + bytes.size();
  copy.dirty = true;
  return true;
}

// Where the disk takes it: what the memory refuses is of no account then, and tried again with the next one.
bool Definitions::append(std::uint32_t kind, std::uint32_t id, const std::string& bytes, std::size_t schema_bytes) {
  if (!beside_.behind || rewrite(beside_)) static_cast<void>(append_to(beside_, kind, id, bytes, schema_bytes));
  return append_to(main_, kind, id, bytes, schema_bytes);
}

bool Definitions::set_resource(std::string encoded) {
  const std::scoped_lock lock(file_mutex_);
  const bool written = append(kResource, 0, encoded, 0);
  const std::scoped_lock known(mutex_);
  resource_ = std::move(encoded);
  return written;
}

Definitions::Added Definitions::add(const Scope& scope) {
  const std::scoped_lock lock(file_mutex_);
  Added added;
  {
    const std::scoped_lock known(mutex_);
    for (std::size_t i = 0; i < scopes_.size(); ++i) {
      if (scopes_[i].encoded == scope.encoded && scopes_[i].schema_url == scope.schema_url) {
        added.id = static_cast<std::uint16_t>(i);
        return added;
      }
    }
    if (scopes_.size() >= UINT16_MAX) {
      added.id = UINT16_MAX - 1;
      return added;
    }
    added.id = static_cast<std::uint16_t>(scopes_.size());
  }
  // Nobody else adds one meanwhile.
  if (!append(kScope, added.id, scope.encoded + scope.schema_url, scope.schema_url.size())) added.error = errno;
  const std::scoped_lock known(mutex_);
  scopes_.push_back(scope);
  return added;
}

bool Definitions::rewrite() {
  const std::scoped_lock lock(file_mutex_);
  return rewrite(main_);
}

// With file_mutex_ held.
bool Definitions::rewrite(Copy& copy) {
  if (copy.path.empty()) return true;
  const std::string scratch = copy.path + ".new";
  File fresh = File::open(scratch, O_RDWR | O_CREAT | O_TRUNC);
  if (!fresh.valid()) return false;
  std::swap(copy.file, fresh);
  const std::uint64_t before = std::exchange(copy.bytes, 0);
  copy.behind.store(false, std::memory_order_relaxed);
  std::string resource;
  std::vector<Scope> scopes;
  {
    const std::scoped_lock known(mutex_);
    resource = resource_;
    scopes = scopes_;
  }
  bool good = append_to(copy, kResource, 0, resource, 0);
  for (std::size_t i = 0; good && i < scopes.size(); ++i) {
    const Scope& scope = scopes[i];
    good = append_to(copy, kScope, static_cast<std::uint32_t>(i), scope.encoded + scope.schema_url, scope.schema_url.size());
  }
  if (good && ::rename(scratch.c_str(), copy.path.c_str()) == 0) return true;
  const int error = errno;
  ::unlink(scratch.c_str());
  std::swap(copy.file, fresh);
  copy.bytes = before;
  copy.behind.store(true, std::memory_order_release);
  errno = error;
  return false;
}

bool Definitions::sync() {
  const std::scoped_lock lock(file_mutex_);
  if (!main_.dirty) return true;
  main_.dirty = !(main_.file.sync_data() && sync_directory(main_.path.substr(0, main_.path.rfind('/'))));
  return !main_.dirty;
}

}  // namespace waymark::journal
