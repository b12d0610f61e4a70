"""What a policy will really do, by table: each line is what is so, and what comes of it and why."""

from __future__ import annotations

from typing import Any

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from policyd.compiler import compile_source
from policyd.effective import Effect, Host, effective
from policyd.program import CompiledPolicy

ENFORCING: dict[str, Any] = {"mode": "enforce", "enforcer": True, "enforcer_mode": "enforce", "may_kill": True}
AWAY: dict[str, Any] = {**ENFORCING, "enforcer": False, "enforcer_mode": ""}
REFUSED = {"refused": {EVENT_BY_NAME["ptrace"].code: "EPERM"}}

KILL = "on match { alert; kill }"


def compiled(handlers: str, response: str = "enforce", steps: str = 'open { path = "/a" } as a') -> CompiledPolicy:
    text = f'path "p" within 1m response {response} {{ {steps} {handlers} }}'
    found = compile_source(text, "p.policy")
    assert found.ok, found.diagnostics
    return found.policies[0]


@pytest.mark.parametrize(
    ("policy", "host", "effect", "why"),
    [
        # what it asks for
        (compiled(""), ENFORCING, Effect.ALERT, ("no handler kills",)),
        (compiled("on match { alert }"), ENFORCING, Effect.ALERT, ("no handler kills",)),
        (compiled("on match { log }"), ENFORCING, Effect.LOG, ("no handler kills",)),
        (compiled("on match { log; alert }"), ENFORCING, Effect.ALERT, ("no handler kills",)),
        (compiled('on match { log; notify "hook" }'), ENFORCING, Effect.NOTIFY, ("no handler kills",)),
        (compiled("on step a { log }"), ENFORCING, Effect.ALERT, ("no handler kills",)),
        (compiled(KILL), ENFORCING, Effect.KILL, ("by the enforcer",)),
        (compiled("on step a { kill }"), ENFORCING, Effect.KILL, ("by the enforcer",)),
        (
            compiled("on match if uid = 0 { kill } on match { alert }"),
            ENFORCING,
            Effect.KILL,
            ("by the enforcer", "only where the handler's `if` holds"),
        ),
        # who says audit
        (compiled(KILL, "audit"), ENFORCING, Effect.AUDIT, ("the policy says `response audit`",)),
        (compiled(KILL), {**ENFORCING, "mode": "audit"}, Effect.AUDIT, ("the host's mode is audit",)),
        (
            compiled(KILL, "audit"),
            {**ENFORCING, "mode": "audit"},
            Effect.AUDIT,
            ("the policy says `response audit`", "the host's mode is audit"),
        ),
        (compiled(KILL), {**ENFORCING, "enforcer_mode": "audit"}, Effect.AUDIT, ("the enforcer's mode is audit",)),
        (compiled(KILL), {**ENFORCING, "enforcer_mode": ""}, Effect.KILL, ("by the enforcer",)),
        (compiled("on match { alert }", "audit"), {**ENFORCING, "mode": "audit"}, Effect.ALERT, ("no handler kills",)),
        # who kills
        (compiled(KILL), AWAY, Effect.KILL, ("by policyd itself: no enforcer is connected",)),
        (
            compiled(KILL),
            {**AWAY, "may_kill": False},
            Effect.ALERT,
            ("no enforcer is connected, and policyd has no CAP_KILL",),
        ),
        (compiled(KILL), {**ENFORCING, "may_kill": False}, Effect.KILL, ("by the enforcer",)),
        (
            compiled(KILL),
            {**AWAY, "enforcer_mode": "audit"},
            Effect.KILL,
            ("by policyd itself: no enforcer is connected",),
        ),
        (compiled(KILL), {**ENFORCING, "kills_per_minute": 0}, Effect.ALERT, ("the budget of kills is 0",)),
        # what the kernel hides
        (compiled(KILL), ENFORCING | REFUSED, Effect.KILL, ("by the enforcer",)),
        (
            compiled(KILL, steps="ptrace { } as a"),
            ENFORCING | REFUSED,
            Effect.BLIND,
            ("`ptrace` is refused by the kernel: EPERM",),
        ),
        (
            compiled(KILL, steps='open { path = "/a" } as a ptrace { }'),
            ENFORCING | REFUSED,
            Effect.BLIND,
            ("`ptrace` is refused by the kernel: EPERM",),
        ),
        (compiled(KILL, steps="ptrace | open { } as a"), ENFORCING | REFUSED, Effect.KILL, ("by the enforcer",)),
        (
            compiled(KILL, steps='open { path = "/a" } as a either { ptrace { } } or { write { } }'),
            ENFORCING | REFUSED,
            Effect.KILL,
            ("by the enforcer",),
        ),
    ],
)
def test_effect_and_reason(policy: CompiledPolicy, host: dict[str, Any], effect: Effect, why: tuple[str, ...]) -> None:
    found = effective(policy, Host(**host))
    assert (found.effect, found.why) == (effect, why)


def test_a_disabled_policy_does_nothing_whatever_else_is_so() -> None:
    found = effective(compiled(KILL), Host(**ENFORCING), enabled=False)
    assert found.to_json() == {"response": "off", "why": ["it is disabled"]}


def test_the_defaults_of_a_host_kill_nobody() -> None:
    assert effective(compiled(KILL), Host()).effect is Effect.AUDIT
