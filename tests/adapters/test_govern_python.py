"""`govern_python()`: whose memory Python's objects have, from when to when, and what is refused.

Each in a Python of its own: what is governed lives as long as the interpreter.
"""

import sys

import pytest

import memlimits
from support.process import run

pytestmark = pytest.mark.host

# Its pools are found damaged then, under RLIMIT_AS and without memlimits as well.
survives_refusals = pytest.mark.skipif(
    sys.version_info[:3] == (3, 15, 0), reason="Python 3.15.0 may crash after a MemoryError"
)
pymalloc = pytest.mark.skipif("t" in sys.abiflags, reason="objects are mimalloc's")

HEAD = """
import gc, sys
import memlimits
from memlimits import govern_python

MIB = 1 << 20
PLAIN, GOVERNED = "Python's", "memlimits'"

def owner(bytes_):
    return GOVERNED if memlimits.get_array_buffer_size(bytes_) else PLAIN

def strict(limit):
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(limit)
"""


def governed(script, *options, **keywords):
    return run(HEAD + script, *options, **keywords)


@pymalloc
def test_objects_before_during_and_after():
    governed("""
before = bytes(5000)
governing = govern_python()
during = [bytes(5000), bytearray(5000), bytes(range(256)) * 40]
assert governing.ungoverned is None
with govern_python():
    governing.close()
    governing.close()
    during.append(bytes(5000))
after = bytes(5000)
assert [owner(each) for each in during] == [GOVERNED] * 4
assert (owner(before), owner(after)) == (PLAIN, PLAIN)
active = memlimits.get_active_memory()
during.clear()
assert active - memlimits.get_active_memory() >= 4 * 5000
del before, after
""")


@pymalloc
def test_blocks_of_either_owner_grow_and_shrink_in_every_state():
    governed("""
plain = [bytearray(b"x" * n) for n in (600, 5000, 300_000)]
with govern_python():
    ours = [bytearray(b"x" * n) for n in (600, 5000, 300_000)]
    for block in plain + ours:
        was, n = owner(block), len(block)
        del block[n // 2 + 64:]         # in place, since bytearray gives back only what is more
        assert owner(block) == was
        block += b"y" * 2 * n
        assert owner(block) == GOVERNED
        assert block == b"x" * (n // 2 + 64) + b"y" * 2 * n
for block in plain + ours:
    n = len(block)
    block += b"z" * 2 * n
    assert owner(block) == GOVERNED
    assert block[-2 * n:] == b"z" * 2 * n and block[:n].count(b"z") == 0
    del block[100:]
    assert len(block) == 100
after = bytearray(5000)
after += bytes(50_000)
assert owner(after) == PLAIN
del plain, ours, block
gc.collect()
""")


@pymalloc
def test_a_long_block_is_refused():
    governed("""
strict(64 * MIB)
with govern_python():
    held = bytes(40 * MIB)
    for more in (lambda: bytes(40 * MIB), lambda: held + held, lambda: [None] * 5 * MIB):
        try:
            more()
        except MemoryError:
            assert memlimits.last_refusal().requested >= 40 * MIB
        else:
            raise AssertionError
    stats = memlimits.stats()
    assert stats.refusals == stats.refusals_by_limit == 3
    assert stats.peak <= 64 * MIB
    grows = bytearray(10 * MIB)
    try:
        grows += held
    except MemoryError:
        assert len(grows) in (0, 10 * MIB)      # 0 on Python 3.15
    else:
        raise AssertionError
""")


@pymalloc
@survives_refusals
@pytest.mark.parametrize(
    ("options", "make"),
    [
        ((), "object()"),
        # pymalloc cuts no more than 512 bytes from arenas, 24 of the debug hooks among them, which
        # ask RAW for 24 more.
        (("-X", "dev"), "bytes(455)"),
        (("-X", "tracemalloc"), "object()"),
    ],
    ids=str,
)
def test_small_objects_past_the_limit(options, make):
    """A refused arena is a refusal: RAW gives nothing in its place, and it is counted once."""
    # The limit is not where pymalloc's array of arenas grows, at 16 and 32 of 1 MiB, nor where the
    # list is copied, at 4 MiB: that these are refused is a refusal, too.
    governed(
        f"""
import itertools
strict(30 * MIB)
with govern_python():
    held, errors = [], 0
    for _ in itertools.repeat(None, 3_000_000):
        try:
            held.append({make})
        except MemoryError:
            errors += 1
            if errors == 100:
                break
    held.clear()
    stats = memlimits.stats()
    assert errors == 100
    # An object, and its place in the list.
    assert 100 <= stats.refusals <= 200, stats.refusals
    assert stats.peak <= 30 * MIB and stats.overruns == 0
    # All came from arenas, and is back: RAW gave nothing in their place.
    assert stats.peak > 20 * MIB and stats.active < 4 * MIB
    held = [object() for i in range(100_000)]
""",
        *options,
    )


def test_threads_forks_and_interpreters():
    governed("""
import hashlib, itertools, os, threading

over = threading.Event()

def work():
    for i in itertools.count():
        if i >= 300 and over.is_set():
            break
        made = [bytes(i % 300 * 37 + j) for j in range(20)]
        # Without the GIL. A long one now and then: to hash it takes long.
        hashlib.sha256(b"".join(made) * (50 if i % 30 == 29 else 1)).digest()
        memoryview(bytes(100_000)).tobytes()

before = threading.Thread(target=work, daemon=True)
before.start()
with govern_python():
    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    pid = os.fork()
    if pid == 0:
        over.set()
        work()
        held = bytes(100_000)
        os._exit(0 if memlimits.get_array_buffer_size(held) or 't' in sys.abiflags else 1)
    assert os.waitpid(pid, 0)[1] == 0
    if sys.version_info >= (3, 13):
        import _interpreters
        for kind in "isolated", "legacy":
            made = _interpreters.create(kind)
            assert _interpreters.exec(made, "a = [bytes(n) for n in range(9000)]") is None
            _interpreters.destroy(made)
    else:
        import _xxsubinterpreters
        made = _xxsubinterpreters.create()
        _xxsubinterpreters.run_string(made, "a = [bytes(n) for n in range(9000)]")
        _xxsubinterpreters.destroy(made)
over.set()
for thread in [before, *threads]:
    thread.join()
    """)


@pytest.mark.parametrize("closes", ["", "governing.close()"], ids=["open", "closed"])
def test_the_interpreter_ends(closes):
    """Which frees through our functions what it has, when no module is left."""
    governed(f"""
import atexit, threading
governing = govern_python()
held = [bytes(n) for n in range(3000)]
held.append(held)
thread = threading.Thread(target=lambda: bytes(5000))
thread.start()
thread.join()
class Last:
    def __del__(self):
        bytes(100_000)
last = Last()
last.self = last
atexit.register(bytes, 100_000)
{closes}
""")


def test_pythons_own_counts_go_on():
    governed("""
with govern_python():
    before = sys.getallocatedblocks()
    held = [object() for _ in range(10_000)] + [bytes(1000) for _ in range(1000)]
    assert 11_000 <= sys.getallocatedblocks() - before <= 12_000
    del held
    assert abs(sys.getallocatedblocks() - before) <= 1000
    sys._debugmallocstats()
    gc.collect()
""")


def test_numpys_arrays_are_governed_once_beside():
    governed("""
import numpy
from memlimits import govern_numpy
with govern_python(), govern_numpy():
    active = memlimits.get_active_memory()
    array = numpy.ones(MIB)
    assert 8 * MIB <= memlimits.get_active_memory() - active < 9 * MIB
    array = numpy.resize(array, 2 * MIB)
    strings = numpy.array(["x" * 40_000] * 50, dtype=numpy.dtypes.StringDType())
    del array, strings
    assert memlimits.get_active_memory() - active < 2 * MIB
# What NumPy allocates by Python's functions, as it does by default from 2.5 on, is given back so.
with govern_python():
    array = numpy.ones(MIB)
    small = [numpy.full(n, n % 256, numpy.uint8) for n in range(1, 1000)]
    with govern_numpy():
        array.resize(3 * MIB, refcheck=False)
        assert array.sum() == MIB
        for each in small:
            each.resize(len(each) + 10, refcheck=False)
        more = [numpy.full(n, n % 256, numpy.uint8) for n in range(1, 1000)]
        assert all(each[0] == (n % 256) for n, each in enumerate(more, 1))
    del array, small, more
assert memlimits.get_active_memory() - active < 2 * MIB
""")


def test_it_is_documented():
    assert "govern_python" in memlimits.__all__
    assert "Returns" in memlimits.govern_python.__doc__


@pymalloc
def test_objects_go_ahead_of_those_who_wait():
    governed("""
import threading, time
govern_python()
held = memlimits.allocate(60 * MIB)
memlimits.set_memory_limit(memlimits.stats().footprint + 40 * MIB)
memlimits.set_memory_policy("wait", timeout=60)
def hold_and_wait():        # who holds nothing is the last in the queue
    block = memlimits.allocate(MIB)
    memlimits.allocate(80 * MIB)
waits = threading.Thread(target=hold_and_wait)
waits.start()
while memlimits.stats().waiting == 0:
    time.sleep(0.001)
def make():                 # on a thread that holds nothing that others wait for
    done.append([bytes(2 * MIB), *(bytes(10_000) for _ in range(100)), [None] * 100_000])
    assert memlimits.stats().waiting == 1 and memlimits.stats().refusals == 0
    try:
        bytes(50 * MIB)     # what does not fit is refused, and does not wait
    except MemoryError:
        done.append(memlimits.last_refusal().blocked_by)
done = []
makes = threading.Thread(target=make)
makes.start()
makes.join()
assert done[1:] == ["limit"]
del held
waits.join()
""")
