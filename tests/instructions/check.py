#!/usr/bin/env python3
"""Counts the instructions of each operation under callgrind, and compares them with tests/instructions/expected.txt.

    check.py PROGRAM [OPERATION...] [--compiler ID-VERSION]   fails where one rose by more than 5 %, and says in which functions
    check.py PROGRAM [OPERATION...] --update                  writes the table anew
    check.py PROGRAM [OPERATION...] --show                    prints what was counted, function by function
    check.py PROGRAM --planted [--compiler ID-VERSION]        succeeds where a planted rise is found and its function named

The count is the calling thread's, inside operation_NAME() only. Addresses are not randomised, symbols are bound at the
start, and the C library's functions are those for the oldest processor of this kind: so it is the same on every machine.
Skipped (77) where the compiler is not the table's, or where there is no valgrind.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "expected.txt")
WARM, COUNTED = 200, 1200  # a run of each; their difference is what a warm program does
TOLERANCE = 0.05
SKIPPED = 77


def short(function):
    """Without arguments, template arguments and our namespaces: what a reader of the source looks for."""
    depth, out = 0, ""
    for c in function.replace("(anonymous namespace)::", ""):
        if c == "(" and depth == 0 and not out.endswith("operator"):
            break
        depth += c == "<"
        if depth == 0:
            out += c
        depth -= c == ">"
    for namespace in ("waymark::detail::", "waymark::journal::", "waymark::otlp::", "waymark::metric::", "waymark::"):
        out = out.replace(namespace, "")
    return re.sub(r"\.(part|isra|constprop|cold)\.?\d*", "", out.split("'")[0]).strip().split(" ")[-1]


def count(program, operation, times, planted):
    """Instructions of each function itself, over `times` calls."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("OTEL_", "WAYMARK_", "XDG_", "LD_", "GLIBC_"))}
    environment["LD_BIND_NOW"] = "1"
    environment["GLIBC_TUNABLES"] = ("glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-SSE4_2,-BMI1,-BMI2,-LZCNT,"
                                     "-MOVBE,-AVX_Fast_Unaligned_Load,-Prefer_No_VZEROUPPER")
    if planted:
        environment["WAYMARK_PLANTED_RISE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        subprocess.run(["setarch", "-R", "valgrind", "--tool=callgrind", "--quiet", f"--toggle-collect=operation_{operation}",
                        "--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={out}", program, operation, str(times)],
                       env=environment, check=True)
        functions, calls, current = {}, False, ""
        with open(out, encoding="utf-8") as file:
            for line in file:
                if line.startswith("fn="):
                    current = short(line[3:])
                elif line.startswith("calls="):
                    calls = True  # the next line is the callee's
                elif line[:1].isdigit() and len(line.split()) == 2:
                    if not calls:
                        functions[current] = functions.get(current, 0) + int(line.split()[1])
                    calls = False
        return functions


def per_operation(program, operation, planted=False):
    warm = count(program, operation, WARM, planted)
    all_of_them = count(program, operation, COUNTED, planted)
    each = {name: (n - warm.get(name, 0)) / (COUNTED - WARM) for name, n in all_of_them.items()}
    return {name: n for name, n in sorted(each.items(), key=lambda item: -item[1]) if n >= 0.5}


def read_table():
    """operation -> (total, {function: instructions}), and the compiler."""
    table, compiler, operation = {}, "", ""
    with open(TABLE, encoding="utf-8") as file:
        for line in file:
            if line.startswith("compiler "):
                compiler = line.split()[1]
            elif line.startswith("  "):
                instructions, function = line.split(maxsplit=1)
                table[operation][1][function.strip()] = float(instructions)
            elif line.strip() and not line.startswith("#"):
                operation, total = line.split()
                table[operation] = (float(total), {})
    return table, compiler


def write_table(counted, compiler):
    with open(TABLE, "w", encoding="utf-8") as file:
        file.write("# Instructions of an operation, and of the functions in it (without those that they call). Written by\n"
                   "# tests/instructions/check.py --update; compared by the test \"instructions\".\n")
        file.write(f"compiler {compiler}\n")
        for operation, functions in counted.items():
            file.write(f"\n{operation} {sum(functions.values()):.0f}\n")
            for name, n in functions.items():
                file.write(f"  {n:.0f} {name}\n")


def risen(functions, expected):
    """The functions whose cost rose most, as text."""
    rises = sorted(((n - expected.get(name, 0), name) for name, n in functions.items()), reverse=True)
    return ", ".join(f"{name} +{rise:.0f}" for rise, name in rises[:3] if rise >= 1) or "no single function"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("operations", nargs="*", metavar="OPERATION")
    parser.add_argument("--compiler", default="")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--planted", action="store_true")
    arguments = parser.parse_args()
    table, compiler = read_table() if os.path.exists(TABLE) else ({}, "")
    if arguments.compiler and arguments.compiler.split(".")[0] != compiler.split(".")[0] and not arguments.update:
        print(f"the table was made with {compiler}, this program with {arguments.compiler}: nothing to compare")
        return SKIPPED
    if shutil.which("valgrind") is None:
        print("there is no valgrind (scripts/install-deps test)")
        return SKIPPED
    operations = arguments.operations or subprocess.run([arguments.program, "--list"], stdout=subprocess.PIPE, text=True,
                                                        check=True).stdout.split()

    if arguments.planted:
        # In one of them: the check is the same for all.
        operation = "span_5attr"
        functions = per_operation(arguments.program, operation, planted=True)
        total, expected = table[operation]
        found = sum(functions.values()) > total * (1 + TOLERANCE) and "planted_rise" in risen(functions, expected)
        print(f"{operation}: {total:.0f} before, {sum(functions.values()):.0f} now: {risen(functions, expected)}")
        print("the planted rise was found" if found else "the planted rise was NOT found")
        return 0 if found else 1

    counted = {operation: per_operation(arguments.program, operation) for operation in operations}
    if arguments.show:
        for operation, functions in counted.items():
            print(f"{operation} {sum(functions.values()):.1f}")
            for name, n in functions.items():
                print(f"  {n:8.1f} {name}")
        return 0
    if arguments.update:
        rest = {operation: functions for operation, (_, functions) in table.items()}
        write_table({**rest, **counted} if arguments.operations else counted, arguments.compiler or compiler)
        return 0
    failed = False
    for operation, functions in counted.items():
        now = sum(functions.values())
        if operation not in table:
            print(f"{operation}: {now:.0f}, not in the table")
            failed = True
            continue
        total, expected = table[operation]
        print(f"{operation}: {now:.0f} of {total:.0f}")
        if now > total * (1 + TOLERANCE):
            print(f"  FAILED: rose by {100 * (now / total - 1):.1f} %: {risen(functions, expected)}")
            failed = True
        elif now < total * (1 - TOLERANCE):
            print(f"  fell by {100 * (1 - now / total):.1f} %: write the table anew with --update, so that this is held")
    for operation in table if not arguments.operations else []:
        if operation not in counted:
            print(f"{operation}: in the table, and no operation of the program")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
