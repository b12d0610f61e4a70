"""A policy's automaton as a picture: SVG that needs no other program, and Mermaid for pages that render it.

The automaton has no cycles (what repeats, repeats in place), so it is drawn as it is read: from the top down, a circle for each
state, and on the way to the next one a card with the step that leads there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from policyd.program import CompiledPolicy, KeyKind, Step, span_text

_CARD_CHARS: Final = 46
_CARD_LINES: Final = 7
_CHAR_PX: Final = 7.25
_LINE_PX: Final = 17
_PAD_PX: Final = 12
_GAP_X: Final = 28
_GAP_Y: Final = 34
_RADIUS: Final = 15


@dataclass(slots=True, eq=False)
class _Node:
    """A state or a card, and where it stands. x and y are its centre."""

    layer: int
    lines: list[str]
    kind: str  # state, match, end, card, note
    width: float
    height: float
    heading: str = ""
    x: float = 0.0
    y: float = 0.0
    after: list[_Node] = field(default_factory=list)


def to_svg(policy: CompiledPolicy) -> str:
    """Returns the automaton as an SVG image, light or dark as the viewer prefers."""
    nodes = _routed(_nodes(policy))
    width, height = _place(nodes)
    title = f"{policy.name}: {_subtitle(policy)}"
    width = max(width, len(title) * _CHAR_PX + 2 * _GAP_X)
    shift = (
        width - max(node.x + node.width / 2 for node in nodes) - min(node.x - node.width / 2 for node in nodes)
    ) / 2
    body = [line for node in nodes for line in _svg_edges(node, shift)]
    body += [line for node in nodes for line in _svg_node(node, shift)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            _STYLE,
            f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>',
            f'<text class="title" x="{_GAP_X}" y="30"><tspan class="name">{escape(policy.name)}</tspan>'
            f'<tspan dx="10">{escape(_subtitle(policy))}</tspan></text>',
            *body,
            "</svg>\n",
        ]
    )


def to_mermaid(policy: CompiledPolicy) -> str:
    """Returns the automaton as a Mermaid flowchart."""
    nodes = _nodes(policy)
    name = {id(node): f"n{number}" for number, node in enumerate(nodes)}
    shapes = {"state": "(({}))", "match": "((({})))", "end": "(({}))", "card": "[{}]", "note": "{{{{{}}}}}"}
    lines = ["flowchart TD"]
    for node in nodes:
        text = "<br/>".join(_mermaid(line) for line in [*([node.heading] if node.heading else []), *node.lines])
        quoted = '"' + (text or " ") + '"'
        lines.append(f"  {name[id(node)]}{shapes[node.kind].format(quoted)}")
    for node in nodes:
        arrow = "-.->" if node.kind == "note" else "-->"
        lines += [f"  {name[id(node)]} {arrow} {name[id(after)]}" for after in node.after]
    return "\n".join(lines) + "\n"


# ---- what is drawn


def _nodes(policy: CompiledPolicy) -> list[_Node]:
    depths = _depths(policy)
    states = [_state(policy, number, 2 * depths[number]) for number in range(len(policy.states))]
    cards: list[_Node] = []
    for number, state in enumerate(policy.states):
        for order, move in enumerate(state.transitions, start=1):
            rank = f"{order}. " if len(state.transitions) > 1 else ""
            card = _card(policy, move.step, 2 * depths[number] + 1, rank)
            card.after.append(states[move.target])
            states[number].after.append(card)
            cards.append(card)
        for step in state.repeats:
            cards.append(_card(policy, step, 2 * depths[number], "also kept: "))
            cards[-1].kind = "note"
            cards[-1].after.append(states[number])
    bottom = max(node.layer for node in states)
    for until in policy.untils:
        where = "anywhere" if len(until.states) >= len(policy.states) - 1 else f"in {', '.join(map(str, until.states))}"
        cards.append(_card(policy, until.step, bottom + 1, f"ends it {where}: "))
        cards[-1].kind = "note"
    return states + cards


def _depths(policy: CompiledPolicy) -> list[int]:
    """Returns for each state the length of the longest way to it: targets always lie below."""
    depths = [0] * len(policy.states)
    for _ in policy.states:
        moved = False
        for number, state in enumerate(policy.states):
            for move in state.transitions:
                if depths[move.target] <= depths[number]:
                    depths[move.target] = depths[number] + 1
                    moved = True
        if not moved:
            break
    return depths


def _state(policy: CompiledPolicy, number: int, layer: int) -> _Node:
    state = policy.states[number]
    kind = "match" if state.accepting else "state" if state.transitions or number == 0 else "end"
    return _Node(layer, [str(number)], kind, 2 * _RADIUS, 2 * _RADIUS)


def _card(policy: CompiledPolicy, number: int, layer: int, before: str) -> _Node:
    step = policy.steps[number]
    lines = textwrap.wrap(step.text, _CARD_CHARS, break_on_hyphens=False, subsequent_indent="  ") or [""]
    if len(lines) > _CARD_LINES:
        lines = [*lines[: _CARD_LINES - 1], "  …"]
    heading = before + _heading(step, number)
    longest = max(len(line) for line in [*lines, heading])
    height = (len(lines) + 1) * _LINE_PX + 2 * _PAD_PX - 4
    return _Node(layer, lines, "card", longest * _CHAR_PX + 2 * _PAD_PX, height, heading)


def _heading(step: Step, number: int) -> str:
    parts = [step.alias or f"step {number + 1}"]
    if step.labels:
        parts.append(f"in {' / '.join(step.labels)}")
    if step.times is not None:
        distinct = f" distinct {step.times.distinct.name}" if step.times.distinct else ""
        within = f" within {span_text(step.times.within_ns)}" if step.times.within_ns else ""
        parts.append(f"{step.times.count} times{distinct}{within}")
    if step.within_ns is not None:
        parts.append(f"within {span_text(step.within_ns)} of the step before")
    return ", ".join(parts)


def _subtitle(policy: CompiledPolicy) -> str:
    within = "" if policy.within_ns is None else f", within {span_text(policy.within_ns)}"
    key = policy.key_text if policy.key is KeyKind.FIELDS else policy.key.value
    return f"key {key}{within}"


# ---- where it stands


def _routed(nodes: list[_Node]) -> list[_Node]:
    """Gives every edge that skips layers a way between what stands in them."""
    bends: list[_Node] = []
    for node in nodes:
        for index, target in enumerate(node.after):
            above = node
            for layer in range(node.layer + 1, target.layer):
                bend = _Node(layer, [], "bend", 4, 0)
                if above is node:
                    node.after[index] = bend
                else:
                    above.after.append(bend)
                bends.append(bend)
                above = bend
            if above is not node:
                above.after.append(target)
    return nodes + bends


def _place(nodes: Sequence[_Node]) -> tuple[float, float]:
    """Gives every node its place, layer by layer, each below what leads to it; returns the width and height of all."""
    layers: dict[int, list[_Node]] = {}
    for node in nodes:
        layers.setdefault(node.layer, []).append(node)
    before: dict[int, list[_Node]] = {}
    for node in nodes:
        for after in node.after:
            before.setdefault(id(after), []).append(node)
    y = 60.0
    for layer in sorted(layers):
        row = layers[layer]
        y += max(node.height for node in row) / 2
        wanted = [_centre(before.get(id(node), ()), node) for node in row]
        _spread(row, wanted)
        for node in row:
            node.y = y
        y += max(node.height for node in row) / 2 + _GAP_Y
    left = min(node.x - node.width / 2 for node in nodes)
    for node in nodes:
        node.x += _GAP_X - left
    return max(node.x + node.width / 2 for node in nodes) + _GAP_X, y


def _centre(leading: Sequence[_Node], node: _Node) -> float:
    known = [other for other in leading if other.layer < node.layer]
    if not known:
        return 0.0
    middle = sum(other.x for other in known) / len(known)
    # Of several that one state leads to, each stands to the right of the one before it in the text.
    siblings = known[0].after
    return middle + (siblings.index(node) - (len(siblings) - 1) / 2) * (node.width + _GAP_X)


def _spread(row: list[_Node], wanted: list[float]) -> None:
    """Puts a row's nodes as near to where they want to be as they fit beside each other."""
    placed = sorted(zip(row, wanted, strict=True), key=lambda pair: pair[1])
    right = float("-inf")
    for node, x in placed:
        node.x = max(x, right + _GAP_X + node.width / 2)
        right = node.x + node.width / 2
    drift = sum(node.x - x for node, x in placed) / len(placed)
    for node, _ in placed:
        node.x -= drift


# ---- how it looks

_STYLE: Final = """<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.page { fill: #ffffff }
.title { font-size: 14px; fill: #57606a }
.name { font-weight: 600; fill: #1f2328 }
.state text, .match text, .end text { text-anchor: middle }
.state circle { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5 }
.match circle { fill: #ffebe9; stroke: #cf222e; stroke-width: 2 }
.end circle { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.5 }
.card rect { fill: #ddf4ff; stroke: #54aeff }
.note rect { fill: #fff8c5; stroke: #d4a72c; stroke-dasharray: 4 3 }
.head { font-weight: 600; fill: #57606a }
.code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre }
.edge { fill: none; stroke: #57606a; stroke-width: 1.3 }
.dashed { stroke-dasharray: 4 3 }
.tip { fill: #57606a }
@media (prefers-color-scheme: dark) {
text, .name { fill: #f0f6fc }
.page { fill: #0d1117 }
.title, .head { fill: #9198a1 }
.state circle { fill: #151b23; stroke: #9198a1 }
.match circle { fill: #3c1618; stroke: #f85149 }
.end circle { fill: #12261e; stroke: #3fb950 }
.card rect { fill: #121d2f; stroke: #1f6feb }
.note rect { fill: #272115; stroke: #9e6a03 }
.edge { stroke: #9198a1 }
.tip { fill: #9198a1 }
}
</style>"""


def _svg_node(node: _Node, shift: float) -> Iterator[str]:
    x = node.x + shift
    if node.kind == "bend":
        return
    if node.kind in ("card", "note"):
        left, top = x - node.width / 2, node.y - node.height / 2
        size = f'width="{node.width:.1f}" height="{node.height:.1f}" rx="6"'
        yield f'<g class="{node.kind}"><rect x="{left:.1f}" y="{top:.1f}" {size}/>'
        yield f'<text class="head" x="{left + _PAD_PX:.1f}" y="{top + _PAD_PX + 9:.1f}">{escape(node.heading)}</text>'
        for number, line in enumerate(node.lines, start=1):
            at = top + _PAD_PX + 9 + number * _LINE_PX
            yield f'<text class="code" x="{left + _PAD_PX:.1f}" y="{at:.1f}">{escape(line)}</text>'
    else:
        yield f'<g class="{node.kind}"><circle cx="{x:.1f}" cy="{node.y:.1f}" r="{_RADIUS}"/>'
        if node.kind == "match":
            yield f'<circle cx="{x:.1f}" cy="{node.y:.1f}" r="{_RADIUS - 4}"/>'
        yield f'<text x="{x:.1f}" y="{node.y + 4:.1f}">{node.lines[0]}</text>'
    yield "</g>"


def _svg_edges(node: _Node, shift: float) -> Iterator[str]:
    dashed = " dashed" if node.kind == "note" else ""
    for after in node.after:
        if after.layer > node.layer:
            x1, y1, x2, y2 = node.x + shift, node.y + node.height / 2, after.x + shift, after.y - after.height / 2
            end, bend = (y2 if after.kind == "bend" else y2 - 5), (y2 - y1) / 2
            path = f"M{x1:.1f},{y1:.1f} C{x1:.1f},{y1 + bend:.1f} {x2:.1f},{y2 - bend:.1f} {x2:.1f},{end:.1f}"
            tip = f"M{x2:.1f},{y2:.1f} l-4,-8 l8,0 z"
        else:  # a repeat, beside the state that keeps it
            side = 1 if node.x < after.x else -1
            x1, x2 = node.x + shift + side * node.width / 2, after.x + shift - side * after.width / 2
            path = f"M{x1:.1f},{node.y:.1f} L{x2 - side * 5:.1f},{after.y:.1f}"
            tip = f"M{x2:.1f},{after.y:.1f} l{-side * 8},-4 l0,8 z"
        yield f'<path class="edge{dashed}" d="{path}"/>'
        if after.kind != "bend":
            yield f'<path class="tip" d="{tip}"/>'


def _mermaid(text: str) -> str:
    return escape(text, quote=True).replace("&", "#")  # Mermaid writes its entities with `#`
