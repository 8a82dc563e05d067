"""Arguments of the documented functions: numbers of bytes, and policies."""

import numpy
import pytest

import memlimits
from memlimits import memory
from support.blocks import counts
from support.units import MIB

pytestmark = pytest.mark.core


def limits():
    return (
        memlimits.get_memory_limit(),
        memlimits.get_cache_limit(),
        memlimits.get_wired_limit(),
        memory.get_memory_policy(),
    )


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


BAD = [
    pytest.param(-1, ValueError, "not -1", id="negative"),
    pytest.param(-(2**63) - 1, ValueError, str(-(2**63) - 1), id="very negative"),
    pytest.param(2**64, ValueError, str(2**64), id="2**64"),
    pytest.param(10**5000, ValueError, "16610 bits", id="10**5000"),
    pytest.param(-(10**5000), ValueError, "16610 bits", id="-10**5000"),
    pytest.param(Index(-7), ValueError, "not -7", id="negative __index__"),
    pytest.param(1.0, TypeError, "float", id="float"),
    pytest.param(float("nan"), TypeError, "float", id="nan"),
    pytest.param(numpy.float64(1), TypeError, "float64", id="numpy.float64"),
    pytest.param("1", TypeError, "str", id="str"),
    pytest.param(b"1", TypeError, "bytes", id="bytes"),
    pytest.param([1], TypeError, "list", id="list"),
    pytest.param(True, TypeError, "True", id="True"),
    pytest.param(False, TypeError, "False", id="False"),
    pytest.param(numpy.True_, TypeError, "bool", id="numpy.bool"),
    pytest.param(Index(ZeroDivisionError("own")), ZeroDivisionError, "own", id="raising"),
    pytest.param(Index(OverflowError("own")), OverflowError, "own", id="overflowing"),
    pytest.param(Index("1"), TypeError, "int", id="__index__ of str"),
]

TAKES_BYTES = [
    memlimits.set_memory_limit,
    memlimits.set_cache_limit,
    memlimits.set_wired_limit,
    memlimits.allocate,
]


@pytest.mark.parametrize(("value", "error", "words"), BAD)
def test_a_bad_number_is_an_error_and_nothing_else(value, error, words):
    before = (limits(), counts(memory))
    for function in TAKES_BYTES:
        with pytest.raises(error, match=words) as caught:
            function(value)
        assert type(caught.value) is error
        assert len(str(caught.value)) < 200
        assert (limits(), counts(memory)) == before


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, numpy.uint64(2**63), Index(2**63)])
def test_a_size_that_no_block_has_is_an_error_and_a_limit_is_none(value):
    before = (limits(), counts(memory))
    for function in (memlimits.allocate, memlimits.reserve, memlimits.would_fit, memlimits.trim):
        with pytest.raises(ValueError, match=r"2\*\*63 - 1 bytes, not "):
            function(value)
    with pytest.raises(memlimits.WiredLimitError, match="max_recommended_working_set_size"):
        memlimits.set_wired_limit(value)
    assert (limits(), counts(memory)) == before
    default = memlimits.set_memory_limit(value)
    assert memlimits.get_memory_limit() == memlimits.get_cache_limit() == value.__index__()
    assert memlimits.set_cache_limit(value) == value.__index__()
    assert memlimits.set_cache_limit(None) == value.__index__()
    assert memlimits.set_memory_limit(default) == value.__index__()


def test_a_cache_without_a_limit_keeps_all_where_the_memory_limit_is_passed():
    for limit in (2**63 - 1, 2**64 - 1):
        memlimits.set_cache_limit(limit)
        memlimits.set_memory_limit(MIB)
        held = memlimits.allocate(8 * MIB)
        memlimits.set_memory_limit(2**64 - 1)
        held.release()
        assert memlimits.get_cache_memory() == 8 * MIB
        memlimits.clear_cache()


def test_no_limit_is_shown_as_none():
    memlimits.set_memory_limit(2**64 - 1)
    stats = memlimits.stats()
    assert stats.memory_limit == stats.cache_limit == 2**64 - 1
    lines = dict(line.split(maxsplit=1) for line in repr(stats).splitlines()[1:])
    assert lines["memory_limit"] == lines["cache_limit"] == "none"
    with pytest.raises(memlimits.MemoryLimitError, match="Limit none, footprint") as caught:
        memlimits.allocate(2**62)
    assert caught.value.limit == 2**64 - 1


def test_a_budget_without_a_limit_takes_the_one_away_that_it_had():
    with memlimits.budget("outer", MIB):
        with memlimits.budget("b", MIB) as budget:
            assert budget.limit == MIB
        with memlimits.budget("b", 2**63):
            assert memory.budgets()[-1]["limit"] is None
            assert memlimits.effective_limit().tightest == "budget"
            assert [c.name for c in memlimits.effective_limit().candidates].count("outer/b") == 0


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_a_missing_or_second_argument_is_an_error(arguments):
    before = limits()
    for function in TAKES_BYTES:
        with pytest.raises(TypeError, match="argument"):
            function(*arguments)
    assert limits() == before


@pytest.mark.parametrize(
    "function", [memlimits.set_memory_limit, memlimits.set_wired_limit, memlimits.allocate]
)
def test_none_means_something_for_the_cache_limit_only(function):
    before = limits()
    with pytest.raises(TypeError, match="NoneType"):
        function(None)
    assert limits() == before


@pytest.mark.parametrize("value", [4096, Index(4096), numpy.int16(4096), numpy.uint64(4096)])
def test_anything_with_index_is_a_number_of_bytes(value):
    memlimits.set_memory_limit(value)
    assert memlimits.get_memory_limit() == 4096
    memlimits.set_memory_limit(MIB)
    memlimits.set_cache_limit(value)
    assert memlimits.get_cache_limit() == 4096
    memlimits.set_wired_limit(value)
    assert memlimits.get_wired_limit() == 4096
    assert memlimits.allocate(value).nbytes == 4096
    assert type(memlimits.get_cache_limit()) is int


@pytest.mark.parametrize("policy", ["", "STRICT", "WAIT", "strict "])
def test_an_unknown_policy_is_an_error(policy):
    with pytest.raises(ValueError, match=repr(policy)):
        memlimits.set_memory_policy(policy)
    assert memory.get_memory_policy() == "guideline"


@pytest.mark.parametrize("policy", [None, 0, b"strict", ["strict"]])
def test_a_policy_of_another_type_is_an_error(policy):
    with pytest.raises(TypeError, match="policy"):
        memlimits.set_memory_policy(policy)
    assert memory.get_memory_policy() == "guideline"


@pytest.mark.parametrize("numbers", [[10, 0, 2**63 - 1, 1, 10 * MIB]])
def test_setters_return_the_previous_value(numbers):
    previous = memlimits.get_memory_limit()
    memlimits.set_cache_limit(previous)
    for number in numbers:
        assert memlimits.set_memory_limit(number) == previous
        assert memlimits.set_cache_limit(number) == previous
        assert memlimits.get_memory_limit() == memlimits.get_cache_limit() == number
        previous = number


def test_set_wired_limit_returns_the_previous_value():
    assert memlimits.set_wired_limit(8192) == 0
    assert memlimits.set_wired_limit(1) == 8192
    assert memlimits.get_wired_limit() == 1


def test_set_memory_policy_returns_a_value_that_it_accepts():
    assert memlimits.set_memory_policy("strict") == "guideline"
    previous = memlimits.set_memory_policy("strict")
    assert previous == "strict"
    assert memlimits.set_memory_policy(previous) == "strict"


def test_get_memory_policy_returns_a_value_that_the_setter_accepts():
    assert memlimits.get_memory_policy() == "guideline"
    memlimits.set_memory_policy("wait", timeout=2.5)
    policy = memlimits.get_memory_policy()
    assert (policy, policy.timeout) == ("wait", 2.5)
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_policy(policy)
    assert memlimits.get_memory_policy().timeout == 2.5
