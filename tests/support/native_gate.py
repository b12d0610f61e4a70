"""The gate's core as an ordinary program, of the headers as they are or with a mistake in them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

from execray.gate.plan import GatePlan
from execray.gate.verdict import Facts
from execray.schema.layout import GATE_BYTES, GATE_CASE_BYTES
from tests.support.gates import case_of
from tracerd.objects import OBJECT_DIR

ROOT: Final = Path(__file__).parents[2]
CELLS: Final = 16  # gate_native.c


def planted(folder: Path, file: str, right: str, wrong: str) -> Path:
    """Returns a copy of bpf/ in which one place of a file is another. Raises AssertionError where there is no such place."""
    copy = folder / "bpf"
    shutil.copytree(ROOT / "bpf", copy, ignore=shutil.ignore_patterns(".output"))
    path = copy / file
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{text.count(right)} times in {file}: {right}"
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    return copy


def objects(folder: Path, name: str, file: str, right: str, wrong: str) -> Path:
    """Returns a folder with the shipped objects, but for one that has a mistake in it (`planted`)."""
    sources, out = planted(folder, file, right, wrong), folder / "objects"
    shutil.copytree(OBJECT_DIR, out)
    arch = os.uname().machine
    flags = ["-O2", "-g", "-target", "bpf", "-D__TARGET_ARCH_x86", "-mcpu=v3", f"-I{sources / 'include'}"]
    source, built = sources / f"{name}.bpf.c", out / f"{name}.bpf.o"
    subprocess.run(["clang-14", *flags, f"-I{ROOT / 'vmlinux' / arch}", "-c", source, "-o", built], check=True)
    return out


def build(folder: Path, sources: Path = ROOT / "bpf") -> Path:
    """Builds the program, with sanitizers. Raises CalledProcessError."""
    program = folder / "gate_native"
    flags = ["-O1", "-g", "-Wall", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = ROOT / "tests/fuzz/gate_native.c"
    subprocess.run(["gcc", *flags, f"-I{sources / 'include'}", "-o", program, source], check=True)
    return program


def ask(native: Path, folder: Path, table: bytes, cases: list[bytes]) -> str:
    """Returns a verdict for each question. What the sanitizers find is an error."""
    (folder / "table").write_bytes(table.ljust(GATE_BYTES, b"\0"))
    (folder / "cases").write_bytes(b"".join(struct.pack("<I", len(case)) + case for case in cases))
    done = subprocess.run([native, folder / "table", folder / "cases"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return done.stdout


def question(plan: GatePlan, facts: Facts, pid: int = 1, now_ns: int = 1) -> bytes:
    """A question whose memory ends where the hooks' may: 32 bytes behind the path."""
    return (case_of(plan, facts, 1, pid, now_ns) + b"\xee" * 32)[:GATE_CASE_BYTES]
