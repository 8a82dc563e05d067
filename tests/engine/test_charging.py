"""Who is charged for a block, from when to when, and what is refused."""

import pytest

import memlimits
from memlimits import memory
from support.accounts import charge_for, leave, own_the_heap
from support.functions import WithGil
from support.process import run
from support.threads import in_thread, run_threads
from support.units import KIB, MIB, PAGE


@pytest.mark.core
def test_a_block_is_charged_until_it_is_freed_wherever_that_is():
    with memlimits.budget("weights") as budget:
        blocks = [memlimits.allocate(n) for n in (1, 64, 65, 5000, 32 * KIB, 40 * KIB, MIB)]
        charged = sum(charge_for(n) for n in (1, 64, 65, 5000, 32 * KIB, 40 * KIB, MIB))
        assert budget.active == charged
    after = memlimits.allocate(MIB)
    assert budget.active == charged
    in_thread(lambda: [block.release() for block in blocks[::2]])
    blocks.clear()
    assert (budget.active, budget.peak) == (0, charged)
    assert after.nbytes == MIB


@pytest.mark.core
def test_nothing_is_charged_that_would_be_freed_without_a_look():
    """Free pieces of a slab whose thread frees without a look are for what nobody is charged."""
    run(
        """
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(8 * MIB)
        pieces = [memlimits.allocate(1000) for _ in range(3)]
        for _ in range(20000):  # the thread's frees do so once nobody else wants its heap
            memlimits.allocate(1000)
        held = []
        for size in MIB, 40 << 10, 20 << 10, 4096:
            while memlimits.would_fit(size):
                held.append(memlimits.allocate(size))
        with memlimits.budget("part") as part:
            assert memlimits.would_fit(1000).blocked_by == refused_by(1000) == "limit"
            assert part.active == 0
            del held[0]
            blocks = [memlimits.allocate(1000) for _ in range(4)]
            assert part.active == 4 * 1024
            blocks.clear()
            assert part.active == 0
        assert memlimits.would_fit(1000)
        pieces.append(memlimits.allocate(1000))
        """
    )


@pytest.mark.core
def test_what_is_charged_is_no_piece_of_the_threads_own_slabs(strict):
    """Near the limit, where idle memory is looked for. Who frees such a piece asks no account."""
    own_the_heap()
    plain = memlimits.allocate(100)
    rest = leave(2 * PAGE)
    with memlimits.budget("b") as budget:
        block = memlimits.allocate(100)
        assert budget.active == 128
        block.release()
        assert budget.active == 0
        filled = memlimits.allocate(2 * PAGE)
        assert not memlimits.would_fit(100)
        with pytest.raises(memlimits.MemoryLimitError):
            memlimits.allocate(100)
    assert memlimits.would_fit(100)
    assert memlimits.allocate(100).nbytes == plain.nbytes
    del rest, filled


@pytest.mark.core
def test_what_is_charged_is_no_piece_of_them_below_a_peak_either(strict):
    """There is headroom then: heaps need not stop to find one."""
    own_the_heap()
    plain, idle = memlimits.allocate(100), memlimits.allocate(MIB)
    rest = leave(0)
    idle.release()
    with memlimits.budget("b") as budget:
        memlimits.allocate(100).release()
        assert budget.active == 0
    del plain, rest


@pytest.mark.core
def test_what_was_charged_once_is_had_again_for_nothing(strict):
    """By threads that are not charged: a whole resource, a piece of a slab, and a former slab."""
    with memlimits.budget("b") as budget:
        memlimits.allocate(MIB).release()
    in_thread(memlimits.allocate(MIB).release)
    assert budget.active == 0

    with budget:
        first, second = (memlimits.allocate(7000) for _ in range(2))
    first.release()
    with leave(0):
        memlimits.allocate(7000).release()
        assert budget.active == charge_for(7000)
        second.release()
        assert budget.active == 0
        misses = memory.counters()["misses"]
        plain = memlimits.allocate(64 * KIB)
        assert memory.counters()["misses"] == misses
        in_thread(plain.release)
        assert budget.active == 0


@pytest.mark.core
def test_a_slab_of_what_was_charged_whole_takes_its_list_along(strict):
    """Whoever has the whole resource next is charged nothing, and may use all of it."""
    memlimits.set_memory_limit(memory.counters()["footprint"] + 64 * KIB)
    memlimits.allocate(64 * KIB).release()
    misses = memory.counters()["misses"]
    with memlimits.budget("b"):
        memlimits.allocate(60_000).release()
        memlimits.allocate(320).release()
    block = WithGil.malloc(64 * KIB)
    assert memory.counters()["misses"] == misses
    usable = WithGil.usable_size(block)
    WithGil.free(block)
    assert usable == 64 * KIB


@pytest.mark.host
def test_slabs_take_their_lists_of_accounts_along():
    run("""
        def churn(times):
            with memlimits.budget("b"):
                for _ in range(times):
                    memlimits.allocate(64).release()
                    memlimits.clear_cache()

        churn(100)
        before = proc("VmData")
        churn(1000)     # 8 KiB each
        assert proc("VmData") - before < 4 * MIB
    """)


@pytest.mark.core
def test_a_child_is_charged_to_its_parents():
    with memlimits.budget("outer") as outer:
        with memlimits.budget("inner") as inner:
            block = memlimits.allocate(MIB)
        other = memlimits.allocate(2 * MIB)
        assert (outer.active, inner.active) == (3 * MIB, MIB)
    del block, other
    assert (outer.active, outer.peak, inner.active, inner.peak) == (0, 3 * MIB, 0, MIB)


@pytest.mark.core
def test_what_is_refused_makes_no_peak(strict):
    with memlimits.budget("outer") as outer, memlimits.budget("inner") as inner:
        block = memlimits.allocate(MIB)
        with pytest.raises(memlimits.MemoryLimitError):
            memlimits.allocate(64 * MIB)
        assert (outer.peak, inner.peak) == (MIB, MIB)
    assert block.nbytes


@pytest.mark.core
def test_threads_charge_the_same_budget_and_never_pass_its_limit():
    limit = MIB
    refused = []

    def part(seed):
        with memlimits.budget("contended", limit=limit) as budget:
            held = []
            for i in range(400):
                n = (i * seed * 7919) % (MIB // 2) + 1
                try:
                    held.append(memlimits.allocate(n))
                except memlimits.MemoryLimitError as error:
                    refused.append(error.budget_active + charge_for(n))
                assert budget.active <= limit
                if len(held) > 5:
                    held.pop(i % 5).release()

    run_threads(*(lambda seed=seed: part(seed) for seed in (1, 2, 3, 5)))
    (budget,) = (b for b in memory.budgets() if b["name"] == "contended")
    assert budget["active"] == 0
    assert budget["peak"] <= limit
    assert refused
    assert min(refused) > limit
