"""The release that is measured: how it is built, and what a table says above its figures.

Failure: a build that fails ends the command, with the end of its log.
"""

import os
import platform
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "release")
LOG = os.path.join(ROOT, "build", "logs", "build-bench.log")


def build(target):
    os.makedirs(os.path.dirname(LOG), exist_ok=True)
    print(f"Building (release, with benchmarks; log: {os.path.relpath(LOG, ROOT)})", file=sys.stderr)
    tests = "OFF"
    cache = os.path.join(BUILD, "CMakeCache.txt")
    if os.path.exists(cache):
        with open(cache, encoding="utf-8") as file:
            tests = "ON" if "\nWAYMARK_TESTS:BOOL=ON\n" in file.read() else "OFF"
    environment = {**os.environ, "CCACHE_BASEDIR": ROOT, "CCACHE_NOHASHDIR": "1"}
    with open(LOG, "w", encoding="utf-8") as log:
        for command in (["cmake", "--preset", "release", "-DWAYMARK_BENCH=ON", f"-DWAYMARK_TESTS={tests}"],
                        ["ninja", "-C", BUILD, target]):
            if subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode != 0:
                with open(LOG, encoding="utf-8", errors="replace") as text:
                    sys.stderr.write("".join(text.readlines()[-60:]))
                sys.exit(f"{os.path.relpath(sys.argv[0], ROOT)}: the benchmarks can't be built")


def machine():
    def output(*command):
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip()

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as file:
        compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)$", file.read(), re.MULTILINE).group(1)
    return (f"machine: {model.group(1) if model else platform.machine()}, {os.cpu_count()} processors, "
            f"{platform.system()} {platform.release()}\n"
            f"compiler: {output(compiler, '--version').splitlines()[0]}\n"
            f"commit: {output('git', 'describe', '--always', '--dirty') or 'none'}")


def figure(value):
    return f"{value:.0f}" if abs(value) >= 10000 else f"{value:.4g}"
