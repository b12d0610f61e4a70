"""Runs vector files: each by itself, so that several can run at once."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from execray.errors import OperatorError
from policyd.compiler import compile_set
from policyd.compiler.render import render
from policyd.engine.outputs import Output, SensorLoss
from policyd.program import CompiledPolicy
from policyd.workbench.coverage import Reached, observed
from policyd.workbench.replay import Replay
from policyd.workbench.vectors import Case, read_vectors, unmet


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one test. problems: why it failed, empty where it passed."""

    name: str
    problems: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class FileResult:
    """What became of one vector file. error: why it could not be run at all."""

    path: Path
    cases: list[CaseResult] = field(default_factory=list)
    reached: list[Reached] = field(default_factory=list)
    error: str = ""
    hint: str = ""

    @property
    def failed(self) -> int:
        """How many tests failed; a file that could not be run counts as one."""
        return sum(1 for case in self.cases if case.problems) + bool(self.error)


def run_file(path: Path) -> FileResult:
    """Runs one vector file. Never raises for anything in it, or in what it names."""
    result = FileResult(path)
    try:
        vectors = read_vectors(path)
        policies = _compiled(vectors.policies)
    except OperatorError as error:
        result.error, result.hint = error.message, error.hint
        return result
    reached = {policy.name: Reached(policy) for policy in policies}
    watched = [observed(policy) for policy in policies]

    def observe(output: Output) -> None:
        if not isinstance(output, SensorLoss):
            reached[output.policy.name].add(output)

    result.cases = [_run_case(case, watched, observe) for case in vectors.cases]
    result.reached = list(reached.values())
    return result


def _compiled(files: Sequence[Path]) -> tuple[CompiledPolicy, ...]:
    try:
        today = datetime.datetime.now(datetime.UTC).date()
        compiled = compile_set([(str(file), file.read_bytes()) for file in files], today=today)
    except OSError as error:
        raise OperatorError(
            f"can't read {error.filename}: {error.strerror}", "`policies` names files beside it"
        ) from error
    if not compiled.ok:
        raise OperatorError(render(compiled.diagnostics, compiled.sources, color=False).rstrip())
    return compiled.policies


def _run_case(case: Case, policies: Sequence[CompiledPolicy], observe: Callable[[Output], None]) -> CaseResult:
    began = time.perf_counter()
    found = list(Replay(policies).run(case.batches, observe))
    problems = tuple(unmet(case.expected, found))
    return CaseResult(case.name, problems, time.perf_counter() - began, case.notes)


def junit(results: Sequence[FileResult]) -> str:
    """Returns the results as JUnit XML, one suite a file."""
    root = ElementTree.Element("testsuites")
    for result in results:
        cases = result.cases or [CaseResult("the file", (result.error,), 0.0)]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=str(result.path),
            tests=str(len(cases)),
            failures=str(result.failed),
            time=f"{sum(case.seconds for case in cases):.6f}",
        )
        for case in cases:
            element = ElementTree.SubElement(
                suite, "testcase", classname=str(result.path), name=_xml(case.name), time=f"{case.seconds:.6f}"
            )
            if case.problems:
                failure = ElementTree.SubElement(element, "failure", message=_xml(case.problems[0]))
                failure.text = _xml("\n".join(case.problems))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    # XML 1.0 has no way to write control characters.
    return "".join(char if char in "\n\t" or char.isprintable() else "\ufffd" for char in text)
