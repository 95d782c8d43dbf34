// A loopback OTLP/HTTP sink in a process of its own: takes POSTs, answers 200, and tells at the end what it decoded.
//
// Usage: bench_sink   prints "port N", serves until its standard input ends, then prints
// "requests N bytes N spans N distinct N": spans as decoded, distinct by span id.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

std::mutex mutex;
std::vector<std::uint64_t> ids;
std::uint64_t requests = 0;
std::uint64_t bytes = 0;

std::uint64_t varint(const unsigned char*& p, const unsigned char* end) {
  std::uint64_t v = 0;
  for (int shift = 0; p < end && shift < 64; shift += 7) {
    const unsigned char b = *p++;
    v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
    if (b < 0x80) break;
  }
  return v;
}

// Calls `each` with the contents of every field `number` (length-delimited) of a message; skips the others.
template <class F>
void fields(const unsigned char* p, const unsigned char* end, std::uint64_t number, F&& each) {
  while (p < end) {
    const std::uint64_t tag = varint(p, end);
    switch (tag & 7) {
      case 0:
        varint(p, end);
        break;
      case 1:
        p += 8;
        break;
      case 5:
        p += 4;
        break;
      case 2: {
        const std::uint64_t length = varint(p, end);
        if (length > static_cast<std::uint64_t>(end - p)) return;
        if (tag >> 3 == number && !each(p, p + length)) return;
        p += length;
        break;
      }
      default:
        return;
    }
  }
}

void decode(const std::string& body, std::vector<std::uint64_t>& found) {
  const auto* begin = reinterpret_cast<const unsigned char*>(body.data());
  fields(begin, begin + body.size(), 1, [&](const unsigned char* resource, const unsigned char* resource_end) {
    fields(resource, resource_end, 2, [&](const unsigned char* scope, const unsigned char* scope_end) {
      fields(scope, scope_end, 2, [&](const unsigned char* span, const unsigned char* span_end) {
        fields(span, span_end, 2, [&](const unsigned char* id, const unsigned char* id_end) {
          std::uint64_t v = 0;
          if (id_end - id == 8) std::memcpy(&v, id, 8);
          found.push_back(v);
          return false;
        });
        return true;
      });
      return true;
    });
    return true;
  });
}

void serve(int fd) {
  std::string buffer;
  std::vector<char> chunk(1 << 18);
  std::vector<std::uint64_t> found;
  std::uint64_t my_requests = 0;
  std::uint64_t my_bytes = 0;
  for (;;) {
    std::size_t head = 0;
    while ((head = buffer.find("\r\n\r\n")) == std::string::npos) {
      const ssize_t n = recv(fd, chunk.data(), chunk.size(), 0);
      if (n <= 0) goto done;
      buffer.append(chunk.data(), static_cast<std::size_t>(n));
    }
    {
      std::size_t length = 0;
      std::string header = buffer.substr(0, head);
      std::transform(header.begin(), header.end(), header.begin(), [](unsigned char c) { return static_cast<char>(tolower(c)); });
      const std::size_t at = header.find("content-length:");
      if (at != std::string::npos) length = std::strtoull(header.c_str() + at + 15, nullptr, 10);
      buffer.erase(0, head + 4);
      buffer.reserve(length);
      while (buffer.size() < length) {
        const ssize_t n = recv(fd, chunk.data(), chunk.size(), 0);
        if (n <= 0) goto done;
        buffer.append(chunk.data(), static_cast<std::size_t>(n));
      }
      decode(buffer.substr(0, length), found);
      buffer.erase(0, length);
      ++my_requests;
      my_bytes += length;
      static constexpr char kAnswer[] = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
      if (send(fd, kAnswer, sizeof kAnswer - 1, MSG_NOSIGNAL) < 0) goto done;
    }
  }
done:
  close(fd);
  const std::scoped_lock lock(mutex);
  ids.insert(ids.end(), found.begin(), found.end());
  requests += my_requests;
  bytes += my_bytes;
}

}  // namespace

int main() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener, 16) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::perror("bench_sink");
    return 1;
  }
  std::printf("port %d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  std::vector<std::thread> threads;
  std::thread accepting([&] {
    for (;;) {
      const int fd = accept(listener, nullptr, nullptr);
      if (fd < 0) return;
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      threads.emplace_back(serve, fd);
    }
  });
  char c;
  while (read(0, &c, 1) > 0) {
  }
  shutdown(listener, SHUT_RDWR);
  accepting.join();
  for (std::thread& t : threads) t.join();
  const std::size_t all = ids.size();
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::printf("requests %llu bytes %llu spans %zu distinct %zu\n", static_cast<unsigned long long>(requests),
              static_cast<unsigned long long>(bytes), all, ids.size());
  return 0;
}
