"""Sockets, peers, folders, readiness and log lines."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from execray.errors import OperatorError
from execray.listener import send
from execray.service import (
    Peer,
    close_writer,
    in_group,
    listen_unix,
    notify,
    peer_of,
    prepare_dir,
    prepare_runtime,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing to another account needs root")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="er", dir="/run" if os.access("/run", os.W_OK) else None) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_peer_is_the_process_at_the_other_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert set(peer.groups) == set(os.getgroups())


@needs_root
def test_peer_groups_are_those_at_connect_time_even_when_it_is_gone(run_dir: Path) -> None:
    path = run_dir / "s"
    code = """
import os, socket, sys
os.setgroups([4321, 4322]); os.setgid(65534); os.setuid(65534)
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
"""
    with listen_unix(path) as server:
        path.chmod(0o666)
        subprocess.run([sys.executable, "-c", code, path], check=True, timeout=30)
        connection, _ = server.accept()
        with connection:
            peer = peer_of(connection)
    assert (peer.uid, peer.gid, sorted(peer.groups)) == (65534, 65534, [4321, 4322])
    assert in_group(peer, 4322) and in_group(peer, 65534)
    assert not in_group(peer, 0)


def test_in_group_looks_at_primary_and_supplementary_groups_only() -> None:
    peer = Peer(os.getpid(), 1000, 100, (27,))
    assert [in_group(peer, gid) for gid in (100, 27, 1000, 0)] == [True, True, False, False]


def test_listening_socket_has_mode_0660(run_dir: Path) -> None:
    with listen_unix(run_dir / "s"):
        assert stat.S_IMODE((run_dir / "s").stat().st_mode) == 0o660


def test_stale_socket_is_taken_over_and_a_live_one_is_not(run_dir: Path) -> None:
    with listen_unix(run_dir / "s"), pytest.raises(OperatorError, match="another instance listens"):
        listen_unix(run_dir / "s")
    assert (run_dir / "s").is_socket()
    listen_unix(run_dir / "s").close()


def test_file_that_is_no_socket_is_never_removed(run_dir: Path) -> None:
    (run_dir / "s").write_text("precious")
    with pytest.raises(OperatorError, match="can't listen"):
        listen_unix(run_dir / "s")
    assert (run_dir / "s").read_text() == "precious"


def test_long_socket_path_is_an_operator_error(run_dir: Path) -> None:
    with pytest.raises(OperatorError, match="too long"):
        listen_unix(run_dir / ("x" * 120))


def test_prepare_dir_sets_the_mode_of_our_own_folder(tmp_path: Path) -> None:
    prepare_dir(tmp_path / "a" / "b", 0o750)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750
    (tmp_path / "a" / "b").chmod(0o777)
    prepare_dir(tmp_path / "a" / "b", 0o750)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750


def test_prepare_dir_refuses_a_link_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="can't use"):
        prepare_dir(tmp_path / "link", 0o750)
    with pytest.raises(OperatorError):
        prepare_dir(tmp_path / "file", 0o750)


@needs_root
def test_prepare_dir_refuses_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(OperatorError, match="not a folder of ours"):
        prepare_dir(tmp_path / "theirs", 0o750)


@needs_root
def test_prepare_dir_hands_a_folder_to_the_user_that_root_becomes(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for _ in range(2):  # the second time it is that user's already
        prepare_dir(tmp_path / "state", 0o750, user=nobody)
        found = (tmp_path / "state").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (nobody.pw_uid, nobody.pw_gid, 0o750)
    prepare_dir(tmp_path / "run", 0o750, "daemon", nobody)
    assert (tmp_path / "run").stat().st_gid == grp.getgrnam("daemon").gr_gid


def test_folder_of_all_daemons_is_made_for_everybody_to_enter_and_its_parts_are_not(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        prepare_runtime(tmp_path / "run", tmp_path / "run" / "tracerd", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "run" / "tracerd").stat().st_mode) == 0o750


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_folder_of_all_daemons_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """They could have put a folder of their own where ours belongs."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.raises(OperatorError, match="written by others"):
        prepare_runtime(tmp_path / "run", tmp_path / "run" / "tracerd", "")


@needs_root
def test_as_its_own_account_a_daemon_uses_what_the_service_manager_made(run_dir: Path) -> None:
    """RuntimeDirectory= makes the folder; its parent is root's, and stays untouched."""
    folder = run_dir / "policyd"
    folder.mkdir()
    folder.chmod(0o750)
    os.chown(folder, 65534, 65534)
    code = """
import os, sys
from pathlib import Path
from execray.service import listen_unix, prepare_runtime
os.setgroups([]); os.setgid(65534); os.setuid(65534)
folder = Path(sys.argv[1])
prepare_runtime(folder.parent, folder, sys.argv[2])
listen_unix(folder / "ctl.sock", sys.argv[2])
"""
    group = grp.getgrgid(65534).gr_name
    subprocess.run([sys.executable, "-c", code, folder, group], check=True, timeout=30)
    found = (folder / "ctl.sock").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65534, 0o660)
    assert run_dir.stat().st_uid == 0


def test_notify_sends_to_the_socket_that_systemd_names(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(os.fspath(run_dir / "n"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(run_dir / "n"))
        notify("READY=1")
        assert systemd.recv(64) == b"READY=1"
    notify("STOPPING=1")  # nobody reads it: logged, not raised


def test_notify_does_nothing_outside_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_peer_that_went_away_is_an_error_of_the_connection_on_uvloop_too(run_dir: Path) -> None:
    # uvloop says RuntimeError there, which ended policyd when somebody stopped following a flood of events.
    async def talk() -> None:
        served: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                writer.transport.abort()
                await asyncio.sleep(0.05)  # until uvloop has closed it, too
                await send(writer, b"x\n")
                served.set_result(None)
            except (OSError, RuntimeError) as error:
                served.set_result(error)

        path = run_dir / "s"
        server = await asyncio.start_unix_server(serve, path)
        _, writer = await asyncio.open_unix_connection(path)
        found = await asyncio.wait_for(served, 10)
        await close_writer(writer)
        server.close()
        assert isinstance(found, ConnectionResetError), found

    uvloop.run(talk())
