"""What people and programs see of a diagnostic. EXECRAY_GOLDEN=1 rewrites the golden files, to be read in review."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from policyd.compiler import compile_set, compile_source, diagnostic_to_json, render

GOLDEN = Path(__file__).parents[3] / "data" / "golden" / "render"
SOURCES = {
    "two_labels": 'path "dropper" {\n    exec { exe = 493 } as run\n}\n',
    "earlier_line": 'list A = ["x"]\n\n\n\nlist A = ["y"]\n',
    "neighbouring_lines": 'path "p" within 5s {\n    open {} as a\n    write {} as a\n}\n',
    "tabs": 'path "p" {\n\topen {\tflgas has O_CREAT\t}\n}\n',
    "wide_characters": 'path "日本語" { open { path = "日本", flgas = 1 } }\n',
    "control_characters": 'path "p" { exec { comm = "\x1b[31mred\x07 and more" } }\n',
    "long_line": 'path "p" { exec { name in [' + ", ".join(f'"n{i}"' for i in range(60)) + "], flgas = 1 } }\n",
    "several_lines": 'path "p" within 5s {\n    open {} ... ? write {} : block "b" {\n        exec {} ...\n    }\n}\n',
    "end_of_file": 'path "p" {\n    exit {}\n',
    "several": 'path "p" {\n    opne {}\n    open { path =~ "(" }\n    write {}\n    connect { dst.port = "ssh" }\n}\n',
    "warning_and_note": 'path "p" {\n    open { uid = 0 or gid = 0 flags = O_RDWR }\n    write {}\n}\n',
}


@pytest.mark.parametrize("name", SOURCES)
def test_rendering_is_the_golden_one(name: str) -> None:
    compilation = compile_source(SOURCES[name], f"policies/{name}.policy")
    shown = render(compilation.diagnostics, [compilation.source], color=False)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("EXECRAY_GOLDEN") == "1":
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


def test_there_is_no_golden_file_without_a_source() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_colour_changes_nothing_but_colour(name: str) -> None:
    compilation = compile_source(SOURCES[name], "x")
    plain = render(compilation.diagnostics, [compilation.source], color=False)
    coloured = render(compilation.diagnostics, [compilation.source], color=True)
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_form_is_that_of_the_style_guide() -> None:
    compilation = compile_source('path "p" {\n    exec { exe = 493 } as run\n}\n', "policies/dropper.policy")
    assert render(compilation.diagnostics, [compilation.source], color=False) == (
        "error[ER0304]: cannot compare `exe` with a number\n"
        "  --> policies/dropper.policy:2:12\n"
        "   |\n"
        " 2 |     exec { exe = 493 } as run\n"
        "   |            ^^^ this field holds text\n"
        "   |                  ^^^ this is a number\n"
        '   = help: compare it with text, for example "/usr/bin/nc"\n\n'
    )


def test_nothing_to_show_is_nothing() -> None:
    assert render([], [], color=True) == ""


def test_json_has_places_labels_and_help() -> None:
    compilation = compile_source('path "p" {\n    exec { exe = 493 }\n}\n', "x.policy")
    (diagnostic,) = compilation.diagnostics
    shown = diagnostic_to_json(diagnostic, compilation.source)
    assert json.loads(json.dumps(shown)) == {
        "code": "ER0304",
        "severity": "error",
        "message": "cannot compare `exe` with a number",
        "file": "x.policy",
        "line": 2,
        "column": 12,
        "end_line": 2,
        "end_column": 15,
        "label": "this field holds text",
        "labels": [{"line": 2, "column": 18, "end_line": 2, "end_column": 21, "label": "this is a number"}],
        "notes": [],
        "help": 'compare it with text, for example "/usr/bin/nc"',
    }


def test_messages_are_lower_case_without_full_stop() -> None:
    for name, source in SOURCES.items():
        for diagnostic in compile_source(source, name).diagnostics:
            assert not diagnostic.message.endswith(".")
            assert diagnostic.message[0] == diagnostic.message[0].lower() or diagnostic.message.startswith("RE2")


def test_set_rendering_names_each_file() -> None:
    result = compile_set([("a.policy", b'path "p" { exit {} }'), ("b.policy", b'\npath "p" { exec {} }')])
    assert render(result.diagnostics, result.sources, color=False) == (
        "error[ER0207]: two policies are called `p`\n"
        "  --> b.policy:2:6\n"
        "   |\n"
        ' 2 | path "p" { exec {} }\n'
        "   |      ^^^\n"
        "   = note: the other one is at a.policy:1\n"
        "   = help: give each its own name\n\n"
    )
