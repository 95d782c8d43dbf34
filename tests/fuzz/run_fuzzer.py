#!/usr/bin/env python3
"""Runs one fuzzer from its seed corpus, and judges the outcome.

    run_fuzzer.py PROGRAM CORPUS --clean|--planted

--clean: it must execute WAYMARK_FUZZ_RUNS inputs (default 200,000), and find nothing. --planted: AddressSanitizer must
stop it within as many, on an input that is no seed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

MAX_LEN = 4096  # bytes of an input: room for every seed


def fuzz(program, corpora, runs, work):
    command = [program, f"-runs={runs}", f"-max_len={MAX_LEN}", "-seed=20260101", "-timeout=20", "-rss_limit_mb=2048",
               "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={work}/"] + corpora
    result = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            check=False)
    output = result.stdout.decode("utf-8", "replace")
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    return result.returncode, int(executed.group(1)) if executed else 0, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("corpus")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--clean", action="store_true")
    mode.add_argument("--planted", action="store_true")
    arguments = parser.parse_args()
    runs = int(os.environ.get("WAYMARK_FUZZ_RUNS") or 200000)

    seeds = len(os.listdir(arguments.corpus)) if os.path.isdir(arguments.corpus) else 0
    if seeds == 0:
        print(f"{arguments.corpus} holds no seeds")
        return 1

    # Nothing stays behind: an input that crashes is in the output, as base64. Some fuzzers make files here: in memory.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as work:
        grown = os.path.join(work, "grown")
        os.mkdir(grown)
        if arguments.planted:
            code, executed, output = fuzz(arguments.program, [arguments.corpus], 0, work)
            if code != 0:
                print(output)
                print("a seed already meets the planted fault (or crashes): that would show nothing")
                return 1
        code, executed, output = fuzz(arguments.program, [grown, arguments.corpus], runs, work)

    print(f"{executed} inputs executed, from {seeds} seeds")
    if arguments.planted:
        if code == 0 or "ERROR: AddressSanitizer: heap-buffer-overflow" not in output:
            print(output[-8000:])
            print("the planted overrun was not found")
            return 1
        print("the planted overrun was found")
        return 0
    if code != 0:
        print(output[-20000:])
        return 1
    if executed < runs:
        print(output[-8000:])
        print(f"fewer than the {runs} inputs that were asked for")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
