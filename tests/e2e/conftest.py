"""End-to-end tests run the three daemons on the real kernel: root, as for the kernel tests."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0 and os.environ.get("EXECRAY_REQUIRE_KERNEL") != "1":
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def collector() -> Iterator[int]:
    """A listener on loopback that takes whatever comes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def serve() -> None:
            held: list[socket.socket] = []
            while not done.is_set():
                try:
                    held.append(server.accept()[0])
                except TimeoutError:
                    continue
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join()
