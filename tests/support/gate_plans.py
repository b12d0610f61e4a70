"""Plans of the gate of one bit or of one policy, and a sensor's to be loaded with: what the tests of its hooks share."""

from __future__ import annotations

from execray.gate.plan import ROW_ALL, ROW_NONE, CodeTest, GatePlan, Input, NumberKind, NumberTest
from execray.schema.catalog import EVENT_BY_NAME
from policyd.compiler import compile_set
from policyd.engine.table import PolicyTable
from policyd.gate.plan import build_plan
from tests.support.live import Live, Run

NAMES = ["open", "write", "read", "connect", "kill"]
BIT = 2  # the row that holds the plan's one bit


def plan_of(
    name: str = "open",
    key: int | None = None,
    suffixes: tuple[int, ...] = (),
    *,
    path_free: int = ROW_NONE,
    path_nameless: int = ROW_NONE,
    path_missing: int = ROW_NONE,
    comm_free: int = ROW_ALL,
) -> GatePlan:
    """A plan with one bit, of one event. The bit asks for the key; which rows it is in besides is in the rest."""
    code = EVENT_BY_NAME[name].code
    test = CodeTest(code, 0, 1, BIT, path_free, path_nameless, path_missing, comm_free)
    return GatePlan((test,), frozenset(), (0, (1 << 4096) - 1, 1), {} if key is None else {key: BIT}, suffixes=suffixes)


def number_plan(name: str, which: Input, kind: NumberKind, bounds: tuple[int, ...], rows: tuple[int, ...]) -> GatePlan:
    """A plan whose one bit asks something of one number."""
    test = NumberTest(which, kind, bounds, 3)
    code = CodeTest(EVENT_BY_NAME[name].code, 0, 1, BIT, BIT, BIT, BIT, ROW_ALL, (test,))
    return GatePlan((code,), frozenset(), (0, (1 << 4096) - 1, 1, *rows))


def built_plan(text: str) -> GatePlan:
    """The plan of a policy."""
    found = compile_set([("a.policy", text.encode())])
    assert found.ok, found.diagnostics
    return build_plan([PolicyTable(policy, 0) for policy in found.policies]).plan


def load(live: Live, plan: GatePlan | None, names: list[str] | None = None) -> None:
    codes = [EVENT_BY_NAME[name].code for name in names or NAMES]
    assert not live.sensor.want(codes, False, plan=plan)


def opened(run: Run) -> set[object]:
    return {event.get("path") for event in run.of("open")}
