"""What memlimits.h has beyond malloc, calloc, realloc and free; errno; who may use which header."""

import ctypes
import random
import re
import subprocess
import sysconfig
import threading

import pytest

import memlimits
from memlimits import memory
from support.functions import WithGil
from support.kernel import mapped_bytes
from support.places import TESTS
from support.process import run
from support.units import KIB, MIB, PAGE, peak_bound

SIZES = [0, 1, 64, 100, 1000, 4096, 5000, 32 * KIB, 32 * KIB + 1, 100_000, 600_000, 3 * MIB + 1]
ALIGNMENTS = [1 << power for power in range(31)]
HUGE = 1 << 62


@pytest.fixture
def unchanged():
    """When the test ends as many bytes are active as before."""
    before = memlimits.get_active_memory()
    yield
    assert memlimits.get_active_memory() == before


def strict(more):
    memlimits.set_memory_policy("strict")
    memlimits.clear_cache()
    memlimits.set_memory_limit(memory.counters()["footprint"] + more)


def is_filled(address, start, end, byte=0):
    return ctypes.string_at(address + start, end - start) == bytes([byte]) * (end - start)


# ---- usable_size ----


@pytest.mark.parametrize("n", SIZES)
def test_all_of_a_block_may_be_used(heap, n, unchanged):
    for address in (heap.malloc(n), heap.calloc(n, 1), heap.aligned_alloc(8192, n)):
        usable = heap.usable_size(address)
        assert usable >= n
        assert mapped_bytes(address, usable) == usable
        ctypes.memset(address, 7, usable)
        heap.free(address)
    assert heap.usable_size(0) == 0


def test_what_may_be_used_is_what_is_active_and_what_is_charged(heap):
    for n in SIZES:
        active = memlimits.get_active_memory()
        address = heap.malloc(n)
        assert heap.usable_size(address) == memlimits.get_active_memory() - active
        heap.free(address)
    with memlimits.budget("mine") as budget:
        # Longer than what is charged, and idle: it serves a request all the same.
        memlimits.allocate(72 * KIB).release()
        for n in (*SIZES, 66 * KIB):
            address = WithGil.malloc(n)
            assert heap.usable_size(address) == budget.active
            heap.free(address)


# ---- aligned_alloc ----


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_aligned_blocks_of_every_length(in_c, alignment, unchanged):
    heap = in_c
    addresses = {}
    # Each longer alignment takes that much of the system's room.
    for n in SIZES * 2 if alignment <= 16 * MIB else SIZES[3:4]:
        address = heap.aligned_alloc(alignment, n)
        assert address % max(alignment, 64) == 0 != address
        usable = heap.usable_size(address)
        assert usable >= max(n, 1)
        assert not any(
            start < address + usable and address < start + length
            for start, length in addresses.items()
        )
        addresses[address] = usable
        ctypes.memset(address, len(addresses), min(usable, 8))
        ctypes.memset(address + usable - 8, len(addresses), 8)
    for mark, (address, usable) in enumerate(addresses.items(), 1):
        assert is_filled(address, 0, 8, mark)
        assert is_filled(address, usable - 8, usable, mark)
        heap.free(address)


@pytest.mark.parametrize("alignment", [0, 3, 48, 65, 2**20 + 1, 2**63 - 1])
def test_an_alignment_that_is_no_power_of_two(in_c, alignment):
    counters = memory.counters()
    assert in_c.errno_of("aligned_alloc", alignment, 100) == (False, 22)
    assert memory.counters() == counters


def test_what_is_aligned_comes_back_whole(heap, unchanged):
    """And what is made of it then starts where it starts."""
    for n in (100, 40_000, 3 * MIB):
        address = heap.aligned_alloc(MIB, n)
        heap.free(address)
        blocks = [heap.malloc(40_000) for _ in range(60)]
        assert len(set(blocks)) == 60
        for block in blocks:
            assert block % PAGE == 0
            heap.free(block)
    memlimits.clear_cache()
    assert memory.counters()["footprint"] == memory.counters()["active"]


def test_aligned_blocks_are_within_the_limit(heap, unchanged):
    strict(4 * MIB)
    refusals = memory.counters()["refusals"]
    for alignment, n in ((8 * MIB, 100), (MIB, 4 * MIB + 1), (64 * KIB, HUGE), (2**62, 2**62)):
        assert heap.aligned_alloc(alignment, n) == 0
    assert memory.counters()["refusals"] == refusals + 4
    assert memlimits.last_refusal().blocked_by == "max_buffer_length"
    address = heap.aligned_alloc(MIB, 2 * MIB)
    assert memory.counters()["footprint"] <= memlimits.get_memory_limit()
    heap.free(address)


def test_an_aligned_block_is_resized(heap, unchanged):
    for alignment in (256, 64 * KIB, 4 * MIB):
        for n, longer in ((1000, 3000), (70_000, 700_000), (3 * MIB, 9 * MIB), (9 * MIB, MIB)):
            address = heap.aligned_alloc(alignment, n)
            ctypes.memset(address, 5, n)
            resized = heap.realloc(address, longer)
            assert is_filled(resized, 0, min(n, longer), 5)
            ctypes.memset(resized, 6, longer)
            heap.free(resized)


@pytest.mark.parametrize("alignment", [256, 64 * KIB, 4 * MIB])
def test_an_aligned_block_on_an_account(alignment, unchanged):
    with memlimits.budget("aligned", limit=16 * MIB) as budget:
        for n in (100, 40_000, 3 * MIB):
            address = WithGil.aligned_alloc(alignment, n)
            assert address % alignment == 0
            assert n <= WithGil.usable_size(address) <= budget.active <= n + alignment + MIB
            resized = WithGil.realloc(address, 3 * n)
            assert 3 * n <= WithGil.usable_size(resized) <= budget.active
            thread = threading.Thread(target=WithGil.free, args=(resized,))
            thread.start()
            thread.join()
            assert budget.active == 0
        assert WithGil.aligned_alloc(alignment, 16 * MIB + 1) == 0
    assert memlimits.last_refusal().blocked_by == "budget"


def test_an_aligned_block_that_is_wired_comes_back(heap, unchanged):
    address = heap.aligned_alloc(4 * MIB, MIB)
    view = (ctypes.c_char * MIB).from_address(address)
    memlimits.wire(view)
    memlimits.unwire(view)
    memlimits.wire(view)
    heap.free(address)


# ---- rezalloc ----


@pytest.fixture
def dirty():
    """Idle memory of many lengths, all of it written to."""
    for n in SIZES * 2:
        memoryview(memlimits.allocate(n + 1))[:] = b"\xee" * (n + 1)


def grow_and_shrink(heap, seed):
    rng = random.Random(seed)
    for _ in range(40):
        address, n = (0, 0) if rng.random() < 0.5 else (heap.calloc(1, 100), 100)
        ctypes.memset(address, 0xDD, n)
        for _ in range(8):
            longer = rng.choice([*SIZES, n + 1, n + n // 8, 2 * n, n // 2, max(n - 1, 0)])
            address = heap.rezalloc(address, longer)
            kept = min(n, longer)
            assert is_filled(address, 0, kept, 0xDD)
            assert is_filled(address, kept, longer)
            ctypes.memset(address, 0xDD, longer)
            n = longer
        heap.free(address)


def test_what_is_longer_reads_as_zeros(heap, dirty, unchanged):
    """Whatever lengths the block had before, and whatever was written to it."""
    grow_and_shrink(heap, 1)


def test_what_is_longer_reads_as_zeros_on_an_account(dirty, unchanged):
    with memlimits.budget("longer") as budget:
        grow_and_shrink(WithGil, 2)
        assert budget.peak > MIB
        assert budget.active == 0


def test_blocks_of_calloc_are_zeros_as_far_as_they_are_charged(heap):
    for n in range(1, 4200, 37):
        dirty = heap.malloc(n)
        ctypes.memset(dirty, 0xEE, heap.usable_size(dirty))
        heap.free(dirty)
        block = heap.calloc(n, 1)
        assert is_filled(block, 0, heap.usable_size(block))
        heap.free(block)


def test_a_refused_rezalloc_leaves_the_block(heap, unchanged):
    strict(8 * MIB)
    address = heap.calloc(1, 5 * MIB)
    ctypes.memset(address, 9, 5 * MIB)
    assert heap.rezalloc(address, 20 * MIB) == 0
    assert is_filled(address, 0, 5 * MIB, 9)
    heap.free(address)


def test_long_blocks_grow_untouched(in_c):
    """What is new is not written to, so it takes no memory before it is used."""
    heap = in_c
    address = heap.calloc(1, MIB)
    resident = mapped_resident()
    address = heap.rezalloc(address, 400 * MIB)
    assert address
    assert mapped_resident() - resident < 100 * MIB
    assert is_filled(address, 399 * MIB, 400 * MIB)
    heap.free(address)


def mapped_resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


# ---- threads ----

SHORT, LONG, ALL = (0, 8), (8, 14), (0, 14)


@pytest.mark.core
@pytest.mark.parametrize("sizes", [SHORT, LONG, ALL])
def test_threads_that_use_every_function(storm, sizes, unchanged):
    """Nothing is spoiled or out of line, new bytes are zeros, and the peak is close."""
    before = memlimits.get_active_memory()
    memlimits.reset_peak_memory()
    seen = storm(3, 20_000 if sizes == SHORT else 2_000, 16, *sizes, 2**62, False, 1, True)
    assert (seen["refused"], seen["spoiled"]) == (0, 0)
    peak = memlimits.get_peak_memory()
    most = before + seen["highest_high"]
    assert before + seen["highest_low"] <= peak <= peak_bound(most, threads=3)


@pytest.mark.core
@pytest.mark.parametrize("sizes", [SHORT, LONG, ALL])
def test_threads_that_use_every_function_under_a_limit(storm, sizes, unchanged):
    limit = {SHORT: MIB, LONG: 20 * MIB, ALL: 10 * MIB}[sizes]
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(limit + memory.counters()["footprint"])
    seen = storm(3, 20_000 if sizes == SHORT else 2_000, 100, *sizes, limit, False, 1, True)
    assert (seen["over"], seen["spoiled"]) == (0, 0)
    assert seen["refused"] > 0


# ---- errno ----


@pytest.mark.parametrize("n", [100, 5000, 100_000, MIB, 6 * MIB])
@pytest.mark.parametrize("policy", ["strict", "wait", "guideline", "budget"])
def test_errno(in_c, n, policy, unchanged):
    """ENOMEM after a refusal; untouched by anything else, however long a way it went."""
    account = memlimits.budget("bounded", limit=64 * MIB) if policy == "budget" else None
    memlimits.set_idle_timeout(0)
    with account or memlimits.limits():
        if policy != "budget":
            strict(64 * MIB)
            memlimits.set_memory_policy(policy, 0.001 if policy == "wait" else None)
        for _ in range(2):
            found = in_c.errnos(n, HUGE if policy == "guideline" else 100 * MIB)
            assert {name: given for name, (given, _) in found.items()} == dict.fromkeys(found, 77)
            assert {refused for _, refused in found.values()} == {12, -1}
    memlimits.set_idle_timeout(None)


def test_errno_of_what_no_block_can_hold(in_c):
    assert in_c.errno_of("calloc", 2**62, 2**62) == (False, 12)
    assert in_c.errno_of("calloc", 2**62, 0) == (True, 77)
    assert in_c.errno_of("aligned_alloc", 2**62, 2**62) == (False, 12)


@pytest.mark.host
@pytest.mark.parametrize("n", [40_000, MIB])
def test_a_free_that_returns_memory_keeps_errno(libc, n):
    run(
        f"""
        sys.path.append({str(TESTS)!r})
        from support.functions import free, malloc
        address = ctypes.cast(free, ctypes.c_void_p).value
        noted_free = ctypes.CFUNCTYPE(None, ctypes.c_void_p, use_errno=True)(address)
        noted_munmap = ctypes.CDLL(os.environ["LD_PRELOAD"], use_errno=True).munmap
        noted_munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
        memlimits.set_cache_limit(0)
        block = malloc({n})
        ctypes.set_errno(77)
        noted_free(block)
        assert ctypes.get_errno() == 77
        memlimits.clear_cache()
        assert memory.counters()["footprint"] == 0
        assert noted_munmap(0, 4096) == 0 and ctypes.get_errno() == 5
        """,
        words=("env", f"LD_PRELOAD={libc}"),
    )


# ---- a refusal's handler ----


def test_the_last_refusal_is_not_its_handlers_own(in_c, unchanged):
    strict(8 * MIB)
    spare = in_c.malloc(6 * MIB)
    in_c.handle(True)
    assert in_c.malloc(5 * MIB) == 0
    assert in_c.handled() == (1, 1, 0, "limit")
    for refusal in memlimits.last_refusal(), memory.latest_refusal():
        assert (refusal.requested, refusal.blocked_by) == (5 * MIB, "limit")
    in_c.free(spare)


def test_a_handler_frees_until_there_is_room(in_c, unchanged):
    strict(8 * MIB)
    blocks = [in_c.malloc(2 * MIB) for _ in range(4)]
    refusals = memory.counters()["refusals"]
    assert in_c.handle(False, *blocks) is False
    wanted = in_c.malloc(3 * MIB)
    assert in_c.handled() == (2, 2, 2, "limit")
    assert wanted
    assert memory.counters()["refusals"] == refusals + 2
    in_c.free(wanted)
    for block in blocks[:2]:
        in_c.free(block)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("malloc", (7 * MIB,)),
        ("calloc", (7, MIB)),
        ("realloc", (0, 7 * MIB)),
        ("rezalloc", (0, 7 * MIB)),
        ("aligned_alloc", (64 * KIB, 7 * MIB)),
    ],
)
def test_every_function_asks_the_handler(in_c, name, words, unchanged):
    strict(8 * MIB)
    spare = in_c.malloc(4 * MIB)
    in_c.handle(True, spare)
    address = getattr(in_c, name)(*words)
    assert in_c.handled() == (1, 1, 0, "limit")
    assert address
    in_c.handle(False)
    assert in_c.malloc(7 * MIB) == 0
    assert in_c.handled() == (1, 1, 0, "limit")
    in_c.free(address)


def test_a_block_to_be_resized_waits_for_its_handler(in_c, unchanged):
    strict(8 * MIB)
    spare, block = in_c.malloc(4 * MIB), in_c.calloc(2, MIB)
    ctypes.memset(block, 3, 2 * MIB)
    in_c.handle(False, spare)
    block = in_c.rezalloc(block, 6 * MIB)
    assert in_c.handled() == (1, 1, 0, "limit")
    assert is_filled(block, 0, 2 * MIB, 3)
    in_c.free(block)


def test_numpys_requests_and_a_budgets_refusals_reach_it(in_c):
    np = pytest.importorskip("numpy")
    strict(8 * MIB)
    with memlimits.govern_numpy():
        in_c.handle(False, in_c.malloc(6 * MIB))
        array = np.empty(5 * MIB, "u1")
        assert in_c.handled() == (1, 1, 0, "limit")
    del array
    with memlimits.budget("small", limit=MIB):
        in_c.handle(False)
        assert WithGil.malloc(2 * MIB) == 0
        assert in_c.handled() == (1, 1, 0, "budget")
    in_c.handle(False)
    assert in_c.malloc(HUGE) == 0
    assert in_c.handled() == (1, 1, 0, "max_buffer_length")


def test_a_handler_of_cythons(cython, unchanged):
    strict(8 * MIB)
    address, calls = cython.malloc_instead_of(cython.malloc(6 * MIB), 5 * MIB)
    assert (address != 0, calls) == (True, 1)
    refused, calls = cython.malloc_instead_of(0, 5 * MIB)
    assert (refused, calls) == (0, 1)
    cython.free(address)


# ---- headers ----

PROGRAM = '#include "memlimits.h"\nint check(void) { return memlimits_import(); }\n'


def importing(folder, header, *options):
    """memlimits_import of a library that was compiled with such a header."""
    (folder / "memlimits.h").write_text(header)
    (folder / "user.c").write_text(PROGRAM)
    words = ["cc", "-shared", "-fPIC", f"-I{sysconfig.get_paths()['include']}", *options]
    subprocess.run([*words, folder / "user.c", "-o", folder / "user.so"], check=True)
    return ctypes.PyDLL(str(folder / "user.so")).check


@pytest.fixture
def header():
    with open(f"{memlimits.get_include()}/memlimits.h") as file:
        return file.read()


def test_a_header_of_a_newer_memlimits(tmp_path, header):
    newer = header.replace("} memlimits_functions;", "void *(*more)(void);\n} memlimits_functions;")
    assert newer != header
    with pytest.raises(ImportError, match=r"older than the memlimits\.h .*: upgrade memlimits"):
        importing(tmp_path, newer)()


def test_a_module_that_does_without_what_is_missing(tmp_path, header):
    newer = header.replace("} memlimits_functions;", "void *(*more)(void);\n} memlimits_functions;")
    needed = "-DMEMLIMITS_NEEDED=offsetof(memlimits_functions, more)"
    assert importing(tmp_path, newer, needed)() == 0


def test_a_header_of_another_version(tmp_path, header):
    other = re.sub(r"(?<=define MEMLIMITS_VERSION )\d+", "2", header)
    assert other != header
    message = r"memlimits\.h of version 2, and memlimits is of version 1: compile the module anew"
    with pytest.raises(ImportError, match=message):
        importing(tmp_path, other)()


def test_a_memlimits_without_the_table(tmp_path, header, monkeypatch):
    """0.1.0 had another."""
    monkeypatch.delattr("memlimits._malloc.functions_with_size")
    with pytest.raises(ImportError, match=r"older than the memlimits\.h"):
        importing(tmp_path, header)()


def test_a_module_compiled_with_the_first_header(unchanged):
    """It finds four functions under the name that it asks for."""
    from support.functions import free, malloc, realloc

    address = realloc(malloc(1000), 3000)
    assert mapped_bytes(address, 3000) == 3000
    free(address)
