"""Shared starts: the sequences that one event begins for many policies are one entry, with a bit for each policy.

Policies often begin alike ("somebody opens a file below /etc"), and in a busy process that first step is met over and over. A
partial for each of them would cost some microseconds, for each policy and event, though hardly any of them is ever looked at
again. So policies with the same plain first step form a cohort, and under one key a cohort has one Start: the event that began
it, and in `members` a bit for each policy that waits behind its first step. The next such event only replaces the event. A
policy's partial is made from the Start when an event meets a later step of it, and its bit is cleared when that partial moves on.

It is what `mode latest` says: of the sequences in one place the newest stays. So only such policies form cohorts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from policyd.engine.evidence import Sighting
from policyd.engine.heap import NOWHERE
from policyd.engine.keys import Key, KeyFunction
from policyd.engine.partials import NEVER, Partial, PolicyRun, key_weight
from policyd.engine.shares import Held, Shares
from policyd.program import KeyKind

if TYPE_CHECKING:
    from policyd.engine.scopes import Scope
    from policyd.engine.table import Opening, PolicyTable

#: Policies that begin alike: which of them an event begins a sequence of, and under what key.
Opened: TypeAlias = "tuple[Cohort, int, Key]"


class Begun:
    """What Starts know of the event that began them. Times are the engine's clock.

    number: in the order of all that began. losses: how many there had been. doubtful: whether it met the step isn't sure.
    """

    __slots__ = ("doubtful", "losses", "now_ns", "number", "owner", "sighting", "weight")

    def __init__(self, sighting: Sighting, now_ns: int, losses: int, number: int, doubtful: bool) -> None:
        self.sighting = sighting
        self.weight = sighting.weight
        self.owner = sighting.known.owner
        self.now_ns = now_ns
        self.losses = losses
        self.number = number
        self.doubtful = doubtful


class Start(Held):
    """What waits behind the first step of a cohort's policies, under one key. evictions: how many there had been."""

    __slots__ = (
        "agenda_ns",
        "begun",
        "cohort",
        "evictions",
        "exit_ns",
        "key",
        "key_weight",
        "members",
    )

    def __init__(self, cohort: Cohort, key: Key, begun: Begun) -> None:
        super().__init__(begun.owner, begun.number)
        self.cohort = cohort
        self.key = key
        self.key_weight = key_weight(key)
        self.begun = begun
        self.members = 0
        self.evictions = 0
        self.exit_ns = NEVER
        self.agenda_ns = NOWHERE

    def renew(self, begun: Begun, evictions: int) -> None:
        """Another event takes the place of the one that began it."""
        self.begun, self.number = begun, begun.number
        self.exit_ns, self.evictions = NEVER, evictions

    @property
    def deadline_ns(self) -> int:
        """The last instant at which an event may still move all of the members' partials."""
        for window_ns, mask in self.cohort.windows:
            if mask & self.members:
                return min(self.exit_ns, self.begun.now_ns + window_ns)
        return self.exit_ns

    def overdue(self, now_ns: int) -> int:
        """Returns the members whose deadlines lie before now."""
        if self.exit_ns < now_ns:
            return self.members
        gone = 0
        for window_ns, mask in self.cohort.windows:
            if self.begun.now_ns + window_ns < now_ns:
                gone |= mask
        return gone & self.members

    def partial(self, run: PolicyRun) -> Partial:
        """Returns a member's partial. It is in no place while its `source` is this one."""
        begun = self.begun
        partial = Partial(run, self.key, self.owner, begun.now_ns, begun.number, begun.losses)
        if run.evicted > self.evictions:
            partial.evicted_before = -1
        table = run.table
        assert table.plain is not None
        partial.doubtful = begun.doubtful
        partial.exit_ns = self.exit_ns
        partial.meet(table.plain.step, table.plain.target, begun.sighting.event, begun.weight, begun.now_ns)
        partial.weight = partial.evidence
        partial.source = self
        return partial


class Cohort:
    """Loaded policies that begin with the same plain step, and have the same bound. It outlives a reload, as they do."""

    def __init__(self, opening: Opening, scopes: dict[Key, Scope]) -> None:
        """scopes: where what has begun waits."""
        self.limit = opening.limit
        self.scopes = scopes
        #: The key of what an event begins; None: the actor's process.
        self.key = KeyFunction(opening.key) if opening.kind is KeyKind.FIELDS else None
        self.runs: dict[PolicyRun, None] = {}
        #: Of its members: all bits; and in ascending order how long what has begun lives, with the bits of those policies.
        self.all = 0
        self.windows: list[tuple[int, int]] = []
        #: The event alone decides, and nothing of it can be in doubt that has no flag and an actor with these slots, as bits.
        self.plain = False
        self.reads = 0
        #: In the loaded generation: the bits of the first steps and of all steps, and what all await behind the first.
        self.first = 0
        self.bits = 0
        self.awaits = 0
        self.starts: Shares[Start] = Shares()
        self.count = 0  # starts
        #: How many partials its members have apart from starts, and who has some.
        self.own = 0
        self.further: dict[PolicyRun, None] = {}
        self._tables: list[PolicyTable] = []  # as they were then
        self._members: list[PolicyRun | None] = []
        self._evictions: list[tuple[int, int]] = []

    @property
    def table(self) -> PolicyTable:
        """The table of one of its policies: as to how they begin, all are alike."""
        return next(iter(self.runs)).table

    def join(self, run: PolicyRun) -> None:
        """Takes a policy in."""
        at = self._members.index(None) if None in self._members else len(self._members)
        self._members[at : at + 1] = [run]
        run.cohort, run.member, run.holes = self, 1 << at, self.count
        self.runs[run] = None

    def leave(self, run: PolicyRun) -> None:
        """Lets a policy go; no start may have its bit."""
        self._members[run.member.bit_length() - 1] = None
        self._evictions = [(number, mask & ~run.member) for number, mask in self._evictions]
        del self.runs[run]

    def rebuild(self) -> None:
        """Adapts to the policies' tables, where these have changed."""
        tables = [run.table for run in self.runs]
        if tables == self._tables:
            return
        self._tables = tables
        self.all = self.first = self.bits = self.awaits = 0
        windows: dict[int, int] = {}
        for run in self.runs:
            table, plain = run.table, run.table.plain
            assert plain is not None
            self.all |= run.member
            self.first |= table.first
            self.bits |= table.bits
            self.awaits |= table.awaits[plain.target]
            if (window_ns := table.window_after(plain.target)) is not None:
                windows[window_ns] = windows.get(window_ns, 0) | run.member
        self.windows = sorted(windows.items())
        if self.runs:
            self.plain, self.reads = self.table.doubts_of_start

    def members_of(self, first: int) -> int:
        """Returns the members whose first steps are among some bits of the generation."""
        if first == self.first:
            return self.all
        return sum(run.member for run in self.runs if run.table.first & first)

    def runs_of(self, members: int) -> Iterator[PolicyRun]:
        """Yields the policies of some members."""
        while members:
            run = self._members[(members & -members).bit_length() - 1]
            assert run is not None
            yield run
            members &= members - 1

    def note_eviction(self, members: int, number: int) -> None:
        """Notes that members' partials in a start were evicted. number: how many evictions there have been by then."""
        # The last of each member: what is newer hides what is older.
        if len(self._evictions) == 1 and self._evictions[0][1] == members:
            self._evictions[0] = number, members
            return
        older = [(at, mask & ~members) for at, mask in self._evictions if mask & ~members]
        self._evictions = [(number, members), *older]

    def last_eviction(self, member: int) -> int:
        """Returns the number that the last such eviction of a member had; 0 for none."""
        for number, mask in self._evictions:
            if mask & member:
                return number
        return 0
