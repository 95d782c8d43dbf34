// A scripted HTTP/1.1 server for tests: each request gets the next reply of the script, good or broken.
//
// Hides: sockets, and one thread for each connection.
// Threads: any. Replies that hold wait until release() or the server's end; nothing here sleeps.
// Failure: std::runtime_error where the machine gives no socket. Waits give up after 30 s and return false.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace waymark::testing {

struct HttpRequest {
  std::string method;
  std::string target;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::size_t connection = 0;  // the how-manieth connection it came on, from 0

  // The first header of this name in any case, or null.
  [[nodiscard]] const std::string* header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key.size() == name.size() && strncasecmp(key.data(), name.data(), name.size()) == 0) return &value;
    }
    return nullptr;
  }
};

struct HttpReply {
  enum class Hold : std::uint8_t { none, before_headers, before_body };
  enum class Break : std::uint8_t {
    none,
    no_response,       // the request is read, then the connection is closed
    half_body,         // closed after half of the body that was announced
    endless_headers,   // header lines until the client goes
    endless_body,      // body until the client goes
    raw,               // `body` is sent as it is, then the connection is closed
  };
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  Hold hold = Hold::none;
  Break broken = Break::none;
  bool close = false;  // after a whole reply, without saying so before
};

class HttpServer {
 public:
  // A port of 0 takes a free one.
  explicit HttpServer(std::uint16_t port = 0) : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address = loopback(port);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("the test server has no socket");
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~HttpServer() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
      changed_.notify_all();
    }
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (auto& thread : threads_) thread.join();
    ::close(listener_);
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  [[nodiscard]] std::string url(std::string_view path = "/v1/traces") const {
    return "http://127.0.0.1:" + std::to_string(port_) + std::string(path);
  }

  // The next replies, in order; after them every request gets `standard`.
  void script(std::vector<HttpReply> replies) {
    const std::lock_guard lock(mutex_);
    script_.insert(script_.end(), replies.begin(), replies.end());
  }
  void standard(HttpReply reply) {
    const std::lock_guard lock(mutex_);
    standard_ = std::move(reply);
  }
  // What the script has no reply for is answered by this, instead of by `standard`. Called by the connections' threads,
  // one at a time.
  void answer_by(std::function<HttpReply(const HttpRequest&)> answer) {
    const std::lock_guard lock(mutex_);
    answer_by_ = std::move(answer);
  }
  // Lets go all replies that hold now.
  void release() {
    const std::lock_guard lock(mutex_);
    ++releases_;
    changed_.notify_all();
  }

  [[nodiscard]] std::vector<HttpRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  [[nodiscard]] std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return connections_;
  }
  [[nodiscard]] bool wait_for_requests(std::size_t count) const {
    return wait([&] { return requests_.size() >= count; });
  }
  // Until so many replies have begun to hold since the server began.
  [[nodiscard]] bool wait_for_holds(std::size_t count) const {
    return wait([&] { return holds_ >= count; });
  }

  // A port on which nothing listens.
  static std::uint16_t closed_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    const bool bound = ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                       ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
    ::close(fd);
    if (!bound) throw std::runtime_error("the test has no socket");
    return ntohs(address.sin_port);
  }

 private:
  static sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
  }

  template <class Done>
  bool wait(Done done) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), done);
  }

  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      const std::lock_guard lock(mutex_);
      if (stopping_ || fd < 0) {
        if (fd >= 0) ::close(fd);
        if (stopping_) return;
        continue;
      }
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      open_.push_back(fd);
      threads_.emplace_back([this, fd, number = connections_++] { serve(fd, number); });
    }
  }

  void serve(int fd, std::size_t connection) {
    std::string buffer;
    HttpRequest request;
    while (read_request(fd, buffer, request)) {
      request.connection = connection;
      HttpReply reply;
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(std::move(request));
        if (script_.empty()) {
          reply = answer_by_ ? answer_by_(requests_.back()) : standard_;
        } else {
          reply = script_.front();
          script_.pop_front();
        }
        changed_.notify_all();
      }
      if (!answer(fd, reply)) break;
      request = {};
    }
    const std::lock_guard lock(mutex_);
    std::erase(open_, fd);
    ::close(fd);
  }

  static bool receive(int fd, std::string& buffer) {
    char chunk[65536];
    const ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
    if (n <= 0) return false;
    buffer.append(chunk, static_cast<std::size_t>(n));
    return true;
  }

  static bool read_request(int fd, std::string& buffer, HttpRequest& request) {
    std::size_t end = 0;
    while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
      if (!receive(fd, buffer)) return false;
    }
    const std::string head = buffer.substr(0, end + 2);
    buffer.erase(0, end + 4);
    std::size_t at = head.find("\r\n");
    const std::string first = head.substr(0, at);
    request.method = first.substr(0, first.find(' '));
    request.target = first.substr(first.find(' ') + 1, first.rfind(' ') - first.find(' ') - 1);
    for (at += 2; at < head.size();) {
      const std::size_t line_end = head.find("\r\n", at);
      const std::string line = head.substr(at, line_end - at);
      const std::size_t colon = line.find(':');
      const std::size_t value = line.find_first_not_of(' ', colon + 1);
      request.headers.emplace_back(line.substr(0, colon), value == std::string::npos ? "" : line.substr(value));
      at = line_end + 2;
    }
    const std::string* length = request.header("Content-Length");
    const std::size_t size = length ? std::stoul(*length) : 0;
    while (buffer.size() < size) {
      if (!receive(fd, buffer)) return false;
    }
    request.body = buffer.substr(0, size);
    buffer.erase(0, size);
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

  void hold() {
    std::unique_lock lock(mutex_);
    ++holds_;
    changed_.notify_all();
    changed_.wait(lock, [this, before = releases_] { return stopping_ || releases_ != before; });
  }

  // False: the connection ends.
  bool answer(int fd, const HttpReply& reply) {
    using Break = HttpReply::Break;
    if (reply.hold == HttpReply::Hold::before_headers) hold();
    if (reply.broken == Break::no_response) return false;
    if (reply.broken == Break::raw) {
      send_all(fd, reply.body);
      return false;
    }
    std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " Scripted\r\n";
    for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
    if (reply.broken == Break::endless_headers) {
      if (!send_all(fd, head)) return false;
      const std::string line = "X-More: " + std::string(1000, 'x') + "\r\n";
      while (send_all(fd, line)) continue;
      return false;
    }
    if (reply.broken == Break::endless_body) {
      if (!send_all(fd, head + "\r\n")) return false;
      const std::string chunk(65536, 'x');
      while (send_all(fd, chunk)) continue;
      return false;
    }
    head += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n\r\n";
    if (reply.hold == HttpReply::Hold::before_body) {
      if (!send_all(fd, head)) return false;
      hold();
      head.clear();
    }
    if (reply.broken == Break::half_body) {
      send_all(fd, head + reply.body.substr(0, reply.body.size() / 2));
      return false;
    }
    return send_all(fd, head + reply.body) && !reply.close;
  }

  int listener_;
  std::uint16_t port_ = 0;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<HttpReply> script_;
  HttpReply standard_;
  std::function<HttpReply(const HttpRequest&)> answer_by_;
  std::vector<HttpRequest> requests_;
  std::vector<int> open_;
  std::size_t connections_ = 0;
  std::size_t holds_ = 0;
  std::size_t releases_ = 0;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace waymark::testing
