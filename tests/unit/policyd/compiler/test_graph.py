"""Pictures of automata: well-formed, complete, and with nothing on top of anything else."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from policyd.compiler import compile_source
from policyd.compiler.graph import to_mermaid, to_svg
from policyd.program import CompiledPolicy

BRANCHES = """
path "a <b> & \\"c\\"" within 90s {
    open { path =~ "/etc/(passwd|shadow)" } as first
    write { content contains "root" } ?
    block "shell" { exec { filename = "/bin/sh" } exit { } } :
    block "net" { connect { family = AF_INET } .. chmod { mode has S_ISUID } ? write { fd = 3 } within 2s : fork { } }
    setuid { new.uid = 0 }
}
"""
SHIPPED = sorted((Path(__file__).parents[4] / "policies").rglob("*.policy"))


def policies() -> list[CompiledPolicy]:
    texts = [BRANCHES, *(path.read_text() for path in SHIPPED)]
    return [policy for text in texts for policy in compile_source(text, "f").policies]


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    found = []
    for element in ElementTree.fromstring(svg).iter():
        at = element.attrib
        if element.tag.endswith("rect") and "class" not in at:
            found.append((float(at["x"]), float(at["y"]), float(at["width"]), float(at["height"])))
        elif element.tag.endswith("circle"):
            x, y, r = (float(at[k]) for k in ("cx", "cy", "r"))
            found.append((x - r, y - r, 2 * r, 2 * r))
    return found


def inside(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Whether a lies within b: the inner ring of a match."""
    return a[0] >= b[0] and a[1] >= b[1] and a[0] + a[2] <= b[0] + b[2] and a[1] + a[3] <= b[1] + b[3]


@pytest.mark.parametrize("policy", policies(), ids=lambda policy: policy.name)
def test_svg_shows_every_state_and_step_and_nothing_overlaps(policy: CompiledPolicy) -> None:
    svg = to_svg(policy)
    root = ElementTree.fromstring(svg)
    shown = "".join(root.itertext())
    assert policy.name in shown
    for number, step in enumerate(policy.steps):
        assert (step.alias or f"step {number + 1}") in shown
    assert svg.count('<g class="state">') + svg.count('<g class="match">') == len(policy.states)
    found = boxes(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for index, a in enumerate(found):
        assert a[0] >= 0 and a[0] + a[2] <= width and a[1] >= 0 and a[1] + a[3] <= height
        for b in found[index + 1 :]:
            apart = a[0] + a[2] <= b[0] or b[0] + b[2] <= a[0] or a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1]
            assert apart or inside(a, b) or inside(b, a)


def test_edges_lead_down_from_each_state_to_each_target() -> None:
    (policy,) = compile_source(BRANCHES, "f").policies
    lines = to_mermaid(policy).splitlines()
    edges = [tuple(re.findall(r"n(\d+)", line)) for line in lines if "-->" in line]
    ways = {(a, d) for a, b in edges for c, d in edges if b == c and int(a) < len(policy.states)}
    wanted = {(str(n), str(t.target)) for n, state in enumerate(policy.states) for t in state.transitions}
    assert ways == wanted
    assert sum("-.->" in line for line in lines) == sum(len(state.repeats) for state in policy.states) == 1


def test_text_of_a_policy_cannot_break_out_of_the_picture() -> None:
    (policy,) = compile_source('path "<script>x</script>" { open { path = "</svg>\\"]" } }', "f").policies
    assert "<script>" not in to_svg(policy) and ElementTree.fromstring(to_svg(policy)) is not None
    assert '"]' not in to_mermaid(policy).replace('}"]', "")
