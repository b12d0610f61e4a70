"""Two threads that complete a policy in the same moment: one kill is paid for, and each record says whose."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

from execray.schema.catalog import Flag
from execray.schema.field import KILLER_SHIFT
from execray.schema.layout import ER_INLINE_HOST, INLINE_CLAIM_KEY
from tests.support.built import build
from tests.support.inline_kills import LIMITS, TAG, Killing, opens, plan_of, rule, text
from tests.support.live import Live
from tests.support.pace import patient

#: A token for each is there.
ROUNDS: Final = 60
TOGETHER: Final = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
static int waiting;
static const char *name;
static void *last(void *number)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((long)number, &one);
    sched_setaffinity(0, sizeof(one), &one); /* where there is no such processor it may be anywhere */
    __atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
    for (long i = 0; __atomic_load_n(&waiting, __ATOMIC_SEQ_CST) < 2; i++) if (i % 100000 == 99999) sched_yield();
    open(name, O_RDONLY);
    return 0;
}
int main(int argc, char **argv)
{
    struct sched_param real_time = {1};
    pthread_t other;
    name = argv[1];
    sched_setscheduler(0, SCHED_FIFO, &real_time); /* where that is refused they are together less often */
    if (pthread_create(&other, 0, last, (void *)1)) return 2;
    last(0);
    pthread_join(other, 0);
    return 0;
}
"""


class Race:
    """A program of two threads that make the last call together, again and again, and what is left of the budget."""

    def __init__(self, live: Live, folder: Path) -> None:
        self.arena = Killing(live, folder)
        self.arena.decoy.write_text("x")
        self.arena.load(plan_of(rule("open", text(self.arena.decoy))))
        self._program = build(TOGETHER, folder / "together")
        self._path = os.fsencode(self.arena.decoy)

    def left(self, slot: int) -> int:
        """How many kills of a policy are left, or of all."""
        tokens = self.arena.live.sensor.inline.maps["er_inline_tokens"]
        return sum(tokens.lookup(struct.pack("<I", slot << 16 | number)) is not None for number in range(64))

    def ends(self) -> None:
        """Runs it to its end."""
        done = subprocess.run([self._program, self.arena.decoy], check=False, timeout=patient(20))
        assert done.returncode == -signal.SIGKILL

    def run(self) -> list[int]:
        """Runs it to its end; returns the flags of its last calls."""
        run = self.arena.live.run([self._program, self.arena.decoy])
        assert run.status == -signal.SIGKILL, run.stderr
        return [int(event.flags) for event in run.of("open", path=self._path)]


def test_of_threads_that_complete_a_policy_together_one_is_paid_for(tmp_path: Path) -> None:
    marked, by = int(Flag.KILLED), TAG << KILLER_SHIFT
    calls: Counter[int] = Counter()
    with Live([], kills=LIMITS) as live:
        race = Race(live, tmp_path)
        for number in range(1, ROUNDS + 1):
            found = race.run()
            assert (race.left(0), race.left(ER_INLINE_HOST)) == (64 - number, 64 - number)
            assert set(found) - {0} == {marked | by}
            calls[len(found)] += 1
        assert race.arena.count("killed") == ROUNDS
    assert calls.keys() <= {1, 2}
    assert calls[2] or (os.cpu_count() or 1) < 2, calls


def test_a_process_that_another_thread_has_claimed_is_left_to_it(tmp_path: Path) -> None:
    """Until it is decided whether that one has a kill left, and after that only by the policy that has paid."""
    with Live([], kills=LIMITS) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        arena.load(plan_of(rule("open", text(arena.decoy))))
        claims = live.sensor.inline.maps["er_inline_claims"]
        for payer in (0, TAG + 1, TAG):
            live.drain()
            with arena.held() as held:
                process = live.await_exec(held.pid)
                claims.update(INLINE_CLAIM_KEY.pack(process.start_ns, process.pid), struct.pack("<I", payer))
                assert held.ends() == (-signal.SIGKILL if payer == TAG else 0)
            for path in (held.go, arena.dir / "ready"):
                (path.rmdir if path.is_dir() else path.unlink)()
        assert (arena.count("killed"), arena.count("budget")) == (0, 0)


def test_a_process_for_which_no_kill_was_left_can_be_killed_later(tmp_path: Path) -> None:
    with Live([], kills=LIMITS) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        arena.load(plan_of(rule("open", text(arena.decoy))))
        tokens = live.sensor.inline.maps["er_inline_tokens"]
        for number in range(64):
            tokens.delete(struct.pack("<I", number))
        with arena.held(opens(arena.decoy)) as held:
            assert arena.count("budget") == 1
            tokens.update(bytes(4), bytes(4))
            assert held.ends() == -signal.SIGKILL
