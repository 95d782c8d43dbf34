// A proxy between a client and an HTTP/1.1 server of a test, that breaks what passes through it.
//
// Hides: sockets, one thread for each connection, and how each fault looks on the wire.
// Threads: any. A stall lasts until the client goes, or the proxy ends; nothing here sleeps.
// Failure: std::runtime_error where the machine gives no socket.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace waymark::testing {

enum class NetFault : std::uint8_t {
  none,
  refuse,                // nobody listens for some milliseconds; what is sent now is reset
  reset_in_request,      // after half of the request; the server sees none of it
  reset_before_response, // the server has answered
  reset_in_response,
  stall_in_request,      // the request is not read any further
  stall_before_response,
  stall_in_response,
  truncate,              // the connection is closed within the response
  dribble,               // a whole response, one byte at a time
  length_too_long,       // Content-Length says more than there is
  length_too_short,      // or less
  gzip_bomb,             // 64 MiB of zeros in some KiB
  endless_headers,
  throttle_seconds,      // 429, Retry-After: 0; the server sees nothing
  throttle_date,         // 503, Retry-After: a date that is past; the server sees nothing
};

// The server accepts, reads and answers as if nothing were wrong.
class FaultProxy {
 public:
  // Asked once for each request. Called by several threads, one at a time.
  using Choose = std::function<NetFault()>;

  FaultProxy(std::uint16_t server, Choose choose) : server_(server), choose_(std::move(choose)) {
    listener_ = listen_on(0);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~FaultProxy() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
      changed_.notify_all();
      if (listener_ >= 0) ::shutdown(listener_, SHUT_RDWR);
    }
    acceptor_.join();
    for (auto& thread : threads_) thread.join();
    if (listener_ >= 0) ::close(listener_);
  }
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  [[nodiscard]] std::string url(std::string_view path) const {
    return "http://127.0.0.1:" + std::to_string(port_) + std::string(path);
  }
  // How often each fault was done, in full.
  [[nodiscard]] std::map<NetFault, std::size_t> done() const {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  // What was done to each request that the server has got, in order.
  [[nodiscard]] std::vector<NetFault> forwarded() const {
    const std::lock_guard lock(mutex_);
    return forwarded_;
  }
  // Until a stall holds a client. False after 30 s.
  [[nodiscard]] bool wait_for_stall() const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return stalls_ > 0; });
  }

  // Until somebody has connected and sent something. False after 30 s.
  [[nodiscard]] bool wait_for_client() const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return heard_; });
  }

  // Draws from these with a seed; `none` as often as `calm` in a hundred.
  static Choose random(std::uint32_t seed, std::vector<NetFault> faults, unsigned calm) {
    return [engine = std::mt19937(seed), faults = std::move(faults), calm]() mutable {
      if (engine() % 100 < calm) return NetFault::none;
      return faults[engine() % faults.size()];
    };
  }
  // These in order, then `none`.
  static Choose script(std::deque<NetFault> faults) {
    return [faults = std::move(faults)]() mutable {
      if (faults.empty()) return NetFault::none;
      const NetFault next = faults.front();
      faults.pop_front();
      return next;
    };
  }
  static Choose always(NetFault fault) {
    return [fault] { return fault; };
  }

 private:
  int listen_on(std::uint16_t port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const int small = 4096;  // so that a stalled request does not vanish into a buffer
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    sockaddr_in address = loopback(port);
    socklen_t size = sizeof address;
    if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 64) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      ::close(fd);
      throw std::runtime_error("the fault proxy has no socket");
    }
    port_ = ntohs(address.sin_port);
    return fd;
  }
  static sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
  }

  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      std::unique_lock lock(mutex_);
      if (fd >= 0 && !stopping_) {
        open_.push_back(fd);
        threads_.emplace_back([this, fd] { serve(fd); });
        continue;
      }
      if (fd >= 0) ::close(fd);
      if (stopping_) return;
      if (!away_) continue;
      // Nobody listens: the port is kept by a socket that does not.
      ::close(listener_);
      changed_.wait_for(lock, std::chrono::milliseconds(3), [&] { return stopping_; });
      away_ = false;
      listener_ = -1;
      if (stopping_) return;
      listener_ = listen_on(port_);
    }
  }

  void serve(int fd) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    std::string client;
    int server = -1;
    for (bool go_on = true; go_on;) {
      std::size_t head = 0;
      while ((head = client.find("\r\n\r\n")) == std::string::npos && receive(fd, client)) {
        const std::lock_guard lock(mutex_);
        heard_ = true;
        changed_.notify_all();
      }
      if (head == std::string::npos) break;
      const std::size_t size = head + 4 + length_of(client.substr(0, head));
      go_on = pass_on(fd, server, client, size);
    }
    if (server >= 0) ::close(server);
    const std::lock_guard lock(mutex_);
    std::erase(open_, fd);
    ::close(fd);
  }

  // One request and its answer. False: the connection ends.
  bool pass_on(int fd, int& server, std::string& client, std::size_t size) {
    NetFault fault;
    {
      const std::lock_guard lock(mutex_);
      fault = choose_();
    }
    if (fault == NetFault::stall_in_request) return stall(fd, fault);
    if (fault == NetFault::refuse) {
      const std::lock_guard lock(mutex_);
      away_ = true;
      ++done_[fault];
      if (listener_ >= 0) ::shutdown(listener_, SHUT_RDWR);
      return reset(fd);
    }
    while (client.size() < (fault == NetFault::reset_in_request ? std::max<std::size_t>(1, size / 2) : size)) {
      if (!receive(fd, client)) return false;
    }
    if (fault == NetFault::reset_in_request) {
      count(fault);
      return reset(fd);
    }
    const std::string request = client.substr(0, size);
    client.erase(0, size);
    if (fault == NetFault::throttle_seconds || fault == NetFault::throttle_date) {
      count(fault);
      const bool seconds = fault == NetFault::throttle_seconds;
      return send_all(fd, seconds ? "HTTP/1.1 429 Slow down\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
                                  : "HTTP/1.1 503 Away\r\nRetry-After: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n");
    }
    {
      const std::lock_guard lock(mutex_);
      forwarded_.push_back(fault);
    }
    std::string answer;
    if (!ask(server, request, answer)) return false;
    return give(fd, fault, answer);
  }

  bool give(int fd, NetFault fault, const std::string& answer) {
    const std::size_t head = answer.find("\r\n\r\n") + 4;
    const std::string body = answer.substr(head);
    switch (fault) {
      case NetFault::none: return send_all(fd, answer);
      case NetFault::stall_before_response: return stall(fd, fault);
      case NetFault::stall_in_response:
        return send_all(fd, answer.substr(0, answer.size() / 2)) && stall(fd, fault);
      case NetFault::reset_before_response: count(fault); return reset(fd);
      case NetFault::reset_in_response:
        if (!send_all(fd, answer.substr(0, answer.size() / 2))) return false;
        count(fault);
        return reset(fd);
      case NetFault::truncate:
        if (!send_all(fd, answer.substr(0, answer.size() - 1))) return false;
        count(fault);
        return false;
      case NetFault::dribble:
        for (const char c : answer) {
          if (!send_all(fd, std::string_view(&c, 1))) return false;
        }
        count(fault);
        return true;
      case NetFault::length_too_long:
      case NetFault::length_too_short: {
        const std::size_t length = fault == NetFault::length_too_long ? body.size() + 7 : body.size() / 2;
        if (!send_all(fd, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n" + body)) return false;
        count(fault);
        return false;
      }
      case NetFault::gzip_bomb:
        // A client that has seen enough goes in the middle of it.
        static_cast<void>(send_all(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
                                       "Content-Length: " + std::to_string(bomb().size()) + "\r\n\r\n" + bomb()));
        count(fault);
        return false;
      case NetFault::endless_headers: {
        const std::string line = "X-More: " + std::string(1000, 'x') + "\r\n";
        bool open = send_all(fd, "HTTP/1.1 200 OK\r\n");
        while (open) open = send_all(fd, line);
        count(fault);
        return false;
      }
      default: return false;
    }
  }

  // The server's whole answer, over the connection that is kept to it.
  bool ask(int& server, const std::string& request, std::string& answer) {
    if (server < 0) {
      server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in address = loopback(server_);
      if (::connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return false;
      const int on = 1;
      ::setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (!send_all(server, request)) return false;
    std::size_t head = 0;
    while ((head = answer.find("\r\n\r\n")) == std::string::npos) {
      if (!receive(server, answer)) return false;
    }
    const std::size_t size = head + 4 + length_of(answer.substr(0, head));
    while (answer.size() < size) {
      if (!receive(server, answer)) return false;
    }
    return true;
  }

  bool stall(int fd, NetFault fault) {
    {
      const std::lock_guard lock(mutex_);
      ++done_[fault];
      ++stalls_;
      changed_.notify_all();
    }
    // The client's end, or ours: shutdown() wakes this.
    pollfd gone{fd, POLLRDHUP, 0};
    while (::poll(&gone, 1, -1) < 0 && errno == EINTR) continue;
    return false;
  }

  static bool reset(int fd) {
    const linger now{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    return false;
  }

  void count(NetFault fault) {
    const std::lock_guard lock(mutex_);
    ++done_[fault];
  }

  static std::size_t length_of(std::string head) {
    std::ranges::transform(head, head.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    const auto at = head.find("content-length:");
    return at == std::string::npos ? 0 : std::stoul(head.substr(at + 15));
  }
  static bool receive(int fd, std::string& buffer) {
    char chunk[16384];
    const ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
    if (n <= 0) return false;
    buffer.append(chunk, static_cast<std::size_t>(n));
    return true;
  }
  static bool send_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  static const std::string& bomb() {
    static const std::string made = [] {
      z_stream stream{};
      deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
      std::string out;
      std::array<unsigned char, 65536> zeros{};
      std::array<unsigned char, 65536> packed{};
      for (int i = 0; i <= 1024; ++i) {
        stream.next_in = zeros.data();
        stream.avail_in = i < 1024 ? static_cast<unsigned>(zeros.size()) : 0;
        do {
          stream.next_out = packed.data();
          stream.avail_out = static_cast<unsigned>(packed.size());
          deflate(&stream, i < 1024 ? Z_NO_FLUSH : Z_FINISH);
          out.append(reinterpret_cast<const char*>(packed.data()), packed.size() - stream.avail_out);
        } while (stream.avail_out == 0);
      }
      deflateEnd(&stream);
      return out;
    }();
    return made;
  }

  const std::uint16_t server_;
  Choose choose_;  // guarded by mutex_
  std::uint16_t port_ = 0;
  std::atomic<int> listener_{-1};
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool stopping_ = false;
  bool away_ = false;
  bool heard_ = false;
  std::size_t stalls_ = 0;
  std::map<NetFault, std::size_t> done_;
  std::vector<NetFault> forwarded_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// A port that swallows connections: its backlog is full, so the kernel answers no further SYN.
class SynBlackhole {
 public:
  SynBlackhole() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 0) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("the black hole has no socket");
    }
    port_ = ntohs(address.sin_port);
    // A backlog of 0 holds one; each further one hangs in SYN_SENT.
    for (int& filler : fillers_) {
      filler = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      [[maybe_unused]] const int under_way = ::connect(filler, reinterpret_cast<sockaddr*>(&address), size);
    }
  }
  ~SynBlackhole() {
    for (const int filler : fillers_) ::close(filler);
    ::close(listener_);
  }
  SynBlackhole(const SynBlackhole&) = delete;
  SynBlackhole& operator=(const SynBlackhole&) = delete;
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

 private:
  int listener_;
  std::uint16_t port_ = 0;
  std::array<int, 4> fillers_{};
};

}  // namespace waymark::testing
