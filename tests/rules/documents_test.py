#!/usr/bin/env python3
"""What the documents repeat from the code is what the code says."""

import os
import re
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


class DocumentsTest(unittest.TestCase):
    def test_every_package_that_is_installed_is_explained(self):
        script = read("scripts/install-deps")
        installed = set()
        for group in re.findall(r'^\w+_packages="\n(.*?)^"', script, re.MULTILINE | re.DOTALL):
            installed.update(line.split()[0] for line in group.splitlines())
        explained = set()
        for line in read("docs/dependencies.md").splitlines():
            cells = line.split("|")
            if len(cells) > 3:
                explained.update(re.findall(r"`([^`]+)`", cells[2]))
        self.assertEqual(installed, explained)

    def test_links_between_documents_lead_somewhere(self):
        listed = subprocess.run(["git", "-C", ROOT, "ls-files", "*.md"], stdout=subprocess.PIPE, check=False, text=True)
        for page in listed.stdout.split():
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read(page)):
                if "://" not in target:
                    path = os.path.normpath(os.path.join(ROOT, os.path.dirname(page), target))
                    self.assertTrue(os.path.exists(path), f"{page} links to {target}, which is not there")

    def test_the_version_is_the_same_everywhere(self):
        version = re.search(r"project\(Waymark VERSION (\S+)", read("CMakeLists.txt")).group(1)
        self.assertIn(f"## {version}", read("CHANGELOG.md"))


if __name__ == "__main__":
    unittest.main()
