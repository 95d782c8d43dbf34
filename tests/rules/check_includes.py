#!/usr/bin/env python3
"""The rules of the house: who may include whom, where each third-party library lives, and how headers open.

    check_includes.py [ROOT]      prints one line for each violation; exit code 1 where there is one

Includes follow the data (ROOMS), the runner, the bindings and the examples see public headers only, and each
third-party library has one home (HOMES). Tests see every room; their own helpers live in tests/support.
"""

import os
import re
import sys

# Each room of sdk/src and the rooms that it may include. What is in sdk/src itself is the composition root: it sees all.
BELOW_INSTRUMENTS = ["journal", "otlp", "base"]
ROOMS = {
    "base": [],
    "otlp": ["base"],
    "journal": ["otlp", "base"],
    "trace": BELOW_INSTRUMENTS,
    "log": ["trace"] + BELOW_INSTRUMENTS,
    "metric": ["trace"] + BELOW_INSTRUMENTS,
    "transport": ["base"],
    "export": ["transport", "journal", "otlp", "base"],
    "config": ["base"],
}

# What a third-party header looks like, and the folders or files that may include it.
HOMES = {
    "libcurl": (r"curl/", ["sdk/src/transport/", "sdk/src/config/"]),
    "zlib": (r"zlib\.h$", ["sdk/src/transport/"]),
    "protozero": (r"protozero/", ["sdk/src/otlp/"]),
    "xxhash": (r"xxh", ["sdk/src/journal/"]),
    "elfutils": (r"elfutils/|(lib|g)elf\.h$", ["sdk/src/journal/symbols.cpp"]),
    "yaml-cpp": (r"yaml-cpp/", ["sdk/src/config/"]),
    "spdlog": (r"(spdlog|fmt)/", ["sdk/src/export/", "sdk/include/waymark/spdlog_sink.h"]),
    "nlohmann/json": (r"nlohmann/", ["runner/include/waymark/", "runner/src/", "sdk/src/otlp/", "sdk/src/export/response.cpp",
                                       "examples/"]),
    "SQLite": (r"sqlite3\.h$", ["runner/src/store/"]),
    "libpq": (r"libpq", ["runner/src/store/"]),
    "CLI11": (r"CLI/", ["runner/src/cli/", "examples/"]),
    "libjpeg": (r"(jpeglib|jerror|turbojpeg)\.h$", ["examples/"]),
    "GoogleTest": (r"g(test|mock)/", ["examples/workflow_test/"]),
    "libpng": (r"png\.h$", ["examples/"]),
    "Python": (r"Python\.h$", ["bindings/python/"]),
}

# The C library's and Linux's headers that need no home. C++'s own have neither a dot nor a slash.
SYSTEM_FOLDERS = ("sys/", "linux/", "netinet/", "arpa/", "net/", "asm/", "sanitizer/")
SYSTEM_HEADERS = {
    "assert.h", "cpuid.h", "ctype.h", "cxxabi.h", "dirent.h", "dlfcn.h", "errno.h", "execinfo.h", "fcntl.h", "fenv.h",
    "float.h", "fnmatch.h", "ftw.h", "getopt.h", "glob.h", "grp.h", "ifaddrs.h", "immintrin.h", "inttypes.h", "langinfo.h",
    "libgen.h", "limits.h", "link.h", "locale.h", "malloc.h", "math.h", "netdb.h", "poll.h", "pthread.h", "pty.h", "pwd.h",
    "sched.h", "semaphore.h", "setjmp.h", "signal.h", "spawn.h", "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h",
    "stdint.h", "stdio.h", "stdlib.h", "string.h", "strings.h", "syscall.h", "syslog.h", "termios.h", "time.h", "ucontext.h",
    "unistd.h", "utime.h", "wait.h", "wchar.h", "x86intrin.h",
}

SOURCES = (".h", ".hpp", ".cpp", ".cc", ".c")
FOLDERS = ["sdk", "runner", "bindings", "examples", "tests"]
FORBIDDEN_NAMES = {"factory", "manager", "helper", "helpers", "impl", "util", "utils"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def sources(root):
    for folder in FOLDERS:
        for path, folders, files in os.walk(os.path.join(root, folder)):
            folders[:] = sorted(name for name in folders if name not in ("build", "corpus", "node_modules"))
            for name in sorted(files):
                if name.endswith(SOURCES):
                    yield os.path.relpath(os.path.join(path, name), root)


def resolve(root, path, name):
    """The project's file behind an include, or None where it is not ours."""
    folders = [os.path.dirname(path), "sdk/src", "sdk/include", "runner/src", "runner/include", "bindings/c/include", "tests"]
    for folder in folders:
        candidate = os.path.normpath(os.path.join(folder, name))
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def is_public(path):
    return path.startswith(("sdk/include/", "runner/include/", "bindings/c/include/"))


def room_of(path):
    parts = path.split("/")
    return parts[2] if parts[:2] == ["sdk", "src"] and len(parts) > 3 else None


def check_ours(path, target):
    """What is wrong with `path` including our own file `target`; None where nothing is."""
    if path.startswith("tests/"):
        return None
    if target.startswith("tests/"):
        return "the product includes a test's file"
    if path.startswith("sdk/include/"):
        return None if target.startswith("sdk/include/") or path.endswith("/waymark.h") else \
            "a public header of the SDK includes what is not installed with it"
    if path.startswith("runner/include/"):
        return None if is_public(target) else "a public header includes a private one"
    if path.startswith("sdk/src/"):
        if target.startswith("sdk/include/"):
            return None
        if not target.startswith("sdk/src/"):
            return "the SDK includes the runner, which stands on it"
        room, other = room_of(path), room_of(target)
        if room is None or room == other:
            return None
        if room not in ROOMS:
            return f"the room {room} has no place in the order yet: add it to ROOMS"
        if other is None:
            return f"the room {room} includes the composition root, which stands above it"
        return None if other in ROOMS[room] else f"the room {room} may include {', '.join(ROOMS[room]) or 'no other'}, not {other}"
    # The runner, the bindings and the examples.
    if is_public(target) or target.split("/")[0] == path.split("/")[0]:
        return None
    return "only public headers (waymark/...) are for the runner, the bindings and the examples"


def check_foreign(path, name):
    """What is wrong with `path` including `name`, which is none of ours."""
    if path.startswith("tests/"):
        return None
    if re.fullmatch(r"\w+", name) or name.startswith(SYSTEM_FOLDERS) or name in SYSTEM_HEADERS:
        return None
    for library, (pattern, homes) in HOMES.items():
        if re.match(pattern, name):
            return None if path.startswith(tuple(homes)) else f"{library} lives in {' and '.join(homes)}"
    return "a library without a home: add it to HOMES and to docs/dependencies.md"


def check_header(path, text):
    """How a header must open."""
    if "#pragma once" not in text:
        yield "has no #pragma once"
    opening = []
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        opening.append(line)
    if not opening:
        yield "does not open with a comment that says what it is for"
        return
    # A header that only gathers others has nothing to say about threads; examples and tests are read, not built upon.
    code = re.sub(r"^\s*(//.*|#.*)?$", "", text, flags=re.MULTILINE).strip()
    if not code or path.startswith(("tests/", "examples/")):
        return
    for key in ("Hides:", "Threads:", "Failure:"):
        if not any(line.startswith("// " + key) for line in opening):
            yield f"opens without a line `// {key}`"


def check(root):
    """One line for each violation."""
    for path in sources(root):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = file.read()
        words = re.split(r"[_.\-]", os.path.basename(path).lower())
        for word in FORBIDDEN_NAMES.intersection(words):
            yield f"{path}: '{word}' names a pattern; name the file for what it hides"
        if path.endswith((".h", ".hpp")):
            for problem in check_header(path, text):
                yield f"{path}: {problem}"
        for match in INCLUDE.finditer(text):
            quoted, name = match.group(1) == '"', match.group(2)
            line = text.count("\n", 0, match.start()) + 1
            target = resolve(root, path, name) if quoted or name.startswith("waymark/") else None
            if target:
                problem = check_ours(path, target)
            elif quoted and not path.startswith("tests/"):  # a test's build may name further folders
                problem = "there is no such file"
            else:
                problem = check_foreign(path, name)
            if problem:
                yield f"{path}:{line}: #include {name}: {problem}"


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    problems = list(check(os.path.abspath(root)))
    for problem in problems:
        print(problem)
    print(f"{len(problems)} violations in {len(list(sources(root)))} files")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
