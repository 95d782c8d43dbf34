#!/usr/bin/env python3
"""Plants one violation at a time in a small tree, and sees each found and nothing else."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_includes  # noqa: E402

OPENING = "// Purpose.\n//\n// Hides: nothing.\n// Threads: any.\n// Failure: none.\n#pragma once\n"
HOUSE = {
    "sdk/include/waymark/trace.h": OPENING + "#include <string>\nstruct A;\n",
    "sdk/include/waymark/waymark.h": "// All.\n#pragma once\n#include \"waymark/trace.h\"\n",
    "sdk/include/waymark/spdlog_sink.h": OPENING + "#include <spdlog/spdlog.h>\nstruct B;\n",
    "sdk/src/core.h": OPENING + "#include \"waymark/trace.h\"\nstruct C;\n",
    "sdk/src/telemetry.cpp": "#include \"core.h\"\n#include \"export/batch.h\"\n#include \"journal/journal.h\"\n",
    "sdk/src/base/clock.h": OPENING + "#include <time.h>\n#include <sys/mman.h>\nstruct D;\n",
    "sdk/src/otlp/writer.h": OPENING + "#include <protozero/pbf_writer.hpp>\n#include \"base/clock.h\"\nstruct E;\n",
    "sdk/src/journal/journal.h": OPENING + "#include <xxhash.h>\n#include \"otlp/writer.h\"\nstruct F;\n",
    "sdk/src/transport/http.cpp": "#include <curl/curl.h>\n",
    "sdk/src/export/batch.h": OPENING + "#include \"journal/journal.h\"\nstruct G;\n",
    "runner/include/waymark/task.h": OPENING + "#include <nlohmann/json.hpp>\n#include \"waymark/trace.h\"\nstruct H;\n",
    "runner/src/store/sqlite.cpp": "#include <sqlite3.h>\n#include \"waymark/task.h\"\n",
    "examples/scene/main.cpp": "#include <png.h>\n#include \"waymark/waymark.h\"\n#include \"pixels.h\"\n",
    "examples/scene/pixels.h": "// Pixels.\n#pragma once\nstruct I;\n",
    "tests/support/http_server.h": "// A server.\n#pragma once\nstruct J;\n",
    "tests/export/batch_test.cpp": "#include <gtest/gtest.h>\n#include \"export/batch.h\"\n#include \"support/http_server.h\"\n",
}


class CheckIncludesTest(unittest.TestCase):
    def found(self, planted=None):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**HOUSE, **(planted or {})}.items():
                path = os.path.join(root, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
            return list(check_includes.check(root))

    def sees(self, path, text, *expected):
        """Planting `text` at `path` gives exactly one violation, which is at that file and says each of `expected`."""
        found = self.found({path: text})
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(path), found)
        for part in expected:
            self.assertIn(part, found[0])

    def test_a_house_in_order_has_no_violation(self):
        self.assertEqual(self.found(), [])

    def test_an_arrow_that_points_back_is_found(self):
        self.sees("sdk/src/base/clock.cpp", '#include "otlp/writer.h"\n', "base", "otlp")
        self.sees("sdk/src/otlp/writer.cpp", '\n#include "journal/journal.h"\n', ":2:", "journal")
        self.sees("sdk/src/journal/journal.cpp", '#include "export/batch.h"\n', "export")
        self.sees("sdk/src/trace/span.cpp", '#include "export/batch.h"\n', "export")
        self.sees("sdk/src/transport/grpc.cpp", '#include "export/batch.h"\n', "export")
        self.sees("sdk/src/config/resolve.cpp", '#include "journal/journal.h"\n', "journal")

    def test_indented_and_conditional_includes_are_seen(self):
        self.sees("sdk/src/base/a.cpp", '#if 1\n  #  include "otlp/writer.h"\n#endif\n', ":2:")

    def test_an_include_relative_to_its_own_folder_is_no_way_around(self):
        self.sees("sdk/src/base/a.cpp", '#include "../otlp/writer.h"\n', "otlp")

    def test_a_room_that_includes_the_composition_root_is_found(self):
        self.sees("sdk/src/trace/a.cpp", '#include "core.h"\n', "composition root")

    def test_a_room_without_a_place_in_the_order_is_found(self):
        self.sees("sdk/src/attic/a.cpp", '#include "base/clock.h"\n', "attic", "ROOMS")

    def test_a_private_header_outside_the_sdk_is_found(self):
        for path in ("runner/src/runner.cpp", "examples/scene/a.cpp", "bindings/c/a.cpp"):
            self.sees(path, '#include "journal/journal.h"\n', "public headers")

    def test_a_public_header_that_shows_what_is_private_is_found(self):
        self.sees("sdk/include/waymark/log.h", OPENING + '#include "core.h"\nstruct X;\n', "public header")
        self.sees("runner/include/waymark/job.h", OPENING + '#include "journal/journal.h"\nstruct X;\n', "public header")

    def test_an_sdk_that_includes_its_runner_is_found(self):
        self.sees("sdk/src/base/a.cpp", '#include "waymark/task.h"\n', "runner")
        self.sees("sdk/include/waymark/log.h", OPENING + '#include "waymark/task.h"\nstruct X;\n', "SDK")

    def test_a_product_that_includes_a_test_is_found(self):
        self.sees("sdk/src/base/a.cpp", '#include "support/http_server.h"\n', "test")

    def test_each_library_outside_its_home_is_found(self):
        for header, library in (("curl/curl.h", "libcurl"), ("sqlite3.h", "SQLite"), ("yaml-cpp/yaml.h", "yaml-cpp"),
                                ("spdlog/spdlog.h", "spdlog"), ("fmt/format.h", "spdlog"), ("nlohmann/json.hpp", "nlohmann"),
                                ("protozero/pbf_reader.hpp", "protozero"), ("xxhash.h", "xxhash"), ("zlib.h", "zlib"),
                                ("CLI/CLI.hpp", "CLI11"), ("png.h", "libpng"), ("jpeglib.h", "libjpeg")):
            self.sees("sdk/src/base/a.cpp", f"#include <{header}>\n", library)

    def test_a_third_party_header_in_a_public_one_is_found(self):
        self.sees("sdk/include/waymark/log.h", OPENING + "#include <nlohmann/json.hpp>\nstruct X;\n", "nlohmann")
        self.sees("sdk/include/waymark/log.h", OPENING + "#include <spdlog/spdlog.h>\nstruct X;\n", "spdlog")

    def test_a_library_without_a_home_is_found(self):
        self.sees("sdk/src/base/a.cpp", "#include <boost/asio.hpp>\n", "without a home")
        self.sees("sdk/src/base/a.cpp", "#include <uuid.h>\n", "without a home")

    def test_a_missing_file_is_found(self):
        self.sees("sdk/src/base/a.cpp", '#include "base/gone.h"\n', "no such file")

    def test_a_name_that_says_a_pattern_is_found(self):
        for name in ("span_factory", "manager", "test_helpers", "span-impl", "string_utils"):
            self.sees(f"sdk/src/base/{name}.cpp", "", "names a pattern")
        self.assertEqual(self.found({"sdk/src/base/utility_of_it.cpp": ""}), [])

    def test_a_header_that_says_too_little_is_found(self):
        self.sees("sdk/src/base/a.h", "#pragma once\nstruct X;\n", "comment")
        self.sees("sdk/src/base/a.h", OPENING.replace("// Threads: any.\n", "") + "struct X;\n", "Threads:")
        self.sees("sdk/src/base/a.h", OPENING.replace("// Failure: none.\n", "") + "struct X;\n", "Failure:")
        self.sees("sdk/src/base/a.h", OPENING.replace("#pragma once\n", "") + "struct X;\n", "pragma")
        self.sees("tests/support/a.h", "#pragma once\nstruct X;\n", "comment")


if __name__ == "__main__":
    unittest.main()
