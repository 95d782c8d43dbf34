#!/usr/bin/env python3
"""A real gRPC backend for tests: grpcio with the official OTLP services.

Driven by JSON lines on standard input; each is answered by one line on standard output, and the end of the input ends it.

    {"do": "listen", "port": 0, "max_bytes": 0, "tls": {"certificate": PATH, "key": PATH, "client_ca": PATH}}  -> {"port": N}
    {"do": "script", "replies": [REPLY, ...]}   what the next calls get; after them every call succeeds
    {"do": "wait", "calls": N, "holds": N}      until so many calls came and so many of them hold -> {"done": bool}
    {"do": "release"}                           lets go the calls that hold
    {"do": "calls"}                             -> {"calls": [{"method", "metadata", "remaining", "message"}, ...]}

A REPLY: {"code": "UNAVAILABLE", "message": TEXT, "retry_after": SECONDS, "rejected": N, "warning": TEXT, "gzip": bool,
"hold": bool}, each of which may be left out. A message is the decoded request, encoded anew, in base64.
"""

import base64
import concurrent.futures
import json
import sys
import threading

import grpc
from google.protobuf import any_pb2, duration_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

WAIT_SECONDS = 30


def retry_info_status(code, message, seconds):
    """google.rpc.Status with a RetryInfo, whose classes are in no package that is needed otherwise."""
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(seconds * 1e9))
    packed = delay.SerializeToString()
    detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a" + bytes([len(packed)]) + packed)
    text = message.encode()
    details = detail.SerializeToString()
    return (b"\x08" + bytes([code]) + b"\x12" + bytes([len(text)]) + text + b"\x1a" + bytes([len(details)]) + details)


class Backend:
    def __init__(self):
        self.changed = threading.Condition()
        self.replies = []
        self.calls = []
        self.holds = 0
        self.releases = 0
        self.server = None

    def listen(self, command):
        options = [("grpc.so_reuseport", 0)]
        if command.get("max_bytes"):
            options.append(("grpc.max_receive_message_length", command["max_bytes"]))
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=options)
        backend = self

        class Traces(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request, context):
                return backend.answer("traces", request, context, trace_service_pb2.ExportTraceServiceResponse, "rejected_spans")

        class Logs(logs_service_pb2_grpc.LogsServiceServicer):
            def Export(self, request, context):
                return backend.answer("logs", request, context, logs_service_pb2.ExportLogsServiceResponse, "rejected_log_records")

        class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(self, request, context):
                return backend.answer("metrics", request, context, metrics_service_pb2.ExportMetricsServiceResponse,
                                      "rejected_data_points")

        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), self.server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), self.server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), self.server)
        tls = command.get("tls")
        address = f"127.0.0.1:{command.get('port', 0)}"
        if tls:
            pair = [tuple(open(tls[name], "rb").read() for name in ("key", "certificate"))]
            roots = open(tls["client_ca"], "rb").read() if tls.get("client_ca") else None
            credentials = grpc.ssl_server_credentials(pair, roots, require_client_auth=roots is not None)
            port = self.server.add_secure_port(address, credentials)
        else:
            port = self.server.add_insecure_port(address)
        self.server.start()
        return {"port": port}

    def answer(self, method, request, context, response_class, rejected_field):
        with self.changed:
            reply = self.replies.pop(0) if self.replies else {}
            self.calls.append({"method": method, "metadata": [[k, v] for k, v in context.invocation_metadata() if isinstance(v, str)],
                               "remaining": context.time_remaining(),
                               "message": base64.b64encode(request.SerializeToString()).decode()})
            if reply.get("hold"):
                self.holds += 1
                before = self.releases
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.releases != before, WAIT_SECONDS)
            self.changed.notify_all()
        code = reply.get("code", "OK")
        if code != "OK":
            status = getattr(grpc.StatusCode, code)
            if "retry_after" in reply:
                details = retry_info_status(status.value[0], reply.get("message", ""), reply["retry_after"])
                context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(status, reply.get("message", ""))
        if reply.get("gzip"):
            context.set_compression(grpc.Compression.Gzip)
        response = response_class()
        if "rejected" in reply:
            setattr(response.partial_success, rejected_field, reply["rejected"])
        if "warning" in reply:
            response.partial_success.error_message = reply["warning"]
        return response

    def do(self, command):
        name = command["do"]
        if name == "listen":
            return self.listen(command)
        with self.changed:
            if name == "script":
                self.replies += command["replies"]
            elif name == "release":
                self.releases += 1
                self.changed.notify_all()
            elif name == "calls":
                return {"calls": self.calls}
            elif name == "wait":
                enough = lambda: len(self.calls) >= command.get("calls", 0) and self.holds >= command.get("holds", 0)
                return {"done": self.changed.wait_for(enough, WAIT_SECONDS)}
            else:
                raise ValueError(f"unknown command {name}")
        return {}


def main():
    backend = Backend()
    for line in sys.stdin:
        print(json.dumps(backend.do(json.loads(line))), flush=True)
    with backend.changed:
        backend.releases += 1
        backend.changed.notify_all()
    if backend.server:
        backend.server.stop(None).wait()


main()
