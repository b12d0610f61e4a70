"""Run by path, in a source tree, with an interpreter that has mypy and setuptools: build.py PYTHON LIBRARY=FILE,FILE... ...

PYTHON: the interpreter whose packages the program imports. The types are read once for all libraries, which are compiled at once.
"""

from __future__ import annotations

import os
import sys

from mypyc.build import mypycify
from setuptools import setup

groups = [(files.split(","), name) for name, files in (group.split("=") for group in sys.argv[2:])]

setup(
    name="execray",
    packages=[],
    py_modules=[],
    ext_modules=mypycify(
        ["--python-executable", sys.argv[1], *(file for files, _ in groups for file in files)],
        opt_level="3",
        debug_level="0",
        separate=[(files, name) for files, name in groups],
    ),
    script_args=["-q", "build_ext", "--inplace", f"--parallel={os.cpu_count() or 1}"],
)
