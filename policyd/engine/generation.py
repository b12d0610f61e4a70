"""One loaded set of policies: a bit for every step, and the rows of every slot that some step tests."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from execray.errors import PeerError
from execray.schema.catalog import (
    ACTOR_FIELD_BY_NAME,
    ACTOR_SLOT_OF,
    EVENT_BY_CODE,
    EVENTS,
    NO_CONTENT,
    Content,
    EventType,
)
from execray.schema.kinds import Kind
from execray.schema.row import FILE_NAMES_NAME
from execray.wire.frames import Batch
from policyd.engine.keys import KeyFunction
from policyd.engine.paths import bounded_paths
from policyd.engine.planning import ACTOR, PARENT, PARENT_ACTOR, UNCACHED, Demands, SlotKey
from policyd.engine.rows import Row, SlotRows
from policyd.engine.table import PolicyTable
from policyd.program import CompiledPolicy, FieldRef, KeyKind

# How a slot's value is got from what the stream carries.
RAW: Final = 0
TEXT: Final = 1  # an index into the batch's strings
TEXTS: Final = 2  # a tuple of them

_MAX_FOLDED: Final = 4096
_MAX_JOINS: Final = 4096  # of actors' rows, remembered
_PLACES: Final = 64  # in which a plan notes what met an actor's row
#: Steps, and so bits of a row, from which on a comparison of two rows that are often the same is quicker than `&`.
_WIDE: Final = 500


class FieldPlan:
    """How to test one slot. at: its place in the row. mode: RAW, TEXT or TEXTS. cache: of its rows. constrained: who tests it.

    one, other, both: what was left of an event, the row that it met here, and what these have in common.
    """

    __slots__ = ("at", "both", "cache", "constrained", "mode", "one", "other", "rows")

    def __init__(self, at: int, mode: int, rows: SlotRows) -> None:
        self.one = self.both = 0
        self.other: Row | None = None
        self.at = at
        self.mode = mode
        self.cache = rows.cache
        self.constrained = rows.constrained
        self.rows = rows

    def row(self, values: tuple[Any, ...], strings: tuple[bytes, ...]) -> Row:
        """Returns the row of this slot's value in an event or an actor. Raises as `SlotRows.row` does."""
        value = values[self.at]
        if self.mode == TEXT and value is not None:
            value = strings[value]
        elif self.mode == TEXTS and value is not None:
            value = tuple([strings[item] for item in value])
        return self.cache.get(value) or self.rows.miss(value)

    def among(self, values: tuple[Any, ...], strings: tuple[bytes, ...], bits: int) -> int:
        """Returns those of some steps that this slot's list in an actor doesn't contradict. Raises as `SlotRows.row` does."""
        asked = bits & self.constrained
        if not asked:
            return bits
        value = values[self.at]
        if value is not None:
            value = tuple([strings[item] for item in value])
        return bits & ~asked | self.rows.among(value, asked)


class ActorRow:
    """The steps that some fields of an actor don't contradict; mostly one object for equal ones.

    at: where plans note what met it. further: with a row of another field, which one follows.
    """

    __slots__ = ("at", "bits", "further")

    def __init__(self, bits: int, at: int) -> None:
        self.bits = bits
        self.at = at
        self.further: dict[Row, ActorRow] = {}


class Met:
    """What an event left and an actor's row, the last two that met here, have in common. lists: whether that asks for lists."""

    __slots__ = ("actor", "bits", "left", "lists")

    def __init__(self, actor: ActorRow) -> None:
        self.actor = actor
        self.bits = self.left = 0
        self.lists = False


class CodePlan:
    """How to test one kind of event: the slots to look at before its actor, those after it, and those only for bits that fire.

    mask: the steps it may meet where it has no `file.names`, as hardly any has; -1: the rows of the slots say so. named: where in
    the row these names would be, 0 where no step asks for them. met: by ActorRow.at.
    """

    __slots__ = ("fields", "further_fields", "late_fields", "mask", "met", "named")

    def __init__(
        self,
        mask: int,
        named: int,
        fields: tuple[FieldPlan, ...],
        further_fields: tuple[FieldPlan, ...],
        late_fields: tuple[FieldPlan, ...],
    ) -> None:
        self.mask = mask
        self.named = named
        self.fields = fields
        self.further_fields = further_fields
        self.late_fields = late_fields
        self.met = [Met(ActorRow(0, at)) for at in range(_PLACES)]


class Needs(NamedTuple):
    """What the loaded policies need of the sensor."""

    codes: frozenset[int]
    content: Content
    numbers: frozenset[int] = frozenset()  # of the calls that are the event `syscall`
    urgent: frozenset[int] = frozenset()  # those of the codes that something may be done at: a kill, a capture
    paths: tuple[bytes, ...] = ()  # whose files events shall name
    left_out: int = 0  # paths past the bound, which are matched by name only


class Generation:
    """Immutable but for the caches of its rows."""

    def __init__(
        self, policies: Sequence[CompiledPolicy], number: int, row_entries: int, before: Generation | None = None
    ) -> None:
        """Builds everything; raises PatternError, and then nothing has changed anywhere.

        before: an earlier one, whose tables of the very same policies are taken over.
        """
        self.number = number
        self.tables: list[PolicyTable] = []
        base = 0
        known = {} if before is None else {id(table.policy): table for table in before.tables}
        for policy in policies:
            same = known.get(id(policy))
            self.tables.append(PolicyTable(policy, base) if same is None else same.at(base))
            base += len(policy.steps)
        self.width = base
        self.is_wide = base > _WIDE
        self.first = 0
        self.plain_first = 0  # of policies whose starts are shared
        for table in self.tables:
            self.first |= table.first
            if table.plain is not None:
                self.plain_first |= table.first
        self.tree_bits = _union(table.bits for table in self.tables if table.policy.key is KeyKind.TREE)
        self.field_bits = _union(table.bits for table in self.tables if table.policy.key is KeyKind.FIELDS)
        self.key_functions = _key_functions(self.tables)
        self.owners = [index for index, table in enumerate(self.tables) for _ in range(table.width)]
        self._row_entries = row_entries
        self.rows: dict[SlotKey, SlotRows] = {}
        self._masks: dict[int, int] = {}
        #: The highest row without the bit of a way. Behind the steps' bits there is one for each way to meet a step of several.
        self.plain = (1 << base) - 1
        self._owners: list[int] = []  # of the ways' bits: the bit of the step
        self._folded: dict[int, int] = {}
        for table in self.tables:
            self._add(table)
        self._ones = ones = (1 << base + len(self._owners)) - 1
        for key, rows in self.rows.items():
            # The rows of a kind of event have the bits of no other, so that nothing else need clear those. But what is looked at
            # when a step fires has the bit of the step, and not those of its ways.
            rows.build(self._masks[key.code] if key.code > 0 and key.slot not in UNCACHED else ones)
        self.actor_fields, self.actor_lists = _apart(self._fields(ACTOR, lambda slot: 1 + ACTOR_SLOT_OF[slot]))
        self.parent_fields, self.parent_lists = _apart(self._fields(PARENT_ACTOR, lambda slot: 1 + ACTOR_SLOT_OF[slot]))
        #: The steps that ask for lists of an actor or its parent: a command's words are new for every second program, and long.
        self.list_bits = _union(field.constrained for field in (*self.actor_lists, *self.parent_lists))
        self.orphan_row = Row(_without(self.parent_fields, ones))
        self.orphan_lists = _without(self.parent_lists, ones)
        self.plans = {code: self._plan(EVENT_BY_CODE[code], mask) for code, mask in self._masks.items()}
        self._any_actor = ActorRow(ones, 0)  # of whom nothing is known yet
        self._actor_rows: dict[int, ActorRow] = {}
        self._joins = 0
        self._needs = _needs(self.tables)

    def needs(self) -> Needs:
        """Returns the events that some policy names, and which bytes some condition or `notify` reads."""
        return self._needs

    def actor_row(self, batch: Batch, index: int) -> ActorRow:
        """Returns the steps that an actor and its parent don't contradict, their lists left out.

        Raises PeerError for a malformed actor.
        """
        if type(batch.actors[index][1]) is not tuple:
            raise PeerError(f"batch {batch.seq}: an actor without identity")
        actor, strings = batch.actors[index], batch.strings
        found = self._join(self._any_actor, actor, self.actor_fields, strings)
        if not self.parent_fields:
            return found
        if actor[0] is None:
            return found.further.get(self.orphan_row) or self._joined(found, self.orphan_row)
        return self._join(found, batch.actors[actor[0]], self.parent_fields, strings)

    def lists_left(self, batch: Batch, index: int, bits: int) -> int:
        """Returns those of some steps that the lists of an actor and its parent don't contradict. Raises as actor_row does."""
        actor, strings = batch.actors[index], batch.strings
        for field in self.actor_lists:
            bits = field.among(actor, strings, bits)
        if self.parent_lists and actor[0] is None:
            return bits & self.orphan_lists
        for field in self.parent_lists:
            bits = field.among(batch.actors[actor[0]], strings, bits)
        return bits

    def _join(
        self, found: ActorRow, actor: tuple[Any, ...], fields: tuple[FieldPlan, ...], strings: tuple[bytes, ...]
    ) -> ActorRow:
        for field in fields:
            row = field.row(actor, strings)
            further = found.further.get(row)
            found = self._joined(found, row) if further is None else further
        return found

    def _joined(self, one: ActorRow, row: Row) -> ActorRow:
        if self._joins == _MAX_JOINS:
            self._joins, self._any_actor, self._actor_rows = 0, ActorRow(self._ones, 0), {}
        self._joins += 1
        bits = one.bits & row.bits
        # Never the same object where nothing is left out: cycles are collected at good moments only.
        found = self._actor_rows.get(bits) if bits != one.bits else ActorRow(bits, one.at)
        if found is None:
            found = self._actor_rows[bits] = ActorRow(bits, len(self._actor_rows) % _PLACES)
        one.further[row] = found
        return found

    def named_row(self, code: int, names: Any, strings: tuple[bytes, ...]) -> int:
        """Returns the steps that an event of a kind may meet whose file has these names. Raises as the rows' `row` does."""
        rows = self.rows[SlotKey(code, FILE_NAMES_NAME)]
        value = tuple([strings[name] for name in names])
        found = rows.cache.get(value)
        return (found or rows.miss(value)).bits

    @staticmethod
    def lookup(row: tuple[Any, ...], fields: tuple[FieldPlan, ...], strings: tuple[bytes, ...], bits: int) -> int:
        """Returns those of some steps that these fields of an event or an actor don't contradict. Raises as `row` does."""
        for field in fields:
            if bits & field.constrained:
                bits &= field.row(row, strings).bits
        return bits

    def fold(self, bits: int) -> int:
        """Returns the bits of steps for those of steps and ways."""
        ways = bits >> self.width
        steps = self._folded.get(ways)
        if steps is None:
            steps, left = 0, ways
            while left:
                steps |= self._owners[(left & -left).bit_length() - 1]
                left &= left - 1
            if len(self._folded) >= _MAX_FOLDED:
                self._folded.clear()
            self._folded[ways] = steps
        return bits & self.plain | steps

    def _add(self, table: PolicyTable) -> None:
        masks = self._masks
        for step, asks in enumerate(table.asks):
            bit = 1 << (table.base + step)
            if asks.whole is not None:
                for code in asks.codes:
                    masks[code] = masks.get(code, 0) | bit
                self._add_demands(bit, asks.whole)
            for code, early, late in asks.ways:
                way = 1 << (self.width + len(self._owners))
                self._owners.append(bit)
                masks[code] = masks.get(code, 0) | way
                # What is looked at only when a step fires is of the step; of several ways, none has such a slot.
                self._add_demands(way, early)
                self._add_demands(bit, late)

    def _add_demands(self, bit: int, demands: Demands) -> None:
        for key, demand in demands:
            rows = self.rows.get(key)
            if rows is None:
                rows = self.rows[key] = self._new_rows(key)
            rows.add(bit, demand)

    def _new_rows(self, key: SlotKey) -> SlotRows:
        kind = EVENT_BY_CODE[key.code] if key.code > 0 else EVENTS[0]
        return SlotRows(kind.by_name[key.slot].kind, _is_derived(kind), self._row_entries)

    def _fields(self, code: int, position: Any) -> tuple[FieldPlan, ...]:
        # The slot that most steps test comes first: it is the likeliest to leave nothing.
        chosen = sorted(
            ((key, rows) for key, rows in self.rows.items() if key.code == code),
            key=lambda item: -item[1].constrained.bit_count(),
        )
        return tuple(FieldPlan(position(key.slot), _mode(rows.kind), rows) for key, rows in chosen)

    def _plan(self, kind: EventType, mask: int) -> CodePlan:
        fields = self._fields(kind.code, lambda slot: 5 + kind.slot_of[slot])
        named, names = 0, self.rows.get(SlotKey(kind.code, FILE_NAMES_NAME))
        if names is not None:
            named, mask = 5 + kind.slot_of[FILE_NAMES_NAME], names.row(None)
            fields = tuple(field for field in fields if field.at != named)
        late = {5 + kind.slot_of[slot] for slot in UNCACHED if slot in kind.slot_of}
        early, further = self._in_order([field for field in fields if field.at not in late], mask)
        late_fields = tuple(field for field in fields if field.at in late)
        return CodePlan(mask if named or not early else -1, named, early, further, late_fields)

    def _in_order(self, fields: list[FieldPlan], mask: int) -> tuple[tuple[FieldPlan, ...], tuple[FieldPlan, ...]]:
        """Returns the fields to look at before the actor, and those after it.

        First what most steps test, then what most of those test that nothing has tested yet: so for most events nothing is left
        after few looks. Who the actor is comes last where it adds nothing, since that is found out for each batch anew.
        """
        of_actor = self.list_bits | _union(field.constrained for field in (*self.actor_fields, *self.parent_fields))
        ordered: list[FieldPlan] = []
        before = len(fields)
        left = mask
        while len(ordered) < len(fields):
            best = max((f for f in fields if f not in ordered), key=lambda f: (f.constrained & left).bit_count())
            adds = (best.constrained & left).bit_count()
            if before == len(fields) and ordered and (of_actor & left).bit_count() > adds:
                before, left = len(ordered), left & ~of_actor
                continue
            ordered.append(best)
            left &= ~best.constrained
        return tuple(ordered[:before]), tuple(ordered[before:])


def _key_functions(tables: list[PolicyTable]) -> list[tuple[KeyFunction, int]]:
    """Returns the different keys over fields, each with the bits of the steps that have it."""
    found: dict[tuple[FieldRef, ...], int] = {}
    for table in tables:
        if table.policy.key is KeyKind.FIELDS:
            for index, step in enumerate(table.policy.steps):
                found[step.key] = found.get(step.key, 0) | 1 << (table.base + index)
    return [(KeyFunction(refs), bits) for refs, bits in found.items()]


def _union(masks: Iterator[int]) -> int:
    out = 0
    for mask in masks:
        out |= mask
    return out


def _apart(fields: tuple[FieldPlan, ...]) -> tuple[tuple[FieldPlan, ...], tuple[FieldPlan, ...]]:
    return tuple(f for f in fields if f.mode != TEXTS), tuple(f for f in fields if f.mode == TEXTS)


def _without(fields: tuple[FieldPlan, ...], bits: int) -> int:
    for field in fields:
        bits &= field.rows.row(None)
    return bits


def _is_derived(kind: EventType) -> Any:
    return lambda name: bool(kind.by_name[name.removeprefix(PARENT)].derived)


def _mode(kind: Kind) -> int:
    return TEXT if kind.is_text else TEXTS if kind is Kind.TEXTS else RAW


def _needs(tables: list[PolicyTable]) -> Needs:
    return Needs(
        frozenset(code for table in tables for code in table.codes),
        functools.reduce(operator.or_, (table.content for table in tables), NO_CONTENT),
        frozenset(number for table in tables for number in table.numbers),
        frozenset(code for table in tables for code in table.urgent),
        *bounded_paths(table.paths_by_file for table in tables),
    )


assert UNCACHED.isdisjoint(ACTOR_FIELD_BY_NAME)
