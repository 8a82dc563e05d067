"""Broken shims: each makes a test fail that passes with one that was left whole."""

import re
from typing import NamedTuple

import pytest

from support.metal import stand_in
from support.places import OBJC
from support.shim import Shim

pytestmark = [
    pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal"),
]

TESTS = {
    "outlives": "device/test_metal.py::test_nothing_of_metals_outlives_its_allocator",
    "32 sets": "residency/test_residency_sets.py::test_many_blocks_stay_within_32_sets",
    "commits": "device/test_metal.py::test_one_commit_for_each_touched_set",
    "purgeable": "engine/test_purgeable.py::test_purgeable_memory_is_used_again[False]",
    "queue": "bindings/test_metal_queue.py::test_a_queue_is_retained_until_it_is_detached",
    "resources": "device/test_metal_refusals.py::test_a_buffer_that_was_not_made_is_not_counted",
    "facts": "device/test_metal.py::test_facts",
}


class Mutant(NamedTuple):
    source: str
    old: str
    new: str
    test: str
    says: str  # a regular expression: what becomes of the test


MUTANTS = {
    "dropped release": Mutant(
        "metal_buffer.m",
        "[buffer->metal release];",
        "",
        "32 sets",
        r"fake_metal: leak: FakeBuffer",
    ),
    "missing commit": Mutant(
        "metal_residency.m",
        "[set->metal commit];",
        "",
        "32 sets",
        r"assert 0 == 134217728\n.* where 0 = locked\(\)",
    ),
    "missing request": Mutant(
        "metal_residency.m",
        "[set->metal requestResidency];",
        "",
        "32 sets",
        r"assert 0 == 134217728\n.* where 0 = locked\(\)",
    ),
    "wrong selector": Mutant(
        "metal_buffer.m",
        "newBufferWithLength:length",
        "newBufferWithLenght:length",
        "32 sets",
        r"unrecognized selector: -\[FakeDevice newBufferWithLenght:options:\]",
    ),
    "wrong options": Mutant(
        "metal_buffer.m",
        "MTLResourceHazardTrackingModeUntracked",
        "MTLResourceHazardTrackingModeTracked",
        "32 sets",
        r"options:0x200: buffers are to be shared and untracked",
    ),
    "use after release": Mutant(
        "metal_residency.m",
        "[set->metal endResidency];",
        "{ [set->metal release]; [set->metal endResidency]; }",
        "outlives",
        r"use after release: -\[FakeResidencySet endResidency\] was sent to a released object",
    ),
    "over-release": Mutant(
        "metal_residency.m",
        "[descriptor release];",
        "[descriptor release]; [descriptor release];",
        "32 sets",
        r"-\[MTLResidencySetDescriptor release\] was sent to a released object",
    ),
    "dropped release of a descriptor": Mutant(
        "metal_residency.m",
        "[descriptor release];",
        "",
        "32 sets",
        r"fake_metal: leak: MTLResidencySetDescriptor",
    ),
    "removed though never added": Mutant(
        "metal_residency.m",
        "[set->metal addAllocation:buffer->metal];",
        "",
        "commits",
        r"removeAllocation: of a buffer that is not in the set",
    ),
    "missing removal": Mutant(
        "metal_residency.m",
        "[set->metal removeAllocation:buffer->metal];",
        "",
        "32 sets",
        r"assert 134217728 == 0\n.* where 134217728 = locked\(\)",
    ),
    "attached without a retain": Mutant(
        "metal_queue.m",
        "[(id<MTLCommandQueue>)native retain]",
        "(id<MTLCommandQueue>)native",
        "queue",
        r"assert False\n.* where False = is_alive\(",
    ),
    "never attached": Mutant(
        "metal_queue.m",
        "[queue->metal addResidencySet:set->metal];",
        "",
        "queue",
        r"assert 0 == 2\n.* where 0 = attached_sets\(",
    ),
    "purgeable for ever": Mutant(
        "metal_buffer.m",
        "purgeable ? MTLPurgeableStateVolatile",
        "1 ? MTLPurgeableStateVolatile",
        "purgeable",
        r"a buffer's contents were touched while volatile or empty",
    ),
    "counted in twice": Mutant(
        "metal_buffer.m",
        "n + 1, true",
        "n + 2, true",
        "resources",
        r"MemoryLimitError: .*the system allows no further resource",
    ),
    "counted in for ever": Mutant(
        "metal_buffer.m",
        "        if (!buffer->metal) {\n            count_out();",
        "        if (!buffer->metal) {",
        "resources",
        r"AssertionError",
    ),
    "missing pool": Mutant(
        "metal_device.m",
        "@autoreleasepool {\n        id<MTLDevice> metal = MTL",
        "{\n        id<MTLDevice> metal = MTL",
        "facts",
        r"MTLCreateSystemDefaultDevice with no autorelease pool open",
    ),
}


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return Shim(tmp_path_factory.mktemp("shim"))


def test_a_whole_shim_passes(shim):
    shim.link()
    done = shim.pytest(*TESTS.values())
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_shim_fails(shim, name):
    mutant = MUTANTS[name]
    text = (OBJC / mutant.source).read_text()
    assert text.count(mutant.old) == 1
    shim.link(mutant.source, text.replace(mutant.old, mutant.new))
    done = shim.pytest(TESTS[mutant.test])
    assert done.returncode != 0
    assert re.search(mutant.says, done.stdout), done.stdout
