"""What `policy check` imports: most of its time is that, so whatever it can do without stays out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from execray.config import PolicydConfig
from execray.ctl.policyfiles import BUDGET_BYTES

GOOD = 'path "p" { open { path = "/etc/shadow" } }\n'
PATTERN = 'path "p" { open { path =~ "^/etc/shadow$" } }\n'
#: What other commands need, and checking a policy doesn't.
UNWANTED = {
    *(
        "asyncio",
        "concurrent",
        "difflib",
        "logging",
        "msgpack",
        "multiprocessing",
        "pwd",
        "ssl",
        "subprocess",
    ),
    *("tempfile", "unittest", "urllib.request", "uvloop", "xml", "yaml", "zstandard"),
    *("execray.config", "execray.control_client", "execray.eventfile", "execray.wire", "hypothesis", "re2"),
    *(
        "policyd.engine",
        "policyd.workbench",
        "policyd.compiler.codes",
        "policyd.compiler.format",
        "policyd.compiler.graph",
    ),
}
#: With those of the standard library. More of them is a decision, to be taken with an eye on tests/bench/bench_compile.py.
MOST_MODULES = 240


def imported(file: Path, text: str) -> set[str]:
    file.write_text(text)
    code = (
        "import sys\n"
        f"sys.argv = ['execray-ctl', 'policy', 'check', {str(file)!r}]\n"
        "from execray.ctl.main import main\n"
        "main(standalone_mode=False)\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, env=os.environ, check=True
    )
    assert "ok: 1 policy" in done.stdout
    return set(done.stderr.split())


def test_checking_a_policy_imports_little(tmp_path: Path) -> None:
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    found = imported(tmp_path / "a.policy", GOOD) - set(bare.stdout.split())
    assert {name for name in found if any(name == no or name.startswith(f"{no}.") for no in UNWANTED)} == set()
    assert len(found) <= MOST_MODULES


def test_re2_is_loaded_for_patterns_only(tmp_path: Path) -> None:
    assert "re2" in imported(tmp_path / "a.policy", PATTERN)


def test_the_budget_without_a_configuration_is_the_configurations_default() -> None:
    assert PolicydConfig().state_budget_mib << 20 == BUDGET_BYTES
