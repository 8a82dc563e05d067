"""memlimits.metal.attach over the stand-in, which says what is attached to a command queue."""

import random
import re
import threading
import time

import numpy
import pytest

import memlimits
from memlimits import _modules
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.metal import (
    MAKE_QUEUE,
    attached_sets,
    command_queue,
    contents,
    count,
    fail,
    is_alive,
    run_with,
    stand_in,
)
from support.places import ROOT
from support.process import run
from support.threads import run_threads
from support.units import MIB

pytestmark = pytest.mark.inside

attach, detach = _modules.for_metal().attach, _modules.for_metal().detach

on_metal = pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal")

NEW_SET = "newResidencySetWithDescriptor:error:"


@pytest.fixture
def allocator():
    """One whose residency sets take 2 MiB."""
    return Allocator(Device(), residency_set_cap=2 * MIB)


@pytest.fixture
def queue():
    with command_queue() as queue:
        yield queue


def wired(allocator, sets):
    """Blocks that fill so many residency sets."""
    allocator.set_wired_limit(256 * MIB)
    return [allocate_in(allocator, 2 * MIB) for _ in range(sets)]


@on_metal
def test_the_sets_there_are_and_those_to_come_are_attached(allocator, queue):
    held = wired(allocator, 3)
    attach(allocator, queue)
    assert attached_sets(queue) == 3
    held += [allocate_in(allocator, 2 * MIB) for _ in range(4)]
    assert attached_sets(queue) == 7
    with command_queue() as second:
        attach(allocator, second)
        assert attached_sets(second) == 7
        held.append(allocate_in(allocator, 2 * MIB))
        assert (attached_sets(queue), attached_sets(second)) == (8, 8)
        detach(allocator, second)
        held.append(allocate_in(allocator, 2 * MIB))
        assert (attached_sets(queue), attached_sets(second)) == (9, 0)


@on_metal
def test_raising_the_limit_attaches_the_sets_it_makes(allocator, queue):
    attach(allocator, queue)
    held = [allocate_in(allocator, 2 * MIB) for _ in range(5)]
    assert attached_sets(queue) == 0
    allocator.set_wired_limit(6 * MIB)
    assert attached_sets(queue) == 3
    allocator.set_wired_limit(256 * MIB)
    assert attached_sets(queue) == len(held)


@on_metal
def test_never_more_than_32(allocator, queue):
    attach(allocator, queue)
    held = wired(allocator, 64)
    assert attached_sets(queue) == 32
    assert count("resident_bytes") == 2 * MIB * len(held)


@on_metal
def test_with_a_limit_of_zero_no_set_is_attached(allocator, queue):
    made = count(NEW_SET)
    attach(allocator, queue)
    held = [allocate_in(allocator, MIB) for _ in range(8)]
    allocator.set_wired_limit(0)
    assert attached_sets(queue) == 0
    assert count(NEW_SET) == made
    held += wired(allocator, 3)
    allocator.set_wired_limit(0)
    before = attached_sets(queue)
    with command_queue() as second:
        attach(allocator, second)
        allocator.set_wired_limit(0)
        assert (attached_sets(queue), attached_sets(second)) == (before, 0)
        allocator.set_wired_limit(256 * MIB)
        assert attached_sets(second) == attached_sets(queue) == before
        detach(allocator, second)
    assert len(held) == 11


@on_metal
def test_a_queue_is_retained_until_it_is_detached(allocator):
    held = wired(allocator, 2)
    with command_queue() as queue:
        attach(allocator, queue)
    assert is_alive(queue)
    assert attached_sets(queue) == len(held)
    detach(allocator, queue)
    assert not is_alive(queue)


@on_metal
def test_detaching_leaves_what_is_wired_and_may_be_undone(allocator, queue):
    held = wired(allocator, 2)
    for _ in range(3):
        attach(allocator, queue)
        assert attached_sets(queue) == 2
        detach(allocator, queue)
        assert attached_sets(queue) == 0
    detach(allocator, queue)  # is ignored
    assert count("resident_bytes") == allocator.get_wired_memory() == 2 * MIB * len(held)


@on_metal
def test_an_allocator_that_goes_takes_its_sets_off_the_queue(queue):
    before = [count(name) for name in ("sets", "queues", "objects")]
    allocator = Allocator(Device(), residency_set_cap=2 * MIB)
    held = wired(allocator, 4)
    attach(allocator, queue)
    assert attached_sets(queue) == len(held)
    del allocator, held
    assert attached_sets(queue) == 0
    assert [count(name) for name in ("sets", "queues", "objects")] == before


@on_metal
def test_sets_of_others_stay(allocator, queue):
    other = Allocator(Device(), residency_set_cap=2 * MIB)
    blocks = wired(allocator, 3) + wired(other, 2)
    attach(allocator, queue)
    attach(other, queue)
    assert attached_sets(queue) == len(blocks)
    detach(allocator, queue)
    assert attached_sets(queue) == 2


@on_metal
def test_where_no_set_can_be_made_nothing_is_attached(allocator, queue):
    attach(allocator, queue)
    fail(NEW_SET, -1)
    try:
        with pytest.warns(RuntimeWarning, match="could not be kept resident"):
            held = wired(allocator, 2)
    finally:
        fail(NEW_SET, 0)
    assert attached_sets(queue) == 0
    allocator.set_wired_limit(200 * MIB)
    assert attached_sets(queue) == len(held)


@on_metal
def test_the_same_queue_twice_is_an_error(allocator, queue):
    held = wired(allocator, 2)
    attach(allocator, queue)
    retains = count("retains")
    with pytest.raises(ValueError, match=f"{queue:#x} is attached already"):
        attach(allocator, queue)
    assert count("retains") == retains
    assert attached_sets(queue) == len(held)
    detach(allocator, queue)
    assert attached_sets(queue) == 0


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0, ValueError, "not 0"),
        (-16, ValueError, "not -16"),
        (1 << 64, ValueError, str(1 << 64)),
        (Index(10**5000), ValueError, "16610 bits"),
        (4097, ValueError, "not 4097"),
        (Index(-1), ValueError, "not -1"),
        (True, TypeError, "True"),
        (numpy.True_, TypeError, "bool"),
        (1.0, TypeError, "not the float 1.0"),
        ("16", TypeError, "not the str '16'"),
        (None, TypeError, "NoneType"),
        (b"queue", TypeError, "bytes"),
    ],
)
def test_what_is_no_address_is_an_error(value, error, words):
    with pytest.raises(error, match=words) as caught:
        memlimits.metal.attach(value)
    assert "address of a command queue" in str(caught.value)
    assert len(str(caught.value)) < 200


@on_metal
def test_another_object_than_a_queue_is_an_error(allocator):
    block = allocate_in(allocator, MIB)
    address, _ = block.metal_buffer
    objects, retains = count("objects"), count("retains")
    with pytest.raises(memlimits.DeviceError, match="no command queue"):
        attach(allocator, address)
    assert (count("objects"), count("retains")) == (objects, retains)


@pytest.mark.host
def test_on_the_host_there_is_no_metal():
    with pytest.raises(memlimits.DeviceError, match=r"no Metal here.*host device"):
        memlimits.metal.attach(id(object()))


@on_metal
def test_an_attachment_ends_with_its_block_or_close(queue):
    block = memlimits.allocate(MIB)
    memlimits.set_wired_limit(16 * MIB)
    with memlimits.metal.attach(queue) as attachment:
        assert attached_sets(queue) >= 1
        with pytest.raises(ValueError, match="attached already"):
            memlimits.metal.attach(queue)
    assert attached_sets(queue) == 0
    second = memlimits.metal.attach(Index(queue))
    attachment.close()  # the first's: does nothing
    assert attached_sets(queue) >= 1
    second.close()
    second.close()
    assert attached_sets(queue) == 0
    assert block.nbytes == MIB


@on_metal
def test_an_attachment_that_is_dropped_stays(queue):
    block = memlimits.allocate(MIB)
    memlimits.set_wired_limit(16 * MIB)
    memlimits.metal.attach(queue)
    assert attached_sets(queue) >= 1
    detach(memlimits.memory.default_allocator(), queue)
    assert attached_sets(queue) == 0
    assert block.nbytes == MIB


@on_metal
def test_queues_come_and_go_while_others_wire(allocator):
    done = threading.Event()
    made = count(NEW_SET)
    allocator.set_wired_limit(64 * MIB)

    def work(seed):
        rng = random.Random(seed)
        held = []
        while not done.is_set():
            held.append(allocate_in(allocator, rng.randrange(1, 5) * MIB))
            if len(held) > 6:
                held.pop(0).release()
            if rng.random() < 0.05:
                allocator.set_wired_limit(rng.choice([0, 8 * MIB, 64 * MIB]))

    def queues():
        try:
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                with command_queue() as queue:
                    attach(allocator, queue)
                    detach(allocator, queue)
                    assert attached_sets(queue) == 0
        finally:
            done.set()

    run_threads(queues, lambda: work(1), lambda: work(2))
    with command_queue() as queue:
        allocator.set_wired_limit(64 * MIB)
        attach(allocator, queue)
        assert attached_sets(queue) == count(NEW_SET) - made > 1
        detach(allocator, queue)


@on_metal
def test_the_guides_lines(queue):
    guide = (ROOT / "docs/guides/macos.md").read_text()
    (lines,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    names = {"memlimits": memlimits, "queue": queue}
    exec(lines, names)
    assert is_alive(names["address"])
    assert names["weights"].ptr == contents(names["address"]) + names["offset"]
    assert count("resident_bytes") == names["weights"].capacity
    assert attached_sets(queue) == 0


@on_metal
@pytest.mark.parametrize("settings", ["older_macos=1", "no_residency_family"])
def test_without_residency_sets_attaching_does_nothing(settings):
    done = run_with(
        MAKE_QUEUE
        + """
memlimits.set_wired_limit(1 << 30)
with memlimits.metal.attach(queue):
    assert attached_sets(queue) == 0
    try:
        memlimits.metal.attach(queue)
    except ValueError as error:
        assert "attached already" in str(error)
    else:
        raise AssertionError
stand_in().fake_metal_queue_destroy(queue)
assert not is_alive(queue)
""",
        settings,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_metal_is_imported_when_it_is_used():
    run("""
        assert not [name for name in sys.modules if name.endswith("metal")]
        assert "metal" in dir(memlimits)
        assert memlimits.metal.attach is sys.modules["memlimits.metal"].attach
        from memlimits import metal
        assert metal is memlimits.metal
    """)
