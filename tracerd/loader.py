"""Loads the prebuilt objects through pylibbpf. One object per family of hooks: one that the kernel refuses costs only itself.

pylibbpf is imported here and nowhere else. It gives no reason for a refusal but an errno, so libbpf's own messages, which
go to stderr, are caught meanwhile: the verifier's last lines are what an operator can act on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pylibbpf

from execray.errors import OperatorError
from execray.schema.layout import ER_ABI_VERSION
from tracerd.bpf import Map, ProgramInfo, fill_slot, program_info
from tracerd.objects import OBJECT_DIR

SharedMaps = dict[str, Map]


class LoadError(OperatorError):
    """The kernel, or libbpf, refuses an object or a hook."""


@dataclass(slots=True)
class Program:
    """One program of a loaded object."""

    name: str
    handle: Any
    fd: int
    attached: bool = False
    refused: str = ""

    def attach(self) -> None:
        """Attaches it, unless it is. Raises LoadError."""
        if self.attached:
            return
        with _messages() as said:
            try:
                self.handle.attach()
            except pylibbpf.BpfException as error:
                self.refused = said() or str(error)
                raise LoadError(
                    f"the kernel refuses hook {self.name}: {self.refused}", "see `execray-ctl doctor`"
                ) from error
        self.attached, self.refused = True, ""

    def detach(self) -> None:
        """Detaches it, unless it is."""
        if self.attached:
            self.handle.detach()
            self.attached = False

    def info(self) -> ProgramInfo:
        """Returns what the kernel counts about it. Raises OSError."""
        return program_info(self.fd)


@dataclass(slots=True)
class BpfObject:
    """One loaded object. The handle must live as long as its programs: pylibbpf frees everything with it."""

    name: str
    handle: Any
    programs: dict[str, Program] = field(default_factory=dict)
    link_fds: tuple[int, ...] = ()

    def share(self, shared: SharedMaps) -> None:
        """Puts the shared maps into its slots, before anything of it is attached. Raises OSError."""
        for name in self.handle.get_map_names():
            if name.endswith("_slot") and name.removesuffix("_slot") in shared:
                fill_slot(self.handle.get_map(name).get_fd(), shared[name.removesuffix("_slot")])

    def map_fd(self, name: str) -> int | None:
        """Returns the descriptor of one of its maps, None where it has none of that name."""
        return int(self.handle.get_map(name).get_fd()) if name in self.handle.get_map_names() else None

    def report(self) -> list[dict[str, Any]]:
        """Returns what `execray-ctl doctor` shows of its programs. Raises OSError."""
        infos = [(program, program.info()) for program in self.programs.values()]
        return [
            {
                "name": program.name,
                "attached": program.attached,
                "refused": program.refused,
                "verified_instructions": info.instructions_verified,
                "recursion_misses": info.recursion_misses,
            }
            for program, info in infos
        ]

    def close(self) -> None:
        """Detaches every program and unloads the object."""
        for program in self.programs.values():
            program.detach()
            program.handle = None
        self.programs.clear()
        self.handle = None


def load(name: str, object_dir: Path = OBJECT_DIR) -> BpfObject:
    """Loads NAME.bpf.o. Attaches nothing; its slots are empty. Raises LoadError."""
    path = object_dir / f"{name}.bpf.o"
    if not path.is_file():
        raise LoadError(f"there is no object {path}", "run `make bpf`, or name a folder with --object-dir")
    before = _bpf_fds("bpf-prog")
    with _messages() as said:
        try:
            handle = pylibbpf.BpfObject(str(path))
            handle.load()
        except pylibbpf.BpfException as error:
            raise LoadError(
                f"the kernel refuses {name}.bpf.o: {said() or error}", "see `execray-ctl doctor`"
            ) from error
    _check_abi(name, handle)
    names = handle.get_program_names()
    fds = {program_info(fd).name: fd for fd in sorted(_bpf_fds("bpf-prog") - before)}
    programs = {n: Program(n, handle.get_program(n), fds[n[:15]]) for n in names}
    return BpfObject(name, handle, programs)


@contextmanager
def making_maps() -> Iterator[None]:
    """Says what an operator can do about a map that the kernel refuses. Raises OperatorError."""
    try:
        yield
    except OSError as error:
        hint = (
            "run it as root, or with CAP_BPF and CAP_PERFMON, before Linux 5.11 also CAP_SYS_RESOURCE"
            if error.errno == errno.EPERM
            else "a kernel of 5.8 or later is needed"
        )
        raise OperatorError(f"the kernel refuses a BPF map: {error.strerror}", hint) from error


def attach_iterator(loaded: BpfObject, name: str) -> int:
    """Attaches an iterator program and returns its link's descriptor, which pylibbpf doesn't give. Raises LoadError."""
    before = _bpf_fds("bpf_link")
    loaded.programs[name].attach()
    return (_bpf_fds("bpf_link") - before).pop()


def _check_abi(name: str, handle: Any) -> None:
    own = next((n for n in handle.get_map_names() if n.endswith(".rodata.abi")), None)
    value = handle.get_map(own).lookup(0) if own else None
    found = value if isinstance(value, int) else struct.unpack_from("<I", value)[0] if value else None
    if found != ER_ABI_VERSION:
        raise LoadError(
            f"{name}.bpf.o has ABI {found}, and this tracerd reads {ER_ABI_VERSION}", "run `make bpf`, or reinstall"
        )


def _bpf_fds(kind: str) -> set[int]:
    """Returns our descriptors of BPF things of a kind (`bpf-prog`, `bpf-map`, `bpf_link`)."""
    out = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if kind in str(entry.readlink()):
                out.add(int(entry.name))
        except FileNotFoundError:
            continue  # the descriptor that listed the folder
    return out


@contextmanager
def _messages() -> Iterator[Callable[[], str]]:
    """Catches what libbpf writes to stderr meanwhile; the value returns its telling last lines."""
    flush = ctypes.CDLL(None).fflush
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        flush(None)
        os.dup2(file.fileno(), 2)

        def said() -> str:
            flush(None)
            file.seek(0)
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
            telling = [line for line in lines if line.startswith("libbpf:") and "-- " not in line]
            verdict = [
                line for line in lines if not line.startswith(("libbpf:", "processed", ";")) and not line[:1].isdigit()
            ]
            return " / ".join([*verdict[-2:], *telling[-2:]])[:600]

        try:
            yield said
        finally:
            flush(None)
            os.dup2(kept, 2)
            os.close(kept)
