"""What the policies on disk are told to be: a file that didn't change is not looked at again, and its warnings stay."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from policyd import store
from policyd.compiler import render
from policyd.store import Candidate, PolicyStore


def told(candidate: Candidate) -> list[tuple[str, object]]:
    return [(os.path.basename(str(found["file"])), found["code"]) for found in candidate.diagnostics]


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.policy").write_text(text)
    (folder / f"{name}.policy").chmod(0o644)


def test_warnings_of_files_that_did_not_change_are_told_again_and_made_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    warned = (
        'path "{name}" within 1m {{ open {{ path = "/{name}" }} connect {{}} }}\n'
        'path "kill {name}" {{ open {{ comm = "x" }} on match {{ kill }} }}\n'
    )
    for name in ("a", "b"):
        write(tmp_path, name, warned.format(name=name))
    policies = PolicyStore((tmp_path,), frozenset({0, os.geteuid()}))
    first = policies.compile()
    assert first.ok and {"a.policy", "b.policy"} == {file for file, _ in told(first)}
    with mock.patch.object(store, "render", side_effect=render) as rendered:
        assert policies.compile().diagnostics == first.diagnostics
        assert not rendered.called
        write(tmp_path, "b", "\n" + warned.format(name="b"))
        third = policies.compile()
    assert told(third) == told(first)
    assert third.rendered != first.rendered
    assert {call.args[1][0].name for call in rendered.call_args_list} == {str(tmp_path / "b.policy")}
    with_all = PolicyStore((tmp_path,), frozenset({0, os.geteuid()})).compile()
    assert (third.diagnostics, third.rendered) == (with_all.diagnostics, with_all.rendered)
