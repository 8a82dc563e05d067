"""What no wait can help is refused at once; a refusal tells of the instant it was decided at."""

import threading

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.buffer import allocate_in
from support.blocks import refusal_of
from support.functions import free, malloc, realloc
from support.patience import LIMIT, until
from support.threads import in_thread, run_threads
from support.units import MIB
from support.waiting import asking, waiting

pytestmark = pytest.mark.inside


def blocked_by(allocator, size):
    return refusal_of(allocator, size).blocked_by


@pytest.mark.core
def test_more_than_the_limit_is_not_waited_for():
    allocator = waiting()
    with allocate_in(allocator, 8 * MIB):
        error = refusal_of(allocator, LIMIT + 1)
    assert (error.blocked_by, error.waited) == ("limit", 0)
    assert allocator.counters()["waits"] == 0


@pytest.mark.core
def test_nor_what_is_longer_than_any_block():
    allocator = waiting()
    error = refusal_of(allocator, 1 << 60)
    assert (error.blocked_by, error.waited) == ("max_buffer_length", 0)


@pytest.mark.core
def test_nor_when_others_wait():
    """It is not their fault."""
    allocator = waiting()
    held = allocate_in(allocator, 40 * MIB)
    with asking(allocator) as threads:
        threads.ask("waits", 40 * MIB)
        assert blocked_by(allocator, LIMIT + 1) == "limit"
        assert allocator.counters()["waits"] == 1
        held.release()
        threads.until_served("waits")


@pytest.fixture
def patient(patient):
    """Who waits holds a block, too."""
    with memlimits.allocate(MIB):
        yield


def test_nor_numpys_arrays(patient, govern):
    np = pytest.importorskip("numpy")
    with pytest.raises(MemoryError):
        np.empty(memlimits.get_memory_limit() + 1, np.uint8)
    assert (memlimits.last_refusal().blocked_by, memlimits.last_refusal().waited) == ("limit", 0)


def test_nor_a_block_that_is_to_be_longer(patient):
    """What it is now stays in use until it is."""
    address = malloc(32 * MIB)
    assert realloc(address, memlimits.get_memory_limit() + 1) is None
    assert (memlimits.last_refusal().blocked_by, memlimits.last_refusal().waited) == ("limit", 0)
    free(address)


def test_nor_a_reservation(patient):
    with (
        memlimits.reserve(MIB),
        pytest.raises(memlimits.MemoryLimitError) as caught,
        memlimits.reserve(memlimits.get_memory_limit() + 1),
    ):
        pass
    assert (caught.value.blocked_by, caught.value.waited) == ("limit", 0)


def test_nor_in_a_budget(patient):
    """The budget says so, or else the limit."""
    for limit, cause in ((MIB, "budget"), (None, "limit")):
        with memlimits.budget("b", limit), pytest.raises(memlimits.MemoryLimitError) as caught:
            memlimits.allocate(memlimits.get_memory_limit() + 1)
        assert (caught.value.blocked_by, caught.value.waited) == (cause, 0)


@pytest.mark.core
def test_a_lower_limit_refuses_those_for_whom_it_is_too_low():
    """First in the queue or not; the others wait on."""
    allocator = waiting()
    held = allocate_in(allocator, 60 * MIB)
    with asking(allocator) as threads:
        for name, size in (("a", 60 * MIB), ("b", 20 * MIB), ("c", 50 * MIB)):
            threads.ask(name, size)
        allocator.set_memory_limit(32 * MIB)
        until(lambda: len(threads.errors) == 2)
        errors = sorted(threads.errors, key=lambda error: error[0])
        del threads.errors[:]
        assert [(name, error.blocked_by, error.limit) for name, error in errors] == [
            ("a", "limit", 32 * MIB),
            ("c", "limit", 32 * MIB),
        ]
        assert allocator.counters()["waiting"] == 1
        held.release()
        threads.until_served("b")


@pytest.mark.core
def test_who_waits_behind_others_with_room_is_refused_by_the_queue():
    allocator = waiting()
    held = allocate_in(allocator, 40 * MIB)
    with asking(allocator) as threads:
        threads.ask("large", 60 * MIB)
        allocator.set_memory_policy("wait", 0.05)
        error = in_thread(lambda: refusal_of(allocator, MIB))
        assert error.blocked_by == "queue"
        assert error.active + error.slack + error.requested <= error.limit
        assert error.waited >= 0.05
        assert " s: other threads wait for memory, and come first. Limit" in str(error)
        held.release()
        threads.until_served("large")
    statistics = allocator.statistics(False)
    assert (statistics["refusals_by_queue"], statistics["refusals_by_limit"]) == (1, 0)


@pytest.mark.core
def test_who_waits_behind_others_without_room_is_not():
    allocator = waiting()
    held = allocate_in(allocator, 40 * MIB)
    with asking(allocator) as threads:
        threads.ask("large", 60 * MIB)
        allocator.set_memory_policy("wait", 0.05)
        assert in_thread(lambda: blocked_by(allocator, 30 * MIB)) == "limit"
        held.release()
        threads.until_served("large")


@pytest.mark.core
def test_there_is_one_more_look_when_the_time_is_up():
    """So its numbers are of then: another thread's limit is lower by then, and not too low."""
    allocator = waiting(timeout=0.3)
    with allocate_in(allocator, 20 * MIB):
        errors = []
        thread = threading.Thread(target=lambda: errors.append(refusal_of(allocator, 50 * MIB)))
        thread.start()
        until(lambda: allocator.counters()["waiting"] == 1)
        allocator.set_memory_limit(52 * MIB)
        thread.join(20)
    assert errors[0].limit == 52 * MIB


def test_the_numbers_are_those_that_refused(storm):
    """Other threads allocate and free meanwhile, without the GIL."""
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(memlimits.get_active_memory() + 16 * MIB)
    before, earlier = memory.counters()["refusals"], repr(memory.latest_refusal())
    disagree = []
    done = threading.Event()

    def watch():
        while not done.is_set():
            error = memory.latest_refusal()
            if repr(error) == earlier:
                continue
            if error.active + error.slack + error.requested <= error.limit:
                disagree.append(error)

    def work():
        try:
            storm(8, 3000, 2, 12, 17, 2**62)
        finally:
            done.set()

    run_threads(work, watch)
    assert memory.counters()["refusals"] > before
    assert disagree == []
