"""Which of a policy's events something may have to be done at: they are not made to wait for others."""

from __future__ import annotations

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from policyd.compiler import compile_source

STEPS = 'open { path = "/a" } as a  either { connect { ret >= 0 } as c } or { chmod { path = "/b" } as b }'


@pytest.mark.parametrize(
    ("response", "handlers", "urgent"),
    [
        ("enforce", "on match { kill }", {"connect", "chmod"}),
        ("audit", "on match { kill }", set()),
        ("enforce", "on match { alert }", set()),
        ("enforce", "", set()),
        ("enforce", "on step a { kill }", {"open"}),
        ("enforce", "on step a { kill } on match { kill }", {"open", "connect", "chmod"}),
        ("enforce", "on step a { log } on match { kill }", {"connect", "chmod"}),
        # packets are recorded whatever the response
        ("audit", "on step a { capture net for 2s max 1MiB } on match { kill }", {"open"}),
        ("audit", "on match { alert; capture net for 2s max 1MiB }", {"connect", "chmod"}),
    ],
)
def test_urgent_is_what_a_kill_or_a_capture_hangs_on(response: str, handlers: str, urgent: set[str]) -> None:
    found = compile_source(f'path "p" within 1m response {response} {{ {STEPS} {handlers} }}', "p.policy")
    assert found.ok, found.diagnostics
    assert found.policies[0].urgent == {EVENT_BY_NAME[name].code for name in urgent}
