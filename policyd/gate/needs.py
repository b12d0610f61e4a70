"""What a condition on one slot needs of an event at the least, as far as the kernel can test it. None: nothing that it can.

A need is never more than the condition itself says: an event that meets the condition has what is needed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, TypeAlias

from execray.gate import hashes
from policyd.engine.conditions import constants_of
from policyd.gate.words import Word, words_of
from policyd.program import And, Expr, FieldRef, Not, Op, Or, Test

_HIGHEST: Final = (1 << 63) - 1
_MAX_ATOMS: Final = 256
#: Of suffixes that are looked at; a longer one is cut in front to the next of them.
SUFFIX_LENGTHS: Final = (1, 2, 3, 4, 6, 8, 12, 16)


class Part(enum.Enum):
    """What of a path is looked at, in the words of `policy explain`."""

    EXACT = "the path"
    PREFIX = "below"
    COMPONENT = "with a folder or file"
    LEAF = "named"
    SUFFIX = "ending with"


#: One thing that a path can have: a part, and its bytes.
Atom: TypeAlias = tuple[Part, bytes]

_KEYS: Final = {
    Part.EXACT: hashes.exact_key,
    Part.PREFIX: hashes.prefix_key,
    Part.COMPONENT: hashes.component_key,
    Part.LEAF: hashes.leaf_key,
    Part.SUFFIX: hashes.suffix_key,
}


@lru_cache(maxsize=1 << 14)
def key_of(atom: Atom) -> int:
    """Returns the atom's key in the plan."""
    part, text = atom
    return _KEYS[part](text)


@dataclass(frozen=True, slots=True)
class PathNeed:
    """There must be a path, and it must have one of the atoms. open: none of them, any path will do.

    nameless: a pipe or a socket, whose name is `pipe:[N]` or `socket:[N]`, may do as well.
    """

    atoms: frozenset[Atom]
    open: bool
    nameless: bool
    named: bool = False  # a file that the sensor knows to be meant by one of the paths; by any where there are no atoms

    @property
    def weight(self) -> int:
        """A guess at how many paths have it: the smaller, the better."""
        return 1 << 30 if self.open else sum(map(_weight, self.atoms))


#: (mask, whether a bit of it must be set; else none must be)
Mask: TypeAlias = tuple[int, bool]


def path_need(expr: Expr) -> PathNeed | None:
    """Returns what a condition on the slot `path`, in negation normal form, needs of it."""
    match expr:
        case Test():
            return _path_test(expr)
        case And(items):
            return _all_of([need for item in items if (need := path_need(item)) is not None])
        case Or(items):
            needs = [path_need(item) for item in items]
            return _some_of([need for need in needs if need is not None]) if None not in needs else None
        case _:
            return None


NAMED: Final = PathNeed(frozenset(), open=False, nameless=False, named=True)


def file_need(expr: Expr) -> PathNeed | None:
    """Returns what a condition on `file.names`, in negation normal form, needs: that the event's file is one of those meant."""
    match expr:
        case Test(_, op):
            return None if op is Op.TRUNCATED else _named(_meant(expr))
        case And(items):
            needs = [need for item in items if (need := file_need(item)) is not None]
            return min(needs, key=lambda need: len(need.atoms) or _MAX_ATOMS, default=None)
        case Or(items):
            each = [file_need(item) for item in items]
            found = [need for need in each if need is not None]
            if len(found) < len(each):
                return None
            whole = all(need.atoms for need in found)
            return _named(frozenset[Atom]().union(*(need.atoms for need in found)) if whole else frozenset())
        case _:
            return None


def _meant(test: Test) -> frozenset[Atom]:
    """The paths by one of which the file must be meant; none: it may be any."""
    if test.op not in (Op.EQ, Op.IN) or isinstance(test.value, FieldRef) or test.ignore_case:
        return frozenset()
    return frozenset((Part.EXACT, value) for value in constants_of(test) if isinstance(value, bytes))


def _named(atoms: frozenset[Atom]) -> PathNeed:
    return replace(NAMED, atoms=atoms) if len(atoms) <= _MAX_ATOMS else NAMED


def _all_of(needs: list[PathNeed]) -> PathNeed | None:
    if not needs:
        return None
    best = min(needs, key=lambda need: need.weight)
    return PathNeed(best.atoms, best.open, all(need.nameless for need in needs))


def _some_of(needs: list[PathNeed]) -> PathNeed:
    atoms = frozenset[Atom]().union(*(need.atoms for need in needs))
    everything = any(need.open for need in needs) or len(atoms) > _MAX_ATOMS
    return PathNeed(frozenset() if everything else atoms, everything, any(need.nameless for need in needs))


def _path_test(test: Test) -> PathNeed | None:
    any_path = PathNeed(frozenset(), open=True, nameless=True)
    if test.op is Op.TRUNCATED:
        return None
    if isinstance(test.value, FieldRef) or test.ignore_case or test.field.name != "path":
        return any_path
    constants = [value for value in constants_of(test) if isinstance(value, bytes)]
    needs = [_some_of([_word_need(word) for word in words]) if words is not None else any_path
             for words in (_words(test.op, constant) for constant in constants)]  # fmt: skip
    if not needs:
        return any_path
    return _all_of(needs) if test.all and test.op is not Op.IN else _some_of(needs)


def _words(op: Op, constant: bytes) -> list[Word] | None:
    match op:
        case Op.EQ | Op.IN:
            return [Word((constant,), starts=True, ends=True)]
        case Op.STARTSWITH:
            return [Word((constant,), starts=True)]
        case Op.ENDSWITH:
            return [Word((constant,), ends=True)]
        case Op.CONTAINS:
            return [Word((constant,))]
        case Op.MATCH:
            return words_of(constant)
        case _:
            return None


def _word_need(word: Word) -> PathNeed:
    atoms = _atoms(word)
    if word.starts and word.parts[0] and not word.parts[0].startswith(b"/"):
        return PathNeed(frozenset(), open=False, nameless=_fits_nameless(word))  # no absolute path is like that
    best = min(atoms, key=_weight, default=None)
    return PathNeed(frozenset({best} if best else ()), open=best is None, nameless=_fits_nameless(word))


def _atoms(word: Word) -> list[Atom]:
    first, last = word.parts[0], word.parts[-1]
    found: list[Atom] = []
    if word.starts and word.ends and len(word.parts) == 1:
        return [(Part.EXACT, first)] if first else []
    if word.starts and first.rfind(b"/") > 0:
        found.append((Part.PREFIX, first[: first.rfind(b"/")]))
    if word.ends and last:
        leaf = last.rpartition(b"/")[2]
        if b"/" in last and leaf:
            found.append((Part.LEAF, leaf))
        length = max(length for length in SUFFIX_LENGTHS if length <= len(last))
        found.append((Part.SUFFIX, last[-length:]))
    for part in word.parts:
        # Only what stands between two slashes is sure to be a whole component.
        found += [(Part.COMPONENT, name) for name in part.split(b"/")[1:-1] if name]
    return found


#: Names that half of all paths have somewhere.
_COMMON: Final = frozenset(
    b"bin config data doc etc home include lib local run sbin share src tmp usr user var".split()
)


def _weight(atom: Atom) -> int:
    """A guess at how many paths have it. It decides nothing but how many events pass for nothing."""
    part, text = atom
    match part:
        case Part.EXACT:
            return 1
        case Part.PREFIX:
            return max(2, 64 >> 2 * text.count(b"/"))
        case Part.LEAF | Part.COMPONENT:
            rare = 32 if text in _COMMON else 4 if text.startswith(b".") else 12
            return rare if part is Part.COMPONENT else rare - 1
        case Part.SUFFIX:
            return max(8, 64 - 4 * len(text))


def _fits_nameless(word: Word) -> bool:
    """Whether `pipe:[N]` or `socket:[N]` may meet it: not told for sure, but never wrongly denied."""
    if any(b"/" in part for part in word.parts):
        return False
    starts = not word.starts or not word.parts[0] or word.parts[0][:1] in (b"p", b"s")
    return starts and (not word.ends or not word.parts[-1] or word.parts[-1].endswith(b"]"))


# --- bit sets ---------------------------------------------------------------------------------------------------------

_READ, _WRITE, _O_ACCMODE = 1, 2, 3


def masks(expr: Expr, name: str) -> frozenset[Mask]:
    """Returns what must hold of a bit set's bits, all of it. `access` is a question to the open flags' lowest two."""
    match expr:
        case Test(field, Op.HASANY | Op.HAS as op, int(bits)) if field.name == name and 0 < bits < _HIGHEST:
            each = [bits] if op is Op.HASANY else [1 << at for at in range(bits.bit_length()) if bits >> at & 1]
            return frozenset((mask, True) for mask in each)
        case Test(field, op, int(bits)) if field.name == "access" and name == "flags":
            return _access(op, bits)
        case Not(Test(field, Op.HASANY, int(bits))) if field.name == name and 0 < bits < _HIGHEST:
            return frozenset({(bits, False)})
        case And(items):
            return frozenset[Mask]().union(*(masks(item, name) for item in items))
        case Or(items):
            # A bit set whose bits are tested is known, so it is there.
            left = [item for item in items if not _is_absence(item)]
            return masks(left[0], name) if len(left) == 1 else frozenset()
    return frozenset()


def _is_absence(expr: Expr) -> bool:
    return isinstance(expr, Not) and isinstance(expr.item, Test) and expr.item.op is Op.EXISTS


def _access(op: Op, bits: int) -> frozenset[Mask]:
    # O_RDONLY is 0, O_WRONLY 1, O_RDWR 2: whoever reads has the lowest bit clear, whoever writes one of the two set.
    single = op in (Op.HAS, Op.EQ) or (op is Op.HASANY and bits in (_READ, _WRITE))
    found: set[Mask] = set()
    if single and bits & _WRITE:
        found.add((_O_ACCMODE, True))
    if single and bits & _READ:
        found.add((1, False))
    return frozenset(found)


# --- the thread's name ------------------------------------------------------------------------------------------------


def names(expr: Expr) -> frozenset[bytes] | None:
    """Returns the thread names of which a condition on `comm` needs one; None: any may do."""
    match expr:
        case Test(field, Op.EQ | Op.IN, value) if field.name == "comm" and not expr.ignore_case:
            if isinstance(value, FieldRef):
                return None
            constants = [item for item in constants_of(expr) if isinstance(item, bytes)]
            return frozenset(item for item in constants if len(item) < hashes.COMM_BYTES)
        case And(items):
            known = [found for item in items if (found := names(item)) is not None]
            return frozenset.intersection(*known) if known else None
        case Or(items):
            each = [names(item) for item in items]
            return (
                frozenset[bytes]().union(*(found for found in each if found is not None)) if None not in each else None
            )
        case _:
            return None
