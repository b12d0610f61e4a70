"""Mistakes that the gate's core and hooks could well have, each planted into the C: the comparison with the twin must see it.

The twin's own, and the compiler's, are in tests/properties/test_gate.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from execray.gate.hashes import comm_key, exact_key
from execray.gate.memory import Memory
from execray.gate.plan import ALL_BITS, ROW_ALL, ROW_NONE, CodeTest, GatePlan
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import ER_GATE_OWN
from tests.kernel.test_inline_threads import ROUNDS, Race
from tests.support.gates import KernelGate, random_facts, random_plan
from tests.support.inline_kills import LIMITS
from tests.support.live import Live
from tests.support.native_gate import CELLS, ROOT, ask, build, objects, planted, question
from tracerd.gate_table import table_of
from tracerd.objects import OBJECT_DIR

CORE = ("include/execray/gate_core.h", "include/execray/gate_begun.h", "include/execray/gate_raise.h")
#: Plans, of a thousand questions each, after which a mistake must have been seen.
PATIENCE = 200
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param(
            "default: return code->all;", "default: return code->path_missing;", id="truncation read as a miss"
        ),
        pytest.param("work->full++;", "{ work->full++; return 0; }", id="a full map ignored"),
        pytest.param("if (*until < end)\n", "if (!*until)\n", id="a store that is lost to an earlier one"),
        pytest.param(
            "!!(value & number->bound[i])", "!(value & number->bound[i])", id="a test of bits taken for its opposite"
        ),
        pytest.param(
            "er_gate_try(plan, er_gate_mix(chain, ER_GATE_BELOW));\n",
            "if (i) er_gate_try(plan, er_gate_mix(chain, ER_GATE_BELOW));\n",
            id="below the root forgotten",
        ),
        pytest.param("bits |= work->hit[word];", "bits = work->hit[word];", id="a key that hides what asks for none"),
        pytest.param(
            "if (er_gate_awaits(word * 64 + er_gate_lowest(bits)))\n",
            "if (er_gate_awaits(word * 64 + er_gate_lowest(bits)) && (work->half = 0, 0)) {}\n"
            "\t\tif (work->half == 0 && (work->half = 1,"
            " ((struct er_gate *)plan)->until_ns[plan->slot[word * 64 + er_gate_lowest(bits)]] = 0, 1))\n",
            id="what was met is no longer awaited",
        ),
        pytest.param(
            "if (!code->begins && work->urgent) /* or all that begins must be noted */\n\t\t\t\tbreak;",
            "break;",
            id="only the first step that is met begins",
        ),
        pytest.param("until >= er_gate_now(work)", "until > er_gate_now(work)", id="a window's last moment cut off"),
        pytest.param("(__s64)number->bound[i] > (__s64)value", "number->bound[i] > value", id="numbers without a sign"),
        pytest.param("if (work->named)\n", "if (0)\n", id="a file by another of its names"),
        pytest.param("er_gate_awaits(word", "i == 0 && er_gate_awaits(word", id="only the first bit asked"),
    ],
)
def test_a_mistake_in_the_core_is_seen(tmp_path: Path, right: str, wrong: str) -> None:
    file = next((file for file in CORE if right in (ROOT / "bpf" / file).read_text(encoding="utf-8")), CORE[0])
    native = build(tmp_path, planted(tmp_path, file, right, wrong))
    random = Random("planted")
    assert any(drops_what_the_twin_sends(native, tmp_path, random) for _ in range(PATIENCE))


def drops_what_the_twin_sends(native: Path, folder: Path, random: Random) -> bool:
    plan = random_plan(random)
    asked = [(random_facts(random), random.randrange(1, 24), at // 4 + 1) for at in range(1000)]
    found = ask(native, folder, table_of(plan, 1, 0), [question(plan, *one) for one in asked])
    memory = Memory(plan, 0, CELLS)
    return any(memory.passes(*one) and answer == "0" for one, answer in zip(asked, found, strict=True))


# --- what only the kernel can tell ------------------------------------------------------------------------------------


@as_root
def test_a_plan_of_before_is_seen(tmp_path: Path) -> None:
    maps = "include/execray/gate_threads.h"
    random = Random("stale")
    with KernelGate(CELLS, objects(tmp_path, "gate", maps, "index = half - 1;", "index = 0 * half;")) as kernel:
        assert any(_is_stale(kernel, random_plan(random), random) for _ in range(20))


def _is_stale(kernel: KernelGate, plan: GatePlan, random: Random) -> bool:
    kernel.load(plan, since_ns=5)
    memory = Memory(plan, 5, CELLS)
    asked = [(random_facts(random), 1, 5 + at // 4) for at in range(200)]
    return any(memory.passes(*one) and not kernel.ask(*one) for one in asked)


#: Who begins and who goes on: what a process does, between which it is said that something has begun.
BEGIN = "syscall(157, 15, buf(b'planted'), 0, 0, 0), open(sys.argv[1]).close()"
THREAD = "thread = threading.Thread(target=lambda: ({})); thread.start(); thread.join()"
GO_ON = "os.kill(os.getpid(), 0)"
#: The thread is gone for the kernel a moment after it is for Python.
ALONE = "while len(os.listdir('/proc/self/task')) > 1: time.sleep(0.01)"
BEHIND_A_THREAD = (THREAD.format(BEGIN), ALONE, GO_ON)
BY_ITSELF = (BEGIN, GO_ON)
IN_A_THREAD = (BEGIN, THREAD.format(GO_ON))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "begin"
    found.write_text("x")
    yield found


def passes(
    out: Path,
    file: Path,
    does: tuple[str, ...] = BEHIND_A_THREAD,
    slot: int = 1,
    *,
    settled: bool = True,
    missed: bool = False,
) -> bool:
    """Whether a step passes that waits for another one.

    slot: where it is kept that that was made. settled: whether it is known that it was not before the plan came.
    missed: whether it is known that the kernel has skipped the hook of new threads.
    """
    opened, kill = (EVENT_BY_NAME[name].code for name in ("open", "kill"))
    codes = (CodeTest(opened, 0, 1, 2, 0, 0, 0, ROW_NONE), CodeTest(kill, 1, 2, 3, 3, 3, 3, ROW_ALL))
    keys = {exact_key(os.fsencode(file)): 2, comm_key(b"planted"): 2}
    rows = (0, ALL_BITS, 1, 1 << 64)
    plan = GatePlan(codes, frozenset(), rows, keys, first=2, slots={0: slot, 64: slot}, windows={slot: 60_000_000_000})
    with Live([], objects=out) as live:
        assert not live.sensor.want([opened, kill], False, plan=plan)
        assert not settled or live.sensor.gate.settle(live.sensor.gate.generation, {})
        live.sensor.sweep()  # what ends later has not ended
        if missed:
            live.sensor.gate.miss_threads()
        run = live.python("\n".join(does), file)
    return bool(run.of("kill"))


@as_root
@pytest.mark.parametrize("does", [BEHIND_A_THREAD, BY_ITSELF, IN_A_THREAD], ids=["behind", "by itself", "in a thread"])
def test_a_step_waits_for_what_any_thread_of_its_process_has_begun(file: Path, does: tuple[str, ...]) -> None:
    assert passes(OBJECT_DIR, file, does)
    assert not passes(OBJECT_DIR, file, (GO_ON, THREAD.format(GO_ON)))


@as_root
def test_a_cell_of_the_thread_in_place_of_the_process_is_seen(tmp_path: Path, file: Path) -> None:
    """So that an exec by another thread than the first, which becomes the first, would have left it behind as well."""
    right, wrong = "work->tgid = call->tgid;", "work->tgid = (__u32)bpf_get_current_pid_tgid();"
    assert not passes(objects(tmp_path, "sys", "include/execray/gate.h", right, wrong), file)


@as_root
@pytest.mark.parametrize(
    ("slot", "settled"), [(ER_GATE_OWN - 1, True), (ER_GATE_OWN + 1, True), (ER_GATE_OWN + 1, False)]
)
def test_a_step_passes_wherever_it_is_kept_that_it_is_awaited(file: Path, slot: int, settled: bool) -> None:
    assert passes(OBJECT_DIR, file, BEHIND_A_THREAD if settled else (GO_ON,), slot, settled=settled)


#: What the quick looks at the beginning of the hook ask, and what is kept for them: object, file, a place in it, what
#: stands there instead, and a case in which that is seen.
QUICK = {
    "the host": (
        "sys",
        "include/execray/gate_rest.h",
        "until >= lapsed_ns || settled",
        "settled",
        BEHIND_A_THREAD,
        ER_GATE_OWN + 1,
    ),
    "before the plan": (
        "sys",
        "include/execray/gate_rest.h",
        "lapsed_ns || settled >= lapsed_ns",
        "lapsed_ns",
        (GO_ON,),
        ER_GATE_OWN + 1,
    ),
    "other threads": ("sys", "include/execray/gate_rest.h", " || plan->crowd_ns >= lapsed_ns", "", BEHIND_A_THREAD, 1),
    "the thread": (
        "sys",
        "include/execray/gate_rest.h",
        "plan->threads_ns[er_gate_thread(stack)] >= lapsed_ns || ",
        "",
        BY_ITSELF,
        1,
    ),
    "the process": (
        "sys",
        "include/execray/gate_rest.h",
        "if (plan->celled_ns",
        "if (0 && plan->celled_ns",
        BY_ITSELF,
        1,
    ),
    "a slot of some process": (
        "sys",
        "include/execray/gate_begun.h",
        "er_gate_raise(&plan->cells_ns[slot & (ER_GATE_OWN - 1)], end);",
        "",
        BY_ITSELF,
        1,
    ),
    "a new thread": ("proc", "proc.bpf.c", "er_gate_inherit(child);", ";", IN_A_THREAD, 1),
    "whose stack it is": (
        "sys",
        "include/execray/gate_threads.h",
        "(__u64)BPF_CORE_READ(task, stack)",
        "(__u64)task",
        BY_ITSELF,
        1,
    ),
}


@as_root
@pytest.mark.parametrize(("name", "source", "right", "wrong", "does", "slot"), QUICK.values(), ids=QUICK)
def test_a_quick_look_that_forgets_something_is_seen(
    tmp_path: Path, file: Path, name: str, source: str, right: str, wrong: str, does: tuple[str, ...], slot: int
) -> None:
    out = objects(tmp_path, name, source, right, wrong)
    assert not passes(out, file, does, slot, settled=does != (GO_ON,))


@as_root
def test_a_new_thread_that_no_program_has_seen_is_asked_who_it_is(tmp_path: Path, file: Path) -> None:
    out = objects(tmp_path, "proc", "proc.bpf.c", "er_gate_inherit(child);", ";")
    assert passes(out, file, IN_A_THREAD, missed=True)


@as_root
def test_a_cell_that_goes_with_any_thread_is_seen(tmp_path: Path, file: Path) -> None:
    right = "er_forget_creds(ER_READ(true, task, pid));"
    assert not passes(objects(tmp_path, "proc", "proc.bpf.c", right, f"{right}\n\ter_gate_forget(pid);"), file)


@as_root
def test_a_kill_that_two_threads_pay_for_is_seen(tmp_path: Path) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one processor: no two threads are in the hook at once")
    out = objects(tmp_path, "sys", "include/execray/inline_victims.h", "BPF_NOEXIST", "BPF_ANY")
    assert any(is_paid_twice(out, tmp_path) for _ in range(5))


def is_paid_twice(out: Path, folder: Path) -> bool:
    with Live([], kills=LIMITS, objects=out) as live:
        race = Race(live, folder)
        for number in range(1, ROUNDS):
            race.ends()
            if race.left(0) < 64 - number:
                return True
    return False
