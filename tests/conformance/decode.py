#!/usr/bin/env python3
"""OTLP requests through the official protobuf classes, as canonical JSON (ids as hex, 64-bit integers as strings).

    decode.py traces|logs|metrics FILE [--delimited | --json]   prints one line a request; FILE may be - for standard input
    decode.py --serve                                   answers tests/support/official.h on standard input and output

FILE holds one request, or with --delimited any number of them, each behind its length as a varint, or with --json lines
of OTLP JSON. What the classes do not know is an error.

--serve reads frames (one byte of command, four bytes of length, little-endian, then as many bytes) and answers each with a
frame of the same form, its first byte being "+" or, where the request can't be read, "-" and the reason:
    T, L, M   a traces, logs or metrics request -> its canonical JSON
    J, K, N   the same as OTLP JSON             -> its canonical JSON
    t, l, m   "SEED COUNT" as text              -> as many random requests, each behind its length as a varint
"""
import argparse
import base64
import json
import random
import re
import struct
import sys

from google.protobuf import json_format
from google.protobuf.internal.decoder import _DecodeVarint32
from google.protobuf.internal.encoder import _VarintBytes
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from google.protobuf.descriptor import FieldDescriptor as Field

REQUESTS = {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest}


def change_ids(data, change):
    """Puts change(id) in the place of every id: protobuf's JSON mapping has them as base64, OTLP as hex."""
    holders = []
    for resource in data.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            for span in scope.get("spans", []):
                holders += [span, *span.get("links", [])]
    for resource in data.get("resourceLogs", []):
        for scope in resource.get("scopeLogs", []):
            holders += scope.get("logRecords", [])
    for resource in data.get("resourceMetrics", []):
        for scope in resource.get("scopeMetrics", []):
            for metric in scope.get("metrics", []):
                for kind in ("gauge", "sum", "histogram", "exponentialHistogram"):
                    for point in metric.get(kind, {}).get("dataPoints", []):
                        holders += point.get("exemplars", [])
    for holder in holders:
        for key in ("traceId", "spanId", "parentSpanId"):
            if key in holder:
                holder[key] = change(holder[key])


def canonical_json(request):
    """protobuf's own JSON mapping, with OTLP's one exception: ids are hex."""
    data = json_format.MessageToDict(request, use_integers_for_enums=True)
    change_ids(data, lambda value: base64.b64decode(value).hex())
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def bytes_of_hex(value):
    if not re.fullmatch("([0-9a-fA-F]{16}){0,2}", value):
        raise ValueError(f"{value!r} is no id of 8 or 16 bytes as hex")
    return base64.b64encode(bytes.fromhex(value)).decode()


def parse_json(signal, line):
    data = json.loads(line)
    change_ids(data, bytes_of_hex)
    return json_format.ParseDict(data, REQUESTS[signal](), ignore_unknown_fields=False)


def parse(signal, data):
    request = REQUESTS[signal]()
    request.ParseFromString(data)
    return request


def delimited(data):
    position = 0
    while position < len(data):
        size, position = _DecodeVarint32(data, position)
        if position + size > len(data):
            raise ValueError(f"the request at byte {position} is cut off")
        yield data[position : position + size]
        position += size


# What no SDK sends: profiles' indices into a string table, and entities, which are in development.
LEFT_OUT = {"key_strindex", "string_value_strindex", "entity_refs"}
MAX_DEPTH = 5  # of arrays and maps
INTEGERS = {
    Field.TYPE_INT64: (-(2**63), 2**63 - 1),
    Field.TYPE_INT32: (-(2**31), 2**31 - 1),
    Field.TYPE_SINT32: (-(2**31), 2**31 - 1),
    Field.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    Field.TYPE_UINT64: (0, 2**64 - 1),
    Field.TYPE_UINT32: (0, 2**32 - 1),
    Field.TYPE_FIXED32: (0, 2**32 - 1),
    Field.TYPE_FIXED64: (0, 2**63 - 1),  # times: beyond this a reader's clock type ends
}
TEXTS = ["", "a", "scene S2A_1", "line\nbreak\ttab\"quote\\", "\x00\x01\x1f\x7f", "Grüße", "衛星", "🛰️", "\u2028\ufeff\ufffd", "x" * 300]
DOUBLES = [0.0, -0.0, 1.0, -1.5, 0.1, 1e300, -1e-300, 5e-324, 1.7976931348623157e308, 2.0**53, 2.0**63,
           float("nan"), float("inf"), float("-inf")]


class RandomMessages:
    """Fills messages of any type by their descriptors: edge values often, anything at all sometimes."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def fill(self, message, depth=0):
        members = {}
        for field in message.DESCRIPTOR.fields:
            if field.name in LEFT_OUT:
                continue
            if field.containing_oneof:
                members.setdefault(field.containing_oneof.name, []).append(field)
            elif self.random.random() < 0.75:
                self.set(message, field, depth)
        for fields in members.values():
            if depth >= MAX_DEPTH:
                fields = [field for field in fields if field.message_type is None]
            if self.random.random() < 0.9:
                self.set(message, self.random.choice(fields), depth)
        return message

    def set(self, message, field, depth):
        if field.message_type is not None:
            deeper = depth + (field.message_type.name in ("ArrayValue", "KeyValueList"))
            if field.is_repeated:
                for _ in range(self.random.choice((0, 1, 1, 2, 3))):
                    self.fill(getattr(message, field.name).add(), deeper)
            else:
                child = getattr(message, field.name)
                child.SetInParent()
                self.fill(child, deeper)
        elif field.is_repeated:
            getattr(message, field.name).extend(self.scalar(field) for _ in range(self.random.choice((0, 1, 3, 20))))
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field):
        if field.name in ("trace_id", "span_id", "parent_span_id"):
            size = 16 if field.name == "trace_id" else 8
            return self.random.choice((b"", bytes(size), self.random.randbytes(size), self.random.randbytes(size)))
        if field.type == Field.TYPE_STRING:
            return self.random.choice(TEXTS)
        if field.type == Field.TYPE_BYTES:
            return self.random.randbytes(self.random.choice((0, 1, 2, 3, 4, 100)))
        if field.type == Field.TYPE_BOOL:
            return self.random.random() < 0.5
        if field.type == Field.TYPE_DOUBLE:
            return self.random.choice(DOUBLES + [struct.unpack("<d", self.random.randbytes(8))[0]])
        if field.type == Field.TYPE_ENUM:
            return self.random.choice(field.enum_type.values).number
        low, high = INTEGERS[field.type]
        return self.random.choice((0, 1, low, high, max(low, -1), 2**31 - 1, self.random.randint(low, high)))


def read_exactly(stream, size):
    data = stream.read(size)
    if len(data) != size:
        sys.exit(0)
    return data


def answer(command, payload):
    signal = "traces" if command in "TtJ" else "logs" if command in "LlK" else "metrics"
    if command in "TLM":
        return canonical_json(parse(signal, payload)).encode()
    if command in "JKN":
        return canonical_json(parse_json(signal, payload)).encode()
    if command in "tlm":
        seed, count = map(int, payload.split())
        filler = RandomMessages(seed)
        out = bytearray()
        for _ in range(count):
            data = filler.fill(REQUESTS[signal]()).SerializeToString()
            out += _VarintBytes(len(data)) + data
        return bytes(out)
    raise ValueError(f"unknown command {command!r}")


def serve():
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        command = read_exactly(source, 1).decode("latin-1")
        (size,) = struct.unpack("<I", read_exactly(source, 4))
        payload = read_exactly(source, size)
        try:
            status, out = b"+", answer(command, payload)
        except Exception as error:  # what went wrong is the test's to report
            status, out = b"-", f"{type(error).__name__}: {error}".encode()
        sink.write(status + struct.pack("<I", len(out)) + out)
        sink.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signal", nargs="?", choices=sorted(REQUESTS))
    parser.add_argument("file", nargs="?")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--delimited", action="store_true", help="FILE holds many requests, each behind its length")
    form.add_argument("--json", action="store_true", help="FILE holds lines of OTLP JSON, a request each")
    parser.add_argument("--serve", action="store_true", help="answer requests on standard input")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    if not arguments.signal or not arguments.file:
        parser.error("expected traces, logs or metrics, and a file")
    if arguments.file == "-":
        data = sys.stdin.buffer.read()
    else:
        with open(arguments.file, "rb") as file:
            data = file.read()
    if arguments.json:
        for line in data.splitlines():
            print(canonical_json(parse_json(arguments.signal, line)))
        return
    for request in delimited(data) if arguments.delimited else [data]:
        print(canonical_json(parse(arguments.signal, request)))


if __name__ == "__main__":
    main()
