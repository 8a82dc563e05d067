"""What an allocator alone in its process has in RAM, run by bench_memory.py and fragmentation.py.

python footprint.py NAME answers each line, {"what": a method of Footprint's, ...}, with bytes.
"""

import ctypes
import json
import sys
from collections.abc import Sequence

from compiled import shared_library
from loops import Heap
from peers import FINDERS, Missing

Bytes = ctypes.c_uint64


class Footprint:
    """The functions of drivers/memory.c, over one allocator."""

    def __init__(self, heap: Heap):
        self._heap = heap
        self._library = ctypes.CDLL(str(shared_library("memory.c", "-lm")))
        for name in ("resident", "churn_live"):
            self._library[name].restype = Bytes
        self._library.churn.argtypes = [ctypes.POINTER(Heap), *[ctypes.c_double] * 2, *[Bytes] * 2]
        self._own: int | None = None

    def threads(self, count: int, blocks: int, low: int, high: int) -> Sequence[Sequence[int]]:
        """Return resident and malloc's bytes: before, while so many threads hold blocks, after."""
        at = (Bytes * 6)()
        words = map(ctypes.c_size_t, (count, blocks, low, high))
        self._library.hold_and_end(ctypes.byref(self._heap), *words, at)
        return at[:2], at[2:4], at[4:]

    def churn(self, low: float, high: float, most: int, taken: int) -> tuple[int, int]:
        """Return what is live after so many bytes were taken, and what more is in RAM since."""
        if self._own is None:
            self._library.churn_start()
            self._own = self._library.resident()
        self._library.churn(self._heap, low, high, most, taken)
        return self._library.churn_live(), self._library.resident() - self._own


def main(name: str) -> None:
    peer = FINDERS[name]()
    if isinstance(peer, Missing):
        sys.exit(f"{name}: {peer.remedy}")
    footprint = Footprint(peer.heap)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(footprint, request.pop("what"))(**request)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
