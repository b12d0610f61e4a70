"""Which of two tracepoints is attached, and what is left where the kernel has neither."""

from __future__ import annotations

from typing import Any, cast

import pytest

import tracerd.rings
from tracerd.loader import LoadError, Program
from tracerd.rings import Rings


class FakeProgram:
    """A program that a kernel takes, or refuses."""

    def __init__(self, refused: str = "") -> None:
        self.says, self.attached, self.refused = refused, False, ""

    def attach(self) -> None:
        self.refused = self.says
        if self.says:
            raise LoadError(self.says, "")
        self.attached = True

    def detach(self) -> None:
        self.attached = False


def rings(monkeypatch: pytest.MonkeyPatch, **programs: FakeProgram) -> Rings:
    class NoMap:
        @staticmethod
        def create(*_: Any) -> NoMap:
            return NoMap()

        def keys(self) -> list[bytes]:
            return []

    monkeypatch.setattr(tracerd.rings, "Map", NoMap)
    monkeypatch.setattr(tracerd.rings, "tells_operations", lambda: True)
    return Rings(lambda name: cast("Program | None", programs.get(name)))


def test_the_tracepoint_that_the_kernel_has_is_taken_and_the_other_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, completed = FakeProgram(), FakeProgram("no such tracepoint"), FakeProgram()
    followed = rings(monkeypatch, er_submit_req=new, er_submit_sqe=old, er_uring=completed)
    assert followed.follow(True) == []
    assert (old.attached, new.attached, completed.attached, new.refused) == (True, False, True, "")
    assert followed.follow(False) == []
    assert not (old.attached or completed.attached)


def test_a_kernel_with_neither_is_told_and_completions_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    completed = FakeProgram()
    followed = rings(
        monkeypatch, er_submit_req=FakeProgram("none"), er_submit_sqe=FakeProgram("none either"), er_uring=completed
    )
    assert followed.follow(True) == ["none either"]
    assert completed.attached


def test_without_the_object_of_submissions_completions_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    completed = FakeProgram()
    assert rings(monkeypatch, er_uring=completed).follow(True) == []
    assert completed.attached
