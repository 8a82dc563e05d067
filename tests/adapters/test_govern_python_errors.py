"""What can still be done when Python's memory was refused: the error is raised, told, survived.

For that a part of the memory limit is kept back, and given way at a refusal.
"""

import re
import sys
from pathlib import Path

import pytest

import memlimits
from support.cgroup import inside, kills, needs_groups, nested, set_limit
from support.process import execute
from support.units import MIB

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif("t" in sys.abiflags, reason="objects are mimalloc's"),
    # Without memlimits, too, where RLIMIT_AS is in the way of a small object.
    pytest.mark.skipif(
        sys.version_info[:3] == (3, 15, 0), reason="Python 3.15.0 may crash after a MemoryError"
    ),
]

LIBRARY = Path(memlimits.__file__).parent / "lib" / "libinterpose.so"

# From 3.13 on Python imports modules to print a traceback, of 3 MiB: more than a quarter of 8 MiB,
# which is what is kept back.
LIMITS = [16, 64] if sys.version_info >= (3, 13) else [8, 16, 64]
HEAD = """
import logging, sys
import memlimits

MIB = 1 << 20
memlimits.set_memory_policy("strict")
memlimits.set_memory_limit(int({limit} * MIB))
governing = memlimits.govern_python()

def fill(held):
    while True:
        held.append(len(held))
"""


def run(script, limit, code=0, words=()):
    done = execute(HEAD.format(limit=limit) + script, words=words)
    assert done.returncode == code, done.stderr
    assert "another exception" not in done.stderr
    assert "lost sys.stderr" not in done.stderr
    return done


@pytest.mark.parametrize("limit", LIMITS)
def test_the_traceback_of_an_error_that_ends_the_program(limit):
    """All of the list is alive when it is printed."""
    done = run("\nfill(held := [])\n", limit, code=1)
    assert re.fullmatch(
        r"Traceback \(most recent call last\):\n"
        r'  File "<string>", line \d+, in <module>\n'
        r'(    .*\n)*  File "<string>", line \d+, in fill\n'
        r"(    .*\n)*MemoryError\n"
        rf"memlimits: refused .* to Python: memory limit {limit} MiB \(strict\), in use .*\n",
        done.stderr,
    ), done.stderr


@pytest.mark.parametrize("limit", [16 + quarters / 4 for quarters in range(8)])
def test_there_is_more_whatever_the_limit_is(limit):
    """Where what is kept back has room, and an arena besides has not, it is not kept again."""
    run(
        """
held = []
try:
    while True:
        held.append({len(held): [len(held)]})
except MemoryError:
    # Of every size there are more than the arenas can have left.
    more = [bytes(n) for n in range(0, 480, 16) for _ in range(100)]
""",
        limit,
    )


def test_what_comes_and_goes_is_kept_where_only_short_blocks_may_have_more():
    """They may have a quarter of the 7 MiB. What is idle there serves the next."""
    run(
        """
held = []
while memlimits.stats().footprint < 57 * MIB + MIB // 8:
    held.append(bytes(100 << 10))
before = memlimits.stats()
for n in range(1000):
    bytes(3000)
after = memlimits.stats()
assert 57 * MIB < after.footprint < 59 * MIB and after.refusals == 0
assert after.misses - before.misses < 10, (before, after)
""",
        limit=64,
    )


@pytest.mark.parametrize("limit", LIMITS)
def test_an_error_that_is_caught_and_logged(limit):
    """Again and again: what is kept back is kept again once there is room."""
    done = run(
        """
def work():
    held = []
    try:
        fill(held)
    except MemoryError:
        logging.exception("it was too much")
        print(f"{len(held):,} objects, limit {memlimits.get_memory_limit() // MIB:,} MiB")

for _ in range(4):
    work()
    stats = memlimits.stats()
    assert stats.footprint <= stats.memory_limit and stats.overruns == 0
    assert stats.refusals_by_limit == stats.refusals
""",
        limit,
    )
    assert done.stderr.count("ERROR:root:it was too much\nTraceback") == 4
    assert done.stderr.count("MemoryError\n") == 4
    assert len(done.stdout.splitlines()) == 4


def test_when_it_is_kept_and_when_not():
    run(
        """
import numpy
memlimits.govern_numpy()

def refused(make):
    try:
        make()
    except MemoryError:
        return memlimits.last_refusal().blocked_by

def reserved():
    return memlimits.stats().reserved

assert reserved() == 7 * MIB
# It would fit the limit, and not beside what is kept back.
assert refused(lambda: bytes(59 * MIB)) == "limit"
assert refused(lambda: bytes(45 * MIB)) is None
assert reserved() == 7 * MIB
with memlimits.reserve(30 * MIB):
    assert reserved() == 37 * MIB
# While there is no room for it it is not, and freeing makes some. Whoever is refused: NumPy has an
# error to raise, too.
for make in bytes, memlimits.allocate, lambda n: numpy.ones(n // 8):
    memlimits.clear_cache()
    room = 64 * MIB - memlimits.stats().footprint
    held = bytes(room - 8 * MIB)
    assert refused(lambda: make(5 * MIB)) == "limit"
    assert reserved() == 0
    # From what is long it is kept all the same.
    assert refused(lambda: make(5 * MIB)) == "limit"
    more = [make(MIB - 64) for _ in range(7)]
    assert reserved() == 0
    del held
    assert reserved() == 7 * MIB and memlimits.stats().footprint <= 57 * MIB
    del more
# A lower limit keeps back a quarter.
memlimits.set_memory_limit(15 * MIB)
assert reserved() == 15 * MIB // 4
memlimits.set_memory_limit(64 * MIB)
assert reserved() == 7 * MIB
second = memlimits.govern_python()
second.close()
assert reserved() == 7 * MIB
governing.close()
assert reserved() == 0
assert refused(lambda: memlimits.allocate(80 * MIB)) == "limit"
block = memlimits.allocate(40 * MIB)
assert reserved() == 0
""",
        64,
    )


ENDS = """
import mmap

{before}
governing = memlimits.govern_python()
try:
    fill(held := [])
except MemoryError:
    # With what was kept back, while all of the list is alive.
    assert memlimits.last_refusal().blocked_by == "{blocked_by}", memlimits.last_refusal()
    assert memlimits.stats().reserved == 0
    more = [bytes(n) for n in range(0, 480, 16) for _ in range(300)]
    assert memlimits.stats().reserved == 0
del held, more
memlimits.clear_cache()
again = bytes(MIB)
assert memlimits.stats().reserved > 0
"""
OTHERS = """
others = mmap.mmap(-1, 64 * MIB)
others.write(bytes(len(others)))
memlimits.set_memory_count("process")
memlimits.set_memory_limit(memlimits.stats().process_resident + 48 * MIB)
"""


def test_there_is_more_where_others_take_up_the_process():
    run(ENDS.format(before=OTHERS, blocked_by="limit"), 1024)


@needs_groups
def test_there_is_more_where_the_system_has_nothing_left():
    with nested() as (group,):
        set_limit(group, 64 * MIB)
        run(ENDS.format(before="", blocked_by="system"), 1024, words=inside(group))
        assert kills(group) == 0


def test_little_is_given_before_a_refusal():
    """C code may not look at NULL where it asks for little; what follows a refusal is left."""
    run(
        """
def left():
    stats = memlimits.stats()
    return stats.memory_limit - stats.reserved - stats.footprint

held = []
for n in (MIB << power for power in range(5, -1, -1)):
    while left() >= n:
        held.append(memlimits.allocate(n))
while left() >= 64 << 10:
    held.append(memlimits.allocate(64 << 10))
little = [memlimits.allocate(512 << 10) for _ in range(3)]
assert memlimits.stats().refusals == 0 and memlimits.stats().reserved == 7 * MIB
try:
    memlimits.allocate(512 << 10)
except MemoryError:
    more = [bytes(480) for _ in range(6_000)]
assert memlimits.stats().refusals == 1 and memlimits.stats().reserved == 0
""",
        64,
    )


@pytest.mark.parametrize("limit", [50, 60])
def test_threads_are_started_until_one_is_refused(limit):
    """By who starts it, who asks for less, so a thread that starts has what is kept back.

    One that is refused before it says that it runs is waited for.
    """
    run(
        """
import faulthandler, threading, time
faulthandler.dump_traceback_later(30, exit=True)
held = []
# Beside the 7 MiB there is no room for a slab then, nor for an arena.
while memlimits.stats().footprint < memlimits.get_memory_limit() - 5 * MIB - 320 * 1024:
    held.append(bytes(20 << 10))
started = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        started += 1
except (MemoryError, RuntimeError) as error:
    assert started and memlimits.errors.is_refusal(error)
""",
        limit,
    )


# ---- what a handler of the error asks ----

AT_THE_LIMIT = """
import ctypes, gc, mmap
LIMIT = memlimits.get_memory_limit()
before = memlimits.stats()
calls = [
    memlimits.stats,
    lambda: repr(before),
    memlimits.last_refusal,
    memlimits.clear_cache,
    memlimits.trim,
    memlimits.effective_limit,
    memlimits.device_info,
    memlimits.get_memory_policy,
    lambda: memlimits.would_fit(5),
    lambda: memlimits.set_memory_limit(LIMIT),
    lambda: memlimits.set_cache_limit(None),
    lambda: memlimits.set_memory_policy("strict"),
    lambda: memlimits.set_memory_count(COUNT),
]
for call in calls:
    call()      # modules of the first time
results, errors = [None] * len(calls), [None] * len(calls)
numbers = list(range(len(calls)))
sizes = [MIB >> i for i in range(20)]
chain = None

def exhaust():
    # Down to the smallest object of each size.
    global chain
    for n in sizes:
        try:
            while True:
                chain = b"x" * n, chain
        except MemoryError:
            pass

def call_all():
    for i in numbers:
        exhaust()
        try:
            results[i] = calls[i]()
        except MemoryError as error:
            errors[i] = error
    exhaust()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE

gc.disable()
other = mmap.mmap(-1, 2 * LIMIT)
if COUNT == "process":
    # What is not governed has passed the limit.
    memlimits.set_memory_count(COUNT)
    ctypes.memset((ctypes.c_char * len(other)).from_buffer(other), 1, len(other))
call_all()
for _ in range(200):
    results[0] = memlimits.stats()
peak = results[0].peak
while chain is not None:
    chain = chain[1]
memlimits.set_memory_limit(1 << 40)
assert errors == [None] * len(calls), errors
assert peak <= LIMIT
assert results[0].refusals > 0 and results[1].startswith("Stats\\n")
assert results[2].limit == LIMIT and results[9] == LIMIT
assert results[0].refusals_by_limit >= results[0].refusals > before.refusals
# Nothing of what was made so is left once it is dropped.
was = resident()
for _ in range(1000):
    results[0] = memlimits.stats()
assert resident() - was < MIB
print("done")
"""


@pytest.mark.parametrize("count", ["given", "process"])
@pytest.mark.parametrize("level", ["python", "all"])
def test_how_things_stand_is_told_where_nothing_more_is_given(level, count):
    if level == "all" and not LIBRARY.exists():
        pytest.skip("malloc is interposed on Linux's host only")
    script = f"COUNT = {count!r}\n" + AT_THE_LIMIT
    words = ()
    if level == "all":
        script = "memlimits.govern_malloc()\n" + script
        words = ("env", f"LD_PRELOAD={LIBRARY}")
    assert run(script, 24, words=words).stdout == "done\n"


@pytest.mark.parametrize("_again", range(3))
def test_more_threads_than_python_keeps_errors_for(_again):
    """40 threads are refused at once, and somebody keeps their errors: the process goes on."""
    done = execute("""
import itertools, json, os, random, threading, time
import memlimits

MIB = 1 << 20
errors, places = [None] * 10_000, itertools.count()

def work(seed):
    rng = random.Random(seed)
    ready.wait()
    while not go:
        time.sleep(0.001)
    for _ in range(30):
        try:
            made = {key: [str(key) * rng.randrange(50)] for key in range(2000)}
            rest = bytearray(rng.randrange(2 * MIB))
            json.dumps(made)
        except MemoryError as error:
            errors[next(places)] = error

memlimits.set_memory_policy("strict")
with memlimits.govern_python():
    # What becomes of the threads is not looked at: threading's own code may be refused as well,
    # with a lock that another one waits for then.
    ready, go = threading.Barrier(41), []
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(40)]
    [thread.start() for thread in threads]
    ready.wait()
    end = time.monotonic() + 5
    memlimits.set_memory_limit(memlimits.stats().footprint + 30 * MIB)
    go.append(True)
    while time.monotonic() < end:
        try:
            if not any(thread.is_alive() for thread in threads):
                break
        except MemoryError:
            pass
        time.sleep(0.05)
    memlimits.set_memory_limit(1 << 40)
    print("refused", memlimits.stats().refusals > 20, flush=True)
    os._exit(0)
""")
    assert (done.returncode, done.stdout) == (0, "refused True\n"), done.stderr
