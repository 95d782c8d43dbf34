#!/usr/bin/env python3
"""Servers that speak HTTP byte by byte and frame by frame, in TLS or not, well or badly; and a proxy.

Driven by JSON lines on standard input; each is answered by one line on standard output, and the end of the input ends it.

    {"do": "listen", "http": 1 | 2, "tls": {"certificate", "key", "client_ca", "maximum": "1.1" | "1.2"}, "alpn": [..],
     "silent": bool}                          -> {"port": N}; silent: connections are accepted, and nothing is said, ever
    {"do": "proxy", "status": 200}            -> {"port": N}; forwards CONNECT to where it says, answers others itself
    {"do": "script", "replies": [REPLY, ..]}  what the next requests get; after them the standard one
    {"do": "standard", "reply": REPLY}        one that says yes, unless set
    {"do": "release"}                         lets go what holds
    {"do": "wait", "requests": N, "holds": N, "closes": N} -> {"done": bool}
    {"do": "seen"}                            -> {"requests": [..], "connections": N, "proxied": [HEAD, ..], "resets": [CODE, ..]}
    {"do": "certificate", "certificate", "key"}   of the connections from now on

A request: {"headers": [[name, value], ..], "body": BASE64, "connection": N}; over HTTP/1 the first two headers are
":method" and ":path". A REPLY is a list of steps:

    {"headers": [[name, value], ..], "end": bool}    HTTP/2: a HEADERS frame; also the trailers
    {"data": BASE64, "end": bool, "frame": N}        HTTP/2: DATA frames of at most N bytes
    {"reset": CODE}, {"goaway": CODE, "last": ID}    HTTP/2
    {"bytes": BASE64, "times": N}                    as they are
    {"hold": true}, {"close": true}
"""

import base64
import json
import socket
import ssl
import sys
import threading
import warnings

import h2.config
import h2.connection
import h2.events
import h2.settings

WAIT_SECONDS = 30
warnings.simplefilter("ignore", DeprecationWarning)  # old TLS is what a test wants to see refused
VERSIONS = {"1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2}


def grpc_yes():
    return [{"headers": [[":status", "200"], ["content-type", "application/grpc"]]}, {"data": base64.b64encode(bytes(5)).decode()},
            {"headers": [["grpc-status", "0"]], "end": True}]


def http_yes():
    return [{"bytes": base64.b64encode(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").decode()}]


class Gone(Exception):
    """The connection ends."""


class Wire:
    def __init__(self):
        self.changed = threading.Condition()
        self.replies = []
        self.standard = None
        self.requests = []
        self.connections = 0
        self.proxied = []
        self.resets = []
        self.holds = 0
        self.closes = 0
        self.releases = 0
        self.context = None

    # The commands.

    def do(self, command):
        name = command["do"]
        if name == "listen":
            return self.listen(command)
        if name == "proxy":
            return {"port": self.serve(lambda s: self.proxy(s, command.get("status", 200)))}
        with self.changed:
            if name == "script":
                self.replies += command["replies"]
            elif name == "standard":
                self.standard = command["reply"]
            elif name == "certificate":
                self.context.load_cert_chain(command["certificate"], command["key"])
            elif name == "release":
                self.releases += 1
                self.changed.notify_all()
            elif name == "wait":
                enough = lambda: (len(self.requests) >= command.get("requests", 0) and self.holds >= command.get("holds", 0)
                                  and self.closes >= command.get("closes", 0))
                return {"done": self.changed.wait_for(enough, WAIT_SECONDS)}
            elif name == "seen":
                return {"requests": self.requests, "connections": self.connections, "proxied": self.proxied,
                        "resets": self.resets}
            else:
                raise ValueError(f"unknown command {name}")
        return {}

    def listen(self, command):
        tls = command.get("tls")
        if tls:
            self.context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            if "maximum" in tls:
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = VERSIONS[tls["maximum"]]
                context.set_ciphers("ALL:@SECLEVEL=0")
            context.load_cert_chain(tls["certificate"], tls["key"])
            if tls.get("client_ca"):
                context.load_verify_locations(tls["client_ca"])
                context.verify_mode = ssl.CERT_REQUIRED
            if command.get("alpn"):
                context.set_alpn_protocols(command["alpn"])

        def connected(plain):
            if command.get("silent"):
                self.hold()
                return
            stream = self.context.wrap_socket(plain, server_side=True) if tls else plain
            with self.changed:
                number = self.connections
                self.connections += 1
            by_alpn = tls and stream.selected_alpn_protocol() == "h2"
            if by_alpn or command.get("http") == 2:
                self.http2(stream, number)
            else:
                self.http1(stream, number)

        return {"port": self.serve(connected)}

    # Sockets.

    def serve(self, connected):
        listener = socket.create_server(("127.0.0.1", 0))

        def one(plain):
            try:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected(plain)
            except (OSError, Gone, h2.exceptions.ProtocolError):
                pass  # the client's to go, or told to
            finally:
                plain.close()

        def accept():
            while True:
                plain, _ = listener.accept()
                threading.Thread(target=one, args=(plain,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    def hold(self):
        with self.changed:
            self.holds += 1
            before = self.releases
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.releases != before, WAIT_SECONDS)

    def next_reply(self, headers, body, connection, standard):
        with self.changed:
            self.requests.append({"headers": headers, "body": base64.b64encode(body).decode(), "connection": connection})
            reply = self.replies.pop(0) if self.replies else self.standard or standard
            self.changed.notify_all()
            return reply

    @staticmethod
    def receive(stream):
        data = stream.recv(65536)
        if not data:
            raise Gone
        return data

    def plain_step(self, stream, step):
        if "bytes" in step:
            data = base64.b64decode(step["bytes"])
            for _ in range(step.get("times", 1)):
                stream.sendall(data)
        if step.get("hold"):
            self.hold()
        if step.get("close"):
            # What the client still sends is read: else the kernel resets the connection, and what was sent is lost.
            stream.shutdown(socket.SHUT_WR)
            with self.changed:
                self.closes += 1
                self.changed.notify_all()
            while stream.recv(65536):
                pass
            raise Gone

    # HTTP/1.

    def read_head(self, stream, buffer):
        while b"\r\n\r\n" not in buffer:
            buffer += self.receive(stream)
        head, _, rest = buffer.partition(b"\r\n\r\n")
        return head.decode("latin-1"), rest

    def http1(self, stream, number):
        buffer = b""
        while True:
            head, buffer = self.read_head(stream, buffer)
            first, *lines = head.split("\r\n")
            method, path, _ = first.split(" ")
            headers = [[":method", method], [":path", path]] + [line.split(": ", 1) for line in lines]
            size = next((int(v) for k, v in headers if k.lower() == "content-length"), 0)
            while len(buffer) < size:
                buffer += self.receive(stream)
            body, buffer = buffer[:size], buffer[size:]
            for step in self.next_reply(headers, body, number, http_yes()):
                self.plain_step(stream, step)

    # HTTP/2.

    def http2(self, stream, number):
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False,
                                           normalize_outbound_headers=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        stream.sendall(connection.data_to_send())
        requests = {}
        while True:
            for event in connection.receive_data(self.receive(stream)):
                if isinstance(event, h2.events.RequestReceived):
                    requests[event.stream_id] = [[list(pair) for pair in event.headers], b""]
                elif isinstance(event, h2.events.DataReceived):
                    requests[event.stream_id][1] += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    with self.changed:
                        self.resets.append(event.error_code)
                elif isinstance(event, h2.events.StreamEnded):
                    stream.sendall(connection.data_to_send())
                    headers, body = requests.pop(event.stream_id)
                    for step in self.next_reply(headers, body, number, grpc_yes()):
                        self.frame_step(stream, connection, event.stream_id, step)
            stream.sendall(connection.data_to_send())

    def frame_step(self, stream, connection, stream_id, step):
        if "headers" in step:
            connection.send_headers(stream_id, [tuple(pair) for pair in step["headers"]], end_stream=step.get("end", False))
        if "data" in step:
            data = base64.b64decode(step["data"])
            size = step.get("frame", 16384)
            while True:
                now, data = data[:size], data[size:]
                while connection.local_flow_control_window(stream_id) < len(now):
                    connection.receive_data(self.receive(stream))
                connection.send_data(stream_id, now, end_stream=step.get("end", False) and not data)
                stream.sendall(connection.data_to_send())
                if not data:
                    break
        if "reset" in step:
            connection.reset_stream(stream_id, step["reset"])
        if "goaway" in step:
            connection.close_connection(step["goaway"], last_stream_id=step["last"])
        stream.sendall(connection.data_to_send())
        self.plain_step(stream, step)

    # The proxy.

    def proxy(self, client, status):
        head, rest = self.read_head(client, b"")
        with self.changed:
            self.proxied.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        if status != 200 or method != "CONNECT":
            client.sendall(f"HTTP/1.1 {status} Scripted\r\nContent-Length: 0\r\n\r\n".encode())
            self.receive(client)
            return
        host, port = target.rsplit(":", 1)
        with socket.create_connection(("127.0.0.1", int(port))) as server:
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            server.sendall(rest)

            def pump(source, sink):
                try:
                    while data := source.recv(65536):
                        sink.sendall(data)
                    sink.shutdown(socket.SHUT_WR)
                except OSError:
                    pass

            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()


def main():
    wire = Wire()
    for line in sys.stdin:
        print(json.dumps(wire.do(json.loads(line))), flush=True)


main()
