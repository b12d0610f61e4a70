"""tracerd.users: names of users as the host's list has them, and nothing else."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tracerd.users import FRESH_S, Users, users_of

PASSWD = b"""root:x:0:0:root:/root:/bin/bash
toor:x:0:0:second name:/root:/bin/sh
dev:x:1000:1000:caf\xe9:/home/dev:/bin/bash
+nis::::::
broken:x:12
:x:7:7::/:/bin/false
bad:x:-1:0::/:/bin/false
"""


def test_of_two_names_the_first_counts_and_what_is_no_user_is_left_out() -> None:
    assert users_of(PASSWD) == {0: b"root", 1000: b"dev"}


def test_names_are_those_that_the_system_gives() -> None:
    listed = Users()
    for user in pwd.getpwall():
        if user.pw_name in Path("/etc/passwd").read_text(errors="replace"):
            assert listed.name(user.pw_uid) == os.fsencode(pwd.getpwuid(user.pw_uid).pw_name)


def test_a_changed_list_is_seen_after_a_moment(tmp_path: Path) -> None:
    now_s = 100.0
    path = tmp_path / "passwd"
    path.write_bytes(PASSWD)
    users = Users(path, lambda: now_s)
    assert (users.name(1000), users.name(5), users.name(None)) == (b"dev", None, None)
    replacement = tmp_path / "new"
    replacement.write_bytes(PASSWD + b"new:x:5:5::/:/bin/sh\n")
    replacement.replace(path)
    assert users.name(5) is None
    now_s += FRESH_S
    assert (users.name(5), users.name(1000)) == (b"new", b"dev")


@pytest.mark.parametrize("gone", ["absent", "folder"])
def test_a_list_that_cannot_be_read_leaves_what_was_known(tmp_path: Path, gone: str) -> None:
    now_s = 100.0
    path = tmp_path / "passwd"
    path.write_bytes(PASSWD)
    users = Users(path, lambda: now_s)
    assert users.name(0) == b"root"
    path.unlink()
    if gone == "folder":
        path.mkdir()
    now_s += FRESH_S
    assert users.name(0) == b"root"


def test_a_uid_that_is_too_long_is_no_users_line() -> None:
    listed = b"a:x:%s:0::/:/bin/sh\nb:x:%s:0::/:/bin/sh\nc:x:4294967294:0::/:/bin/sh\n" % (b"9" * 5000, b"0" * 11)
    assert users_of(listed) == {4294967294: b"c"}
