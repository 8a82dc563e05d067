"""Blocks that grow step by step, within an idle resource that leaves them room."""

import ctypes
import random
import threading

import pytest

import memlimits
from memlimits import memory
from support.functions import WithGil, changed, free, holds, malloc, realloc, write
from support.kernel import needs_lockable, resident
from support.places import TESTS
from support.process import run
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.core, pytest.mark.host]

MOST = 32 * MIB  # idle behind blocks, in a heap
usable = WithGil.usable_size


def slack():
    return memlimits.stats().slack


@pytest.fixture
def part(blocks):
    """A block of 100 KiB with 3 MiB to grow into, all of it written."""
    idle = malloc(3 * MIB)
    address = blocks.make(50 * KIB)
    write(idle, 3 * MIB)
    free(idle)
    assert blocks.resize(address, 100 * KIB) == idle
    return idle


def test_a_block_that_grows_gets_a_longer_idle_one_and_grows_where_it_lies(blocks, part):
    memlimits.reset_peak_memory()
    before, pages = memory.counters(), resident()
    for n in range(100 * KIB, 3 * MIB + 1, 20 * KIB):
        assert blocks.resize(part, n) == part
        assert usable(part) == n
    assert resident() - pages < MIB
    assert holds(part, 50 * KIB)
    growth = usable(part) - 100 * KIB
    peak = before["active"] + growth
    assert changed(before) == {"active": growth, "slack": -growth, "peak": peak - before["peak"]}


def test_what_is_behind_a_block_is_idle_and_not_cached(blocks):
    idle = malloc(3 * MIB)
    address = blocks.make(50 * KIB)
    free(idle)
    before, slack_before = memory.counters(), slack()
    part = blocks.resize(address, 100 * KIB)
    assert usable(part) == 100 * KIB
    now = changed(before)
    assert now["cache"] <= -2 * MIB
    # What it had went back to where it came from.
    assert slack() - slack_before == -now["active"] - now["cache"]
    assert "footprint" not in now


def test_a_refusal_leaves_it_as_it_is(blocks, part):
    memlimits.set_memory_policy("strict")
    blocks.resize(part, 2 * MIB)
    memlimits.set_memory_limit(memory.counters()["footprint"])
    before = memory.counters()
    assert realloc(part, 64 * MIB) is None
    assert changed(before) == {"refusals": 1}
    assert usable(part) == 2 * MIB
    assert holds(part, 50 * KIB)


@pytest.mark.parametrize("policy", ["strict", "guideline"])
def test_what_is_behind_a_block_is_in_nobodys_way(blocks, part, policy):
    """At the limit it goes back: nothing is refused for it, and no limit passed."""
    memlimits.set_memory_policy(policy)
    memlimits.clear_cache()
    assert slack() < MIB
    free(realloc(part, 3 * MIB))
    blocks.addresses.remove(part)
    part = blocks.resize(blocks.make(50 * KIB), 100 * KIB)
    behind = slack()
    assert behind > 2 * MIB
    before = memory.counters()
    # Lowering the limit takes it, too.
    with memlimits.limits(memory=before["footprint"]):
        blocks.make(2 * MIB + 512 * KIB)
        assert slack() < behind
        assert memory.counters()["footprint"] <= before["footprint"]
    assert changed(before).get("refusals", 0) == changed(before).get("overruns", 0) == 0
    assert usable(part) == 100 * KIB
    assert holds(part, 50 * KIB)


def test_at_the_limit_it_is_cut_off_for_a_block_that_fits_then_to_the_byte(blocks):
    memlimits.set_memory_policy("strict")
    address = blocks.make(50 * KIB)
    memlimits.clear_cache()
    memlimits.set_memory_limit(memory.counters()["footprint"] + 4 * MIB)
    free(malloc(4 * MIB))
    part = blocks.resize(address, 100 * KIB)
    room = 4 * MIB - 100 * KIB
    before = memory.counters()
    assert malloc(room + 64 * KIB + PAGE) is None  # a slab may have been emptied
    assert changed(before) == {"refusals": 1}
    assert blocks.make(room)
    assert memory.counters()["footprint"] <= memlimits.get_memory_limit()
    assert holds(part, 50 * KIB)
    assert usable(part) == 100 * KIB


def test_clearing_the_cache_returns_it_and_the_block_stays(blocks, part):
    pages = resident()
    memlimits.clear_cache()
    assert pages - resident() > 2 * MIB
    assert memlimits.get_cache_memory() == 0
    assert slack() < MIB
    assert holds(part, 50 * KIB)
    longer = blocks.resize(part, 200 * KIB)
    assert holds(longer, 50 * KIB)
    memlimits.clear_cache()


def test_a_block_grows_beyond_it_with_its_pages(blocks, part):
    blocks.resize(part, MIB)
    memlimits.reset_peak_memory()
    before = memory.counters()
    longer = blocks.resize(part, 3 * MIB + 512 * KIB)
    assert holds(longer, 50 * KIB)
    assert usable(longer) >= 3 * MIB + 512 * KIB
    growth = usable(longer) - MIB
    assert changed(before)["active"] == growth
    assert memlimits.get_peak_memory() == before["active"] + growth


def test_a_block_that_shrinks_below_half_gives_back_the_rest(blocks, part):
    blocks.resize(part, 2 * MIB)
    short = blocks.resize(part, 600 * KIB)
    assert holds(short, 50 * KIB)
    assert usable(short) < 700 * KIB


def test_what_is_new_of_a_cleared_block_reads_as_zeros():
    free(malloc(3 * MIB))
    address = WithGil.calloc(1, 20 * KIB)
    n = 20 * KIB
    while n < 3 * MIB:
        longer = WithGil.rezalloc(address, n + 7000)
        assert ctypes.string_at(longer, n + 7000) == bytes(n + 7000)
        address, n = longer, n + 7000
    WithGil.free(address)


def test_nor_does_what_was_idle_behind_it_once_the_device_makes_it_longer():
    """The rest of the idle MiB becomes the caller's then, with what others wrote there."""
    idle = malloc(MIB)
    write(idle, MIB)
    free(idle)
    address = WithGil.rezalloc(0, 400 * KIB)
    for n in (700 * KIB, 1200 * KIB):
        address = WithGil.rezalloc(address, n)
        assert ctypes.string_at(address, n) == bytes(n)
    WithGil.free(address)


def test_little_is_idle_behind_all_blocks_of_a_heap(blocks):
    short = [blocks.make(20 * KIB) for _ in range(40)]
    for address in [malloc(2 * MIB) for _ in range(40)]:
        free(address)
    before = slack()
    for address in short:
        blocks.resize(address, 40 * KIB)
    assert 4 * MIB < slack() - before <= MOST


def test_a_short_block_gets_a_long_one_only_where_such_a_block_had_it(blocks):
    idle = malloc(6 * MIB)
    short, other = blocks.make(20 * KIB), blocks.make(20 * KIB)
    free(idle)
    short = blocks.resize(short, 40 * KIB)
    assert short != idle
    longer = blocks.resize(other, 200 * KIB)
    assert longer == idle
    blocks.addresses.remove(longer)
    free(longer)
    assert blocks.resize(short, 80 * KIB) == idle


@pytest.mark.parametrize("spans", [False, True])
def test_what_is_behind_a_block_goes_back_where_growth_has_to_return_idle_memory(spans):
    """Also where the page map has two nodes for it, of 1 GiB each."""
    run(f"""
        sys.path.append({str(TESTS)!r})
        from support.functions import holds, malloc, free, realloc, write
        # Where one node ends beside a block, the next ends within one.
        others = {{malloc(15 * MIB) for _ in range(140)}}
        idle = next(b for b in others if ((b ^ b + 15 * MIB - 1) >> 30 != 0) == {spans})
        for address in others - {{idle}}:
            free(address)
        memlimits.clear_cache()
        block = malloc(300 << 10)
        write(block, 300 << 10)
        free(idle)
        block = realloc(block, 400 << 10)
        assert block == idle and memlimits.stats().slack > 12 * MIB
        before = memory.counters()["footprint"]
        # Little may be idle then.
        with memlimits.govern_python():
            assert malloc(20 * MIB)
        assert memlimits.stats().slack < 3 * MIB
        assert memory.counters()["footprint"] - before < 12 * MIB
        assert holds(block, 300 << 10)
    """)


def test_another_thread_grows_and_frees_it(blocks, part):
    def grow_and_free():
        for n in (500 * KIB, MIB):
            assert realloc(part, n) == part
            assert holds(part, 50 * KIB)
        free(part)

    before = memlimits.get_active_memory()
    blocks.addresses.remove(part)
    thread = threading.Thread(target=grow_and_free)
    thread.start()
    thread.join()
    assert memlimits.get_active_memory() == before - 100 * KIB


@needs_lockable(16 * MIB)
def test_it_is_wired_as_a_whole_and_stays_in_one_piece(blocks, part):
    memlimits.set_wired_limit(8 * MIB)
    try:
        wired = memlimits.get_wired_memory()
        assert wired >= 3 * MIB
        assert blocks.resize(part, 2 * MIB) == part
        memlimits.clear_cache()
        assert blocks.resize(part, 3 * MIB) == part
        assert holds(part, 50 * KIB)
    finally:
        memlimits.set_wired_limit(0)


def test_nobody_grows_past_those_who_wait_for_memory(blocks, part):
    """What a waiter needs is not taken by a block that grows, which gets in the queue as well."""
    run(f"""
        sys.path.append({str(TESTS)!r})
        from support.functions import WithGil, free, malloc, realloc
        memlimits.set_memory_policy("wait", timeout=0.2)
        KIB = 1024
        idle, block = malloc(4 * MIB), malloc(50 * KIB)
        free(idle)
        block = realloc(block, 100 * KIB)
        assert block == idle
        memlimits.set_memory_limit(memory.counters()["footprint"])
        results = []
        thread = threading.Thread(target=lambda: results.append(malloc(3 * MIB)))
        thread.start()
        thread.join()
        assert results[0], results
        assert memory.counters()["footprint"] <= memlimits.get_memory_limit()
        assert WithGil.usable_size(block) == 100 * KIB
    """)


def test_freeing_it_twice_ends_the_process_with_a_sentence(gate):
    run(
        f"""
        sys.path.append({str(TESTS)!r})
        from support.functions import free, malloc, realloc
        idle, block = malloc(4 * MIB), malloc(50 << 10)
        free(idle)
        block = realloc(block, 100 << 10)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT), 2)
            free(block + 4096)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGABRT
        said = open("said").read()
        os.remove("said")
        assert "4,096 bytes inside" in said or "4096 bytes inside the block of 102400" in said, said
    """
    )


def test_a_forked_child_grows_it_on_its_own(part):
    run(f"""
        sys.path.append({str(TESTS)!r})
        from support.functions import free, holds, malloc, realloc, write
        KIB = 1024
        idle, block = malloc(4 * MIB), malloc(50 * KIB)
        write(block, 50 * KIB)
        free(idle)
        block = realloc(block, 100 * KIB)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            block = realloc(block, 2 * MIB)
            assert holds(block, 50 * KIB)
            longer = realloc(block, 9 * MIB)
            assert holds(longer, 50 * KIB)
            free(longer)
            consistent(memlimits.get_active_memory())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert holds(block, 50 * KIB)
        free(realloc(block, 3 * MIB))
        consistent()
    """)


# ---- against a model ----


class Model:
    """Blocks, each filled with a byte of its own, and what the counters are to say of them."""

    def __init__(self, rng):
        self.rng = rng
        self.held = {}  # address: (bytes, which one fills them)
        self.active = memlimits.get_active_memory()
        self.unshortened = 0  # times that there was nothing shorter to move to

    def keep(self, address, n):
        tag = self.rng.randrange(1, 256)
        ctypes.memset(address, tag, n)
        self.held[address] = n, tag

    def looks_right(self, address, n, tag):
        return ctypes.string_at(address, n) == bytes([tag]) * n

    def make(self):
        n = self.rng.choice([100, 5000, 20_000, 40_000, 300_000, 2_000_000])
        address = malloc(n)
        if address:
            self.keep(address, n)
        return address is not None

    def resize(self):
        address = self.rng.choice(list(self.held))
        n, tag = self.held[address]
        longer = n + self.rng.choice([64, 1000, 4096, 100_000, n // 8, n])
        shorter = n // self.rng.choice([2, 3, 9])
        wanted = min(max(longer if self.rng.random() < 0.9 else shorter, 1), 6 * MIB)
        capacity = usable(address)
        resized = realloc(address, wanted)
        if resized is None:
            assert usable(address) == capacity
            assert self.looks_right(address, n, tag)
            return False
        del self.held[address]
        if wanted < capacity // 2 and (resized, usable(resized)) == (address, capacity):
            self.unshortened += 1
        assert usable(resized) >= wanted
        assert resized % 16 == 0
        assert self.looks_right(resized, min(n, wanted), tag)
        self.keep(resized, wanted)
        return True

    def drop(self, address):
        assert self.looks_right(address, *self.held.pop(address))
        free(address)

    def check(self, limit):
        counters = memory.counters()
        assert counters["footprint"] <= limit
        assert counters["active"] == self.active + sum(map(usable, self.held))


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_keeps_contents_and_counters_and_the_limit(seed):
    rng = random.Random(seed)
    model = Model(rng)
    memlimits.set_memory_policy("strict")
    limit = memory.counters()["footprint"] + 16 * MIB
    memlimits.set_memory_limit(limit)
    refusals, refused = memory.counters()["refusals"], 0
    for step in range(400):
        if model.held and rng.random() < 0.75:
            refused += not model.resize()
        elif len(model.held) < 12 and rng.random() < 0.6:
            refused += not model.make()
        elif model.held:
            model.drop(rng.choice(list(model.held)))
        if step % 100 == 99:
            memlimits.clear_cache()
        model.check(limit)
    assert memory.counters()["refusals"] - refusals == refused + model.unshortened
    for address in list(model.held):
        model.drop(address)
    model.check(limit)
