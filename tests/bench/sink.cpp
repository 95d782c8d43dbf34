// A loopback OTLP sink in a process of its own: takes requests over HTTP (protobuf and JSON) and gRPC, answers all of them
// with success, and tells what it decoded.
//
// Usage: bench_sink   prints "port N"; answers every line of its standard input with "spans N", which is what it has got so
// far; when its standard input ends, prints "requests N bytes N spans N distinct N": spans as decoded, distinct by span id.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

std::mutex mutex;
std::vector<std::uint64_t> ids;
std::atomic<std::uint64_t> requests = 0;
std::atomic<std::uint64_t> bytes = 0;
std::atomic<std::uint64_t> spans = 0;

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

void decode_protobuf(std::string_view body, std::vector<std::uint64_t>& found) {
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

// Walks all strings of a JSON text: what follows the key "spanId" is an id. (Links have that key too; spans here have none.)
void decode_json(std::string_view body, std::vector<std::uint64_t>& found) {
  std::size_t at = 0;
  const auto next_string = [&](std::string_view& text) {
    at = body.find('"', at);
    if (at == std::string_view::npos) return false;
    const std::size_t begin = ++at;
    for (;; ++at) {
      at = body.find('"', at);
      if (at == std::string_view::npos) return false;
      std::size_t backslashes = 0;
      while (at - backslashes > begin && body[at - backslashes - 1] == '\\') ++backslashes;
      if (backslashes % 2 == 0) break;
    }
    text = body.substr(begin, at++ - begin);
    return true;
  };
  std::string_view text;
  while (next_string(text)) {
    if (text != "spanId") continue;
    while (at < body.size() && std::strchr(" \t\r\n", body[at]) != nullptr) ++at;
    if (at == body.size() || body[at] != ':' || !next_string(text)) continue;
    found.push_back(std::strtoull(std::string(text).c_str(), nullptr, 16));
  }
}

// What one connection brought.
struct Brought {
  std::vector<std::uint64_t> found;

  void take(std::string_view body, bool json) {
    const std::size_t before = found.size();
    if (json) {
      decode_json(body, found);
    } else {
      decode_protobuf(body, found);
    }
    spans += found.size() - before;
    bytes += body.size();
    ++requests;
  }
  ~Brought() {
    const std::scoped_lock lock(mutex);
    ids.insert(ids.end(), found.begin(), found.end());
  }
};

// A header's value, or nothing; `head` is a request's lines.
std::string_view header(std::string_view head, std::string_view name) {
  for (std::size_t at = head.find("\r\n"); at != std::string_view::npos; at = head.find("\r\n", at)) {
    at += 2;
    if (head.size() - at <= name.size() || head[at + name.size()] != ':' || strncasecmp(head.data() + at, name.data(), name.size()) != 0) {
      continue;
    }
    std::string_view value = head.substr(at + name.size() + 1, head.find("\r\n", at) - at - name.size() - 1);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    return value;
  }
  return {};
}

bool send_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

// One connection's bytes, read as they come into a buffer that grows to the largest request.
struct Input {
  int fd;
  std::vector<char> buffer = std::vector<char>(1 << 20);
  std::size_t begin = 0;
  std::size_t end = 0;

  [[nodiscard]] std::string_view view() const { return {buffer.data() + begin, end - begin}; }
  bool more() {
    if (begin == end) begin = end = 0;
    if (end == buffer.size() && begin > 0) {
      std::memmove(buffer.data(), buffer.data() + begin, end - begin);
      end -= begin;
      begin = 0;
    }
    if (end == buffer.size()) buffer.resize(2 * buffer.size());
    const ssize_t n = recv(fd, buffer.data() + end, buffer.size() - end, 0);
    if (n <= 0) return false;
    end += static_cast<std::size_t>(n);
    return true;
  }
};

void serve_http(Input& input, Brought& brought) {
  for (;;) {
    std::size_t head_size = 0;
    while ((head_size = input.view().find("\r\n\r\n")) == std::string_view::npos) {
      if (!input.more()) return;
    }
    const std::string head(input.view().substr(0, head_size + 2));
    const std::string_view length_text = header(head, "content-length");
    if (length_text.empty()) {
      std::fprintf(stderr, "bench_sink: a request without content-length\n");
      return;
    }
    const std::size_t length = std::strtoull(std::string(length_text).c_str(), nullptr, 10);
    input.begin += head_size + 4;
    if (header(head, "expect").starts_with("100-") &&
        !send_all(input.fd, "HTTP/1.1 100 Continue\r\n\r\n", 25)) {
      return;
    }
    while (input.view().size() < length) {
      if (!input.more()) return;
    }
    const bool json = header(head, "content-type").starts_with("application/json");
    brought.take(input.view().substr(0, length), json);
    input.begin += length;
    const std::string answer = std::string("HTTP/1.1 200 OK\r\ncontent-type: application/") + (json ? "json" : "x-protobuf") +
                               "\r\ncontent-length: " + (json ? "2\r\n\r\n{}" : "0\r\n\r\n");
    if (!send_all(input.fd, answer.data(), answer.size())) return;
  }
}

// gRPC: HTTP/2 without TLS, from the first byte.
struct GrpcConnection {
  int fd;
  Brought& brought;
  std::map<std::int32_t, std::string> bodies;
};

nghttp2_nv pair(const char* name, const char* value) {
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name)), reinterpret_cast<std::uint8_t*>(const_cast<char*>(value)),
          std::strlen(name), std::strlen(value), NGHTTP2_NV_FLAG_NONE};
}

// The answer's only message, which is empty, and its end.
ssize_t answer_message(nghttp2_session* session, std::int32_t stream, std::uint8_t* out, std::size_t, std::uint32_t* flags,
                       nghttp2_data_source*, void*) {
  std::memset(out, 0, 5);
  *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
  const nghttp2_nv trailer = pair("grpc-status", "0");
  nghttp2_submit_trailer(session, stream, &trailer, 1);
  return 5;
}

void serve_grpc(Input& input, Brought& brought) {
  GrpcConnection connection{input.fd, brought, {}};
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_send_callback(
      callbacks, [](nghttp2_session*, const std::uint8_t* data, std::size_t size, int, void* user) -> ssize_t {
        if (!send_all(static_cast<GrpcConnection*>(user)->fd, reinterpret_cast<const char*>(data), size)) return NGHTTP2_ERR_CALLBACK_FAILURE;
        return static_cast<ssize_t>(size);
      });
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
      callbacks, [](nghttp2_session*, std::uint8_t, std::int32_t stream, const std::uint8_t* data, std::size_t size, void* user) {
        static_cast<GrpcConnection*>(user)->bodies[stream].append(reinterpret_cast<const char*>(data), size);
        return 0;
      });
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, [](nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    auto& self = *static_cast<GrpcConnection*>(user);
    const auto body = self.bodies.find(frame->hd.stream_id);
    // One message: a byte that says whether it is compressed, four of length, and the request.
    if (body == self.bodies.end() || body->second.size() < 5 || body->second[0] != 0) return static_cast<int>(NGHTTP2_ERR_CALLBACK_FAILURE);
    self.brought.take(std::string_view(body->second).substr(5), false);
    self.bodies.erase(body);
    const nghttp2_nv head[] = {pair(":status", "200"), pair("content-type", "application/grpc")};
    nghttp2_data_provider provider{};
    provider.read_callback = answer_message;
    return nghttp2_submit_response(session, frame->hd.stream_id, head, 2, &provider);
  });
  nghttp2_session* session = nullptr;
  nghttp2_session_server_new(&session, callbacks, &connection);
  nghttp2_session_callbacks_del(callbacks);
  // Windows so wide that the sender never waits for this side's bookkeeping.
  constexpr std::int32_t kWindow = 64 << 20;
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindow}, {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 1 << 20}};
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 2);
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kWindow);
  do {
    const std::string_view data = input.view();
    const ssize_t taken = nghttp2_session_mem_recv(session, reinterpret_cast<const std::uint8_t*>(data.data()), data.size());
    if (taken < 0) {
      std::fprintf(stderr, "bench_sink: HTTP/2: %s\n", nghttp2_strerror(static_cast<int>(taken)));
      break;
    }
    input.begin += static_cast<std::size_t>(taken);
    if (nghttp2_session_send(session) != 0) break;
  } while (input.more());
  nghttp2_session_del(session);
}

void serve(int fd) {
  {
    Input input{fd};
    Brought brought;
    bool open = true;
    while (open && input.view().size() < 4) open = input.more();
    if (open && input.view().starts_with("PRI ")) {
      serve_grpc(input, brought);
    } else if (open) {
      serve_http(input, brought);
    }
  }
  close(fd);
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
    if (c != '\n') continue;
    std::printf("spans %llu\n", static_cast<unsigned long long>(spans));
    std::fflush(stdout);
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
