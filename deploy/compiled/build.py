"""Run by path, in a source tree, with an interpreter that has mypy and setuptools: build.py PYTHON FILE ...

PYTHON: the interpreter whose packages the program imports.
"""

from __future__ import annotations

import sys

from mypyc.build import mypycify
from setuptools import setup

setup(
    name="execray-engine",
    packages=[],
    py_modules=[],
    ext_modules=mypycify(
        ["--python-executable", sys.argv[1], *sys.argv[2:]], opt_level="3", debug_level="0", group_name="execray_engine"
    ),
    script_args=["-q", "build_ext", "--inplace"],
)
