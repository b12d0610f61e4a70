"""When Python's garbage collector may look at a daemon's memory: never while something waits."""

from __future__ import annotations

import gc
import resource
from pathlib import Path
from typing import Final

#: Allocations more than frees before the youngest are looked at, such rounds before the next older, and those before all.
_THRESHOLDS: Final = (2_000, 20, 500)
#: What so many events in a second leave behind is looked at in a millisecond.
_FEW: Final = 1_000
#: Seconds between looks at all there is, where nothing happens; and where something always does.
_WHOLE_S: Final = 3_600
_WHOLE_AT_LAST_S: Final = 24 * 3_600
#: Growth after which all is looked at in any case.
_GROWTH_BYTES: Final = 64 << 20
_STATM: Final = Path("/proc/self/statm")


def settle_memory() -> None:
    """Takes all that a daemon has loaded out of the garbage collector's sight, once it has started.

    What stays for the daemon's life need not be looked at again and again: a full collection over it takes milliseconds, which
    a kill would have to wait for. The collector is needed for cycles only, of which a daemon makes few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


class Collector:
    """Runs the collector of a daemon that keeps much which changes all the time, in the moments that are good for it.

    By itself Python looks at everything young after each so many allocations. Where 20,000 sequences are under way that is tens
    of thousands of objects, none of which is garbage, again and again: an eighth of the processor's time, and pauses of 15 to
    30 ms. Reference counts free all that the engine lets go of; cycles come from connections and errors only. So what is young
    is looked at once a second if it is little, and what was found alive is not looked at again but once an hour, or when the
    process has grown by 64 MiB: whoever connects over and over while much comes, makes it do so.
    """

    def __init__(self) -> None:
        self._seconds = 0  # since all was looked at
        self._bytes = 0  # that the process had in memory then

    def start(self) -> None:
        """Takes over, once a daemon has loaded what it needs: from now on only `look` collects, until `stop`."""
        settle_memory()
        gc.disable()
        self._bytes = _resident_bytes()

    def look(self, events: int) -> int:
        """To be called once a second. events: how many came in the last one. Returns how many objects were freed."""
        # Not Python's own count of what is young: that takes off what was freed of the old.
        self._seconds += 1
        freed = 0
        resident = _resident_bytes()
        due = self._seconds >= (_WHOLE_AT_LAST_S if events else _WHOLE_S)
        if due or resident - self._bytes >= _GROWTH_BYTES:
            gc.unfreeze()
            freed = gc.collect()
            self._seconds, self._bytes = 0, resident
        elif events < _FEW:
            freed = gc.collect(0)
        # It only hangs one list on another, however long they are.
        gc.freeze()
        return freed

    def stop(self) -> None:
        """Lets Python collect by itself again."""
        gc.enable()


def _resident_bytes() -> int:
    return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
