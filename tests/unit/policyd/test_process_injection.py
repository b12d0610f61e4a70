"""The shipped policy on ptrace: it kills where attaching worked, and nobody who only tried."""

from __future__ import annotations

from pathlib import Path

from policyd.compiler import compile_set
from policyd.program import Severity
from policyd.workbench.replay import Replay
from policyd.workbench.vectors import read_vectors

POLICY = Path("policies/process_injection.policy")


def test_attaching_is_critical_and_kills_and_a_refused_attempt_does_neither() -> None:
    compiled = compile_set([(POLICY.name, POLICY.read_bytes())]).policies
    (case,) = (
        one for one in read_vectors(POLICY.with_suffix(".test.yaml")).cases if one.name.endswith("also where it fails")
    )
    attached, refused = Replay(compiled).run(case.batches)
    assert (attached.severity, attached.kills, attached.enforced) == (Severity.CRITICAL, True, False)
    assert (refused.severity, refused.kills) == (Severity.MEDIUM, False)
