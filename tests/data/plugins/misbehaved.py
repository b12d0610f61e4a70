"""A plug-in that does whatever its settings say, both as a sink and as an action. Loaded by tests, in processes of its own.

Settings: `record`, a file that gets the id of each item as it begins; `how`, one of HOW; `times`, how often to do that (as
counted by the lines of the record), before it is good; `at`, where: import, make, item or close.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

EXECRAY_API = 1


def hang():
    time.sleep(3600)


def fail():
    raise ValueError("no\nthank\x1b[2Jyou")


def eat_memory():
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


def fork_without_end():
    while True:
        os.fork()


def make_threads_without_end():
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def print_without_end():
    while True:
        print("x" * 1000)


def channel():
    """The socket to policyd, which a plug-in has no business with."""
    for fd in range(3, 20):
        try:
            return socket.socket(fileno=os.dup(fd))
        except OSError:
            continue


def talk(line):
    channel().sendall(line)
    hang()


def signal_policyd():
    os.kill(os.getppid(), signal.SIGKILL)


def leave_a_thread():
    threading.Thread(target=time.sleep, args=(60,)).start()


HOW = {
    "good": lambda: None,
    "raises": fail,
    "hangs": hang,
    "is slow": lambda: time.sleep(0.1),
    "segfaults": lambda: ctypes.string_at(0),
    "exits": lambda: os._exit(3),
    "raises SystemExit": lambda: sys.exit(4),
    "eats memory": eat_memory,
    "forks": fork_without_end,
    "makes threads": make_threads_without_end,
    "floods stdout": print_without_end,
    "stops itself": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "talks nonsense": lambda: talk(b"}{\n"),
    "talks without end": lambda: talk(b"x" * 10_000),
    "answers what it wasn't asked": lambda: talk(b'{"n": 77}\n'),
    "closes its side": lambda: channel().shutdown(socket.SHUT_RDWR),
    "closes its output": lambda: (os.close(1), os.close(2)),
    "kills policyd": signal_policyd,
    "leaves a thread": leave_a_thread,
}


class Plugin:
    def __init__(self, settings):
        self.settings = settings
        self.record = Path(settings["record"])
        self.misbehave("make")

    def misbehave(self, place):
        done = self.record.read_text().count("\n") if self.record.exists() else 0
        if place == self.settings.get("at", "item") and done <= self.settings.get("times", 1_000_000):
            HOW[self.settings.get("how", "good")]()

    def take(self, number):
        with self.record.open("a") as file:
            file.write(f"{number}\n")
        self.misbehave("item")

    def write(self, alert):
        self.take(alert["execray"]["alert_id"])

    def act(self, request):
        self.take(request.alert_id)

    def close(self):
        self.misbehave("close")
        with self.record.open("a") as file:
            file.write("closed\n")


make = Plugin
