"""What waits, where, and until when: by key and place, by deadline, and by who caused it."""

from __future__ import annotations

from execray.schema.event import ProcessId
from policyd.engine.evidence import WEIGHT_BYTES
from policyd.engine.heap import Agenda, DeadlineHeap
from policyd.engine.keys import Key
from policyd.engine.partials import NEVER, Partial, PolicyRun
from policyd.engine.scopes import Scope
from policyd.engine.shares import Shares
from policyd.engine.starts import Start
from policyd.program import KeyKind


class Waiting:
    """All partials, those of a Start too, in all orders in which they are looked for. Knows no bound, and no policy's mode."""

    def __init__(self, exit_grace_ns: int) -> None:
        """exit_grace_ns: how long a process's partials outlive it."""
        #: What waits, under the keys of each kind.
        self.by_process: dict[Key, Scope] = {}
        self.by_tree: dict[Key, Scope] = {}
        self.by_fields: dict[Key, Scope] = {}
        #: Not after the earliest deadline: before it, nothing is overdue.
        self.wake_ns = NEVER
        self._exit_grace_ns = exit_grace_ns
        self._live = 0
        self._heap: DeadlineHeap[Partial] = DeadlineHeap()
        self._agenda: Agenda[Start] = Agenda()
        self._shares: Shares[Partial | Start] = Shares(pool=True)

    def __len__(self) -> int:
        return self._live

    @property
    def evidence_bytes(self) -> int:
        """The text kept as evidence, as the bound counts it."""
        return self._shares.weight * WEIGHT_BYTES

    def scopes_of(self, kind: KeyKind) -> dict[Key, Scope]:
        """Returns what waits under keys of a kind."""
        match kind:
            case KeyKind.PROCESS:
                return self.by_process
            case KeyKind.TREE:
                return self.by_tree
            case KeyKind.FIELDS:
                return self.by_fields

    def holds(self, partial: Partial) -> bool:
        """Whether it is still in its place."""
        if partial.source is not None:
            return bool(partial.source.members & partial.run.member)
        return partial.heap_index >= 0

    def at(self, run: PolicyRun, key: Key, state: int) -> list[Partial]:
        """Returns what waits in one place, but for what a Start stands for."""
        scope = run.scopes.get(key)
        places = scope.places.get(run) if scope is not None else None
        return places.get(state, []) if places is not None else []

    def remove(self, partial: Partial) -> None:
        """Takes a partial out."""
        run = partial.run
        if partial.source is not None:
            source, partial.source = partial.source, None
            self._clear(source, run.member)
            return
        scopes = run.scopes
        scope = scopes[partial.key]
        places = scope.places[run]
        held = places[partial.state]
        held.remove(partial)
        if not held:
            del places[partial.state]
            if not places:
                del scope.places[run]
            if scope.places or scope.starts:
                scope.refresh(run)
            else:
                del scopes[partial.key]
        self._live -= 1
        self._heap.remove(partial)
        self._shares.remove(partial)
        run.shares.remove(partial)
        if run.cohort is not None:
            run.cohort.own -= 1
            if not run.shares.count:
                del run.cohort.further[run]

    def settle(self, partial: Partial) -> None:
        """Gives a partial of a Start a place of its own, since it is going to differ from the others."""
        source, partial.source = partial.source, None
        if source is not None:
            # In this order the scope stays: whoever is at it goes on with what waits there.
            self._put(scope_at(partial.run.scopes, partial.key), partial)
            self._clear(source, partial.run.member)

    def end_process(self, process: ProcessId, now_ns: int) -> None:
        """Lets the partials of a process that ended wait for the grace only. Those of other keys live on."""
        scope = self.by_process.get(process)
        if scope is None:
            return
        until_ns = now_ns + self._exit_grace_ns
        for partial in [p for places in scope.places.values() for held in places.values() for p in held]:
            partial.exit_ns = min(partial.exit_ns, until_ns)
            if partial.exit_ns < partial.deadline_ns:
                partial.deadline_ns = partial.exit_ns
                self._heap.moved(partial)
        self.wake_ns = min(self.wake_ns, until_ns)
        for start in scope.starts.values():
            start.exit_ns = min(start.exit_ns, until_ns)
            self._agenda.add(start)

    def _put(self, scope: Scope, partial: Partial) -> None:
        run = partial.run
        places = scope.places.get(run)
        if places is None:
            places = scope.places[run] = {}
        held = places.get(partial.state)
        if held is None:
            places[partial.state] = [partial]
            scope.mask |= run.table.awaits[partial.state]
        else:
            held.append(partial)
        self._live += 1
        self._heap.add(partial)
        self.wake_ns = min(self.wake_ns, partial.deadline_ns)
        self._shares.add(partial)
        run.shares.add(partial)
        if run.cohort is not None:
            run.cohort.own += 1
            run.cohort.further[run] = None

    def _fill(self, scope: Scope, start: Start, older: int) -> None:
        # After a start got other members than it had.
        cohort = start.cohort
        self._live += start.members.bit_count() - older.bit_count()
        if older:
            for run in cohort.runs_of(older ^ start.members):
                run.holes -= 1
        else:
            cohort.count += 1
            if start.members != cohort.all:
                for run in cohort.runs_of(cohort.all & ~start.members):
                    run.holes += 1
        scope.mask |= cohort.awaits if start.members == cohort.all else _awaited(start)
        self._agenda.add(start)
        self.wake_ns = min(self.wake_ns, start.agenda_ns)

    def _reweigh(self, start: Start, members: int) -> None:
        # It gets these members, its event's owner, and counts as the newest.
        begun = start.begun
        weight = members.bit_count() * (start.key_weight + begun.weight)
        both = (self._shares, start.cohort.starts)
        if start.members and start.owner == begun.owner:
            for shares in both:
                shares.reweigh(start, weight)
            start.members, start.weight = members, weight
            return
        if start.members:
            for shares in both:
                shares.remove(start)
        start.members, start.owner, start.weight = members, begun.owner, weight
        for shares in both:
            shares.add(start)

    def _clear(self, start: Start, gone: int) -> None:
        # Takes members out of a start, all of which are in it.
        cohort, left = start.cohort, start.members & ~gone
        scopes = cohort.scopes
        scope = scopes[start.key]
        self._live -= gone.bit_count()
        if left:
            weight = start.weight // start.members.bit_count() * left.bit_count()
            self._shares.reweigh(start, weight)
            cohort.starts.reweigh(start, weight)
            start.members, start.weight = left, weight
            for run in cohort.runs_of(gone):
                run.holes += 1
                scope.refresh(run)
            return
        self._agenda.remove(start)
        self._shares.remove(start)
        cohort.starts.remove(start)
        start.members = 0
        cohort.count -= 1
        if gone != cohort.all:
            for run in cohort.runs_of(cohort.all & ~gone):
                run.holes -= 1
        del scope.starts[cohort]
        if not scope.places and not scope.starts:
            del scopes[start.key]
            return
        scope.mask ^= scope.mask & cohort.bits
        if scope.places and cohort.further:
            for run in scope.places.keys() & cohort.further.keys():
                scope.refresh(run)

    def _rebuild_masks(self) -> None:
        for scopes in (self.by_process, self.by_tree, self.by_fields):
            for scope in scopes.values():
                scope.mask = 0
                for run in scope.places:
                    scope.refresh(run)
                for start in scope.starts.values():
                    scope.mask |= start.cohort.awaits if start.members == start.cohort.all else _awaited(start)


def scope_at(scopes: dict[Key, Scope], key: Key) -> Scope:
    """Returns what waits under a key; a new one where nothing does."""
    scope = scopes.get(key)
    if scope is None:
        scope = scopes[key] = Scope()
    return scope


def _awaited(start: Start) -> int:
    mask = 0
    for run in start.cohort.runs_of(start.members):
        assert run.table.plain is not None
        mask |= run.table.awaits[run.table.plain.target]
    return mask
