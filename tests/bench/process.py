#!/usr/bin/env python3
"""What having the SDK costs a program that hardly uses it: start-up, shutdown, size, idling; and what its headers cost a
compiler.

Usage: process.py [--list] [ROW...]
one_span records one span and shuts down; `nothing` is the same program without the SDK, and what it takes is taken off.
"""

import glob
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the source tree stays as it is

from programs import BUILD, ROOT, Directory, Failed, Program, Sink, main, row  # noqa: E402

ONE_SPAN = os.path.join(BUILD, "one_span")
NOTHING = os.path.join(BUILD, "nothing")
REPETITIONS = 21


def times(command, cwd):
    """From its start to its being ready, and from the word to end to its end, in milliseconds."""
    begin = time.monotonic()
    program = Program(*command, cwd=cwd, env={"OTEL_LOG_LEVEL": "error"})
    try:
        program.line()
        ready = time.monotonic()
        program.end()
    finally:
        program.kill()
    return (ready - begin) * 1e3, (time.monotonic() - ready) * 1e3


def start_and_end():
    spans, nothings = [], []
    with Directory() as directory, Sink() as sink:
        for _ in range(REPETITIONS):
            nothings.append(times([NOTHING], directory))
            spans.append(times([ONE_SPAN, sink.url, os.path.join(directory, "state")], directory))
        delivered = sink.finish()
    if delivered != REPETITIONS:
        raise Failed(f"{delivered} of {REPETITIONS} spans at the sink")
    rows = []
    for i, name in enumerate(("startup.ms", "shutdown.ms")):
        nothing = statistics.median(pair[i] for pair in nothings)
        rows.append(row(name, [pair[i] - nothing for pair in spans], "ms", remark=f"beyond the {nothing:.2f} ms of a program without it"))
    return rows


def size():
    with tempfile.NamedTemporaryFile() as stripped:
        kib = []
        for path in (ONE_SPAN, NOTHING):
            subprocess.run(["strip", "-o", stripped.name, path], check=True)
            kib.append(os.path.getsize(stripped.name) / 1024)
    return [row("program.kib", [kib[0]], "KiB", remark=f"static SDK, stripped; {kib[1]:.0f} KiB without it")]


def idle():
    seconds = 10
    with Directory() as directory, Sink() as sink:
        program = Program(ONE_SPAN, sink.url, os.path.join(directory, "state"), env={"OTEL_LOG_LEVEL": "error"})
        try:
            program.line()
            # Its one span is sent after the export interval, which is no idling.
            deadline = time.monotonic() + 30
            while sink.spans() < 1:
                if time.monotonic() > deadline:
                    raise Failed("its span did not arrive")
                time.sleep(0.1)
            time.sleep(0.5)
            before = program.cpu_now_s()
            time.sleep(seconds)
            spent = (program.cpu_now_s() - before) * 1e3
            if before <= 0:
                raise Failed("the kernel does not tell the CPU of another process")
            program.end()
        finally:
            program.kill()
    return [row("idle.cpu_ms", [spent], "ms", remark=f"in {seconds} s")]


def headers():
    found = {}
    for folder in ("sdk", "runner"):
        for path in sorted(glob.glob(os.path.join(ROOT, folder, "include", "waymark", "*.h"))):
            found[os.path.splitext(os.path.basename(path))[0]] = path
    return found


def header(path):
    name = os.path.splitext(os.path.basename(path))[0]
    with open(os.path.join(ROOT, "build", "release", "CMakeCache.txt"), encoding="utf-8") as file:
        compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)$", file.read(), re.MULTILINE).group(1)
    command = [compiler, "-std=c++20", "-x", "c++", f"-I{ROOT}/sdk/include", f"-I{ROOT}/runner/include", "-include", path, "/dev/null"]
    text = subprocess.run([*command, "-E", "-P"], stdout=subprocess.PIPE, check=True).stdout
    spent = []
    for _ in range(3):
        compiling = Program(*command, "-O2", "-c", "-o", "/dev/null")
        compiling.end()
        spent.append(compiling.cpu_s * 1e3)
    return [row(f"header.{name}.ms", spent, "ms", remark="CPU of the compiler"),
            row(f"header.{name}.lines", [text.count(b"\n")], "lines", remark="preprocessed, without empty ones")]


if __name__ == "__main__":
    measurements = [(["startup.ms", "shutdown.ms"], start_and_end), (["program.kib"], size), (["idle.cpu_ms"], idle)]
    for header_name, header_path in headers().items():
        measurements.append(([f"header.{header_name}.ms", f"header.{header_name}.lines"], lambda path=header_path: header(path)))
    sys.exit(main(measurements))
