#!/usr/bin/env python3
"""One million spans of five attributes, flat out, all delivered to a sink in another process; and what a killed process left.

Usage: e2e.py [--list] [ROW...]
The recording process is a child: its CPU, of all its threads from its first instruction to its last, is what wait4 says.
A run in which a span did not arrive, or the accounts do not add up, has no figure.
"""

import os
import sys
import time

sys.dont_write_bytecode = True  # the source tree stays as it is

from programs import BUILD, Directory, Failed, Program, Run, Sink, clock_read_ns, main, row  # noqa: E402

WAYMARK = os.path.join(BUILD, "peer_waymark")
SPANS = 1_000_000
REPETITIONS = 5


def runs(work):
    found, reads = [], []
    for _ in range(REPETITIONS):
        reads.append(clock_read_ns())
        run = Run([WAYMARK], work, SPANS)
        if run.delivered != SPANS:
            raise Failed(f"{run.delivered} of {SPANS} spans at the sink")
        found.append(run)
    return found, reads


def http():
    found, reads = runs("spans")
    return [
        row("e2e.http.cpu_s_per_million", [run.cpu_s for run in found], "s", limit=12, clock_reads=reads, remark="all threads"),
        row("e2e.http.dropped", [SPANS - run.delivered for run in found], "spans", limit=0),
        row("e2e.http.peak_mib", [run.peak_mib for run in found], "MiB", limit=64),
        row("e2e.http.mspans_per_s", [SPANS / run.seconds / 1e6 for run in found], "M/s", limit=4, at_least=True),
    ]


def cpu(protocol):
    found, reads = runs("spans." + protocol)
    peak = max(run.peak_mib for run in found)
    return [row(f"e2e.{protocol}.cpu_s_per_million", [run.cpu_s for run in found], "s", clock_reads=reads,
                remark=f"all threads; {SPANS / sorted(run.seconds for run in found)[REPETITIONS // 2] / 1e6:.2f} M/s, {peak:.0f} MiB")]


def recovery():
    """From when the second process starts to open the directory until the sink has got the last span."""
    spans = 6_000_000
    with Directory() as directory:
        with Sink() as unreachable:
            url = unreachable.url
        killed = Program(WAYMARK, url, "leave", str(spans), "0", cwd=directory)
        try:
            killed.line()
            killed.say()
            killed.line()
        finally:
            killed.kill()
        state = os.path.join(directory, "state")
        paths = [os.path.join(parent, name) for parent, _, names in os.walk(state) for name in names]
        # Sparse files count by what they hold.
        mib = sum(os.stat(path).st_blocks * 512 for path in paths) / 2**20
        with Sink() as sink:
            program = Program(WAYMARK, sink.url, "recover", "0", "0", cwd=directory)
            try:
                program.line()
                begin = time.monotonic()
                program.say()
                while sink.spans() < spans:
                    if time.monotonic() - begin > 120:
                        raise Failed(f"{sink.spans()} of {spans} spans after two minutes")
                    time.sleep(0.01)
                seconds = time.monotonic() - begin
                peak = 0.0
                program.line()
                peak = program.peak_mib()
                program.end()
            finally:
                program.kill()
            delivered = sink.finish()
        if delivered != spans:
            raise Failed(f"{delivered} of {spans} spans at the sink")
        return [row("recover.mib_per_s", [mib / seconds], "MiB/s",
                    remark=f"{mib:.0f} MiB, {spans} spans, all delivered; {program.cpu_s:.1f} s of CPU, {peak:.0f} MiB of memory")]


if __name__ == "__main__":
    sys.exit(main([
        (["e2e.http.cpu_s_per_million", "e2e.http.dropped", "e2e.http.peak_mib", "e2e.http.mspans_per_s"], http),
        (["e2e.grpc.cpu_s_per_million"], lambda: cpu("grpc")),
        (["e2e.json.cpu_s_per_million"], lambda: cpu("json")),
        (["recover.mib_per_s"], recovery),
    ]))
