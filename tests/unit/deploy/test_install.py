"""`make install` and `make uninstall` into a folder of the test's own; tests/system installs into a machine and runs it there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.install.places import CTL, DAEMONS, Places
from execray.version import VERSION

TREE = Path(__file__).parents[3]
#: The tests' own Python may be one that only its owner can run; this one belongs to everybody.
PYTHON = "/usr/bin/python3"
INSTALL_TIMEOUT_S = 600

pytestmark = pytest.mark.timeout(INSTALL_TIMEOUT_S)


def make(target: str, destdir: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    command = [
        "make",
        "-s",
        "-C",
        str(TREE),
        target,
        f"DESTDIR={destdir}",
        f"PYTHON={PYTHON}",
        "COMPILED=no",
        *variables,
    ]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S, env=environment
    )


def entries(root: Path) -> set[str]:
    """Everything below a folder, with what it is."""
    kinds = {stat.S_IFDIR: "/", stat.S_IFLNK: "@", stat.S_IFREG: ""}
    return {f"{path.relative_to(root)}{kinds[stat.S_IFMT(path.lstat().st_mode)]}" for path in root.rglob("*")}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installation, with files of somebody else beside it."""
    destdir = tmp_path_factory.mktemp("staged")
    (destdir / "usr" / "local" / "bin").mkdir(parents=True)
    (destdir / "usr" / "local" / "bin" / "other").write_text("not ours")
    done = make("install", destdir)
    assert done.returncode == 0, done.stderr
    assert "systemctl enable --now execray-tracerd.service" in done.stdout
    assert (
        "nothing is compiled (COMPILED=no)" in done.stdout
    )  # tests/compiled, and the machine of tests/system, have it
    yield destdir
    shutil.rmtree(destdir)


def inside(staged: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command where the installation is /usr/local, for this command alone."""
    script = f'mount --bind "{staged}/usr/local" /usr/local && exec "$@"'
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", script, "sh"]
    return subprocess.run(
        [*alone, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", **environment},
    )


def test_everything_is_where_systems_look_for_it(staged: Path) -> None:
    found = entries(staged)
    units = {f"usr/local/lib/systemd/system/execray-{name}.service" for name in DAEMONS}
    assert found >= units | {
        "usr/local/lib/systemd/system/execray.slice",
        "usr/local/lib/sysusers.d/execray.conf",
        "usr/local/lib/tmpfiles.d/execray.conf",
        "usr/local/bin/execray-ctl@",
        "usr/local/share/man/man1/execray-ctl.1",
        "usr/local/share/man/man8/execray-tracerd.8",
        "usr/local/share/bash-completion/completions/execray-ctl",
        "usr/local/share/zsh/site-functions/_execray-ctl",
        "usr/local/share/fish/vendor_completions.d/execray-ctl.fish",
        "etc/execray/execray.yaml",
        "etc/execray/execray.d/",
        "etc/execray/policies/credential_access.policy",
    }
    assert found >= {f"usr/local/sbin/execray-{name}@" for name in DAEMONS}


def test_no_file_knows_where_it_was_built_or_staged(staged: Path) -> None:
    names = [os.fsencode(staged), os.fsencode(TREE), b"/execray-build-"]
    for path in staged.rglob("*"):
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            assert not [name for name in names if name in text], path
        elif path.is_symlink():
            assert str(staged) not in os.readlink(path)


def test_everybody_can_read_it_and_nobody_else_write_to_it(staged: Path) -> None:
    for path in staged.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            assert mode & 0o022 == 0 and mode & 0o004, path
            assert path.is_file() or mode & 0o001, path


def test_the_programs_run_from_their_final_place(staged: Path) -> None:
    done = inside(staged, CTL, "version")
    assert (done.returncode, done.stdout.strip()) == (0, f"{CTL} {VERSION}"), done.stderr
    for name in DAEMONS:
        done = inside(staged, f"/usr/local/sbin/execray-{name}", "--version")
        assert VERSION in done.stdout, done.stderr
    done = inside(
        staged,
        "/usr/local/lib/execray/bin/python3",
        "-I",
        "-c",
        "import tracerd.daemon, policyd.daemon, enforcer.daemon",
    )
    assert done.returncode == 0, done.stderr


def test_the_caller_can_put_no_code_into_them(staged: Path, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('planted')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('planted')")
    done = inside(staged, "sh", "-c", f"cd {tmp_path} && {CTL} version", PYTHONPATH=str(tmp_path))
    assert done.stdout.strip() == f"{CTL} {VERSION}"


def test_the_command_line_answers_at_once(staged: Path) -> None:
    # processor time, not the clock: other tests may be running
    script = "import os,sys,subprocess\nfor _ in range(10):\n" + (
        " before = os.times(); subprocess.run(['execray-ctl', 'version'], capture_output=True); after = os.times()\n"
        " print(after.children_user + after.children_system - before.children_user - before.children_system)\n"
    )
    taken = sorted(map(float, inside(staged, PYTHON, "-c", script).stdout.split()))
    assert len(taken) == 10 and taken[5] < 0.15, taken


def test_what_cannot_be_installed_over_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "usr" / "local" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "local" / "bin" / CTL).write_text("somebody else's")
    before = entries(tmp_path)
    done = make("install", tmp_path)
    assert done.returncode != 0
    assert "is there already, and not ours" in done.stderr and "hint:" in done.stderr
    assert entries(tmp_path) == before


@pytest.mark.parametrize("prefix", ["relative", "/", "/opt/with blank", "/opt/100%", "/opt/../etc"])
def test_a_prefix_that_cannot_be_one_is_refused(tmp_path: Path, prefix: str) -> None:
    done = make("install", tmp_path, f"PREFIX={prefix}")
    assert done.returncode != 0 and "PREFIX" in done.stderr
    assert not entries(tmp_path)


def test_a_python_that_the_daemons_could_not_run_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy(Path(PYTHON).resolve(), closed / "python3")
    done = subprocess.run(
        [closed / "python3", "-m", "deploy.install", "install", "--destdir", tmp_path / "staged"],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONHOME": "/usr", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert "closed to them" in done.stderr and "hint: name another one: make install PYTHON=" in done.stderr
    assert not (tmp_path / "staged").exists()


def test_other_prefixes_put_units_where_systemd_finds_them() -> None:
    assert Places(Path("/usr")).units == Path("/usr/lib/systemd/system")
    assert Places(Path("/opt/execray")).units == Path("/etc/systemd/system")
    assert Places(Path("/opt/execray")).sysusers == Path("/etc/sysusers.d/execray.conf")


# --- the rest changes the installation, in the order of the file -------------------------------------------------------


def test_installing_again_keeps_the_operators_files_and_takes_away_old_ones(staged: Path) -> None:
    before = entries(staged)
    own = staged / "etc" / "execray" / "execray.yaml"
    own.write_text("mode: audit\n")
    policy = staged / "etc" / "execray" / "policies" / "dropper.policy"
    policy.write_text("// nothing of it is for me\n")
    removed = policy.with_name("discovery.policy")
    removed.unlink()
    former = staged / "usr" / "local" / "share" / "execray" / "policies" / "former.policy"
    former.write_text("// of the version before")
    manifest = staged / "usr" / "local" / "lib" / "execray" / "manifest"
    manifest.write_text(manifest.read_text() + "/usr/local/share/execray/policies/former.policy\n")
    done = make("install", staged)
    assert done.returncode == 0, done.stderr
    assert own.read_text() == "mode: audit\n" and "nothing of it" in policy.read_text()
    kept = [line for line in done.stdout.splitlines() if line.startswith("kept ")]
    assert len(kept) == 2 and all("/usr/local/share/execray/" in line for line in kept)
    assert entries(staged) == before - {str(removed.relative_to(staged))}
    removed.touch()
    assert inside(staged, CTL, "version").returncode == 0


def test_uninstalling_leaves_the_operators_files_only(staged: Path) -> None:
    state = staged / "var" / "lib" / "execray"
    state.mkdir(parents=True)
    (state / "alerts.jsonl").touch()
    unfinished = staged / "usr" / "local" / "lib" / "execray.new"  # an installation that was killed
    unfinished.mkdir()
    done = make("uninstall", staged)
    assert done.returncode == 0, done.stderr
    assert not unfinished.exists()
    left = {name for name in entries(staged) if not name.endswith("/")}
    policies = {f"etc/execray/policies/{path.name}" for path in (TREE / "policies").glob("*.policy")}
    assert left == {"usr/local/bin/other", "etc/execray/execray.yaml", "var/lib/execray/alerts.jsonl"} | policies
    assert make("uninstall", staged).returncode != 0  # there is nothing


def test_purging_leaves_nothing(staged: Path) -> None:
    shutil.rmtree(staged / "etc")
    assert make("install", staged).returncode == 0
    done = make("uninstall", staged, "PURGE=1")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(staged / "var")  # of the test
    assert entries(staged) == {"usr/", "usr/local/", "usr/local/bin/", "usr/local/bin/other"}
