"""Lints about steps and their order: what can't happen, what is said twice, what a decoy could replace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policyd.compiler.diagnostics import Level, Sink
from policyd.compiler.implied import implies
from policyd.compiler.lint_fields import refs_of
from policyd.compiler.typed import TypedPolicy
from policyd.program import And, CompiledPolicy, KeyKind, Overlap, Step

# Of those that wait together in one place.
_MAX_ALTERNATIVES = 64


class FlowLints:
    """Reports on one policy. used: for each step of the compiled policy, its number among the typed ones."""

    def __init__(self, policy: TypedPolicy, compiled: CompiledPolicy, used: Sequence[int], sink: Sink) -> None:
        self._policy = policy
        self._compiled = compiled
        self._used = used
        self._sink = sink
        self._places: dict[int, list[int]] = {}  # where each step is awaited
        for place, state in enumerate(compiled.states):
            for move in state.transitions:
                self._places.setdefault(move.step, []).append(place)

    def run(self) -> None:
        """Reports all of them."""
        self._forestalled()
        self._cancelled()
        self._excepted()
        self._same_again()
        self._no_key()
        self._tree_of_a_count()
        self._replaced()

    def _report(self, code: str, step: int, message: str, help: str, level: Level) -> None:
        node = self._policy.steps[self._used[step]].node
        self._sink.report(code, node.span, message, level=level, help=help)

    def _forestalled(self) -> None:
        """Alternatives that come too late everywhere. Those that are plainly the same were dropped before."""
        for number, step in enumerate(self._compiled.steps):
            places = self._places.get(number, [])
            if self._few(places) and all(
                any(_takes_all(other, step) for other in self._before(number, p)) for p in places
            ):
                help_text = "an alternative before it takes every event that it would take"
                self._report("ER0406", number, "this step is never reached", help_text, Level.WARNING)

    def _few(self, places: Sequence[int]) -> bool:
        """Whether there are some, with few enough alternatives to compare all of them with each other."""
        return 0 < sum(len(self._compiled.states[place].transitions) for place in places) <= _MAX_ALTERNATIVES

    def _before(self, step: int, place: int) -> Iterator[Step]:
        for move in self._compiled.states[place].transitions:
            if move.step == step:
                return
            yield self._compiled.steps[move.step]

    def _cancelled(self) -> None:
        """Steps whose events all cancel the partial that waits for them: a cancel comes first."""
        untils = self._compiled.untils
        for number, step in enumerate(self._compiled.steps) if 0 < len(untils) <= _MAX_ALTERNATIVES else ():
            places = self._places.get(number, [])
            if not self._few(places):
                continue
            cancelling = [until for until in untils if _takes_all(self._compiled.steps[until.step], step)]
            if all(any(place in until.states for until in cancelling) for place in places):
                message = "every event that meets this step cancels the sequence: `until` comes first"
                self._report("ER0516", number, message, "let `until` leave this step's events out", Level.WARNING)

    def _excepted(self) -> None:
        compiled = self._compiled
        accepting = [s for s in compiled.states if s.transitions]
        last = [m.step for s in accepting for m in s.transitions if compiled.states[m.target].accepting]
        own = self._policy.node.exceptions
        if not 0 < len(last) <= _MAX_ALTERNATIVES:
            return
        for number, exemption in enumerate(compiled.exemptions):
            if all(implies(compiled.steps[step].condition, exemption.condition) for step in last):
                span = own[number].span if number < len(own) else self._policy.node.name.span
                what = "this exception" if number < len(own) else f"the exception in {exemption.place.file}"
                self._sink.report(
                    "ER0517",
                    span,
                    f"{what} holds for every match, so the policy never alerts",
                    level=Level.WARNING,
                    help="narrow it down: what it asks for, the last step asks for already",
                )

    def _same_again(self) -> None:
        compiled = self._compiled
        for state in compiled.states:
            follows = [m for m in state.transitions if len(compiled.states[m.target].transitions) == 1]
            for move in follows:
                (after,) = compiled.states[move.target].transitions
                first, second = compiled.steps[move.step], compiled.steps[after.step]
                if second.condition != And(()) and first.times is None and _takes_all(second, first):
                    message = "an event that meets the step before meets this one too"
                    help_text = "say how the second event differs; for the same again, write `times 2` behind the first"
                    self._report("ER0518", after.step, message, help_text, Level.NOTE)

    def _no_key(self) -> None:
        node = self._policy.node
        named = any(option.name == "key" for option in node.options)
        by = any(typed.node.keys is not None for typed in self._policy.steps)
        if self._compiled.within_ns is not None and not named and not by:
            self._sink.report(
                "ER0519",
                node.name.span,
                "a policy of several steps without a key is about one process",
                level=Level.NOTE,
                help="write the key you mean: key process, key tree, by file.id behind a step, ...",
            )

    def _tree_of_a_count(self) -> None:
        compiled = self._compiled
        first = [move.step for move in compiled.states[0].transitions if compiled.steps[move.step].times is not None]
        if compiled.key is KeyKind.TREE and first:
            message = "each process counts for itself here: a tree begins with the process that completes the count"
            self._report(
                "ER0525", first[0], message, "to count a tree's events together, use key session", Level.WARNING
            )

    def _replaced(self) -> None:
        if self._compiled.mode.overlap is Overlap.ALL:
            return
        word = self._compiled.mode.overlap.value
        kept = "a newer one" if self._compiled.mode.overlap is Overlap.LATEST else "the one before it"
        for number, step in enumerate(self._compiled.steps):
            alias = next((ref.alias for ref in refs_of(step.condition) if ref.alias is not None), None)
            if alias is not None:
                message = f"under `mode {word}` an event of `{alias}` may have been left out for {kept}"
                self._report("ER0521", number, message, "`mode all 4` remembers several of one key", Level.NOTE)
                return


def _takes_all(taker: Step, step: Step) -> bool:
    """Whether `taker` takes every event that meets `step`, under the same key."""
    if taker.within_ns is not None or taker.times is not None or taker.key != step.key:
        return False
    return set(step.codes) <= set(taker.codes) and implies(step.condition, taker.condition)
