"""The exact engine: fed with batches of events, it returns the sequences that policies describe."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from execray.errors import PeerError
from execray.schema.catalog import EVENT_BY_NAME, LOST
from execray.wire.frames import Batch
from policyd.engine.evidence import ActorCache, Resolver, lineage
from policyd.engine.generation import TEXT, TEXTS, ActorRow, Generation, Needs
from policyd.engine.ids import loss_id
from policyd.engine.keys import Key
from policyd.engine.moment import Keyed, Moment
from policyd.engine.outputs import Output, SensorLoss
from policyd.engine.partials import Limits, PolicyRun
from policyd.engine.scopes import Scope
from policyd.engine.sequence import Sequencer
from policyd.engine.starts import Cohort, Opened
from policyd.engine.store import Store
from policyd.program import CompiledPolicy

_EXIT: Final = EVENT_BY_NAME["exit"].code


_MAX_OPENINGS: Final = 4096


class LoadReport(NamedTuple):
    """What a load changed: policies by name, partials by number."""

    generation: int
    added: tuple[str, ...]
    removed: tuple[str, ...]  # a changed policy is both
    unchanged: tuple[str, ...]
    partials_kept: int
    partials_retired: int


class _Openings:
    """Whom some first steps belong to, and which of their policies. reads: the actor's slots that it needs, as bits."""

    __slots__ = ("cohorts", "reads")

    def __init__(self, cohorts: tuple[tuple[Cohort, int], ...], reads: int) -> None:
        self.cohorts = cohorts
        self.reads = reads


class Machine:
    """Runs the loaded policies. Does no I/O and reads no clock: time is the events' own (CLOCK_BOOTTIME).

    The clock is the largest time seen; an earlier event counts as late and is taken at that clock.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._store = Store(self._limits)
        self._actors = ActorCache()
        self._sequencer = Sequencer(self._store)
        self._runs: list[PolicyRun] = []
        self._now_ns = 0
        self._events = 0  # rows of batches
        self._fired = 0  # events that met a step which was awaited
        self._late = 0
        self._lost = 0
        self._malformed = 0
        self._gaps = 0  # times that something was lost
        self._misses_before = 0  # in row caches of generations that are gone
        self._clears_before = 0
        #: Bits of first steps -> whom they belong to: the same come together over and over.
        self._openings: dict[int, _Openings] = {}
        self._generation = Generation((), 0, self._limits.row_entries)

    def load(self, policies: Sequence[CompiledPolicy], generation: int) -> LoadReport:
        """Replaces the loaded policies, between two batches.

        Policies whose name and hash are unchanged keep their partials; those of the others are retired.
        Raises policyd.patterns.PatternError for a pattern that RE2 refuses; then nothing has changed.
        """
        return self.swap(self.prepare(policies, generation))

    def prepare(self, policies: Sequence[CompiledPolicy], generation: int) -> Generation:
        """Builds what swap() takes, beside the running set: most of the work of load(), and safe in another thread.

        Raises PatternError.
        """
        return Generation(policies, generation, self._limits.row_entries, self._generation)

    def swap(self, fresh: Generation) -> LoadReport:
        """Makes a prepared generation the running one, between two batches."""
        for rows in self._generation.rows.values():
            self._misses_before += rows.stats.misses
            self._clears_before += rows.stats.clears
        old: dict[tuple[str, str], list[PolicyRun]] = {}
        for run in self._runs:
            old.setdefault(_identity(run.table.policy), []).append(run)
        kept: set[PolicyRun] = set()
        runs: list[PolicyRun] = []
        for table in fresh.tables:
            same = old.get(_identity(table.policy))
            if same:
                kept.add(same[0])
            runs.append(same.pop(0) if same else PolicyRun(table, self._store.scopes_of(table.policy.key)))
        before = self._runs
        retired = self._store.retire([run for run in before if run not in kept])
        for chosen, table in zip(runs, fresh.tables, strict=True):
            chosen.table = table
        self._runs, self._generation = runs, fresh
        self._store.regroup(runs)
        self._openings.clear()
        return LoadReport(
            fresh.number,
            tuple(run.table.policy.name for run in runs if run not in kept),
            tuple(run.table.policy.name for run in before if run not in kept),
            tuple(run.table.policy.name for run in runs if run in kept),
            len(self._store),
            retired,
        )

    def needs(self) -> Needs:
        """Returns what to ask the sensor for. It sends fork, exec and exit in any case."""
        return self._generation.needs()

    def advance_clock(self, time_ns: int) -> None:
        """Moves the clock without an event, so that what has expired is freed while nothing happens."""
        if time_ns > self._now_ns:
            self._now_ns = time_ns
            self._store.expire(time_ns)

    @property
    def now_ns(self) -> int:
        """The engine's clock."""
        return self._now_ns

    def under_way(self) -> tuple[int, ...]:
        """Returns the policies that have sequences under way, by their places among those loaded."""
        return tuple(at for at, run in enumerate(self._runs) if run.count)

    def stats(self) -> dict[str, int]:
        """Returns the engine's numbers.

        Now: policies, steps, partials, evidence_bytes, row_cache_entries, actor_cache_entries. Since the start: events (rows
        taken), fired (met a step that was awaited), late (before the clock), lost (by any hop before, and malformed ones),
        malformed (events that weren't what the catalogue says); of partials, started, advanced, completed, excepted (all but
        complete, and an exception held), cancelled (by `until`), ended (in a `benign` branch), expired, replaced (one of two in
        the same place had to go, as the policy's mode says), evicted (a bound was reached), retired (their policy went);
        row_cache_misses and row_cache_clears.
        """
        store, rows = self._store, self._generation.rows.values()
        return {
            "policies": len(self._runs),
            "steps": self._generation.width,
            "events": self._events,
            "fired": self._fired,
            "partials": len(store),
            "evidence_bytes": store.evidence_bytes,
            "started": self._sequencer.started,
            "advanced": self._sequencer.advanced,
            "completed": self._sequencer.completed,
            "excepted": self._sequencer.excepted,
            "cancelled": self._sequencer.cancelled,
            "ended": self._sequencer.ended,
            "expired": store.expired,
            "replaced": store.replaced,
            "evicted": store.evicted,
            "retired": store.retired,
            "late": self._late,
            "lost": self._lost,
            "malformed": self._malformed,
            "row_cache_entries": sum(map(len, rows)),
            "row_cache_misses": self._misses_before + sum(row.stats.misses for row in rows),
            "row_cache_clears": self._clears_before + sum(row.stats.clears for row in rows),
            "actor_cache_entries": len(self._actors),
        }

    def feed(self, batch: Batch) -> list[Output]:  # noqa: PLR0912, PLR0915  # see the docstring
        """Takes the events of one batch, in order, and returns what they complete.

        An event that isn't what the catalogue says is not taken: it counts as lost, and a SensorLoss says so.
        One long loop over local names on purpose: an event that meets no step costs about 0.7 µs with 100 policies, and a
        call would add a tenth (tests/bench/engine).
        """
        outputs: list[Output] = []
        generation, store = self._generation, self._store
        plans, first, plain = generation.plans, generation.first, generation.plain
        later = generation.plain & ~generation.plain_first
        tree_bits, field_bits = generation.tree_bits, generation.field_bits
        process_scopes, tree_scopes = store.by_process, store.by_tree
        strings, actors, resolver = batch.strings, batch.actors, Resolver(batch, self._actors)
        actor_rows: list[ActorRow | None] = [None] * len(actors)
        # Most events have the rows of one before: where these are long, to compare them is quicker.
        wide = generation.is_wide
        # Of an actor's lists: for which steps they were looked at, and all steps but those that they contradict.
        list_bits, list_rows = generation.list_bits, dict[int, tuple[int, int]]()
        lines: dict[int, tuple[Key, ...]] = {}
        now, wake = self._now_ns, store.wake_ns

        for position, row in enumerate(batch.events):
            code, time_ns, actor = row[0], row[1], row[2]
            # a LOST row's time is when somebody noticed, which may be long after what follows it
            if time_ns > now and code:
                now = time_ns
                if now > wake:
                    store.expire(now)
                    wake = store.wake_ns
            elif time_ns < now:
                self._late += 1
            plan = plans.get(code)
            bits = 0
            try:
                if plan is not None:
                    # What the event says comes first: it leaves nothing of most, and then nobody asks who its actor is.
                    bits, named = plan.mask, plan.named
                    if named and row[named] is not None:
                        bits = generation.named_row(code, row[named], strings)
                    for field in plan.fields:
                        value = row[field.at]
                        if field.mode == TEXT and value is not None:
                            value = strings[value]
                        elif field.mode == TEXTS and value is not None:
                            value = tuple([strings[item] for item in value])
                        known = field.cache.get(value)
                        if known is None:
                            known = field.rows.miss(value)
                        if bits == -1:
                            bits = known.bits
                        elif not wide:
                            bits &= known.bits
                        else:
                            if known is not field.other or bits != field.one:
                                field.one, field.other, field.both = bits, known, bits & known.bits
                            bits = field.both
                        if not bits:
                            break
                    else:
                        found = actor_rows[actor]
                        if found is None:
                            found = actor_rows[actor] = generation.actor_row(batch, actor)
                        if not wide:
                            bits &= found.bits
                            asks = bits & list_bits != 0
                        else:
                            met = plan.met[found.at]
                            if met.actor is not found or met.bits != bits:
                                met.actor, met.bits, met.left = found, bits, bits & found.bits
                                met.lists = met.left & list_bits != 0
                            bits, asks = met.left, met.lists
                        if asks:
                            asked, more = list_rows.get(actor) or (0, -1)
                            if bits & list_bits & ~asked:
                                asked |= bits & list_bits
                                more = generation.lists_left(batch, actor, asked) | ~asked
                                list_rows[actor] = asked, more
                            bits &= more
                        if bits and plan.further_fields:
                            bits = generation.lookup(row, plan.further_fields, strings, bits)
                elif code == LOST:
                    outputs.append(self._loss(row, batch.first_id + position))
                    continue
                if code == _EXIT and process_scopes:
                    store.end_process(actors[actor][1], now)
                    wake = store.wake_ns
                if not bits:
                    continue

                if bits > plain:
                    bits = generation.fold(bits)

                if not bits & later and row[4] == 0 and self._begin(batch, position, bits, resolver, now):
                    wake = store.wake_ns
                    continue

                # The condition of some step holds. Is it awaited here?
                scope = process_scopes.get(actors[actor][1])
                awaited = first if scope is None else first | scope.mask
                trees: list[Scope] = []
                if tree_scopes and bits & tree_bits:
                    line = lines.get(actor)
                    if line is None:
                        line = lines[actor] = lineage(batch, actor)
                    trees = [tree for key in line if (tree := tree_scopes.get(key)) is not None]
                    for tree in trees:
                        awaited |= tree.mask
                keyed: list[Keyed] = []
                if bits & field_bits:
                    bits, keyed = self._keyed(batch, row, bits)
                    for one in keyed:
                        if one.scope is not None:
                            awaited |= one.scope.mask & one.bits
                fire = bits & awaited
                if fire and plan is not None:
                    for field in plan.late_fields:
                        value = row[field.at]
                        if field.mode == TEXT and value is not None:
                            value = strings[value]
                        elif field.mode == TEXTS and value is not None:
                            value = tuple([strings[item] for item in value])
                        fire &= field.rows.row(value)
                if not fire:
                    continue
                sighting = resolver.sight(position)
            except (PeerError, IndexError, TypeError):
                # A reference outside the batch's tables, or a value of another type: the sender is at fault.
                outputs.append(self._refuse(batch.first_id + position, time_ns))
                continue
            self._fired += 1
            self._dispatch(fire, Moment(sighting, now, generation.number, self._gaps, scope, trees, keyed), outputs)
            wake = store.wake_ns
        self._events += len(batch.events)
        self._now_ns = now
        return outputs

    def _begin(self, batch: Batch, position: int, bits: int, resolver: Resolver, now_ns: int) -> bool:
        """Begins sequences by an event that meets nothing but first steps which policies share, and has no flag.

        Returns False where it does not decide that by itself; then nothing has changed. Raises as Resolver.sight does.
        """
        openings = self._openings.get(bits)
        if openings is None:
            openings = self._openings_of(bits)
        if not openings.cohorts:
            return False
        row, sighting = batch.events[position], resolver.sight(position)
        known = sighting.known
        if known.missing & openings.reads:
            return False
        opened: list[Opened] = []
        for cohort, members in openings.cohorts:
            key: Key | None = known.id if cohort.key is None else cohort.key.key(batch, row)
            if key is not None:
                opened.append((cohort, members, key))
        if opened:
            self._fired += 1
            self._sequencer.begin(opened, sighting, now_ns, self._gaps, doubtful=False)
        return True

    def _openings_of(self, first: int) -> _Openings:
        """Returns whom first steps belong to; nobody where more than the event decides."""
        found: list[tuple[Cohort, int]] = []
        left = first
        while left:
            cohort = self._runs[self._generation.owners[(left & -left).bit_length() - 1]].cohort
            assert cohort is not None
            found.append((cohort, cohort.members_of(left & cohort.first)))
            left ^= left & cohort.first
        plain = tuple(found) if all(cohort.plain for cohort, _ in found) else ()
        openings = _Openings(plain, functools.reduce(operator.or_, (cohort.reads for cohort, _ in plain), 0))
        if len(self._openings) >= _MAX_OPENINGS:
            self._openings.clear()
        self._openings[first] = openings
        return openings

    def _keyed(self, batch: Batch, row: tuple[Any, ...], bits: int) -> tuple[int, list[Keyed]]:
        """Returns the event's keys over fields, and the bits without those of steps for which it has none."""
        keyed: list[Keyed] = []
        scopes = self._store.by_fields
        for function, steps in self._generation.key_functions:
            mine = steps & bits
            if mine:
                key = function.key(batch, row)
                if key is None:
                    bits ^= mine
                else:
                    keyed.append(Keyed(mine, key, scopes.get(key)))
        return bits, keyed

    def _dispatch(self, fire: int, moment: Moment, outputs: list[Output]) -> None:
        # Policies in the order in which they were loaded; those last that only begin, which is never seen.
        owners, runs = self._generation.owners, self._runs
        begin = fire & self._generation.plain_first
        fire ^= begin
        while fire:
            # Mostly there is one policy, and the highest bit is found at once; the lowest takes three numbers as long as a row.
            run = runs[owners[fire.bit_length() - 1]]
            taken = fire & run.table.bits
            if taken != fire:
                run = runs[owners[(fire & -fire).bit_length() - 1]]
                taken = fire & run.table.bits
            fire ^= taken
            if begin and (both := begin & run.table.bits):
                taken |= both
                begin ^= both
            self._sequencer.take(run, taken >> run.table.base, moment, outputs)
        while begin:
            cohort = runs[owners[(begin & -begin).bit_length() - 1]].cohort
            assert cohort is not None
            self._sequencer.begin_if(cohort, begin & cohort.first, moment)
            begin ^= begin & cohort.first

    def _loss(self, row: tuple[Any, ...], row_id: int) -> SensorLoss:
        _, time_ns, where, count, since_ns = row[:5]
        if type(where) is not str or type(count) is not int or type(since_ns) is not int:
            raise PeerError(f"row {row_id}: malformed loss")
        self._lost += count
        self._gaps += 1
        return SensorLoss(where, count, since_ns, time_ns, loss_id(where, count, since_ns, row_id))

    def _refuse(self, row_id: int, time_ns: int) -> SensorLoss:
        self._malformed += 1
        self._lost += 1
        self._gaps += 1
        return SensorLoss("stream", 1, time_ns, time_ns, loss_id("stream", 1, time_ns, row_id))


def is_compiled() -> bool:
    """Whether the engine runs as machine code (deploy/compiled) and not as Python."""
    return not __file__.endswith(".py")


def _identity(policy: CompiledPolicy) -> tuple[str, str]:
    return policy.name, policy.hash
