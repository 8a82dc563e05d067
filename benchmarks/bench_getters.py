"""Row 8: the getters, against a function that makes an int of the same length."""

import sys
import threading

from compiled import cython_module
from session import Session
from timing import statement

import memlimits

TITLE = "getters, from Python"
GETTERS = [
    "get_active_memory",
    "get_cache_memory",
    "get_peak_memory",
    "get_wired_memory",
    "get_memory_limit",
    "get_cache_limit",
    "get_wired_limit",
]
HEAPS = [1, 8]
FACTOR, NS_A_HEAP = 1.3, 10.0  # what is allowed over the constant
GIB = 1 << 30


def run(session: Session) -> None:
    sys.path.append(str(cython_module("floor")))
    from floor import constant

    # Numbers above 2**30, that an int has to be made for.
    blocks = [memlimits.allocate(GIB + 1) for _ in range(2)]
    del blocks[0]
    for heaps in HEAPS:
        stop = threading.Event()
        threads = [_thread_with_a_heap(stop) for _ in range(heaps - 1)]
        sides = {"constant": statement("constant()", {"constant": constant})}
        for getter in GETTERS:
            sides[getter] = statement("get()", {"get": getattr(memlimits, getter)})
        label = f"{heaps} heap{'s' * (heaps > 1)}"
        found = session.compare(label, sides, base="constant")
        allowed = FACTOR * found.median("constant") + NS_A_HEAP * heaps
        for getter in GETTERS:
            session.judge("getters", f"{getter}, {label}", found.median(getter) / allowed)
        stop.set()
        for thread in threads:
            thread.join()
    del blocks
    memlimits.clear_cache()


def _thread_with_a_heap(stop: threading.Event) -> threading.Thread:
    """Start a thread that has allocated, and lives on."""
    ready = threading.Event()

    def hold() -> None:
        block = memlimits.allocate(1000)
        ready.set()
        stop.wait()
        block.release()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    return thread
