#include "fetch.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string_view>

namespace fetch {
namespace {

struct Socket {
  int fd = -1;
  ~Socket() {
    if (fd >= 0) close(fd);
  }
};

void connect_to(Socket& connection, const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    throw Unavailable(host + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, freeaddrinfo);
  for (const addrinfo* address = found; address; address = address->ai_next) {
    connection.fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, address->ai_protocol);
    if (connection.fd >= 0 && connect(connection.fd, address->ai_addr, address->ai_addrlen) == 0) return;
    if (connection.fd >= 0) close(connection.fd);
    connection.fd = -1;
  }
  throw Unavailable(host + ":" + port + ": " + std::strerror(errno));
}

// HTTP/1.0, so that the body ends with the connection and is never chunked.
std::string read_http(const std::string& url) {
  const std::string_view rest = std::string_view(url).substr(7);
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  const std::string authority(rest.substr(0, slash));
  const std::string target = slash == rest.size() ? "/" : std::string(rest.substr(slash));
  const std::size_t colon = authority.rfind(':');
  const std::string host = authority.substr(0, colon);
  const std::string port = colon == std::string::npos ? "80" : authority.substr(colon + 1);
  Socket connection;
  connect_to(connection, host, port);

  const std::string request = "GET " + target + " HTTP/1.0\r\nHost: " + authority + "\r\nConnection: close\r\n\r\n";
  if (send(connection.fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
    throw Unavailable(url + ": " + std::strerror(errno));
  }
  std::string answer;
  char part[16384];
  for (ssize_t n; (n = recv(connection.fd, part, sizeof part, 0)) != 0;) {
    if (n < 0) throw Unavailable(url + ": " + std::strerror(errno));
    answer.append(part, static_cast<std::size_t>(n));
  }
  const std::size_t head = answer.find("\r\n\r\n");
  if (head == std::string::npos || !answer.starts_with("HTTP/1.") || answer.size() < 12) {
    throw Unavailable(url + ": the connection broke");
  }
  const std::string status = answer.substr(9, 3);
  if (status[0] == '5' || status == "429") throw Unavailable(url + ": the server said " + status);
  if (status != "200") throw Refused(url + ": the server said " + status);
  std::string body = answer.substr(head + 4);
  const std::size_t length = answer.find("\r\nContent-Length: ");
  if (length < head && std::stoull(answer.substr(length + 18)) != body.size()) {
    throw Unavailable(url + ": the connection broke");
  }
  return body;
}

}  // namespace

std::string read(const std::string& url) {
  if (url.starts_with("http://")) return read_http(url);
  if (!url.starts_with("file://")) throw Refused(url + ": expected http:// or file://");
  std::ifstream file(url.substr(7), std::ios::binary);
  if (!file) throw Refused(url + ": " + std::strerror(errno));
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace fetch
