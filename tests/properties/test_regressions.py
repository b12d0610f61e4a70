"""Cases in which the engine and the reference once disagreed, with what the language says, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from execray.schema.catalog import Flag
from execray.wire.frames import Batch
from policyd.program import CompiledPolicy, Op
from tests.properties.cases import run_engine, run_reference
from tests.support.playbook import Play
from tests.support.programs import policy, step
from tests.support.programs import test as check
from tests.support.reference_partials import Found


def both(policies: Sequence[CompiledPolicy], batch: Batch) -> tuple[Found, ...]:
    """What the reference finds, once the engine was seen to find the same."""
    wanted = run_reference(policies, [batch])
    assert run_engine(policies, [batch]) == wanted
    return wanted[0]


@pytest.mark.xfail(strict=True, reason="the engine doubts every test of a value that was cut")
def test_that_a_cut_value_exists_is_sure() -> None:
    # Section 4: in doubt is a match that depended on the value; that there is one, no byte left out can change.
    play = Play()
    play.event("open", play.process(), path="/a", cut=Flag.PATH_TRUNCATED)
    (match,) = both([policy("p", step("open", check("path", Op.EXISTS)))], play.batch())
    assert not match.partial_evidence
