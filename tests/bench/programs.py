"""Whole programs under measurement: started, looked at from outside, and their rows told.

Hides: how a program's CPU, memory and time are read (none of it is told by the program itself): CPU by wait4 of the child,
peak memory from VmHWM while it still lives, time by this process's clock, delivery by what the sink decoded.
Failure: Failed, with why there is no figure.
"""

import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "release", "tests", "bench")
PATIENCE = 600  # seconds: nothing measured here lasts so long


class Failed(Exception):
    pass


class Program:
    """A child with pipes to its standard input and output, in a working directory."""

    def __init__(self, *command, cwd=None, env=None):
        self.name = os.path.basename(command[0])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd, bufsize=0,
                                        env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.buffer = b""
        self.cpu_s = None

    def line(self, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = self.process.stdout.read(65536) if ready else b""
            if not piece:
                self.kill()
                raise Failed(f"{self.name} said nothing more" if ready else f"{self.name} said nothing for {patience} s")
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def say(self):
        self.process.stdin.write(b"\n")

    def peak_mib(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM:"))

    def cpu_now_s(self):
        # The kernel's clock of another process's CPU: CPUCLOCK_SCHED of all its threads.
        return time.clock_gettime((~self.pid << 3) | 2)

    def end(self):
        """Ends its standard input and waits; its CPU is then known."""
        self.process.stdin.close()
        self._wait()
        if self.process.returncode != 0:
            raise Failed(f"{self.name} ended with {self.process.returncode}")

    def kill(self):
        if self.process.returncode is None:
            self.process.kill()
            self._wait()

    def _wait(self):
        _, status, usage = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self.process.stdout.close()


class Sink:
    def __init__(self):
        self.program = Program(os.path.join(BUILD, "bench_sink"))
        self.port = int(self.program.line().split()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1/traces"

    def spans(self):
        """How many it has got so far, repeated ones too."""
        self.program.say()
        return int(self.program.line().split()[1])

    def finish(self):
        """The distinct spans that it decoded."""
        self.program.process.stdin.close()
        distinct = int(self.program.line().split()[-1])
        self.program._wait()
        return distinct

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.kill()


class Directory:
    """An empty one on the disk that holds temporary files, gone afterwards."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="waymark-bench-")
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


class Run:
    """One program at the work of peers/README.md, to a sink of its own, with all that was seen of it."""

    def __init__(self, command, work, count, rate=0):
        with Directory() as directory, Sink() as sink:
            program = Program(*command, sink.url, work, str(count), str(rate), cwd=directory)
            try:
                if program.line() != "ready":
                    raise Failed(f"{program.name} did not get ready")
                # What a language takes to start is no part of the work; where it counts, cpu_s has it.
                before_s = program.cpu_now_s()
                begin = time.monotonic()
                program.say()
                words = program.line().split()
                self.seconds = time.monotonic() - begin
                self.recorded = int(words[1])
                self.ns = float(words[3])
                self.peak_mib = program.peak_mib()
                program.end()
            finally:
                program.kill()
            self.cpu_s = program.cpu_s
            self.work_cpu_s = program.cpu_s - before_s
            self.delivered = sink.finish()


def clock_read_ns():
    """Measured by a program of ours: this language's own calls would hide it."""
    return float(subprocess.run([os.path.join(BUILD, "clock_read")], stdout=subprocess.PIPE, text=True, check=True).stdout)


def row(name, values, unit, limit=None, at_least=False, clock_reads=None, remark=None):
    """As row.h writes it."""
    out = {"row": name, "median": statistics.median(values), "spread": [min(values), max(values)], "unit": unit}
    if clock_reads:
        out["clock_read_ns"] = statistics.median(clock_reads)
        # CPU of a million operations, in seconds, is microseconds of each.
        out["in_clock_reads"] = statistics.median(v * 1000 / read for v, read in zip(values, clock_reads))
    if limit is not None:
        out["limit"] = limit
    if at_least:
        out["at_least"] = True
    if remark:
        out["remark"] = remark
    for key in ("median", "clock_read_ns", "in_clock_reads"):
        if key in out:
            out[key] = float(f"{out[key]:.6g}")
    out["spread"] = [float(f"{v:.6g}") for v in out["spread"]]
    return out


def main(measurements):
    """The command line of a benchmark program: --list, or ROW...; `measurements` are (row names, function) pairs."""
    known = [name for names, _ in measurements for name in names]
    asked = sys.argv[1:]
    if asked == ["--list"]:
        print("\n".join(known))
        return 0
    unknown = [name for name in asked if name not in known]
    if unknown:
        print(f"{sys.argv[0]}: unknown row '{unknown[0]}'; --list tells them", file=sys.stderr)
        return 2
    asked = asked or known
    status = 0
    for names, measure in measurements:
        wanted = [name for name in names if name in asked]
        if not wanted:
            continue
        found, why = [], "was not measured"
        try:
            found = measure()
        except (Failed, OSError, subprocess.SubprocessError) as error:
            why = str(error)
        for name in wanted:
            match = [one for one in found if one["row"] == name]
            if match:
                print(json.dumps(match[0]), flush=True)
            else:
                print(f"{name}: {why}", file=sys.stderr)
                status = 1
    return status
