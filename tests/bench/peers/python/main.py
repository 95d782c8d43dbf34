"""OpenTelemetry's Python SDK, doing the work of tests/bench/peers/README.md: `main.py URL WORK COUNT RATE`, WORK is spans,
counter (nobody exports it) or log (the standard library's logger, formatting into nothing)."""

import io
import logging
import sys
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

URL, WORK, COUNT, RATE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
SCENE = "S2A_MSIL1C_20260101T100031_N0500_R02"
BAND = "B02_10m_jp2_"


def perform(operation, finish):
    print("ready", flush=True)
    sys.stdin.readline()
    each = RATE // 1000 if RATE else 1000
    pace, spent, done = time.monotonic(), 0, 0
    while done < COUNT:
        if RATE:
            pace += 0.001
            time.sleep(max(0.0, pace - time.monotonic()))
        end = min(COUNT, done + each)
        begin = time.perf_counter_ns()
        while done < end:
            operation(done)
            done += 1
        spent += time.perf_counter_ns() - begin
    finish()
    print(f"recorded {COUNT} ns {spent / COUNT:.1f}", flush=True)
    sys.stdin.readline()


def spans():
    # Its default queue holds 2,048: this is the room that it needs to lose nothing.
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=URL), max_queue_size=65536, max_export_batch_size=4096)
    provider = TracerProvider(resource=Resource({"service.name": "bench"}))
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("bench")

    def operation(i):
        tracer.start_span("read_bands", attributes={"scene": SCENE, "band": BAND, "index": i, "width": 10980, "offset": 123456789}).end()

    perform(operation, provider.shutdown)


def counter():
    c = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("bench").create_counter("c")
    perform(lambda i: c.add(1, {"cluster": "sentinel-2-west", "identifier": "tilebox.com/Tile", "shard": i & 3}), lambda: None)


def log():
    class Nothing(io.TextIOBase):
        def write(self, text):
            return len(text)

    logger = logging.getLogger("bench")
    logger.addHandler(logging.StreamHandler(Nothing()))
    logger.setLevel(logging.INFO)
    perform(lambda i: logger.info("tile read cluster=%s identifier=%s index=%d", "sentinel-2-west", "tilebox.com/Tile", i), lambda: None)


{"spans": spans, "counter": counter, "log": log}[WORK]()
