"""The exceptions: what they carry, what they say, and that they travel between processes."""

import concurrent.futures
import copy
import multiprocessing
import pickle
import traceback

import pytest

import memlimits
from memlimits.sizes import format_exact

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
    "max_buffer_length": ["max_buffer_length", "smaller"],
    "resources": ["resource_limit", "fewer"],
    "pool": ["all processes", "fewer at a time"],
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
    assert error.args == (
        *NUMBERS.values(),
        blocked_by,
        0.0,
        None,
        0,
        0,
        "given",
        0,
        0,
        0,
        0,
        (),
        0,
    )


@blocked
def test_a_refusal_is_a_sentence_with_every_number_and_a_way_out(blocked_by):
    text = str(refusal(blocked_by))
    for name, number in NUMBERS.items():
        assert f" {format_exact(number)}" in text, name
    for words in WAYS_OUT[blocked_by]:
        assert words in text
    assert text.startswith("cannot allocate 976.56 KiB (1,000,001 bytes): ")
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


def made_from(text):
    """Of every class: as libraries do that raise a worker's error again."""
    return [
        kind(*text)
        for kind in vars(memlimits.errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]


@pytest.mark.parametrize("text", [(), ("Caught it in a worker.",)])
def test_every_error_can_be_made_from_a_text(text):
    errors = made_from(text)
    assert len(errors) == 3
    for error in errors:
        assert str(error) == "".join(text)
        for back in travelled(error):
            assert (type(back), str(back), back.args) == (type(error), str(error), error.args)


def test_an_error_that_was_made_from_a_text_has_no_numbers():
    error = memlimits.MemoryLimitError("Caught it in a worker.")
    assert facts(error) == {**dict.fromkeys(NUMBERS, 0), "blocked_by": "unknown"}
    assert (error.waited, error.budget, error.budget_limit, error.budget_active) == (0, None, 0, 0)
    error = memlimits.WiredLimitError("Caught it in a worker.")
    assert (error.requested, error.maximum) == (0, 0)


def travelled(error):
    """The error after each way to copy it."""
    yield copy.copy(error)
    yield copy.deepcopy(error)
    for protocol in PROTOCOLS:
        yield pickle.loads(pickle.dumps(error, protocol))


class Task(memlimits.MemoryLimitError):
    """With a constructor of its own."""

    def __init__(self, task, *, numbers):
        super().__init__(**numbers, blocked_by="budget", waited=1.5, budget="b", budget_limit=7)
        self.task = task


class Wired(memlimits.WiredLimitError):
    def __init__(self, *, maximum):
        super().__init__(9, maximum, "Do this.")


class Device(memlimits.DeviceError):
    def __init__(self, *, device):
        super().__init__(f"{device} is gone")
        self.device = device


@pytest.mark.parametrize(
    "make",
    [
        lambda: Task(3, numbers=NUMBERS),
        lambda: Wired(maximum=8),
        lambda: Device(device="it"),
        lambda: memlimits.WiredLimitError(9, 8, "Do this."),
        lambda: memlimits.DeviceError("it is gone"),
    ],
)
def test_an_error_travels_with_all_it_has(make):
    error = make()
    error.add_note("a note")
    error.own = "of the program"
    error.__cause__ = KeyError("why")
    for back in travelled(error):
        assert type(back) is type(error)
        assert vars(back) == vars(error)
        assert (str(back), back.args) == (str(error), error.args)


def test_an_error_without_its_constructor_can_be_printed():
    for error in made_from(()):
        bare = type(error).__new__(type(error))
        assert str(bare) == ""
        assert vars(bare) == {}
        assert traceback.format_exception_only(bare)


def test_a_cause_that_is_not_known_is_named():
    text = str(refusal("the moon"))
    assert text.startswith(
        "cannot allocate 976.56 KiB (1,000,001 bytes): it was blocked by the moon. "
    )
    assert text.endswith("cache 4.77 MiB (5,000,005 bytes), slack 5.72 MiB (6,000,006 bytes).")


def test_a_constructor_that_runs_again_forgets_the_first():
    error = refusal("limit")
    error.__init__("a text")
    assert str(error) == "a text"
    assert facts(error) == {**dict.fromkeys(NUMBERS, 0), "blocked_by": "unknown"}


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
    assert "a wired limit of 976.56 KiB (1,000,001 bytes) is above" in text
    assert "the system's 1.91 MiB (2,000,002 bytes)" in text
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


def test_one_of_a_number_alone_is_a_sentence():
    assert str(memlimits.MemoryLimitError(5)) == "cannot allocate 5 B"
    assert str(memlimits.MemoryLimitError("5")) == "5"
