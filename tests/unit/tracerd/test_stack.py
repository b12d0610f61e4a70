"""The built objects: the stack that their chains of calls take, and how loops lie. Old kernels refuse more than newer ones."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

#: Of the kernel's verifier (MAX_BPF_STACK, MAX_CALL_FRAMES); the use of each function is rounded up.
MOST_BYTES: Final = 512
MOST_FRAMES: Final = 8
ROUND: Final = 32

OBJECTS: Final = Path(__file__).parents[3] / "tracerd" / "objects" / "x86_64"
_SECTION: Final = re.compile(r"Disassembly of section (\S+):")
_FUNCTION: Final = re.compile(r"([0-9a-f]+) <(\w+)>:")
_INSTRUCTION: Final = re.compile(r"\s*(\d+):\s+((?:[0-9a-f]{2}\s){8})(.*)")
_RELOCATED: Final = re.compile(r"R_BPF_64_32\s+(\w+)")
_STORED: Final = re.compile(r"r10 - (0x[0-9a-f]+|\d+)")
_ADDRESS: Final = re.compile(r"r\d+ \+= -(0x[0-9a-f]+|\d+)")
_CALL: Final = 0x85
_EXIT: Final = 0x95
_GOTO: Final = 0x05
_WIDE: Final = 0x18  # a constant of 64 bits: two instructions
_JUMPS: Final = (0x05, 0x06)  # the class of an instruction's code
_OF_PROGRAM: Final = 1  # src_reg: the call is of another function, and not of a helper


class Functions:
    """The functions of one object: the stack that each uses, and whom it calls."""

    def __init__(self, path: Path) -> None:
        self.stack: dict[str, int] = {}
        self.code: dict[str, dict[int, bytes]] = {}
        self._calls: dict[str, list[tuple[str, int] | str]] = {}
        self._at: dict[tuple[str, int], str] = {}
        section = name = ""
        listing = subprocess.run(["llvm-objdump-14", "-d", "-r", path], check=True, capture_output=True, text=True)
        for line in listing.stdout.splitlines():
            if found := _SECTION.match(line):
                section = found[1]
            elif (found := _FUNCTION.match(line)) and not found[2].startswith("LBB"):
                name = found[2]
                self._at[section, int(found[1], 16) // 8] = name
                self.stack[name], self._calls[name], self.code[name] = 0, [], {}
            elif found := _INSTRUCTION.match(line):
                self._instruction(name, section, int(found[1]), bytes.fromhex(found[2]), found[3])
            elif (found := _RELOCATED.search(line)) and self._calls[name]:
                self._calls[name][-1] = found[1]

    def _instruction(self, name: str, section: str, index: int, raw: bytes, text: str) -> None:
        self.code[name][index] = raw
        used = [int(found[1], 0) for found in _STORED.finditer(text)]
        if found := _ADDRESS.search(text):
            used.append(int(found[1], 0))
        self.stack[name] = max(self.stack[name], *(one for one in used if one <= MOST_BYTES), 0)
        if raw[0] == _CALL and raw[1] >> 4 == _OF_PROGRAM:
            self._calls[name].append((section, index + 1 + int.from_bytes(raw[4:], "little", signed=True)))

    def calls(self, name: str) -> set[str]:
        """Returns the functions that one calls; kernel functions, which have a stack of their own, are none."""
        found = {call if isinstance(call, str) else self._at.get(call, "") for call in self._calls[name]}
        return found & self.stack.keys()

    def chains(self, name: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        """Yields all chains of calls that begin with a function."""
        chain = (*above, name)
        yield chain
        for called in self.calls(name):
            yield from self.chains(called, chain)

    def falls(self, name: str) -> list[tuple[int, int]]:
        """Returns where a loop's last instruction falls into its first: found as the verifier's check_cfg() goes."""
        code, found = self.code[name], []
        under_way, done = {min(code)}, set[int]()
        path = [(min(code), iter(_following(code, min(code))))]
        while path:
            at, following = path[-1]
            for to, jumps in following:
                if to in under_way and not jumps:
                    found.append((at, to))
                elif to not in under_way and to not in done:
                    under_way.add(to)
                    path.append((to, iter(_following(code, to))))
                    break
            else:
                path.pop()
                under_way.remove(at)
                done.add(at)
        return found

    def bytes_of(self, chain: tuple[str, ...]) -> int:
        """Returns how much stack a chain takes."""
        return sum(-(-max(self.stack[name], 1) // ROUND) * ROUND for name in chain)


def _following(code: dict[int, bytes], at: int) -> list[tuple[int, bool]]:
    """Returns the instructions that can come next, and of each whether a jump goes there or could have."""
    raw = code[at]
    if raw[0] == _EXIT:
        return []
    if raw[0] & 7 not in _JUMPS or raw[0] == _CALL:
        return [(at + (2 if raw[0] == _WIDE else 1), False)]
    there = (at + 1 + int.from_bytes(raw[2:4], "little", signed=True), True)
    return [there] if raw[0] == _GOTO else [(at + 1, True), there]


@pytest.mark.parametrize("name", ["proc", "sys", "uring", "submit", "scan"])
def test_no_chain_of_calls_takes_more_stack_than_old_kernels_allow(name: str) -> None:
    functions = Functions(OBJECTS / f"{name}.bpf.o")
    called = {one for name in functions.stack for one in functions.calls(name)}
    chains = [chain for top in functions.stack.keys() - called for chain in functions.chains(top)]
    assert chains
    largest = max(chains, key=functions.bytes_of)
    assert functions.bytes_of(largest) <= MOST_BYTES, " > ".join(f"{f}:{functions.stack[f]}" for f in largest)
    assert len(max(chains, key=len)) <= MOST_FRAMES


def test_the_chains_are_those_of_the_programs() -> None:
    functions = Functions(OBJECTS / "sys.bpf.o")
    chains = list(functions.chains("er_sys_exit"))
    assert any(chain[:2] == ("er_sys_exit", "er_record") and len(chain) > 4 for chain in chains)
    assert max(map(functions.bytes_of, chains)) > MOST_BYTES // 2


@pytest.mark.parametrize("name", ["proc", "sys", "uring", "submit", "scan", "gate"])
def test_no_loop_falls_into_its_head(name: str) -> None:
    """Before Linux 6.3 a loop may only come back to its head by a jump: "back-edge from insn 3623 to 3624"."""
    functions = Functions(OBJECTS / f"{name}.bpf.o")
    assert {function: falls for function in functions.code if (falls := functions.falls(function))} == {}


def test_a_loop_that_falls_into_its_head_is_found() -> None:
    goto, nothing, again, end = (
        bytes.fromhex(raw) for raw in ("0500010000000000", "b700000000000000", "1500feff00000000", "9500000000000000")
    )
    functions = Functions(OBJECTS / "gate.bpf.o")
    functions.code = {
        "bad": dict(enumerate((goto, nothing, again, end))),
        "good": dict(enumerate((nothing, again[:2] + b"\xff\xff" + again[4:], end))),
    }
    assert functions.falls("bad") == [(1, 2)]
    assert not functions.falls("good")
