"""The exceptions: what they carry, what they say, and that they travel between processes."""

import concurrent.futures
import copy
import multiprocessing
import pickle
import traceback

import pytest

import memlimits

pytestmark = pytest.mark.core

NUMBERS = {
    "requested": 1_000_001,
    "limit": 2_000_002,
    "footprint": 3_000_003,
    "active": 4_000_004,
    "cache": 5_000_005,
    "slack": 6_000_006,
}
WAYS_OUT = {
    "limit": ["memory limit", "set_memory_limit()"],
    "system": ["RAM", "swap", "control group"],
    "device": ["map", "ulimit -v"],
    "length": ["max_buffer_length", "smaller"],
    "resources": ["resource_limit", "fewer"],
    "fork": ["Metal", "forked child", "set_start_method('spawn')"],
}
blocked = pytest.mark.parametrize("blocked_by", WAYS_OUT)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def refusal(blocked_by):
    return memlimits.MemoryLimitError(**NUMBERS, blocked_by=blocked_by)


def facts(error):
    return {name: getattr(error, name) for name in [*NUMBERS, "blocked_by"]}


@blocked
def test_a_refusal_carries_its_numbers(blocked_by):
    error = refusal(blocked_by)
    assert facts(error) == {**NUMBERS, "blocked_by": blocked_by}
    assert isinstance(error, MemoryError)
    assert error.args == (*NUMBERS.values(), blocked_by, 0.0, None, 0, 0)


@blocked
def test_a_refusal_is_a_sentence_with_every_number_and_a_way_out(blocked_by):
    text = str(refusal(blocked_by))
    for name, number in NUMBERS.items():
        assert str(number) in text, name
    for words in WAYS_OUT[blocked_by]:
        assert words in text
    assert text.startswith("cannot allocate 1000001 bytes: ")
    assert text.endswith(".")
    assert "\n" not in text


def test_no_two_causes_read_the_same():
    assert len({str(refusal(blocked_by)) for blocked_by in WAYS_OUT}) == len(WAYS_OUT)


@blocked
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refusal_survives_pickling(blocked_by, protocol):
    error = refusal(blocked_by)
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is memlimits.MemoryLimitError
    assert facts(back) == facts(error)
    assert str(back) == str(error)
    assert back.__notes__ == ["a note"]


@blocked
def test_a_refusal_can_be_copied_and_printed(blocked_by):
    error = refusal(blocked_by)
    for copied in (copy.copy(error), copy.deepcopy(error)):
        assert facts(copied) == facts(error)
    (line,) = traceback.format_exception_only(error)
    assert line == f"memlimits.errors.MemoryLimitError: {error}\n"
    assert repr(error).startswith("MemoryLimitError(1000001, ")


def test_a_refusal_without_a_number_is_an_error():
    with pytest.raises(TypeError):
        memlimits.MemoryLimitError("out of memory")


REFUSED = """
import memlimits
memlimits.set_memory_policy("strict")
memlimits.set_memory_limit(5_000_000)
memlimits.allocate(6_000_000)
"""


def test_a_refusal_comes_back_from_a_worker_process():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        future = pool.submit(exec, REFUSED)
        with pytest.raises(memlimits.MemoryLimitError) as caught:
            future.result()
    error = caught.value
    assert (error.requested, error.limit, error.blocked_by) == (6_000_000, 5_000_000, "limit")


def test_a_wired_limit_error_names_both_numbers_and_the_way_out():
    error = memlimits.WiredLimitError(1_000_001, 2_000_002, "Do this.")
    assert (error.requested, error.maximum) == (1_000_001, 2_000_002)
    assert isinstance(error, ValueError)
    text = str(error)
    assert "1000001 bytes" in text
    assert "2000002" in text
    assert "max_recommended_working_set_size" in text
    assert text.endswith("Do this.")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wired_limit_error_survives_pickling(protocol):
    error = memlimits.WiredLimitError(1_000_001, 2_000_002, "Do this.")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is memlimits.WiredLimitError
    assert (back.requested, back.maximum, str(back)) == (1_000_001, 2_000_002, str(error))


def test_a_device_error_is_a_runtime_error():
    error = pickle.loads(pickle.dumps(memlimits.DeviceError("/proc/meminfo: not there")))
    assert isinstance(error, RuntimeError)
    assert str(error) == "/proc/meminfo: not there"
